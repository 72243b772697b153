/* POSITION: where does this node's history end?
 *
 * On a standby the relay is closed before we are called, so a WAL receiver that is not connected
 * now will never again hand over a byte. Proof that replay is at the end of local WAL, for 13 to
 * 17:
 *
 *  1. No receiver shows in pg_stat_get_wal_receiver(). It shows there from the moment it is
 * connected until after its last flush (WalRcvDie flushes, then hides); one that is still
 * connecting, held by the closed relay, does not show and has received nothing.
 *  2. Seen in a statement begun after 1 was seen, one of:
 *     a. replay is at or past pg_last_wal_receive_lsn(): all that any receiver of this server ever
 *        flushed is replayed. (That LSN steps back only when the startup process asks for a new
 *        stream, which it does only at the end of local WAL.) The first receiver was asked for at
 * the end of local WAL, so nothing older is left either. b. a receiver that was started after 1, or
 * is waiting in its connect: the startup process asks for a receiver only after reading local WAL
 * to its end, and replays what it has read before it reads on. This is the case of a torn last
 * record, and of a server that never received.
 *
 * A wait event alone (RecoveryWalStream) is no proof: it is shown until the startup process has
 * really woken from the flush of the last bytes.
 *
 * PostgreSQL offers no event for any of this: polled every millisecond, a few statements in all. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/clock.h"
#include "base/log.h"
#include "postgres/private.h"

static const char look_sql[] =
    "select pg_is_in_recovery(), (pg_stat_get_wal_receiver()).pid is not null,"
    " coalesce(pg_last_wal_receive_lsn()::text, ''), coalesce(pg_last_wal_replay_lsn()::text, ''),"
    " coalesce((select extract(epoch from backend_start)::text || '|' || coalesce(wait_event, '')"
    "  from pg_stat_activity where backend_type = 'walreceiver'), ''),"
    " coalesce((select coalesce(wait_event, '') from pg_stat_activity"
    "  where backend_type = 'startup'), ''),"
    " extract(epoch from clock_timestamp())::text";

struct look {
    bool in_recovery, connected;
    hf_lsn received, replayed; /* 0: none */
    bool receiver;             /* there is a process */
    double receiver_start, now;
    char receiver_wait[64], startup_wait[64];
};

static int look(struct hf_pg *pg, struct look *l, struct hf_error *err)
{
    PGconn *conn = hf_pg_session(pg, err);
    PGresult *r = conn == NULL ? NULL : hf_pg_query(pg, conn, look_sql, HF_PG_QUERY_MS, err);
    const char *bar;

    if (r == NULL)
        return HF_EPG;
    memset(l, 0, sizeof *l);
    l->in_recovery = PQgetvalue(r, 0, 0)[0] == 't';
    l->connected = PQgetvalue(r, 0, 1)[0] == 't';
    (void)hf_pg_parse_lsn(PQgetvalue(r, 0, 2), &l->received);
    (void)hf_pg_parse_lsn(PQgetvalue(r, 0, 3), &l->replayed);
    bar = strchr(PQgetvalue(r, 0, 4), '|');
    l->receiver = bar != NULL;
    if (bar != NULL) {
        l->receiver_start = strtod(PQgetvalue(r, 0, 4), NULL);
        (void)snprintf(l->receiver_wait, sizeof l->receiver_wait, "%s", bar + 1);
    }
    (void)snprintf(l->startup_wait, sizeof l->startup_wait, "%s", PQgetvalue(r, 0, 5));
    l->now = strtod(PQgetvalue(r, 0, 6), NULL);
    PQclear(r);
    return 0;
}

static bool proved(const struct look *l, double unseen_since)
{
    if (l->connected || l->replayed == 0)
        return false;
    if (l->received != 0 && l->replayed >= l->received)
        return true;
    return l->receiver && (l->receiver_start > unseen_since ||
                           strcmp(l->receiver_wait, "LibPQWalReceiverConnect") == 0);
}

/* Sessions that hold replay up lose (S20): their node is about to matter more than their query. */
static int unblock(struct hf_pg *pg, struct hf_error *err)
{
    static const char end_sql[] =
        "select pg_terminate_backend(pid) from pg_stat_activity"
        " where backend_type = 'client backend' and usename is distinct from '" HF_PG_SUPERUSER "'";
    PGconn *conn = hf_pg_session(pg, err);

    return conn == NULL ? HF_EPG : hf_pg_command(pg, conn, end_sql, HF_PG_QUERY_MS, err);
}

/* Replay waits for a session, not for WAL. */
static bool held_up(const struct look *l)
{
    return strncmp(l->startup_wait, "RecoveryConflict", 16) == 0 ||
           strcmp(l->startup_wait, "BufferPin") == 0 || strcmp(l->startup_wait, "relation") == 0 ||
           strcmp(l->startup_wait, "tuple") == 0 || strcmp(l->startup_wait, "virtualxid") == 0;
}

/* HF_ETIMEOUT: replay does not move on. */
static int standby_position(struct hf_pg *pg, struct look *l, struct hf_error *err)
{
    uint64_t start = hf_clock_ns(), moved = start, now, ended = 0;
    double unseen_since = 0;
    hf_lsn last = 0;
    int code;

    for (;;) {
        code = look(pg, l, err);
        if (code != 0 || !l->in_recovery)
            return code;
        if (unseen_since > 0 && proved(l, unseen_since))
            return 0;
        if (l->connected)
            unseen_since = 0;
        else if (unseen_since == 0) {
            unseen_since = l->now;
            continue;
        }
        now = hf_clock_ns();
        if (l->replayed != last) {
            last = l->replayed;
            moved = now;
        }
        if (now - moved > HF_PG_STALL_MS * HF_MS || now - start > HF_PG_POSITION_MS * HF_MS)
            return hf_fail(err, HF_ETIMEOUT,
                           "%s: replay stays at " HF_PG_LSN_FMT " (startup: %s, receiver: %s)",
                           pg->name, HF_PG_LSN_ARG(l->replayed), l->startup_wait,
                           !l->receiver   ? "none"
                           : l->connected ? "connected"
                                          : l->receiver_wait);
        if (strcmp(l->startup_wait, "RecoveryPause") == 0)
            return hf_fail(err, HF_ETIMEOUT, "%s: replay is paused", pg->name);
        if (held_up(l) && now - ended > 50 * HF_MS) {
            ended = now;
            if ((code = unblock(pg, err)) != 0)
                return code;
        }
        if ((code = hf_pg_pause(pg, 1000, err)) != 0)
            return code;
    }
}

/* A message in WAL, committed locally, makes sure that all before it is on disk: then what is
 * flushed is at or past what was inserted when we were asked. */
static int primary_position(struct hf_pg *pg, struct hf_pg_result *result, struct hf_error *err)
{
    static const char flush_sql[] =
        "begin; set local synchronous_commit = local;"
        " select pg_logical_emit_message(true, 'holdfast', 'position'); commit";
    PGconn *conn = hf_pg_session(pg, err);
    PGresult *r;
    int code = conn == NULL ? HF_EPG : hf_pg_command(pg, conn, flush_sql, HF_PG_QUERY_MS, err);

    if (code != 0)
        return code;
    r = hf_pg_query(pg, conn, "select pg_current_wal_flush_lsn()", HF_PG_QUERY_MS, err);
    if (r == NULL)
        return HF_EPG;
    if (!hf_pg_parse_lsn(PQgetvalue(r, 0, 0), &result->lsn))
        code = hf_fail(err, HF_EPG, "%s: PostgreSQL tells no WAL position", pg->name);
    PQclear(r);
    return code;
}

/* --- without SQL (S10) -------------------------------------------------------------------------
 */

static bool is_streaming(void *ctx, const char *title)
{
    (void)ctx;
    return strstr(title, "walreceiver") != NULL && strstr(title, "streaming") != NULL;
}

static int sync_wal(struct hf_pg *pg, struct hf_error *err)
{
    const char *argv[] = {"initdb", "--sync-only", "-D", pg->data, NULL};

    return hf_pg_tool(pg, argv, HF_PG_CHECKPOINT_MS, NULL, NULL, NULL, err);
}

/* The receiver is cut off: once its last words are on disk, the files tell. */
static int position_by_files(struct hf_pg *pg, struct hf_pg_result *result, struct hf_error *err)
{
    uint64_t deadline_ns = hf_clock_ns() + HF_PG_STALL_MS * HF_MS;
    pid_t pid = hf_pg_pid(pg);
    int code = 0;

    while (code == 0 && pid != 0 && hf_pg_any_child(pid, is_streaming, NULL)) {
        if (hf_clock_ns() > deadline_ns)
            return hf_fail(err, HF_ETIMEOUT, "%s: the WAL receiver does not end", pg->name);
        code = hf_pg_pause(pg, 2000, err);
    }
    if (code == 0)
        code = sync_wal(pg, err);
    if (code == 0)
        code = hf_pg_wal_end(pg, &result->lsn, &result->timeline, &result->seen, err);
    if (code == 0 && result->seen != 0)
        (void)snprintf(result->text, sizeof result->text, "%s: valid WAL ends at " HF_PG_LSN_FMT ", before " HF_PG_LSN_FMT ", which the data have seen",
                       pg->name, HF_PG_LSN_ARG(result->lsn), HF_PG_LSN_ARG(result->seen));
    return code;
}

/* The server aims at such a timeline as long as it runs. */
static int forget(struct hf_pg *pg, const struct hf_pg_timelines *unused, bool *sql, struct hf_error *err)
{
    int code = hf_pg_server_stop(pg, HF_PG_STOP_IMMEDIATE, HF_PG_QUIT_MS, err);

    if (code == 0)
        code = hf_pg_timelines_forget(pg, unused, err);
    return code != 0 ? code : hf_pg_server_start(pg, HF_PG_START_MS, sql, err);
}

int hf_pg_do_position(struct hf_pg *pg, struct hf_pg_result *result, struct hf_error *err)
{
    struct hf_pg_timelines unused;
    bool sql = hf_pg_server_ready(pg), forgot = false, restarted = false;
    struct look l;
    int code;

    if (hf_pg_pid(pg) == 0)
        return hf_fail(err, HF_ECLOSED, "%s: PostgreSQL is not running", pg->name);
    while (sql) {
        code = standby_position(pg, &l, err);
        if (code == 0 && !l.in_recovery)
            return primary_position(pg, result, err);
        if (code == 0)
            code = hf_pg_wal_ends_at(pg, l.replayed, err);
        if (code == 0)
            code = hf_pg_timelines_unused(pg, l.replayed, &unused, err);
        result->lsn = l.replayed;
        if (code == 0 && (forgot || unused.n == 0))
            return 0;
        if (code == 0) {
            forgot = true;
            if ((code = forget(pg, &unused, &sql, err)) != 0)
                return code;
            continue;
        }
        if (code == HF_ECLOSED || hf_pg_pid(pg) == 0)
            return code;
        hf_warn("%s: no position yet: %s", pg->name, err->text);
        if (restarted)
            break;
        /* The five parameters may be too small: a start raises them (S10). Or it could not read, once. */
        restarted = true;
        code = hf_pg_server_stop(pg, HF_PG_STOP_IMMEDIATE, HF_PG_QUIT_MS, err);
        if (code == 0)
            code = hf_pg_server_start(pg, HF_PG_START_MS, &sql, err);
        if (code != 0)
            return code;
    }
    return position_by_files(pg, result, err);
}
