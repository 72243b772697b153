/* What the parts report becomes the core's events. All of it comes on the control thread. */
#include "node_private.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/log.h"
#include "node.h"

/* The payload of a hello for HF_PURPOSE_SQL: for a follower; without it: for the leader. */
enum { READER = 'r' };

/* -- peers --------------------------------------------------------------------------------------------------- */

static void heard(struct hf_node *n, hf_node_id id, const char *name)
{
    if (id == 0)
        return;
    for (unsigned i = 0; i < n->n_heard; i++)
        if (n->heard[i].id == id)
            return;
    if (n->n_heard == HF_HEARD_MAX)
        n->n_heard = 0; /* incarnations long gone: learned again from the next message */
    n->heard[n->n_heard].id = id;
    (void)snprintf(n->heard[n->n_heard++].name, HF_NAME_MAX, "%s", name);
}

/* The sender's address: as it says of itself in formation, else as the seeds have it. */
static const char *reply_addr(const struct hf_node *n, const struct hf_msg *m, const char *name)
{
    const char *addr = hf_node_seed_addr(n, name);

    return addr != NULL ? addr : m->peer;
}

static void join(struct hf_node *n, const struct hf_peer_identity *from, const struct hf_msg *m)
{
    struct hf_waiting *w;
    struct hf_member member = {.uuid = m->uuid};
    struct hf_event e = {.type = HF_EV_JOIN, .member = &member};

    for (unsigned i = 0; i < HF_WAITING_MAX; i++) /* asked again while the first is under way */
        if (n->waiting[i].request != 0 && strcmp(n->waiting[i].name, from->name) == 0)
            return;
    w = hf_node_wait(n);
    if (w == NULL)
        return; /* it asks again */
    w->uuid = m->uuid;
    (void)snprintf(w->name, sizeof w->name, "%s", from->name);
    (void)snprintf(w->addr, sizeof w->addr, "%s", reply_addr(n, m, from->name));
    (void)snprintf(member.name, sizeof member.name, "%s", from->name);
    (void)snprintf(member.peer, sizeof member.peer, "%s", m->peer);
    (void)snprintf(member.sql, sizeof member.sql, "%s", m->sql);
    e.request = w->request;
    hf_node_step(n, &e);
}

/* A member hears a node that still forms. */
static void formation(struct hf_node *n, const struct hf_peer_identity *from, const struct hf_msg *m)
{
    struct hf_msg answer;

    if (m->type == HF_MSG_JOIN) {
        join(n, from, m);
        return;
    }
    if (hf_form_starts_anew(&n->durable, m)) {
        hf_warn("form: %s founds the cluster anew, and nothing was ever acknowledged here: this node "
                "starts again",
                from->name);
        hf_node_end(n, HF_EXIT_ANEW);
        return;
    }
    if (!hf_form_answer(&n->durable, m, &answer))
        return;
    (void)snprintf(answer.name, sizeof answer.name, "%s", n->config->name);
    (void)snprintf(answer.peer, sizeof answer.peer, "%s", n->config->advertise_peer);
    (void)snprintf(answer.sql, sizeof answer.sql, "%s", n->config->advertise_sql);
    hf_peer_send(n->peer, from->name, reply_addr(n, m, from->name), &answer);
}

static void on_message(void *ctx, const struct hf_peer_identity *from, const struct hf_msg *m)
{
    struct hf_node *n = ctx;

    heard(n, m->from, from->name);
    if (n->form != NULL && n->decide == NULL) {
        hf_form_message(n->form, hf_clock_ns(), m);
        hf_node_form_run(n);
    } else if (m->type == HF_MSG_SETTINGS || m->type == HF_MSG_RESTART) {
        if (m->from == from->id) /* as its certificate has it */
            hf_node_settings_message(n, m);
    } else if (m->type >= HF_MSG_READ) {
        if (m->from == from->id)
            hf_node_reads_message(n, m);
    } else if (m->type >= HF_MSG_LEAVE) {
        if (m->from == from->id)
            hf_node_leave_message(n, from, m);
    } else if (m->type >= HF_MSG_PROBE) {
        formation(n, from, m);
    } else {
        hf_node_step(n, &(struct hf_event){.type = HF_EV_MESSAGE, .msg = m});
    }
}

static hf_node_id id_of(const struct hf_node *n, const char *name)
{
    const struct hf_member *m =
        n->decide != NULL ? hf_cluster_member_named(hf_decide_view(n->decide).cluster, name) : NULL;

    return m != NULL ? m->id : 0;
}

static void on_up(void *ctx, hf_node_id id, const char *name)
{
    struct hf_node *n = ctx;

    if (id == 0)
        id = id_of(n, name);
    hf_node_reads_peer(n, id, true);
    hf_node_step(n, &(struct hf_event){.type = HF_EV_PEER_UP, .id = id});
}

static void on_down(void *ctx, hf_node_id id, const char *name, bool proof)
{
    struct hf_node *n = ctx;

    if (n->decide == NULL)
        return;
    hf_info("peer: %s is gone%s", name, proof ? " (proven)" : "");
    hf_node_reads_peer(n, id, false);
    hf_node_step(n, &(struct hf_event){.type = HF_EV_PEER_DOWN, .id = id, .proof = proof});
}

static uint64_t le64(const uint8_t *p)
{
    uint64_t v = 0;

    for (int i = 0; i < 8; i++)
        v |= (uint64_t)p[i] << (8 * i);
    return v;
}

static void wal_asked(struct hf_node *n, const struct hf_peer_identity *from, const uint8_t *payload,
                      size_t len, struct hf_tunnel *t)
{
    struct hf_waiting *w = len == 24 ? hf_node_wait(n) : NULL;
    struct hf_event e = {.type = HF_EV_STREAM_ASK, .id = from->id};

    if (w == NULL) {
        hf_tunnel_refuse(t, len == 24 ? "too many requests" : "bad request");
        return;
    }
    w->tunnel = t;
    w->id = from->id;
    w->epoch = le64(payload);
    e.epoch = w->epoch;
    e.position = (struct hf_position){le64(payload + 8), le64(payload + 16)};
    e.request = w->request;
    hf_node_step(n, &e);
}

static void sql_asked(struct hf_node *n, enum hf_router_to as, struct hf_tunnel *t)
{
    bool may = as == HF_TO_FOLLOWER ? hf_router_is_readable(n->router) : hf_router_gate_is_open(n->router);
    int fds[2];

    if (!may || socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0, fds) != 0) {
        hf_tunnel_refuse(t, as == HF_TO_FOLLOWER ? "this node is no follower that can be read"
                                                 : "the gate is shut");
        return;
    }
    hf_tunnel_accept(t, fds[1], NULL);
    hf_router_serve(n->router, fds[0], as);
}

static void on_tunnel(void *ctx, enum hf_purpose purpose, const struct hf_peer_identity *from,
                      const void *payload, size_t len, struct hf_tunnel *t)
{
    struct hf_node *n = ctx;
    struct hf_view v;
    char address[HF_NAME_MAX + HF_ADDR_MAX], name[HF_NAME_MAX], addr[HF_ADDR_MAX];
    int fds[2];

    if (n->decide == NULL || n->consensus == NULL) {
        hf_tunnel_refuse(t, "this node is not a member of a cluster yet");
        return;
    }
    v = hf_decide_view(n->decide);
    switch (purpose) {
    case HF_PURPOSE_RAFT:
        if (from->id == 0 || socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0, fds)) {
            hf_tunnel_refuse(t, "no Raft id");
            return;
        }
        heard(n, from->id, from->name);
        if (!hf_node_where(n, from->id, name, addr))
            (void)snprintf(addr, sizeof addr, "%.*s", (int)len, (const char *)payload);
        (void)snprintf(address, sizeof address, "%s/%s", from->name, addr);
        hf_tunnel_accept(t, fds[1], NULL);
        hf_consensus_accepted(n->consensus, from->id, address, fds[0]);
        break;
    case HF_PURPOSE_WAL:
        wal_asked(n, from, payload, len, t);
        break;
    case HF_PURPOSE_COPY:
        fds[0] = v.leading && v.pg == HF_PG_PRIMARY && len == 8 && le64(payload) == v.epoch
                     ? hf_node_connect_pg(n)
                     : -1;
        if (fds[0] < 0)
            hf_tunnel_refuse(t, "this node does not lead");
        else
            hf_tunnel_accept(t, fds[0], NULL);
        break;
    case HF_PURPOSE_SQL:
        sql_asked(n, len == 1 && *(const char *)payload == READER ? HF_TO_FOLLOWER : HF_TO_LEADER, t);
        break;
    case HF_PURPOSE_ADMIN:
        hf_node_through_asked(n, from, t);
        break;
    default:
        hf_tunnel_refuse(t, "unknown purpose");
    }
}

static void on_flushed(void *ctx, const struct hf_wal_word *word)
{
    struct hf_node *n = ctx;

    for (unsigned i = 0; i < HF_MEMBERS_MAX; i++) {
        if (n->flushed[i].id != word->id && n->flushed[i].id != 0)
            continue;
        n->flushed[i].id = word->id;
        n->flushed[i].flushed = word->flushed;
        n->flushed[i].applied = word->applied;
        break;
    }
    hf_node_step(n, &(struct hf_event){.type = HF_EV_STREAM_FLUSHED,
                                       .id = word->id,
                                       .epoch = word->tag,
                                       .timeline = word->timeline,
                                       .torn = word->torn,
                                       .lsn = word->flushed});
}

static void on_wal_closed(void *ctx, hf_node_id id, uint64_t tag)
{
    struct hf_node *n = ctx;

    for (unsigned i = 0; i < HF_MEMBERS_MAX; i++)
        if (n->flushed[i].id == id)
            memset(&n->flushed[i], 0, sizeof n->flushed[i]);
    hf_node_step(n, &(struct hf_event){.type = HF_EV_STREAM_GONE, .id = id, .epoch = tag});
}

struct hf_peer_callbacks hf_node_peer_callbacks(struct hf_node *n)
{
    return (struct hf_peer_callbacks){.ctx = n,
                                      .on_message = on_message,
                                      .on_up = on_up,
                                      .on_down = on_down,
                                      .on_tunnel = on_tunnel,
                                      .on_flushed = on_flushed,
                                      .on_wal_closed = on_wal_closed};
}

/* -- relay --------------------------------------------------------------------------------------------------- */

static void on_streaming(void *ctx, bool yes)
{
    struct hf_node *n = ctx;

    n->streaming = yes;
    hf_lag_begin(&n->reads.lag);
    hf_info("stream: %s", yes ? "following" : "ended");
    hf_node_step(n, &(struct hf_event){.type = HF_EV_STREAM_STATE, .ok = yes});
}

static void on_progress(void *ctx, hf_lsn end, hf_lsn applied)
{
    struct hf_node *n = ctx;

    hf_lag_heard(&n->reads.lag, end, applied, hf_clock_ns());
}

static void on_wal_missing(void *ctx)
{
    hf_warn("stream: the leader has removed WAL that is needed here: this node is cloned again");
    hf_node_step(ctx, &(struct hf_event){.type = HF_EV_WAL_MISSING});
}

static void on_closed(void *ctx)
{
    struct hf_node *n = ctx;

    n->streaming = false;
    hf_node_step(n, &(struct hf_event){.type = HF_EV_STREAM_CLOSED});
}

struct hf_relay_callbacks hf_node_relay_callbacks(struct hf_node *n)
{
    return (struct hf_relay_callbacks){.ctx = n,
                                       .on_streaming = on_streaming,
                                       .on_progress = on_progress,
                                       .on_wal_missing = on_wal_missing,
                                       .on_closed = on_closed};
}

enum { RECEIVER_MS = 50 };

/* A postmaster of PostgreSQL 13 to 15 may forget that its startup process wants a WAL receiver, for 15 seconds: if the
 * request and the end of the receiver before meet it in the middle of something else (a connection), their handlers run
 * in that order just before it waits, and nothing wakes it to look again (postmaster.c: ServerLoop, MaybeStartWalReceiver;
 * walreceiverfuncs.c: WALRCV_STARTUP_TIMEOUT). Any signal does. */
void hf_node_receiver_run(struct hf_node *n)
{
    uint64_t now_ns = hf_clock_ns();
    struct hf_view v;

    if (hf_relay_has_receiver(n->relay)) {
        n->receiver_ns = now_ns;
        return;
    }
    if (now_ns - n->receiver_ns < RECEIVER_MS * HF_MS)
        return;
    n->receiver_ns = now_ns;
    v = hf_decide_view(n->decide);
    if (v.pg == HF_PG_STANDBY && v.work == HF_WORK_NONE)
        hf_pg_remind(hf_agent_pg(n->agent));
}

/* -- PostgreSQL ---------------------------------------------------------------------------------------------- */

static void on_work(void *ctx, const struct hf_pg_result *r)
{
    struct hf_node *n = ctx;

    if (!n->ending)
        hf_pg_interrupt(hf_agent_pg(n->agent), false); /* it was meant for this work */
    if (!r->ok)
        hf_err("postgres: %s", r->text);
    else if (r->text[0] != '\0')
        hf_info("postgres: %s", r->text);
    else if (r->work == HF_WORK_CLONE || r->work == HF_WORK_REWIND)
        hf_info("postgres: %s, consistent at %X/%X", r->work == HF_WORK_CLONE ? "cloned" : "rewound",
                (unsigned)(r->lsn >> 32), (unsigned)r->lsn);
    hf_node_step(n, &(struct hf_event){.type = HF_EV_WORK,
                                       .work = r->work,
                                       .ok = r->ok,
                                       .epoch = r->epoch,
                                       .lsn = r->lsn,
                                       .seen = r->seen,
                                       .down = r->down,
                                       .no_space = r->code == HF_ENOSPC,
                                       .swapped = r->swapped,
                                       .timeline = r->timeline,
                                       .system_id = r->system_id});
}

static void on_write(void *ctx, enum hf_write write, enum hf_write_state state, hf_epoch epoch,
                     hf_lsn lsn, const char *text)
{
    struct hf_node *n = ctx;

    if (state == HF_WRITE_FAILED || state == HF_WRITE_REFUSED)
        hf_warn("postgres: %s: %s", write == HF_WRITE_BARRIER ? "barrier" : "heartbeat",
                text != NULL ? text : "failed");
    hf_node_step(n, &(struct hf_event){.type = HF_EV_WRITE,
                                       .write = write,
                                       .write_state = state,
                                       .epoch = epoch,
                                       .lsn = lsn});
}

static void on_exit_pg(void *ctx, pid_t pid, const char *why)
{
    hf_warn("postgres: the postmaster (pid %d) ended unasked, %s", (int)pid, why);
    hf_node_step(ctx, &(struct hf_event){.type = HF_EV_PG_EXIT, .no_space = strstr(why, "No space left") != NULL});
}

static void on_accounts(void *ctx, bool ok, const char *text)
{
    struct hf_node *n = ctx;

    n->furnished |= ok;
    hf_router_unfurnished(n->router, false); /* whoever has a role may come, also if it went wrong */
    if (ok) {
        hf_info("accounts: the application's and the administrator's roles are ready");
        n->accounts_failed = 0;
        return;
    }
    hf_warn("accounts: %s", text);
    n->accounts_made = false; /* tried again while the gate is open: after one second, and more and more, up to about a minute */
    n->accounts_after_ns = hf_clock_ns() + ((uint64_t)1000 << (n->accounts_failed < 6 ? n->accounts_failed : 6)) * HF_MS;
    n->accounts_failed++;
}

static void on_postmaster(void *ctx, pid_t pid)
{
    struct hf_node *n = ctx;

    atomic_store(&n->page->postmaster, (int)pid);
}

struct hf_agent_callbacks hf_node_agent_callbacks(struct hf_node *n)
{
    return (struct hf_agent_callbacks){.ctx = n,
                                       .on_work = on_work,
                                       .on_write = on_write,
                                       .on_exit = on_exit_pg,
                                       .on_accounts = on_accounts,
                                       .on_postmaster = on_postmaster};
}

/* -- router -------------------------------------------------------------------------------------------------- */

struct sql_dial {
    struct hf_node *n;
    struct hf_router_dial *d;
    hf_node_id id;
    bool reader; /* whoever it is */
};

static void sql_opened(void *arg, int status, const char *text, const struct sockaddr *to,
                       socklen_t len)
{
    struct sql_dial *s = arg;

    (void)text;
    (void)to;
    (void)len;
    if (s->reader)
        hf_node_reads_had(s->n, s->id, status == 0);
    hf_router_dialed(s->d, status == 0, s->id);
    free(s);
}

static void on_dial(void *ctx, struct hf_router_dial *d, int fd, enum hf_router_to to, uint64_t id)
{
    static const char reader = READER;
    struct hf_node *n = ctx;
    struct sql_dial *s = calloc(1, sizeof *s);
    struct hf_dial dial = {.arg = s, .opened = sql_opened};
    char name[HF_NAME_MAX], addr[HF_ADDR_MAX];
    bool any = to == HF_TO_FOLLOWER && id == 0;

    if (n->decide != NULL && s != NULL) {
        struct hf_view v = hf_decide_view(n->decide);
        if (to == HF_TO_LEADER)
            id = v.leader;
        else if (any)
            id = hf_node_reads_next(n, &v);
        if (id != 0 && id != v.durable->self && hf_node_where(n, id, name, addr)) {
            *s = (struct sql_dial){n, d, id, any};
            hf_peer_dial(n->peer, name, addr, HF_PURPOSE_SQL, &reader, to == HF_TO_FOLLOWER, fd, &dial);
            return;
        }
    }
    free(s);
    close(fd);
    if (any && id != 0)
        hf_node_reads_had(n, id, false);
    hf_router_dialed(d, false, id);
}

static void on_drained(void *ctx)
{
    hf_node_step(ctx, &(struct hf_event){.type = HF_EV_DRAINED});
}

static void on_shut(void *ctx)
{
    hf_info("gate: shut at_ns=%llu", (unsigned long long)hf_clock_ns());
    hf_node_step(ctx, &(struct hf_event){.type = HF_EV_GATE_SHUT});
}

static void on_readers_gone(void *ctx)
{
    struct hf_node *n = ctx;

    if (!n->promote_waiting)
        return;
    n->promote_waiting = false;
    hf_node_submit(n, &n->promote_job);
}

struct hf_router_callbacks hf_node_router_callbacks(struct hf_node *n)
{
    return (struct hf_router_callbacks){.ctx = n,
                                        .dial = on_dial,
                                        .on_drained = on_drained,
                                        .on_shut = on_shut,
                                        .on_readers_gone = on_readers_gone,
                                        .read_ask = hf_node_reads_ask,
                                        .read_answer = hf_node_reads_answer};
}

/* -- Raft ---------------------------------------------------------------------------------------------------- */

static void raft_opened(void *arg, int status, const char *text, const struct sockaddr *to,
                        socklen_t len)
{
    (void)text;
    (void)to;
    (void)len;
    hf_consensus_dialed(arg, status == 0);
}

static void raft_dial(void *ctx, struct hf_consensus_dial *d, uint64_t id, const char *name,
                      const char *addr, int fd)
{
    struct hf_node *n = ctx;
    struct hf_dial dial = {.arg = d, .opened = raft_opened};
    const char *self = n->config->advertise_peer;

    (void)id;
    hf_peer_dial(n->peer, name, addr, HF_PURPOSE_RAFT, self, strlen(self), fd, &dial);
}

static void raft_apply(void *ctx, const uint8_t *bytes, size_t len)
{
    struct hf_node *n = ctx;
    struct hf_entry e;

    if (!hf_entry_decode(&e, bytes, len)) {
        hf_err("raft: an entry cannot be read; it was written by a newer Holdfast?");
        hf_node_end(n, 1);
        return;
    }
    hf_node_step(n, &(struct hf_event){.type = HF_EV_APPLIED, .entry = &e});
}

static int raft_snapshot(void *ctx, uint8_t **bytes, size_t *len)
{
    struct hf_node *n = ctx;

    *bytes = malloc(HF_CLUSTER_BYTES_MAX);
    if (*bytes == NULL)
        return HF_ENOMEM;
    *len = hf_cluster_encode(hf_decide_view(n->decide).cluster, *bytes, HF_CLUSTER_BYTES_MAX);
    return *len > 0 ? 0 : HF_ENOMEM;
}

static int raft_restore(void *ctx, const uint8_t *bytes, size_t len)
{
    struct hf_cluster *c = malloc(sizeof *c);
    bool ok = c != NULL && hf_cluster_decode(c, bytes, len);

    if (ok)
        hf_node_step(ctx, &(struct hf_event){.type = HF_EV_RESTORED, .cluster = c});
    free(c);
    return ok ? 0 : HF_ECORRUPT;
}

static void raft_role(void *ctx, enum hf_consensus_role role, uint64_t term, uint64_t leader)
{
    hf_node_step(ctx, &(struct hf_event){.type = HF_EV_RAFT,
                                         .role = role == HF_CONSENSUS_LEADER ? HF_RAFT_LEADER
                                                 : role == HF_CONSENSUS_CANDIDATE
                                                     ? HF_RAFT_CANDIDATE
                                                     : HF_RAFT_FOLLOWER,
                                         .term = term,
                                         .raft_leader = leader});
}

static void raft_servers(void *ctx, const struct hf_consensus_server *servers, unsigned count)
{
    struct hf_raft_server list[HF_MEMBERS_MAX];
    struct hf_event e = {.type = HF_EV_RAFT_SERVERS, .servers = list};

    for (unsigned i = 0; i < count && e.n < HF_MEMBERS_MAX; i++)
        list[e.n++] = (struct hf_raft_server){servers[i].id, servers[i].voter, servers[i].idle};
    hf_node_step(ctx, &e);
}

static void raft_failed(void *ctx, const char *text)
{
    hf_err("raft: this node cannot go on: %s (hint: is its disk full or ill?)", text);
    hf_node_end(ctx, HF_EXIT_AGAIN);
}

struct hf_consensus_callbacks hf_node_consensus_callbacks(struct hf_node *n)
{
    return (struct hf_consensus_callbacks){.ctx = n,
                                           .dial = raft_dial,
                                           .apply = raft_apply,
                                           .snapshot = raft_snapshot,
                                           .restore = raft_restore,
                                           .role = raft_role,
                                           .servers = raft_servers,
                                           .failed = raft_failed};
}
