#include "kube/api.h"

#include <curl/curl.h>
#include <jansson.h>
#include <limits.h>
#include <openssl/crypto.h>
#include <stdlib.h>
#include <string.h>

#include "kube/access.h"

enum { URL_MAX = 1024, LOAD_MS = 30000 };

struct answer {
    char *text;
    size_t len, room;
    long status; /* HTTP's */
};

/* Someone to ask: curl holds on to the rest. */
struct line {
    struct hf_kube_access access;
    CURL *curl;
    struct curl_slist *headers;
    char why[CURL_ERROR_SIZE];
};

static size_t take_bytes(char *data, size_t size, size_t n, void *arg)
{
    struct answer *a = arg;

    (void)size; /* 1, says curl */
    if (a->len + n > HF_YAML_TEXT_MAX)
        return 0;
    if (a->len + n + 1 > a->room) {
        size_t want = (a->len + n + 1) * 2;
        char *more = realloc(a->text, want);
        if (more == NULL)
            return 0;
        a->text = more;
        a->room = want;
    }
    memcpy(a->text + a->len, data, n);
    a->len += n;
    a->text[a->len] = '\0';
    return n;
}

static CURLcode set_blob(CURL *curl, CURLoption option, char *text)
{
    struct curl_blob blob = {.data = text, .len = text != NULL ? strlen(text) : 0, .flags = CURL_BLOB_NOCOPY};

    return text != NULL ? curl_easy_setopt(curl, option, &blob) : CURLE_OK;
}

static void hang_up(struct line *l)
{
    curl_easy_cleanup(l->curl);
    curl_slist_free_all(l->headers);
    hf_kube_access_forget(&l->access);
}

static void add_header(struct line *l, const char *text)
{
    struct curl_slist *longer = curl_slist_append(l->headers, text);

    if (longer != NULL)
        l->headers = longer;
}

static void add_token(struct line *l)
{
    char *token = l->access.token, *text = NULL;

    if (token == NULL)
        return;
    token[strcspn(token, "\r\n")] = '\0';
    if (asprintf(&text, "Authorization: Bearer %s", token) < 0)
        return; /* then the API says that it knows nobody */
    add_header(l, text);
    OPENSSL_cleanse(text, strlen(text));
    free(text);
}

/* For l->access. curl is set up here and not before: a node that never asks does not pay for it. */
static int pick_up(struct line *l, int timeout_ms, struct hf_error *err)
{
    struct hf_kube_access *a = &l->access;
    CURLcode bad = CURLE_OK;
    CURL *curl = l->curl = curl_easy_init();

    if (curl == NULL)
        return hf_fail(err, HF_EIO, "%s: cannot set up a connection", a->server);
    add_header(l, "Accept: application/json");
    add_token(l);
    bad |= curl_easy_setopt(curl, CURLOPT_HTTPHEADER, l->headers);
    bad |= curl_easy_setopt(curl, CURLOPT_USERAGENT, "holdfast");
    bad |= curl_easy_setopt(curl, CURLOPT_WRITEFUNCTION, take_bytes);
    bad |= curl_easy_setopt(curl, CURLOPT_ERRORBUFFER, l->why);
    bad |= curl_easy_setopt(curl, CURLOPT_TIMEOUT_MS, (long)timeout_ms);
    bad |= curl_easy_setopt(curl, CURLOPT_NOSIGNAL, 1L);
    bad |= curl_easy_setopt(curl, CURLOPT_PROTOCOLS_STR, "https,http");
    if (a->direct)
        bad |= curl_easy_setopt(curl, CURLOPT_NOPROXY, "*");
    if (a->ca != NULL) /* and no other authority */
        bad |= curl_easy_setopt(curl, CURLOPT_CAPATH, NULL);
    bad |= set_blob(curl, CURLOPT_CAINFO_BLOB, a->ca);
    bad |= set_blob(curl, CURLOPT_SSLCERT_BLOB, a->cert);
    bad |= set_blob(curl, CURLOPT_SSLKEY_BLOB, a->key);
    if (a->insecure) {
        bad |= curl_easy_setopt(curl, CURLOPT_SSL_VERIFYPEER, 0L);
        bad |= curl_easy_setopt(curl, CURLOPT_SSL_VERIFYHOST, 0L);
    }
    return bad == CURLE_OK ? 0 : hf_fail(err, HF_EIO, "%s: cannot set up a connection: %s", a->server, l->why);
}

/* 0: it has answered something, which is the caller's to free. */
static int ask(struct line *l, const char *url, struct answer *out, struct hf_error *err)
{
    CURLcode rv;

    *out = (struct answer){0};
    if (curl_easy_setopt(l->curl, CURLOPT_URL, url) != CURLE_OK ||
        curl_easy_setopt(l->curl, CURLOPT_WRITEDATA, out) != CURLE_OK)
        return hf_fail(err, HF_ENOMEM, "out of memory");
    rv = curl_easy_perform(l->curl);
    if (rv == CURLE_OK && curl_easy_getinfo(l->curl, CURLINFO_RESPONSE_CODE, &out->status) == CURLE_OK)
        return 0;
    free(out->text);
    *out = (struct answer){0};
    return hf_fail(err, rv == CURLE_OPERATION_TIMEDOUT ? HF_ETIMEOUT : HF_EIO, "%s: %s", url,
                   l->why[0] != '\0' ? l->why : curl_easy_strerror(rv));
}

/* -- what the doctor looks at ------------------------------------------------------------------------ */

struct resource {
    const char *group, *plural; /* the group's path */
    bool namespaced, needed;
};

static const struct resource resources[] = {
    {"apis/apps/v1", "statefulsets", true, true},
    {"apis/apps/v1", "deployments", true, false},
    {"apis/apps/v1", "daemonsets", true, false},
    {"api/v1", "pods", true, false},
    {"api/v1", "services", true, true},
    {"api/v1", "serviceaccounts", true, false},
    {"api/v1", "persistentvolumeclaims", true, false},
    {"api/v1", "configmaps", true, false},
    {"api/v1", "secrets", true, false},
    {"apis/policy/v1", "poddisruptionbudgets", true, true},
    {"apis/networking.k8s.io/v1", "networkpolicies", true, false},
    {"apis/autoscaling/v2", "horizontalpodautoscalers", true, false},
    {"apis/rbac.authorization.k8s.io/v1", "rolebindings", true, false},
    {"apis/cert-manager.io/v1", "certificates", true, false},
    {"apis/storage.k8s.io/v1", "storageclasses", false, false},
};

/* 0; 1: not there, or not for this account. */
static int list(struct line *l, const char *url, struct answer *out, struct hf_error *err)
{
    int rv = ask(l, url, out, err);
    long status = out->status;

    if (rv != 0 || (status == 200 && out->text != NULL))
        return rv;
    free(out->text);
    if (status == 401)
        return hf_fail(err, HF_EPERM, "%s: 401: the API does not know this account (hint: an old token?)", url);
    return status == 403 || status == 404 ? 1 : hf_fail(err, HF_EIO, "%s: status %ld", url, status);
}

static int load_all(struct hf_kube_set *s, struct line *l, const char *namespace, char *left_out, size_t cap,
                    struct hf_error *err)
{
    bool all = strcmp(namespace, "*") == 0;
    size_t left = 0;
    int rv = 0;

    left_out[0] = '\0';
    for (unsigned i = 0; i < sizeof resources / sizeof *resources && rv >= 0; i++) {
        const struct resource *r = &resources[i];
        bool below = r->namespaced && !all;
        char url[URL_MAX], name[128];
        struct answer answer;
        (void)snprintf(url, sizeof url, "%s/%s%s%s/%s", l->access.server, r->group, below ? "/namespaces/" : "",
                       below ? namespace : "", r->plural);
        rv = list(l, url, &answer, err);
        if (rv == 1 && r->needed)
            rv = hf_fail(err, HF_EPERM, "%s: this account may not list %s", url, r->plural);
        if (rv == 1 && left < cap)
            left += (size_t)snprintf(left_out + left, cap - left, "%s%s", left > 0 ? ", " : "", r->plural);
        if (rv != 0)
            continue;
        (void)snprintf(name, sizeof name, "cluster/%s", r->plural);
        rv = hf_kube_set_add(s, name, answer.text, answer.len, err);
    }
    return rv < 0 ? rv : 0;
}

int hf_kube_api_load(struct hf_kube_set *s, const struct hf_kube_where *w, char *left_out, size_t cap,
                     struct hf_error *err)
{
    struct line l = {0};
    int rv = w->kubeconfig != NULL ? hf_kube_access_of_file(&l.access, w->kubeconfig, w->context, err)
                                   : hf_kube_access_of_pod(&l.access, err);

    if (rv == 0)
        rv = pick_up(&l, LOAD_MS, err);
    if (rv == 0)
        rv = load_all(s, &l, w->namespace[0] != '\0' ? w->namespace : l.access.namespace, left_out, cap, err);
    hang_up(&l);
    return rv;
}

/* -- a pod's one question ---------------------------------------------------------------------------- */

static int understand(const struct answer *a, const char *statefulset, struct hf_kube_scale *out, struct hf_error *err)
{
    json_int_t replicas = -1, first = 0;
    json_t *o, *gone;

    if (a->status != 200)
        return hf_fail(err, HF_EREFUSED, "status %ld for StatefulSet %s", a->status, statefulset);
    o = json_loads(a->text != NULL ? a->text : "", 0, NULL);
    gone = json_object_get(json_object_get(o, "metadata"), "deletionTimestamp");
    (void)json_unpack(o, "{s:{s:I}}", "spec", "replicas", &replicas);
    (void)json_unpack(o, "{s:{s:{s:I}}}", "spec", "ordinals", "start", &first);
    json_decref(o);
    if (gone != NULL)
        return hf_fail(err, HF_EREFUSED, "StatefulSet %s is being deleted itself", statefulset);
    if (replicas < 0 || replicas > INT_MAX || first < 0 || first > INT_MAX)
        return hf_fail(err, HF_EINVAL, "no replicas in its answer");
    *out = (struct hf_kube_scale){.first = (unsigned)first, .replicas = (unsigned)replicas};
    return 0;
}

int hf_kube_api_scale(const char *namespace, const char *statefulset, int timeout_ms, struct hf_kube_scale *out,
                      struct hf_error *err)
{
    struct line l = {0};
    struct answer answer = {0};
    char url[URL_MAX];
    int rv = hf_kube_access_of_pod(&l.access, err);

    if (rv == 0)
        rv = pick_up(&l, timeout_ms, err);
    if (rv == 0) {
        (void)snprintf(url, sizeof url, "%s/apis/apps/v1/namespaces/%s/statefulsets/%s", l.access.server, namespace,
                       statefulset);
        rv = ask(&l, url, &answer, err);
    }
    if (rv == 0)
        rv = understand(&answer, statefulset, out, err);
    if (rv != 0)
        hf_error_prefix(err, "Kubernetes' API");
    free(answer.text);
    hang_up(&l);
    return rv;
}
