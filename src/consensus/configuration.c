/* Taking a change of the configuration back. libraft 0.15 does so from the entry of the configuration before, which may
 * have been compacted away (membershipRollback: it follows a null pointer); and after a start it takes the newest
 * configuration in its log for a committed one, and never takes it back (restoreEntries). So we keep the last committed
 * configuration, tell libraft after its start which one is in doubt, and take it back ourselves just before libraft
 * would. */
#include "consensus/private.h"

#include <string.h>

static int copy(struct raft_configuration *to, const struct raft_configuration *from)
{
    int rv = 0;

    raft_configuration_init(to);
    for (unsigned i = 0; i < from->n && rv == 0; i++)
        rv = raft_configuration_add(to, from->servers[i].id, from->servers[i].address, from->servers[i].role);
    if (rv != 0)
        raft_configuration_close(to);
    return rv;
}

static void keep(struct hf_consensus *c, const struct raft_configuration *conf, raft_index index)
{
    struct raft_configuration fresh;

    if (copy(&fresh, conf) != 0)
        return; /* out of memory: as libraft would without us */
    raft_configuration_close(&c->committed);
    c->committed = fresh;
    c->committed_index = index;
}

/* libraft's format (configuration.c, configurationEncodeToBuf): a version, how many, then each id, address, role. */
static int decode(const struct raft_buffer *buf, struct raft_configuration *conf)
{
    const uint8_t *p = buf->base, *end = p + buf->len;
    uint64_t n, id;

    raft_configuration_init(conf);
    if (buf->len < 9 || p[0] != 1)
        return RAFT_MALFORMED;
    memcpy(&n, p + 1, sizeof n);
    p += 9;
    for (uint64_t i = 0; i < n; i++) {
        const uint8_t *nul = (size_t)(end - p) > sizeof id ? memchr(p + sizeof id, 0, (size_t)(end - p) - sizeof id) : NULL;
        if (nul == NULL || nul + 1 >= end ||
            (memcpy(&id, p, sizeof id), raft_configuration_add(conf, id, (const char *)p + sizeof id, nul[1]) != 0)) {
            raft_configuration_close(conf);
            return RAFT_MALFORMED;
        }
        p = nul + 2;
    }
    return 0;
}

void hf_consensus_loaded(struct hf_consensus *c, const struct raft_snapshot *snapshot, raft_index start,
                         const struct raft_entry *entries, size_t n)
{
    size_t newest = n, before = n; /* n: none */

    for (size_t i = 0; i < n; i++) {
        if (entries[i].type != RAFT_CHANGE)
            continue;
        before = newest;
        newest = i;
    }
    if (newest == n)
        return;
    if (before < n) {
        struct raft_configuration conf;
        if (decode(&entries[before].buf, &conf) != 0)
            return;
        keep(c, &conf, start + before);
        raft_configuration_close(&conf);
    } else if (snapshot != NULL && snapshot->configuration_index < start + newest) {
        keep(c, &snapshot->configuration, snapshot->configuration_index);
    }
    if (c->committed_index != 0 && (snapshot == NULL || start + newest > snapshot->index))
        c->in_doubt = start + newest;
}

void hf_consensus_loaded_end(struct hf_consensus *c)
{
    if (c->in_doubt > c->raft.commit_index && c->raft.configuration_index == c->in_doubt) {
        c->raft.configuration_uncommitted_index = c->in_doubt;
        c->raft.configuration_index = c->committed_index;
    }
    c->in_doubt = 0;
}

void hf_consensus_committed(struct hf_consensus *c)
{
    const struct raft *r = &c->raft;

    if (r->configuration_uncommitted_index == 0 && r->configuration_index != 0 &&
        r->configuration_index != c->committed_index)
        keep(c, &r->configuration, r->configuration_index);
}

/* Would libraft cut its log at or before `index` for these entries (checkLogMatchingProperty, deleteConflictingEntries)? */
static bool cuts(const struct raft *r, const struct raft_append_entries *a, raft_index index)
{
    if (a->term < r->current_term || (a->prev_log_index != 0 && hf_mend_term_at(&r->log, a->prev_log_index) != a->prev_log_term))
        return false;
    for (unsigned i = 0; i < a->n_entries && a->prev_log_index + 1 + i <= index; i++) {
        raft_term ours = hf_mend_term_at(&r->log, a->prev_log_index + 1 + i);
        if (ours != a->entries[i].term)
            return ours != 0;
    }
    return false;
}

bool hf_consensus_would_cut(const struct hf_consensus *c, const struct raft_message *m)
{
    return m->type == RAFT_IO_INSTALL_SNAPSHOT ||
           (m->type == RAFT_IO_APPEND_ENTRIES && cuts(&c->raft, &m->append_entries, UINT64_MAX));
}

void hf_consensus_take_back(struct hf_consensus *c, const struct raft_message *m)
{
    struct raft *r = &c->raft;
    struct raft_configuration before;

    if (m->type != RAFT_IO_APPEND_ENTRIES || r->configuration_uncommitted_index == 0 || c->committed_index == 0 ||
        c->committed_index != r->configuration_index || raft_state(r) == RAFT_LEADER ||
        !cuts(r, &m->append_entries, r->configuration_uncommitted_index) || copy(&before, &c->committed) != 0)
        return;
    raft_configuration_close(&r->configuration);
    r->configuration = before;
    r->configuration_uncommitted_index = 0;
}
