/* What the host asks of libraft, and when it is told. */
#include "consensus/private.h"

#include <stdlib.h>
#include <string.h>

void hf_consensus_request_free(struct request *r)
{
    if (r->c->change == r)
        r->c->change = NULL;
    free(r->address);
    free(r);
}

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
    hf_consensus_request_free(r);
    hf_consensus_watch(c);
}

static void later_cb(uv_idle_t *idle);

void hf_consensus_soon(struct hf_consensus *c)
{
    (void)uv_idle_start(&c->later, later_cb);
}

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
    hf_consensus_soon(c);
}

/* -- changes of the configuration ---------------------------------------------------------------------- */

static void change_due(struct hf_consensus *c)
{
    c->change_due = true;
    hf_consensus_soon(c);
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
    hf_consensus_disk_go(c);
    hf_consensus_tell_unsent(c);
    if (!c->failed && forgets)
        forget_leader(c);
    if (!c->failed && hinted)
        hint(c);
    if (change)
        change_step(c->change);
    hf_consensus_watch(c);
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
    hf_consensus_soon(c);
}

void hf_consensus_hint(struct hf_consensus *c)
{
    if (!c->started || c->failed)
        return;
    c->hinted = true;
    hf_consensus_soon(c);
}

static int refused(struct request *r, int rv)
{
    hf_consensus_request_free(r);
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
    buf.base = hf_consensus_framed(bytes, len, &buf.len);
    if (buf.base == NULL) {
        hf_consensus_request_free(r);
        return HF_ENOMEM;
    }
    r->apply.data = r;
    rv = raft_apply(&c->raft, &r->apply, &buf, 1, applied_cb);
    if (rv != 0) {
        raft_free(buf.base);
        return refused(r, rv);
    }
    hf_consensus_watch(c);
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
    hf_consensus_watch(c);
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
        hf_consensus_request_free(r);
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
        hf_consensus_request_free(r);
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
