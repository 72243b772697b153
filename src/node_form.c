/* The founding or joining of a node whose volume is empty (core/form.h). */
#include "node_private.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/clock.h"
#include "base/file.h"
#include "base/log.h"

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

int hf_node_form_begin(struct hf_node *n, struct hf_error *err)
{
    struct hf_form_config c = {.ordinal = n->config->ordinal,
                               .expect = n->config->expect,
                               .uuid = n->uuid,
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
    n->form = hf_form_init(memory, &c, hf_clock_ns());
    hf_info("form: the volume is empty: looking for the cluster");
    return 0;
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
            addr = hf_node_seed_addr(n, a.name);
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
            hf_warn("form: %s", a.text);
            break;
        }
    }
}
