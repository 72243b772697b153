/* What a pod finds out about itself, and under which names its certificate may know it. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/file.h"
#include "node_config.h"
#include "pod/identity.h"

static const char hosts[] = "# Kubernetes-managed hosts file.\n"
                            "127.0.0.1\tlocalhost\n"
                            "::1\tlocalhost ip6-localhost\n"
                            "10.1.2.3\tshop-2.shop-nodes.prod.svc.cluster.example\tshop-2\n";
static const char resolv[] =
    "nameserver 10.96.0.10\n"
    "search prod.svc.cluster.example svc.cluster.example cluster.example corp.example\n"
    "options ndots:5\n";

static void from_files(void **s)
{
    struct hf_pod p = {.name = "shop-2"};

    (void)s;
    hf_pod_from_hosts(&p, hosts);
    assert_string_equal(p.service, "shop-nodes");
    assert_string_equal(p.namespace, "prod");
    assert_string_equal(p.domain, "cluster.example");
    p = (struct hf_pod){.name = "shop-2", .service = "given"};
    hf_pod_from_hosts(&p, hosts);
    assert_string_equal(p.service, "given");
    assert_string_equal(p.namespace, "prod");
    p = (struct hf_pod){.name = "shop-22"}; /* another pod's line */
    hf_pod_from_hosts(&p, hosts);
    assert_string_equal(p.service, "");
    p = (struct hf_pod){.name = "shop-2"};
    hf_pod_from_hosts(&p, "10.1.2.4 shop-2-a.prod.svc\n"); /* nor a name that begins like ours */
    assert_string_equal(p.service, "");
    p = (struct hf_pod){.name = "shop-22"};
    hf_pod_from_resolv(&p, resolv);
    assert_string_equal(p.namespace, "prod");
    assert_string_equal(p.domain, "cluster.example");
    assert_string_equal(p.service, "");
}

static void files_of_elsewhere(void **s)
{
    struct hf_pod p = {.name = "shop-2"};

    (void)s;
    hf_pod_from_hosts(&p, "127.0.1.1 shop-2.corp.example shop-2\n10.0.0.1 shop-2.a.b.c.svc x\n");
    hf_pod_from_resolv(&p, "search corp.example\nsearch svc.example\n# search a.svc.b\n");
    assert_string_equal(p.service, "");
    assert_string_equal(p.namespace, "");
    hf_pod_from_hosts(&p, "10.0.0.1 shop-2.db.prod.svc\n");
    assert_string_equal(p.service, "db");
    assert_string_equal(p.namespace, "prod");
    assert_string_equal(p.domain, "");
}

static void addresses(void **s)
{
    struct hf_pod p = {.name = "a-b-0", .service = "db", .namespace = "prod"};
    char name[HF_NAME_MAX], addr[HF_ADDR_MAX];
    struct hf_error err;

    (void)s;
    assert_int_equal(hf_pod_address(&p, 12, 7000, name, addr, &err), 0);
    assert_string_equal(name, "a-b-12");
    assert_string_equal(addr, "a-b-12.db.prod.svc:7000");
    memset(p.service, 'x', sizeof p.service - 1);
    memset(p.namespace, 'y', sizeof p.namespace - 1);
    memset(p.name, 'z', sizeof p.name - 3);
    memcpy(p.name + sizeof p.name - 3, "-0", 3);
    assert_int_equal(hf_pod_address(&p, 1, 7000, name, addr, &err), HF_EINVAL);
}

static int parse(struct hf_node_config *c, const char *dir, const char *name, const char *replicas,
                 struct hf_error *err)
{
    const char *argv[] = {"node",   "--dir",     dir,  "--name",      name,   "--replicas",
                          replicas, "--service", "db", "--namespace", "prod", NULL};

    return hf_node_config_parse(c, 11, (char **)(uintptr_t)argv, err);
}

static void configuration(void **s)
{
    static struct hf_node_config c;
    char dir[] = "/tmp/hf-pod-XXXXXX", node[64];
    struct hf_error err;

    (void)s;
    assert_non_null(mkdtemp(dir));
    snprintf(node, sizeof node, "%s/node", dir); /* made: the volume's root has lost+found */
    assert_int_equal(parse(&c, node, "shop-1", "3", &err), 0);
    assert_int_equal(c.expect, 3);
    assert_int_equal(c.n_seeds, 3);
    assert_string_equal(c.seeds[2].name, "shop-2");
    assert_string_equal(c.seeds[2].addr, "shop-2.db.prod.svc:7000");
    assert_int_equal(c.n_others, HF_MEMBERS_MAX - 3); /* if it has been scaled since */
    assert_string_equal(c.others[0].addr, "shop-3.db.prod.svc:7000");
    assert_string_equal(c.advertise_peer, "shop-1.db.prod.svc:7000");
    assert_string_equal(c.advertise_sql, "shop-1.db.prod.svc:5432");
    assert_string_equal(c.listen_peer, "*:7000");
    assert_int_equal(access(node, X_OK), 0);
    /* `kubectl scale` adds pods and leaves the template as it was. */
    assert_int_equal(parse(&c, node, "shop-4", "3", &err), 0);
    assert_int_equal(c.expect, 3);
    assert_int_equal(c.n_seeds, 4);
    assert_string_equal(c.seeds[3].name, "shop-4");
    assert_int_equal(c.n_others, HF_MEMBERS_MAX - 4);
    assert_string_equal(c.others[1].name, "shop-5");
    assert_string_equal(c.advertise_peer, "shop-4.db.prod.svc:7000");
    assert_int_equal(hf_dir_remove(dir, NULL), 0);
    assert_int_equal(parse(&c, node, "shop-4", "3", &err), HF_EIO); /* no volume */
    assert_non_null(strstr(err.text, "volume"));
}

static void certificates(void **s)
{
    static const char *const all[] = {"*.db.prod.svc"}, *const partial[] = {"shop-*.db.prod.svc"};
    char dir[] = "/tmp/hf-pod-XXXXXX", made[64];
    struct hf_domains d, other;
    struct hf_error err;

    (void)s;
    assert_non_null(mkdtemp(dir));
    snprintf(made, sizeof made, "%s/made", dir);
    assert_true(hf_domains_of_service(&d, "db", "prod", ""));
    assert_int_equal(d.n, 3);
    assert_true(hf_domains_of_service(&other, "db", "test", "cluster.local"));
    assert_int_equal(other.n, 4);
    assert_string_equal(other.text[3], "db.test.svc.cluster.local");
    assert_int_equal(hf_dir_make(made, 0700, &err), 0);
    assert_int_equal(hf_cert_make_ca(dir, "shop", &err), 0);
    assert_int_equal(hf_cert_make_node(dir, made, all, 1, &err), 0);
    assert_int_equal(hf_cert_check(made, "shop-0", &d, &err), 0);
    assert_int_equal(hf_cert_check(made, "shop-7", &d, &err), 0);
    assert_int_equal(hf_cert_check(made, "shop-0", NULL, &err), HF_ETLS);
    assert_int_equal(hf_cert_check(made, "shop-0", &other, &err), HF_ETLS); /* another namespace */
    assert_non_null(strstr(err.text, "*.db.test.svc"));
    assert_int_equal(hf_cert_make_node(dir, made, partial, 1, &err), 0);
    assert_int_equal(hf_cert_check(made, "shop-0", &d, &err), HF_ETLS);
    assert_int_equal(hf_dir_remove(dir, NULL), 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(from_files),   cmocka_unit_test(files_of_elsewhere),
        cmocka_unit_test(addresses),    cmocka_unit_test(configuration),
        cmocka_unit_test(certificates),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
