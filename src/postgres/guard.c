/* Finding the guard (src/guard), the module that makes waits for a majority uncancellable, and
 * having PostgreSQL load it (SAFETY S11). */
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "base/log.h"
#include "postgres/private.h"

/* `dir`/holdfast_guard_N.so, if this process, and so PostgreSQL, can read it. */
static bool take(struct hf_pg *pg, const char *dir)
{
    char name[64];

    (void)snprintf(name, sizeof name, "holdfast_guard_%d.so", pg->version / 10000);
    if (dir[0] == '/' && hf_pg_path(pg->guard, sizeof pg->guard, dir, name) == 0 &&
        access(pg->guard, R_OK) == 0)
        return true;
    pg->guard[0] = '\0';
    return false;
}

/* In a build tree the module lies beside the program. */
static bool take_beside_program(struct hf_pg *pg)
{
    char exe[HF_PG_PATH_MAX];
    ssize_t n = readlink("/proc/self/exe", exe, sizeof exe - 1);
    char *slash;

    exe[n > 0 ? n : 0] = '\0';
    slash = strrchr(exe, '/');
    if (slash == NULL)
        return false;
    *slash = '\0';
    return take(pg, exe);
}

int hf_pg_guard_find(struct hf_pg *pg, enum hf_pg_guard use, const char *dir, struct hf_error *err)
{
    int major = pg->version / 10000;
    bool found = false;

    pg->guard[0] = '\0';
    if (use == HF_PG_GUARD_OFF) {
        hf_warn("%s: the guard is switched off: a cancelled wait for a majority is left to the "
                "router (docs/safety.md)",
                pg->name);
        return 0;
    }
    if (dir != NULL)
        found = take(pg, dir);
    else
        found = take_beside_program(pg) || take(pg, HF_GUARD_DIR);
    if (found)
        return 0;
    if (use == HF_PG_GUARD_REQUIRED)
        return hf_fail(err, HF_ENOENT,
                       "%s: there is no holdfast_guard_%d.so beside the program nor in %s (hint: "
                       "install postgresql-server-dev-%d and build again, or say --guard auto)",
                       pg->name, major, dir != NULL ? dir : HF_GUARD_DIR, major);
    hf_warn(
        "%s: no guard for PostgreSQL %d: there is no holdfast_guard_%d.so beside the program nor "
        "in %s; a cancelled wait for a majority is left to the router, which a session can keep "
        "from hearing of it (docs/safety.md; hint: install postgresql-server-dev-%d and build "
        "again)",
        pg->name, major, major, dir != NULL ? dir : HF_GUARD_DIR, major);
    return 0;
}

/* --- settings -----------------------------------------------------------------------------------
 */

enum { LIBRARIES_MAX = 2048 };

static void take_libraries(void *ctx, const char *line)
{
    (void)snprintf(ctx, LIBRARIES_MAX, "%s", line);
}

/* Behind the administrator's own: what is loaded last is asked first (src/guard). */
int hf_pg_guard_settings(struct hf_pg *pg, struct hf_error *err)
{
    char path[HF_PG_PATH_MAX], theirs[LIBRARIES_MAX] = "", list[2 * LIBRARIES_MAX];
    char quoted[2 * sizeof list], text[sizeof quoted + 64] = "";
    int code = hf_pg_path(path, sizeof path, pg->conf_dir, "guard.conf");

    if (code != 0)
        return hf_fail(err, HF_EINVAL, "path too long: %s", pg->conf_dir);
    if (pg->guard[0] == '\0')
        return hf_pg_write_file(path, "", err);
    /* The file is never without the guard, for a server may be starting. */
    code = hf_pg_configured(pg, "shared_preload_libraries", take_libraries, theirs, err);
    if (code != 0)
        return code;
    (void)snprintf(list, sizeof list, "%s%s\"%s\"", theirs, theirs[0] != '\0' ? ", " : "",
                   pg->guard);
    if (strchr(pg->guard, '"') != NULL || hf_pg_quote_conf(quoted, sizeof quoted, list) != 0)
        return hf_fail(err, HF_EINVAL, "%s: the guard's path is too strange for a setting: %s",
                       pg->name, pg->guard);
    (void)snprintf(text, sizeof text, "shared_preload_libraries = '%s'\n", quoted);
    return hf_pg_write_file(path, text, err);
}
