/* What libraft 0.15 does against Raft's rules, and what is done about it, around libraft. For whoever stands
 * between it and its disk and network: consensus.c, and the simulator.
 *
 *  - A server that passes its leadership on votes for the one it passes it to although it has voted for another in
 *    the same term (electionVote, "is_transferee"): two leaders in one term. Such a request is treated as lost, which
 *    Raft allows of any message.
 *  - A follower answers a heartbeat with the end of its log (recvAppendEntries, "last_stored"; the same in
 *    appendFollowerCb for a write that was begun in an older term). What lies behind the entries it was asked about may
 *    be another leader's. The leader takes it for its own, and commits what is on no majority.
 *  - A follower commits up to the end of its log as far as the leader has (replicationAppend, appendFollowerCb), not
 *    up to "the index of the last new entry" (Ongaro's dissertation, figure 3.1): perhaps another leader's entry.
 *  - Who refuses a pre-vote answers with the term it was asked about, not with its own (recvRequestVote). So who holds more of
 *    the log, and is two terms behind, never learns of them: it asks in vain, refuses the other, who holds less, and nobody
 *    ever leads. "Reply false if term < currentTerm", and the reply has the "currentTerm, for candidate to update itself".
 *  - A leader commits what it has stored when a majority has it, of whatever term it is (replicationQuorum). "Only log
 *    entries from the leader's current term are committed by counting replicas" (section 3.6.2): an entry of an earlier
 *    term may be on a majority, and who leads next have another in its place. So until something of its own term is on
 *    its disk a leader hears of no more than all it has stored but the last, and of the rest when it is: libraft counts
 *    the last it has stored, nothing else. (Later versions mend it themselves.)
 *
 * All but the third and the last were failing seeds of the simulator; the second is its schedule R1, the fourth R3, the last
 * R4. The third needs a leader that says more than libraft's own does; it costs nothing to be sure. */
#ifndef HF_CONSENSUS_MEND_H
#define HF_CONSENSUS_MEND_H

#include <stdbool.h>
#include <raft.h>

enum { HF_MEND_SERVERS = 32 };

/* What a follower was told last: up to here its log is the leader's of that term, if it accepts. */
struct hf_mend {
    raft_term term;
    raft_index last;
};

/* True: to be treated as lost. */
static inline bool hf_mend_second_vote(const struct raft *r, const struct raft_message *m)
{
    const struct raft_request_vote *v = &m->request_vote;

    return m->type == RAFT_IO_REQUEST_VOTE && !v->pre_vote && v->term == r->current_term && r->voted_for != 0 &&
           r->voted_for != v->candidate_id;
}

/* The term of an entry; 0: it is not in the log. */
static inline raft_term hf_mend_term_at(const struct raft_log *l, raft_index index)
{
    size_t n = l->back >= l->front ? l->back - l->front : l->size - l->front + l->back;

    if (index != 0 && index == l->snapshot.last_index)
        return l->snapshot.last_term;
    if (index <= l->offset || index > l->offset + n)
        return 0;
    return l->entries[(l->front + (index - l->offset - 1)) % l->size].term;
}

/* Is the last entry on this leader's disk, which libraft would count, of an earlier term? */
static inline bool hf_mend_older(const struct raft *r)
{
    raft_term term = hf_mend_term_at(&r->log, r->last_stored);

    return term != 0 && term < r->current_term;
}

/* What the followers said that a leader has not heard in full. */
struct hf_mend_early {
    raft_term term; /* in which it leads */
    unsigned n;
    struct {
        raft_id id;
        raft_index last;
    } of[HF_MEND_SERVERS];
};

/* Before libraft gets any message. */
static inline void hf_mend_counted(struct hf_mend_early *k, const struct raft *r, struct raft_message *m)
{
    struct raft_append_entries_result *a = &m->append_entries_result;
    raft_index most = r->last_stored > r->commit_index ? r->last_stored - 1 : r->last_stored;
    unsigned i = 0;

    if (m->type != RAFT_IO_APPEND_ENTRIES_RESULT || r->state != RAFT_LEADER || a->term != r->current_term ||
        a->rejected != 0 || a->last_log_index <= most || !hf_mend_older(r))
        return;
    if (k->term != a->term)
        *k = (struct hf_mend_early){.term = a->term};
    while (i < k->n && k->of[i].id != m->server_id)
        i++;
    if (i == k->n && i < HF_MEND_SERVERS) { /* no room: the next heartbeat's answer tells it again */
        k->of[i].id = m->server_id;
        k->of[i].last = 0;
        k->n++;
    }
    if (i < k->n && a->last_log_index > k->of[i].last)
        k->of[i].last = a->last_log_index;
    a->last_log_index = most;
}

/* After libraft has been told of a write of its own: true: `m` is to be given to it, and this asked again. */
static inline bool hf_mend_again(struct hf_mend_early *k, const struct raft *r, struct raft_message *m)
{
    if (k->n == 0 || (r->state == RAFT_LEADER && k->term == r->current_term && hf_mend_older(r)))
        return false;
    k->n--;
    *m = (struct raft_message){.type = RAFT_IO_APPEND_ENTRIES_RESULT, .server_id = k->of[k->n].id, .server_address = ""};
    m->append_entries_result = (struct raft_append_entries_result){.term = k->term, .last_log_index = k->of[k->n].last};
    return true;
}

/* Before libraft gets any message. Kept, with each write that libraft begins upon it, until that is done. */
static inline void hf_mend_received(struct hf_mend *k, struct raft_message *m)
{
    struct raft_append_entries *a = &m->append_entries;

    if (m->type != RAFT_IO_APPEND_ENTRIES)
        return;
    *k = (struct hf_mend){a->term, a->prev_log_index + a->n_entries};
    if (a->leader_commit > k->last)
        a->leader_commit = k->last;
}

/* Before any message of libraft's goes out; `k` as it was kept with what the message answers. */
static inline void hf_mend_answer(const struct hf_mend *k, const struct raft *r, struct raft_message *m)
{
    struct raft_append_entries_result *a = &m->append_entries_result;
    struct raft_request_vote_result *v = &m->request_vote_result;
    raft_index last = k->term == r->current_term ? k->last : 0; /* 0: nothing is known of this leader's log */

    if (m->type == RAFT_IO_APPEND_ENTRIES_RESULT && a->rejected == 0 && a->last_log_index > last)
        a->last_log_index = last;
    if (m->type == RAFT_IO_REQUEST_VOTE_RESULT && !v->vote_granted && v->term < r->current_term)
        v->term = r->current_term;
}

#endif
