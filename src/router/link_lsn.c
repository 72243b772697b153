/* An LSN, as SQL tells it. */
#include <stdio.h>

#include "router/link.h"

enum { ASK_MS = 1000 };

bool hf_link_lsn(struct hf_link *l, const char *sql, uint64_t *lsn)
{
    PGresult *res = l->conn != NULL || hf_link_open(l) ? hf_link_ask(l, sql, ASK_MS) : NULL;
    unsigned high, low;
    bool ok = PQresultStatus(res) == PGRES_TUPLES_OK && PQntuples(res) == 1 && PQgetisnull(res, 0, 0) == 0 &&
              sscanf(PQgetvalue(res, 0, 0), "%X/%X", &high, &low) == 2;

    if (ok)
        *lsn = (uint64_t)high << 32 | low;
    else
        hf_link_close(l);
    PQclear(res);
    return ok;
}
