/* Leaves out, or puts off, what a standby says too often.
 *
 * For each group of commits a WAL receiver tells its primary three things: that it has written the WAL, that it
 * has flushed it, and that it has been applied (XLogWalRcvSendReply and WalRcvForceReply in PostgreSQL's
 * walreceiver.c; manual, "Standby status update"). Here only the flush counts: commits wait for it. Each of the
 * others would cost two TLS records and four wake-ups, so "written" ends at the follower's end of the tunnel,
 * and "applied" waits HF_WALTHIN_MS for a flush to travel with. Whatever asks for an answer, or comes in pieces,
 * passes unchanged and at once. */
#ifndef HF_PEER_WALTHIN_H
#define HF_PEER_WALTHIN_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum { HF_WALTHIN_MS = 2, HF_WALTHIN_STATUS_BYTES = 39 };

struct hf_walthin {
    bool started; /* the startup packet is over */
    bool broken;  /* no such protocol: everything passes */
    uint8_t head[8];
    unsigned head_have;
    uint64_t body_left;        /* of the message under way */
    uint64_t flushed, applied; /* as last passed on */
    uint64_t seen;             /* applied, as last said */
    bool holds;                /* a status that tells only of `applied` waits */
    uint8_t held[HF_WALTHIN_STATUS_BYTES];
};

/* The bytes that a WAL receiver sent, from the connection's first on, in pieces of any size: keeps at p what
 * shall pass and returns its length, <= n. A zeroed struct is a new connection. */
size_t hf_walthin_bytes(struct hf_walthin *t, uint8_t *p, size_t n);
/* The status that waits, if any, at p (HF_WALTHIN_STATUS_BYTES); its length. Only between messages: when the
 * last hf_walthin_bytes() ended in the middle of one, it goes on waiting. */
size_t hf_walthin_held(struct hf_walthin *t, uint8_t *p);

#endif
