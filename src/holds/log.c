/* What has to be made again on another connection, in an order that gives the same state.
 *
 * Which order? A later setting replaces an earlier one of the same name, so the earlier one can go;
 * unless a statement was prepared between them and the setting has a part in how statements are
 * parsed: then that statement needs the earlier one. */
#include <assert.h>
#include <stdlib.h>
#include <string.h>

#include "holds/private.h"

/* -- items
 * ------------------------------------------------------------------------------------------- */

struct hf_item *hf_item_new(enum hf_item_kind kind, const char *name, size_t len)
{
    struct hf_item *i = calloc(1, sizeof *i);

    if (i == NULL || (i->name = strndup(name, len)) == NULL) {
        free(i);
        return NULL;
    }
    i->refs = 1;
    i->kind = kind;
    i->hash = hf_sql_hash(name, strlen(i->name));
    return i;
}

void hf_item_unref(struct hf_item *i)
{
    if (i == NULL || --i->refs > 0)
        return;
    hf_sql_unref(i->sql);
    free(i->name);
    free(i->text);
    free(i->types);
    free(i);
}

static size_t item_bytes(const struct hf_item *i)
{
    return sizeof *i + sizeof(void *) + strlen(i->name) + 1 +
           (i->text != NULL ? strlen(i->text) + 1 : 0) + (i->sql != NULL ? hf_sql_len(i->sql) : 0) +
           (size_t)i->n_types * 4;
}

static bool is_role(const struct hf_item *i)
{
    return strcmp(i->name, "role") == 0 || strcmp(i->name, "session_authorization") == 0;
}

/* -- the log
 * ----------------------------------------------------------------------------------------- */

static void take_out(struct hf_log *log, uint32_t at)
{
    struct hf_item *i = log->items[at];

    log->bytes -= i->bytes;
    i->in_log = false;
    memmove(&log->items[at], &log->items[at + 1], (log->n - at - 1) * sizeof *log->items);
    log->n--;
    hf_item_unref(i);
}

/* Settings that another one replaces, with no statement between. */
static void compact(struct hf_log *log)
{
    for (uint32_t at = 0; at < log->n;) {
        bool gone = false;
        for (uint32_t k = at + 1; k < log->n && log->items[at]->kind == HF_ITEM_SETTING; k++) {
            if (log->items[k]->kind == HF_ITEM_STATEMENT && log->items[at]->parses)
                break;
            gone = log->items[k]->kind == HF_ITEM_SETTING &&
                   strcmp(log->items[k]->name, log->items[at]->name) == 0;
            if (gone)
                break;
        }
        if (gone)
            take_out(log, at);
        else
            at++;
    }
}

bool hf_log_append(struct hf_log *log, struct hf_item *i)
{
    size_t bytes = i->bytes = item_bytes(i);

    if (log->bytes + bytes > HF_HOLDS_KEEP_MAX || log->n >= HF_HOLDS_ITEMS_MAX)
        compact(log);
    if (log->bytes + bytes > HF_HOLDS_KEEP_MAX || log->n >= HF_HOLDS_ITEMS_MAX) {
        hf_item_unref(i);
        return false;
    }
    if (log->n == log->cap) {
        uint32_t cap = log->cap == 0 ? 2 : log->cap * 2;
        struct hf_item **more = realloc(log->items, cap * sizeof(struct hf_item *));
        if (more == NULL) {
            hf_item_unref(i);
            return false;
        }
        log->items = more;
        log->cap = cap;
    }
    i->in_log = true;
    log->bytes += bytes;
    log->items[log->n++] = i;
    return true;
}

bool hf_log_set(struct hf_log *log, struct hf_item *i)
{
    for (uint32_t k = log->n; k-- > 0;) {
        const struct hf_item *old = log->items[k];
        if (old->kind == HF_ITEM_STATEMENT && i->parses)
            break;
        if (old->kind == HF_ITEM_SETTING && strcmp(old->name, i->name) == 0) {
            take_out(log, k);
            break;
        }
    }
    return hf_log_append(log, i);
}

bool hf_log_reset_all(struct hf_log *log)
{
    static const char text[] = "RESET ALL";
    bool statement_after = false, needed = false;
    struct hf_item *i;

    for (uint32_t k = log->n; k-- > 0;) {
        const struct hf_item *old = log->items[k];
        if (old->kind == HF_ITEM_STATEMENT)
            statement_after = true;
        else if (is_role(old))
            continue;
        else if (old->parses && statement_after)
            needed = true;
        else
            take_out(log, k);
    }
    if (!needed)
        return true;
    i = hf_item_new(HF_ITEM_SETTING, "reset all", 9);
    if (i == NULL || (i->text = strdup(text)) == NULL) {
        hf_item_unref(i);
        return false;
    }
    i->parses = true;
    return hf_log_append(log, i);
}

static uint32_t place_of(const struct hf_log *log, const struct hf_item *i)
{
    uint32_t at = log->n;

    while (at-- > 0)
        if (log->items[at] == i)
            return at;
    assert(false);
    return 0;
}

void hf_log_remove(struct hf_log *log, struct hf_item *i)
{
    take_out(log, place_of(log, i));
}

void hf_log_remove_statements(struct hf_log *log)
{
    for (uint32_t k = log->n; k-- > 0;)
        if (log->items[k]->kind == HF_ITEM_STATEMENT && !log->items[k]->pending)
            take_out(log, k);
    compact(log);
}

void hf_log_to_end(struct hf_log *log, struct hf_item *i)
{
    uint32_t at = place_of(log, i);

    memmove(&log->items[at], &log->items[at + 1], (log->n - at - 1) * sizeof *log->items);
    log->items[log->n - 1] = i;
}

void hf_log_clear(struct hf_log *log)
{
    while (log->n > 0)
        take_out(log, log->n - 1);
    free(log->items);
    *log = (struct hf_log){0};
}

struct hf_item *hf_log_find(const struct hf_log *log, const char *name, size_t len)
{
    uint32_t hash = hf_sql_hash(name, len);

    for (uint32_t k = log->n; k-- > 0;) {
        struct hf_item *i = log->items[k];
        if (i->kind == HF_ITEM_STATEMENT && i->hash == hash && i->closing == 0 &&
            strlen(i->name) == len && memcmp(i->name, name, len) == 0)
            return i;
    }
    return NULL;
}

/* -- the journal
 * --------------------------------------------------------------------------------------- */

static void change_clear(struct hf_change *c)
{
    free(c->name);
    free(c->text);
}

bool hf_journal_add(struct hf_journal *j, enum hf_sql_kind kind, bool parses, const char *name,
                    const char *text, size_t text_len)
{
    struct hf_change c = {.kind = kind, .parses = parses};

    if (j->n >= HF_HOLDS_ITEMS_MAX)
        return false;
    if (j->n == j->cap) {
        uint32_t cap = j->cap == 0 ? 2 : j->cap * 2;
        struct hf_change *more = realloc(j->changes, cap * sizeof *more);
        if (more == NULL)
            return false;
        j->changes = more;
        j->cap = cap;
    }
    c.name = strdup(name != NULL ? name : "");
    c.text = text != NULL ? strndup(text, text_len) : NULL;
    if (c.name == NULL || (text != NULL && c.text == NULL)) {
        change_clear(&c);
        return false;
    }
    j->changes[j->n++] = c;
    return true;
}

/* Of the savepoint; j->n: there is none of that name. */
static uint32_t savepoint(const struct hf_journal *j, const char *name)
{
    for (uint32_t k = j->n; k-- > 0;)
        if (j->changes[k].kind == HF_SQL_SAVEPOINT && strcmp(j->changes[k].name, name) == 0)
            return k;
    return j->n;
}

void hf_journal_rollback_to(struct hf_journal *j, const char *name)
{
    uint32_t at = savepoint(j, name);

    while (at < j->n && j->n > at + 1) /* the savepoint itself stays */
        change_clear(&j->changes[--j->n]);
}

void hf_journal_release(struct hf_journal *j, const char *name)
{
    uint32_t at = savepoint(j, name), to = at;

    for (uint32_t k = at; k < j->n; k++) {
        if (j->changes[k].kind == HF_SQL_SAVEPOINT)
            change_clear(&j->changes[k]);
        else
            j->changes[to++] = j->changes[k];
    }
    j->n = to;
}

bool hf_journal_parses(const struct hf_journal *j)
{
    for (uint32_t k = 0; k < j->n; k++)
        if (j->changes[k].parses)
            return true;
    return false;
}

bool hf_journal_has_settings(const struct hf_journal *j)
{
    for (uint32_t k = 0; k < j->n; k++)
        if (j->changes[k].kind == HF_SQL_SET || j->changes[k].kind == HF_SQL_RESET_ALL)
            return true;
    return false;
}

void hf_journal_clear(struct hf_journal *j)
{
    while (j->n > 0)
        change_clear(&j->changes[--j->n]);
    free(j->changes);
    *j = (struct hf_journal){0};
}

static bool commit_one(struct hf_change *c, struct hf_log *log)
{
    struct hf_item *i;

    if (c->kind == HF_SQL_RESET_ALL)
        return hf_log_reset_all(log);
    if (c->kind != HF_SQL_SET)
        return true;
    i = hf_item_new(HF_ITEM_SETTING, c->name, strlen(c->name));
    if (i == NULL)
        return false;
    i->parses = c->parses;
    i->text = c->text;
    c->text = NULL;
    return hf_log_set(log, i);
}

bool hf_journal_commit(struct hf_journal *j, struct hf_log *log)
{
    bool ok = true;

    for (uint32_t k = 0; k < j->n; k++)
        ok = commit_one(&j->changes[k], log) && ok;
    hf_journal_clear(j);
    return ok;
}
