/* Whose turn it is: sessions and server connections come together. */
#include "router/share.h"

#include <assert.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>

#include "base/log.h"
#include "router/login.h"
#include "router/share_private.h"

static uint64_t now_ms(const struct hf_thread *t)
{
    return uv_now(&t->loop);
}

static void lock(struct hf_router *r)
{
    uv_mutex_lock(&r->pools_lock);
}

static void unlock(struct hf_router *r)
{
    uv_mutex_unlock(&r->pools_lock);
}

/* -- who comes next ----------------------------------------------------------------------------------- */

static void arrived(struct hf_wait *w);

static void arrived_run(void *arg)
{
    struct hf_wait *w = arg;

    uv_update_time(&w->t->loop);
    arrived(w);
}

/* With the lock: that keeps its thread from ending meanwhile. From thread `from`, whose the connection is. */
static void deliver(struct hf_thread *from, struct hf_wait *w)
{
    if (w->t == from) {
        w->next = NULL;
        *from->granted_end = w;
        from->granted_end = &w->next;
        return;
    }
    if (w->t->ended) { /* its session is gone */
        hf_pool_give(&from->r->pools, w->pool, now_ms(from));
        hf_pool_unref(&from->r->pools, w->pool);
        hf_server_close(from->r, &w->server);
        free(w);
        return;
    }
    if (w->server.end != NULL)
        w->server.fd = hf_end_take(w->server.end);
    w->server.end = NULL;
    hf_mailbox_post(w->t->mailbox, arrived_run, w);
}

/* With the lock: a place is free. Those may have it who would make a connection of their own. */
void hf_share_grow(struct hf_thread *t, struct hf_pool *p)
{
    struct hf_waiter *w;

    while (!t->stopping && (w = hf_pool_grow(&t->r->pools, p, t->index, now_ms(t))) != NULL)
        deliver(t, (struct hf_wait *)w);
    hf_share_grow_at(t, hf_pool_due_ms(p));
}

/* A place, with a connection or without, that is nobody's now. */
static void pass_on(struct hf_thread *t, struct hf_pool *p, struct hf_server *v)
{
    struct hf_router *r = t->r;
    struct hf_wait *w = NULL;

    lock(r);
    if (!t->stopping && (v->end != NULL || v->fd >= 0))
        w = (struct hf_wait *)hf_pool_next(&r->pools, p, t->index, now_ms(t));
    if (w != NULL) {
        w->server = *v;
        w->has_server = true;
        deliver(t, w);
    } else {
        hf_pool_give(&r->pools, p, now_ms(t));
        hf_share_grow(t, p);
    }
    unlock(r);
    if (w == NULL)
        hf_server_close(r, v);
}

/* On the waiting one's thread. */
static void arrived(struct hf_wait *w)
{
    struct hf_session *s = w->s;
    struct hf_thread *t = w->t;
    struct hf_pool *pool = w->pool;

    if (s == NULL) { /* it has gone meanwhile */
        pass_on(t, pool, &w->server);
    } else {
        assert(s->state == HF_SESSION_QUEUED && s->share->wait == w);
        atomic_fetch_add(&t->r->share_waits, 1);
        atomic_fetch_add(&t->r->share_waited_ms, now_ms(t) - w->waiter.since_ms);
        s->share->wait = NULL;
        s->share->placed = true;
        t->n_queued--;
        if (w->has_server)
            hf_share_take(s, &w->server);
        else
            hf_share_open(s);
    }
    lock(t->r);
    hf_pool_unref(&t->r->pools, pool);
    unlock(t->r);
    free(w);
    hf_share_set_timer(t);
}

void hf_share_turn(struct hf_thread *t)
{
    struct hf_wait *w;

    while ((w = t->granted_first) != NULL) {
        t->granted_first = w->next;
        if (t->granted_first == NULL)
            t->granted_end = &t->granted_first;
        arrived(w);
    }
}

/* -- in line -------------------------------------------------------------------------------------------- */

static void poke_run(void *arg)
{
    struct hf_thread *t = arg;
    struct hf_session *behind;

    uv_update_time(&t->loop);
    for (struct hf_session *s = t->resting_first; s != NULL; s = behind) {
        behind = s->share->behind;
        hf_share_settle(s);
    }
    hf_share_turn(t);
}

/* With the lock: somebody has begun to wait, for what others may give. */
static void poke(struct hf_router *r, struct hf_pool *p)
{
    for (unsigned i = 0; i < r->n_threads; i++)
        if (atomic_load(&p->idle[i]) > 0 && !r->threads[i].ended)
            hf_mailbox_post(r->threads[i].mailbox, poke_run, &r->threads[i]);
}

/* With the lock: it counts as one of the pool's users. */
static struct hf_wait *wait_new(struct hf_session *s)
{
    struct hf_wait *w = calloc(1, sizeof *w);

    if (w == NULL)
        return NULL;
    w->t = s->t;
    w->s = s;
    w->pool = s->share->pool;
    w->server.fd = -1;
    s->share->pool->refs++;
    return w;
}

static void queued(struct hf_session *s, struct hf_wait *w)
{
    s->share->wait = w;
    s->t->n_queued++;
    hf_session_queue(s);
    hf_share_set_timer(s->t);
}

void hf_share_wants(struct hf_session *s)
{
    if (s->share != NULL)
        s->share->wanted_ms = now_ms(s->t);
}

/* True: it has a place, and is to make a connection. Else it has one, waits, or is over. */
static bool want(struct hf_session *s)
{
    struct hf_thread *t = s->t;
    struct hf_router *r = t->r;
    struct hf_pool *p = s->share->pool;
    struct hf_session *victim;
    struct hf_wait *w;
    struct hf_server v;

    hf_share_wants(s);
    lock(r);
    s->share->own = hf_pool_take(&r->pools, p, now_ms(t));
    if (s->share->own) {
        s->share->placed = true;
        unlock(r);
        return true;
    }
    victim = atomic_load(&p->n_waiting) == 0 ? hf_share_victim(s) : NULL;
    if (victim != NULL) { /* its place, too */
        unlock(r);
        (void)hf_share_give(victim, &v);
        s->share->placed = true;
        hf_share_take(s, &v);
        return false;
    }
    w = wait_new(s);
    if (w != NULL) {
        hf_pool_wait(&r->pools, p, &w->waiter, t->index, now_ms(t));
        hf_share_grow_at(t, hf_pool_due_ms(p));
        poke(r, p);
    }
    unlock(r);
    if (w != NULL)
        queued(s, w);
    else
        hf_session_refuse(s, "53200", "out of memory", NULL);
    return false;
}

void hf_share_leave_line(struct hf_session *s)
{
    struct hf_router *r = s->t->r;
    struct hf_wait *w = s->share->wait;

    s->share->wait = NULL;
    if (w == NULL)
        return;
    s->t->n_queued--;
    w->s = NULL;
    lock(r);
    if (w->waiter.pool != NULL) {
        hf_pool_leave(&r->pools, &w->waiter);
        hf_pool_unref(&r->pools, s->share->pool);
        free(w);
    } /* else it is on its way, and goes back (arrived) */
    unlock(r);
}

/* -- a session's life --------------------------------------------------------------------------------- */

/* Who logs in as what: the packet, the keys, and what PostgreSQL knows about roles and their settings. */
static struct hf_print base_of(const struct hf_session *s)
{
    struct hf_print parts[3] = {hf_print_of(s->t->r->share_secret, s->first, s->first_len),
                                hf_print_of(s->t->r->share_secret, &s->keys, sizeof s->keys),
                                hf_print_of(s->t->r->share_secret, &s->stamp, sizeof s->stamp)};

    return hf_print_of(s->t->r->share_secret, parts, sizeof parts);
}

static bool join(struct hf_session *s)
{
    const char *user = hf_startup_value(s->first, s->first_len, "user");
    const char *database = hf_startup_value(s->first, s->first_len, "database");
    char key[2 * HF_STARTUP_MAX];
    size_t n = strlen(user) + 1;

    if (database == NULL || database[0] == '\0')
        database = user;
    memcpy(key, user, n);
    memcpy(key + n, database, strlen(database));
    s->share = calloc(1, sizeof *s->share);
    if (s->share == NULL)
        return false;
    s->share->woken_by = 1;
    s->share->base = base_of(s);
    lock(s->t->r);
    s->share->pool = hf_pool_get(&s->t->r->pools, key, n + strlen(database));
    unlock(s->t->r);
    if (s->share->pool != NULL)
        return true;
    free(s->share);
    s->share = NULL;
    return false;
}

bool hf_share_begin(struct hf_session *s)
{
    if (!s->t->r->share || s->from_tunnel || s->cancel || s->read_only || s->stamp == 0)
        return false;
    hf_dialogue_init(&s->dialogue);
    hf_survive_begin(s);
    if (s->survive == NULL || !join(s))
        return false;
    hf_dialogue_settle(&s->dialogue, 'I');
    s->survive->moving = true;
    return !want(s);
}

/* POOLED: less than so many bytes of the client's wake nobody, or hardly ever. */
static void be_woken_by(struct hf_session *s, int bytes)
{
    if (s->share->woken_by == bytes)
        return;
    s->share->woken_by = bytes;
    (void)setsockopt(s->front->fd, SOL_SOCKET, SO_RCVLOWAT, &bytes, sizeof bytes);
}

void hf_share_serve(struct hf_session *s)
{
    be_woken_by(s, 1);
    s->share->spoken = true;
    if (want(s))
        hf_share_open(s);
}

void hf_share_event(struct hf_session *s)
{
    enum { HEAD = 5 };
    struct hf_share *sh = s->share;
    ssize_t n;

    if (hf_survive_is_filtering(s)) {
        hf_share_answer_cancelled(s);
        return;
    }
    n = hf_front_peek(s, sh->head, sizeof sh->head);
    sh->head_len = n > 0 ? (unsigned)n : 0;
    if (n < 0 || (n > 0 && sh->head[0] == 'X')) {
        hf_session_close(s);
    } else if (n == 0) {
        hf_end_want(s->front, hf_front_events(s, UV_READABLE));
    } else if (n < HEAD && s->tls == NULL && sh->woken_by != HEAD) {
        be_woken_by(s, HEAD); /* that takes no connection. Of TLS, a record is looked at, and no further */
        hf_end_want(s->front, UV_READABLE | UV_DISCONNECT);
    } else {
        hf_share_serve(s);
    }
}

void hf_share_heard(struct hf_session *s)
{
    if (s->share == NULL)
        return;
    s->share->spoken = false;
    s->share->head_len = 0;
}

bool hf_share_is_due(const struct hf_session *s)
{
    return s->share != NULL && atomic_load(&s->share->pool->n_waiting) > 0 && hf_share_may_give(s);
}

/* To whose turn it is. False: nobody waits any more. */
static bool release(struct hf_session *s)
{
    struct hf_router *r = s->t->r;
    struct hf_wait *w;

    lock(r);
    w = (struct hf_wait *)hf_pool_next(&r->pools, s->share->pool, s->t->index, now_ms(s->t));
    if (w == NULL) {
        unlock(r);
        return false;
    }
    w->has_server = hf_share_give(s, &w->server);
    deliver(s->t, w);
    unlock(r);
    return true;
}

void hf_share_settle(struct hf_session *s)
{
    struct hf_share *sh = s->share;
    struct hf_thread *t = s->t;

    if (sh == NULL || !sh->placed)
        return;
    if (!hf_share_may_give(s)) {
        hf_share_unrest(s);
        return;
    }
    if (t->draining && s->kind == HF_KIND_GATE)
        return; /* it is to leave soon */
    if (!sh->resting) {
        sh->resting = true;
        sh->resting_ms = now_ms(t);
        sh->before = t->resting_last;
        sh->behind = NULL;
        *(t->resting_last != NULL ? &t->resting_last->share->behind : &t->resting_first) = s;
        t->resting_last = s;
        hf_share_set_timer(t);
        /* First this, then a look at who waits; who begins to wait does it the other way round (want). */
        atomic_fetch_add(&sh->pool->idle[t->index], 1);
    }
    if (atomic_load(&sh->pool->n_waiting) > 0)
        (void)release(s);
}

/* Its place, without a connection. */
static void vacate(struct hf_session *s)
{
    struct hf_router *r = s->t->r;

    hf_share_unrest(s);
    if (!s->share->placed)
        return;
    s->share->placed = false;
    lock(r);
    hf_pool_give(&r->pools, s->share->pool, now_ms(s->t));
    hf_share_grow(s->t, s->share->pool);
    unlock(r);
}

void hf_share_give_up(struct hf_session *s)
{
    (void)hf_share_unpoint(s);
    s->survive->secret = (struct hf_secret){0};
    s->survive->moving = s->survive->failed = false;
    hf_login_free(s);
    hf_holds_give(s->holds);
    vacate(s);
    hf_session_rest(s);
}

bool hf_share_rest(struct hf_session *s)
{
    if (s->share == NULL || !s->share->let_in)
        return false;
    hf_share_give_up(s);
    if (s->share->spoken)
        hf_share_serve(s);
    return true;
}

void hf_share_is_let_in(struct hf_session *s)
{
    struct hf_router *r = s->t->r;
    const char *held;

    if (s->share == NULL || !s->share->placed)
        return;
    held = hf_params_get(&s->survive->fresh, HF_HOLDS_PARAMETER);
    s->share->set_by_login = held != NULL && strstr(held, "setting:") != NULL;
    lock(r);
    hf_pool_made(s->share->pool);
    hf_share_grow(s->t, s->share->pool);
    unlock(r);
}

bool hf_share_is_refused(struct hf_session *s)
{
    struct hf_router *r = s->t->r;
    struct hf_wait *w;
    bool waits;

    if (s->share == NULL || !s->share->placed)
        return false;
    lock(r);
    w = wait_new(s);
    waits = w != NULL && hf_pool_refuse(&r->pools, s->share->pool, &w->waiter, s->t->index, !s->share->own, s->share->wanted_ms, now_ms(s->t));
    if (waits) {
        poke(r, s->share->pool);
        hf_share_grow(s->t, s->share->pool);
    } else if (w != NULL) {
        hf_pool_unref(&r->pools, s->share->pool);
    }
    unlock(r);
    if (!waits) {
        free(w);
        return false;
    }
    s->share->placed = s->share->own = false;
    queued(s, w);
    return true;
}

void hf_share_leave(struct hf_session *s)
{
    if (s->share == NULL)
        return;
    if (!s->t->stopping && hf_share_is_due(s))
        (void)release(s);
    vacate(s);
    hf_share_leave_line(s);
}

void hf_share_free(struct hf_session *s)
{
    if (s->share == NULL)
        return;
    assert(!s->share->placed && !s->share->resting && s->share->wait == NULL);
    lock(s->t->r);
    hf_pool_unref(&s->t->r->pools, s->share->pool);
    unlock(s->t->r);
    free(s->share);
    s->share = NULL;
}
