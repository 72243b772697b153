#include "peer/walwatch.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { STARTUP_MAX = 10000 };

void hf_walwatch_init(struct hf_walwatch *w, bool from_primary)
{
    memset(w, 0, sizeof *w);
    w->from_primary = from_primary;
    w->started = from_primary; /* the primary's side has no startup packet */
}

static uint64_t be(const uint8_t *p, unsigned n)
{
    uint64_t v = 0;

    for (unsigned i = 0; i < n; i++)
        v = v << 8 | p[i];
    return v;
}

/* Pairs of strings behind the protocol version. */
static void startup(struct hf_walwatch *w)
{
    const char *p = (const char *)w->keep + 4, *end = (const char *)w->keep + w->kept;

    if (w->kept < 4 || be(w->keep, 4) >> 16 != 3)
        return; /* SSLRequest and the like: the real startup packet follows */
    w->started = true;
    while (p < end && *p != '\0') {
        const char *key = p, *value = memchr(p, '\0', (size_t)(end - p));
        const char *next;
        if (value == NULL || ++value >= end)
            break;
        next = memchr(value, '\0', (size_t)(end - value));
        if (next == NULL)
            break;
        if (strcmp(key, "application_name") == 0) {
            (void)snprintf(w->application_name, sizeof w->application_name, "%s", value);
            w->named = true;
        }
        p = next + 1;
    }
}

/* Fields of an ErrorResponse: a byte, a string; 'C' is the SQLSTATE. */
static void error_response(struct hf_walwatch *w)
{
    const char *p = (const char *)w->keep, *end = p + w->kept;

    while (p < end && *p != '\0') {
        const char *next = memchr(p, '\0', (size_t)(end - p));
        if (next == NULL)
            break;
        if (*p == 'C' && strcmp(p + 1, "58P01") == 0)
            w->wal_missing = true;
        p = next + 1;
    }
}

/* START_REPLICATION [SLOT x] [PHYSICAL] X/X TIMELINE n, in a Query. A standby goes along several timelines, one after
 * the other; what it said of the one before is void. */
static void query(struct hf_walwatch *w)
{
    static const char start[] = "START_REPLICATION ", timeline[] = " TIMELINE ";
    char text[sizeof w->keep + 1];
    const char *at, *lsn;
    unsigned hi, lo;

    memcpy(text, w->keep, w->kept);
    text[w->kept] = '\0';
    if (strncmp(text, start, sizeof start - 1) != 0)
        return;
    at = strstr(text, timeline);
    w->timeline = at != NULL ? (uint32_t)strtoul(at + sizeof timeline - 1, NULL, 10) : 0;
    for (lsn = at; lsn != NULL && lsn > text && lsn[-1] != ' ';)
        lsn--;
    if (!w->asked)
        w->first = lsn != NULL && sscanf(lsn, "%8X/%8X", &hi, &lo) == 2 ? (uint64_t)hi << 32 | lo : UINT64_MAX;
    w->asked = true;
    w->flushed = w->applied = 0;
    w->news = true;
}

static void message(struct hf_walwatch *w)
{
    if (!w->started)
        startup(w);
    else if (w->from_primary && w->type == 'E')
        error_response(w);
    else if (w->from_primary && w->type == 'd' && w->kept >= 17 && (w->keep[0] == 'w' || w->keep[0] == 'k'))
        w->end = be(w->keep + (w->keep[0] == 'w' ? 9 : 1), 8); /* XLogData, keepalive */
    else if (!w->from_primary && w->type == 'Q')
        query(w);
    else if (!w->from_primary && w->type == 'd' && w->kept >= 25 && w->keep[0] == 'r') {
        w->flushed = be(w->keep + 9, 8);
        w->applied = be(w->keep + 17, 8);
        w->news = true;
    }
}

void hf_walwatch_bytes(struct hf_walwatch *w, const uint8_t *p, size_t n)
{
    while (n > 0 && !w->broken) {
        unsigned head = w->started ? 5 : 4;
        size_t take;
        if (w->head_have < head) {
            w->head[w->head_have++] = *p++;
            n--;
            if (w->head_have < head)
                continue;
            w->type = w->started ? w->head[0] : 0;
            w->body_left = be(w->head + (head - 4), 4);
            w->kept = 0;
            if (w->body_left < 4 || (!w->started && w->body_left > STARTUP_MAX)) {
                w->broken = true;
                return;
            }
            w->body_left -= 4;
        }
        take = n < w->body_left ? n : (size_t)w->body_left;
        if (w->kept < sizeof w->keep) {
            size_t room = sizeof w->keep - w->kept;
            size_t m = take < room ? take : room;
            memcpy(w->keep + w->kept, p, m);
            w->kept += m;
        }
        p += take;
        n -= take;
        w->body_left -= take;
        if (w->body_left == 0) {
            message(w);
            w->head_have = 0;
        }
    }
}
