/* From which networks clients may come. */
#ifndef HF_BASE_ALLOW_H
#define HF_BASE_ALLOW_H

#include <stdbool.h>
#include <stdint.h>
#include <sys/socket.h>

#include "base/error.h"

enum { HF_ALLOW_MAX = 64 };

struct hf_network {
    uint8_t address[16]; /* IPv4 as ::ffff:a.b.c.d */
    unsigned bits;       /* 0 .. 128 */
};

struct hf_allow {
    unsigned n; /* 0: from everywhere */
    struct hf_network networks[HF_ALLOW_MAX];
};

/* Adds a network or several with commas between: 10.0.0.0/8, fd00::/8; without a slash: that address alone. */
int hf_allow_add(struct hf_allow *a, const char *text, struct hf_error *err);
bool hf_allow_has(const struct hf_allow *a, const struct sockaddr *from);

#endif
