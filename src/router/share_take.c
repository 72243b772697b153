/* A session takes a server connection: another's, or one of its own. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <openssl/rand.h>

#include "base/log.h"
#include "router/login.h"
#include "router/share_private.h"

/* What undoes all that another session has made of a connection. In older releases DISCARD ALL leaves no role where the login gave one. */
static const char *const all_of_it[] = {"DISCARD ALL", "RESET ROLE", NULL};
/* As any simple query, it drops the unnamed statement, too. */
static const char *const its_sequences[] = {"DISCARD SEQUENCES", NULL};

/* -- the client is let in ------------------------------------------------------------------------------ */

void hf_share_hide(struct hf_session *s, const struct hf_params *now)
{
    const char *value = hf_params_get(now, HF_HOLDS_PARAMETER);
    char body[512];
    int n = value != NULL ? snprintf(body, sizeof body, "%s%c%s", HF_HOLDS_PARAMETER, 0, value) : 0;

    if (n > 0 && (size_t)n < sizeof body)
        hf_params_set(&s->survive->told, (const uint8_t *)body, (size_t)n + 1);
}

/* What the router has never seen itself is read by who follows the session, too. */
static bool tell_params(struct hf_session *s, const struct hf_params *now)
{
    struct hf_survive *sv = s->survive;
    uint8_t out[HF_PARAMS_MAX * 2];
    size_t n;

    if (hf_params_same(&sv->told, now)) /* as a rule */
        return true;
    hf_share_hide(s, now);
    n = hf_params_differ(&sv->told, now, out, sizeof out);
    if (n == 0)
        return true;
    hf_holds_server(s->holds, out, n);
    return hf_survive_tell(s, out, n);
}

/* A key that no server has, which follows the session from one to the next. Where nobody waits it is its server's: that one is good at other
 * nodes, too; and is given to nobody then. */
static size_t make_key(struct hf_session *s, uint8_t *out)
{
    struct hf_dialogue *d = &s->dialogue;
    const struct hf_secret *server = &s->survive->secret;
    uint16_t len = server->len >= HF_CANCEL_KEY_MIN ? server->len : HF_CANCEL_KEY_MIN;
    uint8_t random[4 + HF_SECRET_MAX];

    s->share->told = s->share->own && server->len == len && atomic_load(&s->share->pool->n_waiting) == 0;
    if (RAND_bytes(random, 4 + len) != 1)
        abort(); /* one that can be guessed is worse */
    d->key_known = true;
    d->pid = s->share->told ? server->pid : 0x40000000u | (hf_scan_number(random) >> 2); /* PostgreSQL's processes have lower numbers */
    d->key_len = len;
    memcpy(d->key, s->share->told ? server->bytes : random + 4, len);
    out[0] = 'K';
    hf_scan_put(out + 1, 8u + len);
    hf_scan_put(out + 5, d->pid);
    memcpy(out + 9, d->key, len);
    return 9 + (size_t)len;
}

static bool let_in(struct hf_session *s, const struct hf_params *params)
{
    static const uint8_t welcome[] = {'R', 0, 0, 0, 8, 0, 0, 0, 0}, ready[] = {'Z', 0, 0, 0, 5, 'I'};
    uint8_t key[16 + HF_SECRET_MAX];
    size_t n = make_key(s, key);

    memcpy(key + n, ready, sizeof ready);
    if (!hf_survive_tell(s, welcome, sizeof welcome) || !tell_params(s, params) || !hf_survive_tell(s, key, n + sizeof ready))
        return false;
    s->answered = true;
    s->share->let_in = true;
    s->dialogue.started = true;
    s->dialogue.last = 'Z';
    s->dialogue.status = 'I';
    return true;
}

bool hf_share_is_first(const struct hf_session *s)
{
    return s->share != NULL && !s->share->let_in;
}

bool hf_share_let_in(struct hf_session *s)
{
    return let_in(s, &s->survive->fresh);
}

static bool point(struct hf_session *s, const struct hf_secret *now)
{
    struct hf_survive *sv = s->survive;
    struct hf_keyring *k = &s->t->r->keyring;
    const struct hf_dialogue *d = &s->dialogue;
    struct hf_secret theirs = hf_secret_make(d->pid, d->key, d->key_len);

    if (sv->alias != NULL)
        return hf_key_point(k, sv->alias, now);
    sv->alias = hf_key_alias(k, &theirs, now, s->t, s->id);
    return true;
}

void hf_share_point(struct hf_session *s)
{
    if (!s->share->told)
        (void)point(s, &s->survive->secret);
}

bool hf_share_unpoint(struct hf_session *s)
{
    static const struct hf_secret none;
    bool clean = point(s, &none) && !s->share->told;

    s->share->told = false;
    return clean;
}

void hf_share_undo(struct hf_session *s)
{
    if (s->share == NULL)
        return;
    hf_share_unrest(s);
    s->share->resets = 0;
    s->share->prefix = HF_PREFIX_NONE;
    memset(s->share->awaits, 0, sizeof s->share->awaits);
    s->share->told = s->share->set_by_login = false;
}

unsigned hf_share_resets(const struct hf_session *s)
{
    return s->share != NULL ? s->share->resets : 0;
}

/* -- a connection of its own ------------------------------------------------------------------------------ */

void hf_share_open(struct hf_session *s)
{
    struct hf_survive *sv = s->survive;

    sv->moving = true;
    sv->tries = 0;
    hf_session_hold(s);
    s->since_ms = uv_now(&s->t->loop);
    s->fruitless = 0;
    hf_session_seek(s);
}

/* -- another's ------------------------------------------------------------------------------------------ */

static bool is_good(const struct hf_session *s, const struct hf_server *v)
{
    const struct hf_router *r = s->t->r;

    if (memcmp(&s->share->base, &v->base, sizeof v->base) != 0)
        return false;
    switch (v->kind) {
    case HF_KIND_GATE:
        return atomic_load(&r->opening) == v->opening;
    case HF_KIND_TUNNEL:
        return atomic_load(&r->leader) == HF_LEADER_ELSEWHERE && atomic_load(&r->leader_epoch) == v->leader_epoch;
    default:
        return false;
    }
}

/* Nothing has come from it since it was given? It would be the server's last word, and not for this client; or it has ended, unseen. */
static bool is_silent(const struct hf_server *v)
{
    uint8_t b;

    return hf_end_peek(v->end, &b, 1) == 0;
}

static void attach(struct hf_session *s, struct hf_server *v)
{
    struct hf_survive *sv = s->survive;

    s->since_ms = uv_now(&s->t->loop); /* should it be lost before it is equal */
    hf_survive_restart(s);
    s->share->own = false;
    hf_end_close(s->back); /* the tunnel that the role was asked about in */
    s->back = v->end;
    s->back->s = s;
    s->opening = v->opening;
    s->leader_epoch = v->leader_epoch;
    s->taken = v->taken;
    s->key = v->key;
    sv->secret = v->secret;
    v->end = NULL;
    v->key = NULL;
    hf_session_set_pipe(s, v->kind);
    s->dialogue.carried = v->kind == HF_KIND_TUNNEL;
    hf_holds_set_read_only(s->holds, false);
}

static size_t put_queries(uint8_t *out, const char *const *texts, unsigned *n)
{
    size_t len = 0;

    for (*n = 0; texts[*n] != NULL; (*n)++) {
        size_t text = strlen(texts[*n]) + 1;
        if (out != NULL) {
            out[len] = 'Q';
            hf_scan_put(out + len + 1, (uint32_t)(4 + text));
            memcpy(out + len + 5, texts[*n], text);
        }
        len += 5 + text;
    }
    return len;
}

/* Makes it equal, and waits for the answers: see survive_again.c. `texts`: first. False: over. */
static bool make_equal(struct hf_session *s, struct hf_server *v, const char *const *texts, bool all)
{
    struct hf_survive *sv = s->survive;
    uint8_t *bytes = NULL, *more;
    size_t len = 0, first = put_queries(NULL, texts, &s->share->resets);
    int rv = all ? hf_holds_remake(s->holds, &bytes, &len, &sv->steps) : hf_holds_remake_unnamed(s->holds, &bytes, &len, &sv->steps);

    more = rv == 0 ? malloc(first + len + 1) : NULL;
    if (more != NULL) {
        (void)put_queries(more, texts, &s->share->resets);
        if (len > 0)
            memcpy(more + first, bytes, len);
    }
    free(bytes);
    hf_login_free(s);
    if (more == NULL || !hf_login_resume(s)) {
        free(more);
        hf_session_lose(s, "out of memory");
        return false;
    }
    sv->fresh = v->params;
    v->params = (struct hf_params){0};
    sv->moving = true;
    sv->failed = false;
    sv->asked = true;
    sv->unnamed_only = !all;
    hf_session_say_back(s, more, first + len); /* it may have ended already, unseen: then it is lost before it is equal */
    free(more);
    atomic_fetch_add(&s->t->r->share_remade, 1);
    return true;
}

/* It is equal already, but for what our prefix takes away. False: over. */
static bool go_on(struct hf_session *s, struct hf_server *v)
{
    struct hf_share *sh = s->share;
    const char *held;

    if (!(sh->let_in ? tell_params(s, &v->params) : let_in(s, &v->params))) {
        hf_session_drop(s, HF_SURVIVE_DEAF);
        return false;
    }
    hf_params_clear(&s->survive->told);
    s->survive->told = v->params;
    v->params = (struct hf_params){0};
    hf_login_free(s);
    s->survive->moving = false;
    if (v->last != s->id && v->rest.sequences)
        sh->prefix = HF_PREFIX_SEQUENCES;
    else if (v->last != s->id && v->rest.unnamed)
        sh->prefix = HF_PREFIX_CLOSE;
    held = hf_params_get(&s->survive->told, HF_HOLDS_PARAMETER);
    if (held != NULL)
        hf_holds_parameter(s->holds, HF_HOLDS_PARAMETER, held);
    hf_holds_take(s->holds, v->rest);
    hf_share_point(s);
    return true;
}

/* As hf_front_peek(). */
static ssize_t look_at_head(struct hf_session *s, uint8_t out[HF_SHARE_HEAD])
{
    const struct hf_survive *sv = s->survive;
    const struct hf_share *sh = s->share;
    size_t n = sv->more_len < HF_SHARE_HEAD ? sv->more_len : HF_SHARE_HEAD;

    if (n == 0 && sh->head_len < HF_SHARE_HEAD)
        return hf_front_peek(s, out, HF_SHARE_HEAD);
    if (n == 0)
        n = HF_SHARE_HEAD;
    memcpy(out, sv->more_len > 0 ? sv->more : sh->head, n);
    return (ssize_t)n;
}

void hf_share_take(struct hf_session *s, struct hf_server *v)
{
    static const struct hf_print after_login;
    uint8_t head[HF_SHARE_HEAD];
    ssize_t n = 0;
    struct hf_print mine = hf_holds_state(s->holds, s->t->r->share_secret);
    bool same = memcmp(&mine, &v->state, sizeof mine) == 0 && !v->rest.discarded, others = v->last != s->id, unnamed, ok;

    if (v->end == NULL && v->fd >= 0) {
        v->end = hf_end_open(s, v->fd);
        v->fd = -1;
    }
    /* One of its own also if it is to be brought into a failed transaction, or will be once its client speaks. */
    if (v->end == NULL || !is_good(s, v) || !is_silent(v) || s->survive->failed || hf_survive_is_filtering(s)) {
        hf_server_close(s->t->r, v);
        hf_share_open(s);
        return;
    }
    if (s->share->let_in)
        n = look_at_head(s, head);
    unnamed = hf_holds_needs_unnamed(s->holds, head, n > 0 ? (size_t)n : 0);
    attach(s, v);
    atomic_fetch_add(&s->t->r->share_taken, 1);
    if (n < 0)
        ok = false;
    else if (same && !unnamed)
        ok = go_on(s, v);
    else if (same || memcmp(&v->state, &after_login, sizeof mine) == 0)
        ok = v->rest.discarded ? make_equal(s, v, all_of_it, true)
                               : make_equal(s, v, others && (v->rest.sequences || v->rest.unnamed) ? its_sequences : its_sequences + 1,
                                            !same);
    else
        ok = make_equal(s, v, all_of_it, true);
    hf_params_clear(&v->params);
    if (ok)
        hf_session_move(s);
    else if (s->state == HF_SESSION_PIPE)
        hf_session_close(s); /* its client has gone */
}

/* -- in front of the client's first message ----------------------------------------------------------------- */

size_t hf_share_prefix(struct hf_session *s, const uint8_t *p, size_t n, uint8_t out[HF_SHARE_PREFIX_MAX])
{
    static const uint8_t close_unnamed[] = {'C', 0, 0, 0, 6, 'S', 0};
    struct hf_share *sh = s->share;
    bool sequences;
    unsigned queries;

    if (sh == NULL || sh->prefix == HF_PREFIX_NONE)
        return 0;
    sequences = sh->prefix == HF_PREFIX_SEQUENCES;
    sh->prefix = HF_PREFIX_NONE;
    if (!sequences && hf_holds_drops_unnamed(p, n))
        return 0;
    hf_holds_clear_unnamed(s->holds); /* a simple query drops it, too */
    if (sequences) {
        memcpy(sh->awaits, "CZ", 3);
        return put_queries(out, its_sequences, &queries);
    }
    memcpy(sh->awaits, "3", 2);
    memcpy(out, close_unnamed, sizeof close_unnamed);
    return sizeof close_unnamed;
}

bool hf_share_is_swallowing(const struct hf_session *s)
{
    return s->share != NULL && s->share->awaits[0] != '\0';
}

int hf_share_swallow(struct hf_session *s, size_t *most)
{
    enum { ANSWER_MAX = 64 };
    const struct hf_scan *scan = &s->dialogue.server;
    char *awaits = s->share->awaits;
    uint8_t b[ANSWER_MAX];

    while (awaits[0] != '\0') {
        ssize_t n;
        size_t len;
        if (scan->have != 0) { /* within a message that came in between */
            *most = scan->have < 5 ? 5 - scan->have : scan->left < *most ? (size_t)scan->left : *most;
            return 1;
        }
        if (s->back->empty)
            return 0;
        n = hf_end_peek(s->back, b, sizeof b);
        len = n >= 5 ? hf_wire_length(b) : 0;
        if (n <= 0 || len < 5)
            return n < 0 || n >= 5 || !hf_end_wait(s->back) ? -1 : 0;
        if (b[0] != (uint8_t)awaits[0]) {
            *most = len < *most ? len : *most;
            return memchr("NSA^", b[0], 4) != NULL ? 1 : -1; /* the server's or the gate's own, or it is not certain what this is */
        }
        if (len > sizeof b)
            return -1;
        if ((size_t)n < len)
            return hf_end_wait(s->back) ? 0 : -1;
        if (hf_end_read(s->back, b, len) != (ssize_t)len || (b[0] == 'Z' && (len != 6 || b[5] != 'I')))
            return -1;
        memmove(awaits, awaits + 1, sizeof s->share->awaits - 1);
    }
    return 1;
}
