/* The end of valid WAL on disk: for a standby that cannot be asked (S10), pg_waldump walks the records from the newest checkpoint's redo
 * point, timeline by timeline; of one that says where its replay has ended, it is looked whether valid WAL goes on there. What cannot be
 * read is no end: less than what was acknowledged would be told. */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "postgres/private.h"

/* xlog_internal.h, xlogrecord.h */
enum { PAGE = 8192, SHORT_HEADER = 24, LONG_HEADER = 40, PAGE_ADDRESS_AT = 8, RECORD_HEADER = 24, RECORD_PREV_AT = 8 };

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
    bool ended; /* pg_waldump has said that there is no more, and not that it could not look */
};

/* How it says that. The last two are about the beginning of the first segment, which has not been written yet (pg_waldump 13 to 15, and
 * later ones). */
static bool is_end(const char *line)
{
    static const char *const words[] = {"error in WAL record at ", "could not find a valid record after ", "could not find file ",
                                        "WAL segment size must be ", "invalid WAL segment size in WAL file "};

    for (size_t i = 0; i < sizeof words / sizeof *words; i++)
        if (strstr(line, words[i]) != NULL)
            return true;
    return false;
}

/* rmgr: Heap  len (rec/tot): 54/ 54, tx: 734, lsn: 0/01A2B3C8, prev ... */
static void take_record(void *ctx, const char *line)
{
    struct walk *w = ctx;
    const char *len = strstr(line, "len (rec/tot):"), *slash, *lsn = strstr(line, "lsn: ");
    hf_lsn at;

    if (strncmp(line, "pg_waldump:", 11) == 0) /* its last line: it flushes what it has printed first (logging.c) */
        w->ended = is_end(line);
    if (strncmp(line, "rmgr:", 5) != 0 || len == NULL || lsn == NULL ||
        (slash = strchr(len + 14, '/')) == NULL || !hf_pg_parse_lsn(lsn + 5, &at))
        return;
    w->lsn = at;
    w->total = (uint32_t)strtoul(slash + 1, NULL, 10);
    w->any = true;
}

/* The first segment, and the last of those that follow it without a gap. HF_ENOENT: there is none. */
static int segments_from(struct hf_pg *pg, const char *wal, uint32_t timeline, hf_lsn start, uint32_t segment_bytes, char first[HF_PG_PATH_MAX],
                         char last[HF_PG_PATH_MAX], struct hf_error *err)
{
    char path[HF_PG_PATH_MAX];
    unsigned n = 0;

    for (;; n++) {
        if (!hf_pg_segment_path(path, wal, timeline, start / segment_bytes + n, segment_bytes))
            return hf_fail(err, HF_EINVAL, "path too long: %s", wal);
        if (access(path, F_OK) != 0)
            break;
        (void)strcpy(n == 0 ? first : last, path);
        if (n == 0)
            (void)strcpy(last, first);
    }
    if (errno != ENOENT)
        return hf_fail(err, HF_EIO, "%s: cannot look for %s: %s", pg->name, path, strerror(errno));
    return n > 0 ? 0 : HF_ENOENT;
}

/* Of `timeline`, from `start` on; `one`: no more than a record. HF_ENOENT: there is none, which sets no err. The segments are named, for
 * else pg_waldump takes any file that it finds to learn how large they are, which may be one that nothing has been written to yet. */
static int walk(struct hf_pg *pg, const char *wal, uint32_t timeline, hf_lsn start, uint32_t segment_bytes, bool one, struct walk *w,
                struct hf_error *err)
{
    char from[32], first[HF_PG_PATH_MAX], last[HF_PG_PATH_MAX];
    const char *argv[] = {"pg_waldump", "-p", wal, "-s", from, "-n", one ? "1" : "2147483647", NULL, NULL, NULL};
    int code = segments_from(pg, wal, timeline, start, segment_bytes, first, last, err);

    if (code != 0)
        return code;
    argv[7] = strrchr(first, '/') + 1;
    argv[8] = strrchr(last, '/') + 1;
    (void)snprintf(from, sizeof from, HF_PG_LSN_FMT, HF_PG_LSN_ARG(start));
    *w = (struct walk){0};
    /* It ends with an error at the first record that is not valid, and without one where all segments are full. */
    code = hf_pg_tool(pg, argv, HF_PG_CHECKPOINT_MS, take_record, w, NULL, err);
    if (code != 0 && (code != HF_EPG || !w->ended))
        return code;
    return w->any ? 0 : HF_ENOENT;
}

int hf_pg_wal_walk(struct hf_pg *pg, const char *wal, uint32_t timeline, uint32_t segment_bytes, hf_lsn *end, struct hf_error *err)
{
    struct walk w;
    int code = walk(pg, wal, timeline, *end, segment_bytes, false, &w, err);

    if (code != 0)
        return code;
    *end = hf_pg_record_end(w.lsn, w.total, segment_bytes);
    return 0;
}

int hf_pg_wal_end(struct hf_pg *pg, hf_lsn *lsn, uint32_t *timeline, hf_lsn *seen, struct hf_error *err)
{
    char wal[HF_PG_PATH_MAX];
    struct hf_pg_timelines newer;
    struct hf_pg_control c;
    int code = hf_pg_control_read(pg, pg->data, &c, err);

    if (code != 0)
        return code;
    if ((code = hf_pg_wal_dir(pg, wal, err)) != 0)
        return code;
    *lsn = c.redo;
    *timeline = c.timeline;
    code = hf_pg_wal_walk(pg, wal, c.timeline, c.segment_bytes, lsn, err);
    if (code != 0 && code != HF_ENOENT)
        return code;
    if (code == HF_ENOENT && c.min_recovery == 0)
        return hf_fail(err, HF_ECORRUPT,
                       "%s: no valid WAL at the newest checkpoint's redo point " HF_PG_LSN_FMT,
                       pg->name, HF_PG_LSN_ARG(c.redo));
    if ((code = hf_pg_timelines_newer(wal, c.timeline, &newer, err)) != 0)
        return code;
    for (unsigned i = 0; i < newer.n; i++) {
        uint32_t parent = *timeline;
        hf_lsn fork, end;
        if ((code = hf_pg_timeline_begin(wal, newer.id[i], &parent, &fork, err)) != 0)
            return code;
        if (fork == 0 || fork > *lsn)
            continue;
        end = fork;
        code = hf_pg_wal_walk(pg, wal, newer.id[i], c.segment_bytes, &end, err);
        if (code != 0 && code != HF_ENOENT)
            return code;
        if (code == 0 && end >= fork) {
            *lsn = end;
            *timeline = newer.id[i];
        }
    }
    *seen = *lsn < c.min_recovery ? c.min_recovery : 0;
    return 0;
}

/* -- does it go on? ----------------------------------------------------------------------------------- */

static uint64_t number_at(const uint8_t *p, size_t bytes)
{
    uint64_t v = 0;

    memcpy(&v, p, bytes); /* of this machine, as PostgreSQL writes it */
    return v;
}

/* Could a record begin at `lsn`, behind one at *prev? A look of microseconds, for what stands behind the end is nearly always nothing, or
 * what a recycled segment held before. */
static int may_be_at(const struct hf_pg *pg, int fd, const char *path, hf_lsn lsn, uint32_t segment_bytes, bool *yes, hf_lsn *prev,
                     struct hf_error *err)
{
    uint64_t at = lsn % segment_bytes;
    uint8_t b[LONG_HEADER];
    int code;

    *yes = true;
    *prev = 0;
    if (at % PAGE == 0) {
        if ((code = hf_pg_read_at(pg, fd, path, b, SHORT_HEADER, at, err)) != 0)
            return code;
        *yes = number_at(b + PAGE_ADDRESS_AT, 8) == lsn;
        at += at == 0 ? LONG_HEADER : SHORT_HEADER;
    }
    if (!*yes || PAGE - at % PAGE < RECORD_HEADER)
        return 0;
    if ((code = hf_pg_read_at(pg, fd, path, b, RECORD_HEADER, at, err)) != 0)
        return code;
    *prev = number_at(b + RECORD_PREV_AT, 8);
    *yes = number_at(b, 4) >= RECORD_HEADER && *prev < lsn;
    return 0;
}

static int segment_open(struct hf_pg *pg, const char *wal, uint32_t timeline, hf_lsn lsn, uint32_t segment_bytes, char path[HF_PG_PATH_MAX], int *fd,
                        struct hf_error *err)
{
    if (!hf_pg_segment_path(path, wal, timeline, lsn / segment_bytes, segment_bytes))
        return hf_fail(err, HF_EINVAL, "path too long: %s", wal);
    *fd = open(path, O_RDONLY | O_CLOEXEC);
    if (*fd < 0 && errno == ENOENT)
        return HF_ENOENT;
    return *fd >= 0 ? 0 : hf_fail(err, HF_EIO, "%s: cannot open %s: %s", pg->name, path, strerror(errno));
}

/* pg_waldump does not compare the first record that it is shown with the one before, so a record of a recycled segment would do. Of that
 * one the record before is in another segment, which is gone by then, or holds something else. But a record may be longer than a segment. */
static int follows(struct hf_pg *pg, const char *wal, uint32_t timeline, hf_lsn prev, hf_lsn lsn, uint32_t segment_bytes, bool *yes,
                   struct hf_error *err)
{
    char path[HF_PG_PATH_MAX];
    uint32_t total, parent;
    hf_lsn begin;
    int fd = -1, code;

    *yes = true;
    if (lsn - prev <= segment_bytes)
        return 0;
    while ((code = segment_open(pg, wal, timeline, prev, segment_bytes, path, &fd, err)) == HF_ENOENT && timeline > 1) {
        parent = 0;
        if ((code = hf_pg_timeline_begin(wal, timeline, &parent, &begin, err)) != 0)
            return code;
        timeline = parent;
    }
    *yes = false;
    if (code != 0)
        return code == HF_ENOENT ? 0 : code;
    code = hf_pg_read_at(pg, fd, path, &total, sizeof total, prev % segment_bytes, err);
    (void)close(fd);
    *yes = code == 0 && total >= RECORD_HEADER && hf_pg_record_end(prev, total, segment_bytes) == lsn;
    return code;
}

int hf_pg_wal_is_at(struct hf_pg *pg, const char *wal, uint32_t timeline, hf_lsn lsn, uint32_t segment_bytes, bool *yes, struct hf_error *err)
{
    char path[HF_PG_PATH_MAX];
    struct walk w;
    hf_lsn prev;
    int fd, code;

    *yes = false;
    if ((code = segment_open(pg, wal, timeline, lsn, segment_bytes, path, &fd, err)) != 0)
        return code;
    code = may_be_at(pg, fd, path, lsn, segment_bytes, yes, &prev, err);
    (void)close(fd);
    if (code == 0 && *yes && prev != 0)
        code = follows(pg, wal, timeline, prev, lsn, segment_bytes, yes, err);
    if (code != 0 || !*yes)
        return code;
    code = walk(pg, wal, timeline, lsn, segment_bytes, true, &w, err);
    *yes = code == 0;
    return code == HF_ENOENT ? 0 : code;
}

/* Of the timelines that begin by then, the newest that has that segment, which is the one that PostgreSQL reads (xlogrecovery.c:
 * XLogFileReadAnyTLI). One that begins just there and has no record there is not in use: what its parent has is not read. */
int hf_pg_wal_ends_at(struct hf_pg *pg, hf_lsn lsn, struct hf_error *err)
{
    char wal[HF_PG_PATH_MAX];
    struct hf_pg_timelines all;
    int code;

    if (pg->segment_bytes == 0)
        return hf_fail(err, HF_EINVAL, "%s: has not been started", pg->name);
    if ((code = hf_pg_wal_dir(pg, wal, err)) != 0)
        return code;
    if ((code = hf_pg_timelines_newer(wal, 1, &all, err)) != 0)
        return code;
    for (unsigned i = all.n + 1; i > 0; i--) {
        uint32_t timeline = i > 1 ? all.id[i - 2] : 1, parent = 0;
        hf_lsn begin = 0;
        bool more;
        if (i > 1 && (code = hf_pg_timeline_begin(wal, timeline, &parent, &begin, err)) != 0)
            return code;
        if (begin > lsn)
            continue;
        code = hf_pg_wal_is_at(pg, wal, timeline, lsn, pg->segment_bytes, &more, err);
        if (code == 0 && more)
            return hf_fail(err, HF_EIO, "%s: replay has ended at " HF_PG_LSN_FMT ", but valid WAL of timeline %u goes on there", pg->name,
                           HF_PG_LSN_ARG(lsn), timeline);
        if (code != HF_ENOENT || begin == lsn)
            return code == HF_ENOENT ? 0 : code;
    }
    return 0;
}
