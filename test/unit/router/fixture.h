/* A router on the test's own loop, in front of a PostgreSQL that the test plays itself. */
#ifndef HF_TEST_ROUTER_FIXTURE_H
#define HF_TEST_ROUTER_FIXTURE_H

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "base/clock.h"
#include "router/sasl.h"
#include "router/session.h"

#define SECOND_NS 1000000000ull

enum { CLIENTS_MAX = 16 };

/* A client that gives its password as soon as it is asked for it. */
struct proving {
    int fd; /* 0: none */
    SSL *tls;
    struct hf_scram_client scram;
};

struct fixture {
    uv_loop_t loop;
    struct hf_router *r;
    char dir[64];
    int server; /* the listening Unix socket */
    unsigned drained, shut, readers_gone, dials, asks, answers;
    uint64_t ask_seq, answer_seq, answer_lsn; /* the newest */
    struct hf_router_dial *dial; /* the newest, with its descriptor */
    int dial_fd;
    enum hf_router_to dial_to;
    uint64_t dial_id;
    void (*at_shut)(struct fixture *f);
    void *arg;
    struct proving proving[CLIENTS_MAX];
};

struct fixture *fixture_open(unsigned hold_ms, unsigned login_ms, unsigned max_clients);
struct fixture *fixture_open_with(const struct hf_router_config *wishes); /* ports and socket are the fixture's */
void fixture_close(struct fixture *f);
void fixture_open_gate(struct fixture *f, uint64_t epoch); /* with a lease of a minute */

enum { PATIENCE_MS = 5000 };

/* Runs the loop until it is so; fails after PATIENCE_MS. */
#define RUN_UNTIL(f, condition)                                                                    \
    do {                                                                                           \
        uint64_t until_ = uv_hrtime() + PATIENCE_MS * 1000000ull;                                         \
        while (!(condition) && uv_hrtime() < until_)                                               \
            run_for(f, 0);                                                                         \
        assert_true(condition);                                                                    \
    } while (0)
/* Until *value >= want; and until n bytes can be read. */
void run_until(struct fixture *f, const unsigned *value, unsigned want);
void run_until_bytes(struct fixture *f, int fd, int n);
void run_for(struct fixture *f, unsigned ms);

int client_connect(struct fixture *f, bool read_only); /* no byte sent */
int client_start(struct fixture *f, bool read_only);   /* and the startup packet of "app", and its password */
int client_start_silent(struct fixture *f, bool read_only); /* no password */
void client_prove(struct fixture *f, int fd, SSL *tls);     /* a password, when it is asked for; tls may be NULL */
void client_proved(struct fixture *f, int fd); /* the password has been taken: what comes now is PostgreSQL's, or as from it */
int server_accept(struct fixture *f); /* the router's connection, startup packet read */
bool server_is_asked(struct fixture *f, unsigned ms); /* does a connection come? */
void server_log_in(int fd);                           /* asks for SCRAM-SHA-256; says: logged in, idle */
void server_check(int fd);                            /* asks only */
void server_welcome(int fd);                          /* says only: to another node's front */
/* The node at this end of a tunnel is asked for the verifier of "app", and tells it. */
void leader_tell(struct fixture *f, int fd);
/* What PostgreSQL is said to know: the verifier of "app", password "secret"; nobody else has one. */
struct world {
    _Atomic enum hf_role_kind kind; /* of "app" */
    atomic_bool mute;               /* no answer */
    atomic_uint questions;
    atomic_uint_least64_t opening; /* of the last one */
    struct hf_scram_verifier verifier;
    struct hf_scram_keys keys;
    atomic_uint_least32_t version;
    const char *guard; /* what the guard says when a connection begins; NULL: there is none */
    atomic_uint_least64_t applied, flushed; /* WAL; 0: it does not tell */
    atomic_bool slow;                       /* it takes until this is false again */
    atomic_uint looks;                      /* how often it was asked for either */
    atomic_uint_least64_t stamp;
    uint64_t said; /* bytes that the router has sent in the last server_check() */
};
extern struct world world;

/* A client that is logged in; *server is PostgreSQL's end. */
int session_open(struct fixture *f, int *server);

void say(int fd, char type, const char *body, size_t n);
void say_ready(int fd, char status);
void say_held(int fd, const char *what); /* the guard */
/* One message; its type, 0 at the end of the stream, -1 if none comes in `ms`. */
int hear(struct fixture *f, int fd, unsigned ms, char *body, size_t cap);
void hear_error(struct fixture *f, int fd, const char *sqlstate); /* then the end of the stream */
void hear_end(struct fixture *f, int fd);
void hear_nothing(struct fixture *f, int fd, unsigned ms);
void hear_ready(struct fixture *f, int fd, char status);

#endif
