/* What `holdfast up` puts on disk before the first node runs. */
#include "local/layout.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/cert.h"
#include "base/file.h"
#include "base/secret.h"
#include "local/user.h"

_Static_assert(HF_PASSWORD_LETTERS < (int)HF_ACCOUNT_MAX, "a password that an account has no room for");

/* Absent or empty. A first start that was killed half-way leaves pki/ or up.* and no cluster.json. */
static int check_unused(const char *dir, struct hf_error *err)
{
    DIR *d = opendir(dir);
    struct dirent *e;
    int rv = 0;

    if (d == NULL) {
        if (errno == ENOENT)
            return 0;
        return hf_fail(err, HF_EIO, "%s: %s (hint: --dir says where to put the cluster)", dir,
                       strerror(errno));
    }
    while (rv == 0 && (e = readdir(d)) != NULL) {
        const char *n = e->d_name;
        if (strcmp(n, ".") != 0 && strcmp(n, "..") != 0 && strcmp(n, "lost+found") != 0 &&
            strcmp(n, "pki") != 0 && strncmp(n, "up.", 3) != 0 && strncmp(n, "cluster.json", 12) != 0)
            rv = hf_fail(err, HF_EEXIST,
                         "%s: not empty and not a cluster of Holdfast: there is %s (hint: --dir says "
                         "where to put the cluster)",
                         dir, n);
    }
    closedir(d);
    return rv;
}

/* Root takes nothing over that somebody else has put where it will look: he would know the authority's key. */
static int check_owner(int dirfd, const char *name, const char *path, struct hf_error *err)
{
    const char *below = name[0] != '\0' ? "/" : "";
    struct stat st;

    if (fstatat(dirfd, name, &st, AT_SYMLINK_NOFOLLOW | AT_EMPTY_PATH) != 0)
        return hf_fail(err, HF_EIO, "%s%s%s: %s", path, below, name, strerror(errno));
    if (!hf_user_trusts(st.st_uid))
        return hf_fail(err, HF_EPERM,
                       "%s%s%s: belongs to user %u, and root takes over only what is its own or postgres's (hint: look at "
                       "what is in there, and remove it or chown it to postgres; or --dir)",
                       path, below, name, (unsigned)st.st_uid);
    /* Of a first start that was killed half-way all is a plain file or a directory that nobody else may change. */
    if (geteuid() == 0 && name[0] != '\0' && (S_ISLNK(st.st_mode) || (st.st_mode & 022) != 0))
        return hf_fail(err, HF_EPERM, "%s%s%s: a link, or others may write it (hint: remove it; or --dir)", path, below, name);
    return 0;
}

/* And what is in it, one level deep; `fd` stays open. */
static int check_entries(int fd, const char *path, struct hf_error *err)
{
    int copy = openat(fd, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC), rv = 0;
    DIR *d = copy >= 0 ? fdopendir(copy) : NULL;
    struct dirent *e;

    if (d == NULL) {
        if (copy >= 0)
            close(copy);
        return hf_fail(err, HF_EIO, "%s: %s", path, strerror(errno));
    }
    while (rv == 0 && (e = readdir(d)) != NULL)
        if (strcmp(e->d_name, ".") != 0 && strcmp(e->d_name, "..") != 0)
            rv = check_owner(fd, e->d_name, path, err);
    closedir(d);
    return rv;
}

static int check_pki(int dirfd, const char *dir, struct hf_error *err)
{
    char path[HF_PATH_MAX + 8];
    int fd = openat(dirfd, "pki", O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC), rv;

    if (fd < 0 && errno == ENOENT)
        return 0;
    (void)snprintf(path, sizeof path, "%s/pki", dir);
    if (fd < 0)
        return hf_fail(err, HF_EIO, "%s: %s", path, strerror(errno));
    rv = check_entries(fd, path, err);
    close(fd);
    return rv;
}

/* The directory that was opened, wherever its name leads by now. */
static int take_over(int fd, const char *dir, struct hf_error *err)
{
    int rv = check_owner(fd, "", dir, err);

    /* In this order: once it is closed to others, nobody adds to what is looked at. */
    if (rv == 0 && fchmod(fd, 0700) != 0 && errno != EPERM)
        rv = hf_fail(err, HF_EIO, "%s: %s", dir, strerror(errno));
    if (rv == 0 && geteuid() == 0)
        rv = check_entries(fd, dir, err);
    if (rv == 0 && geteuid() == 0)
        rv = check_pki(fd, dir, err);
    return rv == 0 ? hf_user_own(fd, dir, err) : rv;
}

static int make_dir(const char *dir, struct hf_error *err)
{
    struct stat st;
    int fd, rv;

    rv = hf_dir_make(dir, 0755, err); /* parents that root makes must let `postgres` through */
    if (rv != 0)
        return rv;
    fd = open(dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC | (geteuid() == 0 ? O_NOFOLLOW : 0));
    if (fd < 0)
        return hf_fail(err, HF_EIO, "%s: %s%s", dir, strerror(errno),
                       errno == ENOTDIR || errno == ELOOP ? " (hint: as root --dir is the directory itself, no link to it)" : "");
    rv = take_over(fd, dir, err);
    close(fd);
    if (rv == 0 && geteuid() == 0 && !hf_user_can_enter(dir))
        rv = hf_fail(err, HF_EPERM,
                     "%s: user postgres cannot get there: a directory above is closed to it (hint: "
                     "--dir /var/lib/holdfast/NAME)",
                     dir);
    if (rv == 0)
        rv = hf_user_drop(err);
    if (rv == 0 && (stat(dir, &st) != 0 || st.st_uid != geteuid()))
        rv = hf_fail(err, HF_EPERM, "%s: belongs to somebody else (hint: --dir)", dir);
    return rv;
}

int hf_local_create(struct hf_local *l, struct hf_error *err)
{
    char pki[HF_PATH_MAX];
    int rv = check_unused(l->dir, err);

    if (rv == 0)
        rv = make_dir(l->dir, err);
    if (rv != 0)
        return rv;
    strcpy(l->accounts.app_role, "app");
    strcpy(l->accounts.app_database, "app");
    strcpy(l->accounts.admin_role, "admin");
    rv = hf_password_make(l->accounts.app_password, err);
    if (rv == 0)
        rv = hf_password_make(l->accounts.admin_password, err);
    hf_local_path(l, "pki", pki);
    if (rv == 0)
        rv = hf_dir_make(pki, 0700, err);
    if (rv == 0)
        rv = hf_cert_make_ca(pki, l->name, err);
    /* Last: with it the directory is a cluster. */
    if (rv == 0)
        rv = hf_local_save(l, err);
    return rv;
}

int hf_local_make_node(const struct hf_local *l, unsigned ordinal, struct hf_error *err)
{
    static const char *const parts[] = {"", "log", "tls"};
    char path[HF_PATH_MAX], pki[HF_PATH_MAX], name[HF_NAME_MAX];
    /* Nodes know each other by name; clients connect to this machine (`sslmode=verify-full`). */
    const char *names[] = {name, "localhost", "127.0.0.1", "::1"};
    int rv = 0;

    for (unsigned i = 0; i < sizeof parts / sizeof *parts && rv == 0; i++) {
        hf_local_node_path(l, ordinal, parts[i], path);
        rv = hf_dir_make(path, 0700, err);
    }
    if (rv != 0)
        return rv;
    hf_local_path(l, "pki", pki);
    hf_local_node_name(l, ordinal, name);
    hf_local_node_path(l, ordinal, "tls", path);
    /* Missing, expired, damaged, or from before clients were shown it: the authority is ours, so a new one
     * costs nothing. */
    if (hf_cert_check(path, name, NULL, NULL) == 0 && hf_cert_check(path, "localhost", NULL, NULL) == 0)
        return 0;
    return hf_cert_make_node(pki, path, names, sizeof names / sizeof *names, err);
}
