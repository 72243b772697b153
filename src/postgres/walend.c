/* The end of valid WAL on disk, for a standby that cannot be asked (S10): pg_waldump walks the
 * records from the newest checkpoint's redo point, timeline by timeline. And the timelines of which a
 * standby has only heard (S4), or which it has not received as far as they begin. */
#include <ctype.h>
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/log.h"
#include "postgres/private.h"

enum { PAGE = 8192, SHORT_HEADER = 24, LONG_HEADER = 40, TIMELINES_MAX = 1024 };

hf_lsn hf_pg_record_end(hf_lsn lsn, uint32_t total, uint32_t segment_bytes)
{
    uint64_t left = total;

    while (left > 0) {
        uint64_t room;
        if (lsn % PAGE == 0)
            lsn += lsn % segment_bytes == 0 ? LONG_HEADER : SHORT_HEADER;
        room = PAGE - lsn % PAGE;
        if (left < room) {
            lsn += left;
            break;
        }
        lsn += room;
        left -= room;
    }
    return (lsn + 7) & ~(hf_lsn)7;
}

struct walk {
    hf_lsn lsn;
    uint32_t total;
    bool any;
};

/* rmgr: Heap  len (rec/tot): 54/ 54, tx: 734, lsn: 0/01A2B3C8, prev ... */
static void take_record(void *ctx, const char *line)
{
    struct walk *w = ctx;
    const char *len = strstr(line, "len (rec/tot):"), *slash, *lsn = strstr(line, "lsn: ");
    hf_lsn at;

    if (strncmp(line, "rmgr:", 5) != 0 || len == NULL || lsn == NULL ||
        (slash = strchr(len + 14, '/')) == NULL || !hf_pg_parse_lsn(lsn + 5, &at))
        return;
    w->lsn = at;
    w->total = (uint32_t)strtoul(slash + 1, NULL, 10);
    w->any = true;
}

/* *end moves to the end of the last valid record of `timeline` at or after it. */
static int walk_timeline(struct hf_pg *pg, const char *wal, uint32_t timeline,
                         uint32_t segment_bytes, hf_lsn *end, struct hf_error *err)
{
    char start[32], tli[16];
    const char *argv[] = {"pg_waldump", "-p", wal, "-t", tli, "-s", start, NULL};
    struct hf_pg_tool_result tool;
    struct walk w = {0};
    int code;

    (void)snprintf(start, sizeof start, HF_PG_LSN_FMT, HF_PG_LSN_ARG(*end));
    (void)snprintf(tli, sizeof tli, "%u", timeline);
    /* It always ends with an error: the first record that is not valid, or the file that is not
     * there. */
    code = hf_pg_tool(pg, argv, HF_PG_CHECKPOINT_MS, take_record, &w, &tool, err);
    if (w.any) {
        *end = hf_pg_record_end(w.lsn, w.total, segment_bytes);
        return 0;
    }
    return code == HF_ETIMEOUT || code == HF_ECLOSED ? code : HF_ENOENT;
}

/* Where `timeline` left *parent (0: its own parent, which is then told), by its history file; 0 if it did not. */
static hf_lsn switch_point(const char *wal, uint32_t timeline, uint32_t *parent)
{
    uint32_t from = *parent;
    char path[HF_PG_PATH_MAX], text[65536], *save = NULL;
    hf_lsn at, last = 0;
    unsigned tli;
    int used;

    (void)snprintf(path, sizeof path, "%s/%08X.history", wal, timeline);
    if (hf_pg_read_file(path, text, sizeof text) <= 0)
        return 0;
    for (char *l = strtok_r(text, "\n", &save); l != NULL; l = strtok_r(NULL, "\n", &save))
        if (sscanf(l, "%u %n", &tli, &used) == 1 && (from == 0 || tli == from) && hf_pg_parse_lsn(l + used, &at)) {
            *parent = tli;
            last = at;
        }
    return last;
}

static hf_lsn begin_of(const char *wal, uint32_t timeline)
{
    uint32_t parent = 0;

    return switch_point(wal, timeline, &parent);
}

/* History files newer than `above`, ascending. */
static unsigned newer_timelines(const char *wal, uint32_t above, uint32_t out[TIMELINES_MAX])
{
    DIR *dir = opendir(wal);
    struct dirent *e;
    unsigned n = 0, i;

    while (dir != NULL && n < TIMELINES_MAX && (e = readdir(dir)) != NULL) {
        uint32_t t;
        if (strlen(e->d_name) != 16 || strcmp(e->d_name + 8, ".history") != 0)
            continue;
        t = (uint32_t)strtoul(e->d_name, NULL, 16);
        if (t <= above)
            continue;
        for (i = n++; i > 0 && out[i - 1] > t; i--)
            out[i] = out[i - 1];
        out[i] = t;
    }
    if (dir != NULL)
        (void)closedir(dir);
    return n;
}

int hf_pg_wal_end(struct hf_pg *pg, hf_lsn *lsn, uint32_t *timeline, struct hf_error *err)
{
    char wal[HF_PG_PATH_MAX];
    uint32_t newer[TIMELINES_MAX];
    struct hf_pg_control c;
    unsigned n;
    int code = hf_pg_control_read(pg, pg->data, &c, err);

    if (code != 0)
        return code;
    if (hf_pg_path(wal, sizeof wal, pg->data, "pg_wal") != 0)
        return hf_fail(err, HF_EINVAL, "path too long: %s", pg->data);
    *lsn = c.redo;
    *timeline = c.timeline;
    code = walk_timeline(pg, wal, c.timeline, c.segment_bytes, lsn, err);
    if (code != 0 && code != HF_ENOENT)
        return code;
    if (code == HF_ENOENT && c.min_recovery == 0)
        return hf_fail(err, HF_ECORRUPT,
                       "%s: no valid WAL at the newest checkpoint's redo point " HF_PG_LSN_FMT,
                       pg->name, HF_PG_LSN_ARG(c.redo));
    n = newer_timelines(wal, c.timeline, newer);
    for (unsigned i = 0; i < n; i++) {
        hf_lsn fork = switch_point(wal, newer[i], timeline), end = fork;
        if (fork == 0 || fork > *lsn)
            continue;
        code = walk_timeline(pg, wal, newer[i], c.segment_bytes, &end, err);
        if (code != 0 && code != HF_ENOENT)
            return code;
        if (code == 0 && end >= fork) {
            *lsn = end;
            *timeline = newer[i];
        }
    }
    return 0;
}

/* --- timelines heard of, and never entered ------------------------------------------------------ */

bool hf_pg_timelines_unused(struct hf_pg *pg, hf_lsn end)
{
    char wal[HF_PG_PATH_MAX];
    uint32_t all[TIMELINES_MAX];
    unsigned n;

    if (hf_pg_path(wal, sizeof wal, pg->data, "pg_wal") != 0)
        return false;
    n = newer_timelines(wal, 1, all);
    for (unsigned i = 0; i < n; i++)
        if (begin_of(wal, all[i]) >= end)
            return true;
    return false;
}

/* Its history file and what was received or prepared of its WAL. */
static int forget_timeline(struct hf_pg *pg, const char *wal, uint32_t timeline, struct hf_error *err)
{
    char prefix[16], path[HF_PG_PATH_MAX];
    DIR *dir = opendir(wal);
    struct dirent *e;
    int code = dir == NULL ? hf_fail(err, HF_EIO, "%s: cannot read %s", pg->name, wal) : 0;

    (void)snprintf(prefix, sizeof prefix, "%08X", timeline);
    while (code == 0 && (e = readdir(dir)) != NULL) {
        if (strncmp(e->d_name, prefix, 8) != 0 || hf_pg_path(path, sizeof path, wal, e->d_name) != 0)
            continue;
        if (unlink(path) != 0)
            code = hf_fail(err, HF_EIO, "%s: cannot remove %s: %s", pg->name, path, strerror(errno));
    }
    if (dir != NULL)
        (void)closedir(dir);
    return code;
}

int hf_pg_timelines_forget(struct hf_pg *pg, hf_lsn end, struct hf_error *err)
{
    char wal[HF_PG_PATH_MAX];
    uint32_t all[TIMELINES_MAX];
    unsigned n;
    int code = 0;

    if (hf_pg_path(wal, sizeof wal, pg->data, "pg_wal") != 0)
        return hf_fail(err, HF_EINVAL, "path too long: %s", pg->data);
    n = newer_timelines(wal, 1, all);
    for (unsigned i = 0; i < n && code == 0; i++) {
        if (begin_of(wal, all[i]) < end)
            continue;
        hf_info("%s: forgetting timeline %u, which begins after all that is here", pg->name, all[i]);
        code = forget_timeline(pg, wal, all[i], err);
    }
    return code != 0 ? code : hf_pg_fsync_path(wal, err);
}

/* --- timelines not received as far as they begin ------------------------------------------------- */

static bool segment_path(char out[HF_PG_PATH_MAX], const char *wal, uint32_t timeline, uint64_t segment, uint32_t segment_bytes)
{
    uint64_t per_id = (1ull << 32) / segment_bytes;
    char name[32];

    (void)snprintf(name, sizeof name, "%08X%08X%08X", timeline, (unsigned)(segment / per_id), (unsigned)(segment % per_id));
    return hf_pg_path(out, HF_PG_PATH_MAX, wal, name) == 0;
}

static bool same_beginning(const char *a_path, const char *b_path, uint64_t bytes)
{
    int a = open(a_path, O_RDONLY | O_CLOEXEC), b = open(b_path, O_RDONLY | O_CLOEXEC);
    char x[PAGE], y[PAGE];
    bool same = a >= 0 && b >= 0;

    for (uint64_t at = 0; same && at < bytes; at += PAGE) {
        size_t n = bytes - at < PAGE ? (size_t)(bytes - at) : PAGE;
        same = pread(a, x, n, (off_t)at) == (ssize_t)n && pread(b, y, n, (off_t)at) == (ssize_t)n && memcmp(x, y, n) == 0;
    }
    if (a >= 0)
        (void)close(a);
    if (b >= 0)
        (void)close(b);
    return same;
}

/* The first segment of a timeline begins with a copy of what its parent has before the fork (xlog.c: XLogInitNewTimeline). If the
 * parent's is valid as far as that, and this one is another, then it was not received as far, and has nothing that the parent's has
 * not. */
static int mend_fork(struct hf_pg *pg, const char *wal, uint32_t timeline, uint32_t segment_bytes, struct hf_error *err)
{
    char own[HF_PG_PATH_MAX], parents[HF_PG_PATH_MAX];
    uint32_t parent = 0;
    hf_lsn fork = switch_point(wal, timeline, &parent), begin = fork - fork % segment_bytes, end = begin;
    int code;

    if (fork == begin || !segment_path(own, wal, timeline, fork / segment_bytes, segment_bytes) ||
        !segment_path(parents, wal, parent, fork / segment_bytes, segment_bytes) || !hf_pg_exists(own) || !hf_pg_exists(parents) ||
        same_beginning(own, parents, fork - begin))
        return 0;
    code = walk_timeline(pg, wal, parent, segment_bytes, &end, err);
    if (code == HF_ENOENT || (code == 0 && end < fork))
        return 0; /* the parent's lacks something: nothing is known of this one */
    if (code != 0)
        return code;
    hf_info("%s: timeline %u was not received as far as " HF_PG_LSN_FMT ", where it begins: removing %s", pg->name, timeline,
            HF_PG_LSN_ARG(fork), own);
    if (unlink(own) != 0)
        return hf_fail(err, HF_EIO, "%s: cannot remove %s: %s", pg->name, own, strerror(errno));
    return hf_pg_fsync_path(wal, err);
}

int hf_pg_timelines_mend(struct hf_pg *pg, const struct hf_pg_control *control, struct hf_error *err)
{
    char wal[HF_PG_PATH_MAX];
    uint32_t newer[TIMELINES_MAX];
    unsigned n;
    int code = 0;

    if (hf_pg_path(wal, sizeof wal, pg->data, "pg_wal") != 0)
        return hf_fail(err, HF_EINVAL, "path too long: %s", pg->data);
    n = newer_timelines(wal, control->timeline, newer);
    for (unsigned i = 0; i < n && code == 0; i++)
        code = mend_fork(pg, wal, newer[i], control->segment_bytes, err);
    return code;
}
