#include "base/net.h"

#include <errno.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include "base/number.h"

enum { BACKLOG = 256, DEAD_MS = 20000, UNANSWERED = 3 };

int hf_net_split(const char *addr, char *host, size_t host_cap, char *port, size_t port_cap,
                 struct hf_error *err)
{
    const char *colon = strrchr(addr, ':');
    uint64_t number;
    size_t n;

    if (colon == NULL || colon == addr || colon[1] == '\0')
        return hf_fail(err, HF_EINVAL, "bad address '%s' (hint: write host:port)", addr);
    n = (size_t)(colon - addr);
    if (addr[0] == '[' && addr[n - 1] == ']') {
        addr++;
        n -= 2;
    }
    if (n == 0)
        return hf_fail(err, HF_EINVAL, "bad address '%s': no host (hint: write host:port)", colon - 2);
    if (strspn(colon + 1, "0123456789") == strlen(colon + 1) && !hf_number(colon + 1, 65535, &number))
        return hf_fail(err, HF_EINVAL, "bad address '%s': a port is at most 65535", addr); /* the resolver would cut it */
    if (n >= host_cap || strlen(colon + 1) >= port_cap)
        return hf_fail(err, HF_EINVAL, "address too long: '%s'", addr);
    memcpy(host, addr, n);
    host[n] = '\0';
    (void)snprintf(port, port_cap, "%s", colon + 1);
    return 0;
}

static int resolve(const char *addr, int flags, struct sockaddr_storage *out, socklen_t *len,
                   struct hf_error *err)
{
    struct addrinfo hints = {.ai_socktype = SOCK_STREAM, .ai_flags = flags}, *list;
    char host[256], port[16];
    int rv = hf_net_split(addr, host, sizeof host, port, sizeof port, err);

    if (rv != 0)
        return rv;
    rv = getaddrinfo(host, port, &hints, &list);
    if (rv != 0)
        return hf_fail(err, rv == EAI_NONAME ? HF_ENOENT : HF_EIO, "cannot resolve %s: %s", addr, gai_strerror(rv));
    memcpy(out, list->ai_addr, list->ai_addrlen);
    *len = list->ai_addrlen;
    freeaddrinfo(list);
    return 0;
}

int hf_net_resolve(const char *addr, struct sockaddr_storage *out, socklen_t *len,
                   struct hf_error *err)
{
    return resolve(addr, 0, out, len, err);
}

void hf_net_tcp_options(int fd)
{
    int one = 1, idle = 10, interval = 5, count = 3;

    /* Best effort: on a Unix socket none of them exists. */
    (void)setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
    (void)setsockopt(fd, SOL_SOCKET, SO_KEEPALIVE, &one, sizeof one);
    (void)setsockopt(fd, IPPROTO_TCP, TCP_KEEPIDLE, &idle, sizeof idle);
    (void)setsockopt(fd, IPPROTO_TCP, TCP_KEEPINTVL, &interval, sizeof interval);
    (void)setsockopt(fd, IPPROTO_TCP, TCP_KEEPCNT, &count, sizeof count);
}

bool hf_net_is_dead(int fd)
{
    struct tcp_info info;
    socklen_t len = sizeof info;

    return getsockopt(fd, IPPROTO_TCP, TCP_INFO, &info, &len) == 0 && info.tcpi_last_ack_recv >= DEAD_MS &&
           info.tcpi_retransmits + info.tcpi_probes >= UNANSWERED;
}

int hf_net_connect(const struct sockaddr *sa, socklen_t len, struct hf_error *err)
{
    int fd = socket(sa->sa_family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);

    if (fd < 0)
        return hf_fail(err, HF_EIO, "cannot make a socket: %s", strerror(errno));
    if (sa->sa_family != AF_UNIX)
        hf_net_tcp_options(fd);
    if (connect(fd, sa, len) != 0 && errno != EINPROGRESS) {
        int e = errno;
        close(fd);
        return hf_fail(err, e == ECONNREFUSED ? HF_EREFUSED : HF_EIO, "cannot connect: %s",
                       strerror(e));
    }
    return fd;
}

/* "*:port": one socket for both families, or IPv4 alone where the kernel has no other. */
static int listen_everywhere(const char *addr, struct hf_error *err)
{
    char every[32];
    int fd;

    (void)snprintf(every, sizeof every, "[::]%s", addr + 1);
    fd = hf_net_listen(every, err);
    if (fd >= 0 || fd == HF_EBUSY)
        return fd;
    (void)snprintf(every, sizeof every, "0.0.0.0%s", addr + 1);
    return hf_net_listen(every, err);
}

int hf_net_listen(const char *addr, struct hf_error *err)
{
    struct sockaddr_storage sa;
    socklen_t len;
    int one = 1, zero = 0, fd, rv;

    if (addr[0] == '*' && addr[1] == ':')
        return listen_everywhere(addr, err);
    rv = resolve(addr, AI_PASSIVE, &sa, &len, err);
    if (rv != 0)
        return rv;
    fd = socket(sa.ss_family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    if (fd < 0)
        return hf_fail(err, HF_EIO, "cannot make a socket: %s", strerror(errno));
    (void)setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &one, sizeof one);
    if (sa.ss_family == AF_INET6)
        (void)setsockopt(fd, IPPROTO_IPV6, IPV6_V6ONLY, &zero, sizeof zero);
    if (bind(fd, (struct sockaddr *)&sa, len) != 0 || listen(fd, BACKLOG) != 0) {
        int e = errno;
        close(fd);
        if (e == EADDRINUSE)
            return hf_fail(err, HF_EBUSY,
                           "cannot listen on %s: the port is in use (hint: `ss -ltnp 'sport = :%s'` "
                           "shows by whom; stop it or choose another port)",
                           addr, strrchr(addr, ':') + 1);
        return hf_fail(err, HF_EIO, "cannot listen on %s: %s", addr, strerror(e));
    }
    return fd;
}

static int unix_addr(const char *path, struct sockaddr_un *sun, struct hf_error *err)
{
    memset(sun, 0, sizeof *sun);
    sun->sun_family = AF_UNIX;
    if (strlen(path) >= sizeof sun->sun_path)
        return hf_fail(err, HF_EINVAL,
                       "the socket path %s is longer than %zu bytes (hint: use a directory with a "
                       "shorter path)",
                       path, sizeof sun->sun_path - 1);
    memcpy(sun->sun_path, path, strlen(path) + 1);
    return 0;
}

int hf_net_listen_unix(const char *path, mode_t mode, struct hf_error *err)
{
    struct sockaddr_un sun;
    int fd, rv = unix_addr(path, &sun, err);

    if (rv != 0)
        return rv;
    fd = socket(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    if (fd < 0)
        return hf_fail(err, HF_EIO, "cannot make a socket: %s", strerror(errno));
    (void)unlink(path);
    if (bind(fd, (struct sockaddr *)&sun, sizeof sun) != 0 || chmod(path, mode) != 0 ||
        listen(fd, BACKLOG) != 0) {
        int e = errno;
        close(fd);
        return hf_fail(err, HF_EIO, "cannot listen on %s: %s", path, strerror(e));
    }
    return fd;
}

int hf_net_connect_unix(const char *path, struct hf_error *err)
{
    struct sockaddr_un sun;
    int rv = unix_addr(path, &sun, err);

    if (rv == 0)
        rv = hf_net_connect((struct sockaddr *)&sun, sizeof sun, err);
    if (rv < 0)
        hf_error_prefix(err, "%s", path);
    return rv;
}

bool hf_net_is_loopback(const struct sockaddr *sa)
{
    if (sa->sa_family == AF_INET) {
        const struct sockaddr_in *in = (const void *)sa;
        return (ntohl(in->sin_addr.s_addr) >> 24) == 127;
    }
    if (sa->sa_family == AF_INET6) {
        const struct sockaddr_in6 *in6 = (const void *)sa;
        return IN6_IS_ADDR_LOOPBACK(&in6->sin6_addr);
    }
    return false;
}

int hf_net_beside(const struct sockaddr *tcp, struct sockaddr_storage *out, socklen_t *len)
{
    struct sockaddr_un sun = {.sun_family = AF_UNIX};
    char host[64], port[16];
    socklen_t tcp_len =
        tcp->sa_family == AF_INET6 ? sizeof(struct sockaddr_in6) : sizeof(struct sockaddr_in);
    int n;

    if (!hf_net_is_loopback(tcp) || getnameinfo(tcp, tcp_len, host, sizeof host, port, sizeof port,
                                                NI_NUMERICHOST | NI_NUMERICSERV) != 0)
        return -1;
    n = snprintf(sun.sun_path + 1, sizeof sun.sun_path - 1, "holdfast/%s:%s", host, port);
    *len = (socklen_t)(offsetof(struct sockaddr_un, sun_path) + 1 + (size_t)n);
    memcpy(out, &sun, sizeof sun);
    return 0;
}

int hf_net_listen_beside(const char *addr, struct hf_error *err)
{
    struct sockaddr_storage tcp, sa;
    socklen_t len;
    int fd, rv = resolve(addr, AI_PASSIVE, &tcp, &len, err);

    if (rv != 0)
        return rv;
    if (hf_net_beside((struct sockaddr *)&tcp, &sa, &len) != 0)
        return HF_ENOENT;
    fd = socket(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    if (fd < 0)
        return hf_fail(err, HF_EIO, "cannot make a socket: %s", strerror(errno));
    if (bind(fd, (struct sockaddr *)&sa, len) != 0 || listen(fd, BACKLOG) != 0) {
        int e = errno;
        close(fd);
        return hf_fail(err, e == EADDRINUSE ? HF_EBUSY : HF_EIO,
                       "cannot listen on the Unix socket beside %s: %s (hint: `ss -lxp | grep holdfast/` shows "
                       "by whom it is used)",
                       addr, strerror(e));
    }
    return fd;
}
