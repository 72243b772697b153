/* PostgreSQL refuses to run as root: root becomes the user `postgres`, everybody else stays. */
#ifndef HF_LOCAL_USER_H
#define HF_LOCAL_USER_H

#include <stdbool.h>

#include "base/error.h"

/* Root gives itself up for good; anybody else: nothing happens. */
int hf_user_drop(struct hf_error *err);
/* As root: makes `path` the user's. Anybody else: nothing happens. */
int hf_user_own(const char *path, struct hf_error *err);
/* Could the user that PostgreSQL will run as pass through the directory `path`? */
bool hf_user_can_enter(const char *path);

#endif
