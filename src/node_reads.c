/* Followers' reads: who can be read, and how far the leader is.
 *
 * Whether a follower is fit for readers it knows best itself, and says when it is asked to serve one: nobody goes by what was so a
 * while ago. What the others remember is only whom not to ask: who is not connected, and who could not be had a moment ago. */
#include "node_private.h"

#include "base/clock.h"
#include "base/log.h"

enum { NO_MS = 200 /* for so long it is not asked again */ };

/* -- the others ----------------------------------------------------------------------------------------------- */

/* Its place, or a free one, or that of somebody long gone; ids are never given twice. */
static unsigned place_of(struct hf_reads_known *k, hf_node_id id)
{
    unsigned free = HF_MEMBERS_MAX;

    for (unsigned i = 0; i < HF_MEMBERS_MAX; i++) {
        if (k->others[i].id == id)
            return i;
        if (k->others[i].id == 0)
            free = i;
    }
    if (free == HF_MEMBERS_MAX)
        free = (unsigned)(id % HF_MEMBERS_MAX);
    k->others[free].id = id;
    k->others[free].gone = false;
    k->others[free].no_ns = 0;
    return free;
}

void hf_node_reads_peer(struct hf_node *n, hf_node_id id, bool up)
{
    unsigned i;

    if (id == 0)
        return;
    i = place_of(&n->reads, id);
    n->reads.others[i].gone = !up;
    n->reads.others[i].no_ns = 0;
}

void hf_node_reads_had(struct hf_node *n, hf_node_id id, bool ok)
{
    n->reads.others[place_of(&n->reads, id)].no_ns = ok ? 0 : hf_clock_ns();
}

static bool is_there(struct hf_node *n, const struct hf_view *v, hf_node_id id)
{
    return id != v->leader && id != v->durable->self && !n->reads.others[place_of(&n->reads, id)].gone;
}

static bool may_serve(struct hf_node *n, const struct hf_view *v, hf_node_id id, uint64_t now_ns)
{
    uint64_t no_ns;

    if (!is_there(n, v, id))
        return false;
    no_ns = n->reads.others[place_of(&n->reads, id)].no_ns;
    return no_ns == 0 || now_ns - no_ns >= NO_MS * HF_MS;
}

hf_node_id hf_node_reads_next(struct hf_node *n, const struct hf_view *v)
{
    uint64_t now = hf_clock_ns();

    for (unsigned i = 0; i < v->cluster->n_members; i++) {
        hf_node_id id = v->cluster->members[n->reads.next++ % v->cluster->n_members].id;
        if (may_serve(n, v, id, now))
            return id;
    }
    return 0;
}

/* -- this node ------------------------------------------------------------------------------------------------- */

static bool too_far_behind(struct hf_node *n, uint64_t now_ns)
{
    return hf_lag_ns(&n->reads.lag, now_ns) > (uint64_t)n->config->read_lag_ms * HF_MS ||
           hf_lag_bytes(&n->reads.lag) > (uint64_t)n->config->read_lag_mb << 20;
}

void hf_node_reads_route(struct hf_node *n, const struct hf_view *v)
{
    uint64_t now = hf_clock_ns();
    bool behind = n->streaming && too_far_behind(n, now);
    unsigned others = 0, all = 0;

    for (unsigned i = 0; i < v->cluster->n_members; i++) {
        others += may_serve(n, v, v->cluster->members[i].id, now);
        all += is_there(n, v, v->cluster->members[i].id);
    }
    hf_router_followers(n->router, others, all);
    if (behind == n->reads.behind)
        return;
    n->reads.behind = behind;
    hf_router_follower_behind(n->router, behind);
    if (behind && n->reads.lag.heard_ns != 0)
        hf_info("reads: too far behind for new readers: %.1f s, %llu bytes", (double)hf_lag_ns(&n->reads.lag, now) / 1e9,
                (unsigned long long)hf_lag_bytes(&n->reads.lag));
    else if (!behind && n->streaming)
        hf_info("reads: near enough for readers");
}

/* -- how far is the leader? (router/fresh.h) ------------------------------------------------------------------------ */

/* The epoch whose leader's WAL comes in here, and is read here; 0: none. The newest one known: an older one's leader is none. */
static hf_epoch followed(const struct hf_node *n, const struct hf_view *v)
{
    return n->readable && n->streaming && v->stream_epoch == v->epoch ? v->epoch : 0;
}

static void send_msg(struct hf_node *n, struct hf_msg *m)
{
    char name[HF_NAME_MAX], addr[HF_ADDR_MAX];

    m->from = n->durable.self;
    m->cluster_id = n->durable.cluster_id;
    if (hf_node_where(n, m->to, name, addr))
        hf_peer_send(n->peer, name, addr, m);
}

void hf_node_reads_ask(void *ctx, uint64_t seq)
{
    struct hf_node *n = ctx;
    struct hf_msg m = {.type = HF_MSG_READ, .seq = seq, .sent_ns = hf_clock_ns()};
    struct hf_view v;

    if (n->decide == NULL || n->ending)
        return;
    v = hf_decide_view(n->decide);
    m.epoch = followed(n, &v);
    m.to = v.leader;
    if (m.epoch != 0 && m.to != 0)
        send_msg(n, &m);
}

void hf_node_reads_answer(void *ctx, uint64_t from, uint64_t epoch, uint64_t seq, uint64_t sent_ns, uint64_t lsn)
{
    struct hf_node *n = ctx;
    struct hf_msg m = {.type = HF_MSG_READ_AT, .to = from, .epoch = epoch, .seq = seq, .sent_ns = sent_ns,
                       .position = {epoch, lsn}};

    send_msg(n, &m);
}

/* READ, late or doubled: the answer is for a question that nobody asks any more. READ_AT, late or doubled: it was computed after that
 * question was first asked all the same, or it is for another one; in another epoch the LSN would mean something else. */
void hf_node_reads_message(struct hf_node *n, const struct hf_msg *m)
{
    struct hf_view v;

    if (n->decide == NULL || n->ending)
        return;
    v = hf_decide_view(n->decide);
    if (m->type == HF_MSG_READ && v.leading && m->epoch == v.epoch)
        hf_router_read_asked(n->router, m->from, m->epoch, m->seq, m->sent_ns);
    else if (m->type == HF_MSG_READ_AT && m->from == v.leader && m->epoch == followed(n, &v))
        hf_router_read_told(n->router, m->seq, m->position.lsn);
}
