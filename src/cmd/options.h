/* Flags of a verb: one table says how they are read, from where, and what --help prints. */
#ifndef HF_CMD_OPTIONS_H
#define HF_CMD_OPTIONS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdio.h>

#include "base/error.h"

enum hf_option_kind {
    HF_OPT_FLAG,   /* bool *out */
    HF_OPT_TEXT,   /* char out[cap] */
    HF_OPT_NUMBER, /* unsigned *out, min .. max */
    HF_OPT_LIST,   /* struct hf_option_list *out; may be given several times */
};

enum { HF_OPTION_LIST_MAX = 64 };

struct hf_option_list {
    unsigned n;
    const char *items[HF_OPTION_LIST_MAX]; /* borrowed from argv or the environment */
};

struct hf_option {
    const char *flag; /* without the dashes */
    char letter;      /* 0: none */
    enum hf_option_kind kind;
    void *out;
    size_t cap;         /* TEXT */
    unsigned min, max;  /* NUMBER */
    const char *env;    /* read before the flags; NULL: none. LIST: separated by blanks or commas */
    const char *value;  /* what --help calls the value; NULL for a flag */
    const char *help;
};

struct hf_operands {
    unsigned n, max;
    const char *items[8];
};

/* argv[0] is the verb. Returns 0; 1 if --help was asked for; or HF_EINVAL with a word on what is wrong.
 * `operands` takes what is not a flag; NULL: nothing may be there. */
int hf_options_parse(const struct hf_option *o, unsigned n, int argc, char **argv,
                     struct hf_operands *operands, struct hf_error *err);
/* The table as text, aligned. */
void hf_options_print(FILE *f, const struct hf_option *o, unsigned n);

#endif
