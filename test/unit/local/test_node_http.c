/* /follower?max_lag=: which followers a load balancer may send readers to. /readyz: may one go on to the next pod? */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include "http_world.h"

/* -- the test -------------------------------------------------------------------------------------
 */

static unsigned follower(const char *max_lag)
{
    static struct hf_node n;
    struct hf_http_answer a = {0};

    world.durable.self = 2;
    world.view = (struct hf_view){.cluster = &world.cluster, .durable = &world.durable};
    world.readable = true;
    n.decide = (struct hf_decide *)&n;
    n.streaming = true;
    hf_lag_begin(&n.reads.lag);
    hf_lag_heard(&n.reads.lag, 1100, 1000, 1);
    hf_node_http(&n, "/follower", max_lag, &a);
    assert_non_null(a.text);
    free(a.text);
    return a.status;
}

static void a_limit(void **s)
{
    (void)s;
    assert_int_equal(follower(NULL), 200);
    assert_int_equal(follower("100"), 200);
    assert_int_equal(follower("0100"), 200);
    assert_int_equal(follower("99"), 503);
    assert_int_equal(follower("18446744073709551615"), 200);
}

/* "-1" let every follower pass, however far behind, and "1MB" none. */
static void no_number(void **s)
{
    static const char *const wrong[] = {"",     "-1",  "+100", " 100",
                                        "100 ", "1MB", "0x64", "18446744073709551616"};

    (void)s;
    for (size_t i = 0; i < sizeof wrong / sizeof *wrong; i++)
        assert_int_equal(follower(wrong[i]), 400);
}

static void readyz(const struct hf_node *from, unsigned status, const char *why)
{
    struct hf_node n = *from;
    struct hf_http_answer a = {0};

    hf_node_http(&n, "/readyz", NULL, &a);
    assert_int_equal(a.status, status);
    assert_non_null(strstr(a.text, why));
    free(a.text);
}

static void readiness_and_why(void **s)
{
    static struct hf_node n;
    uint64_t now = 0;

    (void)s;
    hf_ready_begin(&n.ready, now);
    readyz(&n, 503, "has just started");
    hf_ready_look(&n.ready, false, true, now += HF_MS);
    readyz(&n, 503, "neither leads nor streams");
    hf_ready_look(&n.ready, false, false, now += HF_READY_PATIENCE_NS); /* and no question of quorum */
    readyz(&n, 200, "ok");
    hf_ready_look(&n.ready, true, true, now += HF_MS);
    readyz(&n, 200, "ok");
    n.terminating = true;
    readyz(&n, 503, "is shutting down");
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(a_limit), cmocka_unit_test(no_number), cmocka_unit_test(readiness_and_why)};

    return cmocka_run_group_tests(tests, NULL, NULL);
}
