/* The files in which raft_uv keeps Raft's log: closed segments, whose names say which entries they hold, and open ones.
 * Some of these have been begun; the rest are room that was made beforehand. Of an open one only a start finds out where
 * its entries belong: behind those of all closed ones, whatever they were when they were written. */
#ifndef HF_CONSENSUS_SEGMENTS_H
#define HF_CONSENSUS_SEGMENTS_H

#include <stdint.h>

#include "base/error.h"

/* 0: no segment ends at or after `index` and none is open and begun, and that is on the disk; 1: not so, or not yet; or a
 * negative error. No entry may be appended meanwhile. */
int hf_segments_from(const char *dir, uint64_t index, struct hf_error *err);
/* Before raft_uv looks at them: removes those that a death in the midst of a cut, or of a snapshot that came in the log's
 * place, has left behind, and which raft_uv would be misled by. */
int hf_segments_tidy(const char *dir, struct hf_error *err);

#endif
