/* A few Rafts in one loop, with connections that can be cut. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/file.h"
#include "consensus/consensus.h"

enum { NODES = 4, WIRES_MAX = 256, PATIENCE_MS = 20000, STEP_MS = 5 };

struct node {
    struct world *w;
    struct hf_consensus *c;
    unsigned index;
    char dir[128], address[64];
    enum hf_consensus_role role;
    uint64_t term, leader, applied, sum;
    unsigned restored, servers, voters, failed;
    bool closed, alone; /* alone: nobody reaches it, and it reaches nobody */
};

struct wire {
    unsigned from, to;
    int fd; /* our own copy, to cut it */
};

struct pending {
    struct hf_consensus_dial *d;
    unsigned from, to;
    int fd;
};

struct world {
    uv_loop_t loop;
    uv_timer_t step;
    char dir[64];
    unsigned n;
    struct node nodes[NODES];
    struct wire wires[WIRES_MAX];
    unsigned n_wires, n_pending;
    struct pending pending[WIRES_MAX];
    unsigned told, told_ok, refused; /* results of requests */
};

/* -- callbacks --------------------------------------------------------------------------------------------- */

static void on_dial(void *ctx, struct hf_consensus_dial *d, uint64_t id, const char *name, const char *addr, int fd)
{
    struct node *n = ctx;
    struct world *w = n->w;

    (void)addr;
    assert_true(w->n_pending < WIRES_MAX);
    assert_int_equal(strtoul(strrchr(name, '-') + 1, NULL, 10), id - 1);
    w->pending[w->n_pending++] = (struct pending){d, n->index, (unsigned)id - 1, fd};
}

static void on_apply(void *ctx, const uint8_t *bytes, size_t len)
{
    struct node *n = ctx;
    uint32_t value;

    assert_int_equal(len, sizeof value);
    memcpy(&value, bytes, sizeof value);
    n->applied++;
    n->sum = n->sum * 31 + value; /* order matters */
}

static int on_snapshot(void *ctx, uint8_t **bytes, size_t *len)
{
    struct node *n = ctx;

    *len = 2 * sizeof(uint64_t);
    *bytes = malloc(*len);
    memcpy(*bytes, &n->applied, sizeof n->applied);
    memcpy(*bytes + sizeof n->applied, &n->sum, sizeof n->sum);
    return 0;
}

static int on_restore(void *ctx, const uint8_t *bytes, size_t len)
{
    struct node *n = ctx;

    assert_int_equal(len, 2 * sizeof(uint64_t));
    memcpy(&n->applied, bytes, sizeof n->applied);
    memcpy(&n->sum, bytes + sizeof n->applied, sizeof n->sum);
    n->restored++;
    return 0;
}

static void on_role(void *ctx, enum hf_consensus_role role, uint64_t term, uint64_t leader)
{
    struct node *n = ctx;

    n->role = role;
    n->term = term;
    n->leader = leader;
}

static void on_servers(void *ctx, const struct hf_consensus_server *servers, unsigned count)
{
    struct node *n = ctx;

    n->servers = count;
    n->voters = 0;
    for (unsigned i = 0; i < count; i++)
        n->voters += servers[i].voter;
}

static void on_failed(void *ctx, const char *text)
{
    (void)text;
    ((struct node *)ctx)->failed++;
}

/* -- the world --------------------------------------------------------------------------------------------- */

static void connect_pending(struct world *w)
{
    for (unsigned i = 0; i < w->n_pending; i++) {
        struct pending p = w->pending[i];
        struct node *from = &w->nodes[p.from], *to = &w->nodes[p.to];
        bool ok = to->c != NULL && !from->alone && !to->alone && w->n_wires < WIRES_MAX;
        if (ok) {
            w->wires[w->n_wires++] = (struct wire){p.from, p.to, dup(p.fd)};
            hf_consensus_accepted(to->c, p.from + 1, from->address, p.fd);
        } else {
            close(p.fd);
        }
        hf_consensus_dialed(p.d, ok);
    }
    w->n_pending = 0;
}

static void step_cb(uv_timer_t *timer)
{
    connect_pending(timer->data);
}

static void leave_alone(struct world *w, unsigned index)
{
    w->nodes[index].alone = true;
    for (unsigned i = 0; i < w->n_wires; i++)
        if (w->wires[i].from == index || w->wires[i].to == index)
            (void)shutdown(w->wires[i].fd, SHUT_RDWR);
}

#define RUN_UNTIL(w, condition)                                                                                        \
    do {                                                                                                               \
        uint64_t until_ = uv_hrtime() + PATIENCE_MS * 1000000ull;                                                      \
        while (!(condition) && uv_hrtime() < until_)                                                                   \
            (void)uv_run(&(w)->loop, UV_RUN_ONCE);                                                                     \
        assert_true(condition);                                                                                        \
    } while (0)

static int node_open(struct world *w, unsigned i, unsigned election_ms, struct hf_error *err)
{
    struct node *n = &w->nodes[i];
    struct hf_consensus_config config = {
        .dir = n->dir, .id = i + 1, .address = n->address, .election_ms = election_ms, .heartbeat_ms = 40};
    struct hf_consensus_callbacks cb = {.ctx = n,
                                        .dial = on_dial,
                                        .apply = on_apply,
                                        .snapshot = on_snapshot,
                                        .restore = on_restore,
                                        .role = on_role,
                                        .servers = on_servers,
                                        .failed = on_failed};

    return hf_consensus_open(&n->c, &w->loop, &config, &cb, err);
}

static struct world *world_open(unsigned n, unsigned voters, unsigned election_ms)
{
    struct world *w = calloc(1, sizeof *w);
    struct hf_consensus_server servers[NODES] = {0};
    struct hf_error err = {0};

    (void)snprintf(w->dir, sizeof w->dir, "/tmp/hf-consensus-XXXXXX");
    assert_non_null(mkdtemp(w->dir));
    assert_int_equal(uv_loop_init(&w->loop), 0);
    (void)uv_timer_init(&w->loop, &w->step);
    w->step.data = w;
    (void)uv_timer_start(&w->step, step_cb, STEP_MS, STEP_MS);
    w->n = n;
    for (unsigned i = 0; i < n; i++) {
        struct node *x = &w->nodes[i];
        x->w = w;
        x->index = i;
        (void)snprintf(x->dir, sizeof x->dir, "%s/%u", w->dir, i);
        (void)snprintf(x->address, sizeof x->address, "n-%u/127.0.0.1:%u", i, 7000 + i);
        assert_int_equal(hf_dir_make(x->dir, 0700, &err), 0);
        servers[i].id = i + 1;
        servers[i].voter = true;
        (void)snprintf(servers[i].address, sizeof servers[i].address, "%s", x->address);
    }
    for (unsigned i = 0; i < n; i++) {
        assert_int_equal(node_open(w, i, election_ms, &err), 0);
        if (i < voters)
            assert_int_equal(hf_consensus_bootstrap(w->nodes[i].c, servers, voters, &err), 0);
        assert_int_equal(hf_consensus_start(w->nodes[i].c, &err), 0);
    }
    return w;
}

static void closed_cb(void *arg)
{
    struct node *n = arg;

    n->closed = true;
    n->c = NULL;
}

static void node_close(struct world *w, unsigned i)
{
    struct node *n = &w->nodes[i];

    n->closed = false;
    hf_consensus_close(n->c, closed_cb, n);
    RUN_UNTIL(w, n->closed);
}

static void free_cb(uv_handle_t *handle)
{
    (void)handle;
}

static void world_close(struct world *w)
{
    struct hf_error err;

    for (unsigned i = 0; i < w->n; i++)
        if (w->nodes[i].c != NULL)
            node_close(w, i);
    connect_pending(w);
    for (unsigned i = 0; i < w->n_wires; i++)
        close(w->wires[i].fd);
    uv_close((uv_handle_t *)&w->step, free_cb);
    (void)uv_run(&w->loop, UV_RUN_DEFAULT);
    assert_int_equal(uv_loop_close(&w->loop), 0); /* every handle was closed */
    assert_int_equal(hf_dir_remove(w->dir, &err), 0);
    free(w);
}

static struct node *leader(struct world *w)
{
    struct node *found = NULL;

    for (unsigned i = 0; i < w->n; i++)
        if (w->nodes[i].c != NULL && !w->nodes[i].alone && w->nodes[i].role == HF_CONSENSUS_LEADER)
            found = found == NULL || w->nodes[i].term > found->term ? &w->nodes[i] : found;
    return found;
}

static bool all_applied(struct world *w, uint64_t n)
{
    for (unsigned i = 0; i < w->n; i++)
        if (!w->nodes[i].alone && w->nodes[i].applied != n)
            return false;
    return true;
}

static void told_cb(void *arg, bool ok)
{
    struct world *w = arg;

    w->told++;
    w->told_ok += ok;
}

static void apply(struct world *w, struct node *n, uint32_t value)
{
    assert_int_equal(hf_consensus_apply(n->c, (const uint8_t *)&value, sizeof value, told_cb, w), 0);
}

/* -- tests ------------------------------------------------------------------------------------------------- */

static void test_applied_everywhere_in_order(void **state)
{
    struct world *w = world_open(3, 3, 300);

    (void)state;
    RUN_UNTIL(w, leader(w) != NULL);
    for (uint32_t i = 0; i < 20; i++)
        apply(w, leader(w), i);
    RUN_UNTIL(w, w->told == 20 && all_applied(w, 20));
    assert_int_equal(w->told_ok, 20);
    assert_int_equal(w->nodes[0].sum, w->nodes[1].sum);
    assert_int_equal(w->nodes[0].sum, w->nodes[2].sum);
    assert_int_equal(w->nodes[0].voters, 3);
    world_close(w);
}

struct again {
    struct world *w;
    struct node *n;
};

/* Asks again from within the failure, as the core does. */
static void again_cb(void *arg, bool ok)
{
    struct again *a = arg;
    uint32_t value = 7;

    a->w->told++;
    a->w->told_ok += ok;
    if (hf_consensus_apply(a->n->c, (const uint8_t *)&value, sizeof value, told_cb, a->w) != 0)
        a->w->refused++;
}

static void test_asking_again_when_leadership_is_lost(void **state)
{
    struct world *w = world_open(3, 3, 200);
    struct again a = {.w = w};
    uint32_t value = 1;

    (void)state;
    RUN_UNTIL(w, leader(w) != NULL);
    a.n = leader(w);
    leave_alone(w, a.n->index);
    for (unsigned i = 0; i < 3; i++)
        assert_int_equal(hf_consensus_apply(a.n->c, (const uint8_t *)&value, sizeof value, again_cb, &a), 0);
    RUN_UNTIL(w, w->told == 3);
    assert_int_equal(w->told_ok, 0);
    assert_int_equal(w->refused, 3); /* who has lost the lead takes nothing */
    assert_int_not_equal(a.n->role, HF_CONSENSUS_LEADER);
    RUN_UNTIL(w, leader(w) != NULL);
    assert_true(leader(w)->term > 0 && leader(w) != a.n);
    world_close(w);
}

static void test_a_lone_voter_leads_in_a_new_term(void **state)
{
    struct world *w = world_open(1, 1, 200);
    struct hf_error err = {0};
    uint64_t term;

    (void)state;
    RUN_UNTIL(w, leader(w) != NULL);
    term = w->nodes[0].term;
    apply(w, leader(w), 1);
    RUN_UNTIL(w, w->told == 1);
    node_close(w, 0);
    w->nodes[0].role = HF_CONSENSUS_FOLLOWER;
    assert_int_equal(node_open(w, 0, 200, &err), 0);
    assert_int_equal(hf_consensus_start(w->nodes[0].c, &err), 0);
    RUN_UNTIL(w, leader(w) != NULL);
    assert_true(w->nodes[0].term > term);
    world_close(w);
}

static void test_founded_once(void **state)
{
    struct world *w = world_open(1, 1, 200);
    struct hf_consensus_server self = {.id = 1, .voter = true, .address = "n-0/127.0.0.1:7000"};
    struct hf_error err = {0};

    (void)state;
    node_close(w, 0);
    assert_int_equal(node_open(w, 0, 200, &err), 0);
    assert_int_equal(hf_consensus_bootstrap(w->nodes[0].c, &self, 1, &err), HF_EEXIST);
    world_close(w);
}

/* The election timeout is longer than any test: only the hint can have done it. */
static void test_a_hint_elects(void **state)
{
    struct world *w = world_open(3, 3, 60000);

    (void)state;
    hf_consensus_hint(w->nodes[1].c);
    RUN_UNTIL(w, leader(w) != NULL);
    assert_ptr_equal(leader(w), &w->nodes[1]);
    RUN_UNTIL(w, w->nodes[0].leader == 2 && w->nodes[2].leader == 2);
    hf_consensus_hint(w->nodes[1].c); /* nothing happens on a leader */
    hf_consensus_forget_leader(w->nodes[0].c);
    apply(w, &w->nodes[1], 5);
    RUN_UNTIL(w, all_applied(w, 1));
    assert_int_equal(w->nodes[1].role, HF_CONSENSUS_LEADER);
    world_close(w);
}

static void test_leadership_is_passed_on(void **state)
{
    struct world *w = world_open(3, 3, 300);
    struct node *old;
    unsigned to;

    (void)state;
    RUN_UNTIL(w, leader(w) != NULL);
    old = leader(w);
    to = (old->index + 1) % 3;
    apply(w, old, 1);
    RUN_UNTIL(w, all_applied(w, 1));
    assert_int_equal(hf_consensus_transfer(old->c, to + 1, told_cb, w), 0);
    RUN_UNTIL(w, w->nodes[to].role == HF_CONSENSUS_LEADER && w->told == 2);
    assert_int_equal(w->told_ok, 2);
    world_close(w);
}

/* More entries than a log keeps: who joins gets a snapshot, then the rest, then a vote; and leaves again. */
static void test_a_late_joiner(void **state)
{
    enum { ENTRIES = 600 };
    struct world *w = world_open(4, 3, 300);
    struct node *l;

    (void)state;
    w->nodes[3].alone = true; /* a member of nothing yet */
    RUN_UNTIL(w, leader(w) != NULL);
    for (uint32_t i = 0; i < ENTRIES; i++) {
        apply(w, leader(w), i);
        if (i % 50 == 49)
            RUN_UNTIL(w, w->told == i + 1);
    }
    RUN_UNTIL(w, all_applied(w, ENTRIES));
    w->nodes[3].alone = false;
    l = leader(w);
    assert_int_equal(hf_consensus_add(l->c, 4, w->nodes[3].address, told_cb, w), 0);
    RUN_UNTIL(w, w->told == ENTRIES + 1 && w->nodes[3].applied == ENTRIES);
    assert_true(w->nodes[3].restored > 0);
    assert_int_equal(w->nodes[3].sum, l->sum);
    assert_int_equal(l->voters, 3);
    assert_int_equal(hf_consensus_assign(l->c, 4, true, told_cb, w), 0);
    RUN_UNTIL(w, w->told == ENTRIES + 2 && l->voters == 4);
    assert_int_equal(hf_consensus_remove(l->c, 4, told_cb, w), 0);
    RUN_UNTIL(w, w->told == ENTRIES + 3 && l->servers == 3);
    assert_int_equal(w->told_ok, ENTRIES + 3);
    world_close(w);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_applied_everywhere_in_order),
        cmocka_unit_test(test_asking_again_when_leadership_is_lost),
        cmocka_unit_test(test_a_lone_voter_leads_in_a_new_term),
        cmocka_unit_test(test_founded_once),
        cmocka_unit_test(test_a_hint_elects),
        cmocka_unit_test(test_leadership_is_passed_on),
        cmocka_unit_test(test_a_late_joiner),
    };

    (void)signal(SIGPIPE, SIG_IGN); /* as in the node */
    return cmocka_run_group_tests(tests, NULL, NULL);
}
