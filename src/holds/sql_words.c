/* Settings that change how statements are read. */
#include <string.h>

#include "holds/sql_private.h"

bool hf_sql_is_of_transaction(const char *name)
{
    static const char *const names[] = {"transaction", "transaction_isolation", "transaction_read_only", "transaction_deferrable"};

    for (size_t i = 0; i < sizeof names / sizeof *names; i++)
        if (strcmp(name, names[i]) == 0)
            return true;
    return false;
}

bool hf_sql_setting_parses(const char *name)
{
    static const char *const parses[] = {"search_path",
                                         "role",
                                         "session_authorization",
                                         "datestyle",
                                         "intervalstyle",
                                         "timezone",
                                         "timezone_abbreviations",
                                         "standard_conforming_strings",
                                         "backslash_quote",
                                         "transform_null_equals",
                                         "client_encoding",
                                         "lc_monetary",
                                         "lc_numeric",
                                         "lc_time",
                                         "xmloption",
                                         "array_nulls",
                                         "default_text_search_config"};

    for (size_t i = 0; i < sizeof parses / sizeof *parses; i++)
        if (strcmp(name, parses[i]) == 0)
            return true;
    return false;
}
