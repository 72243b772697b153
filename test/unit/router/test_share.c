/* Sessions that share server connections: who gets whose, in what state, and what nobody may see of another. */
#include <stdio.h>
#include <sys/socket.h>
#include <unistd.h>

#include "router/share.h"
#include "two.h"

/* Our own in front of a client's. */
static void discarded(int server)
{
    say(server, 'C', "DISCARD SEQUENCES", 18);
    say_held(server, "none");
    say_ready(server, 'I');
}

static void in_turn(void **state)
{
    struct two t = two_open();

    (void)state;
    for (int i = 0; i < 3; i++) { /* the commonest case: nothing but what they say */
        done(t.f, t.a, t.server, "SELECT 1", "SELECT 1", 'I');
        done(t.f, t.b, t.server, "SELECT 2", "SELECT 1", 'I');
    }
    assert_int_equal(hf_router_counts(t.f->r).pool.servers, 1);
    assert_int_equal(hf_router_counts(t.f->r).pool.remade, 0);
    assert_int_equal(hf_router_counts(t.f->r).pooled, 1);
    close(t.a);
    t.a = -1;
    RUN_UNTIL(t.f, hf_router_counts(t.f->r).pooled == 0);
    two_close(&t);
}

/* In a transaction it is nobody else's; who waits gets it when that ends, in order. */
static void waits(void **state)
{
    struct two t = two_open();
    int c;

    (void)state;
    done(t.f, t.a, t.server, "BEGIN", "BEGIN", 'T');
    say(t.b, 'Q', "SELECT 2", 9);
    RUN_UNTIL(t.f, hf_router_counts(t.f->r).pool.waiting == 1);
    run_for(t.f, 300); /* whatever thread the next one is on, it is behind it, also if what follows takes two seconds */
    c = client_start(t.f, false);
    client_proved(t.f, c);
    RUN_UNTIL(t.f, hf_router_counts(t.f->r).pool.waiting == 2);
    hear_nothing(t.f, t.server, 30);
    done_with(t.f, t.a, t.server, "INSERT INTO t", "INSERT 0 1", 'T', "sequence");
    done(t.f, t.a, t.server, "COMMIT", "COMMIT", 'I');
    hear_text(t.f, t.server, 'Q', "DISCARD SEQUENCES");
    hear_text(t.f, t.server, 'Q', "SELECT 2");
    hear_nothing(t.f, c, 30);
    discarded(t.server);
    say(t.server, 'C', "SELECT 1", 9);
    say_ready(t.server, 'I');
    hear_type(t.f, t.b, 'S'); /* the guard's */
    hear_text(t.f, t.b, 'C', "SELECT 1"); /* and nothing of the other */
    hear_ready(t.f, t.b, 'I');
    hear_ready(t.f, c, 'I');
    close(c);
    two_close(&t);
}

/* Settings and named statements of one are not the other's; each finds its own. */
static void made_equal(void **state)
{
    struct two t = two_open();

    (void)state;
    done(t.f, t.a, t.server, "SET work_mem = '1MB'", "SET", 'I');
    say(t.b, 'Q', "SELECT 2", 9);
    undone(t.f, t.server);
    hear_text(t.f, t.server, 'Q', "SELECT 2");
    say(t.server, 'C', "SELECT 1", 9);
    say_ready(t.server, 'I');
    hear_text(t.f, t.b, 'C', "SELECT 1");
    hear_ready(t.f, t.b, 'I');
    say(t.a, 'Q', "SELECT 1", 9);
    remake(t.f, t.server, "work_mem");
    hear_text(t.f, t.server, 'Q', "SELECT 1");
    two_close(&t);
}

static void prepared(void **state)
{
    struct two t = two_open();
    int fds[2] = {t.a, t.b};

    (void)state;
    for (int i = 0; i < 2; i++) { /* the same one in both: made in the second, where it is not known yet */
        parse(fds[i], "p", "SELECT $1::int");
        say(fds[i], 'S', "", 0);
        if (i == 1)
            undone(t.f, t.server);
        hear_parse(t.f, t.server);
        hear_type(t.f, fds[i], '1');
        hear_ready(t.f, fds[i], 'I');
    }
    for (int i = 0; i < 4; i++) { /* from then on nothing is made */
        bind_execute(fds[i % 2], "p");
        say(fds[i % 2], 'S', "", 0);
        if (i > 0) { /* it may have used a sequence */
            hear_text(t.f, t.server, 'Q', "DISCARD SEQUENCES");
            discarded(t.server);
            hear_type(t.f, fds[i % 2], 'S');
        }
        hear_type(t.f, t.server, 'B');
        hear_type(t.f, t.server, 'E');
        hear_type(t.f, t.server, 'S');
        say(t.server, '2', "", 0);
        say(t.server, 'C', "SELECT 1", 9);
        if (i < 3)
            say_held(t.server, "sequence");
        say_ready(t.server, 'I');
        hear_type(t.f, fds[i % 2], '2');
        hear_type(t.f, fds[i % 2], 'C');
        hear_ready(t.f, fds[i % 2], 'I');
    }
    two_close(&t);
}

/* The unnamed statement: the other's is taken away, and one's own is there again for who uses it later. */
static void unnamed(void **state)
{
    struct two t = two_open();

    (void)state;
    parsed(t.f, t.a, t.server, "", "SELECT 1");
    parse(t.b, "q", "SELECT 2"); /* behind it, there might be a Bind of what it has not parsed */
    say(t.b, 'S', "", 0);
    hear_type(t.f, t.server, 'C');
    hear_type(t.f, t.server, 'P');
    hear_type(t.f, t.server, 'S');
    say(t.server, 'S', "a\0b\0", 4); /* PostgreSQL's own may come in between */
    say(t.server, '3', "", 0);
    say(t.server, '1', "", 0);
    say_ready(t.server, 'I');
    hear_type(t.f, t.b, 'S');
    hear_type(t.f, t.b, '1');
    hear_ready(t.f, t.b, 'I');
    bind_execute(t.a, "");
    say(t.a, 'S', "", 0);
    undone(t.f, t.server);
    hear_parse(t.f, t.server);
    hear_type(t.f, t.a, 'S'); /* it has not been told yet */
    hear_type(t.f, t.server, 'B');
    two_close(&t);
}

/* What PostgreSQL cannot read does not drop it: it goes before that, too, also where the one that left it has had the connection long ago. */
static void unnamed_before_the_unreadable(void **state)
{
    static const struct {
        char type;
        const char *body;
        size_t n;
        bool close; /* is to go before it */
    } cases[] = {{'Q', "SELECT '\xff'", 11, true},  {'Q', "SELECT 2", 9, false},
                 {'Q', "SELECT 2\0", 10, true},     {'Q', "SELECT 2", 8, true},
                 {'P', "\0SELECT '\xff'\0\0", 14, true}, {'P', "\0SELECT 2\0\0", 12, false},
                 {'P', "\0SELECT 2\0\1", 12, true}, {'P', "\0SELECT 2\0", 11, true},
                 {'P', "\0SELECT $1\0\0\1\0\0\0\27", 17, false}};

    (void)state;
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        struct two t = two_open();
        parsed(t.f, t.a, t.server, "", "SELECT 1");
        for (int again = 0; again < 2; again++) { /* the second time it is clear that there is none, or that it may be there still */
            say(t.b, cases[i].type, cases[i].body, cases[i].n);
            if (cases[i].type == 'P')
                say(t.b, 'S', "", 0);
            if (cases[i].close && again == 0) {
                hear_type(t.f, t.server, 'C');
                say(t.server, '3', "", 0);
            }
            hear_type(t.f, t.server, cases[i].type);
            if (cases[i].type == 'P')
                hear_type(t.f, t.server, 'S');
            say(t.server, 'E', "SERROR\0VERROR\0C22021\0Mno\0", 26);
            say_ready(t.server, 'I');
            hear_plain_error(t.f, t.b, "22021");
            hear_ready(t.f, t.b, 'I');
        }
        two_close(&t);
    }
}

/* And who has met it unread does not pass it on. */
static void unnamed_and_an_error(void **state)
{
    struct two t = two_open();

    (void)state;
    parsed(t.f, t.a, t.server, "", "SELECT 1");
    ask(t.f, t.a, t.server, "SELECT '\xff'");
    say(t.server, 'E', "SERROR\0VERROR\0C22021\0Mno\0", 26);
    say_ready(t.server, 'I');
    hear_plain_error(t.f, t.a, "22021");
    hear_ready(t.f, t.a, 'I');
    bind_execute(t.b, "");
    say(t.b, 'S', "", 0);
    hear_type(t.f, t.server, 'C');
    hear_type(t.f, t.server, 'B');
    two_close(&t);
}

/* A client that is let in and says nothing needs no connection: who needs one has it. What others have left there goes before anybody speaks to it. */
static void let_in_and_silent(void **state)
{
    (void)state;
    for (int kind = 0; kind < 2; kind++) {
        struct two t = two_open();
        int c;
        if (kind == 0) {
            done_with(t.f, t.a, t.server, "INSERT INTO t", "INSERT 0 1", 'I', "sequence");
        } else {
            parsed(t.f, t.a, t.server, "", "SELECT 1");
        }
        c = client_start(t.f, false);
        client_proved(t.f, c);
        hear_ready(t.f, c, 'I');
        if (kind == 0) {
            say(t.a, 'Q', "SELECT 2", 9); /* what it had of sequences was lost with its connection, as far as it knows */
            hear_text(t.f, t.server, 'Q', "DISCARD SEQUENCES");
            hear_text(t.f, t.server, 'Q', "SELECT 2");
        } else {
            parse(t.b, "q", "SELECT 2");
            say(t.b, 'S', "", 0);
            hear_type(t.f, t.server, 'C');
            hear_type(t.f, t.server, 'P');
        }
        close(c);
        two_close(&t);
    }
}

/* One that has only used the unnamed statement left it there; who takes the connection with statements of its own, but none without a name, does not meet it. */
static void unnamed_of_others(void **state)
{
    struct two t = two_open();

    (void)state;
    parsed(t.f, t.b, t.server, "q", "SELECT 2");
    parse(t.a, "", "SELECT 1");
    say(t.a, 'S', "", 0);
    undone(t.f, t.server);
    hear_parse(t.f, t.server);
    hear_type(t.f, t.a, '1');
    hear_ready(t.f, t.a, 'I');
    bind_execute(t.b, "");
    say(t.b, 'S', "", 0);
    hear_text(t.f, t.server, 'Q', "DISCARD SEQUENCES"); /* as any simple query, it drops it */
    discarded(t.server);
    remake(t.f, t.server, "SELECT 2");
    hear_type(t.f, t.server, 'B');
    two_close(&t);
}

/* A piece of a message's head takes no connection. */
static void piece_of_a_head(void **state)
{
    static const char query[] = "Q\0\0\0\x0dSELECT 2";
    struct two t = two_open();

    (void)state;
    done(t.f, t.a, t.server, "SELECT 1", "SELECT 1", 'I');
    for (size_t i = 0; i < 4; i++) {
        assert_int_equal(send(t.b, query + i, 1, MSG_NOSIGNAL), 1);
        hear_nothing(t.f, t.server, 20);
    }
    done(t.f, t.a, t.server, "SELECT 1", "SELECT 1", 'I');
    assert_int_equal(send(t.b, query + 4, 1, MSG_NOSIGNAL), 1);
    assert_int_equal(send(t.b, query + 5, sizeof query - 5, MSG_NOSIGNAL), sizeof query - 5);
    hear_text(t.f, t.server, 'Q', "SELECT 2");
    say(t.server, 'C', "SELECT 1", 9);
    say_ready(t.server, 'I');
    hear_type(t.f, t.b, 'C');
    hear_ready(t.f, t.b, 'I');
    done(t.f, t.a, t.server, "SELECT 1", "SELECT 1", 'I');
    assert_int_equal(send(t.b, query, 2, MSG_NOSIGNAL), 2);
    hear_nothing(t.f, t.server, 20);
    close(t.b); /* and goes */
    t.b = -1;
    RUN_UNTIL(t.f, hf_router_counts(t.f->r).sessions == 1);
    done(t.f, t.a, t.server, "SELECT 1", "SELECT 1", 'I');
    two_close(&t);
}

/* Somebody waits when the first is let in: its connection's own key is told to nobody, so that it need not be closed for the other. */
static void key_while_others_wait(void **state)
{
    struct fixture *f = sharing(1);
    int a = client_start(f, false), server = server_accept(f), b = client_start(f, false);

    (void)state;
    client_proved(f, b);
    RUN_UNTIL(f, hf_router_counts(f->r).pool.waiting == 1);
    server_log_in(server);
    hear_ready(f, a, 'I');
    hear_ready(f, b, 'I');
    assert_false(server_is_asked(f, 20));
    done(f, b, server, "SELECT 1", "SELECT 1", 'I');
    done(f, a, server, "SELECT 1", "SELECT 1", 'I');
    close(a);
    close(b);
    close(server);
    fixture_close(f);
}

/* What pins a session has its connection stay; another one cannot have it. */
static void pinned(void **state)
{
    struct two t = two_open();

    (void)state;
    done_with(t.f, t.a, t.server, "LISTEN c", "LISTEN", 'I', "listen");
    say(t.b, 'Q', "SELECT 2", 9);
    hear_nothing(t.f, t.server, 50);
    done(t.f, t.a, t.server, "SELECT 1", "SELECT 1", 'I');
    say(t.server, 'A', "\0\0\0\1c\0\0", 7);
    hear_type(t.f, t.a, 'A');
    hear_nothing(t.f, t.b, 20);
    close(t.a); /* it goes with its connection, and the other gets one of its own */
    t.a = -1;
    {
        int second = server_accept(t.f);
        server_log_in(second);
        hear_text(t.f, second, 'Q', "SELECT 2");
        close(second);
    }
    two_close(&t);
}

/* The second one gets a connection of its own; and both are served. */
static void has_its_own(struct two *t)
{
    hear_end(t->f, t->server);
    close(t->server);
    t->server = server_accept(t->f);
    server_log_in(t->server);
    hear_text(t->f, t->server, 'Q', "SELECT 2");
    say(t->server, 'C', "SELECT 1", 9);
    say_ready(t->server, 'I');
    hear_text(t->f, t->b, 'C', "SELECT 1");
    hear_ready(t->f, t->b, 'I');
    done(t->f, t->a, t->server, "SELECT 1", "SELECT 1", 'I');
    done(t->f, t->b, t->server, "SELECT 1", "SELECT 1", 'I');
}

static void copy_begins(struct two *t)
{
    parse(t->a, "", "COPY t FROM STDIN");
    bind_execute(t->a, "");
    say(t->a, 'S', "", 0);
    hear_types(t->f, t->server, "PBES");
    say(t->server, '1', "", 0);
    say(t->server, '2', "", 0);
    say(t->server, 'G', "\0\0\0", 3);
    hear_types(t->f, t->a, "12G");
}

/* A COPY by the extended protocol: from its failure to its Sync the server passes over whatever it is sent. Whether it has swallowed the
 * first one is not certain. */
static void copy_fails(void **state)
{
    struct two t = two_open();

    (void)state;
    copy_begins(&t);
    say(t.a, 'd', "x\n", 2);
    hear_type(t.f, t.server, 'd');
    say(t.server, 'E', "SERROR\0VERROR\0C22P02\0Mno\0", 26);
    hear_plain_error(t.f, t.a, "22P02");
    say(t.b, 'Q', "SELECT 2", 9);
    RUN_UNTIL(t.f, hf_router_counts(t.f->r).pool.waiting == 1);
    hear_nothing(t.f, t.server, 30);
    say(t.a, 'c', "", 0);
    hear_type(t.f, t.server, 'c');
    hear_nothing(t.f, t.server, 30);
    say(t.a, 'S', "", 0);
    hear_type(t.f, t.server, 'S');
    hear_nothing(t.f, t.server, 30);
    say_ready(t.server, 'I');
    hear_ready(t.f, t.a, 'I');
    has_its_own(&t);
    two_close(&t);
}

/* The second one has what the first had. */
static void has_the_same(struct two *t)
{
    hear_text(t->f, t->server, 'Q', "SELECT 2");
    say(t->server, 'C', "SELECT 1", 9);
    say_ready(t->server, 'I');
    hear_text(t->f, t->b, 'C', "SELECT 1");
    hear_ready(t->f, t->b, 'I');
}

/* A Query that is passed over with the Parse in front of it is owed nothing, and keeps nobody's connection. */
static void query_passed_over(void **state)
{
    struct two t = two_open();

    (void)state;
    parse(t.a, "p", "nonsense");
    say(t.a, 'Q', "SELECT 1", 9);
    hear_types(t.f, t.server, "PQ");
    say(t.server, 'E', "SERROR\0VERROR\0C42601\0Mno\0", 26);
    hear_plain_error(t.f, t.a, "42601");
    say(t.b, 'Q', "SELECT 2", 9);
    RUN_UNTIL(t.f, hf_router_counts(t.f->r).pool.waiting == 1);
    say(t.a, 'S', "", 0);
    hear_type(t.f, t.server, 'S');
    hear_nothing(t.f, t.server, 30);
    say_ready(t.server, 'I');
    hear_ready(t.f, t.a, 'I');
    has_the_same(&t);
    two_close(&t);
}

/* Nor does one that has no other Sync than the one that its COPY has swallowed. */
static void query_behind_a_copy(void **state)
{
    struct two t = two_open();

    (void)state;
    copy_begins(&t);
    say(t.a, 'c', "", 0);
    hear_type(t.f, t.server, 'c');
    say(t.server, 'C', "COPY 0", 7);
    hear_text(t.f, t.a, 'C', "COPY 0");
    say(t.b, 'Q', "SELECT 2", 9);
    RUN_UNTIL(t.f, hf_router_counts(t.f->r).pool.waiting == 1);
    hear_nothing(t.f, t.server, 30);
    say(t.a, 'Q', "SELECT 1", 9);
    hear_text(t.f, t.server, 'Q', "SELECT 1");
    say(t.server, 'C', "SELECT 1", 9);
    say_ready(t.server, 'I');
    hear_text(t.f, t.a, 'C', "SELECT 1");
    hear_ready(t.f, t.a, 'I');
    has_the_same(&t);
    two_close(&t);
}

/* A trigger of the login's has set something: DISCARD ALL does not give that back, so each logs in to one of its own. */
static void set_by_login(void **state)
{
    static const char *const guards[] = {"config:1 setting:1", "config:1"};

    (void)state;
    for (size_t i = 0; i < 2; i++) {
        struct two t = {.f = sharing(1)};
        world.guard = guards[i];
        t.a = two_of(t.f, &t.b, &t.server);
        say(t.a, 'Q', "SELECT 2", 9);
        if (i == 0) {
            hear_end(t.f, t.server);
            close(t.server);
            t.server = server_accept(t.f);
            server_log_in(t.server);
        } /* else for its own transaction alone */
        hear_text(t.f, t.server, 'Q', "SELECT 2");
        two_close(&t);
    }
}

/* Before it has read anything: the Sync that was sent along was not swallowed, and the second one's answer is nobody else's. */
static void copy_fails_early(void **state)
{
    struct two t = two_open();

    (void)state;
    copy_begins(&t);
    say(t.a, 'c', "", 0);
    say(t.a, 'S', "", 0);
    hear_type(t.f, t.server, 'c');
    hear_type(t.f, t.server, 'S');
    say(t.b, 'Q', "SELECT 2", 9);
    RUN_UNTIL(t.f, hf_router_counts(t.f->r).pool.waiting == 1);
    say(t.server, 'E', "SERROR\0VERROR\0C42809\0Mno\0", 26);
    hear_plain_error(t.f, t.a, "42809");
    say_ready(t.server, 'I');
    hear_ready(t.f, t.a, 'I'); /* for the first; it is on its way */
    has_its_own(&t);
    two_close(&t);
}

static void asked_for_too_long(void **state)
{
    struct fixture *f = fixture_open_with(
        &(struct hf_router_config){.follow = true, .share = true, .max_servers = 1, .pool_wait_ms = 200});
    int a, b, server;

    (void)state;
    world.guard = "none";
    fixture_open_gate(f, 1);
    a = two_of(f, &b, &server);
    done(f, a, server, "BEGIN", "BEGIN", 'T');
    say(b, 'Q', "SELECT 2", 9);
    hear_error(f, b, "53300");
    assert_int_equal(hf_router_counts(f->r).pool.late, 1);
    assert_int_equal(hf_router_counts(f->r).ended[HF_ENDED_53300], 1);
    done(f, a, server, "COMMIT", "COMMIT", 'I');
    close(a);
    close(b);
    close(server);
    fixture_close(f);
}

/* A client that vanishes in the middle of a result: nobody gets the rest. */
static void vanished(void **state)
{
    struct two t = two_open();
    int second;

    (void)state;
    ask(t.f, t.a, t.server, "SELECT 1");
    say(t.server, 'D', "\0\1\0\0\0\1x", 7);
    say(t.b, 'Q', "SELECT 2", 9);
    hear_type(t.f, t.a, 'D');
    close(t.a);
    t.a = -1;
    second = server_accept(t.f);
    server_log_in(second);
    hear_text(t.f, second, 'Q', "SELECT 2");
    (void)send(t.server, "D", 1, MSG_NOSIGNAL);
    say(second, 'C', "SELECT 2", 9);
    say_ready(second, 'I');
    hear_text(t.f, t.b, 'C', "SELECT 2");
    close(second);
    two_close(&t);
}

/* An answer to our own that is not what it has to be: nothing of what comes after it is believed. */
static void prefix_goes_wrong(void **state)
{
    struct two t = two_open();
    int second;

    (void)state;
    done_with(t.f, t.a, t.server, "SELECT i FROM t", "SELECT 1", 'I', "sequence");
    say(t.b, 'Q', "SELECT i FROM t", 16);
    hear_text(t.f, t.server, 'Q', "DISCARD SEQUENCES");
    hear_type(t.f, t.server, 'Q');
    say(t.server, 'E', "SERROR\0VERROR\0C57014\0Mno\0", 26);
    hear_plain_error(t.f, t.b, "08007"); /* it was sent: what became of it is not known */
    hear_ready(t.f, t.b, 'I');
    say(t.b, 'Q', "SELECT 3", 9);
    second = server_accept(t.f);
    server_log_in(second);
    hear_text(t.f, second, 'Q', "SELECT 3");
    close(second);
    two_close(&t);
}

/* What others have left cannot be undone: a connection of its own. */
static void reset_goes_wrong(void **state)
{
    struct two t = two_open();
    int second;

    (void)state;
    done(t.f, t.a, t.server, "SET role = 'x'", "SET", 'I');
    say(t.b, 'Q', "SELECT 2", 9);
    hear_text(t.f, t.server, 'Q', "DISCARD ALL");
    hear_text(t.f, t.server, 'Q', "RESET ROLE");
    say(t.server, 'E', "SERROR\0VERROR\0C57014\0Mno\0", 26);
    second = server_accept(t.f);
    server_log_in(second);
    hear_text(t.f, second, 'Q', "SELECT 2");
    hear_end(t.f, t.server);
    close(second);
    two_close(&t);
}

/* A role that has changed: who logs in after that gets nobody's connection of before. */
static void another_stamp(void **state)
{
    struct fixture *f = sharing(2);
    int a, b, server, second;

    (void)state;
    a = session_open(f, &server);
    world.stamp++;
    b = client_start(f, false);
    second = server_accept(f); /* room for two */
    server_log_in(second);
    hear_ready(f, b, 'I');
    world.stamp++;
    {
        int c = client_start(f, false); /* no room: a connection is closed for it, and it logs in itself */
        int third = server_accept(f);
        hear_end(f, server);
        server_log_in(third);
        hear_ready(f, c, 'I');
        close(c);
        close(third);
    }
    close(a);
    close(b);
    close(server);
    close(second);
    fixture_close(f);
}

static void refused_by_postgresql(void **state)
{
    struct fixture *f = sharing(1);
    int a = client_start(f, false), server = server_accept(f);

    (void)state;
    server_check(server);
    say(server, 'R', "\0\0\0\0", 4);
    say(server, 'E', "SFATAL\0VFATAL\0C3D000\0Mno such database\0", 39);
    close(server);
    hear_error(f, a, "3D000");
    close(a);
    RUN_UNTIL(f, hf_router_counts(f->r).pool.servers == 0);
    fixture_close(f);
}

/* A change of leader: who has no connection notices nothing, and takes one at the next leader when it needs it. */
static void change_of_leader(void **state)
{
    struct two t = two_open();

    (void)state;
    done(t.f, t.a, t.server, "SET work_mem = '1MB'", "SET", 'I');
    lose(t.f, t.server);
    say(t.b, 'Q', "SELECT 2", 9); /* waits for a leader */
    hear_nothing(t.f, t.b, 50);
    t.server = again(t.f, 2);
    hear_text(t.f, t.server, 'Q', "SELECT 2");
    say(t.server, 'C', "SELECT 1", 9);
    say_ready(t.server, 'I');
    hear_text(t.f, t.b, 'C', "SELECT 1");
    hear_ready(t.f, t.b, 'I');
    say(t.a, 'Q', "SELECT 1", 9);
    remake(t.f, t.server, "work_mem");
    hear_text(t.f, t.server, 'Q', "SELECT 1");
    two_close(&t);
}

/* Clients come and go in all states, on both threads. */
static void storm(void **state)
{
    enum { CLIENTS = 12, ROUNDS = 60 };
    struct fixture *f = sharing(1);
    int fds[CLIENTS] = {0}, server;
    unsigned seed = 1;

    (void)state;
    fds[0] = two_of(f, &fds[1], &server);
    done(f, fds[0], server, "SELECT 1", "SELECT 1", 'I');
    for (int round = 0; round < ROUNDS; round++) {
        int i = 1 + (int)(seed % (CLIENTS - 1));
        seed = seed * 1103515245u + 12345u;
        if (fds[i] != 0)
            close(fds[i]);
        fds[i] = client_start(f, false);
        client_proved(f, fds[i]);
        hear_ready(f, fds[i], 'I');
        if (seed >> 16 & 1)
            done(f, fds[i], server, "SELECT 1", "SELECT 1", 'I');
        done(f, fds[0], server, "SELECT 1", "SELECT 1", 'I');
        if (seed >> 17 & 1) {
            say(fds[i], 'X', "", 0);
            close(fds[i]);
            fds[i] = 0;
        }
        if ((seed >> 18 & 3) == 0) {
            done(f, fds[0], server, "BEGIN", "BEGIN", 'T');
            for (int k = 1; k < CLIENTS; k += 3)
                if (fds[k] != 0) { /* waits, and goes */
                    say(fds[k], 'X', "", 0);
                    close(fds[k]);
                    fds[k] = 0;
                }
            done(f, fds[0], server, "COMMIT", "COMMIT", 'I');
        }
    }
    assert_int_equal(hf_router_counts(f->r).pool.servers, 1);
    for (int i = 0; i < CLIENTS; i++)
        if (fds[i] != 0)
            close(fds[i]);
    RUN_UNTIL(f, hf_router_counts(f->r).pool.servers == 0);
    close(server);
    fixture_close(f);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(in_turn),           cmocka_unit_test(waits),         cmocka_unit_test(made_equal),
        cmocka_unit_test(prepared),          cmocka_unit_test(unnamed),       cmocka_unit_test(pinned), cmocka_unit_test(let_in_and_silent), cmocka_unit_test(unnamed_of_others),
        cmocka_unit_test(unnamed_before_the_unreadable), cmocka_unit_test(unnamed_and_an_error),
        cmocka_unit_test(key_while_others_wait), cmocka_unit_test(piece_of_a_head),
        cmocka_unit_test(copy_fails), cmocka_unit_test(copy_fails_early), cmocka_unit_test(query_passed_over), cmocka_unit_test(query_behind_a_copy), cmocka_unit_test(set_by_login), cmocka_unit_test(asked_for_too_long), cmocka_unit_test(vanished),      cmocka_unit_test(prefix_goes_wrong),
        cmocka_unit_test(reset_goes_wrong),  cmocka_unit_test(another_stamp), 
        cmocka_unit_test(refused_by_postgresql), cmocka_unit_test(change_of_leader), cmocka_unit_test(storm)};

    return cmocka_run_group_tests(tests, NULL, NULL);
}
