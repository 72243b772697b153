/* The pure lower half of the core: lineage, quorums, leases, encodings, formation. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>
#include <cmocka.h>

#include "core/form.h"
#include "core/lag.h"
#include "core/ready.h"

static void add(struct hf_cluster *c, hf_node_id id, const char *name, bool voter)
{
    struct hf_entry e = {.type = HF_ENTRY_ADD, .id = id, .member = {.id = id, .voter = voter}};

    strcpy(e.member.name, name);
    assert_true(hf_cluster_apply(c, &e));
}

static void founded(struct hf_cluster *c, unsigned n)
{
    static const char *const names[] = {"a", "b", "c", "d", "e"};
    struct hf_entry e = {.type = HF_ENTRY_FOUND, .cluster_id = {{1}}};

    hf_cluster_init(c);
    assert_true(hf_cluster_apply(c, &e));
    assert_false(hf_cluster_apply(c, &e));
    for (unsigned i = 0; i < n; i++)
        add(c, i + 1, names[i], true);
}

static void appoint(struct hf_cluster *c, hf_epoch epoch, hf_epoch parent, hf_lsn start, uint32_t tli)
{
    struct hf_entry e = {.type = HF_ENTRY_APPOINT,
                         .branch = {.epoch = epoch, .parent = parent, .start = start, .leader = 1}};

    assert_true(hf_cluster_apply(c, &e));
    if (tli == 0)
        return;
    e.type = HF_ENTRY_OPENED;
    e.branch.timeline = tli;
    e.branch.opened_lsn = start + 1;
    assert_true(hf_cluster_apply(c, &e));
}

/* DESIGN section 9: b promotes in 5 and dies, c promotes in 6 onto the same timeline number, d took a few
 * bytes of c, b leads 7. */
static void test_lineage(void **state)
{
    struct hf_cluster c;

    (void)state;
    founded(&c, 3);
    appoint(&c, 4, 0, 100, 1);
    appoint(&c, 5, 4, 500, 2);
    appoint(&c, 6, 4, 450, 2);
    appoint(&c, 7, 5, 520, 3);
    assert_true(hf_cluster_is_prefix(&c, (struct hf_position){4, 500}, 7));
    assert_int_equal(hf_cluster_shared(&c, (struct hf_position){4, 480}, 7), 500);
    assert_true(hf_cluster_is_prefix(&c, (struct hf_position){5, 520}, 7));
    assert_false(hf_cluster_is_prefix(&c, (struct hf_position){5, 521}, 7));
    assert_false(hf_cluster_is_prefix(&c, (struct hf_position){4, 501}, 7));
    assert_false(hf_cluster_is_prefix(&c, (struct hf_position){6, 460}, 7));
    /* Written into the lineage, and not a byte taken: still the parent's. */
    assert_true(hf_cluster_is_prefix(&c, (struct hf_position){6, 449}, 7));
    assert_false(hf_cluster_can_rewind(&c, (struct hf_position){6, 460}, 7));
    assert_true(hf_cluster_can_rewind(&c, (struct hf_position){4, 600}, 7));
    assert_false(hf_cluster_is_prefix(&c, (struct hf_position){0, 10}, 7));
    assert_false(hf_cluster_is_prefix(&c, (struct hf_position){99, 10}, 7));
    assert_int_equal(hf_cluster_compare(&c, (struct hf_position){6, 449}, (struct hf_position){4, 449}),
                     0);
    assert_int_equal(hf_cluster_compare(&c, (struct hf_position){5, 500}, (struct hf_position){4, 900}),
                     1);
    assert_int_equal(hf_cluster_compare(&c, (struct hf_position){4, 1}, (struct hf_position){0, 900}), -1);
}

/* As many epochs as are remembered come to nothing, one after the other: in none of them a gate is opened. What the last one that was
 * opened holds is still known by its name, or nobody who holds it could be appointed any more. */
static void test_the_newest_opened_is_remembered(void **state)
{
    struct hf_cluster c;
    hf_epoch epoch = 6;

    (void)state;
    founded(&c, 3);
    appoint(&c, 4, 0, 100, 1);
    appoint(&c, 5, 4, 500, 2);
    for (; epoch < 6 + 2 * HF_BRANCHES_MAX; epoch++)
        appoint(&c, epoch, 5, 600, 0);
    assert_int_equal(c.n_branches, HF_BRANCHES_MAX);
    assert_null(hf_cluster_branch(&c, 4));
    appoint(&c, epoch, 5, 600, 3);
    assert_true(hf_cluster_is_prefix(&c, (struct hf_position){5, 600}, epoch));
    appoint(&c, epoch + 1, epoch, 700, 0);
    appoint(&c, epoch + 2, epoch, 700, 0);
    assert_non_null(hf_cluster_branch(&c, epoch));
    for (unsigned i = 1; i < c.n_branches; i++)
        assert_true(c.branches[i - 1].epoch < c.branches[i].epoch);
}

static void test_senseless_entries(void **state)
{
    struct hf_cluster c, before;
    struct hf_entry e = {.type = HF_ENTRY_APPOINT, .branch = {.epoch = 4, .parent = 9, .leader = 1}};

    (void)state;
    founded(&c, 2);
    appoint(&c, 4, 0, 100, 1);
    before = c;
    assert_false(hf_cluster_apply(&c, &e)); /* not newer */
    e.branch.epoch = 5;
    assert_false(hf_cluster_apply(&c, &e)); /* unknown parent */
    e = (struct hf_entry){.type = HF_ENTRY_ADD, .member = {.id = 77, .name = "x"}};
    assert_false(hf_cluster_apply(&c, &e)); /* ids are given in order */
    e = (struct hf_entry){.type = HF_ENTRY_REMOVE, .id = 77};
    assert_false(hf_cluster_apply(&c, &e));
    assert_memory_equal(&c, &before, sizeof c);
}

static void test_quorum_spans_two_voter_sets(void **state)
{
    struct hf_cluster c;
    hf_node_id two[] = {1, 2}, three[] = {1, 2, 4}, doubled[] = {1, 1, 1};
    struct hf_entry e;

    (void)state;
    founded(&c, 3);
    appoint(&c, 4, 0, 100, 1);
    assert_true(hf_quorum_has(&c, two, 2));
    assert_false(hf_quorum_has(&c, doubled, 3));
    add(&c, 4, "d", false);
    e = (struct hf_entry){.type = HF_ENTRY_ROLE, .id = 4, .member = {.voter = true}};
    assert_true(hf_cluster_apply(&c, &e));
    assert_false(hf_quorum_has(&c, two, 2)); /* 2 of 4 */
    assert_true(hf_quorum_has(&c, three, 3));
    e = (struct hf_entry){.type = HF_ENTRY_SETTLED};
    assert_true(hf_cluster_apply(&c, &e));
    assert_false(hf_cluster_apply(&c, &e));
    e = (struct hf_entry){.type = HF_ENTRY_REMOVE, .id = 4};
    assert_true(hf_cluster_apply(&c, &e));
    assert_false(hf_quorum_has(&c, two, 2)); /* the rule of the four may still be in force */
    assert_true(hf_quorum_has(&c, three, 3));
}

static void test_quorum_value(void **state)
{
    uint64_t v[] = {10, 30, 20, 40};

    (void)state;
    assert_int_equal(hf_quorum_value(v, 2, 3), 30);
    assert_int_equal(hf_quorum_value(v, 4, 5), 30);
    assert_true(hf_quorum_value(v, 0, 1) == UINT64_MAX);
    assert_int_equal(hf_quorum_value(v, 0, 3), 0);
}

static void test_lease(void **state)
{
    struct hf_cluster c;
    struct hf_lease l = {0};
    struct hf_promise p = {0};
    uint64_t t = 1000 * HF_MS, T = 640 * HF_MS, seq;

    (void)state;
    founded(&c, 3);
    hf_lease_begin(&l, 4, T);
    seq = hf_lease_ping(&l);
    assert_int_equal(hf_lease_deadline(&l, &c, 1, t), 0);
    hf_lease_ack(&l, 2, seq, t);
    assert_int_equal(hf_lease_deadline(&l, &c, 1, t + 5), t + T - T / HF_LEASE_DRIFT);
    hf_lease_void(&l);
    assert_int_equal(hf_lease_deadline(&l, &c, 1, t + 5), 0);
    hf_lease_ack(&l, 2, seq, t); /* S17: a ping from before */
    assert_int_equal(hf_lease_deadline(&l, &c, 1, t + 5), 0);
    hf_promise_make(&p, 4, 1, t, T);
    hf_promise_make(&p, 4, 1, t, T / 2);
    assert_true(hf_promise_binds(&p, t + T - 1));
    assert_false(hf_promise_binds(&p, t + T));
    hf_promise_let_off(&p, 3);
    assert_true(hf_promise_binds(&p, t));
    hf_promise_let_off(&p, 4);
    assert_false(hf_promise_binds(&p, t));
}

static void test_encodings_refuse_everything_else(void **state)
{
    struct hf_msg m = {.type = HF_MSG_JOIN, .from = 3, .n_order = 2, .order = {2, 3}}, back;
    struct hf_entry e = {.type = HF_ENTRY_ADD, .member = {.id = 1, .name = "a"}}, e2;
    struct hf_cluster c, c2;
    static uint8_t bytes[HF_CLUSTER_BYTES_MAX];
    size_t n;

    (void)state;
    strcpy(m.name, "demo-2");
    n = hf_msg_encode(&m, bytes);
    assert_true(n > 0 && hf_msg_decode(&back, bytes, n));
    assert_memory_equal(&m, &back, sizeof m);
    for (size_t i = 0; i < n; i++)
        assert_false(hf_msg_decode(&back, bytes, i));
    bytes[n] = 0;
    assert_false(hf_msg_decode(&back, bytes, n + 1));
    assert_false(hf_msg_is_later(bytes, n));
    bytes[1] = HF_MSG_LAST + 1;
    assert_true(hf_msg_is_later(bytes, n) && !hf_msg_decode(&back, bytes, n));
    bytes[0]++;
    assert_false(hf_msg_is_later(bytes, n));
    n = hf_entry_encode(&e, bytes, HF_ENTRY_BYTES_MAX);
    assert_true(n > 0 && hf_entry_decode(&e2, bytes, n));
    for (size_t i = 0; i < n; i++)
        assert_false(hf_entry_decode(&e2, bytes, i));
    founded(&c, 3);
    appoint(&c, 4, 0, 100, 1);
    n = hf_cluster_encode(&c, bytes, sizeof bytes);
    assert_true(n > 0 && hf_cluster_decode(&c2, bytes, n));
    assert_memory_equal(&c, &c2, sizeof c);
    for (size_t i = 0; i < n; i++)
        assert_false(hf_cluster_decode(&c2, bytes, i));
}

static void test_founding_needs_everybody(void **state)
{
    static uint8_t memory[1 << 20];
    struct hf_form_config cfg = {.name = "d-0", .expect = 3, .n_seeds = 3, .retry_ns = 1,
                                 .uuid = {{9}}, .cluster_id = {{7}},
                                 .seeds = {"d-0", "d-1", "d-2"}};
    struct hf_msg m = {.type = HF_MSG_PROBED};
    const struct hf_form_action *a;
    struct hf_form *f;

    (void)state;
    assert_true(hf_form_size() <= sizeof memory);
    f = hf_form_init(memory, &cfg, 1);
    hf_form_tick(f, 2);
    strcpy(m.name, "d-1");
    hf_form_message(f, 3, &m);
    hf_form_tick(f, 4);
    while ((a = hf_form_next(f)) != NULL) /* d-2 has not answered */
        assert_true(a->type == HF_FORM_SEND && a->msg.type == HF_MSG_PROBE);
    hf_form_message(f, 5, &m);
    strcpy(m.name, "d-2");
    m.cluster_id.b[0] = 5; /* founded elsewhere: join it */
    hf_form_message(f, 5, &m);
    hf_form_tick(f, 6);
    bool joins = false;
    while ((a = hf_form_next(f)) != NULL) {
        assert_int_not_equal(a->msg.type, HF_MSG_ADOPT);
        joins = joins || a->msg.type == HF_MSG_JOIN;
    }
    assert_true(joins);
}

static bool is_sent(struct hf_form *f, enum hf_msg_type type, const char *to)
{
    const struct hf_form_action *a;
    bool found = false;

    while ((a = hf_form_next(f)) != NULL)
        found = found || (a->type == HF_FORM_SEND && a->msg.type == type && strcmp(a->name, to) == 0);
    return found;
}

/* What the next tick says of `name` for the log; NULL: nothing. */
static const char *told(struct hf_form *f, const char *name, uint64_t now_ns)
{
    const char *text = NULL;

    hf_form_tick(f, now_ns);
    for (const struct hf_form_action *a; (a = hf_form_next(f)) != NULL;)
        if (a->type == HF_FORM_STUCK && strcmp(a->name, name) == 0)
            text = a->text;
    return text;
}

/* Whom an empty node waits for: one that does not answer, or a cluster that does not let it in. */
static void test_forming_tells_whom_it_waits_for(void **state)
{
    static uint8_t memory[1 << 20];
    struct hf_form_config cfg = {.name = "d-1", .ordinal = 1, .expect = 2, .n_seeds = 2, .retry_ns = 1,
                                 .uuid = {{9}}, .seeds = {"d-0", "d-1"}};
    struct hf_msg m = {.type = HF_MSG_PROBED, .name = "d-0", .cluster_id = {{5}}};
    const uint64_t first = 1 + HF_FORM_PATIENCE_NS, second = first + 3 * HF_FORM_PATIENCE_NS;
    struct hf_form *f = hf_form_init(memory, &cfg, 1);

    (void)state;
    assert_null(told(f, "d-0", first - 1));
    assert_non_null(strstr(told(f, "d-0", first), "does not answer"));
    hf_form_message(f, first + 1, &m);
    assert_null(told(f, "d-0", second - 1));
    hf_form_message(f, second - 1, &m);
    assert_non_null(strstr(told(f, "d-0", second), "no leader"));
    f = hf_form_init(memory, &cfg, 1);
    hf_form_witness(f, "d-4"); /* that one is asked for because of its name alone, which may outlive it */
    memset(&m.cluster_id, 0, sizeof m.cluster_id);
    hf_form_message(f, first - 1, &m);
    assert_non_null(strstr(told(f, "d-4", first), "gone for good"));
}

/* A cluster that one node founded has grown, and that one's volume is lost: who came later holds all there is. */
static void test_founding_asks_who_came_later(void **state)
{
    static uint8_t memory[1 << 20];
    struct hf_form_config cfg = {.name = "d-0", .expect = 1, .n_seeds = 1, .retry_ns = 1,
                                 .uuid = {{9}}, .cluster_id = {{7}}, .seeds = {"d-0"}};
    struct hf_msg m = {.type = HF_MSG_PROBED, .name = "d-2"};
    const struct hf_form_action *a;
    struct hf_form *f;

    (void)state;
    cfg.witnesses_unknown = true;
    f = hf_form_init(memory, &cfg, 1);
    hf_form_tick(f, 1); /* nobody is asked, and nothing founded */
    assert_null(hf_form_next(f));
    hf_form_witness(f, "d-0");
    hf_form_witness(f, "d-2");
    hf_form_witness(f, "d-2");
    hf_form_witnesses_known(f);
    for (uint64_t t = 2; t < 10; t++) {
        hf_form_tick(f, t);
        assert_true(is_sent(f, HF_MSG_PROBE, "d-2")); /* and nothing is founded while it is silent */
    }
    m.cluster_id.b[0] = 5;
    hf_form_message(f, 10, &m);
    hf_form_tick(f, 11);
    assert_true(is_sent(f, HF_MSG_JOIN, "d-2"));
    /* It is as empty as this one: founded without it, which joins later. */
    memset(&m.cluster_id, 0, sizeof m.cluster_id);
    hf_form_message(f, 12, &m);
    hf_form_tick(f, 13);
    a = hf_form_next(f);
    assert_true(a != NULL && a->type == HF_FORM_PERSIST);
    hf_form_persisted(f, 14, true);
    a = hf_form_next(f);
    assert_true(a != NULL && a->type == HF_FORM_FOUND && a->n_members == 1);
}

static bool is_persisted(struct hf_form *f)
{
    const struct hf_form_action *a;
    bool found = false;

    while ((a = hf_form_next(f)) != NULL)
        found = found || a->type == HF_FORM_PERSIST;
    return found;
}

/* It has a name only when the ids are being given out already: it is asked as well as if it had had one before. */
static void test_founding_asks_who_has_a_name_late(void **state)
{
    static uint8_t memory[1 << 20];
    struct hf_form_config cfg = {.name = "d-0", .expect = 2, .n_seeds = 2, .retry_ns = 1,
                                 .uuid = {{9}}, .cluster_id = {{7}}, .seeds = {"d-0", "d-1"}};
    const struct hf_msg probed = {.type = HF_MSG_PROBED, .name = "d-1", .uuid = {{8}}};
    const struct hf_msg adopted = {.type = HF_MSG_ADOPTED, .name = "d-1", .uuid = {{8}}, .cluster_id = {{7}}, .id = 2};
    struct hf_msg witness = {.type = HF_MSG_PROBED, .name = "d-3", .uuid = {{6}}, .cluster_id = {{5}}};

    (void)state;
    for (int founded = 0; founded < 2; founded++) {
        struct hf_form *f = hf_form_init(memory, &cfg, 1);
        hf_form_message(f, 1, &probed);
        hf_form_tick(f, 1);
        assert_true(is_sent(f, HF_MSG_ADOPT, "d-1"));
        hf_form_witness(f, "d-3");
        hf_form_message(f, 2, &adopted);
        assert_false(is_persisted(f));
        for (uint64_t t = 2; t < 5; t++) {
            hf_form_tick(f, t);
            assert_true(is_sent(f, HF_MSG_PROBE, "d-3"));
        }
        witness.cluster_id.b[0] = founded ? 5 : 0;
        hf_form_message(f, 5, &witness);
        hf_form_message(f, 5, &adopted); /* twice, and late */
        assert_int_equal(is_persisted(f), !founded);
        hf_form_tick(f, 6);
        assert_int_equal(is_sent(f, HF_MSG_JOIN, "d-3"), founded);
    }
    /* Nobody says again that it is adopted: a round is enough, and that the witness is silent from now on takes nothing back. */
    struct hf_form *f = hf_form_init(memory, &cfg, 1);
    hf_form_message(f, 1, &probed);
    hf_form_tick(f, 1);
    hf_form_witness(f, "d-3");
    hf_form_message(f, 2, &adopted);
    hf_form_tick(f, 2);
    assert_false(is_persisted(f));
    witness.cluster_id.b[0] = 0;
    hf_form_message(f, 3, &witness);
    hf_form_tick(f, 4);
    assert_true(is_persisted(f));
}

/* A founding that could not be written begins with the questions: who answered then may be of a cluster by now. */
static void test_founding_asks_again_after_a_failed_write(void **state)
{
    static uint8_t memory[1 << 20];
    struct hf_form_config cfg = {.name = "d-0", .expect = 1, .n_seeds = 1, .retry_ns = 1,
                                 .uuid = {{9}}, .cluster_id = {{7}}, .seeds = {"d-0"}};
    struct hf_msg m = {.type = HF_MSG_PROBED, .name = "d-2"};
    struct hf_form *f = hf_form_init(memory, &cfg, 1);

    (void)state;
    hf_form_tick(f, 1);
    assert_true(is_persisted(f));
    hf_form_persisted(f, 2, false);
    hf_form_witness(f, "d-2");
    for (uint64_t t = 4; t < 8; t++) {
        hf_form_tick(f, t);
        assert_true(is_sent(f, HF_MSG_PROBE, "d-2"));
    }
    hf_form_message(f, 8, &m); /* empty */
    hf_form_tick(f, 9);
    assert_true(is_persisted(f));
    hf_form_persisted(f, 10, false);
    hf_form_tick(f, 12);
    assert_true(is_sent(f, HF_MSG_PROBE, "d-2"));
    hf_form_message(f, 13, &m);
    hf_form_tick(f, 14);
    assert_true(is_persisted(f));
    hf_form_persisted(f, 15, true);
    assert_int_equal(hf_form_next(f)->type, HF_FORM_FOUND);
}

/* Where JOIN is sent for `addr`, and how often; 0: nowhere. */
static unsigned joins_at(struct hf_form *f, const char *name, const char *addr)
{
    const struct hf_form_action *a;
    unsigned n = 0;

    while ((a = hf_form_next(f)) != NULL)
        if (a->type == HF_FORM_SEND && a->msg.type == HF_MSG_JOIN && strcmp(a->name, name) == 0) {
            assert_string_equal(a->addr, addr);
            n++;
        }
    return n;
}

/* Whoever leads is none of those that the empty node knows: they say who it is. */
static void test_joining_through_whom_nobody_knows(void **state)
{
    static uint8_t memory[1 << 20];
    struct hf_form_config cfg = {.name = "d-1", .ordinal = 1, .expect = 3, .n_seeds = 3, .retry_ns = 1,
                                 .uuid = {{9}}, .seeds = {"d-0", "d-1", "d-2"}};
    struct hf_msg probed = {.type = HF_MSG_PROBED, .name = "d-0", .cluster_id = {{5}}};
    struct hf_msg leads = {.type = HF_MSG_JOINED, .flags = HF_FLAG_REFUSED, .uuid = {{9}}, .cluster_id = {{5}},
                           .epoch = 7, .target = 4, .name = "d-3", .peer = "h3:7000"};
    struct hf_msg older = leads, let_in = {.type = HF_MSG_JOINED, .uuid = {{9}}, .cluster_id = {{5}}, .id = 5};
    struct hf_form *f = hf_form_init(memory, &cfg, 1);
    const struct hf_form_action *a;

    (void)state;
    hf_form_message(f, 1, &probed);
    hf_form_tick(f, 1);
    assert_int_equal(joins_at(f, "d-0", ""), 1);
    older.epoch = 6;
    older.target = 2;
    strcpy(older.name, "d-4");
    for (int i = 0; i < 3; i++) { /* however often, and whoever says what is old comes last: once in a round */
        hf_form_message(f, 2, &leads);
        hf_form_message(f, 2, &older);
    }
    assert_null(hf_form_next(f));
    hf_form_tick(f, 3);
    assert_int_equal(joins_at(f, "d-3", "h3:7000"), 1);
    hf_form_tick(f, 4); /* said for one round */
    assert_int_equal(joins_at(f, "d-3", ""), 0);
    leads.uuid.b[0] = 8; /* meant for an earlier incarnation */
    hf_form_message(f, 5, &leads);
    leads.uuid.b[0] = 9;
    strcpy(leads.name, "d-1"); /* of a former life of this node */
    hf_form_message(f, 5, &leads);
    leads.name[0] = '\0'; /* by a version that says only an id */
    hf_form_message(f, 5, &leads);
    hf_form_tick(f, 6);
    while ((a = hf_form_next(f)) != NULL)
        assert_true(a->msg.type != HF_MSG_JOIN || strcmp(a->name, "d-0") == 0);
    hf_form_message(f, 7, &let_in);
    a = hf_form_next(f);
    assert_true(a != NULL && a->type == HF_FORM_PERSIST && a->durable.self == 5);
}

/* Time: the age of the oldest WAL that is not applied, or of the last word, whichever is older. */
static void test_lag(void **state)
{
    struct hf_lag l;
    uint64_t s = 1000 * HF_MS, now = 1000 * s;

    (void)state;
    hf_lag_begin(&l);
    assert_true(hf_lag_ns(&l, now) == UINT64_MAX); /* not known is too far */
    hf_lag_heard(&l, 0, 0, now);
    assert_true(hf_lag_ns(&l, now) == UINT64_MAX);
    hf_lag_heard(&l, 100, 100, now);
    assert_int_equal(hf_lag_bytes(&l), 0);
    assert_int_equal(hf_lag_ns(&l, now), 0);
    assert_int_equal(hf_lag_ns(&l, now + 3 * s), 3 * s); /* silence */
    hf_lag_heard(&l, 200, 100, now + s);
    hf_lag_heard(&l, 300, 100, now + 2 * s);
    assert_int_equal(hf_lag_bytes(&l), 200);
    assert_int_equal(hf_lag_ns(&l, now + 2 * s), s);
    hf_lag_heard(&l, 300, 250, now + 3 * s); /* what was there at 2 s still is not applied */
    assert_int_equal(hf_lag_ns(&l, now + 3 * s), s);
    hf_lag_heard(&l, 300, 100, now + 3 * s); /* a late word takes nothing back */
    assert_int_equal(hf_lag_bytes(&l), 50);
    hf_lag_heard(&l, 300, 300, now + 4 * s);
    assert_int_equal(hf_lag_bytes(&l), 0);
    assert_int_equal(hf_lag_ns(&l, now + 4 * s), 0);
    hf_lag_begin(&l);
    assert_true(hf_lag_ns(&l, now + 4 * s) == UINT64_MAX);
}

/* However much comes: never told too small, and not too great as long as it fits. */
static void test_lag_of_a_long_time(void **state)
{
    struct hf_lag l;
    uint64_t begin = 5000 * HF_MS, now = begin;
    hf_lsn end = 1000, applied = 1000;

    (void)state;
    hf_lag_begin(&l);
    for (int i = 0; i < 20000; i++) { /* 200 s, replayed at half the pace */
        uint64_t behind, truth;
        now += 10 * HF_MS;
        end += 10;
        applied += 5;
        hf_lag_heard(&l, end, applied, now);
        assert_true(l.n <= HF_LAG_MARKS);
        behind = hf_lag_ns(&l, now);
        truth = now - (begin + (applied - 1000) / 10 * 10 * HF_MS); /* since what came next was there */
        assert_true(behind + HF_LAG_STEP_NS + 20 * HF_MS >= truth);
        assert_true(behind <= (truth < HF_LAG_MARKS * HF_LAG_STEP_NS ? truth : 2 * truth) + 2 * HF_LAG_STEP_NS);
    }
}

static uint64_t ready_for(struct hf_ready *r, bool part, bool open, uint64_t now, uint64_t ms, enum hf_readiness must)
{
    for (uint64_t t = 0; t < ms; t += 10) {
        now += 10 * HF_MS;
        hf_ready_look(r, part, open, now);
        if (hf_ready_answer(r) != must)
            fail_msg("after %d ms of %d: %d, not %d", (int)t + 10, (int)ms, (int)hf_ready_answer(r), (int)must);
    }
    return now;
}

static void test_ready_while_it_starts(void **state)
{
    struct hf_ready r;
    uint64_t begin = 7000 * HF_MS, now;

    (void)state;
    hf_ready_begin(&r, begin); /* alone: the pods that start one by one wait for it */
    now = ready_for(&r, false, false, begin, 4990, HF_READY_LOOKING);
    (void)ready_for(&r, false, false, now, 60000, HF_READY_YES);
    hf_ready_begin(&r, begin); /* one of a cluster that works, and its data do not start, or are being copied */
    now = ready_for(&r, false, false, begin, 800, HF_READY_LOOKING);
    now = ready_for(&r, false, true, now, 60000, HF_READY_APART);
    (void)ready_for(&r, true, true, now, 60000, HF_READY_YES);
}

static void test_ready_after_a_failover(void **state)
{
    struct hf_ready r;
    uint64_t now;

    (void)state;
    hf_ready_begin(&r, 0);
    now = ready_for(&r, true, true, 0, 2000, HF_READY_YES);
    now = ready_for(&r, false, false, now, 600000, HF_READY_YES); /* nobody leads: no readiness of all is lost */
    now = ready_for(&r, false, true, now, 4000, HF_READY_YES);    /* a moment, to follow the new one */
    now = ready_for(&r, true, true, now, 2000, HF_READY_YES);
    now = ready_for(&r, false, true, now, 4990, HF_READY_YES);
    now = ready_for(&r, false, true, now, 60000, HF_READY_APART);
    now = ready_for(&r, false, false, now, 5000, HF_READY_YES); /* another failover while it is being copied: */
    now = ready_for(&r, false, true, now, 60000, HF_READY_APART); /* that it has worked long ago is no reason for patience */
    for (int i = 0; i < 20; i++) { /* streams that end again at once */
        now = ready_for(&r, true, true, now, 500, HF_READY_YES);
        now = ready_for(&r, false, true, now, 1000, HF_READY_APART);
    }
    /* Stopped for a minute, and the leader's last ping lies in the socket. */
    now = ready_for(&r, true, true, now, 2000, HF_READY_YES) + 60000 * HF_MS;
    (void)ready_for(&r, false, true, now, 2000, HF_READY_YES);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_lineage),
        cmocka_unit_test(test_the_newest_opened_is_remembered),
        cmocka_unit_test(test_senseless_entries),
        cmocka_unit_test(test_quorum_spans_two_voter_sets),
        cmocka_unit_test(test_quorum_value),
        cmocka_unit_test(test_lease),
        cmocka_unit_test(test_encodings_refuse_everything_else),
        cmocka_unit_test(test_founding_needs_everybody),
        cmocka_unit_test(test_founding_asks_who_came_later),
        cmocka_unit_test(test_founding_asks_who_has_a_name_late),
        cmocka_unit_test(test_founding_asks_again_after_a_failed_write),
        cmocka_unit_test(test_joining_through_whom_nobody_knows),
        cmocka_unit_test(test_forming_tells_whom_it_waits_for),
        cmocka_unit_test(test_lag),
        cmocka_unit_test(test_lag_of_a_long_time),
        cmocka_unit_test(test_ready_while_it_starts),
        cmocka_unit_test(test_ready_after_a_failover),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
