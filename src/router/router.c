/* The router's life: threads, ports, and what comes in at them. */
#include "router/router.h"

#include <assert.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <unistd.h>

#include <openssl/crypto.h>
#include <openssl/rand.h>

#include "base/log.h"
#include "base/net.h"
#include "router/session.h"
#include "router/share.h"

enum {
    HOLD_MS = 10000,
    LOGIN_MS = 60000, /* PostgreSQL's authentication_timeout */
    POOL_WAIT_MS = 60000,
    CLIENTS = 1000,
    FDS_PER_SESSION = 2,
    FDS_SPARE = 400, /* for everything else in the node, and connections without a place */
};

/* -- connections --------------------------------------------------------------------------- */

struct arrival {
    struct hf_thread *t;
    int fd;
    bool read_only, from_tunnel;
};

static void arrival_run(void *arg)
{
    struct arrival *a = arg;

    hf_session_accept(a->t, a->fd, a->read_only, a->from_tunnel);
    free(a);
}

static void arrive(struct hf_router *r, int fd, bool read_only, bool from_tunnel)
{
    struct arrival *a = malloc(sizeof *a);

    if (a == NULL || r->closing) {
        free(a);
        close(fd);
        return;
    }
    *a = (struct arrival){&r->threads[r->next_thread++ % r->n_threads], fd, read_only, from_tunnel};
    hf_mailbox_post(a->t->mailbox, arrival_run, a);
}

void hf_router_serve(struct hf_router *r, int fd, enum hf_router_to as)
{
    arrive(r, fd, as == HF_TO_FOLLOWER, true);
}

bool hf_router_is_readable(const struct hf_router *r)
{
    return atomic_load(&r->readable) && !atomic_load(&r->behind);
}

static void arrived(void *ctx, int fd)
{
    struct hf_router_port *port = ctx;

    arrive(port->r, fd, port->read_only, false);
}

int hf_router_reload(struct hf_router *r, const char *tls_dir, struct hf_error *err)
{
    return r->tls_mode != HF_ROUTER_TLS_OFF ? hf_client_tls_load(&r->tls, tls_dir, err) : 0;
}

void hf_router_unfurnished(struct hf_router *r, bool yes)
{
    atomic_store(&r->unfurnished, yes);
}

void hf_router_secret(struct hf_router *r, const uint8_t secret[32])
{
    hf_asker_secret(r->asker, secret);
}

/* -- dials --------------------------------------------------------------------------------- */

static void dialed_run(void *arg)
{
    struct hf_router_dial *d = arg;

    if (d->s != NULL)
        hf_session_dialed(d->s, d->ok, d->id);
    free(d);
}

void hf_router_dialed(struct hf_router_dial *d, bool ok, uint64_t id)
{
    if (d->t == NULL) { /* the router has been closed meanwhile */
        free(d);
        return;
    }
    *d->at = d->next;
    if (d->next != NULL)
        d->next->at = d->at;
    d->ok = ok;
    d->id = id;
    hf_mailbox_post(d->t->mailbox, dialed_run, d);
}

const char *hf_router_refused_word(enum hf_refused why)
{
    static const char *const words[] = {
        [HF_REFUSED_FULL] = "full",     [HF_REFUSED_NETWORK] = "network", [HF_REFUSED_PLAIN] = "plain",
        [HF_REFUSED_TLS] = "tls",       [HF_REFUSED_STARTUP] = "startup", [HF_REFUSED_SLOW] = "slow",
        [HF_REFUSED_LEADER] = "leader", [HF_REFUSED_PASSWORD] = "password",
    };

    return words[why];
}

struct hf_router_counts hf_router_counts(const struct hf_router *r)
{
    struct hf_router_counts c = {.sessions = atomic_load(&r->n_sessions),
                                 .gate = atomic_load(&r->n_gate),
                                 .tunnels = atomic_load(&r->n_tunnels),
                                 .readers = atomic_load(&r->n_readers),
                                 .held = atomic_load(&r->n_held),
                                 .pooled = atomic_load(&r->n_pooled),
                                 .lease_held = atomic_load(&r->n_lease_held),
                                 .tls = atomic_load(&r->n_tls),
                                 .max_clients = r->max_clients,
                                 .accepted = atomic_load(&r->accepted),
                                 .reads_here = atomic_load(&r->reads_here),
                                 .reads_elsewhere = atomic_load(&r->reads_elsewhere),
                                 .reads_leader = atomic_load(&r->reads_leader),
                                 .reads_waited = atomic_load(&r->reads_waited),
                                 .reads_given_up = atomic_load(&r->reads_given_up)};

    for (int i = 0; i < HF_REFUSED_KINDS; i++)
        c.refused[i] = atomic_load(&r->refused[i]);
    for (unsigned i = 0; i < r->n_threads; i++) {
        c.bytes_in += atomic_load(&r->threads[i].bytes_in);
        c.bytes_out += atomic_load(&r->threads[i].bytes_out);
    }
    hf_canceller_counts(r->canceller, &c.cancels, &c.cancels_refused);
    uv_mutex_lock((uv_mutex_t *)&r->pools_lock);
    c.pool.servers = r->pools.places;
    c.pool.waiting = r->pools.n_waiting;
    uv_mutex_unlock((uv_mutex_t *)&r->pools_lock);
    c.pool.taken = atomic_load(&r->share_taken);
    c.pool.remade = atomic_load(&r->share_remade);
    c.pool.waits = atomic_load(&r->share_waits);
    c.pool.waited_ms = atomic_load(&r->share_waited_ms);
    c.pool.late = atomic_load(&r->share_late);
    c.pool.stalled = atomic_load(&r->share_stalled);
    c.idle_ended = atomic_load(&r->idle_ended);
    c.moved = atomic_load(&r->moved);
    c.lost_40001 = atomic_load(&r->lost_40001);
    c.lost_08007 = atomic_load(&r->lost_08007);
    for (int i = 0; i < HF_ENDED_KINDS; i++)
        c.ended[i] = atomic_load(&r->ended[i]);
    return c;
}

/* -- threads ------------------------------------------------------------------------------- */

static void thread_main(void *arg)
{
    struct hf_thread *t = arg;

    while (!t->stopping) {
        if (t->r->follow) {
            hf_sql_cache_turn(t->sql);
            hf_share_turn(t);
        }
        hf_poller_wait(t);
    }
    (void)uv_run(&t->loop, UV_RUN_DEFAULT); /* what has been closed */
}

static void stop_run(void *arg)
{
    struct hf_thread *t = arg;

    t->stopping = true;
    while (t->sessions != NULL)
        if (t->sessions->from_tunnel && t->r->follow)
            hf_session_close(t->sessions); /* the other node's router knows what to do */
        else
            hf_session_refuse(t->sessions, "57P01", "this node is being stopped",
                              "Connect to another.");
    hf_share_thread_close(t);
    hf_silent_thread_close(t);
    uv_close((uv_handle_t *)&t->timer, NULL);
    hf_mailbox_close(t->mailbox);
    hf_poller_close(t);
}

static int thread_open(struct hf_router *r, struct hf_thread *t)
{
    const uv_thread_options_t options = {.flags = UV_THREAD_HAS_STACK_SIZE,
                                         .stack_size = HF_ROUTER_STACK_BYTES};

    t->r = r;
    if (uv_loop_init(&t->loop) != 0)
        return HF_EIO;
    t->mailbox = hf_mailbox_open(&t->loop);
    if (t->mailbox == NULL) {
        (void)uv_loop_close(&t->loop);
        return HF_ENOMEM;
    }
    if (!hf_poller_open(t)) {
        hf_mailbox_close(t->mailbox);
        (void)uv_run(&t->loop, UV_RUN_DEFAULT);
        (void)uv_loop_close(&t->loop);
        return HF_EIO;
    }
    hf_share_thread_open(t, (unsigned)(t - r->threads));
    hf_silent_thread_open(t);
    (void)uv_timer_init(&t->loop, &t->timer);
    t->timer.data = t;
    if (uv_thread_create_ex(&t->id, &options, thread_main, t) == 0)
        return 0;
    stop_run(t);
    (void)uv_run(&t->loop, UV_RUN_DEFAULT);
    (void)uv_loop_close(&t->loop);
    return HF_EIO;
}

static void threads_close(struct hf_router *r)
{
    for (unsigned i = 0; i < r->n_threads; i++)
        hf_mailbox_post(r->threads[i].mailbox, stop_run, &r->threads[i]);
    for (unsigned i = 0; i < r->n_threads; i++) {
        (void)uv_thread_join(&r->threads[i].id);
        if (uv_loop_close(&r->threads[i].loop) != 0)
            hf_warn("router: a thread left handles open");
    }
    r->n_threads = 0;
}

/* -- life ---------------------------------------------------------------------------------- */

static void threads_free(struct hf_router *r)
{
    for (unsigned i = 0; r->threads != NULL && i < HF_ROUTER_THREADS; i++)
        hf_sql_cache_free(r->threads[i].sql);
    free(r->threads);
}

static bool threads_allocate(struct hf_router *r)
{
    r->threads = calloc(HF_ROUTER_THREADS, sizeof *r->threads);
    for (unsigned i = 0; r->threads != NULL && i < HF_ROUTER_THREADS; i++)
        if ((r->threads[i].sql = hf_sql_cache_new(HF_ROUTER_SQL_BYTES)) == NULL)
            return false;
    return r->threads != NULL;
}

static void router_free(struct hf_router *r)
{
    hf_client_tls_close(&r->tls); /* hf_router_reload() may come until here */
    threads_free(r);
    free(r);
}

static void port_stopped(void *ctx)
{
    struct hf_router_port *port = ctx;

    if (--port->r->ports_open == 0)
        router_free(port->r);
}

static int listen_on(struct hf_router *r, uv_loop_t *loop, struct hf_router_port *port, const char *addr,
                     bool read_only, struct hf_error *err)
{
    int fd = hf_net_listen(addr, err);

    if (fd < 0)
        return fd;
    port->read_only = read_only;
    if (hf_listener_start(&port->listener, loop, fd, "router", arrived, port) != 0) {
        close(fd);
        return hf_fail(err, HF_EIO, "cannot poll the socket of %s", addr);
    }
    r->ports_open++;
    return 0;
}

/* Every session needs two descriptors; the soft limit is often 1024. */
static void raise_limit(unsigned sessions)
{
    rlim_t need = (rlim_t)sessions * FDS_PER_SESSION + FDS_SPARE;
    struct rlimit l;

    if (getrlimit(RLIMIT_NOFILE, &l) != 0 || l.rlim_cur >= need)
        return;
    l.rlim_cur = l.rlim_max < need ? l.rlim_max : need;
    if (setrlimit(RLIMIT_NOFILE, &l) != 0 || l.rlim_cur < need)
        hf_warn("router: %u sessions need %llu open files, the limit is %llu (hint: raise it with "
                "ulimit -n)",
                sessions, (unsigned long long)need, (unsigned long long)l.rlim_max);
}

static int open_parts(struct hf_router *r, uv_loop_t *loop, const struct hf_router_config *config,
                      struct hf_error *err)
{
    int rv = config->tls != HF_ROUTER_TLS_OFF ? hf_client_tls_load(&r->tls, config->tls_dir, err) : 0;

    if (rv == 0)
        rv = listen_on(r, loop, &r->ports[0], config->sql, false, err);
    if (rv == 0)
        rv = listen_on(r, loop, &r->ports[1], config->read_only, true, err);
    if (rv == 0 && hf_canceller_open(&r->canceller, r, config->socket_dir) != 0)
        rv = hf_fail(err, HF_EIO, "router: cannot start a thread");
    if (rv == 0 && hf_asker_open(&r->asker, r, config->socket_dir) != 0)
        rv = hf_fail(err, HF_EIO, "router: cannot start a thread");
    if (rv == 0 && hf_fresh_open(&r->freshness, r, config->socket_dir) != 0)
        rv = hf_fail(err, HF_EIO, "router: cannot start a thread");
    while (rv == 0 && r->n_threads < HF_ROUTER_THREADS) {
        rv = thread_open(r, &r->threads[r->n_threads]);
        if (rv != 0)
            return hf_fail(err, rv, "router: cannot start a thread");
        r->n_threads++;
    }
    return rv;
}

static struct hf_router *allocate(uv_loop_t *loop)
{
    struct hf_router *r = calloc(1, sizeof *r);

    if (r == NULL)
        return NULL;
    if (!threads_allocate(r) || (r->control = hf_mailbox_open(loop)) == NULL)
        goto no_control;
    if (hf_client_tls_open(&r->tls, NULL) != 0)
        goto no_tls;
    if (RAND_bytes(r->failures_secret, sizeof r->failures_secret) != 1 || uv_mutex_init(&r->failures_lock) != 0)
        goto no_failures;
    if (RAND_bytes(r->share_secret, sizeof r->share_secret) != 1 || uv_mutex_init(&r->pools_lock) != 0)
        goto no_pools;
    if (hf_keyring_open(&r->keyring) == 0)
        return r;
    uv_mutex_destroy(&r->pools_lock);
no_pools:
    uv_mutex_destroy(&r->failures_lock);
no_failures:
    hf_client_tls_close(&r->tls);
no_tls:
    hf_mailbox_close(r->control);
no_control:
    threads_free(r);
    free(r);
    return NULL;
}

int hf_router_open(struct hf_router **out, uv_loop_t *loop, const struct hf_router_config *config,
                   const struct hf_router_callbacks *callbacks, struct hf_error *err)
{
    struct hf_router *r = allocate(loop);
    int rv;

    *out = NULL;
    if (r == NULL)
        return hf_fail(err, HF_ENOMEM, "router: out of memory");
    r->callbacks = *callbacks;
    r->tls_mode = config->tls;
    r->hold_ms = config->hold_ms != 0 ? config->hold_ms : HOLD_MS;
    r->login_ms = config->login_ms != 0 ? config->login_ms : LOGIN_MS;
    r->max_clients = config->max_clients != 0 ? config->max_clients : CLIENTS;
    r->follow = config->follow;
    r->share = config->share && config->follow;
    r->pools.most = config->max_servers;
    r->pool_wait_ms = config->pool_wait_ms != 0 ? config->pool_wait_ms : POOL_WAIT_MS;
    r->stalled_ms = r->share ? config->stalled_ms : 0;
    r->idle_ms = config->idle_ms;
    if (config->allow != NULL)
        r->allow = *config->allow;
    for (int i = 0; i < 2; i++) {
        r->ports[i].r = r;
        r->ports[i].listener.fd = -1;
    }
    raise_limit(r->max_clients);
    if ((size_t)snprintf(r->socket_path, sizeof r->socket_path, "%s/.s.PGSQL.5432",
                         config->socket_dir) >= sizeof r->socket_path)
        rv =
            hf_fail(err, HF_EINVAL,
                    "the path of PostgreSQL's socket in %s is too long (hint: use a directory with "
                    "a shorter path)",
                    config->socket_dir);
    else
        rv = open_parts(r, loop, config, err);
    if (rv != 0)
        hf_router_close(r);
    else
        *out = r;
    return rv;
}

void hf_router_close(struct hf_router *r)
{
    struct hf_router_dial *next;

    assert(!r->closing);
    r->closing = true;
    atomic_store(&r->opening, 0);
    hf_canceller_stop(r->canceller); /* they post to the threads */
    hf_asker_stop(r->asker);
    hf_fresh_stop(r->freshness);
    threads_close(r);
    hf_canceller_close(r->canceller); /* they have posted to it */
    hf_asker_close(r->asker);
    hf_fresh_close(r->freshness);
    hf_mailbox_close(r->control);     /* runs what the threads have posted; frees it all */
    for (struct hf_router_dial *d = r->dials; d != NULL; d = next) {
        next = d->next;
        d->t = NULL; /* the host still has it */
    }
    hf_keyring_close(&r->keyring);
    uv_mutex_destroy(&r->pools_lock);
    uv_mutex_destroy(&r->failures_lock);
    OPENSSL_cleanse(r->share_secret, sizeof r->share_secret);
    OPENSSL_cleanse(r->failures_secret, sizeof r->failures_secret);
    if (r->ports_open == 0)
        router_free(r);
    else
        for (int i = 0; i < 2; i++) {
            struct hf_listener *l = &r->ports[i].listener;
            if (l->fd < 0)
                continue;
            hf_listener_stop(l, port_stopped);
            close(l->fd);
        }
}
