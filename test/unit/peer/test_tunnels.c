/* Bytes through tunnels: complete, in order, as fast as the slower end, and up to the end. */
#include "pair.h"

#include <errno.h>
#include <malloc.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>

enum { MUCH = 4 * 1024 * 1024, CHUNK_MAX = 100 * 1000 };

/* One direction: a writer at one end, a reader at the other. */
struct flow {
    int from, to;
    uint8_t seed;
    uint64_t written, heard, total;
    uint8_t chunk[CHUNK_MAX];
    size_t at, len;
};

static void flow_write(struct flow *f)
{
    ssize_t n;

    if (f->at == f->len) {
        f->at = 0;
        f->len = 1 + (size_t)rand() % CHUNK_MAX;
        if (f->len > f->total - f->written)
            f->len = (size_t)(f->total - f->written);
        pattern(f->chunk, f->len, f->written, f->seed);
    }
    n = send(f->from, f->chunk + f->at, f->len - f->at, MSG_NOSIGNAL);
    assert_true(n > 0 || errno == EAGAIN);
    if (n > 0) {
        f->at += (size_t)n;
        f->written += (uint64_t)n;
    }
}

static void flow_read(struct flow *f)
{
    static uint8_t got[CHUNK_MAX], want[CHUNK_MAX];
    ssize_t n = recv(f->to, got, 1 + (size_t)rand() % CHUNK_MAX, 0);

    if (n < 0 && errno == EAGAIN)
        return;
    assert_true(n > 0);
    pattern(want, (size_t)n, f->heard, f->seed);
    assert_memory_equal(got, want, n);
    f->heard += (uint64_t)n;
}

static void flows_run(struct pair *p, struct flow *x, struct flow *y)
{
    uint64_t until = uv_hrtime() + PATIENCE_MS * 1000000ull;

    while ((x->heard < x->total || y->heard < y->total) && uv_hrtime() < until) {
        struct flow *const both[] = {x, y};
        struct pollfd fds[4];
        for (int i = 0; i < 2; i++) {
            fds[2 * i] = (struct pollfd){
                both[i]->written < both[i]->total ? both[i]->from : -1, POLLOUT, 0};
            fds[2 * i + 1] = (struct pollfd){both[i]->heard < both[i]->total ? both[i]->to : -1, POLLIN, 0};
        }
        (void)poll(fds, 4, 10);
        for (int i = 0; i < 2; i++) {
            if (fds[2 * i].revents != 0)
                flow_write(both[i]);
            if (fds[2 * i + 1].revents != 0)
                flow_read(both[i]);
        }
        (void)uv_run(&p->loop, UV_RUN_NOWAIT);
    }
    assert_int_equal(x->heard, x->total);
    assert_int_equal(y->heard, y->total);
}

static struct flow *flow_new(int from, int to, uint8_t seed, uint64_t total)
{
    struct flow *f = calloc(1, sizeof *f);

    assert_non_null(f);
    f->from = from;
    f->to = to;
    f->seed = seed;
    f->total = total;
    return f;
}

static void both_ways(bool local, enum hf_purpose purpose)
{
    struct pair *p = pair_open(local);
    struct dialed d;
    struct flow *there, *back;
    int near, far;

    tunnel_open(p, purpose, &d, &near, &far);
    assert_int_equal(p->b.purpose, purpose);
    assert_int_equal(p->b.payload_len, 5);
    assert_memory_equal(p->b.payload, "hello", 5);
    assert_string_equal(p->b.from.name, "a");
    assert_int_equal(p->b.from.id, p->a.self.id);
    there = flow_new(near, far, 3, MUCH);
    back = flow_new(far, near, 5, MUCH + 12345);
    flows_run(p, there, back);
    hear_nothing(p, near);
    hear_nothing(p, far);
    assert_int_equal(d.closed, 0);
    free(there);
    free(back);
    close(near);
    hear_end(p, far);
    WAIT(p, d.closed == 1);
    close(far);
    pair_close(p);
}

static void test_bytes_over_tls(void **state)
{
    (void)state;
    both_ways(false, HF_PURPOSE_SQL);
}

static void test_bytes_in_the_local_runtime(void **state)
{
    (void)state;
    both_ways(true, HF_PURPOSE_SQL);
}

/* What is no replication protocol passes the WAL tunnel's watchers unchanged. */
static void test_bytes_past_the_watchers(void **state)
{
    (void)state;
    both_ways(false, HF_PURPOSE_WAL);
}

static void test_many_tunnels_at_once(void **state)
{
    enum { TUNNELS = 20 };
    struct pair *p = pair_open(false);
    struct dialed d[TUNNELS];
    int near[TUNNELS], far[TUNNELS];

    (void)state;
    for (int i = 0; i < TUNNELS; i++)
        tunnel_open(p, HF_PURPOSE_SQL, &d[i], &near[i], &far[i]);
    for (int i = 0; i < TUNNELS; i++)
        say(near[i], &i, sizeof i);
    for (int i = 0; i < TUNNELS; i += 2)
        close(near[i]);
    for (int i = 0; i < TUNNELS; i++) {
        hear(p, far[i], &i, sizeof i);
        if (i % 2 == 0)
            hear_end(p, far[i]);
    }
    for (int i = 1; i < TUNNELS; i += 2) {
        say(far[i], &i, sizeof i);
        hear(p, near[i], &i, sizeof i);
        close(near[i]);
    }
    for (int i = 0; i < TUNNELS; i++)
        close(far[i]);
    pair_close(p);
}

/* -- ends -------------------------------------------------------------------------------------------- */

/* Everything that was written before the end arrives, then the end. */
static void last_words(bool local, bool from_near)
{
    static uint8_t words[150 * 1000], got[sizeof words];
    struct pair *p = pair_open(local);
    struct dialed d;
    size_t have = 0;
    uint64_t until = uv_hrtime() + PATIENCE_MS * 1000000ull;
    int near, far, from, to;

    tunnel_open(p, HF_PURPOSE_SQL, &d, &near, &far);
    from = from_near ? near : far;
    to = from_near ? far : near;
    pattern(words, sizeof words, 0, 9);
    say(from, words, sizeof words);
    close(from);
    while (have < sizeof words && uv_hrtime() < until) {
        ssize_t n = recv(to, got + have, sizeof got - have, 0);
        assert_true(n > 0 || (n < 0 && errno == EAGAIN));
        have += n > 0 ? (size_t)n : 0;
        (void)uv_run(&p->loop, UV_RUN_ONCE);
    }
    assert_memory_equal(got, words, sizeof words);
    hear_end(p, to);
    WAIT(p, d.closed == 1);
    assert_false(d.wal_missing);
    close(to);
    pair_close(p);
}

/* S1: who asks first for WAL from behind the place where its history leaves the leader's gets none, of whatever timeline; the host hears of it.
 * What it asks for later, along the next timelines, may begin anywhere. */
static void test_wal_begins_at_the_fork(void **state)
{
    static const char startup[] = "\0\0\0\x12\0\3\0\0user\0bob\0";
    static const char start[] = "Q\0\0\0\x2bSTART_REPLICATION 0/300000 TIMELINE 12\0";
    static const char next[] = "Q\0\0\0\x2bSTART_REPLICATION 0/600000 TIMELINE 13\0";
    static const struct {
        hf_lsn begin;
        bool passes;
    } cases[] = {{0x300000, true}, {0x2fffff, false}, {0, true}};

    (void)state;
    for (unsigned i = 0; i < sizeof cases / sizeof *cases; i++) {
        struct pair *p = pair_open(false);
        struct dialed d;
        int near, far;
        p->b.begin = cases[i].begin;
        p->b.tag = 7;
        tunnel_open(p, HF_PURPOSE_WAL, &d, &near, &far);
        say(near, startup, sizeof startup);
        hear(p, far, startup, sizeof startup);
        say(near, start, sizeof start - 1);
        if (cases[i].passes) {
            hear(p, far, start, sizeof start - 1);
            say(near, next, sizeof next - 1);
            hear(p, far, next, sizeof next - 1);
        } else {
            hear_end(p, far);
        }
        WAIT(p, p->b.flushed_tag == 7);
        assert_int_equal(p->b.torn, !cases[i].passes);
        close(near);
        close(far);
        pair_close(p);
    }
}

static void test_last_words_of_the_dialer(void **state)
{
    (void)state;
    last_words(false, true);
    last_words(true, true);
}

static void test_last_words_of_the_server(void **state)
{
    (void)state;
    last_words(false, false);
    last_words(true, false);
}

/* Writes until no more is taken; how much that was. */
static size_t fill(struct pair *p, int fd, size_t limit)
{
    static uint8_t chunk[64 * 1024];
    struct pollfd f = {.fd = fd, .events = POLLOUT};
    size_t total = 0;

    while (total < limit) {
        ssize_t n;
        (void)uv_run(&p->loop, UV_RUN_NOWAIT);
        if (poll(&f, 1, QUIET_MS) == 0)
            return total;
        pattern(chunk, sizeof chunk, total, 1);
        n = send(fd, chunk, sizeof chunk, MSG_NOSIGNAL);
        assert_true(n > 0 || errno == EAGAIN);
        total += n > 0 ? (size_t)n : 0;
    }
    return total;
}

static void drain(struct pair *p, int fd, size_t n)
{
    static uint8_t got[64 * 1024], want[64 * 1024];
    size_t have = 0;
    uint64_t until = uv_hrtime() + PATIENCE_MS * 1000000ull;

    while (have < n && uv_hrtime() < until) {
        ssize_t rv = recv(fd, got, sizeof got, 0);
        if (rv < 0 && errno == EAGAIN) {
            (void)uv_run(&p->loop, UV_RUN_ONCE);
            continue;
        }
        assert_true(rv > 0);
        pattern(want, (size_t)rv, have, 1);
        assert_memory_equal(got, want, rv);
        have += (size_t)rv;
    }
    assert_int_equal(have, n);
}

/* As PostgreSQL does when it ends a session: says why, and closes with the client's bytes unread. */
static void test_last_words_to_one_who_writes(void **state)
{
    struct pair *p = pair_open(false);
    struct dialed d;
    int near, far;

    (void)state;
    tunnel_open(p, HF_PURPOSE_SQL, &d, &near, &far);
    (void)fill(p, near, 64 * MUCH);
    say(far, "FATAL: enough", 13);
    close(far);
    hear(p, near, "FATAL: enough", 13);
    hear_end(p, near);
    WAIT(p, d.closed == 1);
    close(near);
    pair_close(p);
}

static void test_the_other_node_ends(void **state)
{
    struct pair *p = pair_open(false);
    struct dialed d[2];
    int near[2], far[2];

    (void)state;
    tunnel_open(p, HF_PURPOSE_SQL, &d[0], &near[0], &far[0]);
    tunnel_open(p, HF_PURPOSE_WAL, &d[1], &near[1], &far[1]);
    node_close(&p->b);
    for (int i = 0; i < 2; i++) {
        hear_end(p, near[i]);
        hear_end(p, far[i]);
        WAIT(p, d[i].closed == 1);
        close(near[i]);
        close(far[i]);
    }
    pair_close(p);
}

/* -- back-pressure ----------------------------------------------------------------------------------- */

static void slow_reader(bool local)
{
    struct pair *p = pair_open(local);
    struct dialed d;
    int near, far;
    size_t before, taken;

    tunnel_open(p, HF_PURPOSE_SQL, &d, &near, &far);
    before = mallinfo2().uordblks;
    taken = fill(p, near, 64 * MUCH);
    assert_true(taken < 16 * MUCH); /* the kernel's buffers are full, and nobody else's grow */
    assert_true(mallinfo2().uordblks < before + 1024 * 1024);
    /* The other direction goes on. */
    say(far, "meanwhile", 9);
    hear(p, near, "meanwhile", 9);
    drain(p, far, taken);
    say(near, "and on", 6);
    hear(p, far, "and on", 6);
    close(near);
    close(far);
    pair_close(p);
}

static void test_a_reader_that_stops(void **state)
{
    (void)state;
    slow_reader(false);
    slow_reader(true);
}

/* -- cuts -------------------------------------------------------------------------------------------- */

static void cut_cb(void *arg)
{
    ++*(unsigned *)arg;
}

/* Of one purpose and one direction; and once it is told, not a byte more is moved. */
static void test_a_cut(void **state)
{
    struct pair *p = pair_open(false);
    struct dialed d[3];
    int near[3], far[3];
    unsigned cuts = 0;

    (void)state;
    for (int i = 0; i < 2; i++)
        tunnel_open(p, HF_PURPOSE_COPY, &d[i], &near[i], &far[i]);
    tunnel_open(p, HF_PURPOSE_SQL, &d[2], &near[2], &far[2]);
    hf_peer_cut(p->a.peer, HF_PURPOSE_COPY, false, cut_cb, &cuts); /* a has accepted none */
    hf_peer_cut(p->b.peer, HF_PURPOSE_COPY, true, cut_cb, &cuts);  /* b has dialed none */
    WAIT(p, cuts == 2);
    say(near[0], "x", 1);
    hear(p, far[0], "x", 1);
    say(far[1], "lost", 4);
    hf_peer_cut(p->b.peer, HF_PURPOSE_COPY, false, cut_cb, &cuts);
    (void)send(near[0], "lost", 4, MSG_NOSIGNAL); /* it may have heard of it already */
    WAIT(p, cuts == 3);
    for (int i = 0; i < 2; i++) {
        assert_true(send(far[i], "late", 4, MSG_NOSIGNAL) < 0);
        assert_int_equal(errno, EPIPE);
        WAIT(p, d[i].closed == 1);
    }
    say(near[2], "still", 5);
    hear(p, far[2], "still", 5);
    for (int i = 0; i < 3; i++) {
        close(near[i]);
        close(far[i]);
    }
    pair_close(p);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_bytes_over_tls),
        cmocka_unit_test(test_bytes_in_the_local_runtime),
        cmocka_unit_test(test_bytes_past_the_watchers),
        cmocka_unit_test(test_many_tunnels_at_once),
        cmocka_unit_test(test_wal_begins_at_the_fork),
        cmocka_unit_test(test_last_words_of_the_dialer),
        cmocka_unit_test(test_last_words_of_the_server),
        cmocka_unit_test(test_last_words_to_one_who_writes),
        cmocka_unit_test(test_the_other_node_ends),
        cmocka_unit_test(test_a_reader_that_stops),
        cmocka_unit_test(test_a_cut),
    };

    return cmocka_run_group_tests(tests, certificates_make, certificates_remove);
}
