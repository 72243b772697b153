#include "cmd/cmd.h"

#include <string.h>

#include "commit.h" /* made by Meson */

int hf_cmd_version(int argc, char **argv)
{
    bool json = false;
    const struct hf_option o[] = {
        {"json", 0, HF_OPT_FLAG, &json, 0, 0, 0, NULL, NULL, "as {\"version\": ..., \"commit\": ...}"},
    };
    const struct hf_usage u = {"[--json]", "Prints the version of this program, and the commit it was built from: -dirty if that was changed.\n", o, 1};
    int status;

    if (!hf_cmd_parse(argc, argv, &u, NULL, &status))
        return status;
    if (json)
        printf("{\"version\":\"%s\",\"commit\":\"%s\"}\n", HF_VERSION, HF_COMMIT);
    else
        printf(HF_COMMIT[0] != '\0' ? "holdfast %s (commit %s)\n" : "holdfast %s\n", HF_VERSION, HF_COMMIT);
    return 0;
}

int hf_cmd_help(int argc, char **argv)
{
    if (argc > 1) {
        for (const struct hf_verb *v = hf_verbs; v->name != NULL; v++) {
            char help[] = "--help";
            char *args[] = {argv[1], help, NULL};
            if (strcmp(v->name, argv[1]) == 0 && v->run != hf_cmd_help)
                return v->run(2, args);
        }
        if (strcmp(argv[1], "help") != 0 && argv[1][0] != '-') {
            fprintf(stderr, "holdfast: no verb '%s' (hint: `holdfast help`)\n", argv[1]);
            return 2;
        }
    }
    printf("Holdfast: a PostgreSQL cluster that survives the loss of any minority of its nodes.\n\n"
           "usage: holdfast VERB [flags]\n\n");
    for (const struct hf_verb *v = hf_verbs; v->name != NULL; v++)
        printf("  %-12s %s\n", v->name, v->summary);
    printf("\n`holdfast VERB --help` tells all about one. Exit status: 0 done, 1 failed, 2 wrong usage.\n");
    return 0;
}
