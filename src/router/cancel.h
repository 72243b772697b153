/* CancelRequest, and the barrier after one (SAFETY S11). A thread of its own: it waits for
 * PostgreSQL. Private to src/router. */
#ifndef HF_ROUTER_CANCEL_H
#define HF_ROUTER_CANCEL_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <uv.h>

struct hf_router;
struct hf_thread;
struct hf_canceller;

/* The keys of the sessions that are connected to PostgreSQL here: no other backend here can be
 * cancelled. And of readers whose PostgreSQL is another follower's. */
struct hf_key_place {
    bool reader;  /* of a standby here */
    bool alias;   /* of a session that has moved: hf_key_present() has its present key */
    struct hf_thread *t; /* of an alias: whose session `id` is */
    uint64_t id;
    uint64_t far; /* the member whose standby it is, reached by a tunnel; 0: PostgreSQL is here */
};

/* What a CancelRequest must say. Four bytes in protocol 3.0, up to 256 since 3.2. */
enum { HF_SECRET_MAX = 256 };
struct hf_secret {
    uint32_t pid;
    uint16_t len; /* 0: none */
    uint8_t bytes[HF_SECRET_MAX];
};
struct hf_secret hf_secret_make(uint32_t pid, const uint8_t *bytes, size_t len); /* too long: len 0 */

struct hf_key {
    struct hf_key *next, **at;
    struct hf_key_place place;
    struct hf_secret *to; /* of an alias; len 0: its session has no server connection now */
    uint64_t turn;        /* of an alias: how many connections it has had */
    unsigned cancels;     /* of an alias: that are on their way to its present connection */
    atomic_bool settled, watched;
    bool waits, cancelled; /* with the keyring's lock: see hf_key_waits() */
    uint32_t pid;
    uint16_t len;
    uint8_t bytes[]; /* len of them: sessions are many */
};

struct hf_keyring {
    uv_mutex_t mutex;
    uv_cond_t cond;
    struct hf_key *first;
};

int hf_keyring_open(struct hf_keyring *k);
void hf_keyring_close(struct hf_keyring *k);
/* NULL: out of memory; the session then cannot be cancelled. */
struct hf_key *hf_key_add(struct hf_keyring *k, const struct hf_secret *secret,
                          const struct hf_key_place *place);
/* `theirs` is the key that the client has, `now` the one of its present backend. NULL: out of memory. */
struct hf_key *hf_key_alias(struct hf_keyring *k, const struct hf_secret *theirs, const struct hf_secret *now, struct hf_thread *t,
                            uint64_t id);
/* A cancel on its way. A connection that it may still reach must not serve anybody else. */
struct hf_ticket {
    struct hf_secret theirs;
    uint64_t turn;
};
/* Of an alias: the present key, in its place, and a ticket, which is malloc'ed (NULL: out of memory, never done). False: it is none, no more, or
 * its session has no server connection now. */
bool hf_key_present(struct hf_keyring *k, struct hf_secret *secret, struct hf_ticket **ticket);
/* The cancel has certainly been done, or will certainly never be: PostgreSQL has sent the signal, and who is sent it takes it before
 * anything that it is sent from now on. Takes the ticket; NULL is fine. */
void hf_key_cancelled(struct hf_keyring *k, struct hf_ticket *ticket);
/* Of an alias: its session has another connection now, or none (len 0). False: a cancel may still be on its way to the one before. */
bool hf_key_point(struct hf_keyring *k, struct hf_key *alias, const struct hf_secret *now);
void hf_key_remove(struct hf_keyring *k, struct hf_key *key); /* NULL is fine */
/* Settled: answered in full, or with an error, whose transaction will not commit any more. */
void hf_key_settled(struct hf_keyring *k, struct hf_key *key, bool settled);
/* What its session is to be cancelled for waits here, and is not with PostgreSQL yet (fresh.h): a cancel is kept until it is. Returns whether
 * one was kept, which it is no more then. */
bool hf_key_waits(struct hf_keyring *k, struct hf_key *key, bool yes);
/* False: it does not wait. */
bool hf_key_cancel_later(struct hf_keyring *k, const struct hf_secret *secret);
bool hf_key_find(struct hf_keyring *k, const struct hf_secret *secret, struct hf_key_place *place);
/* Waits until the session has settled or is gone; at most `bound_ns`. */
void hf_key_settle(struct hf_keyring *k, const struct hf_secret *secret, uint64_t bound_ns);

int hf_canceller_open(struct hf_canceller **out, struct hf_router *r, const char *socket_dir);
void hf_canceller_stop(struct hf_canceller *c);  /* joins the thread; NULL is fine */
void hf_canceller_close(struct hf_canceller *c); /* after stop; NULL is fine */
/* From any thread. Takes fd, the canceller's client, which is closed when the request is done with (-1: nobody waits for it), and the
 * ticket (NULL: none). `tunnel`: fd is one; its other end is told, by one byte, that the cancel has certainly been done, or never will be. Without
 * that byte it may yet come. */
enum { HF_CANCEL_CERTAIN = '+' };
void hf_canceller_cancel(struct hf_canceller *c, int fd, bool tunnel, const struct hf_secret *secret, struct hf_ticket *ticket);
/* From any thread: withholds the gate's answers, from now until a barrier begun after now is
 * through. */
void hf_canceller_barrier(struct hf_canceller *c);
void hf_canceller_counts(const struct hf_canceller *c, unsigned *passed, unsigned *refused);

#endif
