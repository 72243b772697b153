#include "base/listener.h"

#include <errno.h>
#include <string.h>
#include <sys/socket.h>

#include "base/error.h"
#include "base/log.h"

enum { ACCEPTS_PER_TURN = 64, PAUSE_MS = 100 };

static void listen_cb(uv_poll_t *poll, int status, int events);

static void pause_over(uv_timer_t *timer)
{
    struct hf_listener *l = timer->data;

    (void)uv_poll_start(&l->poll, UV_READABLE, listen_cb);
}

static void listen_cb(uv_poll_t *poll, int status, int events)
{
    struct hf_listener *l = poll->data;

    (void)status;
    (void)events;
    for (int i = 0; i < ACCEPTS_PER_TURN; i++) {
        int fd = accept4(l->fd, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC);
        if (fd >= 0) {
            l->told = false;
            l->arrived(l->ctx, fd);
            continue;
        }
        if (errno == EINTR || errno == ECONNABORTED)
            continue;
        if (errno == EAGAIN)
            return;
        if (!l->told)
            hf_warn("%s: cannot accept: %s%s", l->who, strerror(errno),
                    errno == EMFILE || errno == ENFILE ? " (hint: raise the limit of open files)" : "");
        l->told = true;
        (void)uv_poll_stop(&l->poll);
        (void)uv_timer_start(&l->pause, pause_over, PAUSE_MS, 0);
        return;
    }
}

int hf_listener_start(struct hf_listener *l, uv_loop_t *loop, int fd, const char *who, void (*arrived)(void *ctx, int fd), void *ctx)
{
    *l = (struct hf_listener){.fd = fd, .who = who, .arrived = arrived, .ctx = ctx};
    if (uv_poll_init(loop, &l->poll, fd) != 0) {
        l->fd = -1;
        return HF_EIO;
    }
    (void)uv_timer_init(loop, &l->pause);
    l->poll.data = l->pause.data = l;
    (void)uv_poll_start(&l->poll, UV_READABLE, listen_cb);
    return 0;
}

static void timer_closed(uv_handle_t *handle)
{
    struct hf_listener *l = handle->data;

    if (l->stopped != NULL)
        l->stopped(l->ctx);
}

static void poll_closed(uv_handle_t *handle)
{
    struct hf_listener *l = handle->data;

    uv_close((uv_handle_t *)&l->pause, timer_closed);
}

void hf_listener_stop(struct hf_listener *l, void (*stopped)(void *ctx))
{
    l->stopped = stopped;
    (void)uv_timer_stop(&l->pause);
    uv_close((uv_handle_t *)&l->poll, poll_closed);
}
