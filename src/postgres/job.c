/* hf_pg_run: which job is which function; and the view for status. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/clock.h"
#include "postgres/private.h"

static int do_checkpoint(struct hf_pg *pg, struct hf_error *err)
{
    PGconn *conn = hf_pg_pid(pg) == 0 ? NULL : hf_pg_session(pg, err);

    if (hf_pg_pid(pg) == 0)
        return hf_fail(err, HF_ECLOSED, "%s: PostgreSQL is not running", pg->name);
    return conn == NULL ? HF_EPG : hf_pg_command(pg, conn, "checkpoint", HF_PG_CHECKPOINT_MS, err);
}

static int dispatch(struct hf_pg *pg, const struct hf_pg_job *job, struct hf_pg_result *result,
                    struct hf_error *err)
{
    switch (job->work) {
    case HF_WORK_INIT:
        return hf_pg_do_init(pg, result, err);
    case HF_WORK_START:
        return hf_pg_do_start(pg, HF_PG_START_MS, result, err);
    case HF_WORK_STOP:
        return hf_pg_server_stop(pg, HF_PG_STOP_IMMEDIATE, HF_PG_QUIT_MS, err);
    case HF_WORK_STOP_CLEAN:
        return hf_pg_server_stop(pg, HF_PG_STOP_FAST, HF_PG_CLEAN_STOP_MS, err);
    case HF_WORK_POSITION:
        return hf_pg_do_position(pg, result, err);
    case HF_WORK_PROMOTE:
        return hf_pg_do_promote(pg, job, result, err);
    case HF_WORK_RULE:
        return hf_pg_do_rule(pg, job, result, err);
    case HF_WORK_REWIND:
        return hf_pg_do_rewind(pg, result, err);
    case HF_WORK_CLONE:
        return hf_pg_do_clone(pg, job, result, err);
    case HF_WORK_CHECKPOINT:
        return do_checkpoint(pg, err);
    case HF_WORK_NONE:
        break;
    }
    return hf_fail(err, HF_EINVAL, "%s: no such work: %d", pg->name, (int)job->work);
}

int hf_pg_run(struct hf_pg *pg, const struct hf_pg_job *job, struct hf_pg_result *result)
{
    struct hf_error err = {0};
    char rule[HF_PG_RULE_MAX];
    bool changed;
    int code = 0;

    memset(result, 0, sizeof *result);
    result->work = job->work;
    result->epoch = job->epoch;
    if (job->n_voters > HF_MEMBERS_MAX)
        code = hf_fail(&err, HF_EINVAL, "%s: %u voters are too many", pg->name, job->n_voters);
    if (code == 0 && job->rule && job->work != HF_WORK_RULE && job->work != HF_WORK_PROMOTE) {
        hf_pg_rule_text(rule, job);
        code = hf_pg_rule_write(pg, rule, &changed, &err);
    }
    if (code == 0)
        code = dispatch(pg, job, result, &err);
    result->ok = code == 0;
    result->down = hf_pg_pid(pg) == 0;
    result->code = code;
    if (code != 0)
        (void)snprintf(result->text, sizeof result->text, "%s", err.text);
    if (code == 0 && result->system_id != 0) {
        pthread_mutex_lock(&pg->lock);
        pg->status.system_id = result->system_id;
        pthread_mutex_unlock(&pg->lock);
    }
    return code;
}

void hf_pg_interrupt(struct hf_pg *pg, bool on)
{
    uint64_t one = 1;

    if (atomic_exchange(&pg->interrupted, on) == on)
        return;
    if (on ? write(pg->wake_fd, &one, sizeof one) < 0 : read(pg->wake_fd, &one, sizeof one) < 0)
        abort(); /* an eventfd of our own cannot fail */
}

void hf_pg_status(struct hf_pg *pg, struct hf_pg_status *status)
{
    pthread_mutex_lock(&pg->lock);
    *status = pg->status;
    pthread_mutex_unlock(&pg->lock);
}

void hf_pg_refresh(struct hf_pg *pg)
{
    static const char sql[] =
        "select pg_is_in_recovery(), case when pg_is_in_recovery() then pg_last_wal_replay_lsn()"
        " else pg_current_wal_flush_lsn() end, (select timeline_id from pg_control_checkpoint()),"
        " (select system_identifier from pg_control_system())";
    bool ready = hf_pg_pid(pg) != 0 && hf_pg_server_ready(pg);
    PGconn *conn = ready ? hf_pg_session(pg, NULL) : NULL;
    PGresult *r = conn != NULL ? hf_pg_query(pg, conn, sql, HF_PG_QUERY_MS, NULL) : NULL;

    hf_pg_log_rotate(pg);
    pthread_mutex_lock(&pg->lock);
    pg->status.seen_ns = hf_clock_ns();
    pg->status.running = pg->pid != 0;
    pg->status.sql = r != NULL;
    if (r != NULL) {
        pg->status.in_recovery = PQgetvalue(r, 0, 0)[0] == 't';
        (void)hf_pg_parse_lsn(PQgetvalue(r, 0, 1), &pg->status.lsn);
        pg->status.timeline = (uint32_t)strtoul(PQgetvalue(r, 0, 2), NULL, 10);
        pg->status.system_id = strtoull(PQgetvalue(r, 0, 3), NULL, 10);
    }
    pthread_mutex_unlock(&pg->lock);
    PQclear(r);
}
