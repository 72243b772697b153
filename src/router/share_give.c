/* A session gives its server connection away. */
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "router/share_private.h"

enum { LOOK_MAX = 16 }; /* sessions that are compared */

/* All that was asked is answered, nothing of it is here, and what the connection holds is known. One that has been told that its client
 * goes, or has said its last word, is about to end. */
bool hf_share_may_give(const struct hf_session *s)
{
    return s->state == HF_SESSION_PIPE && s->share != NULL && s->share->placed && s->share->let_in && !s->share->spoken &&
           s->share->awaits[0] == '\0' && s->survive != NULL && s->holds != NULL && !hf_survive_is_moving(s) && !hf_survive_is_filtering(s) &&
           !hf_survive_has_more(s) && s->login == NULL && s->up.len == 0 && s->down.len == 0 && !s->deaf && !s->withheld && s->unheard == NULL &&
           s->far == 0 && hf_dialogue_is_idle(&s->dialogue) && !s->dialogue.leaving && !s->dialogue.goodbye && !s->dialogue.fatal &&
           hf_holds_is_free(s->holds);
}

/* -- those that rest -------------------------------------------------------------------------------- */

void hf_share_unrest(struct hf_session *s)
{
    struct hf_share *sh = s->share;
    struct hf_thread *t = s->t;

    if (sh == NULL || !sh->resting)
        return;
    *(sh->before != NULL ? &sh->before->share->behind : &t->resting_first) = sh->behind;
    *(sh->behind != NULL ? &sh->behind->share->before : &t->resting_last) = sh->before;
    sh->before = sh->behind = NULL;
    sh->resting = false;
    atomic_fetch_sub(&sh->pool->idle[t->index], 1);
}

/* How well would `v`'s connection do for `s`? */
static int fitness(struct hf_session *s, struct hf_session *v)
{
    const uint8_t *secret = s->t->r->share_secret;
    struct hf_print mine = hf_holds_state(s->holds, secret), theirs = hf_holds_state(v->holds, secret);
    struct hf_rest rest = hf_holds_rest(v->holds);

    if (memcmp(&s->share->base, &v->share->base, sizeof mine) != 0)
        return 0;
    if (v->share->told || v->share->set_by_login || hf_dialogue_may_hear_more(&v->dialogue))
        return 0;
    return 1 + 2 * !rest.sequences + 4 * (memcmp(&mine, &theirs, sizeof mine) == 0 && !rest.discarded);
}

/* Of this thread: the one that rests longest, among those whose connection does best. NULL: none. */
struct hf_session *hf_share_victim(struct hf_session *s)
{
    struct hf_session *best = NULL;
    int fit = -1, looked = 0;

    for (struct hf_session *v = s->t->resting_first; v != NULL && looked < LOOK_MAX; v = v->share->behind) {
        int f;
        if (v->share->pool != s->share->pool || !hf_share_may_give(v))
            continue;
        looked++;
        f = fitness(s, v);
        if (f > fit) {
            fit = f;
            best = v;
        }
    }
    return best;
}

/* -- the connection --------------------------------------------------------------------------------- */

void hf_server_close(struct hf_router *r, struct hf_server *v)
{
    hf_key_remove(&r->keyring, v->key);
    if (v->end != NULL)
        hf_end_close(v->end);
    else if (v->fd >= 0)
        close(v->fd);
    hf_params_clear(&v->params);
    *v = (struct hf_server){.fd = -1};
}

bool hf_share_give(struct hf_session *s, struct hf_server *v)
{
    struct hf_router *r = s->t->r;
    struct hf_survive *sv = s->survive;
    bool clean = hf_share_unpoint(s), others = s->share->prefix != HF_PREFIX_NONE; /* it has not spoken to it */

    hf_share_unrest(s);
    *v = (struct hf_server){.end = s->back,
                            .fd = -1,
                            .kind = s->kind,
                            .opening = s->opening,
                            .leader_epoch = s->leader_epoch,
                            .taken = s->taken,
                            .secret = sv->secret,
                            .key = s->key,
                            .base = s->share->base,
                            .state = hf_holds_state(s->holds, r->share_secret),
                            .rest = hf_holds_rest(s->holds),
                            .last = others ? 0 : s->id};
    clean = hf_params_copy(&v->params, &sv->told) && clean && !s->share->set_by_login && !hf_dialogue_may_hear_more(&s->dialogue);
    hf_dialogue_settle(&s->dialogue, 'I');
    sv->secret = (struct hf_secret){0};
    sv->failed = false;
    s->back = NULL;
    s->key = NULL;
    s->share->placed = false;
    hf_holds_give(s->holds);
    hf_session_rest(s);
    if (!clean)
        hf_server_close(r, v);
    return clean;
}
