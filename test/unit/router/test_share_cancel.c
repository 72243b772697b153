/* Cancels of sessions that share server connections. */
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <sys/socket.h>
#include <unistd.h>

#include "two.h"

/* Two clients and one server connection, which is at rest with the first; the second knows its key. */
static struct two two_with_key(struct fixture *f, char key[8])
{
    struct two t = {.f = f};
    int c;

    t.a = two_of(f, &c, &t.server);
    t.b = client_start(f, false);
    client_proved(f, t.b);
    hear_key(f, t.b, key);
    close(c);
    return t;
}

/* What the second one waits for ends. */
static void ended_by(struct two *t, const char key[8])
{
    cancel(t->f, key);
    hear_plain_error(t->f, t->b, "57014");
    hear_ready(t->f, t->b, 'I');
}

/* A cancel is for what this client does now: what waits is not done; what another does on the connection that was this client's goes on. */
static void cancelled(void **state)
{
    char key[8];
    struct two t = two_with_key(sharing(1), key);

    (void)state;
    done(t.f, t.a, t.server, "BEGIN", "BEGIN", 'T');
    cancel(t.f, key); /* the client does nothing */
    hear_nothing(t.f, t.b, 20);
    hear_nothing(t.f, t.server, 20);
    say(t.b, 'Q', "SELECT 2", 9);
    RUN_UNTIL(t.f, hf_router_counts(t.f->r).pool.waiting == 1);
    ended_by(&t, key);
    assert_int_equal(hf_router_counts(t.f->r).pool.waiting, 0);
    parse(t.b, "", "SELECT 3");
    bind_execute(t.b, "");
    say(t.b, 'S', "", 0);
    say(t.b, 'Q', "SELECT 4", 9); /* behind it */
    RUN_UNTIL(t.f, hf_router_counts(t.f->r).pool.waiting == 1);
    ended_by(&t, key);
    done(t.f, t.a, t.server, "COMMIT", "COMMIT", 'I');
    hear_text(t.f, t.server, 'Q', "SELECT 4");
    say(t.server, 'C', "SELECT 1", 9);
    say_ready(t.server, 'I');
    hear_text(t.f, t.b, 'C', "SELECT 1");
    hear_ready(t.f, t.b, 'I');
    assert_false(server_is_asked(t.f, 20)); /* no cancel went to PostgreSQL */
    two_close(&t);
}

/* A Query behind a Close ends both, without a Sync. */
static void cancelled_without_sync(void **state)
{
    char key[8];
    struct two t = two_with_key(sharing(1), key);

    (void)state;
    done(t.f, t.a, t.server, "BEGIN", "BEGIN", 'T');
    say(t.b, 'C', "Sq", 3);
    say(t.b, 'Q', "SELECT 2", 9);
    RUN_UNTIL(t.f, hf_router_counts(t.f->r).pool.waiting == 1);
    run_for(t.f, 20); /* both are there */
    ended_by(&t, key);
    done(t.f, t.a, t.server, "COMMIT", "COMMIT", 'I');
    done(t.f, t.b, t.server, "SELECT 3", "SELECT 1", 'I');
    two_close(&t);
}

/* What waits is no statement: nothing is cancelled, and nothing that comes later either, unless it has begun to come. */
static void cancelled_nothing(void **state)
{
    char key[8];
    struct two t = two_with_key(sharing(1), key);

    (void)state;
    done(t.f, t.a, t.server, "BEGIN", "BEGIN", 'T');
    for (int i = 0; i < 2; i++) {
        size_t n = i == 0 ? 8 : 5; /* with a piece of a statement behind it: then that is meant */
        assert_int_equal(send(t.b, "S\0\0\0\4Q\0\0", n, MSG_NOSIGNAL), n);
        RUN_UNTIL(t.f, hf_router_counts(t.f->r).pool.waiting == 1);
        cancel(t.f, key);
        hear_ready(t.f, t.b, 'I');
        if (i > 0)
            continue;
        assert_int_equal(send(t.b, "\0\x0dSELECT 2", 11, MSG_NOSIGNAL), 11);
        hear_plain_error(t.f, t.b, "57014");
        hear_ready(t.f, t.b, 'I');
    }
    done(t.f, t.a, t.server, "COMMIT", "COMMIT", 'I');
    done(t.f, t.b, t.server, "SELECT 3", "SELECT 1", 'I');
    two_close(&t);
}

/* What waits is many messages and is cancelled: nothing of it was done, whatever it says, and the client is in no transaction. */
static void cancelled_pipeline(void **state)
{
    char key[8];
    struct two t = two_with_key(sharing(1), key);

    (void)state;
    done(t.f, t.a, t.server, "BEGIN", "BEGIN", 'T');
    parse(t.b, "", "SELECT 1");
    bind_execute(t.b, "");
    parse(t.b, "", "BEGIN");
    bind_execute(t.b, "");
    say(t.b, 'S', "", 0);
    RUN_UNTIL(t.f, hf_router_counts(t.f->r).pool.waiting == 1);
    ended_by(&t, key);
    say(t.b, 'Q', "SELECT 2", 9);
    done(t.f, t.a, t.server, "COMMIT", "COMMIT", 'I');
    hear_text(t.f, t.server, 'Q', "SELECT 2");
    two_close(&t);
}

/* A BEGIN, as a Query, behind a Close, among others, in a text that nobody understands, or in a batch. */
static void say_begin(int fd, int how)
{
    switch (how) {
    case 0:
        say(fd, 'Q', "BEGIN", 6);
        break;
    case 1:
        say(fd, 'C', "Sq", 3);
        say(fd, 'Q', "BEGIN", 6);
        break;
    case 2:
        say(fd, 'Q', "START TRANSACTION READ WRITE; SELECT 1", 39);
        break;
    case 3:
        say(fd, 'Q', "something new", 14);
        break;
    default:
        parse(fd, "", "BEGIN");
        bind_execute(fd, "");
        say(fd, 'S', "", 0);
    }
}

/* What is behind a BEGIN that is cancelled was said in the belief that it is done: it is refused until the client ends that transaction,
 * and never done by itself. */
static void cancelled_begin(void **state)
{
    enum { HOWS = 5 };

    (void)state;
    for (int how = 0; how < HOWS; how++) {
        char key[8];
        struct two t = two_with_key(sharing(1), key);
        assert_int_equal(setsockopt(t.b, IPPROTO_TCP, TCP_NODELAY, &(int){1}, sizeof(int)), 0);
        done(t.f, t.a, t.server, "BEGIN", "BEGIN", 'T');
        say_begin(t.b, how);
        say(t.b, 'Q', "INSERT", 7);
        RUN_UNTIL(t.f, hf_router_counts(t.f->r).pool.waiting == 1);
        run_for(t.f, 20); /* all is there */
        cancel(t.f, key);
        hear_plain_error(t.f, t.b, "57014");
        hear_ready(t.f, t.b, 'E');
        cancel(t.f, key); /* what waits now is refused anyway */
        hear_nothing(t.f, t.b, 20);
        done(t.f, t.a, t.server, "COMMIT", "COMMIT", 'I');
        hear_end(t.f, t.server);
        close(t.server);
        t.server = server_accept(t.f);
        server_log_in(t.server);
        spoil(t.f, t.server);
        hear_text(t.f, t.server, 'Q', "INSERT");
        say(t.server, 'E', "SERROR\0VERROR\0C25P02\0Mno\0", 26);
        say_ready(t.server, 'E');
        hear_plain_error(t.f, t.b, "25P02");
        hear_ready(t.f, t.b, 'E');
        done(t.f, t.b, t.server, "ROLLBACK", "ROLLBACK", 'I');
        done(t.f, t.a, t.server, "SELECT 3", "SELECT 1", 'I'); /* it is free */
        two_close(&t);
    }
}

/* It was prepared before, by name or without one; the third time something else is prepared without one in the same batch. */
static void cancelled_prepared_begin(void **state)
{
    (void)state;
    for (int how = 0; how < 3; how++) {
        const char *name = how == 0 ? "b" : "";
        char key[8];
        struct two t = two_with_key(sharing(1), key);
        assert_int_equal(setsockopt(t.b, IPPROTO_TCP, TCP_NODELAY, &(int){1}, sizeof(int)), 0);
        parsed(t.f, t.b, t.server, name, "BEGIN");
        say(t.a, 'Q', "BEGIN", 6);
        if (how == 0)
            undone(t.f, t.server);
        hear_text(t.f, t.server, 'Q', "BEGIN");
        say(t.server, 'C', "BEGIN", 6);
        say_ready(t.server, 'T');
        hear_types(t.f, t.a, "CZ");
        if (how == 2)
            parse(t.b, "", "SELECT 1");
        bind_execute(t.b, name);
        say(t.b, 'S', "", 0);
        say(t.b, 'Q', "INSERT", 7);
        RUN_UNTIL(t.f, hf_router_counts(t.f->r).pool.waiting == 1);
        run_for(t.f, 20); /* all is there */
        cancel(t.f, key);
        hear_plain_error(t.f, t.b, "57014");
        hear_ready(t.f, t.b, how == 2 ? 'I' : 'E');
        done(t.f, t.a, t.server, "COMMIT", "COMMIT", 'I');
        if (how < 2) {
            hear_end(t.f, t.server);
            close(t.server);
            t.server = server_accept(t.f);
            server_log_in(t.server);
            remake(t.f, t.server, "BEGIN");
            spoil(t.f, t.server);
        }
        hear_text(t.f, t.server, 'Q', "INSERT");
        two_close(&t);
    }
}

/* Nobody relies on it, and who has heard that it has failed may send no ROLLBACK. */
static void cancelled_begin_alone(void **state)
{
    char key[8];
    struct two t = two_with_key(sharing(1), key);

    (void)state;
    done(t.f, t.a, t.server, "BEGIN", "BEGIN", 'T');
    say(t.b, 'Q', "BEGIN", 6);
    RUN_UNTIL(t.f, hf_router_counts(t.f->r).pool.waiting == 1);
    ended_by(&t, key);
    done(t.f, t.a, t.server, "COMMIT", "COMMIT", 'I');
    done(t.f, t.b, t.server, "SELECT 3", "SELECT 1", 'I');
    two_close(&t);
}

/* The connection that it needs is being made: a cancel ends the wait all the same, and the connection is not made. */
static void cancelled_while_connecting(void **state)
{
    char key[8];
    struct two t = two_with_key(sharing(1), key);

    (void)state;
    done(t.f, t.a, t.server, "SET work_mem = '1MB'", "SET", 'I');
    say(t.b, 'Q', "SELECT 1", 9);
    hear_text(t.f, t.server, 'Q', "DISCARD ALL"); /* it is being made equal */
    ended_by(&t, key);
    hear_text(t.f, t.server, 'Q', "RESET ROLE");
    hear_end(t.f, t.server);
    close(t.server);
    say(t.b, 'Q', "SELECT 2", 9);
    t.server = server_accept(t.f); /* it is being logged in */
    ended_by(&t, key);
    hear_end(t.f, t.server);
    close(t.server);
    hf_router_gate_shut(t.f->r);
    run_until(t.f, &t.f->shut, 1);
    say(t.b, 'Q', "SELECT 3", 9);
    RUN_UNTIL(t.f, hf_router_counts(t.f->r).held == 1); /* there is no leader */
    ended_by(&t, key);
    say(t.b, 'Q', "SELECT 4", 9);
    t.server = again(t.f, 2);
    hear_text(t.f, t.server, 'Q', "SELECT 4");
    say(t.a, 'Q', "SELECT 5", 9); /* waits: there is one place */
    hear_nothing(t.f, t.a, 20);
    two_close(&t);
}

/* It has waited too long, and been told so: there is nothing to cancel any more. */
static void cancelled_too_late(void **state)
{
    struct fixture *f = fixture_open_with(
        &(struct hf_router_config){.follow = true, .share = true, .max_servers = 1, .pool_wait_ms = 200});
    struct two t;
    char key[8];

    (void)state;
    world.guard = "none";
    fixture_open_gate(f, 1);
    t = two_with_key(f, key);
    done(f, t.a, t.server, "BEGIN", "BEGIN", 'T');
    say(t.b, 'Q', "SELECT 2", 9);
    hear_error(f, t.b, "53300");
    cancel(f, key); /* its client has not gone yet */
    done(f, t.a, t.server, "COMMIT", "COMMIT", 'I');
    two_close(&t);
}

/* Through another node: only if that says that the cancel cannot come any more, somebody else has the connection. */
static void cancelled_elsewhere(void **state)
{
    static const char its_key[] = "\0\0\3\4\5\6\7\10"; /* not the first one's */

    (void)state;
    for (int certain = 0; certain < 2; certain++) {
        struct fixture *f = fixture_open_with(&(struct hf_router_config){.follow = true, .share = true, .max_servers = 1});
        int first, asked, server, leader, fd, a, b;
        char key[8], packet[16], hello[18];

        world.guard = "none";
        a = tunnel_open(f, &first);
        b = client_start(f, false);
        run_until(f, &f->dials, 2);
        asked = dial_take(f);
        leader_tell(f, asked);
        run_until(f, &f->dials, 3);
        server = dial_take(f);
        run_until_bytes(f, server, 18);
        assert_int_equal(recv(server, hello, sizeof hello, 0), sizeof hello);
        server_check(server);
        say(server, 'R', "\0\0\0\0", 4);
        say(server, 'K', its_key, 8);
        say_held(server, "none");
        say_ready(server, 'I');
        hear_key(f, b, key);
        ask(f, b, server, "SELECT 2");
        fd = cancel_start(f, key);
        run_until(f, &f->dials, 4);
        leader = dial_take(f);
        run_until_bytes(f, leader, sizeof packet);
        assert_int_equal(recv(leader, packet, sizeof packet, 0), sizeof packet);
        assert_memory_equal(packet + 8, its_key, 8);
        if (certain == 1)
            assert_int_equal(send(leader, "+", 1, MSG_NOSIGNAL), 1);
        close(leader);
        hear_end(f, fd);
        close(fd);
        say(server, 'C', "SELECT 1", 9);
        say_ready(server, 'I');
        hear_type(f, b, 'C');
        hear_ready(f, b, 'I');
        say(a, 'Q', "SELECT 3", 9);
        if (certain == 0) {
            hear_end(f, server);
            close(server);
            run_until(f, &f->dials, 5);
            server = tunnel_log_in(f);
        }
        hear_text(f, server, 'Q', "SELECT 3");
        close(a);
        close(b);
        close(first);
        close(asked);
        close(server);
        fixture_close(f);
    }
}

static int tunnel_with(struct fixture *f, const char *packet, size_t n)
{
    int fds[2];

    assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0, fds), 0);
    hf_router_serve(f->r, fds[1], HF_TO_FOLLOWER);
    assert_int_equal(send(fds[0], packet, n, MSG_NOSIGNAL), n);
    return fds[0];
}

/* PostgreSQL has been asked to cancel; its end. */
static int cancel_accept(struct fixture *f)
{
    char packet[16];
    int fd;

    assert_true(server_is_asked(f, PATIENCE_MS));
    fd = accept(f->server, NULL, NULL);
    assert_int_equal(recv(fd, packet, sizeof packet, MSG_WAITALL), sizeof packet);
    return fd;
}

/* The other node's side: it says so when PostgreSQL has sent the signal, or it has nobody to send it to. */
static void certain_of(void **state)
{
    static const char hello[] = "\0\0\0\x12\0\3\0\0user\0app\0";
    static const char packet[] = "\0\0\0\x10\x04\xd2\x16\x2e\0\0\1\2\1\2\3\4";
    struct fixture *f = fixture_open(0, 0, 0);
    int reader, server, postgres, fd;
    char b;

    (void)state;
    hf_router_leader(f->r, HF_LEADER_ELSEWHERE, 1);
    hf_router_follower_readable(f->r, true);
    fd = tunnel_with(f, packet, 16); /* nobody has that key */
    run_until_bytes(f, fd, 1);
    assert_int_equal(recv(fd, &b, 1, 0), 1);
    hear_end(f, fd);
    close(fd);
    reader = tunnel_with(f, hello, sizeof hello);
    server = server_accept(f);
    server_welcome(server);
    hear_ready(f, reader, 'I');
    fd = tunnel_with(f, packet, 16);
    postgres = cancel_accept(f);
    hear_nothing(f, fd, 20);
    close(postgres);
    run_until_bytes(f, fd, 1);
    assert_int_equal(recv(fd, &b, 1, 0), 1);
    hear_end(f, fd);
    close(fd);
    fd = tunnel_with(f, packet, 16);
    postgres = cancel_accept(f); /* which takes too long */
    hear_end(f, fd);
    close(fd);
    close(postgres);
    close(reader);
    close(server);
    fixture_close(f);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(cancelled), cmocka_unit_test(cancelled_nothing), cmocka_unit_test(cancelled_pipeline),
                                       cmocka_unit_test(cancelled_begin), cmocka_unit_test(cancelled_prepared_begin), cmocka_unit_test(cancelled_begin_alone),
                                       cmocka_unit_test(cancelled_without_sync),
                                       cmocka_unit_test(cancelled_while_connecting), cmocka_unit_test(cancelled_too_late),
                                       cmocka_unit_test(cancelled_elsewhere), cmocka_unit_test(certain_of)};

    return cmocka_run_group_tests(tests, NULL, NULL);
}
