/* Sessions of Holdfast's read-only port stay read only, whatever they set. */
#ifndef HF_GUARD_READER_H
#define HF_GUARD_READER_H

void hf_guard_reader_init(void); /* from _PG_init */

#endif
