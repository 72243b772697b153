/* sim: runs schedules and says whether anything that must always hold did not. */
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "sim.h"

/* quick: random schedules find it soon, and `--suite` insists on it. All, these and the others, have a
 * directed schedule of their own (directed.c). live: it shows as a cluster that stands still; all others
 * must break an invariant, and standing still is no evidence for them. */
static const struct {
    enum hf_mutation m;
    const char *key;
    bool quick, live;
    const char *name;
} mutations[] = {
#define MUT(m) HF_MUT_##m, #m
    {MUT(SKIP_FENCE), false, false, "report without closing the stream (I4)"},
    {MUT(FENCE_NOT_DURABLE), false, false, "report before the fence is on disk (I4)"},
    {MUT(COUNT_ONE_LESS), true, false, "one report fewer than a majority"},
    {MUT(OPEN_BEFORE_BARRIER), true, false, "gate opens before the barrier (I5)"},
    {MUT(IGNORE_LEASE), true, false, "gate without a lease (I2)"},
    {MUT(NO_PROMISE_WAIT), true, false, "report without waiting out the promise (I2)"},
    {MUT(FORGET_PROMISE), false, false, "promise forgotten by a restart (S12)"},
    {MUT(NOT_GREATEST), true, false, "not the greatest position leads (I1)"},
    {MUT(ADMIT_ANY), true, false, "any history may stream (S1)"},
    {MUT(BEGIN_ANYWHERE), false, false, "WAL counts that lies behind a hole (S1)"},
    {MUT(BARRIER_BY_INSERT), false, false, "barrier done when INSERT returns (S1)"},
    {MUT(ADMIT_BEFORE_WAIT), false, false, "followers admitted before the barrier waits (S2)"},
    {MUT(LINEAGE_LATE), true, false, "lineage written after the stream opened (S4)"},
    {MUT(PREFIX_BY_TIMELINE), true, false, "timelines decide who may stream (S4)"},
    {MUT(LSN_ONLY), true, false, "positions compare without epochs (I5)"},
    {MUT(REFUSED_IS_PROOF), true, false, "a closed connection lets a lease off (S6)"},
    {MUT(ACK_WHILE_FENCING), false, false, "pings acked while fencing (S7)"},
    {MUT(RESUME_EPOCH), true, false, "a re-elected leader resumes its epoch (S7)"},
    {MUT(REPORT_WHILE_REWINDING), false, false, "report in the middle of a copy (S8)"},
    {MUT(DROP_HOLD), false, false, "a hold is forgotten by a restart (S8)"},
    {MUT(ANY_LINEAGE), false, false, "who copies counts, whatever it took part in (S8)"},
    {MUT(REWIND_EARLY), false, false, "rewind before the barrier (S8, S9)"},
    {MUT(NO_POSITION_REWOUND), false, true, "no position of rewound data that lack WAL (S8)"},
    {MUT(SEEN_IS_NOTHING), false, false, "rewound data taken to be as far as their WAL (S8)"},
    {MUT(REWIND_INCOMPLETE), false, false, "rewound again without their WAL (S8)"},
    {MUT(WAL_UNREAD), false, false, "an end of WAL where it cannot be read (S10)"},
    {MUT(TRUST_REWIND), true, false, "rewind although a timeline number repeats (S9)"},
    {MUT(SHORTER_PROMISE), false, false, "promise waited out with today's T (S12)"},
    {MUT(NEVER_UNFIT), false, true, "who cannot lead leads on (S13)"},
    {MUT(FOUND_ALONE), true, true, "node 0 founds alone (S15)"},
    {MUT(NO_RECLONE_ON_MISSING), true, true, "missing WAL is waited for (S16)"},
    {MUT(REPLAY_FOR_EVER), false, true, "a replay that ends is begun again for ever (S16)"},
    {MUT(RELEASE_EARLY), false, false, "RELEASE before the gate confirmed (S17)"},
    {MUT(OLD_ACKS_COUNT), false, false, "acks from before the release count (S17)"},
    {MUT(PROMOTE_FROM_LOG), true, false, "promotion from an old log entry (S18)"},
    {MUT(SHRINK_BELOW_3), false, false, "the dead stop counting below three (S20)"},
    {MUT(CONFIG_TWO_AT_ONCE), false, false, "two changes of the voters at once (I3)"},
    {MUT(RULE_NOT_LOADED), false, false, "the next change before the rule is loaded (I3)"},
    {MUT(ODD_COUNTS), false, true, "who votes in one of two sets only is to lead (I3)"},
    {MUT(RULE_NOT_PROVED), false, false, "the next change before a write under the rule (I3)"},
};
enum { N_MUTATIONS = sizeof mutations / sizeof mutations[0] };

static unsigned writes, reads, opens, acks;

/* True: nothing was violated. Each run has a world of its own; a violated one is abandoned as it is. */
static bool run(const struct directed *schedule, uint64_t seed, bool verbose, char *why, size_t cap)
{
    bool ok;

    W = calloc(1, sizeof *W);
    W->seed = seed;
    W->verbose = verbose;
    if (schedule != NULL) {
        W->mutation = hf_mutation;
        hf_mutation = HF_MUT_NONE;
    }
    W->rng[0] = seed * 0x9e3779b97f4a7c15ull + 1;
    W->rng[1] = (seed ^ 0xbf58476d1ce4e5b9ull) * 0x94d049bb133111ebull + 1;
    for (int i = 0; i < 16; i++)
        (void)sim_random();
    if (setjmp(W->out) == 0)
        (schedule != NULL ? schedule->run : scenario_random)();
    ok = !W->violated;
    if (why != NULL)
        (void)snprintf(why, cap, "%s", W->why);
    writes += W->writes;
    reads += W->reads;
    opens += W->opens;
    acks += W->n_acks;
    free(W);
    return ok;
}

static double seconds(void)
{
    struct timespec ts;

    clock_gettime(CLOCK_MONOTONIC, &ts);
    return (double)ts.tv_sec + (double)ts.tv_nsec / 1e9;
}

/* Worlds leak what was in flight when they end: a process of their own for each slice. */
static unsigned slice(uint64_t from, uint64_t to)
{
    unsigned failed = 0;

    for (uint64_t s = from; s <= to; s++) {
        char why[512];
        if (run(NULL, s, false, why, sizeof why))
            continue;
        failed++;
        printf("seed %llu: %s\n", (unsigned long long)s, why);
        fflush(stdout);
    }
    return failed;
}

static unsigned seeds(uint64_t from, uint64_t to, unsigned jobs)
{
    unsigned failed = 0, running = 0;
    const uint64_t step = 50;

    for (uint64_t s = from; s <= to || running > 0;) {
        int status;
        pid_t done;
        if (s <= to && running < jobs) {
            uint64_t end = s + step - 1 < to ? s + step - 1 : to;
            pid_t pid;
            fflush(stdout);
            pid = fork();
            if (pid == 0) {
                unsigned f = slice(s, end);
                fflush(stdout);
                _exit(f > 100 ? 100 : (int)f);
            }
            if (getenv("SIM_SLICES") != NULL)
                printf("process %d: seeds %llu..%llu\n", (int)pid, (unsigned long long)s,
                       (unsigned long long)end);
            running++;
            s = end + 1;
            continue;
        }
        if ((done = wait(&status)) > 0) {
            running--;
            failed += WIFEXITED(status) ? (unsigned)WEXITSTATUS(status) : 1;
            if (!WIFEXITED(status))
                printf("the slice of process %d ended by signal %d\n", (int)done, WTERMSIG(status));
        }
    }
    return failed;
}

/* The seed that catches a mutation, or 0. */
static uint64_t caught(enum hf_mutation m, bool live, uint64_t most, char *why, size_t cap)
{
    hf_mutation = m;
    for (uint64_t s = 1; s <= most; s++)
        if (!run(NULL, s, false, why, cap) && (live || strncmp(why, "no progress", 11) != 0))
            return s;
    return 0;
}

static unsigned mutate(uint64_t most, bool quick, unsigned *passed)
{
    unsigned missed = 0;

    for (unsigned i = 0; i < N_MUTATIONS; i++) {
        int fds[2], status;
        char line[700] = "";
        pid_t pid;
        if (quick && !mutations[i].quick)
            continue;
        if (pipe(fds) != 0)
            return 1;
        fflush(stdout);
        pid = fork();
        if (pid == 0) {
            char why[512];
            uint64_t s = caught(mutations[i].m, mutations[i].live, most, why, sizeof why);
            if (s == 0)
                _exit(1);
            dprintf(fds[1], "seed %llu: %s", (unsigned long long)s, why);
            _exit(0);
        }
        close(fds[1]);
        (void)!read(fds[0], line, sizeof line - 1);
        close(fds[0]);
        (void)waitpid(pid, &status, 0);
        if (status == 0)
            (*passed)++;
        else
            missed++;
        printf("%-8s %-55s %.110s\n", status == 0 ? "caught" : "MISSED", mutations[i].name, line);
    }
    return missed;
}

/* -- directed schedules ------------------------------------------------------------------------------- */

static const char *key_of(enum hf_mutation m)
{
    for (unsigned i = 0; i < N_MUTATIONS; i++)
        if (mutations[i].m == m)
            return mutations[i].key;
    return "";
}

/* By its name, in any case, or its number. */
static bool mutation_named(const char *name)
{
    for (unsigned i = 0; i < N_MUTATIONS; i++)
        if (strcasecmp(mutations[i].key, name) == 0)
            hf_mutation = mutations[i].m;
    if (hf_mutation == HF_MUT_NONE)
        hf_mutation = (enum hf_mutation)atoi(name);
    return hf_mutation > HF_MUT_NONE && hf_mutation < HF_MUT_COUNT;
}

/* One schedule in a process of its own. Unmutated it must pass; else it must fail, and by what the rule is
 * about: a cluster that stands still is evidence only where the table says so, and a schedule that did not
 * come to its point never is. */
static bool directed_one(const struct directed *s, const struct directed_mutation *m, uint64_t seed)
{
    int status = 1, fds[2];
    char why[512] = "";
    const char *word;
    bool good;
    pid_t pid;

    if (pipe(fds) != 0)
        return false;
    fflush(stdout);
    pid = fork();
    if (pid == 0) {
        bool ok;
        if (m != NULL)
            hf_mutation = m->m;
        ok = run(s, seed, false, why, sizeof why);
        dprintf(fds[1], "%s", why);
        _exit(ok ? 0 : 1);
    }
    close(fds[1]);
    (void)!read(fds[0], why, sizeof why - 1);
    close(fds[0]);
    (void)waitpid(pid, &status, 0);
    if (!WIFEXITED(status))
        (void)snprintf(why, sizeof why, "ended by signal %d", WTERMSIG(status));
    if (m == NULL || m->end == COVERED)
        good = status == 0;
    else
        good = WIFEXITED(status) && WEXITSTATUS(status) == 1 && strncmp(why, "vacuous", 7) != 0 &&
               (strncmp(why, "no progress", 11) == 0) == (m->end == STANDS);
    if (m == NULL && good)
        return true;
    if (m == NULL)
        word = "FAILED";
    else if (!good)
        word = "MISSED";
    else
        word = m->end == COVERED ? "covered" : "caught";
    printf("%-8s %-5s %-24s %.120s\n", word, s->name, m != NULL ? key_of(m->m) : s->what, why);
    return good;
}

/* No rule without a schedule. */
static unsigned without_schedule(void)
{
    unsigned missing = 0;

    for (unsigned i = 0; i < N_MUTATIONS; i++) {
        bool found = false;
        for (unsigned k = 0; k < directed_n * 4; k++)
            found = found || directed_all[k / 4].mutations[k % 4].m == mutations[i].m;
        if (found)
            continue;
        missing++;
        printf("MISSED   %s has no directed schedule\n", mutations[i].key);
    }
    return missing;
}

static unsigned directed(bool mutated, unsigned *passed)
{
    unsigned failed = mutated ? without_schedule() : 0, before = *passed;

    for (unsigned i = 0; i < directed_n; i++) {
        const struct directed *s = &directed_all[i];
        bool good = true;
        /* Delays differ by seed; what the schedule is about does not. */
        for (uint64_t seed = 1; seed <= 10 && good; seed++)
            good = directed_one(s, NULL, seed);
        good ? (*passed)++ : failed++;
        for (unsigned k = 0; mutated && k < 4 && s->mutations[k].m != HF_MUT_NONE; k++)
            directed_one(s, &s->mutations[k], 1) ? (*passed)++ : failed++;
    }
    printf("%u directed schedules: %u passed, %u failed\n", directed_n, *passed - before, failed);
    return failed;
}

static void usage(void)
{
    puts("usage: sim [--seed N] [--verbose] [--mutation NAME] [--schedule NAME]\n"
         "       sim --seeds A..B [--jobs N] [--mutation NAME]\n"
         "       sim --schedules | --directed | --mutations [MOST] | --suite");
}

int main(int argc, char **argv)
{
    uint64_t from = 0, to = 0, one = 0, most = 0;
    bool verbose = false, suite = false, schedules = false, mutated = false;
    const struct directed *schedule = NULL;
    unsigned jobs = 2, failed = 0, passed = 0;
    double began = seconds();

    for (int i = 1; i < argc; i++) {
        if (strcmp(argv[i], "--verbose") == 0)
            verbose = true;
        else if (strcmp(argv[i], "--suite") == 0)
            suite = true;
        else if (strcmp(argv[i], "--schedules") == 0)
            schedules = true;
        else if (strcmp(argv[i], "--directed") == 0) /* with their mutations, without the seeds */
            schedules = mutated = true;
        else if (strcmp(argv[i], "--schedule") == 0 && i + 1 < argc &&
                 (schedule = directed_named(argv[++i])) != NULL)
            continue;
        else if (strcmp(argv[i], "--seed") == 0 && i + 1 < argc)
            one = strtoull(argv[++i], NULL, 10);
        else if (strcmp(argv[i], "--mutation") == 0 && i + 1 < argc && mutation_named(argv[++i]))
            continue;
        else if (strcmp(argv[i], "--jobs") == 0 && i + 1 < argc)
            jobs = (unsigned)atoi(argv[++i]);
        else if (strcmp(argv[i], "--mutations") == 0)
            most = i + 1 < argc ? strtoull(argv[++i], NULL, 10) : 300;
        else if (strcmp(argv[i], "--seeds") == 0 && i + 1 < argc &&
                 sscanf(argv[++i], "%lu..%lu", &from, &to) == 2)
            continue;
        else {
            usage();
            return 2;
        }
    }
    if (schedule != NULL && one == 0)
        one = 1;
    if (one != 0) {
        char why[512];
        if (!run(schedule, one, verbose, why, sizeof why)) {
            printf("%s seed %llu: %s\n", schedule != NULL ? schedule->name : "random",
                   (unsigned long long)one, why);
            failed = 1;
        }
        printf("writes %u acknowledged %u reads %u epochs opened %u\n", writes, acks, reads, opens);
        passed = 1 - failed;
    }
    if (suite) {
        from = 1;
        to = 1000;
        most = 800;
    }
    if (schedules || suite)
        failed += directed(suite || mutated, &passed);
    if (to >= from && from > 0) {
        double t = seconds();
        unsigned bad = seeds(from, to, jobs);
        failed += bad;
        passed += (unsigned)(to - from + 1) - bad;
        printf("%llu schedules in %.1f s: %.0f a minute\n", (unsigned long long)(to - from + 1),
               seconds() - t, (double)(to - from + 1) * 60 / (seconds() - t));
    }
    if (most > 0)
        failed += mutate(most, suite, &passed);
    printf("%.1f s\n%u passed, %u failed\n", seconds() - began, passed, failed);
    return failed > 0;
}
