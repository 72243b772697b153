#include "router/dialogue.h"

#include <string.h>

#include "router/wire.h"

/* -- what is owed -------------------------------------------------------------------------- */

static void owe(struct hf_dialogue *d, bool by_sync)
{
    /* Beyond 64 the reason is forgotten and "not Sync" assumed, which errs towards busy. */
    if (d->pending >= 64)
        d->uncounted = true;
    else if (by_sync)
        d->syncs |= 1ull << d->pending;
    d->pending++;
}

static void answered(struct hf_dialogue *d)
{
    if (d->pending == 0)
        return;
    d->pending--;
    d->syncs >>= 1;
    d->due >>= 8;
}

/* An answer that comes before the i-th ReadyForQuery that is pending, or, behind those, is to be. */
static void expect(struct hf_dialogue *d, unsigned i)
{
    if (i < 8 && (d->due >> i * 8 & 0xff) < 0xff)
        d->due += 1ull << i * 8;
    else
        d->uncounted = true;
}

static bool is_due(const struct hf_dialogue *d)
{
    return (d->due & 0xff) != 0;
}

/* An error in the place of what is due: no Query behind it is done, up to the Sync. */
static void pass_over(struct hf_dialogue *d)
{
    while (d->pending > 0 && (d->syncs & 1) == 0)
        answered(d);
    d->due &= ~0xffull;
    d->skipping = d->pending == 0;
    d->batch = d->batch || d->skipping;
}

void hf_dialogue_init(struct hf_dialogue *d)
{
    memset(d, 0, sizeof *d);
    owe(d, false);
}

static void client_message(struct hf_dialogue *d)
{
    char type = (char)d->client.head[0];

    if (d->skipping && type != 'S' && type != 'X')
        return;
    d->uncounted = d->uncounted || (d->copying && strchr("QFPBDEC", type) != NULL); /* the COPY may read it, or have failed */
    switch (type) {
    case 'Q':
    case 'F':
        owe(d, false);
        d->batch = d->batch && d->copying; /* its ReadyForQuery is that of what was sent before it, too */
        if (!d->copying && !d->swallowed && !d->unsure)
            d->unsynced = false; /* a COPY's, which is over and good */
        break;
    case 'S':
        d->skipping = false;
        if (d->copying) {
            d->swallowed = true;
            d->unsynced = d->unsynced || d->batch;
        } else {
            d->unsynced = false;
            owe(d, true);
        }
        d->batch = false;
        break;
    case 'P':
    case 'B':
    case 'D':
    case 'E':
    case 'C':
        expect(d, d->pending);
        d->batch = d->batch || !d->copying;
        break;
    case 'c':
    case 'f':
        d->copied = !d->copying && hf_dialogue_owes(d);
        d->copying = false;
        break;
    case 'X':
        d->goodbye = true;
        break;
    default:
        break; /* password, copy data, Flush: nothing is owed for them */
    }
}

void hf_dialogue_client(struct hf_dialogue *d, const uint8_t *p, size_t n)
{
    while (n > 0 && !d->client.broken) {
        size_t body, used;
        bool complete;
        used = hf_scan_take(&d->client, p, n, &body, &complete);
        if (complete)
            client_message(d);
        p += used;
        n -= used;
    }
}

/* -- the server ---------------------------------------------------------------------------- */

/* Two texts exist, for a cancel and for a terminate, and both may be translated; the name of the
 * function that speaks is the same. A client that makes such a notice itself (RAISE) costs
 * everybody a barrier, no more. */
static bool is_wait_given_up(const uint8_t *p, size_t n)
{
    static const char function[] = "RSyncRepWaitForLSN"; /* with its NUL */
    static const char text1[] = "canceling wait for synchronous replication";
    static const char text2[] = "canceling the wait for synchronous replication";

    return memmem(p, n, function, sizeof function) != NULL ||
           memmem(p, n, text1, sizeof text1 - 1) != NULL ||
           memmem(p, n, text2, sizeof text2 - 1) != NULL;
}

/* A Sync that was sent along with the COPY is swallowed by it, and another one is to come, unless it is the one behind the data, or the COPY is
 * a Query's, which needs none. What else was sent along it may read, too. */
static void copy_in(struct hf_dialogue *d)
{
    bool query = !is_due(d);

    d->copying = !d->copied;
    while (d->copying && d->pending > 0 && (d->syncs & 1) != 0) {
        answered(d);
        expect(d, 0); /* it is Execute's */
        d->swallowed = d->unsynced = true;
    }
    while (d->copying && query && d->pending > 1 && (d->syncs & 3) == 2 && (d->due & 0xffff) == 0) {
        answered(d);
        d->syncs &= ~1ull; /* the Query's stays */
        d->swallowed = true;
    }
    d->uncounted = d->uncounted || d->copied || d->pending > query || (query && d->due != 0);
}

static void server_message(struct hf_dialogue *d)
{
    d->last = (char)d->server.head[0];
    switch (d->last) {
    case 'Z':
        d->started = true;
        d->copying = d->copied = false;
        d->status = d->kept > 0 ? (char)d->keep[0] : 'E';
        if (d->pending == 0)
            d->unsynced = false; /* that one was not swallowed */
        answered(d);
        d->uncounted = d->uncounted && (d->pending > 0 || d->batch);
        break;
    case 'G':
        copy_in(d);
        break;
    case 'K':
        if (d->kept >= 8 && d->kept <= 4 + HF_BACKEND_KEY_MAX && !d->key_known) {
            d->key_known = true;
            d->pid = hf_scan_number(d->keep);
            d->key_len = (uint16_t)(d->kept - 4);
            memcpy(d->key, d->keep + 4, d->key_len);
        }
        break;
    case 'S':
        if (d->params != NULL)
            hf_params_set(d->params, d->keep, d->kept);
        break;
    case HF_WIRE_TAKEN:
        if (d->leaving)
            d->left = hf_wire_taken_parse(d->keep, d->kept, &d->taken);
        break;
    case 'N':
        if (is_wait_given_up(d->keep, d->kept))
            d->wait_cancelled = true;
        break;
    case 'E':
        d->fatal = memmem(d->keep, d->kept, "\0VFATAL", 8) != NULL;
        d->copying = d->copied = false;
        d->unsure = d->unsure || d->swallowed; /* "COPY v FROM STDIN", a view, fails behind 'G', and with nothing read */
        d->swallowed = false;
        if (is_due(d) && !d->uncounted && !d->unsure)
            pass_over(d);
        break;
    case 'C':
        if (d->swallowed && d->pending > 0)
            d->unsynced = false; /* what was sent behind a COPY that is good has ended it */
        d->copying = d->swallowed = false;
        d->due -= is_due(d);
        break;
    case '1':
    case '2':
    case '3':
    case 'T':
    case 'n':
    case 'I':
    case 's':
        d->due -= is_due(d);
        break;
    default:
        break;
    }
}

size_t hf_dialogue_server(struct hf_dialogue *d, const uint8_t *p, size_t n)
{
    const uint8_t *begin = p;
    size_t all = d->leaving ? 0 : n;

    while (n > 0 && !d->server.broken) {
        size_t body = n, used, room = HF_SCAN_KEEP - d->kept, fits;
        bool complete;
        if (d->carried && d->server.have == 0 && !d->leaving && *p == HF_WIRE_TAKEN) {
            d->leaving = true;
            all = (size_t)(p - begin);
        }
        used = hf_scan_take(&d->server, p, n, &body, &complete);
        if (d->server.broken)
            break;
        fits = used - body < room ? used - body : room;
        memcpy(d->keep + d->kept, p + body, fits);
        d->kept += fits;
        if (complete) {
            server_message(d);
            d->kept = 0;
        }
        p += used;
        n -= used;
    }
    return all;
}

void hf_dialogue_settle(struct hf_dialogue *d, char status)
{
    d->client = d->server = (struct hf_scan){0};
    d->pending = 0;
    d->syncs = d->due = 0;
    d->batch = d->uncounted = d->skipping = d->copying = d->copied = d->fatal = d->leaving = d->left = false;
    d->swallowed = d->unsynced = d->unsure = false;
    d->status = status;
    d->last = 'Z';
    d->kept = 0;
}

bool hf_dialogue_owes(const struct hf_dialogue *d)
{
    return d->pending > 0 || d->batch || d->unsynced || d->copying;
}

bool hf_dialogue_may_hear_more(const struct hf_dialogue *d)
{
    return d->unsure;
}

bool hf_dialogue_is_idle(const struct hf_dialogue *d)
{
    return d->started && d->status == 'I' && !hf_dialogue_owes(d) && d->client.have == 0 &&
           d->server.have == 0 && !d->client.broken && !d->server.broken;
}

bool hf_dialogue_may_speak(const struct hf_dialogue *d)
{
    return d->server.have == 0 && !d->server.broken && d->last != 'E';
}
