/* Reads from a follower that are not older than their asking: Raft's ReadIndex, with PostgreSQL's WAL.
 *
 * A statement of a session that asks for it (reads.h) waits on the follower's node, before PostgreSQL is given it, until
 *
 *   1. the leader was asked, after the statement had come, how far its WAL goes, and has told it: L, in the epoch that this follower
 *      streams. The answer counts only if the lease lasted after L was read, so nobody else can have acknowledged anything until then,
 *      and what had been acknowledged, in this epoch or before, lies before L;
 *   2. PostgreSQL here has applied its WAL up to L, still as a standby that streams in that epoch, or has done so all the time since.
 *
 * One question serves all statements that had come when it was sent: a *round*. The next is sent when it has been answered. A round
 * is asked again when no answer comes. Where it takes longer than HF_FRESH_MS the session goes to the leader.
 *
 * A *spell* is the time from hf_router_follower_readable(true) to (false): a round of one is of no use in another.
 *
 * A thread waits for PostgreSQL, the leader's or the follower's. Private to src/router. */
#ifndef HF_ROUTER_FRESH_H
#define HF_ROUTER_FRESH_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

struct hf_fresh;
struct hf_router;
struct hf_session;
struct hf_thread;

enum { HF_FRESH_MS = 2000 }; /* more than a leader's heartbeat takes, which writes out what nobody flushes */

int hf_fresh_open(struct hf_fresh **out, struct hf_router *r, const char *socket_dir);
void hf_fresh_stop(struct hf_fresh *f);  /* joins the thread; NULL is fine */
void hf_fresh_close(struct hf_fresh *f); /* after stop; NULL is fine */

/* On the leader, on the host's loop: how far does the WAL go? Answered by the callback read_answer, or not at all. */
void hf_fresh_asked(struct hf_fresh *f, uint64_t opening, uint64_t from, uint64_t epoch, uint64_t seq, uint64_t sent_ns);
/* On the follower, on the host's loop: what the leader said. */
void hf_fresh_told(struct hf_fresh *f, uint64_t seq, uint64_t lsn);
void hf_fresh_over(struct hf_fresh *f); /* a spell has ended */

/* -- a session's end of it, on its thread -- */

/* `n` bytes of the client's are in the thread's scratch. 1: they wait, and nothing more is read; 0: they need not; -1: out of memory. */
int hf_fresh_hold(struct hf_session *s, size_t n);
bool hf_fresh_waits(const struct hf_session *s);
bool hf_fresh_has_more(const struct hf_session *s); /* what waited may go now */
size_t hf_fresh_take_more(struct hf_session *s, uint8_t *out); /* at most HF_ROUTER_READ_BYTES */
void hf_fresh_sent(struct hf_session *s);    /* it is with PostgreSQL now, and so shall be a cancel that came meanwhile */
void hf_fresh_restart(struct hf_session *s); /* it has another server */
void hf_fresh_look(struct hf_session *s);    /* time has passed */
void hf_fresh_free(struct hf_session *s);

#endif
