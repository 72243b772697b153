#include "kube/template.h"

#include <stdbool.h>
#include <string.h>

static const char *value_of(const struct hf_template_value *values, const char *name, size_t len)
{
    for (; values->name != NULL; values++)
        if (strlen(values->name) == len && strncmp(values->name, name, len) == 0)
            return values->value;
    return NULL;
}

static int fail_unknown(const struct hf_template *t, const char *name, size_t len, struct hf_error *err)
{
    return hf_fail(err, HF_EINVAL, "template %s: '%.*s' has no value", t->name, (int)len, name);
}

static int print_line(const struct hf_template *t, const char *line, size_t len,
                      const struct hf_template_value *values, FILE *out, struct hf_error *err)
{
    const char *end = line + len, *p = line;

    while (p < end) {
        const char *open = memchr(p, '@', (size_t)(end - p));
        const char *close = open != NULL ? memchr(open + 1, '@', (size_t)(end - open - 1)) : NULL;
        const char *value;
        if (close == NULL) {
            (void)fwrite(p, 1, (size_t)(end - p), out);
            break;
        }
        value = value_of(values, open + 1, (size_t)(close - open - 1));
        if (value == NULL)
            return fail_unknown(t, open + 1, (size_t)(close - open - 1), err);
        (void)fwrite(p, 1, (size_t)(open - p), out);
        (void)fputs(value, out);
        p = close + 1;
    }
    (void)fputc('\n', out);
    return 0;
}

int hf_template_print(const struct hf_template *t, const struct hf_template_value *values, FILE *out,
                      struct hf_error *err)
{
    bool show = true;
    int rv = 0;

    for (const char *line = t->text; rv == 0 && *line != '\0';) {
        size_t len = strcspn(line, "\n");
        if (len > 4 && strncmp(line, "%if ", 4) == 0) {
            const char *value = value_of(values, line + 4, len - 4);
            if (value == NULL)
                return fail_unknown(t, line + 4, len - 4, err);
            show = value[0] != '\0';
        } else if (len == 5 && strncmp(line, "%else", 5) == 0) {
            show = !show;
        } else if (len == 4 && strncmp(line, "%end", 4) == 0) {
            show = true;
        } else if (show) {
            rv = print_line(t, line, len, values, out, err);
        }
        line += len + (line[len] == '\n');
    }
    return rv;
}
