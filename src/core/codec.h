/* Little-endian bytes, for cluster.c and message.c. A cursor that ran over its end stays bad. */
#ifndef HF_CORE_CODEC_H
#define HF_CORE_CODEC_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

struct hf_codec {
    uint8_t *out;       /* encoding */
    const uint8_t *in;  /* decoding */
    size_t at, len;
    bool bad;
};

static inline void hf_put(struct hf_codec *c, uint64_t v, unsigned bytes)
{
    if (c->bad || c->len - c->at < bytes) {
        c->bad = true;
        return;
    }
    for (unsigned i = 0; i < bytes; i++)
        c->out[c->at++] = (uint8_t)(v >> (8 * i));
}

static inline uint64_t hf_get(struct hf_codec *c, unsigned bytes)
{
    uint64_t v = 0;

    if (c->bad || c->len - c->at < bytes) {
        c->bad = true;
        return 0;
    }
    for (unsigned i = 0; i < bytes; i++)
        v |= (uint64_t)c->in[c->at++] << (8 * i);
    return v;
}

static inline void hf_put_bytes(struct hf_codec *c, const void *p, size_t n)
{
    if (c->bad || c->len - c->at < n) {
        c->bad = true;
        return;
    }
    memcpy(c->out + c->at, p, n);
    c->at += n;
}

static inline void hf_get_bytes(struct hf_codec *c, void *p, size_t n)
{
    if (c->bad || c->len - c->at < n) {
        c->bad = true;
        return;
    }
    memcpy(p, c->in + c->at, n);
    c->at += n;
}

/* A text of at most cap - 1 bytes: length, then bytes. */
static inline void hf_put_text(struct hf_codec *c, const char *s, size_t cap)
{
    size_t n = 0;

    while (n < cap && s[n] != '\0')
        n++;
    if (n == cap) {
        c->bad = true;
        return;
    }
    hf_put(c, n, 1);
    hf_put_bytes(c, s, n);
}

static inline void hf_get_text(struct hf_codec *c, char *s, size_t cap)
{
    size_t n = (size_t)hf_get(c, 1);

    if (c->bad || n >= cap) {
        c->bad = true;
        return;
    }
    memset(s, 0, cap);
    hf_get_bytes(c, s, n);
    if (!c->bad && memchr(s, '\0', n) != NULL)
        c->bad = true;
}

static inline bool hf_get_bool(struct hf_codec *c)
{
    uint64_t v = hf_get(c, 1);

    if (v > 1)
        c->bad = true;
    return v == 1;
}

#endif
