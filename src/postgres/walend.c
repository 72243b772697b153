/* The end of valid WAL on disk, for a standby that cannot be asked (S10): pg_waldump walks the
 * records from the newest checkpoint's redo point, timeline by timeline. And the timelines of which a
 * standby has only heard (S4). */
#include <ctype.h>
#include <dirent.h>
#include <errno.h>
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

/* Where `timeline` left `parent` (0: its own parent, whichever that is), by its history file; 0 if it did not. */
static hf_lsn switch_point(const char *wal, uint32_t timeline, uint32_t parent)
{
    char path[HF_PG_PATH_MAX], text[65536], *save = NULL;
    hf_lsn at, last = 0;
    unsigned tli;
    int used;

    (void)snprintf(path, sizeof path, "%s/%08X.history", wal, timeline);
    if (hf_pg_read_file(path, text, sizeof text) <= 0)
        return 0;
    for (char *l = strtok_r(text, "\n", &save); l != NULL; l = strtok_r(NULL, "\n", &save))
        if (sscanf(l, "%u %n", &tli, &used) == 1 && (parent == 0 || tli == parent) &&
            hf_pg_parse_lsn(l + used, &at))
            last = at;
    return last;
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
        hf_lsn fork = switch_point(wal, newer[i], *timeline), end = fork;
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
        if (switch_point(wal, all[i], 0) >= end)
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
        if (switch_point(wal, all[i], 0) < end)
            continue;
        hf_info("%s: forgetting timeline %u, which begins after all that is here", pg->name, all[i]);
        code = forget_timeline(pg, wal, all[i], err);
    }
    return code != 0 ? code : hf_pg_fsync_path(wal, err);
}
