/* The one question that a pod may ask of Kubernetes' API, if it was given the right to: how many
 * pods its own StatefulSet should have. Blocks, with a bound: for a worker thread. */
#ifndef HF_POD_API_H
#define HF_POD_API_H

#include "base/error.h"

#define HF_POD_ACCOUNT "/var/run/secrets/kubernetes.io/serviceaccount"

struct hf_pod_scale {
    unsigned first, replicas; /* ordinals first .. first + replicas - 1 stay */
};

/* `account`: the directory with token and ca.crt, as mounted. HF_ENOENT: there is none, so nobody
 * is asked. HF_EREFUSED: not allowed, or the StatefulSet is on its way out itself. */
int hf_pod_scale(const char *account, const char *namespace, const char *statefulset,
                 int timeout_ms, struct hf_pod_scale *out, struct hf_error *err);

#endif
