/* What the control loop tells the threads, and what they confirm. */
#include <assert.h>
#include <stdlib.h>

#include "router/session.h"
#include "router/survive.h"

/* Something that every thread is told; `done` runs on the control loop once all have confirmed. */
struct hf_round {
    struct hf_router *r;
    void (*done)(struct hf_round *c); /* may be NULL */
    unsigned left;
    unsigned drain; /* which drain it belongs to */
};

struct order {
    struct hf_thread *t;
    struct hf_round *round; /* NULL: nobody waits for it */
};

static void *must(void *p)
{
    if (p == NULL)
        abort(); /* our own threads must hear from each other */
    return p;
}

static void confirm_run(void *arg)
{
    struct hf_round *c = arg;

    assert(c->left > 0);
    if (--c->left > 0)
        return;
    if (!c->r->closing && c->done != NULL)
        c->done(c);
    free(c);
}

static void confirm(struct hf_round *c)
{
    if (c != NULL)
        hf_mailbox_post(c->r->control, confirm_run, c);
}

static void each_thread(struct hf_router *r, hf_mailbox_fn fn, struct hf_round *round)
{
    for (unsigned i = 0; i < r->n_threads; i++) {
        struct order *o = must(calloc(1, sizeof *o));
        *o = (struct order){&r->threads[i], round};
        hf_mailbox_post(o->t->mailbox, fn, o);
    }
}

static struct hf_round *round_new(struct hf_router *r, void (*done)(struct hf_round *c))
{
    struct hf_round *c = must(calloc(1, sizeof *c));

    *c = (struct hf_round){.r = r, .done = done, .left = r->n_threads, .drain = r->drains};
    return c;
}

/* -- open ---------------------------------------------------------------------------------- */

static void look_run(void *arg)
{
    struct order *o = arg;

    hf_session_look(o->t, true);
    free(o);
}

void hf_thread_wake(struct hf_router *r)
{
    each_thread(r, look_run, NULL);
}

static void opened_run(void *arg)
{
    struct order *o = arg;
    struct hf_thread *t = o->t;

    free(o);
    if (t->draining && atomic_load(&t->r->opening) != 0 && !atomic_load(&t->r->draining)) {
        t->draining = false; /* those it paused go on */
        confirm(t->drain);
        t->drain = NULL;
        for (struct hf_session *s = t->sessions, *next; s != NULL; s = next) {
            next = s->next;
            hf_session_move(s);
        }
    }
    hf_session_look(t, true);
}

void hf_router_gate_open(struct hf_router *r, uint64_t epoch)
{
    assert(epoch > 0);
    r->drains++; /* a drain that is under way has no more to report */
    atomic_store(&r->draining, false);
    if (atomic_load(&r->opening) == 0 || r->gate_epoch != epoch)
        atomic_store(&r->opening, ++r->openings);
    r->gate_epoch = epoch;
    each_thread(r, opened_run, NULL);
}

void hf_router_lease(struct hf_router *r, uint64_t deadline_ns)
{
    atomic_store(&r->lease_deadline_ns, deadline_ns);
    if (atomic_load(&r->n_lease_held) > 0)
        hf_thread_wake(r);
}

bool hf_router_gate_is_open(const struct hf_router *r)
{
    return atomic_load(&r->opening) != 0 && !atomic_load(&r->draining);
}

/* -- drain --------------------------------------------------------------------------------- */

void hf_thread_check_drained(struct hf_thread *t)
{
    if (t->drain == NULL)
        return;
    for (const struct hf_session *s = t->sessions; s != NULL; s = s->next)
        if (hf_session_is_busy(s))
            return;
    confirm(t->drain);
    t->drain = NULL;
}

static void drain_run(void *arg)
{
    struct order *o = arg;
    struct hf_thread *t = o->t;

    confirm(t->drain); /* an older one: its number is out of date */
    t->drain = NULL;
    t->draining = true;
    for (struct hf_session *s = t->sessions, *next; s != NULL; s = next) {
        next = s->next;
        hf_session_move(s);
    }
    t->drain = o->round;
    free(o);
    hf_thread_check_drained(t);
}

static void drained(struct hf_round *c)
{
    struct hf_router *r = c->r;

    if (c->drain == r->drains && r->callbacks.on_drained != NULL)
        r->callbacks.on_drained(r->callbacks.ctx);
}

void hf_router_gate_drain(struct hf_router *r)
{
    atomic_store(&r->draining, true);
    r->drains++;
    each_thread(r, drain_run, round_new(r, drained));
}

/* -- shut ---------------------------------------------------------------------------------- */

static void shut_one(struct hf_session *s)
{
    if (s->state != HF_SESSION_PIPE || s->kind != HF_KIND_GATE ||
        s->opening == atomic_load(&s->t->r->opening))
        return;
    if (hf_session_rehold(s))
        return;
    if (s->from_tunnel && (s->t->r->follow || !s->answered))
        hf_session_leave(s); /* the other node's router waits for the next leader */
    else if (!hf_survive_loss(s))
        hf_session_refuse(s, "57P01", "the leader has changed", "Connect again.");
}

static void shut_run(void *arg)
{
    struct order *o = arg;
    struct hf_thread *t = o->t;

    for (struct hf_session *s = t->sessions, *next; s != NULL; s = next) {
        next = s->next;
        shut_one(s);
    }
    t->draining = false;
    confirm(t->drain);
    t->drain = NULL;
    confirm(o->round);
    free(o);
}

static void shut(struct hf_round *c)
{
    if (c->r->callbacks.on_shut != NULL)
        c->r->callbacks.on_shut(c->r->callbacks.ctx);
}

void hf_router_gate_shut(struct hf_router *r)
{
    atomic_store(&r->opening, 0);
    atomic_store(&r->lease_deadline_ns, 0);
    atomic_store(&r->draining, false);
    r->drains++;
    each_thread(r, shut_run, round_new(r, shut));
}

/* -- leader and readers -------------------------------------------------------------------- */

static void leader_run(void *arg)
{
    struct order *o = arg;
    struct hf_thread *t = o->t;
    uint64_t epoch = atomic_load(&t->r->leader_epoch);

    free(o);
    for (struct hf_session *s = t->sessions, *next; s != NULL; s = next) {
        next = s->next;
        if (s->leader_epoch >= epoch)
            continue;
        if (s->state == HF_SESSION_DIALING || (s->state == HF_SESSION_ASKING && s->back != NULL))
            hf_session_hold(s);
        if (s->state == HF_SESSION_PIPE && s->kind == HF_KIND_TUNNEL) {
            hf_end_look(s->back); /* the gate may have had a last word */
            hf_session_move(s);
        }
        if (s->state == HF_SESSION_PIPE && s->kind == HF_KIND_TUNNEL && s->leader_epoch < epoch && !hf_session_rehold(s) &&
            !hf_survive_loss(s))
            hf_session_refuse(s, "57P01", "the leader has changed", "Connect again.");
    }
    hf_session_look(t, true);
}

void hf_router_leader(struct hf_router *r, enum hf_leader_at where, uint64_t epoch)
{
    bool same = atomic_load(&r->leader) == (int)where && atomic_load(&r->leader_epoch) == epoch;

    if (same)
        return;
    atomic_store(&r->leader_epoch, epoch);
    atomic_store(&r->leader, (int)where);
    each_thread(r, leader_run, NULL);
}

static void readers_run(void *arg)
{
    struct order *o = arg;

    for (struct hf_session *s = o->t->sessions, *next; s != NULL; s = next) {
        next = s->next;
        if (s->state != HF_SESSION_PIPE || s->kind != HF_KIND_READER)
            continue;
        if (s->from_tunnel && s->t->r->follow)
            hf_session_close(s); /* the other node's router looks for another follower */
        else if (!hf_session_rehold(s) && !hf_survive_loss(s))
            hf_session_refuse(s, "57P01", "this node is no follower any more", "Connect again.");
    }
    confirm(o->round);
    free(o);
}

static void readers_gone(struct hf_round *c)
{
    if (c->r->callbacks.on_readers_gone != NULL)
        c->r->callbacks.on_readers_gone(c->r->callbacks.ctx);
}

void hf_router_follower_readable(struct hf_router *r, bool yes)
{
    atomic_store(&r->readable, yes);
    if (!yes)
        hf_fresh_over(r->freshness);
    if (yes) {
        hf_thread_wake(r);
        hf_asker_prepare(r->asker);
    } else {
        each_thread(r, readers_run, round_new(r, readers_gone));
    }
}

void hf_router_follower_behind(struct hf_router *r, bool yes)
{
    if (atomic_exchange(&r->behind, yes) && !yes)
        hf_thread_wake(r);
}

void hf_router_followers(struct hf_router *r, unsigned n, unsigned all)
{
    atomic_store(&r->followers, n);
    atomic_store(&r->followers_all, all);
}

void hf_router_read_asked(struct hf_router *r, uint64_t from, uint64_t epoch, uint64_t seq, uint64_t sent_ns)
{
    uint64_t opening = atomic_load(&r->opening);

    if (opening != 0 && r->gate_epoch == epoch)
        hf_fresh_asked(r->freshness, opening, from, epoch, seq, sent_ns);
}

void hf_router_read_told(struct hf_router *r, uint64_t seq, uint64_t lsn)
{
    if (atomic_load(&r->readable))
        hf_fresh_told(r->freshness, seq, lsn);
}
