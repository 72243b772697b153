/* The asking side of the admin socket: blocking, with one deadline for everything. */
#include "admin/admin.h"

#include <errno.h>
#include <poll.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include "base/clock.h"

static int timed_out(const char *path, int timeout_ms, struct hf_error *err)
{
    return hf_fail(err, HF_ETIMEOUT, "%s: no answer within %d ms", path, timeout_ms);
}

/* Waits for `events`; 1, 0 on timeout, -1 with errno. */
static int ready(int fd, short events, uint64_t end_ns)
{
    for (;;) {
        struct pollfd p = {.fd = fd, .events = events};
        uint64_t now = hf_clock_ns();
        int rv;
        if (now >= end_ns)
            return 0;
        rv = poll(&p, 1, (int)((end_ns - now) / 1000000u) + 1);
        if (rv > 0)
            return 1;
        if (rv < 0 && errno != EINTR)
            return -1;
    }
}

static int dial(const char *path, struct hf_error *err)
{
    struct sockaddr_un sa = {.sun_family = AF_UNIX};
    int fd;

    if (strlen(path) >= sizeof sa.sun_path)
        return hf_fail(err, HF_EINVAL, "%s: too long for a Unix socket", path);
    strcpy(sa.sun_path, path);
    fd = socket(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    if (fd < 0)
        return hf_fail(err, HF_EIO, "socket: %s", strerror(errno));
    /* On a Unix socket connect() ends at once, or says EAGAIN when the backlog is full. */
    if (connect(fd, (struct sockaddr *)&sa, sizeof sa) != 0) {
        int why = errno;
        close(fd);
        if (why == ENOENT || why == ECONNREFUSED || why == ENOTDIR)
            return hf_fail(err, HF_ENOENT, "%s: nobody listens there", path);
        if (why == EAGAIN)
            return hf_fail(err, HF_EBUSY, "%s: too many are asking", path);
        return hf_fail(err, why == EACCES ? HF_EPERM : HF_EIO, "%s: cannot connect: %s", path,
                       strerror(why));
    }
    return fd;
}

static int send_line(int fd, const char *path, const char *text, uint64_t end_ns, int timeout_ms,
                     struct hf_error *err)
{
    size_t len = strlen(text) + 1, done = 0;

    while (done < len) {
        /* The last byte is the line's end in the place of the NUL. */
        bool last = done == len - 1;
        ssize_t n = send(fd, last ? "\n" : text + done, last ? 1 : len - 1 - done, MSG_NOSIGNAL);
        if (n > 0) {
            done += (size_t)n;
        } else if (errno == EAGAIN) {
            if (ready(fd, POLLOUT, end_ns) <= 0)
                return timed_out(path, timeout_ms, err);
        } else if (errno != EINTR) {
            return hf_fail(err, HF_ECLOSED, "%s: cannot ask: %s", path, strerror(errno));
        }
    }
    return 0;
}

/* One line, from malloc(). */
static int read_line(int fd, const char *path, char **out, uint64_t end_ns, int timeout_ms,
                     struct hf_error *err)
{
    size_t cap = 8192, used = 0;
    char *text = malloc(cap), *more;

    while (text != NULL) {
        ssize_t n = recv(fd, text + used, cap - used - 1, 0);
        if (n > 0) {
            char *end = memchr(text + used, '\n', (size_t)n);
            used += (size_t)n;
            if (end != NULL) {
                *end = '\0';
                *out = text;
                return 0;
            }
        } else if (n == 0) {
            free(text);
            return hf_fail(err, HF_ECLOSED, "%s: closed without an answer", path);
        } else if (errno == EAGAIN) {
            if (ready(fd, POLLIN, end_ns) <= 0) {
                free(text);
                return timed_out(path, timeout_ms, err);
            }
        } else if (errno != EINTR) {
            free(text);
            return hf_fail(err, HF_ECLOSED, "%s: %s", path, strerror(errno));
        }
        if (used + 1 < cap)
            continue;
        if (cap >= HF_ADMIN_ANSWER_MAX) {
            free(text);
            return hf_fail(err, HF_EINVAL, "%s: the answer is too long", path);
        }
        cap *= 2;
        more = realloc(text, cap);
        if (more == NULL)
            free(text);
        text = more;
    }
    return hf_fail(err, HF_ENOMEM, "%s: out of memory", path);
}

static int understand(const char *path, const char *line, json_t **answer, struct hf_error *err)
{
    json_t *o = json_loads(line, 0, NULL);
    const char *error;

    if (!json_is_object(o)) {
        json_decref(o);
        return hf_fail(err, HF_EINVAL, "%s: the answer is not a JSON object", path);
    }
    error = json_string_value(json_object_get(o, "error"));
    if (error != NULL) {
        int rv = hf_fail(err, HF_EREFUSED, "%s", error);
        json_decref(o);
        return rv;
    }
    *answer = o;
    return 0;
}

/* One question on a connection, and its answer. */
static int exchange(int fd, const char *path, const json_t *request, uint64_t end_ns, int timeout_ms,
                    json_t **answer, struct hf_error *err)
{
    char *text = json_dumps(request, JSON_COMPACT), *line = NULL;
    int rv;

    if (text == NULL)
        return hf_fail(err, HF_ENOMEM, "%s: out of memory", path);
    rv = send_line(fd, path, text, end_ns, timeout_ms, err);
    if (rv == 0)
        rv = read_line(fd, path, &line, end_ns, timeout_ms, err);
    if (rv == 0)
        rv = understand(path, line, answer, err);
    free(line);
    free(text);
    return rv;
}

static int lead_on(int fd, const char *path, const char *name, uint64_t end_ns, int timeout_ms,
                   struct hf_error *err)
{
    json_t *request = json_pack("{s:s,s:s}", "op", "through", "name", name), *ok = NULL;
    int rv = exchange(fd, path, request, end_ns, timeout_ms, &ok, err);

    json_decref(request);
    json_decref(ok);
    return rv;
}

int hf_admin_ask_through(const char *path, const char *name, const json_t *request, int timeout_ms,
                         json_t **answer, struct hf_error *err)
{
    uint64_t end_ns = hf_clock_ns() + (uint64_t)timeout_ms * 1000000u;
    int fd, rv = 0;

    *answer = NULL;
    fd = dial(path, err);
    if (fd < 0)
        return fd;
    if (name != NULL)
        rv = lead_on(fd, path, name, end_ns, timeout_ms, err);
    if (rv == 0)
        rv = exchange(fd, path, request, end_ns, timeout_ms, answer, err);
    close(fd);
    return rv;
}

int hf_admin_ask(const char *path, const json_t *request, int timeout_ms, json_t **answer,
                 struct hf_error *err)
{
    return hf_admin_ask_through(path, NULL, request, timeout_ms, answer, err);
}
