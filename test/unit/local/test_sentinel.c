/* Each case runs a whole sentinel in a child of the test: node and "PostgreSQL" are little functions. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <arpa/inet.h>
#include <errno.h>
#include <netinet/in.h>
#include <poll.h>
#include <signal.h>
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
#include "sentinel.h"

/* What the processes of a case tell the test. */
struct shared {
    volatile pid_t node, postmaster, backend;
    volatile int got_signal, quits, reaped;
};
static struct shared *shared;

static int quiet(void **s)
{
    (void)s;
    hf_log_init(NULL, HF_LOG_ERROR + 1);
    shared = mmap(NULL, sizeof *shared, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    return shared != MAP_FAILED ? 0 : -1;
}

static void nap_ms(unsigned ms)
{
    struct timespec t = {ms / 1000, (long)(ms % 1000) * 1000000};
    while (nanosleep(&t, &t) != 0 && errno == EINTR)
        continue;
}

static bool gone_within(pid_t pid, unsigned ms)
{
    for (; ms > 0; ms -= 10 < ms ? 10 : ms) {
        if (kill(pid, 0) != 0)
            return true;
        nap_ms(10);
    }
    return false;
}

static bool set_within(volatile pid_t *pid, unsigned ms)
{
    for (; *pid == 0 && ms >= 10; ms -= 10)
        nap_ms(10);
    return *pid != 0;
}

/* The node's pid is free for anybody, and its PostgreSQL is still to be ended. */
static void note_reaped(void *arg)
{
    (void)arg;
    shared->reaped = kill(shared->node, 0) != 0 && shared->postmaster != 0 && kill(shared->postmaster, 0) == 0;
}

static pid_t start(int (*node)(void *, struct hf_sentinel_page *), unsigned lease_ms)
{
    pid_t pid = fork();

    if (pid == 0) {
        struct hf_sentinel s = {.lease_ms = lease_ms, .node = node, .reaped = note_reaped};
        struct hf_error err;
        (void)setpgid(0, 0);
        _exit(hf_sentinel_run(&s, &err));
    }
    return pid;
}

static int end_of(pid_t sentinel)
{
    int status;

    assert_int_equal(waitpid(sentinel, &status, 0), sentinel);
    return WIFEXITED(status) ? WEXITSTATUS(status) : 1000 + WTERMSIG(status);
}

static void note_quit(int sig)
{
    (void)sig;
    shared->quits++;
}

/* A postmaster in its own session that ignores SIGQUIT, with a backend in a session of its own. */
static void be_stubborn(void)
{
    (void)setsid();
    (void)signal(SIGQUIT, note_quit);
    (void)signal(SIGTERM, SIG_IGN);
    shared->postmaster = getpid();
    if (fork() == 0) {
        (void)setsid();
        shared->backend = getpid();
        for (;;)
            nap_ms(1000);
    }
    for (;;)
        nap_ms(1000);
}

static void fork_postmaster(struct hf_sentinel_page *page)
{
    pid_t pid = fork();

    if (pid == 0)
        be_stubborn();
    while (shared->backend == 0)
        nap_ms(5);
    atomic_store(&page->postmaster, pid);
}

static pid_t fork_primary(struct hf_sentinel_page *page)
{
    shared->postmaster = shared->backend = 0;
    fork_postmaster(page);
    atomic_store(&page->primary, true);
    return shared->postmaster;
}

/* ---------------------------------------------------------------------------------------------------- */

static int returns_seven(void *arg, struct hf_sentinel_page *page)
{
    (void)arg;
    (void)page;
    return 7;
}

static void passes_the_status_on(void **s)
{
    (void)s;
    assert_int_equal(end_of(start(returns_seven, 500)), 7);
}

static void note_signal(int sig)
{
    shared->got_signal = sig;
}

static int waits_for_term(void *arg, struct hf_sentinel_page *page)
{
    (void)arg;
    (void)page;
    (void)signal(SIGTERM, note_signal);
    shared->node = getpid();
    while (shared->got_signal == 0)
        nap_ms(5);
    return 0;
}

/* Whoever closes the terminal means what SIGTERM means. */
static void forwards_as_term(void **s)
{
    static const int signals[] = {SIGTERM, SIGINT, SIGHUP};
    pid_t pid;

    (void)signal(SIGHUP, SIG_DFL); /* whatever the tests run under: nohup has it ignored */

    (void)s;
    for (int i = 0; i < 3; i++) {
        shared->node = 0;
        shared->got_signal = 0;
        pid = start(waits_for_term, 500);
        assert_true(set_within(&shared->node, 2000));
        assert_int_equal(kill(pid, signals[i]), 0);
        assert_int_equal(end_of(pid), 0);
        assert_int_equal(shared->got_signal, SIGTERM);
    }
}

/* nohup, whose SIGHUP is blocked in the sentinel, and so would be kept for it. */
static void leaves_ignored_alone(void **s)
{
    pid_t pid;

    (void)s;
    shared->node = 0;
    shared->got_signal = 0;
    (void)signal(SIGHUP, SIG_IGN);
    pid = start(waits_for_term, 500);
    (void)signal(SIGHUP, SIG_DFL);
    assert_true(set_within(&shared->node, 2000));
    assert_int_equal(kill(pid, SIGHUP), 0);
    nap_ms(600);
    assert_int_equal(shared->got_signal, 0);
    assert_int_equal(kill(pid, SIGTERM), 0);
    assert_int_equal(end_of(pid), 0);
}

static int with_postmaster(void *arg, struct hf_sentinel_page *page)
{
    (void)arg;
    shared->postmaster = shared->backend = 0;
    shared->quits = 0;
    fork_postmaster(page);
    shared->node = getpid();
    nap_ms(30000);
    return 1;
}

static void ends_postgres_after_the_node(void **s)
{
    pid_t pid;

    (void)s;
    shared->node = 0;
    pid = start(with_postmaster, 500);
    assert_true(set_within(&shared->node, 2000));
    assert_int_equal(kill(shared->node, SIGKILL), 0);
    assert_int_equal(end_of(pid), 128 + SIGKILL);
    assert_true(shared->reaped);
    assert_true(shared->quits > 0); /* asked first */
    assert_int_not_equal(kill(shared->postmaster, 0), 0);
    assert_int_not_equal(kill(shared->backend, 0), 0);
}

static int with_overdue_lease(void *arg, struct hf_sentinel_page *page)
{
    (void)arg;
    fork_primary(page);
    atomic_store(&page->lease_deadline_ns, hf_clock_ns() + 300000000u);
    shared->node = getpid();
    nap_ms(30000);
    return 1;
}

/* The node is stopped: it neither renews the lease nor reaps. PostgreSQL must go, the node stays. */
static void ends_postgres_when_the_lease_is_overdue(void **s)
{
    uint64_t begun;
    pid_t pid;

    (void)s;
    shared->node = 0;
    pid = start(with_overdue_lease, 400);
    assert_true(set_within(&shared->node, 2000));
    begun = hf_clock_ns();
    assert_int_equal(kill(shared->node, SIGSTOP), 0);
    assert_true(gone_within(shared->backend, 4000));
    assert_true(hf_clock_ns() - begun > 300000000u); /* not before the lease ran out */
    assert_int_equal(kill(shared->node, 0), 0);
    assert_int_equal(kill(pid, 0), 0);
    assert_int_equal(kill(pid, SIGQUIT), 0); /* ends the stopped node by force */
    assert_int_equal(end_of(pid), 128 + SIGKILL);
    assert_int_not_equal(kill(shared->postmaster, 0), 0);
}

static int renews_for_a_second(void *arg, struct hf_sentinel_page *page)
{
    pid_t pm = fork_primary(page);

    (void)arg;
    for (int i = 0; i < 100; i++) {
        atomic_store(&page->lease_deadline_ns, hf_clock_ns() + 200000000u);
        nap_ms(10);
    }
    atomic_store(&page->primary, false); /* a follower now: no lease, and none needed */
    nap_ms(600);
    return kill(pm, 0) == 0 ? 0 : 1;
}

static void leaves_postgres_alone_while_the_lease_lasts(void **s)
{
    (void)s;
    assert_int_equal(end_of(start(renews_for_a_second, 200)), 0);
}

static int turns_for_a_second(void *arg, struct hf_sentinel_page *page)
{
    pid_t pm = fork_primary(page);

    (void)arg;
    atomic_store(&page->lease_deadline_ns, hf_clock_ns());
    for (int i = 0; i < 100; i++) {
        atomic_store(&page->turned_ns, hf_clock_ns());
        nap_ms(10);
    }
    if (kill(pm, 0) != 0)
        return 1;
    shared->node = getpid();
    nap_ms(30000);
    return 2;
}

/* The followers are late, and the node lives: no business of the sentinel's. Then the node hangs. */
static void leaves_postgres_to_a_node_that_lives(void **s)
{
    pid_t pid;

    (void)s;
    shared->node = 0;
    pid = start(turns_for_a_second, 200);
    assert_true(set_within(&shared->node, 4000));
    assert_true(gone_within(shared->backend, 4000));
    assert_int_equal(kill(shared->node, 0), 0);
    assert_int_equal(kill(pid, SIGQUIT), 0);
    assert_int_equal(end_of(pid), 128 + SIGKILL);
}

static void node_dies_with_the_sentinel(void **s)
{
    pid_t pid;

    (void)s;
    /* The orphans become ours, so that they can be seen to end. */
    assert_int_equal(prctl(PR_SET_CHILD_SUBREAPER, 1), 0);
    shared->node = 0;
    shared->got_signal = 0;
    pid = start(waits_for_term, 500);
    assert_true(set_within(&shared->node, 2000));
    assert_int_equal(kill(pid, SIGKILL), 0);
    assert_int_equal(end_of(pid), 1000 + SIGKILL);
    assert_int_equal(end_of(shared->node), 1000 + SIGKILL);
}

static int leaves_an_orphan(void *arg, struct hf_sentinel_page *page)
{
    (void)arg;
    (void)page;
    if (fork() == 0) {
        shared->backend = getpid();
        if (fork() == 0) {
            shared->postmaster = getpid();
            nap_ms(50);
            _exit(0);
        }
        _exit(0);
    }
    nap_ms(400);
    /* Reparented to the sentinel, ended, reaped: not even a zombie is left. */
    return kill(shared->postmaster, 0) != 0 && errno == ESRCH ? 0 : 1;
}

static void reaps_orphans(void **s)
{
    (void)s;
    shared->postmaster = 0;
    assert_int_equal(end_of(start(leaves_an_orphan, 500)), 0);
}

/* -- the death message ------------------------------------------------------------------------------- */

static struct sockaddr_in death_address;

static int dies_with_a_token(void *arg, struct hf_sentinel_page *page)
{
    (void)arg;
    memset(page->peers[3].token, 0x5a, HF_DEATH_TOKEN_BYTES);
    memcpy(&page->peers[3].address, &death_address, sizeof death_address);
    page->peers[3].len = sizeof death_address;
    atomic_store(&page->peers[3].used, 1);
    raise(SIGKILL);
    return 0;
}

static void tells_the_peers(void **s)
{
    socklen_t len = sizeof death_address;
    uint8_t got[64];
    size_t n = 0;
    ssize_t m;
    pid_t pid;
    int fd = socket(AF_INET, SOCK_STREAM, 0), from;

    (void)s;
    death_address = (struct sockaddr_in){.sin_family = AF_INET,
                                         .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    assert_int_equal(bind(fd, (struct sockaddr *)&death_address, sizeof death_address), 0);
    assert_int_equal(listen(fd, 1), 0);
    assert_int_equal(getsockname(fd, (struct sockaddr *)&death_address, &len), 0);
    pid = start(dies_with_a_token, 500);
    from = accept(fd, NULL, NULL);
    assert_true(from >= 0);
    while (n < sizeof got && (m = recv(from, got + n, sizeof got - n, 0)) > 0)
        n += (size_t)m;
    assert_int_equal(n, 8 + HF_DEATH_TOKEN_BYTES);
    assert_memory_equal(got, HF_DEATH_MAGIC, 8);
    assert_int_equal(got[8], 0x5a);
    assert_int_equal(end_of(pid), 128 + SIGKILL);
    close(from);
    close(fd);
}

static void grace(void **s)
{
    (void)s;
    assert_int_equal(hf_sentinel_grace_ms(1000), 250);
    assert_int_equal(hf_sentinel_grace_ms(200), 100);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(passes_the_status_on),
        cmocka_unit_test(forwards_as_term),
        cmocka_unit_test(leaves_ignored_alone),
        cmocka_unit_test(ends_postgres_after_the_node),
        cmocka_unit_test(ends_postgres_when_the_lease_is_overdue),
        cmocka_unit_test(leaves_postgres_alone_while_the_lease_lasts),
        cmocka_unit_test(leaves_postgres_to_a_node_that_lives),
        cmocka_unit_test(reaps_orphans),
        cmocka_unit_test(tells_the_peers),
        cmocka_unit_test(node_dies_with_the_sentinel),
        cmocka_unit_test(grace),
    };

    return cmocka_run_group_tests(tests, quiet, NULL);
}
