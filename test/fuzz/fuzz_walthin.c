/* What is left out of a WAL receiver's words: never anything but a status, never the news of a
 * flush, and never a part of a message. The input: how it is cut, and when what waits is let go;
 * then the stream. */
#include "input.h"

#include <stdbool.h>

#include "peer/walthin.h"

enum { ROOM = 16 * 1024, STATUS = HF_WALTHIN_STATUS_BYTES };

static uint64_t be(const uint8_t *p, unsigned n)
{
    uint64_t v = 0;

    for (unsigned i = 0; i < n; i++)
        v = v << 8 | p[i];
    return v;
}

struct said {
    uint8_t rest[ROOM]; /* all but the statuses */
    size_t n;
    unsigned statuses, asking; /* asking: that want an answer */
    uint64_t flushed, applied; /* the greatest */
    bool middle;               /* it ends inside of a message */
};

static void keep(struct said *s, const uint8_t *p, size_t n)
{
    memcpy(s->rest + s->n, p, n);
    s->n += n;
}

/* A reader of its own: the startup packets, then messages with a type. */
static void read_stream(struct said *s, const uint8_t *p, size_t n)
{
    bool started = false;
    size_t at = 0;

    memset(s, 0, sizeof *s);
    while (at < n) {
        size_t head = started ? 5 : 8;
        uint64_t len;
        if (n - at < head)
            break;
        len = be(p + at + (started ? 1 : 0), 4);
        if (len < (started ? 4u : 8u))
            break; /* no such protocol: all passes */
        if (started)
            len++;
        if (n - at < len)
            break;
        if (started && len == STATUS && p[at] == 'd' && p[at + 5] == 'r') {
            s->statuses++;
            s->asking += p[at + 38] != 0;
            s->flushed = s->flushed > be(p + at + 14, 8) ? s->flushed : be(p + at + 14, 8);
            s->applied = s->applied > be(p + at + 22, 8) ? s->applied : be(p + at + 22, 8);
        } else {
            keep(s, p + at, (size_t)len);
        }
        started = started || be(p + at + 4, 4) >> 16 == 3;
        at += (size_t)len;
    }
    s->middle = at < n;
    keep(s, p + at, n - at);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static uint8_t out[2 * ROOM];
    static struct said before, after;
    struct input in = {data, size};
    struct hf_walthin t = {0};
    size_t cut = input_byte(&in) + 1, let_go = input_byte(&in), n = 0;

    if (in.n > ROOM / 2)
        return 0;
    for (size_t at = 0, turn = 0; at < in.n; turn++) {
        size_t piece = in.n - at < cut ? in.n - at : cut, kept;
        uint8_t *block = malloc(piece > STATUS ? piece : STATUS);
        MUST(block != NULL);
        memcpy(block, in.p + at, piece);
        kept = hf_walthin_bytes(&t, block, piece);
        MUST(kept <= piece && t.head_have < 8);
        memcpy(out + n, block, kept);
        n += kept;
        at += piece;
        if (let_go != 0 && turn % let_go == 0) {
            kept = hf_walthin_held(&t, block);
            MUST(kept == 0 || kept == STATUS);
            memcpy(out + n, block, kept);
            n += kept;
            MUST(n <= at);
        }
        free(block);
    }
    read_stream(&before, in.p, in.n);
    read_stream(&after, out, n);
    MUST(after.n == before.n && memcmp(after.rest, before.rest, before.n) == 0);
    MUST(after.statuses <= before.statuses && after.asking == before.asking);
    MUST(after.middle == before.middle);
    MUST(after.flushed == before.flushed && after.applied <= before.applied);
    return 0;
}
