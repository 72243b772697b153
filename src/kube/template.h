/* Text with holes. `@name@` stands for a value; between a line `%if name` and `%else` or `%end` stands what
 * is there only if the value is not empty. Nothing nests, and an unknown name is an error, so a slip in a
 * template shows at once. */
#ifndef HF_KUBE_TEMPLATE_H
#define HF_KUBE_TEMPLATE_H

#include <stdio.h>

#include "base/error.h"

struct hf_template {
    const char *name, *text;
};

/* The templates of src/kube/templates, compiled in, in the order in which they are printed; ends with a
 * NULL name. */
extern const struct hf_template hf_templates[];

struct hf_template_value {
    const char *name;
    const char *value; /* never NULL; "" is false */
};

/* `values` ends with a NULL name. */
int hf_template_print(const struct hf_template *t, const struct hf_template_value *values, FILE *out,
                      struct hf_error *err);

#endif
