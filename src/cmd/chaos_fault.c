/* The faults of `holdfast chaos`, each of which ends by itself or is ended before its function returns. */
#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>

#include "base/process.h"
#include "cmd/chaos.h"
#include "cmd/cmd.h"

enum { SWITCH_MS = 30000 };

/* An interrupt makes it shorter. */
static int stop_node(struct hf_chaos *c, struct hf_chaos_done *d, struct hf_error *err)
{
    unsigned long begun = hf_cmd_now_ms();
    struct hf_error late;
    int rv = hf_chaos_freeze(&c->interrupt, d->node, err), thawed;

    if (rv == 0)
        hf_chaos_interrupt_pause(&c->interrupt, d->stop_ms);
    thawed = hf_chaos_thaw(&c->interrupt, rv == 0 ? err : &late);
    d->stop_ms = (unsigned)(hf_cmd_now_ms() - begun);
    return rv != 0 ? rv : thawed;
}

/* Is this process the PostgreSQL of that data directory? A pid file alone proves nothing. */
static bool is_postmaster_of(pid_t pid, const char *data)
{
    char path[64], line[HF_PATH_MAX + 256];
    size_t n;
    FILE *f;

    (void)snprintf(path, sizeof path, "/proc/%d/cmdline", (int)pid);
    f = fopen(path, "re");
    if (f == NULL)
        return false;
    n = fread(line, 1, sizeof line - 1, f);
    (void)fclose(f);
    line[n] = '\0';
    for (size_t at = 0; at < n; at += strlen(line + at) + 1)
        if (strcmp(line + at, data) == 0)
            return true;
    return false;
}

static int kill_postgres(const struct hf_local *l, unsigned node, struct hf_error *err)
{
    char data[HF_PATH_MAX], path[HF_PATH_MAX];
    struct hf_process postgres;
    int pid = 0;
    FILE *f;

    hf_local_node_path(l, node, "data", data);
    hf_local_node_path(l, node, "data/postmaster.pid", path);
    f = fopen(path, "re");
    if (f == NULL)
        return hf_fail(err, HF_EIO, "%s: %s", path, strerror(errno));
    if (fscanf(f, "%d", &pid) != 1)
        pid = 0;
    (void)fclose(f);
    /* Who it is, first: the signal is for that one, and not for whoever has its pid after the look. */
    postgres = hf_process_now(pid);
    if (pid <= 1 || !is_postmaster_of(pid, data))
        return hf_fail(err, HF_ENOENT, "%s: names no PostgreSQL of this directory", path);
    return hf_process_signal(postgres, SIGKILL, err);
}

static int hand_over(const struct hf_local *l, unsigned leader, unsigned to, struct hf_error *err)
{
    char name[HF_NAME_MAX];
    int rv;

    hf_local_node_name(l, to, name);
    rv = hf_cmd_ask_node(l, leader, json_pack("{s:s,s:s}", "op", "switchover", "to", name), SWITCH_MS,
                         NULL, err);
    return rv == HF_ECLOSED ? 0 : rv; /* it may restart on the way */
}

int hf_chaos_hurt(struct hf_chaos *c, struct hf_chaos_done *d, unsigned leader, struct hf_error *err)
{
    switch (d->fault) {
    case HF_CHAOS_KILL_NODE:
        return hf_chaos_signal_node(&c->local, d->node, SIGKILL, err);
    case HF_CHAOS_STOP_NODE:
        return stop_node(c, d, err);
    case HF_CHAOS_SWITCHOVER:
        return hand_over(&c->local, leader, d->node, err);
    default:
        return kill_postgres(&c->local, d->node, err);
    }
}
