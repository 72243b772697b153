/* Logging in, on the node that the client is connected to (the front):
 *
 *   HELD -> ASKING: what is PostgreSQL's verifier of this role? Asked of the leader's, here or through the tunnel
 *           that will carry the session.
 *   ASKING -> SASL: the client proves that it knows the password (sasl.h). From the proof come the role's keys.
 *   SASL -> HELD, or PIPE: the way to a server as ever; with the keys the session is logged in there, and from PostgreSQL's
 *           AuthenticationOk, or error, on, everything is the client's.
 *
 * On the leader's node a session from a tunnel is ASKING while the question is with PostgreSQL. Private to src/router. */
#ifndef HF_ROUTER_LOGIN_H
#define HF_ROUTER_LOGIN_H

#include <stdbool.h>
#include <sys/types.h>

struct hf_session;

bool hf_login_begin(struct hf_session *s); /* the startup packet is there. False: over, out of memory */
void hf_login_free(struct hf_session *s);  /* and wipes; none is fine */
bool hf_login_is_wanted(const struct hf_session *s); /* the client has not proved yet who it is */
void hf_login_seek(struct hf_session *s);   /* HELD: whom to ask? */
void hf_login_dialed(struct hf_session *s); /* the leader's node is reached: asks there */
void hf_login_event(struct hf_session *s);  /* ASKING, SASL: something has come */
void hf_login_not_dialed(struct hf_session *s); /* the leader's node could not be reached */
void hf_login_look(struct hf_session *s);   /* time has passed */
void hf_login_answered(void *question);     /* the asker's answer, on the session's thread */
void hf_login_ask_for(struct hf_session *s, const char *name); /* another node's front asks, through a tunnel */

/* PIPE: is PostgreSQL still being talked to by us? */
bool hf_login_is_under_way(const struct hf_session *s);
void hf_login_restart(struct hf_session *s); /* a new connection to PostgreSQL */
bool hf_login_resume(struct hf_session *s); /* a server that is logged in is talked to by us again. False: over, out of memory */
/* In place of reading from the back: >0 bytes in the thread's scratch that are the client's, 0: nothing now, -1: over, or
 * the session has another state. */
ssize_t hf_login_read(struct hf_session *s);

#endif
