/* Directed schedules about time: leases, promises, fences, and gates that must not be open at once. */
#include "directed.h"

#include <string.h>

/* S6: a sidecar resets all connections of A and then drops everything; A is well and has its lease. */
void s06_reset_is_no_proof(void)
{
    begin(3);
    clients(true);
    isolate(A, true);
    resets(A);
    elect(B);
    UNTIL(300, strcmp(state(B), "fencing") == 0);
    HAPPENED(opened(A));
    MUST(4000, another_open(A));
    settle();
}

/* S5: A writes what nobody else gets; PostgreSQL alone dies, and what waited is visible when it is back.
 * Until others hold it, it must not be shown: then A dies for good, and it never was. */
void s05_restart_shows(void)
{
    begin(3);
    isolate(C, true);
    isolate_lane(LANE_WAL, A, true);
    writes(A, 3);
    host_pg_killed(A);
    clients(true);
    UNTIL(6000, A->pg.state == HF_PG_PRIMARY && hf_decide_view(A->decide).epoch > 2);
    run_for(500);
    HAPPENED(A->pg.n > B->pg.n && A->pg.wal[B->pg.n].visible);
    host_crash(A);
    isolate(C, false);
    MUST(6000, another_open(A));
    settle();
}

/* S7: A's Raft and pings do not get through. C, fenced for B's term, reports; and in the moment before it
 * learns of B's appointment, A's pings pass again. */
void s07_ack_after_report(void)
{
    struct trap *reported, *proposes, *pings;

    begin(3);
    isolate_lane(LANE_MSG, A, true);
    run_for(440);
    isolate_lane(LANE_RAFT, A, true);
    reported = trap_set(C->index, HF_ACT_SEND, HF_MSG_REPORT, TRAP_WATCH);
    proposes = trap_set(B->index, HF_ACT_PROPOSE, -1, TRAP_HOLD);
    elect(B);
    UNTIL(400, reported->fired > 0);
    HAPPENED(strcmp(state(A), "open") == 0);
    pings = trap_set(A->index, HF_ACT_SEND, HF_MSG_PING, TRAP_WATCH);
    cut(LANE_MSG, A, C, false);
    UNTIL(200, pings->fired >= 4 && proposes->fired > 0);
    run_for(3);
    cut(LANE_MSG, A, C, true);
    trap_lift(proposes);
    MUST(4000, another_open(A));
    settle();
}

/* S7: B fences the voters and is cut off; Raft elects A again, whose gate never noticed. It must lead in a
 * new epoch: its voters will never follow the old one. */
static void raft_ends(struct node *n)
{
    isolate_lane(LANE_RAFT, n, true);
}

void s07_no_resume(void)
{
    struct trap *fences;

    begin(3);
    isolate_lane(LANE_RAFT, A, true);
    cut(LANE_MSG, A, B, true);
    trap_set(B->index, HF_ACT_RAFT_BARRIER, -1, TRAP_WATCH)->also = raft_ends;
    fences = trap_set(B->index, HF_ACT_SEND, HF_MSG_FENCE, TRAP_WATCH);
    elect(B);
    UNTIL(300, fences->fired >= 2);
    run_for(5);
    isolate_lane(LANE_RAFT, A, false);
    isolate(B, true);
    UNTIL(1000, A->role != HF_RAFT_LEADER);
    elect(A);
    UNTIL(3000, A->role == HF_RAFT_LEADER);
    MUST(5000, opened(A) && hf_decide_view(A->decide).epoch > 3);
    settle();
}

static void old_stream_ends(struct node *n)
{
    host_later(n, 0, &(struct hf_event){.type = HF_EV_STREAM_GONE, .id = B->disk.durable.self, .epoch = 2});
}

/* S7: A leads again; that a stream of its first epoch has ended it learns only now, between its election and its appointment.
 * The new epoch has a lease of its own all the same. */
void s07_an_end_comes_late(void)
{
    struct trap *appoints;

    begin(3);
    switchover(A, B);
    UNTIL(4000, streams_from(A, B) && streams_from(C, B));
    appoints = trap_set(A->index, HF_ACT_PROPOSE, HF_ENTRY_APPOINT, TRAP_WATCH);
    appoints->also = old_stream_ends;
    switchover(B, A);
    HAPPENED(appoints->fired > 0);
    settle();
}

/* S12: B and C promised a second; then they are restarted with a fifth of it, while A lives on alone. */
void s12_shorter_lease(void)
{
    begin_with(3, 1000);
    clients(true);
    run_for(200);
    isolate(A, true);
    host_crash(B);
    host_crash(C);
    B->lease_ms = C->lease_ms = 200;
    host_start(B);
    host_start(C);
    UNTIL(800, strcmp(state(B), "fencing") == 0 || strcmp(state(C), "fencing") == 0);
    HAPPENED(opened(A));
    MUST(4000, another_open(A));
    settle();
}

/* D and E do not hear from A any more, and the disks of B and C hang. */
static void pings_reach_slow_disks(struct node *n)
{
    cut(LANE_MSG, n, D, true);
    cut(LANE_MSG, n, E, true);
    (void)trap_set(B->index, HF_ACT_PERSIST, -1, TRAP_HOLD);
    (void)trap_set(C->index, HF_ACT_PERSIST, -1, TRAP_HOLD);
}

/* S12: A leads again, with a lease three times as long. What B and C promise it must be on their disks before:
 * they crash, and wait for what these say. */
void s12_longer_lease(void)
{
    begin(5);
    vanish(A);
    A->lease_ms = 1500;
    elect(B);
    MUST(4000, opened(B));
    host_start(A);
    UNTIL(4000, streams_from(A, B) && streams_from(C, B));
    run_for(300);
    trap_set(A->index, HF_ACT_PROPOSE, HF_ENTRY_APPOINT, TRAP_WATCH)->also = pings_reach_slow_disks;
    host_step(B, &(struct hf_event){.type = HF_EV_SWITCHOVER, .id = 1, .request = 1});
    UNTIL(3000, strcmp(state(A), "open") == 0);
    run_for(300);
    HAPPENED(B->disk.durable.promise_ns == 500 * MS && C->disk.durable.promise_ns == 500 * MS);
    isolate(A, true);
    vanish(B);
    vanish(C);
    lift_all();
    host_start(B);
    host_start(C);
    MUST(6000, another_open(A));
    settle();
}

/* S17: a hand-over. The loop of A is starved in the middle of shutting its gate, while its router's
 * threads go on forwarding; its connections end, so that the others do not wait for it. */
void s17_released_early(void)
{
    struct trap *stall;

    begin(3);
    stall = trap_set(A->index, HF_ACT_LEASE, 1, TRAP_STALL);
    host_step(A, &(struct hf_event){.type = HF_EV_SWITCHOVER, .request = 1});
    UNTIL(500, strcmp(state(A), "draining") == 0);
    isolate_lane(LANE_RAFT, A, true);
    UNTIL(1500, W->stalled[0] != NULL);
    resets(A);
    elect(B);
    run_for(400);
    trap_lift(stall);
    isolate_lane(LANE_RAFT, A, false);
    MUST(6000, anybody_open() != NULL);
    settle();
}

/* S17: a hand-over fails: B is elected and appoints nobody, and A is elected again. Acks of pings from
 * before its release reach A only now, and no new ping gets through: A has no lease, for the voters are
 * free. */
void s17_old_acks(void)
{
    struct trap *acks[2], *release, *proposes;

    begin(3);
    acks[0] = trap_set(B->index, HF_ACT_SEND, HF_MSG_ACK, TRAP_HOLD);
    acks[1] = trap_set(C->index, HF_ACT_SEND, HF_MSG_ACK, TRAP_HOLD);
    run_for(60);
    release = trap_set(A->index, HF_ACT_SEND, HF_MSG_RELEASE, TRAP_WATCH);
    host_step(A, &(struct hf_event){.type = HF_EV_SWITCHOVER, .request = 1});
    UNTIL(1000, release->fired > 0);
    trap_set(A->index, HF_ACT_SEND, HF_MSG_PING, TRAP_DROP);
    trap_set(A->index, HF_ACT_TRANSFER, -1, TRAP_DROP);
    proposes = trap_set(B->index, HF_ACT_PROPOSE, -1, TRAP_DROP);
    elect(B);
    UNTIL(200, A->role != HF_RAFT_LEADER);
    run_for(8);
    elect(A);
    UNTIL(400, strcmp(state(A), "barrier") == 0);
    trap_lift(acks[0]);
    trap_lift(acks[1]);
    UNTIL(200, strcmp(state(A), "open") == 0);
    run_for(2);
    HAPPENED(acks[0]->fired > 0 && acks[1]->fired > 0);
    trap_lift(proposes);
    isolate(A, true);
    elect(B);
    MUST(4000, another_open(A));
    run_for(20);
    settle();
}

/* S20, I4: the host has told the receiver on C to end, and it takes its time, while A goes on sending. C must
 * not say what it holds before. */
void s20_late_receiver(void)
{
    struct trap *closes;

    begin(3);
    clients(true);
    closes = trap_set(C->index, HF_ACT_STREAM_CLOSE, -1, TRAP_HOLD);
    isolate_lane(LANE_MSG, A, true);
    run_for(440);
    isolate_lane(LANE_RAFT, A, true);
    elect(B);
    run_for(400);
    HAPPENED(closes->fired > 0 && streams_from(C, A));
    trap_lift(closes);
    MUST(6000, another_open(A));
    settle();
}

/* I2: pings do not get through, so A's lease runs out, long before Raft lets A know that it leads no more. */
void i2_lease_runs_out(void)
{
    begin_empty(3, 500);
    mutate();
    rise();
    clients(true);
    isolate_lane(LANE_MSG, A, true);
    run_for(440);
    isolate_lane(LANE_RAFT, A, true);
    elect(B);
    MUST(400, another_open(A));
    run_for(20);
    HAPPENED(A->role == HF_RAFT_LEADER);
    settle();
}
