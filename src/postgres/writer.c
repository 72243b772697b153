#include "postgres/writer.h"

#include <inttypes.h>
#include <poll.h>
#include <stdio.h>
#include <string.h>

#include "base/clock.h"

enum { UNSEEN_TRIES = 100 };

/* The first barrier of a cluster makes its tables; two schemas never race, there is one writer. */
static const char setup_sql[] =
    "create schema if not exists holdfast;"
    "create table if not exists holdfast.epochs (epoch bigint primary key, node text not null,"
    " at timestamptz not null default now());"
    "create table if not exists holdfast.heartbeat (one boolean primary key default true check "
    "(one),"
    " epoch bigint not null, at timestamptz not null default now());";

/* PostgreSQL warns when a wait for followers ends early; the commit then counts for nothing (S11).
 * Any warning is taken for that: messages may be translated, and these statements have no other. */
static void take_notice(void *arg, const PGresult *r)
{
    const char *severity = PQresultErrorField(r, PG_DIAG_SEVERITY_NONLOCALIZED);

    if (severity == NULL || strcmp(severity, "WARNING") == 0)
        *(bool *)arg = true;
}

static PGconn *writer_connect(struct hf_pg *pg, struct hf_error *err)
{
    PGconn *conn = hf_pg_connect(pg, "postgres", "holdfast writer", HF_PG_CONNECT_MS, err);

    if (conn == NULL)
        return NULL;
    (void)PQsetNoticeReceiver(conn, take_notice, &pg->warned);
    /* A role or a database may have been given another default (S2). */
    if (hf_pg_command(pg, conn,
                      "set synchronous_commit = on; set statement_timeout = 0;"
                      " set client_min_messages = warning",
                      HF_PG_QUERY_MS, err) == 0)
        return conn;
    PQfinish(conn);
    return NULL;
}

void hf_pg_barrier_prepare(struct hf_pg *pg)
{
    PQfinish(pg->ready);
    pg->ready = writer_connect(pg, NULL);
    (void)hf_pg_session(pg, NULL);
}

/* The one made ahead, if it is still good. */
static PGconn *barrier_connect(struct hf_pg *pg, struct hf_error *err)
{
    PGconn *conn = pg->ready;

    pg->ready = NULL;
    if (hf_pg_alive(conn))
        return conn;
    PQfinish(conn);
    return writer_connect(pg, err);
}

static int flushed(struct hf_pg *pg, PGconn *conn, hf_lsn *lsn, struct hf_error *err)
{
    PGresult *r = hf_pg_query(pg, conn, "select pg_current_wal_flush_lsn()", HF_PG_QUERY_MS, err);
    int code = 0;

    if (r == NULL)
        return HF_EPG;
    if (!hf_pg_parse_lsn(PQgetvalue(r, 0, 0), lsn))
        code = hf_fail(err, HF_EPG, "%s: PostgreSQL tells no WAL position", pg->name);
    PQclear(r);
    return code;
}

/* One look at the writer's backend. */
static int is_waiting(struct hf_pg *pg, PGconn *eye, int backend, bool *waiting,
                      struct hf_error *err)
{
    char sql[160];
    PGresult *r;

    (void)snprintf(sql, sizeof sql,
                   "select 1 from pg_stat_activity where pid = %d and wait_event = 'SyncRep'",
                   backend);
    r = hf_pg_query(pg, eye, sql, HF_PG_QUERY_MS, err);
    if (r == NULL)
        return HF_EPG;
    *waiting = PQntuples(r) == 1;
    PQclear(r);
    return 0;
}

/* Waits until `conn` has something to read, `ms` at most; interrupted: HF_ECLOSED. */
static int wait_readable(struct hf_pg *pg, PGconn *conn, int ms, struct hf_error *err)
{
    struct pollfd p[2] = {{.fd = PQsocket(conn), .events = POLLIN},
                          {.fd = pg->wake_fd, .events = POLLIN}};

    (void)poll(p, 2, ms);
    return p[1].revents != 0 ? hf_fail(err, HF_ECLOSED, "%s: interrupted", pg->name) : 0;
}

/* "database is not accepting commands to avoid wraparound data loss": program_limit_exceeded (varsup.c: GetNewTransactionId). */
static int code_of(const PGresult *r)
{
    const char *state = PQresultErrorField(r, PG_DIAG_SQLSTATE);

    return state != NULL && strcmp(state, "54000") == 0 ? HF_EREFUSED : HF_EPG;
}

/* Sends `sql` on `conn` and reads its end, looking through `eye` meanwhile. */
static int watched_write(struct hf_pg *pg, PGconn *conn, PGconn *eye, const char *sql, bool *seen,
                         hf_pg_waiting_fn waiting, void *ctx, struct hf_error *err)
{
    PGresult *r;
    int code = 0, failed = 0;
    bool was_seen = *seen;

    pg->warned = false;

    if (PQsendQuery(conn, sql) != 1)
        return hf_fail(err, HF_EPG, "%s: cannot write: %.200s", pg->name, PQerrorMessage(conn));
    while (code == 0) {
        if (PQconsumeInput(conn) == 0)
            return hf_fail(err, HF_EPG, "%s: the write ended with its server: %.200s", pg->name,
                           PQerrorMessage(conn));
        if (!PQisBusy(conn)) {
            r = PQgetResult(conn);
            if (r == NULL)
                break;
            if (PQresultStatus(r) != PGRES_COMMAND_OK && PQresultStatus(r) != PGRES_TUPLES_OK) {
                failed = hf_fail(err, code_of(r), "%s: write failed: %.200s", pg->name, PQresultErrorMessage(r));
            }
            PQclear(r);
            continue;
        }
        if (!*seen)
            code = is_waiting(pg, eye, PQbackendPID(conn), seen, err);
        if (*seen && !was_seen && waiting != NULL) {
            waiting(ctx);
            was_seen = true;
        }
        /* No event tells that a backend has begun to wait; once seen, its answer is one. */
        if (code == 0)
            code = wait_readable(pg, conn, *seen ? 60000 : 1, err);
    }
    return failed != 0 ? failed : code;
}

static int rule_is_empty(struct hf_pg *pg, PGconn *eye, bool *empty, struct hf_error *err)
{
    PGresult *r = hf_pg_query(pg, eye, "show synchronous_standby_names", HF_PG_QUERY_MS, err);

    if (r == NULL)
        return HF_EPG;
    *empty = PQgetvalue(r, 0, 0)[0] == '\0';
    PQclear(r);
    return 0;
}

/* A commit that was not seen waiting either met a checkpointer that has not read the rule yet (S2),
 * or admitted followers that were quick. Neither proves anything: write again. */
static int barrier_loop(struct hf_pg *pg, PGconn *conn, PGconn *eye, const char *sql, bool empty,
                        hf_pg_waiting_fn waiting, void *ctx, struct hf_error *err)
{
    bool seen = false;
    int code = 0;

    for (int i = 0; code == 0 && i < UNSEEN_TRIES; i++) {
        code = watched_write(pg, conn, eye, sql, &seen, waiting, ctx, err);
        if (code == 0 && pg->warned)
            code = hf_fail(err, HF_EPG, "%s: the wait for followers was cancelled", pg->name);
        if (code != 0 || seen || empty)
            break;
        code = hf_pg_pause(pg, 20000, err);
    }
    if (code == 0 && empty && !seen)
        waiting(ctx);
    if (code == 0 && !empty && !seen)
        code = hf_fail(err, HF_EPG,
                       "%s: commits do not wait for followers: the rule is not in force", pg->name);
    return code;
}

int hf_pg_barrier(struct hf_pg *pg, hf_epoch epoch, hf_pg_waiting_fn waiting, void *ctx,
                  hf_lsn *lsn, struct hf_error *err)
{
    char sql[1536], *member = NULL;
    bool empty = false;
    PGconn *conn = barrier_connect(pg, err), *eye = NULL;
    int code = conn == NULL ? HF_EPG : 0;

    if (code == 0 && (eye = hf_pg_session(pg, err)) == NULL)
        code = HF_EPG;
    if (code == 0)
        code = rule_is_empty(pg, eye, &empty, err);
    if (code == 0 && (member = PQescapeLiteral(conn, pg->name, strlen(pg->name))) == NULL)
        code = hf_fail(err, HF_EINVAL, "the node's name is not valid UTF-8");
    if (code == 0) {
        /* Several statements in one message are one transaction: table and record come together. */
        (void)snprintf(sql, sizeof sql,
                       "%s insert into holdfast.epochs (epoch, node) values (%" PRIu64 ", %s)"
                       " on conflict (epoch) do update set node = excluded.node, at = now();",
                       setup_sql, epoch, member);
        code = barrier_loop(pg, conn, eye, sql, empty, waiting, ctx, err);
    }
    if (code == 0)
        code = flushed(pg, conn, lsn, err);
    PQfreemem(member);
    PQfinish(conn);
    return code;
}

int hf_pg_heartbeat(struct hf_pg *pg, hf_epoch epoch, hf_lsn *lsn, struct hf_error *err)
{
    char sql[512];
    bool seen = true; /* nobody asks whether it waited */
    PGconn *conn = writer_connect(pg, err);
    int code = conn == NULL ? HF_EPG : 0;

    (void)snprintf(sql, sizeof sql,
                   "insert into holdfast.heartbeat (epoch) values (%" PRIu64 ")"
                   " on conflict (one) do update set epoch = excluded.epoch, at = now()",
                   epoch);
    if (code == 0)
        code = watched_write(pg, conn, NULL, sql, &seen, NULL, NULL, err);
    if (code == 0 && pg->warned)
        code = hf_fail(err, HF_EPG, "%s: the wait for followers was cancelled", pg->name);
    if (code == 0)
        code = flushed(pg, conn, lsn, err);
    PQfinish(conn);
    return code;
}
