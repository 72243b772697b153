/* TLS for clients: the node shows a certificate and asks for none. Private to src/router, but for struct
 * hf_client_tls, which is the router's. */
#ifndef HF_ROUTER_TLS_H
#define HF_ROUTER_TLS_H

#include <openssl/ssl.h>
#include <uv.h>

#include "base/error.h"

enum { HF_TLS_BINDING_MAX = 64 };

struct hf_client_tls {
    uv_mutex_t lock; /* guards ctx */
    SSL_CTX *ctx;    /* NULL: none */
};

int hf_client_tls_open(struct hf_client_tls *t, struct hf_error *err);
void hf_client_tls_close(struct hf_client_tls *t);
/* Handshakes from now on show the certificate that lies in `dir` now; sessions that run keep theirs. On failure
 * nothing changes. From any thread. */
int hf_client_tls_load(struct hf_client_tls *t, const char *dir, struct hf_error *err);
/* The server's side over a connected socket. NULL: out of memory. From any thread. */
SSL *hf_client_tls_accept(struct hf_client_tls *t, int fd);
/* tls-server-end-point (RFC 5929): a hash of the certificate that was shown. Returns its length, 0: the certificate's
 * signature names no hash, so there is nothing to bind to. */
size_t hf_client_tls_binding(SSL *ssl, uint8_t out[HF_TLS_BINDING_MAX]);

#endif
