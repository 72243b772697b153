/* Files that change under a running node: certificates (a Secret's volume) and settings (a
 * ConfigMap's). Looked at now and then, on libuv's thread pool, since a file system may hang.
 * Kubernetes swaps a link, so what is read may be half old and half new: it is checked as a whole,
 * and taken only if it is good; what is in use stays in use until then. */
#include "node_private.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/log.h"

enum { LOOK_MS = 2000, WARN_DAYS = 30, DAY_S = 86400 };

struct hf_watch {
    struct hf_node *n;
    uv_timer_t timer;
    uv_work_t work;
    bool busy;
    uv_mutex_t lock; /* while it looks; guards: */
    bool closed;
    bool streams; /* as the control thread saw it */

    /* Certificates; on the pool's thread while busy. */
    uint64_t in_use, looked_at; /* fingerprints */
    bool good;
    int64_t seconds_left;
    struct hf_error why;

    int64_t warned_at_days;

    /* Fingerprint of the certificate that clients are shown, whose authority is nobody's business here. */
    uint64_t shown;
};

static void look_at_clients_certificate(struct hf_watch *w)
{
    const struct hf_node_config *c = w->n->config;
    uint64_t now = c->client_tls != HF_ROUTER_TLS_OFF ? hf_cert_fingerprint(c->client_tls_dir, false) : 0;
    struct hf_error err;

    if (now == 0 || now == w->shown)
        return;
    w->shown = now;
    if (hf_router_reload(w->n->router, c->client_tls_dir, &err) == 0)
        hf_info("certificates: clients are shown the new one in %s from now on", c->client_tls_dir);
    else
        hf_err("certificates: clients are shown the old one: %s", err.text);
}

static void look_at_certificates(struct hf_watch *w)
{
    const struct hf_node_config *c = w->n->config;
    uint64_t now = hf_cert_fingerprint(c->tls_dir, true);
    struct hf_cert_files f;
    X509 *cert;

    if (now == 0 || now == w->looked_at) /* 0: in the middle of a swap; looked at again */
        return;
    w->looked_at = now;
    w->good = hf_cert_check(c->tls_dir, c->name, &c->domains, &w->why) == 0 &&
              (now == w->in_use || hf_peer_reload(w->n->peer, c->tls_dir, &w->why) == 0);
    if (!w->good)
        return;
    hf_cert_files(c->tls_dir, &f);
    cert = hf_cert_read(f.crt, NULL);
    w->seconds_left = cert != NULL ? hf_cert_seconds_left(cert) : 0;
    X509_free(cert);
}

static void look(uv_work_t *work)
{
    struct hf_watch *w = work->data;

    uv_mutex_lock(&w->lock);
    if (!w->closed) {
        look_at_certificates(w);
        look_at_clients_certificate(w);
        hf_node_settings_look(w->n);
        if (w->streams)
            hf_node_leave_tidy(w->n);
    }
    uv_mutex_unlock(&w->lock);
}

static void warn_of_end(struct hf_watch *w, int64_t now_s)
{
    int64_t days = (w->n->certificate_end_s - now_s) / DAY_S;

    if (days >= WARN_DAYS || days == w->warned_at_days)
        return;
    w->warned_at_days = days;
    if (w->n->certificate_end_s <= now_s)
        hf_err(
            "certificates: the one in %s has expired: no new connection to other nodes is possible "
            "(hint: "
            "`holdfast certs rotate`, or your certificate manager; it is taken without a restart)",
            w->n->config->tls_dir);
    else
        hf_warn("certificates: the one in %s ends in %lld days (hint: `holdfast certs rotate`, or "
                "your certificate "
                "manager; it is taken without a restart)",
                w->n->config->tls_dir, (long long)days);
}

static void looked(uv_work_t *work, int status)
{
    struct hf_watch *w = work->data;
    int64_t now_s = (int64_t)time(NULL);

    w->busy = false;
    if (w->n->ending)
        return;
    hf_node_settings_tick(w->n);
    hf_node_leave_tick(w->n);
    if (status == 0 && w->looked_at != w->in_use) {
        if (w->good && w->in_use != 0)
            hf_info("certificates: those in %s are new; connections from now on use them",
                    w->n->config->tls_dir);
        else if (!w->good && w->why.text[0] != '\0')
            hf_err("certificates: new ones are refused, those before stay in use: %s", w->why.text);
        w->why.text[0] = '\0';
        if (w->good)
            w->in_use = w->looked_at;
    }
    if (w->good)
        w->n->certificate_end_s = now_s + w->seconds_left;
    w->good = false; /* said once */
    if (w->n->certificate_end_s != 0)
        warn_of_end(w, now_s);
}

static void timer_cb(uv_timer_t *timer)
{
    struct hf_watch *w = timer->data;

    if (w->busy || w->n->ending)
        return;
    w->streams = w->n->streaming;
    w->busy = uv_queue_work(&w->n->loop, &w->work, look, looked) == 0;
}

void hf_node_watch_close(struct hf_node *n)
{
    if (n->watch == NULL)
        return;
    if (n->agent != NULL)
        hf_pg_interrupt(hf_agent_pg(n->agent), true);
    uv_mutex_lock(&n->watch->lock);
    n->watch->closed = true;
    uv_mutex_unlock(&n->watch->lock);
}

int hf_node_watch(struct hf_node *n, struct hf_error *err)
{
    struct hf_watch *w = calloc(1, sizeof *w);

    if (w == NULL || uv_mutex_init(&w->lock) != 0)
        return hf_fail(err, HF_ENOMEM, "out of memory");
    w->n = n;
    n->watch = w;
    w->work.data = w->timer.data = w;
    w->warned_at_days = WARN_DAYS;
    /* What hf_peer_open() has read. If it has changed since, the first look finds that. */
    w->in_use = hf_cert_fingerprint(n->config->tls_dir, true);
    w->shown = hf_cert_fingerprint(n->config->client_tls_dir, false);
    (void)uv_timer_init(&n->loop, &w->timer);
    return uv_timer_start(&w->timer, timer_cb, 0, LOOK_MS) == 0 ? 0 : hf_fail(err, HF_EIO, "timer");
}
