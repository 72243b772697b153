/* Shared by the files of src/holds that follow a session. */
#ifndef HF_HOLDS_PRIVATE_H
#define HF_HOLDS_PRIVATE_H

#include "base/scan.h"
#include "holds/holds.h"

#define PIN(hold) HF_HOLD_BIT(HF_HOLD_##hold)

enum {
    HF_PIECE = 16, /* what a piece of memory costs besides its bytes */
    HF_PORTALS_MAX = 8,
};

/* -- what is kept, and how much of it (kept.c) ------------------------------------------------- */

/* All that a session has the router keep is counted here, and given back here. */
struct hf_budget {
    size_t used;
};

bool hf_budget_take(struct hf_budget *b, size_t bytes); /* false: more than HF_HOLDS_BYTES_MAX */
void hf_budget_give(struct hf_budget *b, size_t bytes);
/* Room for one more in an array of `*cap` elements of `each` bytes, of which `n` are used. False: no
 * room, out of memory; the array stays as it was. */
bool hf_budget_grow(struct hf_budget *b, void **array, uint32_t *cap, uint32_t n, size_t each);
void hf_budget_drop(struct hf_budget *b, void **array, uint32_t *cap, size_t each);

/* A text that the client has sent once, and its verdict: counted once, however many messages are about
 * it. Counted references. */
struct hf_text {
    unsigned refs;
    struct hf_sql *sql;
    struct hf_budget *budget;
};

struct hf_text *hf_text_new(struct hf_budget *b, struct hf_sql *q); /* takes `q` over; NULL: no room */
struct hf_text *hf_text_ref(struct hf_text *t);                     /* NULL is fine */
void hf_text_unref(struct hf_text *t);                              /* NULL is fine */

/* -- what is remembered (log.c) ---------------------------------------------------------------- */

enum hf_item_kind { HF_ITEM_SETTING, HF_ITEM_STATEMENT, HF_ITEM_KINDS };

struct hf_item;
struct hf_place {
    struct hf_item *before, *behind;
};

/* A setting or a prepared statement. Counted references: the log's, and those of messages under
 * way. */
struct hf_item {
    unsigned refs;
    enum hf_item_kind kind;
    bool in_log;
    bool pending;     /* its Parse is not answered yet: it is in no order, but it is found */
    unsigned closing; /* Close messages under way: it is not found */
    bool parses;      /* settings: as in hf_sql_statement */
    bool unclear;     /* a Parse of the same name is under way, or was done */
    char *name;
    char *text;          /* settings: the statement that makes it */
    struct hf_text *sql; /* statements: what it does is sql's statement `index` */
    uint32_t index;
    bool by_message; /* by Parse: its text is sql's whole text; else by PREPARE: statement `index`
                        of it */
    uint16_t n_types;
    uint8_t *types; /* as in the Parse message */
    struct hf_budget *budget;
    size_t bytes; /* taken from it */

    struct hf_place all, like; /* among all that are in order; among those of its kind, or pending */
    uint64_t order;            /* increases along both */
    struct hf_item *newer, *older; /* settings of the same name */
    unsigned between;              /* compaction: statements behind it */
    uint64_t hash;
    struct hf_item *next, **at; /* in its bucket; `at` NULL: in none */
    bool printed;
    struct hf_print print; /* once `printed`: see hf_holds_state() */
};

struct hf_line {
    struct hf_item *first, *last;
};

/* The order gives the same state again. Every step takes constant time, on average over steps. */
struct hf_log {
    struct hf_sql_cache *cache; /* for its hash */
    struct hf_budget *budget;
    struct hf_line all, kinds[HF_ITEM_KINDS], pending;
    uint32_t n_statements; /* in order */
    uint64_t order;        /* of the newest */
    uint64_t changes;      /* of what is in order */
    uint64_t reset;        /* RESET ALL has dealt with settings up to this order */
    struct hf_item **buckets; /* statements that nobody is closing; settings, the newest of each name */
    uint32_t n_buckets, n_hashed;
    bool loose; /* a setting may be superfluous: a statement behind it went, or the authorization was set */
    size_t settings_bytes, compact_at;
};

/* NULL: no room, out of memory. */
struct hf_item *hf_item_new(struct hf_budget *b, enum hf_item_kind kind, const char *name, size_t len);
/* False, and nothing has changed: no room, out of memory. */
bool hf_item_set_text(struct hf_item *i, const char *text, size_t len);
bool hf_item_set_types(struct hf_item *i, const uint8_t *types, size_t bytes);
void hf_item_unref(struct hf_item *i); /* NULL is fine */
struct hf_item_text {
    const char *p;
    size_t len;
};
/* Of a statement that PREPARE has made: as the client said it, which is what pg_prepared_statements shows; without what was said with it. */
struct hf_item_text hf_item_text(const struct hf_item *i);
/* These take over a reference. False: no room, or out of memory; it is dropped then. */
bool hf_log_add_pending(struct hf_log *log, struct hf_item *i);
bool hf_log_add_statement(struct hf_log *log, struct hf_item *i);
bool hf_log_set(struct hf_log *log, struct hf_item *i); /* in place of what it replaces */
void hf_log_tidy(struct hf_log *log); /* drops settings that make no difference any more: they may be refused where they were allowed */
bool hf_log_reset_all(struct hf_log *log);
void hf_log_parsed(struct hf_log *log, struct hf_item *i); /* pending until now */
void hf_log_remove(struct hf_log *log, struct hf_item *i); /* that is in it */
void hf_log_remove_statements(struct hf_log *log);         /* not the pending ones */
void hf_log_remove_all(struct hf_log *log);                /* likewise */
void hf_log_remove_pending(struct hf_log *log);
void hf_log_clear(struct hf_log *log);
/* The statement of that name that nobody is closing. */
struct hf_item *hf_log_find(const struct hf_log *log, const char *name, size_t len);
void hf_log_close(struct hf_log *log, struct hf_item *i); /* a Close is under way */
/* That Close never was. False: there is another one of the same name, and messages may have meant
 * either. */
bool hf_log_reopen(struct hf_log *log, struct hf_item *i);

/* -- a transaction's settings, until its end (journal.c) --------------------------------------- */

struct hf_change {
    enum hf_sql_kind kind; /* SET, RESET_ALL, SET_LOCAL */
    bool parses;
    struct hf_item *item; /* SET */
};

struct hf_savepoint {
    char *name;
    uint32_t at;    /* changes before it */
    uint32_t times; /* it was made, one right upon the other: as many, which cannot be told apart */
};

struct hf_journal {
    struct hf_budget *budget;
    struct hf_change *changes;
    uint32_t n, cap, n_parses, n_settings;
    struct hf_savepoint *savepoints;
    uint32_t n_savepoints, cap_savepoints;
};

/* Takes the item over. False: no room, out of memory. */
bool hf_journal_add(struct hf_journal *j, enum hf_sql_kind kind, bool parses, struct hf_item *item);
bool hf_journal_savepoint(struct hf_journal *j, const char *name);
/* False: there is no such savepoint, which cannot be. */
bool hf_journal_rollback_to(struct hf_journal *j, const char *name);
bool hf_journal_release(struct hf_journal *j, const char *name);
void hf_journal_clear(struct hf_journal *j);
bool hf_journal_commit(struct hf_journal *j, struct hf_log *log); /* false: as hf_log_set() */

/* -- messages under way ------------------------------------------------------------------------ */

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
    uint32_t at;          /* QUERY: statements answered; EXECUTE: which */
    struct hf_text *text; /* QUERY, EXECUTE; NULL: not understood */
    struct hf_item *item; /* PARSE, CLOSE; or NULL */
    bool prepared;        /* EXECUTE: of what an SQL PREPARE has made */
    bool unnamed;         /* PARSE: of the unnamed statement */
    bool renames;         /* changes what a prepared statement's name stands for */
};

struct hf_portal {
    char name[32];
    struct hf_text *text; /* NULL: not understood */
    uint32_t index;
    bool prepared; /* as in hf_op */
    bool used;
};

/* One direction: a message is looked at once it is complete. */
struct hf_part {
    struct hf_scan scan;
    uint8_t *bytes; /* malloc'ed, only while a message is cut that is looked at */
    size_t len, cap;
};

/* What the guard has said (report.c). */
struct hf_guarded {
    bool is_there;
    uint32_t held;             /* HF_HOLD_BIT()s, as of the last ReadyForQuery, and what has been said since */
    uint32_t said;             /* as last heard */
    bool sequences;            /* currval() and lastval() may have values: no pin */
    uint32_t configs, settings; /* as last heard */
    uint32_t configs_before, settings_before; /* at the last ReadyForQuery */
    bool unclear; /* the open transaction has called set_config() in a way that was not read */
};

struct hf_holds {
    struct hf_sql_cache *cache;
    size_t share; /* of the grammar, for the piece that is being looked at */
    struct hf_guarded guard;
    uint32_t configs; /* calls of set_config() that were read and done since the last ReadyForQuery */
    struct hf_budget budget;
    uint8_t *packet;
    size_t packet_len;
    struct hf_part client, server;

    struct hf_op *ops; /* ring */
    uint32_t first, n, cap;
    uint32_t n_unnamed; /* of them: Parse of the unnamed statement */
    uint32_t n_renaming; /* of them: those that change what a prepared statement's name stands for */

    struct hf_log log;
    struct hf_journal journal;

    struct hf_item *unnamed; /* the unnamed statement; NULL: none, or not understood */
    bool unnamed_here;       /* made in this batch */
    bool begins;             /* a BEGIN is parsed or bound in this batch, and nothing else is bound since: it is about to be run, or has been */
    struct hf_portal
        *portals; /* HF_PORTALS_MAX of them, the unnamed one is the first; NULL: none yet */
    char *value;  /* of set_config(), from the row that has come */
    size_t value_len;

    uint32_t pins;
    char status; /* of the last ReadyForQuery */
    bool started;
    bool read_only;       /* the server */
    bool batch;           /* extended messages that no Sync, Query or FunctionCall has ended, or it was swallowed */
    bool skipping;        /* the server ignores everything up to the next Sync */
    bool copying;         /* COPY FROM STDIN, and the client has not ended it */
    bool failed;          /* an error came since the last ReadyForQuery */
    bool committed_early; /* a statement that may have committed by itself came since */
    bool committed;       /* a COMMIT was done since, and what is behind it can still fail */
    bool wrote;           /* the open transaction may have */
    bool tx_read_only;
    bool beyond_ascii; /* the text of a setting */
    bool odd_strings, odd_encoding; /* as the server has said: texts cannot be read. DISCARD ALL need not end it */
    bool left_unnamed; /* the connection may have an unnamed statement */
    bool discarded;    /* DISCARD ALL, which need not give back all that the login gave */
    struct hf_print state; /* as of the log's change `state_of` */
    uint64_t state_of;
    bool over; /* nothing more is followed or kept: pinned for good */
};

/* Out of memory, or more than HF_HOLDS_BYTES_MAX: the session is pinned by that for good, and nothing of it is
 * kept from the end of this message on. */
void hf_holds_too_much(struct hf_holds *h);
struct hf_op *hf_holds_head(struct hf_holds *h); /* NULL: none */
struct hf_op *hf_holds_op(const struct hf_holds *h, uint32_t i);
struct hf_op *hf_holds_push(struct hf_holds *h, enum hf_op_kind kind); /* NULL: too much */
/* QUERY, EXECUTE; takes `t` over. */
void hf_holds_op_set_text(struct hf_holds *h, struct hf_op *op, struct hf_text *t);
void hf_holds_op_set_unnamed(struct hf_holds *h, struct hf_op *op); /* PARSE */
void hf_holds_pop(struct hf_holds *h);
void hf_holds_pop_behind_head(struct hf_holds *h, uint32_t n); /* that many */
void hf_holds_drop_value(struct hf_holds *h);
void hf_holds_drop_portals(struct hf_holds *h);
void hf_holds_set_unnamed(struct hf_holds *h, struct hf_item *i); /* takes `i` over; NULL: none */

/* client.c, server.c: one message; `full` is its length, of which `have` bytes are
 * there. */
void hf_holds_client_message(struct hf_holds *h, char type, const uint8_t *body, size_t have,
                             uint64_t full);
void hf_holds_server_message(struct hf_holds *h, char type, const uint8_t *body, size_t have,
                             uint64_t full);
size_t hf_holds_client_keep(const struct hf_holds *h, char type); /* bytes of the body to look at */
size_t hf_holds_server_keep(struct hf_holds *h, char type);

/* report.c */
void hf_holds_report(struct hf_holds *h, const char *value);
void hf_holds_reported(struct hf_holds *h); /* ReadyForQuery, and what was said before it counts */

/* apply.c: what a statement that was answered has done. */
void hf_holds_done(struct hf_holds *h, struct hf_text *t, uint32_t index,
                   const char *tag); /* NULL: a part */
/* Of a statement that was prepared by name with SQL. */
void hf_holds_done_prepared(struct hf_holds *h, const struct hf_sql *q, uint32_t index);
void hf_holds_undone(struct hf_holds *h, const struct hf_sql *q, uint32_t index);
void hf_holds_settle(struct hf_holds *h); /* ReadyForQuery */

#endif
