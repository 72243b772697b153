/* Verdicts about texts: what they cost, and where the grammar is not asked. */
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <setjmp.h>
#include <cmocka.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#include "holds/sql.h"

static struct hf_sql_cache *cache;
static size_t share;

static struct hf_sql *get(const char *text, size_t len, bool again)
{
    struct hf_sql *q = hf_sql_get(cache, &share, text, len, again);

    assert_non_null(q);
    return q;
}

/* What is left of the share goes on to the next. */
static bool is_understood(const char *text)
{
    struct hf_sql *q = get(text, strlen(text), false);
    bool yes = hf_sql_is_understood(q);

    hf_sql_unref(q);
    return yes;
}

static int open_cache(void **state)
{
    (void)state;
    share = HF_SQL_SHARE_BYTES;
    cache = hf_sql_cache_new(1 << 20);
    return cache != NULL ? 0 : -1;
}

static int close_cache(void **state)
{
    (void)state;
    hf_sql_cache_free(cache);
    return 0;
}

/* A hard text of `len` bytes that no other call has made. */
static const char *hard(size_t len)
{
    static char text[HF_SQL_TEXT_MAX];
    static unsigned n;
    size_t at = (size_t)sprintf(text, "SET a.b = '%u", n++);

    memset(text + at, 'x', len - 1 - at);
    memcpy(text + len - 1, "'", 2);
    return text;
}

static void long_texts(void **state)
{
    (void)state;
    assert_true(is_understood(hard(HF_SQL_PARSE_MAX)));
    share = 2 * HF_SQL_PARSE_MAX;
    assert_false(is_understood(hard(HF_SQL_PARSE_MAX + 1)));
}

/* One session cannot keep a thread in the grammar, nor can many. */
static void budget(void **state)
{
    char text[HF_SQL_PARSE_MAX + 1];
    unsigned n = 0;

    (void)state;
    (void)strcpy(text, hard(HF_SQL_PARSE_MAX));
    assert_true(is_understood(text));
    assert_false(is_understood("SET a.c = 1"));
    assert_true(is_understood("SELECT a FROM t")); /* without the grammar */
    assert_true(is_understood(text));              /* known already */
    share = HF_SQL_SHARE_BYTES;
    assert_true(is_understood("SET a.c = 1")); /* that it was not was not kept */
    while (n < 1000 && is_understood(hard(40)))
        n++;
    assert_in_range(n, 10, HF_SQL_SHARE_BYTES / 40);
    hf_sql_cache_turn(cache);
    for (unsigned i = 0; i < HF_SQL_TURN_BYTES / HF_SQL_SHARE_BYTES; i++) {
        share = HF_SQL_SHARE_BYTES;
        assert_true(is_understood(hard(HF_SQL_PARSE_MAX)));
    }
    share = HF_SQL_SHARE_BYTES;
    assert_false(is_understood("SET a.d = 1"));
    hf_sql_cache_turn(cache);
    assert_true(is_understood("SET a.d = 1"));
}

static void many_statements(void **state)
{
    static char text[HF_SQL_TEXT_MAX + 1];
    struct hf_sql *q;

    (void)state;
    for (size_t i = 0; i + 4 < sizeof text; i += 4)
        memcpy(text + i, "end;", 5);
    q = get(text, (size_t)HF_SQL_STATEMENTS_MAX * 4, false);
    assert_true(hf_sql_is_understood(q));
    assert_int_equal(hf_sql_count(q), HF_SQL_STATEMENTS_MAX);
    hf_sql_unref(q);
    q = get(text, HF_SQL_TEXT_MAX, false);
    assert_false(hf_sql_is_understood(q));
    assert_in_range(hf_sql_bytes(q), 1, 4096); /* the text is not wanted */
    hf_sql_unref(q);
}

/* -- nesting ----------------------------------------------------------------------------------- */

enum { STACK = 8 << 20, STACK_PLENTY = 1 << 20 };

static char nested[HF_SQL_PARSE_MAX + 1];

static void *look_at_nested(void *arg)
{
    hf_sql_unref(get(nested, strlen(nested), false));
    return arg;
}

/* A sanitizer has put fences into it. */
__attribute__((no_sanitize("address"))) static size_t bytes_clean(const char *stack)
{
    size_t n = 0;

    while (n < STACK && stack[n] == (char)0xa5)
        n++;
    return n;
}

/* Bytes of stack that a thread needs for what is in `nested`. */
static size_t stack_used(void)
{
    char *stack = mmap(NULL, STACK, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    pthread_attr_t attr;
    pthread_t thread;
    size_t clean;

    assert_true(stack != MAP_FAILED);
    memset(stack, 0xa5, STACK);
    assert_int_equal(pthread_attr_init(&attr), 0);
    assert_int_equal(pthread_attr_setstack(&attr, stack, STACK), 0);
    assert_int_equal(pthread_create(&thread, &attr, look_at_nested, NULL), 0);
    assert_int_equal(pthread_join(thread, NULL), 0);
    (void)pthread_attr_destroy(&attr);
    clean = bytes_clean(stack);
    assert_int_equal(munmap(stack, STACK), 0);
    return STACK - clean;
}

static size_t put(size_t at, const char *text)
{
    size_t n = strlen(text);

    memcpy(nested + at, text, n + 1);
    return at + n;
}

/* The deepest that a text of the length can nest, each way there is. */
static void nesting(void **state)
{
    static const struct {
        const char *first, *open, *middle, *close, *last;
    } ways[] = {
        {"SET x=1;select ", "(", "1", ")", ""},
        {"SET x=1;select ", "- ", "a", "", ""},
        {"SET x=1;select ", "@ ", "a", "", ""},
        {"SET x=1;select ", "not ", "a", "", ""},
        {"SET x=1;select array", "[", "1", "]", ""},
        {"SET x=1;select ", "a[", "1", "]", ""},
        {"SET x=1;select 1", "+1", "", "", ""},
        {"SET x=1;select 1", "^1", "", "", ""},
        {"SET x=1;select a", "::b", "", "", ""},
        {"SET x=1;select a", " isnull", "", "", ""},
        {"SET x=1;select a", " collate b", "", "", ""},
        {"SET x=1;select ", "case when ", "1", " then 1 end", ""},
        {"SET x=1;select ", "f(", "1", ")", ""},
        {"SET x=1;select ", "row(", "1", ")", ""},
        {"SET x=1;select ", "x=any(", "1", ")", ""},
        {"SET x=1;select ", "exists(select ", "1", ")", ""},
        {"SET x=1;", "(select ", "1", ")", ""},
        {"SET x=1;select 1", " union select 1", "", "", ""},
        {"SET x=1;select 1 from a", " join b on c", "", "", ""},
        {"SET x=1;select 1 from ", "(a join ", "b", " on c)", " on d"},
        {"with a as (", "with a as (", "select set_config", ") select 1", ") select 1"},
        {"explain ", "explain ", "select 1", "", ""},
        {"/*", "/*", "", "*/", "*/SET x=1"},
    };

    (void)state;
    for (size_t i = 0; i < sizeof ways / sizeof *ways; i++) {
        size_t outside = strlen(ways[i].first) + strlen(ways[i].middle) + strlen(ways[i].last), at,
               each = strlen(ways[i].open) + strlen(ways[i].close), used;
        unsigned levels = (unsigned)((HF_SQL_PARSE_MAX - outside) / each);
        at = put(0, ways[i].first);
        for (unsigned k = 0; k < levels; k++)
            at = put(at, ways[i].open);
        at = put(at, ways[i].middle);
        for (unsigned k = 0; k < levels; k++)
            at = put(at, ways[i].close);
        (void)put(at, ways[i].last);
        hf_sql_cache_turn(cache);
        share = HF_SQL_SHARE_BYTES;
        used = stack_used();
        if (used > STACK_PLENTY)
            fail_msg("%.40s...: %zu KB of stack", nested, used >> 10);
    }
}

/* -- the hash ---------------------------------------------------------------------------------- */

/* Texts that meet in one table do not meet in another, so nobody can choose them. */
static void keyed(void **state)
{
    struct hf_sql_cache *other = hf_sql_cache_new(1 << 20);
    unsigned met = 0, both = 0;

    (void)state;
    assert_non_null(other);
    for (unsigned i = 0; met < 200; i++) {
        char text[16];
        size_t len = (size_t)sprintf(text, "--%x", i);
        assert_int_equal(hf_sql_cache_hash(cache, text, len), hf_sql_cache_hash(cache, text, len));
        if (hf_sql_cache_hash(cache, text, len) % 256 != 7)
            continue;
        met++;
        both += hf_sql_cache_hash(other, text, len) % 256 == 7;
    }
    assert_in_range(both, 0, 20);
    hf_sql_cache_free(other);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(long_texts, open_cache, close_cache),
        cmocka_unit_test_setup_teardown(budget, open_cache, close_cache),
        cmocka_unit_test_setup_teardown(many_statements, open_cache, close_cache),
        cmocka_unit_test_setup_teardown(nesting, open_cache, close_cache),
        cmocka_unit_test_setup_teardown(keyed, open_cache, close_cache),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
