/* holdfast node: one node, in the foreground, as a pod or the local runtime runs it. */
#include "cmd/cmd.h"

#include <string.h>
#include <unistd.h>

#include "base/log.h"
#include "local/lock.h"
#include "local/user.h"
#include "node.h"
#include "node_config.h"
#include "sentinel.h"

static void print_help(void)
{
    printf(
        "usage: holdfast node --name NAME --dir DIR [flags]\n\n"
        "Runs one node and its PostgreSQL in the foreground, and logs to stderr. It founds a cluster\n"
        "together with the nodes it expects, joins one, or goes on as the member it was: what its\n"
        "directory says decides. Each node needs DIR/tls (or --tls-dir) with ca.crt and either node.crt,\n"
        "node.key or tls.crt, tls.key; the certificate carries the node's name.\n\n"
        "SIGTERM hands leadership over, stops PostgreSQL cleanly and ends the node. Started as root it\n"
        "becomes the user postgres at once, which must own DIR.\n\n"
        "The process is the sentinel, the parent of the node; exit status: the node's, or 128 + the\n"
        "signal that killed it. 0: ended as asked; 1: failed, start it again; 2: wrong usage.\n\n"
        "flags ([NAME] is an environment variable that does the same):\n");
    hf_node_config_help(stdout);
}

struct run {
    struct hf_node_config config;
    int lock;
};

static int run_node(void *arg, struct hf_sentinel_page *page)
{
    struct run *r = arg;

    return hf_node_run(&r->config, page);
}

static void say_who(const struct run *r, struct hf_lock_pids pids)
{
    if (hf_lock_write(r->lock, pids) != 0)
        hf_warn("%s/node.lock: cannot be written", r->config.dir);
}

static void forked(void *arg, pid_t node)
{
    struct run *r = arg;

    say_who(r, (struct hf_lock_pids){.first = hf_process_now(getpid()), .second = hf_process_now(node)});
}

/* The lock stays until PostgreSQL is gone, and the node's pid may be anybody's by then. */
static void reaped(void *arg)
{
    say_who(arg, (struct hf_lock_pids){.first = hf_process_now(getpid()), .ended = true});
}

static int take_lock(struct run *r, struct hf_error *err)
{
    char path[HF_PATH_MAX + 16];

    (void)snprintf(path, sizeof path, "%s/node.lock", r->config.dir);
    r->lock = hf_lock_take(path, err);
    if (r->lock == HF_EBUSY)
        return hf_fail(err, HF_EBUSY,
                       "%s: another `holdfast node` runs in %s (hint: one directory, one node)",
                       r->config.name, r->config.dir);
    if (r->lock < 0)
        return r->lock;
    say_who(r, (struct hf_lock_pids){.first = hf_process_now(getpid())});
    return 0;
}

int hf_cmd_node(int argc, char **argv)
{
    static struct run r;
    struct hf_error err;
    struct hf_sentinel sentinel = {.node = run_node, .forked = forked, .reaped = reaped, .arg = &r};
    int rv = hf_user_drop(&err);

    if (rv == 0)
        rv = hf_node_config_parse(&r.config, argc, argv, &err);
    if (rv > 0) {
        print_help();
        return 0;
    }
    hf_log_init(r.config.name[0] != '\0' ? r.config.name : NULL, r.config.log_level);
    if (rv == HF_EINVAL) {
        fprintf(stderr, "holdfast: node: %s\nusage: holdfast node --name NAME --dir DIR [flags]\n",
                err.text);
        return 2;
    }
    if (rv == 0)
        rv = take_lock(&r, &err);
    if (rv == 0)
        rv = hf_node_config_write(&r.config, &err);
    if (rv == 0) {
        sentinel.lease_ms = r.config.lease_ms;
        rv = hf_sentinel_run(&sentinel, &err);
    }
    if (rv >= 0)
        return rv;
    hf_err("%s", err.text);
    return 1;
}
