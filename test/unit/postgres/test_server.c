/* One real server. Timings go to standard output for people; nothing is judged by them. */
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
#include "postgres/private.h"
#include "postgres/writer.h"

static struct server a;

static void count_waiting(void *ctx)
{
    ++*(int *)ctx;
}

static void test_first_epoch_alone(void **state)
{
    enum hf_pg_state pg_state;
    struct hf_pg_result r;
    int waiting = 0;
    hf_lsn lsn = 0, position;
    char value[128];
    uint64_t t;

    (void)state;
    server_make(&a, "a");
    assert_int_equal(hf_pg_probe(a.pg, &pg_state, NULL), 0);
    assert_int_equal(pg_state, HF_PG_EMPTY);
    r = job_fails(&a, HF_WORK_START);
    r = job_ok(&a, HF_WORK_INIT);
    assert_true(r.system_id != 0);
    t = hf_clock_ns();
    r = job_ok(&a, HF_WORK_START);
    print_message("start %.1f ms\n", since_ms(t));
    assert_string_equal(r.text, "");
    sql(&a, "select pg_is_in_recovery()", value, sizeof value);
    assert_string_equal(value, "t"); /* S18 */
    t = hf_clock_ns();
    position = job_ok(&a, HF_WORK_POSITION).lsn;
    print_message("position %.1f ms\n", since_ms(t));
    assert_true(position > 0);
    t = hf_clock_ns();
    r = job_ok(&a, HF_WORK_PROMOTE);
    print_message("promote %.1f ms\n", since_ms(t));
    assert_int_equal(r.timeline, 2);
    t = hf_clock_ns();
    assert_int_equal(hf_pg_barrier(a.pg, 7, count_waiting, &waiting, &lsn, NULL), 0);
    print_message("barrier %.1f ms\n", since_ms(t));
    assert_int_equal(waiting, 1);
    assert_true(lsn > position && lsn <= flushed_of(&a));
    sql(&a, "select node || epoch from holdfast.epochs", value, sizeof value);
    assert_string_equal(value, "a7");
    assert_int_equal(hf_pg_heartbeat(a.pg, 7, &lsn, NULL), 0);
    position = job_ok(&a, HF_WORK_POSITION).lsn;
    assert_true(position >= lsn);
}

static void test_settings_are_ours(void **state)
{
    static const char *const wanted[][2] = {
        {"restart_after_crash", "off"},
        {"fsync", "on"},
        {"listen_addresses", ""},
        {"wal_log_hints", "on"},
        {"hot_standby", "on"},
        {"data_checksums", "on"},
        {"synchronous_commit", "on"},
        {"server_encoding", "UTF8"},
        {"jit", "off"},
        {"primary_slot_name", ""},
        {"unix_socket_permissions", "0700"},
    };
    char value[512], show[128];

    (void)state;
    for (size_t i = 0; i < sizeof wanted / sizeof *wanted; i++) {
        (void)snprintf(show, sizeof show, "show %s", wanted[i][0]);
        sql(&a, show, value, sizeof value);
        assert_string_equal(value, wanted[i][1]);
    }
    sql(&a, "show config_file", value, sizeof value);
    assert_null(strstr(value, "/data/")); /* S19 */
    sql(&a, "show primary_conninfo", value, sizeof value);
    assert_non_null(strstr(value, "/a/relay"));
}

static void test_accounts(void **state)
{
    const struct hf_pg_accounts accounts = {"app", "s3cret'\"", "app", "admin", "other"};
    struct hf_error err = {0};
    char value[64];

    (void)state;
    for (int i = 0; i < 2; i++) /* harmless when repeated */
        if (hf_pg_make_accounts(a.pg, &accounts, &err) != 0)
            fail_msg("%s", err.text);
    sql(&a,
        "select string_agg(rolname || rolsuper, ',' order by rolname) from pg_roles"
        " where rolname in ('app', 'admin')",
        value, sizeof value);
    assert_string_equal(value, "adminfalse,appfalse");
    sql(&a,
        "select has_function_privilege('app', 'pg_terminate_backend(integer, bigint)', 'execute')"
        " or has_function_privilege('app', 'pg_cancel_backend(integer)', 'execute')",
        value, sizeof value);
    assert_string_equal(value, "f"); /* S11 */
}

static void verifier_of_app(char value[256])
{
    sql(&a, "select coalesce(max(rolpassword), 'none') from pg_authid where rolname = 'app' and rolcanlogin", value, 256);
}

/* Each process of a node makes them when it first leads. What an administrator has done meanwhile is not undone by that, only by other
 * credentials. */
static void test_accounts_are_their_administrators(void **state)
{
    struct hf_pg_accounts accounts = {"app", "s3cret'\"", "app", "admin", "other"};
    char by_hand[256], now[256];

    (void)state;
    sql_run(&a, "alter role app password 'by hand'");
    sql_run(&a, "revoke pg_monitor from admin; drop role admin");
    verifier_of_app(by_hand);
    assert_int_equal(hf_pg_make_accounts(a.pg, &accounts, NULL), 0);
    verifier_of_app(now);
    assert_string_equal(now, by_hand);
    sql_run(&a, "alter role app nologin");
    assert_int_equal(hf_pg_make_accounts(a.pg, &accounts, NULL), 0);
    verifier_of_app(now);
    assert_string_equal(now, "none");
    sql(&a, "select count(*) from pg_roles where rolname = 'admin'", now, sizeof now);
    assert_string_equal(now, "0");
    accounts.app_password = "another";
    accounts.admin_password = "another, too";
    assert_int_equal(hf_pg_make_accounts(a.pg, &accounts, NULL), 0);
    verifier_of_app(now);
    assert_string_not_equal(now, "none");
    assert_string_not_equal(now, by_hand);
    sql(&a, "select pg_has_role('admin', 'pg_monitor', 'member') and rolcreaterole from pg_roles where rolname = 'admin'", now, sizeof now);
    assert_string_equal(now, "t");
    sql(&a, "select has_table_privilege('app', 'holdfast.accounts', 'select')", now, sizeof now);
    assert_string_equal(now, "f");
}

/* What a database, or everybody, has for a default is not ours; and the database that refuses is not the last. */
static void test_accounts_whatever_the_defaults(void **state)
{
    const struct hf_pg_accounts accounts = {"app", "another", "app", "admin", "another, too"};
    char value[64];

    (void)state;
    sql_run(&a, "alter database app set default_transaction_read_only = on");
    sql_run(&a, "alter database app set default_transaction_isolation = 'serializable'");
    assert_int_equal(hf_pg_make_accounts(a.pg, &accounts, NULL), 0);
    sql_run(&a, "create database full_up connection limit 0");
    sql_run(&a, "create database behind");
    sql_run(&a, "update pg_database set datconnlimit = -2 where datname = 'full_up'"); /* half dropped */
    assert_int_equal(hf_pg_make_accounts(a.pg, &accounts, NULL), 0);
    sql(&a, "select datname from pg_database where datname = 'behind'", value, sizeof value);
    assert_string_equal(value, "behind");
    sql_run(&a, "update pg_database set datconnlimit = -1 where datname = 'full_up'");
    sql_run(&a, "drop database full_up");
    sql_run(&a, "drop database behind");
}

static void test_end_is_noticed(void **state)
{
    struct server *s = &a;
    uint64_t t = hf_clock_ns();
    pid_t pid;

    (void)state;
    (void)job_ok(s, HF_WORK_START);
    pid = hf_pg_pid(s->pg);
    assert_true(pid > 0);
    assert_int_equal(kill(pid, SIGKILL), 0);
    while (__atomic_load_n(&s->exits, __ATOMIC_SEQ_CST) == 0 && since_ms(t) < 5000)
        (void)usleep(500);
    print_message("end noticed %.1f ms\n", since_ms(t));
    assert_int_equal(s->exits, 1);
    assert_int_equal(hf_pg_pid(s->pg), 0);
    (void)job_fails(s, HF_WORK_POSITION);
    (void)job_ok(s, HF_WORK_START); /* a stale postmaster.pid is no obstacle */
    (void)job_ok(s, HF_WORK_STOP);
    assert_int_equal(s->exits, 1); /* asked for */
}

static struct {
    _Atomic pid_t pid; /* 0: nobody looks; the watcher of a postmaster before does */
    int looks, freed;
} ending;

int __real_hf_pg_end_processes(const char *dir, bool gentle, struct hf_error *err);
int __wrap_hf_pg_end_processes(const char *dir, bool gentle, struct hf_error *err);

/* As it begins, after the postmaster's end: is that pid still ours? */
int __wrap_hf_pg_end_processes(const char *dir, bool gentle, struct hf_error *err)
{
    if (ending.pid != 0 && hf_pg_pid(a.pg) == ending.pid) {
        ending.looks++;
        ending.freed += kill(ending.pid, 0) != 0;
    }
    return __real_hf_pg_end_processes(dir, gentle, err);
}

/* Its children take their time to end: until then it is signalled by its pid, which must be nobody else's. */
static void test_pid_is_kept_while_it_is_used(void **state)
{
    uint64_t t = hf_clock_ns();

    (void)state;
    ending.pid = hf_pg_pid(a.pg);
    assert_true(hf_pg_has_children(ending.pid)); /* it may be reminded */
    assert_int_equal(kill(ending.pid, SIGKILL), 0);
    while (hf_pg_pid(a.pg) != 0 && since_ms(t) < 5000)
        (void)usleep(500);
    assert_int_equal(ending.looks, 1);
    assert_int_equal(ending.freed, 0);
    while (kill(ending.pid, 0) == 0 && since_ms(t) < 5000)
        (void)usleep(500);
    assert_int_not_equal(kill(ending.pid, 0), 0); /* and then it is given back */
    ending.pid = 0;
    while (__atomic_load_n(&a.exits, __ATOMIC_SEQ_CST) == 0 && since_ms(t) < 5000)
        (void)usleep(500);
    assert_int_equal(a.exits, 1);
    a.exits = 0;
}

/* The server's program hangs before it has set a handler, and counts as started when its time is over. */
static void test_who_does_not_run_is_not_reminded(void **state)
{
    struct hf_pg_config c = {.node_dir = a.dir, .name = "a", .member = "a", .allow_ephemeral = true,
                             .guard = HF_PG_GUARD_OFF};
    char real[HF_PG_PATH_MAX], bindir[200], path[300], text[HF_PG_PATH_MAX + 200];
    struct hf_error err = {0};
    struct hf_pg *pg;
    bool running;
    pid_t pid;

    (void)state;
    (void)snprintf(real, sizeof real, "%s", a.pg->bindir);
    (void)snprintf(bindir, sizeof bindir, "%s/bin", a.dir);
    assert_int_equal(mkdir(bindir, 0700), 0);
    (void)snprintf(text, sizeof text,
                   "#!/bin/sh\nfor a; do case $a in -C|--version) exec %s/postgres \"$@\";; esac; done\n"
                   "exec sleep 60\n",
                   real);
    (void)snprintf(path, sizeof path, "%s/postgres", bindir);
    assert_int_equal(hf_pg_write_file(path, text, NULL), 0);
    assert_int_equal(chmod(path, 0700), 0);
    (void)snprintf(path, sizeof path, "%s/pg_controldata", bindir);
    (void)snprintf(text, sizeof text, "%s/pg_controldata", real);
    assert_int_equal(symlink(text, path), 0);
    c.bindir = bindir;
    if (hf_pg_open(&pg, &c, &err) != 0 || hf_pg_server_start(pg, 300, &running, &err) != 0)
        fail_msg("%s", err.text);
    assert_false(running);
    pid = hf_pg_pid(pg);
    assert_true(pid > 0);
    hf_pg_remind(pg);
    (void)usleep(100000);
    assert_int_equal(hf_pg_pid(pg), pid);
    assert_int_equal(hf_pg_server_stop(pg, HF_PG_STOP_IMMEDIATE, HF_PG_QUIT_MS, NULL), 0);
    hf_pg_close(pg);
    assert_int_equal(hf_pg_remove_tree(bindir, NULL), 0);
}

static void test_killed_backend_ends_the_server(void **state)
{
    char pid[32];
    uint64_t t;

    (void)state;
    (void)job_ok(&a, HF_WORK_START);
    sql(&a, "select pid from pg_stat_activity where backend_type = 'checkpointer'", pid,
        sizeof pid);
    assert_int_equal(kill((pid_t)atoi(pid), SIGKILL), 0);
    t = hf_clock_ns();
    while (__atomic_load_n(&a.exits, __ATOMIC_SEQ_CST) < 2 && since_ms(t) < 5000)
        (void)usleep(500);
    assert_int_equal(a.exits, 2); /* S5: the postmaster does not restart by itself */
}

/* Kept connections to a server that has ended are noticed, not used. */
static void test_barrier_after_a_new_server(void **state)
{
    struct hf_pg *twin = hf_pg_twin_open(a.pg);
    struct hf_error err = {0};
    hf_lsn lsn;
    int waiting = 0;

    (void)state;
    assert_non_null(twin);
    for (int i = 0; i < 3; i++) {
        (void)job_ok(&a, HF_WORK_START);
        (void)job_ok(&a, HF_WORK_POSITION);
        (void)job_ok(&a, HF_WORK_PROMOTE);
        if (hf_pg_barrier(twin, 10 + (hf_epoch)i, count_waiting, &waiting, &lsn, &err) != 0)
            fail_msg("%s", err.text);
        hf_pg_barrier_prepare(twin);
        assert_int_equal(kill(hf_pg_pid(a.pg), i == 0 ? SIGQUIT : i == 1 ? SIGKILL : SIGINT), 0);
        while (hf_pg_pid(a.pg) != 0)
            (void)usleep(500);
    }
    assert_int_equal(waiting, 3);
    hf_pg_twin_close(twin);
}

static bool works_in(pid_t pid, const char *dir)
{
    char path[64], cwd[256];
    ssize_t n;

    (void)snprintf(path, sizeof path, "/proc/%d/cwd", (int)pid);
    n = readlink(path, cwd, sizeof cwd - 1);
    if (n <= 0)
        return false;
    cwd[n] = '\0';
    return strstr(cwd, dir) != NULL;
}

/* The node is killed, its server lives on: the next node ends it, whoever its parent is. */
static void test_leftover_postmaster_is_ended(void **state)
{
    enum hf_pg_state pg_state;
    char path[160], line[64] = "";
    pid_t pid;
    FILE *f;

    (void)state;
    pid = fork();
    if (pid == 0) {
        struct hf_pg_job job = {.work = HF_WORK_START};
        struct hf_pg_result r;
        server_reopen(&a, "a");
        _exit(hf_pg_run(a.pg, &job, &r) == 0 ? 0 : 1);
    }
    int status = 1;
    assert_int_equal(waitpid(pid, &status, 0), pid);
    assert_int_equal(status, 0);
    (void)snprintf(path, sizeof path, "%s/data/postmaster.pid", a.dir);
    f = fopen(path, "r");
    assert_non_null(f);
    assert_non_null(fgets(line, sizeof line, f));
    (void)fclose(f);
    pid = (pid_t)atoi(line);
    assert_true(works_in(pid, "/a/data"));
    assert_int_equal(hf_pg_probe(a.pg, &pg_state, NULL), 0);
    assert_int_equal(pg_state, HF_PG_DOWN);
    assert_false(works_in(pid, "/a/data")); /* at most a zombie that init has not reaped yet */
}

static void test_open_refuses_what_is_wrong(void **state)
{
    struct hf_pg_config c = {
        .node_dir = a.dir, .name = "a", .member = "a", .allow_ephemeral = true};
    struct hf_pg *pg;
    struct hf_error err = {0};
    char path[300];

    (void)state;
    (void)snprintf(path, sizeof path, "%s/data", a.dir);
    assert_int_equal(chmod(path, 02770), 0);
    assert_int_equal(hf_pg_open(&pg, &c, &err), 0); /* fsGroup: repaired */
    hf_pg_close(pg);
    struct stat st;
    assert_int_equal(stat(path, &st), 0);
    assert_int_equal(st.st_mode & 07777, 0700);
    c.bindir = "/nonexistent";
    assert_int_equal(hf_pg_open(&pg, &c, &err), HF_ENOENT);
    c.bindir = NULL;
    c.node_dir = "/usr";
    assert_int_equal(hf_pg_open(&pg, &c, &err), HF_EPERM);
    assert_non_null(strstr(err.text, "chown"));
    memset(path, 'x', 120);
    path[0] = '/';
    path[120] = '\0';
    c.node_dir = path;
    assert_int_equal(hf_pg_open(&pg, &c, &err), HF_EINVAL);
    assert_non_null(strstr(err.text, "hint"));
    if (stat("/dev/shm", &st) == 0 && mkdir("/dev/shm/hf-test", 0700) == 0) {
        c.node_dir = "/dev/shm/hf-test";
        c.allow_ephemeral = false;
        assert_int_equal(hf_pg_open(&pg, &c, &err), HF_EINVAL);
        assert_int_equal(rmdir("/dev/shm/hf-test"), 0);
    }
    server_end(&a);
}

int main(int argc, char **argv)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_first_epoch_alone),
        cmocka_unit_test(test_settings_are_ours),
        cmocka_unit_test(test_accounts),
        cmocka_unit_test(test_accounts_are_their_administrators),
        cmocka_unit_test(test_accounts_whatever_the_defaults),
        cmocka_unit_test(test_pid_is_kept_while_it_is_used),
        cmocka_unit_test(test_who_does_not_run_is_not_reminded),
        cmocka_unit_test(test_end_is_noticed),
        cmocka_unit_test(test_killed_backend_ends_the_server),
        cmocka_unit_test(test_barrier_after_a_new_server),
        cmocka_unit_test(test_leftover_postmaster_is_ended),
        cmocka_unit_test(test_open_refuses_what_is_wrong),
    };

    if (argc > 1)
        cmocka_set_test_filter(argv[1]);
    return cmocka_run_group_tests(tests, fixture_setup, fixture_teardown);
}
