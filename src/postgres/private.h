/* What the files of src/postgres share. Not for others. */
#ifndef HF_POSTGRES_PRIVATE_H
#define HF_POSTGRES_PRIVATE_H

#include <libpq-fe.h>
#include <limits.h>
#include <pthread.h>
#include <stdatomic.h>

#include "postgres/postgres.h"

enum {
    HF_PG_PATH_MAX = 1024,
    HF_PG_RULE_MAX = HF_MEMBERS_MAX * (HF_PG_MEMBER_MAX + 8) + 32,
    HF_PG_PORT = 5432,

    /* Bounds, milliseconds. */
    HF_PG_QUERY_MS = 5000, /* one statement that should take a millisecond */
    HF_PG_CONNECT_MS = 5000,
    HF_PG_START_MS = 10000, /* until a standby takes SQL; then it counts as started without SQL */
    HF_PG_STALL_MS = 5000,  /* no progress of replay towards a position */
    HF_PG_POSITION_MS = 60000, /* a position, progress or not */
    HF_PG_PROMOTE_MS = 30000,
    HF_PG_CLEAN_STOP_MS = 3000, /* fast shutdown, then an immediate one: clients may be waiting for it */
    HF_PG_QUIT_MS = 3000,       /* immediate shutdown, before SIGKILL */
    HF_PG_KILL_MS = 10000,      /* SIGKILL to gone; longer only if the kernel hangs on a disk */
    HF_PG_REPLICAS_MS = 3000,   /* ended walsenders to be back */
    HF_PG_CHECKPOINT_MS = 600000,
    HF_PG_COPY_MS = 24 * 3600 * 1000,
};

/* application_name of pg_basebackup and pg_rewind. No member's name has a space. */
#define HF_PG_COPY_NAME "holdfast copy"

/* pg_controldata, as far as anybody here needs it. */
struct hf_pg_control {
    uint64_t system_id;
    hf_lsn redo;         /* of the newest checkpoint */
    uint32_t timeline;   /* of the newest checkpoint */
    hf_lsn min_recovery; /* 0: none */
    hf_lsn backup_start; /* of a copy whose end has not been replayed yet; 0: none (xlogrecovery.c: ReachedEndOfBackup) */
    uint32_t min_recovery_timeline;
    uint32_t segment_bytes;
    uint8_t mock_nonce[32]; /* zeros: not known */
    bool damaged;           /* its checksum is wrong */
    bool clean; /* "shut down" or "shut down in recovery" */
    int max_connections, max_worker_processes, max_wal_senders, max_prepared_transactions,
        max_locks_per_transaction;
};

struct hf_pg {
    char node_dir[HF_PG_PATH_MAX], name[HF_NAME_MAX], member[HF_PG_MEMBER_MAX];
    char data[HF_PG_PATH_MAX], data_new[HF_PG_PATH_MAX], data_old[HF_PG_PATH_MAX];
    char conf_dir[HF_PG_PATH_MAX], sock_dir[HF_PG_PATH_MAX], relay_dir[HF_PG_PATH_MAX];
    char copy_dir[HF_PG_PATH_MAX], log_file[HF_PG_PATH_MAX], mark[HF_PG_PATH_MAX], untouched[HF_PG_PATH_MAX];
    char bindir[HF_PG_PATH_MAX], extra_conf[HF_PG_PATH_MAX];
    char guard[HF_PG_PATH_MAX]; /* the module; "": none */
    unsigned wal_keep_mb;
    uint32_t segment_bytes; /* of WAL; 0 before the first start */
    int version;
    char version_text[32];
    struct hf_pg_hooks hooks;
    int wake_fd; /* eventfd: readable while interrupted */
    atomic_bool interrupted;

    /* A user without a name, as some clusters give to pods: initdb refuses to work for such. These variables give
     * PostgreSQL's tools a name for it (open.c). "": not needed, or nothing there to do it. */
    char nameless[3][HF_PG_PATH_MAX + 32];

    off_t log_at; /* where the log of the server's newest life begins; set before `watcher` is */

    PGconn *conn; /* only the thread of hf_pg_run; kept for speed; NULL when not connected */

    /* Only in a twin: the barrier's connection, made ahead (writer.h). */
    PGconn *ready;
    bool warned; /* by any connection of the writer, since its last write began */

    pthread_mutex_t lock; /* all below */
    pthread_cond_t changed;
    pid_t pid;     /* 0: the postmaster and all its children are gone */
    bool stopping; /* its end has been asked for */
    bool watched;  /* `watcher` must be joined */
    pthread_t watcher;
    struct hf_pg_status status;
};

/* --- tool.c: child processes ------------------------------------------------------------------ */

struct hf_pg_tool_result {
    int status;     /* exit code; 128 + signal */
    char out[2048]; /* the end of what it said on both outputs */
};
/* Each line (without newline) of output, as it comes. */
typedef void (*hf_pg_line_fn)(void *ctx, const char *line);
/* Runs bindir/argv[0] in the C locale until it ends, `timeout_ms` is over, or the job is
 * interrupted. It dies with the calling thread. 0 if it ended with status 0. `line` and `result`
 * may be NULL. */
int hf_pg_tool(struct hf_pg *pg, const char *const *argv, int timeout_ms, hf_pg_line_fn line,
               void *ctx, struct hf_pg_tool_result *result, struct hf_error *err);
/* Ends (SIGQUIT if `gentle`, SIGKILL after a while) every process of PostgreSQL's that has `dir` as
 * its working directory: a server's have PGDATA, our tools have conf_dir. 0 when all are gone. */
int hf_pg_end_processes(const char *dir, bool gentle, struct hf_error *err);
/* Calls fn(ctx, title) for each child of `parent` until it returns true; returns that. */
bool hf_pg_any_child(pid_t parent, bool (*fn)(void *ctx, const char *title), void *ctx);
bool hf_pg_has_children(pid_t parent); /* reads nothing of the children, so it waits for nobody's memory */

/* --- files.c ---------------------------------------------------------------------------------- */

int hf_pg_write_file(const char *path, const char *text,
                     struct hf_error *err); /* atomic, durable */
int hf_pg_read_file(const char *path, char *buf,
                    size_t cap); /* length or HF_E...; NUL at the end */
int hf_pg_remove_tree(const char *path, struct hf_error *err); /* absent is fine */
int hf_pg_fsync_path(const char *path, struct hf_error *err);
int hf_pg_rename(const char *from, const char *to, struct hf_error *err); /* and fsync the parent */
/* All n bytes, or HF_EIO. */
int hf_pg_read_at(const struct hf_pg *pg, int fd, const char *path, void *out, size_t n, uint64_t at, struct hf_error *err);
uint64_t hf_pg_tree_bytes(const char *path);
bool hf_pg_exists(const char *path); /* also what cannot be looked at: only "there is none" is none */
int hf_pg_path(char *out, size_t cap, const char *dir, const char *name);

/* --- settings.c ------------------------------------------------------------------------------- */

/* postgresql.conf, pg_hba.conf, pg_ident.conf; keeps the rule. */
int hf_pg_settings_write(struct hf_pg *pg, struct hf_error *err);
/* The inside of a quoted value in postgresql.conf, where backslashes escape and quotes double. */
int hf_pg_quote_conf(char *out, size_t cap, const char *value);
/* A setting as it would be but for what is decided before each start, given to `take`; not called if there is no extra file. */
int hf_pg_configured(struct hf_pg *pg, const char *name, hf_pg_line_fn take, void *ctx,
                     struct hf_error *err);
/* The same text as postgresql.conf at `path`, with another file of the user's. */
int hf_pg_settings_write_to(const struct hf_pg *pg, const char *path, const char *extra, struct hf_error *err);
/* Before each start: the five parameters (S10), the guard (S11), auto.conf (S19), standby.signal
 * (S18). */
int hf_pg_settings_prepare(struct hf_pg *pg, const struct hf_pg_control *control, struct hf_error *err);
void hf_pg_rule_text(char out[HF_PG_RULE_MAX], const struct hf_pg_job *job);
/* Writes the rule if it is not the one on disk; *changed tells. */
int hf_pg_rule_write(struct hf_pg *pg, const char *rule, bool *changed, struct hf_error *err);
/* A value of a libpq connection string, quoted. */
int hf_pg_quote_conninfo(char *out, size_t cap, const char *value);

/* --- guard.c ---------------------------------------------------------------------------------- */

/* Fills in pg->guard. `dir`: where to look, NULL: beside the program, then where it is installed.
 * HF_ENOENT: required, and not there. */
int hf_pg_guard_find(struct hf_pg *pg, enum hf_pg_guard use, const char *dir, struct hf_error *err);
/* pg/guard.conf. */
int hf_pg_guard_settings(struct hf_pg *pg, struct hf_error *err);

/* --- control.c -------------------------------------------------------------------------------- */

int hf_pg_control_read(struct hf_pg *pg, const char *data, struct hf_pg_control *control,
                       struct hf_error *err);
bool hf_pg_parse_lsn(const char *text, hf_lsn *lsn);
#define HF_PG_LSN_FMT    "%X/%X"
#define HF_PG_LSN_ARG(l) (unsigned)((l) >> 32), (unsigned)((l)&0xffffffffu)

/* --- session.c: libpq with deadlines ---------------------------------------------------------- */

PGconn *hf_pg_connect(struct hf_pg *pg, const char *dbname, const char *application, int timeout_ms,
                      struct hf_error *err);
/* Runs one statement; NULL unless it ended well (rows or command). PQclear is the caller's. */
PGresult *hf_pg_query(struct hf_pg *pg, PGconn *conn, const char *sql, int timeout_ms,
                      struct hf_error *err);
int hf_pg_command(struct hf_pg *pg, PGconn *conn, const char *sql, int timeout_ms,
                  struct hf_error *err);
/* Connected, idle, and the server has not hung up. NULL is not. */
bool hf_pg_alive(PGconn *conn);
/* The kept connection, made anew if it has gone. NULL if the server takes none. */
PGconn *hf_pg_session(struct hf_pg *pg, struct hf_error *err);
void hf_pg_session_close(struct hf_pg *pg);
/* Sleeps unless interrupted. PostgreSQL offers no event for most of what is waited for here. */
int hf_pg_pause(struct hf_pg *pg, unsigned us, struct hf_error *err);

/* --- server.c --------------------------------------------------------------------------------- */

/* A second handle onto the same server for another thread's sessions, with an interrupt of its own.
 * It knows paths and connections only: no jobs, no server functions. Freed by hf_pg_twin_close. */
struct hf_pg *hf_pg_twin_open(const struct hf_pg *pg);
void hf_pg_twin_close(struct hf_pg *twin);

enum hf_pg_stop { HF_PG_STOP_FAST, HF_PG_STOP_IMMEDIATE };
/* *sql: it takes connections. Not sql, yet 0: at the end of its WAL without being consistent, or
 * slow. */
int hf_pg_server_start(struct hf_pg *pg, int timeout_ms, bool *sql, struct hf_error *err);
int hf_pg_server_stop(struct hf_pg *pg, enum hf_pg_stop how, int timeout_ms, struct hf_error *err);
int hf_pg_server_signal(struct hf_pg *pg, int signal);
/* Joins the watcher of a server that has ended. */
void hf_pg_server_forget(struct hf_pg *pg);
/* "ready" of postmaster.pid. */
bool hf_pg_server_ready(const struct hf_pg *pg);
/* Copies the log away when it has grown; the server goes on writing to the same file. */
void hf_pg_log_rotate(struct hf_pg *pg);

/* --- the jobs --------------------------------------------------------------------------------- */

int hf_pg_do_init(struct hf_pg *pg, struct hf_pg_result *result, struct hf_error *err);
/* Waits up to `timeout_ms` for SQL; without it, text says so. */
int hf_pg_do_start(struct hf_pg *pg, int timeout_ms, struct hf_pg_result *result,
                   struct hf_error *err);
int hf_pg_do_position(struct hf_pg *pg, struct hf_pg_result *result, struct hf_error *err);
int hf_pg_do_promote(struct hf_pg *pg, const struct hf_pg_job *job, struct hf_pg_result *result,
                     struct hf_error *err);
int hf_pg_do_rule(struct hf_pg *pg, const struct hf_pg_job *job, struct hf_pg_result *result,
                  struct hf_error *err);
int hf_pg_do_rewind(struct hf_pg *pg, struct hf_pg_result *result, struct hf_error *err);
int hf_pg_do_clone(struct hf_pg *pg, const struct hf_pg_job *job, struct hf_pg_result *result,
                   struct hf_error *err);

/* walend.c: end of valid WAL on disk. Nobody may be writing WAL. What cannot be read is an error, not an end. */
/* Without SQL (S10). `seen`: what the data have seen beyond that (minRecoveryPoint), or 0. */
int hf_pg_wal_end(struct hf_pg *pg, hf_lsn *lsn, uint32_t *timeline, hf_lsn *seen, struct hf_error *err);
/* *end moves to the end of the last valid record of `timeline` at or after it. HF_ENOENT: there is none, which sets no err. */
int hf_pg_wal_walk(struct hf_pg *pg, const char *wal, uint32_t timeline, uint32_t segment_bytes, hf_lsn *end, struct hf_error *err);
/* Is there a valid record at `lsn`, where one could begin? HF_ENOENT: no such segment, which sets no err. */
int hf_pg_wal_is_at(struct hf_pg *pg, const char *wal, uint32_t timeline, hf_lsn lsn, uint32_t segment_bytes, bool *yes, struct hf_error *err);
/* Has the server that was started last replayed all that is here, if its replay has ended at `lsn`? A standby that cannot read its WAL
 * (an error of the disk) takes that for the end, and asks for a stream (xlogrecovery.c: XLogPageRead). HF_EIO: it has not, or that cannot be told. */
int hf_pg_wal_ends_at(struct hf_pg *pg, hf_lsn lsn, struct hf_error *err);

/* timelines.c, by the history files in `wal`, PGDATA/pg_wal. */
enum { HF_PG_TIMELINES_MAX = 1024 };
struct hf_pg_timelines {
    unsigned n;
    uint32_t id[HF_PG_TIMELINES_MAX]; /* ascending; of more, the newest */
};
int hf_pg_wal_dir(const struct hf_pg *pg, char out[HF_PG_PATH_MAX], struct hf_error *err);
int hf_pg_timelines_newer(const char *wal, uint32_t above, struct hf_pg_timelines *out, struct hf_error *err);
/* Where it left *parent (0: its own parent, which is then told); 0: it did not. */
int hf_pg_timeline_begin(const char *wal, uint32_t timeline, uint32_t *parent, hf_lsn *begin, struct hf_error *err);
bool hf_pg_segment_path(char out[HF_PG_PATH_MAX], const char *wal, uint32_t timeline, uint64_t segment, uint32_t segment_bytes); /* false: too long */
/* A standby that connects to a primary on a newer timeline keeps that one's history file before it has any
 * of its WAL, and takes it for its own future: it would ask the next primary for that timeline, or, promoted,
 * hand that history down (writeTimeLineHistory in PostgreSQL's xlog.c takes the timeline that recovery aims at as the
 * parent). If that primary did not come to lead, neither is true. `end`: of all WAL here; a
 * timeline that begins there or later has nothing here. Forget: with the server down; one that has WAL is an error. */
int hf_pg_timelines_unused(struct hf_pg *pg, hf_lsn end, struct hf_pg_timelines *unused, struct hf_error *err);
int hf_pg_timelines_forget(struct hf_pg *pg, const struct hf_pg_timelines *unused, struct hf_error *err);
/* A WAL receiver fetches a new timeline from the beginning of the segment in which it leaves its parent. Ended before it came to that
 * place, it leaves a segment that PostgreSQL prefers to its parent's, which is whole; and then it refuses to start, for ever
 * ("WAL location ... belongs to timeline 2, but previous recovered WAL file came from timeline 3", xlogrecovery.c). What was
 * acknowledged may be in the parent's alone. This puts such segments aside, of timelines that replay has not entered by what pg_control
 * says: none of earlier ones is read any more. With the server down. */
int hf_pg_timelines_mend(struct hf_pg *pg, const struct hf_pg_control *control, struct hf_error *err);
/* Where the next record can start after one of `total` bytes at `lsn`; exposed for its test. */
hf_lsn hf_pg_record_end(hf_lsn lsn, uint32_t total, uint32_t segment_bytes);

#endif
