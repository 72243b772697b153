#include "two.h"

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
