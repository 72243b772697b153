/* What a Raft is for: elections, entries, members, snapshots. */
#include "world.h"

#include <signal.h>

enum { STEADY_MS = 1500 }; /* on a slow machine, too, who leads goes on leading */

static void test_applied_everywhere_in_order(void **state)
{
    struct world *w = world_open(3, 3, STEADY_MS);

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

/* libraft repeats itself with the next heartbeat: here later than any test. So what the first write to a connection
 * that has ended loses, an entry, an answer, a vote, must be said again without it. */
static void test_a_connection_that_ended_loses_nothing(void **state)
{
    struct world *w;

    (void)state;
    world_heartbeat_ms = 60000;
    w = world_open(3, 3, 600000);
    world_heartbeat_ms = 40;
    hf_consensus_hint(w->nodes[1].c);
    RUN_UNTIL(w, leader(w) != NULL);
    apply(w, &w->nodes[1], 1);
    RUN_UNTIL(w, w->told == 1);
    cut_wires(w);
    apply(w, &w->nodes[1], 2);
    RUN_UNTIL(w, w->told == 2);
    RUN_UNTIL(w, w->nodes[0].leader == 2 && w->nodes[2].leader == 2);
    cut_wires(w);
    hf_consensus_forget_leader(w->nodes[0].c);
    hf_consensus_forget_leader(w->nodes[2].c);
    hf_consensus_hint(w->nodes[2].c);
    RUN_UNTIL(w, w->nodes[2].role == HF_CONSENSUS_LEADER);
    apply(w, &w->nodes[2], 3);
    RUN_UNTIL(w, w->told == 3);
    assert_int_equal(w->told_ok, 3);
    world_close(w);
}

static void test_leadership_is_passed_on(void **state)
{
    struct world *w = world_open(3, 3, STEADY_MS);
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
    struct world *w = world_open(4, 3, STEADY_MS);
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
        cmocka_unit_test(test_a_connection_that_ended_loses_nothing),
        cmocka_unit_test(test_leadership_is_passed_on),
        cmocka_unit_test(test_a_late_joiner),
    };

    (void)signal(SIGPIPE, SIG_IGN); /* as in the node */
    return cmocka_run_group_tests(tests, NULL, NULL);
}
