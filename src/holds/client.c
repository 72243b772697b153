/* The client's messages: each becomes an entry of the queue of what the server owes an answer for.
 */
#include <stdlib.h>
#include <string.h>

#include "holds/private.h"
#include "base/scan.h"

enum { NAMES_KEEP = 1024 };

/* Strings and numbers of a message's body. */
struct reader {
    const uint8_t *p, *end;
    bool bad;
};

static const char *read_string(struct reader *r, size_t *len)
{
    const uint8_t *nul = r->bad ? NULL : memchr(r->p, '\0', (size_t)(r->end - r->p));
    const char *s = (const char *)r->p;

    *len = 0;
    if (nul == NULL) {
        r->bad = true;
        return "";
    }
    *len = (size_t)(nul - r->p);
    r->p = nul + 1;
    return s;
}

/* NULL: nothing can be said about it. */
static struct hf_text *verdict(struct hf_holds *h, const char *text, size_t len, bool again)
{
    struct hf_text *t = NULL;
    struct hf_sql *q;

    if (len > HF_SQL_TEXT_MAX)
        return NULL;
    q = hf_sql_get(h->cache, &h->share, text, len, again);
    if (q != NULL)
        t = hf_text_new(&h->budget, q);
    if (t == NULL)
        hf_holds_too_much(h);
    return t;
}

/* -- the extended protocol --------------------------------------------------------------------- */

/* Takes `t` over. NULL: no room. */
static struct hf_item *statement(struct hf_holds *h, const char *name, size_t len, struct hf_text *t,
                                 const struct reader *types)
{
    struct hf_item *i = hf_item_new(&h->budget, HF_ITEM_STATEMENT, name, len);

    if (i == NULL || !hf_item_set_types(i, types->p, (size_t)(types->end - types->p))) {
        hf_text_unref(t);
        hf_item_unref(i);
        hf_holds_too_much(h);
        return NULL;
    }
    i->by_message = true;
    i->sql = t;
    return i;
}

/* ReadyForQuery comes for it and all that was sent before. */
static void end_batch(struct hf_holds *h)
{
    h->batch = h->unnamed_here = h->begins = false;
}

static bool is_begin(const struct hf_text *t)
{
    return t != NULL && hf_sql_count(t->sql) == 1 && hf_sql_statement(t->sql, 0)->kind == HF_SQL_BEGIN;
}

static void query(struct hf_holds *h, const uint8_t *body, size_t have, uint64_t full)
{
    struct reader r = {.p = body, .end = body + have};
    size_t len;
    const char *text = read_string(&r, &len);
    struct hf_op *op = hf_holds_push(h, HF_OP_QUERY);

    if (op != NULL && !r.bad && r.p == r.end && have == full)
        hf_holds_op_set_text(h, op, verdict(h, text, len, false));
    hf_holds_set_unnamed(h, NULL); /* a simple query drops it */
    end_batch(h);
}

/* In the log at once, so that it is found; one reference is the queue's. */
static void set_named(struct hf_holds *h, struct hf_op *op, struct hf_item *i)
{
    struct hf_item *old = hf_log_find(&h->log, i->name, strlen(i->name));

    /* A name that is in use is an error, and everything that follows is about the old one. */
    if (old != NULL) {
        old->unclear = true;
        hf_item_unref(i);
        return;
    }
    i->refs++;
    op->item = i;
    if (!hf_log_add_pending(&h->log, i))
        hf_holds_too_much(h);
}

static void parse(struct hf_holds *h, const uint8_t *body, size_t have, uint64_t full)
{
    struct reader r = {.p = body, .end = body + have};
    size_t name_len, len;
    const char *name = read_string(&r, &name_len), *text = read_string(&r, &len);
    struct hf_op *op = hf_holds_push(h, HF_OP_PARSE);
    struct hf_text *t = NULL;
    struct hf_item *i;

    h->batch = true;
    if (op == NULL)
        return;
    if (!r.bad && name_len == 0)
        hf_holds_op_set_unnamed(h, op);
    if (!r.bad && r.end - r.p >= 2 && have == full) {
        unsigned n = (unsigned)r.p[0] << 8 | r.p[1];
        r.p += 2;
        if ((size_t)(r.end - r.p) == (size_t)n * 4)
            t = verdict(h, text, len, true);
    }
    h->begins = h->begins || is_begin(t);
    i = t != NULL ? statement(h, name, name_len, t, &r) : NULL;
    if (op->unnamed) {
        h->left_unnamed = true;
        hf_holds_set_unnamed(h, i);
        h->unnamed_here = true;
    } else if (i != NULL) {
        set_named(h, op, i);
    }
}

static bool make_portals(struct hf_holds *h)
{
    size_t bytes = HF_PORTALS_MAX * sizeof *h->portals;

    if (!hf_budget_take(&h->budget, bytes))
        return false;
    h->portals = calloc(HF_PORTALS_MAX, sizeof *h->portals);
    if (h->portals == NULL)
        hf_budget_give(&h->budget, bytes);
    return h->portals != NULL;
}

static struct hf_portal *portal(struct hf_holds *h, const char *name, size_t len, bool make)
{
    struct hf_portal *free_one = NULL;

    if (h->portals == NULL && make && !make_portals(h))
        hf_holds_too_much(h);
    if (h->portals == NULL || len >= sizeof h->portals->name)
        return NULL;
    for (unsigned i = 0; i < HF_PORTALS_MAX; i++) {
        struct hf_portal *p = &h->portals[i];
        if (p->used && strlen(p->name) == len && memcmp(p->name, name, len) == 0)
            return p;
        if (!p->used && free_one == NULL)
            free_one = p;
    }
    if (!make || free_one == NULL)
        return NULL;
    free_one->used = true;
    memcpy(free_one->name, name, len);
    free_one->name[len] = '\0';
    return free_one;
}

/* The statement that a Bind means, if that is certain. */
static const struct hf_item *meant(const struct hf_holds *h, const char *name, size_t len)
{
    const struct hf_item *i;

    /* The unnamed one is certainly the one that was parsed last, unless its Parse may still be passed
     * over. */
    if (len == 0)
        return h->unnamed_here || h->n_unnamed == 0 ? h->unnamed : NULL;
    /* By then a PREPARE or DEALLOCATE that is under way will be done, or will have failed. */
    i = h->n_renaming == 0 ? hf_log_find(&h->log, name, len) : NULL;
    return i != NULL && !i->unclear ? i : NULL;
}

static void bind(struct hf_holds *h, const uint8_t *body, size_t have)
{
    struct reader r = {.p = body, .end = body + have};
    size_t portal_len, len;
    const char *portal_name = read_string(&r, &portal_len), *name = read_string(&r, &len);
    struct hf_portal *p = portal(h, portal_name, portal_len, true);
    const struct hf_item *i = r.bad ? NULL : meant(h, name, len);

    h->batch = true;
    (void)hf_holds_push(h, HF_OP_BIND);
    if (i != NULL)
        h->begins = is_begin(i->sql);
    if (p == NULL)
        return;
    hf_text_unref(p->text);
    p->text = i != NULL ? hf_text_ref(i->sql) : NULL;
    p->index = i != NULL ? i->index : 0;
    p->prepared = i != NULL && !i->by_message;
}

static void execute(struct hf_holds *h, const uint8_t *body, size_t have)
{
    struct reader r = {.p = body, .end = body + have};
    size_t len;
    const char *name = read_string(&r, &len);
    const struct hf_portal *p = r.bad ? NULL : portal(h, name, len, false);
    struct hf_op *op = hf_holds_push(h, HF_OP_EXECUTE);

    h->batch = true;
    if (op == NULL || p == NULL || p->text == NULL)
        return;
    hf_holds_op_set_text(h, op, hf_text_ref(p->text));
    op->at = p->index;
    op->prepared = p->prepared;
}

static void close_message(struct hf_holds *h, const uint8_t *body, size_t have)
{
    struct reader r = {.p = body + (have > 0), .end = body + have};
    size_t len;
    const char *name = read_string(&r, &len);
    struct hf_op *op = hf_holds_push(h, HF_OP_CLOSE);

    h->batch = true;
    if (op == NULL || r.bad || have == 0 || len == 0)
        return;
    if (body[0] == 'S') {
        op->item = hf_log_find(&h->log, name, len);
        if (op->item != NULL) {
            op->item->refs++;
            hf_log_close(&h->log, op->item);
        }
    }
}

/* -- others
 * -----------------------------------------------------------------------------------------------
 */

static void copy_end(struct hf_holds *h)
{
    if (h->copying)
        h->copying = false;
    else if (h->n > 0)
        (void)hf_holds_push(h, HF_OP_COPY_END);
}

static void sync(struct hf_holds *h)
{
    if (h->copying)
        return;
    h->skipping = false;
    end_batch(h);
    (void)hf_holds_push(h, HF_OP_SYNC);
}

size_t hf_holds_client_keep(const struct hf_holds *h, char type)
{
    if (h->over)
        return 0;
    switch (type) {
    case 'Q':
    case 'P':
        return HF_SQL_TEXT_MAX + NAMES_KEEP;
    case 'B':
    case 'E':
    case 'C':
        return NAMES_KEEP;
    default:
        return 0;
    }
}

void hf_holds_client_message(struct hf_holds *h, char type, const uint8_t *body, size_t have,
                             uint64_t full)
{
    if (!h->started && strchr("pX", type) == NULL) {
        h->over = true; /* who is not logged in yet gets no statement looked at */
        h->pins |= PIN(UNKNOWN);
    }
    if (h->over || (h->skipping && type != 'S'))
        return;
    if (h->copying && strchr("dHScfX", type) == NULL) {
        h->pins |= PIN(UNKNOWN);
        h->copying = false;
    }
    switch (type) {
    case 'Q':
        query(h, body, have, full);
        break;
    case 'P':
        parse(h, body, have, full);
        break;
    case 'B':
        bind(h, body, have);
        break;
    case 'D':
        h->batch = true;
        (void)hf_holds_push(h, HF_OP_DESCRIBE);
        break;
    case 'E':
        execute(h, body, have);
        break;
    case 'C':
        close_message(h, body, have);
        break;
    case 'F':
        (void)hf_holds_push(h, HF_OP_FUNCTION);
        end_batch(h);
        break;
    case 'S':
        sync(h);
        break;
    case 'c':
    case 'f':
        copy_end(h);
        break;
    case 'H':
    case 'd':
    case 'p':
    case 'X':
        break;
    default:
        h->pins |= PIN(UNKNOWN);
        break;
    }
}
