/* What PostgreSQL says while the router logs in for a client: never taken for a login unless the
 * server has proved that it knows the verifier, never more read than the message has, and the same
 * result however the bytes come. The input: how they come, then the stream. Random numbers are
 * always the same here, so that the corpus can hold a login that succeeds. */
#include "input.h"

#include "../../src/router/login_server.c"

static struct input stream;
static unsigned cut, waits;
static unsigned n_sent, n_refused;
static struct hf_thread thread;
static struct hf_session session;
static struct hf_end back;
static struct hf_login login;

/* -- what login_server.c asks of others ----------------------------------------------------------
 */

ssize_t hf_end_read(struct hf_end *e, uint8_t *p, size_t n)
{
    size_t most = n < cut ? n : cut;

    (void)e;
    MUST(n > 0);
    if (waits++ % 3 == 2)
        return 0;
    if (stream.n == 0)
        return -1;
    return (ssize_t)input_take(&stream, p, most);
}

bool hf_session_send_back(struct hf_session *s, const uint8_t *p, size_t n)
{
    (void)s;
    MUST(n >= 5 && p[0] == 'p' && hf_wire_length(p) == n);
    n_sent++;
    return true;
}

void hf_session_refuse(struct hf_session *s, const char *sqlstate, const char *text,
                       const char *hint)
{
    (void)s;
    MUST(strlen(sqlstate) == 5 && text != NULL && hint != NULL);
    n_refused++;
}

void hf_log(enum hf_log_level level, const char *fmt, ...)
{
    (void)level;
    (void)fmt;
}

int RAND_bytes(unsigned char *out, int n)
{
    memset(out, 0x5a, (size_t)n);
    return 1;
}

/* A login that a client waits for: no session that moves, or shares. Those have unit tests. */

bool hf_survive_is_moving(const struct hf_session *s)
{
    (void)s;
    return false;
}

bool hf_share_is_first(const struct hf_session *s)
{
    (void)s;
    return false;
}

bool hf_share_is_refused(struct hf_session *s)
{
    (void)s;
    return false;
}

bool hf_login_begin(struct hf_session *s)
{
    (void)s;
    abort();
}

void hf_login_free(struct hf_session *s)
{
    (void)s;
    abort();
}

void hf_session_log_in(struct hf_session *s, bool yes)
{
    (void)s;
    (void)yes;
    abort();
}

bool hf_survive_is_dull(const struct hf_session *s, uint8_t type)
{
    (void)s;
    (void)type;
    abort();
}

int hf_survive_hear(struct hf_session *s, const uint8_t *p, size_t n)
{
    (void)s;
    (void)p;
    (void)n;
    abort();
}

void hf_survive_free(struct hf_session *s)
{
    (void)s;
    abort();
}

/* -- the test -----------------------------------------------------------------------------------
 */

static ssize_t run(struct input in, unsigned pieces)
{
    ssize_t rv = 0;

    stream = in;
    cut = pieces;
    waits = n_sent = n_refused = 0;
    memset(&login, 0, sizeof login);
    memset(&session.keys, 0x11, sizeof session.keys);
    session.t = &thread;
    session.back = &back;
    session.login = &login;
    session.kind = HF_KIND_GATE;
    while (rv == 0)
        rv = hf_login_read(&session);
    MUST(login.in_len <= sizeof login.in && n_refused <= 1 && n_sent <= 2);
    MUST((rv > 0) == (login.step == HF_LOGIN_THROUGH) &&
         hf_login_is_under_way(&session) == (rv <= 0));
    if (rv > 0) {
        MUST(n_refused == 0 && (size_t)rv <= HF_LOGIN_IN_MAX);
        MUST(thread.scratch[0] == 'E' || (thread.scratch[0] == 'R' && n_sent == 2 && rv >= 9));
        MUST(thread.scratch[0] == 'E' || hf_scan_number(thread.scratch + 5) == 0);
    }
    return rv;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct input in = {data, size};
    unsigned pieces = input_byte(&in) % 16 + 1, sent, refused;
    ssize_t whole = run(in, HF_ROUTER_READ_BYTES);
    size_t left = stream.n;

    sent = n_sent;
    refused = n_refused;
    MUST(run(in, pieces) == whole && n_sent == sent && n_refused == refused && stream.n == left);
    return 0;
}
