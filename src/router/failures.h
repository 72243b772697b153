/* Who keeps giving wrong passwords has to wait (per client address and role). Bounded memory; pure, time comes in. */
#ifndef HF_ROUTER_FAILURES_H
#define HF_ROUTER_FAILURES_H

#include <stdbool.h>
#include <stdint.h>

enum {
    HF_FAILURES_FREE = 5,          /* that cost nothing */
    HF_FAILURES_GAP_MS = 500,      /* between two looks at a proof after that */
    HF_FAILURES_WAIT_MAX_MS = 10000, /* who would have to wait longer is refused */
    HF_FAILURES_FORGET_MS = 60000, /* after the last failure */
    HF_FAILURES_SETS = 1024,
    HF_FAILURES_WAYS = 4,
};

struct hf_failures {
    struct hf_failure {
        uint64_t key; /* 0: free */
        uint64_t last_ms, next_ms;
        unsigned n;
    } table[HF_FAILURES_SETS][HF_FAILURES_WAYS];
};

/* `key`: a hash of address and role that others cannot foretell. How long to wait before the proof is looked at; -1: not at
 * all. A turn that was given is taken, unless it is left before it came. */
int64_t hf_failures_wait(struct hf_failures *f, uint64_t key, uint64_t now_ms);
void hf_failures_leave(struct hf_failures *f, uint64_t key, uint64_t now_ms);
void hf_failures_wrong(struct hf_failures *f, uint64_t key, uint64_t now_ms);
void hf_failures_right(struct hf_failures *f, uint64_t key); /* forgives */

#endif
