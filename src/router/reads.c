#include "router/reads.h"

#include "router/session.h"

bool hf_reads_begin(struct hf_session *s)
{
    enum hf_reads asked = hf_reads_asked(s->first, s->first_len);

    if (asked == HF_READS_BAD) {
        hf_session_refused(s, HF_REFUSED_STARTUP);
        hf_session_refuse(s, "22023", "invalid value for parameter \"holdfast.reads\"",
                          "Available values: leader, follower, fresh; as in options='-c holdfast.reads=fresh'.");
        return false;
    }
    if (s->from_tunnel) { /* the other node's router has decided who serves it */
        s->fresh = s->read_only && asked == HF_READS_FRESH;
        return true;
    }
    s->to_leader = s->read_only && asked == HF_READS_LEADER;
    s->read_only = s->read_only || asked == HF_READS_FOLLOWER || asked == HF_READS_FRESH;
    s->fresh = asked == HF_READS_FRESH;
    return true;
}

/* -- the way --------------------------------------------------------------------------------- */

bool hf_reads_seek(struct hf_session *s)
{
    struct hf_router *r = s->t->r;
    bool here = atomic_load(&r->readable) && !atomic_load(&r->behind);
    unsigned elsewhere = atomic_load(&r->followers);

    if (s->from_tunnel) {
        if (here)
            (void)hf_session_connect_here(s, HF_KIND_READER);
        else
            hf_session_close(s); /* the other node's router looks for another follower */
        return true;
    }
    if (s->to_leader)
        return false;
    if (atomic_load(&r->leader) == HF_LEADER_UNKNOWN || s->fruitless >= HF_READS_TRIES || s->fruitless >= atomic_load(&r->followers_all))
        elsewhere = 0; /* none that is worth a try */
    if (!here && elsewhere == 0)
        return false;
    if (here && atomic_fetch_add(&r->turn, 1) % (elsewhere + 1) == 0)
        (void)hf_session_connect_here(s, HF_KIND_READER);
    else
        hf_session_dial(s, HF_TO_FOLLOWER, 0);
    return true;
}

void hf_reads_again(struct hf_session *s)
{
    if (s->to_leader)
        s->to_leader = hf_reads_asked(s->first, s->first_len) == HF_READS_LEADER;
}

void hf_reads_served(struct hf_session *s, bool here, bool follower)
{
    struct hf_router *r = s->t->r;

    if (!s->read_only || s->from_tunnel || s->cancel)
        return;
    atomic_fetch_add(!follower ? &r->reads_leader : here ? &r->reads_here : &r->reads_elsewhere, 1);
}
