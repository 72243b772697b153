/* The least a proxy can do: TCP on one side, PostgreSQL's Unix socket on the other, each byte read and written once, and not looked at.
 * What it costs no proxy on the same machine can save. For bench/router; small messages only, and no care taken of anything.
 *
 *     relay PORT SOCKET */
#include <arpa/inet.h>
#include <errno.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

enum { THREADS = 2, NEWS = 128 };

struct end {
    int fd; /* -1: closed; of the listener, other is NULL */
    struct end *other;
};

static int port;
static const char *path;

static void *must(void *p)
{
    if (p == NULL)
        abort();
    return p;
}

static void check(int rv, const char *what)
{
    if (rv >= 0)
        return;
    perror(what);
    exit(1);
}

static struct end *add(int epoll, int fd)
{
    struct end *e = must(calloc(1, sizeof *e));
    struct epoll_event want = {.events = EPOLLIN | EPOLLET, .data.ptr = e};

    e->fd = fd;
    check(epoll_ctl(epoll, EPOLL_CTL_ADD, fd, &want), "epoll_ctl");
    return e;
}

static int listen_here(void)
{
    struct sockaddr_in at = {.sin_family = AF_INET, .sin_port = htons((uint16_t)port), .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK, 0), on = 1;

    check(setsockopt(fd, SOL_SOCKET, SO_REUSEPORT, &on, sizeof on), "SO_REUSEPORT");
    check(bind(fd, (struct sockaddr *)&at, sizeof at), "bind");
    check(listen(fd, 1024), "listen");
    return fd;
}

static void accept_all(int epoll, int listener)
{
    struct sockaddr_un to = {.sun_family = AF_UNIX};
    int fd, on = 1;

    (void)snprintf(to.sun_path, sizeof to.sun_path, "%s", path);
    while ((fd = accept4(listener, NULL, NULL, SOCK_NONBLOCK)) >= 0) {
        int server = socket(AF_UNIX, SOCK_STREAM, 0);
        struct end *a, *b;
        check(connect(server, (struct sockaddr *)&to, sizeof to), path);
        (void)setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
        a = add(epoll, fd);
        b = add(epoll, server);
        a->other = b;
        b->other = a;
    }
}

/* The memory goes with the process: news of it may be waiting in this very round. */
static void leave(struct end *e)
{
    (void)close(e->fd);
    e->fd = -1;
}

static void pass(struct end *e)
{
    char bytes[65536];
    ssize_t n;

    if (e->fd < 0)
        return;
    do {
        n = recv(e->fd, bytes, sizeof bytes, MSG_DONTWAIT);
        if (n > 0 && send(e->other->fd, bytes, (size_t)n, MSG_NOSIGNAL) != n)
            n = 0;
    } while (n == (ssize_t)sizeof bytes);
    if (n == 0 || (n < 0 && errno != EAGAIN)) {
        leave(e);
        leave(e->other);
    }
}

static void *run(void *arg)
{
    struct epoll_event news[NEWS];
    int epoll = epoll_create1(0), n;

    (void)arg;
    add(epoll, listen_here());
    while ((n = epoll_wait(epoll, news, NEWS, -1)) >= 0)
        for (int i = 0; i < n; i++) {
            struct end *e = news[i].data.ptr;
            if (e->other == NULL)
                accept_all(epoll, e->fd);
            else
                pass(e);
        }
    return NULL;
}

int main(int argc, char **argv)
{
    pthread_t threads[THREADS];

    if (argc != 3) {
        fprintf(stderr, "usage: relay PORT SOCKET\n");
        return 2;
    }
    port = atoi(argv[1]);
    path = argv[2];
    for (int i = 0; i < THREADS; i++)
        if (pthread_create(&threads[i], NULL, run, NULL) != 0)
            return 1;
    pause();
    return 0;
}
