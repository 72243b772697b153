/* Both streams of a session as the gate follows them, and what it reads from single messages: alike
 * however the bytes are cut, never idle inside of a message, and nothing beyond a message's own
 * bytes. The input: how it is cut, then pieces of 128 bytes, each with one byte in front: which
 * side speaks. */
#include "input.h"

#include "router/cancel.h"
#include "router/dialogue.h"
#include "router/wire.h"

enum { PIECE = 128 };

static void feed(struct hf_dialogue *d, bool client, const uint8_t *p, size_t n)
{
    if (client)
        hf_dialogue_client(d, p, n);
    else
        hf_dialogue_server(d, p, n);
}

static void look(const struct hf_dialogue *d)
{
    MUST(d->kept <= HF_SCAN_KEEP && d->key_len <= HF_BACKEND_KEY_MAX);
    MUST(!d->key_known || d->key_len >= HF_CANCEL_KEY_MIN);
    MUST(d->client.broken || d->client.have <= 5);
    MUST(d->server.broken || d->server.left <= d->server.full);
    if (hf_dialogue_is_idle(d))
        MUST(d->pending == 0 && !d->skipping && d->server.have == 0 && d->client.have == 0 && d->started);
    MUST(!d->skipping || (d->batch && d->pending == 0 && !hf_dialogue_is_idle(d)));
    if (hf_dialogue_may_speak(d))
        MUST(d->server.have == 0 && !d->server.broken);
}

static void same(const struct hf_dialogue *a, const struct hf_dialogue *b)
{
    MUST(hf_dialogue_is_idle(a) == hf_dialogue_is_idle(b) &&
         hf_dialogue_may_speak(a) == hf_dialogue_may_speak(b));
    MUST(a->pending == b->pending && a->syncs == b->syncs && a->due == b->due && a->skipping == b->skipping &&
         a->uncounted == b->uncounted &&
         a->wait_cancelled == b->wait_cancelled);
    MUST(a->client.broken == b->client.broken && a->server.broken == b->server.broken);
    MUST(a->key_known == b->key_known && a->pid == b->pid && a->key_len == b->key_len &&
         memcmp(a->key, b->key, a->key_len) == 0);
}

static void streams(struct input in)
{
    static struct hf_dialogue whole, pieces;
    size_t cut = input_byte(&in) % 9 + 1;

    hf_dialogue_init(&whole);
    hf_dialogue_init(&pieces);
    while (in.n > 0) {
        bool client = input_byte(&in) & 1;
        size_t n = in.n < PIECE ? in.n : PIECE;
        feed(&whole, client, in.p, n);
        for (size_t at = 0; at < n; at += cut)
            feed(&pieces, client, in.p + at, n - at < cut ? n - at : cut);
        look(&whole);
        same(&whole, &pieces);
        in.p += n;
        in.n -= n;
    }
}

/* The key that PostgreSQL gave is found by the cancel request that carries it, and by no other. */
static void cancel(const uint8_t *key, size_t n)
{
    uint8_t packet[12 + HF_CANCEL_KEY_MAX + 1] = {0, 0, 0, 0, 0x04, 0xd2, 0x16, 0x2e, 0, 0, 0, 9};
    const struct hf_key_place place = {.reader = true, .far = 3};
    struct hf_key_place found;
    struct hf_secret secret;
    struct hf_keyring ring;
    struct hf_startup s;
    struct hf_key *added;

    if (n > HF_CANCEL_KEY_MAX + 1)
        n = HF_CANCEL_KEY_MAX + 1;
    hf_scan_put(packet, (uint32_t)(12 + n));
    memcpy(packet + 12, key, n);
    s = hf_startup_parse(packet, 12 + n);
    MUST((s.kind == HF_STARTUP_CANCEL) == (n >= HF_CANCEL_KEY_MIN && n <= HF_CANCEL_KEY_MAX));
    if (s.kind != HF_STARTUP_CANCEL)
        return;
    secret = hf_secret_make(s.pid, s.key, s.key_len);
    MUST(secret.pid == 9 && secret.len == n && memcmp(secret.bytes, key, n) == 0);
    MUST(hf_keyring_open(&ring) == 0 && (added = hf_key_add(&ring, &secret, &place)) != NULL);
    MUST(hf_key_find(&ring, &secret, &found) && found.far == 3);
    secret.bytes[n - 1] ^= 1;
    MUST(!hf_key_find(&ring, &secret, &found));
    hf_key_remove(&ring, added);
    hf_keyring_close(&ring);
}

static void answer(const uint8_t *p, size_t n)
{
    char kind, verifier[64];
    uint8_t again[128];
    uint32_t version;
    uint64_t stamp;

    if (!hf_wire_answer_parse(p, n, &kind, &version, &stamp, verifier, sizeof verifier))
        return;
    MUST(strlen(verifier) < sizeof verifier);
    MUST(hf_wire_answer(again, kind, version, stamp, verifier) == n &&
         memcmp(again + 5, p + 5, n - 5) == 0);
}

static void messages(struct input in)
{
    char state[6] = "", *block;
    struct hf_startup s;
    uint8_t *out;
    size_t n, len;

    block = input_block(&in, -1, &n);
    if (hf_wire_sqlstate((uint8_t *)block, n, state))
        MUST(strlen(state) <= 5 && memmem(block, n, state, strlen(state)) != NULL);
    cancel((uint8_t *)block, n);
    answer((uint8_t *)block, n);
    if (n >= 5)
        MUST(hf_wire_length((uint8_t *)block) >= 1);
    s = hf_startup_parse((uint8_t *)block, n);
    if (s.kind == HF_STARTUP_SESSION) {
        MUST(hf_startup_value((uint8_t *)block, s.len, "user") != NULL);
        out = malloc(s.len + 32);
        MUST(out != NULL);
        len = hf_wire_negotiate(out, (uint8_t *)block, s.len, 0);
        MUST(len <= s.len + 32 && (len == 0 || hf_wire_length(out) == len));
        free(out);
    }
    free(block);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    streams((struct input){data, size});
    messages((struct input){data, size});
    return 0;
}
