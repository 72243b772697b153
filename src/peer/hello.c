/* What two nodes tell each other before a tunnel opens: who they are, what for, and the answer. Frames of a length
 * and that many bytes, over TLS. */
#include "peer/conn.h"

#include <stdio.h>
#include <string.h>

#include <openssl/err.h>

#include "base/net.h"

enum { VERSION = 1, HELLO_MIN = 2 + 8 + 16 + 16 + 8 + 1 };
/* In the hello beside the purpose: "from the answer on, no more TLS"; and the answers. */
enum { OFFER_BARE = 0x80, REFUSED = 0, WELCOME = 1, WELCOME_BARE = 2 };

/* -- frames: a length of 4 bytes, then that many --------------------------------------------------------- */

static void put(uint8_t *p, uint64_t v, unsigned n)
{
    for (unsigned i = 0; i < n; i++)
        p[i] = (uint8_t)(v >> (8 * i));
}

static uint64_t get(const uint8_t *p, unsigned n)
{
    uint64_t v = 0;

    for (unsigned i = 0; i < n; i++)
        v |= (uint64_t)p[i] << (8 * i);
    return v;
}

/* 1: written, 0: waiting, -1: closed. */
int hf_frame_out(struct conn *c)
{
    while (c->frame_at < c->frame_len) {
        int rv;
        ERR_clear_error(); /* SSL_get_error() looks at the thread's queue, whoever filled it */
        rv = SSL_write(c->ssl, c->frame + c->frame_at, (int)(c->frame_len - c->frame_at));
        if (rv <= 0)
            return hf_conn_tls_wait(c, rv) ? 0 : -1;
        c->frame_at += (size_t)rv;
    }
    c->frame_at = c->frame_len = 0;
    return 1;
}

/* Reads not a byte past the frame: what follows belongs to the tunnel. */
int hf_frame_in(struct conn *c)
{
    for (;;) {
        size_t want = 4;
        int rv;
        if (c->frame_len >= 4) {
            want = 4 + (size_t)get(c->frame, 4);
            if (want > sizeof c->frame) {
                hf_conn_close(c, HF_EINVAL, "a first message that is too long");
                return -1;
            }
        }
        if (c->frame_len >= 4 && c->frame_len == want)
            return 1;
        ERR_clear_error();
        rv = SSL_read(c->ssl, c->frame + c->frame_len, (int)(want - c->frame_len));
        if (rv <= 0)
            return hf_conn_tls_wait(c, rv) ? 0 : -1;
        c->frame_len += (size_t)rv;
    }
}

/* Both ends in the local runtime, and not by way of anything but this machine's loopback. */
static bool may_be_bare(const struct conn *c)
{
    struct sockaddr_storage to;
    socklen_t len = sizeof to;

    return c->pump->owner->local && getpeername(c->fd, (struct sockaddr *)&to, &len) == 0 &&
           (to.ss_family == AF_UNIX || hf_net_is_loopback((const struct sockaddr *)&to));
}

void hf_hello_build(struct conn *c)
{
    struct hf_peer_identity self;
    uint8_t *p = c->frame + 4;
    size_t n;

    uv_mutex_lock(&c->pump->owner->mutex);
    self = c->pump->owner->self;
    uv_mutex_unlock(&c->pump->owner->mutex);
    *p++ = VERSION;
    *p++ = (uint8_t)(c->purpose | (may_be_bare(c) ? OFFER_BARE : 0));
    put(p, self.id, 8);
    memcpy(p + 8, &self.cluster_id, 16);
    memcpy(p + 24, &self.uuid, 16);
    put(p + 40, self.system_id, 8);
    p += 48;
    n = strlen(c->pump->owner->name);
    *p++ = (uint8_t)n;
    memcpy(p, c->pump->owner->name, n);
    p += n;
    put(p, c->payload_len, 2);
    memcpy(p + 2, c->payload, c->payload_len);
    p += 2 + c->payload_len;
    c->frame_len = (size_t)(p - c->frame);
    put(c->frame, c->frame_len - 4, 4);
    c->frame_at = 0;
}

/* False: closed or refused. */
bool hf_hello_read(struct conn *c, const uint8_t **payload, size_t *payload_len)
{
    const uint8_t *p = c->frame + 4, *end = c->frame + c->frame_len;
    size_t n;

    if (end - p < HELLO_MIN || p[0] != VERSION || (p[1] & ~OFFER_BARE) < HF_PURPOSE_CONTROL ||
        (p[1] & ~OFFER_BARE) > HF_PURPOSE_ADMIN)
        return false;
    c->purpose = (enum hf_purpose)(p[1] & ~OFFER_BARE);
    c->bare = (p[1] & OFFER_BARE) != 0 && may_be_bare(c);
    c->from.id = get(p + 2, 8);
    memcpy(&c->from.cluster_id, p + 10, 16);
    memcpy(&c->from.uuid, p + 26, 16);
    c->from.system_id = get(p + 42, 8);
    p += 50;
    n = *p++;
    if (n == 0 || n >= HF_NAME_MAX || (size_t)(end - p) < n + 2 || memchr(p, 0, n) != NULL)
        return false;
    memcpy(c->from.name, p, n);
    c->from.name[n] = '\0';
    p += n;
    *payload_len = (size_t)get(p, 2);
    *payload = p + 2;
    return *payload_len <= HF_PAYLOAD_MAX && (size_t)(end - p) == 2 + *payload_len;
}

static void id_text(const struct hf_uuid *u, char out[9])
{
    (void)snprintf(out, 9, "%02x%02x%02x%02x", u->b[0], u->b[1], u->b[2], u->b[3]);
}

/* NULL: welcome. */
const char *hf_hello_stranger(const struct conn *c, char *text, size_t cap)
{
    static const struct hf_uuid none;
    struct hf_peer_identity self;
    char theirs[9], ours[9];

    uv_mutex_lock(&c->pump->owner->mutex);
    self = c->pump->owner->self;
    uv_mutex_unlock(&c->pump->owner->mutex);
    if (!hf_tls_peer_is(&c->pump->owner->tls, c->ssl, c->from.name)) {
        (void)snprintf(text, cap, "the certificate does not carry the name %s", c->from.name);
        return text;
    }
    if (memcmp(&self.cluster_id, &none, 16) == 0 || memcmp(&c->from.cluster_id, &none, 16) == 0)
        return NULL;
    if (c->purpose == HF_PURPOSE_CONTROL && (self.system_id == 0 || c->from.system_id == 0))
        return NULL; /* while a cluster is founded, ids may still change (core/form.h) */
    if (memcmp(&self.cluster_id, &c->from.cluster_id, 16) == 0)
        return NULL;
    id_text(&c->from.cluster_id, theirs);
    id_text(&self.cluster_id, ours);
    (void)snprintf(text, cap, "cluster id %s.. of %s is not %s.. of %s", theirs, c->from.name, ours,
                   c->pump->owner->name);
    return text;
}

void hf_answer_build(struct conn *c, bool ok, const char *text)
{
    size_t n = text != NULL ? strlen(text) : 0;

    if (n > 200)
        n = 200;
    c->frame[4] = !ok ? REFUSED : c->bare ? WELCOME_BARE : WELCOME;
    if (n > 0)
        memcpy(c->frame + 5, text, n);
    c->frame_len = 5 + n;
    put(c->frame, c->frame_len - 4, 4);
    c->frame_at = 0;
    c->refuse = !ok;
    c->state = CONN_REPLY_OUT;
}

bool hf_answer_read(struct conn *c)
{
    if (c->frame_len < 5)
        return false;
    c->bare = c->frame[4] == WELCOME_BARE && may_be_bare(c);
    return c->frame[4] == WELCOME || c->bare;
}
