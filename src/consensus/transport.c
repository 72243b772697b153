#include "consensus/transport.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

struct hf_consensus_dial {
    struct hf_transport *t;
    struct raft_uv_connect *req; /* NULL once libraft has been told */
    raft_uv_connect_cb cb;
    int fd; /* our end */
    struct hf_consensus_dial *next, **at;
};

static void dial_unlink(struct hf_consensus_dial *d)
{
    *d->at = d->next;
    if (d->next != NULL)
        d->next->at = d->at;
}

static void free_handle(uv_handle_t *handle)
{
    raft_free(handle);
}

/* A stream that libraft will close and free with its own allocator. Takes fd. */
static uv_stream_t *stream_of(struct hf_transport *t, int fd)
{
    uv_pipe_t *pipe = raft_malloc(sizeof *pipe);

    if (pipe == NULL) {
        close(fd);
        return NULL;
    }
    if (uv_pipe_init(t->loop, pipe, 0) != 0) {
        raft_free(pipe);
        close(fd);
        return NULL;
    }
    if (uv_pipe_open(pipe, fd) != 0) {
        close(fd);
        uv_close((uv_handle_t *)pipe, free_handle);
        return NULL;
    }
    return (uv_stream_t *)pipe;
}

static int transport_init(struct raft_uv_transport *base, raft_id id, const char *address)
{
    (void)base;
    (void)id;
    (void)address;
    return 0;
}

static int transport_listen(struct raft_uv_transport *base, raft_uv_accept_cb cb)
{
    struct hf_transport *t = base->impl;

    t->accept = cb;
    return 0;
}

static int transport_connect(struct raft_uv_transport *base, struct raft_uv_connect *req,
                             raft_id id, const char *address, raft_uv_connect_cb cb)
{
    struct hf_transport *t = base->impl;
    struct hf_consensus_dial *d;
    const char *slash = strchr(address, '/');
    char name[128];
    int fds[2];

    if (slash == NULL || (size_t)(slash - address) >= sizeof name)
        return RAFT_INVALID;
    d = calloc(1, sizeof *d);
    if (d == NULL)
        return RAFT_NOMEM;
    if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0, fds) != 0) {
        free(d);
        return RAFT_NOCONNECTION;
    }
    (void)snprintf(name, sizeof name, "%.*s", (int)(slash - address), address);
    *d = (struct hf_consensus_dial){.t = t, .req = req, .cb = cb, .fd = fds[0], .next = t->dials};
    d->at = &t->dials;
    if (d->next != NULL)
        d->next->at = &d->next;
    t->dials = d;
    req->cb = cb;
    t->callbacks->dial(t->callbacks->ctx, d, id, name, slash + 1, fds[1]);
    return 0;
}

void hf_consensus_dialed(struct hf_consensus_dial *d, bool ok)
{
    uv_stream_t *stream = NULL;

    if (d->t != NULL)
        dial_unlink(d);
    if (d->req == NULL) { /* the transport was closed meanwhile */
        free(d);
        return;
    }
    if (ok)
        stream = stream_of(d->t, d->fd);
    else
        close(d->fd);
    d->cb(d->req, stream, stream != NULL ? 0 : RAFT_NOCONNECTION);
    free(d);
}

static void transport_close(struct raft_uv_transport *base, raft_uv_transport_close_cb cb)
{
    struct hf_transport *t = base->impl;

    t->closing = true;
    while (t->dials != NULL) {
        struct hf_consensus_dial *d = t->dials;
        struct raft_uv_connect *req = d->req;
        dial_unlink(d);
        close(d->fd);
        d->t = NULL;
        d->req = NULL;
        d->cb(req, NULL, RAFT_CANCELED);
    }
    cb(base);
}

void hf_transport_accepted(struct hf_transport *t, uint64_t id, const char *address, int fd)
{
    uv_stream_t *stream;

    if (t->closing || t->accept == NULL) {
        close(fd);
        return;
    }
    stream = stream_of(t, fd);
    if (stream != NULL)
        t->accept(&t->base, id, address, stream);
}

void hf_transport_init(struct hf_transport *t, uv_loop_t *loop,
                       const struct hf_consensus_callbacks *callbacks)
{
    memset(t, 0, sizeof *t);
    t->loop = loop;
    t->callbacks = callbacks;
    t->base.impl = t;
    t->base.init = transport_init;
    t->base.listen = transport_listen;
    t->base.connect = transport_connect;
    t->base.close = transport_close;
}
