/* What `holdfast node` is told: by flags, else by HOLDFAST_* environment variables, else by default.
 *
 * The structure owns its text; it is complete and checked once hf_node_config_parse() returned 0, and
 * nobody changes it afterwards. Everything is plain data, so it is also valid after fork(). */
#ifndef HF_NODE_CONFIG_H
#define HF_NODE_CONFIG_H

#include <stdbool.h>
#include <stddef.h>
#include <stdio.h>

#include "base/allow.h"
#include "base/cert.h"
#include "base/error.h"
#include "base/log.h"
#include "core/types.h"
#include "postgres/postgres.h"
#include "router/router.h"

enum {
    HF_PATH_MAX = 512,        /* any path in the configuration, with its NUL */
    HF_ACCOUNT_MAX = 128,     /* a role's name or password, with its NUL */
    HF_LEASE_MS_DEFAULT = 1000,
    HF_LEASE_MS_LOCAL = 500,  /* what `holdfast up` gives its nodes */
    HF_LEASE_MS_MIN = 200,
    HF_LEASE_MS_MAX = 60000,
    HF_HOLD_MS_DEFAULT = 10000,
    HF_READ_LAG_MS_DEFAULT = 5000,
    HF_READ_LAG_MB_DEFAULT = 256,
    HF_CLIENTS_DEFAULT = 1000,
    HF_STOP_DELAY_MS_POD = 5000, /* Kubernetes' Services mostly need less than two seconds to stop sending to a pod */
    HF_LOGIN_MS_DEFAULT = 60000,
    HF_WAL_KEEP_MB_DEFAULT = 1024,
    HF_FLAG_SETTINGS_MAX = 32 * 1024,
};

/* Where to find a node before the cluster state names it. */
struct hf_seed {
    char name[HF_NAME_MAX];
    char addr[HF_ADDR_MAX]; /* its peer port, "host:port" */
};

/* The roles and the database that the first leader creates. Empty app_password: create none. */
struct hf_node_accounts {
    char app_role[HF_ACCOUNT_MAX], app_password[HF_ACCOUNT_MAX], app_database[HF_ACCOUNT_MAX];
    char admin_role[HF_ACCOUNT_MAX], admin_password[HF_ACCOUNT_MAX]; /* "": no admin role */
};

struct hf_node_config {
    char name[HF_NAME_MAX]; /* "demo-0" */
    unsigned ordinal;       /* the number at the end of the name */
    char dir[HF_PATH_MAX];  /* the node's directory: absolute, exists, ours */
    char tls_dir[HF_PATH_MAX];
    char admin_socket[HF_PATH_MAX]; /* <dir>/admin.sock */
    struct hf_domains domains;      /* in which nodes may be named by certificates; none outside Kubernetes */
    char namespace[64];     /* Kubernetes'; "": not in a pod of a StatefulSet */
    unsigned expect;        /* nodes at founding, 1 .. HF_MEMBERS_MAX */

    char listen_sql[HF_ADDR_MAX], listen_ro[HF_ADDR_MAX], listen_peer[HF_ADDR_MAX]; /* "host:port" */
    char listen_http[HF_ADDR_MAX]; /* "": no operations port */
    char advertise_sql[HF_ADDR_MAX], advertise_peer[HF_ADDR_MAX]; /* how others reach us */
    unsigned n_seeds; /* this node is among them */
    struct hf_seed seeds[HF_MEMBERS_MAX];
    unsigned n_others; /* names that exist if the StatefulSet has been scaled; none outside Kubernetes */
    struct hf_seed others[HF_MEMBERS_MAX];

    unsigned lease_ms;     /* T: lease and election timeout */
    unsigned hold_ms;      /* how long a client's connection waits for a leader */
    unsigned dead_after_ms; /* a voter unheard for this long stops counting */
    unsigned stop_delay_ms; /* from SIGTERM on, unready, before anything stops */
    unsigned max_clients;
    bool pool; /* auto */
    unsigned max_servers, pool_wait_ms; /* 0: default */
    unsigned stalled_ms, idle_ms; /* how long a client may stop half-way while others wait for its server connection; or be idle. 0: for ever */
    bool follow_sessions;
    unsigned login_ms;     /* for a client to log in */
    unsigned read_lag_ms, read_lag_mb; /* beyond either a follower takes no new readers */
    struct hf_allow allow; /* from where clients may come */
    unsigned wal_keep_mb;
    bool local_runtime;    /* all nodes on one machine: a refused connection proves a death (S6) */
    bool allow_ephemeral;

    char bindir[HF_PATH_MAX];     /* "": find PostgreSQL by itself */
    char extra_conf[HF_PATH_MAX]; /* a file of PostgreSQL settings in force; "": none */
    char settings_file[HF_PATH_MAX]; /* where they come from, if they may change; "": nowhere */
    char flag_settings[HF_FLAG_SETTINGS_MAX + 1]; /* of -c, as lines of postgresql.conf; "": none */
    enum hf_pg_guard guard;
    enum hf_router_tls client_tls;
    char client_tls_dir[HF_PATH_MAX]; /* of the certificate that clients are shown */
    struct hf_node_accounts accounts;
    enum hf_log_level log_level;
};

/* argv[0] is the verb. Reads the credentials file, changes nothing in the node's directory (another node may run in it),
 * and logs nothing. 1: --help was asked for. HF_EINVAL: wrong usage (exit status 2); any other failure: exit status 1. */
int hf_node_config_parse(struct hf_node_config *c, int argc, char **argv, struct hf_error *err);
/* Puts what -c said into <dir>/settings.conf, or <dir>/flags.conf beside a settings file. By who holds node.lock. */
int hf_node_config_write(const struct hf_node_config *c, struct hf_error *err);
/* Whether NAME=VALUE, as -c takes it, is a setting that people may make. HF_EINVAL, with the reason: it is not. */
int hf_node_setting_check(const char *item, struct hf_error *err);
/* The flags and variables, for --help and docs/operations.md. */
void hf_node_config_help(FILE *f);

#endif
