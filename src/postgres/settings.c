/* PostgreSQL's settings, all outside PGDATA (S19): pg/postgresql.conf (rewritten at each open), pg/rule.conf (the
 * synchronous rule), pg/floor.conf (the five parameters, S10), pg/guard.conf (the module, S11), pg/asked.conf (without these
 * three), pg/pg_hba.conf. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "postgres/private.h"

int hf_pg_quote_conninfo(char *out, size_t cap, const char *value)
{
    size_t n = 0;

    if (cap < 3)
        return HF_EINVAL;
    out[n++] = '\'';
    for (; *value != '\0'; value++) {
        if (n + 4 > cap)
            return HF_EINVAL;
        if (*value == '\'' || *value == '\\')
            out[n++] = '\\';
        out[n++] = *value;
    }
    out[n++] = '\'';
    out[n] = '\0';
    return 0;
}

int hf_pg_quote_conf(char *out, size_t cap, const char *value)
{
    size_t n = 0;

    for (; *value != '\0'; value++) {
        if (n + 3 > cap || *value == '\n')
            return HF_EINVAL;
        if (*value == '\'' || *value == '\\')
            out[n++] = *value;
        out[n++] = *value;
    }
    out[n] = '\0';
    return 0;
}

static const char hba[] = "# Written by Holdfast at each start; changes are lost.\n"
                          "# The socket lies in a directory that only this node's user may enter.\n"
                          "local all         " HF_PG_SUPERUSER " trust\n"
                          "local replication " HF_PG_SUPERUSER " trust\n"
                          "local all         all      scram-sha-256\n";

/* What a person may change with an extra file. */
static const char defaults[] =
    "# Written by Holdfast at each start; changes are lost. Your own settings: the extra file.\n"
    "shared_buffers = 128MB\n"
    "max_connections = 100\n"
    "max_worker_processes = 8\n"
    "max_prepared_transactions = 0\n"
    "max_locks_per_transaction = 64\n"
    "wal_level = replica\n"
    "jit = off\n"
    "huge_pages = off\n" /* a container that may not have them gets them, and a SIGBUS */
    "password_encryption = scram-sha-256\n"
    "log_line_prefix = '%m [%p] %a '\n"
    "log_timezone = 'UTC'\n"
    "max_standby_streaming_delay = 30s\n"
    "max_standby_archive_delay = 30s\n"
    "idle_in_transaction_session_timeout = 0\n";

/* What safety needs; stands after the extra file, so it wins. */
static const char musts[] = "listen_addresses = ''\n"
                            "port = 5432\n"
                            "unix_socket_permissions = 0700\n"
                            "fsync = on\n"
                            "full_page_writes = on\n"
                            "wal_log_hints = on\n"
                            "synchronous_commit = on\n"
                            "restart_after_crash = off\n" /* S5 */
                            "hot_standby = on\n"
                            "hot_standby_feedback = off\n"
                            "max_wal_senders = 40\n"
                            "max_replication_slots = 10\n"
                            "primary_slot_name = ''\n"
                            "recovery_target_timeline = 'latest'\n"
                            "recovery_min_apply_delay = 0\n"
                            /* While a stream is not allowed the relay holds the connection, and
                             * nobody spins on this. It paces asking a leader that refuses or is
                             * away, and a follower's change of timelines waits for it. */
                            "wal_retrieve_retry_interval = 20ms\n"
                            "wal_receiver_status_interval = 1s\n"
                            "wal_receiver_timeout = 10s\n"
                            "wal_sender_timeout = 10s\n"
                            "logging_collector = off\n"
                            "log_destination = 'stderr'\n";

/* Included last, for it counts: what is decided before each start, and the rule. */
static const char decided[] = "include_if_exists = 'floor.conf'\ninclude_if_exists = 'guard.conf'\n"
                              "include_if_exists = 'rule.conf'\n";

static int conf_text(const struct hf_pg *pg, const char *extra_conf, const char *last, char *out, size_t cap)
{
    char host[HF_PG_PATH_MAX + 8], conninfo[2 * HF_PG_PATH_MAX], quoted[3 * HF_PG_PATH_MAX];
    char sock[2 * HF_PG_PATH_MAX], extra[2 * HF_PG_PATH_MAX], line[2 * HF_PG_PATH_MAX + 16] = "";
    int n;

    if (hf_pg_quote_conninfo(host, sizeof host, pg->relay_dir) != 0)
        return HF_EINVAL;
    (void)snprintf(conninfo, sizeof conninfo,
                   "host=%s port=%d user=" HF_PG_SUPERUSER
                   " application_name=%s gssencmode=disable sslmode=disable",
                   host, HF_PG_PORT, pg->member);
    if (hf_pg_quote_conf(quoted, sizeof quoted, conninfo) != 0 ||
        hf_pg_quote_conf(sock, sizeof sock, pg->sock_dir) != 0 ||
        hf_pg_quote_conf(extra, sizeof extra, extra_conf) != 0)
        return HF_EINVAL;
    if (extra[0] != '\0')
        (void)snprintf(line, sizeof line, "include = '%s'\n", extra);
    n = snprintf(out, cap,
                 "%s%s%sunix_socket_directories = '\"%s\"'\ncluster_name = '%s'\n"
                 "primary_conninfo = '%s'\nwal_keep_size = %uMB\nmax_slot_wal_keep_size = %uMB\n"
                 "%s%s",
                 defaults, line, musts, sock, pg->name, quoted, pg->wal_keep_mb, pg->wal_keep_mb,
                 pg->version >= 170000 ? "allow_alter_system = off\n" : "", last);
    return n > 0 && (size_t)n < cap ? 0 : HF_EINVAL;
}

static int conf_path(const struct hf_pg *pg, const char *name, char out[HF_PG_PATH_MAX])
{
    return hf_pg_path(out, HF_PG_PATH_MAX, pg->conf_dir, name);
}

static int write_conf(const struct hf_pg *pg, const char *path, const char *extra, const char *last, struct hf_error *err)
{
    char *text = malloc(65536);
    int code;

    if (text == NULL)
        return hf_fail(err, HF_ENOMEM, "no memory for the settings");
    code = conf_text(pg, extra, last, text, 65536);
    if (code != 0)
        (void)hf_fail(err, code, "%s: cannot write settings: a path in %s is too long or strange",
                      pg->name, pg->node_dir);
    if (code == 0)
        code = hf_pg_write_file(path, text, err);
    free(text);
    return code;
}

int hf_pg_settings_write_to(const struct hf_pg *pg, const char *path, const char *extra, struct hf_error *err)
{
    return write_conf(pg, path, extra, decided, err);
}

int hf_pg_settings_write(struct hf_pg *pg, struct hf_error *err)
{
    char path[HF_PG_PATH_MAX];
    int code = conf_path(pg, "postgresql.conf", path);

    if (code == 0)
        code = hf_pg_settings_write_to(pg, path, pg->extra_conf, err);
    if (code == 0 && (code = conf_path(pg, "asked.conf", path)) == 0)
        code = write_conf(pg, path, pg->extra_conf, "", err);
    if (code == 0 && (code = conf_path(pg, "pg_hba.conf", path)) == 0)
        code = hf_pg_write_file(path, hba, err);
    if (code == 0 && (code = conf_path(pg, "pg_ident.conf", path)) == 0)
        code = hf_pg_write_file(path, "", err);
    return code;
}

/* --- the synchronous rule --------------------------------------------------------------------- */

void hf_pg_rule_text(char out[HF_PG_RULE_MAX], const struct hf_pg_job *job)
{
    size_t n = 0;

    out[0] = '\0';
    if (job->n_voters == 0)
        return; /* "ANY 0 (...)" is refused and leaves the old rule (S2) */
    n = (size_t)snprintf(out, HF_PG_RULE_MAX, "ANY %u (", (job->n_voters + 1) / 2);
    for (unsigned i = 0; i < job->n_voters && i < HF_MEMBERS_MAX; i++)
        n += (size_t)snprintf(out + n, HF_PG_RULE_MAX - n, "%s\"%s\"", i == 0 ? "" : ", ",
                              job->voters[i]);
    (void)snprintf(out + n, HF_PG_RULE_MAX - n, ")");
}

int hf_pg_rule_write(struct hf_pg *pg, const char *rule, bool *changed, struct hf_error *err)
{
    char path[HF_PG_PATH_MAX], old[HF_PG_RULE_MAX + 64], text[HF_PG_RULE_MAX + 64];

    *changed = false;
    if (conf_path(pg, "rule.conf", path) != 0)
        return hf_fail(err, HF_EINVAL, "path too long: %s", pg->conf_dir);
    (void)snprintf(text, sizeof text, "synchronous_standby_names = '%s'\n", rule);
    if (hf_pg_read_file(path, old, sizeof old) >= 0 && strcmp(old, text) == 0)
        return 0;
    *changed = true;
    return hf_pg_write_file(path, text, err);
}

/* --- before each start ------------------------------------------------------------------------ */

static void take_number(void *ctx, const char *line)
{
    char *end;
    long v = strtol(line, &end, 10);

    if (end != line && *end == '\0')
        *(int *)ctx = (int)v;
}

int hf_pg_configured(struct hf_pg *pg, const char *name, hf_pg_line_fn take, void *ctx,
                     struct hf_error *err)
{
    char config[HF_PG_PATH_MAX + 32];
    /* What ALTER SYSTEM has set is with the data, and counts; at first there are none. */
    const char *dir = access(pg->data, F_OK) == 0 ? pg->data : pg->conf_dir;
    const char *argv[] = {"postgres", "-C", name, "-D", dir, "-c", config, NULL};

    if (pg->extra_conf[0] == '\0')
        return 0;
    (void)snprintf(config, sizeof config, "config_file=%s/asked.conf", pg->conf_dir);
    return hf_pg_tool(pg, argv, 10000, take, ctx, NULL, err);
}

/* A standby must have these at least as high as its primary had: as its own control file says
 * (S10). */
static int write_floor(struct hf_pg *pg, const struct hf_pg_control *c, struct hf_error *err)
{
    char path[HF_PG_PATH_MAX], text[512] = "";
    size_t n = 0;
    int code = 0;
    const struct {
        const char *name;
        int ours, needed;
    } five[] = {{"max_connections", 100, c->max_connections},
                {"max_worker_processes", 8, c->max_worker_processes},
                {"max_wal_senders", 40, c->max_wal_senders},
                {"max_prepared_transactions", 0, c->max_prepared_transactions},
                {"max_locks_per_transaction", 64, c->max_locks_per_transaction}};

    pthread_mutex_lock(&pg->lock);
    memcpy(pg->status.mock_nonce, c->mock_nonce, sizeof pg->status.mock_nonce);
    pthread_mutex_unlock(&pg->lock);
    if (conf_path(pg, "floor.conf", path) != 0)
        code = hf_fail(err, HF_EINVAL, "path too long: %s", pg->conf_dir);
    for (size_t i = 0; code == 0 && i < sizeof five / sizeof *five; i++) {
        int have = five[i].ours;
        code = hf_pg_configured(pg, five[i].name, take_number, &have, err);
        if (code == 0 && have < five[i].needed)
            n += (size_t)snprintf(text + n, sizeof text - n, "%s = %d\n", five[i].name,
                                  five[i].needed);
    }
    return code != 0 ? code : hf_pg_write_file(path, text, err);
}

int hf_pg_settings_prepare(struct hf_pg *pg, const struct hf_pg_control *control, struct hf_error *err)
{
    static const char *const unwanted[] = {"recovery.signal", "promote", "postmaster.pid"};
    char path[HF_PG_PATH_MAX];
    int code = write_floor(pg, control, err);

    if (code == 0)
        code = hf_pg_guard_settings(pg, err);
    if (code == 0 && (code = hf_pg_path(path, sizeof path, pg->data, "postgresql.auto.conf")) == 0)
        code = hf_pg_write_file(path, "# Emptied by Holdfast before each start.\n", err);
    if (code == 0 && (code = hf_pg_path(path, sizeof path, pg->data, "standby.signal")) == 0)
        code = hf_pg_write_file(path, "", err);
    /* postmaster.pid: that nobody works in this directory has been shown by the processes
     * themselves; the pid in the file may by now be anybody's. */
    for (size_t i = 0; code == 0 && i < sizeof unwanted / sizeof *unwanted; i++) {
        code = hf_pg_path(path, sizeof path, pg->data, unwanted[i]);
        if (code == 0 && remove(path) != 0 && hf_pg_exists(path))
            code = hf_fail(err, HF_EIO, "%s: cannot remove %s", pg->name, path);
    }
    return code;
}
