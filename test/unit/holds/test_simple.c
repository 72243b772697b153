/* What a session holds, by the simple protocol. */
#include "talk.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static void free_sessions(void **state)
{
    struct talk t;

    (void)state;
    talk_begin(&t);
    talk_play(&t, "* SELECT 1 => SELECT 1 I\n"
                  "= free\n"
                  "* INSERT INTO t VALUES (nextval('s'), now()) RETURNING id => INSERT 0 1 I\n"
                  "= free\n");
    ran(&t, "/* pg_advisory_lock( */ SELECT 'pg_advisory_lock(1)', $$x$$, E'\\'' -- setseed\n",
        "SELECT 1", 'I');
    talk_play(&t, "= free\n"
                  "* CREATE TABLE t (a int) => CREATE TABLE I\n"
                  "= free\n");
    talk_play(&t, "*  =>  I\n" /* no such tag: an answer to a statement that was none */
                  "= not understood\n");
    talk_end(&t);
}

static void empty_query(void **state)
{
    (void)state;
    talk_all("> Q  ; -- nothing\n"
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
        {"CREATE TEMP TABLE t (a int)", "CREATE TABLE", HF_HOLD_NOTHING}, /* for the guard to say */
        {"LISTEN a", "LISTEN", HF_HOLD_NOTHING},
        {"LOAD 'x'", "LOAD", HF_HOLD_NOTHING},
        {"DECLARE c CURSOR WITH HOLD FOR SELECT 1", "DECLARE CURSOR", HF_HOLD_NOTHING},
        {"SELECT pg_advisory_lock(1)", "SELECT 1", HF_HOLD_NOTHING},
        {"SET seed = 0.5", "SET", HF_HOLD_NOTHING},
        {"DO LANGUAGE plperl $$ 1 $$", "DO", HF_HOLD_NOTHING},
        {"SET work_mem FROM CURRENT", "SET", HF_HOLD_SETTING},
        /* Two statements, with one answer. */
        {"SELECT 'a\\'; SET a.b = 1; SELECT 'b' -- '", "SELECT 1", HF_HOLD_UNKNOWN},
        {"SELECT E'a'\n '\\''; SET a.b = 1; SELECT 'b' -- '", "SELECT 1", HF_HOLD_UNKNOWN},
        {"SELECT $a$'$a$; SET a.b = 1; SELECT '$a$'", "SELECT 1", HF_HOLD_UNKNOWN},
        {"SELECT a$b$; SET a.b = 1; SELECT '$b$' FROM t", "SELECT 1", HF_HOLD_UNKNOWN},
        {"SELECT 1 /* /* */ ' */; SET a.b = 1 -- '", "SELECT 1", HF_HOLD_UNKNOWN},
        {"SELECT \"a'\" FROM t; SET a.b = 1; SELECT \"'\" FROM t", "SELECT 1", HF_HOLD_UNKNOWN},
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
        talk_begin(&t);
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
    talk_begin(&t);
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
        {"BEGIN; INSERT INTO t VALUES (1); BEGIN READ ONLY; COMMIT", HF_DOING_COMMIT},
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
        talk_begin(&t);
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
    talk_all("* BEGIN => BEGIN T\n"
                    "* SELECT 1 => SELECT 1 T\n"
                    "> Q COMMIT\n"
                    "? transaction\n"
                    "< C COMMIT\n"
                    "< Z I\n"
                    "* BEGIN => BEGIN T\n"
                    "* INSERT INTO t VALUES (1) => INSERT 0 1 T\n"
                    "* BEGIN READ ONLY => BEGIN T\n" /* with a warning */
                    "> Q COMMIT\n"
                    "? commit\n"
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
    talk_all("* SET statement_timeout TO '5s' => SET I\n"
                    "* set Application_Name = 'x'; set time zone 'UTC' => SET I\n"
                    "= not understood\n"); /* two statements, one answer */

    talk_all("* SET statement_timeout TO '5s' => SET I\n"
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
                    "@ SET SESSION AUTHORIZATION u\n" /* which leaves no role */
                    "@ SET SESSION CHARACTERISTICS AS TRANSACTION READ ONLY\n"
                    "* DISCARD ALL => DISCARD ALL I\n"
                    "@\n"
                    "= free\n"
                    "* SET transaction_isolation = 'serializable' => SET I\n"
                    "* SET transaction_timeout = '5s' => SET I\n" /* of PostgreSQL 17: the session's */
                    "@ SET transaction_timeout = '5s'\n");
}

/* What makes no difference any more is not said again: the role may be gone. */
static void authorizations(void **state)
{
    (void)state;
    talk_all("* SET SESSION AUTHORIZATION u => SET I\n"
             "* SET ROLE r => SET I\n"
             "* PREPARE p AS SELECT 1; => PREPARE I\n"
             "* SET ROLE q => SET I\n"
             "* RESET SESSION AUTHORIZATION => RESET I\n"
             "@ SET SESSION AUTHORIZATION u\n"
             "@ SET ROLE r\n"
             "@ PREPARE p AS SELECT 1;\n"
             "@ RESET SESSION AUTHORIZATION\n"
             "* DEALLOCATE p => DEALLOCATE I\n"
             "@ RESET SESSION AUTHORIZATION\n"
             "* SET ROLE q => SET I\n"
             "@ RESET SESSION AUTHORIZATION\n"
             "@ SET ROLE q\n");
}

static void settings_of_transactions(void **state)
{
    (void)state;
    talk_all("* BEGIN => BEGIN T\n"
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
    talk_all("> Q SET a.b = 3; CALL p(); SELECT 1/0\n" /* p() may have committed */
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
    talk_all("> Q SELECT pg_catalog.set_config('App.Name', 'it''s', false)\n"
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
                    "@ SET app.name = 'c'\n");
}

/* -- prepared statements by SQL ---------------------------------------------------------------- */

static void prepared(void **state)
{
    struct talk t;

    (void)state;
    talk_all("> Q SET search_path = a; PREPARE p AS SELECT * FROM t\n"
                    "< C SET\n"
                    "< C PREPARE\n"
                    "< Z I\n"
                    "= prepared statement\n");

    talk_begin(&t);
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
                  "= free\n"
                  "* DEALLOCATE ALL => DEALLOCATE ALL I\n"
                  "= free\n"
                  "* EXECUTE other => SELECT 1 I\n"
                  "= not understood\n");
    talk_end(&t);
}

/* Settings that say how a constant in a statement is read stay before it, whatever they are then. */
static void prepared_under_settings(void **state)
{
    static const char *const names[] = {"datestyle", "timezone", "timezone_abbreviations"};

    (void)state;
    for (size_t i = 0; i < sizeof names / sizeof *names; i++) {
        char steps[512], remake[512];
        struct talk t;
        (void)snprintf(steps, sizeof steps,
                       "* SET %1$s = 'a' => SET I\n"
                       "* PREPARE p AS SELECT '2020-01-01 EST'::timestamptz => PREPARE I\n"
                       "* SET %1$s = DEFAULT => SET I\n", names[i]);
        (void)snprintf(remake, sizeof remake,
                       "SET %1$s = 'a'\n"
                       "PREPARE p AS SELECT '2020-01-01 EST'::timestamptz\n"
                       "SET %1$s = DEFAULT\n", names[i]);
        talk_begin(&t);
        talk_play(&t, steps);
        assert_remake(&t, remake);
        talk_end(&t);
    }
}

/* -- errors ------------------------------------------------------------------------------------ */

static void errors(void **state)
{
    (void)state;
    talk_all("> Q LISTEN a\n"
             "< C LISTEN\n"
             "< held listen\n"
             "< Z I\n"
             "= LISTEN\n"
             "> Q UNLISTEN a\n"
             "< C UNLISTEN\n"
             "< held none\n"
             "= LISTEN\n" /* its end has not been heard */
             "< Z I\n"
             "= free\n"
             "* SELEKT 1 => !42601 I\n"
             "= free\n"
             "* CREATE TEMP TABLE t (a int) => !42P07 I\n"
             "= free\n"
             "* SET a.b FROM CURRENT => !42704 I\n"
             "= free\n"
             "* DO SOMETHING NEW WITH f() => !22012 I\n" /* what it has left the guard says */
             "= free\n"
             "> Q SELECT pg_advisory_lock(1), 1/0\n"
             "< E 22012\n"
             "< held lock\n"
             "< Z I\n"
             "= advisory lock\n");
}

/* -- the guard --------------------------------------------------------------------------------- */

/* What it says counts in place of what it said before; and nothing that it says is passed over. */
static void guard(void **state)
{
    static const struct {
        const char *said, *by;
    } cases[] = {
        {"none", "free"},
        {"temporary", "temporary table"},
        {"cursor", "WITH HOLD cursor"},
        {"lock", "advisory lock"},
        {"listen", "LISTEN"},
        {"currval", "currval"},
        {"seed", "setseed"},
        {"load", "LOAD"},
        {"prepared", "prepared statement"},
        {"slot", "replication"},
        {"code", "function"},
        {"lock temporary config:2", "temporary table"},
        {"config:4294967295", "free"},
        {"config:4294967296", "not understood"},
        {"config:", "not understood"},
        {"config:1x", "not understood"},
        {"none of it", "not understood"},
        {"nonee", "not understood"},
        {"", "not understood"},
    };
    struct talk t;

    (void)state;
    talk_begin(&t);
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        c_query(&t, "SELECT f()");
        s_complete(&t, "SELECT 1");
        s_parameter(&t, HF_HOLDS_PARAMETER, cases[i].said);
        assert_by(&t, hf_holds_pins(t.h) != 0 ? hf_holds_by(t.h) : HF_HOLD_STATEMENT);
        s_ready(&t, 'I');
        if (strcmp(hf_hold_name(hf_holds_by(t.h)), strcmp(cases[i].by, "free") == 0 ? "nothing" : cases[i].by) != 0)
            fail_msg("%s: %s", cases[i].said, hf_hold_name(hf_holds_by(t.h)));
    }
    talk_end(&t);
}

/* A value that does not come whole is none that can be read. */
static void guard_cut(void **state)
{
    char value[600];
    struct talk t;

    (void)state;
    memset(value, ' ', sizeof value - 1);
    value[sizeof value - 1] = '\0';
    talk_begin(&t);
    s_parameter(&t, HF_HOLDS_PARAMETER, value);
    talk_play(&t, "= not understood\n");
    talk_end(&t);
}

/* No word of it from the new server: whatever runs there, nobody knows. */
static void guard_missing(void **state)
{
    struct talk t;
    size_t len;

    (void)state;
    talk_begin(&t);
    hf_holds_lost(t.h);
    hf_holds_lost(t.cut);
    hf_holds_started(t.h, false);
    hf_holds_started(t.cut, false);
    talk_play(&t, "= no guard\n"
                  "* DISCARD ALL => DISCARD ALL I\n"
                  "= no guard\n");
    assert_false(hf_holds_may_survive(t.h));
    hf_holds_parameter(t.h, HF_HOLDS_PARAMETER, "none"); /* too late */
    hf_holds_parameter(t.cut, HF_HOLDS_PARAMETER, "none");
    talk_play(&t, "* SELECT 1 => SELECT 1 I\n"
                  "= no guard\n");
    assert_null(hf_holds_startup(t.h, &len));
    talk_end(&t);
}

/* What it says when a connection begins is from before the session. */
static void guard_begins(void **state)
{
    struct talk t;

    (void)state;
    talk_begin(&t);
    hf_holds_lost(t.h);
    hf_holds_lost(t.cut);
    hf_holds_parameter(t.h, HF_HOLDS_PARAMETER, "lock config:5 setting:3");
    hf_holds_parameter(t.cut, HF_HOLDS_PARAMETER, "lock config:5 setting:3");
    hf_holds_started(t.h, false);
    hf_holds_started(t.cut, false);
    talk_play(&t, "= advisory lock\n"
                  "> Q SELECT 1\n"
                  "< C SELECT 1\n"
                  "< held config:5 setting:3\n" /* those were counted before */
                  "< Z I\n"
                  "= free\n");
    talk_end(&t);
}

/* Calls of set_config() that are read are accounted for; others may have set anything, if they have set something. */
static void accounts(void **state)
{
    (void)state;
    talk_all("> Q SELECT set_config('a.b', 'x', false)\n"
             "< D x\n"
             "< C SELECT 1\n"
             "< held config:1 setting:1\n"
             "< Z I\n"
             "= free\n"
             "@ SELECT pg_catalog.set_config('a.b', 'x', false)\n"
             "> Q SELECT f()\n" /* until its transaction ends */
             "< C SELECT 1\n"
             "< held config:3 setting:1\n"
             "< Z I\n"
             "= free\n"
             "> Q SELECT set_config('a.b', $1::d, false)\n" /* whose domain has a CHECK that calls it, too */
             "< D x\n"
             "< C SELECT 1\n"
             "< held config:5 setting:2\n"
             "< Z I\n"
             "= setting\n"
             "* DISCARD ALL => DISCARD ALL I\n"
             "= free\n");
    talk_all("* BEGIN => BEGIN T\n"
             "> Q SELECT set_config('a.b', 'x', true), set_config('a.c', 'y', true)\n"
             "< C SELECT 1\n"
             "< held config:2\n"
             "< Z T\n"
             "* SET a.d = 1 => SET T\n"
             "> Q COMMIT\n"
             "< C COMMIT\n"
             "< held config:2 setting:1\n"
             "< Z I\n"
             "= free\n");
    talk_all("* BEGIN => BEGIN T\n"
             "> Q SELECT f()\n"
             "< C SELECT 1\n"
             "< held config:1\n"
             "< Z T\n"
             "* SELECT 1 => SELECT 1 T\n"
             "> Q COMMIT\n"
             "< C COMMIT\n"
             "< held config:1 setting:1\n"
             "< Z I\n"
             "= setting\n");
    talk_all("* BEGIN => BEGIN T\n"
             "> Q SELECT f()\n"
             "< C SELECT 1\n"
             "< held config:1\n"
             "< Z T\n"
             "* ROLLBACK => ROLLBACK I\n"
             "> Q SELECT set_config('a.b', 'x', false)\n"
             "< D x\n"
             "< C SELECT 1\n"
             "< held config:2 setting:1\n"
             "< Z I\n"
             "= free\n");
    /* By a trigger that was deferred, in the COMMIT itself. */
    talk_all("* BEGIN => BEGIN T\n"
             "* INSERT INTO t VALUES (1) => INSERT 0 1 T\n"
             "> Q COMMIT\n"
             "< C COMMIT\n"
             "< held config:1 setting:1\n"
             "< Z I\n"
             "= setting\n");
    /* A call that failed: it may have been another. */
    talk_all("* BEGIN => BEGIN T\n"
             "* SAVEPOINT s => SAVEPOINT T\n"
             "> Q SELECT set_config('a.b', 'x', false)\n"
             "< E 22023\n"
             "< held config:1\n"
             "< Z E\n"
             "* ROLLBACK TO s => ROLLBACK T\n"
             "* SET a.c = 1 => SET T\n"
             "> Q COMMIT\n"
             "< C COMMIT\n"
             "< held config:1 setting:1\n"
             "< Z I\n"
             "= setting\n");
}

/* DISCARD ALL leaves the role of the login, as another connection has it. */
static void discarded_role(void **state)
{
    static const struct {
        const char *packet;
        size_t n;
    } cases[] = {
#define PACKET(names) "\0\0\0\x20\0\3\0\0" names "\0", sizeof("\0\0\0\x20\0\3\0\0" names "\0")
        {PACKET("user\0me\0options\0-c role=r")},
        {PACKET("role\0r\0user\0me")},
        {PACKET("user\0me\0options")}, /* cut */
#undef PACKET
    };
    struct talk t;

    (void)state;
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        talk_begin_with(&t, cases[i].packet, cases[i].n);
        talk_play(&t, "@\n"
                      "* SET ROLE s => SET I\n"
                      "@ SET ROLE s\n"
                      "* DISCARD ALL => DISCARD ALL I\n"
                      "@\n"
                      "* RESET ALL => RESET I\n"
                      "@\n"
                      "* SET ROLE s => SET I\n"
                      "@ SET ROLE s\n"
                      "= free\n");
        talk_end(&t);
    }
}

/* -- what cannot be read ----------------------------------------------------------------------- */

static void encodings(void **state)
{
    (void)state;
    talk_all("< S client_encoding SJIS\n"
                    "= not understood\n");
    talk_all("< S standard_conforming_strings off\n"
                    "= not understood\n"
                    "* DISCARD ALL => DISCARD ALL I\n" /* the role's default: it stays */
                    "= not understood\n"
                    "< S standard_conforming_strings on\n"
                    "* DISCARD ALL => DISCARD ALL I\n"
                    "= free\n"
                    "< S client_encoding SJIS\n"
                    "> Q DISCARD ALL\n"
                    "< C DISCARD ALL\n"
                    "< S client_encoding UTF8\n"
                    "< Z I\n"
                    "= free\n");
}

static void bounds(void **state)
{
    struct talk t;
    char *big = malloc(HF_SQL_TEXT_MAX + 32);

    (void)state;
    assert_non_null(big);
    talk_begin(&t);
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
    talk_begin(&t);
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
    talk_begin(&t);
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
        cmocka_unit_test(authorizations), cmocka_unit_test(settings_of_transactions),
        cmocka_unit_test(early_commit),
        cmocka_unit_test(set_config),
        cmocka_unit_test(prepared),
        cmocka_unit_test(prepared_under_settings),
        cmocka_unit_test(errors),
        cmocka_unit_test(guard),
        cmocka_unit_test(guard_cut),
        cmocka_unit_test(guard_missing),
        cmocka_unit_test(guard_begins),
        cmocka_unit_test(accounts),
        cmocka_unit_test(discarded_role), cmocka_unit_test(encodings),
        cmocka_unit_test(bounds),
        cmocka_unit_test(before_login),
        cmocka_unit_test(small),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
