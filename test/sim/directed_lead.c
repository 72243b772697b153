/* Directed schedules about who leads, who counts, and who founds. */
#include "directed.h"

#include <string.h>

/* S10, I1: a commit is on A and C. A dies; C cannot say where it stands, because its replay does not end. One
 * report fewer than a majority knows nothing of that commit. */
void s10_slow_position(void)
{
    struct trap *replay;

    begin(3);
    cut(LANE_WAL, A, B, true);
    write_acked(A);
    HAPPENED(C->pg.n > B->pg.n);
    vanish(A);
    replay = trap_set(C->index, HF_ACT_WORK, HF_WORK_POSITION, TRAP_HOLD);
    elect(B);
    UNTIL(2000, replay->fired > 0);
    run_for(1500);
    trap_lift(replay);
    MUST(6000, opened(C));
    settle();
}

/* S13: B holds most and cannot promote (its disk is full). C is slow to report, so B is heard first each
 * time. */
void s13_cannot_promote(void)
{
    struct trap *promotions;

    begin(3);
    vanish(A);
    elect(B);
    MUST(4000, opened(B));
    host_start(A);
    UNTIL(6000, streams_from(A, B) && A->pg.n == B->pg.n);
    isolate_lane(LANE_WAL, B, true);
    writes(B, 3);
    promotions = trap_set(B->index, HF_ACT_WORK, HF_WORK_PROMOTE, TRAP_FAIL);
    isolate(C, true);
    host_crash(B);
    host_start(B);
    UNTIL(8000, promotions->fired > 0);
    W->msg_lag_ns[C->index] = 400 * MS;
    isolate(C, false);
    MUST(8000, another_open(B));
    settle();
}

/* S13: A is elected, has its lease, and its writes do not come to an end. Others could do better. */
void s13_writes_hang(void)
{
    struct trap *heartbeats;

    begin(3);
    heartbeats = trap_set(A->index, HF_ACT_WRITE, HF_WRITE_HEARTBEAT, TRAP_HOLD);
    UNTIL(3000, heartbeats->fired > 0);
    run_for(3000);
    HAPPENED(opened(A));
    MUST(8000, another_open(A));
    settle();
}

/* S13: the same, and they fail at once, each time. */
void s13_writes_fail(void)
{
    struct trap *heartbeats;

    begin(3);
    heartbeats = trap_set(A->index, HF_ACT_WRITE, HF_WRITE_HEARTBEAT, TRAP_FAIL);
    UNTIL(3000, heartbeats->fired > 0);
    run_for(3000);
    HAPPENED(opened(A));
    MUST(8000, another_open(A));
    settle();
}

/* S13, S16: C is gone, and B lacks WAL that A has thrown away: A's writes wait until B has copied everything. To step
 * down meanwhile would end that, and nobody else could lead. */
void s13_writes_wait_for_a_copy(void)
{
    struct trap *clones;
    hf_epoch epoch;

    begin(3);
    host_crash(C);
    clients(true);
    cut(LANE_WAL, A, B, true);
    run_for(300);
    A->pg.first_kept = A->pg.n - 2;
    pg_streams_cut(A->index, B->index);
    clones = trap_set(B->index, HF_ACT_WORK, HF_WORK_CLONE, TRAP_HOLD);
    cut(LANE_WAL, A, B, false);
    UNTIL(2000, clones->fired > 0);
    epoch = hf_decide_view(A->decide).epoch;
    run_for(8000);
    MUST(1, opened(A) && hf_decide_view(A->decide).epoch == epoch);
    trap_lift(clones);
    MUST(4000, streams_from(B, A));
    MUST(1, hf_decide_view(A->decide).epoch == epoch);
    settle();
}

/* S13, S16: the same for a barrier: A has been elected again, and all depends on B's copy. */
void s13_barrier_waits_for_a_copy(void)
{
    struct trap *clones;
    hf_epoch epoch;

    begin(3);
    host_crash(C);
    clients(true);
    cut(LANE_WAL, A, B, true);
    run_for(300);
    A->pg.first_kept = A->pg.n - 2;
    clones = trap_set(B->index, HF_ACT_WORK, HF_WORK_CLONE, TRAP_HOLD);
    host_crash(A);
    cut(LANE_WAL, A, B, false);
    host_start(A);
    UNTIL(8000, strcmp(state(A), "barrier") == 0 && clones->fired > 0);
    epoch = hf_decide_view(A->decide).epoch;
    run_for(8000);
    MUST(1, strcmp(state(A), "barrier") == 0);
    trap_lift(clones);
    MUST(4000, opened(A) && hf_decide_view(A->decide).epoch == epoch);
    settle();
}

/* S14: C's volume is lost while what it said is still on its way. It comes back as another. */
void s14_two_incarnations(void)
{
    hf_node_id voters[HF_MEMBERS_MAX];

    begin(3);
    clients(true);
    W->msg_lag_ns[C->index] = 3000 * MS;
    run_for(300);
    host_lose_volume(C);
    W->msg_lag_ns[C->index] = 0;
    run_for(1500);
    host_start(C);
    MUST(8000, streams_from(C, A) &&
                   hf_cluster_voters(hf_decide_view(A->decide).cluster, voters) == 3);
    HAPPENED(C->disk.durable.self > 3);
    write_acked(A);
    settle();
}

/* S15: all were down; node 0 has lost its volume, starts first, and finds nobody. */
void s15_second_founding(void)
{
    begin(3);
    host_crash(B);
    host_crash(C);
    host_lose_volume(A);
    host_start(A);
    run_for(3000);
    HAPPENED(A->form != NULL);
    host_start(B);
    host_start(C);
    MUST(8000, another_open(A));
    settle();
}

/* What PostgreSQL writes on its own as a primary: checkpoints, vacuum. */
static void background(struct node *n, unsigned records)
{
    for (unsigned i = 0; i < records && n->pg.state == HF_PG_PRIMARY; i++)
        (void)pg_append(n, ++W->next_id, 0);
    n->pg.flushed = n->pg.n;
}

/* S18: B leads, and all restart. B hears from Raft that it was appointed, and not that A fences; then it is
 * alone, while A and C lead in turn. */
void s18_old_appointment(void)
{
    struct trap *fences;
    hf_epoch old;

    begin(3);
    host_step(A, &(struct hf_event){.type = HF_EV_SWITCHOVER, .id = B->disk.durable.self, .request = 1});
    MUST(6000, opened(B));
    UNTIL(4000, streams_from(A, B) && streams_from(C, B));
    write_acked(B);
    run_for(200);
    old = hf_decide_view(B->decide).epoch;
    for (unsigned i = 0; i < 3; i++)
        host_crash(&W->nodes[i]);
    fences = trap_set(-1, HF_ACT_SEND, HF_MSG_FENCE, TRAP_DROP);
    fences->to = B->index;
    for (unsigned i = 0; i < 3; i++)
        host_start(&W->nodes[i]);
    elect(A);
    UNTIL(450, B->pg.state >= HF_PG_STANDBY && hf_decide_view(B->decide).epoch == old);
    run_for(60);
    HAPPENED(hf_decide_view(B->decide).leader == 2 && fences->fired > 0 && B->role == HF_RAFT_FOLLOWER);
    isolate(B, true);
    background(B, 12);
    MUST(4000, opened(A));
    host_step(A, &(struct hf_event){.type = HF_EV_SWITCHOVER, .id = C->disk.durable.self, .request = 1});
    MUST(6000, opened(C));
    trap_lift(fences);
    isolate(B, false);
    MUST(6000, streams_from(B, C));
    settle();
}

static void acks_end(struct node *n)
{
    W->lane_cut[LANE_RAFT][C->index][n->index] = true;
}

/* S18: B's appointment is in C's log, and B does not hear of it before C leads and commits it for B. To B it
 * must be what it is: of a term that is over. */
void s18_committed_by_another(void)
{
    const struct hf_branch *b;

    begin(3);
    vanish(A);
    trap_set(B->index, HF_ACT_PROPOSE, HF_ENTRY_APPOINT, TRAP_WATCH)->also = acks_end;
    elect(B);
    UNTIL(2000, strcmp(state(B), "appointing") == 0);
    run_for(10);
    isolate(B, true);
    host_start(A);
    UNTIL(4000, C->role == HF_RAFT_LEADER && hf_decide_view(C->decide).epoch == 3);
    b = hf_cluster_newest(hf_decide_view(C->decide).cluster);
    HAPPENED(b->leader == 2 && b->opened_lsn == 0);
    MUST(6000, another_open(B));
    write_acked(anybody_open());
    memset(W->lane_cut, 0, sizeof W->lane_cut);
    isolate(B, false);
    UNTIL(3000, hf_decide_view(B->decide).epoch > 3);
    background(B, 12);
    settle();
}

/* S20: C is dead for long. Then B dies, and C is back: two of three are there. */
void s20_never_below_three(void)
{
    begin(3);
    clients(true);
    host_crash(C);
    run_for(8000);
    HAPPENED(opened(A));
    host_crash(B);
    run_for(1000);
    HAPPENED(!opened(A));
    host_start(C);
    MUST(6000, another_open(B));
    settle();
}

/* I3: D and E join. What A writes now gets to B alone; then A and B are gone. */
void i3_rule_not_loaded(void)
{
    begin(3);
    scenario_node(3, 500);
    scenario_node(4, 500);
    host_start(D);
    host_start(E);
    UNTIL(10000, voters_of(A) == 5 && streams_from(D, A) && streams_from(E, A));
    run_for(300);
    isolate_lane(LANE_WAL, A, true);
    cut(LANE_WAL, A, B, false);
    writes(A, 2);
    run_for(100);
    HAPPENED(B->pg.n > C->pg.n);
    host_crash(A);
    host_crash(B);
    MUST(6000, opened(C) || opened(D) || opened(E));
    settle();
}

/* I3: of five voters E, then D stop counting; the change is settled each time. So when C goes as well, A
 * and B are a majority of the three that count. */
void i3_settled_between(void)
{
    begin(5);
    clients(true);
    host_crash(E);
    UNTIL(9000, voters_of(A) == 4);
    host_crash(D);
    UNTIL(9000, voters_of(A) == 3);
    run_for(300);
    host_crash(C);
    run_for(1000);
    MUST(4000, opened(A) || opened(B));
    settle();
}

/* I3: a commit is on A and B, by the rule of three. D joins and B leaves, while neither C nor D gets any WAL. Of
 * {A, C, D}, which differs from {A, B, C, D} by one, C and D are a majority, and have never seen that commit. */
void i3_rule_not_proved(void)
{
    struct trap *roles;

    begin(3);
    roles = trap_set(A->index, HF_ACT_PROPOSE, HF_ENTRY_ROLE, TRAP_HOLD);
    scenario_node(3, 500);
    host_start(D);
    UNTIL(10000, roles->fired > 0);
    cut(LANE_WAL, A, C, true);
    cut(LANE_WAL, A, D, true);
    write_acked(A);
    HAPPENED(C->pg.n < A->pg.n && D->pg.n < A->pg.n);
    trap_lift(roles);
    UNTIL(2000, voters_of(A) == 4);
    host_step(A, &(struct hf_event){.type = HF_EV_LEAVE, .id = B->disk.durable.self, .request = 2});
    run_for(1000);
    host_crash(A);
    host_crash(B);
    run_for(4000);
    cut(LANE_WAL, A, C, false);
    cut(LANE_WAL, A, D, false);
    host_start(A);
    host_start(B);
    MUST(8000, anybody_open() != NULL);
    settle();
}

/* -- Raft ----------------------------------------------------------------------------------------------- */

static void only_b_talks_with(struct node *n)
{
    W->lane_cut[LANE_RAFT][n->index][A->index] = true;
    W->lane_cut[LANE_RAFT][B->index][n->index] = false;
    B->slow_disk_until = W->now + 2 * SEC;
}

/* B leads for a moment, with an entry that nobody gets. Then C is elected by A, and has an entry at the same place,
 * which A does not get. B answers C's heartbeat, while its disk is slow. Is C's entry committed by that? B is gone
 * before it has it, and then C is. (consensus/mend.h) */
void raft_anothers_entry(void)
{
    struct trap *barrier;
    raft_index before;

    begin(3);
    before = B->raft.commit_index;
    barrier = trap_set(B->index, HF_ACT_RAFT_BARRIER, -1, TRAP_HOLD);
    elect(B);
    UNTIL(50, barrier->fired > 0 && A->raft.current_term == B->raft.current_term);
    W->lane_cut[LANE_RAFT][B->index][A->index] = W->lane_cut[LANE_RAFT][B->index][C->index] = true;
    trap_lift(barrier);
    run_for(10);
    HAPPENED(B->disk.n_entries == before + 1 && A->disk.n_entries == before);
    trap_set(C->index, HF_ACT_RAFT_BARRIER, -1, TRAP_WATCH)->also = only_b_talks_with;
    elect(C);
    for (unsigned i = 0; i < 30 && C->raft.commit_index == before; i++)
        run_for(1);
    HAPPENED(B->role == HF_RAFT_FOLLOWER && B->raft.current_term == C->raft.current_term && C->up);
    host_crash(B);
    vanish(C);
    memset(W->lane_cut, 0, sizeof W->lane_cut);
    B->slow_disk_until = 0;
    host_start(B);
    MUST(8000, opened(A) || opened(B));
    host_start(C);
    settle();
}
