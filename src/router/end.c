/* Descriptors, polled.
 *
 * By an epoll of the thread's own. libuv's takes a descriptor out and puts it in again whenever something else is
 * waited for (uv_poll_start), and that is twice in each transaction of a session that waits for a server connection: four system calls, a
 * seventh of all that a router did then. Here a change costs one, and none as a rule, for epoll says each thing once (EPOLLET): what it has said
 * and nobody has done is known here, and what is not waited for needs not be taken out. It is asked again for what was left.
 *
 * The loop of libuv, with the thread's timers and letters, is one descriptor in that epoll (uv_backend_fd): it runs when it has something to do,
 * so a turn that only sockets have caused is one system call. The other way round each would be two, and epoll would look twice at every socket.
 *
 * OpenSSL reads and writes by itself, so it is not known here what it has left: of TLS each thing is said as long as it is so. */
#include <errno.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <unistd.h>

#include "router/session.h"

static uint32_t asked(int events)
{
    return ((events & UV_READABLE) != 0 ? (uint32_t)EPOLLIN : 0) | ((events & UV_WRITABLE) != 0 ? (uint32_t)EPOLLOUT : 0) |
           ((events & UV_DISCONNECT) != 0 ? (uint32_t)EPOLLRDHUP : 0);
}

static int told(uint32_t events)
{
    return ((events & EPOLLIN) != 0 ? UV_READABLE : 0) | ((events & EPOLLOUT) != 0 ? UV_WRITABLE : 0) |
           ((events & EPOLLRDHUP) != 0 ? UV_DISCONNECT : 0);
}

static bool is_tls(const struct hf_end *e)
{
    return e == e->s->front && e->s->tls != NULL;
}

/* Has it been said already, and not been done? */
static bool is_left(const struct hf_end *e, int events)
{
    return ((events & UV_READABLE) != 0 && !e->empty) || (events & UV_WRITABLE) != 0 || ((events & UV_DISCONNECT) != 0 && e->hup) ||
           (events != 0 && e->broken);
}

static bool control(struct hf_end *e, int what)
{
    struct epoll_event is = {.events = e->armed, .data.ptr = e};

    return epoll_ctl(e->t->poller.fd, what, e->fd, &is) == 0;
}

static void arm(struct hf_end *e)
{
    e->armed = asked(e->events);
    if (!is_tls(e) || e->events == 0)
        e->armed |= EPOLLET;
    if (!is_tls(e) && (e->armed & EPOLLIN) != 0)
        e->armed |= EPOLLRDHUP; /* the end comes with something to read */
    e->again = true;
    if (!control(e, EPOLL_CTL_MOD))
        abort(); /* it takes no memory: this descriptor is not ours any more */
}

/* Can what is waited for now be heard of as it is armed? Room to write is told as often as there is some more. */
static bool is_armed_for(const struct hf_end *e, uint32_t events)
{
    return (e->armed & EPOLLET) != 0 && !is_tls(e) && (events & ~e->armed) == 0 && (e->armed & ~events & EPOLLOUT) == 0;
}

void hf_end_want(struct hf_end *e, int events)
{
    int was;

    if (e == NULL)
        return;
    was = e->events;
    e->events = events;
    if (!is_armed_for(e, asked(events)) ? was != events : is_left(e, events))
        arm(e);
}

/* What epoll says without being asked to stands for all that is waited for: to do it shows what is the matter. */
static void tell(struct hf_end *e, uint32_t events)
{
    struct hf_session *s = e->s;
    uint32_t wanted = asked(e->events);

    e->hup = e->hup || (events & (EPOLLRDHUP | EPOLLHUP)) != 0;
    e->broken = e->broken || (events & EPOLLERR) != 0;
    if (e->broken || e->hup || (events & EPOLLIN) != 0 || is_tls(e)) /* TLS may read once it could write */
        e->empty = false;
    if ((events & EPOLLHUP) != 0)
        events |= wanted;
    events &= wanted;
    if (e->events == 0 || (events == 0 && !e->broken))
        return;
    if (e->broken)
        hf_end_want(e, 0);
    e->again = false;
    hf_session_event(s, e == s->front, e->broken, e->broken ? 0 : told(events));
    if (!e->again && (e->armed & EPOLLET) != 0 && is_left(e, e->events))
        arm(e);
}

/* -- all of a thread's ---------------------------------------------------------------------------------- */

static void tidy(struct hf_poller *p)
{
    struct hf_end *e;

    while ((e = p->gone) != NULL) {
        p->gone = e->next;
        free(e->last);
        free(e);
    }
}

/* Has libuv's loop something to do? What was waited for as long as it had time for is a timer of its own. */
static bool is_for_loop(const struct hf_poller *p, int timeout)
{
    if (p->n <= 0 || timeout == 0)
        return true;
    for (int i = 0; i < p->n; i++)
        if (p->news[i].data.ptr == NULL)
            return true;
    return false;
}

/* Letters first: whoever has been cancelled, and says something then, has it done. The other way round that would be cancelled. */
void hf_poller_wait(struct hf_thread *t)
{
    struct hf_poller *p = &t->poller;
    int timeout;

    tidy(p);
    uv_update_time(&t->loop);
    timeout = uv_backend_timeout(&t->loop);
    p->n = epoll_wait(p->fd, p->news, HF_ROUTER_NEWS, timeout);
    p->at = -1;
    if (is_for_loop(p, timeout))
        (void)uv_run(&t->loop, UV_RUN_NOWAIT);
    else
        uv_update_time(&t->loop);
    if (!t->stopping)
        hf_mailbox_run(t->mailbox);
    for (p->at = 0; !t->stopping && p->at < p->n; p->at++)
        if (p->news[p->at].data.ptr != NULL)
            tell(p->news[p->at].data.ptr, p->news[p->at].events);
    p->n = 0;
}

bool hf_poller_open(struct hf_thread *t)
{
    struct epoll_event loop = {.events = EPOLLIN, .data.ptr = NULL};
    struct hf_poller *p = &t->poller;

    p->fd = epoll_create1(EPOLL_CLOEXEC);
    if (p->fd < 0)
        return false;
    (void)uv_run(&t->loop, UV_RUN_NOWAIT); /* only now are its own descriptors in its epoll */
    if (epoll_ctl(p->fd, EPOLL_CTL_ADD, uv_backend_fd(&t->loop), &loop) == 0)
        return true;
    close(p->fd);
    return false;
}

void hf_poller_close(struct hf_thread *t)
{
    tidy(&t->poller);
    close(t->poller.fd);
}

/* -- one --------------------------------------------------------------------------------------------------- */

struct hf_end *hf_end_open(struct hf_session *s, int fd)
{
    struct hf_end *e = calloc(1, sizeof *e);

    if (e != NULL) {
        *e = (struct hf_end){.t = s->t, .s = s, .fd = fd, .armed = EPOLLIN | EPOLLRDHUP | EPOLLET, .empty = true};
        if (control(e, EPOLL_CTL_ADD))
            return e;
    }
    free(e);
    close(fd);
    return NULL;
}

int hf_end_take(struct hf_end *e)
{
    struct hf_poller *p = &e->t->poller;

    e->events = 0;
    if (!control(e, EPOLL_CTL_DEL))
        abort(); /* not ours any more */
    for (int i = p->at + 1; i < p->n; i++)
        if (p->news[i].data.ptr == e)
            p->news[i].data.ptr = NULL;
    e->next = p->gone;
    p->gone = e;
    return e->fd;
}

void hf_end_close(struct hf_end *e)
{
    if (e != NULL)
        close(hf_end_take(e));
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

    e->empty = got >= 0 && (size_t)got < n && !e->hup && !e->broken;
    return got;
}

bool hf_end_wait(struct hf_end *e)
{
    e->empty = !e->hup && !e->broken;
    return e->empty;
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
