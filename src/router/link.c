#include "router/link.h"

#include <poll.h>
#include <string.h>
#include <uv.h>

#include "base/session_options.h"
#include "router/session.h"

enum {
    CONNECT_MS = 2000,
    SLICE_MS = 50, /* how soon a wait notices that the gate was shut */
};
#define MS 1000000ull

bool hf_link_is_over(const struct hf_link *l)
{
    return atomic_load(l->stopping) || (l->as_follower && !atomic_load(&l->r->readable)) ||
           (l->opening != 0 && atomic_load(&l->r->opening) != l->opening);
}

bool hf_link_wait(const struct hf_link *l, int fd, short events, uint64_t until_ns)
{
    while (!hf_link_is_over(l) && uv_hrtime() < until_ns) {
        struct pollfd p = {.fd = fd, .events = events};
        if (poll(&p, 1, SLICE_MS) > 0)
            return true;
    }
    return false;
}

void hf_link_close(struct hf_link *l)
{
    PQfinish(l->conn);
    l->conn = NULL;
}

static void notice(void *arg, const PGresult *res)
{
    struct hf_link *l = arg;
    const char *function = PQresultErrorField(res, PG_DIAG_SOURCE_FUNCTION);

    if (function != NULL && strcmp(function, "SyncRepWaitForLSN") == 0)
        l->given_up = true;
}

bool hf_link_open(struct hf_link *l)
{
    static const char *const keys[] = {"host",    "port",            "user", "dbname", "application_name",
                                       "options", "client_encoding", NULL};
    const char *const values[] = {l->dir,
                                  "5432",
                                  "holdfast",
                                  l->database != NULL ? l->database : "postgres",
                                  "holdfast router",
                                  "-c synchronous_commit=on " HF_SESSION_OPTIONS,
                                  "SQL_ASCII", /* whatever a role or a setting says */
                                  NULL};
    uint64_t until = uv_hrtime() + CONNECT_MS * MS;
    PostgresPollingStatusType st = PGRES_POLLING_WRITING;

    l->conn = PQconnectStartParams(keys, values, 0);
    if (l->conn == NULL)
        return false;
    while (PQstatus(l->conn) != CONNECTION_BAD && st != PGRES_POLLING_FAILED) {
        if (st == PGRES_POLLING_OK) {
            (void)PQsetNoticeReceiver(l->conn, notice, l);
            return true;
        }
        if (!hf_link_wait(l, PQsocket(l->conn), st == PGRES_POLLING_READING ? POLLIN : POLLOUT, until))
            break;
        st = PQconnectPoll(l->conn);
    }
    hf_link_close(l);
    return false;
}

PGresult *hf_link_result(struct hf_link *l, uint64_t bound_ms)
{
    uint64_t until = bound_ms == 0 ? UINT64_MAX : uv_hrtime() + bound_ms * MS;
    PGresult *res, *last = NULL;

    for (;;) {
        while (PQisBusy(l->conn) == 1)
            if (!hf_link_wait(l, PQsocket(l->conn), POLLIN, until) || PQconsumeInput(l->conn) != 1) {
                PQclear(last);
                return NULL;
            }
        res = PQgetResult(l->conn);
        if (res == NULL)
            return last;
        PQclear(last);
        last = res;
    }
}

PGresult *hf_link_ask(struct hf_link *l, const char *sql, uint64_t bound_ms)
{
    return PQsendQuery(l->conn, sql) == 1 ? hf_link_result(l, bound_ms) : NULL;
}
