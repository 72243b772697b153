/* What pg_controldata knows: read by the tool, because the file's layout differs between versions.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "postgres/private.h"

bool hf_pg_parse_lsn(const char *text, hf_lsn *lsn)
{
    unsigned hi, lo;
    int used = 0;

    if (sscanf(text, "%8X/%8X%n", &hi, &lo, &used) != 2 || used == 0)
        return false;
    *lsn = (hf_lsn)hi << 32 | lo;
    return true;
}

static const char *value_of(const char *line, const char *key)
{
    size_t n = strlen(key);

    if (strncmp(line, key, n) != 0 || line[n] != ':')
        return NULL;
    line += n + 1;
    while (*line == ' ')
        line++;
    return line;
}

static void parse_nonce(const char *text, uint8_t out[32])
{
    for (int i = 0; i < 32; i++) {
        unsigned byte;
        if (sscanf(text + 2 * i, "%2x", &byte) != 1) {
            memset(out, 0, 32);
            return;
        }
        out[i] = (uint8_t)byte;
    }
}

static void take_line(void *ctx, const char *line)
{
    struct hf_pg_control *c = ctx;
    const struct {
        const char *key;
        int *value;
    } numbers[] = {{"max_connections setting", &c->max_connections},
                   {"max_worker_processes setting", &c->max_worker_processes},
                   {"max_wal_senders setting", &c->max_wal_senders},
                   {"max_prepared_xacts setting", &c->max_prepared_transactions},
                   {"max_locks_per_xact setting", &c->max_locks_per_transaction}};
    const char *v;

    if ((v = value_of(line, "Database system identifier")) != NULL)
        c->system_id = strtoull(v, NULL, 10);
    else if ((v = value_of(line, "Latest checkpoint's REDO location")) != NULL)
        (void)hf_pg_parse_lsn(v, &c->redo);
    else if ((v = value_of(line, "Latest checkpoint's TimeLineID")) != NULL)
        c->timeline = (uint32_t)strtoul(v, NULL, 10);
    else if ((v = value_of(line, "Minimum recovery ending location")) != NULL)
        (void)hf_pg_parse_lsn(v, &c->min_recovery);
    else if ((v = value_of(line, "Min recovery ending loc's timeline")) != NULL)
        c->min_recovery_timeline = (uint32_t)strtoul(v, NULL, 10);
    else if ((v = value_of(line, "Bytes per WAL segment")) != NULL)
        c->segment_bytes = (uint32_t)strtoul(v, NULL, 10);
    else if ((v = value_of(line, "Mock authentication nonce")) != NULL && strlen(v) >= 64)
        parse_nonce(v, c->mock_nonce);
    else if ((v = value_of(line, "Database cluster state")) != NULL)
        c->clean = strncmp(v, "shut down", 9) == 0;
    for (size_t i = 0; i < sizeof numbers / sizeof *numbers; i++)
        if ((v = value_of(line, numbers[i].key)) != NULL)
            *numbers[i].value = (int)strtol(v, NULL, 10);
}

int hf_pg_control_read(struct hf_pg *pg, const char *data, struct hf_pg_control *control,
                       struct hf_error *err)
{
    const char *argv[] = {"pg_controldata", "-D", data, NULL};
    int code;

    memset(control, 0, sizeof *control);
    code = hf_pg_tool(pg, argv, 10000, take_line, control, NULL, err);
    if (code != 0)
        return code;
    if (control->system_id == 0 || control->segment_bytes == 0 || control->timeline == 0)
        return hf_fail(err, HF_ECORRUPT, "%s: pg_controldata tells nothing useful about %s",
                       pg->name, data);
    return 0;
}
