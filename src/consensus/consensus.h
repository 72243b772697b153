/* Raft: libraft's rules and disk log under a transport of our own.
 *
 * Everything here runs on the thread of one libuv loop. The entries are bytes to this part; what they
 * mean is core/cluster.h's business. A server's Raft address is "name/host:port" of its peer port.
 *
 * Raft is safe whatever the clock says, so an election may be hinted at (hf_consensus_hint) by moving the
 * time that libraft sees past its election timeout. */
#ifndef HF_CONSENSUS_CONSENSUS_H
#define HF_CONSENSUS_CONSENSUS_H

#include <stdbool.h>
#include <stdint.h>
#include <uv.h>

#include "base/error.h"

enum { HF_CONSENSUS_SERVERS_MAX = 32 };

struct hf_consensus;
struct hf_consensus_dial; /* an attempt to connect, owned by this part until it is told the end */

enum hf_consensus_role { HF_CONSENSUS_FOLLOWER, HF_CONSENSUS_CANDIDATE, HF_CONSENSUS_LEADER };

struct hf_consensus_server {
    uint64_t id;
    bool voter;
    bool idle; /* added but not assigned: receives nothing yet */
    char address[256];
};

struct hf_consensus_callbacks {
    void *ctx;
    /* Carry `fd` (one end of a socket pair, now the callee's) to the Raft of that server, then call
     * hf_consensus_dialed() exactly once, not from within this call. */
    void (*dial)(void *ctx, struct hf_consensus_dial *d, uint64_t id, const char *name,
                 const char *addr, int fd);
    void (*apply)(void *ctx, const uint8_t *bytes, size_t len); /* a committed entry */
    /* The state as bytes from malloc(); 0 or HF_ENOMEM. And back, replacing all. */
    int (*snapshot)(void *ctx, uint8_t **bytes, size_t *len);
    int (*restore)(void *ctx, const uint8_t *bytes, size_t len);
    /* Whenever one of them changed. leader: 0 if unknown. */
    void (*role)(void *ctx, enum hf_consensus_role role, uint64_t term, uint64_t leader);
    void (*servers)(void *ctx, const struct hf_consensus_server *servers, unsigned n);
    void (*failed)(void *ctx, const char *text); /* this node's Raft cannot go on: end the process */
};

struct hf_consensus_config {
    const char *dir;     /* exists, is ours */
    uint64_t id;         /* of this incarnation of the volume */
    const char *address; /* "name/host:port" */
    unsigned election_ms, heartbeat_ms;
};

/* Opens the log in `dir`, without starting. Errors say what is wrong with the directory. */
int hf_consensus_open(struct hf_consensus **out, uv_loop_t *loop,
                      const struct hf_consensus_config *config,
                      const struct hf_consensus_callbacks *callbacks, struct hf_error *err);
/* The first configuration, all voters; only into an empty directory (HF_EEXIST else). Before start. */
int hf_consensus_bootstrap(struct hf_consensus *c, const struct hf_consensus_server *servers,
                           unsigned n, struct hf_error *err);
/* Loads, restores, and takes part. */
int hf_consensus_start(struct hf_consensus *c, struct hf_error *err);
/* Frees everything once the loop has run on; then calls `done`. For tests: a node ends with its process. Not while the log is being cut,
 * which raft_uv does not wait for (uv_append.c, uvBarrierClose). */
void hf_consensus_close(struct hf_consensus *c, void (*done)(void *arg), void *arg);

/* Results: `ok` is false when the request was lost with the leadership; what it asked for may happen
 * all the same. Functions return 0, or HF_EBUSY / HF_EREFUSED and then no callback comes. */
typedef void (*hf_consensus_cb)(void *arg, bool ok);
int hf_consensus_apply(struct hf_consensus *c, const uint8_t *bytes, size_t len, hf_consensus_cb cb,
                       void *arg);
int hf_consensus_barrier(struct hf_consensus *c, void (*cb)(void *arg, uint64_t term, bool ok),
                         void *arg);
int hf_consensus_transfer(struct hf_consensus *c, uint64_t id, hf_consensus_cb cb, void *arg);
/* Adds as a non-voting receiver of the log (two steps of libraft's: added, then assigned; a leader lost
 * in between leaves it idle, and the same call finishes it). */
int hf_consensus_add(struct hf_consensus *c, uint64_t id, const char *address, hf_consensus_cb cb,
                     void *arg);
int hf_consensus_assign(struct hf_consensus *c, uint64_t id, bool voter, hf_consensus_cb cb,
                        void *arg);
int hf_consensus_remove(struct hf_consensus *c, uint64_t id, hf_consensus_cb cb, void *arg);

/* The leader is gone: stand for election now. Nothing happens on a leader. */
void hf_consensus_hint(struct hf_consensus *c);
/* The leader is gone: stop believing in it, so that another's pre-vote is granted. libraft refuses
 * pre-votes while it knows a leader; forgetting one early is what a shorter timeout would do. */
void hf_consensus_forget_leader(struct hf_consensus *c);

/* The transport's two ends. */
void hf_consensus_dialed(struct hf_consensus_dial *d, bool ok);
/* Takes fd in any case. */
void hf_consensus_accepted(struct hf_consensus *c, uint64_t id, const char *address, int fd);

#endif
