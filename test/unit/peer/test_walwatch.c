/* The reader of replication streams, with the bytes cut at every place. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>
#include <cmocka.h>

#include "peer/walwatch.h"

static size_t put(uint8_t *at, uint64_t v, unsigned n)
{
    for (unsigned i = 0; i < n; i++)
        at[i] = (uint8_t)(v >> (8 * (n - 1 - i)));
    return n;
}

static size_t query(uint8_t *out, const char *text, size_t len)
{
    size_t n = 1;

    out[0] = 'Q';
    n += put(out + n, 4 + len, 4);
    memcpy(out + n, text, len);
    return n + len;
}

static size_t standby(uint8_t *out)
{
    static const char start[] = "START_REPLICATION SLOT \"demo_1\" 0/300000 TIMELINE 12";
    static const char parameters[] = "user\0holdfast\0application_name\0demo-1_0a0b0c0d\0";
    size_t n = 0;

    n += put(out + n, 8 + sizeof parameters, 4); /* with the NUL that ends the list */
    n += put(out + n, 3 << 16, 4);
    memcpy(out + n, parameters, sizeof parameters);
    n += sizeof parameters;
    n += query(out + n, "IDENTIFY_SYSTEM", sizeof "IDENTIFY_SYSTEM");
    n += query(out + n, start, sizeof start);
    out[n++] = 'd';
    n += put(out + n, 4 + 34, 4);
    out[n++] = 'r';
    n += put(out + n, 0x300, 8);
    n += put(out + n, 0x200, 8);
    n += put(out + n, 0x100, 8);
    n += put(out + n, 0, 8);
    out[n++] = 0;
    return n;
}

static void test_standby_status(void **state)
{
    uint8_t bytes[512];
    size_t n = standby(bytes);

    (void)state;
    for (size_t cut = 0; cut <= n; cut++) {
        struct hf_walwatch w;
        hf_walwatch_init(&w, false);
        hf_walwatch_bytes(&w, bytes, cut);
        hf_walwatch_bytes(&w, bytes + cut, n - cut);
        assert_true(w.named && w.news && !w.broken);
        assert_string_equal(w.application_name, "demo-1_0a0b0c0d");
        assert_int_equal(w.flushed, 0x200);
        assert_int_equal(w.applied, 0x100);
        assert_int_equal(w.timeline, 12);
        assert_int_equal(w.first, 0x300000);
    }
}

/* It goes on along the next timeline: what it said on the one before is no word about this one. */
static void test_the_next_timeline(void **state)
{
    static const char next[] = "START_REPLICATION 0/200000 TIMELINE 13", other[] = "TIMELINE_HISTORY 13";
    uint8_t bytes[512];
    struct hf_walwatch w;

    (void)state;
    hf_walwatch_init(&w, false);
    hf_walwatch_bytes(&w, bytes, standby(bytes));
    hf_walwatch_bytes(&w, bytes, query(bytes, other, sizeof other));
    assert_true(w.news && w.timeline == 12 && w.flushed == 0x200);
    hf_walwatch_bytes(&w, bytes, query(bytes, next, sizeof next));
    assert_true(w.news && w.timeline == 13 && w.first == 0x300000 && w.flushed == 0 && w.applied == 0);
}

static void test_wal_missing(void **state)
{
    static const char fields[] = "SERROR\0C58P01\0Mrequested WAL segment has already been removed\0";
    uint8_t bytes[256] = {'E'};
    size_t n = 1 + put(bytes + 1, 4 + sizeof fields, 4);

    (void)state;
    memcpy(bytes + n, fields, sizeof fields);
    n += sizeof fields;
    for (size_t cut = 0; cut <= n; cut++) {
        struct hf_walwatch w;
        hf_walwatch_init(&w, true);
        hf_walwatch_bytes(&w, bytes, cut);
        hf_walwatch_bytes(&w, bytes + cut, n - cut);
        assert_true(w.wal_missing);
    }
}

static void test_hostile_bytes(void **state)
{
    struct hf_walwatch w;
    uint8_t zeros[64] = {0}, ones[4096];

    (void)state;
    hf_walwatch_init(&w, false);
    hf_walwatch_bytes(&w, zeros, sizeof zeros);
    assert_true(w.broken);
    memset(ones, 0xff, sizeof ones);
    hf_walwatch_init(&w, true);
    for (int i = 0; i < 64; i++)
        hf_walwatch_bytes(&w, ones, sizeof ones); /* a message of 4 GB: passed over, not kept */
    assert_false(w.wal_missing || w.news);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_standby_status),
        cmocka_unit_test(test_the_next_timeline),
        cmocka_unit_test(test_wal_missing),
        cmocka_unit_test(test_hostile_bytes),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
