/* Secrets, rights, networks. */
#include "doctor/private.h"

#include <ctype.h>
#include <stdlib.h>
#include <string.h>

static const struct hf_yaml none = {NULL, NULL, NULL};

/* -- secrets ----------------------------------------------------------------------------------------- */

static bool is_secret_name(const char *name)
{
    static const char *const words[] = {"PASSWORD", "PASSWD", "PWD", "SECRET", "TOKEN", "API_KEY", "APIKEY",
                                        "PRIVATE_KEY", "ACCESS_KEY", "ENCRYPTION_KEY", "ERLANG_COOKIE"};
    static const char *const not[] = {"_FILE", "_PATH", "_DIR", "_METHOD", "_ENCRYPTION", "ALLOW_EMPTY", "_NAME",
                                      "_EXPIR", "_TTL"};

    for (unsigned i = 0; i < sizeof not / sizeof *not; i++)
        if (hf_has_word(name, not[i]))
            return false;
    for (unsigned i = 0; i < sizeof words / sizeof *words; i++)
        if (hf_has_word(name, words[i]))
            return strcmp(name, "PWD") != 0;
    return false;
}

static bool is_open_door(const char *name, const char *value)
{
    bool yes = strcmp(value, "1") == 0 || strcasecmp(value, "true") == 0 || strcasecmp(value, "yes") == 0;

    return (yes && (hf_has_word(name, "ALLOW_EMPTY_PASSWORD") || hf_has_word(name, "ALLOW_EMPTY_ROOT_PASSWORD") ||
                    hf_has_word(name, "ALLOW_ANONYMOUS") || hf_has_word(name, "ALLOW_PLAINTEXT"))) ||
           (strcmp(name, "POSTGRES_HOST_AUTH_METHOD") == 0 && strcasecmp(value, "trust") == 0) ||
           (strcmp(name, "NEO4J_AUTH") == 0 && strcasecmp(value, "none") == 0) ||
           (strcmp(name, "xpack.security.enabled") == 0 && strcasecmp(value, "false") == 0);
}

static void check_variable(struct hf_ctx *c, const struct hf_workload *w, struct hf_yaml env)
{
    const char *name = hf_yaml_text(hf_yaml_get(env, "name")), *value = hf_yaml_text(hf_yaml_get(env, "value"));

    if (name == NULL || value == NULL || value[0] == '\0')
        return;
    if (is_open_door(name, value)) {
        hf_report(c, "HF081", w->o, hf_place(env, "value"), "%s=%s", name, value);
        return;
    }
    if (!is_secret_name(name) || strncmp(value, "$(", 2) == 0)
        return;
    hf_advise(c, hf_report(c, "HF080", w->o, hf_place(env, "value"), "%s has its value here", name),
              "- name: %s\n  valueFrom:\n    secretKeyRef:\n      name: <a Secret>\n      key: %s\n", name, name);
}

static void check_words(struct hf_ctx *c, const struct hf_workload *w, struct hf_yaml list)
{
    static const char *const doors[] = {"--insecure", "--skip-grant-tables", "--protected-mode no", "--noauth",
                                        "--auth-mode=none", "--no-auth"};
    static const char *const secrets[] = {"--requirepass ", "--masterauth ", "--password=", "--root-password="};

    for (size_t i = 0; i < hf_yaml_count(list); i++) {
        struct hf_yaml item = hf_yaml_item(list, i);
        const char *text = hf_yaml_text(item), *next = hf_yaml_text(hf_yaml_item(list, i + 1)), *hit;
        if (text == NULL)
            continue;
        for (unsigned k = 0; k < sizeof doors / sizeof *doors; k++)
            if ((hit = strstr(text, doors[k])) != NULL && hit[strlen(doors[k])] != '-') {
                hf_report(c, "HF081", w->o, item, "started with %s", doors[k]);
                break;
            }
        if ((strcmp(text, "--requirepass") == 0 || strcmp(text, "--masterauth") == 0) && next != NULL &&
            next[0] != '$' && next[0] != '\0')
            hf_report(c, "HF080", w->o, item, "%s has its value here", text);
        for (unsigned k = 0; k < sizeof secrets / sizeof *secrets; k++)
            if ((hit = strstr(text, secrets[k])) != NULL && hit[strlen(secrets[k])] != '$' &&
                hit[strlen(secrets[k])] != '\0' && hit[strlen(secrets[k])] != '"') {
                hf_report(c, "HF080", w->o, item, "%s has its value here", secrets[k]);
                break;
            }
    }
}

/* -- rights ------------------------------------------------------------------------------------------ */

static void check_user(struct hf_ctx *c, const struct hf_workload *w, struct hf_yaml container)
{
    struct hf_yaml pod = hf_yaml_get(w->pod, "securityContext"), own = hf_yaml_get(container, "securityContext");
    struct hf_yaml user = hf_yaml_get(own, "runAsUser"), must = hf_yaml_get(own, "runAsNonRoot");
    struct hf_finding *f;

    if (!hf_yaml_there(user))
        user = hf_yaml_get(pod, "runAsUser");
    if (!hf_yaml_there(must))
        must = hf_yaml_get(pod, "runAsNonRoot");
    if (hf_yaml_long(user, -1) == 0) {
        f = hf_report(c, "HF082", w->o, user, "container %s runs as user 0", hf_container_name(container));
        hf_soften(f, HF_ERROR);
        hf_advise(c, f, "runAsUser: <the image's user>\nrunAsNonRoot: true\n");
    } else if (!hf_yaml_bool(must, false) && hf_yaml_long(user, 0) <= 0) {
        f = hf_report(c, "HF082", w->o, hf_place(w->pod, "securityContext"),
                      "container %s: neither runAsNonRoot nor runAsUser", hf_container_name(container));
        hf_advise(c, f, "securityContext:\n  runAsNonRoot: true\n  runAsUser: <the image's user>\n");
    }
}

static void check_privileges(struct hf_ctx *c, const struct hf_workload *w, struct hf_yaml container)
{
    struct hf_yaml v = hf_yaml_path(container, "securityContext.privileged");

    if (hf_yaml_bool(v, false))
        hf_fix_set(c, hf_report(c, "HF083", w->o, v, "container %s is privileged", hf_container_name(container)), v,
                   "privileged", "false");
}

static void check_pod(struct hf_ctx *c, const struct hf_workload *w)
{
    static const char *const host[] = {"hostNetwork", "hostPID", "hostIPC"};
    struct hf_yaml security = hf_yaml_get(w->pod, "securityContext"), v, policy;
    bool seccomp = hf_yaml_there(hf_yaml_get(security, "seccompProfile"));

    for (unsigned i = 0; i < 3; i++) {
        v = hf_yaml_get(w->pod, host[i]);
        if (hf_yaml_bool(v, false))
            hf_fix_set(c, hf_report(c, "HF083", w->o, hf_place(w->pod, host[i]), "%s: true", host[i]), v, host[i],
                       "false");
    }
    for (size_t i = 0; !seccomp && i < hf_yaml_count(hf_yaml_get(w->pod, "containers")); i++)
        seccomp = hf_yaml_there(hf_yaml_path(hf_workload_container(w, i, false), "securityContext.seccompProfile"));
    if (!seccomp)
        hf_fix_add(c, hf_report(c, "HF084", w->o, hf_place(w->pod, "securityContext"), "no seccompProfile"), w->pod,
                   w->pod_path, "securityContext", "{'seccompProfile': {'type': 'RuntimeDefault'}}");
    policy = hf_yaml_get(security, "fsGroupChangePolicy");
    if (hf_yaml_there(hf_yaml_get(security, "fsGroup")) && !hf_yaml_equals(policy, "OnRootMismatch")) {
        struct hf_finding *f = hf_report(c, "HF086", w->o, hf_place(security, "fsGroup"),
                                         "fsGroup without fsGroupChangePolicy: OnRootMismatch");
        if (hf_yaml_there(policy))
            hf_fix_set(c, f, policy, "fsGroupChangePolicy", "OnRootMismatch");
        else
            hf_fix_add(c, f, w->pod, w->pod_path, "securityContext", "{'fsGroupChangePolicy': 'OnRootMismatch'}");
    }
}

static void check_token(struct hf_ctx *c, const struct hf_workload *w)
{
    struct hf_yaml v = hf_yaml_get(w->pod, "automountServiceAccountToken");
    const char *account = hf_yaml_text(hf_yaml_get(w->pod, "serviceAccountName"));
    const struct hf_kube_object *o = hf_kube_find(c->s, "ServiceAccount", w->o->namespace,
                                                  account != NULL ? account : "default");
    struct hf_finding *f;

    if (!hf_yaml_bool(v, true) ||
        (!hf_yaml_there(v) && o != NULL && !hf_yaml_bool(hf_yaml_get(o->root, "automountServiceAccountToken"), true)))
        return;
    /* Rights that were given to this account are meant to be used. */
    for (size_t i = 0; account != NULL && i < c->s->n_objects; i++) {
        struct hf_yaml subjects = hf_yaml_get(c->s->objects[i].root, "subjects");
        for (size_t k = 0; k < hf_yaml_count(subjects); k++)
            if (hf_yaml_equals(hf_yaml_get(hf_yaml_item(subjects, k), "name"), account))
                return;
    }
    f = hf_report(c, "HF085", w->o, hf_place(w->pod, hf_yaml_there(v) ? "automountServiceAccountToken" : "containers"),
                  "automountServiceAccountToken is not false");
    if (hf_yaml_there(v))
        hf_fix_set(c, f, v, "automountServiceAccountToken", "false");
    else
        hf_fix_add(c, f, w->pod, w->pod_path, "", "{'automountServiceAccountToken': false}");
}

static void check_network(struct hf_ctx *c, const struct hf_workload *w)
{
    for (size_t i = 0; i < c->s->n_objects; i++) {
        const struct hf_kube_object *o = &c->s->objects[i];
        struct hf_yaml selector = hf_yaml_path(o->root, "spec.podSelector");
        if (strcmp(o->kind, "NetworkPolicy") == 0 && hf_kube_same_namespace(o->namespace, w->o->namespace) &&
            (hf_yaml_count(selector) == 0 || hf_selector_matches(selector, w->labels)))
            return;
    }
    hf_advise(c, hf_report(c, "HF087", w->o, none, "no NetworkPolicy selects these pods"),
              "# a NetworkPolicy: replicas among themselves, clients to the client port, nothing else\n");
}

void hf_rules_security(struct hf_ctx *c, const struct hf_workload *w)
{
    static const char *const lists[] = {"containers", "initContainers"};

    if (!hf_yaml_is_map(w->pod))
        return;
    for (unsigned k = 0; k < 2; k++)
        for (size_t i = 0; i < hf_yaml_count(hf_yaml_get(w->pod, lists[k])); i++) {
            struct hf_yaml container = hf_workload_container(w, i, k == 1);
            struct hf_yaml env = hf_yaml_get(container, "env");
            for (size_t e = 0; e < hf_yaml_count(env); e++)
                check_variable(c, w, hf_yaml_item(env, e));
            check_words(c, w, hf_yaml_get(container, "command"));
            check_words(c, w, hf_yaml_get(container, "args"));
            check_privileges(c, w, container);
            if (k == 0)
                check_user(c, w, container);
        }
    check_pod(c, w);
    check_token(c, w);
    check_network(c, w);
}
