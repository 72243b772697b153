/* The founding or joining of a node whose volume is empty (core/form.h). */
#include "node_private.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/clock.h"
#include "base/file.h"
#include "base/log.h"
#include "base/net.h"

/* The id that this volume founds with, if it founds: the same however often node 0 has to begin again, so
 * that a late message of its former life cannot lead anybody elsewhere. */
static int founding_id(const struct hf_node *n, struct hf_uuid *id, struct hf_error *err)
{
    char path[HF_PATH_MAX + 16], *bytes;
    size_t len;
    int rv;

    (void)snprintf(path, sizeof path, "%s/founding.id", n->config->dir);
    rv = hf_file_read(path, sizeof id->b, &bytes, &len, err);
    if (rv == 0 && len == sizeof id->b) {
        memcpy(id->b, bytes, sizeof id->b);
        free(bytes);
        return 0;
    }
    if (rv == 0)
        free(bytes);
    else if (rv != HF_ENOENT)
        return rv;
    hf_node_random(id->b, sizeof id->b);
    return hf_file_write(path, id->b, sizeof id->b, 0600, err);
}

/* -- who else exists ------------------------------------------------------------------------------------------- */

enum { LOOK_MS = 2000, LOOK_AGAIN_MS = 10000, WARN_AFTER = 2 };

/* Pods of a StatefulSet that was scaled are in no list that this node is given, but in the DNS. Whether they exist is known before
 * anything can be founded; a DNS that does not say is no proof that they do not.
 *
 * Asked for are absolute names, which end in a dot: only whoever has the cluster's own zone answers. For a short one the resolver tries
 * search domains in turn; of an element that times out it says nothing (glibc, res_query.c), and takes the upstream's "no such name" for the
 * bare name, or its failure, for the answer.
 *
 * In another zone than the cluster's nobody has a name. So first of all the headless service must have one there: this very pod is in it,
 * ready or not (publishNotReadyAddresses). A pod that has just been made may be early, and a service made anew: it looks again.
 *
 * All of it is read, and nothing kept on disk: a node that dies meanwhile looks anew. Whoever gets a name after a look is found by the next,
 * and holds up a founding that is not on its way to disk yet (hf_form_witness). */
struct others {
    struct hf_node *n;
    uv_work_t work;
    uv_timer_t timer;
    bool exist[HF_MEMBERS_MAX];
    bool known;
    unsigned failed; /* looks in a row */
    struct hf_error why;
};

static void look_up(uv_work_t *work)
{
    struct others *o = work->data;
    const struct hf_node_config *c = o->n->config;
    const char *service = c->domains.text[HF_DOMAINS_MAX - 1], *port = strrchr(c->others[0].addr, ':');
    char addr[HF_NAME_MAX + HF_DOMAIN_MAX + HF_ADDR_MAX];
    struct sockaddr_storage sa;
    socklen_t len;
    int rv;

    o->known = c->domains.n == HF_DOMAINS_MAX;
    if (!o->known) {
        (void)hf_fail(&o->why, HF_EINVAL, "the cluster's domain is not known (hint: HOLDFAST_CLUSTER_DOMAIN, as cluster.local)");
        return;
    }
    (void)snprintf(addr, sizeof addr, "%s.%s", service, port);
    rv = hf_net_resolve(addr, &sa, &len, &o->why);
    o->known = rv == 0;
    if (rv == HF_ENOENT)
        (void)hf_fail(&o->why, rv,
                      "the DNS has no name %s. though this pod is in that service (hint: if its last part is not the cluster's domain, "
                      "HOLDFAST_CLUSTER_DOMAIN says it; the service must be headless, with publishNotReadyAddresses)",
                      service);
    for (unsigned i = 0; i < c->n_others && o->known; i++) {
        (void)snprintf(addr, sizeof addr, "%s.%s.%s", c->others[i].name, service, port);
        rv = hf_net_resolve(addr, &sa, &len, &o->why);
        o->exist[i] = o->exist[i] || rv == 0;
        o->known = rv == 0 || rv == HF_ENOENT;
    }
}

static void look_cb(uv_timer_t *timer);

static void looked_up(uv_work_t *work, int status)
{
    struct others *o = work->data;
    struct hf_node *n = o->n;

    if (status != 0 || n->ending || n->decide != NULL)
        return;
    for (unsigned i = 0; i < n->config->n_others; i++)
        if (o->exist[i])
            hf_form_witness(n->form, n->config->others[i].name);
    if (o->known)
        hf_form_witnesses_known(n->form);
    o->failed = o->known ? 0 : o->failed + 1;
    if (o->failed == WARN_AFTER)
        hf_warn("form: nothing can be founded before it is known who else exists: %s", o->why.text);
    (void)uv_timer_start(&o->timer, look_cb, o->known ? LOOK_AGAIN_MS : LOOK_MS, 0);
}

static void look_cb(uv_timer_t *timer)
{
    struct others *o = timer->data;

    if (!o->n->ending && o->n->decide == NULL && uv_queue_work(&o->n->loop, &o->work, look_up, looked_up) != 0)
        (void)uv_timer_start(timer, look_cb, LOOK_MS, 0);
}

static int look_begin(struct hf_node *n, struct hf_error *err)
{
    struct others *o = calloc(1, sizeof *o);

    if (o == NULL)
        return hf_fail(err, HF_ENOMEM, "%s: out of memory", n->config->name);
    o->n = n;
    o->work.data = o->timer.data = o;
    (void)uv_timer_init(&n->loop, &o->timer);
    look_cb(&o->timer);
    return 0;
}

/* -- the form -------------------------------------------------------------------------------------------------- */

int hf_node_form_begin(struct hf_node *n, struct hf_error *err)
{
    struct hf_form_config c = {.ordinal = n->config->ordinal,
                               .expect = n->config->expect,
                               .uuid = n->uuid,
                               .witnesses_unknown = n->config->n_others > 0,
                               .retry_ns = 100 * HF_MS};
    void *memory = calloc(1, hf_form_size());

    if (memory == NULL)
        return hf_fail(err, HF_ENOMEM, "%s: out of memory", n->config->name);
    if (n->config->ordinal == 0 && founding_id(n, &c.cluster_id, err) != 0) {
        free(memory);
        return HF_EIO;
    }
    (void)snprintf(c.name, sizeof c.name, "%s", n->config->name);
    (void)snprintf(c.peer, sizeof c.peer, "%s", n->config->advertise_peer);
    (void)snprintf(c.sql, sizeof c.sql, "%s", n->config->advertise_sql);
    for (unsigned i = 0; i < n->config->n_seeds && c.n_seeds < HF_MEMBERS_MAX; i++)
        (void)snprintf(c.seeds[c.n_seeds++], HF_NAME_MAX, "%s", n->config->seeds[i].name);
    hf_info("form: the volume is empty: looking for the cluster");
    n->form = hf_form_init(memory, &c, hf_clock_ns());
    return n->config->n_others > 0 ? look_begin(n, err) : 0;
}

static const char *address_of(const struct hf_node *n, const char *name)
{
    const char *addr = hf_node_seed_addr(n, name);

    for (unsigned i = 0; i < n->config->n_others && addr == NULL; i++)
        if (strcmp(n->config->others[i].name, name) == 0)
            addr = n->config->others[i].addr;
    return addr;
}

static void found(struct hf_node *n, const struct hf_form_action *a)
{
    struct hf_error err;

    if (hf_founding_save(n->config->dir, a->members, a->n_members, &err) != 0) {
        hf_err("form: %s", err.text);
        hf_node_end(n, 1);
        return;
    }
    hf_info("form: every expected node is empty: founding the cluster with %u nodes", a->n_members);
    hf_node_member(n, a->members, a->n_members);
}

void hf_node_form_run(struct hf_node *n)
{
    const struct hf_form_action *next;

    while (n->form != NULL && (next = hf_form_next(n->form)) != NULL) {
        struct hf_form_action a = *next;
        const char *addr;
        switch (a.type) {
        case HF_FORM_SEND:
            addr = a.addr[0] != '\0' ? a.addr : address_of(n, a.name);
            if (addr != NULL)
                hf_peer_send(n->peer, a.name, addr, &a.msg);
            break;
        case HF_FORM_PERSIST:
            hf_node_persist(n, &a.durable, 0, true);
            break;
        case HF_FORM_FOUND:
            found(n, &a);
            break;
        case HF_FORM_MEMBER:
            hf_info("form: member %llu of the cluster", (unsigned long long)n->durable.self);
            hf_node_member(n, NULL, 0);
            break;
        case HF_FORM_STUCK:
            hf_warn("form: %s%s%s", a.name, a.name[0] != '\0' ? " " : "", a.text);
            break;
        }
    }
}
