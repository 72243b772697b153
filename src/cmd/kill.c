/* holdfast kill, holdfast start: hurt a node of this machine's cluster, and bring it back. */
#include "cmd/cmd.h"

#include <ctype.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

#include "local/lock.h"

enum { ASK_MS = 5000, GONE_MS = 30000, POLL_MS = 20 };

static int signal_number(const char *text)
{
    static const struct {
        const char *name;
        int number;
    } known[] = {{"KILL", SIGKILL}, {"TERM", SIGTERM}, {"QUIT", SIGQUIT}, {"INT", SIGINT},
                 {"STOP", SIGSTOP}, {"CONT", SIGCONT}, {"HUP", SIGHUP},   {"ABRT", SIGABRT},
                 {"SEGV", SIGSEGV}, {"USR1", SIGUSR1}, {"USR2", SIGUSR2}};

    if (isdigit((unsigned char)text[0]) && strlen(text) <= 2)
        return atoi(text);
    if (strncasecmp(text, "SIG", 3) == 0)
        text += 3;
    for (size_t i = 0; i < sizeof known / sizeof *known; i++)
        if (strcasecmp(known[i].name, text) == 0)
            return known[i].number;
    return -1;
}

static bool ends_a_process(int sig)
{
    return sig == SIGKILL || sig == SIGTERM || sig == SIGINT || sig == SIGQUIT || sig == SIGABRT ||
           sig == SIGSEGV;
}

static void wait_until_gone(const struct hf_local *l, const char *node)
{
    unsigned long end = hf_cmd_now_ms() + GONE_MS;
    char lock[HF_PATH_MAX];
    struct hf_lock_pids pids;
    int ordinal = hf_local_ordinal(l, node);

    hf_local_node_path(l, (unsigned)ordinal, "node.lock", lock);
    while (hf_lock_look(lock, &pids) && hf_cmd_now_ms() < end)
        hf_cmd_sleep_ms(POLL_MS);
}

int hf_cmd_kill(int argc, char **argv)
{
    char dir[HF_PATH_MAX] = "", signame[16] = "KILL";
    bool group = false, restart = false;
    struct hf_operands nodes = {.max = 1};
    const struct hf_option o[] = {
        HF_DIR_OPTION(dir),
        {"signal", 's', HF_OPT_TEXT, signame, sizeof signame, 0, 0, NULL, "SIGNAL",
         "KILL, TERM, STOP, CONT, ... or a number (default KILL)"},
        {"group", 0, HF_OPT_FLAG, &group, 0, 0, 0, NULL, NULL,
         "to the node's whole process group, its sentinel included"},
        {"restart", 0, HF_OPT_FLAG, &restart, 0, 0, 0, NULL, NULL,
         "let it be started again, as after any crash"},
    };
    const struct hf_usage u = {
        "NODE [--signal SIGNAL] [--group] [--restart] [--dir DIR]",
        "Sends a signal to the process of a node, as chance might. It stays down until `holdfast start\n"
        "NODE`, or `holdfast down` and `holdfast up`, unless --restart. With KILL its sentinel tells the\n"
        "other nodes at once and ends its PostgreSQL; with --group the sentinel dies too. TERM hands\n"
        "leadership over first. STOP and CONT freeze and thaw it.\n",
        o, sizeof o / sizeof *o};
    struct hf_error err;
    struct hf_local l;
    int status, sig, rv;

    if (!hf_cmd_parse(argc, argv, &u, &nodes, &status))
        return status;
    if (nodes.n != 1)
        return hf_cmd_wrong_usage("kill", "which node?");
    sig = signal_number(signame);
    if (sig < 1)
        return hf_cmd_wrong_usage("kill", "no such signal");
    if (hf_cmd_open(&l, dir, &err) != 0)
        return hf_cmd_fail(&err);
    rv = hf_cmd_ask_supervisor(&l,
                               json_pack("{s:s,s:s,s:i,s:b,s:b}", "op", "kill", "node", nodes.items[0],
                                         "signal", sig, "group", (int)group, "restart",
                                         (int)(restart || !ends_a_process(sig))),
                               ASK_MS, NULL, &err);
    if (rv == 0 && ends_a_process(sig) && !restart)
        wait_until_gone(&l, nodes.items[0]);
    hf_local_free(&l);
    return rv == 0 ? 0 : hf_cmd_fail(&err);
}

int hf_cmd_start(int argc, char **argv)
{
    char dir[HF_PATH_MAX] = "";
    struct hf_operands nodes = {.max = 1};
    const struct hf_option o[] = {HF_DIR_OPTION(dir)};
    const struct hf_usage u = {"NODE [--dir DIR]",
                               "Starts a node that `holdfast kill` stopped. One that runs is left alone.\n",
                               o, 1};
    struct hf_error err;
    struct hf_local l;
    json_t *answer = NULL;
    int status, rv;

    if (!hf_cmd_parse(argc, argv, &u, &nodes, &status))
        return status;
    if (nodes.n != 1)
        return hf_cmd_wrong_usage("start", "which node?");
    if (hf_cmd_open(&l, dir, &err) != 0)
        return hf_cmd_fail(&err);
    rv = hf_cmd_ask_supervisor(&l, json_pack("{s:s,s:s}", "op", "start", "node", nodes.items[0]), ASK_MS,
                               &answer, &err);
    if (rv == 0 && json_is_true(json_object_get(answer, "ran")))
        printf("%s runs already\n", nodes.items[0]);
    json_decref(answer);
    hf_local_free(&l);
    return rv == 0 ? 0 : hf_cmd_fail(&err);
}
