/* The cluster's own certificate authority, and checks that tell a person what is wrong.
 *
 * A directory of certificates holds ca.crt (one authority, or several while one takes another's
 * place), and a node's certificate and key: node.crt and node.key, or as Kubernetes' Secrets have
 * it tls.crt and tls.key. It may be read-only and may change at any time. */
#ifndef HF_BASE_CERT_H
#define HF_BASE_CERT_H

#include <stdbool.h>
#include <stdint.h>

#include <openssl/x509.h>

#include "base/error.h"

/* -- names ------------------------------------------------------------------------------------- */

/* The domains in which a node's name may stand in a certificate, besides by itself: for the pod
 * demo-0 of the service "db" in the namespace "prod": db, db.prod, db.prod.svc and
 * db.prod.svc.cluster.local. A certificate for all pods has wildcards: *.db.prod.svc. */
enum { HF_DOMAINS_MAX = 4, HF_DOMAIN_MAX = 256 };
struct hf_domains {
    unsigned n;
    char text[HF_DOMAINS_MAX][HF_DOMAIN_MAX];
};
/* `cluster_domain` may be "": not known. Cuts nothing: false if a name is too long. */
bool hf_domains_of_service(struct hf_domains *d, const char *service, const char *namespace,
                           const char *cluster_domain);
/* Does it carry `name`, or `name` in one of the domains (may be NULL)? */
bool hf_cert_carries(X509 *cert, const char *name, const struct hf_domains *d);

/* -- making (cert.c) --------------------------------------------------------------------------- */

/* Writes dir/ca.crt and dir/ca.key (P-256, ten years, key 0600). Keeps what exists. */
int hf_cert_make_ca(const char *dir, const char *cluster, struct hf_error *err);
/* A new authority and key for the same cluster; the old one stays trusted, behind it in dir/ca.crt.
 */
int hf_cert_renew_ca(const char *dir, struct hf_error *err);
/* Only the newest stays trusted. HF_EREFUSED: dir/node.crt is signed by another. */
int hf_cert_forget_ca(const char *dir, struct hf_error *err);

struct hf_cert_wish {
    const char *const *names; /* DNS names and addresses */
    unsigned n;
    const char *common_name; /* NULL: the first name */
    const char *stem;        /* <stem>.crt, <stem>.key; NULL: node */
    int days;                /* 0: two years */
    bool client;             /* not good for a server */
};
/* Signed by ca_dir's newest authority: writes out_dir/ca.crt and the pair. Replaces what exists. */
int hf_cert_make(const char *ca_dir, const char *out_dir, const struct hf_cert_wish *w,
                 struct hf_error *err);
int hf_cert_make_node(const char *ca_dir, const char *out_dir, const char *const *names, unsigned n,
                      struct hf_error *err);

/* -- reading and checking (cert_check.c) ------------------------------------------------------- */

struct hf_cert_files {
    char ca[4096], crt[4096], key[4096];
};
void hf_cert_files(const char *dir, struct hf_cert_files *out);
/* Is the directory's certificate valid now, signed by one of its authorities (perhaps by way of
 * others in its own file), for `name` ("": any), and does the key fit? */
int hf_cert_check(const char *dir, const char *name, const struct hf_domains *d,
                  struct hf_error *err);
/* Seconds from now to the end of a certificate's life; below 0: expired. */
int64_t hf_cert_seconds_left(const X509 *cert);
/* A number that changes when the certificate or the key in the directory does, or with `authority` what
 * is in ca.crt; 0: one cannot be read. */
uint64_t hf_cert_fingerprint(const char *dir, bool authority);

X509 *hf_cert_read(const char *path, struct hf_error *err); /* the first in the file */
EVP_PKEY *hf_cert_read_key(const char *path, struct hf_error *err);
/* "what path: why", with OpenSSL's word on why; returns HF_ETLS. */
int hf_cert_fail(struct hf_error *err, const char *what, const char *path);

#endif
