#include "postgres/user_settings.h"

#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "postgres/private.h"

enum { TRY_MS = 10000 };

/* PostgreSQL itself reads all of its configuration with the new file in the place of the old. */
static int try_it(struct hf_pg *pg, const char *candidate, struct hf_error *err)
{
    char path[HF_PG_PATH_MAX], config[HF_PG_PATH_MAX + 16];
    const char *argv[] = {"postgres", "-C", "max_connections", "-D", pg->conf_dir, "-c",
                          config,     NULL};
    struct hf_pg_tool_result result;
    int code = hf_pg_path(path, sizeof path, pg->conf_dir, "try.conf");

    if (code != 0)
        return hf_fail(err, code, "path too long: %s", pg->conf_dir);
    code = hf_pg_settings_write_to(pg, path, candidate, err);
    if (code != 0)
        return code;
    (void)snprintf(config, sizeof config, "config_file=%s", path);
    code = hf_pg_tool(pg, argv, TRY_MS, NULL, NULL, &result, err);
    (void)unlink(path);
    if (code != HF_EPG)
        return code;
    return hf_fail(err, HF_EINVAL, "PostgreSQL refuses them: %.380s", result.out);
}

int hf_pg_user_settings_take(struct hf_pg *pg, const char *text, struct hf_error *err)
{
    char candidate[HF_PG_PATH_MAX + 8];
    int code = hf_pg_user_settings_check(text, err);

    if (code != 0)
        return code;
    (void)snprintf(candidate, sizeof candidate, "%s.new", pg->extra_conf);
    code = hf_pg_write_file(candidate, text, err);
    if (code == 0)
        code = try_it(pg, candidate, err);
    if (code == 0)
        code = hf_pg_rename(candidate, pg->extra_conf, err);
    else
        (void)unlink(candidate);
    if (code == 0) /* its list of libraries begins with theirs, which may be another now */
        code = hf_pg_guard_settings(pg, err);
    if (code == 0)
        (void)hf_pg_server_signal(pg, SIGHUP); /* none may run */
    return code;
}

int hf_pg_pending(struct hf_pg *pg, char names[HF_SETTINGS_NAMES_MAX], struct hf_error *err)
{
    static const char sql[] = "select coalesce(string_agg(name, ', ' order by name), '')"
                              " from pg_catalog.pg_settings where pending_restart";
    PGconn *conn = hf_pg_server_ready(pg)
                       ? hf_pg_connect(pg, "postgres", "holdfast settings", HF_PG_CONNECT_MS, err)
                       : NULL;
    PGresult *r = conn != NULL ? hf_pg_query(pg, conn, sql, HF_PG_QUERY_MS, err) : NULL;

    if (r != NULL)
        (void)snprintf(names, HF_SETTINGS_NAMES_MAX, "%s", PQgetvalue(r, 0, 0));
    PQclear(r);
    PQfinish(conn);
    return r != NULL ? 0 : HF_EPG;
}

int hf_pg_let_end(struct hf_pg *pg)
{
    return hf_pg_server_signal(pg, SIGINT);
}
