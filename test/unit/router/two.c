#include "two.h"

#include <stdio.h>
#include <sys/socket.h>
#include <unistd.h>

struct fixture *sharing(unsigned most)
{
    struct fixture *f = fixture_open_with(&(struct hf_router_config){.follow = true, .share = true, .max_servers = most});

    world.guard = "none";
    fixture_open_gate(f, 1);
    return f;
}

void hear_type(struct fixture *f, int fd, int type)
{
    assert_int_equal(hear(f, fd, PATIENCE_MS, NULL, 0), type);
}

void hear_text(struct fixture *f, int fd, int type, const char *text)
{
    char body[512] = {0};

    assert_int_equal(hear(f, fd, PATIENCE_MS, body, sizeof body), type);
    assert_string_equal(body, text);
}

void done_with(struct fixture *f, int fd, int server, const char *sql, const char *tag, char status, const char *held)
{
    ask(f, fd, server, sql);
    say(server, 'C', tag, strlen(tag) + 1);
    say_held(server, held);
    say_ready(server, status);
    hear_type(f, fd, 'C');
    hear_ready(f, fd, status);
}

void undone(struct fixture *f, int server)
{
    hear_text(f, server, 'Q', "DISCARD ALL");
    hear_text(f, server, 'Q', "RESET ROLE");
    say(server, 'C', "DISCARD ALL", 12);
    say_ready(server, 'I');
    say(server, 'C', "RESET", 6);
    say_ready(server, 'I');
}

int two_of(struct fixture *f, int *b, int *server)
{
    int first, a = session_open(f, &first);

    *b = client_start(f, false);
    *server = server_accept(f);
    hear_end(f, first);
    close(first);
    server_log_in(*server);
    hear_ready(f, *b, 'I');
    return a;
}

struct two two_open(void)
{
    struct two t = {.f = sharing(1)};

    t.a = two_of(t.f, &t.b, &t.server);
    return t;
}

void two_close(struct two *t)
{
    close(t->a);
    close(t->b);
    close(t->server);
    fixture_close(t->f);
}

void parse(int fd, const char *name, const char *text)
{
    char body[256];
    size_t n = (size_t)snprintf(body, sizeof body, "%s", name) + 1;

    n += (size_t)snprintf(body + n, sizeof body - n, "%s", text) + 1;
    memset(body + n, 0, 2);
    say(fd, 'P', body, n + 2);
}

void bind_execute(int fd, const char *name)
{
    char body[64] = {0};
    size_t n = (size_t)snprintf(body + 1, sizeof body - 1, "%s", name) + 2;

    memset(body + n, 0, 6);
    say(fd, 'B', body, n + 6);
    say(fd, 'E', "\0\0\0\0\0", 5);
}

void hear_parse(struct fixture *f, int server)
{
    hear_type(f, server, 'P');
    hear_type(f, server, 'S');
    say(server, '1', "", 0);
    say_ready(server, 'I');
}

void parsed(struct fixture *f, int fd, int server, const char *name, const char *text)
{
    parse(fd, name, text);
    say(fd, 'S', "", 0);
    hear_parse(f, server);
    hear_type(f, fd, '1');
    hear_ready(f, fd, 'I');
}

void hear_key(struct fixture *f, int fd, char key[8])
{
    int type;

    do
        type = hear(f, fd, PATIENCE_MS, key, 8);
    while (type != 'K' && type > 0);
    assert_int_equal(type, 'K');
    hear_ready(f, fd, 'I');
}

int cancel_start(struct fixture *f, const char key[8])
{
    char packet[16] = "\0\0\0\x10\x04\xd2\x16\x2e";
    int fd = client_connect(f, false);

    memcpy(packet + 8, key, 8);
    assert_int_equal(send(fd, packet, sizeof packet, MSG_NOSIGNAL), sizeof packet);
    return fd;
}

void cancel(struct fixture *f, const char key[8])
{
    int fd = cancel_start(f, key);

    hear_end(f, fd);
    close(fd);
}
