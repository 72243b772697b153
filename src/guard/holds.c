/* What a session holds, by PostgreSQL's own state.
 *
 * Names of cursors and channels are kept here, since PostgreSQL has them where no module can look. Of each there are at most
 * NAMES_MAX; where there were more, there is taken to be one until all go. */
#include "guard.h"

#include "access/genam.h"
#include "access/htup_details.h"
#include "access/table.h"
#include "access/transam.h"
#include "access/xact.h"
#include "catalog/dependency.h"
#include "catalog/indexing.h"
#include "catalog/namespace.h"
#include "catalog/pg_depend.h"
#include "catalog/pg_language.h"
#include "catalog/pg_namespace.h"
#include "catalog/pg_proc.h"
#include "commands/extension.h"
#include "storage/lock.h"
#include "storage/lwlock.h"
#include "storage/proc.h"
#include "utils/builtins.h"
#include "utils/fmgroids.h"
#include "utils/guc.h"
#include "utils/guc_tables.h"
#include "utils/hsearch.h"
#include "utils/inval.h"
#include "utils/portal.h"
#include "utils/snapmgr.h"
#include "utils/syscache.h"

enum { NAMES_MAX = 8, TEMPORARY_MAX = 32, FUNCTIONS_MAX = 4096 };

/* -- locks ------------------------------------------------------------------------------------- */

static bool is_held(const PROCLOCK *lock)
{
    return lock->tag.myLock->tag.locktag_lockmethodid == USER_LOCKMETHOD && lock->holdMask != 0;
}

/* Nobody but this process puts a lock in its lists, or takes one out, but for those that it holds by the fast path; so an empty
 * list needs no lock to be seen. */
static bool list_has_lock(unsigned i)
{
    bool found = false;

#if PG_VERSION_NUM >= 160000
    dlist_head *list = &MyProc->myProcLocks[i];
    dlist_iter at;

    if (dlist_is_empty(list))
        return false;
    LWLockAcquire(LockHashPartitionLockByIndex(i), LW_SHARED);
    dlist_foreach(at, list)
        found = found || is_held(dlist_container(PROCLOCK, procLink, at.cur));
#else
    SHM_QUEUE *list = &MyProc->myProcLocks[i];

    if (SHMQueueEmpty(list))
        return false;
    LWLockAcquire(LockHashPartitionLockByIndex(i), LW_SHARED);
    for (const PROCLOCK *at = (const PROCLOCK *)SHMQueueNext(list, list, offsetof(PROCLOCK, procLink)); at != NULL && !found;
         at = (const PROCLOCK *)SHMQueueNext(list, &at->procLink, offsetof(PROCLOCK, procLink)))
        found = is_held(at);
#endif
    LWLockRelease(LockHashPartitionLockByIndex(i));
    return found;
}

bool hf_guard_holds_lock(void)
{
    for (unsigned i = 0; i < NUM_LOCK_PARTITIONS; i++)
        if (list_has_lock(i))
            return true;
    return false;
}

/* -- the temporary schema ------------------------------------------------------------------------ */

/* Whatever is in a schema depends on it. What is dropped ON COMMIT is there when the transaction is about to commit, and goes then. */
static struct {
    bool looked, many, any; /* any: as of the last commit */
    unsigned n;
    ObjectAddress there[TEMPORARY_MAX];
} temporary;

static Oid temporary_schema(void)
{
    Oid schema, toast;

    GetTempNamespaceState(&schema, &toast);
    return schema;
}

void hf_guard_temporary_look(void)
{
    Oid schema = temporary_schema();
    Relation depend;
    SysScanDesc scan;
    ScanKeyData key[2];
    HeapTuple row;

    if (!OidIsValid(schema) || !TransactionIdIsValid(GetTopTransactionIdIfAny()))
        return;
    temporary.n = 0;
    temporary.many = false;
    depend = table_open(DependRelationId, AccessShareLock);
    ScanKeyInit(&key[0], Anum_pg_depend_refclassid, BTEqualStrategyNumber, F_OIDEQ, ObjectIdGetDatum(NamespaceRelationId));
    ScanKeyInit(&key[1], Anum_pg_depend_refobjid, BTEqualStrategyNumber, F_OIDEQ, ObjectIdGetDatum(schema));
    /* SnapshotSelf: what the last command has made counts. */
    scan = systable_beginscan(depend, DependReferenceIndexId, true, SnapshotSelf, 2, key);
    while (!temporary.many && HeapTupleIsValid(row = systable_getnext(scan))) {
        Form_pg_depend d = (Form_pg_depend)GETSTRUCT(row);
        temporary.many = temporary.n == TEMPORARY_MAX;
        if (!temporary.many)
            temporary.there[temporary.n++] = (ObjectAddress){.classId = d->classid, .objectId = d->objid};
    }
    systable_endscan(scan);
    table_close(depend, AccessShareLock);
    temporary.looked = true;
}

void hf_guard_temporary_dropped(Oid class_id, Oid object_id)
{
    for (unsigned i = 0; temporary.looked && i < temporary.n; i++) {
        if (temporary.there[i].classId != class_id || temporary.there[i].objectId != object_id)
            continue;
        temporary.there[i] = temporary.there[--temporary.n];
        return;
    }
}

bool hf_guard_temporary_end(bool commit)
{
    if (temporary.looked && commit)
        temporary.any = temporary.many || temporary.n > 0;
    temporary.looked = false;
    return temporary.any && OidIsValid(temporary_schema());
}

/* -- names --------------------------------------------------------------------------------------- */

struct names {
    unsigned n;
    bool many;
    bool many_goes; /* as `goes`, for those that have no place */
    struct {
        NameData name;
        bool goes; /* when this transaction commits */
    } each[NAMES_MAX];
};

static struct names cursors, channels;

static void names_add(struct names *s, const char *name)
{
    for (unsigned i = 0; i < s->n; i++) {
        if (strncmp(NameStr(s->each[i].name), name, NAMEDATALEN - 1) == 0) {
            s->each[i].goes = false;
            return;
        }
    }
    if (s->n == NAMES_MAX) {
        s->many = true;
        s->many_goes = false;
        return;
    }
    namestrcpy(&s->each[s->n].name, name);
    s->each[s->n++].goes = false;
}

static void names_drop(struct names *s)
{
    unsigned kept = 0;

    for (unsigned i = 0; i < s->n; i++)
        if (!s->each[i].goes)
            s->each[kept++] = s->each[i];
    s->n = kept;
    if (s->many_goes)
        s->many = s->many_goes = false;
}

void hf_guard_cursor_declared(const char *name)
{
    names_add(&cursors, name);
}

void hf_guard_cursor_none(void)
{
    cursors.n = 0;
    cursors.many = false;
}

/* A cursor that has outlived its transaction belongs to none. */
bool hf_guard_cursor_end(void)
{
    for (unsigned i = 0; i < cursors.n; i++) {
        Portal p = GetPortalByName(NameStr(cursors.each[i].name));
        cursors.each[i].goes =
            !PortalIsValid(p) || (p->cursorOptions & CURSOR_OPT_HOLD) == 0 || p->createSubid != InvalidSubTransactionId;
    }
    names_drop(&cursors);
    return cursors.n > 0 || cursors.many;
}

/* LISTEN counts at once, though it may be rolled back; UNLISTEN when it has committed. */
void hf_guard_listen(const char *channel)
{
    names_add(&channels, channel);
}

void hf_guard_unlisten(const char *channel)
{
    for (unsigned i = 0; i < channels.n; i++)
        if (channel == NULL || strncmp(NameStr(channels.each[i].name), channel, NAMEDATALEN - 1) == 0)
            channels.each[i].goes = true;
    if (channel == NULL)
        channels.many_goes = true;
}

void hf_guard_unlisten_not(void)
{
    for (unsigned i = 0; i < channels.n; i++)
        channels.each[i].goes = false;
    channels.many_goes = false;
}

bool hf_guard_listen_end(bool commit)
{
    if (commit)
        names_drop(&channels);
    else
        hf_guard_unlisten_not();
    return channels.n > 0 || channels.many;
}

/* -- settings ------------------------------------------------------------------------------------ */

/* PostgreSQL keeps, with each setting that a transaction has set, what it was before and how it was set. */
static bool is_set(const struct config_generic *setting)
{
    bool found = false;

    for (const GucStack *s = setting->stack; s != NULL; s = s->prev)
        found = found || s->state == GUC_SET || s->state == GUC_SET_LOCAL;
    return found;
}

static struct config_generic **all_settings(int *n)
{
#if PG_VERSION_NUM >= 160000
    return get_guc_variables(n);
#else
    *n = GetNumConfigOptions();
    return get_guc_variables();
#endif
}

bool hf_guard_setting_look(void)
{
    int n;
    struct config_generic **all = all_settings(&n);
    bool found = false;

    for (int i = 0; i < n && !found; i++)
        found = is_set(all[i]);
    return found;
}

/* Also where nothing may be allocated. */
bool hf_guard_seed_is_set(void)
{
    static const struct config_generic *seed;

#if PG_VERSION_NUM >= 160000
    if (seed == NULL)
        seed = find_option("seed", false, true, LOG);
#else
    int n;
    struct config_generic **all = all_settings(&n);

    for (int i = 0; i < n && seed == NULL; i++)
        if (strcmp(all[i]->name, "seed") == 0)
            seed = all[i];
#endif
    return seed != NULL && seed->stack != NULL;
}

/* -- functions ----------------------------------------------------------------------------------- */

/* Of these extensions it is known that their functions in C leave nothing in a session but caches. */
static const char *const known[] = {
    "amcheck",         "bloom",          "btree_gin",          "btree_gist",    "citext",         "cube",       "dict_int",
    "dict_xsyn",       "earthdistance",  "file_fdw",           "fuzzystrmatch", "hstore",         "insert_username",
    "intagg",          "intarray",       "isn",                "lo",            "ltree",          "moddatetime", "pageinspect",
    "pg_buffercache",  "pg_freespacemap", "pg_prewarm",        "pg_stat_statements", "pg_trgm",   "pg_visibility", "pgcrypto",
    "pgrowlocks",      "pgstattuple",    "plpgsql",            "postgres_fdw",  "seg",            "sslinfo",    "tablefunc",
    "tcn",             "tsm_system_rows", "tsm_system_time",   "unaccent",      "uuid-ossp",      "xml2",
};
/* But for these of theirs. */
static const char *const unlike[] = {"set_limit", "isn_weak"};

struct verdict {
    Oid function; /* the key: first */
    bool leaves;
};

static HTAB *verdicts;
static bool outdated = true;

static void forget_verdicts(Datum arg, int cache, uint32 hash)
{
    (void)arg;
    (void)cache;
    (void)hash;
    outdated = true;
}

static bool is_one_of(const char *name, const char *const *names, size_t n)
{
    for (size_t i = 0; i < n; i++)
        if (strcmp(name, names[i]) == 0)
            return true;
    return false;
}

static bool is_of_known_extension(Oid function, const char *name)
{
    Oid extension = getExtensionOfObject(ProcedureRelationId, function);
    char *of = OidIsValid(extension) ? get_extension_name(extension) : NULL;
    bool yes = of != NULL && is_one_of(of, known, lengthof(known)) && !is_one_of(name, unlike, lengthof(unlike));

    if (of != NULL)
        pfree(of);
    return yes;
}

static bool is_plpgsql(Oid language)
{
    HeapTuple row = SearchSysCache1(LANGOID, ObjectIdGetDatum(language));
    bool yes = HeapTupleIsValid(row) && strcmp(NameStr(((Form_pg_language)GETSTRUCT(row))->lanname), "plpgsql") == 0;

    if (HeapTupleIsValid(row))
        ReleaseSysCache(row);
    return yes;
}

/* What is written in SQL and PL/pgSQL does what it does by statements and PostgreSQL's own functions, which are seen. */
static bool judge(Oid function)
{
    HeapTuple row = SearchSysCache1(PROCOID, ObjectIdGetDatum(function));
    const FormData_pg_proc *f;
    bool leaves;

    if (!HeapTupleIsValid(row))
        return false; /* the caller says that it is not there */
    f = (Form_pg_proc)GETSTRUCT(row);
    if (strcmp(NameStr(f->proname), "set_config") == 0)
        leaves = true; /* the router would take it for PostgreSQL's own */
    else if (f->prolang == ClanguageId || f->prolang == INTERNALlanguageId)
        leaves = !is_of_known_extension(function, NameStr(f->proname));
    else
        leaves = f->prolang != SQLlanguageId && !is_plpgsql(f->prolang);
    ReleaseSysCache(row);
    return leaves;
}

bool hf_guard_function_leaves(Oid function)
{
    struct verdict *v;
    bool found, leaves;

    if (function < FirstNormalObjectId)
        return false;
    if (verdicts == NULL) {
        HASHCTL how = {.keysize = sizeof(Oid), .entrysize = sizeof(struct verdict)};
        verdicts = hash_create("holdfast: functions", 64, &how, HASH_ELEM | HASH_BLOBS);
        CacheRegisterSyscacheCallback(PROCOID, forget_verdicts, (Datum)0);
        CacheRegisterSyscacheCallback(LANGOID, forget_verdicts, (Datum)0);
    }
    if (outdated || hash_get_num_entries(verdicts) >= FUNCTIONS_MAX) {
        HASH_SEQ_STATUS all;
        hash_seq_init(&all, verdicts);
        while ((v = hash_seq_search(&all)) != NULL)
            (void)hash_search(verdicts, &v->function, HASH_REMOVE, NULL);
        outdated = false;
    }
    v = hash_search(verdicts, &function, HASH_FIND, NULL);
    if (v != NULL)
        return v->leaves;
    leaves = judge(function); /* which may have found that all of this is out of date */
    v = hash_search(verdicts, &function, HASH_ENTER, &found);
    v->leaves = leaves;
    return leaves;
}
