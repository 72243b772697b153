/* A fuzzer's input, taken from its front piece by piece; at its end there are zeros and empty
 * texts. */
#ifndef HF_FUZZ_INPUT_H
#define HF_FUZZ_INPUT_H

#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#define MUST(what)                                                                                 \
    do {                                                                                           \
        if (!(what))                                                                               \
            abort();                                                                               \
    } while (0)

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

struct input {
    const uint8_t *p;
    size_t n;
};

static inline unsigned input_byte(struct input *in)
{
    if (in->n == 0)
        return 0;
    in->n--;
    return *in->p++;
}

/* `most` bytes, or what is left: so many. */
static inline size_t input_take(struct input *in, void *to, size_t most)
{
    size_t n = most < in->n ? most : in->n;

    if (n > 0)
        memcpy(to, in->p, n);
    in->p += n;
    in->n -= n;
    return n;
}

/* A block of its own, so that reading beyond it shows; a NUL stands behind its *len bytes. `end`:
 * the byte that ends it in the input, or -1: it goes on to the input's end. */
static inline char *input_block(struct input *in, int end, size_t *len)
{
    const uint8_t *at = end >= 0 && in->n > 0 ? memchr(in->p, end, in->n) : NULL;
    size_t n = at != NULL ? (size_t)(at - in->p) : in->n;
    char *block = malloc(n + 1);

    MUST(block != NULL);
    if (n > 0)
        memcpy(block, in->p, n);
    block[n] = '\0';
    in->p += n + (at != NULL);
    in->n -= n + (at != NULL);
    if (len != NULL)
        *len = n;
    return block;
}

#endif
