/* Should this node count as ready (/readyz)? Who drains machines or replaces pods one by one goes on to the next as soon as one is
 * ready, so a node that has no working copy while the others work must not be: two of three copies would be gone.
 *
 * - Never a question of quorum: a StatefulSet that starts its pods one by one would wait for ever, and in a failover all would be
 *   unready at once. So while this node knows of no leader with an open gate, it is ready.
 * - While it knows of one, it is ready if it leads or streams, or has not done so for less than HF_READY_PATIENCE_NS: after a failover
 *   followers need a moment. Only time with an open leader counts. A stream that ends again at once does not count.
 * - A node that has just started has no such patience, since nothing says that it ever worked; and it has HF_READY_PATIENCE_NS to hear
 *   of a leader before it counts as one that knows of none. Else it would be ready, for the moment that is enough to go on to the next.
 *
 * All of this is this node's own knowledge. Time is CLOCK_BOOTTIME. */
#ifndef HF_CORE_READY_H
#define HF_CORE_READY_H

#include "types.h"

#define HF_READY_PATIENCE_NS (5000 * HF_MS)
#define HF_READY_STEADY_NS (1000 * HF_MS) /* a stream that has lasted so long is one */

struct hf_ready {
    uint64_t started_ns, looked_ns;
    uint64_t part_ns;  /* how long it has led or streamed without a break */
    uint64_t apart_ns; /* how long it has not, with an open leader there */
    bool part, open;   /* as looked at last: it leads or streams; there is an open leader */
    bool proved;       /* it has taken part for HF_READY_STEADY_NS since it started */
};

enum hf_readiness {
    HF_READY_YES,
    HF_READY_LOOKING, /* just started, and has not heard of a leader yet */
    HF_READY_APART,   /* there is an open leader, and this node neither leads nor streams */
};

void hf_ready_begin(struct hf_ready *r, uint64_t now_ns);
/* Every few ms. `part`: it leads or streams; `open`: it leads, or knows of a leader, with an open gate. */
void hf_ready_look(struct hf_ready *r, bool part, bool open, uint64_t now_ns);
enum hf_readiness hf_ready_answer(const struct hf_ready *r);

#endif
