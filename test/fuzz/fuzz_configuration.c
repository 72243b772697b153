/* A change of Raft's configuration, as another node or the disk has it: what is understood says the same when it is encoded again. */
#include "input.h"

#include "../../src/consensus/configuration.c"

static void put(uint8_t *out, size_t *at, const void *p, size_t n)
{
    memcpy(out + *at, p, n);
    *at += n;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct input in = {data, size};
    struct raft_configuration conf;
    struct raft_buffer buf;
    uint8_t *out;
    uint64_t n;
    size_t at = 1;

    buf.base = input_block(&in, -1, &buf.len);
    if (decode(&buf, &conf) == 0) {
        out = calloc(1, size + 1);
        MUST(out != NULL);
        out[0] = 1;
        n = conf.n;
        put(out, &at, &n, sizeof n);
        for (unsigned i = 0; i < conf.n; i++) {
            const struct raft_server *s = &conf.servers[i];
            put(out, &at, &s->id, sizeof s->id);
            put(out, &at, s->address, strlen(s->address) + 1);
            out[at++] = (uint8_t)s->role;
        }
        MUST(at <= size && memcmp(out, data, at) == 0);
        free(out);
        raft_configuration_close(&conf);
    }
    free(buf.base);
    return 0;
}
