/* PostgreSQL refuses to run as root: root becomes the user `postgres`, everybody else stays. */
#ifndef HF_LOCAL_USER_H
#define HF_LOCAL_USER_H

#include <stdbool.h>
#include <sys/types.h>

#include "base/error.h"

/* Root gives itself up for good; anybody else: nothing happens. */
int hf_user_drop(struct hf_error *err);
/* As root: makes the open file the user's; `path` is for the message. Anybody else: nothing happens. */
int hf_user_own(int fd, const char *path, struct hf_error *err);
/* May what belongs to `owner` be used? As root: what is root's or the user's, and nobody else could plant. Anybody else: all. */
bool hf_user_trusts(uid_t owner);
/* Could the user that PostgreSQL will run as pass through the directory `path`? */
bool hf_user_can_enter(const char *path);

#endif
