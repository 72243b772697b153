#include "cmd/chaos_ledger.h"

#include <inttypes.h>
#include <libpq-fe.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/clock.h"
#include "cmd/cmd.h"

enum { PAUSE_MS = 5, AGAIN_MS = 50, ROW_UNKNOWN = 0, ROW_ACKED = 1 };

struct client {
    struct hf_chaos_ledger *c;
    pthread_t thread;
    unsigned turn;
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
    unsigned n;
    struct client clients[HF_CHAOS_CLIENTS_MAX];
};

/* -- connections ------------------------------------------------------------------------------------- */

static PGconn *connect_through(const struct hf_local *l, unsigned first, unsigned last)
{
    char uri[HF_URI_MAX];

    hf_cmd_uri_text(l, first, last, false, false, uri, sizeof uri);
    return PQconnectdb(uri);
}

static int complain(PGconn *conn, struct hf_error *err)
{
    return hf_fail(err, HF_EPG, "chaos: %s (hint: `holdfast status`)",
                   conn != NULL ? PQerrorMessage(conn) : "out of memory");
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

static void *client_run(void *arg)
{
    struct client *k = arg;
    struct hf_chaos_ledger *c = k->c;

    while (!atomic_load(&c->stop) && atomic_load(&c->next) < c->rows_max) {
        unsigned node = k->turn++ % c->local->replicas;
        PGconn *conn = connect_through(c->local, node, node);
        if (PQstatus(conn) == CONNECTION_OK)
            write_rows(c, conn);
        else
            hf_cmd_sleep_ms(AGAIN_MS);
        PQfinish(conn);
    }
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
    for (; c->n < clients; c->n++) {
        c->clients[c->n] = (struct client){.c = c, .turn = c->n};
        if (pthread_create(&c->clients[c->n].thread, NULL, client_run, &c->clients[c->n]) != 0) {
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

void hf_chaos_ledger_stop(struct hf_chaos_ledger *c)
{
    atomic_store(&c->stop, true);
    for (unsigned i = 0; i < c->n; i++)
        (void)pthread_join(c->clients[i].thread, NULL);
    c->n = 0;
}

static void compare(struct hf_chaos_ledger *c, const PGresult *r, struct hf_chaos_verdict *v)
{
    uint64_t taken = atomic_load(&c->next) < c->rows_max ? atomic_load(&c->next) : c->rows_max;
    uint64_t row = 0;

    for (int i = 0; i <= PQntuples(r); i++) { /* one more: the rows after the last that is there */
        uint64_t there = i < PQntuples(r) ? strtoull(PQgetvalue(r, i, 0), NULL, 10) : taken;
        for (; row < there && row < taken; row++) {
            if (atomic_load(&c->rows[row]) == ROW_ACKED && v->lost++ == 0)
                v->first_lost = row;
        }
        if (i < PQntuples(r) && strcmp(PQgetvalue(r, i, 1), "1") != 0)
            v->doubled++;
        row = there + 1;
    }
    v->acked = atomic_load(&c->acked);
    v->unknown = taken - v->acked;
    v->longest_ms = (unsigned long)(atomic_load(&c->longest_ns) / 1000000u);
}

int hf_chaos_ledger_check(struct hf_chaos_ledger *c, struct hf_chaos_verdict *v, struct hf_error *err)
{
    PGconn *conn = connect_through(c->local, 0, c->local->replicas - 1);
    char sql[128];
    PGresult *r;
    int rv = 0;

    memset(v, 0, sizeof *v);
    if (PQstatus(conn) != CONNECTION_OK) {
        rv = complain(conn, err);
        PQfinish(conn);
        return rv;
    }
    (void)snprintf(sql, sizeof sql,
                   "select n, count(*) from holdfast_chaos where run = %" PRIu64 " group by n order by n",
                   c->run);
    r = PQexec(conn, sql);
    if (PQresultStatus(r) == PGRES_TUPLES_OK)
        compare(c, r, v);
    else
        rv = complain(conn, err);
    PQclear(r);
    PQfinish(conn);
    return rv;
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
    free((void *)c->rows);
    free(c);
}
