/* Mutual TLS between nodes: TLS 1.3 only, the cluster's authority only, names checked. And what all of the
 * program's TLS has in common. */
#ifndef HF_BASE_TLS_H
#define HF_BASE_TLS_H

#include <pthread.h>
#include <stdbool.h>

#include <openssl/ssl.h>

#include "base/cert.h"
#include "base/error.h"

struct hf_tls {
    pthread_mutex_t lock; /* guards the two */
    SSL_CTX *client, *server;
    struct hf_domains domains;
};

/* With the directory's certificate and key, of the version `least` (TLS1_2_VERSION, ...) or later, for long
 * sessions on non-blocking sockets; whom to believe is the caller's. On failure NULL, and "<what> <dir>: why". */
SSL_CTX *hf_tls_context(const SSL_METHOD *method, int least, const char *dir, const char *what, struct hf_error *err);

/* dir: see base/cert.h. `domains` may be NULL. */
int hf_tls_open(struct hf_tls *t, const char *dir, const struct hf_domains *domains,
                struct hf_error *err);
/* Sessions from now on use what the directory holds now; those that run keep theirs. On failure
 * nothing changes. From any thread. */
int hf_tls_reload(struct hf_tls *t, const char *dir, struct hf_error *err);
void hf_tls_close(struct hf_tls *t);
/* A session over a connected socket; the peer's certificate must carry `name`, by itself or in one
 * of the domains. NULL: out of memory. From any thread. */
SSL *hf_tls_dial(struct hf_tls *t, int fd, const char *name);
SSL *hf_tls_accept(struct hf_tls *t, int fd);
/* After the handshake: does the peer's certificate carry `name`? */
bool hf_tls_peer_is(const struct hf_tls *t, SSL *ssl, const char *name);
/* Why the last call failed, as text; empties OpenSSL's queue. */
void hf_tls_why(SSL *ssl, int rv, char *out, size_t cap);

#endif
