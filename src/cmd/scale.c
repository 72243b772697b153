/* holdfast scale: more or fewer nodes, each joining or leaving properly. */
#include "cmd/cmd.h"
#include "cmd/scale_pod.h"

#include <string.h>

enum { ASK_MS = 1000, ANSWER_MS = 30000, POLL_MS = 100 };

struct scale {
    struct hf_local local;
    unsigned to;
    unsigned long end_ms;
    bool terminal;
    char shown[256];
};

static void say(struct scale *s, const char *line)
{
    if (strcmp(line, s->shown) == 0)
        return;
    (void)snprintf(s->shown, sizeof s->shown, "%s", line);
    printf(s->terminal ? "\r\033[K%s" : "%s\n", line);
    (void)fflush(stdout);
}

static int too_late(const struct scale *s, const char *what, struct hf_error *err)
{
    if (hf_cmd_now_ms() < s->end_ms)
        return 0;
    return hf_fail(err, HF_ETIMEOUT,
                   "scale: %s takes too long; what is done stays done (hint: `holdfast status`, `holdfast "
                   "logs`, and once that is mended `holdfast scale` again)",
                   what);
}

/* -- up ---------------------------------------------------------------------------------------------- */

static bool joined(const struct hf_view_node *n)
{
    return n->status != NULL && json_is_true(json_object_get(n->status, "voter")) &&
           (strcmp(hf_json_text(n->status, "state"), "streaming") == 0 ||
            strcmp(hf_json_text(n->status, "state"), "open") == 0);
}

static int wait_until_joined(struct scale *s, unsigned first, struct hf_error *err)
{
    for (;;) {
        char line[256] = "";
        size_t used = 0;
        struct hf_view_all v;
        bool all = true;
        int rv;
        hf_cmd_look(&s->local, ASK_MS, &v);
        for (unsigned i = first; i < v.n; i++) {
            const struct hf_view_node *n = &v.nodes[i];
            bool in = joined(n);
            all = all && in;
            if (used < sizeof line)
                used += (size_t)snprintf(line + used, sizeof line - used, "%s%s %s", i > first ? ", " : "",
                                         n->name,
                                         in                  ? "is a voter"
                                         : n->status != NULL ? hf_json_text(n->status, "state")
                                                             : "starting");
        }
        all = all && v.open;
        hf_cmd_look_free(&v);
        say(s, line);
        if (all)
            return 0;
        rv = too_late(s, line, err);
        if (rv != 0)
            return rv;
        hf_cmd_sleep_ms(POLL_MS);
    }
}

static int grow(struct scale *s, struct hf_error *err)
{
    unsigned first = s->local.replicas;
    int rv = hf_cmd_ask_supervisor(
        &s->local, json_pack("{s:s,s:i}", "op", "grow", "replicas", (int)s->to), ANSWER_MS, NULL, err);

    if (rv != 0)
        return rv;
    s->local.replicas = s->to;
    return wait_until_joined(s, first, err);
}

/* -- down -------------------------------------------------------------------------------------------- */

/* Is `name` a member, by the word of the leader? 1, 0, or -1: there is no open leader to ask. */
static int is_member(const struct hf_view_all *v, const char *name)
{
    const json_t *list, *m;
    size_t i;

    if (!v->open)
        return -1;
    list = json_object_get(v->nodes[v->leader].status, "members");
    json_array_foreach(list, i, m)
        if (strcmp(hf_json_text(m, "name"), name) == 0)
            return 1;
    return 0;
}

/* One step towards `name` being no member: ask whoever leads. A leader first hands over, which the next
 * step finds done. */
static bool leave_step(struct scale *s, unsigned ordinal, const char *name, struct hf_error *why)
{
    struct hf_view_all v;
    int member, leader;

    hf_cmd_look(&s->local, ASK_MS, &v);
    member = is_member(&v, name);
    leader = v.leader;
    hf_cmd_look_free(&v);
    if (member == 0)
        return true;
    if (member < 0) {
        (void)hf_fail(why, HF_EBUSY, "there is no open leader");
        return false;
    }
    if (leader == (int)ordinal)
        (void)hf_cmd_ask_node(&s->local, ordinal,
                              json_pack("{s:s,s:s}", "op", "switchover", "to", ""), ANSWER_MS, NULL,
                              why);
    else
        (void)hf_cmd_ask_node(&s->local, (unsigned)leader,
                              json_pack("{s:s,s:s}", "op", "leave", "name", name), ANSWER_MS, NULL,
                              why);
    return false; /* whatever the answer: the leader's list of members decides */
}

static int shrink_by_one(struct scale *s, struct hf_error *err)
{
    unsigned ordinal = s->local.replicas - 1;
    struct hf_error why = {0};
    char name[HF_NAME_MAX], line[160];
    int rv;

    hf_local_node_name(&s->local, ordinal, name);
    (void)snprintf(line, sizeof line, "%s leaves", name);
    say(s, line);
    while (!leave_step(s, ordinal, name, &why)) {
        rv = too_late(s, line, err);
        if (rv != 0) {
            if (why.text[0] != '\0')
                hf_error_prefix(err, "%s", why.text);
            return rv;
        }
        hf_cmd_sleep_ms(POLL_MS);
    }
    rv = hf_cmd_ask_supervisor(&s->local, json_pack("{s:s,s:s}", "op", "retire", "node", name), ANSWER_MS,
                               NULL, err);
    if (rv != 0)
        return rv;
    s->local.replicas--;
    (void)snprintf(line, sizeof line, "%s has left", name);
    say(s, line);
    return 0;
}

/* ---------------------------------------------------------------------------------------------------- */

static int scale(struct scale *s, struct hf_error *err)
{
    unsigned from = s->local.replicas;
    int rv = 0;

    if (s->to > from)
        rv = grow(s, err);
    while (rv == 0 && s->to < s->local.replicas)
        rv = shrink_by_one(s, err);
    if (rv == 0 && s->to == from) /* perhaps an earlier one was cut short */
        rv = wait_until_joined(s, 0, err);
    if (s->terminal)
        printf("\r\033[K");
    if (rv == 0)
        printf("cluster %s has %u node%s\n", s->local.name, s->to, s->to == 1 ? "" : "s");
    return rv;
}

int hf_cmd_scale(int argc, char **argv)
{
    static struct scale s;
    char dir[HF_PATH_MAX] = "", socket[HF_PATH_MAX];
    unsigned timeout_s = 120;
    const struct hf_option o[] = {
        HF_NODES_DIR_OPTION(dir),
        {"replicas", 'n', HF_OPT_NUMBER, &s.to, 0, 1, HF_MEMBERS_MAX, NULL, "N", "how many it should have"},
        {"timeout", 0, HF_OPT_NUMBER, &timeout_s, 0, 1, 86400, NULL, "S",
         "how long to wait for it (default 120)"},
    };
    const struct hf_usage u = {
        "--replicas N [--dir DIR]",
        "Adds nodes, or removes those with the highest ordinals, one at a time. A new node copies the\n"
        "leader's data, catches up and then votes; a leaving node hands leadership over if it has it, stops\n"
        "to count, and its directory is removed. Clients see no more than a hand-over. Returns when it is\n"
        "done. An odd number is best: four nodes survive the loss of no more than three do.\n\n"
        "In a pod (kubectl exec demo-0 -- holdfast scale --replicas 3) members leave in the same way; their\n"
        "pods are Kubernetes' to end.\n",
        o, sizeof o / sizeof *o};
    struct hf_error err;
    int status, rv;

    if (!hf_cmd_parse(argc, argv, &u, NULL, &status))
        return status;
    if (s.to == 0)
        return hf_cmd_wrong_usage("scale", "--replicas is missing");
    if (hf_nodes_alone(dir, socket)) {
        rv = hf_scale_pod(socket, s.to, timeout_s, &err);
        return rv == 0 ? 0 : hf_cmd_fail(&err);
    }
    if (hf_cmd_open(&s.local, dir, &err) != 0)
        return hf_cmd_fail(&err);
    s.end_ms = hf_cmd_now_ms() + timeout_s * 1000ul;
    s.terminal = hf_cmd_is_terminal(stdout);
    rv = scale(&s, &err);
    hf_local_free(&s.local);
    return rv == 0 ? 0 : hf_cmd_fail(&err);
}
