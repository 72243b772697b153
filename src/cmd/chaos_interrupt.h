/* Ctrl-C, SIGTERM and the end of the terminal, for `holdfast chaos`: no node is left stopped by them. */
#ifndef HF_CMD_CHAOS_INTERRUPT_H
#define HF_CMD_CHAOS_INTERRUPT_H

#include <pthread.h>
#include <signal.h>

#include "base/error.h"
#include "local/layout.h"

struct hf_chaos_interrupt {
    const struct hf_local *local;
    pthread_t thread;
    pthread_mutex_t lock;
    pthread_cond_t came;
    sigset_t set;
    int signal; /* the first one that came, or 0 */
    int frozen; /* ordinal of the node that is stopped, or -1 */
};

/* From here on these signals end nothing. The first one ends pauses, and the caller winds up; the second one
 * has a stopped node run again and ends the process with 128 + its number. Signals that the caller of the process
 * has switched off stay so. Before other threads are made, which take over what is blocked. */
int hf_chaos_interrupt_start(struct hf_chaos_interrupt *i, const struct hf_local *l, struct hf_error *err);
void hf_chaos_interrupt_stop(struct hf_chaos_interrupt *i);
/* The first signal that came, or 0. */
int hf_chaos_interrupted(struct hf_chaos_interrupt *i);
/* Until `ms` are over or a signal has come. */
void hf_chaos_interrupt_pause(struct hf_chaos_interrupt *i, unsigned ms);

/* SIGSTOP to a node. If it fails the node may stand still all the same: hf_chaos_thaw() in any case. */
int hf_chaos_freeze(struct hf_chaos_interrupt *i, unsigned node, struct hf_error *err);
/* SIGCONT to the node that hf_chaos_freeze() named last, past the supervisor if that does not answer. */
int hf_chaos_thaw(struct hf_chaos_interrupt *i, struct hf_error *err);

/* Has the supervisor send a signal to a node, which is started again if it dies of it. */
int hf_chaos_signal_node(const struct hf_local *l, unsigned node, int sig, struct hf_error *err);

#endif
