/* What the guard says (src/guard/report.c has its words). */
#include <stdlib.h>
#include <string.h>

#include "holds/private.h"

static const struct {
    const char *word;
    uint32_t pin;
} words[] = {
    {"none", 0},
    {"temporary", PIN(TEMPORARY)},
    {"lock", PIN(LOCK)},
    {"cursor", PIN(CURSOR)},
    {"listen", PIN(LISTEN)},
    {"currval", PIN(SEQUENCE)},
    {"prepared", PIN(PREPARED)},
    {"seed", PIN(SEED)},
    {"load", PIN(LOAD)},
    {"slot", PIN(SLOT)},
    {"code", PIN(CODE)},
};

/* "NAME:number"? */
static bool is_count(const char *word, size_t len, const char *name, uint32_t *out)
{
    size_t n = strlen(name);
    uint64_t value = 0;

    if (len <= n || memcmp(word, name, n) != 0)
        return false;
    for (size_t i = n; i < len; i++) {
        if (word[i] < '0' || word[i] > '9' || value > UINT32_MAX)
            return false;
        value = value * 10 + (uint64_t)(word[i] - '0');
    }
    *out = (uint32_t)value;
    return value <= UINT32_MAX;
}

static bool take(struct hf_guarded *g, const char *word, size_t len)
{
    for (size_t i = 0; i < sizeof words / sizeof *words; i++) {
        if (strlen(words[i].word) == len && memcmp(words[i].word, word, len) == 0) {
            g->said |= words[i].pin;
            return true;
        }
    }
    if (len == 8 && memcmp(word, "sequence", 8) == 0) {
        g->sequences = true;
        return true;
    }
    return is_count(word, len, "config:", &g->configs) || is_count(word, len, "setting:", &g->settings);
}

void hf_holds_report(struct hf_holds *h, const char *value)
{
    struct hf_guarded *g = &h->guard;

    g->said = 0;
    g->sequences = false;
    for (const char *p = value; p != NULL;) {
        const char *space = strchr(p, ' ');
        size_t len = space != NULL ? (size_t)(space - p) : strlen(p);
        if (!take(g, p, len))
            g->said |= PIN(UNKNOWN); /* of a later version's guard */
        p = space != NULL ? space + 1 : NULL;
    }
    g->held |= g->said; /* what has gone is gone when its statement is answered: until then the client may hear that it was not done */
    if (!g->is_there) {
        g->configs_before = g->configs;
        g->settings_before = g->settings;
    }
    g->is_there = true;
}

/* A call that was read and done is one call. Where there were others as well, in functions, say, what they have set for the session is not
 * known; only that it was something, if their transaction commits. */
void hf_holds_reported(struct hf_holds *h)
{
    struct hf_guarded *g = &h->guard;

    if (g->configs - g->configs_before != h->configs)
        g->unclear = true;
    if (g->unclear && g->settings != g->settings_before)
        h->pins |= PIN(SETTING);
    g->held = g->said;
    g->configs_before = g->configs;
    g->settings_before = g->settings;
    h->configs = 0;
    if (h->status == 'I')
        g->unclear = false;
}
