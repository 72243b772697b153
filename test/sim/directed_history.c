/* Directed schedules about WAL: who holds what, who may stream from whom, and what a copy forgets. */
#include "directed.h"

#include <string.h>

/* S1: A dies with WAL that nobody else has, and comes back to B, whose WAL forked off before that. */
void s01_ahead_of_the_fork(void)
{
    struct trap *copies;

    begin(3);
    isolate_lane(LANE_WAL, A, true);
    writes(A, 8);
    host_crash(A);
    isolate_lane(LANE_WAL, A, false);
    elect(B);
    MUST(4000, opened(B));
    copies = trap_set(A->index, HF_ACT_WORK, -1, TRAP_WATCH);
    host_start(A);
    MUST(4000, streams_from(A, B));
    HAPPENED(copies->fired > 1);
    write_acked(B);
    settle();
}

/* S4: B is appointed, promotes, and dies before anybody has its WAL. C does the same from the same fork,
 * so with the same timeline number, and D takes a few bytes from it; E's disk is too slow to take part. */
static struct trap *two_promotions(void)
{
    struct trap *reported, *disk;

    begin(5);
    host_crash(A);
    isolate_lane(LANE_WAL, B, true);
    elect(B);
    UNTIL(4000, strcmp(state(B), "barrier") == 0);
    run_for(10);
    host_crash(B);
    reported = trap_set(E->index, HF_ACT_SEND, HF_MSG_REPORT, TRAP_WATCH);
    elect(C);
    UNTIL(4000, reported->fired > 0);
    disk = trap_set(E->index, HF_ACT_PERSIST, -1, TRAP_HOLD);
    UNTIL(4000, streams_from(D, C) && D->pg.n == C->pg.n && disk->fired > 0);
    HAPPENED(B->pg.tli == C->pg.tli && B->pg.n == C->pg.n && D->pg.tli == C->pg.tli);
    return disk;
}

/* Then B leads, with A and E, and D comes back: PostgreSQL would let it stream. */
static void the_first_leads_again(void)
{
    struct trap *disk = two_promotions();

    host_crash(C);
    host_crash(D);
    host_crash(E);
    trap_lift(disk);
    memset(W->lane_cut, 0, sizeof W->lane_cut);
    host_start(A);
    host_start(B);
    host_start(E);
    MUST(6000, opened(B));
    HAPPENED(D->pg.tli == 3 && B->pg.tli == 4);
    host_start(D);
    MUST(6000, streams_from(D, B));
    settle();
}

void s04_same_timeline(void)
{
    the_first_leads_again();
}

/* S9: the same; pg_rewind would find nothing to do before the fork of the shared number. */
void s09_rewind_misled(void)
{
    the_first_leads_again();
}

/* S4: C's epoch goes on: D and E stream, a commit is acknowledged. C and E die; A and B come back. What D has
 * of C's epoch must count for more than what B has of its own. */
void s04_lineage_first(void)
{
    struct trap *opens;

    begin(5);
    host_crash(A);
    isolate_lane(LANE_WAL, B, true);
    elect(B);
    UNTIL(4000, strcmp(state(B), "barrier") == 0);
    run_for(10);
    host_crash(B);
    opens = trap_set(D->index, HF_ACT_STREAM_OPEN, -1, TRAP_WATCH);
    elect(C);
    MUST(4000, opened(C));
    write_acked(C);
    HAPPENED(opens->fired > 0);
    host_crash(C);
    host_crash(E);
    isolate_lane(LANE_WAL, B, false);
    host_start(A);
    host_start(B);
    MUST(6000, anybody_open() != NULL);
    settle();
}

/* S16: B is behind a firewall while PostgreSQL on A throws away WAL that B needs. */
void s16_wal_is_gone(void)
{
    struct trap *clones;

    begin(3);
    clients(true);
    cut(LANE_WAL, A, B, true);
    run_for(500);
    HAPPENED(A->pg.n > B->pg.n + 10);
    A->pg.first_kept = A->pg.n - 2;
    pg_streams_cut(A->index, B->index);
    clones = trap_set(B->index, HF_ACT_WORK, HF_WORK_CLONE, TRAP_WATCH);
    cut(LANE_WAL, A, B, false);
    MUST(4000, streams_from(B, A) && B->pg.n + 20 > A->pg.n);
    HAPPENED(clones->fired > 0);
    settle();
}

/* I1: a commit is on A and B; C, which lacks it, is elected first. */
void i1_not_greatest(void)
{
    begin(3);
    cut(LANE_WAL, A, C, true);
    write_acked(A);
    HAPPENED(C->pg.n < B->pg.n);
    host_crash(A);
    elect(C);
    UNTIL(2000, strcmp(state(C), "fencing") == 0);
    MUST(4000, opened(B));
    settle();
}

/* I5: A dies with a long tail of its own epoch; in the next, a short one is acknowledged by B and C. A comes
 * back as B dies: C holds less WAL than A, and more of what counts. */
void i1_longer_but_older(void)
{
    begin(3);
    isolate_lane(LANE_WAL, A, true);
    writes(A, 40);
    host_crash(A);
    isolate_lane(LANE_WAL, A, false);
    elect(B);
    MUST(4000, opened(B));
    write_acked(B);
    HAPPENED(A->pg.n > B->pg.n && C->pg.n == B->pg.n);
    host_crash(B);
    host_start(A);
    MUST(6000, opened(C));
    settle();
}
