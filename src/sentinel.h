/* The sentinel: the parent of the node (docs/architecture.md, "Lease, gate, sentinel").
 *
 * It shares one page of memory with the node (base/sentinel_page.h), sleeps nearly always and allocates
 * nothing after the fork. It
 *   - forwards SIGTERM, SIGINT and SIGHUP to the node, as SIGTERM;
 *   - reaps whatever is orphaned below it (it is the subreaper, or PID 1 of a container);
 *   - ends PostgreSQL if it runs as primary although the lease ran out a grace ago, and the node hangs or is stopped: its
 *     control loop has not turned for as long. A node that lives knows that its lease is over: it lets no result through, and
 *     may get the lease back, from followers that were late;
 *   - when the node dies, tells the peers at once (the gate died with it), ends PostgreSQL and returns
 *     the node's status;
 *   - on SIGQUIT ends the node by SIGKILL, and so all of the above.
 * If the sentinel dies, the kernel kills the node (PR_SET_PDEATHSIG). */
#ifndef HF_SENTINEL_H
#define HF_SENTINEL_H

#include <stdbool.h>
#include <sys/types.h>

#include "base/error.h"
#include "base/sentinel_page.h"

struct hf_sentinel {
    unsigned lease_ms;
    /* Runs in the child; what it returns is the node's exit status. */
    int (*node)(void *arg, struct hf_sentinel_page *page);
    /* Runs in the parent once the child exists; may be NULL. */
    void (*forked)(void *arg, pid_t node);
    /* Runs in the parent once the node has been reaped, and its peers were told; may be NULL. Its PostgreSQL may run yet. */
    void (*reaped)(void *arg);
    void *arg;
};

/* Call while the process has one thread, after privileges were dropped (that would undo
 * PR_SET_PDEATHSIG). Does not return in the child. In the parent: the exit status to end with, 128 + n
 * if signal n killed the node; or a negative HF_E... if there is no child. */
int hf_sentinel_run(const struct hf_sentinel *s, struct hf_error *err);

/* Is it, as nohup leaves SIGHUP? Then it is to stay so. */
bool hf_signal_is_ignored(int signum);

/* The grace after the lease's end, in milliseconds: a quarter of the lease, at least 100. */
unsigned hf_sentinel_grace_ms(unsigned lease_ms);

#endif
