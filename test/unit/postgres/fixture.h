/* Real servers in a temporary directory, and a stand-in for the relay between them. */
#ifndef HF_TEST_POSTGRES_FIXTURE_H
#define HF_TEST_POSTGRES_FIXTURE_H

#include <pthread.h>
#include <stdatomic.h>

#include <libpq-fe.h>

#include "postgres/postgres.h"

enum { RELAY_CONNS_MAX = 32 };

/* Listens on a Unix socket. Closed: connections are accepted and held, unanswered; open: carried to
 * `target`. Closing cuts what is carried. */
struct relay {
    char target[256];
    int listener, wake[2];
    pthread_t thread;
    pthread_mutex_t lock;
    bool open, closing; /* under lock */
    atomic_bool stop;
    int from[RELAY_CONNS_MAX], to[RELAY_CONNS_MAX]; /* -1: none; to -1: held */
    bool stuck[RELAY_CONNS_MAX][2];                 /* read, and the other end takes no more */
};

struct server {
    char dir[128];
    struct hf_pg *pg;
    struct relay relay, copy;
    const char *extra_conf;
    enum hf_pg_guard guard;
    int exits; /* unasked */
};

/* What server_make gives its servers; AUTO finds what the build made. */
extern enum hf_pg_guard guard_of_new;

/* To user postgres if root; then a directory for the whole run, removed at its end. */
int fixture_setup(void **state);
int fixture_teardown(void **state);

void server_make(struct server *s, const char *name);   /* directory, relays, hf_pg_open */
void server_reopen(struct server *s, const char *name); /* as after a restart of the node */
void server_end(struct server *s);                      /* stop, close, remove */
void server_follow(struct server *s, const struct server *leader); /* relays' target; both closed */
void relay_open(struct relay *r, bool open);                       /* back when it is so */

/* `leader`, "a", leads alone with an empty table t (n); `follower`, "b", is a copy of it that
 * follows and counts. */
void pair_make(struct server *leader, struct server *follower);

/* Runs a job and expects it to end well (or not). */
struct hf_pg_result job_ok(struct server *s, enum hf_work work);
struct hf_pg_result job_rule(struct server *s, enum hf_work work, unsigned n,
                             const char *const *names);
struct hf_pg_result job_fails(struct server *s, enum hf_work work);
/* As the superuser, with tables of its own in public. */
PGconn *sql_connect(struct server *s);
/* One value by SQL as the superuser; "" for none. */
void sql(struct server *s, const char *statement, char *out, size_t cap);
void sql_run(struct server *s, const char *statement);
/* Until the statement's value is `wanted`. */
void sql_until(struct server *s, const char *statement, const char *wanted);
double since_ms(uint64_t start_ns);
hf_lsn flushed_of(struct server *s);

/* A barrier on a thread of its own: `waiting` counts how often it was seen so. */
struct barrier {
    struct server *server;
    hf_epoch epoch;
    int waiting, code;
    hf_lsn lsn;
    struct hf_error err;
    pthread_t thread;
};
void barrier_begin(struct barrier *x, struct server *s, hf_epoch epoch);
void barrier_end(struct barrier *x);

#endif
