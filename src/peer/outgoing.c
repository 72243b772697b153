/* To other nodes: we dial, again and again while we want to be connected, and send; what cannot be sent yet waits in a
 * bounded queue. */
#include "peer/private.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/log.h"

enum { RETRY_MIN_MS = 50, RETRY_MAX_MS = 500 };

static void out_dial(struct hf_outgoing *o);

static void out_down(struct hf_outgoing *o)
{
    if (o->pipe != NULL)
        uv_close((uv_handle_t *)o->pipe, hf_peer_pipe_freed);
    o->pipe = NULL;
    if (o->token_entry != NULL)
        atomic_store(&o->token_entry->used, 0);
    o->token_entry = NULL;
    o->token_have = 0;
    o->state = HF_LINK_IDLE;
}

static void retry_cb(uv_timer_t *timer)
{
    struct hf_outgoing *o = timer->data;

    if (o->used && o->state == HF_LINK_IDLE && (o->kept || o->n_queue > 0))
        out_dial(o);
}

static void out_later(struct hf_outgoing *o)
{
    o->retry_ms = o->retry_ms == 0 ? RETRY_MIN_MS : o->retry_ms * 2;
    if (o->retry_ms > RETRY_MAX_MS)
        o->retry_ms = RETRY_MAX_MS;
    (void)uv_timer_start(&o->retry, retry_cb, o->retry_ms, 0);
}

struct frame {
    uv_write_t req;
    uint8_t bytes[HF_FRAME_MAX];
};

static void written_cb(uv_write_t *req, int status)
{
    (void)status; /* a broken pipe is seen by the reader, too */
    free(req->data);
}

static void out_write(struct hf_outgoing *o, const struct hf_msg *m)
{
    struct frame *f = malloc(sizeof *f);
    uv_buf_t buf;
    size_t n;

    if (f == NULL)
        return; /* a message may always be lost */
    n = hf_msg_encode(m, f->bytes + 4);
    if (n == 0) {
        hf_err("peer: a %s message cannot be encoded", hf_msg_name(m->type));
        free(f);
        return;
    }
    for (int i = 0; i < 4; i++)
        f->bytes[i] = (uint8_t)(n >> (8 * i));
    buf = uv_buf_init((char *)f->bytes, (unsigned)n + 4);
    f->req.data = f;
    /* A peer that does not read for long is as good as gone: bounded by the kernel's buffer. */
    if (uv_stream_get_write_queue_size((uv_stream_t *)o->pipe) > 256 * 1024 ||
        uv_write(&f->req, (uv_stream_t *)o->pipe, &buf, 1, written_cb) != 0)
        free(f);
}

static void out_flush(struct hf_outgoing *o)
{
    while (o->n_queue > 0) {
        out_write(o, &o->queue[o->q_first]);
        o->q_first = (o->q_first + 1) % HF_QUEUE_MAX;
        o->n_queue--;
    }
}

/* The token is the only thing that comes back on a connection we dialed. */
static void token_kept(struct hf_outgoing *o)
{
    for (int i = 0; o->peer->page != NULL && i < HF_DEATH_PEERS_MAX; i++) {
        struct hf_death_entry *e = &o->peer->page->peers[i];
        if (atomic_load(&e->used) != 0)
            continue;
        e->address = o->sa;
        e->len = o->sa_len;
        memcpy(e->token, o->token, sizeof e->token);
        atomic_store(&e->used, 1);
        o->token_entry = e;
        return;
    }
}

static void out_read_cb(uv_stream_t *stream, ssize_t n, const uv_buf_t *buf)
{
    struct hf_outgoing *o = stream->data;

    if (n == 0)
        return;
    if (n < 0) {
        out_down(o);
        if (o->kept)
            out_later(o);
        return;
    }
    for (ssize_t i = 0; i < n && o->token_have < sizeof o->token; i++) {
        o->token[o->token_have++] = (uint8_t)buf->base[i];
        if (o->token_have == sizeof o->token)
            token_kept(o);
    }
}

static void out_opened(void *arg, int status, const char *text, const struct sockaddr *to,
                       socklen_t len)
{
    struct hf_outgoing *o = arg;

    if (!o->used)
        return;
    if (status != 0) {
        if (status == HF_EREFUSED && text[0] != '\0' && strstr(text, "refuses") != NULL)
            hf_warn("peer: %s", text);
        out_down(o);
        /* Somebody may be asked who does not exist. Who wants an answer asks again. */
        if (status == HF_ENOENT && !o->kept)
            o->n_queue = 0;
        out_later(o);
        return;
    }
    memcpy(&o->sa, to, len);
    o->sa_len = len;
    o->state = HF_LINK_UP;
    o->retry_ms = 0;
    (void)uv_timer_stop(&o->retry);
    if (uv_read_start((uv_stream_t *)o->pipe, hf_peer_read_alloc, out_read_cb) != 0)
        hf_warn("peer: cannot read from %s", o->to.name);
    out_flush(o);
    o->peer->callbacks.on_up(o->peer->callbacks.ctx, o->to.id, o->to.name);
}

static void out_dial(struct hf_outgoing *o)
{
    struct hf_dial d = {.arg = o, .opened = out_opened};
    int fds[2];

    if (!hf_peer_pair(fds)) {
        out_later(o);
        return;
    }
    o->pipe = hf_peer_pipe(o->peer, fds[0]);
    if (o->pipe == NULL) {
        close(fds[1]);
        out_later(o);
        return;
    }
    o->pipe->data = o;
    o->state = HF_LINK_DIALING;
    hf_pumps_dial(o->peer->pumps, o->to.name, o->to.addr, HF_PURPOSE_CONTROL, NULL, 0, fds[1], &d);
}

struct hf_outgoing *hf_outgoing_find(struct hf_peer *p, const char *name)
{
    for (int i = 0; i < HF_TARGETS_MAX; i++)
        if (p->out[i].used && strcmp(p->out[i].to.name, name) == 0)
            return &p->out[i];
    return NULL;
}

static struct hf_outgoing *out_get(struct hf_peer *p, const char *name, const char *addr)
{
    struct hf_outgoing *o = hf_outgoing_find(p, name);

    if (o == NULL) {
        for (int i = 0; i < HF_TARGETS_MAX && o == NULL; i++)
            if (!p->out[i].used)
                o = &p->out[i];
        if (o == NULL)
            return NULL;
        o->used = true;
        o->kept = false;
        o->retry_ms = 0;
        o->n_queue = 0;
        (void)snprintf(o->to.name, sizeof o->to.name, "%s", name);
        o->to.addr[0] = '\0';
    }
    if (strcmp(o->to.addr, addr) != 0) {
        (void)snprintf(o->to.addr, sizeof o->to.addr, "%s", addr);
        if (o->state == HF_LINK_UP)
            out_down(o); /* it moved */
    }
    return o;
}

void hf_peer_keep(struct hf_peer *p, const struct hf_peer_target *targets, unsigned n)
{
    for (int i = 0; i < HF_TARGETS_MAX; i++)
        p->out[i].kept = false;
    for (unsigned i = 0; i < n; i++) {
        struct hf_outgoing *o = out_get(p, targets[i].name, targets[i].addr);
        if (o == NULL)
            continue;
        o->kept = true;
        if (targets[i].id != 0)
            o->to.id = targets[i].id;
        if (o->state == HF_LINK_IDLE)
            out_dial(o);
    }
}

void hf_peer_send(struct hf_peer *p, const char *name, const char *addr, const struct hf_msg *m)
{
    struct hf_outgoing *o = out_get(p, name, addr);

    if (o == NULL)
        return;
    if (o->state == HF_LINK_UP) {
        out_write(o, m);
        return;
    }
    if (o->n_queue == HF_QUEUE_MAX) {
        o->q_first = (o->q_first + 1) % HF_QUEUE_MAX;
        o->n_queue--;
    }
    o->queue[(o->q_first + o->n_queue++) % HF_QUEUE_MAX] = *m;
    if (o->state == HF_LINK_IDLE && !uv_is_active((uv_handle_t *)&o->retry))
        out_dial(o);
}

/* -- life ------------------------------------------------------------------------------------------------ */

void hf_outgoing_init(struct hf_peer *p)
{
    for (int i = 0; i < HF_TARGETS_MAX; i++) {
        p->out[i].peer = p;
        (void)uv_timer_init(p->loop, &p->out[i].retry);
        p->out[i].retry.data = &p->out[i];
    }
}

void hf_outgoing_close(struct hf_peer *p)
{
    for (int i = 0; i < HF_TARGETS_MAX; i++) {
        if (p->out[i].used && p->out[i].pipe != NULL)
            uv_close((uv_handle_t *)p->out[i].pipe, hf_peer_pipe_freed);
        uv_close((uv_handle_t *)&p->out[i].retry, NULL);
    }
}

void hf_outgoing_again(struct hf_peer *p)
{
    for (int i = 0; i < HF_TARGETS_MAX; i++) {
        struct hf_outgoing *o = &p->out[i];
        if (!o->used || o->state != HF_LINK_UP)
            continue;
        out_down(o);
        out_dial(o);
    }
}
