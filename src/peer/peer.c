/* Messages between nodes, and finding out who is gone. All on the control loop. */
#include "peer/peer.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>
#include <unistd.h>

#include "base/log.h"
#include "base/net.h"
#include "peer/pump.h"

enum {
    TARGETS_MAX = 32,
    INCOMING_MAX = 64,
    QUEUE_MAX = 32,   /* messages that wait for a connection */
    TOKENS_MAX = 64,
    RETRY_MIN_MS = 50,
    RETRY_MAX_MS = 500,
    PROBE_MS = 5,     /* is its port refused by now? */
    PROBES_MAX = 60,
    FRAME_MAX = 4 + HF_MSG_BYTES_MAX,
};

enum link_state { LINK_IDLE, LINK_DIALING, LINK_UP };

/* To one node: we dial, we send. */
struct outgoing {
    struct hf_peer *peer;
    bool used, kept;
    struct hf_peer_target to;
    enum link_state state;
    uv_pipe_t *pipe;
    uv_timer_t retry;
    unsigned retry_ms;
    struct hf_death_entry *token_entry;
    struct sockaddr_storage sa;
    socklen_t sa_len;
    uint8_t token[HF_DEATH_TOKEN_BYTES];
    size_t token_have;
    unsigned n_queue, q_first;
    struct hf_msg queue[QUEUE_MAX];
};

/* From one node: it dialed, we receive. */
struct incoming {
    struct hf_peer *peer;
    bool used;
    struct hf_peer_identity from;
    uv_pipe_t *pipe;
    size_t have;
    uint8_t buf[FRAME_MAX];
};

struct token {
    bool used;
    struct hf_peer_identity owner;
    uint8_t bytes[HF_DEATH_TOKEN_BYTES];
};

/* Looks whether the port of a node whose connection ended is refused. */
struct probe {
    struct hf_peer *peer;
    struct hf_peer_identity who;
    struct sockaddr_storage sa;
    uv_timer_t timer;
    uv_tcp_t tcp;
    uv_connect_t req;
    unsigned tries;
    bool proven, tcp_open;
};

struct hf_peer {
    uv_loop_t *loop;
    struct hf_pumps *pumps;
    struct hf_peer_callbacks callbacks;
    bool local, closing;
    hf_node_id self;
    struct hf_sentinel_page *page;
    struct outgoing out[TARGETS_MAX];
    struct incoming in[INCOMING_MAX];
    struct token tokens[TOKENS_MAX];
    unsigned next_token;
};

static void free_pipe(uv_handle_t *handle)
{
    free(handle);
}

static uv_pipe_t *pipe_of(struct hf_peer *p, int fd)
{
    uv_pipe_t *pipe = calloc(1, sizeof *pipe);

    if (pipe == NULL || uv_pipe_init(p->loop, pipe, 0) != 0) {
        free(pipe);
        close(fd);
        return NULL;
    }
    if (uv_pipe_open(pipe, fd) != 0) {
        close(fd);
        uv_close((uv_handle_t *)pipe, free_pipe);
        return NULL;
    }
    return pipe;
}

static bool pair(int fds[2])
{
    return socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0, fds) == 0;
}

/* -- sending --------------------------------------------------------------------------------------------- */

static void out_dial(struct outgoing *o);

static void out_down(struct outgoing *o)
{
    if (o->pipe != NULL)
        uv_close((uv_handle_t *)o->pipe, free_pipe);
    o->pipe = NULL;
    if (o->token_entry != NULL)
        atomic_store(&o->token_entry->used, 0);
    o->token_entry = NULL;
    o->token_have = 0;
    o->state = LINK_IDLE;
}

static void retry_cb(uv_timer_t *timer)
{
    struct outgoing *o = timer->data;

    if (o->used && o->state == LINK_IDLE && (o->kept || o->n_queue > 0))
        out_dial(o);
}

static void out_later(struct outgoing *o)
{
    o->retry_ms = o->retry_ms == 0 ? RETRY_MIN_MS : o->retry_ms * 2;
    if (o->retry_ms > RETRY_MAX_MS)
        o->retry_ms = RETRY_MAX_MS;
    (void)uv_timer_start(&o->retry, retry_cb, o->retry_ms, 0);
}

struct frame {
    uv_write_t req;
    uint8_t bytes[FRAME_MAX];
};

static void written_cb(uv_write_t *req, int status)
{
    (void)status; /* a broken pipe is seen by the reader, too */
    free(req->data);
}

static void out_write(struct outgoing *o, const struct hf_msg *m)
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

static void out_flush(struct outgoing *o)
{
    while (o->n_queue > 0) {
        out_write(o, &o->queue[o->q_first]);
        o->q_first = (o->q_first + 1) % QUEUE_MAX;
        o->n_queue--;
    }
}

/* The token is the only thing that comes back on a connection we dialed. */
static void token_kept(struct outgoing *o)
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

static void alloc_cb(uv_handle_t *handle, size_t size, uv_buf_t *buf)
{
    static char scratch[4096]; /* one loop, one read at a time */

    (void)handle;
    (void)size;
    *buf = uv_buf_init(scratch, sizeof scratch);
}

static void out_read_cb(uv_stream_t *stream, ssize_t n, const uv_buf_t *buf)
{
    struct outgoing *o = stream->data;

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
    struct outgoing *o = arg;

    if (!o->used)
        return;
    if (status != 0) {
        if (status == HF_EREFUSED && text[0] != '\0' && strstr(text, "refuses") != NULL)
            hf_warn("peer: %s", text);
        out_down(o);
        if (o->kept || o->n_queue > 0)
            out_later(o);
        return;
    }
    memcpy(&o->sa, to, len);
    o->sa_len = len;
    o->state = LINK_UP;
    o->retry_ms = 0;
    (void)uv_timer_stop(&o->retry);
    if (uv_read_start((uv_stream_t *)o->pipe, alloc_cb, out_read_cb) != 0)
        hf_warn("peer: cannot read from %s", o->to.name);
    out_flush(o);
    o->peer->callbacks.on_up(o->peer->callbacks.ctx, o->to.id, o->to.name);
}

static void out_dial(struct outgoing *o)
{
    struct hf_dial d = {.arg = o, .opened = out_opened};
    int fds[2];

    if (!pair(fds)) {
        out_later(o);
        return;
    }
    o->pipe = pipe_of(o->peer, fds[0]);
    if (o->pipe == NULL) {
        close(fds[1]);
        out_later(o);
        return;
    }
    o->pipe->data = o;
    o->state = LINK_DIALING;
    hf_pumps_dial(o->peer->pumps, o->to.name, o->to.addr, HF_PURPOSE_CONTROL, NULL, 0, fds[1], &d);
}

static struct outgoing *out_find(struct hf_peer *p, const char *name)
{
    for (int i = 0; i < TARGETS_MAX; i++)
        if (p->out[i].used && strcmp(p->out[i].to.name, name) == 0)
            return &p->out[i];
    return NULL;
}

static struct outgoing *out_get(struct hf_peer *p, const char *name, const char *addr)
{
    struct outgoing *o = out_find(p, name);

    if (o == NULL) {
        for (int i = 0; i < TARGETS_MAX && o == NULL; i++)
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
        if (o->state == LINK_UP)
            out_down(o); /* it moved */
    }
    return o;
}

void hf_peer_keep(struct hf_peer *p, const struct hf_peer_target *targets, unsigned n)
{
    for (int i = 0; i < TARGETS_MAX; i++)
        p->out[i].kept = false;
    for (unsigned i = 0; i < n; i++) {
        struct outgoing *o = out_get(p, targets[i].name, targets[i].addr);
        if (o == NULL)
            continue;
        o->kept = true;
        if (targets[i].id != 0)
            o->to.id = targets[i].id;
        if (o->state == LINK_IDLE)
            out_dial(o);
    }
}

void hf_peer_send(struct hf_peer *p, const char *name, const char *addr, const struct hf_msg *m)
{
    struct outgoing *o = out_get(p, name, addr);

    if (o == NULL)
        return;
    if (o->state == LINK_UP) {
        out_write(o, m);
        return;
    }
    if (o->n_queue == QUEUE_MAX) {
        o->q_first = (o->q_first + 1) % QUEUE_MAX;
        o->n_queue--;
    }
    o->queue[(o->q_first + o->n_queue++) % QUEUE_MAX] = *m;
    if (o->state == LINK_IDLE && !uv_is_active((uv_handle_t *)&o->retry))
        out_dial(o);
}

/* -- is it gone? ----------------------------------------------------------------------------------------- */

static void probe_closed(uv_handle_t *handle)
{
    free(handle->data);
}

static void probe_end(struct probe *b)
{
    if (b->proven && !b->peer->closing)
        b->peer->callbacks.on_down(b->peer->callbacks.ctx, b->who.id, b->who.name, true);
    uv_close((uv_handle_t *)&b->timer, probe_closed);
}

static void probe_tcp_closed(uv_handle_t *handle)
{
    struct probe *b = handle->data;

    b->tcp_open = false;
    if (b->proven || b->tries >= PROBES_MAX || b->peer->closing)
        probe_end(b);
}

static void probe_connected(uv_connect_t *req, int status)
{
    struct probe *b = req->data;

    b->proven = status == UV_ECONNREFUSED;
    uv_close((uv_handle_t *)&b->tcp, probe_tcp_closed);
}

static void probe_timer(uv_timer_t *timer)
{
    struct probe *b = timer->data;

    if (b->tcp_open || b->proven || b->tries >= PROBES_MAX)
        return;
    b->tries++;
    if (uv_tcp_init(b->peer->loop, &b->tcp) != 0)
        return;
    b->tcp.data = b;
    b->req.data = b;
    b->tcp_open = true;
    if (uv_tcp_connect(&b->req, &b->tcp, (struct sockaddr *)&b->sa, probe_connected) != 0)
        uv_close((uv_handle_t *)&b->tcp, probe_tcp_closed);
}

static void probe_begin(struct hf_peer *p, const struct hf_peer_identity *who)
{
    const struct outgoing *o = out_find(p, who->name);
    struct probe *b;

    if (!p->local || o == NULL || o->sa_len == 0 ||
        !hf_net_is_loopback((const struct sockaddr *)&o->sa))
        return;
    b = calloc(1, sizeof *b);
    if (b == NULL)
        return;
    *b = (struct probe){.peer = p, .who = *who, .sa = o->sa};
    (void)uv_timer_init(p->loop, &b->timer);
    b->timer.data = b;
    (void)uv_timer_start(&b->timer, probe_timer, 0, PROBE_MS);
}

/* -- receiving ------------------------------------------------------------------------------------------- */

static void in_down(struct incoming *in, bool tell)
{
    struct hf_peer_identity who = in->from;
    struct hf_peer *p = in->peer;

    uv_close((uv_handle_t *)in->pipe, free_pipe);
    in->used = false;
    if (!tell || p->closing)
        return;
    p->callbacks.on_down(p->callbacks.ctx, who.id, who.name, false);
    probe_begin(p, &who);
}

static void in_read_cb(uv_stream_t *stream, ssize_t n, const uv_buf_t *buf)
{
    struct incoming *in = stream->data;

    if (n < 0) {
        in_down(in, true);
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
            in_down(in, true);
            return;
        }
        if (in->have < want + 4)
            continue;
        in->have = 0;
        if (!hf_msg_decode(&m, in->buf + 4, want)) {
            hf_warn("peer: %s sends what is no message: cut", in->from.name);
            in_down(in, true);
            return;
        }
        in->peer->callbacks.on_message(in->peer->callbacks.ctx, &in->from, &m);
        if (!in->used)
            return;
    }
}

static void control_in(struct hf_peer *p, const struct hf_peer_identity *from, struct hf_tunnel *t)
{
    struct incoming *in = NULL;
    struct token *k = &p->tokens[p->next_token++ % TOKENS_MAX];
    uv_buf_t buf;
    int fds[2];

    for (int i = 0; i < INCOMING_MAX && in == NULL; i++)
        if (!p->in[i].used)
            in = &p->in[i];
    if (in == NULL || !pair(fds)) {
        hf_tunnel_refuse(t, "too many connections");
        return;
    }
    in->pipe = pipe_of(p, fds[0]);
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
    for (int i = 0; i < TOKENS_MAX; i++)
        if (p->tokens[i].used && memcmp(&p->tokens[i].owner.uuid, &from->uuid, sizeof from->uuid) == 0 &&
            strcmp(p->tokens[i].owner.name, from->name) == 0)
            p->tokens[i].used = false;
    k->owner = *from;
    k->used = getrandom(k->bytes, sizeof k->bytes, 0) == (ssize_t)sizeof k->bytes;
    buf = uv_buf_init((char *)k->bytes, sizeof k->bytes);
    if (k->used)
        (void)uv_try_write((uv_stream_t *)in->pipe, &buf, 1);
    hf_tunnel_accept(t, fds[1], 0, NULL);
    (void)uv_read_start((uv_stream_t *)in->pipe, alloc_cb, in_read_cb);
}

static void on_hello(void *ctx, enum hf_purpose purpose, const struct hf_peer_identity *from,
                     const void *payload, size_t len, struct hf_tunnel *t)
{
    struct hf_peer *p = ctx;

    if (purpose == HF_PURPOSE_CONTROL)
        control_in(p, from, t);
    else
        p->callbacks.on_tunnel(p->callbacks.ctx, purpose, from, payload, len, t);
}

static void on_token(void *ctx, const uint8_t bytes[HF_DEATH_TOKEN_BYTES])
{
    struct hf_peer *p = ctx;

    for (int i = 0; i < TOKENS_MAX; i++) {
        struct token *k = &p->tokens[i];
        if (!k->used || memcmp(k->bytes, bytes, sizeof k->bytes) != 0)
            continue;
        k->used = false;
        p->callbacks.on_down(p->callbacks.ctx, k->owner.id, k->owner.name, true);
        return;
    }
}

static void on_flushed(void *ctx, const struct hf_wal_word *word)
{
    struct hf_peer *p = ctx;

    p->callbacks.on_flushed(p->callbacks.ctx, word);
}

static void on_wal_closed(void *ctx, hf_node_id id, uint64_t tag)
{
    struct hf_peer *p = ctx;

    p->callbacks.on_wal_closed(p->callbacks.ctx, id, tag);
}

/* -- life ------------------------------------------------------------------------------------------------ */

int hf_peer_open(struct hf_peer **out, uv_loop_t *loop, const struct hf_peer_config *config,
                 const struct hf_peer_callbacks *callbacks, struct hf_error *err)
{
    struct hf_peer *p = calloc(1, sizeof *p);
    struct hf_pumps_callbacks pc = {
        .ctx = p,
        .on_hello = on_hello,
        .on_token = on_token,
        .on_flushed = on_flushed,
        .on_wal_closed = on_wal_closed,
    };
    int rv;

    if (p == NULL)
        return hf_fail(err, HF_ENOMEM, "peer: out of memory");
    p->loop = loop;
    p->callbacks = *callbacks;
    p->local = config->local;
    p->page = config->page;
    rv = hf_pumps_open(&p->pumps, loop, config, &pc, err);
    if (rv != 0) {
        free(p);
        return rv;
    }
    for (int i = 0; i < TARGETS_MAX; i++) {
        p->out[i].peer = p;
        (void)uv_timer_init(loop, &p->out[i].retry);
        p->out[i].retry.data = &p->out[i];
    }
    *out = p;
    return 0;
}

void hf_peer_close(struct hf_peer *p)
{
    p->closing = true;
    for (int i = 0; i < TARGETS_MAX; i++) {
        if (p->out[i].used && p->out[i].pipe != NULL)
            uv_close((uv_handle_t *)p->out[i].pipe, free_pipe);
        uv_close((uv_handle_t *)&p->out[i].retry, NULL);
    }
    for (int i = 0; i < INCOMING_MAX; i++)
        if (p->in[i].used)
            uv_close((uv_handle_t *)p->in[i].pipe, free_pipe);
    hf_pumps_close(p->pumps);
    /* The timers inside p are closed when the loop runs on, so p stays until the process ends. */
}

void hf_peer_identify(struct hf_peer *p, const struct hf_peer_identity *self)
{
    hf_pumps_identify(p->pumps, self);
    if (self->id == p->self)
        return;
    /* Connections made under the former id would be taken for somebody else's: begin anew. */
    p->self = self->id;
    for (int i = 0; i < TARGETS_MAX; i++) {
        struct outgoing *o = &p->out[i];
        if (!o->used || o->state != LINK_UP)
            continue;
        out_down(o);
        out_dial(o);
    }
}

int hf_peer_reload(struct hf_peer *p, const char *tls_dir, struct hf_error *err)
{
    return hf_pumps_reload(p->pumps, tls_dir, err);
}

void hf_peer_dial(struct hf_peer *p, const char *name, const char *addr, enum hf_purpose purpose,
                  const void *payload, size_t len, int fd, const struct hf_dial *d)
{
    hf_pumps_dial(p->pumps, name, addr, purpose, payload, len, fd, d);
}

void hf_peer_cut(struct hf_peer *p, enum hf_purpose purpose, bool dialed, void (*done)(void *arg),
                 void *arg)
{
    hf_pumps_cut(p->pumps, purpose, dialed, done, arg);
}
