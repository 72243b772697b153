/* From other nodes: one dialed, it gets a death token, and we receive. */
#include "peer/private.h"

#include <string.h>
#include <sys/random.h>
#include <unistd.h>

#include "base/log.h"

static void in_down(struct hf_incoming *in)
{
    struct hf_peer_identity who = in->from;
    struct hf_peer *p = in->peer;

    uv_close((uv_handle_t *)in->pipe, hf_peer_pipe_freed);
    in->used = false;
    if (p->closing)
        return;
    p->callbacks.on_down(p->callbacks.ctx, who.id, who.name, false);
    hf_gone_probe(p, &who);
}

static void in_read_cb(uv_stream_t *stream, ssize_t n, const uv_buf_t *buf)
{
    struct hf_incoming *in = stream->data;

    if (n < 0) {
        in_down(in);
        return;
    }
    for (ssize_t i = 0; i < n; i++) {
        size_t want;
        struct hf_msg m;
        in->buf[in->have++] = (uint8_t)buf->base[i];
        if (in->have < 4)
            continue;
        want = in->buf[0] | (size_t)in->buf[1] << 8 | (size_t)in->buf[2] << 16 |
               (size_t)in->buf[3] << 24;
        if (want == 0 || want > HF_MSG_BYTES_MAX) {
            hf_warn("peer: %s sends frames of %zu bytes: cut", in->from.name, want);
            in_down(in);
            return;
        }
        if (in->have < want + 4)
            continue;
        in->have = 0;
        if (hf_msg_is_later(in->buf + 4, want))
            continue;
        if (!hf_msg_decode(&m, in->buf + 4, want)) {
            hf_warn("peer: %s sends what is no message: cut", in->from.name);
            in_down(in);
            return;
        }
        in->peer->callbacks.on_message(in->peer->callbacks.ctx, &in->from, &m);
        if (!in->used)
            return;
    }
}

void hf_incoming_take(struct hf_peer *p, const struct hf_peer_identity *from, struct hf_tunnel *t)
{
    struct hf_incoming *in = NULL;
    struct hf_token *k = &p->tokens[p->next_token++ % HF_TOKENS_MAX];
    uv_buf_t buf;
    int fds[2];

    for (int i = 0; i < HF_INCOMING_MAX && in == NULL; i++)
        if (!p->in[i].used)
            in = &p->in[i];
    if (in == NULL || !hf_peer_pair(fds)) {
        hf_tunnel_refuse(t, "too many connections");
        return;
    }
    in->pipe = hf_peer_pipe(p, fds[0]);
    if (in->pipe == NULL) {
        close(fds[1]);
        hf_tunnel_refuse(t, "out of memory");
        return;
    }
    in->peer = p;
    in->used = true;
    in->from = *from;
    in->have = 0;
    in->pipe->data = in;
    /* S6: a token proves the death of the process that it was given to. That one is gone, or has connected anew:
     * a late token of its must not let off what the next process is promised. */
    for (int i = 0; i < HF_TOKENS_MAX; i++)
        if (p->tokens[i].used && memcmp(&p->tokens[i].owner.uuid, &from->uuid, sizeof from->uuid) == 0 &&
            strcmp(p->tokens[i].owner.name, from->name) == 0)
            p->tokens[i].used = false;
    k->owner = *from;
    k->used = getrandom(k->bytes, sizeof k->bytes, 0) == (ssize_t)sizeof k->bytes;
    buf = uv_buf_init((char *)k->bytes, sizeof k->bytes);
    if (k->used)
        (void)uv_try_write((uv_stream_t *)in->pipe, &buf, 1);
    hf_tunnel_accept(t, fds[1], NULL);
    (void)uv_read_start((uv_stream_t *)in->pipe, hf_peer_read_alloc, in_read_cb);
}

void hf_incoming_token(struct hf_peer *p, const uint8_t bytes[HF_DEATH_TOKEN_BYTES])
{
    for (int i = 0; i < HF_TOKENS_MAX; i++) {
        struct hf_token *k = &p->tokens[i];
        if (!k->used || memcmp(k->bytes, bytes, sizeof k->bytes) != 0)
            continue;
        k->used = false;
        p->callbacks.on_down(p->callbacks.ctx, k->owner.id, k->owner.name, true);
        return;
    }
}

void hf_incoming_close(struct hf_peer *p)
{
    for (int i = 0; i < HF_INCOMING_MAX; i++)
        if (p->in[i].used)
            uv_close((uv_handle_t *)p->in[i].pipe, hf_peer_pipe_freed);
}
