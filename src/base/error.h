/* One error convention: a function returns 0 or a negative HF_E..., and where a person will read it,
 * fills a struct hf_error with what happened, where, and what to do next. */
#ifndef HF_BASE_ERROR_H
#define HF_BASE_ERROR_H

#include <stddef.h>

enum {
    HF_EINVAL = -1,  /* bad argument or malformed input */
    HF_ENOMEM = -2,
    HF_EIO = -3,     /* a system call failed; the message tells errno */
    HF_ENOENT = -4,
    HF_EEXIST = -5,
    HF_EPERM = -6,
    HF_ENOSPC = -7,
    HF_ETIMEOUT = -8,
    HF_ECLOSED = -9, /* the other end is gone */
    HF_EBUSY = -10,
    HF_EREFUSED = -11, /* the other end said no */
    HF_ETLS = -12,
    HF_EPG = -13,    /* PostgreSQL or one of its tools failed */
    HF_ECORRUPT = -14,
};

struct hf_error {
    int code;
    char text[512];
};

/* Fills `err` (may be NULL) and returns `code`, so that `return hf_fail(err, HF_EIO, ...)` works.
 * The text reads "what, where: why (hint: what to do)". */
int hf_fail(struct hf_error *err, int code, const char *fmt, ...)
    __attribute__((format(printf, 3, 4)));
/* Puts more context in front: "context: text". */
void hf_error_prefix(struct hf_error *err, const char *fmt, ...)
    __attribute__((format(printf, 2, 3)));

#endif
