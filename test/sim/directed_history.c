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
    vanish(A);
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

/* A walsender under f's name that says it has everything: a superuser's pg_receivewal, around the relay. */
static void stray(const struct node *l, const struct node *f, bool there)
{
    for (unsigned i = 0; i < SIM_STREAMS; i++) {
        struct stream *s = &W->streams[i];
        if (!there && s->used && s->from == l->index && s->id == f->disk.durable.self)
            s->used = false;
        if (there && !s->used) {
            *s = (struct stream){.used = true,
                                 .serial = ++W->serial,
                                 .from = l->index,
                                 .to = f->index,
                                 .id = f->disk.durable.self,
                                 .reported = SIM_RECORDS};
            return;
        }
    }
}

/* S1: a commit that only A and B hold, and nobody has acknowledged. B leads next, and strays let the
 * barrier's INSERT return. Then A and B are gone: what was never on a majority must not have been shown. */
void s01_stray_walsender(void)
{
    unsigned before;

    begin(5);
    before = A->pg.n;
    isolate_lane(LANE_WAL, A, true);
    cut(LANE_WAL, A, B, false);
    writes(A, 2);
    UNTIL(100, B->pg.n >= before + 2);
    vanish(A);
    isolate_lane(LANE_WAL, B, true);
    elect(B);
    UNTIL(4000, strcmp(state(B), "barrier") == 0);
    run_for(10); /* earlier it would not be seen waiting, and B would step down for that (S2) */
    stray(B, C, true);
    stray(B, D, true);
    clients(true);
    run_for(200);
    HAPPENED(pg_released(B, before + 1) && C->pg.n < B->pg.n);
    stray(B, C, false);
    stray(B, D, false);
    host_crash(B);
    MUST(6000, anybody_open() != NULL);
    settle();
}

static void b_leads_whom_c_cannot_follow(void)
{
    begin(3);
    write_acked(A);
    run_for(200);
    vanish(A);
    C->pg.half = true;
    elect(B);
}

/* S1: C's WAL ends in a record of A's that went on in the next segment, which C never got. B's WAL goes on differently at that place. What
 * C streams from B, it flushes and says so, and can never replay. */
void s01_record_cut(void)
{
    b_leads_whom_c_cannot_follow();
    MUST(8000, opened(B));
    write_acked(B);
    vanish(B);
    host_start(A);
    MUST(16000, another_open(B));
    HAPPENED(!C->pg.half);
    host_start(B);
    settle();
}

/* S1: it has been told, and has been copied; its new stream takes long to open, and until the leader hears of that its pings say it again. */
void s01_copied_once(void)
{
    struct trap *clones, *opens;

    b_leads_whom_c_cannot_follow();
    clones = trap_set(C->index, HF_ACT_WORK, HF_WORK_CLONE, TRAP_HOLD);
    UNTIL(8000, clones->fired > 0);
    opens = trap_set(C->index, HF_ACT_STREAM_OPEN, -1, TRAP_HOLD);
    trap_lift(clones);
    clones = trap_set(C->index, HF_ACT_WORK, HF_WORK_CLONE, TRAP_WATCH);
    UNTIL(8000, opens->fired > 0);
    run_for(500);
    trap_lift(opens);
    MUST(4000, streams_from(C, B));
    MUST(1, clones->fired == 0);
    host_start(A);
    settle();
}

/* S2: the rule comes into force too late for B's barrier, which returns at once: B must not lead on that.
 * From then on whoever leads looks late whether its barrier waits; followers must not have ended the wait
 * by then. */
void s02_seen_waiting(void)
{
    begin(3);
    vanish(A);
    W->rule_late_ns = 300 * MS;
    elect(B);
    UNTIL(4000, strcmp(state(B), "barrier") == 0);
    UNTIL(200, strcmp(state(B), "barrier") != 0);
    HAPPENED(!opened(B));
    W->rule_late_ns = 0;
    W->look_late_ns = 100 * MS;
    host_start(A);
    MUST(12000, anybody_open() != NULL);
    settle();
}

/* S4: B is appointed, promotes, and dies before anybody has its WAL. C does the same from the same fork,
 * so with the same timeline number, and D takes a few bytes from it; E's disk is too slow to take part. */
static struct trap *two_promotions(void)
{
    struct trap *reported, *disk;

    begin(5);
    vanish(A);
    isolate_lane(LANE_WAL, B, true);
    elect(B);
    UNTIL(4000, strcmp(state(B), "barrier") == 0);
    run_for(10);
    vanish(B);
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
    vanish(A);
    isolate_lane(LANE_WAL, B, true);
    elect(B);
    UNTIL(4000, strcmp(state(B), "barrier") == 0);
    run_for(10);
    vanish(B);
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

static void disks_of_b_and_c_hang(struct node *n)
{
    (void)n;
    disk_hangs(B);
    disk_hangs(C);
}

/* S4: A has a tail that nobody else has. B is appointed, and its disk hangs: it must not promote before its
 * lineage is there. Then B is gone, A leads with all of its tail, and B comes back: whatever it wrote of its own
 * lies where A's tail is. */
void s04_lineage_before_promotion(void)
{
    begin(3);
    isolate_lane(LANE_WAL, A, true);
    writes(A, 10);
    vanish(A);
    trap_set(B->index, HF_ACT_PROPOSE, HF_ENTRY_APPOINT, TRAP_WATCH)->also = disks_of_b_and_c_hang;
    elect(B);
    UNTIL(2000, strcmp(state(B), "recording") == 0 || strcmp(state(B), "barrier") == 0);
    run_for(200);
    HAPPENED(B->disk.durable.lineage == 2 && hf_decide_view(B->decide).epoch == 3);
    vanish(B);
    vanish(C);
    lift_all();
    isolate_lane(LANE_WAL, A, false);
    host_start(A);
    host_start(C);
    MUST(6000, opened(A));
    settle();
}

/* I1: a commit is on A and B; C, which lacks it, is elected first. */
void i1_not_greatest(void)
{
    begin(3);
    cut(LANE_WAL, A, C, true);
    write_acked(A);
    HAPPENED(C->pg.n < B->pg.n);
    vanish(A);
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
    vanish(A);
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

/* I4: C reports, and the process is gone before the fence is on its slow disk. It comes back knowing only
 * that A leads, and A's WAL still reaches it. */
void i4_fence_forgotten(void)
{
    struct trap *disk, *report, *proposes;

    begin(3);
    clients(true);
    isolate_lane(LANE_MSG, A, true);
    run_for(440);
    isolate_lane(LANE_RAFT, A, true);
    disk = trap_set(C->index, HF_ACT_PERSIST, -1, TRAP_HOLD);
    report = trap_set(C->index, HF_ACT_SEND, HF_MSG_REPORT, TRAP_CRASH);
    proposes = trap_set(B->index, HF_ACT_PROPOSE, -1, TRAP_HOLD);
    elect(B);
    run_for(120);
    HAPPENED(disk->fired > 0);
    trap_lift(disk);
    UNTIL(200, report->fired > 0 && !C->up);
    cut(LANE_MSG, A, C, false);
    host_start(C);
    run_for(250);
    HAPPENED(C->pg.state == HF_PG_STANDBY && hf_decide_view(C->decide).leader == 1);
    cut(LANE_MSG, A, C, true);
    trap_lift(proposes);
    MUST(6000, another_open(A));
    settle();
}
