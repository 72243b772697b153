/* Places and lines, without a socket. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#include "router/pool.h"

enum { MANY = 500 };

static struct hf_pool *pool(struct hf_pools *all, const char *name)
{
    struct hf_pool *p = hf_pool_get(all, name, strlen(name));

    assert_non_null(p);
    return p;
}

static void shared(void **state)
{
    struct hf_pools all = {.most = 1};
    struct hf_pool *a = pool(&all, "a"), *b = pool(&all, "b");

    (void)state;
    assert_ptr_not_equal(a, b);
    assert_ptr_equal(pool(&all, "a"), a);
    assert_true(hf_pool_take(&all, a, 0));
    assert_false(hf_pool_take(&all, a, 0));
    assert_true(hf_pool_take(&all, b, 0)); /* has places of its own */
    assert_int_equal(all.places, 2);
    hf_pool_give(&all, a, 0);
    hf_pool_give(&all, b, 0);
    hf_pool_unref(&all, a);
    hf_pool_unref(&all, b);
    assert_ptr_equal(all.first, a);
    hf_pool_unref(&all, a);
    assert_null(all.first);
}

/* Who came first is served first, on the same thread at once; nobody passes another by more than a part of its waiting. */
static void fair(void **state)
{
    struct hf_pools all = {.most = 1};
    struct hf_pool *p = pool(&all, "p");
    static struct hf_waiter w[MANY];
    uint64_t served_ms = 0;
    unsigned served = 0, passed = 0;

    (void)state;
    memset(w, 0, sizeof w);
    assert_true(hf_pool_take(&all, p, 0));
    for (unsigned i = 0; i < MANY; i++)
        hf_pool_wait(&all, p, &w[i], i % 3 == 0, i);
    assert_false(hf_pool_take(&all, p, MANY)); /* nobody overtakes the line */
    for (; served < MANY; served++) {
        uint64_t oldest = UINT64_MAX;
        struct hf_waiter *next;
        for (unsigned i = 0; i < MANY; i++)
            if (w[i].pool != NULL && w[i].since_ms < oldest)
                oldest = w[i].since_ms;
        next = hf_pool_next(&all, p, served % 7 == 0, MANY);
        assert_non_null(next);
        assert_null(next->pool);
        assert_true(next->since_ms <= oldest + HF_POOL_NEAR_MS + (MANY - oldest) / HF_POOL_NEAR_PART);
        passed += next->since_ms > oldest;
        if (next->since_ms > served_ms)
            served_ms = next->since_ms;
    }
    assert_true(passed > 0);
    assert_null(hf_pool_next(&all, p, 0, 0));
    assert_int_equal(all.n_waiting, 0);
    hf_pool_give(&all, p, 0);
    hf_pool_unref(&all, p);
}

static void leaving(void **state)
{
    struct hf_pools all = {.most = 1};
    struct hf_pool *p = pool(&all, "p");
    struct hf_waiter a = {0}, b = {0}, c = {0};

    (void)state;
    assert_true(hf_pool_take(&all, p, 0));
    hf_pool_wait(&all, p, &a, 0, 1);
    hf_pool_wait(&all, p, &b, 0, 2);
    hf_pool_wait(&all, p, &c, 0, 3);
    hf_pool_leave(&all, &b);
    hf_pool_leave(&all, &b); /* harmless */
    assert_ptr_equal(hf_pool_next(&all, p, 1, 0), &a);
    hf_pool_leave(&all, &c);
    assert_null(hf_pool_next(&all, p, 1, 0));
    hf_pool_give(&all, p, 0);
    hf_pool_unref(&all, p);
}

/* A place without a connection goes to who is first, and to no more than there are places. */
static void growing(void **state)
{
    struct hf_pools all = {.most = 2};
    struct hf_pool *p = pool(&all, "p");
    struct hf_waiter a = {0}, b = {0};

    (void)state;
    assert_true(hf_pool_take(&all, p, 0) && hf_pool_take(&all, p, 0));
    hf_pool_wait(&all, p, &a, 0, 1);
    hf_pool_wait(&all, p, &b, 1, 2);
    assert_null(hf_pool_grow(&all, p, 0, 3));
    hf_pool_give(&all, p, 0);
    assert_ptr_equal(hf_pool_grow(&all, p, 0, 3), &a);
    assert_null(hf_pool_grow(&all, p, 0, 3));
    hf_pool_give(&all, p, 0);
    hf_pool_give(&all, p, 0);
    assert_ptr_equal(hf_pool_grow(&all, p, 0, 3), &b);
    hf_pool_give(&all, p, 0);
    hf_pool_unref(&all, p);
}

/* PostgreSQL has no room: nobody tries for a while, and who has met it is the first when somebody gives a connection up. */
static void refused(void **state)
{
    struct hf_pools all = {.most = 0};
    struct hf_pool *p = pool(&all, "p");
    struct hf_waiter a = {0}, b = {0};

    (void)state;
    assert_true(hf_pool_take(&all, p, 0));
    assert_false(hf_pool_refuse(&all, p, &a, 0, false, 0, 0)); /* nobody else is there to wait for */
    assert_int_equal(p->places, 1);
    assert_true(hf_pool_take(&all, p, 0));
    hf_pool_wait(&all, p, &b, 0, 5);
    assert_true(hf_pool_refuse(&all, p, &a, 0, false, 1, 10));
    assert_int_equal(p->places, 1);
    assert_null(hf_pool_grow(&all, p, 0, 10 + HF_POOL_REFUSED_MS - 1));
    assert_ptr_equal(hf_pool_next(&all, p, 1, 0), &a);
    assert_int_equal(a.since_ms, 1);
    assert_ptr_equal(hf_pool_grow(&all, p, 1, 10 + HF_POOL_REFUSED_MS), &b);
    hf_pool_give(&all, p, 100);
    hf_pool_give(&all, p, 100);
    hf_pool_unref(&all, p);
}

/* Who has waited for somebody's place may find that PostgreSQL has not ended that one's connection yet. */
static void refused_alone(void **state)
{
    struct hf_pools all = {.most = 0};
    struct hf_pool *p = pool(&all, "p");
    struct hf_waiter a = {0};

    (void)state;
    assert_true(hf_pool_take(&all, p, 0));
    assert_true(hf_pool_refuse(&all, p, &a, 0, true, 0, 10));
    assert_int_equal(p->places, 0);
    assert_int_equal(hf_pool_due_ms(p), 10 + HF_POOL_REFUSED_MS);
    assert_ptr_equal(hf_pool_grow(&all, p, 0, 10 + HF_POOL_REFUSED_MS), &a);
    hf_pool_give(&all, p, 100);
    hf_pool_unref(&all, p);
}

/* One after the other tries then, so that not all are refused again; each time in vain doubles the while, up to a bound. */
static void one_by_one(void **state)
{
    enum { WAITERS = 8 };
    struct hf_pools all = {.most = 0};
    struct hf_pool *p = pool(&all, "p");
    struct hf_waiter w[WAITERS] = {0}, *next;
    uint64_t now = 0, due;

    (void)state;
    assert_true(hf_pool_take(&all, p, now)); /* that one keeps its place */
    assert_true(hf_pool_take(&all, p, now));
    for (unsigned i = 1; i < WAITERS; i++)
        hf_pool_wait(&all, p, &w[i], 0, now);
    next = &w[0];
    for (unsigned i = 0, ms = HF_POOL_REFUSED_MS; i < 10; i++, ms = ms * 2 < HF_POOL_REFUSED_MAX_MS ? ms * 2 : HF_POOL_REFUSED_MAX_MS) {
        assert_true(hf_pool_refuse(&all, p, next, 0, false, now, now));
        due = now + ms;
        assert_int_equal(hf_pool_due_ms(p), due);
        assert_null(hf_pool_grow(&all, p, 0, due - 1));
        next = hf_pool_grow(&all, p, 0, due);
        assert_ptr_equal(next, &w[0]);
        assert_null(hf_pool_grow(&all, p, 0, due)); /* it is not known yet what comes of it */
        now = due;
    }
    hf_pool_made(p);
    assert_ptr_equal(hf_pool_grow(&all, p, 0, now), &w[1]); /* one made it: the next may try at once, and no more */
    assert_null(hf_pool_grow(&all, p, 0, now));
    assert_true(hf_pool_refuse(&all, p, &w[1], 0, true, now, now));
    assert_int_equal(hf_pool_due_ms(p), now + HF_POOL_REFUSED_MS);
    now += HF_POOL_REFUSED_MS;
    assert_ptr_equal(hf_pool_grow(&all, p, 0, now), &w[1]);
    assert_true(hf_pool_refuse(&all, p, &w[1], 0, true, now, now));
    assert_int_equal(hf_pool_due_ms(p), now + 2 * HF_POOL_REFUSED_MS);
    hf_pool_give(&all, p, now); /* there is one connection less: soon, though the last while was longer */
    assert_int_equal(hf_pool_due_ms(p), now + HF_POOL_REFUSED_MS);
    now += HF_POOL_REFUSED_MS;
    assert_ptr_equal(hf_pool_grow(&all, p, 0, now), &w[1]);
    assert_null(hf_pool_grow(&all, p, 0, now + HF_POOL_TRY_MS - 1));
    assert_ptr_equal(hf_pool_grow(&all, p, 0, now + HF_POOL_TRY_MS), &w[2]); /* nothing has become of it */
    while (hf_pool_next(&all, p, 0, 0) != NULL)
        ;
    hf_pool_made(p); /* nobody waits: as before all this */
    assert_true(hf_pool_take(&all, p, now) && hf_pool_take(&all, p, now));
    while (p->places > 0)
        hf_pool_give(&all, p, now);
    hf_pool_unref(&all, p);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(shared), cmocka_unit_test(fair), cmocka_unit_test(leaving),
                                       cmocka_unit_test(growing), cmocka_unit_test(refused), cmocka_unit_test(refused_alone),
                                       cmocka_unit_test(one_by_one)};

    return cmocka_run_group_tests(tests, NULL, NULL);
}
