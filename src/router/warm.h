/* Databases made ready for their first session, ahead of a promotion. Private to src/router. */
#ifndef HF_ROUTER_WARM_H
#define HF_ROUTER_WARM_H

#include "router/link.h"

struct hf_warm {
    PGresult *names; /* NULL: nothing to do */
    int next;
};

void hf_warm_begin(struct hf_warm *w, struct hf_link *l); /* l: open */
void hf_warm_step(struct hf_warm *w, const struct hf_link *l); /* one database; ends when it was the last */
void hf_warm_end(struct hf_warm *w);

#endif
