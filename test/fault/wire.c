/* The wire between the hosts of the fault laboratory: a switch with one TUN device in each host's network
 * namespace. Every packet between two hosts passes here, and every direction of every pair of hosts can be
 * cut, slowed, narrowed, made to lose, double or reorder, each for itself. (The kernel's own netem is not
 * everywhere to be had; TUN devices are.)
 *
 *   wire SEED NETNS...             host i has the address x.y.z.(i + 1)
 *
 * Orders on stdin, one line each, answered by one line "ok" or "error ..." on stdout:
 *
 *   set FROM TO KEY VALUE          FROM, TO: host number or *; KEY, VALUE:
 *       cut 0|1                    nothing passes
 *       delay_us N, jitter_us N    later by delay + up to jitter, in order
 *       loss_ppm N, double_ppm N, late_ppm N
 *                                  chance of a packet to be lost, doubled, or overtaken (up to 20 ms late)
 *       rate_kbs N                 kilobytes per second; 0: no limit
 *   heal                           all wires as at the start
 *   stats                          packets passed and dropped since the start
 *
 * Ends when stdin ends. */
#include <errno.h>
#include <fcntl.h>
#include <linux/if_tun.h>
#include <net/if.h>
#include <poll.h>
#include <sched.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <time.h>
#include <unistd.h>

enum {
    HOSTS_MAX = 16,
    PACKET_MAX = 2048,
    WAITING_MAX = 16384,      /* packets on all wires together; more are dropped */
    BURST = 64,               /* packets taken from one host before the others have their turn */
    OVERTAKEN_US = 20000,
    BACKLOG_US = 2000000,     /* a narrow wire drops what would wait for longer */
};

struct way {
    bool cut;
    uint32_t delay_us, jitter_us, loss_ppm, double_ppm, late_ppm, rate_kbs;
    uint64_t last_us; /* nothing in order leaves before this */
    uint64_t free_us; /* a narrow wire is busy until then */
};

struct packet {
    uint64_t due_us, seq;
    unsigned to;
    uint16_t length;
    unsigned char data[PACKET_MAX];
};

static struct {
    unsigned n;
    int fd[HOSTS_MAX];
    struct way way[HOSTS_MAX][HOSTS_MAX];
    struct packet *heap[WAITING_MAX];
    unsigned waiting;
    uint64_t seq, random, passed, dropped;
} wire;

static uint64_t now_us(void)
{
    struct timespec t;

    clock_gettime(CLOCK_BOOTTIME, &t);
    return (uint64_t)t.tv_sec * 1000000u + (uint64_t)t.tv_nsec / 1000u;
}

static uint32_t random_below(uint32_t n)
{
    wire.random ^= wire.random << 13;
    wire.random ^= wire.random >> 7;
    wire.random ^= wire.random << 17;
    return n == 0 ? 0 : (uint32_t)((wire.random >> 16) % n);
}

static bool chance(uint32_t ppm)
{
    return ppm > 0 && random_below(1000000) < ppm;
}

/* -- packets that wait: a heap, the earliest first --------------------------------------------------- */

static bool before(const struct packet *a, const struct packet *b)
{
    return a->due_us != b->due_us ? a->due_us < b->due_us : a->seq < b->seq;
}

static bool heap_put(struct packet *p)
{
    unsigned i = wire.waiting;

    if (wire.waiting == WAITING_MAX)
        return false;
    wire.waiting++;
    for (; i > 0 && before(p, wire.heap[(i - 1) / 2]); i = (i - 1) / 2)
        wire.heap[i] = wire.heap[(i - 1) / 2];
    wire.heap[i] = p;
    return true;
}

static struct packet *heap_take(void)
{
    struct packet *first = wire.heap[0], *last = wire.heap[--wire.waiting];
    unsigned i = 0;

    for (;;) {
        unsigned child = 2 * i + 1;
        if (child >= wire.waiting)
            break;
        if (child + 1 < wire.waiting && before(wire.heap[child + 1], wire.heap[child]))
            child++;
        if (!before(wire.heap[child], last))
            break;
        wire.heap[i] = wire.heap[child];
        i = child;
    }
    if (wire.waiting > 0)
        wire.heap[i] = last;
    return first;
}

/* -- one packet -------------------------------------------------------------------------------------- */

static void deliver(unsigned to, const unsigned char *data, size_t length)
{
    if (write(wire.fd[to], data, length) == (ssize_t)length)
        wire.passed++;
    else
        wire.dropped++; /* the host's device is down or full: as any switch would */
}

static void delay(struct way *w, unsigned to, const unsigned char *data, size_t length, uint64_t now)
{
    uint64_t due = now + w->delay_us + random_below(w->jitter_us + 1);
    struct packet *p;

    if (w->rate_kbs > 0) {
        uint64_t begin = w->free_us > now ? w->free_us : now;
        if (begin - now > BACKLOG_US) {
            wire.dropped++;
            return;
        }
        w->free_us = begin + length * 1000u / w->rate_kbs;
        due += w->free_us - now;
    }
    if (chance(w->late_ppm))
        due += 1 + random_below(OVERTAKEN_US);
    else if (due < w->last_us)
        due = w->last_us;
    else
        w->last_us = due;
    if (due <= now) {
        deliver(to, data, length);
        return;
    }
    p = malloc(sizeof *p);
    if (p == NULL) {
        wire.dropped++;
        return;
    }
    p->due_us = due;
    p->seq = wire.seq++;
    p->to = to;
    p->length = (uint16_t)length;
    memcpy(p->data, data, length);
    if (!heap_put(p)) {
        wire.dropped++;
        free(p);
    }
}

/* By the destination's last byte: the hosts' addresses end in i + 1. */
static void route(unsigned from, const unsigned char *data, size_t length)
{
    unsigned to;
    struct way *w;

    if (length < 20 || data[0] >> 4 != 4 || data[19] == 0 || data[19] > wire.n)
        return; /* not IPv4, or to nobody here */
    to = data[19] - 1u;
    w = &wire.way[from][to];
    if (w->cut || chance(w->loss_ppm)) {
        wire.dropped++;
        return;
    }
    delay(w, to, data, length, now_us());
    if (chance(w->double_ppm))
        delay(w, to, data, length, now_us());
}

static void take(unsigned from)
{
    unsigned char data[PACKET_MAX];

    for (unsigned i = 0; i < BURST; i++) {
        ssize_t n = read(wire.fd[from], data, sizeof data);
        if (n <= 0)
            return;
        route(from, data, (size_t)n);
    }
}

static int release_due(void)
{
    uint64_t now = now_us(), left;

    while (wire.waiting > 0 && wire.heap[0]->due_us <= now) {
        struct packet *p = heap_take();
        deliver(p->to, p->data, p->length);
        free(p);
    }
    if (wire.waiting == 0)
        return -1;
    left = (wire.heap[0]->due_us - now + 999) / 1000;
    return left > 1000 ? 1000 : (int)left;
}

/* -- orders ------------------------------------------------------------------------------------------ */

static bool set_one(struct way *w, const char *key, uint32_t value)
{
    const struct {
        const char *key;
        uint32_t *at;
    } known[] = {{"delay_us", &w->delay_us},     {"jitter_us", &w->jitter_us},
                 {"loss_ppm", &w->loss_ppm},     {"double_ppm", &w->double_ppm},
                 {"late_ppm", &w->late_ppm},     {"rate_kbs", &w->rate_kbs}};

    if (strcmp(key, "cut") == 0) {
        w->cut = value != 0;
        return true;
    }
    for (size_t i = 0; i < sizeof known / sizeof *known; i++) {
        if (strcmp(known[i].key, key) == 0) {
            *known[i].at = value;
            return true;
        }
    }
    return false;
}

/* Host number, HOSTS_MAX for "*", -1 for nonsense. */
static int host(const char *text)
{
    char *end;
    long v = strtol(text, &end, 10);

    if (strcmp(text, "*") == 0)
        return HOSTS_MAX;
    return *end == '\0' && end != text && v >= 0 && v < (long)wire.n ? (int)v : -1;
}

static bool set(char *args)
{
    char from_text[8], to_text[8], key[16];
    unsigned value;
    int from, to;
    bool ok = true;

    if (sscanf(args, "%7s %7s %15s %u", from_text, to_text, key, &value) != 4)
        return false;
    from = host(from_text);
    to = host(to_text);
    if (from < 0 || to < 0)
        return false;
    for (unsigned i = 0; i < wire.n; i++)
        for (unsigned j = 0; j < wire.n; j++)
            if (i != j && (from == HOSTS_MAX || (unsigned)from == i) &&
                (to == HOSTS_MAX || (unsigned)to == j))
                ok = set_one(&wire.way[i][j], key, value) && ok;
    return ok;
}

static void obey(char *line)
{
    bool ok = true;

    line[strcspn(line, "\n")] = '\0';
    if (strcmp(line, "stats") == 0) {
        printf("ok passed %llu dropped %llu\n", (unsigned long long)wire.passed,
               (unsigned long long)wire.dropped);
        return;
    }
    if (strcmp(line, "heal") == 0)
        memset(wire.way, 0, sizeof wire.way);
    else if (strncmp(line, "set ", 4) == 0)
        ok = set(line + 4);
    else
        ok = false;
    if (ok)
        puts("ok");
    else
        printf("error: %s\n", line);
}

/* Returns false at the end of stdin. */
static bool orders(void)
{
    static char text[4096];
    static size_t have;
    ssize_t n = read(STDIN_FILENO, text + have, sizeof text - 1 - have);
    char *end;

    if (n <= 0)
        return n < 0 && errno == EINTR;
    have += (size_t)n;
    text[have] = '\0';
    while ((end = strchr(text, '\n')) != NULL) {
        size_t length = (size_t)(end - text) + 1;
        char line[256];
        (void)snprintf(line, sizeof line, "%.*s", (int)length, text);
        obey(line);
        have -= length;
        memmove(text, text + length, have + 1);
    }
    return have < sizeof text - 1;
}

/* -- the start --------------------------------------------------------------------------------------- */

static int plug_in(const char *netns)
{
    char path[256];
    struct ifreq ifr;
    int ns, fd;

    (void)snprintf(path, sizeof path, "/run/netns/%s", netns);
    ns = open(path, O_RDONLY | O_CLOEXEC);
    if (ns < 0 || setns(ns, CLONE_NEWNET) != 0)
        return -1;
    close(ns);
    fd = open("/dev/net/tun", O_RDWR | O_NONBLOCK | O_CLOEXEC);
    if (fd < 0)
        return -1;
    memset(&ifr, 0, sizeof ifr);
    ifr.ifr_flags = IFF_TUN | IFF_NO_PI;
    strcpy(ifr.ifr_name, "wire0");
    if (ioctl(fd, TUNSETIFF, &ifr) != 0) {
        close(fd);
        return -1;
    }
    return fd;
}

static void run(void)
{
    struct pollfd p[HOSTS_MAX + 1];

    for (;;) {
        int wait = release_due();
        p[wire.n] = (struct pollfd){.fd = STDIN_FILENO, .events = POLLIN};
        for (unsigned i = 0; i < wire.n; i++)
            p[i] = (struct pollfd){.fd = wire.fd[i], .events = POLLIN};
        if (poll(p, wire.n + 1, wait) < 0 && errno != EINTR)
            return;
        for (unsigned i = 0; i < wire.n; i++)
            if (p[i].revents & POLLIN)
                take(i);
        if (p[wire.n].revents != 0 && !orders())
            return;
    }
}

int main(int argc, char **argv)
{
    char *end;

    setvbuf(stdout, NULL, _IOLBF, 0);
    if (argc < 3 || argc - 2 > HOSTS_MAX) {
        fprintf(stderr, "usage: wire SEED NETNS...\n");
        return 2;
    }
    wire.random = strtoull(argv[1], &end, 10) * 0x9e3779b97f4a7c15ull + 1;
    if (*end != '\0') {
        fprintf(stderr, "wire: %s: not a seed\n", argv[1]);
        return 2;
    }
    for (int i = 2; i < argc; i++) {
        wire.fd[wire.n] = plug_in(argv[i]);
        if (wire.fd[wire.n] < 0) {
            fprintf(stderr, "wire: %s: no TUN device: %s (hint: this needs root and /dev/net/tun)\n",
                    argv[i], strerror(errno));
            return 1;
        }
        wire.n++;
    }
    puts("ready");
    run();
    return 0;
}
