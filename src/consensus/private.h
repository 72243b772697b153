/* The inside of src/consensus, shared by its files: consensus.c (life and state machine), io.c (between libraft and its
 * network and clock), disk.c (and its disk), configuration.c (voters that are taken back), request.c (what the host asks for). */
#ifndef HF_CONSENSUS_PRIVATE_H
#define HF_CONSENSUS_PRIVATE_H

#include <raft.h>

#include "consensus/consensus.h"
#include "consensus/mend.h"
#include "consensus/segments.h"
#include "consensus/transport.h"

enum { TRANSFERS_KEPT = 16 };

struct request;
struct write;
struct sent;

struct hf_consensus {
    struct hf_consensus_callbacks callbacks;
    uv_loop_t *loop;
    struct hf_transport transport;
    struct raft_io io;
    struct raft_fsm fsm;
    struct raft raft;
    char *dir, *address;

    /* libraft's own functions, which we wrap. */
    int (*io_start)(struct raft_io *, unsigned, raft_io_tick_cb, raft_io_recv_cb);
    raft_time (*io_time)(struct raft_io *);
    int (*io_append)(struct raft_io *, struct raft_io_append *, const struct raft_entry *, unsigned,
                     raft_io_append_cb);
    int (*io_truncate)(struct raft_io *, raft_index);
    int (*io_snapshot_put)(struct raft_io *, unsigned, struct raft_io_snapshot_put *, const struct raft_snapshot *,
                           raft_io_snapshot_put_cb);
    int (*io_send)(struct raft_io *, struct raft_io_send *, const struct raft_message *, raft_io_send_cb);
    int (*io_set_term)(struct raft_io *, raft_term);
    int (*io_set_vote)(struct raft_io *, raft_id);
    void (*io_close)(struct raft_io *, raft_io_close_cb);
    int (*io_load)(struct raft_io *, raft_term *, raft_id *, struct raft_snapshot **, raft_index *,
                   struct raft_entry **, size_t *);
    raft_io_close_cb io_closed;
    raft_io_tick_cb tick;
    raft_io_recv_cb recv;
    struct hf_mend mend;
    struct hf_mend_early early;
    raft_time ahead_ms; /* how far our clock has been moved by hints; only grows */

    bool started, failed, closing, closed;
    bool mute; /* a term, a vote or an entry is not on disk: not a word leaves, and no more is written */
    enum hf_consensus_role role;
    uint64_t term, leader;
    raft_index conf_index, conf_uncommitted;
    struct raft_configuration committed; /* the last one that is; see configuration.c */
    raft_index committed_index, in_doubt;
    bool role_known;
    /* libraft sends TimeoutNow with a request inside raft_transfer and looks at it when the message has been
     * written, which may be after the transfer's callback: the last few stay allocated. */
    struct request *transfers[TRANSFERS_KEPT];
    unsigned next_transfer;
    uv_idle_t later;      /* runs when there is any of these: */
    struct request *lost; /* failed, and their owners do not know yet: see finish() */
    bool forgets, hinted; /* hf_consensus_forget_leader, hf_consensus_hint */
    struct request *change; /* of the configuration, one at a time; `due`: its next step is to be taken */
    bool change_due;
    /* disk.c */
    struct write *due;       /* not begun, oldest first */
    struct write *alone;     /* under way, and nothing else is begun meanwhile */
    struct write *snapshot;  /* of our own, under way: only entries are begun meanwhile */
    struct write *unwritten; /* newest first */
    uint64_t writes;         /* so far */
    unsigned writing;        /* entries under way */
    raft_time alone_tick; /* the last one */
    unsigned alone_ms;    /* that it has been waited for */
    unsigned patience_ms;
    uv_work_t at_dir; /* says in the log's directory what `alone` is to do, then looks whether it is done */
    bool at_dir_now, marks;
    struct hf_segments_mark mark;
    int said; /* by hf_segments_mark, hf_segments_done */
    struct hf_error said_err;
    struct sent *unsent;
    void (*close_done)(void *);
    void *close_arg;
};

struct request {
    struct hf_consensus *c;
    hf_consensus_cb cb;
    void (*barrier_cb)(void *, uint64_t, bool);
    void *arg;
    uint64_t term, id;
    enum { ADD, ASSIGN_STANDBY, ASSIGN_VOTER, REMOVE } step; /* of a change */
    char *address;                                         /* ADD */
    struct request *next;                                  /* in lost */
    union {
        struct raft_apply apply;
        struct raft_barrier barrier;
        struct raft_transfer transfer;
        struct raft_change change;
    };
};

/* libraft's callbacks know only their raft_io; it is the first thing we can get back from it. */
static inline struct hf_consensus *hf_consensus_of_io(struct raft_io *io)
{
    return (struct hf_consensus *)(void *)((char *)io - offsetof(struct hf_consensus, io));
}

/* io.c */
void hf_consensus_wrap_io(struct hf_consensus *c); /* after raft_uv_init, before raft_init */
/* After everything that may have moved libraft: says what is new. */
void hf_consensus_watch(struct hf_consensus *c);
void hf_consensus_tell_unsent(struct hf_consensus *c);
void hf_consensus_give_up(struct hf_consensus *c, const char *text); /* the host is told once why */

/* disk.c */
void hf_consensus_wrap_disk(struct hf_consensus *c);
void hf_consensus_disk_go(struct hf_consensus *c);   /* begins what can be */
void hf_consensus_disk_tick(struct hf_consensus *c); /* now and then */
/* Is the end of libraft's log yet to be written? */
bool hf_consensus_disk_owes(const struct hf_consensus *c);
void hf_consensus_tell_unwritten(struct hf_consensus *c);

/* configuration.c */
void hf_consensus_loaded(struct hf_consensus *c, const struct raft_snapshot *snapshot, raft_index start,
                         const struct raft_entry *entries, size_t n); /* from the disk, by raft_start */
void hf_consensus_loaded_end(struct hf_consensus *c);                 /* after raft_start */
void hf_consensus_committed(struct hf_consensus *c);                  /* perhaps a newer one is */
void hf_consensus_take_back(struct hf_consensus *c, const struct raft_message *m); /* before libraft gets it */
/* Would libraft remove entries from its log for it? */
bool hf_consensus_would_cut(const struct hf_consensus *c, const struct raft_message *m);

/* request.c */
void hf_consensus_request_free(struct request *r);
void hf_consensus_soon(struct hf_consensus *c); /* what is to be told from the loop is */

/* consensus.c: libraft stores whole words of 8 bytes, so our bytes travel behind their length. From raft_calloc;
 * NULL: out of memory. */
uint8_t *hf_consensus_framed(const uint8_t *bytes, size_t len, size_t *framed_len);

void hf_consensus_closed(struct hf_consensus *c); /* perhaps it is, and nothing is under way: ends it */

#endif
