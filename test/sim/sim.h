/* The simulator: real core, real libraft, a model of PostgreSQL and a seeded world in one process.
 * docs/simulation.md tells what is modelled and how to read a failure. */
#ifndef HF_SIM_H
#define HF_SIM_H

#include <raft.h>
#include <setjmp.h>
#include <stdio.h>

#include "consensus/mend.h"
#include "core/decide.h"
#include "core/form.h"

enum {
    SIM_NODES = 5,
    SIM_RECORDS = 6000, /* WAL of one node */
    SIM_LSN = 16,       /* bytes of a record */
    SIM_BRANCHES = 64,
    SIM_STREAMS = 64,
    SIM_LEDGER = 6000,
    SIM_TRAPS = 16,
    SIM_HELD = 512,
};
#define US 1000ull
#define MS 1000000ull
#define SEC 1000000000ull

/* -- PostgreSQL, modelled (pg.c) ---------------------------------------------------------------------- */

struct record {
    uint64_t id;     /* unique: what was written */
    uint32_t epoch;  /* of the leader who wrote it */
    bool visible;    /* on a primary: the commit has been released, or survived a restart */
};

struct pg {
    enum hf_pg_state state;
    unsigned n, flushed; /* records */
    unsigned seen;       /* rewound: the data have seen what wal[] says up to here, of which the WAL up to n has come with them */
    unsigned unread;     /* so often more it cannot read its last records when it is asked for its position (S10) */
    struct record wal[SIM_RECORDS];
    uint32_t tli;
    unsigned n_hist;
    struct {
        uint32_t tli;
        unsigned end; /* records of that timeline and its ancestors */
    } hist[SIM_BRANCHES];
    unsigned first_kept;     /* older WAL has been recycled (S16) */
    unsigned k, n_rule;      /* the synchronous rule in force */
    hf_node_id rule[HF_MEMBERS_MAX];
    uint64_t effective_ns;   /* from when commits wait for it (S2) */
    bool untouched;          /* a mark on the disk: neither rewound nor replaced since a copy beside began (S8) */
    bool torn;               /* half-way through a rewind */
    bool full;               /* the disk: it does not start */
    bool spoilt;             /* it starts, and ends in its replay */
    bool ends_at_start;      /* it starts once more, and has ended when that is told */
    bool half;               /* its WAL ends inside a record, at a segment's end (S1): what it streams replays nowhere */
    bool checkpointed;       /* since the promotion (S9) */
    uint64_t generation;     /* counts starts and stops: what belongs to an older one is void */
    const struct job *job;   /* under way; only compared */
};

struct stream {
    bool used;
    uint64_t serial;
    int from, to;       /* leader, follower */
    hf_node_id id;      /* of the follower */
    hf_epoch epoch;
    uint64_t from_gen, to_gen;
    unsigned reported;  /* records the walsender believes flushed */
    bool torn;          /* it asks for what lies behind the terms (S1) */
};

/* -- nodes -------------------------------------------------------------------------------------------- */

struct disk {
    struct hf_durable durable;
    bool has_state, has_founding, has_cluster_id;
    struct hf_uuid cluster_id; /* that this volume founds with */
    unsigned n_founding;
    struct hf_member founding[HF_MEMBERS_MAX];
    /* Raft's log. */
    raft_term term;
    raft_id vote;
    unsigned n_entries, cap_entries;
    struct raft_entry *entries;
};

struct raft_pending {
    struct raft_pending *next;
    struct raft_io_append *req;
    const struct raft_entry *entries;
    unsigned n;
    uint64_t serial;
    struct hf_mend mend; /* as it was when the write began */
};

struct node {
    int index;
    char name[HF_NAME_MAX];
    bool exists, up, closing;
    uint64_t life;        /* counts starts */
    uint64_t paused_until;
    bool loop_only;       /* only the loop's thread is starved: router threads and PostgreSQL go on */
    unsigned starve_in;   /* after so many actions more, in the middle of what it was doing; 0: no */
    uint64_t starve_ns;
    int64_t offset_ns;
    double rate;
    unsigned lease_ms;
    struct disk disk;
    struct pg pg;
    /* process */
    struct hf_form *form;
    struct hf_decide *decide;
    bool stepping;
    struct raft raft;
    struct raft_io io;
    struct raft_fsm fsm;
    bool raft_on;
    raft_io_tick_cb tick;
    raft_io_recv_cb recv;
    uint64_t ahead_ms;
    struct raft_pending *pending;
    struct hf_mend mend;
    struct hf_mend_early early;
    raft_index seen_commit; /* as far as check_committed has looked in this life */
    int role;
    uint64_t seen_term, seen_leader;
    unsigned seen_conf;
    /* gate and relay */
    hf_epoch gate_epoch, checked_epoch; /* open; has been seen to be */
    bool draining;
    uint64_t deadline_ns;
    bool relay_open;
    hf_epoch relay_epoch;
    hf_node_id relay_leader;
    struct hf_position relay_position;
    bool dialing;
    /* for checks */
    hf_epoch reported_term;   /* newest FENCE answered (I4) */
    uint64_t write_serial;    /* the newest barrier; older writes are void */
    uint64_t slow_disk_until;
};

struct ack {
    uint64_t id;
    unsigned index; /* position in the WAL */
    uint64_t at;
};

/* -- traps: a fault at a named step (trap.c) ---------------------------------------------------------- */

enum trap_what {
    TRAP_WATCH, /* only counts */
    TRAP_HOLD,  /* what matches is carried out when the trap is lifted */
    TRAP_STALL, /* from the first match on, this node carries nothing out until the trap is lifted */
    TRAP_DROP,  /* a message is lost */
    TRAP_FAIL,  /* PERSIST, WORK, WRITE: the host says no */
    TRAP_CRASH, /* the process is gone right after the action */
};

struct trap {
    bool used;
    int node;                   /* -1: any */
    enum hf_action_type action; /* 0: any */
    int kind;                   /* which message, work, write or entry; -1: any */
    int to;                     /* of a message, as node index; -1: any */
    enum trap_what what;
    unsigned fired;
    void (*also)(struct node *n); /* called at each match, if set */
};

struct held {
    struct trap *trap;
    struct node *n;
    uint64_t life;
    struct hf_action a;
};

/* What a partition may cut: a firewall, or one thread that hangs, need not hit all. */
enum lane { LANE_MSG, LANE_RAFT, LANE_WAL, LANES };

enum { SIM_TERMS = 8192, SIM_COMMITTED = 8192 };

struct world {
    uint64_t seed, now, rng[2];
    bool verbose, quiet;
    enum hf_mutation mutation; /* what hf_mutation becomes when a directed schedule says so */
    bool calm; /* directed schedules: no fault but those they make */
    unsigned n_nodes;
    struct node nodes[SIM_NODES];
    struct stream streams[SIM_STREAMS];
    bool cut[SIM_NODES][SIM_NODES];
    bool lane_cut[LANES][SIM_NODES][SIM_NODES];
    struct trap traps[SIM_TRAPS];
    struct trap *stalled[SIM_NODES];
    unsigned n_held;
    struct held held[SIM_HELD];
    uint64_t look_late_ns; /* the host looks so long after the flush whether a write waits (S2) */
    bool exhausted;        /* whose write fails is refused it: so are all others */
    unsigned rewind_lacks; /* calm: records that a rewind's source has not on its disk yet (S8) */
    uint64_t rule_late_ns; /* calm: a rule comes into force so long after the promotion (S2) */
    uint64_t msg_lag_ns[SIM_NODES]; /* messages of this node take so much longer */
    double loss, duplicate;
    uint64_t delay_max;
    uint64_t serial, next_id;
    unsigned n_acks;
    struct ack acks[SIM_LEDGER];
    struct ack shown; /* the farthest row that a read through a gate has shown */
    unsigned writes, reads, opens;
    bool violated;
    char why[512];
    jmp_buf out;
    struct heap *heap;
    hf_epoch last_open_epoch;
    raft_term committed[SIM_COMMITTED]; /* the term of the entry at index i + 1, once anybody has committed it */
    uint8_t raft_leader[SIM_TERMS]; /* who led in a term: 1 + index; 0: nobody yet */
};

extern struct world *W;

/* world.c */
uint64_t sim_random(void);
uint64_t sim_between(uint64_t lo, uint64_t hi);
bool sim_chance(double p);
void sim_say(const struct node *n, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
void sim_fail(const char *fmt, ...) __attribute__((format(printf, 1, 2), noreturn));
typedef void (*sim_fn)(void *arg);
void sim_after(uint64_t delay, sim_fn fn, void *arg);
bool sim_run_until(uint64_t t);
uint64_t sim_clock(const struct node *n); /* the node's own */
bool sim_reaches(enum lane lane, int from, int to);
bool sim_next(uint64_t limit); /* one event, if there is one until then */

/* raftio.c */
void sim_raft_open(struct node *n);
void sim_raft_start(struct node *n);
void sim_raft_crash(struct node *n);
void sim_raft_watch(struct node *n);
void sim_raft_hint(struct node *n, bool stand);
void sim_raft_wipe(struct disk *d);

/* host.c */
void host_start(struct node *n);
void host_crash(struct node *n);
void host_step(struct node *n, const struct hf_event *e);
void host_later(struct node *n, uint64_t delay, const struct hf_event *e);
struct node *host_of_id(hf_node_id id);
bool host_passes(const struct node *n, hf_epoch session); /* the gate, now */
void host_pg_killed(struct node *n);
void host_pause(struct node *n, uint64_t ns); /* SIGSTOP: nothing of the process goes on */
bool host_answers(const struct node *n);      /* its router's threads run */
void host_lose_volume(struct node *n); /* crashed, and its disks come back empty */
void host_perform(struct node *n, const struct hf_action *a); /* past all traps */

/* pg.c, pg_client.c */
hf_lsn pg_lsn(unsigned n);
void pg_work(struct node *n, const struct hf_action *a);
void pg_interrupt(struct node *n); /* the work under way */
void pg_write(struct node *n, const struct hf_action *a);
void pg_stopped(struct pg *pg, bool clean);
void pg_streams_cut(int leader, int follower); /* -1: any */
void pg_stream_begin(struct node *leader, struct node *follower, const struct hf_action *terms);
unsigned pg_append(struct node *n, uint64_t id, hf_epoch epoch);
bool pg_released(struct node *n, unsigned index);
void pg_client_write(struct node *n);
void pg_client_read(struct node *n);

/* check.c */
void check_open(struct node *n, hf_epoch epoch);
void check_forward(struct node *n);
void check_stream(const struct stream *s);
void check_end(void);

/* trap.c */
bool trap_takes(struct node *n, const struct hf_action *a); /* true: not to be carried out now */
bool trap_interrupt(struct node *n); /* work that is held fails; false: there is none */
struct trap *trap_set(int node, enum hf_action_type action, int kind, enum trap_what what);
void trap_lift(struct trap *t);

/* scenario.c */
void scenario_random(void);
void scenario_node(unsigned i, unsigned lease_ms);
void scenario_traffic(void *arg);

/* directed.c: one schedule for each S-rule that this world can express. */
enum directed_end {
    BREAKS,  /* an invariant breaks */
    STANDS,  /* the rule is about progress: the cluster stands still */
    COVERED, /* another rule holds alone: docs/safety.md says which. The schedule still passes */
};
struct directed_mutation {
    enum hf_mutation m;
    enum directed_end end;
};
struct directed {
    const char *name, *what;
    void (*run)(void);
    struct directed_mutation mutations[4];
};
extern const struct directed directed_all[];
extern const unsigned directed_n;
const struct directed *directed_named(const char *name);

#endif
