#include "router/wire.h"

#include <stdio.h>
#include <string.h>
#include <strings.h>

#include "base/scan.h"

enum { CODE_CANCEL = 80877102, CODE_SSL = 80877103, CODE_GSSENC = 80877104, CODE_ASK = 80878424 };

static struct hf_startup bad(const char *sqlstate, const char *text, const char *hint)
{
    return (struct hf_startup){
        .kind = HF_STARTUP_BAD, .sqlstate = sqlstate, .text = text, .hint = hint};
}

static bool is_false(const char *value)
{
    return strcasecmp(value, "false") == 0 || strcasecmp(value, "off") == 0 ||
           strcasecmp(value, "no") == 0 || strcmp(value, "0") == 0;
}

/* Every pair is looked at, since PostgreSQL takes the last of those with one name: a second "user"
 * must not get past the check of the first. */
static struct hf_startup session(const uint8_t *p, size_t len)
{
    const char *key, *value, *user = NULL;
    size_t at = 8;

    if (len < 9 || p[len - 1] != '\0')
        return bad("08P01", "invalid startup packet layout: expected terminator as last byte",
                   NULL);
    while (hf_startup_pair(p, len, &at, &key, &value)) {
        if (strcmp(key, "user") == 0) {
            user = value;
            if (strcmp(value, "holdfast") == 0)
                return bad(
                    "28000", "role \"holdfast\" belongs to Holdfast itself and cannot log in",
                    "Use the application's or the administrator's role: see \"holdfast uri\".");
        } else if (strcmp(key, "replication") == 0 && !is_false(value)) {
            return bad("0A000", "replication connections are not carried by the router",
                       "Holdfast replicates between its own nodes.");
        }
    }
    if (at != len - 1)
        return bad("08P01", "invalid startup packet layout: expected terminator as last byte",
                   NULL);
    if (user == NULL || user[0] == '\0')
        return bad("28000", "no PostgreSQL user name specified in startup packet", NULL);
    return (struct hf_startup){.kind = HF_STARTUP_SESSION, .len = len};
}

const char *hf_startup_value(const uint8_t *p, size_t len, const char *name)
{
    const char *key, *value, *found = NULL;
    size_t at = 8;

    while (hf_startup_pair(p, len, &at, &key, &value))
        if (strcmp(key, name) == 0)
            found = value;
    return found;
}

size_t hf_startup_need(const uint8_t *p, size_t n)
{
    size_t len;

    if (n < 4)
        return 4;
    len = hf_scan_number(p);
    return len >= 8 && len <= HF_STARTUP_MAX ? len : n;
}

struct hf_startup hf_startup_parse(const uint8_t *p, size_t n)
{
    struct hf_startup s = {.kind = HF_STARTUP_MORE};
    uint32_t len, code;

    if (n < 4)
        return s;
    len = hf_scan_number(p);
    if (len < 8 || len > HF_STARTUP_MAX)
        return bad("08P01", "invalid length of startup packet", NULL);
    if (n < len)
        return s;
    code = hf_scan_number(p + 4);
    s.len = len;
    if (code == CODE_SSL || code == CODE_GSSENC) {
        s.kind = code == CODE_SSL ? HF_STARTUP_TLS : HF_STARTUP_GSS;
        return len == 8 ? s : bad("08P01", "invalid length of startup packet", NULL);
    }
    if (code == CODE_CANCEL) {
        if (len < 12 + HF_CANCEL_KEY_MIN || len > 12 + HF_CANCEL_KEY_MAX)
            return bad("08P01", "invalid length of cancel request", NULL);
        s.kind = HF_STARTUP_CANCEL;
        s.pid = hf_scan_number(p + 8);
        s.key = p + 12;
        s.key_len = len - 12;
        return s;
    }
    if (code == CODE_ASK) {
        if (p[len - 1] != '\0' || len < 10 || memchr(p + 8, '\0', len - 8) != p + len - 1)
            return bad("08P01", "invalid question about a role", NULL);
        s.kind = HF_STARTUP_ASK;
        s.key = p + 8;
        s.key_len = len - 8;
        return s;
    }
    if (code >> 16 != 3)
        return bad("0A000", "unsupported frontend protocol: version 3 is needed", NULL);
    return session(p, len);
}

/* Behind all that the client has said, since PostgreSQL takes the last of those with one name, and these after `options`. */
size_t hf_startup_read_only(uint8_t *p, size_t len, size_t cap)
{
    static const char settings[] = "default_transaction_read_only\0on\0holdfast.read_only\0on"; /* with a NUL of its own */
    size_t add = sizeof settings;

    if (len + add > cap || len + add > HF_STARTUP_MAX)
        return 0;
    memcpy(p + len - 1, settings, add);
    p[len + add - 1] = '\0';
    hf_scan_put(p, (uint32_t)(len + add));
    return len + add;
}

size_t hf_wire_cancel(uint8_t *out, uint32_t pid, const uint8_t *key, size_t n)
{
    hf_scan_put(out, (uint32_t)(12 + n));
    hf_scan_put(out + 4, CODE_CANCEL);
    hf_scan_put(out + 8, pid);
    memcpy(out + 12, key, n);
    return 12 + n;
}

/* -- between nodes --------------------------------------------------------------------------- */

size_t hf_wire_ask(uint8_t *out, const char *role)
{
    size_t n = strlen(role) + 1;

    hf_scan_put(out, (uint32_t)(8 + n));
    hf_scan_put(out + 4, CODE_ASK);
    memcpy(out + 8, role, n);
    return 8 + n;
}

enum { ANSWER_HEAD = 18 };

size_t hf_wire_answer(uint8_t *out, char kind, uint32_t server_version, uint64_t stamp, const char *verifier)
{
    size_t n = strlen(verifier) + 1;

    out[0] = 'V';
    hf_scan_put(out + 1, (uint32_t)(ANSWER_HEAD - 1 + n));
    out[5] = (uint8_t)kind;
    hf_scan_put(out + 6, server_version);
    hf_scan_put(out + 10, (uint32_t)(stamp >> 32));
    hf_scan_put(out + 14, (uint32_t)stamp);
    memcpy(out + ANSWER_HEAD, verifier, n);
    return ANSWER_HEAD + n;
}

bool hf_wire_answer_parse(const uint8_t *p, size_t n, char *kind, uint32_t *server_version, uint64_t *stamp, char *verifier, size_t cap)
{
    if (n <= ANSWER_HEAD || p[0] != 'V' || n - ANSWER_HEAD > cap || memchr(p + ANSWER_HEAD, '\0', n - ANSWER_HEAD) != p + n - 1)
        return false;
    *kind = (char)p[5];
    *server_version = hf_scan_number(p + 6);
    *stamp = (uint64_t)hf_scan_number(p + 10) << 32 | hf_scan_number(p + 14);
    memcpy(verifier, p + ANSWER_HEAD, n - ANSWER_HEAD);
    return true;
}

size_t hf_wire_taken(uint8_t out[HF_WIRE_TAKEN_BYTES], uint64_t taken)
{
    out[0] = HF_WIRE_TAKEN;
    hf_scan_put(out + 1, HF_WIRE_TAKEN_BYTES - 1);
    hf_scan_put(out + 5, (uint32_t)(taken >> 32));
    hf_scan_put(out + 9, (uint32_t)taken);
    return HF_WIRE_TAKEN_BYTES;
}

bool hf_wire_taken_parse(const uint8_t *body, size_t n, uint64_t *taken)
{
    if (n != HF_WIRE_TAKEN_BYTES - 5)
        return false;
    *taken = (uint64_t)hf_scan_number(body) << 32 | hf_scan_number(body + 4);
    return true;
}

/* -- messages -------------------------------------------------------------------------------- */

size_t hf_wire_length(const uint8_t *head)
{
    return 1 + (size_t)hf_scan_number(head + 1);
}

bool hf_wire_sqlstate(const uint8_t *body, size_t n, char out[6])
{
    while (n > 0 && body[0] != '\0') {
        const uint8_t *end = memchr(body, '\0', n);
        if (end == NULL)
            return false;
        if (body[0] == 'C' && end - body == 6) {
            memcpy(out, body + 1, 6);
            return true;
        }
        n -= (size_t)(end - body) + 1;
        body = end + 1;
    }
    return false;
}

size_t hf_wire_negotiate(uint8_t *out, const uint8_t *p, size_t len, uint32_t newest)
{
    const char *key, *value;
    uint32_t minor = hf_scan_number(p + 4) & 0xffff, options = 0;
    size_t at = 8, n = 13;

    while (hf_startup_pair(p, len, &at, &key, &value)) {
        if (strncmp(key, "_pq_.", 5) != 0)
            continue;
        options++;
        memcpy(out + n, key, strlen(key) + 1);
        n += strlen(key) + 1;
    }
    if (minor <= newest && options == 0)
        return 0;
    out[0] = 'v';
    hf_scan_put(out + 1, (uint32_t)(n - 1));
    hf_scan_put(out + 5, (uint32_t)3 << 16 | (minor < newest ? minor : newest));
    hf_scan_put(out + 9, options);
    return n;
}

/* Appends a field with its NUL; *at becomes `cap` + 1 if it does not fit. */
static void field(uint8_t *out, size_t cap, size_t *at, char type, const char *value)
{
    size_t n = strlen(value) + 1;

    if (*at > cap || cap - *at < n + 1) {
        *at = cap + 1;
        return;
    }
    out[(*at)++] = (uint8_t)type;
    memcpy(out + *at, value, n);
    *at += n;
}

size_t hf_wire_error(uint8_t *out, size_t cap, const char *severity, const char *sqlstate, const char *text, const char *detail,
                     const char *hint)
{
    size_t at = 5;

    if (cap < 6)
        return 0;
    field(out, cap, &at, 'S', severity);
    field(out, cap, &at, 'V', severity);
    field(out, cap, &at, 'C', sqlstate);
    field(out, cap, &at, 'M', text);
    if (detail != NULL)
        field(out, cap, &at, 'D', detail);
    if (hint != NULL)
        field(out, cap, &at, 'H', hint);
    if (at >= cap)
        return 0;
    out[at++] = '\0';
    out[0] = 'E';
    hf_scan_put(out + 1, (uint32_t)at - 1);
    return at;
}

size_t hf_wire_fatal(uint8_t *out, size_t cap, const char *sqlstate, const char *text,
                     const char *hint)
{
    return hf_wire_error(out, cap, "FATAL", sqlstate, text, NULL, hint);
}

void hf_wire_printable(char *text)
{
    for (; *text != '\0'; text++)
        if ((unsigned char)*text < ' ' || *text == 0x7f)
            *text = '?';
}
