/* Giving leadership away: hand-over, SIGTERM, PostgreSQL lost, unfit (DESIGN section 8, SAFETY S13, S17).
 *
 * The order is the safety: gate shut -> every thread confirmed -> RELEASE -> PostgreSQL being stopped, its
 * last WAL sent -> Raft leadership passed on. A crash between any two steps leaves an ordinary
 * crashed leader, whose voters wait out what they promised. The epoch is over with the first step:
 * nothing reopens it. */
#include "decide_private.h"

static void release(struct hf_decide *d)
{
    struct hf_msg m = {.type = HF_MSG_RELEASE, .epoch = d->lead_term, .target = d->handover_to};

    if (!d->pinging)
        return;
    d->pinging = false;
    hf_lease_void(&d->lease);
    for (unsigned i = 0; i < d->cluster.n_members; i++) {
        m.to = d->cluster.members[i].id;
        if (m.to != hf_self(d))
            hf_emit_send(d, &m);
    }
    hf_emit_phase(d, "released", d->lead_term);
}

void hf_yield_begin(struct hf_decide *d, hf_node_id to)
{
    if (d->lead == HF_LEAD_NONE || d->lead >= HF_LEAD_SHUTTING)
        return;
    d->handover_to = to;
    d->transfer_tried = 0;
    hf_stream_cut(d);
    if (d->gate == HF_GATE_SHUT && !d->pinging) {
        d->transfer_ns = 0;
        hf_lead_set(d, HF_LEAD_YIELDING);
        return;
    }
    hf_gate_shut(d);
    hf_lead_set(d, HF_LEAD_SHUTTING);
}

void hf_yield_unfit(struct hf_decide *d, const char *why)
{
    hf_emit_phase(d, why, d->lead_term);
    d->unfit_until_ns = d->now_ns + d->cfg.unfit_ns;
    d->handover = false;
    hf_yield_begin(d, 0);
}

static unsigned up_voters(const struct hf_decide *d)
{
    hf_node_id voters[HF_MEMBERS_MAX];
    unsigned n = hf_cluster_voters(&d->cluster, voters), up = 0;

    for (unsigned i = 0; i < n; i++)
        up += voters[i] != hf_self(d) && !hf_decide_is_down(d, voters[i]);
    return up;
}

void hf_yield_request(struct hf_decide *d, hf_node_id to, uint64_t request)
{
    const char *no = NULL;

    if (d->lead != HF_LEAD_OPEN)
        no = d->lead > HF_LEAD_OPEN ? "a hand-over is under way" : "this node does not lead";
    else if (to == hf_self(d))
        no = "this node leads already";
    else if (to != 0 && (!hf_cluster_is_voter(&d->cluster, to) || hf_decide_is_down(d, to)))
        no = "the node asked for is not a voter that can be reached";
    else if (up_voters(d) == 0)
        no = "there is no other voter that can be reached";
    if (no != NULL) {
        hf_emit_answer(d, request, false, no);
        return;
    }
    d->handover = true;
    d->handover_to = to;
    d->handover_request = request;
    hf_emit_phase(d, "handover", d->lead_term);
    hf_lead_set(d, HF_LEAD_SETTLING);
    d->checkpoint_done = false;
}

static void settling_run(struct hf_decide *d)
{
    if (d->work != HF_WORK_NONE) {
        if (d->work == HF_WORK_CHECKPOINT && d->now_ns - d->lead_state_ns > HF_FINISH_NS)
            hf_interrupt(d); /* a disk so slow that the stop has to do without */
        return;
    }
    if (!d->checkpoint_done && d->now_ns - d->lead_state_ns < d->cfg.lead_limit_ns) {
        /* While clients still work: then the stop has little left to write. */
        hf_emit_work(d, HF_WORK_CHECKPOINT, d->lead_term);
        return;
    }
    d->drained = false;
    if (d->gate == HF_GATE_OPEN) {
        d->gate = HF_GATE_DRAINING;
        hf_emit(d, HF_ACT_GATE_DRAIN);
        hf_emit_phase(d, "draining", d->lead_term);
    } else {
        d->drained = true;
    }
    hf_lead_set(d, HF_LEAD_DRAINING);
}

static void draining_run(struct hf_decide *d)
{
    if (!d->drained && d->now_ns - d->lead_state_ns < d->cfg.drain_ns)
        return;
    if (HF_MUTATED(HF_MUT_RELEASE_EARLY))
        release(d);
    hf_gate_shut(d);
    hf_lead_set(d, HF_LEAD_SHUTTING);
}

static void shutting_run(struct hf_decide *d)
{
    if (d->gate != HF_GATE_SHUT)
        return; /* S17 */
    release(d);
    if (d->handover && d->pg == HF_PG_PRIMARY) {
        if (d->work != HF_WORK_NONE)
            return;
        hf_emit_work(d, HF_WORK_STOP_CLEAN, d->lead_term);
        hf_lead_set(d, HF_LEAD_STOPPING);
        return;
    }
    /* Unfit: the stop may hang with the disk. The gate is shut; follow_run stops it later. */
    d->transfer_ns = 0;
    hf_stream_cut(d);
    hf_lead_set(d, HF_LEAD_YIELDING);
}

/* PostgreSQL ends a stream when all of its last WAL has arrived there (walsender.c, WalSndDone). When all have ended,
 * what it still does to stop concerns nobody. A stream that broke makes this too early: then the old leader has WAL
 * that nobody else has, and is rewound. */
static bool last_wal_sent(const struct hf_decide *d)
{
    bool any = false;

    for (unsigned i = 0; i < d->n_others; i++) {
        if (d->others[i].admitted && !d->others[i].gone)
            return false;
        any = any || d->others[i].admitted;
    }
    return any;
}

static void stopping_run(struct hf_decide *d)
{
    if (d->work != HF_WORK_NONE && !last_wal_sent(d))
        return;
    hf_stream_cut(d);
    d->transfer_ns = 0;
    hf_emit_phase(d, "stopped", d->lead_term);
    hf_lead_set(d, HF_LEAD_YIELDING);
}

/* Of the other voters, but not who was tried last, the one who flushed most; 0: nobody. */
static hf_node_id most_flushed(struct hf_decide *d, bool down_too)
{
    hf_node_id voters[HF_MEMBERS_MAX], best = 0;
    hf_lsn best_lsn = 0;
    unsigned n = hf_cluster_voters(&d->cluster, voters);

    for (unsigned i = 0; i < n; i++) {
        const struct hf_other *o;
        if (voters[i] == hf_self(d) || voters[i] == d->transfer_tried ||
            (!down_too && hf_decide_is_down(d, voters[i])))
            continue;
        o = hf_lead_other(d, voters[i]);
        if (best == 0 || (o != NULL && o->flushed > best_lsn)) {
            best = voters[i];
            best_lsn = o != NULL ? o->flushed : 0;
        }
    }
    return best;
}

/* Who should lead next: as asked; else who flushed most; in turn if that fails. That somebody is down may be old
 * news, and asking the dead costs nothing when nobody else is left. */
static hf_node_id successor(struct hf_decide *d)
{
    hf_node_id to = d->handover_to != 0 && d->transfer_tried == 0 ? d->handover_to : most_flushed(d, false);

    if (to == 0)
        to = most_flushed(d, true);
    return to != 0 ? to : d->transfer_tried;
}

static void yielding_run(struct hf_decide *d)
{
    hf_node_id to, voters[HF_MEMBERS_MAX];
    bool alone = hf_cluster_voters(&d->cluster, voters) == 1 && voters[0] == hf_self(d);

    if (!d->shutdown && (alone || d->now_ns - d->lead_state_ns > d->cfg.lead_limit_ns)) {
        /* Nobody takes it, and in this term we do not lead again. A fresh start gets a new term. */
        hf_emit_phase(d, "nobody takes over: starting again", d->lead_term);
        hf_emit(d, HF_ACT_EXIT)->ok = false;
        d->exited = true;
        return;
    }
    if (d->transfer_busy || d->now_ns < d->transfer_ns)
        return;
    to = successor(d);
    d->transfer_ns = d->now_ns + 200 * HF_MS;
    if (to == 0)
        return;
    d->transfer_tried = to;
    d->transfer_busy = true;
    hf_emit(d, HF_ACT_TRANSFER)->id = to;
}

static void shutdown_run(struct hf_decide *d)
{
    if (d->lead == HF_LEAD_OPEN && !d->handover) {
        d->handover = true;
        d->handover_to = 0;
        hf_emit_phase(d, "handover", d->lead_term);
        d->checkpoint_done = false;
        hf_lead_set(d, HF_LEAD_SETTLING);
    } else if (d->lead == HF_LEAD_FENCING || d->lead == HF_LEAD_BARRIER ||
               (d->lead == HF_LEAD_APPOINTING && !d->propose_busy)) {
        d->handover = true;
        hf_yield_begin(d, 0);
    }
}

void hf_yield_run(struct hf_decide *d)
{
    enum hf_lead_state before;

    if (d->shutdown)
        shutdown_run(d);
    do {
        before = d->lead;
        switch (d->lead) {
        case HF_LEAD_SETTLING:
            settling_run(d);
            break;
        case HF_LEAD_DRAINING:
            draining_run(d);
            break;
        case HF_LEAD_SHUTTING:
            shutting_run(d);
            break;
        case HF_LEAD_STOPPING:
            stopping_run(d);
            break;
        case HF_LEAD_YIELDING:
            yielding_run(d);
            break;
        default:
            break;
        }
    } while (d->lead > before);
}
