/* What a client hears when its server is lost, and what becomes of what it says then. */
#include <stdlib.h>
#include <string.h>

#include "router/login.h"
#include "router/survive_private.h"

/* A plain error in a transaction of ours: PostgreSQL's log says it as well. */
static const char spoil[] = "ROLLBACK TO SAVEPOINT \"the transaction was lost with its leader\"";

/* -- what the client is told -------------------------------------------------------------------- */

bool hf_survive_tell(struct hf_session *s, const uint8_t *p, size_t n)
{
    if (n == 0 || hf_front_write(s, p, n) != (ssize_t)n)
        return false;
    hf_session_count(s, 0, n);
    return true;
}

/* A transaction of its client's is lost, or may be. */
static size_t put_error(struct hf_session *s, uint8_t *out, size_t cap, enum hf_doing doing)
{
    struct hf_router *r = s->t->r;

    atomic_fetch_add(doing == HF_DOING_COMMIT ? &r->lost_08007 : &r->lost_40001, 1);
    if (doing == HF_DOING_COMMIT)
        return hf_wire_error(out, cap, "ERROR", "08007", "the leader has changed: whether this was committed is not known", NULL,
                             "Look before you do it again.");
    return hf_wire_error(out, cap, "ERROR", "40001", "the leader has changed: the transaction is lost", NULL,
                         "Nothing of it was done. Do it again from its beginning.");
}

static size_t put_ready(uint8_t *out, char status)
{
    memcpy(out, "Z\0\0\0\5", 5);
    out[5] = (uint8_t)status;
    return 6;
}

bool hf_survive_answer_owed(struct hf_session *s, const struct hf_owed *owed, enum hf_doing doing, char status)
{
    uint8_t out[1024];

    for (unsigned i = 0; i < owed->ready; i++) {
        size_t n = i == 0 && owed->failed ? 0 : put_error(s, out, sizeof out, doing);
        n += put_ready(out + n, status);
        if (!hf_survive_tell(s, out, n))
            return false;
    }
    if (!owed->batch || (owed->failed && owed->ready == 0))
        return true;
    if (owed->answered) {
        s->survive->untold = doing == HF_DOING_COMMIT ? doing : HF_DOING_TRANSACTION;
        return true;
    }
    return hf_survive_tell(s, out, put_error(s, out, sizeof out, doing));
}

/* What was put away, now that its client says something. False: it does not take it. */
static bool tell_put_away(struct hf_session *s)
{
    struct hf_survive *v = s->survive;
    enum hf_doing doing = v->untold;
    uint8_t out[512];

    v->untold = HF_DOING_NOTHING;
    return doing == HF_DOING_NOTHING || hf_survive_tell(s, out, put_error(s, out, sizeof out, doing));
}

/* -- the client, before it is told, and up to its Sync ------------------------------------------- */

static size_t put_query(uint8_t *out, const char *text)
{
    size_t n = strlen(text) + 1;

    memcpy(out, "Q\0\0\0", 4);
    out[4] = (uint8_t)(n + 4);
    memcpy(out + 5, text, n);
    return 5 + n;
}

size_t hf_survive_put_spoil(uint8_t *out)
{
    size_t n = put_query(out, "BEGIN");

    return n + put_query(out + n, spoil);
}

/* The client has been told that its transaction has failed: so shall the server think. False: over. */
static bool spoil_server(struct hf_session *s)
{
    struct hf_survive *v = s->survive;
    uint8_t out[256];

    v->spoiling = true;
    v->heard = 0;
    s->dialogue.status = 'E';
    hf_holds_started(s->holds, true);
    if (!hf_login_resume(s))
        return false;
    hf_session_say_back(s, out, hf_survive_put_spoil(out));
    return true;
}

/* A message that is not for the server. */
struct said {
    char type;
    const char *name; /* of the statement in a Parse or Bind that is here in one piece; else NULL */
    const char *text; /* of the statement in a Query, Parse or Bind: of this that which is prepared already, empty if there is none. NULL: not known */
    bool behind;      /* more has come behind it: its client has not waited for the answer */
};

/* The two strings that it begins with, the second NULL for a Query. False: they are not all there. */
static bool strings_in(const uint8_t *p, size_t n, const char **first, const char **second)
{
    size_t len = n >= 5 && strchr("QPB", p[0]) != NULL && p[0] != '\0' ? hf_wire_length(p) : 0;
    const uint8_t *end = len >= 7 && len <= n ? memchr(p + 5, '\0', len - 5) : NULL;

    if (end == NULL)
        return false;
    *first = (const char *)p + 5;
    *second = p[0] == 'Q' ? NULL : (const char *)end + 1;
    return p[0] == 'Q' || memchr(end + 1, '\0', (size_t)(p + len - (end + 1))) != NULL;
}

static void look_at(struct hf_session *s, struct said *m, const uint8_t *p, size_t n)
{
    const char *first, *second;

    if (!strings_in(p, n, &first, &second))
        return;
    if (p[0] == 'Q') {
        m->text = first;
    } else if (p[0] == 'P') {
        m->name = first;
        m->text = second;
        if (first[0] == '\0')
            hf_holds_forget_unnamed(s->holds);
    } else {
        m->name = second;
        m->text = hf_holds_prepared(s->holds, second);
        m->text = m->text != NULL ? m->text : "";
    }
}

/* NULL: there is none, or it is longer than that. The caller's to unref. */
static struct hf_sql *sql_of(struct hf_session *s, const char *text, size_t most)
{
    size_t share = HF_SQL_SHARE_BYTES, len = text != NULL ? strlen(text) : 0;

    return text != NULL && len <= most ? hf_sql_get(s->t->sql, &share, text, len, false) : NULL;
}

/* HF_SQL_BEGIN; HF_SQL_COMMIT or HF_SQL_ROLLBACK with no transaction after it; each alone. Else HF_SQL_QUERY. `text` may be NULL. */
static enum hf_sql_kind kind_of(struct hf_session *s, const char *text)
{
    struct hf_sql *q = sql_of(s, text, HF_SQL_PARSE_MAX);
    const struct hf_sql_statement *one = q != NULL && hf_sql_count(q) == 1 ? hf_sql_statement(q, 0) : NULL;
    enum hf_sql_kind kind = HF_SQL_QUERY;

    if (one != NULL && !one->chain && (one->kind == HF_SQL_BEGIN || one->kind == HF_SQL_COMMIT || one->kind == HF_SQL_ROLLBACK))
        kind = one->kind;
    hf_sql_unref(q);
    return kind;
}

/* What the client's next statement is answered with, in the simple protocol. False: over. */
static bool tell_simple(struct hf_session *s, const char *text)
{
    struct hf_survive *v = s->survive;
    enum hf_sql_kind kind = kind_of(s, text);
    bool undone = kind == HF_SQL_ROLLBACK, ends = undone || kind == HF_SQL_COMMIT;
    uint8_t out[512];
    size_t n;

    v->filter = HF_FILTER_NONE;
    if (undone) { /* it is what has happened */
        memcpy(out, "C\0\0\0\x0dROLLBACK", 14);
        n = 14;
    } else {
        n = put_error(s, out, sizeof out, HF_DOING_TRANSACTION);
    }
    n += put_ready(out + n, ends ? 'I' : 'E');
    s->dialogue.status = 'I';
    return hf_survive_tell(s, out, n) && (ends || spoil_server(s));
}

/* Of what is not for the server any more: where does its client believe to be after it? */
static void believe(struct hf_survive *v, enum hf_sql_kind kind)
{
    if (kind != HF_SQL_QUERY)
        v->inside = kind == HF_SQL_BEGIN;
}

/* What a Parse says is done by a Bind of it, if at all. Of the newest, unnamed and named: */
static void remember(struct hf_survive *v, const char *name, enum hf_sql_kind kind)
{
    struct hf_skipped *k = &v->parsed[name[0] != '\0'];

    k->known = strlen(name) < sizeof k->name;
    if (k->known)
        strcpy(k->name, name);
    k->kind = kind;
}

static void believe_extended(struct hf_session *s, const struct said *m)
{
    struct hf_survive *v = s->survive;
    const struct hf_skipped *k = m->name != NULL ? &v->parsed[m->name[0] != '\0'] : NULL;

    if (m->type == 'P') {
        v->parsed[1].known = v->parsed[1].known && m->name != NULL; /* it may be that one */
        remember(v, m->name != NULL ? m->name : "", kind_of(s, m->text));
    } else if (m->type == 'B') {
        believe(v, k != NULL && k->known && strcmp(k->name, m->name) == 0 ? k->kind : kind_of(s, m->text));
    }
}

/* Could PostgreSQL refuse it, and skip all up to the Sync? */
static bool is_certain(char type)
{
    return type == 'C' || type == 'H';
}

/* Behind what is skipped: does its client wait for ReadyForQuery now? */
static bool ends_skipping(struct hf_survive *v, char type)
{
    if (type == 'S' || (v->certain && (type == 'Q' || type == 'F')))
        return true;
    v->certain = v->certain && is_certain(type);
    return false;
}

/* Sync, or a Query or function call that is not done either. False: over. */
static bool end_skipping(struct hf_session *s, const struct said *m)
{
    struct hf_survive *v = s->survive;
    uint8_t out[8];

    if (m->type == 'Q' && kind_of(s, m->text) != HF_SQL_BEGIN) /* a simple BEGIN that fails has begun nothing */
        believe(v, kind_of(s, m->text));
    v->filter = HF_FILTER_NONE;
    v->parsed[0].known = v->parsed[1].known = false;
    if (v->failed) /* and so is the server's */
        return hf_survive_tell(s, out, put_ready(out, 'E'));
    s->dialogue.status = 'I';
    return hf_survive_tell(s, out, put_ready(out, v->inside ? 'E' : 'I')) && (!v->inside || spoil_server(s));
}

static size_t put_cancelled(uint8_t *out, size_t cap)
{
    return hf_wire_error(out, cap, "ERROR", "57014", "canceling statement due to user request", NULL,
                         "It waited for a server connection, and nothing of it was done.");
}

/* Could what is behind this text be meant for a transaction that it begins? Of what came in pieces, or is not understood, nobody knows. */
static bool may_begin(struct hf_session *s, const char *text)
{
    struct hf_sql *q = sql_of(s, text, HF_SQL_TEXT_MAX);
    bool yes = q == NULL || !hf_sql_is_understood(q);

    for (size_t i = 0; q != NULL && i < hf_sql_count(q); i++)
        yes = yes || hf_sql_statement(q, i)->kind == HF_SQL_BEGIN;
    hf_sql_unref(q);
    return yes;
}

/* PostgreSQL would have done a BEGIN, and the cancel have hit what is behind it: that must not be done by itself. Where nothing has come
 * behind it, its client has heard that it failed before it goes on, and some send no ROLLBACK then. */
static size_t put_ready_cancelled(struct hf_session *s, uint8_t *out, bool behind)
{
    struct hf_survive *v = s->survive;

    v->filter = HF_FILTER_NONE;
    v->failed = v->inside && behind;
    s->dialogue.status = v->failed ? 'E' : 'I';
    return put_ready(out, s->dialogue.status);
}

/* False: over. */
static bool tell_cancelled(struct hf_session *s, const struct said *m)
{
    struct hf_survive *v = s->survive;
    uint8_t out[512];
    size_t n = put_cancelled(out, sizeof out);

    v->filter = HF_FILTER_CANCELLED;
    v->certain = is_certain(m->type);
    if (m->type == 'Q' || m->type == 'F')
        n += put_ready_cancelled(s, out + n, m->behind);
    return hf_survive_tell(s, out, n);
}

/* Of what a cancelled statement was part of. False: over. */
static bool skip_cancelled(struct hf_session *s, const struct said *m)
{
    uint8_t out[8];

    return !ends_skipping(s->survive, m->type) || hf_survive_tell(s, out, put_ready_cancelled(s, out, m->behind));
}

/* False: over. */
static bool filter_cancelled(struct hf_session *s, const struct said *m)
{
    struct hf_survive *v = s->survive;
    uint8_t out[8];

    if (m->type == 'Q' || m->type == 'P' || m->type == 'B')
        v->inside = v->inside || may_begin(s, m->text);
    if (v->filter == HF_FILTER_CANCELLED)
        return skip_cancelled(s, m);
    return m->type == 'S' ? hf_survive_tell(s, out, put_ready(out, 'I')) : tell_cancelled(s, m);
}

/* It is complete. False: over. */
static bool filter_message(struct hf_session *s, const struct said *m)
{
    struct hf_survive *v = s->survive;
    char type = m->type;
    uint8_t out[512];

    if (type == 'd' || type == 'c' || type == 'f')
        return true; /* of a COPY that is no more: dropped by PostgreSQL, too */
    if (v->filter == HF_FILTER_CANCEL || v->filter == HF_FILTER_CANCELLED)
        return filter_cancelled(s, m);
    believe_extended(s, m);
    if (v->filter == HF_FILTER_SKIP)
        return (type == 'H' || tell_put_away(s)) && (!ends_skipping(v, type) || end_skipping(s, m));
    if (type == 'S')
        return hf_survive_tell(s, out, put_ready(out, 'T'));
    if (type == 'Q' || type == 'F')
        return tell_simple(s, m->text);
    v->filter = HF_FILTER_SKIP;
    v->certain = is_certain(type);
    return hf_survive_tell(s, out, put_error(s, out, sizeof out, HF_DOING_TRANSACTION));
}

size_t hf_survive_client(struct hf_session *s, uint8_t *p, size_t n)
{
    struct hf_survive *v = s->survive;
    size_t at = 0, body;

    if (v == NULL)
        return n;
    while (v->filter != HF_FILTER_NONE && at < n) {
        struct said m = {0};
        bool complete;
        if (v->client.have == 0 && p[at] == 'X')
            break; /* goodbye: for the server to hear */
        if (v->client.have == 0) /* one that is not in one piece is not looked at */
            look_at(s, &m, p + at, n - at);
        at += hf_scan_take(&v->client, p + at, n - at, &body, &complete);
        m.type = (char)v->client.head[0];
        m.behind = at < n;
        if (v->client.broken)
            hf_session_lose(s, "a message of the client's has an impossible length");
        else if (complete && !filter_message(s, &m) && s->state != HF_SESSION_LINGER)
            hf_session_drop(s, HF_SURVIVE_DEAF);
        if (s->state == HF_SESSION_LINGER || s->state == HF_SESSION_CLOSED)
            return 0;
    }
    if (at > 0)
        memmove(p, p + at, n - at);
    return n - at;
}
