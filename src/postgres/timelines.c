/* The timelines in pg_wal: where they begin, those of which a standby has only heard (S4), and those that it has not received as far as they
 * begin. */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/log.h"
#include "postgres/private.h"

enum { HISTORY_MAX = 4 << 20 /* PostgreSQL needs some 46 bytes for each timeline before */ };

int hf_pg_wal_dir(const struct hf_pg *pg, char out[HF_PG_PATH_MAX], struct hf_error *err)
{
    return hf_pg_path(out, HF_PG_PATH_MAX, pg->data, "pg_wal") == 0 ? 0 : hf_fail(err, HF_EINVAL, "path too long: %s", pg->data);
}

bool hf_pg_segment_path(char out[HF_PG_PATH_MAX], const char *wal, uint32_t timeline, uint64_t segment, uint32_t segment_bytes)
{
    uint64_t per_id = (1ull << 32) / segment_bytes;
    char name[32];

    (void)snprintf(name, sizeof name, "%08X%08X%08X", timeline, (unsigned)(segment / per_id), (unsigned)(segment % per_id));
    return hf_pg_path(out, HF_PG_PATH_MAX, wal, name) == 0;
}

int hf_pg_timeline_begin(const char *wal, uint32_t timeline, uint32_t *parent, hf_lsn *begin, struct hf_error *err)
{
    uint32_t from = *parent;
    char path[HF_PG_PATH_MAX], *text = malloc(HISTORY_MAX), *save = NULL;
    hf_lsn at;
    unsigned tli;
    int used, n;

    *begin = 0;
    if (text == NULL)
        return hf_fail(err, HF_ENOMEM, "out of memory");
    (void)snprintf(path, sizeof path, "%s/%08X.history", wal, timeline);
    n = hf_pg_read_file(path, text, HISTORY_MAX);
    if (n == HISTORY_MAX - 1 || (n < 0 && n != HF_ENOENT)) {
        free(text);
        return hf_fail(err, HF_EIO, "cannot read %s", path);
    }
    for (char *l = n > 0 ? strtok_r(text, "\n", &save) : NULL; l != NULL; l = strtok_r(NULL, "\n", &save))
        if (sscanf(l, "%u %n", &tli, &used) == 1 && (from == 0 || tli == from) && hf_pg_parse_lsn(l + used, &at)) {
            *parent = tli;
            *begin = at;
        }
    free(text);
    return 0;
}

int hf_pg_timelines_newer(const char *wal, uint32_t above, struct hf_pg_timelines *out, struct hf_error *err)
{
    DIR *dir = opendir(wal);
    struct dirent *e;
    unsigned i;

    out->n = 0;
    if (dir == NULL)
        return hf_fail(err, HF_EIO, "cannot read %s: %s", wal, strerror(errno));
    while (errno = 0, (e = readdir(dir)) != NULL) {
        uint32_t t;
        if (strlen(e->d_name) != 16 || strcmp(e->d_name + 8, ".history") != 0)
            continue;
        t = (uint32_t)strtoul(e->d_name, NULL, 16);
        if (t <= above || (out->n == HF_PG_TIMELINES_MAX && t < out->id[0]))
            continue;
        if (out->n == HF_PG_TIMELINES_MAX) /* the newest matter */
            memmove(out->id, out->id + 1, --out->n * sizeof out->id[0]);
        for (i = out->n++; i > 0 && out->id[i - 1] > t; i--)
            out->id[i] = out->id[i - 1];
        out->id[i] = t;
    }
    i = (unsigned)errno;
    (void)closedir(dir);
    return i == 0 ? 0 : hf_fail(err, HF_EIO, "cannot read %s: %s", wal, strerror((int)i));
}

/* --- heard of, and never entered --------------------------------------------------------------- */

int hf_pg_timelines_unused(struct hf_pg *pg, hf_lsn end, struct hf_pg_timelines *unused, struct hf_error *err)
{
    char wal[HF_PG_PATH_MAX];
    unsigned n = 0;
    int code;

    if ((code = hf_pg_wal_dir(pg, wal, err)) != 0)
        return code;
    if ((code = hf_pg_timelines_newer(wal, 1, unused, err)) != 0)
        return code;
    for (unsigned i = 0; i < unused->n; i++) {
        uint32_t parent = 0;
        hf_lsn begin;
        if ((code = hf_pg_timeline_begin(wal, unused->id[i], &parent, &begin, err)) != 0)
            return code;
        if (begin >= end)
            unused->id[n++] = unused->id[i];
    }
    unused->n = n;
    return 0;
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

/* Has it WAL of its own, at its beginning? Then it was entered, whatever replay says. */
static int must_be_empty(struct hf_pg *pg, const char *wal, uint32_t timeline, uint32_t segment_bytes, struct hf_error *err)
{
    uint32_t parent = 0;
    hf_lsn begin;
    bool yes;
    int code = hf_pg_timeline_begin(wal, timeline, &parent, &begin, err);

    if (code == 0)
        code = hf_pg_wal_is_at(pg, wal, timeline, begin, segment_bytes, &yes, err);
    if (code == HF_ENOENT)
        return 0;
    if (code == 0 && yes)
        return hf_fail(err, HF_ECORRUPT, "%s: timeline %u is not to be forgotten: there is WAL where it begins, at " HF_PG_LSN_FMT, pg->name, timeline,
                       HF_PG_LSN_ARG(begin));
    return code;
}

int hf_pg_timelines_forget(struct hf_pg *pg, const struct hf_pg_timelines *unused, struct hf_error *err)
{
    char wal[HF_PG_PATH_MAX];
    int code = 0;

    if ((code = hf_pg_wal_dir(pg, wal, err)) != 0)
        return code;
    for (unsigned i = 0; i < unused->n && code == 0; i++)
        code = must_be_empty(pg, wal, unused->id[i], pg->segment_bytes, err);
    for (unsigned i = 0; i < unused->n && code == 0; i++) {
        hf_info("%s: forgetting timeline %u, which begins after all that is here", pg->name, unused->id[i]);
        code = forget_timeline(pg, wal, unused->id[i], err);
    }
    return code != 0 ? code : hf_pg_fsync_path(wal, err);
}

/* --- not received as far as they begin ----------------------------------------------------------- */

/* *same: are they, as far as that? HF_ENOENT: one is not there. What cannot be read is not different. */
static int compare(struct hf_pg *pg, const char *a_path, const char *b_path, uint64_t bytes, bool *same, struct hf_error *err)
{
    enum { BLOCK = 8192 };
    uint8_t x[BLOCK], y[BLOCK];
    int a = open(a_path, O_RDONLY | O_CLOEXEC), why = errno, b = open(b_path, O_RDONLY | O_CLOEXEC), code = 0;

    if (a >= 0)
        why = errno;
    if (a < 0 || b < 0)
        code = why == ENOENT ? HF_ENOENT : hf_fail(err, HF_EIO, "%s: cannot open %s: %s", pg->name, a < 0 ? a_path : b_path, strerror(why));
    *same = true;
    for (uint64_t at = 0; code == 0 && *same && at < bytes; at += BLOCK) {
        size_t n = bytes - at < BLOCK ? (size_t)(bytes - at) : BLOCK;
        code = hf_pg_read_at(pg, a, a_path, x, n, at, err);
        if (code == 0)
            code = hf_pg_read_at(pg, b, b_path, y, n, at, err);
        *same = code != 0 || memcmp(x, y, n) == 0;
    }
    if (a >= 0)
        (void)close(a);
    if (b >= 0)
        (void)close(b);
    return code;
}

/* The first segment of a timeline begins with a copy of what its parent has before the fork (xlog.c: XLogInitNewTimeline). If the
 * parent's is valid as far as that and no further, and this one is another, then it was not received as far, and has nothing that the
 * parent's has not. It is put aside under the name that PostgreSQL has for such a segment, which it removes with old WAL. */
static int mend_fork(struct hf_pg *pg, const char *wal, uint32_t timeline, uint32_t segment_bytes, struct hf_error *err)
{
    char own[HF_PG_PATH_MAX], parents[HF_PG_PATH_MAX], aside[HF_PG_PATH_MAX + 16];
    uint32_t parent = 0;
    hf_lsn fork, begin, end;
    bool same;
    int code = hf_pg_timeline_begin(wal, timeline, &parent, &fork, err);

    if (code != 0)
        return code;
    begin = end = fork - fork % segment_bytes;
    if (fork == begin || !hf_pg_segment_path(own, wal, timeline, fork / segment_bytes, segment_bytes) ||
        !hf_pg_segment_path(parents, wal, parent, fork / segment_bytes, segment_bytes))
        return 0;
    code = compare(pg, own, parents, fork - begin, &same, err);
    if (code != 0 || same)
        return code == HF_ENOENT ? 0 : code;
    code = hf_pg_wal_walk(pg, wal, parent, segment_bytes, &end, err);
    if (code == HF_ENOENT || (code == 0 && end != fork))
        return 0; /* the parent's lacks something, or is not what that timeline came from: nothing is known of this one */
    if (code != 0)
        return code;
    (void)snprintf(aside, sizeof aside, "%s.partial", own);
    hf_info("%s: timeline %u was not received as far as " HF_PG_LSN_FMT ", where it begins: putting %s aside", pg->name, timeline,
            HF_PG_LSN_ARG(fork), own);
    if (rename(own, aside) != 0)
        return hf_fail(err, HF_EIO, "%s: cannot rename %s: %s", pg->name, own, strerror(errno));
    return hf_pg_fsync_path(wal, err);
}

int hf_pg_timelines_mend(struct hf_pg *pg, const struct hf_pg_control *control, struct hf_error *err)
{
    char wal[HF_PG_PATH_MAX];
    struct hf_pg_timelines newer;
    uint32_t entered = control->timeline;
    int code;

    if (control->min_recovery_timeline > entered)
        entered = control->min_recovery_timeline; /* replay has been there: its WAL was whole */
    if ((code = hf_pg_wal_dir(pg, wal, err)) != 0)
        return code;
    code = hf_pg_timelines_newer(wal, entered, &newer, err);
    for (unsigned i = 0; i < newer.n && code == 0; i++)
        code = mend_fork(pg, wal, newer.id[i], control->segment_bytes, err);
    return code;
}
