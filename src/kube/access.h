/* Where a cluster's API is, and what to show there: as a kubeconfig has it, or the account that Kubernetes mounts
 * into a pod. Private to src/kube. */
#ifndef HF_KUBE_ACCESS_H
#define HF_KUBE_ACCESS_H

#include <stdbool.h>

#include "base/error.h"

/* All owned; those that are not there are NULL. */
struct hf_kube_access {
    char *server, *namespace, *token, *ca, *cert, *key;
    bool insecure;
    bool direct; /* a proxy leads outwards; a pod's API is inside */
};

/* `context` "": the current one. On failure too, hf_kube_access_forget() is the caller's. */
int hf_kube_access_of_file(struct hf_kube_access *a, const char *kubeconfig, const char *context, struct hf_error *err);
/* HF_ENOENT: this is no pod, or it has no account. */
int hf_kube_access_of_pod(struct hf_kube_access *a, struct hf_error *err);
void hf_kube_access_forget(struct hf_kube_access *a);

#endif
