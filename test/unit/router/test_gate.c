/* The gate: nothing passes without a lease, nothing after it was shut, and a drain is exact. */
#include <sys/socket.h>
#include <unistd.h>

#include "fixture.h"


static void lease(void **state)
{
    struct fixture *f = fixture_open(0, 0, 0);
    int server, fd;

    (void)state;
    fixture_open_gate(f, 1);
    fd = session_open(f, &server);
    hf_router_lease(f->r, hf_clock_ns() + SECOND_NS / 20);
    run_for(f, 60); /* it lapses */
    say(server, 'C', "SELECT 1", 9);
    say_ready(server, 'I');
    hear_nothing(f, fd, 60);
    assert_int_equal(hf_router_counts(f->r).lease_held, 1);
    hf_router_lease(f->r, hf_clock_ns() + 60 * SECOND_NS);
    assert_int_equal(hear(f, fd, PATIENCE_MS, NULL, 0), 'C');
    hear_ready(f, fd, 'I');
    RUN_UNTIL(f, hf_router_counts(f->r).lease_held == 0); /* counted after it was written */
    /* Lapsed, and shut: what was held back is never seen. */
    hf_router_lease(f->r, hf_clock_ns());
    say(fd, 'Q', "x", 2);
    assert_int_equal(hear(f, server, PATIENCE_MS, NULL, 0), 'Q');
    say(server, 'C', "SELECT 1", 9);
    hear_nothing(f, fd, 30);
    hf_router_gate_shut(f->r);
    run_until(f, &f->shut, 1);
    hf_router_lease(f->r, hf_clock_ns() + 60 * SECOND_NS);
    hf_router_gate_open(f->r, 2);
    hear_end(f, fd);
    hear_end(f, server);
    close(fd);
    close(server);
    fixture_close(f);
}

/* A session belongs to the opening in which it began: a new one does not revive it. */
static void new_opening(void **state)
{
    struct fixture *f = fixture_open(0, 0, 0);
    int server, fd, talker_server, talker, fresh, fresh_server;

    (void)state;
    fixture_open_gate(f, 1);
    fd = session_open(f, &server);
    talker = session_open(f, &talker_server);
    hf_router_gate_shut(f->r); /* not confirmed yet */
    hf_router_lease(f->r, hf_clock_ns() + 60 * SECOND_NS);
    hf_router_gate_open(f->r, 1);
    (void)send(talker_server, "C\0\0\0\4", 5, MSG_NOSIGNAL); /* may be closed already */
    run_until(f, &f->shut, 1);
    hear_error(f, fd, "57P01");
    assert_int_not_equal(hear(f, talker, PATIENCE_MS, NULL, 0), 'C');
    close(talker);
    close(talker_server);
    fresh = session_open(f, &fresh_server);
    close(fd);
    close(server);
    close(fresh);
    close(fresh_server);
    fixture_close(f);
}

/* -- shut under load ----------------------------------------------------------------------- */

enum { LOADED = 24 };

struct load {
    int client[LOADED], server[LOADED];
    size_t after; /* bytes that came after the confirmation */
    atomic_bool stop;
};

static void *pour(void *arg)
{
    struct load *l = arg;
    static const char row[] = "D\0\0\0\x0c"
                              "xxxxxxxx";

    while (!atomic_load(&l->stop))
        for (int i = 0; i < LOADED; i++)
            (void)send(l->server[i], row, sizeof row - 1, MSG_NOSIGNAL | MSG_DONTWAIT);
    return NULL;
}

static size_t take_all(struct load *l)
{
    static char sink[1 << 16];
    size_t total = 0;

    for (int i = 0; i < LOADED; i++) {
        ssize_t n;
        while ((n = recv(l->client[i], sink, sizeof sink, MSG_DONTWAIT)) > 0)
            total += (size_t)n;
    }
    return total;
}

static void confirmed(struct fixture *f)
{
    assert_int_equal(hf_router_counts(f->r).gate, 0);
    (void)take_all(f->arg);
}

static void shut_under_load(void **state)
{
    struct fixture *f = fixture_open(0, 0, 0);
    struct load l = {.after = 0};
    pthread_t thread;

    (void)state;
    fixture_open_gate(f, 1);
    for (int i = 0; i < LOADED; i++)
        l.client[i] = session_open(f, &l.server[i]);
    f->arg = &l;
    f->at_shut = confirmed;
    assert_int_equal(pthread_create(&thread, NULL, pour, &l), 0);
    for (int i = 0; i < 20; i++) {
        (void)take_all(&l);
        run_for(f, 1);
    }
    hf_router_gate_shut(f->r);
    run_until(f, &f->shut, 1);
    for (int i = 0; i < 20; i++) {
        run_for(f, 2);
        l.after += take_all(&l);
    }
    assert_int_equal(l.after, 0);
    assert_int_equal(hf_router_counts(f->r).gate, 0);
    atomic_store(&l.stop, true);
    assert_int_equal(pthread_join(thread, NULL), 0);
    for (int i = 0; i < LOADED; i++) {
        close(l.client[i]);
        close(l.server[i]);
    }
    f->arg = NULL;
    fixture_close(f);
}

/* -- drain --------------------------------------------------------------------------------- */

static void drain(void **state)
{
    struct fixture *f = fixture_open(0, 0, 0);
    int idle, idle_server, busy, busy_server, held;

    (void)state;
    fixture_open_gate(f, 1);
    idle = session_open(f, &idle_server);
    busy = session_open(f, &busy_server);
    say(busy, 'Q', "begin", 6);
    assert_int_equal(hear(f, busy_server, PATIENCE_MS, NULL, 0), 'Q');
    say_ready(busy_server, 'T');
    hear_ready(f, busy, 'T');
    hf_router_gate_drain(f->r);
    run_for(f, 30);
    assert_int_equal(f->drained, 0);
    assert_false(hf_router_gate_is_open(f->r));
    say(idle, 'Q', "begin", 6); /* a new transaction: not now */
    hear_nothing(f, idle_server, 30);
    held = client_start(f, false); /* a new client: waits */
    assert_false(server_is_asked(f, 30));
    say(busy, 'Q', "commit", 7); /* the old one may end */
    assert_int_equal(hear(f, busy_server, PATIENCE_MS, NULL, 0), 'Q');
    run_for(f, 20);
    assert_int_equal(f->drained, 0);
    say_ready(busy_server, 'I');
    run_until(f, &f->drained, 1);
    hear_ready(f, busy, 'I');
    hf_router_gate_shut(f->r);
    run_until(f, &f->shut, 1);
    hear_error(f, idle, "57P01"); /* though it had said something that was not read */
    hear_error(f, busy, "57P01");
    hear_nothing(f, held, 10);
    hf_router_leader(f->r, HF_LEADER_ELSEWHERE, 2);
    run_until(f, &f->dials, 1);
    assert_int_equal(f->drained, 1);
    close(idle);
    close(idle_server);
    close(busy);
    close(busy_server);
    close(held);
    fixture_close(f);
}

static void drain_given_up(void **state)
{
    struct fixture *f = fixture_open(0, 0, 0);
    int idle, idle_server, busy, busy_server;

    (void)state;
    fixture_open_gate(f, 1);
    idle = session_open(f, &idle_server);
    busy = session_open(f, &busy_server);
    say(busy, 'Q', "begin", 6);
    assert_int_equal(hear(f, busy_server, PATIENCE_MS, NULL, 0), 'Q');
    hf_router_gate_drain(f->r);
    run_for(f, 30); /* until the threads have heard of it */
    say(idle, 'Q', "select", 7);
    hear_nothing(f, idle_server, 30);
    hf_router_gate_open(f->r, 1); /* the hand-over failed */
    assert_int_equal(hear(f, idle_server, PATIENCE_MS, NULL, 0), 'Q');
    say_ready(busy_server, 'I');
    hear_ready(f, busy, 'I');
    assert_int_equal(f->drained, 0);
    /* A second drain, with its bound over before the transaction is: the shut says nothing false.
     */
    hf_router_gate_drain(f->r);
    run_for(f, 20);
    hf_router_gate_shut(f->r);
    run_until(f, &f->shut, 1);
    assert_int_equal(f->drained, 0);
    hear_error(f, idle, "08007"); /* asked and not answered */
    hear_error(f, busy, "57P01");
    close(idle);
    close(idle_server);
    close(busy);
    close(busy_server);
    fixture_close(f);
}

/* A client that has heard nothing yet is not closed by the shut: it waits for the next leader. */
static void shut_before_the_first_answer(void **state)
{
    struct fixture *f = fixture_open(0, 0, 0);
    int fd, server;

    (void)state;
    fixture_open_gate(f, 1);
    fd = client_start(f, false);
    server = server_accept(f);
    hf_router_gate_shut(f->r);
    run_until(f, &f->shut, 1);
    hear_end(f, server);
    close(server);
    hear_nothing(f, fd, 20);
    fixture_open_gate(f, 2);
    server = server_accept(f);
    server_log_in(server);
    hear_ready(f, fd, 'I');
    close(fd);
    close(server);
    fixture_close(f);
}

static void unknown_cancel(void **state)
{
    static const char cancel[] = "\0\0\0\x10\x04\xd2\x16\x2e\0\0\1\2\1\2\3\5";
    struct fixture *f = fixture_open(0, 0, 0);
    int fd, server, c;

    (void)state;
    fixture_open_gate(f, 1);
    fd = session_open(f, &server);
    c = client_connect(f, false);
    assert_int_equal(send(c, cancel, 16, MSG_NOSIGNAL), 16);
    hear_end(f, c);
    assert_false(server_is_asked(f, 30));
    assert_int_equal(hf_router_counts(f->r).cancels, 0);
    close(c);
    close(fd);
    close(server);
    fixture_close(f);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(lease),           cmocka_unit_test(new_opening),
        cmocka_unit_test(shut_under_load), cmocka_unit_test(drain),
        cmocka_unit_test(drain_given_up),  cmocka_unit_test(shut_before_the_first_answer),
        cmocka_unit_test(unknown_cancel),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
