#include "outlive.h"

#include <sys/socket.h>
#include <unistd.h>

struct fixture *follow(unsigned hold_ms)
{
    struct fixture *f = fixture_open_with(&(struct hf_router_config){.hold_ms = hold_ms, .follow = true});

    world.guard = "none";
    return f;
}

void ask(struct fixture *f, int fd, int server, const char *sql)
{
    say(fd, 'Q', sql, strlen(sql) + 1);
    assert_int_equal(hear(f, server, PATIENCE_MS, NULL, 0), 'Q');
}

void done(struct fixture *f, int fd, int server, const char *sql, const char *tag, char status)
{
    ask(f, fd, server, sql);
    say(server, 'C', tag, strlen(tag) + 1);
    say_ready(server, status);
    assert_int_equal(hear(f, fd, PATIENCE_MS, NULL, 0), 'C');
    hear_ready(f, fd, status);
}

void hear_types(struct fixture *f, int fd, const char *types)
{
    for (; *types != '\0'; types++)
        assert_int_equal(hear(f, fd, PATIENCE_MS, NULL, 0), *types);
}

void hear_plain_error(struct fixture *f, int fd, const char *sqlstate)
{
    char body[1024] = {0};

    assert_int_equal(hear(f, fd, PATIENCE_MS, body, sizeof body), 'E');
    assert_memory_equal(body, "SERROR\0VERROR\0C", 15);
    body[20] = '\0';
    assert_string_equal(body + 15, sqlstate);
}

void lose(struct fixture *f, int server)
{
    unsigned before = f->shut;

    hf_router_gate_shut(f->r);
    run_until(f, &f->shut, before + 1);
    while (hear(f, server, PATIENCE_MS, NULL, 0) > 0)
        ; /* what was on its way to it */
    close(server);
}

int again(struct fixture *f, uint64_t epoch)
{
    int server;

    fixture_open_gate(f, epoch);
    server = server_accept(f);
    server_log_in(server);
    return server;
}

void remake(struct fixture *f, int server, const char *expected)
{
    char body[1024] = {0};
    bool found = expected == NULL;
    int type;

    while ((type = hear(f, server, PATIENCE_MS, body, sizeof body)) != 'S') {
        assert_true(type > 0);
        found = found || (type == 'P' && memmem(body, sizeof body, expected, strlen(expected)) != NULL);
    }
    assert_true(found);
    say(server, '1', "", 0);
    say(server, '2', "", 0);
    say(server, 'C', "SET", 4);
    say_ready(server, 'I');
}

void spoil(struct fixture *f, int server)
{
    char body[256] = {0};

    assert_int_equal(hear(f, server, PATIENCE_MS, body, sizeof body), 'Q');
    assert_string_equal(body, "BEGIN");
    assert_int_equal(hear(f, server, PATIENCE_MS, body, sizeof body), 'Q');
    assert_memory_equal(body, "ROLLBACK TO SAVEPOINT", 21);
    say(server, 'C', "BEGIN", 6);
    say_ready(server, 'T');
    say(server, 'E', "SERROR\0VERROR\0C3B001\0Mno\0", 26);
    say_ready(server, 'E');
}

int dial_take(struct fixture *f)
{
    struct hf_router_dial *d = f->dial;

    f->dial = NULL;
    hf_router_dialed(d, true, 1);
    return f->dial_fd;
}

int tunnel_log_in(struct fixture *f)
{
    int leader = dial_take(f);
    char hello[64];

    run_until_bytes(f, leader, 18);
    assert_int_equal(recv(leader, hello, sizeof hello, 0), 18);
    server_log_in(leader);
    return leader;
}

int tunnel_open(struct fixture *f, int *leader)
{
    char hello[64];
    int fd;

    hf_router_leader(f->r, HF_LEADER_ELSEWHERE, 1);
    fd = client_start(f, false);
    run_until(f, &f->dials, 1);
    *leader = dial_take(f);
    leader_tell(f, *leader);
    run_until_bytes(f, *leader, 18);
    assert_int_equal(recv(*leader, hello, sizeof hello, 0), 18);
    server_log_in(*leader);
    hear_ready(f, fd, 'I');
    return fd;
}

void say_taken(int leader, uint64_t n)
{
    uint8_t out[HF_WIRE_TAKEN_BYTES];

    assert_int_equal(send(leader, out, hf_wire_taken(out, n), MSG_NOSIGNAL), HF_WIRE_TAKEN_BYTES);
}
