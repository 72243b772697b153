#include "router/tls.h"

#include "base/tls.h"

/* As PostgreSQL: TLS 1.2 and later. */
static SSL_CTX *context(const char *dir, struct hf_error *err)
{
    SSL_CTX *ctx = hf_tls_context(TLS_server_method(), TLS1_2_VERSION, dir, "cannot show clients the certificate in", err);

    if (ctx == NULL)
        return NULL;
    SSL_CTX_set_verify(ctx, SSL_VERIFY_NONE, NULL);
    SSL_CTX_set_options(ctx, SSL_OP_NO_RENEGOTIATION | SSL_OP_NO_COMPRESSION | SSL_OP_CIPHER_SERVER_PREFERENCE |
                                 SSL_OP_NO_TICKET);
    return ctx;
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

size_t hf_client_tls_binding(SSL *ssl, uint8_t out[HF_TLS_BINDING_MAX])
{
    X509 *shown = SSL_get_certificate(ssl);
    const EVP_MD *md;
    unsigned n = 0;
    int nid = NID_undef;

    _Static_assert((int)HF_TLS_BINDING_MAX >= EVP_MAX_MD_SIZE, "any hash must fit");
    if (shown == NULL || X509_get_signature_info(shown, &nid, NULL, NULL, NULL) != 1 || nid == NID_undef)
        return 0;
    if (nid == NID_md5 || nid == NID_sha1) /* as the RFC wants it */
        nid = NID_sha256;
    md = EVP_get_digestbynid(nid);
    if (md == NULL || X509_digest(shown, md, out, &n) != 1)
        return 0;
    return n;
}
