/* Which nodes a verb asks, where a node runs by itself: a server that is the node, asked as the verbs ask. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "admin/admin.h"
#include "cmd/cmd.h"

static struct {
    uv_loop_t loop;
    uv_async_t stop;
    pthread_t thread;
    struct hf_admin *admin;
    char dir[64], socket[96];
    const char *status; /* what the node says of itself, JSON */
} node;

static void handle(void *ctx, struct hf_admin_request *r, const json_t *body)
{
    const char *op = hf_json_text(body, "op"), *name = hf_json_text(body, "name");

    (void)ctx;
    if (strcmp(op, "status") == 0)
        hf_admin_reply(r, json_loads(node.status, 0, NULL));
    else if (strcmp(op, "through") == 0 && strcmp(name, "demo-2") == 0)
        hf_admin_reply(r, json_pack("{s:s}", "error", "the name cannot be resolved"));
    else if (strcmp(op, "through") == 0)
        hf_admin_reply(r, json_pack("{s:b}", "ok", 1)); /* and goes on itself */
    else
        hf_admin_reply(r, json_pack("{s:s}", "answered", op));
}

static void stop(uv_async_t *a)
{
    hf_admin_close(node.admin);
    uv_close((uv_handle_t *)a, NULL);
}

static void *run(void *arg)
{
    (void)arg;
    uv_run(&node.loop, UV_RUN_DEFAULT);
    return NULL;
}

static void node_begin(const char *status)
{
    struct hf_error err;

    node.status = status;
    assert_int_equal(uv_loop_init(&node.loop), 0);
    uv_async_init(&node.loop, &node.stop, stop);
    assert_int_equal(hf_admin_open(&node.admin, &node.loop, node.socket, handle, NULL, &err), 0);
    assert_int_equal(pthread_create(&node.thread, NULL, run, NULL), 0);
}

static void node_end(void)
{
    uv_async_send(&node.stop);
    pthread_join(node.thread, NULL);
    assert_int_equal(uv_loop_close(&node.loop), 0);
}

static int directory_make(void **state)
{
    (void)state;
    strcpy(node.dir, "/tmp/hf-nodes-XXXXXX");
    unsetenv("HOLDFAST_NODE_DIR");
    unsetenv("HOLDFAST_DIR");
    if (mkdtemp(node.dir) == NULL)
        return -1;
    snprintf(node.socket, sizeof node.socket, "%s/admin.sock", node.dir);
    return 0;
}

static int directory_remove(void **state)
{
    (void)state;
    return rmdir(node.dir);
}

#define MEMBER(name) "{\"name\": \"" name "\", \"sql\": \"" name ".nodes:5432\"}"

/* By ordinal, whatever the order in which they joined; each once; itself without a detour. */
static void test_members(void **state)
{
    static const char *const names[] = {"demo-0", "demo-1", "demo-2", "demo-10"};
    struct hf_nodes ns;
    struct hf_nodes_answer answers[HF_MEMBERS_MAX];
    struct hf_error err;
    json_t *answer;

    (void)state;
    node_begin("{\"name\": \"demo-1\", \"sql\": \"here:5432\", \"members\": [" MEMBER("demo-10") "," MEMBER("demo-2") ","
               MEMBER("demo-1") "," MEMBER("demo-0") "," MEMBER("demo-2") "]}");
    assert_int_equal(hf_nodes_open(&ns, node.dir, &err), 0);
    assert_int_equal(ns.n, 4);
    assert_false(ns.local);
    assert_string_equal(ns.cluster, "demo");
    for (unsigned i = 0; i < 4; i++) {
        assert_string_equal(ns.nodes[i].name, names[i]);
        assert_string_equal(ns.nodes[i].socket, node.socket);
        assert_int_equal(ns.nodes[i].through, i != 1);
    }
    assert_string_equal(ns.nodes[1].sql, "here:5432");
    assert_string_equal(ns.nodes[3].sql, "demo-10.nodes:5432");
    hf_nodes_ask_all(&ns, "history", 2000, answers);
    for (unsigned i = 0; i < 4; i++) {
        if (i == 2) {
            assert_null(answers[i].body);
            assert_string_equal(answers[i].why.text, "the name cannot be resolved");
            continue;
        }
        assert_string_equal(hf_json_text(answers[i].body, "answered"), "history");
        json_decref(answers[i].body);
    }
    assert_int_equal(hf_nodes_ask(&ns, 2, json_pack("{s:s}", "op", "x"), 2000, &answer, &err), HF_EREFUSED);
    assert_int_equal(hf_nodes_find(&ns, "demo-10", &err), 3);
    assert_int_equal(hf_nodes_find(&ns, "10", &err), 3);
    assert_int_equal(hf_nodes_find(&ns, "demo-7", &err), -1);
    assert_non_null(strstr(err.text, "no node demo-7 in cluster demo"));
    assert_int_equal(hf_nodes_find(&ns, "", &err), -1);
    node_end();
}

/* A node that forms a cluster still, and an answer that makes no sense: never more than there is room for. */
static void test_odd_answers(void **state)
{
    char *many = malloc(64 * 1024);
    size_t used;
    struct hf_nodes ns;
    struct hf_error err;

    (void)state;
    node_begin("{\"name\": \"demo-0\"}");
    assert_int_equal(hf_nodes_open(&ns, node.dir, &err), 0);
    assert_int_equal(ns.n, 1);
    node_end();
    used = (size_t)sprintf(many, "{\"name\": \"%s\", \"members\": [1, {}, null", "nodash");
    for (int i = 0; i < 100; i++)
        used += (size_t)sprintf(many + used, ", {\"name\": \"%0*d\"}", HF_NAME_MAX + 20, i);
    strcpy(many + used, "]}");
    node_begin(many);
    assert_int_equal(hf_nodes_open(&ns, node.dir, &err), 0);
    assert_in_range(ns.n, 1, HF_MEMBERS_MAX);
    assert_string_equal(ns.cluster, "nodash");
    node_end();
    free(many);
}

/* Named by the variable of pods; --dir comes before. Each error says what to do. */
static void test_which(void **state)
{
    char socket[HF_PATH_MAX], cwd[HF_PATH_MAX];
    struct hf_nodes ns;
    struct hf_local l;
    struct hf_error err;

    (void)state;
    assert_non_null(getcwd(cwd, sizeof cwd));
    assert_int_equal(chdir("/proc"), 0); /* no cluster there */
    setenv("HOLDFAST_NODE_DIR", node.dir, 1);
    assert_false(hf_nodes_alone("", socket));
    assert_int_equal(hf_nodes_open(&ns, "", &err), HF_ENOENT);
    assert_non_null(strstr(err.text, "no node runs there"));
    node_begin("{\"name\": \"demo-0\"}");
    assert_true(hf_nodes_alone("", socket));
    assert_string_equal(socket, node.socket);
    assert_int_equal(hf_nodes_open(&ns, "", &err), 0);
    assert_int_equal(hf_nodes_open(&ns, "/proc/no-such", &err), HF_ENOENT);
    assert_non_null(strstr(err.text, "/proc/no-such: there is no cluster"));
    assert_int_equal(hf_cmd_open(&l, "", &err), HF_ENOENT); /* of a verb that does not work here */
    assert_non_null(strstr(err.text, "a node runs here by itself"));
    unsetenv("HOLDFAST_NODE_DIR");
    assert_false(hf_nodes_alone("", socket));
    assert_true(hf_nodes_alone(node.dir, socket));
    node_end();
    assert_int_equal(chdir(cwd), 0);
}

/* The socket of a node that was killed stays. */
static void test_a_dead_nodes_socket(void **state)
{
    struct hf_nodes ns;
    struct hf_error err;
    FILE *f = fopen(node.socket, "w");

    (void)state;
    assert_non_null(f);
    fclose(f);
    assert_int_equal(hf_nodes_open(&ns, node.dir, &err), HF_ENOENT);
    assert_non_null(strstr(err.text, "no node runs there (hint: its log says why)"));
    assert_int_equal(unlink(node.socket), 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_members),
        cmocka_unit_test(test_odd_answers),
        cmocka_unit_test(test_which),
        cmocka_unit_test(test_a_dead_nodes_socket),
    };

    return cmocka_run_group_tests(tests, directory_make, directory_remove);
}
