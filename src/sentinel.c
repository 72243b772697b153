#include "sentinel.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/log.h"
#include "base/process.h"

enum {
    GRACE_MIN_MS = 100,
    LOOK_MS = 250,      /* how often an idle sentinel looks at the page */
    QUIT_MS = 1000,     /* PostgreSQL's time to end after SIGQUIT; then SIGKILL */
    GONE_POLL_MS = 10,
    CHILDREN_TEXT_MAX = 8192,
};

#define MS 1000000ull

struct watch {
    struct hf_sentinel_page *page;
    pid_t node;
    uint64_t grace_ns;
    pid_t ended; /* the postmaster that was ended for an overdue lease: once is enough */
    bool node_gone;
    int node_status; /* of waitpid */
    sigset_t signals;
};

bool hf_signal_is_ignored(int signum)
{
    struct sigaction now;

    return sigaction(signum, NULL, &now) == 0 && now.sa_handler == SIG_IGN;
}

unsigned hf_sentinel_grace_ms(unsigned lease_ms)
{
    return lease_ms / 4 > GRACE_MIN_MS ? lease_ms / 4 : GRACE_MIN_MS;
}

/* -- processes, without allocation ------------------------------------------------------------------- */

/* Is `pid` still a process of ours that runs? A reused number has another parent. */
static bool is_ours(const struct watch *w, pid_t pid)
{
    struct hf_process_look now;

    return pid > 1 && hf_process_look(pid, &now) && now.state != 'Z' && now.state != 'X' &&
           (now.parent == w->node || now.parent == getpid());
}

/* Signals every child of this process but the node; returns how many there are. */
static unsigned signal_orphans(const struct watch *w, int sig)
{
    char path[64], text[CHILDREN_TEXT_MAX];
    unsigned n = 0;
    ssize_t len;
    int fd;

    (void)snprintf(path, sizeof path, "/proc/self/task/%d/children", (int)getpid());
    fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0)
        return 0;
    len = read(fd, text, sizeof text - 1);
    close(fd);
    if (len <= 0)
        return 0;
    text[len] = '\0';
    for (char *at = text; *at != '\0';) {
        char *next;
        pid_t pid = (pid_t)strtol(at, &next, 10);
        if (next == at)
            break;
        at = next;
        if (pid > 1 && (w->node_gone || pid != w->node)) {
            (void)kill(pid, sig);
            n++;
        }
    }
    return n;
}

static void reap(struct watch *w)
{
    int status;
    pid_t pid;

    while ((pid = waitpid(-1, &status, WNOHANG)) > 0) {
        if (pid == w->node && !w->node_gone) {
            w->node_gone = true;
            w->node_status = status;
        }
    }
}

static void nap_ms(unsigned ms)
{
    struct timespec t = {ms / 1000, (long)(ms % 1000) * 1000000};

    (void)nanosleep(&t, NULL);
}

/* Ends the postmaster and everything it leaves behind. PostgreSQL's processes are sessions of their own,
 * so there is no group to kill: they notice the postmaster's death, become our children, and those that
 * do not end by themselves are killed one by one. Returns when no process of it is left. */
static void end_postgres(struct watch *w, pid_t postmaster)
{
    uint64_t hard_ns = hf_clock_ns() + QUIT_MS * MS;

    if (is_ours(w, postmaster))
        (void)kill(postmaster, SIGQUIT);
    for (;;) {
        bool hard = hf_clock_ns() >= hard_ns;
        bool there = is_ours(w, postmaster);
        unsigned orphans;
        if (there && hard)
            (void)kill(postmaster, SIGKILL);
        /* Before that the postmaster itself ends its children, and may be one of ours. */
        orphans = signal_orphans(w, there && !hard ? 0 : hard ? SIGKILL : SIGQUIT);
        reap(w);
        if (!there && (orphans == 0 || signal_orphans(w, 0) == 0))
            return;
        nap_ms(GONE_POLL_MS);
    }
}

/* -- the watch --------------------------------------------------------------------------------------- */

/* From then on PostgreSQL is to end, if nothing changes; 0: there is nothing to end. */
static uint64_t overdue_ns(const struct watch *w)
{
    uint64_t deadline = atomic_load(&w->page->lease_deadline_ns), turned = atomic_load(&w->page->turned_ns);
    pid_t postmaster = atomic_load(&w->page->postmaster);

    if (!atomic_load(&w->page->primary) || deadline == 0 || postmaster == 0 || postmaster == w->ended)
        return 0;
    return (turned > deadline ? turned : deadline) + w->grace_ns;
}

static void check_lease(struct watch *w)
{
    uint64_t overdue = overdue_ns(w), now = hf_clock_ns();
    pid_t postmaster = atomic_load(&w->page->postmaster);

    if (overdue == 0 || now < overdue)
        return;
    hf_err("sentinel: the lease ran out %llu ms ago, PostgreSQL %d runs as primary, and the node hangs since %llu ms: "
           "ending PostgreSQL",
           (unsigned long long)((now - atomic_load(&w->page->lease_deadline_ns)) / MS), (int)postmaster,
           (unsigned long long)((now - atomic_load(&w->page->turned_ns)) / MS));
    w->ended = postmaster;
    end_postgres(w, postmaster);
    hf_warn("sentinel: PostgreSQL %d is gone", (int)postmaster);
}

static uint64_t time_to_sleep_ns(const struct watch *w)
{
    uint64_t now = hf_clock_ns(), look = LOOK_MS * MS, until = overdue_ns(w);

    if (until == 0)
        return look;
    if (until <= now)
        return MS;
    return until - now + MS; /* renewed meanwhile: look again then */
}

static void on_signal(struct watch *w, int sig)
{
    switch (sig) {
    case SIGTERM:
    case SIGINT:
    case SIGHUP:
        (void)kill(w->node, SIGTERM); /* a terminal that is closed, too, deserves a hand-over */
        break;
    case SIGQUIT:
        (void)kill(w->node, SIGKILL);
        break;
    default:
        break;
    }
}

static int watch_loop(struct watch *w, const struct hf_sentinel *s)
{
    while (!w->node_gone) {
        uint64_t ns = time_to_sleep_ns(w);
        struct timespec t = {(time_t)(ns / 1000000000u), (long)(ns % 1000000000u)};
        int sig = sigtimedwait(&w->signals, NULL, &t);
        if (sig > 0)
            on_signal(w, sig);
        reap(w);
        if (!w->node_gone)
            check_lease(w);
    }
    /* In this order: peers may let the lease off as soon as nobody can forward a result any more. */
    hf_death_tell(w->page);
    if (s->reaped != NULL)
        s->reaped(s->arg);
    end_postgres(w, atomic_load(&w->page->postmaster));
    reap(w);
    if (WIFSIGNALED(w->node_status)) {
        hf_err("sentinel: the node was killed by signal %d", WTERMSIG(w->node_status));
        return 128 + WTERMSIG(w->node_status);
    }
    return WEXITSTATUS(w->node_status);
}

static void become_node(const struct hf_sentinel *s, struct hf_sentinel_page *page, pid_t parent,
                        const sigset_t *old)
{
    /* The parent may have died between fork() and prctl(). */
    if (prctl(PR_SET_PDEATHSIG, SIGKILL) != 0 || getppid() != parent)
        _exit(1);
    (void)prctl(PR_SET_CHILD_SUBREAPER, 0);
    (void)sigprocmask(SIG_SETMASK, old, NULL);
    exit(s->node(s->arg, page));
}

int hf_sentinel_run(const struct hf_sentinel *s, struct hf_error *err)
{
    struct watch w = {.grace_ns = hf_sentinel_grace_ms(s->lease_ms) * MS};
    pid_t me = getpid();
    sigset_t old;

    w.page = mmap(NULL, sizeof *w.page, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    if (w.page == MAP_FAILED)
        return hf_fail(err, HF_ENOMEM, "sentinel: cannot map its page: %s", strerror(errno));
    if (prctl(PR_SET_CHILD_SUBREAPER, 1) != 0)
        return hf_fail(err, HF_EIO, "sentinel: prctl: %s", strerror(errno));
    (void)sigemptyset(&w.signals);
    (void)sigaddset(&w.signals, SIGTERM);
    (void)sigaddset(&w.signals, SIGINT);
    if (!hf_signal_is_ignored(SIGHUP)) /* nohup; a blocked signal would come all the same */
        (void)sigaddset(&w.signals, SIGHUP);
    (void)sigaddset(&w.signals, SIGQUIT);
    (void)sigaddset(&w.signals, SIGCHLD);
    if (sigprocmask(SIG_BLOCK, &w.signals, &old) != 0)
        return hf_fail(err, HF_EIO, "sentinel: sigprocmask: %s", strerror(errno));
    (void)signal(SIGPIPE, SIG_IGN);
    w.node = fork();
    if (w.node < 0)
        return hf_fail(err, HF_EIO, "sentinel: fork: %s", strerror(errno));
    if (w.node == 0)
        become_node(s, w.page, me, &old);
    if (s->forked != NULL)
        s->forked(s->arg, w.node);
    return watch_loop(&w, s);
}
