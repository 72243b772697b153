/* What a session holds that lives only in its server connection, and what has to be made again on
 * another one. Pure: follows both directions of a session's traffic, bytes in any pieces, with no
 * I/O.
 *
 * A session is *free* if it could go on with another connection after hf_holds_remake(), and
 * *pinned* by something otherwise (enum hf_hold in holds/sql.h says by what). When in doubt it is
 * pinned.
 *
 * ## Who knows what
 *
 * `SELECT f()` may do anything, and so may a plain INSERT, by a trigger; and no text tells. So there are two that look:
 *
 * - *The guard* (src/guard), a module inside the server, sees whatever runs, and says on the session's own connection, before each
 * ReadyForQuery, what the session holds: temporary objects, cursors, locks, channels, and what cannot be undone
 * (HF_HOLDS_PARAMETER, hf_holds_parameter()). A session whose server has not said it when it is logged in is pinned by HF_HOLD_GUARD for
 * good: what it holds is not known, and nothing of it is kept or followed.
 * - *The texts* that the client sends are read here, for what has to be made again: SET, set_config() alone in a SELECT, PREPARE, and when
 * transactions begin and end. The guard says nothing about the client's own SET, PREPARE and DEALLOCATE, and everything about
 * those that functions run.
 *
 * Where the two meet is set_config(), which both see. The guard counts its calls, and transactions that have left a
 * setting changed after one. As many calls as were read are accounted for; where there were more, and their transaction has
 * changed a setting of the session, it is not known which: HF_HOLD_SETTING.
 *
 * What the guard has said counts from ReadyForQuery on. What a statement has done whose ReadyForQuery never came is as if it were not
 * there: its client hears an error for it, and may rely on nothing of it.
 *
 * What is not seen, and documented in docs/clients.md: pg_backend_pid() changes with the
 * connection; currval() and lastval() pin from their first use on, and what they would say of an
 * INSERT before that is lost with its connection (PostgreSQL then says 55000, never a wrong value,
 * if the owner runs DISCARD SEQUENCES before a connection serves another session).
 *
 * ## Use
 *
 * One hf_holds for each session where its client is connected. All bytes that are sent to the
 * server, and only those, go through hf_holds_client() first; all bytes that come from it through
 * hf_holds_server(). Not the startup packet (given to hf_holds_new()) and not what the owner says
 * to the server on its own (authentication, the remake) or hears in answer. */
#ifndef HF_HOLDS_H
#define HF_HOLDS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/error.h"
#include "holds/sql.h"

/* Stands for what a connection was made into. Equal ones are taken to be of equal states: whoever does not know the secret that
 * they are made with cannot make two meet. All zero: as after the login. */
enum { HF_PRINT_BYTES = 16, HF_PRINT_SECRET = 32 };
struct hf_print {
    uint8_t bytes[HF_PRINT_BYTES];
};

/* What is under way, as it matters if the server died now. */
enum hf_doing {
    HF_DOING_NOTHING, /* nothing is owed to the client */
    HF_DOING_READ, /* something is, but it has changed nothing for certain: 40001, or run it again
                    */
    HF_DOING_TRANSACTION, /* inside a transaction that no COMMIT under way can end: 40001 */
    HF_DOING_COMMIT,      /* a COMMIT, or a statement that commits by itself: 08007 */
};

enum {
    /* Bytes that one session may have the router keep for it: what makes it again, what its open transaction
     * has set, messages sent and not answered, pieces of messages; a text that others have sent as
     * well counts in full. A session that needs more is pinned by HF_HOLD_TOO_MUCH for good, and
     * nothing of it is kept or followed any more. */
    HF_HOLDS_BYTES_MAX = 1024 * 1024,
};

/* The name of the ParameterStatus in which the guard speaks. */
#define HF_HOLDS_PARAMETER "holdfast.holds"

struct hf_holds;

/* `packet`: the startup packet as it went to the server; kept. The first thing expected is the
 * server's answer. `cache` must outlive it. NULL: out of memory. */
struct hf_holds *hf_holds_new(struct hf_sql_cache *cache, const uint8_t *packet, size_t len);
void hf_holds_free(struct hf_holds *h); /* NULL is fine */
/* The login was done by the owner: ReadyForQuery has been heard. `failed`: the owner has brought the server into a failed
 * transaction. */
void hf_holds_started(struct hf_holds *h, bool failed);
/* The server is a standby: nothing that is under way can write. */
void hf_holds_set_read_only(struct hf_holds *h, bool yes);
/* What was said in a ParameterStatus that did not go through hf_holds_server(), at another connection's start: by the guard, and how
 * texts are read there. */
void hf_holds_parameter(struct hf_holds *h, const char *name, const char *value);

void hf_holds_client(struct hf_holds *h, const uint8_t *p, size_t n);
void hf_holds_server(struct hf_holds *h, const uint8_t *p, size_t n);

/* The first of what pins it, HF_HOLD_NOTHING: free, now. */
enum hf_hold hf_holds_by(const struct hf_holds *h);
/* All that pins it beyond what is under way, HF_HOLD_BIT()s. 0: free as soon as the transaction
 * ends. */
uint32_t hf_holds_pins(const struct hf_holds *h);
/* Would it survive the loss of its connection, were nothing under way? As pins() == 0, but that
 * currval() has been asked for does not count: PostgreSQL itself says that it is not known any
 * more. */
bool hf_holds_may_survive(const struct hf_holds *h);
enum hf_doing hf_holds_doing(const struct hf_holds *h); /* looks at all that is under way */
/* As last heard; failed ones too, and always if nothing is followed any more. */
bool hf_holds_in_transaction(const struct hf_holds *h);
/* What the client waits for. Nothing if nothing is followed any more. */
struct hf_owed {
    unsigned ready; /* ReadyForQuery */
    bool batch;     /* behind those, messages without their Sync; also a Query, which is passed over with what is in front of it */
    bool certain;   /* those that are not answered are Close and Flush alone, which PostgreSQL does not refuse: an error is the next Query's */
    bool answered;  /* nothing of that is under way: its client need not be waiting before it says more */
    bool failed;    /* the first of all this has had its ErrorResponse */
};
struct hf_owed hf_holds_owed(const struct hf_holds *h);
/* If all that is under way is answered by an error: may its client believe to be inside a transaction then? After a COMMIT it does
 * not; after a ROLLBACK it may, since drivers believe that it was not done; after a BEGIN only if there is something behind
 * it, or if it was sent by the extended protocol, where clients send what comes next without waiting. */
bool hf_holds_stays_inside(const struct hf_holds *h);

/* Between transactions, nothing pins it: hf_holds_by() == HF_HOLD_NOTHING. */
bool hf_holds_is_free(const struct hf_holds *h);

/* -- a connection that serves another session next ---------------------------------------------- */

/* Of a free session: what its connection has been made into since the login, settings and named prepared statements. */
struct hf_print hf_holds_state(struct hf_holds *h, const uint8_t secret[HF_PRINT_SECRET]);
/* And what is not in it, that the next session must not meet. */
struct hf_rest {
    bool unnamed;   /* there may be an unnamed prepared statement */
    bool sequences; /* currval() and lastval() may have values: as the guard says */
    bool discarded; /* DISCARD ALL has been done: in older releases of PostgreSQL (before 15.9, and 13 to 17 likewise) a role that the login gave is no more */
};
struct hf_rest hf_holds_rest(const struct hf_holds *h);
/* Of a session that gives its connection away, or is left by it, while nothing of what is under way has been taken. As hf_holds_lost(), but its
 * unnamed statement is remembered, unless what is under way replaces it. */
void hf_holds_give(struct hf_holds *h);
/* It has another connection, of which that is so, and hf_holds_report() has been called; what follows begins at the beginning of a message in both directions. */
void hf_holds_take(struct hf_holds *h, struct hf_rest rest);
/* What that was of an unnamed statement is taken away, before what the client says next. */
void hf_holds_clear_unnamed(struct hf_holds *h);
/* Is its own unnamed statement to be there before the client's next messages, of which the first begins so? Not if that replaces it; else one
 * behind it may be about it, however the session has used it so far. */
bool hf_holds_needs_unnamed(const struct hf_holds *h, const uint8_t *p, size_t n);
/* A Parse of it was not passed on and is answered by an error: as in PostgreSQL there is none behind that. */
void hf_holds_forget_unnamed(struct hf_holds *h);
/* The text that was prepared by Parse under that name, which is empty for the unnamed one. NULL: there is none, or it was prepared otherwise. */
const char *hf_holds_prepared(const struct hf_holds *h, const char *name);
/* Does the message that begins there leave no trace of an unnamed statement that is there? Only one that is there whole, and that PostgreSQL
 * can certainly read: it may refuse others before it does anything. */
bool hf_holds_drops_unnamed(const uint8_t *p, size_t n);
struct hf_print hf_print_of(const uint8_t secret[HF_PRINT_SECRET], const void *p, size_t n);

/* -- another connection ---------------------------------------------------------------------- */

/* The packet; NULL if nothing is kept any more. */
const uint8_t *hf_holds_startup(const struct hf_holds *h, size_t *len);
/* Messages that, sent to a new connection after its login, make the session's settings and prepared
 * statements again: the extended protocol, with a Sync behind each step, so `*steps` times
 * ReadyForQuery comes back. 0 steps: nothing to make. The bytes are the caller's to free.
 * HF_ENOMEM. */
int hf_holds_remake(struct hf_holds *h, uint8_t **bytes, size_t *len, unsigned *steps);
/* As it, for a client that may never run the unnamed statement again: it is tried for a second, if somebody holds a lock that it takes to parse
 * it; without it, its client prepares it anew. */
int hf_holds_remake_soon(struct hf_holds *h, uint8_t **bytes, size_t *len, unsigned *steps);
bool hf_holds_remakes_unnamed(const struct hf_holds *h); /* is the last of those steps about the unnamed statement? */
int hf_holds_remake_unnamed(const struct hf_holds *h, uint8_t **bytes, size_t *len, unsigned *steps); /* that alone */
/* An ErrorResponse came before each of these `n` ReadyForQuery, counted from 0, in ascending order. False: one was
 * about a setting, and the session cannot go on. True: about prepared statements that nobody could
 * use any more, since what they were about is gone; they are forgotten. */
bool hf_holds_remake_failed(struct hf_holds *h, const unsigned *failed, size_t n);
/* The server connection is gone, or is given away: what was under way and what the connection held
 * is forgotten; settings and prepared statements, as committed, stay. What follows begins with a
 * login, or hf_holds_parameter() and hf_holds_started(), and at the beginning of a message in both directions. */
void hf_holds_lost(struct hf_holds *h);

size_t hf_holds_bytes(const struct hf_holds *h); /* kept for it: at most HF_HOLDS_BYTES_MAX */

#endif
