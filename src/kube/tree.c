#include "kube/tree.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

enum { MERGE_DEPTH = 3, MERGE_LIST_MAX = 8 }; /* a file may merge itself with itself */

/* -- reading ----------------------------------------------------------------------------------------- */

/* Bytes of the line break at p as libyaml counts lines, or 0. */
static size_t line_break(const unsigned char *p, const unsigned char *end)
{
    if (p[0] == '\r')
        return p + 1 < end && p[1] == '\n' ? 2 : 1;
    if (p[0] == '\n')
        return 1;
    if (p + 1 < end && p[0] == 0xc2 && p[1] == 0x85)
        return 2;
    if (p + 2 < end && p[0] == 0xe2 && p[1] == 0x80 && (p[2] == 0xa8 || p[2] == 0xa9))
        return 3;
    return 0;
}

static int find_lines(struct hf_yaml_file *f)
{
    const unsigned char *begin = (const unsigned char *)f->text, *end = begin + f->len;
    size_t room = 256;

    f->lines = malloc(room * sizeof *f->lines);
    if (f->lines == NULL)
        return HF_ENOMEM;
    f->lines[0] = f->len >= 3 && memcmp(f->text, "\xef\xbb\xbf", 3) == 0 ? 3 : 0; /* a byte order mark */
    f->n_lines = 1;
    for (const unsigned char *p = begin; p < end;) {
        size_t n = line_break(p, end);
        p += n > 0 ? n : 1;
        if (n == 0)
            continue;
        if (f->n_lines == room) {
            size_t *more = realloc(f->lines, room * 2 * sizeof *more);
            if (more == NULL)
                return HF_ENOMEM;
            f->lines = more;
            room *= 2;
        }
        f->lines[f->n_lines++] = (size_t)(p - begin);
    }
    return 0;
}

static void note_problem(struct hf_yaml_file *f, const yaml_parser_t *p)
{
    bool template = strstr(f->text, "{{") != NULL;

    f->broken = true;
    f->problem_line = p->problem_mark.line + 1;
    f->problem_column = p->problem_mark.column + 1;
    (void)hf_fail(&f->problem, HF_ECORRUPT, "%s%s%s%s", p->context != NULL ? p->context : "",
                  p->context != NULL ? ", " : "", p->problem != NULL ? p->problem : "not YAML",
                  template ? " (hint: a template? `helm template` makes YAML of it)" : "");
}

static int load(struct hf_yaml_file *f, yaml_parser_t *p)
{
    size_t room = 0;

    for (;;) {
        if (f->n_docs == room) {
            size_t want = room == 0 ? 8 : room * 2;
            yaml_document_t *more = realloc(f->docs, want * sizeof *more);
            if (more == NULL)
                return HF_ENOMEM;
            f->docs = more;
            room = want;
        }
        if (yaml_parser_load(p, &f->docs[f->n_docs]) == 0) {
            if (p->error == YAML_MEMORY_ERROR)
                return HF_ENOMEM;
            note_problem(f, p);
            return 0;
        }
        if (yaml_document_get_root_node(&f->docs[f->n_docs]) == NULL) {
            yaml_document_delete(&f->docs[f->n_docs]);
            return 0;
        }
        if (++f->n_docs == HF_YAML_DOCS_MAX) {
            f->broken = true;
            (void)hf_fail(&f->problem, HF_EINVAL, "more than %d documents", HF_YAML_DOCS_MAX);
            return 0;
        }
    }
}

int hf_yaml_parse(struct hf_yaml_file *f, const char *path, char *text, size_t len, struct hf_error *err)
{
    yaml_parser_t p;
    int rv;

    *f = (struct hf_yaml_file){.text = text, .len = len, .path = strdup(path)};
    if (f->path == NULL || find_lines(f) != 0 || yaml_parser_initialize(&p) == 0) {
        hf_yaml_free(f);
        return hf_fail(err, HF_ENOMEM, "%s: out of memory", path);
    }
    yaml_parser_set_input_string(&p, (const unsigned char *)text, len);
    rv = load(f, &p);
    yaml_parser_delete(&p);
    if (rv != 0) {
        hf_yaml_free(f);
        return hf_fail(err, rv, "%s: out of memory", path);
    }
    return 0;
}

void hf_yaml_free(struct hf_yaml_file *f)
{
    for (size_t i = 0; i < f->n_docs; i++)
        yaml_document_delete(&f->docs[i]);
    free(f->docs);
    free(f->lines);
    free(f->path);
    free(f->text);
    *f = (struct hf_yaml_file){0};
}

/* -- values ------------------------------------------------------------------------------------------ */

static struct hf_yaml nothing(void)
{
    return (struct hf_yaml){NULL, NULL, NULL};
}

static struct hf_yaml at(struct hf_yaml y, int index)
{
    y.node = yaml_document_get_node(y.doc, index);
    return y.node != NULL ? y : nothing();
}

struct hf_yaml hf_yaml_root(const struct hf_yaml_file *f, size_t doc)
{
    struct hf_yaml y = {f, &f->docs[doc], NULL};

    y.node = yaml_document_get_root_node(y.doc);
    return y;
}

bool hf_yaml_there(struct hf_yaml y)
{
    return y.node != NULL;
}

bool hf_yaml_is_map(struct hf_yaml y)
{
    return y.node != NULL && y.node->type == YAML_MAPPING_NODE;
}

bool hf_yaml_is_list(struct hf_yaml y)
{
    return y.node != NULL && y.node->type == YAML_SEQUENCE_NODE;
}

const char *hf_yaml_text(struct hf_yaml y)
{
    return y.node != NULL && y.node->type == YAML_SCALAR_NODE ? (const char *)y.node->data.scalar.value : NULL;
}

bool hf_yaml_is_null(struct hf_yaml y)
{
    const char *s = hf_yaml_text(y);

    return s != NULL && y.node->data.scalar.style == YAML_PLAIN_SCALAR_STYLE &&
           (s[0] == '\0' || strcmp(s, "~") == 0 || strcasecmp(s, "null") == 0);
}

bool hf_yaml_equals(struct hf_yaml y, const char *text)
{
    const char *s = hf_yaml_text(y);

    return s != NULL && strcmp(s, text) == 0;
}

bool hf_yaml_bool(struct hf_yaml y, bool otherwise)
{
    const char *s = hf_yaml_text(y);

    if (s == NULL)
        return otherwise;
    if (strcasecmp(s, "true") == 0 || strcasecmp(s, "yes") == 0 || strcasecmp(s, "on") == 0)
        return true;
    if (strcasecmp(s, "false") == 0 || strcasecmp(s, "no") == 0 || strcasecmp(s, "off") == 0)
        return false;
    return otherwise;
}

long hf_yaml_long(struct hf_yaml y, long otherwise)
{
    const char *s = hf_yaml_text(y);
    char *end;
    long v;

    if (s == NULL || s[0] == '\0')
        return otherwise;
    errno = 0;
    v = strtol(s, &end, 10);
    return *end == '\0' && errno == 0 ? v : otherwise;
}

static struct hf_yaml find_pair(struct hf_yaml map, const char *key, bool want_key, int depth)
{
    struct hf_yaml merged = nothing();

    if (!hf_yaml_is_map(map) || depth > MERGE_DEPTH)
        return nothing();
    for (yaml_node_pair_t *p = map.node->data.mapping.pairs.start; p < map.node->data.mapping.pairs.top; p++) {
        struct hf_yaml k = at(map, p->key);
        if (hf_yaml_equals(k, key))
            return want_key ? k : at(map, p->value);
        if (!hf_yaml_equals(k, "<<"))
            continue;
        struct hf_yaml from = at(map, p->value);
        for (size_t i = 0; i < hf_yaml_count(from) && i < MERGE_LIST_MAX && merged.node == NULL; i++)
            merged = find_pair(hf_yaml_item(from, i), key, want_key, depth + 1);
        if (merged.node == NULL)
            merged = find_pair(from, key, want_key, depth + 1);
    }
    return merged;
}

struct hf_yaml hf_yaml_get(struct hf_yaml map, const char *key)
{
    return find_pair(map, key, false, 0);
}

struct hf_yaml hf_yaml_key(struct hf_yaml map, const char *key)
{
    return find_pair(map, key, true, 0);
}

struct hf_yaml hf_yaml_path(struct hf_yaml map, const char *path)
{
    char key[64];

    while (*path != '\0' && map.node != NULL) {
        size_t len = strcspn(path, ".");
        if (len >= sizeof key)
            return nothing();
        memcpy(key, path, len);
        key[len] = '\0';
        map = hf_yaml_get(map, key);
        path += len + (path[len] == '.');
    }
    return map;
}

size_t hf_yaml_count(struct hf_yaml y)
{
    if (hf_yaml_is_list(y))
        return (size_t)(y.node->data.sequence.items.top - y.node->data.sequence.items.start);
    if (hf_yaml_is_map(y))
        return (size_t)(y.node->data.mapping.pairs.top - y.node->data.mapping.pairs.start);
    return 0;
}

struct hf_yaml hf_yaml_item(struct hf_yaml list, size_t i)
{
    if (!hf_yaml_is_list(list) || i >= hf_yaml_count(list))
        return nothing();
    return at(list, list.node->data.sequence.items.start[i]);
}

struct hf_yaml hf_yaml_key_at(struct hf_yaml map, size_t i)
{
    if (!hf_yaml_is_map(map) || i >= hf_yaml_count(map))
        return nothing();
    return at(map, map.node->data.mapping.pairs.start[i].key);
}

struct hf_yaml hf_yaml_value_at(struct hf_yaml map, size_t i)
{
    if (!hf_yaml_is_map(map) || i >= hf_yaml_count(map))
        return nothing();
    return at(map, map.node->data.mapping.pairs.start[i].value);
}

/* -- places ------------------------------------------------------------------------------------------ */

size_t hf_yaml_line(struct hf_yaml y)
{
    return y.node != NULL ? y.node->start_mark.line + 1 : 0;
}

size_t hf_yaml_column(struct hf_yaml y)
{
    return y.node != NULL ? y.node->start_mark.column + 1 : 0;
}

size_t hf_yaml_offset(const struct hf_yaml_file *f, yaml_mark_t mark)
{
    size_t at_byte;

    if (mark.line >= f->n_lines)
        return f->len;
    at_byte = f->lines[mark.line];
    for (size_t i = 0; i < mark.column && at_byte < f->len; i++) {
        at_byte++;
        while (at_byte < f->len && ((unsigned char)f->text[at_byte] & 0xc0) == 0x80)
            at_byte++;
    }
    return at_byte;
}
