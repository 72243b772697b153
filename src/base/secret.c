#include "base/secret.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>

#include <openssl/crypto.h>
#include <openssl/evp.h>

#include "base/file.h"

enum { FILE_MAX = 64 * 1024 };

int hf_password_make(char out[HF_PASSWORD_LETTERS + 1], struct hf_error *err)
{
    static const char letters[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";
    unsigned char random[HF_PASSWORD_LETTERS];

    if (getrandom(random, sizeof random, 0) != (ssize_t)sizeof random)
        return hf_fail(err, HF_EIO, "no random numbers for a password: getrandom: %s", strerror(errno));
    for (unsigned i = 0; i < HF_PASSWORD_LETTERS; i++)
        out[i] = letters[random[i] % 64];
    out[HF_PASSWORD_LETTERS] = '\0';
    OPENSSL_cleanse(random, sizeof random);
    return 0;
}

int hf_secret_print(FILE *out, const char *key, const char *path, struct hf_error *err)
{
    unsigned char *coded;
    char *data;
    size_t len, room;
    int rv = hf_file_read(path, FILE_MAX, &data, &len, err);

    if (rv != 0)
        return rv;
    room = 4 * (len / 3 + 1) + 1;
    coded = malloc(room);
    if (coded == NULL) {
        rv = hf_fail(err, HF_ENOMEM, "%s: out of memory", path);
    } else {
        (void)EVP_EncodeBlock(coded, (const unsigned char *)data, (int)len);
        (void)fprintf(out, "  %s: %s\n", key, (const char *)coded);
        OPENSSL_cleanse(coded, room);
    }
    free(coded);
    OPENSSL_cleanse(data, len);
    free(data);
    return rv;
}
