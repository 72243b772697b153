/* Server on a loop, client on a thread: as the node and the command line meet. A second server is another node's, to
 * which the first one leads on. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <errno.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include "admin/admin.h"

struct fixture {
    uv_loop_t loop;
    struct hf_admin *admin, *other;
    struct hf_admin_request *kept;
    char dir[64], path[96], other_path[96];
    unsigned asked, other_asked;
    int detached; /* what the newest hf_admin_detach() said */
    uv_timer_t later;
    uv_async_t stop;
    void (*client)(struct fixture *f);
    pthread_t thread;
};

static void reply_later(uv_timer_t *t)
{
    struct fixture *f = t->data;

    hf_admin_reply(f->kept, json_pack("{s:b}", "late", 1));
    f->kept = NULL;
}

/* As node_through.c does, without what lies between. */
static json_t *lead_on(struct fixture *f, struct hf_admin_request *r, const char *name)
{
    static const char ok[] = "{\"ok\":true}\n";
    int rv;

    if (strcmp(name, "other") != 0)
        return json_pack("{s:s}", "error", "no such member");
    f->detached = hf_admin_detach(r);
    if (f->detached < 0)
        return json_pack("{s:s}", "error", "not detached");
    rv = hf_admin_adopt(f->other, f->detached);
    if (rv == 0)
        assert_int_equal(send(f->detached, ok, strlen(ok), 0), strlen(ok));
    else
        close(f->detached);
    return NULL;
}

static void handle_other(void *ctx, struct hf_admin_request *r, const json_t *body)
{
    struct fixture *f = ctx;

    f->other_asked++;
    if (strcmp(json_string_value(json_object_get(body, "op")), "never") == 0)
        f->kept = r;
    else
        hf_admin_reply(r, json_pack("{s:i,s:b}", "other", (int)f->other_asked, "far", (int)hf_admin_is_far(r)));
}

static void handle(void *ctx, struct hf_admin_request *r, const json_t *body)
{
    struct fixture *f = ctx;
    const char *op = json_string_value(json_object_get(body, "op"));

    f->asked++;
    if (op != NULL && strcmp(op, "later") == 0) {
        f->kept = r;
        uv_timer_start(&f->later, reply_later, 30, 0);
    } else if (op != NULL && strcmp(op, "through") == 0) {
        json_t *answer = lead_on(f, r, json_string_value(json_object_get(body, "name")));
        if (answer != NULL)
            hf_admin_reply(r, answer);
    } else if (op != NULL && strcmp(op, "never") == 0) {
        f->kept = r;
    } else if (op != NULL && strcmp(op, "big") == 0) {
        char *text = malloc(1000001);
        memset(text, 'x', 1000000);
        text[1000000] = '\0';
        hf_admin_reply(r, json_pack("{s:s}", "text", text));
        free(text);
    } else if (op != NULL && strcmp(op, "no") == 0) {
        hf_admin_reply(r, json_pack("{s:s}", "error", "not today (hint: tomorrow)"));
    } else {
        assert_false(hf_admin_is_far(r));
        hf_admin_reply(r, json_pack("{s:i}", "n", (int)f->asked));
    }
}

static void *client_main(void *arg)
{
    struct fixture *f = arg;

    f->client(f);
    uv_async_send(&f->stop);
    return NULL;
}

static void stop(uv_async_t *a)
{
    struct fixture *f = a->data;

    hf_admin_close(f->admin);
    hf_admin_close(f->other);
    if (f->kept != NULL) /* the promise of hf_admin_close(): still replied to, no more than freed */
        hf_admin_reply(f->kept, json_pack("{}"));
    uv_close((uv_handle_t *)&f->stop, NULL);
    uv_close((uv_handle_t *)&f->later, NULL);
}

static void run(void (*client)(struct fixture *f))
{
    struct fixture f = {.client = client};
    struct hf_error err;
    struct stat st;

    strcpy(f.dir, "/tmp/hf-admin-XXXXXX");
    assert_non_null(mkdtemp(f.dir));
    snprintf(f.path, sizeof f.path, "%s/admin.sock", f.dir);
    assert_int_equal(uv_loop_init(&f.loop), 0);
    uv_timer_init(&f.loop, &f.later);
    uv_async_init(&f.loop, &f.stop, stop);
    f.later.data = f.stop.data = &f;
    assert_int_equal(hf_admin_open(&f.admin, &f.loop, f.path, handle, &f, &err), 0);
    snprintf(f.other_path, sizeof f.other_path, "%s/other.sock", f.dir);
    assert_int_equal(hf_admin_open(&f.other, &f.loop, f.other_path, handle_other, &f, &err), 0);
    assert_int_equal(stat(f.path, &st), 0);
    assert_int_equal(st.st_mode & 0777, 0600);
    assert_int_equal(pthread_create(&f.thread, NULL, client_main, &f), 0);
    uv_run(&f.loop, UV_RUN_DEFAULT);
    pthread_join(f.thread, NULL);
    assert_int_equal(uv_loop_close(&f.loop), 0);
    assert_int_not_equal(access(f.path, F_OK), 0);
    assert_int_equal(rmdir(f.dir), 0);
}

static int ask(struct fixture *f, const char *op, int timeout_ms, json_t **answer,
               struct hf_error *err)
{
    json_t *q = json_pack("{s:s}", "op", op);
    int rv = hf_admin_ask(f->path, q, timeout_ms, answer, err);

    json_decref(q);
    return rv;
}

/* ---------------------------------------------------------------------------------------------------- */

static void answers_client(struct fixture *f)
{
    struct hf_error err;
    json_t *a;

    for (int i = 1; i <= 50; i++) {
        assert_int_equal(ask(f, "count", 2000, &a, &err), 0);
        assert_int_equal(json_integer_value(json_object_get(a, "n")), i);
        json_decref(a);
    }
    assert_int_equal(ask(f, "later", 2000, &a, &err), 0);
    assert_true(json_is_true(json_object_get(a, "late")));
    json_decref(a);
    assert_int_equal(ask(f, "big", 5000, &a, &err), 0);
    assert_int_equal(json_string_length(json_object_get(a, "text")), 1000000);
    json_decref(a);
}

static void error_client(struct fixture *f)
{
    struct hf_error err;
    json_t *a;

    assert_int_equal(ask(f, "no", 2000, &a, &err), HF_EREFUSED);
    assert_null(a);
    assert_string_equal(err.text, "not today (hint: tomorrow)");
}

static void timeout_client(struct fixture *f)
{
    struct hf_error err;
    json_t *a;

    assert_int_equal(ask(f, "never", 80, &a, &err), HF_ETIMEOUT);
    assert_null(a);
}

static int dial(struct fixture *f)
{
    struct sockaddr_un sa = {.sun_family = AF_UNIX};
    int fd = socket(AF_UNIX, SOCK_STREAM, 0);

    strcpy(sa.sun_path, f->path);
    assert_int_equal(connect(fd, (struct sockaddr *)&sa, sizeof sa), 0);
    return fd;
}

static size_t read_all(int fd, char *buf, size_t cap, unsigned lines)
{
    size_t n = 0;

    while (n < cap - 1 && lines > 0) {
        ssize_t got = recv(fd, buf + n, cap - 1 - n, 0);
        if (got <= 0)
            break;
        for (ssize_t i = 0; i < got; i++)
            lines -= buf[n + (size_t)i] == '\n' && lines > 0;
        n += (size_t)got;
    }
    buf[n] = '\0';
    return n;
}

/* Many lines at once, some of them rubbish, answered one by one and in order. */
static void pipelined_client(struct fixture *f)
{
    static const char text[] = "{\"op\":\"a\"}\n{\"op\":\"later\"}\n[1]\nrubbish\n{\"op\":\"b\"}\n{}";
    char buf[4096];
    int fd = dial(f);

    assert_int_equal(send(fd, text, strlen(text), 0), (ssize_t)strlen(text));
    assert_int_equal(send(fd, "\n", 1, 0), 1);
    read_all(fd, buf, sizeof buf, 6);
    assert_string_equal(buf, "{\"n\":1}\n{\"late\":true}\n"
                             "{\"error\":\"a request is one JSON object on one line\"}\n"
                             "{\"error\":\"a request is one JSON object on one line\"}\n"
                             "{\"n\":3}\n{\"n\":4}\n");
    close(fd);
}

static void too_long_client(struct fixture *f)
{
    char *text = malloc(HF_ADMIN_REQUEST_MAX + 100), buf[16];
    struct hf_error err;
    json_t *a;
    int fd = dial(f);

    memset(text, ' ', HF_ADMIN_REQUEST_MAX + 100);
    (void)send(fd, text, HF_ADMIN_REQUEST_MAX + 100, MSG_NOSIGNAL);
    assert_int_equal(read_all(fd, buf, sizeof buf, 1), 0); /* closed, not answered */
    close(fd);
    free(text);
    assert_int_equal(ask(f, "still there", 2000, &a, &err), 0);
    json_decref(a);
}

/* More connections than allowed: those beyond are closed, the first go on. */
static void too_many_client(struct fixture *f)
{
    int fds[HF_ADMIN_CONNECTIONS_MAX + 1];
    char buf[64];

    for (int i = 0; i <= HF_ADMIN_CONNECTIONS_MAX; i++) {
        fds[i] = dial(f);
        if (i < HF_ADMIN_CONNECTIONS_MAX) {
            assert_int_equal(send(fds[i], "{}\n", 3, 0), 3);
            assert_true(read_all(fds[i], buf, sizeof buf, 1) > 0);
        }
    }
    assert_int_equal(read_all(fds[HF_ADMIN_CONNECTIONS_MAX], buf, sizeof buf, 1), 0);
    assert_int_equal(send(fds[0], "{}\n", 3, 0), 3);
    assert_true(read_all(fds[0], buf, sizeof buf, 1) > 0);
    for (int i = 0; i <= HF_ADMIN_CONNECTIONS_MAX; i++)
        close(fds[i]);
}

/* The asker leaves while its question is open; the answer comes later and goes nowhere. */
static void leaves_client(struct fixture *f)
{
    struct hf_error err;
    json_t *a;
    int fd = dial(f);

    assert_int_equal(send(fd, "{\"op\":\"later\"}\n", 15, 0), 15);
    close(fd);
    for (int i = 0; i < 20; i++) {
        assert_int_equal(ask(f, "count", 2000, &a, &err), 0);
        json_decref(a);
        usleep(5000);
    }
}

/* -- led on to another node ---------------------------------------------------------------------------- */

static int ask_through(struct fixture *f, const char *name, const char *op, int timeout_ms, json_t **answer,
                       struct hf_error *err)
{
    json_t *q = json_pack("{s:s}", "op", op);
    int rv = hf_admin_ask_through(f->path, name, q, timeout_ms, answer, err);

    json_decref(q);
    return rv;
}

static void through_client(struct fixture *f)
{
    struct hf_error err;
    json_t *a;

    for (int i = 1; i <= 50; i++) {
        assert_int_equal(ask_through(f, "other", "count", 2000, &a, &err), 0);
        assert_int_equal(json_integer_value(json_object_get(a, "other")), i);
        assert_true(json_is_true(json_object_get(a, "far")));
        json_decref(a);
    }
    assert_int_equal(ask_through(f, "nobody", "count", 2000, &a, &err), HF_EREFUSED);
    assert_null(a);
    assert_string_equal(err.text, "no such member");
    assert_int_equal(f->other_asked, 50);
    assert_int_equal(ask_through(f, NULL, "count", 2000, &a, &err), 0); /* of itself */
    assert_non_null(json_object_get(a, "n"));
    json_decref(a);
    /* One deadline for both. */
    assert_int_equal(ask_through(f, "other", "never", 80, &a, &err), HF_ETIMEOUT);
    assert_null(a);
}

/* What has been sent behind the question lies with the first node, and would be lost. */
static void hasty_client(struct fixture *f)
{
    static const char text[] = "{\"op\":\"through\",\"name\":\"other\"}\n{\"op\":\"b\"}\n";
    char buf[256];
    int fd = dial(f);

    assert_int_equal(send(fd, text, strlen(text), 0), (ssize_t)strlen(text));
    read_all(fd, buf, sizeof buf, 2);
    assert_string_equal(buf, "{\"error\":\"not detached\"}\n{\"n\":2}\n");
    assert_int_equal(f->detached, HF_EINVAL);
    assert_int_equal(f->other_asked, 0);
    close(fd);
}

/* Other nodes never keep the owner out. */
static void crowd_client(struct fixture *f)
{
    static const char through[] = "{\"op\":\"through\",\"name\":\"other\"}\n";
    int fds[HF_ADMIN_FAR_MAX + 1];
    struct hf_error err;
    char buf[64];
    json_t *q = json_pack("{s:s}", "op", "count"), *a;

    for (int i = 0; i <= HF_ADMIN_FAR_MAX; i++) {
        fds[i] = dial(f);
        assert_int_equal(send(fds[i], through, strlen(through), 0), (ssize_t)strlen(through));
        assert_int_equal(read_all(fds[i], buf, sizeof buf, 1) > 0, i < HF_ADMIN_FAR_MAX);
    }
    assert_int_equal(hf_admin_ask(f->other_path, q, 2000, &a, &err), 0);
    assert_true(json_is_false(json_object_get(a, "far")));
    json_decref(a);
    json_decref(q);
    for (int i = 0; i <= HF_ADMIN_FAR_MAX; i++)
        close(fds[i]);
    /* Their places are free again once the ends have been seen. */
    for (int i = 0; i < 100 && ask_through(f, "other", "count", 2000, &a, &err) != 0; i++)
        usleep(5000);
    assert_true(json_is_true(json_object_get(a, "far")));
    json_decref(a);
}

static void answers(void **s)
{
    (void)s;
    run(answers_client);
}
static void errors(void **s)
{
    (void)s;
    run(error_client);
}
static void timeouts(void **s)
{
    (void)s;
    run(timeout_client);
}
static void pipelined(void **s)
{
    (void)s;
    run(pipelined_client);
}
static void too_long(void **s)
{
    (void)s;
    run(too_long_client);
}
static void too_many(void **s)
{
    (void)s;
    run(too_many_client);
}
static void leaves(void **s)
{
    (void)s;
    run(leaves_client);
}
static void through(void **s)
{
    (void)s;
    run(through_client);
}
static void hasty(void **s)
{
    (void)s;
    run(hasty_client);
}
static void crowd(void **s)
{
    (void)s;
    run(crowd_client);
}

static void nobody_listens(void **s)
{
    struct fixture f = {.path = "/tmp/hf-admin-no-such/admin.sock"};
    struct hf_error err;
    json_t *a;

    (void)s;
    assert_int_equal(ask(&f, "x", 100, &a, &err), HF_ENOENT);
    memset(f.path, 'x', sizeof f.path - 1);
}

static void path_too_long(void **s)
{
    char path[200];
    struct hf_admin *a;
    struct hf_error err;
    uv_loop_t loop;

    (void)s;
    memset(path, 'x', sizeof path - 1);
    path[sizeof path - 1] = '\0';
    assert_int_equal(uv_loop_init(&loop), 0);
    assert_int_equal(hf_admin_open(&a, &loop, path, handle, NULL, &err), HF_EINVAL);
    assert_non_null(strstr(err.text, "hint"));
    assert_int_equal(uv_loop_close(&loop), 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(answers),        cmocka_unit_test(errors),
        cmocka_unit_test(timeouts),       cmocka_unit_test(pipelined),
        cmocka_unit_test(too_long),       cmocka_unit_test(too_many),
        cmocka_unit_test(leaves),         cmocka_unit_test(through),
        cmocka_unit_test(hasty),          cmocka_unit_test(crowd),
        cmocka_unit_test(nobody_listens), cmocka_unit_test(path_too_long),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
