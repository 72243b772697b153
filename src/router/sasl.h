/* The password exchange with a client, message by message: PostgreSQL's SASL messages around SCRAM. Pure.
 * PostgreSQL's documentation, "SASL Authentication". */
#ifndef HF_ROUTER_SASL_H
#define HF_ROUTER_SASL_H

#include "base/scram.h"

enum {
    HF_SASL_OUT_MAX = HF_SCRAM_MESSAGE_MAX + 16, /* one message of ours */
    HF_SASL_IN_MAX = 5 + HF_SCRAM_MESSAGE_MAX,   /* one of the client's, its head included */
};

struct hf_sasl {
    struct hf_scram_server scram;
    enum { HF_SASL_MECHANISM, HF_SASL_FIRST, HF_SASL_FINAL, HF_SASL_DONE } expects;
    bool plus;
};

/* The list of mechanisms, for the client: returns its length in `out`. `binding`: as of hf_scram_server_init(). */
size_t hf_sasl_begin(struct hf_sasl *s, const struct hf_scram_verifier *v, bool doomed, const uint8_t *binding,
                     size_t binding_len, uint8_t out[HF_SASL_OUT_MAX]);
/* How long the client's message is, head included, that begins with these `n` bytes; `n` + 1 or more if they do not tell yet;
 * 0: it is not one that may come here, nor would it be one if it were complete. */
size_t hf_sasl_need(const uint8_t *p, size_t n);
/* Does this message bring the proof? To be asked before it is heard: proofs may be made to wait. */
bool hf_sasl_is_proof(const struct hf_sasl *s);
/* A complete message. GOES_ON, RIGHT: `out` has *len bytes for the client. RIGHT: s->scram.keys are the role's. BAD: sqlstate and
 * text are in s->scram. */
enum hf_scram_verdict hf_sasl_hear(struct hf_sasl *s, const uint8_t *p, size_t n, const char nonce[HF_SCRAM_NONCE + 1],
                                   uint8_t out[HF_SASL_OUT_MAX], size_t *len);
void hf_sasl_wipe(struct hf_sasl *s);

/* -- to PostgreSQL --------------------------------------------------------------------------- */

/* Messages of a client; return their length. */
size_t hf_sasl_initial(const char *text, uint8_t out[HF_SASL_OUT_MAX + 16]);
size_t hf_sasl_response(const char *text, uint8_t out[HF_SASL_OUT_MAX + 16]);
/* Is SCRAM-SHA-256 in an AuthenticationSASL's list? */
bool hf_sasl_offers_scram(const uint8_t *list, size_t n);

#endif
