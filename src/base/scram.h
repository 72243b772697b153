/* SCRAM-SHA-256 (RFC 5802, RFC 7677): the arithmetic and the messages of both sides. Pure: no I/O, no clock,
 * random numbers come from the caller.
 *
 * The server's side checks a client against PostgreSQL's own verifier of the role and learns, from a proof that is right, the
 * role's ClientKey. With it, and without the password, the client's side logs in to PostgreSQL.
 *
 * SASLprep (RFC 4013) has no place here: it changes passwords before they are hashed, which only the client and whoever
 * made the verifier do. The name in the first message is ignored, as PostgreSQL does: who comes is in the startup packet. */
#ifndef HF_BASE_SCRAM_H
#define HF_BASE_SCRAM_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum {
    HF_SCRAM_KEY = 32,
    HF_SCRAM_SALT_MAX = 64,      /* PostgreSQL makes 16 */
    HF_SCRAM_MESSAGE_MAX = 1024, /* PostgreSQL's bound, too */
    HF_SCRAM_NONCE = 24,         /* characters of a nonce of ours */
    HF_SCRAM_VERIFIER_MAX = 256, /* as text, with its NUL */
    HF_SCRAM_BINDING_MAX = 64,   /* a hash of a certificate */
    HF_SCRAM_AUTH_MAX = 3 * HF_SCRAM_MESSAGE_MAX,
    HF_SCRAM_ITERATIONS_MAX = 999999999, /* in a verifier that is understood */
};

struct hf_scram_verifier {
    uint32_t iterations;
    uint8_t salt[HF_SCRAM_SALT_MAX];
    size_t salt_len; /* > 0 */
    uint8_t stored_key[HF_SCRAM_KEY], server_key[HF_SCRAM_KEY];
};

/* As in pg_authid: "SCRAM-SHA-256$4096:salt$StoredKey:ServerKey". False: it is no such text. */
bool hf_scram_verifier_parse(struct hf_scram_verifier *v, const char *text);
void hf_scram_verifier_print(const struct hf_scram_verifier *v, char out[HF_SCRAM_VERIFIER_MAX]);
/* Is it of this password? One beyond ASCII may be told to be wrong, since SASLprep is not done. Costs as much as the iterations. */
bool hf_scram_verifier_fits(const struct hf_scram_verifier *v, const char *password);
/* For a role that has none: the salt depends on `secret` and the name alone, so that asking twice tells nothing. No proof
 * fits it. */
void hf_scram_verifier_mock(struct hf_scram_verifier *v, const uint8_t secret[HF_SCRAM_KEY], const char *role,
                            uint32_t iterations);

struct hf_scram_keys {
    uint8_t client[HF_SCRAM_KEY], server[HF_SCRAM_KEY];
};

enum hf_scram_verdict { HF_SCRAM_GOES_ON, HF_SCRAM_RIGHT, HF_SCRAM_WRONG, HF_SCRAM_BAD };

/* AuthMessage: what both have said, as far as it is signed. */
struct hf_scram_said {
    char text[HF_SCRAM_AUTH_MAX];
    size_t len;
};

/* -- the server's side ----------------------------------------------------------------------- */

struct hf_scram_server {
    struct hf_scram_verifier verifier;
    bool doomed;                  /* the verifier is a mock */
    bool may_bind;                /* -PLUS is offered */
    uint8_t binding[HF_SCRAM_BINDING_MAX]; /* tls-server-end-point */
    size_t binding_len;
    char bind_text[200];          /* what the client has to say as c= */
    char nonce[HF_SCRAM_MESSAGE_MAX];
    struct hf_scram_said said;
    struct hf_scram_keys keys;    /* after RIGHT */
    const char *sqlstate, *text;  /* after BAD */
};

/* `binding`: NULL if -PLUS is not offered. */
void hf_scram_server_init(struct hf_scram_server *s, const struct hf_scram_verifier *v, bool doomed, const uint8_t *binding,
                          size_t binding_len);
/* The client's first message, for the mechanism with (`plus`) or without channel binding. GOES_ON: `out` (NUL at its end) is
 * to be sent. `nonce`: HF_SCRAM_NONCE printable characters without a comma. */
enum hf_scram_verdict hf_scram_server_first(struct hf_scram_server *s, bool plus, const char *msg, size_t n,
                                            const char nonce[HF_SCRAM_NONCE + 1], char out[HF_SCRAM_MESSAGE_MAX]);
/* Its last. RIGHT: `out` is to be sent, and the keys are known. */
enum hf_scram_verdict hf_scram_server_final(struct hf_scram_server *s, const char *msg, size_t n,
                                            char out[HF_SCRAM_MESSAGE_MAX]);

/* -- the client's side ----------------------------------------------------------------------- */

struct hf_scram_client {
    char nonce[HF_SCRAM_NONCE + 1];
    struct hf_scram_said said;
};

void hf_scram_client_first(struct hf_scram_client *c, const char nonce[HF_SCRAM_NONCE + 1], char out[HF_SCRAM_MESSAGE_MAX]);
/* False: what the server says is no answer to our first message. */
bool hf_scram_client_final(struct hf_scram_client *c, const struct hf_scram_keys *keys, const char *msg, size_t n,
                           char out[HF_SCRAM_MESSAGE_MAX]);
/* Does the server know the verifier, too? */
bool hf_scram_client_check(const struct hf_scram_client *c, const struct hf_scram_keys *keys, const char *msg, size_t n);

/* Base64 of 18 random bytes. */
void hf_scram_nonce(const uint8_t random[18], char out[HF_SCRAM_NONCE + 1]);

#endif
