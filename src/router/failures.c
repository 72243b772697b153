#include "router/failures.h"

#include <stddef.h>

static bool is_over(const struct hf_failure *e, uint64_t now_ms)
{
    return e->key == 0 || e->last_ms + HF_FAILURES_FORGET_MS <= now_ms;
}

static struct hf_failure *find(struct hf_failures *f, uint64_t key)
{
    struct hf_failure *set = f->table[key % HF_FAILURES_SETS];

    for (int i = 0; i < HF_FAILURES_WAYS; i++)
        if (set[i].key == key)
            return &set[i];
    return NULL;
}

int64_t hf_failures_wait(struct hf_failures *f, uint64_t key, uint64_t now_ms)
{
    struct hf_failure *e = find(f, key);
    uint64_t turn;

    if (e == NULL || is_over(e, now_ms) || e->n < HF_FAILURES_FREE)
        return 0;
    turn = e->next_ms > now_ms ? e->next_ms : now_ms;
    if (turn - now_ms > HF_FAILURES_WAIT_MAX_MS)
        return -1;
    e->next_ms = turn + HF_FAILURES_GAP_MS;
    return (int64_t)(turn - now_ms);
}

void hf_failures_leave(struct hf_failures *f, uint64_t key, uint64_t now_ms)
{
    struct hf_failure *e = find(f, key);

    if (e != NULL && e->next_ms >= now_ms + HF_FAILURES_GAP_MS)
        e->next_ms -= HF_FAILURES_GAP_MS;
}

void hf_failures_wrong(struct hf_failures *f, uint64_t key, uint64_t now_ms)
{
    struct hf_failure *e = find(f, key), *set = f->table[key % HF_FAILURES_SETS];

    if (e == NULL) { /* the place of whoever failed longest ago */
        e = &set[0];
        for (int i = 1; i < HF_FAILURES_WAYS; i++)
            if (set[i].key == 0 || (e->key != 0 && set[i].last_ms < e->last_ms))
                e = &set[i];
        *e = (struct hf_failure){.key = key};
    } else if (is_over(e, now_ms)) {
        *e = (struct hf_failure){.key = key};
    }
    e->last_ms = now_ms;
    if (++e->n == HF_FAILURES_FREE)
        e->next_ms = now_ms + HF_FAILURES_GAP_MS;
}

void hf_failures_right(struct hf_failures *f, uint64_t key)
{
    struct hf_failure *e = find(f, key);

    if (e != NULL)
        *e = (struct hf_failure){0};
}
