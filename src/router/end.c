/* A descriptor, polled. */
#include <errno.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <unistd.h>

#include "router/session.h"

struct hf_end *hf_end_open(struct hf_session *s, int fd)
{
    struct hf_end *e = calloc(1, sizeof *e);

    if (e != NULL && uv_poll_init(&s->t->loop, &e->poll, fd) != 0) {
        free(e);
        e = NULL;
    }
    if (e == NULL) {
        close(fd);
        return NULL;
    }
    e->fd = fd;
    e->poll.data = s;
    return e;
}

static void freed(uv_handle_t *handle)
{
    struct hf_end *e = (struct hf_end *)handle; /* its first member */

    free(e->last);
    free(e);
}

int hf_end_take(struct hf_end *e)
{
    int fd = e->fd;

    uv_close((uv_handle_t *)&e->poll, freed);
    return fd;
}

void hf_end_close(struct hf_end *e)
{
    if (e != NULL)
        close(hf_end_take(e));
}

static void poll_cb(uv_poll_t *poll, int status, int events)
{
    struct hf_end *e = (struct hf_end *)poll;
    struct hf_session *s = poll->data;

    if (status < 0)
        e->events = 0; /* libuv has stopped it */
    if (status < 0 || (events & UV_READABLE) != 0 || (e == s->front && s->tls != NULL)) /* TLS may read once it could write */
        e->empty = false;
    hf_session_event(s, e == s->front, status < 0, events);
}

void hf_end_want(struct hf_end *e, int events)
{
    if (e == NULL || e->events == events)
        return;
    e->events = events;
    if (events == 0)
        (void)uv_poll_stop(&e->poll);
    else
        (void)uv_poll_start(&e->poll, events, poll_cb);
}

static ssize_t receive(int fd, uint8_t *p, size_t n, int flags)
{
    ssize_t got;

    do
        got = recv(fd, p, n, flags);
    while (got < 0 && errno == EINTR);
    if (got < 0 && errno == EAGAIN)
        return 0;
    return got > 0 ? got : -1;
}

/* A stream gives what it has: less than was asked for is all. */
ssize_t hf_end_read(struct hf_end *e, uint8_t *p, size_t n)
{
    ssize_t got = e->empty ? 0 : receive(e->fd, p, n, 0);

    e->empty = got >= 0 && (size_t)got < n;
    return got;
}

void hf_end_look(struct hf_end *e)
{
    e->empty = false;
}

ssize_t hf_end_peek(struct hf_end *e, uint8_t *p, size_t n)
{
    ssize_t got = receive(e->fd, p, n, MSG_PEEK);

    e->empty = got == 0;
    return got;
}
