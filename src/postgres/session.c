/* libpq with deadlines. A server may hang on its disk at any statement; we must not. */
#include <errno.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/session_options.h"
#include "postgres/private.h"

/* Waits for the socket. 0, HF_ETIMEOUT, HF_ECLOSED (interrupted). */
static int wait_socket(struct hf_pg *pg, int fd, short events, uint64_t deadline_ns)
{
    for (;;) {
        struct pollfd p[2] = {{.fd = fd, .events = events}, {.fd = pg->wake_fd, .events = POLLIN}};
        uint64_t now = hf_clock_ns();
        uint64_t ms = now < deadline_ns ? (deadline_ns - now) / HF_MS + 1 : 0;
        int n;

        if (ms == 0)
            return HF_ETIMEOUT;
        n = poll(p, 2, (int)(ms > 60000 ? 60000 : ms));
        if (n < 0 && errno != EINTR)
            return HF_EIO;
        if (n > 0 && p[1].revents != 0)
            return HF_ECLOSED;
        if (n > 0 && p[0].revents != 0)
            return 0;
    }
}

static const char *trimmed(const char *message, char *buf, size_t cap)
{
    size_t n;

    (void)snprintf(buf, cap, "%s", message);
    for (n = strlen(buf); n > 0 && (buf[n - 1] == '\n' || buf[n - 1] == ' '); n--)
        buf[n - 1] = '\0';
    for (size_t i = 0; i < n; i++)
        if (buf[i] == '\n')
            buf[i] = ' ';
    return buf;
}

/* Notices are for whoever installs a processor of their own; nobody reads libpq's on stderr. */
static void ignore_notice(void *arg, const PGresult *res)
{
    (void)arg;
    (void)res;
}

PGconn *hf_pg_connect(struct hf_pg *pg, const char *dbname, const char *application, int timeout_ms,
                      struct hf_error *err)
{
    const char *keys[] = {"host",
                          "port",
                          "user",
                          "dbname",
                          "application_name",
                          "gssencmode",
                          "sslmode",
                          "client_encoding",
                          "options",
                          NULL};
    const char *values[] = {
        pg->sock_dir, "5432",      HF_PG_SUPERUSER,
        dbname,       application, "disable",
        "disable",    "UTF8",      HF_SESSION_OPTIONS,
        NULL};
    uint64_t deadline_ns = hf_clock_ns() + (uint64_t)timeout_ms * HF_MS;
    PostgresPollingStatusType state = PGRES_POLLING_WRITING;
    PGconn *conn = PQconnectStartParams(keys, values, 0);
    char buf[256];
    int code = 0;

    if (conn == NULL) {
        (void)hf_fail(err, HF_ENOMEM, "no memory for a connection to PostgreSQL");
        return NULL;
    }
    (void)PQsetNoticeReceiver(conn, ignore_notice, NULL);
    while (PQstatus(conn) != CONNECTION_BAD && code == 0) {
        if (state == PGRES_POLLING_OK)
            return conn;
        if (state == PGRES_POLLING_FAILED)
            break;
        code = wait_socket(pg, PQsocket(conn), state == PGRES_POLLING_READING ? POLLIN : POLLOUT,
                           deadline_ns);
        if (code == 0)
            state = PQconnectPoll(conn);
    }
    (void)hf_fail(err, code != 0 ? code : HF_EPG, "%s: cannot connect to PostgreSQL: %s", pg->name,
                  code == HF_ETIMEOUT  ? "no answer in time"
                  : code == HF_ECLOSED ? "interrupted"
                                       : trimmed(PQerrorMessage(conn), buf, sizeof buf));
    PQfinish(conn);
    return NULL;
}

/* The last result of the statement that was sent. */
static PGresult *collect(struct hf_pg *pg, PGconn *conn, uint64_t deadline_ns, int *code)
{
    PGresult *last = NULL, *r;

    for (;;) {
        while (PQisBusy(conn)) {
            *code = wait_socket(pg, PQsocket(conn), POLLIN, deadline_ns);
            if (*code != 0 || PQconsumeInput(conn) == 0) {
                PQclear(last);
                return NULL;
            }
        }
        r = PQgetResult(conn);
        if (r == NULL)
            return last;
        if (last != NULL && PQresultStatus(last) == PGRES_FATAL_ERROR) {
            PQclear(r); /* the first error is the one to tell */
            continue;
        }
        PQclear(last);
        last = r;
    }
}

PGresult *hf_pg_query(struct hf_pg *pg, PGconn *conn, const char *sql, int timeout_ms,
                      struct hf_error *err)
{
    uint64_t deadline_ns = hf_clock_ns() + (uint64_t)timeout_ms * HF_MS;
    PGresult *r = NULL;
    char buf[256];
    int code = 0;

    if (PQsendQuery(conn, sql) == 1)
        r = collect(pg, conn, deadline_ns, &code);
    if (r != NULL &&
        (PQresultStatus(r) == PGRES_TUPLES_OK || PQresultStatus(r) == PGRES_COMMAND_OK))
        return r;
    (void)hf_fail(err, code != 0 ? code : HF_EPG, "%s: PostgreSQL: %s (in: %.120s)", pg->name,
                  code == HF_ETIMEOUT  ? "no answer in time"
                  : code == HF_ECLOSED ? "interrupted"
                                       : trimmed(PQerrorMessage(conn), buf, sizeof buf),
                  sql);
    PQclear(r);
    return NULL;
}

int hf_pg_command(struct hf_pg *pg, PGconn *conn, const char *sql, int timeout_ms,
                  struct hf_error *err)
{
    struct hf_error local;
    PGresult *r;

    if (err == NULL)
        err = &local;
    r = hf_pg_query(pg, conn, sql, timeout_ms, err);
    if (r == NULL)
        return err->code;
    PQclear(r);
    return 0;
}

bool hf_pg_alive(PGconn *conn)
{
    /* A server that ended may have left a last word before its end of file: read until there is
     * nothing. */
    for (int i = 0; i < 8; i++) {
        struct pollfd p = {.events = POLLIN | POLLRDHUP};

        if (conn == NULL || PQstatus(conn) != CONNECTION_OK ||
            PQtransactionStatus(conn) != PQTRANS_IDLE)
            return false; /* gone, or in the middle of a statement that was given up */
        p.fd = PQsocket(conn);
        if (poll(&p, 1, 0) == 0)
            return true;
        if ((p.revents & (POLLRDHUP | POLLHUP | POLLERR)) != 0 || PQconsumeInput(conn) != 1)
            return false;
    }
    return false;
}

PGconn *hf_pg_session(struct hf_pg *pg, struct hf_error *err)
{
    if (hf_pg_alive(pg->conn))
        return pg->conn;
    hf_pg_session_close(pg);
    pg->conn = hf_pg_connect(pg, "postgres", "holdfast agent", HF_PG_CONNECT_MS, err);
    return pg->conn;
}

void hf_pg_session_close(struct hf_pg *pg)
{
    if (pg->conn != NULL)
        PQfinish(pg->conn);
    pg->conn = NULL;
}

struct hf_pg *hf_pg_twin_open(const struct hf_pg *pg)
{
    struct hf_pg *twin = calloc(1, sizeof *twin);

    if (twin == NULL)
        return NULL;
    memcpy(twin->name, pg->name, sizeof twin->name);
    memcpy(twin->sock_dir, pg->sock_dir, sizeof twin->sock_dir);
    twin->wake_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    if (twin->wake_fd >= 0)
        return twin;
    free(twin);
    return NULL;
}

void hf_pg_twin_close(struct hf_pg *twin)
{
    if (twin == NULL)
        return;
    hf_pg_session_close(twin);
    PQfinish(twin->ready);
    (void)close(twin->wake_fd);
    free(twin);
}

int hf_pg_pause(struct hf_pg *pg, unsigned us, struct hf_error *err)
{
    struct pollfd p = {.fd = pg->wake_fd, .events = POLLIN};
    struct timespec ts = {.tv_nsec = (long)us * 1000};

    if (ppoll(&p, 1, &ts, NULL) > 0)
        return hf_fail(err, HF_ECLOSED, "%s: interrupted", pg->name);
    return 0;
}
