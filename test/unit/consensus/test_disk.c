/* A disk that refuses what libraft does not look at, and what a start makes of what is left there. */
#include "world.h"

#include <dirent.h>
#include <fcntl.h>
#include <signal.h>
#include <sys/resource.h>
#include <unistd.h>

#include "base/file.h"
#include "consensus/private.h"
#include "consensus/segments.h"

enum { NEVER_MS = 60000 /* election timeout */, SHORT_MS = 300 /* patience with a cut */ };

/* No file gets longer than this: those that are long enough already can be written to, up to there. */
static void limit_files(rlim_t bytes)
{
    struct rlimit limit;

    assert_int_equal(getrlimit(RLIMIT_FSIZE, &limit), 0);
    limit.rlim_cur = bytes < limit.rlim_max ? bytes : limit.rlim_max;
    assert_int_equal(setrlimit(RLIMIT_FSIZE, &limit), 0);
}

static raft_term last_term(const struct node *n)
{
    const struct raft_log *l = &n->c->raft.log;

    return l->entries[(l->back + l->size - 1) % l->size].term;
}

/* -- an entry that nobody else has --------------------------------------------------------------------- */

/* Node 0 leads alone, with an entry of its own behind `n` that all have; then node 1 leads, with another there. */
static struct world *two_ends_of(unsigned n, bool slowly)
{
    struct world *w = world_open(3, 3, NEVER_MS);
    raft_index last;

    lead(w, 0);
    for (uint32_t i = 0; i < n; i++) {
        apply(w, &w->nodes[0], i);
        if (i % 50 == 49)
            RUN_UNTIL(w, w->told == i + 1);
    }
    RUN_UNTIL(w, w->told == n && all_applied(w, n));
    leave_alone(w, 0);
    last = w->nodes[0].c->raft.last_stored;
    if (slowly)
        entries_wait(&w->nodes[0]);
    apply(w, &w->nodes[0], 1000000);
    RUN_UNTIL(w, slowly ? entries_are_waiting() : w->nodes[0].c->raft.last_stored == last + 1);
    node_again(w, 1, NEVER_MS); /* with segments that begin now */
    node_again(w, 2, NEVER_MS);
    hf_consensus_hint(w->nodes[1].c);
    RUN_UNTIL(w, w->nodes[1].role == HF_CONSENSUS_LEADER);
    apply(w, &w->nodes[1], 2000000);
    RUN_UNTIL(w, w->nodes[1].applied == n + 1 && w->nodes[2].applied == n + 1);
    assert_int_equal(w->nodes[0].applied, n);
    return w;
}

static struct world *two_ends(unsigned n)
{
    return two_ends_of(n, false);
}

static void test_an_end_is_cut(void **state)
{
    struct world *w = two_ends(20);

    (void)state;
    w->nodes[0].alone = false;
    RUN_UNTIL(w, w->nodes[0].applied == 21 && w->nodes[0].sum == w->nodes[1].sum);
    node_again(w, 0, NEVER_MS);
    RUN_UNTIL(w, w->nodes[0].applied == 21 && w->nodes[0].sum == w->nodes[1].sum);
    world_close(w);
}

/* The process is stopped in the middle of a cut, for longer than that may take. The disk has done its part meanwhile. */
static void test_a_cut_while_the_process_is_stopped(void **state)
{
    struct world *w = two_ends(20);
    struct node *x = &w->nodes[0];

    (void)state;
    x->c->patience_ms = SHORT_MS;
    x->alone = false;
    RUN_UNTIL(w, x->c->alone != NULL);
    (void)usleep(2 * SHORT_MS * 1000);
    RUN_UNTIL(w, x->applied == 21 || x->failed > 0);
    assert_int_equal(x->failed, 0);
    assert_int_equal(x->sum, w->nodes[1].sum);
    world_close(w);
}

/* What is still on its way to the disk is not cut off: coming again it would be taken for written when the first one is. */
static void test_an_end_is_cut_when_it_is_written(void **state)
{
    struct world *w = two_ends_of(20, true);
    struct node *x = &w->nodes[0];
    raft_term of_its_own = last_term(x);
    struct hf_error err = {0};

    (void)state;
    x->alone = false;
    RUN_UNTIL(w, x->leader == 2);
    apply(w, &w->nodes[1], 2000001); /* and several heartbeats */
    RUN_UNTIL(w, w->nodes[2].applied == 22);
    for (unsigned i = 0; i < 3; i++) {
        uint64_t heard = w->nodes[1].c->raft.leader_state.progress[0].last_send;
        RUN_UNTIL(w, w->nodes[1].c->raft.leader_state.progress[0].last_send > heard);
    }
    assert_int_equal(last_term(x), of_its_own);
    assert_int_equal(hf_segments_tidy(x->dir, &err), 0); /* nothing is marked */
    entries_go();
    RUN_UNTIL(w, x->applied == 22 && x->sum == w->nodes[1].sum);
    assert_int_equal(x->failed, 0);
    node_again(w, 0, NEVER_MS);
    RUN_UNTIL(w, x->applied == 22 && x->sum == w->nodes[1].sum);
    world_close(w);
}

/* What is left of the segment is longer than a file may be; the entry that follows would have room in a new one. */
static void test_a_cut_that_the_disk_refuses(void **state)
{
    enum { ENTRIES = 150 };
    struct world *w = two_ends(ENTRIES);
    struct node *x = &w->nodes[0];

    (void)state;
    limit_files(4096);
    x->c->patience_ms = SHORT_MS;
    x->alone = false;
    RUN_UNTIL(w, x->failed > 0);
    limit_files(RLIM_INFINITY);
    assert_non_null(strstr(x->why, "cut"));
    assert_non_null(strstr(x->why, x->dir));
    assert_true(w->nodes[1].c->raft.leader_state.progress[0].match_index < w->nodes[1].c->raft.commit_index);
    apply(w, &w->nodes[1], 3000000);
    RUN_UNTIL(w, w->nodes[2].applied == ENTRIES + 2);
    assert_int_equal(x->failed, 1);
    assert_int_equal(x->applied, ENTRIES);
    node_again(w, 0, NEVER_MS);
    RUN_UNTIL(w, x->applied == ENTRIES + 2);
    assert_int_equal(x->sum, w->nodes[1].sum);
    node_again(w, 0, NEVER_MS);
    RUN_UNTIL(w, x->applied == ENTRIES + 2 && x->sum == w->nodes[1].sum);
    world_close(w);
}

/* Whatever is on these threads keeps a disk from what it does on them. */
enum { THREADS = 4 };

static struct {
    uv_work_t work[THREADS];
    uv_sem_t go;
    uint32_t when;
} pool;

static void wait_cb(uv_work_t *work)
{
    (void)work;
    uv_sem_wait(&pool.go);
}

static void hold_threads(struct node *n)
{
    if (n->applied != pool.when)
        return;
    n->at_apply = NULL;
    for (unsigned i = 0; i < THREADS; i++)
        assert_int_equal(uv_queue_work(&n->w->loop, &pool.work[i], wait_cb, NULL), 0);
}

/* Node 0 hears from the next leader what is committed, and takes a snapshot; while that is written it is asked to cut. */
static void test_a_cut_while_a_snapshot_is_written(void **state)
{
    enum { ENTRIES = 20 };
    struct world *w;
    struct node *x;
    raft_index last;

    (void)state;
    world_heartbeat_ms = NEVER_MS / 2; /* what is committed is told with the next entry only */
    w = world_open(3, 3, NEVER_MS);
    world_heartbeat_ms = 40;
    x = &w->nodes[0];
    lead(w, 1);
    for (uint32_t i = 0; i < ENTRIES; i++) {
        apply(w, &w->nodes[1], i);
        RUN_UNTIL(w, w->told == i + 1);
    }
    last = w->nodes[1].c->raft.last_stored;
    RUN_UNTIL(w, x->c->raft.last_stored == last && w->nodes[2].c->raft.last_stored == last);
    assert_true(x->applied < ENTRIES);
    hf_consensus_forget_leader(w->nodes[2].c);
    hf_consensus_hint(x->c);
    RUN_UNTIL(w, x->role == HF_CONSENSUS_LEADER && w->nodes[1].leader == 1);
    leave_alone(w, 0);
    apply(w, x, 1000000);
    RUN_UNTIL(w, x->c->raft.last_stored == last + 1);
    assert_true(x->applied < ENTRIES);
    hf_consensus_forget_leader(w->nodes[2].c);
    hf_consensus_forget_leader(w->nodes[1].c);
    hf_consensus_hint(w->nodes[1].c);
    RUN_UNTIL(w, w->nodes[1].role == HF_CONSENSUS_LEADER && w->nodes[2].leader == 2);
    raft_set_snapshot_threshold(&x->c->raft, 1);
    assert_int_equal(uv_sem_init(&pool.go, 0), 0);
    pool.when = ENTRIES;
    x->at_apply = hold_threads;
    x->alone = false;
    raft_set_heartbeat_timeout(&w->nodes[1].c->raft, 40);
    RUN_UNTIL(w, x->at_apply == NULL);
    assert_non_null(x->c->raft.snapshot.put.data);
    apply(w, &w->nodes[1], 2000000);
    RUN_UNTIL(w, last_term(x) == w->nodes[1].term);
    assert_non_null(x->c->raft.snapshot.put.data);
    for (unsigned i = 0; i < THREADS; i++)
        uv_sem_post(&pool.go);
    RUN_UNTIL(w, x->applied == ENTRIES + 1);
    assert_int_equal(x->sum, w->nodes[1].sum);
    assert_int_equal(x->failed, 0);
    node_again(w, 0, NEVER_MS);
    assert_int_equal(last_term(x), w->nodes[1].term); /* nobody has told it anything yet */
    apply(w, &w->nodes[1], 2000001);
    RUN_UNTIL(w, x->applied == ENTRIES + 2 && x->sum == w->nodes[1].sum);
    world_close(w);
    uv_sem_destroy(&pool.go);
}

/* -- a snapshot in the log's place ---------------------------------------------------------------------- */

static int (*put)(struct raft_io *, unsigned, struct raft_io_snapshot_put *, const struct raft_snapshot *,
                  raft_io_snapshot_put_cb);
static raft_io_snapshot_put_cb put_theirs;

static void put_refused_cb(struct raft_io_snapshot_put *req, int status)
{
    limit_files(RLIM_INFINITY);
    assert_int_not_equal(status, 0);
    put_theirs(req, status);
}

static int put_refused(struct raft_io *io, unsigned trailing, struct raft_io_snapshot_put *req,
                       const struct raft_snapshot *snapshot, raft_io_snapshot_put_cb cb)
{
    limit_files(64); /* the configuration is longer, a term and a vote are not */
    hf_consensus_of_io(io)->io_snapshot_put = put;
    put_theirs = cb;
    return put(io, trailing, req, snapshot, put_refused_cb);
}

static struct world *late_joiner(unsigned entries)
{
    struct world *w = world_open(4, 3, NEVER_MS);

    w->nodes[3].alone = true; /* a member of nothing yet */
    lead(w, 0);
    for (uint32_t i = 0; i < entries; i++) {
        apply(w, &w->nodes[0], i);
        if (i % 50 == 49)
            RUN_UNTIL(w, w->told == i + 1);
    }
    assert_int_equal(hf_consensus_add(w->nodes[0].c, 4, w->nodes[3].address, told_cb, w), 0);
    RUN_UNTIL(w, w->told == entries + 1 && all_applied(w, entries) && w->nodes[1].servers == 4 && w->nodes[2].servers == 4);
    assert_int_equal(w->told_ok, entries + 1);
    return w;
}

static void test_a_snapshot_that_the_disk_refuses(void **state)
{
    enum { ENTRIES = 600 };
    struct world *w = late_joiner(ENTRIES);
    struct node *x = &w->nodes[3];

    (void)state;
    put = x->c->io_snapshot_put;
    x->c->io_snapshot_put = put_refused;
    x->alone = false;
    RUN_UNTIL(w, x->failed > 0);
    assert_non_null(strstr(x->why, "snapshot"));
    apply(w, &w->nodes[0], ENTRIES);
    RUN_UNTIL(w, w->told == ENTRIES + 2);
    assert_int_equal(x->restored, 0);
    node_again(w, 3, NEVER_MS);
    RUN_UNTIL(w, x->applied == ENTRIES + 1);
    assert_int_equal(x->sum, w->nodes[0].sum);
    node_again(w, 3, NEVER_MS);
    RUN_UNTIL(w, x->applied == ENTRIES + 1 && x->sum == w->nodes[0].sum);
    world_close(w);
}

/* An open segment that could not be closed: its entries would be read behind the snapshot. */
static void test_a_snapshot_beside_what_is_left(void **state)
{
    enum { ENTRIES = 600 };
    struct world *w = late_joiner(ENTRIES);
    struct node *x = &w->nodes[3];
    struct hf_error err = {0};
    char path[256];

    (void)state;
    (void)snprintf(path, sizeof path, "%s/open-4711", x->dir);
    assert_int_equal(hf_file_write(path, "\1\0\0\0\0\0\0\0", 8, 0600, &err), 0);
    x->c->patience_ms = SHORT_MS;
    x->alone = false;
    RUN_UNTIL(w, x->failed > 0);
    assert_int_equal(x->restored, 0);
    node_again(w, 3, NEVER_MS); /* the snapshot is there: that segment is not read behind it */
    assert_int_not_equal(access(path, F_OK), 0);
    apply(w, &w->nodes[0], ENTRIES);
    RUN_UNTIL(w, x->applied == ENTRIES + 1 && x->sum == w->nodes[0].sum);
    world_close(w);
}

/* -- files ------------------------------------------------------------------------------------------------ */

static void make(const char *dir, const char *name, const char *bytes, size_t len)
{
    struct hf_error err = {0};
    char path[512];

    (void)snprintf(path, sizeof path, "%s/%s", dir, name);
    assert_int_equal(hf_file_write(path, bytes, len, 0600, &err), 0);
}

static bool is_there(const char *dir, const char *name)
{
    char path[512];

    (void)snprintf(path, sizeof path, "%s/%s", dir, name);
    return access(path, F_OK) == 0;
}

#define ZEROS "\0\0\0\0\0\0\0\0\0", 9
#define BEGUN "\1\0\0\0\0\0\0\0\0", 9

static void mark(const char *dir, uint64_t from, uint64_t term, uint64_t index)
{
    struct hf_error err = {0};

    assert_int_equal(hf_segments_mark(dir, &(struct hf_segments_mark){from, term, index, 0}, &err), 0);
}

static void test_what_a_directory_holds(void **state)
{
    char dir[] = "/tmp/hf-segments-XXXXXX";
    struct hf_error err = {0};

    (void)state;
    assert_non_null(mkdtemp(dir));
    assert_int_equal(hf_segments_done(dir, 0, &err), 0);
    make(dir, "0000000000000001-0000000000000010", BEGUN);
    make(dir, "0000000000000011-0000000000000011", BEGUN);
    make(dir, "metadata1", BEGUN);
    make(dir, "tmp-0000000000000001-0000000000000099", BEGUN);
    make(dir, "snapshot-2-9-12345", BEGUN);
    make(dir, "snapshot-2-9-12345.meta", BEGUN);
    make(dir, "open-7", ZEROS);
    make(dir, "open-8", "", 0);
    mark(dir, 12, 0, 0);
    assert_int_equal(hf_segments_done(dir, 11, &err), 1);
    assert_int_equal(hf_segments_done(dir, 0, &err), 1);
    assert_true(is_there(dir, "mark"));
    assert_int_equal(hf_segments_done(dir, 12, &err), 0);
    assert_false(is_there(dir, "mark"));
    make(dir, "open-8", BEGUN);
    assert_int_equal(hf_segments_done(dir, 12, &err), 1);
    assert_int_equal(hf_dir_remove(dir, &err), 0);
    assert_true(hf_segments_done(dir, 12, &err) < 0);
    assert_non_null(strstr(err.text, dir));
}

static const struct {
    char is;
    const char *name;
} segments[] = {
    {'a', "0000000000000001-0000000000000007"}, /* what a cut at 8 leaves of A */
    {'A', "0000000000000001-0000000000000010"},
    {'B', "0000000000000011-0000000000000020"},
    {'C', "0000000000000021-0000000000000025"},
    {'h', "0000000000000008-0000000000000008"}, /* appended after it */
    {'o', "open-7"},                            /* begun */
};

static void there_are(const char *dir, const char *which)
{
    for (size_t i = 0; i < sizeof segments / sizeof segments[0]; i++) {
        char path[512];
        (void)snprintf(path, sizeof path, "%s/%s", dir, segments[i].name);
        (void)unlink(path);
        if (strchr(which, segments[i].is) != NULL)
            make(dir, segments[i].name, BEGUN);
    }
}

/* What a start makes of the segments of `before`, a character each: `after`. */
static void tidied(const char *dir, const char *before, const char *after)
{
    struct hf_error err = {0};
    bool was_marked = is_there(dir, "mark");

    there_are(dir, before);
    make(dir, "open-8", ZEROS);
    assert_int_equal(hf_segments_tidy(dir, &err), 0);
    for (size_t i = 0; i < sizeof segments / sizeof segments[0]; i++)
        if (is_there(dir, segments[i].name) != (strchr(after, segments[i].is) != NULL))
            fail_msg("%s%s: %s is%s there", before, was_marked ? ", marked" : "", segments[i].name,
                     is_there(dir, segments[i].name) ? "" : " not");
    assert_false(is_there(dir, "mark"));
    assert_true(is_there(dir, "open-8"));
}

static void cut_tidied(const char *dir, uint64_t from, const char *marked, const char *before, const char *after)
{
    there_are(dir, marked);
    mark(dir, from, 0, 0);
    tidied(dir, before, after);
}

/* A death anywhere in a cut; and what has been lost, which nobody may mistake for that. */
static void test_what_a_cut_has_left_behind(void **state)
{
    static const struct {
        const char *before, *after;
    } cases[] = {{"ABC", "ABC"}, {"aABC", "ABC"}, {"aBC", "a"}, {"aC", "a"},   {"a", "a"}, {"aAC", "A"} /* in another order */,
                 {"aAB", "AB"},  {"AC", "A"},     {"", ""},
                 {"ABCo", "ABCo"} /* it could not be closed, and nothing has been removed */, {"aABCo", "ABCo"},
                 {"aBCo", "a"} /* nor could it here, and it follows nothing any more */, {"ao", "a"}, {"aABo", "AB"}};
    char dir[] = "/tmp/hf-segments-XXXXXX";
    struct hf_error err = {0};

    (void)state;
    assert_non_null(mkdtemp(dir));
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        cut_tidied(dir, 8, "ABCo", cases[i].before, cases[i].after);
        tidied(dir, cases[i].before, cases[i].before); /* without a mark */
    }
    cut_tidied(dir, 8, "AB", "ABC", "ABC"); /* C was the open one, and has been closed */
    cut_tidied(dir, 8, "AB", "aC", "a");
    cut_tidied(dir, 11, "ABC", "ABC", "ABC"); /* where a segment begins */
    cut_tidied(dir, 11, "ABC", "AC", "A");
    cut_tidied(dir, 22, "ABo", "ABo", "ABo"); /* all of it in the open one, which could not be closed */
    cut_tidied(dir, 1, "ABC", "BC", ""); /* all there is */
    tidied(dir, "ahBC", "ahBC");
    make(dir, "open-9", BEGUN);
    there_are(dir, "ABo");
    assert_int_equal(hf_segments_mark(dir, &(struct hf_segments_mark){8, 0, 0, 0}, &err), 1); /* another is still to be closed */
    assert_false(is_there(dir, "mark"));
    assert_int_equal(hf_dir_remove(dir, &err), 0);
}

/* A death anywhere in a snapshot's coming in the log's place. */
static void test_what_a_snapshot_has_left_behind(void **state)
{
    char dir[] = "/tmp/hf-segments-XXXXXX";
    struct hf_error err = {0};

    (void)state;
    assert_non_null(mkdtemp(dir));
    make(dir, "snapshot-2-9-12345", BEGUN);
    make(dir, "snapshot-2-9-12345.meta", BEGUN);
    make(dir, "snapshot-3-15-12345", BEGUN); /* without its other half it is none */
    mark(dir, 0, 3, 15);
    tidied(dir, "ABCo", "ABCo");
    make(dir, "snapshot-3-15-12345.meta", BEGUN);
    mark(dir, 0, 3, 15);
    tidied(dir, "ABC", "");
    mark(dir, 0, 3, 15);
    tidied(dir, "BC", "");
    mark(dir, 0, 3, 15);
    tidied(dir, "o", ""); /* it could not be closed: its entries would be read behind the snapshot */
    tidied(dir, "BCo", "BCo");
    assert_true(is_there(dir, "snapshot-2-9-12345"));
    make(dir, "mark", "from 8", 6);
    assert_true(hf_segments_tidy(dir, &err) < 0);
    assert_non_null(strstr(err.text, dir));
    assert_int_equal(hf_dir_remove(dir, &err), 0);
}

/* Its closed segments, in their order; how many. */
static unsigned closed_segments(const char *dir, unsigned long long first[8], unsigned long long last[8])
{
    unsigned long long a, b;
    struct dirent *e;
    DIR *d = opendir(dir);
    unsigned n = 0;

    assert_non_null(d);
    while ((e = readdir(d)) != NULL) {
        unsigned i = n;
        if (sscanf(e->d_name, "%llu-%llu", &a, &b) != 2)
            continue;
        assert_true(n++ < 8);
        for (; i > 0 && first[i - 1] > a; i--) {
            first[i] = first[i - 1];
            last[i] = last[i - 1];
        }
        first[i] = a;
        last[i] = b;
    }
    closedir(d);
    return n;
}

/* Beside the last of the closed segments what a cut begins with. raft_uv is not to look into it. */
static void half_a_cut(const char *dir)
{
    unsigned long long first[8], last[8];
    unsigned n = closed_segments(dir, first, last);
    char from[512], to[512];
    struct hf_error err = {0};
    char *data;
    size_t len;

    assert_true(n > 0 && last[n - 1] > first[n - 1] + 1);
    mark(dir, last[n - 1], 0, 0);
    (void)snprintf(from, sizeof from, "%s/%016llu-%016llu", dir, first[n - 1], last[n - 1]);
    (void)snprintf(to, sizeof to, "%s/%016llu-%016llu", dir, first[n - 1], last[n - 1] - 1);
    assert_int_equal(hf_file_read(from, 1 << 20, &data, &len, &err), 0);
    assert_int_equal(hf_file_write(to, data, len, 0600, &err), 0);
    free(data);
}

static void test_a_start_after_half_a_cut(void **state)
{
    struct world *w = world_open(1, 1, 200);

    (void)state;
    RUN_UNTIL(w, leader(w) != NULL);
    for (uint32_t i = 0; i < 40; i++)
        apply(w, &w->nodes[0], i);
    RUN_UNTIL(w, w->told_ok == 40);
    node_close(w, 0);
    half_a_cut(w->nodes[0].dir);
    node_again(w, 0, 200);
    RUN_UNTIL(w, w->nodes[0].applied == 40);
    world_close(w);
}

/* Who dies between the removal of two segments starts again all the same, and gets what is missing from the others. */
static void test_a_start_between_two_removals(void **state)
{
    struct world *w = world_open(3, 3, NEVER_MS);
    struct node *x = &w->nodes[1];
    unsigned long long first[8], last[8];
    char path[512];
    unsigned n;

    (void)state;
    lead(w, 0);
    for (uint32_t i = 0; i < 60; i++) {
        apply(w, &w->nodes[0], i);
        RUN_UNTIL(w, w->told_ok == i + 1 && all_applied(w, i + 1));
        if (i == 19 || i == 39)
            node_again(w, 1, NEVER_MS); /* a segment ends */
    }
    node_close(w, 1);
    n = closed_segments(x->dir, first, last);
    assert_true(n >= 3);
    mark(x->dir, first[n - 2], 0, 0);
    (void)snprintf(path, sizeof path, "%s/%016llu-%016llu", x->dir, first[n - 2], last[n - 2]);
    assert_int_equal(unlink(path), 0);
    node_again(w, 1, NEVER_MS);
    assert_int_equal(x->c->raft.last_stored, first[n - 2] - 1);
    node_again(w, 0, NEVER_MS); /* the old leader knows that it had them */
    node_again(w, 2, NEVER_MS);
    lead(w, 2);
    apply(w, &w->nodes[2], 60);
    RUN_UNTIL(w, all_applied(w, 61) && x->sum == w->nodes[0].sum);
    world_close(w);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_an_end_is_cut),
        cmocka_unit_test(test_an_end_is_cut_when_it_is_written),
        cmocka_unit_test(test_a_cut_while_the_process_is_stopped),
        cmocka_unit_test(test_a_cut_that_the_disk_refuses),
        cmocka_unit_test(test_a_cut_while_a_snapshot_is_written),
        cmocka_unit_test(test_a_snapshot_that_the_disk_refuses),
        cmocka_unit_test(test_a_snapshot_beside_what_is_left),
        cmocka_unit_test(test_what_a_directory_holds),
        cmocka_unit_test(test_what_a_cut_has_left_behind),
        cmocka_unit_test(test_what_a_snapshot_has_left_behind),
        cmocka_unit_test(test_a_start_after_half_a_cut),
        cmocka_unit_test(test_a_start_between_two_removals),
    };

    (void)signal(SIGPIPE, SIG_IGN); /* as in the node */
    (void)signal(SIGXFSZ, SIG_IGN); /* the limit as an error of the write, as a full disk is */
    return cmocka_run_group_tests(tests, NULL, NULL);
}
