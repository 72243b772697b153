/* Nodes of a cluster as far as src/peer knows them, on the test's own loop: "a" dials, "b" answers. */
#ifndef HF_TEST_PEER_PAIR_H
#define HF_TEST_PEER_PAIR_H

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "peer/peer.h"

enum { PATIENCE_MS = 10000, QUIET_MS = 60 };

enum answer { ACCEPT, REFUSE, HOLD };

struct node {
    struct pair *p;
    struct hf_peer *peer;
    char name[HF_NAME_MAX], addr[HF_ADDR_MAX];
    struct hf_peer_identity self;
    /* What it does with the tunnels that come, and what came. */
    enum answer answer;
    uint64_t tag;
    const char *member;
    hf_lsn begin; /* terms of WAL: see hf_wal_terms */
    bool torn;
    unsigned tunnels;
    struct hf_tunnel *held;
    enum hf_purpose purpose;
    struct hf_peer_identity from;
    uint8_t payload[HF_PAYLOAD_MAX];
    size_t payload_len;
    int far; /* of the newest it let in; -1: none */
    unsigned ups, downs, proofs, messages;
    uint64_t last_seq;
    unsigned flushes, wal_closes;
    uint64_t flushed_tag;
    hf_lsn flushed, applied;
};

struct pair {
    uv_loop_t loop;
    uv_timer_t tick;
    struct node a, b;
};

struct dialed {
    unsigned opened, closed, progresses;
    int status;
    char text[256];
    bool wal_missing;
    hf_lsn end, applied;
};

#define WAIT(p, condition)                                                                         \
    do {                                                                                           \
        uint64_t until_ = uv_hrtime() + PATIENCE_MS * 1000000ull;                                  \
        while (!(condition) && uv_hrtime() < until_)                                               \
            (void)uv_run(&(p)->loop, UV_RUN_ONCE);                                                 \
        assert_true(condition);                                                                    \
    } while (0)

/* "tls/a", "tls/b", "tls/c" of one authority; "tls/foreign": a's name by another; "tls/forged": the same, but
 * trusting the first. Group set-up and teardown for cmocka. */
int certificates_make(void **state);
int certificates_remove(void **state);
const char *test_dir(const char *sub); /* of the last few calls */

struct pair *pair_open(bool local);
void pair_close(struct pair *p);
void node_open(struct pair *p, struct node *n, const char *name, const char *tls, bool local);
void node_close(struct node *n);
void free_address(char *addr, size_t cap); /* of this machine, nobody listens there now */

/* From a to b; the near end. What becomes of it is told in d, which must live as long as the pair. */
int tunnel_dial(struct pair *p, enum hf_purpose purpose, struct dialed *d);
int tunnel_dial_to(struct pair *p, const char *name, const char *addr, enum hf_purpose purpose,
                   struct dialed *d);
/* And waits until it is open: near and far end. */
void tunnel_open(struct pair *p, enum hf_purpose purpose, struct dialed *d, int *near, int *far);

void answer_held(struct node *n, enum answer answer, const char *text);

/* A stream that shows every byte which is lost, doubled or in the wrong place. */
void pattern(uint8_t *out, size_t n, uint64_t at, uint8_t seed);
void say(int fd, const void *bytes, size_t n); /* n is small: must fit */
void hear(struct pair *p, int fd, const void *bytes, size_t n); /* exactly these come next */
void hear_end(struct pair *p, int fd); /* then nothing; a reset is an end, too */
void hear_nothing(struct pair *p, int fd);

#endif
