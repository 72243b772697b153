/* From a client's first byte to a session: what is refused, what waits, where it goes. */
#include <malloc.h>
#include <stdio.h>
#include <sys/socket.h>
#include <unistd.h>

#include "fixture.h"


static void holds_then_tells(void **state)
{
    struct fixture *f = fixture_open(100, 0, 0);
    uint64_t begin = uv_hrtime();
    int fd = client_start(f, false);

    (void)state;
    hear_error(f, fd, "57P03");
    assert_true(uv_hrtime() - begin >= 95 * 1000000ull);
    close(fd);
    fixture_close(f);
}

static void slow_startup(void **state)
{
    struct fixture *f = fixture_open(0, 100, 0);
    int fd = client_connect(f, false);

    (void)state;
    assert_int_equal(send(fd, "\0\0\0\x12\0\3", 6, MSG_NOSIGNAL), 6);
    hear_error(f, fd, "08P01");
    close(fd);
    fixture_close(f);
}

static void hostile(void **state)
{
    static const struct {
        const char *bytes;
        size_t n;
        const char *sqlstate;
    } cases[] = {
        {"\x16\x03\x01\x02\0\x01\0\x01", 8, "08P01"},
        {"\0\0\0\4", 4, "08P01"},
        {"\0\0\0\x0b\0\2\0\0app", 11, "0A000"},
        {"\0\0\0\x17\0\3\0\0user\0holdfast\0\0", 23, "28000"},
        {"\0\0\0\x1e\0\3\0\0user\0a\0user\0holdfast\0\0", 30, "28000"},
        {"\0\0\0\x20\0\3\0\0user\0a\0replication\0true\0\0", 32, "0A000"},
    };
    struct fixture *f = fixture_open(0, 0, 0);

    (void)state;
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        char more[20000] = {0};
        int fd = client_connect(f, false);
        assert_int_equal(send(fd, cases[i].bytes, cases[i].n, MSG_NOSIGNAL), cases[i].n);
        /* What it says after that must not cost it our answer. */
        (void)send(fd, more, sizeof more, MSG_NOSIGNAL);
        hear_error(f, fd, cases[i].sqlstate);
        close(fd);
    }
    assert_false(server_is_asked(f, 0));
    fixture_close(f);
}

static void negotiation(void **state)
{
    static const char tls[] = "\0\0\0\x08\x04\xd2\x16\x2f", gss[] = "\0\0\0\x08\x04\xd2\x16\x30";
    struct fixture *f = fixture_open(100, 0, 0);
    int fd = client_connect(f, false);
    char c;

    (void)state;
    assert_int_equal(send(fd, gss, 8, MSG_NOSIGNAL), 8);
    run_until_bytes(f, fd, 1);
    assert_int_equal(recv(fd, &c, 1, 0), 1);
    assert_int_equal(c, 'N');
    for (int i = 0; i < 8; i++) { /* byte by byte */
        assert_int_equal(send(fd, tls + i, 1, MSG_NOSIGNAL), 1);
        run_for(f, 2);
    }
    run_until_bytes(f, fd, 1);
    assert_int_equal(recv(fd, &c, 1, 0), 1);
    assert_int_equal(c, 'N');
    assert_int_equal(send(fd, tls, 8, MSG_NOSIGNAL), 8);
    hear_error(f, fd, "08P01");
    close(fd);
    fixture_close(f);
}

static void too_many(void **state)
{
    struct fixture *f = fixture_open(0, 0, 2);
    int a = client_start(f, false), b = client_start(f, false), c;

    (void)state;
    RUN_UNTIL(f, hf_router_counts(f->r).held == 2);
    c = client_start(f, false);
    hear_error(f, c, "53300");
    assert_int_equal(hf_router_counts(f->r).held, 2);
    close(a);
    close(b);
    close(c);
    RUN_UNTIL(f, hf_router_counts(f->r).sessions == 0); /* who gives up while it waits frees its place */
    fixture_close(f);
}

static void port_in_use(void **state)
{
    struct fixture *f = fixture_open(0, 0, 0);
    struct sockaddr_storage sa;
    socklen_t len = sizeof sa;
    char addr[64], port[16];
    struct hf_router_config config = {
        .sql = "127.0.0.1:0", .read_only = addr, .socket_dir = f->dir};
    struct hf_router_callbacks none = {0};
    struct hf_router *second;
    struct hf_error err = {0};

    (void)state;
    assert_int_equal(getsockname(f->r->ports[0].listener.fd, (struct sockaddr *)&sa, &len), 0);
    assert_int_equal(
        getnameinfo((struct sockaddr *)&sa, len, NULL, 0, port, sizeof port, NI_NUMERICSERV), 0);
    (void)snprintf(addr, sizeof addr, "127.0.0.1:%s", port);
    assert_int_equal(hf_router_open(&second, &f->loop, &config, &none, &err), HF_EBUSY);
    assert_null(second);
    assert_non_null(strstr(err.text, addr));
    assert_non_null(strstr(err.text, "hint"));
    fixture_close(f);
}

/* -- the way to another node --------------------------------------------------------------- */

static int dial_answer_of(struct fixture *f, bool ok, uint64_t id)
{
    struct hf_router_dial *d = f->dial;
    int fd = f->dial_fd;

    assert_non_null(d);
    f->dial = NULL;
    hf_router_dialed(d, ok, id);
    if (ok)
        return fd;
    close(fd);
    return -1;
}

static int dial_answer(struct fixture *f, bool ok)
{
    return dial_answer_of(f, ok, f->dial_to == HF_TO_FOLLOWER ? 7 : 1);
}

/* The leader's end of a tunnel, up to the startup packet. */
static int tunnel_open(struct fixture *f)
{
    int fd = dial_answer(f, true);
    char hello[32];

    leader_tell(f, fd);
    run_until_bytes(f, fd, 18);
    assert_int_equal(recv(fd, hello, sizeof hello, 0), 18);
    return fd;
}

static void tunnel(void **state)
{
    struct fixture *f = fixture_open(0, 0, 0);
    int fd = client_start(f, false), leader;
    char hello[32];

    (void)state;
    run_for(f, 30);
    assert_int_equal(f->dials, 0);
    hf_router_leader(f->r, HF_LEADER_ELSEWHERE, 3);
    run_until(f, &f->dials, 1);
    dial_answer(f, false); /* refused: tries again */
    run_until(f, &f->dials, 2);
    leader = dial_answer(f, true);
    close(leader); /* tells nothing: is asked again */
    run_until(f, &f->dials, 3);
    leader = dial_answer(f, true);
    leader_tell(f, leader);
    run_until_bytes(f, leader, 18);
    assert_int_equal(recv(leader, hello, sizeof hello, 0), 18);
    close(leader); /* not a byte of an answer: tries again, and the client has noticed nothing */
    run_until(f, &f->dials, 4);
    hear_nothing(f, fd, 10);
    leader = dial_answer(f, true);
    run_until_bytes(f, leader, 18);
    assert_int_equal(recv(leader, hello, sizeof hello, 0), 18); /* it has proved already who it is */
    server_log_in(leader);
    hear_ready(f, fd, 'I');
    assert_int_equal(hf_router_counts(f->r).tunnels, 1);
    hf_router_leader(f->r, HF_LEADER_UNKNOWN, 0); /* not known is not gone */
    say(fd, 'Q', "x", 2);
    assert_int_equal(hear(f, leader, PATIENCE_MS, NULL, 0), 'Q');
    say_ready(leader, 'I');
    hear_ready(f, fd, 'I');
    close(leader);
    hear_error(f, fd, "57P01");
    close(fd);
    fixture_close(f);
}

static void tunnel_of_an_old_leader(void **state)
{
    struct fixture *f = fixture_open(0, 0, 0);
    int idle, asking, idle_leader, asking_leader;

    (void)state;
    hf_router_leader(f->r, HF_LEADER_ELSEWHERE, 3);
    idle = client_start(f, false);
    run_until(f, &f->dials, 1);
    idle_leader = tunnel_open(f);
    server_log_in(idle_leader);
    hear_ready(f, idle, 'I');
    asking = client_start(f, false);
    run_until(f, &f->dials, 2);
    asking_leader = tunnel_open(f);
    server_log_in(asking_leader);
    hear_ready(f, asking, 'I');
    say(asking, 'Q', "x", 2);
    run_until_bytes(f, asking_leader, 7);
    hf_router_leader(f->r, HF_LEADER_ELSEWHERE, 4); /* the old one's host has vanished */
    hear_error(f, idle, "57P01");
    hear_error(f, asking, "08007"); /* what became of the question is not known */
    close(idle);
    close(asking);
    close(idle_leader);
    close(asking_leader);
    /* A dial that hangs is given up for the new leader. */
    idle = client_start(f, false);
    run_until(f, &f->dials, 3);
    hf_router_leader(f->r, HF_LEADER_HERE, 5);
    fixture_open_gate(f, 5);
    idle_leader = server_accept(f);
    close(idle_leader);
    close(idle);
    fixture_close(f);
}

static void served(void **state)
{
    static const char hello[] = "\0\0\0\x12\0\3\0\0user\0app\0";
    struct fixture *f = fixture_open(0, 0, 0);
    int fds[2], server;

    (void)state;
    fixture_open_gate(f, 1);
    assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0, fds), 0);
    hf_router_serve(f->r, fds[1], HF_TO_LEADER);
    assert_int_equal(send(fds[0], hello, sizeof hello, MSG_NOSIGNAL), sizeof hello);
    server = server_accept(f);
    server_welcome(server);
    hear_ready(f, fds[0], 'I');
    hf_router_gate_shut(f->r);
    run_until(f, &f->shut, 1);
    hear_error(f, fds[0], "57P01");
    close(fds[0]);
    close(server);
    /* Too late: ended without a word, so that the other node's router tries again. */
    assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0, fds), 0);
    hf_router_serve(f->r, fds[1], HF_TO_LEADER);
    assert_int_equal(send(fds[0], hello, sizeof hello, MSG_NOSIGNAL), sizeof hello);
    hear_end(f, fds[0]);
    close(fds[0]);
    fixture_close(f);
}

/* The leader is asked about a reader, no more. */
static void leader_told(struct fixture *f, unsigned nth)
{
    int fd;

    run_until(f, &f->dials, nth);
    assert_int_equal(f->dial_to, HF_TO_LEADER);
    fd = dial_answer(f, true);
    leader_tell(f, fd);
    hear_end(f, fd);
    close(fd);
}

/* -- readers ------------------------------------------------------------------------------- */

static void readers(void **state)
{
    static const char cancel[] = "\0\0\0\x10\x04\xd2\x16\x2e\0\0\1\2\1\2\3\4";
    struct fixture *f = fixture_open(0, 0, 0);
    char seen[4096] = {0};
    int fd, server, quiet, quiet_server, other, c;

    (void)state;
    f->arg = seen;
    hf_router_leader(f->r, HF_LEADER_ELSEWHERE, 1);
    hf_router_follower_readable(f->r, true);
    fd = client_start(f, true);
    leader_told(f, 1);
    server = server_accept(f);
    assert_non_null(memmem(seen, sizeof seen, "default_transaction_read_only\0on\0holdfast.read_only\0on", 55));
    server_log_in(server);
    hear_ready(f, fd, 'I');
    assert_int_equal(f->dials, 1);
    assert_int_equal(hf_router_counts(f->r).readers, 1);
    /* A cancel with its key goes to PostgreSQL here, one with another key to the leader. */
    c = client_connect(f, false);
    assert_int_equal(send(c, cancel, 16, MSG_NOSIGNAL), 16);
    other = server_accept(f);
    assert_memory_equal(seen, cancel, 16);
    close(other);
    hear_end(f, c);
    close(c);
    quiet = client_start(f, true);
    leader_told(f, 2);
    quiet_server = server_accept(f);
    server_log_in(quiet_server);
    hear_ready(f, quiet, 'I');
    /* Before a promotion: gone, and confirmed, though it is busy and PostgreSQL answers. */
    say(fd, 'Q', "x", 2);
    assert_int_equal(hear(f, server, PATIENCE_MS, NULL, 0), 'Q');
    hf_router_follower_readable(f->r, false);
    (void)send(server, "C\0\0\0\5", 6, MSG_NOSIGNAL); /* may be closed already */
    run_until(f, &f->readers_gone, 1);
    assert_int_equal(hf_router_counts(f->r).readers, 0);
    hear_error(f, quiet, "57P01");
    hear_end(f, quiet_server);
    close(quiet);
    close(quiet_server);
    while (hear(f, fd, PATIENCE_MS, NULL, 0) > 0)
        ; /* what was read before the order may have come */
    close(fd);
    close(server);
    fixture_close(f);
}

/* On the leader the read-only port goes to a follower, and so does a cancel of what runs there. */
static void readers_elsewhere(void **state)
{
    static const char cancel[] = "\0\0\0\x10\x04\xd2\x16\x2e\0\0\1\2\1\2\3\4";
    struct fixture *f = fixture_open(0, 0, 0);
    char hello[128] = {0};
    int fd, c, follower, cancelled;

    (void)state;
    fixture_open_gate(f, 1);
    hf_router_leader(f->r, HF_LEADER_HERE, 1);
    hf_router_followers(f->r, 2, 2);
    fd = client_start(f, true);
    run_until(f, &f->dials, 1);
    assert_int_equal(f->dial_to, HF_TO_FOLLOWER);
    assert_int_equal(f->dial_id, 0);
    follower = dial_answer(f, true);
    run_until_bytes(f, follower, 19);
    assert_true(recv(follower, hello, sizeof hello, 0) > 18);
    assert_non_null(memmem(hello, sizeof hello, "default_transaction_read_only\0on\0holdfast.read_only\0on", 55));
    server_log_in(follower);
    hear_ready(f, fd, 'I');
    assert_int_equal(hf_router_counts(f->r).tunnels, 1);
    c = client_connect(f, true);
    assert_int_equal(send(c, cancel, 16, MSG_NOSIGNAL), 16);
    run_until(f, &f->dials, 2);
    assert_int_equal(f->dial_to, HF_TO_FOLLOWER);
    assert_int_equal(f->dial_id, 7);
    cancelled = dial_answer(f, true);
    run_until_bytes(f, cancelled, 16);
    assert_int_equal(recv(cancelled, hello, sizeof hello, 0), 16);
    assert_memory_equal(hello, cancel, 16);
    close(cancelled);
    hear_end(f, c);
    close(c);
    hf_router_leader(f->r, HF_LEADER_ELSEWHERE, 2); /* what is that to a reader? */
    say(fd, 'Q', "x", 2);
    assert_int_equal(hear(f, follower, PATIENCE_MS, NULL, 0), 'Q');
    say_ready(follower, 'I');
    hear_ready(f, fd, 'I');
    close(fd);
    close(follower);
    fixture_close(f);
}

static void reader_from_a_tunnel(void **state)
{
    static const char hello[] = "\0\0\0\x12\0\3\0\0user\0app\0";
    struct fixture *f = fixture_open(0, 0, 0);
    int fds[2], server;

    (void)state;
    hf_router_leader(f->r, HF_LEADER_ELSEWHERE, 1);
    hf_router_follower_readable(f->r, true);
    assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0, fds), 0);
    hf_router_serve(f->r, fds[1], HF_TO_FOLLOWER);
    assert_int_equal(send(fds[0], hello, sizeof hello, MSG_NOSIGNAL), sizeof hello);
    server = server_accept(f);
    server_welcome(server);
    hear_ready(f, fds[0], 'I');
    assert_int_equal(hf_router_counts(f->r).readers, 1);
    close(server);
    close(fds[0]);
    /* No follower any more: ended without a word, never passed on in a circle. */
    hf_router_follower_readable(f->r, false);
    assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0, fds), 0);
    hf_router_serve(f->r, fds[1], HF_TO_FOLLOWER);
    assert_int_equal(send(fds[0], hello, sizeof hello, MSG_NOSIGNAL), sizeof hello);
    hear_end(f, fds[0]);
    assert_int_equal(f->dials, 0);
    close(fds[0]);
    fixture_close(f);
}

/* When there is no follower, a reader is a session of the leader's gate. */
static void readers_on_the_leader(void **state)
{
    struct fixture *f = fixture_open(0, 0, 0);
    char seen[4096] = {0};
    int fd, server;

    (void)state;
    f->arg = seen;
    fixture_open_gate(f, 1);
    hf_router_leader(f->r, HF_LEADER_HERE, 1);
    hf_router_followers(f->r, 1, 3); /* when they were counted: another one may be asked again since */
    fd = client_start(f, true);
    for (unsigned i = 1; i <= 3; i++) {
        run_until(f, &f->dials, i);
        dial_answer_of(f, false, i < 3 ? 7 : 0);
    }
    server = server_accept(f);
    assert_non_null(memmem(seen, sizeof seen, "default_transaction_read_only\0on\0holdfast.read_only\0on", 55));
    server_log_in(server);
    hear_ready(f, fd, 'I');
    assert_int_equal(hf_router_counts(f->r).gate, 1);
    close(fd);
    close(server);
    fixture_close(f);
}

/* What the process has allocated; under a sanitizer it is not known, and 0. */
static size_t heap(void)
{
    struct mallinfo2 m = mallinfo2();

    return m.uordblks + m.hblkhd;
}

/* One end says more than the other takes, until nothing more is taken for a while; returns how much that was. The router keeps what it says it does. */
static size_t stall(struct fixture *f, int fd, const uint8_t *piece, size_t len)
{
    enum { PLENTY = 64 * 1024 * 1024, KEEPS = 64 * 1024 /* docs/clients.md */, SLACK = 8 * 1024 };
    size_t sent = 0, before = heap();

    for (int idle = 0; idle < 50;) {
        ssize_t n = send(fd, piece + sent % len, len - sent % len, MSG_NOSIGNAL | MSG_DONTWAIT);
        idle = n > 0 ? 0 : idle + 1;
        sent += n > 0 ? (size_t)n : 0;
        if (n <= 0)
            run_for(f, 1);
        assert_true(sent < PLENTY);
    }
    assert_true(sent > KEEPS);
    if (heap() > before)
        assert_in_range(heap() - before, 0, KEEPS + SLACK);
    return sent;
}

/* A COPY's data that PostgreSQL does not read. */
static void big_questions(void **state)
{
    static uint8_t piece[50000] = {'d', 0, 0, (sizeof piece - 1) >> 8, (sizeof piece - 1) & 0xff};
    struct fixture *f = fixture_open(0, 0, 0);
    int server, fd;

    (void)state;
    fixture_open_gate(f, 1);
    fd = session_open(f, &server);
    (void)stall(f, fd, piece, sizeof piece);
    close(fd);
    close(server);
    fixture_close(f);
}

static void big_answers(void **state)
{
    enum { TOTAL = 8 * 1024 * 1024, PIECE = 50000 };
    struct fixture *f = fixture_open(0, 0, 0);
    static uint8_t piece[PIECE], got[PIECE];
    int server, fd;
    size_t sent, seen = 0;

    (void)state;
    fixture_open_gate(f, 1);
    fd = session_open(f, &server);
    for (size_t i = 0; i < sizeof piece; i++)
        piece[i] = (uint8_t)(i * 7);
    sent = stall(f, server, piece, PIECE);
    while (seen < sent || sent < TOTAL) {
        ssize_t n = recv(fd, got, sizeof got, MSG_DONTWAIT);
        for (ssize_t i = 0; i < n; i++)
            assert_int_equal(got[i], piece[(seen + (size_t)i) % PIECE]);
        seen += n > 0 ? (size_t)n : 0;
        if (sent < TOTAL) {
            ssize_t k = send(server, piece + sent % PIECE, PIECE - sent % PIECE,
                             MSG_NOSIGNAL | MSG_DONTWAIT);
            sent += k > 0 ? (size_t)k : 0;
        }
        if (n <= 0)
            run_for(f, 0);
    }
    assert_int_equal(seen, sent);
    close(fd);
    close(server);
    fixture_close(f);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(holds_then_tells),
        cmocka_unit_test(slow_startup),
        cmocka_unit_test(hostile),
        cmocka_unit_test(negotiation),
        cmocka_unit_test(too_many),
        cmocka_unit_test(port_in_use),
        cmocka_unit_test(tunnel),
        cmocka_unit_test(tunnel_of_an_old_leader),
        cmocka_unit_test(served),
        cmocka_unit_test(readers),
        cmocka_unit_test(readers_on_the_leader),
        cmocka_unit_test(readers_elsewhere),
        cmocka_unit_test(reader_from_a_tunnel),
        cmocka_unit_test(big_questions), cmocka_unit_test(big_answers),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
