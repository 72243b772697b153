/* What the command line asks: status, history, switchover, leave, sessions, shutdown, or another node. */
#include "node_private.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/clock.h"

static const char *gate_word(const struct hf_view *v)
{
    if (!v->gate_open)
        return "shut";
    if (v->draining)
        return "draining";
    return hf_clock_ns() < v->lease_deadline_ns ? "open" : "held";
}

/* The words of `holdfast status`. */
static const char *state_word(const struct hf_node *n, const struct hf_view *v)
{
    switch (v->work) {
    case HF_WORK_CLONE:
        return "cloning";
    case HF_WORK_REWIND:
        return "rewinding";
    case HF_WORK_INIT:
    case HF_WORK_START:
        return "starting";
    default:
        break;
    }
    if (v->leading)
        return strcmp(gate_word(v), "open") == 0 ? "open" : "shut";
    if (v->pg == HF_PG_EMPTY || v->pg == HF_PG_DOWN)
        return "starting";
    if (v->durable->hold_lsn != 0) /* copied, and not yet as far as it was before (S8) */
        return v->durable->hold_epoch != 0 ? "rewinding" : "stalled";
    return n->streaming ? "streaming" : "stalled";
}

static unsigned long rss_kb(void)
{
    unsigned long pages = 0, resident = 0;
    FILE *f = fopen("/proc/self/statm", "r");

    if (f == NULL)
        return 0;
    if (fscanf(f, "%lu %lu", &pages, &resident) != 2)
        resident = 0;
    (void)fclose(f);
    return resident * (unsigned long)sysconf(_SC_PAGESIZE) / 1024;
}

static json_t *members(const struct hf_node *n, const struct hf_view *v, hf_lsn leader_lsn)
{
    json_t *a = json_array();

    for (unsigned i = 0; i < v->cluster->n_members; i++) {
        const struct hf_member *m = &v->cluster->members[i];
        hf_lsn flushed = m->id == v->durable->self ? leader_lsn : 0;
        bool streaming = false;
        for (unsigned k = 0; k < HF_MEMBERS_MAX; k++) {
            if (v->leading && n->flushed[k].id == m->id) {
                flushed = n->flushed[k].flushed;
                streaming = true;
            }
        }
        json_array_append_new(
            a, json_pack("{s:I,s:s,s:b,s:s,s:s,s:I,s:I,s:b}", "id", (json_int_t)m->id, "name",
                         m->name, "voter", (int)m->voter, "peer", m->peer, "sql", m->sql, "lsn",
                         (json_int_t)flushed, "lag_bytes",
                         (json_int_t)(v->leading && leader_lsn > flushed ? leader_lsn - flushed : 0),
                         "streaming", (int)streaming));
    }
    return a;
}

static json_t *status_forming(const struct hf_node *n)
{
    return json_pack("{s:s,s:i,s:s,s:s,s:b,s:i,s:s,s:s,s:i,s:i,s:I}", "name", n->config->name, "id",
                     0, "role", "none", "state", "starting", "voter", 0, "epoch", 0, "leader", "",
                     "gate", "shut", "lsn", 0, "lag_bytes", 0, "rss_kb", (json_int_t)rss_kb());
}

hf_lsn hf_node_lsn(const struct hf_node *n)
{
    struct hf_view v = hf_decide_view(n->decide);
    struct hf_pg_status pg;
    hf_lsn lsn;

    hf_pg_status(hf_agent_pg(n->agent), &pg);
    lsn = v.lsn > pg.lsn ? v.lsn : pg.lsn;
    for (unsigned k = 0; v.leading && k < HF_MEMBERS_MAX; k++)
        if (n->flushed[k].flushed > lsn)
            lsn = n->flushed[k].flushed; /* ours is looked at now and then; they hold no more than we do */
    return lsn;
}

static json_t *status(struct hf_node *n)
{
    struct hf_view v;
    struct hf_pg_status pg;
    const struct hf_member *leader, *self;
    uint64_t now = hf_clock_ns();
    hf_lsn lsn;
    json_t *o;
    char uuid[33] = "";

    if (n->decide == NULL)
        return status_forming(n);
    v = hf_decide_view(n->decide);
    hf_pg_status(hf_agent_pg(n->agent), &pg);
    leader = hf_cluster_member(v.cluster, v.leader);
    self = hf_cluster_member(v.cluster, v.durable->self);
    lsn = hf_node_lsn(n);
    for (int i = 0; i < 16; i++)
        (void)snprintf(uuid + 2 * i, 3, "%02x", v.cluster->cluster_id.b[i]);
    o = json_pack("{s:s,s:I,s:s,s:s,s:b,s:I,s:s,s:I,s:I,s:I,s:s,s:s,s:I,s:s,s:s,s:I,s:s,s:s,s:b}", "name",
                  n->config->name, "id", (json_int_t)v.durable->self, "role",
                  v.leading ? "leader" : (v.leader != 0 && n->streaming) ? "follower" : "none",
                  "state", state_word(n, &v), "voter", (int)(self != NULL && self->voter), "epoch",
                  (json_int_t)v.epoch, "leader", leader != NULL ? leader->name : "", "lsn",
                  (json_int_t)lsn, "lag_bytes", (json_int_t)0, "timeline", (json_int_t)pg.timeline,
                  "sql", n->config->advertise_sql, "gate", gate_word(&v), "lease_ms",
                  (json_int_t)(v.lease_deadline_ns > now ? (v.lease_deadline_ns - now) / HF_MS : 0),
                  "pg_version", pg.version_text, "lead_state", v.lead_state, "rss_kb",
                  (json_int_t)rss_kb(), "cluster", uuid, "work",
                  v.work == HF_WORK_NONE ? "" : "busy", "guarded", (int)pg.guarded);
    if (o != NULL)
        json_object_set_new(o, "members", members(n, &v, lsn));
    if (o != NULL)
        json_object_set_new(o, "settled", json_boolean(hf_decide_settled(n->decide)));
    if (o != NULL && n->settings.on) {
        json_object_set_new(o, "settings_pending_restart", json_string(n->settings.seen.names));
        json_object_set_new(o, "settings_problem", json_string(n->settings.seen.problem));
    }
    return o;
}

char *hf_node_status_text(struct hf_node *n)
{
    json_t *o = status(n);
    char *text = o != NULL ? json_dumps(o, JSON_INDENT(2)) : NULL;

    json_decref(o);
    return text;
}

static json_t *history(const struct hf_node *n)
{
    static const char *const why[] = {
        [HF_WHY_UNKNOWN] = "unknown",         [HF_WHY_FIRST] = "first epoch",
        [HF_WHY_LEADER_LOST] = "leader lost", [HF_WHY_HANDOVER] = "hand-over",
        [HF_WHY_CONTINUED] = "continued",
    };
    json_t *a = json_array();
    struct hf_view v;

    if (n->decide == NULL)
        return json_pack("{s:o}", "epochs", a);
    v = hf_decide_view(n->decide);
    for (unsigned i = 0; i < v.cluster->n_branches; i++) {
        const struct hf_branch *b = &v.cluster->branches[i];
        json_array_append_new(
            a, json_pack("{s:I,s:s,s:I,s:I,s:I,s:s,s:I,s:b}", "epoch", (json_int_t)b->epoch, "leader",
                         b->leader_name, "timeline", (json_int_t)b->timeline, "lsn",
                         (json_int_t)b->start, "at_ms", (json_int_t)b->appointed_unix_ms, "why",
                         b->why <= HF_WHY_CONTINUED ? why[b->why] : "unknown", "parent",
                         (json_int_t)b->parent, "opened", (int)(b->opened_lsn != 0)));
    }
    return json_pack("{s:o}", "epochs", a);
}

/* switchover and leave end in the core's ANSWER. */
static json_t *ask_core(struct hf_node *n, struct hf_admin_request *request, const json_t *body,
                        enum hf_event_type type, const char *key)
{
    const char *name = json_string_value(json_object_get(body, key));
    struct hf_event e = {.type = type};
    struct hf_view v;
    struct hf_waiting *w;

    if (n->decide == NULL)
        return json_pack("{s:s}", "error", "this node is not a member of a cluster yet");
    v = hf_decide_view(n->decide);
    if (name != NULL && name[0] != '\0') {
        const struct hf_member *m = hf_cluster_member_named(v.cluster, name);
        if (m == NULL)
            return json_pack("{s:s+}", "error", "no such member: ", name);
        e.id = m->id;
    } else if (type == HF_EV_LEAVE) {
        return json_pack("{s:s}", "error", "leave needs the name of a member");
    }
    w = hf_node_wait(n);
    if (w == NULL)
        return json_pack("{s:s}", "error", "too many requests are waiting; try again");
    w->admin = request;
    e.request = w->request;
    hf_node_step(n, &e);
    return NULL;
}

/* What a client says of itself, which need not be UTF-8 and may have been cut. */
static json_t *text_of(const char *text)
{
    json_t *o = json_string(text);
    char plain[HF_WHO_MAX];
    size_t n = strlen(text);

    if (o != NULL)
        return o;
    for (size_t i = 0; i <= n && i < sizeof plain; i++)
        plain[i] = (text[i] & 0x80) != 0 ? '?' : text[i];
    plain[sizeof plain - 1] = '\0';
    return json_string(plain);
}

struct listing {
    struct hf_node *n;
    struct hf_admin_request *request;
};

/* Name of the node whose PostgreSQL serves it; "": none does. */
static const char *server_of(const struct hf_node *n, const struct hf_session_info *i)
{
    const struct hf_member *m = NULL;
    struct hf_view v;

    if (strcmp(i->place, "leader") == 0 || strcmp(i->place, "follower") == 0)
        return n->config->name;
    if (n->decide != NULL && strcmp(i->place, "elsewhere") == 0) {
        v = hf_decide_view(n->decide);
        m = hf_cluster_member(v.cluster, i->far != 0 ? i->far : v.leader);
    }
    return m != NULL ? m->name : "";
}

static void listed(void *ctx, const struct hf_session_info *infos, size_t n)
{
    struct listing *l = ctx;
    json_t *a = json_array();

    for (size_t k = 0; k < n; k++) {
        const struct hf_session_info *i = &infos[k];
        json_t *o = json_pack("{s:I,s:s,s:s,s:s,s:s,s:I,s:I,s:I,s:I,s:b,s:b,s:b}", "id", (json_int_t)i->id, "client",
                              i->peer, "at", i->place, "state", i->state, "holds", i->holds, "pid", (json_int_t)i->pid, "since_ms",
                              (json_int_t)i->since_unix_ms, "bytes_in", (json_int_t)i->bytes_in, "bytes_out",
                              (json_int_t)i->bytes_out, "tls", (int)i->tls, "read_only", (int)i->read_only, "carried",
                              (int)i->carried);
        (void)json_object_set_new(o, "server", json_string(server_of(l->n, i)));
        (void)json_object_set_new(o, "user", text_of(i->user));
        (void)json_object_set_new(o, "database", text_of(i->database));
        (void)json_object_set_new(o, "application", text_of(i->application));
        (void)json_array_append_new(a, o);
    }
    hf_admin_reply(l->request, json_pack("{s:o}", "sessions", a));
    free(l);
}

/* Answered later, unless it returns something. */
static json_t *sessions(struct hf_node *n, struct hf_admin_request *request)
{
    struct listing *l = malloc(sizeof *l);

    if (l == NULL)
        return json_pack("{s:s}", "error", "out of memory");
    *l = (struct listing){n, request};
    hf_router_list(n->router, listed, l);
    return NULL;
}

static void ended(void *ctx, const struct hf_session_info *infos, size_t n)
{
    (void)infos;
    hf_admin_reply(ctx, n > 0 ? json_pack("{s:b}", "ok", 1)
                              : json_pack("{s:s}", "error", "no such session (hint: `holdfast sessions`)"));
}

void hf_node_admin(void *ctx, struct hf_admin_request *request, const json_t *body)
{
    struct hf_node *n = ctx;
    const char *op = json_string_value(json_object_get(body, "op"));
    json_t *answer = NULL;

    if (op == NULL)
        op = "";
    if (hf_admin_is_far(request) && !hf_node_through_may(op))
        answer = json_pack("{s:s}", "error", "that is asked of the node itself, and not through another one");
    else if (strcmp(op, "status") == 0)
        answer = status(n);
    else if (strcmp(op, "history") == 0)
        answer = history(n);
    else if (strcmp(op, "switchover") == 0)
        answer = ask_core(n, request, body, HF_EV_SWITCHOVER, "to");
    else if (strcmp(op, "leave") == 0)
        answer = ask_core(n, request, body, HF_EV_LEAVE, "name");
    else if (strcmp(op, "remove") == 0)
        answer = hf_node_remove(n, json_string_value(json_object_get(body, "name")));
    else if (strcmp(op, "sessions") == 0)
        answer = sessions(n, request);
    else if (strcmp(op, "end-session") == 0)
        hf_router_kill(n->router, (uint64_t)json_integer_value(json_object_get(body, "id")), ended, request);
    else if (strcmp(op, "through") == 0)
        answer = hf_node_through(n, request, json_string_value(json_object_get(body, "name")));
    else if (strcmp(op, "shutdown") == 0) {
        hf_node_shutdown(n);
        answer = json_pack("{s:b}", "ok", 1);
    } else {
        answer = json_pack("{s:s}", "error",
                           "unknown op (known: status, history, switchover, leave, remove, sessions, end-session, through, shutdown)");
    }
    if (answer != NULL)
        hf_admin_reply(request, answer);
}
