/* Directed schedules about copies: what replaces a data directory, and what is known of it meanwhile. */
#include "directed.h"

#include <string.h>

/* C, the last leader, comes back with a tail and is rewound from B, whose epoch A shares; its process dies in the
 * middle. C then does not know what it holds. */
static void c_comes_to_be_rewound(void)
{
    begin(3);
    switchover(A, C);
    run_for(300);
    isolate_lane(LANE_WAL, C, true);
    writes(C, 5);
    vanish(C);
    isolate_lane(LANE_WAL, C, false);
    elect(B);
    MUST(4000, opened(B));
    UNTIL(2000, streams_from(A, B));
    write_acked(B);
    host_start(C);
}

static void c_dies_half_rewound(void)
{
    struct trap *rewinds;

    c_comes_to_be_rewound();
    rewinds = trap_set(C->index, HF_ACT_WORK, HF_WORK_REWIND, TRAP_WATCH);
    UNTIL(4000, rewinds->fired > 0);
    run_for(20);
    HAPPENED(C->pg.torn && C->disk.durable.hold_lsn != 0);
    host_crash(C);
}

/* S8: then A dies too, and B has to be elected again: C must say that it does not know. */
void s08_half_rewound(void)
{
    c_dies_half_rewound();
    host_crash(A);
    UNTIL(3000, strcmp(state(B), "none") == 0);
    host_start(C);
    MUST(8000, opened(B));
    settle();
}

/* S8: the same, but it is B, the leader, who is gone for good. A holds all that B ever acknowledged, and C has never
 * taken part in B's epoch: no need to wait for B. */
void s08_another_holds_all(void)
{
    c_dies_half_rewound();
    host_crash(B);
    host_start(C);
    MUST(8000, opened(A));
    settle();
}

/* S8, S16: A leads and dies with B; it comes back, and so does C, whose PostgreSQL does not start. A holds all that was acknowledged:
 * all it needs of C is that it says so. */
void s08_data_do_not_start(void)
{
    struct trap *starts;

    begin(3);
    write_acked(A);
    for (unsigned i = 0; i < 3; i++)
        host_crash(&W->nodes[i]);
    starts = trap_set(C->index, HF_ACT_WORK, HF_WORK_START, TRAP_FAIL);
    host_start(A);
    host_start(C);
    UNTIL(8000, starts->fired >= 5);
    MUST(12000, opened(A));
    settle();
}

/* S8: as S08c, but A, which holds all, is appointed and gone before its lineage is on disk. B is gone for good,
 * C is half rewound and has never taken part in B's epoch. The appointment that came to nothing is the newest epoch, and
 * nobody's position lies in it. */
void s08_appointed_for_nothing(void)
{
    hf_epoch newest;

    c_dies_half_rewound();
    newest = hf_decide_view(B->decide).epoch;
    host_crash(B);
    trap_set(A->index, HF_ACT_PROPOSE, HF_ENTRY_APPOINT, TRAP_WATCH)->also = disk_hangs;
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

/* S8: a commit is on A, B and E, and E has a tail beyond it. A dies, B leads with C and D, which have none of
 * it yet, and E comes to a leader whose history it is not a prefix of. */
static unsigned tail_on_e(void)
{
    unsigned commit;

    begin(5);
    cut(LANE_WAL, A, C, true);
    cut(LANE_WAL, A, D, true);
    write_acked(A);
    commit = W->acks[W->n_acks - 1].index;
    UNTIL(100, E->pg.n > commit && B->pg.n > commit);
    cut(LANE_WAL, A, B, true);
    writes(A, 3);
    UNTIL(100, E->pg.n > B->pg.n);
    vanish(A);
    isolate(E, true);
    isolate_lane(LANE_WAL, B, true);
    cut(LANE_WAL, B, E, false);
    elect(B);
    UNTIL(4000, strcmp(state(B), "barrier") == 0);
    B->pg.checkpointed = true; /* of its own, soon after the promotion */
    HAPPENED(C->pg.n <= commit && D->pg.n <= commit);
    return commit;
}

/* B's barrier is open, and waits for whoever comes. B dies for good while E is on its way to it: of five
 * nodes two are gone, and E must not have given up what it had. */
void s08_rewound_too_early(void)
{
    struct trap *rewinds;
    unsigned commit = tail_on_e();

    rewinds = trap_set(E->index, HF_ACT_WORK, HF_WORK_REWIND, TRAP_WATCH);
    isolate(E, false);
    for (unsigned i = 0; i < 60 && rewinds->fired == 0; i++)
        run_for(10);
    HAPPENED(hf_decide_view(E->decide).epoch == hf_decide_view(B->decide).epoch && E->pg.n > commit);
    run_for(5);
    host_crash(B);
    MUST(6000, anybody_open() != NULL);
    settle();
}

static void disks_of_d_and_e_hang(struct node *n)
{
    (void)n;
    disk_hangs(D);
    disk_hangs(E);
}

static struct trap *c_disk;

static void disk_of_c_hangs(struct node *n)
{
    (void)n;
    if (c_disk == NULL)
        c_disk = trap_set(C->index, HF_ACT_PERSIST, -1, TRAP_HOLD);
}

/* B is behind a firewall while PostgreSQL on A throws away WAL that B needs. */
static void wal_of_b_is_gone(void)
{
    begin(3);
    clients(true);
    cut(LANE_WAL, A, B, true);
    run_for(500);
    HAPPENED(A->pg.n > B->pg.n + 10);
    A->pg.first_kept = A->pg.n - 2;
    pg_streams_cut(A->index, B->index);
}

/* S8, S16: B is to be cloned from A, whose WAL it needs is gone, and dies in the middle of it; then A's volume is lost. B's own data have
 * not been touched, and it knows that: it and C are two of three who hold what they ever held. */
void s08_killed_beside(void)
{
    wal_of_b_is_gone();
    (void)trap_set(B->index, HF_ACT_WORK, HF_WORK_CLONE, TRAP_CRASH);
    cut(LANE_WAL, A, B, false);
    UNTIL(4000, !B->up);
    HAPPENED(B->disk.durable.hold_lsn != 0 && B->disk.durable.lineage == hf_decide_view(A->decide).epoch);
    host_lose_volume(A);
    host_start(B);
    MUST(8000, opened(C));
    settle();
}

/* S8, I6: C's copy of B's epoch is complete, and the record of that is not on C's disk yet when a third epoch
 * comes, which forks off before B's. C judges its position by the lineage of before the copy. */
static void copied_but_not_recorded(bool restarted)
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
    HAPPENED(C->disk.durable.lineage == e1 && C->disk.durable.hold_lsn != 0);
    end = C->pg.n;
    if (restarted) {
        host_crash(C);
        trap_lift(c_disk);
    }
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
    if (restarted)
        host_start(C);
    if (!opened(A) && W->seed > 1) { /* in some of the ten worlds D or E is quicker, and A is cloned */
        if (!restarted)
            trap_lift(c_disk);
        settle();
        return;
    }
    UNTIL(1, opened(A));
    UNTIL(3000, hf_decide_view(C->decide).epoch == hf_decide_view(A->decide).epoch);
    HAPPENED(A->pg.n > end);
    run_for(100);
    if (!restarted)
        trap_lift(c_disk);
    run_for(2000);
    settle();
}

void s08_copied_but_not_recorded(void)
{
    copied_but_not_recorded(false);
}

/* S8, I6: the same, and C is started again, with the copy in place of its data and a hold on its disk. What it held is gone,
 * and its lineage says nothing of the copy. */
void s08_copied_and_started_again(void)
{
    copied_but_not_recorded(true);
}

/* C, the last leader of `n` nodes, comes back with a tail and is rewound from B. Of what B's data had seen by then the last records
 * were not in its files, and C is cut off before they are streamed. */
static void c_lacks_wal(unsigned n, bool others_have_it)
{
    begin(n);
    switchover(A, C);
    run_for(300);
    isolate_lane(LANE_WAL, C, true);
    writes(C, 5);
    vanish(C);
    elect(B);
    MUST(4000, opened(B));
    UNTIL(2000, streams_from(A, B));
    write_acked(B);
    if (!others_have_it) {
        isolate_lane(LANE_WAL, B, true);
        writes(B, 2);
    }
    isolate_lane(LANE_WAL, C, false);
    W->rewind_lacks = 3;
    host_start(C);
    UNTIL(4000, C->pg.seen > C->pg.n);
    isolate_lane(LANE_WAL, C, true);
}

/* S8: then B is gone for a moment, and whoever leads next has to be followed. */
void s08_rewound_without_all_wal(void)
{
    struct trap *clones;

    c_lacks_wal(3, true);
    clones = trap_set(C->index, HF_ACT_WORK, HF_WORK_CLONE, TRAP_WATCH);
    host_crash(B);
    run_for(500);
    host_start(B);
    MUST(8000, opened(A) || opened(B));
    HAPPENED(C->pg.seen > C->pg.n);
    isolate_lane(LANE_WAL, C, false);
    MUST(4000, streams_from(C, A) || streams_from(C, B));
    HAPPENED(clones->fired == 0);
    settle();
}

/* S8: B is gone for good, and nobody else has what C's data have seen of it: of no use but to be cloned. */
void s08_rewound_past_the_fork(void)
{
    c_lacks_wal(5, false);
    HAPPENED(C->pg.seen > A->pg.n);
    host_crash(B);
    isolate_lane(LANE_WAL, B, false);
    isolate_lane(LANE_WAL, C, true);
    MUST(8000, anybody_open() != NULL);
    HAPPENED(C->pg.seen > C->pg.n);
    isolate_lane(LANE_WAL, C, false);
    run_for(4000);
    settle();
}

/* I6: a commit is on A and C. A dies, and C's data directory is deleted, but not what C remembers: it does not
 * know what it held, which is something else than never having held anything. */
void i6_directory_deleted(void)
{
    begin(3);
    cut(LANE_WAL, A, B, true);
    write_acked(A);
    HAPPENED(C->pg.n > B->pg.n && C->disk.durable.had_data);
    vanish(A);
    host_crash(C);
    memset(&C->pg, 0, sizeof C->pg);
    C->pg.state = HF_PG_EMPTY;
    host_start(C);
    run_for(3000);
    host_start(A);
    MUST(6000, opened(A));
    settle();
}

/* S16: B comes back, and its WAL is gone. */
void s16_wal_is_gone(void)
{
    struct trap *clones;

    wal_of_b_is_gone();
    clones = trap_set(B->index, HF_ACT_WORK, HF_WORK_CLONE, TRAP_WATCH);
    cut(LANE_WAL, A, B, false);
    MUST(4000, streams_from(B, A) && B->pg.n + 20 > A->pg.n);
    HAPPENED(clones->fired > 0);
    settle();
}

/* S8: B's PostgreSQL has started, and its exit has been told, when its start is told as a success. */
void s08_ended_while_it_started(void)
{
    begin(3);
    host_pg_killed(B);
    B->pg.ends_at_start = true;
    UNTIL(4000, !B->pg.ends_at_start);
    MUST(8000, streams_from(B, A));
    settle();
}

/* S16: B's PostgreSQL starts, and ends while it replays what it has, each time. */
void s16_replay_ends(void)
{
    struct trap *clones;

    begin(3);
    clients(true);
    clones = trap_set(B->index, HF_ACT_WORK, HF_WORK_CLONE, TRAP_WATCH);
    host_pg_killed(B);
    MUST(2000, streams_from(B, A)); /* once is nobody's fault */
    HAPPENED(clones->fired == 0);
    B->pg.spoilt = true;
    host_pg_killed(B);
    MUST(15000, streams_from(B, A));
    HAPPENED(clones->fired > 0);
    settle();
}

/* S16: the same, B alone has all that was acknowledged, and A, the leader, is gone. C must not lead, B cannot; and B keeps
 * what it has until somebody leads who may be copied. */
void s16_replay_ends_and_nobody_leads(void)
{
    struct trap *clones, *starts;
    unsigned commit;

    begin(3);
    cut(LANE_WAL, A, C, true);
    write_acked(A);
    commit = W->acks[W->n_acks - 1].index;
    HAPPENED(B->pg.n > commit && C->pg.n <= commit);
    B->pg.spoilt = true;
    starts = trap_set(B->index, HF_ACT_WORK, HF_WORK_START, TRAP_WATCH);
    clones = trap_set(B->index, HF_ACT_WORK, HF_WORK_CLONE, TRAP_WATCH);
    host_pg_killed(B);
    host_crash(A);
    cut(LANE_WAL, A, C, false);
    run_for(20000);
    HAPPENED(anybody_open() == NULL && clones->fired == 0 && B->pg.n > commit);
    if (starts->fired > 12) /* seven seconds for five, and then every four */
        sim_fail("started %u times in 20 s", starts->fired);
    host_start(A);
    MUST(20000, anybody_open() != NULL && streams_from(B, anybody_open()));
    HAPPENED(clones->fired > 0);
    settle();
}

/* S16: B's disk is full, and PostgreSQL does not start there. Its data are well: they are not cloned. */
void s16_disk_is_full(void)
{
    struct trap *clones;

    begin(3);
    clients(true);
    clones = trap_set(B->index, HF_ACT_WORK, HF_WORK_CLONE, TRAP_WATCH);
    B->pg.full = true;
    host_pg_killed(B);
    run_for(60000);
    HAPPENED(!streams_from(B, A));
    B->pg.full = false;
    MUST(3000, streams_from(B, A));
    if (clones->fired > 0)
        sim_fail("cloned although only the disk was full");
    settle();
}

static struct trap *starts_of(const struct node *n)
{
    return trap_set(n->index, HF_ACT_WORK, HF_WORK_START, TRAP_FAIL);
}

/* S16: C is away, and B's PostgreSQL does not start, for a reason that passes; a copy cannot be made for another that does not (its
 * disk has no room for a second one). What B has is all that A lacks. */
void s16_no_room_for_a_copy(void)
{
    struct trap *starts, *clones;

    begin(3);
    starts = starts_of(B);
    clones = trap_set(B->index, HF_ACT_WORK, HF_WORK_CLONE, TRAP_FAIL);
    vanish(C);
    host_pg_killed(B);
    UNTIL(60000, starts->fired >= 5 && clones->fired >= 2);
    trap_lift(starts);
    MUST(10000, anybody_open() != NULL && streams_from(B, A));
    settle();
}

/* S16: the same, and the reason passes while nobody leads: B tells what it has, so there is nothing wrong with it, and A, which
 * leads then, may lack nothing but B. B streams, and is not stopped to be cloned. */
void s16_it_starts_after_all(void)
{
    struct trap *starts, *clones, *positions;

    begin(3);
    starts = starts_of(B);
    clones = trap_set(B->index, HF_ACT_WORK, HF_WORK_CLONE, TRAP_WATCH);
    host_crash(C);
    host_crash(A);
    host_pg_killed(B);
    UNTIL(60000, starts->fired >= 4); /* with its end, it has come to nothing five times */
    positions = trap_set(B->index, HF_ACT_WORK, HF_WORK_POSITION, TRAP_WATCH);
    isolate_lane(LANE_RAFT, B, true); /* is not elected */
    trap_lift(starts);
    host_start(A);
    host_start(C);
    UNTIL(20000, positions->fired > 0);
    MUST(10000, anybody_open() != NULL);
    isolate_lane(LANE_RAFT, B, false);
    MUST(10000, anybody_open() != NULL && (anybody_open() == B || streams_from(B, anybody_open())));
    if (clones->fired > 0)
        sim_fail("cloned although it had told where its history ends");
    settle();
}

/* -- on the way out -------------------------------------------------------------------------------------- */

static void ask_to_end(struct node *n)
{
    host_step(n, &(struct hf_event){.type = HF_EV_SHUTDOWN});
}

static void takes_long(struct node *n)
{
    n->slow_disk_until = W->now + 100 * MS;
}

/* S20, S8: SIGTERM while B is being cloned. It does not wait for that, and what it had is still there, and counts: A is lost. */
void s20_ended_while_it_copies(void)
{
    struct trap *clones;

    wal_of_b_is_gone();
    clones = trap_set(B->index, HF_ACT_WORK, HF_WORK_CLONE, TRAP_WATCH);
    clones->also = takes_long;
    cut(LANE_WAL, A, B, false);
    UNTIL(4000, clones->fired > 0);
    ask_to_end(B);
    MUST(200, !B->up);
    host_lose_volume(A);
    trap_lift(clones);
    host_start(B);
    MUST(8000, opened(C));
    settle();
}

/* S20, S8: SIGTERM while C is being rewound. That has its time, since else it is cloned, but not all the time in the world. */
void s20_ended_while_it_rewinds(void)
{
    struct trap *rewinds;

    c_comes_to_be_rewound();
    rewinds = trap_set(C->index, HF_ACT_WORK, HF_WORK_REWIND, TRAP_HOLD);
    UNTIL(4000, rewinds->fired > 0);
    ask_to_end(C);
    run_for(10000);
    HAPPENED(C->up);
    MUST(8000, !C->up);
    trap_lift(rewinds);
    host_start(C);
    MUST(8000, streams_from(C, B));
    settle();
}

/* S20: SIGTERM, and a follower's checkpoint does not end. */
void s20_ended_with_a_slow_checkpoint(void)
{
    struct trap *checkpoint;

    begin(3);
    checkpoint = trap_set(C->index, HF_ACT_WORK, HF_WORK_CHECKPOINT, TRAP_HOLD);
    ask_to_end(C);
    UNTIL(1000, checkpoint->fired > 0);
    MUST(20000, !C->up);
    settle();
}

/* S20: SIGTERM, and the checkpoint before the hand-over does not end, though all else does. Clients work on until it is given up. */
void s20_a_leader_ended_with_a_slow_checkpoint(void)
{
    struct trap *checkpoint;

    begin(3);
    checkpoint = trap_set(A->index, HF_ACT_WORK, HF_WORK_CHECKPOINT, TRAP_HOLD);
    ask_to_end(A);
    UNTIL(1000, checkpoint->fired > 0 && strcmp(state(A), "settling") == 0);
    run_for(10000);
    MUST(1, opened(A));
    MUST(8000, another_open(A));
    MUST(2000, !A->up);
    settle();
}
