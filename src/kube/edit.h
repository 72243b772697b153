/* Changes to a YAML file that leave every other byte as it is: comments, order, quotes, line ends. */
#ifndef HF_KUBE_EDIT_H
#define HF_KUBE_EDIT_H

#include <jansson.h>
#include <stdio.h>

#include "kube/tree.h"

struct hf_edit {
    size_t offset, remove; /* bytes of the old text */
    char *insert;          /* owned */
};

/* Each makes one edit, or says with HF_EINVAL that it cannot (a merge, a tag, a strange place). */

/* The pairs of `pairs` into an existing map, block or flow; or in the place of `key:` without a value. */
int hf_edit_add(struct hf_edit *e, struct hf_yaml map, const json_t *pairs, struct hf_error *err);
/* Another value for a plain or quoted scalar. */
int hf_edit_set(struct hf_edit *e, struct hf_yaml scalar, const char *text, struct hf_error *err);
/* One more document at the end. */
int hf_edit_append(struct hf_edit *e, const struct hf_yaml_file *f, const char *text, struct hf_error *err);
void hf_edit_free(struct hf_edit *e);

/* The text with all edits done; they must be sorted by offset and not overlap. From malloc. */
char *hf_edit_apply(const struct hf_yaml_file *f, const struct hf_edit *edits, size_t n, size_t *len);

/* A JSON value as block YAML, every line behind `indent` blanks and before `eol`. */
void hf_yaml_print(FILE *out, const json_t *value, unsigned indent, const char *eol);

#endif
