/* What PostgreSQL says about a role: a verifier that the login can use, always; the role's own only
 * if it is one, else a mock that tells nothing of what there is; no field read that is not there;
 * and PostgreSQL asked twice at most. The input: how it answers, then its fields, each up to a byte
 * 0xff, and the role's name. */
#include "input.h"

#include "../../src/router/asker.c"

#pragma weak hf_mailbox_post
#pragma weak hf_login_answered
#pragma weak hf_warm_begin
#pragma weak hf_warm_step
#pragma weak hf_warm_end

enum { FIELDS = 4 };

static struct answer {
    ExecStatusType status;
    int rows;
    char *field[FIELDS], *sqlstate; /* NULL: none */
} answers[2], prepared = {.status = PGRES_COMMAND_OK}, *next;
static unsigned asked, links;
static int server_version;

#define RESULT(a) ((PGresult *)(void *)(a))

/* -- libpq, and the link
 * --------------------------------------------------------------------------- */

static const struct answer *of(const PGresult *res)
{
    return (const struct answer *)(const void *)res;
}

ExecStatusType PQresultStatus(const PGresult *res)
{
    return res != NULL ? of(res)->status : PGRES_FATAL_ERROR;
}

int PQntuples(const PGresult *res)
{
    return res != NULL ? of(res)->rows : 0;
}

char *PQgetvalue(const PGresult *res, int row, int column)
{
    static char none[1];

    MUST(row >= 0 && row < PQntuples(res) && column >= 0 && column < FIELDS);
    return of(res)->field[column] != NULL ? of(res)->field[column] : none;
}

int PQgetisnull(const PGresult *res, int row, int column)
{
    (void)PQgetvalue(res, row, column);
    return of(res)->field[column] == NULL;
}

char *PQresultErrorField(const PGresult *res, int code)
{
    MUST(code == PG_DIAG_SQLSTATE);
    return res != NULL ? of(res)->sqlstate : NULL;
}

void PQclear(PGresult *res)
{
    (void)res;
}

int PQserverVersion(const PGconn *conn)
{
    (void)conn;
    return server_version;
}

int PQsendPrepare(PGconn *conn, const char *name, const char *text, int n, const Oid *types)
{
    (void)types;
    MUST(conn != NULL && name != NULL && text != NULL && n == 1);
    next = &prepared;
    return 1;
}

int PQsendQueryPrepared(PGconn *conn, const char *name, int n, const char *const *values,
                        const int *lengths, const int *formats, int format)
{
    (void)name;
    MUST(conn != NULL && n == 1 && values[0] != NULL && lengths == NULL && formats == NULL &&
         format == 0);
    MUST(asked < 2);
    next = &answers[asked++];
    return 1;
}

bool hf_link_open(struct hf_link *l)
{
    MUST(l->conn == NULL);
    if (links == 0)
        return false;
    links--;
    l->conn = (PGconn *)(void *)answers;
    return true;
}

void hf_link_close(struct hf_link *l)
{
    l->conn = NULL;
}

bool hf_link_is_over(const struct hf_link *l)
{
    return atomic_load(l->stopping);
}

PGresult *hf_link_result(struct hf_link *l, uint64_t bound_ms)
{
    MUST(l->conn != NULL && bound_ms > 0 && next != NULL);
    return RESULT(next);
}

/* -- the test -----------------------------------------------------------------------------------
 */

static void take(struct answer *a, struct input *in)
{
    static const ExecStatusType statuses[] = {PGRES_TUPLES_OK, PGRES_FATAL_ERROR, PGRES_COMMAND_OK,
                                              PGRES_BAD_RESPONSE};
    unsigned how = input_byte(in);

    a->status = statuses[how & 3];
    a->rows = a->status == PGRES_TUPLES_OK ? (int)(how / 4 % 4) : 0;
    a->rows -= a->rows == 3 ? 2 : 0; /* mostly one */
    for (unsigned i = 0; i < FIELDS; i++)
        a->field[i] = (how / 16 & 1u << i) != 0 ? NULL : input_block(in, 0xff, NULL);
    a->sqlstate = a->status == PGRES_TUPLES_OK ? NULL : input_block(in, 0xff, NULL);
}

static void forget(struct answer *a)
{
    for (unsigned i = 0; i < FIELDS; i++)
        free(a->field[i]);
    free(a->sqlstate);
}

static bool is_usable(const struct answer *a)
{
    return a->rows == 1 || (a->sqlstate != NULL && strcmp(a->sqlstate, "22021") == 0);
}

/* 0: not what PostgreSQL says of a setting, or none. */
static uint32_t number(const char *text)
{
    uint64_t v = 0;

    for (; text != NULL && *text >= '0' && *text <= '9' && v <= HF_SCRAM_ITERATIONS_MAX; text++)
        v = v * 10 + (uint64_t)(*text - '0');
    return text != NULL && *text == '\0' && v <= HF_SCRAM_ITERATIONS_MAX ? (uint32_t)v : 0;
}

static void look(const struct hf_asker *a, const struct hf_question *q, const struct answer *said)
{
    const char *password = said->rows == 1 && said->field[0] != NULL && said->field[0][0] == 't'
                               ? said->field[1]
                               : NULL;
    struct hf_scram_verifier v, meant;
    char again[HF_SCRAM_VERIFIER_MAX];

    MUST(memchr(q->role.verifier, '\0', sizeof q->role.verifier) != NULL &&
         hf_scram_verifier_parse(&v, q->role.verifier));
    hf_scram_verifier_print(&v, again);
    MUST(strcmp(again, q->role.verifier) == 0);
    MUST((q->role.kind == HF_ROLE_SCRAM) ==
         (password != NULL && hf_scram_verifier_parse(&meant, password)));
    if (q->role.kind == HF_ROLE_SCRAM) {
        hf_scram_verifier_print(&meant, again);
        MUST(strcmp(again, q->role.verifier) == 0);
    } else { /* the same, whatever there is */
        uint32_t n = number(said->rows == 1 ? said->field[2] : NULL);
        hf_scram_verifier_mock(&meant, a->secret, q->name, n > 0 ? n : ITERATIONS);
        MUST(v.salt_len == meant.salt_len && memcmp(v.salt, meant.salt, v.salt_len) == 0);
        MUST(memcmp(v.stored_key, meant.stored_key, sizeof v.stored_key) == 0);
        MUST(v.iterations == meant.iterations);
        MUST(q->role.kind ==
             (password != NULL ? strncmp(password, "md5", 3) == 0 ? HF_ROLE_MD5 : HF_ROLE_ODD
              : said->rows == 1 && said->field[0] != NULL && said->field[0][0] == 't'
                  ? HF_ROLE_NO_PASSWORD
                  : HF_ROLE_UNKNOWN));
    }
    MUST((q->role.stamp != 0) == (said->rows == 1));
    MUST(q->role.server_version == (uint32_t)server_version);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static struct hf_asker a;
    static atomic_bool stopping;
    struct input in = {data, size};
    struct hf_link l = {.stopping = &stopping};
    struct hf_question q = {.opening = 7};
    const struct answer *said;

    if (a.secret[0] == 0) {
        MUST(uv_mutex_init(&a.mutex) == 0);
        memset(a.secret, 0x5a, sizeof a.secret);
    }
    links = input_byte(&in) % 4;
    server_version = (int)(input_byte(&in) * 1000);
    take(&answers[0], &in);
    take(&answers[1], &in);
    q.name[input_take(&in, q.name, sizeof q.name - 1)] = '\0';
    asked = 0;
    next = NULL;
    serve(&a, &l, &q);
    said = asked > 0 ? &answers[asked - 1] : NULL;
    MUST(q.answered == (said != NULL && is_usable(said)));
    MUST(asked < 2 || !is_usable(&answers[0]));
    MUST(q.answered == (l.conn != NULL));
    if (q.answered)
        look(&a, &q, said);
    forget(&answers[0]);
    forget(&answers[1]);
    return 0;
}
