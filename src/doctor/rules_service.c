/* Names: the governing Service, and what other Services do to the pod. */
#include "doctor/private.h"

#include <ctype.h>
#include <stdlib.h>
#include <string.h>

/* A headless Service for this workload, as YAML. */
static void append_service(struct hf_ctx *c, const struct hf_workload *w, struct hf_finding *f, const char *name)
{
    struct hf_yaml ports = hf_yaml_get(w->container, "ports");
    char *labels = hf_labels_text(hf_workload_selector(w), 4);
    long port = hf_yaml_long(hf_yaml_get(hf_yaml_item(ports, 0), "containerPort"), 0);

    if (labels == NULL || labels[0] == '\0' || port <= 0 || port > 65535 || !hf_is_name(name) ||
        (w->o->namespace[0] != '\0' && !hf_is_name(w->o->namespace))) {
        hf_advise(c, f, "# a Service with clusterIP: None that selects these pods\n");
    } else {
        hf_fix_append(c, f,
                      "apiVersion: v1\nkind: Service\nmetadata:\n  name: %s\n%s%s%sspec:\n  clusterIP: None\n"
                      "  publishNotReadyAddresses: true\n  selector:\n%s  ports:\n    - name: main\n      port: %ld\n",
                      name, w->o->namespace[0] != '\0' ? "  namespace: " : "", w->o->namespace,
                      w->o->namespace[0] != '\0' ? "\n" : "", labels, port);
    }
    free(labels);
}

static void check_governing(struct hf_ctx *c, const struct hf_workload *w, const struct hf_kube_object *s)
{
    struct hf_yaml spec = hf_yaml_get(s->root, "spec"), ip = hf_yaml_get(spec, "clusterIP"), v;
    struct hf_finding *f;

    if (!hf_yaml_equals(ip, "None")) {
        f = hf_report(c, "HF042", s, hf_place(spec, "clusterIP"), "Service %s governs %s, and clusterIP is not None",
                      s->name, w->o->name);
        if (hf_yaml_there(ip) && !hf_yaml_is_null(ip))
            hf_fix_set(c, f, ip, "clusterIP", "None");
        else
            hf_fix_add(c, f, s->root, "", "spec", "{'clusterIP': 'None'}");
    }
    v = hf_yaml_get(spec, "publishNotReadyAddresses");
    if (!hf_yaml_bool(v, false) && w->replicas > 1) {
        f = hf_report(c, "HF043", s, hf_place(spec, "publishNotReadyAddresses"),
                      "Service %s shows ready pods only, and %s needs it to become ready", s->name, w->o->name);
        if (hf_yaml_there(v))
            hf_fix_set(c, f, v, "publishNotReadyAddresses", "true");
        else
            hf_fix_add(c, f, s->root, "", "spec", "{'publishNotReadyAddresses': true}");
    }
    if (!hf_labels_match(hf_yaml_get(spec, "selector"), w->labels)) {
        f = hf_report(c, "HF044", s, hf_place(spec, "selector"), "the selector of Service %s does not match the pods of %s",
                      s->name, w->o->name);
        char *labels = hf_labels_text(w->labels, 2);
        if (labels != NULL)
            hf_advise(c, f, "selector:\n%s", labels);
        free(labels);
    }
}

/* Kubernetes turns the Service `redis-x` into REDIS_X_SERVICE_HOST, REDIS_X_PORT and more. */
static void check_variables(struct hf_ctx *c, const struct hf_workload *w)
{
    const char *prefix = w->product != NULL ? w->product->env : NULL;

    if (prefix == NULL || !hf_yaml_bool(hf_yaml_get(w->pod, "enableServiceLinks"), true))
        return;
    for (size_t i = 0; i < c->s->n_objects; i++) {
        const struct hf_kube_object *s = &c->s->objects[i];
        char name[80];
        size_t n = 0;
        if (strcmp(s->kind, "Service") != 0 || !hf_kube_same_namespace(s->namespace, w->o->namespace) ||
            hf_yaml_equals(hf_yaml_path(s->root, "spec.clusterIP"), "None"))
            continue; /* headless Services make no variables */
        for (; s->name[n] != '\0' && n < sizeof name - 2; n++)
            name[n] = s->name[n] == '-' ? '_' : (char)toupper((unsigned char)s->name[n]);
        name[n] = '_';
        name[n + 1] = '\0';
        if (strncmp(name, prefix, strlen(prefix)) != 0)
            continue;
        hf_fix_add(c,
                   hf_report(c, "HF045", w->o, hf_place(w->pod, "containers"),
                             "Service %s makes variables that begin with %s, as those of %s do", s->name, prefix,
                             w->product->name),
                   w->pod, w->pod_path, "", "{'enableServiceLinks': false}");
        return;
    }
}

void hf_rules_service(struct hf_ctx *c, const struct hf_workload *w)
{
    const char *name = hf_yaml_text(hf_yaml_get(w->spec, "serviceName"));
    const struct hf_kube_object *s;

    check_variables(c, w);
    if (w->kind != HF_WORKLOAD_STATEFULSET)
        return;
    if (name == NULL || name[0] == '\0') {
        hf_advise(c, hf_report(c, "HF040", w->o, hf_place(w->o->root, "spec"), "no serviceName"),
                  "spec:\n  serviceName: <a headless Service>\n");
        return;
    }
    s = hf_governing_service(c, w);
    if (s != NULL)
        check_governing(c, w, s);
    else
        append_service(c, w, hf_report(c, "HF041", w->o, hf_place(w->spec, "serviceName"),
                                       "there is no Service %s here", name), name);
}
