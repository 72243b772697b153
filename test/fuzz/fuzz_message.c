/* Messages between nodes: what decodes must be exactly what encoding it gives. */
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "core/message.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    uint8_t again[HF_MSG_BYTES_MAX];
    struct hf_msg m;

    if (!hf_msg_decode(&m, data, size))
        return 0;
    if (hf_msg_encode(&m, again) != size || memcmp(again, data, size) != 0)
        abort();
    return 0;
}
