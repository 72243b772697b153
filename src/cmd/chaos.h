/* What the parts of `holdfast chaos` share: what was done, and to which cluster. */
#ifndef HF_CMD_CHAOS_H
#define HF_CMD_CHAOS_H

#include <stdbool.h>
#include <stdint.h>

#include "cmd/chaos_interrupt.h"
#include "cmd/chaos_ledger.h"
#include "local/layout.h"

enum { HF_CHAOS_FAULTS_MAX = 4096 };

enum hf_chaos_fault {
    HF_CHAOS_KILL_NODE,
    HF_CHAOS_STOP_NODE,
    HF_CHAOS_SWITCHOVER,
    HF_CHAOS_KILL_POSTGRES,
    HF_CHAOS_N_FAULTS
};

struct hf_chaos_done {
    enum hf_chaos_fault fault;
    unsigned node, stop_ms; /* stop_ms: to be, then as it was */
    bool leader, whole;     /* whole: again, after it */
    unsigned long at_ms, gap_ms, whole_ms;
};

struct hf_chaos {
    struct hf_local local;
    struct hf_chaos_interrupt interrupt;
    struct hf_chaos_ledger *ledger;
    uint64_t random;
    unsigned seed, seconds, clients, whole_s;
    bool json;
    unsigned long begun_ms; /* 0: nothing was done to the cluster yet */
    unsigned n_done;
    struct hf_chaos_done done[HF_CHAOS_FAULTS_MAX];
};

/* Does what `d` says; a stopped node runs again when this returns. */
int hf_chaos_hurt(struct hf_chaos *c, struct hf_chaos_done *d, unsigned leader, struct hf_error *err);

/* A line for a fault that is over. */
void hf_chaos_tell(const struct hf_chaos *c, const struct hf_chaos_done *d);
/* The report, as c->json says. */
void hf_chaos_report(struct hf_chaos *c, const struct hf_chaos_verdict *v, bool ok);

#endif
