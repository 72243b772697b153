/* Who a pod of a StatefulSet is, from what Kubernetes puts into every pod: no API, no permission.
 *
 * - the hostname is the pod's name;
 * - the kubelet's /etc/hosts gives the full name, pod.service.namespace.svc.domain, if the
 * StatefulSet names its headless service (serviceName);
 * - the search list in /etc/resolv.conf begins with namespace.svc.domain.
 * What the caller has filled in already (from flags or the downward API) is kept. */
#ifndef HF_POD_IDENTITY_H
#define HF_POD_IDENTITY_H

#include <stdbool.h>

#include "base/cert.h"
#include "base/error.h"
#include "core/types.h"

enum { HF_LABEL_MAX = 64 }; /* a DNS label, with its NUL */

struct hf_pod {
    char name[HF_NAME_MAX];
    char service[HF_LABEL_MAX]; /* headless */
    char namespace[HF_LABEL_MAX];
    char domain[HF_DOMAIN_MAX]; /* of the cluster; "": not known, and not needed */
};

/* Is this process in a pod? Kubernetes sets the variables of its own API in each. */
bool hf_pod_inside(void);
/* Fills in what is missing, as far as the files tell. */
void hf_pod_complete(struct hf_pod *p);
/* The parts of it, for tests: the text of the two files. */
void hf_pod_from_hosts(struct hf_pod *p, const char *hosts);
void hf_pod_from_resolv(struct hf_pod *p, const char *resolv);

/* The address of a port of the StatefulSet's pod with that ordinal, by name:
 * "demo-1.demo.prod.svc:7000". Found with the search list of every pod, whatever the cluster's
 * domain is. */
int hf_pod_address(const struct hf_pod *p, unsigned ordinal, unsigned port, char name[HF_NAME_MAX],
                   char addr[HF_ADDR_MAX], struct hf_error *err);

#endif
