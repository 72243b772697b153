#include "kube/edit.h"

#include <ctype.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

enum { INDENT_STEP = 2, DEPTH_MAX = 64 };

/* -- JSON as block YAML ------------------------------------------------------------------------------ */

/* Would YAML read this word as something else than a string, or not as one word? */
static bool needs_quotes(const char *s)
{
    static const char *const words[] = {"", "~", "null", "true", "false", "yes", "no", "on", "off", "y", "n"};

    for (unsigned i = 0; i < sizeof words / sizeof *words; i++)
        if (strcasecmp(s, words[i]) == 0)
            return true;
    if (isdigit((unsigned char)s[0])) {
        char *end;
        (void)strtod(s, &end);
        if (*end == '\0' || s[0] == '0')
            return true;
    }
    if (!isalnum((unsigned char)s[0]) && s[0] != '/' && s[0] != '_' && s[0] != '<')
        return true;
    for (; *s != '\0'; s++)
        if (!isalnum((unsigned char)*s) && strchr("-_./<>() ", *s) == NULL &&
            !(*s == ':' && s[1] != ' ' && s[1] != '\0'))
            return true;
    return s[-1] == ' ';
}

static void print_scalar(FILE *out, const json_t *v)
{
    char *text;

    if (json_is_string(v) && !needs_quotes(json_string_value(v))) {
        (void)fputs(json_string_value(v), out);
        return;
    }
    text = json_dumps(v, JSON_ENCODE_ANY | JSON_COMPACT);
    (void)fputs(text != NULL ? text : "null", out);
    free(text);
}

static bool is_nested(const json_t *v)
{
    return (json_is_object(v) && json_object_size(v) > 0) || (json_is_array(v) && json_array_size(v) > 0);
}

static void print_lines(FILE *out, const json_t *value, unsigned indent, bool first_is_open, const char *eol,
                        int depth)
{
    const char *key;
    const json_t *v;
    size_t i;

    if (depth > DEPTH_MAX)
        return;
    if (json_is_object(value)) {
        json_object_foreach((json_t *)value, key, v)
        {
            if (!first_is_open)
                (void)fprintf(out, "%*s", (int)indent, "");
            first_is_open = false;
            json_t *k = json_string(key);
            print_scalar(out, k);
            json_decref(k);
            if (is_nested(v)) {
                (void)fprintf(out, ":%s", eol);
                print_lines(out, v, indent + INDENT_STEP, false, eol, depth + 1);
            } else {
                (void)fputs(": ", out);
                print_scalar(out, v);
                (void)fputs(eol, out);
            }
        }
        return;
    }
    json_array_foreach((json_t *)value, i, v)
    {
        if (!first_is_open)
            (void)fprintf(out, "%*s", (int)indent, "");
        first_is_open = false;
        (void)fputs("- ", out);
        if (is_nested(v)) {
            print_lines(out, v, indent + 2, true, eol, depth + 1);
        } else {
            print_scalar(out, v);
            (void)fputs(eol, out);
        }
    }
}

void hf_yaml_print(FILE *out, const json_t *value, unsigned indent, const char *eol)
{
    if (is_nested(value)) {
        print_lines(out, value, indent, false, eol, 0);
    } else {
        (void)fprintf(out, "%*s", (int)indent, "");
        print_scalar(out, value);
        (void)fputs(eol, out);
    }
}

/* -- places in the old text -------------------------------------------------------------------------- */

static int cannot(struct hf_yaml y, struct hf_error *err)
{
    return hf_fail(err, HF_EINVAL, "%s:%zu: cannot be changed by a program (hint: by hand)",
                   y.file != NULL ? y.file->path : "?", hf_yaml_line(y));
}

static const char *eol_of(const struct hf_yaml_file *f)
{
    const char *nl = memchr(f->text, '\n', f->len);

    return nl != NULL && nl > f->text && nl[-1] == '\r' ? "\r\n" : "\n";
}

/* Is there nothing but blanks between the line's begin and this byte? */
static bool first_on_line(const struct hf_yaml_file *f, size_t line, size_t offset)
{
    for (size_t i = f->lines[line]; i < offset; i++)
        if (f->text[i] != ' ')
            return false;
    return true;
}

static bool is_comment_line(const struct hf_yaml_file *f, size_t line)
{
    size_t i = f->lines[line];

    while (i < f->len && f->text[i] == ' ')
        i++;
    return i < f->len && f->text[i] == '#';
}

static int finish(struct hf_edit *e, size_t offset, size_t remove, FILE *out, struct hf_error *err)
{
    bool bad = ferror(out) != 0;

    if (fclose(out) != 0 || bad) {
        hf_edit_free(e);
        return hf_fail(err, HF_ENOMEM, "out of memory");
    }
    e->offset = offset;
    e->remove = remove;
    return 0;
}

static FILE *begin(struct hf_edit *e, size_t *len, struct hf_error *err)
{
    FILE *out = open_memstream(&e->insert, len);

    if (out == NULL)
        (void)hf_fail(err, HF_ENOMEM, "out of memory");
    return out;
}

/* -- adding to a map --------------------------------------------------------------------------------- */

/* `{` -> `{"key": value, ` */
static int add_to_flow(struct hf_edit *e, struct hf_yaml map, const json_t *pairs, struct hf_error *err)
{
    const struct hf_yaml_file *f = map.file;
    size_t at = hf_yaml_offset(f, map.node->start_mark), len;
    char *json;
    FILE *out;

    if (at >= f->len || f->text[at] != '{')
        return cannot(map, err);
    json = json_dumps(pairs, 0);
    if (json == NULL || (out = begin(e, &len, err)) == NULL) {
        free(json);
        return hf_fail(err, HF_ENOMEM, "out of memory");
    }
    (void)fprintf(out, "%.*s%s", (int)strlen(json) - 2, json + 1, hf_yaml_count(map) > 0 ? ", " : "");
    free(json);
    return finish(e, at + 1, 0, out, err);
}

/* `key:` -> `key: {...}` */
static int add_to_null(struct hf_edit *e, struct hf_yaml map, const json_t *pairs, struct hf_error *err)
{
    const struct hf_yaml_file *f = map.file;
    size_t at = hf_yaml_offset(f, map.node->start_mark), end = hf_yaml_offset(f, map.node->end_mark), len;
    char *json;
    FILE *out;

    if (at > f->len || end < at || (at == end && (at == 0 || f->text[at - 1] != ':')))
        return cannot(map, err);
    json = json_dumps(pairs, 0);
    if (json == NULL || (out = begin(e, &len, err)) == NULL) {
        free(json);
        return hf_fail(err, HF_ENOMEM, "out of memory");
    }
    (void)fprintf(out, "%s%s", at == end ? " " : "", json);
    free(json);
    return finish(e, at, end - at, out, err);
}

/* The line before which new pairs may stand, or false. A map's first key is taken where it begins its
 * line, together with the comments above; behind `- ` it is the second key. */
static bool find_line(struct hf_yaml map, size_t *line, size_t *column)
{
    const struct hf_yaml_file *f = map.file;

    for (size_t i = 0; i < hf_yaml_count(map) && i < 2; i++) {
        struct hf_yaml k = hf_yaml_key_at(map, i), before = hf_yaml_value_at(map, 0);
        size_t at = k.node->start_mark.line;
        if (at >= f->n_lines || !first_on_line(f, at, hf_yaml_offset(f, k.node->start_mark)))
            continue;
        /* What looks like a comment may be a line of a text above. */
        bool plain = i == 0 || (before.node->type == YAML_SCALAR_NODE &&
                                before.node->start_mark.line == before.node->end_mark.line);
        *line = at;
        *column = k.node->start_mark.column;
        while (plain && *line > 0 && is_comment_line(f, *line - 1))
            (*line)--;
        return true;
    }
    return false;
}

/* Behind the last pair, if that is a word on a line of its own. */
static bool find_line_behind(struct hf_yaml map, size_t *line, size_t *column)
{
    size_t last = hf_yaml_count(map) - 1;
    struct hf_yaml k = hf_yaml_key_at(map, last), v = hf_yaml_value_at(map, last);

    if (hf_yaml_text(v) == NULL || v.node->data.scalar.value[0] == '\0' ||
        (v.node->data.scalar.style != YAML_PLAIN_SCALAR_STYLE &&
         v.node->data.scalar.style != YAML_SINGLE_QUOTED_SCALAR_STYLE &&
         v.node->data.scalar.style != YAML_DOUBLE_QUOTED_SCALAR_STYLE))
        return false;
    *line = v.node->end_mark.line + 1;
    *column = k.node->start_mark.column;
    return true;
}

static int add_to_block(struct hf_edit *e, struct hf_yaml map, const json_t *pairs, struct hf_error *err)
{
    const struct hf_yaml_file *f = map.file;
    size_t line, column, at, len;
    FILE *out;

    if (hf_yaml_count(map) == 0)
        return cannot(map, err);
    /* The comment above a document's first key speaks of all of it: better at the end. */
    if (!(hf_yaml_key_at(map, 0).node->start_mark.column == 0 && find_line_behind(map, &line, &column)) &&
        !find_line(map, &line, &column) && !find_line_behind(map, &line, &column))
        return cannot(map, err);
    at = line < f->n_lines ? f->lines[line] : f->len;
    out = begin(e, &len, err);
    if (out == NULL)
        return HF_ENOMEM;
    if (at == f->len && at > 0 && f->text[at - 1] != '\n')
        (void)fputs(eol_of(f), out);
    hf_yaml_print(out, pairs, (unsigned)column, eol_of(f));
    return finish(e, at, 0, out, err);
}

static bool is_utf16(const struct hf_yaml_file *f)
{
    return f->len >= 2 && (memcmp(f->text, "\xff\xfe", 2) == 0 || memcmp(f->text, "\xfe\xff", 2) == 0);
}

int hf_edit_add(struct hf_edit *e, struct hf_yaml map, const json_t *pairs, struct hf_error *err)
{
    *e = (struct hf_edit){0};
    if (map.node == NULL || is_utf16(map.file))
        return cannot(map, err);
    if (hf_yaml_is_null(map))
        return add_to_null(e, map, pairs, err);
    if (!hf_yaml_is_map(map))
        return cannot(map, err);
    if (map.node->data.mapping.style == YAML_FLOW_MAPPING_STYLE)
        return add_to_flow(e, map, pairs, err);
    return add_to_block(e, map, pairs, err);
}

/* -- the others -------------------------------------------------------------------------------------- */

int hf_edit_set(struct hf_edit *e, struct hf_yaml scalar, const char *text, struct hf_error *err)
{
    const char *old = hf_yaml_text(scalar);
    size_t at, end;
    yaml_scalar_style_t style;

    *e = (struct hf_edit){0};
    if (old == NULL || is_utf16(scalar.file))
        return cannot(scalar, err);
    style = scalar.node->data.scalar.style;
    at = hf_yaml_offset(scalar.file, scalar.node->start_mark);
    end = hf_yaml_offset(scalar.file, scalar.node->end_mark);
    if (at >= end || end > scalar.file->len)
        return cannot(scalar, err);
    if (style == YAML_PLAIN_SCALAR_STYLE
            ? end - at != strlen(old) || strncmp(scalar.file->text + at, old, end - at) != 0
            : (style != YAML_SINGLE_QUOTED_SCALAR_STYLE && style != YAML_DOUBLE_QUOTED_SCALAR_STYLE) ||
                  (scalar.file->text[at] != '\'' && scalar.file->text[at] != '"'))
        return cannot(scalar, err); /* an anchor, a tag, several lines */
    e->insert = strdup(text);
    if (e->insert == NULL)
        return hf_fail(err, HF_ENOMEM, "out of memory");
    e->offset = at;
    e->remove = end - at;
    return 0;
}

int hf_edit_append(struct hf_edit *e, const struct hf_yaml_file *f, const char *text, struct hf_error *err)
{
    struct hf_yaml last = f->n_docs > 0 ? hf_yaml_root(f, f->n_docs - 1) : (struct hf_yaml){f, NULL, NULL};
    const char *eol = eol_of(f);
    size_t len;
    FILE *out;

    *e = (struct hf_edit){0};
    if (f->broken || is_utf16(f) ||
        (hf_yaml_is_map(last) && last.node->data.mapping.style == YAML_FLOW_MAPPING_STYLE))
        return cannot(last, err); /* JSON has one document */
    out = begin(e, &len, err);
    if (out == NULL)
        return HF_ENOMEM;
    if (f->len > 0 && f->text[f->len - 1] != '\n')
        (void)fputs(eol, out);
    (void)fprintf(out, "---%s", eol);
    for (; *text != '\0'; text++)
        if (*text == '\n')
            (void)fputs(eol, out);
        else
            (void)fputc(*text, out);
    return finish(e, f->len, 0, out, err);
}

void hf_edit_free(struct hf_edit *e)
{
    free(e->insert);
    e->insert = NULL;
}

char *hf_edit_apply(const struct hf_yaml_file *f, const struct hf_edit *edits, size_t n, size_t *len)
{
    size_t total = f->len, from = 0, to = 0;
    char *text;

    for (size_t i = 0; i < n; i++)
        total = total - edits[i].remove + strlen(edits[i].insert);
    text = malloc(total + 1);
    if (text == NULL)
        return NULL;
    for (size_t i = 0; i < n; i++) {
        size_t add = strlen(edits[i].insert);
        memcpy(text + to, f->text + from, edits[i].offset - from);
        to += edits[i].offset - from;
        memcpy(text + to, edits[i].insert, add);
        to += add;
        from = edits[i].offset + edits[i].remove;
    }
    memcpy(text + to, f->text + from, f->len - from);
    text[total] = '\0';
    *len = total;
    return text;
}
