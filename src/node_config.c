#include "node_config.h"

#include <ctype.h>
#include <errno.h>
#include <jansson.h>
#include <limits.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/file.h"
#include "base/net.h"
#include "cmd/options.h"
#include "pod/identity.h"
#include "postgres/user_settings.h"

/* What is read before it is checked and put in its place. */
struct raw {
    char host[128], sql_host[128], log_level[16], guard[16], client_tls[16], follow[16], pool[16], credentials[HF_PATH_MAX];
    char dir[HF_PATH_MAX];
    unsigned sql_port, ro_port, peer_port, http_port;
    struct hf_option_list seeds, settings, allow;
    struct hf_pod pod;
    unsigned replicas;
};

enum { OPTIONS_MAX = 48, CREDENTIALS_MAX = 64 * 1024, SETTING_NAME_MAX = 64 };

static unsigned options(struct hf_option *o, struct hf_node_config *c, struct raw *r)
{
    const struct hf_option table[] = {
        {"name", 0, HF_OPT_TEXT, c->name, sizeof c->name, 0, 0, "HOLDFAST_NAME", "NAME",
         "the node's name; ends in its ordinal, as demo-0 does (in a pod: the hostname)"},
        {"dir", 0, HF_OPT_TEXT, r->dir, sizeof r->dir, 0, 0, "HOLDFAST_NODE_DIR", "DIR",
         "the node's directory, all that it keeps"},
        {"expect", 0, HF_OPT_NUMBER, &c->expect, 0, 1, HF_MEMBERS_MAX, "HOLDFAST_EXPECT", "N",
         "nodes that found the cluster together"},
        {"seed", 0, HF_OPT_LIST, &r->seeds, 0, 0, 0, "HOLDFAST_SEEDS", "NAME=HOST:PORT",
         "a node and its peer port; once for each known node, this one included"},
        {"replicas", 0, HF_OPT_NUMBER, &r->replicas, 0, 1, HF_MEMBERS_MAX, "HOLDFAST_REPLICAS", "N",
         "in a pod: --expect N, and a --seed for each pod of the StatefulSet"},
        {"service", 0, HF_OPT_TEXT, r->pod.service, sizeof r->pod.service, 0, 0, "HOLDFAST_SERVICE", "NAME",
         "in a pod: the headless service (default: as /etc/hosts has it)"},
        {"namespace", 0, HF_OPT_TEXT, r->pod.namespace, sizeof r->pod.namespace, 0, 0, "HOLDFAST_NAMESPACE",
         "NAME", "in a pod: the namespace (default: as /etc/hosts or /etc/resolv.conf has it)"},
        {"cluster-domain", 0, HF_OPT_TEXT, r->pod.domain, sizeof r->pod.domain, 0, 0,
         "HOLDFAST_CLUSTER_DOMAIN", "DOMAIN", "in a pod: for the absolute names of pods, in the DNS and in certificates (default: found likewise)"},
        {"listen", 0, HF_OPT_TEXT, r->host, sizeof r->host, 0, 0, "HOLDFAST_LISTEN", "HOST",
         "address of the peer port, and of the SQL ports unless --sql-host; * for all (default 127.0.0.1, in a pod *)"},
        {"sql-host", 0, HF_OPT_TEXT, r->sql_host, sizeof r->sql_host, 0, 0, "HOLDFAST_SQL_HOST",
         "HOST", "address of the SQL ports"},
        {"sql-port", 0, HF_OPT_NUMBER, &r->sql_port, 0, 1, 65535, "HOLDFAST_SQL_PORT", "PORT",
         "clients, carried to the leader (default 5432)"},
        {"read-only-port", 0, HF_OPT_NUMBER, &r->ro_port, 0, 1, 65535, "HOLDFAST_READ_ONLY_PORT",
         "PORT", "clients that only read, served by followers (default 5433)"},
        {"peer-port", 0, HF_OPT_NUMBER, &r->peer_port, 0, 1, 65535, "HOLDFAST_PEER_PORT", "PORT",
         "other nodes (default 7000)"},
        {"http-port", 0, HF_OPT_NUMBER, &r->http_port, 0, 0, 65535, "HOLDFAST_HTTP_PORT", "PORT",
         "health, status and metrics; 0: none (default 8080)"},
        {"advertise-peer", 0, HF_OPT_TEXT, c->advertise_peer, sizeof c->advertise_peer, 0, 0,
         "HOLDFAST_ADVERTISE_PEER", "HOST:PORT",
         "where other nodes reach the peer port (default: this node's --seed)"},
        {"advertise-sql", 0, HF_OPT_TEXT, c->advertise_sql, sizeof c->advertise_sql, 0, 0,
         "HOLDFAST_ADVERTISE_SQL", "HOST:PORT", "where clients reach the SQL port, for status"},
        {"tls-dir", 0, HF_OPT_TEXT, c->tls_dir, sizeof c->tls_dir, 0, 0, "HOLDFAST_TLS_DIR", "DIR",
         "ca.crt and node.crt, node.key or tls.crt, tls.key (default DIR/tls)"},
        {"client-tls", 0, HF_OPT_TEXT, r->client_tls, sizeof r->client_tls, 0, 0, "HOLDFAST_CLIENT_TLS",
         "WHEN", "TLS from clients: offered (default), required, off"},
        {"client-tls-dir", 0, HF_OPT_TEXT, c->client_tls_dir, sizeof c->client_tls_dir, 0, 0,
         "HOLDFAST_CLIENT_TLS_DIR", "DIR",
         "the certificate that clients are shown: likewise, without ca.crt (default: --tls-dir)"},
        {"credentials", 0, HF_OPT_TEXT, r->credentials, sizeof r->credentials, 0, 0,
         "HOLDFAST_CREDENTIALS", "FILE", "JSON: roles and database to create (docs/operations.md)"},
        {"lease-ms", 0, HF_OPT_NUMBER, &c->lease_ms, 0, HF_LEASE_MS_MIN, HF_LEASE_MS_MAX,
         "HOLDFAST_LEASE_MS", "MS", "lease and election timeout (default 1000)"},
        {"hold-ms", 0, HF_OPT_NUMBER, &c->hold_ms, 0, 1, 600000, "HOLDFAST_HOLD_MS", "MS",
         "how long a new connection waits for a leader (default 10000)"},
        {"dead-after-ms", 0, HF_OPT_NUMBER, &c->dead_after_ms, 0, 1000, 86400000,
         "HOLDFAST_DEAD_AFTER_MS", "MS", "a voter unheard for so long stops counting, while more than three do (default 300000)"},
        {"stop-delay-ms", 0, HF_OPT_NUMBER, &c->stop_delay_ms, 0, 0, 600000, "HOLDFAST_STOP_DELAY_MS", "MS",
         "how long it works on after SIGTERM, not ready, until nobody sends clients here (default 0, in a pod 5000)"},
        {"max-clients", 0, HF_OPT_NUMBER, &c->max_clients, 0, 1, 10000, "HOLDFAST_MAX_CLIENTS", "N",
         "clients at a time, those carried here from other nodes included (default 1000)"},
        {"pool", 0, HF_OPT_TEXT, r->pool, sizeof r->pool, 0, 0, "HOLDFAST_POOL", "WHEN",
         "sessions share server connections: auto (those that are free, when there are not enough; default), session (none do)"},
        {"max-server-connections", 0, HF_OPT_NUMBER, &c->max_servers, 0, 0, 10000, "HOLDFAST_MAX_SERVER_CONNECTIONS", "N",
         "for each database and role, through this node (default 0: as many as PostgreSQL takes)"},
        {"pool-wait-ms", 0, HF_OPT_NUMBER, &c->pool_wait_ms, 0, 1, 3600000, "HOLDFAST_POOL_WAIT_MS", "MS",
         "how long a session waits for a server connection (default 60000)"},
        {"stalled-client-ms", 0, HF_OPT_NUMBER, &c->stalled_ms, 0, 0, 86400000, "HOLDFAST_STALLED_CLIENT_MS", "MS",
         "how long a client may stop half-way, while others wait for its server connection (default 30000; 0: for ever)"},
        {"idle-timeout-ms", 0, HF_OPT_NUMBER, &c->idle_ms, 0, 0, 2147483647, "HOLDFAST_IDLE_TIMEOUT_MS", "MS",
         "how long a session may be idle outside of a transaction (default 0: for ever)"},
        {"login-timeout-ms", 0, HF_OPT_NUMBER, &c->login_ms, 0, 100, 3600000,
         "HOLDFAST_LOGIN_TIMEOUT_MS", "MS", "for a client to log in (default 60000)"},
        {"follow-sessions", 0, HF_OPT_TEXT, r->follow, sizeof r->follow, 0, 0, "HOLDFAST_FOLLOW_SESSIONS", "WHEN",
         "sessions that hold nothing that cannot be made again survive a change of leader: on (with the guard; default), off"},
        {"max-read-lag-ms", 0, HF_OPT_NUMBER, &c->read_lag_ms, 0, 2000, 86400000, "HOLDFAST_MAX_READ_LAG_MS", "MS",
         "a follower whose state may be older than so long takes no new readers (default 5000)"},
        {"max-read-lag-mb", 0, HF_OPT_NUMBER, &c->read_lag_mb, 0, 1, 1u << 20, "HOLDFAST_MAX_READ_LAG_MB", "MB",
         "nor one that so much WAL is not applied on (default 256)"},
        {"allow", 0, HF_OPT_LIST, &r->allow, 0, 0, 0, "HOLDFAST_ALLOW", "CIDR",
         "networks that clients may come from, as 10.0.0.0/8,fd00::/8 (default: all)"},
        {"wal-keep-mb", 0, HF_OPT_NUMBER, &c->wal_keep_mb, 0, 64, 1u << 20, "HOLDFAST_WAL_KEEP_MB",
         "MB", "WAL kept for followers that come back (default 1024)"},
        {"set", 'c', HF_OPT_LIST, &r->settings, 0, 0, 0, "HOLDFAST_SETTINGS", "NAME=VALUE",
         "a setting of PostgreSQL; may be repeated"},
        {"settings-file", 0, HF_OPT_TEXT, c->settings_file, sizeof c->settings_file, 0, 0,
         "HOLDFAST_SETTINGS_FILE", "FILE",
         "settings of PostgreSQL, as in postgresql.conf; taken again when it changes (docs/settings.md)"},
        {"pg-bindir", 0, HF_OPT_TEXT, c->bindir, sizeof c->bindir, 0, 0, "HOLDFAST_PG_BINDIR", "DIR",
         "PostgreSQL's programs (default: the newest that is installed)"},
        {"guard", 0, HF_OPT_TEXT, r->guard, sizeof r->guard, 0, 0, "HOLDFAST_GUARD", "WHEN",
         "the module that keeps commits' waits from being cancelled: auto (if there is one for this "
         "PostgreSQL; default), required, off"},
        {"local", 0, HF_OPT_FLAG, &c->local_runtime, 0, 0, 0, NULL, NULL,
         "all nodes are on this machine: a refused connection proves that a node is dead"},
        {"allow-ephemeral", 0, HF_OPT_FLAG, &c->allow_ephemeral, 0, 0, 0,
         "HOLDFAST_ALLOW_EPHEMERAL", NULL, "accept a directory on tmpfs or overlayfs"},
        {"log-level", 0, HF_OPT_TEXT, r->log_level, sizeof r->log_level, 0, 0, "HOLDFAST_LOG_LEVEL",
         "LEVEL", "debug, info, warn or error (default info)"},
    };
    _Static_assert(sizeof table / sizeof *table <= OPTIONS_MAX, "more options than room");

    memcpy(o, table, sizeof table);
    return (unsigned)(sizeof table / sizeof *table);
}

/* -- one thing at a time ----------------------------------------------------------------------------- */

static int check_name(struct hf_node_config *c, struct hf_error *err)
{
    const char *dash = strrchr(c->name, '-');
    char *end;
    unsigned long v;

    for (const char *p = c->name; *p != '\0'; p++)
        if (!islower((unsigned char)*p) && !isdigit((unsigned char)*p) && *p != '-')
            return hf_fail(err, HF_EINVAL,
                           "--name %s: only lower-case letters, digits and dashes are allowed",
                           c->name);
    if (dash == NULL || dash == c->name || !isdigit((unsigned char)dash[1]))
        return hf_fail(err, HF_EINVAL,
                       "--name %s: does not end in an ordinal (hint: demo-0, demo-1, ...)",
                       c->name[0] != '\0' ? c->name : "missing");
    errno = 0;
    v = strtoul(dash + 1, &end, 10);
    if (errno != 0 || *end != '\0' || v > 9999)
        return hf_fail(err, HF_EINVAL, "--name %s: the ordinal must be below 10000", c->name);
    c->ordinal = (unsigned)v;
    return 0;
}

static int check_addr(const char *what, const char *addr, struct hf_error *err)
{
    char host[HF_ADDR_MAX], port[16];

    if (hf_net_split(addr, host, sizeof host, port, sizeof port, err) == 0)
        return 0;
    hf_error_prefix(err, "%s", what);
    if (err != NULL)
        err->code = HF_EINVAL;
    return HF_EINVAL;
}

static int join_addr(char out[HF_ADDR_MAX], const char *host, unsigned port, struct hf_error *err)
{
    bool six = strchr(host, ':') != NULL && host[0] != '[';
    int n = snprintf(out, HF_ADDR_MAX, "%s%s%s:%u", six ? "[" : "", host, six ? "]" : "", port);

    return n < HF_ADDR_MAX ? 0 : hf_fail(err, HF_EINVAL, "%s: the host's name is too long", host);
}

static int take_seeds(struct hf_node_config *c, const struct hf_option_list *list,
                      struct hf_error *err)
{
    bool self = false;

    if (list->n > HF_MEMBERS_MAX)
        return hf_fail(err, HF_EINVAL, "--seed: more than %d nodes", HF_MEMBERS_MAX);
    for (unsigned i = 0; i < list->n; i++) {
        struct hf_seed *s = &c->seeds[c->n_seeds];
        const char *eq = strchr(list->items[i], '=');
        size_t len = eq != NULL ? (size_t)(eq - list->items[i]) : 0;
        if (len == 0 || len >= sizeof s->name || strlen(eq + 1) >= sizeof s->addr)
            return hf_fail(err, HF_EINVAL, "--seed %s: not of the form NAME=HOST:PORT",
                           list->items[i]);
        memcpy(s->name, list->items[i], len);
        s->name[len] = '\0';
        strcpy(s->addr, eq + 1);
        if (check_addr("--seed", s->addr, err) != 0)
            return HF_EINVAL;
        self = self || strcmp(s->name, c->name) == 0;
        if (strcmp(s->name, c->name) == 0 && c->advertise_peer[0] == '\0')
            strcpy(c->advertise_peer, s->addr);
        c->n_seeds++;
    }
    if (c->n_seeds > 0 && !self)
        return hf_fail(err, HF_EINVAL, "--seed: %s itself is missing from the list", c->name);
    if (c->n_seeds < c->expect && c->expect > 1)
        return hf_fail(err, HF_EINVAL, "--seed: %u nodes for --expect %u", c->n_seeds, c->expect);
    return 0;
}

/* A pod knows where the others are by their names alone (pod/identity.h). */
static int take_pod(struct hf_node_config *c, const struct raw *r, struct hf_error *err)
{
    char name[HF_NAME_MAX];
    int rv = 0;

    if (!hf_domains_of_service(&c->domains, r->pod.service, r->pod.namespace, r->pod.domain))
        return hf_fail(err, HF_EINVAL, "--service, --namespace, --cluster-domain: too long together");
    strcpy(c->namespace, r->pod.namespace);
    for (unsigned i = 0; rv == 0 && i < c->expect; i++) {
        struct hf_seed *s = &c->seeds[c->n_seeds++];
        rv = hf_pod_address(&r->pod, i, r->peer_port, s->name, s->addr, err);
    }
    if (rv == 0 && c->ordinal >= c->expect && c->n_seeds < HF_MEMBERS_MAX) { /* `kubectl scale` added it */
        struct hf_seed *s = &c->seeds[c->n_seeds++];
        rv = hf_pod_address(&r->pod, c->ordinal, r->peer_port, s->name, s->addr, err);
    }
    for (unsigned i = c->expect; rv == 0 && i < HF_MEMBERS_MAX; i++) {
        struct hf_seed *s = &c->others[c->n_others];
        if (i != c->ordinal && hf_pod_address(&r->pod, i, r->peer_port, s->name, s->addr, NULL) == 0)
            c->n_others++; /* else such a pod could not run: its name is too long */
    }
    if (rv == 0 && c->advertise_peer[0] == '\0')
        rv = hf_pod_address(&r->pod, c->ordinal, r->peer_port, name, c->advertise_peer, err);
    if (rv == 0 && c->advertise_sql[0] == '\0')
        rv = hf_pod_address(&r->pod, c->ordinal, r->sql_port, name, c->advertise_sql, err);
    return rv;
}

/* Flags say less in a pod: the rest is found. Not for nodes of the local runtime, which may run in one, too. */
static int find_pod(struct hf_node_config *c, struct raw *r, struct hf_error *err)
{
    bool asked = r->pod.service[0] != '\0' || r->replicas != 0;

    if (c->expect == 0)
        c->expect = r->replicas != 0 ? r->replicas : 1;
    if (c->local_runtime || r->seeds.n > 0 || (!asked && !hf_pod_inside())) {
        r->pod.service[0] = '\0';
        return 0;
    }
    strcpy(r->pod.name, c->name);
    hf_pod_complete(&r->pod);
    strcpy(c->name, r->pod.name);
    if (r->pod.service[0] != '\0' && r->pod.namespace[0] != '\0')
        return 0;
    if (asked || c->expect > 1)
        return hf_fail(err, HF_EINVAL,
                       "pod %s: its %s is not known (hint: the StatefulSet's serviceName must name a headless "
                       "service; or set HOLDFAST_SERVICE and HOLDFAST_NAMESPACE, or --seed)",
                       c->name, r->pod.service[0] == '\0' ? "headless service" : "namespace");
    r->pod.service[0] = '\0';
    return 0;
}

static int take_addresses(struct hf_node_config *c, struct raw *r, struct hf_error *err)
{
    const char *sql_host;
    int rv;

    if (r->host[0] == '\0')
        strcpy(r->host, r->pod.service[0] != '\0' ? "*" : "127.0.0.1");
    sql_host = r->sql_host[0] != '\0' ? r->sql_host : r->host;
    rv = join_addr(c->listen_sql, sql_host, r->sql_port, err);

    if (rv == 0)
        rv = join_addr(c->listen_ro, sql_host, r->ro_port, err);
    if (rv == 0)
        rv = join_addr(c->listen_peer, r->host, r->peer_port, err);
    if (rv == 0 && r->http_port != 0)
        rv = join_addr(c->listen_http, r->host, r->http_port, err);
    if (rv == 0)
        rv = r->pod.service[0] != '\0' ? take_pod(c, r, err) : take_seeds(c, &r->seeds, err);
    if (rv == 0 && c->advertise_peer[0] == '\0')
        rv = join_addr(c->advertise_peer, strcmp(r->host, "*") == 0 ? c->name : r->host, r->peer_port, err);
    if (rv == 0 && c->advertise_sql[0] == '\0')
        rv = join_addr(c->advertise_sql, strcmp(sql_host, "*") == 0 ? c->name : sql_host, r->sql_port, err);
    if (rv != 0)
        return rv;
    rv = check_addr("--advertise-peer", c->advertise_peer, err);
    if (rv == 0)
        rv = check_addr("--advertise-sql", c->advertise_sql, err);
    return rv;
}

static int take_dir(struct hf_node_config *c, const struct raw *r, struct hf_error *err)
{
    struct stat st;
    char *real;
    size_t len;

    if (r->dir[0] == '\0')
        return hf_fail(err, HF_EINVAL, "--dir: missing");
    /* A volume's root holds lost+found and has fsGroup's mode: the node's directory is one below it. */
    if (r->pod.service[0] != '\0' && mkdir(r->dir, 0700) != 0 && errno != EEXIST)
        return hf_fail(err, HF_EIO, "cannot make %s: %s (hint: is the volume mounted above it, and may uid %u "
                                    "write there? fsGroup in the pod's securityContext)",
                       r->dir, strerror(errno), (unsigned)geteuid());
    real = realpath(r->dir, NULL);
    if (real == NULL || stat(real, &st) != 0) {
        free(real);
        return hf_fail(err, HF_EIO, "%s: %s (hint: create it, owned by the user that runs this)",
                       r->dir, strerror(errno));
    }
    len = strlen(real);
    if (!S_ISDIR(st.st_mode) || len + sizeof "/relay/.s.PGSQL.5432" > 108) {
        free(real);
        return S_ISDIR(st.st_mode)
                   ? hf_fail(err, HF_EIO,
                             "%s: too long for PostgreSQL's Unix sockets (hint: a directory's path "
                             "may have %zu characters)",
                             r->dir, (size_t)108 - sizeof "/relay/.s.PGSQL.5432")
                   : hf_fail(err, HF_EIO, "%s: not a directory", r->dir);
    }
    strcpy(c->dir, real);
    free(real);
    (void)snprintf(c->admin_socket, sizeof c->admin_socket, "%s/admin.sock", c->dir);
    if (c->tls_dir[0] == '\0')
        (void)snprintf(c->tls_dir, sizeof c->tls_dir, "%s/tls", c->dir);
    if (c->client_tls_dir[0] == '\0')
        strcpy(c->client_tls_dir, c->tls_dir);
    return 0;
}

/* What a word of a flag stands for. The table ends with a NULL. */
struct word {
    const char *text;
    int value;
};

static int choose(const char *flag, const char *given, const struct word *words, int *value,
                  struct hf_error *err)
{
    char all[128] = "";

    for (const struct word *w = words; w->text != NULL; w++) {
        if (strcmp(given, w->text) == 0) {
            *value = w->value;
            return 0;
        }
        (void)snprintf(all + strlen(all), sizeof all - strlen(all), "%s%s", w != words ? ", " : "", w->text);
    }
    return hf_fail(err, HF_EINVAL, "%s %s: not one of %s", flag, given, all);
}

static int take_words(struct hf_node_config *c, const struct raw *r, struct hf_error *err)
{
    static const struct word levels[] = {
        {"debug", HF_LOG_DEBUG}, {"info", HF_LOG_INFO}, {"warn", HF_LOG_WARN}, {"error", HF_LOG_ERROR}, {NULL, 0}};
    static const struct word guards[] = {
        {"auto", HF_PG_GUARD_AUTO}, {"required", HF_PG_GUARD_REQUIRED}, {"off", HF_PG_GUARD_OFF}, {NULL, 0}};
    static const struct word modes[] = {{"offered", HF_ROUTER_TLS_OFFERED},
                                        {"required", HF_ROUTER_TLS_REQUIRED},
                                        {"off", HF_ROUTER_TLS_OFF},
                                        {NULL, 0}};
    static const struct word follow[] = {{"on", true}, {"off", false}, {NULL, 0}};
    static const struct word pools[] = {{"auto", true}, {"session", false}, {NULL, 0}};
    int level = 0, guard = 0, mode = 0, follows = 0, pool = 0, rv;

    if ((rv = choose("--log-level", r->log_level, levels, &level, err)) != 0 ||
        (rv = choose("--guard", r->guard, guards, &guard, err)) != 0 ||
        (rv = choose("--client-tls", r->client_tls, modes, &mode, err)) != 0 ||
        (rv = choose("--follow-sessions", r->follow, follow, &follows, err)) != 0 ||
        (rv = choose("--pool", r->pool, pools, &pool, err)) != 0)
        return rv;
    c->pool = pool != 0;
    c->log_level = (enum hf_log_level)level;
    c->guard = (enum hf_pg_guard)guard;
    c->client_tls = (enum hf_router_tls)mode;
    c->follow_sessions = follows != 0;
    return 0;
}

static int take_allow(struct hf_node_config *c, const struct raw *r, struct hf_error *err)
{
    for (unsigned i = 0; i < r->allow.n; i++) {
        int rv = hf_allow_add(&c->allow, r->allow.items[i], err);
        if (rv != 0) {
            hf_error_prefix(err, "--allow");
            return rv;
        }
    }
    return 0;
}

/* -- files ------------------------------------------------------------------------------------------- */

static int take_account(const json_t *o, const char *key, char out[HF_ACCOUNT_MAX],
                        struct hf_error *err)
{
    const char *v = json_string_value(json_object_get(o, key));

    if (v == NULL)
        return 0;
    if (strlen(v) >= HF_ACCOUNT_MAX)
        return hf_fail(err, HF_EINVAL, "%s: longer than %d characters", key, HF_ACCOUNT_MAX - 1);
    strcpy(out, v);
    return 0;
}

static int read_credentials(struct hf_node_config *c, const char *path, struct hf_error *err)
{
    struct hf_node_accounts *a = &c->accounts;
    char *text;
    size_t len;
    json_t *root, *o;
    int rv;

    strcpy(a->app_role, "app");
    strcpy(a->app_database, "app");
    if (path[0] == '\0')
        return 0;
    rv = hf_file_read(path, CREDENTIALS_MAX, &text, &len, err);
    if (rv != 0)
        return rv;
    root = json_loadb(text, len, 0, NULL);
    free(text);
    o = json_object_get(root, "accounts");
    if (o == NULL)
        o = root;
    if (!json_is_object(o)) {
        json_decref(root);
        return hf_fail(err, HF_ECORRUPT, "%s: not a JSON object (hint: docs/operations.md)", path);
    }
    if ((rv = take_account(o, "app_role", a->app_role, err)) == 0 &&
        (rv = take_account(o, "app_password", a->app_password, err)) == 0 &&
        (rv = take_account(o, "app_database", a->app_database, err)) == 0 &&
        (rv = take_account(o, "admin_role", a->admin_role, err)) == 0)
        rv = take_account(o, "admin_password", a->admin_password, err);
    json_decref(root);
    if (rv != 0)
        hf_error_prefix(err, "%s", path);
    return rv;
}

int hf_node_setting_check(const char *item, struct hf_error *err)
{
    const char *eq = strchr(item, '='), *why;
    char name[SETTING_NAME_MAX];
    size_t n = eq != NULL ? (size_t)(eq - item) : 0;

    if (n == 0)
        return hf_fail(err, HF_EINVAL, "-c %s: not of the form NAME=VALUE", item);
    for (const char *p = item; p < eq; p++)
        if (!isalnum((unsigned char)*p) && *p != '_' && *p != '.')
            return hf_fail(err, HF_EINVAL, "-c %s: not the name of a setting", item);
    if (strchr(eq, '\n') != NULL)
        return hf_fail(err, HF_EINVAL, "-c %s: a value has one line", item);
    if (n >= sizeof name)
        return 0; /* longer than any of Holdfast's own */
    memcpy(name, item, n);
    name[n] = '\0';
    why = hf_pg_owned(name);
    return why == NULL ? 0 : hf_fail(err, HF_EINVAL, "-c %s: set by Holdfast: %s", name, why);
}

/* One line "name = 'value'" as postgresql.conf reads it; 0 or HF_EINVAL. */
static int setting_line(FILE *f, const char *item, struct hf_error *err)
{
    const char *eq = strchr(item, '=');
    int rv = hf_node_setting_check(item, err);

    if (rv != 0)
        return rv;
    fprintf(f, "%.*s = '", (int)(eq - item), item);
    for (const char *p = eq + 1; *p != '\0'; p++) {
        if (*p == '\'' || *p == '\\')
            fputc(*p, f);
        fputc(*p, f);
    }
    fputs("'\n", f);
    return 0;
}

static int take_settings(struct hf_node_config *c, const struct hf_option_list *list, struct hf_error *err)
{
    FILE *f;
    bool full;
    int rv = 0;

    if (list->n > 0 || c->settings_file[0] != '\0')
        (void)snprintf(c->extra_conf, sizeof c->extra_conf, "%s/settings.conf", c->dir);
    if (list->n == 0)
        return 0;
    f = fmemopen(c->flag_settings, sizeof c->flag_settings, "w");
    if (f == NULL)
        return hf_fail(err, HF_ENOMEM, "-c: out of memory");
    for (unsigned i = 0; i < list->n && rv == 0; i++)
        rv = setting_line(f, list->items[i], err);
    full = fflush(f) != 0 || ferror(f);
    if ((fclose(f) != 0 || full) && rv == 0)
        rv = hf_fail(err, HF_EINVAL, "-c: more than %d bytes of settings", HF_FLAG_SETTINGS_MAX);
    return rv;
}

int hf_node_config_write(const struct hf_node_config *c, struct hf_error *err)
{
    char path[HF_PATH_MAX + 32];

    (void)snprintf(path, sizeof path, "%s/%s.conf", c->dir, c->settings_file[0] != '\0' ? "flags" : "settings");
    if (c->flag_settings[0] != '\0')
        return hf_file_write(path, c->flag_settings, strlen(c->flag_settings), 0600, err);
    /* Of an earlier start. settings.conf without flags is not included (extra_conf), or is the settings file's. */
    if (c->settings_file[0] != '\0' && unlink(path) != 0 && errno != ENOENT)
        return hf_fail(err, HF_EIO, "cannot remove %s: %s", path, strerror(errno));
    return 0;
}

int hf_node_config_parse(struct hf_node_config *c, int argc, char **argv, struct hf_error *err)
{
    struct raw r = {.log_level = "info", .guard = "auto", .client_tls = "offered", .follow = "on", .pool = "auto", .sql_port = 5432, .ro_port = 5433, .http_port = 8080,
                    .peer_port = 7000};
    struct hf_option o[OPTIONS_MAX];
    const unsigned unsaid = UINT_MAX;
    unsigned n;
    int rv;

    memset(c, 0, sizeof *c);
    c->lease_ms = HF_LEASE_MS_DEFAULT;
    c->hold_ms = HF_HOLD_MS_DEFAULT;
    c->dead_after_ms = 300000;
    c->stop_delay_ms = unsaid;
    c->max_clients = HF_CLIENTS_DEFAULT;
    c->login_ms = HF_LOGIN_MS_DEFAULT;
    c->read_lag_ms = HF_READ_LAG_MS_DEFAULT;
    c->read_lag_mb = HF_READ_LAG_MB_DEFAULT;
    c->pool_wait_ms = 60000;
    c->stalled_ms = 30000;
    c->wal_keep_mb = HF_WAL_KEEP_MB_DEFAULT;
    n = options(o, c, &r);
    rv = hf_options_parse(o, n, argc, argv, NULL, err);
    if (rv != 0)
        return rv;
    if ((rv = find_pod(c, &r, err)) == 0 && (rv = check_name(c, err)) == 0 && (rv = take_words(c, &r, err)) == 0 &&
        (rv = take_addresses(c, &r, err)) == 0 && (rv = take_dir(c, &r, err)) == 0 &&
        (rv = take_allow(c, &r, err)) == 0 &&
        (rv = read_credentials(c, r.credentials, err)) == 0)
        rv = take_settings(c, &r.settings, err);
    if (c->stop_delay_ms == unsaid)
        c->stop_delay_ms = c->namespace[0] != '\0' ? HF_STOP_DELAY_MS_POD : 0;
    return rv;
}

void hf_node_config_help(FILE *f)
{
    static struct hf_node_config c;
    struct raw r = {.sql_port = 0};
    struct hf_option o[OPTIONS_MAX];

    hf_options_print(f, o, options(o, &c, &r));
}
