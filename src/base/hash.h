/* A hash for tables whose keys a client chooses: SipHash with a key from the system's random source,
 * so that nobody can tell which keys meet. Not for anything that is kept or sent. */
#ifndef HF_BASE_HASH_H
#define HF_BASE_HASH_H

#include <stddef.h>
#include <stdint.h>

struct hf_hash; /* of one thread, with a key of its own */

struct hf_hash *hf_hash_new(void); /* NULL: out of memory, or no random numbers */
void hf_hash_free(struct hf_hash *h); /* NULL is fine */
uint64_t hf_hash_of(struct hf_hash *h, const void *p, size_t n);

#endif
