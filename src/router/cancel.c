/* CancelRequest, on the node whose PostgreSQL serves the session (SAFETY S11).
 *
 * A cancel that reaches a backend in its wait for synchronous replication makes PostgreSQL commit
 * locally and return: the commit is visible and unacknowledged by anybody. So a backend seen
 * waiting is not cancelled. Because the cancel may race into the wait, the gate's answers are
 * withheld from before it is passed until a barrier, a synchronous commit of our own, has gone
 * through: then everything that was committed locally is on a majority, whatever the cancel did.
 *
 * Where PostgreSQL has the guard loaded (src/guard) the wait cannot be cut short, and all of this only
 * costs a barrier for each cancel. The router cannot see that, and a promise must not hang on it.
 *
 * All of it on a thread of its own, one request after another: it waits for PostgreSQL, and libuv's
 * pool of workers belongs to Raft's disk. */
#include "router/cancel.h"

#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/log.h"
#include "base/net.h"
#include "router/link.h"
#include "router/session.h"

enum {
    QUEUE_MAX = 64,
    SETTLE_MS = 200,
    ASK_MS = 2000,
    PASS_MS = 1000,
    RETRY_MS = 100,
};
#define MS 1000000ull

struct request {
    int fd; /* the client waits for its end; -1: closed. Does not block */
    bool tunnel; /* who is to be told that it is certain */
    struct hf_secret secret;
    struct hf_ticket *ticket;
};

struct hf_canceller {
    struct hf_router *r;
    char dir[108];
    uv_thread_t id;
    uv_mutex_t mutex;
    uv_cond_t cond;
    struct request queue[QUEUE_MAX];
    unsigned first, n;
    bool barrier_wanted; /* and `hold` raised for it */
    atomic_bool stopping;
    atomic_uint passed, refused;
};

/* -- PostgreSQL ---------------------------------------------------------------------------- */

/* A transaction that writes WAL: PostgreSQL does not make a mere transaction number wait. */
static bool barrier(struct hf_link *l)
{
    PGresult *res;
    bool ok;

    l->given_up = false;
    res = hf_link_ask(l, "SELECT pg_logical_emit_message(true, 'holdfast', 'barrier')", 0);
    ok = PQresultStatus(res) == PGRES_TUPLES_OK && !l->given_up;
    PQclear(res);
    return ok;
}

/* Until it is through, or the gate is shut and with it every answer that was withheld is gone. */
static void barrier_surely(struct hf_link *l)
{
    while (!hf_link_is_over(l)) {
        if ((l->conn != NULL || hf_link_open(l)) && barrier(l))
            return;
        hf_link_close(l);
        (void)poll(NULL, 0, RETRY_MS);
    }
}

static void release(struct hf_canceller *c)
{
    if (atomic_fetch_sub(&c->r->hold, 1) == 1)
        hf_thread_wake(c->r);
}

/* -- one request --------------------------------------------------------------------------- */

/* Unknown is as good as waiting: then it must not be cancelled either. */
static bool is_waiting(struct hf_link *l, uint32_t pid)
{
    char sql[160];
    PGresult *res;
    bool waits;

    (void)snprintf(sql, sizeof sql,
                   "SELECT coalesce(wait_event, '') = 'SyncRep' FROM pg_stat_get_activity(%u)",
                   pid);
    res = hf_link_ask(l, sql, ASK_MS);
    waits = PQresultStatus(res) != PGRES_TUPLES_OK || PQntuples(res) != 1 ||
            strcmp(PQgetvalue(res, 0, 0), "f") != 0;
    PQclear(res);
    return waits;
}

/* It has been done, or will never be. */
static void is_certain(struct hf_keyring *k, struct request *q)
{
    static const char word = HF_CANCEL_CERTAIN;

    hf_key_cancelled(k, q->ticket);
    q->ticket = NULL;
    if (q->tunnel)
        (void)send(q->fd, &word, 1, MSG_NOSIGNAL | MSG_DONTWAIT); /* unsaid, its connection serves nobody else */
    q->tunnel = false;
}

/* Its ticket is given back once nothing of it can be on its way any more. */
static void pass(struct hf_canceller *c, struct hf_link *l, struct request *q)
{
    uint8_t packet[12 + HF_SECRET_MAX] = {0, 0, 0, 0, 0x04, 0xd2, 0x16, 0x2e};
    size_t len = 12 + (size_t)q->secret.len;
    int fd = hf_net_connect_unix(c->r->socket_path, NULL);

    if (fd < 0) {
        is_certain(&c->r->keyring, q);
        return;
    }
    for (int i = 0; i < 4; i++) {
        packet[i] = (uint8_t)(len >> (24 - 8 * i));
        packet[8 + i] = (uint8_t)(q->secret.pid >> (24 - 8 * i));
    }
    memcpy(packet + 12, q->secret.bytes, q->secret.len);
    /* PostgreSQL closes when the signal has been sent. */
    if (send(fd, packet, len, MSG_NOSIGNAL) == (ssize_t)len && hf_link_wait(l, fd, POLLIN, uv_hrtime() + PASS_MS * MS))
        is_certain(&c->r->keyring, q);
    close(fd);
    atomic_fetch_add(&c->passed, 1);
}

static void client_done(struct request *q)
{
    free(q->ticket); /* nobody knows: its connection serves nobody else */
    q->ticket = NULL;
    if (q->fd >= 0)
        close(q->fd);
    q->fd = -1;
}

/* To a session of the gate. */
static void cancel_at_gate(struct hf_canceller *c, struct hf_link *l, struct request *q)
{
    if (!hf_link_open(l))
        return;
    if (is_waiting(l, q->secret.pid)) {
        atomic_fetch_add(&c->refused, 1);
        hf_info("router: a cancel of backend %u is not passed: it waits until a majority holds its "
                "commit",
                q->secret.pid);
        is_certain(&c->r->keyring, q);
        return;
    }
    atomic_fetch_add(&c->r->hold, 1);
    pass(c, l, q);
    client_done(q);
    hf_key_settle(&c->r->keyring, &q->secret, SETTLE_MS * MS);
    barrier_surely(l);
    release(c);
}

static void cancel_one(struct hf_canceller *c, struct request *q)
{
    struct hf_link l = {.r = c->r, .dir = c->dir, .stopping = &c->stopping, .opening = atomic_load(&c->r->opening)};
    struct hf_key_place place;

    /* Unknown keys are refused silently, as PostgreSQL does. */
    if (hf_key_find(&c->r->keyring, &q->secret, &place)) {
        if (place.reader) {
            l.opening = 0;
            if (!hf_key_cancel_later(&c->r->keyring, &q->secret))
                pass(c, &l, q); /* a standby commits nothing */
        } else if (l.opening != 0) {
            cancel_at_gate(c, &l, q);
        }
    } else {
        is_certain(&c->r->keyring, q);
    }
    hf_link_close(&l);
    client_done(q);
}

static void barrier_one(struct hf_canceller *c)
{
    struct hf_link l = {.r = c->r, .dir = c->dir, .stopping = &c->stopping, .opening = atomic_load(&c->r->opening)};

    hf_warn("router: a wait for a majority was cut short: answers are withheld until a barrier is "
            "through");
    if (l.opening != 0)
        barrier_surely(&l);
    hf_link_close(&l);
    release(c);
}

/* -- the thread ---------------------------------------------------------------------------- */

static void thread_main(void *arg)
{
    struct hf_canceller *c = arg;

    uv_mutex_lock(&c->mutex);
    while (!atomic_load(&c->stopping)) {
        if (c->barrier_wanted) {
            c->barrier_wanted = false; /* who asks from now on wants a later one */
            uv_mutex_unlock(&c->mutex);
            barrier_one(c);
            uv_mutex_lock(&c->mutex);
        } else if (c->n > 0) {
            struct request q = c->queue[c->first];
            c->first = (c->first + 1) % QUEUE_MAX;
            c->n--;
            uv_mutex_unlock(&c->mutex);
            cancel_one(c, &q);
            uv_mutex_lock(&c->mutex);
        } else {
            uv_cond_wait(&c->cond, &c->mutex);
        }
    }
    uv_mutex_unlock(&c->mutex);
}

void hf_canceller_cancel(struct hf_canceller *c, int fd, bool tunnel, const struct hf_secret *secret, struct hf_ticket *ticket)
{
    struct request q = {fd, tunnel, *secret, ticket};
    bool full;

    uv_mutex_lock(&c->mutex);
    full = c->n == QUEUE_MAX;
    if (!full)
        c->queue[(c->first + c->n++) % QUEUE_MAX] = q;
    uv_cond_signal(&c->cond);
    uv_mutex_unlock(&c->mutex);
    if (full) {
        atomic_fetch_add(&c->refused, 1);
        is_certain(&c->r->keyring, &q);
        client_done(&q);
    }
}

void hf_canceller_barrier(struct hf_canceller *c)
{
    uv_mutex_lock(&c->mutex);
    if (!c->barrier_wanted) {
        c->barrier_wanted = true;
        atomic_fetch_add(&c->r->hold, 1);
        uv_cond_signal(&c->cond);
    }
    uv_mutex_unlock(&c->mutex);
}

void hf_canceller_counts(const struct hf_canceller *c, unsigned *passed, unsigned *refused)
{
    *passed = atomic_load(&c->passed);
    *refused = atomic_load(&c->refused);
}

int hf_canceller_open(struct hf_canceller **out, struct hf_router *r, const char *socket_dir)
{
    struct hf_canceller *c = calloc(1, sizeof *c);

    *out = NULL;
    if (c == NULL)
        return HF_ENOMEM;
    c->r = r;
    (void)snprintf(c->dir, sizeof c->dir, "%s", socket_dir);
    if (uv_mutex_init(&c->mutex) != 0) {
        free(c);
        return HF_ENOMEM;
    }
    if (uv_cond_init(&c->cond) != 0) {
        uv_mutex_destroy(&c->mutex);
        free(c);
        return HF_ENOMEM;
    }
    if (uv_thread_create(&c->id, thread_main, c) != 0) {
        uv_cond_destroy(&c->cond);
        uv_mutex_destroy(&c->mutex);
        free(c);
        return HF_EIO;
    }
    *out = c;
    return 0;
}

void hf_canceller_stop(struct hf_canceller *c)
{
    if (c == NULL)
        return;
    uv_mutex_lock(&c->mutex);
    atomic_store(&c->stopping, true);
    uv_cond_signal(&c->cond);
    uv_mutex_unlock(&c->mutex);
    (void)uv_thread_join(&c->id);
}

void hf_canceller_close(struct hf_canceller *c)
{
    if (c == NULL)
        return;
    for (; c->n > 0; c->n--) {
        close(c->queue[c->first].fd);
        free(c->queue[c->first].ticket);
        c->first = (c->first + 1) % QUEUE_MAX;
    }
    uv_cond_destroy(&c->cond);
    uv_mutex_destroy(&c->mutex);
    free(c);
}
