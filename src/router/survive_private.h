/* What survive*.c share. */
#ifndef HF_ROUTER_SURVIVE_PRIVATE_H
#define HF_ROUTER_SURVIVE_PRIVATE_H

#include "router/params.h"
#include "router/session.h"
#include "router/survive.h"

enum {
    HF_SURVIVE_OWED_MAX = 256,  /* answers that are made up for a pipeline; longer ones end the session */
    HF_SURVIVE_FAILED_MAX = 64, /* prepared statements that cannot be made again */
};

enum hf_filter {
    HF_FILTER_NONE,
    HF_FILTER_TELL, /* the next statement is answered by us: the transaction is lost */
    HF_FILTER_CANCEL, /* the next statement is answered by us: it was cancelled before a server had it (share.h) */
    HF_FILTER_CANCELLED, /* nothing counts up to the Sync, and nothing of it was done */
    HF_FILTER_SKIP, /* nothing counts up to the Sync */
};

/* A statement that is prepared among what is not for the server. */
struct hf_skipped {
    bool known;
    char name[64]; /* a longer one is not known */
    enum hf_sql_kind kind;
};

struct hf_survive {
    struct hf_params told; /* to the client */

    bool moving;           /* from the loss until the session is made again */
    bool lost;             /* there was one: it does not just share connections */
    bool failed;           /* the transaction that the client believes in is to be a failed one */
    enum hf_filter filter; /* what becomes of the client's next messages */
    bool certain;          /* FILTER_SKIP, FILTER_CANCELLED: only Close and Flush have been skipped, which PostgreSQL does not refuse: to its client,
                            * the error is that of a Query behind them, so that ends the skipping as Sync does */
    enum hf_doing untold;  /* FILTER_SKIP: the error that its client, which has an answer to all that it has sent, is told when it says more; NOTHING: none.
                            * Some drivers take one that comes by itself for a notice, or for the end of what they have not begun */
    bool inside;           /* FILTER_SKIP: a transaction, if the client is believed to be there after what is skipped;
                            * FILTER_CANCEL, FILTER_CANCELLED: if it may have begun one with what was cancelled */
    struct hf_skipped parsed[2]; /* FILTER_SKIP: the newest unnamed one, and the newest that has a name */
    bool spoiling;         /* the new server is brought into a failed transaction, while the client waits */
    struct hf_scan client;

    /* On the new server. */
    struct hf_params fresh;
    struct hf_secret secret;
    bool asked; /* the first ReadyForQuery came, and the remake was sent */
    bool unnamed_only; /* the remake: of the unnamed statement */
    unsigned heard, steps, failures[HF_SURVIVE_FAILED_MAX], n_failures;
    bool in_error, refused;
    unsigned tries; /* connections since the loss */
    struct hf_key *alias; /* the key that the client has */

    /* A tunnel: what was sent since the session was last idle, from byte sent_from of the connection on. */
    uint8_t *sent;
    size_t sent_len, sent_cap;
    uint64_t sent_from;
    size_t sent_ours; /* bytes of ours right before that */
    bool sent_lost; /* it was too much */
    uint8_t *more;  /* what was not taken */
    size_t more_len;
};

/* False: the client does not take it, at once and whole. */
#define HF_SURVIVE_DEAF "the client does not take what it is told"
bool hf_survive_tell(struct hf_session *s, const uint8_t *p, size_t n);
/* "BEGIN", and an error in it. Returns the length, at most HF_SURVIVE_SPOIL_MAX. */
enum { HF_SURVIVE_SPOIL_MAX = 256 };
size_t hf_survive_put_spoil(uint8_t *out);
/* Everything that is owed is answered, or its answer is put away (`untold`). False: the client does not take it. */
bool hf_survive_answer_owed(struct hf_session *s, const struct hf_owed *owed, enum hf_doing doing, char status);

#endif
