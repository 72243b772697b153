/* What a statement does, by PostgreSQL's own grammar. libpg_query gives the raw parse tree as JSON:
 * each node is an object with one member, named after the node's type. */
#include <jansson.h>
#include <pg_query.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "holds/sql_private.h"

#define BIT(hold) HF_HOLD_BIT(HF_HOLD_##hold)

static const char *text_of(const json_t *o, const char *key)
{
    const char *s = json_string_value(json_object_get(o, key));

    return s != NULL ? s : "";
}

static bool is(const char *a, const char *b)
{
    return strcmp(a, b) == 0;
}

static bool set_name(struct hf_sql_statement *s, const char *name, bool lower)
{
    char *copy = strdup(name);

    if (copy == NULL)
        return false;
    for (char *p = copy; lower && *p != '\0'; p++)
        if (*p >= 'A' && *p <= 'Z')
            *p = (char)(*p - 'A' + 'a');
    free((char *)s->name);
    s->name = copy;
    return true;
}

/* -- set_config() alone ------------------------------------------------------------------------ */

static const json_t *constant(const json_t *node, bool *param)
{
    const json_t *cast = json_object_get(node, "TypeCast");

    if (cast != NULL)
        node = json_object_get(cast, "arg");
    *param = json_object_get(node, "ParamRef") != NULL;
    return json_object_get(node, "A_Const");
}

/* 1, 0; -1: no constant. */
static int boolean(const json_t *node)
{
    bool param;
    const json_t *c = constant(node, &param), *b = json_object_get(c, "boolval");
    const char *s = text_of(json_object_get(c, "sval"), "sval");

    if (b != NULL)
        return json_is_true(json_object_get(b, "boolval")) ? 1 : 0;
    if (is(s, "t") || is(s, "true"))
        return 1;
    return is(s, "f") || is(s, "false") ? 0 : -1;
}

/* Is it set_config('name', value, true or false), with nothing in it that has to be computed? */
static bool is_set_config(const json_t *target, const char **name, int *local)
{
    const json_t *call =
        json_object_get(json_object_get(json_object_get(target, "ResTarget"), "val"), "FuncCall");
    const json_t *names = json_object_get(call, "funcname"), *args = json_object_get(call, "args");
    size_t n = json_array_size(names);
    const json_t *first = json_object_get(json_array_get(names, 0), "String"), *c;
    bool param;

    if (n < 1 || n > 2 || json_array_size(args) != 3 ||
        (n == 2 && !is(text_of(first, "sval"), "pg_catalog")) ||
        !is(text_of(json_object_get(json_array_get(names, n - 1), "String"), "sval"), "set_config"))
        return false;
    c = constant(json_array_get(args, 0), &param);
    *name = text_of(json_object_get(c, "sval"), "sval");
    *local = boolean(json_array_get(args, 2));
    return (*name)[0] != '\0' && *local >= 0 &&
           (constant(json_array_get(args, 1), &param) != NULL || param);
}

/* 1: it is, 0: not, -1: out of memory. */
static int set_configs(struct hf_sql_statement *s, const json_t *select)
{
    const json_t *targets = json_object_get(select, "targetList");
    const char *key, *name = "";
    size_t n = json_array_size(targets);
    json_t *v;
    int local = 1, all = 1;

    json_object_foreach((json_t *)select, key, v) if (!is(key, "targetList") &&
                                                      !is(key, "limitOption") &&
                                                      !is(key, "op")) return 0;
    if (!is(text_of(select, "op"), "SETOP_NONE") || n == 0)
        return 0;
    for (size_t i = 0; i < n; i++) {
        if (!is_set_config(json_array_get(targets, i), &name, &local))
            return 0;
        all &= local;
    }
    if (all == 0 && n > 1)
        return 0;
    s->kind = all != 0 ? HF_SQL_SET_LOCAL : HF_SQL_SET_CONFIG;
    if (!set_name(s, name, true))
        return -1;
    s->parses = hf_sql_setting_parses(s->name) || n > 1;
    s->configs = (uint32_t)n;
    s->writes = false;
    return 1;
}

/* -- by type of statement ---------------------------------------------------------------------- */

static bool transaction(struct hf_sql_statement *s, const json_t *o)
{
    static const struct {
        const char *name;
        enum hf_sql_kind kind;
        bool writes;
    } kinds[] = {
        {"BEGIN", HF_SQL_BEGIN, false},
        {"START", HF_SQL_BEGIN, false},
        {"COMMIT", HF_SQL_COMMIT, true},
        {"ROLLBACK", HF_SQL_ROLLBACK, false},
        {"SAVEPOINT", HF_SQL_SAVEPOINT, false},
        {"RELEASE", HF_SQL_RELEASE, false},
        {"ROLLBACK_TO", HF_SQL_ROLLBACK_TO, false},
        {"PREPARE", HF_SQL_COMMIT, true}, /* it is prepared though nothing was written */
        {"COMMIT_PREPARED", HF_SQL_QUERY, true},
        {"ROLLBACK_PREPARED", HF_SQL_QUERY, true},
    };
    const char *kind = text_of(o, "kind") + strlen("TRANS_STMT_");
    const json_t *options = json_object_get(o, "options"), *v;
    size_t k;

    s->writes = false;
    for (size_t i = 0; i < sizeof kinds / sizeof *kinds; i++) {
        if (!is(kind, kinds[i].name))
            continue;
        s->kind = kinds[i].kind;
        s->writes = kinds[i].writes;
        s->commits = is(kind, "PREPARE");
        s->chain = json_is_true(json_object_get(o, "chain"));
        json_array_foreach(options, k, v)
        {
            const json_t *e = json_object_get(v, "DefElem");
            if (is(text_of(e, "defname"), "transaction_read_only"))
                s->read_only =
                    json_integer_value(json_object_get(
                        json_object_get(json_object_get(json_object_get(e, "arg"), "A_Const"),
                                        "ival"),
                        "ival")) == 1;
        }
        return set_name(s, text_of(o, "savepoint_name"), false);
    }
    s->pins = BIT(UNKNOWN);
    return true;
}

/* SET DateStyle = 'DMY' keeps the style, and = 'ISO' the order of days and months; SESSION CHARACTERISTICS keeps what it does not name.
 * So only what says the same parts replaces it: they are a part of the name. */
static bool name_parts(struct hf_sql_statement *s, const json_t *args)
{
    const json_t *v;
    size_t k;

    json_array_foreach(args, k, v)
    {
        const char *option = text_of(json_object_get(v, "DefElem"), "defname"),
                   *value = text_of(json_object_get(json_object_get(v, "A_Const"), "sval"), "sval");
        size_t len = strlen(s->name) + 1 + strlen(option) + strlen(value) + 1;
        char *longer = malloc(len);
        bool ok = longer != NULL;
        if (ok) {
            (void)snprintf(longer, len, "%s %s%s", s->name, option, value);
            ok = set_name(s, longer, true);
        }
        free(longer);
        if (!ok)
            return false;
    }
    return true;
}

static bool variable(struct hf_sql_statement *s, const json_t *o)
{
    const char *kind = text_of(o, "kind"), *name = text_of(o, "name");
    bool multi = is(kind, "VAR_SET_MULTI");

    s->writes = false;
    s->kind = json_is_true(json_object_get(o, "is_local")) ? HF_SQL_SET_LOCAL : HF_SQL_SET;
    if (is(kind, "VAR_RESET_ALL")) {
        s->kind = HF_SQL_RESET_ALL;
        return true;
    }
    if (strncmp(name, "TRANSACTION", 11) == 0 && multi)
        name = "transaction";
    if (!set_name(s, name, true))
        return false;
    /* These are of the transaction, however they are set. */
    if (hf_sql_is_of_transaction(s->name))
        s->kind = HF_SQL_SET_LOCAL;
    else if (is(s->name, "seed"))
        s->kind = HF_SQL_SET_LOCAL; /* and no setting that could be made again */
    if (is(kind, "VAR_SET_CURRENT"))
        s->pins = BIT(SETTING); /* to what it happens to be */
    if (is(s->name, "standard_conforming_strings"))
        s->pins = BIT(UNKNOWN); /* what comes then is read in another way */
    s->parses = hf_sql_setting_parses(s->name);
    if (s->kind == HF_SQL_SET && (multi || (is(s->name, "datestyle") && is(kind, "VAR_SET_VALUE"))))
        return name_parts(s, json_object_get(o, "args"));
    return true;
}

static bool discard(struct hf_sql_statement *s, const json_t *o)
{
    const char *target = text_of(o, "target");

    s->writes = false;
    s->kind = is(target, "DISCARD_ALL") ? HF_SQL_DISCARD_ALL : HF_SQL_NONE;
    return true;
}

static bool deallocate(struct hf_sql_statement *s, const json_t *o)
{
    const char *name = text_of(o, "name");

    s->writes = false;
    s->kind = name[0] != '\0' ? HF_SQL_DEALLOCATE : HF_SQL_DEALLOCATE_ALL;
    return set_name(s, name, false);
}

static bool prepare(struct hf_sql_statement *s, const json_t *o)
{
    s->kind = HF_SQL_PREPARE;
    return set_name(s, text_of(o, "name"), false);
}

static bool execute(struct hf_sql_statement *s, const json_t *o)
{
    s->kind = HF_SQL_EXECUTE;
    return set_name(s, text_of(o, "name"), false);
}

static bool none(struct hf_sql_statement *s, const json_t *o)
{
    (void)o;
    s->writes = false;
    s->kind = HF_SQL_NONE;
    return true;
}

static bool query(struct hf_sql_statement *s, const json_t *o)
{
    (void)s;
    (void)o;
    return true;
}

static bool select_(struct hf_sql_statement *s, const json_t *o)
{
    return set_configs(s, o) >= 0;
}

/* What makes, changes, calls and does other things. */
static bool other(struct hf_sql_statement *s, const json_t *o)
{
    (void)o;
    s->commits = true;
    return true;
}

static const struct {
    const char *node;
    bool (*fill)(struct hf_sql_statement *s, const json_t *o); /* false: out of memory */
} types[] = {
    {"SelectStmt", select_},
    {"InsertStmt", query},
    {"UpdateStmt", query},
    {"DeleteStmt", query},
    {"MergeStmt", query},
    {"CopyStmt", query},
    {"FetchStmt", query},
    {"ExplainStmt", query},
    {"TruncateStmt", query},
    {"NotifyStmt", query},
    {"LockStmt", query},
    {"ConstraintsSetStmt", query},
    {"RefreshMatViewStmt", query},
    {"TransactionStmt", transaction},
    {"VariableSetStmt", variable},
    {"VariableShowStmt", none},
    {"DiscardStmt", discard},
    {"DeallocateStmt", deallocate},
    {"PrepareStmt", prepare},
    {"ExecuteStmt", execute},
    {"ListenStmt", none},
    {"UnlistenStmt", none},
    {"ClosePortalStmt", none},
    {"LoadStmt", none},
    {"DeclareCursorStmt", query},
    {"DropStmt", query},
};

static bool fill(struct hf_sql_statement *s, const char *node, const json_t *o)
{
    s->kind = HF_SQL_QUERY;
    s->writes = true;
    for (size_t i = 0; i < sizeof types / sizeof *types; i++)
        if (is(node, types[i].node))
            return types[i].fill(s, o);
    return other(s, o);
}

static enum hf_sql_look statements(struct hf_sql *q, const json_t *all)
{
    const json_t *v;
    size_t i;

    json_array_foreach(all, i, v)
    {
        json_t *stmt = json_object_get(v, "stmt");
        const char *node = json_object_iter_key(json_object_iter(stmt));
        json_int_t at = json_integer_value(json_object_get(v, "stmt_location")),
                   len = json_integer_value(json_object_get(v, "stmt_len"));
        struct hf_sql_statement *s;
        if (q->n == HF_SQL_STATEMENTS_MAX || node == NULL || at < 0 || len < 0 || (size_t)at + (size_t)len > q->len)
            return HF_LOOK_ODD;
        s = hf_sql_add(q);
        if (s == NULL)
            return HF_LOOK_NOMEM;
        s->at = (uint32_t)at;
        s->len = len != 0 ? (uint32_t)len : (uint32_t)(q->len - (size_t)at);
        if (!fill(s, node, json_object_get(stmt, node)))
            return HF_LOOK_NOMEM;
    }
    return HF_LOOK_DONE;
}

enum hf_sql_look hf_sql_parse(struct hf_sql *q)
{
    PgQueryParseResult r = pg_query_parse(q->text);
    enum hf_sql_look look = HF_LOOK_ODD;
    json_t *tree = NULL;

    if (r.error == NULL && r.parse_tree != NULL)
        tree = json_loads(r.parse_tree, 0, NULL);
    pg_query_free_parse_result(r);
    if (tree != NULL)
        look = statements(q, json_object_get(tree, "stmts"));
    json_decref(tree);
    return look;
}
