/* The first bytes between two nodes, as TLS hands them out: the frame is taken to its last byte and
 * no further, and what is understood as a hello is what the same words build again. The input: how
 * TLS cuts, then the stream. */
#include "input.h"

#include <sys/socket.h>

#include "../../src/peer/hello.c"

static struct input stream;
static unsigned cut;
static struct hf_pumps owner;
static struct hf_pump pump = {.owner = &owner};

/* -- what hello.c asks of others ----------------------------------------------------------------
 */

int SSL_read(SSL *ssl, void *to, int n)
{
    size_t most = (size_t)n < cut + 1 ? (size_t)n : cut + 1;

    (void)ssl;
    MUST(n > 0);
    return (int)input_take(&stream, to, most);
}

int SSL_write(SSL *ssl, const void *from, int n)
{
    (void)ssl;
    (void)from;
    MUST(n > 0);
    return n < (int)cut + 1 ? n : (int)cut + 1;
}

void ERR_clear_error(void)
{
}

bool hf_conn_tls_wait(struct conn *c, int rv)
{
    (void)c;
    (void)rv;
    return true;
}

void hf_conn_close(struct conn *c, int status, const char *text)
{
    MUST(status < 0 && text != NULL);
    c->state = CONN_CLOSED;
}

bool hf_tls_peer_is(const struct hf_tls *t, SSL *ssl, const char *name)
{
    (void)t;
    (void)ssl;
    return name[0] != 'x';
}

bool hf_net_is_loopback(const struct sockaddr *sa)
{
    (void)sa;
    return false;
}

void uv_mutex_lock(uv_mutex_t *m)
{
    (void)m;
}

void uv_mutex_unlock(uv_mutex_t *m)
{
    (void)m;
}

/* -- the test -----------------------------------------------------------------------------------
 */

/* The same hello from the one who said it. */
static void build_again(const struct conn *c, const uint8_t *payload, size_t len)
{
    static struct conn again;

    again = (struct conn){.pump = &pump, .fd = c->fd, .purpose = c->purpose, .payload_len = len};
    memcpy(again.payload, payload, len);
    owner.self = c->from;
    strcpy(owner.name, c->from.name);
    owner.local = (c->frame[5] & OFFER_BARE) != 0;
    hf_hello_build(&again);
    MUST(again.frame_len == c->frame_len && memcmp(again.frame, c->frame, c->frame_len) == 0);
    MUST(hf_frame_out(&again) == 1 || again.frame_at > 0);
}

static void hear(struct conn *c)
{
    const uint8_t *payload;
    char text[256];
    size_t len;

    (void)hf_answer_read(c);
    owner.local = true;
    memset(&owner.self, 7, sizeof owner.self);
    strcpy(owner.name, "demo-0");
    if (!hf_hello_read(c, &payload, &len))
        return;
    MUST(strlen(c->from.name) > 0 && strlen(c->from.name) < HF_NAME_MAX);
    MUST(len <= HF_PAYLOAD_MAX && payload + len == c->frame + c->frame_len);
    MUST(c->purpose >= HF_PURPOSE_CONTROL && c->purpose <= HF_PURPOSE_ADMIN);
    if (hf_hello_stranger(c, text, sizeof text) != NULL)
        MUST(text[0] != '\0' && strlen(text) < sizeof text);
    build_again(c, payload, len);
    hf_answer_build(c, false, c->from.name);
    MUST(c->frame_len <= 5 + 200 && !hf_answer_read(c));
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static int ends[2] = {-1, -1};
    static struct conn c;
    int rv = 0;

    if (ends[0] < 0)
        MUST(socketpair(AF_UNIX, SOCK_STREAM, 0, ends) == 0);
    stream = (struct input){data, size};
    cut = input_byte(&stream);
    size = stream.n;
    c = (struct conn){.pump = &pump, .fd = ends[0]};
    while (rv == 0 && stream.n > 0)
        rv = hf_frame_in(&c);
    MUST(c.frame_len <= sizeof c.frame && c.frame_len == size - stream.n);
    MUST((rv < 0) == (c.state == CONN_CLOSED));
    if (rv != 1)
        return 0;
    MUST(c.frame_len == 4 + get(c.frame, 4));
    hear(&c);
    return 0;
}
