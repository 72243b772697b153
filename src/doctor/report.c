/* From a rule's word to a finding, with the YAML that mends it. */
#include "doctor/private.h"

#include <ctype.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

static bool is_ignored(const struct hf_ctx *c, const char *rule, const struct hf_kube_object *o)
{
    const char *list = o != NULL ? hf_yaml_text(hf_yaml_get(hf_yaml_path(o->root, "metadata.annotations"),
                                                            "holdfast/doctor-ignore"))
                                 : NULL;

    for (unsigned i = 0; i < c->o->n_ignore; i++)
        if (strcmp(c->o->ignore[i], rule) == 0)
            return true;
    return list != NULL && strstr(list, rule) != NULL;
}

static char *format(struct hf_ctx *c, const char *fmt, va_list ap)
{
    char *text;

    if (vasprintf(&text, fmt, ap) >= 0)
        return text;
    c->failed = true;
    return NULL;
}

static struct hf_finding *new_finding(struct hf_ctx *c)
{
    struct hf_diagnosis *d = c->d;

    if (d->n == HF_FINDINGS_MAX)
        return NULL;
    if ((d->n & (d->n - 1)) == 0) {
        struct hf_finding *more = realloc(d->findings, (d->n == 0 ? 1 : d->n * 2) * sizeof *more);
        if (more == NULL) {
            c->failed = true;
            return NULL;
        }
        d->findings = more;
    }
    d->findings[d->n] = (struct hf_finding){.rule = NULL};
    return &d->findings[d->n++];
}

struct hf_finding *hf_report(struct hf_ctx *c, const char *rule, const struct hf_kube_object *o, struct hf_yaml at,
                             const char *fmt, ...)
{
    struct hf_finding *f;
    va_list ap;

    if (is_ignored(c, rule, o) || (f = new_finding(c)) == NULL)
        return NULL;
    if (at.node == NULL)
        at = hf_yaml_key(o->root, "kind").node != NULL ? hf_yaml_key(o->root, "kind") : o->root;
    f->rule = hf_rule_find(rule);
    f->severity = f->rule->severity;
    f->object = o;
    f->file = at.file;
    f->line = hf_yaml_line(at);
    f->column = hf_yaml_column(at);
    va_start(ap, fmt);
    f->detail = format(c, fmt, ap);
    va_end(ap);
    return f;
}

struct hf_yaml hf_place(struct hf_yaml map, const char *key)
{
    struct hf_yaml k = hf_yaml_key(map, key);

    return k.node != NULL ? k : map;
}

void hf_soften(struct hf_finding *f, enum hf_severity s)
{
    if (f != NULL)
        f->severity = s;
}

/* -- fixes ------------------------------------------------------------------------------------------- */

static json_t *parse_pairs(struct hf_ctx *c, const char *fmt, va_list ap)
{
    char *text = format(c, fmt, ap);
    json_t *v = NULL;

    if (text == NULL)
        return NULL;
    for (char *p = text; *p != '\0'; p++)
        if (*p == '\'')
            *p = '"';
    v = json_loads(text, 0, NULL);
    if (v == NULL)
        c->failed = true;
    free(text);
    return v;
}

/* {"a": {"b": value}} of "a.b"; takes value. */
static json_t *wrap(const char *path, json_t *value)
{
    const char *dot;
    char key[64];
    size_t len;

    if (path[0] == '\0')
        return value;
    dot = strrchr(path, '.');
    (void)snprintf(key, sizeof key, "%s", dot != NULL ? dot + 1 : path);
    value = json_pack("{s:o}", key, value);
    if (dot == NULL)
        return value;
    len = (size_t)(dot - path);
    char *rest = strndup(path, len);
    if (rest == NULL)
        return value;
    value = wrap(rest, value);
    free(rest);
    return value;
}

static char *as_yaml(struct hf_ctx *c, const json_t *v)
{
    char *text = NULL;
    size_t len;
    FILE *out = open_memstream(&text, &len);

    if (out == NULL) {
        c->failed = true;
        return NULL;
    }
    hf_yaml_print(out, v, 0, "\n");
    if (fclose(out) != 0)
        c->failed = true;
    return text;
}

/* How deep the path exists below `from`: *at is the last map there (or an empty `key:`), and the rest of the
 * path is returned; NULL: something else is in the way. */
static const char *descend(struct hf_yaml from, const char *path, struct hf_yaml *at)
{
    *at = from;
    while (*path != '\0') {
        char key[64];
        size_t len = strcspn(path, ".");
        struct hf_yaml next;
        (void)snprintf(key, sizeof key, "%.*s", (int)len, path);
        next = hf_yaml_get(*at, key);
        if (!hf_yaml_there(next))
            return path;
        if (!hf_yaml_is_map(next) && !hf_yaml_is_null(next))
            return NULL;
        *at = next;
        path += len + (path[len] == '.');
        if (hf_yaml_is_null(next))
            return path;
    }
    return path;
}

static void take_fix(struct hf_ctx *c, struct hf_finding *f, struct hf_yaml from, const char *path, json_t *pairs,
                     json_t *shown)
{
    const char *rest = descend(from, path, &f->at);

    f->advice = as_yaml(c, shown);
    json_decref(shown);
    if (rest == NULL) {
        json_decref(pairs);
        return;
    }
    f->value = wrap(rest, pairs);
    f->kind = HF_FIX_ADD;
}

void hf_fix_add(struct hf_ctx *c, struct hf_finding *f, struct hf_yaml from, const char *below, const char *path,
                const char *fmt, ...)
{
    json_t *pairs;
    va_list ap;

    if (f == NULL)
        return;
    va_start(ap, fmt);
    pairs = parse_pairs(c, fmt, ap);
    va_end(ap);
    if (pairs != NULL)
        take_fix(c, f, from, path, pairs, wrap(below, wrap(path, json_deep_copy(pairs))));
}

void hf_fix_container(struct hf_ctx *c, struct hf_finding *f, const struct hf_workload *w, struct hf_yaml container,
                      const char *path, const char *fmt, ...)
{
    json_t *pairs, *shown, *list;
    va_list ap;

    if (f == NULL)
        return;
    va_start(ap, fmt);
    pairs = parse_pairs(c, fmt, ap);
    va_end(ap);
    if (pairs == NULL)
        return;
    shown = json_pack("{s:s}", "name", hf_container_name(container));
    if (shown == NULL) /* a name that is not UTF-8 */
        shown = json_object();
    json_t *inner = wrap(path, json_deep_copy(pairs));
    (void)json_object_update(shown, inner);
    json_decref(inner);
    list = json_pack("{s:[o]}", "containers", shown);
    take_fix(c, f, container, path, pairs, wrap(w->pod_path, list));
}

void hf_fix_set(struct hf_ctx *c, struct hf_finding *f, struct hf_yaml scalar, const char *advice_key,
                const char *fmt, ...)
{
    va_list ap;

    if (f == NULL)
        return;
    va_start(ap, fmt);
    f->text = format(c, fmt, ap);
    va_end(ap);
    if (f->text == NULL || asprintf(&f->advice, "%s: %s\n", advice_key, f->text) < 0) {
        f->advice = NULL;
        c->failed = true;
        return;
    }
    f->at = scalar;
    f->kind = HF_FIX_SET;
}

void hf_fix_append(struct hf_ctx *c, struct hf_finding *f, const char *fmt, ...)
{
    va_list ap;

    if (f == NULL)
        return;
    va_start(ap, fmt);
    f->text = format(c, fmt, ap);
    va_end(ap);
    if (f->text == NULL || (f->advice = strdup(f->text)) == NULL) {
        c->failed = true;
        return;
    }
    f->at = f->object->root;
    f->kind = HF_FIX_APPEND;
}

void hf_advise(struct hf_ctx *c, struct hf_finding *f, const char *fmt, ...)
{
    va_list ap;

    if (f == NULL)
        return;
    va_start(ap, fmt);
    f->advice = format(c, fmt, ap);
    va_end(ap);
}

char *hf_labels_text(struct hf_yaml labels, unsigned indent)
{
    char *text = NULL;
    size_t len;
    json_t *o = json_object();
    FILE *out = open_memstream(&text, &len);

    if (out == NULL || o == NULL) {
        json_decref(o);
        if (out != NULL)
            (void)fclose(out);
        free(text);
        return NULL;
    }
    for (size_t i = 0; i < hf_yaml_count(labels); i++) {
        const char *key = hf_yaml_text(hf_yaml_key_at(labels, i));
        const char *value = hf_yaml_text(hf_yaml_value_at(labels, i));
        if (key != NULL && value != NULL)
            (void)json_object_set_new(o, key, json_string(value));
    }
    if (json_object_size(o) > 0)
        hf_yaml_print(out, o, indent, "\n");
    json_decref(o);
    if (fclose(out) != 0) {
        free(text);
        return NULL;
    }
    return text;
}
