/* One node: start-up, the control loop, and what reaches the core as events. */
#include "node.h"
#include "node_private.h"

#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>
#include <unistd.h>

#include "base/cert.h"
#include "base/clock.h"
#include "base/file.h"
#include "base/log.h"
#include "sentinel.h"

enum { TICK_MS = 10 };
#define ACCOUNTS_LATER_NS (300 * HF_MS)

/* -- events ------------------------------------------------------------------------------------------ */

static void route(struct hf_node *n);

void hf_node_step(struct hf_node *n, const struct hf_event *e)
{
    const struct hf_action *next;

    if (n->decide == NULL || n->ending)
        return;
    hf_decide_step(n->decide, hf_clock_ns(), e);
    if (n->stepping)
        return; /* an action's call came straight back: the loop below carries on with its actions */
    n->stepping = true;
    while (!n->ending && (next = hf_decide_next(n->decide)) != NULL) {
        struct hf_action a = *next;
        hf_node_act(n, &a);
    }
    n->stepping = false;
    route(n);
}

struct later {
    struct hf_node *n;
    struct hf_event e;
};

static void later_run(void *arg)
{
    struct later *l = arg;

    hf_node_step(l->n, &l->e);
    free(l);
}

void hf_node_later(struct hf_node *n, const struct hf_event *e)
{
    struct later *l = malloc(sizeof *l);

    if (l == NULL)
        abort();
    *l = (struct later){n, *e};
    hf_mailbox_post(n->mailbox, later_run, l);
}

struct hf_waiting *hf_node_waiting(struct hf_node *n, uint64_t request)
{
    for (unsigned i = 0; i < HF_WAITING_MAX; i++)
        if (request != 0 && n->waiting[i].request == request)
            return &n->waiting[i];
    return NULL;
}

struct hf_waiting *hf_node_wait(struct hf_node *n)
{
    for (unsigned i = 0; i < HF_WAITING_MAX; i++) {
        if (n->waiting[i].request == 0) {
            n->waiting[i].request = ++n->next_request;
            return &n->waiting[i];
        }
    }
    return NULL;
}

void hf_node_random(void *out, size_t len)
{
    if (getrandom(out, len, 0) != (ssize_t)len) {
        hf_err("getrandom: no random numbers");
        abort();
    }
}

/* -- who is where ------------------------------------------------------------------------------------ */

const char *hf_node_seed_addr(const struct hf_node *n, const char *name)
{
    for (unsigned i = 0; i < n->config->n_seeds; i++)
        if (strcmp(n->config->seeds[i].name, name) == 0)
            return n->config->seeds[i].addr;
    return NULL;
}

bool hf_node_where(const struct hf_node *n, hf_node_id id, char name[HF_NAME_MAX],
                   char addr[HF_ADDR_MAX])
{
    const struct hf_member *m = NULL;

    if (n->decide != NULL)
        m = hf_cluster_member(hf_decide_view(n->decide).cluster, id);
    if (m != NULL) {
        (void)snprintf(name, HF_NAME_MAX, "%s", m->name);
        (void)snprintf(addr, HF_ADDR_MAX, "%s", m->peer);
        return true;
    }
    /* Before the cluster state has reached us: by what peers said of themselves. */
    for (unsigned i = 0; i < n->n_heard; i++) {
        if (n->heard[i].id == id && hf_node_seed_addr(n, n->heard[i].name) != NULL) {
            (void)snprintf(name, HF_NAME_MAX, "%s", n->heard[i].name);
            (void)snprintf(addr, HF_ADDR_MAX, "%s", hf_node_seed_addr(n, n->heard[i].name));
            return true;
        }
    }
    return false;
}

/* -- who leads, for everybody who must know -------------------------------------------------------------------- */

static void stay_connected(struct hf_node *n, const struct hf_view *v)
{
    struct hf_peer_target t[2 * HF_MEMBERS_MAX];
    unsigned count = 0;
    uint64_t sum = v->cluster->next_id * 31 + v->cluster->n_members * 7 + v->cluster->config_seq + 1;

    if (sum == n->kept_sum)
        return;
    n->kept_sum = sum;
    for (unsigned i = 0; i < v->cluster->n_members; i++) {
        const struct hf_member *m = &v->cluster->members[i];
        if (m->id == v->durable->self)
            continue;
        t[count].id = m->id;
        (void)snprintf(t[count].name, sizeof t[count].name, "%s", m->name);
        (void)snprintf(t[count].addr, sizeof t[count].addr, "%s", m->peer);
        count++;
    }
    if (v->cluster->n_members == 0) {
        for (unsigned i = 0; i < n->config->n_seeds; i++)
            if (strcmp(n->config->seeds[i].name, n->config->name) != 0) {
                t[count].id = 0;
                (void)snprintf(t[count].name, sizeof t[count].name, "%s", n->config->seeds[i].name);
                (void)snprintf(t[count].addr, sizeof t[count].addr, "%s", n->config->seeds[i].addr);
                count++;
            }
    }
    hf_peer_keep(n->peer, t, count);
}

/* Who has led before us has made the roles, very likely. */
static bool is_first(const struct hf_view *v)
{
    return v->cluster->n_branches <= 1;
}

bool hf_node_is_unfurnished(const struct hf_node *n)
{
    struct hf_view v = hf_decide_view(n->decide);

    return !n->furnished && n->config->accounts.app_password[0] != '\0' && is_first(&v);
}

static void accounts(struct hf_node *n, const struct hf_view *v)
{
    const struct hf_node_accounts *a = &n->config->accounts;
    struct hf_pg_accounts made = {.app_role = a->app_role,
                                  .app_password = a->app_password,
                                  .app_database = a->app_database,
                                  .admin_role = a->admin_role[0] != '\0' ? a->admin_role : NULL,
                                  .admin_password = a->admin_password};

    if (n->accounts_made || a->app_password[0] == '\0' || !v->leading || !v->gate_open || hf_clock_ns() < n->accounts_after_ns)
        return;
    /* Clients who have waited come first. */
    if (!is_first(v) && hf_clock_ns() - n->opened_ns < ACCOUNTS_LATER_NS)
        return;
    n->accounts_made = hf_agent_accounts(n->agent, &made) == 0;
}

/* Salts of roles that are not there must be the same wherever one asks. Known once PostgreSQL has been started. */
static void share_secret(struct hf_node *n, const struct hf_view *v)
{
    static const uint8_t none[32];
    struct hf_pg_status pg;

    if (n->secret_shared || (v->pg != HF_PG_STANDBY && v->pg != HF_PG_PRIMARY))
        return;
    hf_pg_status(hf_agent_pg(n->agent), &pg);
    n->secret_shared = memcmp(pg.mock_nonce, none, sizeof none) != 0;
    if (n->secret_shared)
        hf_router_secret(n->router, pg.mock_nonce);
}

/* After every step: router, sentinel and peers are told what has changed. */
static void route(struct hf_node *n)
{
    struct hf_view v;
    enum hf_leader_at where = HF_LEADER_UNKNOWN;
    bool readable;

    if (n->decide == NULL || n->ending)
        return;
    v = hf_decide_view(n->decide);
    if (v.leader == v.durable->self)
        where = HF_LEADER_HERE;
    else if (v.leader != 0)
        where = HF_LEADER_ELSEWHERE;
    hf_router_leader(n->router, where, v.epoch);
    readable = v.pg == HF_PG_STANDBY && n->streaming && !n->promote_waiting &&
               v.work != HF_WORK_PROMOTE;
    if (readable != n->readable && !n->promote_waiting) {
        n->readable = readable;
        hf_router_follower_readable(n->router, readable);
    }
    hf_node_reads_route(n, &v);
    atomic_store(&n->page->primary, v.pg == HF_PG_PRIMARY || v.work == HF_WORK_PROMOTE);
    stay_connected(n, &v);
    accounts(n, &v);
    share_secret(n, &v);
    if (v.durable->system_id != n->identity.system_id || v.durable->self != n->identity.id) {
        n->identity.system_id = v.durable->system_id;
        n->identity.id = v.durable->self;
        hf_peer_identify(n->peer, &n->identity);
    }
}

/* -- becoming a member ----------------------------------------------------------------------------------------- */

static int consensus_begin(struct hf_node *n, struct hf_error *err)
{
    char dir[1100], address[HF_NAME_MAX + HF_ADDR_MAX];
    struct hf_consensus_callbacks cb = hf_node_consensus_callbacks(n);
    struct hf_consensus_server first[HF_MEMBERS_MAX];
    unsigned n_first = n->config->expect < n->config->n_seeds ? n->config->expect : n->config->n_seeds;
    struct hf_consensus_config c = {.dir = dir,
                                    .id = n->durable.self,
                                    .address = address,
                                    .election_ms = n->config->lease_ms,
                                    .heartbeat_ms = n->config->lease_ms / 10};
    int rv;

    (void)snprintf(dir, sizeof dir, "%s/raft", n->config->dir);
    (void)snprintf(address, sizeof address, "%s/%s", n->config->name, n->config->advertise_peer);
    rv = hf_dir_make(dir, 0700, err);
    if (rv == 0)
        rv = hf_consensus_open(&n->consensus, &n->loop, &c, &cb, err);
    if (rv != 0)
        return rv;
    /* Until the first epoch every founding node may still have an empty log: each writes the same first
     * configuration, and has done so already if it is not its first start. */
    for (unsigned i = 0; i < n_first; i++) {
        first[i] = (struct hf_consensus_server){.id = i + 1, .voter = true};
        (void)snprintf(first[i].address, sizeof first[i].address, "%s/%s", n->config->seeds[i].name,
                       n->config->seeds[i].addr);
    }
    if (!hf_form_founded(&n->durable)) {
        rv = hf_consensus_bootstrap(n->consensus, first, n_first, err);
        if (rv != 0 && rv != HF_EEXIST)
            return rv;
    }
    return 0;
}

static int agent_begin(struct hf_node *n, enum hf_pg_state *state, struct hf_error *err)
{
    char member[HF_PG_MEMBER_MAX];
    struct hf_agent_callbacks cb = hf_node_agent_callbacks(n);
    struct hf_pg_config c = {.node_dir = n->config->dir,
                             .name = n->config->name,
                             .member = member,
                             .bindir = n->config->bindir[0] != '\0' ? n->config->bindir : NULL,
                             .extra_conf = n->config->extra_conf[0] != '\0' ? n->config->extra_conf : NULL,
                             .wal_keep_mb = n->config->wal_keep_mb,
                             .allow_ephemeral = n->config->allow_ephemeral,
                             .guard = n->config->guard};
    int rv;

    hf_pg_member_name(member, n->config->name, &n->durable.uuid);
    rv = hf_agent_open(&n->agent, &c, &n->loop, &cb, err);
    if (rv == 0)
        rv = hf_node_settings_begin(n, err);
    if (rv == 0)
        rv = hf_pg_probe(hf_agent_pg(n->agent), state, err);
    return rv;
}

static int member_begin(struct hf_node *n, const struct hf_member *founding, unsigned n_founding,
                        struct hf_error *err)
{
    struct hf_decide_config c = {
        .lease_ns = n->config->lease_ms * HF_MS,
        .ping_ns = (n->config->lease_ms >= 1000 ? 100 : 50) * HF_MS,
        .grace_ns = 20 * HF_MS,
        .resend_ns = 50 * HF_MS,
        .lead_limit_ns = 5000 * HF_MS,
        .unfit_ns = 5000 * HF_MS,
        .drain_ns = 1000 * HF_MS,
        .heartbeat_ns = 1000 * HF_MS,
        .dead_after_ns = n->config->dead_after_ms * HF_MS,
        .expect = n->config->expect,
    };
    enum hf_pg_state pg = HF_PG_EMPTY;
    void *memory = calloc(1, hf_decide_size());
    int rv;

    if (memory == NULL)
        return hf_fail(err, HF_ENOMEM, "out of memory");
    n->identity.id = n->durable.self;
    n->identity.uuid = n->durable.uuid;
    n->identity.cluster_id = n->durable.cluster_id;
    n->identity.system_id = n->durable.system_id;
    hf_peer_identify(n->peer, &n->identity);
    rv = agent_begin(n, &pg, err);
    if (rv == 0)
        rv = consensus_begin(n, err);
    if (rv == 0) {
        struct hf_relay_callbacks cb = hf_node_relay_callbacks(n);
        rv = hf_relay_start(&n->relay, n->peer, &n->loop, n->config->dir, &cb, err);
    }
    if (rv != 0) {
        free(memory);
        return rv;
    }
    n->decide = hf_decide_init(memory, &c, &n->durable, pg, hf_pg_untouched(hf_agent_pg(n->agent)), n->started_ns);
    rv = hf_consensus_start(n->consensus, err);
    if (rv != 0)
        return rv;
    if (n_founding > 0)
        hf_node_step(n, &(struct hf_event){
                            .type = HF_EV_FOUNDING, .member = founding, .n = n_founding});
    return 0;
}

void hf_node_member(struct hf_node *n, const struct hf_member *founding, unsigned n_founding)
{
    struct hf_error err;

    if (member_begin(n, founding, n_founding, &err) != 0) {
        hf_err("%s", err.text);
        hf_node_end(n, 1);
    }
}

/* -- end ------------------------------------------------------------------------------------------------------- */

void hf_node_shutdown(struct hf_node *n)
{
    hf_info("shutdown: asked for");
    n->stopping = true;
    if (n->decide == NULL)
        hf_node_end(n, 0);
    else
        hf_node_step(n, &(struct hf_event){.type = HF_EV_SHUTDOWN});
}

void hf_node_end(struct hf_node *n, int status)
{
    if (n->ending)
        return;
    n->ending = true;
    n->exit_status = status;
    uv_stop(&n->loop);
}

static void signal_cb(uv_signal_t *handle, int signum)
{
    (void)signum;
    hf_node_terminate(handle->data);
}

/* In a terminal Ctrl-C goes to the whole group, so to this process as well as to the sentinel, and must not be its end before the
 * sentinel's SIGTERM comes. What it executes gets the default handling back. */
static void signals_begin(struct hf_node *n)
{
    static const int which[] = {SIGTERM, SIGINT, SIGHUP};

    for (unsigned i = 0; i < sizeof which / sizeof *which; i++) {
        (void)uv_signal_init(&n->loop, &n->signals[i]);
        n->signals[i].data = n;
        if (which[i] == SIGTERM || !hf_signal_is_ignored(which[i]))
            (void)uv_signal_start(&n->signals[i], signal_cb, which[i]);
    }
}

/* Empties this node's directory of what belongs to a founding that came to nothing (core/form.h). */
static int start_anew(const struct hf_node *n, struct hf_error *err)
{
    static const char *const parts[] = {"raft", "founding.json", "state.json"};
    char path[1100];
    int rv = 0;

    for (int i = 0; i < 3 && rv == 0; i++) {
        (void)snprintf(path, sizeof path, "%s/%s", n->config->dir, parts[i]);
        rv = hf_dir_remove(path, err);
    }
    return rv;
}

/* The gate first, PostgreSQL next, the peer port last: a port that refuses is proof of our death. */
static int node_close(struct hf_node *n)
{
    struct hf_error err;

    if (n->router != NULL)
        hf_router_close(n->router);
    hf_node_watch_close(n);
    if (n->agent != NULL) {
        if (hf_pg_pid(hf_agent_pg(n->agent)) > 0)
            hf_warn("postgres: still runs; the sentinel ends it");
        hf_agent_close(n->agent);
    }
    if (n->exit_status == HF_EXIT_ANEW) {
        n->exit_status = HF_EXIT_AGAIN;
        if (start_anew(n, &err) != 0)
            hf_err("%s", err.text);
    }
    if (n->peer != NULL)
        hf_peer_close(n->peer);
    if (n->http != NULL)
        hf_http_close(n->http);
    hf_info("ended with status %d", n->exit_status);
    return n->exit_status;
}

/* -- begin ----------------------------------------------------------------------------------------------------- */

static void look_whether_ready(struct hf_node *n)
{
    struct hf_view v = {0}; /* without an id it takes no part, and nobody tells it of a leader */

    if (n->decide != NULL)
        v = hf_decide_view(n->decide);
    hf_ready_look(&n->ready, v.leading || n->streaming, v.leader_open, hf_clock_ns());
}

static void tick_cb(uv_timer_t *timer)
{
    struct hf_node *n = timer->data;

    atomic_store(&n->page->turned_ns, hf_clock_ns());
    if (n->decide != NULL) {
        hf_node_step(n, &(struct hf_event){.type = HF_EV_TICK});
        hf_node_receiver_run(n);
    } else if (n->form != NULL) {
        hf_form_tick(n->form, hf_clock_ns());
        hf_node_form_run(n);
    }
    look_whether_ready(n);
}

static int open_parts(struct hf_node *n, struct hf_error *err)
{
    char socket_dir[HF_PATH_MAX + 8];
    struct hf_peer_config pc = {.listen = n->config->listen_peer,
                                .tls_dir = n->config->tls_dir,
                                .domains = &n->config->domains,
                                .name = n->config->name,
                                .local = n->config->local_runtime,
                                .page = n->page};
    struct hf_router_config rc = {.sql = n->config->listen_sql,
                                  .read_only = n->config->listen_ro,
                                  .socket_dir = socket_dir,
                                  .tls = n->config->client_tls,
                                  .tls_dir = n->config->client_tls_dir,
                                  .hold_ms = n->config->hold_ms,
                                  .login_ms = n->config->login_ms,
                                  .max_clients = n->config->max_clients,
                                  .share = n->config->pool,
                                  .max_servers = n->config->max_servers,
                                  .pool_wait_ms = n->config->pool_wait_ms,
                                  .stalled_ms = n->config->stalled_ms,
                                  .idle_ms = n->config->idle_ms,
                                  .follow = n->config->follow_sessions,
                                  .allow = &n->config->allow};
    struct hf_peer_callbacks peer_cb = hf_node_peer_callbacks(n);
    struct hf_router_callbacks router_cb = hf_node_router_callbacks(n);
    int rv = hf_cert_check(n->config->tls_dir, n->config->name, &n->config->domains, err);

    (void)snprintf(socket_dir, sizeof socket_dir, "%s/sock", n->config->dir);
    if (rv == 0)
        rv = hf_peer_open(&n->peer, &n->loop, &pc, &peer_cb, err);
    if (rv == 0)
        rv = hf_router_open(&n->router, &n->loop, &rc, &router_cb, err);
    if (rv == 0 && n->config->listen_http[0] != '\0')
        rv = hf_http_open(&n->http, &n->loop, n->config->listen_http, hf_node_http, n, err);
    if (rv == 0)
        rv = hf_node_watch(n, err);
    if (rv == 0)
        rv = hf_admin_open(&n->admin, &n->loop, n->config->admin_socket, hf_node_admin, n, err);
    return rv;
}

/* Who are we: a member already, a founder half-way, or new? */
static int identify(struct hf_node *n, struct hf_error *err)
{
    struct hf_member founding[HF_MEMBERS_MAX];
    unsigned n_founding = 0;
    bool exists;
    int rv = hf_node_leave_begin(n, err);

    if (rv == 0)
        rv = hf_state_load(n->config->dir, &n->durable, &exists, err);
    if (rv == 0)
        rv = hf_founding_load(n->config->dir, founding, &n_founding, err);
    if (rv != 0)
        return rv;
    if (exists && n->durable.self == 1 && n_founding == 0 && !hf_form_founded(&n->durable)) {
        /* Died between its own record and the list: nobody was told of it. */
        rv = start_anew(n, err);
        memset(&n->durable, 0, sizeof n->durable);
        exists = false;
    }
    if (rv != 0)
        return rv;
    if (exists)
        return member_begin(n, founding, n_founding, err);
    hf_node_random(&n->uuid, sizeof n->uuid);
    n->identity.uuid = n->uuid;
    hf_peer_identify(n->peer, &n->identity);
    return hf_node_form_begin(n, err);
}

static void node_begin(struct hf_node *n, struct hf_error *err)
{
    (void)snprintf(n->identity.name, sizeof n->identity.name, "%s", n->config->name);
    if (uv_loop_init(&n->loop) != 0)
        abort();
    n->mailbox = hf_mailbox_open(&n->loop);
    (void)uv_timer_init(&n->loop, &n->tick);
    n->tick.data = n;
    (void)uv_timer_start(&n->tick, tick_cb, TICK_MS, TICK_MS);
    signals_begin(n);
    if (n->mailbox == NULL || open_parts(n, err) != 0 ||
        identify(n, err) != 0) {
        hf_err("%s", err->text);
        n->ending = true;
        n->exit_status = 1;
    }
}

int hf_node_run(const struct hf_node_config *config, struct hf_sentinel_page *page)
{
    struct hf_node *n = calloc(1, sizeof *n);
    struct hf_error err = {0};

    if (n == NULL)
        return 1;
    (void)signal(SIGPIPE, SIG_IGN); /* a dead leader must not kill us through libraft's next write */
    n->config = config;
    n->page = page;
    n->started_ns = hf_clock_ns();
    hf_ready_begin(&n->ready, n->started_ns);
    hf_info("node %s starts, pid %d", config->name, (int)getpid());
    node_begin(n, &err);
    if (!n->ending)
        (void)uv_run(&n->loop, UV_RUN_DEFAULT);
    return node_close(n);
}
