/* What the rules share. A rule is a function that looks at one workload or object and reports. */
#ifndef HF_DOCTOR_PRIVATE_H
#define HF_DOCTOR_PRIVATE_H

#include "doctor/doctor.h"

/* A database that is known by its image. */
struct hf_product {
    const char *image;  /* a word of the image's name */
    const char *name;
    bool votes;         /* its replicas decide by majority */
    bool clustered;     /* more than one replica is the point of it */
    const char *env;    /* variables with this beginning are its settings; NULL: none */
    const char *data;   /* where it keeps its data; NULL: unknown */
};

enum hf_workload_kind {
    HF_WORKLOAD_STATEFULSET,
    HF_WORKLOAD_DEPLOYMENT, /* and ReplicaSet: no stable names, no own volumes */
    HF_WORKLOAD_DAEMONSET,
    HF_WORKLOAD_POD,
    HF_WORKLOAD_CUSTOM, /* a custom resource with a pod template or volume claim templates */
};

struct hf_workload {
    enum hf_workload_kind kind;
    const struct hf_kube_object *o;
    struct hf_yaml spec;       /* the object's; nothing for a Pod */
    struct hf_yaml pod;        /* the pod's spec; nothing for some custom resources */
    const char *pod_path;      /* of `pod`, from the root */
    struct hf_yaml labels;     /* the pod's */
    struct hf_yaml claims;     /* volumeClaimTemplates */
    struct hf_yaml container;  /* the one that is the database: the known one, else the first */
    const struct hf_product *product; /* NULL: none that is known */
    long replicas;
};

struct hf_ctx {
    struct hf_diagnosis *d;
    const struct hf_kube_set *s;
    const struct hf_doctor_options *o;
    struct hf_workload *workloads;
    size_t n_workloads;
    bool failed; /* out of memory */
};

/* -- the model (workload.c) -- */
int hf_workloads_find(struct hf_ctx *c);
/* Containers, the second time around: init containers. */
struct hf_yaml hf_workload_container(const struct hf_workload *w, size_t i, bool init);
/* A container's place as the path of its list and its name, for advice. */
const char *hf_container_name(struct hf_yaml container);
/* Do these labels (a map) have all pairs of this map? An empty selector selects nothing here. */
bool hf_labels_match(struct hf_yaml match, struct hf_yaml labels);
/* The labels to select these pods by: those of the workload's own selector, if they are the pods'. */
struct hf_yaml hf_workload_selector(const struct hf_workload *w);
/* A name or label as Kubernetes allows it, safe to be written into YAML. */
bool hf_is_name(const char *s);
/* The same for a LabelSelector with matchLabels and matchExpressions. */
bool hf_selector_matches(struct hf_yaml selector, struct hf_yaml labels);
/* The volume of this name in the pod; nothing: none. */
struct hf_yaml hf_workload_volume(const struct hf_workload *w, const char *name);
bool hf_workload_has_claim(const struct hf_workload *w);
/* Does this path look like a place for data? */
bool hf_is_data_path(const struct hf_workload *w, const char *path, const char *volume);
/* The StorageClass named by a claim, if it is in the set. */
const struct hf_kube_object *hf_storage_class(const struct hf_ctx *c, const char *name);
/* All claims of a workload, templates and claims by name: calls with each claim's spec. */
typedef void hf_claim_visit(struct hf_ctx *c, const struct hf_workload *w, struct hf_yaml claim_spec);
void hf_claims(struct hf_ctx *c, const struct hf_workload *w, hf_claim_visit *visit);
const struct hf_kube_object *hf_governing_service(const struct hf_ctx *c, const struct hf_workload *w);
/* The words of a probe: its command, path and port in one line. */
void hf_probe_words(struct hf_yaml probe, char *out, size_t cap);
/* Does this probe ask whether there is a quorum? */
bool hf_probe_needs_quorum(const struct hf_workload *w, struct hf_yaml probe);
/* Are its pods kept on different machines: 0 no, 1 if possible, 2 always. `key`: what is the same within one
 * place (kubernetes.io/hostname). `term`: the one that says so. */
int hf_workload_spread(const struct hf_workload *w, const char *key, struct hf_yaml *term);
bool hf_has_word(const char *text, const char *word); /* case-insensitive part of a text */

/* -- reporting (report.c) -- */

/* Returns the finding to attach a fix to, or NULL (ignored, or no memory; every function takes that).
 * `at`: the place; nothing: the object itself. */
struct hf_finding *hf_report(struct hf_ctx *c, const char *rule, const struct hf_kube_object *o, struct hf_yaml at,
                             const char *fmt, ...) __attribute__((format(printf, 5, 6)));
/* Reports at `map`'s key, or at the map if it has none. */
struct hf_yaml hf_place(struct hf_yaml map, const char *key);
void hf_soften(struct hf_finding *f, enum hf_severity s);
/* Pairs for the map at `path` below `from` (levels that do not exist are made). `pairs` is JSON with single
 * quotes, `below` says how `from` is reached from the object's root, for the advice. Takes NULL. */
void hf_fix_add(struct hf_ctx *c, struct hf_finding *f, struct hf_yaml from, const char *below, const char *path,
                const char *fmt, ...) __attribute__((format(printf, 6, 7)));
/* The same for a container: `key` is a path in it. */
void hf_fix_container(struct hf_ctx *c, struct hf_finding *f, const struct hf_workload *w, struct hf_yaml container,
                      const char *path, const char *fmt, ...) __attribute__((format(printf, 6, 7)));
void hf_fix_set(struct hf_ctx *c, struct hf_finding *f, struct hf_yaml scalar, const char *advice_key,
                const char *fmt, ...) __attribute__((format(printf, 5, 6)));
/* `fmt`: YAML. */
void hf_fix_append(struct hf_ctx *c, struct hf_finding *f, const char *fmt, ...)
    __attribute__((format(printf, 3, 4)));
/* YAML that a person must complete. */
void hf_advise(struct hf_ctx *c, struct hf_finding *f, const char *fmt, ...) __attribute__((format(printf, 3, 4)));
/* "a: b" for each label of a map, one line each behind `indent` blanks; from malloc. */
char *hf_labels_text(struct hf_yaml labels, unsigned indent);

/* -- the rules -- */
void hf_rules_files(struct hf_ctx *c);
void hf_rules_storage(struct hf_ctx *c, const struct hf_workload *w);
void hf_rules_class(struct hf_ctx *c, const struct hf_workload *w);
void hf_rules_placement(struct hf_ctx *c, const struct hf_workload *w);
void hf_rules_probes(struct hf_ctx *c, const struct hf_workload *w);
void hf_rules_service(struct hf_ctx *c, const struct hf_workload *w);
void hf_rules_disruption(struct hf_ctx *c, const struct hf_workload *w);
void hf_rules_resources(struct hf_ctx *c, const struct hf_workload *w);
void hf_rules_security(struct hf_ctx *c, const struct hf_workload *w);
void hf_rules_certificates(struct hf_ctx *c, const struct hf_workload *w);
void hf_rules_shape(struct hf_ctx *c, const struct hf_workload *w);

#endif
