/* A transaction's settings, until its end. */
#include <stdlib.h>
#include <string.h>

#include "holds/private.h"

static void pop_change(struct hf_journal *j)
{
    struct hf_change *c = &j->changes[--j->n];

    j->n_parses -= c->parses;
    j->n_settings -= c->kind != HF_SQL_SET_LOCAL;
    hf_item_unref(c->item);
}

static void pop_savepoint(struct hf_journal *j)
{
    struct hf_savepoint *s = &j->savepoints[--j->n_savepoints];

    hf_budget_give(j->budget, HF_PIECE + strlen(s->name) + 1);
    free(s->name);
}

bool hf_journal_add(struct hf_journal *j, enum hf_sql_kind kind, bool parses, struct hf_item *item)
{
    if (!hf_budget_grow(j->budget, (void **)&j->changes, &j->cap, j->n, sizeof *j->changes)) {
        hf_item_unref(item);
        return false;
    }
    j->changes[j->n++] = (struct hf_change){.kind = kind, .parses = parses, .item = item};
    j->n_parses += parses;
    j->n_settings += kind != HF_SQL_SET_LOCAL;
    return true;
}

static struct hf_savepoint *newest(struct hf_journal *j)
{
    return j->n_savepoints > 0 ? &j->savepoints[j->n_savepoints - 1] : NULL;
}

bool hf_journal_savepoint(struct hf_journal *j, const char *name)
{
    struct hf_savepoint *last = newest(j);
    char *copy;

    /* pgjdbc's autosave makes one before each statement, and releases none. */
    if (last != NULL && last->at == j->n && last->times < UINT32_MAX && strcmp(last->name, name) == 0) {
        last->times++;
        return true;
    }
    if (!hf_budget_grow(j->budget, (void **)&j->savepoints, &j->cap_savepoints, j->n_savepoints,
                        sizeof *j->savepoints) ||
        !hf_budget_take(j->budget, HF_PIECE + strlen(name) + 1))
        return false;
    copy = strdup(name);
    if (copy == NULL) {
        hf_budget_give(j->budget, HF_PIECE + strlen(name) + 1);
        return false;
    }
    j->savepoints[j->n_savepoints++] = (struct hf_savepoint){.name = copy, .at = j->n, .times = 1};
    return true;
}

/* Takes away the savepoints made since the newest of that name, which stays. What is passed goes, so that
 * this is cheap on average. */
static bool back_to(struct hf_journal *j, const char *name)
{
    while (j->n_savepoints > 0 && strcmp(newest(j)->name, name) != 0)
        pop_savepoint(j);
    return j->n_savepoints > 0;
}

bool hf_journal_rollback_to(struct hf_journal *j, const char *name)
{
    bool found = back_to(j, name);

    while (found && j->n > newest(j)->at)
        pop_change(j);
    return found;
}

bool hf_journal_release(struct hf_journal *j, const char *name)
{
    bool found = back_to(j, name);

    if (found && --newest(j)->times == 0)
        pop_savepoint(j);
    return found;
}

void hf_journal_clear(struct hf_journal *j)
{
    while (j->n > 0)
        pop_change(j);
    while (j->n_savepoints > 0)
        pop_savepoint(j);
    hf_budget_drop(j->budget, (void **)&j->changes, &j->cap, sizeof *j->changes);
    hf_budget_drop(j->budget, (void **)&j->savepoints, &j->cap_savepoints, sizeof *j->savepoints);
}

bool hf_journal_commit(struct hf_journal *j, struct hf_log *log)
{
    bool ok = true;

    for (uint32_t k = 0; k < j->n && ok; k++) {
        struct hf_change *c = &j->changes[k];
        if (c->kind == HF_SQL_RESET_ALL)
            ok = hf_log_reset_all(log);
        else if (c->item != NULL)
            ok = hf_log_set(log, c->item);
        c->item = NULL;
    }
    hf_journal_clear(j);
    return ok;
}
