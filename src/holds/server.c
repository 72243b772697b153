/* The server's messages: each answers the head of the queue, or a part of it. */
#include <stdlib.h>
#include <string.h>

#include "holds/private.h"
#include "base/scan.h"

enum { KEEP = 512, VALUE_KEEP = 16 * 1024 };

static void unknown(struct hf_holds *h)
{
    h->pins |= PIN(UNKNOWN);
}

static struct hf_op *head_of(struct hf_holds *h, enum hf_op_kind kind)
{
    struct hf_op *op = hf_holds_head(h);

    return op != NULL && op->kind == kind ? op : NULL;
}

static const struct hf_sql *sql_of(const struct hf_op *op)
{
    return op->text != NULL ? op->text->sql : NULL;
}

/* -- answers to single messages ---------------------------------------------------------------- */

static void parsed(struct hf_holds *h)
{
    struct hf_op *op = head_of(h, HF_OP_PARSE);

    if (op == NULL) {
        unknown(h);
        return;
    }
    if (op->item != NULL && op->item->in_log) {
        hf_log_parsed(&h->log, op->item);
        if (h->journal.n_parses > 0)
            h->pins |= PIN(PREPARED);
    } else if (!op->unnamed) {
        unknown(h); /* a name that we thought to be in use, or a text that was too long */
    }
    hf_holds_pop(h);
}

static void closed(struct hf_holds *h)
{
    struct hf_op *op = head_of(h, HF_OP_CLOSE);

    if (op == NULL) {
        unknown(h);
        return;
    }
    if (op->item != NULL && op->item->in_log)
        hf_log_remove(&h->log, op->item);
    hf_holds_pop(h);
}

static void answered(struct hf_holds *h, enum hf_op_kind kind)
{
    if (head_of(h, kind) != NULL)
        hf_holds_pop(h);
    else
        unknown(h);
}

/* CommandComplete; `tag` NULL: PortalSuspended. */
static void complete(struct hf_holds *h, const char *tag)
{
    struct hf_op *op = hf_holds_head(h);

    h->copying = false;
    if (op != NULL && op->kind == HF_OP_QUERY && tag != NULL) {
        hf_holds_done(h, op->text, op->at, tag);
        op->at++;
    } else if (op != NULL && op->kind == HF_OP_EXECUTE) {
        if (op->prepared && op->text != NULL)
            hf_holds_done_prepared(h, op->text->sql, op->at);
        else
            hf_holds_done(h, op->text, op->at, tag);
        hf_holds_pop(h);
    } else {
        unknown(h);
    }
}

static void empty(struct hf_holds *h)
{
    struct hf_op *op = hf_holds_head(h);

    if (op != NULL && op->kind == HF_OP_EXECUTE)
        hf_holds_pop(h);
    else if (op == NULL || op->kind != HF_OP_QUERY)
        unknown(h);
}

/* -- errors ------------------------------------------------------------------------------------ */

/* What is passed over never was. */
static void pass_over(struct hf_holds *h, struct hf_op *op)
{
    if (op->item == NULL)
        return;
    if (op->kind == HF_OP_PARSE && op->item->in_log)
        hf_log_remove(&h->log, op->item);
    else if (op->kind == HF_OP_CLOSE && !hf_log_reopen(&h->log, op->item))
        unknown(h);
}

static void error(struct hf_holds *h)
{
    struct hf_op *op = hf_holds_head(h);

    h->copying = false;
    h->failed = true;
    if (op == NULL)
        return; /* the server's own, such as a timeout: it is its last word */
    if (op->kind == HF_OP_QUERY)
        hf_holds_undone(h, sql_of(op), op->at);
    if (op->kind == HF_OP_QUERY || op->kind == HF_OP_FUNCTION || op->kind == HF_OP_SYNC)
        return; /* ReadyForQuery comes next */
    for (uint32_t i = 0; i < h->n && hf_holds_op(h, i)->kind != HF_OP_SYNC; i++) {
        const struct hf_op *e = hf_holds_op(h, i);
        if (e->kind != HF_OP_EXECUTE)
            continue;
        hf_holds_undone(h, sql_of(e), e->at); /* it, or what led to it: Bind may run functions */
        break;
    }
    while ((op = hf_holds_head(h)) != NULL && op->kind != HF_OP_SYNC) {
        /* What was sent since with the unnamed statement may mean the one before. */
        if (op->unnamed)
            hf_holds_set_unnamed(h, NULL);
        pass_over(h, op);
        hf_holds_pop(h);
    }
    h->skipping = op == NULL;
    h->batch = h->batch || h->skipping; /* a Query that would have ended it has been passed over */
}

/* -- COPY and ReadyForQuery -------------------------------------------------------------------- */

/* Sync that was sent along with a COPY is swallowed by it, up to the client's CopyDone: another one is to come, if it is not there. */
static void copy_in(struct hf_holds *h)
{
    uint32_t swallowed = 0;
    bool ended = false, synced = false;

    if (h->n == 0) {
        unknown(h);
        return;
    }
    while (!ended && swallowed + 1 < h->n) {
        enum hf_op_kind kind = hf_holds_op(h, swallowed + 1)->kind;
        ended = kind == HF_OP_COPY_END;
        if (!ended && kind != HF_OP_SYNC)
            break;
        synced = synced || !ended;
        swallowed++;
    }
    hf_holds_pop_behind_head(h, swallowed);
    h->copying = !ended;
    if (synced && h->n == 1 && hf_holds_head(h)->kind == HF_OP_EXECUTE)
        h->batch = true;
}

static void ready(struct hf_holds *h, char status)
{
    struct hf_op *op;
    bool last = false;

    h->status = status;
    h->copying = false;
    hf_holds_reported(h);
    if (h->odd_strings || h->odd_encoding)
        unknown(h); /* also behind DISCARD ALL, where the role, the database or the start-up packet says so */
    if (!h->started) {
        hf_holds_started(h, false);
        return;
    }
    if (h->n == 0)
        h->skipping = h->batch = false;
    while (!last && (op = hf_holds_head(h)) != NULL) {
        last = op->kind == HF_OP_SYNC || op->kind == HF_OP_QUERY || op->kind == HF_OP_FUNCTION;
        if (!last)
            pass_over(h, op);
        if (op->kind == HF_OP_FUNCTION)
            h->wrote = true;
        if (op->kind == HF_OP_QUERY && h->n_unnamed == 0 && !h->failed)
            h->left_unnamed = false; /* PostgreSQL drops it first of all, if it can read it */
        if (op->kind == HF_OP_QUERY && !h->failed && op->text != NULL &&
            op->at < hf_sql_count(op->text->sql))
            unknown(h); /* fewer answers than statements */
        hf_holds_pop(h);
    }
    hf_holds_settle(h);
    if (status == 'I' && h->n == 0 && !h->batch)
        hf_holds_drop_portals(h);
}

/* -- others ------------------------------------------------------------------------------------ */

/* Texts can be read only where strings are standard, and no byte of a character looks like ASCII.
 */
void hf_holds_parameter(struct hf_holds *h, const char *name, const char *value)
{
    static const char *const odd[] = {"SJIS",  "BIG5",           "GBK", "UHC", "GB18030",
                                      "JOHAB", "SHIFT_JIS_2004", NULL};

    if (strcmp(name, HF_HOLDS_PARAMETER) == 0)
        hf_holds_report(h, value);
    if (strcmp(name, "standard_conforming_strings") == 0)
        h->odd_strings = strcmp(value, "on") != 0;
    if (strcmp(name, "client_encoding") == 0) {
        h->odd_encoding = false;
        for (size_t i = 0; odd[i] != NULL; i++)
            h->odd_encoding = h->odd_encoding || strcmp(value, odd[i]) == 0;
    }
    if (h->odd_strings || h->odd_encoding)
        unknown(h);
}

static void parameter(struct hf_holds *h, const uint8_t *body, size_t have)
{
    const char *name = (const char *)body;
    const uint8_t *nul = memchr(body, '\0', have);

    if (nul == NULL)
        return;
    if (memchr(nul + 1, '\0', have - (size_t)(nul + 1 - body)) != NULL)
        hf_holds_parameter(h, name, (const char *)nul + 1);
    else if (strcmp(name, HF_HOLDS_PARAMETER) == 0)
        unknown(h); /* cut: it is longer than any guard's */
}

static bool wants_value(struct hf_holds *h)
{
    const struct hf_op *op = hf_holds_head(h);

    return op != NULL && (op->kind == HF_OP_QUERY || op->kind == HF_OP_EXECUTE) &&
           op->text != NULL && !op->prepared && op->at < hf_sql_count(op->text->sql) &&
           hf_sql_statement(op->text->sql, op->at)->kind == HF_SQL_SET_CONFIG;
}

/* DataRow: how many columns, the first one's length, the first one. */
static void row(struct hf_holds *h, const uint8_t *body, size_t have)
{
    size_t len;

    hf_holds_drop_value(h);
    if (!wants_value(h) || have < 6)
        return;
    len = hf_scan_number(body + 2);
    if (len > have - 6 || memchr(body + 6, '\0', len) != NULL)
        return; /* null, or too long */
    if (!hf_budget_take(&h->budget, len + 1)) {
        hf_holds_too_much(h);
        return;
    }
    h->value = malloc(len + 1);
    if (h->value == NULL) {
        hf_budget_give(&h->budget, len + 1);
        return;
    }
    memcpy(h->value, body + 6, len);
    h->value_len = len;
}

size_t hf_holds_server_keep(struct hf_holds *h, char type)
{
    if (h->over)
        return 0;
    if (type == 'D')
        return wants_value(h) ? VALUE_KEEP : 0;
    return type == 'C' || type == 'Z' || type == 'S' ? KEEP : 0;
}

void hf_holds_server_message(struct hf_holds *h, char type, const uint8_t *body, size_t have,
                             uint64_t full)
{
    (void)full;
    while (hf_holds_head(h) != NULL && hf_holds_head(h)->kind == HF_OP_COPY_END)
        hf_holds_pop(h);
    if (h->over)
        return;
    switch (type) {
    case '1':
        parsed(h);
        break;
    case '2':
        answered(h, HF_OP_BIND);
        break;
    case '3':
        closed(h);
        break;
    case 'T':
        if (head_of(h, HF_OP_DESCRIBE) != NULL)
            hf_holds_pop(h);
        break;
    case 'n':
        answered(h, HF_OP_DESCRIBE);
        break;
    case 'C':
        if (have > 0 && body[have - 1] == '\0')
            complete(h, (const char *)body);
        else
            unknown(h);
        break;
    case 's':
        complete(h, NULL);
        break;
    case 'I':
        empty(h);
        break;
    case 'D':
        if (have > 0)
            row(h, body, have);
        break;
    case 'E':
        error(h);
        break;
    case 'Z':
        ready(h, have > 0 ? (char)body[0] : 'E');
        break;
    case 'G':
        copy_in(h);
        break;
    case 'S':
        parameter(h, body, have);
        break;
    case 'W':
        unknown(h);
        break;
    default:
        break; /* authentication, keys, notices, notifications, what is described, COPY's data */
    }
}
