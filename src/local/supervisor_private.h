/* Inside of the supervisor. Everything runs on one libuv loop. */
#ifndef HF_LOCAL_SUPERVISOR_PRIVATE_H
#define HF_LOCAL_SUPERVISOR_PRIVATE_H

#include <stdint.h>
#include <uv.h>

#include "admin/admin.h"
#include "local/lock.h"
#include "local/supervisor.h"

enum {
    HF_RESTART_MIN_MS = 100,    /* before the first restart */
    HF_RESTART_MAX_MS = 10000,
    HF_RESTART_QUICK_MS = 1000, /* ended sooner than this: wait twice as long next time */
    HF_RESTART_WELL_MS = 5000,  /* ran for this long: the next wait is the shortest again */
    HF_ADOPTED_POLL_MS = 100,
    HF_LOG_BYTES_MAX = 32 << 20, /* then node.log becomes node.log.1 */
};

enum hf_child_state {
    HF_CHILD_DOWN,    /* not running; stays down unless `wanted` */
    HF_CHILD_RUNNING, /* started by this process */
    HF_CHILD_ADOPTED, /* started by an earlier supervisor: watched through its lock */
    HF_CHILD_WAITING, /* ended; the timer starts it again */
};

struct hf_supervisor;

struct hf_child {
    struct hf_supervisor *owner;
    unsigned ordinal;
    bool used; /* this ordinal is part of the cluster */
    bool wanted;
    enum hf_child_state state;
    uv_process_t *process;
    uv_timer_t timer; /* WAITING: start again; ADOPTED: look whether it still runs */
    uint64_t started_ms;
    unsigned backoff_ms, ends;
    int last_status;                 /* exit status, or 128 + signal */
    struct hf_admin_request *retire; /* waits for the end, then the directory goes */
};

struct hf_supervisor {
    struct hf_local *local;
    uv_loop_t loop;
    uv_signal_t term, interrupt, hangup;
    uv_timer_t chores, stop_timer;
    struct hf_admin *admin;
    unsigned stop_stage;
    bool stopping, ended;
    struct hf_child children[HF_MEMBERS_MAX];
};

/* child.c */
void hf_child_init(struct hf_child *c, struct hf_supervisor *s, unsigned ordinal);
/* Starts it now, or adopts the one that runs. Sets `wanted`. */
int hf_child_start(struct hf_child *c, struct hf_error *err);
/* Its processes, if it runs. */
bool hf_child_pids(const struct hf_child *c, struct hf_lock_pids *pids);
bool hf_child_runs(const struct hf_child *c);
void hf_child_close(struct hf_child *c);

/* control.c */
void hf_control_handle(void *ctx, struct hf_admin_request *request, const json_t *body);
/* A child has ended: called by child.c before it decides on a restart. */
void hf_control_ended(struct hf_child *c);

/* supervisor.c */
void hf_supervisor_stop(struct hf_supervisor *s);
void hf_supervisor_child_ended(struct hf_child *c);

#endif
