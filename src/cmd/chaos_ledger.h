/* Clients that write numbered rows while a cluster is hurt, and remember what was acknowledged. */
#ifndef HF_CMD_CHAOS_LEDGER_H
#define HF_CMD_CHAOS_LEDGER_H

#include <jansson.h>
#include <stdbool.h>
#include <stdint.h>

#include "base/error.h"
#include "local/layout.h"

enum { HF_CHAOS_CLIENTS_MAX = 64 };

struct hf_chaos_ledger;

/* What the table holds at the end, against what clients were told. */
struct hf_chaos_verdict {
    uint64_t acked;   /* rows whose acknowledgement came */
    uint64_t unknown; /* the connection ended before: there or not, never twice */
    uint64_t lost;    /* acknowledged and not there */
    uint64_t doubled; /* there more than once */
    uint64_t first_lost;
    unsigned long longest_ms; /* between one acknowledgement and the next, over all clients */
};

/* Makes the table and starts the clients, which connect through all nodes in turn. `rows_max`: they stop
 * writing after so many. NULL: see `err`. */
struct hf_chaos_ledger *hf_chaos_ledger_start(const struct hf_local *l, unsigned clients,
                                              uint64_t rows_max, struct hf_error *err);
/* Longest time without an acknowledgement since the last call, up to now; milliseconds. */
unsigned long hf_chaos_ledger_gap_ms(struct hf_chaos_ledger *c);
/* Stops the clients. Waits for statements that are under way. */
void hf_chaos_ledger_stop(struct hf_chaos_ledger *c);
/* Reads all rows through the gate. After hf_chaos_ledger_stop(). */
int hf_chaos_ledger_check(struct hf_chaos_ledger *c, struct hf_chaos_verdict *v, struct hf_error *err);
/* `drop`: the rows of this run are of no use any more. */
void hf_chaos_ledger_free(struct hf_chaos_ledger *c, bool drop);

#endif
