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

static struct hf_op *push(struct hf_holds *h, enum hf_op_kind kind)
{
    struct hf_op *op;

    if (h->n >= HF_HOLDS_QUEUE_MAX) {
        h->over = true;
        hf_holds_too_much(h);
        return NULL;
    }
    if (h->n == h->cap) {
        uint32_t cap = h->cap == 0 ? 4 : h->cap * 2;
        struct hf_op *ops = calloc(cap, sizeof *ops);
        if (ops == NULL) {
            h->over = true;
            hf_holds_too_much(h);
            return NULL;
        }
        for (uint32_t i = 0; i < h->n; i++)
            ops[i] = h->ops[(h->first + i) % h->cap];
        free(h->ops);
        h->ops = ops;
        h->cap = cap;
        h->first = 0;
    }
    op = &h->ops[(h->first + h->n++) % h->cap];
    memset(op, 0, sizeof *op);
    op->kind = kind;
    return op;
}

/* NULL: nothing can be said about it. */
static struct hf_sql *verdict(struct hf_holds *h, const char *text, size_t len, bool again)
{
    struct hf_sql *q = len <= HF_SQL_TEXT_MAX ? hf_sql_get(h->cache, text, len, again) : NULL;

    if (q == NULL && len <= HF_SQL_TEXT_MAX)
        hf_holds_too_much(h);
    return q;
}

/* -- the extended protocol
 * ----------------------------------------------------------------------------- */

static struct hf_item *statement(const char *name, size_t len, struct hf_sql *q,
                                 const struct reader *types)
{
    struct hf_item *i = hf_item_new(HF_ITEM_STATEMENT, name, len);
    size_t n = (size_t)(types->end - types->p);

    if (i == NULL)
        return NULL;
    i->by_message = true;
    i->sql = hf_sql_ref(q);
    i->n_types = (uint16_t)(n / 4);
    i->types = n > 0 ? malloc(n) : NULL;
    if (n > 0 && i->types == NULL) {
        hf_item_unref(i);
        return NULL;
    }
    if (n > 0)
        memcpy(i->types, types->p, n);
    return i;
}

static void set_unnamed(struct hf_holds *h, struct hf_item *i)
{
    hf_item_unref(h->unnamed);
    h->unnamed = i;
}

static void query(struct hf_holds *h, const uint8_t *body, size_t have, uint64_t full)
{
    struct reader r = {.p = body, .end = body + have};
    size_t len;
    const char *text = read_string(&r, &len);
    struct hf_op *op = push(h, HF_OP_QUERY);

    if (op != NULL && !r.bad && r.p == r.end && have == full)
        op->sql = verdict(h, text, len, false);
    set_unnamed(h, NULL); /* a simple query drops it */
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
    i->pending = true;
    i->refs++;
    op->item = i;
    if (!hf_log_append(&h->log, i))
        hf_holds_too_much(h);
}

static void parse(struct hf_holds *h, const uint8_t *body, size_t have, uint64_t full)
{
    struct reader r = {.p = body, .end = body + have};
    size_t name_len, len;
    const char *name = read_string(&r, &name_len), *text = read_string(&r, &len);
    struct hf_op *op = push(h, HF_OP_PARSE);
    struct hf_sql *q = NULL;
    struct hf_item *i;

    h->batch = true;
    if (op == NULL)
        return;
    op->unnamed = !r.bad && name_len == 0;
    if (!r.bad && r.end - r.p >= 2 && have == full) {
        unsigned n = (unsigned)r.p[0] << 8 | r.p[1];
        r.p += 2;
        if ((size_t)(r.end - r.p) == (size_t)n * 4)
            q = verdict(h, text, len, true);
    }
    i = q != NULL ? statement(name, name_len, q, &r) : NULL;
    hf_sql_unref(q);
    if (q != NULL && i == NULL)
        hf_holds_too_much(h);
    if (op->unnamed) {
        set_unnamed(h, i);
        h->unnamed_here = true;
    } else if (i != NULL) {
        set_named(h, op, i);
    }
}

static struct hf_portal *portal(struct hf_holds *h, const char *name, size_t len, bool make)
{
    struct hf_portal *free_one = NULL;

    if (h->portals == NULL && make)
        h->portals = calloc(HF_PORTALS_MAX, sizeof *h->portals);
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

/* Is the unnamed statement certainly the one that was parsed last? Not if its Parse may still be
 * passed over. */
static bool unnamed_is_certain(const struct hf_holds *h)
{
    if (h->unnamed_here)
        return true;
    for (uint32_t i = 0; i < h->n; i++) {
        const struct hf_op *op = hf_holds_op(h, i);
        if (op->kind == HF_OP_PARSE && op->unnamed)
            return false;
    }
    return true;
}

static void bind(struct hf_holds *h, const uint8_t *body, size_t have)
{
    struct reader r = {.p = body, .end = body + have};
    size_t portal_len, len;
    const char *portal_name = read_string(&r, &portal_len), *name = read_string(&r, &len);
    struct hf_portal *p = portal(h, portal_name, portal_len, true);
    const struct hf_item *i = NULL;
    struct hf_sql *q = NULL;
    uint32_t index = 0;
    bool prepared = false;

    h->batch = true;
    (void)push(h, HF_OP_BIND);
    if (p == NULL)
        return;
    if (!r.bad && len == 0)
        i = unnamed_is_certain(h) ? h->unnamed : NULL;
    else if (!r.bad)
        i = hf_log_find(&h->log, name, len);
    if (i != NULL && !i->unclear) {
        q = i->sql;
        index = i->index;
        prepared = !i->by_message;
    }
    if (q != NULL)
        hf_sql_ref(q);
    hf_sql_unref(p->sql);
    p->sql = q;
    p->index = index;
    p->prepared = prepared;
}

static void execute(struct hf_holds *h, const uint8_t *body, size_t have)
{
    struct reader r = {.p = body, .end = body + have};
    size_t len;
    const char *name = read_string(&r, &len);
    const struct hf_portal *p = r.bad ? NULL : portal(h, name, len, false);
    struct hf_op *op = push(h, HF_OP_EXECUTE);

    h->batch = true;
    if (op == NULL || p == NULL || p->sql == NULL)
        return;
    op->sql = hf_sql_ref(p->sql);
    op->at = p->index;
    op->prepared = p->prepared;
}

static void close_message(struct hf_holds *h, const uint8_t *body, size_t have)
{
    struct reader r = {.p = body + (have > 0), .end = body + have};
    size_t len;
    const char *name = read_string(&r, &len);
    struct hf_op *op = push(h, HF_OP_CLOSE);

    h->batch = true;
    if (op == NULL || r.bad || have == 0 || len == 0)
        return;
    if (body[0] == 'S') {
        op->item = hf_log_find(&h->log, name, len);
        if (op->item != NULL) {
            op->item->refs++;
            op->item->closing++;
        }
    } else if (portal(h, name, len, false) == NULL) {
        h->stale = true; /* a cursor that was declared WITH HOLD */
    }
}

/* -- others
 * -----------------------------------------------------------------------------------------------
 */

/* The fast path is what libpq uses for large objects; other functions could do anything. */
static void function(struct hf_holds *h, const uint8_t *body, size_t have)
{
    static const uint32_t large_objects[] = {715, 952, 953,  954,  955,  956, 957,
                                             958, 964, 1004, 3170, 3171, 3172};
    struct hf_op *op = push(h, HF_OP_FUNCTION);
    uint32_t oid = have >= 4 ? hf_scan_number(body) : 0;
    bool known = false;

    if (op == NULL)
        return;
    for (size_t i = 0; i < sizeof large_objects / sizeof *large_objects; i++)
        known = known || large_objects[i] == oid;
    op->at = known ? oid : 0;
    if (!known)
        h->pins |= PIN(UNKNOWN);
}

static void copy_end(struct hf_holds *h)
{
    if (h->copying)
        h->copying = false;
    else if (h->n > 0)
        (void)push(h, HF_OP_COPY_END);
}

static void sync(struct hf_holds *h)
{
    if (h->copying)
        return;
    h->batch = h->skipping = h->unnamed_here = false;
    (void)push(h, HF_OP_SYNC);
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
    case 'F':
        return NAMES_KEEP;
    default:
        return 0;
    }
}

void hf_holds_client_message(struct hf_holds *h, char type, const uint8_t *body, size_t have,
                             uint64_t full)
{
    if (!h->started && strchr("pX", type) == NULL)
        h->over = true; /* who is not logged in yet gets no statement looked at */
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
        (void)push(h, HF_OP_DESCRIBE);
        break;
    case 'E':
        execute(h, body, have);
        break;
    case 'C':
        close_message(h, body, have);
        break;
    case 'F':
        function(h, body, have);
        break;
    case 'S':
        sync(h);
        break;
    case 'c':
    case 'f':
        copy_end(h);
        break;
    case 'H':
        h->batch = h->batch || !h->copying;
        break;
    case 'd':
    case 'p':
    case 'X':
        break;
    default:
        h->pins |= PIN(UNKNOWN);
        break;
    }
}
