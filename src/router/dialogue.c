#include "router/dialogue.h"

#include <string.h>

#include "router/wire.h"

/* -- what is owed -------------------------------------------------------------------------- */

static void owe(struct hf_dialogue *d, bool by_sync)
{
    /* Beyond 64 the reason is forgotten and "not Sync" assumed, which errs towards busy. */
    if (d->pending < 64 && by_sync)
        d->syncs |= 1ull << d->pending;
    d->pending++;
}

static void answered(struct hf_dialogue *d)
{
    if (d->pending == 0)
        return;
    d->pending--;
    d->syncs >>= 1;
}

void hf_dialogue_init(struct hf_dialogue *d)
{
    memset(d, 0, sizeof *d);
    owe(d, false);
}

static void client_message(struct hf_dialogue *d)
{
    switch (d->client.head[0]) {
    case 'Q':
    case 'F':
        owe(d, false);
        d->batch = d->batch && d->copying; /* its ReadyForQuery is that of what was sent before it, too */
        break;
    case 'S':
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
    case 'H':
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
        break; /* password, copy data, terminate: nothing is owed for them */
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
        break;
    case 'G':
        /* A Sync that was sent along with the COPY is swallowed by it, and another one is to come; unless it is the one behind the
         * data. */
        d->copying = !d->copied;
        if (d->copied)
            break;
        while (d->pending > 0 && (d->syncs & 1) != 0) {
            answered(d);
            d->swallowed = d->unsynced = true;
        }
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
        break;
    case 'C':
        d->copying = d->swallowed = false;
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
    d->syncs = 0;
    d->batch = d->copying = d->copied = d->fatal = d->leaving = d->left = false;
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
