#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/file.h"
#include "node_config.h"

static char dir[64];
static struct hf_node_config c;

static int setup(void **s)
{
    (void)s;
    strcpy(dir, "/tmp/hf-config-XXXXXX");
    return mkdtemp(dir) != NULL ? 0 : -1;
}

static int teardown(void **s)
{
    (void)s;
    return hf_dir_remove(dir, NULL);
}

static int parse_with(struct hf_error *err, ...)
{
    char *argv[48] = {(char *)"node"};
    int argc = 1;
    va_list ap;

    va_start(ap, err);
    while ((argv[argc] = va_arg(ap, char *)) != NULL)
        argc++;
    va_end(ap);
    return hf_node_config_parse(&c, argc, argv, err);
}

#define parse(...) parse_with(&err, "--dir", dir, __VA_ARGS__, NULL)

static void a_pod(void **s)
{
    struct hf_error err;

    (void)s;
    assert_int_equal(parse("--name", "demo-1", "--expect", "3", "--listen", "0.0.0.0", "--seed",
                           "demo-0=demo-0.demo:7000", "--seed", "demo-1=demo-1.demo:7000", "--seed",
                           "demo-2=demo-2.demo:7000", "--advertise-sql", "demo-1.demo:5432"), 0);
    assert_int_equal(c.ordinal, 1);
    assert_int_equal(c.n_seeds, 3);
    assert_string_equal(c.seeds[2].name, "demo-2");
    assert_string_equal(c.listen_sql, "0.0.0.0:5432");
    assert_string_equal(c.listen_ro, "0.0.0.0:5433");
    assert_string_equal(c.listen_peer, "0.0.0.0:7000");
    assert_string_equal(c.advertise_peer, "demo-1.demo:7000"); /* from its own seed */
    assert_string_equal(c.advertise_sql, "demo-1.demo:5432");
    assert_int_equal(c.lease_ms, HF_LEASE_MS_DEFAULT);
    assert_false(c.local_runtime);
    assert_int_equal(c.guard, HF_PG_GUARD_AUTO);
    assert_string_equal(c.extra_conf, "");
    assert_string_equal(c.accounts.app_password, "");
    assert_string_equal(c.accounts.app_role, "app");
    assert_memory_equal(c.admin_socket, c.dir, strlen(c.dir));
}

/* Services have to learn of its end before its ports close. */
static void a_pod_stops_late(void **s)
{
    struct hf_error err;

    (void)s;
    assert_int_equal(parse("--name", "demo-1", "--replicas", "3", "--service", "demo", "--namespace", "prod"), 0);
    assert_int_equal(c.stop_delay_ms, HF_STOP_DELAY_MS_POD);
    assert_int_equal(parse("--name", "demo-1", "--replicas", "3", "--service", "demo", "--namespace", "prod",
                           "--stop-delay-ms", "0"), 0);
    assert_int_equal(c.stop_delay_ms, 0);
}

static void clients(void **s)
{
    struct hf_error err;

    (void)s;
    assert_int_equal(parse("--name", "demo-1", "--seed", "demo-1=a:7000"), 0);
    assert_int_equal(c.client_tls, HF_ROUTER_TLS_OFFERED);
    assert_string_equal(c.client_tls_dir, c.tls_dir);
    assert_int_equal(c.max_clients, HF_CLIENTS_DEFAULT);
    assert_int_equal(c.login_ms, HF_LOGIN_MS_DEFAULT);
    assert_int_equal(c.read_lag_ms, 5000);
    assert_int_equal(c.read_lag_mb, 256);
    assert_int_equal(c.allow.n, 0);
    assert_int_equal(c.stalled_ms, 30000);
    assert_int_equal(c.idle_ms, 0);
    assert_int_equal(c.stop_delay_ms, 0); /* no pod */
    assert_int_equal(parse("--name", "demo-1", "--seed", "demo-1=a:7000", "--client-tls", "required",
                           "--client-tls-dir", "/etc/x", "--allow", "10.0.0.0/8,fd00::/8", "--allow",
                           "127.0.0.1", "--max-clients", "7", "--login-timeout-ms", "500",
                           "--max-read-lag-ms", "2000", "--max-read-lag-mb", "1", "--stalled-client-ms", "0",
                           "--idle-timeout-ms", "600000", "--stop-delay-ms", "1500"), 0);
    assert_int_equal(c.client_tls, HF_ROUTER_TLS_REQUIRED);
    assert_string_equal(c.client_tls_dir, "/etc/x");
    assert_int_equal(c.allow.n, 3);
    assert_int_equal(c.max_clients, 7);
    assert_int_equal(c.login_ms, 500);
    assert_int_equal(c.read_lag_ms, 2000);
    assert_int_equal(c.read_lag_mb, 1);
    assert_int_equal(c.stalled_ms, 0);
    assert_int_equal(c.idle_ms, 600000);
    assert_int_equal(c.stop_delay_ms, 1500);
    /* Below a heartbeat and what it takes to tell of it, no follower would ever be near enough. */
    assert_int_equal(parse("--name", "demo-1", "--seed", "demo-1=a:7000", "--max-read-lag-ms", "1999"), HF_EINVAL);
    assert_int_equal(parse("--name", "demo-1", "--seed", "demo-1=a:7000", "--client-tls", "on"), HF_EINVAL);
    assert_non_null(strstr(err.text, "--client-tls on: not one of offered, required, off"));
    assert_int_equal(parse("--name", "demo-1", "--seed", "demo-1=a:7000", "--allow", "10.0.0.1/8"), HF_EINVAL);
    assert_non_null(strstr(err.text, "--allow"));
}

static void wrong_usage(void **s)
{
    struct hf_error err;

    (void)s;
    assert_int_equal(parse("--name", "demo"), HF_EINVAL);
    assert_non_null(strstr(err.text, "ordinal"));
    assert_int_equal(parse("--name", "Demo-0"), HF_EINVAL);
    assert_int_equal(parse("--name", "-1"), HF_EINVAL);
    assert_int_equal(parse("--name", "demo-99999"), HF_EINVAL);
    assert_int_equal(parse("--name", "demo-0", "--lease-ms", "10"), HF_EINVAL);
    assert_int_equal(parse("--name", "demo-0", "--expect", "3"), HF_EINVAL);
    assert_int_equal(parse("--name", "demo-0", "--seed", "demo-0"), HF_EINVAL);
    assert_int_equal(parse("--name", "demo-0", "--seed", "demo-0=nowhere"), HF_EINVAL);
    assert_int_equal(parse("--name", "demo-0", "--seed", "demo-1=h:1"), HF_EINVAL);
    assert_int_equal(parse("--name", "demo-0", "--log-level", "loud"), HF_EINVAL);
    assert_int_equal(parse("--name", "demo-0", "--guard", "perhaps"), HF_EINVAL);
    assert_non_null(strstr(err.text, "required"));
    assert_int_equal(parse("--name", "demo-0", "-c", "novalue"), HF_EINVAL);
    assert_int_equal(parse("--name", "demo-0", "-c", "bad name=1"), HF_EINVAL);
    assert_int_equal(parse("--name", "demo-0", "-c", "a=1\nb=2"), HF_EINVAL);
    assert_int_equal(parse_with(&err, "--name", "demo-0", NULL), HF_EINVAL);
    assert_int_equal(parse_with(&err, "--help", NULL), 1);
}

static void directory(void **s)
{
    struct hf_error err;
    char longer[256];

    (void)s;
    assert_int_equal(parse_with(&err, "--name", "demo-0", "--dir", "/no/such/place", NULL), HF_EIO);
    assert_non_null(strstr(err.text, "hint"));
    snprintf(longer, sizeof longer, "%s/%0100d", dir, 1);
    assert_int_equal(mkdir(longer, 0700), 0);
    assert_int_equal(parse_with(&err, "--name", "demo-0", "--dir", longer, NULL), HF_EIO);
    assert_non_null(strstr(err.text, "too long"));
}

static void files(void **s)
{
    static const char text[] = "{\"accounts\":{\"app_role\":\"shop\",\"app_password\":\"p\","
                               "\"app_database\":\"shopdb\",\"admin_role\":\"boss\","
                               "\"admin_password\":\"q\"}}";
    char path[128], *conf;
    struct hf_error err;
    size_t len;

    (void)s;
    snprintf(path, sizeof path, "%s/credentials", dir);
    assert_int_equal(hf_file_write(path, text, strlen(text), 0600, &err), 0);
    assert_int_equal(parse("--name", "demo-0", "--credentials", path, "-c", "work_mem=4MB", "--set",
                           "log_line_prefix=it's \\ %m"), 0);
    assert_string_equal(c.accounts.app_role, "shop");
    assert_string_equal(c.accounts.app_database, "shopdb");
    assert_string_equal(c.accounts.admin_password, "q");
    assert_int_equal(access(c.extra_conf, F_OK), -1);
    assert_int_equal(hf_node_config_write(&c, &err), 0);
    assert_int_equal(hf_file_read(c.extra_conf, 4096, &conf, &len, &err), 0);
    assert_string_equal(conf, "work_mem = '4MB'\nlog_line_prefix = 'it''s \\\\ %m'\n");
    free(conf);
    assert_int_equal(hf_file_write(path, "{", 1, 0600, &err), 0);
    assert_int_equal(parse("--name", "demo-0", "--credentials", path), HF_ECORRUPT);
}

static void content_of(const char *name, char out[64])
{
    char path[128], *text;
    size_t len;

    snprintf(path, sizeof path, "%s/%s", dir, name);
    strcpy(out, "(none)");
    if (access(path, F_OK) != 0)
        return;
    assert_int_equal(hf_file_read(path, 63, &text, &len, NULL), 0);
    strcpy(out, text);
    free(text);
}

/* Another node may run in the directory: that is known only when the lock is held, after the flags were read. */
static void flags_are_written_when_told(void **s)
{
    struct hf_error err;
    char text[64], *longest = malloc(HF_FLAG_SETTINGS_MAX);

    (void)s;
    assert_non_null(longest);
    assert_int_equal(parse("--name", "demo-0", "--settings-file", "/tmp/x", "-c", "work_mem=4MB"), 0);
    assert_int_equal(hf_node_config_write(&c, &err), 0);
    content_of("flags.conf", text);
    assert_string_equal(text, "work_mem = '4MB'\n");
    assert_int_equal(parse("--name", "demo-0", "--settings-file", "/tmp/x", "-c", "work_mem=1GB"), 0);
    content_of("flags.conf", text);
    assert_string_equal(text, "work_mem = '4MB'\n");
    assert_int_equal(hf_node_config_write(&c, &err), 0);
    content_of("flags.conf", text);
    assert_string_equal(text, "work_mem = '1GB'\n");
    assert_int_equal(parse("--name", "demo-0", "--settings-file", "/tmp/x"), 0);
    content_of("flags.conf", text);
    assert_string_equal(text, "work_mem = '1GB'\n");
    assert_int_equal(hf_node_config_write(&c, &err), 0);
    content_of("flags.conf", text);
    assert_string_equal(text, "(none)");
    assert_int_equal(hf_node_config_write(&c, &err), 0);
    content_of("settings.conf", text);
    assert_string_equal(text, "(none)");
    memset(longest, 'x', HF_FLAG_SETTINGS_MAX - 1);
    memcpy(longest, "a.b=", 4);
    longest[HF_FLAG_SETTINGS_MAX - 1] = '\0';
    assert_int_equal(parse("--name", "demo-0", "-c", longest), HF_EINVAL);
    longest[HF_FLAG_SETTINGS_MAX - 8] = '\0'; /* and " = '", "'\n" */
    assert_int_equal(parse("--name", "demo-0", "-c", longest), 0);
    assert_int_equal(strlen(c.flag_settings), HF_FLAG_SETTINGS_MAX - 3);
    free(longest);
}

/* Their place in the file is before Holdfast's own, but not all of them have one there. */
static void settings_that_are_holdfasts(void **s)
{
    struct hf_error err;
    char path[128];

    (void)s;
    snprintf(path, sizeof path, "%s/settings.conf", dir);
    assert_int_equal(parse("--name", "demo-0", "-c", "work_mem=4MB", "-c", "restore_command=/bin/false"), HF_EINVAL);
    assert_string_equal(err.text, "-c restore_command: set by Holdfast: a follower takes WAL from the leader alone");
    assert_int_equal(access(path, F_OK), -1);
    assert_int_equal(parse("--name", "demo-0", "-c", "FSync=off"), HF_EINVAL);
    assert_int_equal(parse("--name", "demo-0", "-c", "include=/tmp/x"), HF_EINVAL);
    assert_int_equal(parse("--name", "demo-0", "--settings-file", "/tmp/x", "-c", "fsync=off"), HF_EINVAL);
    assert_int_equal(setenv("HOLDFAST_SETTINGS", "work_mem=4MB,unix_socket_permissions=0777", 1), 0);
    assert_int_equal(parse("--name", "demo-0"), HF_EINVAL);
    assert_non_null(strstr(err.text, "a way past the gate"));
    assert_int_equal(setenv("HOLDFAST_SETTINGS", "max_wal_size=128MB wal_level=logical", 1), 0);
    assert_int_equal(parse("--name", "demo-0"), 0);
    unsetenv("HOLDFAST_SETTINGS");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(a_pod, setup, teardown),
        cmocka_unit_test_setup_teardown(a_pod_stops_late, setup, teardown),
        cmocka_unit_test_setup_teardown(clients, setup, teardown),
        cmocka_unit_test_setup_teardown(wrong_usage, setup, teardown),
        cmocka_unit_test_setup_teardown(directory, setup, teardown),
        cmocka_unit_test_setup_teardown(files, setup, teardown),
        cmocka_unit_test_setup_teardown(flags_are_written_when_told, setup, teardown),
        cmocka_unit_test_setup_teardown(settings_that_are_holdfasts, setup, teardown),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
