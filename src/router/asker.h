/* What PostgreSQL here knows about a role's password, asked anew at each login. A thread of its own with one connection, since it
 * waits for PostgreSQL. Private to src/router. */
#ifndef HF_ROUTER_ASKER_H
#define HF_ROUTER_ASKER_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

#include "base/scram.h"

struct hf_router;
struct hf_asker;
struct hf_thread;
struct hf_session;

enum { HF_ROLE_MAX = 64 }; /* PostgreSQL's NAMEDATALEN: it cuts what is longer */

enum hf_role_kind {
    HF_ROLE_SCRAM = 'S',
    HF_ROLE_UNKNOWN = 'U',
    HF_ROLE_NO_PASSWORD = 'N',
    HF_ROLE_MD5 = 'M',
    HF_ROLE_ODD = 'X', /* a password of a kind that is not understood */
};

struct hf_role {
    enum hf_role_kind kind;
    uint32_t server_version;              /* 150020 for 15.20 */
    uint64_t stamp; /* another one when this role, any database, or a default of theirs has been made anew or changed; 0: not known */
    char verifier[HF_SCRAM_VERIFIER_MAX]; /* its own; of all but SCRAM a mock */
};

/* Made by a session's thread, which gets it back; whoever drops the session before calls hf_question_drop(). */
struct hf_question {
    struct hf_question *next;
    struct hf_thread *t;
    struct hf_session *s; /* of its thread only */
    uint64_t opening;     /* of the gate here; 0: a standby here is asked */
    char name[HF_ROLE_MAX];
    atomic_bool dropped; /* nobody waits for it any more */
    bool answered; /* else PostgreSQL could not be asked */
    struct hf_role role;
};
void hf_question_drop(struct hf_question *q); /* NULL is fine; on its session's thread; login.c */

int hf_asker_open(struct hf_asker **out, struct hf_router *r, const char *socket_dir);
void hf_asker_stop(struct hf_asker *a);  /* joins the thread; NULL is fine */
void hf_asker_close(struct hf_asker *a); /* after stop; NULL is fine */
/* From any thread; takes q, and posts it to hf_login_answered() on its session's thread. */
void hf_asker_ask(struct hf_asker *a, struct hf_question *q);
void hf_asker_prepare(struct hf_asker *a); /* a follower, soon: connect, and make every database ready (warm.h) */
/* What salts of roles that are not there are made from; the same on all nodes, and secret. From any thread. */
void hf_asker_secret(struct hf_asker *a, const uint8_t secret[HF_SCRAM_KEY]);

#endif
