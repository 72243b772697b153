#include "router/login.h"

#include <assert.h>
#include <netinet/in.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>

#include <openssl/crypto.h>
#include <openssl/hmac.h>

#include "base/clock.h"
#include "base/log.h"
#include "router/login_private.h"
#include "router/session.h"
#include "router/share.h"

enum {
    OWN_COPY_MS = 1000, /* the leader's node cannot be reached: then a reader is checked against what the standby here has */
    AGAIN_MS = 100,     /* an answer that did not count */
};

static uint64_t now_ms(const struct hf_session *s)
{
    return uv_now(&s->t->loop);
}

static void role_of(const struct hf_session *s, char out[HF_ROLE_MAX])
{
    (void)snprintf(out, HF_ROLE_MAX, "%s", hf_startup_value(s->first, s->first_len, "user"));
}

/* Of address and role; for IPv6 the network, of which a host may have all addresses. */
static uint64_t failures_key(const struct hf_session *s)
{
    uint8_t text[16 + HF_ROLE_MAX] = {0}, mac[HF_SCRAM_KEY];
    struct sockaddr_storage from = {0};
    socklen_t len = sizeof from;
    uint64_t key;

    if (getpeername(s->front->fd, (struct sockaddr *)&from, &len) == 0 && from.ss_family == AF_INET6) {
        const struct sockaddr_in6 *in6 = (const struct sockaddr_in6 *)&from;
        memcpy(text, &in6->sin6_addr, IN6_IS_ADDR_V4MAPPED(&in6->sin6_addr) ? 16 : 8);
    } else if (from.ss_family == AF_INET) {
        memcpy(text, &((const struct sockaddr_in *)&from)->sin_addr, 4);
    }
    role_of(s, (char *)text + 16);
    if (HMAC(EVP_sha256(), s->t->r->failures_secret, HF_SCRAM_KEY, text, sizeof text, mac, NULL) == NULL)
        abort(); /* out of memory */
    memcpy(&key, mac, sizeof key);
    return key | 1;
}

bool hf_login_begin(struct hf_session *s)
{
    s->login = calloc(1, sizeof *s->login);
    if (s->login == NULL)
        hf_session_refuse(s, "53200", "out of memory", NULL);
    return s->login != NULL;
}

void hf_login_free(struct hf_session *s)
{
    if (s->login == NULL)
        return;
    if (s->login->proof_waits) { /* its turn is for somebody else */
        uv_mutex_lock(&s->t->r->failures_lock);
        hf_failures_leave(&s->t->r->failures, failures_key(s), now_ms(s));
        uv_mutex_unlock(&s->t->r->failures_lock);
    }
    OPENSSL_cleanse(s->login, sizeof *s->login);
    free(s->login);
    s->login = NULL;
}

bool hf_login_is_wanted(const struct hf_session *s)
{
    return s->login != NULL && !s->authenticated;
}

/* -- the question ------------------------------------------------------------------------------ */

void hf_question_drop(struct hf_question *q)
{
    if (q == NULL)
        return;
    q->s = NULL;
    atomic_store(&q->dropped, true);
}

static void ask_here(struct hf_session *s, const char *name, uint64_t opening)
{
    struct hf_question *q = calloc(1, sizeof *q);

    if (q == NULL) {
        hf_session_refuse(s, "53200", "out of memory", NULL);
        return;
    }
    *q = (struct hf_question){.t = s->t, .s = s, .opening = opening};
    (void)snprintf(q->name, sizeof q->name, "%s", name);
    s->question = q;
    hf_session_await(s, HF_SESSION_ASKING);
    hf_end_want(s->front, UV_DISCONNECT);
    hf_asker_ask(s->t->r->asker, q);
}

void hf_login_seek(struct hf_session *s)
{
    struct hf_router *r = s->t->r;
    uint64_t opening = atomic_load(&r->opening);
    int leader = atomic_load(&r->leader);
    /* That an answer is slow is no reason: somebody who wants to log in with an older password could see to that. */
    bool late = leader == HF_LEADER_UNKNOWN || (s->login->not_dialed && now_ms(s) - s->since_ms >= OWN_COPY_MS);
    char role[HF_ROLE_MAX];

    role_of(s, role);
    if (opening != 0 && !atomic_load(&r->draining)) {
        ask_here(s, role, opening);
    } else if (s->read_only && late && atomic_load(&r->readable)) {
        ask_here(s, role, 0);
    } else if (leader == HF_LEADER_ELSEWHERE) {
        hf_session_dial(s, HF_TO_LEADER, 0);
    }
}

void hf_login_dialed(struct hf_session *s)
{
    uint8_t packet[8 + HF_ROLE_MAX];
    char role[HF_ROLE_MAX];
    size_t n;

    role_of(s, role);
    n = hf_wire_ask(packet, role);
    s->login->in_len = 0;
    if (hf_fd_write(s->back->fd, packet, n) != (ssize_t)n) {
        hf_session_hold(s);
        return;
    }
    hf_session_await(s, HF_SESSION_ASKING);
    hf_end_want(s->front, UV_DISCONNECT);
    hf_end_want(s->back, UV_READABLE);
}

void hf_login_ask_for(struct hf_session *s, const char *name)
{
    uint64_t opening = atomic_load(&s->t->r->opening);

    if (opening == 0 || s->read_only)
        hf_session_close(s); /* the other node looks for the leader again */
    else
        ask_here(s, name, opening);
}

/* -- the answer -------------------------------------------------------------------------------- */

/* What a leader said counts only if, looked at after it was said, the gate is open as it was then and the lease lasts: else
 * another leader may know a newer password. */
static bool counts(const struct hf_router *r, const struct hf_question *q)
{
    if (!q->answered)
        return false;
    if (q->opening == 0)
        return atomic_load(&r->readable);
    return atomic_load(&r->opening) == q->opening && atomic_load(&r->hold) == 0 && !atomic_load(&r->unfurnished) &&
           hf_clock_ns() < atomic_load(&r->lease_deadline_ns);
}

/* To another node's front, which sends the session's startup packet next. */
static void reply(struct hf_session *s, const struct hf_role *role)
{
    uint8_t out[HF_LOGIN_HEAD + 13 + HF_SCRAM_VERIFIER_MAX];
    size_t n = hf_wire_answer(out, (char)role->kind, role->server_version, role->stamp, role->verifier);
    bool sent = hf_front_write(s, out, n) == (ssize_t)n;

    OPENSSL_cleanse(out, sizeof out);
    if (!sent) {
        hf_session_close(s);
        return;
    }
    hf_session_await(s, HF_SESSION_STARTUP);
    s->first_len = 0;
    s->since_ms = now_ms(s);
    hf_startup_read(s);
}

static void exchange_begin(struct hf_session *s);

static void hold_a_while(struct hf_session *s)
{
    hf_session_hold(s);
    s->retry_ms = now_ms(s) + AGAIN_MS;
}

void hf_login_answered(void *question)
{
    struct hf_question *q = question;
    struct hf_session *s = q->s;

    if (s != NULL) {
        assert(s->state == HF_SESSION_ASKING && s->question == q);
        s->question = NULL;
        uv_update_time(&s->t->loop);
        if (counts(s->t->r, q)) {
            if (s->from_tunnel) {
                reply(s, &q->role);
            } else {
                s->login->role = q->role;
                s->login->own_copy = q->opening == 0;
                exchange_begin(s);
            }
        } else if (s->from_tunnel) {
            hf_session_close(s);
        } else {
            hold_a_while(s);
        }
    }
    OPENSSL_cleanse(q, sizeof *q);
    free(q);
}

/* The leader's node speaks. */
static void hear_answer(struct hf_session *s)
{
    struct hf_login *l = s->login;
    char sqlstate[6], kind;
    size_t need = HF_LOGIN_HEAD;
    int rv = hf_login_fill(s, HF_LOGIN_HEAD);

    if (rv > 0) {
        need = hf_wire_length(l->in);
        rv = need < HF_LOGIN_HEAD || need > HF_LOGIN_IN_MAX ? -1 : hf_login_fill(s, need);
    }
    if (rv == 0)
        return;
    if (rv > 0 && hf_wire_answer_parse(l->in, need, &kind, &l->role.server_version, &l->role.stamp, l->role.verifier,
                                       sizeof l->role.verifier)) {
        l->role.kind = (enum hf_role_kind)kind;
        l->own_copy = false;
        exchange_begin(s);
    } else if (rv > 0 && l->in[0] == 'E' && hf_wire_sqlstate(l->in + HF_LOGIN_HEAD, need - HF_LOGIN_HEAD, sqlstate) &&
               strcmp(sqlstate, "53300") == 0) {
        hf_session_refused(s, HF_REFUSED_FULL);
        hf_session_refuse(s, "53300", "sorry, too many clients already",
                          "Raise --max-clients of the leader's node, or use fewer connections.");
    } else {
        hold_a_while(s);
    }
}

/* -- the exchange with the client -------------------------------------------------------------- */

static void exchange_begin(struct hf_session *s)
{
    struct hf_login *l = s->login;
    uint8_t *out = s->t->scratch, hash[HF_SCRAM_BINDING_MAX];
    struct hf_scram_verifier v;
    size_t bound = s->tls != NULL ? hf_client_tls_binding(s->tls, hash) : 0, n;

    if (!hf_scram_verifier_parse(&v, l->role.verifier)) { /* of another node's making */
        hf_session_refuse(s, "XX000", "the leader's node tells no verifier", NULL);
        return;
    }
    l->known = true;
    l->in_len = 0;
    n = hf_wire_negotiate(out, s->first, s->first_len, l->role.server_version >= 180000 ? 2 : 0);
    n += hf_sasl_begin(&l->sasl, &v, l->role.kind != HF_ROLE_SCRAM, bound > 0 ? hash : NULL, bound, out + n);
    OPENSSL_cleanse(&v, sizeof v);
    OPENSSL_cleanse(l->role.verifier, sizeof l->role.verifier);
    if (hf_front_write(s, out, n) != (ssize_t)n) {
        hf_session_close(s);
        return;
    }
    hf_session_count(s, 0, n);
    if (s->read_only) { /* goes to a follower then: the leader's place is for others */
        hf_end_close(s->back);
        s->back = NULL;
    }
    hf_end_want(s->back, 0);
    hf_session_await(s, HF_SESSION_SASL);
    s->since_ms = now_ms(s);
    hf_login_event(s);
}

static const char *reason(const struct hf_login *l)
{
    switch (l->role.kind) {
    case HF_ROLE_UNKNOWN:
        return "there is no such role";
    case HF_ROLE_NO_PASSWORD:
        return "the role has no password (hint: ALTER ROLE ... PASSWORD)";
    case HF_ROLE_MD5:
        return "the role's password is kept as md5, with which the router cannot log in (hint: set it again with "
               "password_encryption = 'scram-sha-256')";
    case HF_ROLE_ODD:
        return "the role's password is kept in a way that is not understood (hint: set it again with "
               "password_encryption = 'scram-sha-256')";
    default:
        return "wrong password";
    }
}

/* Clients are told the same for all reasons, so that nobody learns which roles there are. */
static void wrong(struct hf_session *s)
{
    struct hf_router *r = s->t->r;
    char role[HF_ROLE_MAX], text[HF_ROLE_MAX + 64];

    role_of(s, role);
    uv_mutex_lock(&r->failures_lock);
    hf_failures_wrong(&r->failures, failures_key(s), now_ms(s));
    uv_mutex_unlock(&r->failures_lock);
    hf_session_refused(s, HF_REFUSED_PASSWORD);
    (void)snprintf(text, sizeof text, "password authentication failed for user \"%s\"", role);
    hf_wire_printable(role);
    hf_info("router: login of role \"%s\" refused: %s", role, reason(s->login));
    hf_session_refuse(s, "28P01", text, NULL);
}

/* The client is who it says. */
static void right(struct hf_session *s)
{
    struct hf_router *r = s->t->r;

    s->keys = s->login->sasl.scram.keys;
    s->authenticated = true;
    hf_sasl_wipe(&s->login->sasl);
    s->login->in_len = 0;
    uv_mutex_lock(&r->failures_lock);
    hf_failures_right(&r->failures, failures_key(s));
    uv_mutex_unlock(&r->failures_lock);
    s->since_ms = now_ms(s);
    s->stamp = s->login->own_copy ? 0 : s->login->role.stamp; /* what a standby knows may be old */
    if (hf_share_begin(s))
        return;
    if (s->back != NULL && !s->read_only && s->leader_epoch == atomic_load(&r->leader_epoch)) {
        hf_session_begin_pipe(s, HF_KIND_TUNNEL);
        return;
    }
    hf_session_hold(s);
    hf_session_seek(s);
}

/* A complete message is in `in`. */
static void hear_client(struct hf_session *s)
{
    struct hf_login *l = s->login;
    uint8_t out[HF_SASL_OUT_MAX];
    char nonce[HF_SCRAM_NONCE + 1];
    enum hf_scram_verdict v;
    size_t n;

    hf_login_nonce(nonce);
    v = hf_sasl_hear(&l->sasl, l->in, l->in_len, nonce, out, &n);
    OPENSSL_cleanse(l->in, l->in_len);
    l->in_len = 0;
    if (n > 0 && hf_front_write(s, out, n) != (ssize_t)n) {
        hf_session_close(s);
        return;
    }
    hf_session_count(s, 0, n);
    if (v == HF_SCRAM_RIGHT) {
        right(s);
    } else if (v == HF_SCRAM_WRONG) {
        wrong(s);
    } else if (v == HF_SCRAM_BAD) {
        hf_session_refused(s, HF_REFUSED_PASSWORD);
        hf_session_refuse(s, l->sasl.scram.sqlstate, l->sasl.scram.text, NULL);
    }
}

/* Whoever has failed often waits for its turn, also if this proof should be right: else many tries at once would tell.
 * True: it may be looked at now. */
static bool may_look(struct hf_session *s)
{
    struct hf_router *r = s->t->r;
    int64_t wait;

    uv_mutex_lock(&r->failures_lock);
    wait = hf_failures_wait(&r->failures, failures_key(s), now_ms(s));
    uv_mutex_unlock(&r->failures_lock);
    if (wait < 0) {
        hf_session_refused(s, HF_REFUSED_PASSWORD);
        hf_session_refuse(s, "53300", "too many failed logins as this role from this address", "Try again later.");
    } else if (wait > 0) {
        s->login->proof_waits = true;
        s->login->proof_at_ms = now_ms(s) + (uint64_t)wait;
        hf_end_want(s->front, UV_DISCONNECT);
    }
    return wait == 0;
}

static void exchange_read(struct hf_session *s)
{
    struct hf_login *l = s->login;

    while (s->state == HF_SESSION_SASL && !l->proof_waits) {
        size_t need = hf_sasl_need(l->in, l->in_len);
        ssize_t n;
        if (need == 0) {
            hf_session_refused(s, HF_REFUSED_PASSWORD);
            hf_session_refuse(s, "08P01", "expected a SASL response of bounded length", NULL);
            return;
        }
        if (l->in_len == need) {
            if (!hf_sasl_is_proof(&l->sasl) || may_look(s))
                hear_client(s);
            continue;
        }
        n = hf_front_read(s, l->in + l->in_len, need - l->in_len);
        if (n < 0) {
            hf_session_close(s);
            return;
        }
        if (n == 0) {
            hf_end_want(s->front, hf_front_events(s, UV_READABLE));
            return;
        }
        hf_session_count(s, (size_t)n, 0);
        l->in_len += (size_t)n;
    }
}

void hf_login_event(struct hf_session *s)
{
    if (s->state == HF_SESSION_SASL)
        exchange_read(s);
    else if (s->back != NULL) /* ASKING, elsewhere */
        hear_answer(s);
}

void hf_login_look(struct hf_session *s)
{
    struct hf_login *l = s->login;

    if (l == NULL)
        return;
    if (s->state == HF_SESSION_SASL && l->proof_waits && now_ms(s) >= l->proof_at_ms) {
        l->proof_waits = false;
        hear_client(s);
        if (s->state == HF_SESSION_SASL)
            exchange_read(s);
    }
}

void hf_login_not_dialed(struct hf_session *s)
{
    if (hf_login_is_wanted(s))
        s->login->not_dialed = true;
}
