/* What the code in a database (functions, triggers, views, extensions) can leave in a session.
 *
 * PostgreSQL is asked with one query, which finds the functions whose source has a word in it that
 * could leave something, or is in a language or an extension that is not known to leave nothing,
 * and then those that can be reached without being named. The answer says for each whether what it
 * could leave is visible in catalogues (locks, LISTEN, temporary objects, cursors) or hidden
 * (settings, other languages' state). */
#ifndef HF_HOLDS_CODE_H
#define HF_HOLDS_CODE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/error.h"
#include "holds/sql.h"

enum hf_code_leaves { HF_CODE_NOTHING, HF_CODE_VISIBLE, HF_CODE_HIDDEN };

struct hf_code;

/* For the simple protocol, in the database in question, by a role that may read its catalogues; one
 * row of one text column. Costs milliseconds: see docs/clients.md. */
const char *hf_code_query(void);
/* The row's value. HF_ENOMEM, HF_EINVAL. */
int hf_code_read(struct hf_code **out, const char *value, size_t len);
void hf_code_free(struct hf_code *c); /* NULL is fine */

enum hf_code_leaves hf_code_unnamed(const struct hf_code *c); /* by any statement that runs code */
/* By a statement with these words. */
enum hf_code_leaves hf_code_named(const struct hf_code *c, const struct hf_sql *q);
/* Of all that is there. */
enum hf_code_leaves hf_code_worst(const struct hf_code *c);

#endif
