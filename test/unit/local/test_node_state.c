/* What a node remembers on disk: as it was written, or refused. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/file.h"
#include "node_private.h"

static char dir[64];

static int setup(void **s)
{
    (void)s;
    strcpy(dir, "/tmp/hf-state-XXXXXX");
    return mkdtemp(dir) != NULL ? 0 : -1;
}

static int teardown(void **s)
{
    (void)s;
    return hf_dir_remove(dir, NULL);
}

static void put(const char *file, const char *text)
{
    char path[128];

    (void)snprintf(path, sizeof path, "%s/%s", dir, file);
    assert_int_equal(hf_file_write(path, text, strlen(text), 0600, NULL), 0);
}

static const char uuid_a[] = "00112233445566778899aAbBcCdDeEfF",
                  flags[] = "\"had_data\":true,\"founded\":false,";

static int load(const char *uuid, const char *more, struct hf_durable *d)
{
    struct hf_error err;
    char text[1024];
    bool exists;

    (void)snprintf(text, sizeof text,
                   "{\"version\":1,%s\"cluster_id\":\"%s\",\"uuid\":\"%s\",\"system_id\":"
                   "\"18446744073709551615\","
                   "\"id\":\"2\",\"fence\":\"9\",\"lineage\":\"8\",\"promise_ns\":\"5\",\"hold_"
                   "epoch\":\"0\",\"hold_lsn\":\"0\"}",
                   more, uuid_a, uuid);
    put("state.json", text);
    return hf_state_load(dir, d, &exists, &err);
}

static void a_state(void **s)
{
    struct hf_durable d, again;
    struct hf_error err;
    bool exists;

    (void)s;
    assert_int_equal(hf_state_load(dir, &d, &exists, &err), 0);
    assert_false(exists);
    assert_int_equal(load(uuid_a, flags, &d), 0);
    assert_true(d.system_id == UINT64_MAX && d.self == 2 && d.fence == 9 && d.had_data &&
                !d.founded);
    assert_int_equal(d.uuid.b[15], 0xff);
    assert_int_equal(hf_state_save(dir, &d, &err), 0);
    assert_int_equal(hf_state_load(dir, &again, &exists, &err), 0);
    assert_true(exists && memcmp(&d, &again, sizeof d) == 0);
}

static void a_damaged_state(void **s)
{
    static const char *const uuids[] = {" 1-1+1xx00112233445566778899aabb",
                                        "-1-1-1-1-1-1-1-1-1-1-1-1-1-1-1-1", "00", ""};
    static const char *const more[] = {
        "", "\"had_data\":true,", "\"founded\":true,", "\"had_data\":1,\"founded\":false,",
        "\"had_data\":true,\"founded\":false,\"id\":\"3\"," /* which of the two? */};
    struct hf_durable d;

    (void)s;
    for (size_t i = 0; i < sizeof uuids / sizeof *uuids; i++)
        assert_int_equal(load(uuids[i], flags, &d), HF_ECORRUPT);
    for (size_t i = 0; i < sizeof more / sizeof *more; i++)
        assert_int_equal(load(uuid_a, more[i], &d), HF_ECORRUPT);
}

static void a_list_of_founders(void **s)
{
    static const char *const wrong[] = {
        "{}", "[]", "[1]", "3", "\"x\"", "{\"id\":\"1\"}", "[{\"id\":\"1\"}]"};
    struct hf_member m[HF_MEMBERS_MAX + 1] = {
        {.id = 7, .name = "demo-0", .peer = "h:1", .sql = "h:2"}};
    struct hf_error err;
    unsigned n;

    (void)s;
    assert_int_equal(hf_founding_load(dir, m, &n, &err), 0);
    assert_int_equal(n, 0); /* none */
    m[0].id = 7;
    (void)strcpy(m[0].name, "demo-0");
    assert_int_equal(hf_founding_save(dir, m, 1, &err), 0);
    m[0].id = 0;
    assert_int_equal(hf_founding_load(dir, m, &n, &err), 0);
    assert_true(n == 1 && m[0].id == 7 && m[0].voter);
    for (size_t i = 0; i < sizeof wrong / sizeof *wrong; i++) {
        put("founding.json", wrong[i]); /* not as if there were none: the node would begin anew */
        assert_int_equal(hf_founding_load(dir, m, &n, &err), HF_ECORRUPT);
    }
    assert_int_equal(hf_founding_save(dir, m, HF_MEMBERS_MAX + 1, &err), 0);
    assert_int_equal(hf_founding_load(dir, m, &n, &err), HF_ECORRUPT);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(a_state, setup, teardown),
        cmocka_unit_test_setup_teardown(a_damaged_state, setup, teardown),
        cmocka_unit_test_setup_teardown(a_list_of_founders, setup, teardown),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
