/* Between host.c and host_io.c. */
#ifndef HF_SIM_HOST_H
#define HF_SIM_HOST_H

#include "sim.h"

/* One start of a process: what is under way for an earlier one is void. */
struct life {
    struct node *n;
    uint64_t life;
};

struct node *host_named(const char *name);
void host_form_run(struct node *n);
void host_send(struct node *from, const char *to, const struct hf_msg *m);
void host_persist(struct node *n, const struct hf_durable *d, uint64_t seq, bool form);
void host_propose(struct node *n, const struct hf_entry *entry);
void host_raft_request(struct node *n, const struct hf_action *a);
void host_dial(struct node *n); /* the WAL receiver comes, again and again */
void host_admit(struct node *n, const struct hf_action *action);

#endif
