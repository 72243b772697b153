/* What PostgreSQL on this node should be doing, and the next step towards it.
 *
 * One piece of work at a time. The rules of I6, I7, S4, S8, S9, S16, S18 and S19 that concern a follower
 * are all here. */
#include "decide_private.h"

enum { FUTILE_STARTS_MAX = 5, FUTILE_POSITIONS_MAX = 6 };

void hf_follow_close(struct hf_decide *d)
{
    if (!d->stream_open)
        return;
    d->stream_open = false;
    d->streaming = false;
    d->stream_closing = true;
    d->end_known = false;
    hf_emit(d, HF_ACT_STREAM_CLOSE);
}

/* The branch to follow, or NULL. S18: the newest applied, and never one before our fence. */
static const struct hf_branch *to_follow(const struct hf_decide *d)
{
    const struct hf_branch *b = hf_cluster_newest(&d->cluster);

    if (b == NULL || b->leader == hf_self(d) || b->epoch < d->fencing)
        return NULL;
    return b;
}

/* No work sooner; what came to nothing before may have asked for more patience. */
static void wait_for(struct hf_decide *d, uint64_t ns)
{
    if (d->now_ns + ns > d->work_retry_ns)
        d->work_retry_ns = d->now_ns + ns;
}

/* PostgreSQL did not start, or ended by itself. Once more at once, then with growing patience (seven seconds in all, for
 * what passes: memory, a port). Data that never get as far as streaming are of no use: S16, a clone, at once, or as long as there
 * is nobody to clone from, another start every four seconds. A full disk says nothing of the data, and a clone beside them
 * would need more of it. */
void hf_follow_futile(struct hf_decide *d, bool no_space)
{
    unsigned n = no_space ? d->futile_starts : ++d->futile_starts;
    bool give_up = n >= FUTILE_STARTS_MAX;
    uint64_t wait = (250 * HF_MS) << (give_up ? FUTILE_STARTS_MAX - 1 : n);

    if (no_space)
        wait = 1000 * HF_MS;
    else if (n < 2 || (give_up && to_follow(d) != NULL))
        wait = 0;
    wait_for(d, wait);
    if (give_up && !HF_MUTATED(HF_MUT_REPLAY_FOR_EVER))
        d->reclone = true;
}

bool hf_follow_is_futile(const struct hf_decide *d)
{
    return d->futile_starts >= FUTILE_STARTS_MAX;
}

/* Does the disk say that a copy was under way, which nobody here remembers any more? */
static bool interrupted(const struct hf_decide *d)
{
    return d->disk.hold_lsn != 0 &&
           (d->disk.hold_epoch == 0 || d->disk.hold_epoch != d->disk.lineage);
}

/* -- results ------------------------------------------------------------------------------------ */

static void copied(struct hf_decide *d, const struct hf_event *e)
{
    d->pg = HF_PG_STANDBY;
    d->reclone = false;
    d->futile_positions = 0;
    d->intact = false;
    if (e->work == HF_WORK_CLONE) /* what did not start before it was rewound may not start now either */
        d->futile_starts = 0;
    d->copying = HF_COPY_NONE;
    d->disk.had_data = true;
    d->disk.lineage = d->work_epoch;
    if (e->work == HF_WORK_CLONE) {
        /* Complete and consistent, taken after the leader was appointed: it holds all that was
         * acknowledged before. */
        d->disk.hold_lsn = 0;
        d->disk.hold_epoch = 0;
        if (e->system_id != 0)
            d->disk.system_id = e->system_id;
    } else if (d->disk.hold_lsn != 0) {
        /* Rewound: consistent only once WAL up to the copy's end has been streamed (S8). */
        d->disk.hold_epoch = d->work_epoch;
        if (e->lsn > d->disk.hold_lsn)
            d->disk.hold_lsn = e->lsn;
    }
    d->followed_from = (struct hf_position){d->work_epoch, e->lsn};
    d->flushed = 0;
}

/* Where its history ends cannot be told: WAL cannot be read, or replay does not get there. That may pass, so it is asked again; as long
 * as nobody leads, often. Data that go on like this for seconds are of no use to a leader who was appointed without them: S16, a clone. */
static void position_failed(struct hf_decide *d)
{
    unsigned n = ++d->futile_positions;

    if (to_follow(d) == NULL)
        return;
    wait_for(d, (100 * HF_MS) << (n < FUTILE_POSITIONS_MAX ? n : FUTILE_POSITIONS_MAX));
    if (n >= FUTILE_POSITIONS_MAX && !HF_MUTATED(HF_MUT_REPLAY_FOR_EVER))
        d->reclone = true;
}

static void failed(struct hf_decide *d, const struct hf_event *e)
{
    wait_for(d, 200 * HF_MS);
    /* Some jobs restart PostgreSQL, and a stop that was asked for is no exit of its own accord. */
    if (e->down && (d->pg == HF_PG_STANDBY || d->pg == HF_PG_PRIMARY))
        hf_pg_lost(d, e->no_space);
    switch (e->work) {
    case HF_WORK_START:
        d->pg = HF_PG_DOWN;
        hf_follow_futile(d, e->no_space);
        break;
    case HF_WORK_PROMOTE:
        if (!e->down)
            d->pg = HF_PG_PRIMARY; /* or still a standby: follow_run stops it either way */
        d->primary_epoch = 0;
        if (d->lead == HF_LEAD_PROMOTING)
            hf_yield_unfit(d, "the promotion failed");
        break;
    case HF_WORK_INIT:
        if (d->lead == HF_LEAD_INIT)
            hf_yield_unfit(d, "initdb failed");
        break;
    case HF_WORK_REWIND:
        d->copying = HF_COPY_NONE;
        d->reclone = true;
        break;
    case HF_WORK_CLONE:
        d->copying = HF_COPY_NONE;
        wait_for(d, 1000 * HF_MS);
        if (e->swapped) {
            /* The copy is in place and did not start. It is nothing that our lineage speaks of: hold it. */
            d->pg = HF_PG_DOWN;
            d->disk.had_data = true;
            d->intact = false;
            if (d->disk.hold_lsn == 0)
                d->disk.hold_lsn = 1;
            d->disk.hold_epoch = 0;
        }
        /* Nothing was swapped (I7): the old data, if any, are what they were, and who waits for a report may
         * have more than "nothing" now. They are tried once more: what was wrong with them may have passed, and a copy may
         * never succeed (no room for it). If it has not, the next start or the next leader says so again. */
        if (d->intact) {
            d->disk.hold_lsn = 0;
            d->report_due = true;
            d->reclone = false;
            if (d->futile_starts < FUTILE_STARTS_MAX - 1)
                d->futile_starts = FUTILE_STARTS_MAX - 1;
        }
        break;
    case HF_WORK_STOP:
    case HF_WORK_STOP_CLEAN:
        d->shutdown_stopped = false; /* on the way out: once more */
        wait_for(d, 1000 * HF_MS);
        break;
    case HF_WORK_CHECKPOINT:
    case HF_WORK_RULE:
        wait_for(d, 1000 * HF_MS);
        break;
    case HF_WORK_POSITION:
        position_failed(d);
        break;
    default:
        break;
    }
}

/* It runs and has told where its history ends: nothing speaks for a clone that the next leader would not say again, who may
 * need it as it is. One more start that comes to nothing, before it streams, and it is given up as before. */
static void found_well(struct hf_decide *d)
{
    d->reclone = false;
    d->futile_positions = 0;
    if (hf_follow_is_futile(d))
        d->futile_starts = FUTILE_STARTS_MAX - 1;
}

/* Where our history ends. What a rewind has taken from its source had seen more WAL than came with it: such data are as far as
 * that, and hold nothing until the stream has brought it (S8). Of others it says that WAL which was here cannot be read. */
static bool take_position(struct hf_decide *d, const struct hf_event *e)
{
    bool rewound = d->disk.hold_lsn != 0 && !interrupted(d);

    if (e->seen != 0 && (rewound ? HF_MUTATED(HF_MUT_NO_POSITION_REWOUND) : !HF_MUTATED(HF_MUT_WAL_UNREAD)))
        return false;
    /* Only if nothing could have moved it meanwhile. */
    if (((!d->stream_open && !d->stream_closing) || HF_MUTATED(HF_MUT_SKIP_FENCE)) && d->pg != HF_PG_DOWN) {
        d->end_known = true;
        d->end_lsn = e->seen != 0 && rewound && !HF_MUTATED(HF_MUT_SEEN_IS_NOTHING) ? e->seen : e->lsn;
        d->incomplete = e->seen != 0;
        found_well(d);
    }
    return true;
}

void hf_follow_work(struct hf_decide *d, const struct hf_event *e)
{
    if (e->work != d->work)
        return; /* doubled */
    d->work = HF_WORK_NONE;
    if (!e->ok || (e->work == HF_WORK_POSITION && !take_position(d, e))) {
        failed(d, e);
        return;
    }
    switch (e->work) {
    case HF_WORK_INIT:
        d->pg = HF_PG_DOWN;
        d->disk.had_data = true;
        d->disk.system_id = e->system_id;
        break;
    case HF_WORK_START:
        d->pg = HF_PG_STANDBY;
        d->end_known = false;
        d->rule_config_seq = d->work_config_seq;
        d->report_due = d->report_due || hf_follow_is_futile(d); /* now there may be more to tell than nothing */
        break;
    case HF_WORK_STOP:
    case HF_WORK_STOP_CLEAN:
        d->pg = HF_PG_DOWN;
        d->end_known = false;
        d->rule_config_seq = 0;
        break;
    case HF_WORK_PROMOTE:
        d->pg = HF_PG_PRIMARY;
        d->futile_starts = 0;
        d->primary_epoch = d->work_epoch;
        d->timeline = d->promoted_timeline = e->timeline;
        d->end_known = false;
        d->rule_config_seq = d->work_config_seq;
        break;
    case HF_WORK_RULE:
        d->rule_config_seq = d->work_config_seq;
        break;
    case HF_WORK_REWIND:
    case HF_WORK_CLONE:
        copied(d, e);
        d->rule_config_seq = d->work_config_seq;
        d->end_known = false;
        break;
    case HF_WORK_CHECKPOINT:
        d->checkpoint_done = d->work_epoch == d->lead_term;
        break;
    case HF_WORK_POSITION:
    case HF_WORK_NONE:
        break;
    }
    if (e->down && (d->pg == HF_PG_STANDBY || d->pg == HF_PG_PRIMARY))
        hf_pg_lost(d, e->no_space); /* it did that, and has ended since; its exit may have been told before */
}

/* -- what next ---------------------------------------------------------------------------------- */

/* Its leader has shut the gate for good, and our stream has ended: nothing will come of this epoch any more. */
static bool is_over(const struct hf_decide *d, const struct hf_branch *b)
{
    return d->released_epoch == b->epoch && !d->streaming;
}

/* Has the leader of b pinged lately? Copying from a leader that is gone only wastes time. */
static bool leader_alive(const struct hf_decide *d, const struct hf_branch *b)
{
    return d->leader_copies && d->leader_heard_epoch == b->epoch && d->now_ns - d->leader_heard_ns < d->cfg.lease_ns;
}

/* Behind a shut gate a primary may run on until we know that it must not. */
static bool entitled(const struct hf_decide *d)
{
    const struct hf_branch *b = hf_cluster_newest(&d->cluster);

    if (d->primary_epoch == 0 || b == NULL)
        return false;
    if (b->epoch != d->primary_epoch || b->leader != hf_self(d))
        return false;
    return d->fencing <= d->primary_epoch || d->fencing_from == hf_self(d);
}

static void hold(struct hf_decide *d, const struct hf_branch *b)
{
    if (!d->disk.had_data || d->disk.hold_lsn != 0)
        return;
    d->intact = true;
    d->disk.hold_epoch = 0; /* set when the copy is complete */
    d->disk.hold_lsn = d->leader_barrier > b->start ? d->leader_barrier : b->start + 1;
}

/* Copies the leader's data, by rewinding or whole. The steps: hold on disk, PostgreSQL stopped, copy. */
static void copy_run(struct hf_decide *d, const struct hf_branch *b, bool rewind)
{
    if (!leader_alive(d, b))
        return;
    d->copying = rewind ? HF_COPY_REWIND : HF_COPY_CLONE;
    d->copying_for = b->epoch;
    if (d->stream_open || d->stream_closing) {
        hf_follow_close(d);
        return;
    }
    hold(d, b);
    if (!hf_saved(d))
        return;
    if (d->pg == HF_PG_STANDBY || d->pg == HF_PG_PRIMARY) {
        hf_emit_work(d, HF_WORK_STOP, b->epoch);
        return;
    }
    if (rewind)
        d->intact = false; /* from here on the data in place are touched */
    hf_emit_work(d, rewind ? HF_WORK_REWIND : HF_WORK_CLONE, b->epoch);
}

/* A copy decided on for a leader that is gone, and not begun: the data are still what they were. */
static void copy_forget(struct hf_decide *d)
{
    d->copying = HF_COPY_NONE;
    if (d->intact && d->disk.hold_epoch == 0) {
        d->disk.hold_lsn = 0;
        d->report_due = true;
    }
}

static void stream_open(struct hf_decide *d, const struct hf_branch *b)
{
    struct hf_action *a = hf_emit(d, HF_ACT_STREAM_OPEN);

    a->id = b->leader;
    a->epoch = b->epoch;
    a->position = d->followed_from;
    d->stream_open = true;
    d->stream_epoch = b->epoch;
    d->end_known = false;
}

static bool is_prefix(const struct hf_decide *d, struct hf_position p, const struct hf_branch *b)
{
    const struct hf_branch *mine = hf_cluster_branch(&d->cluster, p.epoch);

    if (HF_MUTATED(HF_MUT_PREFIX_BY_TIMELINE) && mine != NULL)
        return mine->timeline <= b->timeline || p.lsn <= b->start;
    if (HF_MUTATED(HF_MUT_ADMIT_ANY))
        return true;
    /* Lineage 0 with data: an initdb of a leader that was never appointed, perhaps of another
     * system id. Nobody's prefix. */
    return p.epoch != 0 && hf_cluster_is_prefix(&d->cluster, p, b->epoch);
}

static void diverged_run(struct hf_decide *d, const struct hf_branch *b, struct hf_position p)
{
    /* A leader may be waiting for us with its barrier, and that ends (decide_lead.c). */
    uint64_t patience_ns = d->cfg.lease_ns < d->cfg.lead_limit_ns / 4 ? 2 * d->cfg.lease_ns : d->cfg.lead_limit_ns / 2;
    bool fresh = d->now_ns - d->newest_since_ns < patience_ns;
    bool rewind = !d->reclone && p.epoch != 0 && (!d->incomplete || HF_MUTATED(HF_MUT_REWIND_INCOMPLETE)) && /* what changed is in WAL */
                  (hf_cluster_can_rewind(&d->cluster, p, b->epoch) ||
                   HF_MUTATED(HF_MUT_TRUST_REWIND));

    /* S8, S9: rewinding in place only after the barrier and a checkpoint of the leader; its pings say
     * so. If the barrier stays open it may be waiting for us: then re-clone beside. */
    if (!rewind && b->timeline == 0 && fresh && !d->reclone)
        return; /* the leader says its timeline when it opens, a moment from now */
    if (rewind && d->rewind_allowed != b->epoch) {
        if (d->leader_barrier != 0 || fresh)
            return;
        rewind = false;
    }
    copy_run(d, b, rewind);
}

/* PostgreSQL runs as a standby and there is somebody to follow. */
static void standby_run(struct hf_decide *d, const struct hf_branch *b)
{
    struct hf_position p = {d->saved.lineage, d->end_lsn};

    if (d->stream_open && d->stream_epoch == b->epoch && !d->reclone) {
        if (d->disk.hold_lsn != 0 && d->streaming && d->flushed >= d->disk.hold_lsn &&
            d->disk.hold_epoch == b->epoch) {
            d->disk.hold_lsn = 0;
            d->disk.hold_epoch = 0;
        }
        if (d->rule_config_seq != d->cluster.config_seq)
            hf_emit_work(d, HF_WORK_RULE, 0); /* S2: carried as a follower too */
        return;
    }
    if (d->stream_open) {
        hf_follow_close(d);
        return;
    }
    if (d->stream_closing)
        return;
    if (d->reclone || interrupted(d)) {
        copy_run(d, b, d->copying == HF_COPY_REWIND && !d->reclone);
        return;
    }
    if (is_over(d, b)) {
        if (!d->end_known)
            hf_emit_work(d, HF_WORK_POSITION, b->epoch); /* known when the next leader asks */
        return;
    }
    if (d->saved.lineage == b->epoch) {
        if (d->followed_from.epoch == 0 || /* since before this process started, or copied */
            (d->followed_from.epoch == b->epoch && d->followed_from.lsn < b->start))
            d->followed_from = (struct hf_position){b->epoch, b->start};
        stream_open(d, b);
        return;
    }
    if (d->disk.lineage != d->saved.lineage && !HF_MUTATED(HF_MUT_LINEAGE_LATE))
        return; /* on its way to disk */
    if (!d->end_known) {
        hf_emit_work(d, HF_WORK_POSITION, b->epoch);
        return;
    }
    if (is_prefix(d, p, b)) {
        d->followed_from = p;
        if (HF_MUTATED(HF_MUT_LINEAGE_LATE)) {
            stream_open(d, b);
            return;
        }
        if (d->disk.hold_lsn != 0) { /* copied from an earlier leader, and still held */
            d->disk.hold_epoch = b->epoch;
            d->disk.hold_lsn = d->leader_barrier > b->start ? d->leader_barrier : b->start + 1;
        }
        d->disk.lineage = b->epoch; /* S4: before the first byte; persist_run, then we come back */
        return;
    }
    diverged_run(d, b, p);
}

/* On the way out: what may take hours is not waited for, or the process lives until it is killed. Nothing is lost by that which a kill
 * would not lose: a copy is made beside, and a half-made rewind is known by its mark (I7, S8). That one costs a whole copy, so what can be
 * done in time is; and so are checkpoints, whose work the stop would have to do. */
static void cut_short(struct hf_decide *d)
{
    bool late = d->now_ns - d->shutdown_ns > HF_FINISH_NS;

    if (d->work == HF_WORK_CLONE || d->work == HF_WORK_INIT ||
        (late && (d->work == HF_WORK_REWIND || (d->work == HF_WORK_CHECKPOINT && d->lead == HF_LEAD_NONE))))
        hf_interrupt(d);
}

static void end_run(struct hf_decide *d)
{
    if (d->pg == HF_PG_STANDBY || d->pg == HF_PG_PRIMARY) {
        if (d->pg == HF_PG_STANDBY && !d->shutdown_settled) {
            /* The long part of a stop, while WAL still comes in. If it fails, the stop takes longer. */
            d->shutdown_settled = true;
            hf_emit_work(d, HF_WORK_CHECKPOINT, 0);
            return;
        }
        if (d->shutdown_stopped || d->now_ns < d->work_retry_ns)
            return;
        hf_emit_work(d, d->pg == HF_PG_PRIMARY ? HF_WORK_STOP : HF_WORK_STOP_CLEAN, 0);
        d->shutdown_stopped = true;
        return;
    }
    hf_emit(d, HF_ACT_EXIT)->ok = true;
    d->exited = true;
}

void hf_follow_run(struct hf_decide *d)
{
    const struct hf_branch *b = to_follow(d);

    if (d->exited)
        return;
    if (d->work != HF_WORK_NONE) {
        if (d->shutdown)
            cut_short(d);
        return;
    }
    if (d->shutdown && (d->lead == HF_LEAD_NONE ||
                        (d->lead == HF_LEAD_YIELDING && d->now_ns - d->lead_state_ns > 1000 * HF_MS))) {
        end_run(d);
        return;
    }
    /* Elected on the way out: pass it on, but start nothing that would have to be stopped again. */
    if (d->shutdown && (d->pg == HF_PG_DOWN || d->pg == HF_PG_EMPTY))
        return;
    if (hf_lead_owns_pg(d) || d->now_ns < d->work_retry_ns)
        return;
    /* A fence, a release or a new epoch ends an old stream, whatever else is to be done. */
    if (d->stream_open && (b == NULL || d->stream_epoch != b->epoch || is_over(d, b)))
        hf_follow_close(d);
    if (d->copying != HF_COPY_NONE && (b == NULL || b->epoch != d->copying_for))
        copy_forget(d);
    switch (d->pg) {
    case HF_PG_PRIMARY:
        if (!entitled(d) && d->gate == HF_GATE_SHUT)
            hf_emit_work(d, HF_WORK_STOP, 0);
        break;
    case HF_PG_EMPTY:
        if (b != NULL)
            copy_run(d, b, false);
        break;
    case HF_PG_DOWN:
        if (b != NULL && (d->reclone || interrupted(d) || d->copying != HF_COPY_NONE)) {
            copy_run(d, b, d->copying == HF_COPY_REWIND && !d->reclone);
        } else if (!interrupted(d)) { /* also when it should be cloned and nobody leads: to report */
            hf_emit_work(d, HF_WORK_START, 0);
        }
        break;
    case HF_PG_STANDBY:
        if (b != NULL)
            standby_run(d, b);
        else if (HF_MUTATED(HF_MUT_PROMOTE_FROM_LOG) && hf_newest_leader(d) == hf_self(d) &&
                 d->fencing <= hf_newest_epoch(d))
            hf_emit_work(d, HF_WORK_PROMOTE, hf_newest_epoch(d));
        break;
    }
}
