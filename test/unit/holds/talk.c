#include "talk.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static uint32_t be32(const uint8_t *p)
{
    return (uint32_t)p[0] << 24 | (uint32_t)p[1] << 16 | (uint32_t)p[2] << 8 | p[3];
}

static void begin(struct talk *t, const char *code, bool alone)
{
    static const uint8_t packet[] = "\0\0\0\x13\0\3\0\0user\0me\0";

    *t = (struct talk){.cache = hf_sql_cache_new(1 << 20)};
    t->h = hf_holds_new(t->cache, packet, sizeof packet);
    t->cut = alone ? NULL : hf_holds_new(t->cache, packet, sizeof packet);
    assert_non_null(t->h);
    assert_by(t, HF_HOLD_START);
    s_parameter(t, "standard_conforming_strings", "on");
    s_parameter(t, "client_encoding", "UTF8");
    s_ready(t, 'I');
    if (code != NULL) {
        assert_int_equal(hf_code_read(&t->code, code, strlen(code)), 0);
        hf_holds_set_code(t->h, t->code);
        if (!alone)
            hf_holds_set_code(t->cut, t->code);
    }
    assert_free(t);
}

void talk_begin(struct talk *t, const char *code)
{
    begin(t, code, false);
}

void talk_begin_alone(struct talk *t)
{
    begin(t, QUIET, true);
}

void talk_end(struct talk *t)
{
    hf_holds_free(t->h);
    hf_holds_free(t->cut);
    hf_code_free(t->code);
    hf_sql_cache_free(t->cache);
}

/* -- messages ---------------------------------------------------------------------------------- */

static void same(const struct talk *t)
{
    struct talk other = *t;
    char *a, *b;

    assert_int_equal(hf_holds_by(t->h), hf_holds_by(t->cut));
    assert_int_equal(hf_holds_pins(t->h), hf_holds_pins(t->cut));
    assert_int_equal(hf_holds_doing(t->h), hf_holds_doing(t->cut));
    assert_int_equal(hf_holds_wants_probe(t->h), hf_holds_wants_probe(t->cut));
    other.h = t->cut;
    a = talk_remake(t);
    b = talk_remake(&other);
    assert_string_equal(a, b);
    free(a);
    free(b);
}

void talk_message(struct talk *t, bool client, char type, const void *body, size_t len)
{
    uint8_t *m = malloc(len + 5);

    assert_non_null(m);
    m[0] = (uint8_t)type;
    for (unsigned i = 0; i < 4; i++)
        m[1 + i] = (uint8_t)((len + 4) >> (24 - 8 * i));
    if (len > 0)
        memcpy(m + 5, body, len);
    hf_sql_cache_turn(t->cache);
    if (client)
        hf_holds_client(t->h, m, len + 5);
    else
        hf_holds_server(t->h, m, len + 5);
    for (size_t i = 0; i < len + 5 && t->cut != NULL; i++) {
        if (client)
            hf_holds_client(t->cut, m + i, 1);
        else
            hf_holds_server(t->cut, m + i, 1);
    }
    free(m);
    if (t->cut != NULL)
        same(t);
}

/* Strings, each with its NUL, and bytes behind them. */
static void strings(struct talk *t, bool client, char type, const char *a, const char *b,
                    const void *rest, size_t n)
{
    uint8_t body[4096];
    size_t len = strlen(a) + 1;

    memcpy(body, a, len);
    if (b != NULL) {
        memcpy(body + len, b, strlen(b) + 1);
        len += strlen(b) + 1;
    }
    if (n > 0)
        memcpy(body + len, rest, n);
    talk_message(t, client, type, body, len + n);
}

void c_query(struct talk *t, const char *text)
{
    talk_message(t, true, 'Q', text, strlen(text) + 1);
}

void c_parse(struct talk *t, const char *name, const char *text)
{
    strings(t, true, 'P', name, text, "\0\1\0\0\0\x17", 6);
}

void c_bind(struct talk *t, const char *portal, const char *statement)
{
    strings(t, true, 'B', portal, statement, "\0\0\0\0\0\0", 6);
}

static void kind_and_name(struct talk *t, char type, char kind, const char *name)
{
    char body[256];
    int n = snprintf(body, sizeof body, "%c%s", kind, name);

    talk_message(t, true, type, body, (size_t)n + 1);
}

void c_describe(struct talk *t, char kind, const char *name)
{
    kind_and_name(t, 'D', kind, name);
}

void c_execute(struct talk *t, const char *portal)
{
    strings(t, true, 'E', portal, NULL, "\0\0\0\0", 4);
}

void c_close(struct talk *t, char kind, const char *name)
{
    kind_and_name(t, 'C', kind, name);
}

void c_plain(struct talk *t, char type)
{
    talk_message(t, true, type, NULL, 0);
}

void c_sync(struct talk *t)
{
    c_plain(t, 'S');
}

void s_complete(struct talk *t, const char *tag)
{
    talk_message(t, false, 'C', tag, strlen(tag) + 1);
}

void s_ready(struct talk *t, char status)
{
    talk_message(t, false, 'Z', &status, 1);
}

void s_error(struct talk *t, const char *sqlstate)
{
    char body[64];
    int n = snprintf(body, sizeof body, "SERROR%cC%s%cMwrong%c", 0, sqlstate, 0, 0);

    talk_message(t, false, 'E', body, (size_t)n + 1);
}

void s_parameter(struct talk *t, const char *name, const char *value)
{
    strings(t, false, 'S', name, value, NULL, 0);
}

void s_row(struct talk *t, const char *value)
{
    uint8_t body[256] = {0, 1, 0, 0, 0, (uint8_t)strlen(value)};

    memcpy(body + 6, value, strlen(value));
    talk_message(t, false, 'D', body, 6 + strlen(value));
}

void s_plain(struct talk *t, char type)
{
    talk_message(t, false, type, NULL, 0);
}

void ran(struct talk *t, const char *text, const char *tag, char status)
{
    c_query(t, text);
    s_complete(t, tag);
    s_ready(t, status);
}

void failed(struct talk *t, const char *text, const char *sqlstate, char status)
{
    c_query(t, text);
    s_error(t, sqlstate);
    s_ready(t, status);
}

/* -- what makes it again -------------------------------------------------------------------------
 */

char *talk_remake(const struct talk *t)
{
    uint8_t *bytes;
    size_t len, out_len;
    unsigned steps, seen = 0;
    char *out;
    FILE *f = open_memstream(&out, &out_len);

    assert_non_null(f);
    assert_int_equal(hf_holds_remake(t->h, &bytes, &len, &steps), 0);
    for (size_t at = 0; at < len;) {
        size_t n = be32(bytes + at + 1);
        const char *name = (const char *)bytes + at + 5;
        assert_true(at + 1 + n <= len);
        if (bytes[at] == 'P' && name[0] != '\0')
            (void)fprintf(f, "%s: ", name);
        if (bytes[at] == 'P')
            (void)fprintf(f, "%s\n", name + strlen(name) + 1);
        seen += bytes[at] == 'S';
        at += 1 + n;
    }
    assert_int_equal(seen, steps);
    (void)fclose(f);
    free(bytes);
    return out;
}
