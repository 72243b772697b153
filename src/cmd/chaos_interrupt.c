/* A thread waits for the signals, so that they are heard whatever the others wait for. */
#include "cmd/chaos_interrupt.h"

#include <stdio.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "cmd/cmd.h"
#include "local/lock.h"

enum { ASK_MS = 5000 };

int hf_chaos_signal_node(const struct hf_local *l, unsigned node, int sig, struct hf_error *err)
{
    char name[HF_NAME_MAX];

    hf_local_node_name(l, node, name);
    return hf_cmd_ask_supervisor(l, json_pack("{s:s,s:s,s:i,s:b,s:b}", "op", "kill", "node", name, "signal",
                                              sig, "group", 0, "restart", 1), ASK_MS, NULL, err);
}

/* -- a node that stands still ------------------------------------------------------------------------ */

int hf_chaos_freeze(struct hf_chaos_interrupt *i, unsigned node, struct hf_error *err)
{
    int rv;

    /* Noted first, and under the lock: who thaws meanwhile waits until the answer is there. */
    (void)pthread_mutex_lock(&i->lock);
    i->frozen = (int)node;
    rv = hf_chaos_signal_node(i->local, node, SIGSTOP, err);
    (void)pthread_mutex_unlock(&i->lock);
    return rv;
}

/* The supervisor may be gone, or hang. */
static int cont_directly(const struct hf_local *l, unsigned node, struct hf_error *err)
{
    char lock[HF_PATH_MAX], name[HF_NAME_MAX];
    struct hf_lock_pids pids;
    struct hf_process to;
    struct hf_error why;

    hf_local_node_path(l, node, "node.lock", lock);
    if (!hf_lock_look(lock, &pids) || pids.ended)
        return 0; /* nobody is there to stand still */
    to = pids.second.pid > 1 ? pids.second : pids.first;
    if (hf_process_signal(to, SIGCONT, &why) == 0)
        return 0;
    hf_local_node_name(l, node, name);
    return hf_fail(err, HF_EPERM, "%s may still be stopped: SIGCONT: %s (hint: `holdfast kill %s --signal "
                   "CONT`)", name, why.text, name);
}

/* Under the lock. */
static int thaw(struct hf_chaos_interrupt *i, struct hf_error *err)
{
    int rv = 0;

    if (i->frozen < 0)
        return 0;
    /* The supervisor first: were it slow, its SIGSTOP would come after a SIGCONT of ours, and so is its own then. */
    if (hf_chaos_signal_node(i->local, (unsigned)i->frozen, SIGCONT, err) != 0)
        rv = cont_directly(i->local, (unsigned)i->frozen, err);
    if (rv == 0)
        i->frozen = -1;
    return rv;
}

int hf_chaos_thaw(struct hf_chaos_interrupt *i, struct hf_error *err)
{
    int rv;

    (void)pthread_mutex_lock(&i->lock);
    rv = thaw(i, err);
    (void)pthread_mutex_unlock(&i->lock);
    return rv;
}

/* -- signals ----------------------------------------------------------------------------------------- */

static void came(struct hf_chaos_interrupt *i, int sig)
{
    struct hf_error err = {0};

    (void)pthread_mutex_lock(&i->lock);
    if (i->signal == 0) {
        i->signal = sig;
        (void)pthread_cond_broadcast(&i->came);
        (void)pthread_mutex_unlock(&i->lock); /* before a word to a terminal that may not take it */
        fprintf(stderr, "holdfast: chaos: SIG%s: no more faults; the report follows (once more: the end at once)\n",
                sigabbrev_np(sig));
        return;
    }
    if (thaw(i, &err) != 0)
        (void)hf_cmd_fail(&err);
    fprintf(stderr, "holdfast: chaos: SIG%s: ended without a check; the table holdfast_chaos stays\n",
            sigabbrev_np(sig));
    _exit(128 + sig); /* with the lock: nobody stops a node any more */
}

static void *wait_for_signals(void *arg)
{
    struct hf_chaos_interrupt *i = arg;
    int sig, state;

    while (sigwait(&i->set, &sig) == 0) {
        (void)pthread_setcancelstate(PTHREAD_CANCEL_DISABLE, &state);
        came(i, sig);
        (void)pthread_setcancelstate(state, &state);
    }
    return NULL;
}

int hf_chaos_interrupt_start(struct hf_chaos_interrupt *i, const struct hf_local *l, struct hf_error *err)
{
    static const int signals[] = {SIGINT, SIGTERM, SIGHUP};
    pthread_condattr_t attr;

    memset(i, 0, sizeof *i);
    i->local = l;
    i->frozen = -1;
    (void)sigemptyset(&i->set);
    for (size_t k = 0; k < sizeof signals / sizeof *signals; k++) {
        struct sigaction now;
        /* nohup, or a shell's background job: it is not to be disturbed. */
        if (sigaction(signals[k], NULL, &now) == 0 && now.sa_handler != SIG_IGN)
            (void)sigaddset(&i->set, signals[k]);
    }
    /* Ctrl-C ends the reader of a pipe, too; a word to it must not end us. */
    (void)signal(SIGPIPE, SIG_IGN);
    if (pthread_mutex_init(&i->lock, NULL) != 0 || pthread_condattr_init(&attr) != 0)
        return hf_fail(err, HF_ENOMEM, "chaos: out of memory");
    if (pthread_condattr_setclock(&attr, CLOCK_MONOTONIC) != 0 || pthread_cond_init(&i->came, &attr) != 0 ||
        pthread_sigmask(SIG_BLOCK, &i->set, NULL) != 0 ||
        pthread_create(&i->thread, NULL, wait_for_signals, i) != 0)
        return hf_fail(err, HF_ENOMEM, "chaos: cannot start a thread");
    (void)pthread_condattr_destroy(&attr);
    return 0;
}

void hf_chaos_interrupt_stop(struct hf_chaos_interrupt *i)
{
    (void)pthread_cancel(i->thread);
    (void)pthread_join(i->thread, NULL);
    (void)pthread_cond_destroy(&i->came);
    (void)pthread_mutex_destroy(&i->lock);
}

int hf_chaos_interrupted(struct hf_chaos_interrupt *i)
{
    int sig;

    (void)pthread_mutex_lock(&i->lock);
    sig = i->signal;
    (void)pthread_mutex_unlock(&i->lock);
    return sig;
}

void hf_chaos_interrupt_pause(struct hf_chaos_interrupt *i, unsigned ms)
{
    struct timespec end;
    int rv = 0;

    (void)clock_gettime(CLOCK_MONOTONIC, &end);
    end.tv_sec += ms / 1000;
    end.tv_nsec += (long)(ms % 1000) * 1000000;
    if (end.tv_nsec >= 1000000000) {
        end.tv_sec++;
        end.tv_nsec -= 1000000000;
    }
    (void)pthread_mutex_lock(&i->lock);
    while (i->signal == 0 && rv == 0)
        rv = pthread_cond_timedwait(&i->came, &i->lock, &end);
    (void)pthread_mutex_unlock(&i->lock);
}
