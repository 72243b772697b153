#include "router/pool.h"

#include <assert.h>
#include <stdlib.h>
#include <string.h>

/* -- pools --------------------------------------------------------------------------------------- */

struct hf_pool *hf_pool_get(struct hf_pools *all, const void *key, size_t len)
{
    struct hf_pool *p;

    for (p = all->first; p != NULL; p = p->next)
        if (p->key_len == len && memcmp(p->key, key, len) == 0) {
            p->refs++;
            return p;
        }
    p = calloc(1, sizeof *p + len);
    if (p == NULL)
        return NULL;
    p->refs = 1;
    p->most = all->most;
    p->key_len = len;
    memcpy(p->key, key, len);
    p->next = all->first;
    all->first = p;
    return p;
}

void hf_pool_unref(struct hf_pools *all, struct hf_pool *p)
{
    struct hf_pool **at = &all->first;

    assert(p->refs > 0);
    if (--p->refs > 0)
        return;
    assert(p->places == 0 && p->n_waiting == 0);
    while (*at != p)
        at = &(*at)->next;
    *at = p->next;
    free(p);
}

/* -- the lines, one for each thread ---------------------------------------------------------------- */

static void enter(struct hf_pools *all, struct hf_pool *p, struct hf_waiter *w, unsigned thread, bool first)
{
    struct hf_pool_line *line = &p->lines[thread];

    assert(w->pool == NULL && thread < HF_POOL_THREADS);
    w->pool = p;
    w->thread = thread;
    w->before = first ? NULL : line->last;
    w->behind = first ? line->first : NULL;
    *(w->before != NULL ? &w->before->behind : &line->first) = w;
    *(w->behind != NULL ? &w->behind->before : &line->last) = w;
    p->n_waiting++;
    all->n_waiting++;
}

void hf_pool_wait(struct hf_pools *all, struct hf_pool *p, struct hf_waiter *w, unsigned thread, uint64_t now_ms)
{
    w->since_ms = now_ms;
    w->order = ++all->order;
    enter(all, p, w, thread, false);
}

void hf_pool_leave(struct hf_pools *all, struct hf_waiter *w)
{
    struct hf_pool *p = w->pool;
    struct hf_pool_line *line;

    if (p == NULL)
        return;
    line = &p->lines[w->thread];
    *(w->before != NULL ? &w->before->behind : &line->first) = w->behind;
    *(w->behind != NULL ? &w->behind->before : &line->last) = w->before;
    w->pool = NULL;
    w->before = w->behind = NULL;
    p->n_waiting--;
    all->n_waiting--;
}

static struct hf_waiter *oldest(const struct hf_pool *p)
{
    struct hf_waiter *found = NULL;

    for (unsigned i = 0; i < HF_POOL_THREADS; i++) {
        struct hf_waiter *w = p->lines[i].first;
        if (w != NULL && (found == NULL || w->order < found->order))
            found = w;
    }
    return found;
}

/* Whose turn it is, seen from a thread. */
static struct hf_waiter *turn(const struct hf_pool *p, unsigned thread, uint64_t now_ms)
{
    struct hf_waiter *first = oldest(p), *here = p->lines[thread].first;
    uint64_t waited = now_ms > first->since_ms ? now_ms - first->since_ms : 0; /* each thread has its own idea of now */

    if (here != NULL && here->since_ms <= first->since_ms + HF_POOL_NEAR_MS + waited / HF_POOL_NEAR_PART)
        return here;
    return first;
}

/* -- places ---------------------------------------------------------------------------------------- */

static bool has_room(const struct hf_pool *p, uint64_t now_ms)
{
    return (p->most == 0 || p->places < p->most) && now_ms >= p->refused_until_ms && now_ms >= p->try_until_ms;
}

static void occupy(struct hf_pools *all, struct hf_pool *p, uint64_t now_ms)
{
    p->places++;
    all->places++;
    p->try_until_ms = p->refused_ms > 0 ? now_ms + HF_POOL_TRY_MS : 0;
}

static void vacate(struct hf_pools *all, struct hf_pool *p)
{
    assert(p->places > 0 && all->places > 0);
    p->places--;
    all->places--;
    p->try_until_ms = 0;
}

bool hf_pool_take(struct hf_pools *all, struct hf_pool *p, uint64_t now_ms)
{
    if (p->n_waiting > 0 || !has_room(p, now_ms))
        return false;
    occupy(all, p, now_ms);
    return true;
}

struct hf_waiter *hf_pool_next(struct hf_pools *all, struct hf_pool *p, unsigned thread, uint64_t now_ms)
{
    struct hf_waiter *w = p->n_waiting > 0 ? turn(p, thread, now_ms) : NULL;

    if (w != NULL)
        hf_pool_leave(all, w);
    return w;
}

void hf_pool_give(struct hf_pools *all, struct hf_pool *p, uint64_t now_ms)
{
    vacate(all, p);
    if (p->refused_ms == 0)
        return;
    p->refused_ms = HF_POOL_REFUSED_MS;
    if (p->refused_until_ms > now_ms + HF_POOL_REFUSED_MS)
        p->refused_until_ms = now_ms + HF_POOL_REFUSED_MS; /* PostgreSQL needs a moment to end it */
}

void hf_pool_made(struct hf_pool *p)
{
    p->try_until_ms = 0;
    p->refused_ms = p->n_waiting > 0 && p->refused_ms > 0 ? HF_POOL_REFUSED_MS : 0;
}

uint64_t hf_pool_due_ms(const struct hf_pool *p)
{
    if (p->n_waiting == 0 || (p->most > 0 && p->places >= p->most))
        return UINT64_MAX;
    return p->refused_until_ms > p->try_until_ms ? p->refused_until_ms : p->try_until_ms;
}

struct hf_waiter *hf_pool_grow(struct hf_pools *all, struct hf_pool *p, unsigned thread, uint64_t now_ms)
{
    struct hf_waiter *w = p->n_waiting > 0 && has_room(p, now_ms) ? turn(p, thread, now_ms) : NULL;

    if (w == NULL)
        return NULL;
    hf_pool_leave(all, w);
    occupy(all, p, now_ms);
    return w;
}

bool hf_pool_refuse(struct hf_pools *all, struct hf_pool *p, struct hf_waiter *w, unsigned thread, bool waited, uint64_t since_ms,
                    uint64_t now_ms)
{
    if (p->places == 1 && !waited)
        return false;
    vacate(all, p);
    if (p->refused_ms == 0)
        p->refused_ms = HF_POOL_REFUSED_MS;
    if (now_ms >= p->refused_until_ms) { /* else it had begun before the last one was refused */
        p->refused_until_ms = now_ms + p->refused_ms;
        p->refused_ms = p->refused_ms * 2 < HF_POOL_REFUSED_MAX_MS ? p->refused_ms * 2 : HF_POOL_REFUSED_MAX_MS;
    }
    w->since_ms = since_ms;
    w->order = 0; /* before all that came by themselves */
    enter(all, p, w, thread, true);
    return true;
}
