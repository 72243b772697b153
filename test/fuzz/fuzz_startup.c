/* The first bytes of a client: parsed alike however they are cut, and never read beyond. */
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "router/reads.h"
#include "router/wire.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct hf_startup whole = hf_startup_parse(data, size);

    if (whole.kind == HF_STARTUP_BAD && (whole.sqlstate == NULL || strlen(whole.sqlstate) != 5))
        abort();
    if ((whole.kind == HF_STARTUP_SESSION || whole.kind == HF_STARTUP_CANCEL) && whole.len > size)
        abort();
    if (size <= 256) {
        for (size_t n = 0; n < size; n++) {
            uint8_t *part = malloc(n + 1); /* its own block, so that reading beyond it shows */
            struct hf_startup s;
            if (part == NULL)
                return 0;
            memcpy(part, data, n);
            s = hf_startup_parse(part, n);
            if (s.kind != HF_STARTUP_MORE && s.kind != whole.kind)
                abort();
            if (s.kind == HF_STARTUP_MORE && hf_startup_need(part, n) <= n)
                abort(); /* would wait for nothing, for ever */
            free(part);
        }
    }
    if (whole.kind == HF_STARTUP_SESSION) {
        uint8_t *room = malloc(HF_STARTUP_MAX + 1);
        size_t len;
        if (room == NULL)
            return 0;
        memcpy(room, data, whole.len);
        {
            uint8_t *exact = malloc(whole.len);
            if (exact != NULL) {
                memcpy(exact, data, whole.len);
                if (hf_reads_asked(exact, whole.len) != hf_reads_asked(room, whole.len))
                    abort();
            }
            free(exact);
        }
        len = hf_startup_read_only(room, whole.len, HF_STARTUP_MAX);
        if (len != 0 && hf_startup_parse(room, len).kind != HF_STARTUP_SESSION)
            abort();
        free(room);
    }
    return 0;
}
