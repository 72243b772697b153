/* SQL to PostgreSQL here as role holdfast, for threads of their own: never waits longer than it matters. Private to
 * src/router. */
#ifndef HF_ROUTER_LINK_H
#define HF_ROUTER_LINK_H

#include <libpq-fe.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

struct hf_router;

struct hf_link {
    struct hf_router *r;
    const char *dir;              /* of PostgreSQL's socket */
    const atomic_bool *stopping;  /* every wait ends soon after it is set */
    uint64_t opening;             /* and when the gate is no more open as it was then; 0: no gate is asked */
    const char *database;         /* NULL: postgres */
    bool as_follower;             /* and when this node is no follower any more (warm.h) */
    PGconn *conn;                 /* NULL: closed */
    bool given_up;                /* a wait of our own for replication was cut short */
};

bool hf_link_open(struct hf_link *l);
void hf_link_close(struct hf_link *l); /* closed is fine */
bool hf_link_is_over(const struct hf_link *l);
bool hf_link_wait(const struct hf_link *l, int fd, short events, uint64_t until_ns); /* uv_hrtime() */
/* The last result of what was sent; NULL: none in time (0: no bound), or it does not matter any more: close the link then. */
PGresult *hf_link_result(struct hf_link *l, uint64_t bound_ms);
PGresult *hf_link_ask(struct hf_link *l, const char *sql, uint64_t bound_ms);
/* The LSN that it tells; opens the link if need be, and closes it on failure. */
bool hf_link_lsn(struct hf_link *l, const char *sql, uint64_t *lsn);

#endif
