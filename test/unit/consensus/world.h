/* A few Rafts in one loop, with connections that can be cut. Node i has the Raft id i + 1. */
#ifndef HF_TEST_CONSENSUS_WORLD_H
#define HF_TEST_CONSENSUS_WORLD_H

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "consensus/consensus.h"

enum { NODES = 4, WIRES_MAX = 256, PATIENCE_MS = 20000, STEP_MS = 5 };

struct node {
    struct world *w;
    struct hf_consensus *c;
    unsigned index;
    char dir[128], address[64];
    enum hf_consensus_role role;
    uint64_t term, leader, applied, sum;
    unsigned restored, candidacies, failed;
    char why[512];                  /* it failed */
    unsigned servers, voters, idle; /* as last told */
    bool closed, alone;             /* alone: nobody reaches it, and it reaches nobody */
    /* What a test does in the middle of a callback; may be NULL. */
    void (*at_apply)(struct node *n);
    void (*at_servers)(struct node *n);
};

struct wire {
    unsigned from, to;
    int fd; /* our own copy, to cut it */
};

struct pending {
    struct hf_consensus_dial *d;
    unsigned from, to;
    int fd;
};

struct world {
    uv_loop_t loop;
    uv_timer_t step;
    char dir[64];
    unsigned n;
    struct node nodes[NODES];
    struct wire wires[WIRES_MAX];
    unsigned n_wires, n_pending;
    struct pending pending[WIRES_MAX];
    unsigned told, told_ok, refused; /* results of requests */
};

#define RUN_UNTIL(w, condition)                                                                    \
    do {                                                                                           \
        uint64_t until_ = uv_hrtime() + PATIENCE_MS * 1000000ull;                                  \
        while (!(condition) && uv_hrtime() < until_)                                               \
            (void)uv_run(&(w)->loop, UV_RUN_ONCE);                                                 \
        assert_true(condition);                                                                    \
    } while (0)

extern unsigned world_heartbeat_ms; /* of nodes opened from now on: 40 */

/* The first `voters` of n nodes are the first configuration; all of them run. */
struct world *world_open(unsigned n, unsigned voters, unsigned election_ms);
void world_close(struct world *w); /* whatever is left of it; fails if a handle is */
int node_open(struct world *w, unsigned i, unsigned election_ms, struct hf_error *err);
void node_close(struct world *w, unsigned i);
void node_again(struct world *w, unsigned i, unsigned election_ms); /* closed, if it is open, and started with what is on its disk */
void leave_alone(struct world *w, unsigned index);
void cut_wires(struct world *w); /* every connection ends; new ones can be made */

void lead(struct world *w, unsigned i); /* node i leads, and all whom it reaches know it */
struct node *leader(struct world *w); /* the newest whom others can reach, or NULL */
bool all_applied(struct world *w, uint64_t n);
void apply(struct world *w, struct node *n, uint32_t value); /* counted in w->told */
/* A disk that takes its time: the node's next entries are not written until entries_go(). One node at a time, and one write. */
void entries_wait(struct node *n);
bool entries_are_waiting(void);
void entries_go(void);
void told_cb(void *world, bool ok);

#endif
