#include "local/lock.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

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
    return fd;
}

int hf_lock_write(int fd, struct hf_lock_pids pids)
{
    char text[48];
    int n = snprintf(text, sizeof text, "%d %d\n", (int)pids.first, (int)pids.second);

    if (ftruncate(fd, 0) != 0 || pwrite(fd, text, (size_t)n, 0) != n)
        return HF_EIO;
    return 0;
}

bool hf_lock_look(const char *path, struct hf_lock_pids *pids)
{
    /* Of the open file, not of the process: shared over fork(), and asking disturbs nobody. */
    struct flock whole = {.l_type = F_WRLCK, .l_whence = SEEK_SET};
    char text[48] = "";
    int first = 0, second = 0;
    ssize_t n;
    int fd = open(path, O_RDONLY | O_CLOEXEC | O_NOFOLLOW);

    *pids = (struct hf_lock_pids){0, 0};
    if (fd < 0)
        return false;
    if (fcntl(fd, F_OFD_GETLK, &whole) != 0 || whole.l_type == F_UNLCK) {
        close(fd);
        return false;
    }
    n = pread(fd, text, sizeof text - 1, 0);
    close(fd);
    if (n > 0 && sscanf(text, "%d %d", &first, &second) >= 1)
        *pids = (struct hf_lock_pids){first, second};
    return true;
}
