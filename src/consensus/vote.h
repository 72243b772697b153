/* libraft 0.15 lets a server that passes its leadership on vote for the one it passes it to although it has voted
 * for another in the same term (electionVote, "is_transferee"): two leaders in one term. Such a request is treated as
 * lost, which Raft allows of any message. */
#ifndef HF_CONSENSUS_VOTE_H
#define HF_CONSENSUS_VOTE_H

#include <stdbool.h>
#include <raft.h>

static inline bool hf_consensus_second_vote(const struct raft *r, const struct raft_message *m)
{
    const struct raft_request_vote *v = &m->request_vote;

    return m->type == RAFT_IO_REQUEST_VOTE && !v->pre_vote && v->term == r->current_term && r->voted_for != 0 &&
           r->voted_for != v->candidate_id;
}

#endif
