#include "peer/pump.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/log.h"
#include "base/net.h"
#include "peer/conn.h"

static void *must(void *p)
{
    if (p == NULL)
        abort(); /* as in the mailbox: our own threads must hear from each other */
    return p;
}

/* -- to the control loop --------------------------------------------------------------------------------- */

struct note {
    struct hf_pumps *p;
    struct hf_dial dial;
    int status;
    char text[256];
    struct sockaddr_storage to;
    socklen_t to_len;
    bool wal_missing;
    enum hf_purpose purpose;
    struct hf_peer_identity from;
    struct hf_tunnel *tunnel;
    uint64_t tag;
    struct hf_wal_word word;
    size_t len;
    uint8_t bytes[HF_PAYLOAD_MAX];
};

static struct note *note(struct hf_pumps *p)
{
    struct note *n = must(calloc(1, sizeof *n));

    n->p = p;
    return n;
}

static void opened_run(void *arg)
{
    struct note *n = arg;

    if (!n->p->closing)
        n->dial.opened(n->dial.arg, n->status, n->text, (struct sockaddr *)&n->to, n->to_len);
    free(n);
}

void hf_pumps_tell_opened(struct conn *c, int status, const char *text)
{
    struct note *n = note(c->pump->owner);

    n->dial = c->dial;
    n->status = status;
    n->to = c->to;
    n->to_len = c->to_len;
    (void)snprintf(n->text, sizeof n->text, "%s", text != NULL ? text : "");
    hf_mailbox_post(n->p->control, opened_run, n);
}

static void closed_run(void *arg)
{
    struct note *n = arg;

    if (!n->p->closing && n->dial.closed != NULL)
        n->dial.closed(n->dial.arg, n->wal_missing);
    free(n);
}

static void wal_closed_run(void *arg)
{
    struct note *n = arg;

    if (!n->p->closing)
        n->p->callbacks.on_wal_closed(n->p->callbacks.ctx, n->from.id, n->tag);
    free(n);
}

void hf_pumps_tell_closed(struct conn *c)
{
    struct note *n;

    if (c->dialed && c->dial.closed != NULL) {
        n = note(c->pump->owner);
        n->dial = c->dial;
        n->wal_missing = c->watched && c->watch.wal_missing;
        hf_mailbox_post(n->p->control, closed_run, n);
    } else if (!c->dialed && c->watched) {
        n = note(c->pump->owner);
        n->from = c->from;
        n->tag = c->terms.tag;
        hf_mailbox_post(n->p->control, wal_closed_run, n);
    }
}

static void hello_run(void *arg)
{
    struct note *n = arg;

    if (!n->p->closing)
        n->p->callbacks.on_hello(n->p->callbacks.ctx, n->purpose, &n->from, n->bytes, n->len,
                                 n->tunnel);
    free(n);
}

void hf_pumps_tell_hello(struct conn *c, const void *payload, size_t len)
{
    struct note *n = note(c->pump->owner);

    n->purpose = c->purpose;
    n->from = c->from;
    n->tunnel = c->tunnel;
    n->len = len;
    memcpy(n->bytes, payload, len);
    hf_mailbox_post(n->p->control, hello_run, n);
}

static void token_run(void *arg)
{
    struct note *n = arg;

    if (!n->p->closing)
        n->p->callbacks.on_token(n->p->callbacks.ctx, n->bytes);
    free(n);
}

void hf_pumps_tell_token(struct hf_pumps *p, const uint8_t *token)
{
    struct note *n = note(p);

    memcpy(n->bytes, token, HF_DEATH_TOKEN_BYTES);
    hf_mailbox_post(p->control, token_run, n);
}

static void flushed_run(void *arg)
{
    struct note *n = arg;

    if (!n->p->closing)
        n->p->callbacks.on_flushed(n->p->callbacks.ctx, &n->word);
    free(n);
}

static void progress_run(void *arg)
{
    struct note *n = arg;

    if (!n->p->closing)
        n->dial.progress(n->dial.arg, n->word.flushed, n->word.applied);
    free(n);
}

void hf_pumps_tell_progress(struct conn *c)
{
    struct note *n;

    if (c->dial.progress == NULL)
        return;
    n = note(c->pump->owner);
    n->dial = c->dial;
    n->word.flushed = c->watch.end;
    n->word.applied = c->thin.seen;
    hf_mailbox_post(n->p->control, progress_run, n);
}

void hf_pumps_tell_flushed(struct conn *c)
{
    struct note *n;

    n = note(c->pump->owner);
    n->word = (struct hf_wal_word){.id = c->from.id,
                                   .tag = c->terms.tag,
                                   .timeline = c->watch.timeline,
                                   .torn = hf_conn_is_torn(c),
                                   .flushed = c->watch.flushed,
                                   .applied = c->watch.applied};
    hf_mailbox_post(n->p->control, flushed_run, n);
}

/* -- to a pump thread ------------------------------------------------------------------------------------ */

struct order {
    struct hf_pump *pump;
    struct conn *conn;
    struct hf_tunnel *tunnel;
    int fd;
    bool refuse, dialed;
    char text[HF_PAYLOAD_MAX];
    struct hf_wal_terms terms;
    enum hf_purpose purpose;
    struct cut *cut;
};

static void dial_run(void *arg)
{
    struct order *o = arg;

    hf_conn_dial(o->pump, o->conn);
    free(o);
}

void hf_pumps_dial(struct hf_pumps *p, const char *name, const char *addr, enum hf_purpose purpose,
                   const void *payload, size_t len, int fd, const struct hf_dial *d)
{
    struct conn *c = must(calloc(1, sizeof *c));
    struct order *o = must(calloc(1, sizeof *o));

    if (len > sizeof c->payload)
        abort();
    c->purpose = purpose;
    c->plain = fd;
    c->dial = *d;
    c->payload_len = len;
    if (len > 0)
        memcpy(c->payload, payload, len);
    (void)snprintf(c->name, sizeof c->name, "%s", name);
    (void)snprintf(c->addr, sizeof c->addr, "%s", addr);
    o->pump = &p->pumps[p->next++ % HF_PUMPS];
    o->conn = c;
    hf_mailbox_post(o->pump->mailbox, dial_run, o);
}

static void accept_run(void *arg)
{
    struct order *o = arg;

    hf_conn_accept(o->pump, o->fd);
    free(o);
}

static void arrived(void *ctx, int fd)
{
    struct hf_pumps *p = ctx;
    struct order *o = must(calloc(1, sizeof *o));

    o->pump = &p->pumps[p->arrivals++ % HF_PUMPS];
    o->fd = fd;
    hf_mailbox_post(o->pump->mailbox, accept_run, o);
}

static void answer_run(void *arg)
{
    struct order *o = arg;
    struct conn *c = o->tunnel->conn;

    if (c == NULL) {
        if (o->fd >= 0)
            close(o->fd);
    } else {
        c->tunnel = NULL;
        c->terms = o->terms;
        if (!o->refuse)
            (void)snprintf(c->member, sizeof c->member, "%.*s", HF_NAME_MAX - 1, o->text);
        hf_conn_answer(c, o->fd, o->refuse, o->refuse ? o->text : NULL);
    }
    free(o->tunnel);
    free(o);
}

void hf_tunnel_accept(struct hf_tunnel *t, int fd, const struct hf_wal_terms *terms)
{
    struct order *o = must(calloc(1, sizeof *o));

    o->tunnel = t;
    o->fd = fd;
    if (terms != NULL) {
        o->terms = *terms;
        (void)snprintf(o->text, sizeof o->text, "%s", terms->member != NULL ? terms->member : "");
        o->terms.member = NULL; /* it is in text */
    }
    hf_mailbox_post(t->pump->mailbox, answer_run, o);
}

void hf_tunnel_refuse(struct hf_tunnel *t, const char *text)
{
    struct order *o = must(calloc(1, sizeof *o));

    o->tunnel = t;
    o->fd = -1;
    o->refuse = true;
    (void)snprintf(o->text, sizeof o->text, "%s", text);
    hf_mailbox_post(t->pump->mailbox, answer_run, o);
}

/* Every pump answers; the last one's answer is the confirmation. */
struct cut {
    struct hf_pumps *p;
    unsigned left;
    void (*done)(void *);
    void *arg;
};

static void cut_done(void *arg)
{
    struct cut *cut = arg;

    if (--cut->left > 0)
        return;
    if (!cut->p->closing && cut->done != NULL)
        cut->done(cut->arg);
    free(cut);
}

static void cut_run(void *arg)
{
    struct order *o = arg;
    struct conn *c, *next;

    for (c = o->pump->conns; c != NULL; c = next) {
        next = c->next;
        if (c->purpose == o->purpose && c->dialed == o->dialed &&
            (c->dialed || c->state >= CONN_HOST))
            hf_conn_close(c, HF_ECLOSED, "cut");
    }
    hf_mailbox_post(o->cut->p->control, cut_done, o->cut);
    free(o);
}

void hf_pumps_cut(struct hf_pumps *p, enum hf_purpose purpose, bool dialed, void (*done)(void *),
                  void *arg)
{
    struct cut *cut = must(calloc(1, sizeof *cut));

    *cut = (struct cut){.p = p, .left = HF_PUMPS, .done = done, .arg = arg};
    for (int i = 0; i < HF_PUMPS; i++) {
        struct order *o = must(calloc(1, sizeof *o));
        o->pump = &p->pumps[i];
        o->purpose = purpose;
        o->dialed = dialed;
        o->cut = cut;
        hf_mailbox_post(o->pump->mailbox, cut_run, o);
    }
}

int hf_pumps_reload(struct hf_pumps *p, const char *tls_dir, struct hf_error *err)
{
    return hf_tls_reload(&p->tls, tls_dir, err);
}

/* -- life ------------------------------------------------------------------------------------------------ */

void hf_pumps_identify(struct hf_pumps *p, const struct hf_peer_identity *self)
{
    uv_mutex_lock(&p->mutex);
    p->self = *self;
    uv_mutex_unlock(&p->mutex);
}

static void pump_main(void *arg)
{
    struct hf_pump *pump = arg;

    (void)uv_run(&pump->loop, UV_RUN_DEFAULT);
}

static void listener_start(struct hf_pumps *p, struct hf_listener *l)
{
    if (l->fd >= 0 && hf_listener_start(l, &p->pumps[0].loop, l->fd, "peer", arrived, p) != 0)
        abort();
}

static void listener_stop(struct hf_listener *l)
{
    if (l->fd >= 0)
        hf_listener_stop(l, NULL);
}

static int listen_all(struct hf_pumps *p, const char *addr, struct hf_error *err)
{
    p->beside.fd = -1;
    p->tcp.fd = hf_net_listen(addr, err);
    if (p->tcp.fd < 0)
        return p->tcp.fd;
    if (p->local) {
        p->beside.fd = hf_net_listen_beside(addr, err);
        if (p->beside.fd < 0 && p->beside.fd != HF_ENOENT) {
            close(p->tcp.fd);
            return p->beside.fd;
        }
    }
    return 0;
}

static void stop_run(void *arg)
{
    struct hf_pump *pump = arg;

    pump->stopping = true;
    while (pump->conns != NULL)
        hf_conn_close(pump->conns, HF_ECLOSED, "the node ends");
    if (pump == &pump->owner->pumps[0]) {
        listener_stop(&pump->owner->tcp);
        listener_stop(&pump->owner->beside);
    }
    hf_mailbox_close(pump->mailbox);
}

int hf_pumps_open(struct hf_pumps **out, uv_loop_t *control, const struct hf_peer_config *config,
                  const struct hf_pumps_callbacks *callbacks, struct hf_error *err)
{
    struct hf_pumps *p = calloc(1, sizeof *p);
    int rv;

    if (p == NULL)
        return hf_fail(err, HF_ENOMEM, "peer: out of memory");
    p->callbacks = *callbacks;
    (void)snprintf(p->name, sizeof p->name, "%s", config->name);
    p->local = config->local;
    rv = hf_tls_open(&p->tls, config->tls_dir, config->domains, err);
    if (rv == 0) {
        rv = listen_all(p, config->listen, err);
    }
    if (rv != 0) {
        hf_tls_close(&p->tls);
        free(p);
        return rv;
    }
    p->resolver = must(hf_resolver_open());
    p->control = must(hf_mailbox_open(control));
    if (uv_mutex_init(&p->mutex) != 0)
        abort();
    for (int i = 0; i < HF_PUMPS; i++) {
        struct hf_pump *pump = &p->pumps[i];
        pump->owner = p;
        if (uv_loop_init(&pump->loop) != 0)
            abort();
        pump->mailbox = must(hf_mailbox_open(&pump->loop));
    }
    listener_start(p, &p->tcp);
    listener_start(p, &p->beside);
    for (int i = 0; i < HF_PUMPS; i++)
        if (uv_thread_create(&p->pumps[i].thread, pump_main, &p->pumps[i]) != 0)
            abort();
    *out = p;
    return 0;
}

void hf_pumps_close(struct hf_pumps *p)
{
    p->closing = true;
    hf_resolver_mute(p->resolver);
    /* One after the other: the first one listens, and posts what it accepts to the others, whose mailboxes must be
     * there as long as it runs. */
    for (int i = 0; i < HF_PUMPS; i++) {
        hf_mailbox_post(p->pumps[i].mailbox, stop_run, &p->pumps[i]);
        (void)uv_thread_join(&p->pumps[i].thread);
        (void)uv_loop_close(&p->pumps[i].loop);
    }
    hf_resolver_close(p->resolver);
    /* Last: a listener that is gone is what peers in the local runtime take as proof. */
    if (p->beside.fd >= 0)
        close(p->beside.fd);
    close(p->tcp.fd);
    hf_mailbox_close(p->control);
    hf_tls_close(&p->tls);
    uv_mutex_destroy(&p->mutex);
    free(p);
}
