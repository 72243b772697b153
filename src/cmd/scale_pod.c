/* holdfast scale in a pod: Kubernetes makes and ends the pods; this makes members leave before. */
#include "cmd/scale_pod.h"

#include <stdlib.h>
#include <string.h>

#include "admin/admin.h"
#include "cmd/cmd.h"

enum { ASK_MS = 2000, POLL_MS = 200 };

static unsigned ordinal_of(const char *name)
{
    const char *dash = strrchr(name, '-');

    return dash != NULL ? (unsigned)strtoul(dash + 1, NULL, 10) : 0;
}

struct look {
    unsigned members;
    char leaves[HF_NAME_MAX]; /* the member with the highest ordinal that has no place; "": none */
    bool open;                /* somebody leads */
};

static int look_at(const char *socket, unsigned replicas, struct look *k, struct hf_error *err)
{
    json_t *request = json_pack("{s:s}", "op", "status"), *answer = NULL, *m;
    unsigned highest = 0;
    size_t i;
    int rv = hf_admin_ask(socket, request, ASK_MS, &answer, err);

    memset(k, 0, sizeof *k);
    json_decref(request);
    if (rv != 0)
        return rv;
    k->open = hf_json_text(answer, "leader")[0] != '\0';
    json_array_foreach(json_object_get(answer, "members"), i, m)
    {
        const char *name = hf_json_text(m, "name");
        k->members++;
        if (ordinal_of(name) >= replicas && (k->leaves[0] == '\0' || ordinal_of(name) > highest)) {
            highest = ordinal_of(name);
            (void)snprintf(k->leaves, sizeof k->leaves, "%s", name);
        }
    }
    json_decref(answer);
    return k->members > 0 ? 0
                          : hf_fail(err, HF_EBUSY, "this node is not a member of a cluster yet");
}

int hf_scale_pod(const char *socket, unsigned replicas, unsigned timeout_s, struct hf_error *err)
{
    unsigned long end_ms = hf_cmd_now_ms() + timeout_s * 1000ul;
    char leaving[HF_NAME_MAX] = "";
    struct look k;
    int rv;

    for (;;) {
        json_t *request, *answer = NULL;
        rv = look_at(socket, replicas, &k, err);
        if (leaving[0] != '\0' && rv == 0 && strcmp(leaving, k.leaves) != 0)
            printf("%s has left\n", leaving);
        if (rv == 0 && k.leaves[0] == '\0')
            break;
        if (hf_cmd_now_ms() >= end_ms)
            return rv != 0 ? rv
                           : hf_fail(err, HF_ETIMEOUT,
                                     "%s has not left in %u s%s (hint: `holdfast status`, and the leader's "
                                     "log)",
                                     k.leaves, timeout_s, k.open ? "" : ": there is no leader");
        if (rv == 0) {
            (void)snprintf(leaving, sizeof leaving, "%s", k.leaves);
            request = json_pack("{s:s,s:s}", "op", "remove", "name", k.leaves);
            (void)hf_admin_ask(socket, request, ASK_MS, &answer,
                               NULL); /* the list of members decides */
            json_decref(request);
            json_decref(answer);
        }
        hf_cmd_sleep_ms(POLL_MS);
    }
    printf("the cluster has %u member%s\n", k.members, k.members == 1 ? "" : "s");
    if (k.members < replicas)
        printf("Kubernetes makes pods, which join by themselves: kubectl scale statefulset NAME "
               "--replicas=%u\n",
               replicas);
    else if (leaving[0] != '\0')
        printf("now their pods may go: kubectl scale statefulset %.*s --replicas=%u\n",
               (int)(strrchr(leaving, '-') - leaving), leaving, replicas);
    return 0;
}
