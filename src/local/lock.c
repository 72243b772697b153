#include "local/lock.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

enum { TEXT_LEN = 96 };

int hf_lock_take(const char *path, struct hf_error *err)
{
    struct flock whole = {.l_type = F_WRLCK, .l_whence = SEEK_SET};
    int fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0600);

    if (fd < 0)
        return hf_fail(err, errno == EACCES ? HF_EPERM : HF_EIO, "%s: %s", path, strerror(errno));
    if (fcntl(fd, F_OFD_SETLK, &whole) != 0) {
        int why = errno;
        close(fd);
        if (why == EAGAIN || why == EACCES)
            return hf_fail(err, HF_EBUSY, "%s: held by a process that runs", path);
        return hf_fail(err, HF_EIO, "%s: cannot lock it: %s", path, strerror(why));
    }
    if (ftruncate(fd, 0) != 0) {
        (void)hf_fail(err, HF_EIO, "%s: %s", path, strerror(errno));
        close(fd);
        return HF_EIO;
    }
    return fd;
}

int hf_lock_write(int fd, struct hf_lock_pids pids)
{
    char text[TEXT_LEN + 1];

    (void)snprintf(text, sizeof text, "%d %d %" PRIu64 " %" PRIu64 "%s", (int)pids.first.pid, (int)pids.second.pid, pids.first.start,
                   pids.second.start, pids.ended ? " ended" : "");
    /* Always as long: one write, and nobody finds an empty file or half of two texts. */
    memset(text + strlen(text), ' ', sizeof text - strlen(text));
    text[TEXT_LEN - 1] = '\n';
    return pwrite(fd, text, TEXT_LEN, 0) == TEXT_LEN ? 0 : HF_EIO;
}

bool hf_lock_look(const char *path, struct hf_lock_pids *pids)
{
    /* Of the open file, not of the process: shared over fork(), and asking disturbs nobody. */
    struct flock whole = {.l_type = F_WRLCK, .l_whence = SEEK_SET};
    char text[TEXT_LEN + 1] = "", more[8] = "";
    struct hf_lock_pids p = {0};
    ssize_t n;
    int fd = open(path, O_RDONLY | O_CLOEXEC | O_NOFOLLOW);

    *pids = p;
    if (fd < 0)
        return false;
    if (fcntl(fd, F_OFD_GETLK, &whole) != 0 || whole.l_type == F_UNLCK) {
        close(fd);
        return false;
    }
    n = pread(fd, text, sizeof text - 1, 0);
    close(fd);
    if (n > 0 && sscanf(text, "%d %d %" SCNu64 " %" SCNu64 " %7s", &p.first.pid, &p.second.pid, &p.first.start, &p.second.start, more) >= 4) {
        p.ended = strcmp(more, "ended") == 0;
        *pids = p;
    }
    return true;
}
