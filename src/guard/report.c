/* What a session holds, said to the router on its own connection (holds/holds.h in the program).
 *
 * How. `holdfast.holds` is a setting that nobody can set (PGC_INTERNAL) and that PostgreSQL reports to the client whenever it
 * has changed (GUC_REPORT): at the start of each connection, and then by a ParameterStatus right before ReadyForQuery, outside of
 * every other message; in PostgreSQL 13 at once. Its value is a number that goes up with each thing to say; what is shown instead, and
 * sent, are words. So who sees that name in a ParameterStatus knows that the guard is there, and no client can say it in its stead.
 *
 *   none                       nothing
 *   temporary lock cursor listen   there is one: looked at when a transaction ends, with its locks released
 *   currval                    currval() or lastval() has been asked for, since DISCARD
 *   prepared                   a function has prepared a statement or dropped one, since DISCARD ALL
 *   sequence                   currval() or lastval() may have a value, since DISCARD: nextval() or setval() has been called, or a statement
 *                              has run that may have used an identity column's (INSERT, UPDATE, MERGE, COPY FROM, ALTER TABLE)
 *   seed load slot code        something was done that nothing undoes: setseed(); LOAD; a replication slot, an origin, a backup; a function
 *                              whose language or library may keep anything
 *   config:N                   so many calls of set_config(), and of SET and RESET that are not the client's own statement
 *   setting:N                  so many transactions with such a call have committed a setting for the session
 *
 * What is not the client's own statement. Utility commands come with a context: PROCESS_UTILITY_TOPLEVEL is for the texts that the
 * client has sent; functions, DO, triggers, EXECUTE of what a message has prepared have another. The client's own SET, PREPARE and
 * DISCARD the router reads itself.
 *
 * How it is seen that a function of PostgreSQL's own runs. object_access_hook is called for each one by the expressions of
 * the executor (ExecInitFunc and what is like it: operators, set-returning, aggregate and window functions with their parts), by
 * the planner that way too, by CALL and by the fast path. Not so are called: triggers' functions, input and output functions of types, support
 * functions of operator classes (sorts, hashes, indexes, row comparisons), estimates of selectivity, handlers of languages,
 * foreign tables and access methods. Of PostgreSQL's own functions that leave something none can be a trigger's (those return
 * trigger), or a type's (those return it, or take it and return cstring), or a support function or operator of a class (those
 * return integer, or boolean, from two values), but for pg_try_advisory_lock(int, int) and pg_advisory_unlock(int, int) as an
 * operator: and whether there is a lock is looked at, not inferred. Estimates call such an operator as well. Identity columns
 * call nextval_internal() themselves: that is why whatever may write a row counts.
 *
 * Functions that are not PostgreSQL's own are seen where they are looked up (needs_fmgr_hook), once or more, whoever looks them up; those with
 * settings or SECURITY DEFINER where they are called (fmgr_hook), since for those PostgreSQL does not ask the other one. What they do
 * cannot be undone, so that once is enough. A function that was made with LANGUAGE internal for one of PostgreSQL's own is such a one.
 *
 * What happens in the middle. What was seen is said at the end of the statement (before ReadyForQuery comes), whether its transaction
 * goes on, commits or aborts. In parallel mode no setting can be set: then it is said when the executor has run the query. What parallel
 * workers do stays in them; PostgreSQL lets them neither lock, nor set, nor use sequences.
 *
 * Not for others than clients: autovacuum, background and parallel workers report nothing, walsenders only that there is a guard. */
#include "guard.h"

#include "access/parallel.h"
#include "access/xact.h"
#include "catalog/objectaccess.h"
#include "catalog/pg_class.h"
#include "catalog/pg_proc.h"
#include "executor/executor.h"
#include "fmgr.h"
#include "miscadmin.h"
#include "nodes/parsenodes.h"
#include "storage/ipc.h"
#include "storage/proc.h"
#include "utils/guc.h"
#include "utils/resowner.h"

enum word {
    HOLDS_TEMPORARY,
    HOLDS_LOCK,
    HOLDS_CURSOR,
    HOLDS_LISTEN,
    HOLDS_CURRVAL,
    HOLDS_PREPARED,
    HOLDS_SEQUENCE,
    HOLDS_SEED,
    HOLDS_LOAD,
    HOLDS_SLOT,
    HOLDS_CODE,
    HOLDS_WORDS,
};
#define BIT(word) (1u << (word))

static const char *const words[HOLDS_WORDS] = {"temporary", "lock", "cursor", "listen", "currval", "prepared", "sequence",
                                         "seed",      "load", "slot",   "code"};

static int revision; /* of what is said: the setting's value */
static uint32 held;  /* BIT()s */
static uint32 configs, settings;
static bool dirty;      /* something is to be said */
static bool configured; /* in this transaction */

static object_access_hook_type next_access_hook;
static ExecutorRun_hook_type next_run_hook;
static needs_fmgr_hook_type next_needs_hook;
static fmgr_hook_type next_fmgr_hook;

/* -- saying it ----------------------------------------------------------------------------------- */

static const char *show(void)
{
    static char shown[256];
    size_t n = 0;

    shown[0] = '\0';
    for (unsigned i = 0; i < HOLDS_WORDS; i++)
        if ((held & BIT(i)) != 0)
            n += (size_t)snprintf(shown + n, sizeof shown - n, "%s%s", n > 0 ? " " : "", words[i]);
    if (configs > 0)
        n += (size_t)snprintf(shown + n, sizeof shown - n, "%sconfig:%u", n > 0 ? " " : "", configs);
    if (settings > 0)
        n += (size_t)snprintf(shown + n, sizeof shown - n, "%ssetting:%u", n > 0 ? " " : "", settings);
    return n > 0 ? shown : "none";
}

static bool is_clients(void)
{
    return MyBackendType == B_BACKEND && MyProcPort != NULL && !proc_exit_inprogress;
}

/* Raises nothing, allocates nothing (PostgreSQL 13: a message). */
static void say(void)
{
    char number[16];

    if (!dirty || IsInParallelMode())
        return;
    (void)snprintf(number, sizeof number, "%d", revision == INT_MAX ? 1 : revision + 1);
    if (set_config_option("holdfast.holds", number, PGC_INTERNAL, PGC_S_OVERRIDE, GUC_ACTION_SET, true, LOG, false) > 0)
        dirty = false;
}

static void set(enum word word, bool yes)
{
    uint32 now = yes ? held | BIT(word) : held & ~BIT(word);

    dirty = dirty || now != held;
    held = now;
}

static void note(enum word word)
{
    set(word, true);
    say();
}

static void set_for_clients(enum word word)
{
    if (is_clients())
        set(word, true);
}

/* A call that may set something: said when the statement is over, since there may be many. */
static void note_config(void)
{
    configs++;
    configured = dirty = true;
}

static void look_at_seed(void)
{
    if (configured && hf_guard_seed_is_set())
        set(HOLDS_SEED, true);
}

/* -- PostgreSQL's own functions ------------------------------------------------------------------ */

/* Their numbers are the same in all versions; the macros' names are not. */
static void on_function(Oid function)
{
    switch (function) {
    case 1574: /* nextval */
    case 1576: /* setval, of two and of three */
    case 1765:
        note(HOLDS_SEQUENCE);
        break;
    case 1575: /* currval */
    case 2559: /* lastval */
        note(HOLDS_CURRVAL);
        break;
    case 1599: /* setseed */
        note(HOLDS_SEED);
        break;
    case 2078: /* set_config */
        note_config();
        break;
    case 2880: /* pg_advisory_lock, _shared, pg_try_advisory_lock, _shared of a bigint; */
    case 2881:
    case 2882:
    case 2883:
    case 2886: /* of two integers */
    case 2887:
    case 2888:
    case 2889:
        note(HOLDS_LOCK); /* until the end of the transaction tells */
        break;
    case 2172: /* pg_backup_start and stop, by their names before 15 too */
    case 2173:
    case 2739:
    case 3779: /* pg_create_physical_replication_slot */
    case 3786: /* pg_create_logical_replication_slot */
    case 4220: /* pg_copy_physical_replication_slot, pg_copy_logical_replication_slot */
    case 4221:
    case 4222:
    case 4223:
    case 4224:
    case 6006: /* pg_replication_origin_session_setup, _reset */
    case 6007:
    case 6010: /* pg_replication_origin_xact_setup */
        note(HOLDS_SLOT);
        break;
    default:
        break;
    }
}

static void on_access(ObjectAccessType access, Oid class_id, Oid object_id, int sub_id, void *arg)
{
    if (next_access_hook != NULL)
        next_access_hook(access, class_id, object_id, sub_id, arg);
    if (access == OAT_FUNCTION_EXECUTE && is_clients())
        on_function(object_id);
    else if (access == OAT_DROP && sub_id == 0 && is_clients())
        hf_guard_temporary_dropped(class_id, object_id);
}

/* -- others' functions ----------------------------------------------------------------------------- */

static void on_others(Oid function)
{
    if (is_clients() && (held & BIT(HOLDS_CODE)) == 0 && hf_guard_function_leaves(function))
        note(HOLDS_CODE);
}

static bool needs(Oid function)
{
    on_others(function);
    return next_needs_hook != NULL && next_needs_hook(function);
}

static void on_call(FmgrHookEventType event, FmgrInfo *info, Datum *arg)
{
    if (event == FHET_START)
        on_others(info->fn_oid);
    if (next_fmgr_hook != NULL)
        next_fmgr_hook(event, info, arg);
}

/* -- statements ------------------------------------------------------------------------------------ */

/* Not when the query is ended: by the extended protocol that may be much later. */
static void on_run(QueryDesc *query, ScanDirection direction, uint64 count, bool once)
{
    if (query->operation != CMD_SELECT || query->plannedstmt->hasModifyingCTE)
        set_for_clients(HOLDS_SEQUENCE); /* before: where it fails, an identity column has had its value all the same */
    if (next_run_hook != NULL)
        next_run_hook(query, direction, count, once);
    else
        standard_ExecutorRun(query, direction, count, once);
    if (dirty)
        look_at_seed();
    say();
}

static void on_setting(const VariableSetStmt *set, bool clients)
{
    if (set->name != NULL && pg_strcasecmp(set->name, "seed") == 0)
        note(HOLDS_SEED);
    if (!clients)
        note_config();
}

enum hf_guard_after hf_guard_report_begin(const Node *stmt, ProcessUtilityContext context)
{
    bool clients = context == PROCESS_UTILITY_TOPLEVEL;

    if (!is_clients())
        return HF_GUARD_NOTHING;
    switch (nodeTag(stmt)) {
    case T_VariableSetStmt:
        on_setting((const VariableSetStmt *)stmt, clients);
        break;
    case T_PrepareStmt:
    case T_DeallocateStmt:
        if (!clients)
            note(HOLDS_PREPARED);
        else if (IsA(stmt, DeallocateStmt) && ((const DeallocateStmt *)stmt)->name == NULL)
            return HF_GUARD_DEALLOCATED_ALL;
        break;
    case T_CopyStmt:
    case T_AlterTableStmt:
        set(HOLDS_SEQUENCE, true);
        break;
    case T_LoadStmt:
        note(HOLDS_LOAD);
        break;
    case T_DeclareCursorStmt:
        if ((((const DeclareCursorStmt *)stmt)->options & CURSOR_OPT_HOLD) != 0)
            hf_guard_cursor_declared(((const DeclareCursorStmt *)stmt)->portalname);
        break;
    case T_ClosePortalStmt:
        if (clients && ((const ClosePortalStmt *)stmt)->portalname == NULL)
            return HF_GUARD_CLOSED_ALL;
        break;
    case T_ListenStmt:
        hf_guard_listen(((const ListenStmt *)stmt)->conditionname);
        break;
    case T_UnlistenStmt:
        hf_guard_unlisten(((const UnlistenStmt *)stmt)->conditionname);
        break;
    case T_DiscardStmt:
        if (((const DiscardStmt *)stmt)->target == DISCARD_ALL)
            return HF_GUARD_DISCARDED_ALL;
        /* In a transaction an expression that has been made ready for currval() may be used again. */
        if (((const DiscardStmt *)stmt)->target == DISCARD_SEQUENCES && clients && !IsTransactionBlock())
            return HF_GUARD_DISCARDED_SEQUENCES;
        break;
    default:
        break;
    }
    return HF_GUARD_NOTHING;
}

void hf_guard_report_end(enum hf_guard_after after)
{
    if (!is_clients())
        return;
    if (after == HF_GUARD_DISCARDED_SEQUENCES || after == HF_GUARD_DISCARDED_ALL)
        set(HOLDS_CURRVAL, false);
    /* Not within a transaction: functions of it that have called nextval() may do so again, and are not looked up again. */
    if (after == HF_GUARD_DISCARDED_ALL || (after == HF_GUARD_DISCARDED_SEQUENCES && !IsTransactionBlock()))
        set(HOLDS_SEQUENCE, false);
    if (after == HF_GUARD_DEALLOCATED_ALL || after == HF_GUARD_DISCARDED_ALL)
        set(HOLDS_PREPARED, false);
    if (after == HF_GUARD_CLOSED_ALL || after == HF_GUARD_DISCARDED_ALL)
        hf_guard_cursor_none();
    if (after == HF_GUARD_DISCARDED_ALL)
        hf_guard_unlisten(NULL);
    say();
}

/* -- transactions ---------------------------------------------------------------------------------- */

static void on_xact(XactEvent event, void *arg)
{
    (void)arg;
    if (!is_clients())
        return;
    if (event == XACT_EVENT_PRE_COMMIT || event == XACT_EVENT_PRE_PREPARE) {
        look_at_seed();
        if (configured && hf_guard_setting_look()) {
            settings++;
            dirty = true;
        }
        if (event == XACT_EVENT_PRE_COMMIT)
            hf_guard_temporary_look();
    } else if (event == XACT_EVENT_ABORT) {
        look_at_seed(); /* it stays where the setting does not */
    }
}

static void on_subxact(SubXactEvent event, SubTransactionId sub, SubTransactionId parent, void *arg)
{
    (void)sub;
    (void)parent;
    (void)arg;
    if (event != SUBXACT_EVENT_ABORT_SUB || !is_clients())
        return;
    look_at_seed();
    hf_guard_unlisten_not();
}

/* The transaction's own locks are released, and nothing can fail it any more. */
static void on_release(ResourceReleasePhase phase, bool commit, bool top, void *arg)
{
    (void)arg;
    if (phase != RESOURCE_RELEASE_AFTER_LOCKS || !top || !is_clients())
        return;
    set(HOLDS_LOCK, hf_guard_holds_lock());
    set(HOLDS_TEMPORARY, hf_guard_temporary_end(commit));
    set(HOLDS_CURSOR, hf_guard_cursor_end());
    set(HOLDS_LISTEN, hf_guard_listen_end(commit));
    configured = false;
    say();
}

void hf_guard_report_init(void)
{
    DefineCustomIntVariable("holdfast.holds", "What this session holds that is in its connection alone.", NULL, &revision, 0, 0,
                            INT_MAX, PGC_INTERNAL,
                            GUC_REPORT | GUC_NO_SHOW_ALL | GUC_NO_RESET_ALL | GUC_NOT_IN_SAMPLE | GUC_DISALLOW_IN_FILE, NULL, NULL, show);
    next_access_hook = object_access_hook;
    object_access_hook = on_access;
    next_run_hook = ExecutorRun_hook;
    ExecutorRun_hook = on_run;
    next_needs_hook = needs_fmgr_hook;
    needs_fmgr_hook = needs;
    next_fmgr_hook = fmgr_hook;
    fmgr_hook = on_call;
    RegisterXactCallback(on_xact, NULL);
    RegisterSubXactCallback(on_subxact, NULL);
    RegisterResourceReleaseCallback(on_release, NULL);
}
