/* The sessions of a node, for people: listed, and ended. Part of router.h's interface. */
#ifndef HF_ROUTER_LIST_H
#define HF_ROUTER_LIST_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct hf_router;

enum { HF_WHO_MAX = 64 }; /* as PostgreSQL's NAMEDATALEN */

struct hf_session_info {
    uint64_t id; /* unique on this node since its start */
    char peer[64];
    char user[HF_WHO_MAX], database[HF_WHO_MAX], application[HF_WHO_MAX]; /* from the startup packet, perhaps cut */
    const char *place; /* starting, waiting (for a server connection), pooled (without one), held, leader, elsewhere, follower, cancel, ending */
    const char *state; /* what it does: login, idle, active, in transaction, failed transaction, withheld, ... */
    const char *holds; /* free, or what pins it to its server connection; empty where the client is not */
    uint64_t since_unix_ms;
    uint64_t bytes_in, bytes_out; /* from and to the client */
    uint64_t far;                 /* "elsewhere": the follower that serves it; 0: the leader does */
    uint32_t pid;                 /* of PostgreSQL's backend; 0: none yet */
    bool tls, read_only, carried; /* carried: here from another node's port */
};

/* Once, on the host's loop; `infos` are borrowed for the call. `n` sessions, or 1 and 0: has been ended or not. */
typedef void (*hf_router_list_cb)(void *ctx, const struct hf_session_info *infos, size_t n);

void hf_router_list(struct hf_router *r, hf_router_list_cb done, void *ctx);
/* Ends a session as pg_terminate_backend() would: 57P01 if its stream is between messages. */
void hf_router_kill(struct hf_router *r, uint64_t id, hf_router_list_cb done, void *ctx);

#endif
