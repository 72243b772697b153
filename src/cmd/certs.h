/* What `holdfast certs` prints: what is in certificates, and Secrets. Private to the verb. */
#ifndef HF_CMD_CERTS_H
#define HF_CMD_CERTS_H

#include <stdbool.h>

#include "base/cert.h"

/* The DNS names of a certificate; returns how many. */
unsigned hf_certs_names(X509 *cert, char text[][2 * HF_DOMAIN_MAX], const char **list,
                        unsigned max);
/* Prints, in words or JSON. HF_ETLS: and what is wrong. */
int hf_certs_check(const char *dir, const char *name, const struct hf_domains *d, unsigned min_days,
                   bool json);
/* Of type kubernetes.io/tls: tls.crt, tls.key, and ca.crt; never the authority's key. */
int hf_certs_print_secret(const char *dir, const char *name, const char *namespace,
                          struct hf_error *err);

#endif
