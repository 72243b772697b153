/* What can be tested without a server. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h>

#include "postgres/private.h"

static void test_member_name(void **state)
{
    struct hf_uuid uuid = {{0x1a, 0x2b, 0x3c, 0x4d, 0xff}};
    char out[HF_PG_MEMBER_MAX], longest[80];

    (void)state;
    hf_pg_member_name(out, "demo-0", &uuid);
    assert_string_equal(out, "demo-0_1a2b3c4d");
    memset(longest, 'x', sizeof longest);
    longest[sizeof longest - 1] = '\0';
    hf_pg_member_name(out, longest, &uuid);
    assert_int_equal(strlen(out), 63);
    assert_string_equal(out + 54, "_1a2b3c4d"); /* the incarnation is never cut (S14) */
}

static void test_rule_text(void **state)
{
    struct hf_pg_job job = {.n_voters = 0};
    char rule[HF_PG_RULE_MAX];

    (void)state;
    hf_pg_rule_text(rule, &job);
    assert_string_equal(rule, ""); /* "ANY 0" would be refused (S2) */
    job.n_voters = 1;
    (void)snprintf(job.voters[0], sizeof job.voters[0], "a-1_00");
    hf_pg_rule_text(rule, &job);
    assert_string_equal(rule, "ANY 1 (\"a-1_00\")");
    job.n_voters = 2;
    (void)snprintf(job.voters[1], sizeof job.voters[1], "a-2_00");
    hf_pg_rule_text(rule, &job);
    assert_string_equal(rule, "ANY 1 (\"a-1_00\", \"a-2_00\")");
    job.n_voters = 4; /* five voters: two others */
    (void)snprintf(job.voters[2], sizeof job.voters[2], "c");
    (void)snprintf(job.voters[3], sizeof job.voters[3], "d");
    hf_pg_rule_text(rule, &job);
    assert_string_equal(rule, "ANY 2 (\"a-1_00\", \"a-2_00\", \"c\", \"d\")");
}

static void test_rule_text_of_the_greatest_cluster_fits(void **state)
{
    struct hf_pg_job job = {.n_voters = HF_MEMBERS_MAX};
    char rule[HF_PG_RULE_MAX];

    (void)state;
    for (unsigned i = 0; i < HF_MEMBERS_MAX; i++)
        memset(job.voters[i], 'n', HF_PG_MEMBER_MAX - 1);
    hf_pg_rule_text(rule, &job);
    assert_int_equal(rule[strlen(rule) - 1], ')');
}

static void test_quote_conninfo(void **state)
{
    char out[32];

    (void)state;
    assert_int_equal(hf_pg_quote_conninfo(out, sizeof out, "/a b/c'd\\e"), 0);
    assert_string_equal(out, "'/a b/c\\'d\\\\e'");
    assert_int_equal(hf_pg_quote_conninfo(out, 8, "/much/too/long"), HF_EINVAL);
}

static void test_parse_lsn(void **state)
{
    hf_lsn lsn = 0;

    (void)state;
    assert_true(hf_pg_parse_lsn("1/A0000028", &lsn));
    assert_true(lsn == 0x1a0000028ull);
    assert_false(hf_pg_parse_lsn("", &lsn));
    assert_false(hf_pg_parse_lsn("nothing", &lsn));
    assert_true(hf_pg_parse_lsn("ffffffff/FFFFFFFF, prev 0/1", &lsn) && lsn == UINT64_MAX);
    assert_true(hf_pg_parse_lsn("0/0x12", &lsn) && lsn == 0); /* the end of a number is for others to look at */
    assert_false(hf_pg_parse_lsn("-1/1", &lsn) || hf_pg_parse_lsn(" 1/1", &lsn) || hf_pg_parse_lsn("1/-1", &lsn) ||
                 hf_pg_parse_lsn("0x1/1", &lsn) || hf_pg_parse_lsn("1/ 1", &lsn) || hf_pg_parse_lsn("1/123456789", &lsn));
}

/* What pg_controldata prints, as a program in its place does. */
static int read_control(const char *first, const char *segment, struct hf_pg_control *c)
{
    static const char text[] = "#!/bin/sh\ncat <<'END'\n%sDatabase system identifier:           7431234567890123456\n"
                               "Latest checkpoint's REDO location:    0/1A2B3C8\n"
                               "Latest checkpoint's TimeLineID:       3\n"
                               "max_connections setting:              120\n"
                               "Bytes per WAL segment:                %s\nEND\n";
    char dir[] = "/tmp/hf-parts-XXXXXX", path[64];
    struct hf_pg pg = {.name = "demo-0", .wake_fd = -1};
    struct hf_error err;
    FILE *f;
    int rv;

    assert_non_null(mkdtemp(dir));
    (void)snprintf(path, sizeof path, "%s/pg_controldata", dir);
    f = fopen(path, "w");
    assert_non_null(f);
    fprintf(f, text, first, segment);
    assert_int_equal(fclose(f), 0);
    assert_int_equal(chmod(path, 0700), 0);
    (void)strcpy(pg.bindir, dir);
    (void)strcpy(pg.conf_dir, dir);
    rv = hf_pg_control_read(&pg, dir, c, &err);
    assert_int_equal(unlink(path), 0);
    assert_int_equal(rmdir(dir), 0);
    return rv;
}

static void test_control(void **state)
{
    struct hf_pg_control c;

    (void)state;
    assert_int_equal(read_control("", "2097152", &c), 0);
    assert_true(c.system_id == 7431234567890123456u && c.redo == 0x1a2b3c8 && c.timeline == 3);
    assert_true(c.max_connections == 120 && c.segment_bytes == 2097152);
    /* It warns, and ends with 0. */
    assert_int_equal(read_control("pg_controldata: warning: Calculated CRC checksum does not match value stored in file.\n",
                                  "2097152", &c),
                     HF_ECORRUPT);
    assert_int_equal(read_control("", "2097153", &c), HF_ECORRUPT);
    assert_int_equal(read_control("", "4297064448", &c), HF_ECORRUPT); /* cut to 32 bits: 2097152 */
}

static void write_history(const char *dir, unsigned timeline, unsigned from)
{
    char path[128];
    FILE *f;

    (void)snprintf(path, sizeof path, "%s/%08X.history", dir, timeline);
    f = fopen(path, "w");
    assert_non_null(f);
    for (unsigned t = from; t < timeline; t++)
        fprintf(f, "%u\t0/%X\tno recovery target specified\n", t, t * 8);
    assert_int_equal(fclose(f), 0);
}

/* After thousands of changes of leader: PostgreSQL removes no history file. */
static void test_many_timelines(void **state)
{
    enum { LAST = 3000 };
    char dir[] = "/tmp/hf-parts-XXXXXX", path[128];
    struct hf_pg_timelines t;
    uint32_t parent = 0;
    hf_lsn begin;

    (void)state;
    assert_non_null(mkdtemp(dir));
    for (unsigned i = LAST; i > 2; i--)
        write_history(dir, i, i == LAST ? 1 : i - 1);
    assert_int_equal(hf_pg_timelines_newer(dir, 1, &t, NULL), 0);
    assert_int_equal(t.n, HF_PG_TIMELINES_MAX);
    for (unsigned i = 0; i < t.n; i++)
        assert_int_equal(t.id[i], LAST - HF_PG_TIMELINES_MAX + 1 + i);
    assert_int_equal(hf_pg_timelines_newer(dir, LAST - 1, &t, NULL), 0);
    assert_true(t.n == 1 && t.id[0] == LAST);
    assert_int_equal(hf_pg_timeline_begin(dir, LAST, &parent, &begin, NULL), 0);
    assert_true(parent == LAST - 1 && begin == (LAST - 1) * 8);
    parent = 7;
    assert_int_equal(hf_pg_timeline_begin(dir, LAST, &parent, &begin, NULL), 0);
    assert_true(parent == 7 && begin == 7 * 8);
    for (unsigned i = LAST; i > 2; i--) {
        (void)snprintf(path, sizeof path, "%s/%08X.history", dir, i);
        assert_int_equal(unlink(path), 0);
    }
    assert_int_equal(rmdir(dir), 0);
    assert_int_equal(hf_pg_timelines_newer(dir, 1, &t, NULL), HF_EIO); /* what cannot be listed is not none */
}

static void test_record_end(void **state)
{
    const uint32_t seg = 16 * 1024 * 1024;

    (void)state;
    assert_true(hf_pg_record_end(0x3000028, 114, seg) == 0x30000A0); /* padded to eight bytes */
    assert_true(hf_pg_record_end(0x3001FF0, 32, seg) ==
                0x3002000 + 24 + 16); /* over a page's edge */
    assert_true(hf_pg_record_end(0x3FFFFF0, 32, seg) == 0x4000000 + 40 + 16); /* over a segment's */
    assert_true(hf_pg_record_end(0x3001FF0, 16, seg) == 0x3002000);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_member_name),
        cmocka_unit_test(test_rule_text),
        cmocka_unit_test(test_rule_text_of_the_greatest_cluster_fits),
        cmocka_unit_test(test_quote_conninfo),
        cmocka_unit_test(test_parse_lsn),
        cmocka_unit_test(test_control), cmocka_unit_test(test_many_timelines),
        cmocka_unit_test(test_record_end),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
