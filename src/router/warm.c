/* PostgreSQL forgets at each start what its sessions begin with, and the first one in each database makes it again
 * (relcache.c, pg_internal.init): 10 ms and more, which after a failover everybody would wait for. On a standby it can
 * be made ahead, and stays. */
#include "router/warm.h"

#include <stddef.h>

enum { ASK_MS = 2000, DATABASES_MAX = 64 };

void hf_warm_begin(struct hf_warm *w, struct hf_link *l)
{
    static const char sql[] = "SELECT datname FROM pg_catalog.pg_database WHERE datallowconn AND NOT datistemplate"
                              " AND datname <> 'postgres' ORDER BY oid";

    hf_warm_end(w);
    w->names = hf_link_ask(l, sql, ASK_MS);
    if (PQresultStatus(w->names) != PGRES_TUPLES_OK)
        hf_warm_end(w);
}

void hf_warm_step(struct hf_warm *w, const struct hf_link *l)
{
    struct hf_link one = *l;

    if (w->names == NULL || w->next >= PQntuples(w->names) || w->next >= DATABASES_MAX) {
        hf_warm_end(w);
        return;
    }
    one.conn = NULL;
    one.database = PQgetvalue(w->names, w->next++, 0);
    one.as_follower = true;
    /* To log in is all. It may fail: the database may be gone, or a trigger of the login may not like a standby. */
    (void)hf_link_open(&one);
    hf_link_close(&one);
}

void hf_warm_end(struct hf_warm *w)
{
    PQclear(w->names);
    *w = (struct hf_warm){0};
}
