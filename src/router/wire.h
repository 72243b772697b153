/* As much of PostgreSQL's wire protocol as a gate needs: startup packets, and errors of our own.
 * PostgreSQL's documentation, chapter "Frontend/Backend Protocol". */
#ifndef HF_ROUTER_WIRE_H
#define HF_ROUTER_WIRE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/scan.h"

enum {
    HF_STARTUP_MAX = 10000, /* PostgreSQL's MAX_STARTUP_PACKET_LENGTH */
    HF_CANCEL_KEY_MIN = 4,  /* all of protocol 3.0's */
    HF_CANCEL_KEY_MAX = 256, /* protocol 3.2 */
};

enum hf_startup_kind {
    HF_STARTUP_MORE, /* not complete */
    HF_STARTUP_TLS,  /* SSLRequest: 8 bytes; answered by 'S' or 'N', then the real one follows */
    HF_STARTUP_GSS,  /* GSSENCRequest: likewise */
    HF_STARTUP_CANCEL, /* pid and key */
    HF_STARTUP_SESSION,
    HF_STARTUP_ASK, /* between nodes only: what is this role's verifier? `key` is its name, with a NUL */
    HF_STARTUP_BAD, /* sqlstate and text say why */
};

struct hf_startup {
    enum hf_startup_kind kind;
    size_t len; /* of the packet */
    uint32_t pid; /* of a cancel */
    const uint8_t *key; /* in the packet */
    size_t key_len;
    const char *sqlstate, *text, *hint; /* hint: may be NULL */
};

/* Looks at the first `n` bytes of a connection. */
struct hf_startup hf_startup_parse(const uint8_t *p, size_t n);
/* How many bytes to have before hf_startup_parse() can say more, given the first `n`: never more
 * than the packet has, so that what follows it is left for the server. */
size_t hf_startup_need(const uint8_t *p, size_t n);
/* The value of a complete session startup packet's parameter, or NULL. The last one counts, as in PostgreSQL. */
const char *hf_startup_value(const uint8_t *p, size_t len, const char *name);
/* Adds default_transaction_read_only=on and holdfast.read_only=on (guard/reader.c), which the client cannot take back there, to a
 * complete session startup packet. Returns the new length, or 0 if there is no room in `cap` or in what PostgreSQL takes. */
size_t hf_startup_read_only(uint8_t *p, size_t len, size_t cap);
/* A CancelRequest; returns its length, 12 + `n`. */
size_t hf_wire_cancel(uint8_t *out, uint32_t pid, const uint8_t *key, size_t n);

/* -- between nodes, in a tunnel, before the startup packet: a question about a role and its answer -- */

/* Returns the length, at most 8 + strlen(role) + 1. */
size_t hf_wire_ask(uint8_t *out, const char *role);
size_t hf_wire_answer(uint8_t *out, char kind, uint32_t server_version, uint64_t stamp, const char *verifier);
/* Of a complete message. False: it is no answer. */
bool hf_wire_answer_parse(const uint8_t *p, size_t n, char *kind, uint32_t *server_version, uint64_t *stamp, char *verifier, size_t cap);

/* The gate's last word in a tunnel, when it shuts and nothing is under way: how many bytes it has taken behind the startup packet. A
 * message; PostgreSQL has none of this type. */
enum { HF_WIRE_TAKEN = '^', HF_WIRE_TAKEN_BYTES = 13 };
size_t hf_wire_taken(uint8_t out[HF_WIRE_TAKEN_BYTES], uint64_t taken);
bool hf_wire_taken_parse(const uint8_t *body, size_t n, uint64_t *taken);

/* -- messages -- */

void hf_wire_printable(char *text); /* for the log: what would break its lines is replaced */

/* Of a message with a type, from the five bytes of its head: with the head; below 5 if that is impossible. */
size_t hf_wire_length(const uint8_t *head);
/* The SQLSTATE in an ErrorResponse's body, of which the beginning suffices. */
bool hf_wire_sqlstate(const uint8_t *body, size_t n, char out[6]);
/* A NegotiateProtocolVersion for a complete session startup packet, if PostgreSQL would send one that speaks 3.0 to
 * 3.`newest` and no option; returns its length, 0: none is due. It is at most 32 bytes longer than the packet. */
size_t hf_wire_negotiate(uint8_t *out, const uint8_t *p, size_t len, uint32_t newest);
/* An ErrorResponse; 0: it does not fit. Detail and hint may be NULL. */
size_t hf_wire_error(uint8_t *out, size_t cap, const char *severity, const char *sqlstate, const char *text, const char *detail,
                     const char *hint);
/* The same, FATAL. Returns its length, 0 if it does not fit. */
size_t hf_wire_fatal(uint8_t *out, size_t cap, const char *sqlstate, const char *text,
                     const char *hint);

#endif
