/* What time does to sessions that share: who waits too long, and whose connection nobody has asked for. */
#include "router/share_private.h"

enum {
    RESTING_MS = 60000, /* then a connection that nobody has asked for is closed, if nothing is lost with it */
    BUSY_TIMER_MS = 100,
    IDLE_TIMER_MS = 1000,
};

static uint64_t now_ms(const struct hf_thread *t)
{
    return uv_now(&t->loop);
}

static void timer_cb(uv_timer_t *timer);

/* It runs while there is something to look at. */
void hf_share_set_timer(struct hf_thread *t)
{
    unsigned ms = t->n_queued > 0 ? BUSY_TIMER_MS : t->resting_first != NULL ? IDLE_TIMER_MS : 0;

    if (ms == t->share_timer_ms || t->stopping)
        return;
    t->share_timer_ms = ms;
    if (ms == 0)
        (void)uv_timer_stop(&t->share_timer);
    else
        (void)uv_timer_start(&t->share_timer, timer_cb, ms, ms);
}

/* The one of this thread that has waited too long; with the lock. */
static struct hf_session *late(struct hf_thread *t)
{
    for (struct hf_pool *p = t->r->pools.first; p != NULL; p = p->next) {
        struct hf_wait *w = (struct hf_wait *)p->lines[t->index].first;
        if (w != NULL && now_ms(t) - w->waiter.since_ms >= t->r->pool_wait_ms)
            return w->s;
    }
    return NULL;
}

static void end_late(struct hf_thread *t)
{
    struct hf_session *s;

    do {
        uv_mutex_lock(&t->r->pools_lock);
        s = late(t);
        uv_mutex_unlock(&t->r->pools_lock);
        if (s == NULL)
            return;
        atomic_fetch_add(&t->r->share_late, 1);
        hf_session_refuse(s, "53300", "no server connection became free in time",
                          "All of its database's and role's are in use; see \"holdfast sessions\". Shorten transactions, close what is pinned, or "
                          "raise --max-server-connections.");
    } while (!t->stopping);
}

static void grow_cb(uv_timer_t *timer)
{
    struct hf_thread *t = timer->data;

    uv_update_time(&t->loop);
    t->grow_ms = UINT64_MAX;
    uv_mutex_lock(&t->r->pools_lock);
    for (struct hf_pool *p = t->r->pools.first; p != NULL; p = p->next)
        hf_share_grow(t, p);
    uv_mutex_unlock(&t->r->pools_lock);
}

void hf_share_grow_at(struct hf_thread *t, uint64_t ms)
{
    uint64_t now = now_ms(t);

    if (ms >= t->grow_ms || t->stopping)
        return;
    t->grow_ms = ms;
    (void)uv_timer_start(&t->grow_timer, grow_cb, ms > now ? ms - now : 0, 0);
}

static void timer_cb(uv_timer_t *timer)
{
    struct hf_thread *t = timer->data;
    struct hf_session *behind;

    uv_update_time(&t->loop);
    end_late(t);
    for (struct hf_session *s = t->resting_first; s != NULL && now_ms(t) - s->share->resting_ms >= RESTING_MS; s = behind) {
        static const uint8_t goodbye[] = {'X', 0, 0, 0, 4};
        behind = s->share->behind;
        if (hf_holds_rest(s->holds).sequences)
            continue; /* for nothing it would lose what lastval() says */
        hf_session_say_back(s, goodbye, sizeof goodbye);
        (void)hf_share_rest(s);
    }
    hf_share_set_timer(t);
}

void hf_share_thread_open(struct hf_thread *t, unsigned index)
{
    t->index = index;
    t->granted_end = &t->granted_first;
    (void)uv_timer_init(&t->loop, &t->share_timer);
    t->share_timer.data = t;
    (void)uv_timer_init(&t->loop, &t->grow_timer);
    t->grow_timer.data = t;
    t->grow_ms = UINT64_MAX;
}

/* Nobody posts to it after. */
void hf_share_thread_close(struct hf_thread *t)
{
    uv_close((uv_handle_t *)&t->share_timer, NULL);
    uv_close((uv_handle_t *)&t->grow_timer, NULL);
    uv_mutex_lock(&t->r->pools_lock);
    t->ended = true;
    uv_mutex_unlock(&t->r->pools_lock);
    hf_share_turn(t);
}
