/* What share*.c have in common. */
#ifndef HF_ROUTER_SHARE_PRIVATE_H
#define HF_ROUTER_SHARE_PRIVATE_H

#include "router/pool.h"
#include "router/session.h"
#include "router/share.h"
#include "router/survive_private.h"

/* A server connection on its way from one session to another. */
struct hf_server {
    struct hf_end *end; /* on this thread; NULL */
    int fd;             /* to another thread; -1 */
    enum hf_session_kind kind;
    uint64_t opening, leader_epoch, taken;
    struct hf_secret secret;
    struct hf_key *key;
    struct hf_params params;
    struct hf_print base, state;
    struct hf_rest rest;
    uint64_t last; /* the session that spoke to it last; 0: none that is known */
};

/* One that waits. It belongs to its session, and from being taken out of the line until it arrives to who carries it. */
struct hf_wait {
    struct hf_waiter waiter; /* first */
    struct hf_thread *t;
    struct hf_pool *pool; /* with a reference */
    struct hf_session *s; /* of its thread only; NULL: gone meanwhile */
    bool has_server;
    struct hf_server server;
    struct hf_wait *next; /* on its thread */
};

enum { HF_SHARE_HEAD = 6 }; /* of the client's message: its head, and whether what it parses has a name */

struct hf_share {
    struct hf_pool *pool;
    struct hf_print base; /* whom it logs in as */
    bool placed;          /* has one of the pool's places */
    bool let_in;
    bool own;  /* what it logs in to now was not waited for, and taken from nobody */
    bool set_by_login; /* a login trigger has set something, which DISCARD ALL does not give back: nobody else may have that connection */
    bool told; /* its client knows its connection's own cancel key: nobody else may have that connection */
    uint8_t head[HF_SHARE_HEAD]; /* of what the client has said and nobody has read */
    unsigned head_len;            /* so much of it has been seen */
    int woken_by; /* SO_RCVLOWAT of its client's socket */
    bool spoken; /* the client has said something that is not read yet: it may be within OpenSSL, so the socket does not tell */
    struct hf_wait *wait;
    uint64_t wanted_ms; /* since when */
    struct hf_stall stall;
    bool resting; /* in its thread's line of those whose connection could be had */
    uint64_t resting_ms;
    struct hf_session *before, *behind; /* there */
    unsigned resets;
    enum { HF_PREFIX_NONE, HF_PREFIX_CLOSE, HF_PREFIX_SEQUENCES } prefix;
    char awaits[4]; /* types of the answers to that, in order */
};

/* share.c; with the pools' lock: a place is free. Those may have it who would make a connection of their own. */
void hf_share_grow(struct hf_thread *t, struct hf_pool *p);
void hf_share_serve(struct hf_session *s); /* POOLED, and its client has said something */
void hf_share_give_up(struct hf_session *s); /* POOLED, whatever it had or was making */
void hf_share_leave_line(struct hf_session *s); /* in none is fine */
/* share_cancel.c; POOLED: the client's statement is answered by us, however many pieces it comes in; what is behind it is kept. */
void hf_share_answer_cancelled(struct hf_session *s);
/* share_time.c */
void hf_share_grow_at(struct hf_thread *t, uint64_t ms); /* with the pools' lock: of whatever pool. UINT64_MAX: never */
/* Something has begun, or ended, that time does something to. */
void hf_share_set_timer(struct hf_thread *t);
/* share_give.c */
bool hf_share_may_give(const struct hf_session *s);
/* Detaches its connection; the session is POOLED. False: it cannot be used by others, and is closed. */
bool hf_share_give(struct hf_session *s, struct hf_server *v);
void hf_share_unrest(struct hf_session *s);
struct hf_session *hf_share_victim(struct hf_session *s);
void hf_server_close(struct hf_router *r, struct hf_server *v);
/* share_take.c: with a place. */
void hf_share_take(struct hf_session *s, struct hf_server *v);
void hf_share_open(struct hf_session *s); /* a connection of its own */

#endif
