#include "quorum.h"

unsigned hf_quorum_others(unsigned n_voters)
{
    return n_voters / 2;
}

static bool contains(const hf_node_id *ids, unsigned n, hf_node_id id)
{
    for (unsigned i = 0; i < n; i++)
        if (ids[i] == id)
            return true;
    return false;
}

static bool is_majority(const hf_node_id *voters, unsigned n_voters, const hf_node_id *ids,
                        unsigned n)
{
    unsigned have = 0;

    for (unsigned i = 0; i < n_voters; i++)
        have += contains(ids, n, voters[i]);
    return n_voters > 0 && have > n_voters / 2;
}

bool hf_quorum_has(const struct hf_cluster *c, const hf_node_id *ids, unsigned n)
{
    hf_node_id voters[HF_MEMBERS_MAX];
    unsigned n_voters = hf_cluster_voters(c, voters);

    if (!is_majority(voters, n_voters, ids, n))
        return false;
    return c->n_previous_voters == 0 ||
           is_majority(c->previous_voters, c->n_previous_voters, ids, n);
}

bool hf_quorum_has_without(const struct hf_cluster *c, hf_node_id odd, const hf_node_id *ids, unsigned n)
{
    hf_node_id others[HF_MEMBERS_MAX];
    unsigned n_voters = hf_cluster_voters(c, others), n_others = 0;

    for (unsigned i = 0; i < n_voters; i++)
        if (others[i] != odd)
            others[n_others++] = others[i];
    return is_majority(others, n_others, ids, n);
}

uint64_t hf_quorum_value(const uint64_t *values, unsigned n, unsigned n_voters)
{
    unsigned k = hf_quorum_others(n_voters); /* that many others are needed */
    uint64_t sorted[HF_MEMBERS_MAX];
    unsigned m = 0;

    if (k == 0)
        return UINT64_MAX;
    if (k > n || k > HF_MEMBERS_MAX)
        return 0;
    for (unsigned i = 0; i < n && i < HF_MEMBERS_MAX; i++) {
        unsigned at = m++;
        while (at > 0 && sorted[at - 1] < values[i]) {
            sorted[at] = sorted[at - 1];
            at--;
        }
        sorted[at] = values[i];
    }
    return sorted[k - 1];
}
