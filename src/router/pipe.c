/* Two connected ends, and the gate between them. */
#include <errno.h>
#include <unistd.h>

#include "base/clock.h"
#include "router/session.h"

enum gate { GATE_PASS, GATE_HOLD, GATE_END };

/* Called after the answer was read from PostgreSQL and just before it is written to the client: what
 * passes was computed while the lease held (DESIGN section 6). */
static enum gate gate_look(const struct session *s)
{
    const struct hf_router *r = s->t->r;

    if (!s->gated)
        return GATE_PASS;
    if (atomic_load(&r->gate_epoch) != s->epoch)
        return GATE_END;
    if (atomic_load(&r->hold) > 0 || hf_clock_ns() >= atomic_load(&r->lease_deadline_ns))
        return GATE_HOLD;
    return GATE_PASS;
}

bool hf_session_is_busy(const struct session *s)
{
    if (s->state != SESSION_PIPE || !s->gated)
        return false;
    return s->asked || s->down.len > 0 || s->up.len > 0 || s->wire.status != 'I';
}

static void learn_key(struct session *s)
{
    struct hf_router *r = s->t->r;

    if (!s->wire.key_known || !s->gated || s->key_at != NULL)
        return;
    uv_mutex_lock(&r->keys_mutex);
    s->key_next = r->keyed;
    s->key_at = &r->keyed;
    if (s->key_next != NULL)
        s->key_next->key_at = &s->key_next;
    r->keyed = s;
    uv_mutex_unlock(&r->keys_mutex);
}

/* -1: over; else what to wait for: bit 0 front readable/writable..., gathered by the caller. */
static int write_some(int fd, struct flow *f)
{
    while (f->len > 0) {
        ssize_t n = send(fd, f->bytes + f->at, f->len, MSG_NOSIGNAL);
        if (n < 0 && errno == EINTR)
            continue;
        if (n < 0 && errno == EAGAIN)
            return 0;
        if (n < 0)
            return -1;
        f->at += (size_t)n;
        f->len -= (size_t)n;
    }
    return 1;
}

/* 1: bytes, 0: nothing now, -1: over. */
static int read_some(int fd, struct flow *f)
{
    ssize_t n;

    do
        n = recv(fd, f->bytes, HF_SESSION_BYTES, 0);
    while (n < 0 && errno == EINTR);
    if (n < 0 && errno == EAGAIN)
        return 0;
    if (n <= 0)
        return -1;
    f->at = 0;
    f->len = (size_t)n;
    return 1;
}

static bool move_up(struct session *s, int *front, int *back)
{
    for (;;) {
        int rv = write_some(s->back, &s->up);
        if (rv < 0)
            return false;
        if (rv == 0) {
            *back |= UV_WRITABLE;
            return true;
        }
        if (s->t->draining && s->gated && !hf_session_is_busy(s))
            return true; /* paused between transactions */
        rv = read_some(s->front, &s->up);
        if (rv < 0)
            return false;
        if (rv == 0) {
            *front |= UV_READABLE;
            return true;
        }
        s->asked = true;
        s->wire.ready = false;
    }
}

static bool move_down(struct session *s, int *front, int *back)
{
    for (;;) {
        int rv;
        if (s->down.len > 0) {
            enum gate g = gate_look(s);
            if (g == GATE_END)
                return false;
            s->withheld = g == GATE_HOLD;
            if (s->withheld)
                return true; /* hf_session_timer() looks again */
            rv = write_some(s->front, &s->down);
            if (rv < 0)
                return false;
            if (rv == 0) {
                *front |= UV_WRITABLE;
                return true;
            }
            if (s->wire.ready)
                s->asked = false;
        }
        rv = read_some(s->back, &s->down);
        if (rv < 0)
            return false;
        if (rv == 0) {
            *back |= UV_READABLE;
            return true;
        }
        if (s->gated) {
            hf_wire_bytes(&s->wire, s->down.bytes, s->down.len);
            learn_key(s);
            if (s->wire.wait_cancelled) {
                s->wire.wait_cancelled = false;
                hf_cancel_barrier(s->t);
            }
        }
    }
}

void hf_session_move(struct session *s)
{
    int front = 0, back = 0;
    struct thread *t = s->t;

    if (s->state != SESSION_PIPE)
        return;
    if (!move_up(s, &front, &back) || !move_down(s, &front, &back)) {
        hf_session_close(s);
    } else {
        /* A drain may have begun while this session was busy: now it may be idle. */
        if (t->draining && s->gated && !hf_session_is_busy(s))
            front &= ~UV_READABLE;
        hf_session_want(s, front, back);
    }
    if (t->draining)
        hf_thread_check_drained(t);
}
