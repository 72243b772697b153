#include "form.h"

#include <string.h>

enum {
    QUEUE_MAX = 2 * HF_MEMBERS_MAX + 4, /* two messages to each seed, and what one event adds */
    BALLOT_BYTES = 4,                   /* of a cluster id, big endian: see outbid() */
};

enum state {
    LOOKING,   /* probing; nothing on disk */
    ADOPTING,  /* node 0: every seed is empty, handing out ids */
    SAVING,    /* an adoption, a founding or a join is on its way to disk */
    DONE,
};

struct seed {
    bool answered; /* PROBED, since the last round of PROBE */
    bool heard;    /* PROBED, ever */
    bool founded;  /* as it answered: a member of a cluster that has had an epoch */
    bool adopted;  /* has our cluster id on its disk, as the incarnation member.uuid */
    struct hf_member member;
};

struct hf_form {
    struct hf_form_config cfg;
    enum state state;
    bool founding; /* SAVING: our own founding */
    unsigned n_witnesses; /* in cfg.seeds and seeds, after the seeds */
    struct hf_durable durable;
    struct seed seeds[HF_MEMBERS_MAX];
    struct { /* as a member has said since the last round of PROBE; name "": nobody has */
        hf_epoch epoch;
        char name[HF_NAME_MAX], addr[HF_ADDR_MAX];
    } leader;
    uint64_t next_ns, tell_ns;
    struct hf_msg adopted_answer; /* to send once the adoption is on disk */
    char adopted_by[HF_NAME_MAX];
    unsigned first, n;
    struct hf_form_action queue[QUEUE_MAX];
};

static bool is_zero(const struct hf_uuid *u)
{
    static const struct hf_uuid none;

    return memcmp(u, &none, sizeof none) == 0;
}

size_t hf_form_size(void)
{
    return sizeof(struct hf_form);
}

static void copy_text(char *to, const char *from, size_t cap)
{
    size_t n = 0;

    while (n + 1 < cap && from[n] != '\0') {
        to[n] = from[n];
        n++;
    }
    memset(to + n, 0, cap - n);
}

struct hf_form *hf_form_init(void *memory, const struct hf_form_config *config, uint64_t now_ns)
{
    struct hf_form *f = memory;

    memset(f, 0, sizeof *f);
    f->cfg = *config;
    f->next_ns = now_ns;
    f->tell_ns = now_ns + HF_FORM_PATIENCE_NS;
    return f;
}

static struct hf_form_action *emit(struct hf_form *f, enum hf_form_action_type type)
{
    static struct hf_form_action lost; /* everything is sent again */
    struct hf_form_action *a = &lost;

    if (f->n < QUEUE_MAX) {
        a = &f->queue[(f->first + f->n) % QUEUE_MAX];
        f->n++;
    }
    memset(a, 0, sizeof *a);
    a->type = type;
    return a;
}

const struct hf_form_action *hf_form_next(struct hf_form *f)
{
    const struct hf_form_action *a;

    if (f->n == 0)
        return NULL;
    a = &f->queue[f->first];
    f->first = (f->first + 1) % QUEUE_MAX;
    f->n--;
    return a;
}

static void identify(const struct hf_form *f, struct hf_msg *m)
{
    m->uuid = f->cfg.uuid;
    m->expect = f->cfg.expect;
    copy_text(m->name, f->cfg.name, sizeof m->name);
    copy_text(m->peer, f->cfg.peer, sizeof m->peer);
    copy_text(m->sql, f->cfg.sql, sizeof m->sql);
}

static struct hf_form_action *send(struct hf_form *f, const char *name, const struct hf_msg *m)
{
    struct hf_form_action *a = emit(f, HF_FORM_SEND);

    copy_text(a->name, name, sizeof a->name);
    a->msg = *m;
    return a;
}

static bool is_self(const struct hf_form *f, unsigned i)
{
    return strncmp(f->cfg.seeds[i], f->cfg.name, HF_NAME_MAX) == 0;
}

/* Seeds and witnesses. */
static unsigned n_asked(const struct hf_form *f)
{
    return f->cfg.n_seeds + f->n_witnesses;
}

static int seed_of(const struct hf_form *f, const char *name)
{
    for (unsigned i = 0; i < n_asked(f); i++)
        if (strncmp(f->cfg.seeds[i], name, HF_NAME_MAX) == 0)
            return (int)i;
    return -1;
}

void hf_form_witness(struct hf_form *f, const char *name)
{
    if (seed_of(f, name) < 0 && n_asked(f) < HF_MEMBERS_MAX) {
        copy_text(f->cfg.seeds[n_asked(f)], name, HF_NAME_MAX);
        f->n_witnesses++;
    }
}

void hf_form_witnesses_known(struct hf_form *f)
{
    f->cfg.witnesses_unknown = false;
}

static void persist(struct hf_form *f)
{
    f->state = SAVING;
    emit(f, HF_FORM_PERSIST)->durable = f->durable;
}

/* -- founding ---------------------------------------------------------------------------------------- */

/* S15: every seed and witness, not a majority, must say that nothing was ever founded there. A seed that was
 * adopted by a founder who died before the first epoch has acknowledged nothing and starts anew. */
static bool may_found(const struct hf_form *f)
{
    if (f->cfg.ordinal != 0 || seed_of(f, f->cfg.name) < 0 || f->cfg.n_seeds < f->cfg.expect)
        return false;
    if (HF_MUTATED(HF_MUT_FOUND_ALONE))
        return true;
    if (f->cfg.witnesses_unknown)
        return false;
    for (unsigned i = 0; i < n_asked(f); i++)
        if (!is_self(f, i) && (!f->seeds[i].answered || f->seeds[i].founded))
            return false;
    return true;
}

static void adopt_others(struct hf_form *f)
{
    struct hf_msg m = {.type = HF_MSG_ADOPT, .cluster_id = f->cfg.cluster_id};

    identify(f, &m);
    for (unsigned i = 0; i < f->cfg.n_seeds; i++) {
        m.id = i + 1;
        m.uuid = f->seeds[i].member.uuid; /* S14: this id is for that incarnation and no later one */
        if (!is_self(f, i) && !f->seeds[i].adopted && f->seeds[i].answered)
            send(f, f->cfg.seeds[i], &m);
    }
}

/* A seed is adopted already, into `other`, by a founder that died; or that lives, behind a partition (S14),
 * and goes on founding. A node leaves an adoption only for a greater id (hf_form_starts_anew). So if two
 * founders both see everybody adopt their id, all are with the greater one in the end, and the other founder
 * is alone: it has no majority. Ours becomes the greater one; if the tail is our own, `other` is ours, from
 * before we crashed. */
static void outbid(struct hf_form *f, const struct hf_uuid *other)
{
    struct hf_uuid id = f->cfg.cluster_id;

    if (memcmp(other, &id, sizeof id) <= 0)
        return;
    memcpy(id.b, other->b, BALLOT_BYTES);
    if (memcmp(other, &id, sizeof id) != 0) {
        unsigned i = BALLOT_BYTES;
        while (i > 0 && ++id.b[i - 1] == 0)
            i--;
        if (i == 0) {
            emit(f, HF_FORM_STUCK)->text = "the cluster ids are used up: empty every expected node";
            return;
        }
    }
    f->cfg.cluster_id = id;
    for (unsigned i = 0; i < f->cfg.n_seeds; i++)
        f->seeds[i].adopted = false;
}

/* S15: a witness may have come after may_found(), while ids were handed out: its newest answer must be there, too, and an empty one. If it is
 * silent since, that answer holds: a cluster that had let it in meanwhile would be one of these seeds, and they have our id on their disks. */
static bool may_persist(const struct hf_form *f)
{
    if (HF_MUTATED(HF_MUT_FOUND_ALONE))
        return true;
    for (unsigned i = 0; i < n_asked(f); i++) {
        const struct seed *s = &f->seeds[i];
        if (!is_self(f, i) && (i < f->cfg.n_seeds ? !s->adopted : !s->heard || s->founded))
            return false;
    }
    return true;
}

static void try_found(struct hf_form *f)
{
    if (!may_persist(f))
        return;
    f->durable = (struct hf_durable){.cluster_id = f->cfg.cluster_id, .uuid = f->cfg.uuid};
    f->durable.self = (hf_node_id)seed_of(f, f->cfg.name) + 1;
    f->founding = true;
    persist(f);
}

static void found(struct hf_form *f)
{
    struct hf_form_action *a = emit(f, HF_FORM_FOUND);

    for (unsigned i = 0; i < f->cfg.n_seeds; i++) {
        struct hf_member *m = &a->members[i];
        *m = f->seeds[i].member;
        if (is_self(f, i)) {
            m->uuid = f->cfg.uuid;
            copy_text(m->peer, f->cfg.peer, sizeof m->peer);
            copy_text(m->sql, f->cfg.sql, sizeof m->sql);
        }
        copy_text(m->name, f->cfg.seeds[i], sizeof m->name);
        m->id = i + 1;
        m->voter = true;
        a->n_members++;
    }
}

/* -- who is waited for ------------------------------------------------------------------------------- */

/* A founded cluster counts for more than silence: joining it needs its leader only. */
static const char *waits_for(const struct hf_form *f, unsigned *who)
{
    const char *why = NULL;

    for (unsigned i = 0; i < n_asked(f); i++) {
        if (is_self(f, i))
            continue;
        if (f->seeds[i].founded) {
            *who = i;
            return "is of a cluster already, but no leader of it has let this node in: has it a majority?";
        }
        if (!f->seeds[i].answered && why == NULL) {
            *who = i;
            why = i < f->cfg.n_seeds
                      ? "does not answer, and a cluster is founded when every expected node has: does it run, and is its port reachable?"
                      : "has a name in the DNS and does not answer: it may hold a cluster's data (hint: if it is gone for good, start this node "
                        "again)";
        }
    }
    return why;
}

static void tell(struct hf_form *f, uint64_t now_ns)
{
    unsigned who = 0;
    const char *why = waits_for(f, &who);

    if (now_ns < f->tell_ns || why == NULL)
        return;
    f->tell_ns = now_ns + 3 * HF_FORM_PATIENCE_NS;
    struct hf_form_action *a = emit(f, HF_FORM_STUCK);
    a->text = why;
    copy_text(a->name, f->cfg.seeds[who], sizeof a->name);
}

/* -- events ------------------------------------------------------------------------------------------ */

void hf_form_tick(struct hf_form *f, uint64_t now_ns)
{
    struct hf_msg m = {.type = HF_MSG_PROBE};

    if (now_ns < f->next_ns || f->state == DONE || f->state == SAVING)
        return;
    f->next_ns = now_ns + f->cfg.retry_ns;
    if (f->state == LOOKING && may_found(f))
        f->state = ADOPTING;
    if (f->state == ADOPTING) {
        adopt_others(f);
        try_found(f);
        if (f->state == SAVING)
            return;
    }
    tell(f, now_ns);
    identify(f, &m);
    for (unsigned i = 0; i < n_asked(f); i++) {
        if (is_self(f, i))
            continue;
        m.type = HF_MSG_PROBE;
        send(f, f->cfg.seeds[i], &m);
        m.type = HF_MSG_JOIN;
        if (f->seeds[i].founded)
            send(f, f->cfg.seeds[i], &m);
        f->seeds[i].answered = false; /* an answer counts for one round only */
    }
    if (f->leader.name[0] != '\0' && f->state == LOOKING) {
        m.type = HF_MSG_JOIN;
        copy_text(send(f, f->leader.name, &m)->addr, f->leader.addr, HF_ADDR_MAX);
    }
    memset(&f->leader, 0, sizeof f->leader);
}

static void probe(struct hf_form *f, const struct hf_msg *m)
{
    struct hf_msg answer = {.type = HF_MSG_PROBED};

    identify(f, &answer);
    send(f, m->name, &answer);
}

static void probed(struct hf_form *f, const struct hf_msg *m)
{
    int i = seed_of(f, m->name);

    if (i < 0)
        return;
    f->seeds[i].answered = f->seeds[i].heard = true;
    f->seeds[i].founded = !is_zero(&m->cluster_id) && !(m->flags & HF_FLAG_UNFOUNDED);
    /* Another incarnation than the one that was adopted: that one is gone, and its id with it. */
    if (memcmp(&m->uuid, &f->seeds[i].member.uuid, sizeof m->uuid) != 0)
        f->seeds[i].adopted = false;
    f->seeds[i].member.uuid = m->uuid;
    if (f->state != LOOKING && f->state != ADOPTING)
        return;
    if (f->seeds[i].founded)
        f->state = LOOKING;
    else if (f->cfg.ordinal == 0)
        outbid(f, &m->cluster_id);
}

/* Only node 0's expected peers are adopted, and only while they look for a cluster. S14: an ADOPT that was
 * meant for an earlier incarnation of this volume, lost since with its votes, is a minute late. */
static void adopt(struct hf_form *f, const struct hf_msg *m)
{
    struct hf_msg answer = {.type = HF_MSG_ADOPTED, .cluster_id = m->cluster_id, .id = m->id};

    if (f->state != LOOKING || f->cfg.ordinal == 0 || m->id == 0 || is_zero(&m->cluster_id) ||
        memcmp(&m->uuid, &f->cfg.uuid, sizeof m->uuid) != 0)
        return;
    f->durable = (struct hf_durable){
        .cluster_id = m->cluster_id, .uuid = f->cfg.uuid, .self = m->id};
    identify(f, &answer);
    f->adopted_answer = answer;
    copy_text(f->adopted_by, m->name, sizeof f->adopted_by);
    persist(f);
}

static void adopted(struct hf_form *f, const struct hf_msg *m)
{
    int i = seed_of(f, m->name);

    if (f->state != ADOPTING || i < 0 || i >= (int)f->cfg.n_seeds || m->id != (hf_node_id)i + 1 ||
        memcmp(&m->cluster_id, &f->cfg.cluster_id, sizeof m->cluster_id) != 0 ||
        memcmp(&m->uuid, &f->seeds[i].member.uuid, sizeof m->uuid) != 0)
        return;
    f->seeds[i].adopted = true;
    copy_text(f->seeds[i].member.peer, m->peer, HF_ADDR_MAX);
    copy_text(f->seeds[i].member.sql, m->sql, HF_ADDR_MAX);
    try_found(f);
}

/* Somebody leads who is none of those that are asked: then it is asked, too, once in each round, however often that is said, so that two who
 * take each other for the leader keep nobody busy. One that leads no more says no again, or nothing; the next round knows better. Nothing
 * of it is kept: a node that dies here is told again. */
static void redirected(struct hf_form *f, const struct hf_msg *m)
{
    if (m->name[0] == '\0' || m->peer[0] == '\0' || m->epoch < f->leader.epoch || seed_of(f, m->name) >= 0)
        return;
    f->leader.epoch = m->epoch;
    copy_text(f->leader.name, m->name, HF_NAME_MAX);
    copy_text(f->leader.addr, m->peer, HF_ADDR_MAX);
}

static void joined(struct hf_form *f, const struct hf_msg *m)
{
    if (f->state != LOOKING || memcmp(&m->uuid, &f->cfg.uuid, sizeof m->uuid) != 0 || is_zero(&m->cluster_id))
        return;
    if (m->flags & HF_FLAG_REFUSED) {
        redirected(f, m);
        return;
    }
    if (m->id == 0)
        return;
    f->durable = (struct hf_durable){.cluster_id = m->cluster_id,
                                     .uuid = f->cfg.uuid,
                                     .system_id = m->system_id,
                                     .self = m->id,
                                     .founded = true};
    persist(f);
}

void hf_form_message(struct hf_form *f, uint64_t now_ns, const struct hf_msg *m)
{
    (void)now_ns;
    switch (m->type) {
    case HF_MSG_PROBE:
        probe(f, m);
        break;
    case HF_MSG_PROBED:
        probed(f, m);
        break;
    case HF_MSG_ADOPT:
        adopt(f, m);
        break;
    case HF_MSG_ADOPTED:
        adopted(f, m);
        break;
    case HF_MSG_JOINED:
        joined(f, m);
        break;
    default:
        break;
    }
}

void hf_form_persisted(struct hf_form *f, uint64_t now_ns, bool ok)
{
    if (f->state != SAVING)
        return;
    if (!ok) {
        /* A disk may take its time to fail, and whoever answered before may be of a cluster by now. So all are asked again; adopted they stay. */
        f->state = LOOKING;
        for (unsigned i = 0; i < n_asked(f); i++)
            f->seeds[i].answered = false;
        f->founding = false;
        f->adopted_by[0] = '\0';
        f->next_ns = now_ns + f->cfg.retry_ns;
        emit(f, HF_FORM_STUCK)->text = "the state cannot be written; trying again";
        return;
    }
    f->state = DONE;
    if (f->founding) {
        found(f);
        return;
    }
    if (f->adopted_by[0] != '\0')
        send(f, f->adopted_by, &f->adopted_answer);
    emit(f, HF_FORM_MEMBER);
}

bool hf_form_answer(const struct hf_durable *durable, const struct hf_msg *m, struct hf_msg *answer)
{
    *answer = (struct hf_msg){.cluster_id = durable->cluster_id,
                              .system_id = durable->system_id,
                              .from = durable->self,
                              .uuid = durable->uuid};
    if (m->type == HF_MSG_PROBE) {
        answer->type = HF_MSG_PROBED;
        if (!hf_form_founded(durable))
            answer->flags |= HF_FLAG_UNFOUNDED;
        return true;
    }
    if (m->type == HF_MSG_ADOPT && m->id == durable->self &&
        memcmp(&m->uuid, &durable->uuid, sizeof m->uuid) == 0 &&
        memcmp(&m->cluster_id, &durable->cluster_id, sizeof m->cluster_id) == 0) {
        answer->type = HF_MSG_ADOPTED;
        answer->id = durable->self;
        return true;
    }
    return false;
}

bool hf_form_founded(const struct hf_durable *durable)
{
    return durable->founded || durable->lineage != 0;
}

bool hf_form_starts_anew(const struct hf_durable *durable, const struct hf_msg *m)
{
    return m->type == HF_MSG_ADOPT && !hf_form_founded(durable) && durable->self != 1 &&
           memcmp(&m->uuid, &durable->uuid, sizeof m->uuid) == 0 &&
           memcmp(&m->cluster_id, &durable->cluster_id, sizeof m->cluster_id) > 0;
}
