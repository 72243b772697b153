/* From Raft leader to the one who holds all that was acknowledged: fences, reports, and who leads (DESIGN section 5,
 * steps 1 to 3). What comes after the appointment is in decide_lead.c. */
#include "decide_private.h"

#include <string.h>

/* Late: of an older term, dropped by the caller. Doubled: replaces itself. */
void hf_fence_report(struct hf_decide *d, const struct hf_report *r)
{
    for (unsigned i = 0; i < d->n_reports; i++) {
        if (d->reports[i].from == r->from) {
            d->reports[i] = *r;
            return;
        }
    }
    if (d->n_reports < HF_MEMBERS_MAX)
        d->reports[d->n_reports++] = *r;
}

static const struct hf_report *report_of(const struct hf_decide *d, hf_node_id id)
{
    for (unsigned i = 0; i < d->n_reports; i++)
        if (d->reports[i].from == id)
            return &d->reports[i];
    return NULL;
}

bool hf_decide_is_down(const struct hf_decide *d, hf_node_id id)
{
    for (unsigned i = 0; i < d->n_down; i++)
        if (d->down[i] == id)
            return true;
    return false;
}

/* Our own report speaks of a position that cannot move. If PostgreSQL went down since, or an epoch
 * became known in which this primary may not go on, it is void: report again. */
static void own_report_check(struct hf_decide *d)
{
    for (unsigned i = 0; i < d->n_reports; i++) {
        if (d->reports[i].from != hf_self(d) || d->reports[i].position.lsn == 0)
            continue;
        if (d->end_known && (d->pg == HF_PG_STANDBY || hf_voter_may_continue(d)))
            return;
        d->reports[i] = d->reports[--d->n_reports];
        d->end_known = false;
        d->resend_ns = 0;
        return;
    }
}

/* Whose reports may count: the voters, and while the rule is in doubt the former ones. */
static unsigned electors(const struct hf_decide *d, hf_node_id ids[2 * HF_MEMBERS_MAX])
{
    unsigned n = hf_cluster_voters(&d->cluster, ids);

    for (unsigned i = 0; i < d->cluster.n_previous_voters; i++)
        if (!hf_cluster_is_voter(&d->cluster, d->cluster.previous_voters[i]))
            ids[n++] = d->cluster.previous_voters[i];
    return n;
}

static void send_fences(struct hf_decide *d)
{
    hf_node_id voters[2 * HF_MEMBERS_MAX];
    unsigned n;

    if (d->now_ns < d->resend_ns)
        return;
    d->resend_ns = d->now_ns + d->cfg.resend_ns;
    if (report_of(d, hf_self(d)) == NULL)
        hf_voter_fence(d, d->lead_term, hf_self(d));
    n = electors(d, voters);
    for (unsigned i = 0; i < n; i++) {
        struct hf_msg m = {.type = HF_MSG_FENCE, .to = voters[i], .epoch = d->lead_term};
        if (voters[i] != hf_self(d) && report_of(d, voters[i]) == NULL)
            hf_emit_send(d, &m);
    }
}

/* Reports that tell a position, as ids; only the fit ones if `fit`. */
static unsigned positions(const struct hf_decide *d, bool fit, hf_node_id out[HF_MEMBERS_MAX])
{
    unsigned n = 0;

    for (unsigned i = 0; i < d->n_reports; i++) {
        if (d->reports[i].flags & HF_FLAG_NOTHING)
            continue;
        if (fit && (d->reports[i].flags & HF_FLAG_UNFIT))
            continue;
        out[n++] = d->reports[i].from;
    }
    return n;
}

static bool quorum_has(const struct hf_decide *d, const hf_node_id *ids, unsigned n)
{
    if (HF_MUTATED(HF_MUT_COUNT_ONE_LESS)) {
        hf_node_id v[HF_MEMBERS_MAX];
        return n > 0 && n + 1 > hf_cluster_voters(&d->cluster, v) / 2;
    }
    return hf_quorum_has(&d->cluster, ids, n);
}

/* Does the leader of the newest epoch itself tell a position in it? Everything that was acknowledged before
 * was in what it was appointed with, and everything acknowledged since was on its own disk first. */
static bool newest_leader_reports(const struct hf_decide *d, bool fit)
{
    const struct hf_branch *b = hf_cluster_newest(&d->cluster);
    const struct hf_report *r = b != NULL ? report_of(d, b->leader) : NULL;

    return r != NULL && r->position.epoch == b->epoch && r->position.lsn >= b->start &&
           (r->flags & (HF_FLAG_NOTHING | (fit ? HF_FLAG_UNFIT : 0))) == 0;
}

/* Beside those who tell a position: who is copying and has never taken a byte of the greatest epoch that a position
 * lies in. What was acknowledged in that epoch, or after it, is on somebody else. */
static unsigned or_of_older_lineage(const struct hf_decide *d, hf_node_id ids[HF_MEMBERS_MAX], unsigned n)
{
    hf_epoch best = 0;

    for (unsigned i = 0; i < n; i++) {
        struct hf_position p = hf_cluster_normalise(&d->cluster, report_of(d, ids[i])->position);
        if (p.epoch > best)
            best = p.epoch;
    }
    for (unsigned i = 0; i < d->n_reports && best != 0; i++)
        if ((d->reports[i].flags & HF_FLAG_NOTHING) &&
            (d->reports[i].position.epoch < best || HF_MUTATED(HF_MUT_ANY_LINEAGE)))
            ids[n++] = d->reports[i].from;
    return n;
}

static void leave_out(hf_node_id id, hf_node_id *ids, unsigned *n)
{
    unsigned kept = 0;

    for (unsigned i = 0; i < *n; i++)
        if (ids[i] != id)
            ids[kept++] = ids[i];
    *n = kept;
}

/* Is somebody among the reporters who holds all that was ever acknowledged? One of any majority does; but a
 * voter in the middle of a copy tells no position, and does not know any more what it held (S8). It still
 * promises to take nothing from earlier leaders, and that is all that is needed of it
 *  - if the newest leader's own word is there: it holds all that was acknowledged;
 *  - if another's position lies in an epoch f, the greatest that is told, and the voter itself never took part in
 *    that: all of before was in what f began with; an acknowledgement in f, or later, took a majority that had at
 *    least f in their lineage, so one of them is among those who tell positions, and lies in f.
 * Without this, a half copied follower and one who holds all would wait for a third for ever.
 *
 * Who votes in one of two sets only (I3) can lead in neither. If the others are enough without it, what it holds beyond them was not
 * acknowledged, and is left out: else the one who holds most could not lead, and who could would pass it on to that one for ever. */
static bool reports_suffice(const struct hf_decide *d, bool fit, hf_node_id ids[HF_MEMBERS_MAX], unsigned *n)
{
    hf_node_id fenced[HF_MEMBERS_MAX], odd = hf_member_odd(d);
    unsigned n_fenced;

    *n = positions(d, fit, ids);
    if (odd != 0 && hf_quorum_has_without(&d->cluster, odd, ids, *n) && !HF_MUTATED(HF_MUT_ODD_COUNTS)) {
        leave_out(odd, ids, n);
        return true;
    }
    if (quorum_has(d, ids, *n))
        return true;
    memcpy(fenced, ids, *n * sizeof ids[0]);
    n_fenced = or_of_older_lineage(d, fenced, *n);
    if (quorum_has(d, fenced, n_fenced))
        return true;
    for (unsigned i = 0; i < d->n_reports; i++)
        fenced[i] = d->reports[i].from;
    return newest_leader_reports(d, fit) && quorum_has(d, fenced, d->n_reports);
}

static int compare(const struct hf_decide *d, struct hf_position a, struct hf_position b)
{
    if (HF_MUTATED(HF_MUT_LSN_ONLY))
        return a.lsn < b.lsn ? -1 : a.lsn > b.lsn;
    return hf_cluster_compare(&d->cluster, a, b);
}

/* Of two who hold the same. */
static bool is_preferred(const struct hf_decide *d, const struct hf_report *r, const struct hf_report *to)
{
    unsigned unfit = r->flags & HF_FLAG_UNFIT, to_unfit = to->flags & HF_FLAG_UNFIT;

    if (unfit != to_unfit)
        return to_unfit;
    return r->from == hf_self(d) || (to->from != hf_self(d) && r->from < to->from);
}

/* The reporter who holds most. The fit win a tie, then ours does, then the lowest id. */
static const struct hf_report *best_of(const struct hf_decide *d, const hf_node_id *ids, unsigned n)
{
    const struct hf_report *best = NULL;

    for (unsigned i = 0; i < n; i++) {
        const struct hf_report *r = report_of(d, ids[i]);
        int c = best == NULL ? 1 : compare(d, r->position, best->position);
        if (c > 0 || (c == 0 && is_preferred(d, r, best)))
            best = r;
    }
    return best;
}

/* Have all voters reported from whom a report can soon be had? Waiting for more would be waiting for the
 * dead, or for a leader that has just handed over and holds no more than who was sent its last WAL. */
static bool all_reported(const struct hf_decide *d)
{
    hf_node_id voters[2 * HF_MEMBERS_MAX];
    unsigned n = electors(d, voters);

    for (unsigned i = 0; i < n; i++)
        if (report_of(d, voters[i]) == NULL && !hf_decide_is_down(d, voters[i]) &&
            !(voters[i] == hf_newest_leader(d) && d->released_epoch == hf_newest_epoch(d) &&
              voters[i] != hf_self(d)))
            return false;
    return true;
}

static void appoint(struct hf_decide *d, const struct hf_report *own)
{
    const struct hf_member *self = hf_cluster_member(&d->cluster, hf_self(d));
    const struct hf_branch *newest = hf_cluster_newest(&d->cluster);
    struct hf_position p = hf_cluster_normalise(&d->cluster, own->position);
    struct hf_entry e = {.type = HF_ENTRY_APPOINT};

    d->continued = d->pg == HF_PG_PRIMARY;
    e.branch = (struct hf_branch){.epoch = d->lead_term,
                                  .parent = p.epoch,
                                  .start = p.lsn,
                                  .leader = hf_self(d),
                                  .continued = d->continued};
    e.branch.why = (uint8_t)(newest == NULL    ? HF_WHY_FIRST
                             : d->continued    ? HF_WHY_CONTINUED
                             : d->promise.until_ns == 0 && newest->leader != hf_self(d) &&
                                     !hf_decide_is_down(d, newest->leader)
                                 ? HF_WHY_HANDOVER
                                 : HF_WHY_LEADER_LOST);
    if (self != NULL)
        memcpy(e.branch.leader_name, self->name, sizeof e.branch.leader_name);
    d->appoint_sent = true;
    hf_propose(d, &e);
}

/* S13: who failed to lead a moment ago leads again only if nobody else may: the fit are no majority, and none of them holds as
 * much. Their words get time to arrive, and failures that come at once are not repeated more often than this. */
static bool may_lead_again(const struct hf_decide *d, bool fit)
{
    uint64_t failed_ns = d->unfit_until_ns - d->cfg.unfit_ns;

    return !fit && d->now_ns - failed_ns >= d->cfg.unfit_ns / 5 &&
           (all_reported(d) || d->now_ns - d->lead_state_ns >= d->cfg.lease_ns);
}

/* Step 3: with reports from a majority, the greatest position leads. */
void hf_fence_run(struct hf_decide *d)
{
    hf_node_id ids[HF_MEMBERS_MAX];
    const struct hf_report *best, *own;
    bool fit, unfit = hf_voter_is_unfit(d);
    unsigned n;

    if (d->shutdown) {
        /* On its way out: it ends without leading. To pass it on to somebody who may be leaving as
         * well would go back and forth; Raft elects another as soon as this process is gone. */
        hf_lead_end(d);
        return;
    }
    own_report_check(d);
    send_fences(d);
    if (!d->settled)
        return; /* we may not know every epoch yet, and positions compare by epochs */
    if (!hf_cluster_is_voter(&d->cluster, hf_self(d))) {
        hf_yield_begin(d, 0);
        return;
    }
    fit = reports_suffice(d, true, ids, &n);
    if (!fit && !reports_suffice(d, false, ids, &n)) {
        if (d->now_ns - d->lead_state_ns > (unfit ? d->cfg.lease_ns : d->cfg.lead_limit_ns)) {
            /* Perhaps they answer another; it says nothing against this node once they are back. */
            hf_emit_phase(d, "no majority of the voters has reported", d->lead_term);
            hf_yield_begin(d, 0);
        }
        return;
    }
    if (d->grace_until_ns == 0) {
        d->grace_until_ns = d->now_ns + d->cfg.grace_ns;
        hf_emit_phase(d, "fenced", d->lead_term);
    }
    if (!all_reported(d) && d->now_ns < d->grace_until_ns)
        return;
    own = report_of(d, hf_self(d));
    if (own == NULL || (own->flags & HF_FLAG_NOTHING)) {
        if (d->now_ns - d->lead_state_ns > d->cfg.lease_ns)
            hf_yield_begin(d, best_of(d, ids, n)->from);
        return;
    }
    best = best_of(d, ids, n);
    if (unfit && best->from != hf_self(d) && !(best->flags & HF_FLAG_UNFIT)) {
        hf_yield_begin(d, best->from);
        return;
    }
    if (unfit && !may_lead_again(d, fit))
        return;
    if (best->from != hf_self(d) && compare(d, own->position, best->position) < 0 &&
        !HF_MUTATED(HF_MUT_NOT_GREATEST)) {
        /* Only one who must not lead now holds all: pass it on, but without hurry, or the two of us
         * would elect each other thousands of times until it may. */
        if ((best->flags & HF_FLAG_UNFIT) && d->now_ns - d->lead_state_ns < d->cfg.lease_ns)
            return;
        hf_yield_begin(d, best->from);
        return;
    }
    if (own->position.lsn == 0) {
        /* A majority says that nobody has anything, and never had. */
        hf_lead_set(d, HF_LEAD_INIT);
        return;
    }
    appoint(d, own);
    hf_lead_set(d, HF_LEAD_APPOINTING);
}

void hf_fence_init_run(struct hf_decide *d)
{
    if (d->work != HF_WORK_NONE || d->now_ns < d->work_retry_ns)
        return;
    if (d->pg == HF_PG_EMPTY) {
        hf_emit_work(d, HF_WORK_INIT, d->lead_term);
    } else if (d->pg == HF_PG_DOWN) {
        hf_emit_work(d, HF_WORK_START, d->lead_term);
    } else if (hf_saved(d)) {
        /* Report again, now with data. */
        for (unsigned i = 0; i < d->n_reports; i++)
            if (d->reports[i].from == hf_self(d))
                d->reports[i] = d->reports[--d->n_reports];
        d->resend_ns = 0;
        hf_lead_set(d, HF_LEAD_FENCING);
    }
}
