/* Numbers in texts from outside: decimal digits and nothing else, so that no sign, blank, unit or
 * overflow makes another number of what was meant. */
#ifndef HF_BASE_NUMBER_H
#define HF_BASE_NUMBER_H

#include <stdbool.h>
#include <stdint.h>

/* False, and *out as it was: not such a number (NULL is none), or above `max`. */
static inline bool hf_number(const char *text, uint64_t max, uint64_t *out)
{
    uint64_t v = 0;

    if (text == NULL || *text == '\0')
        return false;
    for (; *text != '\0'; text++) {
        unsigned digit = (unsigned)(unsigned char)*text - '0';
        if (digit > 9 || v > max / 10 || digit > max - v * 10)
            return false;
        v = v * 10 + digit;
    }
    *out = v;
    return true;
}

#endif
