/* What node_http.c asks of the rest of a node: a test sets `world`, and asks the operations port. Include it once. */
#ifndef HF_TEST_HTTP_WORLD_H
#define HF_TEST_HTTP_WORLD_H

#include <stdlib.h>
#include <string.h>

#include "node_private.h"

static struct {
    struct hf_cluster cluster;
    struct hf_durable durable;
    struct hf_view view;
    bool readable, gate_open;
} world;

struct hf_view hf_decide_view(const struct hf_decide *d)
{
    (void)d;
    return world.view;
}

struct hf_router_counts hf_router_counts(const struct hf_router *r)
{
    (void)r;
    return (struct hf_router_counts){.gate = 1};
}

const char *hf_router_ended_word(enum hf_ended how)
{
    (void)how;
    return "so";
}

const char *hf_router_refused_word(enum hf_refused why)
{
    (void)why;
    return "full";
}

bool hf_router_is_readable(const struct hf_router *r)
{
    (void)r;
    return world.readable;
}

bool hf_router_gate_is_open(const struct hf_router *r)
{
    (void)r;
    return world.gate_open;
}

struct hf_pg *hf_agent_pg(struct hf_agent *a)
{
    (void)a;
    return NULL;
}

void hf_pg_status(struct hf_pg *pg, struct hf_pg_status *s)
{
    (void)pg;
    memset(s, 0, sizeof *s);
}

hf_lsn hf_node_lsn(const struct hf_node *n)
{
    return n->reads.lag.applied;
}

char *hf_node_status_text(struct hf_node *n)
{
    (void)n;
    return strdup("{}");
}

const struct hf_member *hf_cluster_member(const struct hf_cluster *c, hf_node_id id)
{
    return id != 0 && id <= c->n_members ? &c->members[id - 1] : NULL;
}

#endif
