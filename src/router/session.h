/* Sessions on their thread. Private to src/router. */
#ifndef HF_ROUTER_SESSION_H
#define HF_ROUTER_SESSION_H

#include <stdatomic.h>
#include <sys/epoll.h>

#include "base/allow.h"
#include "base/listener.h"
#include "base/mailbox.h"
#include "router/asker.h"
#include "router/cancel.h"
#include "router/dialogue.h"
#include "router/failures.h"
#include "router/fresh.h"
#include "holds/holds.h"
#include "router/pool.h"
#include "router/list.h"
#include "router/reads.h"
#include "router/router.h"
#include "router/share.h"
#include "router/silent.h"
#include "router/tls.h"
#include "router/wire.h"

enum {
    HF_ROUTER_THREADS = HF_POOL_THREADS,
    HF_ROUTER_READ_BYTES = 64 * 1024, /* one read; the most that one direction of a session keeps */
    HF_ROUTER_CLIENT_BYTES = HF_ROUTER_READ_BYTES - HF_SHARE_PREFIX_MAX, /* of a client's: what is said in front of it has room, too */
    HF_ROUTER_TIMER_MS = 10,
    HF_ROUTER_NEWS = 128, /* of sockets, told in one turn of a loop */
    HF_ROUTER_SQL_BYTES = 4 * 1024 * 1024, /* verdicts about statements, each thread */
    HF_ROUTER_STACK_BYTES = 8 * 1024 * 1024, /* the grammar descends with what a text nests; not by ulimit -s */
};

struct hf_round;
struct hf_end;

/* The ends of a thread's sessions: end.c. */
struct hf_poller {
    int fd; /* epoll(7)'s */
    struct epoll_event news[HF_ROUTER_NEWS];
    int n, at; /* of them; the one that is told */
    struct hf_end *gone; /* freed when nobody is in the middle of one */
};

struct hf_thread {
    struct hf_router *r;
    uv_loop_t loop;
    struct hf_poller poller;
    uv_thread_t id;
    struct hf_mailbox *mailbox;
    uv_timer_t timer; /* runs while n_waiting > 0 */
    struct hf_session *sessions;
    unsigned n_waiting;
    bool draining, stopping;
    unsigned index;
    bool ended; /* nothing is posted to it any more; the router's pools_lock guards it */
    struct hf_session *resting_first, *resting_last; /* share.h: the one that rests longest is the first */
    struct hf_wait *granted_first, **granted_end;    /* what has been given to its own sessions */
    unsigned n_queued, share_timer_ms;
    uv_timer_t share_timer, grow_timer;
    struct hf_silence silence;
    uint64_t grow_ms; /* when that is due; UINT64_MAX: never */
    struct hf_sql_cache *sql;
    struct hf_dialogue before; /* of the session that is being read, before what was read */
    struct hf_round *drain; /* to confirm when no session is busy; else NULL */
    atomic_uint_least64_t bytes_in, bytes_out; /* written by this thread alone */
    uint64_t ends_since_ms; /* the log's second; and sessions that have ended in it (last_word.c) */
    unsigned ends;
    uint8_t
        scratch[HF_ROUTER_READ_BYTES]; /* what is read goes here first: idle sessions own none */
};

struct hf_router_port {
    struct hf_router *r;
    struct hf_listener listener;
    bool read_only;
};

struct hf_router {
    struct hf_router_callbacks callbacks;
    struct hf_mailbox *control;
    char socket_path[108];
    unsigned hold_ms, login_ms, max_clients;
    bool follow;
    bool share; /* server connections, among sessions */
    unsigned pool_wait_ms;
    unsigned stalled_ms, idle_ms; /* 0: no bound. Stalled: with `share` alone */
    uv_mutex_t pools_lock; /* guards pools */
    struct hf_pools pools;
    uint8_t share_secret[HF_PRINT_SECRET];
    atomic_uint_least64_t share_taken, share_remade, share_waits, share_waited_ms, share_late, share_stalled;
    atomic_uint_least64_t idle_ended, moved, lost_40001, lost_08007, ended[HF_ENDED_KINDS];
    struct hf_allow allow;
    struct hf_thread *threads; /* HF_ROUTER_THREADS */
    unsigned n_threads, next_thread;
    struct hf_router_port ports[2];
    struct hf_canceller *canceller;
    struct hf_asker *asker;
    struct hf_fresh *freshness;
    uv_mutex_t failures_lock; /* guards failures */
    struct hf_failures failures;
    uint8_t failures_secret[HF_SCRAM_KEY];
    struct hf_keyring keyring;
    struct hf_client_tls tls;
    enum hf_router_tls tls_mode;

    /* The control loop's own. */
    struct hf_router_dial *dials; /* with the host */
    uint64_t openings, gate_epoch;
    unsigned drains;
    unsigned ports_open;
    bool closing;

    /* Read by the threads whenever something is forwarded. */
    atomic_uint_least64_t opening; /* number of this opening of the gate; 0: shut */
    atomic_uint_least64_t lease_deadline_ns;
    atomic_uint hold; /* answers of the gate are withheld while above 0 (S11) */
    atomic_bool draining, readable;
    atomic_bool behind;     /* readable, but too far behind for new readers */
    atomic_uint followers, followers_all; /* elsewhere: that may be readable, that are connected */
    atomic_uint turn;       /* of the next reader */
    atomic_uint_least64_t reads_here, reads_elsewhere, reads_leader, reads_waited, reads_given_up;
    atomic_bool unfurnished; /* the roles that clients log in as are being made */
    atomic_int leader; /* enum hf_leader_at */
    atomic_uint_least64_t leader_epoch;

    atomic_uint_least64_t next_id;
    atomic_uint n_sessions; /* all */
    atomic_uint n_admitted; /* of them, those that have a place */
    atomic_uint n_tls;
    atomic_uint_least64_t accepted, refused[HF_REFUSED_KINDS];
    atomic_uint n_gate, n_tunnels, n_readers, n_held, n_pooled, n_lease_held;
};

enum hf_session_state {
    HF_SESSION_STARTUP, /* reading the first packet */
    HF_SESSION_HELD,    /* no way to a leader: waiting, bounded */
    HF_SESSION_DIALING, /* the leader's node is being reached */
    HF_SESSION_ASKING,  /* what PostgreSQL knows about the client's role */
    HF_SESSION_SASL,    /* the client proves its password */
    HF_SESSION_PIPE,    /* bytes both ways */
    HF_SESSION_POOLED,  /* between transactions, without a server connection (share.h) */
    HF_SESSION_QUEUED,  /* waits for one, bounded */
    HF_SESSION_LINGER,  /* the last word is said; until the client has read it, bounded */
    HF_SESSION_CLOSED,
};

enum hf_session_kind { HF_KIND_NONE, HF_KIND_GATE, HF_KIND_TUNNEL, HF_KIND_READER };

/* What could not be written yet. */
struct hf_flow {
    uint8_t *bytes; /* malloc'ed; NULL when len is 0 */
    size_t at, len;
};

/* An end that can be exchanged while the session lives. */
struct hf_end {
    struct hf_thread *t;
    struct hf_session *s;
    int fd;
    int events;
    uint32_t armed; /* what epoll has been asked to say of it */
    bool again;     /* and that since it said something */
    bool hup;       /* the other end has ended, and there may be something to read before that */
    bool broken;
    bool empty; /* the last look has found all of it: the loop says when there is more */
    struct hf_session *last; /* freed with it: the session whose front this was */
    struct hf_end *next;     /* in gone */
};

/* What the startup packet says, perhaps cut; for people. */
struct hf_who {
    char user[HF_WHO_MAX], database[HF_WHO_MAX], application[HF_WHO_MAX];
};

struct hf_session {
    struct hf_session *next, **at;
    struct hf_thread *t;
    enum hf_session_state state;
    enum hf_session_kind kind; /* while in PIPE */
    bool from_tunnel, read_only; /* read_only: wants a follower */
    unsigned fruitless;          /* followers elsewhere that could not be had: see seek() */
    uint64_t far;                /* the follower elsewhere that serves, or shall cancel; 0: none */
    uint64_t opening;            /* kind GATE: of the gate */
    uint64_t leader_epoch;       /* DIALING, kind TUNNEL: whom it was made for; a follower: UINT64_MAX */
    struct hf_end *front, *back; /* back: NULL unless DIALING or PIPE */
    SSL *tls;                    /* of the front; NULL: plain */
    bool tls_wants_write;        /* OpenSSL has something of its own to say */
    uint64_t since_ms;           /* when the present wait began */
    uint64_t id, arrived_ms;
    uint64_t active_ms;          /* when a byte of the client's has last been read, or one has been given to it */
    struct hf_who *who;          /* NULL: not known yet */
    bool admitted;               /* has one of the places that --max-clients gives */
    bool logging_in;             /* PIPE: not logged in yet, bounded from login_since_ms on */
    uint64_t login_since_ms;
    uint64_t bytes_in, bytes_out; /* from and to the client */
    uint64_t retry_ms;
    unsigned negotiated; /* requests for encryption so far */
    uint8_t *first;      /* the startup packet; from a tunnel, until the first byte of an answer */
    size_t first_len;
    struct hf_login *login;       /* of a client's session, until PostgreSQL's answer to its login has passed */
    struct hf_question *question; /* ASKING, PostgreSQL here */
    struct hf_scram_keys keys;    /* of the role; in memory only, wiped with the session, or when they are of no more use */
    bool authenticated;           /* the client has proved who it is, and the keys are known */
    bool to_leader;               /* a reader that no follower serves: it asked for that, none is fresh, or none knows its password yet */
    bool fresh;                   /* a reader whose statements wait for what the leader has (fresh.h) */
    struct hf_waiting_read *waiting; /* what of the client's does; NULL: nothing */
    bool answered;           /* the client has got a byte of PostgreSQL's */
    bool spoke;              /* and said more than its startup packet */
    bool cancel;             /* `first` is a CancelRequest: no answer is due */
    bool deaf;               /* the back takes nothing more, but may have something to say */
    bool withheld;           /* an answer waits for the lease or a barrier */
    struct hf_flow up, down; /* front to back, back to front */
    size_t lingered;         /* bytes thrown away */
    struct hf_dialogue dialogue;
    uint64_t taken;              /* bytes for the back since it is there, without the startup packet */
    struct hf_dialogue *unheard; /* without what is in `down` and has not passed look(); NULL: nothing is */
    struct hf_survive *survive;  /* NULL: the session ends with its server */
    struct hf_share *share;      /* NULL: nobody else gets its server connection */
    struct hf_ticket *ticket;    /* of a cancel that another node's gate is asked for */
    uint64_t stamp;              /* what PostgreSQL knew about roles when the client proved who it is; 0: not known */
    struct hf_holds *holds; /* where the client is connected; NULL: not followed, not yet, or out of memory */
    struct hf_router_dial *dial;
    struct hf_key *key;
};

struct hf_router_dial {
    struct hf_thread *t;  /* NULL: the router is gone */
    struct hf_session *s; /* thread only; NULL once the client is gone */
    int fd;               /* the host's end, on its way there */
    enum hf_router_to to;
    uint64_t id; /* asked for, then: reached */
    bool ok;
    struct hf_router_dial *next, **at; /* control loop only */
};

/* session.c: from the first byte to two connected ends, and the end. */
void hf_session_accept(struct hf_thread *t, int fd, bool read_only, bool from_tunnel);
void hf_session_dialed(struct hf_session *s, bool ok, uint64_t id);
/* A client that has heard nothing yet, and said no more than hello, waits again instead of being
 * closed, or has been told to connect again. False: not such a one. */
bool hf_session_rehold(struct hf_session *s);
void hf_session_withhold(struct hf_session *s, bool yes);
void hf_session_count_waiting(struct hf_thread *t, int by); /* of those that hf_session_look() shall see: 1 or -1 */
bool hf_session_connect_here(struct hf_session *s, enum hf_session_kind kind); /* false: PostgreSQL is just starting or stopping */
void hf_session_log_in(struct hf_session *s, bool yes); /* from now on; it is done */
void hf_session_await(struct hf_session *s, enum hf_session_state state); /* ASKING, SASL; STARTUP again */
void hf_session_dial(struct hf_session *s, enum hf_router_to to, uint64_t id);
void hf_session_count(struct hf_session *s, size_t in, size_t out); /* bytes of the client */
void hf_session_hold(struct hf_session *s); /* HELD, from any state but CLOSED; ends the back */
void hf_session_rest(struct hf_session *s);  /* POOLED, likewise */
void hf_session_queue(struct hf_session *s); /* QUEUED, likewise */
void hf_session_set_pipe(struct hf_session *s, enum hf_session_kind kind);
/* Looks at all that wait; `moved`: something has changed, so try at once. */
void hf_session_look(struct hf_thread *t, bool moved);
/* Something happened at one of its ends. */
void hf_session_event(struct hf_session *s, bool at_front, bool failed, int events);

void hf_session_admit(struct hf_session *s, bool yes); /* takes a place, or gives it back */
void hf_session_refused(struct hf_session *s, enum hf_refused why); /* counts it */
void hf_session_seek(struct hf_session *s); /* HELD: is there a way to a server now? */

/* session.c, for last_word.c. Nothing of what the back has said goes to the client after this. */
void hf_session_end_back(struct hf_session *s);

/* last_word.c: the end. */
/* By the client's own will, or because it is not there any more; of one from a tunnel: the other node's router goes on. Nothing is said. */
void hf_session_close(struct hf_session *s);
/* The last word to the client, if it can be put in here, and to the log; then closes when the client has had the
 * time to read it. What the back has said and was not forwarded is gone at once. Is something under way that was asked, the
 * SQLSTATE is 08007, except from a tunnel: its front knows what was asked. */
void hf_session_refuse(struct hf_session *s, const char *sqlstate, const char *text,
                       const char *hint);
/* Ends it as hf_session_refuse() does, with a detail, whatever is under way. */
void hf_session_end_with(struct hf_session *s, const char *sqlstate, const char *text, const char *detail, const char *hint);
void hf_session_lose(struct hf_session *s, const char *why); /* as hf_session_refuse(): what is meant for no client */
void hf_session_drop(struct hf_session *s, const char *why); /* to the log alone: the client cannot be told */
/* Of a session from a tunnel whose gate has shut: tells the front how much was taken, if nothing is under way. */
void hf_session_leave(struct hf_session *s);
void hf_session_linger(struct hf_session *s); /* LINGER: something has come */
int hf_session_detach(struct hf_session *s);  /* closed; returns the client's descriptor, which is the caller's */

/* startup.c: the first packets, up to HELD. */
void hf_startup_begin(struct hf_session *s);
void hf_startup_read(struct hf_session *s); /* something has come, or can be written */

/* end.c */
bool hf_poller_open(struct hf_thread *t); /* after the thread's mailbox */
void hf_poller_wait(struct hf_thread *t); /* for sockets, letters and timers, which it serves, until t->stopping */
void hf_poller_close(struct hf_thread *t); /* the last of the thread's: all ends are closed */
struct hf_end *hf_end_open(struct hf_session *s,
                           int fd);             /* NULL: out of memory; fd is closed then */
void hf_end_close(struct hf_end *e);            /* with its descriptor */
int hf_end_take(struct hf_end *e);              /* closes all but the descriptor */
void hf_end_want(struct hf_end *e, int events); /* UV_READABLE...; NULL is fine */
ssize_t hf_end_read(struct hf_end *e, uint8_t *p, size_t n); /* 0: nothing now, which costs no system call if it is known; -1: over */
ssize_t hf_end_peek(struct hf_end *e, uint8_t *p, size_t n); /* the same, and they stay; always looks */
bool hf_end_wait(struct hf_end *e); /* what a peek has shown is not enough: until there is more. False: there will be no more */
void hf_end_look(struct hf_end *e); /* the next read looks, too, whatever the loop has said: for what must not be missed by one turn */

/* front.c: the client's end, plain or through TLS. */
ssize_t hf_front_read(struct hf_session *s, uint8_t *p, size_t n); /* as hf_end_read() */
ssize_t hf_front_peek(struct hf_session *s, uint8_t *p, size_t n); /* as hf_end_peek() */
/* How many of them could be written, -1: over. Those that could not are to be written next, the same. */
ssize_t hf_front_write(struct hf_session *s, const uint8_t *p, size_t n);
bool hf_front_is_shaking(const struct hf_session *s);      /* hands, for TLS */
int hf_front_shake(struct hf_session *s);                  /* 1: done, 0: not yet, -1: failed */
int hf_front_events(const struct hf_session *s, int events); /* what to wait for, if `events` are wanted */
void hf_front_say_end(struct hf_session *s);               /* nothing more is written */
void hf_front_free(struct hf_session *s);
ssize_t hf_fd_write(int fd, const uint8_t *p, size_t n); /* as hf_front_write */

/* pipe.c */
bool hf_session_passes(const struct hf_session *s); /* may what the server says now go to the client? */
bool hf_session_flush_down(struct hf_session *s); /* all of it is with the client now */
void hf_session_forget_unheard(struct hf_session *s);
bool hf_session_send_back(struct hf_session *s, const uint8_t *p, size_t n); /* nothing else may be on its way. False: over */
void hf_session_say_back(struct hf_session *s, const uint8_t *p, size_t n);  /* the same; if it is over, the back will say so */
void hf_session_begin_pipe(struct hf_session *s, enum hf_session_kind kind);
void hf_session_move(struct hf_session *s);
/* Does a drain have to wait for it? */
bool hf_session_is_busy(const struct hf_session *s);

/* gate.c: what each thread is told. */
void hf_thread_check_drained(struct hf_thread *t);
void hf_thread_wake(struct hf_router *r); /* from any thread: whoever waits looks again */

#endif
