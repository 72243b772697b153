/* What the other verbs ask of the supervisor. */
#include "local/supervisor_private.h"

#include <errno.h>
#include <signal.h>
#include <string.h>

#include "base/file.h"
#include "base/log.h"

static json_t *failed(const char *text)
{
    return json_pack("{s:s}", "error", text);
}

static json_t *done(void)
{
    return json_pack("{s:b}", "ok", 1);
}

/* The child that the request names, or NULL and an answer. */
static struct hf_child *named(struct hf_supervisor *s, const json_t *body, json_t **answer)
{
    const char *name = json_string_value(json_object_get(body, "node"));
    int ordinal = name != NULL ? hf_local_ordinal(s->local, name) : -1;

    if (ordinal >= 0 && s->children[ordinal].used)
        return &s->children[ordinal];
    *answer = json_pack("{s:s+++}", "error", "no node ", name != NULL ? name : "(no name)",
                        " in cluster ", s->local->name);
    return NULL;
}

static json_t *nodes(struct hf_supervisor *s)
{
    static const char *const words[] = {"down", "running", "running", "restarting"};
    json_t *list = json_array();

    for (unsigned i = 0; i < HF_MEMBERS_MAX; i++) {
        const struct hf_child *c = &s->children[i];
        struct hf_lock_pids pids = {0};
        char name[HF_NAME_MAX];
        if (!c->used)
            continue;
        if (hf_child_runs(c))
            (void)hf_child_pids(c, &pids);
        hf_local_node_name(s->local, i, name);
        (void)json_array_append_new(
            list, json_pack("{s:s,s:s,s:b,s:i,s:i,s:i,s:i}", "name", name, "state", words[c->state],
                            "wanted", (int)c->wanted, "sentinel", (int)pids.first.pid, "node",
                            (int)pids.second.pid, "ends", (int)c->ends, "last_status", c->last_status));
    }
    return json_pack("{s:s,s:i,s:o}", "name", s->local->name, "replicas", (int)s->local->replicas,
                     "nodes", list);
}

/* To the node, or all of its group. It is not wanted any more only if it has got the signal. */
static int signal_node(struct hf_child *c, int sig, bool group, struct hf_error *err)
{
    struct hf_lock_pids pids;
    struct hf_process to;
    int rv;

    /* Spawned a moment ago, and not at its lock yet: a child of ours keeps its pid until we have reaped it. */
    if (!hf_child_pids(c, &pids) || pids.first.pid <= 1)
        pids = (struct hf_lock_pids){.first = hf_process_now(c->process != NULL ? c->process->pid : 0)};
    if (pids.first.pid == 0)
        return hf_fail(err, HF_ENOENT, "the node does not run");
    /* The sentinel leads the group; before it has forked there is only itself. */
    to = group || pids.second.pid == 0 ? pids.first : pids.second;
    rv = (group ? hf_process_signal_group : hf_process_signal)(to, sig, err);
    if (rv == 0)
        hf_info("%s-%u: signal %d sent to %s%d", c->owner->local->name, c->ordinal, sig, group ? "the group of " : "", (int)to.pid);
    return rv;
}

/* It has ended by itself, and either waits to be started or its sentinel puts PostgreSQL away. */
static bool is_ending(const struct hf_child *c)
{
    struct hf_lock_pids pids;

    return c->state == HF_CHILD_WAITING || (hf_child_pids(c, &pids) && pids.ended);
}

static json_t *kill_node(struct hf_supervisor *s, const json_t *body)
{
    json_t *answer = NULL;
    struct hf_child *c = named(s, body, &answer);
    int sig = (int)json_integer_value(json_object_get(body, "signal"));
    bool group = json_is_true(json_object_get(body, "group")), restart = json_is_true(json_object_get(body, "restart"));
    struct hf_error err;

    if (c == NULL)
        return answer;
    if (sig < 1 || sig > SIGRTMAX)
        return failed("kill: no such signal");
    if (!is_ending(c) || (group && c->state != HF_CHILD_WAITING)) {
        if (signal_node(c, sig, group, &err) != 0)
            return failed(err.text);
    } else if (restart) {
        return failed("the node does not run");
    }
    if (!restart)
        c->wanted = false; /* now it stays so */
    if (!restart && c->state == HF_CHILD_WAITING) {
        uv_timer_stop(&c->timer);
        c->state = HF_CHILD_DOWN;
    }
    return done();
}

static json_t *start_node(struct hf_supervisor *s, const json_t *body)
{
    json_t *answer = NULL;
    struct hf_child *c = named(s, body, &answer);
    struct hf_error err;

    if (c == NULL)
        return answer;
    if (hf_child_runs(c)) {
        c->wanted = true;
        return json_pack("{s:b,s:b}", "ok", 1, "ran", 1);
    }
    c->backoff_ms = 0;
    return hf_child_start(c, &err) == 0 ? done() : failed(err.text);
}

static json_t *grow(struct hf_supervisor *s, const json_t *body)
{
    json_int_t to = json_integer_value(json_object_get(body, "replicas"));
    struct hf_error err;

    if (to <= (json_int_t)s->local->replicas || to > HF_MEMBERS_MAX)
        return failed("grow: not more than there are, or too many");
    for (unsigned i = s->local->replicas; i < (unsigned)to; i++) {
        if (hf_local_make_node(s->local, i, &err) != 0)
            return failed(err.text);
        s->children[i].used = true;
    }
    /* On disk first: a supervisor that starts after a crash must know all that run. */
    for (unsigned i = s->local->replicas; i < (unsigned)to; i++) {
        s->local->replicas = i + 1;
        if (hf_local_save(s->local, &err) != 0 || hf_child_start(&s->children[i], &err) != 0)
            return failed(err.text);
    }
    return done();
}

/* The directory of a node that left goes: its data is in the others, and as a member it is forgotten. */
static json_t *forget(struct hf_child *c)
{
    struct hf_local *l = c->owner->local;
    char path[HF_PATH_MAX];
    struct hf_error err;

    l->replicas--;
    c->used = false;
    if (hf_local_save(l, &err) != 0)
        return failed(err.text);
    hf_local_node_path(l, c->ordinal, "", path);
    if (hf_dir_remove(path, &err) != 0)
        return failed(err.text);
    hf_info("%s-%u: retired", l->name, c->ordinal);
    return done();
}

static json_t *retire(struct hf_supervisor *s, struct hf_admin_request *request, const json_t *body)
{
    json_t *answer = NULL;
    struct hf_child *c = named(s, body, &answer);
    struct hf_lock_pids pids;

    if (c == NULL)
        return answer;
    if (c->ordinal + 1 != s->local->replicas || c->ordinal == 0)
        return failed("retire: only the node with the highest ordinal, and never the last one");
    if (c->retire != NULL)
        return failed("retire: it is under way already");
    c->wanted = false;
    if (!hf_child_runs(c)) {
        uv_timer_stop(&c->timer);
        c->state = HF_CHILD_DOWN;
        return forget(c);
    }
    c->retire = request;
    /* Its part is over and others hold its data: no hand-over, no waiting. SIGQUIT makes the sentinel
     * end the node and its PostgreSQL. */
    if (hf_child_pids(c, &pids))
        (void)hf_process_signal(pids.first, SIGQUIT, NULL);
    return NULL;
}

void hf_control_ended(struct hf_child *c)
{
    struct hf_admin_request *request = c->retire;

    if (request == NULL)
        return;
    c->retire = NULL;
    hf_admin_reply(request, forget(c));
}

void hf_control_handle(void *ctx, struct hf_admin_request *request, const json_t *body)
{
    struct hf_supervisor *s = ctx;
    const char *op = json_string_value(json_object_get(body, "op"));
    json_t *answer;

    if (op == NULL)
        op = "";
    if (strcmp(op, "nodes") == 0)
        answer = nodes(s);
    else if (s->stopping)
        answer = failed("the cluster is going down");
    else if (strcmp(op, "kill") == 0)
        answer = kill_node(s, body);
    else if (strcmp(op, "start") == 0)
        answer = start_node(s, body);
    else if (strcmp(op, "grow") == 0)
        answer = grow(s, body);
    else if (strcmp(op, "retire") == 0)
        answer = retire(s, request, body);
    else if (strcmp(op, "down") == 0) {
        answer = done();
        hf_supervisor_stop(s);
    } else {
        answer = failed("unknown op (known: nodes, kill, start, grow, retire, down)");
    }
    if (answer != NULL)
        hf_admin_reply(request, answer);
}
