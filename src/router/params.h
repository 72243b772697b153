/* The ParameterStatus values that somebody has been told, by name. */
#ifndef HF_ROUTER_PARAMS_H
#define HF_ROUTER_PARAMS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum { HF_PARAMS_MAX = 4096 }; /* bytes; PostgreSQL reports a dozen */

struct hf_params {
    char *bytes; /* name, NUL, value, NUL, ...; malloc'ed */
    size_t len;
};

/* The body of a ParameterStatus. Badly formed ones, and those beyond the bound, are forgotten: what was told is told again then. */
void hf_params_set(struct hf_params *p, const uint8_t *body, size_t n);
const char *hf_params_get(const struct hf_params *p, const char *name); /* NULL: not told */
bool hf_params_same(const struct hf_params *a, const struct hf_params *b); /* in the same order, too */
/* ParameterStatus messages for what `now` has and `before` has not, or has otherwise. Returns their length; 0: none, or they do
 * not fit. */
size_t hf_params_differ(const struct hf_params *before, const struct hf_params *now, uint8_t *out, size_t cap);
bool hf_params_copy(struct hf_params *to, const struct hf_params *from); /* `to` is empty. False: out of memory, and it is so still */
void hf_params_clear(struct hf_params *p);

#endif
