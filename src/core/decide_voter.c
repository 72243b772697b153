/* A voter's side: promises to the leader, fences for a new one, reports (DESIGN sections 5 to 7). */
#include "decide_private.h"

#include <string.h>

bool hf_voter_is_unfit(const struct hf_decide *d)
{
    if (HF_MUTATED(HF_MUT_NEVER_UNFIT))
        return d->shutdown;
    return d->shutdown || d->now_ns < d->unfit_until_ns;
}

/* Late or doubled: the promise runs from receipt, so it only gets longer than needed; an ack of an old
 * ping extends the leader's lease from when that ping was sent, which is long ago. */
void hf_voter_ping(struct hf_decide *d, const struct hf_msg *m)
{
    const struct hf_branch *newest = hf_cluster_newest(&d->cluster);
    struct hf_msg ack = {.type = HF_MSG_ACK,
                         .to = m->from,
                         .epoch = m->epoch,
                         .seq = m->seq,
                         .sent_ns = m->sent_ns};

    if (newest == NULL || m->epoch != newest->epoch || m->from != newest->leader)
        return;
    /* S7: from the moment a fence is being handled, no ping of an epoch before it is acked. Fences
     * and pings meet here and nowhere else. */
    if (m->epoch < d->fencing && !HF_MUTATED(HF_MUT_ACK_WHILE_FENCING))
        return;
    d->leader_heard_ns = d->now_ns;
    d->leader_heard_epoch = m->epoch;
    if (m->flags & HF_FLAG_REWIND)
        d->rewind_allowed = m->epoch;
    d->leader_barrier = m->barrier_lsn;
    d->leader_copies = m->flags & HF_FLAG_COPY;
    d->leader_open = m->flags & HF_FLAG_OPEN;
    /* Of a copy made in this epoch that is said by a leader who has not heard of it yet. */
    if ((m->flags & HF_FLAG_REFUSED) && d->stream_open && d->stream_epoch == m->epoch && !d->reclone &&
        !hf_stream_is_copy(newest, d->followed_from)) {
        hf_emit_phase(d, "its last WAL is part of another history", m->epoch);
        d->reclone = true;
    }
    if (d->stream_open && d->stream_epoch == m->epoch && m->position.lsn > d->flushed)
        d->flushed = m->position.lsn; /* our own word, come back through the leader */
    d->n_order = m->n_order <= HF_MEMBERS_MAX ? m->n_order : HF_MEMBERS_MAX;
    memcpy(d->order, m->order, d->n_order * sizeof d->order[0]);

    /* S12: the largest lease ever promised is on disk before it is promised. */
    if (m->lease_ns > d->disk.promise_ns)
        d->disk.promise_ns = m->lease_ns;
    if (m->lease_ns > d->saved.promise_ns)
        return;
    hf_promise_make(&d->promise, m->epoch, m->from, d->now_ns, m->lease_ns);
    ack.position = (struct hf_position){d->saved.lineage, d->flushed};
    ack.flags = (uint8_t)((d->disk.hold_lsn != 0 || d->pg == HF_PG_EMPTY ? HF_FLAG_NOTHING : 0) |
                          (hf_voter_is_unfit(d) ? HF_FLAG_UNFIT : 0));
    hf_emit_send(d, &ack);
}

/* Late: smaller than a fence already taken, ignored. Doubled: the report is sent again. */
void hf_voter_fence(struct hf_decide *d, hf_epoch term, hf_node_id from)
{
    if (term < d->fencing || term <= hf_newest_epoch(d))
        return;
    if (term > d->fencing) {
        d->fencing = term;
        d->fencing_from = from;
        d->disk.fence = term; /* persist_run writes it; the report waits for it (I4) */
        if (d->lead != HF_LEAD_NONE && d->lead_term < term)
            hf_lead_end(d);
        hf_gate_shut(d);
        hf_stream_cut(d);
        if (!HF_MUTATED(HF_MUT_SKIP_FENCE))
            hf_follow_close(d);
        if (d->pg == HF_PG_PRIMARY)
            d->end_known = false;
    }
    d->fencing_from = from;
    d->report_due = true;
}

/* The leader shut its gate for good; nothing binds us to it any more. Late or doubled: names an epoch,
 * lets off only promises for that epoch. */
void hf_voter_release(struct hf_decide *d, const struct hf_msg *m)
{
    hf_promise_let_off(&d->promise, m->epoch);
    if (m->epoch == hf_newest_epoch(d))
        d->released_epoch = m->epoch;
}

/* An election takes 10 to 30 ms; on a machine that has other things to do it must not be disturbed either. */
enum { HINTS = 3, HINT_AGAIN_MS = 120 };

/* May an election start? Any hint will do: Raft is safe whatever the clock says. May a promise be let
 * off? Only on proof (S6). */
void hf_voter_peer_down(struct hf_decide *d, hf_node_id id, bool proof)
{
    unsigned rank = 0;

    if ((proof || HF_MUTATED(HF_MUT_REFUSED_IS_PROOF)) && id == d->promise.leader)
        hf_promise_let_off(&d->promise, d->promise.epoch);
    if (id != d->raft_leader || d->role != HF_RAFT_FOLLOWER ||
        !hf_cluster_is_voter(&d->cluster, hf_self(d)) || hf_voter_is_unfit(d))
        return;
    hf_emit_phase(d, "detected", hf_newest_epoch(d));
    hf_emit(d, HF_ACT_HINT)->ok = false;
    d->raft_leader = 0;
    /* In turn, most advanced first, in an order all can compute: two that stand at the same instant
     * split the vote. */
    for (unsigned i = 0; i < d->n_order && d->order[i] != hf_self(d); i++)
        rank += d->order[i] != id;
    if (d->n_order == 0)
        rank = (unsigned)(hf_self(d) % HF_MEMBERS_MAX);
    d->hint_rank = rank;
    d->hints_left = HINTS;
    d->hint_ns = d->now_ns + rank * 15 * HF_MS;
}

static void hint_run(struct hf_decide *d)
{
    if (d->hint_ns == 0 || d->now_ns < d->hint_ns)
        return;
    d->hint_ns = 0;
    /* Somebody else may have won meanwhile. */
    if (d->role == HF_RAFT_LEADER || d->raft_leader != 0 || hf_voter_is_unfit(d))
        return;
    hf_emit(d, HF_ACT_HINT)->ok = true;
    /* It may come to nothing: the others had not noticed yet, or two stood at once. Raft's own timeout is long. */
    if (d->hints_left > 0) {
        d->hints_left--;
        d->hint_ns = d->now_ns + HINT_AGAIN_MS * HF_MS + d->hint_rank * 40 * HF_MS;
    }
}

/* Promises made before this process started are waited out from its start (S12). */
static bool promised_before_start(const struct hf_decide *d)
{
    uint64_t length = d->saved.promise_ns;

    if (HF_MUTATED(HF_MUT_FORGET_PROMISE) || length == 0)
        return false;
    if (HF_MUTATED(HF_MUT_SHORTER_PROMISE))
        length = d->cfg.lease_ns;
    return d->now_ns < d->started_ns + length;
}

/* A promise binds against every *other* node: its own maker may be told at once. */
static bool promised(const struct hf_decide *d)
{
    if (HF_MUTATED(HF_MUT_NO_PROMISE_WAIT))
        return false;
    if (hf_promise_binds(&d->promise, d->now_ns) && d->promise.leader != d->fencing_from)
        return true;
    return promised_before_start(d);
}

/* Re-elected leader whose PostgreSQL ran on as primary: no need to stop it (S7). */
bool hf_voter_may_continue(const struct hf_decide *d)
{
    return d->pg == HF_PG_PRIMARY && d->fencing_from == hf_self(d) &&
           d->primary_epoch == d->saved.lineage && d->primary_epoch == hf_newest_epoch(d) &&
           hf_newest_leader(d) == hf_self(d);
}

/* Our position for a report. False: not known yet, wait. Who tells none tells its lineage all the same: of the
 * epochs after that it has never taken a byte (S4), so it has acknowledged nothing in them. */
static bool position_for_report(struct hf_decide *d, struct hf_report *r)
{
    r->position = (struct hf_position){d->saved.lineage, 0};
    if (d->disk.hold_lsn != 0 && !HF_MUTATED(HF_MUT_REPORT_WHILE_REWINDING)) {
        r->flags |= HF_FLAG_NOTHING; /* S8 */
        return true;
    }
    if (d->pg == HF_PG_EMPTY) {
        /* Never had data: holds nothing, and says so. An empty directory where there was data once
         * is a different matter: we do not know what we held. */
        if (d->disk.had_data)
            r->flags |= HF_FLAG_NOTHING;
        return true;
    }
    if (d->saved.lineage != d->disk.lineage)
        return false;
    if (d->pg == HF_PG_DOWN && hf_follow_is_futile(d)) {
        /* Its data do not start, and are to be replaced by a leader's. That it says so may be all that the newest leader, who
         * holds everything, waits for. */
        r->flags |= HF_FLAG_NOTHING;
        return true;
    }
    if (!d->end_known) {
        if (d->pg == HF_PG_STANDBY || hf_voter_may_continue(d)) {
            if (d->work == HF_WORK_NONE && d->now_ns >= d->work_retry_ns)
                hf_emit_work(d, HF_WORK_POSITION, 0);
        }
        return false;
    }
    if (d->pg == HF_PG_PRIMARY && !hf_voter_may_continue(d))
        return false; /* follow_run stops it first */
    r->position = (struct hf_position){d->saved.lineage, d->end_lsn};
    return true;
}

/* Step 2 of a change of leader. Order matters: what is not true yet, the report waits for. */
static void report_run(struct hf_decide *d)
{
    struct hf_report r = {.from = hf_self(d)};
    bool open;

    if (!d->report_due || d->fencing == 0 || d->fencing <= hf_newest_epoch(d))
        return;
    open = d->stream_open || d->stream_closing;
    if (open && !HF_MUTATED(HF_MUT_SKIP_FENCE))
        return;
    if (d->gate != HF_GATE_SHUT)
        return;
    if (!position_for_report(d, &r))
        return;
    if (promised(d))
        return;
    if (d->saved.fence < d->fencing && !HF_MUTATED(HF_MUT_FENCE_NOT_DURABLE))
        return;
    if (hf_voter_is_unfit(d))
        r.flags |= HF_FLAG_UNFIT;
    d->report_due = false;
    if (d->fencing_from == hf_self(d)) {
        hf_fence_report(d, &r);
    } else {
        struct hf_msg m = {.type = HF_MSG_REPORT,
                           .to = d->fencing_from,
                           .epoch = d->fencing,
                           .flags = r.flags,
                           .position = r.position};
        hf_emit_send(d, &m);
        hf_emit_phase(d, "reported", d->fencing);
    }
}

void hf_voter_run(struct hf_decide *d)
{
    hint_run(d);
    report_run(d);
}
