/* A real PostgreSQL of the machine's, alone in a directory of its own. */
#ifndef HF_TEST_ROUTER_POSTGRES_H
#define HF_TEST_ROUTER_POSTGRES_H

#include <stdbool.h>

struct postgres {
    char dir[64];          /* its socket's too */
    const char *guard_dir; /* where its guard (src/guard) is; NULL: it has none */
};

bool postgres_open(struct postgres *p); /* false: there is none on this machine, or no guard for it */
void postgres_close(struct postgres *p);

#endif
