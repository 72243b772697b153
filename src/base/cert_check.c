#include "base/cert.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <openssl/bio.h>
#include <openssl/err.h>
#include <openssl/pem.h>
#include <openssl/x509v3.h>

#include "base/file.h"
#include "base/fingerprint.h"

enum { FILE_MAX = 64 * 1024, CHAIN_MAX = 8 };

/* -- names ------------------------------------------------------------------------------------- */

bool hf_domains_of_service(struct hf_domains *d, const char *service, const char *namespace,
                           const char *cluster_domain)
{
    const struct {
        const char *ns, *svc, *domain;
    } forms[HF_DOMAINS_MAX] = {{"", "", ""},
                               {namespace, "", ""},
                               {namespace, "svc", ""},
                               {namespace, "svc", cluster_domain}};
    bool fits = true;

    d->n = 0;
    for (unsigned i = 0; i < HF_DOMAINS_MAX; i++) {
        const char *ns = forms[i].ns, *svc = forms[i].svc, *domain = forms[i].domain;
        int n;
        if ((i > 0 && ns[0] == '\0') || (i == HF_DOMAINS_MAX - 1 && domain[0] == '\0'))
            break;
        n = snprintf(d->text[i], HF_DOMAIN_MAX, "%s%s%s%s%s%s%s", service, ns[0] != '\0' ? "." : "",
                     ns, svc[0] != '\0' ? "." : "", svc, domain[0] != '\0' ? "." : "", domain);
        fits = fits && n < HF_DOMAIN_MAX;
        d->n++;
    }
    return fits;
}

bool hf_cert_carries(X509 *cert, const char *name, const struct hf_domains *d)
{
    unsigned n = d != NULL ? d->n : 0;
    char full[2 * HF_DOMAIN_MAX];

    if (X509_check_host(cert, name, 0, X509_CHECK_FLAG_NO_PARTIAL_WILDCARDS, NULL) == 1)
        return true;
    for (unsigned i = 0; i < n; i++) {
        (void)snprintf(full, sizeof full, "%s.%s", name, d->text[i]);
        if (X509_check_host(cert, full, 0, X509_CHECK_FLAG_NO_PARTIAL_WILDCARDS, NULL) == 1)
            return true;
    }
    return false;
}

/* -- files ------------------------------------------------------------------------------------- */

void hf_cert_files(const char *dir, struct hf_cert_files *out)
{
    const char *stem = "node";

    (void)snprintf(out->crt, sizeof out->crt, "%s/tls.crt", dir);
    if (access(out->crt, F_OK) == 0) {
        (void)snprintf(out->key, sizeof out->key, "%s/node.crt", dir);
        if (access(out->key, F_OK) != 0)
            stem = "tls";
    }
    (void)snprintf(out->ca, sizeof out->ca, "%s/ca.crt", dir);
    (void)snprintf(out->crt, sizeof out->crt, "%s/%s.crt", dir, stem);
    (void)snprintf(out->key, sizeof out->key, "%s/%s.key", dir, stem);
}

uint64_t hf_cert_fingerprint(const char *dir, bool authority)
{
    struct hf_cert_files f;
    const char *const paths[] = {f.crt, f.key, f.ca};
    uint64_t sum = HF_FINGERPRINT_BEGIN;

    hf_cert_files(dir, &f);
    for (int i = 0; i < (authority ? 3 : 2); i++) {
        char *data;
        size_t len;
        if (hf_file_read(paths[i], FILE_MAX, &data, &len, NULL) != 0)
            return 0;
        sum = hf_fingerprint(sum, data, len + 1); /* with the NUL: what moves from file to file counts */
        OPENSSL_cleanse(data, len);
        free(data);
    }
    return sum;
}

/* Every certificate of a file. */
static STACK_OF(X509) * read_all(const char *path, struct hf_error *err)
{
    STACK_OF(X509) *all = sk_X509_new_null();
    BIO *bio = BIO_new_file(path, "re");
    X509 *cert;

    while (all != NULL && bio != NULL && sk_X509_num(all) < CHAIN_MAX &&
           (cert = PEM_read_bio_X509(bio, NULL, NULL, NULL)) != NULL) {
        if (sk_X509_push(all, cert) == 0) {
            X509_free(cert);
            break;
        }
    }
    BIO_free(bio);
    if (all != NULL && sk_X509_num(all) > 0) {
        ERR_clear_error(); /* the end of the file is an error to OpenSSL */
        return all;
    }
    (void)hf_cert_fail(err, access(path, R_OK) == 0 ? "not a certificate:" : "cannot read", path);
    sk_X509_pop_free(all, X509_free);
    return NULL;
}

/* -- checks ------------------------------------------------------------------------------------ */

int64_t hf_cert_seconds_left(const X509 *cert)
{
    int days = 0, seconds = 0;

    if (ASN1_TIME_diff(&days, &seconds, NULL, X509_get0_notAfter(cert)) != 1)
        return -1;
    return (int64_t)days * 86400 + seconds;
}

static void time_text(const ASN1_TIME *t, char *out, size_t cap)
{
    BIO *bio = BIO_new(BIO_s_mem());
    int n = 0;

    if (bio != NULL && ASN1_TIME_print(bio, t) == 1)
        n = BIO_read(bio, out, (int)cap - 1);
    out[n > 0 ? n : 0] = '\0';
    BIO_free(bio);
}

static int check_time(const struct hf_cert_files *f, const X509 *cert, struct hf_error *err)
{
    char when[64];

    if (X509_cmp_current_time(X509_get0_notAfter(cert)) <= 0) {
        time_text(X509_get0_notAfter(cert), when, sizeof when);
        return hf_fail(
            err, HF_ETLS,
            "certificate %s expired on %s (hint: make a new one: `holdfast certs rotate`, or your "
            "certificate manager; `holdfast up` does it at the next start after `holdfast down`)",
            f->crt, when);
    }
    if (X509_cmp_current_time(X509_get0_notBefore(cert)) > 0) {
        time_text(X509_get0_notBefore(cert), when, sizeof when);
        return hf_fail(
            err, HF_ETLS,
            "certificate %s is not valid before %s (hint: is this machine's clock right?)", f->crt,
            when);
    }
    return 0;
}

static int check_chain(const struct hf_cert_files *f, STACK_OF(X509) * cas, STACK_OF(X509) * chain,
                       struct hf_error *err)
{
    X509_STORE *store = X509_STORE_new();
    X509_STORE_CTX *ctx = X509_STORE_CTX_new();
    const char *why = "out of memory";
    int ok = 0;

    for (int i = 0; store != NULL && i < sk_X509_num(cas); i++)
        (void)X509_STORE_add_cert(store, sk_X509_value(cas, i));
    if (store != NULL && ctx != NULL &&
        X509_STORE_CTX_init(ctx, store, sk_X509_value(chain, 0), chain) == 1) {
        ok = X509_verify_cert(ctx);
        why = X509_verify_cert_error_string(X509_STORE_CTX_get_error(ctx));
    }
    if (ok != 1)
        (void)hf_fail(
            err, HF_ETLS,
            "certificate %s is not signed by %s: %s (hint: both must come from this cluster's "
            "authority)",
            f->crt, f->ca, why);
    ERR_clear_error();
    X509_STORE_CTX_free(ctx);
    X509_STORE_free(store);
    return ok == 1 ? 0 : HF_ETLS;
}

static int check_pair(const struct hf_cert_files *f, const char *name, const struct hf_domains *d,
                      STACK_OF(X509) * cas, STACK_OF(X509) * chain, EVP_PKEY *key,
                      struct hf_error *err)
{
    X509 *cert = sk_X509_value(chain, 0);
    int rv = check_time(f, cert, err);

    if (rv == 0)
        rv = check_chain(f, cas, chain, err);
    if (rv == 0 && name[0] != '\0' && !hf_cert_carries(cert, name, d)) {
        if (d != NULL && d->n > 0)
            rv = hf_fail(err, HF_ETLS,
                         "certificate %s does not carry the name %s, nor %s.%s or the like (hint: "
                         "one for all "
                         "pods has *.%s)",
                         f->crt, name, name, d->text[d->n - 1], d->text[d->n - 1]);
        else
            rv = hf_fail(err, HF_ETLS, "certificate %s does not carry the name %s", f->crt, name);
    }
    if (rv == 0 && X509_check_private_key(cert, key) != 1) {
        ERR_clear_error();
        rv = hf_fail(err, HF_ETLS, "%s does not fit %s", f->key, f->crt);
    }
    return rv;
}

int hf_cert_check(const char *dir, const char *name, const struct hf_domains *d,
                  struct hf_error *err)
{
    STACK_OF(X509) * cas, *chain = NULL;
    struct hf_cert_files f;
    EVP_PKEY *key = NULL;
    int rv = HF_ETLS;

    hf_cert_files(dir, &f);
    cas = read_all(f.ca, err);
    if (cas != NULL)
        chain = read_all(f.crt, err);
    if (chain != NULL)
        key = hf_cert_read_key(f.key, err);
    if (key != NULL)
        rv = check_pair(&f, name, d, cas, chain, key, err);
    EVP_PKEY_free(key);
    sk_X509_pop_free(chain, X509_free);
    sk_X509_pop_free(cas, X509_free);
    return rv;
}
