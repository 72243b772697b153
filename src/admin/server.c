/* The listening side of the admin socket. */
#include "admin/admin.h"

#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include "base/net.h"

struct asker {
    uv_pipe_t pipe;
    struct hf_admin *admin; /* NULL once the admin is closed */
    struct asker *next;
    struct hf_admin_request *pending; /* one question at a time; the next waits in `line` */
    bool far; /* from another node */
    bool closing, asking;
    size_t used;
    char *line; /* HF_ADMIN_REQUEST_MAX bytes, made at the first read */
};

struct hf_admin {
    uv_pipe_t listener;
    hf_admin_handler handle;
    void *ctx;
    struct asker *askers;
    unsigned n_askers, n_far;
    char path[sizeof((struct sockaddr_un *)0)->sun_path];
};

struct hf_admin_request {
    struct asker *asker; /* NULL: gone */
};

struct answer {
    uv_write_t write;
    char *text;
};

static void next_line(struct asker *k);

/* -- a connection's end ------------------------------------------------------------------------------ */

static void asker_closed(uv_handle_t *h)
{
    struct asker *k = h->data;

    free(k->line);
    free(k);
}

static void asker_close(struct asker *k)
{
    if (k->closing)
        return;
    k->closing = true;
    if (k->pending != NULL)
        k->pending->asker = NULL;
    if (k->admin != NULL) {
        struct asker **at = &k->admin->askers;
        while (*at != k)
            at = &(*at)->next;
        *at = k->next;
        k->admin->n_askers--;
        k->admin->n_far -= k->far;
    }
    uv_close((uv_handle_t *)&k->pipe, asker_closed);
}

/* -- answers ----------------------------------------------------------------------------------------- */

static void written(uv_write_t *w, int status)
{
    struct answer *a = (struct answer *)w;
    struct asker *k = w->handle->data;

    free(a->text);
    free(a);
    if (status != 0)
        asker_close(k);
}

static void send_text(struct asker *k, char *text)
{
    struct answer *a = calloc(1, sizeof *a);
    uv_buf_t parts[2];

    if (a == NULL || text == NULL) {
        free(a);
        free(text);
        asker_close(k);
        return;
    }
    a->text = text;
    parts[0] = uv_buf_init(text, (unsigned)strlen(text));
    parts[1] = uv_buf_init((char *)"\n", 1);
    if (uv_write(&a->write, (uv_stream_t *)&k->pipe, parts, 2, written) != 0) {
        free(a->text);
        free(a);
        asker_close(k);
    }
}

static void send_json(struct asker *k, json_t *o)
{
    char *text = o != NULL ? json_dumps(o, JSON_COMPACT) : NULL;

    json_decref(o);
    send_text(k, text != NULL ? text : strdup("{\"error\":\"out of memory\"}"));
}

void hf_admin_reply(struct hf_admin_request *request, json_t *answer)
{
    struct asker *k = request->asker;

    free(request);
    if (k == NULL) {
        json_decref(answer);
        return;
    }
    k->pending = NULL;
    send_json(k, answer);
    if (!k->asking) /* else the loop in next_line() is at it already */
        next_line(k);
}

/* -- questions --------------------------------------------------------------------------------------- */

static void ask(struct asker *k, const char *line, size_t len)
{
    json_error_t why;
    json_t *body = json_loadb(line, len, JSON_REJECT_DUPLICATES, &why);
    struct hf_admin_request *r;

    if (!json_is_object(body)) {
        json_decref(body);
        send_json(k, json_pack("{s:s}", "error", "a request is one JSON object on one line"));
        return;
    }
    r = calloc(1, sizeof *r);
    if (r == NULL) {
        send_json(k, NULL);
    } else {
        r->asker = k;
        k->pending = r;
        k->admin->handle(k->admin->ctx, r, body); /* may reply before it returns */
    }
    json_decref(body);
}

/* Takes whole lines from the buffer as long as no question is pending. */
static void next_line(struct asker *k)
{
    char *end;

    while (!k->closing && k->pending == NULL && k->admin != NULL && k->used > 0 &&
           (end = memchr(k->line, '\n', k->used)) != NULL) {
        size_t len = (size_t)(end - k->line);
        char *copy = malloc(len + 1);
        if (copy == NULL) {
            asker_close(k);
            return;
        }
        memcpy(copy, k->line, len);
        k->used -= len + 1;
        memmove(k->line, end + 1, k->used);
        k->asking = true;
        ask(k, copy, len);
        k->asking = false;
        free(copy);
    }
}

static void give_room(uv_handle_t *h, size_t suggested, uv_buf_t *buf)
{
    struct asker *k = h->data;

    (void)suggested;
    if (k->line == NULL)
        k->line = malloc(HF_ADMIN_REQUEST_MAX);
    if (k->line == NULL) {
        *buf = uv_buf_init(NULL, 0); /* libuv reports ENOBUFS, which closes */
        return;
    }
    *buf = uv_buf_init(k->line + k->used, (unsigned)(HF_ADMIN_REQUEST_MAX - k->used));
}

static void arrived(uv_stream_t *s, ssize_t n, const uv_buf_t *buf)
{
    struct asker *k = s->data;

    (void)buf;
    if (n < 0) { /* also ENOBUFS: a line longer than the limit */
        asker_close(k);
        return;
    }
    k->used += (size_t)n;
    next_line(k);
}

/* NULL: out of memory. */
static struct asker *asker_new(struct hf_admin *a, bool far)
{
    struct asker *k = calloc(1, sizeof *k);

    if (k == NULL || uv_pipe_init(a->listener.loop, &k->pipe, 0) != 0) {
        free(k);
        return NULL;
    }
    k->pipe.data = k;
    k->admin = a;
    k->far = far;
    k->next = a->askers;
    a->askers = k;
    a->n_askers++;
    a->n_far += far;
    return k;
}

static void connected(uv_stream_t *s, int status)
{
    struct hf_admin *a = s->data;
    struct asker *k = status == 0 ? asker_new(a, false) : NULL;

    if (k == NULL)
        return;
    if (uv_accept(s, (uv_stream_t *)&k->pipe) != 0 || a->n_askers > HF_ADMIN_CONNECTIONS_MAX ||
        uv_read_start((uv_stream_t *)&k->pipe, give_room, arrived) != 0)
        asker_close(k);
}

/* -- led on to another node -------------------------------------------------------------------------- */

int hf_admin_detach(struct hf_admin_request *request)
{
    struct asker *k = request->asker;
    uv_os_fd_t own;
    int fd;

    if (k == NULL)
        return HF_ECLOSED;
    if (k->used > 0 || uv_stream_get_write_queue_size((uv_stream_t *)&k->pipe) > 0)
        return HF_EINVAL;
    if (uv_fileno((uv_handle_t *)&k->pipe, &own) != 0 || (fd = fcntl(own, F_DUPFD_CLOEXEC, 0)) < 0)
        return HF_EIO;
    asker_close(k); /* closes its descriptor, and not the connection */
    free(request);
    k->pending = NULL;
    return fd;
}

int hf_admin_adopt(struct hf_admin *a, int fd)
{
    struct asker *k;

    if (a->n_far >= HF_ADMIN_FAR_MAX)
        return HF_EBUSY;
    k = asker_new(a, true);
    if (k == NULL)
        return HF_ENOMEM;
    if (uv_pipe_open(&k->pipe, fd) != 0) {
        asker_close(k);
        return HF_EIO;
    }
    if (uv_read_start((uv_stream_t *)&k->pipe, give_room, arrived) != 0)
        asker_close(k); /* fd with it */
    return 0;
}

bool hf_admin_is_far(const struct hf_admin_request *request)
{
    return request->asker != NULL && request->asker->far;
}

/* -- open, close ------------------------------------------------------------------------------------- */

static void listener_closed(uv_handle_t *h)
{
    free(h->data);
}

int hf_admin_open(struct hf_admin **out, uv_loop_t *loop, const char *path, hf_admin_handler handle,
                  void *ctx, struct hf_error *err)
{
    struct hf_admin *a;
    int fd, rv;

    *out = NULL;
    if (strlen(path) >= sizeof a->path)
        return hf_fail(err, HF_EINVAL,
                       "%s: too long for a Unix socket, at most %zu bytes (hint: use a shorter "
                       "directory)",
                       path, sizeof a->path - 1);
    a = calloc(1, sizeof *a);
    if (a == NULL)
        return hf_fail(err, HF_ENOMEM, "%s: out of memory", path);
    strcpy(a->path, path);
    a->handle = handle;
    a->ctx = ctx;
    fd = hf_net_listen_unix(path, 0600, err);
    if (fd < 0) {
        free(a);
        return fd;
    }
    rv = uv_pipe_init(loop, &a->listener, 0);
    if (rv != 0) {
        close(fd);
        free(a);
        return hf_fail(err, HF_EIO, "%s: %s", path, uv_strerror(rv));
    }
    a->listener.data = a;
    rv = uv_pipe_open(&a->listener, fd);
    if (rv != 0)
        close(fd);
    else
        rv = uv_listen((uv_stream_t *)&a->listener, HF_ADMIN_CONNECTIONS_MAX, connected);
    if (rv != 0) {
        uv_close((uv_handle_t *)&a->listener, listener_closed);
        return hf_fail(err, HF_EIO, "%s: cannot listen: %s", path, uv_strerror(rv));
    }
    *out = a;
    return 0;
}

void hf_admin_close(struct hf_admin *a)
{
    while (a->askers != NULL) {
        struct asker *k = a->askers;
        asker_close(k);
        k->admin = NULL;
    }
    (void)unlink(a->path);
    uv_close((uv_handle_t *)&a->listener, listener_closed);
}
