/* holdfast logs: a node's log, or its PostgreSQL's. */
#include "cmd/cmd.h"

#include <errno.h>
#include <string.h>
#include <unistd.h>

int hf_cmd_logs(int argc, char **argv)
{
    char dir[HF_PATH_MAX] = "", path[HF_PATH_MAX], count[16];
    bool follow = false, postgres = false;
    unsigned lines = 200;
    struct hf_operands nodes = {.max = 1};
    const struct hf_option o[] = {
        HF_DIR_OPTION(dir),
        {"lines", 'n', HF_OPT_NUMBER, &lines, 0, 0, 1000000, NULL, "N", "the last N lines (default 200)"},
        {"follow", 'f', HF_OPT_FLAG, &follow, 0, 0, 0, NULL, NULL, "go on with what is written next"},
        {"postgresql", 0, HF_OPT_FLAG, &postgres, 0, 0, 0, NULL, NULL,
         "the log of the node's PostgreSQL instead"},
    };
    const struct hf_usage u = {"NODE [--follow] [--postgresql] [--lines N] [--dir DIR]",
                               "Prints the end of a node's log.\n", o, sizeof o / sizeof *o};
    struct hf_error err;
    struct hf_local l;
    int status, ordinal;

    if (!hf_cmd_parse(argc, argv, &u, &nodes, &status))
        return status;
    if (nodes.n != 1)
        return hf_cmd_wrong_usage("logs", "which node?");
    if (hf_cmd_open(&l, dir, &err) != 0)
        return hf_cmd_fail(&err);
    ordinal = hf_local_ordinal(&l, nodes.items[0]);
    if (ordinal < 0) {
        fprintf(stderr, "holdfast: no node %s in cluster %s (hint: `holdfast status` lists them)\n",
                nodes.items[0], l.name);
        return 1;
    }
    hf_local_node_path(&l, (unsigned)ordinal, postgres ? "log/postgresql.log" : "log/node.log", path);
    (void)snprintf(count, sizeof count, "%u", lines);
    if (access(path, R_OK) != 0) {
        fprintf(stderr, "holdfast: %s: %s\n", path, strerror(errno));
        return 1;
    }
    if (follow)
        (void)execlp("tail", "tail", "-n", count, "-F", path, (char *)NULL);
    else
        (void)execlp("tail", "tail", "-n", count, path, (char *)NULL);
    fprintf(stderr, "holdfast: tail: %s\n", strerror(errno));
    return 1;
}
