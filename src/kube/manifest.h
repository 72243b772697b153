/* A cluster on Kubernetes as objects: what `holdfast manifest` prints and deploy/kubernetes holds. */
#ifndef HF_KUBE_MANIFEST_H
#define HF_KUBE_MANIFEST_H

#include <stdbool.h>
#include <stdio.h>

#include "base/error.h"

enum {
    HF_MANIFEST_NAME_MAX = 41, /* with the longest suffix and an ordinal still a DNS label */
    HF_MANIFEST_TEXT_MAX = 256,
    HF_MANIFEST_REPLICAS_MAX = 9,
    HF_MANIFEST_SETTINGS_MAX = 4096,
};

struct hf_manifest {
    char name[HF_MANIFEST_NAME_MAX], namespace[64];
    unsigned replicas;
    char storage_class[HF_MANIFEST_TEXT_MAX], provisioner[HF_MANIFEST_TEXT_MAX]; /* "": no StorageClass */
    char size[32], cpu[32], memory[32];
    char image[HF_MANIFEST_TEXT_MAX];
    char settings[HF_MANIFEST_SETTINGS_MAX]; /* NAME=VALUE, a line each, besides those made of the sizes */
    bool no_namespace;    /* the namespace exists: print none */
    bool zone_spread;     /* one node in each zone, or none */
    bool spread_soft;     /* two nodes on one machine if there is no other */
    bool cert_manager;    /* certificates by cert-manager */
    bool service_monitor; /* for the Prometheus operator */
    bool scale_down_role; /* a pod may read its own StatefulSet */
};

void hf_manifest_default(struct hf_manifest *m);
/* HF_EINVAL with a word on what is wrong. */
int hf_manifest_check(const struct hf_manifest *m, struct hf_error *err);
/* All objects as one YAML stream. */
int hf_manifest_print(const struct hf_manifest *m, FILE *out, struct hf_error *err);
/* The same, a file for each template in `dir`, with a kustomization.yaml that names them. */
int hf_manifest_split(const struct hf_manifest *m, const char *dir, struct hf_error *err);
/* The Secrets that the objects refer to, with a new authority, a new certificate and new passwords. */
int hf_manifest_secrets(const struct hf_manifest *m, FILE *out, struct hf_error *err);
/* Every name that a certificate for all pods must carry; `visit` returns 0 to go on. */
int hf_manifest_dns_names(const struct hf_manifest *m, int (*visit)(void *arg, const char *name), void *arg);
/* Bytes of a Kubernetes quantity (10Gi, 500M, 1e9 is not known); 0: not one. */
unsigned long long hf_quantity_bytes(const char *text);

#endif
