/* Another node's admin socket, by way of this one: in a pod nobody else's can be reached.
 *
 * The asker's connection itself goes on, through a tunnel by mutual TLS, to the other node's admin socket; both
 * nodes only pass bytes from then on. A node with a valid certificate is believed (docs/safety.md, "Assumptions");
 * yet what ends a node or its membership is asked on that node only. */
#include "node_private.h"

#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

struct through {
    struct hf_node *n;
    int word; /* the asker's connection, to say whether it goes on */
    char name[HF_NAME_MAX];
};

bool hf_node_through_may(const char *op)
{
    static const char *const may[] = {"status", "history", "sessions", "end-session", "switchover"};

    for (size_t i = 0; i < sizeof may / sizeof *may; i++)
        if (strcmp(op, may[i]) == 0)
            return true;
    return false;
}

static void over(struct through *t)
{
    t->n->n_through--;
    free(t);
}

/* The asker waits for this line, so nothing of the other node's can come before it; and there is room for it. If
 * it cannot be said, the connection ends without. */
static void opened(void *arg, int status, const char *text, const struct sockaddr *to, socklen_t len)
{
    struct through *t = arg;
    json_t *o = status == 0 ? json_pack("{s:b}", "ok", 1) : json_pack("{s:s}", "error", text);
    char *line = o != NULL ? json_dumps(o, JSON_COMPACT) : NULL;

    (void)to;
    (void)len;
    if (line == NULL || send(t->word, line, strlen(line), MSG_NOSIGNAL | MSG_DONTWAIT) < 0 ||
        send(t->word, "\n", 1, MSG_NOSIGNAL | MSG_DONTWAIT) < 0)
        (void)shutdown(t->word, SHUT_RDWR);
    free(line);
    json_decref(o);
    close(t->word);
    if (status != 0)
        over(t);
}

static void closed(void *arg, bool wal_missing)
{
    (void)wal_missing;
    over(arg);
}

/* The answer, or NULL: the request is over, and the connection on its way. */
json_t *hf_node_through(struct hf_node *n, struct hf_admin_request *request, const char *name)
{
    const struct hf_member *m;
    struct hf_dial dial = {.opened = opened, .closed = closed};
    struct through *t;
    int fd;

    if (n->decide == NULL)
        return json_pack("{s:s}", "error", "this node is not a member of a cluster yet");
    m = hf_cluster_member_named(hf_decide_view(n->decide).cluster, name != NULL ? name : "");
    if (m == NULL)
        return json_pack("{s:s+}", "error", "no such member: ", name != NULL ? name : "");
    if (m->id == n->durable.self)
        return json_pack("{s:b}", "ok", 1); /* what follows is asked here */
    t = n->n_through < HF_ADMIN_CONNECTIONS_MAX ? calloc(1, sizeof *t) : NULL;
    if (t == NULL)
        return json_pack("{s:s}", "error", "too many ask other nodes through this one; try again");
    fd = hf_admin_detach(request);
    if (fd < 0) {
        free(t);
        return json_pack("{s:s}", "error", "\"through\" is asked before anything else, and its answer waited for");
    }
    t->n = n;
    t->word = fcntl(fd, F_DUPFD_CLOEXEC, 0);
    if (t->word < 0) {
        close(fd); /* the asker sees the end */
        free(t);
        return NULL;
    }
    n->n_through++;
    dial.arg = t;
    hf_peer_dial(n->peer, m->name, m->peer, HF_PURPOSE_ADMIN, NULL, 0, fd, &dial);
    return NULL;
}

void hf_node_through_asked(struct hf_node *n, const struct hf_peer_identity *from, struct hf_tunnel *t)
{
    int fds[2];

    /* A node without a cluster passes the hello, to found or join one; here it has nothing to ask. */
    if (memcmp(&from->cluster_id, &n->identity.cluster_id, sizeof from->cluster_id) != 0) {
        hf_tunnel_refuse(t, "not a member of this cluster");
        return;
    }
    if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0, fds) != 0) {
        hf_tunnel_refuse(t, "out of descriptors");
        return;
    }
    if (hf_admin_adopt(n->admin, fds[0]) != 0) {
        close(fds[0]);
        close(fds[1]);
        hf_tunnel_refuse(t, "too many ask this node; try again");
        return;
    }
    hf_tunnel_accept(t, fds[1], NULL);
}
