/* holdfast up: make a cluster on this machine, or start the one that is there. */
#include "cmd/cmd.h"

#include <errno.h>
#include <fcntl.h>
#include <libpq-fe.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/vfs.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/log.h"
#include "local/lock.h"
#include "local/supervisor.h"
#include "local/user.h"

enum {
    REPLICAS_DEFAULT = 3,
    PORT_DEFAULT = 5500,
    POLL_MS = 30,
    ASK_MS = 400,
    ENDS_TOO_MANY = 4, /* a node that ended so often during the start will not come up */
    LINE_MAX_CHARS = 512,
};

struct up {
    struct hf_local local;
    char dir[HF_PATH_MAX], name[HF_LOCAL_NAME_MAX];
    unsigned replicas, port, timeout_s, lease_ms; /* 0: not given */
    bool foreground, made, terminal;
    struct hf_option_list settings;
    pid_t supervisor; /* started by us; 0: ran already */
    unsigned long begun_ms;
    char shown[LINE_MAX_CHARS];
    char locked_out[256]; /* why nobody can log in by the application's account; "": it can be used */
    char dir_hint[HF_PATH_MAX + 8]; /* " --dir X" if a person has to say it to the other verbs */
};

/* -- which cluster ----------------------------------------------------------------------------------- */

static int check_name(const char *name, struct hf_error *err)
{
    if (!hf_local_is_name(name))
        return hf_fail(err, HF_EINVAL,
                       "--name %s: a name starts with a letter, and has lower-case letters, digits and "
                       "dashes only",
                       name);
    return 0;
}

/* What was asked for must fit what is there. */
static int check_same(const struct up *u, struct hf_error *err)
{
    const struct hf_local *l = &u->local;

    if (u->replicas != 0 && u->replicas != l->replicas)
        return hf_fail(err, HF_EEXIST,
                       "%s: cluster %s has %u nodes, not %u (hint: `holdfast scale --replicas %u` once "
                       "it is up)",
                       l->dir, l->name, l->replicas, u->replicas, u->replicas);
    if (u->port != 0 && u->port != l->port)
        return hf_fail(err, HF_EEXIST,
                       "%s: cluster %s has ports from %u, not %u (hint: another --dir for another "
                       "cluster)",
                       l->dir, l->name, l->port, u->port);
    if (u->name[0] != '\0' && strcmp(u->name, l->name) != 0)
        return hf_fail(err, HF_EEXIST,
                       "%s: here is cluster %s, not %s (hint: another --dir for another cluster)",
                       l->dir, l->name, u->name);
    for (unsigned i = 0; i < l->n_settings; i++)
        if (hf_node_setting_check(l->settings[i], err) != 0) { /* each node would say so, and end */
            hf_error_prefix(err, "%s/cluster.json: settings", l->dir);
            return HF_EINVAL;
        }
    return 0;
}

static int make_cluster(struct up *u, const char *dir, struct hf_error *err)
{
    struct hf_local *l = &u->local;
    int rv;

    memset(l, 0, sizeof *l);
    (void)snprintf(l->dir, sizeof l->dir, "%s", dir);
    (void)snprintf(l->name, sizeof l->name, "%s", u->name[0] != '\0' ? u->name : "demo");
    l->port = u->port != 0 ? u->port : PORT_DEFAULT;
    l->replicas = l->expect = u->replicas != 0 ? u->replicas : REPLICAS_DEFAULT;
    l->lease_ms = u->lease_ms != 0 ? u->lease_ms : HF_LEASE_MS_LOCAL;
    for (unsigned i = 0; i < u->settings.n; i++) {
        l->settings[i] = strdup(u->settings.items[i]);
        if (l->settings[i] == NULL)
            return hf_fail(err, HF_ENOMEM, "out of memory");
        l->n_settings++;
    }
    rv = hf_local_preflight(l, err);
    if (rv == 0)
        rv = hf_local_create(l, err);
    u->made = rv == 0;
    return rv;
}

static int become_owner(const struct hf_local *l, struct hf_error *err)
{
    struct stat st;
    int rv = hf_user_drop(err);

    if (rv == 0 && (stat(l->dir, &st) != 0 || st.st_uid != geteuid()))
        return hf_fail(err, HF_EPERM, "%s: belongs to another user (hint: run this as that one)",
                       l->dir);
    /* Not in a directory that root may enter and `postgres` may not: its programs complain. */
    if (rv == 0 && chdir(l->dir) != 0)
        return hf_fail(err, HF_EIO, "%s: %s", l->dir, strerror(errno));
    return rv;
}

/* Loads or makes the cluster. From here on the process is nobody but its owner. */
static int find_cluster(struct up *u, struct hf_error *err)
{
    char dir[HF_PATH_MAX];
    bool fallback;
    int rv;

    rv = hf_local_find(dir, u->dir, u->name[0] != '\0' ? u->name : "demo", &fallback, err);
    if (rv != 0)
        return rv;
    /* The other verbs find by themselves what this one found, unless it was told where or which. */
    if (u->dir[0] != '\0' || (fallback && u->name[0] != '\0' && strcmp(u->name, "demo") != 0))
        (void)snprintf(u->dir_hint, sizeof u->dir_hint, " --dir %s", u->dir[0] != '\0' ? u->dir : dir);
    if (fallback && !u->foreground)
        printf("user postgres cannot enter this directory: the cluster's place is %s\n", dir);
    rv = hf_local_load(&u->local, dir, err);
    if (rv == HF_ENOENT)
        return make_cluster(u, dir, err);
    if (rv == 0)
        rv = check_same(u, err);
    if (rv == 0)
        rv = become_owner(&u->local, err);
    return rv;
}

/* -- the supervisor ---------------------------------------------------------------------------------- */

static int start_supervisor(struct up *u, struct hf_error *err)
{
    char log[HF_PATH_MAX];
    int fd, null;

    hf_local_path(&u->local, "up.log", log);
    fd = open(log, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0600);
    null = open("/dev/null", O_RDONLY | O_CLOEXEC);
    if (fd < 0 || null < 0)
        return hf_fail(err, HF_EIO, "%s: %s", log, strerror(errno));
    (void)fflush(NULL);
    u->supervisor = fork();
    if (u->supervisor < 0)
        return hf_fail(err, HF_EIO, "fork: %s", strerror(errno));
    if (u->supervisor == 0) {
        (void)setsid();
        if (dup2(null, 0) >= 0 && dup2(fd, 1) >= 0 && dup2(fd, 2) >= 0 && chdir(u->local.dir) == 0)
            execl("/proc/self/exe", "holdfast", "up", "--foreground", "--dir", u->local.dir,
                  (char *)NULL);
        _exit(127);
    }
    close(fd);
    close(null);
    return 0;
}

static bool supervisor_ended(const struct up *u)
{
    return u->supervisor > 0 && waitpid(u->supervisor, NULL, WNOHANG) != 0;
}

static int stay_in_foreground(struct up *u, struct hf_error *err)
{
    hf_log_init(NULL, HF_LOG_INFO);
    if (chdir(u->local.dir) != 0)
        return hf_fail(err, HF_EIO, "%s: %s", u->local.dir, strerror(errno));
    return hf_supervisor_run(&u->local, err);
}

/* -- waiting until it takes writes ------------------------------------------------------------------- */

static void show_progress(struct up *u, const struct hf_view_all *v)
{
    char line[LINE_MAX_CHARS] = "";
    size_t n = 0;

    for (unsigned i = 0; i < v->n && n < sizeof line - 1; i++) {
        const json_t *s = v->nodes[i].status;
        n += (size_t)snprintf(line + n, sizeof line - n, "%s%s %s", i > 0 ? ", " : "",
                              v->nodes[i].name, s != NULL ? hf_json_text(s, "state") : "starting");
    }
    if (u->terminal) {
        printf("\r\033[K%5.1f s  %.90s", (double)(hf_cmd_now_ms() - u->begun_ms) / 1000, line);
    } else if (strcmp(line, u->shown) != 0) {
        printf("%5.1f s  %s\n", (double)(hf_cmd_now_ms() - u->begun_ms) / 1000, line);
        strcpy(u->shown, line);
    }
    (void)fflush(stdout);
}

/* More than half of the nodes end again and again: it will not get better. */
static bool hopeless(const struct up *u)
{
    struct hf_error err;
    json_t *answer, *list, *node;
    unsigned bad = 0;
    size_t i;

    if (hf_cmd_ask_supervisor(&u->local, json_pack("{s:s}", "op", "nodes"), ASK_MS, &answer, &err) != 0)
        return false;
    list = json_object_get(answer, "nodes");
    json_array_foreach(list, i, node)
        bad += hf_json_number(node, "ends") >= ENDS_TOO_MANY;
    json_decref(answer);
    return bad * 2 > u->local.replicas;
}

static bool can_write(const struct hf_local *l, unsigned leader, bool admin, char *why, size_t cap)
{
    char uri[HF_URI_MAX];
    PGconn *c;
    PGresult *r = NULL;
    bool ok;

    hf_cmd_uri_text(l, leader, leader, false, admin, uri, sizeof uri);
    c = PQconnectdb(uri);
    if (PQstatus(c) == CONNECTION_OK)
        r = PQexec(c, "SELECT pg_current_xact_id()");
    ok = PQresultStatus(r) == PGRES_TUPLES_OK;
    if (!ok)
        (void)snprintf(why, cap, ": %.200s", PQerrorMessage(c));
    PQclear(r);
    PQfinish(c);
    return ok;
}

/* The first leader makes the roles and the database just after its gate has opened. Later they are the administrator's, who may have
 * changed the application's password, or taken its login away. */
static bool takes_writes(struct up *u, unsigned leader, char *why, size_t cap)
{
    char unheard[256];

    if (can_write(&u->local, leader, false, why, cap))
        return true;
    if (u->made || !can_write(&u->local, leader, true, unheard, sizeof unheard))
        return false;
    if (!can_write(&u->local, leader, false, u->locked_out, sizeof u->locked_out)) /* still: it was not the gate */
        return true;
    u->locked_out[0] = '\0';
    return true;
}

static int wait_for_writes(struct up *u, struct hf_error *err)
{
    unsigned long end_ms = u->begun_ms + u->timeout_s * 1000ul, looked_ms = u->begun_ms;
    char why[256] = "";

    while (hf_cmd_now_ms() < end_ms) {
        struct hf_view_all v;
        bool open;
        hf_cmd_look(&u->local, ASK_MS, &v);
        open = v.leader >= 0 && v.open;
        show_progress(u, &v);
        hf_cmd_look_free(&v);
        if (open && takes_writes(u, (unsigned)v.leader, why, sizeof why)) {
            if (u->terminal)
                printf("\r\033[K");
            return 0;
        }
        if (supervisor_ended(u)) {
            strcpy(why, ": its background process ended");
            break;
        }
        if (u->made && hf_cmd_now_ms() - looked_ms > 1000) {
            looked_ms = hf_cmd_now_ms();
            if (hopeless(u)) {
                strcpy(why, ": its nodes end as soon as they start");
                break;
            }
        }
        hf_cmd_sleep_ms(POLL_MS);
    }
    if (u->terminal)
        printf("\n");
    return hf_fail(err, HF_ETIMEOUT, "cluster %s takes no writes after %.1f s%s", u->local.name,
                   (double)(hf_cmd_now_ms() - u->begun_ms) / 1000, why);
}

static void explain(const struct up *u)
{
    char text[1024], path[HF_PATH_MAX];
    const char *dir = u->dir_hint;

    for (unsigned i = 0; i < u->local.replicas; i++)
        if (hf_cmd_last_complaint(&u->local, i, text, sizeof text))
            fprintf(stderr, "  %s-%u: %s\n", u->local.name, i, text);
    hf_local_path(&u->local, "up.log", path);
    if (u->made)
        fprintf(stderr, "hint: more in `holdfast logs NODE%s` and %s; all of it has been stopped, "
                        "`holdfast up` tries again\n", dir, path);
    else
        fprintf(stderr, "hint: it goes on trying; `holdfast status%s` shows how far it is, `holdfast logs "
                        "NODE%s` and %s tell more\n", dir, dir, path);
}

/* A first start that failed leaves nothing behind that runs. */
static void stop_again(const struct up *u)
{
    char lock[HF_PATH_MAX];
    struct hf_lock_pids pids;
    struct hf_error err;

    (void)hf_cmd_ask_supervisor(&u->local, json_pack("{s:s}", "op", "down"), 2000, NULL, &err);
    hf_local_path(&u->local, "up.lock", lock);
    for (unsigned i = 0; i < 600 && hf_lock_look(lock, &pids); i++)
        hf_cmd_sleep_ms(100);
}

/* -- what to do next --------------------------------------------------------------------------------- */

static void tell(const struct up *u, const char *leader, json_int_t epoch)
{
    const struct hf_local *l = &u->local;
    const char *dir = u->dir_hint;
    char uri[HF_URI_MAX];

    printf("cluster %s takes writes: %u node%s, leader %s, epoch %lld (%.1f s)\n\n", l->name,
           l->replicas, l->replicas == 1 ? "" : "s", leader, (long long)epoch,
           (double)(hf_cmd_now_ms() - u->begun_ms) / 1000);
    hf_cmd_uri_text(l, 0, l->replicas - 1, false, false, uri, sizeof uri);
    printf("  read and write   psql '%s'\n", uri);
    hf_cmd_uri_text(l, 0, l->replicas - 1, true, false, uri, sizeof uri);
    printf("  read only        psql '%s'\n\n", uri);
    if (u->locked_out[0] != '\0')
        printf("note: %s cannot log in by what `holdfast uri` says%s%s"
               "hint: that password is of the day when the cluster was made; `holdfast sql --admin%s` can set it again\n\n",
               l->accounts.app_role, u->locked_out, strchr(u->locked_out, '\n') != NULL ? "" : "\n", dir);
    printf("Try next:\n"
           "  %1$s sql%2$s -c 'SELECT version()'\n"
           "  %1$s status%2$s --watch\n"
           "  %1$s kill %3$s%2$s    # the leader, by SIGKILL; the others go on\n"
           "  %1$s start %3$s%2$s\n"
           "  %1$s down%2$s\n",
           program_invocation_name, dir, leader);
}

static void warn_if_fleeting(const struct hf_local *l)
{
    struct statfs fs;

    if (statfs(l->dir, &fs) != 0)
        return;
    if (fs.f_type == 0x01021994)
        printf("note: %s is on tmpfs: a reboot removes the cluster and its data\n", l->dir);
    else if (fs.f_type == 0x794c7630)
        printf("note: %s is on overlayfs: the cluster goes when this container goes\n", l->dir);
}

static int up(struct up *u, struct hf_error *err)
{
    char lock[HF_PATH_MAX];
    struct hf_lock_pids pids;
    struct hf_view_all v;
    int rv;

    hf_local_path(&u->local, "up.lock", lock);
    if (hf_lock_look(lock, &pids)) {
        printf("cluster %s is running already (pid %d)\n", u->local.name, (int)pids.first.pid);
    } else {
        rv = u->made ? 0 : hf_local_preflight(&u->local, err);
        if (rv == 0)
            rv = start_supervisor(u, err);
        if (rv != 0)
            return rv;
        if (u->made)
            warn_if_fleeting(&u->local);
    }
    rv = wait_for_writes(u, err);
    if (rv != 0) {
        (void)hf_cmd_fail(err);
        if (u->made)
            stop_again(u);
        explain(u);
        return rv;
    }
    hf_cmd_look(&u->local, ASK_MS, &v);
    tell(u, v.leader >= 0 ? v.nodes[v.leader].name : "(changing)", v.epoch);
    hf_cmd_look_free(&v);
    return 0;
}

int hf_cmd_up(int argc, char **argv)
{
    static struct up u;
    const struct hf_option o[] = {
        {"replicas", 'n', HF_OPT_NUMBER, &u.replicas, 0, 1, HF_MEMBERS_MAX, NULL, "N",
         "nodes of a new cluster (default 3)"},
        HF_DIR_OPTION(u.dir),
        {"port", 'p', HF_OPT_NUMBER, &u.port, 0, 1024, 65000, NULL, "PORT",
         "first port of a new cluster (default 5500)"},
        {"name", 0, HF_OPT_TEXT, u.name, sizeof u.name, 0, 0, NULL, "NAME",
         "name of a new cluster (default demo)"},
        {"set", 'c', HF_OPT_LIST, &u.settings, 0, 0, 0, NULL, "NAME=VALUE",
         "a PostgreSQL setting of a new cluster; may be repeated"},
        {"lease-ms", 0, HF_OPT_NUMBER, &u.lease_ms, 0, HF_LEASE_MS_MIN, HF_LEASE_MS_MAX, NULL, "MS",
         "lease and election timeout of a new cluster (default 500)"},
        {"timeout", 0, HF_OPT_NUMBER, &u.timeout_s, 0, 1, 3600, NULL, "S",
         "how long to wait until it takes writes (default 60)"},
        {"foreground", 0, HF_OPT_FLAG, &u.foreground, 0, 0, 0, NULL, NULL,
         "stay, log to stderr, and go down with SIGTERM or Ctrl-C"},
    };
    const struct hf_usage usage = {
        "[--replicas N] [--dir DIR] [--port PORT] [--name NAME] [--foreground]",
        "Starts a cluster on this machine and returns when it takes writes. Without a cluster in DIR it\n"
        "makes one: certificates, passwords, and a directory for each node. With one it starts it again,\n"
        "with its data; if it runs already, that is all it says.\n\n"
        "Node i serves SQL on PORT + 10*i and read-only SQL one above; 127.0.0.1 only. A background\n"
        "process starts nodes again that end, as kubelet would. As root everything runs as the user\n"
        "postgres.\n",
        o, sizeof o / sizeof *o};
    struct hf_error err;
    int status, rv;

    u.timeout_s = 60;
    if (!hf_cmd_parse(argc, argv, &usage, NULL, &status))
        return status;
    u.begun_ms = hf_cmd_now_ms();
    u.terminal = hf_cmd_is_terminal(stdout);
    if (u.name[0] != '\0' && check_name(u.name, &err) != 0) {
        (void)hf_cmd_fail(&err);
        return 2;
    }
    for (unsigned i = 0; i < u.settings.n; i++)
        if (hf_node_setting_check(u.settings.items[i], &err) != 0) {
            (void)hf_cmd_fail(&err);
            return 2;
        }
    rv = find_cluster(&u, &err);
    if (rv == 0 && u.foreground)
        rv = stay_in_foreground(&u, &err);
    else if (rv == 0)
        return up(&u, &err) == 0 ? 0 : (err.code == HF_ETIMEOUT ? 1 : hf_cmd_fail(&err));
    return rv == 0 ? 0 : hf_cmd_fail(&err);
}
