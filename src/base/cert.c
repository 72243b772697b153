#include "base/cert.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <arpa/inet.h>

#include <openssl/bio.h>
#include <openssl/err.h>
#include <openssl/evp.h>
#include <openssl/pem.h>
#include <openssl/rand.h>
#include <openssl/x509.h>
#include <openssl/x509v3.h>

#include "base/file.h"

enum { CA_DAYS = 3650, NODE_DAYS = 730, FILE_MAX = 64 * 1024, SAN_MAX = 8192 };

int hf_cert_fail(struct hf_error *err, const char *what, const char *path)
{
    char text[160] = "";
    unsigned long e = ERR_peek_last_error();

    if (e != 0)
        ERR_error_string_n(e, text, sizeof text);
    ERR_clear_error();
    return hf_fail(err, HF_ETLS, "%s %s: %s", what, path, text[0] != '\0' ? text : "failed");
}

/* -- files ------------------------------------------------------------------------------------- */

static BIO *read_bio(const char *path, char **data, struct hf_error *err)
{
    size_t len;
    BIO *bio;

    if (hf_file_read(path, FILE_MAX, data, &len, err) != 0)
        return NULL;
    bio = BIO_new_mem_buf(*data, (int)len);
    if (bio == NULL) {
        free(*data);
        (void)hf_cert_fail(err, "cannot read", path);
    }
    return bio;
}

X509 *hf_cert_read(const char *path, struct hf_error *err)
{
    char *data;
    X509 *cert;
    BIO *bio = read_bio(path, &data, err);

    if (bio == NULL)
        return NULL;
    cert = PEM_read_bio_X509(bio, NULL, NULL, NULL);
    BIO_free(bio);
    free(data);
    if (cert == NULL)
        (void)hf_cert_fail(err, "not a certificate:", path);
    return cert;
}

EVP_PKEY *hf_cert_read_key(const char *path, struct hf_error *err)
{
    char *data;
    EVP_PKEY *key;
    BIO *bio = read_bio(path, &data, err);

    if (bio == NULL)
        return NULL;
    key = PEM_read_bio_PrivateKey(bio, NULL, NULL, NULL);
    BIO_free(bio);
    free(data);
    if (key == NULL)
        (void)hf_cert_fail(err, "not a private key:", path);
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
        rv = hf_cert_fail(err, "cannot write", file);
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
        rv = hf_cert_fail(err, "cannot write", file);
    else
        rv = write_bio(bio, dir, file, 0600, err);
    BIO_free(bio);
    return rv;
}

/* -- making ------------------------------------------------------------------------------------ */

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

static bool new_authority(const char *cluster, EVP_PKEY **key, X509 **cert)
{
    *cert = NULL;
    *key = EVP_EC_gen("P-256");
    if (*key != NULL)
        *cert = blank(*key, cluster, NULL, CA_DAYS);
    return *cert != NULL &&
           add_ext(*cert, *cert, NID_basic_constraints, "critical,CA:TRUE,pathlen:0") &&
           add_ext(*cert, *cert, NID_key_usage, "critical,keyCertSign,cRLSign") &&
           add_ext(*cert, *cert, NID_subject_key_identifier, "hash") &&
           X509_sign(*cert, *key, EVP_sha256()) != 0;
}

int hf_cert_make_ca(const char *dir, const char *cluster, struct hf_error *err)
{
    char path[4096];
    EVP_PKEY *key = NULL;
    X509 *cert = NULL;
    int rv;

    (void)snprintf(path, sizeof path, "%s/ca.key", dir);
    if (access(path, F_OK) == 0)
        return 0;
    rv = new_authority(cluster, &key, &cert)
             ? 0
             : hf_cert_fail(err, "cannot make a certificate authority in", dir);
    if (rv == 0)
        rv = write_cert(cert, dir, "ca.crt", err);
    if (rv == 0)
        rv = write_key(key, dir, "ca.key", err);
    X509_free(cert);
    EVP_PKEY_free(key);
    return rv;
}

static int names_value(const char *const *names, unsigned n, char *out, size_t cap,
                       struct hf_error *err)
{
    size_t at = 0;

    for (unsigned i = 0; i < n; i++) {
        unsigned char number[16];
        bool is_address = inet_pton(AF_INET, names[i], number) == 1 ||
                          inet_pton(AF_INET6, names[i], number) == 1;
        int m;
        if (!is_address && (names[i][0] == '\0' || strpbrk(names[i], ",:\n ") != NULL))
            return hf_fail(err, HF_EINVAL, "'%s' cannot be a name in a certificate", names[i]);
        m = snprintf(out + at, cap - at, "%s%s:%s", i > 0 ? "," : "", is_address ? "IP" : "DNS", names[i]);
        if (m < 0 || (size_t)m >= cap - at)
            return hf_fail(err, HF_EINVAL, "too many names for one certificate");
        at += (size_t)m;
    }
    return 0;
}

/* The whole file, which may hold several authorities while one takes another's place. */
static int copy_authorities(const char *from, const char *to_dir, struct hf_error *err)
{
    char path[4096], *data;
    size_t len;
    int rv = hf_file_read(from, FILE_MAX, &data, &len, err);

    if (rv != 0)
        return rv;
    (void)snprintf(path, sizeof path, "%s/ca.crt", to_dir);
    rv = hf_file_write(path, data, len, 0644, err);
    free(data);
    return rv;
}

static X509 *signed_cert(const struct hf_cert_wish *w, const char *san, EVP_PKEY *key, X509 *ca,
                         EVP_PKEY *ca_key)
{
    X509 *cert = blank(key, w->common_name != NULL ? w->common_name : w->names[0],
                       X509_get_subject_name(ca), w->days > 0 ? w->days : NODE_DAYS);

    if (cert == NULL)
        return NULL;
    /* By key, too: an authority and the one that takes its place have the same name. */
    if (add_ext(cert, ca, NID_basic_constraints, "critical,CA:FALSE") &&
        add_ext(cert, ca, NID_authority_key_identifier, "keyid") &&
        add_ext(cert, ca, NID_key_usage, "critical,digitalSignature") &&
        add_ext(cert, ca, NID_ext_key_usage, w->client ? "clientAuth" : "serverAuth,clientAuth") &&
        (san[0] == '\0' || add_ext(cert, ca, NID_subject_alt_name, san)) &&
        X509_sign(cert, ca_key, EVP_sha256()) != 0)
        return cert;
    X509_free(cert);
    return NULL;
}

int hf_cert_make(const char *ca_dir, const char *out_dir, const struct hf_cert_wish *w,
                 struct hf_error *err)
{
    EVP_PKEY *ca_key = NULL, *key = NULL;
    X509 *ca = NULL, *cert = NULL;
    char san[SAN_MAX] = "", ca_path[4096], key_path[4096], crt_file[64], key_file[64];
    int rv = names_value(w->names, w->n, san, sizeof san, err);

    if (rv == 0 && w->n == 0 && w->common_name == NULL)
        rv = hf_fail(err, HF_EINVAL, "a certificate needs a name");
    if (rv != 0)
        return rv;
    rv = HF_ETLS;
    (void)snprintf(ca_path, sizeof ca_path, "%s/ca.crt", ca_dir);
    (void)snprintf(key_path, sizeof key_path, "%s/ca.key", ca_dir);
    (void)snprintf(crt_file, sizeof crt_file, "%s.crt", w->stem != NULL ? w->stem : "node");
    (void)snprintf(key_file, sizeof key_file, "%s.key", w->stem != NULL ? w->stem : "node");
    ca = hf_cert_read(ca_path, err);
    ca_key = ca != NULL ? hf_cert_read_key(key_path, err) : NULL;
    if (ca_key == NULL)
        goto cleanup;
    key = EVP_EC_gen("P-256");
    if (key != NULL)
        cert = signed_cert(w, san, key, ca, ca_key);
    if (cert == NULL) {
        rv = hf_cert_fail(err, "cannot make a certificate in", out_dir);
        goto cleanup;
    }
    rv = strcmp(ca_dir, out_dir) != 0 ? copy_authorities(ca_path, out_dir, err) : 0;
    if (rv == 0)
        rv = write_key(key, out_dir, key_file, err);
    if (rv == 0)
        rv = write_cert(cert, out_dir, crt_file, err);
cleanup:
    X509_free(cert);
    X509_free(ca);
    EVP_PKEY_free(key);
    EVP_PKEY_free(ca_key);
    return rv;
}

int hf_cert_make_node(const char *ca_dir, const char *out_dir, const char *const *names, unsigned n,
                      struct hf_error *err)
{
    return hf_cert_make(ca_dir, out_dir, &(struct hf_cert_wish){.names = names, .n = n}, err);
}

/* -- authorities that take each other's place -------------------------------------------------- */

/* Writes dir/ca.crt: `first`, and behind it those of dir/ca.crt, or none of them. */
static int write_authorities(const char *dir, X509 *first, bool and_old, struct hf_error *err)
{
    char path[4096], *old = NULL;
    BIO *bio = BIO_new(BIO_s_mem());
    size_t len = 0;
    int rv = 0;

    (void)snprintf(path, sizeof path, "%s/ca.crt", dir);
    if (and_old)
        rv = hf_file_read(path, FILE_MAX, &old, &len, err);
    if (rv == 0 && (bio == NULL || PEM_write_bio_X509(bio, first) != 1 ||
                    (len > 0 && BIO_write(bio, old, (int)len) != (int)len)))
        rv = hf_cert_fail(err, "cannot write", path);
    if (rv == 0)
        rv = write_bio(bio, dir, "ca.crt", 0644, err);
    BIO_free(bio);
    free(old);
    return rv;
}

int hf_cert_renew_ca(const char *dir, struct hf_error *err)
{
    char path[4096], cluster[128] = "holdfast";
    EVP_PKEY *key = NULL;
    X509 *old, *cert = NULL;
    int rv;

    (void)snprintf(path, sizeof path, "%s/ca.crt", dir);
    old = hf_cert_read(path, err);
    if (old == NULL)
        return HF_ETLS;
    (void)X509_NAME_get_text_by_NID(X509_get_subject_name(old), NID_commonName, cluster,
                                    sizeof cluster);
    X509_free(old);
    rv = new_authority(cluster, &key, &cert)
             ? 0
             : hf_cert_fail(err, "cannot make an authority in", dir);
    /* The trust first: a key without it would sign what nobody accepts. */
    if (rv == 0)
        rv = write_authorities(dir, cert, true, err);
    if (rv == 0)
        rv = write_key(key, dir, "ca.key", err);
    X509_free(cert);
    EVP_PKEY_free(key);
    return rv;
}

int hf_cert_forget_ca(const char *dir, struct hf_error *err)
{
    char path[4096], crt[4096];
    X509 *ca, *cert;
    int rv = HF_ETLS;

    (void)snprintf(path, sizeof path, "%s/ca.crt", dir);
    (void)snprintf(crt, sizeof crt, "%s/node.crt", dir);
    ca = hf_cert_read(path, err);
    cert = ca != NULL ? hf_cert_read(crt, err) : NULL;
    if (cert != NULL && X509_verify(cert, X509_get0_pubkey(ca)) == 1)
        rv = write_authorities(dir, ca, false, err);
    else if (cert != NULL)
        rv = hf_fail(
            err, HF_EREFUSED,
            "%s is still signed by an authority that would be forgotten (hint: first a new one: "
            "`holdfast certs rotate`)",
            crt);
    ERR_clear_error();
    X509_free(cert);
    X509_free(ca);
    return rv;
}
