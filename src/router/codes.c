#include "router/codes.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define SECOND_NS 1000000000ull
#define OLD_NS (10 * SECOND_NS)
#define RETRY_NS (SECOND_NS / 5) /* PostgreSQL starts, or is a standby that cannot be read yet */

enum { RETRIES_MAX = 50 }; /* then somebody has to ask for it again */

void hf_codebook_unref(struct hf_codebook *b)
{
    if (b == NULL || atomic_fetch_sub(&b->refs, 1) > 1)
        return;
    hf_code_free(b->code);
    free(b);
}

int hf_codes_open(struct hf_codes *c)
{
    return uv_mutex_init(&c->lock);
}

void hf_codes_close(struct hf_codes *c)
{
    for (unsigned i = 0; i < c->n; i++)
        hf_codebook_unref(c->entries[i].book);
    uv_mutex_destroy(&c->lock);
}

static struct hf_codes_entry *find(struct hf_codes *c, const char *database)
{
    for (unsigned i = 0; i < c->n; i++)
        if (strcmp(c->entries[i].database, database) == 0)
            return &c->entries[i];
    return NULL;
}

/* Databases come and go: one that nobody has asked for lately makes room. NULL: there is none. */
static struct hf_codes_entry *entry(struct hf_codes *c, const char *database, uint64_t now)
{
    struct hf_codes_entry *e = find(c, database);

    if (e != NULL || strlen(database) >= HF_CODES_NAME)
        return e;
    if (c->n < HF_CODES_MAX) {
        e = &c->entries[c->n++];
    } else {
        e = &c->entries[0];
        for (unsigned i = 1; i < c->n; i++)
            if (c->entries[i].due_ns < e->due_ns)
                e = &c->entries[i];
        if (e->due_ns > now)
            return NULL;
        hf_codebook_unref(e->book);
    }
    *e = (struct hf_codes_entry){.round = e->round + 1};
    (void)snprintf(e->database, HF_CODES_NAME, "%s", database);
    return e;
}

struct hf_codebook *hf_codes_get(struct hf_codes *c, const char *database, bool again, bool *asking)
{
    struct hf_codebook *book = NULL, *old = NULL;
    struct hf_codes_entry *e;
    uint64_t now = uv_hrtime();

    *asking = false;
    uv_mutex_lock(&c->lock);
    e = entry(c, database, now);
    if (e != NULL && again) {
        old = e->book;
        e->book = NULL;
        e->round++;
    }
    if (e != NULL && (again || now >= e->due_ns)) {
        *asking = e->wanted = true;
        e->failures = 0;
        e->due_ns = now + OLD_NS;
    }
    if (e != NULL && (book = e->book) != NULL)
        atomic_fetch_add(&book->refs, 1);
    uv_mutex_unlock(&c->lock);
    hf_codebook_unref(old);
    return book;
}

bool hf_codes_next(struct hf_codes *c, char database[HF_CODES_NAME], uint64_t *round)
{
    bool found = false;

    uv_mutex_lock(&c->lock);
    for (unsigned i = 0; i < c->n && !found; i++) {
        struct hf_codes_entry *e = &c->entries[i];
        found = e->wanted && uv_hrtime() >= e->again_ns;
        if (!found)
            continue;
        e->wanted = false;
        *round = e->round;
        memcpy(database, e->database, HF_CODES_NAME);
    }
    uv_mutex_unlock(&c->lock);
    return found;
}

uint64_t hf_codes_wait_ns(struct hf_codes *c)
{
    uint64_t now = uv_hrtime(), wait = 0;

    uv_mutex_lock(&c->lock);
    for (unsigned i = 0; i < c->n; i++) {
        const struct hf_codes_entry *e = &c->entries[i];
        uint64_t left = e->again_ns > now ? e->again_ns - now : 1;
        if (e->wanted && (wait == 0 || left < wait))
            wait = left;
    }
    uv_mutex_unlock(&c->lock);
    return wait;
}

void hf_codes_answer(struct hf_codes *c, const char *database, uint64_t round, struct hf_code *code)
{
    struct hf_codebook *book = code != NULL ? calloc(1, sizeof *book) : NULL;
    struct hf_codes_entry *e;

    if (book != NULL)
        *book = (struct hf_codebook){.refs = 1, .code = code};
    else
        hf_code_free(code);
    uv_mutex_lock(&c->lock);
    e = find(c, database);
    if (e != NULL && book == NULL) {
        e->again_ns = uv_hrtime() + RETRY_NS;
        if (++e->failures < RETRIES_MAX)
            e->wanted = true;
    } else if (e != NULL && e->round == round) {
        struct hf_codebook *old = e->book;
        e->failures = 0;
        e->book = book;
        book = old;
    }
    uv_mutex_unlock(&c->lock);
    hf_codebook_unref(book);
}
