/* What a session holds, against a real PostgreSQL: after each statement the server's own catalogues
 * are asked on the same connection what is there, and must agree: never "free" when something is
 * held, and not pinned for ever when nothing is. */
#include <arpa/inet.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <setjmp.h>
#include <cmocka.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <time.h>
#include <unistd.h>

#include "../router/postgres.h"
#include "holds/holds.h"

static struct postgres pg;

struct conn {
    int fd;
    struct hf_holds *h; /* NULL: not followed */
    char value[65536];  /* first column of the last row */
    bool error;
    unsigned ready; /* ReadyForQuery since */
    bool extended;  /* a COPY swallows the Sync */
};

/* -- a small client ---------------------------------------------------------------------------- */

static void put_all(struct conn *c, const void *p, size_t n)
{
    if (c->h != NULL)
        hf_holds_client(c->h, p, n);
    assert_int_equal(send(c->fd, p, n, MSG_NOSIGNAL), (ssize_t)n);
}

static void get_all(struct conn *c, void *p, size_t n)
{
    size_t at = 0;

    while (at < n) {
        ssize_t k = recv(c->fd, (char *)p + at, n - at, 0);
        assert_true(k > 0);
        at += (size_t)k;
    }
    if (c->h != NULL)
        hf_holds_server(c->h, p, n);
}

static void until_ready(struct conn *c, unsigned times)
{
    static uint8_t body[1 << 20];

    c->error = false;
    c->value[0] = '\0';
    for (c->ready = 0; c->ready < times;) {
        uint8_t head[5];
        uint32_t len;
        get_all(c, head, 5);
        memcpy(&len, head + 1, 4);
        len = ntohl(len) - 4;
        assert_true(len < sizeof body);
        get_all(c, body, len);
        c->error = c->error || head[0] == 'E';
        c->ready += head[0] == 'Z';
        if (head[0] == 'E' && getenv("SHOW") != NULL)
            (void)fprintf(stderr, "error: %s\n", (char *)body + 1);
        if (head[0] == 'G')
            put_all(c,
                    "d\0\0\0\6"
                    "1\nc\0\0\0\4S\0\0\0\4",
                    c->extended ? 17 : 12);
        if (head[0] == 'D' && len > 6) {
            uint32_t n;
            memcpy(&n, body + 2, 4);
            n = ntohl(n);
            if (n < sizeof c->value) {
                memcpy(c->value, body + 6, n);
                c->value[n] = '\0';
            }
        }
    }
}

static void query(struct conn *c, const char *text)
{
    size_t len = strlen(text) + 1;
    uint8_t *m = malloc(len + 5);
    uint32_t n = htonl((uint32_t)len + 4);

    assert_non_null(m);
    m[0] = 'Q';
    memcpy(m + 1, &n, 4);
    memcpy(m + 5, text, len);
    put_all(c, m, len + 5);
    free(m);
    until_ready(c, 1);
}

/* Parse, Bind, Describe, Execute, Sync in one piece. */
static void query_extended(struct conn *c, const char *name, const char *text)
{
    uint8_t m[8192] = {'P'};
    size_t at = 5, from = 0;
    uint32_t n;

#define LENGTH() (n = htonl((uint32_t)(at - from - 1)), memcpy(m + from + 1, &n, 4), from = at)
    at += (size_t)sprintf((char *)m + at, "%s", name) + 1;
    at += (size_t)sprintf((char *)m + at, "%s", text) + 1;
    at += 2;
    LENGTH();
    m[at] = 'B';
    at += 5 + 1;
    at += (size_t)sprintf((char *)m + at, "%s", name) + 1;
    at += 6;
    LENGTH();
    memcpy(m + at, "D\0\0\0\6P\0E\0\0\0\x09\0\0\0\0\0S\0\0\0\4", 22);
    put_all(c, m, at + 22);
    c->extended = true;
    until_ready(c, 1);
    c->extended = false;
#undef LENGTH
}

static void connect_to(struct conn *c, struct hf_sql_cache *cache, const char *database)
{
    struct sockaddr_un sa = {.sun_family = AF_UNIX};
    uint8_t packet[256] = {0, 0, 0, 0, 0, 3, 0, 0};
    size_t len = 8;
    uint32_t n;

    (void)snprintf(sa.sun_path, sizeof sa.sun_path, "%s/.s.PGSQL.5432", pg.dir);
    memset(c, 0, sizeof *c);
    c->fd = socket(AF_UNIX, SOCK_STREAM, 0);
    assert_int_equal(connect(c->fd, (struct sockaddr *)&sa, sizeof sa), 0);
    memcpy(packet + len, "user\0holdfast\0database\0", 23);
    len += 23;
    len += (size_t)sprintf((char *)packet + len, "%s", database) + 2;
    n = htonl((uint32_t)len);
    memcpy(packet, &n, 4);
    assert_int_equal(send(c->fd, packet, len, 0), (ssize_t)len);
    if (cache != NULL)
        assert_non_null(c->h = hf_holds_new(cache, packet, len));
    until_ready(c, 1);
    assert_false(c->error);
}

static void disconnect(struct conn *c)
{
    hf_holds_free(c->h);
    close(c->fd);
}

/* On the connection, without being followed. */
static void query_aside(struct conn *c, const char *text)
{
    struct hf_holds *h = c->h;

    c->h = NULL;
    query(c, text);
    c->h = h;
}

static const char *aside(struct conn *c, const char *text)
{
    query_aside(c, text);
    if (c->error)
        fail_msg("%s", text);
    return c->value;
}

static struct hf_code *look_at_code(struct conn *c)
{
    struct hf_code *code;
    const char *value = aside(c, hf_code_query());

    assert_int_equal(hf_code_read(&code, value, strlen(value)), 0);
    return code;
}

/* As its header says. */
static void probe(struct conn *c)
{
    struct hf_holds *h = c->h;
    uint8_t *bytes;
    size_t len;

    c->h = NULL;
    assert_int_equal(hf_holds_probe_make(&bytes, &len), 0);
    put_all(c, bytes, len);
    free(bytes);
    until_ready(c, 1);
    assert_false(c->error);
    c->h = h;
    hf_holds_probe_read(c->h, c->value, strlen(c->value));
}

/* -- the server's own word --------------------------------------------------------------------- */

/* Written apart from the probe: by other views where there are others. */
static const char truth[] =
    "SELECT concat_ws(' ',"
    "(SELECT 'lock' FROM pg_locks WHERE locktype = 'advisory' AND pid = pg_backend_pid() LIMIT 1),"
    "(SELECT 'listen' FROM pg_listening_channels() LIMIT 1),"
    "(SELECT 'temporary' FROM pg_class WHERE relpersistence = 't' AND relnamespace = "
    "pg_my_temp_schema() LIMIT 1),"
    "(SELECT 'temporary function' FROM pg_proc WHERE pronamespace = pg_my_temp_schema() LIMIT 1),"
    "(SELECT 'cursor' FROM pg_cursors WHERE is_holdable LIMIT 1))";

static void check(struct conn *c, const char *text)
{
    const uint32_t visible = HF_HOLD_BIT(HF_HOLD_TEMPORARY) | HF_HOLD_BIT(HF_HOLD_CURSOR) |
                             HF_HOLD_BIT(HF_HOLD_LOCK) | HF_HOLD_BIT(HF_HOLD_LISTEN) |
                             HF_HOLD_BIT(HF_HOLD_UNSURE);
    const char *held = "";

    if (getenv("SHOW") != NULL)
        (void)fprintf(stderr, "%s -> %s%s\n", text, c->error ? "error, " : "",
                      hf_hold_name(hf_holds_by(c->h)));
    if (hf_holds_in_transaction(c->h))
        return;
    held = aside(c, truth);
    if (held[0] != '\0' && hf_holds_by(c->h) == HF_HOLD_NOTHING)
        fail_msg("%s: free, but the server holds: %s", text, held);
    if (!hf_holds_wants_probe(c->h))
        return;
    probe(c);
    held = aside(c, truth);
    if (held[0] != '\0' ? hf_holds_by(c->h) == HF_HOLD_NOTHING
                        : (hf_holds_pins(c->h) & visible) != 0)
        fail_msg("%s: after the probe %s, but the server holds: %s", text,
                 hf_hold_name(hf_holds_by(c->h)), held);
}

/* Each alone in a session, simple and extended. A line that begins with ";" goes on in the session
 * before. */
static const char *const statements[] = {
    "SELECT 1",
    "SELECT * FROM plain",
    "INSERT INTO plain VALUES (1)",
    "INSERT INTO triggered VALUES (1)",
    "SELECT * FROM viewed",
    "SELECT locker()",
    "SELECT public.\"Locker2\"()",
    "SELECT caller()",
    "SELECT quiet_one(1)",
    "SELECT tempmaker()",
    "SELECT temper()",
    "SELECT listener()",
    "SELECT prepare_it()",
    "INSERT INTO defaulted DEFAULT VALUES",
    "SELECT 5 === 5",
    "SELECT atomic()",
    "SELECT summary(a) FROM generate_series(1, 2) a",
    "SELECT hider()",
    "SELECT pg_advisory_lock(1)",
    "; SELECT pg_advisory_unlock(1)",
    "; SELECT pg_advisory_lock_shared(1, 2)",
    "; SELECT pg_advisory_unlock_all()",
    "SELECT pg_try_advisory_lock(1), 1/0",
    "SELECT (1::bigint).pg_advisory_lock",
    "SELECT U&\"pg_advisory\\005flock\"(1)",
    "DO $$ BEGIN PERFORM pg_advisory_lock(1); END $$",
    "DO $$ BEGIN EXECUTE 'LISTEN a'; END $$",
    "CREATE TEMP TABLE t (a int)",
    "; DROP TABLE t",
    "CREATE TEMP TABLE t (a int) ON COMMIT DROP",
    "BEGIN",
    "; CREATE TEMP TABLE t (a int)",
    "; ROLLBACK",
    "BEGIN",
    "; CREATE TEMP TABLE t (a int) ON COMMIT DROP",
    "; COMMIT",
    "SELECT 1 AS a INTO TEMPORARY t",
    "CREATE TEMP VIEW v AS SELECT 1",
    "CREATE TEMP SEQUENCE s",
    "CREATE FUNCTION pg_temp.f() RETURNS int LANGUAGE sql AS 'SELECT 1'",
    "SET search_path = pg_temp",
    "; CREATE TABLE t (a int)",
    "BEGIN",
    "; DECLARE c CURSOR WITH HOLD FOR SELECT * FROM plain",
    "; COMMIT",
    "; CLOSE c",
    "BEGIN",
    "; DECLARE c CURSOR FOR SELECT pg_advisory_lock(3)",
    "; FETCH c",
    "; COMMIT",
    "LISTEN a",
    "; UNLISTEN a",
    "; LISTEN \"B\"",
    "; UNLISTEN *",
    "BEGIN",
    "; LISTEN a",
    "; ROLLBACK",
    "PREPARE p AS SELECT pg_advisory_lock(4)",
    "; EXECUTE p",
    "; DEALLOCATE p",
    "; DISCARD ALL",
    "EXPLAIN ANALYZE SELECT pg_advisory_lock(1)",
    "CREATE TEMP TABLE t AS SELECT 1 AS a",
    "; DISCARD TEMP",
    "SELECT query_to_xml('SELECT pg_advisory_lock(1)', true, true, '')",
    "SELECT set_config('work_mem', '1MB', false)",
    "COPY plain FROM STDIN",
    "COPY (SELECT pg_advisory_lock(1)) TO STDOUT",
    "VACUUM plain",
    "CALL proc()",
    "SELEKT 1",
    "MERGE INTO plain USING (SELECT 1 AS a) s ON plain.a = s.a WHEN MATCHED THEN DO NOTHING",
    "SELECT ts_stat('SELECT to_tsvector(pg_advisory_lock(1)::text)')",
};

static const char *const code[] = {
    "CREATE TABLE plain (a int)",
    "CREATE FUNCTION quiet_one(int) RETURNS int LANGUAGE plpgsql AS $$ BEGIN UPDATE plain SET a = "
    "1;\n"
    "UPDATE plain\nSET a = 2; SET LOCAL work_mem = '1MB'; PERFORM set_config('a.b', 'c', true); "
    "RETURN 1; END $$",
};

static const char *const noisy_code[] = {
    "CREATE FUNCTION locker() RETURNS int LANGUAGE plpgsql AS $$ BEGIN PERFORM "
    "pg_advisory_lock(11); RETURN 1; END $$",
    "CREATE FUNCTION \"Locker2\"() RETURNS int LANGUAGE sql AS $$ SELECT pg_advisory_lock(12); "
    "SELECT 1 $$",
    "CREATE FUNCTION caller() RETURNS int LANGUAGE sql AS $$ SELECT locker() $$",
    "CREATE FUNCTION tempmaker() RETURNS void LANGUAGE plpgsql AS $$ BEGIN CREATE TEMP TABLE made "
    "(a int); END $$",
    "CREATE FUNCTION temper() RETURNS void LANGUAGE plpgsql AS $$ BEGIN CREATE TABLE pg_temp.made "
    "(a int); END $$",
    "CREATE FUNCTION listener() RETURNS void LANGUAGE plpgsql AS $$ BEGIN LISTEN heard; END $$",
    "CREATE FUNCTION prepare_it() RETURNS void LANGUAGE plpgsql AS $$ BEGIN EXECUTE 'PREPARE made "
    "AS SELECT 1'; END $$",
    "CREATE FUNCTION setter() RETURNS void LANGUAGE plpgsql AS $$ BEGIN SET app.x = 1; END $$",
    "CREATE PROCEDURE proc() LANGUAGE plpgsql AS $$ BEGIN PERFORM pg_advisory_lock(13); COMMIT; "
    "END $$",
    "CREATE FUNCTION step(int, int) RETURNS int LANGUAGE sql AS $$ SELECT pg_advisory_lock(15); "
    "SELECT 1 $$",
    "CREATE AGGREGATE summary(int) (SFUNC = step, STYPE = int, INITCOND = 0)",
    "CREATE FUNCTION hider() RETURNS void LANGUAGE sql SET search_path = pg_temp AS $$ CREATE "
    "TABLE x (a int) $$",
    "CREATE FUNCTION atomic() RETURNS void BEGIN ATOMIC SELECT pg_advisory_lock(14); END",
};

static const char *const implicit_code[] = {
    "CREATE TABLE triggered (a int)",
    "CREATE FUNCTION fired() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN PERFORM "
    "pg_advisory_lock(21); RETURN NEW; END $$",
    "CREATE TRIGGER fires BEFORE INSERT ON triggered FOR EACH ROW EXECUTE FUNCTION fired()",
    "CREATE VIEW viewed AS SELECT pg_try_advisory_lock(22)",
    "CREATE TABLE defaulted (a int DEFAULT locker())",
    "CREATE FUNCTION eq(int, int) RETURNS boolean LANGUAGE plpgsql AS $$ BEGIN PERFORM "
    "pg_advisory_lock(23); RETURN true; END $$",
    "CREATE OPERATOR === (LEFTARG = int, RIGHTARG = int, FUNCTION = eq)",
};

static void run_statements(const char *database)
{
    struct hf_sql_cache *cache = hf_sql_cache_new(1 << 20);
    struct conn c;
    struct hf_code *known;

    assert_non_null(cache);
    connect_to(&c, NULL, database);
    known = look_at_code(&c);
    for (unsigned extended = 0; extended < 2; extended++) {
        for (size_t i = 0; i < sizeof statements / sizeof *statements; i++) {
            const char *text = statements[i];
            if (text[0] != ';') {
                disconnect(&c);
                connect_to(&c, cache, database);
                hf_holds_set_code(c.h, known);
            }
            text += text[0] == ';' ? 2 : 0;
            if (extended != 0)
                query_extended(&c, "", text);
            else
                query(&c, text);
            check(&c, text);
        }
    }
    disconnect(&c);
    hf_code_free(known);
    hf_sql_cache_free(cache);
}

static void make(const char *database, const char *const *what, size_t n)
{
    struct conn c;

    connect_to(&c, NULL, database);
    for (size_t i = 0; i < n; i++)
        (void)aside(&c, what[i]);
    disconnect(&c);
}

#define MAKE(database, what) make(database, what, sizeof what / sizeof *what)

static void database(const char *name)
{
    char text[64];

    (void)snprintf(text, sizeof text, "CREATE DATABASE %s", name);
    make("postgres", (const char *const[]){text}, 1);
    MAKE(name, code);
}

/* -- tests ------------------------------------------------------------------------------------- */

/* A database whose own code leaves nothing: functions there are, and names of others, but none runs
 * unasked. */
static void quiet(void **state)
{
    struct hf_code *known;
    struct conn c;

    (void)state;
    database("quiet");
    connect_to(&c, NULL, "quiet");
    known = look_at_code(&c);
    assert_int_equal(hf_code_worst(known), HF_CODE_NOTHING);
    hf_code_free(known);
    disconnect(&c);
    run_statements("quiet");
}

static void noisy(void **state)
{
    struct hf_code *known;
    struct conn c;

    (void)state;
    database("noisy");
    MAKE("noisy", noisy_code);
    connect_to(&c, NULL, "noisy");
    known = look_at_code(&c);
    assert_int_equal(hf_code_unnamed(known), HF_CODE_NOTHING);
    assert_int_equal(hf_code_worst(known), HF_CODE_HIDDEN);
    hf_code_free(known);
    disconnect(&c);
    run_statements("noisy");
}

static void implicit(void **state)
{
    struct hf_code *known;
    struct conn c;

    (void)state;
    database("implicit");
    MAKE("implicit", noisy_code);
    MAKE("implicit", implicit_code);
    connect_to(&c, NULL, "implicit");
    known = look_at_code(&c);
    assert_int_equal(hf_code_unnamed(known),
                     HF_CODE_HIDDEN); /* of views the query does not say more */
    hf_code_free(known);
    (void)aside(&c, "DROP VIEW viewed");
    known = look_at_code(&c);
    assert_int_equal(hf_code_unnamed(known), HF_CODE_VISIBLE);
    hf_code_free(known);
    disconnect(&c);
    run_statements("implicit");
}

/* The state that can be asked for, as one text: names and values of settings, roles, prepared
 * statements. */
static void state_of(struct conn *c, char *out, size_t cap)
{
    static const char *const parts[] = {
        "SELECT string_agg(name || '=' || setting, ', ' ORDER BY name) FROM pg_settings WHERE "
        "source IN ('session', 'client')",
        "SELECT concat_ws(' ', current_user, session_user, current_setting('role'), "
        "coalesce(current_setting('app.x', true), ''))",
        "SELECT string_agg(name || ':' || statement || parameter_types::text || from_sql, ', ' "
        "ORDER BY name)"
        " FROM pg_prepared_statements",
    };
    size_t at = 0;

    for (size_t i = 0; i < sizeof parts / sizeof *parts; i++)
        at += (size_t)snprintf(out + at, cap - at, "%s\n", aside(c, parts[i]));
}

static const char *const settings[] = {
    "SET work_mem = '1MB'",
    "SET TIME ZONE 'Europe/Berlin'",
    "SET app.x = 'it''s'",
    "SELECT set_config('app.x', 'b''', false)",
    "SET search_path = first, public",
    "PREPARE a AS SELECT * FROM here",
    "SET search_path = second",
    "PREPARE b (int) AS SELECT * FROM here WHERE $1 = 1",
    "BEGIN",
    "SET LOCAL work_mem = '3MB'",
    "SAVEPOINT s",
    "SET enable_seqscan = off",
    "ROLLBACK TO s",
    "SET enable_indexscan = off",
    "COMMIT",
    "BEGIN",
    "SET work_mem = '4MB'",
    "ROLLBACK",
    "SET statement_timeout = 1000; SELECT 1/0",
    "SET application_name = 'x'; SET lock_timeout = 7",
    "SET SESSION CHARACTERISTICS AS TRANSACTION ISOLATION LEVEL SERIALIZABLE",
    "SET ROLE other",
    "RESET lock_timeout",
    "RESET ALL",
    "SET DateStyle = 'German'",
    "SET SESSION AUTHORIZATION other",
    "SET ROLE NONE",
    "RESET SESSION AUTHORIZATION",
    "DEALLOCATE a",
    "SET search_path = first; SET work_mem = '2MB'",
};

static void remade_equals(struct conn *c, struct hf_sql_cache *cache, const char *text)
{
    static char one[65536], two[65536];
    struct conn other;
    uint8_t *bytes;
    size_t len;
    unsigned steps;

    if (hf_holds_in_transaction(c->h))
        return;
    state_of(c, one, sizeof one);
    connect_to(&other, cache, "remade");
    assert_int_equal(hf_holds_remake(c->h, &bytes, &len, &steps), 0);
    if (steps > 0) {
        assert_int_equal(send(other.fd, bytes, len, 0), (ssize_t)len);
        hf_holds_free(other.h);
        other.h = NULL;
        until_ready(&other, steps);
        assert_false(other.error);
    }
    state_of(&other, two, sizeof two);
    if (strcmp(one, two) != 0)
        fail_msg("after %s:\n%s\nmade again:\n%s", text, one, two);
    /* And the statements mean the same. */
    if (strstr(one, "a:") != NULL) {
        query_aside(c, "EXECUTE a");
        query_aside(&other, "EXECUTE a");
        assert_int_equal(c->error, other.error);
        assert_string_equal(c->value, other.value);
    }
    free(bytes);
    disconnect(&other);
}

static void remade(void **state)
{
    struct hf_sql_cache *cache = hf_sql_cache_new(1 << 20);
    struct conn c;

    (void)state;
    database("remade");
    make("remade",
         (const char *const[]){"CREATE ROLE other SUPERUSER", "CREATE SCHEMA first",
                               "CREATE SCHEMA second",
                               "CREATE TABLE first.here AS SELECT 'one' AS a",
                               "CREATE TABLE second.here AS SELECT 'two' AS a"},
         5);
    for (unsigned extended = 0; extended < 2; extended++) {
        connect_to(&c, cache, "remade");
        for (size_t i = 0; i < sizeof settings / sizeof *settings; i++) {
            if (extended != 0 && strchr(settings[i], ';') == NULL)
                query_extended(&c, "", settings[i]);
            else
                query(&c, settings[i]);
            remade_equals(&c, cache, settings[i]);
        }
        query_extended(&c, "named", "SELECT 'x' || pg_backend_pid()");
        remade_equals(&c, cache, "named");
        disconnect(&c);
    }
    hf_sql_cache_free(cache);
}

/* It leaves what it finds: the unnamed statement, which a simple query would drop, no statement of its own,
 * and nothing after a failure that would make the next one fail. */
static void probed(void **state)
{
    static const char unnamed[] = "P\0\0\0\x21\0SELECT 'still ' || 'here'\0\0\0S\0\0\0\4",
                      again[] = "B\0\0\0\x0c\0\0\0\0\0\0\0\0E\0\0\0\x09\0\0\0\0\0S\0\0\0\4";
    struct hf_sql_cache *cache = hf_sql_cache_new(1 << 20);
    struct hf_code *known;
    struct conn c;

    (void)state;
    connect_to(&c, NULL, "postgres");
    known = look_at_code(&c);
    disconnect(&c);
    connect_to(&c, cache, "postgres");
    hf_holds_set_code(c.h, known);
    query_aside(&c, "PREPARE \"holdfast probe\" AS SELECT 1"); /* as a failed one leaves it */
    query(&c, "PREPARE other AS SELECT 1");
    query(&c, "SELECT pg_advisory_lock(1)");
    query(&c, "SELECT pg_advisory_unlock(1)");
    put_all(&c, unnamed, sizeof unnamed - 1);
    until_ready(&c, 1);
    assert_false(c.error);
    assert_true(hf_holds_wants_probe(c.h));
    probe(&c);
    assert_string_equal(c.value, "prepared 1 end");
    assert_int_equal(hf_holds_by(c.h), HF_HOLD_NOTHING);
    assert_false(hf_holds_wants_probe(c.h));
    put_all(&c, again, sizeof again - 1);
    until_ready(&c, 1);
    assert_string_equal(c.value, "still here");
    assert_string_equal(aside(&c, "SELECT string_agg(name, ',') FROM pg_prepared_statements"), "other");
    disconnect(&c);
    hf_code_free(known);
    hf_sql_cache_free(cache);
}

static double each_us(struct conn *c, const char *text, unsigned times)
{
    struct timespec a, b;

    (void)clock_gettime(CLOCK_MONOTONIC, &a);
    for (unsigned i = 0; i < times; i++)
        (void)aside(c, text);
    (void)clock_gettime(CLOCK_MONOTONIC, &b);
    return ((double)(b.tv_sec - a.tv_sec) * 1e6 + (double)(b.tv_nsec - a.tv_nsec) / 1e3) / times;
}

/* A round of Bind, Execute, Sync of a named statement, and of a simple query, with their answers.
 */
static void follow(double *prepared_us, double *simple_us)
{
    static const uint8_t parse[] = "P\0\0\0\x20s\0SELECT a FROM t WHERE b\0\0\0S\0\0\0\4",
                         parsed[] = "1\0\0\0\4Z\0\0\0\5I",
                         bind[] = "B\0\0\0\x0d\0s\0\0\0\0\0\0\0E\0\0\0\x09\0\0\0\0\0S\0\0\0\4",
                         bound[] =
                             "2\0\0\0\4D\0\0\0\x0b\0\1\0\0\0\1xC\0\0\0\x0dSELECT 1\0Z\0\0\0\5I",
                         text[] =
                             "Q\0\0\0\x38UPDATE accounts SET balance = balance + 1 WHERE i=7\0",
                         answer[] = "C\0\0\0\x0dUPDATE 1\0Z\0\0\0\5I";
    struct hf_sql_cache *cache = hf_sql_cache_new(1 << 20);
    struct hf_holds *h = hf_holds_new(cache, NULL, 0);
    struct timespec t[3];

    hf_holds_started(h, false);
    hf_holds_client(h, parse, sizeof parse - 1);
    hf_holds_server(h, parsed, sizeof parsed - 1);
    (void)clock_gettime(CLOCK_THREAD_CPUTIME_ID, &t[0]);
    for (unsigned i = 0; i < 100000; i++) {
        hf_holds_client(h, bind, sizeof bind - 1);
        hf_holds_server(h, bound, sizeof bound - 1);
    }
    (void)clock_gettime(CLOCK_THREAD_CPUTIME_ID, &t[1]);
    for (unsigned i = 0; i < 100000; i++) {
        hf_holds_client(h, text, sizeof text - 1);
        hf_holds_server(h, answer, sizeof answer - 1);
    }
    (void)clock_gettime(CLOCK_THREAD_CPUTIME_ID, &t[2]);
    assert_int_equal(hf_holds_by(h), HF_HOLD_DATABASE);
    assert_int_equal(hf_holds_pins(h), HF_HOLD_BIT(HF_HOLD_DATABASE));
    assert_int_equal(hf_holds_doing(h), HF_DOING_NOTHING);
    print_message("memory: %zu bytes\n", hf_holds_bytes(h));
    *prepared_us =
        (double)(t[1].tv_sec - t[0].tv_sec) * 10 + (double)(t[1].tv_nsec - t[0].tv_nsec) / 1e8;
    *simple_us =
        (double)(t[2].tv_sec - t[1].tv_sec) * 10 + (double)(t[2].tv_nsec - t[1].tv_nsec) / 1e8;
    hf_holds_free(h);
    hf_sql_cache_free(cache);
}

/* For docs/clients.md; no bound, the machine may be busy. */
static void cost(void **state)
{
    struct conn c;
    double prepared, simple;

    (void)state;
    follow(&prepared, &simple);
    print_message("to follow a statement, prepared: %.2f us; simple: %.2f us\n", prepared, simple);
    connect_to(&c, NULL, "implicit");
    print_message(
        "SELECT 1: %.0f us; probe: %.0f us; look at the database: %.0f us; pg_settings: %.0f us\n",
        each_us(&c, "SELECT 1", 100), each_us(&c, hf_holds_probe_query(), 100),
        each_us(&c, hf_code_query(), 10),
        each_us(&c, "SELECT string_agg(name, ',') FROM pg_settings WHERE source = 'session'", 10));
    disconnect(&c);
}

static int start(void **state)
{
    (void)state;
    (void)alarm(110); /* an answer that does not come */
    return postgres_open(&pg) ? 0 : -1;
}

static int stop(void **state)
{
    (void)state;
    postgres_close(&pg);
    return 0;
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(quiet), cmocka_unit_test(noisy),
                                       cmocka_unit_test(implicit), cmocka_unit_test(remade), cmocka_unit_test(probed),
                                       cmocka_unit_test(cost)};

    return cmocka_run_group_tests(tests, start, stop);
}
