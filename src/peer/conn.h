/* One connection between nodes, on its pump thread. Private to src/peer. */
#ifndef HF_PEER_CONN_H
#define HF_PEER_CONN_H

#include "base/listener.h"
#include "base/tls.h"
#include "peer/pump.h"
#include "peer/resolve.h"
#include "peer/walthin.h"
#include "peer/walwatch.h"

enum { HF_PUMPS = 2, HF_FRAME_MAX = 1024, HF_PIPE_BYTES = 32 * 1024, HF_STRANGERS_MAX = 128 /* of a pump */ };

struct hf_pump {
    struct hf_pumps *owner;
    uv_loop_t loop;
    uv_thread_t thread;
    struct hf_mailbox *mailbox;
    struct conn *conns; /* newest first */
    unsigned n_strangers;
    bool stopping;
};

struct hf_pumps {
    struct hf_pumps_callbacks callbacks;
    char name[HF_NAME_MAX];
    bool local;
    struct hf_tls tls;
    struct hf_resolver *resolver;
    struct hf_mailbox *control; /* to the host's loop */
    uv_mutex_t mutex;           /* guards self */
    struct hf_peer_identity self;
    struct hf_pump pumps[HF_PUMPS];
    unsigned next;
    struct hf_listener tcp, beside; /* on pumps[0]; beside: in the local runtime, what hf_net_beside() says */
    unsigned arrivals;              /* pumps[0] counts them */
    bool closing;                   /* control loop only: callbacks are over */
};

enum conn_state {
    CONN_RESOLVE,    /* dialed */
    CONN_CONNECT,    /* dialed */
    CONN_FIRST,      /* accepted: TLS, or a death token in plain? */
    CONN_HANDSHAKE,  /* both */
    CONN_HELLO_OUT,  /* dialed */
    CONN_REPLY_IN,   /* dialed */
    CONN_HELLO_IN,   /* accepted */
    CONN_HOST,       /* accepted: the host thinks */
    CONN_REPLY_OUT,  /* accepted */
    CONN_OPEN,
    CONN_CLOSED,     /* handles are closing */
};

struct hf_tunnel {
    struct hf_pump *pump;
    struct conn *conn; /* pump thread only; NULL once the dialer is gone */
};

struct pipe_buf {
    uint8_t *bytes;
    size_t at, len;
};

struct conn {
    struct conn *next, **at;
    struct hf_pump *pump;
    enum conn_state state;
    bool dialed;
    enum hf_purpose purpose;
    int fd, plain;
    SSL *ssl;
    uv_poll_t net_poll, plain_poll;
    uv_timer_t timer;
    struct hf_question *question; /* to the resolver; NULL: none */
    bool net_polled, plain_polled;
    int net_events, plain_events;
    unsigned handles; /* not yet closed */

    uint8_t frame[HF_FRAME_MAX];
    size_t frame_at, frame_len;

    /* dialed */
    char name[HF_NAME_MAX], addr[HF_ADDR_MAX];
    uint8_t payload[HF_PAYLOAD_MAX];
    size_t payload_len;
    struct hf_dial dial;
    bool told_opened;
    struct sockaddr_storage to;
    socklen_t to_len;

    /* accepted */
    bool stranger; /* it has not said who it is */
    struct hf_peer_identity from;
    struct hf_tunnel *tunnel;
    bool refuse;
    struct hf_wal_terms terms; /* but for the member */
    char member[HF_NAME_MAX];

    /* open */
    struct pipe_buf in, out; /* TLS to plain, plain to TLS */
    int in_net, in_plain, out_net, out_plain; /* what each direction waits for */
    bool ending;
    char why[96]; /* it ended, for the log; "": it has not, or nobody knows */
    bool bare; /* TLS has done its part: see hf_peer_config.local */
    bool watched, named;
    struct hf_walwatch watch;
    uint64_t progress_ms;   /* uv_now() when it was last told */
    struct hf_walthin thin; /* dialed: of what the WAL receiver says */
    bool held_due;          /* what it holds shall go out now */
};

void hf_conn_dial(struct hf_pump *pump, struct conn *c);
void hf_conn_accept(struct hf_pump *pump, int fd);
void hf_conn_answer(struct conn *c, int fd, bool refuse, const char *text);
void hf_conn_close(struct conn *c, int status, const char *text);
/* hello.c. Frames: 1: whole, 0: waiting, -1: closed. hf_frame_in reads not a byte past the frame. */
int hf_frame_out(struct conn *c);
int hf_frame_in(struct conn *c);
void hf_hello_build(struct conn *c); /* into the frame, as the next two */
bool hf_hello_read(struct conn *c, const uint8_t **payload, size_t *payload_len); /* false: no hello */
/* Should the node that says to be c->from be turned away? NULL: no, else why, in text. */
const char *hf_hello_stranger(const struct conn *c, char *text, size_t cap);
void hf_answer_build(struct conn *c, bool ok, const char *text);
bool hf_answer_read(struct conn *c); /* false: refused; why stands behind the frame's fifth byte */

/* CONN_OPEN: moves what those events make possible. */
void hf_conn_move(struct conn *c, int net, int plain);
/* The same at the beginning: whatever there is, in both directions. */
void hf_conn_move_all(struct conn *c);
bool hf_conn_is_torn(const struct conn *c); /* its standby broke the terms of its tunnel (hf_wal_terms) */
/* Sets what the network side waits for. */
void hf_conn_want(struct conn *c, int events);
/* SSL_read/SSL_write said rv <= 0: waits as needed. False: the connection is over. */
bool hf_conn_tls_wait(struct conn *c, int rv);

/* To the control loop. */
void hf_pumps_tell_opened(struct conn *c, int status, const char *text);
void hf_pumps_tell_closed(struct conn *c);
void hf_pumps_tell_hello(struct conn *c, const void *payload, size_t len);
void hf_pumps_tell_token(struct hf_pumps *p, const uint8_t *token);
void hf_pumps_tell_flushed(struct conn *c);  /* accepted */
void hf_pumps_tell_progress(struct conn *c); /* dialed */

#endif
