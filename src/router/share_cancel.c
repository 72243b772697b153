/* A cancel for a session that waits for a server connection: the wait ends. */
#include <stdlib.h>

#include "router/share_private.h"

/* All that has come, of TLS also what is in more than one record: it matters whether there is something behind a statement. */
static ssize_t read_all(struct hf_session *s, uint8_t *bytes, size_t cap)
{
    ssize_t n = hf_front_read(s, bytes, cap), more = n;

    while (more > 0 && (size_t)n < cap) {
        hf_end_look(s->front);
        more = hf_front_read(s, bytes + n, cap - (size_t)n);
        n += more > 0 ? more : 0; /* an end is seen again */
    }
    return n;
}

void hf_share_answer_cancelled(struct hf_session *s)
{
    uint8_t *bytes = s->t->scratch;
    size_t rest = 0;
    bool heard = false;
    ssize_t n;

    do { /* what has no room any more may be within OpenSSL, and the socket does not tell of that */
        n = read_all(s, bytes, HF_ROUTER_CLIENT_BYTES);
        if (n < 0)
            hf_session_close(s);
        if (n < 0 || (n == 0 && !heard))
            return;
        if (n == 0)
            break;
        heard = true;
        hf_session_count(s, (size_t)n, 0);
        hf_share_heard(s);
        rest = hf_survive_client(s, bytes, (size_t)n);
    } while (rest == 0 && n == HF_ROUTER_CLIENT_BYTES && s->state == HF_SESSION_POOLED);
    if (s->state != HF_SESSION_POOLED)
        return;
    if (rest == 0) {
        if (s->survive->filter == HF_FILTER_CANCEL && s->survive->client.have == 0)
            s->survive->filter = HF_FILTER_NONE; /* there was no statement: what comes next is not meant */
        hf_end_want(s->front, hf_front_events(s, UV_READABLE));
        return;
    }
    if (!hf_survive_keep(s, bytes, rest))
        hf_session_lose(s, "out of memory");
    else
        hf_share_serve(s);
}

struct cancellation {
    struct hf_thread *t;
    uint64_t id;
};

/* Has the client asked for something that no server has been told yet? */
static bool waits(const struct hf_session *s)
{
    return s->share != NULL && s->state != HF_SESSION_LINGER && s->share->spoken && !hf_survive_has_more(s) && !hf_survive_is_filtering(s) &&
           !s->survive->failed;
}

static void cancel_run(void *arg)
{
    struct cancellation *c = arg;
    struct hf_session *s = c->t->sessions;

    uv_update_time(&c->t->loop);
    while (s != NULL && s->id != c->id)
        s = s->next;
    free(c);
    if (s == NULL || !waits(s))
        return;
    s->survive->filter = HF_FILTER_CANCEL;
    s->survive->inside = false;
    hf_share_leave_line(s);
    hf_share_give_up(s); /* of a connection that is being made, or made equal, nobody knows how it is */
    hf_share_answer_cancelled(s);
}

void hf_share_cancel(struct hf_thread *t, uint64_t id)
{
    struct cancellation *c = malloc(sizeof *c);

    if (c == NULL)
        return;
    *c = (struct cancellation){t, id};
    uv_mutex_lock(&t->r->pools_lock);
    if (!t->ended) {
        hf_mailbox_post(t->mailbox, cancel_run, c);
        c = NULL;
    }
    uv_mutex_unlock(&t->r->pools_lock);
    free(c);
}
