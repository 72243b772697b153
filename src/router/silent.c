#include "router/silent.h"

#include <linux/sockios.h>
#include <sys/ioctl.h>

#include "base/net.h"
#include "router/share_private.h"

enum {
    TICK_MS = 1000,
    TICK_MIN_MS = 10,
    TICKS = 8, /* in a bound, if it is short: so exact are they kept */
    LATE = 4,  /* ticks; then this thread has not run meanwhile, and nobody's client is to blame */
};

static uint64_t now_ms(const struct hf_thread *t)
{
    return uv_now(&t->loop);
}

static unsigned tick_ms(const struct hf_router *r)
{
    unsigned least = r->idle_ms;

    if (r->stalled_ms != 0 && (least == 0 || r->stalled_ms < least))
        least = r->stalled_ms;
    if (least == 0)
        return HF_NET_LOOK_MS;
    if (least / TICKS > TICK_MS)
        return TICK_MS;
    return least / TICKS > TICK_MIN_MS ? least / TICKS : TICK_MIN_MS;
}

/* -- stalled --------------------------------------------------------------------------------------------- */

static enum hf_awaited awaited(const struct hf_session *s)
{
    const struct hf_dialogue *d = &s->dialogue;

    if (s->state != HF_SESSION_PIPE || s->share == NULL || !s->share->placed || !s->share->let_in || hf_survive_is_moving(s) || s->withheld ||
        s->deaf || d->copying)
        return HF_AWAITED_NOT;
    if (s->down.len > 0)
        return HF_AWAITED_TO_TAKE;
    return d->client.have != 0 && s->up.len == 0 && d->pending == 0 ? HF_AWAITED_TO_GIVE : HF_AWAITED_NOT;
}

/* What it has done of that, in bytes. The loop hears of room in a socket's buffer only when a third of that is free. */
static int64_t done(const struct hf_session *s, enum hf_awaited what)
{
    int untaken = 0;

    if (what == HF_AWAITED_TO_GIVE)
        return (int64_t)s->bytes_in;
    if (ioctl(s->front->fd, SIOCOUTQ, &untaken) != 0)
        untaken = 0;
    return (int64_t)s->bytes_out - untaken;
}

static bool is_stalled(struct hf_session *s)
{
    struct hf_thread *t = s->t;
    struct hf_stall *stall;
    enum hf_awaited what = awaited(s);
    int64_t enough = 1 + (int64_t)t->r->stalled_ms * HF_STALLED_RATE / 1000, bytes;

    if (what == HF_AWAITED_NOT)
        return false;
    stall = &s->share->stall;
    bytes = done(s, what);
    if (stall->what != what || stall->tick + 1 != t->silence.tick || bytes - stall->bytes >= enough)
        *stall = (struct hf_stall){.what = what, .since_ms = now_ms(t), .bytes = bytes};
    stall->tick = t->silence.tick;
    return now_ms(t) - stall->since_ms >= t->r->stalled_ms && atomic_load(&s->share->pool->n_waiting) > 0;
}

static void end_stalled(struct hf_session *s)
{
    atomic_fetch_add(&s->t->r->share_stalled, 1);
    hf_session_refuse(s, "57P05",
                      s->share->stall.what == HF_AWAITED_TO_GIVE
                          ? "terminating connection that stopped in the middle of a message while others waited for its server connection"
                          : "terminating connection that did not take what it was answered while others waited for its server connection",
                      "The node's --stalled-client-ms says for how long that may be.");
}

/* Has anybody waited for a server connection since the last time? */
static bool is_pressed(struct hf_thread *t)
{
    struct hf_router *r = t->r;
    uint64_t waits = atomic_load(&r->share_waits);
    bool yes = waits != t->silence.waits;

    t->silence.waits = waits;
    if (r->stalled_ms == 0)
        return false;
    uv_mutex_lock(&r->pools_lock);
    yes = yes || r->pools.n_waiting > 0;
    uv_mutex_unlock(&r->pools_lock);
    return yes;
}

/* -- idle ------------------------------------------------------------------------------------------------ */

/* Half a message counts as nothing: PostgreSQL has begun nothing because of it. */
static bool is_idle(const struct hf_session *s)
{
    const struct hf_dialogue *d = &s->dialogue;

    if (s->state == HF_SESSION_POOLED)
        return true;
    return s->state == HF_SESSION_PIPE && d->started && d->status == 'I' && !hf_dialogue_owes(d) && d->server.have == 0 && !d->server.broken &&
           !d->goodbye && s->up.len == 0 && s->down.len == 0 && !s->withheld && !s->deaf && !hf_survive_is_moving(s) &&
           !hf_survive_is_filtering(s) && !hf_survive_has_more(s) && s->waiting == NULL;
}

static bool listens(const struct hf_session *s)
{
    return s->holds != NULL && (hf_holds_pins(s->holds) & HF_HOLD_BIT(HF_HOLD_LISTEN)) != 0;
}

static bool is_due(const struct hf_session *s)
{
    return is_idle(s) && now_ms(s->t) - s->active_ms >= s->t->r->idle_ms;
}

/* Something that the loop has not told us of yet. A piece of a head, which a session without a connection leaves where it is (hf_share_event), is
 * nothing. */
static bool has_spoken(struct hf_session *s)
{
    uint8_t head[sizeof s->dialogue.client.head];
    ssize_t n = hf_front_peek(s, head, sizeof head);
    bool piece = n > 0 && (size_t)n < sizeof head && s->state == HF_SESSION_POOLED && s->tls == NULL && !hf_survive_is_filtering(s);

    if (n == 0 || piece)
        return false;
    if (n > 0 && s->share != NULL)
        s->share->spoken = true; /* within OpenSSL now, so the socket does not tell; and if it is not read yet, the next server is to hear of it */
    hf_session_event(s, true, false, UV_READABLE);
    return s->state != HF_SESSION_POOLED || !is_due(s);
}

static void end_idle(struct hf_session *s)
{
    if (has_spoken(s))
        return;
    atomic_fetch_add(&s->t->r->idle_ended, 1);
    hf_session_refuse(s, "57P05", "terminating connection due to idle-session timeout", NULL);
}

/* -- the timer ------------------------------------------------------------------------------------------- */

static void stop(struct hf_thread *t)
{
    t->silence.running = false;
    (void)uv_timer_stop(&t->silence.timer);
}

static void walk(struct hf_thread *t, bool pressed, bool look)
{
    unsigned idle_ms = t->r->idle_ms;
    uint64_t due = idle_ms != 0 ? now_ms(t) + idle_ms : UINT64_MAX;
    bool any = false;

    for (struct hf_session *s = t->sessions, *next; s != NULL; s = next) {
        next = s->next;
        if (s->from_tunnel)
            continue;
        any = true;
        if (look && hf_net_is_dead(s->front->fd))
            hf_session_lose(s, "its client, or what leads there, has not confirmed for twenty seconds what it was sent");
        else if (pressed && is_stalled(s))
            end_stalled(s);
        else if (idle_ms == 0 || !is_idle(s))
            continue;
        else if (!is_due(s))
            due = s->active_ms + idle_ms < due ? s->active_ms + idle_ms : due;
        else if (!listens(s))
            end_idle(s);
    }
    t->silence.idle_due_ms = due;
    if (!any)
        stop(t);
}

static void timer_cb(uv_timer_t *timer)
{
    struct hf_thread *t = timer->data;
    bool pressed = is_pressed(t), late, look;

    uv_update_time(&t->loop);
    late = now_ms(t) - t->silence.tick_ms > (uint64_t)LATE * tick_ms(t->r);
    t->silence.tick += late ? 2 : 1; /* what was seen before that does not count */
    t->silence.tick_ms = now_ms(t);
    look = now_ms(t) >= t->silence.look_due_ms;
    if (look)
        t->silence.look_due_ms = now_ms(t) + HF_NET_LOOK_MS;
    if (pressed || look || t->sessions == NULL || now_ms(t) >= t->silence.idle_due_ms)
        walk(t, pressed, look);
}

void hf_silent_watch(struct hf_thread *t)
{
    unsigned ms = tick_ms(t->r);

    if (t->silence.running || t->stopping)
        return;
    t->silence.running = true;
    t->silence.tick_ms = now_ms(t);
    t->silence.look_due_ms = now_ms(t) + HF_NET_LOOK_MS;
    t->silence.idle_due_ms = t->r->idle_ms != 0 ? now_ms(t) + t->r->idle_ms : UINT64_MAX;
    (void)uv_timer_start(&t->silence.timer, timer_cb, ms, ms);
}

void hf_silent_thread_open(struct hf_thread *t)
{
    (void)uv_timer_init(&t->loop, &t->silence.timer);
    t->silence.timer.data = t;
}

void hf_silent_thread_close(struct hf_thread *t)
{
    uv_close((uv_handle_t *)&t->silence.timer, NULL);
}
