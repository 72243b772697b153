/* The messages that make a session again on another connection. */
#include <stdlib.h>
#include <string.h>

#include "holds/private.h"
#include "base/scan.h"

bool hf_holds_remakes_unnamed(const struct hf_holds *h)
{
    return h->unnamed != NULL && h->n == 0;
}

struct out {
    uint8_t *bytes; /* NULL: only counted */
    size_t len;
};

static void put(struct out *o, const void *p, size_t n)
{
    if (o->bytes != NULL && n > 0)
        memcpy(o->bytes + o->len, p, n);
    o->len += n;
}

static void put_number(struct out *o, uint32_t v, unsigned bytes)
{
    uint8_t b[4];

    hf_scan_put(b, v);
    put(o, b + 4 - bytes, bytes);
}

static void put_parse(struct out *o, const char *name, const char *text, size_t len,
                      const struct hf_item *types)
{
    uint16_t n = types != NULL ? types->n_types : 0;

    put(o, "P", 1);
    put_number(o, (uint32_t)(4 + strlen(name) + 1 + len + 1 + 2 + (size_t)n * 4), 4);
    put(o, name, strlen(name) + 1);
    put(o, text, len);
    put(o, "", 1);
    put_number(o, n, 2);
    if (n > 0)
        put(o, types->types, (size_t)n * 4);
}

/* Bind, with no parameters and the answer as text, and Execute. */
static void put_run(struct out *o, const char *statement)
{
    static const uint8_t none[6], execute[] = {'E', 0, 0, 0, 9, 0, 0, 0, 0, 0};
    size_t len = strlen(statement) + 1;

    put(o, "B", 1);
    put_number(o, (uint32_t)(4 + 1 + len + sizeof none), 4);
    put(o, "", 1);
    put(o, statement, len);
    put(o, none, sizeof none);
    put(o, execute, sizeof execute);
}

/* By the unnamed statement, which nobody can run again then. */
static void put_statement(struct out *o, const char *text, size_t len)
{
    static const uint8_t close_unnamed[] = {'C', 0, 0, 0, 6, 'S', 0};

    put_parse(o, "", text, len, NULL);
    put_run(o, "");
    put(o, close_unnamed, sizeof close_unnamed);
}

static void put_sync(struct out *o)
{
    static const uint8_t sync[] = {'S', 0, 0, 0, 4};

    put(o, sync, sizeof sync);
}

static void put_item(struct out *o, const struct hf_item *i)
{
    if (i->kind == HF_ITEM_SETTING) {
        put_statement(o, i->text, strlen(i->text));
    } else if (i->by_message) {
        put_parse(o, i->name, hf_sql_text(i->sql->sql), hf_sql_len(i->sql->sql), i);
    } else {
        struct hf_item_text t = hf_item_text(i);
        put_statement(o, t.p, t.len);
    }
    put_sync(o);
}

static unsigned put_log(struct out *o, const struct hf_holds *h)
{
    unsigned steps = 0;

    for (const struct hf_item *i = h->log.all.first; i != NULL; i = i->all.behind) {
        put_item(o, i);
        steps++;
    }
    return steps;
}

/* The unnamed statement last: the others use it, too. */
static unsigned put_all(struct out *o, const struct hf_holds *h)
{
    unsigned steps = put_log(o, h);

    if (!hf_holds_remakes_unnamed(h))
        return steps;
    put_item(o, h->unnamed);
    return steps + 1;
}

/* Whoever holds a lock that it takes to parse it is not waited for. */
static unsigned put_all_soon(struct out *o, const struct hf_holds *h)
{
    static const char patience[] = "SELECT pg_catalog.set_config('lock_timeout', '1s', true)"; /* up to the Sync */
    unsigned steps = put_log(o, h);

    if (!hf_holds_remakes_unnamed(h))
        return steps;
    put_parse(o, "", patience, sizeof patience - 1, NULL);
    put_run(o, "");
    put_item(o, h->unnamed);
    return steps + 1;
}

static unsigned put_unnamed(struct out *o, const struct hf_holds *h)
{
    if (h->unnamed == NULL)
        return 0;
    put_item(o, h->unnamed);
    return 1;
}

static int make(unsigned put_fn(struct out *o, const struct hf_holds *h), const struct hf_holds *h, uint8_t **bytes, size_t *len,
                unsigned *steps)
{
    struct out o = {0};

    *bytes = NULL;
    *steps = put_fn(&o, h);
    *len = o.len;
    if (o.len == 0)
        return 0;
    o.bytes = malloc(o.len);
    if (o.bytes == NULL)
        return HF_ENOMEM;
    o.len = 0;
    (void)put_fn(&o, h);
    *bytes = o.bytes;
    return 0;
}

int hf_holds_remake(struct hf_holds *h, uint8_t **bytes, size_t *len, unsigned *steps)
{
    hf_log_tidy(&h->log);
    return make(put_all, h, bytes, len, steps);
}

int hf_holds_remake_soon(struct hf_holds *h, uint8_t **bytes, size_t *len, unsigned *steps)
{
    hf_log_tidy(&h->log);
    return make(put_all_soon, h, bytes, len, steps);
}

int hf_holds_remake_unnamed(const struct hf_holds *h, uint8_t **bytes, size_t *len, unsigned *steps)
{
    return make(put_unnamed, h, bytes, len, steps);
}

bool hf_holds_remake_failed(struct hf_holds *h, const unsigned *failed, size_t n)
{
    struct hf_item *i = h->log.all.first, *behind;
    unsigned step = 0;
    size_t k = 0;

    for (; i != NULL && k < n; i = behind, step++) {
        behind = i->all.behind;
        if (failed[k] != step)
            continue;
        if (i->kind == HF_ITEM_SETTING)
            return false;
        hf_log_remove(&h->log, i);
        k++;
    }
    if (k < n)
        hf_holds_set_unnamed(h, NULL);
    return true;
}

const uint8_t *hf_holds_startup(const struct hf_holds *h, size_t *len)
{
    *len = h->packet_len;
    return h->packet;
}
