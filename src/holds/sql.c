/* Verdicts about texts, and the cache of them. */
#include "holds/sql.h"

#include <assert.h>
#include <stdlib.h>
#include <string.h>

#include "base/hash.h"
#include "holds/sql_private.h"

enum {
    BUCKETS = 4096,
    CACHED_TEXT_MAX = 16 * 1024,
    PIECE = 16, /* what a piece of memory costs besides its bytes */
};

struct hf_sql_cache {
    struct hf_hash *hash;
    size_t left; /* of the turn, for the grammar */
    size_t bytes, max_bytes;
    struct hf_sql *newest, *oldest;
    struct hf_sql *buckets[BUCKETS];
};

const char *hf_hold_name(enum hf_hold hold)
{
    static const char *const names[HF_HOLD_KINDS] = {
        [HF_HOLD_NOTHING] = "nothing",
        [HF_HOLD_START] = "login",
        [HF_HOLD_COPY] = "COPY",
        [HF_HOLD_TRANSACTION] = "transaction",
        [HF_HOLD_STATEMENT] = "statement",
        [HF_HOLD_TEMPORARY] = "temporary table",
        [HF_HOLD_CURSOR] = "WITH HOLD cursor",
        [HF_HOLD_LOCK] = "advisory lock",
        [HF_HOLD_LISTEN] = "LISTEN",
        [HF_HOLD_SEQUENCE] = "currval",
        [HF_HOLD_SEED] = "setseed",
        [HF_HOLD_LOAD] = "LOAD",
        [HF_HOLD_SETTING] = "setting",
        [HF_HOLD_PREPARED] = "prepared statement",
        [HF_HOLD_SLOT] = "replication",
        [HF_HOLD_CODE] = "function",
        [HF_HOLD_UNKNOWN] = "not understood",
        [HF_HOLD_TOO_MUCH] = "too much to remember",
        [HF_HOLD_GUARD] = "no guard",
    };

    return (unsigned)hold < HF_HOLD_KINDS ? names[hold] : "?";
}

/* -- making one -------------------------------------------------------------------------------- */

struct hf_sql_statement *hf_sql_add(struct hf_sql *q)
{
    if (q->n == q->cap) {
        uint32_t cap = q->cap == 0 ? 1 : q->cap * 2;
        struct hf_sql_statement *more = realloc(q->statements, cap * sizeof *more);
        if (more == NULL)
            return NULL;
        q->statements = more;
        q->cap = cap;
    }
    memset(&q->statements[q->n], 0, sizeof *q->statements);
    return &q->statements[q->n++];
}

static void drop_statements(struct hf_sql *q)
{
    for (uint32_t i = 0; i < q->n; i++)
        free((char *)q->statements[i].name);
    free(q->statements);
    q->statements = NULL;
    q->n = q->cap = 0;
}

static void destroy(struct hf_sql *q)
{
    drop_statements(q);
    free(q);
}

/* May a text of this length be given to the grammar? */
static bool may_parse(struct hf_sql_cache *c, size_t *share, size_t len)
{
    size_t cost = len + sizeof(struct hf_sql_statement); /* short ones are not for nothing */

    if (cost > HF_SQL_PARSE_MAX)
        cost = HF_SQL_PARSE_MAX;
    if (len > HF_SQL_PARSE_MAX || *share < cost || c->left < cost)
        return false;
    *share -= cost;
    c->left -= cost;
    return true;
}

/* Long texts of which nothing but the verdict is wanted are not copied. */
static struct hf_sql *allocate(const char *text, size_t len, uint64_t hash, bool again)
{
    bool copy = again || len <= HF_SQL_PARSE_MAX;
    struct hf_sql *q = calloc(1, sizeof *q + (copy ? len + 1 : 0));

    if (q == NULL)
        return NULL;
    q->refs = 1;
    q->len = len;
    q->hash = hash;
    q->text = copy ? q->copy : text;
    if (copy)
        memcpy(q->copy, text, len);
    return q;
}

static void finish(struct hf_sql *q, bool copied)
{
    if (!q->understood)
        drop_statements(q);
    if (!copied)
        q->text = NULL;
    q->bytes = 2 * PIECE + sizeof *q + (copied ? q->len + 1 : 0) + q->cap * sizeof *q->statements;
    for (uint32_t i = 0; i < q->n; i++) {
        const struct hf_sql_statement *s = &q->statements[i];
        q->bytes += s->name != NULL ? PIECE + strlen(s->name) + 1 : 0;
        q->renames = q->renames || s->kind == HF_SQL_PREPARE || s->kind == HF_SQL_DEALLOCATE ||
                     s->kind == HF_SQL_DEALLOCATE_ALL || s->kind == HF_SQL_DISCARD_ALL;
    }
}

/* *keep: it costs to find out, and would come out the same again. */
static struct hf_sql *make(struct hf_sql_cache *c, size_t *share, const char *text, size_t len,
                           uint64_t hash, bool again, bool *keep)
{
    struct hf_sql *q = allocate(text, len, hash, again);
    enum hf_sql_look look;
    bool parse;

    if (q == NULL)
        return NULL;
    look = hf_sql_look(q);
    *keep = again;
    if (look == HF_LOOK_ODD) {
        drop_statements(q);
        parse = may_parse(c, share, len);
        look = parse ? hf_sql_parse(q) : HF_LOOK_ODD;
        *keep = parse || (again && len > HF_SQL_PARSE_MAX);
    }
    q->understood = look == HF_LOOK_DONE;
    if (look == HF_LOOK_NOMEM) {
        destroy(q);
        return NULL;
    }
    finish(q, q->text == q->copy);
    return q;
}

/* -- the cache --------------------------------------------------------------------------------- */

size_t hf_sql_bytes(const struct hf_sql *q)
{
    return q->bytes;
}

static void unlink_age(struct hf_sql_cache *c, struct hf_sql *q)
{
    *(q->newer != NULL ? &q->newer->older : &c->newest) = q->older;
    *(q->older != NULL ? &q->older->newer : &c->oldest) = q->newer;
}

static void link_newest(struct hf_sql_cache *c, struct hf_sql *q)
{
    q->newer = NULL;
    q->older = c->newest;
    *(c->newest != NULL ? &c->newest->newer : &c->oldest) = q;
    c->newest = q;
}

static void evict(struct hf_sql_cache *c, struct hf_sql *q)
{
    unlink_age(c, q);
    *q->at = q->next;
    if (q->next != NULL)
        q->next->at = q->at;
    c->bytes -= hf_sql_bytes(q);
    q->kept = false;
    hf_sql_unref(q);
}

static void insert(struct hf_sql_cache *c, struct hf_sql *q)
{
    struct hf_sql **bucket = &c->buckets[q->hash % BUCKETS];

    q->at = bucket;
    q->next = *bucket;
    if (q->next != NULL)
        q->next->at = &q->next;
    *bucket = q;
    link_newest(c, q);
    c->bytes += hf_sql_bytes(q);
    q->kept = true;
    hf_sql_ref(q);
    while (c->bytes > c->max_bytes && c->oldest != q)
        evict(c, c->oldest);
}

struct hf_sql_cache *hf_sql_cache_new(size_t max_bytes)
{
    struct hf_sql_cache *c = calloc(1, sizeof *c);

    if (c == NULL || (c->hash = hf_hash_new()) == NULL) {
        free(c);
        return NULL;
    }
    c->max_bytes = max_bytes;
    hf_sql_cache_turn(c);
    return c;
}

void hf_sql_cache_free(struct hf_sql_cache *c)
{
    if (c == NULL)
        return;
    while (c->oldest != NULL)
        evict(c, c->oldest);
    hf_hash_free(c->hash);
    free(c);
}

void hf_sql_cache_turn(struct hf_sql_cache *c)
{
    c->left = HF_SQL_TURN_BYTES;
}

uint64_t hf_sql_cache_hash(const struct hf_sql_cache *c, const void *p, size_t n)
{
    return hf_hash_of(c->hash, p, n);
}

static struct hf_sql *find(const struct hf_sql_cache *c, const char *text, size_t len, uint64_t hash)
{
    struct hf_sql *q = c->buckets[hash % BUCKETS];

    while (q != NULL && (q->hash != hash || q->len != len || memcmp(q->text, text, len) != 0))
        q = q->next;
    return q;
}

struct hf_sql *hf_sql_get(struct hf_sql_cache *c, size_t *share, const char *text, size_t len, bool again)
{
    bool may_keep = len <= CACHED_TEXT_MAX, keep;
    uint64_t hash = may_keep ? hf_hash_of(c->hash, text, len) : 0;
    struct hf_sql *q = may_keep ? find(c, text, len, hash) : NULL;

    assert(len <= HF_SQL_TEXT_MAX);
    if (q != NULL) {
        unlink_age(c, q);
        link_newest(c, q);
        return hf_sql_ref(q);
    }
    q = make(c, share, text, len, hash, again, &keep);
    if (q != NULL && keep && may_keep)
        insert(c, q);
    return q;
}

struct hf_sql *hf_sql_ref(struct hf_sql *q)
{
    q->refs++;
    return q;
}

void hf_sql_unref(struct hf_sql *q)
{
    if (q == NULL || --q->refs > 0)
        return;
    assert(!q->kept);
    destroy(q);
}

/* -- looking at one ---------------------------------------------------------------------------- */

bool hf_sql_is_understood(const struct hf_sql *q)
{
    return q->understood;
}

size_t hf_sql_count(const struct hf_sql *q)
{
    return q->n;
}

const struct hf_sql_statement *hf_sql_statement(const struct hf_sql *q, size_t i)
{
    assert(i < q->n);
    return &q->statements[i];
}

const char *hf_sql_text(const struct hf_sql *q)
{
    return q->text;
}

size_t hf_sql_len(const struct hf_sql *q)
{
    return q->len;
}

bool hf_sql_renames(const struct hf_sql *q)
{
    return q->renames;
}
