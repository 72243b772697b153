/* What must be right before anything is started: user, directories, versions, file system. */
#include <ctype.h>
#include <dirent.h>
#include <errno.h>
#include <glob.h>
#include <pwd.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/stat.h>
#include <sys/statfs.h>
#include <sys/un.h>
#include <unistd.h>

#include "base/log.h"
#include "postgres/private.h"

enum { VERSION_MAJOR_MIN = 13, VERSION_MAJOR_MAX = 17 };

/* The minor releases of May 2025, the first in which a server that has just started waits for its
 * synchronous standbys from the first commit on (S2). */
static int minor_needed(int major)
{
    static const int needed[] = {21, 18, 13, 9, 5}; /* 13 to 17 */

    return major >= 13 && major <= 17 ? needed[major - 13] : 0;
}

void hf_pg_member_name(char out[HF_PG_MEMBER_MAX], const char *name, const struct hf_uuid *uuid)
{
    /* PostgreSQL cuts names at 63 bytes: cut the node's name, never the incarnation. */
    (void)snprintf(out, HF_PG_MEMBER_MAX, "%.54s_%02x%02x%02x%02x", name, uuid->b[0], uuid->b[1],
                   uuid->b[2], uuid->b[3]);
}

/* --- binaries --------------------------------------------------------------------------------- */

static bool has_postgres(const char *dir)
{
    char path[HF_PG_PATH_MAX];

    return hf_pg_path(path, sizeof path, dir, "postgres") == 0 && access(path, X_OK) == 0;
}

/* 0 if there is no data yet. */
static int data_major(const struct hf_pg *pg)
{
    char path[HF_PG_PATH_MAX], text[32];

    if (hf_pg_path(path, sizeof path, pg->data, "PG_VERSION") != 0 ||
        hf_pg_read_file(path, text, sizeof text) <= 0)
        return 0;
    return atoi(text);
}

static void find_in_path(char out[HF_PG_PATH_MAX])
{
    char copy[4096], *save = NULL;
    const char *path = getenv("PATH");

    (void)snprintf(copy, sizeof copy, "%s", path != NULL ? path : "");
    for (char *d = strtok_r(copy, ":", &save); d != NULL; d = strtok_r(NULL, ":", &save))
        if (has_postgres(d)) {
            (void)snprintf(out, HF_PG_PATH_MAX, "%s", d);
            return;
        }
}

static int find_bindir(struct hf_pg *pg, const char *wanted, struct hf_error *err)
{
    int major = data_major(pg), best = 0;
    DIR *dir;
    struct dirent *e;

    if (wanted != NULL && wanted[0] != '\0') {
        if (!has_postgres(wanted))
            return hf_fail(err, HF_ENOENT, "%s: no PostgreSQL server in %s", pg->name, wanted);
        return snprintf(pg->bindir, sizeof pg->bindir, "%s", wanted) < (int)sizeof pg->bindir
                   ? 0
                   : hf_fail(err, HF_EINVAL, "path too long: %s", wanted);
    }
    dir = opendir("/usr/lib/postgresql");
    while (dir != NULL && (e = readdir(dir)) != NULL) {
        char path[HF_PG_PATH_MAX];
        int v = atoi(e->d_name);
        (void)snprintf(path, sizeof path, "/usr/lib/postgresql/%s/bin", e->d_name);
        if (v < best || !has_postgres(path) || (major != 0 && v != major) ||
            (major == 0 && v > VERSION_MAJOR_MAX))
            continue;
        best = v;
        (void)snprintf(pg->bindir, sizeof pg->bindir, "%s", path);
    }
    if (dir != NULL)
        (void)closedir(dir);
    if (best == 0)
        find_in_path(pg->bindir);
    if (pg->bindir[0] == '\0')
        return hf_fail(
            err, HF_ENOENT,
            "%s: PostgreSQL's server programs are not in /usr/lib/postgresql nor on PATH "
            "(hint: apt-get install postgresql, or name their directory)",
            pg->name);
    return 0;
}

static void take_version(void *ctx, const char *line)
{
    struct hf_pg *pg = ctx;
    int major, minor = 0;

    if (sscanf(line, "postgres (PostgreSQL) %d.%d", &major, &minor) < 1)
        return;
    pg->version = major * 10000 + minor;
    (void)snprintf(pg->version_text, sizeof pg->version_text, "%d.%d", major, minor);
}

static int check_version(struct hf_pg *pg, struct hf_error *err)
{
    const char *argv[] = {"postgres", "--version", NULL};
    int code = hf_pg_tool(pg, argv, 10000, take_version, pg, NULL, err);
    int major = pg->version / 10000, needed = minor_needed(major), data = data_major(pg);

    if (code != 0)
        return code;
    if (pg->version == 0)
        return hf_fail(err, HF_EPG, "%s: %s/postgres does not tell its version", pg->name,
                       pg->bindir);
    if (major < VERSION_MAJOR_MIN)
        return hf_fail(err, HF_EPG, "%s: PostgreSQL %s in %s is too old (hint: %d or later)",
                       pg->name, pg->version_text, pg->bindir, VERSION_MAJOR_MIN);
    if (pg->version % 10000 < needed)
        return hf_fail(err, HF_EPG,
                       "%s: PostgreSQL %s in %s can lose acknowledged commits after a start (hint: "
                       "update to %d.%d or later)",
                       pg->name, pg->version_text, pg->bindir, major, needed);
    if (data != 0 && data != major)
        return hf_fail(err, HF_EPG,
                       "%s: %s was made by PostgreSQL %d, the programs in %s are %s (hint: install "
                       "postgresql-%d)",
                       pg->name, pg->data, data, pg->bindir, pg->version_text, data);
    if (major > VERSION_MAJOR_MAX)
        hf_warn("%s: PostgreSQL %s is newer than what Holdfast is made for (up to %d)", pg->name,
                pg->version_text, VERSION_MAJOR_MAX);
    return 0;
}

/* --- directories ------------------------------------------------------------------------------ */

static const char *user_name(uid_t uid, char *buf, size_t cap)
{
    struct passwd pw, *found = NULL;
    char strings[2048];

    if (getpwuid_r(uid, &pw, strings, sizeof strings, &found) == 0 && found != NULL)
        (void)snprintf(buf, cap, "%s", pw.pw_name);
    else
        (void)snprintf(buf, cap, "uid %u", (unsigned)uid);
    return buf;
}

static int check_owner(const struct hf_pg *pg, const char *path, const struct stat *st,
                       struct hf_error *err)
{
    char owner[64], me[64];

    if (!S_ISDIR(st->st_mode))
        return hf_fail(err, HF_EINVAL, "%s: %s is not a directory", pg->name, path);
    if (st->st_uid == geteuid())
        return 0;
    return hf_fail(err, HF_EPERM,
                   "%s: %s belongs to %s, this process runs as %s (hint: chown -R %s %s)", pg->name,
                   path, user_name(st->st_uid, owner, sizeof owner),
                   user_name(geteuid(), me, sizeof me), me, path);
}

/* Kubernetes' fsGroup makes volumes writable for a group at each mount; PostgreSQL then refuses
 * them. */
static int check_mode(const struct hf_pg *pg, const char *path, struct hf_error *err)
{
    struct stat st;
    int code;

    if (lstat(path, &st) != 0)
        return errno == ENOENT ? 0
                               : hf_fail(err, HF_EIO, "%s: cannot look at %s: %s", pg->name, path,
                                         strerror(errno));
    code = check_owner(pg, path, &st, err);
    if (code != 0 || (st.st_mode & 07077) == 0)
        return code;
    if (chmod(path, 0700) != 0)
        return hf_fail(err, HF_EPERM, "%s: %s has mode %04o, and it cannot be set to 0700: %s",
                       pg->name, path, (unsigned)st.st_mode & 07777, strerror(errno));
    hf_info("%s: mode of %s was %04o, now 0700", pg->name, path, (unsigned)st.st_mode & 07777);
    return 0;
}

static int make_dir(const struct hf_pg *pg, const char *path, struct hf_error *err)
{
    if (mkdir(path, 0700) != 0 && errno != EEXIST)
        return hf_fail(err, errno == ENOSPC ? HF_ENOSPC : HF_EIO, "%s: cannot make %s: %s",
                       pg->name, path, strerror(errno));
    return check_mode(pg, path, err);
}

/* A passwd file of our own, by way of Debian's libnss-wrapper, which the image has. */
static int name_nameless(struct hf_pg *pg, struct hf_error *err)
{
    char strings[2048], path[HF_PG_PATH_MAX], text[256];
    struct passwd pw, *found = NULL;
    glob_t lib;
    int code = 0;

    if (getpwuid_r(geteuid(), &pw, strings, sizeof strings, &found) == 0 && found != NULL)
        return 0;
    if (glob("/usr/lib/*/libnss_wrapper.so", 0, NULL, &lib) != 0) {
        hf_warn("%s: uid %u has no name, which initdb asks for (hint: a line in /etc/passwd, or apt-get install "
                "libnss-wrapper)",
                pg->name, (unsigned)geteuid());
        return 0;
    }
    (void)snprintf(text, sizeof text, "holdfast:x:%u:%u::/:/bin/false\n", (unsigned)geteuid(),
                   (unsigned)getegid());
    if (hf_pg_path(path, sizeof path, pg->conf_dir, "passwd") == 0) {
        (void)snprintf(pg->nameless[0], sizeof pg->nameless[0], "LD_PRELOAD=%s", lib.gl_pathv[0]);
        (void)snprintf(pg->nameless[1], sizeof pg->nameless[1], "NSS_WRAPPER_PASSWD=%s", path);
        code = hf_pg_write_file(path, text, err);
    }
    (void)snprintf(text, sizeof text, "holdfast:x:%u:\n", (unsigned)getegid());
    if (code == 0 && hf_pg_path(path, sizeof path, pg->conf_dir, "group") == 0) {
        (void)snprintf(pg->nameless[2], sizeof pg->nameless[2], "NSS_WRAPPER_GROUP=%s", path);
        code = hf_pg_write_file(path, text, err);
    }
    globfree(&lib);
    return code;
}

static int check_file_system(const struct hf_pg *pg, bool allow_ephemeral, struct hf_error *err)
{
    enum { OVERLAY = 0x794c7630, TMPFS = 0x01021994, RAMFS = (int)0x858458f6 };
    struct statfs fs;
    unsigned type;

    if (statfs(pg->node_dir, &fs) != 0)
        return hf_fail(err, HF_EIO, "%s: cannot look at %s: %s", pg->name, pg->node_dir,
                       strerror(errno));
    type = (unsigned)fs.f_type;
    if (allow_ephemeral ||
        (type != (unsigned)OVERLAY && type != (unsigned)TMPFS && type != (unsigned)RAMFS))
        return 0;
    return hf_fail(
        err, HF_EINVAL,
        "%s: %s lies on %s, which is lost with the container or at a restart (hint: mount a "
        "volume there, or say --allow-ephemeral)",
        pg->name, pg->node_dir, type == (unsigned)OVERLAY ? "overlayfs" : "tmpfs");
}

static int set_paths(struct hf_pg *pg, const struct hf_pg_config *c, struct hf_error *err)
{
    const struct {
        char *out;
        const char *name;
    } paths[] = {
        {pg->data, "data"},     {pg->data_new, "data.new"}, {pg->data_old, "data.old"},
        {pg->conf_dir, "pg"},   {pg->sock_dir, "sock"},     {pg->relay_dir, "relay"},
        {pg->copy_dir, "copy"}, {pg->mark, "rewinding"},    {pg->untouched, "untouched"},
        {pg->log_file, "log/postgresql.log"}};
    struct sockaddr_un un;

    if (c->node_dir[0] != '/')
        return hf_fail(err, HF_EINVAL, "the node's directory must be an absolute path: %s",
                       c->node_dir);
    (void)snprintf(pg->node_dir, sizeof pg->node_dir, "%s", c->node_dir);
    /* The longest socket is relay/.s.PGSQL.5432. */
    if (strlen(c->node_dir) + strlen("/relay/.s.PGSQL.5432") >= sizeof un.sun_path)
        return hf_fail(err, HF_EINVAL,
                       "%s: %s is too long for the Unix sockets in it (hint: at most %zu bytes; "
                       "choose a shorter directory)",
                       c->name, c->node_dir,
                       sizeof un.sun_path - strlen("/relay/.s.PGSQL.5432") - 1);
    for (size_t i = 0; i < sizeof paths / sizeof *paths; i++)
        if (hf_pg_path(paths[i].out, HF_PG_PATH_MAX, c->node_dir, paths[i].name) != 0)
            return hf_fail(err, HF_EINVAL, "path too long: %s", c->node_dir);
    return 0;
}

static int check_directories(struct hf_pg *pg, const struct hf_pg_config *c, struct hf_error *err)
{
    char log_dir[HF_PG_PATH_MAX];
    struct stat st;
    int code;

    if (stat(pg->node_dir, &st) != 0)
        return hf_fail(err, HF_ENOENT, "%s: cannot look at %s: %s", pg->name, pg->node_dir,
                       strerror(errno));
    code = check_owner(pg, pg->node_dir, &st, err);
    if (code == 0)
        code = check_file_system(pg, c->allow_ephemeral, err);
    if (code == 0)
        code = make_dir(pg, pg->conf_dir, err);
    if (code == 0)
        code = make_dir(pg, pg->sock_dir, err);
    if (code == 0 && hf_pg_path(log_dir, sizeof log_dir, pg->node_dir, "log") == 0)
        code = make_dir(pg, log_dir, err);
    if (code == 0)
        code = check_mode(pg, pg->data, err);
    return code;
}

/* --- open, probe, close ----------------------------------------------------------------------- */

static int init_sync(struct hf_pg *pg, struct hf_error *err)
{
    pthread_condattr_t attr;

    if (pthread_mutex_init(&pg->lock, NULL) != 0 || pthread_condattr_init(&attr) != 0 ||
        pthread_condattr_setclock(&attr, CLOCK_MONOTONIC) != 0 ||
        pthread_cond_init(&pg->changed, &attr) != 0)
        return hf_fail(err, HF_ENOMEM, "no memory for a lock");
    (void)pthread_condattr_destroy(&attr);
    pg->wake_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    return pg->wake_fd >= 0 ? 0 : hf_fail(err, HF_EIO, "eventfd: %s", strerror(errno));
}

int hf_pg_open(struct hf_pg **out, const struct hf_pg_config *c, struct hf_error *err)
{
    struct hf_pg *pg = calloc(1, sizeof *pg);
    int code;

    *out = NULL;
    if (pg == NULL)
        return hf_fail(err, HF_ENOMEM, "no memory for a PostgreSQL server");
    pg->wake_fd = -1;
    (void)snprintf(pg->name, sizeof pg->name, "%s", c->name);
    (void)snprintf(pg->member, sizeof pg->member, "%s", c->member);
    (void)snprintf(pg->extra_conf, sizeof pg->extra_conf, "%s",
                   c->extra_conf != NULL ? c->extra_conf : "");
    pg->wal_keep_mb = c->wal_keep_mb != 0 ? c->wal_keep_mb : 1024;
    pg->hooks = c->hooks;
    code = geteuid() != 0
               ? 0
               : hf_fail(err, HF_EPERM, "%s: PostgreSQL refuses to run as root", c->name);
    if (code == 0)
        code = init_sync(pg, err);
    if (code == 0)
        code = set_paths(pg, c, err);
    if (code == 0)
        code = check_directories(pg, c, err);
    if (code == 0)
        code = name_nameless(pg, err);
    if (code == 0)
        code = find_bindir(pg, c->bindir, err);
    if (code == 0)
        code = check_version(pg, err);
    if (code == 0)
        code = hf_pg_guard_find(pg, c->guard, c->guard_dir, err);
    if (code == 0)
        code = hf_pg_settings_write(pg, err);
    pg->status.version = pg->version;
    pg->status.guarded = pg->guard[0] != '\0';
    (void)snprintf(pg->status.version_text, sizeof pg->status.version_text, "%s", pg->version_text);
    if (code != 0) {
        hf_pg_close(pg);
        return code;
    }
    *out = pg;
    return 0;
}

void hf_pg_close(struct hf_pg *pg)
{
    if (pg == NULL)
        return;
    hf_pg_session_close(pg);
    hf_pg_server_forget(pg);
    if (pg->watched) {
        /* The server runs on: its watcher would outlive us. */
        (void)pthread_cancel(pg->watcher);
        (void)pthread_join(pg->watcher, NULL);
    }
    if (pg->wake_fd >= 0)
        (void)close(pg->wake_fd);
    free(pg);
}

int hf_pg_probe(struct hf_pg *pg, enum hf_pg_state *state, struct hf_error *err)
{
    int code = hf_pg_end_processes(pg->conf_dir, false, err); /* our tools: a copy under way */

    if (code == 0)
        code = hf_pg_end_processes(pg->data_new, false, err);
    if (code == 0)
        code = hf_pg_end_processes(pg->data, true, err);
    if (code == 0 && !hf_pg_exists(pg->data) && hf_pg_exists(pg->data_old))
        code =
            hf_pg_rename(pg->data_old, pg->data, err); /* between the two renames of a swap (I7) */
    if (code == 0)
        code = hf_pg_remove_tree(pg->data_new, err);
    if (code == 0)
        *state = hf_pg_exists(pg->data) ? HF_PG_DOWN : HF_PG_EMPTY;
    return code;
}

bool hf_pg_untouched(const struct hf_pg *pg)
{
    struct stat st;

    /* This one must be seen. */
    return lstat(pg->untouched, &st) == 0 && hf_pg_exists(pg->data) && !hf_pg_exists(pg->mark);
}

pid_t hf_pg_pid(struct hf_pg *pg)
{
    pid_t pid;

    pthread_mutex_lock(&pg->lock);
    pid = pg->pid;
    pthread_mutex_unlock(&pg->lock);
    return pid;
}
