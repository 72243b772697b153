/* SAFETY S11 against a real PostgreSQL, whose standby never comes unless it is let off. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include <libpq-fe.h>
#include <poll.h>

#include "base/clock.h"
#include "postgres.h"
#include "router/session.h"

enum { PATIENCE_MS = 10000, STEP_MS = 5 };

struct world {
    struct postgres pg;
    uv_loop_t loop;
    uv_async_t end;
    uv_thread_t thread;
    struct hf_router *r;
    char port[16];
    PGconn *root; /* past the router */
};

static void loop_main(void *arg)
{
    (void)uv_run(arg, UV_RUN_DEFAULT);
}

static void end_cb(uv_async_t *async)
{
    struct world *w = async->data;

    hf_router_close(w->r);
    uv_close((uv_handle_t *)async, NULL);
}

static PGconn *dial(const char *host, const char *port, const char *user)
{
    const char *const keys[] = {"host", "port", "user", "password", "dbname", NULL};
    const char *const values[] = {host, port, user, "secret", "postgres", NULL};
    PGconn *c = PQconnectdbParams(keys, values, 0);

    assert_int_equal(PQstatus(c), CONNECTION_OK);
    return c;
}

static char *one(PGconn *c, const char *sql)
{
    static char out[128];
    PGresult *res = PQexec(c, sql);

    assert_true(PQresultStatus(res) == PGRES_TUPLES_OK || PQresultStatus(res) == PGRES_COMMAND_OK);
    (void)snprintf(out, sizeof out, "%s", PQntuples(res) > 0 ? PQgetvalue(res, 0, 0) : "");
    PQclear(res);
    return out;
}

/* Until the query says "t". */
static void until(PGconn *c, const char *sql)
{
    for (unsigned i = 0; i < PATIENCE_MS / STEP_MS; i++) {
        if (strcmp(one(c, sql), "t") == 0)
            return;
        (void)poll(NULL, 0, STEP_MS);
    }
    fail_msg("never true: %s", sql);
}

static void rule(struct world *w, const char *names)
{
    char sql[128];

    (void)snprintf(sql, sizeof sql, "ALTER SYSTEM SET synchronous_standby_names = '%s'", names);
    (void)one(w->root, sql);
    (void)one(w->root, "SELECT pg_reload_conf()");
    (void)snprintf(sql, sizeof sql, "SELECT current_setting('synchronous_standby_names') = '%s'",
                   names);
    until(w->root, sql);
    (void)poll(NULL, 0, 100); /* the checkpointer's flag has no event (SAFETY S2) */
}

static bool answered(PGconn *c, unsigned ms)
{
    for (unsigned i = 0; i <= ms / STEP_MS; i++) {
        assert_int_equal(PQconsumeInput(c), 1);
        if (PQisBusy(c) == 0)
            return true;
        (void)poll(NULL, 0, STEP_MS);
    }
    return false;
}

static bool cancel(PGconn *c)
{
    char why[256];
    PGcancel *k = PQgetCancel(c);
    bool ok = PQcancel(k, why, sizeof why) == 1;

    PQfreeCancel(k);
    return ok;
}

static int setup(void **state)
{
    struct world *w = calloc(1, sizeof *w);
    struct hf_router_callbacks none = {0};
    struct sockaddr_storage sa;
    socklen_t len = sizeof sa;
    struct hf_error err;

    assert_non_null(w);
    if (!postgres_open(&w->pg)) {
        postgres_close(&w->pg);
        free(w);
        return -1;
    }
    assert_int_equal(uv_loop_init(&w->loop), 0);
    {
        struct hf_router_config config = {
            .sql = "127.0.0.1:0", .read_only = "127.0.0.1:0", .socket_dir = w->pg.dir};
        assert_int_equal(hf_router_open(&w->r, &w->loop, &config, &none, &err), 0);
    }
    assert_int_equal(getsockname(w->r->ports[0].listener.fd, (struct sockaddr *)&sa, &len), 0);
    assert_int_equal(
        getnameinfo((struct sockaddr *)&sa, len, NULL, 0, w->port, sizeof w->port, NI_NUMERICSERV),
        0);
    hf_router_leader(w->r, HF_LEADER_HERE, 1);
    hf_router_lease(w->r, hf_clock_ns() + 3600 * 1000000000ull);
    hf_router_gate_open(w->r, 1);
    assert_int_equal(uv_async_init(&w->loop, &w->end, end_cb), 0);
    w->end.data = w;
    assert_int_equal(uv_thread_create(&w->thread, loop_main, &w->loop), 0);
    w->root = dial(w->pg.dir, "5432", "holdfast");
    (void)one(w->root, "CREATE ROLE app LOGIN PASSWORD 'secret'");
    (void)one(w->root, "CREATE TABLE t (i int); GRANT ALL ON t TO app");
    *state = w;
    return 0;
}

static int teardown(void **state)
{
    struct world *w = *state;

    PQfinish(w->root);
    uv_async_send(&w->end);
    uv_thread_join(&w->thread);
    assert_int_equal(uv_loop_close(&w->loop), 0);
    postgres_close(&w->pg);
    free(w);
    return 0;
}

#define WAITING "SELECT count(*) > 0 FROM pg_stat_activity WHERE wait_event = 'SyncRep' AND "

static void running_query(void **state)
{
    struct world *w = *state;
    PGconn *c = dial("127.0.0.1", w->port, "app");
    unsigned before = hf_router_counts(w->r).cancels;
    PGresult *res;

    assert_int_equal(PQsendQuery(c, "SELECT pg_sleep(60)"), 1);
    until(w->root, "SELECT count(*) > 0 FROM pg_stat_activity WHERE wait_event = 'PgSleep'");
    assert_true(cancel(c));
    assert_true(answered(c, PATIENCE_MS));
    res = PQgetResult(c);
    assert_string_equal(PQresultErrorField(res, PG_DIAG_SQLSTATE), "57014");
    PQclear(res);
    assert_null(PQgetResult(c));
    assert_string_equal(one(c, "SELECT 1"), "1");
    assert_int_equal(hf_router_counts(w->r).cancels, before + 1);
    PQfinish(c);
}

/* What the barrier rests on: a bare transaction number does not wait, a message in the WAL does. */
static void barrier_waits(void **state)
{
    struct world *w = *state;
    PGconn *c = dial("127.0.0.1", w->port, "app"), *b = dial(w->pg.dir, "5432", "holdfast");

    rule(w, "ANY 1 (nobody)");
    (void)one(c, "BEGIN; SELECT txid_current(); COMMIT");
    assert_int_equal(PQsendQuery(b, "SELECT pg_logical_emit_message(true, 'holdfast', 'barrier')"),
                     1);
    until(w->root, WAITING "usename = 'holdfast'");
    assert_false(answered(b, 50));
    rule(w, "");
    assert_true(answered(b, PATIENCE_MS));
    PQfinish(b);
    PQfinish(c);
}

static void waiting_commit(void **state)
{
    struct world *w = *state;
    PGconn *c = dial("127.0.0.1", w->port, "app");
    unsigned before = hf_router_counts(w->r).cancels_refused;
    PGresult *res;

    rule(w, "ANY 1 (nobody)");
    assert_int_equal(PQsendQuery(c, "INSERT INTO t VALUES (1)"), 1);
    until(w->root, WAITING "usename = 'app'");
    assert_true(cancel(c));
    for (unsigned i = 0; hf_router_counts(w->r).cancels_refused == before && i < 1000; i++)
        (void)poll(NULL, 0, STEP_MS);
    assert_int_equal(hf_router_counts(w->r).cancels_refused, before + 1);
    assert_false(answered(c, 100));
    until(w->root, WAITING "usename = 'app'");
    rule(w, "");
    assert_true(answered(c, PATIENCE_MS));
    res = PQgetResult(c);
    assert_int_equal(PQresultStatus(res), PGRES_COMMAND_OK);
    PQclear(res);
    PQfinish(c);
}

static void quiet(void *arg, const char *text)
{
    (void)arg;
    (void)text;
}

/* A wait that somebody cut short past the router: its commit is visible here and nowhere else, so
 * the gate withholds everybody's answers until a barrier is through. */
static void cut_short(struct world *w, const char *how)
{
    PGconn *victim = dial("127.0.0.1", w->port, "app"), *other = dial("127.0.0.1", w->port, "app");
    char sql[128];

    (void)PQsetNoticeProcessor(victim, quiet, NULL);
    rule(w, "ANY 1 (nobody)");
    assert_int_equal(PQsendQuery(victim, "INSERT INTO t VALUES (2)"), 1);
    until(w->root, WAITING "usename = 'app'");
    (void)snprintf(sql, sizeof sql, "SELECT %s(%d)", how, PQbackendPID(victim));
    (void)one(w->root, sql);
    until(w->root, WAITING "application_name = 'holdfast router'"); /* the barrier */
    assert_int_equal(PQsendQuery(other, "SELECT count(*) FROM t"), 1);
    assert_false(answered(other, 200));
    assert_false(answered(victim, 50));
    assert_true(hf_router_counts(w->r).lease_held >= 2);
    rule(w, "");
    assert_true(answered(other, PATIENCE_MS));
    PQfinish(victim);
    PQfinish(other);
}

static void cancelled_by_sql(void **state)
{
    cut_short(*state, "pg_cancel_backend");
}

static void terminated_by_sql(void **state)
{
    cut_short(*state, "pg_terminate_backend");
}

/* Closing must not wait for a barrier that cannot be had. The last test: no gate after it. */
static void close_during_a_barrier(void **state)
{
    struct world *w = *state;
    PGconn *c = dial("127.0.0.1", w->port, "app");

    (void)PQsetNoticeProcessor(c, quiet, NULL);
    rule(w, "ANY 1 (nobody)");
    assert_int_equal(PQsendQuery(c, "INSERT INTO t VALUES (3)"), 1);
    until(w->root, WAITING "usename = 'app'");
    (void)one(w->root,
              "SELECT pg_cancel_backend(pid) FROM pg_stat_activity WHERE wait_event = 'SyncRep'");
    until(w->root, WAITING "application_name = 'holdfast router'");
    PQfinish(c);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(running_query),     cmocka_unit_test(barrier_waits),
        cmocka_unit_test(waiting_commit),    cmocka_unit_test(cancelled_by_sql),
        cmocka_unit_test(terminated_by_sql), cmocka_unit_test(close_during_a_barrier),
    };
    return cmocka_run_group_tests(tests, setup, teardown);
}
