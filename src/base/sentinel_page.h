/* What the node and its sentinel share: one page of memory, mapped before the fork.
 *
 * The node writes, the sentinel reads; after the node's death nobody writes. Every field is an atomic of
 * its own: the sentinel needs each to be whole, not all to be of one moment. */
#ifndef HF_BASE_SENTINEL_PAGE_H
#define HF_BASE_SENTINEL_PAGE_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>
#include <sys/socket.h>

enum { HF_DEATH_PEERS_MAX = 32, HF_DEATH_TOKEN_BYTES = 32 };
#define HF_DEATH_MAGIC "HFDEATH1" /* 8 bytes, no NUL on the wire */

/* A peer's token: sent back to it in plain, it proves that this node's process is gone. */
struct hf_death_entry {
    atomic_uint used; /* 1: token and address are complete */
    socklen_t len;
    struct sockaddr_storage address;
    uint8_t token[HF_DEATH_TOKEN_BYTES];
};

struct hf_sentinel_page {
    atomic_uint_least64_t lease_deadline_ns; /* 0: none */
    atomic_uint_least64_t turned_ns;         /* when the node's control loop last turned */
    atomic_int postmaster;                   /* pid; 0: none */
    atomic_bool primary;                     /* PostgreSQL runs, or may run, out of recovery */
    struct hf_death_entry peers[HF_DEATH_PEERS_MAX];
};

/* Tells every peer in the table that the node is gone. No allocation; at most 200 ms. */
void hf_death_tell(struct hf_sentinel_page *page);

#endif
