#include "base/sentinel_page.h"

#include <poll.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

enum { MESSAGE_BYTES = 8 + HF_DEATH_TOKEN_BYTES, BOUND_MS = 200 };

static long now_ms(void)
{
    struct timespec ts;

    clock_gettime(CLOCK_MONOTONIC, &ts);
    return ts.tv_sec * 1000 + ts.tv_nsec / 1000000;
}

void hf_death_tell(struct hf_sentinel_page *page)
{
    struct pollfd fds[HF_DEATH_PEERS_MAX];
    struct hf_death_entry *to[HF_DEATH_PEERS_MAX];
    nfds_t n = 0;
    long end = now_ms() + BOUND_MS;
    nfds_t left;

    for (int i = 0; i < HF_DEATH_PEERS_MAX; i++) {
        struct hf_death_entry *e = &page->peers[i];
        int fd;
        if (atomic_load(&e->used) != 1)
            continue;
        fd = socket(e->address.ss_family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
        if (fd < 0)
            continue;
        (void)connect(fd, (struct sockaddr *)&e->address, e->len);
        to[n] = e;
        fds[n++] = (struct pollfd){.fd = fd, .events = POLLOUT};
    }
    left = n;
    while (left > 0 && now_ms() < end) {
        if (poll(fds, n, (int)(end - now_ms())) <= 0)
            break;
        for (nfds_t i = 0; i < n; i++) {
            uint8_t message[MESSAGE_BYTES];
            if (fds[i].fd < 0 || fds[i].revents == 0)
                continue;
            memcpy(message, HF_DEATH_MAGIC, 8);
            memcpy(message + 8, to[i]->token, HF_DEATH_TOKEN_BYTES);
            /* Forty bytes into an empty socket: all or, if refused, nothing. */
            (void)send(fds[i].fd, message, sizeof message, MSG_NOSIGNAL);
            close(fds[i].fd);
            fds[i].fd = -1;
            left--;
        }
    }
    for (nfds_t i = 0; i < n; i++)
        if (fds[i].fd >= 0)
            close(fds[i].fd);
}
