/* Numbers in texts from outside: digits and nothing else, so that no sign, blank, unit or overflow makes another number of
 * what was meant. */
#ifndef HF_BASE_NUMBER_H
#define HF_BASE_NUMBER_H

#include <stdbool.h>
#include <stddef.h>
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

/* The value of a hexadecimal digit; above 15: it is none. */
static inline unsigned hf_hex_digit(char c)
{
    if (c >= '0' && c <= '9')
        return (unsigned)(c - '0');
    c |= 0x20;
    return c >= 'a' && c <= 'f' ? (unsigned)(c - 'a') + 10 : 16;
}

/* `n` bytes, two hexadecimal digits each, and nothing after them. False, and out[] as it was: it is something else, or NULL. */
static inline bool hf_hex_bytes(const char *text, uint8_t *out, size_t n)
{
    size_t digits = 0;

    while (text != NULL && hf_hex_digit(text[digits]) < 16)
        digits++;
    if (text == NULL || digits != 2 * n || text[digits] != '\0')
        return false;
    for (size_t i = 0; i < n; i++)
        out[i] = (uint8_t)(hf_hex_digit(text[2 * i]) << 4 | hf_hex_digit(text[2 * i + 1]));
    return true;
}

#endif
