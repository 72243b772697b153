#include "router/sasl.h"

#include <assert.h>
#include <string.h>

#include <openssl/crypto.h>

#include "router/wire.h"

enum { SASL = 10, CONTINUE = 11, FINAL = 12, HEAD = 5 };

static const char plain_name[] = "SCRAM-SHA-256", plus_name[] = "SCRAM-SHA-256-PLUS";

/* An Authentication message. */
static size_t authentication(uint32_t code, const void *body, size_t n, uint8_t out[HF_SASL_OUT_MAX])
{
    assert(HEAD + 4 + n <= HF_SASL_OUT_MAX);
    out[0] = 'R';
    hf_scan_put(out + 1, (uint32_t)(8 + n));
    hf_scan_put(out + HEAD, code);
    memcpy(out + HEAD + 4, body, n);
    return HEAD + 4 + n;
}

size_t hf_sasl_begin(struct hf_sasl *s, const struct hf_scram_verifier *v, bool doomed, const uint8_t *binding,
                     size_t binding_len, uint8_t out[HF_SASL_OUT_MAX])
{
    char list[64] = {0};
    size_t n = 0;

    memset(s, 0, sizeof *s);
    hf_scram_server_init(&s->scram, v, doomed, binding, binding_len);
    if (binding != NULL) {
        memcpy(list, plus_name, sizeof plus_name);
        n = sizeof plus_name;
    }
    memcpy(list + n, plain_name, sizeof plain_name);
    n += sizeof plain_name + 1; /* an empty name ends the list */
    return authentication(SASL, list, n, out);
}

size_t hf_sasl_need(const uint8_t *p, size_t n)
{
    uint32_t len;

    if (n > 0 && p[0] != 'p')
        return 0;
    if (n < HEAD)
        return HEAD;
    len = hf_scan_number(p + 1);
    return len >= 4 && len <= HF_SASL_IN_MAX - 1 ? 1 + (size_t)len : 0;
}

bool hf_sasl_is_proof(const struct hf_sasl *s)
{
    return s->expects == HF_SASL_FINAL;
}

static enum hf_scram_verdict bad(struct hf_sasl *s, const char *text)
{
    s->scram.sqlstate = "08P01";
    s->scram.text = text;
    return HF_SCRAM_BAD;
}

static enum hf_scram_verdict first(struct hf_sasl *s, const uint8_t *p, size_t n, const char *nonce,
                                   uint8_t out[HF_SASL_OUT_MAX], size_t *len)
{
    char text[HF_SCRAM_MESSAGE_MAX];
    enum hf_scram_verdict v = hf_scram_server_first(&s->scram, s->plus, (const char *)p, n, nonce, text);

    if (v != HF_SCRAM_GOES_ON)
        return v;
    s->expects = HF_SASL_FINAL;
    *len = authentication(CONTINUE, text, strlen(text), out);
    return v;
}

/* SASLInitialResponse: the mechanism's name, and the first message or a length of -1 for none. */
static enum hf_scram_verdict mechanism(struct hf_sasl *s, const uint8_t *p, size_t n, const char *nonce,
                                       uint8_t out[HF_SASL_OUT_MAX], size_t *len)
{
    const uint8_t *end = memchr(p, '\0', n);
    size_t name = end != NULL ? (size_t)(end - p) + 1 : 0;
    uint32_t announced;

    if (end == NULL || n - name < 4)
        return bad(s, "invalid SASL message");
    s->plus = s->scram.may_bind && strcmp((const char *)p, plus_name) == 0;
    if (!s->plus && strcmp((const char *)p, plain_name) != 0)
        return bad(s, "client selected an invalid SASL authentication mechanism");
    announced = hf_scan_number(p + name);
    p += name + 4;
    n -= name + 4;
    if (announced == UINT32_MAX && n == 0) {
        s->expects = HF_SASL_FIRST;
        *len = authentication(CONTINUE, "", 0, out);
        return HF_SCRAM_GOES_ON;
    }
    if (announced != n)
        return bad(s, "invalid SASL message");
    return first(s, p, n, nonce, out, len);
}

enum hf_scram_verdict hf_sasl_hear(struct hf_sasl *s, const uint8_t *p, size_t n, const char nonce[HF_SCRAM_NONCE + 1],
                                   uint8_t out[HF_SASL_OUT_MAX], size_t *len)
{
    char text[HF_SCRAM_MESSAGE_MAX];
    enum hf_scram_verdict v;

    assert(n >= HEAD && hf_sasl_need(p, n) == n);
    p += HEAD;
    n -= HEAD;
    *len = 0;
    switch (s->expects) {
    case HF_SASL_MECHANISM:
        return mechanism(s, p, n, nonce, out, len);
    case HF_SASL_FIRST:
        return first(s, p, n, nonce, out, len);
    case HF_SASL_FINAL:
        s->expects = HF_SASL_DONE;
        v = hf_scram_server_final(&s->scram, (const char *)p, n, text);
        if (v == HF_SCRAM_RIGHT)
            *len = authentication(FINAL, text, strlen(text), out);
        return v;
    default:
        return bad(s, "unexpected SASL message");
    }
}

void hf_sasl_wipe(struct hf_sasl *s)
{
    OPENSSL_cleanse(s, sizeof *s);
}

/* -- to PostgreSQL --------------------------------------------------------------------------- */

size_t hf_sasl_initial(const char *text, uint8_t out[HF_SASL_OUT_MAX + 16])
{
    size_t n = strlen(text), at = HEAD;

    assert(n < HF_SCRAM_MESSAGE_MAX);
    memcpy(out + at, plain_name, sizeof plain_name);
    at += sizeof plain_name;
    hf_scan_put(out + at, (uint32_t)n);
    memcpy(out + at + 4, text, n);
    at += 4 + n;
    out[0] = 'p';
    hf_scan_put(out + 1, (uint32_t)at - 1);
    return at;
}

size_t hf_sasl_response(const char *text, uint8_t out[HF_SASL_OUT_MAX + 16])
{
    size_t n = strlen(text);

    assert(n < HF_SCRAM_MESSAGE_MAX);
    out[0] = 'p';
    hf_scan_put(out + 1, (uint32_t)n + 4);
    memcpy(out + HEAD, text, n);
    return HEAD + n;
}

bool hf_sasl_offers_scram(const uint8_t *list, size_t n)
{
    while (n > 0 && list[0] != '\0') {
        const uint8_t *end = memchr(list, '\0', n);
        if (end == NULL)
            return false;
        if (strcmp((const char *)list, plain_name) == 0)
            return true;
        n -= (size_t)(end - list) + 1;
        list = end + 1;
    }
    return false;
}
