#include "http/http.h"

#include <microhttpd.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/mailbox.h"
#include "base/net.h"
#include "http/connections.h"

enum { PATH_LEN = 128, OPTION_LEN = 32, AGE_MS = 1000 };

struct hf_http {
    hf_http_fn fn;
    void *ctx;
    struct MHD_Daemon *daemon;
    struct hf_mailbox *mailbox; /* to the host's loop */
    bool closing;               /* host's loop only */
    int fd;
    uv_timer_t age;
    struct hf_http_connections connections;
};

/* Owned by two threads; the last one frees it. */
struct ask {
    struct hf_http *h;
    uv_mutex_t mutex;
    uv_cond_t cond;
    unsigned owners;
    bool done;
    bool has_option;
    char path[PATH_LEN], option[OPTION_LEN];
    struct hf_http_answer answer;
};

static void ask_let_go(struct ask *a)
{
    bool last;

    uv_mutex_lock(&a->mutex);
    last = --a->owners == 0;
    uv_mutex_unlock(&a->mutex);
    if (!last)
        return;
    uv_cond_destroy(&a->cond);
    uv_mutex_destroy(&a->mutex);
    free(a->answer.text);
    free(a);
}

static void ask_run(void *arg)
{
    struct ask *a = arg;
    struct hf_http_answer answer = {.status = 503, .type = "text/plain", .text = NULL};

    if (!a->h->closing)
        a->h->fn(a->h->ctx, a->path, a->has_option ? a->option : NULL, &answer);
    uv_mutex_lock(&a->mutex);
    a->answer = answer;
    a->done = true;
    uv_cond_signal(&a->cond);
    uv_mutex_unlock(&a->mutex);
    ask_let_go(a);
}

static enum MHD_Result reply(struct MHD_Connection *c, unsigned status, const char *type, const char *text)
{
    struct MHD_Response *r =
        MHD_create_response_from_buffer(strlen(text), (void *)(uintptr_t)text, MHD_RESPMEM_MUST_COPY);
    enum MHD_Result rv;

    if (r == NULL)
        return MHD_NO;
    (void)MHD_add_response_header(r, "Content-Type", type);
    (void)MHD_add_response_header(r, "Cache-Control", "no-store");
    /* Who asks again connects again: a connection that waits for its next question is one that others lack. */
    (void)MHD_add_response_header(r, "Connection", "close");
    rv = MHD_queue_response(c, status, r);
    MHD_destroy_response(r);
    return rv;
}

static struct ask *ask_new(struct hf_http *h, const char *path, const char *option)
{
    struct ask *a = calloc(1, sizeof *a);

    if (a == NULL)
        return NULL;
    a->h = h;
    a->owners = 2;
    (void)snprintf(a->path, sizeof a->path, "%s", path);
    a->has_option = option != NULL;
    if (option != NULL)
        (void)snprintf(a->option, sizeof a->option, "%s", option);
    if (uv_mutex_init(&a->mutex) != 0 || uv_cond_init(&a->cond) != 0)
        abort();
    return a;
}

static enum MHD_Result answer(void *arg, struct MHD_Connection *c, const char *path, const char *method,
                              const char *version, const char *upload, size_t *upload_size, void **state)
{
    static int seen;
    struct hf_http *h = arg;
    struct ask *a;
    uint64_t until;
    enum MHD_Result rv;

    (void)version;
    (void)upload;
    if (*state == NULL) { /* the first call has the head only: libmicrohttpd wants it so */
        *state = &seen;
        return MHD_YES;
    }
    if (*upload_size != 0) {
        *upload_size = 0;
        return MHD_YES;
    }
    if (strcmp(method, MHD_HTTP_METHOD_GET) != 0 && strcmp(method, MHD_HTTP_METHOD_HEAD) != 0)
        return reply(c, MHD_HTTP_METHOD_NOT_ALLOWED, "text/plain", "only GET and HEAD\n");
    if (strlen(path) >= PATH_LEN)
        return reply(c, MHD_HTTP_NOT_FOUND, "text/plain", "no such page\n");
    a = ask_new(h, path, MHD_lookup_connection_value(c, MHD_GET_ARGUMENT_KIND, "max_lag"));
    if (a == NULL)
        return MHD_NO;
    hf_mailbox_post(h->mailbox, ask_run, a);
    until = uv_hrtime() + (uint64_t)HF_HTTP_PATIENCE_MS * 1000000u;
    uv_mutex_lock(&a->mutex);
    while (!a->done && uv_hrtime() < until)
        (void)uv_cond_timedwait(&a->cond, &a->mutex, until - uv_hrtime());
    if (!a->done)
        rv = reply(c, MHD_HTTP_SERVICE_UNAVAILABLE, "text/plain", "the node's control loop does not turn\n");
    else
        rv = reply(c, a->answer.status, a->answer.type, a->answer.text != NULL ? a->answer.text : "");
    uv_mutex_unlock(&a->mutex);
    ask_let_go(a);
    return rv;
}

/* On the daemon's thread; `gone` comes before the descriptor is closed. */
static void came_or_gone(void *arg, struct MHD_Connection *c, void **context, enum MHD_ConnectionNotificationCode what)
{
    struct hf_http *h = arg;
    const union MHD_ConnectionInfo *fd = MHD_get_connection_info(c, MHD_CONNECTION_INFO_CONNECTION_FD);
    const union MHD_ConnectionInfo *from = MHD_get_connection_info(c, MHD_CONNECTION_INFO_CLIENT_ADDRESS);

    (void)context;
    if (fd == NULL)
        return;
    if (what == MHD_CONNECTION_NOTIFY_STARTED)
        hf_http_connections_came(&h->connections, fd->connect_fd, from != NULL ? from->client_addr : NULL, uv_hrtime());
    else
        hf_http_connections_gone(&h->connections, fd->connect_fd);
}

static void age(uv_timer_t *t)
{
    struct hf_http *h = t->data;

    hf_http_connections_age(&h->connections, uv_hrtime());
}

static void closed(uv_handle_t *t)
{
    struct hf_http *h = t->data;

    hf_http_connections_destroy(&h->connections);
    free(h);
}

int hf_http_open(struct hf_http **out, uv_loop_t *loop, const char *listen, hf_http_fn fn, void *ctx,
                 struct hf_error *err)
{
    struct hf_http *h = calloc(1, sizeof *h);

    *out = NULL;
    if (h == NULL)
        return hf_fail(err, HF_ENOMEM, "http: out of memory");
    h->fn = fn;
    h->ctx = ctx;
    h->fd = hf_net_listen(listen, err);
    if (h->fd < 0) {
        int rv = h->fd;
        free(h);
        return rv;
    }
    hf_http_connections_init(&h->connections);
    (void)uv_timer_init(loop, &h->age);
    h->age.data = h;
    h->mailbox = hf_mailbox_open(loop);
    if (h->mailbox != NULL)
        h->daemon = MHD_start_daemon(MHD_USE_EPOLL_INTERNAL_THREAD, 0, NULL, NULL, answer, h, MHD_OPTION_LISTEN_SOCKET,
                                     h->fd, MHD_OPTION_CONNECTION_LIMIT,
                                     (unsigned)(HF_HTTP_CONNECTIONS_MAX + HF_HTTP_ENDING_MAX),
                                     MHD_OPTION_CONNECTION_TIMEOUT, (unsigned)HF_HTTP_IDLE_S,
                                     MHD_OPTION_NOTIFY_CONNECTION, came_or_gone, h, MHD_OPTION_END);
    if (h->daemon == NULL) {
        close(h->fd);
        if (h->mailbox != NULL)
            hf_mailbox_close(h->mailbox);
        uv_close((uv_handle_t *)&h->age, closed);
        return hf_fail(err, HF_EIO, "http: cannot serve on %s", listen);
    }
    (void)uv_timer_start(&h->age, age, AGE_MS, AGE_MS);
    *out = h;
    return 0;
}

/* The daemon's thread may wait for us at this moment: it is let go first. */
void hf_http_close(struct hf_http *h)
{
    h->closing = true;
    MHD_stop_daemon(h->daemon); /* waits HF_HTTP_PATIENCE_MS at the most, and closes the socket */
    hf_mailbox_close(h->mailbox); /* runs what was asked meanwhile */
    uv_close((uv_handle_t *)&h->age, closed);
}
