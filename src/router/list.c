#include "router/list.h"

#include <netdb.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <time.h>

#include "router/session.h"
#include "router/survive.h"

/* One question to all threads. */
struct listing {
    struct hf_router *r;
    uint64_t kill; /* 0: list */
    hf_router_list_cb done;
    void *ctx;
    unsigned left;
    struct hf_session_info *infos;
    size_t n;
};

/* A thread's part of the answer. */
struct part {
    struct listing *l;
    struct hf_thread *t;
    struct hf_session_info *infos;
    size_t n;
};

static void *must(void *p)
{
    if (p == NULL)
        abort(); /* a few hundred kilobytes at most */
    return p;
}

/* -- on the sessions' thread ----------------------------------------------------------------- */

static const char *place_of(const struct hf_session *s)
{
    static const char *const kinds[] = {[HF_KIND_NONE] = "",
                                        [HF_KIND_GATE] = "leader",
                                        [HF_KIND_TUNNEL] = "elsewhere",
                                        [HF_KIND_READER] = "follower"};

    if (s->cancel)
        return "cancel";
    switch (s->state) {
    case HF_SESSION_STARTUP:
    case HF_SESSION_ASKING:
    case HF_SESSION_SASL:
        return "starting";
    case HF_SESSION_HELD:
    case HF_SESSION_DIALING:
        return "held";
    case HF_SESSION_PIPE:
        return kinds[s->kind];
    case HF_SESSION_POOLED:
        return "pooled";
    case HF_SESSION_QUEUED:
        return "waiting";
    default:
        return "ending";
    }
}

static const char *state_of(const struct hf_session *s)
{
    const struct hf_dialogue *d = &s->dialogue;

    if (s->state == HF_SESSION_POOLED)
        return "idle";
    if (s->state != HF_SESSION_PIPE)
        return "";
    if (s->withheld)
        return "withheld";
    if (!d->started)
        return "login";
    if (d->pending > 0 || d->batch)
        return "active";
    return d->status == 'I' ? "idle" : d->status == 'T' ? "in transaction" : "failed transaction";
}

static const char *holds_of(const struct hf_session *s)
{
    enum hf_hold by;

    if (s->state == HF_SESSION_POOLED)
        return "free";
    if (s->holds == NULL || s->state != HF_SESSION_PIPE)
        return "";
    by = hf_holds_by(s->holds);
    return by == HF_HOLD_NOTHING ? "free" : hf_hold_name(by);
}

static void peer_text(const struct hf_session *s, char *out, size_t cap)
{
    struct sockaddr_storage sa;
    socklen_t len = sizeof sa;
    char host[48], port[8];

    (void)snprintf(out, cap, "%s", s->from_tunnel ? "another node" : "?");
    if (!s->from_tunnel && getpeername(s->front->fd, (struct sockaddr *)&sa, &len) == 0 &&
        getnameinfo((struct sockaddr *)&sa, len, host, sizeof host, port, sizeof port,
                    NI_NUMERICHOST | NI_NUMERICSERV) == 0)
        (void)snprintf(out, cap, strchr(host, ':') != NULL ? "[%s]:%s" : "%s:%s", host, port);
}

static void fill(struct hf_session_info *i, const struct hf_session *s, uint64_t wall_ms)
{
    *i = (struct hf_session_info){.id = s->id,
                                  .place = place_of(s),
                                  .state = state_of(s),
                                  .holds = holds_of(s),
                                  .since_unix_ms = wall_ms - (uv_now(&s->t->loop) - s->arrived_ms),
                                  .bytes_in = s->bytes_in,
                                  .bytes_out = s->bytes_out,
                                  .far = s->far,
                                  .pid = s->dialogue.key_known ? s->dialogue.pid : 0,
                                  .tls = s->tls != NULL,
                                  .read_only = s->read_only,
                                  .carried = s->from_tunnel};
    if (hf_survive_pid(s) != 0 || s->share != NULL) /* whoever shares has a key of our own making */
        i->pid = hf_survive_pid(s);
    peer_text(s, i->peer, sizeof i->peer);
    if (s->who != NULL) {
        memcpy(i->user, s->who->user, sizeof i->user);
        memcpy(i->database, s->who->database, sizeof i->database);
        memcpy(i->application, s->who->application, sizeof i->application);
    }
}

static void list(struct part *p)
{
    struct timespec now;
    size_t n = 0;

    (void)clock_gettime(CLOCK_REALTIME, &now);
    uv_update_time(&p->t->loop);
    for (const struct hf_session *s = p->t->sessions; s != NULL; s = s->next)
        n++;
    p->infos = must(calloc(n + 1, sizeof *p->infos));
    for (const struct hf_session *s = p->t->sessions; s != NULL; s = s->next)
        fill(&p->infos[p->n++], s, (uint64_t)now.tv_sec * 1000 + (uint64_t)now.tv_nsec / 1000000);
}

static void end_one(struct part *p)
{
    for (struct hf_session *s = p->t->sessions; s != NULL; s = s->next) {
        if (s->id != p->l->kill || s->state == HF_SESSION_LINGER)
            continue;
        hf_session_refuse(s, "57P01", "terminating connection due to administrator command", NULL);
        p->n = 1;
        return;
    }
}

static void answer_run(void *arg);

static void part_run(void *arg)
{
    struct part *p = arg;

    if (p->l->kill != 0)
        end_one(p);
    else
        list(p);
    hf_mailbox_post(p->l->r->control, answer_run, p);
}

/* -- on the host's loop ---------------------------------------------------------------------- */

static int by_id(const void *a, const void *b)
{
    const struct hf_session_info *x = a, *y = b;

    return x->id < y->id ? -1 : x->id > y->id;
}

static void answer_run(void *arg)
{
    struct part *p = arg;
    struct listing *l = p->l;

    if (p->infos != NULL) {
        l->infos = must(realloc(l->infos, (l->n + p->n + 1) * sizeof *l->infos));
        memcpy(l->infos + l->n, p->infos, p->n * sizeof *l->infos);
    }
    l->n += p->n;
    free(p->infos);
    free(p);
    if (--l->left > 0)
        return;
    if (l->infos != NULL)
        qsort(l->infos, l->n, sizeof *l->infos, by_id);
    l->done(l->ctx, l->infos, l->n);
    free(l->infos);
    free(l);
}

static void ask(struct hf_router *r, uint64_t kill, hf_router_list_cb done, void *ctx)
{
    struct listing *l = must(calloc(1, sizeof *l));

    *l = (struct listing){.r = r, .kill = kill, .done = done, .ctx = ctx, .left = r->n_threads};
    for (unsigned i = 0; i < r->n_threads; i++) {
        struct part *p = must(calloc(1, sizeof *p));
        *p = (struct part){.l = l, .t = &r->threads[i]};
        hf_mailbox_post(p->t->mailbox, part_run, p);
    }
}

void hf_router_list(struct hf_router *r, hf_router_list_cb done, void *ctx)
{
    ask(r, 0, done, ctx);
}

void hf_router_kill(struct hf_router *r, uint64_t id, hf_router_list_cb done, void *ctx)
{
    if (id == 0)
        done(ctx, NULL, 0);
    else
        ask(r, id, done, ctx);
}
