#include "postgres.h"

#include <glob.h>
#include <pwd.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

/* As user postgres if we are root: PostgreSQL does not run as root. */
static bool run(const char *fmt, ...) __attribute__((format(printf, 1, 2)));
static bool run(const char *fmt, ...)
{
    char command[1024], line[1400];
    va_list ap;

    va_start(ap, fmt);
    (void)vsnprintf(command, sizeof command, fmt, ap);
    va_end(ap);
    (void)snprintf(line, sizeof line, "%s %s >/dev/null 2>&1",
                   geteuid() == 0 ? "setpriv --reuid postgres --regid postgres --clear-groups" : "",
                   command);
    return system(line) == 0;
}

static bool bin_dir(char *out, size_t cap)
{
    glob_t g;
    bool found = glob("/usr/lib/postgresql/*/bin/pg_ctl", 0, NULL, &g) == 0;

    if (found) {
        (void)snprintf(out, cap, "%s", g.gl_pathv[g.gl_pathc - 1]);
        *strrchr(out, '/') = '\0';
    }
    globfree(&g);
    return found;
}

/* "/usr/lib/postgresql/15/bin" names its version. */
static bool guard_find(char *out, size_t cap, const char *dir, const char *bin)
{
    unsigned major;

    if (sscanf(bin, "/usr/lib/postgresql/%u/", &major) != 1)
        return false;
    (void)snprintf(out, cap, "%s/holdfast_guard_%u.so", dir, major);
    return access(out, R_OK) == 0;
}

bool postgres_open(struct postgres *p)
{
    const struct passwd *pw = getpwnam("postgres");
    char bin[128], guard[512] = "";

    (void)snprintf(p->dir, sizeof p->dir, "/tmp/hf-router-pg-XXXXXX");
    if (!bin_dir(bin, sizeof bin) || (geteuid() == 0 && pw == NULL) || mkdtemp(p->dir) == NULL)
        return false;
    if (p->guard_dir != NULL && !guard_find(guard, sizeof guard, p->guard_dir, bin))
        return false;
    if (geteuid() == 0 && chown(p->dir, pw->pw_uid, pw->pw_gid) != 0)
        return false;
    return run("%s/initdb --no-sync -A trust -U holdfast --no-locale -D %s/data", bin, p->dir) &&
           run("sh -c \"printf 'local all holdfast trust\\nlocal all all scram-sha-256\\n' > %s/data/pg_hba.conf\"", p->dir) &&
           run("%s/pg_ctl -w -D %s/data -l %s/log -o \"-k %s -p 5432 -c listen_addresses= -c "
               "fsync=off "
               "-c max_connections=30 -c shared_buffers=16MB -c max_prepared_transactions=2 %s%s\" start",
               bin, p->dir, p->dir, p->dir, guard[0] != '\0' ? "-c shared_preload_libraries=" : "", guard);
}

void postgres_close(struct postgres *p)
{
    char bin[128];

    if (bin_dir(bin, sizeof bin))
        (void)run("%s/pg_ctl -w -D %s/data -m immediate stop", bin, p->dir);
    (void)run("rm -r %s", p->dir);
    (void)rmdir(p->dir);
}
