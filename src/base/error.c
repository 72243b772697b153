#include "base/error.h"

#include <stdarg.h>
#include <stdio.h>

int hf_fail(struct hf_error *err, int code, const char *fmt, ...)
{
    if (err != NULL) {
        va_list ap;
        err->code = code;
        va_start(ap, fmt);
        (void)vsnprintf(err->text, sizeof err->text, fmt, ap);
        va_end(ap);
    }
    return code;
}

void hf_error_prefix(struct hf_error *err, const char *fmt, ...)
{
    char old[sizeof err->text];
    int n;
    va_list ap;

    if (err == NULL)
        return;
    (void)snprintf(old, sizeof old, "%s", err->text);
    va_start(ap, fmt);
    n = vsnprintf(err->text, sizeof err->text, fmt, ap);
    va_end(ap);
    if (n >= 0 && (size_t)n < sizeof err->text)
        (void)snprintf(err->text + n, sizeof err->text - (size_t)n, ": %s", old);
}
