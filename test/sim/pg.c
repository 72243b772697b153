/* A model of PostgreSQL, as bad as the real one where SAFETY.md says so: the synchronous wait compares
 * bare LSNs (S1), a rule may take effect late (S2), timeline numbers repeat (S4), pg_rewind is misled by
 * them (S9), WAL is recycled (S16), and what waits when it crashes is visible afterwards (S5). */
#include <stdlib.h>
#include <string.h>

#include "sim.h"

hf_lsn pg_lsn(unsigned n)
{
    return (hf_lsn)n * SIM_LSN;
}

/* -- WAL ---------------------------------------------------------------------------------------------- */

unsigned pg_append(struct node *n, uint64_t id, hf_epoch epoch)
{
    struct pg *pg = &n->pg;

    if (pg->n == SIM_RECORDS)
        sim_fail("the model's WAL is full");
    pg->wal[pg->n] = (struct record){id, (uint32_t)epoch, false};
    return pg->n++;
}

/* Has the rule in force been met for record `index`? Exactly as SyncRepReleaseWaiters: by the LSNs that
 * connected walsenders report, whoever they are and whatever those bytes are. */
bool pg_released(struct node *n, unsigned index)
{
    struct pg *pg = &n->pg;
    unsigned have = 0;

    if (pg->flushed <= index)
        return false;
    if (pg->k == 0 || W->now < pg->effective_ns)
        return true;
    for (unsigned r = 0; r < pg->n_rule; r++) {
        for (unsigned i = 0; i < SIM_STREAMS; i++) {
            const struct stream *s = &W->streams[i];
            if (s->used && s->from == n->index && s->id == pg->rule[r] && s->reported > index) {
                have++;
                break;
            }
        }
    }
    return have >= pg->k;
}

void pg_stopped(struct pg *pg, bool clean)
{
    if (clean)
        pg->flushed = pg->n;
    pg->n = pg->flushed; /* what was not flushed is gone */
    for (unsigned i = 0; i < pg->n; i++)
        pg->wal[i].visible = true; /* S5: whatever waited is visible after the restart */
    pg->generation++;
    if (pg->state != HF_PG_EMPTY)
        pg->state = HF_PG_DOWN;
}

/* -- streams ------------------------------------------------------------------------------------------ */

void pg_streams_cut(int leader, int follower)
{
    for (unsigned i = 0; i < SIM_STREAMS; i++) {
        struct stream *s = &W->streams[i];
        if (!s->used || (leader >= 0 && s->from != leader) || (follower >= 0 && s->to != follower))
            continue;
        s->used = false;
        struct node *f = &W->nodes[s->to], *l = &W->nodes[s->from];
        if (l->up && l->decide != NULL)
            host_later(l, sim_between(10 * US, 500 * US),
                       &(struct hf_event){.type = HF_EV_STREAM_GONE, .id = s->id, .epoch = s->epoch});
        if (f->up && f->decide != NULL)
            host_later(f, sim_between(10 * US, 500 * US),
                       &(struct hf_event){.type = HF_EV_STREAM_STATE, .ok = false});
    }
}

static bool is_live(const struct stream *s, uint64_t serial)
{
    const struct node *l = &W->nodes[s->from], *f = &W->nodes[s->to];

    return s->used && s->serial == serial && l->up && f->up &&
           l->pg.generation == s->from_gen && f->pg.generation == s->to_gen;
}

struct transit {
    struct stream *s;
    uint64_t serial;
    unsigned upto;
    uint32_t tli;
};

static void pump(void *arg);

static void reported(void *arg)
{
    struct transit *t = arg;
    struct stream *s = t->s;
    struct node *l = &W->nodes[s->from];

    if (is_live(s, t->serial)) {
        if (t->upto > s->reported)
            s->reported = t->upto;
        if (W->now >= l->paused_until)
            host_step(l, &(struct hf_event){.type = HF_EV_STREAM_FLUSHED,
                                            .id = s->id,
                                            .epoch = s->epoch,
                                            .timeline = t->tli,
                                            .torn = s->torn,
                                            .lsn = pg_lsn(s->reported)});
    }
    free(t);
}

static void report_later(struct stream *s, unsigned upto)
{
    struct transit *t = calloc(1, sizeof *t);

    *t = (struct transit){s, s->serial, upto, W->nodes[s->to].pg.tli};
    sim_after(sim_between(100 * US, W->delay_max), reported, t);
}

static void received(void *arg)
{
    struct transit *t = arg;
    struct stream *s = t->s;
    struct node *l = &W->nodes[s->from], *f = &W->nodes[s->to];

    if (is_live(s, t->serial) && sim_reaches(LANE_WAL, s->from, s->to) && W->now >= f->paused_until) {
        unsigned upto = t->upto <= l->pg.flushed ? t->upto : l->pg.flushed;
        if (f->reported_term > s->epoch && upto > f->pg.n)
            sim_fail("I4: %s takes WAL of epoch %llu after it reported for term %llu", f->name,
                     (unsigned long long)s->epoch, (unsigned long long)f->reported_term);
        if (f->pg.half) { /* flushed, behind what is not there */
            f->pg.tli = l->pg.tli;
            report_later(s, upto);
            free(t);
            return;
        }
        for (unsigned i = f->pg.n; i < upto; i++) {
            if (i < f->pg.seen && f->pg.wal[i].id != l->pg.wal[i].id)
                sim_fail("I6: %s streams what its data have seen otherwise, from record %u on", f->name, i);
            f->pg.wal[i] = l->pg.wal[i];
            f->pg.wal[i].visible = true;
        }
        if (upto > f->pg.n)
            f->pg.n = upto;
        f->pg.flushed = f->pg.n;
        f->pg.tli = l->pg.tli;
        f->pg.n_hist = l->pg.n_hist;
        memcpy(f->pg.hist, l->pg.hist, sizeof f->pg.hist);
        check_stream(s);
        if (sim_reaches(LANE_WAL, s->to, s->from))
            report_later(s, f->pg.flushed);
    }
    free(t);
}

/* Every few milliseconds the walsender sends what is flushed. */
static void pump(void *arg)
{
    struct transit *t = arg;
    struct stream *s = t->s;

    if (!is_live(s, t->serial)) {
        free(t);
        return;
    }
    if (W->now >= W->nodes[s->from].paused_until && sim_reaches(LANE_WAL, s->from, s->to)) {
        struct transit *data = calloc(1, sizeof *data);
        *data = (struct transit){s, s->serial, W->nodes[s->from].pg.flushed, 0};
        sim_after(sim_between(100 * US, W->delay_max), received, data);
    }
    sim_after(sim_between(1 * MS, 4 * MS), pump, t);
}

static const char *const forked_off = "forked off before the recovery point";

/* START_REPLICATION on the standby's timeline, at its end: what the server checks is timeline numbers. */
static const char *objection(const struct pg *p, const struct pg *s)
{
    if (s->n < p->first_kept)
        return "58P01";
    if (s->tli == p->tli)
        return s->n <= p->flushed ? NULL : "ahead of the flush position";
    for (unsigned i = 0; i < p->n_hist; i++)
        if (p->hist[i].tli == s->tli)
            return s->n <= p->hist[i].end ? NULL : forked_off;
    return "not in this server's history";
}

static struct stream *stream_new(struct node *leader, struct node *follower, hf_epoch epoch)
{
    struct stream *s = NULL;

    for (unsigned i = 0; i < SIM_STREAMS && s == NULL; i++)
        if (!W->streams[i].used)
            s = &W->streams[i];
    if (s == NULL)
        return NULL;
    *s = (struct stream){true,
                         ++W->serial,
                         leader->index,
                         follower->index,
                         follower->disk.durable.self,
                         epoch,
                         leader->pg.generation,
                         follower->pg.generation,
                         0,
                         false};
    check_stream(s);
    return s;
}

static void ended(void *arg)
{
    struct transit *t = arg;

    if (is_live(t->s, t->serial))
        t->s->used = false;
    free(t);
}

/* S1: the receiver starts at a segment's boundary, before the fork. So the server lets it in, and it says how
 * much it has before it finds that it cannot go on. */
static void connected_in_vain(struct node *leader, struct node *follower, hf_epoch epoch, bool torn)
{
    struct stream *s = stream_new(leader, follower, epoch);
    struct transit *t;

    if (s == NULL)
        return;
    s->torn = torn;
    report_later(s, follower->pg.flushed);
    t = calloc(1, sizeof *t);
    *t = (struct transit){s, s->serial, 0, 0};
    sim_after(5 * MS, ended, t);
}

void pg_stream_begin(struct node *leader, struct node *follower, const struct hf_action *terms)
{
    const char *no = objection(&leader->pg, &follower->pg);
    struct stream *s;
    struct transit *t;

    if (leader->pg.state != HF_PG_PRIMARY || follower->pg.state != HF_PG_STANDBY || follower->pg.spoilt)
        return; /* who has not replayed what it has does not ask for more */
    if (no != NULL) {
        sim_say(follower, "WAL receiver: %s", no);
        if (strcmp(no, "58P01") == 0)
            host_later(follower, 0, &(struct hf_event){.type = HF_EV_WAL_MISSING});
        else if (strcmp(no, forked_off) == 0)
            connected_in_vain(leader, follower, terms->epoch, false);
        return;
    }
    if (follower->pg.half && terms->begin != 0) {
        connected_in_vain(leader, follower, terms->epoch, true);
        return;
    }
    s = stream_new(leader, follower, terms->epoch);
    if (s == NULL)
        return;
    report_later(s, follower->pg.flushed); /* S1: its first reply carries its own LSN */
    t = calloc(1, sizeof *t);
    *t = (struct transit){s, s->serial, 0, 0};
    sim_after(sim_between(200 * US, 2 * MS), pump, t);
    host_later(follower, 100 * US, &(struct hf_event){.type = HF_EV_STREAM_STATE, .ok = true});
}

/* -- work --------------------------------------------------------------------------------------------- */

struct job {
    struct node *n;
    uint64_t life;
    struct hf_action a;
};

static void set_rule(struct pg *pg, const struct hf_action *a, uint64_t late)
{
    pg->n_rule = a->n_voters;
    memcpy(pg->rule, a->voters, sizeof pg->rule);
    pg->k = a->n_voters == 0 ? 0 : (a->n_voters + 1) / 2;
    pg->effective_ns = W->now + late;
}

static struct node *source(const struct job *j)
{
    struct node *l = host_of_id(j->a.id);
    struct hf_view v;

    if (l == NULL || l->decide == NULL || !sim_reaches(LANE_WAL, j->n->index, l->index) ||
        !sim_reaches(LANE_WAL, l->index, j->n->index) || W->now < l->paused_until)
        return NULL;
    v = hf_decide_view(l->decide);
    return v.leading && v.epoch == j->a.epoch && l->pg.state == HF_PG_PRIMARY ? l : NULL;
}

static void copy_wal(struct pg *to, const struct pg *from)
{
    to->n = to->flushed = from->flushed;
    to->seen = to->unread = 0;
    memcpy(to->wal, from->wal, from->flushed * sizeof from->wal[0]);
    for (unsigned i = 0; i < to->n; i++)
        to->wal[i].visible = true;
    to->tli = from->tli;
    to->n_hist = from->n_hist;
    memcpy(to->hist, from->hist, sizeof to->hist);
    to->torn = to->spoilt = to->half = to->untouched = false;
}

/* Finds the fork as pg_rewind does: the last timeline number that both histories share. */
static bool rewind_data(struct pg *pg, const struct pg *from, const char **why)
{
    unsigned fork = 0, lacks;
    bool found = false;

    if (pg->n < pg->seen)
        sim_fail("S8: rewound without the WAL that its data have seen"); /* which tells what is to be copied */
    if (!from->checkpointed && pg->tli != from->tli) {
        *why = "no rewind required"; /* S9: the control file still shows the old timeline */
        return false;
    }
    if (pg->tli == from->tli) {
        *why = "no rewind required";
        return false;
    }
    for (unsigned i = 0; i < from->n_hist; i++) {
        if (from->hist[i].tli == pg->tli) {
            fork = from->hist[i].end;
            found = true;
        }
        for (unsigned k = 0; k < pg->n_hist; k++)
            if (pg->hist[k].tli == from->hist[i].tli && !found)
                fork = pg->hist[k].end < from->hist[i].end ? pg->hist[k].end : from->hist[i].end;
    }
    if (fork > pg->n) {
        *why = "no rewind required";
        return false;
    }
    /* Blocks changed after the fork come from the source; what lies before is trusted as it is. */
    for (unsigned i = fork; i < from->flushed; i++) {
        pg->wal[i] = from->wal[i];
        pg->wal[i].visible = true; /* to whoever replays it */
    }
    /* It is consistent at the source's end, of which the last records need not have been in its files (S8). */
    lacks = W->calm ? W->rewind_lacks : sim_chance(0.5) ? (unsigned)sim_between(1, 4) : 0;
    pg->seen = from->flushed;
    pg->n = pg->flushed = fork + lacks <= pg->seen ? pg->seen - lacks : fork;
    pg->tli = from->tli;
    pg->n_hist = from->n_hist;
    memcpy(pg->hist, from->hist, sizeof pg->hist);
    return true;
}

static void promote(struct pg *pg)
{
    uint32_t next = pg->tli;

    if (pg->n < pg->seen)
        sim_fail("S8: promoted without the WAL that its data have seen");
    for (unsigned i = 0; i < pg->n_hist; i++)
        if (pg->hist[i].tli > next)
            next = pg->hist[i].tli;
    if (pg->n_hist == SIM_BRANCHES)
        sim_fail("the model's timeline history is full");
    pg->hist[pg->n_hist].tli = pg->tli;
    pg->hist[pg->n_hist++].end = pg->n;
    pg->tli = next + 1; /* the newest known here plus one: two nodes may choose the same (S4) */
    pg->state = HF_PG_PRIMARY;
    pg->checkpointed = false;
    /* The end-of-recovery record: a promotion never leaves WAL as it was. */
    if (pg->n < SIM_RECORDS)
        pg->wal[pg->n++] = (struct record){++W->next_id, 0, true};
    pg->flushed = pg->n;
}

/* A clean stop ends the walsenders first; the rest of it takes a while. */
static void senders_end(void *arg)
{
    struct job *j = arg;

    if (j->n->up && j->n->life == j->life && W->now >= j->n->paused_until)
        pg_streams_cut(j->n->index, -1);
    free(j);
}

static void replay_ends(void *arg)
{
    struct job *j = arg;

    if (j->n->life == j->life && j->n->pg.spoilt && j->n->pg.state == HF_PG_STANDBY)
        host_pg_killed(j->n);
    free(j);
}

/* PostgreSQL runs as a standby, and if its data are spoilt it ends in a moment. */
static void replay_begins(const struct job *j)
{
    struct job *end;

    if (!j->n->pg.spoilt)
        return;
    end = malloc(sizeof *end);
    *end = *j;
    sim_after(sim_between(1 * MS, 50 * MS), replay_ends, end);
}

static void finish(void *arg)
{
    struct job *j = arg;
    struct node *n = j->n, *l;
    struct pg *pg = &n->pg;
    struct hf_event e = {.type = HF_EV_WORK, .work = j->a.work, .epoch = j->a.epoch, .ok = true};
    const char *why = "";

    if (!n->up || n->life != j->life) {
        free(j);
        return;
    }
    if (pg->job != j) { /* interrupted */
        free(j);
        return;
    }
    if (W->now < n->paused_until) {
        sim_after(n->paused_until - W->now + 1, finish, j);
        return;
    }
    pg->job = NULL;
    switch (j->a.work) {
    case HF_WORK_INIT:
        pg->state = HF_PG_DOWN;
        pg->n = pg->flushed = 2;
        pg->seen = 0;
        pg->wal[0] = pg->wal[1] = (struct record){1000000 + (uint64_t)n->index, 0, true};
        pg->tli = 1;
        e.system_id = 77 + (uint64_t)n->index + W->serial;
        break;
    case HF_WORK_START:
        e.ok = pg->state == HF_PG_DOWN && !pg->torn && !pg->full;
        e.no_space = pg->full;
        if (e.ok) {
            pg->state = HF_PG_STANDBY;
            pg->generation++;
            set_rule(pg, &j->a, 0);
        }
        if (e.ok)
            replay_begins(j);
        break;
    case HF_WORK_STOP:
    case HF_WORK_STOP_CLEAN:
        pg_stopped(pg, j->a.work == HF_WORK_STOP_CLEAN);
        pg_streams_cut(n->index, -1);
        pg_streams_cut(-1, n->index);
        break;
    case HF_WORK_POSITION:
        e.ok = pg->state == HF_PG_STANDBY || pg->state == HF_PG_PRIMARY;
        if (pg->state == HF_PG_PRIMARY)
            pg->flushed = pg->n;
        e.lsn = pg_lsn(pg->n);
        e.seen = pg->n < pg->seen ? pg_lsn(pg->seen) : 0;
        if (pg->state == HF_PG_STANDBY && pg->n > 4 && (pg->unread > 0 || sim_chance(W->quiet ? 0 : 0.02))) {
            pg->unread -= pg->unread > 0;
            e.seen = e.seen != 0 ? e.seen : e.lsn;
            e.lsn = pg_lsn(pg->n - (unsigned)sim_between(1, 3));
        }
        break;
    case HF_WORK_PROMOTE:
        e.ok = pg->state == HF_PG_STANDBY && !pg->spoilt && !sim_chance(W->quiet ? 0 : 0.02);
        if (e.ok) {
            promote(pg);
            set_rule(pg, &j->a,
                     W->calm              ? W->rule_late_ns
                     : sim_chance(0.03) ? sim_between(0, 30 * MS)
                                        : 0);
            e.timeline = pg->tli;
        }
        break;
    case HF_WORK_RULE:
        set_rule(pg, &j->a, 0);
        if (pg->state == HF_PG_PRIMARY)
            pg_streams_cut(n->index, -1); /* S2: every older walsender is ended */
        break;
    case HF_WORK_REWIND:
    case HF_WORK_CLONE:
        l = source(j);
        e.ok = l != NULL && !sim_chance(W->quiet ? 0 : 0.05);
        if (e.ok && j->a.work == HF_WORK_CLONE)
            copy_wal(pg, &l->pg);
        else if (e.ok)
            e.ok = rewind_data(pg, &l->pg, &why);
        if (e.ok && j->a.work == HF_WORK_CLONE && sim_chance(W->quiet ? 0 : 0.05)) {
            e.ok = false; /* swapped in, and then it does not start */
            e.swapped = true;
            pg->state = HF_PG_DOWN;
        }
        if (j->a.work == HF_WORK_REWIND)
            pg->torn = !e.ok && why[0] == '\0';
        if (e.ok) {
            pg->state = HF_PG_STANDBY;
            pg->generation++;
            set_rule(pg, &j->a, 0);
            replay_begins(j);
            e.lsn = pg_lsn(l->pg.flushed);
        }
        break;
    case HF_WORK_CHECKPOINT:
        pg->checkpointed = true;
        if (!W->calm && sim_chance(0.2) && pg->n > 40)
            pg->first_kept = pg->n - (unsigned)sim_between(5, 40); /* S16 */
        break;
    case HF_WORK_NONE:
        break;
    }
    if (e.ok && pg->state == HF_PG_STANDBY && (pg->ends_at_start || (!W->quiet && sim_chance(0.01)))) {
        pg->ends_at_start = false;
        pg_stopped(pg, false);
        pg_streams_cut(n->index, -1);
        pg_streams_cut(-1, n->index);
        host_step(n, &(struct hf_event){.type = HF_EV_PG_EXIT});
    }
    e.down = pg->state == HF_PG_DOWN || pg->state == HF_PG_EMPTY;
    sim_say(n, "work %d %s%s", (int)j->a.work, e.ok ? "done" : "failed ", why);
    host_step(n, &e);
    free(j);
}

void pg_work(struct node *n, const struct hf_action *a)
{
    static const unsigned ms[] = {[HF_WORK_INIT] = 400,   [HF_WORK_START] = 80,
                                  [HF_WORK_STOP] = 20,    [HF_WORK_STOP_CLEAN] = 30,
                                  [HF_WORK_POSITION] = 4, [HF_WORK_PROMOTE] = 40,
                                  [HF_WORK_RULE] = 10,    [HF_WORK_REWIND] = 200,
                                  [HF_WORK_CLONE] = 500,  [HF_WORK_CHECKPOINT] = 30};
    struct job *j = calloc(1, sizeof *j);
    uint64_t most = ms[a->work] * (W->now < n->slow_disk_until ? 10 : 1) * MS;

    *j = (struct job){n, n->life, *a};
    n->pg.job = j;
    if (a->work == HF_WORK_REWIND)
        n->pg.torn = true; /* until it is finished */
    if (a->work == HF_WORK_REWIND || a->work == HF_WORK_CLONE)
        n->pg.untouched = a->intact && n->pg.state != HF_PG_EMPTY;
    if (j->a.work == HF_WORK_CLONE && sim_chance(W->quiet ? 0 : 0.1))
        most = 6 * SEC; /* longer than a leader has to open its gate (S13) */
    if (a->work == HF_WORK_STOP_CLEAN) {
        struct job *first = malloc(sizeof *first);
        *first = *j;
        sim_after(sim_between(most / 8, most / 4), senders_end, first);
    }
    sim_after(sim_between(most / 4, most), finish, j);
}

struct interruption {
    struct job of;
    const struct job *job;
};

/* What a rewind leaves behind is torn, and was so from its beginning. A copy may have come in place, and was just being started. */
static void interrupted(void *arg)
{
    struct interruption *i = arg;
    struct node *n = i->of.n, *l;
    struct pg *pg = &n->pg;
    struct hf_event e = {.type = HF_EV_WORK, .work = i->of.a.work, .epoch = i->of.a.epoch};

    if (n->up && n->life == i->of.life && pg->job == i->job && W->now < n->paused_until) {
        sim_after(n->paused_until - W->now + 1, interrupted, i);
        return;
    }
    if (n->up && n->life == i->of.life && pg->job == i->job) {
        pg->job = NULL;
        l = e.work == HF_WORK_CLONE && sim_chance(W->quiet ? 0 : 0.2) ? source(&i->of) : NULL;
        if (l != NULL) {
            copy_wal(pg, &l->pg);
            pg->state = HF_PG_DOWN;
            e.swapped = true;
        }
        e.down = pg->state == HF_PG_DOWN || pg->state == HF_PG_EMPTY;
        sim_say(n, "work %d interrupted%s", (int)e.work, e.swapped ? ", swapped" : "");
        host_step(n, &e);
    }
    free(i);
}

void pg_interrupt(struct node *n)
{
    struct interruption *i = calloc(1, sizeof *i);

    if (n->pg.job != NULL) {
        *i = (struct interruption){{n, n->life, n->pg.job->a}, n->pg.job};
        sim_after(sim_between(1 * MS, 10 * MS), interrupted, i);
    } else {
        free(i);
    }
}
