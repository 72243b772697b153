/* Synchronous writes: the barrier (an epoch's record) and the heartbeat. Not for others. */
#ifndef HF_POSTGRES_WRITER_H
#define HF_POSTGRES_WRITER_H

#include "postgres/private.h"

/* Told once, as soon as the write has been seen waiting for followers. */
typedef void (*hf_pg_waiting_fn)(void *ctx);

/* Both block until the commit has been acknowledged, the server ends, or the interrupt.
 *
 * The barrier succeeds only if its commit was seen waiting (wait event SyncRep) or the rule is
 * empty, and no wait was cancelled (S2, S11). *lsn: at or past the end of its commit record. */
int hf_pg_barrier(struct hf_pg *pg, hf_epoch epoch, hf_pg_waiting_fn waiting, void *ctx,
                  hf_lsn *lsn, struct hf_error *err);
/* Makes the barrier's connections ahead, while the promotion is under way; a session of a standby
 * may write once that is over. Failing is no harm. */
void hf_pg_barrier_prepare(struct hf_pg *pg);
int hf_pg_heartbeat(struct hf_pg *pg, hf_epoch epoch, hf_lsn *lsn, struct hf_error *err);

#endif
