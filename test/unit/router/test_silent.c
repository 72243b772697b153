/* Clients that fall silent: those that keep a server connection which others wait for, and those that are idle. */
#include <stdio.h>
#include <sys/socket.h>
#include <unistd.h>

#include "two.h"

enum { BOUND_MS = 320, PIECE = 32 * 1024 };

static const char half[] = "Q\0\0\1\0SELECT"; /* of a message of 257 bytes */

/* As two_open(): the second one's client stops, and the first waits. */
static struct two two_with(const struct hf_router_config *wishes)
{
    struct two t = {.f = fixture_open_with(wishes)};

    world.guard = "none";
    fixture_open_gate(t.f, 1);
    t.a = two_of(t.f, &t.b, &t.server);
    return t;
}

static struct two stalling(void)
{
    return two_with(&(struct hf_router_config){.follow = true, .share = true, .max_servers = 1, .stalled_ms = BOUND_MS});
}

static unsigned stalled(const struct two *t)
{
    return (unsigned)hf_router_counts(t->f->r).pool.stalled;
}

static void send_half(int fd)
{
    assert_int_equal(send(fd, half, sizeof half - 1, MSG_NOSIGNAL), sizeof half - 1);
}

/* The other one is served, by a connection of its own. */
static void is_served(struct two *t)
{
    int second = server_accept(t->f);

    server_log_in(second);
    hear_text(t->f, second, 'Q', "SELECT 1");
    say(second, 'C', "SELECT 1", 9);
    say_ready(second, 'I');
    hear_type(t->f, t->a, 'C');
    hear_ready(t->f, t->a, 'I');
    close(second);
}

static void in_a_message(void **state)
{
    struct two t = stalling();

    (void)state;
    send_half(t.b);
    run_for(t.f, 3 * BOUND_MS); /* nobody waits: it may */
    assert_int_equal(stalled(&t), 0);
    say(t.a, 'Q', "SELECT 1", 9);
    hear_nothing(t.f, t.b, BOUND_MS / 2); /* the time counts from then on */
    hear_error(t.f, t.b, "57P05");
    is_served(&t);
    assert_int_equal(stalled(&t), 1);
    assert_int_equal(hf_router_counts(t.f->r).ended[HF_ENDED_57P05], 1);
    assert_int_equal(hf_router_counts(t.f->r).pool.late, 0);
    two_close(&t);
}

/* In a transaction, too; and a byte now and then is not enough. */
static void by_the_byte(void **state)
{
    struct two t = stalling();

    (void)state;
    done(t.f, t.b, t.server, "BEGIN", "BEGIN", 'T');
    send_half(t.b);
    say(t.a, 'Q', "SELECT 1", 9);
    for (int i = 0; i < 40 && stalled(&t) == 0; i++) {
        (void)send(t.b, "x", 1, MSG_NOSIGNAL);
        run_for(t.f, BOUND_MS / 20);
    }
    assert_int_equal(stalled(&t), 1);
    is_served(&t);
    two_close(&t);
}

/* One that goes on is waited for, however long its message takes. */
static void goes_on(void **state)
{
    enum { BYTES = 64 * 1024, STEPS = 40 };
    static char text[BYTES / STEPS];
    struct two t = stalling();
    uint8_t head[5] = {'Q'};
    size_t got = 0;

    (void)state;
    memset(text, 'x', sizeof text);
    memcpy(text, "SELECT ", 7);
    hf_scan_put(head + 1, BYTES / STEPS * STEPS + 4);
    say(t.a, 'Q', "SELECT 1", 9);
    hear_text(t.f, t.server, 'Q', "SELECT 1");
    say(t.server, 'C', "SELECT 1", 9);
    say_ready(t.server, 'I');
    hear_type(t.f, t.a, 'C');
    hear_ready(t.f, t.a, 'I');
    assert_int_equal(send(t.b, head, sizeof head, MSG_NOSIGNAL), sizeof head);
    run_for(t.f, BOUND_MS / 8);
    say(t.a, 'Q', "SELECT 1", 9);
    for (int i = 0; i < STEPS; i++) { /* five times as long as the bound */
        text[sizeof text - 1] = i < STEPS - 1 ? 'x' : '\0';
        assert_int_equal(send(t.b, text, sizeof text, MSG_NOSIGNAL), sizeof text);
        run_for(t.f, BOUND_MS / 8);
    }
    while (got < BYTES / STEPS * STEPS + 5) {
        char sink[4096];
        ssize_t n = recv(t.server, sink, sizeof sink, 0);
        assert_true(n > 0);
        got += (size_t)n;
    }
    say(t.server, 'C', "SELECT 1", 9);
    say_ready(t.server, 'I');
    hear_type(t.f, t.b, 'C');
    hear_ready(t.f, t.b, 'I');
    hear_type(t.f, t.server, 'Q');
    assert_int_equal(stalled(&t), 0);
    two_close(&t);
}

/* As much as there is room for; how much it was. */
static size_t flood(struct fixture *f, int server)
{
    static uint8_t row[PIECE] = {'D'};
    size_t all = 0, at = 0;

    hf_scan_put(row + 1, PIECE - 1);
    for (int quiet = 0; quiet < 50;) {
        ssize_t n = send(server, row + at, PIECE - at, MSG_NOSIGNAL | MSG_DONTWAIT);
        quiet = n > 0 ? 0 : quiet + 1;
        if (n > 0) {
            all += (size_t)n;
            at = (at + (size_t)n) % PIECE;
        }
        run_for(f, 0);
    }
    return all;
}

static void takes_nothing(void **state)
{
    struct two t = stalling();
    char sink[PIECE];
    ssize_t n;

    (void)state;
    ask(t.f, t.b, t.server, "SELECT 2");
    (void)flood(t.f, t.server);
    run_for(t.f, 3 * BOUND_MS);
    assert_int_equal(stalled(&t), 0);
    say(t.a, 'Q', "SELECT 1", 9);
    is_served(&t);
    assert_int_equal(stalled(&t), 1);
    assert_int_equal(hf_router_counts(t.f->r).ended[HF_ENDED_UNTOLD], 1);
    while ((n = recv(t.b, sink, sizeof sink, 0)) > 0)
        ; /* what it had been given already, and no word behind a piece of a message */
    two_close(&t);
}

/* Who takes its answer at leisure is given the time, though nothing of it leaves the router for longer than the bound: the kernel keeps megabytes. */
static void takes_slowly(void **state)
{
    struct two t = stalling();
    static char sink[PIECE];
    uint64_t until;

    (void)state;
    ask(t.f, t.b, t.server, "SELECT 2");
    (void)flood(t.f, t.server);
    say(t.a, 'Q', "SELECT 1", 9);
    until = uv_hrtime() + 4ull * BOUND_MS * 1000000;
    while (uv_hrtime() < until) {
        assert_true(recv(t.b, sink, sizeof sink, 0) > 0);
        run_for(t.f, BOUND_MS / 10);
    }
    assert_int_equal(stalled(&t), 0);
    (void)flood(t.f, t.server); /* a kernel may have made room for all of the first */
    run_for(t.f, 3 * BOUND_MS);
    assert_int_equal(stalled(&t), 1);
    is_served(&t);
    two_close(&t);
}

/* What is no stall, though others wait. */
static void not_stalled(void **state)
{
    (void)state;
    for (int what = 0; what < 5; what++) {
        struct two t = stalling();
        done(t.f, t.b, t.server, "BEGIN", "BEGIN", 'T');
        switch (what) {
        case 0: /* an open transaction */
            break;
        case 1: /* a slow server */
            ask(t.f, t.b, t.server, "SELECT pg_sleep(100)");
            break;
        case 2: /* and a message behind what it is slow with */
            ask(t.f, t.b, t.server, "SELECT pg_sleep(100)");
            send_half(t.b);
            break;
        case 3: /* COPY, whose rows come when there are some; its Sync is swallowed */
            parse(t.b, "", "COPY t FROM STDIN");
            bind_execute(t.b, "");
            say(t.b, 'S', "", 0);
            for (int i = 0; i < 4; i++)
                hear_type(t.f, t.server, "PBES"[i]);
            say(t.server, '1', "", 0);
            say(t.server, '2', "", 0);
            say(t.server, 'G', "\0\0\1\0\0", 5);
            hear_type(t.f, t.b, '1');
            hear_type(t.f, t.b, '2');
            hear_type(t.f, t.b, 'G');
            assert_int_equal(send(t.b, "d\0\0\1\0x", 6, MSG_NOSIGNAL), 6);
            break;
        default: /* a channel */
            done_with(t.f, t.b, t.server, "COMMIT", "COMMIT", 'I', "listen");
            break;
        }
        say(t.a, 'Q', "SELECT 1", 9);
        hear_nothing(t.f, t.b, 3 * BOUND_MS);
        assert_int_equal(stalled(&t), 0);
        assert_int_equal(hf_router_counts(t.f->r).pool.waiting, 1);
        two_close(&t);
    }
}

static int client_of(struct fixture *f, bool first)
{
    static const char hello[] = "\0\0\0\x21\0\3\0\0user\0app\0database\0other\0";
    int fd = client_connect(f, false);

    assert_int_equal(send(fd, hello, sizeof hello, MSG_NOSIGNAL), sizeof hello);
    client_prove(f, fd, NULL);
    if (!first)
        client_proved(f, fd);
    return fd;
}

/* Whoever waits for another pool's has nothing of it. */
static void of_another_pool(void **state)
{
    struct two t = stalling();
    int c = client_of(t.f, true), second = server_accept(t.f), d;

    (void)state;
    server_log_in(second);
    hear_ready(t.f, c, 'I');
    done(t.f, c, second, "BEGIN", "BEGIN", 'T');
    send_half(t.b);
    d = client_of(t.f, false);
    RUN_UNTIL(t.f, hf_router_counts(t.f->r).pool.waiting == 1);
    hear_nothing(t.f, t.b, 3 * BOUND_MS);
    say(t.a, 'Q', "SELECT 1", 9);
    hear_error(t.f, t.b, "57P05");
    is_served(&t);
    close(c);
    close(d);
    close(second);
    two_close(&t);
}

static void without_a_bound(void **state)
{
    struct two t = two_with(&(struct hf_router_config){.follow = true, .share = true, .max_servers = 1});

    (void)state;
    send_half(t.b);
    say(t.a, 'Q', "SELECT 1", 9);
    hear_nothing(t.f, t.b, 3 * BOUND_MS);
    assert_int_equal(hf_router_counts(t.f->r).pool.waiting, 1);
    two_close(&t);
}

/* -- idle ------------------------------------------------------------------------------------------------ */

static struct fixture *idling(bool followed)
{
    struct fixture *f = fixture_open_with(&(struct hf_router_config){.follow = followed, .idle_ms = BOUND_MS});

    world.guard = followed ? "none" : NULL;
    fixture_open_gate(f, 1);
    return f;
}

static void idle(void **state)
{
    (void)state;
    for (int what = 0; what < 4; what++) {
        struct fixture *f = idling(what != 1);
        int server, fd = session_open(f, &server);
        uint64_t last = 0;
        char half_heard[64];
        for (int i = 0; i < 6; i++) { /* each time anew */
            run_for(f, BOUND_MS / 4);
            last = uv_hrtime();
            done(f, fd, server, "SELECT 1", "SELECT 1", 'I');
        }
        if (what == 2)
            send_half(fd);
        if (what == 3)
            assert_int_equal(send(fd, "Q\0", 2, MSG_NOSIGNAL), 2);
        hear_error(f, fd, "57P05");
        assert_true(uv_hrtime() - last >= BOUND_MS * 1000000ull);
        while (recv(server, half_heard, sizeof half_heard, 0) > 0)
            ;
        assert_int_equal(hf_router_counts(f->r).idle_ended, 1);
        close(fd);
        close(server);
        fixture_close(f);
    }
}

static void not_idle(void **state)
{
    (void)state;
    for (int what = 0; what < 5; what++) {
        struct fixture *f = idling(true);
        int server, fd = session_open(f, &server);
        switch (what) {
        case 0:
            done(f, fd, server, "BEGIN", "BEGIN", 'T');
            break;
        case 1:
            ask(f, fd, server, "SELECT pg_sleep(100)");
            break;
        case 2:
            ask(f, fd, server, "COPY t FROM STDIN");
            say(server, 'G', "\0\0\1\0\0", 5);
            hear_type(f, fd, 'G');
            break;
        case 3:
            done_with(f, fd, server, "LISTEN c", "LISTEN", 'I', "listen");
            break;
        default: /* what a Sync is yet to come for */
            parse(fd, "", "SELECT 1");
            hear_type(f, server, 'P');
            break;
        }
        hear_nothing(f, fd, 3 * BOUND_MS);
        if (what == 1) { /* it is, from the answer on */
            say(server, 'C', "SELECT 1", 9);
            say_ready(server, 'I');
            hear_type(f, fd, 'C');
            hear_ready(f, fd, 'I');
            hear_nothing(f, fd, BOUND_MS / 2);
            hear_error(f, fd, "57P05");
        }
        assert_int_equal(hf_router_counts(f->r).idle_ended, what == 1);
        close(fd);
        close(server);
        fixture_close(f);
    }
}

/* Without a connection it is as idle, and a piece of a head does not change that; with one it has the same time. */
static void idle_and_pooled(void **state)
{
    (void)state;
    for (int piece = 0; piece < 2; piece++) {
        struct two t = two_with(&(struct hf_router_config){.follow = true, .share = true, .max_servers = 1, .idle_ms = BOUND_MS});
        done(t.f, t.a, t.server, "SELECT 1", "SELECT 1", 'I');
        if (piece == 1)
            assert_int_equal(send(t.b, "Q\0", 2, MSG_NOSIGNAL), 2);
        for (int i = 0; i < 6; i++) {
            run_for(t.f, BOUND_MS / 4);
            done(t.f, t.a, t.server, "SELECT 1", "SELECT 1", 'I');
        }
        hear_error(t.f, t.b, "57P05");
        assert_int_equal(hf_router_counts(t.f->r).idle_ended, 1);
        hear_error(t.f, t.a, "57P05");
        assert_int_equal(hf_router_counts(t.f->r).idle_ended, 2);
        RUN_UNTIL(t.f, hf_router_counts(t.f->r).pool.servers == 0);
        two_close(&t);
    }
}

/* One who waits in line is not idle, and one whose leader is lost is not either: each has a bound of its own. */
static void idle_and_waiting(void **state)
{
    struct two t = two_with(&(struct hf_router_config){.follow = true, .share = true, .max_servers = 1, .idle_ms = BOUND_MS});

    (void)state;
    done(t.f, t.b, t.server, "BEGIN", "BEGIN", 'T');
    say(t.a, 'Q', "SELECT 1", 9);
    hear_nothing(t.f, t.a, 3 * BOUND_MS);
    done(t.f, t.b, t.server, "COMMIT", "COMMIT", 'I');
    hear_text(t.f, t.server, 'Q', "SELECT 1");
    hear_nothing(t.f, t.a, 3 * BOUND_MS);
    two_close(&t);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(in_a_message), cmocka_unit_test(by_the_byte),     cmocka_unit_test(goes_on),
        cmocka_unit_test(takes_nothing), cmocka_unit_test(takes_slowly),   cmocka_unit_test(not_stalled),
        cmocka_unit_test(of_another_pool), cmocka_unit_test(without_a_bound), cmocka_unit_test(idle),         cmocka_unit_test(not_idle),
        cmocka_unit_test(idle_and_pooled), cmocka_unit_test(idle_and_waiting)};

    return cmocka_run_group_tests(tests, NULL, NULL);
}
