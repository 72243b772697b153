/* Clients that fall silent, at the front alone, where they are connected. What is looked after by one timer for each thread, two of it by bounds
 * (router.h):
 *
 *   - *Stalled*: a session has a server connection that it shares (share.h), and its server waits for its client, which has stopped in the
 *     middle of a message, or does not take what it has been answered. While others wait in line for a connection of that pool this is so for
 *     `stalled_ms`: it is ended. Who goes on by less than HF_STALLED_RATE has stopped, too: a byte now and then is no way to keep a connection.
 *     Not in COPY FROM, where a client may have nothing to say; and an open transaction is no stall (PostgreSQL's idle_in_transaction_session_timeout).
 *   - *Idle*: outside of a transaction, with nothing asked that is not answered, for `idle_ms`, with a server connection or without: ended.
 *     Not who listens, if the guard tells.
 *   - *Dead*: its host, or the way there, has vanished with something sent to it (hf_net_is_dead): ended, with what its transaction has locked.
 *
 * Between two looks at the dead the timer looks at the clock, and not at sessions, unless somebody has waited for a connection since it did so last,
 * or somebody may have been idle for too long. Private to src/router. */
#ifndef HF_ROUTER_SILENT_H
#define HF_ROUTER_SILENT_H

#include <stdbool.h>
#include <stdint.h>
#include <uv.h>

struct hf_session;
struct hf_thread;

enum { HF_STALLED_RATE = 256 }; /* bytes a second */

enum hf_awaited { HF_AWAITED_NOT, HF_AWAITED_TO_GIVE, HF_AWAITED_TO_TAKE };

/* A session's: what its server waits for, as long as it has been seen to do so each time. */
struct hf_stall {
    enum hf_awaited what;
    unsigned tick; /* when it was seen last */
    uint64_t since_ms;
    int64_t bytes; /* given or taken until then */
};

/* A thread's. */
struct hf_silence {
    uv_timer_t timer; /* runs while there are clients */
    bool running;
    unsigned tick;
    uint64_t tick_ms;     /* when it was */
    uint64_t look_due_ms; /* at the dead */
    uint64_t idle_due_ms; /* nobody has been idle for too long before that */
    uint64_t waits;       /* for connections, until then */
};

void hf_silent_thread_open(struct hf_thread *t);
void hf_silent_thread_close(struct hf_thread *t);
void hf_silent_watch(struct hf_thread *t); /* it has a client */

#endif
