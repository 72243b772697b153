#include "kube/objects.h"

#include <dirent.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "base/file.h"

enum { PATH_LEN = 4096, DEPTH_MAX = 32 };

static const char *or_empty(const char *s)
{
    return s != NULL ? s : "";
}

static int grow(void **array, size_t n, size_t size, struct hf_error *err)
{
    void *more;

    if (n != 0 && (n & (n - 1)) != 0)
        return 0; /* room is always the next power of two */
    more = realloc(*array, (n == 0 ? 1 : n * 2) * size);
    if (more == NULL)
        return hf_fail(err, HF_ENOMEM, "out of memory");
    *array = more;
    return 0;
}

/* -- objects ----------------------------------------------------------------------------------------- */

/* The items of a typed list from the API do not say their kind. */
static int add_object(struct hf_kube_set *s, struct hf_yaml root, const char *api, const char *kind,
                      struct hf_error *err)
{
    struct hf_kube_object o = {.root = root};

    o.api = or_empty(hf_yaml_text(hf_yaml_get(root, "apiVersion")));
    o.kind = or_empty(hf_yaml_text(hf_yaml_get(root, "kind")));
    o.name = or_empty(hf_yaml_text(hf_yaml_path(root, "metadata.name")));
    o.namespace = or_empty(hf_yaml_text(hf_yaml_path(root, "metadata.namespace")));
    if (o.kind[0] == '\0') {
        o.kind = kind;
        o.api = api;
    }
    if (o.kind[0] == '\0')
        return 0;
    if (s->n_objects == HF_KUBE_OBJECTS_MAX)
        return hf_fail(err, HF_EINVAL, "more than %d objects", HF_KUBE_OBJECTS_MAX);
    if (grow((void **)&s->objects, s->n_objects, sizeof *s->objects, err) != 0)
        return HF_ENOMEM;
    s->objects[s->n_objects++] = o;
    return 0;
}

/* "StatefulSetList" -> "StatefulSet"; lives in the list's own node, so it is cut in place, once. */
static const char *item_kind(struct hf_yaml root)
{
    struct hf_yaml y = hf_yaml_get(root, "kind");
    char *s = y.node != NULL && y.node->type == YAML_SCALAR_NODE ? (char *)y.node->data.scalar.value : NULL;
    size_t len = s != NULL ? strlen(s) : 0;

    if (len <= 4 || strcmp(s + len - 4, "List") != 0)
        return "";
    s[len - 4] = '\0';
    return s;
}

static int add_document(struct hf_kube_set *s, struct hf_yaml root, struct hf_error *err)
{
    const char *kind = or_empty(hf_yaml_text(hf_yaml_get(root, "kind")));
    size_t len = strlen(kind);
    struct hf_yaml items = hf_yaml_get(root, "items");
    const char *of, *api;
    int rv = 0;

    if (len < 4 || strcmp(kind + len - 4, "List") != 0 || !hf_yaml_is_list(items))
        return add_object(s, root, "", "", err);
    api = or_empty(hf_yaml_text(hf_yaml_get(root, "apiVersion")));
    of = item_kind(root);
    for (size_t i = 0; i < hf_yaml_count(items) && rv == 0; i++)
        if (hf_yaml_is_map(hf_yaml_item(items, i)))
            rv = add_object(s, hf_yaml_item(items, i), api, of, err);
    return rv;
}

int hf_kube_set_add(struct hf_kube_set *s, const char *path, char *text, size_t len, struct hf_error *err)
{
    struct hf_yaml_file *f;
    int rv;

    if (s->n_files == HF_KUBE_FILES_MAX) {
        free(text);
        return hf_fail(err, HF_EINVAL, "more than %d files", HF_KUBE_FILES_MAX);
    }
    f = malloc(sizeof *f);
    if (f == NULL || grow((void **)&s->files, s->n_files, sizeof *s->files, err) != 0) {
        free(f);
        free(text);
        return hf_fail(err, HF_ENOMEM, "%s: out of memory", path);
    }
    rv = hf_yaml_parse(f, path, text, len, err);
    if (rv != 0) {
        free(f);
        return rv;
    }
    s->files[s->n_files++] = f;
    for (size_t i = 0; i < f->n_docs && rv == 0; i++)
        rv = add_document(s, hf_yaml_root(f, i), err);
    return rv;
}

void hf_kube_set_free(struct hf_kube_set *s)
{
    for (size_t i = 0; i < s->n_files; i++) {
        hf_yaml_free(s->files[i]);
        free(s->files[i]);
    }
    for (size_t i = 0; i < s->n_skipped; i++)
        free(s->skipped[i]);
    free(s->skipped);
    free(s->files);
    free(s->objects);
    *s = (struct hf_kube_set){0};
}

bool hf_kube_same_namespace(const char *a, const char *b)
{
    return a[0] == '\0' || b[0] == '\0' || strcmp(a, b) == 0;
}

const struct hf_kube_object *hf_kube_find(const struct hf_kube_set *s, const char *kind, const char *namespace,
                                          const char *name)
{
    for (size_t i = 0; i < s->n_objects; i++) {
        const struct hf_kube_object *o = &s->objects[i];
        if (strcmp(o->kind, kind) == 0 && strcmp(o->name, name) == 0 &&
            hf_kube_same_namespace(o->namespace, namespace))
            return o;
    }
    return NULL;
}

/* -- files ------------------------------------------------------------------------------------------- */

static int load_file(struct hf_kube_set *s, const char *path, struct hf_error *err)
{
    char *text;
    size_t len;
    int rv = hf_file_read(path, HF_YAML_TEXT_MAX, &text, &len, err);

    return rv != 0 ? rv : hf_kube_set_add(s, path, text, len, err);
}

static int load_stdin(struct hf_kube_set *s, struct hf_error *err)
{
    size_t len = 0, room = 64 * 1024;
    char *text = malloc(room + 1);

    while (text != NULL) {
        size_t n = fread(text + len, 1, room - len, stdin);
        len += n;
        if (n == 0)
            break;
        if (len > HF_YAML_TEXT_MAX) {
            free(text);
            return hf_fail(err, HF_EINVAL, "standard input: more than %d bytes", HF_YAML_TEXT_MAX);
        }
        if (len == room) {
            char *more = realloc(text, room * 2 + 1);
            if (more == NULL) {
                free(text);
                return hf_fail(err, HF_ENOMEM, "standard input: out of memory");
            }
            text = more;
            room *= 2;
        }
    }
    if (text == NULL)
        return hf_fail(err, HF_ENOMEM, "standard input: out of memory");
    text[len] = '\0';
    if (ferror(stdin)) {
        free(text);
        return hf_fail(err, HF_EIO, "standard input: %s", strerror(errno));
    }
    return hf_kube_set_add(s, "<stdin>", text, len, err);
}

static bool has_ending(const char *name, const char *ending)
{
    size_t a = strlen(name), b = strlen(ending);

    return a > b && strcmp(name + a - b, ending) == 0;
}

static bool is_kustomization(const char *name)
{
    return strcmp(name, "kustomization.yaml") == 0 || strcmp(name, "kustomization.yml") == 0 ||
           strcmp(name, "Kustomization") == 0;
}

static int skip(struct hf_kube_set *s, const char *dir, const char *file, struct hf_error *err)
{
    char path[PATH_LEN];

    if (snprintf(path, sizeof path, "%s/%s", dir, file) >= (int)sizeof path)
        return 0;
    if (grow((void **)&s->skipped, s->n_skipped, sizeof *s->skipped, err) != 0)
        return HF_ENOMEM;
    s->skipped[s->n_skipped] = strdup(path);
    if (s->skipped[s->n_skipped] == NULL)
        return hf_fail(err, HF_ENOMEM, "out of memory");
    s->n_skipped++;
    return 0;
}

/* A patch is half an object: what it does not say is said elsewhere. */
static int skip_patches(struct hf_kube_set *s, const char *dir, const char *file, struct hf_error *err)
{
    static const char *const lists[] = {"patches", "patchesStrategicMerge", "patchesJson6902"};
    struct hf_yaml_file f;
    char path[PATH_LEN], *text;
    size_t len;
    int rv;

    if (snprintf(path, sizeof path, "%s/%s", dir, file) >= (int)sizeof path)
        return hf_fail(err, HF_EINVAL, "%s: the path is too long", dir);
    rv = hf_file_read(path, HF_YAML_TEXT_MAX, &text, &len, err);
    if (rv == 0)
        rv = hf_yaml_parse(&f, path, text, len, err);
    if (rv != 0)
        return rv;
    rv = skip(s, dir, file, err);
    for (size_t d = 0; d < f.n_docs && rv == 0; d++)
        for (unsigned k = 0; k < 3 && rv == 0; k++) {
            struct hf_yaml list = hf_yaml_get(hf_yaml_root(&f, d), lists[k]);
            for (size_t i = 0; i < hf_yaml_count(list) && rv == 0; i++) {
                struct hf_yaml item = hf_yaml_item(list, i);
                const char *name = hf_yaml_text(hf_yaml_is_map(item) ? hf_yaml_get(item, "path") : item);
                if (name != NULL && strchr(name, '\n') == NULL)
                    rv = skip(s, dir, name, err);
            }
        }
    hf_yaml_free(&f);
    return rv;
}

static bool is_skipped(const struct hf_kube_set *s, const char *path)
{
    for (size_t i = 0; i < s->n_skipped; i++)
        if (strcmp(s->skipped[i], path) == 0)
            return true;
    return false;
}

static int load_dir(struct hf_kube_set *s, const char *dir, int depth, struct hf_error *err)
{
    struct dirent **list;
    int n = scandir(dir, &list, NULL, alphasort), rv = 0;

    if (n < 0)
        return hf_fail(err, HF_EIO, "cannot read %s: %s", dir, strerror(errno));
    for (int i = 0; i < n && rv == 0; i++)
        if (is_kustomization(list[i]->d_name))
            rv = skip_patches(s, dir, list[i]->d_name, err);
    for (int i = 0; i < n; i++) {
        char path[PATH_LEN];
        struct stat st;
        const char *name = list[i]->d_name;
        bool fits = snprintf(path, sizeof path, "%s/%s", dir, name) < (int)sizeof path;
        if (rv == 0 && fits && name[0] != '.' && !is_skipped(s, path) && lstat(path, &st) == 0) {
            if (S_ISDIR(st.st_mode) && depth < DEPTH_MAX)
                rv = load_dir(s, path, depth + 1, err);
            else if (!S_ISDIR(st.st_mode) &&
                     (has_ending(name, ".yaml") || has_ending(name, ".yml") || has_ending(name, ".json")))
                rv = load_file(s, path, err);
        }
        free(list[i]);
    }
    free(list);
    return rv;
}

int hf_kube_set_load(struct hf_kube_set *s, const char *path, struct hf_error *err)
{
    struct stat st;

    if (strcmp(path, "-") == 0)
        return load_stdin(s, err);
    if (stat(path, &st) != 0)
        return hf_fail(err, HF_ENOENT, "%s: %s", path, strerror(errno));
    return S_ISDIR(st.st_mode) ? load_dir(s, path, 0, err) : load_file(s, path, err);
}
