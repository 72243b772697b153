/* The follower's end of replication: two Unix sockets to which PostgreSQL here believes its primary
 * listens (SAFETY S20).
 *
 * dir/relay/.s.PGSQL.5432 is for the WAL receiver. Its connection is kept, unanswered, until
 * hf_relay_open() says whom to follow; so the receiver goes on within milliseconds of an appointment,
 * and until then it cannot take a byte from anybody. dir/copy/.s.PGSQL.5432 is for pg_basebackup and
 * pg_rewind. */
#ifndef HF_PEER_RELAY_H
#define HF_PEER_RELAY_H

#include "peer/peer.h"

struct hf_relay;

struct hf_relay_callbacks {
    void *ctx;
    void (*on_streaming)(void *ctx, bool yes); /* the leader let it in; the stream ended */
    /* Now and then: how far the leader's WAL goes, and how far it is applied here. */
    void (*on_progress)(void *ctx, hf_lsn end, hf_lsn applied);
    void (*on_wal_missing)(void *ctx);         /* the leader has removed what we need (S16) */
    void (*on_closed)(void *ctx);              /* after hf_relay_close: not a byte more arrives */
};

/* Until the process ends. */
int hf_relay_start(struct hf_relay **out, struct hf_peer *peer, uv_loop_t *loop, const char *dir,
                   const struct hf_relay_callbacks *callbacks, struct hf_error *err);
/* WAL from that node from now on; payload goes with each hello. */
void hf_relay_open(struct hf_relay *r, const char *name, const char *addr, const void *payload,
                   size_t len);
/* Cuts WAL and copies, refuses new ones; then on_closed. */
void hf_relay_close(struct hf_relay *r);
/* Is a WAL receiver connected, whether it waits or streams? */
bool hf_relay_has_receiver(struct hf_relay *r);
/* Where pg_basebackup and pg_rewind go. */
void hf_relay_copy_from(struct hf_relay *r, const char *name, const char *addr, const void *payload,
                        size_t len);

#endif
