/* What a client says to a session whose server was lost, or whose statement was cancelled before a
 * server had it: it is answered by the router up to where it counts again, and from there on it is
 * the server's, to the byte; each Query, FunctionCall and Sync has one ReadyForQuery, but those that
 * PostgreSQL would skip behind what it refuses, however the bytes come. The input: what the session is in, then messages as in fuzz_holds.c: a byte for the
 * type, one for the length, the body. */
#include "input.h"

#include "../../src/router/survive_client.c"

enum { STREAM_MAX = 1 << 16, TOLD_MAX = 1 << 20 };

static const char types[] = "QPBDECFSHdcfX";

struct outcome {
    uint8_t out[STREAM_MAX]; /* what is for the server */
    size_t len;
    uint8_t told[TOLD_MAX]; /* what the client has heard */
    size_t told_len;
    unsigned answers, ready; /* ErrorResponse or CommandComplete, ReadyForQuery */
    bool over;
    unsigned spoilt;
};

static struct hf_session session;
static struct hf_survive survive;
static struct hf_router router; /* counts */
static struct hf_thread thread = {.r = &router};
static struct outcome *now;
static unsigned deaf_after; /* so many words to the client; it takes no more then */

/* -- what survive_client.c asks of others
 * ---------------------------------------------------------- */

ssize_t hf_front_write(struct hf_session *s, const uint8_t *p, size_t n)
{
    (void)s;
    MUST(n > 0 && n <= TOLD_MAX - now->told_len && !now->over);
    if (deaf_after == 0)
        return (ssize_t)n - 1;
    deaf_after--;
    memcpy(now->told + now->told_len, p, n);
    now->told_len += n;
    return (ssize_t)n;
}

void hf_session_count(struct hf_session *s, size_t in, size_t out)
{
    (void)s;
    MUST(in == 0 && out > 0);
}

bool hf_login_resume(struct hf_session *s)
{
    (void)s;
    return true;
}

void hf_holds_started(struct hf_holds *h, bool failed)
{
    (void)h;
    MUST(failed);
}

/* "b" is a BEGIN, and nothing else is prepared. */
const char *hf_holds_prepared(const struct hf_holds *h, const char *name)
{
    (void)h;
    return strcmp(name, "b") == 0 ? "BEGIN" : NULL;
}

void hf_holds_forget_unnamed(struct hf_holds *h)
{
    (void)h;
}

void hf_session_say_back(struct hf_session *s, const uint8_t *p, size_t n)
{
    size_t first;

    (void)s;
    MUST(n > 10 && p[0] == 'Q');
    first = hf_wire_length(p);
    MUST(first < n && p[first] == 'Q' && first + hf_wire_length(p + first) == n);
    MUST(memcmp(p + 5, "BEGIN", 6) == 0 && p[n - 1] == '\0');
    now->spoilt++;
}

static void end(struct hf_session *s)
{
    s->state = HF_SESSION_LINGER;
    now->over = true;
}

void hf_session_lose(struct hf_session *s, const char *why)
{
    MUST(why != NULL);
    end(s);
}

void hf_session_drop(struct hf_session *s, const char *why)
{
    MUST(why != NULL && deaf_after == 0);
    end(s);
}

/* -- the test -----------------------------------------------------------------------------------
 */

static void begin(unsigned how)
{
    memset(&survive, 0, sizeof survive);
    survive.filter = (how & 1) != 0 ? HF_FILTER_CANCEL : HF_FILTER_TELL;
    survive.failed = (how & 2) != 0;
    survive.inside = (how & 4) != 0;
    session.t = &thread;
    session.survive = &survive;
    session.state = HF_SESSION_PIPE;
    hf_dialogue_init(&session.dialogue);
    deaf_after = (how & 8) != 0 ? how / 16 : UINT32_MAX;
    hf_sql_cache_turn(thread.sql);
}

/* As hf_session's owner gives it the bytes; each piece in a block of its own, so that reading
 * beyond it shows. */
static void run(struct outcome *o, unsigned how, const uint8_t *p, size_t n, size_t step)
{
    begin(how);
    now = o;
    o->len = o->told_len = 0;
    o->over = false;
    o->spoilt = 0;
    for (size_t at = 0; at < n && !o->over; at += step) {
        size_t m = n - at < step ? n - at : step, left;
        uint8_t *piece = malloc(m);
        MUST(piece != NULL);
        memcpy(piece, p + at, m);
        left = hf_survive_client(&session, piece, m);
        MUST(left <= m && (!o->over || left == 0));
        memcpy(o->out + o->len, piece, left);
        o->len += left;
        free(piece);
        if (survive.filter == HF_FILTER_NONE ||
            (left > 0 && !o->over)) { /* all else is the server's; goodbye, too */
            at += m;
            memcpy(o->out + o->len, p + at, n - at);
            o->len += n - at;
            break;
        }
    }
    MUST(o->spoilt <= 1);
}

/* What was told is whole messages, of these kinds. */
static void hear(struct outcome *o)
{
    char state[6];

    o->answers = o->ready = 0;
    for (size_t at = 0, n; at < o->told_len; at += n) {
        const uint8_t *p = o->told + at;
        MUST(o->told_len - at >= 5);
        n = hf_wire_length(p);
        MUST(n > 5 && n <= o->told_len - at);
        if (p[0] == 'Z') {
            MUST(n == 6 && strchr("ITE", p[5]) != NULL);
            o->ready++;
            continue;
        }
        MUST(p[0] == 'E' || (n == 14 && memcmp(p + 5, "ROLLBACK", 9) == 0 && p[0] == 'C'));
        MUST(p[0] == 'C' || (hf_wire_sqlstate(p + 5, n - 5, state) &&
                             (memcmp(state, "40001", 6) == 0 || memcmp(state, "57014", 6) == 0)));
        o->answers++;
    }
}

/* The same, reckoned from the heads of the messages alone. */
static void reckon(struct outcome *o, const uint8_t *p, size_t n)
{
    bool skipping = false, certain = false, more = true; /* certain: nothing that PostgreSQL could refuse was skipped */
    size_t at = 0, len;

    o->answers = o->ready = 0;
    o->over = false;
    while (more && n - at >= 5 && p[at] != 'X') {
        len = hf_wire_length(p + at);
        if (len < 5) {
            o->over = true;
            break;
        }
        if (len > n - at)
            break;
        if (p[at] == 'S' || (skipping && certain && (p[at] == 'Q' || p[at] == 'F'))) {
            o->ready++;
            more = !skipping;
        } else if (memchr("dcf", p[at], 3) == NULL && !skipping) {
            o->answers++;
            more = p[at] != 'Q' && p[at] != 'F';
            o->ready += !more;
            skipping = more;
            certain = p[at] == 'C' || p[at] == 'H';
        } else if (skipping && p[at] != 'd' && p[at] != 'c' && p[at] != 'f') {
            certain = certain && (p[at] == 'C' || p[at] == 'H');
        }
        at += len;
    }
    o->len = o->over || (more && at < n && p[at] != 'X') ? 0 : n - at;
    memcpy(o->out, p + n - o->len, o->len);
}

static void same(const struct outcome *a, const struct outcome *b)
{
    MUST(a->over == b->over && a->answers == b->answers && a->ready == b->ready);
    MUST(a->len == b->len && memcmp(a->out, b->out, a->len) == 0);
}

/* The input's messages as a stream. A type behind the list: bytes as they are. */
static size_t messages(struct input *in, uint8_t *to)
{
    size_t len = 0;

    while (in->n >= 2 && STREAM_MAX - len > 5 + 256) {
        unsigned type = input_byte(in) % (sizeof types + 1), n = input_byte(in);
        uint8_t *head = to + len;
        if (type < sizeof types - 1) {
            head[0] = (uint8_t)types[type];
            len += 5;
        }
        n = (unsigned)input_take(in, to + len, n);
        if (type < sizeof types - 1)
            hf_scan_put(head + 1, 4 + n);
        len += n;
    }
    return len;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static struct outcome meant, whole, pieces;
    static uint8_t stream[STREAM_MAX];
    struct input in = {data, size};
    unsigned how = input_byte(&in), step = input_byte(&in) % 32 + 1;
    size_t n = messages(&in, stream);

    if (thread.sql == NULL)
        MUST((thread.sql = hf_sql_cache_new(1 << 16)) != NULL);
    run(&whole, how, stream, n, STREAM_MAX);
    run(&pieces, how, stream, n, step);
    hear(&whole);
    hear(&pieces);
    if ((how & 8) != 0) /* a client that takes nothing hears no more, and its session is over */
        return 0;
    reckon(&meant, stream, n);
    same(&meant, &whole);
    same(&meant, &pieces);
    return 0;
}
