/* Who gets a tunnel: certificates, names, clusters, the host's word; and what the refused one is told. */
#include "pair.h"

#include <arpa/inet.h>
#include <errno.h>
#include <netinet/tcp.h>
#include <poll.h>

#include "base/net.h"

/* Dials and expects to be turned away, with a text that says why; nothing of it reaches the host. */
static void refused(struct pair *p, const char *name, enum hf_purpose purpose, int status, const char *why)
{
    struct dialed d;
    int near = tunnel_dial_to(p, name, p->b.addr, purpose, &d);

    WAIT(p, d.opened == 1);
    assert_int_equal(d.status, status);
    if (strstr(d.text, why) == NULL)
        fail_msg("'%s' does not say '%s'", d.text, why);
    hear_end(p, near);
    close(near);
    assert_int_equal(p->b.tunnels, 0);
    assert_int_equal(d.closed, 0); /* opened has told the end */
}

static void welcome(struct pair *p, enum hf_purpose purpose)
{
    struct dialed d;
    int near, far;

    tunnel_open(p, purpose, &d, &near, &far);
    say(near, "hi", 2);
    hear(p, far, "hi", 2);
    close(near);
    close(far);
    WAIT(p, d.closed == 1);
    p->b.tunnels = 0;
}

static void reopen_a(struct pair *p, const char *name, const char *tls)
{
    node_close(&p->a);
    node_open(p, &p->a, name, tls, false);
}

/* -- certificates ------------------------------------------------------------------------------------ */

static void test_another_authority(void **state)
{
    struct pair *p = pair_open(false);

    (void)state;
    reopen_a(p, "a", "tls/foreign");
    refused(p, "b", HF_PURPOSE_SQL, HF_ETLS, "certificate");
    refused(p, "b", HF_PURPOSE_ADMIN, HF_ETLS, "certificate");
    reopen_a(p, "a", "tls/a");
    welcome(p, HF_PURPOSE_SQL);
    welcome(p, HF_PURPOSE_ADMIN);
    pair_close(p);
}

/* It knows the right authority, which is no secret, but was not signed by it: the acceptor finds out. Its alert may be
 * lost with the connection, if the dialer has already said more (TLS 1.3). */
static void test_a_forged_certificate(void **state)
{
    struct pair *p = pair_open(false);

    (void)state;
    reopen_a(p, "a", "tls/forged");
    refused(p, "b", HF_PURPOSE_SQL, HF_ETLS, "");
    pair_close(p);
}

static void test_not_whom_we_wanted(void **state)
{
    struct pair *p = pair_open(false);

    (void)state;
    refused(p, "c", HF_PURPOSE_SQL, HF_ETLS, "hostname mismatch");
    pair_close(p);
}

static void test_a_name_that_is_not_in_the_certificate(void **state)
{
    struct pair *p = pair_open(false);

    (void)state;
    reopen_a(p, "z", "tls/a");
    refused(p, "b", HF_PURPOSE_WAL, HF_EREFUSED, "b refuses: the certificate does not carry the name z");
    pair_close(p);
}

/* -- clusters ---------------------------------------------------------------------------------------- */

static void test_another_cluster(void **state)
{
    static const struct hf_uuid none;
    struct pair *p = pair_open(false);
    struct hf_uuid ours = p->a.self.cluster_id;

    (void)state;
    memset(&p->a.self.cluster_id, 0xd2, sizeof ours);
    hf_peer_identify(p->a.peer, &p->a.self);
    refused(p, "b", HF_PURPOSE_RAFT, HF_EREFUSED, "b refuses: cluster id d2d2d2d2.. of a is not c1c1c1c1.. of b");
    refused(p, "b", HF_PURPOSE_CONTROL, HF_EREFUSED, "cluster id");
    refused(p, "b", HF_PURPOSE_ADMIN, HF_EREFUSED, "cluster id");
    /* Who has none yet may ask to join, and who lost it may be asked. */
    p->a.self.cluster_id = none;
    hf_peer_identify(p->a.peer, &p->a.self);
    welcome(p, HF_PURPOSE_COPY);
    memset(&p->a.self.cluster_id, 0xd2, sizeof ours);
    hf_peer_identify(p->a.peer, &p->a.self);
    refused(p, "b", HF_PURPOSE_COPY, HF_EREFUSED, "cluster id");
    p->a.self.cluster_id = ours;
    hf_peer_identify(p->a.peer, &p->a.self);
    welcome(p, HF_PURPOSE_RAFT);
    pair_close(p);
}

/* -- the host's word --------------------------------------------------------------------------------- */

static void test_the_host_refuses(void **state)
{
    struct pair *p = pair_open(false);
    struct dialed d;
    int near;

    (void)state;
    p->b.answer = REFUSE;
    near = tunnel_dial(p, HF_PURPOSE_COPY, &d);
    WAIT(p, d.opened == 1);
    assert_int_equal(d.status, HF_EREFUSED);
    assert_string_equal(d.text, "b refuses: not today");
    hear_end(p, near);
    close(near);
    pair_close(p);
}

/* Until the host has answered not a byte passes. */
static void test_the_host_thinks(void **state)
{
    struct pair *p = pair_open(false);
    struct dialed d;
    int near;

    (void)state;
    p->b.answer = HOLD;
    near = tunnel_dial(p, HF_PURPOSE_WAL, &d);
    say(near, "early", 5);
    WAIT(p, p->b.held != NULL);
    hear_nothing(p, near);
    assert_int_equal(d.opened, 0);
    answer_held(&p->b, ACCEPT, NULL);
    WAIT(p, d.opened == 1);
    assert_int_equal(d.status, 0);
    hear(p, p->b.far, "early", 5);
    close(near);
    hear_end(p, p->b.far);
    close(p->b.far);
    pair_close(p);
}

static void count_cb(void *arg)
{
    ++*(unsigned *)arg;
}

/* The dialer is cut off meanwhile: the answer, whatever it is, finds nobody. */
static void gives_up(enum answer answer)
{
    struct pair *p = pair_open(false);
    struct dialed d;
    unsigned cuts = 0;
    int near;

    p->b.answer = HOLD;
    near = tunnel_dial(p, HF_PURPOSE_WAL, &d);
    WAIT(p, p->b.held != NULL);
    hf_peer_cut(p->a.peer, HF_PURPOSE_WAL, true, count_cb, &cuts);
    WAIT(p, cuts == 1 && d.opened == 1);
    assert_int_equal(d.status, HF_ECLOSED);
    hear_end(p, near);
    answer_held(&p->b, answer, "too late");
    if (answer == ACCEPT) {
        hear_end(p, p->b.far);
        close(p->b.far);
    }
    close(near);
    pair_close(p);
}

static void test_the_dialer_gives_up(void **state)
{
    (void)state;
    gives_up(ACCEPT);
    gives_up(REFUSE);
}

/* -- nobody there ------------------------------------------------------------------------------------ */

static void test_nobody_listens(void **state)
{
    struct pair *p = pair_open(false);
    struct dialed d;
    char addr[HF_ADDR_MAX];
    int near;

    (void)state;
    free_address(addr, sizeof addr);
    near = tunnel_dial_to(p, "b", addr, HF_PURPOSE_SQL, &d);
    WAIT(p, d.opened == 1);
    assert_int_equal(d.status, HF_EREFUSED);
    assert_non_null(strstr(d.text, "refused"));
    hear_end(p, near);
    close(near);
    near = tunnel_dial_to(p, "b", "no port", HF_PURPOSE_SQL, &d);
    WAIT(p, d.opened == 1);
    assert_int_equal(d.status, HF_EINVAL);
    hear_end(p, near);
    close(near);
    pair_close(p);
}

/* What is no TLS, or is half a hello, ends that connection and nothing else. */
static void test_noise_at_the_port(void **state)
{
    static const char *const noises[] = {"GET / HTTP/1.1\r\n\r\n", "HTTP", "\x16\x03\x01\xff\xff....", "\0\0\0\0"};
    struct pair *p = pair_open(false);
    struct sockaddr_storage to;
    socklen_t len;

    (void)state;
    assert_int_equal(hf_net_resolve(p->b.addr, &to, &len, NULL), 0);
    for (unsigned i = 0; i < sizeof noises / sizeof noises[0]; i++) {
        int fd = hf_net_connect((struct sockaddr *)&to, len, NULL);
        struct pollfd f = {.fd = fd, .events = POLLOUT};
        assert_true(fd >= 0);
        assert_int_equal(poll(&f, 1, PATIENCE_MS), 1);
        say(fd, noises[i], i == 2 ? 9 : 4);
        if (i == 2)
            (void)shutdown(fd, SHUT_WR); /* a record that never ends */
        for (ssize_t n = 1; n > 0 || (n < 0 && errno == EAGAIN);) { /* an alert, then the end */
            char bytes[64];
            f.events = POLLIN;
            assert_int_equal(poll(&f, 1, PATIENCE_MS), 1);
            n = recv(fd, bytes, sizeof bytes, 0);
        }
        close(fd);
    }
    assert_int_equal(p->b.tunnels, 0);
    welcome(p, HF_PURPOSE_SQL);
    pair_close(p);
}

/* -- patience ---------------------------------------------------------------------------------------- */

/* Of this process's connections over TCP, how many does the kernel end because nobody reads for long? */
static unsigned impatient(void)
{
    unsigned n = 0;

    for (int fd = 3; fd < 512; fd++) {
        struct sockaddr_in sa;
        socklen_t len = sizeof sa;
        unsigned ms = 0;
        if (getpeername(fd, (struct sockaddr *)&sa, &len) != 0 || sa.sin_family != AF_INET)
            continue;
        len = sizeof ms;
        n += getsockopt(fd, IPPROTO_TCP, TCP_USER_TIMEOUT, &ms, &len) == 0 && ms > 0;
    }
    return n;
}

/* A client may look at its first rows for an hour, and a copy wait for a disk. What TCP_USER_TIMEOUT bounds is not
 * only a peer that has vanished, but also one that has no room (tcp(7); the kernel's tcp_probe_timer). */
static void test_who_reads_slowly_is_not_cut_off(void **state)
{
    static const enum hf_purpose purposes[] = {HF_PURPOSE_SQL, HF_PURPOSE_COPY, HF_PURPOSE_WAL};

    (void)state;
    for (int i = 0; i < 3; i++) {
        struct pair *p = pair_open(false);
        struct dialed d;
        int near, far;
        tunnel_open(p, purposes[i], &d, &near, &far);
        say(near, "open", 4);
        hear(p, far, "open", 4); /* both ends are */
        assert_int_equal(impatient(), 0);
        close(near);
        close(far);
        pair_close(p);
    }
}

/* Who reads these never stops, so who does not take them is gone. */
static void test_raft_is_told_of_the_vanished(void **state)
{
    struct pair *p = pair_open(false);
    struct dialed d;
    int near, far;

    (void)state;
    tunnel_open(p, HF_PURPOSE_RAFT, &d, &near, &far);
    say(near, "open", 4);
    hear(p, far, "open", 4); /* both ends are */
    assert_int_equal(impatient(), 2);
    close(near);
    close(far);
    pair_close(p);
}

/* Of another version, which has types that this one has not; then what is no message at all. */
static void test_a_message_of_a_later_version(void **state)
{
    struct hf_msg m = {.type = HF_MSG_PING, .from = 1, .to = 2, .seq = 77};
    uint8_t frame[4 + HF_MSG_BYTES_MAX] = {0}, token[HF_DEATH_TOKEN_BYTES];
    struct pair *p = pair_open(false);
    struct dialed d;
    unsigned before;
    size_t n;
    int near;

    (void)state;
    n = hf_msg_encode(&m, frame + 4);
    frame[0] = (uint8_t)n;
    near = tunnel_dial(p, HF_PURPOSE_CONTROL, &d);
    WAIT(p, d.opened == 1);
    assert_int_equal(d.status, 0);
    WAIT(p, recv(near, token, sizeof token, MSG_DONTWAIT | MSG_PEEK) == sizeof token);
    before = p->b.downs;
    frame[5] = HF_MSG_LAST + 1;
    say(near, frame, n + 4);
    frame[5] = HF_MSG_PING;
    say(near, frame, n + 4);
    WAIT(p, p->b.last_seq == 77);
    assert_int_equal(p->b.downs, before);
    frame[5] = 0;
    say(near, frame, n + 4);
    WAIT(p, p->b.downs == before + 1);
    close(near);
    pair_close(p);
}

/* A frozen node's kernel accepts connections; its program never answers. Begun first, looked at last. */
static struct {
    struct pair *p;
    int listener, near, dumb;
    struct dialed d;
} silence;

static void test_silence_begins(void **state)
{
    struct sockaddr_storage to;
    socklen_t len;
    char addr[HF_ADDR_MAX];
    struct pollfd f;

    (void)state;
    silence.p = pair_open(false);
    free_address(addr, sizeof addr);
    silence.listener = hf_net_listen(addr, NULL);
    assert_true(silence.listener >= 0);
    silence.near = tunnel_dial_to(silence.p, "b", addr, HF_PURPOSE_WAL, &silence.d);
    assert_int_equal(hf_net_resolve(silence.p->b.addr, &to, &len, NULL), 0);
    silence.dumb = hf_net_connect((struct sockaddr *)&to, len, NULL);
    f = (struct pollfd){.fd = silence.dumb, .events = POLLOUT};
    assert_int_equal(poll(&f, 1, PATIENCE_MS), 1);
}

static void test_silence_is_noticed(void **state)
{
    (void)state;
    WAIT(silence.p, silence.d.opened == 1);
    assert_int_equal(silence.d.status, HF_ETIMEOUT);
    assert_string_equal(silence.d.text, "the other node does not answer");
    hear_end(silence.p, silence.near);
    hear_end(silence.p, silence.dumb);
    assert_int_equal(silence.p->b.tunnels, 0);
    close(silence.near);
    close(silence.dumb);
    close(silence.listener);
    pair_close(silence.p);
}

static unsigned still_open(const int *fds, unsigned n)
{
    unsigned open = 0;
    char b;

    for (unsigned i = 0; i < n; i++)
        open += recv(fds[i], &b, 1, MSG_DONTWAIT) < 0 && errno == EAGAIN;
    return open;
}

/* Connections of people who say nothing, more than a node keeps of those: the oldest go, and a node gets in at once. */
static void test_many_strangers(void **state)
{
    enum { MANY = 300 };
    struct pair *p = pair_open(false);
    struct sockaddr_storage to;
    socklen_t len;
    struct dialed d = {0};
    int fds[MANY], near, far;
    uint64_t began;

    (void)state;
    assert_int_equal(hf_net_resolve(p->b.addr, &to, &len, NULL), 0);
    for (unsigned i = 0; i < MANY; i++) {
        fds[i] = hf_net_connect((struct sockaddr *)&to, len, NULL);
        assert_true(fds[i] >= 0);
    }
    began = uv_hrtime();
    hear_end(p, fds[0]); /* long before it would have had to say something */
    assert_true(uv_hrtime() - began < 2500 * 1000000ull);
    tunnel_open(p, HF_PURPOSE_SQL, &d, &near, &far);
    WAIT(p, still_open(fds, MANY) <= 256); /* the kernel may have some yet that nobody has taken */
    assert_true(still_open(fds, MANY) >= 100);
    for (unsigned i = 0; i < MANY; i++)
        close(fds[i]);
    close(near);
    close(far);
    pair_close(p);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_many_strangers),
        cmocka_unit_test(test_who_reads_slowly_is_not_cut_off),
        cmocka_unit_test(test_a_message_of_a_later_version),
        cmocka_unit_test(test_raft_is_told_of_the_vanished),
        cmocka_unit_test(test_silence_begins),
        cmocka_unit_test(test_another_authority),
        cmocka_unit_test(test_a_forged_certificate),
        cmocka_unit_test(test_not_whom_we_wanted),
        cmocka_unit_test(test_a_name_that_is_not_in_the_certificate),
        cmocka_unit_test(test_another_cluster),
        cmocka_unit_test(test_the_host_refuses),
        cmocka_unit_test(test_the_host_thinks),
        cmocka_unit_test(test_the_dialer_gives_up),
        cmocka_unit_test(test_nobody_listens),
        cmocka_unit_test(test_noise_at_the_port),
        cmocka_unit_test(test_silence_is_noticed),
    };

    return cmocka_run_group_tests(tests, certificates_make, certificates_remove);
}
