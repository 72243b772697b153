/* Majorities. All counting of voters is done here and nowhere else. */
#ifndef HF_CORE_QUORUM_H
#define HF_CORE_QUORUM_H

#include "cluster.h"

/* How many *other* voters must hold a commit besides the leader: floor(n / 2) (DESIGN section 1). */
unsigned hf_quorum_others(unsigned n_voters);

/* Is the set `ids` a majority of the newest voters and of the voters before the newest change? Both,
 * because a leader may still commit by the older rule (I3). Ids that do not vote are not counted;
 * duplicates count once. */
bool hf_quorum_has(const struct hf_cluster *c, const hf_node_id *ids, unsigned n);

/* While the voters change by one, `odd`, which is not in both sets: are `ids` without it a majority of the others? Such a majority meets
 * every majority of either set outside of `odd`: of n voters in the greater set, whose majorities have at least floor(n/2) without it,
 * it has floor((n-1)/2) + 1 of the n - 1 others, and together that is more than there are. */
bool hf_quorum_has_without(const struct hf_cluster *c, hf_node_id odd, const hf_node_id *ids, unsigned n);

/* The k-th greatest of n values such that `self` plus the owners of the values at or above it are a
 * majority: with values[i] the newest time at which voter i acked, the result is the newest time that
 * a majority (the leader included) has acked. n_voters counts the leader too; values are of the
 * other voters. Returns UINT64_MAX when the leader alone is a majority. */
uint64_t hf_quorum_value(const uint64_t *values, unsigned n, unsigned n_voters);

#endif
