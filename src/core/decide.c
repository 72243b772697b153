#include "decide_private.h"

#include <string.h>

size_t hf_decide_size(void)
{
    return sizeof(struct hf_decide);
}

struct hf_decide *hf_decide_init(void *memory, const struct hf_decide_config *config,
                                 const struct hf_durable *durable, enum hf_pg_state pg,
                                 bool untouched, uint64_t now_ns)
{
    struct hf_decide *d = memory;

    memset(d, 0, sizeof *d);
    d->cfg = *config;
    d->disk = *durable;
    d->saved = *durable;
    d->now_ns = now_ns;
    d->started_ns = now_ns;
    d->pg = pg;
    d->fencing = durable->fence;
    hf_cluster_init(&d->cluster);
    /* A complete data directory that the disk does not speak of yet: we died between the swap and the
     * record of it. From now on this node never says again that it holds nothing. */
    if (pg == HF_PG_DOWN)
        d->disk.had_data = true;
    /* S8: a copy was being made beside when we died, and has touched nothing: what is in place is what it was before anybody
     * thought of a copy, and so is what our lineage says of it. A copy that is in place is held under its epoch. */
    if (pg == HF_PG_DOWN && ((untouched && d->disk.hold_epoch == 0) || HF_MUTATED(HF_MUT_DROP_HOLD)))
        d->disk.hold_lsn = 0;
    return d;
}

/* -- actions ------------------------------------------------------------------------------------ */

struct hf_action *hf_emit(struct hf_decide *d, enum hf_action_type type)
{
    static struct hf_action lost; /* a full queue: only repeatable actions can come this late */
    struct hf_action *a = &lost;

    if (d->a_n < HF_ACTIONS_MAX) {
        a = &d->actions[(d->a_first + d->a_n) % HF_ACTIONS_MAX];
        d->a_n++;
    }
    memset(a, 0, sizeof *a);
    a->type = type;
    return a;
}

const struct hf_action *hf_decide_next(struct hf_decide *d)
{
    const struct hf_action *a;

    if (d->a_n == 0)
        return NULL;
    a = &d->actions[d->a_first];
    d->a_first = (d->a_first + 1) % HF_ACTIONS_MAX;
    d->a_n--;
    return a;
}

void hf_emit_send(struct hf_decide *d, const struct hf_msg *m)
{
    struct hf_action *a = hf_emit(d, HF_ACT_SEND);

    a->msg = *m;
    a->msg.from = hf_self(d);
    a->msg.cluster_id = d->disk.cluster_id;
}

void hf_emit_work(struct hf_decide *d, enum hf_work work, hf_epoch epoch)
{
    struct hf_action *a = hf_emit(d, HF_ACT_WORK);
    hf_node_id voters[HF_MEMBERS_MAX];
    unsigned n = hf_cluster_voters(&d->cluster, voters);

    a->work = work;
    a->epoch = epoch;
    a->intact = work == HF_WORK_CLONE && d->intact;
    a->id = hf_newest_leader(d);
    for (unsigned i = 0; i < n; i++)
        if (voters[i] != hf_self(d))
            a->voters[a->n_voters++] = voters[i];
    d->work = work;
    d->interrupted = false;
    d->work_epoch = epoch;
    d->work_config_seq = d->cluster.config_seq;
}

void hf_interrupt(struct hf_decide *d)
{
    if (d->work == HF_WORK_NONE || d->interrupted)
        return;
    d->interrupted = true;
    hf_emit(d, HF_ACT_INTERRUPT);
}

void hf_emit_phase(struct hf_decide *d, const char *text, hf_epoch epoch)
{
    struct hf_action *a = hf_emit(d, HF_ACT_PHASE);

    a->text = text;
    a->epoch = epoch;
}

void hf_emit_answer(struct hf_decide *d, uint64_t request, bool ok, const char *text)
{
    struct hf_action *a;

    if (request == 0)
        return;
    a = hf_emit(d, HF_ACT_ANSWER);
    a->request = request;
    a->ok = ok;
    a->text = text;
}

void hf_propose(struct hf_decide *d, const struct hf_entry *e)
{
    hf_emit(d, HF_ACT_PROPOSE)->entry = *e;
    d->propose_busy = true;
    d->propose_ns = d->now_ns;
}

/* -- small questions ---------------------------------------------------------------------------- */

hf_node_id hf_self(const struct hf_decide *d)
{
    return d->disk.self;
}

hf_epoch hf_newest_epoch(const struct hf_decide *d)
{
    const struct hf_branch *b = hf_cluster_newest(&d->cluster);

    return b != NULL ? b->epoch : 0;
}

hf_node_id hf_newest_leader(const struct hf_decide *d)
{
    const struct hf_branch *b = hf_cluster_newest(&d->cluster);

    return b != NULL ? b->leader : 0;
}

bool hf_saved(const struct hf_decide *d)
{
    return memcmp(&d->disk, &d->saved, sizeof d->disk) == 0;
}

/* -- disk --------------------------------------------------------------------------------------- */

/* One write at a time; what changed meanwhile goes with the next. */
static void persist_run(struct hf_decide *d)
{
    struct hf_action *a;

    if (d->persist_busy || hf_saved(d) || d->now_ns < d->persist_retry_ns)
        return;
    a = hf_emit(d, HF_ACT_PERSIST);
    a->seq = ++d->persist_seq;
    a->durable = d->disk;
    d->saving = d->disk;
    d->persist_busy = true;
}

static void persisted(struct hf_decide *d, const struct hf_event *e)
{
    if (!d->persist_busy || e->seq != d->persist_seq)
        return;
    d->persist_busy = false;
    if (e->ok) {
        d->saved = d->saving;
    } else {
        /* The disk says no: nothing that waits for it goes on. Try again; an open leader whose
         * disk stays ill is caught by its heartbeat (S13). */
        d->persist_retry_ns = d->now_ns + 100 * HF_MS;
    }
}

/* -- events ------------------------------------------------------------------------------------- */

static void message(struct hf_decide *d, const struct hf_msg *m)
{
    if (memcmp(&m->cluster_id, &d->disk.cluster_id, sizeof m->cluster_id) != 0)
        return; /* a stranger; the connection should have refused it already */
    if (m->to != hf_self(d))
        return; /* meant for a former incarnation of this volume (S14) */
    switch (m->type) {
    case HF_MSG_PING:
        hf_voter_ping(d, m);
        break;
    case HF_MSG_ACK:
        hf_lead_ack(d, m);
        break;
    case HF_MSG_FENCE:
        hf_voter_fence(d, m->epoch, m->from);
        break;
    case HF_MSG_REPORT:
        if (m->epoch == d->lead_term && d->lead == HF_LEAD_FENCING) {
            struct hf_report r = {.from = m->from, .flags = m->flags, .position = m->position};
            hf_fence_report(d, &r);
        }
        break;
    case HF_MSG_RELEASE:
        hf_voter_release(d, m);
        break;
    default:
        break;
    }
}

static void peer(struct hf_decide *d, hf_node_id id, bool down)
{
    for (unsigned i = 0; i < d->n_down; i++) {
        if (d->down[i] == id) {
            if (!down)
                d->down[i] = d->down[--d->n_down];
            return;
        }
    }
    if (down && d->n_down < HF_MEMBERS_MAX)
        d->down[d->n_down++] = id;
}

static void raft_servers(struct hf_decide *d, const struct hf_event *e)
{
    d->n_servers = e->n <= HF_MEMBERS_MAX ? e->n : HF_MEMBERS_MAX;
    memcpy(d->servers, e->servers, d->n_servers * sizeof d->servers[0]);
}

/* Nobody but the founder can be the first leader: no need to wait for a timeout. */
static void founder_hint(struct hf_decide *d)
{
    if (d->n_founding > 0 && !d->disk.founded && d->raft_leader == 0)
        d->hint_ns = d->now_ns;
}

static void newest_changed(struct hf_decide *d)
{
    d->newest_since_ns = d->now_ns;
    d->leader_barrier = 0;
    d->leader_copies = false;
    d->leader_open = false;
    d->disk.founded = true;
}

void hf_pg_lost(struct hf_decide *d, bool no_space)
{
    if (d->pg == HF_PG_STANDBY)
        hf_follow_futile(d, no_space);
    d->pg = d->pg == HF_PG_EMPTY ? HF_PG_EMPTY : HF_PG_DOWN;
    d->end_known = false;
    d->streaming = false;
    d->rule_config_seq = 0;
    /* S5: the postmaster's exit is the only restart there is, and it ends this leadership: commits
     * that were waiting become visible when PostgreSQL comes back, so only a barrier in a new epoch
     * may open a gate again. */
    if (d->lead >= HF_LEAD_PROMOTING && d->lead < HF_LEAD_STOPPING) {
        hf_emit_phase(d, "postgresql-lost", d->lead_term);
        hf_gate_shut(d);
        hf_stream_cut(d);
        hf_lead_set(d, HF_LEAD_SHUTTING);
    }
}

static void record(struct hf_decide *d, const struct hf_event *e)
{
    switch (e->type) {
    case HF_EV_TICK:
        break;
    case HF_EV_RAFT:
        d->role = e->role;
        d->term = e->term;
        d->raft_leader = e->raft_leader;
        hf_lead_raft(d);
        break;
    case HF_EV_RAFT_BARRIER:
        if (e->ok && e->term == d->lead_term)
            d->settled = true;
        else if (!e->ok && d->role == HF_RAFT_LEADER && d->lead_term == d->term && !d->settled)
            hf_emit(d, HF_ACT_RAFT_BARRIER);
        break;
    case HF_EV_APPLIED:
        if (hf_cluster_apply(&d->cluster, e->entry) && e->entry->type == HF_ENTRY_APPOINT)
            newest_changed(d);
        d->propose_busy = false;
        break;
    case HF_EV_RESTORED:
        d->cluster = *e->cluster;
        if (d->cluster.n_branches > 0)
            newest_changed(d);
        break;
    case HF_EV_PROPOSED:
        if (!e->ok) {
            d->propose_busy = false;
            d->appoint_sent = false;
        }
        break;
    case HF_EV_RAFT_CONFIG:
        d->config_busy = false;
        break;
    case HF_EV_RAFT_SERVERS:
        raft_servers(d, e);
        break;
    case HF_EV_FOUNDING:
        d->n_founding = e->n <= HF_MEMBERS_MAX ? e->n : HF_MEMBERS_MAX;
        memcpy(d->founding, e->member, d->n_founding * sizeof d->founding[0]);
        founder_hint(d);
        break;
    case HF_EV_TRANSFERRED:
        d->transfer_busy = false;
        break;
    case HF_EV_MESSAGE:
        message(d, e->msg);
        break;
    case HF_EV_PEER_UP:
        peer(d, e->id, false);
        founder_hint(d);
        break;
    case HF_EV_PEER_DOWN:
        peer(d, e->id, true);
        hf_voter_peer_down(d, e->id, e->proof);
        break;
    case HF_EV_PERSISTED:
        persisted(d, e);
        break;
    case HF_EV_WORK:
        hf_follow_work(d, e);
        break;
    case HF_EV_WRITE:
        hf_lead_write(d, e);
        break;
    case HF_EV_PG_EXIT:
        hf_pg_lost(d, e->no_space);
        break;
    case HF_EV_GATE_SHUT:
        if (d->gate == HF_GATE_SHUTTING)
            d->gate = HF_GATE_SHUT;
        break;
    case HF_EV_DRAINED:
        d->drained = true;
        break;
    case HF_EV_STREAM_CLOSED:
        d->stream_closing = false;
        d->streaming = false;
        break;
    case HF_EV_STREAM_ASK:
        hf_stream_ask(d, e);
        break;
    case HF_EV_STREAM_FLUSHED:
        hf_stream_flushed(d, e);
        break;
    case HF_EV_STREAM_GONE:
        hf_stream_gone(d, e);
        break;
    case HF_EV_STREAM_STATE:
        d->streaming = e->ok && d->stream_open;
        if (d->streaming)
            d->futile_starts = 0;
        if (d->streaming && e->lsn > d->flushed)
            d->flushed = e->lsn;
        break;
    case HF_EV_WAL_MISSING:
        if (d->stream_open && !HF_MUTATED(HF_MUT_NO_RECLONE_ON_MISSING))
            d->reclone = true;
        break;
    case HF_EV_JOIN:
        hf_member_join(d, e);
        break;
    case HF_EV_LEAVE:
        hf_member_leave(d, e);
        break;
    case HF_EV_SWITCHOVER:
        hf_yield_request(d, e->id, e->request);
        break;
    case HF_EV_SHUTDOWN:
        if (!d->shutdown) {
            d->shutdown = true;
            d->shutdown_ns = d->now_ns;
        }
        break;
    }
}

static bool leader_open(const struct hf_decide *d)
{
    if (hf_newest_leader(d) == hf_self(d))
        return d->gate == HF_GATE_OPEN;
    return d->leader_open && d->leader_heard_epoch == hf_newest_epoch(d) && d->now_ns - d->leader_heard_ns < d->cfg.lease_ns;
}

void hf_decide_step(struct hf_decide *d, uint64_t now_ns, const struct hf_event *event)
{
    if (d->exited)
        return;
    if (now_ns > d->now_ns)
        d->now_ns = now_ns;
    record(d, event);
    hf_voter_run(d);
    hf_lead_run(d);
    hf_yield_run(d);
    hf_stream_run(d);
    hf_member_run(d);
    hf_follow_run(d);
    persist_run(d);
}

struct hf_view hf_decide_view(const struct hf_decide *d)
{
    static const char *const names[] = {
        [HF_LEAD_NONE] = "none",           [HF_LEAD_FENCING] = "fencing",
        [HF_LEAD_INIT] = "init",           [HF_LEAD_APPOINTING] = "appointing",
        [HF_LEAD_RECORDING] = "recording", [HF_LEAD_PROMOTING] = "promoting",
        [HF_LEAD_BARRIER] = "barrier",     [HF_LEAD_OPEN] = "open",
        [HF_LEAD_SETTLING] = "settling",   [HF_LEAD_DRAINING] = "draining",
        [HF_LEAD_SHUTTING] = "shutting",   [HF_LEAD_STOPPING] = "stopping",
        [HF_LEAD_YIELDING] = "yielding",
    };
    struct hf_view v = {
        .epoch = hf_newest_epoch(d),
        .leader = hf_newest_leader(d),
        .leading = d->lead >= HF_LEAD_RECORDING && hf_newest_leader(d) == hf_self(d),
        .gate_open = d->gate == HF_GATE_OPEN || d->gate == HF_GATE_DRAINING,
        .draining = d->gate == HF_GATE_DRAINING,
        .lease_deadline_ns = d->deadline_ns,
        .pg = d->pg,
        .work = d->work,
        .stream_open = d->stream_open,
        .streaming = d->streaming,
        .leader_open = leader_open(d),
        .stream_epoch = d->stream_open ? d->stream_epoch : 0,
        .lsn = d->pg == HF_PG_PRIMARY  ? d->heartbeat_lsn
               : d->streaming          ? d->flushed
               : d->end_known          ? d->end_lsn
                                       : d->flushed,
        .lead_state = names[d->lead],
        .cluster = &d->cluster,
        .durable = &d->disk,
    };
    return v;
}
