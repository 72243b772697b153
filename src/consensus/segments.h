/* The files in which raft_uv keeps Raft's log: closed segments, whose names say which entries they hold, and open ones.
 * Some of these have been begun; the rest are room that was made beforehand. Of an open one only a start finds out where
 * its entries belong: behind those of all closed ones, whatever they were when they were written. */
#ifndef HF_CONSENSUS_SEGMENTS_H
#define HF_CONSENSUS_SEGMENTS_H

#include <stdint.h>

#include "base/error.h"

/* What is to become of the log. A death in the midst of it leaves segments that continue nothing, and from these alone nobody could
 * tell what was to go from what has been lost. So it is kept in a file beside them, `mark`, until it is done. */
struct hf_segments_mark {
    uint64_t from;                          /* a cut: this index and all behind it are to go; 0: */
    uint64_t snapshot_term, snapshot_index; /* all of it is, for this snapshot comes in its place */
    uint64_t closed_to;                     /* hf_segments_mark() finds it: the last index in a closed segment then; 0: none */
};

/* Before it is begun, and while nothing is written. 0: marked, on the disk; 1: not yet, segments are still being closed; or a negative
 * error. */
int hf_segments_mark(const char *dir, const struct hf_segments_mark *mark, struct hf_error *err);
/* 0: it is done, on the disk, and the mark is gone: no segment ends at or after `from` and none is open and begun; 1: not yet;
 * or a negative error. No entry may be appended meanwhile. */
int hf_segments_done(const char *dir, uint64_t from, struct hf_error *err);
/* Before raft_uv looks at them: if there is a mark, removes what a death in the midst has left behind and raft_uv would be misled
 * by. */
int hf_segments_tidy(const char *dir, struct hf_error *err);

#endif
