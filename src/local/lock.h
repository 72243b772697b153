/* Lock files: who holds one runs; the kernel lets go when its holder is gone, however it went. */
#ifndef HF_LOCAL_LOCK_H
#define HF_LOCAL_LOCK_H

#include <stdbool.h>

#include "base/error.h"
#include "base/process.h"

struct hf_lock_pids {
    struct hf_process first;  /* the holder: supervisor, or a node's sentinel; pid 0: it has not said so yet */
    struct hf_process second; /* the node, child of the sentinel; pid 0: none, or not yet */
    bool ended;               /* the node: its sentinel puts its PostgreSQL away */
};

/* Returns a descriptor that holds the lock (closed on exec, shared over fork), HF_EBUSY, or another
 * failure. What the last holder wrote is gone. */
int hf_lock_take(const char *path, struct hf_error *err);
/* Says who holds it, for people and for hf_lock_look(). Allocates nothing. */
int hf_lock_write(int fd, struct hf_lock_pids pids);
/* Is it held, and by whom? False if nobody holds it or there is no such file. */
bool hf_lock_look(const char *path, struct hf_lock_pids *pids);

#endif
