#include "message.h"

#include "codec.h"

enum { VERSION = 1 };

#define FLAGS_ALL                                                                                  \
    (HF_FLAG_UNFIT | HF_FLAG_NOTHING | HF_FLAG_REWIND | HF_FLAG_OPEN | HF_FLAG_REFUSED |           \
     HF_FLAG_UNFOUNDED | HF_FLAG_COPY | HF_FLAG_PENDING)

static bool makes_sense(const struct hf_msg *m)
{
    return m->type >= HF_MSG_PING && m->type <= HF_MSG_LAST && !(m->flags & ~FLAGS_ALL) &&
           m->n_order <= HF_MEMBERS_MAX;
}

static void put(struct hf_codec *c, const struct hf_msg *m)
{
    hf_put(c, VERSION, 1);
    hf_put(c, m->type, 1);
    hf_put(c, m->flags, 1);
    hf_put(c, m->from, 8);
    hf_put(c, m->to, 8);
    hf_put_bytes(c, &m->cluster_id, sizeof m->cluster_id);
    hf_put(c, m->epoch, 8);
    hf_put(c, m->seq, 8);
    hf_put(c, m->sent_ns, 8);
    hf_put(c, m->lease_ns, 8);
    hf_put(c, m->position.epoch, 8);
    hf_put(c, m->position.lsn, 8);
    hf_put(c, m->barrier_lsn, 8);
    hf_put(c, m->timeline, 4);
    hf_put(c, m->target, 8);
    hf_put(c, m->n_order, 1);
    for (unsigned i = 0; i < m->n_order && i < HF_MEMBERS_MAX; i++)
        hf_put(c, m->order[i], 8);
    if (m->type < HF_MSG_PROBE)
        return;
    hf_put(c, m->system_id, 8);
    hf_put(c, m->expect, 4);
    hf_put(c, m->id, 8);
    hf_put_bytes(c, &m->uuid, sizeof m->uuid);
    hf_put_text(c, m->name, sizeof m->name);
    hf_put_text(c, m->peer, sizeof m->peer);
    hf_put_text(c, m->sql, sizeof m->sql);
    hf_put_text(c, m->text, sizeof m->text);
}

size_t hf_msg_encode(const struct hf_msg *m, uint8_t buf[HF_MSG_BYTES_MAX])
{
    struct hf_codec c = {.out = buf, .len = HF_MSG_BYTES_MAX};

    if (!makes_sense(m))
        return 0;
    put(&c, m);
    return c.bad ? 0 : c.at;
}

bool hf_msg_decode(struct hf_msg *m, const uint8_t *buf, size_t len)
{
    struct hf_codec c = {.in = buf, .len = len};

    memset(m, 0, sizeof *m);
    if (hf_get(&c, 1) != VERSION)
        return false;
    m->type = (uint8_t)hf_get(&c, 1);
    m->flags = (uint8_t)hf_get(&c, 1);
    m->from = hf_get(&c, 8);
    m->to = hf_get(&c, 8);
    hf_get_bytes(&c, &m->cluster_id, sizeof m->cluster_id);
    m->epoch = hf_get(&c, 8);
    m->seq = hf_get(&c, 8);
    m->sent_ns = hf_get(&c, 8);
    m->lease_ns = hf_get(&c, 8);
    m->position.epoch = hf_get(&c, 8);
    m->position.lsn = hf_get(&c, 8);
    m->barrier_lsn = hf_get(&c, 8);
    m->timeline = (uint32_t)hf_get(&c, 4);
    m->target = hf_get(&c, 8);
    m->n_order = (uint8_t)hf_get(&c, 1);
    if (!makes_sense(m))
        return false;
    for (unsigned i = 0; i < m->n_order; i++)
        m->order[i] = hf_get(&c, 8);
    if (m->type >= HF_MSG_PROBE) {
        m->system_id = hf_get(&c, 8);
        m->expect = (uint32_t)hf_get(&c, 4);
        m->id = hf_get(&c, 8);
        hf_get_bytes(&c, &m->uuid, sizeof m->uuid);
        hf_get_text(&c, m->name, sizeof m->name);
        hf_get_text(&c, m->peer, sizeof m->peer);
        hf_get_text(&c, m->sql, sizeof m->sql);
        hf_get_text(&c, m->text, sizeof m->text);
    }
    return !c.bad && c.at == len;
}

bool hf_msg_is_later(const uint8_t *buf, size_t len)
{
    return len > 2 && buf[0] == VERSION && buf[1] > HF_MSG_LAST;
}

const char *hf_msg_name(uint8_t type)
{
    static const char *const names[] = {"?",       "PING",   "ACK",   "FENCE",   "REPORT", "RELEASE",
                                        "PROBE",   "PROBED", "ADOPT", "ADOPTED", "JOIN",   "JOINED",
                                        "SETTINGS", "RESTART", "LEAVE", "MEMBER", "LEFT", "READ", "READ_AT"};

    return type < sizeof names / sizeof names[0] ? names[type] : names[0];
}
