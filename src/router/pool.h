/* How many server connections there may be, and who gets the next one. Pure: no I/O, no clock, no lock.
 *
 * A *pool* is for one database and role. Who wants a server connection takes a place in it
 * (hf_pool_take), and waits in line when there is none. Whoever gives a place up asks hf_pool_next() who gets it: who came first, on
 * whatever thread, but that one of the same thread goes before another thread's who has waited little longer, HF_POOL_NEAR_MS or a part of all its waiting: to go to
 * another thread costs more than that is worth (a descriptor out of one loop and into another, and a thread that is woken). Nobody waits
 * for longer than that because of it.
 *
 * PostgreSQL has bounds of its own (max_connections, CONNECTION LIMIT): where one is met, who met it waits first in line, and no place is
 * given for a while, which doubles each time. From then on one after the other tries, the next one when it is known what has become of the one
 * before (hf_pool_made(), hf_pool_refuse()), or has not become in HF_POOL_TRY_MS; until one is made while nobody waits. */
#ifndef HF_ROUTER_POOL_H
#define HF_ROUTER_POOL_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum {
    HF_POOL_THREADS = 2,
    HF_POOL_NEAR_MS = 2,
    HF_POOL_NEAR_PART = 8, /* an eighth */
    HF_POOL_REFUSED_MS = 5, /* after PostgreSQL had no room, and as soon as there is one connection less; doubled up to */
    HF_POOL_REFUSED_MAX_MS = 100,
    HF_POOL_TRY_MS = 1000,
};

struct hf_pool;

/* One who waits. */
struct hf_waiter {
    struct hf_waiter *before, *behind;
    struct hf_pool *pool; /* NULL: not in line */
    unsigned thread;
    uint64_t since_ms;
    uint64_t order;
};

struct hf_pool_line {
    struct hf_waiter *first, *last;
};

struct hf_pool {
    struct hf_pool *next;
    unsigned refs;
    unsigned most;   /* places; 0: as many as PostgreSQL lets in */
    unsigned places; /* taken */
    struct hf_pool_line lines[HF_POOL_THREADS];
    atomic_uint n_waiting; /* may be looked at without a lock, too */
    atomic_uint idle[HF_POOL_THREADS]; /* the owner's: connections that could be had from sessions that rest there */
    uint64_t refused_until_ms;
    unsigned refused_ms;   /* the while after the next refusal; 0: there has been none of late */
    uint64_t try_until_ms; /* one tries; 0: nobody does */
    size_t key_len;
    uint8_t key[]; /* what it is for */
};

struct hf_pools {
    struct hf_pool *first;
    unsigned most;
    uint64_t order;
    unsigned places, n_waiting; /* of all */
};

/* The pool with that key, made if there is none. NULL: out of memory. To be given back by hf_pool_unref(). */
struct hf_pool *hf_pool_get(struct hf_pools *all, const void *key, size_t len);
void hf_pool_unref(struct hf_pools *all, struct hf_pool *p);

/* May a place be taken by one who has not waited? It is, then. */
bool hf_pool_take(struct hf_pools *all, struct hf_pool *p, uint64_t now_ms);
/* In line from now on. */
void hf_pool_wait(struct hf_pools *all, struct hf_pool *p, struct hf_waiter *w, unsigned thread, uint64_t now_ms);
void hf_pool_leave(struct hf_pools *all, struct hf_waiter *w); /* not in line is fine */
/* A server connection is to be had on that thread: who gets it, with its place? In line no more. NULL: nobody waits. */
struct hf_waiter *hf_pool_next(struct hf_pools *all, struct hf_pool *p, unsigned thread, uint64_t now_ms);
/* A place is given up, with no connection. */
void hf_pool_give(struct hf_pools *all, struct hf_pool *p, uint64_t now_ms);
/* PostgreSQL had room for one who has a place. */
void hf_pool_made(struct hf_pool *p);
/* When somebody who waits could be let have a place because of the time alone. UINT64_MAX: never. */
uint64_t hf_pool_due_ms(const struct hf_pool *p);
/* Who may make a connection of its own now, with a place taken. In line no more. NULL: nobody. */
struct hf_waiter *hf_pool_grow(struct hf_pools *all, struct hf_pool *p, unsigned thread, uint64_t now_ms);
/* PostgreSQL had no room for one who has a place: it is given up, and `w` is first in line as of `since_ms`. False: it did not wait for that
 * place, nobody else has one in the pool for whom it could wait, and nothing has changed. */
bool hf_pool_refuse(struct hf_pools *all, struct hf_pool *p, struct hf_waiter *w, unsigned thread, bool waited, uint64_t since_ms,
                    uint64_t now_ms);

#endif
