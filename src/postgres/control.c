/* What pg_controldata knows: read by the tool, because the file's layout differs between versions.
 */
#include <limits.h>
#include <stdlib.h>
#include <string.h>

#include "base/number.h"
#include "postgres/private.h"

/* The C library's functions take blanks, signs and "0x" as well. Where the number ends, or NULL: none of at most `most` digits. */
static const char *take_hex(const char *text, int most, uint32_t *out)
{
    const char *p = text;

    for (*out = 0; hf_hex_digit(*p) < 16; p++) {
        if (p - text == most)
            return NULL;
        *out = *out << 4 | hf_hex_digit(*p);
    }
    return p > text ? p : NULL;
}

bool hf_pg_parse_lsn(const char *text, hf_lsn *lsn)
{
    const char *p;
    uint32_t hi, lo;

    if ((p = take_hex(text, 8, &hi)) == NULL || *p != '/' || take_hex(p + 1, 8, &lo) == NULL)
        return false;
    *lsn = (hf_lsn)hi << 32 | lo;
    return true;
}

/* *out stays 0, "not told", for what is no such number. */
static void take_u32(const char *text, uint32_t *out)
{
    uint64_t v;

    if (hf_number(text, UINT32_MAX, &v))
        *out = (uint32_t)v;
}

enum { ATTEMPTS = 3 /* a server may be writing the file while it is read */ };

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
    uint64_t number;

    /* It says so, prints what it has read all the same, and ends with 0. */
    if (strstr(line, "Calculated CRC checksum does not match") != NULL)
        c->damaged = true;
    if ((v = value_of(line, "Database system identifier")) != NULL)
        (void)hf_number(v, UINT64_MAX, &c->system_id);
    else if ((v = value_of(line, "Latest checkpoint's REDO location")) != NULL)
        (void)hf_pg_parse_lsn(v, &c->redo);
    else if ((v = value_of(line, "Latest checkpoint's TimeLineID")) != NULL)
        take_u32(v, &c->timeline);
    else if ((v = value_of(line, "Minimum recovery ending location")) != NULL)
        (void)hf_pg_parse_lsn(v, &c->min_recovery);
    else if ((v = value_of(line, "Backup start location")) != NULL)
        (void)hf_pg_parse_lsn(v, &c->backup_start);
    else if ((v = value_of(line, "Min recovery ending loc's timeline")) != NULL)
        take_u32(v, &c->min_recovery_timeline);
    else if ((v = value_of(line, "Bytes per WAL segment")) != NULL)
        take_u32(v, &c->segment_bytes);
    else if ((v = value_of(line, "Mock authentication nonce")) != NULL)
        (void)hf_hex_bytes(v, c->mock_nonce, sizeof c->mock_nonce);
    else if ((v = value_of(line, "Database cluster state")) != NULL)
        c->clean = strncmp(v, "shut down", 9) == 0;
    for (size_t i = 0; i < sizeof numbers / sizeof *numbers; i++)
        if ((v = value_of(line, numbers[i].key)) != NULL && hf_number(v, INT_MAX, &number))
            *numbers[i].value = (int)number;
}

/* What initdb can make: a power of two from 1 MB to 1 GB. */
static bool is_segment_size(uint32_t bytes)
{
    return bytes >= 1u << 20 && bytes <= 1u << 30 && (bytes & (bytes - 1)) == 0;
}

int hf_pg_control_read(struct hf_pg *pg, const char *data, struct hf_pg_control *control,
                       struct hf_error *err)
{
    const char *argv[] = {"pg_controldata", "-D", data, NULL};
    int code = 0;

    control->damaged = true;
    for (int i = 0; code == 0 && control->damaged && i < ATTEMPTS; i++) {
        memset(control, 0, sizeof *control);
        code = hf_pg_tool(pg, argv, 10000, take_line, control, NULL, err);
    }
    if (code != 0)
        return code;
    if (control->damaged)
        return hf_fail(err, HF_ECORRUPT, "%s: global/pg_control in %s is damaged: its checksum is wrong", pg->name, data);
    if (control->system_id == 0 || !is_segment_size(control->segment_bytes) || control->timeline == 0)
        return hf_fail(err, HF_ECORRUPT, "%s: pg_controldata tells nothing useful about %s",
                       pg->name, data);
    return 0;
}
