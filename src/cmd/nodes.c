#include "cmd/nodes.h"

#include <ctype.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "admin/admin.h"
#include "cmd/cmd.h"

enum { MEMBERS_MS = 2000 };

/* -- which ------------------------------------------------------------------------------------------- */

bool hf_nodes_alone(const char *dir, char socket[HF_PATH_MAX])
{
    if (dir[0] == '\0')
        dir = getenv("HOLDFAST_NODE_DIR");
    if (dir == NULL || dir[0] == '\0' || strlen(dir) + sizeof "/admin.sock" > HF_PATH_MAX)
        return false;
    (void)snprintf(socket, HF_PATH_MAX, "%s/admin.sock", dir);
    return access(socket, F_OK) == 0;
}

void hf_nodes_of_local(struct hf_nodes *ns, const struct hf_local *l)
{
    memset(ns, 0, sizeof *ns);
    (void)snprintf(ns->cluster, sizeof ns->cluster, "%s", l->name);
    ns->local = true;
    for (ns->n = 0; ns->n < l->replicas && ns->n < HF_MEMBERS_MAX; ns->n++) {
        struct hf_nodes_one *o = &ns->nodes[ns->n];
        hf_local_node_name(l, ns->n, o->name);
        hf_local_node_path(l, ns->n, "admin.sock", o->socket);
        (void)snprintf(o->sql, sizeof o->sql, "127.0.0.1:%u", hf_local_port(l, ns->n, HF_PORT_SQL));
    }
}

static void add(struct hf_nodes *ns, const char *socket, const json_t *node, bool through)
{
    const char *name = hf_json_text(node, "name");
    struct hf_nodes_one *o = &ns->nodes[ns->n];

    for (unsigned i = 0; i < ns->n; i++)
        if (strcmp(ns->nodes[i].name, name) == 0)
            return;
    if (name[0] == '\0' || ns->n == HF_MEMBERS_MAX)
        return;
    ns->n++;
    (void)snprintf(o->name, sizeof o->name, "%s", name);
    (void)snprintf(o->sql, sizeof o->sql, "%s", hf_json_text(node, "sql"));
    (void)snprintf(o->socket, sizeof o->socket, "%s", socket);
    o->through = through;
}

static int by_ordinal(const void *a, const void *b)
{
    return strverscmp(((const struct hf_nodes_one *)a)->name, ((const struct hf_nodes_one *)b)->name);
}

/* The node itself and the members that it knows. */
static int open_alone(struct hf_nodes *ns, const char *socket, struct hf_error *err)
{
    json_t *request = json_pack("{s:s}", "op", "status"), *status = NULL, *m;
    const char *dash;
    size_t i;
    int rv = hf_admin_ask(socket, request, MEMBERS_MS, &status, err);

    json_decref(request);
    if (rv == HF_ENOENT)
        return hf_fail(err, rv, "%.*s: no node runs there (hint: its log says why)",
                       (int)(strrchr(socket, '/') - socket), socket);
    if (rv != 0)
        return rv;
    memset(ns, 0, sizeof *ns);
    add(ns, socket, status, false);
    json_array_foreach(json_object_get(status, "members"), i, m)
        add(ns, socket, m, true);
    dash = strrchr(ns->nodes[0].name, '-'); /* every node's name ends in its ordinal */
    (void)snprintf(ns->cluster, sizeof ns->cluster, "%.*s",
                   dash != NULL ? (int)(dash - ns->nodes[0].name) : HF_NAME_MAX, ns->nodes[0].name);
    qsort(ns->nodes, ns->n, sizeof ns->nodes[0], by_ordinal);
    json_decref(status);
    return 0;
}

int hf_nodes_open(struct hf_nodes *ns, const char *dir, struct hf_error *err)
{
    char socket[HF_PATH_MAX];
    struct hf_local l;
    int rv;

    if (hf_nodes_alone(dir, socket))
        return open_alone(ns, socket, err);
    rv = hf_cmd_open(&l, dir, err);
    if (rv != 0)
        return rv;
    hf_nodes_of_local(ns, &l);
    hf_local_free(&l);
    return 0;
}

int hf_nodes_find(const struct hf_nodes *ns, const char *name, struct hf_error *err)
{
    char full[2 * HF_NAME_MAX];

    (void)snprintf(full, sizeof full, "%s%s%s", isdigit((unsigned char)name[0]) ? ns->cluster : "",
                   isdigit((unsigned char)name[0]) ? "-" : "", name);
    for (unsigned i = 0; i < ns->n; i++)
        if (strcmp(ns->nodes[i].name, full) == 0)
            return (int)i;
    (void)hf_fail(err, HF_ENOENT, "no node %s in cluster %s (hint: `holdfast status`)", name, ns->cluster);
    return -1;
}

int hf_nodes_silent(const struct hf_nodes *ns, struct hf_error *err)
{
    return hf_fail(err, HF_ENOENT, "no node of cluster %s answers (hint: %s)", ns->cluster,
                   ns->local ? "`holdfast up`" : "the node's log");
}

/* -- asking ------------------------------------------------------------------------------------------ */

int hf_nodes_ask(const struct hf_nodes *ns, unsigned i, json_t *request, int timeout_ms, json_t **answer,
                 struct hf_error *err)
{
    const struct hf_nodes_one *o = &ns->nodes[i];
    json_t *unread = NULL;
    int rv = hf_admin_ask_through(o->socket, o->through ? o->name : NULL, request, timeout_ms,
                                  answer != NULL ? answer : &unread, err);

    json_decref(unread);
    json_decref(request);
    return rv;
}

struct asked {
    pthread_t thread;
    const struct hf_nodes *ns;
    unsigned i;
    const char *op;
    int timeout_ms;
    struct hf_nodes_answer *out;
    bool threaded;
};

static void *ask_one(void *arg)
{
    struct asked *k = arg;
    int rv = hf_nodes_ask(k->ns, k->i, json_pack("{s:s}", "op", k->op), k->timeout_ms, &k->out->body, &k->out->why);

    if (rv == HF_ENOENT)
        (void)hf_fail(&k->out->why, rv, "not running");
    else if (rv == HF_ETIMEOUT)
        (void)hf_fail(&k->out->why, rv, "no answer within %d ms", k->timeout_ms);
    return NULL;
}

void hf_nodes_ask_all(const struct hf_nodes *ns, const char *op, int timeout_ms,
                      struct hf_nodes_answer out[HF_MEMBERS_MAX])
{
    struct asked asked[HF_MEMBERS_MAX];

    memset(out, 0, ns->n * sizeof *out);
    for (unsigned i = 0; i < ns->n; i++) {
        asked[i] = (struct asked){.ns = ns, .i = i, .op = op, .timeout_ms = timeout_ms, .out = &out[i]};
        asked[i].threaded = pthread_create(&asked[i].thread, NULL, ask_one, &asked[i]) == 0;
        if (!asked[i].threaded)
            (void)ask_one(&asked[i]);
    }
    for (unsigned i = 0; i < ns->n; i++)
        if (asked[i].threaded)
            (void)pthread_join(asked[i].thread, NULL);
}

/* -- looking ----------------------------------------------------------------------------------------- */

void hf_nodes_look(const struct hf_nodes *ns, int timeout_ms, struct hf_view_all *v)
{
    struct hf_nodes_answer answers[HF_MEMBERS_MAX];

    memset(v, 0, sizeof *v);
    v->leader = -1;
    v->n = ns->n;
    hf_nodes_ask_all(ns, "status", timeout_ms, answers);
    for (unsigned i = 0; i < v->n; i++) {
        const json_t *s = answers[i].body;
        memcpy(v->nodes[i].name, ns->nodes[i].name, HF_NAME_MAX);
        v->nodes[i].status = answers[i].body;
        v->nodes[i].why = answers[i].why;
        if (s == NULL)
            continue;
        if (hf_json_number(s, "epoch") > v->epoch) {
            v->epoch = hf_json_number(s, "epoch");
            v->leader = -1; /* whoever led an epoch before leads no more */
        }
        if (strcmp(hf_json_text(s, "role"), "leader") == 0 && hf_json_number(s, "epoch") == v->epoch) {
            v->leader = (int)i;
            v->open = strcmp(hf_json_text(s, "state"), "open") == 0;
        }
    }
    if (v->leader < 0)
        v->open = false;
}

void hf_cmd_look(const struct hf_local *l, int timeout_ms, struct hf_view_all *v)
{
    struct hf_nodes ns;

    hf_nodes_of_local(&ns, l);
    hf_nodes_look(&ns, timeout_ms, v);
}

void hf_cmd_look_free(struct hf_view_all *v)
{
    for (unsigned i = 0; i < v->n; i++)
        json_decref(v->nodes[i].status);
    v->n = 0;
}
