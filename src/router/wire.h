/* As much of PostgreSQL's wire protocol as a gate needs: startup packets, and the heads of messages. */
#ifndef HF_ROUTER_WIRE_H
#define HF_ROUTER_WIRE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum { HF_STARTUP_MAX = 10000 }; /* PostgreSQL's MAX_STARTUP_PACKET_LENGTH */

enum hf_startup_kind {
    HF_STARTUP_MORE,    /* not complete */
    HF_STARTUP_TLS,     /* SSLRequest or GSSENCRequest: 8 bytes, answer 'N', then the real one follows */
    HF_STARTUP_CANCEL,  /* pid and key */
    HF_STARTUP_SESSION,
    HF_STARTUP_BAD,     /* sqlstate and text say why */
};

struct hf_startup {
    enum hf_startup_kind kind;
    size_t len; /* of the packet */
    uint32_t pid, key;
    const char *sqlstate, *text;
};

/* Looks at the first `n` bytes of a connection. */
struct hf_startup hf_startup_parse(const uint8_t *p, size_t n);
/* Adds default_transaction_read_only=on to a complete session startup packet. Returns the new length,
 * or 0 if there is no room in `cap`. */
size_t hf_startup_read_only(uint8_t *p, size_t len, size_t cap);
/* An ErrorResponse, FATAL. Returns its length. */
size_t hf_wire_fatal(uint8_t *out, size_t cap, const char *sqlstate, const char *text,
                     const char *hint);

/* Follows the server's stream. */
struct hf_wire {
    uint8_t head[5];
    unsigned head_have;
    uint64_t body_left;
    uint8_t keep[256]; /* the first bytes of the body */
    size_t kept;
    bool broken;
    /* What was read; the owner may clear the flags. */
    bool ready;         /* a ReadyForQuery was the last complete message */
    uint8_t status;     /* its status: 'I', 'T', 'E' */
    bool key_known;     /* BackendKeyData came */
    uint32_t pid, key;
    bool wait_cancelled; /* a NoticeResponse says that a synchronous wait was given up (S11) */
};

void hf_wire_bytes(struct hf_wire *w, const uint8_t *p, size_t n);

#endif
