/* Directed schedules about who counts, and who founds. */
#include "directed.h"

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

/* S14: C, with a new volume, is a voter for the cluster state, and not for Raft yet, since it has not got the last of its log, when that
 * volume is lost, too. */
void s14_a_voter_to_be_is_lost(void)
{
    struct trap *proposes, *assigns;

    begin(3);
    host_lose_volume(C);
    run_for(2500);
    proposes = trap_set(A->index, HF_ACT_PROPOSE, HF_ENTRY_ROLE, TRAP_WATCH);
    assigns = trap_set(A->index, HF_ACT_RAFT_ROLE, -1, TRAP_WATCH);
    host_start(C);
    UNTIL(20000, proposes->fired == 2); /* the former C does not vote any more, this one does */
    cut(LANE_RAFT, A, C, true);
    assigns->fired = 0;
    UNTIL(4000, assigns->fired > 0);
    host_lose_volume(C);
    cut(LANE_RAFT, A, C, false);
    host_start(C);
    MUST(20000, streams_from(C, A) && voters_of(A) == 3);
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
    leave(A, B);
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

/* I3: of two voters B leaves, and the new rule takes longer to load than the lease lasts (walsenders must end; the
 * product waits for those that were there to come back, and B's never will). Until SETTLED the lease needs B's acks,
 * and SETTLED needs the lease: so B stays a member, which stops to vote, until that is done, and is removed then. */
void i3_two_to_one(void)
{
    struct trap *rule;

    begin(2);
    rule = trap_set(A->index, HF_ACT_WORK, HF_WORK_RULE, TRAP_HOLD);
    leave(A, B);
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
    leave(A, D);
    UNTIL(2000, voters_of(A) == 3 && rule->fired > 0);
    run_for(1500);
    trap_lift(rule);
    MUST(60000, opened(A) || opened(B));
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

/* A alone with what it has not got to B and C, but to D; then it is gone for good. */
static void only_d_has_the_tail(void)
{
    cut(LANE_WAL, A, B, true);
    cut(LANE_WAL, A, C, true);
    writes(A, 2);
    UNTIL(500, D->pg.n > B->pg.n && D->pg.n > C->pg.n);
    vanish(A);
    lift_all();
    MUST(8000, opened(B) || opened(C));
    settle();
}

/* I3: D stops to vote, and before that is settled A is gone. D holds most, and is no voter any more. */
void i3_who_leaves_holds_most(void)
{
    struct trap *rule;

    begin(4);
    rule = trap_set(A->index, HF_ACT_WORK, HF_WORK_RULE, TRAP_HOLD);
    leave(A, D);
    UNTIL(2000, voters_of(A) == 3 && rule->fired > 0);
    UNTIL(500, voters_of(B) == 3 && voters_of(C) == 3);
    only_d_has_the_tail();
}

/* I3: D votes, by the cluster state, and Raft does not elect it yet. */
void i3_who_joins_holds_most(void)
{
    struct trap *role;

    begin(3);
    role = trap_set(A->index, HF_ACT_RAFT_ROLE, -1, TRAP_HOLD);
    scenario_node(3, 500);
    host_start(D);
    UNTIL(10000, voters_of(A) == 4 && streams_from(D, A) && role->fired > 0);
    UNTIL(500, voters_of(B) == 4 && voters_of(C) == 4);
    only_d_has_the_tail();
}
