/* From objects to workloads: what kind, which database, where its pods and volumes are said. */
#include "doctor/private.h"

#include <ctype.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

/* -- known databases --------------------------------------------------------------------------------- */

static const struct hf_product products[] = {
    {"cockroach", "CockroachDB", true, true, "COCKROACH_", "/cockroach/cockroach-data"},
    {"cassandra", "Cassandra", false, true, "CASSANDRA_", "/var/lib/cassandra"},
    {"scylla", "ScyllaDB", false, true, "SCYLLA_", "/var/lib/scylla"},
    {"zookeeper", "ZooKeeper", true, true, "ZOOKEEPER_", "/var/lib/zookeeper"},
    {"k8szk", "ZooKeeper", true, true, "ZK_", "/var/lib/zookeeper"},
    {"etcd", "etcd", true, true, "ETCD_", "/var/lib/etcd"},
    {"consul", "Consul", true, true, "CONSUL_", "/consul/data"},
    {"kafka", "Kafka", true, true, "KAFKA_", "/var/lib/kafka"},
    {"elasticsearch", "Elasticsearch", true, true, NULL, "/usr/share/elasticsearch/data"},
    {"opensearch", "OpenSearch", true, true, "OPENSEARCH_", "/usr/share/opensearch/data"},
    {"rabbitmq", "RabbitMQ", true, true, "RABBITMQ_", "/var/lib/rabbitmq"},
    {"clickhouse-keeper", "ClickHouse Keeper", true, true, "CLICKHOUSE_", "/var/lib/clickhouse"},
    {"clickhouse", "ClickHouse", false, true, "CLICKHOUSE_", "/var/lib/clickhouse"},
    {"galera", "Galera", true, true, "MARIADB_", "/var/lib/mysql"},
    {"pxc", "Percona XtraDB Cluster", true, true, "MYSQL_", "/var/lib/mysql"},
    {"xtradb", "Percona XtraDB Cluster", true, true, "MYSQL_", "/var/lib/mysql"},
    {"mongo", "MongoDB", true, true, "MONGO_", "/data/db"},
    {"mongodb", "MongoDB", true, true, "MONGODB_", "/data/db"},
    {"tikv", "TiKV", true, true, NULL, "/var/lib/tikv"},
    {"yugabyte", "YugabyteDB", true, true, "YB_", "/mnt/data"},
    {"vault", "Vault", true, true, "VAULT_", "/vault/data"},
    {"nats", "NATS", true, true, "NATS_", "/data"},
    {"holdfast", "Holdfast", true, true, "HOLDFAST_", "/var/lib/holdfast"},
    {"patroni", "Patroni", false, true, "PATRONI_", "/var/lib/postgresql"},
    {"spilo", "Patroni", false, true, "PATRONI_", "/home/postgres/pgdata"},
    {"mysql", "MySQL", false, false, "MYSQL_", "/var/lib/mysql"},
    {"mariadb", "MariaDB", false, false, "MARIADB_", "/var/lib/mysql"},
    {"percona", "Percona Server", false, false, "MYSQL_", "/var/lib/mysql"},
    {"postgres", "PostgreSQL", false, false, "POSTGRES_", "/var/lib/postgresql/data"},
    {"postgresql", "PostgreSQL", false, false, "POSTGRESQL_", "/var/lib/postgresql/data"},
    {"postgis", "PostgreSQL", false, false, "POSTGRES_", "/var/lib/postgresql/data"},
    {"timescaledb", "PostgreSQL", false, false, "POSTGRES_", "/var/lib/postgresql/data"},
    {"redis", "Redis", false, false, "REDIS_", "/data"},
    {"valkey", "Valkey", false, false, "VALKEY_", "/data"},
    {"influxdb", "InfluxDB", false, false, "INFLUXDB_", "/var/lib/influxdb"},
    {"neo4j", "Neo4j", false, false, "NEO4J_", "/data"},
    {"couchdb", "CouchDB", false, true, "COUCHDB_", "/opt/couchdb/data"},
    {"minio", "MinIO", false, true, "MINIO_", "/data"},
};

static const char *const helpers[] = {"exporter", "backup", "operator", "proxy", "bouncer", "pgpool", "client",
                                      "admin", "commander", "express", "reloader", "ui", "console", "init",
                                      "monitor", "agent"};

/* Is `word` a part of this name between its separators? "mysql" of mysql-server, not of mysqlx. */
static bool has_part(const char *name, size_t len, const char *word)
{
    size_t n = strlen(word);

    for (size_t i = 0; i + n <= len; i++) {
        bool begins = i == 0 || !isalnum((unsigned char)name[i - 1]);
        bool ends = i + n == len || !isalpha((unsigned char)name[i + n]);
        if (begins && ends && strncasecmp(name + i, word, n) == 0)
            return true;
    }
    return false;
}

static const struct hf_product *product_of(const char *image)
{
    const char *base = strrchr(image, '/');
    size_t len;

    base = base != NULL ? base + 1 : image;
    len = strcspn(base, ":@");
    for (unsigned i = 0; i < sizeof helpers / sizeof *helpers; i++)
        if (has_part(base, len, helpers[i]))
            return NULL;
    for (unsigned i = 0; i < sizeof products / sizeof *products; i++)
        if (has_part(base, len, products[i].image))
            return &products[i];
    return NULL;
}

/* -- workloads --------------------------------------------------------------------------------------- */

struct hf_yaml hf_workload_container(const struct hf_workload *w, size_t i, bool init)
{
    return hf_yaml_item(hf_yaml_get(w->pod, init ? "initContainers" : "containers"), i);
}

const char *hf_container_name(struct hf_yaml container)
{
    const char *name = hf_yaml_text(hf_yaml_get(container, "name"));

    return name != NULL ? name : "?";
}

struct hf_yaml hf_workload_volume(const struct hf_workload *w, const char *name)
{
    struct hf_yaml list = hf_yaml_get(w->pod, "volumes");

    for (size_t i = 0; i < hf_yaml_count(list); i++)
        if (hf_yaml_equals(hf_yaml_get(hf_yaml_item(list, i), "name"), name))
            return hf_yaml_item(list, i);
    return (struct hf_yaml){NULL, NULL, NULL};
}

bool hf_workload_has_claim(const struct hf_workload *w)
{
    struct hf_yaml list = hf_yaml_get(w->pod, "volumes");

    if (hf_yaml_count(w->claims) > 0)
        return true;
    for (size_t i = 0; i < hf_yaml_count(list); i++) {
        struct hf_yaml v = hf_yaml_item(list, i);
        if (hf_yaml_there(hf_yaml_get(v, "persistentVolumeClaim")) || hf_yaml_there(hf_yaml_get(v, "ephemeral")))
            return true;
    }
    return false;
}

static void find_product(struct hf_workload *w)
{
    struct hf_yaml list = hf_yaml_get(w->pod, "containers");

    w->container = hf_yaml_item(list, 0);
    for (size_t i = 0; i < hf_yaml_count(list) && w->product == NULL; i++) {
        const char *image = hf_yaml_text(hf_yaml_get(hf_yaml_item(list, i), "image"));
        w->product = image != NULL ? product_of(image) : NULL;
        if (w->product != NULL)
            w->container = hf_yaml_item(list, i);
    }
}

static bool is_core_api(const struct hf_kube_object *o)
{
    const char *slash = strchr(o->api, '/');
    size_t group = slash != NULL ? (size_t)(slash - o->api) : 0;

    /* Kubernetes' own groups have no dot or end in .k8s.io. */
    return group == 0 || memchr(o->api, '.', group) == NULL ||
           (group > 7 && strncmp(slash - 7, ".k8s.io", 7) == 0);
}

static bool take_kind(struct hf_workload *w, const struct hf_kube_object *o)
{
    struct hf_yaml template;

    *w = (struct hf_workload){.o = o, .spec = hf_yaml_get(o->root, "spec"), .pod_path = "spec.template.spec"};
    template = hf_yaml_get(w->spec, "template");
    if (strcmp(o->kind, "StatefulSet") == 0) {
        w->kind = HF_WORKLOAD_STATEFULSET;
    } else if (strcmp(o->kind, "Deployment") == 0 || strcmp(o->kind, "ReplicaSet") == 0 ||
               strcmp(o->kind, "ReplicationController") == 0) {
        w->kind = HF_WORKLOAD_DEPLOYMENT;
    } else if (strcmp(o->kind, "DaemonSet") == 0) {
        w->kind = HF_WORKLOAD_DAEMONSET;
    } else if (strcmp(o->kind, "Pod") == 0) {
        w->kind = HF_WORKLOAD_POD;
        w->pod_path = "spec";
        template = o->root;
    } else if (!is_core_api(o) && hf_yaml_is_map(w->spec)) {
        w->kind = HF_WORKLOAD_CUSTOM;
        if (!hf_yaml_there(template)) {
            template = hf_yaml_get(w->spec, "podTemplate");
            w->pod_path = "spec.podTemplate.spec";
        }
        if (!hf_yaml_there(hf_yaml_path(template, "spec.containers")) &&
            !hf_yaml_there(hf_yaml_get(w->spec, "volumeClaimTemplates")))
            return false;
    } else {
        return false;
    }
    w->pod = hf_yaml_get(template, "spec");
    w->labels = hf_yaml_path(template, "metadata.labels");
    w->claims = hf_yaml_get(w->spec, "volumeClaimTemplates");
    w->replicas = hf_yaml_long(hf_yaml_get(w->spec, "replicas"), 1);
    return hf_yaml_is_map(w->spec);
}

/* A Deployment is looked at only if it holds data or is a database; a Pod of a controller never. */
static bool is_stateful(const struct hf_workload *w)
{
    struct hf_yaml list = hf_yaml_get(w->pod, "volumes");

    switch (w->kind) {
    case HF_WORKLOAD_STATEFULSET:
    case HF_WORKLOAD_CUSTOM:
        return true;
    case HF_WORKLOAD_POD:
        if (hf_yaml_count(hf_yaml_path(w->o->root, "metadata.ownerReferences")) > 0)
            return false;
        break;
    case HF_WORKLOAD_DEPLOYMENT:
        if (hf_yaml_count(hf_yaml_path(w->o->root, "metadata.ownerReferences")) > 0)
            return false;
        break;
    case HF_WORKLOAD_DAEMONSET:
        return w->product != NULL;
    }
    if (w->product != NULL)
        return true;
    for (size_t i = 0; i < hf_yaml_count(list); i++)
        if (hf_yaml_there(hf_yaml_get(hf_yaml_item(list, i), "persistentVolumeClaim")))
            return true;
    return false;
}

int hf_workloads_find(struct hf_ctx *c)
{
    c->workloads = calloc(c->s->n_objects > 0 ? c->s->n_objects : 1, sizeof *c->workloads);
    if (c->workloads == NULL)
        return HF_ENOMEM;
    for (size_t i = 0; i < c->s->n_objects; i++) {
        struct hf_workload *w = &c->workloads[c->n_workloads];
        if (!take_kind(w, &c->s->objects[i]))
            continue;
        find_product(w);
        if (is_stateful(w))
            c->n_workloads++;
    }
    return 0;
}

/* -- selectors --------------------------------------------------------------------------------------- */

bool hf_labels_match(struct hf_yaml match, struct hf_yaml labels)
{
    if (hf_yaml_count(match) == 0)
        return false;
    for (size_t i = 0; i < hf_yaml_count(match); i++) {
        const char *key = hf_yaml_text(hf_yaml_key_at(match, i));
        const char *value = hf_yaml_text(hf_yaml_value_at(match, i));
        if (key == NULL || value == NULL || !hf_yaml_equals(hf_yaml_get(labels, key), value))
            return false;
    }
    return true;
}

static bool expression_matches(struct hf_yaml e, struct hf_yaml labels)
{
    const char *key = hf_yaml_text(hf_yaml_get(e, "key"));
    const char *value = key != NULL ? hf_yaml_text(hf_yaml_get(labels, key)) : NULL;
    struct hf_yaml op = hf_yaml_get(e, "operator"), values = hf_yaml_get(e, "values");
    bool in = false;

    for (size_t i = 0; value != NULL && i < hf_yaml_count(values); i++)
        in = in || hf_yaml_equals(hf_yaml_item(values, i), value);
    if (hf_yaml_equals(op, "In"))
        return in;
    if (hf_yaml_equals(op, "NotIn"))
        return !in;
    if (hf_yaml_equals(op, "Exists"))
        return value != NULL;
    return hf_yaml_equals(op, "DoesNotExist") && value == NULL;
}

bool hf_selector_matches(struct hf_yaml selector, struct hf_yaml labels)
{
    struct hf_yaml match = hf_yaml_get(selector, "matchLabels"), list = hf_yaml_get(selector, "matchExpressions");

    if (hf_yaml_count(match) == 0 && hf_yaml_count(list) == 0)
        return false;
    if (hf_yaml_count(match) > 0 && !hf_labels_match(match, labels))
        return false;
    for (size_t i = 0; i < hf_yaml_count(list); i++)
        if (!expression_matches(hf_yaml_item(list, i), labels))
            return false;
    return true;
}

struct hf_yaml hf_workload_selector(const struct hf_workload *w)
{
    struct hf_yaml match = hf_yaml_path(w->spec, "selector.matchLabels");

    return hf_labels_match(match, w->labels) ? match : w->labels;
}

bool hf_is_name(const char *s)
{
    size_t n = strlen(s);

    if (n == 0 || n > 253)
        return false;
    for (; *s != '\0'; s++)
        if (!islower((unsigned char)*s) && !isdigit((unsigned char)*s) && *s != '-' && *s != '.')
            return false;
    return true;
}

/* -- storage ----------------------------------------------------------------------------------------- */

bool hf_has_word(const char *text, const char *word)
{
    size_t n = strlen(word);

    for (; *text != '\0'; text++)
        if (strncasecmp(text, word, n) == 0)
            return true;
    return false;
}

bool hf_is_data_path(const struct hf_workload *w, const char *path, const char *volume)
{
    static const char *const places[] = {"/var/lib/", "/data", "/db", "/storage", "/bitnami/", "/commitlog"};
    static const char *const others[] = {"/tmp", "/run", "/dev/shm", "/cache", "/log", "/conf", "/etc", "/certs",
                                         "/secrets", "/scripts", "/docker-entrypoint"};
    const char *data = w->product != NULL ? w->product->data : NULL;

    if (data != NULL && (strncmp(path, data, strlen(data)) == 0))
        return true;
    for (unsigned i = 0; i < sizeof others / sizeof *others; i++)
        if (strstr(path, others[i]) != NULL && strstr(path, "/data") == NULL)
            return false;
    for (unsigned i = 0; i < sizeof places / sizeof *places; i++)
        if (strstr(path, places[i]) != NULL)
            return true;
    return strcmp(volume, "data") == 0 || strcmp(volume, "datadir") == 0 || strcmp(volume, "pgdata") == 0 ||
           strcmp(volume, "storage") == 0;
}

const struct hf_kube_object *hf_storage_class(const struct hf_ctx *c, const char *name)
{
    for (size_t i = 0; i < c->s->n_objects; i++)
        if (strcmp(c->s->objects[i].kind, "StorageClass") == 0 && strcmp(c->s->objects[i].name, name) == 0)
            return &c->s->objects[i];
    return NULL;
}

void hf_claims(struct hf_ctx *c, const struct hf_workload *w, hf_claim_visit *visit)
{
    struct hf_yaml list = hf_yaml_get(w->pod, "volumes");

    for (size_t i = 0; i < hf_yaml_count(w->claims); i++) {
        struct hf_yaml spec = hf_yaml_get(hf_yaml_item(w->claims, i), "spec");
        if (hf_yaml_is_map(spec))
            visit(c, w, spec);
    }
    for (size_t i = 0; i < hf_yaml_count(list); i++) {
        struct hf_yaml v = hf_yaml_item(list, i);
        const char *name = hf_yaml_text(hf_yaml_path(v, "persistentVolumeClaim.claimName"));
        const struct hf_kube_object *claim =
            name != NULL ? hf_kube_find(c->s, "PersistentVolumeClaim", w->o->namespace, name) : NULL;
        struct hf_yaml spec = hf_yaml_path(v, "ephemeral.volumeClaimTemplate.spec");
        if (claim != NULL && hf_yaml_is_map(hf_yaml_get(claim->root, "spec")))
            visit(c, w, hf_yaml_get(claim->root, "spec"));
        else if (hf_yaml_is_map(spec))
            visit(c, w, spec);
    }
}

const struct hf_kube_object *hf_governing_service(const struct hf_ctx *c, const struct hf_workload *w)
{
    const char *name = hf_yaml_text(hf_yaml_get(w->spec, "serviceName"));

    return name != NULL ? hf_kube_find(c->s, "Service", w->o->namespace, name) : NULL;
}

/* -- probes ------------------------------------------------------------------------------------------ */

static void put_word(char *out, size_t cap, const char *word)
{
    size_t len = strlen(out);

    if (word != NULL)
        (void)snprintf(out + len, cap - len, "%s%s", len > 0 ? " " : "", word);
}

void hf_probe_words(struct hf_yaml probe, char *out, size_t cap)
{
    struct hf_yaml command = hf_yaml_path(probe, "exec.command");

    out[0] = '\0';
    put_word(out, cap, hf_yaml_text(hf_yaml_path(probe, "httpGet.path")));
    put_word(out, cap, hf_yaml_text(hf_yaml_path(probe, "grpc.service")));
    for (size_t i = 0; i < hf_yaml_count(command); i++)
        put_word(out, cap, hf_yaml_text(hf_yaml_item(command, i)));
}

/* Questions that only a majority can answer with yes. */
bool hf_probe_needs_quorum(const struct hf_workload *w, struct hf_yaml probe)
{
    static const char *const words[] = {
        "ready=1",            /* CockroachDB: connected to the cluster */
        "node status",        /* CockroachDB's command line */
        "mntr",               "srvr",  "zkserver.sh status", "zookeeper-ready", /* no answer without a leader */
        "endpoint health",    /* etcd: commits a proposal */
        "cluster info",       "cluster_state:ok", /* Redis */
        "wsrep_cluster_status", "wsrep_ready",    "wsrep_local_state", /* Galera */
        "rs.status",          "ismaster",         "hello().",          /* MongoDB */
        "_cluster/health",    /* Elasticsearch */
        "cluster_status",     "await_online_nodes", /* RabbitMQ */
        "/v1/status/leader",  "consul info", "operator raft", /* Consul */
        "/v1/sys/health",     /* Vault */
        "/writable",          "/leader", /* Holdfast, Patroni */
        "nodetool status",    /* Cassandra, all nodes */
        "quorum",
    };
    char text[1024];

    hf_probe_words(probe, text, sizeof text);
    for (unsigned i = 0; i < sizeof words / sizeof *words; i++)
        if (hf_has_word(text, words[i]))
            return true;
    if (w->product != NULL && strcmp(w->product->name, "etcd") == 0 &&
        (strcmp(text, "/health") == 0 || strncmp(text, "/health?", 8) == 0 || strcmp(text, "/readyz") == 0))
        return strstr(text, "serializable=true") == NULL;
    /* The well-known sample for ZooKeeper asks by a script of its own, whose "ruok" needs no quorum. */
    return false;
}

/* -- placement --------------------------------------------------------------------------------------- */

int hf_workload_spread(const struct hf_workload *w, const char *key, struct hf_yaml *term)
{
    struct hf_yaml anti = hf_yaml_path(w->pod, "affinity.podAntiAffinity");
    struct hf_yaml hard = hf_yaml_get(anti, "requiredDuringSchedulingIgnoredDuringExecution");
    struct hf_yaml soft = hf_yaml_get(anti, "preferredDuringSchedulingIgnoredDuringExecution");
    struct hf_yaml spread = hf_yaml_get(w->pod, "topologySpreadConstraints");
    int best = 0;

    for (size_t i = 0; i < hf_yaml_count(hard); i++)
        if (hf_yaml_equals(hf_yaml_get(hf_yaml_item(hard, i), "topologyKey"), key)) {
            *term = hf_yaml_item(hard, i);
            return 2;
        }
    for (size_t i = 0; i < hf_yaml_count(spread); i++) {
        struct hf_yaml item = hf_yaml_item(spread, i);
        bool must = !hf_yaml_equals(hf_yaml_get(item, "whenUnsatisfiable"), "ScheduleAnyway");
        if (hf_yaml_equals(hf_yaml_get(item, "topologyKey"), key) && (int)must + 1 > best) {
            *term = item;
            best = (int)must + 1;
        }
    }
    for (size_t i = 0; i < hf_yaml_count(soft) && best == 0; i++) {
        struct hf_yaml item = hf_yaml_get(hf_yaml_item(soft, i), "podAffinityTerm");
        if (hf_yaml_equals(hf_yaml_get(item, "topologyKey"), key)) {
            *term = item;
            best = 1;
        }
    }
    return best;
}
