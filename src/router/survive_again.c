/* A session is made again on another server. */
#include <assert.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/log.h"
#include "router/login.h"
#include "router/share.h"
#include "router/survive_private.h"

bool hf_survive_is_filtering(const struct hf_session *s)
{
    return s->survive != NULL && s->survive->filter != HF_FILTER_NONE;
}

bool hf_survive_is_moving(const struct hf_session *s)
{
    return s->survive != NULL && (s->survive->moving || s->survive->spoiling);
}

bool hf_survive_is_dull(const struct hf_session *s, uint8_t type)
{
    return strchr(s->survive->moving ? "SKZE" : "SKZEA", type) == NULL;
}

void hf_survive_restart(struct hf_session *s)
{
    struct hf_survive *v = s->survive;

    if (v == NULL)
        return;
    hf_params_clear(&v->fresh);
    v->secret = (struct hf_secret){0};
    v->asked = v->in_error = v->refused = v->unnamed_only = false;
    v->heard = v->steps = v->n_failures = 0;
}

/* Logged in: settings and prepared statements, and a failed transaction if there is to be one. False: over, or it is to be tried on
 * another connection. */
static bool make_again(struct hf_session *s)
{
    struct hf_survive *v = s->survive;
    uint8_t *bytes = NULL, *all = NULL;
    size_t len = 0;
    bool sent, needed = hf_holds_needs_unnamed(s->holds, v->more, v->more_len);
    int rv = (needed ? hf_holds_remake : hf_holds_remake_soon)(s->holds, &bytes, &len, &v->steps);

    if (rv == 0)
        all = realloc(bytes, len + HF_SURVIVE_SPOIL_MAX);
    if (all == NULL) {
        free(bytes);
        hf_session_end_with(s, "53200", "out of memory", NULL, NULL);
        return false;
    }
    if (v->failed)
        len += hf_survive_put_spoil(all + len);
    v->asked = true;
    sent = len == 0 || hf_session_send_back(s, all, len);
    free(all);
    return sent;
}

/* The client's cancel key is the one that it was given first, for ever. */
static void map_key(struct hf_session *s)
{
    struct hf_survive *v = s->survive;
    struct hf_dialogue *d = &s->dialogue;
    struct hf_secret theirs = hf_secret_make(d->pid, d->key, d->key_len);

    if (s->key == NULL && v->secret.len > 0 && (s->kind != HF_KIND_TUNNEL || s->far != 0))
        s->key = hf_key_add(&s->t->r->keyring, &v->secret,
                            &(struct hf_key_place){.reader = s->kind == HF_KIND_READER, .far = s->far});
    if (s->share != NULL) {
        hf_share_point(s);
        return;
    }
    hf_key_remove(&s->t->r->keyring, v->alias);
    v->alias = d->key_known && v->secret.len > 0 ? hf_key_alias(&s->t->r->keyring, &theirs, &v->secret, s->t, s->id) : NULL;
}

/* What an end of the session is said to be about. */
static const char *event(const struct hf_session *s)
{
    return s->share != NULL ? "the session could not be made again on another server connection" : "the leader has changed";
}

/* 1, or -1: the client does not take what has changed. */
static int made(struct hf_session *s)
{
    /* In the guard's the remake's own SETs are counted; the others tell how texts are read, which a role's defaults may have changed. */
    static const char *const names[] = {HF_HOLDS_PARAMETER, "standard_conforming_strings", "client_encoding"};
    struct hf_survive *v = s->survive;
    uint8_t out[HF_PARAMS_MAX * 2];
    bool first = hf_share_is_first(s);
    size_t n;

    if (s->share != NULL)
        hf_share_hide(s, &v->fresh);
    n = hf_params_differ(&v->told, &v->fresh, out, sizeof out);
    if (!hf_holds_remake_failed(s->holds, v->failures, v->n_failures)) {
        hf_session_end_with(s, "57P01", event(s), "A setting could not be made again.", "Connect again.");
        return -1;
    }
    if (first ? !hf_share_let_in(s) : n > 0 && !hf_survive_tell(s, out, n)) {
        hf_session_drop(s, HF_SURVIVE_DEAF);
        return -1;
    }
    hf_params_clear(&v->told);
    v->told = v->fresh;
    v->fresh = (struct hf_params){0};
    map_key(s);
    v->moving = false;
    for (size_t i = 0; i < sizeof names / sizeof *names; i++) {
        const char *value = hf_params_get(&v->told, names[i]);
        if (value != NULL)
            hf_holds_parameter(s->holds, names[i], value);
    }
    if (v->steps > 0)
        hf_holds_take(s->holds, (struct hf_rest){.unnamed = true}); /* the session's own; or of a step that was refused before its Close */
    hf_holds_started(s->holds, v->failed);
    s->dialogue.started = true;
    if (v->lost)
        atomic_fetch_add(&s->t->r->moved, 1);
    v->lost = false;
    if (!first)
        hf_debug("router: a session goes on with another server");
    return 1;
}

static int hear_ready(struct hf_session *s)
{
    struct hf_survive *v = s->survive;
    unsigned all = 0;

    v->in_error = false;
    if (v->spoiling) {
        v->spoiling = ++v->heard < 2;
        return v->spoiling ? 0 : 1;
    }
    if (!v->asked) {
        hf_share_is_let_in(s);
        if (!make_again(s))
            return -1;
    } else {
        v->heard++;
    }
    all = hf_share_resets(s) + v->steps + (v->failed ? 2 : 0);
    return v->heard == all ? made(s) : 0;
}

/* Is the error about what is not there, or means something else now? Not about time, locks, memory and so on. */
static bool is_gone(const char *sqlstate)
{
    static const char *const classes[] = {"42", "3F", "22", "0A"};

    for (size_t i = 0; i < sizeof classes / sizeof *classes; i++)
        if (strncmp(sqlstate, classes[i], 2) == 0)
            return true;
    return false;
}

/* What is being made is the unnamed statement: of no use to anybody if it cannot be, and its client prepares it anew. */
static bool is_unnamed_step(const struct hf_session *s)
{
    const struct hf_survive *v = s->survive;

    return v->unnamed_only || (v->heard - hf_share_resets(s) + 1 == v->steps && hf_holds_remakes_unnamed(s->holds));
}

static int hear_error(struct hf_session *s, const uint8_t *body, size_t n)
{
    struct hf_survive *v = s->survive;
    unsigned resets = hf_share_resets(s);
    char sqlstate[6] = "", detail[120];

    (void)hf_wire_sqlstate(body, n, sqlstate);
    if (strcmp(sqlstate, "53300") == 0 && !v->asked && hf_share_is_refused(s))
        return -1; /* waits */
    if (hf_share_is_first(s) && !v->asked && strncmp(sqlstate, "57P0", 4) != 0)
        return 1; /* the client's: PostgreSQL does not let it in */
    if (strncmp(sqlstate, "57P0", 4) == 0 || strcmp(sqlstate, "53300") == 0) {
        v->refused = true;
        return -1; /* another try, within --hold-ms */
    }
    if (v->spoiling || (v->asked && v->heard >= resets + v->steps))
        return 0; /* the transaction that is to be a failed one */
    if (v->asked && v->heard < resets)
        return -1; /* what another session has left could not be undone: a connection of its own, then */
    if (v->asked && v->n_failures < HF_SURVIVE_FAILED_MAX && (is_gone(sqlstate) || is_unnamed_step(s))) {
        if (!v->in_error)
            v->failures[v->n_failures++] = v->unnamed_only ? UINT_MAX : v->heard - resets;
        v->in_error = true;
        return 0;
    }
    (void)snprintf(detail, sizeof detail, "PostgreSQL refused it with SQLSTATE %s.", sqlstate);
    hf_session_end_with(s, "57P01", event(s), detail, "Connect again.");
    return -1;
}

/* What is the client's, though its server is being talked to by us. */
static int pass_on(struct hf_session *s, const uint8_t *p, size_t n)
{
    if (!hf_session_passes(s))
        return 0;
    if (!hf_survive_tell(s, p, n)) {
        hf_session_drop(s, HF_SURVIVE_DEAF);
        return -1;
    }
    if (p[0] == 'S') {
        hf_params_set(&s->survive->told, p + 5, n - 5);
        hf_holds_server(s->holds, p, n);
    }
    return 0;
}

int hf_survive_hear(struct hf_session *s, const uint8_t *p, size_t n)
{
    struct hf_survive *v = s->survive;

    assert(v != NULL && hf_survive_is_moving(s) && n >= 5);
    if (!v->moving && (p[0] == 'S' || p[0] == 'A'))
        return pass_on(s, p, n);
    switch (p[0]) {
    case 'S':
        hf_params_set(&v->fresh, p + 5, n - 5);
        return 0;
    case 'K':
        if (n >= 13)
            v->secret = hf_secret_make(hf_scan_number(p + 5), p + 9, n - 9);
        return 0;
    case 'Z':
        return hear_ready(s);
    case 'E':
        return hear_error(s, p + 5, n - 5);
    default:
        return 0; /* ParseComplete and the like */
    }
}
