/* What code the databases here have (code.h), looked at now and then: by the asker, in this node's PostgreSQL. Private to
 * src/router. */
#ifndef HF_ROUTER_CODES_H
#define HF_ROUTER_CODES_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>
#include <uv.h>

#include "holds/code.h"

struct hf_router;

enum { HF_CODES_MAX = 64, HF_CODES_NAME = 64 }; /* databases; of others nothing is known */

/* One answer: shared, counted, never changed. */
struct hf_codebook {
    atomic_uint refs;
    struct hf_code *code;
};
void hf_codebook_unref(struct hf_codebook *b); /* NULL is fine */

struct hf_codes {
    uv_mutex_t lock;
    struct hf_codes_entry {
        char database[HF_CODES_NAME];
        struct hf_codebook *book; /* NULL: not known */
        uint64_t due_ns;          /* when it is to be looked at next */
        uint64_t round;           /* what was seen in an earlier one does not count any more */
        bool wanted;
        uint64_t again_ns; /* it could not be looked at: not before */
        unsigned failures;
    } entries[HF_CODES_MAX];
    unsigned n;
};

int hf_codes_open(struct hf_codes *c);
void hf_codes_close(struct hf_codes *c);
/* What is known, with a reference; NULL: nothing. It is asked for anew if it is old. `again`: what is known counts no more.
 * True in *asking: somebody has to look at hf_codes_next(). */
struct hf_codebook *hf_codes_get(struct hf_codes *c, const char *database, bool again, bool *asking);
/* Which one is to be looked at now, if any. */
bool hf_codes_next(struct hf_codes *c, char database[HF_CODES_NAME], uint64_t *round);
uint64_t hf_codes_wait_ns(struct hf_codes *c); /* until there is one that could not be looked at before; 0: there is none */
/* What was seen; takes it. NULL: it could not be looked at, and what was known before has to do. */
void hf_codes_answer(struct hf_codes *c, const char *database, uint64_t round, struct hf_code *code);

#endif
