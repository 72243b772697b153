/* What the text of a statement does to the session that runs it, as far as the guard does not say it (holds/holds.h): to
 * transactions, settings and prepared statements. Pure.
 *
 * A first look at the words decides what is frequent: BEGIN, COMMIT, ROLLBACK, and SELECT, INSERT,
 * UPDATE or DELETE in which set_config() does not appear. Whatever else there
 * is goes to PostgreSQL's own grammar (libpg_query, of PostgreSQL 15) and the answer into a bounded
 * cache. What that does not parse is *not understood*.
 *
 * Texts are taken to be in an encoding in which no byte of a longer character looks like ASCII, and
 * standard_conforming_strings to be on; the caller sees to that. */
#ifndef HF_HOLDS_SQL_H
#define HF_HOLDS_SQL_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum hf_sql_kind {
    HF_SQL_QUERY, /* SELECT, INSERT, DDL...: what it leaves the guard says */
    HF_SQL_NONE,  /* changes no setting, runs no function: SHOW, LISTEN, CLOSE... */
    HF_SQL_BEGIN,
    HF_SQL_COMMIT, /* END, PREPARE TRANSACTION */
    HF_SQL_ROLLBACK,
    HF_SQL_SAVEPOINT,   /* name */
    HF_SQL_RELEASE,     /* name */
    HF_SQL_ROLLBACK_TO, /* name */
    HF_SQL_SET, /* name; the statement's text sets it again. RESET x too: on a new connection it
                   is no error, and what SESSION CHARACTERISTICS did before is undone */
    HF_SQL_SET_LOCAL, /* name; until the end of the transaction. And SET seed, which is no setting */
    HF_SQL_RESET_ALL,
    HF_SQL_SET_CONFIG, /* SELECT set_config('name', ..., false), alone: name; the value is the
                          answer */
    HF_SQL_PREPARE,    /* name; writes is of the prepared statement */
    HF_SQL_EXECUTE,    /* name */
    HF_SQL_DEALLOCATE, /* name */
    HF_SQL_DEALLOCATE_ALL,
    HF_SQL_DISCARD_ALL,
};

/* Why a session cannot leave its connection. The order is that of hf_holds_by(): the first one
 * there is. */
enum hf_hold {
    HF_HOLD_NOTHING,
    HF_HOLD_START,       /* not logged in yet */
    HF_HOLD_COPY,        /* COPY under way */
    HF_HOLD_TRANSACTION, /* inside a transaction */
    HF_HOLD_STATEMENT,   /* sent and not answered, or half sent */
    HF_HOLD_TEMPORARY,   /* a temporary table, view, sequence, function... */
    HF_HOLD_CURSOR,      /* WITH HOLD */
    HF_HOLD_LOCK,        /* a session's advisory lock */
    HF_HOLD_LISTEN,
    HF_HOLD_SEQUENCE, /* currval() or lastval() has been asked for */
    HF_HOLD_SEED,     /* setseed(), SET seed */
    HF_HOLD_LOAD,
    HF_HOLD_SETTING,  /* set in a way that cannot be followed */
    HF_HOLD_PREPARED, /* a statement was prepared under a setting of its transaction, or by a function */
    HF_HOLD_SLOT,     /* a temporary replication slot, a replication origin, a backup */
    HF_HOLD_CODE,     /* a function has run whose language or library may leave anything */
    HF_HOLD_UNKNOWN,  /* a statement or message that is not understood */
    HF_HOLD_TOO_MUCH, /* more than is remembered of one session, or out of memory */
    HF_HOLD_GUARD,    /* its server has no guard that says what it holds */
    HF_HOLD_KINDS,
};
#define HF_HOLD_BIT(hold) (1u << (hold))

const char *hf_hold_name(enum hf_hold hold); /* a word or a few, for people: "temporary table" */

struct hf_sql_statement {
    enum hf_sql_kind kind;
    uint32_t pins;   /* HF_HOLD_BIT()s: what it leaves that the guard does not say */
    bool writes;     /* it may write to the database, or this is not known */
    bool commits;    /* it may commit by itself before it is over: CALL, VACUUM... */
    bool read_only;  /* BEGIN READ ONLY */
    bool chain;      /* COMMIT AND CHAIN */
    bool parses;     /* SET: of something that changes how a later statement is parsed */
    uint32_t configs; /* SET_LOCAL, SET_CONFIG: calls of set_config() */
    const char *name; /* of the setting (lower case), savepoint, prepared statement */
    uint32_t at, len; /* where it is in the text */
};

enum {
    HF_SQL_STATEMENTS_MAX = 1024, /* in one text; more: not understood */
    HF_SQL_TEXT_MAX = 256 * 1024,
    /* The grammar takes up to 4 us for each byte, and stack for each level that a text nests. Longer texts
     * are not given to it, */
    HF_SQL_PARSE_MAX = 2048,
    /* and of what one session sends in one piece, and of what all do in one turn of the thread's
     * loop, no more bytes than this. What is more than that is not understood. */
    HF_SQL_SHARE_BYTES = 2048,
    HF_SQL_TURN_BYTES = 16 * 1024,
};

/* The verdict about a text. Shared: counted references, never changed. */
struct hf_sql;
struct hf_sql_cache; /* of one thread */

struct hf_sql_cache *hf_sql_cache_new(size_t max_bytes); /* NULL: out of memory, no random numbers */
void hf_sql_cache_free(struct hf_sql_cache *c);          /* verdicts may outlive it */
void hf_sql_cache_turn(struct hf_sql_cache *c); /* a new turn: the grammar may be used again */
/* A keyed hash: for tables whose keys clients choose. */
uint64_t hf_sql_cache_hash(const struct hf_sql_cache *c, const void *p, size_t n);

/* Of `len` bytes, which need no NUL behind them. `*share`: how many bytes the grammar may take for this
 * session, HF_SQL_SHARE_BYTES to begin with. `again`: the text is likely to come again, keep it. NULL: out of memory.
 * The caller's reference is to be dropped. */
struct hf_sql *hf_sql_get(struct hf_sql_cache *c, size_t *share, const char *text, size_t len, bool again);
struct hf_sql *hf_sql_ref(struct hf_sql *q);
void hf_sql_unref(struct hf_sql *q); /* NULL is fine */

bool hf_sql_is_understood(const struct hf_sql *q);
size_t hf_sql_count(const struct hf_sql *q); /* statements; 0: an empty text, or not understood */
const struct hf_sql_statement *hf_sql_statement(const struct hf_sql *q, size_t i);
/* With a NUL behind it; NULL for one of more than HF_SQL_PARSE_MAX that is not likely to come again. */
const char *hf_sql_text(const struct hf_sql *q);
size_t hf_sql_len(const struct hf_sql *q);
/* Is a setting of that name the transaction's, however it is set? transaction_timeout of PostgreSQL 17 is not. */
bool hf_sql_is_of_transaction(const char *name);
bool hf_sql_renames(const struct hf_sql *q); /* names of prepared statements: PREPARE, DEALLOCATE... */
size_t hf_sql_bytes(const struct hf_sql *q); /* of memory */

#endif
