/* How far a follower is behind its leader: in bytes, and in time.
 *
 * In time: for how long, at most, has what is applied here not been all that the leader had? So it grows while replay is slow, and
 * while nothing is heard of the leader's WAL as well: an open leader writes something each second (S13), and a stream that
 * tells nothing tells nothing of new commits either. Therefore it is never much below a second, and less is not told apart.
 *
 * What lies further back than HF_LAG_MARKS steps is told too great, up to twice.
 *
 * Both are a follower's own knowledge, no older than what its stream has said. Time is CLOCK_BOOTTIME. */
#ifndef HF_CORE_LAG_H
#define HF_CORE_LAG_H

#include "types.h"

enum { HF_LAG_MARKS = 32 };
#define HF_LAG_STEP_NS (250 * HF_MS)

struct hf_lag {
    hf_lsn end, applied;  /* of the leader's WAL; here */
    uint64_t heard_ns;    /* when `end` was heard; 0: no stream */
    unsigned n;           /* marks, oldest first: WAL up to `end` was there at `at_ns`, and is not applied */
    struct {
        hf_lsn end;
        uint64_t at_ns;
    } marks[HF_LAG_MARKS];
};

void hf_lag_begin(struct hf_lag *l); /* a stream begins, or has ended */
void hf_lag_heard(struct hf_lag *l, hf_lsn end, hf_lsn applied, uint64_t now_ns);
uint64_t hf_lag_bytes(const struct hf_lag *l);
uint64_t hf_lag_ns(const struct hf_lag *l, uint64_t now_ns); /* UINT64_MAX: not known */

#endif
