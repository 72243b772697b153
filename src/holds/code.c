#include "holds/code.h"

#include <stdlib.h>
#include <string.h>

struct named {
    uint32_t hash;
    enum hf_code_leaves leaves;
};

struct hf_code {
    enum hf_code_leaves unnamed, worst;
    size_t n;
    struct named names[]; /* by hash; of one hash the worst first */
};

/* How the query goes, by its parts:
 *
 * - fn: functions that are not PostgreSQL's own, with their source. set_config(.., true) is of the
 *   transaction, so it is taken out.
 *
 * - trusted: C functions of extensions that are known to leave nothing in a session. Not in the
 * list are, for example, dblink (connections), isn (isn_weak), tablefunc and xml2 (run SQL given as
 * text).
 *
 * - own: functions that leave something by their own words. At the beginning of a statement, which
 * is after ";", a keyword or a comment: SET (not LOCAL), RESET... An unknown language, and EXECUTE,
 * can do anything.
 *
 * - noisy: those, and those that have the name of such a one in their source, or are made of it
 *   (aggregates).
 *
 * - implicit: what runs without being named. That is what depends on such a function and is no
 *   function, and expressions of views, rules, defaults and so on that call one of PostgreSQL's own
 * that leaves something. */
/* clang-format off: lines of SQL */
static const char query[] =
    "WITH RECURSIVE fn AS (SELECT p.oid, p.proname::text AS name, l.lanname::text AS lang,"
    " p.proconfig::text AS config,"
    " pg_catalog.regexp_replace(pg_catalog.lower(CASE WHEN p.prosrc = '' AND p.prokind IN ('f', "
    "'p')"
    " THEN pg_catalog.pg_get_functiondef(p.oid) ELSE p.prosrc END),"
    " 'set_config\\s*\\([^()]*,\\s*true\\s*\\)', '', 'g') AS src"
    " FROM pg_catalog.pg_proc p JOIN pg_catalog.pg_language l ON l.oid = p.prolang WHERE p.oid >= "
    "16384),"
    " trusted AS (SELECT d.objid FROM pg_catalog.pg_depend d JOIN pg_catalog.pg_extension e ON "
    "e.oid = d.refobjid"
    " WHERE d.classid = 'pg_catalog.pg_proc'::regclass AND d.refclassid = "
    "'pg_catalog.pg_extension'::regclass"
    " AND d.deptype = 'e' AND e.extname IN ('amcheck', 'bloom', 'btree_gin', 'btree_gist', "
    "'citext', 'cube', 'dict_int',"
    " 'dict_xsyn', 'earthdistance', 'file_fdw', 'fuzzystrmatch', 'hstore', 'insert_username', "
    "'intagg', 'intarray', 'lo',"
    " 'ltree', 'moddatetime', 'pageinspect', 'pg_buffercache', 'pg_freespacemap', 'pg_prewarm', "
    "'pg_stat_statements',"
    " 'pg_visibility', 'pgcrypto', 'pgrowlocks', 'pgstattuple', 'plpgsql', 'postgres_fdw', 'seg', "
    "'sslinfo', 'tcn',"
    " 'tsm_system_rows', 'tsm_system_time', 'unaccent', 'uuid-ossp')),"
    " own AS (SELECT oid, name, CASE"
    " WHEN lang NOT IN ('internal', 'c', 'sql', 'plpgsql') OR (lang = 'c' AND oid NOT IN (SELECT "
    "objid FROM trusted)) THEN 2"
    " WHEN lang <> 'c' AND (src ~ "
    "'\\m(execute|set_config|setseed|dblink|query_to_xml|cursor_to_xml|ts_stat|ts_rewrite"
    "|isn_weak|set_limit|update\\s+(only\\s+)?(pg_catalog\\s*\\.\\s*)?\"?pg_settings|pg_(create|copy)_(logical|physical)_replication_slot|pg_replication_"
    "origin_session"
    "|pg_start_backup|pg_stop_backup|pg_backup_start|pg_backup_stop)'"
    " OR src ~ "
    "'(^|;|\\mbegin\\M|\\matomic\\M|\\mthen\\M|\\melse\\M|\\mloop\\M|>>|\\*/|--[^\\n]*\\n)"
    "(\\s|--[^\\n]*\\n|/\\*.*?\\*/"
    ")*(set\\s+(?!local\\M)|reset\\s|load\\s|discard\\s|prepare\\s|deallocate\\s)') THEN 2"
    " WHEN lang <> 'c' AND src ~ "
    "'advisory_(un)?lock|\\mtemp(orary)?\\M|pg_temp|with\\s+hold|\\m(un)?listen\\M' THEN 1"
    " WHEN config ~ 'search_path=[^,]*pg_temp' THEN 1"
    " ELSE 0 END AS leaves FROM fn),"
    " noisy AS (SELECT oid, name, leaves FROM own WHERE leaves > 0"
    " UNION SELECT f.oid, f.name, n.leaves FROM fn f JOIN noisy n ON f.oid <> n.oid AND ((f.lang "
    "<> 'c'"
    " AND pg_catalog.strpos(f.src, pg_catalog.lower(n.name)) > 0) OR EXISTS (SELECT FROM "
    "pg_catalog.pg_depend d"
    " WHERE d.classid = 'pg_catalog.pg_proc'::regclass AND d.objid = f.oid AND d.refobjid = n.oid"
    " AND d.refclassid = 'pg_catalog.pg_proc'::regclass))),"
    " builtin AS (SELECT ':(funcid|opfuncid|aggfnoid|winfnoid) (' || "
    "pg_catalog.string_agg(p.oid::text, '|') || ') ' AS re"
    " FROM pg_catalog.pg_proc p WHERE p.oid < 16384 AND p.proname ~ "
    "('^(set_config|setseed|pg_(try_)?advisory_(un)?lock"
    "(_all|_shared)?|query_to_xml.*|cursor_to_xml.*|ts_stat|ts_rewrite|pg_(create|copy)_(logical|"
    "physical)_replication_slot"
    "|pg_replication_origin_session_(setup|reset)|pg_start_backup|pg_stop_backup|pg_backup_start|"
    "pg_backup_stop)$')),"
    " tree AS (SELECT ev_action::text AS t FROM pg_catalog.pg_rewrite WHERE oid >= 16384"
    " UNION ALL SELECT adbin::text FROM pg_catalog.pg_attrdef"
    " UNION ALL SELECT pg_catalog.concat(polqual::text, polwithcheck::text) FROM "
    "pg_catalog.pg_policy"
    " UNION ALL SELECT conbin::text FROM pg_catalog.pg_constraint WHERE oid >= 16384 AND conbin IS "
    "NOT NULL"
    " UNION ALL SELECT pg_catalog.concat(indexprs::text, indpred::text) FROM pg_catalog.pg_index"
    " WHERE indexrelid >= 16384 AND (indexprs IS NOT NULL OR indpred IS NOT NULL)"
    " UNION ALL SELECT tgqual::text FROM pg_catalog.pg_trigger WHERE tgqual IS NOT NULL"
    " UNION ALL SELECT typdefaultbin::text FROM pg_catalog.pg_type WHERE oid >= 16384 AND "
    "typdefaultbin IS NOT NULL"
    " UNION ALL SELECT proargdefaults::text FROM pg_catalog.pg_proc WHERE oid >= 16384 AND "
    "proargdefaults IS NOT NULL"
    " UNION ALL SELECT ':funcid ' || oprcode::oid::text || ' ' FROM pg_catalog.pg_operator WHERE "
    "oid >= 16384"
    " UNION ALL SELECT ':funcid ' || castfunc::text || ' ' FROM pg_catalog.pg_cast WHERE oid >= "
    "16384"
    " UNION ALL SELECT ':funcid ' || aggtransfn::oid::text || ' :funcid ' || aggfinalfn::oid::text "
    "|| ' '"
    " FROM pg_catalog.pg_aggregate WHERE aggfnoid::oid >= 16384),"
    " implicit AS (SELECT n.leaves FROM noisy n JOIN pg_catalog.pg_depend d ON d.refobjid = n.oid"
    " AND d.refclassid = 'pg_catalog.pg_proc'::regclass AND d.classid NOT IN "
    "('pg_catalog.pg_proc'::regclass,"
    " 'pg_catalog.pg_extension'::regclass, 'pg_catalog.pg_foreign_data_wrapper'::regclass)"
    " UNION ALL SELECT 2 FROM tree, builtin WHERE t ~ re"
    " UNION ALL SELECT 1 FROM pg_catalog.pg_db_role_setting WHERE setconfig::text ~ "
    "'search_path=[^,]*pg_temp')"
    " SELECT pg_catalog.concat(COALESCE((SELECT pg_catalog.max(leaves) FROM implicit), 0), ':',"
    " (SELECT pg_catalog.string_agg(DISTINCT pg_catalog.encode(pg_catalog.convert_to(name, "
    "pg_catalog.getdatabaseencoding()), 'hex')"
    " || '=' || leaves, ',') FROM noisy), '.')";
/* clang-format on */

const char *hf_code_query(void)
{
    return query;
}

static int hex(char c)
{
    return c >= '0' && c <= '9' ? c - '0' : c >= 'a' && c <= 'f' ? c - 'a' + 10 : -1;
}

/* "6162=1" from *p on. */
static bool read_name(const char **p, const char *end, struct named *out)
{
    char name[64];
    size_t len = 0;

    while (end - *p >= 2 && **p != '=') {
        int high = hex((*p)[0]), low = hex((*p)[1]);
        if (high < 0 || low < 0 || len == sizeof name)
            return false;
        name[len++] = (char)(high * 16 + low);
        *p += 2;
    }
    if (end - *p < 2 || len == 0 || **p != '=' || ((*p)[1] != '1' && (*p)[1] != '2'))
        return false;
    out->hash = hf_sql_hash(name, len);
    out->leaves = (*p)[1] == '1' ? HF_CODE_VISIBLE : HF_CODE_HIDDEN;
    *p += 2;
    return true;
}

static int by_hash(const void *a, const void *b)
{
    const struct named *x = a, *y = b;

    if (x->hash != y->hash)
        return x->hash < y->hash ? -1 : 1;
    return (int)y->leaves - (int)x->leaves;
}

int hf_code_read(struct hf_code **out, const char *value, size_t len)
{
    const char *p = value, *end = value + len;
    struct hf_code *c;
    size_t most = 1;

    *out = NULL;
    if (len < 3 || p[0] < '0' || p[0] > '2' || p[1] != ':' || end[-1] != '.')
        return HF_EINVAL;
    for (size_t i = 0; i < len; i++)
        most += value[i] == ',';
    c = calloc(1, sizeof *c + most * sizeof *c->names);
    if (c == NULL)
        return HF_ENOMEM;
    c->unnamed = c->worst = (enum hf_code_leaves)(p[0] - '0');
    end--;
    for (p += 2; p < end;) {
        struct named *n = &c->names[c->n];
        if (!read_name(&p, end, n) || (p < end && *p++ != ',')) {
            free(c);
            return HF_EINVAL;
        }
        c->n++;
        if (n->leaves > c->worst)
            c->worst = n->leaves;
    }
    qsort(c->names, c->n, sizeof *c->names, by_hash);
    *out = c;
    return 0;
}

void hf_code_free(struct hf_code *c)
{
    free(c);
}

enum hf_code_leaves hf_code_unnamed(const struct hf_code *c)
{
    return c->unnamed;
}

enum hf_code_leaves hf_code_worst(const struct hf_code *c)
{
    return c->worst;
}

/* By the word with this hash. */
static enum hf_code_leaves leaves_of(const struct hf_code *c, uint32_t hash)
{
    size_t low = 0, high = c->n;

    while (low < high) {
        size_t middle = low + (high - low) / 2;
        if (c->names[middle].hash < hash)
            low = middle + 1;
        else
            high = middle;
    }
    return low < c->n && c->names[low].hash == hash ? c->names[low].leaves : HF_CODE_NOTHING;
}

enum hf_code_leaves hf_code_named(const struct hf_code *c, const struct hf_sql *q)
{
    enum hf_code_leaves worst = HF_CODE_NOTHING;
    size_t n;
    const uint32_t *words = hf_sql_words(q, &n);

    if (words == NULL)
        return c->worst;
    for (size_t i = 0; i < n; i++) {
        enum hf_code_leaves leaves = leaves_of(c, words[i]);
        if (leaves > worst)
            worst = leaves;
    }
    return worst;
}
