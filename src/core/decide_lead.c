/* From the appointment to an open gate, and what keeps it open (DESIGN section 5). */
#include "decide_private.h"

#include <string.h>

/* Clients have waited: their first commits need not wait for a checkpoint's writes too. */
#define CHECKPOINT_LATER_NS (300 * HF_MS)

void hf_lead_set(struct hf_decide *d, enum hf_lead_state state)
{
    d->lead = state;
    d->lead_state_ns = d->now_ns;
}

bool hf_lead_owns_pg(const struct hf_decide *d)
{
    return d->lead >= HF_LEAD_INIT && d->lead <= HF_LEAD_STOPPING;
}

struct hf_other *hf_lead_other(struct hf_decide *d, hf_node_id id)
{
    struct hf_other *o;

    for (unsigned i = 0; i < d->n_others; i++)
        if (d->others[i].id == id)
            return &d->others[i];
    if (d->n_others == HF_MEMBERS_MAX) { /* forget who is no member any more */
        unsigned n = 0;
        for (unsigned i = 0; i < d->n_others; i++)
            if (hf_cluster_member(&d->cluster, d->others[i].id) != NULL)
                d->others[n++] = d->others[i];
        d->n_others = n;
        if (n == HF_MEMBERS_MAX)
            return NULL;
    }
    o = &d->others[d->n_others++];
    *o = (struct hf_other){.id = id};
    return o;
}

/* -- gate --------------------------------------------------------------------------------------- */

static void deadline_set(struct hf_decide *d, uint64_t deadline_ns)
{
    if (deadline_ns == d->deadline_ns)
        return;
    d->deadline_ns = deadline_ns;
    hf_emit(d, HF_ACT_LEASE)->deadline_ns = deadline_ns;
}

void hf_gate_shut(struct hf_decide *d)
{
    deadline_set(d, 0);
    if (d->gate == HF_GATE_SHUT || d->gate == HF_GATE_SHUTTING)
        return;
    d->gate = HF_GATE_SHUTTING;
    hf_emit(d, HF_ACT_GATE_SHUT);
}

void hf_lead_end(struct hf_decide *d)
{
    if (d->lead == HF_LEAD_NONE)
        return;
    hf_gate_shut(d);
    hf_stream_cut(d);
    d->pinging = false;
    d->n_asks = 0;
    d->transfer_busy = false;
    d->propose_busy = false;
    d->config_busy = false;
    d->handover = false;
    hf_emit_answer(d, d->handover_request, true, "handed over");
    d->handover_request = 0;
    if (d->join.used)
        hf_emit_answer(d, d->join.request, false, "the leader has changed; try again");
    if (d->leave.used)
        hf_emit_answer(d, d->leave.request, false, "the leader has changed; try again");
    d->join.used = d->leave.used = false;
    hf_lead_set(d, HF_LEAD_NONE);
}

/* -- becoming ----------------------------------------------------------------------------------- */

static void lead_begin(struct hf_decide *d)
{
    hf_lead_end(d);
    d->lead_term = d->term;
    d->lead_since_ns = d->now_ns;
    d->settled = false;
    d->n_reports = 0;
    d->grace_until_ns = 0;
    d->resend_ns = 0;
    d->appoint_sent = false;
    d->continued = false;
    d->barrier_sent = d->barrier_waiting = d->barrier_inserted = d->barrier_done = false;
    d->barrier_lsn = 0;
    d->opened_sent = d->checkpoint_done = false;
    d->n_others = 0;
    d->timeline = 0;
    d->proved_config_seq = 0;
    d->heartbeat_failed = false;
    d->transfer_tried = 0;
    d->hint_ns = 0;
    hf_emit(d, HF_ACT_RAFT_BARRIER);
    hf_emit_phase(d, "elected", d->term);
    hf_lead_set(d, HF_LEAD_FENCING);
}

void hf_lead_raft(struct hf_decide *d)
{
    if (d->role == HF_RAFT_LEADER && d->term != d->lead_term) {
        if (HF_MUTATED(HF_MUT_RESUME_EPOCH) && d->lead == HF_LEAD_OPEN) {
            d->lead_term = d->term;
            return;
        }
        lead_begin(d);
    } else if (d->role != HF_RAFT_LEADER && d->lead != HF_LEAD_NONE) {
        if (HF_MUTATED(HF_MUT_RESUME_EPOCH) && d->lead == HF_LEAD_OPEN)
            return;
        /* There is no resume (S7): if Raft elects us again, it is in a new term and with new fences.
         * PostgreSQL may run on behind a shut gate until we know who leads. */
        hf_lead_end(d);
    }
}

/* -- appointed ---------------------------------------------------------------------------------- */

static void appointing_run(struct hf_decide *d)
{
    const struct hf_branch *newest = hf_cluster_newest(&d->cluster);

    /* S18: only our own APPOINT, committed while we are Raft leader in that very term. */
    if (newest != NULL && newest->epoch == d->lead_term && newest->leader == hf_self(d)) {
        hf_lease_begin(&d->lease, d->lead_term, d->cfg.lease_ns);
        d->pinging = true;
        d->ping_ns = 0;
        d->disk.lineage = d->lead_term; /* S4: before the promotion */
        /* That the appointment is committed followers learn with the next entry, or from a heartbeat a while later;
         * this one brings them to our door while we are being promoted. */
        hf_emit(d, HF_ACT_RAFT_BARRIER);
        hf_emit_phase(d, "appointed", d->lead_term);
        hf_lead_set(d, HF_LEAD_RECORDING);
        return;
    }
    if (!d->appoint_sent && d->now_ns - d->lead_state_ns > 50 * HF_MS) {
        d->n_reports = 0; /* the proposal was refused: ask everybody again */
        hf_lead_set(d, HF_LEAD_FENCING);
    }
}

static void recording_run(struct hf_decide *d)
{
    if (d->saved.lineage != d->lead_term || d->work != HF_WORK_NONE)
        return;
    hf_lead_set(d, HF_LEAD_PROMOTING);
    if (d->continued) {
        d->primary_epoch = d->lead_term;
        d->timeline = d->promoted_timeline;
        return;
    }
    hf_emit_work(d, HF_WORK_PROMOTE, d->lead_term);
}

static void promoting_run(struct hf_decide *d)
{
    if (d->work != HF_WORK_NONE)
        return;
    if (d->pg != HF_PG_PRIMARY || d->primary_epoch != d->lead_term) {
        hf_yield_unfit(d, "PostgreSQL is not the primary it should be");
        return;
    }
    if (d->rule_config_seq != d->cluster.config_seq) { /* a continued leader, or a late change */
        hf_emit_work(d, HF_WORK_RULE, d->lead_term);
        return;
    }
    hf_emit_phase(d, "promoted", d->lead_term);
    d->ping_ns = 0; /* followers that must copy are waiting for the word */
    hf_lead_set(d, HF_LEAD_BARRIER);
}

static void write_send(struct hf_decide *d, enum hf_write write)
{
    struct hf_action *a = hf_emit(d, HF_ACT_WRITE);

    a->write = write;
    a->epoch = d->lead_term;
    d->write_busy = true;
    d->heartbeat_ns = d->now_ns;
    d->write_config_seq = d->rule_config_seq;
}

static void write_done(struct hf_decide *d, hf_lsn lsn)
{
    d->heartbeat_lsn = lsn;
    d->heartbeat_ok_ns = d->now_ns;
    d->proved_config_seq = d->write_config_seq;
}

void hf_lead_write(struct hf_decide *d, const struct hf_event *e)
{
    if (e->write_state != HF_WRITE_WAITING)
        d->write_busy = false;
    if (e->epoch != d->lead_term)
        return; /* of a leadership that is over */
    if (e->write == HF_WRITE_HEARTBEAT) {
        d->heartbeat_failed = e->write_state == HF_WRITE_FAILED;
        if (e->write_state == HF_WRITE_REFUSED) /* nobody could do better, and here people can still VACUUM: it proves nothing, but stays */
            d->heartbeat_ok_ns = d->now_ns;
        if (e->write_state == HF_WRITE_DONE)
            write_done(d, e->lsn);
        return;
    }
    if (d->lead != HF_LEAD_BARRIER)
        return;
    if (e->write_state == HF_WRITE_WAITING) {
        d->barrier_waiting = true; /* S2: the rule is in force */
    } else if (e->write_state == HF_WRITE_DONE) {
        if (!d->barrier_waiting) { /* it did not wait: then for nobody (a rule for one node only) */
            hf_node_id v[HF_MEMBERS_MAX];
            if (hf_cluster_voters(&d->cluster, v) > 1) {
                hf_yield_unfit(d, "the barrier did not wait for the followers");
                return;
            }
        }
        d->barrier_waiting = true;
        d->barrier_inserted = true;
        d->barrier_lsn = e->lsn;
        write_done(d, e->lsn);
    } else {
        hf_yield_unfit(d, "the barrier could not be written");
    }
}

/* S1: not the INSERT's return alone, but the voters' own word that they hold it, in this epoch. */
bool hf_lead_held(const struct hf_decide *d, hf_lsn lsn)
{
    hf_node_id ids[HF_MEMBERS_MAX + 1];
    unsigned n = 0;

    if (HF_MUTATED(HF_MUT_BARRIER_BY_INSERT))
        return true;
    ids[n++] = hf_self(d);
    for (unsigned i = 0; i < d->n_others; i++)
        if (d->others[i].flushed >= lsn)
            ids[n++] = d->others[i].id;
    return hf_quorum_has(&d->cluster, ids, n);
}

/* -- too late? (S13) ---------------------------------------------------------------------------- */

static bool heard_lately(const struct hf_decide *d, const struct hf_other *o)
{
    return o->heard_ns != 0 && d->now_ns - o->heard_ns < 2 * d->cfg.lease_ns;
}

/* Writes are late although a majority answers. Is there a reason to wait? Somebody takes WAL from us and gets on;
 * or the others are no majority without one who is copying from us, which to step down would end. Else they, who
 * hold all that was acknowledged, do better without us, or can do no worse. */
static bool worth_waiting(const struct hf_decide *d)
{
    hf_node_id fit[HF_MEMBERS_MAX];
    unsigned n = 0;
    bool copying = false;

    for (unsigned i = 0; i < d->n_others; i++) {
        const struct hf_other *o = &d->others[i];
        if (!hf_cluster_is_voter(&d->cluster, o->id) || !heard_lately(d, o))
            continue;
        if (o->grew_ns != 0 && d->now_ns - o->grew_ns < d->cfg.lead_limit_ns)
            return true;
        copying = copying || (o->flags & HF_FLAG_NOTHING);
        if (!(o->flags & (HF_FLAG_NOTHING | HF_FLAG_UNFIT)))
            fit[n++] = o->id;
    }
    return copying && !hf_quorum_has(&d->cluster, fit, n);
}

/* A step that is done at once when all is well, and does not come to an end: a disk, Raft's or our own, may hang. */
static bool stuck(const struct hf_decide *d)
{
    uint64_t limit_ns = d->cfg.lead_limit_ns;

    switch (d->lead) {
    case HF_LEAD_FENCING:
        if (d->settled)
            return false; /* waiting for reports is another matter */
        break;
    case HF_LEAD_INIT:
    case HF_LEAD_PROMOTING:
        limit_ns *= 4; /* real work */
        break;
    case HF_LEAD_APPOINTING:
    case HF_LEAD_RECORDING:
        break;
    default:
        return false;
    }
    return d->now_ns - d->lead_state_ns > limit_ns && !HF_MUTATED(HF_MUT_NEVER_UNFIT);
}

static void barrier_run(struct hf_decide *d)
{
    if (!d->barrier_sent) {
        /* A write of a former leadership that still waits is given up by the host. */
        write_send(d, HF_WRITE_BARRIER);
        d->barrier_sent = true;
    }
    if ((d->barrier_inserted && hf_lead_held(d, d->barrier_lsn)) ||
        (HF_MUTATED(HF_MUT_OPEN_BEFORE_BARRIER) && d->barrier_sent)) {
        d->barrier_done = true;
        hf_emit_phase(d, "barrier", d->lead_term);
        hf_lead_set(d, HF_LEAD_OPEN);
        d->heartbeat_ns = d->heartbeat_ok_ns = d->now_ns;
        d->ping_ns = 0;
    } else if (d->now_ns - d->lead_state_ns > d->cfg.lead_limit_ns && d->now_ns < d->deadline_ns &&
               !worth_waiting(d)) {
        hf_yield_unfit(d, "the barrier is not held by a majority in time");
    }
}

/* -- open --------------------------------------------------------------------------------------- */

static void opened_run(struct hf_decide *d)
{
    const struct hf_branch *b = hf_cluster_newest(&d->cluster);
    struct hf_entry e = {.type = HF_ENTRY_OPENED, .system_id = d->disk.system_id};

    if (d->opened_sent || d->propose_busy || b == NULL || b->epoch != d->lead_term)
        return;
    e.branch = *b;
    e.branch.timeline = d->timeline;
    e.branch.opened_lsn = d->barrier_lsn;
    d->opened_sent = true;
    hf_propose(d, &e);
}

/* S13: voters answer, but writes do not get through, or fail: somebody else may do better. */
static bool writes_are_late(const struct hf_decide *d)
{
    uint64_t limit_ns = d->cfg.lead_limit_ns;

    if (d->write_busy && d->now_ns - d->heartbeat_ns > limit_ns)
        return true;
    return d->heartbeat_failed && d->now_ns - d->heartbeat_ok_ns > limit_ns + d->cfg.heartbeat_ns;
}

static void heartbeat_run(struct hf_decide *d)
{
    bool proves = d->proved_config_seq != d->rule_config_seq && !d->heartbeat_failed;

    if (writes_are_late(d) && d->now_ns < d->deadline_ns && !worth_waiting(d)) {
        hf_yield_unfit(d, "a heartbeat write is not done in time");
        return;
    }
    /* A change of the voters waits for a write under its rule (decide_member.c). */
    if (!d->write_busy && (proves || d->now_ns - d->heartbeat_ns >= d->cfg.heartbeat_ns))
        write_send(d, HF_WRITE_HEARTBEAT);
}

static void open_run(struct hf_decide *d)
{
    bool leased = d->now_ns < d->deadline_ns || HF_MUTATED(HF_MUT_IGNORE_LEASE);

    if (d->gate == HF_GATE_SHUT && leased && d->pinging) {
        d->gate = HF_GATE_OPEN;
        d->gate_epoch = d->lead_term;
        hf_emit(d, HF_ACT_GATE_OPEN)->epoch = d->lead_term;
        hf_emit_phase(d, "open", d->lead_term);
        if (HF_MUTATED(HF_MUT_IGNORE_LEASE))
            deadline_set(d, UINT64_MAX / 2); /* far, and safe to add to */
    }
    opened_run(d);
    if (!d->checkpoint_done && d->gate == HF_GATE_OPEN && d->work == HF_WORK_NONE &&
        d->now_ns >= d->work_retry_ns && d->now_ns - d->lead_state_ns >= CHECKPOINT_LATER_NS)
        hf_emit_work(d, HF_WORK_CHECKPOINT, d->lead_term); /* S9: before any rewind */
    heartbeat_run(d);
}

/* -- pings -------------------------------------------------------------------------------------- */

void hf_lead_ack(struct hf_decide *d, const struct hf_msg *m)
{
    struct hf_other *o;

    if (!d->pinging || (m->epoch != d->lease.epoch && !HF_MUTATED(HF_MUT_OLD_ACKS_COUNT)))
        return; /* S17 */
    o = hf_lead_other(d, m->from);
    if (o == NULL)
        return;
    o->heard_ns = d->now_ns;
    if ((o->flags & HF_FLAG_NOTHING) && !(m->flags & HF_FLAG_NOTHING))
        o->grew_ns = d->now_ns; /* its copy is done; that it takes WAL comes in a moment */
    o->flags = m->flags;
    hf_lease_ack(&d->lease, m->from, m->seq, m->sent_ns);
}

/* Voters, most advanced first; then by id. */
static unsigned order_of(struct hf_decide *d, hf_node_id out[HF_MEMBERS_MAX])
{
    hf_node_id voters[HF_MEMBERS_MAX];
    unsigned n = hf_cluster_voters(&d->cluster, voters), m = 0;

    for (unsigned i = 0; i < n; i++) {
        unsigned at = m;
        hf_lsn lsn;
        if (voters[i] == hf_self(d) || hf_lead_other(d, voters[i]) == NULL)
            continue;
        lsn = hf_lead_other(d, voters[i])->flushed;
        while (at > 0 && hf_lead_other(d, out[at - 1])->flushed < lsn) {
            out[at] = out[at - 1];
            at--;
        }
        out[at] = voters[i];
        m++;
    }
    return m;
}

static void ping_run(struct hf_decide *d)
{
    struct hf_msg m = {.type = HF_MSG_PING,
                       .epoch = d->lease.epoch,
                       .lease_ns = d->cfg.lease_ns,
                       .sent_ns = d->now_ns,
                       .timeline = d->timeline};
    uint8_t flags = 0;

    if (!d->pinging || d->now_ns < d->ping_ns)
        return;
    d->ping_ns = d->now_ns + d->cfg.ping_ns;
    m.seq = hf_lease_ping(&d->lease);
    m.barrier_lsn = d->barrier_done ? d->barrier_lsn : 0;
    if (d->checkpoint_done || (HF_MUTATED(HF_MUT_REWIND_EARLY) && d->pg == HF_PG_PRIMARY))
        flags |= HF_FLAG_REWIND;
    if (d->gate == HF_GATE_OPEN)
        flags |= HF_FLAG_OPEN;
    if (d->lead >= HF_LEAD_BARRIER && d->pg == HF_PG_PRIMARY)
        flags |= HF_FLAG_COPY;
    m.n_order = (uint8_t)order_of(d, m.order);
    for (unsigned i = 0; i < d->cluster.n_members; i++) {
        struct hf_other *o = hf_lead_other(d, d->cluster.members[i].id);
        m.to = d->cluster.members[i].id;
        m.position = (struct hf_position){m.epoch, o != NULL ? o->flushed : 0};
        m.flags = (uint8_t)(flags | (o != NULL && o->torn ? HF_FLAG_REFUSED : 0));
        if (m.to != hf_self(d))
            hf_emit_send(d, &m);
    }
}

static void lease_run(struct hf_decide *d)
{
    uint64_t deadline_ns;

    if (!d->pinging || d->gate == HF_GATE_SHUTTING || HF_MUTATED(HF_MUT_IGNORE_LEASE))
        return;
    /* It may also become earlier: with other voters, other acks count. */
    deadline_ns = hf_lease_deadline(&d->lease, &d->cluster, hf_self(d), d->now_ns);
    deadline_set(d, deadline_ns);
}

void hf_lead_run(struct hf_decide *d)
{
    enum hf_lead_state before;

    if (d->lead == HF_LEAD_NONE)
        return;
    if (d->role != HF_RAFT_LEADER && !HF_MUTATED(HF_MUT_RESUME_EPOCH))
        return;
    if (stuck(d)) {
        hf_yield_unfit(d, "a step of becoming leader is not done in time");
        return;
    }
    do {
        before = d->lead;
        switch (d->lead) {
        case HF_LEAD_FENCING:
            if (hf_member_found(d))
                hf_fence_run(d);
            break;
        case HF_LEAD_INIT:
            hf_fence_init_run(d);
            break;
        case HF_LEAD_APPOINTING:
            appointing_run(d);
            break;
        case HF_LEAD_RECORDING:
            recording_run(d);
            break;
        case HF_LEAD_PROMOTING:
            promoting_run(d);
            break;
        case HF_LEAD_BARRIER:
            barrier_run(d);
            break;
        case HF_LEAD_OPEN:
            open_run(d);
            break;
        case HF_LEAD_SETTLING: /* the gate is open, and the checkpoint may hang with the disk (S13) */
            heartbeat_run(d);
            break;
        default:
            break;
        }
    } while (d->lead > before && d->lead <= HF_LEAD_OPEN);
    ping_run(d);
    lease_run(d);
}
