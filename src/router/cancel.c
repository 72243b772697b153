/* CancelRequest, on the leader (SAFETY S11).
 *
 * A cancel that reaches a backend in its wait for synchronous replication makes PostgreSQL commit
 * locally and return: the commit is visible and unacknowledged by anybody. So a backend seen waiting is
 * not cancelled. Because the cancel may race into the wait, results are withheld from before it is
 * passed until a barrier, a synchronous commit of our own, has gone through: then everything that was
 * committed locally is on a majority, whatever the cancel did. */
#include <errno.h>
#include <libpq-fe.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/log.h"
#include "base/net.h"
#include "router/session.h"

enum { SETTLE_TRIES = 100, SETTLE_STEP_MS = 2, RETRY_MS = 100 };

struct job {
    uv_work_t req;
    struct hf_router *r;
    uint64_t epoch;
    int client; /* closed at the end: the client waits for that; -1: none */
    bool cancel;
    uint32_t pid, key;
};

static PGconn *session_here(struct job *j)
{
    const char *const keys[] = {"host", "port", "user", "dbname", "application_name", "options", NULL};
    const char *const values[] = {j->r->socket_dir,  "5432", "holdfast", "postgres",
                                  "holdfast router",
                                  "-c synchronous_commit=on -c statement_timeout=0"
                                  " -c lc_messages=C",
                                  NULL};
    PGconn *c = PQconnectdbParams(keys, values, 0);

    if (PQstatus(c) == CONNECTION_OK)
        return c;
    PQfinish(c);
    return NULL;
}

static bool is_known(struct job *j)
{
    bool known = false;

    uv_mutex_lock(&j->r->keys_mutex);
    for (const struct session *s = j->r->keyed; s != NULL && !known; s = s->key_next)
        known = s->wire.pid == j->pid && s->wire.key == j->key;
    uv_mutex_unlock(&j->r->keys_mutex);
    return known;
}

/* One value of the backend's line in pg_stat_activity; "" if there is none. */
static void look(struct job *j, PGconn *c, const char *column, char *out, size_t cap)
{
    char sql[160];
    PGresult *res;

    (void)snprintf(sql, sizeof sql, "SELECT coalesce(%s, '') FROM pg_stat_activity WHERE pid = %u",
                   column, j->pid);
    res = PQexec(c, sql);
    (void)snprintf(out, cap, "%s",
                   PQresultStatus(res) == PGRES_TUPLES_OK && PQntuples(res) == 1
                       ? PQgetvalue(res, 0, 0)
                       : "");
    PQclear(res);
}

static void pass(struct job *j)
{
    uint8_t packet[16] = {0, 0, 0, 16, 0x04, 0xd2, 0x16, 0x2e};
    int fd = hf_net_connect_unix(j->r->socket_path, NULL);
    struct pollfd p = {.fd = fd, .events = POLLIN};

    if (fd < 0)
        return;
    for (int i = 0; i < 4; i++) {
        packet[8 + i] = (uint8_t)(j->pid >> (24 - 8 * i));
        packet[12 + i] = (uint8_t)(j->key >> (24 - 8 * i));
    }
    if (send(fd, packet, sizeof packet, MSG_NOSIGNAL) == (ssize_t)sizeof packet)
        (void)poll(&p, 1, 1000); /* PostgreSQL closes when the signal has been sent */
    close(fd);
}

/* A commit waits for followers only if its transaction has written WAL before the commit record itself;
 * an assigned transaction id alone is not enough. */
static bool barrier(PGconn *c)
{
    PGresult *res = PQexec(
        c, "BEGIN; SELECT pg_logical_emit_message(true, 'holdfast', 'barrier'); COMMIT");
    bool ok = PQresultStatus(res) == PGRES_COMMAND_OK;

    PQclear(res);
    return ok;
}

static bool same_epoch(const struct job *j)
{
    return atomic_load(&j->r->gate_epoch) == j->epoch;
}

/* Until it is done, or the epoch is over and with it every result that was withheld. */
static void barrier_surely(struct job *j, PGconn *c)
{
    while (same_epoch(j)) {
        if (c == NULL)
            c = session_here(j);
        if (c != NULL && barrier(c))
            break;
        PQfinish(c);
        c = NULL;
        (void)poll(NULL, 0, RETRY_MS);
    }
    PQfinish(c);
}

static void cancel_work(struct job *j)
{
    PGconn *c = is_known(j) ? session_here(j) : NULL;
    char text[64];

    if (c == NULL)
        return;
    look(j, c, "wait_event", text, sizeof text);
    if (strcmp(text, "SyncRep") == 0) {
        atomic_fetch_add(&j->r->n_cancels_refused, 1);
        hf_info("router: a cancel of backend %u is not passed: it waits for a majority to hold its "
                "commit",
                j->pid);
        PQfinish(c);
        return;
    }
    atomic_fetch_add(&j->r->hold, 1);
    pass(j);
    for (int i = 0; i < SETTLE_TRIES; i++) {
        look(j, c, "state", text, sizeof text);
        if (strcmp(text, "active") != 0 && strcmp(text, "fastpath function call") != 0)
            break;
        /* PostgreSQL has no event for it. */
        (void)poll(NULL, 0, SETTLE_STEP_MS);
    }
    barrier_surely(j, c);
    atomic_fetch_sub(&j->r->hold, 1);
}

static void work(uv_work_t *req)
{
    struct job *j = req->data;

    if (j->cancel) {
        cancel_work(j);
    } else {
        barrier_surely(j, NULL);
        atomic_fetch_sub(&j->r->hold, 1);
    }
}

static void done(uv_work_t *req, int status)
{
    struct job *j = req->data;

    if (status != 0 && !j->cancel)
        atomic_fetch_sub(&j->r->hold, 1);
    if (j->client >= 0)
        close(j->client);
    free(j);
}

static struct job *job(struct thread *t)
{
    struct job *j = calloc(1, sizeof *j);

    if (j == NULL)
        abort(); /* withheld for ever would be the alternative */
    j->r = t->r;
    j->epoch = atomic_load(&t->r->gate_epoch);
    j->client = -1;
    j->req.data = j;
    return j;
}

void hf_cancel_begin(struct session *s)
{
    struct job *j = job(s->t);

    j->cancel = true;
    j->pid = s->cancel.pid;
    j->key = s->cancel.key;
    if (s->front_polled)
        (void)uv_poll_stop(&s->front_poll);
    j->client = dup(s->front); /* the session's own is closed with it */
    if (uv_queue_work(&s->t->loop, &j->req, work, done) != 0) {
        if (j->client >= 0)
            close(j->client);
        free(j);
    }
    hf_session_close(s);
}

void hf_cancel_barrier(struct thread *t)
{
    struct job *j = job(t);

    atomic_fetch_add(&t->r->hold, 1);
    hf_warn("router: a wait for a majority was cut short: results are withheld until a barrier passed");
    if (uv_queue_work(&t->loop, &j->req, work, done) != 0)
        abort();
}
