/* Passwords at the router, and its own login at PostgreSQL with what it learned from them. */
#include <stdio.h>
#include <sys/socket.h>
#include <unistd.h>

#include "fixture.h"


static uint64_t refused(struct fixture *f, enum hf_refused why)
{
    return hf_router_counts(f->r).refused[why];
}

static int start_as(struct fixture *f, const char *packet, size_t n)
{
    int fd = client_connect(f, false);

    assert_int_equal(send(fd, packet, n, MSG_NOSIGNAL), n);
    return fd;
}

/* What the exchange looks like to a client whose password is wrong: its messages' bytes, without nonces. */
static void fail_to_log_in(struct fixture *f, const char *packet, size_t n, char seen[256])
{
    static const char first[] = "SCRAM-SHA-256\0\0\0\0\x0bn,,n=,r=abc";
    int fd = start_as(f, packet, n);
    char body[1024] = {0}, final[200];

    memset(seen, 0, 256);
    assert_int_equal(hear(f, fd, PATIENCE_MS, body, sizeof body), 'R');
    assert_memory_equal(body, "\0\0\0\x0aSCRAM-SHA-256\0", 19);
    say(fd, 'p', first, sizeof first - 1);
    memset(body, 0, sizeof body);
    assert_int_equal(hear(f, fd, PATIENCE_MS, body, sizeof body), 'R');
    assert_memory_equal(body, "\0\0\0\x0br=abc", 9);
    (void)snprintf(seen, 256, "%s", strstr(body + 4, ",s="));
    (void)snprintf(final, sizeof final, "c=biws,%.*s,p=AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=",
                   (int)(strstr(body + 4, ",s=") - (body + 4)), body + 4);
    say(fd, 'p', final, strlen(final));
    memset(body, 0, sizeof body);
    assert_int_equal(hear(f, fd, PATIENCE_MS, body, sizeof body), 'E');
    assert_string_equal(body + 14, "C28P01");
    assert_memory_equal(body + 21, "Mpassword authentication failed for user \"", 42);
    hear_end(f, fd);
    close(fd);
}

static void wrong_password(void **state)
{
    static const char app[] = "\0\0\0\x12\0\3\0\0user\0app\0", other[] = "\0\0\0\x12\0\3\0\0user\0xpp\0";
    static const enum hf_role_kind kinds[] = {HF_ROLE_NO_PASSWORD, HF_ROLE_MD5, HF_ROLE_ODD};
    struct fixture *f = fixture_open(0, 0, 0);
    char seen[256], again[256];

    (void)state;
    fixture_open_gate(f, 1);
    fail_to_log_in(f, app, sizeof app, seen);
    assert_string_equal(seen, ",s=c2FsdA==,i=16");
    for (size_t i = 0; i < 3; i++) { /* these, too, look like it */
        world.kind = kinds[i];
        fail_to_log_in(f, app, sizeof app, seen);
        fail_to_log_in(f, other, sizeof other, again);
        assert_int_equal(strlen(seen), strlen(again));
        assert_string_not_equal(seen, again);
    }
    assert_int_equal(refused(f, HF_REFUSED_PASSWORD), 7);
    assert_false(server_is_asked(f, 0));
    fixture_close(f);
}

static void often_wrong(void **state)
{
    static const char app[] = "\0\0\0\x12\0\3\0\0user\0app\0";
    struct fixture *f = fixture_open(0, 0, 0);
    char seen[256];
    uint64_t begin;
    int fd, server;

    (void)state;
    fixture_open_gate(f, 1);
    for (int i = 0; i < HF_FAILURES_FREE; i++)
        fail_to_log_in(f, app, sizeof app, seen);
    begin = uv_hrtime();
    fail_to_log_in(f, app, sizeof app, seen);
    assert_true(uv_hrtime() - begin >= (HF_FAILURES_GAP_MS - 50) * 1000000ull);
    begin = uv_hrtime();
    fd = client_start(f, false); /* whoever has the password waits as well */
    server = server_accept(f);
    assert_true(uv_hrtime() - begin >= (HF_FAILURES_GAP_MS - 50) * 1000000ull);
    server_log_in(server);
    hear_ready(f, fd, 'I');
    close(fd);
    close(server);
    begin = uv_hrtime();
    fd = session_open(f, &server); /* and is forgiven */
    assert_true(uv_hrtime() - begin < (HF_FAILURES_GAP_MS - 50) * 1000000ull);
    close(fd);
    close(server);
    fixture_close(f);
}

static void out_of_order(void **state)
{
    static const struct {
        const char *bytes;
        size_t n;
    } cases[] = {
        {"Q\0\0\0\x0dSELECT 1", 14},          {"p\0\0\0\3", 5},
        {"p\0\0\x10\0xxxx", 9},               {"p\0\0\0\x08md5x", 9},
        {"p\0\0\0\x16SCRAM-SHA-1xx\0\0\0\0\0", 23}, {"\0\0\0\x08\x04\xd2\x16\x2f", 8},
        {"X\0\0\0\4", 5},
    };
    struct fixture *f = fixture_open(0, 0, 0);

    (void)state;
    fixture_open_gate(f, 1);
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        int fd = client_start_silent(f, false);
        assert_int_equal(hear(f, fd, PATIENCE_MS, NULL, 0), 'R');
        assert_int_equal(send(fd, cases[i].bytes, cases[i].n, MSG_NOSIGNAL), cases[i].n);
        hear_error(f, fd, "08P01");
        close(fd);
    }
    {
        int fd = client_start_silent(f, false); /* truncated */
        assert_int_equal(hear(f, fd, PATIENCE_MS, NULL, 0), 'R');
        assert_int_equal(send(fd, "p\0\0\0\x20SCR", 8, MSG_NOSIGNAL), 8);
        run_for(f, 20);
        close(fd);
    }
    RUN_UNTIL(f, hf_router_counts(f->r).sessions == 0);
    assert_false(server_is_asked(f, 0));
    fixture_close(f);
}

/* PostgreSQL's answer to a newer protocol comes before its question for a password, so it is ours to give. */
static void negotiated(void **state)
{
    static const char v32[] = "\0\0\0\x12\0\3\0\2user\0app\0", option[] = "\0\0\0\x1b\0\3\0\0user\0app\0_pq_.x\0" "1\0";
    struct fixture *f = fixture_open(0, 0, 0);
    char body[64];
    int fd, server;

    (void)state;
    fixture_open_gate(f, 1);
    fd = start_as(f, v32, sizeof v32);
    assert_int_equal(hear(f, fd, PATIENCE_MS, body, sizeof body), 'v');
    assert_memory_equal(body, "\0\3\0\0\0\0\0\0", 8);
    assert_int_equal(hear(f, fd, PATIENCE_MS, NULL, 0), 'R');
    close(fd);
    fd = start_as(f, option, sizeof option);
    client_prove(f, fd, NULL);
    assert_int_equal(hear(f, fd, PATIENCE_MS, body, sizeof body), 'v');
    assert_memory_equal(body, "\0\3\0\0\0\0\0\1_pq_.x\0", 15);
    server = server_accept(f);
    say(server, 'v', "\0\3\0\0\0\0\0\1_pq_.x\0", 15); /* once is enough */
    say(server, 'N', "SNOTICE\0", 9);
    server_log_in(server);
    assert_int_equal(hear(f, fd, PATIENCE_MS, body, sizeof body), 'R');
    assert_memory_equal(body, "\0\0\0\0", 4);
    hear_ready(f, fd, 'I');
    close(fd);
    close(server);
    world.version = 180000;
    fd = start_as(f, v32, sizeof v32);
    assert_int_equal(hear(f, fd, PATIENCE_MS, NULL, 0), 'R');
    close(fd);
    fixture_close(f);
}

static void server_errors(void **state)
{
    static const char full[] = "SFATAL\0VFATAL\0C53300\0Mtoo many\0", starts[] = "SFATAL\0VFATAL\0C57P03\0Mstarting\0",
                      old[] = "SFATAL\0VFATAL\0C28P01\0Mno\0";
    struct fixture *f = fixture_open(0, 0, 0);
    char body[256];
    int fd, server;

    (void)state;
    fixture_open_gate(f, 1);
    fd = client_start(f, false);
    server = server_accept(f);
    say(server, 'E', full, sizeof full);
    assert_int_equal(hear(f, fd, PATIENCE_MS, body, sizeof body), 'E');
    assert_memory_equal(body, full, sizeof full);
    close(server);
    close(fd);
    /* After AuthenticationOk, as when a database is not there. */
    fd = client_start(f, false);
    server = server_accept(f);
    server_check(server);
    say(server, 'R', "\0\0\0\0", 4);
    say(server, 'E', full, sizeof full);
    assert_int_equal(hear(f, fd, PATIENCE_MS, body, sizeof body), 'R');
    assert_int_equal(hear(f, fd, PATIENCE_MS, body, sizeof body), 'E');
    assert_memory_equal(body, full, sizeof full);
    close(server);
    close(fd);
    /* A password that is newer than the verifier, or has expired. */
    fd = client_start(f, false);
    server = server_accept(f);
    say(server, 'E', old, sizeof old);
    assert_int_equal(hear(f, fd, PATIENCE_MS, body, sizeof body), 'E');
    assert_memory_equal(body, old, sizeof old);
    close(server);
    close(fd);
    /* A server that starts or stops is asked again, with the same proof. */
    fd = client_start(f, false);
    server = server_accept(f);
    say(server, 'E', starts, sizeof starts);
    close(server);
    server = server_accept(f);
    server_log_in(server);
    hear_ready(f, fd, 'I');
    close(server);
    close(fd);
    fixture_close(f);
}

/* Whoever sits in PostgreSQL's place and does not know the verifier gets nothing, nor does the client. */
static void servers_that_lie(void **state)
{
    struct fixture *f = fixture_open(0, 0, 0);
    uint8_t out[HF_SASL_OUT_MAX];
    struct hf_sasl s;
    size_t n;
    int fd, server;

    (void)state;
    fixture_open_gate(f, 1);
    for (int i = 0; i < 5; i++) {
        fd = client_start(f, false);
        server = server_accept(f);
        if (i == 0) /* no proof asked */
            say(server, 'R', "\0\0\0\0", 4);
        else if (i == 1) /* the password in clear */
            say(server, 'R', "\0\0\0\3", 4);
        else if (i == 2) /* SCRAM's end first */
            say(server, 'R', "\0\0\0\x0cv=x", 7);
        else if (i == 3) /* not a word of a login */
            say(server, 'T', "\0\0", 2);
        else { /* a nonce of its own */
            n = hf_sasl_begin(&s, &world.verifier, false, NULL, 0, out);
            assert_int_equal(send(server, out, n, MSG_NOSIGNAL), n);
            run_for(f, 20);
            say(server, 'R', "\0\0\0\x0br=mine,s=c2FsdA==,i=16", 26);
        }
        hear_error(f, fd, "28000");
        close(fd);
        close(server);
    }
    /* A server signature of another verifier. */
    fd = client_start(f, false);
    server = server_accept(f);
    world.verifier.server_key[0] ^= 1;
    server_check(server); /* it is not even heard to the end */
    hear_error(f, fd, "28000");
    close(fd);
    close(server);
    fixture_close(f);
}

static void cannot_ask(void **state)
{
    struct fixture *f = fixture_open(300, 0, 0);
    int fd;

    (void)state;
    fixture_open_gate(f, 1);
    world.mute = true; /* PostgreSQL does not answer: asked again, bounded */
    fd = client_start(f, false);
    hear_error(f, fd, "57P03");
    assert_true(atomic_load(&world.questions) >= 2);
    close(fd);
    /* What is heard while the lease is over does not count. */
    world.mute = false;
    hf_router_lease(f->r, 1);
    fd = client_start(f, false);
    hear_error(f, fd, "57P03");
    close(fd);
    assert_false(server_is_asked(f, 0));
    fixture_close(f);
}

/* -- through tunnels ----------------------------------------------------------------------------- */

static int dial_take(struct fixture *f, bool ok)
{
    struct hf_router_dial *d = f->dial;
    int fd = f->dial_fd;

    f->dial = NULL;
    hf_router_dialed(d, ok, f->dial_to == HF_TO_FOLLOWER ? 7 : 1);
    if (!ok)
        close(fd);
    return ok ? fd : -1;
}

/* A new cluster's clients may come before its roles. */
static void roles_are_being_made(void **state)
{
    static const char app[] = "\0\0\0\x12\0\3\0\0user\0app\0";
    struct fixture *f = fixture_open(0, 0, 0);
    char seen[256];
    int fd;

    (void)state;
    world.kind = HF_ROLE_UNKNOWN;
    hf_router_unfurnished(f->r, true);
    fixture_open_gate(f, 1);
    fd = start_as(f, app, sizeof app);
    hear_nothing(f, fd, 700);
    assert_int_equal(hf_router_counts(f->r).held, 1);
    world.kind = HF_ROLE_SCRAM;
    hf_router_unfurnished(f->r, false);
    assert_int_equal(hear(f, fd, PATIENCE_MS, seen, sizeof seen), 'R');
    assert_memory_equal(seen, "\0\0\0\x0aSCRAM-SHA-256\0", 19);
    assert_int_equal(refused(f, HF_REFUSED_PASSWORD), 0);
    close(fd);
    fixture_close(f);
}

static void leader_changes_meanwhile(void **state)
{
    struct fixture *f = fixture_open(0, 0, 0);
    int fd, old, leader;
    char hello[32];

    (void)state;
    hf_router_leader(f->r, HF_LEADER_ELSEWHERE, 1);
    fd = client_start_silent(f, false);
    run_until(f, &f->dials, 1);
    old = dial_take(f, true);
    leader_tell(f, old);
    run_until_bytes(f, fd, 9);
    hf_router_leader(f->r, HF_LEADER_ELSEWHERE, 2); /* while the client still thinks about its password */
    run_for(f, 50);
    client_prove(f, fd, NULL);
    run_until(f, &f->dials, 2);
    assert_int_equal(recv(old, hello, sizeof hello, 0), 0); /* not a word to the old one */
    leader = dial_take(f, true);
    run_until_bytes(f, leader, 18);
    assert_int_equal(recv(leader, hello, sizeof hello, 0), 18);
    server_log_in(leader);
    hear_ready(f, fd, 'I');
    close(fd);
    close(old);
    close(leader);
    /* And while it is asked: the new one is asked, too. */
    fd = client_start(f, false);
    run_until(f, &f->dials, 3);
    old = dial_take(f, true);
    run_for(f, 50);
    hf_router_leader(f->r, HF_LEADER_ELSEWHERE, 3);
    run_until(f, &f->dials, 4);
    leader = dial_take(f, true);
    leader_tell(f, leader);
    run_until_bytes(f, leader, 18);
    assert_int_equal(recv(leader, hello, sizeof hello, 0), 18);
    close(fd);
    close(old);
    close(leader);
    fixture_close(f);
}

static void leader_is_full(void **state)
{
    static const char full[] = "SFATAL\0VFATAL\0C53300\0Msorry\0";
    struct fixture *f = fixture_open(0, 0, 0);
    int fd, leader;

    (void)state;
    hf_router_leader(f->r, HF_LEADER_ELSEWHERE, 1);
    fd = client_start(f, false);
    run_until(f, &f->dials, 1);
    leader = dial_take(f, true);
    say(leader, 'E', full, sizeof full);
    hear_error(f, fd, "53300");
    close(fd);
    close(leader);
    fixture_close(f);
}

static int ask_through_tunnel(struct fixture *f, enum hf_router_to as)
{
    uint8_t b[32];
    int fds[2];

    assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0, fds), 0);
    hf_router_serve(f->r, fds[1], as);
    assert_int_equal(send(fds[0], b, hf_wire_ask(b, "app"), MSG_NOSIGNAL), 12);
    return fds[0];
}

static void asked_by_another_node(void **state)
{
    static const char hello[] = "\0\0\0\x12\0\3\0\0user\0app\0";
    struct fixture *f = fixture_open(0, 0, 2);
    char body[512] = {0}, expected[HF_SCRAM_VERIFIER_MAX];
    uint8_t b[32];
    int fd, server, third;

    (void)state;
    fd = ask_through_tunnel(f, HF_TO_LEADER); /* no leader */
    hear_end(f, fd);
    close(fd);
    fixture_open_gate(f, 1);
    fd = ask_through_tunnel(f, HF_TO_LEADER);
    assert_int_equal(hear(f, fd, PATIENCE_MS, body, sizeof body), 'V');
    hf_scram_verifier_print(&world.verifier, expected);
    assert_int_equal(body[0], HF_ROLE_SCRAM);
    assert_string_equal(body + 13, expected);
    /* The session itself follows, in the place that the question took. */
    assert_int_equal(send(fd, hello, sizeof hello, MSG_NOSIGNAL), sizeof hello);
    server = server_accept(f);
    server_welcome(server);
    hear_ready(f, fd, 'I');
    assert_int_equal(hf_router_counts(f->r).gate, 1);
    third = ask_through_tunnel(f, HF_TO_LEADER);
    assert_int_equal(hear(f, third, PATIENCE_MS, NULL, 0), 'V');
    {
        int fourth = ask_through_tunnel(f, HF_TO_LEADER);
        hear_error(f, fourth, "53300");
        close(fourth);
    }
    close(third);
    close(fd);
    close(server);
    /* A lease that ended meanwhile: somebody else may know better. */
    hf_router_lease(f->r, 1);
    fd = ask_through_tunnel(f, HF_TO_LEADER);
    hear_end(f, fd);
    close(fd);
    /* A client is told nothing. */
    hf_router_lease(f->r, hf_clock_ns() + 60 * SECOND_NS);
    fd = client_connect(f, false);
    assert_int_equal(send(fd, b, hf_wire_ask(b, "app"), MSG_NOSIGNAL), 12);
    hear_error(f, fd, "0A000");
    close(fd);
    fixture_close(f);
}

/* -- readers --------------------------------------------------------------------------------------- */

/* Without a leader that could be asked, the standby's own copy has to do. */
static void reader_without_a_leader(void **state)
{
    struct fixture *f = fixture_open(0, 0, 0);
    int fd, server;

    (void)state;
    hf_router_follower_readable(f->r, true);
    fd = client_start(f, true);
    server = server_accept(f);
    assert_int_equal(world.opening, 0);
    server_log_in(server);
    hear_ready(f, fd, 'I');
    close(fd);
    close(server);
    hf_router_leader(f->r, HF_LEADER_ELSEWHERE, 1); /* known, but its node cannot be reached */
    fd = client_start(f, true);
    for (unsigned dials = 0; !server_is_asked(f, 5);) {
        if (f->dials == dials)
            continue;
        dials = f->dials;
        assert_true(dials < 200);
        (void)dial_take(f, false);
    }
    server = server_accept(f);
    server_log_in(server);
    hear_ready(f, fd, 'I');
    close(fd);
    close(server);
    fixture_close(f);
}

/* That the leader is slow to answer is no reason to take an older word than its own; and a reader who has not proved
 * anything yet holds no place there. */
static void reader_of_a_slow_leader(void **state)
{
    struct fixture *f = fixture_open(0, 0, 0);
    int fd, leader;

    (void)state;
    hf_router_leader(f->r, HF_LEADER_ELSEWHERE, 1);
    hf_router_follower_readable(f->r, true);
    fd = client_start_silent(f, true);
    run_until(f, &f->dials, 1);
    leader = dial_take(f, true);
    assert_false(server_is_asked(f, 1300));
    assert_int_equal(atomic_load(&world.questions), 0);
    leader_tell(f, leader);
    assert_int_equal(hear(f, fd, PATIENCE_MS, NULL, 0), 'R');
    hear_end(f, leader);
    close(leader);
    close(fd);
    fixture_close(f);
}

/* A standby that has not heard of the newest password: the leader serves. */
static void reader_of_a_late_standby(void **state)
{
    static const char old[] = "SFATAL\0VFATAL\0C28P01\0Mno\0";
    struct fixture *f = fixture_open(0, 0, 0);
    int fd, server, leader;
    char hello[128] = {0};

    (void)state;
    hf_router_leader(f->r, HF_LEADER_ELSEWHERE, 1);
    hf_router_follower_readable(f->r, true);
    fd = client_start(f, true);
    run_until(f, &f->dials, 1);
    leader = dial_take(f, true);
    leader_tell(f, leader);
    close(leader);
    server = server_accept(f);
    say(server, 'E', old, sizeof old);
    close(server);
    run_until(f, &f->dials, 2);
    assert_int_equal(f->dial_to, HF_TO_LEADER);
    leader = dial_take(f, true);
    run_until_bytes(f, leader, 18);
    assert_true(recv(leader, hello, sizeof hello, 0) > 18);
    server_log_in(leader);
    hear_ready(f, fd, 'I');
    close(fd);
    close(leader);
    fixture_close(f);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(wrong_password),
        cmocka_unit_test(often_wrong),
        cmocka_unit_test(out_of_order),
        cmocka_unit_test(negotiated),
        cmocka_unit_test(server_errors),
        cmocka_unit_test(servers_that_lie),
        cmocka_unit_test(cannot_ask),
        cmocka_unit_test(roles_are_being_made),
        cmocka_unit_test(leader_changes_meanwhile),
        cmocka_unit_test(leader_is_full),
        cmocka_unit_test(asked_by_another_node),
        cmocka_unit_test(reader_without_a_leader),
        cmocka_unit_test(reader_of_a_slow_leader),
        cmocka_unit_test(reader_of_a_late_standby),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
