#include "fixture.h"

#include <errno.h>
#include <netinet/in.h>
#include <poll.h>
#include <stdio.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/file.h"
#include "base/net.h"

enum { PATIENCE_MS = 5000, STEP_MS = 2 };

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

struct fixture *fixture_open(unsigned hold_ms, unsigned login_ms, unsigned max_clients)
{
    return fixture_open_with(&(struct hf_router_config){
        .hold_ms = hold_ms, .login_ms = login_ms, .max_clients = max_clients});
}

struct fixture *fixture_open_with(const struct hf_router_config *wishes)
{
    struct fixture *f = calloc(1, sizeof *f);
    char path[128];
    struct hf_error err = {0};

    assert_non_null(f);
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
                                                .on_readers_gone = on_readers_gone};
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
        getsockname(f->r->listeners[read_only ? 1 : 0].fd, (struct sockaddr *)&sa, &len), 0);
    assert_int_equal(connect(fd, (struct sockaddr *)&sa, len), 0);
    return fd;
}

int client_start(struct fixture *f, bool read_only)
{
    static const char hello[] = "\0\0\0\x12\0\3\0\0user\0app\0";
    int fd = client_connect(f, read_only);

    assert_int_equal(send(fd, hello, sizeof hello, MSG_NOSIGNAL), sizeof hello);
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

void server_log_in(int fd)
{
    say(fd, 'R', "\0\0\0\0", 4);
    say(fd, 'K', "\0\0\1\2\1\2\3\4", 8);
    say_ready(fd, 'I');
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
