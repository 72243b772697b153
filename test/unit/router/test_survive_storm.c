/* Sessions lose their servers at random moments, thousands of times; PostgreSQL is a model that knows what it has done. What must
 * hold: nothing is done twice; what is said to be done is done, and what is said not to be done is not; a transaction is done
 * as a whole or not at all, though its client goes on after errors; every question has its one answer; and who holds something, as its
 * server has said and it has heard, never gets another server. */
#include <errno.h>
#include <stdio.h>
#include <sys/socket.h>
#include <unistd.h>

#include "outlive.h"

enum { IDS = 20000, OUT_MAX = 1 << 16, PENDING_MAX = 64 };

static uint64_t seed;

static unsigned dice(unsigned n)
{
    seed = seed * 6364136223846793005ull + 1442695040888963407ull;
    return (unsigned)(seed >> 33) % n;
}

/* -- the model of PostgreSQL ------------------------------------------------------------------------ */

static struct id {
    bool seen, committed;
} ids[IDS];

struct model {
    int fd;
    uint8_t in[OUT_MAX], out[OUT_MAX];
    size_t in_len, out_len;
    char status;
    bool implicit, skipping;
    unsigned pending[PENDING_MAX], n; /* of the open transaction */
    bool held, said;                  /* a lock; and what its guard has said last */
    char parsed[256];
};

static void put(struct model *m, char type, const void *body, size_t n)
{
    uint8_t *p = m->out + m->out_len;

    assert_true(m->out_len + 5 + n <= sizeof m->out);
    p[0] = (uint8_t)type;
    hf_scan_put(p + 1, (uint32_t)n + 4);
    memcpy(p + 5, body, n);
    m->out_len += 5 + n;
}

static void put_error(struct model *m, const char *sqlstate)
{
    char body[64];
    size_t n = (size_t)snprintf(body, sizeof body, "SERROR%cVERROR%cC%s%cMno%c", 0, 0, sqlstate, 0, 0) + 1;

    put(m, 'E', body, n);
    m->n = 0;
    m->implicit = false;
    if (m->status == 'T')
        m->status = 'E';
}

static void put_tag(struct model *m, const char *tag)
{
    put(m, 'C', tag, strlen(tag) + 1);
}

static void commit(struct model *m)
{
    for (unsigned i = 0; i < m->n; i++) {
        assert_false(ids[m->pending[i]].committed);
        ids[m->pending[i]].committed = true;
    }
    m->n = 0;
    m->implicit = false;
}

/* False: it has failed. */
static bool run(struct model *m, const char *text)
{
    unsigned id;

    if (strcmp(text, "COMMIT") == 0) {
        put_tag(m, m->status == 'E' ? "ROLLBACK" : "COMMIT");
        if (m->status != 'E')
            commit(m);
        m->status = 'I';
    } else if (strcmp(text, "ROLLBACK") == 0) {
        m->n = 0;
        m->status = 'I';
        put_tag(m, "ROLLBACK");
    } else if (m->status == 'E') {
        put_error(m, "25P02");
        return false;
    } else if (strcmp(text, "BEGIN") == 0) {
        assert_int_equal(m->status, 'I');
        m->status = 'T';
        put_tag(m, "BEGIN");
    } else if (sscanf(text, "INSERT INTO t VALUES (%u)", &id) == 1) {
        assert_true(id < IDS);
        assert_false(ids[id].seen); /* never twice */
        ids[id].seen = true;
        assert_true(m->n < PENDING_MAX);
        m->pending[m->n++] = id;
        put_tag(m, "INSERT 0 1");
    } else if (strncmp(text, "ROLLBACK TO", 11) == 0) {
        put_error(m, "3B001");
        return false;
    } else {
        m->held = (m->held || strcmp(text, "SELECT take()") == 0) && strcmp(text, "SELECT give()") != 0;
        put_tag(m, strncmp(text, "SET", 3) == 0 ? "SET" : "SELECT 1");
    }
    return true;
}

static void ready(struct model *m)
{
    static const char lock[] = HF_HOLDS_PARAMETER "\0lock", none[] = HF_HOLDS_PARAMETER "\0none";

    if (m->status == 'I')
        commit(m);
    if (m->held != m->said)
        put(m, 'S', m->held ? lock : none, m->held ? sizeof lock : sizeof none);
    m->said = m->held;
    put(m, 'Z', &m->status, 1);
}

static void take(struct model *m, const uint8_t *p)
{
    const char *body = (const char *)p + 5;

    if (m->skipping && p[0] != 'S')
        return;
    switch (p[0]) {
    case 'Q':
        (void)run(m, body);
        ready(m);
        break;
    case 'P':
        (void)snprintf(m->parsed, sizeof m->parsed, "%s", body + strlen(body) + 1);
        put(m, '1', "", 0);
        break;
    case 'B':
        put(m, '2', "", 0);
        break;
    case 'C':
        put(m, '3', "", 0);
        break;
    case 'E':
        m->skipping = !run(m, m->parsed);
        break;
    case 'S':
        m->skipping = false;
        ready(m);
        break;
    default:
        break;
    }
}

/* Up to `messages` of them are done; what it says is not sent yet. */
static void model_take(struct model *m, unsigned messages)
{
    ssize_t n = recv(m->fd, m->in + m->in_len, sizeof m->in - m->in_len, MSG_DONTWAIT);
    size_t at = 0, len;

    if (n > 0)
        m->in_len += (size_t)n;
    while (messages-- > 0 && m->in_len - at >= 5 && m->in_len - at >= (len = 1 + (size_t)hf_scan_number(m->in + at + 1))) {
        take(m, m->in + at);
        at += len;
    }
    memmove(m->in, m->in + at, m->in_len - at);
    m->in_len -= at;
}

static void model_say(struct model *m, size_t most)
{
    size_t n = most < m->out_len ? most : m->out_len;
    ssize_t sent = n > 0 ? send(m->fd, m->out, n, MSG_NOSIGNAL | MSG_DONTWAIT) : 0;

    if (sent <= 0)
        return;
    memmove(m->out, m->out + sent, m->out_len - (size_t)sent);
    m->out_len -= (size_t)sent;
}

static void model_begin(struct model *m, struct fixture *f)
{
    *m = (struct model){.fd = server_accept(f), .status = 'I'};
    server_log_in(m->fd);
}

/* -- the client ------------------------------------------------------------------------------------- */

struct part { /* of what it has asked: up to a ReadyForQuery */
    unsigned ids[8], n;
    unsigned due;         /* answers to Parse, Bind and Execute: an error in their place is that of all up to the Sync */
    bool synced;          /* ends there, and not with a Query */
    bool begins, commits;
    bool takes, gives; /* a lock: the last of the two */
    char sqlstate[6]; /* what it heard */
    char status; /* then */
    char tag[16]; /* the last one */
};

struct client {
    int fd;
    uint8_t in[OUT_MAX];
    size_t len;
    struct part parts[16];
    unsigned n, at;
    char status;
    bool over, holds;
};

static void client_hear_error(struct client *c, const char *sqlstate)
{
    struct part *p = &c->parts[c->at];
    bool passes = p->due > 0;

    assert_string_equal(p->sqlstate, "");
    memcpy(p->sqlstate, sqlstate, 5);
    for (; passes && !c->parts[c->at].synced; c->at++) {
        assert_true(c->at + 1 < c->n);
        memcpy(c->parts[c->at + 1].sqlstate, sqlstate, 5);
    }
}

static void client_hear(struct client *c)
{
    ssize_t n = recv(c->fd, c->in + c->len, sizeof c->in - c->len, MSG_DONTWAIT);
    size_t at = 0, len;

    c->over = c->over || n == 0 || (n < 0 && errno != EAGAIN);
    if (n > 0)
        c->len += (size_t)n;
    for (; c->len - at >= 5 && c->len - at >= (len = 1 + (size_t)hf_scan_number(c->in + at + 1)); at += len) {
        const char *body = (const char *)c->in + at + 5;
        struct part *p = &c->parts[c->at];
        assert_non_null(strchr("123CEZS", c->in[at]));
        if (c->in[at] == 'S')
            continue;
        if (c->in[at] == 'E' && memcmp(body, "SFATAL", 6) == 0) {
            c->over = true;
            return;
        }
        assert_true(c->at < c->n); /* nothing that was not asked for */
        if (c->in[at] == 'E') {
            client_hear_error(c, body + 15);
        } else if (c->in[at] != 'Z') {
            assert_string_equal(p->sqlstate, "");
            p->due -= p->due > 0 && c->in[at] != '3';
            if (c->in[at] == 'C')
                (void)snprintf(p->tag, sizeof p->tag, "%s", body);
        } else {
            p->status = c->status = body[0];
            c->holds = (c->holds || (p->takes && p->sqlstate[0] == '\0')) && !p->gives;
            c->at++;
        }
    }
    memmove(c->in, c->in + at, c->len - at);
    c->len -= at;
}

static size_t put_message(uint8_t *out, char type, const char *a, const char *b)
{
    size_t n = strlen(a) + 1, k = strlen(b) + 1;

    out[0] = (uint8_t)type;
    memcpy(out + 5, a, n);
    if (type == 'P') {
        memcpy(out + 5 + n, b, k);
        memset(out + 5 + n + k, 0, 2);
        n += k + 2;
    } else if (type != 'Q') {
        n = type == 'B' ? 8 : type == 'E' ? 5 : type == 'C' ? 2 : 0;
        memset(out + 5, 0, n);
        if (type == 'C')
            out[5] = 'S';
    }
    hf_scan_put(out + 1, (uint32_t)n + 4);
    return 5 + n;
}

static size_t put_statement(uint8_t *out, struct part *p, bool simple, const char *text)
{
    size_t n;

    if (!simple)
        p->due += 3;
    if (simple) { /* some with a Close before it, and no Sync */
        n = dice(4) == 0 ? put_message(out, 'C', "", "") : 0;
        return n + put_message(out + n, 'Q', text, "");
    }
    n = put_message(out, 'P', "", text);
    n += put_message(out + n, 'B', "", "");
    return n + put_message(out + n, 'E', "", "");
}

static unsigned next_id;

/* A part, or some of them in one go. Returns their bytes. `inside`: the client believes to be in a transaction. */
static size_t ask_something(struct client *c, uint8_t *out, bool *inside)
{
    bool simple = dice(2) == 0;
    unsigned parts = dice(4) == 0 ? 1 + dice(4) : 1;
    size_t len = 0;

    c->n = c->at = 0;
    for (unsigned i = 0; i < parts; i++) {
        struct part *p = &c->parts[c->n++];
        unsigned statements = simple ? 1 : 1 + dice(3);
        *p = (struct part){.synced = !simple && (i + 1 == parts || dice(4) != 0)};
        for (unsigned k = 0; k < statements; k++) {
            char text[64] = "SELECT 1";
            unsigned what = dice(8);
            if (what == 0 && !*inside) {
                (void)snprintf(text, sizeof text, "BEGIN");
                *inside = p->begins = true;
            } else if (what == 1 && *inside) {
                (void)snprintf(text, sizeof text, "COMMIT");
                *inside = false;
                p->commits = true;
            } else if (what == 2 && *inside) {
                (void)snprintf(text, sizeof text, "ROLLBACK");
                *inside = false;
            } else if (what == 3) {
                (void)snprintf(text, sizeof text, "SET a.b = %u", dice(3));
            } else if (what == 4) {
                p->takes = dice(2) == 0;
                p->gives = !p->takes;
                (void)snprintf(text, sizeof text, "SELECT %s()", p->takes ? "take" : "give");
            } else if (what < 7) {
                p->ids[p->n++] = next_id;
                (void)snprintf(text, sizeof text, "INSERT INTO t VALUES (%u)", next_id++);
            }
            if (p->commits || (!simple && strcmp(text, "ROLLBACK") == 0))
                statements = k + 1;
            len += put_statement(out + len, p, simple || (k + 1 == statements && !p->synced), text);
        }
        if (p->synced)
            len += put_message(out + len, 'S', "", "");
    }
    return len;
}

static void show(const struct client *c)
{
    for (unsigned i = 0; i < c->n; i++) {
        print_message("part %u: %s %s %c", i, c->parts[i].tag, c->parts[i].sqlstate, c->parts[i].status != 0 ? c->parts[i].status : '-');
        for (unsigned k = 0; k < c->parts[i].n; k++)
            print_message(", %u %s", c->parts[i].ids[k],
                          ids[c->parts[i].ids[k]].committed ? "committed" : ids[c->parts[i].ids[k]].seen ? "seen" : "");
        print_message("\n");
    }
}

/* -- the storm -------------------------------------------------------------------------------------- */

static unsigned n_losses, n_ended, n_unknown, n_undone, n_done;

/* Of one part alone, outside a transaction at its beginning and at its end. */
static void check_alone(const struct part *p)
{
    bool unknown = strcmp(p->sqlstate, "08007") == 0;

    n_unknown += unknown;
    n_undone += strcmp(p->sqlstate, "40001") == 0;
    for (unsigned i = 0; i < p->n; i++) {
        if (p->sqlstate[0] == '\0')
            assert_true(ids[p->ids[i]].committed), n_done++;
        else if (!unknown)
            assert_false(ids[p->ids[i]].committed);
    }
}

/* A client that sends BEGIN, statements and COMMIT and looks at nothing: all of it is done, or nothing. But a simple BEGIN that has
 * failed alone has begun nothing. */
static void check_whole(const struct client *c)
{
    const struct part *last = &c->parts[c->n - 1 - !c->parts[c->n - 1].commits];
    bool committed = strcmp(last->tag, "COMMIT") == 0 && last->sqlstate[0] == '\0';
    bool undone = strcmp(last->tag, "ROLLBACK") == 0 || strcmp(last->sqlstate, "40001") == 0;
    unsigned done = 0, all = 0;

    if (c->parts[0].n == 0 && c->parts[0].sqlstate[0] != '\0' && c->parts[0].status == 'I')
        return;
    for (unsigned i = 0; i < c->n; i++)
        for (unsigned k = 0; k < c->parts[i].n; k++, all++)
            done += ids[c->parts[i].ids[k]].committed;
    if ((done == 0 || done == all) && (!committed || done == all) && (!undone || done == 0))
        return;
    show(c);
    fail_msg("not as it was said");
}

static uint64_t epoch;

/* A PostgreSQL that is not there any more is connected to again. */
static bool is_connecting(struct fixture *f)
{
    return server_is_asked(f, 0);
}

/* Those that nobody waits for any more. */
static void drop_connections(struct fixture *f)
{
    while (is_connecting(f))
        close(accept(f->server, NULL, NULL));
}

static void lose_it(struct fixture *f, struct model *m)
{
    unsigned before = f->shut;

    n_losses++;
    if (dice(2) == 0) { /* it dies */
        close(m->fd);
        run_for(f, 1);
        return;
    }
    hf_router_gate_shut(f->r);
    run_until(f, &f->shut, before + 1);
    close(m->fd);
    drop_connections(f);
    fixture_open_gate(f, ++epoch);
}

static void open_both(struct fixture *f, struct client *c, struct model *m)
{
    int fd = client_start(f, false);

    *c = (struct client){.fd = fd, .status = 'I'};
    model_begin(m, f);
    hear_ready(f, fd, 'I');
}

/* The client's bytes go, and answers come, with losses in between, until all is answered or the session has ended. */
static void converse(struct fixture *f, struct client *c, struct model *m, const uint8_t *bytes, size_t len, unsigned losses)
{
    uint64_t until = uv_hrtime() + PATIENCE_MS * 1000000ull;
    size_t sent = 0, at = 0; /* `at`: the message that is not sent as a whole */

    while (c->at < c->n && !c->over && uv_hrtime() < until) {
        if (sent < len) {
            size_t one = 1 + (size_t)hf_scan_number(bytes + at + 1), some = at + one - sent;
            if (losses == 0 || dice(4) == 0)
                some = len - sent;
            else if (dice(20) == 0)
                some = 1 + dice((unsigned)some);
            ssize_t n = send(c->fd, bytes + sent, some, MSG_NOSIGNAL | MSG_DONTWAIT);
            sent += n > 0 ? (size_t)n : 0;
            while (at < sent && at + 1 + (size_t)hf_scan_number(bytes + at + 1) <= sent)
                at += 1 + (size_t)hf_scan_number(bytes + at + 1);
        }
        run_for(f, 0);
        if (is_connecting(f)) {
            assert_false(c->holds);
            close(m->fd);
            model_begin(m, f);
        }
        model_take(m, dice(2) == 0 ? 1 + dice(3) : 100);
        model_say(m, losses > 0 && dice(12) == 0 ? dice(40) : dice(2) == 0 ? 0 : OUT_MAX);
        run_for(f, 0);
        client_hear(c);
        if (losses > 0 && dice(6) == 0) {
            losses--;
            m->n = 0; /* it is gone, and what it had not committed */
            m->in_len = m->out_len = 0;
            lose_it(f, m);
            m->fd = -1;
        }
    }
    if (c->over || c->at == c->n)
        return;
    show(c);
    for (unsigned i = 0; i < HF_ROUTER_THREADS; i++)
        for (const struct hf_session *s = f->r->threads[i].sessions; s != NULL; s = s->next)
            print_message("session: state %d, status %c, %u owed\n", (int)s->state, s->dialogue.status, s->dialogue.pending);
    fail_msg("no answer to part %u of %u: %zu of %zu bytes sent, the server has %zu and the client %zu", c->at, c->n, sent, len, m->in_len, c->len);
}

static void storm(void **state)
{
    struct fixture *f = follow(0);
    static struct model m;
    static struct client c;
    static uint8_t bytes[OUT_MAX];
    const char *given = getenv("HOLDFAST_SEED"); /* longer, and another one each time */

    (void)state;
    seed = given != NULL ? strtoull(given, NULL, 10) : 1;
    fixture_open_gate(f, ++epoch);
    open_both(f, &c, &m);
    for (unsigned i = 0; i < (given != NULL ? 1500 : 400) && next_id + 100 < IDS; i++) {
        bool inside = false, whole = dice(2) == 0;
        unsigned parts = 1;
        size_t len = 0;
        if (whole) { /* a transaction by parts, in one go or each after the other's answer */
            bool simple = dice(2) == 0, fresh = true;
            c.n = c.at = 0;
            parts = 3 + dice(3);
            for (unsigned k = 0; k < parts; k++) {
                struct part *p = &c.parts[fresh ? c.n++ : c.n - 1];
                bool query = simple || dice(6) == 0, last = k == parts - 1;
                char text[64];
                if (fresh)
                    *p = (struct part){0};
                p->commits = last;
                if (k == 0 || last)
                    (void)snprintf(text, sizeof text, "%s", k == 0 ? "BEGIN" : "COMMIT");
                else
                    p->ids[p->n++] = next_id, (void)snprintf(text, sizeof text, "INSERT INTO t VALUES (%u)", next_id++);
                len += put_statement(bytes + len, p, query, text);
                if (query && last && !simple) /* what it may be passed over with has its Sync then */
                    p = &c.parts[c.n++], *p = (struct part){0};
                if (!simple && (last || (!query && dice(2) == 0)))
                    len += put_message(bytes + len, 'S', "", ""), p->synced = true;
                fresh = query || p->synced; /* else the next goes on in the same part */
            }
        } else {
            len = ask_something(&c, bytes, &inside);
        }
        converse(f, &c, &m, bytes, len, dice(3) != 0 ? 1 + dice(2) : 0);
        if (!c.over && !whole && c.n == 1 && !c.parts[0].begins)
            check_alone(&c.parts[0]);
        if (!c.over && whole)
            check_whole(&c);
        if (c.over) {
            n_ended++;
            close(c.fd);
            run_for(f, 5);
            drop_connections(f);
            close(m.fd);
            open_both(f, &c, &m);
            continue;
        }
        if (c.status != 'I') {
            c.n = 1, c.at = 0, c.parts[0] = (struct part){0};
            converse(f, &c, &m, bytes, put_message(bytes, 'Q', "ROLLBACK", ""), 0);
        }
    }
    print_message("%u losses: %u done, %u unknown, %u undone, %u ended\n", n_losses, n_done, n_unknown, n_undone, n_ended);
    close(c.fd);
    close(m.fd);
    fixture_close(f);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(storm)};

    return cmocka_run_group_tests(tests, NULL, NULL);
}
