/* holdfast history: the epochs, as the cluster remembers them. */
#include "cmd/cmd.h"

#include <string.h>
#include <time.h>

enum { ASK_MS = 1500 };

/* From the node that knows the newest epoch. */
static int ask_history(const struct hf_nodes *ns, json_t **answer, struct hf_error *err)
{
    struct hf_nodes_answer answers[HF_MEMBERS_MAX];
    json_int_t newest = -1;

    *answer = NULL;
    hf_nodes_ask_all(ns, "history", ASK_MS, answers);
    for (unsigned i = 0; i < ns->n; i++) {
        json_t *o = answers[i].body;
        const json_t *list = json_object_get(o, "epochs");
        json_int_t last = json_array_size(list) > 0
                              ? hf_json_number(json_array_get(list, json_array_size(list) - 1), "epoch")
                              : 0;
        if (o == NULL || last <= newest) {
            json_decref(o);
            continue;
        }
        json_decref(*answer);
        *answer = o;
        newest = last;
    }
    return *answer != NULL ? 0 : hf_nodes_silent(ns, err);
}

static void print_epochs(const json_t *answer)
{
    const json_t *list = json_object_get(answer, "epochs"), *e;
    size_t i;

    printf("%6s  %-14s %8s  %-12s %-20s %s\n", "EPOCH", "LEADER", "TIMELINE", "FROM LSN", "WHEN (UTC)",
           "WHY");
    json_array_foreach(list, i, e)
    {
        time_t at = (time_t)(hf_json_number(e, "at_ms") / 1000);
        char lsn[32], when[32] = "-", timeline[24] = "-";
        struct tm tm;
        hf_lsn_text(hf_json_number(e, "lsn"), lsn);
        if (at > 0 && gmtime_r(&at, &tm) != NULL)
            (void)strftime(when, sizeof when, "%Y-%m-%d %H:%M:%S", &tm);
        if (hf_json_number(e, "timeline") > 0)
            (void)snprintf(timeline, sizeof timeline, "%lld", (long long)hf_json_number(e, "timeline"));
        printf("%6lld  %-14s %8s  %-12s %-20s %s%s\n", (long long)hf_json_number(e, "epoch"),
               hf_json_text(e, "leader"), timeline, lsn, when, hf_json_text(e, "why"),
               json_is_false(json_object_get(e, "opened")) ? " (never opened)" : "");
    }
}

int hf_cmd_history(int argc, char **argv)
{
    char dir[HF_PATH_MAX] = "";
    bool json = false;
    const struct hf_option o[] = {
        HF_NODES_DIR_OPTION(dir),
        {"json", 0, HF_OPT_FLAG, &json, 0, 0, 0, NULL, NULL, "for programs"},
    };
    const struct hf_usage u = {"[--json] [--dir DIR]",
                               "Prints each epoch the cluster remembers: who led, on which timeline of "
                               "PostgreSQL, from which LSN\non, since when, and why the one before had "
                               "ended. In any pod: kubectl exec demo-0 -- holdfast history.\n",
                               o, sizeof o / sizeof *o};
    struct hf_error err;
    struct hf_nodes ns;
    json_t *answer;
    int status;

    if (!hf_cmd_parse(argc, argv, &u, NULL, &status))
        return status;
    if (hf_nodes_open(&ns, dir, &err) != 0 || ask_history(&ns, &answer, &err) != 0)
        return hf_cmd_fail(&err);
    if (json) {
        (void)json_dumpf(answer, stdout, JSON_INDENT(2) | JSON_PRESERVE_ORDER);
        printf("\n");
    } else {
        print_epochs(answer);
    }
    json_decref(answer);
    return 0;
}
