/* What is wrong with a stateful workload on Kubernetes, before it hurts. */
#ifndef HF_DOCTOR_DOCTOR_H
#define HF_DOCTOR_DOCTOR_H

#include <stdbool.h>
#include <stdio.h>

#include "base/error.h"
#include "kube/edit.h"
#include "kube/objects.h"

enum { HF_FINDINGS_MAX = 100000 };

enum hf_severity { HF_NOTE, HF_WARNING, HF_ERROR };

struct hf_rule {
    const char *id, *name; /* HF001, no-volume-claim: docs/doctor.md has a section for each */
    enum hf_severity severity;
    const char *title; /* what is wrong, in a line */
    const char *why;   /* what went wrong for somebody */
};

/* Ends with a NULL id. */
extern const struct hf_rule hf_rules[];
const struct hf_rule *hf_rule_find(const char *id);

enum hf_fix_kind {
    HF_FIX_NONE,   /* a person must decide */
    HF_FIX_ADD,    /* `value` into the map `at` */
    HF_FIX_SET,    /* `text` in the place of the scalar `at` */
    HF_FIX_APPEND, /* `text` as a document of its own behind the file of `at` */
};

struct hf_finding {
    const struct hf_rule *rule;
    enum hf_severity severity; /* the rule's, or less */
    const struct hf_kube_object *object; /* NULL: of a whole file */
    const struct hf_yaml_file *file;
    size_t line, column; /* from 1 */
    char *detail;        /* what was found here; owned */
    char *advice;        /* the YAML to add; owned; NULL: none */
    enum hf_fix_kind kind;
    struct hf_yaml at;
    json_t *value; /* owned */
    char *text;    /* owned */
};

struct hf_diagnosis {
    struct hf_finding *findings; /* by file, line, rule */
    size_t n;
    bool complete; /* the whole application is there: what is missing here is missing */
};

/* What to look at and what to keep quiet about. */
struct hf_doctor_options {
    const char *const *ignore; /* rules' ids */
    unsigned n_ignore;
};

/* Looks at all objects of a set; the diagnosis points into it. */
int hf_doctor_run(struct hf_diagnosis *d, const struct hf_kube_set *s, const struct hf_doctor_options *o,
                  struct hf_error *err);
void hf_doctor_free(struct hf_diagnosis *d);

/* One round of fixes in one file: those that can be made without getting into each other's way. *text is the
 * new text (from malloc), or NULL if there is nothing to fix; call again with what it makes until then. */
int hf_doctor_fix(const struct hf_diagnosis *d, const struct hf_yaml_file *f, char **text, size_t *len,
                  struct hf_error *err);

const char *hf_severity_name(enum hf_severity s);
void hf_doctor_print(const struct hf_diagnosis *d, FILE *out, bool color);
json_t *hf_doctor_json(const struct hf_diagnosis *d);
json_t *hf_doctor_sarif(const struct hf_diagnosis *d);

#endif
