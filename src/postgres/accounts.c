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

/* Whose password was set to what by us. As long as the credentials say the same, a role is its administrators': its password, NOLOGIN,
 * that it is gone. The verifier is there for that alone, and is good for no login once another is set. */
static const char record_sql[] = "create schema if not exists holdfast;"
                                 " create table if not exists holdfast.accounts (role name primary key, verifier text not null);"
                                 " revoke all on holdfast.accounts from public";

static int fits(struct hf_pg *pg, PGconn *conn, const char *sql, const char *password, bool *yes, struct hf_error *err)
{
    char text[HF_SCRAM_VERIFIER_MAX];
    struct hf_scram_verifier v;
    int code = ask(pg, conn, sql, text, sizeof text, err);

    *yes = code == 0 && hf_scram_verifier_parse(&v, text) && hf_scram_verifier_fits(&v, password);
    return code;
}

static int is_made(struct hf_pg *pg, PGconn *conn, const char *literal, const char *password, bool *made, struct hf_error *err)
{
    char sql[SQL_MAX];

    (void)snprintf(sql, sizeof sql, "select verifier from holdfast.accounts where role = %s", literal);
    return fits(pg, conn, sql, password, made, err);
}

/* Has it this password already? To set the same again would change the salt: who is logging in just then would be refused,
 * and keys that routers hold for clients' sessions would be good no more. */
static int has_password(struct hf_pg *pg, PGconn *conn, const char *literal, const char *password, bool *has,
                        struct hf_error *err)
{
    char sql[SQL_MAX];

    (void)snprintf(sql, sizeof sql, "select coalesce(rolpassword, '') from pg_authid where rolname = %s", literal);
    return fits(pg, conn, sql, password, has, err);
}

/* One transaction: what is made is recorded. */
static int make_role(struct hf_pg *pg, PGconn *conn, const char *role, const char *password, bool admin, struct hf_error *err)
{
    char *ident = PQescapeIdentifier(conn, role, strlen(role));
    char *literal = PQescapeLiteral(conn, role, strlen(role));
    char *secret = PQescapeLiteral(conn, password, strlen(password));
    char sql[SQL_MAX], there[8] = "";
    bool made = false, same = false;
    int code = ident != NULL && literal != NULL && secret != NULL
                   ? 0
                   : hf_fail(err, HF_EINVAL, "a role's name or password is not valid UTF-8");

    if (code == 0)
        code = is_made(pg, conn, literal, password, &made, err);
    if (code == 0 && !made) {
        (void)snprintf(sql, sizeof sql, "select 1 from pg_roles where rolname = %s", literal);
        code = ask(pg, conn, sql, there, sizeof there, err);
    }
    if (code == 0 && there[0] != '\0')
        code = has_password(pg, conn, literal, password, &same, err);
    if (code == 0 && !made) {
        int n = snprintf(sql, sizeof sql,
                         "%s role %s login %s %s %s; %s%s%s insert into holdfast.accounts"
                         " select rolname, rolpassword from pg_authid where rolname = %s"
                         " on conflict (role) do update set verifier = excluded.verifier",
                         there[0] == '\0' ? "create" : "alter", ident, admin ? "createrole createdb" : "", same ? "" : "password",
                         same ? "" : secret, admin ? "grant pg_monitor to " : "", admin ? ident : "", admin ? ";" : "", literal);
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

/* Not for a role that has been dropped since. */
static int make_database(struct hf_pg *pg, PGconn *conn, const char *database, const char *owner,
                         struct hf_error *err)
{
    char *name = PQescapeIdentifier(conn, database, strlen(database));
    char *literal = PQescapeLiteral(conn, database, strlen(database));
    char *role = PQescapeIdentifier(conn, owner, strlen(owner));
    char *owned_by = PQescapeLiteral(conn, owner, strlen(owner));
    char sql[SQL_MAX], there[8] = "";
    int code = name != NULL && literal != NULL && role != NULL && owned_by != NULL
                   ? 0
                   : hf_fail(err, HF_EINVAL, "the database's name is not valid UTF-8");

    if (code == 0) {
        (void)snprintf(sql, sizeof sql, "select 1 from pg_database where datname = %s or not exists (select from pg_roles where rolname = %s)",
                       literal, owned_by);
        code = ask(pg, conn, sql, there, sizeof there, err);
    }
    if (code == 0 && there[0] == '\0') {
        (void)snprintf(sql, sizeof sql, "create database %s owner %s", name, role);
        code = hf_pg_command(pg, conn, sql, ADMIN_MS, err);
    }
    PQfreemem(name);
    PQfreemem(literal);
    PQfreemem(role);
    PQfreemem(owned_by);
    return code;
}

/* template1 too, so that databases made later have it. Not those made from template0, which takes no
 * connections: there the guard has to do, with which neither function cuts a wait short (S11). A database that cannot be changed is no
 * reason to leave out the others; nor is one that a crash has left half dropped (dbcommands.c: an invalid one). */
static int revoke_everywhere(struct hf_pg *pg, PGconn *conn, struct hf_error *err)
{
    static const char *const revoke[] = {
        "revoke execute on function pg_catalog.pg_cancel_backend(integer) from public",
        "revoke execute on function pg_catalog.pg_terminate_backend from public",
    };
    PGresult *r = hf_pg_query(pg, conn, "select datname from pg_database where datallowconn and datconnlimit <> -2", ADMIN_MS, err);
    int code = r == NULL ? HF_EPG : 0;

    for (int i = 0; r != NULL && i < PQntuples(r) && i < DATABASES_MAX; i++) {
        int failed = run_in(pg, PQgetvalue(r, i, 0), revoke, 2, err);
        code = failed != 0 ? failed : code;
    }
    PQclear(r);
    return code;
}

int hf_pg_make_accounts(struct hf_pg *pg, const struct hf_pg_accounts *a, struct hf_error *err)
{
    PGconn *conn = hf_pg_connect(pg, "postgres", "holdfast admin", HF_PG_CONNECT_MS, err);
    int code;

    if (conn == NULL)
        return HF_EPG;
    code = hf_pg_command(pg, conn, "set synchronous_commit = on; set client_min_messages = warning", HF_PG_QUERY_MS, err);
    if (code == 0)
        code = hf_pg_command(pg, conn, record_sql, ADMIN_MS, err);
    if (code == 0)
        code = make_role(pg, conn, a->app_role, a->app_password, false, err);
    if (code == 0 && a->admin_role != NULL)
        code = make_role(pg, conn, a->admin_role, a->admin_password, true, err);
    if (code == 0)
        code = make_database(pg, conn, a->app_database, a->app_role, err);
    if (code == 0)
        code = revoke_everywhere(pg, conn, err);
    PQfinish(conn);
    return code;
}
