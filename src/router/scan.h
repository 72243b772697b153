/* A stream of PostgreSQL's messages, in pieces of any size: where each begins and ends. */
#ifndef HF_ROUTER_SCAN_H
#define HF_ROUTER_SCAN_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* One stream of messages: type byte, length (itself included, type not), body. */
struct hf_scan {
    uint8_t head[5];
    unsigned have;       /* bytes of the head */
    uint64_t left, full; /* bytes of the body: still to come, and all */
    bool broken;         /* a length below 4: nothing more is understood */
};

/* Takes what belongs to the current message from the front of the `n` bytes (at least one); returns
 * how many, and whether the message is complete: its type is head[0] then. Body bytes among them
 * begin at *body. Not to be called once `broken`. */
size_t hf_scan_take(struct hf_scan *s, const uint8_t *p, size_t n, size_t *body, bool *complete);

#endif
