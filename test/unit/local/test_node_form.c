/* An empty node that looks for its cluster: the DNS is the test's, and what goes to others or to the disk is caught. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/net.h"
#include "node_private.h"

static struct {
    const char *zone; /* in which the DNS has names: what ends otherwise is not there */
    bool silent;
    unsigned n_names;
    const char *names[8];
    unsigned asked;
    bool founds; /* a founding is on its way to disk */
    unsigned persisted;
    char log[64];
} world;
static struct hf_node node;
static struct hf_node_config config;

/* -- what node_form.c asks of the rest ------------------------------------------------------------------------- */

/* On the thread pool, one at a time; the test looks when the loop stands still. */
int hf_net_resolve(const char *addr, struct sockaddr_storage *out, socklen_t *len, struct hf_error *err)
{
    char host[512];

    (void)out;
    (void)len;
    world.asked++;
    if (world.silent)
        return hf_fail(err, HF_EIO, "cannot resolve %s: it is silent", addr);
    for (unsigned i = 0; i < world.n_names; i++) {
        snprintf(host, sizeof host, "%s.%s.:7000", world.names[i], world.zone);
        if (strcmp(host, addr) == 0)
            return 0;
    }
    return hf_fail(err, HF_ENOENT, "cannot resolve %s: no such name", addr);
}

void hf_peer_send(struct hf_peer *p, const char *name, const char *addr, const struct hf_msg *m)
{
    (void)p;
    (void)name;
    (void)addr;
    (void)m;
}

void hf_node_persist(struct hf_node *n, const struct hf_durable *d, uint64_t seq, bool for_form)
{
    (void)n;
    (void)seq;
    assert_true(for_form);
    world.founds = d->self == 1;
    world.persisted++;
}

void hf_node_member(struct hf_node *n, const struct hf_member *founding, unsigned n_founding)
{
    (void)n;
    (void)founding;
    (void)n_founding;
}

int hf_founding_save(const char *dir, const struct hf_member *m, unsigned n, struct hf_error *err)
{
    (void)dir;
    (void)m;
    (void)n;
    (void)err;
    return 0;
}

const char *hf_node_seed_addr(const struct hf_node *n, const char *name)
{
    (void)n;
    (void)name;
    return NULL;
}

void hf_node_random(void *out, size_t len)
{
    memset(out, 7, len);
}

void hf_node_end(struct hf_node *n, int status)
{
    (void)n;
    fail_msg("ends with %d", status);
}

/* -- the node -------------------------------------------------------------------------------------------------- */

/* demo-0, founded alone; demo-1 and demo-2 may exist. */
static int begin(void **state)
{
    (void)state;
    memset(&world, 0, sizeof world);
    memset(&node, 0, sizeof node);
    memset(&config, 0, sizeof config);
    strcpy(config.name, "demo-0");
    config.expect = config.n_seeds = 1;
    strcpy(config.seeds[0].name, "demo-0");
    strcpy(config.seeds[0].addr, "demo-0.db.prod.svc:7000");
    config.n_others = 2;
    for (unsigned i = 0; i < 2; i++) {
        snprintf(config.others[i].name, HF_NAME_MAX, "demo-%u", i + 1);
        snprintf(config.others[i].addr, HF_ADDR_MAX, "demo-%u.db.prod.svc:7000", i + 1);
    }
    strcpy(config.dir, "/tmp/hf-form-XXXXXX");
    assert_non_null(mkdtemp(config.dir));
    snprintf(world.log, sizeof world.log, "%s/log", config.dir);
    world.zone = "corp.k8s";
    assert_int_equal(uv_loop_init(&node.loop), 0);
    node.config = &config;
    return 0;
}

/* Lets it look, and tick, for so long; what it has logged since it began is in world.log. */
static void run(const char *domain, unsigned ms)
{
    struct hf_error err;
    uint64_t end = hf_clock_ns() + ms * HF_MS;
    int old = dup(STDERR_FILENO), log = open(world.log, O_CREAT | O_APPEND | O_WRONLY, 0600);

    assert_true(old >= 0 && log >= 0 && dup2(log, STDERR_FILENO) >= 0);
    if (node.form == NULL) {
        assert_true(hf_domains_of_service(&config.domains, "db", "prod", domain));
        assert_int_equal(hf_node_form_begin(&node, &err), 0);
    }
    while (hf_clock_ns() < end) {
        (void)uv_run(&node.loop, UV_RUN_NOWAIT);
        hf_form_tick(node.form, hf_clock_ns());
        hf_node_form_run(&node);
        usleep(2000);
    }
    assert_true(dup2(old, STDERR_FILENO) >= 0);
    close(old);
    close(log);
}

static bool said(const char *text)
{
    char line[1024];
    bool found = false;
    FILE *f = fopen(world.log, "r");

    assert_non_null(f);
    while (!found && fgets(line, sizeof line, f) != NULL)
        found = strstr(line, text) != NULL;
    fclose(f);
    return found;
}

static int end(void **state)
{
    char path[HF_PATH_MAX + 16];

    (void)state;
    node.ending = true;
    uv_walk(&node.loop, (uv_walk_cb)(void *)uv_close, NULL);
    (void)uv_run(&node.loop, UV_RUN_DEFAULT);
    assert_int_equal(uv_loop_close(&node.loop), 0);
    unlink(world.log);
    snprintf(path, sizeof path, "%s/founding.id", config.dir);
    unlink(path);
    rmdir(config.dir);
    free(node.form);
    return 0;
}

/* -- who else exists ------------------------------------------------------------------------------------------- */

static void test_nobody_else_has_a_name(void **state)
{
    (void)state;
    world.n_names = 2;
    world.names[0] = "db.prod.svc";
    world.names[1] = "demo-0.db.prod.svc";
    run("corp.k8s", 500);
    assert_true(world.founds);
    assert_false(said("before it is known"));
}

static void test_whoever_has_a_name_is_asked(void **state)
{
    (void)state;
    world.n_names = 2;
    world.names[0] = "db.prod.svc";
    world.names[1] = "demo-2.db.prod.svc";
    run("corp.k8s", 500);
    assert_int_equal(world.persisted, 0);
}

/* Whoever asks in a zone that is not the cluster's hears of everybody that there is no such name. */
static void test_another_zone_proves_nothing(void **state)
{
    (void)state;
    world.n_names = 2;
    world.names[0] = "db.prod.svc";
    world.names[1] = "demo-2.db.prod.svc";
    run("cluster.local", 3000);
    assert_int_equal(world.persisted, 0);
    assert_true(said("before it is known who else exists"));
    assert_true(said("db.prod.svc.cluster.local"));
    assert_true(said("HOLDFAST_CLUSTER_DOMAIN"));
}

/* The first pod's name comes into the DNS a moment after the pod: nothing to be warned of. */
static void test_a_service_that_is_there_a_moment_later(void **state)
{
    (void)state;
    run("corp.k8s", 500);
    assert_int_equal(world.persisted, 0);
    world.n_names = 1;
    world.names[0] = "db.prod.svc";
    run("corp.k8s", 2500);
    assert_true(world.founds);
    assert_false(said("before it is known"));
}

static void test_a_dns_that_is_silent_proves_nothing(void **state)
{
    (void)state;
    world.silent = true;
    run("corp.k8s", 3000);
    assert_int_equal(world.persisted, 0);
    assert_true(said("it is silent"));
}

static void test_the_domain_is_not_known(void **state)
{
    (void)state;
    run("", 3000);
    assert_true(world.persisted == 0 && world.asked == 0);
    assert_true(said("HOLDFAST_CLUSTER_DOMAIN"));
}

/* Outside of Kubernetes nobody is looked up. */
static void test_hosts_have_no_others(void **state)
{
    (void)state;
    config.n_others = 0;
    run("", 300);
    assert_true(world.founds && world.asked == 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_nobody_else_has_a_name, begin, end),
        cmocka_unit_test_setup_teardown(test_whoever_has_a_name_is_asked, begin, end),
        cmocka_unit_test_setup_teardown(test_another_zone_proves_nothing, begin, end),
        cmocka_unit_test_setup_teardown(test_a_service_that_is_there_a_moment_later, begin, end),
        cmocka_unit_test_setup_teardown(test_a_dns_that_is_silent_proves_nothing, begin, end),
        cmocka_unit_test_setup_teardown(test_the_domain_is_not_known, begin, end),
        cmocka_unit_test_setup_teardown(test_hosts_have_no_others, begin, end),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
