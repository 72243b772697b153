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
    uint64_t first, last;
    char name[48];
};

struct listing {
    struct segment *closed;
    size_t n, cap;
    bool begun;        /* an open one */
    uint64_t snapshot; /* up to here goes the newest; 0: there is none */
    uint64_t term;     /* its */
};

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
    *begun = *begun || format != 0;
    return 0;
}

static int add(struct listing *l, const struct segment *s, struct hf_error *err)
{
    if (l->n == l->cap) {
        size_t cap = l->cap != 0 ? 2 * l->cap : 16;
        struct segment *more = realloc(l->closed, cap * sizeof *more);
        if (more == NULL)
            return hf_fail(err, HF_ENOMEM, "cannot list Raft's log: out of memory");
        l->closed = more;
        l->cap = cap;
    }
    l->closed[l->n++] = *s;
    return 0;
}

static int take_note(struct listing *l, int dir_fd, const char *dir, const char *name, struct hf_error *err)
{
    struct segment s = {0};
    uint64_t term, index;
    char meta[256];
    int end = 0;

    if (sscanf(name, "open-%" SCNu64 "%n", &index, &end) == 1 && name[end] == '\0')
        return look_into(dir_fd, dir, name, &l->begun, err);
    if (sscanf(name, "snapshot-%" SCNu64 "-%" SCNu64 "-%*[0-9]%n", &term, &index, &end) == 2 && name[end] == '\0' &&
        (size_t)snprintf(meta, sizeof meta, "%s.meta", name) < sizeof meta && faccessat(dir_fd, meta, F_OK, 0) == 0 &&
        (term > l->term || (term == l->term && index > l->snapshot))) {
        l->term = term;
        l->snapshot = index;
    }
    if (sscanf(name, "%" SCNu64 "-%" SCNu64 "%n", &s.first, &s.last, &end) != 2 || name[end] != '\0' ||
        strlen(name) >= sizeof s.name)
        return 0;
    memcpy(s.name, name, strlen(name));
    return add(l, &s, err);
}

static int list(const char *dir, struct listing *l, struct hf_error *err)
{
    DIR *d = opendir(dir);
    struct dirent *e;
    int rv = 0;

    *l = (struct listing){0};
    if (d == NULL)
        return fail(err, "read", dir, "");
    while (rv == 0 && (errno = 0, e = readdir(d)) != NULL)
        rv = take_note(l, dirfd(d), dir, e->d_name, err);
    if (rv == 0 && errno != 0)
        rv = fail(err, "read", dir, "");
    closedir(d);
    if (rv != 0)
        free(l->closed);
    return rv;
}

int hf_segments_from(const char *dir, uint64_t index, struct hf_error *err)
{
    /* Twice: who reads a directory while a file in it is renamed may see it under neither name. */
    for (unsigned i = 0; i < 2; i++) {
        struct listing l;
        int rv = list(dir, &l, err);
        if (rv != 0)
            return rv;
        for (size_t j = 0; j < l.n; j++)
            l.begun = l.begun || l.closed[j].last >= index;
        free(l.closed);
        if (l.begun)
            return 1;
    }
    return hf_dir_sync(dir, err);
}

/* raft_uv cuts a segment by writing its first entries to another, and removes the whole one then, and all behind it. While
 * both are there nothing has been appended after the cut, which the leader will ask for again. So the whole one is right:
 * those behind it continue it, and nothing the shorter one. To raft_uv the two are a gap.
 * A snapshot that comes in the log's place is on the disk before the log's segments are removed. What they hold it holds
 * as well, and nothing holds what is between their end and its own: raft_uv refuses them, or, once enough entries follow
 * the snapshot in an open one, takes them to follow these.
 * If an open one is begun there is no telling what it follows: then all stays, for raft_uv to judge. */
static bool left_behind(const struct listing *l, const struct segment *s)
{
    bool shortened = false, continued = false;
    uint64_t end = 0;

    for (size_t i = 0; i < l->n; i++) {
        const struct segment *o = &l->closed[i];
        shortened = shortened || (o->first == s->first && o->last > s->last);
        continued = continued || o->first == s->last + 1;
        end = o->last > end ? o->last : end;
    }
    return !l->begun && ((shortened && !continued) || end < l->snapshot);
}

int hf_segments_tidy(const char *dir, struct hf_error *err)
{
    struct listing l;
    bool any = false;
    int rv = list(dir, &l, err);

    if (rv != 0)
        return rv;
    for (size_t i = 0; i < l.n && rv == 0; i++) {
        char path[4096];
        if (!left_behind(&l, &l.closed[i]))
            continue;
        any = true;
        (void)snprintf(path, sizeof path, "%s/%s", dir, l.closed[i].name);
        if (unlink(path) != 0)
            rv = fail(err, "remove", dir, l.closed[i].name);
    }
    free(l.closed);
    return rv == 0 && any ? hf_dir_sync(dir, err) : rv;
}
