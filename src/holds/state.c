/* What a connection has been made into, in a few bytes: to know whether another session could go on with it as it is. */
#include <stdlib.h>
#include <string.h>

#include <openssl/evp.h>

#include "holds/private.h"

static void digest(EVP_MD_CTX *c, uint8_t out[32])
{
    unsigned n;

    if (EVP_DigestFinal_ex(c, out, &n) != 1)
        abort(); /* a wrong answer would give one client another's state */
}

static EVP_MD_CTX *begin(const uint8_t secret[HF_PRINT_SECRET])
{
    EVP_MD_CTX *c = EVP_MD_CTX_new();

    if (c == NULL || EVP_DigestInit_ex(c, EVP_sha256(), NULL) != 1 || EVP_DigestUpdate(c, secret, HF_PRINT_SECRET) != 1)
        abort();
    return c;
}

/* With its length, so that no two lists of parts are the same bytes. */
static void add(EVP_MD_CTX *c, const void *p, size_t n)
{
    uint64_t len = n;

    if (EVP_DigestUpdate(c, &len, sizeof len) != 1 || (n > 0 && EVP_DigestUpdate(c, p, n) != 1))
        abort();
}

static struct hf_print end(EVP_MD_CTX *c)
{
    struct hf_print print;
    uint8_t out[32];

    digest(c, out);
    EVP_MD_CTX_free(c);
    memcpy(print.bytes, out, sizeof print.bytes);
    return print;
}

struct hf_print hf_print_of(const uint8_t secret[HF_PRINT_SECRET], const void *p, size_t n)
{
    EVP_MD_CTX *c = begin(secret);

    add(c, p, n);
    return end(c);
}

static void print_item(struct hf_item *i, const uint8_t secret[HF_PRINT_SECRET])
{
    EVP_MD_CTX *c;
    char kind = (char)('0' + i->kind * 2 + i->by_message);

    if (i->printed)
        return;
    c = begin(secret);
    add(c, &kind, 1);
    add(c, i->name, strlen(i->name));
    if (i->kind == HF_ITEM_SETTING) {
        add(c, i->text, strlen(i->text));
    } else if (i->by_message) {
        add(c, hf_sql_text(i->sql->sql), hf_sql_len(i->sql->sql));
        add(c, i->types, (size_t)i->n_types * 4);
    } else {
        struct hf_item_text t = hf_item_text(i);
        add(c, t.p, t.len);
    }
    i->print = end(c);
    i->printed = true;
}

/* Modulo 2^128. The terms are secret, so nobody can look for sums that meet. */
static void sum(struct hf_print *to, const struct hf_print *term)
{
    unsigned carry = 0;

    for (int k = 0; k < HF_PRINT_BYTES; k++) {
        carry += (unsigned)to->bytes[k] + term->bytes[k];
        to->bytes[k] = (uint8_t)carry;
        carry >>= 8;
    }
}

/* Statements are the same in whatever order they were prepared, unless there is a setting that has a part in how they are understood;
 * other settings may have a part in each other. */
struct hf_print hf_holds_state(struct hf_holds *h, const uint8_t secret[HF_PRINT_SECRET])
{
    struct hf_print print = {{0}};
    bool ordered;

    hf_log_tidy(&h->log);
    ordered = h->log.kinds[HF_ITEM_SETTING].first != NULL;
    if (h->state_of == h->log.changes)
        return h->state;
    for (struct hf_item *i = h->log.all.first; i != NULL; i = i->all.behind) {
        print_item(i, secret);
        sum(&print, &i->print);
        if (ordered)
            print = hf_print_of(secret, &print, sizeof print);
    }
    h->state = print;
    h->state_of = h->log.changes;
    return print;
}

struct hf_rest hf_holds_rest(const struct hf_holds *h)
{
    return (struct hf_rest){.unnamed = h->left_unnamed, .sequences = !h->guard.is_there || h->guard.sequences, .discarded = h->discarded};
}

void hf_holds_give(struct hf_holds *h)
{
    /* A Parse under way has put its own there, which what was sent before it does not mean; a Query has left none. */
    struct hf_item *unnamed = h->n_unnamed == 0 ? h->unnamed : NULL;

    if (unnamed != NULL)
        h->unnamed = NULL;
    hf_holds_lost(h);
    h->unnamed = unnamed;
}

void hf_holds_take(struct hf_holds *h, struct hf_rest rest)
{
    hf_holds_started(h, false);
    h->left_unnamed = rest.unnamed;
    h->discarded = rest.discarded;
}

void hf_holds_clear_unnamed(struct hf_holds *h)
{
    h->left_unnamed = false;
}

void hf_holds_forget_unnamed(struct hf_holds *h)
{
    hf_holds_set_unnamed(h, NULL);
}

const char *hf_holds_prepared(const struct hf_holds *h, const char *name)
{
    const struct hf_item *i = name[0] == '\0' ? h->unnamed : hf_log_find(&h->log, name, strlen(name));

    return i != NULL && i->by_message ? hf_sql_text(i->sql->sql) : NULL;
}

static bool is_ascii(const uint8_t *p, size_t n)
{
    uint8_t all = 0;

    for (size_t i = 0; i < n; i++)
        all |= p[i];
    return all < 0x80;
}

bool hf_holds_drops_unnamed(const uint8_t *p, size_t n)
{
    size_t len = n >= 5 ? (size_t)hf_scan_number(p + 1) + 1 : 0, text = n >= 5 && p[0] == 'P' ? 6 : 5, types;
    const uint8_t *nul;

    if (len <= text || len > n || (p[0] != 'Q' && (p[0] != 'P' || p[5] != '\0')))
        return false;
    nul = memchr(p + text, '\0', len - text);
    if (nul == NULL || !is_ascii(p + text, (size_t)(nul - (p + text))))
        return false;
    types = (size_t)(p + len - (nul + 1));
    if (p[0] == 'Q')
        return types == 0;
    return types >= 2 && types == 2 + ((size_t)nul[1] << 8 | nul[2]) * 4;
}

bool hf_holds_needs_unnamed(const struct hf_holds *h, const uint8_t *p, size_t n)
{
    bool replaces = n > 0 && (p[0] == 'Q' || (n > 5 && p[0] == 'P' && p[5] == '\0'));

    return h->unnamed != NULL && n > 0 && !replaces;
}
