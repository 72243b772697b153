/* holdfast status: what each node is and does, from all that answer. */
#include "cmd/cmd.h"

#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum { ASK_MS = 1000, WATCH_MS = 1000 };

/* What the leader says of a node, else what anybody does; NULL: nobody knows it. */
static const json_t *member_of(const struct hf_view_all *v, const char *name)
{
    const json_t *best = NULL, *m;
    size_t k;

    for (unsigned i = 0; i < v->n; i++) {
        const json_t *list = json_object_get(v->nodes[i].status, "members");
        if (list == NULL || (best != NULL && (int)i != v->leader))
            continue;
        json_array_foreach(list, k, m)
            if (strcmp(hf_json_text(m, "name"), name) == 0)
                best = m;
    }
    return best;
}

static json_int_t lag_of(const struct hf_view_all *v, unsigned i, const json_t *member)
{
    const json_t *self = v->nodes[i].status;
    json_int_t behind = 0;

    if ((int)i == v->leader)
        return 0;
    if (v->leader >= 0 && self != NULL)
        behind = hf_json_number(v->nodes[v->leader].status, "lsn") - hf_json_number(self, "lsn");
    if (member != NULL && json_is_true(json_object_get(member, "streaming")))
        behind = hf_json_number(member, "lag_bytes");
    return behind > 0 ? behind : 0;
}

/* The node as it is printed and as --json gives it. */
static json_t *row(const struct hf_nodes *ns, const struct hf_view_all *v, unsigned i)
{
    const json_t *s = v->nodes[i].status, *m = member_of(v, v->nodes[i].name);
    const char *sql = ns->nodes[i].sql;
    char lsn[32];
    json_t *o;

    if (s == NULL)
        return json_pack("{s:s,s:s,s:n,s:b,s:n,s:n,s:s,s:b,s:s}", "name", v->nodes[i].name, "role",
                         "none", "state", "voter", (int)json_is_true(json_object_get(m, "voter")), "lsn",
                         "lag_bytes", "sql", sql, "reachable", 0, "error", v->nodes[i].why.text);
    hf_lsn_text(hf_json_number(s, "lsn"), lsn);
    o = json_pack("{s:s,s:s,s:s,s:b,s:s,s:I,s:s,s:b}", "name", v->nodes[i].name, "role",
                  hf_json_text(s, "role"), "state", hf_json_text(s, "state"), "voter",
                  (int)json_is_true(json_object_get(s, "voter")), "lsn", lsn, "lag_bytes",
                  lag_of(v, i, m), "sql", hf_json_text(s, "sql")[0] ? hf_json_text(s, "sql") : sql,
                  "reachable", 1);
    if (o == NULL)
        return NULL;
    static const char *const more[] = {"id", "epoch", "timeline", "gate", "lease_ms", "pg_version",
                                       "work", "rss_kb", "leader", "guarded"};
    for (size_t k = 0; k < sizeof more / sizeof *more; k++) {
        json_t *value = json_object_get(s, more[k]);
        if (value != NULL)
            (void)json_object_set(o, more[k], value);
    }
    return o;
}

static json_t *all(const struct hf_nodes *ns, const struct hf_view_all *v)
{
    json_t *nodes = json_array(), *o;
    const char *id = "";

    for (unsigned i = 0; i < v->n; i++) {
        (void)json_array_append_new(nodes, row(ns, v, i));
        if (hf_json_text(v->nodes[i].status, "cluster")[0] != '\0')
            id = hf_json_text(v->nodes[i].status, "cluster");
    }
    o = json_pack("{s:s,s:s,s:I,s:o}", "cluster", ns->cluster, "id", id, "epoch", v->epoch, "nodes", nodes);
    if (o != NULL)
        (void)json_object_set_new(o, "leader",
                                  v->leader >= 0 ? json_string(v->nodes[v->leader].name) : json_null());
    return o;
}

/* -- for people -------------------------------------------------------------------------------------- */

static void lag_text(const json_t *n, char out[24])
{
    json_int_t b = hf_json_number(n, "lag_bytes");

    if (b < 10 * 1024)
        (void)snprintf(out, 24, "%lld B", (long long)b);
    else if (b < 10 * 1024 * 1024)
        (void)snprintf(out, 24, "%lld kB", (long long)b / 1024);
    else
        (void)snprintf(out, 24, "%lld MB", (long long)b / 1024 / 1024);
}

static const char *colour(const json_t *n, bool colours)
{
    const char *state = hf_json_text(n, "state");

    if (!colours)
        return "";
    if (strcmp(state, "open") == 0)
        return "\033[1;32m";
    if (strcmp(state, "streaming") == 0)
        return "\033[32m";
    return json_is_true(json_object_get(n, "reachable")) ? "\033[33m" : "\033[31m";
}

/* Of the column SQL: names of pods are long. */
static int sql_width(const json_t *nodes)
{
    size_t i, width = 16;
    const json_t *n;

    json_array_foreach(nodes, i, n)
        if (strlen(hf_json_text(n, "sql")) > width)
            width = strlen(hf_json_text(n, "sql"));
    return (int)width;
}

static void print_row(const json_t *n, int width, bool colours)
{
    char lag[24], lease[24] = "-";
    const char *end = colours ? "\033[0m" : "";

    if (!json_is_true(json_object_get(n, "reachable"))) {
        printf("%-14s %s%-9s %-10s%s %-8s  %s\n", hf_json_text(n, "name"), colour(n, colours), "-",
               "unreachable", end, json_is_true(json_object_get(n, "voter")) ? "voter" : "-",
               hf_json_text(n, "error"));
        return;
    }
    lag_text(n, lag);
    if (strcmp(hf_json_text(n, "role"), "leader") == 0)
        (void)snprintf(lease, sizeof lease, "%s %lld ms", hf_json_text(n, "gate"),
                       (long long)hf_json_number(n, "lease_ms"));
    printf("%-14s %s%-9s %-10s%s  %-8s %5lld  %-12s %8s  %-14s %-*s %s\n", hf_json_text(n, "name"),
           colour(n, colours), hf_json_text(n, "role"), hf_json_text(n, "state"), end,
           json_is_true(json_object_get(n, "voter")) ? "voter" : "learner",
           (long long)hf_json_number(n, "epoch"), hf_json_text(n, "lsn"), lag, lease,
           width, hf_json_text(n, "sql"), hf_json_text(n, "pg_version"));
}

static void print_all(const json_t *o, bool colours)
{
    const json_t *nodes = json_object_get(o, "nodes"), *n;
    const char *leader = hf_json_text(o, "leader");
    int width = sql_width(nodes);
    size_t i;

    printf("cluster %s  epoch %lld  leader %s\n\n", hf_json_text(o, "cluster"),
           (long long)hf_json_number(o, "epoch"), leader[0] != '\0' ? leader : "none");
    printf("%-14s %-9s %-10s  %-8s %5s  %-12s %8s  %-14s %-*s %s\n", "NODE", "ROLE", "STATE", "VOTES",
           "EPOCH", "LSN", "LAG", "GATE, LEASE", width, "SQL", "POSTGRESQL");
    json_array_foreach(nodes, i, n)
        print_row(n, width, colours);
}

/* Only what is worth a word: nodes whose PostgreSQL runs without the guard (S11). */
static void print_unguarded(const json_t *o)
{
    const json_t *n;
    bool any = false;
    size_t i;

    json_array_foreach(json_object_get(o, "nodes"), i, n) {
        if (!json_is_false(json_object_get(n, "guarded")))
            continue;
        printf("%s%s", any ? ", " : "\nwithout the guard: ", hf_json_text(n, "name"));
        any = true;
    }
    if (any)
        printf(" (hint: docs/operations.md, \"The guard\")\n");
}

static int once(const struct hf_nodes *ns, bool json, bool colours)
{
    struct hf_view_all v;
    unsigned reachable = 0;
    struct hf_error err;
    json_t *o;

    hf_nodes_look(ns, ASK_MS, &v);
    for (unsigned i = 0; i < v.n; i++)
        reachable += v.nodes[i].status != NULL;
    o = all(ns, &v);
    hf_cmd_look_free(&v);
    if (o == NULL) {
        fprintf(stderr, "holdfast: status: out of memory\n");
        return 1;
    }
    if (json) {
        (void)json_dumpf(o, stdout, JSON_INDENT(2) | JSON_PRESERVE_ORDER);
        printf("\n");
    } else {
        print_all(o, colours);
        print_unguarded(o);
    }
    json_decref(o);
    if (reachable == 0 && !json) {
        (void)hf_nodes_silent(ns, &err);
        return hf_cmd_fail(&err);
    }
    return reachable > 0 ? 0 : 1;
}

int hf_cmd_status(int argc, char **argv)
{
    char dir[HF_PATH_MAX] = "";
    bool json = false, watch = false, terminal;
    const struct hf_option o[] = {
        HF_NODES_DIR_OPTION(dir),
        {"json", 0, HF_OPT_FLAG, &json, 0, 0, 0, NULL, NULL, "for programs (docs/operations.md)"},
        {"watch", 'w', HF_OPT_FLAG, &watch, 0, 0, 0, NULL, NULL, "again every second, until Ctrl-C"},
    };
    const struct hf_usage u = {
        "[--json] [--watch] [--dir DIR]",
        "Asks every node of the cluster and prints what it is and does.\n\n"
        "  ROLE   leader, follower, or none (it follows nobody at the moment)\n"
        "  STATE  open: a leader whose gate lets clients through; shut: a leader whose gate does not;\n"
        "         streaming: a follower that receives WAL; stalled: one that does not; starting;\n"
        "         cloning; rewinding\n"
        "  LAG    WAL of the leader that the node has not flushed yet\n"
        "  GATE, LEASE  of the leader: its gate, and for how long a majority has promised\n\n"
        "In any pod (kubectl exec demo-0 -- holdfast status) the others are asked through the node there.\n\n"
        "Exit status 1: no node answers.\n",
        o, sizeof o / sizeof *o};
    struct hf_error err;
    struct hf_nodes ns;
    int status;

    if (!hf_cmd_parse(argc, argv, &u, NULL, &status))
        return status;
    terminal = hf_cmd_is_terminal(stdout);
    for (;;) {
        if (hf_nodes_open(&ns, dir, &err) != 0) /* each time: it may grow or shrink meanwhile */
            return hf_cmd_fail(&err);
        if (watch && terminal)
            printf("\033[H\033[2J");
        status = once(&ns, json, terminal && !json);
        (void)fflush(stdout);
        if (!watch)
            return status;
        hf_cmd_sleep_ms(WATCH_MS);
    }
}
