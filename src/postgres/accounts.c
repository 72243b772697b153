/* Roles and database of a new cluster, and what PUBLIC must not do (S11). */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/scram.h"
#include "postgres/private.h"

enum { ADMIN_MS = 60000, SQL_MAX = 2048, DATABASES_MAX = 1000 };

/* Each statement in a transaction of its own, as the superuser. Stops at the first error. */
static int run_in(struct hf_pg *pg, const char *dbname, const char *const *sql, unsigned n, struct hf_error *err)
{
    PGconn *conn = hf_pg_connect(pg, dbname, "holdfast admin", HF_PG_CONNECT_MS, err);
    int code;

    if (conn == NULL)
        return HF_EPG;
    code = hf_pg_command(pg, conn, "set synchronous_commit = on", HF_PG_QUERY_MS, err);
    for (unsigned i = 0; code == 0 && i < n; i++)
        code = hf_pg_command(pg, conn, sql[i], ADMIN_MS, err);
    PQfinish(conn);
    return code;
}

/* One value for a statement with one row, "" without. */
static int ask(struct hf_pg *pg, PGconn *conn, const char *sql, char *out, size_t cap,
               struct hf_error *err)
{
    PGresult *r = hf_pg_query(pg, conn, sql, ADMIN_MS, err);

    if (r == NULL)
        return HF_EPG;
    (void)snprintf(out, cap, "%s", PQntuples(r) > 0 ? PQgetvalue(r, 0, 0) : "");
    PQclear(r);
    return 0;
}

/* Has it this password already? To set the same again would change the salt: who is logging in just then would be refused,
 * and keys that routers hold for clients' sessions would be good no more. */
static int has_password(struct hf_pg *pg, PGconn *conn, const char *literal, const char *password, bool *has,
                        struct hf_error *err)
{
    char sql[SQL_MAX], text[HF_SCRAM_VERIFIER_MAX];
    struct hf_scram_verifier v;
    int code;

    (void)snprintf(sql, sizeof sql, "select coalesce(rolpassword, '') from pg_authid where rolname = %s", literal);
    code = ask(pg, conn, sql, text, sizeof text, err);
    *has = code == 0 && hf_scram_verifier_parse(&v, text) && hf_scram_verifier_fits(&v, password);
    return code;
}

static int make_role(struct hf_pg *pg, PGconn *conn, const char *role, const char *password,
                     const char *attributes, struct hf_error *err)
{
    char *ident = PQescapeIdentifier(conn, role, strlen(role));
    char *literal = PQescapeLiteral(conn, role, strlen(role));
    char *secret = PQescapeLiteral(conn, password, strlen(password));
    char sql[SQL_MAX], there[8] = "";
    bool same = false;
    int code = ident != NULL && literal != NULL && secret != NULL
                   ? 0
                   : hf_fail(err, HF_EINVAL, "a role's name or password is not valid UTF-8");

    if (code == 0) {
        (void)snprintf(sql, sizeof sql, "select 1 from pg_roles where rolname = %s", literal);
        code = ask(pg, conn, sql, there, sizeof there, err);
    }
    if (code == 0 && there[0] != '\0')
        code = has_password(pg, conn, literal, password, &same, err);
    if (code == 0) {
        int n = snprintf(sql, sizeof sql, "%s role %s login %s %s %s", there[0] == '\0' ? "create" : "alter", ident, attributes,
                         same ? "" : "password", same ? "" : secret);
        code = n < (int)sizeof sql
                   ? hf_pg_command(pg, conn, sql, ADMIN_MS, err)
                   : hf_fail(err, HF_EINVAL, "a role's name or password is too long");
        /* The statement, with its password, must not end up in a log. */
        if (code != 0 && code != HF_EINVAL)
            (void)hf_fail(err, code, "cannot make role %.60s", role);
    }
    PQfreemem(ident);
    PQfreemem(literal);
    PQfreemem(secret);
    return code;
}

static int make_database(struct hf_pg *pg, PGconn *conn, const char *database, const char *owner,
                         struct hf_error *err)
{
    char *name = PQescapeIdentifier(conn, database, strlen(database));
    char *literal = PQescapeLiteral(conn, database, strlen(database));
    char *role = PQescapeIdentifier(conn, owner, strlen(owner));
    char sql[SQL_MAX], there[8] = "";
    int code = name != NULL && literal != NULL && role != NULL
                   ? 0
                   : hf_fail(err, HF_EINVAL, "the database's name is not valid UTF-8");

    if (code == 0) {
        (void)snprintf(sql, sizeof sql, "select 1 from pg_database where datname = %s", literal);
        code = ask(pg, conn, sql, there, sizeof there, err);
    }
    if (code == 0 && there[0] == '\0') {
        (void)snprintf(sql, sizeof sql, "create database %s owner %s", name, role);
        code = hf_pg_command(pg, conn, sql, ADMIN_MS, err);
    }
    PQfreemem(name);
    PQfreemem(literal);
    PQfreemem(role);
    return code;
}

/* template1 too, so that databases made later have it. Not those made from template0, which takes no
 * connections: there the guard has to do, with which neither function cuts a wait short (S11). */
static int revoke_everywhere(struct hf_pg *pg, PGconn *conn, struct hf_error *err)
{
    static const char *const revoke[] = {
        "revoke execute on function pg_cancel_backend(integer) from public",
        "revoke execute on function pg_terminate_backend from public",
    };
    PGresult *r =
        hf_pg_query(pg, conn, "select datname from pg_database where datallowconn", ADMIN_MS, err);
    int code = r == NULL ? HF_EPG : 0;

    for (int i = 0; code == 0 && i < PQntuples(r) && i < DATABASES_MAX; i++)
        code = run_in(pg, PQgetvalue(r, i, 0), revoke, 2, err);
    PQclear(r);
    return code;
}

int hf_pg_make_accounts(struct hf_pg *pg, const struct hf_pg_accounts *a, struct hf_error *err)
{
    PGconn *conn = hf_pg_connect(pg, "postgres", "holdfast admin", HF_PG_CONNECT_MS, err);
    char sql[SQL_MAX], *admin;
    int code;

    if (conn == NULL)
        return HF_EPG;
    code = hf_pg_command(pg, conn, "set synchronous_commit = on", HF_PG_QUERY_MS, err);
    if (code == 0)
        code = make_role(pg, conn, a->app_role, a->app_password, "", err);
    if (code == 0 && a->admin_role != NULL)
        code = make_role(pg, conn, a->admin_role, a->admin_password, "createrole createdb", err);
    if (code == 0 && a->admin_role != NULL &&
        (admin = PQescapeIdentifier(conn, a->admin_role, strlen(a->admin_role))) != NULL) {
        (void)snprintf(sql, sizeof sql, "grant pg_monitor to %s", admin);
        code = hf_pg_command(pg, conn, sql, ADMIN_MS, err);
        PQfreemem(admin);
    }
    if (code == 0)
        code = make_database(pg, conn, a->app_database, a->app_role, err);
    if (code == 0)
        code = revoke_everywhere(pg, conn, err);
    PQfinish(conn);
    return code;
}
