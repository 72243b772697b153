/* PostgreSQL's settings from a file that may change (docs/settings.md).
 *
 * Every node watches its own copy of the file, tries what is new, takes it and has PostgreSQL read
 * it again. What needs a restart is applied to one node at a time, by the leader's word:
 *
 * - a follower tells the leader, every few seconds, which settings it has and whether they wait for
 * a restart;
 * - the leader lets one follower restart, and the next only when every other node has streamed
 * again for a while;
 * - when all followers have what the leader has and none waits, the leader hands over, which
 * restarts its own server.
 *
 * So followers have a raised max_connections before any leader has. A leave to restart is void
 * after a time that is shorter than the wait before the next one: even a late message, or a new
 * leader, cannot make two restart at once. */
#include "node_private.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/file.h"
#include "base/fingerprint.h"
#include "base/log.h"

enum {
    LEAVE_MS = 4000,  /* a leave to restart is good for so long after it was asked for */
    QUIET_MS = 6000,  /* everyone streams for so long before the next restart */
    HEARD_MS = 10000, /* what a follower said is worth something */
    AGAIN_MS = 60000, /* a restart that did not help is not repeated before */
    LOOK_EVERY = 8,   /* looks between two questions to a server that has nothing pending */
};

/* -- the file, on libuv's thread pool (node_watch.c) ------------------------------------------- */

/* The whole of what PostgreSQL shall include: the file, and behind it the flags. */
static int read_settings(const struct hf_node_config *c, char **text, struct hf_error *err)
{
    char path[HF_PATH_MAX + 16], *file, *flags = NULL;
    size_t len, flags_len;
    int rv = hf_file_read(c->settings_file, HF_SETTINGS_FILE_MAX, &file, &len, err);

    if (rv != 0)
        return rv;
    (void)snprintf(path, sizeof path, "%s/flags.conf", c->dir);
    if (strlen(file) != len)
        rv = hf_fail(err, HF_EINVAL, "there is a NUL in it");
    else if (access(path, F_OK) == 0)
        rv = hf_file_read(path, HF_SETTINGS_FILE_MAX, &flags, &flags_len, err);
    if (rv == 0 && asprintf(text, "%s\n%s", file, flags != NULL ? flags : "") < 0)
        rv = hf_fail(err, HF_ENOMEM, "out of memory");
    free(flags);
    free(file);
    return rv;
}

static void take_file(struct hf_node *n, struct hf_settings_look *s)
{
    struct hf_error err = {0};
    char *text = NULL;
    int rv = read_settings(n->config, &text, &err);
    uint64_t now = rv == 0 ? hf_fingerprint(HF_FINGERPRINT_BEGIN, text, strlen(text)) : 2;

    if (now != s->looked_at) {
        s->looked_at = now;
        if (rv == 0)
            rv = hf_pg_user_settings_take(hf_agent_pg(n->agent), text, &err);
        (void)snprintf(s->problem, sizeof s->problem, "%s", rv != 0 ? err.text : "");
        if (rv == 0)
            s->have = now;
        s->news = s->unsettled = true;
    }
    if (rv == 0 || text != NULL)
        free(text);
}

void hf_node_settings_look(struct hf_node *n)
{
    struct hf_settings_look *s = &n->settings.look;

    if (!n->settings.on || n->agent == NULL)
        return;
    take_file(n, s);
    if (s->unsettled || ++s->looks % LOOK_EVERY == 0)
        s->unsettled =
            hf_pg_pending(hf_agent_pg(n->agent), s->names, NULL) != 0 || s->names[0] != '\0';
}

int hf_node_settings_begin(struct hf_node *n, struct hf_error *err)
{
    struct hf_settings_look *s = &n->settings.look;

    if (n->config->settings_file[0] == '\0')
        return 0;
    take_file(n, s);
    s->news = false;
    if (s->problem[0] != '\0' && access(n->config->extra_conf, F_OK) != 0)
        return hf_fail(err, HF_EINVAL,
                       "settings: %s: %s (hint: correct the file; nothing was started with it)",
                       n->config->settings_file, s->problem);
    if (s->problem[0] != '\0')
        hf_err("settings: %s is refused, those before stay in force: %s", n->config->settings_file,
               s->problem);
    n->settings.seen = *s;
    n->settings.on = true; /* from here on it is looked at */
    return 0;
}

/* -- who may restart, on the control thread ---------------------------------------------------- */

static bool waits(const struct hf_settings *s, uint64_t now)
{
    return s->seen.names[0] != '\0' &&
           (s->restarted_for != s->seen.have || now - s->restarted_ns > AGAIN_MS * HF_MS);
}

static void restart(struct hf_node *n, uint64_t now)
{
    struct hf_settings *s = &n->settings;

    s->restarted_for = s->seen.have;
    s->restarted_ns = now;
    s->ask_again = true;
    hf_info("settings: restarting PostgreSQL for %s", s->seen.names);
    (void)hf_pg_let_end(hf_agent_pg(n->agent));
}

static void tell_leader(struct hf_node *n, const struct hf_view *v, uint64_t now)
{
    const struct hf_settings *s = &n->settings;
    struct hf_msg m = {.type = HF_MSG_SETTINGS,
                       .from = v->durable->self,
                       .to = v->leader,
                       .cluster_id = v->durable->cluster_id,
                       .epoch = v->epoch,
                       .seq = s->seen.have,
                       .sent_ns = now,
                       .flags = waits(s, now) ? HF_FLAG_PENDING : 0};
    char name[HF_NAME_MAX], addr[HF_ADDR_MAX];

    if (hf_node_where(n, v->leader, name, addr))
        hf_peer_send(n->peer, name, addr, &m);
}

static bool streams(const struct hf_node *n, hf_node_id id)
{
    for (unsigned i = 0; i < HF_MEMBERS_MAX; i++)
        if (n->flushed[i].id == id)
            return true;
    return false;
}

static bool all_stream(const struct hf_node *n, const struct hf_view *v)
{
    for (unsigned i = 0; i < v->cluster->n_members; i++)
        if (v->cluster->members[i].id != v->durable->self && !streams(n, v->cluster->members[i].id))
            return false;
    return true;
}

static const struct hf_settings_said *said_by(const struct hf_settings *s, hf_node_id id,
                                              uint64_t now)
{
    for (unsigned i = 0; i < HF_MEMBERS_MAX; i++)
        if (s->said[i].id == id && now - s->said[i].heard_ns < HEARD_MS * HF_MS)
            return &s->said[i];
    return NULL;
}

static void let_one_restart(struct hf_node *n, const struct hf_view *v, uint64_t now)
{
    struct hf_settings *s = &n->settings;
    bool same = true;

    for (unsigned i = 0; i < v->cluster->n_members; i++) {
        const struct hf_member *m = &v->cluster->members[i];
        const struct hf_settings_said *said = said_by(s, m->id, now);
        struct hf_msg go = {.type = HF_MSG_RESTART,
                            .from = v->durable->self,
                            .to = m->id,
                            .cluster_id = v->durable->cluster_id,
                            .epoch = v->epoch};
        if (m->id == v->durable->self)
            continue;
        same = same && said != NULL && said->have == s->seen.have && !said->waits;
        if (said == NULL || !said->waits)
            continue;
        go.sent_ns = said->sent_ns; /* its own clock */
        hf_info("settings: %s may restart", m->name);
        s->quiet_since_ns = now;
        hf_peer_send(n->peer, m->name, m->peer, &go);
        return;
    }
    if (!same || !waits(s, now))
        return;
    if (v->cluster->n_members == 1) {
        restart(n, now);
        return;
    }
    s->restarted_for = s->seen.have;
    s->restarted_ns = now;
    hf_info("settings: every follower has them; handing over to restart for %s", s->seen.names);
    hf_node_step(n, &(struct hf_event){.type = HF_EV_SWITCHOVER});
}

void hf_node_settings_tick(struct hf_node *n)
{
    struct hf_settings *s = &n->settings;
    uint64_t now = hf_clock_ns();
    struct hf_view v;

    if (!s->on)
        return;
    s->seen = s->look;
    if (s->seen.news && s->seen.problem[0] != '\0')
        hf_err("settings: %s is refused, those before stay in force: %s", n->config->settings_file,
               s->seen.problem);
    else if (s->seen.news)
        hf_info("settings: those in %s are in force", n->config->settings_file);
    s->look.news = false;
    s->look.unsettled = s->look.unsettled || s->ask_again;
    s->ask_again = false;
    if (n->decide == NULL || n->stopping)
        return;
    v = hf_decide_view(n->decide);
    if (v.leader != 0 && v.leader != v.durable->self)
        tell_leader(n, &v, now);
    if (!v.leading || !v.gate_open || v.draining || v.epoch != s->epoch || !all_stream(n, &v)) {
        s->epoch = v.epoch;
        s->quiet_since_ns = now;
        return;
    }
    if (now - s->quiet_since_ns >= QUIET_MS * HF_MS)
        let_one_restart(n, &v, now);
}

static void take_word(struct hf_settings *s, const struct hf_msg *m, uint64_t now)
{
    unsigned place = 0;

    for (unsigned i = 0; i < HF_MEMBERS_MAX; i++) { /* its own, else the one unheard for longest */
        if (s->said[i].id == m->from) {
            place = i;
            break;
        }
        if (s->said[i].heard_ns < s->said[place].heard_ns)
            place = i;
    }
    s->said[place] = (struct hf_settings_said){.id = m->from,
                                               .have = m->seq,
                                               .heard_ns = now,
                                               .sent_ns = m->sent_ns,
                                               .waits = (m->flags & HF_FLAG_PENDING) != 0};
}

void hf_node_settings_message(struct hf_node *n, const struct hf_msg *m)
{
    uint64_t now = hf_clock_ns();
    struct hf_view v;

    if (n->decide == NULL || !n->settings.on)
        return;
    v = hf_decide_view(n->decide);
    if (m->type == HF_MSG_SETTINGS)
        take_word(&n->settings, m, now);
    else if (m->epoch == v.epoch && m->from == v.leader && m->to == v.durable->self && !v.leading &&
             now >= m->sent_ns && now - m->sent_ns < LEAVE_MS * HF_MS && waits(&n->settings, now))
        restart(n, now);
}
