/* Preloaded into a node of the fault laboratory and all its processes: a disk that is slow or says no when
 * asked to flush, and a wall clock that jumps. Off until the laboratory writes into the file that
 * HOLDFAST_TROUBLE names, which every process maps:
 *
 *   struct trouble, see below; numbers in the machine's own byte order
 *
 * It also says where a process crashed.
 *
 * Only CLOCK_REALTIME and its kin jump. The clocks that count from boot are the hardware's, and no
 * administrator can set them. */
#include <dlfcn.h>
#include <errno.h>
#include <execinfo.h>
#include <fcntl.h>
#include <signal.h>
#include <stdint.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/time.h>
#include <time.h>
#include <unistd.h>

struct trouble {
    _Atomic int64_t clock_offset_ns;
    _Atomic int64_t flush_delay_us; /* each fsync and fdatasync takes longer by this */
    _Atomic int64_t flush_fails;    /* not 0: they fail with EIO */
};

static struct trouble *page;
static const struct trouble none;
static int (*real_fsync)(int), (*real_fdatasync)(int);
static int (*real_clock_gettime)(clockid_t, struct timespec *);

/* Where it crashed, into the log; then it crashes as it would have. */
static void crashed(int sig)
{
    void *frames[64];

    backtrace_symbols_fd(frames, backtrace(frames, 64), STDERR_FILENO);
    (void)raise(sig);
}

static void watch_crashes(void)
{
    static const int signals[] = {SIGSEGV, SIGBUS, SIGABRT, SIGILL, SIGFPE};
    struct sigaction act = {.sa_handler = crashed, .sa_flags = (int)SA_RESETHAND};
    void *frame;

    (void)backtrace(&frame, 1); /* loads what it needs now, and not in the middle of a crash */
    for (size_t i = 0; i < sizeof signals / sizeof *signals; i++)
        (void)sigaction(signals[i], &act, NULL);
}

__attribute__((constructor)) static void attach(void)
{
    const char *path = getenv("HOLDFAST_TROUBLE");
    int fd = path != NULL ? open(path, O_RDONLY | O_CLOEXEC) : -1;
    void *at;

    *(void **)&real_fsync = dlsym(RTLD_NEXT, "fsync");
    *(void **)&real_fdatasync = dlsym(RTLD_NEXT, "fdatasync");
    *(void **)&real_clock_gettime = dlsym(RTLD_NEXT, "clock_gettime");
    if (fd < 0)
        return;
    watch_crashes();
    at = mmap(NULL, sizeof *page, PROT_READ, MAP_SHARED, fd, 0);
    close(fd);
    if (at != MAP_FAILED)
        page = at;
}

static const struct trouble *now(void)
{
    return page != NULL ? page : &none;
}

static int flush(int fd, int (*real)(int))
{
    int64_t delay_us = now()->flush_delay_us;

    if (delay_us > 0) {
        struct timespec t = {(time_t)(delay_us / 1000000), (long)(delay_us % 1000000) * 1000};
        while (nanosleep(&t, &t) != 0 && errno == EINTR)
            ;
    }
    if (now()->flush_fails != 0) {
        errno = EIO;
        return -1;
    }
    return real(fd);
}

int fsync(int fd)
{
    return flush(fd, real_fsync);
}

int fdatasync(int fd)
{
    return flush(fd, real_fdatasync);
}

static void shift(struct timespec *t)
{
    int64_t ns = (int64_t)t->tv_sec * 1000000000 + t->tv_nsec + now()->clock_offset_ns;

    t->tv_sec = (time_t)(ns / 1000000000);
    t->tv_nsec = (long)(ns % 1000000000);
}

int clock_gettime(clockid_t clock, struct timespec *t)
{
    int rv;

    if (real_clock_gettime == NULL) /* somebody's constructor came before ours */
        *(void **)&real_clock_gettime = dlsym(RTLD_NEXT, "clock_gettime");
    rv = real_clock_gettime(clock, t);
    if (rv == 0 && (clock == CLOCK_REALTIME || clock == CLOCK_REALTIME_COARSE))
        shift(t);
    return rv;
}

int gettimeofday(struct timeval *restrict tv, void *restrict zone)
{
    struct timespec t;

    (void)zone; /* obsolete, and nobody here asks for it */
    if (clock_gettime(CLOCK_REALTIME, &t) != 0)
        return -1;
    tv->tv_sec = t.tv_sec;
    tv->tv_usec = t.tv_nsec / 1000;
    return 0;
}

time_t time(time_t *out)
{
    struct timespec t;

    if (clock_gettime(CLOCK_REALTIME, &t) != 0)
        return -1;
    if (out != NULL)
        *out = t.tv_sec;
    return t.tv_sec;
}
