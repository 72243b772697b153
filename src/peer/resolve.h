/* Names to addresses, without ever waiting for it: private to src/peer.
 *
 * A lookup may take as long as the resolver's patience, ten seconds and more, when a DNS server is
 * away or a packet is lost. Each name in question therefore has a thread of its own (libuv's pool
 * has two for all lookups together, and a pod that is gone would keep everybody from the others),
 * several questions for one name share it, and what was found last is remembered: whoever grows
 * impatient may try that. A wrong guess does no harm, since TLS tells who answers. */
#ifndef HF_PEER_RESOLVE_H
#define HF_PEER_RESOLVE_H

#include <stdbool.h>
#include <sys/socket.h>

#include "base/mailbox.h"

struct hf_resolver;

struct hf_address {
    struct sockaddr_storage sa;
    socklen_t len; /* 0: not known */
};

/* One question. The asker owns it until `done`, which frees it; an asker that has lost interest
 * says so in its `arg`. */
struct hf_question {
    struct hf_mailbox *mailbox; /* `done` runs on its loop */
    void (*done)(struct hf_question *q);
    void *arg;
    struct hf_address answer; /* len 0: cannot be resolved */
    /* the resolver's */
    struct hf_question *next;
};

struct hf_resolver *hf_resolver_open(void); /* NULL: out of memory */
/* Not a question is answered after this: the mailboxes may go. */
void hf_resolver_mute(struct hf_resolver *r);
/* Once muted and when no asker is left: frees what still waits. Lookups under way end by
 * themselves. */
void hf_resolver_close(struct hf_resolver *r);
/* `addr`: "host:port". Any thread. False: too many names are being looked up; `q` stays the
 * caller's. */
bool hf_resolver_ask(struct hf_resolver *r, const char *addr, struct hf_question *q);
/* What was found last, if anything. Any thread. */
struct hf_address hf_resolver_last(struct hf_resolver *r, const char *addr);
/* An address that is a number; else len 0. */
struct hf_address hf_resolver_number(const char *addr);

#endif
