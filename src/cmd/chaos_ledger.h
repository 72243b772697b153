/* Clients that write numbered rows while a cluster is hurt, and remember what was acknowledged. */
#ifndef HF_CMD_CHAOS_LEDGER_H
#define HF_CMD_CHAOS_LEDGER_H

#include <jansson.h>
#include <stdbool.h>
#include <stdint.h>

#include "base/error.h"
#include "core/types.h"
#include "local/layout.h"

enum { HF_CHAOS_CLIENTS_MAX = 64 };

struct hf_chaos_ledger;

/* What one node's own PostgreSQL holds. */
struct hf_chaos_copy {
    bool compared; /* else `why` not */
    uint64_t lost, doubled;
    struct hf_error why;
};

/* What the table holds at the end, against what clients were told. */
struct hf_chaos_verdict {
    bool read;        /* through the gate; else `lost` and `doubled` say nothing */
    uint64_t acked;   /* rows whose acknowledgement came */
    uint64_t unknown; /* the connection ended before: there or not, never twice */
    uint64_t lost;    /* acknowledged and not there */
    uint64_t doubled; /* there more than once */
    uint64_t first_lost;
    unsigned long longest_ms; /* between one acknowledgement and the next, over all clients */
    unsigned n_copies, bad_copies; /* bad: not compared, or rows lost or doubled */
    struct hf_chaos_copy copies[HF_MEMBERS_MAX]; /* by ordinal */
};

/* Makes the table and starts the clients, which connect through all nodes in turn. `rows_max`: they stop
 * writing after so many. NULL: see `err`. */
struct hf_chaos_ledger *hf_chaos_ledger_start(const struct hf_local *l, unsigned clients,
                                              uint64_t rows_max, struct hf_error *err);
/* Longest time without an acknowledgement since the last call, up to now; milliseconds. */
unsigned long hf_chaos_ledger_gap_ms(struct hf_chaos_ledger *c);
/* Waits until one more row is acknowledged. False: none was. True at once if all rows are used up. */
bool hf_chaos_ledger_goes_on(struct hf_chaos_ledger *c, unsigned timeout_ms);
/* Stops the clients. Statements that are under way are waited for, 10 s long; then their fate is unknown. */
void hf_chaos_ledger_stop(struct hf_chaos_ledger *c);
/* Reads all rows through the gate. After hf_chaos_ledger_stop(). What clients have seen is in `v` even if it fails. */
int hf_chaos_ledger_check(struct hf_chaos_ledger *c, struct hf_chaos_verdict *v, struct hf_error *err);
/* Reads all rows in each node's own PostgreSQL, past router and gate, once it has applied what the leader's log held
 * when it was read through the gate. After hf_chaos_ledger_check(). `timeout_ms`: for all of them together. */
void hf_chaos_ledger_check_copies(struct hf_chaos_ledger *c, unsigned timeout_ms, struct hf_chaos_verdict *v);
/* `drop`: the rows of this run are of no use any more. */
void hf_chaos_ledger_free(struct hf_chaos_ledger *c, bool drop);

#endif
