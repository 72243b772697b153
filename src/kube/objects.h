/* Kubernetes objects out of files, directories, a stream, or the API. */
#ifndef HF_KUBE_OBJECTS_H
#define HF_KUBE_OBJECTS_H

#include "kube/tree.h"

enum { HF_KUBE_FILES_MAX = 20000, HF_KUBE_OBJECTS_MAX = 200000 };

struct hf_kube_object {
    struct hf_yaml root;
    const char *api, *kind, *name; /* "" if it is not there */
    const char *namespace;         /* "" means that of whoever applies it */
};

struct hf_kube_set {
    struct hf_yaml_file **files;
    size_t n_files;
    struct hf_kube_object *objects;
    size_t n_objects;
    char **skipped; /* patches and settings of Kustomize, which are no objects; paths, owned */
    size_t n_skipped;
};

/* A file, a directory (every .yaml, .yml and .json below it) or "-". */
int hf_kube_set_load(struct hf_kube_set *s, const char *path, struct hf_error *err);
/* Takes `text`. */
int hf_kube_set_add(struct hf_kube_set *s, const char *path, char *text, size_t len, struct hf_error *err);
void hf_kube_set_free(struct hf_kube_set *s);

/* The first object of that kind and name in that namespace; NULL: none. */
const struct hf_kube_object *hf_kube_find(const struct hf_kube_set *s, const char *kind, const char *namespace,
                                          const char *name);
/* In the same namespace, where "" fits all? */
bool hf_kube_same_namespace(const char *a, const char *b);

#endif
