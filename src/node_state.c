/* What a node must remember across its own crash, as a small JSON file beside PGDATA (SAFETY S19).
 *
 * JSON because an operator in trouble will read it. Written to a temporary file, synced, renamed, and
 * the directory synced: a crash leaves the old or the new one. */
#include "node_private.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/file.h"
#include "base/number.h"

enum { STATE_BYTES_MAX = 64 * 1024, STATE_VERSION = 1 };

static void hex_of(const struct hf_uuid *u, char out[33])
{
    for (int i = 0; i < 16; i++)
        (void)snprintf(out + 2 * i, 3, "%02x", u->b[i]);
}

static bool hex_to(const char *s, struct hf_uuid *u)
{
    return hf_hex_bytes(s, u->b, sizeof u->b);
}

/* 64-bit unsigned numbers as strings: JSON numbers are signed in jansson. */
static json_t *u64(uint64_t v)
{
    char s[24];

    (void)snprintf(s, sizeof s, "%llu", (unsigned long long)v);
    return json_string(s);
}

static bool get_u64(const json_t *o, const char *key, uint64_t *out)
{
    return hf_number(json_string_value(json_object_get(o, key)), UINT64_MAX, out);
}

/* A flag that is missing is not a flag that says no. */
static bool get_bool(const json_t *o, const char *key, bool *out)
{
    const json_t *v = json_object_get(o, key);

    *out = json_is_true(v);
    return json_is_boolean(v);
}

static int save_json(const char *dir, const char *file, json_t *o, struct hf_error *err)
{
    char path[4096];
    char *text = o != NULL ? json_dumps(o, JSON_INDENT(2)) : NULL;
    int rv;

    json_decref(o);
    if (text == NULL)
        return hf_fail(err, HF_ENOMEM, "cannot write %s/%s: out of memory", dir, file);
    (void)snprintf(path, sizeof path, "%s/%s", dir, file);
    rv = hf_file_write(path, text, strlen(text), 0600, err);
    free(text);
    return rv;
}

static int load_json(const char *dir, const char *file, json_t **out, struct hf_error *err)
{
    char path[4096], *text = NULL;
    size_t len = 0;
    json_error_t je;
    int rv;

    *out = NULL;
    (void)snprintf(path, sizeof path, "%s/%s", dir, file);
    if (access(path, F_OK) != 0 && errno == ENOENT)
        return 0;
    rv = hf_file_read(path, STATE_BYTES_MAX, &text, &len, err);
    if (rv != 0)
        return rv;
    *out = json_loadb(text, len, JSON_REJECT_DUPLICATES, &je);
    free(text);
    if (*out == NULL)
        return hf_fail(err, HF_ECORRUPT,
                       "cannot read %s: line %d: %s (hint: this file is written in one piece; if the "
                       "disk damaged it, empty the node's directory and let it join again)",
                       path, je.line, je.text);
    return 0;
}

int hf_state_save(const char *dir, const struct hf_durable *d, struct hf_error *err)
{
    char cluster_id[33], uuid[33];
    json_t *o;

    hex_of(&d->cluster_id, cluster_id);
    hex_of(&d->uuid, uuid);
    o = json_pack("{s:i,s:s,s:s,s:o,s:o,s:o,s:o,s:o,s:b,s:b,s:o,s:o}", "version", STATE_VERSION,
                  "cluster_id", cluster_id, "uuid", uuid, "system_id", u64(d->system_id), "id",
                  u64(d->self), "fence", u64(d->fence), "lineage", u64(d->lineage), "promise_ns",
                  u64(d->promise_ns), "had_data", (int)d->had_data, "founded", (int)d->founded,
                  "hold_epoch", u64(d->hold_epoch), "hold_lsn", u64(d->hold_lsn));
    return save_json(dir, "state.json", o, err);
}

int hf_state_load(const char *dir, struct hf_durable *out, bool *exists, struct hf_error *err)
{
    json_t *o;
    int rv = load_json(dir, "state.json", &o, err);

    memset(out, 0, sizeof *out);
    *exists = o != NULL;
    if (rv != 0 || o == NULL)
        return rv;
    if (json_integer_value(json_object_get(o, "version")) != STATE_VERSION ||
        !hex_to(json_string_value(json_object_get(o, "cluster_id")), &out->cluster_id) ||
        !hex_to(json_string_value(json_object_get(o, "uuid")), &out->uuid) ||
        !get_u64(o, "system_id", &out->system_id) || !get_u64(o, "id", &out->self) ||
        !get_u64(o, "fence", &out->fence) || !get_u64(o, "lineage", &out->lineage) ||
        !get_u64(o, "promise_ns", &out->promise_ns) || !get_u64(o, "hold_epoch", &out->hold_epoch) ||
        !get_u64(o, "hold_lsn", &out->hold_lsn) || !get_bool(o, "had_data", &out->had_data) ||
        !get_bool(o, "founded", &out->founded))
        rv = hf_fail(err, HF_ECORRUPT,
                     "%s/state.json is not what this version writes (hint: was it edited, or written "
                     "by a newer Holdfast? restore it, or empty the node's directory and let it join "
                     "again)",
                     dir);
    json_decref(o);
    return rv;
}

int hf_founding_save(const char *dir, const struct hf_member *m, unsigned n, struct hf_error *err)
{
    json_t *a = json_array();

    for (unsigned i = 0; a != NULL && i < n; i++) {
        char uuid[33];
        hex_of(&m[i].uuid, uuid);
        if (json_array_append_new(a, json_pack("{s:o,s:s,s:s,s:s,s:s}", "id", u64(m[i].id), "uuid",
                                               uuid, "name", m[i].name, "peer", m[i].peer, "sql",
                                               m[i].sql)) != 0) {
            json_decref(a);
            a = NULL;
        }
    }
    return save_json(dir, "founding.json", a, err);
}

int hf_founding_load(const char *dir, struct hf_member m[HF_MEMBERS_MAX], unsigned *n,
                     struct hf_error *err)
{
    json_t *a;
    int rv = load_json(dir, "founding.json", &a, err);

    *n = 0;
    if (rv != 0 || a == NULL)
        return rv;
    /* Whatever is no such list must not look as if there were none: a founder without one begins anew (node.c). */
    if (json_array_size(a) == 0 || json_array_size(a) > HF_MEMBERS_MAX)
        rv = hf_fail(err, HF_ECORRUPT,
                     "%s/founding.json is not a list of 1 to %d nodes (hint: restore it; or, if the cluster lives on the other "
                     "nodes, empty this node's directory and let it join again)",
                     dir, HF_MEMBERS_MAX);
    for (size_t i = 0; rv == 0 && i < json_array_size(a); i++) {
        const char *name, *peer, *sql, *uuid;
        memset(&m[i], 0, sizeof m[i]);
        if (json_unpack(json_array_get(a, i), "{s:s,s:s,s:s,s:s}", "uuid", &uuid, "name", &name,
                        "peer", &peer, "sql", &sql) != 0 ||
            !get_u64(json_array_get(a, i), "id", &m[i].id) || !hex_to(uuid, &m[i].uuid) ||
            strlen(name) >= HF_NAME_MAX || strlen(peer) >= HF_ADDR_MAX || strlen(sql) >= HF_ADDR_MAX) {
            rv = hf_fail(err, HF_ECORRUPT, "%s/founding.json is damaged", dir);
            break;
        }
        (void)snprintf(m[i].name, sizeof m[i].name, "%s", name);
        (void)snprintf(m[i].peer, sizeof m[i].peer, "%s", peer);
        (void)snprintf(m[i].sql, sizeof m[i].sql, "%s", sql);
        m[i].voter = true;
        *n = (unsigned)i + 1;
    }
    json_decref(a);
    return rv;
}
