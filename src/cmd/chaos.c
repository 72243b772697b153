/* holdfast chaos: hurts a cluster of this machine in ways that it must survive, while clients write, and says
 * whether anything acknowledged was lost. One fault at a time, the next only when the cluster is whole. */
#include "cmd/cmd.h"

#include <errno.h>
#include <inttypes.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/pidfd.h>
#include <unistd.h>

#include "cmd/chaos_ledger.h"

enum {
    ASK_MS = 1000,
    SWITCH_MS = 30000,
    WHOLE_MS = 60000,   /* a copy of all data may be part of it */
    POLL_MS = 50,
    ROWS_PER_S = 4000,  /* bound on what the ledger can hold */
    FAULTS_MAX = 4096,
};

enum fault { KILL_NODE, STOP_NODE, SWITCHOVER, KILL_POSTGRES, N_FAULTS };

static const char *const fault_names[N_FAULTS] = {"kill node", "stop node", "switchover",
                                                  "kill PostgreSQL"};

struct done {
    enum fault fault;
    unsigned node, stop_ms;
    bool leader;
    unsigned long at_ms, gap_ms, whole_ms;
};

struct chaos {
    struct hf_local local;
    struct hf_chaos_ledger *ledger;
    uint64_t random;
    unsigned seed, seconds, clients;
    bool json;
    unsigned long begun_ms;
    unsigned n_done;
    struct done done[FAULTS_MAX];
};

/* splitmix64: the same seed, the same faults. */
static uint64_t draw(struct chaos *c)
{
    uint64_t z = c->random += 0x9e3779b97f4a7c15ull;

    z = (z ^ z >> 30) * 0xbf58476d1ce4e5b9ull;
    z = (z ^ z >> 27) * 0x94d049bb133111ebull;
    return z ^ z >> 31;
}

/* -- looking ----------------------------------------------------------------------------------------- */

/* The leader's ordinal if its gate is open, everybody votes and all others stream; else -1. */
static int whole(const struct hf_local *l)
{
    struct hf_view_all v;
    int leader;

    hf_cmd_look(l, ASK_MS, &v);
    leader = v.open ? v.leader : -1;
    for (unsigned i = 0; i < v.n && leader >= 0; i++) {
        const json_t *s = v.nodes[i].status;
        if (s == NULL || !json_is_true(json_object_get(s, "voter")) ||
            ((int)i != leader && strcmp(hf_json_text(s, "state"), "streaming") != 0))
            leader = -1;
    }
    hf_cmd_look_free(&v);
    return leader;
}

static int wait_whole(const struct hf_local *l, struct hf_error *err)
{
    unsigned long end = hf_cmd_now_ms() + WHOLE_MS;
    int leader;

    while ((leader = whole(l)) < 0) {
        if (hf_cmd_now_ms() > end)
            return hf_fail(err, HF_ETIMEOUT,
                           "cluster %s: not every node is up and streaming, for %d s now (hint: `holdfast "
                           "status`; chaos hurts only a cluster that is whole)", l->name, WHOLE_MS / 1000);
        hf_cmd_sleep_ms(POLL_MS);
    }
    return leader;
}

/* -- hurting ----------------------------------------------------------------------------------------- */

static int signal_node(const struct hf_local *l, unsigned node, int sig, struct hf_error *err)
{
    char name[HF_NAME_MAX];
    int rv;

    hf_local_node_name(l, node, name);
    rv = hf_cmd_ask_supervisor(l, json_pack("{s:s,s:s,s:i,s:b,s:b}", "op", "kill", "node", name, "signal",
                                            sig, "group", 0, "restart", 1), 5 * ASK_MS, NULL, err);
    return rv;
}

static int stop_node(const struct hf_local *l, const struct done *d, struct hf_error *err)
{
    int rv = signal_node(l, d->node, SIGSTOP, err);

    if (rv != 0)
        return rv;
    hf_cmd_sleep_ms(d->stop_ms);
    return signal_node(l, d->node, SIGCONT, err);
}

/* Is this process the PostgreSQL of that data directory? A pid file alone proves nothing. */
static bool is_postmaster_of(pid_t pid, const char *data)
{
    char path[64], line[HF_PATH_MAX + 256];
    size_t n;
    FILE *f;

    (void)snprintf(path, sizeof path, "/proc/%d/cmdline", (int)pid);
    f = fopen(path, "re");
    if (f == NULL)
        return false;
    n = fread(line, 1, sizeof line - 1, f);
    (void)fclose(f);
    line[n] = '\0';
    for (size_t at = 0; at < n; at += strlen(line + at) + 1)
        if (strcmp(line + at, data) == 0)
            return true;
    return false;
}

static int kill_postgres(const struct hf_local *l, unsigned node, struct hf_error *err)
{
    char data[HF_PATH_MAX], path[HF_PATH_MAX];
    int pid = 0, fd, rv = 0;
    FILE *f;

    hf_local_node_path(l, node, "data", data);
    hf_local_node_path(l, node, "data/postmaster.pid", path);
    f = fopen(path, "re");
    if (f == NULL)
        return hf_fail(err, HF_EIO, "%s: %s", path, strerror(errno));
    if (fscanf(f, "%d", &pid) != 1)
        pid = 0;
    (void)fclose(f);
    /* The descriptor first: what it names cannot become another process after the look. */
    fd = pid > 1 ? pidfd_open(pid, 0) : -1;
    if (fd < 0 || !is_postmaster_of(pid, data))
        rv = hf_fail(err, HF_ENOENT, "%s: names no PostgreSQL of this directory", path);
    else if (pidfd_send_signal(fd, SIGKILL, NULL, 0) != 0)
        rv = hf_fail(err, HF_EPERM, "%s: process %d: %s", path, pid, strerror(errno));
    if (fd >= 0)
        close(fd);
    return rv;
}

static int hand_over(const struct hf_local *l, unsigned leader, unsigned to, struct hf_error *err)
{
    char name[HF_NAME_MAX];
    int rv;

    hf_local_node_name(l, to, name);
    rv = hf_cmd_ask_node(l, leader, json_pack("{s:s,s:s}", "op", "switchover", "to", name), SWITCH_MS,
                         NULL, err);
    return rv == HF_ECLOSED ? 0 : rv; /* it may restart on the way */
}

static int hurt(struct chaos *c, struct done *d, unsigned leader, struct hf_error *err)
{
    switch (d->fault) {
    case KILL_NODE:
        return signal_node(&c->local, d->node, SIGKILL, err);
    case STOP_NODE:
        return stop_node(&c->local, d, err);
    case SWITCHOVER:
        return hand_over(&c->local, leader, d->node, err);
    default:
        return kill_postgres(&c->local, d->node, err);
    }
}

/* Every second fault is for the leader; a switchover goes to a follower. */
static void choose(struct chaos *c, struct done *d, unsigned leader)
{
    unsigned n = c->local.replicas;
    bool other = draw(c) % 2 != 0;
    unsigned step = n > 1 ? 1 + (unsigned)(draw(c) % (n - 1)) : 0;

    d->fault = (enum fault)(draw(c) % N_FAULTS);
    d->stop_ms = 100 + (unsigned)(draw(c) % 2900);
    if (d->fault == SWITCHOVER && n == 1)
        d->fault = KILL_NODE;
    d->node = d->fault == SWITCHOVER || other ? (leader + step) % n : leader;
    d->leader = d->node == leader;
}

static void tell(const struct chaos *c, const struct done *d)
{
    char name[HF_NAME_MAX], more[32] = "";

    if (c->json)
        return;
    hf_local_node_name(&c->local, d->node, name);
    if (d->fault == STOP_NODE)
        (void)snprintf(more, sizeof more, " %u ms", d->stop_ms);
    printf("%7.1f s  %-16s %-10s %-8s  longest wait %5lu ms, whole after %5.1f s%s\n",
           (double)d->at_ms / 1000, fault_names[d->fault], name, d->leader ? "leader" : "follower",
           d->gap_ms, (double)d->whole_ms / 1000, more);
    (void)fflush(stdout);
}

static int hurt_until(struct chaos *c, struct hf_error *err)
{
    unsigned long end = c->begun_ms + c->seconds * 1000ul;

    while (hf_cmd_now_ms() < end && c->n_done < FAULTS_MAX) {
        struct done *d = &c->done[c->n_done];
        int leader = wait_whole(&c->local, err);
        unsigned long hit;
        if (leader < 0)
            return leader;
        choose(c, d, (unsigned)leader);
        (void)hf_chaos_ledger_gap_ms(c->ledger);
        hit = hf_cmd_now_ms();
        d->at_ms = hit - c->begun_ms;
        if (hurt(c, d, (unsigned)leader, err) != 0)
            return err->code;
        hf_cmd_sleep_ms(2 * POLL_MS); /* for the first look to see it */
        if (wait_whole(&c->local, err) < 0)
            return err->code;
        d->whole_ms = hf_cmd_now_ms() - hit;
        d->gap_ms = hf_chaos_ledger_gap_ms(c->ledger);
        c->n_done++;
        tell(c, d);
        hf_cmd_sleep_ms(500 + (unsigned)(draw(c) % 1500));
    }
    return 0;
}

/* -- the report -------------------------------------------------------------------------------------- */

static void report_json(const struct chaos *c, const struct hf_chaos_verdict *v, bool ok)
{
    json_t *faults = json_array(), *o;

    for (unsigned i = 0; i < c->n_done; i++) {
        const struct done *d = &c->done[i];
        char name[HF_NAME_MAX];
        hf_local_node_name(&c->local, d->node, name);
        json_array_append_new(
            faults, json_pack("{s:s,s:s,s:s,s:I,s:I,s:I}", "fault", fault_names[d->fault], "node", name,
                              "role", d->leader ? "leader" : "follower", "at_ms", (json_int_t)d->at_ms,
                              "longest_wait_ms", (json_int_t)d->gap_ms, "whole_ms",
                              (json_int_t)d->whole_ms));
    }
    o = json_pack("{s:s,s:i,s:i,s:o,s:I,s:I,s:I,s:I,s:I,s:b}", "cluster", c->local.name, "seed",
                  (int)c->seed, "seconds", (int)c->seconds, "faults", faults, "acknowledged",
                  (json_int_t)v->acked, "unknown", (json_int_t)v->unknown, "lost", (json_int_t)v->lost,
                  "doubled", (json_int_t)v->doubled, "longest_wait_ms", (json_int_t)v->longest_ms, "ok",
                  (int)ok);
    (void)json_dumpf(o, stdout, JSON_INDENT(2) | JSON_PRESERVE_ORDER);
    printf("\n");
    json_decref(o);
}

static void report(const struct chaos *c, const struct hf_chaos_verdict *v)
{
    printf("\n%u faults; %" PRIu64 " rows acknowledged, %" PRIu64 " of unknown fate; longest time without an "
           "acknowledgement %lu ms\n", c->n_done, v->acked, v->unknown, v->longest_ms);
    printf("%" PRIu64 " acknowledged rows lost, %" PRIu64 " rows doubled\n", v->lost, v->doubled);
    if (v->lost != 0)
        printf("the first lost row is %" PRIu64 " (the table holdfast_chaos is kept)\n", v->first_lost);
}

static int run(struct chaos *c, struct hf_error *err)
{
    struct hf_chaos_verdict v;
    struct hf_error late;
    int rv = wait_whole(&c->local, err), checked;
    bool ok;

    if (rv < 0)
        return rv;
    c->ledger = hf_chaos_ledger_start(&c->local, c->clients, (uint64_t)ROWS_PER_S * (c->seconds + 120), err);
    if (c->ledger == NULL)
        return err->code;
    if (!c->json)
        printf("chaos on cluster %s for %u s, seed %u, %u clients\n\n", c->local.name, c->seconds, c->seed,
               c->clients);
    c->begun_ms = hf_cmd_now_ms();
    rv = hurt_until(c, err);
    hf_chaos_ledger_stop(c->ledger);
    /* Even if the cluster did not become whole: what it acknowledged is looked for. */
    checked = hf_chaos_ledger_check(c->ledger, &v, rv == 0 ? err : &late);
    ok = rv == 0 && checked == 0 && v.lost == 0 && v.doubled == 0 && v.acked > 0;
    if (checked == 0 && c->json)
        report_json(c, &v, ok);
    else if (checked == 0)
        report(c, &v);
    hf_chaos_ledger_free(c->ledger, ok);
    if (rv == 0 && checked == 0 && !ok)
        rv = hf_fail(err, HF_ECORRUPT, "cluster %s: %s (hint: keep its directory and logs)", c->local.name,
                     v.acked == 0 ? "no row was acknowledged" : "acknowledged rows were lost or doubled");
    return rv != 0 ? rv : checked;
}

int hf_cmd_chaos(int argc, char **argv)
{
    static struct chaos c;
    char dir[HF_PATH_MAX] = "";
    bool yes = false;
    const struct hf_option o[] = {
        HF_DIR_OPTION(dir),
        {"yes", 0, HF_OPT_FLAG, &yes, 0, 0, 0, NULL, NULL, "yes, hurt this cluster"},
        {"seed", 0, HF_OPT_NUMBER, &c.seed, 0, 0, 2000000000, NULL, "N",
         "decides the faults (default: the time)"},
        {"seconds", 0, HF_OPT_NUMBER, &c.seconds, 0, 1, 86400, NULL, "N",
         "no new fault after so long (default 60)"},
        {"clients", 0, HF_OPT_NUMBER, &c.clients, 0, 1, HF_CHAOS_CLIENTS_MAX, NULL, "N",
         "how many write meanwhile (default 4)"},
        {"json", 0, HF_OPT_FLAG, &c.json, 0, 0, 0, NULL, NULL, "the report for programs"},
    };
    const struct hf_usage u = {
        "--yes [--seed N] [--seconds N] [--clients N] [--json] [--dir DIR]",
        "Kills and freezes nodes, kills PostgreSQL and hands leadership over, one at a time and at random,\n"
        "while clients write numbered rows into the table holdfast_chaos of the application's database; then\n"
        "looks whether every acknowledged row is there once. Other clients of the cluster notice each change\n"
        "of leader. Exit status 1 if anything was lost, or the cluster did not become whole again.\n",
        o, sizeof o / sizeof *o};
    struct hf_error err = {0};
    int status, rv;

    c.seed = (unsigned)(hf_cmd_now_ms() % 1000000000ul);
    c.seconds = 60;
    c.clients = 4;
    if (!hf_cmd_parse(argc, argv, &u, NULL, &status))
        return status;
    if (!yes)
        return hf_cmd_wrong_usage("chaos", "this kills nodes of a running cluster; say --yes if you mean it");
    if (hf_cmd_open(&c.local, dir, &err) != 0)
        return hf_cmd_fail(&err);
    c.random = c.seed;
    /* A frozen node's kernel still takes connections: its clients go elsewhere, as yours should. */
    (void)setenv("PGCONNECT_TIMEOUT", "2", 0);
    rv = run(&c, &err);
    hf_local_free(&c.local);
    return rv == 0 ? 0 : hf_cmd_fail(&err);
}
