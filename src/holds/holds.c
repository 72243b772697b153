#include "holds/holds.h"

#include <assert.h>
#include <stdlib.h>
#include <string.h>

#include "holds/private.h"

/* -- life -------------------------------------------------------------------------------------- */

struct hf_holds *hf_holds_new(struct hf_sql_cache *cache, const uint8_t *packet, size_t len)
{
    struct hf_holds *h = calloc(1, sizeof *h);

    if (h == NULL || (h->packet = malloc(len + 1)) == NULL ||
        !hf_budget_take(&h->budget, sizeof *h + len + 1)) {
        if (h != NULL)
            free(h->packet);
        free(h);
        return NULL;
    }
    if (len > 0)
        memcpy(h->packet, packet, len);
    h->packet_len = len;
    h->cache = cache;
    h->log.cache = cache;
    h->log.budget = h->journal.budget = &h->budget;
    h->status = 'I';
    return h;
}

static void part_end(struct hf_holds *h, struct hf_part *s)
{
    hf_budget_give(&h->budget, s->cap);
    free(s->bytes);
    s->bytes = NULL;
    s->len = s->cap = 0;
}

static void forget_traffic(struct hf_holds *h)
{
    while (h->n > 0) {
        struct hf_op *op = hf_holds_head(h);
        if (op->kind == HF_OP_CLOSE && op->item != NULL)
            (void)hf_log_reopen(&h->log, op->item);
        hf_holds_pop(h);
    }
    hf_budget_drop(&h->budget, (void **)&h->ops, &h->cap, sizeof *h->ops);
    h->first = 0;
    part_end(h, &h->client);
    part_end(h, &h->server);
    h->client = h->server = (struct hf_part){0};
    hf_holds_set_unnamed(h, NULL);
    hf_holds_drop_portals(h);
    hf_holds_drop_value(h);
    hf_journal_clear(&h->journal);
}

static void forget_all(struct hf_holds *h)
{
    forget_traffic(h);
    hf_log_clear(&h->log);
    if (h->packet == NULL)
        return;
    hf_budget_give(&h->budget, h->packet_len + 1);
    free(h->packet);
    h->packet = NULL;
    h->packet_len = 0;
}

void hf_holds_free(struct hf_holds *h)
{
    if (h == NULL)
        return;
    forget_all(h);
    assert(h->budget.used == sizeof *h);
    free(h);
}

void hf_holds_started(struct hf_holds *h, bool failed)
{
    h->started = true;
    h->status = failed ? 'E' : 'I';
    if (h->guard.is_there || h->over)
        return;
    h->over = true; /* nothing of it is worth to be kept */
    h->pins |= PIN(GUARD);
}

void hf_holds_set_read_only(struct hf_holds *h, bool yes)
{
    h->read_only = yes;
}

void hf_holds_lost(struct hf_holds *h)
{
    forget_traffic(h);
    hf_log_remove_pending(&h->log);
    h->guard = (struct hf_guarded){0};
    h->configs = 0;
    h->left_unnamed = h->discarded = false;
    h->status = 'I';
    h->started = false;
    h->batch = h->skipping = h->copying = h->failed = h->committed_early = h->committed = h->wrote = false;
    h->tx_read_only = h->unnamed_here = h->begins = false;
}

void hf_holds_too_much(struct hf_holds *h)
{
    h->over = true;
    h->pins = PIN(TOO_MUCH);
}

/* -- the queue --------------------------------------------------------------------------------- */

struct hf_op *hf_holds_op(const struct hf_holds *h, uint32_t i)
{
    return &h->ops[(h->first + i) % h->cap];
}

struct hf_op *hf_holds_head(struct hf_holds *h)
{
    return h->n > 0 ? hf_holds_op(h, 0) : NULL;
}

struct hf_op *hf_holds_push(struct hf_holds *h, enum hf_op_kind kind)
{
    uint32_t cap = h->cap;
    struct hf_op *op;

    if (!hf_budget_grow(&h->budget, (void **)&h->ops, &h->cap, h->n, sizeof *h->ops)) {
        hf_holds_too_much(h);
        return NULL;
    }
    if (h->cap > cap && h->first > 0) /* what went around the end goes on behind it: twice the room */
        memcpy(h->ops + cap, h->ops, h->first * sizeof *h->ops);
    op = hf_holds_op(h, h->n++);
    *op = (struct hf_op){.kind = kind};
    return op;
}

void hf_holds_op_set_text(struct hf_holds *h, struct hf_op *op, struct hf_text *t)
{
    op->text = t;
    op->renames = t != NULL && hf_sql_renames(t->sql);
    h->n_renaming += op->renames;
}

void hf_holds_op_set_unnamed(struct hf_holds *h, struct hf_op *op)
{
    op->unnamed = true;
    h->n_unnamed++;
}

void hf_holds_pop(struct hf_holds *h)
{
    struct hf_op *op = hf_holds_op(h, 0);

    h->n_unnamed -= op->unnamed;
    h->n_renaming -= op->renames;
    hf_text_unref(op->text);
    hf_item_unref(op->item);
    h->first = (h->first + 1) % h->cap;
    h->n--;
    if (h->n == 0 && h->cap > 64) { /* idle sessions keep little */
        hf_budget_drop(&h->budget, (void **)&h->ops, &h->cap, sizeof *h->ops);
        h->first = 0;
    }
}

void hf_holds_pop_behind_head(struct hf_holds *h, uint32_t n)
{
    struct hf_op head = *hf_holds_op(h, 0);

    assert(n < h->n);
    for (uint32_t i = 1; i <= n; i++) {
        *hf_holds_op(h, 0) = *hf_holds_op(h, 1);
        hf_holds_pop(h);
    }
    *hf_holds_op(h, 0) = head;
}

void hf_holds_drop_value(struct hf_holds *h)
{
    if (h->value == NULL)
        return;
    hf_budget_give(&h->budget, h->value_len + 1);
    free(h->value);
    h->value = NULL;
    h->value_len = 0;
}

void hf_holds_drop_portals(struct hf_holds *h)
{
    if (h->portals == NULL)
        return;
    for (unsigned i = 0; i < HF_PORTALS_MAX; i++)
        hf_text_unref(h->portals[i].text);
    hf_budget_give(&h->budget, HF_PORTALS_MAX * sizeof *h->portals);
    free(h->portals);
    h->portals = NULL;
}

void hf_holds_set_unnamed(struct hf_holds *h, struct hf_item *i)
{
    hf_item_unref(h->unnamed);
    h->unnamed = i;
}

/* -- bytes
 * -------------------------------------------------------------------------------------------------
 */

typedef void message_fn(struct hf_holds *h, char type, const uint8_t *body, size_t have,
                        uint64_t full);

/* A body's piece that is not the whole of it. False: no room, out of memory. */
static bool part_keep(struct hf_holds *h, struct hf_part *s, const uint8_t *p, size_t n, size_t keep)
{
    size_t room = keep > s->len ? keep - s->len : 0, fits = n < room ? n : room;

    if (fits == 0)
        return true;
    if (s->len + fits > s->cap) {
        size_t cap = s->len + fits < 64 ? 64 : (s->len + fits) * 2;
        uint8_t *more;
        if (cap > keep)
            cap = keep;
        if (!hf_budget_take(&h->budget, cap - s->cap))
            return false;
        more = realloc(s->bytes, cap);
        if (more == NULL) {
            hf_budget_give(&h->budget, cap - s->cap);
            return false;
        }
        s->bytes = more;
        s->cap = cap;
    }
    memcpy(s->bytes + s->len, p, fits);
    s->len += fits;
    return true;
}

static void feed(struct hf_holds *h, bool client, const uint8_t *p, size_t n)
{
    struct hf_part *s = client ? &h->client : &h->server;
    message_fn *message = client ? hf_holds_client_message : hf_holds_server_message;

    while (n > 0 && !s->scan.broken && !h->over) {
        size_t body = n, used, have, keep = 0;
        bool complete;
        char type;
        used = hf_scan_take(&s->scan, p, n, &body, &complete);
        if (s->scan.broken)
            break;
        type = (char)s->scan.head[0];
        have = used > body ? used - body : 0;
        if (have > 0)
            keep = client ? hf_holds_client_keep(h, type) : hf_holds_server_keep(h, type);
        if (complete && s->len == 0) {
            message(h, type, p + body, have < keep ? have : keep, s->scan.full);
        } else if (have > 0 && !part_keep(h, s, p + body, have, keep)) {
            hf_holds_too_much(h);
        } else if (complete) {
            message(h, type, s->bytes, s->len, s->scan.full);
            part_end(h, s);
        }
        p += used;
        n -= used;
    }
    if (s->scan.broken && !h->over) {
        h->over = true;
        h->pins |= PIN(UNKNOWN);
    }
    if (!h->over)
        return;
    forget_all(h);
    if ((h->pins & PIN(TOO_MUCH)) != 0)
        h->pins = PIN(TOO_MUCH);
}

void hf_holds_client(struct hf_holds *h, const uint8_t *p, size_t n)
{
    h->share = HF_SQL_SHARE_BYTES;
    feed(h, true, p, n);
}

void hf_holds_server(struct hf_holds *h, const uint8_t *p, size_t n)
{
    feed(h, false, p, n);
}

/* -- answers
 * -----------------------------------------------------------------------------------------------
 */

static bool is_between(const struct hf_holds *h)
{
    return h->started && h->n == 0 && !h->batch && !h->skipping && !h->copying && h->client.scan.have == 0 &&
           h->server.scan.have == 0;
}

bool hf_holds_in_transaction(const struct hf_holds *h)
{
    return h->over || h->status != 'I';
}

uint32_t hf_holds_pins(const struct hf_holds *h)
{
    return h->over ? h->pins : h->pins | h->guard.held;
}

bool hf_holds_may_survive(const struct hf_holds *h)
{
    return (hf_holds_pins(h) & ~PIN(SEQUENCE)) == 0;
}

enum hf_hold hf_holds_by(const struct hf_holds *h)
{
    uint32_t pins = hf_holds_pins(h);

    if (!h->started)
        return HF_HOLD_START;
    for (unsigned hold = HF_HOLD_TEMPORARY; hold < HF_HOLD_KINDS; hold++)
        if ((pins & HF_HOLD_BIT(hold)) != 0)
            return (enum hf_hold)hold;
    if (h->copying)
        return HF_HOLD_COPY;
    if (h->status != 'I')
        return HF_HOLD_TRANSACTION;
    return is_between(h) ? HF_HOLD_NOTHING : HF_HOLD_STATEMENT;
}

bool hf_holds_is_free(const struct hf_holds *h)
{
    return h->status == 'I' && !h->over && is_between(h) && hf_holds_pins(h) == 0;
}

/* Walks what is under way in the order in which the server does it. */
struct course {
    enum { OUT, IN, MAYBE } tx; /* MAYBE: a BEGIN under way could fail */
    bool begun;                 /* by something under way, with which all that follows would be passed over, up to the Sync */
    bool wrote, read_only;
    bool commit; /* something could commit what it writes */
    bool opens;  /* a BEGIN that its client does not rely on yet */
    bool inside; /* as in hf_holds_stays_inside() */
};

static void step(struct course *c, const struct hf_sql_statement *s)
{
    switch (s->kind) {
    case HF_SQL_BEGIN:
        if (c->tx != IN)
            c->begun = true;
        c->tx = IN;
        c->read_only = s->read_only && !c->wrote; /* in one that has written already it is too late */
        break;
    case HF_SQL_COMMIT:
        if (c->tx != IN || (c->wrote && !c->read_only) || s->commits)
            c->commit = true;
        c->tx = s->chain ? c->tx : OUT;
        c->wrote = c->read_only = false;
        break;
    case HF_SQL_ROLLBACK:
        c->tx = s->chain ? c->tx : OUT;
        c->wrote = c->read_only = false;
        break;
    case HF_SQL_SET_LOCAL:
        if (hf_sql_is_of_transaction(s->name))
            c->read_only = false;
        break;
    default:
        c->wrote = c->wrote || s->writes;
        if (c->tx != IN && s->writes && s->kind != HF_SQL_PREPARE)
            c->commit = true;
        break;
    }
}

/* `s` NULL: it is not understood. */
static void believe(struct course *c, const struct hf_sql_statement *s, bool simple)
{
    if (s != NULL && s->kind == HF_SQL_BEGIN) {
        c->opens = simple;
        c->inside = c->inside || !simple;
        return;
    }
    c->inside = c->inside || c->opens;
    if (s != NULL && s->kind == HF_SQL_COMMIT && !s->chain)
        c->inside = c->opens = false;
}

static void course_op(struct course *c, const struct hf_op *op)
{
    const struct hf_sql *q = op->text != NULL ? op->text->sql : NULL;
    bool many = op->kind == HF_OP_QUERY, begun = c->begun;

    if (many) /* what began before, by the extended protocol, does not fail without this being passed over */
        c->begun = false;
    if (op->kind == HF_OP_FUNCTION) {
        c->wrote = true;
        c->commit = c->commit || c->tx != IN;
        believe(c, NULL, true);
    } else if (op->kind == HF_OP_QUERY || op->kind == HF_OP_EXECUTE) {
        if (q == NULL || !hf_sql_is_understood(q) || op->prepared) {
            c->commit = true;
            believe(c, NULL, many);
        } else {
            for (size_t i = op->at; i < (many ? hf_sql_count(q) : op->at + 1u) && i < hf_sql_count(q); i++) {
                step(c, hf_sql_statement(q, i));
                believe(c, hf_sql_statement(q, i), many);
            }
        }
    }
    if ((many || op->kind == HF_OP_SYNC) && c->begun && c->tx == IN)
        c->tx = MAYBE;
    c->begun = many ? begun : c->begun && op->kind != HF_OP_SYNC;
}

static struct course course(const struct hf_holds *h)
{
    bool inside = h->status != 'I';
    struct course c = {.tx = inside ? IN : OUT, .inside = inside, .wrote = h->wrote, .read_only = h->tx_read_only};

    /* Statements of this batch that are answered and commit at its Sync; and of a text of several. And what is committed
     * already of it. */
    c.commit = (!inside && h->wrote) || h->committed_early || h->committed;
    for (uint32_t i = 0; i < h->n; i++)
        course_op(&c, hf_holds_op(h, i));
    return c;
}

bool hf_holds_stays_inside(const struct hf_holds *h)
{
    return course(h).inside || (h->batch && h->begins);
}

/* Could PostgreSQL refuse it, and pass over all up to the Sync? */
static bool is_refusable(enum hf_op_kind kind)
{
    return kind == HF_OP_PARSE || kind == HF_OP_BIND || kind == HF_OP_DESCRIBE || kind == HF_OP_EXECUTE;
}

struct hf_owed hf_holds_owed(const struct hf_holds *h)
{
    struct hf_owed owed = {.failed = h->failed, .batch = h->batch && !h->over, .answered = h->n == 0};
    bool refusable = false; /* such a one is under way, and takes a Query behind it along */

    for (uint32_t i = 0; i < h->n; i++) {
        enum hf_op_kind kind = hf_holds_op(h, i)->kind;
        bool ends = kind == HF_OP_SYNC || (!refusable && (kind == HF_OP_QUERY || kind == HF_OP_FUNCTION));
        owed.ready += ends;
        if (kind != HF_OP_COPY_END)
            owed.batch = !ends;
        refusable = kind != HF_OP_SYNC && (refusable || is_refusable(kind));
    }
    owed.certain = !refusable && !h->skipping && !(owed.failed && owed.ready == 0);
    return owed;
}

enum hf_doing hf_holds_doing(const struct hf_holds *h)
{
    if (h->over)
        return h->read_only ? HF_DOING_READ : HF_DOING_COMMIT;
    if (is_between(h))
        return h->status == 'I' ? HF_DOING_NOTHING : HF_DOING_TRANSACTION;
    if (course(h).commit && !h->read_only)
        return HF_DOING_COMMIT;
    return h->status == 'I' ? HF_DOING_READ : HF_DOING_TRANSACTION;
}

size_t hf_holds_bytes(const struct hf_holds *h)
{
    return h->budget.used;
}
