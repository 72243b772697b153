/* libraft's connections as plain sockets, which others carry over mutual TLS. */
#ifndef HF_CONSENSUS_TRANSPORT_H
#define HF_CONSENSUS_TRANSPORT_H

#include <raft.h>
#include <raft/uv.h>

#include "consensus/consensus.h"

struct hf_transport {
    struct raft_uv_transport base;
    uv_loop_t *loop;
    const struct hf_consensus_callbacks *callbacks;
    raft_uv_accept_cb accept;
    struct hf_consensus_dial *dials; /* under way */
    bool closing;
    raft_uv_transport_close_cb close_cb;
};

void hf_transport_init(struct hf_transport *t, uv_loop_t *loop,
                       const struct hf_consensus_callbacks *callbacks);
void hf_transport_accepted(struct hf_transport *t, uint64_t id, const char *address, int fd);

#endif
