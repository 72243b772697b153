/* What happens in the middle: of a callback, of a lost leadership, of a close; and a damaged log. */
#include "world.h"

#include <dirent.h>
#include <signal.h>
#include <sys/resource.h>
#include <sys/stat.h>

#include "base/file.h"
#include "consensus/private.h"

enum { SOON_MS = 200, NEVER_MS = 60000 }; /* election timeouts */

struct barrier {
    struct world *w;
    unsigned told, told_ok;
    uint64_t term, applied; /* when told */
};

static void barrier_cb(void *arg, uint64_t term, bool ok)
{
    struct barrier *b = arg;

    b->told++;
    b->told_ok += ok;
    b->term = term;
    b->applied = b->w->nodes[0].applied;
}

/* -- in the middle of a callback ----------------------------------------------------------------- */

static void forget_in_the_middle(struct node *n)
{
    hf_consensus_forget_leader(n->c);
}

/* libraft applies entries while it handles the leader's message, and then looks at the leader again. */
static void test_forgetting_the_leader_in_the_middle_of_its_entries(void **state)
{
    struct world *w = world_open(3, 3, NEVER_MS);
    uint64_t term;

    (void)state;
    lead(w, 0);
    term = w->nodes[0].term;
    for (unsigned i = 0; i < 3; i++)
        w->nodes[i].at_apply = forget_in_the_middle;
    for (uint32_t i = 0; i < 50; i++)
        apply(w, &w->nodes[0], i);
    RUN_UNTIL(w, w->told == 50 && all_applied(w, 50));
    assert_int_equal(w->told_ok, 50);
    assert_int_equal(w->nodes[1].sum, w->nodes[0].sum);
    /* The next heartbeat tells who leads; nobody has stood for election. */
    RUN_UNTIL(w, w->nodes[1].leader == 1 && w->nodes[2].leader == 1);
    assert_int_equal(w->nodes[0].role, HF_CONSENSUS_LEADER);
    for (unsigned i = 0; i < 3; i++)
        assert_int_equal(w->nodes[i].term, term);
    world_close(w);
}

static void hint_in_the_middle(struct node *n)
{
    if (n->applied == 1)
        hf_consensus_hint(n->c);
}

/* Standing for election frees what a follower has; not while it is applying. */
static void test_a_hint_in_the_middle_of_an_entry(void **state)
{
    struct world *w = world_open(3, 3, NEVER_MS);

    (void)state;
    lead(w, 0);
    w->nodes[1].at_apply = hint_in_the_middle;
    for (uint32_t i = 0; i < 20; i++)
        apply(w, &w->nodes[0], i);
    RUN_UNTIL(w, w->nodes[1].candidacies > 0 && w->told == 20 && all_applied(w, 20));
    assert_int_equal(w->nodes[1].sum, w->nodes[0].sum);
    world_close(w);
}

/* The cluster state asks for the next change when it applies the one before. */
static void change_in_the_middle(struct node *n)
{
    if (n->applied == 1)
        assert_int_equal(hf_consensus_add(n->c, 4, n->w->nodes[3].address, told_cb, n->w), 0);
    if (n->applied == 3)
        assert_int_equal(hf_consensus_assign(n->c, 4, true, told_cb, n->w), 0);
    if (n->applied == 5)
        assert_int_equal(hf_consensus_remove(n->c, 3, told_cb, n->w), 0);
}

/* Node 0 leads nodes 1 and 2; node 3 is a member of nothing, yet. */
static struct world *three_and_another(void)
{
    struct world *w = world_open(4, 3, NEVER_MS);

    w->nodes[3].alone = true;
    lead(w, 0);
    w->nodes[3].alone = false;
    return w;
}

/* libraft walks its list of servers while it applies, and a change frees that list. */
static void test_changes_in_the_middle_of_entries(void **state)
{
    struct world *w = three_and_another();
    struct node *l = &w->nodes[0];

    (void)state;
    l->at_apply = change_in_the_middle;
    for (unsigned i = 0; i < 3; i++) {
        apply(w, l, 2 * i);
        apply(w, l, 2 * i + 1);
        RUN_UNTIL(w, w->told == 3 * (i + 1) && l->applied == 2 * (i + 1));
    }
    assert_int_equal(w->told_ok, 9);
    assert_int_equal(l->servers, 3);
    assert_int_equal(l->voters, 3);
    RUN_UNTIL(w, w->nodes[3].applied == 6 && w->nodes[3].sum == l->sum);
    world_close(w);
}

/* Who is to be a voter is gone just then: the next change need not wait for long. */
static void test_whoever_is_to_vote_is_gone(void **state)
{
    struct world *w = three_and_another();
    struct node *l = &w->nodes[0];

    (void)state;
    assert_int_equal(hf_consensus_add(l->c, 4, w->nodes[3].address, told_cb, w), 0);
    RUN_UNTIL(w, w->told == 1 && l->servers == 4);
    apply(w, l, 1);
    RUN_UNTIL(w, w->told == 2 && w->nodes[3].applied == 1);
    leave_alone(w, 3);
    apply(w, l, 2);
    assert_int_equal(hf_consensus_assign(l->c, 4, true, told_cb, w), 0);
    RUN_UNTIL(w, w->told == 4);
    assert_int_equal(w->told_ok, 3);
    assert_int_equal(hf_consensus_remove(l->c, 4, told_cb, w), 0);
    RUN_UNTIL(w, w->told == 5 && l->servers == 3);
    assert_int_equal(w->told_ok, 4);
    world_close(w);
}

/* -- lost leadership -------------------------------------------------------------------------------- */

static void test_everything_under_way_is_told_once(void **state)
{
    struct world *w = world_open(4, 3, SOON_MS);
    struct barrier b = {.w = w};
    struct node *l = &w->nodes[0];
    uint64_t term;

    (void)state;
    w->nodes[3].alone = true; /* a member of nothing */
    lead(w, 0);
    term = l->term;
    leave_alone(w, 0);
    apply(w, l, 1);
    assert_int_equal(hf_consensus_barrier(l->c, barrier_cb, &b), 0);
    assert_int_equal(hf_consensus_add(l->c, 4, w->nodes[3].address, told_cb, w), 0);
    assert_int_equal(hf_consensus_remove(l->c, 3, told_cb, w), HF_EBUSY); /* one change at a time */
    apply(w, l, 2);
    RUN_UNTIL(w, w->told == 3 && b.told == 1);
    assert_int_not_equal(l->role, HF_CONSENSUS_LEADER);
    assert_int_equal(w->told_ok, 0);
    assert_int_equal(b.told_ok, 0);
    assert_int_equal(b.term, term); /* what was asked for belongs to the term in which it was asked */
    RUN_UNTIL(w, leader(w) != NULL);
    apply(w, leader(w), 3);
    RUN_UNTIL(w, w->told == 4 && w->nodes[1].applied == 1 && w->nodes[2].applied == 1);
    assert_int_equal(w->told_ok, 1);
    assert_int_equal(l->applied, 0);
    /* Back among the others it takes their log for its own. */
    l->alone = false;
    RUN_UNTIL(w, l->applied == 1 && l->sum == w->nodes[1].sum && l->servers == 3);
    assert_int_equal(w->told, 4);
    assert_int_equal(b.told, 1);
    world_close(w);
}

static void test_only_a_leader_takes_requests(void **state)
{
    struct world *w = world_open(3, 3, NEVER_MS);
    struct hf_consensus *c = w->nodes[1].c;
    struct barrier b = {.w = w};
    uint8_t byte = 1;

    (void)state;
    lead(w, 0);
    assert_int_equal(hf_consensus_apply(c, &byte, 1, told_cb, w), HF_EREFUSED);
    assert_int_equal(hf_consensus_barrier(c, barrier_cb, &b), HF_EREFUSED);
    assert_int_equal(hf_consensus_transfer(c, 3, told_cb, w), HF_EREFUSED);
    assert_int_equal(hf_consensus_add(c, 4, "n-3/127.0.0.1:7003", told_cb, w), HF_EREFUSED);
    assert_int_equal(hf_consensus_assign(c, 3, false, told_cb, w), HF_EREFUSED);
    assert_int_equal(hf_consensus_remove(c, 3, told_cb, w), HF_EREFUSED);
    world_close(w);
    assert_int_equal(b.told, 0);
}

static void test_a_barrier_comes_after_what_was_before_it(void **state)
{
    struct world *w = world_open(3, 3, NEVER_MS);
    struct barrier b = {.w = w};

    (void)state;
    lead(w, 0);
    for (uint32_t i = 0; i < 30; i++)
        apply(w, &w->nodes[0], i);
    assert_int_equal(hf_consensus_barrier(w->nodes[0].c, barrier_cb, &b), 0);
    RUN_UNTIL(w, b.told == 1);
    assert_int_equal(b.told_ok, 1);
    assert_int_equal(b.term, w->nodes[0].term);
    assert_int_equal(b.applied, 30);
    world_close(w);
}

/* A term that cannot be written ends this Raft; but messages still come. An answer to one with entries cannot be sent
 * any more, and whoever sent them goes on. */
static void test_a_term_that_cannot_be_written(void **state)
{
    struct world *w = world_open(3, 3, NEVER_MS);
    struct rlimit old, none;
    struct node *x = &w->nodes[2];

    (void)state;
    lead(w, 0);
    assert_int_equal(getrlimit(RLIMIT_FSIZE, &old), 0);
    none = (struct rlimit){0, old.rlim_max};
    assert_int_equal(setrlimit(RLIMIT_FSIZE, &none), 0);
    hf_consensus_forget_leader(w->nodes[1].c);
    hf_consensus_forget_leader(x->c);
    hf_consensus_hint(x->c);
    RUN_UNTIL(w, x->failed > 0);
    assert_int_equal(setrlimit(RLIMIT_FSIZE, &old), 0);
    assert_non_null(strstr(x->why, "term"));
    for (uint32_t i = 0; i < 20; i++) {
        apply(w, &w->nodes[0], i);
        RUN_UNTIL(w, w->told == i + 1);
    }
    assert_int_equal(w->told_ok, 20);
    assert_int_equal(x->failed, 1);
    world_close(w);
}

static int (*append)(struct raft_io *, struct raft_io_append *, const struct raft_entry *, unsigned, raft_io_append_cb);

static int takes_and_fails(struct raft_io *io, struct raft_io_append *req, const struct raft_entry *entries, unsigned n,
                           raft_io_append_cb cb)
{
    assert_int_equal(append(io, req, entries, n, cb), 0);
    return RAFT_IOERR;
}

static struct hf_consensus *forgetful;

static int forgets(struct raft_io *io, struct raft_io_append *req, const struct raft_entry *entries, unsigned n,
                   raft_io_append_cb cb)
{
    hf_consensus_forget_leader(forgetful); /* from the loop, before the disk is done */
    return append(io, req, entries, n, cb);
}

/* The leader's entries are written when nobody knows any more who it was. */
static void test_forgetting_the_leader_while_its_entries_are_written(void **state)
{
    struct world *w = world_open(3, 3, NEVER_MS);

    (void)state;
    lead(w, 0);
    forgetful = w->nodes[1].c;
    append = forgetful->io_append;
    forgetful->io_append = forgets;
    for (uint32_t i = 0; i < 50; i++)
        apply(w, &w->nodes[0], i);
    RUN_UNTIL(w, w->told == 50 && all_applied(w, 50));
    assert_int_equal(w->told_ok, 50);
    world_close(w);
}

/* A new leader does not know that the last entry before its own is committed, and is the last to have its own on its
 * disk. That the others have it they say once, before; the next heartbeat is later than any test. */
static void test_a_leader_that_writes_last(void **state)
{
    struct world *w;
    struct node *l;
    raft_index last;

    (void)state;
    world_heartbeat_ms = NEVER_MS / 2;
    w = world_open(3, 3, NEVER_MS);
    world_heartbeat_ms = 40;
    l = &w->nodes[0];
    lead(w, 1);
    apply(w, &w->nodes[1], 1);
    RUN_UNTIL(w, w->told == 1 && l->c->raft.last_stored == w->nodes[1].c->raft.last_stored);
    last = l->c->raft.last_stored;
    assert_true(l->c->raft.commit_index < last);
    hf_consensus_forget_leader(w->nodes[1].c);
    hf_consensus_forget_leader(w->nodes[2].c);
    hf_consensus_hint(l->c);
    RUN_UNTIL(w, l->role == HF_CONSENSUS_LEADER);
    entries_wait(l);
    apply(w, l, 2);
    RUN_UNTIL(w, w->nodes[1].c->raft.last_stored == last + 1 && w->nodes[2].c->raft.last_stored == last + 1);
    RUN_UNTIL(w, l->c->early.n == 2 && l->c->early.of[0].last == last + 1 && l->c->early.of[1].last == last + 1);
    assert_true(l->c->raft.commit_index < last);
    entries_go();
    RUN_UNTIL(w, w->told == 2 && l->applied == 2);
    assert_int_equal(w->told_ok, 2);
    world_close(w);
}

static int fails(struct raft_io *io, struct raft_io_append *req, const struct raft_entry *entries, unsigned n,
                 raft_io_append_cb cb)
{
    (void)io, (void)req, (void)entries, (void)n, (void)cb;
    return RAFT_IOERR;
}

/* raft_uv refuses a write, or says so and has it in its queue all the same: on a follower, then on the leader. */
static void test_a_write_that_fails_at_once(void **state)
{
    struct world *w = world_open(4, 4, NEVER_MS);

    (void)state;
    lead(w, 0);
    append = w->nodes[3].c->io_append;
    w->nodes[3].c->io_append = takes_and_fails;
    for (uint32_t i = 0; i < 20; i++) {
        apply(w, &w->nodes[0], i);
        RUN_UNTIL(w, w->told == i + 1);
    }
    RUN_UNTIL(w, w->nodes[3].failed > 0);
    assert_int_equal(w->told_ok, 20);
    w->nodes[0].c->io_append = fails;
    apply(w, &w->nodes[0], 20);
    RUN_UNTIL(w, w->nodes[0].failed > 0);
    node_close(w, 0);
    assert_int_equal(w->told, 20); /* who has failed tells nothing more */
    world_close(w);
}

/* Its leader is gone, but the third believes in it: only when that one forgets it, the hint elects. */
static void test_forgetting_makes_way_for_a_hint(void **state)
{
    struct world *w = world_open(3, 3, NEVER_MS);
    uint64_t term;

    (void)state;
    lead(w, 0);
    term = w->nodes[0].term;
    leave_alone(w, 0);
    hf_consensus_forget_leader(w->nodes[2].c);
    hf_consensus_hint(w->nodes[1].c);
    RUN_UNTIL(w, w->nodes[1].role == HF_CONSENSUS_LEADER && w->nodes[2].leader == 2);
    assert_true(w->nodes[1].term > term);
    world_close(w);
}

/* Pre-votes: who is alone may stand as often as it likes, and disturbs nobody when it is back. */
static void test_who_is_alone_raises_no_term(void **state)
{
    struct world *w = world_open(3, 3, NEVER_MS);
    struct node *x = &w->nodes[2];
    uint64_t term;

    (void)state;
    lead(w, 0);
    term = w->nodes[0].term;
    leave_alone(w, 2);
    for (unsigned i = 0; i < 5; i++)
        hf_consensus_hint(x->c);
    RUN_UNTIL(w, x->role == HF_CONSENSUS_CANDIDATE);
    assert_int_equal(x->term, term);
    x->alone = false;
    apply(w, &w->nodes[0], 1);
    RUN_UNTIL(w, x->role == HF_CONSENSUS_FOLLOWER && all_applied(w, 1));
    assert_int_equal(w->nodes[0].role, HF_CONSENSUS_LEADER);
    assert_int_equal(w->nodes[0].term, term);
    world_close(w);
}

static void test_a_transfer_to_the_dead_fails_and_keeps_the_leader(void **state)
{
    struct world *w = world_open(3, 3, SOON_MS);
    uint32_t value = 1;

    (void)state;
    lead(w, 0);
    leave_alone(w, 1);
    assert_int_equal(hf_consensus_transfer(w->nodes[0].c, 2, told_cb, w), 0);
    /* Meanwhile nobody else's requests are taken, nor a second transfer. */
    assert_int_not_equal(hf_consensus_transfer(w->nodes[0].c, 3, told_cb, w), 0);
    assert_int_not_equal(
        hf_consensus_apply(w->nodes[0].c, (uint8_t *)&value, sizeof value, told_cb, w), 0);
    RUN_UNTIL(w, w->told == 1);
    assert_int_equal(w->told_ok, 0);
    assert_int_equal(w->nodes[0].role, HF_CONSENSUS_LEADER);
    apply(w, &w->nodes[0], value);
    RUN_UNTIL(w, w->told_ok == 1 && all_applied(w, 1));
    world_close(w);
}

/* The leader cannot commit: of the others one is cut off, and this one's answer does not arrive. */
static void cut_the_leader(struct node *n)
{
    if (n->idle == 1)
        leave_alone(n->w, 0);
}

static void test_the_next_leader_finishes_an_addition(void **state)
{
    struct world *w = world_open(4, 3, NEVER_MS);
    struct node *l = &w->nodes[1];
    uint8_t byte[4] = {1};

    (void)state;
    w->nodes[3].alone = true;
    lead(w, 0);
    leave_alone(w, 2);
    l->at_servers = cut_the_leader;
    assert_int_equal(hf_consensus_add(w->nodes[0].c, 4, w->nodes[3].address, told_cb, w), 0);
    RUN_UNTIL(w, l->idle == 1);
    l->at_servers = NULL;
    w->nodes[2].alone = w->nodes[3].alone = false;
    hf_consensus_forget_leader(w->nodes[2].c);
    hf_consensus_hint(l->c);
    RUN_UNTIL(w, l->role == HF_CONSENSUS_LEADER);
    assert_int_equal(hf_consensus_apply(l->c, byte, sizeof byte, told_cb, w), 0);
    RUN_UNTIL(w, l->applied == 1); /* and with it all before it are committed */
    assert_int_equal(l->servers, 4);
    assert_int_equal(l->idle, 1);
    assert_int_equal(w->nodes[3].applied, 0);
    assert_int_equal(hf_consensus_add(l->c, 4, w->nodes[3].address, told_cb, w), 0);
    RUN_UNTIL(w, w->told_ok == 2 && l->idle == 0 && w->nodes[3].applied == 1);
    assert_int_equal(l->voters, 3);
    world_close(w);
}

/* -- in the middle of a close ------------------------------------------------------------------------- */

/* What is left is found by uv_loop_close() in world_close(), and by the address sanitizer. */
static void test_close_with_requests_under_way(void **state)
{
    struct world *w = world_open(4, 3, NEVER_MS);
    struct barrier b = {.w = w};
    struct node *l = &w->nodes[0];

    (void)state;
    w->nodes[3].alone = true;
    lead(w, 0);
    leave_alone(w, 1);
    leave_alone(w, 2);
    for (uint32_t i = 0; i < 10; i++)
        apply(w, l, i);
    assert_int_equal(hf_consensus_barrier(l->c, barrier_cb, &b), 0);
    assert_int_equal(hf_consensus_add(l->c, 4, w->nodes[3].address, told_cb, w), 0);
    assert_int_equal(hf_consensus_transfer(l->c, 2, told_cb, w), 0);
    hf_consensus_forget_leader(w->nodes[1].c);
    hf_consensus_hint(w->nodes[1].c);
    RUN_UNTIL(w, w->n_pending > 0); /* a dial that will be answered after the close */
    world_close(w);
    assert_int_equal(b.told, 0); /* who closes is not told */
}

/* -- a full disk ----------------------------------------------------------------------------------- */

/* Followers as well, and with more than one write under way: nobody goes on as if nothing had happened. */
static void test_a_full_disk_is_told_once(void **state)
{
    struct world *w = world_open(3, 3, NEVER_MS);
    struct rlimit old, small;
    uint32_t value = 0;

    (void)state;
    lead(w, 0);
    assert_int_equal(getrlimit(RLIMIT_FSIZE, &old), 0);
    small = (struct rlimit){4096, old.rlim_max};
    assert_int_equal(setrlimit(RLIMIT_FSIZE, &small), 0);
    for (unsigned i = 0; i < 400 && w->nodes[0].failed == 0; i++) {
        apply(w, &w->nodes[0], i);
        if (i % 8 == 7)
            (void)uv_run(&w->loop, UV_RUN_NOWAIT);
    }
    RUN_UNTIL(w, w->nodes[0].failed > 0 && w->nodes[1].failed > 0 && w->nodes[2].failed > 0);
    for (unsigned i = 0; i < 3; i++)
        assert_non_null(strstr(w->nodes[i].why, w->nodes[i].dir));
    assert_int_equal(
        hf_consensus_apply(w->nodes[0].c, (uint8_t *)&value, sizeof value, told_cb, w), HF_EREFUSED);
    assert_int_equal(setrlimit(RLIMIT_FSIZE, &old), 0);
    for (unsigned i = 0; i < 3; i++)
        assert_int_equal(w->nodes[i].failed, 1);
    world_close(w);
}

/* -- a damaged log -------------------------------------------------------------------------------------- */

/* The longest file whose name begins so. */
static void find(const char *dir, const char *prefix, char *path, size_t cap, long *size)
{
    DIR *d = opendir(dir);
    const struct dirent *e;

    assert_non_null(d);
    *size = -1;
    while ((e = readdir(d)) != NULL) {
        char candidate[512];
        struct stat st;
        (void)snprintf(candidate, sizeof candidate, "%s/%s", dir, e->d_name);
        if (strncmp(e->d_name, prefix, strlen(prefix)) != 0 || stat(candidate, &st) != 0 ||
            st.st_size <= *size)
            continue;
        *size = st.st_size;
        (void)snprintf(path, cap, "%s", candidate);
    }
    (void)closedir(d);
    assert_true(*size > 0);
}

static void flip(const char *path, long at)
{
    FILE *f = fopen(path, "r+");
    int byte;

    assert_non_null(f);
    assert_int_equal(fseek(f, at, SEEK_SET), 0);
    byte = fgetc(f);
    assert_int_equal(fseek(f, at, SEEK_SET), 0);
    assert_int_equal(fputc(byte ^ 0x10, f), byte ^ 0x10);
    assert_int_equal(fclose(f), 0);
}

/* libraft forgets to free what it had read before a damaged entry (uv_segment.c): the process ends anyway. */
void __lsan_disable(void) __attribute__((weak));
void __lsan_enable(void) __attribute__((weak));

/* Opens and starts; what does not work is said with the directory and what to do. */
static void must_fail(struct world *w)
{
    struct hf_error err = {0};
    int rv = node_open(w, 0, SOON_MS, &err);

    if (__lsan_disable != NULL)
        __lsan_disable();
    if (rv == 0)
        rv = hf_consensus_start(w->nodes[0].c, &err);
    if (__lsan_enable != NULL)
        __lsan_enable();
    assert_int_equal(rv, HF_ECORRUPT);
    assert_non_null(strstr(err.text, w->nodes[0].dir));
    assert_non_null(strstr(err.text, "hint: "));
    assert_int_equal(w->nodes[0].failed, 0); /* it is the caller who is told */
}

static struct world *lone_log(void)
{
    struct world *w = world_open(1, 1, SOON_MS);

    RUN_UNTIL(w, leader(w) != NULL);
    for (uint32_t i = 0; i < 40; i++)
        apply(w, &w->nodes[0], i);
    RUN_UNTIL(w, w->told_ok == 40);
    node_close(w, 0);
    return w;
}

static void test_a_damaged_segment_is_told(void **state)
{
    struct world *w = lone_log();
    char path[512];
    long size;

    (void)state;
    find(w->nodes[0].dir, "0000", path, sizeof path, &size);
    flip(path, size / 2);
    must_fail(w);
    world_close(w);
}

static void test_damaged_metadata_is_told(void **state)
{
    static const char *const files[] = {"metadata1", "metadata2"};
    struct world *w = lone_log();
    char path[512];
    long size;

    (void)state;
    for (unsigned i = 0; i < 2; i++) {
        find(w->nodes[0].dir, files[i], path, sizeof path, &size);
        flip(path, 0); /* the format's version */
    }
    must_fail(w);
    world_close(w);
}

/* Who closes in order leaves segments that end where their entries end. */
static void test_a_segment_that_is_missing_is_told(void **state)
{
    struct world *w = lone_log();
    char path[512];
    long size;
    struct hf_error err = {0};

    (void)state;
    assert_int_equal(node_open(w, 0, SOON_MS, &err), 0);
    assert_int_equal(hf_consensus_start(w->nodes[0].c, &err), 0);
    RUN_UNTIL(w, leader(w) != NULL);
    apply(w, &w->nodes[0], 1);
    RUN_UNTIL(w, w->told_ok == 41);
    node_close(w, 0);
    find(w->nodes[0].dir, "0000", path, sizeof path, &size); /* the first is the longest */
    assert_int_equal(remove(path), 0);
    must_fail(w);
    world_close(w);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_forgetting_the_leader_in_the_middle_of_its_entries),
        cmocka_unit_test(test_a_hint_in_the_middle_of_an_entry),
        cmocka_unit_test(test_changes_in_the_middle_of_entries),
        cmocka_unit_test(test_whoever_is_to_vote_is_gone),
        cmocka_unit_test(test_everything_under_way_is_told_once),
        cmocka_unit_test(test_only_a_leader_takes_requests),
        cmocka_unit_test(test_a_barrier_comes_after_what_was_before_it),
        cmocka_unit_test(test_forgetting_makes_way_for_a_hint),
        cmocka_unit_test(test_who_is_alone_raises_no_term),
        cmocka_unit_test(test_a_transfer_to_the_dead_fails_and_keeps_the_leader),
        cmocka_unit_test(test_the_next_leader_finishes_an_addition),
        cmocka_unit_test(test_close_with_requests_under_way),
        cmocka_unit_test(test_a_term_that_cannot_be_written),
        cmocka_unit_test(test_forgetting_the_leader_while_its_entries_are_written),
        cmocka_unit_test(test_a_leader_that_writes_last),
        cmocka_unit_test(test_a_write_that_fails_at_once),
        cmocka_unit_test(test_a_full_disk_is_told_once),
        cmocka_unit_test(test_a_damaged_segment_is_told),
        cmocka_unit_test(test_damaged_metadata_is_told),
        cmocka_unit_test(test_a_segment_that_is_missing_is_told),
    };

    (void)signal(SIGPIPE, SIG_IGN); /* as in the node */
    (void)signal(SIGXFSZ, SIG_IGN); /* the limit as an error of the write, as a full disk is */
    return cmocka_run_group_tests(tests, NULL, NULL);
}
