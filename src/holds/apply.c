/* What a statement that the server has answered has done to its session. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "holds/private.h"

static bool is_one_of(const char *tag, const char *const *names)
{
    for (; *names != NULL; names++)
        if (strcmp(tag, *names) == 0)
            return true;
    return false;
}

/* Does the server speak of the same statement as we do? */
static bool fits(const struct hf_sql_statement *s, const char *tag)
{
    static const char *const special[] = {
        "BEGIN",      "START TRANSACTION", "COMMIT",      "ROLLBACK",
        "SAVEPOINT",  "RELEASE",           "PREPARE",     "RESET",
        "DEALLOCATE", "DEALLOCATE ALL",    "DISCARD ALL", "SET",
        NULL};

    switch (s->kind) {
    case HF_SQL_BEGIN:
        return strcmp(tag, "BEGIN") == 0 || strcmp(tag, "START TRANSACTION") == 0;
    case HF_SQL_COMMIT:
        return strcmp(tag, "COMMIT") == 0 || strcmp(tag, "ROLLBACK") == 0 ||
               strcmp(tag, "PREPARE TRANSACTION") == 0;
    case HF_SQL_ROLLBACK:
    case HF_SQL_ROLLBACK_TO:
        return strcmp(tag, "ROLLBACK") == 0;
    case HF_SQL_SAVEPOINT:
        return strcmp(tag, "SAVEPOINT") == 0;
    case HF_SQL_RELEASE:
        return strcmp(tag, "RELEASE") == 0;
    case HF_SQL_SET:
    case HF_SQL_RESET_ALL:
        return strcmp(tag, "SET") == 0 || strcmp(tag, "RESET") == 0;
    case HF_SQL_SET_LOCAL:
        return strcmp(tag, "SET") == 0 || strcmp(tag, "RESET") == 0 ||
               strncmp(tag, "SELECT", 6) == 0;
    case HF_SQL_PREPARE:
        return strcmp(tag, "PREPARE") == 0;
    case HF_SQL_DEALLOCATE:
        return strcmp(tag, "DEALLOCATE") == 0;
    case HF_SQL_DEALLOCATE_ALL:
        return strcmp(tag, "DEALLOCATE ALL") == 0;
    case HF_SQL_DISCARD_ALL:
        return strcmp(tag, "DISCARD ALL") == 0;
    default:
        return !is_one_of(tag, special);
    }
}

/* -- settings and prepared statements ---------------------------------------------------------- */

static void commit(struct hf_holds *h)
{
    if (!hf_journal_commit(&h->journal, &h->log))
        hf_holds_too_much(h);
    h->wrote = h->tx_read_only = false;
}

static void roll_back(struct hf_holds *h)
{
    hf_journal_clear(&h->journal);
    h->wrote = h->tx_read_only = false;
}

/* NULL: too much. */
static struct hf_item *setting(struct hf_holds *h, const char *name, const char *text, size_t len, bool parses)
{
    struct hf_item *i = hf_item_new(&h->budget, HF_ITEM_SETTING, name, strlen(name));

    if (i == NULL || !hf_item_set_text(i, text, len)) {
        hf_item_unref(i);
        hf_holds_too_much(h);
        return NULL;
    }
    i->parses = parses;
    return i;
}

/* What takes effect when the transaction commits, and what counts until then. */
static void journal(struct hf_holds *h, const struct hf_sql_statement *s, const char *text, size_t len)
{
    struct hf_item *i = setting(h, s->name, text, len, s->parses);

    if (i == NULL)
        return;
    /* Only the last encoding is made again, and the text of a setting before it would be read in that. */
    if (strcmp(s->name, "client_encoding") == 0 && h->beyond_ascii)
        h->pins |= PIN(SETTING);
    for (size_t k = 0; k < len && !h->beyond_ascii; k++)
        h->beyond_ascii = (uint8_t)text[k] >= 0x80;
    if (!hf_journal_add(&h->journal, HF_SQL_SET, s->parses, i))
        hf_holds_too_much(h);
}

static void journal_mark(struct hf_holds *h, enum hf_sql_kind kind, bool parses)
{
    if (!hf_journal_add(&h->journal, kind, parses, NULL))
        hf_holds_too_much(h);
}

static void put_quoted(FILE *f, const char *s, size_t len)
{
    (void)fputc('\'', f);
    for (size_t i = 0; i < len; i++) {
        if (s[i] == '\'')
            (void)fputc('\'', f);
        (void)fputc(s[i], f);
    }
    (void)fputc('\'', f);
}

/* The value that PostgreSQL has answered is the one to set again, whatever the parameter was. */
static void set_config(struct hf_holds *h, const struct hf_sql_statement *s)
{
    char *text = NULL;
    size_t len = 0;
    FILE *f = h->value != NULL ? open_memstream(&text, &len) : NULL;
    bool bad;

    if (f == NULL) {
        h->pins |= PIN(SETTING);
        return;
    }
    (void)fputs("SELECT pg_catalog.set_config(", f);
    put_quoted(f, s->name, strlen(s->name));
    (void)fputs(", ", f);
    put_quoted(f, h->value, h->value_len);
    (void)fputs(", false)", f);
    bad = ferror(f) != 0;
    if (fclose(f) != 0 || bad)
        hf_holds_too_much(h);
    else
        journal(h, s, text, len);
    free(text);
    hf_holds_drop_value(h);
}

static void prepare(struct hf_holds *h, struct hf_text *t, uint32_t index,
                    const struct hf_sql_statement *s)
{
    struct hf_item *i;

    if (hf_log_find(&h->log, s->name, strlen(s->name)) != NULL)
        h->pins |= PIN(UNKNOWN); /* a Parse of that name is under way: which one do later messages mean? */
    i = hf_item_new(&h->budget, HF_ITEM_STATEMENT, s->name, strlen(s->name));
    if (i == NULL) {
        hf_holds_too_much(h);
        return;
    }
    i->sql = hf_text_ref(t);
    i->index = index;
    if (h->journal.n_parses > 0)
        h->pins |= PIN(PREPARED);
    if (!hf_log_add_statement(&h->log, i))
        hf_holds_too_much(h);
}

void hf_holds_done_prepared(struct hf_holds *h, const struct hf_sql *q, uint32_t index)
{
    const struct hf_sql_statement *s;

    if (!hf_sql_is_understood(q) || index >= hf_sql_count(q)) {
        h->pins |= PIN(UNKNOWN);
        return;
    }
    s = hf_sql_statement(q, index);
    if (s->kind != HF_SQL_PREPARE && s->kind != HF_SQL_QUERY && s->kind != HF_SQL_NONE)
        h->pins |= PIN(UNKNOWN); /* EXECUTE of what a message has prepared and is no query */
    h->wrote = h->wrote || s->writes;
}

static void execute(struct hf_holds *h, const struct hf_sql_statement *s)
{
    const struct hf_item *i = hf_log_find(&h->log, s->name, strlen(s->name));

    if (i != NULL && !i->pending && !i->unclear)
        hf_holds_done_prepared(h, i->sql->sql, i->index);
    else
        h->pins |= PIN(UNKNOWN);
}

static void deallocate(struct hf_holds *h, const char *name)
{
    struct hf_item *i = hf_log_find(&h->log, name, strlen(name));

    if (i != NULL && !i->pending)
        hf_log_remove(&h->log, i);
    else
        h->pins |= PIN(UNKNOWN); /* it was there, so what else is there? */
}

/* A role that the login gave is there again. */
static void discard_all(struct hf_holds *h)
{
    hf_journal_clear(&h->journal);
    hf_log_remove_all(&h->log);
    h->pins = 0;
    h->discarded = true;
}

/* -- statements -------------------------------------------------------------------------------- */

static void savepoint(struct hf_holds *h, const struct hf_sql_statement *s)
{
    bool known = true;

    if (s->kind == HF_SQL_RELEASE)
        known = hf_journal_release(&h->journal, s->name);
    else if (s->kind == HF_SQL_ROLLBACK_TO)
        known = hf_journal_rollback_to(&h->journal, s->name);
    else if (!hf_journal_savepoint(&h->journal, s->name))
        hf_holds_too_much(h);
    if (!known)
        h->pins |= PIN(UNKNOWN); /* made by something that was not understood */
}

static void by_kind(struct hf_holds *h, struct hf_text *t, uint32_t index,
                    const struct hf_sql_statement *s, const char *tag)
{
    switch (s->kind) {
    case HF_SQL_BEGIN:
        h->tx_read_only = s->read_only && !h->wrote;
        h->status = 'T';
        break;
    case HF_SQL_COMMIT:
    case HF_SQL_ROLLBACK:
        if (!s->chain)
            h->status = 'I';
        if (strcmp(tag, "ROLLBACK") == 0)
            roll_back(h);
        else
            commit(h);
        h->committed = h->committed || s->kind == HF_SQL_COMMIT;
        break;
    case HF_SQL_SAVEPOINT:
    case HF_SQL_RELEASE:
    case HF_SQL_ROLLBACK_TO:
        savepoint(h, s);
        break;
    case HF_SQL_SET:
        journal(h, s, hf_sql_text(t->sql) + s->at, s->len);
        break;
    case HF_SQL_RESET_ALL:
        journal_mark(h, HF_SQL_RESET_ALL, false);
        break;
    case HF_SQL_SET_LOCAL:
        if (hf_sql_is_of_transaction(s->name))
            h->tx_read_only = false;
        if (s->parses) /* for what is prepared in this transaction */
            journal_mark(h, HF_SQL_SET_LOCAL, true);
        break;
    case HF_SQL_SET_CONFIG:
        set_config(h, s);
        break;
    case HF_SQL_PREPARE:
        prepare(h, t, index, s);
        break;
    case HF_SQL_EXECUTE:
        execute(h, s);
        break;
    case HF_SQL_DEALLOCATE:
        deallocate(h, s->name);
        break;
    case HF_SQL_DEALLOCATE_ALL:
        hf_log_remove_statements(&h->log);
        break;
    case HF_SQL_DISCARD_ALL:
        discard_all(h);
        break;
    default:
        break;
    }
}

void hf_holds_done(struct hf_holds *h, struct hf_text *t, uint32_t index, const char *tag)
{
    const struct hf_sql *q = t != NULL ? t->sql : NULL;
    const struct hf_sql_statement *s;

    if (q == NULL || !hf_sql_is_understood(q) || index >= hf_sql_count(q)) {
        h->pins |= PIN(UNKNOWN);
        h->wrote = true;
        return;
    }
    s = hf_sql_statement(q, index);
    if (tag != NULL && !fits(s, tag)) {
        h->pins |= PIN(UNKNOWN);
        h->wrote = true;
        return;
    }
    h->wrote = h->wrote || (s->writes && s->kind != HF_SQL_PREPARE);
    h->committed_early = h->committed_early || s->commits;
    h->pins |= s->pins;
    if (tag != NULL)
        h->configs += s->configs;
    if (tag != NULL || s->kind == HF_SQL_SET_CONFIG) /* it is done with its row */
        by_kind(h, t, index, s, tag);
}

void hf_holds_undone(struct hf_holds *h, const struct hf_sql *q, uint32_t index)
{
    h->failed = true;
    if (q != NULL && hf_sql_is_understood(q) && index < hf_sql_count(q))
        h->wrote = h->wrote || hf_sql_statement(q, index)->writes;
}

/* Outside a transaction the implicit one is over: committed, unless something failed. */
void hf_holds_settle(struct hf_holds *h)
{
    if (h->status == 'I') {
        if (h->failed && h->committed_early && h->journal.n_settings > 0)
            h->pins |= PIN(SETTING); /* were they committed, or not? */
        if (h->failed)
            roll_back(h);
        else if (h->journal.n > 0 || h->journal.n_savepoints > 0)
            commit(h);
        h->wrote = h->tx_read_only = false;
    }
    h->failed = h->committed_early = h->committed = false;
}
