/* Shared by sql*.c. Private to src/holds. */
#ifndef HF_HOLDS_SQL_PRIVATE_H
#define HF_HOLDS_SQL_PRIVATE_H

#include "holds/sql.h"

enum { HF_SQL_NAME_MAX = 63 }; /* PostgreSQL's NAMEDATALEN - 1 */

enum hf_token_kind {
    HF_TOKEN_END,
    HF_TOKEN_WORD,   /* keyword or name, lower case */
    HF_TOKEN_QUOTED, /* "name" */
    HF_TOKEN_STRING,
    HF_TOKEN_NUMBER, /* and $1 */
    HF_TOKEN_CHAR,   /* one character of punctuation or of an operator */
    HF_TOKEN_BAD,    /* no end, or something that is not looked at here (U&"name") */
};

struct hf_lexer {
    const char *p, *end;
};

struct hf_token {
    enum hf_token_kind kind;
    char c;     /* CHAR */
    size_t len; /* of name */
    char name[HF_SQL_NAME_MAX + 1];
    const char *at, *body; /* where it begins; a string's inside */
    size_t body_len;
};

void hf_lexer_next(struct hf_lexer *l, struct hf_token *t);

/* A verdict while it is made. */
struct hf_sql {
    unsigned refs;
    bool understood;
    bool kept; /* in the cache */
    uint32_t n, cap;
    struct hf_sql_statement *statements; /* their names are malloc'ed */
    bool renames;
    size_t len, bytes;
    uint64_t hash;                /* of the text */
    struct hf_sql *next, **at;    /* in its bucket */
    struct hf_sql *newer, *older; /* by last use */
    const char *text; /* while it is made perhaps the caller's, if `copy` is empty */
    char copy[];
};

/* NULL: out of memory. The statement is all zero: QUERY that does nothing. */
struct hf_sql_statement *hf_sql_add(struct hf_sql *q);

enum hf_sql_look { HF_LOOK_DONE, HF_LOOK_ODD, HF_LOOK_NOMEM };
/* sql_look.c: the first look. ODD: the grammar is needed. */
enum hf_sql_look hf_sql_look(struct hf_sql *q);
/* sql_tree.c: by the grammar. ODD: not understood. */
enum hf_sql_look hf_sql_parse(struct hf_sql *q);

/* sql_words.c: a setting whose value has a part in how a later statement is parsed and what its names stand for.
 */
bool hf_sql_setting_parses(const char *name);

#endif
