/* Between libraft and its network and clock: what it is not told, what it is told later, and what it may not say. */
#include "consensus/private.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

void hf_consensus_give_up(struct hf_consensus *c, const char *text)
{
    if (c->failed)
        return;
    c->failed = true;
    c->callbacks.failed(c->callbacks.ctx, text);
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

void hf_consensus_watch(struct hf_consensus *c)
{
    enum hf_consensus_role role = HF_CONSENSUS_FOLLOWER;
    raft_id leader = 0;
    const char *address = NULL;
    int state;

    if (!c->started || c->failed)
        return;
    state = raft_state(&c->raft);
    if (state == RAFT_UNAVAILABLE) {
        hf_consensus_give_up(c, raft_errmsg(&c->raft));
        return;
    }
    if (state == RAFT_LEADER)
        role = HF_CONSENSUS_LEADER;
    else if (state == RAFT_CANDIDATE)
        role = HF_CONSENSUS_CANDIDATE;
    raft_leader(&c->raft, &leader, &address);
    hf_consensus_committed(c);
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
    struct hf_consensus *c = hf_consensus_of_io(io);

    c->tick(io);
    hf_consensus_disk_tick(c);
    hf_consensus_watch(c);
}

static void drop_entries(struct raft_append_entries *a)
{
    for (unsigned i = 0; i < a->n_entries; i++)
        if (i == 0 || a->entries[i].batch != a->entries[i - 1].batch)
            raft_free(a->entries[i].batch);
    raft_free(a->entries);
    a->entries = NULL;
    a->n_entries = 0;
}

/* To libraft a write is done when one is of an entry of that index and term (replication.c, appendFollowerCb), though that entry has
 * been cut off and come again meanwhile: it would be acknowledged before it is written. So nothing is cut off while anything is
 * unwritten; what asks for it is a heartbeat then, or lost, and comes again. True: lost. */
static bool too_early(struct hf_consensus *c, struct raft_message *m)
{
    if (!hf_consensus_disk_owes(c) || !hf_consensus_would_cut(c, m))
        return false;
    if (m->type == RAFT_IO_APPEND_ENTRIES) {
        drop_entries(&m->append_entries);
        return false;
    }
    raft_free(m->install_snapshot.data.base);
    raft_configuration_close(&m->install_snapshot.conf);
    return true;
}

static void wrapped_recv(struct raft_io *io, struct raft_message *m)
{
    struct hf_consensus *c = hf_consensus_of_io(io);

    if (hf_mend_second_vote(&c->raft, m))
        return; /* such a message owns no memory */
    if (too_early(c, m))
        return;
    hf_mend_received(&c->mend, m);
    hf_mend_counted(&c->early, &c->raft, m);
    hf_consensus_take_back(c, m);
    c->recv(io, m);
    hf_consensus_watch(c);
}

/* raft_uv does not read from the connections that it sends on: that one has ended, with the process at its other
 * end, it finds out by losing the next message. It dials again at once, but libraft waits a heartbeat before it says
 * the same again: a first vote, a first answer to a new leader came that much late. So what was lost in this way is
 * sent once more. What a message points to stays until its callback, but for the address. */
struct sent {
    struct hf_consensus *c;
    struct raft_io_send req, *theirs;
    raft_io_send_cb cb;
    struct raft_message m;
    bool again;
    struct sent *next; /* in unsent */
    char address[];
};

static void sent_end(struct sent *x, int status)
{
    if (x->cb != NULL)
        x->cb(x->theirs, status);
    free(x);
}

/* libraft frees the entries of a message twice if it cannot send the answer at once (recv_append_entries.c, recv.c).
 * So to send always works, and the failure is told from the loop. */
static void fail_soon(struct sent *x)
{
    x->next = x->c->unsent;
    x->c->unsent = x;
    if (!x->c->closing)
        hf_consensus_soon(x->c);
}

void hf_consensus_tell_unsent(struct hf_consensus *c)
{
    struct sent *list = c->unsent;

    c->unsent = NULL; /* who is told may send again, and fail again: next time */
    while (list != NULL) {
        struct sent *x = list;
        list = x->next;
        sent_end(x, c->closing ? RAFT_CANCELED : RAFT_NOCONNECTION);
    }
}

static void sent_cb(struct raft_io_send *req, int status)
{
    struct sent *x = req->data;
    struct hf_consensus *c = x->c;

    if ((status == RAFT_IOERR || status == RAFT_CANCELED) && !x->again && !c->closing && !c->mute) {
        x->again = true;
        if (c->io_send(&c->io, &x->req, &x->m, sent_cb) == 0)
            return;
    }
    sent_end(x, status);
}

/* When entries or a snapshot have been written libraft answers to the leader of that moment (replication.c,
 * sendAppendEntriesResult): there may be none any more, and who is no follower has something else in its place. */
static bool to_nobody(const struct hf_consensus *c, const struct raft_message *m)
{
    return m->type == RAFT_IO_APPEND_ENTRIES_RESULT &&
           m->server_address == c->raft.follower_state.current_leader.address &&
           (c->raft.state != RAFT_FOLLOWER || m->server_address == NULL);
}

static int wrapped_send(struct raft_io *io, struct raft_io_send *req, const struct raft_message *m,
                        raft_io_send_cb cb)
{
    struct hf_consensus *c = hf_consensus_of_io(io);
    bool nobody = to_nobody(c, m);
    size_t len = nobody ? 0 : strlen(m->server_address) + 1;
    struct sent *x = calloc(1, sizeof *x + len);

    if (x == NULL)
        abort();
    *x = (struct sent){.c = c, .req.data = x, .theirs = req, .cb = cb, .m = *m};
    if (len > 0)
        x->m.server_address = memcpy(x->address, m->server_address, len);
    hf_mend_answer(&c->mend, &c->raft, &x->m);
    if (c->mute || nobody || c->io_send(io, &x->req, &x->m, sent_cb) != 0)
        fail_soon(x);
    return 0;
}

static int wrapped_load(struct raft_io *io, raft_term *term, raft_id *vote, struct raft_snapshot **snapshot,
                        raft_index *start, struct raft_entry *entries[], size_t *n)
{
    struct hf_consensus *c = hf_consensus_of_io(io);
    int rv = c->io_load(io, term, vote, snapshot, start, entries, n);

    if (rv == 0)
        hf_consensus_loaded(c, *snapshot, *start, *entries, *n);
    return rv;
}

static int wrapped_start(struct raft_io *io, unsigned msecs, raft_io_tick_cb tick,
                         raft_io_recv_cb recv)
{
    struct hf_consensus *c = hf_consensus_of_io(io);

    c->tick = tick;
    c->recv = recv;
    /* libraft ticks once per heartbeat; a finer tick makes timeouts and hints sharper. */
    return c->io_start(io, msecs > 20 ? 20 : msecs, wrapped_tick, wrapped_recv);
}

static raft_time wrapped_time(struct raft_io *io)
{
    struct hf_consensus *c = hf_consensus_of_io(io);

    return c->io_time(io) + c->ahead_ms;
}

static void wrapped_closed(struct raft_io *io)
{
    struct hf_consensus *c = hf_consensus_of_io(io);

    hf_consensus_tell_unsent(c);
    hf_consensus_tell_unwritten(c);
    c->io_closed(io);
}

static void wrapped_close(struct raft_io *io, raft_io_close_cb cb)
{
    struct hf_consensus *c = hf_consensus_of_io(io);

    c->closing = true;
    c->io_closed = cb;
    c->io_close(io, wrapped_closed);
}

void hf_consensus_wrap_io(struct hf_consensus *c)
{
    c->io_load = c->io.load;
    c->io_start = c->io.start;
    c->io_time = c->io.time;
    c->io_send = c->io.send;
    c->io_close = c->io.close;
    c->io.load = wrapped_load;
    c->io.start = wrapped_start;
    c->io.send = wrapped_send;
    c->io.close = wrapped_close;
    c->io.time = wrapped_time;
    hf_consensus_wrap_disk(c);
}
