/* A connection ended. Is its node gone? On one machine a refused port proves it (S6). */
#include "peer/private.h"

#include <stdlib.h>

#include "base/net.h"

enum {
    PROBE_MS = 5, /* is its port refused by now? */
    PROBES_MAX = 60,
};

/* Looks whether the port of a node whose connection ended is refused. */
struct probe {
    struct hf_peer *peer;
    struct hf_peer_identity who;
    struct sockaddr_storage sa;
    uv_timer_t timer;
    uv_tcp_t tcp;
    uv_connect_t req;
    unsigned tries;
    bool proven, tcp_open;
};

static void probe_closed(uv_handle_t *handle)
{
    free(handle->data);
}

static void probe_end(struct probe *b)
{
    if (b->proven && !b->peer->closing)
        b->peer->callbacks.on_down(b->peer->callbacks.ctx, b->who.id, b->who.name, true);
    uv_close((uv_handle_t *)&b->timer, probe_closed);
}

static void probe_tcp_closed(uv_handle_t *handle)
{
    struct probe *b = handle->data;

    b->tcp_open = false;
    if (b->proven || b->tries >= PROBES_MAX || b->peer->closing)
        probe_end(b);
}

static void probe_connected(uv_connect_t *req, int status)
{
    struct probe *b = req->data;

    b->proven = status == UV_ECONNREFUSED;
    uv_close((uv_handle_t *)&b->tcp, probe_tcp_closed);
}

static void probe_timer(uv_timer_t *timer)
{
    struct probe *b = timer->data;

    if (b->tcp_open || b->proven || b->tries >= PROBES_MAX)
        return;
    b->tries++;
    if (uv_tcp_init(b->peer->loop, &b->tcp) != 0)
        return;
    b->tcp.data = b;
    b->req.data = b;
    b->tcp_open = true;
    if (uv_tcp_connect(&b->req, &b->tcp, (struct sockaddr *)&b->sa, probe_connected) != 0)
        uv_close((uv_handle_t *)&b->tcp, probe_tcp_closed);
}

void hf_gone_probe(struct hf_peer *p, const struct hf_peer_identity *who)
{
    const struct hf_outgoing *o = hf_outgoing_find(p, who->name);
    struct probe *b;

    if (!p->local || o == NULL || o->sa_len == 0 ||
        !hf_net_is_loopback((const struct sockaddr *)&o->sa))
        return;
    b = calloc(1, sizeof *b);
    if (b == NULL)
        return;
    *b = (struct probe){.peer = p, .who = *who, .sa = o->sa};
    (void)uv_timer_init(p->loop, &b->timer);
    b->timer.data = b;
    (void)uv_timer_start(&b->timer, probe_timer, 0, PROBE_MS);
}
