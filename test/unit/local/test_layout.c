#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <arpa/inet.h>
#include <netinet/in.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/file.h"
#include "local/layout.h"
#include "local/lock.h"
#include "local/user.h"

static char top[64];

static int setup(void **s)
{
    (void)s;
    strcpy(top, "/tmp/hf-layout-XXXXXX");
    return mkdtemp(top) != NULL && chmod(top, 0755) == 0 ? 0 : -1;
}

static int teardown(void **s)
{
    (void)s;
    return hf_dir_remove(top, NULL);
}

static void fill(struct hf_local *l)
{
    memset(l, 0, sizeof *l);
    snprintf(l->dir, sizeof l->dir, "%s/c", top);
    strcpy(l->name, "demo");
    l->port = 5500;
    l->replicas = l->expect = 3;
    l->lease_ms = 500;
}

/* Making a cluster gives root up for good, so it happens in a child. */
static void in_child(void (*fn)(void))
{
    pid_t pid = fork();
    int status;

    assert_true(pid >= 0);
    if (pid == 0) {
        fn();
        _exit(0);
    }
    assert_int_equal(waitpid(pid, &status, 0), pid);
    assert_true(WIFEXITED(status));
    assert_int_equal(WEXITSTATUS(status), 0);
}

#define MUST(x) \
    do { \
        if (!(x)) { \
            fprintf(stderr, "not true: %s (line %d)\n", #x, __LINE__); \
            _exit(1); \
        } \
    } while (0)

static void make_and_load(void)
{
    struct hf_local l, again;
    struct hf_error err;
    struct stat st;
    char path[HF_PATH_MAX];

    fill(&l);
    l.settings[l.n_settings++] = strdup("work_mem=4MB");
    MUST(hf_local_create(&l, &err) == 0);
    MUST(hf_local_make_node(&l, 2, &err) == 0);
    MUST(hf_local_make_node(&l, 2, &err) == 0); /* again: nothing to do */
    hf_local_path(&l, "cluster.json", path);
    MUST(stat(path, &st) == 0 && (st.st_mode & 0777) == 0600);
    hf_local_node_path(&l, 2, "tls/node.key", path);
    MUST(stat(path, &st) == 0 && (st.st_mode & 077) == 0);
    MUST(unlink(path) == 0 && hf_local_make_node(&l, 2, &err) == 0 && stat(path, &st) == 0);
    MUST(stat(l.dir, &st) == 0 && (st.st_mode & 0777) == 0700 && st.st_uid == geteuid());
    MUST(geteuid() != 0);
    MUST(hf_local_load(&again, l.dir, &err) == 0);
    MUST(strcmp(again.name, "demo") == 0 && again.port == 5500 && again.replicas == 3);
    MUST(again.n_settings == 1 && strcmp(again.settings[0], "work_mem=4MB") == 0);
    MUST(strlen(again.accounts.app_password) >= 20);
    MUST(strcmp(again.accounts.app_password, l.accounts.app_password) == 0);
    MUST(strcmp(again.accounts.app_password, again.accounts.admin_password) != 0);
    hf_local_free(&again);
    hf_local_free(&l);
}

static void a_cluster_on_disk(void **s)
{
    (void)s;
    in_child(make_and_load);
}

static void refuses_what_is_not_its_own(void **s)
{
    struct hf_local l;
    struct hf_error err;
    char path[HF_PATH_MAX];

    (void)s;
    fill(&l);
    assert_int_equal(hf_local_load(&l, top, &err), HF_ENOENT);
    fill(&l);
    assert_int_equal(mkdir(l.dir, 0700), 0);
    hf_local_path(&l, "thesis.txt", path);
    assert_int_equal(hf_file_write(path, "x", 1, 0600, &err), 0);
    assert_int_equal(hf_local_create(&l, &err), HF_EEXIST);
    assert_non_null(strstr(err.text, "thesis.txt"));
    assert_non_null(strstr(err.text, "hint"));
    hf_local_path(&l, "cluster.json", path);
    assert_int_equal(hf_file_write(path, "{\"name\":1}", 10, 0600, &err), 0);
    assert_int_equal(hf_local_load(&l, l.dir, &err), HF_ECORRUPT);
}

/* What somebody else may have put where root will look. Nothing of it is root's to take, nor to change. */
static void root_takes_over_nothing_of_others(void **s)
{
    static const struct {
        const char *what;
        uid_t top, pki, key;
        mode_t mode;
        bool link;
    } tries[] = {{"the directory", 1234, 0, 0, 0700, false},
                 {"pki", 0, 1234, 1234, 0700, false},
                 {"an authority in pki", 0, 0, 1234, 0700, false},
                 {"a pki that others may write", 0, 0, 0, 0777, false},
                 {"a link", 0, 0, 0, 0700, true}};

    (void)s;
    if (geteuid() != 0)
        skip();
    for (size_t i = 0; i < sizeof tries / sizeof *tries; i++) {
        char path[HF_PATH_MAX], target[HF_PATH_MAX];
        struct hf_local l;
        struct hf_error err = {0};
        struct stat st;
        fill(&l);
        (void)snprintf(target, sizeof target, "%s/target", top);
        assert_int_equal(mkdir(tries[i].link ? target : l.dir, 0755), 0);
        if (tries[i].link)
            assert_int_equal(symlink(target, l.dir), 0);
        hf_local_path(&l, "pki", path);
        assert_int_equal(mkdir(path, 0700), 0);
        assert_int_equal(chmod(path, tries[i].mode), 0);
        hf_local_path(&l, "pki/ca.key", path);
        assert_int_equal(hf_file_write(path, "planted", 7, 0600, &err), 0);
        assert_int_equal(chown(path, tries[i].key, 0), 0);
        hf_local_path(&l, "pki", path);
        assert_int_equal(chown(path, tries[i].pki, 0), 0);
        assert_int_equal(chown(l.dir, tries[i].top, 0), 0);
        if (hf_local_create(&l, &err) == 0)
            fail_msg("%s was taken", tries[i].what);
        assert_int_equal(geteuid(), 0);
        assert_non_null(strstr(err.text, "hint"));
        assert_int_equal(stat(l.dir, &st), 0);
        assert_int_equal(st.st_uid, tries[i].top);
        assert_int_equal(hf_dir_remove(l.dir, &err), 0);
        assert_int_equal(hf_dir_remove(target, &err), 0);
    }
}

static void make_after_a_start_that_was_killed(void)
{
    char path[HF_PATH_MAX];
    struct hf_local l;
    struct hf_error err;
    struct stat st;

    fill(&l);
    MUST(hf_local_create(&l, &err) == 0); /* as the user that PostgreSQL runs as from here on */
    hf_local_path(&l, "cluster.json", path);
    MUST(unlink(path) == 0);
    hf_local_path(&l, "pki/ca.key", path);
    MUST(stat(path, &st) == 0 && st.st_uid == geteuid());
}

static void goes_on_after_a_start_that_was_killed(void **s)
{
    (void)s;
    in_child(make_after_a_start_that_was_killed);
    in_child(make_after_a_start_that_was_killed);
}

/* A name is part of paths that are removed, and the last node's ports are ports, too. */
static void refuses_a_damaged_description(void **s)
{
    static const struct {
        const char *name;
        unsigned port;
        int rv;
    } tries[] = {{"demo-2", 5500, 0},        {"x", 65000, 0},           {"../x", 5500, HF_ECORRUPT}, {"a/b", 5500, HF_ECORRUPT},
                 {"", 5500, HF_ECORRUPT},    {"Demo", 5500, HF_ECORRUPT}, {"demo", 65535, HF_ECORRUPT}, {"demo", 65400, HF_ECORRUPT},
                 {"demo", 0, HF_ECORRUPT}};
    struct hf_error err;
    struct hf_local l;

    (void)s;
    fill(&l);
    assert_int_equal(mkdir(l.dir, 0700), 0);
    for (size_t i = 0; i < sizeof tries / sizeof *tries; i++) {
        fill(&l);
        (void)strcpy(l.name, tries[i].name);
        l.port = tries[i].port;
        assert_int_equal(hf_local_save(&l, &err), 0);
        assert_int_equal(hf_local_load(&l, l.dir, &err), tries[i].rv);
        hf_local_free(&l);
    }
}

static void names_and_ports(void **s)
{
    struct hf_local l;
    char text[HF_PATH_MAX];

    (void)s;
    fill(&l);
    assert_int_equal(hf_local_ordinal(&l, "demo-2"), 2);
    assert_int_equal(hf_local_ordinal(&l, "2"), 2);
    assert_int_equal(hf_local_ordinal(&l, "demo-"), -1);
    assert_int_equal(hf_local_ordinal(&l, "demo-2x"), -1);
    assert_int_equal(hf_local_ordinal(&l, "other-2"), -1);
    assert_int_equal(hf_local_ordinal(&l, "demo-99"), -1);
    assert_int_equal(hf_local_ordinal(&l, ""), -1);
    assert_int_equal(hf_local_port(&l, 2, HF_PORT_PEER), 5524);
    hf_local_node_path(&l, 1, "", text);
    assert_string_equal(text + strlen(text) - 9, "/c/demo-1");
}

static void finds_a_port_in_use(void **s)
{
    struct sockaddr_in sa = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    socklen_t len = sizeof sa;
    struct hf_local l;
    struct hf_error err;
    char port[16];
    int fd = socket(AF_INET, SOCK_STREAM, 0);

    (void)s;
    assert_int_equal(bind(fd, (struct sockaddr *)&sa, sizeof sa), 0);
    assert_int_equal(listen(fd, 1), 0);
    assert_int_equal(getsockname(fd, (struct sockaddr *)&sa, &len), 0);
    fill(&l);
    l.replicas = 1;
    l.port = ntohs(sa.sin_port);
    snprintf(port, sizeof port, "%u", l.port);
    assert_int_equal(hf_local_preflight(&l, &err), HF_EBUSY);
    assert_non_null(strstr(err.text, port));
    assert_non_null(strstr(err.text, "ss -ltnp"));
    close(fd);
}

static void postgres_missing(void **s)
{
    struct hf_local l;
    struct hf_error err;

    (void)s;
    fill(&l);
    setenv("HOLDFAST_PG_BINDIR", "/nonexistent", 1);
    assert_int_equal(hf_local_preflight(&l, &err), HF_EPG);
    assert_non_null(strstr(err.text, "/nonexistent"));
    unsetenv("HOLDFAST_PG_BINDIR");
    memset(l.dir, 'x', 120);
    assert_int_equal(hf_local_preflight(&l, &err), HF_EINVAL);
    assert_non_null(strstr(err.text, "too long"));
}

/* Held by a process and by its children; free when all are gone; asking disturbs nobody. */
static void locks(void **s)
{
    char path[128];
    struct hf_lock_pids pids;
    struct hf_error err;
    int fd, other, status;
    pid_t pid;

    (void)s;
    snprintf(path, sizeof path, "%s/lock", top);
    assert_false(hf_lock_look(path, &pids));
    fd = hf_lock_take(path, &err);
    assert_true(fd >= 0);
    assert_true(hf_lock_look(path, &pids));
    assert_int_equal(pids.first.pid, 0); /* it has not said yet */
    assert_int_equal(hf_lock_write(fd, (struct hf_lock_pids){{123456, 1234567890123}, {234567, 2345678901234}, false}), 0);
    assert_int_equal(hf_lock_write(fd, (struct hf_lock_pids){{12, 56}, {34, 78}, false}), 0);
    assert_true(hf_lock_look(path, &pids));
    assert_int_equal(pids.first.pid, 12);
    assert_int_equal(pids.first.start, 56);
    assert_int_equal(pids.second.pid, 34);
    assert_int_equal(pids.second.start, 78);
    assert_false(pids.ended);
    assert_int_equal(hf_lock_write(fd, (struct hf_lock_pids){.first = {12, 56}, .ended = true}), 0);
    assert_true(hf_lock_look(path, &pids));
    assert_int_equal(pids.first.pid, 12);
    assert_int_equal(pids.second.pid, 0);
    assert_true(pids.ended);
    assert_int_equal(hf_lock_take(path, &err), HF_EBUSY);
    pid = fork();
    if (pid == 0) {
        usleep(100000);
        _exit(0);
    }
    close(fd);
    assert_true(hf_lock_look(path, &pids)); /* the child still has it */
    assert_int_equal(waitpid(pid, &status, 0), pid);
    assert_false(hf_lock_look(path, &pids));
    other = hf_lock_take(path, &err);
    assert_true(other >= 0);
    assert_true(hf_lock_look(path, &pids));
    assert_int_equal(pids.first.pid, 0); /* whom the last one named may be anybody by now */
    close(other);
}

static void signals_reach_whom_they_are_for(void **s)
{
    struct hf_process child, other;
    struct hf_error err;
    int status;
    pid_t pid = fork();

    (void)s;
    if (pid == 0) {
        (void)setpgid(0, 0);
        (void)prctl(PR_SET_PDEATHSIG, SIGKILL); /* also when the test fails */
        for (;;)
            pause();
    }
    (void)setpgid(pid, pid);
    child = hf_process_now(pid);
    assert_true(child.start > 0);
    assert_int_equal(hf_process_signal(child, 0, &err), 0);
    other = child;
    other.start--; /* whose pid this was */
    assert_int_equal(hf_process_signal(other, SIGKILL, &err), HF_ENOENT);
    assert_int_equal(hf_process_signal_group(other, SIGKILL, &err), HF_ENOENT);
    other.start = 0;
    assert_int_equal(hf_process_signal(other, SIGKILL, &err), HF_ENOENT);
    assert_int_equal(waitpid(pid, &status, WNOHANG), 0);
    assert_int_equal(hf_process_signal_group(child, SIGTERM, &err), 0);
    assert_int_equal(waitpid(pid, &status, 0), pid);
    assert_true(WIFSIGNALED(status));
    assert_int_equal(WTERMSIG(status), SIGTERM);
    assert_int_equal(hf_process_signal(child, SIGTERM, &err), HF_ENOENT);
    assert_int_equal(hf_process_now(pid).start, 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(a_cluster_on_disk, setup, teardown),
        cmocka_unit_test_setup_teardown(refuses_what_is_not_its_own, setup, teardown),
        cmocka_unit_test_setup_teardown(root_takes_over_nothing_of_others, setup, teardown),
        cmocka_unit_test_setup_teardown(goes_on_after_a_start_that_was_killed, setup, teardown),
        cmocka_unit_test_setup_teardown(refuses_a_damaged_description, setup, teardown),
        cmocka_unit_test(names_and_ports),
        cmocka_unit_test_setup_teardown(finds_a_port_in_use, setup, teardown),
        cmocka_unit_test_setup_teardown(postgres_missing, setup, teardown),
        cmocka_unit_test_setup_teardown(locks, setup, teardown),
        cmocka_unit_test(signals_reach_whom_they_are_for),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
