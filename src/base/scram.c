#include "base/scram.h"

#include <assert.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <openssl/crypto.h>
#include <openssl/evp.h>
#include <openssl/hmac.h>
#include <openssl/sha.h>

enum { KEY_TEXT = 44 }; /* 32 bytes in base64 */

/* -- base64 ---------------------------------------------------------------------------------- */

static int digit(char c)
{
    static const char digits[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    const char *at = c != '\0' ? strchr(digits, c) : NULL;

    return at != NULL ? (int)(at - digits) : -1;
}

/* Strict: no spaces, padded. Returns the length, -1 if it is no base64 or longer than `cap`. */
static int unbase64(const char *text, size_t n, uint8_t *out, size_t cap)
{
    size_t pad = 0, len;

    if (n == 0 || n % 4 != 0)
        return -1;
    while (pad < 2 && text[n - 1 - pad] == '=')
        pad++;
    len = n / 4 * 3 - pad;
    if (len > cap)
        return -1;
    for (size_t i = 0, o = 0; i < n; i += 4) {
        uint32_t v = 0;
        for (size_t j = 0; j < 4; j++) {
            int d = i + j >= n - pad ? 0 : digit(text[i + j]);
            if (d < 0)
                return -1;
            v = v << 6 | (uint32_t)d;
        }
        for (int j = 2; j >= 0 && o < len; j--)
            out[o++] = (uint8_t)(v >> (8 * j));
    }
    return (int)len;
}

static void base64(const uint8_t *p, size_t n, char *out)
{
    (void)EVP_EncodeBlock((unsigned char *)out, p, (int)n);
}

void hf_scram_nonce(const uint8_t random[18], char out[HF_SCRAM_NONCE + 1])
{
    base64(random, 18, out);
}

/* -- hashes ---------------------------------------------------------------------------------- */

static void hmac(const uint8_t key[HF_SCRAM_KEY], const void *p, size_t n, uint8_t out[HF_SCRAM_KEY])
{
    unsigned len = HF_SCRAM_KEY;

    if (HMAC(EVP_sha256(), key, HF_SCRAM_KEY, p, n, out, &len) == NULL)
        abort(); /* out of memory */
}

static void hash(const uint8_t p[HF_SCRAM_KEY], uint8_t out[HF_SCRAM_KEY])
{
    (void)SHA256(p, HF_SCRAM_KEY, out);
}

static void mix(uint8_t out[HF_SCRAM_KEY], const uint8_t a[HF_SCRAM_KEY], const uint8_t b[HF_SCRAM_KEY])
{
    for (int i = 0; i < HF_SCRAM_KEY; i++)
        out[i] = a[i] ^ b[i];
}

/* -- verifiers ------------------------------------------------------------------------------- */

/* The piece of *at up to `end`, which is skipped. False: there is no `end`. */
static bool piece(const char **at, char end, const char **p, size_t *n)
{
    const char *stop = strchr(*at, end);

    if (stop == NULL)
        return false;
    *p = *at;
    *n = (size_t)(stop - *at);
    *at = end != '\0' ? stop + 1 : stop;
    return true;
}

static bool number(const char *p, size_t n, uint32_t *out)
{
    uint64_t v = 0;

    if (n == 0 || n > 9)
        return false;
    for (size_t i = 0; i < n; i++) {
        if (p[i] < '0' || p[i] > '9')
            return false;
        v = v * 10 + (uint64_t)(p[i] - '0');
    }
    *out = (uint32_t)v;
    return v > 0;
}

bool hf_scram_verifier_parse(struct hf_scram_verifier *v, const char *text)
{
    static const char scheme[] = "SCRAM-SHA-256$";
    const char *at = text + sizeof scheme - 1, *p;
    size_t n;
    int len;

    if (strncmp(text, scheme, sizeof scheme - 1) != 0)
        return false;
    if (!piece(&at, ':', &p, &n) || !number(p, n, &v->iterations))
        return false;
    if (!piece(&at, '$', &p, &n) || (len = unbase64(p, n, v->salt, sizeof v->salt)) <= 0)
        return false;
    v->salt_len = (size_t)len;
    if (!piece(&at, ':', &p, &n) || unbase64(p, n, v->stored_key, HF_SCRAM_KEY) != HF_SCRAM_KEY)
        return false;
    return piece(&at, '\0', &p, &n) && unbase64(p, n, v->server_key, HF_SCRAM_KEY) == HF_SCRAM_KEY;
}

void hf_scram_verifier_print(const struct hf_scram_verifier *v, char out[HF_SCRAM_VERIFIER_MAX])
{
    char salt[HF_SCRAM_SALT_MAX / 3 * 4 + 8], stored[KEY_TEXT + 1], server[KEY_TEXT + 1];

    assert(v->salt_len > 0 && v->salt_len <= HF_SCRAM_SALT_MAX);
    base64(v->salt, v->salt_len, salt);
    base64(v->stored_key, HF_SCRAM_KEY, stored);
    base64(v->server_key, HF_SCRAM_KEY, server);
    (void)snprintf(out, HF_SCRAM_VERIFIER_MAX, "SCRAM-SHA-256$%u:%s$%s:%s", v->iterations, salt, stored, server);
}

bool hf_scram_verifier_fits(const struct hf_scram_verifier *v, const char *password)
{
    uint8_t salted[HF_SCRAM_KEY], client[HF_SCRAM_KEY], stored[HF_SCRAM_KEY];
    bool fits;

    if (PKCS5_PBKDF2_HMAC(password, (int)strlen(password), v->salt, (int)v->salt_len, (int)v->iterations, EVP_sha256(),
                          HF_SCRAM_KEY, salted) != 1)
        return false;
    hmac(salted, "Client Key", 10, client);
    hash(client, stored);
    fits = CRYPTO_memcmp(stored, v->stored_key, HF_SCRAM_KEY) == 0;
    OPENSSL_cleanse(salted, sizeof salted);
    OPENSSL_cleanse(client, sizeof client);
    return fits;
}

void hf_scram_verifier_mock(struct hf_scram_verifier *v, const uint8_t secret[HF_SCRAM_KEY], const char *role,
                            uint32_t iterations)
{
    uint8_t salt[HF_SCRAM_KEY];

    *v = (struct hf_scram_verifier){.iterations = iterations, .salt_len = 16};
    hmac(secret, role, strlen(role), salt);
    memcpy(v->salt, salt, v->salt_len);
    hmac(secret, "StoredKey", 9, v->stored_key); /* whose preimage nobody knows; the server's side is doomed besides */
    hmac(secret, "ServerKey", 9, v->server_key);
}

/* -- what both have said --------------------------------------------------------------------- */

static bool say(struct hf_scram_said *said, const char *p, size_t n)
{
    if (said->len + n + 2 > sizeof said->text)
        return false;
    if (said->len > 0)
        said->text[said->len++] = ',';
    memcpy(said->text + said->len, p, n);
    said->len += n;
    return true;
}

/* The proof, or from it the key. */
static void unmask(const struct hf_scram_said *said, const uint8_t stored_key[HF_SCRAM_KEY],
                   const uint8_t in[HF_SCRAM_KEY], uint8_t out[HF_SCRAM_KEY])
{
    uint8_t signature[HF_SCRAM_KEY];

    hmac(stored_key, said->text, said->len, signature);
    mix(out, in, signature);
    OPENSSL_cleanse(signature, sizeof signature);
}

static void sign(const struct hf_scram_said *said, const uint8_t server_key[HF_SCRAM_KEY], char out[KEY_TEXT + 3])
{
    uint8_t signature[HF_SCRAM_KEY];

    hmac(server_key, said->text, said->len, signature);
    memcpy(out, "v=", 2);
    base64(signature, sizeof signature, out + 2);
}

/* -- the server's side ----------------------------------------------------------------------- */

static enum hf_scram_verdict bad(struct hf_scram_server *s, const char *sqlstate, const char *text)
{
    s->sqlstate = sqlstate;
    s->text = text;
    return HF_SCRAM_BAD;
}

static enum hf_scram_verdict malformed(struct hf_scram_server *s)
{
    return bad(s, "08P01", "malformed SCRAM message");
}

void hf_scram_server_init(struct hf_scram_server *s, const struct hf_scram_verifier *v, bool doomed, const uint8_t *binding,
                          size_t binding_len)
{
    assert(binding == NULL || binding_len <= HF_SCRAM_BINDING_MAX);
    memset(s, 0, sizeof *s);
    s->verifier = *v;
    s->doomed = doomed;
    s->may_bind = binding != NULL;
    s->binding_len = binding_len;
    if (binding != NULL)
        memcpy(s->binding, binding, binding_len);
}

/* A copy that ends with a NUL and has none before. */
static bool text_of(const char *msg, size_t n, char out[HF_SCRAM_MESSAGE_MAX])
{
    if (n >= HF_SCRAM_MESSAGE_MAX || memchr(msg, '\0', n) != NULL)
        return false;
    memcpy(out, msg, n);
    out[n] = '\0';
    return true;
}

/* The value of the attribute that must come next, up to a comma or the end. */
static bool attribute(const char **at, char name, const char **p, size_t *n)
{
    if ((*at)[0] != name || (*at)[1] != '=')
        return false;
    *p = *at + 2;
    *n = strcspn(*p, ",");
    *at = *p + *n;
    return true;
}

static bool is_printable(const char *p, size_t n)
{
    for (size_t i = 0; i < n; i++)
        if (p[i] < 0x21 || p[i] > 0x7e)
            return false;
    return n > 0;
}

/* The GS2 header: what the client says about channel binding. Returns its length, or 0 with sqlstate and text. */
static size_t gs2_header(struct hf_scram_server *s, bool plus, const char *text)
{
    static const char bound[] = "p=tls-server-end-point,";
    size_t n;

    if (text[0] == 'p') {
        n = sizeof bound - 1;
        if (!plus)
            (void)bad(s, "08P01", "malformed SCRAM message: channel binding without SCRAM-SHA-256-PLUS");
        else if (strncmp(text, bound, n) != 0)
            (void)bad(s, "08P01", "unsupported SCRAM channel-binding type");
    } else if ((text[0] == 'n' || text[0] == 'y') && text[1] == ',') {
        n = 2;
        if (plus)
            (void)bad(s, "08P01", "malformed SCRAM message: SCRAM-SHA-256-PLUS without channel binding");
        else if (text[0] == 'y' && s->may_bind) /* somebody in between has taken -PLUS from our list */
            (void)bad(s, "28000", "SCRAM channel binding negotiation error");
    } else {
        (void)malformed(s);
        return 0;
    }
    if (s->text != NULL)
        return 0;
    if (text[n] == 'a')
        (void)bad(s, "0A000", "client uses authorization identity, but it is not supported");
    else if (text[n] != ',')
        (void)malformed(s);
    return s->text != NULL ? 0 : n + 1;
}

/* What the client's last message has to say as c=. */
static void expect_binding(struct hf_scram_server *s, const char *header, size_t n)
{
    uint8_t all[32 + HF_SCRAM_BINDING_MAX];
    size_t len = header[0] == 'p' ? s->binding_len : 0;

    assert(n + len <= sizeof all);
    memcpy(all, header, n);
    memcpy(all + n, s->binding, len);
    base64(all, n + len, s->bind_text);
}

enum hf_scram_verdict hf_scram_server_first(struct hf_scram_server *s, bool plus, const char *msg, size_t n,
                                            const char nonce[HF_SCRAM_NONCE + 1], char out[HF_SCRAM_MESSAGE_MAX])
{
    char text[HF_SCRAM_MESSAGE_MAX], salt[HF_SCRAM_SALT_MAX / 3 * 4 + 8];
    const char *at, *p, *bare;
    size_t header, len;
    int written;

    assert(s->said.len == 0 && (!plus || s->may_bind));
    if (!text_of(msg, n, text))
        return malformed(s);
    header = gs2_header(s, plus, text);
    if (header == 0)
        return HF_SCRAM_BAD;
    expect_binding(s, text, header);
    bare = at = text + header;
    if (at[0] == 'm')
        return bad(s, "0A000", "client requires an unsupported SCRAM extension");
    if (!attribute(&at, 'n', &p, &len) || *at++ != ',')
        return malformed(s);
    if (!attribute(&at, 'r', &p, &len) || !is_printable(p, len))
        return malformed(s);
    /* What may follow are extensions, which are ignored but signed. */
    base64(s->verifier.salt, s->verifier.salt_len, salt);
    written = snprintf(out, HF_SCRAM_MESSAGE_MAX, "r=%.*s%s,s=%s,i=%u", (int)len, p, nonce, salt, s->verifier.iterations);
    if (written < 0 || written >= HF_SCRAM_MESSAGE_MAX)
        return malformed(s);
    (void)snprintf(s->nonce, sizeof s->nonce, "%.*s%s", (int)len, p, nonce);
    if (!say(&s->said, bare, strlen(bare)) || !say(&s->said, out, (size_t)written))
        return malformed(s);
    return HF_SCRAM_GOES_ON;
}

static bool same_text(const char *p, size_t n, const char *text)
{
    return n == strlen(text) && CRYPTO_memcmp(p, text, n) == 0;
}

/* The proof stands last. Returns where the text before it ends; NULL: there is none. */
static const char *proof_of(const char *text, uint8_t proof[HF_SCRAM_KEY])
{
    const char *last = strrchr(text, ',');

    if (last == NULL || strncmp(last, ",p=", 3) != 0 ||
        unbase64(last + 3, strlen(last + 3), proof, HF_SCRAM_KEY) != HF_SCRAM_KEY)
        return NULL;
    return last;
}

static bool is_right(struct hf_scram_server *s, const uint8_t proof[HF_SCRAM_KEY])
{
    uint8_t stored[HF_SCRAM_KEY];
    bool right;

    unmask(&s->said, s->verifier.stored_key, proof, s->keys.client);
    hash(s->keys.client, stored);
    right = (CRYPTO_memcmp(stored, s->verifier.stored_key, sizeof stored) == 0) & !s->doomed;
    if (!right)
        OPENSSL_cleanse(&s->keys, sizeof s->keys);
    return right;
}

enum hf_scram_verdict hf_scram_server_final(struct hf_scram_server *s, const char *msg, size_t n,
                                            char out[HF_SCRAM_MESSAGE_MAX])
{
    char text[HF_SCRAM_MESSAGE_MAX];
    uint8_t proof[HF_SCRAM_KEY];
    const char *at = text, *p, *end;
    size_t len;

    assert(s->said.len > 0);
    if (!text_of(msg, n, text) || (end = proof_of(text, proof)) == NULL)
        return malformed(s);
    if (!attribute(&at, 'c', &p, &len) || *at++ != ',')
        return malformed(s);
    if (!same_text(p, len, s->bind_text))
        return s->bind_text[0] == 'c' /* of "p=" */
                   ? bad(s, "28000", "SCRAM channel binding check failed")
                   : bad(s, "08P01", "unexpected SCRAM channel-binding attribute in client-final-message");
    if (!attribute(&at, 'r', &p, &len) || at > end)
        return malformed(s);
    if (!same_text(p, len, s->nonce))
        return bad(s, "08P01", "invalid SCRAM response: nonce does not match");
    if (!say(&s->said, text, (size_t)(end - text)))
        return malformed(s);
    if (!is_right(s, proof))
        return HF_SCRAM_WRONG;
    memcpy(s->keys.server, s->verifier.server_key, HF_SCRAM_KEY);
    sign(&s->said, s->keys.server, out);
    return HF_SCRAM_RIGHT;
}

/* -- the client's side ----------------------------------------------------------------------- */

void hf_scram_client_first(struct hf_scram_client *c, const char nonce[HF_SCRAM_NONCE + 1], char out[HF_SCRAM_MESSAGE_MAX])
{
    memset(c, 0, sizeof *c);
    memcpy(c->nonce, nonce, sizeof c->nonce);
    (void)snprintf(out, HF_SCRAM_MESSAGE_MAX, "n,,n=,r=%s", nonce);
    (void)say(&c->said, out + 3, strlen(out + 3));
}

bool hf_scram_client_final(struct hf_scram_client *c, const struct hf_scram_keys *keys, const char *msg, size_t n,
                           char out[HF_SCRAM_MESSAGE_MAX])
{
    char text[HF_SCRAM_MESSAGE_MAX], shown[KEY_TEXT + 1];
    uint8_t stored[HF_SCRAM_KEY], proof[HF_SCRAM_KEY];
    const char *at = text, *p;
    size_t len;
    int written;

    if (!text_of(msg, n, text) || !attribute(&at, 'r', &p, &len) || len <= HF_SCRAM_NONCE ||
        memcmp(p, c->nonce, HF_SCRAM_NONCE) != 0 || strncmp(at, ",s=", 3) != 0)
        return false;
    written = snprintf(out, HF_SCRAM_MESSAGE_MAX, "c=biws,r=%.*s", (int)len, p);
    if (written < 0 || written + 3 + KEY_TEXT >= HF_SCRAM_MESSAGE_MAX)
        return false;
    if (!say(&c->said, text, n) || !say(&c->said, out, (size_t)written))
        return false;
    hash(keys->client, stored);
    unmask(&c->said, stored, keys->client, proof);
    base64(proof, sizeof proof, shown);
    (void)snprintf(out + written, HF_SCRAM_MESSAGE_MAX - (size_t)written, ",p=%s", shown);
    return true;
}

bool hf_scram_client_check(const struct hf_scram_client *c, const struct hf_scram_keys *keys, const char *msg, size_t n)
{
    char expected[KEY_TEXT + 3];

    sign(&c->said, keys->server, expected);
    return same_text(msg, n, expected);
}
