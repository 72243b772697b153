/* The threads that do slow work on PostgreSQL, for a host that lives on a libuv loop.
 *
 * Three threads: `agent` runs jobs (enum hf_work) one at a time in the order given; `writer` does
 * the synchronous writes (enum hf_write), which may wait for followers as long as it takes; a
 * watcher waits for the postmaster's end. All callbacks come on the loop's thread, through
 * base/mailbox.h. */
#ifndef HF_POSTGRES_AGENT_H
#define HF_POSTGRES_AGENT_H

#include <uv.h>

#include "postgres/postgres.h"

struct hf_agent_callbacks {
    void *ctx;
    void (*on_work)(void *ctx, const struct hf_pg_result *result);
    /* BARRIER: WAITING (seen in wait event SyncRep, S2; with an empty rule: just before DONE), then
     * DONE with an LSN at or past the end of the commit record, or FAILED. HEARTBEAT: DONE or
     * FAILED. */
    void (*on_write)(void *ctx, enum hf_write write, enum hf_write_state state, hf_epoch epoch,
                     hf_lsn lsn, const char *text);
    /* The postmaster ended unasked. */
    void (*on_exit)(void *ctx, pid_t pid, const char *why);
    /* hf_agent_accounts is done; may be NULL. */
    void (*on_accounts)(void *ctx, bool ok, const char *text);
    /* Not on the loop: on a worker thread, at once, must not block: the postmaster's pid, 0 once
     * gone (the sentinel's page). May be NULL. */
    void (*on_postmaster)(void *ctx, pid_t pid);
};

struct hf_agent;

/* Opens the hf_pg too (config->hooks is ignored). `loop`: call on its thread or before it runs. */
int hf_agent_open(struct hf_agent **out, const struct hf_pg_config *config, uv_loop_t *loop,
                  const struct hf_agent_callbacks *callbacks, struct hf_error *err);
/* Makes what is under way fail, joins the threads. No callback comes after. A running server is
 * left alone. On the loop's thread; the loop must run on for its mailbox to go. */
void hf_agent_close(struct hf_agent *a);

/* Goes with the agent. For hf_pg_probe before the first job, and hf_pg_status, hf_pg_pid at any
 * time. */
struct hf_pg *hf_agent_pg(struct hf_agent *a);

enum { HF_AGENT_QUEUE_MAX = 16 };
/* Copies the job. HF_EBUSY: more than HF_AGENT_QUEUE_MAX are waiting. -> on_work */
int hf_agent_submit(struct hf_agent *a, const struct hf_pg_job *job);
/* -> on_write. A write still waiting when its server is stopped ends FAILED; so do all before a new
 * BARRIER. */
int hf_agent_write(struct hf_agent *a, enum hf_write write, hf_epoch epoch);
/* hf_pg_make_accounts on the writer thread; strings are copied. -> on_accounts */
int hf_agent_accounts(struct hf_agent *a, const struct hf_pg_accounts *accounts);

#endif
