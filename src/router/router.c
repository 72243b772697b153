#include "router/router.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/net.h"
#include "router/session.h"

enum { TIMER_MS = 10, ACCEPTS_PER_TURN = 64, HOLD_MS = 10000, SESSIONS = 1000 };

static void *must(void *p)
{
    if (p == NULL)
        abort(); /* our own threads must hear from each other */
    return p;
}

/* -- orders to the threads, and their answers ---------------------------------------------------------------- */

struct order {
    struct thread *t;
    int fd;
    bool flag;
    struct round *round;
};

/* Something every thread confirms. */
struct round {
    struct hf_router *r;
    unsigned left;
    void (*done)(void *ctx);
};

static void round_confirm(void *arg)
{
    struct round *c = arg;

    if (--c->left > 0)
        return;
    if (!c->r->closing && c->done != NULL)
        c->done(c->r->callbacks.ctx);
    free(c);
}

static void each_thread(struct hf_router *r, hf_mailbox_fn fn, void (*done)(void *ctx))
{
    struct round *c = must(calloc(1, sizeof *c));

    *c = (struct round){r, HF_ROUTER_THREADS, done};
    for (int i = 0; i < HF_ROUTER_THREADS; i++) {
        struct order *o = must(calloc(1, sizeof *o));
        *o = (struct order){.t = &r->threads[i], .fd = -1, .round = c};
        hf_mailbox_post(r->threads[i].mailbox, fn, o);
    }
}

static void order_end(struct order *o)
{
    hf_mailbox_post(o->t->r->control, round_confirm, o->round);
    free(o);
}

/* -- gate ---------------------------------------------------------------------------------------------------- */

static void opened_run(void *arg)
{
    struct order *o = arg;

    o->t->draining = false;
    hf_session_timer(o->t); /* whoever waits goes on now */
    order_end(o);
}

void hf_router_gate_open(struct hf_router *r, uint64_t epoch)
{
    atomic_store(&r->draining, false);
    atomic_store(&r->gate_epoch, epoch);
    each_thread(r, opened_run, NULL);
}

void hf_thread_check_drained(struct thread *t)
{
    if (!t->draining || t->drained_told)
        return;
    for (const struct session *s = t->sessions; s != NULL; s = s->next)
        if (hf_session_is_busy(s))
            return;
    t->drained_told = true;
}

static void drain_wait(void *arg);

static void drain_run(void *arg)
{
    struct order *o = arg;
    struct thread *t = o->t;

    t->draining = true;
    t->drained_told = false;
    for (struct session *s = t->sessions, *next; s != NULL; s = next) {
        next = s->next;
        hf_session_move(s);
    }
    drain_wait(o);
}

static void drain_timer(uv_timer_t *timer)
{
    struct order *o = timer->data;

    uv_close((uv_handle_t *)timer, (uv_close_cb)free);
    drain_wait(o);
}

/* Asked again every few milliseconds: a drain lasts for the length of a transaction. */
static void drain_wait(void *arg)
{
    struct order *o = arg;
    uv_timer_t *timer;

    hf_thread_check_drained(o->t);
    if (o->t->drained_told || !o->t->draining || o->t->stopping) {
        order_end(o);
        return;
    }
    timer = must(calloc(1, sizeof *timer));
    (void)uv_timer_init(&o->t->loop, timer);
    timer->data = o;
    (void)uv_timer_start(timer, drain_timer, 2, 0);
}

void hf_router_gate_drain(struct hf_router *r)
{
    atomic_store(&r->draining, true);
    each_thread(r, drain_run, r->callbacks.on_drained);
}

static void shut_run(void *arg)
{
    struct order *o = arg;

    o->t->draining = false;
    for (struct session *s = o->t->sessions, *next; s != NULL; s = next) {
        next = s->next;
        if (!s->gated || s->state != SESSION_PIPE)
            continue;
        if (hf_session_is_busy(s))
            hf_session_close(s); /* its outcome is unknown, and nothing may be said about it */
        else
            hf_session_refuse(s, "57P01", "the leader has changed: connect again", NULL);
    }
    order_end(o);
}

void hf_router_gate_shut(struct hf_router *r)
{
    atomic_store(&r->gate_epoch, 0);
    atomic_store(&r->draining, false);
    atomic_store(&r->lease_deadline_ns, 0);
    each_thread(r, shut_run, r->callbacks.on_shut);
}

void hf_router_lease(struct hf_router *r, uint64_t deadline_ns)
{
    atomic_store(&r->lease_deadline_ns, deadline_ns);
}

bool hf_router_gate_is_open(const struct hf_router *r)
{
    return atomic_load(&r->gate_epoch) != 0 && !atomic_load(&r->draining);
}

/* -- leader and readers -------------------------------------------------------------------------------------- */

static void look_run(void *arg)
{
    struct order *o = arg;

    for (struct session *s = o->t->sessions; s != NULL; s = s->next)
        s->retry_ms = 0;
    hf_session_timer(o->t);
    order_end(o);
}

void hf_router_leader(struct hf_router *r, enum hf_leader_at where)
{
    if (atomic_exchange(&r->leader, (int)where) != (int)where)
        each_thread(r, look_run, NULL);
}

static void readers_run(void *arg)
{
    struct order *o = arg;

    for (struct session *s = o->t->sessions, *next; s != NULL; s = next) {
        next = s->next;
        if (s->reader)
            hf_session_refuse(s, "57P01", "this node is no follower any more: connect again", NULL);
    }
    order_end(o);
}

void hf_router_follower_readable(struct hf_router *r, bool yes)
{
    atomic_store(&r->readable, yes);
    if (yes)
        each_thread(r, look_run, NULL);
    else
        each_thread(r, readers_run, r->callbacks.on_readers_gone);
}

/* -- connections --------------------------------------------------------------------------------------------- */

static void serve_run(void *arg)
{
    struct order *o = arg;

    hf_session_accept(o->t, o->fd, false, true);
    free(o);
}

void hf_router_serve(struct hf_router *r, int fd)
{
    struct order *o = must(calloc(1, sizeof *o));

    *o = (struct order){.t = &r->threads[(unsigned)fd % HF_ROUTER_THREADS], .fd = fd};
    hf_mailbox_post(o->t->mailbox, serve_run, o);
}

static void accept_run(void *arg)
{
    struct order *o = arg;

    hf_session_accept(o->t, o->fd, o->flag, false);
    free(o);
}

static void listen_cb(uv_poll_t *poll, int status, int events)
{
    struct listener *l = poll->data;

    (void)status;
    (void)events;
    for (int i = 0; i < ACCEPTS_PER_TURN; i++) {
        int fd = accept4(l->fd, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC);
        struct order *o;
        if (fd < 0)
            return;
        o = must(calloc(1, sizeof *o));
        *o = (struct order){
            .t = &l->r->threads[(unsigned)fd % HF_ROUTER_THREADS], .fd = fd, .flag = l->read_only};
        hf_mailbox_post(o->t->mailbox, accept_run, o);
    }
}

static void dialed_run(void *arg)
{
    struct hf_router_dial *d = arg;

    if (d->s != NULL)
        hf_session_dialed(d->s, d->ok);
    free(d);
}

void hf_router_dialed(struct hf_router_dial *d, bool ok)
{
    d->ok = ok;
    hf_mailbox_post(d->t->mailbox, dialed_run, d);
}

struct hf_router_counts hf_router_counts(const struct hf_router *r)
{
    return (struct hf_router_counts){atomic_load(&r->n_sessions), atomic_load(&r->n_held),
                                     atomic_load(&r->n_lease_held),
                                     atomic_load(&r->n_cancels_refused)};
}

/* -- life ---------------------------------------------------------------------------------------------------- */

static void timer_cb(uv_timer_t *timer)
{
    hf_session_timer(timer->data);
}

static void thread_main(void *arg)
{
    struct thread *t = arg;

    (void)uv_run(&t->loop, UV_RUN_DEFAULT);
}

static int thread_open(struct hf_router *r, struct thread *t)
{
    t->r = r;
    if (uv_loop_init(&t->loop) != 0)
        return HF_ENOMEM;
    t->mailbox = must(hf_mailbox_open(&t->loop));
    (void)uv_timer_init(&t->loop, &t->timer);
    t->timer.data = t;
    (void)uv_timer_start(&t->timer, timer_cb, TIMER_MS, TIMER_MS);
    return uv_thread_create(&t->id, thread_main, t) == 0 ? 0 : HF_EIO;
}

static int listen_on(struct hf_router *r, uv_loop_t *loop, struct listener *l, const char *addr,
                     bool read_only, struct hf_error *err)
{
    l->r = r;
    l->read_only = read_only;
    l->fd = hf_net_listen(addr, err);
    if (l->fd < 0)
        return l->fd;
    if (uv_poll_init(loop, &l->poll, l->fd) != 0)
        return hf_fail(err, HF_EIO, "cannot poll %s", addr);
    l->poll.data = l;
    return uv_poll_start(&l->poll, UV_READABLE, listen_cb) == 0 ? 0 : HF_EIO;
}

int hf_router_open(struct hf_router **out, uv_loop_t *loop, const struct hf_router_config *config,
                   const struct hf_router_callbacks *callbacks, struct hf_error *err)
{
    struct hf_router *r = calloc(1, sizeof *r);
    int rv = 0;

    if (r == NULL)
        return hf_fail(err, HF_ENOMEM, "router: out of memory");
    r->callbacks = *callbacks;
    r->hold_ms = config->hold_ms != 0 ? config->hold_ms : HOLD_MS;
    r->max_sessions = config->max_sessions != 0 ? config->max_sessions : SESSIONS;
    (void)snprintf(r->socket_dir, sizeof r->socket_dir, "%s", config->socket_dir);
    if ((size_t)snprintf(r->socket_path, sizeof r->socket_path, "%s/.s.PGSQL.5432",
                         config->socket_dir) >= sizeof r->socket_path)
        rv = hf_fail(err, HF_EINVAL, "the path of %s is too long for a socket", config->socket_dir);
    r->control = must(hf_mailbox_open(loop));
    if (uv_mutex_init(&r->keys_mutex) != 0)
        abort();
    if (rv == 0)
        rv = listen_on(r, loop, &r->listeners[0], config->sql, false, err);
    if (rv == 0)
        rv = listen_on(r, loop, &r->listeners[1], config->read_only, true, err);
    for (int i = 0; i < HF_ROUTER_THREADS && rv == 0; i++)
        rv = thread_open(r, &r->threads[i]);
    *out = r;
    return rv; /* on failure the process ends: nothing is taken down piece by piece */
}

static void stop_run(void *arg)
{
    struct thread *t = arg;

    t->stopping = true;
    while (t->sessions != NULL)
        hf_session_refuse(t->sessions, "57P01", "this node is being stopped: connect to another", NULL);
    uv_close((uv_handle_t *)&t->timer, NULL);
    hf_mailbox_close(t->mailbox);
}

void hf_router_close(struct hf_router *r)
{
    r->closing = true;
    for (int i = 0; i < 2; i++) {
        uv_close((uv_handle_t *)&r->listeners[i].poll, NULL);
        close(r->listeners[i].fd);
    }
    atomic_store(&r->gate_epoch, 0);
    for (int i = 0; i < HF_ROUTER_THREADS; i++)
        hf_mailbox_post(r->threads[i].mailbox, stop_run, &r->threads[i]);
    for (int i = 0; i < HF_ROUTER_THREADS; i++)
        (void)uv_thread_join(&r->threads[i].id);
    hf_mailbox_close(r->control);
}
