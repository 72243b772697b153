/* What is written to and read from the model of PostgreSQL: epoch records, heartbeats, clients. */
#include <stdlib.h>

#include "sim.h"

/* -- synchronous writes ------------------------------------------------------------------------------- */

struct write {
    struct node *n;
    uint64_t life, generation, serial;
    enum hf_write kind;
    hf_epoch epoch;
    unsigned index;
    bool flushed, waited;
};

static void write_look(void *arg)
{
    struct write *w = arg;
    struct node *n = w->n;
    struct hf_event e = {.type = HF_EV_WRITE, .write = w->kind, .epoch = w->epoch};

    if (!n->up || n->life != w->life) {
        free(w);
        return;
    }
    if (W->now < n->paused_until) {
        sim_after(n->paused_until - W->now + 1, write_look, w);
        return;
    }
    if (n->pg.generation != w->generation || n->pg.state != HF_PG_PRIMARY ||
        (w->kind == HF_WRITE_HEARTBEAT ? false : w->serial != n->write_serial)) {
        e.write_state = HF_WRITE_FAILED;
        host_step(n, &e);
        free(w);
        return;
    }
    if (!w->flushed) {
        /* First the flush, then the wait: in between, a fast follower can have acked already (S2). */
        w->flushed = true;
        n->pg.flushed = n->pg.n;
        sim_after(W->look_late_ns + sim_between(10 * US, 500 * US), write_look, w);
        return;
    }
    if (pg_released(n, w->index)) {
        n->pg.wal[w->index].visible = true;
        e.write_state = HF_WRITE_DONE;
        e.lsn = pg_lsn(n->pg.flushed);
        if (!w->waited && n->pg.k == 0 && w->kind == HF_WRITE_BARRIER) {
            struct hf_event first = e;
            first.write_state = HF_WRITE_WAITING;
            host_step(n, &first);
        }
        host_step(n, &e);
        free(w);
        return;
    }
    if (!w->waited && w->kind == HF_WRITE_BARRIER) {
        w->waited = true;
        e.write_state = HF_WRITE_WAITING;
        host_step(n, &e);
    }
    sim_after(1 * MS, write_look, w);
}

void pg_write(struct node *n, const struct hf_action *a)
{
    struct write *w = calloc(1, sizeof *w);

    *w = (struct write){n, n->life, n->pg.generation, 0, a->write, a->epoch, 0, false, false};
    if (a->write == HF_WRITE_BARRIER)
        w->serial = ++n->write_serial;
    if (n->pg.state == HF_PG_PRIMARY)
        w->index = pg_append(n, ++W->next_id, a->epoch);
    else
        w->generation = ~0ull;
    sim_after(sim_between(200 * US, W->now < n->slow_disk_until ? 200 * MS : 3 * MS), write_look, w);
}

/* -- clients ------------------------------------------------------------------------------------------ */

struct client {
    struct node *n;
    uint64_t life, generation, id;
    hf_epoch session;
    unsigned index;
    bool waited, is_read, fresh;
    uint64_t since;
};

static void forward(void *arg)
{
    struct client *c = arg;
    struct node *n = c->n;

    if (!n->up || n->life != c->life || n->gate_epoch != c->session) {
        free(c); /* the outcome is unknown to the client */
        return;
    }
    if (!host_answers(n) || !host_passes(n, c->session)) {
        sim_after(!host_answers(n) ? n->paused_until - W->now + 1 : 5 * MS, forward, c);
        return;
    }
    check_forward(n);
    if (c->is_read) {
        if (!c->fresh)
            sim_fail("I2: %s answers a read from before an acknowledged write", n->name);
        W->reads++;
        if (c->id != 0 && c->index >= W->shown.index)
            W->shown = (struct ack){c->id, c->index, W->now};
    } else {
        if (W->n_acks < SIM_LEDGER)
            W->acks[W->n_acks++] = (struct ack){c->id, c->index, W->now};
        sim_say(n, "acknowledged %llu at %u", (unsigned long long)c->id, c->index);
    }
    free(c);
}

static void wait_sync(void *arg)
{
    struct client *c = arg;
    struct node *n = c->n;

    if (!n->up || n->life != c->life || n->pg.generation != c->generation) {
        free(c);
        return;
    }
    n->pg.flushed = n->pg.n;
    if (!pg_released(n, c->index)) {
        if (W->now - c->since > 20 * SEC)
            free(c);
        else
            sim_after(1 * MS, wait_sync, c);
        return;
    }
    n->pg.wal[c->index].visible = true;
    sim_after(sim_between(10 * US, 2 * MS), forward, c);
}

static struct client *client(struct node *n)
{
    struct client *c;

    if (!host_answers(n) || n->gate_epoch == 0 || n->draining || n->pg.state != HF_PG_PRIMARY)
        return NULL;
    c = calloc(1, sizeof *c);
    *c = (struct client){.n = n,
                         .life = n->life,
                         .generation = n->pg.generation,
                         .session = n->gate_epoch,
                         .since = W->now};
    return c;
}

void pg_client_write(struct node *n)
{
    struct client *c = client(n);

    if (c == NULL || n->pg.n + 200 > SIM_RECORDS)
        return;
    c->id = ++W->next_id;
    c->index = pg_append(n, c->id, n->gate_epoch);
    W->writes++;
    sim_after(sim_between(100 * US, 3 * MS), wait_sync, c);
}

void pg_client_read(struct node *n)
{
    struct client *c = client(n);
    const struct ack *last = W->n_acks > 0 ? &W->acks[W->n_acks - 1] : NULL;

    if (c == NULL)
        return;
    c->is_read = true;
    for (unsigned i = n->pg.n; i-- > 0 && c->id == 0;)
        if (n->pg.wal[i].visible) {
            c->id = n->pg.wal[i].id;
            c->index = i;
        }
    c->fresh = last == NULL || (last->index < n->pg.n && n->pg.wal[last->index].id == last->id &&
                                n->pg.wal[last->index].visible);
    sim_after(sim_between(50 * US, 20 * MS), forward, c);
}
