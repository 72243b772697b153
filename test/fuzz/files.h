/* Files that a fuzzer makes up: whoever includes this has no others. */
#ifndef HF_FUZZ_FILES_H
#define HF_FUZZ_FILES_H

#include "base/file.h"
#include "input.h"

/* What hf_file_read() gives next: the input's next block, up to a byte 0xff. NULL: there is no
 * file. */
static struct input *files;
/* What hf_file_write() was given last. */
static char *written;
static size_t written_len;

int hf_file_read(const char *path, size_t max, char **data, size_t *len, struct hf_error *err)
{
    MUST(path != NULL && path[0] != '\0');
    *data = NULL;
    *len = 0;
    if (files == NULL)
        return hf_fail(err, HF_ENOENT, "%s does not exist", path);
    *data = input_block(files, 0xff, len);
    if (*len <= max)
        return 0;
    free(*data);
    *data = NULL;
    return hf_fail(err, HF_EINVAL, "%s is longer than %zu bytes", path, max);
}

int hf_file_write(const char *path, const void *data, size_t len, mode_t mode, struct hf_error *err)
{
    (void)err;
    MUST(path[0] != '\0' && (mode & 0077) == 0);
    free(written);
    written = malloc(len + 1);
    MUST(written != NULL);
    memcpy(written, data, len);
    written[len] = '\0';
    written_len = len;
    return 0;
}

static inline void files_forget(void)
{
    free(written);
    written = NULL;
    written_len = 0;
}

#endif
