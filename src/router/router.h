/* From a client to the leader's gate (DESIGN sections 1 and 6).
 *
 * A *client session* begins on any node's SQL port and is carried to the leader: to the gate here
 * if this node leads, else through a tunnel to the leader's node. A *gate session* exists on the
 * leader only: it is connected to PostgreSQL's Unix socket, and what PostgreSQL answers is passed
 * on only if, looked at after it was read, the gate is open as it was when the session began and
 * the lease lasts. A *reader* is served by PostgreSQL here while that is a standby; else, through a
 * tunnel, by another node's; and if there is none, by the leader.
 *
 * All calls and callbacks on the host's loop; the sessions live on threads of their own. */
#ifndef HF_ROUTER_ROUTER_H
#define HF_ROUTER_ROUTER_H

#include <stdbool.h>
#include <stdint.h>
#include <uv.h>

#include "base/allow.h"
#include "base/error.h"
#include "router/list.h"

struct hf_router;
struct hf_router_dial; /* an attempt to reach the leader's node */

enum hf_router_to { HF_TO_LEADER, HF_TO_FOLLOWER };
enum hf_leader_at { HF_LEADER_UNKNOWN, HF_LEADER_HERE, HF_LEADER_ELSEWHERE };

struct hf_router_callbacks {
    void *ctx;
    /* Carry fd (now the callee's) to the leader's node, as a gate session there, or to a follower's as a
     * reader: that of member `id`, or 0: any but this one and the leader, another one each time. Then call
     * hf_router_dialed() once, also when the router has been closed meanwhile. */
    void (*dial)(void *ctx, struct hf_router_dial *d, int fd, enum hf_router_to to, uint64_t id);
    void (*on_drained)(void *ctx);      /* after gate_drain, unless a gate_shut came first: no
                                           session is inside a transaction */
    void (*on_shut)(void *ctx);         /* after each gate_shut: nothing more is forwarded (S17) */
    void (*on_readers_gone)(void *ctx); /* after each follower_readable(false) (S3) */
    /* A follower's: ask the leader how far its WAL goes, then call hf_router_read_told(). May be lost: asked again. */
    void (*read_ask)(void *ctx, uint64_t seq);
    /* The leader's: what hf_router_read_asked() asked, if the gate of `epoch` was open and the lease lasted after `lsn` was read. */
    void (*read_answer)(void *ctx, uint64_t from, uint64_t epoch, uint64_t seq, uint64_t sent_ns, uint64_t lsn);
};

enum hf_router_tls { HF_ROUTER_TLS_OFF, HF_ROUTER_TLS_OFFERED, HF_ROUTER_TLS_REQUIRED };

struct hf_router_config {
    const char *sql, *read_only; /* "host:port" each */
    const char *socket_dir;      /* PostgreSQL's, file .s.PGSQL.5432 */
    enum hf_router_tls tls;      /* from clients on both ports */
    const char *tls_dir;         /* of the certificate that they are shown; unless OFF */
    unsigned hold_ms;            /* how long a connection waits for a leader; 0: 10 s */
    unsigned login_ms;           /* for the startup packet to come, and for the login then; 0: 60 s */
    unsigned max_clients;        /* those carried here from other nodes included; 0: 1000 */
    const struct hf_allow *allow; /* from where clients may come; NULL: from everywhere */
    bool share;               /* free sessions share server connections (share.h); with `follow` */
    unsigned max_servers;     /* of them, for each database and role; 0: as many as PostgreSQL takes */
    unsigned pool_wait_ms;    /* for one to become free; 0: 60 s */
    unsigned stalled_ms;      /* how long a client may keep one by stopping half-way, while others wait for it; 0: for ever */
    unsigned idle_ms;             /* how long a session may be idle outside of a transaction; 0: for ever */
    bool follow;                  /* what each session holds (holds.h); free ones outlive their server (survive.h) */
};

/* HF_EBUSY: a port is in use; `err` says which. Nothing is left behind on failure, except that
 * `loop` has to run once more before it can be closed. */
int hf_router_open(struct hf_router **out, uv_loop_t *loop, const struct hf_router_config *config,
                   const struct hf_router_callbacks *callbacks, struct hf_error *err);
/* Joins the threads; no callback comes after. The memory goes once `loop` has run on. */
void hf_router_close(struct hf_router *r);

/* Clients are shown the certificate that lies in the directory now, from the next connection on. On failure nothing
 * changes. Not where TLS is off. From any thread, also after hf_router_close() until `loop` has run on. */
int hf_router_reload(struct hf_router *r, const char *tls_dir, struct hf_error *err);

/* Something that is secret and the same on all nodes: PostgreSQL's mock authentication nonce. Roles that are not there get
 * salts made from it, so that asking several nodes does not tell them from those that are. */
void hf_router_secret(struct hf_router *r, const uint8_t secret[32]);

/* Where the newest leader that this node knows is, and its epoch. Tunnels to the leader of an
 * earlier epoch are closed: their gate is shut for good. */
void hf_router_leader(struct hf_router *r, enum hf_leader_at where, uint64_t epoch);
void hf_router_gate_open(struct hf_router *r, uint64_t epoch); /* epoch > 0 */
/* A new cluster's roles are being made: logins wait, instead of being told that there is no such role. */
void hf_router_unfurnished(struct hf_router *r, bool yes);
void hf_router_gate_drain(struct hf_router *r); /* sessions between transactions pause */
void hf_router_gate_shut(struct hf_router *r);  /* ends every gate session; results are withheld */
void hf_router_lease(struct hf_router *r, uint64_t deadline_ns); /* CLOCK_BOOTTIME; 0: none */
/* May the read-only port be served by PostgreSQL here, a standby? */
void hf_router_follower_readable(struct hf_router *r, bool yes);
/* While it may: is it too far behind for new readers? Those it has stay. */
void hf_router_follower_behind(struct hf_router *r, bool yes);
/* How many followers elsewhere may be worth a dial: readers go around among them and this node. Of `all` that are connected, since others may
 * be asked again by the time a reader has been refused. */
void hf_router_followers(struct hf_router *r, unsigned n, unsigned all);
/* Reads that are not older than their asking (fresh.h). Member `from`, a follower in `epoch`, asks how far the WAL goes here. */
void hf_router_read_asked(struct hf_router *r, uint64_t from, uint64_t epoch, uint64_t seq, uint64_t sent_ns);
/* The leader of the epoch that is followed here, still, has said so. Only while hf_router_follower_readable(). */
void hf_router_read_told(struct hf_router *r, uint64_t seq, uint64_t lsn);
/* A tunnel from another node's router: begins a gate session, or serves a reader. Takes fd. */
void hf_router_serve(struct hf_router *r, int fd, enum hf_router_to as);
bool hf_router_is_readable(const struct hf_router *r);
bool hf_router_gate_is_open(const struct hf_router *r); /* and takes new sessions */

/* `id`: of the member that was reached, or tried in vain; 0: there is none to try. */
void hf_router_dialed(struct hf_router_dial *d, bool ok, uint64_t id);

enum hf_refused {
    HF_REFUSED_FULL,
    HF_REFUSED_NETWORK,
    HF_REFUSED_PLAIN,   /* without TLS where that is required */
    HF_REFUSED_TLS,     /* a handshake failed */
    HF_REFUSED_STARTUP, /* a startup packet that cannot be understood, or is not carried */
    HF_REFUSED_SLOW,    /* no startup packet or no login in time */
    HF_REFUSED_LEADER,  /* no leader in time */
    HF_REFUSED_PASSWORD, /* a wrong one, or none that can be checked */
    HF_REFUSED_KINDS,
};
const char *hf_router_refused_word(enum hf_refused why);

/* The last word that a session's client has heard: one of the router's, by its SQLSTATE, or... */
enum hf_ended {
    HF_ENDED_57P01,
    HF_ENDED_57P03,
    HF_ENDED_57P05,
    HF_ENDED_08007,
    HF_ENDED_53300,
    HF_ENDED_OTHER,
    HF_ENDED_POSTGRESQL, /* PostgreSQL's own */
    HF_ENDED_UNTOLD,     /* none: it could not be put in, or it was not taken */
    HF_ENDED_KINDS,
};
const char *hf_router_ended_word(enum hf_ended how);

struct hf_router_counts {
    unsigned sessions;                 /* all of them, those that are being closed included */
    unsigned gate, tunnels, readers;   /* by kind, once connected */
    unsigned held;                     /* wait for a leader */
    unsigned pooled;                   /* have no server connection, and need none */
    unsigned lease_held;               /* have an answer that waits for the lease or a barrier */
    unsigned tls;                      /* have TLS with the client */
    unsigned max_clients;
    unsigned cancels, cancels_refused; /* since the start */
    uint64_t accepted, refused[HF_REFUSED_KINDS], bytes_in, bytes_out;
    uint64_t reads_here, reads_elsewhere, reads_leader; /* readers' connections, by who serves them */
    uint64_t moved;                    /* sessions that went on with another server after the loss of theirs */
    uint64_t lost_40001, lost_08007;   /* transactions, of sessions that go on */
    uint64_t ended[HF_ENDED_KINDS];    /* sessions that were let in, otherwise than by their clients */
    uint64_t idle_ended;               /* of these, since they were idle for too long */
    uint64_t reads_waited, reads_given_up;              /* statements that had to be fresh; and were not in time */
    struct {
        unsigned servers, waiting;                 /* connections, or places for them; sessions in line */
        uint64_t taken, remade, waits, late, stalled, waited_ms; /* since the start */
    } pool;
};
struct hf_router_counts hf_router_counts(const struct hf_router *r);

#endif
