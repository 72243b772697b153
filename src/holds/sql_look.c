/* The first look: decides what is frequent by its words alone. */
#include <string.h>

#include "holds/sql_private.h"

struct look {
    struct hf_sql *q;
    struct hf_lexer lexer;
    struct hf_token t;
    unsigned depth; /* of parentheses */
    bool odd;       /* the grammar is needed */
};

static bool is_word(const struct hf_token *t, const char *word)
{
    return t->kind == HF_TOKEN_WORD && strcmp(t->name, word) == 0;
}

static bool is_one_of(const struct hf_token *t, const char *const *names)
{
    for (; *names != NULL; names++)
        if (is_word(t, *names))
            return true;
    return false;
}

/* The next token. Where set_config() may be called, the whole statement has to be looked at. */
static void next(struct look *k)
{
    hf_lexer_next(&k->lexer, &k->t);
    switch (k->t.kind) {
    case HF_TOKEN_WORD:
    case HF_TOKEN_QUOTED:
        if (strcmp(k->t.name, "set_config") == 0)
            k->odd = true;
        break;
    case HF_TOKEN_CHAR:
        if (k->t.c == '(')
            k->depth++;
        else if (k->t.c == ')' && k->depth > 0)
            k->depth--;
        break;
    case HF_TOKEN_BAD:
        k->odd = true;
        break;
    default:
        break;
    }
}

static bool is_end(const struct look *k)
{
    return k->t.kind == HF_TOKEN_END || k->t.kind == HF_TOKEN_BAD ||
           (k->t.kind == HF_TOKEN_CHAR && k->t.c == ';' && k->depth == 0);
}

/* BEGIN, COMMIT and ROLLBACK with nothing else of meaning. */
static bool simple(struct look *k, struct hf_sql_statement *s)
{
    static const char *const begins[] = {"begin", NULL}, *const commits[] = {"commit", "end", NULL},
                             *const rollbacks[] = {"rollback", "abort", NULL},
                             *const filling[] = {"work", "transaction", NULL};

    if (is_one_of(&k->t, begins))
        s->kind = HF_SQL_BEGIN;
    else if (is_one_of(&k->t, commits))
        s->kind = HF_SQL_COMMIT;
    else if (is_one_of(&k->t, rollbacks))
        s->kind = HF_SQL_ROLLBACK;
    else
        return false;
    s->writes = s->kind == HF_SQL_COMMIT;
    next(k);
    if (is_one_of(&k->t, filling))
        next(k);
    if (!is_end(k))
        k->odd = true;
    return true;
}

/* SELECT of nothing but constants runs no code at all. */
static void query(struct look *k, struct hf_sql_statement *s)
{
    static const char *const plain[] = {"select", "as", "null", "true", "false", NULL};
    bool constant = is_word(&k->t, "select"), after_as = false, after_word = false;

    for (; !is_end(k) && !k->odd; next(k)) {
        bool word = k->t.kind == HF_TOKEN_WORD || k->t.kind == HF_TOKEN_QUOTED;
        if (word && !after_as && !is_one_of(&k->t, plain))
            constant = false;
        if (k->t.kind == HF_TOKEN_CHAR && k->t.c != ',')
            constant = false;
        if (k->t.kind == HF_TOKEN_STRING && after_word)
            constant = false;
        after_word = word && !is_word(&k->t, "select");
        after_as = is_word(&k->t, "as") && !after_as;
    }
    s->kind = constant ? HF_SQL_NONE : HF_SQL_QUERY;
    s->writes = !constant;
}

static enum hf_sql_look statement(struct look *k)
{
    static const char *const queries[] = {"select", "insert", "update", "delete",
                                          "values", "with",   NULL};
    struct hf_sql_statement *s;

    if (k->q->n == HF_SQL_STATEMENTS_MAX) {
        k->odd = true;
        return HF_LOOK_DONE;
    }
    s = hf_sql_add(k->q);
    if (s == NULL)
        return HF_LOOK_NOMEM;
    s->at = (uint32_t)(k->t.at - k->q->text);
    if (is_one_of(&k->t, queries))
        query(k, s);
    else if (!simple(k, s))
        k->odd = true;
    if (!k->odd)
        s->len = (uint32_t)(k->t.at - k->q->text) - s->at;
    return HF_LOOK_DONE;
}

enum hf_sql_look hf_sql_look(struct hf_sql *q)
{
    struct look k = {.q = q, .lexer = {.p = q->text, .end = q->text + q->len}};

    for (next(&k); k.t.kind != HF_TOKEN_END && !k.odd; next(&k)) {
        if (k.t.kind == HF_TOKEN_CHAR && k.t.c == ';')
            continue;
        if (statement(&k) == HF_LOOK_NOMEM)
            return HF_LOOK_NOMEM;
        if (k.odd || k.t.kind == HF_TOKEN_END)
            break;
        k.depth = 0;
    }
    return k.odd ? HF_LOOK_ODD : HF_LOOK_DONE;
}
