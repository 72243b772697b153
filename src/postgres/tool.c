/* Child processes: PostgreSQL's own tools, and finding and ending what an earlier life left behind.
 */
#include <ctype.h>
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/log.h"
#include "postgres/private.h"

enum { LINE_MAX_BYTES = 4096 };

/* After fork: async-signal-safe calls only, the process has other threads. */
static void tool_child(const char *dir, const char *path, char *const *argv, char *const *envp,
                       int out, pid_t parent)
{
    sigset_t none;
    int null = open("/dev/null", O_RDWR);

    (void)prctl(PR_SET_PDEATHSIG, SIGKILL);
    if (getppid() != parent)
        _exit(126);
    sigemptyset(&none);
    (void)sigprocmask(SIG_SETMASK, &none, NULL);
    (void)signal(SIGPIPE, SIG_DFL);
    if (null < 0 || dup2(null, 0) < 0 || dup2(out, 1) < 0 || dup2(out, 2) < 0 || chdir(dir) != 0)
        _exit(126);
    (void)setpgid(0, 0);
    (void)close_range(3, ~0u, 0);
    (void)execve(path, argv, envp);
    _exit(127);
}

struct reader {
    hf_pg_line_fn line;
    void *ctx;
    char buf[LINE_MAX_BYTES];
    size_t len;
    struct hf_pg_tool_result *result;
};

/* Keeps the end: tools say last why they failed. */
static void keep_tail(struct hf_pg_tool_result *r, const char *line)
{
    size_t have = strlen(r->out), n = strlen(line);

    if (n + 3 > sizeof r->out)
        n = sizeof r->out - 3;
    if (have + n + 3 > sizeof r->out) {
        size_t drop = have + n + 3 - sizeof r->out;
        memmove(r->out, r->out + drop, have - drop + 1);
        have -= drop;
    }
    if (have > 0) {
        memcpy(r->out + have, "; ", 2);
        have += 2;
        if (have + n >= sizeof r->out)
            n = sizeof r->out - 1 - have;
    }
    memcpy(r->out + have, line, n);
    r->out[have + n] = '\0';
}

static void take_lines(struct reader *r, bool end)
{
    char *nl;

    while ((nl = memchr(r->buf, '\n', r->len)) != NULL || (end && r->len > 0) ||
           r->len == sizeof r->buf - 1) {
        size_t n = nl != NULL ? (size_t)(nl - r->buf) : r->len;
        size_t eat = nl != NULL ? n + 1 : n;
        char save = r->buf[n];
        r->buf[n] = '\0';
        if (r->line != NULL)
            r->line(r->ctx, r->buf);
        if (n > 0)
            keep_tail(r->result, r->buf);
        r->buf[n] = save;
        memmove(r->buf, r->buf + eat, r->len - eat);
        r->len -= eat;
    }
}

/* Until end of file, the deadline or the interrupt. 0, or why not. */
static int read_all(struct hf_pg *pg, int fd, struct reader *r, uint64_t deadline_ns)
{
    for (;;) {
        struct pollfd p[2] = {{.fd = fd, .events = POLLIN}, {.fd = pg->wake_fd, .events = POLLIN}};
        uint64_t now = hf_clock_ns();
        ssize_t n;

        if (now >= deadline_ns)
            return HF_ETIMEOUT;
        if (poll(p, 2,
                 (int)((deadline_ns - now) / HF_MS > 60000 ? 60000
                                                           : (deadline_ns - now) / HF_MS + 1)) <
                0 &&
            errno != EINTR)
            return HF_EIO;
        if (p[1].revents != 0)
            return HF_ECLOSED;
        if (p[0].revents == 0)
            continue;
        n = read(fd, r->buf + r->len, sizeof r->buf - 1 - r->len);
        if (n < 0 && errno == EINTR)
            continue;
        if (n <= 0) {
            take_lines(r, true);
            return 0;
        }
        r->len += (size_t)n;
        take_lines(r, false);
    }
}

static int tool_finish(const char *name, pid_t pid, int why, struct hf_pg_tool_result *result,
                       struct hf_error *err)
{
    int status;

    if (why != 0)
        (void)kill(-pid, SIGKILL), (void)kill(pid, SIGKILL);
    while (waitpid(pid, &status, 0) < 0)
        if (errno != EINTR)
            return hf_fail(err, HF_EIO, "cannot wait for %s: %s", name, strerror(errno));
    result->status = WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
    if (why == HF_ETIMEOUT)
        return hf_fail(err, why, "%s took too long and was ended", name);
    if (why != 0)
        return hf_fail(err, why, "%s was interrupted", name);
    if (result->status == 0)
        return 0;
    if (strstr(result->out, "No space left on device") != NULL)
        return hf_fail(err, HF_ENOSPC,
                       "%s failed: disk full: %s (hint: free or add space; it is tried again)",
                       name, result->out);
    return hf_fail(err, HF_EPG, "%s failed (status %d): %s", name, result->status, result->out);
}

int hf_pg_tool(struct hf_pg *pg, const char *const *argv, int timeout_ms, hf_pg_line_fn line,
               void *ctx, struct hf_pg_tool_result *result, struct hf_error *err)
{
    static const char *const env[] = {"LC_ALL=C", "PGTZ=UTC", "PGCONNECT_TIMEOUT=30", NULL};
    struct hf_pg_tool_result local;
    struct reader reader = {.line = line, .ctx = ctx};
    char path[HF_PG_PATH_MAX], path_env[HF_PG_PATH_MAX + 64];
    const char *envp[8] = {env[0], env[1], env[2], path_env, NULL};
    uint64_t deadline_ns = hf_clock_ns() + (uint64_t)timeout_ms * HF_MS;
    int fds[2], why;
    pid_t pid, parent = getpid();

    if (result == NULL)
        result = &local;
    memset(result, 0, sizeof *result);
    reader.result = result;
    if (hf_pg_path(path, sizeof path, pg->bindir, argv[0]) != 0)
        return hf_fail(err, HF_EINVAL, "path too long: %s/%s", pg->bindir, argv[0]);
    (void)snprintf(path_env, sizeof path_env, "PATH=%s:/usr/bin:/bin", pg->bindir);
    for (unsigned i = 0; i < 3 && pg->nameless[0][0] != '\0'; i++)
        envp[4 + i] = pg->nameless[i];
    if (pipe2(fds, O_CLOEXEC) != 0)
        return hf_fail(err, HF_EIO, "cannot make a pipe for %s: %s", argv[0], strerror(errno));
    pid = fork();
    if (pid == 0)
        tool_child(pg->conf_dir, path, (char *const *)(uintptr_t)argv,
                   (char *const *)(uintptr_t)envp, fds[1], parent);
    (void)close(fds[1]);
    if (pid < 0) {
        (void)close(fds[0]);
        return hf_fail(err, HF_EIO, "cannot fork for %s: %s", argv[0], strerror(errno));
    }
    why = read_all(pg, fds[0], &reader, deadline_ns);
    (void)close(fds[0]);
    return tool_finish(argv[0], pid, why, result, err);
}

/* --- processes by working directory ----------------------------------------------------------- */

/* A person's shell may stand in the same directory: only PostgreSQL's programs are meant. */
static bool is_postgres(const char *proc_name)
{
    char path[300], exe[HF_PG_PATH_MAX];
    const char *base;
    ssize_t n;

    (void)snprintf(path, sizeof path, "/proc/%s/exe", proc_name);
    n = readlink(path, exe, sizeof exe - 1);
    if (n <= 0) /* no program any more, but its directory still: in the middle of its exit */
        return errno == ENOENT;
    exe[n] = '\0';
    base = strrchr(exe, '/');
    base = base != NULL ? base + 1 : exe;
    return strncmp(base, "postgres", 8) == 0 || strncmp(base, "pg_", 3) == 0 ||
           strncmp(base, "initdb", 6) == 0;
}

/* Calls fn for each of PostgreSQL's processes with this working directory; returns how many. A
 * server's processes all stay in PGDATA for life, whatever became of postmaster.pid and of their
 * parent. */
static int each_process_in(dev_t dev, ino_t ino, void (*fn)(pid_t pid, int signal), int signal)
{
    DIR *proc = opendir("/proc");
    struct dirent *e;
    int n = 0;

    if (proc == NULL)
        return -1;
    while ((e = readdir(proc)) != NULL) {
        char path[300];
        struct stat st;
        pid_t pid;

        if (!isdigit((unsigned char)e->d_name[0]))
            continue;
        pid = (pid_t)strtol(e->d_name, NULL, 10);
        (void)snprintf(path, sizeof path, "/proc/%s/cwd", e->d_name);
        if (pid == getpid() || stat(path, &st) != 0 || st.st_dev != dev || st.st_ino != ino ||
            !is_postgres(e->d_name))
            continue;
        n++;
        if (fn != NULL)
            fn(pid, signal);
    }
    (void)closedir(proc);
    return n;
}

static void send_signal(pid_t pid, int signal)
{
    (void)kill(pid, signal);
}

int hf_pg_end_processes(const char *dir, bool gentle, struct hf_error *err)
{
    struct stat st;
    uint64_t start = hf_clock_ns();
    int n;

    if (stat(dir, &st) != 0)
        return 0;
    n = each_process_in(st.st_dev, st.st_ino, gentle ? send_signal : NULL, SIGQUIT);
    while (n != 0) {
        uint64_t ms = (hf_clock_ns() - start) / HF_MS;
        bool hard = !gentle || ms > HF_PG_QUIT_MS;

        if (n < 0)
            return hf_fail(err, HF_EIO, "cannot read /proc: %s", strerror(errno));
        if (ms > HF_PG_QUIT_MS + HF_PG_KILL_MS)
            return hf_fail(err, HF_ETIMEOUT,
                           "%d processes in %s do not end (hint: the disk may be hanging)", n, dir);
        n = each_process_in(st.st_dev, st.st_ino, hard ? send_signal : NULL, SIGKILL);
        if (n > 0)
            (void)usleep(ms < 20 ? 500 : 5000);
    }
    return 0;
}

/* A postmaster has one thread, which is the parent of all its processes. */
static int children_of(pid_t parent, char *list, size_t cap)
{
    char path[64];

    (void)snprintf(path, sizeof path, "/proc/%d/task/%d/children", (int)parent, (int)parent);
    return hf_pg_read_file(path, list, cap);
}

bool hf_pg_has_children(pid_t parent)
{
    char list[32];

    return children_of(parent, list, sizeof list) > 0;
}

bool hf_pg_any_child(pid_t parent, bool (*fn)(void *ctx, const char *title), void *ctx)
{
    char path[64], list[16384], title[256];
    char *save = NULL;

    if (children_of(parent, list, sizeof list) <= 0)
        return false;
    for (char *p = strtok_r(list, " \n", &save); p != NULL; p = strtok_r(NULL, " \n", &save)) {
        (void)snprintf(path, sizeof path, "/proc/%.20s/cmdline", p);
        if (hf_pg_read_file(path, title, sizeof title) > 0 && fn(ctx, title))
            return true;
    }
    return false;
}
