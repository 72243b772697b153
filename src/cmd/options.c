#include "cmd/options.h"

#include <errno.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

static int set_number(const struct hf_option *o, const char *from, const char *value,
                      struct hf_error *err)
{
    char *end;
    unsigned long v;

    errno = 0;
    v = strtoul(value, &end, 10);
    if (errno != 0 || *value < '0' || *value > '9' || *end != '\0' || v < o->min || v > o->max)
        return hf_fail(err, HF_EINVAL, "%s: '%s' is not a number from %u to %u", from, value, o->min,
                       o->max);
    *(unsigned *)o->out = (unsigned)v;
    return 0;
}

static int add_item(const struct hf_option *o, const char *from, const char *value,
                    struct hf_error *err)
{
    struct hf_option_list *list = o->out;

    if (list->n == HF_OPTION_LIST_MAX)
        return hf_fail(err, HF_EINVAL, "%s: given more than %d times", from, HF_OPTION_LIST_MAX);
    list->items[list->n++] = value;
    return 0;
}

static int set_text(const struct hf_option *o, const char *from, const char *value,
                    struct hf_error *err)
{
    if (strlen(value) >= o->cap)
        return hf_fail(err, HF_EINVAL, "%s: longer than %zu characters", from, o->cap - 1);
    strcpy(o->out, value);
    return 0;
}

static int set(const struct hf_option *o, const char *from, const char *value, struct hf_error *err)
{
    switch (o->kind) {
    case HF_OPT_NUMBER:
        return set_number(o, from, value, err);
    case HF_OPT_TEXT:
        return set_text(o, from, value, err);
    case HF_OPT_LIST:
        return add_item(o, from, value, err);
    case HF_OPT_FLAG:
        break;
    }
    if (strcmp(value, "1") == 0 || strcmp(value, "true") == 0 || strcmp(value, "yes") == 0)
        *(bool *)o->out = true;
    else if (strcmp(value, "0") == 0 || strcmp(value, "false") == 0 || strcmp(value, "no") == 0)
        *(bool *)o->out = false;
    else
        return hf_fail(err, HF_EINVAL, "%s: '%s' is neither true nor false", from, value);
    return 0;
}

/* A list in a variable is cut in place: in a copy that lives as long as the process. */
static int set_from_env(const struct hf_option *o, const char *value, struct hf_error *err)
{
    char *copy, *rest, *item;
    int rv = 0;

    if (o->kind != HF_OPT_LIST)
        return set(o, o->env, value, err);
    copy = strdup(value);
    if (copy == NULL)
        return hf_fail(err, HF_ENOMEM, "%s: out of memory", o->env);
    for (item = strtok_r(copy, " ,\n", &rest); rv == 0 && item != NULL;
         item = strtok_r(NULL, " ,\n", &rest))
        rv = add_item(o, o->env, item, err);
    return rv;
}

static const struct hf_option *find(const struct hf_option *o, unsigned n, const char *arg,
                                    const char **value)
{
    size_t len = strcspn(arg, "=");

    *value = NULL;
    for (unsigned i = 0; i < n; i++) {
        if (arg[1] != '-') {
            if (o[i].letter != 0 && arg[1] == o[i].letter && (arg[2] == '\0' || o[i].value)) {
                *value = arg[2] != '\0' ? arg + 2 : NULL;
                return &o[i];
            }
        } else if (strlen(o[i].flag) == len - 2 && strncmp(o[i].flag, arg + 2, len - 2) == 0) {
            *value = arg[len] == '=' ? arg + len + 1 : NULL;
            return &o[i];
        }
    }
    return NULL;
}

static int take_operand(struct hf_operands *operands, const char *verb, const char *arg,
                        struct hf_error *err)
{
    if (operands == NULL || operands->n == operands->max)
        return hf_fail(err, HF_EINVAL, "%s: '%s' is one argument too many", verb, arg);
    operands->items[operands->n++] = arg;
    return 0;
}

int hf_options_parse(const struct hf_option *o, unsigned n, int argc, char **argv,
                     struct hf_operands *operands, struct hf_error *err)
{
    bool only_operands = false;
    uint64_t given = 0; /* by flags: a list of flags takes the place of the variable's */
    int rv = 0;

    if (n > 64)
        return hf_fail(err, HF_EINVAL, "%s: too many flags in the table", argv[0]);
    for (int i = 1; i < argc; i++)
        if (strcmp(argv[i], "--help") == 0 || strcmp(argv[i], "-h") == 0)
            return 1;
    for (unsigned i = 0; i < n && rv == 0; i++) {
        const char *value = o[i].env != NULL ? getenv(o[i].env) : NULL;
        if (value != NULL && value[0] != '\0')
            rv = set_from_env(&o[i], value, err);
    }
    for (int i = 1; i < argc && rv == 0; i++) {
        const struct hf_option *hit;
        const char *value;
        char from[48];
        if (only_operands || argv[i][0] != '-' || argv[i][1] == '\0') {
            rv = take_operand(operands, argv[0], argv[i], err);
            continue;
        }
        if (strcmp(argv[i], "--") == 0) {
            only_operands = true;
            continue;
        }
        hit = find(o, n, argv[i], &value);
        if (hit == NULL)
            return hf_fail(err, HF_EINVAL, "%s: no flag %s", argv[0], argv[i]);
        if (hit->kind != HF_OPT_FLAG && value == NULL) {
            if (i + 1 == argc)
                return hf_fail(err, HF_EINVAL, "%s: needs a value", argv[i]);
            value = argv[++i];
        }
        if (hit->kind == HF_OPT_LIST && (given >> (hit - o) & 1) == 0)
            ((struct hf_option_list *)hit->out)->n = 0;
        given |= (uint64_t)1 << (hit - o);
        (void)snprintf(from, sizeof from, "--%s", hit->flag);
        rv = set(hit, from, value != NULL ? value : "true", err);
    }
    return rv;
}

void hf_options_print(FILE *f, const struct hf_option *o, unsigned n)
{
    for (unsigned i = 0; i < n; i++) {
        char left[64], letter[8] = "    ";
        if (o[i].letter != 0)
            (void)snprintf(letter, sizeof letter, "-%c, ", o[i].letter);
        (void)snprintf(left, sizeof left, "%s--%s%s%s", letter, o[i].flag, o[i].value ? " " : "",
                       o[i].value ? o[i].value : "");
        fprintf(f, "  %-30s %s", left, o[i].help);
        if (o[i].env != NULL)
            fprintf(f, " [%s]", o[i].env);
        fputc('\n', f);
    }
}
