/* Start, readiness, liveness. */
#include "doctor/private.h"

#include <string.h>

enum { START_LEAST_S = 60, PATIENCE_LEAST_S = 30 };

static bool is_ordered(const struct hf_workload *w)
{
    return w->kind == HF_WORKLOAD_STATEFULSET && w->replicas > 1 &&
           !hf_yaml_equals(hf_yaml_get(w->spec, "podManagementPolicy"), "Parallel");
}

static void fix_ordered(struct hf_ctx *c, const struct hf_workload *w, struct hf_finding *f)
{
    struct hf_yaml policy = hf_yaml_get(w->spec, "podManagementPolicy");

    if (hf_yaml_there(policy) && !hf_yaml_is_null(policy))
        hf_fix_set(c, f, policy, "podManagementPolicy", "Parallel");
    else
        hf_fix_add(c, f, w->spec, "spec", "", "{'podManagementPolicy': 'Parallel'}");
}

static void check_order(struct hf_ctx *c, const struct hf_workload *w, struct hf_yaml ready)
{
    bool votes = w->product != NULL && w->product->votes;
    char words[1024];

    if (!is_ordered(w) || !hf_yaml_there(ready))
        return;
    if (hf_probe_needs_quorum(w, ready)) {
        hf_probe_words(ready, words, sizeof words);
        fix_ordered(c, w, hf_report(c, "HF030", w->o, hf_place(w->container, "readinessProbe"),
                                    "readiness asks `%.120s`, and podManagementPolicy is not Parallel", words));
    } else if (votes) {
        fix_ordered(c, w, hf_report(c, "HF031", w->o, hf_place(w->spec, "podManagementPolicy"),
                                    "%s decides by majority, and podManagementPolicy is not Parallel",
                                    w->product->name));
    }
}

/* How a probe of this container could look: its first port. */
static bool probe_like(struct hf_yaml container, char *out, size_t cap)
{
    struct hf_yaml port = hf_yaml_get(hf_yaml_item(hf_yaml_get(container, "ports"), 0), "containerPort");
    long number = hf_yaml_long(port, 0);

    if (number <= 0 || number > 65535)
        return false;
    (void)snprintf(out, cap, "'tcpSocket': {'port': %ld}", number);
    return true;
}

static void check_absent(struct hf_ctx *c, const struct hf_workload *w, struct hf_yaml ready, struct hf_yaml live)
{
    char how[64];
    bool known = probe_like(w->container, how, sizeof how);
    struct hf_finding *f;

    if (!hf_yaml_there(ready)) {
        f = hf_report(c, "HF032", w->o, hf_place(w->container, "name"), "container %s has no readinessProbe",
                      hf_container_name(w->container));
        if (known)
            hf_fix_container(c, f, w, w->container, "",
                             "{'readinessProbe': {%s, 'periodSeconds': 5, 'timeoutSeconds': 3}}", how);
    }
    if (!hf_yaml_there(live)) {
        f = hf_report(c, "HF033", w->o, hf_place(w->container, "name"), "container %s has no livenessProbe",
                      hf_container_name(w->container));
        if (known)
            hf_fix_container(c, f, w, w->container, "",
                             "{'livenessProbe': {%s, 'periodSeconds': 10, 'timeoutSeconds': 5, 'failureThreshold': 6},"
                             " 'startupProbe': {%s, 'periodSeconds': 5, 'failureThreshold': 60}}",
                             how, how);
    }
}

static void check_patience(struct hf_ctx *c, const struct hf_workload *w, struct hf_yaml live)
{
    long period = hf_yaml_long(hf_yaml_get(live, "periodSeconds"), 10);
    long failures = hf_yaml_long(hf_yaml_get(live, "failureThreshold"), 3);
    long timeout = hf_yaml_long(hf_yaml_get(live, "timeoutSeconds"), 1);
    long delay = hf_yaml_long(hf_yaml_get(live, "initialDelaySeconds"), 0);
    struct hf_yaml start = hf_yaml_get(w->container, "startupProbe");
    struct hf_yaml v;
    struct hf_finding *f;

    if (period < 1 || period > 100000 || failures < 1 || failures > 100000 || delay < 0 || delay > 1000000)
        return;
    if (!hf_yaml_there(start) && delay + period * failures < START_LEAST_S) {
        char how[64];
        f = hf_report(c, "HF034", w->o, hf_place(w->container, "livenessProbe"),
                      "no startupProbe, and %ld s after its start the database is killed", delay + period * failures);
        if (probe_like(w->container, how, sizeof how))
            hf_fix_container(c, f, w, w->container, "",
                             "{'startupProbe': {%s, 'periodSeconds': 5, 'failureThreshold': 60}}", how);
    }
    if (period * failures < PATIENCE_LEAST_S) {
        f = hf_report(c, "HF035", w->o, hf_place(live, "failureThreshold"),
                      "%ld failures %ld s apart kill it: %ld s of patience", failures, period, period * failures);
        v = hf_yaml_get(live, "failureThreshold");
        long want = (PATIENCE_LEAST_S * 2 + period - 1) / period;
        if (hf_yaml_there(v))
            hf_fix_set(c, f, v, "failureThreshold", "%ld", want);
        else
            hf_fix_container(c, f, w, w->container, "livenessProbe", "{'failureThreshold': %ld}", want);
    } else if (timeout <= 1) {
        f = hf_report(c, "HF035", w->o, hf_place(live, "timeoutSeconds"), "an answer after more than %ld s counts as dead",
                      timeout);
        v = hf_yaml_get(live, "timeoutSeconds");
        if (hf_yaml_there(v))
            hf_fix_set(c, f, v, "timeoutSeconds", "5");
        else
            hf_fix_container(c, f, w, w->container, "livenessProbe", "{'timeoutSeconds': 5}");
    }
}

void hf_rules_probes(struct hf_ctx *c, const struct hf_workload *w)
{
    struct hf_yaml ready = hf_yaml_get(w->container, "readinessProbe");
    struct hf_yaml live = hf_yaml_get(w->container, "livenessProbe");
    char words[1024];

    if (!hf_yaml_is_map(w->container))
        return;
    check_order(c, w, ready);
    check_absent(c, w, ready, live);
    if (!hf_yaml_is_map(live))
        return;
    check_patience(c, w, live);
    if (hf_probe_needs_quorum(w, live)) {
        hf_probe_words(live, words, sizeof words);
        hf_advise(c, hf_report(c, "HF036", w->o, hf_place(w->container, "livenessProbe"), "liveness asks `%.120s`", words),
                  "livenessProbe:\n  tcpSocket: # or whatever this process can answer alone\n    port: <port>\n");
    }
}
