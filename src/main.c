/* The verbs' table, nothing else. */
#include <stdio.h>
#include <string.h>
#include <sys/prctl.h>

#include "cmd/cmd.h"

const struct hf_verb hf_verbs[] = {
    {"up", "start a cluster on this machine, or start it again", hf_cmd_up},
    {"down", "stop it; its data stays unless told otherwise", hf_cmd_down},
    {"status", "what each node is and does", hf_cmd_status},
    {"sql", "psql, connected to the cluster", hf_cmd_sql},
    {"uri", "print how a program connects", hf_cmd_uri},
    {"switchover", "hand leadership to another node", hf_cmd_switchover},
    {"kill", "send a signal to a node of this machine's cluster", hf_cmd_kill},
    {"start", "start a node that was killed", hf_cmd_start},
    {"chaos", "hurt it at random, and see whether anything is lost", hf_cmd_chaos},
    {"scale", "add or remove nodes", hf_cmd_scale},
    {"sessions", "who is connected, and since when", hf_cmd_sessions},
    {"logs", "what a node has logged", hf_cmd_logs},
    {"history", "who led when, and why that changed", hf_cmd_history},
    {"node", "run one node in the foreground", hf_cmd_node},
    {"certs", "make, check and rotate certificates", hf_cmd_certs},
    {"manifest", "print a cluster for Kubernetes, as YAML", hf_cmd_manifest},
    {"doctor", "find the traps in any database's manifests", hf_cmd_doctor},
    {"completion", "print the completion script of a shell", hf_cmd_completion},
    {"version", "print the version", hf_cmd_version},
    {"help", "this, or what a verb does", hf_cmd_help},
    {NULL, NULL, NULL},
};

int main(int argc, char **argv)
{
    const char *verb = argc > 1 ? argv[1] : "";

    (void)prctl(PR_SET_NAME, "holdfast"); /* in top and ps; after an exec of /proc/self/exe it would be "exe" */
    if (strcmp(verb, "--help") == 0 || strcmp(verb, "-h") == 0)
        verb = "help";
    if (strcmp(verb, "--version") == 0)
        verb = "version";
    for (const struct hf_verb *v = hf_verbs; v->name != NULL; v++)
        if (strcmp(v->name, verb) == 0)
            return v->run(argc - 1, argv + 1);
    if (verb[0] == '\0') {
        (void)hf_cmd_help(1, argv);
        return 2;
    }
    fprintf(stderr, "holdfast: no verb '%s' (hint: `holdfast help`)\n", verb);
    return 2;
}
