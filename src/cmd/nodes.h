/* The nodes that a verb asks: those of this machine's cluster; or, in a pod and wherever else a node runs by itself, that
 * node, and through it the other members (node_through.c). */
#ifndef HF_CMD_NODES_H
#define HF_CMD_NODES_H

#include <jansson.h>
#include <stdbool.h>

#include "base/error.h"
#include "core/types.h"
#include "local/layout.h"

struct hf_nodes {
    char cluster[HF_NAME_MAX];
    bool local; /* of `holdfast up` */
    unsigned n;
    struct hf_nodes_one {
        char name[HF_NAME_MAX];
        char sql[HF_ADDR_MAX];    /* where clients reach it; "": not known */
        char socket[HF_PATH_MAX]; /* the admin socket that is asked */
        bool through;             /* it is another node's, which leads on */
    } nodes[HF_MEMBERS_MAX];      /* by ordinal */
};

/* Finds the nodes that `dir` (may be "") means. */
int hf_nodes_open(struct hf_nodes *ns, const char *dir, struct hf_error *err);
void hf_nodes_of_local(struct hf_nodes *ns, const struct hf_local *l);
/* Is a node by itself meant, by `dir` or else by HOLDFAST_NODE_DIR, as in a pod? Its admin socket. */
bool hf_nodes_alone(const char *dir, char socket[HF_PATH_MAX]);

/* The index of a name ("demo-2", or only "2"), or -1 with an error. */
int hf_nodes_find(const struct hf_nodes *ns, const char *name, struct hf_error *err);
/* HF_ENOENT: none of them answers, and what to do. */
int hf_nodes_silent(const struct hf_nodes *ns, struct hf_error *err);

/* Takes `request`. For the answer see hf_admin_ask(); `answer` may be NULL: it does not matter. */
int hf_nodes_ask(const struct hf_nodes *ns, unsigned i, json_t *request, int timeout_ms, json_t **answer,
                 struct hf_error *err);

struct hf_nodes_answer {
    json_t *body; /* the caller's; NULL: none, and `why` says why, in few words */
    struct hf_error why;
};
/* All at the same time, each with its own place in `out`. */
void hf_nodes_ask_all(const struct hf_nodes *ns, const char *op, int timeout_ms,
                      struct hf_nodes_answer out[HF_MEMBERS_MAX]);

/* All nodes' status. */
struct hf_view_node {
    char name[HF_NAME_MAX];
    json_t *status; /* NULL: not reachable, and `why` says why */
    struct hf_error why;
};
struct hf_view_all {
    unsigned n;
    struct hf_view_node nodes[HF_MEMBERS_MAX];
    int leader; /* index of the leader of the newest epoch that anybody reports, or -1 */
    bool open;  /* its gate */
    json_int_t epoch;
};
void hf_nodes_look(const struct hf_nodes *ns, int timeout_ms, struct hf_view_all *v);
void hf_cmd_look(const struct hf_local *l, int timeout_ms, struct hf_view_all *v);
void hf_cmd_look_free(struct hf_view_all *v);

#endif
