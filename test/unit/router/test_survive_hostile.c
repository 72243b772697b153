/* Sessions that lose their server at the worst moment. */
#include <stdio.h>
#include <sys/socket.h>
#include <unistd.h>

#include "outlive.h"

static void over(struct fixture *f, int fd, int server)
{
    close(fd);
    close(server);
    fixture_close(f);
}

static void hear_fatal(struct fixture *f, int fd, const char *sqlstate)
{
    char body[1024] = {0};

    assert_int_equal(hear(f, fd, PATIENCE_MS, body, sizeof body), 'E');
    assert_memory_equal(body, "SFATAL\0VFATAL\0C", 15);
    body[20] = '\0';
    assert_string_equal(body + 15, sqlstate);
    hear_end(f, fd);
}

/* What the client sends arrives at the server. */
static void send_all(struct fixture *f, int fd, int server, const char *types, const char *text)
{
    char parse[256] = {0};
    size_t n = strlen(text);

    memcpy(parse + 1, text, n);
    for (const char *t = types; *t != '\0'; t++) {
        if (*t == 'P')
            say(fd, 'P', parse, n + 4);
        else if (*t == 'B')
            say(fd, 'B', "\0\0\0\0\0\0\0\0", 8);
        else if (*t == 'E')
            say(fd, 'E', "\0\0\0\0\0", 5);
        else if (*t == 'Q')
            say(fd, 'Q', text, n + 1);
        else
            say(fd, *t, "x", *t == 'd' ? 1 : 0);
        assert_int_equal(hear(f, server, PATIENCE_MS, NULL, 0), *t);
    }
}

/* Who has said goodbye is not taken elsewhere. */
static void goodbye(void **state)
{
    struct fixture *f = follow(0);
    int fd, server;

    (void)state;
    fixture_open_gate(f, 1);
    fd = session_open(f, &server);
    say(fd, 'X', "", 0);
    assert_int_equal(hear(f, server, PATIENCE_MS, NULL, 0), 'X');
    close(server);
    while (hear(f, fd, PATIENCE_MS, NULL, 0) > 0)
        ;
    assert_false(server_is_asked(f, 50));
    close(fd);
    fixture_close(f);
}

/* COPY by the extended protocol, whose first Sync the server has swallowed: at every point up to its end. */
static void extended_copy(void **state)
{
    static const struct {
        const char *rest;
        bool copied; /* which is heard */
    } cases[] = {{"", false}, {"d", false}, {"dc", false}, {"dc", true}, {"dcS", false}};

    (void)state;
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        struct fixture *f = follow(0);
        int fd, server;
        fixture_open_gate(f, 1);
        fd = session_open(f, &server);
        send_all(f, fd, server, "PBES", "COPY t FROM STDIN");
        say(server, '1', "", 0);
        say(server, '2', "", 0);
        say(server, 'G', "\0\0\0", 3);
        assert_int_equal(hear(f, fd, PATIENCE_MS, NULL, 0), '1');
        assert_int_equal(hear(f, fd, PATIENCE_MS, NULL, 0), '2');
        assert_int_equal(hear(f, fd, PATIENCE_MS, NULL, 0), 'G');
        send_all(f, fd, server, cases[i].rest, "");
        if (cases[i].copied) {
            say(server, 'C', "COPY 1", 7);
            assert_int_equal(hear(f, fd, PATIENCE_MS, NULL, 0), 'C');
        }
        lose(f, server);
        if (!cases[i].copied) /* else all is answered, and it waits for nothing */
            hear_plain_error(f, fd, "08007");
        if (strchr(cases[i].rest, 'S') == NULL) {
            hear_nothing(f, fd, 20);
            if (!cases[i].copied) {
                say(fd, 'd', "y", 1);
                say(fd, 'c', "", 0);
            }
            say(fd, 'S', "", 0);
        }
        server = again(f, 2);
        if (cases[i].copied)
            hear_plain_error(f, fd, "08007");
        hear_ready(f, fd, 'I');
        hear_nothing(f, server, 20);
        done(f, fd, server, "SELECT 1", "SELECT 1", 'I');
        over(f, fd, server);
    }
}

/* A gate that drains waits for such a COPY, and does not say that nothing was under way. */
static void extended_copy_drains(void **state)
{
    struct fixture *f = follow(0);
    int fd, server;

    (void)state;
    fixture_open_gate(f, 1);
    fd = session_open(f, &server);
    send_all(f, fd, server, "PBES", "COPY t FROM STDIN");
    say(server, 'G', "\0\0\0", 3);
    assert_int_equal(hear(f, fd, PATIENCE_MS, NULL, 0), 'G');
    hf_router_gate_drain(f->r);
    run_for(f, 30);
    assert_int_equal(f->drained, 0);
    send_all(f, fd, server, "dc", "");
    run_for(f, 30);
    assert_int_equal(f->drained, 0);
    send_all(f, fd, server, "S", "");
    say(server, 'C', "COPY 1", 7);
    say_ready(server, 'I');
    run_until(f, &f->drained, 1);
    over(f, fd, server);
}

/* What is answered by us leaves the client where it believes to be: else the rest of its transaction would be done alone. */
static void stays_inside(void **state)
{
    static char odd[3000];
    static const struct {
        const char *before, *types, *text, *sqlstate;
        char status;
    } cases[] = {
        {"BEGIN", "Q", odd, "08007", 'E'},  /* not understood */
        {"BEGIN", "Q", "COMMIT AND CHAIN", "40001", 'E'},
        {"BEGIN", "Q", "COMMIT", "40001", 'I'}, /* of nothing: over all the same */
        {"BEGIN", "Q", "ROLLBACK", "40001", 'E'}, /* drivers that are told that it failed believe to be in it */
        {NULL, "Q", "BEGIN", "40001", 'I'},
        {NULL, "Q", "BEGIN; INSERT INTO t VALUES (1)", "40001", 'E'},
        {NULL, "PBES", "BEGIN", "40001", 'E'},
        {NULL, "Q", "BEGIN; INSERT INTO t VALUES (1); COMMIT", "08007", 'I'},
        {NULL, "Q", "INSERT INTO t VALUES (1)", "08007", 'I'},
    };

    (void)state;
    memset(odd, ' ', sizeof odd - 1);
    memcpy(odd, "EXPLAIN", 7);
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        struct fixture *f = follow(0);
        char big[sizeof odd + 5];
        int fd, server;
        fixture_open_gate(f, 1);
        fd = session_open(f, &server);
        if (cases[i].before != NULL)
            done(f, fd, server, cases[i].before, "BEGIN", 'T');
        if (cases[i].text == odd) {
            big[0] = 'Q', big[1] = big[2] = 0;
            big[3] = (char)((sizeof odd + 4) >> 8), big[4] = (char)((sizeof odd + 4) & 0xff);
            memcpy(big + 5, odd, sizeof odd);
            assert_int_equal(send(fd, big, sizeof big, MSG_NOSIGNAL), sizeof big);
            assert_int_equal(hear(f, server, PATIENCE_MS, NULL, 0), 'Q');
        } else {
            send_all(f, fd, server, cases[i].types, cases[i].text);
        }
        lose(f, server);
        hear_plain_error(f, fd, cases[i].sqlstate);
        hear_ready(f, fd, cases[i].status);
        server = again(f, 2);
        if (cases[i].status == 'E')
            spoil(f, server);
        hear_nothing(f, server, 10);
        over(f, fd, server);
    }
}

/* Two servers lost in one transaction, the second while a statement fails in it. */
static void failed_twice(void **state)
{
    struct fixture *f = follow(0);
    int fd, server;

    (void)state;
    fixture_open_gate(f, 1);
    fd = session_open(f, &server);
    done(f, fd, server, "BEGIN", "BEGIN", 'T');
    ask(f, fd, server, "INSERT INTO t VALUES (1)");
    lose(f, server);
    hear_plain_error(f, fd, "40001");
    hear_ready(f, fd, 'E');
    server = again(f, 2);
    spoil(f, server);
    ask(f, fd, server, "INSERT INTO t VALUES (2)");
    lose(f, server);
    hear_plain_error(f, fd, "40001");
    hear_ready(f, fd, 'E');
    server = again(f, 3);
    spoil(f, server);
    /* And the same when it was told late. */
    done(f, fd, server, "ROLLBACK", "ROLLBACK", 'I');
    done(f, fd, server, "BEGIN", "BEGIN", 'T');
    lose(f, server);
    server = again(f, 4);
    say(fd, 'Q', "INSERT INTO t VALUES (3)", 25);
    hear_plain_error(f, fd, "40001");
    hear_ready(f, fd, 'E');
    spoil(f, server);
    ask(f, fd, server, "INSERT INTO t VALUES (4)");
    lose(f, server);
    hear_plain_error(f, fd, "40001");
    hear_ready(f, fd, 'E');
    server = again(f, 5);
    spoil(f, server);
    over(f, fd, server);
}

/* The end of a transaction that its client still believes in, in all the ways to say it. */
static void ends(void **state)
{
    static const struct {
        const char *text;
        int type;
        char status;
    } cases[] = {{"/* a */ COMMIT WORK; -- b", 'E', 'I'}, {"END TRANSACTION", 'E', 'I'}, {"ABORT", 'C', 'I'}, {"rollback work", 'C', 'I'},
                 {"ROLLBACK AND CHAIN", 'E', 'E'}, {"COMMIT; INSERT INTO t VALUES (1)", 'E', 'E'}, {"ROLLBACK TO SAVEPOINT a", 'E', 'E'}};
    struct fixture *f = follow(0);
    uint64_t epoch = 1;
    int fd, server;

    (void)state;
    fixture_open_gate(f, epoch);
    fd = session_open(f, &server);
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        done(f, fd, server, "BEGIN", "BEGIN", 'T');
        lose(f, server);
        server = again(f, ++epoch);
        say(fd, 'Q', cases[i].text, strlen(cases[i].text) + 1);
        assert_int_equal(hear(f, fd, PATIENCE_MS, NULL, 0), cases[i].type);
        hear_ready(f, fd, cases[i].status);
        if (cases[i].status == 'E') {
            spoil(f, server);
            done(f, fd, server, "ROLLBACK", "ROLLBACK", 'I');
        }
        hear_nothing(f, server, 10);
    }
    /* By messages: the last statement counts. */
    done(f, fd, server, "BEGIN", "BEGIN", 'T');
    lose(f, server);
    server = again(f, ++epoch);
    say(fd, 'P', "\0COMMIT\0\0\0", 10);
    say(fd, 'P', "\0BEGIN\0\0\0", 9);
    say(fd, 'S', "", 0);
    hear_plain_error(f, fd, "40001");
    hear_ready(f, fd, 'E');
    spoil(f, server);
    done(f, fd, server, "ROLLBACK", "ROLLBACK", 'I');
    /* A BEGIN of which only the Parse was sent, or that is skipped: what comes behind the Sync belongs to it. */
    for (unsigned i = 0; i < 3; i++) {
        say(fd, 'P', i == 2 ? "\0SELECT 1\0\0\0" : "\0BEGIN\0\0\0", i == 2 ? 12 : 9);
        assert_int_equal(hear(f, server, PATIENCE_MS, NULL, 0), 'P');
        if (i == 1)
            say(server, '1', "", 0), assert_int_equal(hear(f, fd, PATIENCE_MS, NULL, 0), '1');
        lose(f, server);
        if (i != 1) /* else it waits for nothing */
            hear_plain_error(f, fd, "40001");
        server = again(f, ++epoch);
        if (i < 2)
            spoil(f, server);
        else
            say(fd, 'P', "\0BEGIN\0\0\0", 9);
        say(fd, 'B', "\0\0\0\0\0\0\0\0", 8);
        say(fd, 'E', "\0\0\0\0\0", 5);
        say(fd, 'S', "", 0);
        if (i == 1)
            hear_plain_error(f, fd, "40001");
        hear_ready(f, fd, 'E');
        if (i == 2)
            spoil(f, server);
        done(f, fd, server, "ROLLBACK", "ROLLBACK", 'I');
    }
    over(f, fd, server);
}

/* BEGIN and COMMIT that were prepared by name, and are skipped: what comes behind the Sync belongs to the one, and not to the other. */
static void prepared_ends(void **state)
{
    static const char begin[] = "b\0BEGIN\0\0\0", commit[] = "b\0COMMIT\0\0\0";

    (void)state;
    for (unsigned i = 0; i < 2; i++) {
        struct fixture *f = follow(0);
        int fd, server;
        fixture_open_gate(f, 1);
        fd = session_open(f, &server);
        say(fd, 'P', i == 0 ? begin : commit, i == 0 ? sizeof begin - 1 : sizeof commit - 1);
        say(fd, 'S', "", 0);
        hear_types(f, server, "PS");
        say(server, '1', "", 0);
        say_ready(server, 'I');
        hear_types(f, fd, "1Z");
        if (i == 1)
            done(f, fd, server, "BEGIN", "BEGIN", 'T');
        else
            say(fd, 'D', "Sb", 3), hear_types(f, server, "D");
        lose(f, server);
        server = again(f, 2);
        hear_types(f, server, "PS");
        say(server, '1', "", 0);
        say_ready(server, 'I');
        say(fd, 'B', "\0b\0\0\0\0\0\0\0", 9);
        say(fd, 'E', "\0\0\0\0\0", 5);
        say(fd, 'S', "", 0);
        hear_plain_error(f, fd, "40001");
        hear_ready(f, fd, i == 0 ? 'E' : 'I');
        if (i == 0)
            spoil(f, server);
        hear_nothing(f, server, 20);
        over(f, fd, server);
    }
}

/* A text of which a part was committed, and this part was heard of. */
static void committed_in_part(void **state)
{
    struct fixture *f = follow(0);
    int fd, server;

    (void)state;
    fixture_open_gate(f, 1);
    fd = session_open(f, &server);
    ask(f, fd, server, "BEGIN; INSERT INTO t VALUES (1); COMMIT; SELECT 1");
    say(server, 'C', "BEGIN", 6);
    say(server, 'C', "INSERT 0 1", 11);
    say(server, 'C', "COMMIT", 7);
    for (unsigned i = 0; i < 3; i++)
        assert_int_equal(hear(f, fd, PATIENCE_MS, NULL, 0), 'C');
    lose(f, server);
    hear_plain_error(f, fd, "08007");
    hear_ready(f, fd, 'I');
    server = again(f, 2);
    over(f, fd, server);
}

/* The new server is gone before the session has been made again on it, and what was to be sent cannot be. */
static void lost_before_the_remake(void **state)
{
    struct fixture *f = follow(0);
    int fd, server;

    (void)state;
    fixture_open_gate(f, 1);
    fd = session_open(f, &server);
    done(f, fd, server, "SET work_mem = '1MB'", "SET", 'I');
    lose(f, server);
    server = again(f, 2);
    close(server);
    server = server_accept(f); /* the next try */
    server_log_in(server);
    remake(f, server, "work_mem");
    done(f, fd, server, "BEGIN", "BEGIN", 'T');
    /* Likewise, when a transaction is to be a failed one. */
    lose(f, server);
    server = again(f, 3);
    remake(f, server, "work_mem");
    run_for(f, 20);
    say(fd, 'Q', "SELECT 1", 9);
    close(server);
    hear_plain_error(f, fd, "40001");
    hear_ready(f, fd, 'E');
    server = server_accept(f);
    server_log_in(server);
    remake(f, server, "work_mem");
    spoil(f, server);
    over(f, fd, server);
}

/* Half a message cannot go on elsewhere; its client hears of it. */
static void half_a_message(void **state)
{
    struct fixture *f = follow(0);
    int fd, server;

    (void)state;
    fixture_open_gate(f, 1);
    fd = session_open(f, &server);
    assert_int_equal(send(fd, "Q\0\0\0\x0dSEL", 8, MSG_NOSIGNAL), 8);
    run_until_bytes(f, server, 8);
    hf_router_gate_shut(f->r);
    run_until(f, &f->shut, 1);
    hear_fatal(f, fd, "57P01");
    over(f, fd, server);
    f = follow(0);
    fixture_open_gate(f, 1);
    fd = session_open(f, &server);
    ask(f, fd, server, "COPY t FROM STDIN");
    say(server, 'G', "\0\0\0", 3);
    assert_int_equal(hear(f, fd, PATIENCE_MS, NULL, 0), 'G');
    assert_int_equal(send(fd, "d\0\0\0\x0dSEL", 8, MSG_NOSIGNAL), 8);
    run_until_bytes(f, server, 8);
    hf_router_gate_shut(f->r);
    run_until(f, &f->shut, 1);
    hear_fatal(f, fd, "08007");
    over(f, fd, server);
}

/* A second loss, in the middle of a message that is passed over. */
static void half_a_message_skipped(void **state)
{
    struct fixture *f = follow(0);
    int fd, server;

    (void)state;
    fixture_open_gate(f, 1);
    fd = session_open(f, &server);
    send_all(f, fd, server, "P", "SELECT 1");
    lose(f, server);
    hear_plain_error(f, fd, "40001");
    server = again(f, 2);
    assert_int_equal(send(fd, "B\0\0\0\x0c\0\0\0", 8, MSG_NOSIGNAL), 8);
    run_for(f, 20);
    lose(f, server);
    server = again(f, 3);
    assert_int_equal(send(fd, "\0\0\0\0\0", 5, MSG_NOSIGNAL), 5);
    say(fd, 'S', "", 0);
    hear_ready(f, fd, 'I');
    done(f, fd, server, "SELECT 1", "SELECT 1", 'I');
    over(f, fd, server);
}

/* A parameter whose change was not let pass is told when the session goes on with it. */
static void unheard_parameter(void **state)
{
    struct fixture *f = follow(0);
    char body[64];
    int fd, server;

    (void)state;
    fixture_open_gate(f, 1);
    fd = session_open(f, &server);
    say(server, 'S', "a\0" "1\0", 4);
    assert_int_equal(hear(f, fd, PATIENCE_MS, NULL, 0), 'S');
    hf_router_lease(f->r, hf_clock_ns());
    say(server, 'S', "a\0" "2\0", 4);
    RUN_UNTIL(f, hf_router_counts(f->r).lease_held == 1);
    lose(f, server);
    fixture_open_gate(f, 2);
    server = server_accept(f);
    server_check(server);
    say(server, 'R', "\0\0\0\0", 4);
    say(server, 'S', "a\0" "2\0", 4);
    say_ready(server, 'I');
    assert_int_equal(hear(f, fd, PATIENCE_MS, body, sizeof body), 'S');
    assert_memory_equal(body, "a\0" "2\0", 4);
    over(f, fd, server);
}

/* Prepared statements that are gone are forgotten; those that could not be made in time are not. */
static void remake_fails(void **state)
{
    static const char *const states[] = {"SERROR\0VERROR\0C42P01\0Mno\0", "SERROR\0VERROR\0C57014\0Mno\0"};

    (void)state;
    for (unsigned i = 0; i < 2; i++) {
        struct fixture *f = follow(0);
        int fd, server;
        fixture_open_gate(f, 1);
        fd = session_open(f, &server);
        say(fd, 'P', "s\0SELECT a FROM t\0\0\0", 20);
        say(fd, 'S', "", 0);
        assert_int_equal(hear(f, server, PATIENCE_MS, NULL, 0), 'P');
        assert_int_equal(hear(f, server, PATIENCE_MS, NULL, 0), 'S');
        say(server, '1', "", 0);
        say_ready(server, 'I');
        assert_int_equal(hear(f, fd, PATIENCE_MS, NULL, 0), '1');
        hear_ready(f, fd, 'I');
        lose(f, server);
        server = again(f, 2);
        while (hear(f, server, PATIENCE_MS, NULL, 0) != 'S')
            ;
        say(server, 'E', states[i], 26);
        if (i == 0) {
            say_ready(server, 'I');
            done(f, fd, server, "SELECT 1", "SELECT 1", 'I');
        } else {
            hear_fatal(f, fd, "57P01");
        }
        over(f, fd, server);
    }
}

static int serve(struct fixture *f, enum hf_router_to to, const char *hello, size_t n)
{
    int fds[2];

    assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0, fds), 0);
    hf_router_serve(f->r, fds[1], to);
    assert_int_equal(send(fds[0], hello, n, MSG_NOSIGNAL), n);
    return fds[0];
}

/* A node that does not follow sessions says the word to nobody: the other one may be of a version that does not know it. */
static void silent_gate(void **state)
{
    static const char hello[] = "\0\0\0\x12\0\3\0\0user\0app\0";
    struct fixture *f = fixture_open(0, 0, 0);
    int fd, server;

    (void)state;
    fixture_open_gate(f, 1);
    fd = serve(f, HF_TO_LEADER, hello, sizeof hello);
    server = server_accept(f);
    server_welcome(server);
    hear_ready(f, fd, 'I');
    hf_router_gate_shut(f->r);
    run_until(f, &f->shut, 1);
    hear_error(f, fd, "57P01");
    over(f, fd, server);
}

/* The gate's side, whose server ends without its last word, or with one: of what is not said the front makes the best. */
static void gates_server_ends(void **state)
{
    static const char hello[] = "\0\0\0\x12\0\3\0\0user\0app\0";
    struct fixture *f = follow(0);
    char body[64];
    uint64_t taken = 0;

    (void)state;
    fixture_open_gate(f, 1);
    for (int word = 0; word < 2; word++) {
        int fd = serve(f, HF_TO_LEADER, hello, sizeof hello), server = server_accept(f);
        server_welcome(server);
        hear_ready(f, fd, 'I');
        done(f, fd, server, "SELECT 1", "SELECT 1", 'I');
        if (word == 1)
            say(server, 'E', "SFATAL\0VFATAL\0C57P01\0Mno\0", 26);
        (void)shutdown(server, SHUT_WR);
        if (word == 1) {
            hear_error(f, fd, "57P01");
        } else {
            assert_int_equal(hear(f, fd, PATIENCE_MS, body, sizeof body), HF_WIRE_TAKEN);
            assert_true(hf_wire_taken_parse((uint8_t *)body, 8, &taken));
            assert_int_equal(taken, 14);
            hear_end(f, fd);
        }
        close(fd);
        close(server);
    }
    fixture_close(f);
}

/* A reader of another node's, whose follower is promoted: its own router takes it elsewhere, so it hears no last word. */
static void far_reader(void **state)
{
    static const char hello[] = "\0\0\0\x12\0\3\0\0user\0app\0";
    struct fixture *f = follow(0);
    int fd, server;

    (void)state;
    hf_router_follower_readable(f->r, true);
    fd = serve(f, HF_TO_FOLLOWER, hello, sizeof hello);
    server = server_accept(f);
    server_welcome(server);
    hear_ready(f, fd, 'I');
    hf_router_follower_readable(f->r, false);
    run_until(f, &f->readers_gone, 1);
    hear_end(f, fd);
    over(f, fd, server);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(gates_server_ends), cmocka_unit_test(goodbye),           cmocka_unit_test(extended_copy),
        cmocka_unit_test(extended_copy_drains), cmocka_unit_test(stays_inside),
        cmocka_unit_test(failed_twice),      cmocka_unit_test(committed_in_part),
        cmocka_unit_test(lost_before_the_remake), cmocka_unit_test(half_a_message),
        cmocka_unit_test(unheard_parameter), cmocka_unit_test(remake_fails),
        cmocka_unit_test(half_a_message_skipped), cmocka_unit_test(ends), cmocka_unit_test(prepared_ends),              cmocka_unit_test(silent_gate),       cmocka_unit_test(far_reader),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
