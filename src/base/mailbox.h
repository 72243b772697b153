/* Runs functions on another libuv loop's thread, in the order in which they were posted.
 *
 * This is the only way threads talk to each other in Holdfast: a thread owns its objects, and others
 * post to it. */
#ifndef HF_BASE_MAILBOX_H
#define HF_BASE_MAILBOX_H

#include <uv.h>

typedef void (*hf_mailbox_fn)(void *arg);

struct hf_mailbox;

/* `loop` is the receiving loop. Call on its thread, or before it runs. NULL: out of memory. */
struct hf_mailbox *hf_mailbox_open(uv_loop_t *loop);
/* From any thread. Aborts the process if memory for one small node cannot be had: a lost message
 * between our own threads is not recoverable. */
void hf_mailbox_post(struct hf_mailbox *m, hf_mailbox_fn fn, void *arg);
/* On the receiving thread, which is not at one of them: what has been posted so far. The loop does so by itself, sooner or later in its turn. */
void hf_mailbox_run(struct hf_mailbox *m);
/* On the receiving thread; what was posted before and not run yet is run first. The memory goes once
 * the loop has run on. No posts may come after. */
void hf_mailbox_close(struct hf_mailbox *m);

#endif
