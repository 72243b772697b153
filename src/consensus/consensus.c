#include "consensus/consensus.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <raft.h>
#include <raft/uv.h>

#include "consensus/mend.h"
#include "consensus/transport.h"

enum { TRANSFERS_KEPT = 16 };
enum { SNAPSHOT_THRESHOLD = 256, SNAPSHOT_TRAILING = 64, CONNECT_RETRY_MS = 50 };

struct request;
struct write;

struct hf_consensus {
    struct hf_consensus_callbacks callbacks;
    uv_loop_t *loop;
    struct hf_transport transport;
    struct raft_io io;
    struct raft_fsm fsm;
    struct raft raft;
    char *dir, *address;

    /* libraft's own functions, which we wrap. */
    int (*io_start)(struct raft_io *, unsigned, raft_io_tick_cb, raft_io_recv_cb);
    raft_time (*io_time)(struct raft_io *);
    int (*io_append)(struct raft_io *, struct raft_io_append *, const struct raft_entry *, unsigned,
                     raft_io_append_cb);
    int (*io_send)(struct raft_io *, struct raft_io_send *, const struct raft_message *, raft_io_send_cb);
    void (*io_close)(struct raft_io *, raft_io_close_cb);
    raft_io_close_cb io_closed;
    raft_io_tick_cb tick;
    raft_io_recv_cb recv;
    struct hf_mend mend;
    raft_time ahead_ms; /* how far our clock has been moved by hints; only grows */

    bool started, failed;
    enum hf_consensus_role role;
    uint64_t term, leader;
    raft_index conf_index, conf_uncommitted;
    bool role_known;
    /* libraft sends TimeoutNow with a request inside raft_transfer and looks at it when the message has been
     * written, which may be after the transfer's callback: the last few stay allocated. */
    struct request *transfers[TRANSFERS_KEPT];
    unsigned next_transfer;
    uv_idle_t later;      /* runs when there is any of these: */
    struct request *lost; /* failed, and their owners do not know yet: see finish() */
    bool forgets, hinted; /* hf_consensus_forget_leader, hf_consensus_hint */
    struct request *change; /* of the configuration, one at a time; `due`: its next step is to be taken */
    bool change_due;
    struct write *unwritten; /* newest first */
    void (*close_done)(void *);
    void *close_arg;
};

struct request {
    struct hf_consensus *c;
    hf_consensus_cb cb;
    void (*barrier_cb)(void *, uint64_t, bool);
    void *arg;
    uint64_t term, id;
    enum { ADD, ASSIGN_STANDBY, ASSIGN_VOTER, REMOVE } step; /* of a change */
    char *address;                                         /* ADD */
    struct request *next;                                  /* in lost */
    union {
        struct raft_apply apply;
        struct raft_barrier barrier;
        struct raft_transfer transfer;
        struct raft_change change;
    };
};

/* libraft's callbacks know only their raft_io; it is the first thing we can get back from it. */
static struct hf_consensus *of_io(struct raft_io *io)
{
    return (struct hf_consensus *)(void *)((char *)io - offsetof(struct hf_consensus, io));
}

/* -- watching ---------------------------------------------------------------------------------------- */

static void tell_servers(struct hf_consensus *c)
{
    struct hf_consensus_server list[HF_CONSENSUS_SERVERS_MAX];
    unsigned n = 0;

    for (unsigned i = 0; i < c->raft.configuration.n && n < HF_CONSENSUS_SERVERS_MAX; i++) {
        const struct raft_server *s = &c->raft.configuration.servers[i];
        list[n].id = s->id;
        list[n].voter = s->role == RAFT_VOTER;
        list[n].idle = s->role == RAFT_SPARE;
        (void)snprintf(list[n].address, sizeof list[n].address, "%s", s->address);
        n++;
    }
    c->callbacks.servers(c->callbacks.ctx, list, n);
}

/* After everything that may have moved libraft: say what is new. */
static void watch(struct hf_consensus *c)
{
    enum hf_consensus_role role = HF_CONSENSUS_FOLLOWER;
    raft_id leader = 0;
    const char *address = NULL;
    int state;

    if (!c->started || c->failed)
        return;
    state = raft_state(&c->raft);
    if (state == RAFT_UNAVAILABLE) {
        c->failed = true;
        c->callbacks.failed(c->callbacks.ctx, raft_errmsg(&c->raft));
        return;
    }
    if (state == RAFT_LEADER)
        role = HF_CONSENSUS_LEADER;
    else if (state == RAFT_CANDIDATE)
        role = HF_CONSENSUS_CANDIDATE;
    raft_leader(&c->raft, &leader, &address);
    if (c->conf_index != c->raft.configuration_index ||
        c->conf_uncommitted != c->raft.configuration_uncommitted_index) {
        c->conf_index = c->raft.configuration_index;
        c->conf_uncommitted = c->raft.configuration_uncommitted_index;
        tell_servers(c);
    }
    if (c->role_known && role == c->role && c->raft.current_term == c->term && leader == c->leader)
        return;
    c->role_known = true;
    c->role = role;
    c->term = c->raft.current_term;
    c->leader = leader;
    c->callbacks.role(c->callbacks.ctx, role, c->term, leader);
}

static void wrapped_tick(struct raft_io *io)
{
    struct hf_consensus *c = of_io(io);

    c->tick(io);
    watch(c);
}

static void wrapped_recv(struct raft_io *io, struct raft_message *m)
{
    struct hf_consensus *c = of_io(io);

    if (hf_mend_second_vote(&c->raft, m))
        return; /* such a message owns no memory */
    hf_mend_received(&c->mend, m);
    c->recv(io, m);
    watch(c);
}

static int wrapped_send(struct raft_io *io, struct raft_io_send *req, const struct raft_message *m,
                        raft_io_send_cb cb)
{
    struct hf_consensus *c = of_io(io);
    struct raft_message mended = *m; /* raft_uv encodes it before it returns */

    hf_mend_answer(&c->mend, &c->raft, &mended);
    return c->io_send(io, req, &mended, cb);
}

static int wrapped_start(struct raft_io *io, unsigned msecs, raft_io_tick_cb tick,
                         raft_io_recv_cb recv)
{
    struct hf_consensus *c = of_io(io);

    c->tick = tick;
    c->recv = recv;
    /* libraft ticks once per heartbeat; a finer tick makes timeouts and hints sharper. */
    return c->io_start(io, msecs > 20 ? 20 : msecs, wrapped_tick, wrapped_recv);
}

static raft_time wrapped_time(struct raft_io *io)
{
    struct hf_consensus *c = of_io(io);

    return c->io_time(io) + c->ahead_ms;
}

/* -- writes that fail -------------------------------------------------------------------------------- */

/* libraft forgets an entry that could not be written, and with it all that follow; when the next of several
 * under way fails, it looks for what it has forgotten and crashes (replication.c, appendLeaderCb). A follower's
 * failure is told to its leader alone, as a refusal, for ever. So the host is told of the first failure, and
 * libraft of none until it is closed: then of the newest first, which it can bear. */
struct write {
    struct hf_consensus *c;
    struct raft_io_append req, *theirs;
    raft_io_append_cb cb;
    struct hf_mend mend;
    int status;
    struct write *next;
};

static void written_cb(struct raft_io_append *req, int status)
{
    struct write *x = req->data;
    struct hf_consensus *c = x->c;
    char text[sizeof c->io.errmsg + 64];

    if (status == 0) {
        c->mend = x->mend;
        x->cb(x->theirs, 0);
        free(x);
        return;
    }
    x->status = status;
    x->next = c->unwritten;
    c->unwritten = x;
    if (c->failed)
        return;
    c->failed = true;
    (void)snprintf(text, sizeof text, "cannot write to %s: %s", c->dir, c->io.errmsg);
    c->callbacks.failed(c->callbacks.ctx, text);
}

static int wrapped_append(struct raft_io *io, struct raft_io_append *req, const struct raft_entry entries[],
                          unsigned n, raft_io_append_cb cb)
{
    struct hf_consensus *c = of_io(io);
    struct write *x = calloc(1, sizeof *x);
    int rv;

    if (x == NULL)
        return RAFT_NOMEM;
    *x = (struct write){.c = c, .req.data = x, .theirs = req, .cb = cb, .mend = c->mend};
    rv = c->io_append(io, &x->req, entries, n, written_cb);
    if (rv != 0)
        free(x);
    return rv;
}

static void wrapped_closed(struct raft_io *io)
{
    struct hf_consensus *c = of_io(io);

    while (c->unwritten != NULL) {
        struct write *x = c->unwritten;
        c->unwritten = x->next;
        x->cb(x->theirs, x->status);
        free(x);
    }
    c->io_closed(io);
}

static void wrapped_close(struct raft_io *io, raft_io_close_cb cb)
{
    struct hf_consensus *c = of_io(io);

    c->io_closed = cb;
    c->io_close(io, wrapped_closed);
}

/* -- state machine ------------------------------------------------------------------------------------- */

/* libraft stores whole words of 8 bytes: our bytes travel behind their length. */
static uint8_t *framed(const uint8_t *bytes, size_t len, size_t *framed_len)
{
    uint64_t n = len;
    uint8_t *p;

    *framed_len = (sizeof n + len + 7) / 8 * 8;
    p = raft_calloc(1, *framed_len);
    if (p == NULL)
        return NULL;
    memcpy(p, &n, sizeof n);
    memcpy(p + sizeof n, bytes, len);
    return p;
}

static const uint8_t *unframed(const struct raft_buffer *buf, size_t *len)
{
    uint64_t n;

    if (buf->len < sizeof n)
        return NULL;
    memcpy(&n, buf->base, sizeof n);
    if (n > buf->len - sizeof n)
        return NULL;
    *len = (size_t)n;
    return (const uint8_t *)buf->base + sizeof n;
}

static int fsm_apply(struct raft_fsm *fsm, const struct raft_buffer *buf, void **result)
{
    struct hf_consensus *c = fsm->data;
    size_t len;
    const uint8_t *bytes = unframed(buf, &len);

    *result = NULL;
    if (bytes == NULL)
        return RAFT_CORRUPT;
    c->callbacks.apply(c->callbacks.ctx, bytes, len);
    return 0;
}

static int fsm_snapshot(struct raft_fsm *fsm, struct raft_buffer *bufs[], unsigned *n_bufs)
{
    struct hf_consensus *c = fsm->data;
    uint8_t *bytes;
    size_t len;

    if (c->callbacks.snapshot(c->callbacks.ctx, &bytes, &len) != 0)
        return RAFT_NOMEM;
    *bufs = raft_malloc(sizeof **bufs);
    if (*bufs != NULL)
        (*bufs)[0].base = framed(bytes, len, &(*bufs)[0].len);
    free(bytes);
    if (*bufs == NULL || (*bufs)[0].base == NULL) {
        raft_free(*bufs);
        return RAFT_NOMEM;
    }
    *n_bufs = 1;
    return 0;
}

static int fsm_restore(struct raft_fsm *fsm, struct raft_buffer *buf)
{
    struct hf_consensus *c = fsm->data;
    size_t len;
    const uint8_t *bytes = unframed(buf, &len);

    if (bytes == NULL || c->callbacks.restore(c->callbacks.ctx, bytes, len) != 0)
        return RAFT_CORRUPT;
    raft_free(buf->base);
    return 0;
}

/* -- life ------------------------------------------------------------------------------------------- */

static int fail_open(struct hf_consensus *c, const char *what, int rv, struct hf_error *err)
{
    bool damaged = rv == RAFT_CORRUPT || rv == RAFT_MALFORMED;

    return hf_fail(err, damaged ? HF_ECORRUPT : HF_EIO,
                   "raft log in %s: %s: %s %s (hint: if the disk damaged it, empty this node's "
                   "directory and let it join again as a new member; the other nodes keep the data)",
                   c->dir, what, raft_strerror(rv),
                   c->raft.errmsg[0] != '\0' ? c->raft.errmsg : c->io.errmsg);
}

static void request_free(struct request *r)
{
    if (r->c->change == r)
        r->c->change = NULL;
    free(r->address);
    free(r);
}

static void consensus_free(struct hf_consensus *c)
{
    for (unsigned i = 0; i < TRANSFERS_KEPT; i++)
        free(c->transfers[i]);
    while (c->lost != NULL) {
        struct request *r = c->lost;
        c->lost = r->next;
        request_free(r);
    }
    if (c->change_due)
        request_free(c->change); /* libraft has never heard of it */
    free(c->dir);
    free(c->address);
    free(c);
}

int hf_consensus_open(struct hf_consensus **out, uv_loop_t *loop,
                      const struct hf_consensus_config *config,
                      const struct hf_consensus_callbacks *callbacks, struct hf_error *err)
{
    struct hf_consensus *c = calloc(1, sizeof *c);
    int rv;

    *out = NULL;
    if (c == NULL)
        return hf_fail(err, HF_ENOMEM, "raft: out of memory");
    c->callbacks = *callbacks;
    c->loop = loop;
    c->dir = strdup(config->dir);
    c->address = strdup(config->address);
    if (c->dir == NULL || c->address == NULL) {
        consensus_free(c);
        return hf_fail(err, HF_ENOMEM, "raft: out of memory");
    }
    hf_transport_init(&c->transport, loop, &c->callbacks);
    rv = raft_uv_init(&c->io, loop, c->dir, &c->transport.base);
    if (rv != 0) {
        rv = fail_open(c, "cannot be opened", rv, err);
        consensus_free(c);
        return rv;
    }
    raft_uv_set_connect_retry_delay(&c->io, CONNECT_RETRY_MS);
    raft_uv_set_segment_size(&c->io, 1024 * 1024);
    /* Auto-recovery would set aside a damaged segment and start with a shorter log: entries that
     * others count on would be gone. Refuse instead; the node joins again as a new member. */
    raft_uv_set_auto_recovery(&c->io, false);
    c->io_start = c->io.start;
    c->io_time = c->io.time;
    c->io_append = c->io.append;
    c->io_send = c->io.send;
    c->io_close = c->io.close;
    c->io.start = wrapped_start;
    c->io.append = wrapped_append;
    c->io.send = wrapped_send;
    c->io.close = wrapped_close;
    c->io.time = wrapped_time;
    c->fsm = (struct raft_fsm){
        .version = 1, .data = c, .apply = fsm_apply, .snapshot = fsm_snapshot, .restore = fsm_restore};
    rv = raft_init(&c->raft, &c->io, &c->fsm, config->id, c->address);
    if (rv != 0) {
        rv = fail_open(c, "cannot be opened", rv, err);
        raft_uv_close(&c->io);
        consensus_free(c);
        return rv;
    }
    c->raft.data = c;
    raft_set_election_timeout(&c->raft, config->election_ms);
    raft_set_heartbeat_timeout(&c->raft, config->heartbeat_ms);
    raft_set_pre_vote(&c->raft, true);
    raft_set_snapshot_threshold(&c->raft, SNAPSHOT_THRESHOLD);
    raft_set_snapshot_trailing(&c->raft, SNAPSHOT_TRAILING);
    (void)uv_idle_init(loop, &c->later); /* cannot fail */
    *out = c;
    return 0;
}

int hf_consensus_bootstrap(struct hf_consensus *c, const struct hf_consensus_server *servers,
                           unsigned n, struct hf_error *err)
{
    struct raft_configuration conf;
    int rv = 0;

    raft_configuration_init(&conf);
    for (unsigned i = 0; i < n && rv == 0; i++)
        rv = raft_configuration_add(&conf, servers[i].id, servers[i].address,
                                    servers[i].voter ? RAFT_VOTER : RAFT_STANDBY);
    if (rv == 0)
        rv = raft_bootstrap(&c->raft, &conf);
    raft_configuration_close(&conf);
    if (rv == RAFT_CANTBOOTSTRAP)
        return hf_fail(err, HF_EEXIST, "raft log in %s: exists already", c->dir);
    return rv == 0 ? 0 : fail_open(c, "cannot be founded", rv, err);
}

/* libraft lets the only voter of a configuration lead at its start without a new term. Ours must be new:
 * an epoch is a term, and an epoch is never led twice. Nothing has been sent or appended in between. */
static int new_term_alone(struct hf_consensus *c)
{
    raft_term term = c->raft.current_term + 1;
    int rv;

    if (raft_state(&c->raft) != RAFT_LEADER)
        return 0;
    rv = c->io.set_term(&c->io, term);
    if (rv == 0)
        rv = c->io.set_vote(&c->io, c->raft.id);
    if (rv == 0) {
        c->raft.current_term = term;
        c->raft.voted_for = c->raft.id;
    }
    return rv;
}

int hf_consensus_start(struct hf_consensus *c, struct hf_error *err)
{
    int rv = raft_start(&c->raft);

    if (rv == 0)
        rv = new_term_alone(c);
    if (rv != 0)
        return fail_open(c, "cannot be read", rv, err);
    c->started = true;
    c->conf_index = ~0ull;
    watch(c);
    return 0;
}

static void later_closed_cb(uv_handle_t *handle)
{
    struct hf_consensus *c =
        (struct hf_consensus *)(void *)((char *)handle - offsetof(struct hf_consensus, later));

    if (c->close_done != NULL)
        c->close_done(c->close_arg);
    consensus_free(c);
}

static void closed_cb(struct raft *raft)
{
    struct hf_consensus *c = raft->data;

    raft_uv_close(&c->io);
    uv_close((uv_handle_t *)&c->later, later_closed_cb);
}

void hf_consensus_close(struct hf_consensus *c, void (*done)(void *arg), void *arg)
{
    c->failed = true; /* no more callbacks to the host */
    c->close_done = done;
    c->close_arg = arg;
    raft_close(&c->raft, closed_cb);
}

/* -- requests ---------------------------------------------------------------------------------------- */

static struct request *request(struct hf_consensus *c, hf_consensus_cb cb, void *arg)
{
    struct request *r;

    if (!c->started || c->failed)
        return NULL;
    r = calloc(1, sizeof *r);
    if (r != NULL)
        *r = (struct request){.c = c, .cb = cb, .arg = arg};
    return r;
}

static void tell(struct request *r, bool ok)
{
    struct hf_consensus *c = r->c;

    if (c->change == r)
        c->change = NULL; /* who is told may ask for the next */
    if (c->failed)
        ;
    else if (r->barrier_cb != NULL)
        r->barrier_cb(r->arg, r->term, ok);
    else
        r->cb(r->arg, ok);
    request_free(r);
    watch(c);
}

static void later_cb(uv_idle_t *idle);

static void forget_leader(struct hf_consensus *c)
{
    if (raft_state(&c->raft) != RAFT_FOLLOWER)
        return;
    if (c->raft.follower_state.current_leader.address != NULL)
        raft_free(c->raft.follower_state.current_leader.address);
    c->raft.follower_state.current_leader.address = NULL;
    c->raft.follower_state.current_leader.id = 0;
}

static void hint(struct hf_consensus *c)
{
    if (raft_state(&c->raft) == RAFT_LEADER)
        return;
    c->ahead_ms += 2 * c->raft.election_timeout + 1;
    c->tick(&c->io);
}

/* libraft fails what is under way in the middle of leaving leadership (convert.c, convertClearLeader): it
 * still calls itself the leader and has freed what a leader needs. Who is told there and asks again at once
 * would crash it; so failures are told from the loop. */
static void finish(struct request *r, bool ok)
{
    struct hf_consensus *c = r->c;
    struct request **at = &c->lost;

    if (ok || c->failed) {
        tell(r, ok);
        return;
    }
    while (*at != NULL)
        at = &(*at)->next;
    *at = r;
    (void)uv_idle_start(&c->later, later_cb);
}

/* -- changes of the configuration ---------------------------------------------------------------------- */

static void change_due(struct hf_consensus *c)
{
    c->change_due = true;
    (void)uv_idle_start(&c->later, later_cb);
}

static void changed_cb(struct raft_change *req, int status)
{
    struct request *r = req->data;

    if (status == 0 && !r->c->failed && r->step == ADD) {
        /* A spare receives nothing; a standby receives the log. */
        r->step = ASSIGN_STANDBY;
        change_due(r->c);
        return;
    }
    finish(r, status == 0);
}

/* Only with libraft at rest: a change frees the list of servers, which libraft walks while it applies entries. */
static void change_step(struct request *r)
{
    struct hf_consensus *c = r->c;
    int rv = RAFT_NOTLEADER;

    r->change.data = r;
    if (!c->failed && r->step == ADD) {
        rv = raft_add(&c->raft, &r->change, r->id, r->address, changed_cb);
        if (rv == RAFT_DUPLICATEID)
            r->step = ASSIGN_STANDBY; /* added by a leader that was lost before the second step */
    }
    if (!c->failed && (r->step == ASSIGN_STANDBY || r->step == ASSIGN_VOTER))
        rv = raft_assign(&c->raft, &r->change, r->id, r->step == ASSIGN_VOTER ? RAFT_VOTER : RAFT_STANDBY,
                         changed_cb);
    else if (!c->failed && r->step == REMOVE)
        rv = raft_remove(&c->raft, &r->change, r->id, changed_cb);
    if (rv != 0)
        finish(r, false);
}

/* What must find libraft at rest, and is asked for, or found out, in the middle of one of its functions. */
static void later_cb(uv_idle_t *idle)
{
    struct hf_consensus *c =
        (struct hf_consensus *)(void *)((char *)idle - offsetof(struct hf_consensus, later));
    struct request *list = c->lost;
    bool forgets = c->forgets, hinted = c->hinted, change = c->change_due;

    /* Who is told may ask again, and fail again: next time. */
    c->lost = NULL;
    c->forgets = c->hinted = c->change_due = false;
    (void)uv_idle_stop(idle);
    if (!c->failed && forgets)
        forget_leader(c);
    if (!c->failed && hinted)
        hint(c);
    if (change)
        change_step(c->change);
    watch(c);
    while (list != NULL) {
        struct request *r = list;
        list = r->next;
        tell(r, false);
    }
}

void hf_consensus_forget_leader(struct hf_consensus *c)
{
    if (!c->started || c->failed)
        return;
    c->forgets = true;
    (void)uv_idle_start(&c->later, later_cb);
}

void hf_consensus_hint(struct hf_consensus *c)
{
    if (!c->started || c->failed)
        return;
    c->hinted = true;
    (void)uv_idle_start(&c->later, later_cb);
}

static int refused(struct request *r, int rv)
{
    request_free(r);
    return rv == RAFT_BUSY || rv == RAFT_CANTCHANGE ? HF_EBUSY : HF_EREFUSED;
}

static void applied_cb(struct raft_apply *req, int status, void *result)
{
    (void)result;
    finish(req->data, status == 0);
}

int hf_consensus_apply(struct hf_consensus *c, const uint8_t *bytes, size_t len, hf_consensus_cb cb,
                       void *arg)
{
    struct request *r = request(c, cb, arg);
    struct raft_buffer buf;
    int rv;

    if (r == NULL)
        return HF_EREFUSED;
    buf.base = framed(bytes, len, &buf.len);
    if (buf.base == NULL) {
        free(r);
        return HF_ENOMEM;
    }
    r->apply.data = r;
    rv = raft_apply(&c->raft, &r->apply, &buf, 1, applied_cb);
    if (rv != 0) {
        raft_free(buf.base);
        return refused(r, rv);
    }
    watch(c);
    return 0;
}

static void barrier_done_cb(struct raft_barrier *req, int status)
{
    finish(req->data, status == 0);
}

int hf_consensus_barrier(struct hf_consensus *c, void (*cb)(void *arg, uint64_t term, bool ok),
                         void *arg)
{
    struct request *r = request(c, NULL, arg);
    int rv;

    if (r == NULL)
        return HF_EREFUSED;
    r->barrier_cb = cb;
    r->term = c->raft.current_term;
    r->barrier.data = r;
    rv = raft_barrier(&c->raft, &r->barrier, barrier_done_cb);
    return rv == 0 ? 0 : refused(r, rv);
}

static void transfer_cb(struct raft_transfer *req)
{
    struct request *r = req->data;
    struct hf_consensus *c = r->c;
    struct request **kept = &c->transfers[c->next_transfer++ % TRANSFERS_KEPT];
    raft_id leader = 0;
    const char *address;

    free(*kept);
    *kept = r;
    raft_leader(&c->raft, &leader, &address);
    if (!c->failed)
        r->cb(r->arg, leader == r->id);
    watch(c);
}

int hf_consensus_transfer(struct hf_consensus *c, uint64_t id, hf_consensus_cb cb, void *arg)
{
    struct request *r = request(c, cb, arg);
    int rv;

    if (r == NULL)
        return HF_EREFUSED;
    r->id = id;
    r->transfer.data = r;
    rv = raft_transfer(&c->raft, &r->transfer, id, transfer_cb);
    return rv == 0 ? 0 : refused(r, rv);
}

/* Takes `r` for the change under way; its first step comes from the loop. */
static int change(struct request *r)
{
    struct hf_consensus *c;

    if (r == NULL)
        return HF_EREFUSED;
    c = r->c;
    if (raft_state(&c->raft) != RAFT_LEADER || c->change != NULL) {
        int rv = c->change != NULL ? HF_EBUSY : HF_EREFUSED;
        request_free(r);
        return rv;
    }
    c->change = r;
    change_due(c);
    return 0;
}

int hf_consensus_add(struct hf_consensus *c, uint64_t id, const char *address, hf_consensus_cb cb,
                     void *arg)
{
    struct request *r = request(c, cb, arg);

    if (r == NULL)
        return HF_EREFUSED;
    r->id = id;
    r->step = ADD;
    r->address = strdup(address);
    if (r->address == NULL) {
        request_free(r);
        return HF_ENOMEM;
    }
    return change(r);
}

int hf_consensus_assign(struct hf_consensus *c, uint64_t id, bool voter, hf_consensus_cb cb,
                        void *arg)
{
    struct request *r = request(c, cb, arg);

    if (r != NULL) {
        r->id = id;
        r->step = voter ? ASSIGN_VOTER : ASSIGN_STANDBY;
    }
    return change(r);
}

int hf_consensus_remove(struct hf_consensus *c, uint64_t id, hf_consensus_cb cb, void *arg)
{
    struct request *r = request(c, cb, arg);

    if (r != NULL) {
        r->id = id;
        r->step = REMOVE;
    }
    return change(r);
}

void hf_consensus_accepted(struct hf_consensus *c, uint64_t id, const char *address, int fd)
{
    hf_transport_accepted(&c->transport, id, address, fd);
}
