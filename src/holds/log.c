/* What has to be made again on another connection, in an order that gives the same state.
 *
 * Which order? A later setting replaces an earlier one of the same name, so the earlier one can go;
 * unless a statement was prepared between them and the setting has a part in how statements are
 * parsed: then that statement needs the earlier one. */
#include <assert.h>
#include <stdlib.h>
#include <string.h>

#include "holds/private.h"

enum { BUCKETS = 16, COMPACT_BYTES = 32 * 1024 };

/* -- items ------------------------------------------------------------------------------------- */

static bool charge(struct hf_item *i, size_t bytes)
{
    if (!hf_budget_take(i->budget, HF_PIECE + bytes))
        return false;
    i->bytes += HF_PIECE + bytes;
    return true;
}

struct hf_item *hf_item_new(struct hf_budget *b, enum hf_item_kind kind, const char *name, size_t len)
{
    struct hf_item *i = calloc(1, sizeof *i);

    if (i == NULL)
        return NULL;
    i->refs = 1;
    i->kind = kind;
    i->budget = b;
    if (charge(i, sizeof *i + HF_PIECE + len + 1))
        i->name = strndup(name, len);
    if (i->name == NULL) {
        hf_item_unref(i);
        return NULL;
    }
    return i;
}

bool hf_item_set_text(struct hf_item *i, const char *text, size_t len)
{
    assert(i->text == NULL);
    if (charge(i, len + 1))
        i->text = strndup(text, len);
    return i->text != NULL;
}

bool hf_item_set_types(struct hf_item *i, const uint8_t *types, size_t bytes)
{
    assert(i->types == NULL);
    i->n_types = (uint16_t)(bytes / 4);
    if (bytes == 0)
        return true;
    if (charge(i, bytes))
        i->types = malloc(bytes);
    if (i->types != NULL)
        memcpy(i->types, types, bytes);
    return i->types != NULL;
}

void hf_item_unref(struct hf_item *i)
{
    if (i == NULL || --i->refs > 0)
        return;
    hf_text_unref(i->sql);
    hf_budget_give(i->budget, i->bytes);
    free(i->name);
    free(i->text);
    free(i->types);
    free(i);
}

struct hf_item_text hf_item_text(const struct hf_item *i)
{
    const struct hf_sql *q = i->sql->sql;
    const struct hf_sql_statement *s = hf_sql_statement(q, i->index);

    if (hf_sql_count(q) == 1)
        return (struct hf_item_text){hf_sql_text(q), hf_sql_len(q)};
    return (struct hf_item_text){hf_sql_text(q) + s->at, s->len};
}

static bool is_authorization(const struct hf_item *i)
{
    return i->kind == HF_ITEM_SETTING && strcmp(i->name, "session_authorization") == 0;
}

static bool is_role(const struct hf_item *i)
{
    return strcmp(i->name, "role") == 0 || is_authorization(i);
}

/* -- lines ------------------------------------------------------------------------------------- */

#define LINE_APPEND(line, i, place)                                                                \
    do {                                                                                           \
        (i)->place = (struct hf_place){.before = (line)->last};                                    \
        *((line)->last != NULL ? &(line)->last->place.behind : &(line)->first) = (i);              \
        (line)->last = (i);                                                                        \
    } while (0)

#define LINE_REMOVE(line, i, place)                                                                \
    do {                                                                                           \
        *((i)->place.before != NULL ? &(i)->place.before->place.behind : &(line)->first) =         \
            (i)->place.behind;                                                                     \
        *((i)->place.behind != NULL ? &(i)->place.behind->place.before : &(line)->last) =          \
            (i)->place.before;                                                                     \
    } while (0)

/* -- names ------------------------------------------------------------------------------------- */

static void hash_in(struct hf_log *log, struct hf_item *i)
{
    struct hf_item **bucket = &log->buckets[i->hash % log->n_buckets];

    i->at = bucket;
    i->next = *bucket;
    if (i->next != NULL)
        i->next->at = &i->next;
    *bucket = i;
    log->n_hashed++;
}

static void hash_out(struct hf_log *log, struct hf_item *i)
{
    if (i->at == NULL)
        return;
    *i->at = i->next;
    if (i->next != NULL)
        i->next->at = i->at;
    i->at = NULL;
    log->n_hashed--;
}

/* Room for one more. */
static bool hash_room(struct hf_log *log)
{
    uint32_t n = log->n_buckets, more = n == 0 ? BUCKETS : n * 2;
    struct hf_item **old = log->buckets, **bigger;

    if (log->n_hashed < n)
        return true;
    if (!hf_budget_take(log->budget, (more - n) * sizeof(struct hf_item *)))
        return false;
    bigger = calloc(more, sizeof(struct hf_item *));
    if (bigger == NULL) {
        hf_budget_give(log->budget, (more - n) * sizeof(struct hf_item *));
        return false;
    }
    log->buckets = bigger;
    log->n_buckets = more;
    log->n_hashed = 0;
    for (uint32_t k = 0; k < n; k++)
        for (struct hf_item *i = old[k], *next; i != NULL; i = next) {
            next = i->next;
            hash_in(log, i);
        }
    free(old);
    return true;
}

static struct hf_item *find(const struct hf_log *log, enum hf_item_kind kind, const char *name, size_t len,
                            uint64_t hash)
{
    struct hf_item *i = log->n_buckets > 0 ? log->buckets[hash % log->n_buckets] : NULL;

    while (i != NULL && (i->kind != kind || i->hash != hash || strlen(i->name) != len ||
                         memcmp(i->name, name, len) != 0))
        i = i->next;
    return i;
}

struct hf_item *hf_log_find(const struct hf_log *log, const char *name, size_t len)
{
    return log->n_hashed == 0
               ? NULL
               : find(log, HF_ITEM_STATEMENT, name, len, hf_sql_cache_hash(log->cache, name, len));
}

/* -- in and out -------------------------------------------------------------------------------- */

static bool enter(struct hf_log *log, struct hf_item *i)
{
    if (!hash_room(log)) {
        hf_item_unref(i);
        return false;
    }
    i->hash = hf_sql_cache_hash(log->cache, i->name, strlen(i->name));
    i->in_log = true;
    return true;
}

static void to_end(struct hf_log *log, struct hf_item *i)
{
    i->order = ++log->order;
    log->changes++;
    LINE_APPEND(&log->all, i, all);
    LINE_APPEND(&log->kinds[i->kind], i, like);
    if (i->kind == HF_ITEM_STATEMENT)
        log->n_statements++;
    else
        log->settings_bytes += i->bytes;
}

bool hf_log_add_pending(struct hf_log *log, struct hf_item *i)
{
    if (!enter(log, i))
        return false;
    i->pending = true;
    hash_in(log, i);
    LINE_APPEND(&log->pending, i, like);
    return true;
}

bool hf_log_add_statement(struct hf_log *log, struct hf_item *i)
{
    if (!enter(log, i))
        return false;
    hash_in(log, i);
    to_end(log, i);
    return true;
}

void hf_log_parsed(struct hf_log *log, struct hf_item *i)
{
    assert(i->pending && i->in_log);
    i->pending = false;
    LINE_REMOVE(&log->pending, i, like);
    to_end(log, i);
}

static void unlink_names(struct hf_log *log, struct hf_item *i)
{
    hash_out(log, i);
    if (i->older != NULL)
        i->older->newer = i->newer;
    if (i->newer != NULL)
        i->newer->older = i->older;
    else if (i->older != NULL)
        hash_in(log, i->older); /* is the newest now */
    i->older = i->newer = NULL;
}

void hf_log_remove(struct hf_log *log, struct hf_item *i)
{
    assert(i->in_log);
    unlink_names(log, i);
    if (i->pending) {
        LINE_REMOVE(&log->pending, i, like);
    } else {
        log->changes++;
        LINE_REMOVE(&log->all, i, all);
        LINE_REMOVE(&log->kinds[i->kind], i, like);
        if (i->kind == HF_ITEM_STATEMENT) {
            log->n_statements--;
            log->loose = true;
        } else {
            log->settings_bytes -= i->bytes;
        }
    }
    i->in_log = false;
    hf_item_unref(i);
}

void hf_log_remove_statements(struct hf_log *log)
{
    while (log->kinds[HF_ITEM_STATEMENT].first != NULL)
        hf_log_remove(log, log->kinds[HF_ITEM_STATEMENT].first);
}

void hf_log_remove_all(struct hf_log *log)
{
    while (log->all.first != NULL)
        hf_log_remove(log, log->all.first);
}

void hf_log_remove_pending(struct hf_log *log)
{
    while (log->pending.first != NULL)
        hf_log_remove(log, log->pending.first);
}

void hf_log_clear(struct hf_log *log)
{
    hf_log_remove_all(log);
    hf_log_remove_pending(log);
    hf_budget_give(log->budget, log->n_buckets * sizeof(struct hf_item *));
    free(log->buckets);
    log->buckets = NULL;
    log->n_buckets = 0;
}

/* -- Close ------------------------------------------------------------------------------------- */

void hf_log_close(struct hf_log *log, struct hf_item *i)
{
    i->closing++;
    hash_out(log, i);
}

bool hf_log_reopen(struct hf_log *log, struct hf_item *i)
{
    bool alone = true;

    assert(i->closing > 0);
    if (--i->closing > 0 || !i->in_log)
        return true;
    alone = hf_log_find(log, i->name, strlen(i->name)) == NULL;
    hash_in(log, i);
    return alone;
}

/* -- settings ---------------------------------------------------------------------------------- */

/* Settings that another one replaces, with no statement between. SET or RESET SESSION AUTHORIZATION leaves no role (miscinit.c:
 * SetSessionAuthorization). */
static void compact(struct hf_log *log)
{
    unsigned statements = 0;
    const struct hf_item *authorization = NULL;
    struct hf_item *before;

    for (struct hf_item *i = log->all.last; i != NULL; i = before) {
        before = i->all.before;
        i->between = statements += i->kind == HF_ITEM_STATEMENT;
        if (is_authorization(i))
            authorization = i;
        if ((i->newer != NULL && (!i->parses || i->newer->between == statements)) ||
            (i->kind == HF_ITEM_SETTING && strcmp(i->name, "role") == 0 && authorization != NULL && authorization->between == statements))
            hf_log_remove(log, i);
    }
    log->loose = false;
    log->compact_at = 2 * log->settings_bytes + COMPACT_BYTES;
}

void hf_log_tidy(struct hf_log *log)
{
    if (log->loose)
        compact(log);
}

bool hf_log_set(struct hf_log *log, struct hf_item *i)
{
    const struct hf_item *statement = log->kinds[HF_ITEM_STATEMENT].last;
    struct hf_item *old;

    if (!enter(log, i))
        return false;
    old = find(log, HF_ITEM_SETTING, i->name, strlen(i->name), i->hash);
    if (old != NULL && (!i->parses || statement == NULL || statement->order < old->order)) {
        struct hf_item *older = old->older;
        hf_log_remove(log, old);
        old = older;
    }
    if (old != NULL) {
        hash_out(log, old);
        old->newer = i;
        i->older = old;
    }
    hash_in(log, i);
    to_end(log, i);
    log->loose = log->loose || is_authorization(i); /* there may be a role before it */
    if (log->loose && log->settings_bytes > log->compact_at)
        compact(log);
    return true;
}

bool hf_log_reset_all(struct hf_log *log)
{
    const struct hf_item *statement = log->kinds[HF_ITEM_STATEMENT].last;
    struct hf_item *i = log->kinds[HF_ITEM_SETTING].last, *before;
    bool needed = false;

    /* What an earlier RESET ALL has left is not looked at again: that one still stands. */
    for (; i != NULL && i->order > log->reset; i = before) {
        before = i->like.before;
        if (is_role(i))
            continue;
        if (i->parses && statement != NULL && i->order < statement->order)
            needed = true;
        else
            hf_log_remove(log, i);
    }
    log->reset = log->order;
    if (!needed)
        return true;
    i = hf_item_new(log->budget, HF_ITEM_SETTING, "reset all", 9);
    if (i == NULL || !hf_item_set_text(i, "RESET ALL", 9)) {
        hf_item_unref(i);
        return false;
    }
    i->parses = true;
    if (!hf_log_set(log, i))
        return false;
    log->reset = log->order;
    return true;
}
