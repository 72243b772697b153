#include <errno.h>
#include <fcntl.h>
#include <ftw.h>
#include <libgen.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "postgres/private.h"

int hf_pg_path(char *out, size_t cap, const char *dir, const char *name)
{
    int n = snprintf(out, cap, "%s/%s", dir, name);

    return n > 0 && (size_t)n < cap ? 0 : HF_EINVAL;
}

bool hf_pg_exists(const char *path)
{
    struct stat st;

    return lstat(path, &st) == 0 || (errno != ENOENT && errno != ENOTDIR);
}

int hf_pg_read_at(const struct hf_pg *pg, int fd, const char *path, void *out, size_t n, uint64_t at, struct hf_error *err)
{
    ssize_t got = pread(fd, out, n, (off_t)at);

    if (got == (ssize_t)n)
        return 0;
    return hf_fail(err, HF_EIO, "%s: cannot read %s: %s", pg->name, path, got < 0 ? strerror(errno) : "it is too short");
}

int hf_pg_fsync_path(const char *path, struct hf_error *err)
{
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    int code = 0;

    if (fd < 0)
        return hf_fail(err, HF_EIO, "cannot open %s: %s", path, strerror(errno));
    if (fsync(fd) != 0)
        code = hf_fail(err, errno == ENOSPC ? HF_ENOSPC : HF_EIO, "cannot sync %s: %s", path,
                       strerror(errno));
    (void)close(fd);
    return code;
}

static int fsync_parent(const char *path, struct hf_error *err)
{
    char copy[HF_PG_PATH_MAX];

    if ((size_t)snprintf(copy, sizeof copy, "%s", path) >= sizeof copy)
        return hf_fail(err, HF_EINVAL, "path too long: %s", path);
    return hf_pg_fsync_path(dirname(copy), err);
}

int hf_pg_rename(const char *from, const char *to, struct hf_error *err)
{
    if (rename(from, to) != 0)
        return hf_fail(err, HF_EIO, "cannot rename %s to %s: %s", from, to, strerror(errno));
    return fsync_parent(to, err);
}

static int write_all(int fd, const char *text, size_t len)
{
    while (len > 0) {
        ssize_t n = write(fd, text, len);
        if (n < 0 && errno == EINTR)
            continue;
        if (n < 0)
            return -1;
        text += n;
        len -= (size_t)n;
    }
    return 0;
}

int hf_pg_write_file(const char *path, const char *text, struct hf_error *err)
{
    char tmp[HF_PG_PATH_MAX];
    int fd;
    bool ok;

    if ((size_t)snprintf(tmp, sizeof tmp, "%s.tmp", path) >= sizeof tmp)
        return hf_fail(err, HF_EINVAL, "path too long: %s", path);
    fd = open(tmp, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
    if (fd < 0)
        return hf_fail(err, errno == ENOSPC ? HF_ENOSPC : HF_EIO, "cannot create %s: %s", tmp,
                       strerror(errno));
    ok = write_all(fd, text, strlen(text)) == 0 && fsync(fd) == 0;
    if (!ok)
        (void)hf_fail(err, errno == ENOSPC ? HF_ENOSPC : HF_EIO, "cannot write %s: %s", tmp,
                      strerror(errno));
    if (close(fd) != 0 && ok)
        return hf_fail(err, HF_EIO, "cannot close %s: %s", tmp, strerror(errno));
    if (!ok) {
        (void)unlink(tmp);
        return err != NULL ? err->code : HF_EIO;
    }
    return hf_pg_rename(tmp, path, err);
}

int hf_pg_read_file(const char *path, char *buf, size_t cap)
{
    size_t len = 0;
    int fd = open(path, O_RDONLY | O_CLOEXEC);

    if (fd < 0)
        return errno == ENOENT ? HF_ENOENT : HF_EIO;
    while (len + 1 < cap) {
        ssize_t n = read(fd, buf + len, cap - 1 - len);
        if (n < 0 && errno == EINTR)
            continue;
        if (n <= 0) {
            if (n < 0) {
                (void)close(fd);
                return HF_EIO;
            }
            break;
        }
        len += (size_t)n;
    }
    (void)close(fd);
    buf[len] = '\0';
    return (int)len;
}

static int remove_one(const char *path, const struct stat *st, int type, struct FTW *ftw)
{
    (void)st;
    (void)type;
    (void)ftw;
    return remove(path) != 0 && errno != ENOENT ? -1 : 0;
}

int hf_pg_remove_tree(const char *path, struct hf_error *err)
{
    if (!hf_pg_exists(path))
        return 0;
    if (nftw(path, remove_one, 64, FTW_DEPTH | FTW_PHYS) != 0)
        return hf_fail(err, HF_EIO, "cannot remove %s: %s", path, strerror(errno));
    return fsync_parent(path, err);
}

/* nftw has no context argument; a thread has one walk at a time. */
static _Thread_local uint64_t tree_bytes;

static int add_one(const char *path, const struct stat *st, int type, struct FTW *ftw)
{
    (void)path;
    (void)ftw;
    if (type == FTW_F)
        tree_bytes += (uint64_t)st->st_size;
    return 0;
}

uint64_t hf_pg_tree_bytes(const char *path)
{
    tree_bytes = 0;
    (void)nftw(path, add_one, 64, FTW_PHYS);
    return tree_bytes;
}
