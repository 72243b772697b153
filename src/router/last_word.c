/* A session's end: what its client hears of it, and what the log says. A client that was let in is never left without both, but by its
 * own will; what cannot be said to it (in the middle of a message, or behind the server's own last word) is in the log alone. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <openssl/crypto.h>

#include "base/log.h"
#include "router/login.h"
#include "router/session.h"
#include "router/share.h"
#include "router/survive.h"

enum {
    LINGER_BYTES = 1024 * 1024,
    ENDS_LOGGED = 20, /* in a second, by each thread: all may end at once */
};

/* -- counted, and logged ------------------------------------------------------------------------------------- */

/* True: it may have a line; *more: so many had none since the last one. */
static bool may_log(struct hf_thread *t, unsigned *more)
{
    uint64_t now = uv_now(&t->loop);

    *more = 0;
    if (now - t->ends_since_ms >= 1000) {
        *more = t->ends > ENDS_LOGGED ? t->ends - ENDS_LOGGED : 0;
        t->ends_since_ms = now;
        t->ends = 0;
    }
    return ++t->ends <= ENDS_LOGGED;
}

const char *hf_router_ended_word(enum hf_ended how)
{
    static const char *const words[] = {[HF_ENDED_57P01] = "57P01", [HF_ENDED_57P03] = "57P03", [HF_ENDED_57P05] = "57P05",
                                        [HF_ENDED_08007] = "08007", [HF_ENDED_53300] = "53300", [HF_ENDED_OTHER] = "other",
                                        [HF_ENDED_POSTGRESQL] = "postgresql", [HF_ENDED_UNTOLD] = "nothing"};

    return words[how];
}

static enum hf_ended told_by(const char *sqlstate)
{
    int how = 0;

    while (how < HF_ENDED_OTHER && strcmp(sqlstate, hf_router_ended_word((enum hf_ended)how)) != 0)
        how++;
    return (enum hf_ended)how;
}

/* Of those who were let in, where they are connected. */
static void log_end(const struct hf_session *s, enum hf_ended how, const char *text, const char *detail)
{
    bool told = how != HF_ENDED_UNTOLD;
    char user[HF_WHO_MAX];
    unsigned more;

    if (s->from_tunnel || s->cancel || !s->answered || s->state == HF_SESSION_LINGER)
        return;
    atomic_fetch_add(&s->t->r->ended[how], 1);
    if (s->t->stopping || !may_log(s->t, &more))
        return;
    if (more > 0)
        hf_info("router: %u more sessions have ended before that", more);
    (void)snprintf(user, sizeof user, "%s", s->who != NULL ? s->who->user : "");
    hf_wire_printable(user);
    hf_info("router: session %llu of \"%s\" is ended%s: %s%s%s", (unsigned long long)s->id, user, told ? "" : ", without a word to its client", text,
            detail != NULL ? ". " : "", detail != NULL ? detail : "");
}

/* -- the end --------------------------------------------------------------------------------------- */

int hf_session_detach(struct hf_session *s)
{
    struct hf_thread *t = s->t;

    hf_share_leave(s);
    hf_session_end_back(s);
    hf_session_await(s, HF_SESSION_CLOSED);
    *s->at = s->next;
    if (s->next != NULL)
        s->next->at = s->at;
    hf_session_admit(s, false);
    atomic_fetch_sub(&t->r->n_sessions, 1);
    if (s->tls != NULL)
        atomic_fetch_sub(&t->r->n_tls, 1);
    hf_front_free(s);
    hf_login_free(s);
    hf_share_free(s);
    hf_survive_free(s);
    hf_fresh_free(s);
    free(s->ticket);
    s->ticket = NULL;
    OPENSSL_cleanse(&s->keys, sizeof s->keys);
    free(s->who);
    s->who = NULL;
    hf_holds_free(s->holds);
    s->holds = NULL;
    free(s->first);
    s->first = NULL;
    s->front->last = s; /* callers up the stack may still look at the state */
    hf_thread_check_drained(t);
    return hf_end_take(s->front);
}

void hf_session_close(struct hf_session *s)
{
    if (s->state != HF_SESSION_CLOSED)
        close(hf_session_detach(s));
}

/* A close with unread bytes makes TCP drop what was sent before it: the client would miss our last
 * word. So the client's are read and thrown away for a while. */
void hf_session_linger(struct hf_session *s)
{
    for (;;) {
        ssize_t n = hf_end_read(s->front, s->t->scratch, sizeof s->t->scratch);
        if (n == 0) {
            hf_end_want(s->front, UV_READABLE);
            return;
        }
        if (n > 0)
            s->lingered += (size_t)n;
        if (n < 0 || s->lingered > LINGER_BYTES) {
            hf_session_close(s);
            return;
        }
    }
}

static void end_saying(struct hf_session *s, const uint8_t *last_word, size_t n)
{
    if (n > 0)
        (void)hf_front_write(s, last_word, n); /* best effort, as in PostgreSQL */
    hf_share_leave(s);
    hf_session_end_back(s);
    hf_session_admit(s, false);
    if (s->t->stopping || s->state == HF_SESSION_LINGER) {
        hf_session_close(s);
        return;
    }
    hf_front_say_end(s);
    hf_session_await(s, HF_SESSION_LINGER);
    s->since_ms = uv_now(&s->t->loop);
    hf_session_linger(s);
}

/* May an error of ours be put here? */
static bool may_speak(const struct hf_session *s)
{
    const struct hf_dialogue *d = &s->dialogue;

    if (s->state == HF_SESSION_LINGER || s->state == HF_SESSION_CLOSED || hf_front_is_shaking(s))
        return false;
    if (s->state != HF_SESSION_PIPE || hf_survive_is_moving(s))
        return true;
    return s->down.len == 0 && hf_dialogue_may_speak(d) && (!s->from_tunnel || !d->started || !hf_dialogue_owes(d));
}

/* It is the answer to something that was asked: was that done? */
static bool is_unknown(const struct hf_session *s)
{
    return hf_survive_is_unknown(s) ||
           (s->state == HF_SESSION_PIPE && s->dialogue.started && !hf_survive_is_moving(s) && hf_dialogue_owes(&s->dialogue));
}

void hf_session_refuse(struct hf_session *s, const char *sqlstate, const char *text, const char *hint)
{
    const char *detail = NULL;
    bool told = may_speak(s);
    uint8_t out[1024];
    size_t n = 0;

    if (s->state == HF_SESSION_CLOSED)
        return;
    if (told && is_unknown(s)) {
        sqlstate = "08007";
        detail = "Whether what was under way was done is not known.";
    }
    if (told)
        n = hf_wire_error(out, sizeof out, "FATAL", sqlstate, text, detail, hint);
    log_end(s, told ? told_by(sqlstate) : s->dialogue.last == 'E' ? HF_ENDED_POSTGRESQL : HF_ENDED_UNTOLD, text, NULL);
    end_saying(s, out, n);
}

void hf_session_end_with(struct hf_session *s, const char *sqlstate, const char *text, const char *detail, const char *hint)
{
    uint8_t out[1024];

    if (hf_survive_is_unknown(s))
        sqlstate = "08007";
    log_end(s, told_by(sqlstate), text, detail);
    end_saying(s, out, hf_wire_error(out, sizeof out, "FATAL", sqlstate, text, detail, hint));
}

void hf_session_lose(struct hf_session *s, const char *why)
{
    hf_session_refuse(s, "57P01", why, "Connect again.");
}

void hf_session_drop(struct hf_session *s, const char *why)
{
    if (s->state == HF_SESSION_CLOSED)
        return;
    log_end(s, HF_ENDED_UNTOLD, why, NULL);
    hf_session_close(s);
}

void hf_session_leave(struct hf_session *s)
{
    uint8_t out[HF_WIRE_TAKEN_BYTES];

    if (s->answered && s->dialogue.started && !hf_session_is_busy(s))
        end_saying(s, out, hf_wire_taken(out, s->taken));
    else
        hf_session_close(s);
}
