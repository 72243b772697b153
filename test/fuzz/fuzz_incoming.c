/* What comes on a connection that another node dialed: the same messages however the bytes are cut,
 * and none after the cut for what is no message. And death tokens: only one that was given out lets
 * anybody off, and only once. */
#include "input.h"

#include "../../src/peer/incoming.c"

enum { SEEN_MAX = 64 };

static struct hf_peer peer;
static unsigned n_messages, n_down, n_proofs;
static uint64_t sum;

/* -- what incoming.c asks of others --------------------------------------------------------------
 */

void uv_close(uv_handle_t *h, uv_close_cb cb)
{
    (void)h;
    (void)cb;
}

int uv_read_start(uv_stream_t *s, uv_alloc_cb a, uv_read_cb r)
{
    (void)s;
    (void)a;
    (void)r;
    return 0;
}

int uv_try_write(uv_stream_t *s, const uv_buf_t bufs[], unsigned n)
{
    (void)s;
    MUST(n == 1 && bufs[0].len == HF_DEATH_TOKEN_BYTES);
    return (int)bufs[0].len;
}

uv_buf_t uv_buf_init(char *base, unsigned len)
{
    return (uv_buf_t){.base = base, .len = len};
}

bool hf_peer_pair(int fds[2])
{
    fds[0] = fds[1] = -1;
    return true;
}

uv_pipe_t *hf_peer_pipe(struct hf_peer *p, int fd)
{
    static uv_pipe_t pipe;

    (void)p;
    (void)fd;
    return &pipe;
}

void hf_peer_pipe_freed(uv_handle_t *h)
{
    (void)h;
}

void hf_peer_read_alloc(uv_handle_t *h, size_t n, uv_buf_t *buf)
{
    (void)h;
    (void)n;
    (void)buf;
}

void hf_gone_probe(struct hf_peer *p, const struct hf_peer_identity *who)
{
    (void)p;
    (void)who;
}

void hf_tunnel_accept(struct hf_tunnel *t, int fd, const struct hf_wal_terms *terms)
{
    (void)t;
    (void)fd;
    (void)terms;
}

void hf_tunnel_refuse(struct hf_tunnel *t, const char *text)
{
    (void)t;
    (void)text;
}

void hf_log(enum hf_log_level level, const char *fmt, ...)
{
    (void)level;
    (void)fmt;
}

/* -- the test -----------------------------------------------------------------------------------
 */

static void on_message(void *ctx, const struct hf_peer_identity *from, const struct hf_msg *m)
{
    uint8_t bytes[HF_MSG_BYTES_MAX];
    size_t n = hf_msg_encode(m, bytes);

    (void)ctx;
    MUST(n > 0 && strcmp(from->name, "demo-1") == 0 && n_down == 0);
    n_messages++;
    for (size_t i = 0; i < n; i++)
        sum = (sum ^ bytes[i]) * 1099511628211u;
}

static void on_down(void *ctx, hf_node_id id, const char *name, bool proof)
{
    (void)ctx;
    MUST(id == 2 && strcmp(name, "demo-1") == 0);
    n_down++;
    n_proofs += proof;
}

static void take(void)
{
    const struct hf_peer_identity from = {.id = 2, .name = "demo-1"};

    memset(peer.in, 0, sizeof peer.in);
    memset(peer.tokens, 0, sizeof peer.tokens);
    peer.next_token = 0;
    peer.callbacks = (struct hf_peer_callbacks){.on_message = on_message, .on_down = on_down};
    hf_incoming_take(&peer, &from, NULL);
    n_messages = n_down = n_proofs = 0;
    sum = 0;
}

static void feed(const uint8_t *data, size_t size, size_t piece)
{
    uv_pipe_t *pipe = peer.in[0].pipe;

    for (size_t at = 0; at < size && peer.in[0].used; at += piece) {
        size_t n = size - at < piece ? size - at : piece;
        char *block = malloc(n);
        const uv_buf_t buf = {.base = block, .len = n};
        MUST(block != NULL);
        memcpy(block, data + at, n);
        in_read_cb((uv_stream_t *)pipe, (ssize_t)n, &buf);
        free(block);
    }
    MUST(peer.in[0].have <= sizeof peer.in[0].buf && peer.in[0].used == (n_down == 0));
}

static void tokens(const uint8_t *data, size_t size)
{
    uint8_t bytes[HF_DEATH_TOKEN_BYTES] = {0};
    bool right;

    take();
    memcpy(bytes, peer.tokens[0].bytes, sizeof bytes);
    for (size_t i = 0; i < size && i < sizeof bytes; i++)
        bytes[i] ^= data[i];
    right = memcmp(bytes, peer.tokens[0].bytes, sizeof bytes) == 0;
    hf_incoming_token(&peer, bytes);
    hf_incoming_token(&peer, bytes);
    MUST(n_proofs == right && n_down == n_proofs);
    take(); /* it has connected anew: the former token is worth nothing */
    hf_incoming_token(&peer, bytes);
    MUST(n_proofs == 0);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    unsigned messages, down;
    uint64_t whole;

    take();
    feed(data, size, size > 0 ? size : 1);
    messages = n_messages;
    down = n_down;
    whole = sum;
    take();
    feed(data, size, size > 0 ? 1 + data[0] % 7 : 1);
    MUST(messages == n_messages && down == n_down && whole == sum);
    tokens(data, size);
    return 0;
}
