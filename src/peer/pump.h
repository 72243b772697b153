/* The pump threads: TLS on one side, a plain descriptor on the other. Private to src/peer. */
#ifndef HF_PEER_PUMP_H
#define HF_PEER_PUMP_H

#include "base/mailbox.h"
#include "peer/peer.h"

struct hf_pumps;

struct hf_pumps_callbacks { /* on the control loop */
    void *ctx;
    void (*on_hello)(void *ctx, enum hf_purpose purpose, const struct hf_peer_identity *from,
                     const void *payload, size_t len, struct hf_tunnel *t);
    void (*on_token)(void *ctx, const uint8_t token[HF_DEATH_TOKEN_BYTES]);
    void (*on_flushed)(void *ctx, const struct hf_wal_word *word);
    void (*on_wal_closed)(void *ctx, hf_node_id id, uint64_t tag);
};

int hf_pumps_open(struct hf_pumps **out, uv_loop_t *control, const struct hf_peer_config *config,
                  const struct hf_pumps_callbacks *callbacks, struct hf_error *err);
void hf_pumps_close(struct hf_pumps *p);
int hf_pumps_reload(struct hf_pumps *p, const char *tls_dir, struct hf_error *err); /* any thread */
void hf_pumps_identify(struct hf_pumps *p, const struct hf_peer_identity *self);
void hf_pumps_dial(struct hf_pumps *p, const char *name, const char *addr, enum hf_purpose purpose,
                   const void *payload, size_t len, int fd, const struct hf_dial *d);
void hf_pumps_cut(struct hf_pumps *p, enum hf_purpose purpose, bool dialed, void (*done)(void *),
                  void *arg);

#endif
