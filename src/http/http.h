/* The operations port: health, status and metrics over HTTP. No user data, and nothing can be changed by it.
 *
 * libmicrohttpd serves it on a thread of its own. Each request is answered on the host's loop, so an answer is
 * also the proof that the loop turns; when it does not within HF_HTTP_PATIENCE_MS, the client gets 503. A connection is
 * for one request, and nobody keeps a newcomer out (http/connections.h). */
#ifndef HF_HTTP_HTTP_H
#define HF_HTTP_HTTP_H

#include <stdint.h>
#include <uv.h>

#include "base/error.h"

enum { HF_HTTP_PATIENCE_MS = 1000, HF_HTTP_IDLE_S = 10 };

struct hf_http;

struct hf_http_answer {
    unsigned status;  /* 200, 400, 404, 503 */
    const char *type; /* a literal, as "text/plain" */
    char *text;       /* malloc'ed, freed by the caller; NULL: out of memory */
};

/* `option` is the value of ?max_lag=, NULL if not given; for the time of the call. */
typedef void (*hf_http_fn)(void *ctx, const char *path, const char *max_lag, struct hf_http_answer *answer);

/* Listens on "host:port". HF_EBUSY: the port is in use, `err` says by whom to look. */
int hf_http_open(struct hf_http **out, uv_loop_t *loop, const char *listen, hf_http_fn fn, void *ctx,
                 struct hf_error *err);
/* On the loop's thread. Requests under way get 503. The memory goes once the loop has run on. */
void hf_http_close(struct hf_http *h);

#endif
