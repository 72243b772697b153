/* Reads that are not older than their asking: what waits, for what, and what becomes of it. */
#include <arpa/inet.h>
#include <stdio.h>
#include <sys/socket.h>
#include <unistd.h>

#include "outlive.h"

#define FRESH "\0\0\0\x32\0\3\0\0user\0app\0options\0-c holdfast.reads=fresh\0"

/* A follower of a leader elsewhere, at LSN 100. */
static struct fixture *follower(bool follow)
{
    struct fixture *f = fixture_open_with(&(struct hf_router_config){.follow = follow});

    hf_router_leader(f->r, HF_LEADER_ELSEWHERE, 1);
    hf_router_follower_readable(f->r, true);
    atomic_store(&world.applied, 100);
    world.guard = follow ? "none" : NULL;
    return f;
}

static int hello(int fd)
{
    uint8_t packet[] = FRESH; /* and the last NUL */
    uint32_t len = htonl(sizeof packet);

    memcpy(packet, &len, 4);
    assert_int_equal(send(fd, packet, sizeof packet, MSG_NOSIGNAL), sizeof packet);
    return fd;
}

/* Asks the leader for the role; PostgreSQL's end, up to its startup packet. */
static int begin(struct fixture *f, int fd)
{
    int leader;

    client_prove(f, hello(fd), NULL);
    RUN_UNTIL(f, f->dial != NULL);
    leader = dial_take(f);
    leader_tell(f, leader);
    hear_end(f, leader);
    close(leader);
    return server_accept(f);
}

static int reader(struct fixture *f, int *server)
{
    int fd = client_connect(f, false);

    *server = begin(f, fd);
    server_log_in(*server);
    hear_ready(f, fd, 'I');
    return fd;
}

static void select1(int fd)
{
    say(fd, 'Q', "SELECT 1", 9);
}

static void hear_select(struct fixture *f, int server)
{
    char body[16] = "";

    assert_int_equal(hear(f, server, PATIENCE_MS, body, sizeof body), 'Q');
    assert_string_equal(body, "SELECT 1");
}

static void answer(struct fixture *f, int fd, int server)
{
    say(server, 'C', "SELECT 1", 9);
    say_ready(server, 'I');
    assert_int_equal(hear(f, fd, PATIENCE_MS, NULL, 0), 'C');
    hear_ready(f, fd, 'I');
}

static void over(struct fixture *f, int fd, int server)
{
    close(fd);
    close(server);
    fixture_close(f);
}

/* First for the leader's word, then for PostgreSQL here. */
static void waits(void **state)
{
    struct fixture *f = follower(false);
    int server, fd = reader(f, &server);

    (void)state;
    assert_int_equal(f->asks, 0); /* a login needs none */
    for (uint64_t lsn = 200; lsn < 500; lsn += 100) {
        unsigned asks = f->asks;
        select1(fd);
        run_until(f, &f->asks, asks + 1);
        hear_nothing(f, server, 20);
        hf_router_read_told(f->r, f->ask_seq, lsn);
        hear_nothing(f, server, 20); /* it is not there yet */
        atomic_store(&world.applied, lsn - 1);
        hear_nothing(f, server, 20);
        atomic_store(&world.applied, lsn);
        hear_select(f, server);
        answer(f, fd, server);
    }
    assert_int_equal(hf_router_counts(f->r).reads_waited, 3);
    assert_int_equal(hf_router_counts(f->r).reads_given_up, 0);
    {
        unsigned looks = atomic_load(&world.looks);
        run_for(f, 120);
        assert_int_equal(atomic_load(&world.looks), looks); /* nobody waits, so nobody looks */
    }
    over(f, fd, server);
}

/* What comes while a question is out waits for the next one, and that serves all of them. */
static void rounds(void **state)
{
    struct fixture *f = follower(false);
    int servers[3], fds[3];
    uint64_t first;

    (void)state;
    for (int i = 0; i < 3; i++)
        fds[i] = reader(f, &servers[i]);
    select1(fds[0]);
    run_until(f, &f->asks, 1);
    first = f->ask_seq;
    select1(fds[1]);
    select1(fds[2]);
    RUN_UNTIL(f, hf_router_counts(f->r).reads_waited == 3);
    assert_int_equal(f->ask_seq, first);
    hf_router_read_told(f->r, first, 100);
    hear_select(f, servers[0]);
    RUN_UNTIL(f, f->ask_seq == first + 1);
    hear_nothing(f, servers[1], 10);
    hear_nothing(f, servers[2], 10);
    hf_router_read_told(f->r, first, 100); /* doubled */
    hf_router_read_told(f->r, first + 2, 100); /* of nobody's asking */
    hear_nothing(f, servers[1], 10);
    hf_router_read_told(f->r, first + 1, 100);
    hear_select(f, servers[1]);
    hear_select(f, servers[2]);
    assert_int_equal(f->ask_seq, first + 1);
    for (int i = 0; i < 3; i++) {
        close(fds[i]);
        close(servers[i]);
    }
    fixture_close(f);
}

/* The question, or its answer, may be lost. */
static void again_and_again(void **state)
{
    struct fixture *f = follower(false);
    int server, fd = reader(f, &server);
    uint64_t seq;

    (void)state;
    select1(fd);
    run_until(f, &f->asks, 1);
    seq = f->ask_seq;
    run_until(f, &f->asks, 4);
    assert_int_equal(f->ask_seq, seq);
    hf_router_read_told(f->r, seq, 100);
    hear_select(f, server);
    run_for(f, 120);
    assert_true(f->asks <= 5); /* one may have been on its way */
    over(f, fd, server);
}

/* Of a client that does not wait for the end of its login. */
static void too_soon(void **state)
{
    struct fixture *f = follower(false);
    int fd = client_connect(f, true), server = begin(f, fd);

    (void)state;
    server_check(server);
    say(server, 'R', "\0\0\0\0", 4);
    assert_int_equal(hear(f, fd, PATIENCE_MS, NULL, 0), 'R');
    select1(fd);
    hear_nothing(f, server, 50);
    say_ready(server, 'I');
    hear_ready(f, fd, 'I');
    run_until(f, &f->asks, 1);
    hear_nothing(f, server, 20);
    hf_router_read_told(f->r, f->ask_seq, 100);
    hear_select(f, server);
    over(f, fd, server);
}

/* A message in pieces, and more of them behind: all wait, none overtakes another. */
static void pieces(void **state)
{
    struct fixture *f = follower(false);
    int server, fd = reader(f, &server);
    char body[16];

    (void)state;
    assert_int_equal(send(fd, "P\0\0\0\x08\0", 6, MSG_NOSIGNAL), 6);
    run_until(f, &f->asks, 1);
    assert_int_equal(send(fd, "x\0\0S\0\0\0\x04", 8, MSG_NOSIGNAL), 8);
    hear_nothing(f, server, 20);
    hf_router_read_told(f->r, f->ask_seq, 100);
    RUN_UNTIL(f, hf_router_counts(f->r).reads_waited == 2);
    run_for(f, 20);
    hf_router_read_told(f->r, f->ask_seq, 100);
    assert_int_equal(hear(f, server, PATIENCE_MS, body, sizeof body), 'P');
    assert_memory_equal(body, "\0x\0", 3);
    assert_int_equal(hear(f, server, PATIENCE_MS, NULL, 0), 'S');
    over(f, fd, server);
}

/* The follower follows no more: what waited has reached nobody, and goes to another server with the session. */
static void spell_over(void **state)
{
    struct fixture *f = follower(true);
    int server, fd = reader(f, &server), other;
    uint64_t seq;

    (void)state;
    select1(fd);
    run_until(f, &f->asks, 1);
    seq = f->ask_seq;
    hf_router_leader(f->r, HF_LEADER_UNKNOWN, 1); /* else that would serve it meanwhile */
    hf_router_follower_readable(f->r, false);
    run_until(f, &f->readers_gone, 1);
    hear_end(f, server);
    close(server);
    hf_router_read_told(f->r, seq, 1);
    hf_router_follower_readable(f->r, true);
    server = server_accept(f);
    server_log_in(server);
    RUN_UNTIL(f, f->ask_seq > seq);
    hf_router_read_told(f->r, seq, 1); /* an answer of the spell before */
    hear_nothing(f, server, 30);
    hf_router_read_told(f->r, f->ask_seq, 100);
    hear_select(f, server);
    answer(f, fd, server);
    /* The leader's gate needs no waiting. */
    select1(fd);
    RUN_UNTIL(f, hf_router_counts(f->r).reads_waited == 2);
    hf_router_follower_readable(f->r, false);
    run_until(f, &f->readers_gone, 2);
    hear_end(f, server);
    close(server);
    fixture_open_gate(f, 2);
    other = server_accept(f);
    server_log_in(other);
    hear_select(f, other);
    answer(f, fd, other);
    select1(fd);
    hear_select(f, other);
    over(f, fd, other);
}

/* The next dial is for `to`, and reached; the startup packet is read. */
static int reached(struct fixture *f, enum hf_router_to to)
{
    char packet[256];
    int fd;

    RUN_UNTIL(f, f->dial != NULL);
    assert_int_equal(f->dial_to, to);
    fd = dial_take(f);
    run_until_bytes(f, fd, 50);
    assert_true(recv(fd, packet, sizeof packet, 0) > 50);
    return fd;
}

/* Nobody answers: the leader serves the session from then on, and its statement is run once. */
static void too_late(void **state)
{
    struct fixture *f = follower(true);
    int server, fd = reader(f, &server), leader;
    uint64_t seq;

    (void)state;
    select1(fd);
    leader = reached(f, HF_TO_LEADER);
    seq = f->ask_seq;
    hear_end(f, server); /* not a byte of it */
    server_log_in(leader);
    hear_select(f, leader);
    answer(f, fd, leader);
    assert_int_equal(hf_router_counts(f->r).reads_given_up, 1);
    close(server);
    hf_router_leader(f->r, HF_LEADER_ELSEWHERE, 2); /* but not for ever */
    hear_end(f, leader);
    close(leader);
    server = server_accept(f);
    server_log_in(server);
    select1(fd);
    RUN_UNTIL(f, hf_router_counts(f->r).reads_waited == 2);
    hf_router_read_told(f->r, seq, 100); /* the old question is still out */
    RUN_UNTIL(f, f->ask_seq > seq);
    hf_router_read_told(f->r, f->ask_seq, 100);
    hear_select(f, server);
    over(f, fd, server);
}

/* The same on a follower that serves another node's client: its front hears that nothing was taken. */
static void too_late_elsewhere(void **state)
{
    struct fixture *f = follower(true);
    int fds[2], server;
    char body[8] = "x";

    (void)state;
    assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0, fds), 0);
    hf_router_serve(f->r, fds[1], HF_TO_FOLLOWER);
    server = server_accept((hello(fds[0]), f));
    server_welcome(server);
    hear_ready(f, fds[0], 'I');
    select1(fds[0]);
    run_until(f, &f->asks, 1);
    hf_router_read_told(f->r, f->ask_seq, 100);
    hear_select(f, server);
    answer(f, fds[0], server);
    select1(fds[0]);
    assert_int_equal(hear(f, fds[0], PATIENCE_MS, body, sizeof body), HF_WIRE_TAKEN);
    assert_memory_equal(body, "\0\0\0\0\0\0\0\x0e", 8); /* the first one */
    hear_end(f, server);
    over(f, fds[0], server);
}

/* The last answer is still on its way to a client that does not read: nothing of it is lost, and nothing gets into it. */
static void too_late_for_a_slow_client(void **state)
{
    enum { ROW = 1000, ROWS = 20 };
    static uint8_t rows[ROWS * ROW];
    struct fixture *f = follower(true);
    int fds[2], server, least = 1;
    char body[8] = "x";

    (void)state;
    assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0, fds), 0);
    assert_int_equal(setsockopt(fds[1], SOL_SOCKET, SO_SNDBUF, &least, sizeof least), 0);
    hf_router_serve(f->r, fds[1], HF_TO_FOLLOWER);
    server = server_accept((hello(fds[0]), f));
    server_welcome(server);
    hear_ready(f, fds[0], 'I');
    select1(fds[0]);
    run_until(f, &f->asks, 1);
    hf_router_read_told(f->r, f->ask_seq, 100);
    hear_select(f, server);
    for (int i = 0; i < ROWS; i++)
        memcpy(rows + i * ROW, i < ROWS - 1 ? "D\0\0\3\xe7" : "Z\0\0\0\5I", 6);
    assert_int_equal(send(server, rows, (ROWS - 1) * ROW + 6, MSG_NOSIGNAL), (ROWS - 1) * ROW + 6);
    select1(fds[0]);
    RUN_UNTIL(f, hf_router_counts(f->r).reads_waited == 2);
    run_for(f, HF_FRESH_MS + 300);
    for (int i = 0; i < ROWS - 1; i++)
        assert_int_equal(hear(f, fds[0], PATIENCE_MS, NULL, 0), 'D');
    hear_ready(f, fds[0], 'I');
    assert_int_equal(hear(f, fds[0], PATIENCE_MS, body, sizeof body), HF_WIRE_TAKEN);
    assert_memory_equal(body, "\0\0\0\0\0\0\0\x0e", 8); /* the first one */
    hear_end(f, server);
    over(f, fds[0], server);
}

/* And the front takes it to the leader then. */
static void front_of_a_late_one(void **state)
{
    struct fixture *f = follow(0);
    int fd = client_connect(f, true), leader, far;

    (void)state;
    hf_router_leader(f->r, HF_LEADER_ELSEWHERE, 1);
    hf_router_followers(f->r, 1, 1);
    client_prove(f, hello(fd), NULL);
    RUN_UNTIL(f, f->dial != NULL);
    leader = dial_take(f);
    leader_tell(f, leader);
    hear_end(f, leader);
    close(leader);
    far = reached(f, HF_TO_FOLLOWER);
    server_log_in(far);
    hear_ready(f, fd, 'I');
    select1(fd);
    hear_select(f, far);
    say_taken(far, world.said);
    close(far);
    leader = reached(f, HF_TO_LEADER);
    server_log_in(leader);
    hear_select(f, leader);
    answer(f, fd, leader);
    over(f, fd, leader);
}

/* A follower whose replay stands still is not asked for ever how far it is. */
static void nobody_waits_any_more(void **state)
{
    struct fixture *f = follower(false);
    int server, fd = reader(f, &server);
    unsigned looks;

    (void)state;
    select1(fd);
    run_until(f, &f->asks, 1);
    hf_router_read_told(f->r, f->ask_seq, 1000);
    hear_end(f, server);
    run_for(f, 1000);
    looks = atomic_load(&world.looks);
    run_for(f, 500);
    assert_true(atomic_load(&world.looks) <= looks + 10);
    over(f, fd, server);
}

static void cancel(struct fixture *f)
{
    static const char request[16] = "\0\0\0\x10\x04\xd2\x16\x2e\0\0\1\2\1\2\3\4";
    int fd = client_connect(f, true);

    assert_int_equal(send(fd, request, sizeof request, MSG_NOSIGNAL), sizeof request);
    hear_end(f, fd);
    close(fd);
}

/* Whom a cancel is for may not be with PostgreSQL yet: it is kept until then, and passed once. */
static void cancelled_while_it_waits(void **state)
{
    struct fixture *f = follower(false);
    int server, fd = reader(f, &server);
    uint8_t packet[16];

    (void)state;
    select1(fd);
    run_until(f, &f->asks, 1);
    cancel(f);
    cancel(f);
    assert_false(server_is_asked(f, 50));
    hf_router_read_told(f->r, f->ask_seq, 100);
    hear_select(f, server);
    f->arg = packet;
    close(server_accept(f));
    f->arg = NULL;
    assert_memory_equal(packet + 4, "\x04\xd2\x16\x2e\0\0\1\2\1\2\3\4", 12);
    select1(fd); /* behind it, and not what is to be cancelled */
    RUN_UNTIL(f, hf_router_counts(f->r).reads_waited == 2);
    assert_false(server_is_asked(f, 50));
    cancel(f);
    close(server_accept(f));
    answer(f, fd, server);
    run_until(f, &f->asks, 2);
    hf_router_read_told(f->r, f->ask_seq, 100);
    hear_select(f, server);
    assert_false(server_is_asked(f, 50));
    over(f, fd, server);
}

/* The leader's part: its word counts if the gate is the same and the lease lasts after PostgreSQL has told. */
static void leader_tells(void **state)
{
    struct fixture *f = fixture_open(0, 0, 0);

    (void)state;
    atomic_store(&world.flushed, 500);
    hf_router_read_asked(f->r, 2, 1, 10, 77); /* no gate */
    fixture_open_gate(f, 1);
    hf_router_read_asked(f->r, 2, 2, 11, 77); /* of another epoch's follower */
    hf_router_read_asked(f->r, 2, 0, 11, 77);
    run_for(f, 30);
    assert_int_equal(f->answers, 0);
    hf_router_read_asked(f->r, 2, 1, 12, 77);
    run_until(f, &f->answers, 1);
    assert_int_equal(f->answer_seq, 12);
    assert_int_equal(f->answer_lsn, 500);
    hf_router_lease(f->r, hf_clock_ns() - 1);
    hf_router_read_asked(f->r, 2, 1, 13, 77);
    run_for(f, 30);
    assert_int_equal(f->answers, 1);
    hf_router_lease(f->r, hf_clock_ns() + 60 * SECOND_NS);
    atomic_store(&world.flushed, 0); /* PostgreSQL does not tell */
    hf_router_read_asked(f->r, 2, 1, 14, 77);
    run_for(f, 30);
    assert_int_equal(f->answers, 1);
    atomic_store(&world.flushed, 600);
    hf_router_gate_shut(f->r);
    hf_router_read_asked(f->r, 2, 1, 15, 77);
    run_for(f, 30);
    assert_int_equal(f->answers, 1);
    fixture_close(f);
}

/* Shut, or without a lease, while PostgreSQL is asked. */
static void leader_no_more(void **state)
{
    for (int way = 0; way < 2; way++) {
        struct fixture *f = fixture_open(0, 0, 0);
        fixture_open_gate(f, 1);
        atomic_store(&world.slow, true);
        atomic_store(&world.flushed, 500);
        hf_router_read_asked(f->r, 2, 1, 1, 77);
        RUN_UNTIL(f, atomic_load(&world.looks) == 1);
        if (way == 0) {
            hf_router_gate_shut(f->r);
            fixture_open_gate(f, 1); /* again, but it is another opening */
        } else {
            hf_router_lease(f->r, hf_clock_ns() - 1);
        }
        atomic_store(&world.slow, false);
        run_for(f, 50);
        assert_int_equal(f->answers, 0);
        fixture_close(f);
    }
    (void)state;
}

/* Too far behind, it serves nobody new; those that it has stay. */
static void behind(void **state)
{
    struct fixture *f = follower(false);
    int server, fd = reader(f, &server), fds[2], other;

    (void)state;
    hf_router_follower_behind(f->r, true);
    assert_false(hf_router_is_readable(f->r));
    assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0, fds), 0);
    hf_router_serve(f->r, fds[1], HF_TO_FOLLOWER);
    (void)hello(fds[0]);
    hear_end(f, fds[0]);
    close(fds[0]);
    other = client_connect(f, true);
    client_prove(f, hello(other), NULL);
    RUN_UNTIL(f, f->dial != NULL);
    fds[0] = dial_take(f);
    leader_tell(f, fds[0]);
    hear_end(f, fds[0]);
    close(fds[0]);
    RUN_UNTIL(f, f->dial != NULL); /* no follower elsewhere: the leader's gate */
    assert_int_equal(f->dial_to, HF_TO_LEADER);
    close(dial_take(f));
    select1(fd);
    run_until(f, &f->asks, 1);
    hf_router_read_told(f->r, f->ask_seq, 100);
    hear_select(f, server);
    close(other);
    over(f, fd, server);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(waits),          cmocka_unit_test(rounds),   cmocka_unit_test(again_and_again),
        cmocka_unit_test(too_soon),       cmocka_unit_test(pieces),   cmocka_unit_test(spell_over),
        cmocka_unit_test(too_late),       cmocka_unit_test(too_late_elsewhere),
        cmocka_unit_test(too_late_for_a_slow_client),
        cmocka_unit_test(front_of_a_late_one), cmocka_unit_test(leader_tells), cmocka_unit_test(leader_no_more),
        cmocka_unit_test(behind),         cmocka_unit_test(cancelled_while_it_waits),
        cmocka_unit_test(nobody_waits_any_more),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
