/* Another node's admin socket by way of this one: the tunnel between them is the test's. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include "node_private.h"

static struct {
    struct hf_cluster cluster;
    struct hf_durable durable;
    char dir[64], path[96];
    uv_loop_t loop;
    /* The newest hf_peer_dial(). */
    unsigned dials;
    char name[HF_NAME_MAX], addr[HF_ADDR_MAX];
    struct hf_dial dial[2 * HF_ADMIN_CONNECTIONS_MAX];
    int fd[2 * HF_ADMIN_CONNECTIONS_MAX];
    /* The newest answer to a tunnel. */
    int accepted; /* -1: none */
    char refused[128];
} world;
static struct hf_node node;

struct hf_view hf_decide_view(const struct hf_decide *d)
{
    (void)d;
    return (struct hf_view){.cluster = &world.cluster, .durable = &world.durable};
}

void hf_peer_dial(struct hf_peer *p, const char *name, const char *addr, enum hf_purpose purpose, const void *payload,
                  size_t len, int fd, const struct hf_dial *d)
{
    (void)p;
    (void)payload;
    assert_int_equal(purpose, HF_PURPOSE_ADMIN);
    assert_int_equal(len, 0);
    snprintf(world.name, sizeof world.name, "%s", name);
    snprintf(world.addr, sizeof world.addr, "%s", addr);
    world.fd[world.dials] = fd;
    world.dial[world.dials++] = *d;
}

void hf_tunnel_accept(struct hf_tunnel *t, int fd, const struct hf_wal_terms *terms)
{
    (void)t;
    assert_null(terms);
    world.accepted = fd;
}

void hf_tunnel_refuse(struct hf_tunnel *t, const char *text)
{
    (void)t;
    world.accepted = -1;
    snprintf(world.refused, sizeof world.refused, "%s", text);
}

static void handle(void *ctx, struct hf_admin_request *r, const json_t *body)
{
    const char *op = json_string_value(json_object_get(body, "op"));
    json_t *answer;

    (void)ctx;
    if (strcmp(op, "through") != 0) {
        hf_admin_reply(r, json_pack("{s:s,s:b}", "op", op, "far", (int)hf_admin_is_far(r)));
        return;
    }
    answer = hf_node_through(&node, r, json_string_value(json_object_get(body, "name")));
    if (answer != NULL)
        hf_admin_reply(r, answer);
}

static int world_begin(void **state)
{
    struct hf_error err;

    (void)state;
    memset(&world, 0, sizeof world);
    memset(&node, 0, sizeof node);
    strcpy(world.dir, "/tmp/hf-through-XXXXXX");
    assert_non_null(mkdtemp(world.dir));
    snprintf(world.path, sizeof world.path, "%s/admin.sock", world.dir);
    for (unsigned i = 0; i < 3; i++) {
        struct hf_member *m = &world.cluster.members[world.cluster.n_members++];
        m->id = i + 1;
        snprintf(m->name, sizeof m->name, "demo-%u", i);
        snprintf(m->peer, sizeof m->peer, "demo-%u.nodes:7000", i);
    }
    memset(&node.identity.cluster_id, 0xc1, sizeof node.identity.cluster_id);
    world.durable.self = node.durable.self = 1;
    node.decide = (struct hf_decide *)&node;
    assert_int_equal(uv_loop_init(&world.loop), 0);
    assert_int_equal(hf_admin_open(&node.admin, &world.loop, world.path, handle, NULL, &err), 0);
    return 0;
}

static int world_end(void **state)
{
    (void)state;
    hf_admin_close(node.admin);
    uv_run(&world.loop, UV_RUN_DEFAULT);
    assert_int_equal(uv_loop_close(&world.loop), 0);
    return rmdir(world.dir);
}

static int asker(const char *line)
{
    struct sockaddr_un sa = {.sun_family = AF_UNIX};
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK, 0);

    strcpy(sa.sun_path, world.path);
    assert_int_equal(connect(fd, (struct sockaddr *)&sa, sizeof sa), 0);
    assert_int_equal(send(fd, line, strlen(line), 0), (ssize_t)strlen(line));
    for (int i = 0; i < 20; i++)
        (void)uv_run(&world.loop, UV_RUN_NOWAIT);
    return fd;
}

static void says(int fd, const char *text)
{
    char buf[512];
    ssize_t n;

    for (int i = 0; i < 20; i++)
        (void)uv_run(&world.loop, UV_RUN_NOWAIT);
    n = recv(fd, buf, sizeof buf - 1, MSG_DONTWAIT);
    assert_true(n >= 0 && (size_t)n < sizeof buf);
    buf[n] = '\0';
    assert_string_equal(buf, text);
}

static void says_nothing(int fd)
{
    char byte;

    assert_int_equal(recv(fd, &byte, 1, MSG_DONTWAIT), -1);
    assert_int_equal(errno, EAGAIN);
}

#define THROUGH(name) "{\"op\":\"through\",\"name\":\"" name "\"}\n"

static void test_the_connection_goes_on(void **state)
{
    int fd = asker(THROUGH("demo-2"));

    (void)state;
    assert_int_equal(world.dials, 1);
    assert_string_equal(world.name, "demo-2");
    assert_string_equal(world.addr, "demo-2.nodes:7000");
    says_nothing(fd); /* not before it is open */
    assert_int_equal(node.n_through, 1);
    world.dial[0].opened(world.dial[0].arg, 0, "", NULL, 0);
    says(fd, "{\"ok\":true}\n");
    assert_int_equal(send(fd, "question", 8, 0), 8);
    says(world.fd[0], "question");
    assert_int_equal(send(world.fd[0], "answer", 6, 0), 6);
    says(fd, "answer");
    assert_int_equal(node.n_through, 1);
    close(world.fd[0]);
    says(fd, ""); /* nobody else holds it */
    world.dial[0].closed(world.dial[0].arg, false);
    assert_int_equal(node.n_through, 0);
    close(fd);
}

static void test_who_cannot_be_reached(void **state)
{
    int fd = asker(THROUGH("demo-1"));

    (void)state;
    close(world.fd[0]); /* as the pump does */
    world.dial[0].opened(world.dial[0].arg, HF_EREFUSED, "demo-1 refuses: so", NULL, 0);
    says(fd, "{\"error\":\"demo-1 refuses: so\"}\n");
    says(fd, "");
    assert_int_equal(node.n_through, 0);
    close(fd);
    /* Text that is none, from another node: an end without a word. */
    fd = asker(THROUGH("demo-1"));
    close(world.fd[1]);
    world.dial[1].opened(world.dial[1].arg, HF_EREFUSED, "\xff\xfe", NULL, 0);
    says(fd, "");
    assert_int_equal(node.n_through, 0);
    close(fd);
}

static void test_an_asker_that_left(void **state)
{
    (void)state;
    close(asker(THROUGH("demo-1")));
    world.dial[0].opened(world.dial[0].arg, 0, "", NULL, 0);
    says(world.fd[0], "");
    close(world.fd[0]);
    world.dial[0].closed(world.dial[0].arg, false);
    assert_int_equal(node.n_through, 0);
}

static void test_who_is_not_asked(void **state)
{
    int fd = asker(THROUGH("demo-7"));

    (void)state;
    says(fd, "{\"error\":\"no such member: demo-7\"}\n");
    close(fd);
    fd = asker("{\"op\":\"through\"}\n");
    says(fd, "{\"error\":\"no such member: \"}\n");
    close(fd);
    fd = asker(THROUGH("demo-0")); /* itself: no tunnel */
    says(fd, "{\"ok\":true}\n");
    assert_int_equal(send(fd, "{\"op\":\"x\"}\n", 11, 0), 11);
    says(fd, "{\"op\":\"x\",\"far\":false}\n");
    close(fd);
    node.decide = NULL;
    fd = asker(THROUGH("demo-1"));
    says(fd, "{\"error\":\"this node is not a member of a cluster yet\"}\n");
    close(fd);
    assert_int_equal(world.dials, 0);
    assert_int_equal(node.n_through, 0);
}

static void test_only_so_many_go_on(void **state)
{
    int fds[HF_ADMIN_CONNECTIONS_MAX + 1];

    (void)state;
    for (int i = 0; i <= HF_ADMIN_CONNECTIONS_MAX; i++)
        fds[i] = asker(THROUGH("demo-1"));
    assert_int_equal(world.dials, HF_ADMIN_CONNECTIONS_MAX);
    says(fds[HF_ADMIN_CONNECTIONS_MAX], "{\"error\":\"too many ask other nodes through this one; try again\"}\n");
    for (unsigned i = 0; i < world.dials; i++) {
        close(world.fd[i]);
        world.dial[i].opened(world.dial[i].arg, HF_ETIMEOUT, "late", NULL, 0);
    }
    assert_int_equal(node.n_through, 0);
    for (int i = 0; i <= HF_ADMIN_CONNECTIONS_MAX; i++)
        close(fds[i]);
}

static void test_asked_by_another_node(void **state)
{
    static const char *const may[] = {"status", "history", "sessions", "end-session", "switchover"},
                             *const not[] = {"shutdown", "leave", "remove", "through", "", "statu"};
    struct hf_peer_identity from = {.id = 2, .cluster_id = node.identity.cluster_id, .name = "demo-1"};
    int fds[HF_ADMIN_FAR_MAX];

    (void)state;
    for (int i = 0; i < HF_ADMIN_FAR_MAX; i++) {
        hf_node_through_asked(&node, &from, NULL);
        fds[i] = world.accepted;
        assert_true(fds[i] >= 0);
        assert_int_equal(send(fds[i], "{\"op\":\"x\"}\n", 11, 0), 11);
        says(fds[i], "{\"op\":\"x\",\"far\":true}\n");
    }
    hf_node_through_asked(&node, &from, NULL);
    assert_int_equal(world.accepted, -1);
    assert_string_equal(world.refused, "too many ask this node; try again");
    for (int i = 0; i < HF_ADMIN_FAR_MAX; i++)
        close(fds[i]);
    for (size_t i = 0; i < sizeof may / sizeof *may; i++)
        assert_true(hf_node_through_may(may[i]));
    for (size_t i = 0; i < sizeof not / sizeof *not; i++)
        assert_false(hf_node_through_may(not[i]));
    memset(&from.cluster_id, 0, sizeof from.cluster_id); /* has none yet: its hello is let in */
    hf_node_through_asked(&node, &from, NULL);
    assert_int_equal(world.accepted, -1);
    assert_string_equal(world.refused, "not a member of this cluster");
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, world_begin, world_end)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(test_the_connection_goes_on), TEST(test_who_cannot_be_reached), TEST(test_an_asker_that_left),
        TEST(test_who_is_not_asked),       TEST(test_only_so_many_go_on),    TEST(test_asked_by_another_node),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
