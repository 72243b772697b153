#include "holds/holds.h"

#include <stdlib.h>
#include <string.h>

#include "holds/private.h"

/* -- life
 * --------------------------------------------------------------------------------------------------
 */

struct hf_holds *hf_holds_new(struct hf_sql_cache *cache, const uint8_t *packet, size_t len)
{
    struct hf_holds *h = calloc(1, sizeof *h);

    if (h == NULL || (h->packet = malloc(len + 1)) == NULL) {
        free(h);
        return NULL;
    }
    if (len > 0)
        memcpy(h->packet, packet, len);
    h->packet_len = len;
    h->cache = cache;
    h->status = 'I';
    if (memmem(h->packet, len, "pg_temp", 7) != NULL)
        h->pins = PIN(SETTING); /* what is created without a schema may be temporary */
    return h;
}

static void forget_traffic(struct hf_holds *h)
{
    while (h->n > 0)
        hf_holds_pop(h);
    free(h->ops);
    h->ops = NULL;
    h->first = h->cap = 0;
    free(h->client.bytes);
    free(h->server.bytes);
    h->client = h->server = (struct hf_part){0};
    hf_item_unref(h->unnamed);
    h->unnamed = NULL;
    for (unsigned i = 0; h->portals != NULL && i < HF_PORTALS_MAX; i++)
        hf_sql_unref(h->portals[i].sql);
    free(h->portals);
    h->portals = NULL;
    free(h->value);
    h->value = NULL;
    hf_journal_clear(&h->journal);
}

void hf_holds_free(struct hf_holds *h)
{
    if (h == NULL)
        return;
    forget_traffic(h);
    hf_log_clear(&h->log);
    free(h->packet);
    free(h);
}

void hf_holds_started(struct hf_holds *h)
{
    h->started = true;
}

void hf_holds_set_read_only(struct hf_holds *h, bool yes)
{
    h->read_only = yes;
}

void hf_holds_lost(struct hf_holds *h)
{
    forget_traffic(h);
    for (uint32_t k = h->log.n; k-- > 0;) {
        h->log.items[k]->closing = 0;
        if (h->log.items[k]->pending)
            hf_log_remove(&h->log, h->log.items[k]);
    }
    h->pins &= ~((uint32_t)HF_HOLDS_VISIBLE | PIN(SEQUENCE));
    h->status = 'I';
    h->started = false;
    h->batch = h->skipping = h->copying = h->failed = h->committed_early = h->wrote = false;
    h->tx_read_only = h->stale = h->unnamed_here = false;
}

void hf_holds_too_much(struct hf_holds *h)
{
    h->pins |= PIN(TOO_MUCH);
}

void hf_holds_set_code(struct hf_holds *h, const struct hf_code *code)
{
    h->code = code;
    if (code == NULL || (h->pins & PIN(DATABASE)) == 0)
        return;
    /* What has run before it was known: anything that is there. */
    h->pins &= ~PIN(DATABASE);
    if (hf_code_worst(code) == HF_CODE_HIDDEN)
        h->pins |= PIN(CODE);
    if (hf_code_worst(code) == HF_CODE_NOTHING && (h->pins & PIN(UNSURE)) != 0)
        h->pins &= ~PIN(UNSURE);
}

/* -- the queue
 * --------------------------------------------------------------------------------------------- */

struct hf_op *hf_holds_op(const struct hf_holds *h, uint32_t i)
{
    return &h->ops[(h->first + i) % h->cap];
}

struct hf_op *hf_holds_head(struct hf_holds *h)
{
    return h->n > 0 ? hf_holds_op(h, 0) : NULL;
}

void hf_op_clear(struct hf_op *op)
{
    hf_sql_unref(op->sql);
    hf_item_unref(op->item);
    memset(op, 0, sizeof *op);
}

void hf_holds_pop(struct hf_holds *h)
{
    hf_op_clear(hf_holds_op(h, 0));
    h->first = (h->first + 1) % h->cap;
    h->n--;
    if (h->n == 0 && h->cap > 64) { /* idle sessions keep little */
        free(h->ops);
        h->ops = NULL;
        h->first = h->cap = 0;
    }
}

/* -- bytes
 * -------------------------------------------------------------------------------------------------
 */

typedef void message_fn(struct hf_holds *h, char type, const uint8_t *body, size_t have,
                        uint64_t full);

/* A body's piece that is not the whole of it. False: out of memory. */
static bool part_keep(struct hf_part *s, const uint8_t *p, size_t n, size_t keep)
{
    size_t room = keep > s->len ? keep - s->len : 0, fits = n < room ? n : room;

    if (fits == 0)
        return true;
    if (s->len + fits > s->cap) {
        size_t cap = s->len + fits < 64 ? 64 : (s->len + fits) * 2;
        uint8_t *more = realloc(s->bytes, cap);
        if (more == NULL)
            return false;
        s->bytes = more;
        s->cap = cap;
    }
    memcpy(s->bytes + s->len, p, fits);
    s->len += fits;
    return true;
}

static void part_end(struct hf_part *s)
{
    free(s->bytes);
    s->bytes = NULL;
    s->len = s->cap = 0;
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
        } else if (have > 0 && !part_keep(s, p + body, have, keep)) {
            h->over = true;
        } else if (complete) {
            message(h, type, s->bytes, s->len, s->scan.full);
            part_end(s);
        }
        p += used;
        n -= used;
    }
    if (s->scan.broken)
        h->over = true;
    if (h->over)
        h->pins |= PIN(UNKNOWN);
}

void hf_holds_client(struct hf_holds *h, const uint8_t *p, size_t n)
{
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
    return h->started && h->n == 0 && !h->batch && !h->copying && h->client.scan.have == 0 &&
           h->server.scan.have == 0;
}

bool hf_holds_in_transaction(const struct hf_holds *h)
{
    return h->status != 'I';
}

uint32_t hf_holds_pins(const struct hf_holds *h)
{
    return h->pins;
}

bool hf_holds_may_survive(const struct hf_holds *h)
{
    return (h->pins & ~PIN(SEQUENCE)) == 0;
}

enum hf_hold hf_holds_by(const struct hf_holds *h)
{
    if (!h->started)
        return HF_HOLD_START;
    for (unsigned hold = HF_HOLD_TEMPORARY; hold < HF_HOLD_KINDS; hold++)
        if ((h->pins & HF_HOLD_BIT(hold)) != 0)
            return (enum hf_hold)hold;
    if (h->copying)
        return HF_HOLD_COPY;
    if (h->status != 'I')
        return HF_HOLD_TRANSACTION;
    return is_between(h) ? HF_HOLD_NOTHING : HF_HOLD_STATEMENT;
}

bool hf_holds_code_altered(struct hf_holds *h)
{
    bool altered = h->altered;

    h->altered = false;
    return altered;
}

/* Walks what is under way in the order in which the server does it. */
struct course {
    enum { OUT, IN, MAYBE } tx; /* MAYBE: a BEGIN under way could fail */
    bool begun;                 /* by something under way, in this batch */
    bool wrote, read_only;
    bool commit; /* something could commit what it writes */
};

static void step(struct course *c, const struct hf_sql_statement *s)
{
    switch (s->kind) {
    case HF_SQL_BEGIN:
        if (c->tx != IN)
            c->begun = true;
        c->tx = IN;
        c->read_only = s->read_only;
        break;
    case HF_SQL_COMMIT:
        if (c->tx != IN || (c->wrote && !c->read_only))
            c->commit = true;
        c->tx = s->chain ? c->tx : OUT;
        c->wrote = c->read_only = false;
        break;
    case HF_SQL_ROLLBACK:
        c->tx = s->chain ? c->tx : OUT;
        c->wrote = c->read_only = false;
        break;
    case HF_SQL_SET_LOCAL:
        if (strncmp(s->name, "transaction", 11) == 0)
            c->read_only = false;
        break;
    default:
        c->wrote = c->wrote || s->writes;
        if (c->tx != IN && s->writes && s->kind != HF_SQL_PREPARE)
            c->commit = true;
        break;
    }
}

static void course_op(struct course *c, const struct hf_op *op)
{
    bool many = op->kind == HF_OP_QUERY;

    if (op->kind == HF_OP_FUNCTION) {
        c->wrote = true;
        c->commit = c->commit || c->tx != IN;
    } else if (op->kind == HF_OP_QUERY || op->kind == HF_OP_EXECUTE) {
        if (op->sql == NULL || !hf_sql_is_understood(op->sql) || op->prepared)
            c->commit = true;
        else
            for (size_t i = op->at;
                 i < (many ? hf_sql_count(op->sql) : op->at + 1u) && i < hf_sql_count(op->sql); i++)
                step(c, hf_sql_statement(op->sql, i));
    }
    if ((many || op->kind == HF_OP_SYNC) && c->begun) {
        c->begun = false;
        if (c->tx == IN)
            c->tx = MAYBE;
    }
}

enum hf_doing hf_holds_doing(const struct hf_holds *h)
{
    struct course c = {
        .tx = h->status == 'I' ? OUT : IN, .wrote = h->wrote, .read_only = h->tx_read_only};

    if (h->over)
        return h->read_only ? HF_DOING_READ : HF_DOING_COMMIT;
    if (is_between(h))
        return h->status == 'I' ? HF_DOING_NOTHING : HF_DOING_TRANSACTION;
    /* Statements of this batch that are answered and commit at its Sync; and of a text of several.
     */
    if (c.tx == OUT && h->wrote)
        c.commit = true;
    for (uint32_t i = 0; i < h->n; i++)
        course_op(&c, hf_holds_op(h, i));
    if (c.commit && !h->read_only)
        return HF_DOING_COMMIT;
    return h->status == 'I' ? HF_DOING_READ : HF_DOING_TRANSACTION;
}

size_t hf_holds_bytes(const struct hf_holds *h)
{
    size_t bytes = sizeof *h + h->packet_len + 1 + h->client.cap + h->server.cap +
                   h->cap * sizeof *h->ops + h->journal.cap * sizeof *h->journal.changes +
                   h->log.bytes + h->log.cap * sizeof *h->log.items;

    if (h->portals != NULL)
        bytes += HF_PORTALS_MAX * sizeof *h->portals;
    for (uint32_t k = 0; k < h->log.n; k++)
        if (h->log.items[k]->sql != NULL)
            bytes -= hf_sql_len(h->log.items[k]->sql); /* shared */
    return bytes;
}
