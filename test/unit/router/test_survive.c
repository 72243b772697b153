/* Sessions that outlive their server: what goes on, what is lost, and what nobody can know. */
#include <stdio.h>
#include <sys/socket.h>
#include <unistd.h>

#include "outlive.h"

static void counted(const struct fixture *f, unsigned moved, unsigned lost_40001, unsigned lost_08007)
{
    struct hf_router_counts c = hf_router_counts(f->r);

    assert_int_equal(c.moved, moved);
    assert_int_equal(c.lost_40001, lost_40001);
    assert_int_equal(c.lost_08007, lost_08007);
}

static void ended(const struct fixture *f, enum hf_ended how)
{
    struct hf_router_counts c = hf_router_counts(f->r);

    for (int i = 0; i < HF_ENDED_KINDS; i++)
        assert_int_equal(c.ended[i], i == (int)how);
}

static void idle(void **state)
{
    struct fixture *f = follow(0);
    int fd, server;

    (void)state;
    fixture_open_gate(f, 1);
    fd = session_open(f, &server);
    done(f, fd, server, "SET work_mem = '1MB'", "SET", 'I');
    lose(f, server);
    hear_nothing(f, fd, 50);
    say(fd, 'Q', "SELECT 1", 9); /* waits in the socket */
    server = again(f, 2);
    remake(f, server, "work_mem");
    assert_int_equal(hear(f, server, PATIENCE_MS, NULL, 0), 'Q');
    say(server, 'C', "SELECT 1", 9);
    say_ready(server, 'I');
    assert_int_equal(hear(f, fd, PATIENCE_MS, NULL, 0), 'C'); /* nothing of the login before */
    hear_ready(f, fd, 'I');
    hear_nothing(f, server, 50); /* and asked once */
    lose(f, server); /* as often as it likes */
    server = again(f, 3);
    remake(f, server, "work_mem");
    done(f, fd, server, "SELECT 2", "SELECT 1", 'I');
    counted(f, 2, 0, 0);
    close(fd);
    close(server);
    fixture_close(f);
}

static void in_a_transaction(void **state)
{
    struct fixture *f = follow(0);
    int fd, server;

    (void)state;
    fixture_open_gate(f, 1);
    fd = session_open(f, &server);
    done(f, fd, server, "BEGIN", "BEGIN", 'T');
    done(f, fd, server, "INSERT INTO t VALUES (1)", "INSERT 0 1", 'T');
    lose(f, server);
    hear_nothing(f, fd, 50);
    server = again(f, 2);
    say(fd, 'Q', " commit ;", 10); /* must not look as if it had worked; and drivers take it for the end */
    hear_plain_error(f, fd, "40001");
    hear_ready(f, fd, 'I');
    hear_nothing(f, server, 50);
    done(f, fd, server, "SELECT 1", "SELECT 1", 'I');
    /* Under way: told at once. */
    done(f, fd, server, "BEGIN", "BEGIN", 'T');
    ask(f, fd, server, "INSERT INTO t VALUES (2)");
    lose(f, server);
    hear_plain_error(f, fd, "40001");
    hear_ready(f, fd, 'E');
    server = again(f, 3);
    spoil(f, server);
    done(f, fd, server, "ROLLBACK", "ROLLBACK", 'I');
    /* Given up by the client itself. */
    done(f, fd, server, "BEGIN", "BEGIN", 'T');
    lose(f, server);
    server = again(f, 4);
    say(fd, 'Q', "ROLLBACK", 9);
    assert_int_equal(hear(f, fd, PATIENCE_MS, NULL, 0), 'C');
    hear_ready(f, fd, 'I');
    hear_nothing(f, server, 50);
    /* Not to be believed to be outside of it. */
    done(f, fd, server, "BEGIN", "BEGIN", 'T');
    lose(f, server);
    server = again(f, 5);
    say(fd, 'Q', "INSERT INTO t VALUES (3)", 25);
    hear_plain_error(f, fd, "40001");
    hear_ready(f, fd, 'E');
    spoil(f, server);
    lose(f, server); /* and again */
    server = again(f, 6);
    spoil(f, server);
    done(f, fd, server, "ROLLBACK", "ROLLBACK", 'I');
    counted(f, 5, 3, 0);
    close(fd);
    close(server);
    fixture_close(f);
}

static void unknown_outcome(void **state)
{
    static const char *const commits[] = {"COMMIT", "INSERT INTO t VALUES (1)", "UPDATE t SET i = 2; SELECT 1"};
    struct fixture *f = follow(0);
    uint64_t epoch = 1;
    int fd, server;

    (void)state;
    fixture_open_gate(f, epoch);
    fd = session_open(f, &server);
    for (size_t i = 0; i < 3; i++) {
        if (i == 0)
            done(f, fd, server, "BEGIN", "BEGIN", 'T'), done(f, fd, server, "DELETE FROM t", "DELETE 1", 'T');
        ask(f, fd, server, commits[i]);
        lose(f, server);
        hear_plain_error(f, fd, "08007");
        hear_ready(f, fd, 'I');
        server = again(f, ++epoch);
        hear_nothing(f, server, 50); /* never a second time */
    }
    ask(f, fd, server, "SELECT 1");
    lose(f, server);
    hear_plain_error(f, fd, "40001");
    hear_ready(f, fd, 'I');
    server = again(f, ++epoch);
    done(f, fd, server, "SELECT 1", "SELECT 1", 'I');
    counted(f, 4, 1, 3);
    close(fd);
    close(server);
    fixture_close(f);
}

/* What PostgreSQL had said and the gate had not let pass is never heard, and what it was about is not known. */
static void withheld(void **state)
{
    struct fixture *f = follow(0);
    int fd, server;

    (void)state;
    fixture_open_gate(f, 1);
    fd = session_open(f, &server);
    hf_router_lease(f->r, hf_clock_ns());
    ask(f, fd, server, "INSERT INTO t VALUES (1)");
    say(server, 'C', "INSERT 0 1", 11);
    say_ready(server, 'I');
    RUN_UNTIL(f, hf_router_counts(f->r).lease_held == 1);
    lose(f, server);
    hear_plain_error(f, fd, "08007");
    hear_ready(f, fd, 'I');
    server = again(f, 2);
    assert_int_equal(hear(f, fd, PATIENCE_MS, NULL, 0), 'S'); /* what was withheld may have said something else */
    done(f, fd, server, "SELECT 1", "SELECT 1", 'I');
    close(fd);
    close(server);
    fixture_close(f);
}

static void extended(void **state)
{
    struct fixture *f = follow(0);
    int fd, server;

    (void)state;
    fixture_open_gate(f, 1);
    fd = session_open(f, &server);
    say(fd, 'P', "\0INSERT INTO t VALUES (1)\0\0\0", 28);
    say(fd, 'B', "\0\0\0\0\0\0\0\0", 8);
    say(fd, 'H', "", 0);
    assert_int_equal(hear(f, server, PATIENCE_MS, NULL, 0), 'P');
    assert_int_equal(hear(f, server, PATIENCE_MS, NULL, 0), 'B');
    assert_int_equal(hear(f, server, PATIENCE_MS, NULL, 0), 'H');
    lose(f, server);
    assert_int_equal(hear(f, fd, PATIENCE_MS, NULL, 0), 'E');
    say(fd, 'E', "\0\0\0\0\0", 5); /* up to the Sync nothing counts */
    server = again(f, 2);
    say(fd, 'B', "\0\0\0\0\0\0\0\0", 8);
    hear_nothing(f, fd, 50);
    say(fd, 'S', "", 0);
    hear_ready(f, fd, 'I');
    hear_nothing(f, server, 50);
    done(f, fd, server, "SELECT 1", "SELECT 1", 'I');
    /* In a transaction, and idle: the first batch is told. */
    done(f, fd, server, "BEGIN", "BEGIN", 'T');
    lose(f, server);
    server = again(f, 3);
    say(fd, 'P', "\0SELECT 2\0\0\0", 12);
    hear_plain_error(f, fd, "40001");
    say(fd, 'S', "", 0);
    hear_ready(f, fd, 'E');
    spoil(f, server);
    hear_nothing(f, server, 50);
    done(f, fd, server, "ROLLBACK", "ROLLBACK", 'I');
    done(f, fd, server, "BEGIN", "BEGIN", 'T');
    lose(f, server);
    server = again(f, 4);
    say(fd, 'P', "\0COMMIT\0\0\0", 10);
    hear_plain_error(f, fd, "40001");
    say(fd, 'B', "\0\0\0\0\0\0\0\0", 8);
    say(fd, 'E', "\0\0\0\0\0", 5);
    say(fd, 'S', "", 0);
    hear_ready(f, fd, 'I');
    hear_nothing(f, server, 50);
    done(f, fd, server, "SELECT 1", "SELECT 1", 'I');
    close(fd);
    close(server);
    fixture_close(f);
}

/* A named statement is closed, and a Query follows without a Sync: that is all there is to it. */
static void closed_and_done(struct fixture *f, int fd, int server)
{
    say(fd, 'C', "Sq", 3);
    say(fd, 'Q', "SELECT 1", 9);
    assert_int_equal(hear(f, server, PATIENCE_MS, NULL, 0), 'C');
    assert_int_equal(hear(f, server, PATIENCE_MS, NULL, 0), 'Q');
    say(server, '3', "", 0);
    say(server, 'C', "SELECT 1", 9);
    say_ready(server, 'I');
    assert_int_equal(hear(f, fd, PATIENCE_MS, NULL, 0), '3');
    assert_int_equal(hear(f, fd, PATIENCE_MS, NULL, 0), 'C');
    hear_ready(f, fd, 'I');
}

/* Answered: nothing is owed, so nothing is said, and what comes next is done. */
static void query_without_sync(void **state)
{
    struct fixture *f = follow(0);
    int fd, server;

    (void)state;
    fixture_open_gate(f, 1);
    fd = session_open(f, &server);
    closed_and_done(f, fd, server);
    lose(f, server);
    hear_nothing(f, fd, 50);
    server = again(f, 2);
    done(f, fd, server, "SELECT 2", "SELECT 1", 'I');
    counted(f, 1, 0, 0);
    close(fd);
    close(server);
    fixture_close(f);
}

/* Not answered, or not even asked: its client waits for one ReadyForQuery, behind the Query. */
static void query_without_sync_is_lost(void **state)
{
    static const struct {
        const char *sql;
        char status;
    } cases[] = {{"SELECT 1", 'E'}, {"COMMIT", 'I'}, {"ROLLBACK", 'I'}};
    struct fixture *f = follow(0);
    uint64_t epoch = 1;
    int fd, server;

    (void)state;
    fixture_open_gate(f, epoch);
    fd = session_open(f, &server);
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) { /* idle in a transaction */
        done(f, fd, server, "BEGIN", "BEGIN", 'T');
        lose(f, server);
        server = again(f, ++epoch);
        say(fd, 'C', "Sq", 3);
        hear_plain_error(f, fd, "40001");
        say(fd, 'Q', cases[i].sql, strlen(cases[i].sql) + 1);
        hear_ready(f, fd, cases[i].status);
        if (cases[i].status == 'E') {
            spoil(f, server);
            done(f, fd, server, "ROLLBACK", "ROLLBACK", 'I');
        }
        hear_nothing(f, server, 50);
    }
    for (unsigned answered = 0; answered < 2; answered++) { /* lost between the two; they may be in one transaction, or in none */
        say(fd, 'C', "Sq", 3);
        assert_int_equal(hear(f, server, PATIENCE_MS, NULL, 0), 'C');
        if (answered == 1) {
            say(server, '3', "", 0);
            assert_int_equal(hear(f, fd, PATIENCE_MS, NULL, 0), '3');
        }
        lose(f, server);
        if (answered == 0)
            hear_plain_error(f, fd, "40001");
        hear_nothing(f, fd, 20);
        server = again(f, ++epoch);
        say(fd, 'Q', "INSERT INTO t VALUES (1)", 25);
        if (answered == 1) /* it waited for nothing before */
            hear_plain_error(f, fd, "40001");
        hear_ready(f, fd, 'I');
        hear_nothing(f, server, 50);
        done(f, fd, server, "SELECT 1", "SELECT 1", 'I');
    }
    close(fd);
    close(server);
    fixture_close(f);
}

/* PostgreSQL has refused what is in front of a Query: it passes over that, too, up to the Sync. So does the next one. */
static void refused_before_a_query(void **state)
{
    struct fixture *f = follow(0);
    int fd, server;

    (void)state;
    fixture_open_gate(f, 1);
    fd = session_open(f, &server);
    say(fd, 'P', "\0nonsense\0\0\0", 12);
    say(fd, 'Q', "SELECT 1", 9);
    assert_int_equal(hear(f, server, PATIENCE_MS, NULL, 0), 'P');
    assert_int_equal(hear(f, server, PATIENCE_MS, NULL, 0), 'Q');
    say(server, 'E', "SERROR\0VERROR\0C42601\0Mno\0", 26);
    hear_plain_error(f, fd, "42601");
    lose(f, server);
    hear_nothing(f, fd, 50);
    server = again(f, 2);
    say(fd, 'B', "\0\0\0\0\0\0\0\0", 8);
    say(fd, 'E', "\0\0\0\0\0", 5);
    hear_nothing(f, server, 50);
    say(fd, 'S', "", 0);
    hear_ready(f, fd, 'I');
    done(f, fd, server, "SELECT 2", "SELECT 1", 'I');
    close(fd);
    close(server);
    fixture_close(f);
}

static void say_run(int fd, const char *sql)
{
    char body[64] = "";
    size_t n = strlen(sql);

    memcpy(body + 1, sql, n);
    say(fd, 'P', body, n + 4);
    say(fd, 'B', "\0\0\0\0\0\0\0\0", 8);
    say(fd, 'E', "\0\0\0\0\0", 5);
}

/* A lost transaction's client has not been told yet when its next server is left without a loss: it still believes to be inside. */
static void left_before_it_is_told(void **state)
{
    struct fixture *f = follow(0);
    int fd, leader;

    (void)state;
    fd = tunnel_open(f, &leader);
    done(f, fd, leader, "BEGIN", "BEGIN", 'T');
    close(leader);
    run_until(f, &f->dials, 2);
    leader = tunnel_log_in(f);
    RUN_UNTIL(f, hf_router_counts(f->r).moved == 1);
    say_taken(leader, world.said);
    close(leader);
    run_until(f, &f->dials, 3);
    leader = tunnel_log_in(f);
    for (unsigned i = 0; i < 2; i++) {
        say_run(fd, "INSERT INTO t VALUES (1)");
        say(fd, 'S', "", 0);
    }
    hear_plain_error(f, fd, "40001");
    hear_ready(f, fd, 'E');
    spoil(f, leader);
    hear_types(f, leader, "PBES");
    say(leader, 'E', "SERROR\0VERROR\0C25P02\0Mno\0", 26);
    say_ready(leader, 'E');
    hear_plain_error(f, fd, "25P02");
    hear_ready(f, fd, 'E');
    counted(f, 2, 1, 0);
    close(fd);
    close(leader);
    fixture_close(f);
}

/* All is answered, and no Sync has come: its client waits for nothing, and hears the error when it says more, once. */
static void answered_without_sync(void **state)
{
    static const char insert[] = "INSERT INTO t VALUES (1)";
    static const struct {
        const char *batch, *tag, *sqlstate;
        const char *first; /* what comes next: its error comes before the rest is said */
        unsigned losses;
        bool inside;
    } cases[] = {{"SELECT 1", "SELECT 1", "40001", "BES", 1, false}, {"SELECT 1", "SELECT 1", "40001", "S", 1, false}, {"SELECT 1", "SELECT 1", "40001", "Q", 1, false},
                 {"SELECT 1", "SELECT 1", "40001", "HQ", 2, false}, {insert, "INSERT 0 1", "08007", "BES", 2, false},
                 {insert, "INSERT 0 1", "08007", "S", 1, false}, {insert, "INSERT 0 1", "08007", "CQ", 2, false},
                 {insert, "INSERT 0 1", "40001", "BQS", 1, true}, {insert, "INSERT 0 1", "40001", "Q", 2, true}};
    struct fixture *f = follow(0);
    unsigned moved = 0;
    int fd, server;

    (void)state;
    fixture_open_gate(f, 1);
    fd = session_open(f, &server);
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        if (cases[i].inside)
            done(f, fd, server, "BEGIN", "BEGIN", 'T');
        say_run(fd, cases[i].batch);
        say(fd, 'H', "", 0);
        hear_types(f, server, "PBEH");
        say(server, '1', "", 0);
        say(server, '2', "", 0);
        say(server, 'C', cases[i].tag, strlen(cases[i].tag) + 1);
        hear_types(f, fd, "12C");
        for (unsigned k = 0; k < cases[i].losses; k++) {
            lose(f, server);
            hear_nothing(f, fd, 20);
            server = again(f, ++moved + 1);
            if (cases[i].inside)
                spoil(f, server);
            RUN_UNTIL(f, hf_router_counts(f->r).moved == moved);
        }
        for (const char *p = cases[i].first; *p != '\0'; p++) {
            if (*p == 'C')
                say(fd, *p, "Sq", 3);
            else
                say(fd, *p, *p == 'Q' ? "SELECT 1" : "\0\0\0\0\0\0\0\0", *p == 'Q' ? 9 : *p == 'B' ? 8 : *p == 'E' ? 5 : 0);
            if (*p == 'H')
                hear_nothing(f, fd, 20);
            else if (p == cases[i].first || p[-1] == 'H')
                hear_plain_error(f, fd, cases[i].sqlstate);
            if (p[1] != '\0')
                hear_nothing(f, fd, 20);
        }
        hear_ready(f, fd, cases[i].inside ? 'E' : 'I');
        hear_nothing(f, fd, 20);
        hear_nothing(f, server, 20);
        done(f, fd, server, cases[i].inside ? "ROLLBACK" : "SELECT 1", cases[i].inside ? "ROLLBACK" : "SELECT 1", 'I');
    }
    counted(f, moved, 6, 3);
    close(fd);
    close(server);
    fixture_close(f);
}

/* And it ends before that: what is not known is not kept from it. */
static void ended_before_it_is_told(void **state)
{
    struct fixture *f = follow(0);
    char body[512] = {0};
    int fd, server;

    (void)state;
    fixture_open_gate(f, 1);
    fd = session_open(f, &server);
    say_run(fd, "INSERT INTO t VALUES (1)");
    say(fd, 'H', "", 0);
    hear_types(f, server, "PBEH");
    say(server, '1', "", 0);
    say(server, '2', "", 0);
    say(server, 'C', "INSERT 0 1", 11);
    hear_types(f, fd, "12C");
    lose(f, server);
    world.guard = NULL; /* the second one cannot be left */
    server = again(f, 2);
    RUN_UNTIL(f, hf_router_counts(f->r).moved == 1);
    lose(f, server);
    assert_int_equal(hear(f, fd, PATIENCE_MS, body, sizeof body), 'E');
    assert_memory_equal(body, "SFATAL\0VFATAL\0C08007\0", 21);
    hear_end(f, fd);
    ended(f, HF_ENDED_08007);
    close(fd);
    fixture_close(f);
}

/* pgjdbc's autosave, in one go: of what is not answered, what the server has not refused on its own is passed over with the first. */
static void query_in_a_batch(void **state)
{
    static const char commits[] = "COMMIT", saves[] = "SAVEPOINT a";
    struct fixture *f = follow(0);
    uint64_t epoch = 1;
    int fd, server;

    (void)state;
    fixture_open_gate(f, epoch);
    fd = session_open(f, &server);
    for (unsigned answered = 0; answered < 2; answered++) {
        say_run(fd, "BEGIN");
        say(fd, 'Q', saves, sizeof saves);
        say_run(fd, "INSERT INTO t VALUES (1)");
        say(fd, 'S', "", 0);
        hear_types(f, server, "PBEQPBES");
        if (answered == 1) {
            say(server, '1', "", 0);
            say(server, '2', "", 0);
            say(server, 'C', "BEGIN", 6);
            hear_types(f, fd, "12C");
        }
        lose(f, server);
        for (unsigned i = 0; i <= answered; i++) {
            hear_plain_error(f, fd, "40001");
            hear_ready(f, fd, 'E');
        }
        hear_nothing(f, fd, 50);
        server = again(f, ++epoch);
        spoil(f, server);
        done(f, fd, server, "ROLLBACK", "ROLLBACK", 'I');
    }
    /* A COMMIT that the server may have done; and up to the Sync nothing counts. */
    say_run(fd, "INSERT INTO t VALUES (1)");
    say(fd, 'Q', commits, sizeof commits);
    hear_types(f, server, "PBEQ");
    lose(f, server);
    hear_plain_error(f, fd, "08007");
    server = again(f, ++epoch);
    say(fd, 'C', "Sq", 3);
    say(fd, 'Q', "SELECT 1", 9);
    hear_nothing(f, fd, 50);
    say(fd, 'S', "", 0);
    hear_ready(f, fd, 'I');
    hear_nothing(f, server, 50);
    done(f, fd, server, "SELECT 2", "SELECT 1", 'I');
    /* All is answered: its client waits for nothing, and the error is the Query's. */
    say_run(fd, "SELECT 1");
    hear_types(f, server, "PBE");
    say(server, '1', "", 0);
    say(server, '2', "", 0);
    say(server, 'C', "SELECT 1", 9);
    hear_types(f, fd, "12C");
    lose(f, server);
    hear_nothing(f, fd, 20);
    server = again(f, ++epoch);
    say(fd, 'Q', saves, sizeof saves);
    hear_plain_error(f, fd, "40001");
    hear_ready(f, fd, 'I');
    hear_nothing(f, server, 50);
    done(f, fd, server, "SELECT 2", "SELECT 1", 'I');
    counted(f, 4, 4, 1);
    close(fd);
    close(server);
    fixture_close(f);
}

/* The server's own last word is not taken back. */
static void ended_by_postgresql(void **state)
{
    struct fixture *f = follow(0);
    char body[512];
    int fd, server;

    (void)state;
    fixture_open_gate(f, 1);
    fd = session_open(f, &server);
    say(server, 'E', "SFATAL\0VFATAL\0C57P01\0Mby an administrator\0", 43);
    close(server);
    assert_int_equal(hear(f, fd, PATIENCE_MS, body, sizeof body), 'E');
    hear_end(f, fd);
    ended(f, HF_ENDED_POSTGRESQL);
    assert_false(server_is_asked(f, 50));
    close(fd);
    fixture_close(f);
}

/* Also in the middle of something: an administrator has ended it, and means it. */
static void ended_while_busy(void **state)
{
    struct fixture *f = follow(0);
    int fd, server;

    (void)state;
    fixture_open_gate(f, 1);
    fd = session_open(f, &server);
    ask(f, fd, server, "SELECT 1");
    say(server, 'E', "SFATAL\0VFATAL\0C57P01\0Mby an administrator\0", 43);
    close(server);
    assert_int_equal(hear(f, fd, PATIENCE_MS, NULL, 0), 'E');
    hear_end(f, fd);
    assert_false(server_is_asked(f, 50));
    close(fd);
    fixture_close(f);
}

/* Through tunnels; parameters that differ are told; the client's cancel key stays good. */
static void tunnels(void **state)
{
    static const char cancel[] = "\0\0\0\x10\x04\xd2\x16\x2e\0\0\1\2\1\2\3\4", now[] = "\0\0\0\x10\x04\xd2\x16\x2e\0\0\7\7\5\5\5\5";
    struct fixture *f = follow(0);
    char hello[64], body[64];
    int fd, leader, c;

    (void)state;
    hf_router_leader(f->r, HF_LEADER_ELSEWHERE, 1);
    fd = client_start(f, false);
    run_until(f, &f->dials, 1);
    leader = dial_take(f);
    leader_tell(f, leader);
    run_until_bytes(f, leader, 18);
    assert_int_equal(recv(leader, hello, sizeof hello, 0), 18);
    server_check(leader);
    say(leader, 'R', "\0\0\0\0", 4);
    say(leader, 'S', "a\0" "1\0", 4);
    say(leader, 'S', "b\0" "1\0", 4);
    say_held(leader, "none");
    say(leader, 'K', "\0\0\1\2\1\2\3\4", 8);
    say_ready(leader, 'I');
    hear_ready(f, fd, 'I');
    close(leader);
    run_until(f, &f->dials, 2);
    leader = dial_take(f);
    run_until_bytes(f, leader, 18);
    assert_int_equal(recv(leader, hello, sizeof hello, 0), 18);
    server_check(leader);
    say(leader, 'R', "\0\0\0\0", 4);
    say(leader, 'S', "a\0" "1\0", 4);
    say(leader, 'S', "b\0" "2\0", 4);
    say_held(leader, "none");
    say(leader, 'K', "\0\0\7\7\5\5\5\5", 8);
    say_ready(leader, 'I');
    assert_int_equal(hear(f, fd, PATIENCE_MS, body, sizeof body), 'S');
    assert_memory_equal(body, "b\0" "2\0", 4);
    hear_nothing(f, fd, 50);
    c = client_connect(f, false);
    assert_int_equal(send(c, cancel, 16, MSG_NOSIGNAL), 16);
    run_until(f, &f->dials, 3);
    {
        int cancelled = dial_take(f);
        run_until_bytes(f, cancelled, 16);
        assert_int_equal(recv(cancelled, hello, sizeof hello, 0), 16);
        assert_memory_equal(hello, now, 16);
        close(cancelled);
    }
    hear_end(f, c);
    close(c);
    close(fd);
    close(leader);
    fixture_close(f);
}


/* A gate says how much it took: the rest is asked of the next one, once, and nobody hears of it. */
static void not_taken(void **state)
{
    struct fixture *f = follow(0);
    uint64_t login;
    int fd, leader;

    (void)state;
    fd = tunnel_open(f, &leader);
    login = world.said;
    done(f, fd, leader, "SELECT 1", "SELECT 1", 'I');
    say(fd, 'Q', "INSERT INTO t VALUES (1)", 25); /* lies in the tunnel */
    run_until_bytes(f, leader, 30);
    say_taken(leader, login + 14);
    close(leader);
    run_until(f, &f->dials, 2);
    leader = tunnel_log_in(f);
    hear_nothing(f, fd, 20);
    assert_int_equal(hear(f, leader, PATIENCE_MS, NULL, 0), 'Q');
    say(leader, 'C', "INSERT 0 1", 11);
    say_ready(leader, 'I');
    assert_int_equal(hear(f, fd, PATIENCE_MS, NULL, 0), 'C');
    hear_ready(f, fd, 'I');
    hear_nothing(f, leader, 20);
    /* Half a statement, and the word in pieces. */
    login = world.said + 30;
    assert_int_equal(send(fd, "Q\0\0\0\x0dSEL", 8, MSG_NOSIGNAL), 8);
    run_until_bytes(f, leader, 8);
    {
        uint8_t out[HF_WIRE_TAKEN_BYTES];
        (void)hf_wire_taken(out, login);
        for (size_t i = 0; i < sizeof out; i++) {
            assert_int_equal(send(leader, out + i, 1, MSG_NOSIGNAL), 1);
            run_for(f, 2);
        }
    }
    close(leader);
    run_until(f, &f->dials, 3);
    leader = tunnel_log_in(f);
    assert_int_equal(send(fd, "ECT 2\0", 6, MSG_NOSIGNAL), 6);
    assert_int_equal(hear(f, leader, PATIENCE_MS, NULL, 0), 'Q');
    say_ready(leader, 'I');
    hear_ready(f, fd, 'I');
    close(fd);
    close(leader);
    fixture_close(f);
}

static void say_bind(int fd)
{
    say(fd, 'B', "\0\0\0\0\0\0\0\0", 8);
    say(fd, 'E', "\0\0\0\0\0", 5);
    say(fd, 'S', "", 0);
}

/* What was not taken runs the unnamed statement that the gate's server had: it is made again, but not where something replaces it that was
 * not taken either. */
static void not_taken_unnamed(void **state)
{
    enum { BIND_BYTES = 13 + 10 + 5, PARSE_BYTES = 17 };
    static const char first[] = "\0SELECT 1\0\0\0", second[] = "\0SELECT 2\0\0\0";

    (void)state;
    for (unsigned i = 0; i < 4; i++) {
        bool share = (i & 1) != 0, replaced = i >= 2;
        struct fixture *f = fixture_open_with(&(struct hf_router_config){.follow = true, .share = share, .max_servers = 1});
        char body[64] = {0};
        uint64_t login;
        int fd, leader;
        world.guard = "none";
        fd = tunnel_open(f, &leader);
        login = world.said;
        say(fd, 'P', first, sizeof first - 1);
        say(fd, 'S', "", 0);
        hear_types(f, leader, "PS");
        say(leader, '1', "", 0);
        say_ready(leader, 'I');
        hear_types(f, fd, "1Z");
        say_bind(fd); /* lies in the tunnel */
        if (replaced) {
            say(fd, 'P', second, sizeof second - 1);
            say(fd, 'S', "", 0);
        }
        run_until_bytes(f, leader, BIND_BYTES + (replaced ? PARSE_BYTES + 5 : 0));
        say_taken(leader, login + PARSE_BYTES + 5);
        close(leader);
        run_until(f, &f->dials, 2);
        leader = tunnel_log_in(f);
        if (!replaced) {
            assert_int_equal(hear(f, leader, PATIENCE_MS, body, sizeof body), 'P');
            assert_memory_equal(body, first, sizeof first - 1);
            hear_types(f, leader, "S");
            say(leader, '1', "", 0);
            say_ready(leader, 'I');
        }
        hear_types(f, leader, replaced ? "BESPS" : "BES");
        hear_nothing(f, leader, 20);
        hear_nothing(f, fd, 0);
        close(fd);
        close(leader);
        fixture_close(f);
    }
}

/* It is idle, and shares nothing: as where connections are shared. If the statement cannot be made again, as with its table locked, the session
 * goes on without it. */
static void unnamed_when_idle(void **state)
{
    static const char text[] = "\0SELECT 1\0\0\0";

    (void)state;
    for (unsigned locked = 0; locked < 2; locked++) {
        struct fixture *f = follow(0);
        int fd, server;
        fixture_open_gate(f, 1);
        fd = session_open(f, &server);
        say(fd, 'P', text, sizeof text - 1);
        say(fd, 'S', "", 0);
        hear_types(f, server, "PS");
        say(server, '1', "", 0);
        say_ready(server, 'I');
        hear_types(f, fd, "1Z");
        lose(f, server);
        server = again(f, 2);
        if (locked) {
            hear_types(f, server, "PBEPS");
            say(server, 'E', "SERROR\0VERROR\0C55P03\0Mno\0", 26);
            say_ready(server, 'I');
        } else {
            remake(f, server, "SELECT 1");
        }
        say_bind(fd);
        hear_types(f, server, "BES");
        close(fd);
        close(server);
        fixture_close(f);
    }
}

/* A COMMIT that its client only prepares ends nothing, and what is prepared by name and run later in what is skipped is what was last said of it;
 * and a BEGIN that is prepared already is about to begin when its Bind is read. */
static void prepared_is_not_done(void **state)
{
    static const char insert[] = "INSERT INTO t VALUES (1)";

    (void)state;
    for (unsigned how = 0; how < 4; how++) {
        struct fixture *f = follow(0);
        int fd, server;
        fixture_open_gate(f, 1);
        fd = session_open(f, &server);
        if (how == 3) { /* something else replaces it, and comes in two pieces */
            assert_int_equal(setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &(int){1}, sizeof(int)), 0);
            done(f, fd, server, "BEGIN", "BEGIN", 'T');
            lose(f, server);
            server = again(f, 2);
            say(fd, 'P', "\0COMMIT\0\0\0", 10);
            assert_int_equal(send(fd, "P\0\0\0\x10\0SEL", 9, MSG_NOSIGNAL), 9);
            run_for(f, 20);
            assert_int_equal(send(fd, "ECT 1\0\0\0", 8, MSG_NOSIGNAL), 8);
            say(fd, 'B', "\0\0\0\0\0\0\0\0", 8);
            say(fd, 'E', "\0\0\0\0\0", 5);
            say(fd, 'S', "", 0);
        } else if (how < 2) {
            done(f, fd, server, "BEGIN", "BEGIN", 'T');
            lose(f, server);
            server = again(f, 2);
            say(fd, 'P', "c\0COMMIT\0\0\0", 11);
            if (how == 1) { /* and is run in the same batch */
                say(fd, 'P', "\0SELECT 1\0\0\0", 12);
                say(fd, 'B', "\0c\0\0\0\0\0\0\0", 9);
                say(fd, 'E', "\0\0\0\0\0", 5);
            }
            say(fd, 'S', "", 0);
        } else {
            say(fd, 'P', "b\0BEGIN\0\0\0", 10);
            say(fd, 'S', "", 0);
            hear_types(f, server, "PS");
            say(server, '1', "", 0);
            say_ready(server, 'I');
            hear_types(f, fd, "1Z");
            say(fd, 'B', "\0b\0\0\0\0\0\0\0", 9);
            hear_types(f, server, "B");
            lose(f, server);
            say(fd, 'E', "\0\0\0\0\0", 5);
            say(fd, 'S', "", 0);
        }
        say_run(fd, insert);
        say(fd, 'S', "", 0);
        hear_plain_error(f, fd, "40001");
        if (how == 2) {
            server = again(f, 2);
            remake(f, server, "BEGIN");
            spoil(f, server);
        }
        hear_ready(f, fd, how == 1 ? 'I' : 'E');
        if (how == 0 || how == 3)
            spoil(f, server);
        hear_types(f, server, "PBES");
        close(fd);
        close(server);
        fixture_close(f);
    }
}

/* One that has settings is in a failed transaction, and its next server is lost, too: it is told nothing that a failed transaction's client
 * cannot be told. */
static void lost_twice_in_a_transaction(void **state)
{
    struct fixture *f = follow(0);
    int fd, server;

    (void)state;
    fixture_open_gate(f, 1);
    fd = session_open(f, &server);
    done(f, fd, server, "SET work_mem = '1MB'", "SET", 'I');
    done(f, fd, server, "BEGIN", "BEGIN", 'T');
    ask(f, fd, server, "INSERT INTO t VALUES (1)");
    lose(f, server);
    hear_plain_error(f, fd, "40001");
    hear_ready(f, fd, 'E');
    server = again(f, 2);
    remake(f, server, "work_mem");
    spoil(f, server);
    ask(f, fd, server, "INSERT INTO t VALUES (2)");
    lose(f, server);
    hear_plain_error(f, fd, "40001");
    hear_ready(f, fd, 'E');
    close(fd);
    fixture_close(f);
}

static void stand_still(void *arg)
{
    uv_mutex_lock(arg);
    uv_mutex_unlock(arg);
}

/* The gate's word is there when its leadership is known to be over, but the thread has had no time to see it. */
static void word_seen_late(void **state)
{
    struct fixture *f = follow(0);
    uv_mutex_t busy;
    uint64_t login;
    int fd, leader;

    (void)state;
    fd = tunnel_open(f, &leader);
    login = world.said;
    done(f, fd, leader, "SELECT 1", "SELECT 1", 'I');
    say(fd, 'Q', "INSERT INTO t VALUES (1)", 25);
    run_until_bytes(f, leader, 30);
    assert_int_equal(uv_mutex_init(&busy), 0);
    uv_mutex_lock(&busy);
    for (unsigned i = 0; i < f->r->n_threads; i++)
        hf_mailbox_post(f->r->threads[i].mailbox, stand_still, &busy);
    usleep(50000);
    hf_thread_wake(f->r); /* what is posted is seen before the socket */
    say_taken(leader, login + 14);
    hf_router_leader(f->r, HF_LEADER_ELSEWHERE, 2);
    uv_mutex_unlock(&busy);
    run_until(f, &f->dials, 2);
    close(leader);
    leader = tunnel_log_in(f);
    hear_nothing(f, fd, 20);
    assert_int_equal(hear(f, leader, PATIENCE_MS, NULL, 0), 'Q');
    say(leader, 'C', "INSERT 0 1", 11);
    say_ready(leader, 'I');
    assert_int_equal(hear(f, fd, PATIENCE_MS, NULL, 0), 'C');
    hear_ready(f, fd, 'I');
    close(fd);
    close(leader);
    fixture_close(f);
    uv_mutex_destroy(&busy); /* every thread has let it go */
}

/* A front that does not follow takes the word for what it is: the end. */
static void word_for_others(void **state)
{
    struct fixture *f = fixture_open(0, 0, 0);
    int fd, leader;

    (void)state;
    fd = tunnel_open(f, &leader);
    say_taken(leader, world.said);
    close(leader);
    hear_error(f, fd, "57P01");
    ended(f, HF_ENDED_57P01);
    close(fd);
    fixture_close(f);
    /* And PostgreSQL's own messages are the client's, whatever type they have. */
    f = follow(0);
    fixture_open_gate(f, 1);
    fd = session_open(f, &leader);
    say_taken(leader, 0);
    assert_int_equal(hear(f, fd, PATIENCE_MS, NULL, 0), HF_WIRE_TAKEN);
    close(fd);
    close(leader);
    fixture_close(f);
}

/* Without the word, with one that is cut, and with one that cannot be true, what was sent counts as taken. */
static void taken_perhaps(void **state)
{
    struct fixture *f = follow(0);
    uint64_t login;
    int fd, leader;

    (void)state;
    fd = tunnel_open(f, &leader);
    for (unsigned i = 0; i < 3; i++) {
        login = world.said;
        say(fd, 'Q', "INSERT INTO t VALUES (1)", 25);
        run_until_bytes(f, leader, 30);
        if (i == 1)
            assert_int_equal(send(leader, "^\0\0\0\x0c\0\0", 7, MSG_NOSIGNAL), 7);
        if (i == 2)
            say_taken(leader, login + 31);
        close(leader);
        hear_plain_error(f, fd, "08007");
        hear_ready(f, fd, 'I');
        run_until(f, &f->dials, 2 + i);
        leader = tunnel_log_in(f);
        hear_nothing(f, leader, 20);
    }
    done(f, fd, leader, "SELECT 1", "SELECT 1", 'I');
    close(fd);
    close(leader);
    fixture_close(f);
}

/* More than is kept of what was sent. */
static void too_much_to_keep(void **state)
{
    static char big[HF_ROUTER_READ_BYTES + 6];
    struct fixture *f = follow(0);
    uint64_t login;
    int fd, leader;

    (void)state;
    fd = tunnel_open(f, &leader);
    login = world.said;
    memset(big, ' ', sizeof big);
    memcpy(big, "Q\0\1\0\5SELECT 1", 13);
    big[sizeof big - 1] = '\0';
    assert_int_equal(send(fd, big, sizeof big, MSG_NOSIGNAL), sizeof big);
    RUN_UNTIL(f, hf_router_counts(f->r).bytes_in >= sizeof big);
    run_for(f, 20);
    say_taken(leader, login);
    (void)shutdown(leader, SHUT_WR);
    assert_int_equal(hear(f, fd, PATIENCE_MS, NULL, 0), 'E');
    hear_ready(f, fd, 'I');
    close(fd);
    close(leader);
    fixture_close(f);
}

/* The gate's side: a session from a tunnel is told how much was taken, if nothing of it is under way. */
static void gates_word(void **state)
{
    static const char hello[] = "\0\0\0\x12\0\3\0\0user\0app\0";
    struct fixture *f = follow(0);
    uint8_t body[64];
    uint64_t taken = 0;
    unsigned drained = 0;

    (void)state;
    for (unsigned i = 0; i < 3; i++) {
        int fds[2], server;
        fixture_open_gate(f, 1 + i);
        assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0, fds), 0);
        hf_router_serve(f->r, fds[1], HF_TO_LEADER);
        assert_int_equal(send(fds[0], hello, sizeof hello, MSG_NOSIGNAL), sizeof hello);
        server = server_accept(f);
        server_welcome(server);
        hear_ready(f, fds[0], 'I');
        done(f, fds[0], server, "SELECT 1", "SELECT 1", 'I');
        if (i == 1)
            ask(f, fds[0], server, "SELECT 1");
        if (i == 2)
            closed_and_done(f, fds[0], server); /* the Close may be the other node's router's own */
        hf_router_gate_drain(f->r);
        run_for(f, 30);
        if (i != 1)
            run_until(f, &f->drained, ++drained);
        say(fds[0], 'Q', "SELECT 2", 9);
        hf_router_gate_shut(f->r);
        run_until(f, &f->shut, 1 + i);
        if (i != 1) {
            assert_int_equal(hear(f, fds[0], PATIENCE_MS, (char *)body, sizeof body), HF_WIRE_TAKEN);
            assert_true(hf_wire_taken_parse(body, 8, &taken));
            assert_int_equal(taken, i == 0 ? 14 : 36);
        }
        hear_end(f, fds[0]);
        close(fds[0]);
        close(server);
    }
    fixture_close(f);
}

/* What the guard says counts from the next ReadyForQuery on, whatever the texts look like; and so does that it says nothing. */
static void guarded(void **state)
{
    static const struct {
        const char *at_start, *then, *by;
    } cases[] = {
        {"none", NULL, NULL},
        {"none", "config:1", NULL},
        {"none", "lock", "advisory lock"},
        {"none", "temporary", "temporary table"},
        {"none", "config:1 setting:1", "setting"},
        {"none", "something new", "not understood"},
        {"lock", "none", NULL},
        {NULL, NULL, "no guard"},
    };
    char body[512];
    int fd, server;

    (void)state;
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        struct fixture *f = follow(0);
        world.guard = cases[i].at_start;
        fixture_open_gate(f, 1);
        fd = session_open(f, &server);
        ask(f, fd, server, "SELECT f()");
        say(server, 'C', "SELECT 1", 9);
        if (cases[i].then != NULL)
            say_held(server, cases[i].then);
        say_ready(server, 'I');
        assert_int_equal(hear(f, fd, PATIENCE_MS, NULL, 0), 'C');
        if (cases[i].then != NULL)
            assert_int_equal(hear(f, fd, PATIENCE_MS, NULL, 0), 'S'); /* it is the client's, too */
        hear_ready(f, fd, 'I');
        lose(f, server);
        memset(body, 0, sizeof body);
        if (cases[i].by == NULL) {
            close(again(f, 2));
        } else {
            assert_int_equal(hear(f, fd, PATIENCE_MS, body, sizeof body), 'E');
            assert_memory_equal(body, "SFATAL\0VFATAL\0C57P01\0", 21);
            assert_non_null(memmem(body, sizeof body, cases[i].by, strlen(cases[i].by)));
            hear_end(f, fd);
        }
        close(fd);
        fixture_close(f);
    }
}

/* On the new server its own guard counts, from its own beginning: none, or calls that were the remake's. */
static void guarded_again(void **state)
{
    static const char *const second[] = {"none", "config:7 setting:7", NULL};
    char body[512] = {0};
    int fd, server;

    (void)state;
    for (size_t i = 0; i < sizeof second / sizeof *second; i++) {
        struct fixture *f = follow(0);
        fixture_open_gate(f, 1);
        fd = session_open(f, &server);
        lose(f, server);
        world.guard = second[i];
        server = again(f, 2);
        if (i == 1)
            assert_int_equal(hear(f, fd, PATIENCE_MS, NULL, 0), 'S');
        done(f, fd, server, "SELECT 1", "SELECT 1", 'I');
        lose(f, server);
        if (second[i] != NULL) {
            close(again(f, 3));
        } else {
            assert_int_equal(hear(f, fd, PATIENCE_MS, body, sizeof body), 'E');
            assert_non_null(memmem(body, sizeof body, "no guard", 8));
        }
        close(fd);
        fixture_close(f);
    }
}

/* A hand-over, to the end: what comes meanwhile is run then, and a setting that cannot be made again is said. */
static void handed_over(void **state)
{
    struct fixture *f = follow(0);
    char body[512] = {0};
    int fd, server;

    (void)state;
    fixture_open_gate(f, 1);
    fd = session_open(f, &server);
    done(f, fd, server, "SET work_mem = '1MB'", "SET", 'I');
    hf_router_gate_drain(f->r);
    run_until(f, &f->drained, 1);
    say(fd, 'Q', "SELECT 1", 9);
    hear_nothing(f, server, 30);
    lose(f, server);
    server = again(f, 2);
    remake(f, server, "work_mem");
    assert_int_equal(hear(f, server, PATIENCE_MS, NULL, 0), 'Q');
    say(server, 'C', "SELECT 1", 9);
    say_ready(server, 'I');
    assert_int_equal(hear(f, fd, PATIENCE_MS, NULL, 0), 'C');
    hear_ready(f, fd, 'I');
    lose(f, server);
    server = again(f, 3);
    while (hear(f, server, PATIENCE_MS, NULL, 0) != 'S')
        ;
    say(server, 'E', "SERROR\0VERROR\0C22023\0Mno\0", 26);
    say_ready(server, 'I');
    assert_int_equal(hear(f, fd, PATIENCE_MS, body, sizeof body), 'E');
    assert_memory_equal(body, "SFATAL\0VFATAL\0C57P01\0", 21);
    hear_end(f, fd);
    close(fd);
    close(server);
    fixture_close(f);
}

struct keys_seen {
    struct hf_thread *t;
    bool wiped;
    atomic_bool done; /* last: then the other may be read */
};

static void look_at_keys(void *arg)
{
    static const struct hf_scram_keys none;
    struct keys_seen *k = arg;

    if (k->t->sessions != NULL)
        k->wiped = memcmp(&k->t->sessions->keys, &none, sizeof none) == 0;
    atomic_store(&k->done, true);
}

static bool keys_are_wiped(struct fixture *f)
{
    bool wiped = false;

    for (unsigned i = 0; i < HF_ROUTER_THREADS; i++) {
        struct keys_seen k = {.t = &f->r->threads[i]};
        hf_mailbox_post(k.t->mailbox, look_at_keys, &k);
        while (!atomic_load(&k.done))
            run_for(f, 1);
        wiped |= k.wiped;
    }
    return wiped;
}

/* The role's keys are kept where they may be of use, and nowhere else. */
static void keys(void **state)
{
    struct fixture *f = fixture_open(0, 0, 0);
    int fd, server;

    (void)state;
    fixture_open_gate(f, 1);
    fd = session_open(f, &server);
    assert_true(keys_are_wiped(f)); /* nothing is followed */
    close(fd);
    close(server);
    fixture_close(f);
    f = follow(0);
    fixture_open_gate(f, 1);
    fd = session_open(f, &server);
    assert_false(keys_are_wiped(f));
    close(fd);
    close(server);
    fixture_close(f);
}

/* A reader, whose standby is to be promoted, goes to another; what it asked has changed nothing. */
static void reader(void **state)
{
    struct fixture *f = follow(0);
    char hello[128];
    int fd, leader, server, other;

    (void)state;
    hf_router_leader(f->r, HF_LEADER_ELSEWHERE, 1);
    hf_router_follower_readable(f->r, true);
    fd = client_start(f, true);
    run_until(f, &f->dials, 1);
    leader = dial_take(f);
    leader_tell(f, leader);
    server = server_accept(f);
    close(leader);
    server_log_in(server);
    hear_ready(f, fd, 'I');
    done(f, fd, server, "SELECT 1", "SELECT 1", 'I');
    ask(f, fd, server, "SELECT f()");
    hf_router_followers(f->r, 1, 1);
    hf_router_follower_readable(f->r, false);
    run_until(f, &f->readers_gone, 1);
    hear_plain_error(f, fd, "40001");
    hear_ready(f, fd, 'I');
    hear_end(f, server);
    close(server);
    run_until(f, &f->dials, 2);
    assert_int_equal(f->dial_to, HF_TO_FOLLOWER);
    other = dial_take(f);
    run_until_bytes(f, other, 19);
    assert_true(recv(other, hello, sizeof hello, 0) > 18);
    server_log_in(other);
    done(f, fd, other, "SELECT 1", "SELECT 1", 'I');
    close(fd);
    close(other);
    fixture_close(f);
}

/* The new leader may be lost as well, while the session is made again. */
static void lost_on_the_way(void **state)
{
    struct fixture *f = follow(0);
    int fd, server;

    (void)state;
    fixture_open_gate(f, 1);
    fd = session_open(f, &server);
    done(f, fd, server, "SET work_mem = '1MB'", "SET", 'I');
    lose(f, server);
    fixture_open_gate(f, 2);
    server = server_accept(f);
    server_check(server);
    lose(f, server);
    server = again(f, 3);
    assert_int_equal(hear(f, server, PATIENCE_MS, NULL, 0), 'P');
    lose(f, server);
    server = again(f, 4);
    remake(f, server, "work_mem");
    done(f, fd, server, "SELECT 1", "SELECT 1", 'I');
    close(fd);
    close(server);
    fixture_close(f);
}

static void nobody_leads(void **state)
{
    struct fixture *f = follow(200);
    int fd, server;

    (void)state;
    fixture_open_gate(f, 1);
    fd = session_open(f, &server);
    run_for(f, 300); /* the time before does not count */
    lose(f, server);
    hear_nothing(f, fd, 100);
    hear_error(f, fd, "57P03");
    close(fd);
    fixture_close(f);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(idle),     cmocka_unit_test(in_a_transaction), cmocka_unit_test(unknown_outcome),
        cmocka_unit_test(withheld), cmocka_unit_test(extended),                 cmocka_unit_test(tunnels),  cmocka_unit_test(lost_on_the_way),  cmocka_unit_test(ended_by_postgresql),
        cmocka_unit_test(nobody_leads), cmocka_unit_test(not_taken), cmocka_unit_test(not_taken_unnamed), cmocka_unit_test(unnamed_when_idle), cmocka_unit_test(prepared_is_not_done), cmocka_unit_test(word_seen_late), cmocka_unit_test(lost_twice_in_a_transaction),     cmocka_unit_test(taken_perhaps),
        cmocka_unit_test(too_much_to_keep), cmocka_unit_test(gates_word), cmocka_unit_test(guarded),
        cmocka_unit_test(guarded_again), cmocka_unit_test(handed_over), cmocka_unit_test(keys), cmocka_unit_test(reader),
        cmocka_unit_test(ended_while_busy), cmocka_unit_test(word_for_others), cmocka_unit_test(query_without_sync),
        cmocka_unit_test(query_without_sync_is_lost), cmocka_unit_test(refused_before_a_query), cmocka_unit_test(query_in_a_batch),
        cmocka_unit_test(left_before_it_is_told), cmocka_unit_test(answered_without_sync), cmocka_unit_test(ended_before_it_is_told),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
