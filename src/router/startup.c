/* A session's first packets: encryption, who comes in, and the startup packet itself. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>

#include "router/asker.h"
#include "router/login.h"
#include "router/session.h"

enum {
    NEGOTIATIONS_MAX = 2, /* one each for TLS and GSSAPI, as in PostgreSQL */
    PENDING_MIN = 64,     /* connections that have no place yet, or no more: beside half as many as have one */
    WORDLESS_MIN = 64,    /* so many above that are told why not; more are just closed */
};

static void refuse_full(struct hf_session *s)
{
    hf_session_refused(s, HF_REFUSED_FULL);
    hf_session_refuse(s, "53300", "sorry, too many clients already",
                      "Raise --max-clients, or use fewer connections.");
}

/* False: there was none, and it has been refused. */
static bool take_place(struct hf_session *s)
{
    if (s->admitted)
        return true; /* when its front asked for the role */
    hf_session_admit(s, true);
    if (atomic_load(&s->t->r->n_admitted) <= s->t->r->max_clients)
        return true;
    refuse_full(s);
    return false;
}

/* Is it one of those who may come in? Else it has been refused. A place is taken. */
static bool let_in(struct hf_session *s)
{
    struct hf_router *r = s->t->r;
    struct sockaddr_storage from;
    socklen_t len = sizeof from;

    if (!s->from_tunnel && r->allow.n > 0 &&
        (getpeername(s->front->fd, (struct sockaddr *)&from, &len) != 0 ||
         !hf_allow_has(&r->allow, (struct sockaddr *)&from))) {
        hf_session_refused(s, HF_REFUSED_NETWORK);
        hf_session_refuse(s, "28000", "connections from this address are not allowed",
                          "The node's --allow names the networks that clients may come from.");
        return false;
    }
    if (s->cancel)
        return true;
    if (s->tls == NULL && r->tls_mode == HF_ROUTER_TLS_REQUIRED && !s->from_tunnel) {
        hf_session_refused(s, HF_REFUSED_PLAIN);
        hf_session_refuse(s, "28000", "this node takes connections from clients through TLS only",
                          "Connect with sslmode=require or stronger.");
        return false;
    }
    return take_place(s);
}

static void copy_value(const struct hf_session *s, const char *name, char out[HF_WHO_MAX])
{
    const char *value = hf_startup_value(s->first, s->first_len, name);

    (void)snprintf(out, HF_WHO_MAX, "%s", value != NULL ? value : "");
}

/* False: out of memory, and the session is over. */
static bool remember_who(struct hf_session *s)
{
    s->who = calloc(1, sizeof *s->who);
    if (s->who == NULL) {
        hf_session_refuse(s, "53200", "out of memory", NULL);
        return false;
    }
    copy_value(s, "user", s->who->user);
    copy_value(s, "database", s->who->database);
    copy_value(s, "application_name", s->who->application);
    if (s->who->database[0] == '\0') /* PostgreSQL's default */
        memcpy(s->who->database, s->who->user, HF_WHO_MAX);
    return true;
}

static void started(struct hf_session *s, enum hf_startup_kind kind)
{
    s->cancel = kind == HF_STARTUP_CANCEL;
    if (!let_in(s) || (!s->cancel && (!remember_who(s) || !hf_reads_begin(s))))
        return;
    if (s->read_only && !s->from_tunnel && !s->cancel) {
        /* Also for a standby, where it changes nothing: it may be the leader by the time. */
        size_t n = hf_startup_read_only(s->first, s->first_len, HF_STARTUP_MAX);
        if (n == 0) {
            hf_session_refuse(s, "08P01", "startup packet too long", NULL);
            return;
        }
        s->first_len = n;
    }
    if (!s->from_tunnel && !s->cancel) {
        uint8_t *less = realloc(s->first, s->first_len); /* it stays, for as long as a server may have to be told it */
        if (less != NULL)
            s->first = less;
        if (!hf_login_begin(s))
            return;
    }
    hf_session_hold(s);
    s->since_ms = uv_now(&s->t->loop);
    hf_session_seek(s);
}

/* Another node's front wants to know a role's verifier, before it sends a startup packet. It has taken the session's place. */
static void asked(struct hf_session *s, const struct hf_startup *p)
{
    char name[HF_ROLE_MAX];

    if (!s->from_tunnel) {
        hf_session_refused(s, HF_REFUSED_STARTUP);
        hf_session_refuse(s, "0A000", "unsupported frontend protocol: version 3 is needed", NULL);
        return;
    }
    if (!take_place(s))
        return;
    (void)snprintf(name, sizeof name, "%s", (const char *)p->key);
    hf_login_ask_for(s, name);
}

/* The startup packet that comes next is read through TLS, and nothing that came before it: read_more() takes no
 * byte more than the request has, so what somebody in between has put behind it ends the handshake. */
static bool begin_tls(struct hf_session *s)
{
    if (send(s->front->fd, "S", 1, MSG_NOSIGNAL) == 1)
        s->tls = hf_client_tls_accept(&s->t->r->tls, s->front->fd);
    if (s->tls != NULL)
        atomic_fetch_add(&s->t->r->n_tls, 1);
    else
        hf_session_close(s);
    return s->tls != NULL;
}

/* False: the session is over. */
static bool answer_negotiation(struct hf_session *s, enum hf_startup_kind kind)
{
    s->first_len = 0;
    if (++s->negotiated > NEGOTIATIONS_MAX || s->tls != NULL) {
        hf_session_refuse(s, "08P01", "too many requests for encryption", NULL);
        return false;
    }
    if (kind == HF_STARTUP_TLS && s->t->r->tls_mode != HF_ROUTER_TLS_OFF && !s->from_tunnel)
        return begin_tls(s);
    if (send(s->front->fd, "N", 1, MSG_NOSIGNAL) != 1) {
        hf_session_close(s);
        return false;
    }
    return true;
}

/* 1: done or none, 0: not yet, -1: the session is over. */
static int shake(struct hf_session *s)
{
    int rv = hf_front_is_shaking(s) ? hf_front_shake(s) : 1;

    if (rv < 0) {
        hf_session_refused(s, HF_REFUSED_TLS);
        hf_session_close(s);
    } else if (rv == 0)
        hf_end_want(s->front, s->tls_wants_write ? UV_WRITABLE : UV_READABLE);
    return rv;
}

/* 1: more has come, 0: nothing now, -1: the session is over. */
static int read_more(struct hf_session *s)
{
    size_t need = hf_startup_need(s->first, s->first_len);
    int shaken = shake(s);
    ssize_t n;

    if (shaken <= 0 || s->first_len >= need)
        return shaken;
    n = hf_front_read(s, s->first + s->first_len, need - s->first_len);
    if (n == 0) {
        hf_end_want(s->front, hf_front_events(s, UV_READABLE));
        return 0;
    }
    if (n < 0) {
        hf_session_close(s);
        return -1;
    }
    s->first_len += (size_t)n;
    return 1;
}

void hf_startup_read(struct hf_session *s)
{
    while (read_more(s) > 0) {
        struct hf_startup p = hf_startup_parse(s->first, s->first_len);
        switch (p.kind) {
        case HF_STARTUP_MORE:
            continue;
        case HF_STARTUP_TLS:
        case HF_STARTUP_GSS:
            if (!answer_negotiation(s, p.kind))
                return;
            continue;
        case HF_STARTUP_BAD:
            hf_session_refused(s, HF_REFUSED_STARTUP);
            hf_session_refuse(s, p.sqlstate, p.text, p.hint);
            return;
        case HF_STARTUP_ASK:
            asked(s, &p);
            return;
        default:
            started(s, p.kind);
            return;
        }
    }
}

/* Those without a place are bounded too: else slow clients, or many refused ones, would take all descriptors. */
void hf_startup_begin(struct hf_session *s)
{
    struct hf_router *r = s->t->r;
    unsigned all = atomic_load(&r->n_sessions), admitted = atomic_load(&r->n_admitted);
    unsigned pending = all > admitted ? all - admitted : 0, most = r->max_clients / 2 + PENDING_MIN;

    if (pending <= most) {
        hf_startup_read(s);
    } else if (pending <= most + WORDLESS_MIN) {
        refuse_full(s);
    } else {
        hf_session_refused(s, HF_REFUSED_FULL);
        hf_session_close(s);
    }
}
