/* A process by pid and start: a pid alone may be somebody else's by the time it is used. */
#ifndef HF_LOCAL_PROCESS_H
#define HF_LOCAL_PROCESS_H

#include <stdint.h>
#include <sys/types.h>

#include "base/error.h"

struct hf_process {
    pid_t pid;      /* 0: none */
    uint64_t start; /* clock ticks after boot, as /proc/PID/stat has it; 0: not known, and it gets no signals */
};

/* The process that has this pid now. Start 0: there is none. Allocates nothing. */
struct hf_process hf_process_now(pid_t pid);
/* To this very process. HF_ENOENT: it is gone. */
int hf_process_signal(struct hf_process p, int sig, struct hf_error *err);
/* To its process group, which it leads. HF_ENOENT: the leader is gone. */
int hf_process_signal_group(struct hf_process p, int sig, struct hf_error *err);

#endif
