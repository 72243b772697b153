/* What nodes say to each other, apart from Raft's own messages and the byte streams.
 *
 * One flat struct: a field means something only for the types named beside it. Any message may be
 * lost, doubled, reordered or a minute late; what makes that harmless is said at each handler. */
#ifndef HF_CORE_MESSAGE_H
#define HF_CORE_MESSAGE_H

#include "types.h"

enum hf_msg_type {
    HF_MSG_PING = 1, /* leader -> voter and learner: I lead `epoch`; promise me `lease_ns` */
    HF_MSG_ACK,      /* back: promised (echoes epoch, seq, sent_ns) */
    HF_MSG_FENCE,    /* Raft leader of term `epoch` -> voter: take no more WAL, report */
    HF_MSG_REPORT,   /* back: my position, fenced at `epoch` */
    HF_MSG_RELEASE,  /* leader -> all: the epoch is over and its gate is shut for good (S17) */
    HF_MSG_PROBE,    /* empty volume -> every expected node: who are you? */
    HF_MSG_PROBED,   /* back: cluster_id (zero: my volume is empty too) */
    HF_MSG_ADOPT,    /* node 0 -> every expected node: this is the cluster, this is your Raft id */
    HF_MSG_ADOPTED,  /* back: it is on my disk */
    HF_MSG_JOIN,     /* empty volume -> any member: let me in */
    HF_MSG_JOINED,   /* back, from the leader: your Raft id; else no, and who leads */
    /* Not the core's business (node_settings.c): */
    HF_MSG_SETTINGS, /* follower -> leader: my settings are `seq`; HF_FLAG_PENDING: they wait for a restart */
    HF_MSG_RESTART,  /* back: you may; echoes sent_ns */
    /* node_leave.c: */
    HF_MSG_LEAVE,    /* any -> leader: member `id` is to leave */
    HF_MSG_MEMBER,   /* any -> any: am I, `id`, a member? Only a leader answers, and only if not */
    HF_MSG_LEFT,     /* back: `id` (of `uuid`) is no member any more */
    /* node_reads.c: */
    HF_MSG_READ,     /* follower of `epoch` -> its leader: how far does your WAL go now? */
    HF_MSG_READ_AT,  /* back: to position.lsn, and the lease lasted after that was looked at; echoes epoch, seq, sent_ns */
    HF_MSG_LAST = HF_MSG_READ_AT,
};

enum hf_msg_flag {
    HF_FLAG_UNFIT = 1,    /* REPORT: do not make me leader (leaving, or failed a moment ago) */
    HF_FLAG_NOTHING = 2,  /* REPORT: half-way through a rewind or re-clone: no position (S8) */
    HF_FLAG_REWIND = 4,   /* PING: barrier and checkpoint are done, rewinding is allowed (S8, S9) */
    HF_FLAG_OPEN = 8,     /* PING: the gate is open */
    HF_FLAG_UNFOUNDED = 32, /* PROBED: adopted, but no epoch was appointed yet (S15) */
    HF_FLAG_COPY = 64,      /* PING: PostgreSQL here is primary in this epoch: it may be copied */
    HF_FLAG_PENDING = 128,  /* SETTINGS */
    HF_FLAG_REFUSED = 16, /* PROBED, ADOPTED, JOINED: no; `text` says why. PING: your WAL is of no use, copy mine (S1) */
};

struct hf_msg {
    uint8_t type;  /* enum hf_msg_type */
    uint8_t flags; /* enum hf_msg_flag */
    hf_node_id from, to; /* 0 while a node has no id yet: then names and uuid identify it */
    struct hf_uuid cluster_id;
    hf_epoch epoch;
    uint64_t seq;      /* PING, ACK; READ, READ_AT */
    uint64_t sent_ns;  /* PING, ACK: the leader's clock when it sent the ping; READ, READ_AT: the follower's */
    uint64_t lease_ns; /* PING */
    struct hf_position position; /* REPORT: lineage and end of WAL; ACK: same, as last known;
                                  * PING: what the leader knows the receiver has flushed */
    hf_lsn barrier_lsn; /* PING: 0 until the barrier is done */
    uint32_t timeline;  /* PING */
    hf_node_id target;  /* RELEASE: who should lead next (0: anybody); JOINED, refused: the leader of `epoch`,
                       * whose name and peer port `name` and `peer` are; 0: not known */
    uint8_t n_order;    /* PING: voters, most advanced first: the order in which to stand for */
    hf_node_id order[HF_MEMBERS_MAX]; /* election when the leader is gone (DESIGN section 7) */
    /* Formation only. */
    uint64_t system_id;
    uint32_t expect;
    hf_node_id id; /* ADOPT, JOINED: your id */
    struct hf_uuid uuid; /* the sender's; ADOPT, JOINED: the receiver's, for whom the id is */
    char name[HF_NAME_MAX], peer[HF_ADDR_MAX], sql[HF_ADDR_MAX], text[HF_REASON_MAX];
};

/* Wire form: little endian, versioned, at most HF_MSG_BYTES_MAX. encode returns the length. decode
 * refuses anything encode could not have written. */
enum { HF_MSG_BYTES_MAX = 1024 };
size_t hf_msg_encode(const struct hf_msg *m, uint8_t buf[HF_MSG_BYTES_MAX]);
bool hf_msg_decode(struct hf_msg *m, const uint8_t *buf, size_t len);
/* Is it of a type that a later version has? To be passed over like any other that got lost: while nodes are upgraded one by one there are
 * two versions. (Fields and flags of a type that exists do not change; that takes another wire version.) */
bool hf_msg_is_later(const uint8_t *buf, size_t len);
const char *hf_msg_name(uint8_t type);

#endif
