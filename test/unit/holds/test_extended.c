/* What a session holds, by the extended protocol, COPY and FunctionCall. */
#include "talk.h"

#include <stdlib.h>
#include <string.h>

/* P B E of one statement, not answered. */
static void c_run(struct talk *t, const char *text)
{
    c_parse(t, "", text);
    c_bind(t, "", "");
    c_execute(t, "");
}

static void s_ran(struct talk *t, const char *tag)
{
    s_plain(t, '1');
    s_plain(t, '2');
    s_complete(t, tag);
}

static void batch(void **state)
{
    struct talk t;

    (void)state;
    talk_begin(&t, QUIET);
    c_parse(&t, "", "INSERT INTO t VALUES ($1)");
    assert_by(&t, HF_HOLD_STATEMENT);
    assert_doing(&t, HF_DOING_READ);
    c_bind(&t, "", "");
    c_describe(&t, 'P', "");
    c_execute(&t, "");
    assert_doing(&t, HF_DOING_COMMIT);
    s_plain(&t, '1');
    s_plain(&t, '2');
    s_plain(&t, 'n');
    s_complete(&t, "INSERT 0 1");
    assert_doing(&t, HF_DOING_COMMIT); /* it commits at Sync */
    assert_by(&t, HF_HOLD_STATEMENT);
    c_sync(&t);
    assert_doing(&t, HF_DOING_COMMIT);
    s_ready(&t, 'I');
    assert_doing(&t, HF_DOING_NOTHING);
    assert_free(&t);
    talk_end(&t);
}

static void begin_in_a_batch(void **state)
{
    struct talk t;

    (void)state;
    talk_begin(&t, QUIET);
    c_run(&t, "BEGIN");
    c_run(&t, "INSERT INTO t VALUES (1)");
    c_sync(&t);
    assert_doing(&t, HF_DOING_READ); /* if BEGIN fails, INSERT is passed over */
    c_run(&t, "INSERT INTO t VALUES (2)");
    assert_doing(&t, HF_DOING_COMMIT); /* but not this one */
    s_ran(&t, "BEGIN");
    s_ran(&t, "INSERT 0 1");
    s_ready(&t, 'T');
    assert_doing(&t, HF_DOING_TRANSACTION);
    c_sync(&t);
    s_ran(&t, "INSERT 0 1");
    s_ready(&t, 'T');
    c_run(&t, "COMMIT");
    c_sync(&t);
    assert_doing(&t, HF_DOING_COMMIT);
    s_ran(&t, "COMMIT");
    assert_doing(&t, HF_DOING_READ);
    s_ready(&t, 'I');
    assert_free(&t);
    talk_end(&t);
}

static void named(void **state)
{
    struct talk t;

    (void)state;
    talk_begin(&t, QUIET);
    c_parse(&t, "s1", "SELECT a FROM t WHERE b = $1");
    assert_remake(&t, "");
    c_parse(&t, "s2", "SELECT pg_advisory_lock($1)");
    c_sync(&t);
    s_plain(&t, '1');
    s_plain(&t, '1');
    s_ready(&t, 'I');
    assert_free(&t);
    assert_remake(&t, "s1: SELECT a FROM t WHERE b = $1\ns2: SELECT pg_advisory_lock($1)\n");
    c_bind(&t, "p", "s1");
    c_execute(&t, "p");
    c_sync(&t);
    s_plain(&t, '2');
    s_plain(&t, 's'); /* suspended, and gone with the batch */
    s_ready(&t, 'I');
    assert_free(&t);
    c_bind(&t, "p", "s2");
    c_execute(&t, "p");
    c_sync(&t);
    s_plain(&t, '2');
    s_plain(&t, 's');
    s_ready(&t, 'I');
    assert_by(&t, HF_HOLD_LOCK);
    c_close(&t, 'S', "s1");
    c_close(&t, 'S', "none");
    c_sync(&t);
    assert_remake(&t, "s1: SELECT a FROM t WHERE b = $1\ns2: SELECT pg_advisory_lock($1)\n");
    s_plain(&t, '3');
    s_plain(&t, '3');
    s_ready(&t, 'I');
    assert_remake(&t, "s2: SELECT pg_advisory_lock($1)\n");
    ran(&t, "DEALLOCATE s2", "DEALLOCATE", 'I');
    assert_remake(&t, "");
    talk_end(&t);
}

static void unnamed(void **state)
{
    struct talk t;

    (void)state;
    talk_begin(&t, QUIET);
    c_parse(&t, "", "SELECT a FROM t");
    c_sync(&t);
    s_plain(&t, '1');
    s_ready(&t, 'I');
    assert_remake(&t, "SELECT a FROM t\n"); /* a later Bind may name it */
    c_bind(&t, "", "");
    c_execute(&t, "");
    c_sync(&t);
    s_plain(&t, '2');
    s_complete(&t, "SELECT 1");
    s_ready(&t, 'I');
    assert_free(&t);
    ran(&t, "SELECT 1", "SELECT 1", 'I'); /* drops it */
    assert_remake(&t, "");
    talk_end(&t);
}

/* An error: all up to Sync is passed over. */
static void errors(void **state)
{
    struct talk t;

    (void)state;
    talk_begin(&t, QUIET);
    c_run(&t, "SET a.b = 1");
    c_parse(&t, "s1", "SELECT 1/0");
    c_bind(&t, "", "s1");
    c_execute(&t, "");
    c_parse(&t, "s2", "SELECT 2");
    c_run(&t, "SELECT pg_advisory_lock(1)");
    c_sync(&t);
    s_ran(&t, "SET");
    s_plain(&t, '1');
    s_plain(&t, '2');
    s_error(&t, "22012");
    s_ready(&t, 'I');
    assert_free(&t);
    assert_remake(&t, "s1: SELECT 1/0\n"); /* prepared statements do not roll back */
    /* What was passed over can be sent again, and a Close that was closes nothing. */
    c_run(&t, "SELECT 1/0");
    c_close(&t, 'S', "s1");
    c_sync(&t);
    s_plain(&t, '1');
    s_plain(&t, '2');
    s_error(&t, "22012");
    s_ready(&t, 'I');
    c_parse(&t, "s2", "SELECT 2");
    c_bind(&t, "", "s1");
    c_execute(&t, "");
    c_sync(&t);
    s_plain(&t, '1');
    s_plain(&t, '2');
    s_complete(&t, "SELECT 1");
    s_ready(&t, 'I');
    assert_free(&t);
    assert_remake(&t, "s1: SELECT 1/0\ns2: SELECT 2\nSELECT 1/0\n");
    talk_end(&t);

    /* The same, with the error heard before Sync is sent. */
    talk_begin(&t, QUIET);
    c_parse(&t, "s1", "SELEKT");
    s_error(&t, "42601");
    c_parse(&t, "s2", "LISTEN a");
    c_bind(&t, "", "s2");
    c_execute(&t, "");
    c_query(&t, "LISTEN b"); /* passed over as well */
    assert_by(&t, HF_HOLD_STATEMENT);
    c_sync(&t);
    s_ready(&t, 'I');
    assert_free(&t);
    assert_remake(&t, "");
    c_run(&t, "LISTEN a");
    c_sync(&t);
    s_ran(&t, "LISTEN");
    s_ready(&t, 'I');
    assert_by(&t, HF_HOLD_LISTEN);
    talk_end(&t);

    /* Two batches under way: the second is not passed over. */
    talk_begin(&t, QUIET);
    c_run(&t, "SELECT 1/0");
    c_sync(&t);
    c_run(&t, "LISTEN a");
    c_sync(&t);
    s_plain(&t, '1');
    s_plain(&t, '2');
    s_error(&t, "22012");
    s_ready(&t, 'I');
    assert_by(&t, HF_HOLD_STATEMENT);
    s_ran(&t, "LISTEN");
    s_ready(&t, 'I');
    assert_by(&t, HF_HOLD_LISTEN);
    talk_end(&t);

    /* Bind runs functions too. */
    talk_begin(&t, QUIET);
    c_run(&t, "SELECT pg_advisory_lock(1)");
    c_sync(&t);
    s_plain(&t, '1');
    s_error(&t, "22012");
    s_ready(&t, 'I');
    assert_by(&t, HF_HOLD_LOCK);
    talk_end(&t);

    /* A commit that fails at Sync. */
    talk_begin(&t, QUIET);
    c_run(&t, "SET a.b = 1");
    c_run(&t, "INSERT INTO t VALUES (1)");
    c_sync(&t);
    s_ran(&t, "SET");
    s_ran(&t, "INSERT 0 1");
    s_error(&t, "23505");
    s_ready(&t, 'I');
    assert_free(&t);
    assert_remake(&t, "INSERT INTO t VALUES (1)\n"); /* the unnamed statement */
    talk_end(&t);
}

/* Which statement does a Bind mean, if the Parse before it may have been passed over? */
static void unnamed_in_doubt(void **state)
{
    struct talk t;

    (void)state;
    talk_begin(&t, QUIET);
    c_run(&t, "LISTEN a");
    c_sync(&t);
    s_ran(&t, "LISTEN");
    s_ready(&t, 'I');
    c_run(&t, "SELECT 1/0");
    c_parse(&t, "", "SELECT 1"); /* will be passed over */
    c_sync(&t);
    c_bind(&t, "", "");
    c_execute(&t, "");
    c_sync(&t);
    s_plain(&t, '1');
    s_plain(&t, '2');
    s_error(&t, "22012");
    s_ready(&t, 'I');
    s_plain(&t, '2');
    s_error(&t, "22012"); /* SELECT 1/0 once more */
    s_ready(&t, 'I');
    assert_true((hf_holds_pins(t.h) & HF_HOLD_BIT(HF_HOLD_UNSURE)) != 0);
    talk_end(&t);

    talk_begin(&t, QUIET);
    c_parse(&t, "s", "LISTEN a");
    c_sync(&t);
    s_plain(&t, '1');
    s_ready(&t, 'I');
    c_parse(&t, "s", "SELECT 1"); /* the name is in use */
    c_sync(&t);
    c_bind(&t, "", "s");
    c_execute(&t, "");
    c_sync(&t);
    s_error(&t, "42P05");
    s_ready(&t, 'I');
    s_plain(&t, '2');
    s_complete(&t, "LISTEN");
    s_ready(&t, 'I');
    assert_by(&t, HF_HOLD_UNKNOWN);
    talk_end(&t);
}

/* Nor is it certain what a name stands for, while something is under way that may change that. */
static void names_in_doubt(void **state)
{
    static const char *const changes[] = {"DEALLOCATE s; PREPARE s AS SELECT pg_advisory_lock(1)",
                                          "DISCARD ALL", "DEALLOCATE ALL"};
    struct talk t;

    (void)state;
    for (size_t i = 0; i < sizeof changes / sizeof *changes; i++) {
        talk_begin(&t, QUIET);
        c_parse(&t, "s", "SELECT 1");
        c_sync(&t);
        s_plain(&t, '1');
        s_ready(&t, 'I');
        c_query(&t, changes[i]);
        c_bind(&t, "", "s"); /* of which s? */
        c_execute(&t, "");
        c_sync(&t);
        if (i == 0) {
            s_complete(&t, "DEALLOCATE");
            s_complete(&t, "PREPARE");
        } else {
            s_complete(&t, changes[i]);
        }
        s_ready(&t, 'I');
        s_plain(&t, '2');
        s_complete(&t, "SELECT 1");
        s_ready(&t, 'I');
        assert_by(&t, HF_HOLD_UNKNOWN);
        talk_end(&t);
    }

    /* Parse fails, since by then the name is in use; Bind means the other one. */
    talk_begin(&t, QUIET);
    c_query(&t, "PREPARE s AS SELECT pg_advisory_lock(1)");
    c_parse(&t, "s", "SELECT 1");
    c_sync(&t);
    c_bind(&t, "", "s");
    c_execute(&t, "");
    c_sync(&t);
    s_complete(&t, "PREPARE");
    s_ready(&t, 'I');
    s_error(&t, "42P05");
    s_ready(&t, 'I');
    s_plain(&t, '2');
    s_complete(&t, "SELECT 1");
    s_ready(&t, 'I');
    assert_by(&t, HF_HOLD_UNKNOWN);
    talk_end(&t);

    /* Likewise if a Close was passed over. */
    talk_begin(&t, QUIET);
    c_parse(&t, "s", "SELECT pg_advisory_lock(1)");
    c_sync(&t);
    s_plain(&t, '1');
    s_ready(&t, 'I');
    c_run(&t, "SELECT 1/0");
    c_close(&t, 'S', "s");
    c_sync(&t);
    c_parse(&t, "s", "SELECT 1");
    c_sync(&t);
    c_bind(&t, "", "s");
    c_execute(&t, "");
    c_sync(&t);
    s_plain(&t, '1');
    s_plain(&t, '2');
    s_error(&t, "22012");
    s_ready(&t, 'I');
    s_error(&t, "42P05");
    s_ready(&t, 'I');
    s_plain(&t, '2');
    s_complete(&t, "SELECT 1");
    s_ready(&t, 'I');
    assert_by(&t, HF_HOLD_UNKNOWN);
    talk_end(&t);
}

static void settings_by_parameter(void **state)
{
    struct talk t;

    (void)state;
    talk_begin(&t, QUIET);
    c_parse(&t, "s", "SELECT set_config('app.tenant', $1, false)");
    c_bind(&t, "", "s");
    c_describe(&t, 'P', "");
    c_execute(&t, "");
    c_sync(&t);
    s_plain(&t, '1');
    s_plain(&t, '2');
    s_plain(&t, 'T');
    s_row(&t, "seven");
    s_complete(&t, "SELECT 1");
    s_ready(&t, 'I');
    assert_free(&t);
    assert_remake(&t, "s: SELECT set_config('app.tenant', $1, false)\n"
                      "SELECT pg_catalog.set_config('app.tenant', 'seven', false)\n");
    talk_end(&t);
}

/* Prepared by SQL, bound by a message, and the other way round. */
static void mixed(void **state)
{
    struct talk t;

    (void)state;
    talk_begin(&t, QUIET);
    ran(&t, "PREPARE s AS SELECT pg_advisory_lock(1)", "PREPARE", 'I');
    c_bind(&t, "", "s");
    c_execute(&t, "");
    c_sync(&t);
    s_plain(&t, '2');
    s_complete(&t, "SELECT 1");
    s_ready(&t, 'I');
    assert_by(&t, HF_HOLD_LOCK);
    talk_end(&t);
    talk_begin(&t, QUIET);
    c_parse(&t, "s", "SELECT pg_advisory_lock(1)");
    c_sync(&t);
    s_plain(&t, '1');
    s_ready(&t, 'I');
    ran(&t, "EXECUTE s(1)", "SELECT 1", 'I');
    assert_by(&t, HF_HOLD_LOCK);
    talk_end(&t);
    /* An Execute of a cursor that SQL has declared. */
    talk_begin(&t, QUIET);
    ran(&t, "BEGIN", "BEGIN", 'T');
    ran(&t, "DECLARE c CURSOR FOR SELECT 1", "DECLARE CURSOR", 'T');
    c_execute(&t, "c");
    c_sync(&t);
    s_plain(&t, 's');
    s_ready(&t, 'T');
    assert_by(&t, HF_HOLD_UNKNOWN);
    talk_end(&t);
}

static void copy(void **state)
{
    struct talk t;

    (void)state;
    talk_begin(&t, QUIET);
    c_query(&t, "COPY t FROM STDIN");
    assert_doing(&t, HF_DOING_COMMIT);
    s_plain(&t, 'G');
    assert_by(&t, HF_HOLD_COPY);
    talk_message(&t, true, 'd', "1\n", 2);
    assert_doing(&t, HF_DOING_COMMIT);
    c_plain(&t, 'c');
    assert_by(&t, HF_HOLD_STATEMENT);
    s_complete(&t, "COPY 1");
    s_ready(&t, 'I');
    assert_free(&t);

    c_run(&t, "COPY t FROM STDIN");
    c_sync(&t); /* swallowed */
    s_plain(&t, '1');
    s_plain(&t, '2');
    s_plain(&t, 'G');
    talk_message(&t, true, 'd', "1\n", 2);
    c_sync(&t); /* so is this */
    c_plain(&t, 'c');
    c_sync(&t);
    s_complete(&t, "COPY 1");
    assert_by(&t, HF_HOLD_STATEMENT);
    s_ready(&t, 'I');
    assert_free(&t);

    /* All sent before the server has said a word. */
    c_run(&t, "COPY t FROM STDIN");
    talk_message(&t, true, 'd', "1\n", 2);
    c_plain(&t, 'c');
    c_sync(&t);
    c_query(&t, "LISTEN a");
    s_plain(&t, '1');
    s_plain(&t, '2');
    s_plain(&t, 'G');
    assert_by(&t, HF_HOLD_STATEMENT); /* the client is through with it */
    c_query(&t, "LISTEN a");
    s_complete(&t, "COPY 1");
    s_ready(&t, 'I');
    s_complete(&t, "LISTEN");
    s_ready(&t, 'I');
    s_complete(&t, "LISTEN");
    s_ready(&t, 'I');
    assert_by(&t, HF_HOLD_LISTEN);
    talk_end(&t);

    talk_begin(&t, QUIET);
    c_query(&t, "COPY t FROM STDIN; SET a.b = 1");
    s_plain(&t, 'G');
    c_plain(&t, 'f');
    s_error(&t, "57014");
    s_ready(&t, 'I');
    assert_free(&t);
    c_query(&t, "COPY (SELECT 1) TO STDOUT");
    s_plain(&t, 'H');
    talk_message(&t, false, 'd', "1\n", 2);
    s_plain(&t, 'c');
    s_complete(&t, "COPY 1");
    s_ready(&t, 'I');
    assert_free(&t);
    talk_end(&t);
}

static void function_call(void **state)
{
    struct talk t;

    (void)state;
    talk_begin(&t, QUIET);
    ran(&t, "BEGIN", "BEGIN", 'T');
    talk_message(&t, true, 'F', "\0\0\3\xbb\0\0\0\0\0\0", 10); /* loread() is 955, lo_creat() 957 */
    s_plain(&t, 'V');
    s_ready(&t, 'T');
    c_query(&t, "COMMIT");
    assert_doing(&t, HF_DOING_COMMIT);
    s_complete(&t, "COMMIT");
    s_ready(&t, 'I');
    assert_free(&t);
    talk_message(&t, true, 'F', "\0\0\x0b\x40\0\0\0\0\0\0", 10); /* 2880: pg_advisory_lock() */
    assert_doing(&t, HF_DOING_COMMIT);
    s_plain(&t, 'V');
    s_ready(&t, 'I');
    assert_by(&t, HF_HOLD_UNKNOWN);
    talk_end(&t);
}

/* Many sent before the first is answered. */
static void pipeline(void **state)
{
    struct talk t;

    (void)state;
    talk_begin(&t, QUIET);
    for (unsigned i = 0; i < 300; i++) {
        c_run(&t, i % 2 == 0 ? "SET a.b = 1" : "INSERT INTO t VALUES (1)");
        c_sync(&t);
    }
    c_query(&t, "LISTEN a");
    for (unsigned i = 0; i < 300; i++) {
        s_ran(&t, i % 2 == 0 ? "SET" : "INSERT 0 1");
        s_ready(&t, 'I');
        assert_int_equal(hf_holds_pins(t.h), 0);
    }
    s_complete(&t, "LISTEN");
    s_ready(&t, 'I');
    assert_by(&t, HF_HOLD_LISTEN);
    assert_in_range(hf_holds_bytes(t.h), 1, 4096);
    talk_end(&t);
}

static void lost(void **state)
{
    struct talk t;

    (void)state;
    talk_begin(&t, QUIET);
    ran(&t, "SET a.b = 1", "SET", 'I');
    c_parse(&t, "s1", "SELECT 1");
    c_sync(&t);
    s_plain(&t, '1');
    s_ready(&t, 'I');
    ran(&t, "BEGIN", "BEGIN", 'T');
    ran(&t, "SET a.b = 2", "SET", 'T');
    c_close(&t, 'S', "s1");
    c_parse(&t, "s2", "SELECT 1");
    c_run(&t, "COMMIT");
    c_sync(&t);
    assert_doing(&t, HF_DOING_TRANSACTION);
    hf_holds_lost(t.h);
    hf_holds_lost(t.cut);
    assert_remake(&t, "SET a.b = 1\ns1: SELECT 1\n");
    assert_by(&t, HF_HOLD_START);
    hf_holds_started(t.h);
    hf_holds_started(t.cut);
    assert_free(&t);
    c_bind(&t, "", "s1");
    c_execute(&t, "");
    c_sync(&t);
    s_plain(&t, '2');
    s_complete(&t, "SELECT 1");
    s_ready(&t, 'I');
    assert_free(&t);
    /* What cannot be made again. */
    assert_true(hf_holds_remake_failed(t.h, &(unsigned){1}, 1));
    assert_remake(&t, "SET a.b = 1\n");
    assert_false(hf_holds_remake_failed(t.h, &(unsigned){0}, 1));
    (void)hf_holds_remake_failed(t.cut, &(unsigned){1}, 1);
    talk_end(&t);
}

static void nonsense(void **state)
{
    struct talk t;

    (void)state;
    talk_begin(&t, QUIET);
    c_plain(&t, '?');
    assert_by(&t, HF_HOLD_UNKNOWN);
    talk_end(&t);
    talk_begin(&t, QUIET);
    s_plain(&t, '1');
    assert_by(&t, HF_HOLD_UNKNOWN);
    talk_end(&t);
    talk_begin(&t, QUIET);
    hf_holds_server(t.h, (const uint8_t *)"Z\0\0\0\3", 5);
    assert_by(&t, HF_HOLD_UNKNOWN);
    assert_doing(&t, HF_DOING_COMMIT);
    talk_end(&t);
    talk_begin(&t, QUIET);
    talk_message(&t, true, 'Q', "LISTEN a\0 SELECT 1", 19); /* two strings */
    s_complete(&t, "LISTEN");
    s_ready(&t, 'I');
    assert_by(&t, HF_HOLD_UNKNOWN);
    talk_end(&t);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(batch),
        cmocka_unit_test(begin_in_a_batch),
        cmocka_unit_test(named),
        cmocka_unit_test(unnamed),
        cmocka_unit_test(errors),
        cmocka_unit_test(unnamed_in_doubt),
        cmocka_unit_test(names_in_doubt),
        cmocka_unit_test(settings_by_parameter),
        cmocka_unit_test(mixed),
        cmocka_unit_test(copy),
        cmocka_unit_test(function_call),
        cmocka_unit_test(pipeline),
        cmocka_unit_test(lost),
        cmocka_unit_test(nonsense),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
