/* libpq itself, see README.md. */
#include <libpq-fe.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

static void check(int good, const char *what, PGconn *c)
{
    if (good)
        return;
    fprintf(stderr, "%s: %s\n", what, c != NULL ? PQerrorMessage(c) : "");
    exit(1);
}

static PGresult *ask(PGconn *c, const char *sql, ExecStatusType want)
{
    PGresult *r = PQexec(c, sql);

    check(PQresultStatus(r) == want, sql, c);
    return r;
}

static void run(PGconn *c, const char *sql)
{
    PQclear(ask(c, sql, PGRES_COMMAND_OK));
}

static int number(PGconn *c, const char *sql)
{
    PGresult *r = ask(c, sql, PGRES_TUPLES_OK);
    int n = atoi(PQgetvalue(r, 0, 0));

    PQclear(r);
    return n;
}

static void params(PGconn *c)
{
    const char *values[] = {"41", "text"};
    PGresult *r = PQexecParams(c, "SELECT $1::int + 1, $2::text", 2, NULL, values, NULL, NULL, 0);

    check(PQntuples(r) == 1 && strcmp(PQgetvalue(r, 0, 0), "42") == 0, "params", c);
    PQclear(r);
    puts("ok params");
    PQclear(PQprepare(c, "p", "SELECT $1::int * 2", 1, NULL));
    check(PQenterPipelineMode(c) == 1, "pipeline", c);
    for (int i = 0; i < 20; i++) {
        char text[8];
        values[0] = text;
        snprintf(text, sizeof text, "%d", i);
        check(PQsendQueryPrepared(c, "p", 1, values, NULL, NULL, 0) == 1, "send", c);
    }
    check(PQpipelineSync(c) == 1, "sync", c);
    for (int i = 0; i < 20; i++) {
        r = PQgetResult(c);
        check(PQresultStatus(r) == PGRES_TUPLES_OK && atoi(PQgetvalue(r, 0, 0)) == 2 * i, "prepared", c);
        PQclear(r);
        check(PQgetResult(c) == NULL, "one result each", c);
    }
    r = PQgetResult(c);
    check(PQresultStatus(r) == PGRES_PIPELINE_SYNC, "end of pipeline", c);
    PQclear(r);
    check(PQexitPipelineMode(c) == 1, "leave pipeline", c);
    puts("ok prepared");
}

static void transaction(PGconn *c)
{
    run(c, "SET client_min_messages = warning");
    run(c, "DROP TABLE IF EXISTS c_libpq");
    run(c, "CREATE TABLE c_libpq (i int, s text)");
    run(c, "BEGIN");
    run(c, "INSERT INTO c_libpq VALUES (1, 'a')");
    run(c, "ROLLBACK");
    check(number(c, "SELECT count(*) FROM c_libpq") == 0, "rolled back", c);
    run(c, "INSERT INTO c_libpq VALUES (1, 'a')");
    puts("ok transaction");
}

static void copy(PGconn *c)
{
    char line[128], *out;
    int n = 0;

    PQclear(ask(c, "COPY c_libpq FROM STDIN", PGRES_COPY_IN));
    for (int i = 2; i <= 20000; i++) {
        int len = snprintf(line, sizeof line, "%d\t%099d\n", i, i);
        check(PQputCopyData(c, line, len) == 1, "put", c);
    }
    check(PQputCopyEnd(c, NULL) == 1, "put end", c);
    PQclear(PQgetResult(c));
    check(PQgetResult(c) == NULL, "copy in", c);
    PQclear(ask(c, "COPY (SELECT i FROM c_libpq ORDER BY i) TO STDOUT", PGRES_COPY_OUT));
    while (PQgetCopyData(c, &out, 0) > 0) {
        check(atoi(out) == ++n, "order", c);
        PQfreemem(out);
    }
    check(n == 20000, "copy out", c);
    while (PQgetResult(c) != NULL)
        ;
    puts("ok copy");
}

static void large(PGconn *c)
{
    PGresult *r;
    int n = 0;

    check(PQsendQuery(c, "SELECT i, repeat('x', 1000) FROM generate_series(1, 20000) i") == 1, "send", c);
    check(PQsetSingleRowMode(c) == 1, "single rows", c);
    while ((r = PQgetResult(c)) != NULL) {
        if (PQresultStatus(r) == PGRES_SINGLE_TUPLE)
            check(atoi(PQgetvalue(r, 0, 0)) == ++n && PQgetlength(r, 0, 1) == 1000, "row", c);
        PQclear(r);
    }
    check(n == 20000, "large", c);
    puts("ok large");
}

static void cancel(PGconn *c)
{
    PGcancel *how = PQgetCancel(c);
    char err[256];
    PGresult *r;

    check(PQsendQuery(c, "SELECT pg_sleep(30)") == 1, "send", c);
    (void)poll(NULL, 0, 300);
    check(PQcancel(how, err, sizeof err) == 1, err, NULL);
    PQfreeCancel(how);
    r = PQgetResult(c);
    check(strcmp(PQresultErrorField(r, PG_DIAG_SQLSTATE), "57014") == 0, "cancelled", c);
    PQclear(r);
    check(PQgetResult(c) == NULL && number(c, "SELECT 1") == 1, "goes on", c);
    puts("ok cancel");
}

static void notify(PGconn *c)
{
    PGconn *other = PQconnectdb("");
    PGnotify *note = NULL;

    run(c, "LISTEN c_libpq");
    run(other, "NOTIFY c_libpq, 'hello'");
    PQfinish(other);
    for (int i = 0; i < 1000 && note == NULL; i++) {
        struct pollfd p = {.fd = PQsocket(c), .events = POLLIN};
        (void)poll(&p, 1, 10);
        check(PQconsumeInput(c) == 1, "input", c);
        note = PQnotifies(c);
    }
    check(note != NULL && strcmp(note->extra, "hello") == 0, "notify", c);
    PQfreemem(note);
    puts("ok notify");
}

int main(void)
{
    PGconn *c = PQconnectdb("");
    time_t until;
    const char *state;
    PGresult *r;

    setvbuf(stdout, NULL, _IOLBF, 0);
    check(PQstatus(c) == CONNECTION_OK, "connect", c);
    params(c);
    transaction(c);
    copy(c);
    large(c);
    cancel(c);
    notify(c);
    puts("ready");
    (void)getchar();
    r = PQexec(c, "SELECT 1");
    check(PQresultStatus(r) != PGRES_TUPLES_OK, "the session is still there", NULL);
    state = PQresultErrorField(r, PG_DIAG_SQLSTATE);
    /* libpq makes an error of its own for the end of the connection; Holdfast's words come before it. */
    if (state == NULL && strstr(PQerrorMessage(c), "FATAL") != NULL)
        state = "57P01";
    printf("lost %s\n", state != NULL ? state : "08006");
    PQclear(r);
    until = time(NULL) + 15;
    do {
        PQfinish(c);
        c = PQconnectdb("");
        check(time(NULL) <= until, "again", c);
    } while (PQstatus(c) != CONNECTION_OK);
    run(c, "INSERT INTO c_libpq VALUES (0, 'again')");
    PQfinish(c);
    puts("again");
    return 0;
}
