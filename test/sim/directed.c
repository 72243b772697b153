/* Directed schedules: the table, and the words they are written with. */
#include "directed.h"

#include <string.h>
#include <strings.h>

/* directed_history.c */
void s01_ahead_of_the_fork(void);
void s01_stray_walsender(void);
void s01_record_cut(void);
void s01_copied_once(void);
void s08_ended_while_it_started(void);
void s02_seen_waiting(void);
void s04_same_timeline(void);
void s09_rewind_misled(void);
void s04_lineage_first(void);
void s04_lineage_before_promotion(void);
void i1_not_greatest(void);
void i1_longer_but_older(void);
void i4_fence_forgotten(void);

/* directed_copy.c */
void s08_half_rewound(void);
void s08_another_holds_all(void);
void s08_appointed_for_nothing(void);
void s08_data_do_not_start(void);
void s08_killed_beside(void);
void s08_copied_and_started_again(void);
void s08_rewound_too_early(void);
void s08_copied_but_not_recorded(void);
void s08_rewound_without_all_wal(void);
void s08_rewound_past_the_fork(void);
void i6_directory_deleted(void);
void s16_wal_is_gone(void);
void s16_replay_ends(void);
void s16_replay_ends_and_nobody_leads(void);
void s16_disk_is_full(void);
void s16_no_room_for_a_copy(void);
void s16_it_starts_after_all(void);

/* directed_lease.c */
void s06_reset_is_no_proof(void);
void s05_restart_shows(void);
void s07_ack_after_report(void);
void s07_no_resume(void);
void s07_an_end_comes_late(void);
void s12_shorter_lease(void);
void s12_longer_lease(void);
void s17_released_early(void);
void s17_old_acks(void);
void s20_late_receiver(void);
void i2_lease_runs_out(void);

/* directed_late.c */
void s10_slow_position(void);
void s10_position_leaves_it_down(void);
void s10_wal_is_not_read(void);
void s10_wal_is_never_read(void);
void s13_cannot_promote(void);
void s13_writes_hang(void);
void s13_writes_fail(void);
void s13_writes_wait_for_a_copy(void);
void s13_barrier_waits_for_a_copy(void);
void s13_long_lease(void);
void s13_barrier_hangs_with_a_tail(void);
void s13_barrier_reaches_nobody(void);
void s13_recording_hangs(void);
void s13_promotion_hangs(void);
void s13_raft_barrier_hangs(void);
void s13_hand_over_hangs(void);
void s13_nobody_can_write(void);
void s13_only_the_unfit_can_lead(void);

/* directed_lead.c */
void s18_old_appointment(void);
void s18_committed_by_another(void);
void raft_anothers_entry(void);
void raft_hinted_in_vain(void);
void raft_terms_behind(void);
void raft_an_older_entry(void);

/* directed_members.c */
void s14_two_incarnations(void);
void s15_second_founding(void);
void s14_a_voter_to_be_is_lost(void);
void s20_never_below_three(void);
void s20_ended_while_it_copies(void);
void s20_ended_while_it_rewinds(void);
void s20_ended_with_a_slow_checkpoint(void);
void s20_a_leader_ended_with_a_slow_checkpoint(void);
void i3_rule_not_loaded(void);
void i3_settled_between(void);
void i3_rule_not_proved(void);
void i3_two_to_one(void);
void i3_four_to_three(void);
void i3_former_voter_is_asked(void);
void i3_who_leaves_holds_most(void);
void i3_who_joins_holds_most(void);

const struct directed directed_all[] = {
    {"S01a", "the old leader comes back with a tail", s01_ahead_of_the_fork, {{HF_MUT_ADMIT_ANY, BREAKS}}},
    {"S01b", "a walsender from around the relay", s01_stray_walsender, {{HF_MUT_BARRIER_BY_INSERT, BREAKS}}},
    {"S01c", "a record cut at a segment's end", s01_record_cut, {{HF_MUT_BEGIN_ANYWHERE, STANDS}}},
    {"S01d", "told late that its WAL was cut", s01_copied_once, {{HF_MUT_NONE, 0}}},
    {"S02", "a rule late, a look late", s02_seen_waiting, {{HF_MUT_ADMIT_BEFORE_WAIT, STANDS}}},
    {"S04a", "two failed promotions, one timeline", s04_same_timeline,
     {{HF_MUT_PREFIX_BY_TIMELINE, BREAKS}}},
    {"S04b", "its own epoch counts for more", s04_lineage_first, {{HF_MUT_LINEAGE_LATE, BREAKS}}},
    {"S04c", "a promotion, and a disk that hangs", s04_lineage_before_promotion, {{HF_MUT_NONE, 0}}},
    {"S05", "a restart shows what waited", s05_restart_shows, {{HF_MUT_OPEN_BEFORE_BARRIER, BREAKS}}},
    {"S06", "resets while the leader is well", s06_reset_is_no_proof,
     {{HF_MUT_REFUSED_IS_PROOF, BREAKS}, {HF_MUT_NO_PROMISE_WAIT, BREAKS}}},
    {"S07a", "a ping after the report", s07_ack_after_report, {{HF_MUT_ACK_WHILE_FENCING, BREAKS}}},
    {"S07b", "elected again after a fence", s07_no_resume, {{HF_MUT_RESUME_EPOCH, STANDS}}},
    {"S07c", "elected again, and an old stream ends", s07_an_end_comes_late, {{HF_MUT_NONE, 0}}},
    {"S08a", "half rewound as the leader dies", s08_half_rewound, {{HF_MUT_REPORT_WHILE_REWINDING, STANDS}}},
    {"S08b", "rewound before the barrier", s08_rewound_too_early, {{HF_MUT_REWIND_EARLY, COVERED}}},
    {"S08c", "half rewound, and another holds all", s08_another_holds_all, {{HF_MUT_NONE, 0}}},
    {"S08d", "copied, and not recorded", s08_copied_but_not_recorded, {{HF_MUT_NONE, 0}}},
    {"S08e", "half rewound, and an appointment for nothing", s08_appointed_for_nothing, {{HF_MUT_NONE, 0}}},
    {"S08f", "data that do not start", s08_data_do_not_start, {{HF_MUT_NONE, 0}}},
    {"S08g", "killed while a copy was made beside", s08_killed_beside, {{HF_MUT_NONE, 0}}},
    {"S08h", "copied, not recorded, and started again", s08_copied_and_started_again,
     {{HF_MUT_DROP_HOLD, BREAKS}}},
    {"S08i", "rewound, and WAL is still to come", s08_rewound_without_all_wal, {{HF_MUT_NO_POSITION_REWOUND, STANDS}}},
    {"S08j", "rewound, and that WAL never comes", s08_rewound_past_the_fork,
     {{HF_MUT_SEEN_IS_NOTHING, BREAKS}, {HF_MUT_REWIND_INCOMPLETE, BREAKS}}},
    {"S08k", "started, and ended before that was told", s08_ended_while_it_started, {{HF_MUT_NONE, 0}}},
    {"S09", "pg_rewind and a shared timeline", s09_rewind_misled, {{HF_MUT_TRUST_REWIND, BREAKS}}},
    {"S10", "a replay that does not end", s10_slow_position, {{HF_MUT_COUNT_ONE_LESS, BREAKS}}},
    {"S10b", "a position that leaves PostgreSQL down", s10_position_leaves_it_down, {{HF_MUT_NONE, 0}}},
    {"S10c", "WAL that is not read at first", s10_wal_is_not_read, {{HF_MUT_WAL_UNREAD, BREAKS}}},
    {"S10d", "WAL that is never read", s10_wal_is_never_read, {{HF_MUT_REPLAY_FOR_EVER, STANDS}}},
    {"S12a", "restarted with a shorter lease", s12_shorter_lease,
     {{HF_MUT_FORGET_PROMISE, BREAKS}, {HF_MUT_SHORTER_PROMISE, BREAKS}}},
    {"S12b", "a longer lease, and slow disks", s12_longer_lease, {{HF_MUT_NONE, 0}}},
    {"S13a", "the elected cannot promote", s13_cannot_promote, {{HF_MUT_NEVER_UNFIT, STANDS}}},
    {"S13b", "writes that do not end", s13_writes_hang, {{HF_MUT_NONE, 0}}},
    {"S13c", "writes that fail", s13_writes_fail, {{HF_MUT_NONE, 0}}},
    {"S13d", "writes that wait for a copy", s13_writes_wait_for_a_copy, {{HF_MUT_NONE, 0}}},
    {"S13e", "a barrier that waits for a copy", s13_barrier_waits_for_a_copy, {{HF_MUT_NONE, 0}}},
    {"S13f", "a barrier that hangs, and a tail", s13_barrier_hangs_with_a_tail, {{HF_MUT_NONE, 0}}},
    {"S13g", "a barrier that reaches nobody, and a tail", s13_barrier_reaches_nobody, {{HF_MUT_NONE, 0}}},
    {"S13h", "a lineage that is never recorded", s13_recording_hangs, {{HF_MUT_NONE, 0}}},
    {"S13i", "a promotion that never ends", s13_promotion_hangs, {{HF_MUT_NONE, 0}}},
    {"S13j", "a Raft barrier that never ends", s13_raft_barrier_hangs, {{HF_MUT_NONE, 0}}},
    {"S13k", "only the unfit can lead", s13_only_the_unfit_can_lead, {{HF_MUT_NONE, 0}}},
    {"S13l", "a hand-over, and a disk that hangs", s13_hand_over_hangs, {{HF_MUT_NONE, 0}}},
    {"S13m", "writes that nobody can make", s13_nobody_can_write, {{HF_MUT_NONE, 0}}},
    {"S13n", "a lease longer than a leader's patience", s13_long_lease, {{HF_MUT_NONE, 0}}},
    {"S14", "a new volume under an old name", s14_two_incarnations, {{HF_MUT_NONE, 0}}},
    {"S14b", "a voter to be loses its volume", s14_a_voter_to_be_is_lost, {{HF_MUT_NONE, 0}}},
    {"S15", "node 0 comes back empty and alone", s15_second_founding, {{HF_MUT_FOUND_ALONE, BREAKS}}},
    {"S16", "the WAL is gone", s16_wal_is_gone, {{HF_MUT_NO_RECLONE_ON_MISSING, STANDS}}},
    {"S16b", "a replay that ends", s16_replay_ends, {{HF_MUT_REPLAY_FOR_EVER, STANDS}}},
    {"S16c", "a replay that ends, and the leader is gone", s16_replay_ends_and_nobody_leads,
     {{HF_MUT_NONE, 0}}},
    {"S16d", "a disk that is full for long", s16_disk_is_full, {{HF_MUT_NONE, 0}}},
    {"S16e", "no room for a copy", s16_no_room_for_a_copy, {{HF_MUT_NONE, 0}}},
    {"S16f", "it starts after all", s16_it_starts_after_all, {{HF_MUT_NONE, 0}}},
    {"S17a", "released before the gate is shut", s17_released_early, {{HF_MUT_RELEASE_EARLY, BREAKS}}},
    {"S17b", "a hand-over fails, acks come late", s17_old_acks, {{HF_MUT_OLD_ACKS_COUNT, BREAKS}}},
    {"S18a", "an old appointment in the log", s18_old_appointment, {{HF_MUT_PROMOTE_FROM_LOG, BREAKS}}},
    {"S18b", "appointed by a log that another commits", s18_committed_by_another, {{HF_MUT_NONE, 0}}},
    {"S20a", "two of three, one after the other", s20_never_below_three, {{HF_MUT_SHRINK_BELOW_3, STANDS}}},
    {"S20b", "a receiver that ends late", s20_late_receiver, {{HF_MUT_SKIP_FENCE, BREAKS}}},
    {"S20c", "SIGTERM, and a copy that takes long", s20_ended_while_it_copies, {{HF_MUT_NONE, 0}}},
    {"S20d", "SIGTERM, and a rewind that takes long", s20_ended_while_it_rewinds, {{HF_MUT_NONE, 0}}},
    {"S20e", "SIGTERM, and a checkpoint that takes long", s20_ended_with_a_slow_checkpoint, {{HF_MUT_NONE, 0}}},
    {"S20f", "SIGTERM, and a leader's checkpoint that takes long", s20_a_leader_ended_with_a_slow_checkpoint, {{HF_MUT_NONE, 0}}},
    {"I1a", "a commit the elected lacks", i1_not_greatest, {{HF_MUT_NOT_GREATEST, BREAKS}}},
    {"I1b", "longer WAL of an older epoch", i1_longer_but_older, {{HF_MUT_LSN_ONLY, BREAKS}}},
    {"I2", "a lease runs out", i2_lease_runs_out, {{HF_MUT_IGNORE_LEASE, BREAKS}}},
    {"I3a", "from three voters to five", i3_rule_not_loaded, {{HF_MUT_RULE_NOT_LOADED, BREAKS}}},
    {"I3b", "from five voters to three", i3_settled_between, {{HF_MUT_CONFIG_TWO_AT_ONCE, STANDS}}},
    {"I3c", "one joins, one leaves, nobody keeps up", i3_rule_not_proved, {{HF_MUT_RULE_NOT_PROVED, BREAKS}}},
    {"I3d", "two voters, one leaves, a slow rule", i3_two_to_one, {{HF_MUT_NONE, 0}}},
    {"I3e", "four voters, one down, one leaves, a slow rule", i3_four_to_three, {{HF_MUT_NONE, 0}}},
    {"I3f", "a former voter is asked", i3_former_voter_is_asked, {{HF_MUT_NONE, 0}}},
    {"I3g", "who leaves holds most", i3_who_leaves_holds_most, {{HF_MUT_ODD_COUNTS, STANDS}}},
    {"I3h", "who joins holds most", i3_who_joins_holds_most, {{HF_MUT_ODD_COUNTS, STANDS}}},
    {"I4", "a crash between report and fence", i4_fence_forgotten, {{HF_MUT_FENCE_NOT_DURABLE, BREAKS}}},
    {"R1", "an answer that tells of another's entry", raft_anothers_entry, {{HF_MUT_NONE, 0}}},
    {"R2", "an election that comes to nothing", raft_hinted_in_vain, {{HF_MUT_NONE, 0}}},
    {"R3", "who holds more is two terms behind", raft_terms_behind, {{HF_MUT_NONE, 0}}},
    {"R4", "an entry of an older term on a majority", raft_an_older_entry, {{HF_MUT_NONE, 0}}},
    {"I6", "a data directory is deleted", i6_directory_deleted, {{HF_MUT_ANY_LINEAGE, BREAKS}}},
};
const unsigned directed_n = sizeof directed_all / sizeof directed_all[0];

const struct directed *directed_named(const char *name)
{
    for (unsigned i = 0; i < directed_n; i++)
        if (strcasecmp(directed_all[i].name, name) == 0)
            return &directed_all[i];
    return NULL;
}

/* -- questions ---------------------------------------------------------------------------------------- */

bool opened(const struct node *n)
{
    return n->up && n->decide != NULL && n->gate_epoch != 0 && host_passes(n, n->gate_epoch);
}

struct node *anybody_open(void)
{
    for (unsigned i = 0; i < SIM_NODES; i++)
        if (opened(&W->nodes[i]))
            return &W->nodes[i];
    return NULL;
}

bool another_open(const struct node *but)
{
    for (unsigned i = 0; i < SIM_NODES; i++)
        if (&W->nodes[i] != but && opened(&W->nodes[i]))
            return true;
    return false;
}

const char *state(const struct node *n)
{
    return n->up && n->decide != NULL ? hf_decide_view(n->decide).lead_state : "down";
}

unsigned voters_of(const struct node *n)
{
    hf_node_id voters[HF_MEMBERS_MAX];

    return n->up && n->decide != NULL ? hf_cluster_voters(hf_decide_view(n->decide).cluster, voters) : 0;
}

bool streams_from(const struct node *f, const struct node *l)
{
    for (unsigned i = 0; i < SIM_STREAMS; i++)
        if (W->streams[i].used && W->streams[i].to == f->index && W->streams[i].from == l->index)
            return true;
    return false;
}

static bool all_stream(void)
{
    for (unsigned i = 1; i < W->n_nodes; i++)
        if (!streams_from(&W->nodes[i], A))
            return false;
    return opened(A);
}

/* -- faults ------------------------------------------------------------------------------------------- */

void isolate(const struct node *n, bool cut)
{
    for (int i = 0; i < SIM_NODES; i++)
        W->cut[i][n->index] = W->cut[n->index][i] = cut && i != n->index;
}

void isolate_lane(enum lane lane, const struct node *n, bool cut)
{
    for (int i = 0; i < SIM_NODES; i++)
        W->lane_cut[lane][i][n->index] = W->lane_cut[lane][n->index][i] = cut && i != n->index;
}

void cut(enum lane lane, const struct node *a, const struct node *b, bool on)
{
    W->lane_cut[lane][a->index][b->index] = W->lane_cut[lane][b->index][a->index] = on;
}

void elect(struct node *n)
{
    /* Again, if a heartbeat of the old leader came between, or somebody else stood as well. */
    for (unsigned tries = 0; tries < 6 && n->role != HF_RAFT_LEADER; tries++) {
        uint64_t until = W->now + 8 * MS;
        for (unsigned i = 0; i < SIM_NODES; i++)
            if (W->nodes[i].up && &W->nodes[i] != n)
                sim_raft_hint(&W->nodes[i], false);
        sim_raft_hint(n, false);
        sim_raft_hint(n, true);
        while (n->role != HF_RAFT_LEADER && sim_next(until))
            continue;
    }
    HAPPENED(n->role == HF_RAFT_LEADER);
}

void switchover(struct node *from, const struct node *to)
{
    host_step(from, &(struct hf_event){.type = HF_EV_SWITCHOVER, .id = to->disk.durable.self, .request = 1});
    MUST(6000, opened(to));
}

void leave(struct node *leader, const struct node *who)
{
    host_step(leader, &(struct hf_event){.type = HF_EV_LEAVE, .id = who->disk.durable.self, .request = 2});
}

void disk_hangs(struct node *n)
{
    (void)trap_set(n->index, HF_ACT_PERSIST, -1, TRAP_HOLD);
}

void vanish(struct node *n)
{
    bool was[SIM_NODES][SIM_NODES];

    memcpy(was, W->cut, sizeof was);
    isolate(n, true);
    host_crash(n);
    memcpy(W->cut, was, sizeof was);
}

void resets(const struct node *n)
{
    for (unsigned i = 0; i < SIM_NODES; i++)
        if (W->nodes[i].up && W->nodes[i].decide != NULL && (int)i != n->index)
            host_later(&W->nodes[i], 100 * US,
                       &(struct hf_event){.type = HF_EV_PEER_DOWN, .id = n->disk.durable.self});
}

/* -- clients ------------------------------------------------------------------------------------------ */

static bool busy;

static void traffic(void *arg)
{
    if (busy)
        for (unsigned i = 0; i < SIM_NODES; i++) {
            if (!W->nodes[i].exists)
                continue;
            if (sim_chance(0.3))
                pg_client_write(&W->nodes[i]);
            pg_client_read(&W->nodes[i]);
        }
    sim_after(5 * MS, traffic, arg);
}

void clients(bool at_work)
{
    busy = at_work;
}

void writes(struct node *n, unsigned count)
{
    for (unsigned i = 0; i < count; i++)
        pg_client_write(n);
    run_for(8); /* on its disk */
}

void write_acked(struct node *n)
{
    unsigned before = W->n_acks;

    pg_client_write(n);
    UNTIL(200, W->n_acks > before);
}

/* -- the world ---------------------------------------------------------------------------------------- */

void run_for(uint64_t ms)
{
    (void)sim_run_until(W->now + ms * MS);
}

void begin_empty(unsigned n, unsigned lease_ms)
{
    busy = false;
    W->n_nodes = n;
    W->calm = W->quiet = true;
    W->delay_max = 1 * MS;
    for (unsigned i = 0; i < n; i++)
        scenario_node(i, lease_ms);
    sim_after(1 * MS, traffic, NULL);
}

/* A rule is taken out when the world is up: what a schedule starts from does not need to work without it. */
void mutate(void)
{
    hf_mutation = W->mutation;
}

void rise(void)
{
    for (unsigned i = 0; i < W->n_nodes; i++)
        host_start(&W->nodes[i]);
    UNTIL(8000, all_stream());
    write_acked(A);
    run_for(200);
}

void begin_with(unsigned n, unsigned lease_ms)
{
    begin_empty(n, lease_ms);
    rise();
    mutate();
}

void begin(unsigned n)
{
    begin_with(n, 500);
}

void lift_all(void)
{
    for (unsigned i = 0; i < SIM_TRAPS; i++)
        if (W->traps[i].used)
            trap_lift(&W->traps[i]);
}

void settle(void)
{
    memset(W->cut, 0, sizeof W->cut);
    memset(W->lane_cut, 0, sizeof W->lane_cut);
    memset(W->msg_lag_ns, 0, sizeof W->msg_lag_ns);
    W->look_late_ns = W->rule_late_ns = 0;
    lift_all();
    for (unsigned i = 0; i < SIM_NODES; i++) {
        W->nodes[i].slow_disk_until = 0;
        if (W->nodes[i].exists)
            host_start(&W->nodes[i]);
    }
    clients(true);
    run_for(9000);
    check_end();
}
