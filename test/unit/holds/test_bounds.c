/* What one session may cost: memory, and time on a thread that carries others. */
#include "talk.h"

#include <malloc.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

enum { MANY = 16000, PLENTY_MS = 1000 /* each takes a tenth of it at most; what was quadratic took seconds */ };

static uint64_t cpu_ms(void)
{
    struct timespec t;

    (void)clock_gettime(CLOCK_THREAD_CPUTIME_ID, &t);
    return (uint64_t)t.tv_sec * 1000 + (uint64_t)t.tv_nsec / 1000000;
}

/* Builds with a sanitizer are slower, and whoever runs them says so. */
static void assert_quick(uint64_t begun_ms)
{
    const char *patience = getenv("HOLDFAST_TEST_PATIENCE");
    uint64_t ms = cpu_ms() - begun_ms;

    if (getenv("SHOW") != NULL)
        print_message("%u ms\n", (unsigned)ms);
    assert_in_range(ms, 0, PLENTY_MS * (patience != NULL ? (uint64_t)atoi(patience) : 1));
}

/* Of the whole program; 0 under a sanitizer, which does not tell. */
static size_t memory(void)
{
    struct mallinfo2 m = mallinfo2();

    return m.uordblks + m.hblkhd;
}

/* Nothing is kept, nothing is followed, nothing helps. */
static void assert_too_much(struct talk *t)
{
    uint8_t *bytes;
    size_t len;
    unsigned steps;

    assert_by(t, HF_HOLD_TOO_MUCH);
    assert_int_equal(hf_holds_pins(t->h), HF_HOLD_BIT(HF_HOLD_TOO_MUCH));
    assert_in_range(hf_holds_bytes(t->h), 1, 1024);
    assert_true(hf_holds_in_transaction(t->h));
    assert_false(hf_holds_may_survive(t->h));
    ran(t, "DISCARD ALL", "DISCARD ALL", 'I');
    hf_holds_lost(t->h);
    hf_holds_started(t->h, false);
    assert_by(t, HF_HOLD_TOO_MUCH);
    assert_doing(t, HF_DOING_COMMIT);
    assert_null(hf_holds_startup(t->h, &len));
    assert_int_equal(hf_holds_remake(t->h, &bytes, &len, &steps), 0);
    assert_int_equal(steps, 0);
    assert_in_range(hf_holds_bytes(t->h), 1, 1024);
}

/* -- settings ---------------------------------------------------------------------------------- */

/* As many as fit into a text that the grammar takes. Returns how many. */
static unsigned set_some(struct talk *t, unsigned first, char status)
{
    char text[HF_SQL_PARSE_MAX + 1];
    unsigned n = 0;

    for (size_t at = 0; at + 24 < sizeof text; n++)
        at += (size_t)snprintf(text + at, sizeof text - at, "SET a.b%u=1;", first + n);
    c_query(t, text);
    for (unsigned i = 0; i < n; i++)
        s_complete(t, "SET");
    s_ready(t, status);
    return n;
}

static void many_settings(void **state)
{
    struct talk t;
    uint64_t begun = cpu_ms();
    unsigned n = 0;

    (void)state;
    talk_begin_alone(&t);
    while (n < 3 * MANY && hf_holds_by(t.h) == HF_HOLD_NOTHING)
        n += set_some(&t, n, 'I');
    assert_in_range(n, 2000, MANY);
    for (unsigned i = 0; i < 1000; i++)
        (void)set_some(&t, n, 'I');
    assert_quick(begun);
    assert_too_much(&t);
    talk_end(&t);
}

/* In a transaction, under savepoints, released from the last to the first, which all keep what was set since. */
static void many_savepoints(void **state)
{
    struct talk t;
    uint64_t begun;
    char text[64];

    (void)state;
    talk_begin_alone(&t);
    ran(&t, "BEGIN", "BEGIN", 'T');
    for (unsigned i = 0; i < 3000; i++) {
        (void)snprintf(text, sizeof text, "SAVEPOINT s%u", i);
        ran(&t, text, "SAVEPOINT", 'T');
    }
    (void)set_some(&t, 0, 'T');
    for (unsigned i = 0; i < 3000; i++)
        ran(&t, "SET LOCAL search_path = x", "SET", 'T');
    begun = cpu_ms();
    for (unsigned i = 3000; i-- > 0;) {
        (void)snprintf(text, sizeof text, "RELEASE s%u", i);
        ran(&t, text, "RELEASE", 'T');
        c_parse(&t, "", "SELECT 1"); /* asks the journal each time: prepared under a setting of the transaction */
        c_sync(&t);
        s_plain(&t, '1');
        s_ready(&t, 'T');
    }
    assert_quick(begun);
    ran(&t, "RELEASE s0", "RELEASE", 'T'); /* of something that was not understood */
    assert_true((hf_holds_pins(t.h) & HF_HOLD_BIT(HF_HOLD_UNKNOWN)) != 0);
    talk_end(&t);
}

/* Who makes the same one again and again, and releases none (pgjdbc's autosave), costs nothing; each is there all the same. */
static void one_savepoint(void **state)
{
    struct talk t;

    (void)state;
    talk_begin_alone(&t);
    for (unsigned k = 0; k < 2; k++) {
        ran(&t, "BEGIN", "BEGIN", 'T');
        ran(&t, "SAVEPOINT b", "SAVEPOINT", 'T');
        for (unsigned i = 0; i < MANY + 4000; i++)
            ran(&t, "SAVEPOINT PGJDBC_AUTOSAVE", "SAVEPOINT", 'T');
        assert_by(&t, HF_HOLD_TRANSACTION);
        for (unsigned i = 0; i < MANY + 4000; i++) {
            ran(&t, "ROLLBACK TO PGJDBC_AUTOSAVE", "ROLLBACK", 'T'); /* it stays */
            ran(&t, "RELEASE PGJDBC_AUTOSAVE", "RELEASE", 'T');
        }
        ran(&t, "RELEASE b", "RELEASE", 'T');
        if (k == 1) { /* one more than were made */
            ran(&t, "RELEASE b", "RELEASE", 'T');
            assert_true((hf_holds_pins(t.h) & HF_HOLD_BIT(HF_HOLD_UNKNOWN)) != 0);
            continue;
        }
        ran(&t, "COMMIT", "COMMIT", 'I');
        assert_free(&t);
    }
    talk_end(&t);
}

/* A setting that no statement needs any more goes, though not at once. */
static void settings_that_are_not_needed(void **state)
{
    struct talk t;
    char text[64];

    (void)state;
    talk_begin_alone(&t);
    for (unsigned i = 0; i < MANY; i++) {
        (void)snprintf(text, sizeof text, "SET search_path = s%u", i);
        ran(&t, "PREPARE p AS SELECT 1", "PREPARE", 'I');
        ran(&t, text, "SET", 'I');
        ran(&t, "DEALLOCATE p", "DEALLOCATE", 'I');
        assert_in_range(hf_holds_bytes(t.h), 1, 128 * 1024);
    }
    assert_free(&t);
    ran(&t, "RESET ALL", "RESET", 'I');
    assert_remake(&t, "");
    talk_end(&t);
}

/* With statements between that need what was set before them. */
static void resets(void **state)
{
    struct talk t;
    uint64_t begun = cpu_ms();
    char text[64];

    (void)state;
    talk_begin_alone(&t);
    ran(&t, "SET search_path = a", "SET", 'I');
    ran(&t, "PREPARE p AS SELECT 1", "PREPARE", 'I');
    ran(&t, "SET search_path = b", "SET", 'I');
    ran(&t, "RESET ALL", "RESET", 'I');
    ran(&t, "RESET ALL", "RESET", 'I');
    assert_remake(&t, "SET search_path = a\nPREPARE p AS SELECT 1\nRESET ALL\n");
    ran(&t, "PREPARE q AS SELECT 2", "PREPARE", 'I');
    ran(&t, "SET search_path = c", "SET", 'I');
    ran(&t, "RESET ALL", "RESET", 'I');
    assert_remake(&t, "SET search_path = a\nPREPARE p AS SELECT 1\nRESET ALL\nPREPARE q AS SELECT 2\n");
    ran(&t, "DISCARD ALL", "DISCARD ALL", 'I');
    for (unsigned i = 0; i < 1000; i++) { /* roles stay */
        (void)snprintf(text, sizeof text, "PREPARE p%u AS SELECT 1", i);
        ran(&t, text, "PREPARE", 'I');
        ran(&t, "SET ROLE r", "SET", 'I');
    }
    for (unsigned i = 0; i < 5 * MANY; i++)
        ran(&t, "RESET ALL", "RESET", 'I');
    assert_free(&t);
    assert_quick(begun);
    talk_end(&t);
}

/* -- memory ------------------------------------------------------------------------------------ */

typedef void step_fn(struct talk *t, unsigned i);

/* Each keeps something that is only given back by an answer, or by the end of the transaction. */
static void a_named_text(struct talk *t, unsigned i)
{
    static char body[HF_SQL_TEXT_MAX];
    size_t len = (size_t)sprintf(body, "n%u", i) + 1;

    memset(body + len, 'x', 200 * 1024);
    len += 200 * 1024;
    memset(body + len, 0, 3);
    talk_message(t, true, 'P', body, len + 3);
}

static void an_unnamed_text(struct talk *t, unsigned i)
{
    static char body[HF_SQL_TEXT_MAX];
    size_t len = (size_t)sprintf(body + 1, "--%u", i) + 1;

    memset(body + len, 'x', 100 * 1024);
    len += 100 * 1024;
    memset(body + len, 0, 3);
    talk_message(t, true, 'P', body, len + 3);
    c_bind(t, "", "");
    c_execute(t, "");
}

static void a_query(struct talk *t, unsigned i)
{
    char text[2000];

    memset(text, ' ', sizeof text);
    (void)snprintf(text + 1900, 100, "SELECT %u", i);
    c_query(t, text);
}

static void a_parse_of_one_text(struct talk *t, unsigned i)
{
    char name[16];

    (void)snprintf(name, sizeof name, "n%u", i);
    c_parse(t, name, "SELECT 1");
}

static void types(struct talk *t, unsigned i)
{
    static char body[200 * 1024 + 64];
    size_t len = (size_t)sprintf(body, "n%u", i) + 1;

    memcpy(body + len, "SELECT 1\0\xc8\0", 11); /* 51200 types */
    talk_message(t, true, 'P', body, len + 11 + 0xc800 * 4);
}

static void a_bind(struct talk *t, unsigned i)
{
    (void)i;
    c_bind(t, "", "");
}

static void a_describe(struct talk *t, unsigned i)
{
    (void)i;
    c_describe(t, 'P', "");
}

static void a_setting_of_a_transaction(struct talk *t, unsigned i)
{
    char text[HF_SQL_PARSE_MAX];
    int n = snprintf(text, sizeof text, "SET a.b = '%u", i);

    memset(text + n, 'x', 2000 - (size_t)n);
    memcpy(text + 2000, "'", 2);
    if (i == 0)
        ran(t, "BEGIN", "BEGIN", 'T');
    ran(t, text, "SET", 'T');
}

static void a_savepoint(struct talk *t, unsigned i)
{
    char text[32];

    if (i == 0)
        ran(t, "BEGIN", "BEGIN", 'T');
    (void)snprintf(text, sizeof text, "SAVEPOINT s%u", i);
    ran(t, text, "SAVEPOINT", 'T');
}

static void a_local_setting(struct talk *t, unsigned i)
{
    if (i == 0)
        ran(t, "BEGIN", "BEGIN", 'T');
    ran(t, "SET LOCAL search_path = a", "SET", 'T');
}

static void a_statement(struct talk *t, unsigned i)
{
    char text[64];

    (void)snprintf(text, sizeof text, "PREPARE p%u AS SELECT 1", i);
    ran(t, text, "PREPARE", 'I');
}

static void a_value(struct talk *t, unsigned i)
{
    uint8_t row[6 + 12 * 1024] = {0, 1, 0, 0, 0x30, 0};
    char text[64];

    memset(row + 6, 'v', sizeof row - 6);
    (void)snprintf(text, sizeof text, "SELECT set_config('a.b%u', 'x', false)", i);
    c_query(t, text);
    talk_message(t, false, 'D', row, sizeof row);
    s_complete(t, "SELECT 1");
    s_ready(t, 'I');
}

static void memory_is_bounded(void **state)
{
    static const struct {
        const char *name;
        step_fn *step;
    } kinds[] = {{"named texts", a_named_text},
                 {"unnamed texts", an_unnamed_text},
                 {"queries", a_query},
                 {"names", a_parse_of_one_text},
                 {"types", types},
                 {"Bind", a_bind},
                 {"Describe", a_describe},
                 {"settings of a transaction", a_setting_of_a_transaction},
                 {"savepoints", a_savepoint},
                 {"local settings", a_local_setting},
                 {"statements", a_statement},
                 {"values", a_value}};

    (void)state;
    for (size_t k = 0; k < sizeof kinds / sizeof *kinds; k++) {
        struct talk t;
        size_t begun = memory(), most = 0;
        unsigned i;
        talk_begin_alone(&t);
        for (i = 0; i < 100000 && hf_holds_by(t.h) != HF_HOLD_TOO_MUCH; i++) {
            kinds[k].step(&t, i);
            assert_in_range(hf_holds_bytes(t.h), 1, HF_HOLDS_BYTES_MAX);
            if (memory() > most)
                most = memory();
        }
        if (i == 100000)
            fail_msg("%s: no end", kinds[k].name);
        /* The cache of verdicts has its own bound. What malloc adds to each piece is not counted. */
        if (most > begun + (1 << 20) + HF_HOLDS_BYTES_MAX * 3 / 2)
            fail_msg("%s: %zu bytes", kinds[k].name, most - begun);
        assert_too_much(&t);
        talk_end(&t);
    }
}

/* All is given back: a session that is idle again is as small as before. */
static void given_back(void **state)
{
    struct talk t;
    size_t idle;

    (void)state;
    talk_begin_alone(&t);
    idle = hf_holds_bytes(t.h);
    for (unsigned i = 0; i < 100; i++) {
        a_bind(&t, i);
        an_unnamed_text(&t, i % 3);
        c_close(&t, 'S', "n0");
        a_parse_of_one_text(&t, 0);
        s_error(&t, "26000");
        c_sync(&t);
        s_ready(&t, 'I');
        a_value(&t, i);
        a_setting_of_a_transaction(&t, 0);
        a_savepoint(&t, 1);
        ran(&t, "ROLLBACK", "ROLLBACK", 'I');
        a_statement(&t, 7);
        ran(&t, "DISCARD ALL", "DISCARD ALL", 'I');
    }
    hf_holds_lost(t.h);
    hf_holds_started(t.h, false);
    assert_in_range(hf_holds_bytes(t.h), idle, idle + 1024); /* the table of names */
    talk_end(&t);
}

/* -- time -------------------------------------------------------------------------------------- */

static void unnamed_binds(void **state)
{
    struct talk t;
    uint64_t begun = cpu_ms();

    (void)state;
    talk_begin_alone(&t);
    for (unsigned k = 0; k < 20; k++) {
        c_parse(&t, "", "SELECT 1");
        c_sync(&t);
        for (unsigned i = 0; i < 10000; i++)
            c_bind(&t, "", "");
        c_sync(&t);
        s_plain(&t, '1');
        s_ready(&t, 'I');
        for (unsigned i = 0; i < 10000; i++)
            s_plain(&t, '2');
        s_ready(&t, 'I');
        assert_free(&t);
    }
    assert_quick(begun);
    talk_end(&t);
}

/* Names are found at once, however many there are, and however often they are closed and made again. */
static void names(void **state)
{
    struct talk t;
    uint64_t begun = cpu_ms();

    (void)state;
    talk_begin_alone(&t);
    for (unsigned i = 0; i < 1000; i++) {
        a_parse_of_one_text(&t, i);
        s_plain(&t, '1');
    }
    c_sync(&t);
    s_ready(&t, 'I');
    for (unsigned i = 0; i < 20 * MANY; i++) {
        c_bind(&t, "", "n0");
        s_plain(&t, '2');
    }
    for (unsigned k = 0; k < 100; k++) {
        for (unsigned i = 0; i < 500; i++) {
            c_close(&t, 'S', "n1");
            a_parse_of_one_text(&t, 1);
        }
        for (unsigned i = 0; i < 500; i++) {
            s_plain(&t, '3');
            s_plain(&t, '1');
        }
    }
    c_sync(&t);
    s_ready(&t, 'I');
    assert_free(&t);
    assert_quick(begun);
    talk_end(&t);
}

/* Sync that a COPY swallows, in a queue that is long. */
static void copies(void **state)
{
    struct talk t;
    uint64_t begun = cpu_ms();

    (void)state;
    talk_begin_alone(&t);
    for (unsigned k = 0; k < 20; k++) {
        c_parse(&t, "", "COPY t FROM STDIN");
        c_bind(&t, "", "");
        for (unsigned i = 0; i < 3000; i++) {
            c_execute(&t, "");
            c_sync(&t);
            c_plain(&t, 'c');
            c_sync(&t);
        }
        s_plain(&t, '1');
        s_plain(&t, '2');
        for (unsigned i = 0; i < 3000; i++) {
            s_plain(&t, 'G');
            s_complete(&t, "COPY 1");
            s_ready(&t, 'I');
        }
        assert_free(&t);
    }
    assert_quick(begun);
    talk_end(&t);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(many_settings),
        cmocka_unit_test(many_savepoints),
        cmocka_unit_test(one_savepoint),
        cmocka_unit_test(settings_that_are_not_needed),
        cmocka_unit_test(resets),
        cmocka_unit_test(memory_is_bounded),
        cmocka_unit_test(given_back),
        cmocka_unit_test(unnamed_binds),
        cmocka_unit_test(names),
        cmocka_unit_test(copies),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
