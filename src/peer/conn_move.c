/* An open tunnel: bytes in both directions, and what is read in passing. */
#include "peer/conn.h"

#include <errno.h>
#include <string.h>
#include <unistd.h>

#include <openssl/err.h>

#include "base/log.h"

static void plain_cb(uv_poll_t *poll, int status, int events)
{
    (void)status;
    (void)events;
    hf_conn_move(poll->data);
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

/* Returns false when the tunnel must end. */
static bool watch(struct conn *c, const uint8_t *p, size_t n)
{
    if (!c->watched)
        return true;
    hf_walwatch_bytes(&c->watch, p, n);
    if (!c->dialed && c->watch.named && c->member[0] != '\0' &&
        strcmp(c->watch.application_name, c->member) != 0) {
        hf_warn("peer: %s streams under the name %s, not %s: cut", c->from.name,
                c->watch.application_name, c->member);
        return false; /* S14: nobody is counted under another's name */
    }
    if (c->watch.news) {
        c->watch.news = false;
        hf_pumps_tell_flushed(c);
    }
    return true;
}

/* TLS -> plain. Returns events wanted of the network; *plain gets those of the plain side. -1: over. */
static int move_in(struct conn *c, int *plain)
{
    for (;;) {
        ssize_t n;
        if (c->in.len == 0) {
            int rv;
            ERR_clear_error(); /* SSL_get_error() looks at the thread's queue, whoever filled it */
            rv = SSL_read(c->ssl, c->in.bytes, HF_PIPE_BYTES);
            if (rv <= 0) {
                int e = SSL_get_error(c->ssl, rv);
                if (e == SSL_ERROR_WANT_READ)
                    return UV_READABLE;
                if (e == SSL_ERROR_WANT_WRITE)
                    return UV_WRITABLE;
                return -1;
            }
            c->in.at = 0;
            c->in.len = (size_t)rv;
            if (!watch(c, c->in.bytes, c->in.len))
                return -1;
        }
        n = write(c->plain, c->in.bytes + c->in.at, c->in.len);
        if (n < 0 && errno == EINTR)
            continue;
        if (n < 0 && errno == EAGAIN) {
            *plain |= UV_WRITABLE;
            return 0; /* back-pressure: read no more until this is gone */
        }
        if (n < 0)
            return -1;
        c->in.at += (size_t)n;
        c->in.len -= (size_t)n;
    }
}

/* plain -> TLS. */
static int move_out(struct conn *c, int *plain)
{
    for (;;) {
        int rv;
        if (c->out.len == 0) {
            ssize_t n = read(c->plain, c->out.bytes, HF_PIPE_BYTES);
            if (n < 0 && errno == EINTR)
                continue;
            if (n < 0 && errno == EAGAIN) {
                *plain |= UV_READABLE;
                return 0;
            }
            if (n <= 0)
                return -1;
            c->out.at = 0;
            c->out.len = (size_t)n;
        }
        ERR_clear_error();
        rv = SSL_write(c->ssl, c->out.bytes + c->out.at, (int)c->out.len);
        if (rv <= 0) {
            int e = SSL_get_error(c->ssl, rv);
            if (e == SSL_ERROR_WANT_WRITE)
                return UV_WRITABLE;
            if (e == SSL_ERROR_WANT_READ)
                return UV_READABLE;
            return -1;
        }
        c->out.at += (size_t)rv;
        c->out.len -= (size_t)rv;
    }
}

void hf_conn_move(struct conn *c)
{
    int plain = 0, in, out;

    if (c->state != CONN_OPEN)
        return;
    out = move_out(c, &plain);
    in = move_in(c, &plain);
    /* The other side's last bytes have been passed on by now, or nobody is left to take them. */
    if (in < 0 || out < 0) {
        hf_conn_close(c, HF_ECLOSED, "the tunnel ended");
        return;
    }
    hf_conn_want(c, in | out);
    if (c->state == CONN_OPEN)
        plain_want(c, plain);
}
