/* Directed schedules about who leads, and by whose log. */
#include "directed.h"

#include <string.h>

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
    switchover(A, B);
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
    switchover(A, C);
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

static void all_can_talk(void)
{
    memset(W->lane_cut, 0, sizeof W->lane_cut);
}

/* n leads, and has an entry in its log before anybody hears more of it. */
static void leads_with_an_entry(struct node *n, const struct node *voter, raft_index last)
{
    struct trap *barrier = trap_set(n->index, HF_ACT_RAFT_BARRIER, -1, TRAP_HOLD);

    elect(n);
    UNTIL(50, barrier->fired > 0 && voter->raft.current_term == n->raft.current_term);
    isolate_lane(LANE_RAFT, n, true);
    trap_lift(barrier);
    run_for(10);
    HAPPENED(n->role == HF_RAFT_LEADER && n->disk.n_entries == last && voter->disk.n_entries < last);
}

/* B leads with an entry that nobody gets, then C with another at the same place. B leads again, and brings A the old one
 * and a new one, which is slow to get to B's own disk: the old one is on two of three. But C's is newer, and wins when B
 * comes back without the new one and A is away. So the old one may not be committed. (consensus/mend.h) */
void raft_an_older_entry(void)
{
    struct trap *barrier;
    raft_index before;

    begin_with(3, 200);
    before = A->raft.commit_index;
    leads_with_an_entry(B, A, before + 1);
    leads_with_an_entry(C, A, before + 1);
    vanish(C);
    all_can_talk();
    UNTIL(500, B->role == HF_RAFT_FOLLOWER);
    B->slow_disk_until = W->now + 2 * SEC;
    barrier = trap_set(B->index, HF_ACT_RAFT_BARRIER, -1, TRAP_HOLD);
    elect(B);
    UNTIL(100, A->disk.n_entries == before + 1);
    trap_lift(barrier);
    UNTIL(35, A->disk.n_entries == before + 2);
    run_for(3); /* and B has heard of it */
    HAPPENED(B->role == HF_RAFT_LEADER && B->disk.n_entries == before + 1);
    vanish(B);
    vanish(A);
    B->slow_disk_until = 0;
    host_start(B);
    host_start(C);
    MUST(8000, opened(B) || opened(C));
    host_start(A);
    settle();
}

/* A's process is gone, and both others are told at once, each stands, and is not heard by the other. Nobody waits for
 * Raft's timeout, which is 500 ms at the least. */
void raft_hinted_in_vain(void)
{
    begin(3);
    cut(LANE_RAFT, B, C, true);
    host_crash(A);
    run_for(60);
    HAPPENED(B->role != HF_RAFT_LEADER && C->role != HF_RAFT_LEADER);
    cut(LANE_RAFT, B, C, false);
    MUST(300, B->role == HF_RAFT_LEADER || C->role == HF_RAFT_LEADER);
    MUST(2000, another_open(A));
    host_start(A);
    settle();
}

/* C hears nothing of B's election, but it has stood itself, in terms of which nobody else has heard. Then A, who is one of
 * B's majority, is gone. B and C are a majority: B has to lead, who holds more of the log, and C has to say which term it is. */
void raft_terms_behind(void)
{
    begin(3);
    isolate_lane(LANE_RAFT, C, true);
    switchover(A, B);
    C->disk.term = C->raft.current_term = B->raft.current_term + 3;
    vanish(A);
    vanish(B);
    run_for(600);
    host_start(B);
    isolate_lane(LANE_RAFT, C, false);
    MUST(8000, opened(B));
    host_start(A);
    settle();
}
