/* Connections between nodes, over mutual TLS, through one port per node.
 *
 * A connection begins with a hello that says who dials and for what; the acceptor's host lets it in or
 * refuses with a reason. From then on it is a *tunnel*: pump threads move bytes between the TLS
 * connection and a plain descriptor, so that nobody else ever touches TLS. Messages between nodes
 * (core/message.h) go through tunnels as well, one per ordered pair of nodes.
 *
 * All calls and all callbacks on the thread of the loop given to hf_peer_open(). */
#ifndef HF_PEER_PEER_H
#define HF_PEER_PEER_H

#include <sys/socket.h>
#include <uv.h>

#include "base/cert.h"
#include "base/error.h"
#include "base/sentinel_page.h"
#include "core/message.h"

enum hf_purpose {
    HF_PURPOSE_CONTROL = 1, /* messages; handled inside src/peer */
    HF_PURPOSE_RAFT,        /* libraft's stream */
    HF_PURPOSE_WAL,         /* a follower's WAL receiver to the leader's PostgreSQL */
    HF_PURPOSE_COPY,        /* pg_basebackup, pg_rewind */
    HF_PURPOSE_SQL,         /* a client's session, carried by another node's router */
    HF_PURPOSE_ADMIN,       /* a question to the admin socket, asked through another node */
};

enum { HF_PAYLOAD_MAX = 256 };

struct hf_peer_identity {
    hf_node_id id; /* 0: has none yet */
    struct hf_uuid uuid, cluster_id;
    uint64_t system_id;
    char name[HF_NAME_MAX]; /* as in its certificate */
};

struct hf_peer_target {
    hf_node_id id; /* 0: not known */
    char name[HF_NAME_MAX];
    char addr[HF_ADDR_MAX];
};

/* What the standby behind an accepted WAL tunnel says it holds. */
struct hf_wal_word {
    hf_node_id id;
    uint64_t tag;      /* as given to hf_tunnel_accept */
    uint32_t timeline; /* of the WAL it has asked for: an LSN means something on a timeline only */
    bool torn;         /* it broke its terms (hf_wal_terms), and is cut */
    hf_lsn flushed, applied;
};

/* On what terms a standby may stream. */
struct hf_wal_terms {
    uint64_t tag;       /* comes back with on_flushed */
    const char *member; /* its application_name must be that; NULL: any */
    /* The first WAL it asks for must begin there or before, else it is cut before it gets any: it has WAL of another history right before
     * what it asks for. 0: no such terms. */
    hf_lsn begin;
};

struct hf_peer;
struct hf_tunnel; /* an incoming request, until it is answered */

struct hf_peer_callbacks {
    void *ctx;
    void (*on_message)(void *ctx, const struct hf_peer_identity *from, const struct hf_msg *m);
    void (*on_up)(void *ctx, hf_node_id id, const char *name);
    /* proof: that node's process is gone, and its gate with it (death token; or, in the local runtime
     * on loopback, its port refuses). Without proof it is a hint, no more (SAFETY S6). */
    void (*on_down)(void *ctx, hf_node_id id, const char *name, bool proof);
    /* RAFT, WAL, COPY, SQL, ADMIN. Answer with hf_tunnel_accept or _refuse, now or later. */
    void (*on_tunnel)(void *ctx, enum hf_purpose purpose, const struct hf_peer_identity *from,
                      const void *payload, size_t len, struct hf_tunnel *tunnel);
    void (*on_flushed)(void *ctx, const struct hf_wal_word *word); /* leader */
    void (*on_wal_closed)(void *ctx, hf_node_id id, uint64_t tag);
};

struct hf_peer_config {
    const char *listen;  /* "host:port" */
    const char *tls_dir; /* see base/cert.h */
    const struct hf_domains *domains; /* in which nodes may be named by their certificates; may be NULL */
    const char *name;
    /* All nodes are processes of this machine, started by `holdfast up`. On the loopback, then, a refused
     * connection proves a death, and once both ends have proved by TLS who they are, bytes go without it:
     * who can listen there can read the data directories as well. */
    bool local;
    struct hf_sentinel_page *page; /* tokens go here; may be NULL */
};

int hf_peer_open(struct hf_peer **out, uv_loop_t *loop, const struct hf_peer_config *config,
                 const struct hf_peer_callbacks *callbacks, struct hf_error *err);
void hf_peer_close(struct hf_peer *p); /* joins the threads; no callback comes after */
/* Connections from now on use the certificates that lie in the directory now. On failure nothing changes. From
 * any thread. */
int hf_peer_reload(struct hf_peer *p, const char *tls_dir, struct hf_error *err);
/* Who we say we are from now on. Nodes of different clusters refuse each other. */
void hf_peer_identify(struct hf_peer *p, const struct hf_peer_identity *self);
/* With whom to stay connected for messages; replaces the former list. At most 32. */
void hf_peer_keep(struct hf_peer *p, const struct hf_peer_target *targets, unsigned n);
/* Sends if it can: bounded queue while connecting, the oldest message is dropped. */
void hf_peer_send(struct hf_peer *p, const char *name, const char *addr, const struct hf_msg *m);

struct hf_dial {
    void *arg;
    /* Exactly once. status 0, or HF_E... and a text; `to` is the address reached, if any. */
    void (*opened)(void *arg, int status, const char *text, const struct sockaddr *to, socklen_t len);
    /* WAL only, now and then: how far the leader's WAL goes, and how far it is applied here. May be NULL. */
    void (*progress)(void *arg, hf_lsn end, hf_lsn applied);
    /* Once, after opened with status 0; NULL if nobody wants to know. */
    void (*closed)(void *arg, bool wal_missing);
};
/* Connects fd to the node's service; takes fd in any case (closes it on failure). */
void hf_peer_dial(struct hf_peer *p, const char *name, const char *addr, enum hf_purpose purpose,
                  const void *payload, size_t len, int fd, const struct hf_dial *d);
/* Takes fd. `terms`: of a WAL tunnel; else NULL. */
void hf_tunnel_accept(struct hf_tunnel *t, int fd, const struct hf_wal_terms *terms);
void hf_tunnel_refuse(struct hf_tunnel *t, const char *text);
/* Closes all tunnels of a purpose, dialed or accepted ones; `done` (may be NULL) once not a byte more
 * will be moved. */
void hf_peer_cut(struct hf_peer *p, enum hf_purpose purpose, bool dialed, void (*done)(void *arg),
                 void *arg);

#endif
