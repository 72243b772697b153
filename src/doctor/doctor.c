#include "doctor/private.h"

#include <stdint.h>
#include <stdlib.h>
#include <string.h>

typedef void rule_group(struct hf_ctx *c, const struct hf_workload *w);

static rule_group *const groups[] = {
    hf_rules_shape,      hf_rules_storage,   hf_rules_class,    hf_rules_placement,    hf_rules_probes,
    hf_rules_service,    hf_rules_disruption, hf_rules_resources, hf_rules_security,   hf_rules_certificates,
};

static size_t file_index(const struct hf_kube_set *s, const struct hf_yaml_file *f)
{
    for (size_t i = 0; i < s->n_files; i++)
        if (s->files[i] == f)
            return i;
    return s->n_files;
}

static int compare(const void *a, const void *b, void *arg)
{
    const struct hf_finding *x = a, *y = b;

    if (x->file != y->file)
        return file_index(arg, x->file) < file_index(arg, y->file) ? -1 : 1;
    if (x->line != y->line)
        return x->line < y->line ? -1 : 1;
    return strcmp(x->rule->id, y->rule->id);
}

int hf_doctor_run(struct hf_diagnosis *d, const struct hf_kube_set *s, const struct hf_doctor_options *o,
                  struct hf_error *err)
{
    struct hf_ctx c = {.d = d, .s = s, .o = o};

    *d = (struct hf_diagnosis){0};
    if (hf_workloads_find(&c) != 0)
        return hf_fail(err, HF_ENOMEM, "out of memory");
    hf_rules_files(&c);
    for (size_t i = 0; i < c.n_workloads; i++)
        for (unsigned k = 0; k < sizeof groups / sizeof *groups; k++)
            groups[k](&c, &c.workloads[i]);
    free(c.workloads);
    if (c.failed) {
        hf_doctor_free(d);
        return hf_fail(err, HF_ENOMEM, "out of memory");
    }
    if (d->n > 1)
        qsort_r(d->findings, d->n, sizeof *d->findings, compare, (void *)(uintptr_t)s);
    return 0;
}

void hf_doctor_free(struct hf_diagnosis *d)
{
    for (size_t i = 0; i < d->n; i++) {
        free(d->findings[i].detail);
        free(d->findings[i].advice);
        free(d->findings[i].text);
        json_decref(d->findings[i].value);
    }
    free(d->findings);
    *d = (struct hf_diagnosis){0};
}

const struct hf_rule *hf_rule_find(const char *id)
{
    for (const struct hf_rule *r = hf_rules; r->id != NULL; r++)
        if (strcmp(r->id, id) == 0)
            return r;
    return NULL;
}

const char *hf_severity_name(enum hf_severity s)
{
    return s == HF_ERROR ? "error" : s == HF_WARNING ? "warning" : "note";
}

/* -- fixing ------------------------------------------------------------------------------------------ */

enum { EDITS_MAX = 64 };

static int compare_edits(const void *a, const void *b)
{
    const struct hf_edit *x = a, *y = b;

    return x->offset < y->offset ? -1 : x->offset > y->offset;
}

static int make_edit(struct hf_edit *e, const struct hf_finding *f)
{
    struct hf_error why;

    switch (f->kind) {
    case HF_FIX_ADD:
        return hf_edit_add(e, f->at, f->value, &why);
    case HF_FIX_SET:
        return hf_edit_set(e, f->at, f->text, &why);
    case HF_FIX_APPEND:
        return hf_edit_append(e, f->at.file, f->text, &why);
    case HF_FIX_NONE:
        break;
    }
    return HF_EINVAL;
}

/* Two edits at one place, or one within another, wait for the next round, when the first is done. */
static bool in_the_way(const struct hf_edit *edits, size_t n, const struct hf_edit *e)
{
    for (size_t i = 0; i < n; i++)
        if (e->offset <= edits[i].offset + edits[i].remove && edits[i].offset <= e->offset + e->remove)
            return true;
    return false;
}

int hf_doctor_fix(const struct hf_diagnosis *d, const struct hf_yaml_file *f, char **text, size_t *len,
                  struct hf_error *err)
{
    struct hf_edit edits[EDITS_MAX];
    size_t n = 0;

    *text = NULL;
    for (size_t i = 0; i < d->n && n < EDITS_MAX; i++) {
        if (d->findings[i].at.file != f || d->findings[i].kind == HF_FIX_NONE ||
            make_edit(&edits[n], &d->findings[i]) != 0)
            continue;
        if (in_the_way(edits, n, &edits[n]))
            hf_edit_free(&edits[n]);
        else
            n++;
    }
    if (n == 0)
        return 0;
    qsort(edits, n, sizeof *edits, compare_edits);
    *text = hf_edit_apply(f, edits, n, len);
    for (size_t i = 0; i < n; i++)
        hf_edit_free(&edits[i]);
    return *text != NULL ? 0 : hf_fail(err, HF_ENOMEM, "%s: out of memory", f->path);
}
