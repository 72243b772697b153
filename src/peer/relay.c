#include "peer/relay.h"

#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/file.h"
#include "base/listener.h"
#include "base/log.h"
#include "base/net.h"

struct source {
    bool open;
    char name[HF_NAME_MAX], addr[HF_ADDR_MAX];
    uint8_t payload[HF_PAYLOAD_MAX];
    size_t len;
};

struct hf_relay {
    struct hf_peer *peer;
    struct hf_relay_callbacks callbacks;
    struct hf_listener wal_listener, copy_listener;
    struct source wal, copy;
    char refused[256];   /* why, as last told to the log */
    int kept;            /* a WAL receiver that waits; -1: none */
    uint64_t dials;
    unsigned dialled; /* WAL receivers on their way to a leader, or there */
    struct wal_dial *streaming; /* the newest that was let in; NULL: none is */
    unsigned generation; /* counts closes: what belongs to an older one is not reported */
};

struct wal_dial {
    struct hf_relay *r;
    unsigned generation;
    uint64_t number;
};

static void dial_end(struct wal_dial *w)
{
    w->r->dialled--;
    free(w);
}

static void wal_closed(void *arg, bool wal_missing)
{
    struct wal_dial *w = arg;
    bool newest = w->r->streaming == w; /* else the WAL receiver has come again: that one's end does not come into it */

    if (newest)
        w->r->streaming = NULL;
    if (w->generation == w->r->generation) {
        if (newest)
            w->r->callbacks.on_streaming(w->r->callbacks.ctx, false);
        if (wal_missing)
            w->r->callbacks.on_wal_missing(w->r->callbacks.ctx);
    }
    dial_end(w);
}

static void wal_opened(void *arg, int status, const char *text, const struct sockaddr *to,
                       socklen_t len)
{
    struct wal_dial *w = arg;

    (void)to;
    (void)len;
    if (status != 0) {
        if (status == HF_EREFUSED && strcmp(text, w->r->refused) != 0) {
            (void)snprintf(w->r->refused, sizeof w->r->refused, "%s", text);
            hf_info("relay: %s", text);
        }
        dial_end(w); /* the WAL receiver sees its connection end and comes again */
        return;
    }
    w->r->refused[0] = '\0';
    if (w->generation == w->r->generation && (w->r->streaming == NULL || w->r->streaming->number < w->number)) {
        w->r->streaming = w;
        w->r->callbacks.on_streaming(w->r->callbacks.ctx, true);
    }
}

static void wal_progress(void *arg, hf_lsn end, hf_lsn applied)
{
    struct wal_dial *w = arg;

    if (w->generation == w->r->generation)
        w->r->callbacks.on_progress(w->r->callbacks.ctx, end, applied);
}

static void wal_dial(struct hf_relay *r)
{
    struct wal_dial *w;
    struct hf_dial d;

    if (!r->wal.open || r->kept < 0)
        return;
    w = calloc(1, sizeof *w);
    if (w == NULL)
        return;
    *w = (struct wal_dial){.r = r, .generation = r->generation, .number = ++r->dials};
    r->dialled++;
    d = (struct hf_dial){.arg = w, .opened = wal_opened, .progress = wal_progress, .closed = wal_closed};
    hf_peer_dial(r->peer, r->wal.name, r->wal.addr, HF_PURPOSE_WAL, r->wal.payload, r->wal.len,
                 r->kept, &d);
    r->kept = -1;
}

static void wal_arrived(void *ctx, int fd)
{
    struct hf_relay *r = ctx;

    if (r->kept >= 0)
        close(r->kept); /* there is one WAL receiver; a new one means that the old one is gone */
    r->kept = fd;
    wal_dial(r);
}

static void copy_opened(void *arg, int status, const char *text, const struct sockaddr *to,
                        socklen_t len)
{
    (void)arg;
    (void)to;
    (void)len;
    if (status != 0)
        hf_warn("relay: cannot copy from the leader: %s", text);
}

static void copy_arrived(void *ctx, int fd)
{
    struct hf_relay *r = ctx;
    struct hf_dial d = {.arg = r, .opened = copy_opened};

    if (!r->copy.open) {
        close(fd);
        return;
    }
    hf_peer_dial(r->peer, r->copy.name, r->copy.addr, HF_PURPOSE_COPY, r->copy.payload, r->copy.len,
                 fd, &d);
}

static int listen_at(const char *dir, const char *sub, struct hf_error *err)
{
    char path[4096];
    int rv;

    (void)snprintf(path, sizeof path, "%s/%s", dir, sub);
    rv = hf_dir_make(path, 0700, err);
    if (rv != 0)
        return rv;
    (void)snprintf(path, sizeof path, "%s/%s/.s.PGSQL.5432", dir, sub);
    return hf_net_listen_unix(path, 0600, err);
}

int hf_relay_start(struct hf_relay **out, struct hf_peer *peer, uv_loop_t *loop, const char *dir,
                   const struct hf_relay_callbacks *callbacks, struct hf_error *err)
{
    struct hf_relay *r = calloc(1, sizeof *r);
    int wal, copy;

    if (r == NULL)
        return hf_fail(err, HF_ENOMEM, "relay: out of memory");
    *r = (struct hf_relay){.peer = peer, .callbacks = *callbacks, .kept = -1};
    wal = listen_at(dir, "relay", err);
    copy = wal >= 0 ? listen_at(dir, "copy", err) : wal;
    if (copy < 0) {
        if (wal >= 0)
            close(wal);
        free(r);
        return copy;
    }
    if (hf_listener_start(&r->wal_listener, loop, wal, "relay", wal_arrived, r) != 0 ||
        hf_listener_start(&r->copy_listener, loop, copy, "relay", copy_arrived, r) != 0)
        abort();
    *out = r;
    return 0;
}

static void set_source(struct source *s, const char *name, const char *addr, const void *payload,
                       size_t len)
{
    s->open = true;
    (void)snprintf(s->name, sizeof s->name, "%s", name);
    (void)snprintf(s->addr, sizeof s->addr, "%s", addr);
    s->len = len <= sizeof s->payload ? len : sizeof s->payload;
    memcpy(s->payload, payload, s->len);
}

void hf_relay_open(struct hf_relay *r, const char *name, const char *addr, const void *payload,
                   size_t len)
{
    set_source(&r->wal, name, addr, payload, len);
    wal_dial(r);
}

static void cut_wal_done(void *arg)
{
    struct hf_relay *r = arg;

    r->callbacks.on_closed(r->callbacks.ctx);
}

void hf_relay_close(struct hf_relay *r)
{
    r->wal.open = false;
    r->copy.open = false;
    r->generation++;
    r->streaming = NULL;
    hf_peer_cut(r->peer, HF_PURPOSE_COPY, true, NULL, NULL);
    hf_peer_cut(r->peer, HF_PURPOSE_WAL, true, cut_wal_done, r);
}

bool hf_relay_has_receiver(struct hf_relay *r)
{
    struct pollfd end = {.fd = r->kept, .events = POLLRDHUP};

    if (r->kept >= 0 && poll(&end, 1, 0) > 0) {
        close(r->kept);
        r->kept = -1;
    }
    return r->kept >= 0 || r->dialled > 0;
}

void hf_relay_copy_from(struct hf_relay *r, const char *name, const char *addr, const void *payload,
                        size_t len)
{
    set_source(&r->copy, name, addr, payload, len);
}
