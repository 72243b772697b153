/* Two connected ends, and the gate between them. */
#include <assert.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>

#include "base/clock.h"
#include "router/login.h"
#include "router/session.h"
#include "router/share.h"
#include "router/survive.h"

enum { TURNS_MAX = 16 }; /* reads for one session before others get their turn */

enum verdict { PASS, HOLD, END };

/* Looked at after an answer was read from PostgreSQL and before it is written to the client: what
 * passes was therefore computed while the lease held and the gate was open (DESIGN section 6). */
static enum verdict look(const struct hf_session *s)
{
    const struct hf_router *r = s->t->r;

    if (s->kind == HF_KIND_READER)
        return atomic_load(&r->readable) ? PASS : END; /* S3 */
    if (s->kind == HF_KIND_TUNNEL)
        return PASS; /* the leader's gate has looked */
    if (atomic_load(&r->opening) != s->opening)
        return END;
    if (atomic_load(&r->hold) > 0 || hf_clock_ns() >= atomic_load(&r->lease_deadline_ns))
        return HOLD;
    return PASS;
}

bool hf_session_passes(const struct hf_session *s)
{
    return look(s) == PASS;
}

bool hf_session_is_busy(const struct hf_session *s)
{
    if (s->state != HF_SESSION_PIPE || s->kind != HF_KIND_GATE)
        return false;
    if (!s->dialogue.started)
        return false; /* who logs in has no transaction to lose */
    return s->down.len > 0 || s->up.len > 0 || !hf_dialogue_is_idle(&s->dialogue);
}

static bool is_paused(const struct hf_session *s)
{
    return s->t->draining && s->kind == HF_KIND_GATE && s->dialogue.started &&
           !hf_session_is_busy(s);
}

/* Is nothing taken from the client now? */
static bool is_quiet(const struct hf_session *s)
{
    return is_paused(s) || hf_login_is_under_way(s) || hf_fresh_waits(s) || (s->down.len > 0 && hf_survive_is_filtering(s)) ||
           (s->fresh && !s->from_tunnel && !s->dialogue.started); /* what came before could not wait for its turn */
}

/* -- bytes --------------------------------------------------------------------------------- */

/* >0: bytes in the thread's scratch, 0: nothing now, -1: over. */
static ssize_t back_read(struct hf_session *s)
{
    size_t most = sizeof s->t->scratch;
    int rv;

    if (hf_login_is_under_way(s))
        return hf_login_read(s);
    rv = hf_share_is_swallowing(s) ? hf_share_swallow(s, &most) : 1;
    return rv > 0 ? hf_end_read(s->back, s->t->scratch, most) : rv;
}

static bool flow_keep(struct hf_flow *f, const uint8_t *p, size_t n)
{
    assert(f->len == 0);
    if (n == 0)
        return true;
    f->bytes = malloc(n);
    if (f->bytes == NULL)
        return false;
    memcpy(f->bytes, p, n);
    f->at = 0;
    f->len = n;
    return true;
}

static void flow_advance(struct hf_flow *f, size_t n)
{
    f->at += n;
    f->len -= n;
    if (f->len == 0) {
        free(f->bytes);
        *f = (struct hf_flow){0};
    }
}

/* False: over. */
static bool up_flush(struct hf_session *s)
{
    ssize_t n = hf_fd_write(s->back->fd, s->up.bytes + s->up.at, s->up.len);

    if (n > 0)
        flow_advance(&s->up, (size_t)n);
    return n >= 0;
}

static bool down_flush(struct hf_session *s)
{
    ssize_t n = hf_front_write(s, s->down.bytes + s->down.at, s->down.len);

    if (n > 0) {
        hf_session_count(s, 0, (size_t)n);
        flow_advance(&s->down, (size_t)n);
    }
    return n >= 0;
}

bool hf_session_send_back(struct hf_session *s, const uint8_t *p, size_t n)
{
    ssize_t sent = hf_fd_write(s->back->fd, p, n);

    s->taken += n;
    return sent >= 0 && flow_keep(&s->up, p + sent, n - (size_t)sent);
}

void hf_session_say_back(struct hf_session *s, const uint8_t *p, size_t n)
{
    if (!hf_session_send_back(s, p, n))
        (void)shutdown(s->back->fd, SHUT_RDWR);
}

/* -- client to server ---------------------------------------------------------------------- */

/* What the server said before it went is still to be read; its end comes after it. */
static void deafen(struct hf_session *s)
{
    s->deaf = true;
    free(s->up.bytes);
    s->up = (struct hf_flow){0};
}

/* As hf_front_read(). */
static ssize_t client_read(struct hf_session *s)
{
    ssize_t n;
    int held = 0;

    if (hf_fresh_has_more(s))
        return (ssize_t)hf_fresh_take_more(s, s->t->scratch);
    if (hf_survive_has_more(s)) {
        hf_share_heard(s);
        n = (ssize_t)hf_survive_take_more(s, s->t->scratch);
    } else if ((n = hf_front_read(s, s->t->scratch, HF_ROUTER_CLIENT_BYTES)) > 0) {
        hf_share_heard(s);
        s->spoke = true;
        hf_session_count(s, (size_t)n, 0);
    }
    if (n > 0)
        held = hf_fresh_hold(s, (size_t)n);
    return held == 0 ? n : held > 0 ? 0 : -1;
}

/* Puts it in front of the `n` bytes in the thread's scratch; how many they are then. */
static size_t put_in_front(struct hf_session *s, const uint8_t *prefix, size_t len, size_t n)
{
    assert(len + n <= sizeof s->t->scratch);
    memmove(s->t->scratch + len, s->t->scratch, n);
    memcpy(s->t->scratch, prefix, len);
    return len + n;
}

/* 1: moved something, 0: nothing now, -1: over. */
static int up_once(struct hf_session *s)
{
    uint8_t prefix[HF_SHARE_PREFIX_MAX];
    ssize_t n, sent;
    size_t ours;

    if (s->up.len > 0 && !up_flush(s))
        deafen(s);
    if (s->up.len > 0 || s->deaf || is_quiet(s) || hf_share_is_due(s))
        return 0;
    n = client_read(s);
    if (n <= 0)
        return n < 0 ? -1 : 0;
    n = (ssize_t)hf_survive_client(s, s->t->scratch, (size_t)n);
    if (n == 0)
        return s->state == HF_SESSION_PIPE ? 1 : -1;
    if (s->up.len > 0) { /* something of ours was not taken whole, and this must not overtake it */
        hf_session_lose(s, "the server does not take what it is told");
        return -1;
    }
    ours = hf_share_prefix(s, s->t->scratch, (size_t)n, prefix);
    s->taken += ours;
    hf_survive_sending(s, s->t->scratch, (size_t)n, ours);
    s->taken += (uint64_t)n;
    hf_dialogue_client(&s->dialogue, s->t->scratch, (size_t)n);
    if (s->unheard != NULL)
        hf_dialogue_client(s->unheard, s->t->scratch, (size_t)n);
    if (ours > 0)
        n = (ssize_t)put_in_front(s, prefix, ours, (size_t)n);
    sent = hf_fd_write(s->back->fd, s->t->scratch, (size_t)n);
    hf_fresh_sent(s);
    if (sent < 0) {
        deafen(s);
        return 0;
    }
    if (flow_keep(&s->up, s->t->scratch + sent, (size_t)(n - sent)))
        return 1;
    hf_session_lose(s, "out of memory");
    return -1;
}

/* -- server to client ---------------------------------------------------------------------- */

void hf_session_forget_unheard(struct hf_session *s)
{
    free(s->unheard);
    s->unheard = NULL;
}

bool hf_session_flush_down(struct hf_session *s)
{
    return down_flush(s) && s->down.len == 0;
}

static bool keep_unheard(struct hf_session *s)
{
    s->unheard = malloc(sizeof *s->unheard);
    if (s->unheard != NULL)
        *s->unheard = s->t->before;
    return s->unheard != NULL;
}

static void learn(struct hf_session *s)
{
    struct hf_router *r = s->t->r;
    struct hf_dialogue *d = &s->dialogue;

    if (s->kind == HF_KIND_TUNNEL && s->far == 0)
        return;
    if (d->key_known && s->key == NULL) {
        struct hf_secret secret = hf_secret_make(d->pid, d->key, d->key_len);
        s->key = hf_key_add(&r->keyring, &secret,
                            &(struct hf_key_place){.reader = s->kind == HF_KIND_READER, .far = s->far});
    }
    if (d->wait_cancelled) {
        d->wait_cancelled = false;
        if (s->kind == HF_KIND_GATE)
            hf_canceller_barrier(r->canceller); /* before look(): this very answer waits for it */
    }
}

static void heard(struct hf_session *s)
{
    if (s->answered)
        return;
    s->answered = true;
    hf_login_free(s);
    if (s->survive == NULL)
        OPENSSL_cleanse(&s->keys, sizeof s->keys); /* it is not logged in a second time */
    if (!s->from_tunnel)
        return;
    free(s->first);
    s->first = NULL;
}

/* Without a last word of the server's. Where a tunnel's other end follows its session, it takes it elsewhere, and needs no word but how
 * much was taken. */
static void end_tunnel(struct hf_session *s)
{
    if (s->kind == HF_KIND_GATE)
        hf_session_leave(s);
    else
        hf_session_close(s);
}

/* The server has ended the session. */
static void over(struct hf_session *s)
{
    if (s->dialogue.goodbye && !hf_dialogue_owes(&s->dialogue)) {
        hf_session_close(s); /* as its client wanted */
        return;
    }
    if (s->dialogue.left && s->far != 0)
        s->to_leader = true; /* that follower is not fresh enough for it */
    if (hf_session_rehold(s) || hf_survive_loss(s))
        return;
    if (s->dialogue.left)
        hf_session_refuse(s, "57P01", "the leader has changed", "Connect again.");
    else if (s->cancel || (s->from_tunnel && !s->answered))
        hf_session_close(s); /* so that the other node's router tries again */
    else if (s->from_tunnel && s->t->r->follow && hf_dialogue_may_speak(&s->dialogue))
        end_tunnel(s);
    else
        hf_session_refuse(s, "57P01", "the leader's PostgreSQL has ended the connection",
                          "Connect again.");
}

/* `n` bytes are in the thread's scratch. As down_once(). */
static int down_fresh(struct hf_session *s, size_t n)
{
    enum verdict v;
    ssize_t sent = 0;

    if (s->survive != NULL)
        s->t->before = s->dialogue;
    n = hf_dialogue_server(&s->dialogue, s->t->scratch, n);
    if (n == 0)
        return 1; /* the gate's own, of which there is no more but the end */
    if (s->dialogue.started)
        hf_session_log_in(s, false);
    learn(s);
    v = look(s);
    if (v != PASS && s->survive != NULL && !keep_unheard(s)) {
        hf_session_drop(s, "out of memory");
        return -1;
    }
    if (v == END) {
        if (!hf_survive_loss(s))
            hf_session_drop(s, "the leader has changed");
        return -1;
    }
    if (v == PASS) {
        hf_survive_server(s, s->t->scratch, n);
        sent = hf_front_write(s, s->t->scratch, n);
        heard(s);
        if (sent > 0)
            hf_session_count(s, 0, (size_t)sent);
    }
    if (sent < 0) {
        hf_session_close(s);
        return -1;
    }
    if (!flow_keep(&s->down, s->t->scratch + sent, n - (size_t)sent)) {
        hf_session_drop(s, "out of memory");
        return -1;
    }
    hf_session_withhold(s, v == HOLD);
    return s->down.len == 0 ? 1 : 0;
}

/* The same for what could not be written before. */
static int down_again(struct hf_session *s)
{
    enum verdict v = look(s);

    if (v == PASS) {
        heard(s);
        if (s->unheard != NULL)
            hf_survive_server(s, s->down.bytes, s->down.len);
        hf_session_forget_unheard(s);
    }
    if (v == END && !hf_survive_loss(s))
        hf_session_drop(s, "the leader has changed");
    if (v == PASS && !down_flush(s))
        hf_session_close(s);
    if (v == END || s->state == HF_SESSION_CLOSED)
        return -1;
    hf_session_withhold(s, v == HOLD);
    return s->down.len == 0 ? 1 : 0;
}

/* 1: moved something, 0: nothing now, -1: over, and s is closed or held. */
static int down_once(struct hf_session *s)
{
    bool ours = hf_login_is_under_way(s);
    ssize_t n;

    if (s->down.len > 0)
        return down_again(s);
    n = back_read(s);
    if (n < 0 && s->state == HF_SESSION_PIPE)
        over(s);
    if (n < 0)
        return -1;
    if (n == 0)
        return ours && !hf_login_is_under_way(s) ? 1 : 0; /* now the client may speak */
    if (s->cancel) { /* HF_CANCEL_CERTAIN */
        hf_key_cancelled(&s->t->r->keyring, s->ticket);
        s->ticket = NULL;
        return 1;
    }
    return down_fresh(s, (size_t)n);
}

/* -- both ---------------------------------------------------------------------------------- */

static void want(struct hf_session *s)
{
    int front = 0, back = 0;

    if (s->up.len > 0 || ((hf_survive_has_more(s) || hf_fresh_has_more(s)) && !is_quiet(s) && !s->deaf))
        back |= UV_WRITABLE;
    else if (!s->deaf)
        front |= is_quiet(s) ? UV_DISCONNECT : UV_READABLE;
    if (s->down.len == 0)
        back |= UV_READABLE;
    else if (!s->withheld)
        front |= UV_WRITABLE;
    hf_end_want(s->front, hf_front_events(s, front));
    hf_end_want(s->back, back);
}

void hf_session_move(struct hf_session *s)
{
    struct hf_thread *t = s->t;
    int up = 1, down = 1;

    for (int i = 0; i < TURNS_MAX && s->state == HF_SESSION_PIPE && (up > 0 || down > 0); i++) {
        up = up_once(s);
        if (up < 0) {
            if (s->state == HF_SESSION_PIPE)
                hf_session_close(s); /* its client has gone */
            return;
        }
        down = down_once(s);
    }
    if (s->state != HF_SESSION_PIPE)
        return;
    if (s->key != NULL)
        hf_key_settled(&t->r->keyring, s->key,
                       hf_dialogue_is_idle(&s->dialogue) || s->dialogue.last == 'E');
    want(s);
    hf_share_settle(s);
    hf_thread_check_drained(t);
}

void hf_session_begin_pipe(struct hf_session *s, enum hf_session_kind kind)
{
    assert(s->back != NULL && s->first != NULL);
    hf_session_set_pipe(s, kind);
    s->taken = 0;
    if (!hf_survive_is_moving(s)) {
        hf_dialogue_init(&s->dialogue);
        hf_survive_begin(s); /* a client that waits again (hf_session_rehold) has said nothing that was answered */
    }
    s->dialogue.carried = kind == HF_KIND_TUNNEL && (s->far == 0 || s->fresh);
    if (s->holds != NULL)
        hf_holds_set_read_only(s->holds, kind == HF_KIND_READER || s->far != 0);
    hf_reads_served(s, kind == HF_KIND_READER, kind == HF_KIND_READER || s->far != 0);
    hf_fresh_restart(s);
    hf_survive_restart(s);
    hf_login_restart(s);
    if (s->state != HF_SESSION_PIPE)
        return;
    hf_session_log_in(s, !s->cancel);
    if (!flow_keep(&s->up, s->first, s->first_len)) {
        hf_session_refuse(s, "53200", "out of memory", NULL);
        return;
    }
    hf_session_move(s);
}
