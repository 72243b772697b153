/* The words that matter: PostgreSQL's own functions that leave something in a session, settings
 * that change how statements are read. */
#include <stdlib.h>
#include <string.h>

#include "holds/sql_private.h"

struct word {
    const char *name;
    uint32_t pins; /* as a function */
};

#define LOCK   HF_HOLD_BIT(HF_HOLD_LOCK)
#define UNSURE HF_HOLD_BIT(HF_HOLD_UNSURE)
#define SLOT   HF_HOLD_BIT(HF_HOLD_SLOT)
#define CODE   HF_HOLD_BIT(HF_HOLD_CODE)
#define SEQ    HF_HOLD_BIT(HF_HOLD_SEQUENCE)

/* Sorted. Those that run SQL given to them as text can do anything. */
static const struct word words[] = {
    {"currval", SEQ},
    {"cursor_to_xml", CODE},
    {"cursor_to_xmlschema", CODE},
    {"lastval", SEQ},
    {"pg_advisory_lock", LOCK},
    {"pg_advisory_lock_shared", LOCK},
    {"pg_advisory_unlock", UNSURE},
    {"pg_advisory_unlock_all", UNSURE},
    {"pg_advisory_unlock_shared", UNSURE},
    {"pg_backup_start", SLOT},
    {"pg_backup_stop", SLOT},
    {"pg_copy_logical_replication_slot", SLOT},
    {"pg_copy_physical_replication_slot", SLOT},
    {"pg_create_logical_replication_slot", SLOT},
    {"pg_create_physical_replication_slot", SLOT},
    {"pg_replication_origin_session_reset", SLOT},
    {"pg_replication_origin_session_setup", SLOT},
    {"pg_settings", 0}, /* for the grammar */
    {"pg_start_backup", SLOT},
    {"pg_stop_backup", SLOT},
    {"pg_try_advisory_lock", LOCK},
    {"pg_try_advisory_lock_shared", LOCK},
    {"query_to_xml", CODE},
    {"query_to_xml_and_xmlschema", CODE},
    {"query_to_xmlschema", CODE},
    {"set_config", HF_HOLD_BIT(HF_HOLD_SETTING)},
    {"setseed", HF_HOLD_BIT(HF_HOLD_SEED)},
    {"ts_rewrite", CODE},
    {"ts_stat", CODE},
};

static int by_name(const void *key, const void *member)
{
    return strcmp(key, ((const struct word *)member)->name);
}

static const struct word *find(const char *name)
{
    return bsearch(name, words, sizeof words / sizeof *words, sizeof *words, by_name);
}

uint32_t hf_sql_function_pins(const char *name)
{
    const struct word *w = find(name);

    return w != NULL ? w->pins : 0;
}

static bool begins(const char *name, const char *with)
{
    return strncmp(name, with, strlen(with)) == 0;
}

bool hf_sql_is_telling(const char *word)
{
    /* Most words begin with none of these: no search. */
    return strchr("clpqst", word[0]) != NULL && (begins(word, "pg_temp") || find(word) != NULL);
}

bool hf_sql_setting_parses(const char *name)
{
    static const char *const parses[] = {"search_path",
                                         "role",
                                         "session_authorization",
                                         "datestyle",
                                         "intervalstyle",
                                         "timezone",
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

/* In a block's source every word counts, wherever it stands: strings may be run. */
uint32_t hf_sql_block_pins(const char *body, size_t len)
{
    static const char *const hidden[] = {"set",     "reset",  "execute", "load", "discard",
                                         "prepare", "dblink", "commit",  "call", "rollback"};
    struct hf_lexer l = {.p = body, .end = body + len};
    struct hf_token t;
    uint32_t pins = UNSURE;

    for (hf_lexer_next(&l, &t); t.kind != HF_TOKEN_END; hf_lexer_next(&l, &t)) {
        if (t.kind == HF_TOKEN_BAD)
            return pins | CODE;
        if (t.kind != HF_TOKEN_WORD && t.kind != HF_TOKEN_QUOTED)
            continue;
        pins |= hf_sql_function_pins(t.name);
        for (size_t i = 0; i < sizeof hidden / sizeof *hidden; i++)
            if (strcmp(t.name, hidden[i]) == 0)
                pins |= CODE;
    }
    return pins;
}
