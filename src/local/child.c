/* One node as a process: spawned, watched, started again. */
#include "local/supervisor_private.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/log.h"

enum { ARGS_MAX = 40 + 2 * HF_MEMBERS_MAX + 2 * HF_LOCAL_SETTINGS_MAX, ARG_TEXT_MAX = 8192 };

static void ended(struct hf_child *c, int status);

/* -- the command line -------------------------------------------------------------------------------- */

struct args {
    char *v[ARGS_MAX];
    unsigned n;
    char text[ARG_TEXT_MAX];
    size_t used;
};

static void arg(struct args *a, const char *fmt, ...) __attribute__((format(printf, 2, 3)));

static void arg(struct args *a, const char *fmt, ...)
{
    va_list ap;
    int n;

    va_start(ap, fmt);
    n = vsnprintf(a->text + a->used, sizeof a->text - a->used, fmt, ap);
    va_end(ap);
    /* Sixteen nodes and nine paths fit with room to spare; settings are not copied here. */
    if (n < 0 || (size_t)n >= sizeof a->text - a->used || a->n + 1 >= ARGS_MAX)
        abort();
    a->v[a->n++] = a->text + a->used;
    a->used += (size_t)n + 1;
}

static void make_args(const struct hf_child *c, struct args *a)
{
    const struct hf_local *l = c->owner->local;
    char path[HF_PATH_MAX], name[HF_NAME_MAX];

    a->n = 0;
    a->used = 0;
    arg(a, "holdfast");
    arg(a, "node");
    hf_local_node_name(l, c->ordinal, name);
    arg(a, "--name");
    arg(a, "%s", name);
    hf_local_node_path(l, c->ordinal, "", path);
    arg(a, "--dir");
    arg(a, "%s", path);
    arg(a, "--local");
    arg(a, "--allow-ephemeral"); /* `up` has told a person already */
    arg(a, "--expect");
    arg(a, "%u", l->expect);
    for (unsigned i = 0; i < HF_MEMBERS_MAX; i++) {
        if (!c->owner->children[i].used)
            continue;
        hf_local_node_name(l, i, name);
        arg(a, "--seed");
        arg(a, "%s=127.0.0.1:%u", name, hf_local_port(l, i, HF_PORT_PEER));
    }
    arg(a, "--listen"); /* whatever the environment says: preflight has looked at this address, and all verbs use it */
    arg(a, "127.0.0.1");
    arg(a, "--sql-host");
    arg(a, "127.0.0.1");
    arg(a, "--sql-port");
    arg(a, "%u", hf_local_port(l, c->ordinal, HF_PORT_SQL));
    arg(a, "--read-only-port");
    arg(a, "%u", hf_local_port(l, c->ordinal, HF_PORT_READ_ONLY));
    arg(a, "--http-port");
    arg(a, "%u", hf_local_port(l, c->ordinal, HF_PORT_HTTP));
    arg(a, "--peer-port");
    arg(a, "%u", hf_local_port(l, c->ordinal, HF_PORT_PEER));
    arg(a, "--lease-ms");
    arg(a, "%u", l->lease_ms);
    hf_local_path(l, "cluster.json", path);
    arg(a, "--credentials");
    arg(a, "%s", path);
    for (unsigned i = 0; i < l->n_settings; i++) {
        arg(a, "-c");
        a->v[a->n++] = l->settings[i];
    }
    a->v[a->n] = NULL;
}

/* -- start ------------------------------------------------------------------------------------------- */

static void freed(uv_handle_t *h)
{
    free(h);
}

static void exited(uv_process_t *p, int64_t status, int sig)
{
    struct hf_child *c = p->data;

    uv_close((uv_handle_t *)p, freed);
    c->process = NULL;
    ended(c, sig != 0 ? 128 + sig : (int)status);
}

static int open_log(const char *path)
{
    return open(path, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0600);
}

static int spawn(struct hf_child *c, struct hf_error *err)
{
    const struct hf_local *l = c->owner->local;
    char dir[HF_PATH_MAX], log[HF_PATH_MAX];
    struct args a;
    uv_stdio_container_t io[3] = {{.flags = UV_IGNORE}, {.flags = UV_INHERIT_FD},
                                  {.flags = UV_INHERIT_FD}};
    /* A session of its own: Ctrl-C on `up --foreground` reaches only the supervisor, and the sentinel
     * leads a process group that holds the node and nothing else. */
    uv_process_options_t o = {.file = "/proc/self/exe", .args = a.v, .cwd = dir, .exit_cb = exited,
                              .flags = UV_PROCESS_DETACHED, .stdio = io, .stdio_count = 3};
    int fd, rv;

    make_args(c, &a);
    hf_local_node_path(l, c->ordinal, "", dir);
    hf_local_node_path(l, c->ordinal, "log/node.log", log);
    fd = open_log(log);
    if (fd < 0 && errno == ENOENT) { /* its directory is gone, perhaps with its disk: an empty one is a new node */
        rv = hf_local_make_node(l, c->ordinal, err);
        if (rv != 0)
            return rv;
        fd = open_log(log);
    }
    if (fd < 0)
        return hf_fail(err, HF_EIO, "%s: %s", log, strerror(errno));
    io[1].data.fd = io[2].data.fd = fd;
    c->process = calloc(1, sizeof *c->process);
    if (c->process == NULL) {
        close(fd);
        return hf_fail(err, HF_ENOMEM, "%s-%u: out of memory", l->name, c->ordinal);
    }
    rv = uv_spawn(&c->owner->loop, c->process, &o);
    close(fd);
    c->process->data = c;
    if (rv != 0) {
        uv_close((uv_handle_t *)c->process, freed);
        c->process = NULL;
        return hf_fail(err, HF_EIO, "%s-%u: cannot start: %s", l->name, c->ordinal,
                       uv_strerror(rv));
    }
    hf_info("%s-%u: started, pid %d", l->name, c->ordinal, c->process->pid);
    return 0;
}

static void look_at_adopted(uv_timer_t *t)
{
    struct hf_child *c = t->data;
    struct hf_lock_pids pids;

    if (!hf_child_pids(c, &pids))
        ended(c, -1);
}

int hf_child_start(struct hf_child *c, struct hf_error *err)
{
    struct hf_lock_pids pids;
    int rv;

    c->used = c->wanted = true;
    if (hf_child_runs(c))
        return 0;
    uv_timer_stop(&c->timer);
    c->started_ms = uv_now(&c->owner->loop);
    if (hf_child_pids(c, &pids)) {
        hf_info("%s-%u: runs already, pid %d: watched from now on", c->owner->local->name, c->ordinal,
                (int)pids.first.pid);
        c->state = HF_CHILD_ADOPTED;
        uv_timer_start(&c->timer, look_at_adopted, HF_ADOPTED_POLL_MS, HF_ADOPTED_POLL_MS);
        return 0;
    }
    rv = spawn(c, err);
    c->state = rv == 0 ? HF_CHILD_RUNNING : HF_CHILD_DOWN;
    return rv;
}

/* -- end --------------------------------------------------------------------------------------------- */

static void start_again(uv_timer_t *t)
{
    struct hf_child *c = t->data;
    struct hf_error err;

    c->state = HF_CHILD_DOWN;
    if (hf_child_start(c, &err) != 0) {
        hf_err("%s", err.text);
        ended(c, -1);
    }
}

static unsigned next_backoff(const struct hf_child *c)
{
    uint64_t ran_ms = uv_now(&c->owner->loop) - c->started_ms;

    if (c->backoff_ms == 0 || ran_ms >= HF_RESTART_WELL_MS)
        return HF_RESTART_MIN_MS;
    if (ran_ms >= HF_RESTART_QUICK_MS)
        return c->backoff_ms;
    return c->backoff_ms * 2 < HF_RESTART_MAX_MS ? c->backoff_ms * 2 : HF_RESTART_MAX_MS;
}

static void ended(struct hf_child *c, int status)
{
    uv_timer_stop(&c->timer);
    c->state = HF_CHILD_DOWN;
    c->last_status = status;
    c->ends++;
    if (c->wanted && !c->owner->stopping) {
        c->backoff_ms = next_backoff(c);
        c->state = HF_CHILD_WAITING;
        hf_warn("%s-%u: ended with status %d; starting it again in %u ms", c->owner->local->name,
                c->ordinal, status, c->backoff_ms);
        uv_timer_start(&c->timer, start_again, c->backoff_ms, 0);
    } else {
        hf_info("%s-%u: ended with status %d", c->owner->local->name, c->ordinal, status);
    }
    hf_control_ended(c);
    hf_supervisor_child_ended(c);
}

/* -- the rest ---------------------------------------------------------------------------------------- */

void hf_child_init(struct hf_child *c, struct hf_supervisor *s, unsigned ordinal)
{
    memset(c, 0, sizeof *c);
    c->owner = s;
    c->ordinal = ordinal;
    (void)uv_timer_init(&s->loop, &c->timer);
    c->timer.data = c;
}

bool hf_child_pids(const struct hf_child *c, struct hf_lock_pids *pids)
{
    char path[HF_PATH_MAX];

    hf_local_node_path(c->owner->local, c->ordinal, "node.lock", path);
    return hf_lock_look(path, pids);
}

bool hf_child_runs(const struct hf_child *c)
{
    return c->state == HF_CHILD_RUNNING || c->state == HF_CHILD_ADOPTED;
}

void hf_child_close(struct hf_child *c)
{
    uv_close((uv_handle_t *)&c->timer, NULL);
}
