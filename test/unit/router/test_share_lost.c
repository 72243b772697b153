/* Server connections that end while sessions share them: nobody's client is lost with one that is not its own. */
#include <sys/socket.h>
#include <unistd.h>

#include "two.h"

/* The second one's statement, on a connection of its own. */
static void served(struct two *t, const char *sql)
{
    int second = server_accept(t->f);

    server_log_in(second);
    hear_text(t->f, second, 'Q', sql);
    say(second, 'C', "SELECT 1", 9);
    say_ready(second, 'I');
    hear_text(t->f, t->b, 'C', "SELECT 1");
    hear_ready(t->f, t->b, 'I');
    close(second);
}

/* It takes nothing more, and its end has not been seen yet, when another session's state is to be made on it. */
static void dead_when_taken(void **state)
{
    struct two t = two_open();

    (void)state;
    done(t.f, t.a, t.server, "SET work_mem = '1MB'", "SET", 'I');
    assert_int_equal(shutdown(t.server, SHUT_RD), 0);
    say(t.b, 'Q', "SELECT 2", 9);
    served(&t, "SELECT 2");
    two_close(&t);
}

/* The client of the session that has it has said goodbye, which ends it: it is for nobody else, whether that client is still there or not. */
static void said_goodbye(void **state)
{
    (void)state;
    for (int gone = 0; gone < 2; gone++) {
        struct two t = two_open();
        done(t.f, t.a, t.server, "SELECT 1", "SELECT 1", 'I');
        say(t.a, 'X', "", 0);
        hear_type(t.f, t.server, 'X');
        say(t.b, 'Q', "SELECT 2", 9);
        if (gone == 1) {
            close(t.a);
            t.a = -1;
        } else {
            hear_nothing(t.f, t.server, 50);
            assert_int_equal(shutdown(t.server, SHUT_WR), 0);
            hear_end(t.f, t.a);
        }
        served(&t, "SELECT 2");
        two_close(&t);
    }
}

static void full(int server)
{
    say(server, 'E', "SFATAL\0VFATAL\0C53300\0Mfull\0", 28);
    close(server);
}

/* It is tried again and again, until that server's connection is closed for it; the one that is made then. */
static int full_until_end(struct fixture *f, int server)
{
    enum { TRIES_MAX = 1000 };

    for (int i = 0; i < TRIES_MAX; i++) {
        int fd = server_accept(f);
        char c;
        if (recv(server, &c, 1, MSG_PEEK | MSG_DONTWAIT) == 0) {
            close(server);
            return fd;
        }
        full(fd);
    }
    fail_msg("it is never closed");
    return -1;
}

/* PostgreSQL has no room: it waits for another's, or is told, if there is none. */
static void no_room(void **state)
{
    struct fixture *f = sharing(0);
    int a, b, server, second;

    (void)state;
    a = client_start(f, false);
    server = server_accept(f);
    full(server);
    hear_error(f, a, "53300");
    close(a);
    a = session_open(f, &server);
    done(f, a, server, "BEGIN", "BEGIN", 'T');
    b = client_start(f, false);
    client_proved(f, b);
    second = server_accept(f);
    full(second);
    done(f, a, server, "COMMIT", "COMMIT", 'I');
    server = full_until_end(f, server);
    server_log_in(server);
    hear_ready(f, b, 'I');
    done(f, b, server, "SELECT 1", "SELECT 1", 'I');
    close(a);
    close(b);
    close(server);
    fixture_close(f);
}

/* PostgreSQL has no room, and there is a session that needs its connection for nothing. */
static void no_room_beside_one_that_rests(void **state)
{
    struct fixture *f = sharing(0);
    int server, second, a = session_open(f, &server), b = client_start(f, false);

    (void)state;
    client_proved(f, b);
    second = server_accept(f);
    full(second);
    server = full_until_end(f, server); /* its client has that one's key: it is closed, and there is room */
    server_log_in(server);
    hear_ready(f, b, 'I');
    close(a);
    close(b);
    close(server);
    fixture_close(f);
}

/* PostgreSQL needs a moment to end what was closed for somebody, who is not told meanwhile that there is no room. */
static void no_room_yet(void **state)
{
    struct fixture *f = sharing(0);
    int server, a = session_open(f, &server), b = client_start(f, false);

    (void)state;
    client_proved(f, b);
    server = full_until_end(f, server);
    full(server);
    server = server_accept(f);
    full(server);
    server = server_accept(f);
    server_log_in(server);
    hear_ready(f, b, 'I');
    close(a);
    close(b);
    close(server);
    fixture_close(f);
}

/* While there is no room it is tried again, soon at first. */
static void no_room_for_a_moment(void **state)
{
    enum { TIMES = 4, BOUND_MS = 300 };
    struct fixture *f = sharing(0);
    int server, second, a = session_open(f, &server), b = client_start(f, false);
    uint64_t began;

    (void)state;
    client_proved(f, b);
    done(f, a, server, "BEGIN", "BEGIN", 'T');
    began = uv_hrtime();
    for (int i = 0; i < TIMES; i++) {
        second = server_accept(f);
        full(second);
    }
    second = server_accept(f);
    server_log_in(second);
    hear_ready(f, b, 'I');
    assert_true(uv_hrtime() - began < BOUND_MS * 1000000ull);
    close(a);
    close(b);
    close(server);
    close(second);
    fixture_close(f);
}

/* The leader changes. The one in a transaction moves, and may be told at once; its login at the next leader is what comes back. The other
 * asks for something there, on *other. */
static int moves(struct fixture *f, int a, int first, int b, int *other, bool told)
{
    unsigned before = f->shut;
    int server;

    hf_router_gate_shut(f->r);
    run_until(f, &f->shut, before + 1);
    if (told) {
        hear_plain_error(f, a, "40001");
        hear_ready(f, a, 'E');
    }
    close(first);
    close(*other);
    fixture_open_gate(f, 2);
    server = server_accept(f);
    say(b, 'Q', "SELECT 2", 9);
    *other = server_accept(f);
    server_log_in(*other);
    hear_text(f, *other, 'Q', "SELECT 2");
    return server;
}

/* The transaction was lost with its leader, and the next one has no room: its client believes to be in a failed transaction, and nobody else's
 * connection is in one. */
static void no_room_for_a_failed_transaction(void **state)
{
    struct fixture *f = sharing(0);
    int first, other, a = session_open(f, &first), b = session_open(f, &other), server;

    (void)state;
    done(f, a, first, "BEGIN", "BEGIN", 'T');
    ask(f, a, first, "SELECT 1");
    server = moves(f, a, first, b, &other, true);
    say(other, 'C', "SELECT 1", 9);
    full(server);
    say_ready(other, 'I');
    hear_type(f, b, 'C');
    hear_ready(f, b, 'I');
    server = full_until_end(f, other);
    server_log_in(server);
    spoil(f, server);
    ask(f, a, server, "SELECT 3");
    close(a);
    close(b);
    close(server);
    fixture_close(f);
}

/* Likewise if its client, idle in its transaction, is to be told at its next statement. */
static void no_room_for_a_lost_transaction(void **state)
{
    struct fixture *f = sharing(0);
    int first, other, a = session_open(f, &first), b = session_open(f, &other), server;

    (void)state;
    done(f, a, first, "BEGIN", "BEGIN", 'T');
    server = moves(f, a, first, b, &other, false);
    say(other, 'C', "SELECT 1", 9);
    full(server);
    say_held(other, "sequence"); /* whoever takes it next has that undone first, which is no good inside of a transaction */
    say_ready(other, 'I');
    hear_type(f, b, 'C');
    hear_ready(f, b, 'I');
    server = full_until_end(f, other);
    server_log_in(server);
    say(a, 'Q', "SELECT 3", 9);
    hear_plain_error(f, a, "40001");
    hear_ready(f, a, 'E');
    spoil(f, server);
    ask(f, a, server, "ROLLBACK");
    close(a);
    close(b);
    close(server);
    fixture_close(f);
}

/* Its first connection was long ago; what it waits for began with the loss of that. */
static void no_room_after_a_long_time(void **state)
{
    enum { WAIT_MS = 600, TIMER_MS = 100 };
    struct fixture *f = fixture_open_with(&(struct hf_router_config){.follow = true, .share = true, .pool_wait_ms = WAIT_MS});
    int first, other, a, b, server;

    (void)state;
    world.guard = "none";
    fixture_open_gate(f, 1);
    a = session_open(f, &first);
    b = session_open(f, &other);
    done(f, a, first, "BEGIN", "BEGIN", 'T');
    ask(f, a, first, "SELECT 1");
    run_for(f, WAIT_MS);
    server = moves(f, a, first, b, &other, true);
    full(server);
    hear_nothing(f, a, 2 * TIMER_MS);
    server = server_accept(f);
    server_log_in(server);
    spoil(f, server);
    close(a);
    close(b);
    close(server);
    close(other);
    fixture_close(f);
}

/* Its server has said why it ends, which nobody has seen yet: that word is not for who takes it. */
static void ended_when_taken(void **state)
{
    struct two t = two_open();
    int c = client_start(t.f, false), second; /* on the same thread as the first */

    (void)state;
    client_proved(t.f, c);
    hear_ready(t.f, c, 'I');
    done(t.f, t.a, t.server, "SELECT 1", "SELECT 1", 'I');
    uv_mutex_lock(&t.f->r->pools_lock);
    say(c, 'Q', "SELECT 3", 9);
    usleep(50000); /* until its thread waits for the lock: then it sees nothing else */
    say(t.server, 'E', "SFATAL\0VFATAL\0C57P01\0Mbye\0", 27);
    assert_int_equal(shutdown(t.server, SHUT_WR), 0);
    uv_mutex_unlock(&t.f->r->pools_lock);
    second = server_accept(t.f);
    server_log_in(second);
    hear_text(t.f, second, 'Q', "SELECT 3");
    close(c);
    close(second);
    two_close(&t);
}

/* Its server has said why it ends, and its client has been told: that one gets no other connection, and this connection is for nobody. */
static void ended_when_given(void **state)
{
    static const char last[] = "C\0\0\0\x0b" "COMMIT\0" "Z\0\0\0\x05I" "E\0\0\0\x1f" "SFATAL\0VFATAL\0C57P01\0Mbye\0\0";
    struct two t = two_open();

    (void)state;
    done(t.f, t.a, t.server, "BEGIN", "BEGIN", 'T');
    say(t.b, 'Q', "SELECT 2", 9);
    say(t.a, 'Q', "COMMIT", 7);
    hear_text(t.f, t.server, 'Q', "COMMIT");
    assert_int_equal(send(t.server, last, sizeof last - 1, MSG_NOSIGNAL), sizeof last - 1);
    assert_int_equal(shutdown(t.server, SHUT_WR), 0);
    hear_text(t.f, t.a, 'C', "COMMIT");
    hear_ready(t.f, t.a, 'I');
    hear_error(t.f, t.a, "57P01");
    served(&t, "SELECT 2");
    two_close(&t);
}

/* PostgreSQL has refused the first login, which nobody may hear yet, and its gate shuts: that client is told to connect again, and is
 * not let in by halves. */
static void refused_unheard(void **state)
{
    struct fixture *f = sharing(0);
    int a = client_start(f, false), server = server_accept(f);

    (void)state;
    server_check(server);
    hf_router_lease(f->r, hf_clock_ns());
    full(server);
    RUN_UNTIL(f, hf_router_counts(f->r).lease_held == 1);
    hf_router_gate_shut(f->r);
    run_until(f, &f->shut, 1);
    fixture_open_gate(f, 2);
    hear_error(f, a, "57P01");
    assert_false(server_is_asked(f, 20));
    close(a);
    fixture_close(f);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(dead_when_taken), cmocka_unit_test(said_goodbye),
                                       cmocka_unit_test(no_room), cmocka_unit_test(no_room_beside_one_that_rests),
                                       cmocka_unit_test(no_room_yet), cmocka_unit_test(no_room_for_a_moment), cmocka_unit_test(no_room_for_a_failed_transaction),
                                       cmocka_unit_test(no_room_for_a_lost_transaction), cmocka_unit_test(no_room_after_a_long_time),
                                       cmocka_unit_test(ended_when_taken), cmocka_unit_test(ended_when_given), cmocka_unit_test(refused_unheard)};

    return cmocka_run_group_tests(tests, NULL, NULL);
}
