/* What an administrator's session must not do behind Holdfast's back. */
#ifndef HF_GUARD_REFUSE_H
#define HF_GUARD_REFUSE_H

void hf_guard_refuse_init(void); /* from _PG_init */

#endif
