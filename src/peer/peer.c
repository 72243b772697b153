/* Messages between nodes, and finding out who is gone. All on the control loop. */
#include "peer/private.h"

#include <stdlib.h>
#include <sys/socket.h>
#include <unistd.h>

/* -- between the loop and the pumps ---------------------------------------------------------------------- */

void hf_peer_pipe_freed(uv_handle_t *handle)
{
    free(handle);
}

uv_pipe_t *hf_peer_pipe(struct hf_peer *p, int fd)
{
    uv_pipe_t *pipe = calloc(1, sizeof *pipe);

    if (pipe == NULL || uv_pipe_init(p->loop, pipe, 0) != 0) {
        free(pipe);
        close(fd);
        return NULL;
    }
    if (uv_pipe_open(pipe, fd) != 0) {
        close(fd);
        uv_close((uv_handle_t *)pipe, hf_peer_pipe_freed);
        return NULL;
    }
    return pipe;
}

bool hf_peer_pair(int fds[2])
{
    return socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0, fds) == 0;
}

void hf_peer_read_alloc(uv_handle_t *handle, size_t size, uv_buf_t *buf)
{
    static char scratch[4096]; /* one loop, one read at a time */

    (void)handle;
    (void)size;
    *buf = uv_buf_init(scratch, sizeof scratch);
}

static void on_hello(void *ctx, enum hf_purpose purpose, const struct hf_peer_identity *from,
                     const void *payload, size_t len, struct hf_tunnel *t)
{
    struct hf_peer *p = ctx;

    if (purpose == HF_PURPOSE_CONTROL)
        hf_incoming_take(p, from, t);
    else
        p->callbacks.on_tunnel(p->callbacks.ctx, purpose, from, payload, len, t);
}

static void on_token(void *ctx, const uint8_t bytes[HF_DEATH_TOKEN_BYTES])
{
    hf_incoming_token(ctx, bytes);
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
    hf_outgoing_init(p);
    *out = p;
    return 0;
}

void hf_peer_close(struct hf_peer *p)
{
    p->closing = true;
    hf_outgoing_close(p);
    hf_incoming_close(p);
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
    hf_outgoing_again(p);
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
