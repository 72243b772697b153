/* The words of the design (docs/architecture.md, "Words") as C types.
 *
 * Everything under src/core is pure: no I/O, no clock, no threads, no allocation. Time comes in as
 * `now_ns` (nanoseconds of CLOCK_BOOTTIME), messages and results come in as events, and what should
 * be done goes out as actions. */
#ifndef HF_CORE_TYPES_H
#define HF_CORE_TYPES_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* Limits. Each array in the core is sized by one of these, and every input is checked against it. */
enum {
    HF_MEMBERS_MAX = 16,  /* nodes in a cluster, voters and learners together */
    HF_NAME_MAX = 64,     /* a node's name, with its NUL */
    HF_ADDR_MAX = 160,    /* "host:port", with its NUL */
    HF_BRANCHES_MAX = 512, /* epochs the cluster remembers; an older lineage means a re-clone */
    HF_REASON_MAX = 96,   /* a short text for people, with its NUL */
};

#define HF_MS 1000000ull /* nanoseconds in a millisecond */

typedef uint64_t hf_node_id; /* Raft id of one incarnation of a volume (SAFETY S14); 0 = none */
typedef uint64_t hf_epoch;   /* the Raft term in which a leader was appointed; 0 = before the first */
typedef uint64_t hf_lsn;     /* PostgreSQL WAL position, bytes; 0 = no data at all */

struct hf_uuid {
    uint8_t b[16];
};

/* How much of history a node holds: the last epoch of its lineage and the end of its WAL.
 * Two positions compare by (epoch, lsn) after hf_cluster_normalise(). */
struct hf_position {
    hf_epoch epoch;
    hf_lsn lsn;
};

#endif
