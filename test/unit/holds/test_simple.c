/* What a session holds, by the simple protocol. */
#include "talk.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static void free_sessions(void **state)
{
    struct talk t;

    (void)state;
    talk_begin(&t, QUIET);
    talk_play(&t, "* SELECT 1 => SELECT 1 I\n"
                  "= free\n"
                  "* INSERT INTO t VALUES (nextval('s'), now()) RETURNING id => INSERT 0 1 I\n"
                  "= free\n");
    ran(&t, "/* pg_advisory_lock( */ SELECT 'pg_advisory_lock(1)', $$x$$, E'\\'' -- setseed\n",
        "SELECT 1", 'I');
    talk_play(&t, "= free\n"
                  "* CREATE TABLE t (a int) => CREATE TABLE I\n"
                  "= free\n");
    assert_true(hf_holds_code_altered(t.h));
    assert_false(hf_holds_code_altered(t.h));
    talk_play(&t, "*  =>  I\n" /* no such tag: an answer to a statement that was none */
                  "= not understood\n");
    talk_end(&t);
}

static void empty_query(void **state)
{
    (void)state;
    talk_all(QUIET, "> Q  ; -- nothing\n"
                    "< I\n"
                    "= statement\n"
                    "< Z I\n"
                    "= free\n");
}

/* Each alone, from a fresh session. */
static void pins(void **state)
{
    static const struct {
        const char *text, *tag;
        enum hf_hold by;
    } cases[] = {
        {"CREATE TEMP TABLE t (a int)", "CREATE TABLE", HF_HOLD_TEMPORARY},
        {"create temporary view v as select 1", "CREATE VIEW", HF_HOLD_TEMPORARY},
        {"SELECT 1 INTO TEMP t", "SELECT 1", HF_HOLD_TEMPORARY},
        {"CREATE TABLE pg_temp.t (a int)", "CREATE TABLE", HF_HOLD_TEMPORARY},
        {"CREATE TABLE \"pg_temp\".t (a int)", "CREATE TABLE", HF_HOLD_TEMPORARY},
        {"CREATE FUNCTION pg_temp.f() RETURNS int LANGUAGE sql AS 'SELECT 1'", "CREATE FUNCTION",
         HF_HOLD_TEMPORARY},
        {"CREATE TEMP SEQUENCE s", "CREATE SEQUENCE", HF_HOLD_TEMPORARY},
        {"DECLARE c CURSOR WITH HOLD FOR SELECT 1", "DECLARE CURSOR", HF_HOLD_CURSOR},
        {"SELECT pg_advisory_lock(1)", "SELECT 1", HF_HOLD_LOCK},
        {"SELECT PG_TRY_ADVISORY_LOCK_shared(1, 2)", "SELECT 1", HF_HOLD_LOCK},
        {"SELECT pg_catalog.\"pg_advisory_lock\"(1)", "SELECT 1", HF_HOLD_LOCK},
        {"SELECT U&\"pg_\\0061dvisory_lock\"(1)", "SELECT 1", HF_HOLD_LOCK},
        {"SELECT 'a\\', pg_advisory_lock(1), 'b' -- '", "SELECT 1", HF_HOLD_LOCK},
        {"SELECT E'a'\n '\\'', pg_advisory_lock(1), 'b' -- '", "SELECT 1", HF_HOLD_LOCK},
        {"SELECT $a$'$a$, pg_advisory_lock(1), '$a$'", "SELECT 1", HF_HOLD_LOCK},
        {"SELECT a$b$, pg_advisory_lock(1), '$b$' FROM t", "SELECT 1", HF_HOLD_LOCK},
        {"SELECT 1 /* /* */ ' */, pg_advisory_lock(1) -- '", "SELECT 1", HF_HOLD_LOCK},
        {"SELECT \"a'\", pg_advisory_lock(1), \"'\" FROM t", "SELECT 1", HF_HOLD_LOCK},
        {"SELECT (1::bigint).pg_advisory_lock", "SELECT 1", HF_HOLD_LOCK},
        {"SELECT * FROM a, LATERAL pg_advisory_lock(a.id)", "SELECT 1", HF_HOLD_LOCK},
        {"WITH x AS (SELECT pg_advisory_lock(1)) INSERT INTO t SELECT 1 FROM x", "INSERT 0 1",
         HF_HOLD_LOCK},
        {"EXPLAIN ANALYZE SELECT pg_advisory_lock(1)", "EXPLAIN", HF_HOLD_LOCK},
        {"COPY (SELECT pg_advisory_lock(1)) TO STDOUT", "COPY 1", HF_HOLD_LOCK},
        {"LISTEN a", "LISTEN", HF_HOLD_LISTEN},
        {"SELECT currval('s')", "SELECT 1", HF_HOLD_SEQUENCE},
        {"SELECT lastval()", "SELECT 1", HF_HOLD_SEQUENCE},
        {"SELECT setseed(0.5)", "SELECT 1", HF_HOLD_SEED},
        {"SET seed = 0.5", "SET", HF_HOLD_SEED},
        {"LOAD 'x'", "LOAD", HF_HOLD_LOAD},
        {"SELECT set_config('a.b' || 'c', 'x', false)", "SELECT 1", HF_HOLD_SETTING},
        {"SELECT set_config('a.b', 'x', false) FROM t", "SELECT 1", HF_HOLD_SETTING},
        {"SET search_path = pg_temp, public", "SET", HF_HOLD_SETTING},
        {"SET work_mem FROM CURRENT", "SET", HF_HOLD_SETTING},
        {"UPDATE pg_settings SET setting = '1MB' WHERE name = 'work_mem'", "UPDATE 1", HF_HOLD_SETTING},
        {"WITH x AS (UPDATE pg_catalog.pg_settings SET setting = '1MB' RETURNING 1) SELECT 1 FROM x", "SELECT 1",
         HF_HOLD_SETTING},
        {"SELECT pg_create_physical_replication_slot('x', true, true)", "SELECT 1", HF_HOLD_SLOT},
        {"SELECT query_to_xml('SELECT pg_advisory_lock(1)', true, true, '')", "SELECT 1",
         HF_HOLD_CODE},
        {"DO $$ BEGIN PERFORM pg_advisory_lock(1); END $$", "DO", HF_HOLD_LOCK},
        {"DO $$ BEGIN EXECUTE 'SET x.y = 1'; END $$", "DO", HF_HOLD_CODE},
        {"DO LANGUAGE plperl $$ 1 $$", "DO", HF_HOLD_CODE},
        {"DO $$ BEGIN PERFORM 1; END $$", "DO", HF_HOLD_UNSURE},
        {"SOMETHING NEW", "SOMETHING", HF_HOLD_UNKNOWN},
        {"DO SOMETHING NEW", "DO", HF_HOLD_UNKNOWN},
        {"SELECT 'no end", "SELECT 1", HF_HOLD_UNKNOWN},
        {"SELECT 1", "SET", HF_HOLD_UNKNOWN},
        {"SELECT 1", "BEGIN", HF_HOLD_UNKNOWN},
        {"SELECT a FROM t", "SET", HF_HOLD_UNKNOWN},
        {"SET standard_conforming_strings = off", "SET", HF_HOLD_UNKNOWN},
    };

    (void)state;
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        struct talk t;
        talk_begin(&t, QUIET);
        ran(&t, cases[i].text, cases[i].tag, 'I');
        if (hf_holds_by(t.h) != cases[i].by)
            fail_msg("%s: %s", cases[i].text, hf_hold_name(hf_holds_by(t.h)));
        talk_end(&t);
    }
}

static void transaction(void **state)
{
    struct talk t;

    (void)state;
    talk_begin(&t, QUIET);
    talk_play(&t, "> Q BEGIN\n"
                  "? read\n"
                  "= statement\n"
                  "< C BEGIN\n"
                  "< Z T\n"
                  "= transaction\n");
    assert_true(hf_holds_in_transaction(t.h));
    talk_play(&t, "? transaction\n"
                  "> Q UPDATE t SET a = 1\n"
                  "? transaction\n"
                  "< C UPDATE 1\n"
                  "< Z T\n"
                  "> Q COMMIT\n"
                  "? commit\n"
                  "< C COMMIT\n"
                  "? commit\n" /* the client may know, but must not hear that nothing was done */
                  "< Z I\n"
                  "? nothing\n"
                  "= free\n");
    talk_end(&t);
}

static void doing(void **state)
{
    static const struct {
        const char *text;
        enum hf_doing doing;
    } cases[] = {
        {"SELECT 1, 'a', NULL AS x", HF_DOING_READ},
        {"SELECT a FROM t", HF_DOING_COMMIT},
        {"SELECT f()", HF_DOING_COMMIT},
        {"SELECT date 'today'", HF_DOING_COMMIT},
        {"SHOW all", HF_DOING_READ},
        {"SET a.b = 1", HF_DOING_READ},
        {"PREPARE x AS INSERT INTO t VALUES (1)", HF_DOING_READ},
        {"EXECUTE x", HF_DOING_COMMIT},
        {"LISTEN a", HF_DOING_READ},
        {"NOTIFY a", HF_DOING_COMMIT},
        {"BEGIN", HF_DOING_READ},
        {"BEGIN; INSERT INTO t VALUES (1)", HF_DOING_READ},
        {"BEGIN; INSERT INTO t VALUES (1); COMMIT", HF_DOING_COMMIT},
        {"BEGIN READ ONLY; SELECT a FROM t; COMMIT", HF_DOING_READ},
        {"BEGIN READ ONLY; SET TRANSACTION READ WRITE; SELECT a FROM t; COMMIT", HF_DOING_COMMIT},
        {"BEGIN; ROLLBACK", HF_DOING_READ},
        {"BEGIN; ROLLBACK; INSERT INTO t VALUES (1)", HF_DOING_COMMIT},
        {"SELECT 1; INSERT INTO t VALUES (1)", HF_DOING_COMMIT},
        {"ROLLBACK", HF_DOING_READ},
        {"COMMIT", HF_DOING_COMMIT},
        {"VACUUM", HF_DOING_COMMIT},
        {"SOMETHING NEW", HF_DOING_COMMIT},
    };

    (void)state;
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        struct talk t;
        talk_begin(&t, QUIET);
        c_query(&t, cases[i].text);
        if (hf_holds_doing(t.h) != cases[i].doing)
            fail_msg("%s: %d", cases[i].text, hf_holds_doing(t.h));
        hf_holds_set_read_only(t.h, true);
        hf_holds_set_read_only(t.cut, true);
        assert_doing(&t, HF_DOING_READ);
        talk_end(&t);
    }
}

/* A COMMIT of a transaction that has changed nothing is known to have changed nothing. */
static void empty_commit(void **state)
{
    (void)state;
    talk_all(QUIET, "* BEGIN => BEGIN T\n"
                    "* SELECT 1 => SELECT 1 T\n"
                    "> Q COMMIT\n"
                    "? transaction\n"
                    "< C COMMIT\n"
                    "< Z I\n"
                    "* BEGIN READ ONLY => BEGIN T\n"
                    "* SELECT f() => SELECT 1 T\n"
                    "> Q COMMIT\n"
                    "? transaction\n"
                    "< C COMMIT\n"
                    "< Z I\n"
                    "* BEGIN => BEGIN T\n"
                    "* SELECT f() => !22000 E\n"
                    "= transaction\n"
                    "> Q COMMIT\n"
                    "? commit\n"
                    "< C ROLLBACK\n"
                    "< Z I\n"
                    "= free\n");
}

/* -- settings ---------------------------------------------------------------------------------- */

static void settings(void **state)
{
    (void)state;
    talk_all(QUIET, "* SET statement_timeout TO '5s' => SET I\n"
                    "* set Application_Name = 'x'; set time zone 'UTC' => SET I\n"
                    "= not understood\n"); /* two statements, one answer */

    talk_all(QUIET, "* SET statement_timeout TO '5s' => SET I\n"
                    "> Q set Application_Name = 'x'; set time zone 'UTC'\n"
                    "< C SET\n"
                    "< C SET\n"
                    "< Z I\n"
                    "* SET statement_timeout TO '6s'; => SET I\n"
                    "= free\n"
                    "@ set Application_Name = 'x'\n"
                    "@  set time zone 'UTC'\n"
                    "@ SET statement_timeout TO '6s'\n"
                    "* RESET timezone => RESET I\n"
                    "@ set Application_Name = 'x'\n"
                    "@ SET statement_timeout TO '6s'\n"
                    "@ RESET timezone\n"
                    "* SET ROLE r => SET I\n"
                    "* RESET ALL => RESET I\n"
                    "@ SET ROLE r\n"
                    "* SET SESSION AUTHORIZATION u => SET I\n"
                    "* SET SESSION CHARACTERISTICS AS TRANSACTION READ ONLY => SET I\n"
                    "@ SET ROLE r\n"
                    "@ SET SESSION AUTHORIZATION u\n"
                    "@ SET SESSION CHARACTERISTICS AS TRANSACTION READ ONLY\n"
                    "* DISCARD ALL => DISCARD ALL I\n"
                    "@\n"
                    "= free\n");
}

static void settings_of_transactions(void **state)
{
    (void)state;
    talk_all(QUIET, "* BEGIN => BEGIN T\n"
                    "* SET a.b = 1 => SET T\n"
                    "@\n"
                    "* SAVEPOINT s => SAVEPOINT T\n"
                    "* SET a.c = 1 => SET T\n"
                    "* SET LOCAL a.d = 1 => SET T\n"
                    "* SELECT set_config('a.e', 'x', true) => SELECT 1 T\n"
                    "* ROLLBACK TO s => ROLLBACK T\n"
                    "* SET a.f = 1 => SET T\n"
                    "* RELEASE s => RELEASE T\n"
                    "* COMMIT => COMMIT I\n"
                    "@ SET a.b = 1\n"
                    "@ SET a.f = 1\n"
                    "* BEGIN => BEGIN T\n"
                    "* SET a.b = 2 => SET T\n"
                    "* RESET ALL => RESET T\n"
                    "* ROLLBACK => ROLLBACK I\n"
                    "@ SET a.b = 1\n"
                    "@ SET a.f = 1\n"
                    "* BEGIN => BEGIN T\n"
                    "* SET a.b = 2 => SET T\n"
                    "* SELECT 1/0 => !22012 E\n"
                    "* COMMIT => ROLLBACK I\n"
                    "@ SET a.b = 1\n"
                    "@ SET a.f = 1\n"
                    /* Several statements in one text are one transaction. */
                    "> Q SET a.b = 3; SELECT 1/0\n"
                    "< C SET\n"
                    "< E 22012\n"
                    "< Z I\n"
                    "@ SET a.b = 1\n"
                    "@ SET a.f = 1\n"
                    "> Q SET a.b = 3; COMMIT; SET a.b = 4; SELECT 1/0\n"
                    "< C SET\n"
                    "< C COMMIT\n"
                    "< C SET\n"
                    "< E 22012\n"
                    "< Z I\n"
                    "@ SET a.f = 1\n"
                    "@ SET a.b = 3\n"
                    "= free\n"
                    /* A failed COMMIT undoes. */
                    "* BEGIN => BEGIN T\n"
                    "* SET a.b = 5 => SET T\n"
                    "* COMMIT => !23503 I\n"
                    "@ SET a.f = 1\n"
                    "@ SET a.b = 3\n"
                    "= free\n");
}

static void early_commit(void **state)
{
    (void)state;
    talk_all(QUIET, "> Q SET a.b = 3; CALL p(); SELECT 1/0\n" /* p() may have committed */
                    "< C SET\n"
                    "< C CALL\n"
                    "< E 22012\n"
                    "< Z I\n"
                    "= setting\n"
                    "* DISCARD ALL => DISCARD ALL I\n"
                    "= free\n");
}

static void set_config(void **state)
{
    (void)state;
    talk_all(QUIET, "> Q SELECT pg_catalog.set_config('App.Name', 'it''s', false)\n"
                    "< T\n"
                    "< D it's\n"
                    "< C SELECT 1\n"
                    "< Z I\n"
                    "= free\n"
                    "@ SELECT pg_catalog.set_config('app.name', 'it''s', false)\n"
                    "> Q SELECT set_config('app.name', 'b', false)\n"
                    "< D b\n"
                    "< E 57014\n"
                    "< Z I\n"
                    "@ SELECT pg_catalog.set_config('app.name', 'it''s', false)\n"
                    "* SET app.name = 'c' => SET I\n"
                    "@ SET app.name = 'c'\n"
                    "> Q SELECT set_config('search_path', 'pg_temp', false)\n"
                    "< D pg_temp\n"
                    "< C SELECT 1\n"
                    "< Z I\n"
                    "= setting\n");
}

/* -- prepared statements by SQL ---------------------------------------------------------------- */

static void prepared(void **state)
{
    struct talk t;

    (void)state;
    talk_all(QUIET, "> Q SET search_path = a; PREPARE p AS SELECT * FROM t\n"
                    "< C SET\n"
                    "< C PREPARE\n"
                    "< Z I\n"
                    "= prepared statement\n");

    talk_begin(&t, QUIET);
    talk_play(&t, "* SET search_path = a => SET I\n"
                  "* SET work_mem = '1MB' => SET I\n"
                  "* PREPARE p (int) AS SELECT * FROM t WHERE i = $1 => PREPARE I\n"
                  "* SET search_path = b => SET I\n"
                  "* SET work_mem = '2MB' => SET I\n"
                  "@ SET search_path = a\n"
                  "@ PREPARE p (int) AS SELECT * FROM t WHERE i = $1\n"
                  "@ SET search_path = b\n"
                  "@ SET work_mem = '2MB'\n"
                  "* EXECUTE p (1) => SELECT 1 I\n"
                  "= free\n"
                  "* RESET ALL => RESET I\n"
                  "@ SET search_path = a\n"
                  "@ PREPARE p (int) AS SELECT * FROM t WHERE i = $1\n"
                  "@ RESET ALL\n"
                  "* BEGIN => BEGIN T\n"
                  "* DEALLOCATE p => DEALLOCATE T\n"
                  "* PREPARE q AS SELECT pg_advisory_lock(1) => PREPARE T\n"
                  "* ROLLBACK => ROLLBACK I\n" /* has no part in them */
                  "= free\n"
                  "* EXECUTE q => SELECT 1 I\n"
                  "= advisory lock\n"
                  "* DEALLOCATE ALL => DEALLOCATE ALL I\n"
                  "* EXECUTE other => SELECT 1 I\n"
                  "= advisory lock\n");
    assert_true((hf_holds_pins(t.h) & HF_HOLD_BIT(HF_HOLD_UNKNOWN)) != 0);
    talk_end(&t);
}

/* -- errors ------------------------------------------------------------------------------------ */

static void errors(void **state)
{
    struct talk t;

    (void)state;
    talk_all(QUIET, "* SELEKT 1 => !42601 I\n"
                    "= free\n"
                    "* CREATE TEMP TABLE t (a int) => !42P07 I\n"
                    "= free\n"
                    "* LISTEN a => !25006 I\n"
                    "= free\n"
                    "* SELECT pg_advisory_lock(1), 1/0 => !22012 I\n" /* the lock stays */
                    "= advisory lock\n");
    talk_begin(&t, QUIET);
    talk_play(&t, "* DO SOMETHING NEW WITH f() => !22012 I\n" /* it has run */
                  "= unsure\n");
    assert_true(hf_holds_wants_probe(t.h));
    talk_end(&t);
}

/* -- the probe --------------------------------------------------------------------------------- */

static void probe(struct talk *t, const char *value)
{
    assert_true(hf_holds_wants_probe(t->h));
    hf_holds_probe_read(t->h, value, strlen(value));
    hf_holds_probe_read(t->cut, value, strlen(value));
    assert_false(hf_holds_wants_probe(t->h));
}

static void probed(void **state)
{
    struct talk t;

    (void)state;
    talk_begin(&t, QUIET);
    ran(&t, "CREATE TEMP TABLE t (a int)", "CREATE TABLE", 'I');
    assert_false(hf_holds_wants_probe(t.h)); /* nothing to be learnt */
    talk_play(&t, "* SELECT pg_advisory_lock(1) => SELECT 1 I\n"
                  "* SELECT pg_advisory_unlock(1) => SELECT 1 I\n");
    probe(&t, "temporary prepared 0 end");
    talk_play(&t, "= temporary table\n"
                  "* BEGIN => BEGIN T\n"
                  "* DROP TABLE t => DROP TABLE T\n");
    assert_false(hf_holds_wants_probe(t.h));
    talk_play(&t, "* COMMIT => COMMIT I\n"
                  "* PREPARE x AS SELECT 1 => PREPARE I\n");
    probe(&t, "prepared 1 end");
    talk_play(&t, "= free\n"
                  "* LISTEN a => LISTEN I\n"
                  "* UNLISTEN a => UNLISTEN I\n");
    probe(&t, "listen prepared 1 end");
    talk_play(&t, "= LISTEN\n"
                  "* UNLISTEN * => UNLISTEN I\n");
    hf_holds_probe_read(t.h, "prepared 2 end", 14); /* which is the other one? */
    assert_int_equal(hf_holds_pins(t.h), HF_HOLD_BIT(HF_HOLD_UNKNOWN));
    talk_end(&t);
    talk_begin(&t, QUIET);
    ran(&t, "DO $$ BEGIN END $$", "DO", 'I');
    hf_holds_probe_read(t.h, "prepared 0", 10); /* cut */
    assert_true((hf_holds_pins(t.h) & HF_HOLD_BIT(HF_HOLD_UNKNOWN)) != 0);
    talk_end(&t);
}

/* The server refuses it: what pins stays, and it is asked once for each change. */
static void probe_that_fails(void **state)
{
    struct talk t;

    (void)state;
    talk_begin(&t, QUIET);
    talk_play(&t, "* LISTEN a => LISTEN I\n"
                  "* UNLISTEN a => UNLISTEN I\n");
    assert_true(hf_holds_wants_probe(t.h));
    hf_holds_probe_failed(t.h);
    hf_holds_probe_failed(t.cut);
    assert_false(hf_holds_wants_probe(t.h));
    talk_play(&t, "= LISTEN\n"
                  "* UNLISTEN * => UNLISTEN I\n");
    probe(&t, "prepared 0 more end"); /* a word of a later version's */
    assert_free(&t);
    talk_end(&t);
}

/* Not with something of the client's under way, and not where its statement's name is taken. */
static void probe_at_the_right_time(void **state)
{
    struct talk t;

    (void)state;
    talk_begin_alone(&t);
    talk_play(&t, "* SELECT pg_advisory_lock(1) => SELECT 1 I\n"
                  "* SELECT pg_advisory_unlock(1) => SELECT 1 I\n");
    assert_true(hf_holds_wants_probe(t.h));
    c_query(&t, "SELECT 1");
    assert_false(hf_holds_wants_probe(t.h));
    s_complete(&t, "SELECT 1");
    assert_false(hf_holds_wants_probe(t.h));
    s_ready(&t, 'I');
    assert_true(hf_holds_wants_probe(t.h));
    hf_holds_client(t.h, (const uint8_t *)"Q", 1);
    assert_false(hf_holds_wants_probe(t.h));
    hf_holds_client(t.h, (const uint8_t *)"\0\0\0\5", 5);
    talk_play(&t, "< I\n"
                  "< Z I\n"
                  "* PREPARE \"holdfast probe\" AS SELECT 1 => PREPARE I\n");
    assert_false(hf_holds_wants_probe(t.h));
    ran(&t, "DEALLOCATE \"holdfast probe\"", "DEALLOCATE", 'I');
    assert_true(hf_holds_wants_probe(t.h));
    talk_end(&t);
}

/* One batch that ends with one Sync, asks what the header says, and names nothing that is not
 * PostgreSQL's own, whatever the session's search_path is. */
static void probe_messages(void **state)
{
    static const char *const looks[] = {"pg_catalog.pg_locks",
                                        "pg_catalog.pg_listening_channels()",
                                        "pg_my_temp_schema()",
                                        "pg_catalog.pg_cursors",
                                        "pg_catalog.pg_backend_pid()",
                                        "pg_catalog.pg_prepared_statements",
                                        "'lock'",
                                        "'listen'",
                                        "'temporary'",
                                        "'cursor'",
                                        "'prepared'",
                                        "'end'"};
    char types[32] = "";
    uint8_t *bytes;
    size_t len, n = 0;

    (void)state;
    for (size_t i = 0; i < sizeof looks / sizeof *looks; i++)
        if (strstr(hf_holds_probe_query(), looks[i]) == NULL)
            fail_msg("%s", looks[i]);
    assert_null(strstr(hf_holds_probe_query(), " pg_locks"));
    assert_null(strstr(hf_holds_probe_query(), " = "));
    assert_null(strstr(hf_holds_probe_query(), " <> "));
    assert_int_equal(hf_holds_probe_make(&bytes, &len), 0);
    for (size_t at = 0; at < len; n++) {
        size_t body = (size_t)bytes[at + 3] << 8 | bytes[at + 4];
        types[n] = (char)bytes[at];
        if (bytes[at] == 'P')
            assert_string_equal((char *)bytes + at + 5 + sizeof "holdfast probe",
                                hf_holds_probe_query());
        at += 1 + body;
        assert_true(at <= len);
    }
    assert_string_equal(types, "CPBECS");
    free(bytes);
}

/* -- the database's own code ------------------------------------------------------------------- */

static void code(void **state)
{
    struct talk t;

    (void)state;
    talk_begin(&t, NULL);
    talk_play(&t, "* SELECT 1 => SELECT 1 I\n"
                  "= free\n"
                  "* SELECT a FROM t => SELECT 1 I\n"
                  "= unknown functions\n");
    assert_int_equal(hf_code_read(&t.code, QUIET, 3), 0);
    hf_holds_set_code(t.h, t.code);
    assert_free(&t);
    talk_end(&t);
    /* What a block may have left is not the database's code: it stays. */
    talk_begin(&t, NULL);
    talk_play(&t, "* DO $$ BEGIN CREATE TEMP TABLE t (a int); END $$ => DO I\n"
                  "= unknown functions\n");
    assert_int_equal(hf_code_read(&t.code, QUIET, 3), 0);
    hf_holds_set_code(t.h, t.code);
    assert_by(&t, HF_HOLD_UNSURE);
    assert_true(hf_holds_wants_probe(t.h));
    talk_end(&t);
    /* And where there is code. */
    talk_begin(&t, NULL);
    talk_play(&t, "* SELECT a FROM t => SELECT 1 I\n");
    assert_int_equal(hf_code_read(&t.code, "0:61=1.", 7), 0);
    hf_holds_set_code(t.h, t.code);
    assert_by(&t, HF_HOLD_UNSURE);
    assert_true(hf_holds_wants_probe(t.h));
    talk_end(&t);
    /* What it has just made nobody has looked at. */
    talk_begin(&t, QUIET);
    talk_play(&t, "> Q CREATE FUNCTION f() RETURNS int LANGUAGE sql AS 'SELECT 1'; SELECT f()\n"
                  "< C CREATE FUNCTION\n"
                  "< C SELECT 1\n"
                  "< Z I\n"
                  "= unknown functions\n");
    talk_end(&t);
    talk_all(QUIET, "* CREATE TABLE t (a int) => CREATE TABLE I\n"
                    "= free\n");

    talk_begin(&t, "0:6c6f636b6572=1,736574746572=2."); /* locker, setter */
    talk_play(&t, "* SELECT other() => SELECT 1 I\n"
                  "= free\n"
                  "* SELECT x.Locker() => SELECT 1 I\n"
                  "= unsure\n");
    probe(&t, "prepared 0 end");
    talk_play(&t, "= free\n"
                  "* SELECT locker() => !22012 I\n"
                  "= unsure\n");
    probe(&t, "prepared 0 end");
    talk_play(&t, "* SELECT (t).\"setter\" FROM t => SELECT 1 I\n"
                  "= function\n"
                  "* DISCARD ALL => DISCARD ALL I\n"
                  "= function\n");
    talk_end(&t);

    talk_all("1:.", /* by a trigger, say */
             "* INSERT INTO t VALUES (1) => INSERT 0 1 I\n"
             "= unsure\n");
    talk_all("2:.", "* SET a.b = 1 => SET I\n"
                    "= free\n"
                    "* INSERT INTO t VALUES (1) => INSERT 0 1 I\n"
                    "= function\n");
}

static void code_that_is_no_answer(void **state)
{
    static const char *const bad[] = {"",      ":",       "0:",          "3:.",
                                      "0:61.", "0:6=1.",  "0:61=3.",     "0:61=1,.",
                                      "0:61.", "0:zz=1.", "0:61=1;62=1."};
    struct hf_code *c;

    (void)state;
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        if (i == 7)
            continue;
        assert_int_equal(hf_code_read(&c, bad[i], strlen(bad[i])), HF_EINVAL);
        assert_null(c);
    }
}

/* -- what cannot be read ----------------------------------------------------------------------- */

static void encodings(void **state)
{
    (void)state;
    talk_all(QUIET, "< S client_encoding SJIS\n"
                    "= not understood\n");
    talk_all(QUIET, "< S standard_conforming_strings off\n"
                    "= not understood\n");
}

static void bounds(void **state)
{
    struct talk t;
    char *big = malloc(HF_SQL_TEXT_MAX + 32);

    (void)state;
    assert_non_null(big);
    talk_begin(&t, QUIET);
    memset(big, ' ', HF_SQL_TEXT_MAX + 20);
    memcpy(big, "INSERT INTO t VALUES ('", 23);
    memcpy(big + HF_SQL_TEXT_MAX - 2, "')", 3);
    ran(&t, big, "INSERT 0 1", 'I');
    assert_free(&t);
    memcpy(big + HF_SQL_TEXT_MAX - 2, "    ')", 7);
    c_query(&t, big);
    talk_play(&t, "? commit\n"
                  "< C INSERT 0 1\n"
                  "< Z I\n"
                  "= not understood\n");
    talk_end(&t);
    free(big);
}

/* Nobody has statements looked at before the login. */
static void before_login(void **state)
{
    struct talk t;

    (void)state;
    talk_begin(&t, QUIET);
    hf_holds_lost(t.h);
    hf_holds_lost(t.cut);
    talk_message(&t, true, 'p', "secret", 7);
    assert_int_equal(hf_holds_pins(t.h), 0);
    talk_play(&t, "> Q SELECT 1\n"
                  "< Z I\n");
    assert_true((hf_holds_pins(t.h) & HF_HOLD_BIT(HF_HOLD_UNKNOWN)) != 0);
    talk_end(&t);
}

static void small(void **state)
{
    struct talk t;

    (void)state;
    talk_begin(&t, QUIET);
    ran(&t, "SELECT 1", "SELECT 1", 'I');
    assert_in_range(hf_holds_bytes(t.h), 1, 1024);
    talk_end(&t);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(free_sessions),
        cmocka_unit_test(empty_query),
        cmocka_unit_test(pins),
        cmocka_unit_test(transaction),
        cmocka_unit_test(doing),
        cmocka_unit_test(empty_commit),
        cmocka_unit_test(settings),
        cmocka_unit_test(settings_of_transactions),
        cmocka_unit_test(early_commit),
        cmocka_unit_test(set_config),
        cmocka_unit_test(prepared),
        cmocka_unit_test(errors),
        cmocka_unit_test(probed),
        cmocka_unit_test(probe_that_fails),
        cmocka_unit_test(probe_at_the_right_time),
        cmocka_unit_test(probe_messages),
        cmocka_unit_test(code),
        cmocka_unit_test(code_that_is_no_answer),
        cmocka_unit_test(encodings),
        cmocka_unit_test(bounds),
        cmocka_unit_test(before_login),
        cmocka_unit_test(small),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
