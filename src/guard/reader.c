/* holdfast.read_only, which the router sets when a session of the read-only port begins, and which nobody can change after: then
 * every transaction of the session is read only, as PostgreSQL understands it, before each thing that it does.
 *
 * On a follower PostgreSQL sees to that by itself. The port's last resort is the leader, where default_transaction_read_only alone
 * is a habit, not a rule: SET, BEGIN READ WRITE and set_config() get around it. So the flag is put back wherever something begins
 * that could write: the executor, a utility command, and a function that is called by the protocol's function call message, which
 * goes by neither.
 *
 * Putting it back is not enough: a subtransaction restores at its end what it found, so a flag that was off before the first of those hooks is off
 * again behind it, for an expression or a cursor that has begun and comes by no hook any more (nextval() and setval() look at the flag only when they run).
 * So the two settings that can switch it off say "on" here, whatever they are set to. What a read-only transaction may do in PostgreSQL (rows of temporary tables, COMMIT PREPARED, advisory locks) it may here,
 * but for large objects, which PostgreSQL lets it write before version 16.
 *
 * holdfast.reads says who asked for what (router/reads.h). It is here for SHOW, and so that SET is refused instead of being without
 * effect. */
#include "postgres.h"

#include "access/xact.h"
#include "catalog/objectaccess.h"
#include "executor/executor.h"
#include "miscadmin.h"
#include "tcop/utility.h"
#include "utils/guc.h"
#include "utils/guc_tables.h"

#include "reader.h"
#include "utility.h"

static bool read_only;
static char *reads;
static ExecutorStart_hook_type next_start;
static ProcessUtility_hook_type next_utility;
static object_access_hook_type next_access;

static GucBoolCheckHook next_default, next_transaction;

static void keep(void)
{
    if (read_only)
        XactReadOnly = true;
}

static void on_start(QueryDesc *query, int eflags)
{
    keep();
    if (next_start != NULL)
        next_start(query, eflags);
    else
        standard_ExecutorStart(query, eflags);
}

static void on_utility(PlannedStmt *stmt, const char *query, UTILITY_TREE_PARAM ProcessUtilityContext context,
                       ParamListInfo params, QueryEnvironment *env, DestReceiver *dest, QueryCompletion *qc)
{
    keep();
    if (next_utility != NULL)
        next_utility(stmt, query, UTILITY_TREE context, params, env, dest, qc);
    else
        standard_ProcessUtility(stmt, query, UTILITY_TREE context, params, env, dest, qc);
}

/* By their numbers in pg_proc, which do not change; their names in C do. */
static bool writes_large_object(Oid function)
{
    switch (function) {
    case 715:  /* lo_create */
    case 764:  /* lo_import */
    case 767:  /* lo_import with an oid */
    case 955:  /* lowrite */
    case 957:  /* lo_creat */
    case 964:  /* lo_unlink */
    case 1004: /* lo_truncate */
    case 3172: /* lo_truncate64 */
    case 3457: /* lo_from_bytea */
    case 3460: /* lo_put */
        return true;
    default:
        return false;
    }
}

static void on_access(ObjectAccessType access, Oid class_id, Oid object_id, int sub_id, void *arg)
{
    if (access == OAT_FUNCTION_EXECUTE)
        keep();
    if (access == OAT_FUNCTION_EXECUTE && read_only && writes_large_object(object_id))
        PreventCommandIfReadOnly("a function that writes a large object");
    if (next_access != NULL)
        next_access(access, class_id, object_id, sub_id, arg);
}

/* -- the settings that are behind the flag ---------------------------------------------------------- */

static bool check_default(bool *value, void **extra, GucSource source)
{
    *value = *value || read_only;
    return next_default == NULL || next_default(value, extra, source);
}

static bool check_transaction(bool *value, void **extra, GucSource source)
{
    *value = *value || read_only;
    return next_transaction == NULL || next_transaction(value, extra, source);
}

static struct config_bool *setting(const char *name)
{
#if PG_VERSION_NUM >= 160000
    return (struct config_bool *)find_option(name, false, false, ERROR);
#else
    struct config_generic **all = get_guc_variables();

    for (int i = 0; i < GetNumConfigOptions(); i++)
        if (strcmp(all[i]->name, name) == 0)
            return (struct config_bool *)all[i];
    elog(ERROR, "holdfast: there is no setting %s", name);
#endif
}

static void check_first(const char *name, GucBoolCheckHook check, GucBoolCheckHook *next)
{
    struct config_bool *s = setting(name);

    *next = s->check_hook;
    s->check_hook = check;
}

void hf_guard_reader_init(void)
{
    check_first("default_transaction_read_only", check_default, &next_default);
    check_first("transaction_read_only", check_transaction, &next_transaction);
    DefineCustomBoolVariable("holdfast.read_only", "A session of Holdfast's read-only port: it cannot write.", NULL, &read_only,
                             false, PGC_BACKEND, GUC_NO_RESET_ALL | GUC_DISALLOW_IN_FILE, NULL, NULL, NULL);
    DefineCustomStringVariable("holdfast.reads", "Which server reads for the session: leader, follower or fresh.", NULL, &reads, "",
                               PGC_BACKEND, GUC_NO_RESET_ALL | GUC_DISALLOW_IN_FILE, NULL, NULL, NULL);
    next_start = ExecutorStart_hook;
    ExecutorStart_hook = on_start;
    next_utility = ProcessUtility_hook;
    ProcessUtility_hook = on_utility;
    next_access = object_access_hook;
    object_access_hook = on_access;
}
