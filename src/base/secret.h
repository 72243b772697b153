/* Secrets for others: passwords, and files as the data of a Kubernetes Secret. */
#ifndef HF_BASE_SECRET_H
#define HF_BASE_SECRET_H

#include <stdio.h>

#include "base/error.h"

enum { HF_PASSWORD_LETTERS = 24 };

/* 144 random bits, in letters none of which needs quoting in a URI, a shell, SQL or JSON. */
int hf_password_make(char out[HF_PASSWORD_LETTERS + 1], struct hf_error *err);

/* One line of a Secret's `data`: "  key: " and the file in base64. */
int hf_secret_print(FILE *out, const char *key, const char *path, struct hf_error *err);

#endif
