/* Findings for people, for programs, and for code review tools (SARIF 2.1.0). */
#include "doctor/doctor.h"

#include <string.h>

static const char docs[] = "docs/doctor.md";

/* Text from a manifest may be anything; JSON is UTF-8. */
static json_t *text_or_null(const char *s)
{
    json_t *v = s != NULL ? json_string(s) : json_null();

    return v != NULL ? v : json_string("(not UTF-8)");
}

static void count(const struct hf_diagnosis *d, unsigned n[3])
{
    n[HF_NOTE] = n[HF_WARNING] = n[HF_ERROR] = 0;
    for (size_t i = 0; i < d->n; i++)
        n[d->findings[i].severity]++;
}

static void print_lines(FILE *out, const char *before, const char *text)
{
    while (*text != '\0') {
        size_t len = strcspn(text, "\n");
        (void)fprintf(out, "%s%.*s\n", before, (int)len, text);
        text += len + (text[len] == '\n');
    }
}

void hf_doctor_print(const struct hf_diagnosis *d, FILE *out, bool color)
{
    static const char *const paint[] = {"\033[36m", "\033[33m", "\033[31m"};
    unsigned n[3];

    for (size_t i = 0; i < d->n; i++) {
        const struct hf_finding *f = &d->findings[i];
        (void)fprintf(out, "%s:%zu:%zu: %s%s%s %s", f->file->path, f->line, f->column,
                      color ? paint[f->severity] : "", hf_severity_name(f->severity), color ? "\033[0m" : "",
                      f->rule->id);
        if (f->object != NULL)
            (void)fprintf(out, " %s %s%s%s", f->object->kind, f->object->namespace,
                          f->object->namespace[0] != '\0' ? "/" : "", f->object->name);
        (void)fprintf(out, ": %s\n    %s\n    %s\n", f->rule->title, f->detail != NULL ? f->detail : "", f->rule->why);
        if (f->advice != NULL)
            print_lines(out, "      ", f->advice);
    }
    count(d, n);
    (void)fprintf(out, "%u errors, %u warnings, %u notes\n", n[HF_ERROR], n[HF_WARNING], n[HF_NOTE]);
}

static json_t *object_json(const struct hf_kube_object *o)
{
    if (o == NULL)
        return json_null();
    return json_pack("{s:o, s:o, s:o}", "kind", text_or_null(o->kind), "namespace",
                     text_or_null(o->namespace[0] != '\0' ? o->namespace : NULL), "name", text_or_null(o->name));
}

json_t *hf_doctor_json(const struct hf_diagnosis *d)
{
    json_t *list = json_array();
    unsigned n[3];

    for (size_t i = 0; i < d->n; i++) {
        const struct hf_finding *f = &d->findings[i];
        (void)json_array_append_new(
            list, json_pack("{s:s, s:s, s:s, s:o, s:o, s:I, s:I, s:s, s:o, s:s, s:o, s:b}", "rule", f->rule->id, "name",
                            f->rule->name, "severity", hf_severity_name(f->severity), "object", object_json(f->object),
                            "file", text_or_null(f->file->path), "line", (json_int_t)f->line, "column",
                            (json_int_t)f->column, "title", f->rule->title, "detail", text_or_null(f->detail), "why",
                            f->rule->why, "add", text_or_null(f->advice), "fixable", (int)(f->kind != HF_FIX_NONE)));
    }
    count(d, n);
    return json_pack("{s:o, s:{s:i, s:i, s:i}}", "findings", list, "summary", "errors", (int)n[HF_ERROR], "warnings",
                     (int)n[HF_WARNING], "notes", (int)n[HF_NOTE]);
}

static json_t *sarif_rules(void)
{
    json_t *list = json_array();

    for (const struct hf_rule *r = hf_rules; r->id != NULL; r++)
        (void)json_array_append_new(
            list, json_pack("{s:s, s:s, s:{s:s}, s:{s:s}, s:{s:s}, s:{s:s}}", "id", r->id, "name", r->name,
                            "shortDescription", "text", r->title, "fullDescription", "text", r->why, "help", "text",
                            docs, "defaultConfiguration", "level", hf_severity_name(r->severity)));
    return list;
}

static json_t *sarif_result(const struct hf_finding *f)
{
    char text[2048];
    size_t index = (size_t)(f->rule - hf_rules);

    (void)snprintf(text, sizeof text, "%s: %s. %s", f->rule->title, f->detail != NULL ? f->detail : "", f->rule->why);
    return json_pack("{s:s, s:I, s:s, s:{s:o}, s:[{s:{s:{s:o}, s:{s:I, s:I}}}]}", "ruleId", f->rule->id, "ruleIndex",
                     (json_int_t)index, "level", hf_severity_name(f->severity), "message", "text", text_or_null(text),
                     "locations", "physicalLocation", "artifactLocation", "uri", text_or_null(f->file->path), "region",
                     "startLine", (json_int_t)f->line, "startColumn", (json_int_t)f->column);
}

json_t *hf_doctor_sarif(const struct hf_diagnosis *d)
{
    json_t *results = json_array();

    for (size_t i = 0; i < d->n; i++)
        (void)json_array_append_new(results, sarif_result(&d->findings[i]));
    return json_pack("{s:s, s:s, s:[{s:{s:{s:s, s:s, s:o}}, s:o}]}", "$schema",
                     "https://json.schemastore.org/sarif-2.1.0.json", "version", "2.1.0", "runs", "tool", "driver",
                     "name", "holdfast doctor", "version", HF_VERSION, "rules", sarif_rules(), "results", results);
}
