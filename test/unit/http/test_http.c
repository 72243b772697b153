/* The operations port among people who hold connections: a probe is answered all the same. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <arpa/inet.h>
#include <errno.h>
#include <netinet/in.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "http/connections.h"
#include "http/http.h"

enum { HELD_MAX = 256, PORT_FIRST = 21840, PORTS = 100, ANSWER_MAX = 1024, PROBE_MS = 1000, STEP_MS = 5 };

#define GET "GET /livez HTTP/1.1\r\nHost: x\r\n\r\n"

static struct {
    uv_loop_t loop;
    struct hf_http *http;
    unsigned port;
    int held[HELD_MAX];
    unsigned n;
} t;

static void say_yes(void *ctx, const char *path, const char *max_lag, struct hf_http_answer *answer)
{
    (void)ctx;
    (void)path;
    (void)max_lag;
    *answer = (struct hf_http_answer){.status = 200, .type = "text/plain", .text = strdup("yes\n")};
}

static int open_port(void **s)
{
    char listen[32];
    struct hf_error err;
    int rv = HF_EBUSY;

    (void)s;
    memset(&t, 0, sizeof t);
    if (uv_loop_init(&t.loop) != 0)
        return -1;
    for (unsigned i = 0; i < PORTS && rv == HF_EBUSY; i++) {
        t.port = PORT_FIRST + ((unsigned)getpid() + i) % PORTS;
        (void)snprintf(listen, sizeof listen, "0.0.0.0:%u", t.port);
        rv = hf_http_open(&t.http, &t.loop, listen, say_yes, NULL, &err);
    }
    return rv;
}

static int close_port(void **s)
{
    (void)s;
    for (unsigned i = 0; i < t.n; i++)
        close(t.held[i]);
    hf_http_close(t.http);
    (void)uv_run(&t.loop, UV_RUN_DEFAULT);
    return uv_loop_close(&t.loop);
}

static int connect_from(const char *address)
{
    struct sockaddr_in from = {.sin_family = AF_INET}, to = {.sin_family = AF_INET, .sin_port = htons((uint16_t)t.port)};
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);

    assert_true(fd >= 0);
    assert_int_equal(inet_pton(AF_INET, address, &from.sin_addr), 1);
    to.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    assert_int_equal(bind(fd, (struct sockaddr *)&from, sizeof from), 0);
    assert_int_equal(connect(fd, (struct sockaddr *)&to, sizeof to), 0);
    return fd;
}

static void hold(const char *address, unsigned n)
{
    for (unsigned i = 0; i < n; i++) {
        assert_true(t.n < HELD_MAX);
        t.held[t.n] = connect_from(address);
        assert_int_equal(send(t.held[t.n++], "G", 1, MSG_NOSIGNAL), 1);
    }
}

/* Until the other side ends it; the loop turns meanwhile. */
static bool read_to_end(int fd, char answer[ANSWER_MAX])
{
    size_t got = 0;

    for (unsigned waited = 0; waited < PROBE_MS; waited += STEP_MS) {
        struct pollfd p = {.fd = fd, .events = POLLIN};
        ssize_t n;
        (void)uv_run(&t.loop, UV_RUN_NOWAIT);
        if (poll(&p, 1, STEP_MS) == 0)
            continue;
        n = recv(fd, answer + got, ANSWER_MAX - 1 - got, MSG_DONTWAIT);
        if (n > 0)
            got += (size_t)n;
        answer[got] = '\0';
        if (n == 0)
            return true;
    }
    return false;
}

static void probe(const char *address)
{
    char answer[ANSWER_MAX] = "";
    int fd = connect_from(address);

    assert_int_equal(send(fd, GET, strlen(GET), MSG_NOSIGNAL), strlen(GET));
    assert_true(read_to_end(fd, answer)); /* one question for each connection */
    assert_non_null(strstr(answer, "200 OK"));
    assert_non_null(strstr(answer, "Connection: close"));
    close(fd);
}

static unsigned left(void)
{
    unsigned n = 0;

    for (unsigned i = 0; i < t.n; i++) {
        char c;
        n += recv(t.held[i], &c, 1, MSG_DONTWAIT) < 0 && (errno == EAGAIN || errno == EWOULDBLOCK);
    }
    return n;
}

static void from_one_address(void **s)
{
    (void)s;
    hold("127.0.0.1", 80);
    probe("127.0.0.2");
    probe("127.0.0.1"); /* the kubelet may be behind the very address */
    assert_in_range(left(), 1, HF_HTTP_ADDRESS_MAX);
}

static void from_many_addresses(void **s)
{
    char address[32];

    (void)s;
    for (unsigned i = 0; i < 20; i++) {
        (void)snprintf(address, sizeof address, "127.0.1.%u", i + 1);
        hold(address, 10);
    }
    probe("127.0.0.2");
    assert_in_range(left(), 1, HF_HTTP_CONNECTIONS_MAX);
}

static bool has_ended(int fd)
{
    char c;

    return recv(fd, &c, 1, MSG_DONTWAIT) == 0;
}

/* However often it says something. */
static void none_lasts_for_ever(void **s)
{
    static struct hf_http_connections c;
    const uint64_t s_ns = 1000000000ull, begun = 5 * s_ns;
    int old[2], young[2];

    (void)s;
    assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM, 0, old), 0);
    assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM, 0, young), 0);
    hf_http_connections_init(&c);
    hf_http_connections_came(&c, old[0], NULL, begun);
    hf_http_connections_came(&c, young[0], NULL, begun + s_ns);
    hf_http_connections_age(&c, begun + HF_HTTP_WHOLE_S * s_ns - 1);
    assert_false(has_ended(old[1]));
    hf_http_connections_age(&c, begun + HF_HTTP_WHOLE_S * s_ns);
    assert_true(has_ended(old[1]));
    assert_false(has_ended(young[1]));
    hf_http_connections_gone(&c, old[0]);
    assert_int_equal(c.n, 1);
    assert_int_equal(c.list[0].fd, young[0]);
    hf_http_connections_gone(&c, young[0]);
    assert_int_equal(c.n, 0);
    hf_http_connections_destroy(&c);
    for (unsigned i = 0; i < 2; i++) {
        close(old[i]);
        close(young[i]);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(from_one_address, open_port, close_port),
        cmocka_unit_test_setup_teardown(from_many_addresses, open_port, close_port),
        cmocka_unit_test(none_lasts_for_ever),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
