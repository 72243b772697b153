/* holdfast chaos: hurts a cluster of this machine in ways that it must survive, while clients write, and says
 * whether anything acknowledged was lost. One fault at a time, the next only when the cluster is whole. */
#include "cmd/chaos.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "cmd/cmd.h"

enum {
    ASK_MS = 1000,
    POLL_MS = 50,
    COPIES_MS = 5000,
    WHOLE_S = 60,       /* a copy of all data may be part of it */
    ROWS_PER_S = 4000,  /* bound on what the ledger can hold */
};

/* splitmix64: the same seed, the same faults. */
static uint64_t draw(struct hf_chaos *c)
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

/* Returns the leader, or an error. An interrupt ends it only while nothing has been done to the cluster. */
static int wait_whole(struct hf_chaos *c, struct hf_error *err)
{
    unsigned long end = hf_cmd_now_ms() + c->whole_s * 1000ul;
    int leader;

    while ((leader = whole(&c->local)) < 0) {
        if (c->begun_ms == 0 && hf_chaos_interrupted(&c->interrupt) != 0)
            return hf_fail(err, HF_ECLOSED, "chaos: interrupted; cluster %s was left alone", c->local.name);
        if (hf_cmd_now_ms() > end)
            return hf_fail(err, HF_ETIMEOUT,
                           "cluster %s: not every node is up and streaming, for %u s now (hint: `holdfast "
                           "status`; chaos hurts only a cluster that is whole)", c->local.name, c->whole_s);
        hf_cmd_sleep_ms(POLL_MS);
    }
    return leader;
}

/* -- hurting ----------------------------------------------------------------------------------------- */

/* Every second fault is for the leader; a switchover goes to a follower. */
static void choose(struct hf_chaos *c, struct hf_chaos_done *d, unsigned leader)
{
    unsigned n = c->local.replicas;
    bool other = draw(c) % 2 != 0;
    unsigned step = n > 1 ? 1 + (unsigned)(draw(c) % (n - 1)) : 0;

    d->fault = (enum hf_chaos_fault)(draw(c) % HF_CHAOS_N_FAULTS);
    d->stop_ms = 100 + (unsigned)(draw(c) % 2900);
    if (d->fault == HF_CHAOS_SWITCHOVER && n == 1)
        d->fault = HF_CHAOS_KILL_NODE;
    d->node = d->fault == HF_CHAOS_SWITCHOVER || other ? (leader + step) % n : leader;
    d->leader = d->node == leader;
}

/* One fault, and the wait for what the cluster makes of it. */
static int hurt_once(struct hf_chaos *c, unsigned leader, struct hf_error *err)
{
    struct hf_chaos_done *d = &c->done[c->n_done++];
    unsigned long hit;
    struct hf_error late;
    int rv, again;

    choose(c, d, leader);
    (void)hf_chaos_ledger_gap_ms(c->ledger);
    hit = hf_cmd_now_ms();
    d->at_ms = hit - c->begun_ms;
    rv = hf_chaos_hurt(c, d, leader, err);
    hf_cmd_sleep_ms(2 * POLL_MS); /* for the first look to see it */
    again = wait_whole(c, rv == 0 ? err : &late);
    d->whole = again >= 0;
    d->whole_ms = hf_cmd_now_ms() - hit;
    d->gap_ms = hf_chaos_ledger_gap_ms(c->ledger);
    hf_chaos_tell(c, d);
    return rv != 0 ? rv : again < 0 ? again : 0;
}

static int hurt_until(struct hf_chaos *c, struct hf_error *err)
{
    unsigned long end = c->begun_ms + c->seconds * 1000ul;

    while (hf_cmd_now_ms() < end && c->n_done < HF_CHAOS_FAULTS_MAX) {
        int leader = wait_whole(c, err), rv;
        if (leader < 0)
            return leader;
        if (hf_chaos_interrupted(&c->interrupt) != 0)
            return 0;
        rv = hurt_once(c, (unsigned)leader, err);
        if (rv != 0)
            return rv;
        hf_chaos_interrupt_pause(&c->interrupt, 500 + (unsigned)(draw(c) % 1500));
    }
    return 0;
}

static int run(struct hf_chaos *c, struct hf_error *err)
{
    struct hf_chaos_verdict v = {.n_copies = 0};
    struct hf_error late;
    int rv = wait_whole(c, err), checked;
    bool ok;

    if (rv < 0) {
        if (c->json)
            hf_chaos_report(c, &v, false);
        return rv;
    }
    c->ledger = hf_chaos_ledger_start(&c->local, c->clients, (uint64_t)ROWS_PER_S * (c->seconds + 120), err);
    if (c->ledger == NULL)
        return err->code;
    if (!c->json)
        printf("chaos on cluster %s for %u s, seed %u, %u clients\n\n", c->local.name, c->seconds, c->seed,
               c->clients);
    c->begun_ms = hf_cmd_now_ms();
    rv = hurt_until(c, err);
    /* Also where a signal came at once: without a row nothing is shown. */
    if (rv == 0 && !hf_chaos_ledger_goes_on(c->ledger, c->whole_s * 1000))
        rv = hf_fail(err, HF_ETIMEOUT, "cluster %s: no row was acknowledged for %u s, though all is up and streaming "
                     "(hint: keep its directory and logs)", c->local.name, c->whole_s);
    hf_chaos_ledger_stop(c->ledger);
    /* Even if the cluster did not become whole: what it acknowledged is looked for. */
    checked = hf_chaos_ledger_check(c->ledger, &v, rv == 0 ? err : &late);
    if (checked == 0) /* what is not whole for so long is not waited for once more */
        hf_chaos_ledger_check_copies(c->ledger, rv == 0 ? c->whole_s * 1000 : COPIES_MS, &v);
    ok = rv == 0 && checked == 0 && v.lost == 0 && v.doubled == 0 && v.bad_copies == 0;
    hf_chaos_report(c, &v, ok);
    hf_chaos_ledger_free(c->ledger, ok);
    if (rv == 0 && checked == 0 && !ok)
        rv = hf_fail(err, HF_ECORRUPT, "cluster %s: %s (hint: keep its directory and logs)", c->local.name,
                     v.lost != 0 || v.doubled != 0
                         ? "acknowledged rows were lost or doubled"
                         : "not every node's own copy has the acknowledged rows, each once");
    return rv != 0 ? rv : checked;
}

int hf_cmd_chaos(int argc, char **argv)
{
    static struct hf_chaos c;
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
        {"whole-seconds", 0, HF_OPT_NUMBER, &c.whole_s, 0, 1, 86400, NULL, "N",
         "how long the cluster may take to be whole (default 60)"},
        {"json", 0, HF_OPT_FLAG, &c.json, 0, 0, 0, NULL, NULL, "the report for programs"},
    };
    const struct hf_usage u = {
        "--yes [--seed N] [--seconds N] [--clients N] [--whole-seconds N] [--json] [--dir DIR]",
        "Kills and freezes nodes, kills PostgreSQL and hands leadership over, one at a time and at random,\n"
        "while clients write numbered rows into the table holdfast_chaos of the application's database; then\n"
        "looks whether every acknowledged row is there once, also in each node's own copy. Other clients of the\n"
        "cluster notice each change of leader. Ctrl-C ends the fault, and the check is made; a second one ends all.\n"
        "Exit status 1 if anything was lost, or the cluster did not become whole again; else, if interrupted, 130\n"
        "(128 and the number of the signal).\n",
        o, sizeof o / sizeof *o};
    struct hf_error err = {0};
    int status, rv, sig;

    c.seed = (unsigned)(hf_cmd_now_ms() % 1000000000ul);
    c.seconds = 60;
    c.clients = 4;
    c.whole_s = WHOLE_S;
    if (!hf_cmd_parse(argc, argv, &u, NULL, &status))
        return status;
    if (!yes)
        return hf_cmd_wrong_usage("chaos", "this kills nodes of a running cluster; say --yes if you mean it");
    if (hf_cmd_open(&c.local, dir, &err) != 0)
        return hf_cmd_fail(&err);
    c.random = c.seed;
    /* A frozen node's kernel still takes connections: its clients go elsewhere, as yours should. */
    (void)setenv("PGCONNECT_TIMEOUT", "2", 0);
    rv = hf_chaos_interrupt_start(&c.interrupt, &c.local, &err);
    if (rv != 0)
        return hf_cmd_fail(&err);
    rv = run(&c, &err);
    sig = hf_chaos_interrupted(&c.interrupt);
    hf_chaos_interrupt_stop(&c.interrupt);
    hf_local_free(&c.local);
    status = rv == 0 ? 0 : hf_cmd_fail(&err);
    return sig != 0 && (rv == 0 || c.begun_ms == 0) ? 128 + sig : status;
}
