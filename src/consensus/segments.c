#include "consensus/segments.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/file.h"

struct segment {
    uint64_t first, last; /* 0: an open one, which is begun */
    char name[48];
};

struct listing {
    struct segment *all;
    size_t n, cap;
    unsigned begun; /* how many open ones are */
    uint64_t closed_to;
    struct hf_segments_mark mark;
    bool snapshot; /* the mark's is there */
};

static const char mark_name[] = "mark";

static int fail(struct hf_error *err, const char *what, const char *dir, const char *name)
{
    return hf_fail(err, HF_EIO, "cannot %s %s/%s: %s", what, dir, name, strerror(errno));
}

/* An open segment that nothing has been written to is all zeros; the first thing in any other is its format. */
static int look_into(int dir_fd, const char *dir, const char *name, bool *begun, struct hf_error *err)
{
    int fd = openat(dir_fd, name, O_RDONLY | O_CLOEXEC);
    uint64_t format = 0;
    ssize_t n;

    if (fd < 0 && errno == ENOENT)
        *begun = true; /* it was just closed, perhaps */
    if (fd < 0)
        return errno == ENOENT ? 0 : fail(err, "open", dir, name);
    n = pread(fd, &format, sizeof format, 0);
    close(fd);
    if (n < 0)
        return fail(err, "read", dir, name);
    *begun = format != 0;
    return 0;
}

static int add(struct listing *l, const struct segment *s, struct hf_error *err)
{
    if (l->n == l->cap) {
        size_t cap = l->cap != 0 ? 2 * l->cap : 16;
        struct segment *more = realloc(l->all, cap * sizeof *more);
        if (more == NULL)
            return hf_fail(err, HF_ENOMEM, "cannot list Raft's log: out of memory");
        l->all = more;
        l->cap = cap;
    }
    l->all[l->n++] = *s;
    l->closed_to = s->last > l->closed_to ? s->last : l->closed_to;
    l->begun += s->last == 0;
    return 0;
}

static int take_note(struct listing *l, int dir_fd, const char *dir, const char *name, struct hf_error *err)
{
    struct segment s = {0};
    uint64_t term, index;
    char meta[256];
    int end = 0, rv;

    if (sscanf(name, "snapshot-%" SCNu64 "-%" SCNu64 "-%*[0-9]%n", &term, &index, &end) == 2 && name[end] == '\0' &&
        (size_t)snprintf(meta, sizeof meta, "%s.meta", name) < sizeof meta && faccessat(dir_fd, meta, F_OK, 0) == 0)
        l->snapshot = l->snapshot || (term == l->mark.snapshot_term && index == l->mark.snapshot_index);
    if (strlen(name) >= sizeof s.name)
        return 0;
    memcpy(s.name, name, strlen(name));
    if (sscanf(name, "open-%" SCNu64 "%n", &index, &end) == 1 && name[end] == '\0') {
        bool begun = false;
        rv = look_into(dir_fd, dir, name, &begun, err);
        return rv == 0 && begun ? add(l, &s, err) : rv;
    }
    if (sscanf(name, "%" SCNu64 "-%" SCNu64 "%n", &s.first, &s.last, &end) != 2 || name[end] != '\0')
        return 0;
    return add(l, &s, err);
}

static int list(const char *dir, const struct hf_segments_mark *mark, struct listing *l, struct hf_error *err)
{
    DIR *d = opendir(dir);
    struct dirent *e;
    int rv = 0;

    *l = (struct listing){.mark = *mark};
    if (d == NULL)
        return fail(err, "read", dir, "");
    while (rv == 0 && (errno = 0, e = readdir(d)) != NULL)
        rv = take_note(l, dirfd(d), dir, e->d_name, err);
    if (rv == 0 && errno != 0)
        rv = fail(err, "read", dir, "");
    closedir(d);
    if (rv != 0)
        free(l->all);
    return rv;
}

static int is_done(const char *dir, uint64_t from, struct hf_error *err)
{
    /* Twice: who reads a directory while a file in it is renamed may see it under neither name. */
    for (unsigned i = 0; i < 2; i++) {
        struct listing l;
        int rv = list(dir, &(struct hf_segments_mark){0}, &l, err);
        if (rv != 0)
            return rv;
        free(l.all);
        if (l.begun > 0 || (l.n > 0 && l.closed_to >= from))
            return 1;
    }
    return hf_dir_sync(dir, err);
}

/* -- the mark -------------------------------------------------------------------------------------------------- */

static int mark_path(char path[4096], const char *dir, struct hf_error *err)
{
    return snprintf(path, 4096, "%s/%s", dir, mark_name) < 4096 ? 0 : hf_fail(err, HF_EIO, "%s: the path is too long", dir);
}

int hf_segments_mark(const char *dir, const struct hf_segments_mark *mark, struct hf_error *err)
{
    char path[4096], text[128];
    struct listing l;
    int n, rv = list(dir, mark, &l, err);

    if (rv != 0)
        return rv;
    free(l.all);
    if (l.begun > 1)
        return 1;
    n = snprintf(text, sizeof text, "from %" PRIu64 " of %" PRIu64 " snapshot %" PRIu64 "-%" PRIu64 "\n", mark->from, l.closed_to,
                 mark->snapshot_term, mark->snapshot_index);
    rv = mark_path(path, dir, err);
    return rv != 0 ? rv : hf_file_write(path, text, (size_t)n, 0600, err);
}

/* On the disk as well: what is appended next must not be taken for what was to go. */
static int unmark(const char *dir, struct hf_error *err)
{
    char path[4096];
    int rv = mark_path(path, dir, err);

    if (rv != 0)
        return rv;
    if (unlink(path) != 0 && errno != ENOENT)
        return fail(err, "remove", dir, mark_name);
    return hf_dir_sync(dir, err);
}

/* 1: there is one. */
static int marked(const char *dir, struct hf_segments_mark *mark, struct hf_error *err)
{
    char path[4096], *text;
    size_t len;
    int rv = mark_path(path, dir, err), end = 0;

    if (rv != 0)
        return rv;
    if (access(path, F_OK) != 0)
        return errno == ENOENT ? 0 : fail(err, "read", dir, mark_name);
    rv = hf_file_read(path, 128, &text, &len, err);
    if (rv != 0)
        return rv;
    if (sscanf(text, "from %" SCNu64 " of %" SCNu64 " snapshot %" SCNu64 "-%" SCNu64 "\n%n", &mark->from, &mark->closed_to,
               &mark->snapshot_term, &mark->snapshot_index, &end) != 4 ||
        (size_t)end != len)
        rv = hf_fail(err, HF_EIO, "%s does not say what was to be cut off Raft's log: the volume is damaged", path);
    free(text);
    return rv != 0 ? rv : 1;
}

int hf_segments_done(const char *dir, uint64_t from, struct hf_error *err)
{
    int rv = is_done(dir, from, err);

    return rv != 0 ? rv : unmark(dir, err);
}

/* -- after a death ----------------------------------------------------------------------------------------------- */

/* How far the log goes on from before the cut without a gap. */
static uint64_t reach_of(const struct listing *l)
{
    uint64_t at = l->mark.from - 1;
    bool more = true;

    while (more) {
        more = false;
        for (size_t i = 0; i < l->n; i++) {
            if (l->all[i].first > at + 1 || l->all[i].last <= at)
                continue;
            at = l->all[i].last;
            more = true;
        }
    }
    return at;
}

static bool is_shortened(const struct listing *l, const struct segment *s)
{
    for (size_t i = 0; i < l->n; i++)
        if (l->all[i].first == s->first && l->all[i].last > s->last)
            return true;
    return false;
}

/* raft_uv closes the open segment first, and goes on if it cannot. It cuts a segment by writing its first entries to another, and
 * removes the whole one then, and all behind it. The disk may do these in another order. While the mark is there nothing has been
 * appended after the cut, which the leader will ask for again. So if the whole one is there it is right, as far as those behind it continue
 * it, and nothing the shorter one. If it is gone the rest goes, an open one, too, whose entries came behind all of these: at the next
 * start they would be taken to follow what is left.
 *
 * A snapshot that comes in the log's place is on the disk before the log's segments are removed. None of these may be read behind it. */
static bool left_behind(const struct listing *l, const struct segment *s, uint64_t reach)
{
    if (l->mark.from == 0)
        return l->snapshot;
    if (s->last == 0)
        return reach < l->mark.closed_to;
    return s->first > reach || is_shortened(l, s);
}

static int remove_left_behind(const char *dir, const struct hf_segments_mark *mark, struct hf_error *err)
{
    struct listing l;
    uint64_t reach;
    int rv = list(dir, mark, &l, err);

    if (rv != 0)
        return rv;
    reach = reach_of(&l);
    rv = hf_dir_sync(dir, err); /* what is taken as done stays so */
    for (size_t i = 0; i < l.n && rv == 0; i++) {
        char path[4096];
        if (!left_behind(&l, &l.all[i], reach))
            continue;
        (void)snprintf(path, sizeof path, "%s/%s", dir, l.all[i].name);
        if (unlink(path) != 0)
            rv = fail(err, "remove", dir, l.all[i].name);
    }
    free(l.all);
    return rv == 0 ? hf_dir_sync(dir, err) : rv;
}

int hf_segments_tidy(const char *dir, struct hf_error *err)
{
    struct hf_segments_mark mark;
    int rv = marked(dir, &mark, err);

    if (rv != 1)
        return rv;
    rv = remove_left_behind(dir, &mark, err);
    return rv != 0 ? rv : unmark(dir, err);
}
