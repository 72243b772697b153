/* A replication stream read in passing: the same news however the bytes are cut. */
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "peer/walwatch.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static struct hf_walwatch one, many;
    bool from_primary;

    if (size < 1)
        return 0;
    from_primary = data[0] & 1;
    hf_walwatch_init(&one, from_primary);
    hf_walwatch_init(&many, from_primary);
    hf_walwatch_bytes(&one, data + 1, size - 1);
    for (size_t i = 1; i < size; i++)
        hf_walwatch_bytes(&many, data + i, 1);
    if (one.flushed != many.flushed || one.applied != many.applied || one.broken != many.broken ||
        one.wal_missing != many.wal_missing || one.named != many.named ||
        (one.named && strcmp(one.application_name, many.application_name) != 0))
        abort();
    return 0;
}
