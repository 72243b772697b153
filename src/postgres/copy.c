/* INIT, CLONE and REWIND: how data/ comes to be. It is always made beside and swapped in whole
 * (I7); only a rewind works in place, under a mark that forbids to start what it may leave behind.
 */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/log.h"
#include "postgres/private.h"

/* Checksums of a copy are read again only up to this size; above, presence and size of each file.
 */
#define VERIFY_BYTES_MAX (1ull << 30)

int hf_pg_do_init(struct hf_pg *pg, struct hf_pg_result *result, struct hf_error *err)
{
    /* A follower that changes timelines asks for the whole segment of the fork again, twice, and a
     * promotion copies it: small segments make a change of leader quick. */
    const char *argv[] = {"initdb",           "-D",
                          pg->data_new,       "--username=" HF_PG_SUPERUSER,
                          "--encoding=UTF8",  "--locale=C.UTF-8",
                          "--data-checksums", "--wal-segsize=2",
                          "--auth=trust",     NULL};
    struct hf_pg_control c;
    int code;

    if (hf_pg_exists(pg->data))
        return hf_fail(err, HF_EEXIST, "%s: %s exists already", pg->name, pg->data);
    code = hf_pg_remove_tree(pg->data_new, err);
    if (code == 0)
        code = hf_pg_tool(pg, argv, 300000, NULL, NULL, NULL, err);
    if (code == 0)
        code = hf_pg_control_read(pg, pg->data_new, &c, err);
    if (code == 0)
        code = hf_pg_rename(pg->data_new, pg->data, err);
    if (code == 0)
        result->system_id = c.system_id;
    else
        (void)hf_pg_remove_tree(pg->data_new, NULL);
    return code;
}

int hf_pg_do_start(struct hf_pg *pg, int timeout_ms, struct hf_pg_result *result,
                   struct hf_error *err)
{
    struct hf_pg_control c;
    bool sql;
    int code;

    if (hf_pg_pid(pg) != 0)
        return hf_fail(err, HF_EBUSY, "%s: PostgreSQL runs already", pg->name);
    code = hf_pg_control_read(pg, pg->data, &c, err);
    if (code == 0)
        code = hf_pg_server_start(pg, timeout_ms, &sql, err);
    if (code != 0)
        return code;
    result->system_id = c.system_id;
    result->timeline = c.timeline;
    if (!sql)
        (void)snprintf(result->text, sizeof result->text,
                       "%s: PostgreSQL replays, and takes no connections yet", pg->name);
    /* The former directory of a copy that has now started. */
    if (hf_pg_remove_tree(pg->data_old, err) != 0)
        hf_warn("%s: %s", pg->name, err->text);
    return 0;
}

/* The relay's second socket: to the leader's PostgreSQL, never counted by any rule. */
static int copy_conninfo(const struct hf_pg *pg, const char *dbname, char *out, size_t cap)
{
    char host[HF_PG_PATH_MAX + 8];
    int n;

    if (hf_pg_quote_conninfo(host, sizeof host, pg->copy_dir) != 0)
        return HF_EINVAL;
    n = snprintf(out, cap,
                 "host=%s port=%d user=" HF_PG_SUPERUSER " %s application_name='" HF_PG_COPY_NAME
                 "' gssencmode=disable sslmode=disable",
                 host, HF_PG_PORT, dbname);
    return n > 0 && (size_t)n < cap ? 0 : HF_EINVAL;
}

/* --- the mark `untouched` -----------------------------------------------------------------------
 *
 * The owner of this node writes down, before it asks for a copy, that from then on it does not know what it holds. Most copies
 * are made beside, for hours, and if the node dies meanwhile nothing has happened to data/. This mark says so. There is no
 * time at which it is on the disk and data/ are not what they were:
 *  - it is made only for a job that says that data/ are intact;
 *  - it is gone from the disk before the first rename of a swap, and before a rewind begins, or these do not happen. A directory
 *    that could not be flushed may have it back after a crash: so it is flushed each time, also if the mark is not there.
 * It stays when a copy fails, and is true then. If it cannot be written the copy is made all the same, and nothing is known. */

static int touch_begins(struct hf_pg *pg, struct hf_error *err)
{
    if (unlink(pg->untouched) != 0 && errno != ENOENT)
        return hf_fail(err, HF_EIO, "%s: cannot remove %s: %s", pg->name, pg->untouched, strerror(errno));
    return hf_pg_fsync_path(pg->node_dir, err);
}

static int copy_begins(struct hf_pg *pg, const struct hf_pg_job *job, struct hf_error *err)
{
    if (!job->intact || !hf_pg_exists(pg->data))
        return touch_begins(pg, err);
    if (hf_pg_write_file(pg->untouched, "data/ have not been touched since a copy beside them was begun\n", err) != 0)
        hf_warn("%s: %s", pg->name, err->text);
    return 0;
}

/* --- CLONE --------------------------------------------------------------------------------------
 */

static int take_copy(struct hf_pg *pg, struct hf_error *err)
{
    char conninfo[HF_PG_PATH_MAX * 2];
    const char *backup[] = {"pg_basebackup", "-D",        pg->data_new,        "-d", conninfo, "-X",
                            "stream",        "--no-slot", "--checkpoint=fast", NULL};
    const char *verify[] = {"pg_verifybackup", "--no-parse-wal", pg->data_new, NULL, NULL};
    int code = hf_pg_remove_tree(pg->data_new, err);

    /* What a copy has replaced that did not start, or was not recorded. There is room for two, not for three (docs/kubernetes.md). */
    if (code == 0 && hf_pg_exists(pg->data))
        code = hf_pg_remove_tree(pg->data_old, err);
    if (code == 0 && copy_conninfo(pg, "", conninfo, sizeof conninfo) != 0)
        code = hf_fail(err, HF_EINVAL, "path too long: %s", pg->copy_dir);
    if (code == 0)
        code = hf_pg_tool(pg, backup, HF_PG_COPY_MS, NULL, NULL, NULL, err);
    if (code == 0 && hf_pg_tree_bytes(pg->data_new) > VERIFY_BYTES_MAX) {
        verify[2] = "--skip-checksums";
        verify[3] = pg->data_new;
    }
    if (code == 0)
        code = hf_pg_tool(pg, verify, HF_PG_COPY_MS, NULL, NULL, NULL, err);
    return code;
}

/* A copy of another cluster's leader must not take the place of this one's data. Data of a founding that came to
 * nothing may go. */
static int check_same_system(struct hf_pg *pg, const struct hf_pg_job *job, uint64_t *system_id,
                             struct hf_error *err)
{
    struct hf_pg_control fresh, old;
    int code = hf_pg_control_read(pg, pg->data_new, &fresh, err);

    if (code != 0)
        return code;
    *system_id = fresh.system_id;
    if (hf_pg_exists(pg->data) && hf_pg_control_read(pg, pg->data, &old, NULL) == 0 &&
        old.system_id != fresh.system_id && job->replaces != fresh.system_id)
        return hf_fail(err, HF_EREFUSED,
                       "%s: will not replace %s of system %llu by a copy of system %llu (hint: the "
                       "leader belongs to another cluster)",
                       pg->name, pg->data, (unsigned long long)old.system_id,
                       (unsigned long long)fresh.system_id);
    return 0;
}

/* Old aside, new in place; hf_pg_probe puts the old one back if we die between the two. A rename that fails to be
 * flushed has happened all the same: what lies there tells whether data/ is what it was. */
static int swap_in(struct hf_pg *pg, bool *swapped, struct hf_error *err)
{
    bool had = hf_pg_exists(pg->data);
    int code = touch_begins(pg, err);

    if (code == 0)
        code = hf_pg_remove_tree(pg->data_old, err);
    if (code != 0)
        return code;
    if (had)
        code = hf_pg_rename(pg->data, pg->data_old, err);
    if (code == 0)
        code = hf_pg_rename(pg->data_new, pg->data, err);
    if (code != 0 && !hf_pg_exists(pg->data) && hf_pg_exists(pg->data_old))
        (void)hf_pg_rename(pg->data_old, pg->data, NULL);
    *swapped = !had || !hf_pg_exists(pg->data) || hf_pg_exists(pg->data_old);
    if (code == 0 && hf_pg_exists(pg->mark)) {
        (void)unlink(pg->mark);
        code = hf_pg_fsync_path(pg->node_dir, err);
    }
    return code;
}

static int replayed_to(struct hf_pg *pg, hf_lsn *lsn, struct hf_error *err)
{
    PGconn *conn = hf_pg_session(pg, err);
    PGresult *r = conn == NULL ? NULL
                               : hf_pg_query(pg, conn, "select pg_last_wal_replay_lsn()",
                                             HF_PG_QUERY_MS, err);
    int code = 0;

    if (r == NULL)
        return HF_EPG;
    if (!hf_pg_parse_lsn(PQgetvalue(r, 0, 0), lsn))
        code = hf_fail(err, HF_EPG, "%s: PostgreSQL tells no replay position", pg->name);
    PQclear(r);
    return code;
}

/* Without SQL: the standby has replayed what came with it, and a transaction with many subtransactions that was open at its source
 * keeps sessions out (S10). Is it consistent all the same? */
static int consistent_by_files(struct hf_pg *pg, hf_lsn *lsn, struct hf_error *err)
{
    struct hf_pg_control c;
    uint32_t timeline;
    hf_lsn seen;
    int code = hf_pg_control_read(pg, pg->data, &c, err);

    if (code == 0)
        code = hf_pg_wal_end(pg, lsn, &timeline, &seen, err);
    if (code == 0 && (c.backup_start != 0 || seen != 0))
        code = hf_fail(err, HF_EPG, "%s: the fresh copy does not become consistent", pg->name);
    return code;
}

int hf_pg_do_clone(struct hf_pg *pg, const struct hf_pg_job *job, struct hf_pg_result *result,
                   struct hf_error *err)
{
    uint64_t system_id = 0;
    struct hf_error stop_err;
    int code = copy_begins(pg, job, err);

    if (code == 0)
        code = take_copy(pg, err);
    if (code == 0)
        code = check_same_system(pg, job, &system_id, err);
    if (code != 0) {
        /* The data of before are untouched; room is what a full disk needs most. */
        if (hf_pg_remove_tree(pg->data_new, &stop_err) != 0)
            hf_warn("%s: %s", pg->name, stop_err.text);
        return code;
    }
    if (hf_pg_pid(pg) != 0)
        code = hf_pg_server_stop(pg, HF_PG_STOP_IMMEDIATE, HF_PG_QUIT_MS, err);
    if (code == 0)
        code = swap_in(pg, &result->swapped, err);
    if (code == 0)
        code = hf_pg_do_start(pg, HF_PG_COPY_MS, result, err); /* its WAL came with it */
    if (code == 0)
        code = result->text[0] == '\0' ? replayed_to(pg, &result->lsn, err) : consistent_by_files(pg, &result->lsn, err);
    result->system_id = system_id;
    return code;
}

/* --- REWIND -------------------------------------------------------------------------------------
 */

/* pg_rewind wants a clean shutdown. Its own way, a single-user server, knows nothing of our
 * settings and refuses standby.signal; ours is to let the server replay its local WAL as a standby
 * with nobody to follow, and to stop it fast. Nothing is written to WAL by that. */
static int shut_down_clean(struct hf_pg *pg, struct hf_error *err)
{
    struct hf_pg_control c;
    bool sql;
    int code;

    for (int attempt = 0; attempt < 2; attempt++) {
        if (hf_pg_pid(pg) != 0 && (code = hf_pg_server_stop(pg, HF_PG_STOP_FAST, 10000, err)) != 0)
            return code;
        code = hf_pg_control_read(pg, pg->data, &c, err);
        if (code != 0 || c.clean)
            return code;
        if (attempt == 0 && (code = hf_pg_server_start(pg, HF_PG_COPY_MS, &sql, err)) != 0)
            return code;
    }
    return hf_fail(err, HF_EPG, "%s: cannot shut PostgreSQL down cleanly for a rewind", pg->name);
}

static int run_rewind(struct hf_pg *pg, bool dry, struct hf_error *err)
{
    char source[HF_PG_PATH_MAX * 2];
    const char *argv[] = {"pg_rewind",
                          "-D",
                          pg->data,
                          "--source-server",
                          source,
                          "--no-ensure-shutdown",
                          dry ? "--dry-run" : NULL,
                          NULL};
    struct hf_pg_tool_result tool;
    int code;

    if (copy_conninfo(pg, "dbname=postgres", source, sizeof source) != 0)
        return hf_fail(err, HF_EINVAL, "path too long: %s", pg->copy_dir);
    code = hf_pg_tool(pg, argv, HF_PG_COPY_MS, NULL, NULL, &tool, err);
    /* Divergence was decided by lineage; pg_rewind cannot see it, so it cannot mend it (S9). */
    if (code == 0 && strstr(tool.out, "no rewind required") != NULL)
        code = hf_fail(err, HF_ECORRUPT,
                       "%s: histories differ, but pg_rewind sees no need to rewind (hint: a fresh "
                       "copy is made instead)",
                       pg->name);
    return code;
}

/* Where the rewound files become consistent: it may need WAL that only the stream will bring. */
static int finish_rewind(struct hf_pg *pg, struct hf_pg_result *result, struct hf_error *err)
{
    struct hf_pg_control c;
    int code = hf_pg_control_read(pg, pg->data, &c, err);

    if (code != 0)
        return code;
    result->lsn = c.min_recovery;
    if (unlink(pg->mark) != 0)
        return hf_fail(err, HF_EIO, "%s: cannot remove %s", pg->name, pg->mark);
    code = hf_pg_fsync_path(pg->node_dir, err);
    return code != 0 ? code : hf_pg_do_start(pg, HF_PG_START_MS, result, err);
}

int hf_pg_do_rewind(struct hf_pg *pg, struct hf_pg_result *result, struct hf_error *err)
{
    int code;

    if (hf_pg_exists(pg->mark))
        return hf_fail(err, HF_ECORRUPT,
                       "%s: an earlier rewind did not end (hint: a fresh copy is "
                       "made instead)",
                       pg->name);
    code = touch_begins(pg, err);
    if (code == 0)
        code = shut_down_clean(pg, err);
    if (code == 0)
        code = run_rewind(pg, true, err); /* most failures show here, with the data untouched */
    if (code == 0)
        code = hf_pg_write_file(pg->mark, "data/ is being rewound: not to be started\n", err);
    if (code == 0)
        code = run_rewind(pg, false, err);
    return code != 0 ? code : finish_rewind(pg, result, err);
}
