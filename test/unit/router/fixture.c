#include "fixture.h"

#include <errno.h>
#include <netinet/in.h>
#include <poll.h>
#include <stdio.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <unistd.h>

#include <openssl/evp.h>
#include <openssl/hmac.h>
#include <openssl/sha.h>

#include "base/file.h"
#include "base/net.h"
#include "router/asker.h"
#include "router/link.h"
#include "router/login.h"
#include "router/survive.h"

enum { STEP_MS = 2 };

/* -- what PostgreSQL knows, in place of router/asker.c --------------------------------------- */

struct world world;
static struct fixture *current;

static void world_begin(void)
{
    uint8_t salted[HF_SCRAM_KEY];
    unsigned n;

    world = (struct world){.kind = HF_ROLE_SCRAM, .version = 150000, .stamp = 7, .verifier = {.iterations = 16, .salt = "salt", .salt_len = 4}};
    assert_int_equal(PKCS5_PBKDF2_HMAC("secret", 6, world.verifier.salt, 4, 16, EVP_sha256(), HF_SCRAM_KEY, salted), 1);
    assert_non_null(HMAC(EVP_sha256(), salted, HF_SCRAM_KEY, (const uint8_t *)"Client Key", 10, world.keys.client, &n));
    assert_non_null(HMAC(EVP_sha256(), salted, HF_SCRAM_KEY, (const uint8_t *)"Server Key", 10, world.keys.server, &n));
    (void)SHA256(world.keys.client, HF_SCRAM_KEY, world.verifier.stored_key);
    memcpy(world.verifier.server_key, world.keys.server, HF_SCRAM_KEY);
}

int hf_asker_open(struct hf_asker **out, struct hf_router *r, const char *socket_dir)
{
    (void)socket_dir;
    *out = (struct hf_asker *)r; /* not used */
    return 0;
}

void hf_asker_stop(struct hf_asker *a)
{
    (void)a;
}

void hf_asker_close(struct hf_asker *a)
{
    (void)a;
}

void hf_asker_prepare(struct hf_asker *a)
{
    (void)a;
}

void hf_asker_secret(struct hf_asker *a, const uint8_t secret[HF_SCRAM_KEY])
{
    (void)a;
    (void)secret;
}

/* PostgreSQL's WAL, in place of router/link_lsn.c: applied here, flushed here. */
bool hf_link_lsn(struct hf_link *l, const char *sql, uint64_t *lsn)
{
    (void)l;
    atomic_fetch_add(&world.looks, 1);
    while (atomic_load(&world.slow))
        (void)poll(NULL, 0, STEP_MS);
    *lsn = strstr(sql, "replay") != NULL ? atomic_load(&world.applied) : atomic_load(&world.flushed);
    return *lsn != 0;
}

void hf_asker_ask(struct hf_asker *a, struct hf_question *q)
{
    static const uint8_t secret[HF_SCRAM_KEY] = "s";
    struct hf_scram_verifier v = world.verifier;

    (void)a;
    world.opening = q->opening;
    q->role = (struct hf_role){.kind = strcmp(q->name, "app") == 0 ? world.kind : HF_ROLE_UNKNOWN,
                               .server_version = world.version, .stamp = world.stamp};
    if (q->role.kind != HF_ROLE_SCRAM)
        hf_scram_verifier_mock(&v, secret, q->name, 16);
    hf_scram_verifier_print(&v, q->role.verifier);
    q->answered = !world.mute;
    atomic_fetch_add(&world.questions, 1);
    hf_mailbox_post(q->t->mailbox, hf_login_answered, q);
}

/* -- a client's password --------------------------------------------------------------------- */

static ssize_t peek(const struct proving *p, uint8_t *b, size_t n)
{
    struct pollfd here = {.fd = p->fd, .events = POLLIN};
    size_t got;

    if (p->tls == NULL)
        return recv(p->fd, b, n, MSG_PEEK | MSG_DONTWAIT);
    if (SSL_pending(p->tls) == 0 && poll(&here, 1, 0) <= 0)
        return -1;
    return SSL_peek_ex(p->tls, b, n, &got) == 1 ? (ssize_t)got : -1;
}

static void take(const struct proving *p, uint8_t *b, size_t n)
{
    size_t got;

    if (p->tls == NULL)
        assert_int_equal(recv(p->fd, b, n, 0), n);
    else
        assert_true(SSL_read_ex(p->tls, b, n, &got) == 1 && got == n);
}

static void give(const struct proving *p, const uint8_t *b, size_t n)
{
    size_t put;

    if (p->tls == NULL)
        assert_int_equal(send(p->fd, b, n, MSG_NOSIGNAL), n);
    else
        assert_true(SSL_write_ex(p->tls, b, n, &put) == 1 && put == n);
}

/* Takes nothing but what belongs to the exchange. False: nothing more of it is there. */
static bool prove_step(struct proving *p)
{
    uint8_t b[HF_SASL_OUT_MAX + 16];
    char text[HF_SCRAM_MESSAGE_MAX];
    ssize_t got = peek(p, b, sizeof b);
    size_t len = got >= 9 ? 1 + ((size_t)b[3] << 8 | b[4]) : 0;

    if (got <= 0 || len < 9 || (size_t)got < len || b[0] != 'R' || b[8] < 10)
        return false;
    take(p, b, len);
    if (b[8] == 10) {
        hf_scram_client_first(&p->scram, "abcdefghijklmnopqrstuvwx", text);
        give(p, b, hf_sasl_initial(text, b));
    } else if (b[8] == 11) {
        assert_true(hf_scram_client_final(&p->scram, &world.keys, (const char *)b + 9, len - 9, text));
        give(p, b, hf_sasl_response(text, b));
    } else {
        assert_true(hf_scram_client_check(&p->scram, &world.keys, (const char *)b + 9, len - 9));
        p->fd = 0;
        return false;
    }
    return true;
}

static void prove_all(struct fixture *f)
{
    for (int i = 0; i < CLIENTS_MAX; i++)
        while (f->proving[i].fd != 0 && prove_step(&f->proving[i]))
            ;
}

void client_prove(struct fixture *f, int fd, SSL *tls)
{
    for (int i = 0; i < CLIENTS_MAX; i++)
        if (f->proving[i].fd == fd)
            f->proving[i].fd = 0; /* of a client before */
    for (int i = 0; i < CLIENTS_MAX; i++) {
        if (f->proving[i].fd != 0)
            continue;
        f->proving[i] = (struct proving){.fd = fd, .tls = tls};
        return;
    }
    fail_msg("too many clients at once");
}

static bool is_proving(const struct fixture *f, int fd)
{
    for (int i = 0; i < CLIENTS_MAX; i++)
        if (f->proving[i].fd == fd)
            return true;
    return false;
}

void client_proved(struct fixture *f, int fd)
{
    RUN_UNTIL(f, !is_proving(f, fd));
}

static void on_dial(void *ctx, struct hf_router_dial *d, int fd, enum hf_router_to to, uint64_t id)
{
    struct fixture *f = ctx;

    if (f->dial != NULL) { /* the last one is still being made: this one is not for the test */
        close(fd);
        hf_router_dialed(d, false, 0);
        return;
    }
    f->dial = d;
    f->dial_fd = fd;
    f->dial_to = to;
    f->dial_id = id;
    f->dials++;
}

static void on_drained(void *ctx)
{
    ((struct fixture *)ctx)->drained++;
}

static void on_shut(void *ctx)
{
    struct fixture *f = ctx;

    f->shut++;
    if (f->at_shut != NULL)
        f->at_shut(f);
}

static void on_readers_gone(void *ctx)
{
    ((struct fixture *)ctx)->readers_gone++;
}

static void on_read_ask(void *ctx, uint64_t seq)
{
    struct fixture *f = ctx;

    f->ask_seq = seq;
    f->asks++;
}

static void on_read_answer(void *ctx, uint64_t from, uint64_t epoch, uint64_t seq, uint64_t sent_ns, uint64_t lsn)
{
    struct fixture *f = ctx;

    assert_int_equal(from, 2);
    assert_int_equal(epoch, 1);
    assert_int_equal(sent_ns, 77);
    f->answer_seq = seq;
    f->answer_lsn = lsn;
    f->answers++;
}

struct fixture *fixture_open(unsigned hold_ms, unsigned login_ms, unsigned max_clients)
{
    return fixture_open_with(&(struct hf_router_config){
        .hold_ms = hold_ms, .login_ms = login_ms, .max_clients = max_clients});
}

struct fixture *fixture_open_with(const struct hf_router_config *wishes)
{
    struct fixture *f = current = calloc(1, sizeof *f);
    char path[128];
    struct hf_error err = {0};

    assert_non_null(f);
    world_begin();
    (void)snprintf(f->dir, sizeof f->dir, "/tmp/hf-router-XXXXXX");
    assert_non_null(mkdtemp(f->dir));
    (void)snprintf(path, sizeof path, "%s/.s.PGSQL.5432", f->dir);
    f->server = hf_net_listen_unix(path, 0600, &err);
    assert_true(f->server >= 0);
    f->dial_fd = -1;
    assert_int_equal(uv_loop_init(&f->loop), 0);
    {
        struct hf_router_config config = *wishes;
        struct hf_router_callbacks callbacks = {.ctx = f,
                                                .dial = on_dial,
                                                .on_drained = on_drained,
                                                .on_shut = on_shut,
                                                .on_readers_gone = on_readers_gone,
                                                .read_ask = on_read_ask,
                                                .read_answer = on_read_answer};
        config.sql = config.read_only = "127.0.0.1:0";
        config.socket_dir = f->dir;
        assert_int_equal(hf_router_open(&f->r, &f->loop, &config, &callbacks, &err), 0);
    }
    return f;
}

void fixture_close(struct fixture *f)
{
    hf_router_close(f->r);
    if (f->dial != NULL) {
        hf_router_dialed(f->dial, false, 0); /* late, as from a host that closes its peers after */
        close(f->dial_fd);
    }
    (void)uv_run(&f->loop, UV_RUN_DEFAULT);
    assert_int_equal(uv_loop_close(&f->loop), 0);
    close(f->server);
    assert_int_equal(hf_dir_remove(f->dir, NULL), 0);
    free(f);
}

void fixture_open_gate(struct fixture *f, uint64_t epoch)
{
    hf_router_leader(f->r, HF_LEADER_HERE, epoch);
    hf_router_lease(f->r, hf_clock_ns() + 60 * SECOND_NS);
    hf_router_gate_open(f->r, epoch);
}

void run_for(struct fixture *f, unsigned ms)
{
    uint64_t until = uv_hrtime() + ms * 1000000ull;

    do {
        (void)uv_run(&f->loop, UV_RUN_NOWAIT);
        prove_all(f);
        (void)poll(NULL, 0, STEP_MS);
    } while (uv_hrtime() < until);
}

void run_until(struct fixture *f, const unsigned *value, unsigned want)
{
    RUN_UNTIL(f, *value >= want);
}

void run_until_bytes(struct fixture *f, int fd, int n)
{
    int have = 0;

    RUN_UNTIL(f, ioctl(fd, FIONREAD, &have) == 0 && have >= n);
}

static bool readable(struct fixture *f, int fd, unsigned ms)
{
    uint64_t until = uv_hrtime() + ms * 1000000ull;
    struct pollfd p = {.fd = fd, .events = POLLIN};

    for (;;) {
        (void)uv_run(&f->loop, UV_RUN_NOWAIT);
        prove_all(f);
        if (poll(&p, 1, STEP_MS) > 0)
            return true;
        if (uv_hrtime() >= until)
            return false;
    }
}

int client_connect(struct fixture *f, bool read_only)
{
    struct sockaddr_in sa;
    socklen_t len = sizeof sa;
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);

    assert_true(fd >= 0);
    assert_int_equal(
        getsockname(f->r->ports[read_only ? 1 : 0].listener.fd, (struct sockaddr *)&sa, &len), 0);
    assert_int_equal(connect(fd, (struct sockaddr *)&sa, len), 0);
    return fd;
}

int client_start_silent(struct fixture *f, bool read_only)
{
    static const char hello[] = "\0\0\0\x12\0\3\0\0user\0app\0";
    int fd = client_connect(f, read_only);

    assert_int_equal(send(fd, hello, sizeof hello, MSG_NOSIGNAL), sizeof hello);
    return fd;
}

int client_start(struct fixture *f, bool read_only)
{
    int fd = client_start_silent(f, read_only);

    client_prove(f, fd, NULL);
    return fd;
}

bool server_is_asked(struct fixture *f, unsigned ms)
{
    return readable(f, f->server, ms);
}

static size_t read_all(struct fixture *f, int fd, void *out, size_t n)
{
    size_t got = 0;

    while (got < n) {
        ssize_t rv;
        if (!readable(f, fd, PATIENCE_MS))
            break;
        rv = recv(fd, (char *)out + got, n - got, 0);
        if (rv <= 0)
            break;
        got += (size_t)rv;
    }
    return got;
}

int server_accept(struct fixture *f)
{
    uint8_t b[4096];
    size_t len;
    int fd;

    assert_true(readable(f, f->server, PATIENCE_MS));
    fd = accept(f->server, NULL, NULL);
    assert_true(fd >= 0);
    assert_int_equal(read_all(f, fd, b, 4), 4);
    len = (size_t)b[2] << 8 | b[3];
    assert_true(len >= 8 && len < sizeof b);
    assert_int_equal(read_all(f, fd, b + 4, len - 4), len - 4);
    if (f->arg != NULL) /* somebody wants to see it */
        memcpy(f->arg, b, len);
    return fd;
}

void say(int fd, char type, const char *body, size_t n)
{
    char b[1024];

    b[0] = type;
    b[1] = b[2] = 0;
    b[3] = (char)((n + 4) >> 8);
    b[4] = (char)(n + 4);
    memcpy(b + 5, body, n);
    assert_int_equal(send(fd, b, n + 5, MSG_NOSIGNAL), n + 5);
}

void say_ready(int fd, char status)
{
    say(fd, 'Z', &status, 1);
}

/* One message of the router's. */
static size_t hear_router(int fd, uint8_t b[HF_SASL_IN_MAX])
{
    size_t need;

    assert_int_equal(read_all(current, fd, b, 5), 5);
    need = hf_sasl_need(b, 5);
    assert_true(need >= 5);
    assert_int_equal(read_all(current, fd, b + 5, need - 5), need - 5);
    return need;
}

void server_check(int fd)
{
    struct hf_sasl s;
    uint8_t b[HF_SASL_IN_MAX], out[HF_SASL_OUT_MAX];
    size_t n = hf_sasl_begin(&s, &world.verifier, false, NULL, 0, out);
    enum hf_scram_verdict v = HF_SCRAM_GOES_ON;

    world.said = 0;
    while (v == HF_SCRAM_GOES_ON) {
        size_t got;
        assert_int_equal(send(fd, out, n, MSG_NOSIGNAL), n);
        world.said += got = hear_router(fd, b);
        v = hf_sasl_hear(&s, b, got, "ABCDEFGHIJKLMNOPQRSTUVWX", out, &n);
    }
    assert_int_equal(v, HF_SCRAM_RIGHT);
    assert_int_equal(send(fd, out, n, MSG_NOSIGNAL), n);
}

void server_log_in(int fd)
{
    server_check(fd);
    server_welcome(fd);
}

void leader_tell(struct fixture *f, int fd)
{
    uint8_t b[8 + HF_ROLE_MAX + HF_SCRAM_VERIFIER_MAX + 32];
    char verifier[HF_SCRAM_VERIFIER_MAX];
    size_t n;

    assert_int_equal(read_all(f, fd, b, 12), 12);
    assert_memory_equal(b + 8, "app", 4);
    hf_scram_verifier_print(&world.verifier, verifier);
    n = hf_wire_answer(b, HF_ROLE_SCRAM, world.version, world.stamp, verifier);
    assert_int_equal(send(fd, b, n, MSG_NOSIGNAL), n);
}

void server_welcome(int fd)
{
    say(fd, 'R', "\0\0\0\0", 4);
    say(fd, 'K', "\0\0\1\2\1\2\3\4", 8);
    if (world.guard != NULL)
        say_held(fd, world.guard);
    say_ready(fd, 'I');
}

void say_held(int fd, const char *what)
{
    char body[256] = HF_HOLDS_PARAMETER;
    size_t at = sizeof HF_HOLDS_PARAMETER, n = strlen(what) + 1;

    memcpy(body + at, what, n);
    say(fd, 'S', body, at + n);
}

int hear(struct fixture *f, int fd, unsigned ms, char *body, size_t cap)
{
    uint8_t head[5];
    char sink[4096];
    size_t n;

    if (!readable(f, fd, ms))
        return -1;
    if (read_all(f, fd, head, 5) < 5)
        return 0;
    n = ((size_t)head[3] << 8 | head[4]) - 4;
    assert_true(n < sizeof sink);
    assert_int_equal(read_all(f, fd, sink, n), n);
    if (body != NULL)
        memcpy(body, sink, n < cap ? n : cap);
    return head[0];
}

void hear_end(struct fixture *f, int fd)
{
    char c;

    assert_true(readable(f, fd, PATIENCE_MS));
    assert_true(recv(fd, &c, 1, 0) <= 0);
}

void hear_error(struct fixture *f, int fd, const char *sqlstate)
{
    char body[1024] = {0};

    assert_int_equal(hear(f, fd, PATIENCE_MS, body, sizeof body), 'E');
    assert_memory_equal(body, "SFATAL\0VFATAL\0C", 15);
    body[20] = '\0';
    assert_string_equal(body + 15, sqlstate);
    /* The end, not a reset: over a network that could take our answer with it. */
    assert_true(readable(f, fd, PATIENCE_MS));
    assert_int_equal(recv(fd, body, 1, 0), 0);
}

void hear_nothing(struct fixture *f, int fd, unsigned ms)
{
    assert_false(readable(f, fd, ms));
}

void hear_ready(struct fixture *f, int fd, char status)
{
    char body[64];
    int type;

    while ((type = hear(f, fd, PATIENCE_MS, body, sizeof body)) > 0 && type != 'Z')
        ;
    assert_int_equal(type, 'Z');
    assert_int_equal(body[0], status);
}

int session_open(struct fixture *f, int *server)
{
    int fd = client_start(f, false);

    *server = server_accept(f);
    server_log_in(*server);
    hear_ready(f, fd, 'I');
    return fd;
}
