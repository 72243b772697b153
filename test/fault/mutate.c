/* Linked into build/holdfast-mutated alone, with the core that can leave a rule out: HOLDFAST_MUTATION names
 * the rule. The fault laboratory must notice. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "core/decide.h"

static const struct {
    const char *name;
    enum hf_mutation mutation;
} known[] = {
    {"COUNT_ONE_LESS", HF_MUT_COUNT_ONE_LESS},
    {"OPEN_BEFORE_BARRIER", HF_MUT_OPEN_BEFORE_BARRIER},
    {"IGNORE_LEASE", HF_MUT_IGNORE_LEASE},
    {"NO_PROMISE_WAIT", HF_MUT_NO_PROMISE_WAIT},
    {"NOT_GREATEST", HF_MUT_NOT_GREATEST},
    {"FOUND_ALONE", HF_MUT_FOUND_ALONE},
    {"REFUSED_IS_PROOF", HF_MUT_REFUSED_IS_PROOF},
};

__attribute__((constructor)) static void mutate(void)
{
    const char *name = getenv("HOLDFAST_MUTATION");

    if (name == NULL || name[0] == '\0')
        return;
    for (size_t i = 0; i < sizeof known / sizeof *known; i++) {
        if (strcmp(known[i].name, name) == 0) {
            hf_mutation = known[i].mutation;
            return;
        }
    }
    fprintf(stderr, "HOLDFAST_MUTATION=%s: no such rule\n", name);
    exit(2);
}
