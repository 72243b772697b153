/* Logging in to PostgreSQL with the keys that the client's proof has given: what it says up to AuthenticationOk, or its error,
 * is heard here. */
#include <stdlib.h>
#include <string.h>

#include <openssl/rand.h>

#include "base/log.h"
#include "router/login_private.h"
#include "router/session.h"
#include "router/share.h"
#include "router/survive.h"

enum { ERROR_KEPT = 512 /* of an error's beginning: where its SQLSTATE stands */ };

void hf_login_nonce(char out[HF_SCRAM_NONCE + 1])
{
    uint8_t random[18];

    if (RAND_bytes(random, sizeof random) != 1)
        abort(); /* a nonce that can be guessed is worse */
    hf_scram_nonce(random, out);
}

int hf_login_fill(struct hf_session *s, size_t need)
{
    struct hf_login *l = s->login;

    while (l->in_len < need) {
        ssize_t n = hf_end_read(s->back, l->in + l->in_len, need - l->in_len);
        if (n <= 0)
            return (int)n;
        l->in_len += (size_t)n;
    }
    return 1;
}

bool hf_login_is_under_way(const struct hf_session *s)
{
    return s->login != NULL && s->login->step != HF_LOGIN_THROUGH;
}

void hf_login_restart(struct hf_session *s)
{
    if (s->login == NULL && hf_survive_is_moving(s) && !hf_login_begin(s))
        return;
    if (s->login == NULL)
        return;
    s->login->step = HF_LOGIN_START;
    s->login->in_len = 0;
    s->login->skip = 0;
}

bool hf_login_resume(struct hf_session *s)
{
    if (!hf_login_begin(s))
        return false;
    s->login->step = HF_LOGIN_MAKING;
    hf_session_log_in(s, true);
    return true;
}

/* Something is wrong with the server: not the client's fault, and trying again would not help. */
static int distrust(struct hf_session *s, const char *why)
{
    hf_warn("router: a login was given up: PostgreSQL %s", why);
    hf_session_refuse(s, "28000", "the router cannot log in to PostgreSQL", "The node's log says why.");
    return -1;
}

static int send_back(struct hf_session *s, const uint8_t *p, size_t n)
{
    return hf_session_send_back(s, p, n) ? 0 : -1;
}

/* An AuthenticationSASL... 1: it is the client's, 0: answered, -1: over. */
static int hear_authentication(struct hf_session *s)
{
    struct hf_login *l = s->login;
    const uint8_t *body = l->in + HF_LOGIN_HEAD + 4;
    size_t n = l->in_len - HF_LOGIN_HEAD - 4;
    char nonce[HF_SCRAM_NONCE + 1], text[HF_SCRAM_MESSAGE_MAX];
    uint8_t out[HF_SASL_OUT_MAX + 16];
    uint32_t code = l->in_len >= HF_LOGIN_HEAD + 4 ? hf_scan_number(l->in + HF_LOGIN_HEAD) : UINT32_MAX;

    if (code == 10 && l->step == HF_LOGIN_START && hf_sasl_offers_scram(body, n)) {
        hf_login_nonce(nonce);
        hf_scram_client_first(&l->client, nonce, text);
        l->step = HF_LOGIN_FIRST;
        return send_back(s, out, hf_sasl_initial(text, out));
    }
    if (code == 11 && l->step == HF_LOGIN_FIRST && hf_scram_client_final(&l->client, &s->keys, (const char *)body, n, text)) {
        l->step = HF_LOGIN_FINAL;
        return send_back(s, out, hf_sasl_response(text, out));
    }
    if (code == 12 && l->step == HF_LOGIN_FINAL && hf_scram_client_check(&l->client, &s->keys, (const char *)body, n)) {
        l->step = HF_LOGIN_CHECKED;
        return 0;
    }
    if (code == 0 && l->step == HF_LOGIN_CHECKED)
        return 1;
    return distrust(s, code == 12 ? "does not know the role's verifier"
                                  : "asks for something else than SCRAM-SHA-256, or answers wrongly");
}

/* 1: it is the client's, -1: another server is tried. */
static int hear_error(struct hf_session *s)
{
    struct hf_login *l = s->login;
    char sqlstate[6] = "";

    (void)hf_wire_sqlstate(l->in + HF_LOGIN_HEAD, l->in_len - HF_LOGIN_HEAD, sqlstate);
    if (strncmp(sqlstate, "57P0", 4) == 0)
        return -1; /* starts, stops, or is no leader any more */
    if (strcmp(sqlstate, "53300") == 0 && hf_share_is_refused(s))
        return -1; /* waits */
    if (strcmp(sqlstate, "28P01") == 0 && (s->kind == HF_KIND_READER || s->far != 0) && !l->own_copy) {
        s->to_leader = true; /* a standby that has not heard of this password yet */
        return -1;
    }
    return 1;
}

/* How much of PostgreSQL's message is wanted, its head included. */
static size_t server_need(struct hf_login *l)
{
    size_t len = l->in_len >= HF_LOGIN_HEAD ? hf_wire_length(l->in) : HF_LOGIN_HEAD;

    return l->in[0] == 'E' && len > HF_LOGIN_HEAD + ERROR_KEPT ? HF_LOGIN_HEAD + ERROR_KEPT : len;
}

/* A message, or as much of it as is wanted. As hear_authentication(). */
static int hear_server(struct hf_session *s)
{
    if (s->login->step == HF_LOGIN_MAKING || (s->login->in[0] == 'E' && hf_survive_is_moving(s) && !hf_share_is_first(s)))
        return hf_survive_hear(s, s->login->in, s->login->in_len);
    switch (s->login->in[0]) {
    case 'R':
        return hear_authentication(s);
    case 'E':
        return hear_error(s);
    default:
        return distrust(s, "says something unexpected");
    }
}

/* Of the messages that the client must not see: what it speaks was agreed with it before, and a notice can wait. */
static int skip(struct hf_session *s)
{
    struct hf_login *l = s->login;

    while (l->skip > 0) {
        size_t most = l->skip < sizeof s->t->scratch ? (size_t)l->skip : sizeof s->t->scratch;
        ssize_t n = hf_end_read(s->back, s->t->scratch, most);
        if (n <= 0)
            return (int)n;
        l->skip -= (size_t)n;
    }
    return 1;
}

ssize_t hf_login_read(struct hf_session *s)
{
    struct hf_login *l = s->login;

    for (;;) {
        size_t need;
        int rv = skip(s);
        if (rv > 0)
            rv = hf_login_fill(s, HF_LOGIN_HEAD);
        if (rv <= 0)
            return rv;
        need = server_need(l);
        if (need < HF_LOGIN_HEAD)
            return distrust(s, "sends a message of impossible length");
        if (l->in[0] == 'v' || l->in[0] == 'N' ||
            (l->step == HF_LOGIN_MAKING && (need > HF_LOGIN_IN_MAX || hf_survive_is_dull(s, l->in[0])))) {
            l->skip = hf_wire_length(l->in) - HF_LOGIN_HEAD;
            l->in_len = 0;
            continue;
        }
        if (need > HF_LOGIN_IN_MAX)
            return distrust(s, "sends a message that is too long");
        rv = hf_login_fill(s, need);
        if (rv > 0)
            rv = hear_server(s);
        else if (rv == 0)
            return 0;
        if (rv < 0)
            return -1;
        if (rv > 0 && l->in[0] == 'E' && hf_share_is_first(s)) { /* it is not let in: what comes is for the client */
            hf_survive_free(s);
            rv = 1;
        } else if (rv > 0 && l->step == HF_LOGIN_MAKING) {
            hf_login_free(s);
            hf_session_log_in(s, false);
            return 0;
        }
        if (hf_survive_is_moving(s)) { /* nothing of this is the client's */
            l->skip = hf_wire_length(l->in) - l->in_len; /* the rest of a long error */
            if (rv > 0)
                l->step = HF_LOGIN_MAKING;
            l->in_len = 0;
            continue;
        }
        if (rv > 0) {
            memcpy(s->t->scratch, l->in, l->in_len);
            l->step = HF_LOGIN_THROUGH;
            return (ssize_t)l->in_len;
        }
        l->in_len = 0;
    }
}
