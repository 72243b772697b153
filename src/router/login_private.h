/* A login's state: shared by login.c, the client's side, and login_server.c, PostgreSQL's. */
#ifndef HF_ROUTER_LOGIN_PRIVATE_H
#define HF_ROUTER_LOGIN_PRIVATE_H

#include "router/asker.h"
#include "router/login.h"
#include "router/sasl.h"

enum {
    HF_LOGIN_HEAD = 5, /* of a message: its type and length */
    HF_LOGIN_IN_MAX = HF_SASL_IN_MAX,
};

enum hf_login_step {
    HF_LOGIN_START,
    HF_LOGIN_FIRST,
    HF_LOGIN_FINAL,
    HF_LOGIN_CHECKED,
    HF_LOGIN_MAKING, /* logged in; the rest is between the server and survive.h */
    HF_LOGIN_THROUGH, /* all that comes is the client's */
};

struct hf_login {
    bool known;    /* `role` came */
    bool own_copy; /* and from a standby */
    bool not_dialed;
    struct hf_role role;
    struct hf_sasl sasl;
    bool proof_waits;
    uint64_t proof_at_ms;
    enum hf_login_step step; /* with PostgreSQL */
    struct hf_scram_client client;
    uint8_t in[HF_LOGIN_IN_MAX]; /* a message of the client's, or of PostgreSQL's */
    size_t in_len;
    uint64_t skip; /* bytes of PostgreSQL's message that are of no interest */
};

/* Reads from the back until `need` bytes are in `in`. 1: they are, 0: nothing now, -1: the back has ended. */
int hf_login_fill(struct hf_session *s, size_t need);
void hf_login_nonce(char out[HF_SCRAM_NONCE + 1]);

#endif
