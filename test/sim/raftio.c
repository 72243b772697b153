/* libraft over memory: a disk that keeps what was completed, and a network that may do anything.
 *
 * What a raft_io must do is said in raft.h; the ownership of received entries follows libraft's own
 * receive path: the receiver frees one array of entries and one batch of bytes. */
#include <stdlib.h>
#include <string.h>

#include "sim.h"

static struct node *of_io(struct raft_io *io)
{
    return io->impl;
}

static void copy_batch(const struct raft_entry *src, unsigned n, struct raft_entry **out)
{
    size_t size = 0;
    uint8_t *batch, *at;

    *out = NULL;
    if (n == 0)
        return;
    for (unsigned i = 0; i < n; i++)
        size += src[i].buf.len;
    at = batch = raft_malloc(size > 0 ? size : 1);
    *out = raft_malloc(n * sizeof **out);
    for (unsigned i = 0; i < n; i++) {
        (*out)[i] = src[i];
        (*out)[i].buf.base = at;
        (*out)[i].batch = batch;
        memcpy(at, src[i].buf.base, src[i].buf.len);
        at += src[i].buf.len;
    }
}

static void store(struct disk *d, const struct raft_entry *e)
{
    if (d->n_entries == d->cap_entries) {
        d->cap_entries = d->cap_entries != 0 ? 2 * d->cap_entries : 64;
        d->entries = realloc(d->entries, d->cap_entries * sizeof *d->entries);
    }
    d->entries[d->n_entries] = *e;
    d->entries[d->n_entries].batch = NULL;
    d->entries[d->n_entries].buf.base = malloc(e->buf.len > 0 ? e->buf.len : 1);
    memcpy(d->entries[d->n_entries].buf.base, e->buf.base, e->buf.len);
    d->n_entries++;
}

void sim_raft_wipe(struct disk *d)
{
    for (unsigned i = 0; i < d->n_entries; i++)
        free(d->entries[i].buf.base);
    free(d->entries);
    d->entries = NULL;
    d->n_entries = d->cap_entries = 0;
    d->term = d->vote = 0;
}

static int io_init(struct raft_io *io, raft_id id, const char *address)
{
    (void)io;
    (void)id;
    (void)address;
    return 0;
}

static void io_close(struct raft_io *io, raft_io_close_cb cb)
{
    cb(io);
}

static int io_load(struct raft_io *io, raft_term *term, raft_id *vote,
                   struct raft_snapshot **snapshot, raft_index *start, struct raft_entry *entries[],
                   size_t *n)
{
    struct disk *d = &of_io(io)->disk;

    *term = d->term;
    *vote = d->vote;
    *snapshot = NULL;
    *start = 1;
    *n = d->n_entries;
    copy_batch(d->entries, d->n_entries, entries);
    return 0;
}

static int io_start(struct raft_io *io, unsigned msecs, raft_io_tick_cb tick, raft_io_recv_cb recv)
{
    struct node *n = of_io(io);

    (void)msecs;
    n->tick = tick;
    n->recv = recv;
    return 0;
}

static int io_bootstrap(struct raft_io *io, const struct raft_configuration *conf)
{
    struct disk *d = &of_io(io)->disk;
    struct raft_entry e = {.term = 1, .type = RAFT_CHANGE};

    if (d->term != 0)
        return RAFT_CANTBOOTSTRAP;
    if (raft_configuration_encode(conf, &e.buf) != 0)
        return RAFT_NOMEM;
    store(d, &e);
    raft_free(e.buf.base);
    d->term = 1;
    return 0;
}

static int io_recover(struct raft_io *io, const struct raft_configuration *conf)
{
    (void)io;
    (void)conf;
    return RAFT_INVALID;
}

static int io_set_term(struct raft_io *io, raft_term term)
{
    of_io(io)->disk.term = term;
    of_io(io)->disk.vote = 0;
    return 0;
}

static int io_set_vote(struct raft_io *io, raft_id id)
{
    of_io(io)->disk.vote = id;
    return 0;
}

struct flight {
    int from;
    hf_node_id from_id, to_id;
    char address[HF_NAME_MAX];
    struct raft_message m;
};

static void drop(struct raft_message *m)
{
    if (m->type == RAFT_IO_APPEND_ENTRIES && m->append_entries.n_entries > 0) {
        raft_free(m->append_entries.entries[0].batch);
        raft_free(m->append_entries.entries);
    }
}

static void arrive(void *arg)
{
    struct flight *f = arg;
    struct node *to = host_of_id(f->to_id);

    if (to == NULL || !to->raft_on || !sim_reaches(LANE_RAFT, f->from, to->index) || !to->exists) {
        drop(&f->m);
    } else if (hf_mend_second_vote(&to->raft, &f->m)) {
        drop(&f->m);
    } else if (W->now < to->paused_until) {
        sim_after(to->paused_until - W->now, arrive, f);
        return;
    } else {
        f->m.server_id = f->from_id;
        f->m.server_address = f->address;
        hf_mend_received(&to->mend, &f->m);
        hf_mend_counted(&to->early, &to->raft, &f->m);
        to->recv(&to->io, &f->m);
        sim_raft_watch(to);
    }
    free(f);
}

struct sent {
    struct node *n;
    uint64_t life;
    struct raft_io_send *req;
};

static void sent_run(void *arg)
{
    struct sent *s = arg;

    if (s->req->cb != NULL)
        s->req->cb(s->req, 0);
    free(s);
}

static int io_send(struct raft_io *io, struct raft_io_send *req, const struct raft_message *m,
                   raft_io_send_cb cb)
{
    struct node *n = of_io(io);
    struct sent *s = calloc(1, sizeof *s);

    req->cb = cb;
    *s = (struct sent){n, n->life, req};
    sim_after(0, sent_run, s);
    if (n->closing || sim_chance(W->loss))
        return 0;
    struct flight *f = calloc(1, sizeof *f);
    f->from = n->index;
    f->from_id = n->disk.durable.self;
    f->to_id = m->server_id;
    memcpy(f->address, n->name, sizeof f->address);
    f->m = *m;
    hf_mend_answer(&n->mend, &n->raft, &f->m);
    if (m->type == RAFT_IO_APPEND_ENTRIES)
        copy_batch(m->append_entries.entries, m->append_entries.n_entries,
                   &f->m.append_entries.entries);
    sim_after(sim_between(50 * US, W->delay_max), arrive, f);
    return 0;
}

struct appended {
    struct node *n;
    const struct raft_pending *p;
    uint64_t serial;
};

/* A disk log is written from front to back: with this write all before it are done. */
static void appended_run(void *arg)
{
    struct appended *a = arg;
    struct node *n = a->n;
    struct raft_message early;
    bool known = false;

    for (const struct raft_pending *p = n->pending; p != NULL; p = p->next)
        known = known || (p == a->p && p->serial == a->serial);
    while (known) { /* else: done with a later one, or cancelled by a crash */
        struct raft_pending *p = n->pending;
        n->pending = p->next;
        known = p != a->p;
        for (unsigned i = 0; i < p->n; i++)
            store(&n->disk, &p->entries[i]);
        n->mend = p->mend;
        p->req->cb(p->req, 0);
        free(p);
        while (hf_mend_again(&n->early, &n->raft, &early))
            n->recv(&n->io, &early);
    }
    sim_raft_watch(n);
    free(a);
}

static int io_append(struct raft_io *io, struct raft_io_append *req,
                     const struct raft_entry entries[], unsigned count, raft_io_append_cb cb)
{
    struct node *n = of_io(io);
    struct raft_pending *p = calloc(1, sizeof *p), **at = &n->pending;
    struct appended *a = calloc(1, sizeof *a);
    static uint64_t serial;

    req->cb = cb;
    *p = (struct raft_pending){NULL, req, entries, count, ++serial, n->mend};
    while (*at != NULL)
        at = &(*at)->next;
    *at = p;
    *a = (struct appended){n, p, p->serial};
    sim_after(W->now < n->slow_disk_until ? 40 * MS : 1 * MS, appended_run, a);
    return 0;
}

static int io_truncate(struct raft_io *io, raft_index index)
{
    struct disk *d = &of_io(io)->disk;

    /* What is being written comes before: the file is cut behind it. */
    for (struct raft_pending *p = of_io(io)->pending; p != NULL; p = p->next) {
        for (unsigned i = 0; i < p->n; i++)
            store(d, &p->entries[i]);
        p->n = 0;
    }
    while (d->n_entries >= index)
        free(d->entries[--d->n_entries].buf.base);
    return 0;
}

static int io_snapshot_put(struct raft_io *io, unsigned trailing, struct raft_io_snapshot_put *req,
                           const struct raft_snapshot *snapshot, raft_io_snapshot_put_cb cb)
{
    (void)io;
    (void)trailing;
    (void)req;
    (void)snapshot;
    (void)cb;
    return RAFT_BUSY; /* the threshold is never reached */
}

static int io_snapshot_get(struct raft_io *io, struct raft_io_snapshot_get *req,
                           raft_io_snapshot_get_cb cb)
{
    (void)io;
    (void)req;
    (void)cb;
    return RAFT_BUSY;
}

static raft_time io_time(struct raft_io *io)
{
    struct node *n = of_io(io);

    return sim_clock(n) / MS + n->ahead_ms;
}

static int io_random(struct raft_io *io, int min, int max)
{
    (void)io;
    return (int)sim_between((uint64_t)min, (uint64_t)max);
}

static int fsm_apply(struct raft_fsm *fsm, const struct raft_buffer *buf, void **result)
{
    struct node *n = fsm->data;
    struct hf_entry e;
    uint64_t len;

    *result = NULL;
    memcpy(&len, buf->base, sizeof len);
    if (!hf_entry_decode(&e, (const uint8_t *)buf->base + 8, (size_t)len))
        sim_fail("an entry cannot be decoded");
    sim_say(n, "applies entry type %u epoch %llu%s", e.type, (unsigned long long)e.branch.epoch,
            n->decide == NULL ? " (nobody hears it)" : "");
    if (!n->closing)
        host_step(n, &(struct hf_event){.type = HF_EV_APPLIED, .entry = &e});
    return 0;
}

static int fsm_snapshot(struct raft_fsm *fsm, struct raft_buffer *bufs[], unsigned *n)
{
    (void)fsm;
    (void)bufs;
    (void)n;
    return RAFT_BUSY;
}

static int fsm_restore(struct raft_fsm *fsm, struct raft_buffer *buf)
{
    (void)fsm;
    (void)buf;
    return RAFT_CORRUPT;
}

void sim_raft_open(struct node *n)
{
    memset(&n->io, 0, sizeof n->io);
    n->io = (struct raft_io){.version = 1,
                             .impl = n,
                             .init = io_init,
                             .close = io_close,
                             .load = io_load,
                             .start = io_start,
                             .bootstrap = io_bootstrap,
                             .recover = io_recover,
                             .set_term = io_set_term,
                             .set_vote = io_set_vote,
                             .send = io_send,
                             .append = io_append,
                             .truncate = io_truncate,
                             .snapshot_put = io_snapshot_put,
                             .snapshot_get = io_snapshot_get,
                             .time = io_time,
                             .random = io_random};
    n->fsm = (struct raft_fsm){
        .version = 1, .data = n, .apply = fsm_apply, .snapshot = fsm_snapshot, .restore = fsm_restore};
    memset(&n->raft, 0, sizeof n->raft);
    n->pending = NULL;
    n->mend = (struct hf_mend){0, 0};
    n->early = (struct hf_mend_early){0};
    n->seen_commit = 0;
    n->ahead_ms = 0;
    if (raft_init(&n->raft, &n->io, &n->fsm, n->disk.durable.self, n->name) != 0)
        sim_fail("raft_init");
    raft_set_election_timeout(&n->raft, n->lease_ms);
    raft_set_heartbeat_timeout(&n->raft, n->lease_ms / 10);
    raft_set_pre_vote(&n->raft, true);
    raft_set_snapshot_threshold(&n->raft, 1000000);
}

struct life {
    struct node *n;
    uint64_t life;
};

static void tick_run(void *arg)
{
    struct life *l = arg;

    if (!l->n->up || l->n->life != l->life || !l->n->raft_on) {
        free(l);
        return;
    }
    if (W->now >= l->n->paused_until) {
        l->n->tick(&l->n->io);
        sim_raft_watch(l->n);
    }
    sim_after(20 * MS, tick_run, l);
}

void sim_raft_start(struct node *n)
{
    struct life *l = calloc(1, sizeof *l);

    n->raft_on = true;
    n->role = -1;
    n->seen_conf = ~0u;
    if (raft_start(&n->raft) != 0)
        sim_fail("raft_start: %s", raft_errmsg(&n->raft));
    if (raft_state(&n->raft) == RAFT_LEADER) { /* alone: as src/consensus does */
        n->disk.term = ++n->raft.current_term;
        n->disk.vote = n->raft.voted_for = n->disk.durable.self;
    }
    *l = (struct life){n, n->life};
    sim_after(sim_between(0, 20 * MS), tick_run, l);
    sim_raft_watch(n);
}

static void closed(struct raft *r)
{
    (void)r;
}

void sim_raft_crash(struct node *n)
{
    if (!n->raft_on)
        return;
    n->closing = true;
    n->raft_on = false;
    /* The newest first, as src/consensus does: libraft forgets with one entry all that follow. */
    while (n->pending != NULL) {
        struct raft_pending *p, **at = &n->pending;
        while ((*at)->next != NULL)
            at = &(*at)->next;
        p = *at;
        *at = NULL;
        p->req->cb(p->req, RAFT_CANCELED);
        free(p);
    }
    raft_close(&n->raft, closed);
    n->closing = false;
}

static void tell_servers(struct node *n)
{
    struct hf_raft_server list[HF_MEMBERS_MAX];
    struct hf_event e = {.type = HF_EV_RAFT_SERVERS, .servers = list};

    for (unsigned i = 0; i < n->raft.configuration.n && e.n < HF_MEMBERS_MAX; i++)
        list[e.n++] = (struct hf_raft_server){n->raft.configuration.servers[i].id,
                                              n->raft.configuration.servers[i].role == RAFT_VOTER,
                                              n->raft.configuration.servers[i].role == RAFT_SPARE};
    host_step(n, &e);
}

/* State machine safety: what is committed at an index anywhere is committed there everywhere. */
static void check_committed(struct node *n)
{
    while (n->seen_commit < n->raft.commit_index && n->seen_commit < n->disk.n_entries &&
           n->seen_commit < SIM_COMMITTED) {
        raft_term term = n->disk.entries[n->seen_commit].term, *known = &W->committed[n->seen_commit];
        n->seen_commit++;
        if (*known != 0 && *known != term)
            sim_fail("Raft: at %llu entries of terms %llu and %llu are committed", (unsigned long long)n->seen_commit,
                     (unsigned long long)*known, (unsigned long long)term);
        *known = term;
    }
}

void sim_raft_watch(struct node *n)
{
    enum hf_raft_role role = HF_RAFT_FOLLOWER;
    raft_id leader = 0;
    const char *address;
    unsigned conf;

    if (!n->raft_on || n->closing || n->decide == NULL)
        return;
    if (raft_state(&n->raft) == RAFT_UNAVAILABLE)
        sim_fail("%s: raft became unavailable: %s", n->name, raft_errmsg(&n->raft));
    if (raft_state(&n->raft) == RAFT_LEADER)
        role = HF_RAFT_LEADER;
    else if (raft_state(&n->raft) == RAFT_CANDIDATE)
        role = HF_RAFT_CANDIDATE;
    raft_leader(&n->raft, &leader, &address);
    check_committed(n);
    conf = (unsigned)(n->raft.configuration_index * 1000 + n->raft.configuration_uncommitted_index);
    if (conf != n->seen_conf) {
        n->seen_conf = conf;
        tell_servers(n);
    }
    if ((int)role == n->role && n->raft.current_term == n->seen_term && leader == n->seen_leader)
        return;
    if (role == HF_RAFT_LEADER && n->raft.current_term < SIM_TERMS) {
        uint8_t *led = &W->raft_leader[n->raft.current_term];
        if (*led != 0 && *led != n->index + 1)
            sim_fail("Raft: two leaders in term %llu", (unsigned long long)n->raft.current_term);
        *led = (uint8_t)(n->index + 1);
    }
    n->role = (int)role;
    n->seen_term = n->raft.current_term;
    n->seen_leader = leader;
    host_step(n, &(struct hf_event){.type = HF_EV_RAFT,
                                    .role = role,
                                    .term = n->raft.current_term,
                                    .raft_leader = leader});
}

void sim_raft_hint(struct node *n, bool stand)
{
    if (!n->raft_on)
        return;
    if (stand && raft_state(&n->raft) != RAFT_LEADER) {
        n->ahead_ms += 2 * n->raft.election_timeout + 1;
        n->tick(&n->io);
    } else if (!stand && raft_state(&n->raft) == RAFT_FOLLOWER) {
        if (n->raft.follower_state.current_leader.address != NULL)
            raft_free(n->raft.follower_state.current_leader.address);
        n->raft.follower_state.current_leader.address = NULL;
        n->raft.follower_state.current_leader.id = 0;
    }
    sim_raft_watch(n);
}
