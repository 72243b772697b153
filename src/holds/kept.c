/* The budget of what a session may have the router keep, and texts that count once. */
#include <assert.h>
#include <stdlib.h>
#include <string.h>

#include "holds/private.h"

bool hf_budget_take(struct hf_budget *b, size_t bytes)
{
    if (bytes > HF_HOLDS_BYTES_MAX || b->used > HF_HOLDS_BYTES_MAX - bytes)
        return false;
    b->used += bytes;
    return true;
}

void hf_budget_give(struct hf_budget *b, size_t bytes)
{
    assert(b->used >= bytes);
    b->used -= bytes;
}

bool hf_budget_grow(struct hf_budget *b, void **array, uint32_t *cap, uint32_t n, size_t each)
{
    uint32_t more = *cap == 0 ? 2 : *cap * 2;
    void *bigger;

    if (n < *cap)
        return true;
    if (!hf_budget_take(b, (more - *cap) * each))
        return false;
    bigger = realloc(*array, more * each);
    if (bigger == NULL) {
        hf_budget_give(b, (more - *cap) * each);
        return false;
    }
    *array = bigger;
    *cap = more;
    return true;
}

void hf_budget_drop(struct hf_budget *b, void **array, uint32_t *cap, size_t each)
{
    hf_budget_give(b, *cap * each);
    free(*array);
    *array = NULL;
    *cap = 0;
}

static size_t text_bytes(const struct hf_text *t)
{
    return HF_PIECE + sizeof *t + hf_sql_bytes(t->sql);
}

struct hf_text *hf_text_new(struct hf_budget *b, struct hf_sql *q)
{
    struct hf_text *t = malloc(sizeof *t);

    if (t != NULL)
        *t = (struct hf_text){.refs = 1, .sql = q, .budget = b};
    if (t == NULL || !hf_budget_take(b, text_bytes(t))) {
        hf_sql_unref(q);
        free(t);
        return NULL;
    }
    return t;
}

struct hf_text *hf_text_ref(struct hf_text *t)
{
    if (t != NULL)
        t->refs++;
    return t;
}

void hf_text_unref(struct hf_text *t)
{
    if (t == NULL || --t->refs > 0)
        return;
    hf_budget_give(t->budget, text_bytes(t));
    hf_sql_unref(t->sql);
    free(t);
}
