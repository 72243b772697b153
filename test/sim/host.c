/* The host of one node's core, as src/node*.c is in the product. */
#include <stdlib.h>
#include <string.h>

#include "host.h"

struct node *host_of_id(hf_node_id id)
{
    for (unsigned i = 0; i < SIM_NODES; i++) {
        struct node *n = &W->nodes[i];
        if (n->exists && n->up && n->decide != NULL && n->disk.durable.self == id && id != 0)
            return n;
    }
    return NULL;
}

struct node *host_named(const char *name)
{
    for (unsigned i = 0; i < SIM_NODES; i++)
        if (W->nodes[i].exists && strcmp(W->nodes[i].name, name) == 0)
            return &W->nodes[i];
    return NULL;
}

bool host_passes(const struct node *n, hf_epoch session)
{
    return n->gate_epoch != 0 && n->gate_epoch == session && sim_clock(n) < n->deadline_ns;
}

/* A gate is open when something can pass. A loop that was starved may open one whose lease is long over. */
static void results_pass(struct node *n)
{
    if (n->checked_epoch == n->gate_epoch || !host_passes(n, n->gate_epoch))
        return;
    n->checked_epoch = n->gate_epoch;
    check_open(n, n->gate_epoch);
}

bool host_answers(const struct node *n)
{
    return n->up && (W->now >= n->paused_until || n->loop_only);
}

static void starve(struct node *n)
{
    host_pause(n, n->starve_ns);
    n->loop_only = true;
}

/* In order; what is left when the loop is starved comes when it runs again. */
static void carry_out(struct node *n)
{
    const struct hf_action *next;

    n->stepping = true;
    while (n->up && n->decide != NULL && W->now >= n->paused_until &&
           (next = hf_decide_next(n->decide)) != NULL) {
        struct hf_action a = *next;
        if (!trap_takes(n, &a))
            host_perform(n, &a);
        if (n->up && n->starve_in > 0 && --n->starve_in == 0)
            starve(n);
    }
    n->stepping = false;
}

void host_step(struct node *n, const struct hf_event *e)
{
    if (!n->up || n->decide == NULL)
        return;
    if (!n->stepping)
        carry_out(n);
    if (!n->up || n->decide == NULL)
        return;
    hf_decide_step(n->decide, sim_clock(n), e);
    if (!n->stepping)
        carry_out(n);
}

struct later {
    struct node *n;
    uint64_t life;
    struct hf_event e;
};

static void later_run(void *arg)
{
    struct later *l = arg;

    if (!l->n->up || l->n->life != l->life) {
        free(l);
        return;
    }
    if (W->now < l->n->paused_until) {
        sim_after(l->n->paused_until - W->now + 1, later_run, l);
        return;
    }
    host_step(l->n, &l->e);
    free(l);
}

void host_later(struct node *n, uint64_t delay, const struct hf_event *e)
{
    struct later *l = calloc(1, sizeof *l);

    *l = (struct later){n, n->life, *e};
    sim_after(delay, later_run, l);
}

static void begin_member(struct node *n, bool founding)
{
    struct hf_decide_config c = {
        .lease_ns = n->lease_ms * MS,
        .ping_ns = 50 * MS,
        .grace_ns = 20 * MS,
        .resend_ns = 50 * MS,
        .lead_limit_ns = 5 * SEC,
        .unfit_ns = 2 * SEC,
        .drain_ns = 1 * SEC,
        .heartbeat_ns = 1 * SEC,
        .dead_after_ns = 6 * SEC,
        .expect = W->n_nodes,
    };

    free(n->form);
    n->form = NULL;
    sim_raft_open(n);
    if (!hf_form_founded(&n->disk.durable)) {
        struct raft_configuration conf;
        raft_configuration_init(&conf);
        for (unsigned i = 0; i < W->n_nodes; i++)
            (void)raft_configuration_add(&conf, i + 1, W->nodes[i].name, RAFT_VOTER);
        (void)raft_bootstrap(&n->raft, &conf); /* the second time it exists already */
        raft_configuration_close(&conf);
    }
    n->decide = hf_decide_init(calloc(1, hf_decide_size()), &c, &n->disk.durable, n->pg.state,
                               n->pg.untouched, sim_clock(n));
    sim_raft_start(n);
    (void)founding;
    if (n->disk.has_founding)
        host_step(n, &(struct hf_event){.type = HF_EV_FOUNDING,
                                        .member = n->disk.founding,
                                        .n = n->disk.n_founding});
    for (unsigned i = 0; i < SIM_NODES; i++)
        if (W->nodes[i].up && W->nodes[i].decide != NULL && (int)i != n->index) {
            host_later(n, sim_between(1 * MS, 20 * MS),
                       &(struct hf_event){.type = HF_EV_PEER_UP, .id = W->nodes[i].disk.durable.self});
            host_later(&W->nodes[i], sim_between(1 * MS, 20 * MS),
                       &(struct hf_event){.type = HF_EV_PEER_UP, .id = n->disk.durable.self});
        }
}

void host_form_run(struct node *n)
{
    const struct hf_form_action *next;

    while (n->up && n->form != NULL && (next = hf_form_next(n->form)) != NULL) {
        struct hf_form_action a = *next;
        switch (a.type) {
        case HF_FORM_SEND:
            host_send(n, a.name, &a.msg);
            break;
        case HF_FORM_PERSIST:
            host_persist(n, &a.durable, 0, true);
            break;
        case HF_FORM_FOUND:
            if (W->opens > 0)
                sim_fail("I6: %s founds a second cluster", n->name);
            n->disk.has_founding = true;
            n->disk.n_founding = a.n_members;
            memcpy(n->disk.founding, a.members, sizeof a.members);
            begin_member(n, true);
            return;
        case HF_FORM_MEMBER:
            begin_member(n, false);
            return;
        case HF_FORM_STUCK:
            break;
        }
    }
}

static void tick_run(void *arg)
{
    struct life *l = arg;

    if (!l->n->up || l->n->life != l->life) {
        free(l);
        return;
    }
    if (W->now >= l->n->paused_until) {
        if (l->n->decide != NULL) {
            host_step(l->n, &(struct hf_event){.type = HF_EV_TICK});
        } else if (l->n->form != NULL) {
            hf_form_tick(l->n->form, sim_clock(l->n));
            host_form_run(l->n);
        }
    }
    sim_after(10 * MS, tick_run, l);
}

void host_start(struct node *n)
{
    struct life *l = calloc(1, sizeof *l);

    if (n->up)
        return;
    n->exists = n->up = true;
    n->life++;
    n->paused_until = 0;
    n->starve_in = 0;
    W->stalled[n->index] = NULL;
    n->gate_epoch = 0;
    n->deadline_ns = 0;
    n->draining = n->relay_open = n->dialing = n->stepping = false;
    if (n->pg.state != HF_PG_EMPTY)
        pg_stopped(&n->pg, false); /* a leftover postmaster is ended first */
    sim_say(n, "starts (life %llu, id %llu)", (unsigned long long)n->life,
            (unsigned long long)n->disk.durable.self);
    *l = (struct life){n, n->life};
    sim_after(sim_between(0, 10 * MS), tick_run, l);
    if (n->disk.has_state && n->disk.durable.self == 1 && !n->disk.has_founding &&
        !hf_form_founded(&n->disk.durable)) {
        memset(&n->disk.durable, 0, sizeof n->disk.durable);
        n->disk.has_state = false;
    }
    if (n->disk.has_state) {
        begin_member(n, false);
        return;
    }
    struct hf_form_config c = {
        .ordinal = (unsigned)n->index, .expect = W->n_nodes, .retry_ns = 100 * MS};
    memcpy(c.name, n->name, sizeof c.name);
    memcpy(c.peer, n->name, sizeof n->name);
    for (unsigned i = 0; i < sizeof c.uuid.b; i++) {
        c.uuid.b[i] = (uint8_t)sim_random();
        if (!n->disk.has_cluster_id)
            n->disk.cluster_id.b[i] = (uint8_t)sim_random();
    }
    n->disk.has_cluster_id = true;
    c.cluster_id = n->disk.cluster_id;
    for (unsigned i = 0; i < W->n_nodes; i++)
        memcpy(c.seeds[c.n_seeds++], W->nodes[i].name, HF_NAME_MAX);
    n->form = hf_form_init(calloc(1, hf_form_size()), &c, sim_clock(n));
}

/* The process is gone; what was on disk stays. Peers see the connection end, and mostly get a token. */
void host_crash(struct node *n)
{
    if (!n->up)
        return;
    sim_say(n, "crashes");
    n->up = false;
    n->gate_epoch = 0;
    sim_raft_crash(n);
    n->life++;
    pg_streams_cut(n->index, -1);
    pg_streams_cut(-1, n->index);
    pg_stopped(&n->pg, false);
    free(n->decide);
    free(n->form);
    n->decide = NULL;
    n->form = NULL;
    for (unsigned i = 0; i < SIM_NODES; i++) {
        struct node *o = &W->nodes[i];
        uint64_t at = sim_between(100 * US, 2 * MS);
        if (!o->up || o->decide == NULL || W->cut[n->index][i])
            continue;
        host_later(o, at, &(struct hf_event){.type = HF_EV_PEER_DOWN, .id = n->disk.durable.self});
        if (!W->calm && sim_chance(0.7))
            host_later(o, at + sim_between(0, 20 * MS),
                       &(struct hf_event){
                           .type = HF_EV_PEER_DOWN, .id = n->disk.durable.self, .proof = true});
    }
}

void host_lose_volume(struct node *n)
{
    host_crash(n);
    sim_say(n, "loses its volume");
    memset(&n->disk.durable, 0, sizeof n->disk.durable);
    n->disk.has_state = n->disk.has_founding = n->disk.has_cluster_id = false;
    n->reported_term = 0;
    sim_raft_wipe(&n->disk);
    memset(&n->pg, 0, sizeof n->pg);
    n->pg.state = HF_PG_EMPTY;
}

struct pg_end {
    struct node *n;
    uint64_t life, generation;
};

/* The host hears of the postmaster's end, unless it has started or stopped it again meanwhile. */
static void pg_end_run(void *arg)
{
    struct pg_end *e = arg;
    struct node *n = e->n;

    if (n->up && n->life == e->life && W->now < n->paused_until) {
        sim_after(n->paused_until - W->now + 1, pg_end_run, e);
        return;
    }
    if (n->up && n->life == e->life && n->pg.generation == e->generation)
        host_step(n, &(struct hf_event){.type = HF_EV_PG_EXIT});
    free(e);
}

void host_pg_killed(struct node *n)
{
    if (!n->up || n->pg.state == HF_PG_EMPTY || n->pg.state == HF_PG_DOWN)
        return;
    sim_say(n, "PostgreSQL is killed");
    pg_stopped(&n->pg, false);
    pg_streams_cut(n->index, -1);
    pg_streams_cut(-1, n->index);
    struct pg_end *e = calloc(1, sizeof *e);
    *e = (struct pg_end){n, n->life, n->pg.generation};
    sim_after(sim_between(100 * US, 3 * MS), pg_end_run, e);
}

static void sentinel_run(void *arg)
{
    struct life *l = arg;
    struct node *n = l->n;

    if (n->up && n->life == l->life && W->now < n->paused_until && n->pg.state == HF_PG_PRIMARY &&
        n->deadline_ns != 0 && sim_clock(n) > n->deadline_ns + 150 * MS)
        host_pg_killed(n);
    if (n->up && n->life == l->life && W->now < n->paused_until)
        sim_after(50 * MS, sentinel_run, l);
    else
        free(l);
}

void host_pause(struct node *n, uint64_t ns)
{
    struct life *l = calloc(1, sizeof *l);

    sim_say(n, "is stopped for %llu ms", (unsigned long long)(ns / MS));
    n->paused_until = W->now + ns;
    n->loop_only = false;
    *l = (struct life){n, n->life};
    sim_after(50 * MS, sentinel_run, l);
}

static void exit_run(void *arg)
{
    struct life *l = arg;

    if (l->n->up && l->n->life == l->life)
        host_crash(l->n);
    free(l);
}

static void joined(struct node *n, const struct hf_action *a)
{
    unsigned index = (unsigned)(a->request >> 56) - 1;
    struct hf_msg m = {.type = HF_MSG_JOINED,
                       .from = n->disk.durable.self,
                       .cluster_id = n->disk.durable.cluster_id,
                       .system_id = n->disk.durable.system_id,
                       .flags = a->ok ? 0 : HF_FLAG_REFUSED,
                       .id = a->ok ? a->id : 0};
    const struct hf_member *member;

    if (index >= SIM_NODES)
        return;
    member = hf_cluster_member(hf_decide_view(n->decide).cluster, a->id);
    if (a->ok && member != NULL)
        m.uuid = member->uuid;
    host_send(n, W->nodes[index].name, &m);
}

void host_perform(struct node *n, const struct hf_action *a)
{
    struct life *l;

    switch (a->type) {
    case HF_ACT_SEND: {
        struct node *to = host_of_id(a->msg.to);
        if (a->msg.type == HF_MSG_REPORT && a->msg.epoch > n->reported_term)
            n->reported_term = a->msg.epoch;
        if (to != NULL)
            host_send(n, to->name, &a->msg);
        break;
    }
    case HF_ACT_RAFT_BARRIER:
    case HF_ACT_TRANSFER:
    case HF_ACT_RAFT_ADD:
    case HF_ACT_RAFT_ROLE:
    case HF_ACT_RAFT_REMOVE:
        host_raft_request(n, a);
        break;
    case HF_ACT_PROPOSE:
        host_propose(n, &a->entry);
        break;
    case HF_ACT_HINT:
        sim_raft_hint(n, a->ok);
        break;
    case HF_ACT_PERSIST:
        host_persist(n, &a->durable, a->seq, false);
        break;
    case HF_ACT_WORK:
        sim_say(n, "work %d begins", (int)a->work);
        pg_work(n, a);
        break;
    case HF_ACT_INTERRUPT:
        sim_say(n, "work is interrupted");
        if (!trap_interrupt(n))
            pg_interrupt(n);
        break;
    case HF_ACT_WRITE:
        pg_write(n, a);
        break;
    case HF_ACT_GATE_OPEN:
        n->gate_epoch = a->epoch;
        n->draining = false;
        results_pass(n);
        break;
    case HF_ACT_GATE_DRAIN:
        n->draining = true;
        host_later(n, sim_between(1 * MS, 50 * MS), &(struct hf_event){.type = HF_EV_DRAINED});
        break;
    case HF_ACT_GATE_SHUT:
        /* The router's threads take a moment: until they confirm, results still pass. */
        host_later(n, 0, &(struct hf_event){.type = HF_EV_TICK});
        n->gate_epoch = 0;
        host_later(n, sim_between(10 * US, 5 * MS), &(struct hf_event){.type = HF_EV_GATE_SHUT});
        break;
    case HF_ACT_LEASE:
        n->deadline_ns = a->deadline_ns;
        results_pass(n);
        break;
    case HF_ACT_STREAM_OPEN:
        n->relay_open = true;
        n->relay_epoch = a->epoch;
        n->relay_leader = a->id;
        n->relay_position = a->position;
        host_dial(n);
        break;
    case HF_ACT_STREAM_CLOSE:
        n->relay_open = false;
        pg_streams_cut(-1, n->index);
        host_later(n, sim_between(10 * US, 2 * MS), &(struct hf_event){.type = HF_EV_STREAM_CLOSED});
        break;
    case HF_ACT_STREAM_ADMIT:
        host_admit(n, a);
        break;
    case HF_ACT_STREAM_REFUSE:
        break;
    case HF_ACT_STREAM_CUT:
        pg_streams_cut(n->index, -1);
        break;
    case HF_ACT_JOINED:
        joined(n, a);
        break;
    case HF_ACT_ANSWER:
        sim_say(n, "answer: %s", a->text);
        break;
    case HF_ACT_EXIT:
        l = calloc(1, sizeof *l);
        *l = (struct life){n, n->life};
        sim_after(0, exit_run, l);
        break;
    case HF_ACT_PHASE:
        sim_say(n, "%s epoch=%llu", a->text, (unsigned long long)a->epoch);
        break;
    }
}
