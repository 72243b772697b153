#include "base/scan.h"

#include <string.h>

size_t hf_scan_take(struct hf_scan *s, const uint8_t *p, size_t n, size_t *body, bool *complete)
{
    size_t used = 0, more;

    while (s->have < 5 && used < n) {
        s->head[s->have++] = p[used++];
        if (s->have < 5)
            continue;
        s->left = hf_scan_number(s->head + 1);
        if (s->left < 4) {
            s->broken = true;
            *complete = false;
            return n;
        }
        s->full = s->left -= 4;
    }
    *body = used;
    more = s->have < 5 ? 0 : n - used < s->left ? n - used : (size_t)s->left;
    s->left -= more;
    *complete = s->have == 5 && s->left == 0;
    if (*complete)
        s->have = 0;
    return used + more;
}

/* At the end of the list *at is at the final NUL if the list is well formed. The packet's last byte is a NUL. */
bool hf_startup_pair(const uint8_t *p, size_t len, size_t *at, const char **key, const char **value)
{
    size_t value_at;

    if (*at >= len || p[*at] == '\0')
        return false;
    *key = (const char *)p + *at;
    value_at = *at + strlen(*key) + 1;
    if (value_at >= len)
        return false;
    *value = (const char *)p + value_at;
    *at = value_at + strlen(*value) + 1;
    return true;
}
