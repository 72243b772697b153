/* Certificates that are checked with a reason, files that are written whole. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <unistd.h>
#include <cmocka.h>

#include <arpa/inet.h>
#include <netinet/in.h>
#include <openssl/pem.h>
#include <openssl/x509v3.h>

#include "base/allow.h"
#include "base/cert.h"
#include "base/file.h"
#include "base/fingerprint.h"
#include "base/hash.h"
#include "base/listener.h"
#include "base/net.h"

static char dir[] = "/tmp/hf-base-XXXXXX";

static const char *path(const char *name)
{
    static char out[4][128];
    static unsigned next;
    char *p = out[next++ % 4];

    (void)snprintf(p, sizeof out[0], "%s/%s", dir, name);
    return p;
}

static bool allows(const struct hf_allow *a, const char *address)
{
    struct sockaddr_in v4 = {.sin_family = AF_INET};
    struct sockaddr_in6 v6 = {.sin6_family = AF_INET6};

    if (inet_pton(AF_INET, address, &v4.sin_addr) == 1)
        return hf_allow_has(a, (struct sockaddr *)&v4);
    assert_int_equal(inet_pton(AF_INET6, address, &v6.sin6_addr), 1);
    return hf_allow_has(a, (struct sockaddr *)&v6);
}

static void test_addresses(void **state)
{
    static const char *const wrong[] = {"h", "h:", ":1", "[]:1", "h:65536", "h:99999999999999999999"};
    char host[32], port[8];

    (void)state;
    assert_int_equal(hf_net_split("[::1]:7000", host, sizeof host, port, sizeof port, NULL), 0);
    assert_string_equal(host, "::1");
    assert_string_equal(port, "7000");
    assert_int_equal(hf_net_split("h:postgresql", host, sizeof host, port, sizeof port, NULL), HF_EINVAL); /* no room */
    assert_int_equal(hf_net_split("h:http", host, sizeof host, port, sizeof port, NULL), 0);
    assert_int_equal(hf_net_split("h:65535", host, sizeof host, port, sizeof port, NULL), 0);
    for (size_t i = 0; i < sizeof wrong / sizeof *wrong; i++)
        assert_int_equal(hf_net_split(wrong[i], host, sizeof host, port, sizeof port, NULL), HF_EINVAL);
}

static void test_networks(void **state)
{
    static const char *const wrong[] = {"10.0.0.0/33", "10.0.0.1/8",  "fd00::1/8", "host",     "10.0.0.0/",
                                        "10.0.0.0/-1", "10.0.0.0/8x", "::/129",    "10.1/16", "/8"};
    struct hf_allow a = {0};
    struct hf_error err;

    (void)state;
    assert_true(allows(&a, "192.0.2.1")); /* no list: everybody */
    assert_int_equal(hf_allow_add(&a, "10.0.0.0/8, 192.0.2.64/26,203.0.113.7", &err), 0);
    assert_int_equal(hf_allow_add(&a, "fd00::/8", &err), 0);
    assert_int_equal(a.n, 4);
    assert_true(allows(&a, "10.255.0.1") && !allows(&a, "11.0.0.0"));
    assert_true(allows(&a, "192.0.2.127") && !allows(&a, "192.0.2.128") && !allows(&a, "192.0.2.63"));
    assert_true(allows(&a, "203.0.113.7") && !allows(&a, "203.0.113.6"));
    assert_true(allows(&a, "fdff::1") && !allows(&a, "fe00::1") && !allows(&a, "::1"));
    assert_true(allows(&a, "::ffff:10.1.2.3") && !allows(&a, "::ffff:11.1.2.3")); /* a socket for both families */
    for (size_t i = 0; i < sizeof wrong / sizeof wrong[0]; i++) {
        assert_int_equal(hf_allow_add(&a, wrong[i], &err), HF_EINVAL);
        assert_int_equal(a.n, 4);
    }
    a = (struct hf_allow){0};
    assert_int_equal(hf_allow_add(&a, "0.0.0.0/0", &err), 0); /* all of IPv4, nothing of IPv6 */
    assert_true(allows(&a, "198.51.100.1") && !allows(&a, "::1"));
    for (int i = 1; i < HF_ALLOW_MAX; i++)
        assert_int_equal(hf_allow_add(&a, "10.0.0.0/8", &err), 0);
    assert_int_equal(hf_allow_add(&a, "10.0.0.0/8", &err), HF_EINVAL);
}

/* Clients may connect to an address, and check it. */
static void test_addresses_in_certificates(void **state)
{
    const char *names[] = {"demo-0", "localhost", "127.0.0.1", "::1"};
    struct hf_error err;
    char file[256];
    X509 *cert;
    FILE *f;

    (void)state;
    assert_int_equal(hf_dir_make(path("ca2"), 0700, &err), 0);
    assert_int_equal(hf_dir_make(path("node2"), 0700, &err), 0);
    assert_int_equal(hf_cert_make_ca(path("ca2"), "demo", &err), 0);
    assert_int_equal(hf_cert_make_node(path("ca2"), path("node2"), names, 4, &err), 0);
    (void)snprintf(file, sizeof file, "%s/node.crt", path("node2"));
    f = fopen(file, "r");
    assert_non_null(f);
    cert = PEM_read_X509(f, NULL, NULL, NULL);
    (void)fclose(f);
    assert_non_null(cert);
    assert_int_equal(X509_check_ip_asc(cert, "127.0.0.1", 0), 1);
    assert_int_equal(X509_check_ip_asc(cert, "::1", 0), 1);
    assert_int_equal(X509_check_ip_asc(cert, "127.0.0.2", 0), 0);
    assert_int_equal(X509_check_host(cert, "localhost", 0, 0, NULL), 1);
    assert_int_equal(X509_check_host(cert, "127.0.0.1", 0, 0, NULL), 0);
    X509_free(cert);
}

static void test_certificates(void **state)
{
    const char *names[] = {"demo-0", "demo-0.demo.svc"};
    struct hf_error err = {0};
    char *bytes;
    size_t len;

    (void)state;
    assert_int_equal(hf_dir_make(path("ca/deep"), 0700, &err), 0);
    assert_int_equal(hf_dir_make(path("other"), 0700, &err), 0);
    assert_int_equal(hf_dir_make(path("node"), 0700, &err), 0);
    assert_int_equal(hf_cert_make_ca(path("ca"), "demo", &err), 0);
    assert_int_equal(hf_cert_make_ca(path("other"), "demo", &err), 0);
    assert_int_equal(hf_cert_make_node(path("ca"), path("node"), names, 2, &err), 0);
    assert_int_equal(hf_cert_check(path("node"), "demo-0", NULL, &err), 0);
    assert_int_equal(hf_cert_check(path("node"), "demo-0.demo.svc", NULL, &err), 0);
    assert_int_not_equal(hf_cert_check(path("node"), "demo-1", NULL, &err), 0);
    assert_non_null(strstr(err.text, "demo-1"));
    /* The authority of another cluster. */
    assert_int_equal(hf_file_read(path("other/ca.crt"), 65536, &bytes, &len, &err), 0);
    assert_int_equal(hf_file_write(path("node/ca.crt"), bytes, len, 0644, &err), 0);
    free(bytes);
    assert_int_not_equal(hf_cert_check(path("node"), "demo-0", NULL, &err), 0);
    assert_non_null(strstr(err.text, "not signed by"));
}

static void test_fingerprints(void **state)
{
    const char *name = "demo-0";
    struct hf_error err = {0};
    uint64_t pair, all;

    (void)state;
    assert_int_equal(hf_dir_make(path("ca3"), 0700, &err), 0);
    assert_int_equal(hf_dir_make(path("node3"), 0700, &err), 0);
    assert_true(hf_cert_fingerprint(path("node3"), false) == 0);
    assert_int_equal(hf_cert_make_ca(path("ca3"), "demo", &err), 0);
    assert_int_equal(hf_cert_make_node(path("ca3"), path("node3"), &name, 1, &err), 0);
    pair = hf_cert_fingerprint(path("node3"), false);
    all = hf_cert_fingerprint(path("node3"), true);
    assert_true(pair != 0 && all != 0 && pair != all);
    assert_int_equal(hf_file_write(path("node3/ca.crt"), "another", 7, 0644, &err), 0);
    assert_true(hf_cert_fingerprint(path("node3"), false) == pair);
    assert_true(hf_cert_fingerprint(path("node3"), true) != all);
    assert_int_equal(unlink(path("node3/ca.crt")), 0);
    assert_true(hf_cert_fingerprint(path("node3"), false) == pair);
    assert_true(hf_cert_fingerprint(path("node3"), true) == 0);
    assert_int_equal(hf_cert_make_node(path("ca3"), path("node3"), &name, 1, &err), 0);
    assert_true(hf_cert_fingerprint(path("node3"), false) != pair);
    assert_true(hf_fingerprint(HF_FINGERPRINT_BEGIN, "a", 1) == 0xaf63dc4c8601ec8cu); /* as FNV-1a is published */
}

static void test_files(void **state)
{
    struct hf_error err = {0};
    char *bytes;
    size_t len;

    (void)state;
    assert_int_equal(hf_file_write(path("f"), "one", 3, 0600, &err), 0);
    assert_int_equal(hf_file_write(path("f"), "three", 5, 0600, &err), 0);
    assert_int_equal(hf_file_read(path("f"), 16, &bytes, &len, &err), 0);
    assert_int_equal(len, 5);
    assert_string_equal(bytes, "three");
    free(bytes);
    assert_int_equal(hf_file_read(path("f"), 4, &bytes, &len, &err), HF_EINVAL);
    assert_int_equal(hf_file_read(path("none"), 4, &bytes, &len, &err), HF_ENOENT);
    assert_int_not_equal(hf_file_write(path("none/f"), "x", 1, 0600, &err), 0);
    /* A link is removed, what it points to stays. */
    assert_int_equal(hf_dir_make(path("tree/sub"), 0700, &err), 0);
    assert_int_equal(symlink(path("f"), path("tree/sub/link")), 0);
    assert_int_equal(hf_dir_remove(path("tree"), &err), 0);
    assert_int_equal(access(path("f"), F_OK), 0);
    assert_int_equal(hf_dir_remove(path("tree"), &err), 0);
}

static void test_a_port_in_use_is_named(void **state)
{
    struct sockaddr_storage sa;
    socklen_t len = sizeof sa;
    struct hf_error err = {0};
    char addr[64], host[32], port[8];
    int fd = hf_net_listen("127.0.0.1:0", &err);

    (void)state;
    assert_true(fd >= 0);
    assert_int_equal(getsockname(fd, (struct sockaddr *)&sa, &len), 0);
    assert_true(hf_net_is_loopback((struct sockaddr *)&sa));
    assert_int_equal(getnameinfo((struct sockaddr *)&sa, len, host, sizeof host, port, sizeof port,
                                 NI_NUMERICHOST | NI_NUMERICSERV), 0);
    (void)snprintf(addr, sizeof addr, "%s:%s", host, port);
    assert_int_equal(hf_net_listen(addr, &err), HF_EBUSY);
    assert_non_null(strstr(err.text, port));
    close(fd);
    assert_int_equal(hf_net_split("nonsense", host, sizeof host, port, sizeof port, &err), HF_EINVAL);
}

static int begin(void **state)
{
    (void)state;
    return mkdtemp(dir) == NULL;
}

static int end(void **state)
{
    (void)state;
    return hf_dir_remove(dir, NULL);
}

/* The same for the same bytes; what meets under one key does not under another. */
static void test_hashes(void **state)
{
    struct hf_hash *a = hf_hash_new(), *b = hf_hash_new();
    unsigned met = 0, again = 0;

    (void)state;
    assert_non_null(a);
    assert_non_null(b);
    assert_int_equal(hf_hash_of(a, "x", 1), hf_hash_of(a, "xy", 1));
    assert_int_not_equal(hf_hash_of(a, "x", 1), hf_hash_of(a, "xy", 2));
    assert_int_not_equal(hf_hash_of(a, "", 0), hf_hash_of(b, "", 0));
    for (uint32_t i = 0; i < 200 * 256; i++) {
        if (hf_hash_of(a, &i, sizeof i) % 256 != 0)
            continue;
        met++;
        again += hf_hash_of(b, &i, sizeof i) % 256 == 0;
    }
    assert_in_range(met, 100, 300);
    assert_in_range(again, 0, 20);
    hf_hash_free(a);
    hf_hash_free(b);
    hf_hash_free(NULL);
}

/* -- a listener --------------------------------------------------------------------------------------------- */

static unsigned turns, arrivals;

static void turn_cb(uv_prepare_t *prepare)
{
    (void)prepare;
    turns++;
}

static void arrived(void *ctx, int fd)
{
    (void)ctx;
    arrivals++;
    close(fd);
}

static void stopped(void *ctx)
{
    *(bool *)ctx = true;
}

/* Without a descriptor left it does not go round and round, and accepts later what waits. */
static void test_no_descriptor_left(void **state)
{
    bool over = false;
    struct hf_listener l;
    struct sockaddr_storage sa;
    socklen_t len = sizeof sa;
    struct rlimit was, none;
    uv_loop_t loop;
    uv_prepare_t prepare;
    int fd = hf_net_listen("127.0.0.1:0", NULL), client;
    uint64_t began;

    (void)state;
    assert_true(fd >= 0);
    assert_int_equal(uv_loop_init(&loop), 0);
    (void)uv_prepare_init(&loop, &prepare);
    (void)uv_prepare_start(&prepare, turn_cb);
    assert_int_equal(hf_listener_start(&l, &loop, fd, "test", arrived, &over), 0);
    assert_int_equal(getsockname(fd, (struct sockaddr *)&sa, &len), 0);
    client = hf_net_connect((struct sockaddr *)&sa, len, NULL);
    assert_true(client >= 0);
    assert_int_equal(getrlimit(RLIMIT_NOFILE, &was), 0);
    none = was;
    none.rlim_cur = 3;
    assert_int_equal(setrlimit(RLIMIT_NOFILE, &none), 0);
    began = uv_hrtime();
    while (turns < 4) /* it looks, it pauses, and looks again */
        (void)uv_run(&loop, UV_RUN_ONCE);
    assert_true(uv_hrtime() - began > 50 * 1000000ull);
    assert_int_equal(arrivals, 0);
    assert_int_equal(setrlimit(RLIMIT_NOFILE, &was), 0);
    for (turns = 0; arrivals == 0 && turns < 10;)
        (void)uv_run(&loop, UV_RUN_ONCE);
    assert_int_equal(arrivals, 1);
    hf_listener_stop(&l, stopped);
    close(fd);
    uv_close((uv_handle_t *)&prepare, NULL);
    while (uv_run(&loop, UV_RUN_ONCE) != 0)
        ;
    assert_true(over);
    assert_int_equal(uv_loop_close(&loop), 0);
    close(client);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_certificates),
        cmocka_unit_test(test_fingerprints),
        cmocka_unit_test(test_addresses_in_certificates),
        cmocka_unit_test(test_addresses),
        cmocka_unit_test(test_networks),
        cmocka_unit_test(test_files),
        cmocka_unit_test(test_a_port_in_use_is_named),
        cmocka_unit_test(test_hashes),
        cmocka_unit_test(test_no_descriptor_left),
    };

    return cmocka_run_group_tests(tests, begin, end);
}
