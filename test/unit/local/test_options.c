#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <stdlib.h>
#include <string.h>

#include "cmd/options.h"

static struct {
    bool flag;
    char text[8];
    unsigned number;
    struct hf_option_list list;
} got;

static const struct hf_option table[] = {
    {"flag", 'f', HF_OPT_FLAG, &got.flag, 0, 0, 0, "HF_TEST_FLAG", NULL, "a flag"},
    {"text", 0, HF_OPT_TEXT, got.text, sizeof got.text, 0, 0, "HF_TEST_TEXT", "T", "a text"},
    {"number", 'n', HF_OPT_NUMBER, &got.number, 0, 1, 10, "HF_TEST_NUMBER", "N", "a number"},
    {"item", 'c', HF_OPT_LIST, &got.list, 0, 0, 0, "HF_TEST_LIST", "I", "a list"},
};

static int parse_with(struct hf_operands *operands, struct hf_error *err, ...)
{
    char *argv[32] = {(char *)"verb"};
    int argc = 1;
    va_list ap;

    va_start(ap, err);
    while ((argv[argc] = va_arg(ap, char *)) != NULL)
        argc++;
    va_end(ap);
    memset(&got, 0, sizeof got);
    return hf_options_parse(table, 4, argc, argv, operands, err);
}

#define parse(...) parse_with(&operands, &err, __VA_ARGS__, NULL)

static int clean(void **s)
{
    (void)s;
    unsetenv("HF_TEST_FLAG");
    unsetenv("HF_TEST_TEXT");
    unsetenv("HF_TEST_NUMBER");
    unsetenv("HF_TEST_LIST");
    return 0;
}

static void forms(void **s)
{
    struct hf_operands operands = {.max = 2};
    struct hf_error err;

    (void)s;
    assert_int_equal(parse("--number", "3", "--text=abc", "-f", "-c", "x=1", "-cy=2", "one", "--",
                           "--two"), 0);
    assert_int_equal(got.number, 3);
    assert_string_equal(got.text, "abc");
    assert_true(got.flag);
    assert_int_equal(got.list.n, 2);
    assert_string_equal(got.list.items[1], "y=2");
    assert_int_equal(operands.n, 2);
    assert_string_equal(operands.items[1], "--two");
    operands.n = 0;
    assert_int_equal(parse("--number", "3", "--help"), 1);
    assert_int_equal(parse("--flag=no"), 0);
    assert_false(got.flag);
}

static void refusals(void **s)
{
    static const char *const bad[][2] = {
        {"--number", "0"},   {"--number", "11"}, {"--number", "3x"},       {"--number", "-1"},
        {"--number", ""},    {"--number", " 3"}, {"--text", "12345678"},   {"--nothing", "1"},
        {"--flag=perhaps", "x"}, {"--numbe", "3"}, {"--number=99999999999999999999", "x"},
    };
    struct hf_operands operands = {.max = 1};
    struct hf_error err;

    (void)s;
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        operands.n = 0;
        assert_int_equal(parse(bad[i][0], bad[i][1]), HF_EINVAL);
        assert_true(strlen(err.text) > 0);
    }
    assert_int_equal(parse("--number"), HF_EINVAL);
    operands.n = 0;
    assert_int_equal(parse("one", "two"), HF_EINVAL);
    assert_int_equal(parse_with(NULL, &err, "one", NULL), HF_EINVAL);
}

static void environment(void **s)
{
    struct hf_operands operands = {.max = 0};
    struct hf_error err;

    (void)s;
    setenv("HF_TEST_NUMBER", "7", 1);
    setenv("HF_TEST_FLAG", "true", 1);
    setenv("HF_TEST_LIST", "a=1, b=2\nc=3", 1);
    assert_int_equal(parse("-f"), 0);
    assert_int_equal(got.number, 7);
    assert_int_equal(got.list.n, 3);
    assert_string_equal(got.list.items[2], "c=3");
    /* Flags win, and a list of flags takes the place of the variable's. */
    assert_int_equal(parse("-n", "8", "-c", "z=1", "-c", "z=2"), 0);
    assert_int_equal(got.number, 8);
    assert_int_equal(got.list.n, 2);
    setenv("HF_TEST_NUMBER", "many", 1);
    assert_int_equal(parse("-f"), HF_EINVAL);
    assert_non_null(strstr(err.text, "HF_TEST_NUMBER"));
}

static void limit_of_lists(void **s)
{
    struct hf_error err;
    char *argv[2 * HF_OPTION_LIST_MAX + 4] = {(char *)"verb"};
    int argc = 1;

    (void)s;
    memset(&got, 0, sizeof got);
    for (int i = 0; i <= HF_OPTION_LIST_MAX; i++) {
        argv[argc++] = (char *)"-c";
        argv[argc++] = (char *)"a=b";
    }
    assert_int_equal(hf_options_parse(table, 4, argc, argv, NULL, &err), HF_EINVAL);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup(forms, clean),
        cmocka_unit_test_setup(refusals, clean),
        cmocka_unit_test_setup_teardown(environment, clean, clean),
        cmocka_unit_test_setup(limit_of_lists, clean),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
