/* Sessions share server connections (pool.h says how many there are, and who comes next). At the front alone, where the client is
 * connected; for a session that is followed (holds.h) and outlives its server (survive.h).
 *
 *   - A session takes a server connection when its client's first message comes (its head: a piece of that takes none), and keeps it. Only when somebody waits for one,
 *     a session that is between transactions and free gives its own away: at once, to whose turn it is. So where there are as few
 *     clients as connections nothing changes hands, and there is no connection without a session.
 *   - A session without one is POOLED: its client's socket is watched, and nothing is read from it. One whose client has said
 *     something waits in line (QUEUED), bounded; what its client said stays in the socket.
 *   - A connection is given away only while all that was asked is answered, and nothing of it is kept back here. Before another session
 *     speaks to it, it is made equal to what that session had (hf_holds_state): at once if it is so already; else by DISCARD ALL
 *     and the session's own settings and prepared statements, whose answers are waited for. If anything is refused there, it is closed,
 *     and the session logs in to one of its own.
 *   - What nobody can follow is taken away each time: the values of sequences (DISCARD SEQUENCES) and the unnamed statement. That is
 *     sent in front of the client's first message, unless this does it itself for certain, and its answer is not waited for, but swallowed.
 *   - Only who logged in as the same, with the same packet and keys while PostgreSQL had the same roles and defaults, gets it.
 *   - A connection whose own cancel key a client has is closed instead of given; as long as nobody has had to wait, clients have those. Others
 *     have keys of our making. A connection that a cancel may still be on its way to is closed instead of given, too; and one
 *     of which it is not certain that all its answers have come (hf_dialogue_may_hear_more), or whose login has set something (a login
 *     trigger, from PostgreSQL 17 on; as the guard says).
 *
 * Private to src/router. */
#ifndef HF_ROUTER_SHARE_H
#define HF_ROUTER_SHARE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include <sys/types.h>

struct hf_session;
struct hf_thread;
struct hf_router;

enum { HF_SHARE_PREFIX_MAX = 32 };

/* The client has proved who it is. True: it is served by another's connection, waits for one, or is over; false: it may make
 * one of its own, or sessions do not share. */
bool hf_share_begin(struct hf_session *s);
/* It gives up what it has; before its back is closed. As often as it likes. */
void hf_share_leave(struct hf_session *s);
void hf_share_free(struct hf_session *s); /* none is fine */

/* POOLED: something has come from the client. */
void hf_share_event(struct hf_session *s);
/* From any thread: what that session, of thread `t`, waits with is not to be done any more. */
void hf_share_cancel(struct hf_thread *t, uint64_t id);
/* PIPE: all that could be done for now has been done. The session may be POOLED after. */
void hf_share_settle(struct hf_session *s);
void hf_share_heard(struct hf_session *s); /* something has been read from the client */
/* Does somebody wait for the connection that it could give away now? */
bool hf_share_is_due(const struct hf_session *s);
/* Its server is gone, and nothing was under way: it needs none until its client speaks. False: it does not share. */
bool hf_share_rest(struct hf_session *s);
void hf_share_wants(struct hf_session *s); /* from now on, if it shares; as long as it may wait counts from here */
void hf_share_is_let_in(struct hf_session *s); /* PostgreSQL has room for it */
/* PostgreSQL has no room for it. True: it waits in line; false: it is to be told. */
bool hf_share_is_refused(struct hf_session *s);

/* -- made equal, with survive.h ------------------------------------------------------------------ */

void hf_share_undo(struct hf_session *s); /* it has no connection any more: nothing is said to it, or heard */
struct hf_params;
/* Of what the client is to be told next, what the guard says is not: it is about all that the connection has ever done, for others, too. */
void hf_share_hide(struct hf_session *s, const struct hf_params *now);
unsigned hf_share_resets(const struct hf_session *s); /* answers of the remake that are to what undoes others' state */
bool hf_share_is_first(const struct hf_session *s);   /* the client has not been let in yet */
/* It is now, with what its server has said (survive's `fresh`): tells it. False: it does not take it. */
bool hf_share_let_in(struct hf_session *s);
/* The key of its present server is known: the client's is good for that. */
void hf_share_point(struct hf_session *s);

/* It has no server any more. False: that one must not serve another, since a cancel may come to it that is not for that one. */
bool hf_share_unpoint(struct hf_session *s);

/* -- what we say in front of the client's first message ------------------------------------------- */

/* Its length; once. `p`: the client's, which are sent behind it. */
size_t hf_share_prefix(struct hf_session *s, const uint8_t *p, size_t n, uint8_t out[HF_SHARE_PREFIX_MAX]);
bool hf_share_is_swallowing(const struct hf_session *s);
/* Takes our answers from the back. 1: at most `*most` bytes may be read, which are the client's; 0: nothing now; -1: over. */
int hf_share_swallow(struct hf_session *s, size_t *most);

/* -- threads -------------------------------------------------------------------------------------- */

void hf_share_turn(struct hf_thread *t); /* connections that were given to sessions of the same thread */
void hf_share_thread_open(struct hf_thread *t, unsigned index);
void hf_share_thread_close(struct hf_thread *t); /* its sessions are gone */

#endif
