/* What an administrator's session must not do behind Holdfast's back, since acknowledged commits, or every copy, depend on it:
 *
 *   - pg_promote() on a follower: who leads is the cluster's decision, and a history that nobody was appointed to would count as one;
 *   - pg_wal_replay_pause() there: nobody could tell how far it is, and be elected;
 *   - ALTER SYSTEM: what it writes stands above the settings that safety needs (before 17, which has a setting against it). At each start
 *     it is emptied anyway;
 *   - CREATE TABLESPACE with a place outside of the data directory: no other node has that directory, and a copy cannot be made of it.
 *
 * Holdfast's own superuser, which no port lets in, is free to do all of it. */
#include "postgres.h"

#include "catalog/objectaccess.h"
#include "catalog/pg_authid.h"
#include "miscadmin.h"
#include "nodes/parsenodes.h"
#include "tcop/utility.h"

#include "refuse.h"
#include "utility.h"

static ProcessUtility_hook_type next_utility;
static object_access_hook_type next_access;

static bool is_others(void)
{
    return MyBackendType == B_BACKEND && GetSessionUserId() != BOOTSTRAP_SUPERUSERID;
}

static void refuse(const char *what, const char *hint)
{
    ereport(ERROR, (errcode(ERRCODE_INSUFFICIENT_PRIVILEGE), errmsg("%s is Holdfast's to decide", what), errhint("%s", hint)));
}

static void on_utility(PlannedStmt *stmt, const char *query, UTILITY_TREE_PARAM ProcessUtilityContext context, ParamListInfo params,
                       QueryEnvironment *env, DestReceiver *dest, QueryCompletion *qc)
{
    const Node *n = stmt->utilityStmt;

    if (IsA(n, AlterSystemStmt) && is_others())
        refuse("what ALTER SYSTEM sets", "Use --settings-file or -c of the nodes; ALTER DATABASE and ALTER ROLE ... SET work as ever.");
    if (IsA(n, CreateTableSpaceStmt) && ((const CreateTableSpaceStmt *)n)->location[0] != '\0' && is_others())
        refuse("where data lie", "Other nodes do not have that directory: a node's data are one directory.");
    if (next_utility != NULL)
        next_utility(stmt, query, UTILITY_TREE context, params, env, dest, qc);
    else
        standard_ProcessUtility(stmt, query, UTILITY_TREE context, params, env, dest, qc);
}

/* By their numbers in pg_proc, which do not change. */
static void on_access(ObjectAccessType access, Oid class_id, Oid object_id, int sub_id, void *arg)
{
    if (access == OAT_FUNCTION_EXECUTE && is_others()) {
        if (object_id == 3436) /* pg_promote */
            refuse("who leads", "Use \"holdfast switchover\".");
        if (object_id == 3071) /* pg_wal_replay_pause */
            refuse("whether a follower replays", "A long query on the read-only port is given max_standby_streaming_delay.");
    }
    if (next_access != NULL)
        next_access(access, class_id, object_id, sub_id, arg);
}

void hf_guard_refuse_init(void)
{
    next_utility = ProcessUtility_hook;
    ProcessUtility_hook = on_utility;
    next_access = object_access_hook;
    object_access_hook = on_access;
}
