/* Who is connected to the operations port. A probe always gets in: where there are too many connections, of one address
 * or together, the oldest makes room for the newest; and none lasts longer than HF_HTTP_WHOLE_S, whatever it sends.
 *
 * libmicrohttpd has a limit for each address, and one for all, but at the one it refuses the newcomer, who may be a kubelet
 * behind the same address, and at the other it leaves him unheard; and its timeout begins again with every byte. */
#ifndef HF_HTTP_CONNECTIONS_H
#define HF_HTTP_CONNECTIONS_H

#include <stdbool.h>
#include <stdint.h>
#include <sys/socket.h>
#include <uv.h>

enum {
    HF_HTTP_CONNECTIONS_MAX = 64,
    HF_HTTP_ADDRESS_MAX = 16,  /* of one address: a node's kubelet, its neighbours' probes, and whoever looks */
    HF_HTTP_ENDING_MAX = 64,   /* told to end, and not closed yet */
    HF_HTTP_WHOLE_S = 20,      /* a connection, from beginning to end */
};

struct hf_http_connection {
    int fd;
    uint8_t address[16]; /* IPv4 as ::ffff:a.b.c.d */
    uint64_t begun_ns;
    bool ending; /* shut down; its owner sees the end and closes it */
};

struct hf_http_connections {
    uv_mutex_t mutex; /* the daemon's thread adds and removes, the host's loop ends what is too old */
    unsigned n;
    struct hf_http_connection list[HF_HTTP_CONNECTIONS_MAX + HF_HTTP_ENDING_MAX]; /* the oldest first */
};

void hf_http_connections_init(struct hf_http_connections *c);
void hf_http_connections_destroy(struct hf_http_connections *c);
/* A new one, which makes others end if they are too many. There is room: its owner takes no more than `list` has. */
void hf_http_connections_came(struct hf_http_connections *c, int fd, const struct sockaddr *from, uint64_t now_ns);
/* Before its owner closes it. */
void hf_http_connections_gone(struct hf_http_connections *c, int fd);
/* Ends those that began HF_HTTP_WHOLE_S ago. */
void hf_http_connections_age(struct hf_http_connections *c, uint64_t now_ns);

#endif
