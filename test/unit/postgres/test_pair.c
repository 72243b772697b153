/* A leader and its follower. Timings go to standard output for people; nothing is judged by them.
 */
#include <errno.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

#include "base/clock.h"
#include "fixture.h"
#include "postgres/agent.h"
#include "postgres/private.h"

static struct server a, b;

/* Without the guard, where what a cancelled barrier says is all that saves it (S11); with it: test_guard.c. */
static void make_pair(void)
{
    guard_of_new = HF_PG_GUARD_OFF;
    pair_make(&a, &b);
}

static void end_pair(void)
{
    server_end(&b);
    server_end(&a);
}

static void test_position_equals_the_leaders(void **state)
{
    hf_lsn end, position;
    uint64_t t;

    (void)state;
    make_pair();
    sql_run(&a, "insert into t select generate_series(1, 1000)");
    end = flushed_of(&a);
    relay_open(&b.relay, false);
    t = hf_clock_ns();
    position = job_ok(&b, HF_WORK_POSITION).lsn;
    print_message("position of a follower %.1f ms\n", since_ms(t));
    /* The leader may have written since (running transactions), never less. */
    assert_true(position >= end);
    t = hf_clock_ns();
    assert_true(job_ok(&b, HF_WORK_POSITION).lsn == position); /* held receiver */
    print_message("position again %.1f ms\n", since_ms(t));
    hf_lsn by_files, seen;
    uint32_t timeline;
    assert_int_equal(hf_pg_wal_end(b.pg, &by_files, &timeline, &seen, NULL), 0);
    assert_true(by_files == position && seen == 0); /* S10: the same without SQL */
    assert_int_equal(timeline, 2);
    relay_open(&b.relay, true);
}

/* B has heard of a primary on timeline 7 that came to nothing, and has not a byte of it. It must not go on waiting for
 * that timeline, and would hand down a history that never was if it were promoted (S4). */
static void test_a_timeline_that_came_to_nothing(void **state)
{
    char path[HF_PG_PATH_MAX], from[HF_PG_PATH_MAX], text[4096];
    hf_lsn before;
    struct stat st;
    FILE *f;
    long n;

    (void)state;
    relay_open(&b.relay, false);
    before = job_ok(&b, HF_WORK_POSITION).lsn;
    (void)job_ok(&b, HF_WORK_STOP);
    (void)snprintf(from, sizeof from, "%s/pg_wal/00000002.history", b.pg->data);
    n = hf_pg_read_file(from, text, sizeof text);
    assert_true(n > 0);
    (void)snprintf(path, sizeof path, "%s/pg_wal/00000007.history", b.pg->data);
    f = fopen(path, "w");
    assert_non_null(f);
    assert_int_equal(stat(from, &st), 0);
    assert_int_equal(fchown(fileno(f), st.st_uid, st.st_gid), 0);
    (void)fprintf(f, "%.*s\n2\tF/0\tno recovery target specified\n", (int)n, text);
    assert_int_equal(fclose(f), 0);
    (void)job_ok(&b, HF_WORK_START);
    assert_true(job_ok(&b, HF_WORK_POSITION).lsn == before);
    assert_int_not_equal(access(path, F_OK), 0);
    assert_int_equal(access(from, F_OK), 0);
    relay_open(&b.relay, true);
    sql_run(&a, "create table after_seven ()");
    sql_until(&b, "select count(*) from pg_class where relname = 'after_seven'", "1");
}

/* The disk does not let WAL be read: PostgreSQL takes that for its end, and pg_waldump stops there, too. A position that tells of less than
 * what was acknowledged loses it, so there is none. */
static void test_no_position_without_all_of_wal(void **state)
{
    char name[64], path[HF_PG_PATH_MAX], aside[HF_PG_PATH_MAX + 8];
    hf_lsn begin, before, end, by_files, seen, long_end;
    uint32_t timeline;
    struct stat st;
    char text[64];

    (void)state;
    /* A record longer than a segment, and one behind it. */
    sql(&a, "select pg_logical_emit_message(false, 'long', repeat('x', 5000000))", text, sizeof text);
    assert_true(hf_pg_parse_lsn(text, &long_end));
    sql_run(&a, "select pg_switch_wal()");
    sql_run(&a, "create table unread as select generate_series(1, 100) as n");
    before = flushed_of(&a);
    sql_run(&a, "insert into unread select generate_series(1, 100)");
    sql(&a, "select pg_walfile_name(pg_current_wal_lsn())", name, sizeof name);
    end = flushed_of(&a);
    sql_until(&b, "select count(*) from unread", "200");
    relay_open(&b.relay, false);
    assert_true(job_ok(&b, HF_WORK_POSITION).lsn >= end);
    end = job_ok(&b, HF_WORK_POSITION).lsn;
    begin = end - end % b.pg->segment_bytes;
    assert_int_equal(hf_pg_wal_ends_at(b.pg, end, NULL), 0);
    assert_int_equal(hf_pg_wal_ends_at(b.pg, before, NULL), HF_EIO);
    assert_int_equal(hf_pg_wal_ends_at(b.pg, long_end, NULL), HF_EIO);
    assert_int_equal(hf_pg_wal_ends_at(b.pg, begin, NULL), HF_EIO);
    (void)job_ok(&b, HF_WORK_STOP);
    (void)snprintf(path, sizeof path, "%s/pg_wal/%s", b.pg->data, name);
    (void)snprintf(aside, sizeof aside, "%s.aside", path);
    assert_int_equal(stat(path, &st), 0);
    assert_int_equal(rename(path, aside), 0);
    assert_int_equal(mkdir(path, 0700), 0); /* it can be opened, and not be read */
    assert_int_equal(chown(path, st.st_uid, st.st_gid), 0);
    (void)job_ok(&b, HF_WORK_START);
    (void)job_fails(&b, HF_WORK_POSITION);
    assert_int_not_equal(hf_pg_wal_end(b.pg, &by_files, &timeline, &seen, NULL), 0);
    (void)job_ok(&b, HF_WORK_STOP);
    assert_int_equal(rmdir(path), 0);
    assert_int_equal(rename(aside, path), 0);
    (void)job_ok(&b, HF_WORK_START);
    assert_true(job_ok(&b, HF_WORK_POSITION).lsn == end);
    relay_open(&b.relay, true);
}

/* What is a default for everybody is not for Holdfast's own sessions: a standby answers nothing in a serializable transaction, a leader
 * writes no barrier in a read only one, and what somebody has made in a schema of theirs must not run with the superuser's rights. */
static void test_whatever_the_defaults(void **state)
{
    const char *names[] = {"b"};
    pid_t pid = hf_pg_pid(b.pg);
    struct barrier x;
    char value[64];

    (void)state;
    sql_run(&a, "create function taken(int, int) returns int language plpgsql as $$ begin raise exception 'taken'; end $$");
    sql_run(&a, "create function taken(int, bool) returns int language plpgsql as $$ begin raise exception 'taken'; end $$");
    sql_run(&a, "create aggregate count(int) (sfunc = taken, stype = int, initcond = 0)");
    sql_run(&a, "create aggregate count(bool) (sfunc = taken, stype = int, initcond = 0)");
    sql_run(&a, "alter role all set search_path = public, pg_catalog; alter role all set default_transaction_read_only = on");
    sql_run(&a, "set default_transaction_read_only = off; alter role all set default_transaction_isolation = serializable");
    barrier_begin(&x, &a, 15);
    barrier_end(&x);
    assert_int_equal(x.code, 0);
    (void)job_rule(&a, HF_WORK_RULE, 1, names);
    barrier_begin(&x, &a, 16);
    barrier_end(&x);
    assert_int_equal(x.code, 0);
    relay_open(&b.relay, false);
    assert_true(job_ok(&b, HF_WORK_POSITION).lsn >= x.lsn);
    assert_int_equal(hf_pg_pid(b.pg), pid); /* asked by SQL: it has not been started again for it */
    (void)job_rule(&b, HF_WORK_RULE, 1, names);
    relay_open(&b.relay, true);
    sql_run(&a, "set default_transaction_read_only = off; alter role all reset all");
    sql_run(&a, "set default_transaction_read_only = off; drop aggregate public.count(int); drop aggregate public.count(bool)");
    sql(&a, "select count(*) from holdfast.epochs where epoch = 16", value, sizeof value);
    assert_string_equal(value, "1");
}

/* As a client of the read-only port: an ordinary role, by password. */
static PGconn *reader_connect(struct server *s)
{
    char info[256];
    PGconn *conn;

    (void)snprintf(info, sizeof info,
                   "host=%s/sock port=5432 dbname=postgres user=reader password=secret"
                   " gssencmode=disable",
                   s->dir);
    conn = PQconnectdb(info);
    if (PQstatus(conn) != CONNECTION_OK)
        fail_msg("%s", PQerrorMessage(conn));
    return conn;
}

static void reader_run(PGconn *conn, const char *statement)
{
    PGresult *r = PQexec(conn, statement);

    if (PQresultStatus(r) != PGRES_COMMAND_OK && PQresultStatus(r) != PGRES_TUPLES_OK)
        fail_msg("%s", PQerrorMessage(conn));
    PQclear(r);
}

static void reader_is_gone(PGconn *conn)
{
    PGresult *r = PQexec(conn, "select 1");

    assert_int_not_equal(PQresultStatus(r), PGRES_TUPLES_OK);
    PQclear(r);
    PQfinish(conn);
}

/* A session on the follower that holds replay up loses (S20). */
static void test_position_in_spite_of_a_reader(void **state)
{
    PGconn *reader;
    hf_lsn end, position;
    uint64_t t;

    (void)state;
    sql_run(&a, "create role reader login password 'secret'; grant select on t to reader");
    sql_until(&b, "select count(*) from pg_roles where rolname = 'reader'", "1");
    reader = reader_connect(&b);
    reader_run(reader, "begin; select count(*) from t");
    sql_run(&a, "set synchronous_commit = local; truncate t");
    end = flushed_of(&a);
    sql_until(&b, "select wait_event_type from pg_stat_activity where backend_type = 'startup'",
              "Lock");
    sql_until(&b, "select pg_last_wal_receive_lsn() > pg_last_wal_replay_lsn()", "t");
    relay_open(&b.relay, false);
    t = hf_clock_ns();
    position = job_ok(&b, HF_WORK_POSITION).lsn;
    print_message("position in spite of a reader %.1f ms\n", since_ms(t));
    assert_true(position >= end);
    reader_is_gone(reader);
    relay_open(&b.relay, true);
}

static void test_barrier_is_seen_waiting(void **state)
{
    struct barrier x;
    char replayed[128];
    uint64_t t = hf_clock_ns();

    (void)state;
    relay_open(&b.relay, false);
    barrier_begin(&x, &a, 8);
    while (__atomic_load_n(&x.waiting, __ATOMIC_SEQ_CST) == 0 && since_ms(t) < 5000)
        (void)usleep(500);
    print_message("barrier seen waiting %.1f ms\n", since_ms(t));
    assert_int_equal(x.waiting, 1);
    relay_open(&b.relay, true);
    barrier_end(&x);
    print_message("barrier done %.1f ms\n", since_ms(t));
    assert_int_equal(x.code, 0);
    /* Acknowledged means flushed there; replayed comes after. */
    (void)snprintf(replayed, sizeof replayed,
                   "select pg_last_wal_replay_lsn() >= '" HF_PG_LSN_FMT "'", HF_PG_LSN_ARG(x.lsn));
    sql_until(&b, replayed, "t");
    sql_until(&b, "select count(*) from holdfast.epochs where epoch = 8", "1");
}

static void test_cancelled_barrier_fails(void **state)
{
    static const char *const how[] = {"pg_cancel_backend", "pg_terminate_backend"};
    char statement[256];

    (void)state;
    for (int i = 0; i < 2; i++) {
        struct barrier x;
        relay_open(&b.relay, false);
        barrier_begin(&x, &a, 9);
        sql_until(&a, "select count(*) from pg_stat_activity where wait_event = 'SyncRep'", "1");
        (void)snprintf(statement, sizeof statement,
                       "select %s(pid) from pg_stat_activity where wait_event = 'SyncRep'", how[i]);
        sql_run(&a, statement);
        barrier_end(&x);
        assert_int_not_equal(x.code, 0); /* S11 */
        relay_open(&b.relay, true);
    }
}

/* A role's or database's default must not make the barrier lie (S2). */
static void test_barrier_sets_synchronous_commit(void **state)
{
    struct barrier x;

    (void)state;
    sql_run(&a, "alter role holdfast set synchronous_commit = off");
    relay_open(&b.relay, false);
    barrier_begin(&x, &a, 10);
    sql_until(&a, "select count(*) from pg_stat_activity where wait_event = 'SyncRep'", "1");
    relay_open(&b.relay, true);
    barrier_end(&x);
    assert_int_equal(x.code, 0);
    sql_run(&a, "alter role holdfast reset synchronous_commit");
}

static void test_rule_renews_walsenders(void **state)
{
    const char *const names[] = {"b", "c"};
    char before[32], after[32], rule[128];
    uint64_t t;

    (void)state;
    sql_until(&a, "select count(*) from pg_stat_replication where state = 'streaming'", "1");
    sql(&a, "select pid from pg_stat_replication", before, sizeof before);
    t = hf_clock_ns();
    (void)job_rule(&a, HF_WORK_RULE, 2, names);
    print_message("rule %.1f ms\n", since_ms(t));
    sql(&a, "select pid from pg_stat_replication", after, sizeof after);
    assert_string_not_equal(before, after);
    sql(&a, "show synchronous_standby_names", rule, sizeof rule);
    assert_string_equal(rule, "ANY 1 (\"b\", \"c\")");
    (void)job_rule(&a, HF_WORK_RULE, 1, names);
}

static void test_promotion_ends_sessions(void **state)
{
    const char *const names[] = {"a"};
    struct hf_pg_result r;
    PGconn *reader = reader_connect(&b);
    char rule[128];
    uint64_t t;

    (void)state;
    sql_run(&a, "insert into t values (1)");
    relay_open(&b.relay, false);
    (void)job_ok(&a, HF_WORK_STOP);
    (void)job_ok(&b, HF_WORK_POSITION);
    t = hf_clock_ns();
    r = job_rule(&b, HF_WORK_PROMOTE, 1, names);
    print_message("promote a follower %.1f ms\n", since_ms(t));
    assert_int_equal(r.timeline, 3);
    reader_is_gone(reader); /* S3 */
    sql(&b, "show synchronous_standby_names", rule, sizeof rule);
    assert_string_equal(rule, "ANY 1 (\"a\")");
    sql(&b, "select n from t", rule, sizeof rule);
    assert_string_equal(rule, "1");
    sql(&b, "select pg_is_in_recovery()", rule, sizeof rule);
    assert_string_equal(rule, "f");
}

/* Writes WAL all the time, until it is finished with: a rewind's source has seen more by the end of it than WAL had come along. */
static PGconn *write_on(struct server *s)
{
    PGconn *conn;
    char info[256];

    (void)snprintf(info, sizeof info, "host=%s/sock port=5432 dbname=postgres user=holdfast gssencmode=disable", s->dir);
    conn = PQconnectdb(info);
    assert_int_equal(PQstatus(conn), CONNECTION_OK);
    assert_true(PQsendQuery(conn, "do $$ begin loop perform pg_logical_emit_message(false, 'test', repeat('x', 100));"
                                  " perform pg_sleep(0.001); end loop; end $$"));
    (void)PQflush(conn);
    return conn;
}

/* A has what B never got; B leads now. What it is rewound to is more than WAL has come along: a position all the same, and it says so. */
static void test_rewind_after_divergence(void **state)
{
    struct hf_pg_result r;
    struct barrier x;
    char value[32];
    PGconn *writer;
    hf_lsn end;
    uint64_t t;

    (void)state;
    (void)job_ok(&a, HF_WORK_START);
    (void)job_ok(&a, HF_WORK_POSITION);
    (void)job_ok(&a, HF_WORK_PROMOTE); /* a leader that nobody followed */
    sql_run(&a, "insert into t values (666)");
    (void)job_ok(&a, HF_WORK_STOP);
    (void)job_ok(&a, HF_WORK_START);
    server_follow(&a, &b);
    relay_open(&a.copy, true);
    /* Both are on a timeline 3 of their own: pg_rewind cannot see that (S4, S9). On a slow machine the background writer
     * may have put a record between the two forks: then it sees it, and fails. Either way it is not done. */
    r = job_fails(&a, HF_WORK_REWIND);
    print_message("%s\n", r.text);
    assert_true(strstr(r.text, "fresh copy") != NULL || strstr(r.text, "servers diverged") != NULL);
    assert_false(hf_pg_exists(a.pg->mark));
    /* B dies and comes back on timeline 4. */
    (void)job_ok(&b, HF_WORK_STOP);
    (void)job_ok(&b, HF_WORK_START);
    (void)job_ok(&b, HF_WORK_POSITION);
    (void)job_rule(&b, HF_WORK_PROMOTE, 1, (const char *const[]){"a"});
    (void)job_ok(&a, HF_WORK_STOP);
    (void)job_ok(&b, HF_WORK_CHECKPOINT);
    t = hf_clock_ns();
    r = job_ok(&a, HF_WORK_CLONE);
    print_message("clone %.1f ms\n", since_ms(t));
    relay_open(&a.relay, true);
    barrier_begin(&x, &b, 20);
    barrier_end(&x);
    assert_int_equal(x.code, 0);
    sql_until(&a, "select string_agg(n::text, ',' order by n) from t", "1");
    /* Now a fork that pg_rewind can see: A promotes alone to 5, B stays on 4. */
    relay_open(&a.relay, false);
    (void)job_ok(&a, HF_WORK_POSITION);
    (void)job_ok(&a, HF_WORK_PROMOTE);
    sql_run(&a, "insert into t values (667); checkpoint; insert into t values (668)");
    (void)job_ok(&a, HF_WORK_STOP);
    relay_open(&a.copy, true);
    writer = write_on(&b);
    t = hf_clock_ns();
    r = job_ok(&a, HF_WORK_REWIND);
    print_message("rewind %.1f ms: to %X/%X, %s\n", since_ms(t), HF_PG_LSN_ARG(r.lsn), r.text);
    PQfinish(writer);
    end = r.lsn;
    r = job_ok(&a, HF_WORK_POSITION);
    print_message("%s\n", r.text);
    assert_true(r.seen == end && r.lsn < r.seen);
    relay_open(&a.relay, true);
    barrier_begin(&x, &b, 21);
    barrier_end(&x);
    assert_int_equal(x.code, 0);
    for (int i = 0; i < 500 && !hf_pg_server_ready(a.pg); i++)
        (void)usleep(10000);
    sql_until(&a, "select count(*) from holdfast.epochs where epoch = 21", "1");
    sql(&a, "select string_agg(n::text, ',' order by n) from t", value, sizeof value);
    assert_string_equal(value, "1");
}

static void test_half_rewound_is_not_started(void **state)
{
    char path[160];
    FILE *f;

    (void)state;
    (void)job_ok(&a, HF_WORK_STOP);
    (void)snprintf(path, sizeof path, "%s/rewinding", a.dir);
    f = fopen(path, "w");
    assert_non_null(f);
    (void)fclose(f);
    assert_int_equal(job_fails(&a, HF_WORK_START).code, HF_ECORRUPT);
    (void)job_fails(&a, HF_WORK_REWIND);
    (void)job_ok(&a, HF_WORK_CLONE);
    assert_false(hf_pg_exists(a.pg->mark));
}

static void *interrupt_soon(void *arg)
{
    struct server *s = arg;
    char path[160];
    uint64_t t = hf_clock_ns();

    (void)snprintf(path, sizeof path, "%s/data.new/base", s->dir);
    while (!hf_pg_exists(path) && since_ms(t) < 5000)
        (void)usleep(500);
    hf_pg_interrupt(s->pg, true);
    return NULL;
}

/* Killed in the middle: the old data are untouched, the leftovers go (I7). */
static void test_clone_interrupted(void **state)
{
    enum hf_pg_state pg_state;
    char path[160], aside[160];
    pthread_t thread;

    (void)state;
    assert_int_equal(pthread_create(&thread, NULL, interrupt_soon, &a), 0);
    (void)job_fails(&a, HF_WORK_CLONE);
    assert_int_equal(pthread_join(thread, NULL), 0);
    hf_pg_interrupt(a.pg, false);
    sql_until(&a, "select count(*) from t", "1"); /* goes on as it was */
    (void)job_ok(&a, HF_WORK_STOP);
    (void)snprintf(path, sizeof path, "%s/data.new", a.dir);
    assert_int_equal(mkdir(path, 0700), 0);
    /* Between the two renames of a swap. */
    (void)snprintf(path, sizeof path, "%s/data", a.dir);
    (void)snprintf(aside, sizeof aside, "%s/data.old", a.dir);
    assert_int_equal(rename(path, aside), 0);
    assert_int_equal(hf_pg_probe(a.pg, &pg_state, NULL), 0);
    assert_int_equal(pg_state, HF_PG_DOWN);
    assert_true(hf_pg_exists(path) && !hf_pg_exists(aside));
    (void)job_ok(&a, HF_WORK_START);
}

/* The node is killed while pg_basebackup runs: that dies with it, and the next start clears up, and knows that nothing has
 * happened to the data. */
static void test_clone_killed(void **state)
{
    enum hf_pg_state pg_state;
    char path[160], base[170];
    uint64_t t = hf_clock_ns();
    pid_t pid;
    int status;

    (void)state;
    (void)job_ok(&a, HF_WORK_STOP);
    (void)snprintf(path, sizeof path, "%s/data.new", a.dir);
    (void)snprintf(base, sizeof base, "%s/base", path);
    pid = fork();
    if (pid == 0) {
        struct hf_pg_job job = {.work = HF_WORK_CLONE, .intact = true};
        struct hf_pg_result r;
        (void)hf_pg_run(a.pg, &job, &r);
        _exit(0);
    }
    while (!hf_pg_exists(base) && since_ms(t) < 5000)
        (void)usleep(500);
    assert_int_equal(kill(pid, SIGKILL), 0);
    assert_int_equal(waitpid(pid, &status, 0), pid);
    assert_true(hf_pg_exists(path));
    assert_int_equal(hf_pg_probe(a.pg, &pg_state, NULL), 0);
    assert_int_equal(pg_state, HF_PG_DOWN);
    assert_false(hf_pg_exists(path));
    assert_true(hf_pg_untouched(a.pg));
    (void)job_ok(&a, HF_WORK_START);
    sql_until(&a, "select count(*) from t", "1");
}

/* A disk that does not flush, from the moment on when `present` is there and `absent` is not. */
static struct {
    const char *present, *absent;
    int left;
    bool begun, dies; /* and the process with it */
} flush;

int __real_fsync(int fd);
int __wrap_fsync(int fd);

int __wrap_fsync(int fd)
{
    if (flush.left > 0 && (flush.begun || (hf_pg_exists(flush.present) && !hf_pg_exists(flush.absent)))) {
        flush.begun = true;
        flush.left--;
        if (flush.dies)
            _exit(3);
        errno = EIO;
        return -1;
    }
    return __real_fsync(fd);
}

/* The renames of a swap happen, and are not flushed: what is said to lie there is what does. */
static void test_clone_swap_not_flushed(void **state)
{
    char data[160], aside[160], fresh[160];
    struct hf_pg_result r;
    pthread_t thread;

    (void)state;
    (void)snprintf(data, sizeof data, "%s/data", a.dir);
    (void)snprintf(aside, sizeof aside, "%s/data.old", a.dir);
    (void)snprintf(fresh, sizeof fresh, "%s/data.new", a.dir);
    for (int failures = 1; failures <= 2; failures++) { /* the old aside; and then its way back, too */
        flush.present = aside;
        flush.absent = data;
        flush.begun = false;
        flush.left = failures;
        r = job_fails(&a, HF_WORK_CLONE);
        assert_int_equal(flush.left, 0);
        assert_false(r.swapped);
        assert_true(hf_pg_exists(data) && !hf_pg_exists(aside) && hf_pg_exists(fresh));
        (void)job_ok(&a, HF_WORK_START);
        sql_until(&a, "select count(*) from t", "1");
    }
    flush.present = aside; /* the new in place */
    flush.absent = fresh;
    flush.begun = false;
    flush.left = 1;
    r = job_fails(&a, HF_WORK_CLONE);
    assert_int_equal(flush.left, 0);
    assert_true(r.swapped);
    assert_true(hf_pg_exists(data) && hf_pg_exists(aside) && !hf_pg_exists(fresh));
    /* The next copy needs that room. */
    assert_int_equal(pthread_create(&thread, NULL, interrupt_soon, &a), 0);
    (void)job_fails(&a, HF_WORK_CLONE);
    assert_int_equal(pthread_join(thread, NULL), 0);
    hf_pg_interrupt(a.pg, false);
    assert_true(hf_pg_exists(data) && !hf_pg_exists(aside));
    (void)job_ok(&a, HF_WORK_CLONE);
    assert_false(hf_pg_exists(aside));
}

/* A disk that does not say what there is. */
static const char *unseen;

int __real_lstat64(const char *path, struct stat *st); /* the name that lstat() has, with files of any size */
int __wrap_lstat64(const char *path, struct stat *st);

int __wrap_lstat64(const char *path, struct stat *st)
{
    if (unseen != NULL && strcmp(path, unseen) == 0) {
        errno = EIO;
        return -1;
    }
    return __real_lstat64(path, st);
}

/* Whoever is taken for empty is given nothing to start, and says that it holds nothing. */
static void test_unseen_is_not_empty(void **state)
{
    enum hf_pg_state pg_state;

    (void)state;
    (void)job_ok(&a, HF_WORK_STOP);
    unseen = a.pg->data;
    assert_int_equal(hf_pg_probe(a.pg, &pg_state, NULL), 0);
    assert_int_equal(pg_state, HF_PG_DOWN);
    assert_int_equal(hf_pg_write_file(a.pg->untouched, "of before", NULL), 0);
    unseen = NULL;
    assert_true(hf_pg_untouched(a.pg));
    unseen = a.pg->untouched;
    assert_false(hf_pg_untouched(a.pg));
    unseen = NULL;
    assert_int_equal(unlink(a.pg->untouched), 0);
    (void)job_ok(&a, HF_WORK_START);
}

static struct hf_pg_result clone_of_intact(int code)
{
    struct hf_pg_job job = {.work = HF_WORK_CLONE, .epoch = 1, .intact = true};
    struct hf_pg_result r;

    assert_int_equal(hf_pg_run(a.pg, &job, &r), code);
    return r;
}

/* That the data are untouched is on the disk only as long as it is so: it is gone before the first rename of a swap, and before
 * anything of a rewind, and if it does not go neither begins. */
static void test_untouched_until_it_is_touched(void **state)
{
    enum hf_pg_state pg_state;
    char data[160], aside[160], fresh[160];
    struct stat before, after;
    int status, code;
    pid_t pid;

    (void)state;
    (void)job_ok(&a, HF_WORK_STOP);
    (void)snprintf(data, sizeof data, "%s/data", a.dir);
    (void)snprintf(aside, sizeof aside, "%s/data.old", a.dir);
    (void)snprintf(fresh, sizeof fresh, "%s/data.new", a.dir);
    assert_int_equal(hf_pg_remove_tree(fresh, NULL), 0);
    assert_false(hf_pg_untouched(a.pg)); /* it has been cloned */
    flush.present = fresh;
    flush.absent = a.pg->untouched;
    flush.begun = false;
    flush.left = 1;
    assert_int_equal(stat(data, &before), 0);
    assert_false(clone_of_intact(HF_EIO).swapped);
    assert_int_equal(flush.left, 0);
    assert_int_equal(stat(data, &after), 0);
    assert_int_equal(after.st_ino, before.st_ino);
    assert_false(hf_pg_exists(aside));

    flush.present = aside; /* dies between the two renames */
    flush.absent = data;
    flush.begun = false;
    flush.left = 1;
    flush.dies = true;
    pid = fork();
    if (pid == 0) {
        (void)clone_of_intact(0);
        _exit(0);
    }
    flush.left = 0;
    flush.dies = false;
    assert_int_equal(waitpid(pid, &status, 0), pid);
    assert_int_equal(status, 3 << 8);
    assert_int_equal(hf_pg_probe(a.pg, &pg_state, NULL), 0);
    assert_int_equal(pg_state, HF_PG_DOWN);
    assert_false(hf_pg_untouched(a.pg));

    assert_int_equal(hf_pg_write_file(a.pg->untouched, "of before", NULL), 0);
    assert_true(hf_pg_untouched(a.pg));
    flush.present = a.dir; /* a rewind that cannot take it back does not begin */
    flush.absent = a.pg->untouched;
    flush.begun = false;
    flush.left = 1;
    code = job_fails(&a, HF_WORK_REWIND).code;
    flush.left = 0;
    assert_int_equal(code, HF_EIO);
    assert_int_equal(hf_pg_pid(a.pg), 0);
    assert_int_equal(hf_pg_write_file(a.pg->untouched, "of before", NULL), 0);
    (void)job_fails(&a, HF_WORK_REWIND); /* nothing to rewind: and yet */
    assert_false(hf_pg_untouched(a.pg));

    assert_int_equal(hf_pg_write_file(a.pg->untouched, "of before", NULL), 0);
    (void)job_ok(&a, HF_WORK_CLONE); /* of what is not intact */
    assert_false(hf_pg_untouched(a.pg));
    (void)job_ok(&a, HF_WORK_STOP);
    (void)clone_of_intact(0);
    assert_false(hf_pg_untouched(a.pg));
}

/* What cannot be copied leaves what is there. */
static void test_clone_refused(void **state)
{
    (void)state;
    relay_open(&a.copy, false);
    (void)snprintf(a.copy.target, sizeof a.copy.target, "/nonexistent");
    relay_open(&a.copy, true);
    assert_int_equal(hf_pg_write_file(a.pg->untouched, "of before", NULL), 0);
    (void)job_fails(&a, HF_WORK_CLONE);
    assert_false(hf_pg_untouched(a.pg)); /* the job did not say that they were intact */
    sql_until(&a, "select count(*) from t", "1");
}

static void test_clean_stop_loses_nothing(void **state)
{
    hf_lsn a_end, b_end;
    uint64_t t;

    (void)state;
    relay_open(&a.relay, true);
    sql_until(&b, "select count(*) from pg_stat_replication where state = 'streaming'", "1");
    sql_run(&b, "insert into t values (3)");
    t = hf_clock_ns();
    (void)job_ok(&b, HF_WORK_STOP_CLEAN);
    print_message("clean stop %.1f ms\n", since_ms(t));
    relay_open(&a.relay, false);
    a_end = job_ok(&a, HF_WORK_POSITION).lsn;
    (void)job_ok(&b, HF_WORK_START);
    b_end = job_ok(&b, HF_WORK_POSITION).lsn;
    assert_true(a_end == b_end);
}

/* --- S10: what SQL cannot answer ----------------------------------------------------------------
 */

/* The leader's parameters were raised: the follower's replay pauses for ever, until a start raises
 * its own. */
static void test_position_when_parameters_are_too_small(void **state)
{
    char path[160], value[32];
    hf_lsn end;
    FILE *f;

    (void)state;
    (void)job_ok(&b, HF_WORK_STOP);
    hf_pg_close(b.pg);
    (void)snprintf(path, sizeof path, "%s/extra.conf", b.dir);
    f = fopen(path, "w");
    assert_non_null(f);
    assert_true(fputs("max_connections = 150\nfsync = off\n", f) > 0);
    assert_int_equal(fclose(f), 0);
    b.extra_conf = path;
    server_reopen(&b, "b");
    (void)job_ok(&b, HF_WORK_START);
    (void)job_ok(&b, HF_WORK_POSITION);
    (void)job_ok(&b, HF_WORK_PROMOTE);
    sql(&b, "show fsync", value, sizeof value);
    assert_string_equal(value, "on"); /* what safety needs wins */
    relay_open(&a.relay, true);
    sql_run(&b, "insert into t values (4)");
    end = flushed_of(&b);
    sql_until(&a, "select wait_event from pg_stat_activity where backend_type = 'startup'",
              "RecoveryPause");
    (void)snprintf(path, sizeof path, "select pg_last_wal_receive_lsn() >= '" HF_PG_LSN_FMT "'",
                   HF_PG_LSN_ARG(end));
    sql_until(&a, path, "t");
    relay_open(&a.relay, false);
    assert_true(job_ok(&a, HF_WORK_POSITION).lsn >= end);
    sql(&a, "show max_connections", value, sizeof value);
    assert_string_equal(value, "150");
}

/* A standby that starts from a snapshot with too many subtransactions takes no SQL until they end.
 */
static void test_position_and_promotion_without_sql(void **state)
{
    struct hf_pg_result r;
    char text[160];
    PGconn *writer;
    hf_lsn end;
    uint64_t t;

    (void)state;
    writer = sql_connect(&b);
    reader_run(writer, "begin");
    reader_run(writer, "do $$ begin for i in 1000..1099 loop begin insert into t values (i);"
                       " exception when unique_violation then null; end; end loop; end $$");
    sql_run(&b, "checkpoint");
    end = flushed_of(&b);
    relay_open(&a.relay, true);
    (void)snprintf(text, sizeof text, "select pg_last_wal_replay_lsn() >= '" HF_PG_LSN_FMT "'",
                   HF_PG_LSN_ARG(end));
    sql_until(&a, text, "t");
    sql_run(&a, "checkpoint"); /* a restartpoint: the next start begins with that snapshot */
    (void)job_ok(&a, HF_WORK_STOP);
    relay_open(&a.relay, false);
    r = job_ok(&a, HF_WORK_START);
    assert_string_not_equal(r.text, "");
    assert_false(hf_pg_server_ready(a.pg));
    t = hf_clock_ns();
    r = job_ok(&a, HF_WORK_POSITION);
    print_message("position without SQL %.1f ms\n", since_ms(t));
    assert_true(r.lsn >= end && r.lsn <= flushed_of(&b));
    server_follow(&a, &b);
    relay_open(&a.copy, true);
    r = job_ok(&a, HF_WORK_CLONE); /* takes no sessions either, as long as the writer's transaction is open */
    print_message("%s\n", r.text);
    assert_string_not_equal(r.text, "");
    assert_true(r.lsn >= end);
    assert_true(job_ok(&a, HF_WORK_POSITION).lsn >= r.lsn);
    PQfinish(writer);
    r = job_ok(&a, HF_WORK_PROMOTE);
    assert_true(r.timeline > 1);
    sql(&a, "select count(*) from t where n >= 1000", text, sizeof text);
    assert_string_equal(text, "0");
    (void)job_ok(&a, HF_WORK_STOP);
}

/* --- the threads --------------------------------------------------------------------------------
 */

struct agent_seen {
    uv_loop_t *loop;
    struct hf_agent *agent;
    int works, waiting, done, failed, exits, accounts;
    bool finish;
    pid_t pid;
};

static void seen_work(void *ctx, const struct hf_pg_result *r)
{
    struct agent_seen *x = ctx;
    struct hf_pg_job job = {.work = HF_WORK_POSITION};

    if (!r->ok)
        fail_msg("%s", r->text);
    x->works++;
    if (r->work == HF_WORK_START)
        assert_int_equal(hf_agent_submit(x->agent, &job), 0);
    job.work = HF_WORK_PROMOTE; /* with a rule that nobody meets */
    job.n_voters = 1;
    (void)snprintf(job.voters[0], sizeof job.voters[0], "nobody");
    if (r->work == HF_WORK_POSITION)
        assert_int_equal(hf_agent_submit(x->agent, &job), 0);
    if (r->work == HF_WORK_PROMOTE)
        assert_int_equal(hf_agent_write(x->agent, HF_WRITE_HEARTBEAT, 30), 0);
    if (r->work == HF_WORK_PROMOTE)
        assert_int_equal(hf_agent_write(x->agent, HF_WRITE_BARRIER, 31), 0);
}

/* The heartbeat is given up for the barrier, the barrier for its successor, that one dies with its
 * server. */
static void seen_write(void *ctx, enum hf_write write, enum hf_write_state write_state,
                       hf_epoch epoch, hf_lsn lsn, const char *text)
{
    struct agent_seen *x = ctx;

    (void)write;
    (void)lsn;
    (void)text;
    x->waiting += write_state == HF_WRITE_WAITING;
    x->done += write_state == HF_WRITE_DONE;
    x->failed += write_state == HF_WRITE_FAILED;
    if (write_state == HF_WRITE_WAITING && epoch == 31)
        assert_int_equal(hf_agent_write(x->agent, HF_WRITE_BARRIER, 32), 0);
    if (write_state == HF_WRITE_WAITING && epoch == 32)
        assert_int_equal(kill(hf_pg_pid(hf_agent_pg(x->agent)), SIGQUIT), 0);
    if (x->exits == 1 && x->failed == 3)
        uv_stop(x->loop);
}

static void seen_exit(void *ctx, pid_t pid, const char *why)
{
    struct agent_seen *x = ctx;

    assert_non_null(strstr(why, "exit status 0: "));
    assert_int_equal(pid, x->pid);
    x->exits++;
    if (x->failed == 3)
        uv_stop(x->loop);
}

static void seen_postmaster(void *ctx, pid_t pid)
{
    if (pid != 0)
        ((struct agent_seen *)ctx)->pid = pid;
}

static void stop_loop(uv_timer_t *timer)
{
    uv_stop(timer->loop);
}

static void test_agent(void **state)
{
    struct hf_pg_config c = {
        .node_dir = a.dir, .name = "a", .member = "a", .allow_ephemeral = true};
    struct hf_pg_job job = {.work = HF_WORK_START};
    enum hf_pg_state pg_state;
    uv_loop_t loop;
    uv_timer_t limit;
    struct agent_seen x = {.loop = &loop};
    const struct hf_agent_callbacks cb = {&x,        seen_work, seen_write,
                                          seen_exit, NULL,      seen_postmaster};

    (void)state;
    assert_int_equal(uv_loop_init(&loop), 0);
    assert_int_equal(uv_timer_init(&loop, &limit), 0);
    assert_int_equal(uv_timer_start(&limit, stop_loop, 15000, 0), 0);
    assert_int_equal(hf_agent_open(&x.agent, &c, &loop, &cb, NULL), 0);
    assert_int_equal(hf_pg_probe(hf_agent_pg(x.agent), &pg_state, NULL), 0);
    assert_int_equal(hf_agent_submit(x.agent, &job), 0);
    (void)uv_run(&loop, UV_RUN_DEFAULT);
    hf_agent_close(x.agent);
    uv_close((uv_handle_t *)&limit, NULL);
    (void)uv_run(&loop, UV_RUN_DEFAULT);
    assert_int_equal(uv_loop_close(&loop), 0);
    assert_int_equal(x.works, 3);
    assert_int_equal(x.waiting, 2);
    assert_int_equal(x.done, 0);
    assert_int_equal(x.failed, 3);
    assert_int_equal(x.exits, 1);
    end_pair();
}

int main(int argc, char **argv)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_position_equals_the_leaders),
        cmocka_unit_test(test_whatever_the_defaults),
        cmocka_unit_test(test_position_in_spite_of_a_reader),
        cmocka_unit_test(test_a_timeline_that_came_to_nothing),
        cmocka_unit_test(test_no_position_without_all_of_wal),
        cmocka_unit_test(test_barrier_is_seen_waiting),
        cmocka_unit_test(test_cancelled_barrier_fails),
        cmocka_unit_test(test_barrier_sets_synchronous_commit),
        cmocka_unit_test(test_rule_renews_walsenders),
        cmocka_unit_test(test_promotion_ends_sessions),
        cmocka_unit_test(test_rewind_after_divergence),
        cmocka_unit_test(test_half_rewound_is_not_started),
        cmocka_unit_test(test_clone_interrupted),
        cmocka_unit_test(test_clone_killed),
        cmocka_unit_test(test_clone_swap_not_flushed),
        cmocka_unit_test(test_unseen_is_not_empty),
        cmocka_unit_test(test_untouched_until_it_is_touched),
        cmocka_unit_test(test_clone_refused),
        cmocka_unit_test(test_clean_stop_loses_nothing),
        cmocka_unit_test(test_position_when_parameters_are_too_small),
        cmocka_unit_test(test_position_and_promotion_without_sql),
        cmocka_unit_test(test_agent),
    };

    if (argc > 1)
        cmocka_set_test_filter(argv[1]);
    return cmocka_run_group_tests(tests, fixture_setup, fixture_teardown);
}
