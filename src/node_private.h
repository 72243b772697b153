/* Inside of `holdfast node`: where the parts meet. Everything here runs on the control thread. */
#ifndef HF_NODE_PRIVATE_H
#define HF_NODE_PRIVATE_H

#include <stdatomic.h>

#include <jansson.h>
#include <uv.h>

#include "admin/admin.h"
#include "base/error.h"
#include "base/mailbox.h"
#include "base/sentinel_page.h"
#include "consensus/consensus.h"
#include "core/decide.h"
#include "core/form.h"
#include "core/lag.h"
#include "core/ready.h"
#include "http/http.h"
#include "node_config.h"
#include "peer/peer.h"
#include "peer/relay.h"
#include "postgres/agent.h"
#include "postgres/user_settings.h"
#include "router/router.h"

enum { HF_EXIT_ANEW = 254 }; /* inside only: empty the directory, then HF_EXIT_AGAIN */
/* What this node knows about who can be read (node_reads.c). */
struct hf_reads_known {
    struct hf_lag lag;  /* of this node, a follower */
    bool behind;        /* too far, as last told to the router */
    unsigned next;      /* whose turn it is to serve a reader from here */
    struct {
        hf_node_id id;  /* 0: free */
        bool gone;      /* not connected */
        uint64_t no_ns; /* when it could not be had; 0: it was not asked, or served */
    } others[HF_MEMBERS_MAX];
};

enum { HF_HEARD_MAX = 2 * HF_MEMBERS_MAX, HF_WAITING_MAX = 32 };

/* Who told us an id, before or besides the cluster state. */
struct hf_heard {
    hf_node_id id;
    char name[HF_NAME_MAX];
};

/* Something outside that waits for an answer of the core, by request number. */
struct hf_waiting {
    uint64_t request;                /* 0: free */
    struct hf_admin_request *admin; /* leave, switchover */
    struct hf_tunnel *tunnel;       /* a follower that asks to stream */
    hf_node_id id;                  /* of that follower */
    hf_epoch epoch;                 /* that it asked for */
    struct hf_uuid uuid;            /* join: of the volume */
    char name[HF_NAME_MAX];         /* join: to whom to answer, and where */
    char addr[HF_ADDR_MAX];
};

/* PostgreSQL's settings from a file that may change (node_settings.c). */
struct hf_settings_look {
    uint64_t looked_at, have; /* fingerprints; have: in force */
    unsigned looks;
    bool unsettled;           /* something may wait for a restart */
    bool news;                /* not said yet */
    char problem[sizeof(((struct hf_error *)0)->text)];
    char names[HF_SETTINGS_NAMES_MAX]; /* what waits for a restart */
};
struct hf_settings {
    bool on;
    struct hf_settings_look look; /* the pool's, while node_watch.c looks */
    struct hf_settings_look seen; /* the control thread's copy */
    bool ask_again;
    uint64_t restarted_for, restarted_ns;
    hf_epoch epoch;
    uint64_t quiet_since_ns;
    struct hf_settings_said {
        hf_node_id id;
        uint64_t have, heard_ns, sent_ns;
        bool waits;
    } said[HF_MEMBERS_MAX];
};

struct hf_node {
    const struct hf_node_config *config;
    struct hf_sentinel_page *page;
    uv_loop_t loop;
    uv_timer_t tick;
    uv_signal_t signals[3]; /* all of them mean SIGTERM */
    struct hf_mailbox *mailbox; /* to ourselves: events that must not come at once */
    uint64_t started_ns;
    int exit_status;
    bool ending, stopping; /* stopping: SIGTERM has come */

    struct hf_durable durable; /* as on disk */
    struct hf_uuid uuid;       /* of this volume */
    struct hf_form *form;      /* while the node has no id */
    struct hf_decide *decide;  /* once it has one */
    bool stepping;             /* actions are being carried out: new events wait in the loop */

    struct hf_consensus *consensus;
    struct hf_peer *peer;
    struct hf_relay *relay;
    struct hf_agent *agent;
    struct hf_router *router;
    bool secret_shared; /* with the router: see hf_router_secret() */
    struct hf_admin *admin;
    unsigned n_through; /* connections from there that go on to other nodes */
    struct hf_http *http; /* NULL: no such port */
    struct hf_peer_identity identity;
    struct hf_watch *watch;
    struct hf_leave *leave;
    bool terminating; /* SIGTERM has come; perhaps this node leaves first */
    int64_t certificate_end_s; /* by the wall clock; 0: not known yet */
    uint64_t opened_ns; /* when the gate was opened here last */
    bool accounts_made;
    uint64_t accounts_after_ns; /* not before: after a failure */
    unsigned accounts_failed;   /* in a row */
    bool furnished; /* and they are there */
    struct hf_settings settings;

    /* Persisting, on libuv's thread pool; one at a time. */
    uv_work_t persist_req;
    struct hf_durable persist_value;
    uint64_t persist_seq;
    bool persist_for_form, persist_ok, persist_busy;
    struct hf_error persist_err;

    uint64_t kept_sum; /* of the members we stay connected with: a cheap change detector */
    unsigned n_heard;
    struct hf_heard heard[HF_HEARD_MAX];
    struct hf_waiting waiting[HF_WAITING_MAX];
    uint64_t next_request;

    /* A promotion waits until the read-only sessions are gone (S3). */
    bool promote_waiting;
    struct hf_pg_job promote_job;

    bool readable; /* followers' reads, as last told to the router */
    bool streaming;
    struct hf_ready ready;
    uint64_t receiver_ns; /* when PostgreSQL's WAL receiver was there last, or was asked for */
    struct hf_reads_known reads;
    struct {
        hf_node_id id;
        hf_lsn flushed, applied;
    } flushed[HF_MEMBERS_MAX];
};

/* node.c */
void hf_node_step(struct hf_node *n, const struct hf_event *e);
/* The same from the loop, later; for events without borrowed pointers. */
void hf_node_later(struct hf_node *n, const struct hf_event *e);
/* The node has an id: Raft and the core begin. `founding` is the founder's list, or NULL. */
void hf_node_member(struct hf_node *n, const struct hf_member *founding, unsigned n_founding);
void hf_node_shutdown(struct hf_node *n);
void hf_node_end(struct hf_node *n, int status); /* now */
void hf_node_random(void *out, size_t len);
struct hf_waiting *hf_node_waiting(struct hf_node *n, uint64_t request);
struct hf_waiting *hf_node_wait(struct hf_node *n); /* NULL: too many */
/* A new cluster, whose roles and database are still to be made. */
bool hf_node_is_unfurnished(const struct hf_node *n);
/* Name and address of a member or of somebody heard of; false: unknown. */
bool hf_node_where(const struct hf_node *n, hf_node_id id, char name[HF_NAME_MAX],
                   char addr[HF_ADDR_MAX]);
const char *hf_node_seed_addr(const struct hf_node *n, const char *name);

/* node_events.c: what the parts report becomes the core's events. */
struct hf_peer_callbacks hf_node_peer_callbacks(struct hf_node *n);
struct hf_relay_callbacks hf_node_relay_callbacks(struct hf_node *n);
void hf_node_receiver_run(struct hf_node *n); /* each tick */
struct hf_agent_callbacks hf_node_agent_callbacks(struct hf_node *n);
struct hf_router_callbacks hf_node_router_callbacks(struct hf_node *n);
struct hf_consensus_callbacks hf_node_consensus_callbacks(struct hf_node *n);

/* node_state.c: struct hf_durable as state.json, and the founder's list. */
int hf_state_load(const char *dir, struct hf_durable *out, bool *exists, struct hf_error *err);
int hf_state_save(const char *dir, const struct hf_durable *d, struct hf_error *err);
int hf_founding_save(const char *dir, const struct hf_member *m, unsigned n, struct hf_error *err);
int hf_founding_load(const char *dir, struct hf_member m[HF_MEMBERS_MAX], unsigned *n,
                     struct hf_error *err);

/* node_act.c: the core's actions become calls. */
void hf_node_act(struct hf_node *n, const struct hf_action *a);
void hf_node_persist(struct hf_node *n, const struct hf_durable *d, uint64_t seq, bool for_form);
void hf_node_submit(struct hf_node *n, const struct hf_pg_job *job);
int hf_node_connect_pg(const struct hf_node *n); /* PostgreSQL's socket; negative on failure */

/* node_form.c: the founding or joining of a node without an id. */
int hf_node_form_begin(struct hf_node *n, struct hf_error *err);
void hf_node_form_run(struct hf_node *n);

/* node_admin.c: status, history, switchover, leave. */
void hf_node_admin(void *ctx, struct hf_admin_request *request, const json_t *body);
char *hf_node_status_text(struct hf_node *n);     /* JSON, malloc'ed; NULL: out of memory */
hf_lsn hf_node_lsn(const struct hf_node *n);      /* only of a member */

/* node_through.c: another node's admin socket, by way of this one. */
json_t *hf_node_through(struct hf_node *n, struct hf_admin_request *request, const char *name);
void hf_node_through_asked(struct hf_node *n, const struct hf_peer_identity *from, struct hf_tunnel *t);
bool hf_node_through_may(const char *op);

/* node_settings.c */
int hf_node_settings_begin(struct hf_node *n, struct hf_error *err);
void hf_node_settings_look(struct hf_node *n); /* on the thread pool; one at a time */
void hf_node_settings_tick(struct hf_node *n); /* between two looks */
void hf_node_settings_message(struct hf_node *n, const struct hf_msg *m);

/* node_leave.c */
int hf_node_leave_begin(struct hf_node *n, struct hf_error *err); /* before anything else is read from the disk */
void hf_node_leave_tick(struct hf_node *n);
void hf_node_leave_tidy(const struct hf_node *n); /* on the thread pool, while streaming */
void hf_node_leave_message(struct hf_node *n, const struct hf_peer_identity *from, const struct hf_msg *m);
void hf_node_terminate(struct hf_node *n); /* SIGTERM */
json_t *hf_node_remove(struct hf_node *n, const char *name);

/* node_reads.c: followers' reads. */
void hf_node_reads_route(struct hf_node *n, const struct hf_view *v); /* after every step */
hf_node_id hf_node_reads_next(struct hf_node *n, const struct hf_view *v); /* who serves a reader from here? 0: nobody */
void hf_node_reads_had(struct hf_node *n, hf_node_id id, bool ok); /* whether it does */
void hf_node_reads_peer(struct hf_node *n, hf_node_id id, bool up);
void hf_node_reads_ask(void *ctx, uint64_t seq);
void hf_node_reads_answer(void *ctx, uint64_t from, uint64_t epoch, uint64_t seq, uint64_t sent_ns, uint64_t lsn);
void hf_node_reads_message(struct hf_node *n, const struct hf_msg *m);

/* node_watch.c: files that change while the node runs. */
int hf_node_watch(struct hf_node *n, struct hf_error *err);
void hf_node_watch_close(struct hf_node *n); /* it looks no more: agent and peers may go */

/* node_http.c: the operations port. */
void hf_node_http(void *ctx, const char *path, const char *max_lag, struct hf_http_answer *answer);

#endif
