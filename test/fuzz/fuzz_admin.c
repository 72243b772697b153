/* The admin socket's two sides: each whole line of a question is answered by one line, in order,
 * however the bytes are cut, a line that is too long ends the connection, and what the asker takes
 * for an answer is an object without an error. The input: how it is cut, then the stream. */
#include "input.h"

#include "../../src/admin/server.c"
#define ready admin_ready
#include "../../src/admin/client.c"

static char *lines;
static size_t lines_len;
static FILE *out;
static unsigned n_asked, n_closed;
static struct hf_admin_request *late; /* answered after the next read */

/* -- libuv, as far as the socket uses it
 * ----------------------------------------------------------- */

int uv_write(uv_write_t *w, uv_stream_t *s, const uv_buf_t bufs[], unsigned n, uv_write_cb cb)
{
    w->handle = s;
    for (unsigned i = 0; i < n; i++)
        MUST(fwrite(bufs[i].base, 1, bufs[i].len, out) == bufs[i].len);
    cb(w, 0);
    return 0;
}

void uv_close(uv_handle_t *h, uv_close_cb cb)
{
    (void)h;
    (void)cb;
    n_closed++;
}

uv_buf_t uv_buf_init(char *base, unsigned len)
{
    return (uv_buf_t){.base = base, .len = len};
}

int uv_pipe_init(uv_loop_t *l, uv_pipe_t *p, int ipc)
{
    (void)l;
    (void)p;
    (void)ipc;
    return 0;
}

int uv_pipe_open(uv_pipe_t *p, uv_file fd)
{
    (void)p;
    (void)fd;
    return 0;
}

int uv_listen(uv_stream_t *s, int backlog, uv_connection_cb cb)
{
    (void)s;
    (void)backlog;
    (void)cb;
    return 0;
}

int uv_accept(uv_stream_t *s, uv_stream_t *c)
{
    (void)s;
    (void)c;
    return 0;
}

int uv_read_start(uv_stream_t *s, uv_alloc_cb a, uv_read_cb r)
{
    (void)s;
    (void)a;
    (void)r;
    return 0;
}

/* No connection is led on here: it depends on how the bytes are cut (test_admin.c). */
int uv_fileno(const uv_handle_t *h, uv_os_fd_t *fd)
{
    (void)h;
    (void)fd;
    return UV_EBADF;
}

size_t uv_stream_get_write_queue_size(const uv_stream_t *s)
{
    (void)s;
    return 0;
}

const char *uv_strerror(int e)
{
    (void)e;
    return "";
}

int hf_net_listen_unix(const char *path, mode_t mode, struct hf_error *err)
{
    (void)path;
    (void)mode;
    (void)err;
    return -1;
}

/* -- the test -----------------------------------------------------------------------------------
 */

static void handle(void *ctx, struct hf_admin_request *request, const json_t *body)
{
    (void)ctx;
    MUST(json_is_object(body) && late == NULL);
    n_asked++;
    if (json_object_get(body, "late") != NULL)
        late = request;
    else
        hf_admin_reply(request,
                       json_pack("{s:s*}", "op", json_string_value(json_object_get(body, "op"))));
}

static void answer_late(void)
{
    struct hf_admin_request *r = late;

    late = NULL;
    if (r != NULL)
        hf_admin_reply(r, json_pack("{s:b}", "late", 1));
}

/* Returns what was answered. */
static char *talk(struct input in, size_t cut)
{
    struct hf_admin admin = {.handle = handle};
    struct asker *k = calloc(1, sizeof *k);

    MUST(k != NULL);
    admin.listener.data = &admin;
    k->pipe.data = k;
    k->admin = &admin;
    admin.askers = k;
    admin.n_askers = 1;
    lines = NULL;
    n_asked = n_closed = 0;
    out = open_memstream(&lines, &lines_len);
    MUST(out != NULL);
    while (in.n > 0 && n_closed == 0) {
        uv_buf_t buf;
        size_t n = in.n < cut ? in.n : cut;
        give_room((uv_handle_t *)&k->pipe, 0, &buf);
        n = n < buf.len ? n : buf.len;
        if (n == 0) {
            arrived((uv_stream_t *)&k->pipe, UV_ENOBUFS, &buf);
            MUST(n_closed == 1);
            break;
        }
        memcpy(buf.base, in.p, n);
        in.p += n;
        in.n -= n;
        arrived((uv_stream_t *)&k->pipe, (ssize_t)n, &buf);
        MUST(k->used <= HF_ADMIN_REQUEST_MAX);
        answer_late();
    }
    while (late != NULL)
        answer_late();
    MUST(k->pending == NULL);
    asker_closed((uv_handle_t *)&k->pipe);
    MUST(fclose(out) == 0);
    return lines;
}

static void check_answers(char *text, const struct input *in)
{
    unsigned asked = 0, answered = 0;
    char *rest = NULL;

    for (size_t i = 0; i < in->n; i++)
        asked += in->p[i] == '\n';
    for (char *line = strtok_r(text, "\n", &rest); line != NULL;
         line = strtok_r(NULL, "\n", &rest)) {
        json_t *o = json_loads(line, 0, NULL), *answer = NULL;
        struct hf_error err;
        int rv = understand("s", line, &answer, &err);
        MUST(json_is_object(o) && (rv == 0) == (json_object_get(o, "error") == NULL));
        json_decref(o);
        json_decref(answer);
        answered++;
    }
    MUST(answered == asked && n_asked <= asked);
}

static void answers(struct input in)
{
    char *line = input_block(&in, -1, NULL);
    json_t *answer = NULL;
    struct hf_error err;

    if (understand("s", line, &answer, &err) == 0)
        MUST(json_is_object(answer) && !json_is_string(json_object_get(answer, "error")));
    else
        MUST(answer == NULL && err.code < 0);
    json_decref(answer);
    free(line);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct input in = {data, size};
    size_t cut = input_byte(&in) + 1;
    char *whole, *pieces;

    whole = talk(in, HF_ADMIN_REQUEST_MAX);
    pieces = talk(in, cut);
    MUST(strcmp(whole, pieces) == 0);
    check_answers(whole, &in);
    free(whole);
    free(pieces);
    answers(in);
    return 0;
}
