/* Shared by holds.c, log.c, client.c.... Private to src/holds. */
#ifndef HF_HOLDS_PRIVATE_H
#define HF_HOLDS_PRIVATE_H

#include "holds/holds.h"
#include "base/scan.h"

#define PIN(hold) HF_HOLD_BIT(HF_HOLD_##hold)

enum {
    HF_HOLDS_VISIBLE = PIN(TEMPORARY) | PIN(CURSOR) | PIN(LOCK) | PIN(LISTEN) |
                       PIN(UNSURE), /* the probe clears these */
    HF_PORTALS_MAX = 8,
};

/* -- what is remembered (log.c) ---------------------------------------------------------- */

enum hf_item_kind { HF_ITEM_SETTING, HF_ITEM_STATEMENT };

/* A setting or a prepared statement. Counted references: the log's, and those of messages under
 * way. */
struct hf_item {
    unsigned refs;
    enum hf_item_kind kind;
    bool in_log;
    bool pending;     /* its Parse is not answered yet */
    unsigned closing; /* Close messages under way */
    bool parses;      /* settings: as in hf_sql_statement */
    bool unclear;     /* a Parse of the same name is under way, or was done */
    uint32_t hash;    /* of name */
    size_t bytes;     /* in the log */
    char *name;
    char *text;         /* settings: the statement that makes it */
    struct hf_sql *sql; /* statements: what it does is sql's statement `index` */
    uint32_t index;
    bool by_message; /* by Parse: its text is sql's whole text; else by PREPARE: statement `index`
                        of it */
    uint16_t n_types;
    uint8_t *types; /* as in the Parse message */
};

struct hf_log {
    struct hf_item **items; /* in an order that gives the same state */
    uint32_t n, cap;
    size_t bytes;
};

struct hf_item *hf_item_new(enum hf_item_kind kind, const char *name,
                            size_t len); /* NULL: out of memory */
void hf_item_unref(struct hf_item *i);   /* NULL is fine */
/* Takes over a reference. False: no room, or out of memory; it is dropped then. */
bool hf_log_append(struct hf_log *log, struct hf_item *i);
bool hf_log_set(struct hf_log *log,
                struct hf_item *i); /* a setting: in place of what it replaces */
bool hf_log_reset_all(struct hf_log *log);
void hf_log_remove(struct hf_log *log, struct hf_item *i); /* that is in it */
void hf_log_remove_statements(struct hf_log *log);
void hf_log_to_end(struct hf_log *log, struct hf_item *i);
void hf_log_clear(struct hf_log *log);
/* The newest statement of that name that nobody is closing. */
struct hf_item *hf_log_find(const struct hf_log *log, const char *name, size_t len);

/* -- a transaction's settings, until its end ----------------------------------------------------
 */

struct hf_change {
    enum hf_sql_kind kind; /* SET, RESET_ALL, SAVEPOINT, SET_LOCAL */
    bool parses;
    char *name, *text;
};

struct hf_journal {
    struct hf_change *changes;
    uint32_t n, cap;
};

bool hf_journal_add(struct hf_journal *j, enum hf_sql_kind kind, bool parses, const char *name,
                    const char *text, size_t text_len); /* text: NULL for those that have none */
void hf_journal_rollback_to(struct hf_journal *j, const char *savepoint);
void hf_journal_release(struct hf_journal *j, const char *savepoint);
bool hf_journal_parses(const struct hf_journal *j);
bool hf_journal_has_settings(const struct hf_journal *j);
void hf_journal_clear(struct hf_journal *j);
bool hf_journal_commit(struct hf_journal *j, struct hf_log *log); /* false: as hf_log_append() */

/* -- messages under way
 * ---------------------------------------------------------------------------- */

enum hf_op_kind {
    HF_OP_QUERY,
    HF_OP_PARSE,
    HF_OP_BIND,
    HF_OP_DESCRIBE,
    HF_OP_EXECUTE,
    HF_OP_CLOSE,
    HF_OP_SYNC,
    HF_OP_FUNCTION,
    HF_OP_COPY_END, /* CopyDone or CopyFail, sent before the server has said that it takes a COPY */
};

struct hf_op {
    enum hf_op_kind kind;
    uint32_t at;          /* QUERY: statements answered; EXECUTE: which; FUNCTION: its OID */
    struct hf_sql *sql;   /* QUERY, EXECUTE; NULL: not understood */
    struct hf_item *item; /* PARSE, CLOSE; or NULL */
    bool prepared;        /* EXECUTE: of what an SQL PREPARE has made */
    bool unnamed;         /* PARSE: of the unnamed statement */
};

struct hf_portal {
    char name[32];
    struct hf_sql *sql; /* NULL: not understood */
    uint32_t index;
    bool prepared; /* as in hf_op */
    bool used;
};

/* One direction: a message is looked at once it is complete. */
struct hf_part {
    struct hf_scan scan;
    uint8_t *bytes; /* malloc'ed, only while a message is cut that is looked at */
    size_t len, cap;
    bool inside;  /* in a body */
    bool skip;    /* not looked at */
    bool dropped; /* longer than is kept: only the beginning is there */
};

struct hf_holds {
    struct hf_sql_cache *cache;
    const struct hf_code *code;
    uint8_t *packet;
    size_t packet_len;
    struct hf_part client, server;

    struct hf_op *ops; /* ring */
    uint32_t first, n, cap;

    struct hf_log log;
    struct hf_journal journal;

    struct hf_item *unnamed; /* the unnamed statement; NULL: none, or not understood */
    bool unnamed_here;       /* made in this batch */
    struct hf_portal
        *portals; /* HF_PORTALS_MAX of them, the unnamed one is the first; NULL: none yet */
    char *value;  /* of set_config(), from the row that has come */
    size_t value_len;

    uint32_t pins;
    char status; /* of the last ReadyForQuery */
    bool started;
    bool read_only;       /* the server */
    bool batch;           /* extended messages without their Sync */
    bool skipping;        /* the server ignores everything up to the next Sync */
    bool copying;         /* COPY FROM STDIN, and the client has not ended it */
    bool failed;          /* an error came since the last ReadyForQuery */
    bool committed_early; /* a statement that may have committed by itself came since */
    bool wrote;           /* the open transaction may have */
    bool tx_read_only;
    bool stale; /* what the probe would clear may be gone */
    bool altered;
    bool over; /* nothing more is followed: pinned for good */
};

/* Out of memory, or a bound: nothing more is remembered. */
void hf_holds_too_much(struct hf_holds *h);
struct hf_op *hf_holds_head(struct hf_holds *h); /* NULL: none */
struct hf_op *hf_holds_op(const struct hf_holds *h, uint32_t i);
void hf_holds_pop(struct hf_holds *h);
void hf_op_clear(struct hf_op *op);

/* client.c, server.c: one message; `full` is its length, of which `have` bytes are
 * there. */
void hf_holds_client_message(struct hf_holds *h, char type, const uint8_t *body, size_t have,
                             uint64_t full);
void hf_holds_server_message(struct hf_holds *h, char type, const uint8_t *body, size_t have,
                             uint64_t full);
size_t hf_holds_client_keep(const struct hf_holds *h, char type); /* bytes of the body to look at */
size_t hf_holds_server_keep(struct hf_holds *h, char type);

/* apply.c: what a statement that was answered has done. */
void hf_holds_done(struct hf_holds *h, const struct hf_sql *q, uint32_t index,
                   const char *tag); /* NULL: a part */
/* Of a statement that was prepared by name with SQL. */
void hf_holds_done_prepared(struct hf_holds *h, const struct hf_sql *q, uint32_t index);
void hf_holds_undone(struct hf_holds *h, const struct hf_sql *q, uint32_t index,
                     const char *sqlstate);
void hf_holds_settle(struct hf_holds *h); /* ReadyForQuery */

#endif
