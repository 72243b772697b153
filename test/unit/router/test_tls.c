/* TLS from clients. The test's client is blocking: the router's sessions are on threads of their own. */
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <sys/socket.h>
#include <unistd.h>

#include <openssl/ssl.h>

#include "base/cert.h"
#include "base/file.h"
#include "fixture.h"

static const char request[] = "\0\0\0\x08\x04\xd2\x16\x2f";
static const char hello[] = "\0\0\0\x12\0\3\0\0user\0app\0";

struct certificates {
    char dir[64];
    SSL_CTX *ctx; /* a client's that trusts them */
};

static void certificates_make(struct certificates *c)
{
    const char *names[] = {"demo-0", "localhost"};
    struct hf_error err = {0};
    char ca[128];

    (void)snprintf(c->dir, sizeof c->dir, "/tmp/hf-tls-XXXXXX");
    assert_non_null(mkdtemp(c->dir));
    assert_int_equal(hf_cert_make_ca(c->dir, "demo", &err), 0);
    assert_int_equal(hf_cert_make_node(c->dir, c->dir, names, 2, &err), 0);
    (void)snprintf(ca, sizeof ca, "%s/ca.crt", c->dir);
    c->ctx = SSL_CTX_new(TLS_client_method());
    assert_non_null(c->ctx);
    assert_int_equal(SSL_CTX_load_verify_locations(c->ctx, ca, NULL), 1);
    SSL_CTX_set_verify(c->ctx, SSL_VERIFY_PEER, NULL);
}

static void certificates_remove(struct certificates *c)
{
    SSL_CTX_free(c->ctx);
    assert_int_equal(hf_dir_remove(c->dir, NULL), 0);
}

static struct fixture *open_with(const struct certificates *c, enum hf_router_tls mode)
{
    return fixture_open_with(&(struct hf_router_config){.tls = mode, .tls_dir = c->dir, .login_ms = 2000});
}

static char ask(struct fixture *f, int fd)
{
    struct pollfd p = {.fd = fd, .events = POLLIN};
    char c = 0;

    assert_int_equal(send(fd, request, 8, MSG_NOSIGNAL), 8);
    for (int i = 0; i < 2500 && poll(&p, 1, 0) == 0; i++)
        run_for(f, 0);
    assert_int_equal(recv(fd, &c, 1, 0), 1);
    return c;
}

static SSL *shake(struct certificates *c, int fd)
{
    SSL *ssl = SSL_new(c->ctx);

    assert_non_null(ssl);
    assert_int_equal(SSL_set_fd(ssl, fd), 1);
    assert_int_equal(SSL_set1_host(ssl, "localhost"), 1);
    assert_int_equal(SSL_connect(ssl), 1);
    return ssl;
}

static void read_exactly(SSL *ssl, void *out, int n)
{
    for (int got = 0; got < n;) {
        int rv = SSL_read(ssl, (char *)out + got, n - got);
        assert_true(rv > 0);
        got += rv;
    }
}

/* Its type; its body in `body`. */
static char read_message(SSL *ssl, char *body, size_t cap)
{
    uint8_t head[5];
    size_t n;

    read_exactly(ssl, head, 5);
    n = ((size_t)head[3] << 8 | head[4]) - 4;
    assert_true(n < cap);
    read_exactly(ssl, body, (int)n);
    body[n] = '\0';
    return (char)head[0];
}

static void read_error(SSL *ssl, const char *sqlstate)
{
    char body[1024];

    assert_int_equal(read_message(ssl, body, sizeof body), 'E');
    body[20] = '\0';
    assert_string_equal(body + 15, sqlstate);
    assert_int_equal(SSL_read(ssl, body, 1), 0);
    assert_int_equal(SSL_get_error(ssl, 0), SSL_ERROR_ZERO_RETURN); /* a proper end, not a cut */
}

static void close_both(SSL *ssl, int fd)
{
    SSL_free(ssl);
    close(fd);
}

/* A session through TLS: small messages, an answer larger than sockets hold, a query as large. */
static void session(void **state)
{
    enum { BIG = 8 * 1024 * 1024, PIECE = 1000 };
    static uint8_t big[BIG], got[BIG];
    struct certificates c;
    struct fixture *f;
    char body[512];
    int fd, server;
    size_t sent = 0, received = 0;
    SSL *ssl;

    (void)state;
    certificates_make(&c);
    f = open_with(&c, HF_ROUTER_TLS_OFFERED);
    fixture_open_gate(f, 1);
    fd = client_connect(f, false);
    assert_int_equal(ask(f, fd), 'S');
    ssl = shake(&c, fd);
    assert_int_equal(SSL_write(ssl, hello, sizeof hello), sizeof hello);
    client_prove(f, fd, ssl);
    server = server_accept(f);
    server_log_in(server);
    while (read_message(ssl, body, sizeof body) != 'Z')
        ;
    assert_int_equal(hf_router_counts(f->r).tls, 1);

    for (size_t i = 0; i < BIG; i++)
        big[i] = (uint8_t)(i * 2654435761u >> 13);
    /* One DataRow of nearly all of it, while the client does not read: it must arrive whole and in order. */
    big[0] = 'D';
    big[1] = (BIG - 1) >> 24;
    big[2] = ((BIG - 1) >> 16) & 0xff;
    big[3] = ((BIG - 1) >> 8) & 0xff;
    big[4] = (BIG - 1) & 0xff;
    while (received < BIG) {
        if (sent < BIG) {
            ssize_t n = send(server, big + sent, BIG - sent, MSG_DONTWAIT | MSG_NOSIGNAL);
            sent += n > 0 ? (size_t)n : 0;
            if (n > 0)
                continue;
        }
        received += (size_t)SSL_read(ssl, got + received, PIECE + (int)(received % 7000));
        assert_true(received <= BIG);
    }
    assert_memory_equal(big, got, BIG);

    /* And up: a query in pieces that are no records' size. */
    say_ready(server, 'I');
    assert_int_equal(read_message(ssl, body, sizeof body), 'Z');
    big[0] = 'Q';
    for (sent = received = 0; received < BIG / 8;) {
        if (sent < BIG / 8) {
            int rv = SSL_write(ssl, big + sent, (int)(BIG / 8 - sent < 30000 ? BIG / 8 - sent : 30000));
            assert_true(rv > 0);
            sent += (size_t)rv;
        }
        while (received < BIG / 8) {
            ssize_t n = recv(server, got + received, BIG / 8 - received, sent < BIG / 8 ? MSG_DONTWAIT : 0);
            if (n <= 0)
                break;
            received += (size_t)n;
        }
    }
    assert_memory_equal(big, got, BIG / 8);
    close_both(ssl, fd);
    RUN_UNTIL(f, hf_router_counts(f->r).tls == 0);
    close(server);
    fixture_close(f);
    certificates_remove(&c);
}

/* A hand-over begins, the client speaks, and a look at whether it is idle for too long leaves what it says within OpenSSL, where the socket does
 * not tell of it. The next leader is asked at once all the same. */
static void spoken_in_a_hand_over(void **state)
{
    enum { IDLE_MS = 1000, LOOKED_MS = 1300, SOON_MS = 400 }; /* the next look is IDLE_MS after the first one */
    struct certificates c;
    struct fixture *f;
    char body[512];
    int fd, server;
    SSL *ssl;

    (void)state;
    certificates_make(&c);
    f = fixture_open_with(&(struct hf_router_config){.follow = true, .share = true, .tls = HF_ROUTER_TLS_OFFERED, .tls_dir = c.dir, .idle_ms = IDLE_MS});
    world.guard = "none";
    fixture_open_gate(f, 1);
    fd = client_connect(f, false);
    assert_int_equal(ask(f, fd), 'S');
    ssl = shake(&c, fd);
    assert_int_equal(SSL_write(ssl, hello, sizeof hello), sizeof hello);
    client_prove(f, fd, ssl);
    server = server_accept(f);
    server_log_in(server);
    while (read_message(ssl, body, sizeof body) != 'Z')
        ;
    hf_router_gate_drain(f->r);
    run_until(f, &f->drained, 1);
    assert_int_equal(SSL_write(ssl, "Q\0\0\0\x0dSELECT 1", 14), 14);
    run_for(f, LOOKED_MS);
    hf_router_gate_shut(f->r);
    run_until(f, &f->shut, 1);
    close(server);
    fixture_open_gate(f, 2);
    assert_true(server_is_asked(f, SOON_MS));
    server = server_accept(f);
    server_log_in(server);
    assert_int_equal(hear(f, server, PATIENCE_MS, body, sizeof body), 'Q');
    assert_string_equal(body, "SELECT 1");
    close_both(ssl, fd);
    close(server);
    fixture_close(f);
    certificates_remove(&c);
}

/* The router's end of a connection takes more before anybody reads. */
static void give_room(int fd)
{
    struct sockaddr_in mine, theirs;
    socklen_t len = sizeof mine;

    assert_int_equal(getsockname(fd, (struct sockaddr *)&mine, &len), 0);
    for (int other = 3; other < 1024; other++) {
        len = sizeof theirs;
        if (getpeername(other, (struct sockaddr *)&theirs, &len) == 0 && len == sizeof theirs && theirs.sin_port == mine.sin_port)
            assert_int_equal(setsockopt(other, SOL_SOCKET, SO_RCVBUF, &(int){1 << 20}, sizeof(int)), 0);
    }
}

/* A cancel ends the wait for a leader; what is behind the BEGIN that waits, in a record of its own, counts as come. And one that is read in
 * pieces, of which the last is not all of a record, is read to its end. */
static void cancel_what_waits(bool large)
{
    static char query[1 + 0xffef];
    static const char packet[] = "\0\0\0\x10\x04\xd2\x16\x2e";
    struct certificates c;
    struct fixture *f;
    char body[512], key[8];
    int fd, server, one;
    SSL *ssl;

    certificates_make(&c);
    f = fixture_open_with(&(struct hf_router_config){.follow = true, .share = true, .tls = HF_ROUTER_TLS_OFFERED, .tls_dir = c.dir});
    world.guard = "none";
    fixture_open_gate(f, 1);
    fd = client_connect(f, false);
    assert_int_equal(setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &(int){1}, sizeof(int)), 0);
    assert_int_equal(ask(f, fd), 'S');
    ssl = shake(&c, fd);
    assert_int_equal(SSL_write(ssl, hello, sizeof hello), sizeof hello);
    client_prove(f, fd, ssl);
    server = server_accept(f);
    server_log_in(server);
    while (read_message(ssl, body, sizeof body) != 'K')
        ;
    memcpy(key, body, sizeof key);
    while (read_message(ssl, body, sizeof body) != 'Z')
        ;
    hf_router_gate_shut(f->r);
    run_until(f, &f->shut, 1);
    close(server);
    if (large) {
        memset(query, ' ', sizeof query);
        memcpy(query, "Q\0\0\xff\xef", 5);
        query[sizeof query - 1] = '\0';
        give_room(fd);
        assert_int_equal(SSL_write(ssl, query, sizeof query), sizeof query);
        RUN_UNTIL(f, hf_router_counts(f->r).held == 1);
        run_for(f, 50); /* all of it is there */
    } else {
        assert_int_equal(SSL_write(ssl, "Q\0\0\0\x0a" "BEGIN", 11), 11);
        RUN_UNTIL(f, hf_router_counts(f->r).held == 1);
        assert_int_equal(SSL_write(ssl, "Q\0\0\0\x0b" "INSERT", 12), 12);
    }
    one = client_connect(f, false);
    assert_int_equal(send(one, packet, 8, MSG_NOSIGNAL), 8);
    assert_int_equal(send(one, key, sizeof key, MSG_NOSIGNAL), sizeof key);
    hear_end(f, one);
    close(one);
    assert_int_equal(read_message(ssl, body, sizeof body), 'E');
    assert_memory_equal(body + 15, "57014", 6);
    assert_int_equal(read_message(ssl, body, sizeof body), 'Z');
    assert_int_equal(body[0], large ? 'I' : 'E');
    close_both(ssl, fd);
    fixture_close(f);
    certificates_remove(&c);
}

static void cancelled(void **state)
{
    (void)state;
    cancel_what_waits(false);
    cancel_what_waits(true);
}

/* What somebody in between puts behind the request in the clear must not count as said through TLS. */
static void stuffing(void **state)
{
    char both[8 + sizeof hello];
    struct certificates c;
    struct fixture *f;
    char ch;
    int fd;

    (void)state;
    certificates_make(&c);
    f = open_with(&c, HF_ROUTER_TLS_OFFERED);
    fixture_open_gate(f, 1);
    fd = client_connect(f, false);
    memcpy(both, request, 8);
    memcpy(both + 8, hello, sizeof hello);
    assert_int_equal(send(fd, both, sizeof both, MSG_NOSIGNAL), sizeof both);
    assert_false(server_is_asked(f, 50));
    assert_int_equal(recv(fd, &ch, 1, 0), 1);
    assert_int_equal(ch, 'S');
    while (recv(fd, &ch, 1, 0) == 1) /* an alert of TLS, no message of PostgreSQL */
        assert_int_not_equal(ch, 'E');
    assert_int_equal(hf_router_counts(f->r).refused[HF_REFUSED_TLS], 1);
    close(fd);
    fixture_close(f);
    certificates_remove(&c);
}

static void required(void **state)
{
    struct certificates c;
    struct fixture *f;
    int fd;
    SSL *ssl;

    (void)state;
    certificates_make(&c);
    f = open_with(&c, HF_ROUTER_TLS_REQUIRED);
    fd = client_start(f, false);
    hear_error(f, fd, "28000");
    close(fd);
    fd = client_start(f, true);
    hear_error(f, fd, "28000");
    close(fd);
    assert_int_equal(hf_router_counts(f->r).refused[HF_REFUSED_PLAIN], 2);
    fd = client_connect(f, true); /* with TLS it is heard, and refused by what it says */
    assert_int_equal(ask(f, fd), 'S');
    ssl = shake(&c, fd);
    assert_int_equal(SSL_write(ssl, "\0\0\0\x17\0\3\0\0user\0holdfast\0\0", 23), 23);
    read_error(ssl, "28000");
    close_both(ssl, fd);
    fixture_close(f);
    certificates_remove(&c);
}

/* TLS inside TLS, though one more request would be within the bound of a plain connection. */
static void nested(void **state)
{
    struct certificates c;
    struct fixture *f;
    SSL *ssl;
    int fd;

    (void)state;
    certificates_make(&c);
    f = open_with(&c, HF_ROUTER_TLS_OFFERED);
    fd = client_connect(f, false);
    assert_int_equal(ask(f, fd), 'S');
    ssl = shake(&c, fd);
    assert_int_equal(SSL_write(ssl, request, 8), 8);
    read_error(ssl, "08P01");
    close_both(ssl, fd);
    fixture_close(f);
    certificates_remove(&c);
}

/* No second negotiation inside; GSSAPI first is fine; a handshake that never ends is ended. */
static void negotiations(void **state)
{
    static const char gss[] = "\0\0\0\x08\x04\xd2\x16\x30";
    struct certificates c;
    struct fixture *f;
    char ch;
    int fd, slow;
    SSL *ssl;

    (void)state;
    certificates_make(&c);
    f = open_with(&c, HF_ROUTER_TLS_OFFERED);
    slow = client_connect(f, false);
    assert_int_equal(ask(f, slow), 'S');
    assert_int_equal(send(slow, "\x16\x03\x01", 3, MSG_NOSIGNAL), 3);
    fd = client_connect(f, false);
    assert_int_equal(send(fd, gss, 8, MSG_NOSIGNAL), 8);
    run_until_bytes(f, fd, 1);
    assert_int_equal(recv(fd, &ch, 1, 0), 1);
    assert_int_equal(ch, 'N');
    assert_int_equal(ask(f, fd), 'S');
    ssl = shake(&c, fd);
    assert_int_equal(SSL_write(ssl, request, 8), 8);
    read_error(ssl, "08P01");
    close_both(ssl, fd);
    assert_int_equal(recv(slow, &ch, 1, 0), 0); /* blocks for the two seconds of open_with() */
    assert_int_equal(hf_router_counts(f->r).refused[HF_REFUSED_SLOW], 1);
    close(slow);
    fixture_close(f);
    certificates_remove(&c);
}

static long serial(struct certificates *c, struct fixture *f)
{
    int fd = client_connect(f, false);
    X509 *cert;
    SSL *ssl;
    long sum;
    BIGNUM *bn;

    assert_int_equal(ask(f, fd), 'S');
    ssl = shake(c, fd);
    cert = SSL_get1_peer_certificate(ssl);
    bn = ASN1_INTEGER_to_BN(X509_get0_serialNumber(cert), NULL);
    sum = (long)BN_mod_word(bn, 1000003);
    BN_free(bn);
    X509_free(cert);
    close_both(ssl, fd);
    return sum;
}

/* A new certificate without a restart; one that is no good changes nothing. */
static void reload(void **state)
{
    const char *names[] = {"demo-0", "localhost"};
    struct certificates c;
    struct hf_error err = {0};
    struct fixture *f;
    char key[128];
    long before, after;

    (void)state;
    certificates_make(&c);
    f = open_with(&c, HF_ROUTER_TLS_OFFERED);
    before = serial(&c, f);
    assert_int_equal(hf_cert_make_node(c.dir, c.dir, names, 2, &err), 0);
    assert_int_equal(serial(&c, f), before);
    assert_int_equal(hf_router_reload(f->r, c.dir, &err), 0);
    after = serial(&c, f);
    assert_int_not_equal(after, before);
    (void)snprintf(key, sizeof key, "%s/node.key", c.dir);
    assert_int_equal(hf_file_write(key, "nonsense", 8, 0600, &err), 0);
    assert_int_equal(hf_router_reload(f->r, c.dir, &err), HF_ETLS);
    assert_int_equal(serial(&c, f), after);
    fixture_close(f);
    certificates_remove(&c);
}

/* A node that was told to offer TLS does not begin without it. */
static void no_certificate(void **state)
{
    struct hf_router_config config = {.sql = "127.0.0.1:0", .read_only = "127.0.0.1:0", .socket_dir = "/tmp",
                                      .tls = HF_ROUTER_TLS_OFFERED, .tls_dir = "/nonexistent"};
    struct hf_router_callbacks none = {0};
    struct hf_error err = {0};
    struct hf_router *r;
    uv_loop_t loop;

    (void)state;
    assert_int_equal(uv_loop_init(&loop), 0);
    assert_int_equal(hf_router_open(&r, &loop, &config, &none, &err), HF_ETLS);
    assert_non_null(strstr(err.text, "/nonexistent"));
    (void)uv_run(&loop, UV_RUN_DEFAULT);
    assert_int_equal(uv_loop_close(&loop), 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(session),      cmocka_unit_test(stuffing), cmocka_unit_test(required),
        cmocka_unit_test(negotiations), cmocka_unit_test(reload),   cmocka_unit_test(no_certificate),
        cmocka_unit_test(nested),       cmocka_unit_test(spoken_in_a_hand_over), cmocka_unit_test(cancelled),
    };

    (void)signal(SIGPIPE, SIG_IGN); /* as the node does */
    return cmocka_run_group_tests(tests, NULL, NULL);
}
