/* Where the pods go: machines and zones. */
#include "doctor/private.h"

#include <stdlib.h>
#include <string.h>

static const struct hf_yaml none = {NULL, NULL, NULL};

/* The pod's labels that its controller selects by, as JSON pairs with single quotes; from malloc. */
static char *selector_pairs(const struct hf_workload *w)
{
    struct hf_yaml match = hf_workload_selector(w);
    json_t *o = json_object();
    char *text, *p;

    for (size_t i = 0; o != NULL && i < hf_yaml_count(match); i++) {
        const char *key = hf_yaml_text(hf_yaml_key_at(match, i)), *value = hf_yaml_text(hf_yaml_value_at(match, i));
        if (key != NULL && value != NULL)
            (void)json_object_set_new(o, key, json_string(value));
    }
    text = o != NULL && json_object_size(o) > 0 ? json_dumps(o, 0) : NULL;
    json_decref(o);
    for (p = text; p != NULL && *p != '\0'; p++)
        if (*p == '%' || *p == '\'') { /* no label has these */
            free(text);
            return NULL;
        }
    return text;
}

static void check_machines(struct hf_ctx *c, const struct hf_workload *w, const char *pairs)
{
    struct hf_yaml term = none;
    int spread = hf_workload_spread(w, "kubernetes.io/hostname", &term);
    struct hf_yaml affinity = hf_yaml_path(w->pod, "affinity.podAntiAffinity");
    struct hf_finding *f;

    if (spread == 0) {
        f = hf_report(c, "HF020", w->o, hf_place(w->pod, "affinity"), "%ld replicas may all run on one machine", w->replicas);
        if (pairs != NULL && !hf_yaml_there(hf_yaml_get(affinity, "requiredDuringSchedulingIgnoredDuringExecution")))
            hf_fix_add(c, f, w->pod, w->pod_path, "affinity.podAntiAffinity",
                       "{'requiredDuringSchedulingIgnoredDuringExecution': [{'topologyKey': 'kubernetes.io/hostname',"
                       " 'labelSelector': {'matchLabels': %s}}]}",
                       pairs);
        return;
    }
    if (!hf_selector_matches(hf_yaml_get(term, "labelSelector"), w->labels)) {
        f = hf_report(c, "HF023", w->o, hf_place(term, "labelSelector"),
                      "the labelSelector does not match the labels of the pod it stands in");
        if (pairs != NULL && !hf_yaml_there(hf_yaml_get(term, "labelSelector")))
            hf_fix_add(c, f, term, "labelSelector", "", "{'labelSelector': {'matchLabels': %s}}", pairs);
        else if (pairs != NULL)
            hf_advise(c, f, "labelSelector:\n  matchLabels: %s\n", pairs);
    }
    if (spread == 1) {
        f = hf_report(c, "HF021", w->o, hf_place(term, "topologyKey"), "the rule is a wish, not a condition");
        if (hf_yaml_equals(hf_yaml_get(term, "whenUnsatisfiable"), "ScheduleAnyway"))
            hf_fix_set(c, f, hf_yaml_get(term, "whenUnsatisfiable"), "whenUnsatisfiable", "DoNotSchedule");
        else if (pairs != NULL)
            hf_fix_add(c, f, w->pod, w->pod_path, "affinity.podAntiAffinity",
                       "{'requiredDuringSchedulingIgnoredDuringExecution': [{'topologyKey': 'kubernetes.io/hostname',"
                       " 'labelSelector': {'matchLabels': %s}}]}",
                       pairs);
    }
}

static void check_zones(struct hf_ctx *c, const struct hf_workload *w, const char *pairs)
{
    struct hf_yaml term = none;
    struct hf_finding *f;

    if (w->replicas < 3 || hf_workload_spread(w, "topology.kubernetes.io/zone", &term) != 0 ||
        hf_workload_spread(w, "failure-domain.beta.kubernetes.io/zone", &term) != 0)
        return;
    f = hf_report(c, "HF022", w->o, hf_place(w->pod, "topologySpreadConstraints"),
                  "%ld replicas may all run in one zone", w->replicas);
    if (pairs != NULL && !hf_yaml_there(hf_yaml_get(w->pod, "topologySpreadConstraints")))
        hf_fix_add(c, f, w->pod, w->pod_path, "",
                   "{'topologySpreadConstraints': [{'topologyKey': 'topology.kubernetes.io/zone', 'maxSkew': 1,"
                   " 'whenUnsatisfiable': 'ScheduleAnyway', 'labelSelector': {'matchLabels': %s}}]}",
                   pairs);
}

void hf_rules_placement(struct hf_ctx *c, const struct hf_workload *w)
{
    char *pairs;

    if (w->replicas < 2 || !hf_yaml_is_map(w->pod) || w->kind == HF_WORKLOAD_DAEMONSET ||
        w->kind == HF_WORKLOAD_POD)
        return;
    pairs = selector_pairs(w);
    check_machines(c, w, pairs);
    check_zones(c, w, pairs);
    free(pairs);
}
