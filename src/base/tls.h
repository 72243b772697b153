/* Mutual TLS between nodes: TLS 1.3 only, the cluster's authority only, names checked. */
#ifndef HF_BASE_TLS_H
#define HF_BASE_TLS_H

#include <stdbool.h>

#include <openssl/ssl.h>

#include "base/error.h"

struct hf_tls {
    SSL_CTX *client, *server;
};

/* dir: ca.crt, node.crt, node.key. */
int hf_tls_open(struct hf_tls *t, const char *dir, struct hf_error *err);
void hf_tls_close(struct hf_tls *t);
/* A session over a connected socket; the peer's certificate must carry `name`. NULL: out of memory. */
SSL *hf_tls_dial(struct hf_tls *t, int fd, const char *name);
SSL *hf_tls_accept(struct hf_tls *t, int fd);
/* After the handshake: does the peer's certificate carry `name`? */
bool hf_tls_peer_is(SSL *ssl, const char *name);
/* Why the last call failed, as text; empties OpenSSL's queue. */
void hf_tls_why(SSL *ssl, int rv, char *out, size_t cap);

#endif
