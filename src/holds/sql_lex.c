/* The words of an SQL text, as PostgreSQL's scanner finds them (src/backend/parser/scan.l there).
 */
#include <string.h>

#include "holds/sql_private.h"

static bool is_digit(char c)
{
    return c >= '0' && c <= '9';
}

static bool is_name_start(char c)
{
    return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || c == '_' || (c & 0x80) != 0;
}

static bool is_name_part(char c)
{
    return is_name_start(c) || is_digit(c) || c == '$';
}

static bool is_space(char c)
{
    return c == ' ' || c == '\t' || c == '\n' || c == '\r' || c == '\f';
}

static bool starts(const struct hf_lexer *l, char a, char b)
{
    return l->end - l->p >= 2 && l->p[0] == a && l->p[1] == b;
}

/* False: a comment without an end. *newline: one was passed. */
static bool skip_space(struct hf_lexer *l, bool comments, bool *newline)
{
    unsigned depth;

    for (;;) {
        while (l->p < l->end && is_space(*l->p))
            *newline = *newline || *l->p == '\n' || *l->p == '\r', l->p++;
        if (starts(l, '-', '-')) {
            while (l->p < l->end && *l->p != '\n' && *l->p != '\r')
                l->p++;
            continue;
        }
        if (!comments || !starts(l, '/', '*'))
            return true;
        depth = 0;
        do {
            if (starts(l, '/', '*')) {
                depth++;
                l->p += 2;
            } else if (starts(l, '*', '/')) {
                depth--;
                l->p += 2;
            } else if (l->p < l->end) {
                l->p++;
            } else {
                return false;
            }
        } while (depth > 0);
    }
}

/* Behind the opening quote. `escapes`: a backslash hides what follows. */
static bool skip_string(struct hf_lexer *l, bool escapes)
{
    for (;;) {
        bool newline = false;
        struct hf_lexer ahead;
        while (l->p < l->end && *l->p != '\'')
            l->p += escapes && *l->p == '\\' && l->p + 1 < l->end ? 2 : 1;
        if (l->p >= l->end)
            return false;
        l->p++;
        if (l->p < l->end && *l->p == '\'') {
            l->p++;
            continue;
        }
        /* A string goes on behind a line's end, by the rules of its beginning. */
        ahead = *l;
        (void)skip_space(&ahead, false, &newline);
        if (!newline || ahead.p >= ahead.end || *ahead.p != '\'')
            return true;
        l->p = ahead.p + 1;
    }
}

static void string(struct hf_lexer *l, struct hf_token *t, bool escapes)
{
    t->kind = HF_TOKEN_BAD;
    t->body = ++l->p;
    if (!skip_string(l, escapes))
        return;
    t->kind = HF_TOKEN_STRING;
    t->body_len = (size_t)(l->p - 1 - t->body);
}

static void put(struct hf_token *t, char c)
{
    if (t->len < HF_SQL_NAME_MAX)
        t->name[t->len++] = c;
}

static void name(struct hf_lexer *l, struct hf_token *t)
{
    while (l->p < l->end && is_name_part(*l->p)) {
        char c = *l->p++;
        put(t, c >= 'A' && c <= 'Z' ? (char)(c - 'A' + 'a') : c);
    }
    t->name[t->len] = '\0';
    t->kind = HF_TOKEN_WORD;
}

static void quoted(struct hf_lexer *l, struct hf_token *t)
{
    t->kind = HF_TOKEN_BAD;
    for (l->p++; l->p < l->end; l->p++) {
        if (*l->p == '"') {
            l->p++;
            if (l->p >= l->end || *l->p != '"') {
                t->name[t->len] = '\0';
                t->kind = HF_TOKEN_QUOTED;
                return;
            }
        }
        put(t, *l->p);
    }
}

/* $1, $$...$$, $tag$...$tag$, or a lone $. */
static void dollar(struct hf_lexer *l, struct hf_token *t)
{
    const char *tag = l->p, *q = l->p + 1, *close;
    size_t len;

    if (q < l->end && is_digit(*q)) {
        for (l->p = q; l->p < l->end && is_digit(*l->p);)
            l->p++;
        t->kind = HF_TOKEN_NUMBER;
        return;
    }
    while (q < l->end && (is_name_start(*q) || (q > tag + 1 && is_digit(*q))))
        q++;
    if (q >= l->end || *q != '$') {
        l->p++;
        t->kind = HF_TOKEN_CHAR;
        return;
    }
    q++;
    len = (size_t)(q - tag);
    close = memmem(q, (size_t)(l->end - q), tag, len);
    t->kind = HF_TOKEN_BAD;
    if (close == NULL)
        return;
    t->kind = HF_TOKEN_STRING;
    t->body = q;
    t->body_len = (size_t)(close - q);
    l->p = close + len;
}

void hf_lexer_next(struct hf_lexer *l, struct hf_token *t)
{
    bool newline = false, quote_next;
    char c;

    t->len = 0;
    t->c = '\0';
    t->kind = HF_TOKEN_BAD;
    t->body = NULL;
    t->body_len = 0;
    t->name[0] = '\0';
    if (!skip_space(l, true, &newline))
        return;
    t->at = l->p;
    t->kind = HF_TOKEN_END;
    if (l->p >= l->end)
        return;
    c = *l->p;
    t->c = c;
    quote_next = l->end - l->p >= 2 && l->p[1] == '\'';
    if (c == '\'') {
        string(l, t, false);
    } else if (quote_next && memchr("eEbBxXnN", c, 8) != NULL) {
        l->p++;
        string(l, t, c == 'e' || c == 'E');
    } else if ((c == 'u' || c == 'U') && l->end - l->p >= 3 && l->p[1] == '&' &&
               (l->p[2] == '\'' || l->p[2] == '"')) {
        t->kind = HF_TOKEN_BAD;
    } else if (is_name_start(c)) {
        name(l, t);
    } else if (c == '"') {
        quoted(l, t);
    } else if (c == '$') {
        dollar(l, t);
    } else if (is_digit(c)) {
        while (l->p < l->end && (is_name_part(*l->p) || *l->p == '.'))
            l->p++;
        t->kind = HF_TOKEN_NUMBER;
    } else {
        l->p++;
        t->kind = HF_TOKEN_CHAR;
    }
}
