/* From a session's first server to the loss of one. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <openssl/crypto.h>

#include "base/log.h"
#include "router/login.h"
#include "router/share.h"
#include "router/survive_private.h"

enum {
    TRIES_SOON = 10,  /* tries of hf_session_hold()'s pace */
    REFUSED_MS = 100, /* then, and after a new server has refused it */
};

static uint64_t now_ms(const struct hf_session *s)
{
    return uv_now(&s->t->loop);
}

/* -- begin and end ----------------------------------------------------------------------------- */

void hf_survive_begin(struct hf_session *s)
{
    hf_survive_free(s);
    hf_holds_free(s->holds);
    s->holds = NULL;
    if (!s->t->r->follow || s->from_tunnel || s->cancel || !s->authenticated || s->who == NULL)
        return;
    s->survive = calloc(1, sizeof *s->survive);
    if (s->survive != NULL)
        s->holds = hf_holds_new(s->t->sql, s->first, s->first_len);
    if (s->holds == NULL) {
        free(s->survive);
        s->survive = NULL;
        return;
    }
    s->dialogue.params = &s->survive->told;
}

void hf_survive_free(struct hf_session *s)
{
    struct hf_survive *v = s->survive;

    if (v == NULL)
        return;
    hf_key_remove(&s->t->r->keyring, v->alias);
    hf_params_clear(&v->told);
    hf_params_clear(&v->fresh);
    free(v->sent);
    free(v->more);
    free(v);
    s->survive = NULL;
    s->dialogue.params = NULL;
}

uint32_t hf_survive_pid(const struct hf_session *s)
{
    return s->survive != NULL ? s->survive->secret.pid : 0;
}

bool hf_survive_is_unknown(const struct hf_session *s)
{
    return s->survive != NULL && s->survive->untold == HF_DOING_COMMIT;
}

/* -- what goes by ------------------------------------------------------------------------------ */

/* Nothing that a gate has taken is of use any more once it is answered. */
static void drop_sent(struct hf_survive *v)
{
    free(v->sent);
    v->sent = NULL;
    v->sent_len = v->sent_cap = 0;
}

void hf_survive_server(struct hf_session *s, const uint8_t *p, size_t n)
{
    struct hf_survive *v = s->survive;
    size_t kept;

    if (v == NULL)
        return;
    hf_holds_server(s->holds, p, n);
    if (hf_holds_startup(s->holds, &kept) == NULL) {
        OPENSSL_cleanse(&s->keys, sizeof s->keys); /* pinned for good: it is not logged in a second time */
        drop_sent(v);
        v->sent_lost = true;
        return;
    }
    if (v->sent != NULL && hf_dialogue_is_idle(&s->dialogue))
        drop_sent(v);
}

void hf_survive_sending(struct hf_session *s, const uint8_t *p, size_t n, size_t ours)
{
    struct hf_survive *v = s->survive;

    if (v == NULL)
        return;
    hf_holds_client(s->holds, p, n);
    if (!s->dialogue.carried)
        return;
    if (hf_dialogue_is_idle(&s->dialogue)) {
        v->sent_len = 0;
        v->sent_from = s->taken;
        v->sent_ours = ours;
        v->sent_lost = false;
    }
    if (v->sent_lost)
        return;
    if (v->sent_len + n > v->sent_cap) {
        size_t cap = v->sent_len + n < 512 ? 1024 : (v->sent_len + n) * 2;
        uint8_t *more = NULL;
        if (cap > HF_ROUTER_CLIENT_BYTES)
            cap = HF_ROUTER_CLIENT_BYTES;
        if (v->sent_len + n <= cap)
            more = realloc(v->sent, cap);
        if (more == NULL) {
            drop_sent(v);
            v->sent_lost = true;
            return;
        }
        v->sent = more;
        v->sent_cap = cap;
    }
    memcpy(v->sent + v->sent_len, p, n);
    v->sent_len += n;
}

bool hf_survive_has_more(const struct hf_session *s)
{
    return s->survive != NULL && s->survive->more_len > 0;
}

bool hf_survive_keep(struct hf_session *s, const uint8_t *p, size_t n)
{
    struct hf_survive *v = s->survive;

    v->more = malloc(n);
    if (v->more == NULL)
        return false;
    memcpy(v->more, p, n);
    v->more_len = n;
    return true;
}

size_t hf_survive_take_more(struct hf_session *s, uint8_t *out)
{
    struct hf_survive *v = s->survive;
    size_t n = v->more_len;

    memcpy(out, v->more, n);
    free(v->more);
    v->more = NULL;
    v->more_len = 0;
    return n;
}

/* -- the loss ------------------------------------------------------------------------------------ */

/* What was read and has not passed is as if it had never been said. False: the client has got a part of a message. */
static bool forget_unheard(struct hf_session *s)
{
    if (s->unheard != NULL) {
        s->dialogue = *s->unheard;
        hf_session_forget_unheard(s);
        hf_params_clear(&s->survive->told); /* of that, some may not have been: it is all told again */
    } else if (s->down.len > 0) {
        /* Let pass in part. The leader's gate has looked at what came through a tunnel: it may still go; nothing else may. */
        if (s->kind != HF_KIND_TUNNEL || !hf_session_flush_down(s))
            return false;
    }
    return s->dialogue.server.have == 0 && !s->dialogue.server.broken;
}

/* The gate has said how much it took, with nothing of it under way: the rest is kept for the next one. False: it has not, or there is too
 * much of it. */
static bool keep_more(struct hf_session *s)
{
    struct hf_survive *v = s->survive;
    const struct hf_dialogue *d = &s->dialogue;
    uint64_t taken = d->taken;
    size_t n;

    if (!d->left || taken > s->taken)
        return false;
    if (taken < v->sent_from && taken + v->sent_ours >= v->sent_from)
        taken = v->sent_from; /* what is ours is not said again */
    n = (size_t)(s->taken - taken);
    if (n == 0)
        return true;
    if (taken < v->sent_from || v->sent_from + v->sent_len != s->taken)
        return false;
    memmove(v->sent, v->sent + (taken - v->sent_from), n);
    free(v->more);
    v->more = v->sent;
    v->more_len = n;
    v->sent = NULL;
    v->sent_len = v->sent_cap = 0;
    return true;
}

/* It ends, with a reason. */
static void refuse(struct hf_session *s, enum hf_doing doing, const char *why)
{
    char detail[200];

    (void)snprintf(detail, sizeof detail, "The session could not move to another server because of: %s.", why);
    if (doing == HF_DOING_COMMIT)
        hf_session_end_with(s, "08007", "the leader has changed: whether this was committed is not known", detail,
                            "Connect again, and look before you do it again.");
    else
        hf_session_end_with(s, "57P01", "the leader has changed", detail, "Connect again.");
}

static const char *pinned_by(const struct hf_session *s)
{
    uint32_t pins = hf_holds_pins(s->holds);
    unsigned by = HF_HOLD_TEMPORARY;

    while (by < HF_HOLD_KINDS && (pins & HF_HOLD_BIT(by)) == 0)
        by++;
    return by < HF_HOLD_KINDS ? hf_hold_name((enum hf_hold)by) : "its state";
}

/* The session waits from now on. */
static void move(struct hf_session *s, enum hf_doing doing)
{
    struct hf_survive *v = s->survive;
    struct hf_dialogue *d = &s->dialogue;
    struct hf_owed owed = hf_holds_owed(s->holds);
    bool idle = owed.ready == 0 && !owed.batch, knows = d->status == 'E';
    bool inside = !idle ? hf_holds_stays_inside(s->holds) : v->filter == HF_FILTER_SKIP ? v->inside : d->status != 'I';
    char status = inside ? 'E' : 'I';

    if (s->kind != HF_KIND_READER && s->far == 0)
        hf_reads_again(s);
    hf_session_hold(s); /* not a byte from there after this */
    s->since_ms = now_ms(s);
    hf_share_wants(s);
    s->fruitless = 0;
    v->tries = 0;
    v->moving = v->lost = true;
    v->failed = status == 'E';
    if (v->filter == HF_FILTER_NONE || !idle)
        v->filter = owed.batch ? HF_FILTER_SKIP : idle && v->failed && !knows ? HF_FILTER_TELL : HF_FILTER_NONE;
    v->certain = owed.batch ? owed.certain : v->certain;
    if (v->filter == HF_FILTER_TELL) {
        v->failed = false;
        status = 'T'; /* as it believes */
    }
    v->spoiling = false;
    v->inside = inside;
    if (!hf_survive_answer_owed(s, &owed, doing, status)) {
        hf_session_drop(s, HF_SURVIVE_DEAF);
        return;
    }
    if (idle && !inside)
        hf_holds_give(s->holds);
    else
        hf_holds_lost(s->holds);
    hf_dialogue_settle(d, status);
}

/* Who shares connections needs none until its client speaks. */
static bool may_rest(const struct hf_session *s)
{
    return s->share != NULL && !hf_share_is_first(s) && s->survive->filter == HF_FILTER_NONE && s->survive->more_len == 0;
}

static void rest(struct hf_session *s)
{
    hf_dialogue_settle(&s->dialogue, 'I');
    (void)hf_share_rest(s);
}

/* What was sent counts as taken. As hf_survive_loss(). */
static bool settle(struct hf_session *s)
{
    const struct hf_dialogue *d = &s->dialogue;
    bool owes = hf_dialogue_owes(d);
    enum hf_doing doing = owes ? hf_holds_doing(s->holds) : HF_DOING_NOTHING;

    if (d->fatal || (d->last == 'E' && !owes))
        return false; /* the server's own last word */
    if (!hf_holds_may_survive(s->holds))
        refuse(s, doing, pinned_by(s));
    else if (d->client.have != 0 || d->client.broken)
        refuse(s, doing, "a message that was not complete"); /* the rest would be taken for another */
    else if (hf_holds_owed(s->holds).ready > HF_SURVIVE_OWED_MAX)
        refuse(s, doing, "too many statements under way");
    else if (!owes && d->status == 'I' && may_rest(s))
        rest(s);
    else
        move(s, doing);
    return true;
}

/* Nothing was under way. */
static void leave(struct hf_session *s)
{
    hf_dialogue_settle(&s->dialogue, s->survive->filter == HF_FILTER_TELL ? 'T' : 'I'); /* what it lost before, its client is yet to be told */
    if (!hf_holds_may_survive(s->holds)) {
        refuse(s, HF_DOING_NOTHING, pinned_by(s));
        return;
    }
    if (may_rest(s)) {
        rest(s);
        return;
    }
    hf_holds_give(s->holds); /* what was not taken is yet to be asked */
    move(s, HF_DOING_NOTHING);
}

bool hf_survive_loss(struct hf_session *s)
{
    struct hf_survive *v = s->survive;
    struct hf_dialogue *d = &s->dialogue;

    if (v == NULL || s->state != HF_SESSION_PIPE)
        return false;
    if (v->moving) { /* nothing of the client's was there yet */
        hf_session_hold(s);
        if (v->refused || ++v->tries > TRIES_SOON)
            s->retry_ms = now_ms(s) + REFUSED_MS;
        return true;
    }
    if (hf_survive_is_moving(s))
        hf_login_free(s); /* it was being spoilt */
    if (d->leaving) {
        d->server = (struct hf_scan){0}; /* the gate's word is no message to the client */
        d->kept = 0;
    }
    if (!d->started || d->goodbye || !forget_unheard(s))
        return false;
    if (!keep_more(s))
        return settle(s);
    leave(s);
    return true;
}
