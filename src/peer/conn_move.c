/* An open tunnel: bytes in both directions, and what is read in passing. */
#include "peer/conn.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include <openssl/err.h>

#include "base/log.h"

/* News of flushed WAL wakes the control loop: at once after a quiet time, else this often at the most. */
enum { NEWS_MS = 10, PROGRESS_MS = 100 };

static void news_cb(uv_timer_t *timer)
{
    struct conn *c = timer->data;

    if (!c->watch.news)
        return;
    c->watch.news = false;
    hf_pumps_tell_flushed(c);
    (void)uv_timer_start(timer, news_cb, NEWS_MS, 0);
}

bool hf_conn_is_torn(const struct conn *c)
{
    return !c->dialed && c->terms.begin != 0 && c->watch.asked && c->watch.first > c->terms.begin;
}

/* Returns false when the tunnel must end. */
static bool watch(struct conn *c, const uint8_t *p, size_t n)
{
    if (!c->watched)
        return true;
    hf_walwatch_bytes(&c->watch, p, n);
    if (!c->dialed && c->watch.named && !c->named) {
        c->named = true;
        if (c->member[0] != '\0' && strcmp(c->watch.application_name, c->member) != 0) {
            hf_warn("peer: %s streams under the name %s, not %s: cut", c->from.name,
                    c->watch.application_name, c->member);
            return false; /* S14: nobody is counted under another's name */
        }
    }
    if (hf_conn_is_torn(c)) {
        (void)snprintf(c->why, sizeof c->why, "it would not begin where its WAL leaves ours");
        return false; /* S1; the word that it asked goes out with the end of the connection */
    }
    if (c->watch.news && !uv_is_active((uv_handle_t *)&c->timer)) /* the timer was the set-up's until now */
        news_cb(&c->timer);
    return true;
}

/* What a direction waits for when it cannot go on: events of the network and of the plain side. */
struct wants {
    int net, plain;
};

static void move(struct conn *c, bool in, bool out);

static void held_cb(uv_timer_t *timer)
{
    struct conn *c = timer->data;

    c->held_due = true;
    move(c, false, true);
}

/* The network's end of it is gone, by a call that returned `rv`. The first reason counts: what follows it only shows
 * that it is over. */
static int net_over(struct conn *c, int rv)
{
    int e = errno;

    if (c->why[0] != '\0')
        return -1;
    if (!c->bare)
        hf_tls_why(c->ssl, rv, c->why, sizeof c->why);
    else
        (void)snprintf(c->why, sizeof c->why, "%s", rv == 0 ? "the other end closed it" : strerror(e));
    return -1;
}

/* Reads into c->in, an empty buffer. >0: so many bytes, 0: w->net says what to wait for, -1: over. */
static int net_read(struct conn *c, struct wants *w)
{
    int rv, e;

    if (c->bare) {
        do
            rv = (int)read(c->fd, c->in.bytes, HF_PIPE_BYTES);
        while (rv < 0 && errno == EINTR);
        w->net = UV_READABLE;
        return rv > 0 ? rv : rv < 0 && errno == EAGAIN ? 0 : net_over(c, rv);
    }
    ERR_clear_error(); /* SSL_get_error() looks at the thread's queue, whoever filled it */
    rv = SSL_read(c->ssl, c->in.bytes, HF_PIPE_BYTES);
    if (rv > 0)
        return rv;
    e = SSL_get_error(c->ssl, rv);
    w->net = e == SSL_ERROR_WANT_READ ? UV_READABLE : UV_WRITABLE;
    return e == SSL_ERROR_WANT_READ || e == SSL_ERROR_WANT_WRITE ? 0 : net_over(c, rv);
}

/* The same for writing what is in c->out. */
static int net_write(struct conn *c, struct wants *w)
{
    int rv, e;

    if (c->bare) {
        do
            rv = (int)write(c->fd, c->out.bytes + c->out.at, c->out.len);
        while (rv < 0 && errno == EINTR);
        w->net = UV_WRITABLE;
        return rv > 0 ? rv : rv < 0 && errno == EAGAIN ? 0 : net_over(c, rv);
    }
    ERR_clear_error();
    rv = SSL_write(c->ssl, c->out.bytes + c->out.at, (int)c->out.len);
    if (rv > 0)
        return rv;
    e = SSL_get_error(c->ssl, rv);
    w->net = e == SSL_ERROR_WANT_WRITE ? UV_WRITABLE : UV_READABLE;
    return e == SSL_ERROR_WANT_WRITE || e == SSL_ERROR_WANT_READ ? 0 : net_over(c, rv);
}

/* Network -> plain. False: over. */
static bool move_in(struct conn *c, struct wants *w)
{
    bool drained = false; /* nothing more has come, as far as can be seen without asking the socket again */

    *w = (struct wants){0};
    for (;;) {
        ssize_t n;
        if (c->in.len == 0) {
            int rv = net_read(c, w);
            if (rv <= 0)
                return rv == 0;
            drained = c->bare ? rv < HF_PIPE_BYTES : SSL_has_pending(c->ssl) == 0;
            w->net = 0;
            c->in.at = 0;
            c->in.len = (size_t)rv;
            if (!watch(c, c->in.bytes, c->in.len))
                return false;
        }
        n = write(c->plain, c->in.bytes + c->in.at, c->in.len);
        if (n < 0 && errno == EINTR)
            continue;
        if (n < 0 && errno == EAGAIN) {
            w->plain = UV_WRITABLE; /* back-pressure: read no more until this is gone */
            return true;
        }
        if (n < 0)
            return false;
        c->in.at += (size_t)n;
        c->in.len -= (size_t)n;
        if (c->in.len == 0 && drained && !c->ending) {
            w->net = UV_READABLE;
            return true;
        }
    }
}

/* Plain -> network. False: over. */
static bool move_out(struct conn *c, struct wants *w)
{
    bool drained = false;

    *w = (struct wants){0};
    for (;;) {
        int rv;
        if (c->out.len == 0 && !drained) {
            ssize_t n = read(c->plain, c->out.bytes, HF_PIPE_BYTES);
            if (n < 0 && errno == EINTR)
                continue;
            if (n == 0 || (n < 0 && errno != EAGAIN))
                return false;
            drained = n < HF_PIPE_BYTES;
            c->out.at = 0;
            c->out.len = n > 0 ? (size_t)n : 0;
            if (c->watched && c->dialed)
                c->out.len = hf_walthin_bytes(&c->thin, c->out.bytes, c->out.len);
            continue;
        }
        if (c->out.len == 0 && c->held_due) {
            c->held_due = false;
            c->out.at = 0;
            c->out.len = hf_walthin_held(&c->thin, c->out.bytes);
        }
        if (c->out.len == 0) {
            w->plain = UV_READABLE;
            if (c->thin.holds && !uv_is_active((uv_handle_t *)&c->timer))
                (void)uv_timer_start(&c->timer, held_cb, HF_WALTHIN_MS, 0);
            return true;
        }
        rv = net_write(c, w);
        if (rv <= 0)
            return rv == 0;
        w->net = 0;
        c->out.at += (size_t)rv;
        c->out.len -= (size_t)rv;
    }
}

static void plain_cb(uv_poll_t *poll, int status, int events)
{
    struct conn *c = poll->data;

    /* After an error both directions look, until one of them finds the reason; libuv has stopped to poll. */
    if (status != 0)
        c->plain_events = 0;
    hf_conn_move(c, 0, status == 0 ? events : UV_READABLE | UV_WRITABLE);
}

static void plain_want(struct conn *c, int events)
{
    if (!c->plain_polled) {
        if (uv_poll_init(&c->pump->loop, &c->plain_poll, c->plain) != 0) {
            hf_conn_close(c, HF_EIO, "cannot poll a socket");
            return;
        }
        c->plain_poll.data = c;
        c->plain_polled = true;
        c->handles++;
        c->plain_events = 0;
    }
    if (events == c->plain_events)
        return;
    c->plain_events = events;
    if (events == 0)
        (void)uv_poll_stop(&c->plain_poll);
    else
        (void)uv_poll_start(&c->plain_poll, events, plain_cb);
}

static void move(struct conn *c, bool in, bool out)
{
    bool in_ok = true, out_ok = true;
    struct wants w;

    if (c->state != CONN_OPEN)
        return;
    if (out) {
        out_ok = move_out(c, &w);
        c->out_net = w.net;
        c->out_plain = w.plain;
    }
    c->ending = !out_ok; /* the other side's last bytes are passed on, if there is anybody to take them */
    if (in || !out_ok) {
        in_ok = move_in(c, &w);
        c->in_net = w.net;
        c->in_plain = w.plain;
    }
    if (!in_ok || !out_ok) {
        hf_conn_close(c, HF_ECLOSED, c->why[0] != '\0' ? c->why : "this node ended it");
        return;
    }
    if (c->watched && c->dialed && uv_now(&c->pump->loop) - c->progress_ms >= PROGRESS_MS) {
        c->progress_ms = uv_now(&c->pump->loop);
        hf_pumps_tell_progress(c);
    }
    hf_conn_want(c, c->in_net | c->out_net);
    if (c->state == CONN_OPEN)
        plain_want(c, c->in_plain | c->out_plain);
}

void hf_conn_move(struct conn *c, int net, int plain)
{
    move(c, (net & c->in_net) != 0 || (plain & c->in_plain) != 0,
         (net & c->out_net) != 0 || (plain & c->out_plain) != 0);
}

void hf_conn_move_all(struct conn *c)
{
    move(c, true, true);
}
