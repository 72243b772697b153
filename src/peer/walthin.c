#include "peer/walthin.h"

#include <string.h>

/* CopyData: 'd', length, then 'r', written, flushed, applied, clock (8 bytes each), "answer me" (1). */
enum { STATUS_BYTES = HF_WALTHIN_STATUS_BYTES, WRITTEN = 6, FLUSHED = 14, APPLIED = 22, ANSWER_ME = 38 };
enum { TYPED_HEAD = 5, UNTYPED_HEAD = 8 };

static uint64_t be(const uint8_t *p, unsigned n)
{
    uint64_t v = 0;

    for (unsigned i = 0; i < n; i++)
        v = v << 8 | p[i];
    return v;
}

/* A whole status at p: true when it does not pass, or not now. */
static bool left_out(struct hf_walthin *t, const uint8_t *p)
{
    uint64_t flushed, applied;

    if (p[0] != 'd' || be(p + 1, 4) != STATUS_BYTES - 1 || p[5] != 'r')
        return false;
    flushed = be(p + FLUSHED, 8);
    applied = be(p + APPLIED, 8);
    t->seen = applied;
    if (flushed == t->flushed && p[ANSWER_ME] == 0) {
        if (be(p + WRITTEN, 8) > flushed)
            return true;
        if (applied > t->applied) {
            memcpy(t->held, p, STATUS_BYTES);
            t->holds = true;
            return true;
        }
    }
    t->flushed = flushed;
    t->applied = applied;
    t->holds = false;
    return false;
}

size_t hf_walthin_held(struct hf_walthin *t, uint8_t *p)
{
    if (!t->holds || t->head_have > 0 || t->body_left > 0)
        return 0;
    memcpy(p, t->held, STATUS_BYTES);
    t->applied = be(p + APPLIED, 8);
    t->holds = false;
    return STATUS_BYTES;
}

static void head_complete(struct hf_walthin *t)
{
    unsigned counted = t->started ? TYPED_HEAD - 1 : UNTYPED_HEAD; /* bytes of the head that the length counts */
    uint64_t length = be(t->started ? t->head + 1 : t->head, 4);

    t->head_have = 0;
    t->holds = false; /* this may tell of more, and nothing older may follow */
    if (length < counted) {
        t->broken = true;
        return;
    }
    t->body_left = length - counted;
    if (!t->started)
        t->started = be(t->head + 4, 4) >> 16 == 3; /* else SSLRequest and the like: the real one follows */
}

size_t hf_walthin_bytes(struct hf_walthin *t, uint8_t *p, size_t n)
{
    size_t at = 0, kept = 0;

    while (at < n) {
        if (t->broken || t->body_left > 0) {
            size_t take = t->broken || n - at < t->body_left ? n - at : (size_t)t->body_left;
            if (kept != at)
                memmove(p + kept, p + at, take);
            at += take;
            kept += take;
            t->body_left -= t->broken ? 0 : take;
        } else if (t->started && t->head_have == 0 && n - at >= STATUS_BYTES && left_out(t, p + at)) {
            at += STATUS_BYTES;
        } else {
            t->head[t->head_have++] = p[at];
            p[kept++] = p[at++];
            if (t->head_have == (t->started ? TYPED_HEAD : UNTYPED_HEAD))
                head_complete(t);
        }
    }
    return kept;
}
