/* The client's end of a session: bytes, plain or through TLS.
 *
 * OpenSSL reads one record at a time (no read-ahead) and a record fits in what is asked for, so nothing is ever
 * left inside it that the socket would not announce. A write that could not be finished is tried again with the
 * same bytes: whoever writes keeps them (struct hf_flow). */
#include <errno.h>
#include <sys/socket.h>

#include <openssl/err.h>

#include "base/log.h"
#include "router/session.h"

enum { SMALL = 4096 };

_Static_assert((int)HF_ROUTER_CLIENT_BYTES >= SSL3_RT_MAX_PLAIN_LENGTH, "a record must fit in one read");

/* 0: not now, -1: over. */
static int tls_wait(struct hf_session *s, int rv)
{
    int code = SSL_get_error(s->tls, rv);

    s->tls_wants_write = code == SSL_ERROR_WANT_WRITE;
    return code == SSL_ERROR_WANT_READ || code == SSL_ERROR_WANT_WRITE ? 0 : -1;
}

/* How: SSL_read_ex, or SSL_peek_ex, which leaves the bytes where they are. */
static ssize_t tls_read(struct hf_session *s, uint8_t *p, size_t n, int (*how)(SSL *, void *, size_t, size_t *))
{
    size_t got = 0;
    int rv;

    ERR_clear_error();
    rv = how(s->tls, p, n, &got);
    s->tls_wants_write = false;
    if (rv != 1)
        rv = tls_wait(s, rv);
    /* The loop says when the socket has more, but does not know of what OpenSSL has. A large record is seldom the last. */
    s->front->empty = rv == 0 || (rv == 1 && got < SMALL && SSL_has_pending(s->tls) == 0);
    return rv == 1 ? (ssize_t)got : rv;
}

static ssize_t tls_write(struct hf_session *s, const uint8_t *p, size_t n)
{
    size_t done = 0, sent;

    while (done < n) {
        int rv;
        ERR_clear_error();
        s->tls_wants_write = false;
        rv = SSL_write_ex(s->tls, p + done, n - done, &sent);
        if (rv != 1)
            return tls_wait(s, rv) == 0 ? (ssize_t)done : -1;
        done += sent;
    }
    return (ssize_t)done;
}

ssize_t hf_front_read(struct hf_session *s, uint8_t *p, size_t n)
{
    if (s->tls == NULL)
        return hf_end_read(s->front, p, n);
    return s->front->empty ? 0 : tls_read(s, p, n, SSL_read_ex);
}

ssize_t hf_front_peek(struct hf_session *s, uint8_t *p, size_t n)
{
    return s->tls != NULL ? tls_read(s, p, n, SSL_peek_ex) : hf_end_peek(s->front, p, n);
}

ssize_t hf_fd_write(int fd, const uint8_t *p, size_t n)
{
    size_t done = 0;

    while (done < n) {
        ssize_t rv = send(fd, p + done, n - done, MSG_NOSIGNAL);
        if (rv < 0 && errno == EINTR)
            continue;
        if (rv < 0 && errno == EAGAIN)
            break;
        if (rv < 0)
            return -1;
        done += (size_t)rv;
    }
    return (ssize_t)done;
}

ssize_t hf_front_write(struct hf_session *s, const uint8_t *p, size_t n)
{
    return s->tls != NULL ? tls_write(s, p, n) : hf_fd_write(s->front->fd, p, n);
}

bool hf_front_is_shaking(const struct hf_session *s)
{
    return s->tls != NULL && SSL_is_init_finished(s->tls) != 1;
}

int hf_front_shake(struct hf_session *s)
{
    char why[160] = "the connection ended";
    int rv;

    ERR_clear_error();
    rv = SSL_do_handshake(s->tls);
    s->tls_wants_write = false;
    if (rv == 1)
        return 1;
    if (tls_wait(s, rv) == 0)
        return 0;
    if (ERR_peek_last_error() != 0)
        ERR_error_string_n(ERR_peek_last_error(), why, sizeof why);
    ERR_clear_error();
    hf_debug("router: a client's TLS handshake failed: %s", why);
    return -1;
}

int hf_front_events(const struct hf_session *s, int events)
{
    return s->tls_wants_write && events != 0 ? events | UV_WRITABLE : events;
}

void hf_front_say_end(struct hf_session *s)
{
    if (s->tls != NULL && !hf_front_is_shaking(s)) {
        ERR_clear_error();
        (void)SSL_shutdown(s->tls); /* best effort: one way, no answer is waited for */
    }
    (void)shutdown(s->front->fd, SHUT_WR);
}

void hf_front_free(struct hf_session *s)
{
    SSL_free(s->tls);
    s->tls = NULL;
}
