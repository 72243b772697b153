/* Files that survive a crash, and directories. Paths in messages, always. */
#ifndef HF_BASE_FILE_H
#define HF_BASE_FILE_H

#include <stddef.h>
#include <sys/types.h>

#include "base/error.h"

/* All or nothing: temporary file, fsync, rename, fsync of the directory. */
int hf_file_write(const char *path, const void *data, size_t len, mode_t mode, struct hf_error *err);
/* Likewise, for a person's file that is there: it keeps its owner and mode, and a symbolic link stays one to it. */
int hf_file_rewrite(const char *path, const void *data, size_t len, struct hf_error *err);
/* Whole file, at most `max` bytes; `*data` from malloc(), with a NUL behind its `*len` bytes. */
int hf_file_read(const char *path, size_t max, char **data, size_t *len, struct hf_error *err);
/* Like mkdir -p; existing directories keep their mode. */
int hf_dir_make(const char *path, mode_t mode, struct hf_error *err);
/* Like rm -r; a path that does not exist is fine; symbolic links are removed, never followed. */
int hf_dir_remove(const char *path, struct hf_error *err);
int hf_dir_sync(const char *path, struct hf_error *err);

#endif
