#include "base/hash.h"

#include <stdlib.h>
#include <string.h>

#include <openssl/core_names.h>
#include <openssl/evp.h>
#include <openssl/params.h>
#include <openssl/rand.h>

enum { KEY = 16, SIZE = 8 };

struct hf_hash {
    EVP_MAC_CTX *ctx;
    uint8_t key[KEY];
};

struct hf_hash *hf_hash_new(void)
{
    size_t size = SIZE;
    OSSL_PARAM params[] = {OSSL_PARAM_construct_size_t(OSSL_MAC_PARAM_SIZE, &size), OSSL_PARAM_construct_end()};
    struct hf_hash *h = calloc(1, sizeof *h);
    EVP_MAC *mac = EVP_MAC_fetch(NULL, "SIPHASH", NULL);

    if (h != NULL && mac != NULL)
        h->ctx = EVP_MAC_CTX_new(mac);
    EVP_MAC_free(mac); /* the context has a reference */
    if (h != NULL && h->ctx != NULL && EVP_MAC_CTX_set_params(h->ctx, params) == 1 &&
        RAND_bytes(h->key, KEY) == 1)
        return h;
    hf_hash_free(h);
    return NULL;
}

void hf_hash_free(struct hf_hash *h)
{
    if (h == NULL)
        return;
    EVP_MAC_CTX_free(h->ctx);
    free(h);
}

uint64_t hf_hash_of(struct hf_hash *h, const void *p, size_t n)
{
    uint8_t out[SIZE];
    uint64_t v;
    size_t len;

    /* Nothing is allocated here; a wrong value would have a key missed in its table. */
    if (EVP_MAC_init(h->ctx, h->key, KEY, NULL) != 1 || EVP_MAC_update(h->ctx, p, n) != 1 ||
        EVP_MAC_final(h->ctx, out, &len, sizeof out) != 1 || len != SIZE)
        abort();
    memcpy(&v, out, sizeof v);
    return v;
}
