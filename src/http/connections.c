#include "http/connections.h"

#include <assert.h>
#include <netinet/in.h>
#include <stdlib.h>
#include <string.h>

enum { LIST_MAX = HF_HTTP_CONNECTIONS_MAX + HF_HTTP_ENDING_MAX };

static void address_of(const struct sockaddr *from, uint8_t out[16])
{
    memset(out, 0, 16);
    if (from != NULL && from->sa_family == AF_INET6) {
        memcpy(out, &((const struct sockaddr_in6 *)(const void *)from)->sin6_addr, 16);
    } else if (from != NULL && from->sa_family == AF_INET) {
        out[10] = out[11] = 0xff;
        memcpy(out + 12, &((const struct sockaddr_in *)(const void *)from)->sin_addr, 4);
    }
}

/* Not closed: the descriptor is libmicrohttpd's, which sees the end of the stream. */
static void end(struct hf_http_connection *one)
{
    (void)shutdown(one->fd, SHUT_RDWR);
    one->ending = true;
}

/* Ends the oldest of an address (NULL: of all) if more than `max` are there. */
static void make_room(struct hf_http_connections *c, const uint8_t *address, unsigned max)
{
    struct hf_http_connection *oldest = NULL;
    unsigned n = 0;

    for (unsigned i = 0; i < c->n; i++) {
        struct hf_http_connection *one = &c->list[i];
        if (one->ending || (address != NULL && memcmp(one->address, address, 16) != 0))
            continue;
        oldest = oldest != NULL ? oldest : one;
        n++;
    }
    if (n > max)
        end(oldest);
}

void hf_http_connections_init(struct hf_http_connections *c)
{
    memset(c, 0, sizeof *c);
    if (uv_mutex_init(&c->mutex) != 0)
        abort();
}

void hf_http_connections_destroy(struct hf_http_connections *c)
{
    uv_mutex_destroy(&c->mutex);
}

void hf_http_connections_came(struct hf_http_connections *c, int fd, const struct sockaddr *from, uint64_t now_ns)
{
    struct hf_http_connection *one;

    uv_mutex_lock(&c->mutex);
    assert(c->n < LIST_MAX);
    one = &c->list[c->n++];
    *one = (struct hf_http_connection){.fd = fd, .begun_ns = now_ns};
    address_of(from, one->address);
    make_room(c, one->address, HF_HTTP_ADDRESS_MAX);
    make_room(c, NULL, HF_HTTP_CONNECTIONS_MAX);
    uv_mutex_unlock(&c->mutex);
}

void hf_http_connections_gone(struct hf_http_connections *c, int fd)
{
    unsigned i = 0;

    uv_mutex_lock(&c->mutex);
    while (i < c->n && c->list[i].fd != fd)
        i++;
    if (i < c->n) {
        c->n--;
        memmove(&c->list[i], &c->list[i + 1], (c->n - i) * sizeof c->list[0]);
    }
    uv_mutex_unlock(&c->mutex);
}

void hf_http_connections_age(struct hf_http_connections *c, uint64_t now_ns)
{
    uv_mutex_lock(&c->mutex);
    for (unsigned i = 0; i < c->n; i++)
        if (!c->list[i].ending && now_ns - c->list[i].begun_ns >= HF_HTTP_WHOLE_S * 1000000000ull)
            end(&c->list[i]);
    uv_mutex_unlock(&c->mutex);
}
