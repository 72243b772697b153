#include "base/process.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/pidfd.h>
#include <unistd.h>

bool hf_process_look(pid_t pid, struct hf_process_look *out)
{
    char path[32], text[512];
    const char *at;
    ssize_t n;
    int fd;

    (void)snprintf(path, sizeof path, "/proc/%d/stat", (int)pid);
    fd = pid > 0 ? open(path, O_RDONLY | O_CLOEXEC) : -1;
    if (fd < 0)
        return false;
    n = read(fd, text, sizeof text - 1);
    close(fd);
    text[n > 0 ? n : 0] = '\0';
    /* The second field is its name, in parentheses, and may hold anything; the start is the twenty-second. */
    at = strrchr(text, ')');
    if (at == NULL || sscanf(at + 1, " %c %d", &out->state, &out->parent) != 2)
        return false;
    for (int field = 2; at != NULL && field < 22; field++)
        at = strchr(at + 1, ' ');
    return at != NULL && sscanf(at, " %" SCNu64, &out->start) == 1;
}

struct hf_process hf_process_now(pid_t pid)
{
    struct hf_process_look look;

    return (struct hf_process){.pid = pid, .start = hf_process_look(pid, &look) ? look.start : 0};
}

/* The descriptor first: what it names cannot become another process after the look. */
static int open_process(struct hf_process p, struct hf_error *err)
{
    int fd;

    errno = 0;
    fd = p.pid > 1 && p.start != 0 ? pidfd_open(p.pid, 0) : -1;
    if (fd >= 0 && hf_process_now(p.pid).start == p.start)
        return fd;
    if (fd >= 0)
        close(fd);
    else if (errno == ENOSYS)
        return hf_fail(err, HF_EPERM, "process %d: this kernel has no pidfd_open(2) (hint: Linux 5.3 or later)", (int)p.pid);
    return hf_fail(err, HF_ENOENT, "process %d is gone", (int)p.pid);
}

static int send_to(struct hf_process p, bool group, int sig, struct hf_error *err)
{
    int fd = open_process(p, err), rv = 0;

    if (fd < 0)
        return fd;
    /* The descriptor stands for the process alone. A group keeps its number while it has a process, be that one to be reaped. */
    if (group ? kill(-p.pid, sig) != 0 : pidfd_send_signal(fd, sig, NULL, 0) != 0)
        rv = hf_fail(err, errno == ESRCH ? HF_ENOENT : HF_EPERM, "process %d: %s", (int)p.pid, strerror(errno));
    close(fd);
    return rv;
}

int hf_process_signal(struct hf_process p, int sig, struct hf_error *err)
{
    return send_to(p, false, sig, err);
}

int hf_process_signal_group(struct hf_process p, int sig, struct hf_error *err)
{
    return send_to(p, true, sig, err);
}
