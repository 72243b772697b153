/* From the first byte of a client to two connected ends. */
#include "router/session.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/log.h"
#include "base/net.h"

enum { STARTUP_MS = 10000, RETRY_MS = 20, FIRST_CAP = HF_STARTUP_MAX + 64 };

static void advance(struct session *s);

/* -- handles --------------------------------------------------------------------------------------------- */

static void handle_closed(uv_handle_t *handle)
{
    struct session *s = handle->data;

    if (--s->handles > 0)
        return;
    free(s->first);
    free(s->up.bytes);
    free(s->down.bytes);
    free(s);
}

void hf_session_forget_key(struct session *s)
{
    struct hf_router *r = s->t->r;

    uv_mutex_lock(&r->keys_mutex);
    if (s->key_at != NULL) {
        *s->key_at = s->key_next;
        if (s->key_next != NULL)
            s->key_next->key_at = s->key_at;
        s->key_at = NULL;
    }
    uv_mutex_unlock(&r->keys_mutex);
}

void hf_session_close(struct session *s)
{
    struct hf_router *r = s->t->r;

    if (s->state == SESSION_CLOSED)
        return;
    hf_session_forget_key(s);
    if (s->dial != NULL)
        s->dial->s = NULL;
    s->state = SESSION_CLOSED;
    *s->at = s->next;
    if (s->next != NULL)
        s->next->at = s->at;
    atomic_fetch_sub(&r->n_sessions, 1);
    s->handles++;
    if (s->front_polled)
        uv_close((uv_handle_t *)&s->front_poll, handle_closed);
    if (s->back_polled)
        uv_close((uv_handle_t *)&s->back_poll, handle_closed);
    if (s->front >= 0)
        close(s->front);
    if (s->back >= 0)
        close(s->back);
    s->front_poll.data = s->back_poll.data = s;
    handle_closed((uv_handle_t *)&s->front_poll);
}

void hf_session_refuse(struct session *s, const char *sqlstate, const char *text, const char *hint)
{
    uint8_t out[512];
    size_t n = hf_wire_fatal(out, sizeof out, sqlstate, text, hint);

    if (n > 0 && s->front >= 0 && s->down.len == 0)
        (void)send(s->front, out, n, MSG_NOSIGNAL); /* best effort, as in PostgreSQL */
    hf_session_close(s);
}

static void poll_cb(uv_poll_t *poll, int status, int events)
{
    struct session *s = poll->data;

    (void)status; /* the next read or write tells */
    (void)events;
    if (s->state == SESSION_PIPE)
        hf_session_move(s);
    else
        advance(s);
}

static void want(struct session *s, uv_poll_t *poll, bool *polled, int *have, int fd, int events)
{
    if (!*polled) {
        if (events == 0)
            return;
        if (uv_poll_init(&s->t->loop, poll, fd) != 0) {
            hf_session_close(s);
            return;
        }
        poll->data = s;
        *polled = true;
        s->handles++;
    }
    if (*have == events)
        return;
    *have = events;
    if (events == 0)
        (void)uv_poll_stop(poll);
    else
        (void)uv_poll_start(poll, events, poll_cb);
}

void hf_session_want(struct session *s, int front, int back)
{
    if (s->front >= 0)
        want(s, &s->front_poll, &s->front_polled, &s->front_events, s->front, front);
    if (s->state != SESSION_CLOSED && s->back >= 0)
        want(s, &s->back_poll, &s->back_polled, &s->back_events, s->back, back);
}

static uint64_t now_ms(struct session *s)
{
    uv_update_time(&s->t->loop);
    return uv_now(&s->t->loop);
}

/* -- the two ends ------------------------------------------------------------------------------------------ */

static void set_pipe(struct session *s)
{
    s->up.bytes = malloc(HF_SESSION_BYTES);
    s->down.bytes = malloc(HF_SESSION_BYTES);
    if (s->up.bytes == NULL || s->down.bytes == NULL || s->first_len > HF_SESSION_BYTES) {
        hf_session_refuse(s, "53200", "out of memory", NULL);
        return;
    }
    memcpy(s->up.bytes, s->first, s->first_len);
    s->up.at = 0;
    s->up.len = s->first_len;
    free(s->first);
    s->first = NULL;
    s->asked = true;
    s->state = SESSION_PIPE;
    hf_session_move(s);
}

static void connect_here(struct session *s)
{
    s->back = hf_net_connect_unix(s->t->r->socket_path, NULL);
    if (s->back < 0) {
        s->back = -1;
        s->state = SESSION_HELD; /* PostgreSQL is just starting or stopping */
        s->retry_ms = now_ms(s) + RETRY_MS;
        return;
    }
    set_pipe(s);
}

struct dial_order {
    struct hf_router_dial *d;
    int fd;
};

static void dial_order_run(void *arg)
{
    struct dial_order *o = arg;
    struct hf_router *r = o->d->t->r;

    if (r->closing)
        close(o->fd);
    else
        r->callbacks.dial(r->callbacks.ctx, o->d, o->fd);
    free(o);
}

static void dial_elsewhere(struct session *s)
{
    struct hf_router_dial *d = calloc(1, sizeof *d);
    struct dial_order *o = calloc(1, sizeof *o);
    int fds[2];

    if (d == NULL || o == NULL ||
        socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0, fds) != 0) {
        free(d);
        free(o);
        s->retry_ms = now_ms(s) + RETRY_MS;
        return;
    }
    *d = (struct hf_router_dial){.t = s->t, .s = s};
    *o = (struct dial_order){d, fds[1]};
    s->dial = d;
    s->back = fds[0];
    s->state = SESSION_DIALING;
    hf_mailbox_post(s->t->r->control, dial_order_run, o);
}

void hf_session_dialed(struct session *s, bool ok)
{
    s->dial = NULL;
    if (ok) {
        set_pipe(s);
        return;
    }
    close(s->back);
    s->back = -1;
    s->state = SESSION_HELD;
    s->retry_ms = now_ms(s) + RETRY_MS;
}

/* HELD: is there a way now? */
static void seek(struct session *s)
{
    struct hf_router *r = s->t->r;
    uint64_t epoch = atomic_load(&r->gate_epoch);

    if (s->cancel.kind == HF_STARTUP_CANCEL && (epoch != 0 || s->from_tunnel)) {
        hf_cancel_begin(s);
        return;
    }
    if (s->read_only && !s->from_tunnel && atomic_load(&r->readable)) {
        s->reader = true;
        connect_here(s);
        if (s->state == SESSION_HELD)
            s->reader = false;
    } else if (epoch != 0 && !atomic_load(&r->draining)) {
        s->gated = true;
        s->epoch = epoch;
        connect_here(s);
    } else if (s->from_tunnel) {
        hf_session_close(s); /* the gate shut meanwhile: the other node's router tries again */
    } else if (atomic_load(&r->leader) == HF_LEADER_ELSEWHERE) {
        dial_elsewhere(s);
    }
}

/* -- the first packet -------------------------------------------------------------------------------------- */

static void started(struct session *s, const struct hf_startup *p)
{
    hf_session_want(s, 0, 0);
    s->state = SESSION_HELD;
    s->since_ms = now_ms(s);
    s->retry_ms = 0;
    if (p->kind == HF_STARTUP_CANCEL)
        s->cancel = *p;
    else if (s->read_only && !s->from_tunnel && !atomic_load(&s->t->r->readable)) {
        size_t n = hf_startup_read_only(s->first, s->first_len, FIRST_CAP);
        if (n == 0) {
            hf_session_refuse(s, "08P01", "startup packet too long", NULL);
            return;
        }
        s->first_len = n;
    }
    seek(s);
}

static void read_startup(struct session *s)
{
    for (;;) {
        struct hf_startup p;
        size_t want_bytes = 8;
        ssize_t n;
        /* Never past the packet: what follows belongs to the server. */
        if (s->first_len >= 4) {
            want_bytes = (size_t)s->first[0] << 24 | (size_t)s->first[1] << 16 |
                         (size_t)s->first[2] << 8 | s->first[3];
            if (want_bytes < 8 || want_bytes > HF_STARTUP_MAX)
                want_bytes = s->first_len;
        }
        if (s->first_len < want_bytes) {
            n = read(s->front, s->first + s->first_len, want_bytes - s->first_len);
            if (n < 0 && (errno == EAGAIN || errno == EINTR)) {
                hf_session_want(s, UV_READABLE, 0);
                return;
            }
            if (n <= 0) {
                hf_session_close(s);
                return;
            }
            s->first_len += (size_t)n;
        }
        p = hf_startup_parse(s->first, s->first_len);
        switch (p.kind) {
        case HF_STARTUP_MORE:
            continue;
        case HF_STARTUP_TLS:
            if (send(s->front, "N", 1, MSG_NOSIGNAL) != 1) {
                hf_session_close(s);
                return;
            }
            s->first_len = 0;
            continue;
        case HF_STARTUP_BAD:
            hf_session_refuse(s, p.sqlstate, p.text, NULL);
            return;
        default:
            started(s, &p);
            return;
        }
    }
}

static void advance(struct session *s)
{
    if (s->state == SESSION_STARTUP)
        read_startup(s);
}

void hf_session_accept(struct thread *t, int fd, bool read_only, bool from_tunnel)
{
    struct session *s = calloc(1, sizeof *s);
    struct hf_router *r = t->r;

    if (s != NULL)
        s->first = malloc(FIRST_CAP);
    if (s == NULL || s->first == NULL || t->stopping) {
        if (s != NULL)
            free(s->first);
        free(s);
        close(fd);
        return;
    }
    s->t = t;
    s->front = fd;
    s->back = -1;
    s->read_only = read_only;
    s->from_tunnel = from_tunnel;
    s->next = t->sessions;
    s->at = &t->sessions;
    if (s->next != NULL)
        s->next->at = &s->next;
    t->sessions = s;
    s->since_ms = now_ms(s);
    if (!from_tunnel)
        hf_net_tcp_options(fd);
    if (atomic_fetch_add(&r->n_sessions, 1) >= r->max_sessions) {
        hf_session_refuse(s, "53300", "sorry, too many clients already",
                          "Raise --max-sessions, or use fewer connections.");
        return;
    }
    read_startup(s);
}

/* -- waiting ----------------------------------------------------------------------------------------------- */

static void wait_over(struct session *s)
{
    if (s->state == SESSION_STARTUP)
        hf_session_refuse(s, "08P01", "no startup packet in time", NULL);
    else
        hf_session_refuse(s, "57P03", "the cluster has no leader that takes connections now",
                          "An election is under way or a majority of the nodes is down; see "
                          "\"holdfast status\", and try again.");
}

void hf_session_timer(struct thread *t)
{
    struct session *s, *next;
    uint64_t now = uv_now(&t->loop);
    unsigned held = 0, lapsed = 0;

    for (s = t->sessions; s != NULL; s = next) {
        next = s->next;
        if (s->state == SESSION_PIPE) {
            if (s->withheld) {
                lapsed++;
                hf_session_move(s);
            }
            continue;
        }
        held += s->state != SESSION_STARTUP;
        if (now - s->since_ms > (s->state == SESSION_STARTUP ? STARTUP_MS : t->r->hold_ms)) {
            if (s->dial != NULL) {
                s->dial->s = NULL;
                s->dial = NULL;
            }
            wait_over(s);
        } else if (s->state == SESSION_HELD && now >= s->retry_ms) {
            seek(s);
        }
    }
    atomic_store(&t->r->n_held, held);
    atomic_store(&t->r->n_lease_held, lapsed);
}
