/* Which lines of a settings file are refused, and that no setting of Holdfast's own is forgotten.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <ctype.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/file.h"
#include "postgres/user_settings.h"

static const char *refused(const char *text)
{
    static struct hf_error err;

    memset(&err, 0, sizeof err);
    return hf_pg_user_settings_check(text, &err) == 0 ? NULL : err.text;
}

static void what_is_fine(void **s)
{
    (void)s;
    assert_null(refused(""));
    assert_null(refused("# only a comment\n\n   \n"));
    assert_null(refused(
        "work_mem = 4MB\nshared_buffers='1GB' # big\r\nmax_wal_size 2GB\nseq_page_cost=1.5"));
    assert_null(refused("log_line_prefix = 'it''s \\' # not a comment'\n"));
    assert_null(refused("pg_stat_statements.track = all\nvacuum_cost_delay=-1\n"));
    assert_null(refused("search_path = '\"$user\", public'\n"));
}

static void what_is_refused(void **s)
{
    (void)s;
    assert_non_null(
        strstr(refused("work_mem = 4MB\n\nfsync = off\n"), "line 3: fsync is set by Holdfast"));
    assert_non_null(strstr(refused("FSync off"), "can be lost"));
    assert_non_null(strstr(refused("include 'x'"), "include"));
    assert_non_null(strstr(refused("include_if_exists = 'x'"), "include_if_exists"));
    assert_non_null(strstr(refused("work_mem"), "value is missing"));
    assert_non_null(strstr(refused("work_mem ="), "value is missing"));
    assert_non_null(strstr(refused("work_mem = 'a"), "needs quotes"));
    assert_non_null(strstr(refused("work_mem = 'a\nb'"), "line 1"));
    assert_non_null(strstr(refused("search_path = a, b"), "needs quotes"));
    assert_non_null(strstr(refused("work_mem = 4MB; fsync = off"), "needs quotes"));
    assert_non_null(strstr(refused("= 5"), "not of the form"));
    assert_non_null(strstr(refused("'fsync' = off"), "not of the form"));
    assert_non_null(strstr(refused("\"fsync\" = off"), "not of the form"));
}

/* Every name that settings.c writes behind the user's file must be in the list, or it would be
 * overridden without a word. */
static void none_is_forgotten(void **s)
{
    struct hf_error err;
    char *source, *at, *end;
    size_t len;
    unsigned n = 0;

    (void)s;
    assert_int_equal(
        hf_file_read(HF_SOURCE "/src/postgres/settings.c", 1 << 20, &source, &len, &err), 0);
    at = strstr(source, "static const char musts[]");
    assert_non_null(at);
    end = strstr(at, "int hf_pg_settings_write(");
    assert_non_null(end);
    *end = '\0';
    for (at = strstr(at, " = "); at != NULL; at = strstr(at + 3, " = ")) {
        char name[64];
        char *from = at;
        while (isalnum((unsigned char)from[-1]) || from[-1] == '_')
            from--;
        if (from == at ||
            (from[-1] != '"' && from[-1] != '\\' && from[-1] != '%')) /* not a line of the file */
            continue;
        if (from[-1] != '"')
            from++; /* the n of a newline, the s of a %s */
        (void)snprintf(name, sizeof name, "%.*s", (int)(at - from), from);
        if (strcmp(name, "include") == 0)
            continue;
        if (hf_pg_owned(name) == NULL)
            fail_msg("settings.c sets %s, and user_settings_check.c would take it from a file", name);
        n++;
    }
    free(source);
    assert_true(n >= 25);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(what_is_fine),
        cmocka_unit_test(what_is_refused),
        cmocka_unit_test(none_is_forgotten),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
