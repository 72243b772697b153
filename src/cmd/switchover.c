/* holdfast switchover: a planned change of leader. */
#include "cmd/cmd.h"

#include <string.h>

enum { ASK_MS = 1000, ANSWER_MS = 30000, OPEN_MS = 30000, POLL_MS = 30, POLL_FAR_MS = 100 };

static int wait_for_other(const struct hf_nodes *ns, const char *old, json_int_t epoch, char *out,
                          size_t cap, struct hf_error *err)
{
    unsigned long end = hf_cmd_now_ms() + OPEN_MS;

    while (hf_cmd_now_ms() < end) {
        struct hf_view_all v;
        bool done;
        hf_nodes_look(ns, ASK_MS, &v);
        done = v.open && v.epoch > epoch;
        if (done)
            (void)snprintf(out, cap, "%s", v.nodes[v.leader].name);
        hf_cmd_look_free(&v);
        if (done && strcmp(out, old) == 0)
            return hf_fail(err, HF_EREFUSED, "%s leads again: nobody else was able to (hint: `holdfast "
                                             "status`, `holdfast logs`)", old);
        if (done)
            return 0;
        hf_cmd_sleep_ms(ns->local ? POLL_MS : POLL_FAR_MS); /* TLS each time */
    }
    return hf_fail(err, HF_ETIMEOUT, "switchover: no open leader after %d s (hint: `holdfast status`)",
                   OPEN_MS / 1000);
}

/* Who leads may be known and yet not be asked from here. */
static int no_open_leader(const struct hf_nodes *ns, const struct hf_view_all *v, struct hf_error *err)
{
    for (unsigned i = 0; !ns->local && v->leader < 0 && i < v->n; i++) {
        const json_t *s = v->nodes[i].status;
        int leader = s != NULL && hf_json_number(s, "epoch") == v->epoch
                         ? hf_nodes_find(ns, hf_json_text(s, "leader"), NULL)
                         : -1;
        if (leader >= 0 && v->nodes[leader].status == NULL)
            return hf_fail(err, HF_EREFUSED,
                           "%s leads and cannot be asked from here: %s (hint: there, `kubectl exec %s -- holdfast "
                           "switchover`)",
                           ns->nodes[leader].name, v->nodes[leader].why.text, ns->nodes[leader].name);
    }
    return hf_fail(err, HF_EREFUSED, "cluster %s has no open leader to hand over from (hint: `holdfast status`)",
                   ns->cluster);
}

static int switch_over(const struct hf_nodes *ns, const char *to, struct hf_error *err)
{
    unsigned long begun = hf_cmd_now_ms();
    char old[HF_NAME_MAX] = "", new[HF_NAME_MAX] = "", target[HF_NAME_MAX] = "";
    struct hf_view_all v;
    json_int_t epoch;
    int leader, rv;

    if (to[0] != '\0') {
        int i = hf_nodes_find(ns, to, err);
        if (i < 0)
            return HF_ENOENT;
        strcpy(target, ns->nodes[i].name);
    }
    hf_nodes_look(ns, ASK_MS, &v);
    leader = v.open ? v.leader : -1;
    epoch = v.epoch;
    if (leader >= 0)
        strcpy(old, v.nodes[leader].name);
    else
        (void)no_open_leader(ns, &v, err);
    hf_cmd_look_free(&v);
    if (leader < 0)
        return HF_EREFUSED;
    if (strcmp(target, old) == 0) {
        printf("%s is the leader already\n", old);
        return 0;
    }
    rv = hf_nodes_ask(ns, (unsigned)leader, json_pack("{s:s,s:s}", "op", "switchover", "to", target), ANSWER_MS,
                      NULL, err);
    if (rv != 0 && rv != HF_ECLOSED) { /* it may have restarted on the way: what counts is who leads */
        hf_error_prefix(err, "%s", old);
        return rv;
    }
    rv = wait_for_other(ns, old, epoch, new, sizeof new, err);
    if (rv == 0)
        printf("%s -> %s in %lu ms\n", old, new, hf_cmd_now_ms() - begun);
    return rv;
}

int hf_cmd_switchover(int argc, char **argv)
{
    char dir[HF_PATH_MAX] = "", to[HF_NAME_MAX] = "";
    const struct hf_option o[] = {
        HF_NODES_DIR_OPTION(dir),
        {"to", 0, HF_OPT_TEXT, to, sizeof to, 0, 0, NULL, "NODE",
         "the node that should lead (default: the follower that holds most)"},
    };
    const struct hf_usage u = {
        "[--to NODE] [--dir DIR]",
        "Hands leadership to another node without losing anything: new transactions wait, running ones\n"
        "may end, the follower gets all WAL, then it leads. Returns when its gate is open.\n\n"
        "In any pod (kubectl exec demo-0 -- holdfast switchover): the leader is asked through the node there.\n",
        o, sizeof o / sizeof *o};
    struct hf_error err;
    struct hf_nodes ns;
    int status, rv;

    if (!hf_cmd_parse(argc, argv, &u, NULL, &status))
        return status;
    if (hf_nodes_open(&ns, dir, &err) != 0)
        return hf_cmd_fail(&err);
    rv = switch_over(&ns, to, &err);
    return rv == 0 ? 0 : hf_cmd_fail(&err);
}
