/* The inside of one node's protocol, shared by the decide_*.c files.
 *
 * Decisions are level-triggered: an event only records what happened, then every run function looks at
 * the whole state and asks "what is missing?". So a lost, doubled or late event can delay a decision
 * but cannot make one twice. */
#ifndef HF_CORE_DECIDE_PRIVATE_H
#define HF_CORE_DECIDE_PRIVATE_H

#include "decide.h"

enum { HF_ACTIONS_MAX = 128, HF_ASKS_MAX = HF_MEMBERS_MAX };

/* The leader's states, in order (DESIGN section 5; docs/architecture.md has the drawing). */
enum hf_lead_state {
    HF_LEAD_NONE,       /* not Raft leader, or gave up in this term */
    HF_LEAD_FENCING,    /* FENCE sent, collecting reports; Raft barrier under way */
    HF_LEAD_INIT,       /* nobody has data and nobody ever had: initdb here */
    HF_LEAD_APPOINTING, /* APPOINT proposed */
    HF_LEAD_RECORDING,  /* lineage on its way to disk */
    HF_LEAD_PROMOTING,
    HF_LEAD_BARRIER,    /* epoch record written, followers being admitted */
    HF_LEAD_OPEN,       /* barrier done; the gate is open while the lease lasts */
    HF_LEAD_SETTLING,   /* hand-over: checkpoint while clients still work */
    HF_LEAD_DRAINING,   /* hand-over: running transactions end */
    HF_LEAD_SHUTTING,   /* gate shut, waiting for the threads' confirmation */
    HF_LEAD_STOPPING,   /* hand-over: PostgreSQL stops, sending its last WAL */
    HF_LEAD_YIELDING,   /* Raft leadership on its way to another */
};

enum hf_gate_state { HF_GATE_SHUT, HF_GATE_SHUTTING, HF_GATE_OPEN, HF_GATE_DRAINING };

/* On the way out, or to hand over: how long a checkpoint or a rewind may go on before it is interrupted. Kubernetes waits for 30 s by
 * itself and 120 s in our manifests, and a leave and the stop want their part. */
#define HF_FINISH_NS (15000 * HF_MS)

struct hf_report {
    hf_node_id from;
    uint8_t flags;
    struct hf_position position;
};

struct hf_ask {
    hf_node_id id;
    uint64_t request;
    hf_epoch epoch;
    struct hf_position position;
};

/* What the leader knows of another member in this epoch. */
struct hf_other {
    hf_node_id id;
    bool admitted;
    bool gone;             /* its stream has ended since our PostgreSQL is being stopped */
    bool began;            /* it has WAL of this epoch from the start on: nothing of another history lies before what it asks for */
    bool torn;             /* it would have begun later: its WAL is of no use here, and it has been told so */
    hf_lsn flushed;        /* of this epoch's timeline, by its own report over the stream; 0: none */
    uint8_t flags;         /* of its last ack: NOTHING, UNFIT */
    hf_lsn most;           /* the greatest it ever said in this epoch, over all its connections */
    uint64_t grew_ns;      /* and when; or when its copy was done */
    uint64_t heard_ns;     /* last ack of a ping */
};

struct hf_decide {
    struct hf_decide_config cfg;
    uint64_t now_ns, started_ns;
    struct hf_cluster cluster;

    /* Disk. `disk` is what we want there, `saved` what is known to be there. */
    struct hf_durable disk, saved, saving;
    uint64_t persist_seq;
    bool persist_busy;
    uint64_t persist_retry_ns;

    /* Raft. */
    enum hf_raft_role role;
    uint64_t term;
    hf_node_id raft_leader;
    unsigned n_servers;
    struct hf_raft_server servers[HF_MEMBERS_MAX];
    unsigned n_founding;
    struct hf_member founding[HF_MEMBERS_MAX];
    uint64_t hint_ns; /* stand for election at this time; 0: no */
    unsigned hint_rank, hints_left;

    /* PostgreSQL here. */
    enum hf_pg_state pg;
    enum hf_work work;
    hf_epoch work_epoch;
    bool interrupted;          /* the work under way: asked to end */
    uint64_t work_config_seq;  /* the rule that the work under way writes */
    uint64_t rule_config_seq;  /* the rule in force; meaningful while PostgreSQL runs */
    uint64_t work_retry_ns;    /* after a failure: not before */
    unsigned futile_starts;    /* in a row: it did not start, or ended before it streamed or led */
    unsigned futile_positions; /* in a row: asked where its history ends, it could not tell */
    hf_epoch primary_epoch;    /* pg == PRIMARY: promoted or continued in this epoch */
    bool end_known;            /* end_lsn is the end of WAL and cannot grow */
    hf_lsn end_lsn;
    bool incomplete;           /* the WAL before end_lsn is not all here, though the data have seen it: rewound, and not streamed yet */

    /* Follower. */
    bool stream_open, stream_closing, streaming;
    hf_epoch stream_epoch;
    hf_lsn flushed;
    struct hf_position followed_from; /* our position when we began to follow stream_epoch */
    bool reclone;                     /* rewinding failed or WAL is missing */
    enum { HF_COPY_NONE, HF_COPY_CLONE, HF_COPY_REWIND } copying; /* decided, not finished */
    hf_epoch copying_for;             /* from the leader of this epoch */
    bool intact;                      /* the hold was set here, and the old data are untouched yet */
    uint64_t newest_since_ns;         /* when the newest epoch was applied here */
    hf_epoch rewind_allowed;          /* the leader of this epoch said so */
    uint64_t leader_heard_ns;         /* last ping of the newest epoch's leader */
    hf_epoch leader_heard_epoch;
    hf_lsn leader_barrier;
    bool leader_copies;               /* its PostgreSQL may be copied */
    bool leader_open;                 /* its gate is open */
    unsigned n_order;
    hf_node_id order[HF_MEMBERS_MAX];

    /* Voter. */
    struct hf_promise promise;
    hf_epoch fencing;          /* greatest FENCE seen, on disk or not yet */
    hf_node_id fencing_from;
    bool report_due;           /* asked (again) */
    hf_epoch released_epoch;   /* its leader released it: that node is busy stopping */

    /* Up or down as the peer connections tell; for the grace only. */
    unsigned n_down;
    hf_node_id down[HF_MEMBERS_MAX];

    /* Leader. */
    enum hf_lead_state lead;
    uint64_t lead_term, lead_since_ns, lead_state_ns;
    bool settled;              /* Raft barrier of lead_term is done */
    uint64_t grace_until_ns, resend_ns, ping_ns, unfit_until_ns;
    unsigned n_reports;
    struct hf_report reports[HF_MEMBERS_MAX];
    bool appoint_sent, continued;
    uint32_t timeline, promoted_timeline; /* of lead_term; of the promotion that a continued leader lives on */
    bool barrier_sent, barrier_waiting, barrier_inserted, barrier_done;
    hf_lsn barrier_lsn;
    bool opened_sent, checkpoint_done;
    bool write_busy;
    uint64_t heartbeat_ns;     /* when the last one was sent */
    uint64_t heartbeat_ok_ns;  /* when the last write was done */
    bool heartbeat_failed;     /* the last one did */
    hf_lsn heartbeat_lsn;
    uint64_t write_config_seq; /* the rule in force when the write under way was sent */
    uint64_t proved_config_seq; /* a write under this rule is done: it holds all before heartbeat_lsn (I3) */
    struct hf_lease lease;
    bool pinging;              /* false once released: the epoch is over (S17) */
    uint64_t deadline_ns;      /* as last handed out */
    enum hf_gate_state gate;
    hf_epoch gate_epoch;
    unsigned n_asks;
    struct hf_ask asks[HF_ASKS_MAX];
    unsigned n_others;
    struct hf_other others[HF_MEMBERS_MAX];

    /* Hand-over and end. */
    bool handover, shutdown, exited, drained;
    hf_node_id handover_to;
    uint64_t handover_request;
    bool transfer_busy;
    hf_node_id transfer_tried;
    uint64_t transfer_ns;
    uint64_t shutdown_ns;
    bool shutdown_settled, shutdown_stopped; /* the checkpoint, the stop: asked for */

    /* Membership, leader only. */
    bool config_busy;          /* a Raft configuration change is under way */
    bool propose_busy;
    uint64_t propose_ns;
    struct {
        bool used;
        uint64_t request;
        struct hf_member member;
    } join;
    struct {
        bool used;
        uint64_t request;
        hf_node_id id;
    } leave;

    unsigned a_first, a_n;
    struct hf_action actions[HF_ACTIONS_MAX];
};

/* decide.c */
struct hf_action *hf_emit(struct hf_decide *d, enum hf_action_type type);
void hf_emit_send(struct hf_decide *d, const struct hf_msg *m);
void hf_emit_work(struct hf_decide *d, enum hf_work work, hf_epoch epoch);
void hf_interrupt(struct hf_decide *d); /* the work under way */
void hf_emit_phase(struct hf_decide *d, const char *text, hf_epoch epoch);
void hf_emit_answer(struct hf_decide *d, uint64_t request, bool ok, const char *text);
void hf_propose(struct hf_decide *d, const struct hf_entry *e);
bool hf_saved(const struct hf_decide *d); /* nothing is waiting for the disk */
hf_node_id hf_self(const struct hf_decide *d);
void hf_pg_lost(struct hf_decide *d, bool no_space); /* PostgreSQL does not run any more, unasked */
hf_epoch hf_newest_epoch(const struct hf_decide *d);
hf_node_id hf_newest_leader(const struct hf_decide *d);

/* decide_voter.c: promises, fences, reports, hints. */
void hf_voter_ping(struct hf_decide *d, const struct hf_msg *m);
void hf_voter_fence(struct hf_decide *d, hf_epoch term, hf_node_id from);
void hf_voter_release(struct hf_decide *d, const struct hf_msg *m);
void hf_voter_peer_down(struct hf_decide *d, hf_node_id id, bool proof);
void hf_voter_run(struct hf_decide *d);
bool hf_voter_is_unfit(const struct hf_decide *d);
bool hf_voter_may_continue(const struct hf_decide *d);

/* decide_fence.c: who holds all that was acknowledged; ends with the appointment. */
bool hf_decide_is_down(const struct hf_decide *d, hf_node_id id); /* as far as this node knows */
void hf_fence_report(struct hf_decide *d, const struct hf_report *r);
void hf_fence_run(struct hf_decide *d);
void hf_fence_init_run(struct hf_decide *d); /* nobody has, or ever had, anything: initdb */

/* decide_lead.c: from the appointment to an open gate, and what keeps it open. */
void hf_lead_raft(struct hf_decide *d);
void hf_lead_ack(struct hf_decide *d, const struct hf_msg *m);
void hf_lead_write(struct hf_decide *d, const struct hf_event *e);
void hf_lead_run(struct hf_decide *d);
/* Gives up leading in this term: the gate is shut for good, streams are cut. */
void hf_lead_end(struct hf_decide *d);
void hf_lead_set(struct hf_decide *d, enum hf_lead_state state);
bool hf_lead_owns_pg(const struct hf_decide *d); /* follow_run keeps its hands off */
bool hf_lead_held(const struct hf_decide *d, hf_lsn lsn); /* a majority says that it holds lsn of this epoch */
struct hf_other *hf_lead_other(struct hf_decide *d, hf_node_id id);
void hf_gate_shut(struct hf_decide *d);

/* decide_yield.c: hand-over and stepping down. */
void hf_yield_begin(struct hf_decide *d, hf_node_id to); /* after the gate: pass Raft leadership on */
void hf_yield_unfit(struct hf_decide *d, const char *why);
void hf_yield_run(struct hf_decide *d);
void hf_yield_request(struct hf_decide *d, hf_node_id to, uint64_t request);

/* decide_stream.c: the leader's side of replication streams. */
void hf_stream_ask(struct hf_decide *d, const struct hf_event *e);
void hf_stream_flushed(struct hf_decide *d, const struct hf_event *e);
void hf_stream_gone(struct hf_decide *d, const struct hf_event *e);
void hf_stream_run(struct hf_decide *d);
void hf_stream_cut(struct hf_decide *d);
/* Was who stands there copied in that epoch? Its WAL is of that history to its end, then. */
bool hf_stream_is_copy(const struct hf_branch *b, struct hf_position p);

/* decide_follow.c: what PostgreSQL here should be doing. */
void hf_follow_work(struct hf_decide *d, const struct hf_event *e);
void hf_follow_run(struct hf_decide *d);
void hf_follow_futile(struct hf_decide *d, bool no_space); /* a start that came to nothing */
bool hf_follow_is_futile(const struct hf_decide *d);       /* so many of them that these data are given up */
void hf_follow_close(struct hf_decide *d); /* cut the stream; confirmed by stream_closing = false */

/* decide_member.c: joins, leaves, learners, the dead. */
void hf_member_join(struct hf_decide *d, const struct hf_event *e);
void hf_member_leave(struct hf_decide *d, const struct hf_event *e);
hf_node_id hf_member_odd(const struct hf_decide *d); /* who votes in one of two sets only, and can lead in neither; 0: nobody */
bool hf_member_found(struct hf_decide *d); /* true: the founding is complete */
void hf_member_run(struct hf_decide *d);

#endif
