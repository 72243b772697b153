#include "cmd/chaos_ledger.h"

#include <inttypes.h>
#include <libpq-fe.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#include "base/clock.h"
#include "cmd/cmd.h"

enum { PAUSE_MS = 5, AGAIN_MS = 50, STOP_MS = 10000, ROW_UNKNOWN = 0, ROW_ACKED = 1 };

struct client {
    struct hf_chaos_ledger *c;
    pthread_t thread;
    unsigned turn;
    int fd; /* its connection's, or -1; under the lock */
};

struct hf_chaos_ledger {
    const struct hf_local *local;
    uint64_t run;      /* marks this run's rows in the table */
    uint64_t rows_max; /* rows 0 .. rows_max - 1 */
    _Atomic unsigned char *rows;
    atomic_uint_fast64_t next, acked;
    atomic_uint_fast64_t last_ns;     /* the newest acknowledgement */
    atomic_uint_fast64_t gap_ns;      /* longest since hf_chaos_ledger_gap_ms() was called last */
    atomic_uint_fast64_t longest_ns;  /* longest of all */
    atomic_bool stop;
    char lsn[32]; /* the end of the leader's log when it was read through the gate */
    pthread_mutex_t lock;
    pthread_cond_t ended; /* a client has */
    unsigned n, running;
    struct client clients[HF_CHAOS_CLIENTS_MAX];
};

/* -- connections ------------------------------------------------------------------------------------- */

static PGconn *connect_through(const struct hf_local *l, unsigned first, unsigned last)
{
    char uri[HF_URI_MAX];

    hf_cmd_uri_text(l, first, last, false, false, uri, sizeof uri);
    return PQconnectdb(uri);
}

/* One node's own PostgreSQL. As the application: what is called holdfast_chaos there is the application's. */
static PGconn *connect_to_copy(const struct hf_local *l, unsigned node)
{
    char sock[HF_PATH_MAX];
    const char *const keys[] = {"host", "port", "user", "password", "dbname", "options", NULL};
    const char *const values[] = {sock, "5432", l->accounts.app_role, l->accounts.app_password,
                                  l->accounts.app_database, "-c statement_timeout=30s", NULL};

    hf_local_node_path(l, node, "sock", sock);
    return PQconnectdbParams(keys, values, 0);
}

static int complain(PGconn *conn, struct hf_error *err)
{
    const char *text = conn != NULL ? PQerrorMessage(conn) : "out of memory";

    return hf_fail(err, HF_EPG, "chaos: %.*s (hint: `holdfast status`)", (int)strcspn(text, "\n"), text);
}

static int execute(PGconn *conn, const char *sql, struct hf_error *err)
{
    PGresult *r = PQexec(conn, sql);
    bool ok = PQresultStatus(r) == PGRES_COMMAND_OK;

    PQclear(r);
    return ok ? 0 : complain(conn, err);
}

/* -- clients ----------------------------------------------------------------------------------------- */

static void raise_to(atomic_uint_fast64_t *at, uint64_t value)
{
    uint_fast64_t seen = atomic_load(at);

    while (seen < value && !atomic_compare_exchange_weak(at, &seen, value))
        ;
}

static void acked(struct hf_chaos_ledger *c, uint64_t row)
{
    uint64_t now = hf_clock_ns(), before = atomic_exchange(&c->last_ns, now);

    atomic_store(&c->rows[row], ROW_ACKED);
    atomic_fetch_add(&c->acked, 1);
    if (before != 0 && now > before) {
        raise_to(&c->gap_ns, now - before);
        raise_to(&c->longest_ns, now - before);
    }
}

/* Writes rows until the connection is no more. */
static void write_rows(struct hf_chaos_ledger *c, PGconn *conn)
{
    char sql[128];

    while (!atomic_load(&c->stop)) {
        uint64_t row = atomic_fetch_add(&c->next, 1);
        PGresult *r;
        bool ok;
        if (row >= c->rows_max)
            return;
        (void)snprintf(sql, sizeof sql, "insert into holdfast_chaos values (%" PRIu64 ", %" PRIu64 ")",
                       c->run, row);
        r = PQexec(conn, sql);
        ok = PQresultStatus(r) == PGRES_COMMAND_OK;
        PQclear(r);
        if (ok)
            acked(c, row);
        if (PQstatus(conn) != CONNECTION_OK)
            return;
        hf_cmd_sleep_ms(PAUSE_MS);
    }
}

static void note_fd(struct client *k, int fd)
{
    (void)pthread_mutex_lock(&k->c->lock);
    k->fd = fd;
    (void)pthread_mutex_unlock(&k->c->lock);
}

static void *client_run(void *arg)
{
    struct client *k = arg;
    struct hf_chaos_ledger *c = k->c;

    while (!atomic_load(&c->stop) && atomic_load(&c->next) < c->rows_max) {
        unsigned node = k->turn++ % c->local->replicas;
        PGconn *conn = connect_through(c->local, node, node);
        if (PQstatus(conn) == CONNECTION_OK) {
            note_fd(k, PQsocket(conn));
            write_rows(c, conn);
            note_fd(k, -1);
        } else {
            hf_cmd_sleep_ms(AGAIN_MS);
        }
        PQfinish(conn);
    }
    (void)pthread_mutex_lock(&c->lock);
    c->running--;
    (void)pthread_cond_signal(&c->ended);
    (void)pthread_mutex_unlock(&c->lock);
    return NULL;
}

/* -- the beginning and the end ----------------------------------------------------------------------- */

static int make_table(const struct hf_local *l, struct hf_error *err)
{
    PGconn *conn = connect_through(l, 0, l->replicas - 1);
    int rv = PQstatus(conn) == CONNECTION_OK ? 0 : complain(conn, err);

    /* An index that is not unique: a row written twice must show. */
    if (rv == 0)
        rv = execute(conn, "set client_min_messages = error; create table if not exists holdfast_chaos (run "
                           "bigint not null, n bigint not null); create index if not exists "
                           "holdfast_chaos_n on holdfast_chaos (run, n)", err);
    PQfinish(conn);
    return rv;
}

struct hf_chaos_ledger *hf_chaos_ledger_start(const struct hf_local *l, unsigned clients,
                                              uint64_t rows_max, struct hf_error *err)
{
    struct hf_chaos_ledger *c;

    if (make_table(l, err) != 0)
        return NULL;
    c = calloc(1, sizeof *c);
    if (c != NULL)
        c->rows = calloc(rows_max, sizeof *c->rows);
    if (c == NULL || c->rows == NULL) {
        free(c);
        (void)hf_fail(err, HF_ENOMEM, "chaos: out of memory");
        return NULL;
    }
    c->local = l;
    c->rows_max = rows_max;
    c->run = hf_clock_unix_ms() * 1000 + (uint64_t)getpid() % 1000;
    (void)pthread_mutex_init(&c->lock, NULL);
    (void)pthread_cond_init(&c->ended, NULL);
    c->running = clients;
    for (; c->n < clients; c->n++) {
        c->clients[c->n] = (struct client){.c = c, .turn = c->n, .fd = -1};
        if (pthread_create(&c->clients[c->n].thread, NULL, client_run, &c->clients[c->n]) != 0) {
            c->running -= clients - c->n;
            (void)hf_fail(err, HF_ENOMEM, "chaos: cannot start a thread");
            hf_chaos_ledger_stop(c);
            hf_chaos_ledger_free(c, true);
            return NULL;
        }
    }
    return c;
}

unsigned long hf_chaos_ledger_gap_ms(struct hf_chaos_ledger *c)
{
    uint64_t last = atomic_load(&c->last_ns), now = hf_clock_ns();
    uint64_t gap = atomic_exchange(&c->gap_ns, 0);

    if (last != 0 && now > last && now - last > gap)
        gap = now - last;
    return (unsigned long)(gap / 1000000u);
}

bool hf_chaos_ledger_goes_on(struct hf_chaos_ledger *c, unsigned timeout_ms)
{
    unsigned long end = hf_cmd_now_ms() + timeout_ms;
    uint64_t before = atomic_load(&c->acked);

    while (atomic_load(&c->acked) == before && atomic_load(&c->next) < c->rows_max) {
        if (hf_cmd_now_ms() > end)
            return false;
        hf_cmd_sleep_ms(PAUSE_MS);
    }
    return true;
}

void hf_chaos_ledger_stop(struct hf_chaos_ledger *c)
{
    struct timespec end;
    int rv = 0;

    atomic_store(&c->stop, true);
    (void)clock_gettime(CLOCK_REALTIME, &end);
    end.tv_sec += STOP_MS / 1000;
    (void)pthread_mutex_lock(&c->lock);
    while (c->running > 0 && rv == 0)
        rv = pthread_cond_timedwait(&c->ended, &c->lock, &end);
    /* A commit without a majority waits for ever. */
    for (unsigned i = 0; i < c->n; i++)
        if (c->clients[i].fd >= 0)
            (void)shutdown(c->clients[i].fd, SHUT_RDWR);
    (void)pthread_mutex_unlock(&c->lock);
    for (unsigned i = 0; i < c->n; i++)
        (void)pthread_join(c->clients[i].thread, NULL);
    c->n = 0;
}

/* -- the check --------------------------------------------------------------------------------------- */

static uint64_t taken(struct hf_chaos_ledger *c)
{
    uint64_t next = atomic_load(&c->next);

    return next < c->rows_max ? next : c->rows_max;
}

/* Against what was acknowledged. Returns 0, or an error if they cannot be read. */
static int compare(struct hf_chaos_ledger *c, PGconn *conn, uint64_t *lost, uint64_t *doubled,
                   uint64_t *first_lost, struct hf_error *err)
{
    uint64_t end = taken(c), row = 0;
    char sql[128];
    PGresult *r;
    int rv = 0;

    *lost = *doubled = 0;
    (void)snprintf(sql, sizeof sql,
                   "select n, count(*) from holdfast_chaos where run = %" PRIu64 " group by n order by n",
                   c->run);
    r = PQexec(conn, sql);
    if (PQresultStatus(r) != PGRES_TUPLES_OK)
        rv = complain(conn, err);
    for (int i = 0; rv == 0 && i <= PQntuples(r); i++) { /* one more: the rows after the last that is there */
        uint64_t there = i < PQntuples(r) ? strtoull(PQgetvalue(r, i, 0), NULL, 10) : end;
        for (; row < there && row < end; row++) {
            if (atomic_load(&c->rows[row]) == ROW_ACKED && (*lost)++ == 0)
                *first_lost = row;
        }
        if (i < PQntuples(r) && strcmp(PQgetvalue(r, i, 1), "1") != 0)
            (*doubled)++;
        row = there + 1;
    }
    PQclear(r);
    return rv;
}

/* One value as text. */
static int ask(PGconn *conn, const char *sql, char *out, size_t cap, struct hf_error *err)
{
    PGresult *r = PQexec(conn, sql);
    bool ok = PQresultStatus(r) == PGRES_TUPLES_OK && PQntuples(r) == 1;

    if (ok)
        (void)snprintf(out, cap, "%s", PQgetvalue(r, 0, 0));
    PQclear(r);
    return ok ? 0 : complain(conn, err);
}

int hf_chaos_ledger_check(struct hf_chaos_ledger *c, struct hf_chaos_verdict *v, struct hf_error *err)
{
    PGconn *conn = connect_through(c->local, 0, c->local->replicas - 1);
    int rv = PQstatus(conn) == CONNECTION_OK ? 0 : complain(conn, err);

    memset(v, 0, sizeof *v);
    v->acked = atomic_load(&c->acked);
    v->unknown = taken(c) - v->acked;
    v->longest_ms = (unsigned long)(atomic_load(&c->longest_ns) / 1000000u);
    if (rv == 0)
        rv = compare(c, conn, &v->lost, &v->doubled, &v->first_lost, err);
    if (rv == 0) /* flushed: all that was acknowledged is before it */
        rv = ask(conn, "select pg_current_wal_flush_lsn()", c->lsn, sizeof c->lsn, err);
    v->read = rv == 0;
    PQfinish(conn);
    return rv;
}

/* A copy that has not applied everything yet is an error, too: it is asked again. */
static int check_copy(struct hf_chaos_ledger *c, unsigned node, struct hf_chaos_copy *copy)
{
    PGconn *conn = connect_to_copy(c->local, node);
    int rv = PQstatus(conn) == CONNECTION_OK ? 0 : complain(conn, &copy->why);
    char sql[160], applied[8];
    uint64_t first;

    (void)snprintf(sql, sizeof sql, "select not pg_is_in_recovery() or pg_last_wal_replay_lsn() >= '%s'", c->lsn);
    if (rv == 0)
        rv = ask(conn, sql, applied, sizeof applied, &copy->why);
    if (rv == 0 && strcmp(applied, "t") != 0)
        rv = hf_fail(&copy->why, HF_EBUSY, "it has not applied the leader's log up to %s", c->lsn);
    if (rv == 0)
        rv = compare(c, conn, &copy->lost, &copy->doubled, &first, &copy->why);
    PQfinish(conn);
    return rv;
}

void hf_chaos_ledger_check_copies(struct hf_chaos_ledger *c, unsigned timeout_ms, struct hf_chaos_verdict *v)
{
    unsigned long end = hf_cmd_now_ms() + timeout_ms;

    for (v->n_copies = 0; v->n_copies < c->local->replicas; v->n_copies++) {
        struct hf_chaos_copy *copy = &v->copies[v->n_copies];
        while (!(copy->compared = check_copy(c, v->n_copies, copy) == 0) && hf_cmd_now_ms() < end)
            hf_cmd_sleep_ms(AGAIN_MS);
        v->bad_copies += !copy->compared || copy->lost != 0 || copy->doubled != 0;
    }
}

void hf_chaos_ledger_free(struct hf_chaos_ledger *c, bool drop)
{
    if (drop) {
        PGconn *conn = connect_through(c->local, 0, c->local->replicas - 1);
        /* What cannot be dropped now does no harm: the next run adds to it. */
        if (PQstatus(conn) == CONNECTION_OK)
            (void)execute(conn, "drop table if exists holdfast_chaos", NULL);
        PQfinish(conn);
    }
    (void)pthread_cond_destroy(&c->ended);
    (void)pthread_mutex_destroy(&c->lock);
    free((void *)c->rows);
    free(c);
}
