/* Requests, limits, images. */
#include "doctor/private.h"

#include <stdio.h>
#include <string.h>

#include "kube/manifest.h"

static void check_requests(struct hf_ctx *c, const struct hf_workload *w, struct hf_yaml container)
{
    struct hf_yaml resources = hf_yaml_get(container, "resources");
    struct hf_yaml requests = hf_yaml_get(resources, "requests"), limits = hf_yaml_get(resources, "limits");
    const char *memory = hf_yaml_text(hf_yaml_get(requests, "memory"));
    const char *most = hf_yaml_text(hf_yaml_get(limits, "memory"));
    const char *cpu = hf_yaml_text(hf_yaml_get(requests, "cpu"));
    const char *name = hf_container_name(container);
    struct hf_finding *f;

    /* A limit without a request is a request too. */
    if ((memory == NULL && most == NULL) || (cpu == NULL && hf_yaml_text(hf_yaml_get(limits, "cpu")) == NULL)) {
        bool both = memory == NULL && most == NULL && cpu == NULL;
        f = hf_report(c, "HF060", w->o, hf_place(container, "resources"), "container %s requests no %s", name,
                      both ? "processor and no memory" : cpu == NULL ? "processor" : "memory");
        hf_advise(c, f, "resources:\n  requests:\n    cpu: <what it needs>\n    memory: <what it needs>\n"
                        "  limits:\n    memory: <the same>\n");
    }
    if (most == NULL) {
        f = hf_report(c, "HF061", w->o,
                      hf_yaml_there(resources) ? hf_place(resources, "limits") : hf_place(container, "name"),
                      "container %s has no memory limit", name);
        if (memory != NULL && hf_quantity_bytes(memory) > 0)
            hf_fix_container(c, f, w, container, "resources.limits", "{'memory': '%s'}", memory);
        else
            hf_advise(c, f, "resources:\n  limits:\n    memory: <what it needs>\n");
    } else if (memory != NULL && hf_quantity_bytes(memory) < hf_quantity_bytes(most)) {
        f = hf_report(c, "HF062", w->o, hf_yaml_get(limits, "memory"), "container %s: %s requested, %s allowed", name,
                      memory, most);
        hf_fix_set(c, f, hf_yaml_get(requests, "memory"), "requests.memory", "%s", most);
    }
}

static void check_image(struct hf_ctx *c, const struct hf_workload *w, struct hf_yaml container)
{
    struct hf_yaml image = hf_yaml_get(container, "image");
    const char *text = hf_yaml_text(image), *base, *colon;

    if (text == NULL || text[0] == '\0' || strchr(text, '@') != NULL || strchr(text, '$') != NULL)
        return;
    base = strrchr(text, '/');
    colon = strchr(base != NULL ? base : text, ':');
    if (colon != NULL && strcmp(colon, ":latest") != 0)
        return;
    hf_advise(c, hf_report(c, "HF070", w->o, image, "image %s names no version", text), "image: %.*s:<version>\n",
              colon != NULL ? (int)(colon - text) : (int)strlen(text), text);
}

/* PostgreSQL's dynamic shared memory lies in /dev/shm, and a container has 64 MiB of it. */
static void check_shared_memory(struct hf_ctx *c, const struct hf_workload *w)
{
    struct hf_yaml mounts = hf_yaml_get(w->container, "volumeMounts");

    if (w->product == NULL || (strcmp(w->product->name, "PostgreSQL") != 0 && strcmp(w->product->name, "Patroni") != 0))
        return;
    for (size_t i = 0; i < hf_yaml_count(mounts); i++)
        if (hf_yaml_equals(hf_yaml_get(hf_yaml_item(mounts, i), "mountPath"), "/dev/shm"))
            return;
    hf_advise(c, hf_report(c, "HF104", w->o, hf_place(w->container, "volumeMounts"), "nothing is mounted at /dev/shm"),
              "containers:\n  - name: %s\n    volumeMounts:\n      - name: shared-memory\n        mountPath: /dev/shm\n"
              "volumes:\n  - name: shared-memory\n    emptyDir:\n      medium: Memory\n      sizeLimit: 512Mi\n",
              hf_container_name(w->container));
}

void hf_rules_resources(struct hf_ctx *c, const struct hf_workload *w)
{
    size_t n = hf_yaml_count(hf_yaml_get(w->pod, "containers"));

    for (size_t i = 0; i < n; i++) {
        check_requests(c, w, hf_workload_container(w, i, false));
        check_image(c, w, hf_workload_container(w, i, false));
    }
    for (size_t i = 0; i < hf_yaml_count(hf_yaml_get(w->pod, "initContainers")); i++)
        check_image(c, w, hf_workload_container(w, i, true));
    if (n > 0)
        check_shared_memory(c, w);
}
