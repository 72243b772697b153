/* Changes of the configuration that are taken back, where libraft cannot (src/consensus/configuration.c). */
#include "world.h"

#include <signal.h>

enum { NEVER_MS = 60000, ENTRIES = 400 };

/* The entry of the configuration before has been compacted away. */
static void test_a_change_is_taken_back_after_a_snapshot(void **state)
{
    struct world *w = world_open(4, 3, NEVER_MS);
    uint8_t byte[4] = {1};

    (void)state;
    w->nodes[3].alone = true;
    hf_consensus_hint(w->nodes[0].c);
    RUN_UNTIL(w, w->nodes[0].role == HF_CONSENSUS_LEADER);
    RUN_UNTIL(w, w->nodes[1].leader == 1 && w->nodes[2].leader == 1);
    for (uint32_t i = 0; i < ENTRIES; i++) {
        apply(w, &w->nodes[0], i);
        RUN_UNTIL(w, w->nodes[0].applied == i + 1);
    }
    RUN_UNTIL(w, all_applied(w, ENTRIES));
    leave_alone(w, 0);
    assert_int_equal(hf_consensus_add(w->nodes[0].c, 4, w->nodes[3].address, told_cb, w), 0);
    RUN_UNTIL(w, w->nodes[0].servers == 4);
    hf_consensus_forget_leader(w->nodes[2].c);
    hf_consensus_hint(w->nodes[1].c);
    RUN_UNTIL(w, w->nodes[1].role == HF_CONSENSUS_LEADER);
    assert_int_equal(hf_consensus_apply(w->nodes[1].c, byte, sizeof byte, told_cb, w), 0);
    RUN_UNTIL(w, w->nodes[1].applied == ENTRIES + 1);
    w->nodes[0].alone = false;
    RUN_UNTIL(w, w->nodes[0].applied == ENTRIES + 1);
    assert_int_equal(w->nodes[0].servers, 3);
    world_close(w);
}

/* The old leader restarts before it hears of the new one: nothing but its log tells what is committed. */
static void test_a_change_is_taken_back_after_a_restart(void **state)
{
    struct world *w = world_open(4, 3, NEVER_MS);
    struct hf_error err;
    uint8_t byte[4] = {1};

    (void)state;
    w->nodes[3].alone = true;
    hf_consensus_hint(w->nodes[0].c);
    RUN_UNTIL(w, w->nodes[0].role == HF_CONSENSUS_LEADER);
    RUN_UNTIL(w, w->nodes[1].leader == 1 && w->nodes[2].leader == 1);
    apply(w, &w->nodes[0], 1);
    RUN_UNTIL(w, all_applied(w, 1));
    leave_alone(w, 0);
    assert_int_equal(hf_consensus_remove(w->nodes[0].c, 3, told_cb, w), 0);
    RUN_UNTIL(w, w->nodes[0].servers == 2);
    for (unsigned i = 0; i < 20; i++)
        (void)uv_run(&w->loop, UV_RUN_ONCE); /* on its disk */
    node_close(w, 0);
    hf_consensus_forget_leader(w->nodes[2].c);
    hf_consensus_hint(w->nodes[1].c);
    RUN_UNTIL(w, w->nodes[1].role == HF_CONSENSUS_LEADER);
    assert_int_equal(hf_consensus_apply(w->nodes[1].c, byte, sizeof byte, told_cb, w), 0);
    RUN_UNTIL(w, w->nodes[1].applied == 2);
    w->nodes[0].applied = 0;
    assert_int_equal(node_open(w, 0, NEVER_MS, &err), 0);
    assert_int_equal(hf_consensus_start(w->nodes[0].c, &err), 0);
    w->nodes[0].alone = false;
    RUN_UNTIL(w, w->nodes[0].applied == 2);
    assert_int_equal(w->nodes[1].servers, 3);
    assert_int_equal(w->nodes[0].servers, 3);
    world_close(w);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_a_change_is_taken_back_after_a_restart),
                                       cmocka_unit_test(test_a_change_is_taken_back_after_a_snapshot)};

    (void)signal(SIGPIPE, SIG_IGN);
    return cmocka_run_group_tests(tests, NULL, NULL);
}
