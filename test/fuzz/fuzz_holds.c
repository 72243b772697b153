/* A session's traffic in both directions: followed alike however it is cut, never "free" with
 * something under way, what makes it again is always well-formed, and neither memory nor time are
 * without a bound.
 *
 * The input is a list of messages: a byte for the direction and the type, one for the length, the
 * body. Types from behind the list make other things happen: see step(). */
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "holds/holds.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static const char client_types[] = "QPBDECFSHdcfXp?", server_types[] = "123CDEGHINSTVWZnst";

static void feed(struct hf_holds *h, int client, const uint8_t *p, size_t n)
{
    if (client)
        hf_holds_client(h, p, n);
    else
        hf_holds_server(h, p, n);
}

static void look(const struct hf_holds *a, const struct hf_holds *b)
{
    if (hf_holds_by(a) != hf_holds_by(b) || hf_holds_pins(a) != hf_holds_pins(b) ||
        hf_holds_doing(a) != hf_holds_doing(b))
        abort();
    if ((hf_holds_by(a) == HF_HOLD_NOTHING) &&
        (hf_holds_doing(a) != HF_DOING_NOTHING || hf_holds_pins(a) != 0 ||
         hf_holds_in_transaction(a)))
        abort();
}

static void remake(struct hf_holds *a, struct hf_holds *b)
{
    uint8_t *one, *two;
    size_t n, m;
    unsigned steps, more, syncs = 0;

    if (hf_holds_remake(a, &one, &n, &steps) != 0 || hf_holds_remake(b, &two, &m, &more) != 0)
        abort();
    if (n != m || steps != more || (n > 0 && memcmp(one, two, n) != 0))
        abort();
    for (size_t at = 0; at < n;) {
        size_t len = (size_t)one[at + 1] << 24 | (size_t)one[at + 2] << 16 |
                     (size_t)one[at + 3] << 8 | one[at + 4];
        if (len < 4 || at + 1 + len > n)
            abort();
        syncs += one[at] == 'S';
        at += 1 + len;
    }
    if (syncs != steps)
        abort();
    free(one);
    free(two);
}

enum { CLIENT = 0x80, LOST = 0x1f, REPORT = 0x1e, AGAIN = 0x1d, LONG = 0x1c, SLOW_MS = 250 };

struct pair {
    struct hf_sql_cache *cache;
    struct hf_holds *whole, *cut;
    uint8_t message[5 + 256 * 1024]; /* the last one */
    size_t len;
    int client;
};

static uint64_t cpu_ms(void)
{
    struct timespec t;

    (void)clock_gettime(CLOCK_THREAD_CPUTIME_ID, &t);
    return (uint64_t)t.tv_sec * 1000 + (uint64_t)t.tv_nsec / 1000000;
}

/* The last message, to both. */
static void send_both(struct pair *p)
{
    uint64_t begun = cpu_ms();
    size_t piece = p->len < 512 ? 1 : 4099;

    hf_sql_cache_turn(p->cache);
    feed(p->whole, p->client, p->message, p->len);
    if (cpu_ms() - begun > SLOW_MS)
        abort();
    for (size_t i = 0; i < p->len; i += piece)
        feed(p->cut, p->client, p->message + i, p->len - i < piece ? p->len - i : piece);
    if (hf_holds_bytes(p->whole) > HF_HOLDS_BYTES_MAX || hf_holds_bytes(p->cut) > HF_HOLDS_BYTES_MAX)
        abort();
}

static void head(struct pair *p, char type, size_t body)
{
    p->message[0] = (uint8_t)type;
    for (int i = 0; i < 4; i++)
        p->message[1 + i] = (uint8_t)((body + 4) >> (24 - 8 * i));
    p->len = 5 + body;
}

/* The last message many times, each with other letters at the place that `data` says: other names. */
static void again(struct pair *p, const uint8_t *data, size_t n)
{
    size_t times = n > 0 ? (size_t)data[0] * 4 : 1, at = n > 1 ? 5 + data[1] : 0;

    if (p->len > 1024 && times > 8)
        times = 8;
    for (size_t i = 0; i < times; i++) {
        if (at > 0 && at + 3 <= p->len) {
            p->message[at] = (uint8_t)('a' + i % 16);
            p->message[at + 1] = (uint8_t)('a' + i / 16 % 16);
            p->message[at + 2] = (uint8_t)('a' + i / 256 % 16);
        }
        send_both(p);
    }
}

/* A long message: its type, how many kilobytes, what it begins with, and the rest of that again and again. */
static void send_long(struct pair *p, const uint8_t *data, size_t n)
{
    const char *types = p->client ? client_types : server_types;
    size_t body = n > 1 ? (size_t)data[1] * 1024 : 0;

    if (n < 4 || data[0] >= strlen(types))
        return;
    head(p, types[data[0]], body);
    for (size_t i = 0; i < body; i++)
        p->message[5 + i] = data[2 + i % (n - 2)];
    if (body > 3)
        memset(p->message + 5 + body - 3, 0, 3);
    send_both(p);
}

/* What the guard says when a connection begins. */
static void report(struct pair *p, const char *said, size_t n)
{
    char value[256] = {0};

    memcpy(value, said, n);
    hf_holds_parameter(p->whole, HF_HOLDS_PARAMETER, value);
    hf_holds_parameter(p->cut, HF_HOLDS_PARAMETER, value);
}

static void step(struct pair *p, uint8_t first, const uint8_t *data, size_t n)
{
    const char *types;
    size_t type = first & 0x1f;

    if (type != AGAIN)
        p->client = (first & CLIENT) != 0;
    types = p->client ? client_types : server_types;
    if (type == LOST) {
        hf_holds_lost(p->whole);
        hf_holds_lost(p->cut);
        report(p, "none", 4);
        hf_holds_started(p->whole, false);
        hf_holds_started(p->cut, false);
    } else if (type == REPORT) {
        report(p, (const char *)data, n);
    } else if (type == AGAIN) {
        again(p, data, n);
    } else if (type == LONG) {
        send_long(p, data, n);
    } else if (type < strlen(types)) {
        head(p, types[type], n);
        memcpy(p->message + 5, data, n);
        send_both(p);
    } else { /* a piece of a stream; short, since each piece has its share of the grammar */
        p->len = n < 200 ? n : 200;
        memcpy(p->message, data, p->len);
        send_both(p);
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static struct pair p;

    p.cache = hf_sql_cache_new(1 << 16);
    p.len = 0;
    p.client = 1;
    p.whole = hf_holds_new(p.cache, data, size < 64 ? size : 64);
    p.cut = hf_holds_new(p.cache, data, size < 64 ? size : 64);
    report(&p, "none", 4);
    hf_holds_started(p.whole, false);
    hf_holds_started(p.cut, false);
    while (size >= 2) {
        size_t n = data[1] < size - 2 ? data[1] : size - 2;
        step(&p, data[0], data + 2, n);
        look(p.whole, p.cut);
        data += 2 + n;
        size -= 2 + n;
    }
    remake(p.whole, p.cut);
    hf_holds_free(p.whole);
    hf_holds_free(p.cut);
    hf_sql_cache_free(p.cache);
    return 0;
}
