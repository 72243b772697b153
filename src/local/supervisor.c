#include "local/supervisor_private.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/sendfile.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/log.h"

enum { CHORES_MS = 5000, STOP_STEP_MS = 20000 };

/* -- logs -------------------------------------------------------------------------------------------- */

/* The node keeps its descriptor, which appends: so the text is copied away and the file cut. Lines
 * written between the two are lost, at most a few in 32 MB. */
static void rotate(const char *path)
{
    char old[HF_PATH_MAX + 8];
    struct stat st;
    off_t at = 0;
    int in, out;

    if (stat(path, &st) != 0 || st.st_size <= HF_LOG_BYTES_MAX)
        return;
    (void)snprintf(old, sizeof old, "%s.1", path);
    in = open(path, O_RDWR | O_CLOEXEC | O_NOFOLLOW);
    out = open(old, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC | O_NOFOLLOW, 0600);
    while (in >= 0 && out >= 0 && at < st.st_size)
        if (sendfile(out, in, &at, (size_t)(st.st_size - at)) <= 0)
            break;
    if (in >= 0 && ftruncate(in, 0) != 0)
        hf_warn("%s: cannot be cut: %s", path, strerror(errno));
    if (in >= 0)
        close(in);
    if (out >= 0)
        close(out);
}

static void chores(uv_timer_t *t)
{
    struct hf_supervisor *s = t->data;
    char path[HF_PATH_MAX];

    for (unsigned i = 0; i < HF_MEMBERS_MAX; i++) {
        if (!s->children[i].used)
            continue;
        hf_local_node_path(s->local, i, "log/node.log", path);
        rotate(path);
    }
    hf_local_path(s->local, "up.log", path);
    rotate(path);
}

/* -- the end ----------------------------------------------------------------------------------------- */

static bool any_runs(const struct hf_supervisor *s)
{
    for (unsigned i = 0; i < HF_MEMBERS_MAX; i++)
        if (s->children[i].used && hf_child_runs(&s->children[i]))
            return true;
    return false;
}

static void finish(struct hf_supervisor *s)
{
    if (s->ended)
        return;
    s->ended = true;
    hf_admin_close(s->admin);
    for (unsigned i = 0; i < HF_MEMBERS_MAX; i++)
        hf_child_close(&s->children[i]);
    uv_close((uv_handle_t *)&s->term, NULL);
    uv_close((uv_handle_t *)&s->interrupt, NULL);
    uv_close((uv_handle_t *)&s->hangup, NULL);
    uv_close((uv_handle_t *)&s->chores, NULL);
    uv_close((uv_handle_t *)&s->stop_timer, NULL);
}

/* Asks, then insists: SIGTERM; SIGQUIT, on which the sentinel kills node and PostgreSQL; SIGKILL. */
static void stop_harder(uv_timer_t *t)
{
    static const int signals[] = {SIGTERM, SIGQUIT, SIGKILL};
    struct hf_supervisor *s = t->data;
    int sig = signals[s->stop_stage < 2 ? s->stop_stage : 2];

    for (unsigned i = 0; i < HF_MEMBERS_MAX; i++) {
        const struct hf_child *c = &s->children[i];
        struct hf_lock_pids pids;
        if (!c->used || !hf_child_runs(c))
            continue;
        if (s->stop_stage > 0)
            hf_warn("%s-%u: still runs after %u s; signal %d", s->local->name, i,
                    s->stop_stage * STOP_STEP_MS / 1000, sig);
        /* Started a moment ago and no lock yet: the process is known all the same. */
        if (hf_child_pids(c, &pids) && pids.first.pid > 1)
            (void)(sig == SIGKILL ? hf_process_signal_group : hf_process_signal)(pids.first, sig, NULL);
        else if (c->process != NULL)
            (void)kill(c->process->pid, sig == SIGTERM ? SIGTERM : SIGKILL);
    }
    s->stop_stage++;
}

void hf_supervisor_stop(struct hf_supervisor *s)
{
    if (s->stopping)
        return;
    s->stopping = true;
    hf_info("%s: going down", s->local->name);
    for (unsigned i = 0; i < HF_MEMBERS_MAX; i++) {
        struct hf_child *c = &s->children[i];
        c->wanted = false;
        if (c->state == HF_CHILD_WAITING) {
            uv_timer_stop(&c->timer);
            c->state = HF_CHILD_DOWN;
        }
    }
    if (!any_runs(s))
        finish(s);
    else
        uv_timer_start(&s->stop_timer, stop_harder, 0, STOP_STEP_MS);
}

void hf_supervisor_child_ended(struct hf_child *c)
{
    if (c->owner->stopping && !any_runs(c->owner))
        finish(c->owner);
}

static void on_signal(uv_signal_t *h, int sig)
{
    if (sig != SIGHUP) /* the terminal that started us is gone: none of our business */
        hf_supervisor_stop(h->data);
}

/* -- the beginning ----------------------------------------------------------------------------------- */

static int begin(struct hf_supervisor *s, struct hf_error *err)
{
    char path[HF_PATH_MAX];
    int rv;

    if ((rv = uv_loop_init(&s->loop)) != 0)
        return hf_fail(err, HF_EIO, "event loop: %s", uv_strerror(rv));
    (void)uv_signal_init(&s->loop, &s->term);
    (void)uv_signal_init(&s->loop, &s->interrupt);
    (void)uv_signal_init(&s->loop, &s->hangup);
    (void)uv_timer_init(&s->loop, &s->chores);
    (void)uv_timer_init(&s->loop, &s->stop_timer);
    s->term.data = s->interrupt.data = s->hangup.data = s->chores.data = s->stop_timer.data = s;
    for (unsigned i = 0; i < HF_MEMBERS_MAX; i++)
        hf_child_init(&s->children[i], s, i);
    hf_local_path(s->local, "up.sock", path);
    rv = hf_admin_open(&s->admin, &s->loop, path, hf_control_handle, s, err);
    if (rv != 0)
        return rv;
    (void)uv_signal_start(&s->term, on_signal, SIGTERM);
    (void)uv_signal_start(&s->interrupt, on_signal, SIGINT);
    (void)uv_signal_start(&s->hangup, on_signal, SIGHUP);
    (void)uv_timer_start(&s->chores, chores, CHORES_MS, CHORES_MS);
    for (unsigned i = 0; i < s->local->replicas; i++)
        s->children[i].used = true;
    return 0;
}

static int serve(struct hf_supervisor *s, struct hf_error *err)
{
    struct hf_error why;
    int rv;

    for (unsigned i = 0; i < s->local->replicas; i++)
        if ((rv = hf_local_make_node(s->local, i, err)) != 0)
            return rv;
    rv = begin(s, err);
    if (rv != 0)
        return rv;
    for (unsigned i = 0; i < s->local->replicas; i++)
        if (hf_child_start(&s->children[i], &why) != 0)
            hf_err("%s", why.text);
    (void)uv_run(&s->loop, UV_RUN_DEFAULT);
    (void)uv_loop_close(&s->loop);
    return 0;
}

int hf_supervisor_run(struct hf_local *l, struct hf_error *err)
{
    struct hf_supervisor *s;
    char path[HF_PATH_MAX];
    int lock, rv;

    (void)signal(SIGPIPE, SIG_IGN);
    hf_local_path(l, "up.lock", path);
    lock = hf_lock_take(path, err);
    if (lock < 0)
        return lock;
    (void)hf_lock_write(lock, (struct hf_lock_pids){.first = hf_process_now(getpid())});
    s = calloc(1, sizeof *s);
    if (s == NULL) {
        close(lock);
        return hf_fail(err, HF_ENOMEM, "%s: out of memory", l->name);
    }
    s->local = l;
    rv = serve(s, err);
    if (rv == 0) /* else handles may still point into it; the process ends anyway */
        free(s);
    close(lock);
    return rv;
}
