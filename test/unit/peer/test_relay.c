/* The relay tells whether a WAL receiver is there and whether WAL comes, whatever becomes of connections that a WAL receiver has left. */
#include "pair.h"

#include "base/file.h"
#include "base/net.h"
#include "peer/relay.h"

static uv_loop_t relays; /* a relay lasts as long as its process */
static struct hf_relay *relay;

struct told {
    unsigned began;
    bool streaming;
};

static void on_streaming(void *ctx, bool yes)
{
    struct told *t = ctx;

    t->began += yes;
    t->streaming = yes;
}

static void on_progress(void *ctx, hf_lsn end, hf_lsn applied)
{
    (void)ctx;
    (void)end;
    (void)applied;
}

static int connect_receiver(void)
{
    char path[160];
    int fd;

    (void)snprintf(path, sizeof path, "%s/relay/.s.PGSQL.5432", test_dir("node"));
    fd = hf_net_connect_unix(path, NULL);
    assert_true(fd >= 0);
    (void)uv_run(&relays, UV_RUN_ONCE);
    return fd;
}

/* A WAL receiver, and the leader's end of its stream. */
static int receive(struct pair *p, struct told *t, int *far)
{
    unsigned before = t->began;
    int fd = connect_receiver();

    WAIT(p, t->began > before);
    *far = p->b.far;
    return fd;
}

/* It comes again, and only then is the end of the first one seen. */
static void comes_again(void **state)
{
    struct pair *p = pair_open(false);
    struct told t = {0};
    struct hf_relay_callbacks callbacks = {.ctx = &t, .on_streaming = on_streaming, .on_progress = on_progress};
    struct hf_error err = {0};
    int first, second, far, far_second;

    (void)state;
    assert_int_equal(uv_loop_init(&relays), 0);
    assert_int_equal(hf_dir_make(test_dir("node"), 0700, &err), 0);
    assert_int_equal(hf_relay_start(&relay, p->a.peer, &relays, test_dir("node"), &callbacks, &err), 0);
    assert_false(hf_relay_has_receiver(relay));
    first = connect_receiver();
    assert_true(hf_relay_has_receiver(relay)); /* it waits for a leader */
    close(first);
    assert_false(hf_relay_has_receiver(relay));
    hf_relay_open(relay, "b", p->b.addr, "hello", 5);
    first = receive(p, &t, &far);
    second = receive(p, &t, &far_second);
    close(first);
    hear_end(p, far);
    hear_nothing(p, second);
    assert_true(t.streaming);
    close(second);
    assert_true(hf_relay_has_receiver(relay));
    WAIT(p, !t.streaming);
    assert_false(hf_relay_has_receiver(relay));
    close(far);
    close(far_second);
    pair_close(p);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(comes_again)};

    return cmocka_run_group_tests(tests, certificates_make, certificates_remove);
}
