/* Sessions that are followed: on the router's threads, with what those have of stack and time. */
#include "fixture.h"

#include <stdio.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <unistd.h>

struct seen {
    bool told;
    char holds[64];
};

static void told(void *ctx, const struct hf_session_info *infos, size_t n)
{
    struct seen *seen = ctx;

    assert_int_equal(n, 1);
    (void)snprintf(seen->holds, sizeof seen->holds, "%s", infos[0].holds);
    seen->told = true;
}

static void assert_holds(struct fixture *f, const char *what)
{
    struct seen seen = {0};

    hf_router_list(f->r, told, &seen);
    RUN_UNTIL(f, seen.told);
    assert_string_equal(seen.holds, what);
}

/* A text, and its answer. */
static void ask(struct fixture *f, int fd, int server, const char *text, const char *tag, unsigned answers)
{
    char m[5 + HF_SQL_PARSE_MAX + 1], heard[sizeof m];
    size_t len = strlen(text) + 1;

    assert_true(len <= HF_SQL_PARSE_MAX + 1);
    m[0] = 'Q';
    m[1] = m[2] = 0;
    m[3] = (char)((len + 4) >> 8);
    m[4] = (char)(len + 4);
    memcpy(m + 5, text, len);
    assert_int_equal(send(fd, m, len + 5, MSG_NOSIGNAL), len + 5);
    assert_int_equal(hear(f, server, PATIENCE_MS, heard, sizeof heard), 'Q');
    assert_string_equal(heard, text);
    for (unsigned i = 0; i < answers; i++)
        say(server, 'C', tag, strlen(tag) + 1);
    for (unsigned i = 0; i < answers; i++)
        assert_int_equal(hear(f, fd, PATIENCE_MS, NULL, 0), 'C');
    say_ready(server, 'I');
    hear_ready(f, fd, 'I');
}

/* However small the limit of this process's stacks: the text nests as deep as one may that the grammar
 * gets. */
static void deep(void **state)
{
    struct rlimit was, small;
    struct fixture *f;
    char text[HF_SQL_PARSE_MAX + 1];
    int fd, server;

    (void)state;
    assert_int_equal(getrlimit(RLIMIT_STACK, &was), 0);
    small = was;
    small.rlim_cur = 128 * 1024;
    assert_int_equal(setrlimit(RLIMIT_STACK, &small), 0);
    f = fixture_open_with(&(struct hf_router_config){.follow = true});
    world.guard = "none";
    assert_int_equal(setrlimit(RLIMIT_STACK, &was), 0);
    fixture_open_gate(f, 1);
    fd = session_open(f, &server);
    memcpy(text, "SET a.b=1;select 1", 18);
    for (size_t i = 18; i < sizeof text - 1; i += 2)
        memcpy(text + i, "+1", 3);
    ask(f, fd, server, text, "SET", 1);
    assert_holds(f, "not understood"); /* that deep not even the grammar goes */
    close(fd);
    close(server);
    fixture_close(f);
}

/* Each turn of the loop has its own budget for the grammar. */
static void turns(void **state)
{
    struct fixture *f = fixture_open_with(&(struct hf_router_config){.follow = true});
    char text[HF_SQL_PARSE_MAX + 1];
    int fd, server;

    (void)state;
    world.guard = "none";
    fixture_open_gate(f, 1);
    fd = session_open(f, &server);
    for (unsigned i = 0; i < 3 * HF_SQL_TURN_BYTES / HF_SQL_PARSE_MAX; i++) {
        memset(text, ' ', sizeof text);
        (void)snprintf(text + sizeof text - 32, 32, "SET a.b = %u", i);
        ask(f, fd, server, text, "SET", 1);
        assert_holds(f, "free"); /* comes to the thread by its mailbox: another turn */
    }
    close(fd);
    close(server);
    fixture_close(f);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(deep), cmocka_unit_test(turns)};

    return cmocka_run_group_tests(tests, NULL, NULL);
}
