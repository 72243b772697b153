/* Between libraft and its disk: in which order what is written, and what becomes of a write that fails. */
#include "consensus/private.h"

#include <stdio.h>
#include <stdlib.h>

enum {
    PATIENCE_MS = 20000, /* with a cut: it is several flushes of the disk, which may be slow */
    TICK_MOST_MS = 100,  /* a process that was stopped has not waited */
};

/* libraft forgets an entry that could not be written, and with it all that follow; when the next of several
 * under way fails, it looks for what it has forgotten and crashes (replication.c, appendLeaderCb). A follower's
 * failure is told to its leader alone, as a refusal, for ever. So the host is told of the first failure, and
 * libraft of none until it is closed: then of the newest first, which it can bear. Nothing more is written then:
 * at the next start it would follow what is not there.
 *
 * raft_uv tells nobody whether it has cut its log (uv_truncate.c, "errored", which nothing reads), and forgets a cut
 * that is asked for while a snapshot is written (uv_append.c, UvBarrier). What is appended next goes to an open segment,
 * acknowledged, and a start reads it behind the entries that were to be cut off. The same goes for a snapshot that comes
 * in the log's place: libraft empties its log first, and of the same snapshot, when it comes again, it says that it has it
 * (replicationInstallSnapshot). So after either nothing is begun until the directory shows that it is done, and neither is
 * begun while a snapshot is written. Before either the directory is told what is to be done: segments.h. */
struct write {
    struct hf_consensus *c;
    enum { ENTRIES, CUT, SNAPSHOT } what;
    uint64_t nth;
    int status; /* not 0: it failed, and is in unwritten */
    struct write *next;
    struct raft_io_append append, *appends; /* ENTRIES: ours, libraft's */
    raft_io_append_cb appended;
    const struct raft_entry *entries;
    unsigned n;
    struct hf_mend mend;
    raft_index from;                         /* CUT */
    struct raft_io_snapshot_put put, *puts; /* SNAPSHOT */
    raft_io_snapshot_put_cb was_put;
    const struct raft_snapshot *snapshot;
    unsigned trailing; /* 0: it comes in the log's place */
    bool marked, put_done;
};

static void give_up_disk(struct hf_consensus *c, const char *what, const char *why)
{
    char text[1024];

    (void)snprintf(text, sizeof text, "cannot %s %s: %s", what, c->dir, why);
    hf_consensus_give_up(c, text);
}

static void told(struct write *x, int status)
{
    /* libraft forgets to free these when it fails (replication.c, installSnapshotCb). */
    struct raft_buffer *bufs = x->what == SNAPSHOT && x->trailing == 0 && status != 0 ? x->snapshot->bufs : NULL;

    if (x->what == ENTRIES)
        x->appended(x->appends, status);
    else if (x->what == SNAPSHOT)
        x->was_put(x->puts, status);
    raft_free(bufs);
    free(x);
}

static void keep_unwritten(struct write *x, int status)
{
    struct write **at = &x->c->unwritten;

    while (*at != NULL && (*at)->nth > x->nth)
        at = &(*at)->next;
    x->status = status;
    x->next = *at;
    *at = x;
}

static void unwritten(struct write *x, int status, const char *what, const char *why)
{
    struct hf_consensus *c = x->c;

    if (c->alone == x)
        c->alone = NULL;
    keep_unwritten(x, status);
    c->mute = true;
    give_up_disk(c, what, why);
}

static void written_cb(struct raft_io_append *req, int status)
{
    struct write *x = req->data;
    struct hf_consensus *c = x->c;
    struct raft_message early;

    c->writing--;
    if (x->status != 0)
        return; /* known */
    if (status == 0 && c->unwritten == NULL) { /* what comes after a hole in the log is not written either */
        c->mend = x->mend;
        told(x, 0);
        while (hf_mend_again(&c->early, &c->raft, &early))
            c->recv(&c->io, &early);
        return;
    }
    unwritten(x, status != 0 ? status : RAFT_CANCELED, "write to", c->io.errmsg);
}

static void not_done(struct write *x, const char *why)
{
    unwritten(x, RAFT_IOERR, x->what == CUT ? "cut the log in" : "put the leader's snapshot in the place of the log in", why);
}

static void begin_marked(struct write *x);

static void at_dir_cb(uv_work_t *work)
{
    struct hf_consensus *c = work->data;

    c->said = c->marks ? hf_segments_mark(c->dir, &c->mark, &c->said_err) : hf_segments_done(c->dir, c->mark.from, &c->said_err);
}

static void was_at_dir_cb(uv_work_t *work, int status)
{
    struct hf_consensus *c = work->data;
    struct write *x = c->alone;

    (void)status; /* never cancelled */
    c->at_dir_now = false;
    if (x != NULL && c->said < 0) {
        not_done(x, c->said_err.text); /* to ask a disk again what it has refused once is to be lied to */
    } else if (x != NULL && c->marks && c->said == 0) {
        x->marked = true;
        if (!c->closing && !c->mute)
            begin_marked(x);
    } else if (x != NULL && c->said == 0) { /* 1, of either: again at the next tick */
        c->alone = NULL;
        told(x, 0);
        hf_consensus_disk_go(c);
    }
    hf_consensus_closed(c);
}

/* On another thread: a directory may be as slow as its disk. */
static void at_dir(struct hf_consensus *c)
{
    const struct write *x = c->alone;

    c->marks = !x->marked;
    if (x->what == CUT)
        c->mark = (struct hf_segments_mark){.from = x->from};
    else
        c->mark = (struct hf_segments_mark){.snapshot_term = x->snapshot->term, .snapshot_index = x->snapshot->index};
    c->at_dir.data = c;
    c->at_dir_now = uv_queue_work(c->loop, &c->at_dir, at_dir_cb, was_at_dir_cb) == 0;
}

void hf_consensus_disk_tick(struct hf_consensus *c)
{
    struct write *x = c->alone;
    raft_time now = c->io_time(&c->io), since = now - c->alone_tick;

    c->alone_tick = now;
    if (x == NULL || c->closing)
        return;
    c->alone_ms += since < TICK_MOST_MS ? (unsigned)since : TICK_MOST_MS;
    if (c->writing > 0) /* to segments yet to be closed, and cut */
        c->alone_ms = 0;
    else if (c->alone_ms > c->patience_ms)
        not_done(x, c->at_dir_now ? "it cannot be read in time" : "it is not done in time");
    else if (!c->at_dir_now && (x->what == CUT || !x->marked || x->put_done))
        at_dir(c);
}

static void put_cb(struct raft_io_snapshot_put *req, int status)
{
    struct write *x = req->data;
    struct hf_consensus *c = x->c;

    if (x->status != 0)
        return; /* known */
    if (c->alone == x && status != 0) {
        unwritten(x, status, "put the leader's snapshot into", raft_strerror(status));
    } else if (c->alone == x) {
        x->put_done = true;
        c->alone_ms = 0;
        if (!c->closing)
            at_dir(c);
    } else {
        c->snapshot = NULL;
        told(x, status);
        if (!c->closing)
            hf_consensus_soon(c); /* raft_uv is busy with it until this has returned */
    }
}

static void begin_marked(struct write *x)
{
    struct hf_consensus *c = x->c;
    int rv = x->what == CUT ? c->io_truncate(&c->io, x->from) : c->io_snapshot_put(&c->io, x->trailing, &x->put, x->snapshot, put_cb);

    if (rv != 0)
        unwritten(x, rv, x->what == CUT ? "cut the log in" : "put the leader's snapshot into", raft_strerror(rv));
}

static void begin(struct write *x)
{
    struct hf_consensus *c = x->c;
    int rv;

    if (x->what == ENTRIES) {
        c->writing++;
        rv = c->io_append(&c->io, &x->append, x->entries, x->n, written_cb);
        if (rv != 0) /* it may be in raft_uv's queue all the same, with a callback to come (uv_append.c, UvAppend) */
            unwritten(x, rv, "write to", c->io.errmsg);
    } else if (x->what == SNAPSHOT && x->trailing > 0) {
        c->snapshot = x;
        rv = c->io_snapshot_put(&c->io, x->trailing, &x->put, x->snapshot, put_cb);
        if (rv != 0)
            put_cb(&x->put, rv);
    } else {
        c->alone = x;
        c->alone_ms = 0;
        at_dir(c);
    }
}

void hf_consensus_disk_go(struct hf_consensus *c)
{
    while (c->due != NULL && !c->mute && !c->closing && c->alone == NULL &&
           (c->snapshot == NULL || c->due->what == ENTRIES)) {
        struct write *x = c->due;
        c->due = x->next;
        begin(x);
    }
}

static struct write *write_of(struct hf_consensus *c)
{
    struct write *x = calloc(1, sizeof *x);

    if (x == NULL)
        abort();
    x->c = c;
    x->nth = ++c->writes;
    x->append.data = x->put.data = x;
    return x;
}

static void due(struct write *x)
{
    struct write **at = &x->c->due;

    while (*at != NULL)
        at = &(*at)->next;
    *at = x;
    hf_consensus_disk_go(x->c);
}

bool hf_consensus_disk_owes(const struct hf_consensus *c)
{
    return c->writing > 0 || c->due != NULL || c->alone != NULL;
}

static int wrapped_append(struct raft_io *io, struct raft_io_append *req, const struct raft_entry entries[],
                          unsigned n, raft_io_append_cb cb)
{
    struct write *x = write_of(hf_consensus_of_io(io));

    x->what = ENTRIES;
    x->appends = req;
    x->appended = cb;
    x->entries = entries;
    x->n = n;
    x->mend = x->c->mend;
    due(x);
    return 0;
}

static int wrapped_truncate(struct raft_io *io, raft_index index)
{
    struct write *x = write_of(hf_consensus_of_io(io));

    x->what = CUT;
    x->from = index;
    due(x);
    return 0;
}

static int wrapped_snapshot_put(struct raft_io *io, unsigned trailing, struct raft_io_snapshot_put *req,
                                const struct raft_snapshot *snapshot, raft_io_snapshot_put_cb cb)
{
    struct write *x = write_of(hf_consensus_of_io(io));

    x->what = SNAPSHOT;
    x->trailing = trailing;
    x->puts = req;
    x->was_put = cb;
    x->snapshot = snapshot;
    due(x);
    return 0;
}

/* A candidate whose term or vote cannot be written calls itself a follower again and leaves the candidate's fields
 * where a follower's leader stands (libraft, election.c): the next message makes it read or free what is no pointer.
 * So libraft hears of no failure here either; the host is told, and nothing is sent any more, neither that vote nor
 * anything built on it. */
static int unkept(struct hf_consensus *c, int rv)
{
    if (rv == 0 || !c->started)
        return rv;
    c->mute = true;
    give_up_disk(c, "write term and vote to", c->io.errmsg);
    return 0;
}

static int wrapped_set_term(struct raft_io *io, raft_term term)
{
    struct hf_consensus *c = hf_consensus_of_io(io);

    return unkept(c, c->io_set_term(io, term));
}

static int wrapped_set_vote(struct raft_io *io, raft_id server)
{
    struct hf_consensus *c = hf_consensus_of_io(io);

    return unkept(c, c->io_set_vote(io, server));
}

void hf_consensus_tell_unwritten(struct hf_consensus *c)
{
    while (c->due != NULL) {
        struct write *x = c->due;
        c->due = x->next;
        keep_unwritten(x, RAFT_CANCELED);
    }
    if (c->alone != NULL)
        keep_unwritten(c->alone, RAFT_CANCELED);
    c->alone = NULL;
    while (c->unwritten != NULL) {
        struct write *x = c->unwritten;
        c->unwritten = x->next;
        told(x, x->status);
    }
}

void hf_consensus_wrap_disk(struct hf_consensus *c)
{
    c->patience_ms = PATIENCE_MS;
    c->io_append = c->io.append;
    c->io_truncate = c->io.truncate;
    c->io_snapshot_put = c->io.snapshot_put;
    c->io_set_term = c->io.set_term;
    c->io_set_vote = c->io.set_vote;
    c->io.append = wrapped_append;
    c->io.truncate = wrapped_truncate;
    c->io.snapshot_put = wrapped_snapshot_put;
    c->io.set_term = wrapped_set_term;
    c->io.set_vote = wrapped_set_vote;
}
