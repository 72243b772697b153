/* The leader's side of replication: who may stream, and what they say they hold (SAFETY S1). */
#include "decide_private.h"

void hf_stream_cut(struct hf_decide *d)
{
    bool any = false;

    for (unsigned i = 0; i < d->n_others; i++) {
        any = any || d->others[i].admitted;
        d->others[i].admitted = false;
    }
    for (unsigned i = 0; i < d->n_asks; i++) {
        struct hf_action *a = hf_emit(d, HF_ACT_STREAM_REFUSE);
        a->request = d->asks[i].request;
        a->id = d->asks[i].id;
        a->text = "this node does not lead";
    }
    d->n_asks = 0;
    if (any)
        hf_emit(d, HF_ACT_STREAM_CUT);
}

/* Late or doubled: each ask is one connection attempt; the newest of a node replaces its older one. */
void hf_stream_ask(struct hf_decide *d, const struct hf_event *e)
{
    struct hf_ask ask = {
        .id = e->id, .request = e->request, .epoch = e->epoch, .position = e->position};

    for (unsigned i = 0; i < d->n_asks; i++) {
        if (d->asks[i].id == e->id) {
            struct hf_action *a = hf_emit(d, HF_ACT_STREAM_REFUSE);
            a->request = d->asks[i].request;
            a->id = e->id;
            a->text = "replaced by a newer connection of the same node";
            d->asks[i] = ask;
            return;
        }
    }
    if (d->n_asks < HF_ASKS_MAX) {
        d->asks[d->n_asks++] = ask;
    } else {
        struct hf_action *a = hf_emit(d, HF_ACT_STREAM_REFUSE);
        a->request = e->request;
        a->id = e->id;
        a->text = "too many nodes are asking";
    }
}

bool hf_stream_is_copy(const struct hf_branch *b, struct hf_position p)
{
    return b != NULL && p.epoch == b->epoch && p.lsn > b->start;
}

static bool is_copied(const struct hf_decide *d, struct hf_position p)
{
    return hf_stream_is_copy(hf_cluster_branch(&d->cluster, d->lead_term), p);
}

void hf_stream_flushed(struct hf_decide *d, const struct hf_event *e)
{
    struct hf_other *o;

    if (e->epoch != d->lead_term || d->lead == HF_LEAD_NONE)
        return;
    o = hf_lead_other(d, e->id);
    if (o == NULL)
        return;
    if (e->torn) {
        o->torn = true;
        return;
    }
    o->began = true;
    if (e->timeline != d->timeline && d->timeline != 0)
        return; /* still on its way along an older timeline: an LSN there is not one of ours (S1, S4) */
    if (o->admitted && e->lsn > o->flushed)
        o->flushed = e->lsn;
    if (o->flushed > o->most) {
        o->most = o->flushed;
        o->grew_ns = d->now_ns;
    }
}

/* Only said of a stop: an older connection of a node may end long after its newer one was admitted. */
void hf_stream_gone(struct hf_decide *d, const struct hf_event *e)
{
    struct hf_other *o;

    if (d->lead != HF_LEAD_STOPPING || e->epoch != d->lead_term)
        return;
    o = hf_lead_other(d, e->id);
    if (o != NULL)
        o->gone = true;
}

/* NULL: may stream. "": not yet, keep it waiting. */
static const char *objection(struct hf_decide *d, const struct hf_ask *ask)
{
    const struct hf_other *o;
    bool leading = d->lead >= HF_LEAD_RECORDING && d->lead <= HF_LEAD_STOPPING;

    if (ask->epoch > d->lead_term || (leading && ask->epoch == d->lead_term && d->pinging &&
                                      !d->barrier_waiting && !HF_MUTATED(HF_MUT_ADMIT_BEFORE_WAIT)))
        return ""; /* S2: nobody streams before the rule is seen to be in force */
    if (!leading || ask->epoch != d->lead_term || !d->pinging)
        return "this node does not lead that epoch";
    if (d->pg != HF_PG_PRIMARY)
        return ""; /* promotion under way (reached only by a mutation) */
    if (hf_cluster_member(&d->cluster, ask->id) == NULL)
        return "not a member: removed, or another volume has taken its name (hint: empty its directory, and it "
               "joins anew)";
    if (!hf_cluster_is_prefix(&d->cluster, ask->position, d->lead_term) &&
        !HF_MUTATED(HF_MUT_ADMIT_ANY) && !HF_MUTATED(HF_MUT_PREFIX_BY_TIMELINE))
        return "its history is not a prefix of the leader's";
    o = hf_lead_other(d, ask->id);
    if (o != NULL && o->torn && !is_copied(d, ask->position))
        return "its WAL ends in a record that goes on differently here: it is cloned again";
    return NULL;
}

/* A standby's WAL may end in the middle of a record, at the end of a segment. What replays ends before it, at or before the place where our
 * history leaves its own, so it may stream; but PostgreSQL asks for the *next* segment, keeps the beginning, and never replays on. It waits
 * for ever for what was never written, or, worse, is given it, and its "flushed" goes up over WAL that it has not got. So each has to
 * begin at that place or before, once in an epoch: from there on it has what we sent. The peers' side gives no WAL to who does not; here
 * that nothing of it counts, and it is told. */
static void admitted(struct hf_decide *d, struct hf_other *o, const struct hf_ask *ask, struct hf_action *a)
{
    if (o == NULL)
        return;
    if (is_copied(d, ask->position)) {
        o->began = true;
        o->torn = false;
    }
    if (!o->began && !HF_MUTATED(HF_MUT_BEGIN_ANYWHERE))
        a->begin = hf_cluster_shared(&d->cluster, ask->position, d->lead_term);
    o->admitted = true;
    o->flushed = 0; /* it will say */
}

void hf_stream_run(struct hf_decide *d)
{
    unsigned kept = 0;

    for (unsigned i = 0; i < d->n_asks; i++) {
        struct hf_ask ask = d->asks[i];
        const char *no = objection(d, &ask);
        struct hf_action *a;
        if (no != NULL && no[0] == '\0') {
            d->asks[kept++] = ask;
            continue;
        }
        a = hf_emit(d, no == NULL ? HF_ACT_STREAM_ADMIT : HF_ACT_STREAM_REFUSE);
        a->request = ask.request;
        a->id = ask.id;
        a->epoch = ask.epoch;
        a->text = no;
        if (no == NULL)
            admitted(d, hf_lead_other(d, ask.id), &ask, a);
    }
    d->n_asks = kept;
}
