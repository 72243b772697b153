/* /follower?max_lag=: which followers a load balancer may send readers to. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <stdlib.h>
#include <string.h>

#include "node_private.h"

static const struct hf_durable durable = {.self = 2};
static const struct hf_cluster cluster;

/* -- the node around it: a follower that can be read
 * ------------------------------------------------ */

struct hf_view hf_decide_view(const struct hf_decide *d)
{
    (void)d;
    return (struct hf_view){.cluster = &cluster, .durable = &durable};
}

struct hf_router_counts hf_router_counts(const struct hf_router *r)
{
    (void)r;
    return (struct hf_router_counts){.gate = 0};
}

const char *hf_router_refused_word(enum hf_refused why)
{
    (void)why;
    return "full";
}

bool hf_router_is_readable(const struct hf_router *r)
{
    (void)r;
    return true;
}

bool hf_router_gate_is_open(const struct hf_router *r)
{
    (void)r;
    return false;
}

struct hf_pg *hf_agent_pg(struct hf_agent *a)
{
    (void)a;
    return NULL;
}

void hf_pg_status(struct hf_pg *pg, struct hf_pg_status *s)
{
    (void)pg;
    memset(s, 0, sizeof *s);
}

hf_lsn hf_node_lsn(const struct hf_node *n)
{
    return n->applied;
}

char *hf_node_status_text(struct hf_node *n)
{
    (void)n;
    return NULL;
}

const struct hf_member *hf_cluster_member(const struct hf_cluster *c, hf_node_id id)
{
    (void)c;
    (void)id;
    return NULL;
}

/* -- the test -------------------------------------------------------------------------------------
 */

static unsigned follower(const char *max_lag)
{
    static struct hf_node n;
    struct hf_http_answer a = {0};

    n.decide = (struct hf_decide *)&n;
    n.streaming = true;
    n.applied = 1000;
    n.leader_end = 1100;
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

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(a_limit), cmocka_unit_test(no_number)};

    return cmocka_run_group_tests(tests, NULL, NULL);
}
