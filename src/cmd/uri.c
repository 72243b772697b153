/* holdfast uri, holdfast sql: how to connect, and connecting. */
#include "cmd/cmd.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

/* Which nodes: one by name, or all. Returns 0, or the exit status. */
static int range(const struct hf_local *l, const char *node, unsigned *first, unsigned *last)
{
    int ordinal;

    *first = 0;
    *last = l->replicas - 1;
    if (node[0] == '\0')
        return 0;
    ordinal = hf_local_ordinal(l, node);
    if (ordinal < 0 || (unsigned)ordinal >= l->replicas) {
        fprintf(stderr, "holdfast: no node %s in cluster %s (hint: `holdfast status` lists them)\n", node,
                l->name);
        return 1;
    }
    *first = *last = (unsigned)ordinal;
    return 0;
}

int hf_cmd_uri(int argc, char **argv)
{
    char dir[HF_PATH_MAX] = "", node[HF_NAME_MAX] = "", uri[HF_URI_MAX];
    bool read_only = false, admin = false;
    const struct hf_option o[] = {
        HF_DIR_OPTION(dir),
        {"node", 0, HF_OPT_TEXT, node, sizeof node, 0, 0, NULL, "NODE",
         "through this node only (default: all, the first that answers)"},
        {"read-only", 0, HF_OPT_FLAG, &read_only, 0, 0, 0, NULL, NULL,
         "the ports that followers serve; what is read may be a moment old"},
        {"admin", 0, HF_OPT_FLAG, &admin, 0, 0, 0, NULL, NULL,
         "the role that may create roles and databases"},
    };
    const struct hf_usage u = {"[--node NODE] [--read-only] [--admin] [--dir DIR]",
                               "Prints one libpq URI and nothing else. It holds the password.\n", o,
                               sizeof o / sizeof *o};
    struct hf_error err;
    struct hf_local l;
    unsigned first, last;
    int status;

    if (!hf_cmd_parse(argc, argv, &u, NULL, &status))
        return status;
    if (hf_cmd_open(&l, dir, &err) != 0)
        return hf_cmd_fail(&err);
    status = range(&l, node, &first, &last);
    if (status == 0) {
        hf_cmd_uri_text(&l, first, last, read_only, admin, uri, sizeof uri);
        printf("%s\n", uri);
    }
    hf_local_free(&l);
    return status;
}

/* By environment, so that no password shows in the list of processes. */
static void connect_by_env(const struct hf_local *l, unsigned first, unsigned last, bool read_only,
                           bool admin)
{
    const struct hf_node_accounts *a = &l->accounts;
    char hosts[HF_MEMBERS_MAX * 16] = "", ports[HF_MEMBERS_MAX * 8] = "";
    size_t h = 0, p = 0;

    for (unsigned i = first; i <= last; i++) {
        h += (size_t)snprintf(hosts + h, sizeof hosts - h, "%s127.0.0.1", i > first ? "," : "");
        p += (size_t)snprintf(ports + p, sizeof ports - p, "%s%u", i > first ? "," : "",
                              hf_local_port(l, i, read_only ? HF_PORT_READ_ONLY : HF_PORT_SQL));
    }
    (void)setenv("PGHOST", hosts, 1);
    (void)setenv("PGPORT", ports, 1);
    (void)setenv("PGUSER", admin ? a->admin_role : a->app_role, 1);
    (void)setenv("PGPASSWORD", admin ? a->admin_password : a->app_password, 1);
    (void)setenv("PGDATABASE", a->app_database, 1);
    (void)unsetenv("PGSERVICE");
    (void)unsetenv("PGHOSTADDR");
}

int hf_cmd_sql(int argc, char **argv)
{
    char dir[HF_PATH_MAX] = "", node[HF_NAME_MAX] = "";
    bool read_only = false, admin = false;
    struct hf_option_list commands = {0};
    struct hf_operands rest = {.max = 8};
    const struct hf_option o[] = {
        HF_DIR_OPTION(dir),
        {"node", 0, HF_OPT_TEXT, node, sizeof node, 0, 0, NULL, "NODE",
         "through this node (default: any)"},
        {"command", 'c', HF_OPT_LIST, &commands, 0, 0, 0, NULL, "CMD",
         "run this and end; may be repeated"},
        {"read-only", 0, HF_OPT_FLAG, &read_only, 0, 0, 0, NULL, NULL, "on a follower"},
        {"admin", 0, HF_OPT_FLAG, &admin, 0, 0, 0, NULL, NULL, "as the admin role"},
    };
    const struct hf_usage u = {"[--node NODE] [-c CMD] [--read-only] [--admin] [--dir DIR] [-- ARGS]",
                               "Runs psql, connected to the cluster. ARGS go to psql as they are. The exit "
                               "status is psql's.\n",
                               o, sizeof o / sizeof *o};
    const char *args[2 * HF_OPTION_LIST_MAX + 16];
    struct hf_error err;
    struct hf_local l;
    unsigned first, last, n = 0;
    int status;

    if (!hf_cmd_parse(argc, argv, &u, &rest, &status))
        return status;
    if (hf_cmd_open(&l, dir, &err) != 0)
        return hf_cmd_fail(&err);
    status = range(&l, node, &first, &last);
    if (status != 0)
        return status;
    connect_by_env(&l, first, last, read_only, admin);
    args[n++] = "psql";
    for (unsigned i = 0; i < commands.n; i++) {
        args[n++] = "-c";
        args[n++] = commands.items[i];
    }
    for (unsigned i = 0; i < rest.n; i++)
        args[n++] = rest.items[i];
    args[n] = NULL;
    (void)execvp("psql", (char *const *)args);
    fprintf(stderr, "holdfast: sql: psql: %s (hint: on Debian `apt-get install postgresql-client`)\n",
            strerror(errno));
    return 1;
}
