#include "fixture.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <grp.h>
#include <libpq-fe.h>
#include <poll.h>
#include <pwd.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include <cmocka.h>

#include "base/clock.h"
#include "postgres/private.h"
#include "postgres/writer.h"

static char root[64];
enum hf_pg_guard guard_of_new;

int fixture_setup(void **state)
{
    (void)state;
    (void)signal(SIGPIPE, SIG_IGN);
    if (geteuid() == 0) {
        struct passwd *pw = getpwnam("postgres");
        if (pw == NULL || setgroups(0, NULL) != 0 || setgid(pw->pw_gid) != 0 ||
            setuid(pw->pw_uid) != 0)
            return -1;
    }
    (void)snprintf(root, sizeof root, "/tmp/hfpg-XXXXXX");
    return mkdtemp(root) != NULL && chdir(root) == 0 ? 0 : -1;
}

/* What a test that has failed has left running. */
static int end_all(void)
{
    static const char *const dirs[] = {"data", "pg"};
    DIR *d = opendir(root);
    struct dirent *e;
    int rv = d != NULL ? 0 : -1;

    while (d != NULL && (e = readdir(d)) != NULL)
        for (size_t i = 0; e->d_name[0] != '.' && i < sizeof dirs / sizeof *dirs; i++) {
            char path[HF_PG_PATH_MAX];
            (void)snprintf(path, sizeof path, "%s/%s/%s", root, e->d_name, dirs[i]);
            if (hf_pg_end_processes(path, false, NULL) != 0)
                rv = -1;
        }
    if (d != NULL)
        (void)closedir(d);
    return rv;
}

int fixture_teardown(void **state)
{
    (void)state;
    if (end_all() != 0)
        return -1;
    return chdir("/") == 0 && hf_pg_remove_tree(root, NULL) == 0 ? 0 : -1;
}

/* --- relay --------------------------------------------------------------------------------------
 */

static int unix_socket(const char *path, bool listening)
{
    struct sockaddr_un un = {.sun_family = AF_UNIX};
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    int rc;

    (void)snprintf(un.sun_path, sizeof un.sun_path, "%s", path);
    rc = listening ? bind(fd, (struct sockaddr *)&un, sizeof un)
                   : connect(fd, (struct sockaddr *)&un, sizeof un);
    if (rc != 0 || (listening && listen(fd, 16) != 0)) {
        (void)close(fd);
        return -1;
    }
    return fd;
}

static void drop(struct relay *r, int i)
{
    if (r->from[i] >= 0)
        (void)close(r->from[i]);
    if (r->to[i] >= 0)
        (void)close(r->to[i]);
    r->from[i] = r->to[i] = -1;
    r->stuck[i][0] = r->stuck[i][1] = false;
}

/* No head-of-line blocking: pg_basebackup does not read one connection while it opens another. Four
 * kilobytes always fit into a Unix socket that polls as writable. */
static bool carry(int from, int to, bool *stuck)
{
    char buf[4096];
    struct pollfd p = {.fd = to, .events = POLLOUT};
    ssize_t n, done = 0;

    *stuck = poll(&p, 1, 0) == 0;
    if (*stuck)
        return true;
    n = read(from, buf, sizeof buf);

    while (done < n) {
        ssize_t w = write(to, buf + done, (size_t)(n - done));
        if (w <= 0)
            return false;
        done += w;
    }
    return n > 0;
}

static void relay_state(struct relay *r)
{
    pthread_mutex_lock(&r->lock);
    for (int i = 0; i < RELAY_CONNS_MAX; i++) {
        if (!r->open && r->to[i] >= 0)
            drop(r, i);
        if (r->open && r->from[i] >= 0 && r->to[i] < 0 &&
            (r->to[i] = unix_socket(r->target, false)) < 0)
            drop(r, i);
    }
    r->closing = false;
    pthread_mutex_unlock(&r->lock);
}

static void relay_accept(struct relay *r)
{
    int fd = accept4(r->listener, NULL, NULL, SOCK_CLOEXEC);

    for (int i = 0; i < RELAY_CONNS_MAX && fd >= 0; i++)
        if (r->from[i] < 0) {
            r->from[i] = fd;
            return;
        }
    if (fd >= 0)
        (void)close(fd);
}

static void *relay_main(void *arg)
{
    struct relay *r = arg;
    char byte;

    while (!r->stop) {
        struct pollfd p[2 + 2 * RELAY_CONNS_MAX];
        p[0] = (struct pollfd){.fd = r->listener, .events = POLLIN};
        p[1] = (struct pollfd){.fd = r->wake[0], .events = POLLIN};
        for (int i = 0; i < RELAY_CONNS_MAX; i++) {
            bool paired = r->to[i] >= 0, *stuck = r->stuck[i];
            /* [0]: from -> to, [1]: back. A stuck direction waits for its sink. */
            p[2 + 2 * i] = (struct pollfd){
                .fd = r->from[i],
                .events = (short)((paired && !stuck[0] ? POLLIN : 0) | (stuck[1] ? POLLOUT : 0))};
            p[3 + 2 * i] = (struct pollfd){
                .fd = r->to[i],
                .events = (short)((stuck[1] ? 0 : POLLIN) | (stuck[0] ? POLLOUT : 0))};
        }
        (void)poll(p, 2 + 2 * RELAY_CONNS_MAX, -1);
        for (int i = 0; i < RELAY_CONNS_MAX; i++) {
            short in = p[2 + 2 * i].revents, out = p[3 + 2 * i].revents;
            bool ok = true;
            if ((in & ~POLLOUT) != 0 || (out & POLLOUT) != 0)
                ok = r->to[i] >= 0 && carry(r->from[i], r->to[i], &r->stuck[i][0]);
            if (ok && ((out & ~POLLOUT) != 0 || (in & POLLOUT) != 0))
                ok = carry(r->to[i], r->from[i], &r->stuck[i][1]);
            if (!ok)
                drop(r, i);
        }
        if (p[0].revents != 0)
            relay_accept(r);
        if (p[1].revents != 0)
            (void)!read(r->wake[0], &byte, 1);
        relay_state(r);
    }
    return NULL;
}

static void relay_start(struct relay *r, const char *dir)
{
    char path[200];

    memset(r, 0, sizeof *r);
    for (int i = 0; i < RELAY_CONNS_MAX; i++)
        r->from[i] = r->to[i] = -1;
    assert_int_equal(mkdir(dir, 0700), 0);
    (void)snprintf(path, sizeof path, "%s/.s.PGSQL.5432", dir);
    r->listener = unix_socket(path, true);
    assert_true(r->listener >= 0);
    assert_int_equal(pipe2(r->wake, O_CLOEXEC), 0);
    pthread_mutex_init(&r->lock, NULL);
    assert_int_equal(pthread_create(&r->thread, NULL, relay_main, r), 0);
}

static void relay_stop(struct relay *r)
{
    r->stop = true;
    (void)!write(r->wake[1], "x", 1);
    (void)pthread_join(r->thread, NULL);
    for (int i = 0; i < RELAY_CONNS_MAX; i++)
        drop(r, i);
    (void)close(r->listener);
    (void)close(r->wake[0]);
    (void)close(r->wake[1]);
}

void relay_open(struct relay *r, bool open)
{
    bool busy = true;

    pthread_mutex_lock(&r->lock);
    r->open = open;
    r->closing = true;
    pthread_mutex_unlock(&r->lock);
    (void)!write(r->wake[1], "x", 1);
    while (busy) {
        (void)usleep(200);
        pthread_mutex_lock(&r->lock);
        busy = r->closing;
        pthread_mutex_unlock(&r->lock);
    }
}

/* --- servers ------------------------------------------------------------------------------------
 */

static void on_exit_hook(void *ctx, pid_t pid, const char *why)
{
    (void)pid;
    (void)why;
    __atomic_add_fetch(&((struct server *)ctx)->exits, 1, __ATOMIC_SEQ_CST);
}

void server_reopen(struct server *s, const char *name)
{
    struct hf_pg_config c = {.node_dir = s->dir,
                             .name = name,
                             .member = name,
                             .wal_keep_mb = 128,
                             .extra_conf = s->extra_conf,
                             .allow_ephemeral = true,
                             .guard = s->guard,
                             .guard_dir = GUARD_DIR,
                             .hooks = {s, NULL, on_exit_hook}};
    struct hf_error err = {0};

    if (hf_pg_open(&s->pg, &c, &err) != 0)
        fail_msg("%s", err.text);
}

void server_make(struct server *s, const char *name)
{
    char path[160];

    memset(s, 0, sizeof *s);
    s->guard = guard_of_new;
    (void)snprintf(s->dir, sizeof s->dir, "%s/%s", root, name);
    assert_int_equal(mkdir(s->dir, 0700), 0);
    (void)snprintf(path, sizeof path, "%s/relay", s->dir);
    relay_start(&s->relay, path);
    (void)snprintf(path, sizeof path, "%s/copy", s->dir);
    relay_start(&s->copy, path);
    server_reopen(s, name);
}

void server_end(struct server *s)
{
    if (s->pg != NULL) {
        (void)job_ok(s, HF_WORK_STOP);
        hf_pg_close(s->pg);
    }
    relay_stop(&s->relay);
    relay_stop(&s->copy);
    assert_int_equal(hf_pg_remove_tree(s->dir, NULL), 0);
}

void server_follow(struct server *s, const struct server *leader)
{
    relay_open(&s->relay, false);
    relay_open(&s->copy, false);
    (void)snprintf(s->relay.target, sizeof s->relay.target, "%s/sock/.s.PGSQL.5432", leader->dir);
    (void)snprintf(s->copy.target, sizeof s->copy.target, "%s/sock/.s.PGSQL.5432", leader->dir);
}

void pair_make(struct server *leader, struct server *follower)
{
    const char *const names[] = {"b"};

    server_make(leader, "a");
    (void)job_ok(leader, HF_WORK_INIT);
    (void)job_ok(leader, HF_WORK_START);
    (void)job_ok(leader, HF_WORK_POSITION);
    (void)job_ok(leader, HF_WORK_PROMOTE);
    sql_run(leader, "create table t (n bigint primary key)");
    server_make(follower, "b");
    server_follow(follower, leader);
    relay_open(&follower->copy, true);
    (void)job_ok(follower, HF_WORK_CLONE);
    relay_open(&follower->relay, true);
    (void)job_rule(leader, HF_WORK_RULE, 1, names);
    sql_until(leader, "select count(*) from pg_stat_replication where sync_state = 'quorum'", "1");
}

struct hf_pg_result job_rule(struct server *s, enum hf_work work, unsigned n,
                             const char *const *names)
{
    struct hf_pg_job job = {.work = work, .epoch = 1, .n_voters = n};
    struct hf_pg_result result;

    for (unsigned i = 0; i < n; i++)
        (void)snprintf(job.voters[i], sizeof job.voters[i], "%s", names[i]);
    if (hf_pg_run(s->pg, &job, &result) != 0)
        fail_msg("work %d: %s", (int)work, result.text);
    return result;
}

struct hf_pg_result job_ok(struct server *s, enum hf_work work)
{
    return job_rule(s, work, 0, NULL);
}

struct hf_pg_result job_fails(struct server *s, enum hf_work work)
{
    struct hf_pg_job job = {.work = work, .epoch = 1};
    struct hf_pg_result result;

    assert_int_not_equal(hf_pg_run(s->pg, &job, &result), 0);
    assert_false(result.ok);
    assert_true(result.text[0] != '\0');
    return result;
}

PGconn *sql_connect(struct server *s)
{
    struct hf_error err = {0};
    PGconn *conn = hf_pg_connect(s->pg, "postgres", "test", 5000, &err);

    if (conn == NULL || hf_pg_command(s->pg, conn, "set search_path = public", 5000, &err) != 0)
        fail_msg("%s", err.text);
    return conn;
}

void sql(struct server *s, const char *statement, char *out, size_t cap)
{
    struct hf_error err = {0};
    PGconn *conn = sql_connect(s);
    PGresult *r = hf_pg_query(s->pg, conn, statement, 20000, &err);

    if (r == NULL)
        fail_msg("%s", err.text);
    (void)snprintf(out, cap, "%s", PQntuples(r) > 0 ? PQgetvalue(r, 0, 0) : "");
    PQclear(r);
    PQfinish(conn);
}

void sql_run(struct server *s, const char *statement)
{
    char value[256];

    sql(s, statement, value, sizeof value);
}

void sql_until(struct server *s, const char *statement, const char *wanted)
{
    uint64_t start = hf_clock_ns();
    char value[256];

    for (;;) {
        sql(s, statement, value, sizeof value);
        if (strcmp(value, wanted) == 0)
            return;
        if (since_ms(start) > 10000)
            fail_msg("%s: %s, not %s", statement, value, wanted);
        (void)usleep(2000);
    }
}

double since_ms(uint64_t start_ns)
{
    return (double)(hf_clock_ns() - start_ns) / 1e6;
}

/* --- writes -------------------------------------------------------------------------------------
 */

static void count_waiting(void *ctx)
{
    (void)__atomic_add_fetch((int *)ctx, 1, __ATOMIC_SEQ_CST);
}

static void *barrier_main(void *arg)
{
    struct barrier *x = arg;

    x->code = hf_pg_barrier(x->server->pg, x->epoch, count_waiting, &x->waiting, &x->lsn, &x->err);
    return NULL;
}

void barrier_begin(struct barrier *x, struct server *s, hf_epoch epoch)
{
    *x = (struct barrier){.server = s, .epoch = epoch};
    assert_int_equal(pthread_create(&x->thread, NULL, barrier_main, x), 0);
}

void barrier_end(struct barrier *x)
{
    assert_int_equal(pthread_join(x->thread, NULL), 0);
}

hf_lsn flushed_of(struct server *s)
{
    char value[64];
    hf_lsn lsn = 0;

    sql(s, "select pg_current_wal_flush_lsn()", value, sizeof value);
    assert_true(hf_pg_parse_lsn(value, &lsn));
    return lsn;
}
