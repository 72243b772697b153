/* Lock files: who holds one runs; the kernel lets go when its holder is gone, however it went. */
#ifndef HF_LOCAL_LOCK_H
#define HF_LOCAL_LOCK_H

#include <stdbool.h>
#include <sys/types.h>

#include "base/error.h"

struct hf_lock_pids {
    pid_t first;  /* the holder: supervisor, or a node's sentinel */
    pid_t second; /* the node, child of the sentinel; 0: none, or not yet */
};

/* Returns a descriptor that holds the lock (closed on exec, shared over fork), HF_EBUSY, or another
 * failure. */
int hf_lock_take(const char *path, struct hf_error *err);
/* Says who holds it, for people and for hf_lock_look(). */
int hf_lock_write(int fd, struct hf_lock_pids pids);
/* Is it held, and by whom? False if nobody holds it or there is no such file. */
bool hf_lock_look(const char *path, struct hf_lock_pids *pids);

#endif
