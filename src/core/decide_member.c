/* Who is a member and who votes: the leader's work, one change at a time (I3, SAFETY S14, S20).
 *
 * The cluster state says what should be; Raft's own configuration is brought after it. A voter set
 * changes by one voter; the next change waits until the rule of the present one is in force here and
 * Raft's configuration agrees. A crash in between leaves a difference that the next leader sees and
 * settles in the same way. */
#include "decide_private.h"

#include <string.h>

enum { CAUGHT_UP_BYTES = 4 * 1024 * 1024 };

void hf_member_join(struct hf_decide *d, const struct hf_event *e)
{
    struct hf_action *a;

    if (d->lead != HF_LEAD_OPEN || d->gate != HF_GATE_OPEN || d->join.used) {
        a = hf_emit(d, HF_ACT_JOINED);
        a->request = e->request;
        a->id = hf_newest_leader(d) != hf_self(d) ? hf_newest_leader(d) : 0;
        a->text = d->join.used ? "another node is joining; try again" : "no leader is open here";
        return;
    }
    d->join.used = true;
    d->join.request = e->request;
    d->join.member = *e->member;
}

void hf_member_leave(struct hf_decide *d, const struct hf_event *e)
{
    hf_node_id voters[HF_MEMBERS_MAX];
    const char *no = NULL;

    if (d->lead != HF_LEAD_OPEN || d->gate != HF_GATE_OPEN)
        no = "this node does not lead";
    else if (hf_cluster_member(&d->cluster, e->id) == NULL)
        no = "no such member";
    else if (e->id == hf_self(d))
        no = "the leader cannot leave: switch over first";
    else if (d->leave.used)
        no = "another node is leaving; try again";
    else if (hf_cluster_is_voter(&d->cluster, e->id) && hf_cluster_voters(&d->cluster, voters) < 2)
        no = "the last voter cannot leave";
    if (no != NULL) {
        hf_emit_answer(d, e->request, false, no);
        return;
    }
    d->leave.used = true;
    d->leave.request = e->request;
    d->leave.id = e->id;
}

/* -- Raft's configuration ------------------------------------------------------------------------- */

static const struct hf_raft_server *server_of(const struct hf_decide *d, hf_node_id id)
{
    for (unsigned i = 0; i < d->n_servers; i++)
        if (d->servers[i].id == id)
            return &d->servers[i];
    return NULL;
}

/* While the voters change by one, for the cluster state or, after it, for Raft: who stops to vote leads no more, and whom Raft does not
 * elect yet does not lead yet. */
hf_node_id hf_member_odd(const struct hf_decide *d)
{
    const struct hf_cluster *c = &d->cluster;
    hf_node_id voters[HF_MEMBERS_MAX], odd = 0;
    unsigned n = hf_cluster_voters(c, voters), found = 0;

    for (unsigned i = 0; i < c->n_previous_voters; i++)
        if (!hf_cluster_is_voter(c, c->previous_voters[i])) {
            odd = c->previous_voters[i];
            found++;
        }
    for (unsigned i = 0; i < n; i++) {
        const struct hf_raft_server *s = server_of(d, voters[i]);
        if (d->n_servers == 0 || (s != NULL && s->voter))
            continue;
        odd = voters[i];
        found++;
    }
    return found == 1 ? odd : 0;
}

/* The next step that brings Raft's configuration nearer to the cluster state. False: they agree. */
static bool raft_step(const struct hf_decide *d, struct hf_action *step)
{
    for (unsigned i = 0; i < d->n_servers; i++) {
        if (hf_cluster_member(&d->cluster, d->servers[i].id) == NULL &&
            d->servers[i].id != hf_self(d)) {
            *step = (struct hf_action){.type = HF_ACT_RAFT_REMOVE, .id = d->servers[i].id};
            return true;
        }
    }
    for (unsigned i = 0; i < d->cluster.n_members; i++) {
        const struct hf_member *m = &d->cluster.members[i];
        const struct hf_raft_server *s = server_of(d, m->id);
        if (s != NULL && s->voter == m->voter && !s->idle)
            continue;
        *step = (struct hf_action){.type = s == NULL || s->idle ? HF_ACT_RAFT_ADD : HF_ACT_RAFT_ROLE,
                                   .id = m->id,
                                   .ok = m->voter};
        memcpy(step->name, m->name, sizeof step->name);
        memcpy(step->peer, m->peer, sizeof step->peer);
        return true;
    }
    return false;
}

static void raft_go(struct hf_decide *d, const struct hf_action *step)
{
    *hf_emit(d, step->type) = *step;
    d->config_busy = true;
}

/* A voter to be that Raft has not made one, and that is gone meanwhile, perhaps with its volume: Raft makes a voter only of who has its whole
 * log, so it would try for ever, and nobody could join or leave. It is a learner again, as it still is for Raft. */
static bool undo_voter(struct hf_decide *d, const struct hf_action *step)
{
    struct hf_entry e = {.type = HF_ENTRY_ROLE, .id = step->id};
    const struct hf_other *o = hf_lead_other(d, step->id);

    if (step->type != HF_ACT_RAFT_ROLE || !step->ok)
        return false;
    if (o == NULL || d->now_ns - o->heard_ns < 2 * d->cfg.lease_ns || d->now_ns - d->lead_since_ns < 2 * d->cfg.lease_ns)
        return false;
    e.member = *hf_cluster_member(&d->cluster, step->id);
    e.member.voter = false;
    hf_emit_phase(d, "a voter to be is gone, and a learner again", d->lead_term);
    hf_propose(d, &e);
    return true;
}

enum { PASS_ON_MS = 50 };

/* Raft's first configuration has all expected nodes. The founder, as the first leader, writes them into
 * the cluster state; only then may an epoch begin, so the first gate needs a majority of all expected
 * nodes (S15). Anybody else who gets here before passes leadership to the founder, who has the list. */
bool hf_member_found(struct hf_decide *d)
{
    struct hf_entry e = {.type = HF_ENTRY_FOUND, .cluster_id = d->disk.cluster_id};
    struct hf_action step;

    if (!d->settled)
        return d->cluster.n_branches > 0;
    if (d->cluster.n_branches > 0)
        return true;
    if (d->n_founding == 0) {
        /* Without hurry: a founder that is on its way out passes it back at once, and so on until it has ended. */
        if (d->now_ns - d->lead_state_ns >= PASS_ON_MS * HF_MS)
            hf_yield_begin(d, 1);
        return false;
    }
    if (d->propose_busy || d->config_busy)
        return false;
    if (hf_cluster_founded(&d->cluster) && d->cluster.n_members >= d->n_founding) {
        if (!raft_step(d, &step))
            return true;
        raft_go(d, &step);
        return false;
    }
    if (hf_cluster_founded(&d->cluster)) {
        e.type = HF_ENTRY_ADD;
        e.member = d->founding[d->cluster.n_members];
        e.id = e.member.id;
    }
    hf_propose(d, &e);
    return false;
}

/* -- changes of the cluster state ----------------------------------------------------------------- */

static bool same_voters(const struct hf_cluster *c)
{
    hf_node_id v[HF_MEMBERS_MAX];
    unsigned n = hf_cluster_voters(c, v);

    if (n != c->n_previous_voters && c->n_previous_voters != 0)
        return false;
    for (unsigned i = 0; i < c->n_previous_voters; i++)
        if (!hf_cluster_is_voter(c, c->previous_voters[i]))
            return false;
    return true;
}

/* A voter stops counting first, and goes when that is settled: until then the former voters' acks, flushes and
 * reports are needed as well, and who is no member any more is asked for none of them. */
static void remove_step(struct hf_decide *d, const struct hf_member *m)
{
    struct hf_entry e = {.type = m->voter ? HF_ENTRY_ROLE : HF_ENTRY_REMOVE, .id = m->id, .member = *m};

    e.member.voter = false;
    hf_propose(d, &e);
}

static void join_run(struct hf_decide *d)
{
    const struct hf_member *m = hf_cluster_member_named(&d->cluster, d->join.member.name);
    struct hf_entry e = {.type = HF_ENTRY_ADD};
    struct hf_other *o;

    if (m != NULL && memcmp(&m->uuid, &d->join.member.uuid, sizeof m->uuid) == 0) {
        struct hf_action *a = hf_emit(d, HF_ACT_JOINED); /* done, perhaps long ago */
        a->request = d->join.request;
        a->ok = true;
        a->id = m->id;
        d->join.used = false;
        o = hf_lead_other(d, m->id);
        if (o != NULL)
            o->heard_ns = d->now_ns; /* it will be heard of in a moment */
    } else if (m != NULL && m->id == hf_self(d)) {
        struct hf_action *a = hf_emit(d, HF_ACT_JOINED);
        a->request = d->join.request;
        a->text = "a node of this name leads the cluster";
        d->join.used = false;
    } else if (m != NULL && (o = hf_lead_other(d, m->id)) != NULL && o->heard_ns != 0 &&
               d->now_ns - o->heard_ns < 2 * d->cfg.lease_ns) {
        /* A late message of an incarnation that is gone, or two volumes under one name. */
        struct hf_action *a = hf_emit(d, HF_ACT_JOINED);
        a->request = d->join.request;
        a->text = "a node of this name is alive";
        d->join.used = false;
    } else if (m != NULL) {
        remove_step(d, m); /* S14: the old incarnation of this name goes first; it must never vote again */
    } else if (d->cluster.n_members == HF_MEMBERS_MAX) {
        struct hf_action *a = hf_emit(d, HF_ACT_JOINED);
        a->request = d->join.request;
        a->text = "the cluster is full";
        d->join.used = false;
    } else {
        e.member = d->join.member;
        e.member.id = d->cluster.next_id;
        e.member.voter = false;
        e.id = e.member.id;
        hf_propose(d, &e);
    }
}

static void leave_run(struct hf_decide *d)
{
    const struct hf_member *m = hf_cluster_member(&d->cluster, d->leave.id);

    if (m == NULL) {
        hf_emit_answer(d, d->leave.request, true, "removed");
        d->leave.used = false;
        return;
    }
    remove_step(d, m);
}

bool hf_decide_settled(const struct hf_decide *d)
{
    struct hf_action step;

    return d->lead == HF_LEAD_OPEN && same_voters(&d->cluster) &&
           d->rule_config_seq == d->cluster.config_seq && !raft_step(d, &step);
}

/* A learner that streams and is nearly there becomes a voter. */
static bool learner_run(struct hf_decide *d)
{
    for (unsigned i = 0; i < d->cluster.n_members; i++) {
        const struct hf_member *m = &d->cluster.members[i];
        struct hf_entry e = {.type = HF_ENTRY_ROLE, .id = m->id};
        const struct hf_other *o;
        if (m->voter || (d->leave.used && d->leave.id == m->id))
            continue;
        o = hf_lead_other(d, m->id);
        if (o == NULL || !o->admitted || o->flushed < d->barrier_lsn ||
            o->flushed + CAUGHT_UP_BYTES < d->heartbeat_lsn ||
            d->now_ns - o->heard_ns > d->cfg.lease_ns)
            continue;
        e.member = *m;
        e.member.voter = true;
        hf_propose(d, &e);
        return true;
    }
    return false;
}

/* A voter unheard for long stops counting, while the rest has a majority; never below three (S20). */
static void dead_run(struct hf_decide *d)
{
    hf_node_id voters[HF_MEMBERS_MAX];
    unsigned n = hf_cluster_voters(&d->cluster, voters);
    unsigned least = HF_MUTATED(HF_MUT_SHRINK_BELOW_3) ? 1 : 3;

    if (d->cfg.dead_after_ns == 0 || n <= least ||
        d->now_ns - d->lead_since_ns < d->cfg.dead_after_ns)
        return;
    for (unsigned i = 0; i < n; i++) {
        struct hf_entry e = {.type = HF_ENTRY_ROLE, .id = voters[i]};
        const struct hf_other *o;
        if (voters[i] == hf_self(d))
            continue;
        o = hf_lead_other(d, voters[i]);
        if (o == NULL || d->now_ns - o->heard_ns < d->cfg.dead_after_ns)
            continue;
        e.member = *hf_cluster_member(&d->cluster, voters[i]);
        e.member.voter = false;
        hf_emit_phase(d, "a voter is unheard for too long and stops counting", d->lead_term);
        hf_propose(d, &e);
        return;
    }
}

/* What was acknowledged under the former rule is on a majority of the former voters, which may share with a
 * majority of the next set no node that holds it. So before there can be a next set, a majority of the present
 * one must hold all of it: a write that was sent under the present rule is done, and they say they have it. */
static bool rule_proved(const struct hf_decide *d)
{
    if (HF_MUTATED(HF_MUT_RULE_NOT_PROVED) || HF_MUTATED(HF_MUT_RULE_NOT_LOADED))
        return true;
    return d->proved_config_seq == d->cluster.config_seq && hf_lead_held(d, d->heartbeat_lsn);
}

void hf_member_run(struct hf_decide *d)
{
    struct hf_action step;

    if (d->lead != HF_LEAD_OPEN || d->gate != HF_GATE_OPEN || d->now_ns >= d->deadline_ns)
        return;
    if (d->propose_busy || d->config_busy)
        return;
    if (!same_voters(&d->cluster) || d->rule_config_seq != d->cluster.config_seq) {
        if (d->rule_config_seq != d->cluster.config_seq && !HF_MUTATED(HF_MUT_RULE_NOT_LOADED)) {
            if (d->work == HF_WORK_NONE && d->now_ns >= d->work_retry_ns)
                hf_emit_work(d, HF_WORK_RULE, d->lead_term);
            return;
        }
        struct hf_entry e = {.type = HF_ENTRY_SETTLED};
        if (!same_voters(&d->cluster) && !HF_MUTATED(HF_MUT_CONFIG_TWO_AT_ONCE)) {
            if (rule_proved(d))
                hf_propose(d, &e);
            return;
        }
    }
    if (raft_step(d, &step)) {
        if (!undo_voter(d, &step))
            raft_go(d, &step);
        return;
    }
    if (d->join.used)
        join_run(d);
    else if (d->leave.used)
        leave_run(d);
    else if (!learner_run(d))
        dead_run(d);
}
