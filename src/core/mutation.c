#include "decide.h"

#ifdef HF_MUTATIONS
enum hf_mutation hf_mutation = HF_MUT_NONE;
#else
#error "mutation.c belongs to the simulator's build of the core"
#endif
