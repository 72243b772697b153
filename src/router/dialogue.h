/* Who owes whom an answer: follows both streams of a session, message head by message head.
 *
 * The gate needs little of what is said: whether a session is between transactions with nothing
 * under way (drain), whether its stream is between two messages (may an error of our own be put
 * there?), the key of its backend (cancel), and whether PostgreSQL says that it gave up a wait for
 * synchronous replication (SAFETY S11). Bytes may come in any pieces.
 *
 * Where a client's conduct makes the count uncertain, it errs towards "busy": a drain then takes
 * until its bound, and nothing worse. */
#ifndef HF_ROUTER_DIALOGUE_H
#define HF_ROUTER_DIALOGUE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/scan.h"
#include "router/params.h"

enum { HF_SCAN_KEEP = 512, HF_BACKEND_KEY_MAX = 256 };

struct hf_dialogue {
    struct hf_scan client, server;
    uint8_t keep[HF_SCAN_KEEP]; /* the beginning of the server's message */
    size_t kept;
    unsigned pending; /* answers (ReadyForQuery) that the server owes */
    uint64_t syncs;   /* bit i: the i-th pending one was asked for by Sync */
    uint64_t due;     /* byte i: answers due to Parse, Bind, Describe, Execute and Close ahead of the i-th */
    bool uncounted;   /* that is not certain: no Query is taken to be passed over, which errs towards busy */
    bool batch;       /* extended-protocol messages that no Sync, Query or FunctionCall has ended */
    bool skipping;    /* the server has refused one of them, and passes over everything up to a Sync that is still to come */
    bool copying;     /* COPY FROM STDIN: Sync is ignored */
    bool swallowed;   /* one that was sent before the COPY is over: unless it fails before it has read that far */
    bool unsynced;    /* so another is to come, which ends it */
    bool unsure;      /* it has failed: for what it may have swallowed, an answer more may come than is counted */
    bool copied;      /* CopyDone was sent before the server said that it takes a COPY */
    bool goodbye;     /* the client has said that it goes */
    bool started;     /* the first ReadyForQuery came */
    char status;      /* of the last ReadyForQuery: 'I', 'T', 'E' */
    bool fatal;       /* the server has said its last word itself */
    char last;        /* type of the server's last complete message */
    bool key_known;   /* BackendKeyData came; pid and key do not change after */
    uint32_t pid;
    uint16_t key_len; /* 4 in protocol 3.0 */
    uint8_t key[HF_BACKEND_KEY_MAX];
    struct hf_params *params; /* what the client is told by ParameterStatus; NULL: nobody wants to know */
    bool wait_cancelled; /* set by the server's notice; the owner clears it */
    bool carried; /* by a tunnel to a gate: it may say HF_WIRE_TAKEN. Set by the owner */
    bool leaving, left; /* that has begun; it is complete, and `taken` what it says */
    uint64_t taken;
};

void hf_dialogue_init(struct hf_dialogue *d); /* the startup packet has been sent */
void hf_dialogue_client(struct hf_dialogue *d, const uint8_t *p, size_t n);
/* Returns how many of the bytes are for the client: all, but what comes with the gate's word. */
size_t hf_dialogue_server(struct hf_dialogue *d, const uint8_t *p, size_t n);
/* Another server connection is to come: of what was under way nothing is known any more. */
void hf_dialogue_settle(struct hf_dialogue *d, char status);
/* Something was asked that is not answered. */
bool hf_dialogue_owes(const struct hf_dialogue *d);
/* An answer may come that nothing was counted for: who is not the one who asked is not to hear it. Until hf_dialogue_settle(). */
bool hf_dialogue_may_hear_more(const struct hf_dialogue *d);
/* Logged in, outside a transaction, nothing asked that is not answered, nothing half said. */
bool hf_dialogue_is_idle(const struct hf_dialogue *d);
/* May an ErrorResponse of ours follow what the server has said? Not in the middle of a message, and not
 * behind the server's own last word. */
bool hf_dialogue_may_speak(const struct hf_dialogue *d);

#endif
