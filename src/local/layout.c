#include "local/layout.h"

#include <ctype.h>
#include <errno.h>
#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/file.h"
#include "local/user.h"

/* The last ordinal's ports have to be ports, too. */
enum { CLUSTER_JSON_MAX = 256 * 1024, BASE_PORT_MAX = 65535 - HF_PORT_STEP * HF_MEMBERS_MAX };

/* -- where ------------------------------------------------------------------------------------------- */

static int put(char out[HF_PATH_MAX], const char *a, const char *sep, const char *b,
               struct hf_error *err)
{
    int n = snprintf(out, HF_PATH_MAX, "%s%s%s", a, sep, b);

    return n < HF_PATH_MAX ? 0 : hf_fail(err, HF_EINVAL, "%s: too long a path", a);
}

int hf_local_find(char out[HF_PATH_MAX], const char *given, const char *name, bool *fallback,
                  struct hf_error *err)
{
    char cwd[HF_PATH_MAX], here[HF_PATH_MAX];
    int rv;

    *fallback = false;
    if (given[0] == '/')
        return put(out, given, "", "", err);
    if (getcwd(cwd, sizeof cwd) == NULL)
        return hf_fail(err, HF_EIO, "working directory: %s", strerror(errno));
    if (given[0] != '\0')
        return put(out, cwd, "/", given, err);
    rv = put(here, cwd, "/", HF_LOCAL_DIR, err);
    if (rv != 0)
        return rv;
    if (geteuid() != 0 || hf_user_can_enter(cwd))
        return put(out, here, "", "", err);
    *fallback = true;
    return put(out, HF_LOCAL_FALLBACK, "/", name, err);
}

void hf_local_path(const struct hf_local *l, const char *what, char out[HF_PATH_MAX])
{
    (void)snprintf(out, HF_PATH_MAX, "%s/%s", l->dir, what);
}

bool hf_local_is_name(const char *name)
{
    return name[0] >= 'a' && name[0] <= 'z' && name[strspn(name, "abcdefghijklmnopqrstuvwxyz0123456789-")] == '\0';
}

void hf_local_node_name(const struct hf_local *l, unsigned ordinal, char out[HF_NAME_MAX])
{
    (void)snprintf(out, HF_NAME_MAX, "%s-%u", l->name, ordinal);
}

void hf_local_node_path(const struct hf_local *l, unsigned ordinal, const char *what,
                        char out[HF_PATH_MAX])
{
    (void)snprintf(out, HF_PATH_MAX, "%s/%s-%u%s%s", l->dir, l->name, ordinal,
                   what[0] != '\0' ? "/" : "", what);
}

int hf_local_ordinal(const struct hf_local *l, const char *name)
{
    size_t len = strlen(l->name);
    char *end;
    long v;

    if (strncmp(name, l->name, len) == 0 && name[len] == '-')
        name += len + 1;
    if (!isdigit((unsigned char)*name) || strlen(name) > 4)
        return -1;
    v = strtol(name, &end, 10);
    return *end == '\0' && v < HF_MEMBERS_MAX ? (int)v : -1;
}

unsigned hf_local_port(const struct hf_local *l, unsigned ordinal, unsigned offset)
{
    return l->port + HF_PORT_STEP * ordinal + offset;
}

/* -- cluster.json ------------------------------------------------------------------------------------ */

static int bad(const char *path, const char *what, struct hf_error *err)
{
    return hf_fail(err, HF_ECORRUPT,
                   "%s: %s (hint: the file is damaged or of another version; restore it from a copy)",
                   path, what);
}

static bool text_of(const json_t *o, const char *key, char *out, size_t cap)
{
    const char *v = json_string_value(json_object_get(o, key));

    if (v == NULL || strlen(v) >= cap)
        return false;
    strcpy(out, v);
    return true;
}

static bool number_of(const json_t *o, const char *key, unsigned *out, unsigned min, unsigned max)
{
    const json_t *v = json_object_get(o, key);

    if (!json_is_integer(v) || json_integer_value(v) < (json_int_t)min ||
        json_integer_value(v) > (json_int_t)max)
        return false;
    *out = (unsigned)json_integer_value(v);
    return true;
}

static bool settings_of(const json_t *o, struct hf_local *l)
{
    const json_t *list = json_object_get(o, "settings"), *v;
    size_t i;

    if (list == NULL)
        return true;
    if (!json_is_array(list) || json_array_size(list) > HF_LOCAL_SETTINGS_MAX)
        return false;
    json_array_foreach(list, i, v)
    {
        char *copy = json_is_string(v) ? strdup(json_string_value(v)) : NULL;
        if (copy == NULL)
            return false;
        l->settings[l->n_settings++] = copy;
    }
    return true;
}

int hf_local_load(struct hf_local *l, const char *dir, struct hf_error *err)
{
    char path[HF_PATH_MAX], *text;
    const json_t *a;
    json_t *o;
    size_t len;
    bool ok;
    int rv;

    (void)snprintf(path, sizeof path, "%s", dir); /* `dir` may be l->dir */
    memset(l, 0, sizeof *l);
    strcpy(l->dir, path);
    hf_local_path(l, "cluster.json", path);
    if (access(path, F_OK) != 0 && errno == ENOENT)
        return hf_fail(err, HF_ENOENT,
                       "%s: there is no cluster (hint: `holdfast up` makes one; --dir says where)",
                       l->dir);
    rv = hf_file_read(path, CLUSTER_JSON_MAX, &text, &len, err);
    if (rv != 0)
        return rv;
    o = json_loadb(text, len, 0, NULL);
    free(text);
    a = json_object_get(o, "accounts");
    ok = text_of(o, "name", l->name, sizeof l->name) && hf_local_is_name(l->name) &&
         number_of(o, "port", &l->port, 1, BASE_PORT_MAX) &&
         number_of(o, "replicas", &l->replicas, 1, HF_MEMBERS_MAX) &&
         number_of(o, "expect", &l->expect, 1, HF_MEMBERS_MAX) &&
         number_of(o, "lease_ms", &l->lease_ms, HF_LEASE_MS_MIN, HF_LEASE_MS_MAX) &&
         text_of(a, "app_role", l->accounts.app_role, HF_ACCOUNT_MAX) &&
         text_of(a, "app_password", l->accounts.app_password, HF_ACCOUNT_MAX) &&
         text_of(a, "app_database", l->accounts.app_database, HF_ACCOUNT_MAX) &&
         text_of(a, "admin_role", l->accounts.admin_role, HF_ACCOUNT_MAX) &&
         text_of(a, "admin_password", l->accounts.admin_password, HF_ACCOUNT_MAX) && settings_of(o, l);
    json_decref(o);
    if (!ok) {
        hf_local_free(l);
        return bad(path, "not a description of a cluster", err);
    }
    return 0;
}

int hf_local_save(const struct hf_local *l, struct hf_error *err)
{
    const struct hf_node_accounts *a = &l->accounts;
    char path[HF_PATH_MAX], *text = NULL;
    json_t *settings = json_array(), *o;
    int rv;

    for (unsigned i = 0; i < l->n_settings; i++)
        (void)json_array_append_new(settings, json_string(l->settings[i]));
    o = json_pack("{s:s,s:i,s:i,s:i,s:i,s:o,s:{s:s,s:s,s:s,s:s,s:s}}", "name", l->name, "port",
                  (int)l->port, "replicas", (int)l->replicas, "expect", (int)l->expect, "lease_ms",
                  (int)l->lease_ms, "settings", settings, "accounts", "app_role", a->app_role,
                  "app_password", a->app_password, "app_database", a->app_database, "admin_role",
                  a->admin_role, "admin_password", a->admin_password);
    if (o != NULL)
        text = json_dumps(o, JSON_INDENT(2));
    json_decref(o);
    if (text == NULL)
        return hf_fail(err, HF_ENOMEM, "%s/cluster.json: out of memory", l->dir);
    hf_local_path(l, "cluster.json", path);
    rv = hf_file_write(path, text, strlen(text), 0600, err);
    free(text);
    return rv;
}

void hf_local_free(struct hf_local *l)
{
    for (unsigned i = 0; i < l->n_settings; i++)
        free(l->settings[i]);
    l->n_settings = 0;
}
