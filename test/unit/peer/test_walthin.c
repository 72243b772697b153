/* What a standby says too often is left out, with the bytes cut at every place. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>
#include <cmocka.h>

#include "peer/walthin.h"

enum { STATUS = HF_WALTHIN_STATUS_BYTES };

static size_t put(uint8_t *at, uint64_t v, unsigned n)
{
    for (unsigned i = 0; i < n; i++)
        at[i] = (uint8_t)(v >> (8 * (n - 1 - i)));
    return n;
}

static size_t startup(uint8_t *out)
{
    static const char parameters[] = "user\0holdfast\0";
    size_t n = put(out, 8 + sizeof parameters, 4);

    n += put(out + n, 3 << 16, 4);
    memcpy(out + n, parameters, sizeof parameters);
    n += sizeof parameters;
    out[n++] = 'Q';
    n += put(out + n, 4 + 5, 4);
    memcpy(out + n, "START", 5);
    return n + 5;
}

static size_t status(uint8_t *out, uint64_t written, uint64_t flushed, uint64_t applied, uint8_t answer_me)
{
    size_t n = 0;

    out[n++] = 'd';
    n += put(out + n, STATUS - 1, 4);
    out[n++] = 'r';
    n += put(out + n, written, 8);
    n += put(out + n, flushed, 8);
    n += put(out + n, applied, 8);
    n += put(out + n, 0, 8);
    out[n++] = answer_me;
    return n;
}

static struct hf_walthin begun(void)
{
    struct hf_walthin t = {0};
    uint8_t bytes[64];
    size_t n = startup(bytes);

    assert_int_equal(hf_walthin_bytes(&t, bytes, n), n);
    assert_true(t.started);
    n = status(bytes, 100, 100, 100, 0);
    assert_int_equal(hf_walthin_bytes(&t, bytes, n), n);
    return t;
}

static void test_written_is_left_out(void **state)
{
    struct hf_walthin t = begun();
    uint8_t bytes[2 * STATUS];
    size_t n;

    (void)state;
    n = status(bytes, 200, 100, 100, 0);
    assert_int_equal(hf_walthin_bytes(&t, bytes, n), 0);
    n = status(bytes, 200, 200, 100, 0);
    assert_int_equal(hf_walthin_bytes(&t, bytes, n), n);
    /* Both in one piece: the second is kept, whole. */
    n = status(bytes, 300, 200, 100, 0);
    n += status(bytes + n, 300, 300, 250, 0);
    assert_int_equal(hf_walthin_bytes(&t, bytes, n), STATUS);
    assert_int_equal(bytes[0], 'd');
    assert_int_equal(bytes[6 + 7], 300 & 255);
    assert_int_equal(bytes[14 + 7], 300 & 255);
    assert_int_equal(t.flushed, 300);
}

static void test_asked_for_an_answer_passes(void **state)
{
    struct hf_walthin t = begun();
    uint8_t bytes[STATUS];
    size_t n = status(bytes, 200, 100, 100, 1);

    (void)state;
    assert_int_equal(hf_walthin_bytes(&t, bytes, n), n);
}

static void test_idle_status_passes(void **state)
{
    struct hf_walthin t = begun();
    uint8_t bytes[STATUS];
    size_t n = status(bytes, 100, 100, 100, 0);

    (void)state;
    assert_int_equal(hf_walthin_bytes(&t, bytes, n), n);
}

static void test_applied_waits_for_a_flush(void **state)
{
    struct hf_walthin t = begun();
    uint8_t bytes[STATUS], held[STATUS];
    size_t n = status(bytes, 100, 100, 110, 0);

    (void)state;
    assert_int_equal(hf_walthin_bytes(&t, bytes, n), 0);
    assert_true(t.holds);
    assert_int_equal(hf_walthin_held(&t, held), STATUS);
    assert_int_equal(held[22 + 7], 110);
    assert_int_equal(hf_walthin_held(&t, held), 0);
    n = status(bytes, 100, 100, 120, 0);
    assert_int_equal(hf_walthin_bytes(&t, bytes, n), 0);
    n = status(bytes, 200, 200, 130, 0); /* it travels with this one */
    assert_int_equal(hf_walthin_bytes(&t, bytes, n), n);
    assert_int_equal(hf_walthin_held(&t, held), 0);
}

static void test_held_never_cuts_a_message_in_two(void **state)
{
    struct hf_walthin t = begun();
    uint8_t bytes[STATUS], held[STATUS];
    size_t n = status(bytes, 100, 100, 110, 0);

    (void)state;
    assert_int_equal(hf_walthin_bytes(&t, bytes, n), 0);
    n = status(bytes, 200, 200, 200, 0);
    assert_int_equal(hf_walthin_bytes(&t, bytes, 3), 3);
    assert_int_equal(hf_walthin_held(&t, held), 0);
    assert_int_equal(hf_walthin_bytes(&t, bytes + 3, n - 3), n - 3);
    assert_int_equal(hf_walthin_held(&t, held), 0); /* older than what has passed by now */
}

/* In pieces everything may pass, but nothing may be torn, reordered or lost that is not a status. */
static void test_every_cut(void **state)
{
    uint8_t bytes[256], copy[256];
    size_t n = startup(bytes);

    (void)state;
    n += status(bytes + n, 100, 100, 100, 0);
    n += status(bytes + n, 200, 100, 100, 0);
    n += status(bytes + n, 200, 200, 100, 0);
    bytes[n++] = 'X';
    n += put(bytes + n, 4, 4);
    for (size_t cut = 0; cut <= n; cut++) {
        struct hf_walthin t = {0};
        size_t a, b;
        memcpy(copy, bytes, n);
        a = hf_walthin_bytes(&t, copy, cut);
        b = hf_walthin_bytes(&t, copy + cut, n - cut);
        memmove(copy + a, copy + cut, b);
        assert_false(t.broken);
        assert_true(a + b == n || a + b == n - STATUS);
        assert_int_equal(copy[a + b - 5], 'X');
        assert_memory_equal(copy, bytes, startup((uint8_t[64]){0}) + STATUS);
    }
}

static void test_no_such_protocol_passes(void **state)
{
    struct hf_walthin t = {0};
    uint8_t bytes[8] = {0, 0, 0, 1, 2, 3, 4, 5};

    (void)state;
    assert_int_equal(hf_walthin_bytes(&t, bytes, 8), 8);
    assert_true(t.broken);
    assert_int_equal(hf_walthin_bytes(&t, bytes, 8), 8);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_written_is_left_out),    cmocka_unit_test(test_asked_for_an_answer_passes),
        cmocka_unit_test(test_idle_status_passes),     cmocka_unit_test(test_applied_waits_for_a_flush),
        cmocka_unit_test(test_held_never_cuts_a_message_in_two),
        cmocka_unit_test(test_every_cut),              cmocka_unit_test(test_no_such_protocol_passes),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
