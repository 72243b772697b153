/* A socket that listens, in a loop. What comes is accepted, a bounded number of connections at a time, and given away. A process that has
 * no descriptor left for one says so and pauses: the connection stays in the queue, and would wake the loop for ever. */
#ifndef HF_BASE_LISTENER_H
#define HF_BASE_LISTENER_H

#include <stdbool.h>

#include <uv.h>

struct hf_listener {
    int fd; /* the caller's, who closes it after hf_listener_stop(); -1: none */
    uv_poll_t poll;
    uv_timer_t pause;
    const char *who; /* for the log */
    bool told;       /* that it cannot accept */
    void (*arrived)(void *ctx, int fd);
    void (*stopped)(void *ctx);
    void *ctx;
};

/* Listens with `fd` (base/net.h, non-blocking) from now on: `arrived` takes each connection, non-blocking and close-on-exec. 0 or negative. */
int hf_listener_start(struct hf_listener *l, uv_loop_t *loop, int fd, const char *who, void (*arrived)(void *ctx, int fd), void *ctx);
/* On the loop's thread. `stopped`, from the loop: the memory may go; NULL is fine. */
void hf_listener_stop(struct hf_listener *l, void (*stopped)(void *ctx));

#endif
