/* The postmaster: started as our child in a session of its own, watched by a thread, stopped with a
 * bound. */
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/inotify.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/log.h"
#include "postgres/private.h"

enum { LOG_BYTES_MAX = 16 * 1024 * 1024 };

/* --- the log ---------------------------------------------------------------------------------- */

static void copy_file(int from, const char *to)
{
    int fd = open(to, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
    char buf[65536];
    ssize_t n;

    if (fd < 0)
        return;
    while ((n = read(from, buf, sizeof buf)) > 0)
        if (write(fd, buf, (size_t)n) != n)
            break; /* a full disk: the old log is worth less than room */
    (void)close(fd);
}

void hf_pg_log_rotate(struct hf_pg *pg)
{
    char old[HF_PG_PATH_MAX + 4];
    struct stat st;
    int fd;

    if (stat(pg->log_file, &st) != 0 || st.st_size < LOG_BYTES_MAX)
        return;
    fd = open(pg->log_file, O_RDWR | O_CLOEXEC);
    if (fd < 0)
        return;
    (void)snprintf(old, sizeof old, "%s.1", pg->log_file);
    copy_file(fd, old);
    /* Writers have it open for appending: they go on at the new end. */
    if (ftruncate(fd, 0) != 0)
        hf_warn("%s: cannot shorten %s: %s", pg->name, pg->log_file, strerror(errno));
    (void)close(fd);
}

/* What the server said last of what went wrong, in this life. Its answers to clients who come while it starts or ends
 * do not count. */
static void log_complaint(const struct hf_pg *pg, char *out, size_t cap)
{
    char buf[8192];
    int fd = open(pg->log_file, O_RDONLY | O_CLOEXEC);
    off_t end = fd < 0 ? 0 : lseek(fd, 0, SEEK_END);
    off_t from = pg->log_at <= end ? pg->log_at : 0; /* it was rotated meanwhile */
    off_t tail = end - from < (off_t)sizeof buf ? from : end - (off_t)sizeof buf + 1;
    ssize_t n = fd < 0 ? -1 : pread(fd, buf, sizeof buf - 1, tail);
    const char *best = NULL;
    char *save = NULL;

    (void)snprintf(out, cap, "see %s", pg->log_file);
    if (fd >= 0)
        (void)close(fd);
    if (n <= 0)
        return;
    buf[n] = '\0';
    for (char *l = strtok_r(buf, "\n", &save); l != NULL; l = strtok_r(NULL, "\n", &save))
        if (strstr(l, "PANIC:") != NULL ||
            (strstr(l, "FATAL:") != NULL && strstr(l, "the database system is") == NULL &&
             (best == NULL || strstr(best, "PANIC:") == NULL)))
            best = l;
    if (best != NULL)
        (void)snprintf(out, cap, "%s; see %s", best, pg->log_file);
}

/* --- the watcher ------------------------------------------------------------------------------ */

/* Waits for the postmaster's end, then for its children's: a backend may outlive a killed
 * postmaster until it next looks, and could still commit. Its pid is ours, and nobody else's, until it is reaped: that comes when no
 * thread can find it any more to send it a signal. */
static void *watch(void *arg)
{
    struct hf_pg *pg = arg;
    struct hf_error err;
    char why[512], said[400];
    siginfo_t ended;
    bool asked;
    int status = 0;
    pid_t pid;

    pthread_mutex_lock(&pg->lock);
    pid = pg->pid;
    pthread_mutex_unlock(&pg->lock);
    while (waitid(P_PID, (id_t)pid, &ended, WEXITED | WNOWAIT) < 0 && errno == EINTR)
        ;
    if (hf_pg_end_processes(pg->data, false, &err) != 0)
        hf_err("%s: after PostgreSQL's end: %s", pg->name, err.text);
    pthread_mutex_lock(&pg->lock);
    asked = pg->stopping;
    pg->pid = 0;
    pg->status.running = pg->status.sql = false;
    pthread_cond_broadcast(&pg->changed);
    pthread_mutex_unlock(&pg->lock);
    if (pg->hooks.on_postmaster != NULL)
        pg->hooks.on_postmaster(pg->hooks.ctx, 0);
    (void)waitpid(pid, &status, 0);
    if (asked || pg->hooks.on_exit == NULL)
        return NULL;
    log_complaint(pg, said, sizeof said);
    if (WIFSIGNALED(status)) /* what it said is not why */
        (void)snprintf(why, sizeof why, "signal %d", WTERMSIG(status));
    else
        (void)snprintf(why, sizeof why, "exit status %d: %s", WEXITSTATUS(status), said);
    pg->hooks.on_exit(pg->hooks.ctx, pid, why);
    return NULL;
}

void hf_pg_server_forget(struct hf_pg *pg)
{
    bool join;

    pthread_mutex_lock(&pg->lock);
    join = pg->watched && pg->pid == 0;
    if (join)
        pg->watched = false;
    pthread_mutex_unlock(&pg->lock);
    if (join)
        (void)pthread_join(pg->watcher, NULL);
}

/* --- start ------------------------------------------------------------------------------------ */

static void postmaster_child(const struct hf_pg *pg, char *const *argv, char *const *envp, int log)
{
    sigset_t none;
    int null = open("/dev/null", O_RDWR);

    sigemptyset(&none);
    (void)sigprocmask(SIG_SETMASK, &none, NULL);
    (void)signal(SIGPIPE, SIG_DFL);
    if (setsid() < 0 || null < 0 || dup2(null, 0) < 0 || dup2(log, 1) < 0 || dup2(log, 2) < 0 ||
        chdir(pg->data) != 0)
        _exit(126);
    (void)close_range(3, ~0u, 0);
    (void)execve(argv[0], argv, envp);
    _exit(127);
}

static int spawn(struct hf_pg *pg, struct hf_error *err)
{
    char exe[HF_PG_PATH_MAX + 16], config[HF_PG_PATH_MAX + 64], hba[HF_PG_PATH_MAX + 64];
    char ident[HF_PG_PATH_MAX + 64];
    char *argv[] = {exe, "-D", pg->data, "-c", config, "-c", hba, "-c", ident, NULL};
    char *envp[] = {"LC_ALL=C.UTF-8", "PATH=/usr/bin:/bin", NULL};
    int log = open(pg->log_file, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0600);
    pid_t pid;

    if (log < 0)
        return hf_fail(err, HF_EIO, "%s: cannot open %s: %s", pg->name, pg->log_file,
                       strerror(errno));
    pg->log_at = lseek(log, 0, SEEK_END);
    (void)snprintf(exe, sizeof exe, "%s/postgres", pg->bindir);
    (void)snprintf(config, sizeof config, "config_file=%s/postgresql.conf", pg->conf_dir);
    (void)snprintf(hba, sizeof hba, "hba_file=%s/pg_hba.conf", pg->conf_dir);
    (void)snprintf(ident, sizeof ident, "ident_file=%s/pg_ident.conf", pg->conf_dir);
    pthread_mutex_lock(&pg->lock);
    pid = fork();
    if (pid == 0)
        postmaster_child(pg, argv, envp, log);
    if (pid > 0) {
        pg->pid = pid;
        pg->stopping = false;
        pg->status.running = true;
    }
    pthread_mutex_unlock(&pg->lock);
    (void)close(log);
    if (pid < 0)
        return hf_fail(err, HF_EIO, "%s: cannot fork for postgres: %s", pg->name, strerror(errno));
    if (pg->hooks.on_postmaster != NULL)
        pg->hooks.on_postmaster(pg->hooks.ctx, pid);
    if (pthread_create(&pg->watcher, NULL, watch, pg) != 0) {
        int status;
        pthread_mutex_lock(&pg->lock);
        pg->pid = 0;
        pg->status.running = false;
        pthread_mutex_unlock(&pg->lock);
        if (pg->hooks.on_postmaster != NULL)
            pg->hooks.on_postmaster(pg->hooks.ctx, 0);
        (void)kill(pid, SIGKILL);
        (void)waitpid(pid, &status, 0);
        return hf_fail(err, HF_ENOMEM, "%s: cannot start a thread to watch postgres", pg->name);
    }
    pg->watched = true;
    return 0;
}

bool hf_pg_server_ready(const struct hf_pg *pg)
{
    char path[HF_PG_PATH_MAX], text[1024], *line = text;

    /* The eighth line of postmaster.pid is the state, padded with spaces. */
    if (hf_pg_path(path, sizeof path, pg->data, "postmaster.pid") != 0 ||
        hf_pg_read_file(path, text, sizeof text) <= 0)
        return false;
    for (int i = 0; i < 7 && line != NULL; i++) {
        line = strchr(line, '\n');
        if (line != NULL)
            line++;
    }
    return line != NULL && strncmp(line, "ready", 5) == 0;
}

static bool is_receiver(void *ctx, const char *title)
{
    (void)ctx;
    return strstr(title, "walreceiver") != NULL;
}

/* Waits for what postmaster.pid says, woken by its changes. The end of local WAL without being
 * consistent (after a rewind, or S10) shows as a WAL receiver: the startup process asks for one
 * only then. */
static int await_ready(struct hf_pg *pg, int timeout_ms, bool *sql, struct hf_error *err)
{
    uint64_t deadline_ns = hf_clock_ns() + (uint64_t)timeout_ms * HF_MS;
    int fd = inotify_init1(IN_CLOEXEC | IN_NONBLOCK);
    char drain[4096], why[400];
    int code = 0;

    if (fd < 0 || inotify_add_watch(fd, pg->data, IN_CREATE | IN_MODIFY | IN_MOVED_TO) < 0)
        code = hf_fail(err, HF_EIO, "%s: cannot watch %s: %s", pg->name, pg->data, strerror(errno));
    *sql = false;
    while (code == 0 && hf_clock_ns() < deadline_ns) {
        struct pollfd p[2] = {{.fd = fd, .events = POLLIN}, {.fd = pg->wake_fd, .events = POLLIN}};
        pid_t pid = hf_pg_pid(pg);

        if (pid == 0) {
            log_complaint(pg, why, sizeof why);
            code = hf_fail(err, strstr(why, "No space left") != NULL ? HF_ENOSPC : HF_EPG,
                           "%s: PostgreSQL does not start: %s", pg->name, why);
            break;
        }
        *sql = hf_pg_server_ready(pg);
        if (*sql || hf_pg_any_child(pid, is_receiver, NULL)) {
            *sql = *sql || hf_pg_server_ready(pg);
            break;
        }
        (void)poll(p, 2, 20);
        if (p[1].revents != 0)
            code = hf_fail(err, HF_ECLOSED, "%s: interrupted", pg->name);
        while (read(fd, drain, sizeof drain) > 0)
            ;
    }
    if (fd >= 0)
        (void)close(fd);
    return code;
}

int hf_pg_server_start(struct hf_pg *pg, int timeout_ms, bool *sql, struct hf_error *err)
{
    struct hf_pg_control control;
    char path[HF_PG_PATH_MAX];
    int code;

    hf_pg_server_forget(pg);
    hf_pg_session_close(pg); /* to a server of before */
    if (hf_pg_exists(pg->mark))
        return hf_fail(err, HF_ECORRUPT,
                       "%s: will not start %s: it is half-way through a rewind (hint: a fresh copy "
                       "from the leader replaces it)",
                       pg->name, pg->data);
    if (!hf_pg_exists(pg->data))
        return hf_fail(err, HF_ENOENT, "%s: there is no data directory %s", pg->name, pg->data);
    code = hf_pg_end_processes(pg->data, true, err);
    if (code == 0)
        code = hf_pg_control_read(pg, pg->data, &control, err);
    if (code == 0)
        pg->segment_bytes = control.segment_bytes;
    if (code == 0)
        code = hf_pg_settings_prepare(pg, &control, err);
    if (code == 0)
        code = hf_pg_timelines_mend(pg, &control, err);
    if (code != 0)
        return code;
    if (hf_pg_path(path, sizeof path, pg->sock_dir, ".s.PGSQL.5432.lock") == 0)
        (void)unlink(path); /* nobody owns it: see above */
    hf_pg_log_rotate(pg);
    code = spawn(pg, err);
    if (code == 0)
        code = await_ready(pg, timeout_ms, sql, err);
    if (code == 0 && *sql)
        *sql = hf_pg_session(pg, err) != NULL;
    if (code != 0 && hf_pg_pid(pg) != 0)
        (void)hf_pg_server_stop(pg, HF_PG_STOP_IMMEDIATE, HF_PG_QUIT_MS, NULL);
    return code;
}

/* --- stop ------------------------------------------------------------------------------------- */

/* True once the watcher has seen all processes gone. */
static bool await_gone(struct hf_pg *pg, int timeout_ms)
{
    struct timespec until;
    bool gone;

    (void)clock_gettime(CLOCK_MONOTONIC, &until);
    until.tv_sec += timeout_ms / 1000;
    until.tv_nsec += (long)(timeout_ms % 1000) * 1000000;
    if (until.tv_nsec >= 1000000000) {
        until.tv_sec++;
        until.tv_nsec -= 1000000000;
    }
    pthread_mutex_lock(&pg->lock);
    while (pg->pid != 0 && pthread_cond_timedwait(&pg->changed, &pg->lock, &until) == 0)
        ;
    gone = pg->pid == 0;
    pthread_mutex_unlock(&pg->lock);
    return gone;
}

int hf_pg_server_signal(struct hf_pg *pg, int signal)
{
    int rc = -1;

    pthread_mutex_lock(&pg->lock);
    if (pg->pid != 0)
        rc = kill(pg->pid, signal);
    pthread_mutex_unlock(&pg->lock);
    return rc == 0 ? 0 : HF_ECLOSED;
}

void hf_pg_remind(struct hf_pg *pg)
{
    pthread_mutex_lock(&pg->lock);
    if (pg->pid != 0 && hf_pg_has_children(pg->pid))
        (void)kill(pg->pid, SIGUSR1);
    pthread_mutex_unlock(&pg->lock);
}

int hf_pg_server_stop(struct hf_pg *pg, enum hf_pg_stop how, int timeout_ms, struct hf_error *err)
{
    hf_pg_session_close(pg);
    pthread_mutex_lock(&pg->lock);
    pg->stopping = true;
    pthread_mutex_unlock(&pg->lock);
    if (how == HF_PG_STOP_FAST && hf_pg_server_signal(pg, SIGINT) == 0 &&
        await_gone(pg, timeout_ms)) {
        hf_pg_server_forget(pg);
        return 0;
    }
    if (hf_pg_server_signal(pg, SIGQUIT) == 0 && !await_gone(pg, HF_PG_QUIT_MS)) {
        hf_warn("%s: PostgreSQL does not end at SIGQUIT: killing it", pg->name);
        (void)hf_pg_server_signal(pg, SIGKILL);
        if (!await_gone(pg, 2 * HF_PG_KILL_MS))
            return hf_fail(err, HF_ETIMEOUT,
                           "%s: PostgreSQL does not end (hint: the disk may be hanging)", pg->name);
    }
    hf_pg_server_forget(pg);
    return 0;
}
