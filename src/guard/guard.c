/* A module of PostgreSQL's that makes the wait for synchronous replication uncancellable (SAFETY
 * S11).
 *
 * PostgreSQL gives this wait up for a cancel (of a user, of statement_timeout inside a CALL), for a
 * pg_terminate_backend and at the postmaster's end. The commit then stands on this server alone,
 * and after a cancel the client is told that it succeeded; only a WARNING speaks of it, which the
 * session itself can have switched off. Here a commit that began to wait ends in one of two ways: a
 * majority holds it, or its client never hears of it.
 *
 * How. PostgreSQL reports its WARNING from inside SyncRepWaitForLSN *before* it leaves its queue,
 * and calls emit_log_hook before it sends it anywhere. So our hook, in the place of the loop it was
 * called from, goes on waiting for this backend's syncRepState to become COMPLETE. What
 * SyncRepWaitForLSN does when we return, leaving the queue, is right also for one who has left it.
 * It is recognised by the name of the function and by our own state in shared memory, never by its
 * text, which is translated; nothing that SQL can raise has both.
 *
 * Questions that had to be answered:
 *
 * - *The hook is called only for what goes to the server's log*, and a role may have been given a
 * log_min_messages that hides warnings. From before a commit's record is written until the wait is
 * over warnings are logged (arm(), disarm()): the variable is set past GUC, which looks at it again
 * only after we have put it back.
 * - *Interrupts* are held by all callers of SyncRepWaitForLSN, so nothing is raised out of our
 * loop; handlers set flags and our latch. Sleeping in a hook of elog is sleeping one level deeper
 * on its stack: it holds nothing that others wait for. An ERROR of WaitLatch would be a PANIC
 * there, as it is in PostgreSQL's own loop.
 * - *A cancel* is delivered again when the commit is safe and there is still a statement to cancel
 * (CALL, DO, VACUUM): statement_timeout ends it then, and the client hears an error, not a success
 * that was cut short. Where the commit was the statement's end (no active portal), or is a
 * two-phase one, there is nothing to cancel, the client hears the truth, success, and the mark of
 * the timeout is taken away, lest it hit the idle session. A statement that ends without having
 * looked looks when it commits (CHECK_FOR_INTERRUPTS in on_xact).
 * - *pg_terminate_backend* ends the session when the commit is safe. PostgreSQL has by then shut
 * the client's output off, so the client sees its connection end: it does not know the outcome, as
 * with any lost connection.
 * - *Shutdown.* A fast one sends SIGTERM, too, and must not hang on followers that are away. It is
 * told apart by the state in postmaster.pid, which the postmaster writes before it signals. Then
 * the wait is given up and nothing more is sent to the client. Everybody else is being ended
 * likewise, Holdfast has shut the gate before it stops PostgreSQL, and the end of PostgreSQL is the
 * end of the epoch. (A smart shutdown has the same word; in its course a pg_terminate_backend gives
 * the wait up. Holdfast never makes one.) An immediate one is SIGQUIT, which needs nobody's
 * consent.
 * - *The postmaster's death*: PostgreSQL's own loop gives the wait up without a word, and the row could
 * be seen by a session that is busy and has not noticed. So whoever has begun to commit is killed by
 * the kernel when its parent dies (PR_SET_PDEATHSIG, which PostgreSQL uses for a mark that says "look
 * whether it lives"); and since the pipe that tells of the death closes a little before that signal,
 * a pipe that never closes stands in its place from then on (postmaster_alive_fds, which WaitLatch
 * reads when the kernel says that there is news).
 * - *synchronous_standby_names changed or emptied, SIGHUP*: others' business. Walsenders release
 * waiters by the new rule; the checkpointer releases all when there is none. Both set COMPLETE.
 * - *Recursion*: in the loop nothing commits, and our own line in the log has another function's
 * name.
 * - *Two-phase*: PREPARE waits as COMMIT does. COMMIT PREPARED and ROLLBACK PREPARED make no
 * transaction event, they are armed around the utility command.
 * - *Parallel workers* write no commit record. *Autovacuum* never waits, it sets synchronous_commit
 * = local for itself; a cancel meant for it is not affected. *Background workers* (logical
 * replication) wait like clients; those of logical replication finish prepared transactions without
 * an event, so they stay armed once they have committed anything. *Walsenders* on a primary commit only for commands of theirs, and
 * end by SIGTERM as before.
 * - *Standbys* commit nothing, *single-user servers* and initdb load no preloaded libraries.
 *
 * holdfast.synchronous_commit_floor (set by the administrator in the settings, off by default:
 * forbids nothing): the weakest synchronous_commit of clients' transactions. A session that set
 * less is raised to it for its commit. Not for Holdfast's own role, which measures positions with
 * local commits.
 *
 * Load it as the last of shared_preload_libraries: then no other module's emit_log_hook stands
 * before it. */
#include "guard.h"

#include <fcntl.h>
#include <signal.h>
#include <sys/prctl.h>
#include <unistd.h>

#include "access/xact.h"
#include "catalog/pg_authid.h"
#include "fmgr.h"
#include "miscadmin.h"
#include "pgstat.h"
#include "postmaster/postmaster.h"
#include "replication/logicalworker.h"
#include "replication/syncrep.h"
#include "storage/latch.h"
#include "storage/proc.h"
#include "tcop/pquery.h"
#include "tcop/tcopprot.h"
#include "tcop/utility.h"
#include "utils/guc.h"
#if PG_VERSION_NUM >= 160000
#include "utils/guc_hooks.h"
#endif
#include "utils/pidfile.h"
#include "utils/timeout.h"

#include "reader.h"
#include "refuse.h"
#include "utility.h"

#if PG_VERSION_NUM < 130000 || PG_VERSION_NUM >= 180000
#error                                                                                             \
    "src/guard is for PostgreSQL 13 to 17: read syncrep.c and elog.c of this version first"
#endif

PG_MODULE_MAGIC;

void _PG_init(void);

/* SIGTERMs that come close together are one: look again now and then. */
enum { LOOK_AGAIN_MS = 1000 };

static emit_log_hook_type next_log_hook;
static ProcessUtility_hook_type next_utility_hook;
static int commit_floor = SYNCHRONOUS_COMMIT_OFF;
static int never_closes[2] = {-1, -1}; /* a pipe: the postmaster's, and so all its children's */
static bool finishing_prepared; /* COMMIT PREPARED or ROLLBACK PREPARED is under way */

/* What arm() changed. */
static struct {
    bool logging, raised;
    int log_min_messages, synchronous_commit;
} before;

/* --- the wait --------------------------------------------------------------------------------- */

/* The eighth line of postmaster.pid. Not readable: no reason to give anything up. */
static bool is_server_stopping(void)
{
    char text[2 * MAXPGPATH];
    const char *line = text;
    int fd = open("postmaster.pid", O_RDONLY | O_CLOEXEC);
    ssize_t n = fd >= 0 ? read(fd, text, sizeof text - 1) : -1;

    if (fd >= 0)
        (void)close(fd);
    text[Max(n, 0)] = '\0';
    for (int i = 1; i < LOCK_FILE_LINE_PM_STATUS && line != NULL; i++)
        line = (line = strchr(line, '\n')) != NULL ? line + 1 : NULL;
    return line != NULL && strncmp(line, PM_STATUS_STOPPING, sizeof PM_STATUS_STOPPING - 1) == 0;
}

/* In the place of SyncRepWaitForLSN's loop. False: given up, the server is going. */
static bool await_majority(void)
{
    for (;;) {
        ResetLatch(MyLatch); /* before the look: whoever changes the state sets it after */
        if (MyProc->syncRepState == SYNC_REP_WAIT_COMPLETE)
            return true;
        if (ProcDiePending && is_server_stopping())
            return false;
        if ((WaitLatch(MyLatch, WL_LATCH_SET | WL_TIMEOUT | WL_POSTMASTER_DEATH, LOOK_AGAIN_MS,
                       WAIT_EVENT_SYNC_REP) &
             WL_POSTMASTER_DEATH) != 0)
            return false;
    }
}

static void deliver_cancel(void)
{
    if (ActivePortal != NULL && !finishing_prepared) {
        QueryCancelPending = true;
        InterruptPending = true;
        return;
    }
    QueryCancelPending = false;
    (void)get_timeout_indicator(STATEMENT_TIMEOUT, true);
    (void)get_timeout_indicator(LOCK_TIMEOUT, true);
}

static void wait_on(ErrorData *edata)
{
    bool cancel = edata->sqlerrcode != ERRCODE_ADMIN_SHUTDOWN;

    ereport(LOG_SERVER_ONLY, (errmsg("holdfast: the wait for a majority goes on in spite of a %s",
                                     cancel ? "cancel" : "terminate"),
                              errhidestmt(true), errhidecontext(true)));
    if (await_majority()) {
        /* What it warns of has not happened. */
        edata->output_to_server = edata->output_to_client = false;
        if (cancel)
            deliver_cancel();
        return;
    }
    edata->output_to_client = false;
    whereToSendOutput = DestNone;
    ProcDiePending = true;
    InterruptPending = true;
}

static void on_log(ErrorData *edata)
{
    if (edata->elevel == WARNING && MyProc != NULL &&
        MyProc->syncRepState != SYNC_REP_NOT_WAITING && edata->funcname != NULL &&
        strcmp(edata->funcname, "SyncRepWaitForLSN") == 0)
        wait_on(edata);
    if (next_log_hook != NULL && edata->output_to_server)
        next_log_hook(edata);
}

/* --- around a commit -------------------------------------------------------------------------- */

static void disarm(void)
{
    if (IsLogicalWorker())
        return;
    if (before.logging)
        log_min_messages = before.log_min_messages;
    if (before.raised) {
        synchronous_commit = before.synchronous_commit;
        assign_synchronous_commit(synchronous_commit, NULL);
    }
    before.logging = before.raised = false;
}

/* From now on this process ends with its parent, and by that alone. */
static void die_with_postmaster(void)
{
    static bool bound;

    if (!IsUnderPostmaster || bound)
        return;
    bound = prctl(PR_SET_PDEATHSIG, SIGKILL) == 0;
    if (!bound)
        return;
    if (getppid() != PostmasterPid)
        _exit(2); /* it died a moment ago: no signal comes any more */
    postmaster_alive_fds[POSTMASTER_FD_WATCH] = never_closes[0];
}

static void arm(void)
{
    disarm();
    die_with_postmaster();
    if (log_min_messages > WARNING || log_min_messages == LOG) { /* here LOG stands above ERROR */
        before.log_min_messages = log_min_messages;
        before.logging = true;
        log_min_messages = WARNING;
    }
    if (synchronous_commit < commit_floor && MyBackendType == B_BACKEND &&
        GetSessionUserId() != BOOTSTRAP_SUPERUSERID) {
        before.synchronous_commit = synchronous_commit;
        before.raised = true;
        synchronous_commit = commit_floor;
        assign_synchronous_commit(synchronous_commit, NULL);
    }
}

static void on_xact(XactEvent event, void *arg)
{
    (void)arg;
    switch (event) {
    case XACT_EVENT_PRE_COMMIT:
    case XACT_EVENT_PRE_PREPARE:
        CHECK_FOR_INTERRUPTS(); /* the last moment at which a cancel can still be obeyed */
        arm();
        break;
    case XACT_EVENT_COMMIT:
    case XACT_EVENT_PREPARE:
    case XACT_EVENT_ABORT:
        disarm();
        break;
    case XACT_EVENT_PARALLEL_PRE_COMMIT:
    case XACT_EVENT_PARALLEL_COMMIT:
    case XACT_EVENT_PARALLEL_ABORT:
        break;
    }
}

static void on_utility(PlannedStmt *stmt, const char *query,
                       UTILITY_TREE_PARAM ProcessUtilityContext context, ParamListInfo params,
                       QueryEnvironment *env, DestReceiver *dest, QueryCompletion *qc)
{
    ProcessUtility_hook_type next =
        next_utility_hook != NULL ? next_utility_hook : standard_ProcessUtility;
    const TransactionStmt *t = (const TransactionStmt *)stmt->utilityStmt;

    if (!IsA(t, TransactionStmt)) {
        enum hf_guard_after after = hf_guard_report_begin(stmt->utilityStmt, context);
        next(stmt, query, UTILITY_TREE context, params, env, dest, qc);
        hf_guard_report_end(after);
        return;
    }
    if (t->kind != TRANS_STMT_COMMIT_PREPARED && t->kind != TRANS_STMT_ROLLBACK_PREPARED) {
        next(stmt, query, UTILITY_TREE context, params, env, dest, qc);
        return;
    }
    finishing_prepared = true;
    arm();
    PG_TRY();
    {
        next(stmt, query, UTILITY_TREE context, params, env, dest, qc);
    }
    PG_FINALLY();
    {
        disarm();
        finishing_prepared = false;
    }
    PG_END_TRY();
}

/* --- the module ------------------------------------------------------------------------------- */

void _PG_init(void)
{
    static const struct config_enum_entry levels[] = {
        {"off", SYNCHRONOUS_COMMIT_OFF, false},
        {"local", SYNCHRONOUS_COMMIT_LOCAL_FLUSH, false},
        {"remote_write", SYNCHRONOUS_COMMIT_REMOTE_WRITE, false},
        {"on", SYNCHRONOUS_COMMIT_REMOTE_FLUSH, false},
        {"remote_apply", SYNCHRONOUS_COMMIT_REMOTE_APPLY, false},
        {NULL, 0, false},
    };

    if (!process_shared_preload_libraries_in_progress)
        ereport(ERROR, (errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
                        errmsg("Holdfast's guard must be in shared_preload_libraries")));
    DefineCustomEnumVariable("holdfast.synchronous_commit_floor",
                             "The weakest synchronous_commit of a client's transaction.", NULL,
                             &commit_floor, SYNCHRONOUS_COMMIT_OFF, levels, PGC_SIGHUP, 0, NULL,
                             NULL, NULL);
    if (pipe2(never_closes, O_CLOEXEC | O_NONBLOCK) != 0)
        ereport(ERROR, (errcode_for_file_access(), errmsg("Holdfast's guard cannot make a pipe: %m")));
    next_log_hook = emit_log_hook;
    emit_log_hook = on_log;
    next_utility_hook = ProcessUtility_hook;
    ProcessUtility_hook = on_utility;
    RegisterXactCallback(on_xact, NULL);
    hf_guard_report_init();
    hf_guard_reader_init();
    hf_guard_refuse_init();
}
