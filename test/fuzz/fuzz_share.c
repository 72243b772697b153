/* What a server answers to what the router says in front of a client's first message: those answers
 * are taken away, all else is the client's, none is taken that is not certain to be ours, and all
 * this however the bytes come. The input: which prefix, how the bytes come, then the stream. */
#include "input.h"

#include "router/login.h"
#include "router/share_private.h"

/* What the rest of share_take.c asks of others: never called here. */
#pragma weak hf_end_close
#pragma weak hf_end_open
#pragma weak hf_front_peek
#pragma weak hf_holds_needs_unnamed
#pragma weak hf_holds_parameter
#pragma weak hf_holds_remake
#pragma weak hf_holds_remake_unnamed
#pragma weak hf_holds_server
#pragma weak hf_holds_set_read_only
#pragma weak hf_holds_state
#pragma weak hf_holds_take
#pragma weak hf_key_alias
#pragma weak hf_key_point
#pragma weak hf_login_free
#pragma weak hf_login_resume
#pragma weak hf_secret_make
#pragma weak hf_server_close
#pragma weak hf_session_close
#pragma weak hf_session_drop
#pragma weak hf_session_hold
#pragma weak hf_session_lose
#pragma weak hf_session_move
#pragma weak hf_session_say_back
#pragma weak hf_session_seek
#pragma weak hf_session_set_pipe
#pragma weak hf_share_unrest
#pragma weak hf_survive_is_filtering
#pragma weak hf_survive_restart
#pragma weak hf_survive_tell
#pragma weak uv_now

#include "../../src/router/share_take.c"

enum { STREAM_MAX = 1 << 16 };

static struct {
    uint8_t bytes[STREAM_MAX];
    size_t len, here, at; /* all; what has come so far; what has been read */
} stream;

struct outcome {
    uint8_t out[STREAM_MAX]; /* what the client gets */
    size_t len, at;
    bool over;
    char awaits[4];
};

static struct hf_session session;
static struct hf_end back;
static struct hf_share share;
static unsigned n_cleared;
static bool drops; /* the client's first message: the unnamed statement */

static size_t copy(uint8_t *p, size_t n)
{
    size_t most = stream.here - stream.at < n ? stream.here - stream.at : n;

    if (most > 0)
        memcpy(p, stream.bytes + stream.at, most);
    return most;
}

bool hf_end_wait(struct hf_end *e)
{
    e->empty = true;
    return true;
}

ssize_t hf_end_peek(struct hf_end *e, uint8_t *p, size_t n)
{
    size_t got = copy(p, n);

    e->empty = got == 0;
    memset(p + got, 'I', n - got); /* what stands there is nobody's */
    return (ssize_t)got;
}

ssize_t hf_end_read(struct hf_end *e, uint8_t *p, size_t n)
{
    size_t got = e->empty ? 0 : copy(p, n);

    MUST(n > 0);
    e->empty = got < n;
    stream.at += got;
    return (ssize_t)got;
}

void hf_holds_clear_unnamed(struct hf_holds *h)
{
    (void)h;
    n_cleared++;
}

bool hf_holds_drops_unnamed(const uint8_t *p, size_t n)
{
    (void)p;
    (void)n;
    return drops;
}

/* -- the test -----------------------------------------------------------------------------------
 */

/* The prefix is whole messages, said once. */
static void say_prefix(bool sequences)
{
    uint8_t out[HF_SHARE_PREFIX_MAX];
    size_t n;

    memset(&share, 0, sizeof share);
    share.prefix = sequences ? HF_PREFIX_SEQUENCES : HF_PREFIX_CLOSE;
    session.share = &share;
    session.back = &back;
    n_cleared = 0;
    drops = sequences;
    n = hf_share_prefix(&session, NULL, 0, out);
    MUST(n >= 5 && n <= sizeof out && hf_wire_length(out) == n && n_cleared == 1);
    MUST(hf_share_is_swallowing(&session) && strlen(share.awaits) < sizeof share.awaits);
    MUST(hf_share_prefix(&session, NULL, 0, out) == 0);
    share.prefix = HF_PREFIX_CLOSE;
    drops = true;
    MUST(hf_share_prefix(&session, NULL, 0, out) == 0 && share.prefix == HF_PREFIX_NONE && n_cleared == 1);
}

/* As pipe.c reads from the back; `step`: so many bytes come at a time. */
static void run(struct outcome *o, bool sequences, size_t step)
{
    size_t most;
    int rv;

    say_prefix(sequences);
    hf_dialogue_init(&session.dialogue);
    o->len = 0;
    o->over = false;
    stream.at = stream.here = 0;
    while (!o->over && (stream.here < stream.len || stream.at < stream.here)) {
        back.empty = false;
        stream.here += stream.len - stream.here < step ? stream.len - stream.here : step;
        for (rv = 1; rv > 0 && stream.at < stream.here;) {
            most = STREAM_MAX;
            rv = hf_share_is_swallowing(&session) ? hf_share_swallow(&session, &most) : 1;
            if (rv > 0 && stream.at < stream.here) {
                ssize_t n = hf_end_read(&back, o->out + o->len, most);
                MUST(n > 0);
                (void)hf_dialogue_server(&session.dialogue, o->out + o->len, (size_t)n);
                o->len += (size_t)n;
            }
        }
        o->over = rv < 0;
        if (stream.here == stream.len && rv <= 0)
            break;
    }
    o->at = stream.at;
    memcpy(o->awaits, share.awaits, sizeof o->awaits);
}

/* The same from the whole stream. */
static void reckon(struct outcome *o, bool sequences)
{
    const char *awaits = sequences ? "CZ" : "3";
    const uint8_t *p = stream.bytes;
    size_t at = 0, len, n;

    o->len = 0;
    o->over = false;
    for (; *awaits != '\0' && stream.len - at >= 5; at += n) {
        len = hf_wire_length(p + at);
        n = len < stream.len - at ? len : stream.len - at;
        o->over = len < 5 || (p[at] != (uint8_t)*awaits && strchr("NSA^", p[at]) == NULL) ||
                  p[at] == '\0';
        if (p[at] == (uint8_t)*awaits && !o->over) {
            o->over = len > 64 || (p[at] == 'Z' && n == len && (len != 6 || p[at + 5] != 'I'));
            if (o->over || n < len)
                break;
            awaits++;
            continue;
        }
        if (o->over)
            break;
        memcpy(o->out + o->len, p + at, n);
        o->len += n;
    }
    if (*awaits == '\0' && !o->over) {
        memcpy(o->out + o->len, p + at, stream.len - at);
        o->len += stream.len - at;
        at = stream.len;
    }
    o->at = at;
    memset(o->awaits, 0, sizeof o->awaits);
    memcpy(o->awaits, awaits, strlen(awaits));
}

static void same(const struct outcome *a, const struct outcome *b)
{
    MUST(a->over == b->over && (a->over || (a->at == b->at && strcmp(a->awaits, b->awaits) == 0)));
    MUST(a->len == b->len && memcmp(a->out, b->out, a->len) == 0);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static struct outcome meant, whole, pieces;
    struct input in = {data, size};
    unsigned how = input_byte(&in);
    bool sequences = (how & 1) != 0;

    stream.len = input_take(&in, stream.bytes, sizeof stream.bytes);
    reckon(&meant, sequences);
    run(&whole, sequences, STREAM_MAX);
    run(&pieces, sequences, how / 2 % 16 + 1);
    same(&meant, &whole);
    same(&meant, &pieces);
    return 0;
}
