/* What a replication stream says, read in passing: never changed, never stored.
 *
 * PostgreSQL's protocol (manual, "Streaming Replication Protocol" and "Message Formats"): from the
 * standby a startup packet, then typed messages: Query 'Q' with START_REPLICATION; CopyData 'd' with payload 'r' is its status: written,
 * flushed and applied LSN. From the primary, an ErrorResponse with SQLSTATE 58P01 in answer to
 * START_REPLICATION means that the WAL asked for has been removed (SAFETY S16). */
#ifndef HF_PEER_WALWATCH_H
#define HF_PEER_WALWATCH_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct hf_walwatch {
    bool from_primary, started;  /* started: startup packet is over */
    uint8_t head[5];             /* of the message under way */
    unsigned head_have;
    uint64_t body_left;
    uint8_t type;
    uint8_t keep[1024];          /* its first bytes */
    size_t kept;
    bool broken;                 /* no such protocol: nothing more is read from it */
    uint32_t timeline;           /* that the standby has asked for, in its newest START_REPLICATION; 0: none yet */
    bool asked;                  /* for any */
    uint64_t first;              /* and where it wanted to begin, the first time */
    uint64_t flushed, applied;   /* newest status since */
    uint64_t end;                /* from the primary: how far its own WAL goes */
    bool news;                   /* set when it has asked, or flushed or applied was read; the owner clears it */
    bool wal_missing;
    bool named;                  /* the startup packet told application_name */
    char application_name[64];
};

void hf_walwatch_init(struct hf_walwatch *w, bool from_primary);
void hf_walwatch_bytes(struct hf_walwatch *w, const uint8_t *p, size_t n);

#endif
