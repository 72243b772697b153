/* A process by pid and start: a pid alone may be somebody else's by the time it is used. */
#ifndef HF_BASE_PROCESS_H
#define HF_BASE_PROCESS_H

#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

#include "base/error.h"

struct hf_process {
    pid_t pid;      /* 0: none */
    uint64_t start; /* clock ticks after boot, as /proc/PID/stat has it; 0: not known, and it gets no signals */
};

/* What /proc/PID/stat says of a process (proc(5)). */
struct hf_process_look {
    char state; /* a letter: Z is a zombie */
    pid_t parent;
    uint64_t start;
};

/* False: there is none with this pid. Allocates nothing. */
bool hf_process_look(pid_t pid, struct hf_process_look *out);
/* The process that has this pid now. Start 0: there is none. Allocates nothing. */
struct hf_process hf_process_now(pid_t pid);
/* To this very process. HF_ENOENT: it is gone. */
int hf_process_signal(struct hf_process p, int sig, struct hf_error *err);
/* To its process group, which it leads. HF_ENOENT: the leader is gone. */
int hf_process_signal_group(struct hf_process p, int sig, struct hf_error *err);

#endif
