/* What a session holds, against a real PostgreSQL with a guard: after each statement the server's own catalogues
 * are asked on the same connection what is there, and must agree; and where a session is free, what makes it again on another
 * connection must give the same settings, roles and prepared statements. */
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
#include "real_cases.h"

static struct postgres pg = {.guard_dir = GUARD_DIR};

struct conn {
    int fd;
    struct hf_holds *h; /* NULL: not followed */
    char value[65536];  /* first column of the last row */
    bool error;
    unsigned ready; /* ReadyForQuery since */
    bool extended;  /* a COPY swallows the Sync */
    const char *options; /* of its startup packet; NULL: none */
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

/* One message; its type. */
static char get_message(struct conn *c)
{
    static uint8_t body[1 << 20];
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
    if (head[0] == 'D' && len > 6) {
        uint32_t n;
        memcpy(&n, body + 2, 4);
        n = ntohl(n);
        if (n < sizeof c->value) {
            memcpy(c->value, body + 6, n);
            c->value[n] = '\0';
        }
    }
    return (char)head[0];
}

static void until_ready(struct conn *c, unsigned times)
{
    c->error = false;
    c->value[0] = '\0';
    for (c->ready = 0; c->ready < times;)
        if (get_message(c) == 'G')
            put_all(c,
                    "d\0\0\0\6"
                    "1\nc\0\0\0\4S\0\0\0\4",
                    c->extended ? 17 : 12);
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
static void ask_extended(struct conn *c, const char *name, const char *text)
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
#undef LENGTH
}

static void query_extended(struct conn *c, const char *name, const char *text)
{
    ask_extended(c, name, text);
    c->extended = true;
    until_ready(c, 1);
    c->extended = false;
}

static void connect_with(struct conn *c, struct hf_sql_cache *cache, const char *database, const char *options)
{
    struct sockaddr_un sa = {.sun_family = AF_UNIX};
    uint8_t packet[256] = {0, 0, 0, 0, 0, 3, 0, 0};
    size_t len = 8;
    uint32_t n;

    (void)snprintf(sa.sun_path, sizeof sa.sun_path, "%s/.s.PGSQL.5432", pg.dir);
    memset(c, 0, sizeof *c);
    c->options = options;
    c->fd = socket(AF_UNIX, SOCK_STREAM, 0);
    assert_int_equal(connect(c->fd, (struct sockaddr *)&sa, sizeof sa), 0);
    memcpy(packet + len, "user\0holdfast\0database\0", 23);
    len += 23;
    len += (size_t)sprintf((char *)packet + len, "%s", database) + 1;
    if (options != NULL)
        len += (size_t)sprintf((char *)packet + len, "options%c%s", 0, options) + 1;
    len++;
    n = htonl((uint32_t)len);
    memcpy(packet, &n, 4);
    assert_int_equal(send(c->fd, packet, len, 0), (ssize_t)len);
    if (cache != NULL)
        assert_non_null(c->h = hf_holds_new(cache, packet, len));
    until_ready(c, 1);
    assert_false(c->error);
}

static void connect_to(struct conn *c, struct hf_sql_cache *cache, const char *database)
{
    connect_with(c, cache, database, NULL);
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

/* -- the server's own word --------------------------------------------------------------------- */

/* Of each kind that catalogues show, whether there is something. */
static const struct {
    uint32_t pin;
    const char *there;
} truth[] = {
    {HF_HOLD_BIT(HF_HOLD_LOCK), "SELECT 1 FROM pg_locks WHERE locktype = 'advisory' AND pid = pg_backend_pid()"},
    {HF_HOLD_BIT(HF_HOLD_LISTEN), "SELECT 1 FROM pg_listening_channels()"},
    {HF_HOLD_BIT(HF_HOLD_CURSOR), "SELECT 1 FROM pg_cursors WHERE is_holdable"},
    {HF_HOLD_BIT(HF_HOLD_TEMPORARY), "SELECT 1 FROM pg_class WHERE relnamespace = pg_my_temp_schema() UNION ALL"
                                     " SELECT 1 FROM pg_proc WHERE pronamespace = pg_my_temp_schema() UNION ALL"
                                     " SELECT 1 FROM pg_type WHERE typnamespace = pg_my_temp_schema()"},
};

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

static void remade_equals(struct conn *c, struct hf_sql_cache *cache, const char *database, const char *text)
{
    static char one[65536], two[65536];
    struct conn other;
    uint8_t *bytes;
    size_t len;
    unsigned steps;

    if (hf_holds_by(c->h) != HF_HOLD_NOTHING)
        return;
    state_of(c, one, sizeof one);
    connect_with(&other, cache, database, c->options);
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

static void check(struct conn *c, struct hf_sql_cache *cache, const char *database, const char *text)
{
    if (hf_holds_in_transaction(c->h))
        return;
    for (size_t i = 0; i < sizeof truth / sizeof *truth; i++) {
        bool there = aside(c, truth[i].there)[0] != '\0';
        if (there != ((hf_holds_pins(c->h) & truth[i].pin) != 0))
            fail_msg("%s: %s, but for the server there is %s: %s", text, hf_hold_name(hf_holds_by(c->h)),
                     there ? "one" : "none", truth[i].there);
    }
    remade_equals(c, cache, database, text);
}

static void make(const char *database, const char *const *what, size_t n)
{
    struct conn c;

    connect_to(&c, NULL, database);
    for (size_t i = 0; i < n; i++)
        (void)aside(&c, what[i]);
    disconnect(&c);
}

static void database(const char *name, const char *const *what, size_t n)
{
    char text[64];

    (void)snprintf(text, sizeof text, "CREATE DATABASE %s", name);
    make("postgres", (const char *const[]){text}, 1);
    make(name, what, n);
}

/* -- tests ------------------------------------------------------------------------------------- */

static void each_statement(void **state)
{
    struct hf_sql_cache *cache = hf_sql_cache_new(1 << 20);
    struct conn c;

    (void)state;
    database("each", code, sizeof code / sizeof *code);
    assert_non_null(cache);
    connect_to(&c, cache, "each");
    for (unsigned extended = 0; extended < 2; extended++) {
        for (size_t i = 0; i < sizeof statements / sizeof *statements; i++) {
            const char *text = statements[i].text, *by;
            if (text[0] != ';') {
                disconnect(&c);
                connect_to(&c, cache, "each");
            }
            text += text[0] == ';' ? 2 : 0;
            if (extended != 0)
                query_extended(&c, "", text);
            else
                query(&c, text);
            by = hf_hold_name(hf_holds_by(c.h));
            if (getenv("SHOW") != NULL)
                (void)fprintf(stderr, "%s -> %s%s\n", text, c.error ? "error, " : "", by);
            if (strcmp(by, statements[i].by) != 0)
                fail_msg("%s: %s, not %s", text, by, statements[i].by);
            check(&c, cache, "each", text);
        }
    }
    disconnect(&c);
    hf_sql_cache_free(cache);
}

/* What was made a moment ago through another connection is seen as well as what was there before. */
static void made_a_moment_ago(void **state)
{
    static const char *const first[] = {PLPGSQL("young()", "PERFORM pg_advisory_lock(1);")},
                             *const second[] = {"DROP FUNCTION young", PLPGSQL("young()", "CREATE TEMP TABLE x (a int);")},
                             *const third[] = {"CREATE OR REPLACE FUNCTION turning(float8) RETURNS float8"
                                               " LANGUAGE internal AS 'dsin'"};
    struct hf_sql_cache *cache = hf_sql_cache_new(1 << 20);
    struct conn c;

    (void)state;
    database("moment", NULL, 0);
    connect_to(&c, cache, "moment");
    make("moment", first, 1);
    query(&c, "SELECT young()");
    assert_int_equal(hf_holds_by(c.h), HF_HOLD_LOCK);
    query(&c, "DISCARD ALL");
    assert_int_equal(hf_holds_by(c.h), HF_HOLD_NOTHING);
    make("moment", second, 2);
    query(&c, "SELECT young()");
    assert_int_equal(hf_holds_by(c.h), HF_HOLD_TEMPORARY);
    query(&c, "DISCARD ALL");
    /* One that becomes another: the verdict about it is not kept. */
    query(&c, "CREATE FUNCTION turning(float8) RETURNS float8 LANGUAGE sql AS 'SELECT $1 + random()'");
    query(&c, "SELECT turning(0)");
    assert_int_equal(hf_holds_by(c.h), HF_HOLD_NOTHING);
    make("moment", third, 1);
    query(&c, "SELECT turning(0)");
    assert_int_equal(hf_holds_by(c.h), HF_HOLD_CODE);
    disconnect(&c);
    hf_sql_cache_free(cache);
}

/* By the fast path; and by what a message has parsed, run by EXECUTE: neither is a text of the client's. */
static void ways_around(void **state)
{
    /* Function 2880, one argument in binary, of eight bytes; the result in binary. */
    static const char lock[] = "F\0\0\0\x1c\0\0\x0b\x40\0\1\0\1\0\1\0\0\0\x08\0\0\0\0\0\0\0\7\0\1";
    struct hf_sql_cache *cache = hf_sql_cache_new(1 << 20);
    struct conn c;

    (void)state;
    connect_to(&c, cache, "postgres");
    put_all(&c, lock, sizeof lock - 1);
    until_ready(&c, 1);
    assert_false(c.error);
    assert_int_equal(hf_holds_by(c.h), HF_HOLD_LOCK);
    disconnect(&c);
    connect_to(&c, cache, "postgres");
    query_extended(&c, "s", "SET app.x = 5");
    assert_int_equal(hf_holds_by(c.h), HF_HOLD_NOTHING);
    query(&c, "EXECUTE s");
    assert_true(c.error || hf_holds_pins(c.h) != 0);
    disconnect(&c);
    hf_sql_cache_free(cache);
}

/* A COPY by the extended protocol that fails: up to a Sync PostgreSQL passes over whatever it is sent. The one that was sent along counts
 * only where the COPY has failed before it read anything. */
static void copy_fails(void **state)
{
    static const char *const made[] = {"CREATE TABLE copied (a int)", "CREATE VIEW looks AS SELECT 1 AS a"};
    struct hf_sql_cache *cache = hf_sql_cache_new(1 << 20);
    struct conn c;

    (void)state;
    database("copies", made, 2);
    connect_to(&c, cache, "copies");
    for (unsigned early = 0; early < 2; early++) {
        ask_extended(&c, "", early ? "COPY looks FROM STDIN" : "COPY copied FROM STDIN");
        while (get_message(&c) != 'G')
            ;
        if (!early)
            put_all(&c, "d\0\0\0\6x\n", 7);
        assert_int_equal(get_message(&c), 'E');
        assert_int_equal(hf_holds_by(c.h), HF_HOLD_STATEMENT);
        if (early)
            assert_int_equal(get_message(&c), 'Z');
        put_all(&c, "c\0\0\0\4", 5);
        if (!early)
            assert_int_equal(hf_holds_by(c.h), HF_HOLD_STATEMENT);
        put_all(&c, "S\0\0\0\4", 5);
        until_ready(&c, 1);
        assert_int_equal(hf_holds_by(c.h), HF_HOLD_NOTHING);
        query(&c, "SELECT count(*) FROM copied");
        assert_string_equal(c.value, "0");
    }
    disconnect(&c);
    hf_sql_cache_free(cache);
}

/* The unnamed statement goes with any simple query that PostgreSQL can read, also one that fails; not with others. */
static void unnamed_and_errors(void **state)
{
    static const char run[] = "B\0\0\0\x0c\0\0\0\0\0\0\0\0E\0\0\0\x09\0\0\0\0\0S\0\0\0\4";
    static const struct {
        const char *text;
        bool stays;
    } cases[] = {{"SELECT '\xff'", true}, {"SELEKT", false}, {"SELECT 2", false}};
    static const char *const made[] = {"CREATE DATABASE encoded ENCODING 'UTF8' TEMPLATE template0"};
    struct hf_sql_cache *cache = hf_sql_cache_new(1 << 20);

    (void)state;
    make("postgres", made, 1);
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        struct conn c;
        connect_to(&c, cache, "encoded");
        query_extended(&c, "", "SELECT 'here'");
        query(&c, cases[i].text);
        assert_true(hf_holds_rest(c.h).unnamed || !cases[i].stays);
        put_all(&c, run, sizeof run - 1);
        until_ready(&c, 1);
        assert_string_equal(c.value, cases[i].stays ? "here" : "");
        disconnect(&c);
    }
    hf_sql_cache_free(cache);
}

/* Extensions of which it is known that they leave nothing, but for one function. */
static void extensions(void **state)
{
    static const char *const made[] = {"CREATE EXTENSION hstore", "CREATE EXTENSION pg_trgm", "CREATE EXTENSION dblink"};
    static const struct {
        const char *text;
        enum hf_hold by;
    } cases[] = {{"SELECT 'a=>1'::hstore -> 'a', similarity('a', 'b')", HF_HOLD_NOTHING},
                 {"SELECT set_limit(0.5)", HF_HOLD_CODE},
                 {"SELECT dblink_get_connections()", HF_HOLD_CODE}};
    struct hf_sql_cache *cache = hf_sql_cache_new(1 << 20);
    struct conn c;

    (void)state;
    database("extended", NULL, 0);
    connect_to(&c, NULL, "extended");
    if (strcmp(aside(&c, "SELECT count(*) FROM pg_available_extensions WHERE name IN ('hstore', 'pg_trgm', 'dblink')"), "3") == 0)
        make("extended", made, 3);
    else
        print_message("no extensions here\n");
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        disconnect(&c);
        connect_to(&c, cache, "extended");
        query(&c, cases[i].text);
        if (!c.error && hf_holds_by(c.h) != cases[i].by)
            fail_msg("%s: %s", cases[i].text, hf_hold_name(hf_holds_by(c.h)));
    }
    disconnect(&c);
    hf_sql_cache_free(cache);
}

/* The client cannot say it; and RESET ALL does not end it. */
static void not_for_clients(void **state)
{
    static const char *const tries[] = {"SET holdfast.holds = 5",
                                        "SET LOCAL holdfast.holds TO DEFAULT",
                                        "SELECT set_config('holdfast.holds', '0', false)",
                                        "RESET holdfast.holds",
                                        "ALTER ROLE holdfast SET holdfast.holds = 5",
                                        "ALTER SYSTEM SET holdfast.holds = 5"};
    struct hf_sql_cache *cache = hf_sql_cache_new(1 << 20);
    struct conn c;

    (void)state;
    connect_to(&c, cache, "postgres");
    query(&c, "SELECT pg_advisory_lock(1)");
    for (size_t i = 0; i < sizeof tries / sizeof *tries; i++) {
        query(&c, tries[i]);
        if (!c.error)
            fail_msg("%s", tries[i]);
        assert_int_equal(hf_holds_by(c.h), HF_HOLD_LOCK);
    }
    query(&c, "RESET ALL");
    assert_int_equal(hf_holds_by(c.h), HF_HOLD_LOCK);
    query(&c, "SHOW holdfast.holds");
    assert_int_equal(strncmp(c.value, "lock", 4), 0);
    disconnect(&c);
    hf_sql_cache_free(cache);
}

/* In the middle of a parallel query nothing can be said: it is said behind it. */
static void parallel(void **state)
{
    static const char *const made[] = {"CREATE TABLE big AS SELECT i FROM generate_series(1, 50000) i", "ANALYZE big",
                                       "CREATE FUNCTION seeding(int) RETURNS int PARALLEL RESTRICTED LANGUAGE plpgsql AS"
                                       " $$ BEGIN PERFORM setseed(0.5); RETURN $1; END $$"};
    struct hf_sql_cache *cache = hf_sql_cache_new(1 << 20);
    struct conn c;

    (void)state;
    database("parallel", made, 3);
    connect_to(&c, cache, "parallel");
    query(&c, "SET parallel_setup_cost = 0; SET parallel_tuple_cost = 0; SET min_parallel_table_scan_size = 0");
    query(&c, "BEGIN");
    query(&c, "SELECT count(*) FROM big");
    assert_int_equal(hf_holds_pins(c.h), 0);
    query(&c, "SELECT seeding(max(i)), min(i) FROM big GROUP BY i % 3");
    assert_false(c.error);
    assert_int_equal(hf_holds_pins(c.h), HF_HOLD_BIT(HF_HOLD_SEED));
    disconnect(&c);
    hf_sql_cache_free(cache);
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
    /* Of these each says a part, and keeps the rest. */
    "SET SESSION CHARACTERISTICS AS TRANSACTION READ ONLY",
    "SET SESSION CHARACTERISTICS AS TRANSACTION ISOLATION LEVEL REPEATABLE READ",
    "SET SESSION CHARACTERISTICS AS TRANSACTION READ WRITE, DEFERRABLE",
    "SET SESSION CHARACTERISTICS AS TRANSACTION READ ONLY",
    "SET DateStyle = 'SQL, DMY'",
    "SET DateStyle = ISO",
    "SET DateStyle = YMD",
    "SET DateStyle = 'Postgres'",
    "SET DateStyle = DMY, SQL",
};

/* Whatever gives lastval() a value is said; so that it can be taken away before another session could ask for it. */
static void sequences(void **state)
{
    static const char *const made[] = {"CREATE SEQUENCE q",
                                       "CREATE TABLE own (a int GENERATED ALWAYS AS IDENTITY, b int)",
                                       "CREATE TABLE old (b int)",
                                       "CREATE TABLE picky (a int GENERATED ALWAYS AS IDENTITY, b int CHECK (b > 0))",
                                       "INSERT INTO old VALUES (1)",
                                       "CREATE VIEW looks AS SELECT nextval('q') AS n",
                                       "CREATE FUNCTION counts() RETURNS bigint LANGUAGE plpgsql AS $$ DECLARE n bigint := nextval('q'); BEGIN RETURN n; END $$",
                                       "CREATE FUNCTION fails() RETURNS int LANGUAGE plpgsql AS $$ BEGIN PERFORM nextval('q'); RAISE 'no'; END $$"};
    static const struct {
        const char *text;
        bool quiet; /* nothing to say for certain */
    } cases[] = {{"SELECT * FROM own", true}, {"SELECT 1", true}, {"BEGIN READ ONLY; SELECT count(*) FROM old; COMMIT", true},
                 {"SELECT nextval('q')", false}, {"SELECT setval('q', 7)", false}, {"SELECT * FROM looks", false}, {"SELECT counts()", false},
                 {"SELECT fails()", false}, {"INSERT INTO picky (b) VALUES (-1)", false},
                 {"DO $$ BEGIN INSERT INTO picky (b) VALUES (-1); EXCEPTION WHEN others THEN NULL; END $$", false},
                 {"INSERT INTO own (b) VALUES (1)", false}, {"INSERT INTO own (b) SELECT b FROM old", false},
                 {"UPDATE own SET a = DEFAULT", false}, {"WITH w AS (INSERT INTO own (b) VALUES (2) RETURNING a) SELECT * FROM w", false},
                 {"COPY own (b) FROM STDIN", false}, {"ALTER TABLE old ADD COLUMN id int GENERATED ALWAYS AS IDENTITY", false},
                 {"ALTER TABLE old ADD COLUMN more serial", false}, {"CREATE TABLE copied AS SELECT nextval('q')", false},
                 {"DO $$ BEGIN INSERT INTO own (b) VALUES (3); END $$", false}, {"BEGIN; SELECT nextval('q'); ROLLBACK", false},
                 {"BEGIN; SELECT counts(); DISCARD SEQUENCES; SELECT counts(); COMMIT", false},
                 {"PREPARE x AS SELECT nextval('q'); EXECUTE x", false}, {"VALUES (nextval('q'))", false},
                 {"BEGIN; DECLARE c CURSOR FOR SELECT nextval('q'); FETCH c; COMMIT", false}};
    struct hf_sql_cache *cache = hf_sql_cache_new(1 << 20);

    (void)state;
    assert_non_null(cache);
    database("sequences", made, sizeof made / sizeof *made);
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        struct conn c;
        connect_to(&c, cache, "sequences");
        assert_false(hf_holds_rest(c.h).sequences);
        query(&c, cases[i].text);
        if (hf_holds_rest(c.h).sequences == cases[i].quiet)
            fail_msg("%s", cases[i].text);
        query(&c, "DISCARD SEQUENCES");
        if (hf_holds_rest(c.h).sequences)
            fail_msg("%s: is said to last", cases[i].text);
        query_aside(&c, "SELECT lastval()");
        assert_true(c.error);
        disconnect(&c);
        connect_to(&c, cache, "sequences");
        query(&c, cases[i].text);
        query_aside(&c, "SELECT lastval()");
        if (!c.error && !hf_holds_rest(c.h).sequences)
            fail_msg("%s: has given lastval() a value", cases[i].text);
        disconnect(&c);
    }
    hf_sql_cache_free(cache);
}

static void remade(void **state)
{
    struct hf_sql_cache *cache = hf_sql_cache_new(1 << 20);
    struct conn c;

    (void)state;
    database("remade", NULL, 0);
    make("remade",
         (const char *const[]){"CREATE SCHEMA first",
                               "CREATE SCHEMA second",
                               "CREATE TABLE first.here AS SELECT 'one' AS a",
                               "CREATE TABLE second.here AS SELECT 'two' AS a"},
         4);
    for (unsigned extended = 0; extended < 2; extended++) {
        connect_to(&c, cache, "remade");
        for (size_t i = 0; i < sizeof settings / sizeof *settings; i++) {
            if (extended != 0 && strchr(settings[i], ';') == NULL)
                query_extended(&c, "", settings[i]);
            else
                query(&c, settings[i]);
            remade_equals(&c, cache, "remade", settings[i]);
        }
        query_extended(&c, "named", "SELECT 'x' || pg_backend_pid()");
        remade_equals(&c, cache, "remade", "named");
        disconnect(&c);
    }
    hf_sql_cache_free(cache);
}

/* A role that the login gives is there again behind DISCARD ALL, by each way to give one. */
static void role_of_the_login(void **state)
{
    static const char *const made[] = {"CREATE ROLE given", "CREATE ROLE another"},
                             *const by_database[] = {"ALTER ROLE holdfast IN DATABASE roles SET role = 'given'"},
                             *const then[] = {"DISCARD ALL", "SET ROLE another; DISCARD ALL", "SET ROLE NONE; DISCARD ALL",
                                              "DISCARD ALL; SET ROLE another", "DISCARD ALL; SET ROLE NONE",
                                              "SET SESSION AUTHORIZATION another; DISCARD ALL", "SET ROLE another; RESET ROLE"};
    struct hf_sql_cache *cache = hf_sql_cache_new(1 << 20);
    struct conn c;
    bool before = false; /* a release that leaves none: docs/clients.md */

    (void)state;
    database("roles", made, 2);
    for (unsigned way = 0; way < 2; way++) {
        if (way == 1)
            make("postgres", by_database, 1);
        for (size_t i = 0; i < sizeof then / sizeof *then; i++) {
            char copy[100], *rest = copy, *one;
            connect_with(&c, cache, "roles", way == 0 ? "-c role=given" : NULL);
            (void)snprintf(copy, sizeof copy, "%s", then[i]);
            while ((one = strsep(&rest, ";")) != NULL)
                query(&c, one);
            assert_int_equal(hf_holds_by(c.h), HF_HOLD_NOTHING);
            if (i == 0)
                before = strcmp(aside(&c, "SELECT current_user"), "given") != 0;
            if (!before)
                remade_equals(&c, cache, "roles", then[i]);
            disconnect(&c);
        }
    }
    if (before)
        print_message("no role is left by DISCARD ALL here\n");
    hf_sql_cache_free(cache);
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

    hf_holds_parameter(h, HF_HOLDS_PARAMETER, "none");
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
    assert_int_equal(hf_holds_by(h), HF_HOLD_NOTHING);
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
    double prepared, simple;

    (void)state;
    follow(&prepared, &simple);
    print_message("to follow a statement, prepared: %.2f us; simple: %.2f us\n", prepared, simple);
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
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(each_statement), cmocka_unit_test(made_a_moment_ago), cmocka_unit_test(ways_around), cmocka_unit_test(copy_fails), cmocka_unit_test(unnamed_and_errors),
        cmocka_unit_test(extensions),     cmocka_unit_test(not_for_clients),   cmocka_unit_test(parallel),
        cmocka_unit_test(remade), cmocka_unit_test(role_of_the_login), cmocka_unit_test(sequences),         cmocka_unit_test(cost),
    };

    return cmocka_run_group_tests(tests, start, stop);
}
