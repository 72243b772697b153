/* Runs one node until it is told to end. */
#ifndef HF_NODE_H
#define HF_NODE_H

#include "base/sentinel_page.h"
#include "node_config.h"

enum { HF_EXIT_AGAIN = 75 }; /* exit status: start me again (EX_TEMPFAIL) */

/* Returns the exit status. `page` is shared with the sentinel. */
int hf_node_run(const struct hf_node_config *config, struct hf_sentinel_page *page);

#endif
