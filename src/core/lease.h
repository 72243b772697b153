/* Both sides of the lease: the leader's deadline, and a voter's promise.
 *
 * Leader: an ack to a ping sent at s extends the lease to s + T once a majority has acked. Voter: the
 * promise runs from when the ping was *received*, which is later, so the promise outlives the lease as
 * long as the two clocks run at nearly the same rate (HF_LEASE_DRIFT). Time is CLOCK_BOOTTIME: it goes
 * on while the host sleeps (SAFETY S12). */
#ifndef HF_CORE_LEASE_H
#define HF_CORE_LEASE_H

#include "quorum.h"

/* The leader counts its lease shorter by T / 64: two clocks that differ by 1.5 % are still safe. */
#define HF_LEASE_DRIFT 64u

/* Leader's side, for one epoch. */
struct hf_lease {
    hf_epoch epoch;
    uint64_t length_ns; /* T */
    uint64_t next_seq;
    uint64_t void_before_seq; /* acks of older pings count for nothing (S17) */
    unsigned n;
    struct {
        hf_node_id id;
        uint64_t sent_ns; /* of the newest ping it acked; 0: none */
    } acked[HF_MEMBERS_MAX];
};

void hf_lease_begin(struct hf_lease *l, hf_epoch epoch, uint64_t length_ns);
/* All acks so far, and those of pings already sent, are void. */
void hf_lease_void(struct hf_lease *l);
uint64_t hf_lease_ping(struct hf_lease *l); /* sequence number of a ping about to be sent */
void hf_lease_ack(struct hf_lease *l, hf_node_id from, uint64_t seq, uint64_t sent_ns);
/* Until when the gate may forward results; 0: no lease. `self` counts as having acked now. */
uint64_t hf_lease_deadline(const struct hf_lease *l, const struct hf_cluster *c, hf_node_id self,
                           uint64_t now_ns);

/* Voter's side. */
struct hf_promise {
    hf_epoch epoch;    /* of the leader to whom it was made */
    hf_node_id leader;
    uint64_t until_ns; /* report to nobody else before this */
};

void hf_promise_make(struct hf_promise *p, hf_epoch epoch, hf_node_id leader, uint64_t now_ns,
                     uint64_t length_ns);
/* The leader released it, or its death is proven (S6). */
void hf_promise_let_off(struct hf_promise *p, hf_epoch epoch);
bool hf_promise_binds(const struct hf_promise *p, uint64_t now_ns);

#endif
