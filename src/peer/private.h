/* What the control loop keeps of the other nodes: connections to them (outgoing.c), from them (incoming.c), and
 * whether one whose connection ended is gone (gone.c). Private to src/peer. */
#ifndef HF_PEER_PRIVATE_H
#define HF_PEER_PRIVATE_H

#include "peer/peer.h"
#include "peer/pump.h"

enum {
    HF_TARGETS_MAX = 32,
    HF_INCOMING_MAX = 64,
    HF_QUEUE_MAX = 32, /* messages that wait for a connection */
    HF_TOKENS_MAX = 64,
    HF_FRAME_MAX = 4 + HF_MSG_BYTES_MAX,
};

enum hf_link { HF_LINK_IDLE, HF_LINK_DIALING, HF_LINK_UP };

/* To one node: we dial, we send. */
struct hf_outgoing {
    struct hf_peer *peer;
    bool used, kept;
    struct hf_peer_target to;
    enum hf_link state;
    uv_pipe_t *pipe;
    uv_timer_t retry;
    unsigned retry_ms;
    struct hf_death_entry *token_entry;
    struct sockaddr_storage sa;
    socklen_t sa_len;
    uint8_t token[HF_DEATH_TOKEN_BYTES];
    size_t token_have;
    unsigned n_queue, q_first;
    struct hf_msg queue[HF_QUEUE_MAX];
};

/* From one node: it dialed, we receive. */
struct hf_incoming {
    struct hf_peer *peer;
    bool used;
    struct hf_peer_identity from;
    uv_pipe_t *pipe;
    size_t have;
    uint8_t buf[HF_FRAME_MAX];
};

struct hf_token {
    bool used;
    struct hf_peer_identity owner;
    uint8_t bytes[HF_DEATH_TOKEN_BYTES];
};

struct hf_peer {
    uv_loop_t *loop;
    struct hf_pumps *pumps;
    struct hf_peer_callbacks callbacks;
    bool local, closing;
    hf_node_id self;
    struct hf_sentinel_page *page;
    struct hf_outgoing out[HF_TARGETS_MAX];
    struct hf_incoming in[HF_INCOMING_MAX];
    struct hf_token tokens[HF_TOKENS_MAX];
    unsigned next_token;
};

/* -- peer.c: connections to the pumps, as the loop has them */

bool hf_peer_pair(int fds[2]);
uv_pipe_t *hf_peer_pipe(struct hf_peer *p, int fd); /* takes fd; NULL: out of memory */
void hf_peer_pipe_freed(uv_handle_t *handle);       /* for uv_close() */
void hf_peer_read_alloc(uv_handle_t *handle, size_t size, uv_buf_t *buf);

/* -- outgoing.c */

void hf_outgoing_init(struct hf_peer *p);
void hf_outgoing_close(struct hf_peer *p);
void hf_outgoing_again(struct hf_peer *p); /* every connection that is up is made anew */
struct hf_outgoing *hf_outgoing_find(struct hf_peer *p, const char *name); /* NULL: we have none to that node */

/* -- incoming.c */

/* A node dialed, to send messages. */
void hf_incoming_take(struct hf_peer *p, const struct hf_peer_identity *from, struct hf_tunnel *t);
void hf_incoming_close(struct hf_peer *p);
/* Someone sent a death token. */
void hf_incoming_token(struct hf_peer *p, const uint8_t bytes[HF_DEATH_TOKEN_BYTES]);

/* -- gone.c */

/* The connection from that node ended. In the local runtime: says on_down() with proof once its port is refused. */
void hf_gone_probe(struct hf_peer *p, const struct hf_peer_identity *who);

#endif
