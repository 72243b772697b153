/* Rounds: between the sessions' threads, the host's loop and a thread that asks PostgreSQL. */
#include "router/fresh.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <openssl/rand.h>

#include "base/clock.h"
#include "base/log.h"
#include "core/types.h"
#include "router/link.h"
#include "router/session.h"
#include "router/survive.h"

enum {
    AGAIN_MS = 50,    /* the leader, who has not answered */
    SOON = 40,        /* looks at what is applied, while somebody waits for it: so many at first, then fewer */
    LOOK_SOON_US = 250,
    LOOK_US = 5000,
    LATE = SOON + HF_FRESH_MS * 1000 / LOOK_US, /* by now all who waited have gone to the leader */
    LOOK_LATE_US = 100000,
    LATER_MS = 20,    /* PostgreSQL could not be asked */
    DUES_MAX = 16,    /* rounds that are answered and not applied yet */
    QUESTIONS_MAX = 16, /* of followers: one each, so a member's newest takes the place of its last */
};

/* A follower's question, here on the leader. */
struct question {
    uint64_t opening, from, epoch, seq, sent_ns;
};

struct due {
    uint64_t round, lsn;
};

struct hf_fresh {
    struct hf_router *r;
    char dir[108];
    uv_thread_t id;
    uv_mutex_t mutex;
    uv_cond_t cond;
    atomic_bool stopping;

    struct question questions[QUESTIONS_MAX];
    unsigned n_questions;

    uint64_t wanted;   /* the greatest round that somebody waits for */
    uint64_t asked;    /* the newest that the leader was asked for */
    uint64_t answered; /* and has answered; < asked: the question is out */
    uint64_t asked_ns; /* when it was asked last */
    struct due dues[DUES_MAX];
    unsigned n_dues, misses; /* looks since the last that settled one, or the last answer */
    uint64_t applied;  /* here, in this spell, at least */
    uint64_t over;     /* rounds up to this one are of a spell that has ended */
    atomic_uint_least64_t settled; /* the newest round of which all is applied here */
};

static void *must(void *p)
{
    if (p == NULL)
        abort(); /* a few bytes */
    return p;
}

/* -- from thread to loop ------------------------------------------------------------------------ */

struct note {
    struct hf_router *r;
    struct question q;
    uint64_t lsn;
};

static void ask_run(void *arg)
{
    struct note *n = arg;

    if (!n->r->closing && n->r->callbacks.read_ask != NULL)
        n->r->callbacks.read_ask(n->r->callbacks.ctx, n->q.seq);
    free(n);
}

static void answer_run(void *arg)
{
    struct note *n = arg;

    if (!n->r->closing && n->r->callbacks.read_answer != NULL)
        n->r->callbacks.read_answer(n->r->callbacks.ctx, n->q.from, n->q.epoch, n->q.seq, n->q.sent_ns, n->lsn);
    free(n);
}

static void post(struct hf_fresh *f, hf_mailbox_fn fn, const struct question *q, uint64_t lsn)
{
    struct note *n = must(calloc(1, sizeof *n));

    *n = (struct note){.r = f->r, .q = *q, .lsn = lsn};
    hf_mailbox_post(f->r->control, fn, n);
}

static void settled_run(void *arg)
{
    struct hf_thread *t = arg;

    for (struct hf_session *s = t->sessions, *next; s != NULL; s = next) {
        next = s->next;
        if (s->waiting != NULL && hf_fresh_has_more(s))
            hf_session_move(s);
    }
}

/* -- rounds, with the lock ----------------------------------------------------------------------- */

/* The question of the newest round goes out, for the first time or again. */
static void ask(struct hf_fresh *f)
{
    f->asked_ns = hf_clock_ns();
    post(f, ask_run, &(struct question){.seq = f->asked}, 0);
    uv_cond_signal(&f->cond);
}

/* The next round begins if it is wanted, and none is out. */
static void go_on(struct hf_fresh *f)
{
    if (f->wanted <= f->asked || f->asked > f->answered || f->n_dues == DUES_MAX)
        return;
    f->asked++;
    ask(f);
}

/* All rounds whose LSN is applied. */
static void settle(struct hf_fresh *f)
{
    unsigned done = 0;

    while (done < f->n_dues && f->dues[done].lsn <= f->applied)
        atomic_store(&f->settled, f->dues[done++].round);
    if (done == 0)
        return;
    f->n_dues -= done;
    f->misses = 0;
    memmove(f->dues, f->dues + done, f->n_dues * sizeof f->dues[0]);
    for (unsigned i = 0; i < f->r->n_threads; i++)
        hf_mailbox_post(f->r->threads[i].mailbox, settled_run, &f->r->threads[i]);
    go_on(f);
}

/* The round that whoever has come now has to wait for. */
static uint64_t want(struct hf_fresh *f)
{
    uint64_t round;

    uv_mutex_lock(&f->mutex);
    round = f->asked + 1;
    f->wanted = round;
    go_on(f);
    uv_mutex_unlock(&f->mutex);
    return round;
}

void hf_fresh_told(struct hf_fresh *f, uint64_t seq, uint64_t lsn)
{
    uv_mutex_lock(&f->mutex);
    if (seq == f->asked && f->answered < f->asked) {
        f->answered = f->asked;
        f->dues[f->n_dues++] = (struct due){seq, lsn};
        f->misses = 0;
        settle(f);
        go_on(f);
        if (f->n_dues > 0)
            uv_cond_signal(&f->cond);
    }
    uv_mutex_unlock(&f->mutex);
}

void hf_fresh_over(struct hf_fresh *f)
{
    uv_mutex_lock(&f->mutex);
    f->over = f->wanted = f->answered = f->asked = f->asked + 1; /* whoever waits for one of those finds another server */
    f->n_dues = 0;
    f->applied = 0;
    uv_mutex_unlock(&f->mutex);
}

void hf_fresh_asked(struct hf_fresh *f, uint64_t opening, uint64_t from, uint64_t epoch, uint64_t seq, uint64_t sent_ns)
{
    unsigned i = 0;

    uv_mutex_lock(&f->mutex);
    while (i < f->n_questions && f->questions[i].from != from)
        i++;
    if (i < QUESTIONS_MAX) {
        f->questions[i] = (struct question){opening, from, epoch, seq, sent_ns};
        if (i == f->n_questions)
            f->n_questions++;
        uv_cond_signal(&f->cond);
    }
    uv_mutex_unlock(&f->mutex);
}

/* -- PostgreSQL ----------------------------------------------------------------------------------- */

/* Looked at after the LSN was read: nobody else can have acknowledged anything by then. */
static bool counts(const struct hf_router *r, const struct question *q)
{
    return atomic_load(&r->opening) == q->opening && hf_clock_ns() < atomic_load(&r->lease_deadline_ns);
}

/* The leader's part; one look serves all who have asked before it. What is acknowledged was flushed here before. */
static void answer_all(struct hf_fresh *f, struct hf_link *l)
{
    struct question q[QUESTIONS_MAX];
    unsigned n = f->n_questions;
    uint64_t lsn = 0;
    bool ok;

    memcpy(q, f->questions, n * sizeof *q);
    f->n_questions = 0;
    uv_mutex_unlock(&f->mutex);
    ok = hf_link_lsn(l, "SELECT pg_catalog.pg_current_wal_flush_lsn()", &lsn);
    for (unsigned i = 0; i < n && ok; i++)
        if (counts(f->r, &q[i]))
            post(f, answer_run, &q[i], lsn);
    uv_mutex_lock(&f->mutex);
}

/* The follower's: what is applied? False: look again later. */
static bool look(struct hf_fresh *f, struct hf_link *l)
{
    uint64_t lsn = 0, over = f->over;
    bool ok;

    uv_mutex_unlock(&f->mutex);
    ok = hf_link_lsn(l, "SELECT pg_catalog.pg_last_wal_replay_lsn()", &lsn);
    uv_mutex_lock(&f->mutex);
    if (ok && f->over == over) {
        f->applied = lsn;
        settle(f);
    }
    return ok;
}

static void rest(struct hf_fresh *f, uint64_t ns)
{
    (void)uv_cond_timedwait(&f->cond, &f->mutex, ns);
}

static uint64_t look_again_us(struct hf_fresh *f)
{
    unsigned n = f->misses++;

    return n < SOON ? LOOK_SOON_US : n < LATE ? LOOK_US : LOOK_LATE_US;
}

static void thread_main(void *arg)
{
    struct hf_fresh *f = arg;
    struct hf_link l = {.r = f->r, .dir = f->dir, .stopping = &f->stopping};
    bool out;

    uv_mutex_lock(&f->mutex);
    while (!atomic_load(&f->stopping)) {
        out = f->asked > f->answered;
        if (out && hf_clock_ns() - f->asked_ns >= AGAIN_MS * HF_MS)
            ask(f);
        if (f->n_questions > 0)
            answer_all(f, &l);
        else if (f->n_dues > 0 && !look(f, &l))
            rest(f, LATER_MS * HF_MS);
        else if (f->n_dues > 0)
            rest(f, look_again_us(f) * 1000);
        else if (out)
            rest(f, AGAIN_MS * HF_MS);
        else
            uv_cond_wait(&f->cond, &f->mutex);
    }
    uv_mutex_unlock(&f->mutex);
    hf_link_close(&l);
}

/* -- life ------------------------------------------------------------------------------------------ */

int hf_fresh_open(struct hf_fresh **out, struct hf_router *r, const char *socket_dir)
{
    struct hf_fresh *f = calloc(1, sizeof *f);
    uint32_t begin;

    *out = NULL;
    if (f == NULL)
        return HF_ENOMEM;
    f->r = r;
    (void)snprintf(f->dir, sizeof f->dir, "%s", socket_dir);
    /* Another process' answers, late, are none of ours. */
    if (RAND_bytes((uint8_t *)&begin, sizeof begin) != 1 || uv_mutex_init(&f->mutex) != 0)
        goto no_mutex;
    f->over = f->wanted = f->asked = f->answered = (uint64_t)begin << 24;
    if (uv_cond_init(&f->cond) != 0)
        goto no_cond;
    if (uv_thread_create(&f->id, thread_main, f) != 0)
        goto no_thread;
    *out = f;
    return 0;
no_thread:
    uv_cond_destroy(&f->cond);
no_cond:
    uv_mutex_destroy(&f->mutex);
no_mutex:
    free(f);
    return HF_EIO;
}

void hf_fresh_stop(struct hf_fresh *f)
{
    if (f == NULL)
        return;
    uv_mutex_lock(&f->mutex);
    atomic_store(&f->stopping, true);
    uv_cond_signal(&f->cond);
    uv_mutex_unlock(&f->mutex);
    (void)uv_thread_join(&f->id);
}

void hf_fresh_close(struct hf_fresh *f)
{
    if (f == NULL)
        return;
    uv_cond_destroy(&f->cond);
    uv_mutex_destroy(&f->mutex);
    free(f);
}

/* -- a session's end --------------------------------------------------------------------------------- */

struct hf_waiting_read {
    uint64_t round; /* 0: none, it may go at once */
    uint64_t since_ms;
    size_t n;
    uint8_t bytes[];
};

static bool is_fresh(const struct hf_session *s)
{
    return s->fresh && s->kind == HF_KIND_READER && s->dialogue.started;
}

int hf_fresh_hold(struct hf_session *s, size_t n)
{
    if (!is_fresh(s))
        return 0;
    s->waiting = malloc(sizeof *s->waiting + n);
    if (s->waiting == NULL)
        return -1;
    *s->waiting = (struct hf_waiting_read){.round = want(s->t->r->freshness), .since_ms = uv_now(&s->t->loop), .n = n};
    memcpy(s->waiting->bytes, s->t->scratch, n);
    if (s->key != NULL && !hf_dialogue_owes(&s->dialogue)) /* else a cancel is for what is under way */
        (void)hf_key_waits(&s->t->r->keyring, s->key, true);
    hf_session_count_waiting(s->t, 1);
    atomic_fetch_add(&s->t->r->reads_waited, 1);
    return 1;
}

static bool is_settled(const struct hf_session *s)
{
    const struct hf_router *r = s->t->r;
    uint64_t round = s->waiting->round;

    return round == 0 || !is_fresh(s) || round <= atomic_load(&r->freshness->settled);
}

bool hf_fresh_waits(const struct hf_session *s)
{
    return s->waiting != NULL && !is_settled(s);
}

bool hf_fresh_has_more(const struct hf_session *s)
{
    return s->waiting != NULL && is_settled(s);
}

size_t hf_fresh_take_more(struct hf_session *s, uint8_t *out)
{
    size_t n = s->waiting->n;

    memcpy(out, s->waiting->bytes, n);
    hf_fresh_free(s);
    return n;
}

void hf_fresh_sent(struct hf_session *s)
{
    struct hf_router *r = s->t->r;
    struct hf_secret secret;

    if (!is_fresh(s) || s->key == NULL || !hf_key_waits(&r->keyring, s->key, false))
        return;
    secret = hf_secret_make(s->key->pid, s->key->bytes, s->key->len);
    hf_canceller_cancel(r->canceller, -1, false, &secret, NULL);
}

void hf_fresh_restart(struct hf_session *s)
{
    if (s->waiting != NULL)
        s->waiting->round = s->fresh && s->kind == HF_KIND_READER ? want(s->t->r->freshness) : 0;
}

void hf_fresh_free(struct hf_session *s)
{
    if (s->waiting == NULL)
        return;
    hf_session_count_waiting(s->t, -1);
    free(s->waiting);
    s->waiting = NULL;
}

/* The follower does not get there, or the leader does not say how far it is: the leader serves it from now on. Not while the client has yet to
 * take what was answered before: that is kept by this server's connection. */
void hf_fresh_look(struct hf_session *s)
{
    if (!hf_fresh_waits(s) || s->down.len > 0 || uv_now(&s->t->loop) - s->waiting->since_ms < HF_FRESH_MS)
        return;
    atomic_fetch_add(&s->t->r->reads_given_up, 1);
    s->to_leader = true;
    if (s->from_tunnel && hf_dialogue_is_idle(&s->dialogue))
        hf_session_leave(s); /* what waits was not taken: its front takes it to the leader */
    else if (s->from_tunnel)
        hf_session_close(s);
    else if (!hf_survive_loss(s))
        hf_session_refuse(s, "57P01", "no follower is fresh enough", "Connect again.");
}
