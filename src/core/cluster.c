#include "cluster.h"

#include "codec.h"

enum { VERSION = 1 };

void hf_cluster_init(struct hf_cluster *c)
{
    memset(c, 0, sizeof *c);
    c->next_id = 1;
}

bool hf_cluster_founded(const struct hf_cluster *c)
{
    static const struct hf_uuid none;

    return memcmp(&c->cluster_id, &none, sizeof none) != 0;
}

/* -- members ----------------------------------------------------------------------------------------- */

static struct hf_member *member(struct hf_cluster *c, hf_node_id id)
{
    for (unsigned i = 0; i < c->n_members; i++)
        if (c->members[i].id == id)
            return &c->members[i];
    return NULL;
}

const struct hf_member *hf_cluster_member(const struct hf_cluster *c, hf_node_id id)
{
    for (unsigned i = 0; i < c->n_members; i++)
        if (c->members[i].id == id)
            return &c->members[i];
    return NULL;
}

bool hf_cluster_is_gone(const struct hf_cluster *c, hf_node_id id)
{
    if (id == 0 || id >= c->next_id || hf_cluster_member(c, id) != NULL)
        return false;
    for (unsigned i = 0; i < c->n_previous_voters; i++)
        if (c->previous_voters[i] == id)
            return false;
    return true;
}

const struct hf_member *hf_cluster_member_named(const struct hf_cluster *c, const char *name)
{
    for (unsigned i = 0; i < c->n_members; i++)
        if (strncmp(c->members[i].name, name, HF_NAME_MAX) == 0)
            return &c->members[i];
    return NULL;
}

bool hf_cluster_is_voter(const struct hf_cluster *c, hf_node_id id)
{
    const struct hf_member *m = hf_cluster_member(c, id);

    return m != NULL && m->voter;
}

unsigned hf_cluster_voters(const struct hf_cluster *c, hf_node_id out[HF_MEMBERS_MAX])
{
    unsigned n = 0;

    for (unsigned i = 0; i < c->n_members; i++)
        if (c->members[i].voter)
            out[n++] = c->members[i].id;
    return n;
}

/* Before each change of the voter set. While the cluster is being founded nothing can have been
 * committed by an older rule, so there is none to remember. */
static void voters_change(struct hf_cluster *c)
{
    c->config_seq++;
    c->n_previous_voters = 0;
    if (c->n_branches > 0)
        c->n_previous_voters = hf_cluster_voters(c, c->previous_voters);
}

static bool apply_add(struct hf_cluster *c, const struct hf_entry *e)
{
    const struct hf_member *m = &e->member;

    if (!hf_cluster_founded(c) || m->id != c->next_id || c->n_members == HF_MEMBERS_MAX ||
        m->name[0] == '\0' || hf_cluster_member_named(c, m->name) != NULL)
        return false;
    if (m->voter && c->n_branches > 0)
        return false;
    if (m->voter)
        voters_change(c);
    c->members[c->n_members++] = *m;
    c->next_id++;
    return true;
}

static bool apply_remove(struct hf_cluster *c, const struct hf_entry *e)
{
    struct hf_member *m = member(c, e->id);

    if (m == NULL)
        return false;
    if (m->voter)
        voters_change(c);
    for (unsigned i = (unsigned)(m - c->members); i + 1 < c->n_members; i++)
        c->members[i] = c->members[i + 1];
    c->n_members--;
    return true;
}

static bool apply_role(struct hf_cluster *c, const struct hf_entry *e)
{
    struct hf_member *m = member(c, e->id);

    if (m == NULL || m->voter == e->member.voter)
        return false;
    voters_change(c);
    m->voter = e->member.voter;
    return true;
}

/* -- epochs ------------------------------------------------------------------------------------------ */

const struct hf_branch *hf_cluster_newest(const struct hf_cluster *c)
{
    return c->n_branches > 0 ? &c->branches[c->n_branches - 1] : NULL;
}

const struct hf_branch *hf_cluster_branch(const struct hf_cluster *c, hf_epoch epoch)
{
    unsigned lo = 0, hi = c->n_branches;

    while (lo < hi) {
        unsigned mid = (lo + hi) / 2;
        if (c->branches[mid].epoch == epoch)
            return &c->branches[mid];
        if (c->branches[mid].epoch < epoch)
            lo = mid + 1;
        else
            hi = mid;
    }
    return NULL;
}

/* The oldest, but never the newest that was opened: what was acknowledged lies in it, or in what has become of it since. */
static void forget_branch(struct hf_cluster *c)
{
    unsigned opened = 0, gone;

    for (unsigned i = 0; i < c->n_branches; i++)
        if (c->branches[i].opened_lsn != 0)
            opened = i;
    gone = opened == 0 ? 1 : 0;
    memmove(&c->branches[gone], &c->branches[gone + 1], (c->n_branches - 1 - gone) * sizeof c->branches[0]);
    c->n_branches--;
}

static bool apply_appoint(struct hf_cluster *c, const struct hf_entry *e)
{
    const struct hf_branch *newest = hf_cluster_newest(c);
    const struct hf_branch *parent = hf_cluster_branch(c, e->branch.parent);

    if (e->branch.epoch == 0 || (newest != NULL && e->branch.epoch <= newest->epoch))
        return false;
    if (e->branch.parent != 0 && (parent == NULL || e->branch.start < parent->start))
        return false;
    if (hf_cluster_member(c, e->branch.leader) == NULL)
        return false;
    if (c->n_branches == HF_BRANCHES_MAX)
        forget_branch(c);
    c->branches[c->n_branches] = e->branch;
    c->branches[c->n_branches].timeline = 0;
    c->branches[c->n_branches].opened_lsn = 0;
    c->n_branches++;
    return true;
}

static bool apply_opened(struct hf_cluster *c, const struct hf_entry *e)
{
    if (e->branch.opened_lsn == 0)
        return false; /* 0 means "never opened": it could be said again and again */
    for (unsigned i = 0; i < c->n_branches; i++) {
        struct hf_branch *b = &c->branches[i];
        if (b->epoch != e->branch.epoch || b->opened_lsn != 0)
            continue;
        b->timeline = e->branch.timeline;
        b->opened_lsn = e->branch.opened_lsn;
        if (c->system_id == 0)
            c->system_id = e->system_id;
        return true;
    }
    return false;
}

bool hf_cluster_apply(struct hf_cluster *c, const struct hf_entry *e)
{
    switch (e->type) {
    case HF_ENTRY_FOUND:
        if (hf_cluster_founded(c))
            return false;
        c->cluster_id = e->cluster_id;
        return hf_cluster_founded(c); /* an id of zeros founds nothing */
    case HF_ENTRY_ADD:
        return apply_add(c, e);
    case HF_ENTRY_REMOVE:
        return apply_remove(c, e);
    case HF_ENTRY_ROLE:
        return apply_role(c, e);
    case HF_ENTRY_APPOINT:
        return apply_appoint(c, e);
    case HF_ENTRY_OPENED:
        return apply_opened(c, e);
    case HF_ENTRY_SETTLED:
        if (c->n_previous_voters == 0)
            return false;
        c->n_previous_voters = 0;
        return true;
    default:
        return false;
    }
}

/* -- lineage ----------------------------------------------------------------------------------------- */

struct hf_position hf_cluster_normalise(const struct hf_cluster *c, struct hf_position p)
{
    const struct hf_branch *b = hf_cluster_branch(c, p.epoch);

    if (p.lsn == 0)
        return (struct hf_position){0, 0}; /* no data: of no epoch, whatever the lineage says */
    while (b != NULL && p.lsn < b->start) {
        p.epoch = b->parent;
        b = hf_cluster_branch(c, p.epoch);
    }
    return p;
}

int hf_cluster_compare(const struct hf_cluster *c, struct hf_position a, struct hf_position b)
{
    a = hf_cluster_normalise(c, a);
    b = hf_cluster_normalise(c, b);
    if (a.epoch != b.epoch)
        return a.epoch < b.epoch ? -1 : 1;
    if (a.lsn != b.lsn)
        return a.lsn < b.lsn ? -1 : 1;
    return 0;
}

/* The branch at whose start p's own epoch ends, on the way to `epoch`, or that of `epoch` itself. NULL: p is no prefix. */
static const struct hf_branch *leaves_at(const struct hf_cluster *c, struct hf_position p, hf_epoch epoch)
{
    const struct hf_branch *b = hf_cluster_branch(c, epoch);

    p = hf_cluster_normalise(c, p);
    if (p.epoch == 0 || p.lsn == 0)
        return NULL; /* without an epoch there is no evidence (I6) */
    if (p.epoch == epoch)
        return b;
    while (b != NULL && b->parent != p.epoch)
        b = hf_cluster_branch(c, b->parent);
    return b != NULL && p.lsn <= b->start ? b : NULL;
}

bool hf_cluster_is_prefix(const struct hf_cluster *c, struct hf_position p, hf_epoch epoch)
{
    return leaves_at(c, p, epoch) != NULL;
}

hf_lsn hf_cluster_shared(const struct hf_cluster *c, struct hf_position p, hf_epoch epoch)
{
    const struct hf_branch *b = leaves_at(c, p, epoch);

    return b != NULL ? b->start : 0;
}

/* Is `epoch` an ancestor of `of`, or the same? */
static bool is_ancestor(const struct hf_cluster *c, hf_epoch epoch, hf_epoch of)
{
    for (const struct hf_branch *b = hf_cluster_branch(c, of); b != NULL;
         b = hf_cluster_branch(c, b->parent))
        if (b->epoch == epoch)
            return true;
    return false;
}

/* Does `timeline` occur between `tip` and `ancestor` (not included)? An unknown number may be any. */
static bool occurs(const struct hf_cluster *c, uint32_t timeline, hf_epoch tip, hf_epoch ancestor)
{
    for (const struct hf_branch *b = hf_cluster_branch(c, tip); b != NULL && b->epoch != ancestor;
         b = hf_cluster_branch(c, b->parent))
        if (b->timeline == 0 || timeline == 0 || b->timeline == timeline)
            return true;
    return false;
}

/* The same for one reading of p, which is not normalised further. */
static bool can_rewind_from(const struct hf_cluster *c, hf_epoch from, hf_epoch epoch)
{
    hf_epoch ancestor = from;

    while (ancestor != 0 && !is_ancestor(c, ancestor, epoch)) {
        const struct hf_branch *b = hf_cluster_branch(c, ancestor);
        if (b == NULL)
            return false;
        ancestor = b->parent;
    }
    if (ancestor == 0)
        return false; /* nothing in common that anybody can name */
    for (const struct hf_branch *b = hf_cluster_branch(c, from); b != NULL && b->epoch != ancestor;
         b = hf_cluster_branch(c, b->parent))
        if (occurs(c, b->timeline, epoch, ancestor))
            return false;
    /* The node's own history ends in the ancestor itself, past the fork. Its timeline must then end
     * at the fork in the leader's history: the leader's next epoch must have one of its own. */
    if (from == ancestor)
        return !occurs(c, hf_cluster_branch(c, ancestor)->timeline, epoch, ancestor);
    return true;
}

bool hf_cluster_can_rewind(const struct hf_cluster *c, struct hf_position p, hf_epoch epoch)
{
    const struct hf_branch *b;

    p = hf_cluster_normalise(c, p);
    while ((b = hf_cluster_branch(c, p.epoch)) != NULL) {
        if (!can_rewind_from(c, p.epoch, epoch))
            return false;
        if (p.lsn != b->start)
            return true;
        /* Exactly at the start: not a byte of this epoch is here, so PostgreSQL may well stand on the
         * parent's timeline still. Both readings must be right. */
        p.epoch = b->parent;
    }
    return false;
}

/* -- bytes ------------------------------------------------------------------------------------------- */

static void put_member(struct hf_codec *k, const struct hf_member *m)
{
    hf_put(k, m->id, 8);
    hf_put_bytes(k, &m->uuid, sizeof m->uuid);
    hf_put_text(k, m->name, sizeof m->name);
    hf_put_text(k, m->peer, sizeof m->peer);
    hf_put_text(k, m->sql, sizeof m->sql);
    hf_put(k, m->voter, 1);
}

static void get_member(struct hf_codec *k, struct hf_member *m)
{
    m->id = hf_get(k, 8);
    hf_get_bytes(k, &m->uuid, sizeof m->uuid);
    hf_get_text(k, m->name, sizeof m->name);
    hf_get_text(k, m->peer, sizeof m->peer);
    hf_get_text(k, m->sql, sizeof m->sql);
    m->voter = hf_get_bool(k);
}

static void put_branch(struct hf_codec *k, const struct hf_branch *b)
{
    hf_put(k, b->epoch, 8);
    hf_put(k, b->parent, 8);
    hf_put(k, b->start, 8);
    hf_put(k, b->leader, 8);
    hf_put(k, b->timeline, 4);
    hf_put(k, b->opened_lsn, 8);
    hf_put(k, b->appointed_unix_ms, 8);
    hf_put(k, b->why, 1);
    hf_put(k, b->continued, 1);
    hf_put_text(k, b->leader_name, sizeof b->leader_name);
}

static void get_branch(struct hf_codec *k, struct hf_branch *b)
{
    b->epoch = hf_get(k, 8);
    b->parent = hf_get(k, 8);
    b->start = hf_get(k, 8);
    b->leader = hf_get(k, 8);
    b->timeline = (uint32_t)hf_get(k, 4);
    b->opened_lsn = hf_get(k, 8);
    b->appointed_unix_ms = hf_get(k, 8);
    b->why = (uint8_t)hf_get(k, 1);
    if (b->why > HF_WHY_CONTINUED)
        k->bad = true;
    b->continued = hf_get_bool(k);
    hf_get_text(k, b->leader_name, sizeof b->leader_name);
}

size_t hf_entry_encode(const struct hf_entry *e, uint8_t *buf, size_t cap)
{
    struct hf_codec k = {.out = buf, .len = cap};

    hf_put(&k, VERSION, 1);
    hf_put(&k, e->type, 1);
    hf_put_bytes(&k, &e->cluster_id, sizeof e->cluster_id);
    hf_put(&k, e->system_id, 8);
    hf_put(&k, e->id, 8);
    put_member(&k, &e->member);
    put_branch(&k, &e->branch);
    return k.bad ? 0 : k.at;
}

bool hf_entry_decode(struct hf_entry *e, const uint8_t *buf, size_t len)
{
    struct hf_codec k = {.in = buf, .len = len};

    memset(e, 0, sizeof *e);
    if (hf_get(&k, 1) != VERSION)
        return false;
    e->type = (uint8_t)hf_get(&k, 1);
    if (e->type < HF_ENTRY_FOUND || e->type > HF_ENTRY_SETTLED)
        return false;
    hf_get_bytes(&k, &e->cluster_id, sizeof e->cluster_id);
    e->system_id = hf_get(&k, 8);
    e->id = hf_get(&k, 8);
    get_member(&k, &e->member);
    get_branch(&k, &e->branch);
    return !k.bad && k.at == len;
}

size_t hf_cluster_encode(const struct hf_cluster *c, uint8_t *buf, size_t cap)
{
    struct hf_codec k = {.out = buf, .len = cap};

    hf_put(&k, VERSION, 1);
    hf_put_bytes(&k, &c->cluster_id, sizeof c->cluster_id);
    hf_put(&k, c->system_id, 8);
    hf_put(&k, c->next_id, 8);
    hf_put(&k, c->config_seq, 8);
    hf_put(&k, c->n_members, 1);
    for (unsigned i = 0; i < c->n_members; i++)
        put_member(&k, &c->members[i]);
    hf_put(&k, c->n_previous_voters, 1);
    for (unsigned i = 0; i < c->n_previous_voters; i++)
        hf_put(&k, c->previous_voters[i], 8);
    hf_put(&k, c->n_branches, 2);
    for (unsigned i = 0; i < c->n_branches; i++)
        put_branch(&k, &c->branches[i]);
    return k.bad ? 0 : k.at;
}

/* Could hf_cluster_apply have come to these members? */
static bool members_make_sense(const struct hf_cluster *c)
{
    if (c->next_id == 0 || (!hf_cluster_founded(c) && c->n_members > 0))
        return false;
    for (unsigned i = 0; i < c->n_members; i++) {
        const struct hf_member *m = &c->members[i];
        if (m->id == 0 || m->id >= c->next_id || hf_cluster_member(c, m->id) != m ||
            m->name[0] == '\0' || hf_cluster_member_named(c, m->name) != m)
            return false;
    }
    for (unsigned i = 0; i < c->n_previous_voters; i++) {
        if (c->previous_voters[i] == 0 || c->previous_voters[i] >= c->next_id)
            return false;
        for (unsigned k = 0; k < i; k++)
            if (c->previous_voters[k] == c->previous_voters[i])
                return false;
    }
    return true;
}

/* Epochs ascend, also from parent to child: every walk towards the root ends. */
static bool branches_make_sense(const struct hf_cluster *c)
{
    if (!hf_cluster_founded(c) && c->n_branches > 0)
        return false;
    for (unsigned i = 0; i < c->n_branches; i++) {
        const struct hf_branch *b = &c->branches[i];
        const struct hf_branch *parent = hf_cluster_branch(c, b->parent);
        if (b->epoch == 0 || (i > 0 && b->epoch <= b[-1].epoch) || b->parent >= b->epoch)
            return false;
        if (b->leader == 0 || b->leader >= c->next_id)
            return false;
        if (parent != NULL && b->start < parent->start)
            return false;
    }
    return true;
}

bool hf_cluster_decode(struct hf_cluster *c, const uint8_t *buf, size_t len)
{
    struct hf_codec k = {.in = buf, .len = len};

    memset(c, 0, sizeof *c);
    if (hf_get(&k, 1) != VERSION)
        return false;
    hf_get_bytes(&k, &c->cluster_id, sizeof c->cluster_id);
    c->system_id = hf_get(&k, 8);
    c->next_id = hf_get(&k, 8);
    c->config_seq = hf_get(&k, 8);
    c->n_members = (unsigned)hf_get(&k, 1);
    if (c->n_members > HF_MEMBERS_MAX)
        return false;
    for (unsigned i = 0; i < c->n_members; i++)
        get_member(&k, &c->members[i]);
    c->n_previous_voters = (unsigned)hf_get(&k, 1);
    if (c->n_previous_voters > HF_MEMBERS_MAX)
        return false;
    for (unsigned i = 0; i < c->n_previous_voters; i++)
        c->previous_voters[i] = hf_get(&k, 8);
    c->n_branches = (unsigned)hf_get(&k, 2);
    if (c->n_branches > HF_BRANCHES_MAX)
        return false;
    for (unsigned i = 0; i < c->n_branches; i++)
        get_branch(&k, &c->branches[i]);
    return !k.bad && k.at == len && members_make_sense(c) && branches_make_sense(c);
}
