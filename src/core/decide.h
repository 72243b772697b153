/* What one node decides: the leadership protocol as a pure state machine.
 *
 * The host (src/node.c, or the simulator) feeds events with hf_decide_step() and then carries out every
 * action that hf_decide_next() hands back, in order. Nothing here blocks, waits or fails: what takes
 * time is an action whose end comes back as an event.
 *
 * The rules are docs/safety.md's; each place that carries one names it (I1..I7, S1..S20). */
#ifndef HF_CORE_DECIDE_H
#define HF_CORE_DECIDE_H

#include "cluster.h"
#include "lease.h"
#include "message.h"

/* What a node must remember across its own crash, apart from Raft's log and PGDATA. Lives outside
 * PGDATA (S19). The host writes it atomically and durably before it reports HF_EV_PERSISTED. */
struct hf_durable {
    struct hf_uuid cluster_id;
    struct hf_uuid uuid;   /* of this volume's incarnation */
    uint64_t system_id;    /* 0 until known */
    hf_node_id self;
    hf_epoch fence;        /* takes no WAL from a leader of an epoch before this (I4) */
    hf_epoch lineage;      /* last epoch followed or led; written before its first byte (S4) */
    uint64_t promise_ns;   /* the largest lease ever promised (S12) */
    bool had_data;         /* a data directory was complete once: never report "empty" again */
    bool founded;          /* the cluster's first epoch was appointed (S15) */
    hf_epoch hold_epoch;   /* S8: rewinding or re-cloning onto this epoch: no position until */
    hf_lsn hold_lsn;       /* consistent, streaming and at or past this LSN; 0: no hold */
};

struct hf_decide_config {
    uint64_t lease_ns;       /* T, the election timeout */
    uint64_t ping_ns;        /* between pings */
    uint64_t grace_ns;       /* wait for the remaining reports after a majority has reported */
    uint64_t resend_ns;      /* FENCE again to who has not reported */
    uint64_t lead_limit_ns;  /* from becoming Raft leader to an open gate; then step down (S13) */
    uint64_t unfit_ns;       /* how long a node that failed to lead stays out */
    uint64_t drain_ns;       /* hand-over: how long running transactions may go on */
    uint64_t heartbeat_ns;   /* between heartbeat writes of an open leader (S13) */
    uint64_t dead_after_ns;  /* a voter unheard for this long stops counting; never below 3 */
    unsigned expect;         /* nodes at founding: the first gate needs floor(n/2)+1 voters */
};

enum hf_raft_role { HF_RAFT_FOLLOWER, HF_RAFT_CANDIDATE, HF_RAFT_LEADER };

/* What PostgreSQL is doing, as far as this node knows. */
enum hf_pg_state {
    HF_PG_EMPTY,   /* no data directory */
    HF_PG_DOWN,    /* data, not running */
    HF_PG_STANDBY, /* running, in recovery */
    HF_PG_PRIMARY, /* running, out of recovery */
};

/* Slow work on PostgreSQL. One at a time: the next is given only after the former's HF_EV_WORK. */
enum hf_work {
    HF_WORK_NONE,
    HF_WORK_INIT,     /* initdb, beside and swapped in. Result: system_id */
    HF_WORK_START,    /* start as a standby, never with a leader to follow. Result: nothing */
    HF_WORK_STOP,     /* immediate stop (S20) */
    HF_WORK_STOP_CLEAN, /* fast stop: all WAL reaches the admitted standbys. Quick after a CHECKPOINT */
    HF_WORK_POSITION, /* receiver gone, replayed to the end of local WAL. Result: lsn. On a
                       * primary: its current insert position */
    HF_WORK_PROMOTE,  /* rule in force, client backends gone (S3), promote. Result: timeline */
    HF_WORK_RULE,     /* load the synchronous rule for `voters`, proven loaded (S2). On a standby:
                       * written and reloaded */
    HF_WORK_REWIND,   /* stop, pg_rewind from the leader, start. Result: ok, or failed = re-clone */
    HF_WORK_CLONE,    /* copy from the leader beside the old directory, verify, swap (I7), start.
                       * Result: ok and lsn (consistent at), or failed and swapped */
    HF_WORK_CHECKPOINT,
};

/* Synchronous writes, on a thread of their own because they may wait for followers. */
enum hf_write {
    HF_WRITE_BARRIER,   /* the epoch record. Results: WAITING (seen in SyncRep, S2), then DONE (lsn). An
                         * older write that still waits is given up for it */
    HF_WRITE_HEARTBEAT, /* S13. Result: DONE */
};

enum hf_event_type {
    HF_EV_TICK = 1,      /* at least every 10 ms */
    HF_EV_RAFT,          /* role, term, raft_leader */
    HF_EV_RAFT_BARRIER,  /* term, ok: every entry committed before `term` has been applied */
    HF_EV_APPLIED,       /* entry: committed */
    HF_EV_RESTORED,      /* cluster: from a snapshot */
    HF_EV_PROPOSED,      /* ok=false: the entry proposed last will not be applied by our doing */
    HF_EV_RAFT_CONFIG,   /* ok: result of RAFT_ADD, RAFT_ROLE, RAFT_REMOVE */
    HF_EV_RAFT_SERVERS,  /* servers, n: Raft's own newest configuration; whenever it changes */
    HF_EV_FOUNDING,      /* member, n: the founder's list of first members, after each start until
                          * the cluster state has it */
    HF_EV_TRANSFERRED,   /* the transfer ended, well or not */
    HF_EV_MESSAGE,       /* msg */
    HF_EV_PEER_UP,       /* id */
    HF_EV_PEER_DOWN,     /* id, proof: death token, or refused on loopback in the local runtime (S6) */
    HF_EV_PERSISTED,     /* seq, ok */
    HF_EV_WORK,          /* work, ok, lsn, timeline, system_id */
    HF_EV_WRITE,         /* write, write_state, epoch, lsn */
    HF_EV_PG_EXIT,       /* the postmaster is gone, unasked */
    HF_EV_GATE_SHUT,     /* after HF_ACT_GATE_SHUT: no thread forwards a result any more (S17) */
    HF_EV_DRAINED,       /* after HF_ACT_GATE_DRAIN: no session is inside a transaction */
    HF_EV_STREAM_CLOSED, /* after HF_ACT_STREAM_CLOSE: not a byte of WAL will reach PostgreSQL */
    HF_EV_STREAM_ASK,    /* leader: id asks to stream: epoch, position, request */
    HF_EV_STREAM_FLUSHED, /* leader: the admitted stream of id, which asked for WAL of `timeline`, reports it
                           * has flushed lsn of epoch */
    HF_EV_STREAM_GONE,    /* leader: an admitted stream of id in epoch has ended */
    HF_EV_STREAM_STATE,  /* follower: streaming or not (ok); lsn = flushed here */
    HF_EV_WAL_MISSING,   /* follower: the leader no longer has the WAL we need (S16) */
    HF_EV_JOIN,          /* member (uuid, name, peer, sql), request */
    HF_EV_LEAVE,         /* id, request */
    HF_EV_SWITCHOVER,    /* id: to whom (0: anybody), request */
    HF_EV_SHUTDOWN,      /* SIGTERM */
};

enum hf_write_state {
    HF_WRITE_WAITING,
    HF_WRITE_DONE,
    HF_WRITE_FAILED,
    HF_WRITE_REFUSED, /* by data that take no transaction any more (varsup.c: xidStopLimit), which all nodes have */
};

struct hf_raft_server {
    hf_node_id id;
    bool voter;
    bool idle; /* added, but does not receive the log yet: RAFT_ADD again */
};

struct hf_event {
    enum hf_event_type type;
    bool ok, proof;
    bool down;    /* WORK: no postmaster runs here now, whatever the job was */
    bool no_space; /* WORK, failed; PG_EXIT: since the disk is full */
    bool swapped; /* WORK, failed clone: the copy is in place of the old data all the same */
    hf_node_id id;
    uint64_t term, seq, request;
    hf_epoch epoch;
    hf_lsn lsn;
    hf_lsn seen; /* WORK, POSITION: the data have seen WAL up to here, past lsn, and it is not here; 0: they have not */
    uint32_t timeline;
    bool torn; /* STREAM_FLUSHED: it broke the terms of STREAM_ADMIT, and gets nothing */
    uint64_t system_id, unix_ms;
    enum hf_raft_role role;
    hf_node_id raft_leader;
    enum hf_work work;
    enum hf_write write;
    enum hf_write_state write_state;
    struct hf_position position;
    const struct hf_entry *entry;     /* borrowed for the call */
    const struct hf_cluster *cluster; /* borrowed for the call */
    const struct hf_msg *msg;         /* borrowed for the call */
    const struct hf_member *member;   /* borrowed for the call */
    const struct hf_raft_server *servers; /* borrowed for the call */
    unsigned n;                       /* of servers, or of members */
};

enum hf_action_type {
    HF_ACT_SEND = 1,     /* msg, to msg.to; may be lost */
    HF_ACT_RAFT_BARRIER, /* -> HF_EV_RAFT_BARRIER */
    HF_ACT_PROPOSE,      /* entry -> HF_EV_APPLIED everywhere, or HF_EV_PROPOSED not ok */
    HF_ACT_TRANSFER,     /* id: Raft leadership -> HF_EV_TRANSFERRED */
    HF_ACT_HINT,         /* the leader is gone. ok: stand for election now; not ok: only stop
                          * believing in it, so that others' pre-votes are answered */
    HF_ACT_RAFT_ADD,     /* id, name, peer: add as a non-voting receiver of the log */
    HF_ACT_RAFT_ROLE,    /* id, ok = voter */
    HF_ACT_RAFT_REMOVE,  /* id */
    HF_ACT_PERSIST,      /* durable, seq -> HF_EV_PERSISTED */
    HF_ACT_WORK,         /* work, epoch, voters, id (leader to copy from) -> HF_EV_WORK */
    HF_ACT_INTERRUPT,    /* the work under way is to fail soon -> its HF_EV_WORK, not ok, or ok if it was done already */
    HF_ACT_WRITE,        /* write, epoch -> HF_EV_WRITE */
    HF_ACT_GATE_OPEN,    /* epoch: sessions may start; results pass while now < lease deadline */
    HF_ACT_GATE_DRAIN,   /* no new transaction; -> HF_EV_DRAINED when none is running */
    HF_ACT_GATE_SHUT,    /* close every session, forward nothing more -> HF_EV_GATE_SHUT */
    HF_ACT_LEASE,        /* deadline_ns: for the gate and the sentinel; 0 = none */
    HF_ACT_STREAM_OPEN,  /* follower: let the WAL receiver reach leader `id` of `epoch`; ask with
                          * `position` */
    HF_ACT_STREAM_CLOSE, /* follower: cut it, refuse -> HF_EV_STREAM_CLOSED */
    HF_ACT_STREAM_ADMIT, /* leader: request */
    HF_ACT_STREAM_REFUSE, /* leader: request, text */
    HF_ACT_STREAM_CUT,   /* leader: cut every admitted stream */
    HF_ACT_JOINED,       /* request: ok, id; or text */
    HF_ACT_ANSWER,       /* request (leave, switchover): ok, text */
    HF_ACT_EXIT,         /* end the process; ok = for good (SIGTERM done), else start me again */
    HF_ACT_PHASE,        /* text, epoch: a milestone for the log and bench/failover */
};

struct hf_action {
    enum hf_action_type type;
    bool ok;
    hf_node_id id;
    uint64_t seq, request, deadline_ns;
    hf_epoch epoch;
    enum hf_work work;
    enum hf_write write;
    struct hf_position position;
    bool intact;  /* WORK, CLONE: the data in place are what they were when the hold was written (S8) */
    hf_lsn begin; /* STREAM_ADMIT: no WAL for who does not begin there or before; 0: no such terms */
    struct hf_msg msg;
    struct hf_entry entry;
    struct hf_durable durable;
    unsigned n_voters;
    hf_node_id voters[HF_MEMBERS_MAX]; /* WORK: the *other* voters, for the rule */
    char name[HF_NAME_MAX], peer[HF_ADDR_MAX];
    const char *text;
};

struct hf_decide; /* one node */

size_t hf_decide_size(void);
/* `memory` has hf_decide_size() bytes. `durable` is what the disk held; `pg` is EMPTY or DOWN: the
 * host has ended any leftover postmaster first. `untouched`: it can show that since the newest CLONE whose `intact` was set no
 * copy has come to take the place of the data, and no REWIND was begun. `now_ns` is when the process started: promises made
 * before it are waited out from there (S12). */
struct hf_decide *hf_decide_init(void *memory, const struct hf_decide_config *config,
                                 const struct hf_durable *durable, enum hf_pg_state pg,
                                 bool untouched, uint64_t now_ns);
void hf_decide_step(struct hf_decide *d, uint64_t now_ns, const struct hf_event *event);
/* The next action to carry out, or NULL. Valid until the next call. */
const struct hf_action *hf_decide_next(struct hf_decide *d);

/* A view for status, metrics and the simulator's checks. */
struct hf_view {
    hf_epoch epoch;        /* newest applied */
    hf_node_id leader;     /* of that epoch */
    bool leading;          /* this node leads `epoch` */
    bool gate_open;        /* opened, not shut: results pass while the lease lasts */
    bool draining;
    uint64_t lease_deadline_ns;
    enum hf_pg_state pg;
    enum hf_work work;     /* under way */
    bool stream_open, streaming;
    bool leader_open;      /* the leader of `epoch` has an open gate, or has said so within the last lease */
    hf_epoch stream_epoch; /* whose leader it comes from, while it is open; else 0 */
    hf_lsn lsn;            /* as last known */
    const char *lead_state; /* name of the leader's state, "none" for others */
    const struct hf_cluster *cluster;
    const struct hf_durable *durable;
};
struct hf_view hf_decide_view(const struct hf_decide *d);
/* On an open leader: no change of members is under way; every voter counts in PostgreSQL's rule and in Raft. */
bool hf_decide_settled(const struct hf_decide *d);

/* Rules that the simulator takes out one at a time to prove that it would notice (docs/safety.md).
 * Compiled in only with HF_MUTATIONS; in the product the mask is the constant 0. */
enum hf_mutation {
    HF_MUT_NONE,
    HF_MUT_SKIP_FENCE,          /* report without closing the stream */
    HF_MUT_FENCE_NOT_DURABLE,   /* report before the fence is on disk */
    HF_MUT_COUNT_ONE_LESS,      /* one report fewer than a majority will do */
    HF_MUT_OPEN_BEFORE_BARRIER, /* gate opens after the promotion */
    HF_MUT_IGNORE_LEASE,        /* gate without a lease */
    HF_MUT_NO_PROMISE_WAIT,     /* report without waiting out the promise */
    HF_MUT_FORGET_PROMISE,      /* no wait after a restart (S12) */
    HF_MUT_NOT_GREATEST,        /* the Raft leader appoints itself whatever the positions */
    HF_MUT_ADMIT_ANY,           /* S1 */
    HF_MUT_BARRIER_BY_INSERT,   /* S1: do not wait for the voters' own reports */
    HF_MUT_ADMIT_BEFORE_WAIT,   /* S2 */
    HF_MUT_LINEAGE_LATE,        /* S4: lineage written after the stream opened */
    HF_MUT_PREFIX_BY_TIMELINE,  /* S4: timelines decide */
    HF_MUT_LSN_ONLY,            /* positions compare without epochs */
    HF_MUT_REFUSED_IS_PROOF,    /* S6 */
    HF_MUT_ACK_WHILE_FENCING,   /* S7 */
    HF_MUT_RESUME_EPOCH,        /* S7: re-elected leader goes on in its old epoch */
    HF_MUT_REPORT_WHILE_REWINDING, /* S8 */
    HF_MUT_DROP_HOLD,           /* S8: a hold is over with a restart, whatever is in place */
    HF_MUT_ANY_LINEAGE,         /* S8: who is copying counts, whatever epoch it had taken part in */
    HF_MUT_REWIND_EARLY,        /* S8: before the barrier */
    HF_MUT_NO_POSITION_REWOUND, /* S8: rewound data that lack WAL cannot tell how far they are */
    HF_MUT_SEEN_IS_NOTHING,     /* S8: rewound data are as far as the WAL that came with them */
    HF_MUT_REWIND_INCOMPLETE,   /* S8: they are rewound again without it */
    HF_MUT_WAL_UNREAD,          /* S10: what cannot be read is an end of WAL */
    HF_MUT_TRUST_REWIND,        /* S9/S4: rewind although a timeline number occurs twice */
    HF_MUT_SHORTER_PROMISE,     /* S12: the promise is waited with today's T */
    HF_MUT_BEGIN_ANYWHERE,      /* S1 */
    HF_MUT_NEVER_UNFIT,         /* S13 */
    HF_MUT_FOUND_ALONE,         /* S15 */
    HF_MUT_NO_RECLONE_ON_MISSING, /* S16 */
    HF_MUT_REPLAY_FOR_EVER,     /* S16: a standby that ends in its replay is started again and again */
    HF_MUT_RELEASE_EARLY,       /* S17: before the gate confirmed */
    HF_MUT_OLD_ACKS_COUNT,      /* S17: acks of pings before the release */
    HF_MUT_PROMOTE_FROM_LOG,    /* S18 */
    HF_MUT_SHRINK_BELOW_3,      /* S20 */
    HF_MUT_CONFIG_TWO_AT_ONCE,  /* I3 */
    HF_MUT_RULE_NOT_LOADED,     /* I3: next change before the rule of the current one is loaded */
    HF_MUT_ODD_COUNTS,          /* I3: who votes in one of two sets only leads if it holds most */
    HF_MUT_RULE_NOT_PROVED,     /* I3: ... before a majority of the newest voters holds a write under it */
    HF_MUT_COUNT,
};
#ifdef HF_MUTATIONS
extern enum hf_mutation hf_mutation;
#define HF_MUTATED(m) (hf_mutation == (m))
#else
#define HF_MUTATED(m) false
#endif

#endif
