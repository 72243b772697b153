/* Settings that people give in a file, as a ConfigMap's volume: read, refused with a reason, tried,
 * taken.
 *
 * The file has postgresql.conf's form without includes. What is in force lies in the node's
 * directory (extra_conf, included by postgresql.conf), so a node starts with settings that were
 * good, whatever the file says meanwhile. From any thread but not from two at once. */
#ifndef HF_POSTGRES_USER_SETTINGS_H
#define HF_POSTGRES_USER_SETTINGS_H

#include "postgres/postgres.h"

enum { HF_SETTINGS_FILE_MAX = 64 * 1024, HF_SETTINGS_NAMES_MAX = 400 };

/* Why a setting is Holdfast's own; NULL: it is not. */
const char *hf_pg_owned(const char *name);
/* Whether each line is a setting that people may make. The message has the line's number. */
int hf_pg_user_settings_check(const char *text, struct hf_error *err);
/* Checks the text, lets PostgreSQL try it, puts it in the place of extra_conf, and has a running
 * server read it. HF_EINVAL: refused, nothing has changed. */
int hf_pg_user_settings_take(struct hf_pg *pg, const char *text, struct hf_error *err);
/* The settings that wait for a restart, with commas; "": none. HF_E...: nobody could be asked. */
int hf_pg_pending(struct hf_pg *pg, char names[HF_SETTINGS_NAMES_MAX], struct hf_error *err);
/* Ends a standby's server cleanly as if by itself: the host hears of it, and starts it again. */
int hf_pg_let_end(struct hf_pg *pg);

#endif
