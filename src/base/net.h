/* Sockets: always non-blocking and close-on-exec. */
#ifndef HF_BASE_NET_H
#define HF_BASE_NET_H

#include <netdb.h>
#include <stdbool.h>
#include <sys/socket.h>

#include "base/error.h"

/* "host:port" or "[v6]:port" into its parts. */
int hf_net_split(const char *addr, char *host, size_t host_cap, char *port, size_t port_cap,
                 struct hf_error *err);
/* Blocks for the time a resolver takes: numbers and /etc/hosts are quick. First address only. HF_ENOENT: there is no such name;
 * HF_EIO: nobody could say. */
int hf_net_resolve(const char *addr, struct sockaddr_storage *out, socklen_t *len,
                   struct hf_error *err);
/* Starts to connect. Returns the socket (connected when writable), or negative. */
int hf_net_connect(const struct sockaddr *sa, socklen_t len, struct hf_error *err);
/* Listens on "host:port"; the host * is every address, IPv6 and IPv4. A port in use is named, with how to find who has it. */
int hf_net_listen(const char *addr, struct hf_error *err);
/* Listens on a Unix socket; an old one of the same name is removed. */
int hf_net_listen_unix(const char *path, mode_t mode, struct hf_error *err);
int hf_net_connect_unix(const char *path, struct hf_error *err);
void hf_net_tcp_options(int fd); /* no delay, keepalive */
/* Has its other end not confirmed for twenty seconds what it was sent, several times? Keepalive (tcp(7)) finds those that were sent nothing.
 * Not TCP_USER_TIMEOUT, which ends just as well a connection whose reader has no room for so long (the kernel's tcp_probe_timer), though it
 * answers: one that looks at its first rows, a copy that waits for a disk. To be asked every HF_NET_LOOK_MS. False: a Unix socket. */
bool hf_net_is_dead(int fd);
enum { HF_NET_LOOK_MS = 5000 };
bool hf_net_is_loopback(const struct sockaddr *sa);
/* The abstract Unix socket (unix(7)) that stands for a TCP address of this machine's loopback: half the cost of
 * TCP for each message, and gone with its process. 0, or -1: no address of the loopback. */
int hf_net_beside(const struct sockaddr *tcp, struct sockaddr_storage *out, socklen_t *len);
/* Listens there. HF_ENOENT, and no text: `addr` is none of the loopback. */
int hf_net_listen_beside(const char *addr, struct hf_error *err);

#endif
