/* SCRAM and its messages: RFC 7677's example, verifiers, and clients that do not keep to the rules. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>
#include <openssl/evp.h>
#include <openssl/hmac.h>
#include <openssl/sha.h>

#include "router/failures.h"
#include "router/sasl.h"

/* RFC 7677, 3: user "user", password "pencil". */
#define RFC_SALT "W22ZaJ0SNY7soEsUEjb6gQ=="
#define RFC_NONCE "%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0"

static const char nonce[] = "ABCDEFGHIJKLMNOPQRSTUVWX", client_nonce[] = "abcdefghijklmnopqrstuvwx";

static void make(const char *password, const uint8_t *salt, size_t n, uint32_t iterations, struct hf_scram_verifier *v,
                 struct hf_scram_keys *keys)
{
    uint8_t salted[32];
    unsigned len;

    *v = (struct hf_scram_verifier){.iterations = iterations, .salt_len = n};
    memcpy(v->salt, salt, n);
    assert_int_equal(PKCS5_PBKDF2_HMAC(password, (int)strlen(password), salt, (int)n, (int)iterations, EVP_sha256(), 32, salted), 1);
    assert_non_null(HMAC(EVP_sha256(), salted, 32, (const uint8_t *)"Client Key", 10, keys->client, &len));
    assert_non_null(HMAC(EVP_sha256(), salted, 32, (const uint8_t *)"Server Key", 10, keys->server, &len));
    (void)SHA256(keys->client, 32, v->stored_key);
    memcpy(v->server_key, keys->server, 32);
}

static void rfc(struct hf_scram_verifier *v, struct hf_scram_keys *keys)
{
    uint8_t salt[32];
    int n = EVP_DecodeBlock(salt, (const uint8_t *)RFC_SALT, 24);

    assert_int_equal(n, 18); /* it counts the padding */
    make("pencil", salt, 16, 4096, v, keys);
}

static void rfc_vector_server(void **state)
{
    static const char final[] = "c=biws,r=rOprNGfwEbeRWgbNEkqO" RFC_NONCE ",p=dHzbZapWIk4jUhN+Ute9ytag9zjfMHgsqmmiz7AndVQ=";
    struct hf_scram_server s;
    struct hf_scram_verifier v;
    struct hf_scram_keys keys;
    char out[HF_SCRAM_MESSAGE_MAX], first[HF_SCRAM_MESSAGE_MAX];

    (void)state;
    rfc(&v, &keys);
    hf_scram_server_init(&s, &v, false, NULL, 0);
    assert_int_equal(hf_scram_server_first(&s, false, "n,,n=user,r=rOprNGfwEbeRWgbNEkqO", 32, RFC_NONCE, out), HF_SCRAM_GOES_ON);
    (void)snprintf(first, sizeof first, "r=rOprNGfwEbeRWgbNEkqO%s,s=" RFC_SALT ",i=4096", RFC_NONCE);
    assert_string_equal(out, first);
    assert_int_equal(hf_scram_server_final(&s, final, sizeof final - 1, out), HF_SCRAM_RIGHT);
    assert_string_equal(out, "v=6rriTRBi23WpRR/wtup+mMhUZUn/dB5nLTJRsjl95G4=");
    assert_memory_equal(&s.keys, &keys, sizeof keys);
}

/* Our client against our server: nonces of the RFC's example are shorter than ours. */
static void both_sides_agree(void **state)
{
    struct hf_scram_server s;
    struct hf_scram_client c;
    struct hf_scram_verifier v;
    struct hf_scram_keys keys, other;
    char a[HF_SCRAM_MESSAGE_MAX], b[HF_SCRAM_MESSAGE_MAX];

    (void)state;
    rfc(&v, &keys);
    hf_scram_server_init(&s, &v, false, NULL, 0);
    hf_scram_client_first(&c, client_nonce, a);
    assert_string_equal(a, "n,,n=,r=abcdefghijklmnopqrstuvwx");
    assert_int_equal(hf_scram_server_first(&s, false, a, strlen(a), nonce, b), HF_SCRAM_GOES_ON);
    assert_true(hf_scram_client_final(&c, &keys, b, strlen(b), a));
    assert_int_equal(hf_scram_server_final(&s, a, strlen(a), b), HF_SCRAM_RIGHT);
    assert_true(hf_scram_client_check(&c, &keys, b, strlen(b)));
    other = keys;
    other.server[31] ^= 1; /* a server that does not know the verifier */
    assert_false(hf_scram_client_check(&c, &other, b, strlen(b)));
    assert_false(hf_scram_client_check(&c, &keys, b, strlen(b) - 1));
}

static void client_is_careful(void **state)
{
    static const char *const wrong[] = {
        "", "r=", "r=abcdefghijklmnopqrstuvwx,s=c2FsdA==,i=16", "r=xbcdefghijklmnopqrstuvwxABC,s=c2FsdA==,i=16",
        "r=abcdefghijklmnopqrstuvwxABC", "r=abcdefghijklmnopqrstuvwxABC,i=16", "e=no"};
    struct hf_scram_keys keys = {{1}, {2}};
    struct hf_scram_client c;
    char out[HF_SCRAM_MESSAGE_MAX], longest[2000];

    (void)state;
    for (size_t i = 0; i < sizeof wrong / sizeof *wrong; i++) {
        hf_scram_client_first(&c, client_nonce, out);
        assert_false(hf_scram_client_final(&c, &keys, wrong[i], strlen(wrong[i]), out));
    }
    memset(longest, 'x', sizeof longest);
    memcpy(longest, "r=abcdefghijklmnopqrstuvwx", 26);
    for (size_t n = 900; n < 1100; n++) {
        hf_scram_client_first(&c, client_nonce, out);
        memcpy(longest + n - 8, ",s=A,i=1", 8);
        if (!hf_scram_client_final(&c, &keys, longest, n, out))
            assert_true(n > 940); /* as much as a message may have */
        memset(longest + n - 8, 'x', 8);
    }
}

static void verifiers(void **state)
{
#define KEY "AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8="
    static const char good[] = "SCRAM-SHA-256$4096:" RFC_SALT "$" KEY ":" KEY;
    static const char *const wrong[] = {
        "", "md5d41d8cd98f00b204e9800998ecf8427e", "SCRAM-SHA-256$", "SCRAM-SHA-256$4096", "SCRAM-SHA-256$0:" RFC_SALT "$" KEY ":" KEY,
        "SCRAM-SHA-256$-1:" RFC_SALT "$" KEY ":" KEY, "SCRAM-SHA-256$9999999999:" RFC_SALT "$" KEY ":" KEY,
        "SCRAM-SHA-256$4096:$" KEY ":" KEY, "SCRAM-SHA-256$4096:====$" KEY ":" KEY, "SCRAM-SHA-256$4096:abc$" KEY ":" KEY,
        "SCRAM-SHA-256$4096:" RFC_SALT "$" KEY, "SCRAM-SHA-256$4096:" RFC_SALT "$" KEY ":", "SCRAM-SHA-256$4096:" RFC_SALT "$AAEC:" KEY,
        "SCRAM-SHA-256$4096:" RFC_SALT "$" KEY ":" KEY "x", "SCRAM-SHA-256$4096:" RFC_SALT "$" KEY ":" KEY KEY,
        "scram-sha-256$4096:" RFC_SALT "$" KEY ":" KEY, "SCRAM-SHA-256$4096:" RFC_SALT "$" KEY ": " KEY};
    struct hf_scram_verifier v, again;
    char text[HF_SCRAM_VERIFIER_MAX], big[600];
    uint8_t secret[32] = {1}, other[32] = {2};

    (void)state;
    assert_true(hf_scram_verifier_parse(&v, good));
    assert_int_equal(v.iterations, 4096);
    assert_int_equal(v.salt_len, 16);
    for (int i = 0; i < 32; i++)
        assert_int_equal(v.stored_key[i], i);
    hf_scram_verifier_print(&v, text);
    assert_string_equal(text, good);
    for (size_t i = 0; i < sizeof wrong / sizeof *wrong; i++)
        assert_false(hf_scram_verifier_parse(&v, wrong[i]));
    (void)snprintf(big, sizeof big, "SCRAM-SHA-256$1:%0400d$" KEY ":" KEY, 0);
    assert_false(hf_scram_verifier_parse(&v, big)); /* a salt beyond the bound */

    {
        struct hf_scram_keys keys;
        rfc(&v, &keys);
        assert_true(hf_scram_verifier_fits(&v, "pencil"));
        assert_false(hf_scram_verifier_fits(&v, "pencils"));
        assert_false(hf_scram_verifier_fits(&v, ""));
    }
    hf_scram_verifier_mock(&v, secret, "nobody", 4096);
    hf_scram_verifier_mock(&again, secret, "nobody", 4096);
    assert_memory_equal(v.salt, again.salt, 16);
    assert_int_equal(v.salt_len, 16);
    hf_scram_verifier_mock(&again, secret, "nobodx", 4096);
    assert_memory_not_equal(v.salt, again.salt, 16);
    hf_scram_verifier_mock(&again, other, "nobody", 4096);
    assert_memory_not_equal(v.salt, again.salt, 16);
}

/* -- messages of a client --------------------------------------------------------------------- */

struct talk {
    struct hf_sasl s;
    struct hf_scram_verifier v;
    struct hf_scram_keys keys;
    struct hf_scram_client c;
    uint8_t out[HF_SASL_OUT_MAX];
    size_t n;
};

static void begin(struct talk *t, const uint8_t *binding, size_t len)
{
    make("secret", (const uint8_t *)"salt", 4, 16, &t->v, &t->keys);
    t->n = hf_sasl_begin(&t->s, &t->v, false, binding, len, t->out);
}

static enum hf_scram_verdict tell(struct talk *t, const uint8_t *p, size_t n)
{
    assert_int_equal(hf_sasl_need(p, n), n);
    return hf_sasl_hear(&t->s, p, n, nonce, t->out, &t->n);
}

static size_t initial(const char *mechanism, const char *text, uint8_t *b)
{
    size_t at = 5, n = strlen(text);

    b[0] = 'p';
    memcpy(b + at, mechanism, strlen(mechanism) + 1);
    at += strlen(mechanism) + 1;
    b[at] = b[at + 1] = 0;
    b[at + 2] = (uint8_t)(n >> 8);
    b[at + 3] = (uint8_t)n;
    memcpy(b + at + 4, text, n);
    at += 4 + n;
    b[1] = b[2] = 0;
    b[3] = (uint8_t)((at - 1) >> 8);
    b[4] = (uint8_t)(at - 1);
    return at;
}

static enum hf_scram_verdict first(struct talk *t, const char *mechanism, const char *text)
{
    uint8_t b[HF_SASL_IN_MAX + 64];

    return tell(t, b, initial(mechanism, text, b));
}

static enum hf_scram_verdict last(struct talk *t, const char *text)
{
    uint8_t b[HF_SASL_OUT_MAX + 16];

    return tell(t, b, hf_sasl_response(text, b));
}

/* A right proof for what was said, with this c= and r=. */
static void proof(const struct talk *t, const char *bare, const char *c, const char *r, char *out)
{
    struct hf_scram_said said = {.len = 0};
    uint8_t signature[32], shown[64];
    unsigned len;
    char final[600];

    (void)snprintf(final, sizeof final, "c=%s,r=%s", c, r);
    said.len = (size_t)snprintf(said.text, sizeof said.text, "%s,%.*s,%s", bare, (int)(t->n - 9), t->out + 9, final);
    assert_non_null(HMAC(EVP_sha256(), t->v.stored_key, 32, (const uint8_t *)said.text, said.len, signature, &len));
    for (int i = 0; i < 32; i++)
        signature[i] ^= t->keys.client[i];
    (void)EVP_EncodeBlock(shown, signature, 32);
    (void)snprintf(out, 900, "%s,p=%s", final, shown);
}

#define R "abcABCDEFGHIJKLMNOPQRSTUVWX"

static void exchange(void **state)
{
    uint8_t b[64];
    struct talk t;
    char text[900];

    (void)state;
    begin(&t, NULL, 0);
    assert_int_equal(t.n, 9 + 15);
    assert_memory_equal(t.out, "R\0\0\0\x17\0\0\0\x0aSCRAM-SHA-256\0\0", 24);
    assert_true(hf_sasl_offers_scram(t.out + 9, t.n - 9));
    assert_int_equal(first(&t, "SCRAM-SHA-256", "n,,n=ignored,r=abc"), HF_SCRAM_GOES_ON);
    assert_memory_equal(t.out + 5, "\0\0\0\x0br=" R ",s=c2FsdA==,i=16", 4 + 2 + 27 + 16);
    assert_true(hf_sasl_is_proof(&t.s));
    proof(&t, "n=ignored,r=abc", "biws", R, text);
    assert_int_equal(last(&t, text), HF_SCRAM_RIGHT);
    assert_memory_equal(t.s.scram.keys.client, t.keys.client, 32);
    assert_memory_equal(t.out + 5, "\0\0\0\x0cv=", 6);
    /* Once is enough: the same again is no login. */
    assert_int_equal(last(&t, text), HF_SCRAM_BAD);

    /* The first message may come by itself. */
    begin(&t, NULL, 0);
    assert_int_equal(tell(&t, (const uint8_t *)"p\0\0\0\x16SCRAM-SHA-256\0\xff\xff\xff\xff", 23), HF_SCRAM_GOES_ON);
    assert_int_equal(t.n, 9);
    assert_false(hf_sasl_is_proof(&t.s));
    assert_int_equal(last(&t, "n,,n=,r=abc"), HF_SCRAM_GOES_ON);
    proof(&t, "n=,r=abc", "biws", R, text);
    assert_int_equal(last(&t, text), HF_SCRAM_RIGHT);
    /* And be followed by extensions that nobody knows. */
    begin(&t, NULL, 0);
    assert_int_equal(first(&t, "SCRAM-SHA-256", "y,,n=,r=abc,x=1"), HF_SCRAM_GOES_ON);
    proof(&t, "n=,r=abc,x=1", "eSws", R, text);
    assert_int_equal(last(&t, text), HF_SCRAM_RIGHT);
    hf_sasl_wipe(&t.s);
    memset(b, 0, sizeof b);
    assert_memory_equal(t.s.scram.keys.client, b, 32);
}

static void wrong_proofs(void **state)
{
    static const char *const texts[] = {"c=biws,r=" R ",p=AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=",
                                        "c=biws,r=" R ",x=1,p=AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA="};
    struct talk t;
    char text[900], replayed[900];

    (void)state;
    for (size_t i = 0; i < 2; i++) {
        begin(&t, NULL, 0);
        assert_int_equal(first(&t, "SCRAM-SHA-256", "n,,n=,r=abc"), HF_SCRAM_GOES_ON);
        assert_int_equal(last(&t, texts[i]), HF_SCRAM_WRONG);
        assert_int_equal(t.n, 0);
    }
    /* Every bit of a right one counts. */
    for (size_t bit = 0; bit < 43 * 6; bit += 5) {
        char *at;
        begin(&t, NULL, 0);
        (void)first(&t, "SCRAM-SHA-256", "n,,n=,r=abc");
        proof(&t, "n=,r=abc", "biws", R, text);
        at = strstr(text, ",p=") + 3 + bit / 6;
        *at = *at == 'A' ? 'B' : 'A';
        assert_int_equal(last(&t, text), HF_SCRAM_WRONG);
    }
    /* A right one, heard earlier, is none with another nonce. */
    begin(&t, NULL, 0);
    (void)first(&t, "SCRAM-SHA-256", "n,,n=,r=abc");
    proof(&t, "n=,r=abc", "biws", R, replayed);
    begin(&t, NULL, 0);
    {
        uint8_t b[HF_SASL_IN_MAX];
        size_t n = initial("SCRAM-SHA-256", "n,,n=,r=abc", b);
        assert_int_equal(hf_sasl_hear(&t.s, b, n, "XXXXXXXXXXXXXXXXXXXXXXXX", t.out, &t.n), HF_SCRAM_GOES_ON);
    }
    assert_int_equal(last(&t, replayed), HF_SCRAM_BAD);
    assert_non_null(strstr(t.s.scram.text, "nonce"));
    /* A mock says no to whatever fits it. */
    begin(&t, NULL, 0);
    t.n = hf_sasl_begin(&t.s, &t.v, true, NULL, 0, t.out);
    (void)first(&t, "SCRAM-SHA-256", "n,,n=,r=abc");
    proof(&t, "n=,r=abc", "biws", R, text);
    assert_int_equal(last(&t, text), HF_SCRAM_WRONG);
}

static void hostile_first(void **state)
{
    static const struct {
        const char *mechanism, *text, *sqlstate;
    } cases[] = {
        {"SCRAM-SHA-1", "n,,n=,r=abc", "08P01"},
        {"SCRAM-SHA-256-PLUS", "p=tls-server-end-point,,n=,r=abc", "08P01"}, /* not offered */
        {"", "n,,n=,r=abc", "08P01"},
        {"SCRAM-SHA-256", "", "08P01"},
        {"SCRAM-SHA-256", "n", "08P01"},
        {"SCRAM-SHA-256", "n,", "08P01"},
        {"SCRAM-SHA-256", "n,,", "08P01"},
        {"SCRAM-SHA-256", "n,,n=", "08P01"},
        {"SCRAM-SHA-256", "n,,n=,", "08P01"},
        {"SCRAM-SHA-256", "n,,n=,r=", "08P01"},
        {"SCRAM-SHA-256", "n,,n=,r=a\tb", "08P01"},
        {"SCRAM-SHA-256", "n,,r=abc,n=", "08P01"},
        {"SCRAM-SHA-256", "n,a=other,n=,r=abc", "0A000"},
        {"SCRAM-SHA-256", "n,,m=ext,n=,r=abc", "0A000"},
        {"SCRAM-SHA-256", "x,,n=,r=abc", "08P01"},
        {"SCRAM-SHA-256", "p=tls-server-end-point,,n=,r=abc", "08P01"},
        {"SCRAM-SHA-256", "c=biws,r=abc,p=AAAA", "08P01"}, /* the last one first */
    };
    struct talk t;
    uint8_t b[HF_SASL_IN_MAX];
    size_t n;

    (void)state;
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        begin(&t, NULL, 0);
        assert_int_equal(first(&t, cases[i].mechanism, cases[i].text), HF_SCRAM_BAD);
        assert_string_equal(t.s.scram.sqlstate, cases[i].sqlstate);
        assert_int_equal(t.n, 0);
    }
    /* A length that is not what follows, a NUL inside, no length at all. */
    begin(&t, NULL, 0);
    n = initial("SCRAM-SHA-256", "n,,n=,r=abc", b);
    b[22]++;
    assert_int_equal(tell(&t, b, n), HF_SCRAM_BAD);
    begin(&t, NULL, 0);
    n = initial("SCRAM-SHA-256", "n,,n=,r=abc", b);
    b[n - 2] = '\0';
    assert_int_equal(tell(&t, b, n), HF_SCRAM_BAD);
    begin(&t, NULL, 0);
    assert_int_equal(tell(&t, (const uint8_t *)"p\0\0\0\x13SCRAM-SHA-256\0\0", 20), HF_SCRAM_BAD);
    begin(&t, NULL, 0);
    assert_int_equal(tell(&t, (const uint8_t *)"p\0\0\0\4", 5), HF_SCRAM_BAD);
}

static void hostile_last(void **state)
{
    static const struct {
        const char *text, *sqlstate;
    } cases[] = {
        {"", "08P01"},
        {"c=biws", "08P01"},
        {"c=biws,r=" R, "08P01"},
        {"c=biws,r=" R ",p=", "08P01"},
        {"c=biws,r=" R ",p=AAAA", "08P01"},
        {"c=biws,r=" R ",p=!!!!AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA", "08P01"},
        {"c=eSws,r=" R ",p=AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=", "08P01"},
        {"c=biws,r=abc,p=AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=", "08P01"},
        {"r=" R ",c=biws,p=AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=", "08P01"},
        {"p=AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=", "08P01"},
        {"c=biws,p=AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=", "08P01"},
    };
    struct talk t;

    (void)state;
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        begin(&t, NULL, 0);
        assert_int_equal(first(&t, "SCRAM-SHA-256", "n,,n=,r=abc"), HF_SCRAM_GOES_ON);
        assert_int_equal(last(&t, cases[i].text), HF_SCRAM_BAD);
        assert_string_equal(t.s.scram.sqlstate, cases[i].sqlstate);
    }
}

static void lengths(void **state)
{
    static const uint8_t query[] = {'Q', 0, 0, 0, 5}, tiny[] = {'p', 0, 0, 0, 3}, huge[] = {'p', 0, 0, 4, 5},
                         most[] = {'p', 0, 0, 4, 4}, negative[] = {'p', 0xff, 0xff, 0xff, 0xff};
    struct talk t;
    uint8_t b[HF_SASL_IN_MAX];

    (void)state;
    assert_int_equal(hf_sasl_need(query, 0), 5);
    assert_int_equal(hf_sasl_need(query, 1), 0);
    assert_int_equal(hf_sasl_need(tiny, 4), 5);
    assert_int_equal(hf_sasl_need(tiny, 5), 0);
    assert_int_equal(hf_sasl_need(huge, 5), 0);
    assert_int_equal(hf_sasl_need(most, 5), HF_SASL_IN_MAX);
    assert_int_equal(hf_sasl_need(negative, 5), 0);
    begin(&t, NULL, 0); /* the longest, of rubbish */
    memset(b, 'n', sizeof b);
    memcpy(b, most, 5);
    assert_int_equal(tell(&t, b, sizeof b), HF_SCRAM_BAD);
}

/* A nonce so long that our answer does not fit in a message. */
static void long_nonces(void **state)
{
    struct talk t;
    char text[HF_SCRAM_MESSAGE_MAX];

    (void)state;
    for (size_t n = 900; n < 990; n++) {
        memset(text, 'x', n);
        memcpy(text, "n,,n=,r=", 8);
        text[n] = '\0';
        begin(&t, NULL, 0);
        if (first(&t, "SCRAM-SHA-256", text) == HF_SCRAM_BAD)
            assert_true(n > 950);
        else
            assert_true(t.n <= sizeof t.out);
    }
}

static void channel_binding(void **state)
{
    static const uint8_t cert[32] = {1, 2, 3}, other[32] = {1, 2, 4};
    static const char bare[] = "n=,r=abc", plus[] = "SCRAM-SHA-256-PLUS", bound[] = "p=tls-server-end-point,,";
    uint8_t all[24 + 32];
    char c[128], text[900];
    struct talk t;

    (void)state;
    memcpy(all, bound, 24);
    memcpy(all + 24, cert, 32);
    (void)EVP_EncodeBlock((uint8_t *)c, all, sizeof all);
    begin(&t, cert, sizeof cert);
    assert_memory_equal(t.out + 9, "SCRAM-SHA-256-PLUS\0SCRAM-SHA-256\0", 34);
    assert_true(hf_sasl_offers_scram(t.out + 9, t.n - 9));
    assert_int_equal(first(&t, plus, "p=tls-server-end-point,,n=,r=abc"), HF_SCRAM_GOES_ON);
    proof(&t, bare, c, R, text);
    assert_int_equal(last(&t, text), HF_SCRAM_RIGHT);

    begin(&t, other, sizeof other); /* somebody in between has shown the client another certificate */
    (void)first(&t, plus, "p=tls-server-end-point,,n=,r=abc");
    proof(&t, bare, c, R, text);
    assert_int_equal(last(&t, text), HF_SCRAM_BAD);
    assert_string_equal(t.s.scram.sqlstate, "28000");

    begin(&t, cert, sizeof cert); /* and has taken -PLUS from the list */
    assert_int_equal(first(&t, "SCRAM-SHA-256", "y,,n=,r=abc"), HF_SCRAM_BAD);
    assert_string_equal(t.s.scram.sqlstate, "28000");
    begin(&t, cert, sizeof cert); /* while a client that cannot bind may say so */
    assert_int_equal(first(&t, "SCRAM-SHA-256", "n,,n=,r=abc"), HF_SCRAM_GOES_ON);
    begin(&t, cert, sizeof cert);
    assert_int_equal(first(&t, plus, "n,,n=,r=abc"), HF_SCRAM_BAD);
    begin(&t, cert, sizeof cert);
    assert_int_equal(first(&t, plus, "p=tls-unique,,n=,r=abc"), HF_SCRAM_BAD);
    begin(&t, cert, sizeof cert); /* promised, and then not done */
    assert_int_equal(first(&t, plus, "p=tls-server-end-point,,n=,r=abc"), HF_SCRAM_GOES_ON);
    proof(&t, bare, "biws", R, text);
    assert_int_equal(last(&t, text), HF_SCRAM_BAD);
}

/* -- who fails often --------------------------------------------------------------------------- */

static void failures(void **state)
{
    struct hf_failures *f = calloc(1, sizeof *f);
    uint64_t now = 1000000;
    int refused = 0;

    (void)state;
    assert_non_null(f);
    for (int i = 0; i < HF_FAILURES_FREE; i++) {
        assert_int_equal(hf_failures_wait(f, 1, now), 0);
        hf_failures_wrong(f, 1, now);
    }
    assert_int_equal(hf_failures_wait(f, 2, now), 0); /* somebody else */
    for (int i = 1; refused == 0; i++) { /* many at once take turns, up to a bound */
        int64_t wait = hf_failures_wait(f, 1, now);
        if (wait < 0)
            refused = i;
        else
            assert_int_equal(wait, i * HF_FAILURES_GAP_MS);
    }
    assert_int_equal(refused, HF_FAILURES_WAIT_MAX_MS / HF_FAILURES_GAP_MS + 1);
    hf_failures_leave(f, 1, now); /* who goes before its turn came gives it back */
    assert_int_equal(hf_failures_wait(f, 1, now), HF_FAILURES_WAIT_MAX_MS);
    assert_int_equal(hf_failures_wait(f, 1, now), -1);
    now += HF_FAILURES_FORGET_MS;
    assert_int_equal(hf_failures_wait(f, 1, now), 0); /* forgotten */
    hf_failures_wrong(f, 1, now);
    assert_int_equal(hf_failures_wait(f, 1, now), 0); /* and counted from one */
    for (int i = 1; i < HF_FAILURES_FREE; i++)
        hf_failures_wrong(f, 1, now);
    assert_true(hf_failures_wait(f, 1, now) > 0);
    hf_failures_right(f, 1);
    assert_int_equal(hf_failures_wait(f, 1, now), 0);

    /* A set has so many places: whoever failed longest ago is forgotten first. */
    for (uint64_t k = 0; k <= HF_FAILURES_WAYS; k++)
        for (int i = 0; i < HF_FAILURES_FREE; i++)
            hf_failures_wrong(f, 7 + k * HF_FAILURES_SETS, now + k);
    assert_int_equal(hf_failures_wait(f, 7, now + 10), 0);
    for (uint64_t k = 1; k <= HF_FAILURES_WAYS; k++)
        assert_true(hf_failures_wait(f, 7 + k * HF_FAILURES_SETS, now + 10) > 0);
    free(f);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(rfc_vector_server), cmocka_unit_test(both_sides_agree), cmocka_unit_test(client_is_careful),
        cmocka_unit_test(verifiers),         cmocka_unit_test(exchange),         cmocka_unit_test(wrong_proofs),
        cmocka_unit_test(hostile_first),     cmocka_unit_test(hostile_last),     cmocka_unit_test(lengths),
        cmocka_unit_test(long_nonces),       cmocka_unit_test(channel_binding),  cmocka_unit_test(failures),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
