/* PROMOTE and RULE: the synchronous rule, and what proves that it is loaded (S2). */
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/log.h"
#include "postgres/private.h"

static int one_value(struct hf_pg *pg, PGconn *conn, const char *sql, char *out, size_t cap,
                     struct hf_error *err)
{
    PGresult *r = hf_pg_query(pg, conn, sql, HF_PG_QUERY_MS, err);

    if (r == NULL)
        return HF_EPG;
    (void)snprintf(out, cap, "%s", PQntuples(r) == 1 ? PQgetvalue(r, 0, 0) : "");
    PQclear(r);
    return 0;
}

/* What a new connection sees. The postmaster reloads, then signals its children, then takes new
 * connections, in one thread: when a new connection sees the rule, every child has at least been
 * told. */
static int shown_rule(struct hf_pg *pg, char value[HF_PG_RULE_MAX], struct hf_error *err)
{
    PGconn *conn = hf_pg_connect(pg, "postgres", "holdfast rule", HF_PG_CONNECT_MS, err);
    int code;

    if (conn == NULL)
        return HF_EPG;
    code = one_value(pg, conn, "show synchronous_standby_names", value, HF_PG_RULE_MAX, err);
    PQfinish(conn);
    return code;
}

/* On return a new connection has seen the rule. *was_empty: none was in force before. */
static int load_rule(struct hf_pg *pg, const char *rule, bool *was_empty, struct hf_error *err)
{
    uint64_t deadline_ns = hf_clock_ns() + HF_PG_QUERY_MS * HF_MS;
    char shown[HF_PG_RULE_MAX];
    bool written;
    int code = shown_rule(pg, shown, err);

    *was_empty = code == 0 && shown[0] == '\0';
    if (code == 0)
        code = hf_pg_rule_write(pg, rule, &written, err);
    if (code != 0 || (!written && strcmp(shown, rule) == 0))
        return code;
    if (hf_pg_server_signal(pg, SIGHUP) != 0)
        return hf_fail(err, HF_ECLOSED, "%s: PostgreSQL has ended", pg->name);
    for (;;) {
        code = shown_rule(pg, shown, err);
        if (code != 0 || strcmp(shown, rule) == 0)
            return code;
        if (hf_clock_ns() > deadline_ns)
            return hf_fail(err, HF_ETIMEOUT, "%s: PostgreSQL does not take the rule %s", pg->name,
                           rule);
        if ((code = hf_pg_pause(pg, 1000, err)) != 0)
            return code;
    }
}

/* --- RULE ---------------------------------------------------------------------------------------
 */

static int count_of(struct hf_pg *pg, PGconn *conn, const char *sql, int *n, struct hf_error *err)
{
    char value[32];
    int code = one_value(pg, conn, sql, value, sizeof value, err);

    *n = code == 0 ? (int)strtol(value, NULL, 10) : 0;
    return code;
}

/* Each walsender releases waiters by the rule that it parsed last, in its own time: end those that
 * are older than the reload (not the ones of copies, which never count), wait until the counted are
 * back. */
static int renew_walsenders(struct hf_pg *pg, PGconn *conn, const char *since, struct hf_error *err)
{
    static const char streams[] =
        "select count(*) from pg_stat_replication where state = 'streaming'"
        " and application_name <> '" HF_PG_COPY_NAME "'";
    uint64_t start = hf_clock_ns();
    char end_sql[512], old_sql[512];
    int before = 0, old = 1, now = 0, code;

    (void)snprintf(end_sql, sizeof end_sql,
                   "select count(pg_terminate_backend(pid)) from pg_stat_replication"
                   " where backend_start < '%s' and application_name <> '" HF_PG_COPY_NAME "'",
                   since);
    (void)snprintf(old_sql, sizeof old_sql,
                   "select count(*) from pg_stat_activity where backend_type = 'walsender'"
                   " and backend_start < '%s' and application_name <> '" HF_PG_COPY_NAME "'",
                   since);
    code = count_of(pg, conn, streams, &before, err);
    if (code == 0)
        code = hf_pg_command(pg, conn, end_sql, HF_PG_QUERY_MS, err);
    while (code == 0) {
        code = count_of(pg, conn, old_sql, &old, err);
        if (code == 0)
            code = count_of(pg, conn, streams, &now, err);
        if (code != 0 || (old == 0 && now >= before))
            break;
        if (hf_clock_ns() - start > HF_PG_REPLICAS_MS * HF_MS) {
            if (old > 0)
                return hf_fail(err, HF_ETIMEOUT, "%s: %d walsenders do not end", pg->name, old);
            hf_warn("%s: rule loaded; %d of %d followers are back", pg->name, now, before);
            break;
        }
        code = hf_pg_pause(pg, 2000, err);
    }
    return code;
}

int hf_pg_do_rule(struct hf_pg *pg, const struct hf_pg_job *job, struct hf_pg_result *result,
                  struct hf_error *err)
{
    char rule[HF_PG_RULE_MAX], since[64], recovery[8];
    bool written, was_empty;
    PGconn *conn;
    int code;

    (void)result;
    hf_pg_rule_text(rule, job);
    if (hf_pg_pid(pg) == 0)
        return hf_pg_rule_write(pg, rule, &written, err);
    if (!hf_pg_server_ready(pg)) {
        code = hf_pg_rule_write(pg, rule, &written, err);
        (void)hf_pg_server_signal(pg, SIGHUP);
        return code;
    }
    code = load_rule(pg, rule, &was_empty, err);
    if (code != 0)
        return code;
    conn = hf_pg_session(pg, err);
    if (conn == NULL)
        return HF_EPG;
    code = one_value(pg, conn, "select pg_is_in_recovery()", recovery, sizeof recovery, err);
    if (code != 0 || recovery[0] == 't')
        return code;
    code = one_value(pg, conn, "select clock_timestamp()::text", since, sizeof since, err);
    /* Whether commits wait at all is a flag in shared memory that only the checkpointer sets, at
     * the top of its loop, before it takes up a request: a checkpoint asked for now proves it has
     * passed there. */
    if (code == 0 && was_empty && rule[0] != '\0')
        code = hf_pg_command(pg, conn, "checkpoint", HF_PG_CHECKPOINT_MS, err);
    return code != 0 ? code : renew_walsenders(pg, conn, since, err);
}

/* --- PROMOTE ------------------------------------------------------------------------------------
 */

/* With the guard a session whose commit waits ends only when the commit is held (S11), for which
 * followers may have to be admitted first: it is told, and not waited for. It cannot go on either. */
static const char end_clients_sql[] =
    "select count(case when pg_terminate_backend(pid) and wait_event is distinct from 'SyncRep'"
    " then 1 end) from pg_stat_activity"
    " where backend_type = 'client backend' and usename is distinct from '" HF_PG_SUPERUSER "'";

/* A session opened on the follower could write after the promotion, outside the gate (S3). */
static int end_clients(struct hf_pg *pg, struct hf_error *err)
{
    uint64_t deadline_ns = hf_clock_ns() + HF_PG_QUERY_MS * HF_MS;
    int n = 0, code = 0;

    for (;;) {
        PGconn *conn = hf_pg_session(pg, err);
        if (conn == NULL)
            return HF_EPG;
        code = count_of(pg, conn, end_clients_sql, &n, err);
        if (code != 0 || n == 0)
            return code;
        if (hf_clock_ns() > deadline_ns)
            return hf_fail(err, HF_ETIMEOUT, "%s: %d sessions do not end", pg->name, n);
        if ((code = hf_pg_pause(pg, 1000, err)) != 0)
            return code;
    }
}

/* By signal, as pg_promote and pg_ctl do: needs no SQL (S10). */
static int ask_promotion(struct hf_pg *pg, struct hf_error *err)
{
    char path[HF_PG_PATH_MAX];
    int fd;

    if (hf_pg_path(path, sizeof path, pg->data, "promote") != 0)
        return hf_fail(err, HF_EINVAL, "path too long: %s", pg->data);
    fd = open(path, O_WRONLY | O_CREAT | O_CLOEXEC, 0600);
    if (fd < 0)
        return hf_fail(err, errno == ENOSPC ? HF_ENOSPC : HF_EIO, "%s: cannot create %s: %s",
                       pg->name, path, strerror(errno));
    (void)close(fd);
    if (hf_pg_server_signal(pg, SIGUSR1) == 0)
        return 0;
    (void)unlink(path);
    return hf_fail(err, HF_ECLOSED, "%s: PostgreSQL has ended", pg->name);
}

static int await_promotion(struct hf_pg *pg, struct hf_pg_result *result, struct hf_error *err)
{
    /* The name of the file being written tells the timeline; the control file lags behind. */
    static const char sql[] =
        "select case when pg_is_in_recovery() then ''"
        " else substr(pg_walfile_name(pg_current_wal_insert_lsn()), 1, 8) end";
    uint64_t deadline_ns = hf_clock_ns() + HF_PG_PROMOTE_MS * HF_MS;
    char value[32];
    int code = 0;

    while (code == 0) {
        PGconn *conn = hf_pg_session(pg, err);
        value[0] = '\0';
        if (conn != NULL)
            code = one_value(pg, conn, sql, value, sizeof value, err);
        else if (hf_pg_pid(pg) == 0)
            return hf_fail(err, HF_EPG, "%s: PostgreSQL ended while it was promoted", pg->name);
        if (code == 0 && value[0] != '\0') {
            result->timeline = (uint32_t)strtoul(value, NULL, 16);
            return 0;
        }
        if (code == 0 && hf_clock_ns() > deadline_ns)
            return hf_fail(err, HF_ETIMEOUT, "%s: the promotion does not end", pg->name);
        if (code == 0)
            code = hf_pg_pause(pg, 1000, err);
    }
    return code;
}

int hf_pg_do_promote(struct hf_pg *pg, const struct hf_pg_job *job, struct hf_pg_result *result,
                     struct hf_error *err)
{
    char rule[HF_PG_RULE_MAX];
    bool ignored;
    int code;

    if (hf_pg_pid(pg) == 0)
        return hf_fail(err, HF_ECLOSED, "%s: PostgreSQL is not running", pg->name);
    hf_pg_rule_text(rule, job);
    if (hf_pg_server_ready(pg)) {
        code = load_rule(pg, rule, &ignored, err);
        if (code == 0)
            code = end_clients(pg, err);
    } else {
        /* No SQL, hence no sessions. The rule is proved by the barrier, which must be seen waiting.
         */
        code = hf_pg_rule_write(pg, rule, &ignored, err);
        if (code == 0)
            (void)hf_pg_server_signal(pg, SIGHUP);
    }
    if (code == 0)
        code = ask_promotion(pg, err);
    if (code == 0)
        code = await_promotion(pg, result, err);
    /* Whoever slipped in between: nothing of theirs was acknowledged, and they shall not go on. */
    return code != 0 ? code : end_clients(pg, err);
}
