/* Who comes in, who is told why not, and the list of those who are in. */
#include <stdio.h>
#include <sys/socket.h>
#include <unistd.h>

#include "fixture.h"

static uint64_t refused(struct fixture *f, enum hf_refused why)
{
    return hf_router_counts(f->r).refused[why];
}

static void networks(void **state)
{
    struct hf_allow a = {0};
    struct hf_error err;
    struct fixture *f;
    int fd;

    (void)state;
    assert_int_equal(hf_allow_add(&a, "10.0.0.0/8", &err), 0);
    f = fixture_open_with(&(struct hf_router_config){.allow = &a});
    fd = client_start(f, false);
    hear_error(f, fd, "28000");
    close(fd);
    fd = client_connect(f, true);
    assert_int_equal(send(fd, "\0\0\0\x10\x04\xd2\x16\x2e\0\0\1\2\1\2\3\4", 16, MSG_NOSIGNAL), 16);
    hear_error(f, fd, "28000"); /* a cancel, too */
    close(fd);
    assert_int_equal(refused(f, HF_REFUSED_NETWORK), 2);
    fixture_close(f);

    assert_int_equal(hf_allow_add(&a, "127.0.0.0/8", &err), 0);
    f = fixture_open_with(&(struct hf_router_config){.allow = &a});
    fixture_open_gate(f, 1);
    {
        int server, in = session_open(f, &server);
        close(in);
        close(server);
    }
    fixture_close(f);
}

/* Full: at once, and who leaves makes room at once, whoever else is still being told that it is full. */
static void full(void **state)
{
    struct fixture *f = fixture_open(0, 0, 2);
    int server[3], in[3], out[10];

    (void)state;
    fixture_open_gate(f, 1);
    in[0] = session_open(f, &server[0]);
    in[1] = session_open(f, &server[1]);
    for (int i = 0; i < 10; i++) {
        uint64_t begin = uv_hrtime();
        out[i] = client_start(f, false);
        hear_error(f, out[i], "53300"); /* its end of the connection stays open */
        assert_true(uv_hrtime() - begin < 2 * SECOND_NS);
    }
    assert_int_equal(refused(f, HF_REFUSED_FULL), 10);
    close(in[0]);
    close(server[0]);
    RUN_UNTIL(f, hf_router_counts(f->r).sessions == 1);
    in[2] = session_open(f, &server[2]);
    for (int i = 0; i < 10; i++)
        close(out[i]);
    for (int i = 1; i < 3; i++) {
        close(in[i]);
        close(server[i]);
    }
    fixture_close(f);
}

/* Clients that say nothing are bounded, and above the bound one is told at once. */
static void silent_ones(void **state)
{
    enum { PENDING = 64 + 1, TOLD = 64 };
    struct fixture *f = fixture_open(0, 0, 2);
    int fds[PENDING + TOLD + 1], late;

    (void)state;
    for (int i = 0; i < PENDING; i++)
        fds[i] = client_connect(f, false);
    RUN_UNTIL(f, hf_router_counts(f->r).sessions == PENDING);
    late = client_connect(f, false);
    hear_error(f, late, "53300");
    close(late);
    for (int i = 0; i < PENDING; i++)
        close(fds[i]);
    RUN_UNTIL(f, hf_router_counts(f->r).sessions == 0);
    fixture_close(f);
}

/* A password may take its time, and PostgreSQL's own login, but not for ever. */
static void slow_login(void **state)
{
    struct fixture *f = fixture_open(0, 200, 0);
    uint64_t begin = uv_hrtime();
    int fd, server, in, other;

    (void)state;
    fixture_open_gate(f, 1);
    in = session_open(f, &other);
    begin = uv_hrtime();
    fd = client_start(f, false);
    server = server_accept(f); /* which says nothing */
    hear_error(f, fd, "57014");
    assert_true(uv_hrtime() - begin >= 195 * 1000000ull);
    hear_end(f, server);
    assert_int_equal(refused(f, HF_REFUSED_SLOW), 1);
    close(fd);
    begin = uv_hrtime();
    fd = client_start_silent(f, false);
    assert_int_equal(hear(f, fd, 2000, NULL, 0), 'R');
    hear_error(f, fd, "57014");
    assert_true(uv_hrtime() - begin >= 195 * 1000000ull);
    assert_int_equal(refused(f, HF_REFUSED_SLOW), 2);
    assert_false(server_is_asked(f, 0)); /* nor was PostgreSQL kept waiting */
    hear_nothing(f, in, 300); /* who has logged in may take its time */
    close(fd);
    close(server);
    close(in);
    close(other);
    fixture_close(f);
}

struct answer {
    struct hf_session_info infos[4];
    size_t n;
    unsigned answers;
};

static void take(void *ctx, const struct hf_session_info *infos, size_t n)
{
    struct answer *a = ctx;

    a->n = n;
    if (infos != NULL) {
        assert_true(n <= 4);
        memcpy(a->infos, infos, n * sizeof *infos);
    }
    a->answers++;
}

static struct answer list(struct fixture *f)
{
    struct answer a = {0};

    hf_router_list(f->r, take, &a);
    run_until(f, &a.answers, 1);
    return a;
}

static size_t end(struct fixture *f, uint64_t id)
{
    struct answer a = {0};

    hf_router_kill(f->r, id, take, &a);
    run_until(f, &a.answers, 1);
    return a.n;
}

static void listed(void **state)
{
    struct fixture *f = fixture_open(0, 0, 0);
    int server, in = session_open((fixture_open_gate(f, 1), f), &server), held;
    uint64_t login_in, login_out;
    struct answer a;

    (void)state;
    run_for(f, 20); /* bytes are counted once they are written */
    login_out = hf_router_counts(f->r).bytes_out;
    hf_router_gate_shut(f->r);
    run_until(f, &f->shut, 1);
    hear_error(f, in, "57P01");
    close(in);
    close(server);
    held = client_start(f, false); /* no leader: it waits */
    RUN_UNTIL(f, hf_router_counts(f->r).held == 1);
    a = list(f);
    assert_int_equal(a.n, 1);
    assert_string_equal(a.infos[0].place, "held");
    assert_string_equal(a.infos[0].user, "app");
    assert_string_equal(a.infos[0].database, "app");
    assert_memory_equal(a.infos[0].peer, "127.0.0.1:", 10);
    close(held);
    RUN_UNTIL(f, hf_router_counts(f->r).sessions == 0);

    fixture_open_gate(f, 2);
    in = session_open(f, &server);
    run_for(f, 20);
    a = list(f);
    assert_int_equal(a.n, 1);
    assert_string_equal(a.infos[0].place, "leader");
    assert_string_equal(a.infos[0].state, "idle");
    assert_int_equal(a.infos[0].pid, 258);
    login_in = a.infos[0].bytes_in;
    assert_true(login_in > 100);
    assert_int_equal(a.infos[0].bytes_out, login_out); /* as the first one's */
    assert_int_equal(hf_router_counts(f->r).bytes_out, 2 * login_out);
    say(in, 'Q', "BEGIN", 6);
    assert_int_equal(hear(f, server, 2000, NULL, 0), 'Q');
    assert_string_equal(list(f).infos[0].state, "active");
    say_ready(server, 'T');
    hear_ready(f, in, 'T');
    a = list(f);
    assert_string_equal(a.infos[0].state, "in transaction");
    assert_int_equal(a.infos[0].bytes_in, login_in + 11);

    assert_int_equal(end(f, a.infos[0].id + 1), 0);
    assert_int_equal(end(f, 0), 0);
    hear_nothing(f, in, 50);
    assert_int_equal(end(f, a.infos[0].id), 1);
    hear_error(f, in, "57P01");
    hear_end(f, server);
    close(in);
    close(server);
    fixture_close(f);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(networks),   cmocka_unit_test(full),   cmocka_unit_test(silent_ones),
        cmocka_unit_test(slow_login), cmocka_unit_test(listed),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
