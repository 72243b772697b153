#include "ready.h"

#include <string.h>

/* A process that was stopped has not waited all that time for its leader. */
#define STEP_MAX_NS (100 * HF_MS)

void hf_ready_begin(struct hf_ready *r, uint64_t now_ns)
{
    memset(r, 0, sizeof *r);
    r->started_ns = r->looked_ns = now_ns;
    r->apart_ns = HF_READY_PATIENCE_NS;
}

void hf_ready_look(struct hf_ready *r, bool part, bool open, uint64_t now_ns)
{
    uint64_t passed = now_ns > r->looked_ns ? now_ns - r->looked_ns : 0;

    if (passed > STEP_MAX_NS)
        passed = STEP_MAX_NS;
    if (!part)
        r->part_ns = 0;
    else if (r->part)
        r->part_ns += passed;
    if (!part && open && r->apart_ns < HF_READY_PATIENCE_NS)
        r->apart_ns += passed;
    if (r->part_ns >= HF_READY_STEADY_NS) {
        r->apart_ns = 0;
        r->proved = true;
    }
    r->part = part;
    r->open = open;
    r->looked_ns = now_ns;
}

enum hf_readiness hf_ready_answer(const struct hf_ready *r)
{
    if (r->part)
        return HF_READY_YES;
    if (r->open)
        return r->apart_ns < HF_READY_PATIENCE_NS ? HF_READY_YES : HF_READY_APART;
    return r->proved || r->looked_ns - r->started_ns >= HF_READY_PATIENCE_NS ? HF_READY_YES : HF_READY_LOOKING;
}
