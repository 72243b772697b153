/* Server connections that end while sessions share them: nobody's client is lost with one that is not its own. */
#include <sys/socket.h>
#include <unistd.h>

#include "two.h"

/* The second one's statement, on a connection of its own. */
static void served(struct two *t, const char *sql)
{
    int second = server_accept(t->f);

    server_log_in(second);
    hear_text(t->f, second, 'Q', sql);
    say(second, 'C', "SELECT 1", 9);
    say_ready(second, 'I');
    hear_text(t->f, t->b, 'C', "SELECT 1");
    hear_ready(t->f, t->b, 'I');
    close(second);
}

/* It takes nothing more, and its end has not been seen yet, when another session's state is to be made on it. */
static void dead_when_taken(void **state)
{
    struct two t = two_open();

    (void)state;
    done(t.f, t.a, t.server, "SET work_mem = '1MB'", "SET", 'I');
    assert_int_equal(shutdown(t.server, SHUT_RD), 0);
    say(t.b, 'Q', "SELECT 2", 9);
    served(&t, "SELECT 2");
    two_close(&t);
}

/* The client of the session that has it has said goodbye, which ends it: it is for nobody else. */
static void said_goodbye(void **state)
{
    struct two t = two_open();

    (void)state;
    done(t.f, t.a, t.server, "SELECT 1", "SELECT 1", 'I');
    say(t.a, 'X', "", 0);
    hear_type(t.f, t.server, 'X');
    say(t.b, 'Q', "SELECT 2", 9);
    hear_nothing(t.f, t.server, 50);
    assert_int_equal(shutdown(t.server, SHUT_WR), 0);
    hear_end(t.f, t.a);
    served(&t, "SELECT 2");
    two_close(&t);
}

/* And when it has gone right after that. */
static void said_goodbye_and_went(void **state)
{
    struct two t = two_open();

    (void)state;
    done(t.f, t.a, t.server, "SELECT 1", "SELECT 1", 'I');
    say(t.a, 'X', "", 0);
    hear_type(t.f, t.server, 'X');
    say(t.b, 'Q', "SELECT 2", 9);
    close(t.a);
    t.a = -1;
    served(&t, "SELECT 2");
    two_close(&t);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(dead_when_taken), cmocka_unit_test(said_goodbye), cmocka_unit_test(said_goodbye_and_went)};

    return cmocka_run_group_tests(tests, NULL, NULL);
}
