#include "postgres/agent.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/clock.h"
#include "base/mailbox.h"
#include "postgres/writer.h"

enum { REFRESH_S = 1 };

struct write_order {
    bool prepare;  /* a barrier will come */
    bool accounts; /* make a->wanted */
    /* else: */
    enum hf_write write;
    hf_epoch epoch;
};

/* Made by a worker, read and freed on the loop. */
struct letter {
    struct hf_agent *agent;
    enum { LETTER_WORK, LETTER_WRITE, LETTER_EXIT, LETTER_ACCOUNTS } kind;
    struct hf_pg_result result;
    enum hf_write write;
    enum hf_write_state state;
    hf_epoch epoch;
    hf_lsn lsn;
    pid_t pid;
    bool ok;
    char text[HF_PG_TEXT_MAX];
};

struct accounts_copy {
    char text[5][128];
    struct hf_pg_accounts wanted;
};

struct hf_agent {
    struct hf_pg *pg;
    struct hf_pg *sessions; /* the writer's way to the same server */
    struct hf_agent_callbacks cb;
    struct hf_mailbox *mailbox;
    pthread_t worker, writer;
    bool worker_runs, writer_runs;

    pthread_mutex_t lock; /* all below */
    pthread_cond_t work_came, write_came;
    bool closing;
    unsigned n_jobs, n_writes;
    struct hf_pg_job jobs[HF_AGENT_QUEUE_MAX];
    struct write_order writes[HF_AGENT_QUEUE_MAX];
    struct accounts_copy accounts;
};

/* --- results, on the loop -----------------------------------------------------------------------
 */

static void deliver(void *arg)
{
    struct letter *l = arg;
    const struct hf_agent_callbacks *cb = &l->agent->cb;

    if (cb->on_work == NULL) { /* closed */
        free(l);
        return;
    }
    switch (l->kind) {
    case LETTER_WORK:
        /* It may have ended since the job was done, and EXIT come before this. Not after: an EXIT is posted when it has no pid any more. */
        l->result.down = hf_pg_pid(l->agent->pg) == 0;
        cb->on_work(cb->ctx, &l->result);
        break;
    case LETTER_WRITE:
        cb->on_write(cb->ctx, l->write, l->state, l->epoch, l->lsn, l->text);
        break;
    case LETTER_EXIT:
        cb->on_exit(cb->ctx, l->pid, l->text);
        break;
    case LETTER_ACCOUNTS:
        if (cb->on_accounts != NULL)
            cb->on_accounts(cb->ctx, l->ok, l->text);
        break;
    }
    free(l);
}

static void discard(void *arg)
{
    free(arg);
}

static struct letter *letter_new(struct hf_agent *a, int kind)
{
    struct letter *l = calloc(1, sizeof *l);

    if (l == NULL)
        abort(); /* as base/mailbox.h: a lost result is not recoverable */
    l->agent = a;
    l->kind = kind;
    return l;
}

static void post(struct letter *l)
{
    bool closing;

    pthread_mutex_lock(&l->agent->lock);
    closing = l->agent->closing;
    pthread_mutex_unlock(&l->agent->lock);
    hf_mailbox_post(l->agent->mailbox, closing ? discard : deliver, l);
}

static void exit_hook(void *ctx, pid_t pid, const char *why)
{
    struct letter *l = letter_new(ctx, LETTER_EXIT);

    l->pid = pid;
    (void)snprintf(l->text, sizeof l->text, "%s", why);
    post(l);
}

static void postmaster_hook(void *ctx, pid_t pid)
{
    struct hf_agent *a = ctx;

    if (a->cb.on_postmaster != NULL)
        a->cb.on_postmaster(a->cb.ctx, pid);
}

/* --- the agent thread ---------------------------------------------------------------------------
 */

/* The next job; false: closing. While there is none, the view for status is kept fresh. */
static bool next_job(struct hf_agent *a, struct hf_pg_job *job)
{
    struct timespec until;
    bool got, idle;

    for (;;) {
        (void)clock_gettime(CLOCK_MONOTONIC, &until);
        until.tv_sec += REFRESH_S;
        idle = false;
        pthread_mutex_lock(&a->lock);
        while (!a->closing && a->n_jobs == 0 && !idle)
            idle = pthread_cond_timedwait(&a->work_came, &a->lock, &until) != 0;
        got = a->n_jobs > 0 && !a->closing;
        if (got) {
            *job = a->jobs[0];
            a->n_jobs--;
            memmove(a->jobs, a->jobs + 1, a->n_jobs * sizeof *a->jobs);
        }
        idle = !got && !a->closing;
        pthread_mutex_unlock(&a->lock);
        if (!idle)
            return got;
        hf_pg_refresh(a->pg);
    }
}

static void *agent_main(void *arg)
{
    struct hf_agent *a = arg;
    struct hf_pg_job job;

    while (next_job(a, &job)) {
        struct letter *l = letter_new(a, LETTER_WORK);
        (void)hf_pg_run(a->pg, &job, &l->result);
        post(l);
    }
    return NULL;
}

/* --- the writer thread --------------------------------------------------------------------------
 */

static void post_write(struct hf_agent *a, const struct write_order *o, enum hf_write_state state,
                       hf_lsn lsn, const char *text)
{
    struct letter *l = letter_new(a, LETTER_WRITE);

    l->write = o->write;
    l->epoch = o->epoch;
    l->state = state;
    l->lsn = lsn;
    (void)snprintf(l->text, sizeof l->text, "%s", text);
    post(l);
}

struct waiting_ctx {
    struct hf_agent *agent;
    const struct write_order *order;
};

static void on_waiting(void *ctx)
{
    struct waiting_ctx *w = ctx;

    post_write(w->agent, w->order, HF_WRITE_WAITING, 0, "");
}

static void do_write(struct hf_agent *a, const struct write_order *o)
{
    struct waiting_ctx w = {a, o};
    struct hf_error err = {0};
    hf_lsn lsn = 0;
    int code;

    if (o->prepare) {
        hf_pg_barrier_prepare(a->sessions);
        return;
    }
    if (o->accounts) {
        struct letter *l = letter_new(a, LETTER_ACCOUNTS);
        l->ok = hf_pg_make_accounts(a->sessions, &a->accounts.wanted, &err) == 0;
        (void)snprintf(l->text, sizeof l->text, "%s", err.text);
        post(l);
        return;
    }
    code = o->write == HF_WRITE_BARRIER
               ? hf_pg_barrier(a->sessions, o->epoch, on_waiting, &w, &lsn, &err)
               : hf_pg_heartbeat(a->sessions, o->epoch, &lsn, &err);
    post_write(a, o, code == 0 ? HF_WRITE_DONE : code == HF_EREFUSED ? HF_WRITE_REFUSED : HF_WRITE_FAILED, lsn, err.text);
}

static void *writer_main(void *arg)
{
    struct hf_agent *a = arg;
    struct write_order order;

    for (;;) {
        pthread_mutex_lock(&a->lock);
        while (!a->closing && a->n_writes == 0)
            pthread_cond_wait(&a->write_came, &a->lock);
        if (a->closing) {
            pthread_mutex_unlock(&a->lock);
            return NULL;
        }
        order = a->writes[0];
        a->n_writes--;
        memmove(a->writes, a->writes + 1, a->n_writes * sizeof *a->writes);
        hf_pg_interrupt(a->sessions, false);
        pthread_mutex_unlock(&a->lock);
        do_write(a, &order);
    }
}

/* --- for the host
 * --------------------------------------------------------------------------------- */

static int submit_write(struct hf_agent *a, struct write_order order)
{
    int code = 0;

    pthread_mutex_lock(&a->lock);
    if (a->n_writes == HF_AGENT_QUEUE_MAX)
        code = HF_EBUSY;
    else
        a->writes[a->n_writes++] = order;
    pthread_cond_signal(&a->write_came);
    pthread_mutex_unlock(&a->lock);
    return code;
}

int hf_agent_submit(struct hf_agent *a, const struct hf_pg_job *job)
{
    int code = 0;

    pthread_mutex_lock(&a->lock);
    if (a->n_jobs == HF_AGENT_QUEUE_MAX)
        code = HF_EBUSY;
    else
        a->jobs[a->n_jobs++] = *job;
    pthread_cond_signal(&a->work_came);
    pthread_mutex_unlock(&a->lock);
    if (code == 0 && job->work == HF_WORK_PROMOTE)
        (void)submit_write(a, (struct write_order){.prepare = true});
    return code;
}

/* A write of before may be waiting for followers who will stream only once this barrier has been
 * seen waiting: it is given up. What it wrote is in local WAL before the barrier, and counts
 * through it. */
int hf_agent_write(struct hf_agent *a, enum hf_write write, hf_epoch epoch)
{
    struct write_order given_up[HF_AGENT_QUEUE_MAX];
    struct letter *l;
    unsigned n = 0;
    int code;

    if (write == HF_WRITE_BARRIER) {
        pthread_mutex_lock(&a->lock);
        n = a->n_writes;
        memcpy(given_up, a->writes, n * sizeof *given_up);
        a->n_writes = 0;
        hf_pg_interrupt(a->sessions, true);
        pthread_mutex_unlock(&a->lock);
    }
    for (unsigned i = 0; i < n; i++) {
        if (given_up[i].prepare)
            continue;
        if (!given_up[i].accounts) {
            post_write(a, &given_up[i], HF_WRITE_FAILED, 0, "a newer barrier goes first");
            continue;
        }
        l = letter_new(a, LETTER_ACCOUNTS);
        (void)snprintf(l->text, sizeof l->text, "a barrier goes first");
        post(l);
    }
    code = submit_write(a, (struct write_order){.write = write, .epoch = epoch});
    return code;
}

int hf_agent_accounts(struct hf_agent *a, const struct hf_pg_accounts *wanted)
{
    const char *from[5] = {wanted->app_role, wanted->app_password, wanted->app_database,
                           wanted->admin_role, wanted->admin_password};
    struct accounts_copy *c = &a->accounts;

    for (int i = 0; i < 5; i++)
        if ((size_t)snprintf(c->text[i], sizeof c->text[i], "%s", from[i] != NULL ? from[i] : "") >=
            sizeof c->text[i])
            return HF_EINVAL;
    c->wanted = (struct hf_pg_accounts){c->text[0], c->text[1], c->text[2],
                                        from[3] != NULL ? c->text[3] : NULL, c->text[4]};
    return submit_write(a, (struct write_order){.accounts = true});
}

struct hf_pg *hf_agent_pg(struct hf_agent *a)
{
    return a->pg;
}

static bool init_sync(struct hf_agent *a)
{
    pthread_condattr_t attr;

    return pthread_mutex_init(&a->lock, NULL) == 0 && pthread_condattr_init(&attr) == 0 &&
           pthread_condattr_setclock(&attr, CLOCK_MONOTONIC) == 0 &&
           pthread_cond_init(&a->work_came, &attr) == 0 &&
           pthread_cond_init(&a->write_came, &attr) == 0;
}

int hf_agent_open(struct hf_agent **out, const struct hf_pg_config *config, uv_loop_t *loop,
                  const struct hf_agent_callbacks *callbacks, struct hf_error *err)
{
    struct hf_agent *a = calloc(1, sizeof *a);
    struct hf_pg_config c = *config;
    int code;

    *out = NULL;
    if (a == NULL || !init_sync(a)) {
        free(a);
        return hf_fail(err, HF_ENOMEM, "no memory for PostgreSQL's threads");
    }
    a->cb = *callbacks;
    c.hooks = (struct hf_pg_hooks){a, postmaster_hook, exit_hook};
    code = hf_pg_open(&a->pg, &c, err);
    if (code == 0 && (a->sessions = hf_pg_twin_open(a->pg)) == NULL)
        code = hf_fail(err, HF_ENOMEM, "no memory for PostgreSQL's sessions");
    if (code == 0 && (a->mailbox = hf_mailbox_open(loop)) == NULL)
        code = hf_fail(err, HF_ENOMEM, "no memory for a mailbox");
    if (code == 0) {
        a->worker_runs = pthread_create(&a->worker, NULL, agent_main, a) == 0;
        a->writer_runs = a->worker_runs && pthread_create(&a->writer, NULL, writer_main, a) == 0;
        if (!a->writer_runs)
            code = hf_fail(err, HF_ENOMEM, "cannot start PostgreSQL's threads");
    }
    if (code != 0) {
        hf_agent_close(a);
        return code;
    }
    *out = a;
    return 0;
}

void hf_agent_close(struct hf_agent *a)
{
    if (a == NULL)
        return;
    pthread_mutex_lock(&a->lock);
    a->closing = true;
    pthread_cond_broadcast(&a->work_came);
    pthread_cond_broadcast(&a->write_came);
    pthread_mutex_unlock(&a->lock);
    if (a->pg != NULL)
        hf_pg_interrupt(a->pg, true);
    if (a->sessions != NULL)
        hf_pg_interrupt(a->sessions, true);
    if (a->worker_runs)
        (void)pthread_join(a->worker, NULL);
    if (a->writer_runs)
        (void)pthread_join(a->writer, NULL);
    hf_pg_twin_close(a->sessions);
    hf_pg_close(a->pg);
    /* Runs what was posted before `closing` was seen: callbacks are muted first. */
    a->cb = (struct hf_agent_callbacks){0};
    if (a->mailbox != NULL)
        hf_mailbox_close(a->mailbox);
    free(a);
}
