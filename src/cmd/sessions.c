/* holdfast sessions: who is connected, to which node, and since when; ends a session. */
#include "cmd/cmd.h"

#include <stdlib.h>
#include <string.h>
#include <time.h>

enum { ASK_MS = 3000 };

/* A node's sessions, made part of `all`. */
static void add_node(const char *name, const json_t *answer, bool carried, json_t *all)
{
    char id[HF_NAME_MAX + 24];
    json_t *s;
    size_t k;

    json_array_foreach(json_object_get(answer, "sessions"), k, s)
    {
        if (!carried && json_is_true(json_object_get(s, "carried")))
            continue;
        (void)snprintf(id, sizeof id, "%s/%lld", name, (long long)hf_json_number(s, "id"));
        (void)json_object_set_new(s, "id", json_string(id));
        (void)json_object_set_new(s, "node", json_string(name));
        (void)json_array_append(all, s);
    }
}

static void size_text(json_int_t bytes, char out[16])
{
    static const char *const units[] = {"B", "kB", "MB", "GB", "TB"};
    double v = (double)bytes;
    unsigned u = 0;

    while (v >= 10000 && u < 4) {
        v /= 1024;
        u++;
    }
    (void)snprintf(out, 16, "%.0f %s", v, units[u]);
}

/* Who serves it, where that is another node than the client's. */
static const char *place_of(const json_t *s)
{
    const char *at = hf_json_text(s, "at"), *server = hf_json_text(s, "server");

    return strcmp(at, "elsewhere") == 0 && server[0] != '\0' ? server : at;
}

static void print_sessions(const json_t *all)
{
    const json_t *s;
    size_t k;

    printf("%-14s %-21s %-12s %-12s %-9s %-15s %-17s %6s %-20s %8s %8s  %s\n", "ID", "CLIENT", "USER", "DATABASE",
           "AT", "STATE", "HOLDS", "PID", "SINCE (UTC)", "IN", "OUT", "TLS");
    json_array_foreach(all, k, s)
    {
        time_t since = (time_t)(hf_json_number(s, "since_ms") / 1000);
        char when[32] = "-", in[16], out[16], pid[16] = "-";
        struct tm tm;
        if (gmtime_r(&since, &tm) != NULL)
            (void)strftime(when, sizeof when, "%Y-%m-%d %H:%M:%S", &tm);
        if (hf_json_number(s, "pid") != 0)
            (void)snprintf(pid, sizeof pid, "%lld", (long long)hf_json_number(s, "pid"));
        size_text(hf_json_number(s, "bytes_in"), in);
        size_text(hf_json_number(s, "bytes_out"), out);
        printf("%-14s %-21s %-12s %-12s %-9s %-15s %-17s %6s %-20s %8s %8s  %s\n", hf_json_text(s, "id"),
               hf_json_text(s, "client"), hf_json_text(s, "user"), hf_json_text(s, "database"),
               place_of(s), hf_json_text(s, "state"), hf_json_text(s, "holds"), pid, when, in, out,
               json_is_true(json_object_get(s, "tls")) ? "yes" : "no");
    }
}

static int list(const struct hf_nodes *ns, bool json, bool carried)
{
    struct hf_nodes_answer answers[HF_MEMBERS_MAX];
    json_t *all = json_array(), *unreachable = json_array();
    size_t silent;

    hf_nodes_ask_all(ns, "sessions", ASK_MS, answers);
    for (unsigned i = 0; i < ns->n; i++) {
        const char *name = ns->nodes[i].name;
        if (answers[i].body != NULL) {
            add_node(name, answers[i].body, carried, all);
            json_decref(answers[i].body);
            continue;
        }
        (void)json_array_append_new(unreachable, json_pack("{s:s,s:s}", "node", name, "error", answers[i].why.text));
        if (!json)
            fprintf(stderr, "holdfast: %s: %s; its sessions are left out\n", name, answers[i].why.text);
    }
    silent = json_array_size(unreachable);
    if (json) {
        json_t *o = json_pack("{s:O,s:O}", "sessions", all, "unreachable", unreachable);
        (void)json_dumpf(o, stdout, JSON_INDENT(2) | JSON_PRESERVE_ORDER);
        printf("\n");
        json_decref(o);
    } else if (silent < ns->n) {
        print_sessions(all);
    }
    json_decref(unreachable);
    json_decref(all);
    return silent == 0 ? 0 : 1;
}

static int end_session(const struct hf_nodes *ns, const char *id)
{
    const char *slash = strchr(id, '/');
    char node[HF_NAME_MAX] = "", *end = NULL;
    struct hf_error err;
    long long number;
    int i, rv;

    if (slash != NULL && (size_t)(slash - id) < sizeof node)
        memcpy(node, id, (size_t)(slash - id));
    number = slash != NULL ? strtoll(slash + 1, &end, 10) : 0;
    if (number <= 0 || *end != '\0' || node[0] == '\0')
        return hf_cmd_wrong_usage("sessions", "--kill takes an ID as `holdfast sessions` prints it: demo-0/12");
    i = hf_nodes_find(ns, node, &err);
    if (i < 0)
        return hf_cmd_fail(&err);
    rv = hf_nodes_ask(ns, (unsigned)i, json_pack("{s:s,s:I}", "op", "end-session", "id", (json_int_t)number), ASK_MS,
                      NULL, &err);
    return rv == 0 ? 0 : hf_cmd_fail(&err);
}

int hf_cmd_sessions(int argc, char **argv)
{
    char dir[HF_PATH_MAX] = "", id[HF_NAME_MAX + 24] = "";
    bool json = false, carried = false;
    const struct hf_option o[] = {
        HF_NODES_DIR_OPTION(dir),
        {"json", 0, HF_OPT_FLAG, &json, 0, 0, 0, NULL, NULL, "for programs"},
        {"all", 0, HF_OPT_FLAG, &carried, 0, 0, 0, NULL, NULL,
         "also the other halves: sessions that a node serves for clients of another node"},
        {"kill", 0, HF_OPT_TEXT, id, sizeof id, 0, 0, NULL, "ID", "end that session"},
    };
    const struct hf_usage u = {
        "[--json] [--all] [--kill ID] [--dir DIR]",
        "Prints each client's session: the node it is connected to and its number there, the client's address, user\n"
        "and database, where it is served (at the leader, a follower, another node by its name, or held until there\n"
        "is a leader), what it does, whether it is free or what pins it to its server connection, PostgreSQL's process, since when, and the bytes from and to the client.\n\n"
        "In any pod (kubectl exec demo-0 -- holdfast sessions) the others are asked through the node there.\n"
        "Exit status 1: a node did not answer, and its sessions are left out.\n",
        o, sizeof o / sizeof *o};
    struct hf_error err;
    struct hf_nodes ns;
    int status;

    if (!hf_cmd_parse(argc, argv, &u, NULL, &status))
        return status;
    if (hf_nodes_open(&ns, dir, &err) != 0)
        return hf_cmd_fail(&err);
    return id[0] != '\0' ? end_session(&ns, id) : list(&ns, json, carried);
}
