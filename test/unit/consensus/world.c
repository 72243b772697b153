#include "world.h"

#include <sys/socket.h>
#include <unistd.h>

#include "base/file.h"
#include "consensus/private.h"

unsigned world_heartbeat_ms = 40;

/* -- callbacks --------------------------------------------------------------------------------- */

static void on_dial(void *ctx, struct hf_consensus_dial *d, uint64_t id, const char *name, const char *addr,
                    int fd)
{
    struct node *n = ctx;
    struct world *w = n->w;

    (void)addr;
    assert_true(w->n_pending < WIRES_MAX);
    assert_int_equal(strtoul(strrchr(name, '-') + 1, NULL, 10), id - 1);
    w->pending[w->n_pending++] = (struct pending){d, n->index, (unsigned)id - 1, fd};
}

static void on_apply(void *ctx, const uint8_t *bytes, size_t len)
{
    struct node *n = ctx;
    uint32_t value;

    assert_int_equal(len, sizeof value);
    memcpy(&value, bytes, sizeof value);
    n->applied++;
    n->sum = n->sum * 31 + value; /* order matters */
    if (n->at_apply != NULL)
        n->at_apply(n);
}

static int on_snapshot(void *ctx, uint8_t **bytes, size_t *len)
{
    struct node *n = ctx;

    *len = 2 * sizeof(uint64_t);
    *bytes = malloc(*len);
    memcpy(*bytes, &n->applied, sizeof n->applied);
    memcpy(*bytes + sizeof n->applied, &n->sum, sizeof n->sum);
    return 0;
}

static int on_restore(void *ctx, const uint8_t *bytes, size_t len)
{
    struct node *n = ctx;

    assert_int_equal(len, 2 * sizeof(uint64_t));
    memcpy(&n->applied, bytes, sizeof n->applied);
    memcpy(&n->sum, bytes + sizeof n->applied, sizeof n->sum);
    n->restored++;
    return 0;
}

static void on_role(void *ctx, enum hf_consensus_role role, uint64_t term, uint64_t leader)
{
    struct node *n = ctx;

    if (role == HF_CONSENSUS_CANDIDATE && n->role != role)
        n->candidacies++;
    n->role = role;
    n->term = term;
    n->leader = leader;
}

static void on_servers(void *ctx, const struct hf_consensus_server *servers, unsigned count)
{
    struct node *n = ctx;

    n->servers = count;
    n->voters = n->idle = 0;
    for (unsigned i = 0; i < count; i++) {
        n->voters += servers[i].voter;
        n->idle += servers[i].idle;
    }
    if (n->at_servers != NULL)
        n->at_servers(n);
}

static void on_failed(void *ctx, const char *text)
{
    struct node *n = ctx;

    n->failed++;
    (void)snprintf(n->why, sizeof n->why, "%s", text);
}

/* -- the world --------------------------------------------------------------------------------- */

static void connect_pending(struct world *w)
{
    for (unsigned i = 0; i < w->n_pending; i++) {
        struct pending p = w->pending[i];
        struct node *from = &w->nodes[p.from], *to = &w->nodes[p.to];
        bool ok = to->c != NULL && !from->alone && !to->alone && w->n_wires < WIRES_MAX;
        if (ok) {
            w->wires[w->n_wires++] = (struct wire){p.from, p.to, dup(p.fd)};
            hf_consensus_accepted(to->c, p.from + 1, from->address, p.fd);
        } else {
            close(p.fd);
        }
        hf_consensus_dialed(p.d, ok);
    }
    w->n_pending = 0;
}

static void step_cb(uv_timer_t *timer)
{
    connect_pending(timer->data);
}

static void cut_wires_of(struct world *w, unsigned index)
{
    for (unsigned i = 0; i < w->n_wires; i++)
        if (w->wires[i].from == index || w->wires[i].to == index)
            (void)shutdown(w->wires[i].fd, SHUT_RDWR);
}

void leave_alone(struct world *w, unsigned index)
{
    w->nodes[index].alone = true;
    cut_wires_of(w, index);
}

void cut_wires(struct world *w)
{
    for (unsigned i = 0; i < w->n_wires; i++) {
        (void)shutdown(w->wires[i].fd, SHUT_RDWR);
        close(w->wires[i].fd);
    }
    w->n_wires = 0;
}

int node_open(struct world *w, unsigned i, unsigned election_ms, struct hf_error *err)
{
    struct node *n = &w->nodes[i];
    struct hf_consensus_config config = {
        .dir = n->dir, .id = i + 1, .address = n->address, .election_ms = election_ms, .heartbeat_ms = world_heartbeat_ms};
    struct hf_consensus_callbacks cb = {.ctx = n,
                                        .dial = on_dial,
                                        .apply = on_apply,
                                        .snapshot = on_snapshot,
                                        .restore = on_restore,
                                        .role = on_role,
                                        .servers = on_servers,
                                        .failed = on_failed};

    return hf_consensus_open(&n->c, &w->loop, &config, &cb, err);
}

struct world *world_open(unsigned n, unsigned voters, unsigned election_ms)
{
    struct world *w = calloc(1, sizeof *w);
    struct hf_consensus_server servers[NODES] = {0};
    struct hf_error err = {0};

    (void)snprintf(w->dir, sizeof w->dir, "/tmp/hf-consensus-XXXXXX");
    assert_non_null(mkdtemp(w->dir));
    assert_int_equal(uv_loop_init(&w->loop), 0);
    (void)uv_timer_init(&w->loop, &w->step);
    w->step.data = w;
    (void)uv_timer_start(&w->step, step_cb, STEP_MS, STEP_MS);
    w->n = n;
    for (unsigned i = 0; i < n; i++) {
        struct node *x = &w->nodes[i];
        x->w = w;
        x->index = i;
        (void)snprintf(x->dir, sizeof x->dir, "%s/%u", w->dir, i);
        (void)snprintf(x->address, sizeof x->address, "n-%u/127.0.0.1:%u", i, 7000 + i);
        assert_int_equal(hf_dir_make(x->dir, 0700, &err), 0);
        servers[i].id = i + 1;
        servers[i].voter = true;
        (void)snprintf(servers[i].address, sizeof servers[i].address, "%s", x->address);
    }
    for (unsigned i = 0; i < n; i++) {
        assert_int_equal(node_open(w, i, election_ms, &err), 0);
        if (i < voters)
            assert_int_equal(hf_consensus_bootstrap(w->nodes[i].c, servers, voters, &err), 0);
        assert_int_equal(hf_consensus_start(w->nodes[i].c, &err), 0);
    }
    return w;
}

static void closed_cb(void *arg)
{
    struct node *n = arg;

    n->closed = true;
    n->c = NULL;
}

void node_close(struct world *w, unsigned i)
{
    struct node *n = &w->nodes[i];

    n->closed = false;
    hf_consensus_close(n->c, closed_cb, n);
    RUN_UNTIL(w, n->closed);
}

void node_again(struct world *w, unsigned i, unsigned election_ms)
{
    struct node *n = &w->nodes[i];
    struct hf_error err = {0};

    if (n->c != NULL)
        node_close(w, i);
    cut_wires_of(w, i);
    n->role = HF_CONSENSUS_FOLLOWER;
    n->term = n->leader = n->applied = n->sum = 0;
    n->failed = 0;
    assert_int_equal(node_open(w, i, election_ms, &err), 0);
    assert_int_equal(hf_consensus_start(n->c, &err), 0);
}

static void free_cb(uv_handle_t *handle)
{
    (void)handle;
}

void world_close(struct world *w)
{
    struct hf_error err;

    for (unsigned i = 0; i < w->n; i++)
        if (w->nodes[i].c != NULL)
            node_close(w, i);
    connect_pending(w);
    for (unsigned i = 0; i < w->n_wires; i++)
        close(w->wires[i].fd);
    uv_close((uv_handle_t *)&w->step, free_cb);
    (void)uv_run(&w->loop, UV_RUN_DEFAULT);
    assert_int_equal(uv_loop_close(&w->loop), 0); /* every handle was closed */
    assert_int_equal(hf_dir_remove(w->dir, &err), 0);
    free(w);
}

struct node *leader(struct world *w)
{
    struct node *found = NULL;

    for (unsigned i = 0; i < w->n; i++)
        if (w->nodes[i].c != NULL && !w->nodes[i].alone && w->nodes[i].role == HF_CONSENSUS_LEADER)
            found = found == NULL || w->nodes[i].term > found->term ? &w->nodes[i] : found;
    return found;
}

/* Another one's timeout may have been quicker. */
void lead(struct world *w, unsigned i)
{
    hf_consensus_hint(w->nodes[i].c);
    RUN_UNTIL(w, leader(w) != NULL);
    if (leader(w)->index != i) {
        assert_int_equal(hf_consensus_transfer(leader(w)->c, i + 1, told_cb, w), 0);
        RUN_UNTIL(w, w->told == 1 && w->nodes[i].role == HF_CONSENSUS_LEADER);
        w->told = w->told_ok = 0;
    }
    for (unsigned j = 0; j < w->n; j++)
        if (!w->nodes[j].alone)
            RUN_UNTIL(w, w->nodes[j].leader == i + 1);
}

static struct {
    struct node *of;
    int (*append)(struct raft_io *, struct raft_io_append *, const struct raft_entry *, unsigned, raft_io_append_cb);
    struct raft_io_append *req;
    const struct raft_entry *entries;
    unsigned n;
    raft_io_append_cb cb;
} waiting;

static int append_later(struct raft_io *io, struct raft_io_append *req, const struct raft_entry *entries, unsigned n,
                        raft_io_append_cb cb)
{
    (void)io;
    assert_null(waiting.req);
    waiting.req = req;
    waiting.entries = entries;
    waiting.n = n;
    waiting.cb = cb;
    return 0;
}

void entries_wait(struct node *n)
{
    waiting.of = n;
    waiting.req = NULL;
    waiting.append = n->c->io_append;
    n->c->io_append = append_later;
}

bool entries_are_waiting(void)
{
    return waiting.req != NULL;
}

void entries_go(void)
{
    struct hf_consensus *c = waiting.of->c;

    c->io_append = waiting.append;
    assert_int_equal(waiting.append(&c->io, waiting.req, waiting.entries, waiting.n, waiting.cb), 0);
}

bool all_applied(struct world *w, uint64_t n)
{
    for (unsigned i = 0; i < w->n; i++)
        if (!w->nodes[i].alone && w->nodes[i].applied != n)
            return false;
    return true;
}

void told_cb(void *arg, bool ok)
{
    struct world *w = arg;

    w->told++;
    w->told_ok += ok;
}

void apply(struct world *w, struct node *n, uint32_t value)
{
    assert_int_equal(hf_consensus_apply(n->c, (const uint8_t *)&value, sizeof value, told_cb, w), 0);
}

