#include "base/allow.h"

#include <arpa/inet.h>
#include <errno.h>
#include <netinet/in.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static const uint8_t mapped[12] = {[10] = 0xff, [11] = 0xff};

/* 32 or 128: how many bits its text may count; 0: no address. */
static unsigned number(const char *text, uint8_t out[16])
{
    if (inet_pton(AF_INET6, text, out) == 1)
        return 128;
    memcpy(out, mapped, sizeof mapped);
    return inet_pton(AF_INET, text, out + 12) == 1 ? 32 : 0;
}

static bool same_bits(const uint8_t *a, const uint8_t *b, unsigned bits)
{
    unsigned rest = bits % 8;

    if (memcmp(a, b, bits / 8) != 0)
        return false;
    return rest == 0 || ((a[bits / 8] ^ b[bits / 8]) >> (8 - rest)) == 0;
}

/* Bits behind the prefix are a mistake that would let in more than was meant. */
static bool is_network(const struct hf_network *n)
{
    uint8_t cut[16] = {0};

    memcpy(cut, n->address, n->bits / 8);
    if (n->bits % 8 != 0)
        cut[n->bits / 8] = (uint8_t)(n->address[n->bits / 8] & (0xff00 >> (n->bits % 8)));
    return memcmp(cut, n->address, sizeof cut) == 0;
}

static int add_one(struct hf_allow *a, char *text, struct hf_error *err)
{
    struct hf_network n;
    char *slash = strchr(text, '/'), *end;
    unsigned width;
    unsigned long bits;

    if (slash != NULL)
        *slash++ = '\0';
    width = number(text, n.address);
    bits = width;
    if (slash != NULL) {
        bits = strtoul(slash, &end, 10);
        if (*slash < '0' || *slash > '9' || *end != '\0' || bits > width)
            width = 0;
    }
    n.bits = (unsigned)bits + 128 - width;
    if (width == 0)
        return hf_fail(err, HF_EINVAL, "%s%s%s: not a network (hint: 10.0.0.0/8, fd00::/8)", text,
                       slash != NULL ? "/" : "", slash != NULL ? slash : "");
    if (!is_network(&n))
        return hf_fail(err, HF_EINVAL, "%s/%lu: the address has bits behind the first %lu (hint: one address is "
                                       "%s/%u)",
                       text, bits, bits, text, width);
    if (a->n == HF_ALLOW_MAX)
        return hf_fail(err, HF_EINVAL, "more than %d networks", HF_ALLOW_MAX);
    a->networks[a->n++] = n;
    return 0;
}

int hf_allow_add(struct hf_allow *a, const char *text, struct hf_error *err)
{
    char *copy = strdup(text), *at = copy, *one;
    int rv = 0;

    if (copy == NULL)
        return hf_fail(err, HF_ENOMEM, "out of memory");
    while (rv == 0 && (one = strsep(&at, ", ")) != NULL)
        if (*one != '\0')
            rv = add_one(a, one, err);
    free(copy);
    return rv;
}

bool hf_allow_has(const struct hf_allow *a, const struct sockaddr *from)
{
    uint8_t address[16];

    if (a->n == 0)
        return true;
    if (from->sa_family == AF_INET6) {
        memcpy(address, &((const struct sockaddr_in6 *)(const void *)from)->sin6_addr, 16);
    } else if (from->sa_family == AF_INET) {
        memcpy(address, mapped, sizeof mapped);
        memcpy(address + 12, &((const struct sockaddr_in *)(const void *)from)->sin_addr, 4);
    } else {
        return false;
    }
    for (unsigned i = 0; i < a->n; i++)
        if (same_bits(a->networks[i].address, address, a->networks[i].bits))
            return true;
    return false;
}
