/* The core's actions become calls on the parts. What takes time comes back as an event. */
#include "node_private.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/clock.h"
#include "base/log.h"
#include "base/net.h"
#include "node.h"

/* -- disk ------------------------------------------------------------------------------------------ */

static void persist_work(uv_work_t *req)
{
    struct hf_node *n = req->data;

    n->persist_ok =
        hf_state_save(n->config->dir, &n->persist_value, &n->persist_err) == 0;
}

static void persist_done(uv_work_t *req, int status)
{
    struct hf_node *n = req->data;
    bool ok = status == 0 && n->persist_ok;

    n->persist_busy = false;
    if (ok)
        n->durable = n->persist_value;
    else
        hf_err("state: %s", n->persist_err.text);
    if (n->persist_for_form) {
        hf_form_persisted(n->form, hf_clock_ns(), ok);
        hf_node_form_run(n);
        return;
    }
    hf_node_step(n, &(struct hf_event){.type = HF_EV_PERSISTED, .seq = n->persist_seq, .ok = ok});
}

void hf_node_persist(struct hf_node *n, const struct hf_durable *d, uint64_t seq, bool for_form)
{
    n->persist_value = *d;
    n->persist_seq = seq;
    n->persist_for_form = for_form;
    n->persist_req.data = n;
    if (n->persist_busy ||
        uv_queue_work(&n->loop, &n->persist_req, persist_work, persist_done) != 0) {
        hf_err("state: cannot queue a write");
        abort(); /* one at a time is the core's promise; without a thread pool nothing works */
    }
    n->persist_busy = true;
}

/* -- Raft ------------------------------------------------------------------------------------------ */

static void barrier_cb(void *arg, uint64_t term, bool ok)
{
    hf_node_step(arg, &(struct hf_event){.type = HF_EV_RAFT_BARRIER, .term = term, .ok = ok});
}

static void proposed_cb(void *arg, bool ok)
{
    hf_node_step(arg, &(struct hf_event){.type = HF_EV_PROPOSED, .ok = ok});
}

static void transferred_cb(void *arg, bool ok)
{
    hf_node_step(arg, &(struct hf_event){.type = HF_EV_TRANSFERRED, .ok = ok});
}

static void config_cb(void *arg, bool ok)
{
    hf_node_step(arg, &(struct hf_event){.type = HF_EV_RAFT_CONFIG, .ok = ok});
}

static void propose(struct hf_node *n, const struct hf_entry *e)
{
    uint8_t buf[HF_ENTRY_BYTES_MAX];
    struct hf_entry stamped = *e;
    size_t len;

    if (e->type == HF_ENTRY_APPOINT)
        stamped.branch.appointed_unix_ms = hf_clock_unix_ms();
    len = hf_entry_encode(&stamped, buf, sizeof buf);
    if (len == 0 || hf_consensus_apply(n->consensus, buf, len, proposed_cb, n) != 0)
        hf_node_later(n, &(struct hf_event){.type = HF_EV_PROPOSED, .ok = false});
}

/* -- PostgreSQL ------------------------------------------------------------------------------------ */

/* Are the data here of a founding that came to nothing? Then nothing in them was ever acknowledged. */
static bool never_opened(const struct hf_view *v)
{
    const struct hf_branch *b = hf_cluster_branch(v->cluster, v->durable->lineage);

    return v->durable->lineage == 0 || (b != NULL && b->parent == 0 && b->opened_lsn == 0);
}

static bool job_of(const struct hf_node *n, const struct hf_action *a, struct hf_pg_job *job)
{
    struct hf_view v = hf_decide_view(n->decide);

    memset(job, 0, sizeof *job);
    job->work = a->work;
    job->epoch = a->epoch;
    job->intact = a->intact;
    for (unsigned i = 0; i < a->n_voters; i++) {
        const struct hf_member *m = hf_cluster_member(v.cluster, a->voters[i]);
        if (m != NULL)
            hf_pg_member_name(job->voters[job->n_voters++], m->name, &m->uuid);
    }
    if (never_opened(&v))
        job->replaces = v.cluster->system_id;
    /* Before the cluster state is known there is no rule to give; the one written last stays. */
    job->rule = hf_cluster_is_voter(v.cluster, v.durable->self) && v.cluster->n_members > 0;
    return job->work != HF_WORK_NONE;
}

void hf_node_submit(struct hf_node *n, const struct hf_pg_job *job)
{
    struct hf_event e = {.type = HF_EV_WORK, .work = job->work, .epoch = job->epoch};

    if (hf_agent_submit(n->agent, job) != 0)
        hf_node_later(n, &e);
}

static void work(struct hf_node *n, const struct hf_action *a)
{
    struct hf_pg_job job;
    char name[HF_NAME_MAX], addr[HF_ADDR_MAX];

    if (!job_of(n, a, &job))
        return;
    if (a->work == HF_WORK_CLONE || a->work == HF_WORK_REWIND) {
        uint8_t epoch[8];
        for (int i = 0; i < 8; i++)
            epoch[i] = (uint8_t)(a->epoch >> (8 * i));
        if (hf_node_where(n, a->id, name, addr)) {
            hf_info("postgres: %s from %s, onto epoch %llu",
                    a->work == HF_WORK_CLONE ? "cloning" : "rewinding", name,
                    (unsigned long long)a->epoch);
            hf_relay_copy_from(n->relay, name, addr, epoch, sizeof epoch);
        }
    }
    if (a->work == HF_WORK_PROMOTE) {
        /* S3: nobody who reads on this follower now may still be there when it is the leader. */
        n->readable = false;
        n->promote_job = job;
        n->promote_waiting = true;
        hf_router_follower_readable(n->router, false);
        return;
    }
    hf_node_submit(n, &job);
}

/* -- messages and streams -------------------------------------------------------------------------- */

static void send_msg(struct hf_node *n, const struct hf_msg *m)
{
    char name[HF_NAME_MAX], addr[HF_ADDR_MAX];

    if (hf_node_where(n, m->to, name, addr))
        hf_peer_send(n->peer, name, addr, m);
}

int hf_node_connect_pg(const struct hf_node *n)
{
    char path[4096];

    (void)snprintf(path, sizeof path, "%s/sock/.s.PGSQL.5432", n->config->dir);
    return hf_net_connect_unix(path, NULL);
}

static void admit(struct hf_node *n, const struct hf_waiting *w, const struct hf_action *a)
{
    const struct hf_member *m = hf_cluster_member(hf_decide_view(n->decide).cluster, w->id);
    char member[HF_PG_MEMBER_MAX];
    int fd = m != NULL ? hf_node_connect_pg(n) : -1;

    if (fd < 0) {
        hf_tunnel_refuse(w->tunnel, "PostgreSQL does not listen here");
        return;
    }
    hf_pg_member_name(member, m->name, &m->uuid);
    hf_info("stream: admitted %s in epoch %llu", m->name, (unsigned long long)w->epoch);
    hf_tunnel_accept(w->tunnel, fd, &(struct hf_wal_terms){w->epoch, member, a->begin});
}

static void stream_answer(struct hf_node *n, const struct hf_action *a)
{
    struct hf_waiting *w = hf_node_waiting(n, a->request);

    if (w == NULL)
        return;
    if (w->tunnel != NULL) {
        if (a->type == HF_ACT_STREAM_ADMIT)
            admit(n, w, a);
        else
            hf_tunnel_refuse(w->tunnel, a->text != NULL ? a->text : "refused");
    }
    memset(w, 0, sizeof *w);
}

static void answer(struct hf_node *n, const struct hf_action *a)
{
    struct hf_waiting *w = hf_node_waiting(n, a->request);

    if (w == NULL)
        return;
    if (w->admin != NULL)
        hf_admin_reply(w->admin, a->ok ? json_pack("{s:b,s:s}", "ok", 1, "text", a->text)
                                       : json_pack("{s:s}", "error", a->text));
    memset(w, 0, sizeof *w);
}

static void joined(struct hf_node *n, const struct hf_action *a)
{
    struct hf_waiting *w = hf_node_waiting(n, a->request);
    struct hf_msg m = {.type = HF_MSG_JOINED,
                       .from = n->durable.self,
                       .cluster_id = n->durable.cluster_id,
                       .system_id = n->durable.system_id,
                       .flags = a->ok ? 0 : HF_FLAG_REFUSED,
                       .id = a->ok ? a->id : 0};
    const char *addr;

    if (w == NULL)
        return;
    /* By name and address: whoever asks may know neither (form.c). It asks the leader itself, and for itself: a member that asked in its
     * place would be taken for the joining node by a leader of before. */
    if (!a->ok && hf_node_where(n, a->id, m.name, m.peer)) {
        m.target = a->id;
        m.epoch = hf_decide_view(n->decide).epoch;
    }
    (void)snprintf(m.text, sizeof m.text, "%s", a->text != NULL ? a->text : "");
    addr = hf_node_seed_addr(n, w->name);
    m.uuid = w->uuid;
    if (w->addr[0] != '\0' || addr != NULL)
        hf_peer_send(n->peer, w->name, w->addr[0] != '\0' ? w->addr : addr, &m);
    memset(w, 0, sizeof *w);
}

static void stream_open(struct hf_node *n, const struct hf_action *a)
{
    char name[HF_NAME_MAX], addr[HF_ADDR_MAX];
    uint64_t values[3] = {a->epoch, a->position.epoch, a->position.lsn};
    uint8_t payload[24];

    for (int i = 0; i < 24; i++)
        payload[i] = (uint8_t)(values[i / 8] >> (8 * (i % 8)));
    if (hf_node_where(n, a->id, name, addr))
        hf_relay_open(n->relay, name, addr, payload, sizeof payload);
}

static void raft_config(struct hf_node *n, const struct hf_action *a)
{
    char address[HF_NAME_MAX + HF_ADDR_MAX];
    int rv;

    (void)snprintf(address, sizeof address, "%s/%s", a->name, a->peer);
    if (a->type == HF_ACT_RAFT_ADD)
        rv = hf_consensus_add(n->consensus, a->id, address, config_cb, n);
    else if (a->type == HF_ACT_RAFT_ROLE)
        rv = hf_consensus_assign(n->consensus, a->id, a->ok, config_cb, n);
    else
        rv = hf_consensus_remove(n->consensus, a->id, config_cb, n);
    if (rv != 0)
        hf_node_later(n, &(struct hf_event){.type = HF_EV_RAFT_CONFIG, .ok = false});
}

/* -- all of them ----------------------------------------------------------------------------------- */

void hf_node_act(struct hf_node *n, const struct hf_action *a)
{
    switch (a->type) {
    case HF_ACT_SEND:
        send_msg(n, &a->msg);
        break;
    case HF_ACT_RAFT_BARRIER:
        if (hf_consensus_barrier(n->consensus, barrier_cb, n) != 0)
            hf_node_later(n, &(struct hf_event){.type = HF_EV_RAFT_BARRIER, .ok = false});
        break;
    case HF_ACT_PROPOSE:
        propose(n, &a->entry);
        break;
    case HF_ACT_TRANSFER:
        if (hf_consensus_transfer(n->consensus, a->id, transferred_cb, n) != 0)
            hf_node_later(n, &(struct hf_event){.type = HF_EV_TRANSFERRED, .ok = false});
        break;
    case HF_ACT_HINT:
        if (a->ok)
            hf_consensus_hint(n->consensus);
        else
            hf_consensus_forget_leader(n->consensus);
        break;
    case HF_ACT_RAFT_ADD:
    case HF_ACT_RAFT_ROLE:
    case HF_ACT_RAFT_REMOVE:
        raft_config(n, a);
        break;
    case HF_ACT_PERSIST:
        hf_node_persist(n, &a->durable, a->seq, false);
        break;
    case HF_ACT_WORK:
        work(n, a);
        break;
    case HF_ACT_INTERRUPT:
        hf_info("postgres: what is under way is interrupted");
        hf_pg_interrupt(hf_agent_pg(n->agent), true); /* until on_work() */
        break;
    case HF_ACT_WRITE:
        if (hf_agent_write(n->agent, a->write, a->epoch) != 0)
            hf_node_later(n, &(struct hf_event){.type = HF_EV_WRITE,
                                                .write = a->write,
                                                .write_state = HF_WRITE_FAILED,
                                                .epoch = a->epoch});
        break;
    case HF_ACT_GATE_OPEN:
        n->opened_ns = hf_clock_ns();
        hf_router_unfurnished(n->router, hf_node_is_unfurnished(n));
        hf_router_gate_open(n->router, a->epoch);
        hf_info("gate: open epoch=%llu at_ns=%llu", (unsigned long long)a->epoch,
                (unsigned long long)hf_clock_ns());
        break;
    case HF_ACT_GATE_DRAIN:
        hf_router_gate_drain(n->router);
        break;
    case HF_ACT_GATE_SHUT:
        hf_router_gate_shut(n->router);
        break;
    case HF_ACT_LEASE:
        hf_router_lease(n->router, a->deadline_ns);
        hf_debug("gate: lease until_ns=%llu at_ns=%llu", (unsigned long long)a->deadline_ns,
                 (unsigned long long)hf_clock_ns());
        atomic_store(&n->page->lease_deadline_ns, a->deadline_ns);
        break;
    case HF_ACT_STREAM_OPEN:
        stream_open(n, a);
        break;
    case HF_ACT_STREAM_CLOSE:
        hf_relay_close(n->relay);
        break;
    case HF_ACT_STREAM_ADMIT:
    case HF_ACT_STREAM_REFUSE:
        stream_answer(n, a);
        break;
    case HF_ACT_STREAM_CUT:
        hf_peer_cut(n->peer, HF_PURPOSE_WAL, false, NULL, NULL);
        hf_peer_cut(n->peer, HF_PURPOSE_COPY, false, NULL, NULL);
        memset(n->flushed, 0, sizeof n->flushed);
        break;
    case HF_ACT_JOINED:
        joined(n, a);
        break;
    case HF_ACT_ANSWER:
        answer(n, a);
        break;
    case HF_ACT_EXIT:
        hf_node_end(n, a->ok ? 0 : HF_EXIT_AGAIN);
        break;
    case HF_ACT_PHASE:
        hf_info("phase=%s epoch=%llu", a->text, (unsigned long long)a->epoch);
        break;
    }
}
