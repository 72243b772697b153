/* A local cluster on disk: <dir>/cluster.json, pki/, up.sock, up.lock, up.log and one directory for each
 * node. Everything that is the same for all verbs: where it is, what it is called, which port. */
#ifndef HF_LOCAL_LAYOUT_H
#define HF_LOCAL_LAYOUT_H

#include <stdbool.h>

#include "base/error.h"
#include "core/types.h"
#include "node_config.h"

enum {
    HF_LOCAL_NAME_MAX = 40, /* of a cluster, with its NUL */
    HF_LOCAL_SETTINGS_MAX = 64,
    HF_PORT_STEP = 10, /* between two ordinals */
    HF_PORT_SQL = 0,
    HF_PORT_READ_ONLY = 1,
    HF_PORT_HTTP = 2,
    HF_PORT_PEER = 4,
};

#define HF_LOCAL_DIR ".holdfast"              /* below the working directory */
#define HF_LOCAL_FALLBACK "/var/lib/holdfast" /* root, where `postgres` cannot go */

struct hf_local {
    char dir[HF_PATH_MAX]; /* absolute */
    char name[HF_LOCAL_NAME_MAX];
    unsigned port;     /* of ordinal 0 */
    unsigned replicas; /* nodes there should be now */
    unsigned expect;   /* nodes that founded the cluster */
    unsigned lease_ms;
    struct hf_node_accounts accounts;
    unsigned n_settings; /* PostgreSQL's, "name=value" */
    char *settings[HF_LOCAL_SETTINGS_MAX]; /* from malloc() */
};

/* Finds the directory of a cluster: `given` if not empty; else .holdfast here, or as root, when
 * `postgres` cannot enter this directory, /var/lib/holdfast/<name>. *fallback says that it is the
 * latter. The directory need not exist. */
int hf_local_find(char out[HF_PATH_MAX], const char *given, const char *name, bool *fallback,
                  struct hf_error *err);

/* HF_ENOENT: there is no cluster there. */
int hf_local_load(struct hf_local *l, const char *dir, struct hf_error *err);
int hf_local_save(const struct hf_local *l, struct hf_error *err);
void hf_local_free(struct hf_local *l);

/* Of a cluster: small letters, digits and dashes, a letter first. Names are parts of paths. */
bool hf_local_is_name(const char *name);
void hf_local_node_name(const struct hf_local *l, unsigned ordinal, char out[HF_NAME_MAX]);
/* The ordinal of a node's name ("demo-2", or only "2"), or -1. It may be beyond `replicas`. */
int hf_local_ordinal(const struct hf_local *l, const char *name);
unsigned hf_local_port(const struct hf_local *l, unsigned ordinal, unsigned offset);
/* <dir>/<what>, and <dir>/<node>/<what> (what "" is the node's directory itself). */
void hf_local_path(const struct hf_local *l, const char *what, char out[HF_PATH_MAX]);
void hf_local_node_path(const struct hf_local *l, unsigned ordinal, const char *what,
                        char out[HF_PATH_MAX]);

/* A new cluster: checks dir (absent or empty), creates it with cluster.json, passwords and the
 * certificate authority. As root it belongs to `postgres`, and the process gives root up on the way. */
int hf_local_create(struct hf_local *l, struct hf_error *err);
/* The node's directories if they are not there, and a new certificate unless the one there is valid. */
int hf_local_make_node(const struct hf_local *l, unsigned ordinal, struct hf_error *err);

/* Is PostgreSQL there and new enough, are paths short enough, is every port free? Nodes that run
 * already own their ports. */
int hf_local_preflight(const struct hf_local *l, struct hf_error *err);

#endif
