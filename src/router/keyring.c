/* The keys of the backends that sessions here are connected to. */
#include <stdlib.h>
#include <string.h>

#include <openssl/crypto.h>

#include "router/cancel.h"

int hf_keyring_open(struct hf_keyring *k)
{
    k->first = NULL;
    if (uv_mutex_init(&k->mutex) != 0)
        return -1;
    if (uv_cond_init(&k->cond) != 0) {
        uv_mutex_destroy(&k->mutex);
        return -1;
    }
    return 0;
}

void hf_keyring_close(struct hf_keyring *k)
{
    uv_cond_destroy(&k->cond);
    uv_mutex_destroy(&k->mutex);
}

struct hf_secret hf_secret_make(uint32_t pid, const uint8_t *bytes, size_t len)
{
    struct hf_secret s = {.pid = pid, .len = len <= HF_SECRET_MAX ? (uint16_t)len : 0};

    memcpy(s.bytes, bytes, s.len);
    return s;
}

static struct hf_key *add(struct hf_keyring *k, const struct hf_secret *secret, const struct hf_key_place *place,
                          struct hf_secret *to)
{
    struct hf_key *key = calloc(1, sizeof *key + secret->len);

    if (key == NULL)
        return NULL;
    key->pid = secret->pid;
    key->len = secret->len;
    memcpy(key->bytes, secret->bytes, secret->len);
    key->place = *place;
    key->to = to;
    uv_mutex_lock(&k->mutex);
    key->next = k->first;
    key->at = &k->first;
    if (key->next != NULL)
        key->next->at = &key->next;
    k->first = key;
    uv_mutex_unlock(&k->mutex);
    return key;
}

struct hf_key *hf_key_add(struct hf_keyring *k, const struct hf_secret *secret,
                          const struct hf_key_place *place)
{
    return add(k, secret, place, NULL);
}

struct hf_key *hf_key_alias(struct hf_keyring *k, const struct hf_secret *theirs, const struct hf_secret *now, struct hf_thread *t,
                            uint64_t id)
{
    struct hf_secret *to = malloc(sizeof *to);
    struct hf_key *key;

    if (to == NULL)
        return NULL;
    *to = *now;
    key = add(k, theirs, &(struct hf_key_place){.alias = true, .t = t, .id = id}, to);
    if (key == NULL)
        free(to);
    return key;
}

void hf_key_remove(struct hf_keyring *k, struct hf_key *key)
{
    if (key == NULL)
        return;
    uv_mutex_lock(&k->mutex);
    *key->at = key->next;
    if (key->next != NULL)
        key->next->at = key->at;
    uv_cond_broadcast(&k->cond);
    uv_mutex_unlock(&k->mutex);
    free(key->to);
    free(key);
}

static struct hf_key *find(struct hf_keyring *k, const struct hf_secret *secret)
{
    for (struct hf_key *key = k->first; key != NULL; key = key->next)
        if (key->pid == secret->pid && key->len == secret->len && key->len > 0 &&
            CRYPTO_memcmp(key->bytes, secret->bytes, key->len) == 0)
            return key;
    return NULL;
}

bool hf_key_find(struct hf_keyring *k, const struct hf_secret *secret, struct hf_key_place *place)
{
    const struct hf_key *key;

    uv_mutex_lock(&k->mutex);
    key = find(k, secret);
    if (key != NULL)
        *place = key->place;
    uv_mutex_unlock(&k->mutex);
    return key != NULL;
}

void hf_key_settled(struct hf_keyring *k, struct hf_key *key, bool settled)
{
    atomic_store(&key->settled, settled);
    if (!settled || !atomic_load(&key->watched))
        return;
    uv_mutex_lock(&k->mutex);
    uv_cond_broadcast(&k->cond);
    uv_mutex_unlock(&k->mutex);
}

void hf_key_settle(struct hf_keyring *k, const struct hf_secret *secret, uint64_t bound_ns)
{
    uint64_t until = uv_hrtime() + bound_ns, now;
    struct hf_key *key;

    uv_mutex_lock(&k->mutex);
    while ((key = find(k, secret)) != NULL && (now = uv_hrtime()) < until) {
        /* Watched first, then looked at: hf_key_settled() does it the other way round. */
        atomic_store(&key->watched, true);
        if (atomic_load(&key->settled))
            break;
        (void)uv_cond_timedwait(&k->cond, &k->mutex, until - now);
    }
    if (key != NULL)
        atomic_store(&key->watched, false);
    uv_mutex_unlock(&k->mutex);
}

bool hf_key_waits(struct hf_keyring *k, struct hf_key *key, bool yes)
{
    bool cancelled;

    uv_mutex_lock(&k->mutex);
    cancelled = key->cancelled;
    key->cancelled = false;
    key->waits = yes;
    uv_mutex_unlock(&k->mutex);
    return cancelled;
}

bool hf_key_cancel_later(struct hf_keyring *k, const struct hf_secret *secret)
{
    struct hf_key *key;
    bool later;

    uv_mutex_lock(&k->mutex);
    key = find(k, secret);
    later = key != NULL && key->waits;
    if (later)
        key->cancelled = true;
    uv_mutex_unlock(&k->mutex);
    return later;
}

bool hf_key_present(struct hf_keyring *k, struct hf_secret *secret, struct hf_ticket **ticket)
{
    struct hf_ticket *t = malloc(sizeof *t);
    struct hf_key *key;
    bool found;

    uv_mutex_lock(&k->mutex);
    key = find(k, secret);
    found = key != NULL && key->to != NULL && key->to->len > 0;
    if (found) {
        if (t != NULL)
            *t = (struct hf_ticket){.theirs = *secret, .turn = key->turn};
        key->cancels++;
        *secret = *key->to;
    }
    uv_mutex_unlock(&k->mutex);
    if (!found) {
        free(t);
        t = NULL;
    }
    *ticket = t;
    return found;
}

void hf_key_cancelled(struct hf_keyring *k, struct hf_ticket *ticket)
{
    struct hf_key *key;

    if (ticket == NULL)
        return;
    uv_mutex_lock(&k->mutex);
    key = find(k, &ticket->theirs);
    if (key != NULL && key->to != NULL && key->turn == ticket->turn && key->cancels > 0)
        key->cancels--;
    uv_mutex_unlock(&k->mutex);
    free(ticket);
}

bool hf_key_point(struct hf_keyring *k, struct hf_key *alias, const struct hf_secret *now)
{
    bool clean;

    if (alias == NULL)
        return true; /* nobody can cancel it */
    uv_mutex_lock(&k->mutex);
    clean = alias->cancels == 0;
    alias->cancels = 0;
    alias->turn++;
    *alias->to = *now;
    uv_mutex_unlock(&k->mutex);
    return clean;
}
