/* The replicated cluster state: who is a member, who votes, and the tree of epochs.
 *
 * This is the finite state machine behind the Raft log. Every node applies the same entries in the
 * same order, so it must be deterministic and must not fail: an entry that makes no sense in the
 * present state is ignored (hf_cluster_apply returns false), on every node alike.
 *
 * The branch list answers the question on which I6 hangs: "may a node whose history ends at
 * (epoch f, LSN l) stream from the leader of epoch e?" Timeline numbers cannot answer it (SAFETY S4:
 * two failed promotions make the same number); epochs with parents can. */
#ifndef HF_CORE_CLUSTER_H
#define HF_CORE_CLUSTER_H

#include "types.h"

struct hf_member {
    hf_node_id id;
    struct hf_uuid uuid; /* of the volume's incarnation; part of application_name (S14) */
    char name[HF_NAME_MAX];
    char peer[HF_ADDR_MAX]; /* peer port, "host:port" */
    char sql[HF_ADDR_MAX];  /* SQL port, "host:port"; for people and status */
    bool voter;             /* false: learner */
};

/* Why an epoch began; shown by `holdfast history`. */
enum hf_why {
    HF_WHY_UNKNOWN,
    HF_WHY_FIRST,       /* the cluster's first epoch */
    HF_WHY_LEADER_LOST, /* the former leader died or could not be reached */
    HF_WHY_HANDOVER,    /* planned: SIGTERM, switchover, scale */
    HF_WHY_CONTINUED,   /* the same leader, elected again, without a promotion */
};

/* One epoch of the tree. A root has parent 0, and starts where initdb's WAL ended. */
struct hf_branch {
    hf_epoch epoch;
    hf_epoch parent;    /* the normalised epoch the leader held when it was appointed */
    hf_lsn start;       /* where this epoch leaves its parent */
    hf_node_id leader;
    uint32_t timeline;  /* PostgreSQL's; 0 until the leader opened (then unknown for ever if it died) */
    hf_lsn opened_lsn;  /* LSN of the barrier; 0 if the gate never opened */
    uint64_t appointed_unix_ms; /* wall clock of the leader, for people only */
    uint8_t why;        /* enum hf_why */
    bool continued;     /* no promotion: same PostgreSQL primary as the parent epoch */
    char leader_name[HF_NAME_MAX];
};

struct hf_cluster {
    struct hf_uuid cluster_id; /* all zero: not founded */
    uint64_t system_id;        /* PostgreSQL's; 0 until the first leader reported it */
    hf_node_id next_id;        /* the next incarnation's Raft id; never reused */
    uint64_t config_seq;       /* counts changes of the voter set */
    unsigned n_members;
    unsigned n_branches;
    struct hf_member members[HF_MEMBERS_MAX];
    /* The voter set before the newest change: a leader that has not loaded the newest rule yet
     * still commits by this one (I3). Differs from the newest by at most one voter. */
    unsigned n_previous_voters;
    hf_node_id previous_voters[HF_MEMBERS_MAX];
    struct hf_branch branches[HF_BRANCHES_MAX]; /* ascending by epoch; the oldest fall out first, but for the newest that was opened */
};

enum hf_entry_type {
    HF_ENTRY_FOUND = 1, /* cluster_id, and the first voters one by one through HF_ENTRY_ADD */
    HF_ENTRY_ADD,       /* member: id must equal next_id; a founder may be added as a voter */
    HF_ENTRY_REMOVE,    /* id */
    HF_ENTRY_ROLE,      /* id, member.voter */
    HF_ENTRY_APPOINT,   /* branch */
    HF_ENTRY_OPENED,    /* branch.epoch, branch.timeline, branch.opened_lsn, system_id */
    HF_ENTRY_SETTLED,    /* the rule of the newest voters is in force: forget the previous ones */
};

struct hf_entry {
    uint8_t type; /* enum hf_entry_type */
    struct hf_uuid cluster_id;
    uint64_t system_id;
    hf_node_id id;
    struct hf_member member;
    struct hf_branch branch;
};

/* Wire and disk form of an entry. Returns the length, or 0 if `cap` is too small. */
size_t hf_entry_encode(const struct hf_entry *e, uint8_t *buf, size_t cap);
/* False for anything that hf_entry_encode could not have written. */
bool hf_entry_decode(struct hf_entry *e, const uint8_t *buf, size_t len);
enum { HF_ENTRY_BYTES_MAX = 1024 };

/* Snapshot form. hf_cluster_encode returns the length, or 0 if `cap` is too small. */
size_t hf_cluster_encode(const struct hf_cluster *c, uint8_t *buf, size_t cap);
bool hf_cluster_decode(struct hf_cluster *c, const uint8_t *buf, size_t len);
enum { HF_CLUSTER_BYTES_MAX = 256 * 1024 };

void hf_cluster_init(struct hf_cluster *c);
bool hf_cluster_founded(const struct hf_cluster *c);
/* Returns whether the entry changed anything. */
bool hf_cluster_apply(struct hf_cluster *c, const struct hf_entry *e);

const struct hf_member *hf_cluster_member(const struct hf_cluster *c, hf_node_id id);
/* It was a member, and no majority that counts has it in it any more: its promises bind nobody (docs/safety.md, "A member that was removed"). */
bool hf_cluster_is_gone(const struct hf_cluster *c, hf_node_id id);
const struct hf_member *hf_cluster_member_named(const struct hf_cluster *c, const char *name);
bool hf_cluster_is_voter(const struct hf_cluster *c, hf_node_id id);
unsigned hf_cluster_voters(const struct hf_cluster *c, hf_node_id out[HF_MEMBERS_MAX]);

/* The newest epoch's branch, or NULL before the first appointment. */
const struct hf_branch *hf_cluster_newest(const struct hf_cluster *c);
const struct hf_branch *hf_cluster_branch(const struct hf_cluster *c, hf_epoch epoch);

/* A node writes an epoch into its lineage *before* the first byte of it, so (epoch f, LSN l) with l
 * before f's start says no more than f's parent does. Walks up until l is at or past the start. Exactly
 * at the start it stays with f: not a byte of f is there, but PostgreSQL may know f's timeline already.
 * LSN 0 is no data, whatever the epoch: (0, 0). */
struct hf_position hf_cluster_normalise(const struct hf_cluster *c, struct hf_position p);
/* -1, 0, 1 as a holds less, the same, or more than b. Both are normalised here. */
int hf_cluster_compare(const struct hf_cluster *c, struct hf_position a, struct hf_position b);

/* Is the history that ends at p a prefix of the leader's of `epoch` (SAFETY S4)? True only if p.epoch
 * is `epoch` or an ancestor of it, and p.lsn is at or before the start of that ancestor's successor
 * on the way to `epoch`. An epoch the tree does not know, neither itself nor as the parent of one that it
 * knows, is never a prefix. Exactly at the start of an epoch that is not on the way: no, for the reason
 * given above, though the bytes would be. */
bool hf_cluster_is_prefix(const struct hf_cluster *c, struct hf_position p, hf_epoch epoch);

/* Up to where all WAL of p's own epoch is part of that history: the start of its successor on the way to `epoch`; of `epoch` itself
 * its own start. 0: p is no prefix. */
hf_lsn hf_cluster_shared(const struct hf_cluster *c, struct hf_position p, hf_epoch epoch);

/* May pg_rewind bring the history that ends at p onto the leader's of `epoch`? pg_rewind finds the
 * fork by timeline numbers, so it is right only if no timeline number occurs on both sides after the
 * last common ancestor; unknown numbers count as equal. Asked only when p is not a prefix, and its answer
 * means nothing else. False means re-clone. */
bool hf_cluster_can_rewind(const struct hf_cluster *c, struct hf_position p, hf_epoch epoch);

#endif
