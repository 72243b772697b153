/* One PostgreSQL server of one node: make, start, stop, place, promote, rewind, copy.
 *
 * Every function here blocks and belongs on a worker thread; src/postgres/agent.h owns such threads
 * and is what the host uses. src/postgres/README.md explains the ideas: where settings live, what
 * is a proof of a position, what is a proof of a rule.
 *
 * Files of the node's directory that this part writes: data/ data.new/ data.old/ (PGDATA and its
 * replacements, I7), pg/ (settings and access rules, S19), sock/ (PostgreSQL's socket),
 * log/postgresql.log, rewinding (a mark: data/ is half-way through a rewind), untouched (a mark: see
 * hf_pg_untouched). It reads relay/ and copy/ only as addresses.
 *
 * The host must not wait for children it does not know (no waitpid(-1)): the postmaster is a child
 * of this process and is reaped here. */
#ifndef HF_POSTGRES_POSTGRES_H
#define HF_POSTGRES_POSTGRES_H

#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

#include "base/error.h"
#include "core/decide.h"

enum {
    HF_PG_MEMBER_MAX = 64, /* application_name, with its NUL; PostgreSQL cuts at 63 bytes */
    HF_PG_TEXT_MAX = 512,
};

#define HF_PG_SUPERUSER "holdfast"

/* Called on worker threads, never on the caller's; must not block. Either may be NULL. */
struct hf_pg_hooks {
    void *ctx;
    /* The postmaster's pid as soon as it exists, 0 once it and all its children are gone. */
    void (*on_postmaster)(void *ctx, pid_t pid);
    /* It ended and nobody here had asked for it. `why`: how, and what its log says. */
    void (*on_exit)(void *ctx, pid_t pid, const char *why);
};

/* The module that makes waits for a majority uncancellable (src/guard, S11). */
enum hf_pg_guard {
    HF_PG_GUARD_AUTO, /* if there is one for the server's version; else a warning */
    HF_PG_GUARD_REQUIRED,
    HF_PG_GUARD_OFF,
};

/* Strings are copied by hf_pg_open. */
struct hf_pg_config {
    const char *node_dir; /* absolute */
    const char *name;     /* the node's, for messages and cluster_name */
    const char *member;   /* hf_pg_member_name of this incarnation */
    const char *bindir;   /* NULL: /usr/lib/postgresql/N/bin of the data's version, else the newest,
                           * else PATH */
    const char
        *extra_conf; /* a file of PostgreSQL settings, or NULL; cannot override what safety needs */
    unsigned wal_keep_mb; /* 0: 1024 */
    bool allow_ephemeral; /* accept overlayfs and tmpfs */
    enum hf_pg_guard guard;
    const char *guard_dir; /* NULL: beside the program, then where `meson install` puts it */
    struct hf_pg_hooks hooks;
};

struct hf_pg;

/* Application name of a member: name and the first 8 hex digits of the uuid (S14),
 * "demo-0_1a2b3c4d". */
void hf_pg_member_name(char out[HF_PG_MEMBER_MAX], const char *name, const struct hf_uuid *uuid);

/* Checks binaries and versions (S2: minimum minor releases), owner and mode of the data directory
 * (group bits are repaired), the file system and the length of socket paths; writes the settings.
 * Refuses to run as root (HF_EPERM). */
int hf_pg_open(struct hf_pg **out, const struct hf_pg_config *config, struct hf_error *err);
/* Leaves a running server alone: stop it first if it should not outlive the process. */
void hf_pg_close(struct hf_pg *pg);

/* Ends a leftover postmaster of this data directory (and only of it), removes half-made copies, and
 * tells HF_PG_EMPTY or HF_PG_DOWN. Call once, before the first job. */
int hf_pg_probe(struct hf_pg *pg, enum hf_pg_state *state, struct hf_error *err);

/* After the probe: have data/ neither been rewound nor been replaced since the newest CLONE began whose job said `intact`?
 * Then a mark on the disk says so, which is gone from there before either begins. False: not known. */
bool hf_pg_untouched(const struct hf_pg *pg);

struct hf_pg_job {
    enum hf_work work;
    hf_epoch epoch;
    /* The synchronous rule: the *other* voters' application names; ANY floor((n + 1) / 2) of them.
     * RULE and PROMOTE always apply it (n_voters = 0 means a cluster of one: no rule). Other works
     * apply it only if `rule` is true, else the rule written last stays. */
    bool rule;
    unsigned n_voters;
    char voters[HF_MEMBERS_MAX][HF_PG_MEMBER_MAX];
    bool intact;       /* CLONE: data/ are what they were when the caller last wrote down what it knows of them */
    uint64_t replaces; /* CLONE: data of another system may be replaced by a copy of this one; 0: never */
};

struct hf_pg_result {
    enum hf_work work;
    hf_epoch epoch; /* of the job */
    bool ok;
    bool down;          /* no postmaster runs now */
    bool swapped;       /* CLONE: data/ is the copy, or is not there, also if not ok: never what it was */
    hf_lsn lsn;         /* POSITION; CLONE and REWIND: consistent at or past this */
    hf_lsn seen;        /* POSITION: the data have seen WAL up to here, which is past lsn, and WAL until there is not here; else 0 */
    uint32_t timeline;  /* PROMOTE: the new one; START, POSITION: the present one, 0 if not known */
    uint64_t system_id; /* INIT, START, CLONE, REWIND */
    int code; /* HF_E... if not ok; HF_ENOSPC and HF_ECORRUPT may deserve a word of their own */
    char text[HF_PG_TEXT_MAX]; /* why not ok, or a remark; "" if none */
};

/* One job, start to end; result->ok tells how. Not from two threads at once. What a job of each
 * kind does and promises is said at enum hf_work in core/decide.h and in README.md. If a job fails,
 * the server is either running as before or down: see hf_pg_pid. Returns 0 or result->code. */
int hf_pg_run(struct hf_pg *pg, const struct hf_pg_job *job, struct hf_pg_result *result);

/* Makes the job under way, if any, fail soon. From any thread. Sticks until cleared. */
void hf_pg_interrupt(struct hf_pg *pg, bool on);

/* The postmaster's pid or 0. From any thread. */
pid_t hf_pg_pid(struct hf_pg *pg);

/* Has the postmaster look again at what its processes have asked of it; does nothing before it has any: until it has set its
 * handlers, this signal would end it. From any thread. */
void hf_pg_remind(struct hf_pg *pg);

/* A view that was true at `seen_ns`; from any thread, never blocks on PostgreSQL. Refreshed by
 * every job, and by hf_pg_refresh. */
struct hf_pg_status {
    uint64_t seen_ns;  /* CLOCK_BOOTTIME; 0: never */
    bool running, sql; /* postmaster alive; it takes connections */
    bool in_recovery;
    hf_lsn lsn;        /* primary: flushed; standby: replayed */
    uint32_t timeline; /* of the newest checkpoint's */
    uint64_t system_id;
    int version; /* 150020 for 15.20; of the binaries */
    char version_text[32];
    bool guarded; /* the guard is loaded when it runs */
    /* pg_control's mock authentication nonce: secret, and the same in all copies; zeros before the first start. */
    uint8_t mock_nonce[32];
};
void hf_pg_status(struct hf_pg *pg, struct hf_pg_status *status);
/* Asks the server (a millisecond). On the thread of hf_pg_run. */
void hf_pg_refresh(struct hf_pg *pg);

/* The roles and the database of a new cluster. Repeated: a role is made, or gets its password, only if the one named here is another than
 * the last time; what administrators have done to it stays. Revokes from PUBLIC what could cancel another session's wait, in every database (S11). */
struct hf_pg_accounts {
    const char *app_role, *app_password, *app_database;
    const char *admin_role, *admin_password; /* CREATEROLE CREATEDB, pg_monitor; NULL: none */
};
int hf_pg_make_accounts(struct hf_pg *pg, const struct hf_pg_accounts *accounts,
                        struct hf_error *err);

#endif
