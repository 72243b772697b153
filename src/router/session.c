/* From the first byte of a client to two connected ends, and its end. */
#include "router/session.h"

#include <assert.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include <openssl/crypto.h>

#include "base/log.h"
#include "base/net.h"
#include "router/login.h"
#include "router/share.h"
#include "router/survive.h"

enum {
    RETRY_MS = 20,
    LINGER_MS = 1000,
};

static uint64_t now_ms(const struct hf_session *s)
{
    return uv_now(&s->t->loop);
}

/* -- states -------------------------------------------------------------------------------- */

static bool is_waiting(enum hf_session_state state)
{
    return state != HF_SESSION_PIPE && state != HF_SESSION_CLOSED && state != HF_SESSION_POOLED && state != HF_SESSION_QUEUED;
}

static bool is_held(enum hf_session_state state)
{
    return state == HF_SESSION_HELD || state == HF_SESSION_DIALING;
}

static void timer_cb(uv_timer_t *timer)
{
    hf_session_look(timer->data, false);
}

/* The timer runs only while somebody waits. */
void hf_session_count_waiting(struct hf_thread *t, int by)
{
    bool before = t->n_waiting > 0;

    assert(by > 0 || t->n_waiting > 0);
    t->n_waiting += (unsigned)by;
    if (t->stopping)
        return;
    if (!before && t->n_waiting > 0)
        (void)uv_timer_start(&t->timer, timer_cb, HF_ROUTER_TIMER_MS, HF_ROUTER_TIMER_MS);
    else if (before && t->n_waiting == 0)
        (void)uv_timer_stop(&t->timer);
}

static atomic_uint *kind_count(struct hf_session *s)
{
    struct hf_router *r = s->t->r;

    switch (s->kind) {
    case HF_KIND_GATE:
        return &r->n_gate;
    case HF_KIND_TUNNEL:
        return &r->n_tunnels;
    case HF_KIND_READER:
        return &r->n_readers;
    default:
        return NULL;
    }
}

/* The only place where a state changes. */
static void set_state(struct hf_session *s, enum hf_session_state to, enum hf_session_kind kind)
{
    struct hf_router *r = s->t->r;
    atomic_uint *count = kind_count(s);

    assert(s->state != HF_SESSION_CLOSED);
    assert((to == HF_SESSION_PIPE) == (kind != HF_KIND_NONE));
    assert(s->state != HF_SESSION_LINGER || to == HF_SESSION_CLOSED);
    if (count != NULL)
        atomic_fetch_sub(count, 1);
    s->kind = kind;
    count = kind_count(s);
    if (count != NULL)
        atomic_fetch_add(count, 1);
    if (is_held(s->state) != is_held(to))
        atomic_fetch_add(&r->n_held, is_held(to) ? 1u : -1u);
    if ((s->state == HF_SESSION_POOLED) != (to == HF_SESSION_POOLED))
        atomic_fetch_add(&r->n_pooled, to == HF_SESSION_POOLED ? 1u : -1u);
    if (is_waiting(s->state) != is_waiting(to))
        hf_session_count_waiting(s->t, is_waiting(to) ? 1 : -1);
    s->state = to;
}

void hf_session_set_pipe(struct hf_session *s, enum hf_session_kind kind)
{
    set_state(s, HF_SESSION_PIPE, kind);
}

void hf_session_await(struct hf_session *s, enum hf_session_state state)
{
    set_state(s, state, HF_KIND_NONE);
}

void hf_session_withhold(struct hf_session *s, bool yes)
{
    if (s->withheld == yes)
        return;
    s->withheld = yes;
    atomic_fetch_add(&s->t->r->n_lease_held, yes ? 1u : -1u);
    hf_session_count_waiting(s->t, yes ? 1 : -1);
}

void hf_session_log_in(struct hf_session *s, bool yes)
{
    if (s->logging_in == yes)
        return;
    s->logging_in = yes;
    s->login_since_ms = now_ms(s);
    hf_session_count_waiting(s->t, yes ? 1 : -1);
}

void hf_session_count(struct hf_session *s, size_t in, size_t out)
{
    struct hf_thread *t = s->t;

    s->active_ms = now_ms(s);
    s->bytes_in += in;
    s->bytes_out += out;
    atomic_store_explicit(&t->bytes_in,
                          atomic_load_explicit(&t->bytes_in, memory_order_relaxed) + in,
                          memory_order_relaxed);
    atomic_store_explicit(&t->bytes_out,
                          atomic_load_explicit(&t->bytes_out, memory_order_relaxed) + out,
                          memory_order_relaxed);
}

void hf_session_admit(struct hf_session *s, bool yes)
{
    if (s->admitted == yes)
        return;
    s->admitted = yes;
    atomic_fetch_add(&s->t->r->n_admitted, yes ? 1u : -1u);
}

void hf_session_refused(struct hf_session *s, enum hf_refused why)
{
    atomic_fetch_add(&s->t->r->refused[why], 1);
}

static void flow_clear(struct hf_flow *f)
{
    free(f->bytes);
    *f = (struct hf_flow){0};
}

void hf_session_end_back(struct hf_session *s)
{
    hf_key_remove(&s->t->r->keyring, s->key);
    s->key = NULL;
    s->far = 0;
    if (s->dial != NULL)
        s->dial->s = NULL;
    s->dial = NULL;
    hf_question_drop(s->question);
    s->question = NULL;
    hf_end_close(s->back);
    s->back = NULL;
    hf_session_withhold(s, false);
    hf_session_log_in(s, false);
    flow_clear(&s->up);
    flow_clear(&s->down);
    free(s->unheard);
    s->unheard = NULL;
    s->deaf = false;
    hf_share_undo(s);
}

/* -- the way to the leader ----------------------------------------------------------------- */

void hf_session_hold(struct hf_session *s)
{
    hf_session_end_back(s);
    set_state(s, HF_SESSION_HELD, HF_KIND_NONE);
    s->retry_ms = now_ms(s) + RETRY_MS;
    hf_end_want(s->front, UV_DISCONNECT);
}

void hf_session_rest(struct hf_session *s)
{
    hf_session_end_back(s);
    set_state(s, HF_SESSION_POOLED, HF_KIND_NONE);
    hf_end_want(s->front, hf_front_events(s, UV_READABLE));
}

void hf_session_queue(struct hf_session *s)
{
    hf_session_end_back(s);
    set_state(s, HF_SESSION_QUEUED, HF_KIND_NONE);
    hf_end_want(s->front, UV_DISCONNECT);
}

bool hf_session_rehold(struct hf_session *s)
{
    /* In a tunnel it is the other node's router that waits. */
    if (s->far != 0)
        s->fruitless++;
    if (s->state != HF_SESSION_PIPE || s->answered || s->spoke || s->from_tunnel || s->cancel)
        return false;
    if (s->share == NULL || s->survive != NULL)
        hf_session_hold(s);
    else /* its login has been refused, which its client has not heard: what made it one that shares connections is gone */
        hf_session_end_with(s, "57P01", "the leader has changed", NULL, "Connect again.");
    return true;
}

bool hf_session_connect_here(struct hf_session *s, enum hf_session_kind kind)
{
    int fd = hf_net_connect_unix(s->t->r->socket_path, NULL);

    if (fd < 0)
        return false;
    s->back = hf_end_open(s, fd);
    if (s->back == NULL)
        return false;
    hf_session_begin_pipe(s, kind);
    return true;
}

static void dial_run(void *arg)
{
    struct hf_router_dial *d = arg;
    struct hf_router *r = d->t->r;
    int fd = d->fd;

    d->fd = -1;
    if (r->closing) {
        close(fd);
        free(d);
        return;
    }
    d->next = r->dials;
    d->at = &r->dials;
    if (d->next != NULL)
        d->next->at = &d->next;
    r->dials = d;
    r->callbacks.dial(r->callbacks.ctx, d, fd, d->to, d->id);
}

void hf_session_dial(struct hf_session *s, enum hf_router_to to, uint64_t id)
{
    struct hf_router *r = s->t->r;
    struct hf_router_dial *d = calloc(1, sizeof *d);
    int fds[2];

    if (d == NULL || socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0, fds) != 0) {
        free(d);
        return;
    }
    s->back = hf_end_open(s, fds[0]);
    if (s->back == NULL) {
        close(fds[1]);
        free(d);
        return;
    }
    *d = (struct hf_router_dial){.t = s->t, .s = s, .fd = fds[1], .to = to, .id = id};
    s->dial = d;
    /* Whoever leads, a follower serves its readers until it ends them itself. */
    s->leader_epoch = to == HF_TO_FOLLOWER ? UINT64_MAX : atomic_load(&r->leader_epoch);
    set_state(s, HF_SESSION_DIALING, HF_KIND_NONE);
    hf_mailbox_post(r->control, dial_run, d);
}

void hf_session_dialed(struct hf_session *s, bool ok, uint64_t id)
{
    bool to_follower = s->dial->to == HF_TO_FOLLOWER;

    assert(s->state == HF_SESSION_DIALING);
    s->dial = NULL;
    s->far = to_follower ? id : 0;
    if (ok && hf_login_is_wanted(s)) {
        hf_login_dialed(s);
    } else if (ok) {
        hf_session_begin_pipe(s, HF_KIND_TUNNEL);
    } else if (s->cancel) {
        hf_session_close(s);
    } else {
        hf_session_hold(s);
        hf_login_not_dialed(s);
        if (to_follower) {
            s->fruitless = id == 0 ? HF_READS_TRIES : s->fruitless + 1;
            hf_session_seek(s);
        }
    }
}

/* A cancel is answered by nothing but the end of its connection, so it never waits. */
static void seek_cancel(struct hf_session *s)
{
    struct hf_router *r = s->t->r;
    struct hf_startup c = hf_startup_parse(s->first, s->first_len);
    struct hf_secret secret = hf_secret_make(c.pid, c.key, c.key_len);
    struct hf_key_place place = {0};
    bool known = hf_key_find(&r->keyring, &secret, &place);

    if (known && place.alias) { /* a session of ours that has moved: its server knows another key */
        if (!hf_key_present(&r->keyring, &secret, &s->ticket)) {
            hf_share_cancel(place.t, place.id); /* what waits for a connection */
            hf_session_close(s);
            return;
        }
        s->first_len = hf_wire_cancel(s->first, secret.pid, secret.bytes, secret.len);
        known = hf_key_find(&r->keyring, &secret, &place);
    }
    if (known && place.far != 0)
        hf_session_dial(s, HF_TO_FOLLOWER, place.far);
    else if (known || s->from_tunnel || atomic_load(&r->opening) != 0) {
        struct hf_ticket *ticket = s->ticket;
        bool tunnel = s->from_tunnel;
        s->ticket = NULL;
        hf_canceller_cancel(r->canceller, hf_session_detach(s), tunnel, &secret, ticket);
    }
    else if (atomic_load(&r->leader) == HF_LEADER_ELSEWHERE)
        hf_session_dial(s, HF_TO_LEADER, 0);
    else
        hf_session_close(s);
}

/* HELD: is there a way now? */
void hf_session_seek(struct hf_session *s)
{
    struct hf_router *r = s->t->r;
    uint64_t opening = atomic_load(&r->opening);

    assert(s->state == HF_SESSION_HELD);
    s->retry_ms = now_ms(s) + RETRY_MS;
    if (s->cancel) {
        seek_cancel(s);
    } else if (hf_login_is_wanted(s)) {
        hf_login_seek(s);
    } else if (s->read_only && hf_reads_seek(s)) {
        return;
    } else if (opening != 0 && !atomic_load(&r->draining)) {
        s->opening = opening;
        (void)hf_session_connect_here(s, HF_KIND_GATE);
    } else if (s->from_tunnel) {
        hf_session_close(s); /* the gate shut meanwhile: the other node's router tries again */
    } else if (atomic_load(&r->leader) == HF_LEADER_ELSEWHERE) {
        hf_session_dial(s, HF_TO_LEADER, 0);
    }
}

/* -- begin and events -------------------------------------------------------------------------------- */

void hf_session_accept(struct hf_thread *t, int fd, bool read_only, bool from_tunnel)
{
    struct hf_router *r = t->r;
    struct hf_session *s = calloc(1, sizeof *s);

    if (s == NULL || t->stopping || (s->first = malloc(HF_STARTUP_MAX)) == NULL) {
        free(s);
        close(fd);
        return;
    }
    s->t = t;
    s->front = hf_end_open(s, fd);
    if (s->front == NULL) {
        free(s->first);
        free(s);
        return;
    }
    s->read_only = read_only;
    s->from_tunnel = from_tunnel;
    s->next = t->sessions;
    s->at = &t->sessions;
    if (s->next != NULL)
        s->next->at = &s->next;
    t->sessions = s;
    s->state = HF_SESSION_STARTUP;
    hf_session_count_waiting(t, 1);
    uv_update_time(&t->loop);
    s->since_ms = s->arrived_ms = s->active_ms = now_ms(s);
    s->id = atomic_fetch_add(&r->next_id, 1) + 1;
    atomic_fetch_add(&r->n_sessions, 1);
    if (!from_tunnel) {
        atomic_fetch_add(&r->accepted, 1);
        hf_silent_watch(t);
        hf_net_tcp_options(fd);
    }
    hf_startup_begin(s);
}

void hf_session_event(struct hf_session *s, bool at_front, bool failed, int events)
{
    if (at_front && (failed || (events & UV_DISCONNECT) != 0)) {
        hf_session_close(s);
        return;
    }
    switch (s->state) {
    case HF_SESSION_STARTUP:
        hf_startup_read(s);
        break;
    case HF_SESSION_ASKING:
    case HF_SESSION_SASL:
        hf_login_event(s);
        break;
    case HF_SESSION_PIPE:
        hf_session_move(s);
        break;
    case HF_SESSION_POOLED:
        hf_share_event(s);
        break;
    case HF_SESSION_LINGER:
        hf_session_linger(s);
        break;
    default:
        break;
    }
}

static void login_over(struct hf_session *s)
{
    hf_session_refused(s, HF_REFUSED_SLOW);
    hf_session_refuse(s, "57014", "canceling authentication due to timeout", NULL);
}

static void wait_over(struct hf_session *s)
{
    if (s->state == HF_SESSION_LINGER) {
        hf_session_close(s);
    } else if (s->state == HF_SESSION_SASL) {
        login_over(s);
    } else if (s->state == HF_SESSION_STARTUP) {
        hf_session_refused(s, HF_REFUSED_SLOW);
        hf_session_refuse(s, "08P01", "no startup packet in time", NULL);
    } else {
        hf_session_refused(s, HF_REFUSED_LEADER);
        hf_session_refuse(s, "57P03", "the cluster has no leader that takes connections now",
                          "An election is under way or a majority of the nodes is down; see "
                          "\"holdfast status\", and try again.");
    }
}

static uint64_t bound_ms(const struct hf_session *s)
{
    switch (s->state) {
    case HF_SESSION_STARTUP:
    case HF_SESSION_SASL:
        return s->t->r->login_ms;
    case HF_SESSION_LINGER:
        return LINGER_MS;
    default:
        return s->t->r->hold_ms;
    }
}

void hf_session_look(struct hf_thread *t, bool moved)
{
    uv_update_time(&t->loop);
    for (struct hf_session *s = t->sessions, *next; s != NULL; s = next) {
        next = s->next;
        if (s->state == HF_SESSION_PIPE) {
            if (s->logging_in && now_ms(s) - s->login_since_ms >= t->r->login_ms)
                login_over(s);
            else if (s->withheld)
                hf_session_move(s);
            else
                hf_fresh_look(s);
        } else if (s->state == HF_SESSION_POOLED || s->state == HF_SESSION_QUEUED) {
            continue; /* share.c looks at them */
        } else if (now_ms(s) - s->since_ms >= bound_ms(s)) {
            wait_over(s);
        } else if (s->state == HF_SESSION_HELD && (moved || now_ms(s) >= s->retry_ms)) {
            hf_session_seek(s);
        } else {
            hf_login_look(s);
        }
    }
}
