#include "base/tls.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>

#include <openssl/err.h>
#include <openssl/x509v3.h>

SSL_CTX *hf_tls_context(const SSL_METHOD *method, int least, const char *dir, const char *what, struct hf_error *err)
{
    SSL_CTX *ctx = SSL_CTX_new(method);
    struct hf_cert_files f;

    hf_cert_files(dir, &f);
    if (ctx != NULL && SSL_CTX_set_min_proto_version(ctx, least) == 1 &&
        SSL_CTX_use_certificate_chain_file(ctx, f.crt) == 1 &&
        SSL_CTX_use_PrivateKey_file(ctx, f.key, SSL_FILETYPE_PEM) == 1 &&
        SSL_CTX_check_private_key(ctx) == 1) {
        /* Buffers only while something moves; a write that is tried again may come from another place. */
        SSL_CTX_set_mode(ctx, SSL_MODE_ENABLE_PARTIAL_WRITE | SSL_MODE_ACCEPT_MOVING_WRITE_BUFFER |
                                  SSL_MODE_RELEASE_BUFFERS);
        /* Sessions are long, and nobody resumes one: tickets would be bytes that nobody reads. */
        (void)SSL_CTX_set_num_tickets(ctx, 0);
        SSL_CTX_set_session_cache_mode(ctx, SSL_SESS_CACHE_OFF);
        return ctx;
    }
    (void)hf_cert_fail(err, what, dir);
    SSL_CTX_free(ctx);
    return NULL;
}

static SSL_CTX *context(const SSL_METHOD *method, const char *dir, struct hf_error *err)
{
    SSL_CTX *ctx = hf_tls_context(method, TLS1_3_VERSION, dir, "cannot use the certificates in", err);
    struct hf_cert_files f;

    if (ctx == NULL)
        return NULL;
    hf_cert_files(dir, &f);
    if (SSL_CTX_set_ciphersuites(ctx, "TLS_AES_128_GCM_SHA256:TLS_AES_256_GCM_SHA384") != 1 ||
        SSL_CTX_load_verify_locations(ctx, f.ca, NULL) != 1) {
        (void)hf_cert_fail(err, "cannot use the authority's certificate", f.ca);
        SSL_CTX_free(ctx);
        return NULL;
    }
    SSL_CTX_set_verify(ctx, SSL_VERIFY_PEER | SSL_VERIFY_FAIL_IF_NO_PEER_CERT, NULL);
    return ctx;
}

int hf_tls_open(struct hf_tls *t, const char *dir, const struct hf_domains *domains,
                struct hf_error *err)
{
    memset(t, 0, sizeof *t);
    if (domains != NULL)
        t->domains = *domains;
    if (pthread_mutex_init(&t->lock, NULL) != 0)
        return hf_fail(err, HF_ENOMEM, "out of memory");
    return hf_tls_reload(t, dir, err);
}

int hf_tls_reload(struct hf_tls *t, const char *dir, struct hf_error *err)
{
    SSL_CTX *client = context(TLS_client_method(), dir, err), *server, *old[2];

    server = client != NULL ? context(TLS_server_method(), dir, err) : NULL;
    if (server == NULL) {
        SSL_CTX_free(client);
        return HF_ETLS;
    }
    pthread_mutex_lock(&t->lock);
    old[0] = t->client;
    old[1] = t->server;
    t->client = client;
    t->server = server;
    pthread_mutex_unlock(&t->lock);
    SSL_CTX_free(old[0]); /* sessions that use it hold it */
    SSL_CTX_free(old[1]);
    return 0;
}

void hf_tls_close(struct hf_tls *t)
{
    SSL_CTX_free(t->client);
    SSL_CTX_free(t->server);
    t->client = t->server = NULL;
    (void)pthread_mutex_destroy(&t->lock);
}

static SSL *session(struct hf_tls *t, bool dial)
{
    SSL *ssl;

    pthread_mutex_lock(&t->lock);
    ssl = SSL_new(dial ? t->client : t->server);
    pthread_mutex_unlock(&t->lock);
    return ssl;
}

static bool want_name(const struct hf_tls *t, SSL *ssl, const char *name)
{
    char full[2 * HF_DOMAIN_MAX];
    bool ok = SSL_set1_host(ssl, name) == 1;

    for (unsigned i = 0; ok && i < t->domains.n; i++) {
        (void)snprintf(full, sizeof full, "%s.%s", name, t->domains.text[i]);
        ok = SSL_add1_host(ssl, full) == 1; /* any of them will do */
    }
    return ok;
}

SSL *hf_tls_dial(struct hf_tls *t, int fd, const char *name)
{
    SSL *ssl = session(t, true);

    if (ssl == NULL || SSL_set_fd(ssl, fd) != 1 || !want_name(t, ssl, name)) {
        SSL_free(ssl);
        return NULL;
    }
    SSL_set_hostflags(ssl, X509_CHECK_FLAG_NO_PARTIAL_WILDCARDS);
    SSL_set_connect_state(ssl);
    return ssl;
}

SSL *hf_tls_accept(struct hf_tls *t, int fd)
{
    SSL *ssl = session(t, false);

    if (ssl == NULL || SSL_set_fd(ssl, fd) != 1) {
        SSL_free(ssl);
        return NULL;
    }
    SSL_set_accept_state(ssl);
    return ssl;
}

bool hf_tls_peer_is(const struct hf_tls *t, SSL *ssl, const char *name)
{
    X509 *cert = SSL_get0_peer_certificate(ssl);

    return cert != NULL && hf_cert_carries(cert, name, &t->domains);
}

void hf_tls_why(SSL *ssl, int rv, char *out, size_t cap)
{
    int saved = errno, code = SSL_get_error(ssl, rv);
    long verify = SSL_get_verify_result(ssl);
    unsigned long e = ERR_peek_last_error();

    if (verify != X509_V_OK)
        (void)snprintf(out, cap, "the peer's certificate: %s",
                       X509_verify_cert_error_string(verify));
    else if (e != 0)
        ERR_error_string_n(e, out, cap);
    else if (code == SSL_ERROR_SYSCALL && saved != 0)
        (void)snprintf(out, cap, "%s", strerror(saved));
    else
        (void)snprintf(out, cap, "the connection ended");
    ERR_clear_error();
}
