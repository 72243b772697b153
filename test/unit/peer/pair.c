#include "pair.h"

#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>

#include "base/cert.h"
#include "base/file.h"

enum { TICK_MS = 2, PEERS_MAX = 256 };

static char root[64];
/* hf_peer_close() leaves the struct to the end of the process: no leak. */
static struct hf_peer *opened[PEERS_MAX];
static unsigned n_opened;

/* -- certificates ------------------------------------------------------------------------------------ */

const char *test_dir(const char *sub)
{
    static char text[8][128];
    static unsigned next;
    char *t = text[next++ % 8];

    (void)snprintf(t, sizeof text[0], "%s/%s", root, sub);
    return t;
}

static void make_node(const char *ca, const char *out, const char *name)
{
    struct hf_error err = {0};

    assert_int_equal(hf_dir_make(test_dir(out), 0700, &err), 0);
    assert_int_equal(hf_cert_make_node(test_dir(ca), test_dir(out), &name, 1, &err), 0);
}

static void copy(const char *from, const char *to)
{
    struct hf_error err = {0};
    char *data;
    size_t len;

    assert_int_equal(hf_file_read(test_dir(from), 65536, &data, &len, &err), 0);
    assert_int_equal(hf_file_write(test_dir(to), data, len, 0600, &err), 0);
    free(data);
}

int certificates_make(void **state)
{
    struct hf_error err = {0};

    (void)state;
    (void)signal(SIGPIPE, SIG_IGN); /* as in the node */
    (void)snprintf(root, sizeof root, "/tmp/hf-peer-XXXXXX");
    assert_non_null(mkdtemp(root));
    assert_int_equal(hf_dir_make(test_dir("ca"), 0700, &err), 0);
    assert_int_equal(hf_dir_make(test_dir("ca2"), 0700, &err), 0);
    assert_int_equal(hf_cert_make_ca(test_dir("ca"), "demo", &err), 0);
    assert_int_equal(hf_cert_make_ca(test_dir("ca2"), "demo", &err), 0);
    assert_int_equal(hf_dir_make(test_dir("tls"), 0700, &err), 0);
    make_node("ca", "tls/a", "a");
    make_node("ca", "tls/b", "b");
    make_node("ca", "tls/c", "c");
    make_node("ca2", "tls/foreign", "a");
    make_node("ca2", "tls/forged", "a");
    copy("ca/ca.crt", "tls/forged/ca.crt");
    return 0;
}

int certificates_remove(void **state)
{
    struct hf_error err = {0};

    (void)state;
    return hf_dir_remove(root, &err);
}

/* -- nodes ------------------------------------------------------------------------------------------- */

static void on_message(void *ctx, const struct hf_peer_identity *from, const struct hf_msg *m)
{
    struct node *n = ctx;

    n->messages++;
    n->from = *from;
    n->last_seq = m->seq;
}

static void on_up(void *ctx, hf_node_id id, const char *name)
{
    (void)id;
    (void)name;
    ((struct node *)ctx)->ups++;
}

static void on_down(void *ctx, hf_node_id id, const char *name, bool proof)
{
    struct node *n = ctx;

    (void)id;
    (void)name;
    n->downs++;
    n->proofs += proof;
}

static void pair_of_sockets(int fds[2])
{
    assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0, fds), 0);
}

void answer_held(struct node *n, enum answer answer, const char *text)
{
    struct hf_tunnel *t = n->held;
    int fds[2];

    assert_non_null(t);
    n->held = NULL;
    if (answer == REFUSE) {
        hf_tunnel_refuse(t, text);
        return;
    }
    pair_of_sockets(fds);
    n->far = fds[0];
    hf_tunnel_accept(t, fds[1], &(struct hf_wal_terms){n->tag, n->member, n->begin});
}

static void on_tunnel(void *ctx, enum hf_purpose purpose, const struct hf_peer_identity *from,
                      const void *payload, size_t len, struct hf_tunnel *tunnel)
{
    struct node *n = ctx;

    n->tunnels++;
    n->purpose = purpose;
    n->from = *from;
    memcpy(n->payload, payload, len);
    n->payload_len = len;
    n->held = tunnel;
    if (n->answer != HOLD)
        answer_held(n, n->answer, "not today");
}

static void on_flushed(void *ctx, const struct hf_wal_word *word)
{
    struct node *n = ctx;

    n->flushes++;
    n->flushed_tag = word->tag;
    n->torn = word->torn;
    n->flushed = word->flushed;
    n->applied = word->applied;
}

static void on_wal_closed(void *ctx, hf_node_id id, uint64_t tag)
{
    struct node *n = ctx;

    (void)id;
    n->wal_closes++;
    n->flushed_tag = tag;
}

void free_address(char *addr, size_t cap)
{
    struct sockaddr_in sa = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    socklen_t len = sizeof sa;
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);

    assert_true(fd >= 0);
    assert_int_equal(bind(fd, (struct sockaddr *)&sa, sizeof sa), 0);
    assert_int_equal(getsockname(fd, (struct sockaddr *)&sa, &len), 0);
    close(fd);
    (void)snprintf(addr, cap, "127.0.0.1:%u", ntohs(sa.sin_port));
}

void node_open(struct pair *p, struct node *n, const char *name, const char *tls, bool local)
{
    struct hf_peer_callbacks cb = {.ctx = n,
                                   .on_message = on_message,
                                   .on_up = on_up,
                                   .on_down = on_down,
                                   .on_tunnel = on_tunnel,
                                   .on_flushed = on_flushed,
                                   .on_wal_closed = on_wal_closed};
    struct hf_peer_config config = {.tls_dir = test_dir(tls), .name = name, .local = local};
    struct hf_error err = {0};
    int rv = HF_EBUSY;

    memset(n, 0, sizeof *n);
    n->p = p;
    n->far = -1;
    (void)snprintf(n->name, sizeof n->name, "%s", name);
    for (int i = 0; i < 10 && rv == HF_EBUSY; i++) { /* another test may have taken the port meanwhile */
        free_address(n->addr, sizeof n->addr);
        config.listen = n->addr;
        rv = hf_peer_open(&n->peer, &p->loop, &config, &cb, &err);
    }
    assert_int_equal(rv, 0);
    assert_true(n_opened < PEERS_MAX);
    opened[n_opened++] = n->peer;
    n->self.id = (hf_node_id)name[0];
    n->self.system_id = 7;
    memset(&n->self.cluster_id, 0xc1, sizeof n->self.cluster_id);
    (void)snprintf(n->self.name, sizeof n->self.name, "%s", name);
    hf_peer_identify(n->peer, &n->self);
}

void node_close(struct node *n)
{
    if (n->peer != NULL)
        hf_peer_close(n->peer);
    n->peer = NULL;
}

static void tick_cb(uv_timer_t *timer)
{
    (void)timer; /* so that WAIT looks again */
}

struct pair *pair_open(bool local)
{
    struct pair *p = calloc(1, sizeof *p);

    assert_non_null(p);
    assert_int_equal(uv_loop_init(&p->loop), 0);
    (void)uv_timer_init(&p->loop, &p->tick);
    (void)uv_timer_start(&p->tick, tick_cb, TICK_MS, TICK_MS);
    node_open(p, &p->a, "a", "tls/a", local);
    node_open(p, &p->b, "b", "tls/b", local);
    return p;
}

void pair_close(struct pair *p)
{
    node_close(&p->a);
    node_close(&p->b);
    uv_close((uv_handle_t *)&p->tick, NULL);
    (void)uv_run(&p->loop, UV_RUN_DEFAULT);
    assert_int_equal(uv_loop_close(&p->loop), 0); /* every handle was closed */
    free(p);
}

/* -- tunnels ----------------------------------------------------------------------------------------- */

static void dial_opened(void *arg, int status, const char *text, const struct sockaddr *to, socklen_t len)
{
    struct dialed *d = arg;

    (void)to;
    (void)len;
    d->opened++;
    d->status = status;
    (void)snprintf(d->text, sizeof d->text, "%s", text);
}

static void dial_progress(void *arg, hf_lsn end, hf_lsn applied)
{
    struct dialed *d = arg;

    d->progresses++;
    d->end = end;
    d->applied = applied;
}

static void dial_closed(void *arg, bool wal_missing)
{
    struct dialed *d = arg;

    d->closed++;
    d->wal_missing = wal_missing;
}

int tunnel_dial_to(struct pair *p, const char *name, const char *addr, enum hf_purpose purpose,
                   struct dialed *d)
{
    struct hf_dial dial = {.arg = d, .opened = dial_opened, .progress = dial_progress, .closed = dial_closed};
    int fds[2];

    memset(d, 0, sizeof *d);
    pair_of_sockets(fds);
    hf_peer_dial(p->a.peer, name, addr, purpose, "hello", 5, fds[1], &dial);
    return fds[0];
}

int tunnel_dial(struct pair *p, enum hf_purpose purpose, struct dialed *d)
{
    return tunnel_dial_to(p, "b", p->b.addr, purpose, d);
}

void tunnel_open(struct pair *p, enum hf_purpose purpose, struct dialed *d, int *near, int *far)
{
    *near = tunnel_dial(p, purpose, d);
    WAIT(p, d->opened == 1);
    assert_int_equal(d->status, 0);
    *far = p->b.far;
    p->b.far = -1;
    assert_true(*far >= 0);
}

/* -- bytes ------------------------------------------------------------------------------------------- */

void pattern(uint8_t *out, size_t n, uint64_t at, uint8_t seed)
{
    for (size_t i = 0; i < n; i++)
        out[i] = (uint8_t)(((at + i) * 0x9e3779b97f4a7c15ull >> 40) ^ seed);
}

void say(int fd, const void *bytes, size_t n)
{
    assert_int_equal(send(fd, bytes, n, MSG_NOSIGNAL), n);
}

/* 1: bytes or the end, 0: nothing within ms. */
static int readable(struct pair *p, int fd, unsigned ms)
{
    uint64_t until = uv_hrtime() + ms * 1000000ull;
    struct pollfd f = {.fd = fd, .events = POLLIN};

    do {
        (void)uv_run(&p->loop, UV_RUN_NOWAIT);
        if (poll(&f, 1, 1) > 0)
            return 1;
    } while (uv_hrtime() < until);
    return 0;
}

void hear(struct pair *p, int fd, const void *bytes, size_t n)
{
    char got[4096];
    size_t have = 0;

    assert_true(n <= sizeof got);
    while (have < n) {
        ssize_t rv;
        assert_true(readable(p, fd, PATIENCE_MS));
        rv = recv(fd, got + have, n - have, 0);
        assert_true(rv > 0);
        have += (size_t)rv;
    }
    assert_memory_equal(got, bytes, n);
}

void hear_end(struct pair *p, int fd)
{
    char byte;
    ssize_t rv;

    assert_true(readable(p, fd, PATIENCE_MS));
    rv = recv(fd, &byte, 1, 0);
    assert_true(rv == 0 || (rv < 0 && errno == ECONNRESET));
}

void hear_nothing(struct pair *p, int fd)
{
    assert_false(readable(p, fd, QUIET_MS));
}
