/* A number that tells whether some text has changed: FNV-1a, for changes, not for forgeries. Nodes compare
 * each other's, so it stays as it is. */
#ifndef HF_BASE_FINGERPRINT_H
#define HF_BASE_FINGERPRINT_H

#include <stddef.h>
#include <stdint.h>

#define HF_FINGERPRINT_BEGIN 14695981039346656037u

/* Goes on from `so_far`, at first HF_FINGERPRINT_BEGIN. Never 0, which stands for "none". */
static inline uint64_t hf_fingerprint(uint64_t so_far, const void *data, size_t len)
{
    const unsigned char *p = data;

    for (size_t i = 0; i < len; i++)
        so_far = (so_far ^ p[i]) * 1099511628211u;
    return so_far != 0 ? so_far : 1;
}

#endif
