#include "kube/api.h"

#include <curl/curl.h>
#include <openssl/crypto.h>
#include <openssl/evp.h>
#include <stdlib.h>
#include <string.h>

#include "base/file.h"

enum { SECRET_MAX = 1024 * 1024, URL_MAX = 1024, TIMEOUT_S = 30 };

#define ACCOUNT "/var/run/secrets/kubernetes.io/serviceaccount"

/* What a kubeconfig, or a pod's account, says. All owned. */
struct access {
    char *server, *namespace, *token, *ca, *cert, *key, *name;
    bool insecure;
};

static void forget(struct access *a)
{
    char *all[] = {a->server, a->namespace, a->token, a->ca, a->cert, a->key, a->name};

    for (unsigned i = 0; i < sizeof all / sizeof *all; i++) {
        if (all[i] != NULL)
            OPENSSL_cleanse(all[i], strlen(all[i]));
        free(all[i]);
    }
    *a = (struct access){0};
}

/* -- kubeconfig -------------------------------------------------------------------------------------- */

/* The item of that name in clusters, users or contexts. */
static struct hf_yaml by_name(struct hf_yaml root, const char *list, const char *name)
{
    struct hf_yaml l = hf_yaml_get(root, list);

    for (size_t i = 0; name != NULL && i < hf_yaml_count(l); i++)
        if (hf_yaml_equals(hf_yaml_get(hf_yaml_item(l, i), "name"), name))
            return hf_yaml_item(l, i);
    return (struct hf_yaml){NULL, NULL, NULL};
}

static char *decode(const char *coded)
{
    size_t len = strlen(coded);
    char *text = len <= SECRET_MAX ? malloc(len + 4) : NULL;
    int n = text != NULL ? EVP_DecodeBlock((unsigned char *)text, (const unsigned char *)coded, (int)len) : -1;

    if (n < 0) {
        free(text);
        return NULL;
    }
    text[n] = '\0';
    return text;
}

/* `key`-data: base64 in the file; `key`: a file beside it. Neither: *out stays NULL. */
static int take_blob(char **out, struct hf_yaml map, const char *key, const char *config, struct hf_error *err)
{
    char name[64], path[4096];
    const char *data, *file, *slash = strrchr(config, '/');
    size_t len;

    (void)snprintf(name, sizeof name, "%s-data", key);
    data = hf_yaml_text(hf_yaml_get(map, name));
    file = hf_yaml_text(hf_yaml_get(map, key));
    if (data != NULL) {
        *out = decode(data);
        return *out != NULL ? 0 : hf_fail(err, HF_ECORRUPT, "%s: %s is not base64", config, name);
    }
    if (file == NULL)
        return 0;
    (void)snprintf(path, sizeof path, "%.*s%s", file[0] == '/' || slash == NULL ? 0 : (int)(slash + 1 - config), config,
                   file);
    return hf_file_read(path, SECRET_MAX, out, &len, err);
}

static int take_user(struct access *a, struct hf_yaml user, const char *config, struct hf_error *err)
{
    const char *token = hf_yaml_text(hf_yaml_get(user, "token")), *file = hf_yaml_text(hf_yaml_get(user, "tokenFile"));
    size_t len;
    int rv;

    if (token != NULL && (a->token = strdup(token)) == NULL)
        return hf_fail(err, HF_ENOMEM, "out of memory");
    if (token == NULL && file != NULL && (rv = hf_file_read(file, SECRET_MAX, &a->token, &len, err)) != 0)
        return rv;
    if ((rv = take_blob(&a->cert, user, "client-certificate", config, err)) != 0 ||
        (rv = take_blob(&a->key, user, "client-key", config, err)) != 0)
        return rv;
    if (a->token == NULL && a->cert == NULL)
        return hf_fail(err, HF_EINVAL,
                       "%s: neither a token nor a certificate (hint: for accounts by a program, `kubectl get ... -o json | "
                       "holdfast doctor -f -`)",
                       config);
    return 0;
}

static int take_config(struct access *a, struct hf_yaml root, const char *context, const char *config,
                       struct hf_error *err)
{
    struct hf_yaml c, cluster, user;
    const char *server, *space;

    if (context[0] == '\0')
        context = hf_yaml_text(hf_yaml_get(root, "current-context"));
    c = hf_yaml_get(by_name(root, "contexts", context), "context");
    cluster = hf_yaml_get(by_name(root, "clusters", hf_yaml_text(hf_yaml_get(c, "cluster"))), "cluster");
    user = hf_yaml_get(by_name(root, "users", hf_yaml_text(hf_yaml_get(c, "user"))), "user");
    server = hf_yaml_text(hf_yaml_get(cluster, "server"));
    if (server == NULL)
        return hf_fail(err, HF_EINVAL, "%s: no cluster for context %s", config, context != NULL ? context : "(none)");
    space = hf_yaml_text(hf_yaml_get(c, "namespace"));
    a->insecure = hf_yaml_bool(hf_yaml_get(cluster, "insecure-skip-tls-verify"), false);
    a->server = strdup(server);
    a->namespace = strdup(space != NULL ? space : "default");
    if (a->server == NULL || a->namespace == NULL)
        return hf_fail(err, HF_ENOMEM, "out of memory");
    if (take_blob(&a->ca, cluster, "certificate-authority", config, err) != 0)
        return HF_EINVAL;
    return take_user(a, user, config, err);
}

static int from_file(struct access *a, const struct hf_kube_where *w, struct hf_error *err)
{
    struct hf_yaml_file f;
    char *text;
    size_t len;
    int rv = hf_file_read(w->kubeconfig, SECRET_MAX, &text, &len, err);

    if (rv == 0)
        rv = hf_yaml_parse(&f, w->kubeconfig, text, len, err);
    if (rv != 0)
        return rv;
    if (f.broken || f.n_docs == 0)
        rv = hf_fail(err, HF_ECORRUPT, "%s: not a kubeconfig: %s", w->kubeconfig, f.broken ? f.problem.text : "empty");
    else
        rv = take_config(a, hf_yaml_root(&f, 0), w->context, w->kubeconfig, err);
    hf_yaml_free(&f);
    return rv;
}

static int from_pod(struct access *a, struct hf_error *err)
{
    const char *host = getenv("KUBERNETES_SERVICE_HOST"), *port = getenv("KUBERNETES_SERVICE_PORT");
    bool six = host != NULL && strchr(host, ':') != NULL;
    size_t len;
    int rv;

    if (host == NULL || port == NULL)
        return hf_fail(err, HF_ENOENT, "this is no pod: KUBERNETES_SERVICE_HOST is not set (hint: --kubeconfig FILE)");
    if (asprintf(&a->server, "https://%s%s%s:%s", six ? "[" : "", host, six ? "]" : "", port) < 0) {
        a->server = NULL;
        return hf_fail(err, HF_ENOMEM, "out of memory");
    }
    if ((rv = hf_file_read(ACCOUNT "/token", SECRET_MAX, &a->token, &len, err)) != 0 ||
        (rv = hf_file_read(ACCOUNT "/ca.crt", SECRET_MAX, &a->ca, &len, err)) != 0 ||
        (rv = hf_file_read(ACCOUNT "/namespace", SECRET_MAX, &a->namespace, &len, err)) != 0)
        hf_error_prefix(err, "the pod's account (hint: automountServiceAccountToken: true, and a Role that may list)");
    return rv;
}

/* -- asking ------------------------------------------------------------------------------------------ */

struct answer {
    char *text;
    size_t len, room;
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

static CURL *open_curl(struct access *a, struct curl_slist **headers, char why[CURL_ERROR_SIZE])
{
    CURL *curl = curl_easy_init();
    CURLcode bad = CURLE_OK;
    char *line = NULL;

    if (curl == NULL)
        return NULL;
    *headers = curl_slist_append(NULL, "Accept: application/json");
    if (a->token != NULL) {
        a->token[strcspn(a->token, "\r\n")] = '\0';
        if (asprintf(&line, "Authorization: Bearer %s", a->token) >= 0) {
            *headers = curl_slist_append(*headers, line);
            OPENSSL_cleanse(line, strlen(line));
            free(line);
        }
    }
    bad |= curl_easy_setopt(curl, CURLOPT_HTTPHEADER, *headers);
    bad |= curl_easy_setopt(curl, CURLOPT_WRITEFUNCTION, take_bytes);
    bad |= curl_easy_setopt(curl, CURLOPT_ERRORBUFFER, why);
    bad |= curl_easy_setopt(curl, CURLOPT_TIMEOUT, (long)TIMEOUT_S);
    bad |= curl_easy_setopt(curl, CURLOPT_NOSIGNAL, 1L);
    bad |= curl_easy_setopt(curl, CURLOPT_PROTOCOLS_STR, "https,http");
    bad |= set_blob(curl, CURLOPT_CAINFO_BLOB, a->ca);
    bad |= set_blob(curl, CURLOPT_SSLCERT_BLOB, a->cert);
    bad |= set_blob(curl, CURLOPT_SSLKEY_BLOB, a->key);
    if (a->insecure) {
        bad |= curl_easy_setopt(curl, CURLOPT_SSL_VERIFYPEER, 0L);
        bad |= curl_easy_setopt(curl, CURLOPT_SSL_VERIFYHOST, 0L);
    }
    if (bad == CURLE_OK)
        return curl;
    curl_easy_cleanup(curl);
    curl_slist_free_all(*headers);
    return NULL;
}

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
static int ask(CURL *curl, const char *url, struct answer *out, const char *why, struct hf_error *err)
{
    CURLcode rv;
    long status = 0;

    *out = (struct answer){0};
    if (curl_easy_setopt(curl, CURLOPT_URL, url) != CURLE_OK ||
        curl_easy_setopt(curl, CURLOPT_WRITEDATA, out) != CURLE_OK)
        return hf_fail(err, HF_ENOMEM, "out of memory");
    rv = curl_easy_perform(curl);
    if (rv == CURLE_OK)
        (void)curl_easy_getinfo(curl, CURLINFO_RESPONSE_CODE, &status);
    if (rv == CURLE_OK && status == 200 && out->text != NULL)
        return 0;
    free(out->text);
    *out = (struct answer){0};
    if (rv != CURLE_OK)
        return hf_fail(err, HF_EIO, "%s: %s", url, why[0] != '\0' ? why : curl_easy_strerror(rv));
    if (status == 401)
        return hf_fail(err, HF_EPERM, "%s: 401: the API does not know this account (hint: an old token?)", url);
    return status == 403 || status == 404 ? 1 : hf_fail(err, HF_EIO, "%s: status %ld", url, status);
}

static int load_all(struct hf_kube_set *s, CURL *curl, const struct access *a, const char *namespace, char *left_out,
                    size_t cap, const char *why, struct hf_error *err)
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
        (void)snprintf(url, sizeof url, "%s/%s%s%s/%s", a->server, r->group, below ? "/namespaces/" : "",
                       below ? namespace : "", r->plural);
        rv = ask(curl, url, &answer, why, err);
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
    struct access a = {0};
    struct curl_slist *headers = NULL;
    char why[CURL_ERROR_SIZE] = "";
    CURL *curl;
    int rv = w->kubeconfig != NULL ? from_file(&a, w, err) : from_pod(&a, err);

    if (rv != 0) {
        forget(&a);
        return rv;
    }
    curl = open_curl(&a, &headers, why);
    if (curl == NULL) {
        rv = hf_fail(err, HF_EIO, "%s: cannot set up a connection: %s", a.server, why);
    } else {
        rv = load_all(s, curl, &a, w->namespace[0] != '\0' ? w->namespace : a.namespace, left_out, cap, why, err);
        curl_easy_cleanup(curl);
        curl_slist_free_all(headers);
    }
    forget(&a);
    return rv;
}
