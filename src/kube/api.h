/* Questions to the Kubernetes API of a running cluster; reads only. They block. */
#ifndef HF_KUBE_API_H
#define HF_KUBE_API_H

#include "kube/objects.h"

/* Where Kubernetes mounts a pod's own account: token, ca.crt, namespace. */
#define HF_KUBE_ACCOUNT "/var/run/secrets/kubernetes.io/serviceaccount"

struct hf_kube_where {
    const char *kubeconfig; /* a file; NULL: the pod's own account */
    const char *context;    /* "": the file's current one */
    const char *namespace;  /* "": the context's, or default; "*": all */
};

/* Adds all that the doctor looks at. What the account may not read is left out and named in `left_out`. */
int hf_kube_api_load(struct hf_kube_set *s, const struct hf_kube_where *w, char *left_out, size_t cap,
                     struct hf_error *err);

struct hf_kube_scale {
    unsigned first, replicas; /* ordinals first .. first + replicas - 1 stay */
};

/* The one question of a pod that was given the right to: how many pods its own StatefulSet should have. Done within
 * timeout_ms, for a worker thread. HF_ENOENT: the pod has no account, so nobody is asked. HF_EREFUSED: not allowed, or
 * the StatefulSet is on its way out itself. */
int hf_kube_api_scale(const char *namespace, const char *statefulset, int timeout_ms, struct hf_kube_scale *out,
                      struct hf_error *err);

#endif
