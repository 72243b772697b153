#include "router/wire.h"

#include <stdio.h>
#include <string.h>
#include <strings.h>

static uint32_t be32(const uint8_t *p)
{
    return (uint32_t)p[0] << 24 | (uint32_t)p[1] << 16 | (uint32_t)p[2] << 8 | p[3];
}

static void put32(uint8_t *p, uint32_t v)
{
    for (int i = 0; i < 4; i++)
        p[i] = (uint8_t)(v >> (24 - 8 * i));
}

static struct hf_startup bad(const char *sqlstate, const char *text)
{
    return (struct hf_startup){.kind = HF_STARTUP_BAD, .sqlstate = sqlstate, .text = text};
}

/* The value of `key`, or NULL. The packet ends with a NUL: checked by the caller. */
static const char *parameter(const uint8_t *p, size_t len, const char *key)
{
    const char *at = (const char *)p + 8, *end = (const char *)p + len;

    while (at < end && *at != '\0') {
        const char *value = memchr(at, '\0', (size_t)(end - at));
        const char *next;
        if (value == NULL || ++value >= end)
            return NULL;
        next = memchr(value, '\0', (size_t)(end - value));
        if (next == NULL)
            return NULL;
        if (strcmp(at, key) == 0)
            return value;
        at = next + 1;
    }
    return NULL;
}

static struct hf_startup session(const uint8_t *p, size_t len)
{
    const char *user, *replication;

    if (p[len - 1] != '\0')
        return bad("08P01", "invalid startup packet layout");
    user = parameter(p, len, "user");
    if (user == NULL || user[0] == '\0')
        return bad("28000", "no PostgreSQL user name specified in startup packet");
    if (strcmp(user, "holdfast") == 0)
        return bad("28000", "role \"holdfast\" belongs to Holdfast itself and cannot log in");
    replication = parameter(p, len, "replication");
    if (replication != NULL && strcasecmp(replication, "false") != 0 &&
        strcasecmp(replication, "off") != 0 && strcasecmp(replication, "no") != 0 &&
        strcmp(replication, "0") != 0)
        return bad("0A000", "replication connections are not carried by the router");
    return (struct hf_startup){.kind = HF_STARTUP_SESSION, .len = len};
}

struct hf_startup hf_startup_parse(const uint8_t *p, size_t n)
{
    struct hf_startup s = {.kind = HF_STARTUP_MORE};
    uint32_t len, code;

    if (n < 4)
        return s;
    len = be32(p);
    if (len < 8 || len > HF_STARTUP_MAX)
        return bad("08P01", "invalid length of startup packet");
    if (n < len)
        return s;
    code = be32(p + 4);
    s.len = len;
    if (code == 80877103 || code == 80877104) { /* SSLRequest, GSSENCRequest */
        s.kind = HF_STARTUP_TLS;
        return len == 8 ? s : bad("08P01", "invalid length of startup packet");
    }
    if (code == 80877102) { /* CancelRequest */
        if (len != 16)
            return bad("08P01", "invalid length of cancel request");
        s.kind = HF_STARTUP_CANCEL;
        s.pid = be32(p + 8);
        s.key = be32(p + 12);
        return s;
    }
    if (code >> 16 != 3)
        return bad("0A000", "unsupported frontend protocol: version 3 is needed");
    return session(p, len);
}

size_t hf_startup_read_only(uint8_t *p, size_t len, size_t cap)
{
    static const char setting[] = "-c default_transaction_read_only=on";
    const char *options = parameter(p, len, "options");
    size_t add, at;

    if (options != NULL) {
        add = sizeof setting; /* a space, and the text without its NUL */
        at = (size_t)(options - (const char *)p) + strlen(options);
    } else {
        add = sizeof "options" + sizeof setting;
        at = len - 1; /* before the final NUL */
    }
    if (len + add > cap)
        return 0;
    memmove(p + at + add, p + at, len - at);
    if (options != NULL) {
        p[at] = ' ';
        memcpy(p + at + 1, setting, sizeof setting - 1);
    } else {
        memcpy(p + at, "options", sizeof "options");
        memcpy(p + at + sizeof "options", setting, sizeof setting);
    }
    put32(p, (uint32_t)(len + add));
    return len + add;
}

size_t hf_wire_fatal(uint8_t *out, size_t cap, const char *sqlstate, const char *text,
                     const char *hint)
{
    int n;

    if (cap < 8)
        return 0;
    n = snprintf((char *)out + 5, cap - 5, "SFATAL%cVFATAL%cC%s%cM%s%c%s%s%c", 0, 0, sqlstate, 0,
                 text, 0, hint != NULL ? "H" : "", hint != NULL ? hint : "", 0);
    if (n < 0 || (size_t)n + 6 > cap)
        return 0;
    if (hint != NULL)
        out[5 + n++] = 0; /* the list's end; without a hint the last NUL is it */
    out[0] = 'E';
    put32(out + 1, (uint32_t)n + 4);
    return (size_t)n + 5;
}

static void message(struct hf_wire *w)
{
    static const char cancelled[] = "canceling wait for synchronous replication";

    w->ready = false;
    switch (w->head[0]) {
    case 'Z':
        if (w->kept == 1) {
            w->ready = true;
            w->status = w->keep[0];
        }
        break;
    case 'K':
        if (w->kept == 8) {
            w->key_known = true;
            w->pid = be32(w->keep);
            w->key = be32(w->keep + 4);
        }
        break;
    case 'N':
        if (memmem(w->keep, w->kept, cancelled, sizeof cancelled - 1) != NULL)
            w->wait_cancelled = true;
        break;
    default:
        break;
    }
}

void hf_wire_bytes(struct hf_wire *w, const uint8_t *p, size_t n)
{
    while (n > 0 && !w->broken) {
        size_t take;
        if (w->head_have < 5) {
            w->head[w->head_have++] = *p++;
            n--;
            w->ready = false;
            if (w->head_have < 5)
                continue;
            w->body_left = be32(w->head + 1);
            w->kept = 0;
            if (w->body_left < 4) {
                w->broken = true;
                return;
            }
            w->body_left -= 4;
        }
        take = n < w->body_left ? n : (size_t)w->body_left;
        if (w->kept < sizeof w->keep) {
            size_t room = sizeof w->keep - w->kept;
            memcpy(w->keep + w->kept, p, take < room ? take : room);
            w->kept += take < room ? take : room;
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
