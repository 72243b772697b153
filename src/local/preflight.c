/* What can be known to fail before anything is started. */
#include "local/layout.h"

#include <arpa/inet.h>
#include <errno.h>
#include <glob.h>
#include <netinet/in.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "local/lock.h"

enum { PG_MAJOR_MIN = 13, SOCKET_PATH_MAX = 107 };

/* -- PostgreSQL -------------------------------------------------------------------------------------- */

static int newest_installed(char out[HF_PATH_MAX])
{
    glob_t found;
    unsigned best = 0;

    if (glob("/usr/lib/postgresql/*/bin/postgres", 0, NULL, &found) == 0) {
        for (size_t i = 0; i < found.gl_pathc; i++) {
            unsigned v = 0;
            if (sscanf(found.gl_pathv[i], "/usr/lib/postgresql/%u/", &v) == 1 && v > best) {
                best = v;
                (void)snprintf(out, HF_PATH_MAX, "/usr/lib/postgresql/%u/bin", v);
            }
        }
        globfree(&found);
    }
    return best > 0 ? 0 : -1;
}

static int check_version(const char *program, struct hf_error *err)
{
    char command[HF_PATH_MAX + 32], line[128] = "";
    unsigned major = 0, minor = 0;
    const char *at;
    FILE *p;

    if (strchr(program, '\'') != NULL)
        return hf_fail(err, HF_EINVAL, "%s: a path without quotes is needed", program);
    (void)snprintf(command, sizeof command, "'%s' --version", program);
    p = popen(command, "re");
    if (p != NULL) {
        if (fgets(line, sizeof line, p) == NULL)
            line[0] = '\0';
        (void)pclose(p);
    }
    at = strstr(line, "(PostgreSQL) ");
    if (at == NULL || sscanf(at + 13, "%u.%u", &major, &minor) < 1)
        return hf_fail(err, HF_EPG, "%s --version: no answer that makes sense", program);
    if (major < PG_MAJOR_MIN)
        return hf_fail(err, HF_EPG,
                       "%s is PostgreSQL %u.%u: too old, %d is the oldest that will do (hint: install a "
                       "newer one; HOLDFAST_PG_BINDIR says where it is)",
                       program, major, minor, PG_MAJOR_MIN);
    return 0;
}

static int check_postgres(struct hf_error *err)
{
    static const char *const needed[] = {"initdb", "postgres", "pg_basebackup", "pg_rewind",
                                         "pg_controldata"};
    const char *given = getenv("HOLDFAST_PG_BINDIR");
    char dir[HF_PATH_MAX], program[HF_PATH_MAX + 32];

    if (given != NULL && given[0] != '\0')
        (void)snprintf(dir, sizeof dir, "%s", given);
    else if (newest_installed(dir) != 0)
        return 0; /* not where Debian puts it: the node looks further, and says what it finds */
    for (unsigned i = 0; i < sizeof needed / sizeof *needed; i++) {
        (void)snprintf(program, sizeof program, "%s/%s", dir, needed[i]);
        if (access(program, X_OK) != 0)
            return hf_fail(err, HF_EPG,
                           "%s: %s (hint: install PostgreSQL, on Debian `apt-get install postgresql`, or "
                           "set HOLDFAST_PG_BINDIR to the directory of its programs)",
                           program, strerror(errno));
    }
    (void)snprintf(program, sizeof program, "%s/postgres", dir);
    return check_version(program, err);
}

/* -- paths and ports --------------------------------------------------------------------------------- */

static int check_paths(const struct hf_local *l, struct hf_error *err)
{
    char path[HF_PATH_MAX];
    size_t longest;

    hf_local_node_path(l, HF_MEMBERS_MAX - 1, "relay/.s.PGSQL.5432", path);
    longest = strlen(path);
    if (longest > SOCKET_PATH_MAX)
        return hf_fail(err, HF_EINVAL,
                       "%s: too long for Unix sockets, by %zu characters (hint: --dir with a shorter "
                       "path)",
                       l->dir, longest - SOCKET_PATH_MAX);
    if (hf_local_port(l, l->replicas - 1, HF_PORT_STEP) > 65535)
        return hf_fail(err, HF_EINVAL, "port %u: leaves no room for %u nodes (hint: --port)", l->port,
                       l->replicas);
    return 0;
}

static int check_port(const struct hf_local *l, unsigned ordinal, unsigned port, struct hf_error *err)
{
    struct sockaddr_in sa = {.sin_family = AF_INET,
                             .sin_port = htons((uint16_t)port),
                             .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0), on = 1, rv = 0;

    if (fd < 0)
        return hf_fail(err, HF_EIO, "socket: %s", strerror(errno));
    (void)setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof on);
    if (bind(fd, (struct sockaddr *)&sa, sizeof sa) != 0 || listen(fd, 1) != 0)
        rv = hf_fail(err, HF_EBUSY,
                     "%s-%u: port %u on 127.0.0.1: %s (hint: `ss -ltnp 'sport = :%u'` shows who has it; "
                     "--port chooses others)",
                     l->name, ordinal, port, strerror(errno), port);
    close(fd);
    return rv;
}

int hf_local_preflight(const struct hf_local *l, struct hf_error *err)
{
    static const unsigned offsets[] = {HF_PORT_SQL, HF_PORT_READ_ONLY, HF_PORT_HTTP, HF_PORT_PEER};
    int rv = check_paths(l, err);

    if (rv == 0)
        rv = check_postgres(err);
    for (unsigned i = 0; i < l->replicas && rv == 0; i++) {
        char lock[HF_PATH_MAX];
        struct hf_lock_pids pids;
        hf_local_node_path(l, i, "node.lock", lock);
        if (hf_lock_look(lock, &pids))
            continue;
        for (unsigned k = 0; k < sizeof offsets / sizeof *offsets && rv == 0; k++)
            rv = check_port(l, i, hf_local_port(l, i, offsets[k]), err);
    }
    return rv;
}
