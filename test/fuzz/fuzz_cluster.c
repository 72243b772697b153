/* Log entries and snapshots of the cluster state: round trips, and no entry breaks the state. */
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "core/cluster.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void check_entry(struct hf_cluster *c, const uint8_t *data, size_t size)
{
    uint8_t again[HF_ENTRY_BYTES_MAX];
    struct hf_entry e;

    if (!hf_entry_decode(&e, data, size))
        return;
    if (hf_entry_encode(&e, again, sizeof again) != size || memcmp(again, data, size) != 0)
        abort();
    (void)hf_cluster_apply(c, &e);
    if (c->n_members > HF_MEMBERS_MAX || c->n_branches > HF_BRANCHES_MAX)
        abort();
}

/* The first byte chooses: a snapshot, or entries of two-byte length each, one after the other. */
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static uint8_t again[HF_CLUSTER_BYTES_MAX];
    static struct hf_cluster c;

    if (size < 1)
        return 0;
    hf_cluster_init(&c);
    if ((data[0] & 1) == 0) {
        if (hf_cluster_decode(&c, data + 1, size - 1) &&
            (hf_cluster_encode(&c, again, sizeof again) != size - 1 ||
             memcmp(again, data + 1, size - 1) != 0))
            abort();
        return 0;
    }
    for (size_t at = 1; at + 2 <= size;) {
        size_t len = (size_t)data[at] | (size_t)data[at + 1] << 8;
        at += 2;
        if (len > size - at)
            len = size - at;
        check_entry(&c, data + at, len);
        at += len;
    }
    return 0;
}
