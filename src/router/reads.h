/* Which server reads for a session, and how new what it reads must be.
 *
 * A start-up setting says so: `holdfast.reads`, in `options` or as a parameter of its own, on either port:
 *
 *   leader    the leader: the SQL port's way. On the read-only port: read only, at the leader
 *   follower  a follower that is not too far behind: the read-only port's way
 *   fresh     a follower, and each statement waits there until all is applied that the leader had when it came (fresh.h)
 *
 * Readers go around: each next one to the next of the followers that can be read, this node included, so that they spread
 * however few nodes their clients know. When none can be read, they are sessions of the leader's gate, and read only all the same.
 * Private to src/router. */
#ifndef HF_ROUTER_READS_H
#define HF_ROUTER_READS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct hf_session;

enum { HF_READS_TRIES = 4 /* followers elsewhere that a session asks for in vain before the leader serves it */ };
enum hf_reads { HF_READS_UNSAID, HF_READS_LEADER, HF_READS_FOLLOWER, HF_READS_FRESH, HF_READS_BAD };

/* Of a complete session startup packet. BAD: no such value, or it is said in a way that is not understood. */
enum hf_reads hf_reads_asked(const uint8_t *packet, size_t len);

/* The startup packet is there: takes what it asks for. False: it has been refused. */
bool hf_reads_begin(struct hf_session *s);
/* HELD, wants a follower: takes the way to one, if there is a way or one may come. False: it is the leader's. */
bool hf_reads_seek(struct hf_session *s);
/* The leader has served it, and is lost: followers are looked for again, unless it asked for the leader. */
void hf_reads_again(struct hf_session *s);
/* Its first server is there; `here`: PostgreSQL of this node. */
void hf_reads_served(struct hf_session *s, bool here, bool follower);

#endif
