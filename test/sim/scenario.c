/* Schedules of faults: by seed. */
#include <stdlib.h>
#include <string.h>

#include "sim.h"

enum { FAULTY_MS = 8000, QUIET_MS = 9000 };

static struct node *any(void)
{
    return &W->nodes[sim_between(0, W->n_nodes - 1)];
}

void scenario_traffic(void *arg)
{
    (void)arg;
    for (unsigned i = 0; i < W->n_nodes; i++) {
        if (sim_chance(0.5))
            pg_client_write(&W->nodes[i]);
        if (sim_chance(0.5))
            pg_client_read(&W->nodes[i]);
    }
    sim_after(sim_between(2 * MS, 14 * MS), scenario_traffic, NULL);
}

static void heal_network(void *arg)
{
    (void)arg;
    memset(W->cut, 0, sizeof W->cut);
    memset(W->lane_cut, 0, sizeof W->lane_cut);
}

static void partition(void)
{
    unsigned a = (unsigned)sim_between(0, W->n_nodes - 1), b = (unsigned)sim_between(0, W->n_nodes - 1);
    bool(*cut)[SIM_NODES] = W->cut;

    if (sim_chance(0.4)) /* only one kind of traffic, as a firewall or a thread that hangs would */
        cut = W->lane_cut[sim_between(0, LANES - 1)];
    switch (sim_between(0, 3)) {
    case 0: /* one node from everybody */
        for (unsigned i = 0; i < W->n_nodes; i++)
            cut[a][i] = cut[i][a] = i != a;
        break;
    case 1: /* one way */
        cut[a][b] = a != b;
        break;
    case 2: /* it hears nobody */
        for (unsigned i = 0; i < W->n_nodes; i++)
            cut[i][a] = i != a;
        break;
    default: /* a pair */
        cut[a][b] = cut[b][a] = a != b;
    }
    sim_say(NULL, "partition around %s%s", W->nodes[a].name, cut != W->cut ? " (one lane)" : "");
    sim_after(sim_between(100 * MS, 3000 * MS), heal_network, NULL);
}

/* -- scaled down, and up again: in every other seed, so that the rest stays what it was ------------------------------------ */

/* There no volume is lost beside: of two voters that are left neither may be. */
static bool scales(void)
{
    return W->seed % 2 == 1 && W->n_nodes >= 3;
}

struct scaled {
    struct node *n;
    hf_node_id id;
};

/* As src/node_leave.c: only a leader whose gate is open says that it is. */
static bool is_gone(hf_node_id id)
{
    for (unsigned i = 0; i < W->n_nodes; i++) {
        const struct node *o = &W->nodes[i];
        if (o->up && o->decide != NULL && host_passes(o, o->gate_epoch))
            return hf_cluster_is_gone(hf_decide_view(o->decide).cluster, id);
    }
    return false;
}

static void scaled_run(void *arg)
{
    struct scaled *s = arg;

    if (s->n->disk.durable.self == s->id && !is_gone(s->id)) {
        sim_after(sim_between(50 * MS, 500 * MS), scaled_run, s);
        return;
    }
    if (s->n->disk.durable.self == s->id)
        host_lose_volume(s->n); /* it joins anew when revive() starts it */
    free(s);
}

static void scale(void *arg)
{
    struct node *n = any();
    hf_node_id id = n->disk.durable.self;

    if (W->quiet)
        return;
    for (unsigned i = 0; i < W->n_nodes && id != 0; i++) {
        struct node *o = &W->nodes[i];
        struct scaled *s;
        if (o == n || o->gate_epoch == 0 || (s = malloc(sizeof *s)) == NULL)
            continue;
        sim_say(n, "is to leave");
        host_later(o, 0, &(struct hf_event){.type = HF_EV_LEAVE, .id = id, .request = 1});
        *s = (struct scaled){n, id};
        sim_after(100 * MS, scaled_run, s);
        break;
    }
    sim_after(sim_between(1000 * MS, 4000 * MS), scale, arg);
}

/* One volume at most: who loses a majority of them has lost data. Either it is gone, or PostgreSQL starts on it no more. */
static void volume_lost(struct node *n, bool spoilt)
{
    static bool lost;
    static uint64_t seed;

    if (seed != W->seed) {
        seed = W->seed;
        lost = false;
    }
    if (lost || scales() || W->n_nodes < 3 || W->last_open_epoch == 0)
        return;
    lost = true;
    if (!spoilt) {
        host_lose_volume(n);
        return;
    }
    sim_say(n, "data spoilt");
    n->pg.spoilt = true;
    host_pg_killed(n);
}

static void one_fault(void)
{
    struct node *n = any(), *o = any();

    switch (sim_between(0, 16)) {
    case 0:
    case 1:
    case 2:
        host_crash(n);
        break;
    case 3: /* the leader, if there is one */
        for (unsigned i = 0; i < W->n_nodes; i++)
            if (W->nodes[i].gate_epoch != 0)
                host_crash(&W->nodes[i]);
        break;
    case 4:
        host_pg_killed(n);
        break;
    case 5:
        if (n->up && sim_chance(0.5)) {
            host_pause(n, sim_between(50 * MS, 2500 * MS));
        } else {
            n->starve_in = (unsigned)sim_between(1, 60);
            n->starve_ns = sim_between(50 * MS, 1500 * MS);
        }
        break;
    case 6:
    case 7:
        partition();
        break;
    case 8:
        n->slow_disk_until = W->now + sim_between(200 * MS, 2000 * MS);
        break;
    case 9: /* a sidecar resets the connections of a healthy node, often the leader (S6) */
        for (unsigned i = 0; i < W->n_nodes && sim_chance(0.8); i++)
            if (W->nodes[i].gate_epoch != 0)
                o = &W->nodes[i];
        for (unsigned i = 0; i < W->n_nodes; i++)
            if (o->up && W->nodes[i].up && W->nodes[i].decide != NULL && o != &W->nodes[i])
                host_later(&W->nodes[i], sim_between(0, 2 * MS),
                           &(struct hf_event){.type = HF_EV_PEER_DOWN, .id = o->disk.durable.self});
        break;
    case 10:
        if (sim_chance(0.4))
            volume_lost(n, sim_chance(0.5));
        break;
    case 11:
    case 12:
        host_later(n, 0, &(struct hf_event){.type = HF_EV_SWITCHOVER, .request = 1});
        break;
    case 13:
        host_later(n, 0, &(struct hf_event){.type = HF_EV_SHUTDOWN});
        break;
    case 14: /* everything at once */
        if (sim_chance(0.2))
            for (unsigned i = 0; i < W->n_nodes; i++)
                host_crash(&W->nodes[i]);
        break;
    case 15: /* resets and a partition together: the old leader lives on alone */
        for (unsigned i = 0; i < W->n_nodes; i++)
            if (W->nodes[i].gate_epoch != 0)
                o = &W->nodes[i];
        for (unsigned i = 0; i < W->n_nodes; i++) {
            W->cut[i][o->index] = W->cut[o->index][i] = (int)i != o->index;
            if (W->nodes[i].up && W->nodes[i].decide != NULL && o != &W->nodes[i])
                host_later(&W->nodes[i], sim_between(0, 2 * MS),
                           &(struct hf_event){.type = HF_EV_PEER_DOWN, .id = o->disk.durable.self});
        }
        sim_after(sim_between(100 * MS, 3000 * MS), heal_network, NULL);
        break;
    default: /* restarted with another T (S12) */
        host_crash(n);
        n->lease_ms = (unsigned)sim_between(2, 10) * 100;
    }
}

static void faults(void *arg)
{
    (void)arg;
    if (W->quiet)
        return;
    one_fault();
    sim_after(sim_between(20 * MS, 1200 * MS), faults, NULL);
}

static void revive(void *arg)
{
    (void)arg;
    for (unsigned i = 0; i < W->n_nodes; i++)
        if (!W->nodes[i].up && (W->quiet || sim_chance(0.3)))
            host_start(&W->nodes[i]);
    sim_after(sim_between(50 * MS, 400 * MS), revive, NULL);
}

void scenario_node(unsigned i, unsigned lease_ms)
{
    struct node *n = &W->nodes[i];

    n->index = (int)i;
    n->exists = true;
    (void)snprintf(n->name, sizeof n->name, "n-%u", i);
    n->rate = 1.0 + ((double)sim_between(0, 1200) - 600.0) / 100000.0; /* within the bound */
    n->offset_ns = (int64_t)sim_between(0, 1000 * SEC);
    n->lease_ms = lease_ms;
    n->pg.state = HF_PG_EMPTY;
}

void scenario_random(void)
{
    static const unsigned sizes[] = {3, 3, 3, 3, 3, 5, 5, 2, 1, 4};

    W->n_nodes = sizes[sim_between(0, sizeof sizes / sizeof sizes[0] - 1)];
    W->loss = sim_chance(0.4) ? 0.03 : 0;
    W->duplicate = sim_chance(0.4) ? 0.1 : 0.01;
    W->delay_max = sim_chance(0.3) ? 20 * MS : 1 * MS;
    for (unsigned i = 0; i < W->n_nodes; i++)
        scenario_node(i, 500);
    for (unsigned i = 0; i < W->n_nodes; i++)
        host_start(&W->nodes[i]);
    sim_after(1 * MS, scenario_traffic, NULL);
    sim_after(sim_chance(0.8) ? 1500 * MS : 10 * MS, faults, NULL);
    sim_after(100 * MS, revive, NULL);
    if (scales())
        sim_after(1500 * MS, scale, NULL);
    (void)sim_run_until(FAULTY_MS * MS);
    W->quiet = true;
    W->loss = 0;
    heal_network(NULL);
    for (unsigned i = 0; i < W->n_nodes; i++) {
        W->nodes[i].slow_disk_until = 0;
        W->nodes[i].starve_in = 0;
        if (W->nodes[i].paused_until > W->now)
            W->nodes[i].paused_until = W->now;
    }
    sim_say(NULL, "-- quiet from here --");
    (void)sim_run_until((FAULTY_MS + QUIET_MS) * MS);
    check_end();
}
