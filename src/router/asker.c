#include "router/asker.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <openssl/crypto.h>
#include <openssl/rand.h>

#include "base/clock.h"
#include "base/log.h"
#include "core/types.h"
#include "router/link.h"
#include "router/login.h"
#include "router/session.h"
#include "router/warm.h"

enum { ASK_MS = 2000, ITERATIONS = 4096 /* PostgreSQL's default */, LATER_MS = 1000, AGAIN_MS = 120000 };

struct hf_asker {
    struct hf_router *r;
    char dir[108];
    uv_thread_t id;
    uv_mutex_t mutex;
    uv_cond_t cond;
    struct hf_question *first, **last;
    uint8_t secret[HF_SCRAM_KEY];
    uint64_t prepare_ns; /* when, if there is nothing to answer; on a follower */
    atomic_bool stopping;
};

/* -- PostgreSQL -------------------------------------------------------------------------------- */

/* By its index: anybody may ask, also without a password. The link's encoding is SQL_ASCII: bytes pass as they are. The stamp is of
 * the versions of rows: a role's and databases' own, and of the defaults that were set for them. VACUUM leaves xmin as it was, or freezes it,
 * which looks like a change. */
static const char by_name[] =
    "SELECT a.oid IS NOT NULL, a.rolpassword, current_setting('scram_iterations', true),"
    " pg_catalog.hashtextextended(pg_catalog.concat_ws(' ', a.oid, a.xmin, a.ctid, a.rolvaliduntil < pg_catalog.now(),"
    "  (SELECT pg_catalog.string_agg(pg_catalog.concat_ws(' ', d.oid, d.xmin, d.ctid), ',' ORDER BY d.oid) FROM pg_catalog.pg_database d),"
    "  (SELECT pg_catalog.string_agg(pg_catalog.concat_ws(' ', s.setdatabase, s.setrole, s.xmin, s.ctid), ',' ORDER BY s.setdatabase, s.setrole)"
    "   FROM pg_catalog.pg_db_role_setting s WHERE s.setrole IN (0, a.oid)),"
    "  (SELECT pg_catalog.concat_ws(' ', pg_catalog.count(*), pg_catalog.sum(m.xmin::text::int8)) FROM pg_catalog.pg_auth_members m)), 0)"
    " FROM (VALUES (1)) v LEFT JOIN pg_catalog.pg_authid a ON a.rolname = $1::pg_catalog.name";

static bool link_open(struct hf_link *l)
{
    PGresult *res;
    bool ok;

    if (l->conn != NULL)
        return true;
    if (!hf_link_open(l))
        return false;
    res = PQsendPrepare(l->conn, "name", by_name, 1, NULL) == 1 ? hf_link_result(l, ASK_MS) : NULL;
    ok = PQresultStatus(res) == PGRES_COMMAND_OK;
    PQclear(res);
    if (!ok)
        hf_link_close(l);
    return ok;
}

static PGresult *query(struct hf_link *l, const char *name)
{
    return PQsendQueryPrepared(l->conn, "name", 1, &name, NULL, NULL, 0) == 1 ? hf_link_result(l, ASK_MS) : NULL;
}

/* -- answers ----------------------------------------------------------------------------------- */

/* Bytes that are no text in the server's encoding are nobody's name. */
static bool is_no_name(const PGresult *res)
{
    const char *sqlstate = PQresultErrorField(res, PG_DIAG_SQLSTATE);

    return sqlstate != NULL && strcmp(sqlstate, "22021") == 0;
}

static enum hf_role_kind kind_of(const PGresult *res, struct hf_scram_verifier *v)
{
    const char *password = PQntuples(res) == 1 ? PQgetvalue(res, 0, 1) : "";

    if (PQntuples(res) != 1)
        return HF_ROLE_UNKNOWN;
    if (PQgetvalue(res, 0, 0)[0] != 't')
        return HF_ROLE_UNKNOWN;
    if (PQgetisnull(res, 0, 1) == 1)
        return HF_ROLE_NO_PASSWORD;
    if (hf_scram_verifier_parse(v, password))
        return HF_ROLE_SCRAM;
    return strncmp(password, "md5", 3) == 0 ? HF_ROLE_MD5 : HF_ROLE_ODD;
}

/* What PostgreSQL makes verifiers with, if it says so (from 16 on): mocks are not to be told by theirs. */
static uint32_t iterations_in(const PGresult *res)
{
    const char *text = PQntuples(res) == 1 ? PQgetvalue(res, 0, 2) : "";
    char *end;
    unsigned long n = strtoul(text, &end, 10);

    return text[0] >= '0' && text[0] <= '9' && *end == '\0' && n > 0 && n <= HF_SCRAM_ITERATIONS_MAX ? (uint32_t)n : ITERATIONS;
}

static void answer(struct hf_asker *a, const struct hf_link *l, struct hf_question *q, const PGresult *res)
{
    struct hf_scram_verifier v;

    q->role.kind = kind_of(res, &v);
    q->role.server_version = (uint32_t)PQserverVersion(l->conn);
    q->role.stamp = PQntuples(res) == 1 ? strtoull(PQgetvalue(res, 0, 3), NULL, 10) | 1 : 0;
    if (q->role.kind != HF_ROLE_SCRAM) {
        uv_mutex_lock(&a->mutex);
        hf_scram_verifier_mock(&v, a->secret, q->name, iterations_in(res));
        uv_mutex_unlock(&a->mutex);
    }
    hf_scram_verifier_print(&v, q->role.verifier);
    OPENSSL_cleanse(&v, sizeof v);
    q->answered = true;
}

/* Twice, since a connection that was made earlier may be gone by now. */
static void serve(struct hf_asker *a, struct hf_link *l, struct hf_question *q)
{
    l->opening = q->opening;
    for (int i = 0; i < 2 && !q->answered && !atomic_load(&q->dropped) && !hf_link_is_over(l); i++) {
        PGresult *res = link_open(l) ? query(l, q->name) : NULL;
        if ((PQresultStatus(res) == PGRES_TUPLES_OK && PQntuples(res) == 1) || is_no_name(res))
            answer(a, l, q, res);
        else
            hf_link_close(l);
        PQclear(res);
    }
}

/* Twice, for the same reason. */
static void prepare(struct hf_link *l, struct hf_warm *w)
{
    for (int i = 0; i < 2 && w->names == NULL && link_open(l); i++) {
        hf_warm_begin(w, l);
        if (w->names == NULL)
            hf_link_close(l);
    }
}

/* Nothing is asked: other databases are made ready, one at a time, or we wait. With the lock, which it lets go. */
static void idle(struct hf_asker *a, struct hf_link *l, struct hf_warm *w)
{
    bool follower = atomic_load(&a->r->readable);
    uint64_t now_ns = hf_clock_ns();
    bool begin = a->prepare_ns <= now_ns;

    if (w->names == NULL && !follower) {
        uv_cond_wait(&a->cond, &a->mutex);
        return;
    }
    if (w->names == NULL && !begin) {
        (void)uv_cond_timedwait(&a->cond, &a->mutex, a->prepare_ns - now_ns);
        return;
    }
    if (begin)
        a->prepare_ns = now_ns + AGAIN_MS * HF_MS; /* for databases that are new */
    uv_mutex_unlock(&a->mutex);
    l->opening = 0;
    if (!follower) /* it is promoted, or gone: now others want the link */
        hf_warm_end(w);
    else if (begin)
        prepare(l, w);
    else
        hf_warm_step(w, l);
    uv_mutex_lock(&a->mutex);
}

/* -- the thread -------------------------------------------------------------------------------- */

static void thread_main(void *arg)
{
    struct hf_asker *a = arg;
    struct hf_link l = {.r = a->r, .dir = a->dir, .stopping = &a->stopping};
    struct hf_warm w = {0};

    uv_mutex_lock(&a->mutex);
    while (!atomic_load(&a->stopping)) {
        struct hf_question *q = a->first;
        if (q == NULL) {
            idle(a, &l, &w);
            continue;
        }
        a->first = q->next;
        if (a->first == NULL)
            a->last = &a->first;
        uv_mutex_unlock(&a->mutex);
        serve(a, &l, q);
        hf_mailbox_post(q->t->mailbox, hf_login_answered, q);
        uv_mutex_lock(&a->mutex);
    }
    uv_mutex_unlock(&a->mutex);
    hf_warm_end(&w);
    hf_link_close(&l);
}

void hf_asker_ask(struct hf_asker *a, struct hf_question *q)
{
    q->next = NULL;
    uv_mutex_lock(&a->mutex);
    *a->last = q;
    a->last = &q->next;
    uv_cond_signal(&a->cond);
    uv_mutex_unlock(&a->mutex);
}

void hf_asker_prepare(struct hf_asker *a)
{
    uv_mutex_lock(&a->mutex);
    a->prepare_ns = hf_clock_ns() + LATER_MS * HF_MS;
    uv_cond_signal(&a->cond);
    uv_mutex_unlock(&a->mutex);
}

void hf_asker_secret(struct hf_asker *a, const uint8_t secret[HF_SCRAM_KEY])
{
    uv_mutex_lock(&a->mutex);
    memcpy(a->secret, secret, HF_SCRAM_KEY);
    uv_mutex_unlock(&a->mutex);
}

int hf_asker_open(struct hf_asker **out, struct hf_router *r, const char *socket_dir)
{
    struct hf_asker *a = calloc(1, sizeof *a);

    *out = NULL;
    if (a == NULL)
        return HF_ENOMEM;
    a->r = r;
    a->last = &a->first;
    (void)snprintf(a->dir, sizeof a->dir, "%s", socket_dir);
    if (RAND_bytes(a->secret, HF_SCRAM_KEY) != 1 || uv_mutex_init(&a->mutex) != 0) {
        free(a);
        return HF_EIO;
    }
    if (uv_cond_init(&a->cond) != 0) {
        uv_mutex_destroy(&a->mutex);
        free(a);
        return HF_EIO;
    }
    if (uv_thread_create(&a->id, thread_main, a) != 0) {
        uv_cond_destroy(&a->cond);
        uv_mutex_destroy(&a->mutex);
        free(a);
        return HF_EIO;
    }
    *out = a;
    return 0;
}

void hf_asker_stop(struct hf_asker *a)
{
    if (a == NULL)
        return;
    uv_mutex_lock(&a->mutex);
    atomic_store(&a->stopping, true);
    uv_cond_signal(&a->cond);
    uv_mutex_unlock(&a->mutex);
    (void)uv_thread_join(&a->id);
}

void hf_asker_close(struct hf_asker *a)
{
    struct hf_question *next;

    if (a == NULL)
        return;
    for (struct hf_question *q = a->first; q != NULL; q = next) {
        next = q->next;
        OPENSSL_cleanse(q, sizeof *q);
        free(q);
    }
    uv_cond_destroy(&a->cond);
    uv_mutex_destroy(&a->mutex);
    OPENSSL_cleanse(a->secret, sizeof a->secret);
    free(a);
}
