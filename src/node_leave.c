/* A member that is to leave for good, and one that finds out that it was removed (docs/pods.md,
 * "Scale").
 *
 * - "remove" on any node's admin socket asks the leader to let a member go; `holdfast scale` in a
 * pod uses it.
 * - On SIGTERM a node says that it is not ready, and works on for --stop-delay-ms: who sends clients here
 * learns of it late, and a port that is closed by then refuses them. A second SIGTERM ends that wait.
 * - Then a pod that may read its StatefulSet looks whether there is still a place for its
 * ordinal. If not, it asks the leader to let it go, and stops once it is no member.
 * - A node that neither leads nor follows for a while asks the others whether it is still a member:
 * its pod may have come back with a volume of before. It hears nothing of who leads, and may know of no member but those that founded
 * the cluster, so whoever is asked passes it on to the leader.
 *
 * LEFT is said only by a leader whose gate is open, of an id that neither the newest voters nor
 * those before have. Ids are never used again, so whoever hears it of its own id has no promise
 * left to keep: at its next start it joins as a new member. The file "left" carries that over; its
 * old data stay beside until the new copy streams. */
#include "node.h"
#include "node_private.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/file.h"
#include "base/log.h"
#include "kube/api.h"

enum { ASK_MS = 200, API_MS = 3000, LEAVE_MAX_MS = 20000, ALONE_MS = 5000, MEMBER_MS = 2000, OTHERS_EVERY = 5 };

struct hf_leave {
    struct hf_node *n;
    uv_timer_t timer, delay;
    uv_work_t work;
    struct hf_kube_scale scale;
    int answer; /* of the API */
    struct hf_error why;
    bool leaving;
    bool belongs; /* has led or followed since it started */
    bool out;     /* was let go while it ran: it waits for its end */
    uint64_t begun_ns, alone_since_ns, asked_ns;
    unsigned rounds; /* of asking, without a stream */
};

/* -- messages ---------------------------------------------------------------------------------- */

static void send_to(struct hf_node *n, const char *name, const char *addr, enum hf_msg_type type,
                    hf_node_id id)
{
    struct hf_view v = hf_decide_view(n->decide);
    struct hf_msg m = {.type = (uint8_t)type,
                       .from = v.durable->self,
                       .id = id,
                       .epoch = v.epoch,
                       .cluster_id = v.durable->cluster_id,
                       .uuid = v.durable->uuid};

    (void)snprintf(m.name, sizeof m.name, "%s", n->config->name);
    (void)snprintf(m.peer, sizeof m.peer, "%s", n->config->advertise_peer);
    hf_peer_send(n->peer, name, addr, &m);
}

/* On the leader. A member that leads itself hands over first, and is asked again by whoever wants
 * it gone. */
static void let_go(struct hf_node *n, const struct hf_view *v, hf_node_id id)
{
    bool self = id == v->durable->self;

    hf_node_step(
        n, &(struct hf_event){.type = self ? HF_EV_SWITCHOVER : HF_EV_LEAVE, .id = self ? 0 : id});
}

static bool leads(const struct hf_node *n, const struct hf_view *v)
{
    return v->leading && v->gate_open && !v->draining && hf_router_gate_is_open(n->router);
}

/* Asks the leader, which may be this node. */
static void ask_leave(struct hf_node *n, hf_node_id id)
{
    struct hf_view v = hf_decide_view(n->decide);
    char name[HF_NAME_MAX], addr[HF_ADDR_MAX];

    if (leads(n, &v))
        let_go(n, &v, id);
    else if (v.leader != 0 && v.leader != v.durable->self && hf_node_where(n, v.leader, name, addr))
        send_to(n, name, addr, HF_MSG_LEAVE, id);
}

json_t *hf_node_remove(struct hf_node *n, const char *name)
{
    const struct hf_member *m;

    if (n->decide == NULL)
        return json_pack("{s:s}", "error", "this node is not a member of a cluster yet");
    m = hf_cluster_member_named(hf_decide_view(n->decide).cluster, name != NULL ? name : "");
    if (m == NULL)
        return json_pack("{s:s+}", "error", "no such member: ", name != NULL ? name : "");
    ask_leave(n, m->id);
    return json_pack("{s:b}", "ok", 1);
}

static void retire(struct hf_node *n)
{
    struct hf_leave *l = n->leave;
    char path[HF_PATH_MAX + 16], text[32];
    struct hf_error err;

    (void)snprintf(path, sizeof path, "%s/left", n->config->dir);
    (void)snprintf(text, sizeof text, "%llu\n", (unsigned long long)n->durable.self);
    if (hf_file_write(path, text, strlen(text), 0600, &err) != 0) {
        hf_err("leave: %s", err.text);
        return; /* asked again, and told again */
    }
    if (l->leaving) {
        hf_info("leave: this node is no member any more");
        (void)uv_timer_stop(&l->timer);
        l->leaving = false;
        hf_node_shutdown(n);
    } else if (l->belongs) {
        /* By `holdfast scale`: its pod is to go next. Would it join again at once, nothing were
         * gained. */
        hf_warn("leave: this node is no member any more; it waits to be stopped, and joins anew if "
                "it is started "
                "again");
        l->out = true;
    } else {
        hf_warn("leave: this node was removed while it was away: it starts again, to join as a new "
                "member");
        hf_node_end(n, HF_EXIT_AGAIN);
    }
}

/* Once: what was passed on does not come from whom it asks about. */
static void pass_on(struct hf_node *n, const struct hf_view *v, const struct hf_msg *m)
{
    char name[HF_NAME_MAX], addr[HF_ADDR_MAX];
    struct hf_msg on = *m;

    on.from = v->durable->self;
    if (m->type == HF_MSG_MEMBER && m->id == m->from && v->leader != 0 && v->leader != v->durable->self &&
        hf_node_where(n, v->leader, name, addr))
        hf_peer_send(n->peer, name, addr, &on);
}

void hf_node_leave_message(struct hf_node *n, const struct hf_peer_identity *from,
                           const struct hf_msg *m)
{
    struct hf_view v;

    if (n->decide == NULL)
        return;
    v = hf_decide_view(n->decide);
    if (m->type == HF_MSG_LEFT) {
        if (m->id == v.durable->self && !n->ending && !n->leave->out &&
            memcmp(&m->cluster_id, &v.durable->cluster_id, 16) == 0 &&
            memcmp(&m->uuid, &v.durable->uuid, 16) == 0)
            retire(n);
        return;
    }
    if (memcmp(&m->cluster_id, &v.durable->cluster_id, 16) != 0)
        return;
    if (!leads(n, &v)) {
        pass_on(n, &v, m);
        return;
    }
    if (hf_cluster_is_gone(v.cluster, m->id)) {
        const char *name = m->name[0] != '\0' ? m->name : from->name, *addr = hf_node_seed_addr(n, name);
        struct hf_msg left = {.type = HF_MSG_LEFT,
                              .from = v.durable->self,
                              .id = m->id,
                              .epoch = v.epoch,
                              .cluster_id = v.durable->cluster_id,
                              .uuid = m->uuid};
        if (m->type == HF_MSG_MEMBER || m->id == m->from) /* the peer's own address, since it is in no list any more */
            hf_peer_send(n->peer, name, addr != NULL ? addr : m->peer, &left);
    } else if (m->type == HF_MSG_LEAVE && hf_cluster_member(v.cluster, m->id) != NULL) {
        let_go(n, &v, m->id);
    }
}

/* -- SIGTERM ----------------------------------------------------------------------------------- */

static void ask_api(uv_work_t *work)
{
    struct hf_leave *l = work->data;
    const struct hf_node_config *c = l->n->config;
    char set[HF_NAME_MAX];

    (void)snprintf(set, sizeof set, "%.*s", (int)(strrchr(c->name, '-') - c->name), c->name);
    l->answer = hf_kube_api_scale(c->namespace, set, API_MS, &l->scale, &l->why);
}

static void leave_cb(uv_timer_t *timer)
{
    struct hf_leave *l = timer->data;
    struct hf_node *n = l->n;

    if (n->ending)
        return;
    if (hf_clock_ns() - l->begun_ns > LEAVE_MAX_MS * HF_MS) {
        hf_warn("leave: nobody let this node go in time; it stops as a member (hint: `holdfast "
                "scale` on another)");
        (void)uv_timer_stop(timer);
        l->leaving = false;
        hf_node_shutdown(n);
        return;
    }
    ask_leave(n, n->durable.self);
}

static void api_answered(uv_work_t *work, int status)
{
    struct hf_leave *l = work->data;
    struct hf_node *n = l->n;

    if (n->ending)
        return;
    /* No replicas at all is how people stop a StatefulSet, and start it again. */
    if (status == 0 && l->answer == 0 && l->scale.replicas > 0 &&
        (n->config->ordinal < l->scale.first ||
         n->config->ordinal >= l->scale.first + l->scale.replicas)) {
        hf_info("leave: the StatefulSet has %u replicas: there is no place for this pod any more",
                l->scale.replicas);
        l->leaving = true;
        l->begun_ns = hf_clock_ns();
        (void)uv_timer_start(&l->timer, leave_cb, 0, ASK_MS);
        return;
    }
    if (l->answer != 0 && l->answer != HF_ENOENT)
        hf_info("leave: not asked for: %s", l->why.text);
    hf_node_shutdown(n);
}

/* Now: every service had its time. */
static void stop_or_leave(struct hf_node *n)
{
    struct hf_leave *l = n->leave;

    if (n->decide == NULL || n->config->namespace[0] == '\0' || access(HF_KUBE_ACCOUNT "/token", R_OK) != 0) {
        hf_node_shutdown(n);
        return;
    }
    l->work.data = l;
    if (uv_queue_work(&n->loop, &l->work, ask_api, api_answered) != 0)
        hf_node_shutdown(n);
}

static void delay_cb(uv_timer_t *timer)
{
    struct hf_leave *l = timer->data;

    if (!l->n->ending)
        stop_or_leave(l->n);
}

void hf_node_terminate(struct hf_node *n)
{
    struct hf_leave *l = n->leave;
    bool first = !n->terminating;

    n->terminating = true; /* /readyz says so from now on */
    if (n->decide == NULL || l == NULL) {
        hf_node_shutdown(n);
    } else if (first && n->config->stop_delay_ms > 0) {
        hf_info("shutdown: asked for; not ready from now on, and clients are served for %u ms more (--stop-delay-ms)",
                n->config->stop_delay_ms);
        (void)uv_timer_start(&l->delay, delay_cb, n->config->stop_delay_ms, 0);
    } else if (first || uv_is_active((uv_handle_t *)&l->delay)) {
        (void)uv_timer_stop(&l->delay);
        stop_or_leave(n);
    }
}

/* -- am I still a member? ---------------------------------------------------------------------- */

static void ask_whether_member(struct hf_node *n, const struct hf_view *v)
{
    const struct hf_node_config *c = n->config;
    hf_node_id self = v->durable->self;
    bool asked = false;

    for (unsigned i = 0; i < c->n_seeds; i++) {
        if (strcmp(c->seeds[i].name, c->name) == 0)
            continue;
        send_to(n, c->seeds[i].name, c->seeds[i].addr, HF_MSG_MEMBER, self);
        asked = true;
    }
    for (unsigned i = 0; i < v->cluster->n_members; i++) {
        const struct hf_member *m = &v->cluster->members[i];
        if (m->id == self || hf_node_seed_addr(n, m->name) != NULL)
            continue;
        send_to(n, m->name, m->peer, HF_MSG_MEMBER, self);
        asked = true;
    }
    /* Who founded alone, and whose log has not come so far again, knows of nobody; or all it knows of are gone. Whoever has a name in the DNS
     * is asked then, too; most have none. */
    if (asked && (n->streaming || ++n->leave->rounds % OTHERS_EVERY != 0))
        return;
    for (unsigned i = 0; i < c->n_others; i++)
        send_to(n, c->others[i].name, c->others[i].addr, HF_MSG_MEMBER, self);
}

void hf_node_leave_tick(struct hf_node *n)
{
    struct hf_leave *l = n->leave;
    uint64_t now = hf_clock_ns();
    struct hf_view v;

    if (n->decide == NULL || n->stopping || l->leaving || l->out)
        return;
    v = hf_decide_view(n->decide);
    l->belongs = l->belongs || v.leading || n->streaming;
    if (v.leading || n->streaming || v.work != HF_WORK_NONE)
        l->alone_since_ns = now;
    if (v.leading || v.work != HF_WORK_NONE)
        return;
    /* A stream may outlive its follower's membership: asked while there is one, too, but seldom. */
    if (now - l->asked_ns < (n->streaming ? ALONE_MS : MEMBER_MS) * HF_MS ||
        (!n->streaming && now - l->alone_since_ns < ALONE_MS * HF_MS))
        return;
    l->asked_ns = now;
    ask_whether_member(n, &v);
}

/* -- before a start ---------------------------------------------------------------------------- */

int hf_node_leave_begin(struct hf_node *n, struct hf_error *err)
{
    static const char *const parts[] = {"raft", "founding.json", "founding.id", "state.json"};
    char left[HF_PATH_MAX + 16], data[HF_PATH_MAX + 16], beside[HF_PATH_MAX + 16],
        path[HF_PATH_MAX + 32];
    struct hf_leave *l = calloc(1, sizeof *l);
    int rv = 0;

    if (l == NULL)
        return hf_fail(err, HF_ENOMEM, "out of memory");
    l->n = n;
    l->timer.data = l->delay.data = l;
    l->alone_since_ns = hf_clock_ns();
    (void)uv_timer_init(&n->loop, &l->timer);
    (void)uv_timer_init(&n->loop, &l->delay);
    n->leave = l;
    (void)snprintf(left, sizeof left, "%s/left", n->config->dir);
    if (access(left, F_OK) != 0)
        return 0;
    hf_info("leave: this node had left the cluster: it joins as a new member");
    (void)snprintf(data, sizeof data, "%s/data", n->config->dir);
    (void)snprintf(beside, sizeof beside, "%s/data.left", n->config->dir);
    /* The mark goes last: until then all of this is done again. */
    if (access(data, F_OK) == 0) {
        rv = hf_dir_remove(beside, err);
        if (rv == 0 && rename(data, beside) != 0)
            rv = hf_fail(err, HF_EIO, "cannot rename %s: %s", data, strerror(errno));
    }
    for (unsigned i = 0; i < sizeof parts / sizeof *parts && rv == 0; i++) {
        (void)snprintf(path, sizeof path, "%s/%s", n->config->dir, parts[i]);
        rv = hf_dir_remove(path, err);
    }
    if (rv == 0)
        rv = hf_dir_sync(n->config->dir, err);
    if (rv == 0)
        rv = hf_dir_remove(left, err);
    return rv;
}

/* On the thread pool: old data, once new ones stream. */
void hf_node_leave_tidy(const struct hf_node *n)
{
    char path[HF_PATH_MAX + 16];
    struct hf_error err;

    (void)snprintf(path, sizeof path, "%s/data.left", n->config->dir);
    if (access(path, F_OK) == 0 && hf_dir_remove(path, &err) != 0)
        hf_warn("leave: %s", err.text);
}
