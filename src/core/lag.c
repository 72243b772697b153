#include "lag.h"

#include <string.h>

void hf_lag_begin(struct hf_lag *l)
{
    memset(l, 0, sizeof *l);
}

/* Two into one, of which the older's time and the newer's end count: the lag is told too great, never too small. */
static void thin_out(struct hf_lag *l)
{
    for (unsigned i = 0; i < HF_LAG_MARKS / 2; i++) {
        l->marks[i].end = l->marks[2 * i + 1].end;
        l->marks[i].at_ns = l->marks[2 * i].at_ns;
    }
    l->n = HF_LAG_MARKS / 2;
}

static void forget_applied(struct hf_lag *l)
{
    unsigned done = 0;

    while (done < l->n && l->marks[done].end <= l->applied)
        done++;
    l->n -= done;
    memmove(l->marks, l->marks + done, l->n * sizeof l->marks[0]);
}

void hf_lag_heard(struct hf_lag *l, hf_lsn end, hf_lsn applied, uint64_t now_ns)
{
    if (end == 0)
        return; /* the stream has not said it yet */
    if (applied > l->applied)
        l->applied = applied;
    if (end > l->end && end > l->applied) {
        if (l->n > 0 && now_ns - l->marks[l->n - 1].at_ns < HF_LAG_STEP_NS) {
            l->marks[l->n - 1].end = end;
        } else {
            if (l->n == HF_LAG_MARKS)
                thin_out(l);
            l->marks[l->n].end = end;
            l->marks[l->n++].at_ns = now_ns;
        }
    }
    if (end > l->end)
        l->end = end;
    l->heard_ns = now_ns;
    forget_applied(l);
}

uint64_t hf_lag_bytes(const struct hf_lag *l)
{
    return l->end > l->applied ? l->end - l->applied : 0;
}

uint64_t hf_lag_ns(const struct hf_lag *l, uint64_t now_ns)
{
    uint64_t since = l->heard_ns;

    if (since == 0)
        return UINT64_MAX;
    if (l->n > 0 && l->marks[0].at_ns < since)
        since = l->marks[0].at_ns;
    return now_ns > since ? now_ns - since : 0;
}
