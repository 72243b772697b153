/* How many pods there should be, as Kubernetes' API says it: a node that misreads it leaves its
 * cluster. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <stdio.h>

#include "../../../src/kube/api.c"

static struct hf_kube_scale scale;

static int hear(const char *replicas, const char *start)
{
    struct answer a = {.status = 200};
    struct hf_error err;
    char text[128];

    a.len = (size_t)snprintf(text, sizeof text,
                             "{\"spec\":{\"replicas\":%s,\"ordinals\":{\"start\":%s}}}", replicas,
                             start);
    a.text = text;
    return understand(&a, "demo", &scale, &err);
}

static void a_scale(void **s)
{
    (void)s;
    assert_int_equal(hear("3", "2"), 0);
    assert_true(scale.replicas == 3 && scale.first == 2);
    assert_int_equal(hear("0", "0"), 0);
    assert_int_equal(scale.replicas, 0);
}

/* Cut to 32 bits the first would be 0: all pods go. */
static void no_scale(void **s)
{
    (void)s;
    assert_int_equal(hear("4294967296", "0"), HF_EINVAL);
    assert_int_equal(hear("3", "4294967297"), HF_EINVAL);
    assert_int_equal(hear("-1", "0"), HF_EINVAL);
    assert_int_equal(hear("\"3\"", "0"), HF_EINVAL);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(a_scale), cmocka_unit_test(no_scale)};

    return cmocka_run_group_tests(tests, NULL, NULL);
}
