/* Shared by the files of src/guard: a module of PostgreSQL's, not a part of the program. */
#ifndef HF_GUARD_GUARD_H
#define HF_GUARD_GUARD_H

#include "postgres.h"

#include "nodes/plannodes.h"
#include "tcop/utility.h"

/* report.c */
void hf_guard_report_init(void);
/* Around a utility statement, which need not be there any more behind it. */
enum hf_guard_after {
    HF_GUARD_NOTHING,
    HF_GUARD_DISCARDED_ALL,
    HF_GUARD_DISCARDED_SEQUENCES,
    HF_GUARD_DEALLOCATED_ALL,
    HF_GUARD_CLOSED_ALL,
};
enum hf_guard_after hf_guard_report_begin(const Node *stmt, ProcessUtilityContext context);
void hf_guard_report_end(enum hf_guard_after after);

/* holds.c: what there is now. Each to be called inside a transaction or at its end. */
bool hf_guard_holds_lock(void); /* a session's advisory lock; with no transaction's own any more */
/* Something will be left in the session's temporary schema when this transaction has committed: looked at before it does, and
 * again for each thing that is dropped after that. */
void hf_guard_temporary_look(void);
void hf_guard_temporary_dropped(Oid class_id, Oid object_id);
bool hf_guard_temporary_end(bool commit); /* the transaction's; is there something? */
void hf_guard_cursor_declared(const char *name); /* WITH HOLD */
void hf_guard_cursor_none(void);                 /* all are closed */
bool hf_guard_cursor_end(void);
void hf_guard_listen(const char *channel);
void hf_guard_unlisten(const char *channel); /* NULL: all */
void hf_guard_unlisten_not(void);            /* something was rolled back */
bool hf_guard_listen_end(bool commit);
/* Has this transaction set a setting for the session, as far as it has not been rolled back? */
bool hf_guard_setting_look(void);
bool hf_guard_seed_is_set(void); /* is `seed` among what it has set? */
bool hf_guard_function_leaves(Oid function); /* may it leave what cannot be seen? Not for PostgreSQL's own */

#endif
