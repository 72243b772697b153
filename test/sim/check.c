/* What must always hold (docs/safety.md), looked at from outside all nodes, in true time. */
#include <string.h>

#include "sim.h"

static void acks_held(const struct node *n, const char *when)
{
    for (unsigned i = 0; i < W->n_acks; i++) {
        const struct ack *a = &W->acks[i];
        if (a->index >= n->pg.n || n->pg.wal[a->index].id != a->id)
            sim_fail("I1: %s %s, and lacks acknowledged commit %llu at %u (it has %u records)", n->name,
                     when, (unsigned long long)a->id, a->index, n->pg.n);
    }
    if (W->shown.id != 0 &&
        (W->shown.index >= n->pg.n || n->pg.wal[W->shown.index].id != W->shown.id))
        sim_fail("I1: %s %s, and lacks row %llu at %u, which a gate has shown (it has %u records)", n->name,
                 when, (unsigned long long)W->shown.id, W->shown.index, n->pg.n);
}

void check_forward(struct node *n)
{
    for (unsigned i = 0; i < SIM_NODES; i++) {
        const struct node *o = &W->nodes[i];
        if (o != n && host_answers(o) && host_passes(o, o->gate_epoch))
            sim_fail("I2: the gates of %s (epoch %llu) and %s (epoch %llu) are open at once", n->name,
                     (unsigned long long)n->gate_epoch, o->name, (unsigned long long)o->gate_epoch);
    }
}

void check_open(struct node *n, hf_epoch epoch)
{
    W->opens++;
    if (epoch <= W->last_open_epoch)
        sim_fail("epoch %llu opens on %s after epoch %llu", (unsigned long long)epoch, n->name,
                 (unsigned long long)W->last_open_epoch);
    W->last_open_epoch = epoch;
    /* Killed a moment ago, and the node has not heard of it yet: nobody answers behind that gate. */
    if (n->pg.state != HF_PG_PRIMARY &&
        (n->pg.state != HF_PG_DOWN || hf_decide_view(n->decide).pg != HF_PG_PRIMARY))
        sim_fail("%s opens its gate and PostgreSQL is no primary", n->name);
    acks_held(n, "opens its gate");
    check_forward(n);
}

/* I6: the follower's history is the leader's, byte by byte. PostgreSQL would not notice. */
void check_stream(const struct stream *s)
{
    const struct pg *l = &W->nodes[s->from].pg, *f = &W->nodes[s->to].pg;
    unsigned n = f->n < l->n ? f->n : l->n;

    for (unsigned i = 0; i < n; i++)
        if (f->wal[i].id != l->wal[i].id)
            sim_fail("I6: %s streams from %s in epoch %llu and differs at record %u", W->nodes[s->to].name,
                     W->nodes[s->from].name, (unsigned long long)s->epoch, i);
}

/* Have so many voters lost what they held (a lost volume, data that do not start, a copy interrupted when it had touched
 * it: S8) that no majority can say what was acknowledged? Then to stand still is right. */
static bool too_much_lost(void)
{
    const struct hf_cluster *c = NULL;
    hf_node_id voters[HF_MEMBERS_MAX];
    unsigned n, able = 0;

    for (unsigned i = 0; i < W->n_nodes; i++)
        if (W->nodes[i].up && W->nodes[i].decide != NULL) {
            const struct hf_cluster *k = hf_decide_view(W->nodes[i].decide).cluster;
            if (c == NULL || k->config_seq > c->config_seq)
                c = k;
        }
    if (c == NULL)
        return false;
    n = hf_cluster_voters(c, voters);
    for (unsigned i = 0; i < n; i++) {
        const struct node *o = host_of_id(voters[i]);
        able += o != NULL && !o->pg.spoilt && (o->disk.durable.hold_lsn == 0 || o->pg.untouched);
    }
    return n > 0 && able * 2 <= n;
}

static void show_nodes(void)
{
    for (unsigned i = 0; i < W->n_nodes; i++) {
        const struct node *n = &W->nodes[i];
        if (!n->up || n->decide == NULL)
            continue;
        struct hf_view v = hf_decide_view(n->decide);
        sim_say(n,
                "id=%llu lead=%s pg=%d n=%u work=%d epoch=%llu fence=%llu lineage=%llu hold=%llu had=%d raft=%d "
                "stream=%d relay=%d members=%u log=%llu/%llu disk=%u pending=%d term=%llu",
                (unsigned long long)v.durable->self, v.lead_state, (int)v.pg, n->pg.n, (int)v.work,
                (unsigned long long)v.epoch, (unsigned long long)v.durable->fence,
                (unsigned long long)v.durable->lineage, (unsigned long long)v.durable->hold_lsn,
                (int)v.durable->had_data, n->role, (int)v.stream_open, (int)n->relay_open,
                v.cluster->n_members, (unsigned long long)n->raft.last_applied,
                (unsigned long long)raft_last_index((struct raft *)(uintptr_t)&n->raft), n->disk.n_entries,
                n->pending != NULL, (unsigned long long)n->raft.current_term);
    }
}

void check_end(void)
{
    const struct node *leader = NULL;

    for (unsigned i = 0; i < SIM_NODES; i++)
        if (W->nodes[i].up && host_passes(&W->nodes[i], W->nodes[i].gate_epoch))
            leader = &W->nodes[i];
    if (leader == NULL && too_much_lost())
        return;
    if (leader == NULL) {
        show_nodes();
        sim_fail("no progress: no gate is open although nothing has failed for long");
    }
    acks_held(leader, "leads at the end");
    for (unsigned i = 0; i < W->n_nodes; i++) {
        const struct node *n = &W->nodes[i];
        if (n->pg.state == HF_PG_EMPTY || n->pg.n + 40 < leader->pg.n) {
            show_nodes();
            sim_fail("no progress: %s has %u records at the end, the leader %u", n->name, n->pg.n,
                     leader->pg.n);
        }
        for (unsigned k = 0; k < n->pg.n && k < leader->pg.n; k++)
            if (n->pg.wal[k].id != leader->pg.wal[k].id)
                sim_fail("I6: at the end %s differs from the leader at record %u", n->name, k);
    }
}
