/* holdfast down: stop this machine's cluster, and remove it if told so. */
#include "cmd/cmd.h"

#include <signal.h>
#include <string.h>
#include <unistd.h>

#include "base/file.h"
#include "local/lock.h"

enum { POLL_MS = 50, EXIT_MS = 1000, INSIST_MS = 20000, GIVE_UP_MS = 75000 };

/* Nodes whose supervisor is gone; returns how many, after a signal to each (0: only counted). */
static unsigned signal_nodes(const struct hf_local *l, int sig)
{
    unsigned n = 0;

    for (unsigned i = 0; i < HF_MEMBERS_MAX; i++) {
        char path[HF_PATH_MAX];
        struct hf_lock_pids pids;
        hf_local_node_path(l, i, "node.lock", path);
        if (!hf_lock_look(path, &pids))
            continue;
        n++;
        if (sig != 0)
            (void)hf_process_signal(pids.first, sig, NULL);
    }
    return n;
}

static int stop(const struct hf_local *l, bool *ran, struct hf_error *err)
{
    unsigned long begun = hf_cmd_now_ms();
    char lock[HF_PATH_MAX];
    struct hf_lock_pids pids;
    pid_t supervisor;
    bool insisted = false;
    int rv;

    hf_local_path(l, "up.lock", lock);
    *ran = hf_lock_look(lock, &pids);
    supervisor = *ran ? pids.first.pid : 0;
    if (*ran) {
        rv = hf_cmd_ask_supervisor(l, json_pack("{s:s}", "op", "down"), 5000, NULL, err);
        if (rv != 0 && rv != HF_EREFUSED && pids.first.pid > 1 && hf_process_signal(pids.first, SIGTERM, NULL) != 0)
            return rv;
    } else if (signal_nodes(l, SIGTERM) > 0) {
        *ran = true;
    }
    while (hf_lock_look(lock, &pids) || signal_nodes(l, 0) > 0) {
        unsigned long waited = hf_cmd_now_ms() - begun;
        if (waited > GIVE_UP_MS)
            return hf_fail(err, HF_ETIMEOUT, "%s: still not down after %lu s (hint: %s/up.log)", l->name,
                           waited / 1000, l->dir);
        if (waited > INSIST_MS && !insisted && !hf_lock_look(lock, &pids)) {
            insisted = true;
            (void)signal_nodes(l, SIGQUIT);
        }
        hf_cmd_sleep_ms(POLL_MS);
    }
    /* Its lock goes a moment before it does. */
    for (int i = 0; i < EXIT_MS / POLL_MS && supervisor > 1 && kill(supervisor, 0) == 0; i++)
        hf_cmd_sleep_ms(POLL_MS);
    return 0;
}

static bool really(const struct hf_local *l)
{
    char answer[16] = "";

    printf("Remove %s with all data of cluster %s? [y/N] ", l->dir, l->name);
    (void)fflush(stdout);
    return fgets(answer, sizeof answer, stdin) != NULL && (answer[0] == 'y' || answer[0] == 'Y');
}

int hf_cmd_down(int argc, char **argv)
{
    char dir[HF_PATH_MAX] = "";
    bool destroy = false, yes = false, ran = false;
    const struct hf_option o[] = {
        HF_DIR_OPTION(dir),
        {"destroy", 0, HF_OPT_FLAG, &destroy, 0, 0, 0, NULL, NULL,
         "then remove the directory with all data"},
        {"yes", 'y', HF_OPT_FLAG, &yes, 0, 0, 0, NULL, NULL, "do not ask; on a terminal --destroy asks"},
    };
    const struct hf_usage u = {"[--dir DIR] [--destroy [--yes]]",
                               "Stops all nodes of this machine's cluster, cleanly and at once. Their data "
                               "stays, and `holdfast up`\ngoes on with it. Not running is fine too.\n",
                               o, sizeof o / sizeof *o};
    struct hf_error err;
    struct hf_local l;
    int status, rv;

    if (!hf_cmd_parse(argc, argv, &u, NULL, &status))
        return status;
    rv = hf_cmd_open(&l, dir, &err);
    if (rv != 0)
        return hf_cmd_fail(&err);
    if (destroy && !yes && isatty(STDIN_FILENO) && !really(&l))
        return 1;
    rv = stop(&l, &ran, &err);
    if (rv == 0)
        printf("cluster %s %s\n", l.name, ran ? "is down" : "was not running");
    if (rv == 0 && destroy) {
        rv = hf_dir_remove(l.dir, &err);
        if (rv == 0)
            printf("%s is removed\n", l.dir);
    }
    hf_local_free(&l);
    return rv == 0 ? 0 : hf_cmd_fail(&err);
}
