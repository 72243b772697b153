#include "router/params.h"

#include <stdlib.h>
#include <string.h>

const char *hf_params_get(const struct hf_params *p, const char *name)
{
    for (size_t at = 0; at < p->len;) {
        const char *key = p->bytes + at, *value = key + strlen(key) + 1;
        if (strcmp(key, name) == 0)
            return value;
        at = (size_t)(value - p->bytes) + strlen(value) + 1;
    }
    return NULL;
}

static void drop(struct hf_params *p, const char *name)
{
    const char *value = hf_params_get(p, name);
    size_t from, to;

    if (value == NULL)
        return;
    from = (size_t)(value - p->bytes) - strlen(name) - 1;
    to = (size_t)(value - p->bytes) + strlen(value) + 1;
    memmove(p->bytes + from, p->bytes + to, p->len - to);
    p->len -= to - from;
}

static bool is_pair(const uint8_t *body, size_t n)
{
    const uint8_t *end = n > 0 ? memchr(body, '\0', n) : NULL;

    return end != NULL && end > body && memchr(end + 1, '\0', n - (size_t)(end + 1 - body)) == body + n - 1;
}

void hf_params_set(struct hf_params *p, const uint8_t *body, size_t n)
{
    const char *had;
    char *more;

    if (!is_pair(body, n)) {
        if (n > 0 && memchr(body, '\0', n) != NULL)
            drop(p, (const char *)body); /* it was cut: what it was before it is not any more */
        return;
    }
    had = hf_params_get(p, (const char *)body);
    if (had != NULL && strcmp(had, (const char *)body + strlen((const char *)body) + 1) == 0)
        return;
    drop(p, (const char *)body);
    more = p->len + n <= HF_PARAMS_MAX ? realloc(p->bytes, p->len + n) : NULL;
    if (more == NULL)
        return;
    memcpy(more + p->len, body, n);
    p->bytes = more;
    p->len += n;
}

bool hf_params_same(const struct hf_params *a, const struct hf_params *b)
{
    return a->len == b->len && (a->len == 0 || memcmp(a->bytes, b->bytes, a->len) == 0);
}

size_t hf_params_differ(const struct hf_params *before, const struct hf_params *now, uint8_t *out, size_t cap)
{
    size_t used = 0;

    for (size_t at = 0; at < now->len;) {
        const char *name = now->bytes + at, *value = name + strlen(name) + 1, *had = hf_params_get(before, name);
        size_t n = strlen(name) + strlen(value) + 2;
        if (had == NULL || strcmp(had, value) != 0) {
            if (used + 5 + n > cap)
                return 0;
            out[used] = 'S';
            out[used + 1] = out[used + 2] = 0;
            out[used + 3] = (uint8_t)((n + 4) >> 8);
            out[used + 4] = (uint8_t)(n + 4);
            memcpy(out + used + 5, name, n);
            used += 5 + n;
        }
        at += n;
    }
    return used;
}

void hf_params_clear(struct hf_params *p)
{
    free(p->bytes);
    *p = (struct hf_params){0};
}

bool hf_params_copy(struct hf_params *to, const struct hf_params *from)
{
    if (from->len == 0)
        return true;
    to->bytes = malloc(from->len);
    if (to->bytes == NULL)
        return false;
    memcpy(to->bytes, from->bytes, from->len);
    to->len = from->len;
    return true;
}
