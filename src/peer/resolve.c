#include "peer/resolve.h"

#include <netdb.h>
#include <pthread.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>

#include "base/net.h"
#include "core/types.h"

enum { NAMES_MAX = 64, THREAD_STACK = 256 * 1024 };

struct name {
    char addr[HF_ADDR_MAX]; /* "": free */
    bool busy;              /* a thread looks it up */
    struct hf_question *waiting;
    struct hf_address last;
    unsigned long used; /* the oldest gives way to a new one */
};

struct hf_resolver {
    pthread_mutex_t lock; /* all below */
    unsigned references;  /* the owner's, and one for each thread */
    bool muted;
    unsigned long clock;
    struct name names[NAMES_MAX];
};

struct lookup {
    struct hf_resolver *resolver;
    struct name *name;
    char addr[HF_ADDR_MAX];
};

static struct hf_address resolve(const char *addr, int flags)
{
    struct addrinfo hints = {.ai_socktype = SOCK_STREAM, .ai_flags = flags}, *list;
    struct hf_address out = {.len = 0};
    char host[HF_ADDR_MAX], port[16];

    if (hf_net_split(addr, host, sizeof host, port, sizeof port, NULL) != 0 ||
        getaddrinfo(host, port, &hints, &list) != 0)
        return out;
    if (list->ai_addrlen <= sizeof out.sa) {
        memcpy(&out.sa, list->ai_addr, list->ai_addrlen);
        out.len = list->ai_addrlen;
    }
    freeaddrinfo(list);
    return out;
}

struct hf_address hf_resolver_number(const char *addr)
{
    return resolve(addr, AI_NUMERICHOST | AI_NUMERICSERV);
}

/* Unlocks; the last one out frees. */
static void let_go(struct hf_resolver *r)
{
    bool last = --r->references == 0;

    pthread_mutex_unlock(&r->lock);
    if (!last)
        return;
    (void)pthread_mutex_destroy(&r->lock);
    free(r);
}

static void deliver(void *arg)
{
    struct hf_question *q = arg;

    q->done(q);
}

static void *lookup_main(void *arg)
{
    struct lookup *l = arg;
    struct hf_address found = resolve(l->addr, 0);
    struct hf_question *q, *next;

    pthread_mutex_lock(&l->resolver->lock);
    l->name->busy = false;
    if (found.len > 0)
        l->name->last = found;
    if (!l->resolver->muted) { /* under the lock, else the mailboxes may be gone */
        for (q = l->name->waiting; q != NULL; q = next) {
            next = q->next;
            q->answer = found;
            hf_mailbox_post(q->mailbox, deliver, q);
        }
        l->name->waiting = NULL;
    }
    let_go(l->resolver);
    free(l);
    return NULL;
}

static bool begin(struct hf_resolver *r, struct name *n)
{
    struct lookup *l = calloc(1, sizeof *l);
    pthread_attr_t attr;
    sigset_t all, old;
    pthread_t thread;
    bool ok;

    if (l == NULL || pthread_attr_init(&attr) != 0) {
        free(l);
        return false;
    }
    *l = (struct lookup){.resolver = r, .name = n};
    memcpy(l->addr, n->addr, sizeof l->addr);
    (void)pthread_attr_setdetachstate(&attr, PTHREAD_CREATE_DETACHED);
    (void)pthread_attr_setstacksize(&attr, THREAD_STACK);
    /* Signals are for the control loop. */
    (void)sigfillset(&all);
    (void)pthread_sigmask(SIG_SETMASK, &all, &old);
    ok = pthread_create(&thread, &attr, lookup_main, l) == 0;
    (void)pthread_sigmask(SIG_SETMASK, &old, NULL);
    (void)pthread_attr_destroy(&attr);
    if (!ok) {
        free(l);
        return false;
    }
    n->busy = true;
    r->references++;
    return true;
}

/* Its place, or the one of the name unused for longest. NULL: everyone is busy. */
static struct name *find(struct hf_resolver *r, const char *addr, bool make)
{
    struct name *place = NULL;

    for (int i = 0; i < NAMES_MAX; i++) {
        struct name *n = &r->names[i];
        if (strcmp(n->addr, addr) == 0)
            return n;
        if (!n->busy && (place == NULL || n->used < place->used))
            place = n;
    }
    if (!make || place == NULL || strlen(addr) >= sizeof place->addr)
        return NULL;
    memset(place, 0, sizeof *place);
    strcpy(place->addr, addr);
    return place;
}

bool hf_resolver_ask(struct hf_resolver *r, const char *addr, struct hf_question *q)
{
    struct name *n;
    bool ok;

    pthread_mutex_lock(&r->lock);
    n = r->muted ? NULL : find(r, addr, true);
    ok = n != NULL && (n->busy || begin(r, n));
    if (ok) {
        n->used = ++r->clock;
        q->next = n->waiting;
        n->waiting = q;
    }
    pthread_mutex_unlock(&r->lock);
    return ok;
}

struct hf_address hf_resolver_last(struct hf_resolver *r, const char *addr)
{
    struct hf_address none = {.len = 0}, out;
    const struct name *n;

    pthread_mutex_lock(&r->lock);
    n = find(r, addr, false);
    out = n != NULL ? n->last : none;
    pthread_mutex_unlock(&r->lock);
    return out;
}

struct hf_resolver *hf_resolver_open(void)
{
    struct hf_resolver *r = calloc(1, sizeof *r);

    if (r == NULL || pthread_mutex_init(&r->lock, NULL) != 0) {
        free(r);
        return NULL;
    }
    r->references = 1;
    return r;
}

void hf_resolver_mute(struct hf_resolver *r)
{
    pthread_mutex_lock(&r->lock);
    r->muted = true;
    pthread_mutex_unlock(&r->lock);
}

void hf_resolver_close(struct hf_resolver *r)
{
    pthread_mutex_lock(&r->lock);
    for (int i = 0; i < NAMES_MAX; i++) {
        struct hf_question *q, *next;
        for (q = r->names[i].waiting; q != NULL; q = next) {
            next = q->next;
            free(q);
        }
        r->names[i].waiting = NULL;
    }
    let_go(r);
}
