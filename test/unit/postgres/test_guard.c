/* The guard (src/guard, S11) in a real leader, whose only follower comes and goes by its relay. */
#include <poll.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#include "base/clock.h"
#include "fixture.h"
#include "postgres/private.h"
#include "postgres/user_settings.h"

enum { PATIENCE_MS = 20000 };

static struct server a, b;

/* --- a client -----------------------------------------------------------------------------------
 */

struct client {
    PGconn *conn;
    int pid;
    unsigned warnings;
};

static void take_notice(void *arg, const PGresult *r)
{
    (void)r;
    ((struct client *)arg)->warnings++;
}

static void client_run(struct client *c, const char *statement)
{
    PGresult *r = PQexec(c->conn, statement);

    if (PQresultStatus(r) != PGRES_COMMAND_OK && PQresultStatus(r) != PGRES_TUPLES_OK)
        fail_msg("%s: %s", statement, PQerrorMessage(c->conn));
    PQclear(r);
}

/* As an application's role: what a superuser may do proves nothing. */
static void client_open(struct client *c, const char *dbname)
{
    char info[256];

    *c = (struct client){0};
    (void)snprintf(info, sizeof info,
                   "host=%s/sock port=5432 dbname=%s user=app password=secret gssencmode=disable",
                   a.dir, dbname);
    c->conn = PQconnectdb(info);
    if (PQstatus(c->conn) != CONNECTION_OK)
        fail_msg("%s", PQerrorMessage(c->conn));
    (void)PQsetNoticeReceiver(c->conn, take_notice, c);
    c->pid = PQbackendPID(c->conn);
}

static void client_close(struct client *c)
{
    PQfinish(c->conn);
    c->conn = NULL;
}

static void client_waits(const struct client *c)
{
    char statement[128];

    (void)snprintf(statement, sizeof statement,
                   "select wait_event from pg_stat_activity where pid = %d", c->pid);
    sql_until(&a, statement, "SyncRep");
}

/* Sends `statement`, returns once its commit waits for the follower, which is away. */
static void client_begin(struct client *c, const char *statement)
{
    assert_int_equal(PQsendQuery(c->conn, statement), 1);
    client_waits(c);
}

/* The statement's result; NULL: the connection ended instead. All of it is read. */
static PGresult *client_end(struct client *c)
{
    uint64_t start = hf_clock_ns();
    PGresult *last = NULL, *r;

    for (;;) {
        while (PQisBusy(c->conn) == 1) {
            struct pollfd p = {.fd = PQsocket(c->conn), .events = POLLIN};
            if (since_ms(start) > PATIENCE_MS)
                fail_msg("no answer");
            (void)poll(&p, 1, 100);
            (void)PQconsumeInput(c->conn);
        }
        r = PQgetResult(c->conn);
        if (r == NULL)
            break;
        PQclear(last);
        last = r;
    }
    if (PQstatus(c->conn) != CONNECTION_OK) {
        PQclear(last);
        return NULL;
    }
    return last;
}

static void client_succeeds(struct client *c)
{
    PGresult *r = client_end(c);

    assert_non_null(r);
    if (PQresultStatus(r) != PGRES_COMMAND_OK && PQresultStatus(r) != PGRES_TUPLES_OK)
        fail_msg("%s", PQresultErrorMessage(r));
    PQclear(r);
}

static void client_fails(struct client *c, const char *sqlstate)
{
    PGresult *r = client_end(c);
    const char *state;

    assert_non_null(r);
    state = PQresultErrorField(r, PG_DIAG_SQLSTATE);
    assert_string_equal(state != NULL ? state : "no error", sqlstate);
    PQclear(r);
}

static bool client_has_answer(struct client *c)
{
    (void)PQconsumeInput(c->conn);
    return PQisBusy(c->conn) == 0;
}

/* --- what happened ------------------------------------------------------------------------------
 */

static unsigned log_count(const char *text)
{
    FILE *f = fopen(a.pg->log_file, "r");
    char line[4096];
    unsigned n = 0;

    assert_non_null(f);
    while (fgets(line, sizeof line, f) != NULL)
        n += strstr(line, text) != NULL;
    (void)fclose(f);
    return n;
}

/* The guard met another cancel (or terminate) than the `before` ones. */
static void log_until_more(const char *text, unsigned before)
{
    uint64_t start = hf_clock_ns();

    while (log_count(text) == before) {
        if (since_ms(start) > PATIENCE_MS)
            fail_msg("not in the log: %s", text);
        (void)usleep(2000);
    }
}

#define GOES_ON "goes on in spite of a cancel"
#define STAYS   "goes on in spite of a terminate"

static void signal_backend(const struct client *c, const char *function)
{
    char statement[128];

    (void)snprintf(statement, sizeof statement, "select %s(%d)", function, c->pid);
    sql_run(&a, statement);
}

static void expect_on_follower(const char *statement, const char *value)
{
    sql_until(&b, statement, value);
}

/* --- the tests ----------------------------------------------------------------------------------
 */

static void make(enum hf_pg_guard guard)
{
    guard_of_new = guard;
    pair_make(&a, &b);
    sql_run(&a, "create role app login password 'secret'; grant all on t to app");
    sql_run(&a, "create procedure p(x bigint) language plpgsql as "
                "$$begin insert into t values (x); commit; insert into t values (x + 1); end$$");
}

static int setup(void **state)
{
    (void)state;
    make(HF_PG_GUARD_REQUIRED);
    return 0;
}

static int teardown(void **state)
{
    (void)state;
    server_end(&b);
    server_end(&a);
    return 0;
}

static int setup_without(void **state)
{
    (void)state;
    make(HF_PG_GUARD_OFF);
    return 0;
}

/* What the guard is for: without it PostgreSQL calls a success what no follower has. */
static void test_without_the_guard_a_cancel_lies(void **state)
{
    struct client c;

    (void)state;
    client_open(&c, "postgres");
    client_run(&c, "set client_min_messages = error");
    relay_open(&b.relay, false);
    client_begin(&c, "insert into t values (1)");
    signal_backend(&c, "pg_cancel_backend");
    client_succeeds(&c);
    assert_int_equal(c.warnings, 0);
    client_close(&c);
}

static void test_a_cancel_waits(void **state)
{
    unsigned before = log_count(GOES_ON);
    struct client c;

    (void)state;
    client_open(&c, "postgres");
    relay_open(&b.relay, false);
    client_begin(&c, "insert into t values (10)");
    signal_backend(&c, "pg_cancel_backend");
    log_until_more(GOES_ON, before);
    signal_backend(&c, "pg_cancel_backend"); /* a second one, in the guard's own wait */
    client_waits(&c);
    assert_false(client_has_answer(&c));
    relay_open(&b.relay, true);
    client_succeeds(&c); /* the commit was all there was to cancel */
    assert_int_equal(c.warnings, 0);
    client_run(&c, "insert into t values (11)"); /* and nothing of it is left */
    expect_on_follower("select count(*) from t where n in (10, 11)", "2");
    client_close(&c);
}

/* The lost commit that was found: a session that hears no warnings, in a role that logs none, in a
 * database made from template0. */
static void test_a_timeout_inside_a_call(void **state)
{
    unsigned before = log_count(GOES_ON);
    struct client c;

    (void)state;
    sql_run(&a, "alter role app set log_min_messages = panic");
    client_open(&c, "postgres");
    client_run(&c, "set client_min_messages = error");
    client_run(&c, "set statement_timeout = '500ms'");
    relay_open(&b.relay, false);
    client_begin(&c, "call p(20)");
    log_until_more(GOES_ON, before);
    client_waits(&c);
    assert_false(client_has_answer(&c));
    relay_open(&b.relay, true);
    client_fails(&c, "57014"); /* after its first half was safe, the statement is over its time */
    client_run(&c, "select 1");
    expect_on_follower("select string_agg(n::text, ' ') from t where n in (20, 21)", "20");
    client_close(&c);
    sql_run(&a, "alter role app reset log_min_messages");
}

/* The procedure ends with its COMMIT and never looks again: the client hears of the cancel all the
 * same, in the statement and not behind it. */
static void test_a_cancel_of_the_last_commit_in_a_call(void **state)
{
    unsigned before = log_count(GOES_ON);
    struct client c;

    (void)state;
    sql_run(&a, "create procedure last(x bigint) language plpgsql as "
                "$$begin insert into t values (x); commit; end$$");
    client_open(&c, "postgres");
    client_run(&c, "set statement_timeout = '500ms'");
    relay_open(&b.relay, false);
    client_begin(&c, "call last(25)");
    log_until_more(GOES_ON, before);
    relay_open(&b.relay, true);
    client_fails(&c, "57014");
    client_run(&c, "select 1");
    client_run(&c, "select 1");
    assert_int_equal(c.warnings, 0);
    expect_on_follower("select count(*) from t where n = 25", "1");
    client_close(&c);
}

static void test_a_terminate_waits(void **state)
{
    unsigned before = log_count(STAYS);
    struct client c;
    PGresult *r;

    (void)state;
    client_open(&c, "postgres");
    relay_open(&b.relay, false);
    client_begin(&c, "insert into t values (30)");
    signal_backend(&c, "pg_terminate_backend");
    log_until_more(STAYS, before);
    client_waits(&c);
    sql_until(&a, "select count(*) from t where n = 30", "0"); /* not even visible */
    relay_open(&b.relay, true);
    r = client_end(&c);
    assert_null(r);
    expect_on_follower("select count(*) from t where n = 30", "1");
    client_close(&c);
}

static void test_two_phase(void **state)
{
    unsigned before = log_count(GOES_ON);
    struct client c;

    (void)state;
    sql_run(&a, "alter role app set log_min_messages = fatal");
    client_open(&c, "postgres");
    client_run(&c, "begin");
    client_run(&c, "insert into t values (40)");
    relay_open(&b.relay, false);
    client_begin(&c, "prepare transaction 'x'");
    signal_backend(&c, "pg_cancel_backend");
    log_until_more(GOES_ON, before);
    assert_false(client_has_answer(&c));
    relay_open(&b.relay, true);
    client_succeeds(&c);
    relay_open(&b.relay, false);
    before = log_count(GOES_ON);
    client_begin(&c, "commit prepared 'x'");
    signal_backend(&c, "pg_cancel_backend");
    log_until_more(GOES_ON, before);
    assert_false(client_has_answer(&c));
    relay_open(&b.relay, true);
    client_succeeds(&c);
    assert_int_equal(c.warnings, 0);
    expect_on_follower("select count(*) from t where n = 40", "1");
    client_close(&c);
    sql_run(&a, "alter role app reset log_min_messages");
}

/* There is no rule any more: nobody shall wait for ever. */
static void test_the_rule_is_emptied(void **state)
{
    const char *const names[] = {"b"};
    unsigned before = log_count(GOES_ON);
    struct client c;

    (void)state;
    client_open(&c, "postgres");
    relay_open(&b.relay, false);
    client_begin(&c, "insert into t values (50)");
    signal_backend(&c, "pg_cancel_backend");
    log_until_more(GOES_ON, before);
    (void)job_rule(&a, HF_WORK_RULE, 0, NULL);
    client_succeeds(&c);
    relay_open(&b.relay, true);
    (void)job_rule(&a, HF_WORK_RULE, 1, names);
    client_close(&c);
}

static void test_the_floor(void **state)
{
    struct client c;

    (void)state;
    client_open(&c, "postgres");
    client_run(&c, "set synchronous_commit = off");
    relay_open(&b.relay, false);
    client_begin(&c, "insert into t values (60)");
    relay_open(&b.relay, true);
    client_succeeds(&c);
    client_run(&c, "do $$begin if current_setting('synchronous_commit') <> 'off' then"
                   " raise 'not put back'; end if; end$$");
    /* Holdfast's own local commits are its own business. */
    relay_open(&b.relay, false);
    sql_run(&a, "set synchronous_commit = local; insert into t values (61)");
    relay_open(&b.relay, true);
    client_close(&c);
}

static void is_refused(PGconn *conn, const char *statement)
{
    PGresult *r = PQexec(conn, statement);
    const char *state = PQresultErrorField(r, PG_DIAG_SQLSTATE), *text = PQresultErrorField(r, PG_DIAG_MESSAGE_PRIMARY);

    if (state == NULL || strcmp(state, "42501") != 0 || strstr(text, "Holdfast's to decide") == NULL)
        fail_msg("%s: %s", statement, PQerrorMessage(conn));
    PQclear(r);
}

/* Whoever else is superuser may do much, but not what the cluster decides. */
static void test_what_is_refused_to_superusers(void **state)
{
    char info[256], value[64];
    PGconn *conn;

    (void)state;
    sql_run(&a, "create role boss superuser login password 'secret'");
    (void)snprintf(info, sizeof info, "host=%s/sock port=5432 dbname=postgres user=boss password=secret gssencmode=disable", a.dir);
    conn = PQconnectdb(info);
    assert_int_equal(PQstatus(conn), CONNECTION_OK);
    is_refused(conn, "select pg_promote()");
    is_refused(conn, "do $$ begin perform pg_promote(false); end $$");
    is_refused(conn, "select pg_wal_replay_pause()");
    is_refused(conn, "alter system set synchronous_standby_names = ''");
    is_refused(conn, "alter system reset all");
    is_refused(conn, "create tablespace elsewhere location '/tmp'");
    PQclear(PQexec(conn, "set allow_in_place_tablespaces = on"));
    PQclear(PQexec(conn, "create tablespace inside location ''"));
    PQfinish(conn);
    sql(&a, "select string_agg(spcname, ',' order by spcname) from pg_tablespace where spcname !~ '^pg_'", value, sizeof value);
    assert_string_equal(value, "inside");
    sql_run(&a, "alter system reset all");
    sql_run(&a, "drop tablespace inside");
    sql_run(&a, "drop role boss");
}

static void test_settings_keep_the_administrators_modules(void **state)
{
    char value[1024];

    (void)state;
    sql(&a, "show shared_preload_libraries", value, sizeof value);
    assert_non_null(strstr(value, "pg_stat_statements, \"/"));
    assert_non_null(strstr(value, "/holdfast_guard_"));
    sql_run(&a, "create extension pg_stat_statements; select count(*) from pg_stat_statements");
}

/* An administrator's own file, as -c makes it. */
static int setup_with_settings(void **state)
{
    static char path[160];
    struct hf_error err = {0};

    if (setup(state) != 0)
        return -1;
    (void)snprintf(path, sizeof path, "%s/extra.conf", a.dir);
    assert_int_equal(hf_pg_write_file(path,
                                      "shared_preload_libraries = 'pg_stat_statements'\n"
                                      "holdfast.synchronous_commit_floor = 'on'\n"
                                      "max_prepared_transactions = 4\n",
                                      &err),
                     0);
    (void)job_ok(&a, HF_WORK_STOP_CLEAN);
    hf_pg_close(a.pg);
    a.extra_conf = path;
    server_reopen(&a, "a");
    (void)job_ok(&a, HF_WORK_START);
    (void)job_ok(&a, HF_WORK_POSITION);
    const char *const names[] = {"b"};
    (void)job_rule(&a, HF_WORK_PROMOTE, 1, names);
    (void)job_ok(&b, HF_WORK_STOP);
    (void)job_ok(&b, HF_WORK_CLONE);
    sql_until(&a, "select count(*) from pg_stat_replication where sync_state = 'quorum'", "1");
    return 0;
}

static void test_a_fast_stop_does_not_hang(void **state)
{
    unsigned before = log_count(GOES_ON), stays = log_count(STAYS);
    struct client cancelled, terminated, waits;
    struct hf_error err = {0};

    (void)state;
    client_open(&cancelled, "postgres");
    client_open(&terminated, "postgres");
    client_open(&waits, "postgres");
    relay_open(&b.relay, false);
    client_begin(&cancelled, "insert into t values (70)");
    client_begin(&terminated, "insert into t values (71)");
    client_begin(&waits, "insert into t values (72)");
    signal_backend(&cancelled, "pg_cancel_backend");
    signal_backend(&terminated, "pg_terminate_backend");
    log_until_more(GOES_ON, before);
    log_until_more(STAYS, stays);
    before = log_count("immediate shutdown");
    /* A bound of its own far above what it takes, so that SIGQUIT does not help it along. */
    assert_int_equal(hf_pg_server_stop(a.pg, HF_PG_STOP_FAST, PATIENCE_MS, &err), 0);
    assert_int_equal(log_count("immediate shutdown"), before);
    assert_null(client_end(&cancelled));
    assert_null(client_end(&terminated));
    assert_null(client_end(&waits));
    client_close(&cancelled);
    client_close(&terminated);
    client_close(&waits);
}

static void test_the_postmaster_dies(void **state)
{
    unsigned before = log_count(GOES_ON);
    struct client c;

    (void)state;
    client_open(&c, "postgres");
    relay_open(&b.relay, false);
    client_begin(&c, "insert into t values (80)");
    signal_backend(&c, "pg_cancel_backend");
    log_until_more(GOES_ON, before);
    assert_int_equal(kill(hf_pg_pid(a.pg), SIGKILL), 0);
    assert_null(client_end(&c));
    client_close(&c);
}

/* --- without a module ---------------------------------------------------------------------------
 */

static void test_required_and_not_there(void **state)
{
    struct hf_pg_config c = {.node_dir = a.dir,
                             .name = "a",
                             .member = "a",
                             .allow_ephemeral = true,
                             .guard = HF_PG_GUARD_REQUIRED,
                             .guard_dir = "/nonexistent"};
    struct hf_error err = {0};
    struct hf_pg_status status;
    struct hf_pg *pg = NULL;

    (void)state;
    assert_int_equal(hf_pg_open(&pg, &c, &err), HF_ENOENT);
    assert_null(pg);
    assert_non_null(strstr(err.text, "postgresql-server-dev-"));
    c.guard = HF_PG_GUARD_AUTO;
    assert_int_equal(hf_pg_open(&pg, &c, &err), 0);
    hf_pg_status(pg, &status);
    assert_false(status.guarded);
    hf_pg_close(pg);
    hf_pg_status(a.pg, &status);
    assert_true(status.guarded);
}

/* One that has no data yet, and a settings file to come. */
static void server_before_its_data(struct server *fresh, const char *name)
{
    static char path[160];

    server_make(fresh, name);
    hf_pg_close(fresh->pg);
    (void)snprintf(path, sizeof path, "%s/extra.conf", fresh->dir);
    fresh->extra_conf = path;
    server_reopen(fresh, name);
}

/* A new pod takes its settings before it has found the cluster. */
static void test_settings_before_there_are_data(void **state)
{
    struct server fresh;
    struct hf_error err = {0};

    (void)state;
    server_before_its_data(&fresh, "fresh");
    if (hf_pg_user_settings_take(fresh.pg, "shared_preload_libraries = 'pg_stat_statements'\n", &err) != 0)
        fail_msg("%s", err.text);
    server_end(&fresh);
}

struct reader {
    char path[200];
    atomic_bool over;
    unsigned looks, without;
};

static void *read_again_and_again(void *arg)
{
    struct reader *r = arg;
    char text[4096];

    for (; !atomic_load(&r->over); r->looks++) {
        FILE *f = fopen(r->path, "r");
        size_t n = f != NULL ? fread(text, 1, sizeof text - 1, f) : 0;
        text[n] = '\0';
        r->without += strstr(text, "/holdfast_guard_") == NULL;
        if (f != NULL)
            (void)fclose(f);
    }
    return NULL;
}

/* Whenever a server starts, also while its settings change, it is told to load the guard. */
static void test_no_moment_without_the_guard(void **state)
{
    struct server fresh;
    struct hf_error err = {0};
    struct reader reader = {0};
    pthread_t thread;

    (void)state;
    server_before_its_data(&fresh, "fresh2");
    assert_int_equal(hf_pg_user_settings_take(fresh.pg, "shared_preload_libraries = 'pg_stat_statements'\n", &err), 0);
    (void)snprintf(reader.path, sizeof reader.path, "%s/guard.conf", fresh.pg->conf_dir);
    assert_int_equal(pthread_create(&thread, NULL, read_again_and_again, &reader), 0);
    for (unsigned i = 0; i < 4; i++) {
        const char *text = i % 2 == 0 ? "shared_preload_libraries = 'auto_explain'\n" : "work_mem = 5MB\n";
        assert_int_equal(hf_pg_user_settings_take(fresh.pg, text, &err), 0);
    }
    atomic_store(&reader.over, true);
    assert_int_equal(pthread_join(thread, NULL), 0);
    assert_true(reader.looks > 10);
    assert_int_equal(reader.without, 0);
    server_end(&fresh);
}

int main(int argc, char **argv)
{
    const struct CMUnitTest without[] = {
        cmocka_unit_test(test_without_the_guard_a_cancel_lies),
    };
    const struct CMUnitTest with[] = {
        cmocka_unit_test(test_a_cancel_waits),
        cmocka_unit_test(test_a_timeout_inside_a_call),
        cmocka_unit_test(test_a_cancel_of_the_last_commit_in_a_call),
        cmocka_unit_test(test_a_terminate_waits),
        cmocka_unit_test(test_the_rule_is_emptied),
        cmocka_unit_test(test_required_and_not_there),
        cmocka_unit_test(test_settings_before_there_are_data),
        cmocka_unit_test(test_no_moment_without_the_guard),
        cmocka_unit_test(test_a_fast_stop_does_not_hang),
    };
    const struct CMUnitTest configured[] = {
        cmocka_unit_test(test_what_is_refused_to_superusers),
        cmocka_unit_test(test_settings_keep_the_administrators_modules),
        cmocka_unit_test(test_the_floor),
        cmocka_unit_test(test_two_phase),
        cmocka_unit_test(test_the_postmaster_dies),
    };
    int failed;

    if (argc > 1)
        cmocka_set_test_filter(argv[1]);
    if (fixture_setup(NULL) != 0)
        return 1;
    failed = cmocka_run_group_tests(without, setup_without, teardown);
    failed += cmocka_run_group_tests(with, setup, teardown);
    failed += cmocka_run_group_tests(configured, setup_with_settings, teardown);
    return fixture_teardown(NULL) == 0 ? failed : 1;
}
