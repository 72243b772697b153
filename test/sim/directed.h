/* What directed schedules are written with. Each is a script: it lets the world run until something has
 * happened, makes a fault there, and goes on. Nodes are A, B, C, D, E; A leads first. */
#ifndef HF_SIM_DIRECTED_H
#define HF_SIM_DIRECTED_H

#include "sim.h"

#define A (&W->nodes[0])
#define B (&W->nodes[1])
#define C (&W->nodes[2])
#define D (&W->nodes[3])
#define E (&W->nodes[4])

#define DIRECTED_WAIT(what, ms, condition, text)                                                       \
    do {                                                                                               \
        uint64_t until_ = W->now + (uint64_t)(ms) * MS;                                                \
        while (!(condition))                                                                           \
            if (!sim_next(until_))                                                                     \
                sim_fail("%s: %s:%d: not within %d ms: %s", what, __FILE__, __LINE__, (int)(ms), text); \
    } while (0)

/* Lets the world run until it is so. That it never comes to be means that the schedule no longer makes
 * what it is about: it fails as vacuous, and that never counts as noticing a mutation. */
#define UNTIL(ms, condition) DIRECTED_WAIT("vacuous", ms, condition, #condition)

/* The same for what the cluster owes: progress. */
#define MUST(ms, condition) DIRECTED_WAIT("no progress", ms, condition, #condition)

#define HAPPENED(condition)                                                                            \
    do {                                                                                               \
        if (!(condition))                                                                              \
            sim_fail("vacuous: %s:%d: did not happen: %s", __FILE__, __LINE__, #condition);            \
    } while (0)

/* directed.c */
void begin(unsigned n); /* n nodes, A's gate open, all others streaming, clients at work */
void begin_with(unsigned n, unsigned lease_ms);
void begin_empty(unsigned n, unsigned lease_ms); /* nothing is started, and no rule taken out yet */
void mutate(void);
void rise(void); /* all are started; until all stream from A */
void run_for(uint64_t ms);
bool opened(const struct node *n);      /* results pass there now */
struct node *anybody_open(void);
bool another_open(const struct node *but);
const char *state(const struct node *n); /* of its leadership: "fencing", "barrier", ... */
bool streams_from(const struct node *f, const struct node *l);
void isolate(const struct node *n, bool cut); /* from everybody, on all lanes */
void isolate_lane(enum lane lane, const struct node *n, bool cut);
void cut(enum lane lane, const struct node *a, const struct node *b, bool cut); /* both ways */
void elect(struct node *n); /* the others stop believing in their leader, n stands for election and wins */
void switchover(struct node *from, const struct node *to); /* and `to` is open */
void leave(struct node *leader, const struct node *who);
void disk_hangs(struct node *n); /* nothing of the node's state gets to it until the trap is lifted */
void vanish(struct node *n); /* crashes, and nobody's connection tells */
void resets(const struct node *n); /* n's connections end at all others, without proof of anything (S6) */
void writes(struct node *n, unsigned count);
void write_acked(struct node *n); /* one write, and waits for its acknowledgement */
void clients(bool at_work);
unsigned voters_of(const struct node *n); /* as it knows them; 0: it is down */
void lift_all(void); /* every trap */
void settle(void); /* everything is healed and started; all must be well */

#endif
