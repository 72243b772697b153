/* The life of one connection: connect, TLS, hello, answer; then conn_move.c. */
#include "peer/conn.h"

#include <errno.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <openssl/err.h>

#include "base/log.h"
#include "base/net.h"

enum { SETUP_MS = 3000, CONNECT_MS = 700, IMPATIENT_MS = 250, MESSAGES_MS = 1500 };

static void net_cb(uv_poll_t *poll, int status, int events);

/* -- closing ----------------------------------------------------------------------------------------- */

static void handle_closed(uv_handle_t *handle)
{
    struct conn *c = handle->data;

    if (--c->handles > 0)
        return;
    free(c->in.bytes);
    free(c->out.bytes);
    free(c);
}

/* The only trace of why a node was called gone. Those that end before are dialed again, and told by who dials. */
static void log_end(const struct conn *c, const char *text)
{
    if (c->state == CONN_OPEN && c->purpose == HF_PURPOSE_CONTROL && !c->pump->stopping)
        hf_info("peer: messages %s %s ended: %s", c->dialed ? "to" : "from", c->dialed ? c->name : c->from.name, text);
}

static void known(struct conn *c)
{
    c->pump->n_strangers -= c->stranger;
    c->stranger = false;
}

void hf_conn_close(struct conn *c, int status, const char *text)
{
    if (c->state == CONN_CLOSED)
        return;
    known(c);
    log_end(c, text);
    if (c->state == CONN_OPEN && c->watched && !c->dialed && c->watch.news)
        hf_pumps_tell_flushed(c); /* its last word may have waited */
    if (c->dialed && !c->told_opened)
        hf_pumps_tell_opened(c, status != 0 ? status : HF_ECLOSED, text);
    else
        hf_pumps_tell_closed(c);
    if (c->tunnel != NULL)
        c->tunnel->conn = NULL;
    c->state = CONN_CLOSED;
    *c->at = c->next;
    if (c->next != NULL)
        c->next->at = c->at;
    if (c->question != NULL)
        c->question->arg = NULL;
    if (c->net_polled)
        uv_close((uv_handle_t *)&c->net_poll, handle_closed);
    if (c->plain_polled)
        uv_close((uv_handle_t *)&c->plain_poll, handle_closed);
    uv_close((uv_handle_t *)&c->timer, handle_closed);
    if (c->ssl != NULL) {
        if (!c->bare)
            (void)SSL_shutdown(c->ssl); /* one best effort; nobody waits for the answer */
        ERR_clear_error();
        SSL_free(c->ssl);
    }
    if (c->fd >= 0)
        close(c->fd);
    if (c->plain >= 0)
        close(c->plain);
}

static void timeout_cb(uv_timer_t *timer)
{
    hf_conn_close(timer->data, HF_ETIMEOUT, "the other node does not answer");
}

/* -- polling ----------------------------------------------------------------------------------------- */

void hf_conn_want(struct conn *c, int events)
{
    if (!c->net_polled) {
        if (uv_poll_init(&c->pump->loop, &c->net_poll, c->fd) != 0) {
            hf_conn_close(c, HF_EIO, "cannot poll a socket");
            return;
        }
        c->net_poll.data = c;
        c->net_polled = true;
        c->handles++;
        c->net_events = 0;
    }
    if (events == c->net_events)
        return;
    c->net_events = events;
    if (events == 0)
        (void)uv_poll_stop(&c->net_poll);
    else
        (void)uv_poll_start(&c->net_poll, events, net_cb);
}

bool hf_conn_tls_wait(struct conn *c, int rv)
{
    char why[192];

    switch (SSL_get_error(c->ssl, rv)) {
    case SSL_ERROR_WANT_READ:
        hf_conn_want(c, UV_READABLE);
        return true;
    case SSL_ERROR_WANT_WRITE:
        hf_conn_want(c, UV_WRITABLE);
        return true;
    default:
        hf_tls_why(c->ssl, rv, why, sizeof why);
        hf_conn_close(c, HF_ETLS, why);
        return false;
    }
}

/* -- the steps -------------------------------------------------------------------------------------------- */

static void look_cb(uv_timer_t *timer)
{
    struct conn *c = timer->data;

    if (hf_net_is_dead(c->fd))
        timeout_cb(timer);
}

/* How a node is found that vanishes while something is on its way to it. Messages and Raft are always read, so TCP_USER_TIMEOUT
 * may end them: what is on its way when a partition begins is sent again ever more seldom, and an election after its end
 * would wait for that; a new connection is quicker. Who reads the others may take his time (hf_net_is_dead); a session of a node
 * that is gone must not keep its locks for TCP's quarter of an hour. For WAL there is PostgreSQL's wal_sender_timeout. */
static void set_patience(struct conn *c)
{
    int ms = MESSAGES_MS;

    if (c->purpose == HF_PURPOSE_CONTROL || c->purpose == HF_PURPOSE_RAFT)
        (void)setsockopt(c->fd, IPPROTO_TCP, TCP_USER_TIMEOUT, &ms, sizeof ms);
    else if (c->purpose == HF_PURPOSE_SQL || c->purpose == HF_PURPOSE_COPY)
        (void)uv_timer_start(&c->timer, look_cb, HF_NET_LOOK_MS, HF_NET_LOOK_MS);
}

static void set_open(struct conn *c)
{
    c->in.bytes = malloc(HF_PIPE_BYTES);
    c->out.bytes = malloc(HF_PIPE_BYTES);
    (void)uv_timer_stop(&c->timer);
    if (c->in.bytes == NULL || c->out.bytes == NULL) {
        hf_conn_close(c, HF_ENOMEM, "out of memory");
        return;
    }
    c->frame_len = c->frame_at = 0;
    c->state = CONN_OPEN;
    set_patience(c);
    SSL_set_read_ahead(c->ssl, 1); /* a record by one read(), not its head and its body by two */
    if (c->purpose == HF_PURPOSE_WAL) {
        hf_walwatch_init(&c->watch, c->dialed);
        c->watched = true;
        (void)SSL_clear_mode(c->ssl, SSL_MODE_RELEASE_BUFFERS); /* busy all its life */
    }
    if (c->dialed) {
        c->told_opened = true;
        hf_pumps_tell_opened(c, 0, NULL);
    }
}

static int reply_in(struct conn *c)
{
    char text[256];
    int rv = hf_frame_in(c);

    if (rv <= 0)
        return rv;
    if (!hf_answer_read(c)) {
        (void)snprintf(text, sizeof text, "%s refuses: %.*s", c->name,
                       (int)(c->frame_len > 5 ? c->frame_len - 5 : 0), (const char *)c->frame + 5);
        hf_conn_close(c, HF_EREFUSED, text);
        return -1;
    }
    set_open(c);
    return 1;
}

static int hello_in(struct conn *c)
{
    const uint8_t *payload;
    size_t len;
    char text[256];
    int rv = hf_frame_in(c);

    if (rv <= 0)
        return rv;
    if (!hf_hello_read(c, &payload, &len)) {
        hf_conn_close(c, HF_EINVAL, "not a hello");
        return -1;
    }
    if (hf_hello_stranger(c, text, sizeof text) != NULL) {
        hf_warn("peer: refused %s: %s", c->from.name, text);
        hf_answer_build(c, false, text);
        return 1;
    }
    c->tunnel = calloc(1, sizeof *c->tunnel);
    if (c->tunnel == NULL) {
        hf_conn_close(c, HF_ENOMEM, "out of memory");
        return -1;
    }
    *c->tunnel = (struct hf_tunnel){c->pump, c};
    known(c);
    (void)uv_timer_stop(&c->timer);
    c->state = CONN_HOST;
    hf_pumps_tell_hello(c, payload, len);
    c->frame_len = 0;
    hf_conn_want(c, UV_DISCONNECT);
    return 0;
}

/* TLS begins with 0x16; a death token with 'H'. */
static int first(struct conn *c)
{
    uint8_t buf[8 + HF_DEATH_TOKEN_BYTES];
    ssize_t n = recv(c->fd, buf, sizeof buf, MSG_PEEK);

    if (n < 0 && (errno == EAGAIN || errno == EINTR)) {
        hf_conn_want(c, UV_READABLE);
        return 0;
    }
    if (n <= 0) {
        hf_conn_close(c, HF_ECLOSED, "closed");
        return -1;
    }
    if (buf[0] != HF_DEATH_MAGIC[0]) {
        c->ssl = hf_tls_accept(&c->pump->owner->tls, c->fd);
        if (c->ssl == NULL) {
            hf_conn_close(c, HF_ENOMEM, "out of memory");
            return -1;
        }
        c->state = CONN_HANDSHAKE;
        return 1;
    }
    if ((size_t)n == sizeof buf && memcmp(buf, HF_DEATH_MAGIC, 8) == 0)
        hf_pumps_tell_token(c->pump->owner, buf + 8);
    /* Forty bytes come in one piece or not at all; a half token is no proof. */
    hf_conn_close(c, HF_ECLOSED, "done");
    return -1;
}

static int connected(struct conn *c)
{
    int e = 0;
    socklen_t len = sizeof e;

    if (getsockopt(c->fd, SOL_SOCKET, SO_ERROR, &e, &len) != 0 || e != 0) {
        hf_conn_close(c, e == ECONNREFUSED ? HF_EREFUSED : HF_EIO, strerror(e));
        return -1;
    }
    c->ssl = hf_tls_dial(&c->pump->owner->tls, c->fd, c->name);
    if (c->ssl == NULL) {
        hf_conn_close(c, HF_ENOMEM, "out of memory");
        return -1;
    }
    c->state = CONN_HANDSHAKE;
    (void)uv_timer_start(&c->timer, timeout_cb, SETUP_MS, 0);
    return 1;
}

static int handshake(struct conn *c)
{
    int rv;

    ERR_clear_error();
    rv = SSL_do_handshake(c->ssl);

    if (rv != 1)
        return hf_conn_tls_wait(c, rv) ? 0 : -1;
    c->state = c->dialed ? CONN_HELLO_OUT : CONN_HELLO_IN;
    if (c->dialed)
        hf_hello_build(c);
    return 1;
}

static int hello_out(struct conn *c)
{
    int rv = hf_frame_out(c);

    if (rv == 1) {
        c->state = CONN_REPLY_IN;
        /* A leader keeps a follower waiting until it may admit it: no bound there. */
        if (c->purpose == HF_PURPOSE_WAL)
            (void)uv_timer_stop(&c->timer);
    }
    return rv;
}

static int reply_out(struct conn *c)
{
    int rv = hf_frame_out(c);

    if (rv != 1)
        return rv;
    if (c->refuse) {
        hf_conn_close(c, HF_EREFUSED, "refused");
        return -1;
    }
    set_open(c);
    return 1;
}

static void conn_run(struct conn *c)
{
    int more = 1;

    while (more > 0 && c->state != CONN_CLOSED) {
        switch (c->state) {
        case CONN_CONNECT:
            more = connected(c);
            break;
        case CONN_FIRST:
            more = first(c);
            break;
        case CONN_HANDSHAKE:
            more = handshake(c);
            break;
        case CONN_HELLO_OUT:
            more = hello_out(c);
            break;
        case CONN_REPLY_IN:
            more = reply_in(c);
            break;
        case CONN_HELLO_IN:
            more = hello_in(c);
            break;
        case CONN_REPLY_OUT:
            more = reply_out(c);
            break;
        case CONN_OPEN:
            hf_conn_move_all(c);
            return;
        default:
            return;
        }
    }
}

static void net_cb(uv_poll_t *poll, int status, int events)
{
    struct conn *c = poll->data;

    if (c->state == CONN_HOST) {
        hf_conn_close(c, HF_ECLOSED, "the dialer gave up");
        return;
    }
    /* After an error the next reads or writes tell the same, with a reason; libuv has stopped to poll. */
    if (status != 0)
        c->net_events = 0;
    if (c->state == CONN_OPEN)
        hf_conn_move(c, status == 0 ? events : UV_READABLE | UV_WRITABLE, 0);
    else
        conn_run(c);
}

/* -- beginnings -------------------------------------------------------------------------------------- */

static void conn_begin(struct hf_pump *pump, struct conn *c)
{
    c->pump = pump;
    c->next = pump->conns;
    c->at = &pump->conns;
    if (c->next != NULL)
        c->next->at = &c->next;
    pump->conns = c;
    (void)uv_timer_init(&pump->loop, &c->timer);
    c->timer.data = c;
    c->handles = 1;
    (void)uv_timer_start(&c->timer, timeout_cb, SETUP_MS, 0);
}

static int connect_to(struct conn *c)
{
    struct sockaddr_storage beside;
    socklen_t len;
    int fd = -1;

    if (c->pump->owner->local && hf_net_beside((struct sockaddr *)&c->to, &beside, &len) == 0)
        fd = hf_net_connect((struct sockaddr *)&beside, len, NULL);
    return fd >= 0 ? fd : hf_net_connect((struct sockaddr *)&c->to, c->to_len, NULL);
}

static void connect_begin(struct conn *c, const struct hf_address *to)
{
    c->to = to->sa;
    c->to_len = to->len;
    /* A SYN that is lost is sent again after 1 s and after 3: to dial again is quicker. */
    (void)uv_timer_start(&c->timer, timeout_cb, CONNECT_MS, 0);
    c->fd = connect_to(c);
    if (c->fd < 0) {
        int rv = c->fd;
        c->fd = -1;
        hf_conn_close(c, rv, "connection refused or unreachable");
        return;
    }
    c->state = CONN_CONNECT;
    hf_conn_want(c, UV_WRITABLE);
}

static void resolved_cb(struct hf_question *q)
{
    struct conn *c = q->arg;

    if (c != NULL)
        c->question = NULL;
    if (c == NULL || c->state != CONN_RESOLVE)
        (void)0; /* closed, or went to where the name was before */
    else if (q->answer.len == 0)
        hf_conn_close(c, HF_ENOENT, "the name cannot be resolved");
    else
        connect_begin(c, &q->answer);
    free(q);
}

/* The DNS is slow: perhaps the node is still where it was. Else there is the whole time left to wait. */
static void impatient_cb(uv_timer_t *timer)
{
    struct conn *c = timer->data;
    struct hf_address last = hf_resolver_last(c->pump->owner->resolver, c->addr);

    if (last.len > 0)
        connect_begin(c, &last);
    else
        (void)uv_timer_start(&c->timer, timeout_cb, SETUP_MS, 0);
}

void hf_conn_dial(struct hf_pump *pump, struct conn *c)
{
    struct hf_address number = hf_resolver_number(c->addr);
    char host[HF_ADDR_MAX], port[16];
    struct hf_question *q;

    c->dialed = true;
    c->fd = -1;
    c->state = CONN_RESOLVE;
    conn_begin(pump, c);
    if (number.len > 0) {
        connect_begin(c, &number);
        return;
    }
    if (hf_net_split(c->addr, host, sizeof host, port, sizeof port, NULL) != 0) {
        hf_conn_close(c, HF_EINVAL, "bad address");
        return;
    }
    q = calloc(1, sizeof *q);
    if (q == NULL || pump->stopping) {
        free(q);
        hf_conn_close(c, HF_ENOMEM, "cannot resolve");
        return;
    }
    *q = (struct hf_question){.mailbox = pump->mailbox, .done = resolved_cb, .arg = c};
    if (!hf_resolver_ask(pump->owner->resolver, c->addr, q)) {
        free(q);
        hf_conn_close(c, HF_EIO, "cannot resolve");
        return;
    }
    c->question = q;
    (void)uv_timer_start(&c->timer, impatient_cb, IMPATIENT_MS, 0);
}

/* Anybody may connect, and each costs a descriptor, and memory for TLS. Who has said least of who it is makes room for the next, and of
 * those who has had longest. */
static void make_room(struct hf_pump *pump)
{
    struct conn *goes = NULL;

    if (pump->n_strangers < HF_STRANGERS_MAX)
        return;
    for (struct conn *c = pump->conns; c != NULL; c = c->next) /* the newest is the first; states are in their order */
        if (c->stranger && (goes == NULL || c->state <= goes->state))
            goes = c;
    hf_conn_close(goes, HF_EBUSY, "too many others");
}

void hf_conn_accept(struct hf_pump *pump, int fd)
{
    struct conn *c = calloc(1, sizeof *c);

    if (c == NULL || pump->stopping) {
        free(c);
        close(fd);
        return;
    }
    make_room(pump);
    hf_net_tcp_options(fd);
    c->fd = fd;
    c->plain = -1;
    c->state = CONN_FIRST;
    c->stranger = true;
    pump->n_strangers++;
    conn_begin(pump, c);
    conn_run(c);
}

void hf_conn_answer(struct conn *c, int fd, bool refuse, const char *text)
{
    c->plain = fd;
    hf_answer_build(c, !refuse, text);
    (void)uv_timer_start(&c->timer, timeout_cb, SETUP_MS, 0);
    conn_run(c);
}
