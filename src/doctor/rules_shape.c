/* What kind of object holds the database, and how many of it; and what is wrong with files as such. */
#include "doctor/private.h"

#include <string.h>

static const struct hf_yaml none = {NULL, NULL, NULL};

static void check_replicas(struct hf_ctx *c, const struct hf_workload *w)
{
    struct hf_yaml v = hf_yaml_get(w->spec, "replicas");
    struct hf_yaml place = hf_yaml_there(v) ? hf_place(w->spec, "replicas") : none;
    struct hf_finding *f = NULL;
    long want = w->replicas < 3 ? 3 : w->replicas + 1;

    if (w->product == NULL || w->kind == HF_WORKLOAD_POD || w->kind == HF_WORKLOAD_DAEMONSET || w->replicas < 0 ||
        w->replicas > 1000000)
        return;
    if (w->product->clustered && w->replicas < 3 && w->replicas > 0 &&
        !(strcmp(w->product->name, "Holdfast") == 0 && w->replicas == 1)) /* one node is one whole cluster */
        f = hf_report(c, "HF101", w->o, place, "%ld of %s: the loss of one stops it", w->replicas, w->product->name);
    else if (w->product->votes && w->replicas > 0 && w->replicas % 2 == 0)
        f = hf_report(c, "HF100", w->o, place, "%ld voters of %s survive the loss of %ld, as %ld would", w->replicas,
                      w->product->name, (w->replicas - 1) / 2, w->replicas - 1);
    if (hf_yaml_there(v))
        hf_fix_set(c, f, v, "replicas", "%ld", want);
    else
        hf_fix_add(c, f, w->o->root, "", "spec", "{'replicas': %ld}", want);
}

void hf_rules_shape(struct hf_ctx *c, const struct hf_workload *w)
{
    check_replicas(c, w);
    if (w->kind == HF_WORKLOAD_POD)
        hf_advise(c, hf_report(c, "HF102", w->o, none, "a Pod of its own"),
                  "# a StatefulSet with replicas: 1 in the place of this Pod\n");
    if (w->kind == HF_WORKLOAD_DEPLOYMENT && w->product != NULL && w->product->clustered)
        hf_advise(c, hf_report(c, "HF103", w->o, none, "%s in a %s", w->product->name, w->o->kind),
                  "# a StatefulSet with a headless Service in the place of this %s\n", w->o->kind);
}

/* -- files ------------------------------------------------------------------------------------------- */

enum { PAIRS_MAX = 2000 };

static const struct hf_kube_object *object_of(const struct hf_ctx *c, struct hf_yaml y)
{
    for (size_t i = 0; i < c->s->n_objects; i++)
        if (c->s->objects[i].root.doc == y.doc)
            return &c->s->objects[i];
    return NULL;
}

static void check_map(struct hf_ctx *c, struct hf_yaml map)
{
    size_t n = hf_yaml_count(map);

    for (size_t i = 1; i < n && n <= PAIRS_MAX; i++) {
        const char *key = hf_yaml_text(hf_yaml_key_at(map, i));
        for (size_t k = 0; key != NULL && strcmp(key, "<<") != 0 && k < i; k++)
            if (hf_yaml_equals(hf_yaml_key_at(map, k), key)) {
                const struct hf_kube_object *o = object_of(c, map);
                if (o != NULL)
                    (void)hf_report(c, "HF110", o, hf_yaml_key_at(map, i), "%s is there already, in line %zu", key,
                                    hf_yaml_line(hf_yaml_key_at(map, k)));
                break;
            }
    }
}

/* A complaint about a file, of which no object can be named. */
static void report_file(struct hf_ctx *c, const struct hf_yaml_file *f, size_t line, size_t column, const char *detail)
{
    struct hf_kube_object whole = {.root = {f, NULL, NULL}, .kind = "", .name = "", .api = "", .namespace = ""};
    struct hf_finding *x = hf_report(c, "HF000", &whole, none, "%s", detail);

    if (x == NULL)
        return;
    x->object = NULL;
    x->line = line > 0 ? line : 1;
    x->column = column > 0 ? column : 1;
}

/* `name: {{ .Values.name }}` is YAML, by accident: a map with a map as its key. No object has such. */
static bool check_template(struct hf_ctx *c, struct hf_yaml map)
{
    for (size_t i = 0; i < hf_yaml_count(map); i++) {
        struct hf_yaml k = hf_yaml_key_at(map, i);
        if (hf_yaml_is_map(k)) {
            report_file(c, map.file, hf_yaml_line(k), hf_yaml_column(k),
                        "a key that is no word: a template? (hint: `helm template` makes manifests of it)");
            return true;
        }
    }
    return false;
}

void hf_rules_files(struct hf_ctx *c)
{
    for (size_t i = 0; i < c->s->n_files; i++) {
        const struct hf_yaml_file *f = c->s->files[i];
        bool template = false;
        for (size_t d = 0; d < f->n_docs; d++) {
            struct hf_yaml y = hf_yaml_root(f, d);
            yaml_node_t *end = y.doc->nodes.top;
            for (yaml_node_t *n = y.doc->nodes.start; n < end; n++)
                if (n->type == YAML_MAPPING_NODE) {
                    check_map(c, (struct hf_yaml){y.file, y.doc, n});
                    template = template || check_template(c, (struct hf_yaml){y.file, y.doc, n});
                }
        }
        if (f->broken)
            report_file(c, f, f->problem_line, f->problem_column, f->problem.text);
    }
}
