/* Sessions on their thread. Private to src/router. */
#ifndef HF_ROUTER_SESSION_H
#define HF_ROUTER_SESSION_H

#include <stdatomic.h>

#include "base/mailbox.h"
#include "router/router.h"
#include "router/wire.h"

enum { HF_ROUTER_THREADS = 2, HF_SESSION_BYTES = 32 * 1024 };

struct thread {
    struct hf_router *r;
    uv_loop_t loop;
    uv_thread_t id;
    struct hf_mailbox *mailbox;
    uv_timer_t timer;         /* held sessions, lapsed leases, timeouts */
    struct session *sessions;
    bool draining, drained_told, stopping;
};

struct listener {
    struct hf_router *r;
    int fd;
    uv_poll_t poll;
    bool read_only;
};

struct hf_router {
    struct hf_router_callbacks callbacks;
    struct hf_mailbox *control;
    char socket_path[108], socket_dir[108];
    unsigned hold_ms, max_sessions;
    struct thread threads[HF_ROUTER_THREADS];
    struct listener listeners[2];
    bool closing;                     /* control loop only */
    /* Read by the threads at every forwarded result. */
    atomic_uint_least64_t gate_epoch; /* 0: shut */
    atomic_uint_least64_t lease_deadline_ns;
    atomic_uint hold;                 /* results are withheld while above 0 (S11) */
    atomic_bool draining, readable;
    atomic_int leader;                /* enum hf_leader_at */
    atomic_uint n_sessions, n_held, n_lease_held, n_cancels_refused;
    uv_mutex_t keys_mutex;            /* guards the keys of all gate sessions */
    struct session *keyed;
};

enum session_state {
    SESSION_STARTUP,  /* reading the first packet */
    SESSION_HELD,     /* no open gate anywhere: waiting, bounded */
    SESSION_DIALING,  /* the leader's node is being reached */
    SESSION_PIPE,     /* bytes both ways */
    SESSION_CLOSED,
};

struct flow {
    size_t at, len;
    uint8_t *bytes;
};

struct session {
    struct session *next, **at;
    struct thread *t;
    enum session_state state;
    bool from_tunnel, read_only;
    bool gated;     /* to PostgreSQL here, as leader */
    bool reader;    /* to PostgreSQL here, as a standby */
    uint64_t epoch; /* gated */
    int front, back;
    uv_poll_t front_poll, back_poll;
    bool front_polled, back_polled;
    int front_events, back_events;
    unsigned handles;
    uint64_t since_ms; /* when it began to wait */
    uint64_t retry_ms;
    uint8_t *first;    /* the startup packet */
    size_t first_len;
    struct flow up, down; /* front to back, back to front */
    struct hf_wire wire;
    bool asked;        /* the client said something since the last ReadyForQuery */
    bool withheld;     /* an answer waits for the lease */
    struct hf_router_dial *dial;
    struct hf_startup cancel;
    /* keyed list */
    struct session *key_next, **key_at;
};

struct hf_router_dial {
    struct thread *t;
    struct session *s; /* thread only; NULL once the client is gone */
    bool ok;
};

void hf_session_accept(struct thread *t, int fd, bool read_only, bool from_tunnel);
void hf_session_close(struct session *s);
/* Tells the client before closing, if it can be told. */
void hf_session_refuse(struct session *s, const char *sqlstate, const char *text, const char *hint);
void hf_session_dialed(struct session *s, bool ok);
void hf_session_timer(struct thread *t); /* every few milliseconds while anything waits */
void hf_session_move(struct session *s);
bool hf_session_is_busy(const struct session *s); /* inside a transaction, or asked and not answered */
void hf_session_want(struct session *s, int front, int back);
void hf_session_forget_key(struct session *s);

/* Draining: tells the host once no session here is busy. */
void hf_thread_check_drained(struct thread *t);

/* cancel.c */
void hf_cancel_begin(struct session *s); /* takes the client's socket and closes the session */
/* A synchronous wait was given up: withhold everything until a barrier has passed. */
void hf_cancel_barrier(struct thread *t);

#endif
