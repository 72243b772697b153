/* The host's ways to the world: messages, its disk, libraft, and the relay of WAL. */
#include <stdlib.h>
#include <string.h>

#include "host.h"

/* -- messages ----------------------------------------------------------------------------------------- */

struct letter {
    int from;
    char to[HF_NAME_MAX];
    struct hf_msg m;
};

static void join(struct node *n, const struct hf_msg *m)
{
    struct hf_member member = {.uuid = m->uuid};
    struct hf_event e = {.type = HF_EV_JOIN, .member = &member};

    memcpy(member.name, m->name, sizeof member.name);
    memcpy(member.peer, m->peer, sizeof member.peer);
    /* The request number carries whom to answer: the node's index and its uuid's first bytes. */
    e.request = (uint64_t)(host_named(m->name) != NULL ? host_named(m->name)->index + 1 : 0) << 56 |
                ((uint64_t)m->uuid.b[0] << 16 | (uint64_t)m->uuid.b[1] << 8 | m->uuid.b[2]);
    host_step(n, &e);
}

static void formation(struct node *n, const struct hf_msg *m)
{
    struct hf_msg answer;

    if (m->type == HF_MSG_JOIN) {
        join(n, m);
    } else if (hf_form_starts_anew(&n->disk.durable, m)) {
        sim_say(n, "starts anew");
        host_crash(n);
        memset(&n->disk.durable, 0, sizeof n->disk.durable);
        n->disk.has_state = n->disk.has_founding = false;
        n->reported_term = 0;
        sim_raft_wipe(&n->disk);
        host_start(n);
    } else if (hf_form_answer(&n->disk.durable, m, &answer)) {
        memcpy(answer.name, n->name, sizeof answer.name);
        memcpy(answer.peer, n->name, sizeof answer.name);
        host_send(n, m->name, &answer);
    }
}

static void deliver(void *arg)
{
    struct letter *l = arg;
    struct node *n = host_named(l->to);

    if (n == NULL || !sim_reaches(LANE_MSG, l->from, n->index)) {
        free(l);
        return;
    }
    if (W->now < n->paused_until) {
        sim_after(n->paused_until - W->now + 1, deliver, l);
        return;
    }
    if (n->form != NULL && n->decide == NULL) {
        hf_form_message(n->form, sim_clock(n), &l->m);
        host_form_run(n);
    } else if (l->m.type >= HF_MSG_PROBE) {
        formation(n, &l->m);
    } else {
        if (l->m.type == HF_MSG_FENCE)
            sim_say(n, "FENCE %llu from %llu", (unsigned long long)l->m.epoch,
                    (unsigned long long)l->m.from);
        host_step(n, &(struct hf_event){.type = HF_EV_MESSAGE, .msg = &l->m});
    }
    free(l);
}

void host_send(struct node *from, const char *to, const struct hf_msg *m)
{
    uint8_t bytes[HF_MSG_BYTES_MAX];
    size_t len = hf_msg_encode(m, bytes);

    if (len == 0)
        sim_fail("%s: a %s cannot be encoded", from->name, hf_msg_name(m->type));
    for (int copies = sim_chance(W->duplicate) ? 2 : 1; copies > 0; copies--) {
        struct letter *l;
        uint64_t delay = sim_between(50 * US, W->delay_max) + W->msg_lag_ns[from->index];
        if (sim_chance(W->loss))
            continue;
        if (!W->quiet && sim_chance(0.001))
            delay += sim_between(1 * SEC, 60 * SEC); /* a minute late */
        l = calloc(1, sizeof *l);
        l->from = from->index;
        memcpy(l->to, to, HF_NAME_MAX);
        if (!hf_msg_decode(&l->m, bytes, len))
            sim_fail("%s: a %s cannot be decoded", from->name, hf_msg_name(m->type));
        sim_after(delay, deliver, l);
    }
}

/* -- disk --------------------------------------------------------------------------------------------- */

struct persist {
    struct node *n;
    uint64_t life, seq;
    struct hf_durable d;
    bool form;
};

static void persist_run(void *arg)
{
    struct persist *p = arg;
    struct node *n = p->n;
    bool ok = W->quiet || !sim_chance(0.01); /* the disk says no */

    if (!n->up || n->life != p->life) {
        free(p);
        return;
    }
    if (W->now < n->paused_until) {
        sim_after(n->paused_until - W->now + 1, persist_run, p);
        return;
    }
    sim_say(n, "state %s: id=%llu fence=%llu lineage=%llu hold=%llu@%llu had=%d founded=%d",
            ok ? "saved" : "NOT saved", (unsigned long long)p->d.self, (unsigned long long)p->d.fence,
            (unsigned long long)p->d.lineage, (unsigned long long)p->d.hold_lsn,
            (unsigned long long)p->d.hold_epoch, (int)p->d.had_data, (int)p->d.founded);
    if (ok) {
        n->disk.durable = p->d;
        n->disk.has_state = true;
    }
    if (p->form) {
        hf_form_persisted(n->form, sim_clock(n), ok);
        host_form_run(n);
    } else {
        host_step(n, &(struct hf_event){.type = HF_EV_PERSISTED, .seq = p->seq, .ok = ok});
    }
    free(p);
}

void host_persist(struct node *n, const struct hf_durable *d, uint64_t seq, bool form)
{
    struct persist *p = calloc(1, sizeof *p);

    *p = (struct persist){n, n->life, seq, *d, form};
    sim_after(sim_between(300 * US, W->now < n->slow_disk_until ? 150 * MS : 3 * MS), persist_run, p);
}

/* -- Raft requests ------------------------------------------------------------------------------------ */

struct request {
    struct node *n;
    uint64_t life, term;
    hf_node_id id;
    union {
        struct raft_apply apply;
        struct raft_barrier barrier;
        struct raft_transfer transfer;
        struct raft_change change;
    };
};

static struct request *request(struct node *n)
{
    struct request *r = calloc(1, sizeof *r);

    r->n = n;
    r->life = n->life;
    return r;
}

static void answer(struct request *r, const struct hf_event *e)
{
    if (r->n->up && r->n->life == r->life && !r->n->closing)
        host_later(r->n, 0, e);
    free(r);
}

static void applied_cb(struct raft_apply *req, int status, void *result)
{
    (void)result;
    answer(req->data, &(struct hf_event){.type = HF_EV_PROPOSED, .ok = status == 0});
}

static void barrier_cb(struct raft_barrier *req, int status)
{
    struct request *r = req->data;
    struct hf_event e = {.type = HF_EV_RAFT_BARRIER, .term = r->term, .ok = status == 0};

    answer(r, &e);
}

static void transfer_cb(struct raft_transfer *req)
{
    struct request *r = req->data;

    /* libraft may still look at the request when its message has been sent: it stays allocated. */
    if (r->n->up && r->n->life == r->life && !r->n->closing)
        host_later(r->n, 0, &(struct hf_event){.type = HF_EV_TRANSFERRED, .ok = true});
}

static void changed_cb(struct raft_change *req, int status)
{
    answer(req->data, &(struct hf_event){.type = HF_EV_RAFT_CONFIG, .ok = status == 0});
}

static void added_cb(struct raft_change *req, int status)
{
    struct request *r = req->data;

    if (status != 0 || r->n->closing || r->n->life != r->life ||
        raft_assign(&r->n->raft, &r->change, r->id, RAFT_STANDBY, changed_cb) != 0)
        changed_cb(req, RAFT_CANCELED);
}

void host_propose(struct node *n, const struct hf_entry *entry)
{
    struct request *r = request(n);
    struct raft_buffer buf = {.len = HF_ENTRY_BYTES_MAX + 8};
    uint64_t len;
    int rv;

    buf.base = raft_calloc(1, buf.len);
    len = hf_entry_encode(entry, (uint8_t *)buf.base + 8, HF_ENTRY_BYTES_MAX);
    memcpy(buf.base, &len, sizeof len);
    r->apply.data = r;
    rv = raft_apply(&n->raft, &r->apply, &buf, 1, applied_cb);
    if (rv != 0) {
        raft_free(buf.base);
        free(r);
        /* Not at this same instant: a mutated core asks again at once, for ever. */
        host_later(n, 1 * MS, &(struct hf_event){.type = HF_EV_PROPOSED, .ok = false});
    }
}

void host_raft_request(struct node *n, const struct hf_action *a)
{
    struct request *r = request(n);
    struct hf_event no = {.ok = false};
    int rv;

    r->id = a->id;
    r->term = n->raft.current_term;
    switch (a->type) {
    case HF_ACT_RAFT_BARRIER:
        r->barrier.data = r;
        no.type = HF_EV_RAFT_BARRIER;
        no.term = r->term;
        rv = raft_barrier(&n->raft, &r->barrier, barrier_cb);
        break;
    case HF_ACT_TRANSFER:
        r->transfer.data = r;
        no.type = HF_EV_TRANSFERRED;
        rv = raft_transfer(&n->raft, &r->transfer, a->id, transfer_cb);
        sim_say(n, "passes Raft leadership to %llu%s", (unsigned long long)a->id, rv == 0 ? "" : ": refused");
        break;
    default:
        r->change.data = r;
        no.type = HF_EV_RAFT_CONFIG;
        if (a->type == HF_ACT_RAFT_ADD) {
            rv = raft_add(&n->raft, &r->change, a->id, a->name, added_cb);
            if (rv == RAFT_DUPLICATEID)
                rv = raft_assign(&n->raft, &r->change, a->id, RAFT_STANDBY, changed_cb);
        } else if (a->type == HF_ACT_RAFT_ROLE)
            rv = raft_assign(&n->raft, &r->change, a->id, a->ok ? RAFT_VOTER : RAFT_STANDBY,
                             changed_cb);
        else
            rv = raft_remove(&n->raft, &r->change, a->id, changed_cb);
    }
    if (rv != 0) {
        free(r);
        host_later(n, 1 * MS, &no);
    }
    sim_raft_watch(n);
}

/* -- streams ------------------------------------------------------------------------------------------ */

struct ask {
    struct node *f;
    uint64_t f_life, l_life, serial;
    int leader;
    hf_node_id id;
    hf_epoch epoch;
    struct hf_position position;
};

enum { ASKS = 4096 };
static struct ask asks[ASKS];

static void dial_run(void *arg);

static void ask_arrives(void *arg)
{
    struct ask *a = arg;
    struct node *l = host_of_id(a->f->relay_leader);

    if (l == NULL || !sim_reaches(LANE_WAL, a->f->index, l->index) || W->now < l->paused_until) {
        a->serial = 0;
        return;
    }
    a->leader = l->index;
    a->l_life = l->life;
    host_step(l, &(struct hf_event){.type = HF_EV_STREAM_ASK,
                                    .id = a->id,
                                    .epoch = a->epoch,
                                    .position = a->position,
                                    .request = a->serial << 12 | (uint64_t)(a - asks)});
}

/* The WAL receiver comes again and again while the relay is open and nothing streams. */
static void dial_run(void *arg)
{
    struct life *l = arg;
    struct node *n = l->n;
    bool streams = false;

    if (!n->up || n->life != l->life || !n->relay_open) {
        if (n->life == l->life)
            n->dialing = false;
        free(l);
        return;
    }
    for (unsigned i = 0; i < SIM_STREAMS; i++)
        streams = streams || (W->streams[i].used && W->streams[i].to == n->index);
    if (!streams && n->pg.state == HF_PG_STANDBY && W->now >= n->paused_until) {
        static uint64_t serial;
        struct ask *a = &asks[++serial % ASKS];
        *a = (struct ask){n,  n->life, 0, serial, -1, n->disk.durable.self, n->relay_epoch,
                          n->relay_position};
        sim_after(sim_between(100 * US, W->delay_max), ask_arrives, a);
    }
    sim_after(60 * MS, dial_run, l);
}

void host_dial(struct node *n)
{
    struct life *l;

    if (n->dialing)
        return;
    n->dialing = true;
    l = calloc(1, sizeof *l);
    *l = (struct life){n, n->life};
    sim_after(100 * US, dial_run, l);
}

void host_admit(struct node *n, const struct hf_action *action)
{
    struct ask *a = &asks[action->request & (ASKS - 1)];

    if (a->serial != action->request >> 12 || a->leader != n->index)
        return;
    a->serial = 0;
    if (!a->f->up || a->f->life != a->f_life || !a->f->relay_open || a->f->relay_epoch != a->epoch ||
        !sim_reaches(LANE_WAL, n->index, a->f->index))
        return;
    pg_streams_cut(-1, a->f->index);
    pg_stream_begin(n, a->f, action);
}
