/* YAML files as Kubernetes reads them, with the place of every value. Nothing here is copied out of the
 * documents: a struct hf_yaml points into its file and lives as long. */
#ifndef HF_KUBE_TREE_H
#define HF_KUBE_TREE_H

#include <stdbool.h>
#include <stddef.h>
#include <yaml.h>

#include "base/error.h"

enum {
    HF_YAML_TEXT_MAX = 64 * 1024 * 1024, /* of one file */
    HF_YAML_DOCS_MAX = 20000,            /* in one file */
};

struct hf_yaml_file {
    char *path, *text; /* owned; `text` has a NUL behind its `len` bytes */
    size_t len;
    yaml_document_t *docs;
    size_t n_docs;
    size_t *lines; /* byte where line i (from 0) begins */
    size_t n_lines;
    bool broken; /* `problem` says what; the documents before are there */
    struct hf_error problem;
    size_t problem_line, problem_column; /* from 1 */
};

/* A value, or nothing (node NULL); every function below takes nothing and gives nothing for it. */
struct hf_yaml {
    const struct hf_yaml_file *file;
    yaml_document_t *doc;
    yaml_node_t *node;
};

/* Takes `text` (from malloc, with a NUL behind), also if it fails. HF_ENOMEM only; bad YAML sets `broken`. */
int hf_yaml_parse(struct hf_yaml_file *f, const char *path, char *text, size_t len, struct hf_error *err);
void hf_yaml_free(struct hf_yaml_file *f);

struct hf_yaml hf_yaml_root(const struct hf_yaml_file *f, size_t doc);
bool hf_yaml_there(struct hf_yaml y);
bool hf_yaml_is_map(struct hf_yaml y);
bool hf_yaml_is_list(struct hf_yaml y);
bool hf_yaml_is_null(struct hf_yaml y); /* `key:`, null or ~; not: nothing */
/* A scalar's text, or NULL. */
const char *hf_yaml_text(struct hf_yaml y);
bool hf_yaml_equals(struct hf_yaml y, const char *text);
/* true, yes, on; false, no, off; else `otherwise`. */
bool hf_yaml_bool(struct hf_yaml y, bool otherwise);
long hf_yaml_long(struct hf_yaml y, long otherwise);

/* Value of a key; looks through `<<`. */
struct hf_yaml hf_yaml_get(struct hf_yaml map, const char *key);
/* "spec.template.spec": keys without dots. */
struct hf_yaml hf_yaml_path(struct hf_yaml map, const char *path);
/* Items of a list or pairs of a map. */
size_t hf_yaml_count(struct hf_yaml y);
struct hf_yaml hf_yaml_item(struct hf_yaml list, size_t i);
struct hf_yaml hf_yaml_key_at(struct hf_yaml map, size_t i);
struct hf_yaml hf_yaml_value_at(struct hf_yaml map, size_t i);
/* The key itself, for its place. */
struct hf_yaml hf_yaml_key(struct hf_yaml map, const char *key);

/* From 1; 0 for nothing. */
size_t hf_yaml_line(struct hf_yaml y);
size_t hf_yaml_column(struct hf_yaml y);
/* Byte in the file's text; a mark counts characters. */
size_t hf_yaml_offset(const struct hf_yaml_file *f, yaml_mark_t mark);

#endif
