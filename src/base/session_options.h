/* How Holdfast's own sessions with PostgreSQL start, whatever a setting, a role or a database has for a default: with serializable
 * transactions a standby answers nothing (predicate.c), read only nothing can be written that proves a leader, and a function that
 * somebody has made in a schema on the search path would run with the superuser's rights. For libpq's "options". */
#ifndef HF_BASE_SESSION_OPTIONS_H
#define HF_BASE_SESSION_OPTIONS_H

#define HF_SESSION_OPTIONS                                                                               \
    "-c statement_timeout=0 -c lock_timeout=0 -c idle_in_transaction_session_timeout=0"                  \
    " -c default_transaction_isolation=read\\ committed -c default_transaction_read_only=off"            \
    " -c default_transaction_deferrable=off -c search_path=pg_catalog -c lc_messages=C"

#endif
