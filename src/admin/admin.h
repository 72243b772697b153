/* The admin socket: a Unix socket on which the owner of a node or of a local cluster asks and commands.
 *
 * One JSON object per line in, one JSON object per line back, in any number on one connection, one at a
 * time. An answer with a member "error" (text) is a failure. Access is by file mode (0600).
 *
 * A connection may be led on to another node's admin socket: the question {"op": "through", "name": NODE} is
 * answered by {"ok": true}, and everything after that by NODE. How it gets there is the host's affair, which
 * takes the connection away here (hf_admin_detach) and brings it in there (hf_admin_adopt). */
#ifndef HF_ADMIN_ADMIN_H
#define HF_ADMIN_ADMIN_H

#include <jansson.h>
#include <stdbool.h>
#include <uv.h>

#include "base/error.h"

enum {
    HF_ADMIN_CONNECTIONS_MAX = 32,
    HF_ADMIN_FAR_MAX = 16,                  /* of these from other nodes: the owner always gets in */
    HF_ADMIN_REQUEST_MAX = 64 * 1024,       /* bytes of one line; more closes the connection */
    HF_ADMIN_ANSWER_MAX = 4 * 1024 * 1024,  /* the client reads no more than this */
};

struct hf_admin;
struct hf_admin_request; /* a question that waits for its answer */

/* `body` is an object and borrowed for the call. Answer with hf_admin_reply(), exactly once, now or
 * later. */
typedef void (*hf_admin_handler)(void *ctx, struct hf_admin_request *request, const json_t *body);

/* Listens on `path`; an old socket there is replaced. Call on the loop's thread or before it runs. */
int hf_admin_open(struct hf_admin **out, uv_loop_t *loop, const char *path, hf_admin_handler handle,
                  void *ctx, struct hf_error *err);
/* Takes `answer` (NULL becomes an error: out of memory). On the loop's thread. If the asker is gone the
 * answer is dropped. */
void hf_admin_reply(struct hf_admin_request *request, json_t *answer);
/* Takes the asker's connection away, in the place of hf_admin_reply(): the descriptor is the caller's. HF_ECLOSED:
 * the asker is gone; HF_EINVAL: it did not wait for the answer, and what it sent is here; HF_EIO. Then the request
 * must still be replied to. */
int hf_admin_detach(struct hf_admin_request *request);
/* Serves a connection that was detached on another node. Takes fd if it returns 0. HF_EBUSY: too many. */
int hf_admin_adopt(struct hf_admin *a, int fd);
/* Is it asked from another node? */
bool hf_admin_is_far(const struct hf_admin_request *request);
/* Drops connections and the socket. Requests not answered yet must still be replied to, which then does
 * no more than free them. Memory goes once the loop has run on. */
void hf_admin_close(struct hf_admin *a);

/* The asker's side, blocking. `request` is borrowed. *answer is the caller's and has no "error" member
 * if this returns 0. HF_EREFUSED: the other side answered with an error, now in err->text as it stands.
 * HF_ENOENT: nobody listens there. HF_ETIMEOUT: no answer within timeout_ms, connecting included. */
int hf_admin_ask(const char *path, const json_t *request, int timeout_ms, json_t **answer,
                 struct hf_error *err);
/* The same of the node `name` (NULL: of itself), through the one that listens on `path`. HF_EREFUSED also if it cannot be reached. */
int hf_admin_ask_through(const char *path, const char *name, const json_t *request, int timeout_ms,
                         json_t **answer, struct hf_error *err);

#endif
