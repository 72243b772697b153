#include "kube/access.h"

#include <openssl/crypto.h>
#include <openssl/evp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/file.h"
#include "kube/api.h"
#include "kube/tree.h"

enum { SECRET_MAX = 1024 * 1024 };

void hf_kube_access_forget(struct hf_kube_access *a)
{
    char *all[] = {a->server, a->namespace, a->token, a->ca, a->cert, a->key};

    for (unsigned i = 0; i < sizeof all / sizeof *all; i++) {
        if (all[i] != NULL)
            OPENSSL_cleanse(all[i], strlen(all[i]));
        free(all[i]);
    }
    *a = (struct hf_kube_access){0};
}

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

static int take_user(struct hf_kube_access *a, struct hf_yaml user, const char *config, struct hf_error *err)
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

static int take_config(struct hf_kube_access *a, struct hf_yaml root, const char *context, const char *config,
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

int hf_kube_access_of_file(struct hf_kube_access *a, const char *kubeconfig, const char *context, struct hf_error *err)
{
    struct hf_yaml_file f;
    char *text;
    size_t len;
    int rv = hf_file_read(kubeconfig, SECRET_MAX, &text, &len, err);

    if (rv == 0)
        rv = hf_yaml_parse(&f, kubeconfig, text, len, err);
    if (rv != 0)
        return rv;
    if (f.broken || f.n_docs == 0)
        rv = hf_fail(err, HF_ECORRUPT, "%s: not a kubeconfig: %s", kubeconfig, f.broken ? f.problem.text : "empty");
    else
        rv = take_config(a, hf_yaml_root(&f, 0), context, kubeconfig, err);
    hf_yaml_free(&f);
    return rv;
}

int hf_kube_access_of_pod(struct hf_kube_access *a, struct hf_error *err)
{
    const char *host = getenv("KUBERNETES_SERVICE_HOST"), *port = getenv("KUBERNETES_SERVICE_PORT");
    bool six = host != NULL && strchr(host, ':') != NULL;
    size_t len;
    int rv;

    if (host == NULL || host[0] == '\0')
        return hf_fail(err, HF_ENOENT, "this is no pod: KUBERNETES_SERVICE_HOST is not set (hint: --kubeconfig FILE)");
    if (asprintf(&a->server, "https://%s%s%s:%s", six ? "[" : "", host, six ? "]" : "",
                 port != NULL && port[0] != '\0' ? port : "443") < 0) {
        a->server = NULL;
        return hf_fail(err, HF_ENOMEM, "out of memory");
    }
    a->direct = true;
    if ((rv = hf_file_read(HF_KUBE_ACCOUNT "/token", SECRET_MAX, &a->token, &len, err)) != 0 ||
        (rv = hf_file_read(HF_KUBE_ACCOUNT "/ca.crt", SECRET_MAX, &a->ca, &len, err)) != 0 ||
        (rv = hf_file_read(HF_KUBE_ACCOUNT "/namespace", SECRET_MAX, &a->namespace, &len, err)) != 0)
        hf_error_prefix(err, "the pod's account (hint: automountServiceAccountToken: true, and a Role that may list)");
    return rv;
}
