/* Traps: a fault exactly when a node is about to do something. Directed schedules are made of them. */
#include <stdlib.h>
#include <string.h>

#include "sim.h"

static int kind_of(const struct hf_action *a)
{
    switch (a->type) {
    case HF_ACT_SEND:
        return a->msg.type;
    case HF_ACT_WORK:
        return (int)a->work;
    case HF_ACT_WRITE:
        return (int)a->write;
    case HF_ACT_PROPOSE:
        return a->entry.type;
    case HF_ACT_LEASE:
        return a->deadline_ns == 0; /* 1: the lease is taken back */
    default:
        return 0;
    }
}

static bool matches(const struct trap *t, const struct node *n, const struct hf_action *a)
{
    if (!t->used || (t->node >= 0 && t->node != n->index) || (t->action != 0 && t->action != a->type) ||
        (t->kind >= 0 && t->kind != kind_of(a)))
        return false;
    if (t->to >= 0) {
        const struct node *to = host_of_id(a->type == HF_ACT_SEND ? a->msg.to : a->id);
        return to != NULL && to->index == t->to;
    }
    return true;
}

static void put_aside(struct trap *t, struct node *n, const struct hf_action *a)
{
    if (W->n_held == SIM_HELD)
        sim_fail("vacuous: too much is held");
    W->held[W->n_held++] = (struct held){t, n, n->life, *a};
}

struct due {
    struct node *n;
    uint64_t life;
    struct hf_event e;
};

static void crash_run(void *arg)
{
    struct due *d = arg;

    if (d->n->up && d->n->life == d->life)
        host_crash(d->n);
    free(d);
}

static void refuse(struct node *n, const struct hf_action *a)
{
    struct hf_event e = {.seq = a->seq, .work = a->work, .write = a->write, .epoch = a->epoch};

    e.type = a->type == HF_ACT_PERSIST ? HF_EV_PERSISTED
             : a->type == HF_ACT_WORK  ? HF_EV_WORK
                                       : HF_EV_WRITE;
    e.write_state = W->exhausted ? HF_WRITE_REFUSED : HF_WRITE_FAILED;
    e.down = n->pg.state == HF_PG_DOWN || n->pg.state == HF_PG_EMPTY;
    host_later(n, 5 * MS, &e);
}

bool trap_interrupt(struct node *n)
{
    for (unsigned i = 0; i < W->n_held; i++) {
        struct held h = W->held[i];
        if (h.n != n || h.life != n->life || h.a.type != HF_ACT_WORK)
            continue;
        W->n_held--;
        memmove(&W->held[i], &W->held[i + 1], (W->n_held - i) * sizeof h);
        refuse(n, &h.a);
        return true;
    }
    return false;
}

/* One trap takes an action; the first that was set. */
bool trap_takes(struct node *n, const struct hf_action *a)
{
    if (W->stalled[n->index] != NULL) {
        put_aside(W->stalled[n->index], n, a);
        return true;
    }
    for (unsigned i = 0; i < SIM_TRAPS; i++) {
        struct trap *t = &W->traps[i];
        struct due *d;
        if (!matches(t, n, a))
            continue;
        t->fired++;
        sim_say(n, "-- trap %u", i);
        if (t->also != NULL)
            t->also(n);
        switch (t->what) {
        case TRAP_WATCH:
            continue;
        case TRAP_STALL:
            W->stalled[n->index] = t;
            put_aside(t, n, a);
            return true;
        case TRAP_HOLD:
            put_aside(t, n, a);
            return true;
        case TRAP_DROP:
            return true;
        case TRAP_FAIL:
            refuse(n, a);
            return true;
        case TRAP_CRASH:
            /* Not from in here, where libraft may stand on the stack; but it does nothing any more. */
            t->used = false;
            host_perform(n, a);
            W->stalled[n->index] = t;
            d = calloc(1, sizeof *d);
            *d = (struct due){.n = n, .life = n->life};
            sim_after(0, crash_run, d);
            return true;
        }
    }
    return false;
}

struct trap *trap_set(int node, enum hf_action_type action, int kind, enum trap_what what)
{
    for (unsigned i = 0; i < SIM_TRAPS; i++) {
        struct trap *t = &W->traps[i];
        if (t->used || t->fired > 0)
            continue;
        *t = (struct trap){true, node, action, kind, -1, what, 0, NULL};
        return t;
    }
    sim_fail("vacuous: too many traps");
}

void trap_lift(struct trap *t)
{
    unsigned kept = 0, n = 0;
    static struct held mine[SIM_HELD];

    t->used = false;
    for (unsigned i = 0; i < SIM_NODES; i++)
        if (W->stalled[i] == t)
            W->stalled[i] = NULL;
    for (unsigned i = 0; i < W->n_held; i++) {
        if (W->held[i].trap == t)
            mine[n++] = W->held[i];
        else
            W->held[kept++] = W->held[i];
    }
    W->n_held = kept;
    for (unsigned i = 0; i < n; i++)
        if (mine[i].n->up && mine[i].n->life == mine[i].life)
            host_perform(mine[i].n, &mine[i].a);
}
