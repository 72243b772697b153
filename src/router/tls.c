#include "router/tls.h"

#include <openssl/err.h>

#include "base/cert.h"

/* As PostgreSQL: TLS 1.2 and later. */
static SSL_CTX *context(const char *dir, struct hf_error *err)
{
    SSL_CTX *ctx = SSL_CTX_new(TLS_server_method());
    struct hf_cert_files f;
    char why[160] = "";

    hf_cert_files(dir, &f);
    if (ctx != NULL && SSL_CTX_set_min_proto_version(ctx, TLS1_2_VERSION) == 1 &&
        SSL_CTX_use_certificate_chain_file(ctx, f.crt) == 1 &&
        SSL_CTX_use_PrivateKey_file(ctx, f.key, SSL_FILETYPE_PEM) == 1 &&
        SSL_CTX_check_private_key(ctx) == 1) {
        SSL_CTX_set_verify(ctx, SSL_VERIFY_NONE, NULL);
        /* Buffers only while something moves; a write that is tried again may come from another place. */
        SSL_CTX_set_mode(ctx, SSL_MODE_ENABLE_PARTIAL_WRITE | SSL_MODE_ACCEPT_MOVING_WRITE_BUFFER |
                                  SSL_MODE_RELEASE_BUFFERS);
        SSL_CTX_set_options(ctx, SSL_OP_NO_RENEGOTIATION | SSL_OP_NO_COMPRESSION |
                                     SSL_OP_CIPHER_SERVER_PREFERENCE);
        /* Drivers do not resume: tickets would be bytes that nobody reads. */
        (void)SSL_CTX_set_num_tickets(ctx, 0);
        SSL_CTX_set_options(ctx, SSL_OP_NO_TICKET);
        SSL_CTX_set_session_cache_mode(ctx, SSL_SESS_CACHE_OFF);
        return ctx;
    }
    ERR_error_string_n(ERR_peek_last_error(), why, sizeof why);
    ERR_clear_error();
    SSL_CTX_free(ctx);
    (void)hf_fail(err, HF_ETLS, "cannot show clients the certificate in %s: %s", dir, why);
    return NULL;
}

int hf_client_tls_open(struct hf_client_tls *t, struct hf_error *err)
{
    t->ctx = NULL;
    if (uv_mutex_init(&t->lock) != 0)
        return hf_fail(err, HF_ENOMEM, "router: out of memory");
    return 0;
}

void hf_client_tls_close(struct hf_client_tls *t)
{
    SSL_CTX_free(t->ctx);
    t->ctx = NULL;
    uv_mutex_destroy(&t->lock);
}

int hf_client_tls_load(struct hf_client_tls *t, const char *dir, struct hf_error *err)
{
    SSL_CTX *fresh = context(dir, err), *old;

    if (fresh == NULL)
        return HF_ETLS;
    uv_mutex_lock(&t->lock);
    old = t->ctx;
    t->ctx = fresh;
    uv_mutex_unlock(&t->lock);
    SSL_CTX_free(old); /* sessions that use it hold it */
    return 0;
}

SSL *hf_client_tls_accept(struct hf_client_tls *t, int fd)
{
    SSL *ssl;

    uv_mutex_lock(&t->lock);
    ssl = t->ctx != NULL ? SSL_new(t->ctx) : NULL;
    uv_mutex_unlock(&t->lock);
    if (ssl != NULL && SSL_set_fd(ssl, fd) != 1) {
        SSL_free(ssl);
        return NULL;
    }
    if (ssl != NULL)
        SSL_set_accept_state(ssl);
    return ssl;
}
