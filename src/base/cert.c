#include "base/cert.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <openssl/bio.h>
#include <openssl/err.h>
#include <openssl/evp.h>
#include <openssl/pem.h>
#include <openssl/rand.h>
#include <openssl/x509.h>
#include <openssl/x509v3.h>

#include "base/file.h"

enum { CA_DAYS = 3650, NODE_DAYS = 730, FILE_MAX = 64 * 1024 };

static int fail_ssl(struct hf_error *err, const char *what, const char *path)
{
    char text[160] = "";
    unsigned long e = ERR_peek_last_error();

    if (e != 0)
        ERR_error_string_n(e, text, sizeof text);
    ERR_clear_error();
    return hf_fail(err, HF_ETLS, "%s %s: %s", what, path, text[0] != '\0' ? text : "failed");
}

/* -- files ------------------------------------------------------------------------------------------- */

static BIO *read_bio(const char *path, char **data, struct hf_error *err)
{
    size_t len;
    BIO *bio;

    if (hf_file_read(path, FILE_MAX, data, &len, err) != 0)
        return NULL;
    bio = BIO_new_mem_buf(*data, (int)len);
    if (bio == NULL) {
        free(*data);
        (void)fail_ssl(err, "cannot read", path);
    }
    return bio;
}

static X509 *read_cert(const char *dir, const char *file, struct hf_error *err)
{
    char path[4096], *data;
    X509 *cert;
    BIO *bio;

    (void)snprintf(path, sizeof path, "%s/%s", dir, file);
    bio = read_bio(path, &data, err);
    if (bio == NULL)
        return NULL;
    cert = PEM_read_bio_X509(bio, NULL, NULL, NULL);
    BIO_free(bio);
    free(data);
    if (cert == NULL)
        (void)fail_ssl(err, "not a certificate:", path);
    return cert;
}

static EVP_PKEY *read_key(const char *dir, const char *file, struct hf_error *err)
{
    char path[4096], *data;
    EVP_PKEY *key;
    BIO *bio;

    (void)snprintf(path, sizeof path, "%s/%s", dir, file);
    bio = read_bio(path, &data, err);
    if (bio == NULL)
        return NULL;
    key = PEM_read_bio_PrivateKey(bio, NULL, NULL, NULL);
    BIO_free(bio);
    free(data);
    if (key == NULL)
        (void)fail_ssl(err, "not a private key:", path);
    return key;
}

static int write_bio(BIO *bio, const char *dir, const char *file, mode_t mode, struct hf_error *err)
{
    char path[4096], *data;
    long len = BIO_get_mem_data(bio, &data);

    (void)snprintf(path, sizeof path, "%s/%s", dir, file);
    return hf_file_write(path, data, (size_t)len, mode, err);
}

static int write_cert(X509 *cert, const char *dir, const char *file, struct hf_error *err)
{
    BIO *bio = BIO_new(BIO_s_mem());
    int rv;

    if (bio == NULL || PEM_write_bio_X509(bio, cert) != 1)
        rv = fail_ssl(err, "cannot write", file);
    else
        rv = write_bio(bio, dir, file, 0644, err);
    BIO_free(bio);
    return rv;
}

static int write_key(EVP_PKEY *key, const char *dir, const char *file, struct hf_error *err)
{
    BIO *bio = BIO_new(BIO_s_mem());
    int rv;

    if (bio == NULL || PEM_write_bio_PrivateKey(bio, key, NULL, NULL, 0, NULL, NULL) != 1)
        rv = fail_ssl(err, "cannot write", file);
    else
        rv = write_bio(bio, dir, file, 0600, err);
    BIO_free(bio);
    return rv;
}

/* -- making ------------------------------------------------------------------------------------------ */

static bool add_ext(X509 *cert, X509 *issuer, int nid, const char *value)
{
    X509V3_CTX ctx;
    X509_EXTENSION *ext;
    bool ok;

    X509V3_set_ctx(&ctx, issuer, cert, NULL, NULL, 0);
    ext = X509V3_EXT_conf_nid(NULL, &ctx, nid, value);
    if (ext == NULL)
        return false;
    ok = X509_add_ext(cert, ext, -1) == 1;
    X509_EXTENSION_free(ext);
    return ok;
}

/* A certificate without extensions and signature; the caller adds both. */
static X509 *blank(EVP_PKEY *key, const char *common_name, const X509_NAME *issuer, int days)
{
    X509 *cert = X509_new();
    unsigned char serial[16];
    BIGNUM *bn = NULL;
    X509_NAME *name;
    bool ok;

    if (cert == NULL)
        return NULL;
    name = X509_get_subject_name(cert);
    ok = RAND_bytes(serial, sizeof serial) == 1;
    serial[0] &= 0x7f;
    ok = ok && (bn = BN_bin2bn(serial, sizeof serial, NULL)) != NULL &&
         BN_to_ASN1_INTEGER(bn, X509_get_serialNumber(cert)) != NULL &&
         X509_set_version(cert, 2) == 1 &&
         /* A day back: clocks of nodes differ. */
         X509_gmtime_adj(X509_getm_notBefore(cert), -86400) != NULL &&
         X509_time_adj_ex(X509_getm_notAfter(cert), days, 0, NULL) != NULL &&
         X509_set_pubkey(cert, key) == 1 &&
         X509_NAME_add_entry_by_txt(name, "O", MBSTRING_UTF8, (const unsigned char *)"Holdfast", -1,
                                    -1, 0) == 1 &&
         X509_NAME_add_entry_by_txt(name, "CN", MBSTRING_UTF8, (const unsigned char *)common_name,
                                    -1, -1, 0) == 1 &&
         X509_set_issuer_name(cert, issuer != NULL ? issuer : name) == 1;
    BN_free(bn);
    if (!ok) {
        X509_free(cert);
        return NULL;
    }
    return cert;
}

int hf_cert_make_ca(const char *dir, const char *cluster, struct hf_error *err)
{
    char path[4096];
    EVP_PKEY *key = NULL;
    X509 *cert = NULL;
    int rv = HF_ETLS;

    (void)snprintf(path, sizeof path, "%s/ca.key", dir);
    if (access(path, F_OK) == 0)
        return 0;
    key = EVP_EC_gen("P-256");
    if (key != NULL)
        cert = blank(key, cluster, NULL, CA_DAYS);
    if (cert == NULL || !add_ext(cert, cert, NID_basic_constraints, "critical,CA:TRUE,pathlen:0") ||
        !add_ext(cert, cert, NID_key_usage, "critical,keyCertSign,cRLSign") ||
        !add_ext(cert, cert, NID_subject_key_identifier, "hash") ||
        X509_sign(cert, key, EVP_sha256()) == 0) {
        rv = fail_ssl(err, "cannot make a certificate authority in", dir);
        goto cleanup;
    }
    rv = write_cert(cert, dir, "ca.crt", err);
    if (rv == 0)
        rv = write_key(key, dir, "ca.key", err);
cleanup:
    X509_free(cert);
    EVP_PKEY_free(key);
    return rv;
}

static int names_value(const char *const *names, unsigned n, char *out, size_t cap,
                       struct hf_error *err)
{
    size_t at = 0;

    for (unsigned i = 0; i < n; i++) {
        int m;
        if (names[i][0] == '\0' || strpbrk(names[i], ",:\n ") != NULL)
            return hf_fail(err, HF_EINVAL, "'%s' cannot be a name in a certificate", names[i]);
        m = snprintf(out + at, cap - at, "%sDNS:%s", i > 0 ? "," : "", names[i]);
        if (m < 0 || (size_t)m >= cap - at)
            return hf_fail(err, HF_EINVAL, "too many names for one certificate");
        at += (size_t)m;
    }
    return 0;
}

int hf_cert_make_node(const char *ca_dir, const char *out_dir, const char *const *names, unsigned n,
                      struct hf_error *err)
{
    EVP_PKEY *ca_key = NULL, *key = NULL;
    X509 *ca = NULL, *cert = NULL;
    char san[2048];
    int rv = n > 0 ? names_value(names, n, san, sizeof san, err)
                   : hf_fail(err, HF_EINVAL, "a certificate needs a name");

    if (rv != 0)
        return rv;
    rv = HF_ETLS;
    ca = read_cert(ca_dir, "ca.crt", err);
    ca_key = ca != NULL ? read_key(ca_dir, "ca.key", err) : NULL;
    if (ca_key == NULL)
        goto cleanup;
    key = EVP_EC_gen("P-256");
    if (key != NULL)
        cert = blank(key, names[0], X509_get_subject_name(ca), NODE_DAYS);
    if (cert == NULL || !add_ext(cert, ca, NID_basic_constraints, "critical,CA:FALSE") ||
        !add_ext(cert, ca, NID_key_usage, "critical,digitalSignature") ||
        !add_ext(cert, ca, NID_ext_key_usage, "serverAuth,clientAuth") ||
        !add_ext(cert, ca, NID_subject_alt_name, san) ||
        X509_sign(cert, ca_key, EVP_sha256()) == 0) {
        rv = fail_ssl(err, "cannot make a certificate in", out_dir);
        goto cleanup;
    }
    rv = write_cert(ca, out_dir, "ca.crt", err);
    if (rv == 0)
        rv = write_key(key, out_dir, "node.key", err);
    if (rv == 0)
        rv = write_cert(cert, out_dir, "node.crt", err);
cleanup:
    X509_free(cert);
    X509_free(ca);
    EVP_PKEY_free(key);
    EVP_PKEY_free(ca_key);
    return rv;
}

/* -- checking ---------------------------------------------------------------------------------------- */

static void time_text(const ASN1_TIME *t, char *out, size_t cap)
{
    BIO *bio = BIO_new(BIO_s_mem());
    int n = 0;

    if (bio != NULL && ASN1_TIME_print(bio, t) == 1)
        n = BIO_read(bio, out, (int)cap - 1);
    out[n > 0 ? n : 0] = '\0';
    BIO_free(bio);
}

static int check_pair(const char *dir, const char *name, X509 *ca, X509 *cert, EVP_PKEY *key,
                      struct hf_error *err)
{
    char when[64];

    if (X509_cmp_current_time(X509_get0_notAfter(cert)) <= 0) {
        time_text(X509_get0_notAfter(cert), when, sizeof when);
        return hf_fail(err, HF_ETLS,
                       "certificate %s/node.crt expired on %s (hint: make a new one; `holdfast up` does "
                       "it at the next start after `holdfast down`)",
                       dir, when);
    }
    if (X509_cmp_current_time(X509_get0_notBefore(cert)) > 0) {
        time_text(X509_get0_notBefore(cert), when, sizeof when);
        return hf_fail(err, HF_ETLS,
                       "certificate %s/node.crt is not valid before %s (hint: is this machine's clock "
                       "right?)",
                       dir, when);
    }
    if (X509_verify(cert, X509_get0_pubkey(ca)) != 1) {
        ERR_clear_error();
        return hf_fail(err, HF_ETLS,
                       "certificate %s/node.crt is not signed by %s/ca.crt (hint: both must come from "
                       "this cluster's authority)",
                       dir, dir);
    }
    if (X509_check_host(cert, name, 0, X509_CHECK_FLAG_NO_PARTIAL_WILDCARDS, NULL) != 1)
        return hf_fail(err, HF_ETLS, "certificate %s/node.crt does not carry the name %s", dir, name);
    if (X509_check_private_key(cert, key) != 1) {
        ERR_clear_error();
        return hf_fail(err, HF_ETLS, "%s/node.key does not fit %s/node.crt", dir, dir);
    }
    return 0;
}

int hf_cert_check(const char *dir, const char *name, struct hf_error *err)
{
    X509 *ca = read_cert(dir, "ca.crt", err), *cert = NULL;
    EVP_PKEY *key = NULL;
    int rv = HF_ETLS;

    if (ca != NULL)
        cert = read_cert(dir, "node.crt", err);
    if (cert != NULL)
        key = read_key(dir, "node.key", err);
    if (key != NULL)
        rv = check_pair(dir, name, ca, cert, key, err);
    EVP_PKEY_free(key);
    X509_free(cert);
    X509_free(ca);
    return rv;
}
