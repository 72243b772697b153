#include "base/file.h"

#include <errno.h>
#include <fcntl.h>
#include <ftw.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

enum { PATH_MAX_BYTES = 4096, TREE_FDS = 16 };

static int fail_errno(struct hf_error *err, const char *what, const char *path)
{
    int e = errno;

    return hf_fail(err, e == ENOSPC || e == EDQUOT ? HF_ENOSPC : HF_EIO, "cannot %s %s: %s%s", what,
                   path, strerror(e),
                   e == ENOSPC ? " (hint: make room on this file system)"
                   : e == EACCES || e == EPERM
                       ? " (hint: check its owner and mode, and those of the directories above)"
                       : "");
}

static void parent_of(const char *path, char out[PATH_MAX_BYTES])
{
    char *slash;

    (void)snprintf(out, PATH_MAX_BYTES, "%s", path);
    slash = strrchr(out, '/');
    if (slash == NULL)
        (void)snprintf(out, PATH_MAX_BYTES, ".");
    else if (slash == out)
        slash[1] = '\0';
    else
        *slash = '\0';
}

int hf_dir_sync(const char *path, struct hf_error *err)
{
    int fd = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    int rv = 0;

    if (fd < 0)
        return fail_errno(err, "open", path);
    if (fsync(fd) != 0)
        rv = fail_errno(err, "sync", path);
    close(fd);
    return rv;
}

static int write_all(int fd, const char *data, size_t len)
{
    while (len > 0) {
        ssize_t n = write(fd, data, len);
        if (n < 0 && errno == EINTR)
            continue;
        if (n < 0)
            return -1;
        data += n;
        len -= (size_t)n;
    }
    return 0;
}

/* Takes `fd`, a new file at `tmp`, which takes the place of `path`; `rv`: what has failed so far. */
static int put_in_place(int fd, const char *tmp, const char *path, const void *data, size_t len, int rv, struct hf_error *err)
{
    char dir[PATH_MAX_BYTES];

    if (rv == 0 && (write_all(fd, data, len) != 0 || fsync(fd) != 0))
        rv = fail_errno(err, "write", tmp);
    if (close(fd) != 0 && rv == 0)
        rv = fail_errno(err, "write", tmp);
    if (rv == 0 && rename(tmp, path) != 0)
        rv = fail_errno(err, "rename to", path);
    if (rv != 0) {
        (void)unlink(tmp);
        return rv;
    }
    parent_of(path, dir);
    return hf_dir_sync(dir, err);
}

int hf_file_write(const char *path, const void *data, size_t len, mode_t mode, struct hf_error *err)
{
    char tmp[PATH_MAX_BYTES];
    int fd, rv = 0;

    if ((size_t)snprintf(tmp, sizeof tmp, "%s.tmp", path) >= sizeof tmp)
        return hf_fail(err, HF_EINVAL, "path too long: %s", path);
    fd = open(tmp, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, mode);
    if (fd < 0)
        return fail_errno(err, "write", tmp);
    if (fchmod(fd, mode) != 0)
        rv = fail_errno(err, "write", tmp);
    return put_in_place(fd, tmp, path, data, len, rv, err);
}

int hf_file_rewrite(const char *path, const void *data, size_t len, struct hf_error *err)
{
    char *real = realpath(path, NULL), tmp[PATH_MAX_BYTES];
    struct stat st;
    int fd, rv = 0;

    if (real == NULL || stat(real, &st) != 0) {
        rv = fail_errno(err, "write", path);
    } else if ((size_t)snprintf(tmp, sizeof tmp, "%s.XXXXXX", real) >= sizeof tmp) {
        rv = hf_fail(err, HF_EINVAL, "path too long: %s", real);
    } else if ((fd = mkostemp(tmp, O_CLOEXEC)) < 0) {
        rv = fail_errno(err, "write beside", real);
    } else {
        /* In this order: a new owner takes bits away from the mode. */
        if (fchown(fd, st.st_uid, st.st_gid) != 0 || fchmod(fd, st.st_mode & 07777) != 0)
            rv = fail_errno(err, "keep owner and mode of", real);
        rv = put_in_place(fd, tmp, real, data, len, rv, err);
    }
    free(real);
    return rv;
}

int hf_file_read(const char *path, size_t max, char **data, size_t *len, struct hf_error *err)
{
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    size_t at = 0;
    char *buf;

    *data = NULL;
    *len = 0;
    if (fd < 0)
        return errno == ENOENT ? hf_fail(err, HF_ENOENT, "%s does not exist", path)
                               : fail_errno(err, "read", path);
    buf = malloc(max + 2);
    if (buf == NULL) {
        close(fd);
        return hf_fail(err, HF_ENOMEM, "cannot read %s: out of memory", path);
    }
    for (;;) {
        ssize_t n = read(fd, buf + at, max + 1 - at);
        if (n < 0 && errno == EINTR)
            continue;
        if (n < 0) {
            int rv = fail_errno(err, "read", path);
            free(buf);
            close(fd);
            return rv;
        }
        if (n == 0)
            break;
        at += (size_t)n;
        if (at > max) {
            free(buf);
            close(fd);
            return hf_fail(err, HF_EINVAL, "%s is longer than %zu bytes", path, max);
        }
    }
    close(fd);
    buf[at] = '\0';
    *data = buf;
    *len = at;
    return 0;
}

int hf_dir_make(const char *path, mode_t mode, struct hf_error *err)
{
    char part[PATH_MAX_BYTES];
    size_t n = strlen(path);

    if (n == 0 || n >= sizeof part)
        return hf_fail(err, HF_EINVAL, "bad path: '%s'", path);
    memcpy(part, path, n + 1);
    for (size_t i = 1; i <= n; i++) {
        char c = part[i];
        struct stat st;
        if (c != '/' && c != '\0')
            continue;
        part[i] = '\0';
        if (mkdir(part, mode) != 0 &&
            (errno != EEXIST || stat(part, &st) != 0 || !S_ISDIR(st.st_mode))) {
            if (errno == EEXIST)
                errno = ENOTDIR;
            return fail_errno(err, "make directory", part);
        }
        part[i] = c;
    }
    return 0;
}

static int remove_cb(const char *path, const struct stat *st, int type, struct FTW *ftw)
{
    (void)st;
    (void)type;
    (void)ftw;
    return remove(path);
}

int hf_dir_remove(const char *path, struct hf_error *err)
{
    struct stat st;

    if (lstat(path, &st) != 0)
        return errno == ENOENT ? 0 : fail_errno(err, "remove", path);
    if (nftw(path, remove_cb, TREE_FDS, FTW_DEPTH | FTW_PHYS | FTW_MOUNT) != 0)
        return fail_errno(err, "remove", path);
    return 0;
}
