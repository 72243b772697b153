/* What a client says when it is asked for its password: never a wrong "right", never beyond the message or our own bounds. The
 * input: one byte of options, then messages, each with two bytes of length in front. */
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "router/sasl.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void say(struct hf_sasl *s, const uint8_t *p, size_t n)
{
    static const char nonce[] = "ABCDEFGHIJKLMNOPQRSTUVWX";
    uint8_t *message = malloc(n), out[HF_SASL_OUT_MAX]; /* its own block, so that reading beyond it shows */
    size_t len = 0;
    enum hf_scram_verdict v;

    if (message == NULL)
        return;
    memcpy(message, p, n);
    v = hf_sasl_hear(s, message, n, nonce, out, &len);
    free(message);
    if (v == HF_SCRAM_RIGHT)
        abort(); /* nobody can know the key */
    if (len > sizeof out || (v == HF_SCRAM_GOES_ON) != (len > 0))
        abort();
    if (v == HF_SCRAM_BAD && (s->scram.sqlstate == NULL || strlen(s->scram.sqlstate) != 5 || s->scram.text == NULL))
        abort();
}

/* A server's messages, to our client. */
static void answer(const uint8_t *p, size_t n)
{
    struct hf_scram_keys keys = {{1}, {2}};
    struct hf_scram_client c;
    char out[HF_SCRAM_MESSAGE_MAX];

    (void)hf_sasl_offers_scram(p, n);
    hf_scram_client_first(&c, "abcdefghijklmnopqrstuvwx", out);
    if (hf_scram_client_final(&c, &keys, (const char *)p, n, out) && strlen(out) >= sizeof out)
        abort();
    if (hf_scram_client_check(&c, &keys, (const char *)p, n))
        abort();
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static const uint8_t secret[HF_SCRAM_KEY] = {7}, binding[32] = {9};
    struct hf_scram_verifier v;
    uint8_t out[HF_SASL_OUT_MAX];
    struct hf_sasl s;
    char text[HF_SCRAM_VERIFIER_MAX] = {0};

    if (size < 3)
        return 0;
    memcpy(text, data, size < sizeof text ? size : sizeof text - 1);
    if (hf_scram_verifier_parse(&v, text)) {
        struct hf_scram_verifier again;
        hf_scram_verifier_print(&v, text);
        if (!hf_scram_verifier_parse(&again, text) || again.salt_len != v.salt_len)
            abort();
    }
    hf_scram_verifier_mock(&v, secret, "role", 4096);
    (void)hf_sasl_begin(&s, &v, data[0] & 2, data[0] & 1 ? binding : NULL, sizeof binding, out);
    data++;
    size--;
    answer(data, size);
    while (size >= 2) {
        size_t n = (size_t)data[0] << 8 | data[1];
        data += 2;
        size -= 2;
        if (n > size)
            n = size;
        if (n >= 5 && hf_sasl_need(data, n) == n)
            say(&s, data, n);
        data += n;
        size -= n;
    }
    return 0;
}
