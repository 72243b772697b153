#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include "sim.h"

struct world *W;

struct sim_event {
    uint64_t at, serial;
    sim_fn fn;
    void *arg;
};

struct heap {
    size_t n, cap;
    struct sim_event *e;
};

/* xorshift128+ (Vigna 2014): small, fast, the same everywhere. */
uint64_t sim_random(void)
{
    uint64_t a = W->rng[0], b = W->rng[1];

    W->rng[0] = b;
    a ^= a << 23;
    W->rng[1] = a ^ b ^ (a >> 18) ^ (b >> 5);
    return W->rng[1] + b;
}

uint64_t sim_between(uint64_t lo, uint64_t hi)
{
    return hi <= lo ? lo : lo + sim_random() % (hi - lo + 1);
}

bool sim_chance(double p)
{
    return (double)(sim_random() >> 11) / 9007199254740992.0 < p;
}

uint64_t sim_clock(const struct node *n)
{
    return (uint64_t)((double)W->now * n->rate) + (uint64_t)n->offset_ns;
}

bool sim_reaches(enum lane lane, int from, int to)
{
    return W->nodes[to].exists && W->nodes[to].up && !W->cut[from][to] && !W->lane_cut[lane][from][to];
}

void sim_say(const struct node *n, const char *fmt, ...)
{
    va_list ap;

    if (!W->verbose)
        return;
    printf("%10.4f ms  %-4s ", (double)W->now / 1e6, n != NULL ? n->name : "");
    va_start(ap, fmt);
    vprintf(fmt, ap);
    va_end(ap);
    putchar('\n');
}

void sim_fail(const char *fmt, ...)
{
    va_list ap;

    va_start(ap, fmt);
    (void)vsnprintf(W->why, sizeof W->why, fmt, ap);
    va_end(ap);
    W->violated = true;
    sim_say(NULL, "VIOLATION %s", W->why);
    longjmp(W->out, 1);
}

static bool before(const struct sim_event *a, const struct sim_event *b)
{
    return a->at != b->at ? a->at < b->at : a->serial < b->serial;
}

void sim_after(uint64_t delay, sim_fn fn, void *arg)
{
    struct heap *h = W->heap;
    size_t i;

    if (h == NULL)
        h = W->heap = calloc(1, sizeof *h);
    if (h->n == h->cap) {
        h->cap = h->cap != 0 ? 2 * h->cap : 1024;
        h->e = realloc(h->e, h->cap * sizeof *h->e);
    }
    i = h->n++;
    h->e[i] = (struct sim_event){W->now + delay, ++W->serial, fn, arg};
    while (i > 0 && before(&h->e[i], &h->e[(i - 1) / 2])) {
        struct sim_event t = h->e[i];
        h->e[i] = h->e[(i - 1) / 2];
        h->e[(i - 1) / 2] = t;
        i = (i - 1) / 2;
    }
}

static struct sim_event pop(struct heap *h)
{
    struct sim_event top = h->e[0];
    size_t i = 0;

    h->e[0] = h->e[--h->n];
    for (;;) {
        size_t least = i;
        for (size_t c = 2 * i + 1; c <= 2 * i + 2 && c < h->n; c++)
            if (before(&h->e[c], &h->e[least]))
                least = c;
        if (least == i)
            return top;
        struct sim_event t = h->e[i];
        h->e[i] = h->e[least];
        h->e[least] = t;
        i = least;
    }
}

bool sim_next(uint64_t limit)
{
    struct sim_event e;

    if (W->heap == NULL || W->heap->n == 0 || W->heap->e[0].at > limit)
        return false;
    e = pop(W->heap);
    W->now = e.at;
    e.fn(e.arg);
    return true;
}

bool sim_run_until(uint64_t t)
{
    while (sim_next(t))
        continue;
    W->now = t;
    return !W->violated;
}
