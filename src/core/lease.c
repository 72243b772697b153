#include "lease.h"

#include "decide.h" /* for HF_MUTATED alone */

#include <string.h>

void hf_lease_begin(struct hf_lease *l, hf_epoch epoch, uint64_t length_ns)
{
    uint64_t seq = l->next_seq;

    memset(l, 0, sizeof *l);
    l->epoch = epoch;
    l->length_ns = length_ns;
    l->next_seq = seq + 1;
    l->void_before_seq = seq + 1;
}

void hf_lease_void(struct hf_lease *l)
{
    l->void_before_seq = l->next_seq;
    l->n = 0;
}

uint64_t hf_lease_ping(struct hf_lease *l)
{
    return l->next_seq++;
}

/* Where the ack of `from` is kept. When the table is full (joins and leaves in one long epoch), the oldest
 * ack is forgotten: that can only shorten the lease. */
static unsigned slot_of(struct hf_lease *l, hf_node_id from)
{
    unsigned oldest = 0;

    for (unsigned i = 0; i < l->n; i++) {
        if (l->acked[i].id == from)
            return i;
        if (l->acked[i].sent_ns < l->acked[oldest].sent_ns)
            oldest = i;
    }
    if (l->n < HF_MEMBERS_MAX)
        oldest = l->n++;
    l->acked[oldest].id = from;
    l->acked[oldest].sent_ns = 0;
    return oldest;
}

void hf_lease_ack(struct hf_lease *l, hf_node_id from, uint64_t seq, uint64_t sent_ns)
{
    unsigned i;

    if ((seq < l->void_before_seq && !HF_MUTATED(HF_MUT_OLD_ACKS_COUNT)) || seq >= l->next_seq)
        return;
    i = slot_of(l, from);
    if (sent_ns > l->acked[i].sent_ns)
        l->acked[i].sent_ns = sent_ns;
}

/* The newest time that a majority of `voters` has acked; the leader itself has acked now. */
static uint64_t acked_by(const struct hf_lease *l, const hf_node_id *voters, unsigned n_voters,
                         hf_node_id self)
{
    uint64_t values[HF_MEMBERS_MAX];
    unsigned n = 0;
    bool votes = false;

    for (unsigned i = 0; i < n_voters; i++) {
        uint64_t at = 0;
        if (voters[i] == self) {
            votes = true;
            continue;
        }
        for (unsigned k = 0; k < l->n; k++)
            if (l->acked[k].id == voters[i])
                at = l->acked[k].sent_ns;
        values[n++] = at;
    }
    /* A leader that does not vote in this set needs a whole majority of others. */
    return hf_quorum_value(values, n, votes ? n_voters : n_voters + 2);
}

uint64_t hf_lease_deadline(const struct hf_lease *l, const struct hf_cluster *c, hf_node_id self,
                           uint64_t now_ns)
{
    hf_node_id voters[HF_MEMBERS_MAX];
    unsigned n = hf_cluster_voters(c, voters);
    uint64_t sent, before;

    if (n == 0)
        return 0;
    sent = acked_by(l, voters, n, self);
    if (c->n_previous_voters > 0) {
        before = acked_by(l, c->previous_voters, c->n_previous_voters, self);
        if (before < sent)
            sent = before;
    }
    if (sent == 0)
        return 0;
    if (sent > now_ns)
        sent = now_ns;
    return sent + l->length_ns - l->length_ns / HF_LEASE_DRIFT;
}

void hf_promise_make(struct hf_promise *p, hf_epoch epoch, hf_node_id leader, uint64_t now_ns,
                     uint64_t length_ns)
{
    uint64_t until = length_ns < UINT64_MAX - now_ns ? now_ns + length_ns : UINT64_MAX;

    if (epoch == p->epoch && leader == p->leader && until < p->until_ns)
        until = p->until_ns; /* a shorter lease does not take back a longer promise */
    *p = (struct hf_promise){epoch, leader, until};
}

void hf_promise_let_off(struct hf_promise *p, hf_epoch epoch)
{
    if (epoch == p->epoch)
        p->until_ns = 0;
}

bool hf_promise_binds(const struct hf_promise *p, uint64_t now_ns)
{
    return now_ns < p->until_ns;
}
