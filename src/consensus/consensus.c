#include "consensus/private.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <raft/uv.h>

#include "consensus/segments.h"

enum {
    SNAPSHOT_THRESHOLD = 256,
    SNAPSHOT_TRAILING = 64,
    CATCH_UP_MS = 2000, /* for a voter to be; if it is gone, the next change waits as long, and libraft would wait for five seconds */
    SNAPSHOT_AGAIN_MS = 1000, /* one that was lost with its connection; ours are small, and libraft would wait for half a minute */
    CONNECT_RETRY_MS = 50
};

/* -- state machine ------------------------------------------------------------------------------------- */

uint8_t *hf_consensus_framed(const uint8_t *bytes, size_t len, size_t *framed_len)
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
        (*bufs)[0].base = hf_consensus_framed(bytes, len, &(*bufs)[0].len);
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

    if (bytes == NULL || c->callbacks.restore(c->callbacks.ctx, bytes, len) != 0) {
        if (c->started) { /* libraft has emptied its log for it, and would say that it has it when it comes again */
            c->mute = true;
            hf_consensus_give_up(c, "the leader's snapshot of the cluster state cannot be read (hint: is this node's version older than the others'?)");
        }
        return RAFT_CORRUPT;
    }
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

static void consensus_free(struct hf_consensus *c)
{
    for (unsigned i = 0; i < TRANSFERS_KEPT; i++)
        free(c->transfers[i]);
    while (c->lost != NULL) {
        struct request *r = c->lost;
        c->lost = r->next;
        hf_consensus_request_free(r);
    }
    if (c->change_due)
        hf_consensus_request_free(c->change); /* libraft has never heard of it */
    raft_configuration_close(&c->committed);
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
    rv = hf_segments_tidy(c->dir, err);
    if (rv != 0) {
        consensus_free(c);
        return rv;
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
    hf_consensus_wrap_io(c);
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
    raft_set_install_snapshot_timeout(&c->raft, SNAPSHOT_AGAIN_MS);
    raft_set_max_catch_up_round_duration(&c->raft, CATCH_UP_MS);
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

    if (rv == 0) {
        hf_consensus_loaded_end(c);
        rv = new_term_alone(c);
    }
    if (rv != 0)
        return fail_open(c, "cannot be read", rv, err);
    c->started = true;
    c->conf_index = ~0ull;
    hf_consensus_watch(c);
    return 0;
}

void hf_consensus_closed(struct hf_consensus *c)
{
    if (!c->closed || c->at_dir_now)
        return;
    if (c->close_done != NULL)
        c->close_done(c->close_arg);
    consensus_free(c);
}

static void later_closed_cb(uv_handle_t *handle)
{
    struct hf_consensus *c =
        (struct hf_consensus *)(void *)((char *)handle - offsetof(struct hf_consensus, later));

    c->closed = true;
    hf_consensus_closed(c);
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

void hf_consensus_accepted(struct hf_consensus *c, uint64_t id, const char *address, int fd)
{
    hf_transport_accepted(&c->transport, id, address, fd);
}
