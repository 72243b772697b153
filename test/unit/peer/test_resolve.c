/* Lookups that hang keep nobody from the others. getaddrinfo() is this file's own. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <netdb.h>
#include <netinet/in.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "peer/resolve.h"

/* -- a DNS ------------------------------------------------------------------------------------- */

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static pthread_cond_t changed = PTHREAD_COND_INITIALIZER;
static bool hanging;
static unsigned calls, inside;

int getaddrinfo(const char *host, const char *port, const struct addrinfo *hints,
                struct addrinfo **out)
{
    struct sockaddr_in *sin;

    if ((hints->ai_flags & AI_NUMERICHOST) != 0 && strcmp(host, "10.0.0.9") != 0)
        return EAI_NONAME;
    pthread_mutex_lock(&lock);
    calls++;
    inside++;
    pthread_cond_broadcast(&changed);
    while (hanging && strncmp(host, "slow", 4) == 0)
        pthread_cond_wait(&changed, &lock);
    inside--;
    pthread_cond_broadcast(&changed);
    pthread_mutex_unlock(&lock);
    if (strcmp(host, "nobody") == 0)
        return EAI_NONAME;
    *out = calloc(1, sizeof **out);
    sin = calloc(1, sizeof *sin);
    sin->sin_family = AF_INET;
    sin->sin_port = htons((uint16_t)atoi(port));
    **out = (struct addrinfo){.ai_addr = (struct sockaddr *)sin, .ai_addrlen = sizeof *sin};
    return 0;
}

void freeaddrinfo(struct addrinfo *list)
{
    free(list->ai_addr);
    free(list);
}

static void set_hanging(bool v)
{
    pthread_mutex_lock(&lock);
    hanging = v;
    pthread_cond_broadcast(&changed);
    pthread_mutex_unlock(&lock);
}

static void await_inside(unsigned n)
{
    pthread_mutex_lock(&lock);
    while (inside != n)
        pthread_cond_wait(&changed, &lock);
    pthread_mutex_unlock(&lock);
}

/* -- an asker ---------------------------------------------------------------------------------- */

static uv_loop_t loop;
static struct hf_mailbox *mailbox;
static struct hf_resolver *resolver;
static unsigned answered, found;

static int setup(void **s)
{
    (void)s;
    calls = answered = found = 0;
    assert_int_equal(uv_loop_init(&loop), 0);
    mailbox = hf_mailbox_open(&loop);
    resolver = hf_resolver_open();
    return mailbox != NULL && resolver != NULL ? 0 : -1;
}

static int teardown(void **s)
{
    (void)s;
    hf_resolver_mute(resolver);
    hf_mailbox_close(mailbox);
    (void)uv_run(&loop, UV_RUN_DEFAULT);
    assert_int_equal(uv_loop_close(&loop), 0);
    hf_resolver_close(resolver);
    set_hanging(false);
    await_inside(0);
    return 0;
}

static void done(struct hf_question *q)
{
    answered++;
    if (q->answer.len > 0)
        found++;
    free(q);
}

static bool ask(const char *addr)
{
    struct hf_question *q = calloc(1, sizeof *q);

    *q = (struct hf_question){.mailbox = mailbox, .done = done};
    if (hf_resolver_ask(resolver, addr, q))
        return true;
    free(q);
    return false;
}

static void await(unsigned n)
{
    while (answered < n)
        (void)uv_run(&loop, UV_RUN_ONCE);
    assert_int_equal(answered, n);
}

/* ---------------------------------------------------------------------------------------------- */

static void a_slow_name_is_alone(void **s)
{
    (void)s;
    set_hanging(true);
    for (int i = 0; i < 20; i++) {
        char slow[32];
        snprintf(slow, sizeof slow, "slow-%d:7000", i % 10);
        assert_true(ask(slow));
    }
    await_inside(10); /* one lookup for each name, however many ask */
    assert_true(ask("fast:7000"));
    await(1);
    assert_int_equal(found, 1);
    set_hanging(false);
    await(21);
    assert_int_equal(found, 21);
    assert_int_equal(calls, 11);
}

static void the_last_answer_is_kept(void **s)
{
    struct hf_address a;

    (void)s;
    assert_int_equal(hf_resolver_last(resolver, "slow:1").len, 0);
    assert_true(ask("slow:1"));
    await(1);
    set_hanging(true);
    assert_true(ask("slow:1"));
    a = hf_resolver_last(resolver, "slow:1");
    assert_int_equal(a.len, sizeof(struct sockaddr_in));
    assert_int_equal(((struct sockaddr_in *)&a.sa)->sin_port, htons(1));
    assert_true(ask("nobody:1"));
    await(2);
    assert_int_equal(found, 1);
    assert_int_equal(hf_resolver_last(resolver, "nobody:1").len, 0);
}

static void a_limit(void **s)
{
    char slow[32];
    int taken = 0;

    (void)s;
    set_hanging(true);
    for (int i = 0; i < 100; i++) {
        snprintf(slow, sizeof slow, "slow-%d:1", i);
        taken += ask(slow);
    }
    assert_in_range(taken, 32, 64);
    assert_true(ask("slow-0:1"));
    assert_false(ask("fast:1"));
    set_hanging(false);
    await((unsigned)taken + 1);
    assert_true(ask("fast:1")); /* takes the place of one that nobody waits for */
    await((unsigned)taken + 2);
}

static void closing_waits_for_nobody(void **s)
{
    (void)s;
    set_hanging(true);
    assert_true(ask("slow:1"));
    assert_true(ask("slow:1"));
    await_inside(1); /* and teardown closes */
}

static void numbers(void **s)
{
    (void)s;
    assert_int_equal(hf_resolver_number("10.0.0.9:1").len, sizeof(struct sockaddr_in));
    assert_int_equal(hf_resolver_number("slow:1").len, 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(a_slow_name_is_alone, setup, teardown),
        cmocka_unit_test_setup_teardown(the_last_answer_is_kept, setup, teardown),
        cmocka_unit_test_setup_teardown(a_limit, setup, teardown),
        cmocka_unit_test_setup_teardown(closing_waits_for_nobody, setup, teardown),
        cmocka_unit_test_setup_teardown(numbers, setup, teardown),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
