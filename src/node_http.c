/* What the operations port says (docs/operations.md has the list). */
#include "node_private.h"

#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/clock.h"
#include "base/number.h"

enum { TEXT_CAP = 32 * 1024 };

/* Text that grows to a bound; what does not fit is left out, whole lines at a time. */
struct text {
    char *at;
    size_t len;
};

__attribute__((format(printf, 2, 3))) static void put(struct text *t, const char *fmt, ...)
{
    va_list ap;
    int n;

    va_start(ap, fmt);
    n = vsnprintf(t->at + t->len, TEXT_CAP - t->len, fmt, ap);
    va_end(ap);
    if (n > 0 && (size_t)n < TEXT_CAP - t->len)
        t->len += (size_t)n;
    else
        t->at[t->len] = '\0';
}

static void metric(struct text *t, const char *name, const char *type, const char *help)
{
    put(t, "# HELP holdfast_%s %s\n# TYPE holdfast_%s %s\n", name, help, name, type);
}

static void gauge(struct text *t, const char *name, const char *help, double value)
{
    metric(t, name, "gauge", help);
    put(t, "holdfast_%s %.17g\n", name, value);
}

static void counter(struct text *t, const char *name, const char *help, uint64_t value)
{
    metric(t, name, "counter", help);
    put(t, "holdfast_%s %" PRIu64 "\n", name, value);
}

/* Of followers, as the leader knows them; nothing on other nodes. */
static void member_metrics(struct text *t, const struct hf_node *n, const struct hf_view *v, hf_lsn lsn)
{
    metric(t, "follower_lag_bytes", "gauge", "WAL that the leader has flushed and the follower has not.");
    for (unsigned k = 0; v->leading && k < HF_MEMBERS_MAX; k++) {
        const struct hf_member *m = hf_cluster_member(v->cluster, n->flushed[k].id);
        if (m != NULL && n->flushed[k].id != 0)
            put(t, "holdfast_follower_lag_bytes{node=\"%s\"} %" PRIu64 "\n", m->name,
                lsn > n->flushed[k].flushed ? lsn - n->flushed[k].flushed : 0);
    }
}

static void read_metrics(struct text *t, const struct hf_router_counts *c)
{
    metric(t, "reads_total", "counter", "Connections of readers to this node, by who has been found to serve them.");
    put(t, "holdfast_reads_total{by=\"here\"} %" PRIu64 "\n", c->reads_here);
    put(t, "holdfast_reads_total{by=\"elsewhere\"} %" PRIu64 "\n", c->reads_elsewhere);
    put(t, "holdfast_reads_total{by=\"leader\"} %" PRIu64 "\n", c->reads_leader);
    counter(t, "reads_waited_total", "What was asked with holdfast.reads=fresh on this follower.", c->reads_waited);
    counter(t, "reads_given_up_total", "Of that, what could not be fresh in time and went to the leader.", c->reads_given_up);
}

static void pool_metrics(struct text *t, const struct hf_router_counts *c)
{
    gauge(t, "pool_server_connections", "Server connections that sessions share.", c->pool.servers);
    gauge(t, "pool_waiting", "Sessions that wait for a server connection.", c->pool.waiting);
    counter(t, "pool_taken_total", "Server connections that another session had before.", c->pool.taken);
    counter(t, "pool_remade_total", "Of them, those that had to be made into what the session had.", c->pool.remade);
    counter(t, "pool_waits_total", "Server connections that were waited for.", c->pool.waits);
    metric(t, "pool_wait_seconds_total", "counter", "Time that sessions have waited for them.");
    put(t, "holdfast_pool_wait_seconds_total %.3f\n", (double)c->pool.waited_ms / 1000);
    counter(t, "pool_late_total", "Sessions that were ended because none became free in time.", c->pool.late);
    counter(t, "pool_stalled_total", "Sessions that were ended because their client stopped half-way while others waited.", c->pool.stalled);
}

/* What becomes of sessions, where their clients are connected. */
static void fate_metrics(struct text *t, const struct hf_router_counts *c)
{
    counter(t, "sessions_moved_total", "Sessions that went on with another server after the loss of theirs.", c->moved);
    metric(t, "transactions_lost_total", "counter", "Transactions that were lost with a server while their sessions went on, by what the client was told.");
    put(t, "holdfast_transactions_lost_total{told=\"40001\"} %" PRIu64 "\n", c->lost_40001);
    put(t, "holdfast_transactions_lost_total{told=\"08007\"} %" PRIu64 "\n", c->lost_08007);
    metric(t, "sessions_ended_total", "counter", "Sessions that ended otherwise than by their client's will, by what it was told.");
    for (int i = 0; i < HF_ENDED_KINDS; i++)
        put(t, "holdfast_sessions_ended_total{told=\"%s\"} %" PRIu64 "\n", hf_router_ended_word((enum hf_ended)i), c->ended[i]);
    counter(t, "idle_ended_total", "Of them, those that were idle for too long.", c->idle_ended);
}

static void router_metrics(struct text *t, const struct hf_node *n)
{
    struct hf_router_counts c = hf_router_counts(n->router);

    metric(t, "sessions", "gauge", "Client sessions on this node, by what they are connected to.");
    put(t, "holdfast_sessions{kind=\"gate\"} %u\n", c.gate);
    put(t, "holdfast_sessions{kind=\"tunnel\"} %u\n", c.tunnels);
    put(t, "holdfast_sessions{kind=\"reader\"} %u\n", c.readers);
    put(t, "holdfast_sessions{kind=\"held\"} %u\n", c.held);
    put(t, "holdfast_sessions{kind=\"pooled\"} %u\n", c.pooled);
    gauge(t, "clients_max", "How many clients may be connected (--max-clients).", c.max_clients);
    gauge(t, "sessions_tls", "Sessions with TLS between client and node.", c.tls);
    counter(t, "connections_total", "Connections from clients.", c.accepted);
    metric(t, "refused_total", "counter", "Connections from clients that came to nothing, by why.");
    for (int i = 0; i < HF_REFUSED_KINDS; i++)
        put(t, "holdfast_refused_total{why=\"%s\"} %" PRIu64 "\n", hf_router_refused_word((enum hf_refused)i),
            c.refused[i]);
    metric(t, "client_bytes_total", "counter", "Bytes of sessions, from and to clients and other nodes' routers.");
    put(t, "holdfast_client_bytes_total{direction=\"in\"} %" PRIu64 "\n", c.bytes_in);
    put(t, "holdfast_client_bytes_total{direction=\"out\"} %" PRIu64 "\n", c.bytes_out);
    pool_metrics(t, &c);
    fate_metrics(t, &c);
    gauge(t, "sessions_withheld", "Sessions whose answer waits for the lease or a barrier.", c.lease_held);
    read_metrics(t, &c);
    counter(t, "cancels_total", "Cancel requests passed to PostgreSQL.", c.cancels);
    counter(t, "cancels_refused_total", "Cancel requests not passed: the commit waits for a majority.",
            c.cancels_refused);
}

static double lag_seconds(const struct hf_node *n, uint64_t now_ns)
{
    uint64_t ns = hf_lag_ns(&n->reads.lag, now_ns);

    return ns != UINT64_MAX ? (double)ns / 1e9 : 0;
}

static void metrics(struct hf_node *n, struct text *t)
{
    uint64_t now = hf_clock_ns();

    metric(t, "info", "gauge", "The version of Holdfast, and the node's name.");
    put(t, "holdfast_info{version=\"%s\",node=\"%s\"} 1\n", HF_VERSION, n->config->name);
    gauge(t, "uptime_seconds", "Since the node's process began.", (double)(now - n->started_ns) / 1e9);
    if (n->certificate_end_s != 0)
        gauge(t, "certificate_end_timestamp_seconds", "When this node's certificate ends.",
              (double)n->certificate_end_s);
    if (n->settings.on) {
        gauge(t, "settings_pending_restart", "1 while settings of the file wait for a restart.",
              n->settings.seen.names[0] != '\0');
        gauge(t, "settings_refused", "1 while the file's settings are refused and those before stay in force.",
              n->settings.seen.problem[0] != '\0');
    }
    router_metrics(t, n);
    if (n->decide != NULL) {
        struct hf_view v = hf_decide_view(n->decide);
        struct hf_pg_status pg;
        hf_lsn lsn = hf_node_lsn(n);
        bool lease = v.lease_deadline_ns > now;
        hf_pg_status(hf_agent_pg(n->agent), &pg);
        gauge(t, "epoch", "The newest epoch that this node knows.", (double)v.epoch);
        gauge(t, "leader", "1 on the leader.", v.leading);
        gauge(t, "gate_open", "1 while results pass to clients on this node.", v.gate_open && !v.draining && lease);
        gauge(t, "lease_seconds", "What is left of the leader's lease.",
              lease ? (double)(v.lease_deadline_ns - now) / 1e9 : 0);
        gauge(t, "streaming", "1 while a follower receives WAL.", n->streaming);
        if (n->streaming) {
            gauge(t, "replay_lag_bytes", "The leader's WAL that is not applied here yet.", (double)hf_lag_bytes(&n->reads.lag));
            gauge(t, "read_lag_seconds", "How old what is read here may be.", lag_seconds(n, now));
            gauge(t, "read_behind", "1 while this follower is too far behind for new readers.", n->reads.behind);
        }
        gauge(t, "postgresql_running", "1 while PostgreSQL runs here.", pg.running);
        gauge(t, "guarded", "1 while PostgreSQL's waits for a majority cannot be cancelled (the guard).",
              pg.guarded);
        gauge(t, "members", "Members of the cluster.", v.cluster->n_members);
        gauge(t, "lsn_bytes", "End of the WAL that is flushed here (a follower's: replayed).", (double)lsn);
        member_metrics(t, n, &v, lsn);
    }
}

static bool is_writable(const struct hf_node *n)
{
    struct hf_view v;

    if (n->decide == NULL)
        return false;
    v = hf_decide_view(n->decide);
    return v.leader != v.durable->self ? v.leader != 0 && n->streaming : hf_router_gate_is_open(n->router);
}

/* A follower that can be read; with max_lag: that has applied all but so many bytes of the leader's WAL. */
static bool is_follower(const struct hf_node *n, bool limited, uint64_t max_lag)
{
    if (n->decide == NULL || !hf_router_is_readable(n->router))
        return false;
    if (!limited)
        return true;
    return n->streaming && n->reads.lag.heard_ns != 0 && hf_lag_bytes(&n->reads.lag) <= max_lag;
}

static void word(struct hf_http_answer *a, bool yes, const char *no)
{
    a->status = yes ? 200 : 503;
    a->text = strdup(yes ? "ok\n" : no);
}

/* A limit that is not understood must neither let every follower pass nor none. */
static void follower(const struct hf_node *n, const char *max_lag, struct hf_http_answer *a)
{
    uint64_t most = 0;

    if (max_lag != NULL && !hf_number(max_lag, UINT64_MAX, &most)) {
        a->status = 400;
        a->text = strdup("max_lag is a number of bytes\n");
        return;
    }
    word(a, is_follower(n, max_lag != NULL, most), "no follower that can be read, or too far behind\n");
}

/* core/ready.h: never a question of quorum, or a StatefulSet that starts its pods one by one would wait for ever. */
static void readiness(const struct hf_node *n, struct hf_http_answer *a)
{
    static const char *const no[] = {
        [HF_READY_YES] = "",
        [HF_READY_LOOKING] = "the node has just started, and has not heard of a leader yet\n",
        [HF_READY_APART] = "there is a leader, and this node neither leads nor streams: its PostgreSQL has no working copy\n",
    };
    enum hf_readiness answer = hf_ready_answer(&n->ready);

    if (n->ending || n->stopping || n->terminating)
        word(a, false, "the node is shutting down\n");
    else
        word(a, answer == HF_READY_YES, no[answer]);
}

void hf_node_http(void *ctx, const char *path, const char *max_lag, struct hf_http_answer *a)
{
    struct hf_node *n = ctx;

    a->type = "text/plain; charset=utf-8";
    if (strcmp(path, "/livez") == 0 || strcmp(path, "/startupz") == 0) {
        word(a, true, ""); /* we are here: the loop turns, and every port listens */
    } else if (strcmp(path, "/readyz") == 0) {
        readiness(n, a);
    } else if (strcmp(path, "/leader") == 0) {
        word(a, n->decide != NULL && hf_decide_view(n->decide).leading && hf_router_gate_is_open(n->router),
             "not the leader, or its gate is shut\n");
    } else if (strcmp(path, "/follower") == 0) {
        follower(n, max_lag, a);
    } else if (strcmp(path, "/writable") == 0) {
        word(a, is_writable(n), "this node knows of no leader that takes writes\n");
    } else if (strcmp(path, "/status") == 0) {
        a->status = 200;
        a->type = "application/json";
        a->text = hf_node_status_text(n);
    } else if (strcmp(path, "/metrics") == 0) {
        struct text t = {.at = calloc(1, TEXT_CAP)};
        a->status = 200;
        a->type = "text/plain; version=0.0.4; charset=utf-8";
        if (t.at != NULL)
            metrics(n, &t);
        a->text = t.at;
    } else {
        a->status = 404;
        a->text = strdup("known: /livez /startupz /readyz /leader /follower?max_lag=BYTES /writable /status /metrics\n");
    }
}
