/* Whether a text is one of settings that people may make. No I/O. */
#include "postgres/user_settings.h"

#include <ctype.h>
#include <string.h>
#include <strings.h>

enum { NAME_MAX_BYTES = 64 };

/* What settings.c sets itself, and what would undermine it. A test compares this list with that
 * file. */
static const struct {
    const char *name, *why;
} owned[] = {
    {"allow_alter_system", "settings come from one place"},
    {"archive_cleanup_command", "a standby's WAL is Holdfast's"},
    {"cluster_name", "it is the node's name"},
    {"config_file", "Holdfast writes that file"},
    {"data_directory", "it is the node's directory"},
    {"external_pid_file", "Holdfast watches the server itself"},
    {"fsync", "without it an acknowledged commit can be lost"},
    {"full_page_writes", "without it a crash can damage data"},
    {"hba_file", "clients come through the gate alone"},
    {"hot_standby", "a standby's position is read by SQL"},
    {"hot_standby_feedback", "a follower must not keep the leader from cleaning up"},
    {"ident_file", "clients come through the gate alone"},
    {"include", "one file is all there is"},
    {"include_dir", "one file is all there is"},
    {"include_if_exists", "one file is all there is"},
    {"listen_addresses", "a port of PostgreSQL's own would be a way past the gate"},
    {"log_destination", "the log goes to log/postgresql.log"},
    {"logging_collector", "the log goes to log/postgresql.log"},
    {"max_replication_slots", "followers are counted by Holdfast"},
    {"max_slot_wal_keep_size", "--wal-keep-mb is for this"},
    {"max_wal_senders", "followers are counted by Holdfast"},
    {"port", "it names the server's socket"},
    {"primary_conninfo", "whom to follow is the cluster's decision"},
    {"primary_slot_name", "followers use no slots"},
    {"promote_trigger_file", "who leads is the cluster's decision"},
    {"recovery_end_command", "recovery is Holdfast's"},
    {"recovery_min_apply_delay", "a delayed follower could not take over"},
    {"recovery_target", "recovery is Holdfast's"},
    {"recovery_target_action", "recovery is Holdfast's"},
    {"recovery_target_inclusive", "recovery is Holdfast's"},
    {"recovery_target_lsn", "recovery is Holdfast's"},
    {"recovery_target_name", "recovery is Holdfast's"},
    {"recovery_target_time", "recovery is Holdfast's"},
    {"recovery_target_timeline", "whom to follow is the cluster's decision"},
    {"recovery_target_xid", "recovery is Holdfast's"},
    {"restart_after_crash", "a restart must pass the barrier"},
    {"restore_command", "a follower takes WAL from the leader alone"},
    {"synchronous_commit",
     "it is what makes an acknowledged commit safe; a session may still choose less for itself"},
    {"synchronous_standby_names", "it is the majority's rule"},
    {"unix_socket_directories", "a socket elsewhere would be a way past the gate"},
    {"unix_socket_group", "a socket for others would be a way past the gate"},
    {"unix_socket_permissions", "a socket for others would be a way past the gate"},
    {"wal_keep_size", "--wal-keep-mb is for this"},
    {"wal_log_hints", "pg_rewind needs it"},
    {"wal_receiver_status_interval", "the leader's count of followers depends on it"},
    {"wal_receiver_timeout", "the cluster's own timeouts depend on it"},
    {"wal_retrieve_retry_interval", "the time of a failover depends on it"},
    {"wal_sender_timeout", "the cluster's own timeouts depend on it"},
};

const char *hf_pg_owned(const char *name)
{
    for (size_t i = 0; i < sizeof owned / sizeof *owned; i++)
        if (strcasecmp(owned[i].name, name) == 0)
            return owned[i].why;
    return NULL;
}

/* -- the form of a line ------------------------------------------------------------------------ */

static const char *skip_blanks(const char *p)
{
    while (*p == ' ' || *p == '\t' || *p == '\r')
        p++;
    return p;
}

/* Behind a value, quoted or not; NULL: there is none, or it has no end. */
static const char *skip_value(const char *p)
{
    const char *from = p;

    if (*p != '\'') {
        while (isalnum((unsigned char)*p) || (*p != '\0' && strchr("_.:/+-*", *p) != NULL))
            p++;
        return p > from ? p : NULL;
    }
    for (p++; *p != '\0'; p++) {
        if (*p == '\\' && p[1] != '\0')
            p++;
        else if (*p == '\'' && p[1] == '\'')
            p++;
        else if (*p == '\'')
            return p + 1;
    }
    return NULL;
}

static int check_line(const char *line, unsigned number, struct hf_error *err)
{
    char name[NAME_MAX_BYTES];
    const char *p = skip_blanks(line), *why;
    size_t n = 0;

    if (*p == '\0' || *p == '#')
        return 0;
    while (isalnum((unsigned char)p[n]) || p[n] == '_' || p[n] == '.')
        n++;
    if (n == 0 || n >= sizeof name)
        return hf_fail(err, HF_EINVAL, "line %u: not of the form name = value", number);
    memcpy(name, p, n);
    name[n] = '\0';
    why = hf_pg_owned(name);
    if (why != NULL)
        return hf_fail(err, HF_EINVAL, "line %u: %s is set by Holdfast: %s", number, name, why);
    p = skip_blanks(p + n);
    if (*p == '=')
        p = skip_blanks(p + 1);
    p = skip_value(p);
    if (p == NULL || (*(p = skip_blanks(p)) != '\0' && *p != '#'))
        return hf_fail(err, HF_EINVAL, "line %u: %s: its value is missing, or needs quotes ('...')",
                       number, name);
    return 0;
}

int hf_pg_user_settings_check(const char *text, struct hf_error *err)
{
    unsigned number = 0;
    char line[4096];
    int rv = 0;

    while (rv == 0 && *text != '\0') {
        size_t n = strcspn(text, "\n");
        number++;
        if (n >= sizeof line)
            return hf_fail(err, HF_EINVAL, "line %u: longer than %zu characters", number,
                           sizeof line - 1);
        memcpy(line, text, n);
        line[n] = '\0';
        rv = check_line(line, number, err);
        text += text[n] == '\n' ? n + 1 : n;
    }
    return rv;
}
