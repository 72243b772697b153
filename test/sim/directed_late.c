/* Directed schedules about a leader, or somebody on the way to be one, that does not get on. */
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

/* S10: POSITION restarts PostgreSQL (parameters, timelines to forget), and the start fails before there is a
 * postmaster (no room for the settings): nobody hears of an exit, and the core asks a standby that is not there. */
static void restart_fails(struct node *n)
{
    pg_stopped(&n->pg, false);
}

void s10_position_leaves_it_down(void)
{
    struct trap *position;

    begin(3);
    cut(LANE_WAL, A, B, true);
    write_acked(A);
    HAPPENED(C->pg.n > B->pg.n);
    vanish(A);
    position = trap_set(C->index, HF_ACT_WORK, HF_WORK_POSITION, TRAP_FAIL);
    position->also = restart_fails;
    elect(B);
    UNTIL(2000, position->fired > 0);
    trap_lift(position);
    MUST(60000, opened(C));
    settle();
}

/* S10, I1: a commit is on A and C. A dies; C's disk does not let it read its last records, three times, though its data have seen
 * them. That is no end of WAL. */
void s10_wal_is_not_read(void)
{
    begin(3);
    cut(LANE_WAL, A, B, true);
    write_acked(A);
    HAPPENED(C->pg.n > B->pg.n);
    vanish(A);
    C->pg.unread = 3;
    elect(B);
    MUST(8000, opened(C));
    HAPPENED(C->pg.unread == 0);
    settle();
}

/* S10, S16: a record of C's is not read any more, ever, and there is a leader. What C has is of no use. */
void s10_wal_is_never_read(void)
{
    struct trap *clones;

    begin(3);
    clients(true);
    host_crash(C);
    switchover(A, B);
    C->pg.unread = 1000;
    clones = trap_set(C->index, HF_ACT_WORK, HF_WORK_CLONE, TRAP_WATCH);
    host_start(C);
    MUST(20000, streams_from(C, B));
    HAPPENED(clones->fired > 0);
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

static void writes_never_done(enum trap_what what)
{
    struct trap *heartbeats;

    begin(3);
    heartbeats = trap_set(A->index, HF_ACT_WRITE, HF_WRITE_HEARTBEAT, what);
    UNTIL(3000, heartbeats->fired > 0);
    run_for(3000);
    HAPPENED(opened(A));
    MUST(8000, another_open(A));
    settle();
}

/* S13: A is elected, has its lease, and its writes do not come to an end. Others could do better. */
void s13_writes_hang(void)
{
    writes_never_done(TRAP_HOLD);
}

/* S13: the same, and they fail at once, each time. */
void s13_writes_fail(void)
{
    writes_never_done(TRAP_FAIL);
}

/* C is gone, and B lacks WAL that A has thrown away; its copy, once the way from A to B is open again, does not end. */
static struct trap *b_must_copy(void)
{
    begin(3);
    host_crash(C);
    clients(true);
    cut(LANE_WAL, A, B, true);
    run_for(300);
    A->pg.first_kept = A->pg.n - 2;
    pg_streams_cut(A->index, B->index);
    return trap_set(B->index, HF_ACT_WORK, HF_WORK_CLONE, TRAP_HOLD);
}

/* S13, S16: A's writes wait until B has copied everything. To step down meanwhile would end that, and nobody else could
 * lead. */
void s13_writes_wait_for_a_copy(void)
{
    struct trap *clones;
    hf_epoch epoch;

    clones = b_must_copy();
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
    struct trap *clones, *opens;
    hf_epoch epoch;

    clones = b_must_copy();
    host_crash(A);
    cut(LANE_WAL, A, B, false);
    host_start(A);
    UNTIL(8000, strcmp(state(A), "barrier") == 0 && clones->fired > 0);
    epoch = hf_decide_view(A->decide).epoch;
    run_for(8000);
    MUST(1, strcmp(state(A), "barrier") == 0);
    opens = trap_set(B->index, HF_ACT_STREAM_OPEN, -1, TRAP_HOLD); /* between the copy and the stream A waits, too */
    trap_lift(clones);
    UNTIL(2000, opens->fired > 0);
    run_for(300);
    trap_lift(opens);
    MUST(4000, opened(A) && hf_decide_view(A->decide).epoch == epoch);
    settle();
}

/* S13: the leader's barrier needs A, which has a tail and cannot rewind before it knows the leader's timeline, that is, before the
 * barrier. With a long lease A waited for that longer than a leader waits for its barrier. */
void s13_long_lease(void)
{
    begin_with(3, 3000);
    isolate_lane(LANE_WAL, A, true);
    writes(A, 3);
    vanish(A);
    isolate_lane(LANE_WAL, A, false);
    elect(B);
    MUST(20000, opened(B));
    vanish(C);
    run_for(10000);
    HAPPENED(!opened(B));
    host_start(A); /* a new epoch */
    MUST(60000, opened(B));
    settle();
}

static void a_dies_with_a_tail(void)
{
    begin(3);
    isolate_lane(LANE_WAL, A, true);
    writes(A, 3);
    host_crash(A);
}

/* S13: A has a tail that nobody else has, restarts, is the greatest, leads, and its barrier's write hangs in its
 * disk. B and C are well, hold all that was acknowledged, and would be a majority of fit reports. */
void s13_barrier_hangs_with_a_tail(void)
{
    struct trap *barrier;

    a_dies_with_a_tail();
    isolate_lane(LANE_WAL, A, false);
    barrier = trap_set(A->index, HF_ACT_WRITE, HF_WRITE_BARRIER, TRAP_HOLD);
    host_start(A);
    UNTIL(12000, strcmp(state(A), "barrier") == 0 && barrier->fired > 0);
    HAPPENED(B->up && C->up);
    MUST(120000, another_open(A));
    settle();
}

/* S13: the same, but it is A's replication that reaches nobody; its messages and Raft do. */
void s13_barrier_reaches_nobody(void)
{
    a_dies_with_a_tail();
    host_start(A);
    UNTIL(12000, strcmp(state(A), "barrier") == 0);
    MUST(120000, another_open(A));
    settle();
}

/* S13: B's replication reaches nobody until it gives up. It holds more than C, A is gone: only B can lead, and need not wait until
 * it is fit again. */
void s13_only_the_unfit_can_lead(void)
{
    begin(3);
    vanish(A);
    isolate_lane(LANE_WAL, B, true);
    elect(B);
    UNTIL(4000, strcmp(state(B), "barrier") == 0);
    UNTIL(8000, strcmp(state(B), "barrier") != 0);
    HAPPENED(B->pg.n > C->pg.n);
    isolate_lane(LANE_WAL, B, false);
    MUST(1800, opened(B));
    settle();
}

/* S13: B's node state cannot be written any more right after its appointment; A and C are well. */
void s13_recording_hangs(void)
{
    begin(3);
    trap_set(B->index, HF_ACT_PROPOSE, HF_ENTRY_APPOINT, TRAP_WATCH)->also = disk_hangs;
    vanish(A);
    elect(B);
    UNTIL(4000, strcmp(state(B), "recording") == 0);
    host_start(A);
    MUST(60000, another_open(B));
    settle();
}

/* S13: the promotion does not end. */
void s13_promotion_hangs(void)
{
    struct trap *promotions;

    begin(3);
    promotions = trap_set(B->index, HF_ACT_WORK, HF_WORK_PROMOTE, TRAP_HOLD);
    vanish(A);
    elect(B);
    UNTIL(4000, promotions->fired > 0);
    host_start(A);
    MUST(60000, another_open(B));
    settle();
}

/* S13: B is elected, and its Raft log's disk hangs: libraft commits nothing that is not stored on the leader, so
 * the Raft barrier never ends (the request that is dropped here). Heartbeats need no disk. */
void s13_raft_barrier_hangs(void)
{
    struct trap *barrier;

    begin(3);
    vanish(A);
    barrier = trap_set(B->index, HF_ACT_RAFT_BARRIER, -1, TRAP_DROP);
    elect(B);
    UNTIL(4000, barrier->fired > 0);
    host_start(A);
    MUST(60000, another_open(B));
    settle();
}

/* S13: A is asked to hand over, and its disk hangs with the checkpoint before. Its lease needs no disk. */
void s13_hand_over_hangs(void)
{
    struct trap *checkpoint;

    begin(3);
    clients(false);
    run_for(300);
    checkpoint = trap_set(A->index, HF_ACT_WORK, HF_WORK_CHECKPOINT, TRAP_HOLD);
    (void)trap_set(A->index, HF_ACT_WRITE, -1, TRAP_HOLD);
    host_step(A, &(struct hf_event){.type = HF_EV_SWITCHOVER, .request = 1});
    UNTIL(1000, checkpoint->fired > 0 && strcmp(state(A), "settling") == 0);
    MUST(15000, another_open(A));
    lift_all();
    settle();
}

/* S13: the data take no transaction any more, A's and everybody's. A's gate stays open: who comes through it can mend that. */
void s13_nobody_can_write(void)
{
    struct trap *writes_of_a;
    hf_epoch epoch;

    begin(3);
    clients(false);
    epoch = hf_decide_view(A->decide).epoch;
    W->exhausted = true;
    writes_of_a = trap_set(A->index, HF_ACT_WRITE, -1, TRAP_FAIL);
    run_for(20000);
    HAPPENED(writes_of_a->fired > 5);
    if (!opened(A) || hf_decide_view(A->decide).epoch != epoch)
        sim_fail("S13: the leader has given up what nobody else could do");
    lift_all();
    settle();
}
