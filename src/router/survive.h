/* A client's session outlives its server connection (SAFETY S1, S3, S11, S17). At the front alone, where the client is connected:
 *
 *   - What the old server said and look() had not let pass is thrown away; what it was asked and has not answered is answered by
 *     us: 40001 if it cannot have committed, 08007 if it may have. Nothing that a server has taken is ever sent again.
 *   - If the session is free (holds.h), it waits, is logged in elsewhere with the role's keys, its settings and prepared
 *     statements are made again, and it goes on. Its client is read again only then, so a statement that comes meanwhile
 *     stays in the socket and goes to the new server alone.
 *   - If a transaction was open, and the client is told so, the new server is brought into a failed one: PostgreSQL itself then
 *     refuses everything until the client ends it. A client that was idle in its transaction is told at its next statement: not
 *     before, since nothing was asked. If that is a COMMIT, or a ROLLBACK, the transaction is over with our answer, as drivers
 *     take it.
 *   - A client that has an answer to all that it has sent, and no Sync behind it yet, waits for nothing: its error comes before what its
 *     next message is answered with (Flush is none), and what it sends is skipped up to the Sync, or to a Query right behind that.
 *   - Otherwise it ends with 57P01, and a word about what pinned it.
 *
 * survive.c is the loss, survive_client.c what the client hears of it, survive_again.c the new server. Private to src/router. */
#ifndef HF_ROUTER_SURVIVE_H
#define HF_ROUTER_SURVIVE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct hf_session;
struct hf_router;

/* The front's session has a server for the first time, and is followed. Out of memory: it is not, then. */
void hf_survive_begin(struct hf_session *s);
void hf_survive_free(struct hf_session *s); /* none is fine */
/* The server is gone, or is a leader no more. True: the session goes on, or has been ended with the right words. False: the
 * caller ends it as it can. */
bool hf_survive_loss(struct hf_session *s);
/* Bytes of the client's; returns how many of them are for the server, moved to the front. */
size_t hf_survive_client(struct hf_session *s, uint8_t *p, size_t n);
/* Those are about to be sent to it, behind so many of ours. */
void hf_survive_sending(struct hf_session *s, const uint8_t *p, size_t n, size_t ours);
/* Bytes of the server's, about to be given to the client. */
void hf_survive_server(struct hf_session *s, const uint8_t *p, size_t n);

/* Bytes of the client's that a gate did not take: to be read before what its connection has. At most HF_ROUTER_CLIENT_BYTES. */
bool hf_survive_has_more(const struct hf_session *s);
bool hf_survive_keep(struct hf_session *s, const uint8_t *p, size_t n); /* as such; there are none. False: out of memory */
size_t hf_survive_take_more(struct hf_session *s, uint8_t *out);

/* Is it being made again on another server? Then the server's messages come here. */
bool hf_survive_is_moving(const struct hf_session *s);
/* The client's messages are not all for the server. */
bool hf_survive_is_filtering(const struct hf_session *s);
bool hf_survive_is_dull(const struct hf_session *s, uint8_t type); /* a message that need not be heard */
/* One complete message of the server's after AuthenticationOk. 1: done, and the client may speak; 0: goes on; -1: over, or the
 * session has another state. */
int hf_survive_hear(struct hf_session *s, const uint8_t *p, size_t n);
/* It is to be tried on another connection. */
void hf_survive_restart(struct hf_session *s);

/* Its client is yet to hear that nobody knows what was done. */
bool hf_survive_is_unknown(const struct hf_session *s);
uint32_t hf_survive_pid(const struct hf_session *s); /* of its present backend, if it has moved; else 0 */

#endif
