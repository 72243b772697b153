/* Objects of a running cluster, through the Kubernetes API; reads only. */
#ifndef HF_KUBE_API_H
#define HF_KUBE_API_H

#include "kube/objects.h"

struct hf_kube_where {
    const char *kubeconfig; /* a file; NULL: the pod's own account, as it is mounted */
    const char *context;    /* "": the file's current one */
    const char *namespace;  /* "": the context's, or default; "*": all */
};

/* Adds all that the doctor looks at. What the account may not read is left out and named in `left_out`. */
int hf_kube_api_load(struct hf_kube_set *s, const struct hf_kube_where *w, char *left_out, size_t cap,
                     struct hf_error *err);

#endif
