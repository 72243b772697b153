/* Instead of libFuzzer: runs each file that is named once, and nothing of no length. scripts/fuzz --replay */
#include <stdio.h>

#include "input.h"

enum { INPUT_MAX = 1 << 20 };

int main(int argc, char **argv)
{
    (void)LLVMFuzzerTestOneInput((const uint8_t *)"", 0);
    for (int i = 1; i < argc; i++) {
        FILE *f = fopen(argv[i], "rb");
        uint8_t *data = malloc(INPUT_MAX);
        size_t n = f != NULL && data != NULL ? fread(data, 1, INPUT_MAX, f) : 0;
        if (f == NULL || data == NULL) {
            perror(argv[i]);
            return 1;
        }
        (void)fclose(f);
        (void)LLVMFuzzerTestOneInput(data, n);
        free(data);
    }
    return 0;
}
