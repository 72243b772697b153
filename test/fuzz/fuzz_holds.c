/* A session's traffic in both directions: followed alike however it is cut, never "free" with
 * something under way, and what makes it again is always well-formed.
 *
 * The input is a list of messages: a byte for the direction and the type, one for the length, the
 * body. A type from behind the list makes a raw piece of a stream instead. */
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

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
        hf_holds_doing(a) != hf_holds_doing(b) ||
        hf_holds_wants_probe(a) != hf_holds_wants_probe(b))
        abort();
    if ((hf_holds_by(a) == HF_HOLD_NOTHING) &&
        (hf_holds_doing(a) != HF_DOING_NOTHING || hf_holds_pins(a) != 0 ||
         hf_holds_in_transaction(a)))
        abort();
}

static void remake(const struct hf_holds *a, const struct hf_holds *b)
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

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static const char quiet[] = "0:6c6f636b6572=1,736574746572=2.";
    struct hf_sql_cache *cache = hf_sql_cache_new(1 << 16);
    struct hf_holds *whole = hf_holds_new(cache, data, size < 64 ? size : 64);
    struct hf_holds *cut = hf_holds_new(cache, data, size < 64 ? size : 64);
    struct hf_code *code = NULL;

    if (hf_code_read(&code, quiet, sizeof quiet - 1) != 0)
        abort();
    hf_holds_set_code(whole, code);
    hf_holds_set_code(cut, code);
    hf_holds_started(whole);
    hf_holds_started(cut);
    while (size >= 2) {
        int client = data[0] >> 7;
        const char *types = client ? client_types : server_types;
        size_t type = data[0] & 0x1f, n = data[1], at = 0;
        uint8_t m[5 + 255];
        data += 2;
        size -= 2;
        if (n > size)
            n = size;
        if (type == 0x1f) {
            hf_holds_lost(whole);
            hf_holds_lost(cut);
            hf_holds_started(whole);
            hf_holds_started(cut);
        } else if (type == 0x1e) {
            hf_holds_probe_read(whole, (const char *)data, n);
            hf_holds_probe_read(cut, (const char *)data, n);
        } else {
            if (type < strlen(types)) {
                m[0] = (uint8_t)types[type];
                m[1] = m[2] = 0;
                m[3] = (uint8_t)((n + 4) >> 8);
                m[4] = (uint8_t)(n + 4);
                at = 5;
            }
            memcpy(m + at, data, n);
            feed(whole, client, m, at + n);
            for (size_t i = 0; i < at + n; i++)
                feed(cut, client, m + i, 1);
        }
        look(whole, cut);
        data += n;
        size -= n;
    }
    remake(whole, cut);
    if (hf_holds_bytes(whole) > 1u << 22)
        abort();
    hf_holds_free(whole);
    hf_holds_free(cut);
    hf_code_free(code);
    hf_sql_cache_free(cache);
    return 0;
}
