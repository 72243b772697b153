/* Cancels of sessions that share server connections. */
#include <unistd.h>

#include "two.h"

/* A cancel is for what this client does now: what waits is not done; what another does on the connection that was this client's goes on. */
static void cancelled(void **state)
{
    struct fixture *f = sharing(1);
    int server, c, a = two_of(f, &c, &server), b = client_start(f, false);
    char key[8];

    (void)state;
    client_proved(f, b);
    hear_key(f, b, key);
    close(c);
    done(f, a, server, "BEGIN", "BEGIN", 'T');
    cancel(f, key); /* the client does nothing */
    hear_nothing(f, b, 20);
    hear_nothing(f, server, 20);
    say(b, 'Q', "SELECT 2", 9);
    RUN_UNTIL(f, hf_router_counts(f->r).pool.waiting == 1);
    cancel(f, key);
    hear_plain_error(f, b, "57014");
    hear_ready(f, b, 'I');
    assert_int_equal(hf_router_counts(f->r).pool.waiting, 0);
    parse(b, "", "SELECT 3");
    bind_execute(b, "");
    say(b, 'S', "", 0);
    say(b, 'Q', "SELECT 4", 9); /* behind it */
    RUN_UNTIL(f, hf_router_counts(f->r).pool.waiting == 1);
    cancel(f, key);
    hear_plain_error(f, b, "57014");
    hear_ready(f, b, 'I');
    done(f, a, server, "COMMIT", "COMMIT", 'I');
    hear_text(f, server, 'Q', "SELECT 4");
    say(server, 'C', "SELECT 1", 9);
    say_ready(server, 'I');
    hear_text(f, b, 'C', "SELECT 1");
    hear_ready(f, b, 'I');
    assert_false(server_is_asked(f, 20)); /* no cancel went to PostgreSQL */
    close(a);
    close(b);
    close(server);
    fixture_close(f);
}

/* What waits is many messages and is cancelled: nothing of it was done, whatever it says, and the client is in no transaction. */
static void cancelled_pipeline(void **state)
{
    struct fixture *f = sharing(1);
    int server, c, a = two_of(f, &c, &server), b = client_start(f, false);
    char key[8];

    (void)state;
    client_proved(f, b);
    hear_key(f, b, key);
    close(c);
    done(f, a, server, "BEGIN", "BEGIN", 'T');
    parse(b, "", "SELECT 1");
    bind_execute(b, "");
    parse(b, "", "BEGIN");
    bind_execute(b, "");
    say(b, 'S', "", 0);
    RUN_UNTIL(f, hf_router_counts(f->r).pool.waiting == 1);
    cancel(f, key);
    hear_plain_error(f, b, "57014");
    hear_ready(f, b, 'I');
    say(b, 'Q', "SELECT 2", 9);
    done(f, a, server, "COMMIT", "COMMIT", 'I');
    hear_text(f, server, 'Q', "SELECT 2");
    close(a);
    close(b);
    close(server);
    fixture_close(f);
}

/* The connection that it needs is being made: a cancel ends the wait all the same, and the connection is not made. */
static void cancelled_while_connecting(void **state)
{
    struct fixture *f = sharing(1);
    int server, c, a = two_of(f, &c, &server), b = client_start(f, false);
    char key[8];

    (void)state;
    client_proved(f, b);
    hear_key(f, b, key);
    close(c);
    done(f, a, server, "SET work_mem = '1MB'", "SET", 'I');
    say(b, 'Q', "SELECT 1", 9);
    hear_text(f, server, 'Q', "DISCARD ALL"); /* it is being made equal */
    cancel(f, key);
    hear_plain_error(f, b, "57014");
    hear_ready(f, b, 'I');
    hear_text(f, server, 'Q', "RESET ROLE");
    hear_end(f, server);
    close(server);
    say(b, 'Q', "SELECT 2", 9);
    server = server_accept(f); /* it is being logged in */
    cancel(f, key);
    hear_plain_error(f, b, "57014");
    hear_ready(f, b, 'I');
    hear_end(f, server);
    close(server);
    hf_router_gate_shut(f->r);
    run_until(f, &f->shut, 1);
    say(b, 'Q', "SELECT 3", 9);
    RUN_UNTIL(f, hf_router_counts(f->r).held == 1); /* there is no leader */
    cancel(f, key);
    hear_plain_error(f, b, "57014");
    hear_ready(f, b, 'I');
    say(b, 'Q', "SELECT 4", 9);
    server = again(f, 2);
    hear_text(f, server, 'Q', "SELECT 4");
    say(a, 'Q', "SELECT 5", 9); /* waits: there is one place */
    hear_nothing(f, a, 20);
    close(a);
    close(b);
    close(server);
    fixture_close(f);
}

/* It has waited too long, and been told so: there is nothing to cancel any more. */
static void cancelled_too_late(void **state)
{
    struct fixture *f = fixture_open_with(
        &(struct hf_router_config){.follow = true, .share = true, .max_servers = 1, .pool_wait_ms = 200});
    int server, c, a, b;
    char key[8];

    (void)state;
    world.guard = "none";
    fixture_open_gate(f, 1);
    a = two_of(f, &c, &server);
    b = client_start(f, false);
    client_proved(f, b);
    hear_key(f, b, key);
    close(c);
    done(f, a, server, "BEGIN", "BEGIN", 'T');
    say(b, 'Q', "SELECT 2", 9);
    hear_error(f, b, "53300");
    cancel(f, key); /* its client has not gone yet */
    done(f, a, server, "COMMIT", "COMMIT", 'I');
    close(a);
    close(b);
    close(server);
    fixture_close(f);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(cancelled), cmocka_unit_test(cancelled_pipeline), cmocka_unit_test(cancelled_while_connecting),
                                       cmocka_unit_test(cancelled_too_late)};

    return cmocka_run_group_tests(tests, NULL, NULL);
}
