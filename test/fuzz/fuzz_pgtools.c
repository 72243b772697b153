/* What PostgreSQL's own programs print (pg_controldata, pg_waldump) and its timeline history files,
 * of a damaged directory or another version: no line is cut wrongly, numbers are what is printed or
 * nothing, and the search for the end of WAL comes to an end. The input: how the pipe cuts, then
 * blocks that end with 0xff: the output of one program, or one file. */
#include "input.h"

#include <dirent.h>

#define hf_pg_tool real_tool /* which starts them */
#include "../../src/postgres/tool.c"
#undef hf_pg_tool
int hf_pg_tool(struct hf_pg *pg, const char *const *argv, int timeout_ms, hf_pg_line_fn line,
               void *ctx, struct hf_pg_tool_result *result, struct hf_error *err);
#include "../../src/postgres/control.c"

/* A directory of history files. */
static struct dirent entry;
static unsigned n_entries;
static DIR *open_wal(const char *path);
static struct dirent *read_wal(DIR *d);
static int close_wal(DIR *d);
static int access_wal(const char *path, int mode);
#define opendir   open_wal
#define readdir   read_wal
#define closedir  close_wal
#define take_line wal_take_line
#define access    access_wal
#include "../../src/postgres/walend.c"
#include "../../src/postgres/timelines.c"
#undef opendir
#undef access
#undef readdir
#undef closedir

static struct input in;
static unsigned cut, turn;

static DIR *open_wal(const char *path)
{
    (void)path;
    n_entries = 0;
    return (DIR *)&entry;
}

static int access_wal(const char *path, int mode)
{
    (void)path;
    (void)mode;
    errno = ENOENT;
    return input_byte(&in) % 4 != 0 ? 0 : -1;
}

static struct dirent *read_wal(DIR *d)
{
    if (n_entries == 4)
        return NULL;
    (void)snprintf(entry.d_name, sizeof entry.d_name, "%08X%s", 5 - n_entries,
                   n_entries == 2 ? "00" : ".history");
    n_entries++;
    return (struct dirent *)(void *)d;
}

static int close_wal(DIR *d)
{
    (void)d;
    return 0;
}

int hf_pg_read_file(const char *path, char *buf, size_t cap)
{
    size_t n;
    char *block = input_block(&in, 0xff, &n);

    (void)path;
    if (n >= cap)
        n = cap - 1;
    memcpy(buf, block, n);
    buf[n] = '\0';
    free(block);
    return (int)n;
}

int hf_pg_path(char *out, size_t cap, const char *dir, const char *name)
{
    (void)snprintf(out, cap, "%s/%s", dir, name);
    return 0;
}

int hf_pg_read_at(const struct hf_pg *pg, int fd, const char *path, void *out, size_t n, uint64_t at, struct hf_error *err)
{
    (void)pg;
    (void)path;
    (void)err;
    return pread(fd, out, n, (off_t)at) == (ssize_t)n ? 0 : HF_EIO;
}

int hf_pg_fsync_path(const char *path, struct hf_error *err)
{
    (void)path;
    (void)err;
    return 0;
}

void hf_log(enum hf_log_level level, const char *fmt, ...)
{
    (void)level;
    (void)fmt;
}

/* -- a program's output ---------------------------------------------------------------------------
 */

struct lines {
    hf_pg_line_fn fn;
    void *ctx;
    size_t bytes; /* of all lines, and of their ends */
};

/* In a block of its own, so that reading beyond it shows. */
static void one_line(void *ctx, const char *line)
{
    struct lines *l = ctx;
    char *copy = strdup(line);

    MUST(copy != NULL && strchr(line, '\n') == NULL && strlen(line) < LINE_MAX_BYTES);
    l->bytes += strlen(line) + 1;
    if (l->fn != NULL)
        l->fn(l->ctx, copy);
    free(copy);
}

int hf_pg_tool(struct hf_pg *pg, const char *const *argv, int timeout_ms, hf_pg_line_fn line,
               void *ctx, struct hf_pg_tool_result *result, struct hf_error *err)
{
    static struct hf_pg_tool_result local;
    struct lines l = {.fn = line, .ctx = ctx};
    struct reader r = {.line = one_line, .ctx = &l, .result = result != NULL ? result : &local};
    size_t n, at = 0, nuls = 0;
    char *block = input_block(&in, 0xff, &n);

    (void)pg;
    (void)timeout_ms;
    (void)err;
    MUST(argv[0] != NULL);
    memset(r.result, 0, sizeof *r.result);
    for (size_t i = 0; i < n; i++)
        nuls += block[i] == '\0';
    while (at < n) {
        size_t room = sizeof r.buf - 1 - r.len, piece = n - at < cut ? n - at : cut;
        MUST(room > 0);
        piece = piece < room ? piece : room;
        memcpy(r.buf + r.len, block + at, piece);
        r.len += piece;
        at += piece;
        take_lines(&r, false);
    }
    take_lines(&r, true);
    MUST(r.len == 0 && strlen(r.result->out) < sizeof r.result->out);
    MUST(nuls > 0 || l.bytes >= n);
    free(block);
    return 0;
}

static void control(struct hf_pg *pg)
{
    struct hf_pg_control c;
    struct hf_error err;
    bool damaged = in.n < LINE_MAX_BYTES && memchr(in.p, 0, in.n) == NULL &&
                   memchr(in.p, 0xff, in.n) == NULL &&
                   memmem(in.p, in.n, "Calculated CRC checksum does not match", 38) != NULL;

    if (hf_pg_control_read(pg, "d", &c, &err) != 0) {
        MUST(err.code == HF_ECORRUPT);
        return;
    }
    MUST(!damaged && c.system_id != 0 && c.timeline != 0);
    MUST(c.segment_bytes >= 1 << 20 && c.segment_bytes <= 1 << 30 &&
         (c.segment_bytes & (c.segment_bytes - 1)) == 0);
    MUST(c.max_connections >= 0 && c.max_wal_senders >= 0 && c.max_worker_processes >= 0);
}

/* What is taken for a position is one that would be printed so. */
static void position(void)
{
    size_t n;
    char *text = input_block(&in, 0xff, &n), printed[32];
    const char *a = text, *b = printed;
    hf_lsn lsn;

    if (hf_pg_parse_lsn(text, &lsn)) {
        (void)snprintf(printed, sizeof printed, HF_PG_LSN_FMT, HF_PG_LSN_ARG(lsn));
        while (*a == '0' && a[1] != '/')
            a++;
        for (; *b != '/'; a++, b++)
            MUST(toupper((unsigned char)*a) == *b);
        MUST(*a++ == '/');
        b++;
        while (*a == '0' && isxdigit((unsigned char)a[1]) &&
               strlen(b) < strspn(a, "0123456789abcdefABCDEF"))
            a++;
        for (; *b != '\0'; a++, b++)
            MUST(toupper((unsigned char)*a) == *b);
        MUST(!isxdigit((unsigned char)*a));
    }
    free(text);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static struct hf_pg pg = {.data = "d", .name = "demo-0"};
    static struct hf_pg_timelines unused;
    uint32_t timeline = 0;
    struct hf_error err;
    hf_lsn lsn = 0, seen = 0;

    in = (struct input){data, size};
    cut = input_byte(&in) * 16 + 1;
    turn = input_byte(&in) % 3;
    if (turn == 0) {
        control(&pg);
    } else if (turn == 1) {
        position();
    } else if (hf_pg_wal_end(&pg, &lsn, &timeline, &seen, &err) == 0) {
        MUST(timeline != 0);
        MUST(seen == 0 || seen > lsn);
        (void)hf_pg_timelines_unused(&pg, lsn, &unused, &err);
        (void)mend_fork(&pg, "d", 5, 1 << 20, &err); /* the files that it compares are not there */
    }
    return 0;
}
