#include "pod/api.h"

#include <ctype.h>
#include <errno.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <jansson.h>
#include <openssl/bio.h>
#include <openssl/err.h>
#include <openssl/ssl.h>

#include "base/clock.h"
#include "base/file.h"
#include "base/tls.h"

enum { TOKEN_MAX = 16 * 1024, ANSWER_MAX = 1024 * 1024 };

/* One exchange: a request, the answer until the server closes. */
struct exchange {
    SSL_CTX *ctx;
    BIO *bio;
    uint64_t end_ns;
    char *answer;
    size_t len;
};

/* Until the connection can go on, or time is up. */
static bool await(const struct exchange *x)
{
    uint64_t now = hf_clock_ns();
    struct pollfd p = {
        .events = BIO_should_read(x->bio) ? POLLIN : POLLOUT}; /* out: a connection is made, too */
    int fd = -1;

    if (!BIO_should_retry(x->bio) || now >= x->end_ns)
        return false;
    (void)BIO_get_fd(x->bio, &fd);
    p.fd = fd;
    /* While it resolves there is no descriptor yet: then poll() is a short nap. */
    return poll(&p, fd >= 0 ? 1 : 0, fd >= 0 ? (int)((x->end_ns - now) / 1000000u) + 1 : 10) >= 0 ||
           errno == EINTR;
}

static int connect_to(struct exchange *x, const char *ca, const char *host, const char *port,
                      struct hf_error *err)
{
    char target[512];
    SSL *ssl = NULL;

    x->ctx = SSL_CTX_new(TLS_client_method());
    if (x->ctx == NULL || SSL_CTX_set_min_proto_version(x->ctx, TLS1_2_VERSION) != 1 ||
        SSL_CTX_load_verify_locations(x->ctx, ca, NULL) != 1 ||
        (x->bio = BIO_new_ssl_connect(x->ctx)) == NULL)
        goto failed;
    SSL_CTX_set_verify(x->ctx, SSL_VERIFY_PEER, NULL);
    (void)BIO_get_ssl(x->bio, &ssl);
    SSL_set_verify(ssl, SSL_VERIFY_PEER, NULL);
    (void)SSL_set_mode(ssl, SSL_MODE_AUTO_RETRY);
    /* By address, as the variables have it, or by name. */
    if (X509_VERIFY_PARAM_set1_ip_asc(SSL_get0_param(ssl), host) != 1 &&
        (SSL_set1_host(ssl, host) != 1 || SSL_set_tlsext_host_name(ssl, host) != 1))
        goto failed;
    ERR_clear_error();
    (void)snprintf(target, sizeof target, strchr(host, ':') != NULL ? "[%s]:%s" : "%s:%s", host,
                   port);
    (void)BIO_set_conn_hostname(x->bio, target);
    (void)BIO_set_nbio(x->bio, 1);
    while (BIO_do_connect(x->bio) <= 0)
        if (!await(x))
            goto failed;
    return 0;
failed:
    if (hf_clock_ns() >= x->end_ns)
        return hf_fail(err, HF_ETIMEOUT, "Kubernetes' API: no connection to %s in time", host);
    return hf_cert_fail(err, "Kubernetes' API: cannot connect to", host);
}

static int exchange(struct exchange *x, const char *request, struct hf_error *err)
{
    size_t len = strlen(request), at = 0;
    int n;

    while (at < len) {
        n = BIO_write(x->bio, request + at, (int)(len - at));
        if (n > 0)
            at += (size_t)n;
        else if (!await(x))
            return hf_fail(err, HF_ETIMEOUT, "Kubernetes' API: takes no request");
    }
    x->answer = malloc(ANSWER_MAX + 1);
    if (x->answer == NULL)
        return hf_fail(err, HF_ENOMEM, "out of memory");
    while (x->len < ANSWER_MAX) {
        n = BIO_read(x->bio, x->answer + x->len, (int)(ANSWER_MAX - x->len));
        if (n > 0)
            x->len += (size_t)n;
        else if (!BIO_should_retry(x->bio))
            break; /* closed: HTTP/1.0 ends so */
        else if (!await(x))
            return hf_fail(err, HF_ETIMEOUT, "Kubernetes' API: does not answer");
    }
    x->answer[x->len] = '\0';
    return 0;
}

static int understand(const char *answer, const char *statefulset, struct hf_pod_scale *out,
                      struct hf_error *err)
{
    const char *body = strstr(answer, "\r\n\r\n");
    int status = 0, replicas = -1, first = 0;
    json_t *o, *gone;

    if (sscanf(answer, "HTTP/1.%*1d %d", &status) != 1 || body == NULL)
        return hf_fail(err, HF_EINVAL, "Kubernetes' API: its answer is no HTTP");
    if (status != 200)
        return hf_fail(err, HF_EREFUSED, "Kubernetes' API: status %d for StatefulSet %s", status,
                       statefulset);
    o = json_loads(body + 4, JSON_DISABLE_EOF_CHECK, NULL);
    gone = json_object_get(json_object_get(o, "metadata"), "deletionTimestamp");
    (void)json_unpack(o, "{s:{s:i}}", "spec", "replicas", &replicas);
    (void)json_unpack(o, "{s:{s:{s:i}}}", "spec", "ordinals", "start", &first);
    json_decref(o);
    if (gone != NULL)
        return hf_fail(err, HF_EREFUSED, "StatefulSet %s is being deleted itself", statefulset);
    if (replicas < 0 || first < 0)
        return hf_fail(err, HF_EINVAL, "Kubernetes' API: no replicas in its answer");
    *out = (struct hf_pod_scale){.first = (unsigned)first, .replicas = (unsigned)replicas};
    return 0;
}

int hf_pod_scale(const char *account, const char *namespace, const char *statefulset,
                 int timeout_ms, struct hf_pod_scale *out, struct hf_error *err)
{
    const char *host = getenv("KUBERNETES_SERVICE_HOST"), *port = getenv("KUBERNETES_SERVICE_PORT");
    struct exchange x = {.end_ns = hf_clock_ns() + (uint64_t)timeout_ms * 1000000u};
    char path[1024], ca[1024], *token = NULL, *request = NULL;
    size_t len;
    int rv;

    (void)snprintf(path, sizeof path, "%s/token", account);
    (void)snprintf(ca, sizeof ca, "%s/ca.crt", account);
    if (host == NULL || host[0] == '\0')
        return hf_fail(err, HF_ENOENT, "not in a pod");
    rv = hf_file_read(path, TOKEN_MAX, &token, &len, err);
    if (rv != 0)
        return rv;
    while (len > 0 && isspace((unsigned char)token[len - 1]))
        token[--len] = '\0';
    /* 1.0: the body comes as it is, and the connection's end is its end. */
    if (asprintf(&request,
                 "GET /apis/apps/v1/namespaces/%s/statefulsets/%s HTTP/1.0\r\nHost: "
                 "%s\r\nAuthorization: Bearer %s\r\n"
                 "Accept: application/json\r\nUser-Agent: holdfast\r\n\r\n",
                 namespace, statefulset, host, token) < 0) {
        request = NULL;
        rv = hf_fail(err, HF_ENOMEM, "out of memory");
    }
    if (rv == 0)
        rv = connect_to(&x, ca, host, port != NULL && port[0] != '\0' ? port : "443", err);
    if (rv == 0)
        rv = exchange(&x, request, err);
    if (rv == 0)
        rv = understand(x.answer, statefulset, out, err);
    BIO_free_all(x.bio);
    SSL_CTX_free(x.ctx);
    free(x.answer);
    free(request);
    OPENSSL_cleanse(token, len);
    free(token);
    ERR_clear_error();
    return rv;
}
