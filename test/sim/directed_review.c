/* Directed schedules of a hostile review: each was made to fail before it was mended. */
#include "directed.h"

#include <string.h>

/* S13: A has a tail that nobody else has, restarts, is the greatest, leads, and its barrier's write hangs in its
 * disk. B and C are well, hold all that was acknowledged, and would be a majority of fit reports. */
void s13_barrier_hangs_with_a_tail(void)
{
    struct trap *barrier;

    begin(3);
    isolate_lane(LANE_WAL, A, true);
    writes(A, 3);
    host_crash(A);
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
    begin(3);
    isolate_lane(LANE_WAL, A, true);
    writes(A, 3);
    host_crash(A);
    host_start(A);
    UNTIL(12000, strcmp(state(A), "barrier") == 0);
    MUST(120000, another_open(A));
    settle();
}

static bool copying_on(const struct node *n)
{
    return n->disk.durable.hold_lsn != 0;
}

/* S8, I6: C's copy of B's epoch is complete, and the record of that is not on C's disk yet when a third epoch
 * comes, which forks off before B's. C judges its position by the lineage of before the copy. */
static void disks_of_d_and_e_hang(struct node *n)
{
    (void)n;
    (void)trap_set(D->index, HF_ACT_PERSIST, -1, TRAP_HOLD);
    (void)trap_set(E->index, HF_ACT_PERSIST, -1, TRAP_HOLD);
}

static struct trap *c_disk;

static void disk_of_c_hangs(struct node *n)
{
    (void)n;
    if (c_disk == NULL)
        c_disk = trap_set(C->index, HF_ACT_PERSIST, -1, TRAP_HOLD);
}

void s08_copied_but_not_recorded(void)
{
    struct trap *clones;
    hf_epoch e1, e2;
    unsigned end;

    c_disk = NULL;
    begin(5);
    e1 = hf_decide_view(A->decide).epoch;
    isolate_lane(LANE_WAL, A, true);
    cut(LANE_WAL, A, C, false);
    writes(A, 8);
    UNTIL(200, C->pg.n == A->pg.n && C->pg.n > B->pg.n + 5);
    vanish(A);
    isolate(C, true);
    isolate_lane(LANE_WAL, B, true);
    cut(LANE_WAL, B, C, false);
    trap_set(B->index, HF_ACT_PROPOSE, HF_ENTRY_APPOINT, TRAP_WATCH)->also = disks_of_d_and_e_hang;
    elect(B);
    UNTIL(4000, strcmp(state(B), "barrier") == 0);
    run_for(20);
    e2 = hf_decide_view(B->decide).epoch;
    HAPPENED(e2 > e1 && D->disk.durable.lineage == e1 && E->disk.durable.lineage == e1);
    clones = trap_set(C->index, HF_ACT_WORK, HF_WORK_CLONE, TRAP_WATCH);
    clones->also = disk_of_c_hangs;
    isolate(C, false);
    UNTIL(6000, clones->fired > 0);
    UNTIL(2000, hf_decide_view(C->decide).durable->lineage == e2 && C->pg.state == HF_PG_STANDBY);
    HAPPENED(C->disk.durable.lineage == e1 && copying_on(C));
    end = C->pg.n;
    host_crash(B);
    host_crash(D);
    host_crash(E);
    for (unsigned i = 0; i < SIM_TRAPS; i++)
        if (W->traps[i].used && &W->traps[i] != c_disk)
            trap_lift(&W->traps[i]);
    memset(W->lane_cut, 0, sizeof W->lane_cut);
    isolate_lane(LANE_RAFT, C, true); /* is not elected */
    host_start(A);
    host_start(D);
    host_start(E);
    UNTIL(20000, opened(A) || opened(D) || opened(E));
    isolate_lane(LANE_RAFT, C, false);
    if (!opened(A) && W->seed > 1) { /* in some of the ten worlds D or E is quicker, and A is cloned */
        trap_lift(c_disk);
        settle();
        return;
    }
    UNTIL(1, opened(A));
    UNTIL(3000, hf_decide_view(C->decide).epoch == hf_decide_view(A->decide).epoch);
    HAPPENED(A->pg.n > end);
    run_for(100);
    trap_lift(c_disk);
    run_for(2000);
    settle();
}

/* S8: as S08c, but A, which holds all, is appointed and gone before its lineage is on disk. B is gone for good,
 * C is half rewound and has never taken part in B's epoch. The appointment that came to nothing is the newest epoch, and
 * nobody's position lies in it. */
static void disk_of_a_hangs(struct node *n)
{
    (void)n;
    (void)trap_set(A->index, HF_ACT_PERSIST, -1, TRAP_HOLD);
}

void s08_appointed_for_nothing(void)
{
    struct trap *rewinds;
    hf_epoch newest;

    begin(3);
    host_step(A, &(struct hf_event){.type = HF_EV_SWITCHOVER, .id = C->disk.durable.self, .request = 1});
    MUST(6000, opened(C));
    run_for(300);
    isolate_lane(LANE_WAL, C, true);
    writes(C, 5);
    vanish(C);
    isolate_lane(LANE_WAL, C, false);
    elect(B);
    MUST(4000, opened(B));
    UNTIL(2000, streams_from(A, B));
    write_acked(B);
    rewinds = trap_set(C->index, HF_ACT_WORK, HF_WORK_REWIND, TRAP_WATCH);
    host_start(C);
    UNTIL(4000, rewinds->fired > 0);
    run_for(20);
    HAPPENED(C->pg.torn && C->disk.durable.hold_lsn != 0);
    host_crash(C);
    newest = hf_decide_view(B->decide).epoch;
    host_crash(B);
    trap_set(A->index, HF_ACT_PROPOSE, HF_ENTRY_APPOINT, TRAP_WATCH)->also = disk_of_a_hangs;
    host_start(C);
    UNTIL(8000, hf_decide_view(A->decide).epoch > newest);
    run_for(20);
    HAPPENED(A->disk.durable.lineage == newest);
    host_crash(A);
    lift_all();
    host_start(A);
    MUST(60000, opened(A));
    settle();
}

/* I3: of two voters B leaves, and the new rule takes longer to load than the lease lasts (walsenders must end; the
 * product waits for those that were there to come back, and B's never will). B is no member any more, so it is not
 * pinged; but until SETTLED the lease needs B's acks, SETTLED needs the lease, and a fence round needs B's report. */
void i3_two_to_one(void)
{
    struct trap *rule;

    begin(2);
    rule = trap_set(A->index, HF_ACT_WORK, HF_WORK_RULE, TRAP_HOLD);
    host_step(A, &(struct hf_event){.type = HF_EV_LEAVE, .id = B->disk.durable.self, .request = 2});
    UNTIL(2000, voters_of(A) == 1 && rule->fired > 0);
    run_for(1500);
    trap_lift(rule);
    MUST(60000, opened(A));
}

/* I3: the same from four to three while C is down: A and B, with the leader, are a majority of what is left. */
void i3_four_to_three(void)
{
    struct trap *rule;

    begin(4);
    host_crash(C);
    run_for(300);
    HAPPENED(opened(A));
    rule = trap_set(A->index, HF_ACT_WORK, HF_WORK_RULE, TRAP_HOLD);
    host_step(A, &(struct hf_event){.type = HF_EV_LEAVE, .id = D->disk.durable.self, .request = 2});
    UNTIL(2000, voters_of(A) == 3 && rule->fired > 0);
    run_for(1500);
    trap_lift(rule);
    MUST(60000, opened(A) || opened(B));
}

/* S13: B's node state cannot be written any more right after its appointment; A and C are well. */
static void disk_of_b_hangs(struct node *n)
{
    (void)n;
    (void)trap_set(B->index, HF_ACT_PERSIST, -1, TRAP_HOLD);
}

void s13_recording_hangs(void)
{
    begin(3);
    trap_set(B->index, HF_ACT_PROPOSE, HF_ENTRY_APPOINT, TRAP_WATCH)->also = disk_of_b_hangs;
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

/* I3, S20: D is dead for long and stops counting; A is gone before that is settled, and D is back. B, C and D are
 * a majority of the former voters, B and C of the new ones. But nobody asks D for a report any more. */
void i3_former_voter_is_asked(void)
{
    struct trap *rule;

    begin(4);
    clients(true);
    host_crash(D);
    rule = trap_set(A->index, HF_ACT_WORK, HF_WORK_RULE, TRAP_HOLD);
    UNTIL(12000, voters_of(A) == 3 && rule->fired > 0);
    run_for(100);
    host_crash(A);
    trap_lift(rule);
    host_start(D);
    MUST(60000, opened(B) || opened(C));
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
