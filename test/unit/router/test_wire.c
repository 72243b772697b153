/* Startup packets, our own errors, and the count of what is owed: in every split, and hostile. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "router/dialogue.h"
#include "router/reads.h"
#include "router/wire.h"

/* -- startup ------------------------------------------------------------------------------- */

static size_t packet(uint8_t *out, uint32_t code, const char *body, size_t n)
{
    uint32_t len = (uint32_t)n + 8;

    for (int i = 0; i < 4; i++) {
        out[i] = (uint8_t)(len >> (24 - 8 * i));
        out[4 + i] = (uint8_t)(code >> (24 - 8 * i));
    }
    memcpy(out + 8, body, n);
    return len;
}

#define PACKET(out, code, body) packet(out, code, body, sizeof(body) - 1)

static struct hf_startup parse(uint32_t code, const char *body, size_t n)
{
    uint8_t b[HF_STARTUP_MAX], *exact;
    size_t len = packet(b, code, body, n);
    struct hf_startup s;

    /* Incomplete at every length before; an exact allocation, so that a sanitizer sees overruns. */
    for (size_t i = 0; i <= len; i++) {
        exact = malloc(i + 1);
        assert_non_null(exact);
        memcpy(exact, b, i);
        s = hf_startup_parse(exact, i);
        assert_true(i == len || s.kind == HF_STARTUP_MORE);
        assert_true(hf_startup_need(exact, i) <= len);
        free(exact);
    }
    return s;
}

#define PARSE(code, body) parse(code, body, sizeof(body) - 1)

/* Protocol 3.2 has longer keys: 4 to 256 bytes. */
static void cancel_keys(void)
{
    static const struct {
        size_t key;
        enum hf_startup_kind kind;
    } cases[] = {{3, HF_STARTUP_BAD},      {4, HF_STARTUP_CANCEL},   {32, HF_STARTUP_CANCEL},
                 {256, HF_STARTUP_CANCEL}, {257, HF_STARTUP_BAD}};
    uint8_t p[300] = {0, 0, 0, 0, 0x04, 0xd2, 0x16, 0x2e, 0, 0, 1, 2};

    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        size_t len = 12 + cases[i].key;
        struct hf_startup s;
        p[2] = (uint8_t)(len >> 8);
        p[3] = (uint8_t)len;
        s = hf_startup_parse(p, len);
        assert_int_equal(s.kind, cases[i].kind);
        if (s.kind == HF_STARTUP_CANCEL) {
            assert_int_equal(s.pid, 258);
            assert_int_equal(s.key_len, cases[i].key);
            assert_ptr_equal(s.key, p + 12);
        }
    }
}

static void startup_values(void **state)
{
    static const uint8_t p[] = "\0\0\0\x28\0\3\0\0user\0a\0database\0b\0user\0c\0x\0\0";

    (void)state;
    assert_string_equal(hf_startup_value(p, sizeof p - 1, "user"), "c");
    assert_string_equal(hf_startup_value(p, sizeof p - 1, "database"), "b");
    assert_null(hf_startup_value(p, sizeof p - 1, "b"));
}

static void startup_kinds(void **state)
{
    struct hf_startup s;

    (void)state;
    assert_int_equal(PARSE(80877103, "").kind, HF_STARTUP_TLS);
    assert_int_equal(PARSE(80877104, "").kind, HF_STARTUP_GSS);
    s = PARSE(80877102, "\0\0\1\2\1\2\3\4");
    assert_int_equal(s.kind, HF_STARTUP_CANCEL);
    assert_int_equal(s.pid, 258);
    assert_int_equal(s.key_len, 4);
    cancel_keys();
    assert_int_equal(PARSE(196608, "user\0app\0database\0app\0\0").kind, HF_STARTUP_SESSION);
    assert_int_equal(PARSE(196610, "user\0app\0_pq_.x\0y\0\0").kind, HF_STARTUP_SESSION);
    assert_int_equal(PARSE(196608, "user\0app\0replication\0false\0\0").kind, HF_STARTUP_SESSION);
    assert_int_equal(PARSE(196608, "database\0user\0user\0app\0\0").kind, HF_STARTUP_SESSION);
}

static void refused(struct hf_startup s, const char *sqlstate)
{
    assert_int_equal(s.kind, HF_STARTUP_BAD);
    assert_string_equal(s.sqlstate, sqlstate);
    assert_non_null(s.text);
}

static void startup_refused(void **state)
{
    static const uint8_t short_len[] = {0, 0, 0, 7}, long_len[] = {0x16, 3, 1, 0},
                         zero[] = {0, 0, 0, 0};

    (void)state;
    refused(PARSE(131072, "app"), "0A000");
    refused(PARSE(196608, "user\0holdfast\0\0"), "28000");
    /* PostgreSQL takes the last of two. */
    refused(PARSE(196608, "user\0app\0user\0holdfast\0\0"), "28000");
    refused(PARSE(196608, "user\0holdfast\0user\0app\0\0"), "28000");
    refused(PARSE(196608, "user\0app\0replication\0true\0\0"), "0A000");
    refused(PARSE(196608, "replication\0off\0user\0app\0replication\0database\0\0"), "0A000");
    refused(PARSE(196608, "user\0app\0replication\0\0\0"), "0A000");
    refused(PARSE(196608, "database\0app\0\0"), "28000");
    refused(PARSE(196608, "user\0\0\0"), "28000");
    refused(PARSE(196608, ""), "08P01");
    refused(PARSE(196608, "user\0app"), "08P01");
    refused(PARSE(196608, "user\0app\0"), "08P01");
    refused(PARSE(196608, "user\0app\0\0database\0x\0"), "08P01");
    refused(PARSE(196608, "user\0app\0\0\0"), "08P01");
    refused(PARSE(196608, "user\0"), "08P01");
    refused(PARSE(80877102, "\0\0\1\2"), "08P01");
    refused(PARSE(80877103, "x"), "08P01");
    refused(hf_startup_parse(short_len, 4), "08P01");
    refused(hf_startup_parse(long_len, 4), "08P01");
    refused(hf_startup_parse(zero, 4), "08P01");
}

/* Behind everything, since PostgreSQL takes the last one, and these after `options`: whatever the client has said of it. */
static void startup_read_only(void **state)
{
    static const char added[] = "default_transaction_read_only\0on\0holdfast.read_only\0on\0"; /* and the packet's last NUL */
    uint8_t b[HF_STARTUP_MAX];
    size_t before, n;

    (void)state;
    before = PACKET(b, 196608, "default_transaction_read_only\0off\0user\0app\0options\0-c a=b\0\0");
    n = hf_startup_read_only(b, before, sizeof b);
    assert_int_equal(n, before + sizeof added - 1);
    assert_int_equal(hf_startup_parse(b, n).kind, HF_STARTUP_SESSION);
    assert_memory_equal(b + before - 1, added, sizeof added);
    assert_string_equal(hf_startup_value(b, n, "default_transaction_read_only"), "on");
    assert_string_equal(hf_startup_value(b, n, "holdfast.read_only"), "on");
    assert_string_equal(hf_startup_value(b, n, "options"), "-c a=b");
    n = PACKET(b, 196608, "user\0app\0\0");
    assert_int_equal(hf_startup_read_only(b, n, n + 10), 0);
    assert_int_equal(hf_startup_read_only(b, n, n + sizeof added - 2), 0);
    assert_int_equal(hf_startup_read_only(b, n, n + sizeof added - 1), n + sizeof added - 1);
}

static void startup_reads(void **state)
{
    static const struct {
        const char *packet;
        size_t len;
        enum hf_reads asked;
    } cases[] = {
#define CASE(text, asked) {text, sizeof text, asked}
        CASE("user\0app\0", HF_READS_UNSAID),
        CASE("user\0app\0options\0-c work_mem=64kB\0", HF_READS_UNSAID),
        CASE("user\0app\0options\0-c holdfast.reads=follower\0", HF_READS_FOLLOWER),
        CASE("user\0app\0options\0-c a=b -cHoldfast.Reads=FRESH  -c c=d\0", HF_READS_FRESH),
        CASE("user\0app\0options\0--holdfast.reads=leader\0", HF_READS_LEADER),
        CASE("user\0app\0options\0-c  holdfast\\.reads=leader\0", HF_READS_BAD), /* hidden */
        CASE("user\0app\0options\0-c holdfast.reads=leader --holdfast.reads=fresh\0", HF_READS_FRESH),
        CASE("user\0app\0options\0-c holdfast.reads=leader\0holdfast.reads\0fresh\0", HF_READS_FRESH),
        CASE("holdfast.reads\0fresh\0user\0app\0options\0-c holdfast.reads=leader\0", HF_READS_FRESH),
        CASE("holdfast.reads\0fresh\0user\0app\0HOLDFAST.READS\0follower\0", HF_READS_FOLLOWER),
        /* Of what is understood in half nothing is done. */
        CASE("user\0app\0options\0-c holdfast.reads=replica\0", HF_READS_BAD),
        CASE("user\0app\0options\0-c holdfast.reads=\0", HF_READS_BAD),
        CASE("user\0app\0options\0-c holdfast.reads\0", HF_READS_BAD),
        CASE("user\0app\0options\0-c holdfast.reads fresh\0", HF_READS_BAD),
        CASE("user\0app\0options\0-ec holdfast.reads=fresh\0", HF_READS_BAD),
        CASE("user\0app\0options\0holdfast.reads=fresh\0", HF_READS_BAD),
        CASE("user\0app\0options\0-c holdfast.reads=fresh,leader\0", HF_READS_BAD),
        CASE("user\0app\0options\0-c holdfast.reads=freshfreshfreshfreshfreshfreshfreshfreshfreshfreshfreshfresh\0", HF_READS_BAD),
        CASE("user\0app\0options\0-c holdfast.reads_=fresh\0", HF_READS_BAD),
        CASE("user\0app\0holdfast.reads\0\0x\0y\0", HF_READS_BAD),
    };
    uint8_t b[HF_STARTUP_MAX];

    (void)state;
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++)
        if (hf_reads_asked(b, packet(b, 196608, cases[i].packet, cases[i].len)) != cases[i].asked)
            fail_msg("case %zu", i);
}

static void fatal_layout(void **state)
{
    uint8_t out[256];
    size_t n = hf_wire_fatal(out, sizeof out, "57P03", "text", "hint");
    static const char want[] = "E\0\0\0\x2eSFATAL\0VFATAL\0C57P03\0Mtext\0Hhint\0";

    (void)state;
    assert_int_equal(n, sizeof want);
    assert_memory_equal(out + 5, want + 5, n - 5);
    assert_int_equal(out[4] + 1u, n);
    n = hf_wire_fatal(out, sizeof out, "57P03", "text", NULL);
    assert_int_equal(out[n - 1], 0);
    assert_int_equal(out[4] + 1u, n);
    for (size_t cap = 0; cap < sizeof want; cap++)
        assert_int_equal(hf_wire_fatal(out, cap, "57P03", "text", "hint"), 0);
}

/* -- dialogue ------------------------------------------------------------------------------ */

static size_t msg(uint8_t *out, char type, const void *body, size_t n)
{
    out[0] = (uint8_t)type;
    for (int i = 0; i < 4; i++)
        out[1 + i] = (uint8_t)((n + 4) >> (24 - 8 * i));
    memcpy(out + 5, body, n);
    return n + 5;
}

static void server(struct hf_dialogue *d, char type, const void *body, size_t n)
{
    uint8_t b[2048];
    hf_dialogue_server(d, b, msg(b, type, body, n));
}

static void client(struct hf_dialogue *d, const char *types)
{
    uint8_t b[64];
    for (; *types != '\0'; types++)
        hf_dialogue_client(d, b, msg(b, *types, "x", 2));
}

static void server_said(struct hf_dialogue *d, const char *types)
{
    for (; *types != '\0'; types++)
        server(d, *types, *types == 'Z' ? "I" : "", *types == 'Z');
}

static void log_in(struct hf_dialogue *d)
{
    hf_dialogue_init(d);
    assert_false(hf_dialogue_is_idle(d));
    client(d, "p");
    server(d, 'R', "\0\0\0\0", 4);
    server(d, 'K', "\0\0\1\2\1\2\3\4", 8);
    server(d, 'Z', "I", 1);
    assert_true(hf_dialogue_is_idle(d));
}

static void dialogue_counts(void **state)
{
    struct hf_dialogue d;

    (void)state;
    log_in(&d);
    client(&d, "QQ"); /* pipelined: the first answer does not make it idle */
    server(&d, 'C', "x", 2);
    server(&d, 'Z', "I", 1);
    assert_false(hf_dialogue_is_idle(&d));
    server(&d, 'Z', "I", 1);
    assert_true(hf_dialogue_is_idle(&d));
    client(&d, "PBE");
    assert_false(hf_dialogue_is_idle(&d));
    client(&d, "S");
    server(&d, 'Z', "T", 1);
    assert_false(hf_dialogue_is_idle(&d));
    assert_true(hf_dialogue_may_speak(&d)); /* in a transaction, but nothing was asked */
    client(&d, "Q");
    assert_true(hf_dialogue_owes(&d)); /* what may be said now is an answer */
    assert_true(hf_dialogue_may_speak(&d));
    server(&d, 'E', "x", 2);
    server(&d, 'Z', "E", 1);
    assert_false(hf_dialogue_is_idle(&d));
    client(&d, "Q");
    server(&d, 'Z', "I", 1);
    assert_true(hf_dialogue_is_idle(&d));
    client(&d, "PBSH"); /* libpq: PQpipelineSync(), PQsendFlushRequest() */
    server_said(&d, "12Z");
    assert_true(hf_dialogue_is_idle(&d));
    client(&d, "X");
    assert_true(hf_dialogue_is_idle(&d));
    server(&d, 'E', "FATAL", 6);
    assert_false(hf_dialogue_may_speak(&d));
}

/* A Query and a function call end what was sent without its Sync, as Sync does. */
static void dialogue_without_sync(void **state)
{
    struct hf_dialogue d;

    (void)state;
    for (const char *last = "QF"; *last != '\0'; last++) {
        log_in(&d);
        client(&d, (char[]){'C', 'H', *last, '\0'});
        assert_false(hf_dialogue_is_idle(&d));
        server(&d, '3', "", 0);
        assert_false(hf_dialogue_is_idle(&d));
        server(&d, 'Z', "I", 1);
        assert_true(hf_dialogue_is_idle(&d));
        client(&d, "C"); /* and what comes then is another batch */
        assert_true(hf_dialogue_owes(&d));
        client(&d, "S");
        server(&d, '3', "", 0);
        server(&d, 'Z', "I", 1);
        assert_true(hf_dialogue_is_idle(&d));
    }
}

/* An error in what is in front of a Query: that is passed over with it, up to the Sync, and nothing is owed for it. */
static void dialogue_passed_over(void **state)
{
    static const struct {
        const char *says, *hears, *then, *last; /* idle with the last ReadyForQuery, and not before */
    } cases[] = {
        {"PQ", "E", "S", "Z"},
        {"PQS", "E", "", "Z"},
        {"P", "E", "QFHS", "Z"},
        {"PBEQPBDES", "E", "", "Z"},
        {"PBEQPBDES", "12CCZ12nE", "", "Z"},
        {"PBDEQPBES", "12TCEZ12C", "", "Z"},
        {"PBEQQS", "12CEZTCZ", "", "Z"},
        {"CPQ", "3E", "CS", "Z"},
        {"CHQ", "3E", "", "Z"},
        {"QPBEQFQSQ", "CZ12EZ", "", "Z"},
        {"SQPQS", "ZCZE", "", "Z"},
        {"PBEQSPQS", "EZE", "", "Z"},
        {"PBE", "12GE", "QS", "Z"}, /* a COPY */
        {"QdcPQ", "GCZ1C", "", "Z"},
    };
    struct hf_dialogue d;

    (void)state;
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        log_in(&d);
        client(&d, cases[i].says);
        server_said(&d, cases[i].hears);
        assert_false(hf_dialogue_is_idle(&d));
        assert_true(hf_dialogue_owes(&d));
        for (const char *then = cases[i].then; *then != '\0'; then++) {
            client(&d, (char[]){*then, '\0'});
            assert_false(hf_dialogue_is_idle(&d));
            assert_true(hf_dialogue_owes(&d));
        }
        server_said(&d, cases[i].last);
        assert_true(hf_dialogue_is_idle(&d));
        assert_false(hf_dialogue_may_hear_more(&d));
    }
}

/* Where that is not certain, it is busy. */
static void dialogue_passed_over_perhaps(void **state)
{
    struct hf_dialogue d;

    (void)state;
    log_in(&d); /* more than are counted: which of them are Syncs is forgotten */
    client(&d, "PQ");
    for (int i = 0; i < 70; i++)
        client(&d, "Q");
    client(&d, "S");
    server_said(&d, "EZ");
    assert_false(hf_dialogue_is_idle(&d));
    log_in(&d); /* a simple COPY has read what was sent along */
    client(&d, "QPQQ");
    server_said(&d, "GEZEZ");
    assert_false(hf_dialogue_is_idle(&d));
    server_said(&d, "Z");
    assert_true(hf_dialogue_is_idle(&d));
    log_in(&d); /* a COPY of a view: the Sync may have been swallowed */
    client(&d, "PBES");
    server_said(&d, "12G");
    client(&d, "dcQ");
    server_said(&d, "EZ");
    assert_false(hf_dialogue_is_idle(&d));
}

/* A server that refuses what it likes, some messages behind its client; 'e' and 'q' are an Execute and a Query of a COPY. */
struct refuser {
    char asked[128], says[1024];
    size_t n_asked, n_says;
    bool skipping, copying, simple;
    uint32_t seed;
};

static unsigned dice(struct refuser *r, unsigned n)
{
    r->seed = r->seed * 1103515245 + 12345;
    return (r->seed >> 16) % n;
}

static void refuser_says(struct refuser *r, const char *types)
{
    for (; *types != '\0'; types++)
        r->says[r->n_says++] = *types;
}

/* What it is about ends with an error, or well. */
static void refuser_ends(struct refuser *r, bool good, bool simple)
{
    refuser_says(r, good ? "C" : "E");
    refuser_says(r, simple ? "Z" : "");
    r->skipping = !good && !simple;
    r->copying = false;
}

static void refuser_copies(struct refuser *r, char type)
{
    if (type == 'S' || type == 'H' || (type == 'd' && dice(r, 4) != 0))
        return;
    refuser_ends(r, type == 'c', r->simple);
}

static void refuser_takes(struct refuser *r, char type)
{
    bool good = dice(r, 4) != 0;

    if (r->copying) {
        refuser_copies(r, type);
    } else if (type == 'S') {
        refuser_says(r, good || r->skipping ? "Z" : "EZ");
        r->skipping = false;
    } else if (r->skipping || strchr("Hdcf", type) != NULL) {
        return;
    } else if (type == 'C') {
        refuser_says(r, "3");
    } else if (strchr("Qq", type) != NULL || type == 'F' || !good) {
        bool copies = type == 'q' && good;
        refuser_says(r, type == 'Q' && good ? "TD" : copies ? "G" : "");
        r->copying = r->simple = copies;
        if (!copies || dice(r, 4) == 0)
            refuser_ends(r, good && !copies, strchr("QqF", type) != NULL);
    } else if (type == 'e') {
        refuser_says(r, "G");
        r->copying = true;
        r->simple = false;
        if (dice(r, 4) == 0) /* with nothing read */
            refuser_ends(r, false, false);
    } else {
        refuser_says(r, type == 'P' ? "1" : type == 'B' ? "2" : type == 'D' ? "T" : "C");
    }
}

/* What its client says next: of COPY's only what belongs there, once it has heard of it. */
static char refuser_is_asked(struct refuser *r, const struct hf_dialogue *d, bool copies)
{
    bool waits = memchr(r->asked, 'e', r->n_asked) != NULL || memchr(r->asked, 'q', r->n_asked) != NULL ||
                 memchr(r->says, 'G', r->n_says) != NULL;
    const char *types = d->copying ? "dddcfSH" : waits ? "SH" : copies ? "PBDECHQFSeqdcf" : "PBDECHQFS";

    return types[dice(r, (unsigned)strlen(types))];
}

static void refuser_is_heard(struct refuser *r, struct hf_dialogue *d)
{
    server_said(d, (char[]){r->says[0], '\0'});
    memmove(r->says, r->says + 1, --r->n_says);
}

static void refuser_works(struct refuser *r)
{
    char type = r->asked[0];

    memmove(r->asked, r->asked + 1, --r->n_asked);
    refuser_takes(r, type);
}

/* Who has said something else than Flush, or what is passed over, is not idle before it is answered; and without COPY who has been
 * answered is, unless there were too many to be counted. */
static void dialogue_with_refuser(void **state)
{
    (void)state;
    for (uint32_t seed = 1; seed <= 4000; seed++) {
        struct refuser r = {.seed = seed};
        bool copies = seed % 2 == 1, many = seed % 4 < 2;
        struct hf_dialogue d;
        log_in(&d);
        for (unsigned i = 0; i < 300; i++) {
            unsigned what = dice(&r, 3);
            if (what == 0 && d.pending < (many ? 100 : 7) && r.n_asked < sizeof r.asked - 2) {
                char type = refuser_is_asked(&r, &d, copies);
                r.asked[r.n_asked++] = type;
                client(&d, (char[]){type == 'e' ? 'E' : type == 'q' ? 'Q' : type, '\0'});
            } else if (what == 1 && r.n_asked > 0) {
                refuser_works(&r);
            } else if (r.n_says > 0) {
                refuser_is_heard(&r, &d);
            }
            if (hf_dialogue_is_idle(&d) && !hf_dialogue_may_hear_more(&d) &&
                (r.n_says > 0 || r.copying || r.skipping || strcspn(r.asked, "PBDECQFSeq") < r.n_asked))
                fail_msg("seed %u, step %u: idle", seed, i);
        }
        for (unsigned i = 0; i < 2 && !copies; i++)
            r.asked[r.n_asked++] = 'S', client(&d, "S");
        while (r.n_asked > 0 || r.n_says > 0) {
            if (r.n_says > 0)
                refuser_is_heard(&r, &d);
            else
                refuser_works(&r);
        }
        if (!copies && !many && !hf_dialogue_is_idle(&d))
            fail_msg("seed %u: busy", seed);
    }
}

/* A Query behind a COPY by the extended protocol, whose Sync was swallowed: no other is needed. */
static void dialogue_copy_and_query(void **state)
{
    struct hf_dialogue d;

    (void)state;
    for (const char *last = "QF"; *last != '\0'; last++) {
        log_in(&d);
        client(&d, "PBES");
        server_said(&d, "12G");
        client(&d, "dc");
        server_said(&d, "C");
        assert_false(hf_dialogue_is_idle(&d));
        client(&d, (char[]){*last, '\0'});
        assert_false(hf_dialogue_is_idle(&d));
        server_said(&d, "CZ");
        assert_true(hf_dialogue_is_idle(&d));
    }
}

/* Likewise, when that has been sent before the server says how the COPY has ended. If that was badly, it is passed over. */
static void dialogue_copy_and_more(void **state)
{
    static const struct {
        const char *more, *hears, *then, *last;
        bool idle;
    } cases[] = {{"dcQ", "CC", "", "Z", true},   {"dcF", "C", "", "Z", true},     {"dcQQ", "CCZC", "", "Z", true}, {"dcS", "C", "", "Z", true},
                 {"dScQ", "CC", "", "Z", true},  {"dcPBEQ", "C12CC", "", "Z", true}, {"dcQS", "CCZ", "", "Z", true}, {"dfQ", "E", "S", "Z", false},
                 {"dcQ", "E", "S", "Z", false}, {"dfS", "E", "", "Z", true}};
    struct hf_dialogue d;

    (void)state;
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        log_in(&d);
        client(&d, "PBES");
        server_said(&d, "12G");
        client(&d, cases[i].more);
        server_said(&d, cases[i].hears);
        assert_false(hf_dialogue_is_idle(&d));
        client(&d, cases[i].then);
        assert_false(hf_dialogue_is_idle(&d));
        server_said(&d, cases[i].last);
        assert_int_equal(hf_dialogue_is_idle(&d), cases[i].idle);
    }
}

/* A simple COPY swallows the Syncs that were sent along, and needs none. */
static void dialogue_simple_copy_and_sync(void **state)
{
    struct hf_dialogue d;

    (void)state;
    for (const char *says = "QSS"; *says != '\0'; says++) {
        log_in(&d);
        client(&d, says[0] == 'Q' ? "QSS" : says[1] == 'S' ? "QS" : "Q");
        server_said(&d, "G");
        client(&d, "dSc");
        server_said(&d, "C");
        assert_false(hf_dialogue_is_idle(&d));
        server_said(&d, "Z");
        assert_true(hf_dialogue_is_idle(&d));
        assert_false(hf_dialogue_may_hear_more(&d));
    }
    log_in(&d); /* it has failed, and perhaps before it has read it */
    client(&d, "QS");
    server_said(&d, "GEZ");
    assert_true(hf_dialogue_may_hear_more(&d));
    log_in(&d); /* not one behind something else */
    client(&d, "QPS");
    server_said(&d, "GEZ");
    assert_false(hf_dialogue_is_idle(&d));
}

static void dialogue_copy(void **state)
{
    struct hf_dialogue d;

    (void)state;
    log_in(&d);
    client(&d, "Q"); /* simple */
    server(&d, 'G', "\0\0\0", 3);
    client(&d, "dSdc");
    server(&d, 'C', "x", 2);
    server(&d, 'Z', "I", 1);
    assert_true(hf_dialogue_is_idle(&d));
    client(&d, "PBDES"); /* extended, as libpq does it: the Sync is swallowed */
    server(&d, 'G', "\0\0\0", 3);
    for (const char *types = "ddcS"; *types != '\0'; types++) {
        assert_false(hf_dialogue_is_idle(&d));
        assert_true(hf_dialogue_owes(&d));
        client(&d, (char[]){*types, '\0'});
    }
    assert_false(hf_dialogue_is_idle(&d));
    server(&d, 'C', "x", 2);
    assert_false(hf_dialogue_is_idle(&d));
    server(&d, 'Z', "I", 1);
    assert_true(hf_dialogue_is_idle(&d));
    client(&d, "PBEdcS"); /* without waiting: that Sync is answered */
    server(&d, 'G', "\0\0\0", 3);
    server(&d, 'C', "x", 2);
    assert_false(hf_dialogue_is_idle(&d));
    server(&d, 'Z', "I", 1);
    assert_true(hf_dialogue_is_idle(&d));
    client(&d, "PBE"); /* the Sync comes when the server has said that it takes a COPY */
    server(&d, 'G', "\0\0\0", 3);
    client(&d, "S");
    server(&d, 'E', "x", 2);
    assert_false(hf_dialogue_is_idle(&d));
}

/* One that fails, by the extended protocol: up to its Sync PostgreSQL passes over everything, and says nothing. */
static void dialogue_copy_fails(void **state)
{
    static const char *const said[] = {"", "d", "ddH", "ddc", "f"}; /* before that is heard of */
    struct hf_dialogue d;

    (void)state;
    for (size_t i = 0; i < sizeof said / sizeof *said; i++) {
        log_in(&d);
        client(&d, "PBDES");
        server(&d, 'G', "\0\0\0", 3);
        client(&d, said[i]);
        server(&d, 'E', "x", 2);
        for (const char *types = "dc"; *types != '\0'; types++) {
            assert_false(hf_dialogue_is_idle(&d));
            assert_true(hf_dialogue_owes(&d));
            client(&d, (char[]){*types, '\0'});
        }
        client(&d, "S");
        assert_false(hf_dialogue_is_idle(&d));
        server(&d, 'Z', "I", 1);
        assert_true(hf_dialogue_is_idle(&d));
    }
    /* With nothing read: the Sync that was sent along is answered, too. */
    log_in(&d);
    client(&d, "PBDES");
    server(&d, 'G', "\0\0\0", 3);
    server(&d, 'E', "x", 2);
    assert_false(hf_dialogue_is_idle(&d));
    server(&d, 'Z', "I", 1);
    assert_true(hf_dialogue_is_idle(&d));
    client(&d, "PBE"); /* who knows that needs no other */
    assert_false(hf_dialogue_is_idle(&d));
    client(&d, "S");
    server(&d, 'Z', "I", 1);
    assert_true(hf_dialogue_is_idle(&d));
    /* And the next one may be sent before that has come. */
    for (size_t i = 0; i < 2; i++) {
        log_in(&d);
        client(&d, i == 0 ? "PBDES" : "PBE");
        server(&d, 'G', "\0\0\0", 3);
        client(&d, i == 0 ? "dcS" : "SdcS");
        assert_false(hf_dialogue_may_hear_more(&d));
        server(&d, 'E', "x", 2);
        server(&d, 'Z', "I", 1);
        assert_true(hf_dialogue_may_hear_more(&d));
        server(&d, 'Z', "I", 1);
        assert_true(hf_dialogue_is_idle(&d));
        hf_dialogue_settle(&d, 'I');
        assert_false(hf_dialogue_may_hear_more(&d));
    }
    log_in(&d);
    client(&d, "PBDES");
    server(&d, 'G', "\0\0\0", 3);
    client(&d, "dSdcS");
    server(&d, 'C', "x", 2); /* good: it has read all of it */
    client(&d, "Q");
    server(&d, 'Z', "I", 1);
    server(&d, 'E', "x", 2);
    server(&d, 'Z', "I", 1);
    assert_true(hf_dialogue_is_idle(&d));
    assert_false(hf_dialogue_may_hear_more(&d));
    log_in(&d);
    client(&d, "Q"); /* simple: no Sync is needed */
    server(&d, 'G', "\0\0\0", 3);
    client(&d, "d");
    server(&d, 'E', "x", 2);
    server(&d, 'Z', "I", 1);
    client(&d, "dc");
    assert_true(hf_dialogue_is_idle(&d));
}

static void dialogue_many(void **state)
{
    struct hf_dialogue d;

    (void)state;
    log_in(&d);
    for (int i = 0; i < 1000; i++)
        client(&d, "PBES");
    for (int i = 0; i < 1000; i++) {
        assert_false(hf_dialogue_is_idle(&d));
        server(&d, 'Z', "I", 1);
    }
    assert_true(hf_dialogue_is_idle(&d));
}

/* The same stream in pieces of every size must leave the same state. */
static void dialogue_splits(void **state)
{
    static const char notice[] =
        "SWARNING\0VWARNING\0C57P01\0Mtraduit\0Fsyncrep.c\0L1\0RSyncRepWaitForLSN\0";
    uint8_t b[8192], big[3000];
    size_t n = 0;

    (void)state;
    memset(big, 'Z', sizeof big); /* looks like heads, is a body */
    n += msg(b + n, 'K', "\0\0\1\2\1\2\3\4", 8);
    n += msg(b + n, 'D', big, sizeof big);
    n += msg(b + n, 'I', "", 0);
    n += msg(b + n, 'N', notice, sizeof notice);
    n += msg(b + n, 'Z', "T", 1);
    n += msg(b + n, '1', "", 0);
    for (size_t piece = 1; piece <= n; piece++) {
        struct hf_dialogue d;
        hf_dialogue_init(&d);
        for (size_t at = 0; at < n; at += piece) {
            size_t k = n - at < piece ? n - at : piece;
            uint8_t *exact = malloc(k);
            assert_non_null(exact);
            memcpy(exact, b + at, k);
            hf_dialogue_server(&d, exact, k);
            free(exact);
        }
        assert_true(d.key_known && d.wait_cancelled && d.started);
        assert_int_equal(d.pid, 258);
        assert_int_equal(d.status, 'T');
        assert_int_equal(d.last, '1');
        assert_int_equal(d.pending, 0);
        assert_int_equal(d.server.have, 0);
    }
    for (size_t cut = 0; cut <= n; cut++) {
        struct hf_dialogue d;
        hf_dialogue_init(&d);
        hf_dialogue_server(&d, b, cut);
        hf_dialogue_server(&d, b + cut, n - cut);
        assert_true(d.wait_cancelled);
        assert_true(hf_dialogue_may_speak(&d));
    }
}

static void dialogue_notices(void **state)
{
    struct hf_dialogue d;

    (void)state;
    log_in(&d);
    server(&d, 'N', "SNOTICE\0Mtable does not exist\0", 31);
    assert_false(d.wait_cancelled);
    server(&d, 'N', "Mcanceling wait for synchronous replication due to user request\0", 64);
    assert_true(d.wait_cancelled);
    d.wait_cancelled = false;
    server(&d, 'N', "Mcanceling the wait for synchronous replication and terminating\0", 64);
    assert_true(d.wait_cancelled);
    d.wait_cancelled = false;
    server(&d, 'D', "canceling wait for synchronous replication", 43); /* data, not a notice */
    assert_false(d.wait_cancelled);
}

static void dialogue_hostile(void **state)
{
    static const uint8_t below[] = {'Q', 0, 0, 0, 3, 'S', 0, 0, 0, 4},
                         huge[] = {'Q', 255, 255, 255, 255};
    struct hf_dialogue d;
    unsigned seed = 1;

    (void)state;
    log_in(&d);
    hf_dialogue_client(&d, below, sizeof below);
    assert_true(d.client.broken);
    assert_false(hf_dialogue_is_idle(&d));
    log_in(&d);
    hf_dialogue_server(&d, below, sizeof below);
    assert_true(d.server.broken);
    assert_false(hf_dialogue_may_speak(&d));
    log_in(&d);
    hf_dialogue_client(&d, huge, sizeof huge);
    assert_false(hf_dialogue_is_idle(&d));
    server(&d, 'Z', "", 0); /* empty, too long, more than was asked for */
    server(&d, 'Z', "IIII", 4);
    server(&d, 'K', "xx", 2);
    assert_int_equal(d.pid, 258);
    for (int round = 0; round < 2000; round++) {
        uint8_t b[64];
        hf_dialogue_init(&d);
        for (int k = 0; k < 8; k++) {
            size_t n = (size_t)(rand_r(&seed) % 64);
            for (size_t i = 0; i < n; i++)
                b[i] = rand_r(&seed) % 3 == 0 ? 0 : (uint8_t)rand_r(&seed);
            hf_dialogue_client(&d, b, n);
            hf_dialogue_server(&d, b, n);
        }
        (void)hf_startup_parse(b, sizeof b);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(startup_kinds),
        cmocka_unit_test(startup_values),     cmocka_unit_test(startup_refused),
        cmocka_unit_test(startup_read_only), cmocka_unit_test(startup_reads), cmocka_unit_test(fatal_layout),
        cmocka_unit_test(dialogue_counts),   cmocka_unit_test(dialogue_without_sync), cmocka_unit_test(dialogue_passed_over),
        cmocka_unit_test(dialogue_passed_over_perhaps), cmocka_unit_test(dialogue_with_refuser), cmocka_unit_test(dialogue_copy_and_query), cmocka_unit_test(dialogue_copy_and_more), cmocka_unit_test(dialogue_simple_copy_and_sync), cmocka_unit_test(dialogue_copy), cmocka_unit_test(dialogue_copy_fails),
        cmocka_unit_test(dialogue_many),     cmocka_unit_test(dialogue_splits),
        cmocka_unit_test(dialogue_notices),  cmocka_unit_test(dialogue_hostile),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
