/* How an empty volume becomes a member of a cluster (DESIGN section 9, SAFETY S14, S15).
 *
 * Runs only while the node has no Raft id on disk. Node 0 founds the cluster when its own volume is
 * empty and *every* expected node answers that it is empty too, and gives each of them the cluster id;
 * only when all have it on disk is the founding complete. Any other empty node, and node 0 with a
 * lost volume, joins as a new incarnation: it asks whoever is of a cluster, and the leader that those name.
 *
 * Everything is asked again and again, so a lost message costs a round. ADOPT and JOINED carry the uuid of
 * the incarnation they are meant for: a late or doubled one never gives an id to a volume that came after,
 * which has none of the votes and WAL that go with the id (S14).
 *
 * If node 0 dies in the middle:
 * - Before its own record nobody but adopted nodes know of that cluster, and they say "adopted, not
 *   founded". With its volume it founds on with the same id, and each says again that it is adopted.
 * - Its volume lost: a new founding needs *every* seed to be empty or not founded. A node is founded (on
 *   disk) before it streams its first byte, and nothing is acknowledged before a majority streams; so if
 *   anything ever was, and one of that majority still has its volume, a seed says "founded", and the empty
 *   node 0 joins. Else nothing is lost by founding anew: the adopted nodes empty their directories.
 * - It is not dead but behind a partition, and a second node 0 founds (S14): a node leaves an adoption only
 *   for a greater cluster id, and never once founded. If both founders see everybody adopt their id, all
 *   are with the greater in the end; the other founder is alone and never has a majority.
 * With `expect` = 1 and no other seed the only copy is node 0's own volume, until the cluster grows: `expect` says how many found it, and
 * all that the nodes 0 .. expect-1 knew may be gone while those that came later hold data. So whoever else exists is asked, too, as a
 * witness: nothing is founded before every witness has said that it is of no founded cluster; if one is, node 0 joins. That holds also for one
 * that is heard of only when ids are being given out already, and anew after each founding that could not be written.
 *
 * Driven like decide.h: events in, actions out, same limits. */
#ifndef HF_CORE_FORM_H
#define HF_CORE_FORM_H

#include "decide.h"

#define HF_FORM_PATIENCE_NS (10000 * HF_MS) /* then the log says what it waits for, three times as long between */

struct hf_form_config {
    char name[HF_NAME_MAX]; /* "demo-0": ends in the ordinal */
    char peer[HF_ADDR_MAX], sql[HF_ADDR_MAX];
    unsigned ordinal, expect;
    struct hf_uuid uuid;       /* fresh random: this volume's incarnation */
    /* Random, the same for the life of the volume. Founds with it, unless seeds were adopted into a greater
     * one: then with one that is greater still (its first bytes are changed). */
    struct hf_uuid cluster_id;
    unsigned n_seeds;          /* the expected nodes 0 .. expect-1, and this one */
    char seeds[HF_MEMBERS_MAX][HF_NAME_MAX]; /* names, this node's among them if it founds; seed i gets id
                                              * i + 1; the host knows the addresses */
    bool witnesses_unknown; /* founds nothing before hf_form_witnesses_known(); joins meanwhile */
    uint64_t retry_ns;
};

enum hf_form_action_type {
    HF_FORM_SEND = 1,  /* msg, to the node called `name` */
    HF_FORM_PERSIST,   /* durable -> hf_form_persisted() */
    HF_FORM_FOUND,     /* keep `members` for HF_EV_FOUNDING, then go on as a member */
    HF_FORM_MEMBER,    /* the id is on disk: go on as a member. FOUND and MEMBER, while !hf_form_founded():
                        * write Raft's first configuration, the seeds as voters 1, 2, ... */
    HF_FORM_STUCK,     /* text, about the node called `name` unless that is empty: for the log; keeps trying */
};

struct hf_form_action {
    enum hf_form_action_type type;
    char name[HF_NAME_MAX];
    char addr[HF_ADDR_MAX]; /* SEND: where that node is; "": the host knows */
    struct hf_msg msg;
    struct hf_durable durable;
    unsigned n_members;
    struct hf_member members[HF_MEMBERS_MAX];
    const char *text;
};

struct hf_form;
size_t hf_form_size(void);
/* Only for a node whose disk holds no id. A founder that died between its own record and the founding
 * list (see hf_form_action FOUND) counts as such: the host discards that record first. */
struct hf_form *hf_form_init(void *memory, const struct hf_form_config *config, uint64_t now_ns);
/* Somebody else of that name exists: it will be asked, too, and joined through, but gets no id by founding. A seed, or one that is
 * known: nothing. */
void hf_form_witness(struct hf_form *f, const char *name);
/* That was everybody, as far as anybody can know. */
void hf_form_witnesses_known(struct hf_form *f);
void hf_form_tick(struct hf_form *f, uint64_t now_ns);
void hf_form_message(struct hf_form *f, uint64_t now_ns, const struct hf_msg *m);
void hf_form_persisted(struct hf_form *f, uint64_t now_ns, bool ok);
const struct hf_form_action *hf_form_next(struct hf_form *f);

/* What a node that has an id answers to PROBE (its cluster id, and whether it is known to be founded)
 * and to the same ADOPT again. Returns whether there is an answer. */
bool hf_form_answer(const struct hf_durable *durable, const struct hf_msg *m, struct hf_msg *answer);

/* Has this node seen, on its disk, that the cluster's first epoch was appointed? Only then can anything
 * have been acknowledged with its help. */
bool hf_form_founded(const struct hf_durable *durable);

/* The founder lost its volume before the first epoch and founds anew: should this node forget its
 * adoption, empty its directory and start again? Never once founded, and only for a greater id. */
bool hf_form_starts_anew(const struct hf_durable *durable, const struct hf_msg *m);

#endif
