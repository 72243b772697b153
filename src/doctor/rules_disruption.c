/* Drains, updates, stops. */
#include "doctor/private.h"

#include <stdlib.h>
#include <string.h>

static const struct hf_yaml none = {NULL, NULL, NULL};

enum { GRACE_LEAST_S = 60, REPLICAS_MAX = 1000000 };

/* Pods that a budget's number or percentage means; minAvailable and maxUnavailable both round up. -1: neither. */
static long pods_of(struct hf_yaml v, long replicas)
{
    const char *s = hf_yaml_text(v);
    char *end;
    long n;

    if (s == NULL || s[0] == '\0')
        return -1;
    n = strtol(s, &end, 10);
    if (n < 0 || n > REPLICAS_MAX)
        return -1;
    if (strcmp(end, "%") == 0)
        return (n * replicas + 99) / 100;
    return *end == '\0' ? n : -1;
}

/* Of another workload, too: then what `minAvailable` is right for one is wrong for the other, and one fix would undo the other for ever. */
static bool is_shared(const struct hf_ctx *c, const struct hf_workload *w, const struct hf_kube_object *pdb)
{
    for (size_t i = 0; i < c->n_workloads; i++)
        if (&c->workloads[i] != w && hf_kube_same_namespace(pdb->namespace, c->workloads[i].o->namespace) &&
            hf_selector_matches(hf_yaml_path(pdb->root, "spec.selector"), c->workloads[i].labels))
            return true;
    return false;
}

static void check_budget(struct hf_ctx *c, const struct hf_workload *w, const struct hf_kube_object *pdb)
{
    struct hf_yaml spec = hf_yaml_get(pdb->root, "spec");
    struct hf_yaml least = hf_yaml_get(spec, "minAvailable"), most = hf_yaml_get(spec, "maxUnavailable");
    struct hf_yaml v = hf_yaml_there(most) ? most : least;
    const char *key = hf_yaml_there(most) ? "maxUnavailable" : "minAvailable";
    long n = pods_of(v, w->replicas);
    long gone = n < 0 ? -1 : hf_yaml_there(most) ? n : w->replicas - n;
    long spare = (w->replicas - 1) / 2;
    bool clustered = w->product == NULL ? w->kind == HF_WORKLOAD_STATEFULSET : w->product->clustered;
    struct hf_finding *f;

    if (n < 0)
        return;
    if (gone <= 0)
        f = hf_report(c, "HF052", pdb, hf_place(spec, key), "%s: %s of %ld leaves no pod that a drain may move", key,
                      hf_yaml_text(v), w->replicas);
    else if (w->replicas >= 3 && gone > spare && clustered)
        f = hf_report(c, "HF051", pdb, hf_place(spec, key), "%s: %s lets %ld of %ld go; a majority spares %ld", key,
                      hf_yaml_text(v), gone, w->replicas, spare);
    else
        return;
    if (hf_yaml_there(most))
        hf_fix_set(c, f, v, key, "1");
    else if (w->replicas > 1 && !is_shared(c, w, pdb))
        hf_fix_set(c, f, v, key, "%ld", w->replicas - 1);
    else
        hf_advise(c, f, "maxUnavailable: 1\n");
}

static void append_budget(struct hf_ctx *c, const struct hf_workload *w, struct hf_finding *f)
{
    char *labels = hf_labels_text(hf_workload_selector(w), 6);
    bool space = w->o->namespace[0] != '\0';

    if (labels == NULL || labels[0] == '\0' || !hf_is_name(w->o->name) ||
        (space && !hf_is_name(w->o->namespace)))
        hf_advise(c, f, "# a PodDisruptionBudget with maxUnavailable: 1 that selects these pods\n");
    else
        hf_fix_append(c, f,
                      "apiVersion: policy/v1\nkind: PodDisruptionBudget\nmetadata:\n  name: %s\n%s%s%sspec:\n"
                      "  maxUnavailable: 1\n  selector:\n    matchLabels:\n%s",
                      w->o->name, space ? "  namespace: " : "", w->o->namespace, space ? "\n" : "", labels);
    free(labels);
}

static void check_budgets(struct hf_ctx *c, const struct hf_workload *w)
{
    const struct hf_kube_object *first = NULL;

    if (!hf_yaml_is_map(w->pod) || w->kind == HF_WORKLOAD_POD || w->kind == HF_WORKLOAD_DAEMONSET)
        return;
    for (size_t i = 0; i < c->s->n_objects; i++) {
        const struct hf_kube_object *o = &c->s->objects[i];
        if (strcmp(o->kind, "PodDisruptionBudget") != 0 || !hf_kube_same_namespace(o->namespace, w->o->namespace) ||
            !hf_selector_matches(hf_yaml_path(o->root, "spec.selector"), w->labels))
            continue;
        if (first != NULL)
            hf_report(c, "HF053", o, none, "%s and %s both select the pods of %s", first->name, o->name, w->o->name);
        else
            check_budget(c, w, o);
        first = first != NULL ? first : o;
    }
    if (first == NULL && w->replicas > 1)
        append_budget(c, w, hf_report(c, "HF050", w->o, none, "no PodDisruptionBudget selects these %ld pods",
                                      w->replicas));
}

static void check_grace(struct hf_ctx *c, const struct hf_workload *w)
{
    struct hf_yaml v = hf_yaml_get(w->pod, "terminationGracePeriodSeconds");
    long seconds = hf_yaml_long(v, 30);
    struct hf_finding *f;

    if (seconds >= GRACE_LEAST_S || !hf_yaml_is_map(w->pod) || (w->product == NULL && hf_yaml_there(v) && seconds > 0))
        return;
    f = hf_report(c, "HF055", w->o, hf_place(w->pod, hf_yaml_there(v) ? "terminationGracePeriodSeconds" : "containers"),
                  "%ld s from SIGTERM to SIGKILL%s", seconds, hf_yaml_there(v) ? "" : ", because nothing is said");
    hf_soften(f, seconds == 0 ? HF_ERROR : HF_WARNING);
    if (hf_yaml_there(v))
        hf_fix_set(c, f, v, "terminationGracePeriodSeconds", "120");
    else
        hf_fix_add(c, f, w->pod, w->pod_path, "", "{'terminationGracePeriodSeconds': 120}");
}

static void check_update(struct hf_ctx *c, const struct hf_workload *w)
{
    struct hf_yaml type = hf_yaml_path(w->spec, "updateStrategy.type");
    struct hf_yaml most = hf_yaml_path(w->spec, "updateStrategy.rollingUpdate.maxUnavailable");
    long n = pods_of(most, w->replicas);

    if (w->kind != HF_WORKLOAD_STATEFULSET)
        return;
    if (hf_yaml_equals(type, "OnDelete"))
        hf_fix_set(c, hf_report(c, "HF054", w->o, type, "updateStrategy.type: OnDelete"), type, "type",
                   "RollingUpdate");
    if (n > 1 && w->replicas >= 2 && n > (w->replicas - 1) / 2)
        hf_fix_set(c, hf_report(c, "HF057", w->o, most, "an update takes %ld of %ld pods at a time", n, w->replicas),
                   most, "maxUnavailable", "1");
}

static void check_autoscaler(struct hf_ctx *c, const struct hf_workload *w)
{
    if (w->kind != HF_WORKLOAD_STATEFULSET)
        return;
    for (size_t i = 0; i < c->s->n_objects; i++) {
        const struct hf_kube_object *o = &c->s->objects[i];
        struct hf_yaml target = hf_yaml_path(o->root, "spec.scaleTargetRef");
        if (strcmp(o->kind, "HorizontalPodAutoscaler") == 0 &&
            hf_kube_same_namespace(o->namespace, w->o->namespace) &&
            hf_yaml_equals(hf_yaml_get(target, "kind"), "StatefulSet") &&
            hf_yaml_equals(hf_yaml_get(target, "name"), w->o->name))
            hf_report(c, "HF056", o, hf_place(hf_yaml_get(o->root, "spec"), "scaleTargetRef"),
                      "%s scales StatefulSet %s", o->name, w->o->name);
    }
}

void hf_rules_disruption(struct hf_ctx *c, const struct hf_workload *w)
{
    check_budgets(c, w);
    check_grace(c, w);
    check_update(c, w);
    check_autoscaler(c, w);
}
