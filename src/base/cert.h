/* The cluster's own certificate authority, and checks that tell a person what is wrong. */
#ifndef HF_BASE_CERT_H
#define HF_BASE_CERT_H

#include <stdbool.h>

#include "base/error.h"

/* Writes dir/ca.crt and dir/ca.key (P-256, ten years, key 0600). Keeps what exists. */
int hf_cert_make_ca(const char *dir, const char *cluster, struct hf_error *err);
/* Writes out_dir/ca.crt, node.crt, node.key: signed by ca_dir's authority, two years, valid as server
 * and client for the DNS names given. Replaces what exists. */
int hf_cert_make_node(const char *ca_dir, const char *out_dir, const char *const *names, unsigned n,
                      struct hf_error *err);
/* Is dir/node.crt valid now, signed by dir/ca.crt, for `name`, and does dir/node.key fit? */
int hf_cert_check(const char *dir, const char *name, struct hf_error *err);

#endif
