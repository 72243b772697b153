/* A stream of PostgreSQL's messages, in pieces of any size: where each begins and ends, the protocol's numbers, and the pairs of a
 * session's startup packet. */
#ifndef HF_BASE_SCAN_H
#define HF_BASE_SCAN_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* A number of four bytes, as the protocol has them. */
static inline uint32_t hf_scan_number(const uint8_t *p)
{
    return (uint32_t)p[0] << 24 | (uint32_t)p[1] << 16 | (uint32_t)p[2] << 8 | p[3];
}

static inline void hf_scan_put(uint8_t *p, uint32_t v)
{
    for (int i = 0; i < 4; i++)
        p[i] = (uint8_t)(v >> (24 - 8 * i));
}

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

/* The next pair at *at (8: the first), which moves behind it, of a complete session startup packet. False: no more. */
bool hf_startup_pair(const uint8_t *p, size_t len, size_t *at, const char **key, const char **value);

#endif
