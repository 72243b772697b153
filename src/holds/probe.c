/* What the connection really holds, where that is in doubt.
 *
 * Settings are not asked for: whatever may have changed one pins the session anyway, because
 * settings with names of the user's own making (app.user) are in no catalogue. */
#include <string.h>

#include "holds/private.h"

/* An object in the session's temporary schema depends on that schema, whatever it is. */
static const char query[] =
    "SELECT pg_catalog.concat_ws(' ',"
    " CASE WHEN EXISTS (SELECT FROM pg_catalog.pg_locks WHERE locktype OPERATOR(pg_catalog.=) "
    "'advisory'"
    " AND pid OPERATOR(pg_catalog.=) pg_catalog.pg_backend_pid()) THEN 'lock' END,"
    " CASE WHEN EXISTS (SELECT FROM pg_catalog.pg_listening_channels()) THEN 'listen' END,"
    " CASE WHEN pg_catalog.pg_my_temp_schema() OPERATOR(pg_catalog.<>) 0 AND EXISTS (SELECT FROM "
    "pg_catalog.pg_depend"
    " WHERE refclassid OPERATOR(pg_catalog.=) 'pg_catalog.pg_namespace'::pg_catalog.regclass"
    " AND refobjid OPERATOR(pg_catalog.=) pg_catalog.pg_my_temp_schema()) THEN 'temporary' END,"
    " CASE WHEN EXISTS (SELECT FROM pg_catalog.pg_cursors WHERE is_holdable) THEN 'cursor' END,"
    " 'prepared', (SELECT pg_catalog.count(*) FROM pg_catalog.pg_prepared_statements"
    " WHERE name OPERATOR(pg_catalog.<>) '" HF_HOLDS_PROBE_NAME "'), 'end')";

const char *hf_holds_probe_query(void)
{
    return query;
}

bool hf_holds_wants_probe(const struct hf_holds *h)
{
    return h->stale && (h->pins & (uint32_t)HF_HOLDS_VISIBLE) != 0 && h->started && h->n == 0 &&
           !h->batch && h->status == 'I' && h->client.scan.have == 0 && h->server.scan.have == 0 &&
           !h->over && hf_log_find(&h->log, HF_HOLDS_PROBE_NAME, strlen(HF_HOLDS_PROBE_NAME)) == NULL;
}

/* The next word of the value; its length is 0 at the end. */
static size_t word(const char **p, const char *end, const char **out)
{
    while (*p < end && **p == ' ')
        (*p)++;
    *out = *p;
    while (*p < end && **p != ' ')
        (*p)++;
    return (size_t)(*p - *out);
}

static bool is(const char *w, size_t len, const char *name)
{
    return strlen(name) == len && memcmp(w, name, len) == 0;
}

static bool number(const char *w, size_t len, uint32_t *out)
{
    *out = 0;
    for (size_t i = 0; i < len; i++) {
        if (w[i] < '0' || w[i] > '9' || *out > 100000000)
            return false;
        *out = *out * 10 + (uint32_t)(w[i] - '0');
    }
    return len > 0;
}

void hf_holds_probe_read(struct hf_holds *h, const char *value, size_t len)
{
    static const struct {
        const char *name;
        uint32_t pin;
    } words[] = {{"lock", PIN(LOCK)},
                 {"listen", PIN(LISTEN)},
                 {"temporary", PIN(TEMPORARY)},
                 {"cursor", PIN(CURSOR)}};
    const char *p = value, *end = value + len, *w;
    uint32_t pins = 0, n = UINT32_MAX;
    bool ended = false;
    size_t k;

    while ((k = word(&p, end, &w)) > 0 && !ended) {
        ended = is(w, k, "end");
        if (is(w, k, "prepared")) {
            k = word(&p, end, &w);
            if (!number(w, k, &n))
                break;
        }
        for (size_t i = 0; i < sizeof words / sizeof *words; i++)
            if (is(w, k, words[i].name))
                pins |= words[i].pin;
    }
    if (!ended || p != end) {
        h->pins |= PIN(UNKNOWN);
        return;
    }
    if (n != h->log.n_statements)
        pins |= PIN(UNKNOWN); /* code has prepared one, or dropped one */
    h->pins = (h->pins & ~(uint32_t)HF_HOLDS_VISIBLE) | pins;
    h->stale = false;
}

void hf_holds_probe_failed(struct hf_holds *h)
{
    h->stale = false;
}
