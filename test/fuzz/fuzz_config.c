/* What people configure: flags, networks, addresses, the files of a pod, credentials, PostgreSQL's
 * settings. What is taken keeps its bounds and means what it says. The input: which; then flags and
 * files, with a NUL behind each flag and 0xff behind each file. */
#include "files.h"

#include <arpa/inet.h>
#include <netinet/in.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/net.h"
#include "base/number.h"
#include "pod/identity.h"
#include "postgres/user_settings.h"

/* Nothing is made or removed on this machine. */
#define mkdir(path, mode) 0
#define unlink(path)      0
#include "../../src/node_config.c"
#undef mkdir
#undef unlink

static void address(const char *text)
{
    char host[HF_ADDR_MAX], port[16];
    size_t n = strlen(text);
    uint64_t number;

    if (hf_net_split(text, host, sizeof host, port, sizeof port, NULL) != 0)
        return;
    MUST(host[0] != '\0' && port[0] != '\0' && strlen(host) + strlen(port) < n);
    MUST(strcmp(text + n - strlen(port), port) == 0 && text[n - strlen(port) - 1] == ':');
    if (strspn(port, "0123456789") == strlen(port))
        MUST(hf_number(port, 65535, &number));
}

/* Bit by bit. */
static bool is_in(const struct hf_network *n, const uint8_t a[16])
{
    for (unsigned i = 0; i < n->bits; i++)
        if ((n->address[i / 8] ^ a[i / 8]) & 0x80 >> i % 8)
            return false;
    return true;
}

static void networks(struct input *in)
{
    struct sockaddr_in6 six = {.sin6_family = AF_INET6};
    char *text = input_block(in, 0, NULL), *from;
    struct hf_allow a = {0};
    struct hf_error err;
    bool may = false;

    from = input_block(in, 0, NULL);
    if (hf_allow_add(&a, text, &err) == 0) {
        MUST(a.n <= HF_ALLOW_MAX);
        for (unsigned i = 0; i < 16; i++)
            six.sin6_addr.s6_addr[i] = i < 10   ? 0
                                       : i < 12 ? 0xff
                                                : (uint8_t)from[strlen(from) > i ? i : 0];
        for (unsigned i = 0; i < a.n; i++) {
            MUST(a.networks[i].bits <= 128 && is_in(&a.networks[i], a.networks[i].address));
            may = may || is_in(&a.networks[i], six.sin6_addr.s6_addr);
        }
        MUST(hf_allow_has(&a, (struct sockaddr *)&six) == (may || a.n == 0));
    } else {
        MUST(err.text[0] != '\0');
    }
    address(text);
    free(from);
    free(text);
}

static void pod(struct input *in)
{
    struct hf_pod p = {.name = "demo-1"};
    char *hosts = input_block(in, 0xff, NULL), *resolv = input_block(in, 0xff, NULL);
    char name[HF_NAME_MAX], addr[HF_ADDR_MAX];
    struct hf_error err;

    hf_pod_from_hosts(&p, hosts);
    hf_pod_from_resolv(&p, resolv);
    MUST(strlen(p.service) < HF_LABEL_MAX && strlen(p.namespace) < HF_LABEL_MAX &&
         strlen(p.domain) < HF_DOMAIN_MAX);
    MUST(strchr(p.service, '.') == NULL && strchr(p.namespace, '.') == NULL);
    if (hf_pod_address(&p, 3, 7000, name, addr, &err) == 0)
        MUST(strcmp(name, "demo-3") == 0 && strncmp(addr, "demo-3.", 7) == 0);
    free(hosts);
    free(resolv);
}

/* Where a setting of Holdfast's own is put in between two lines, the file is refused. */
static void settings(struct input *in)
{
    char *text = input_block(in, -1, NULL), *more, *line;
    size_t n = strlen(text), lines = 1, at;
    struct hf_error err;
    unsigned number;

    for (size_t i = 0; i < n; i++)
        lines += text[i] == '\n';
    more = malloc(n + 32);
    MUST(more != NULL);
    if (hf_pg_user_settings_check(text, &err) != 0) {
        MUST(sscanf(err.text, "line %u:", &number) == 1 && number >= 1 && number <= lines);
    } else if (n <= 1024) {
        for (line = text; line != NULL;
             line = strchr(line, '\n') != NULL ? strchr(line, '\n') + 1 : NULL) {
            at = (size_t)(line - text);
            memcpy(more, text, at);
            strcpy(more + at, " fSync\t'off' # no\n");
            strcat(more, line);
            MUST(hf_pg_user_settings_check(more, &err) == HF_EINVAL);
        }
    }
    free(more);
    free(text);
}

/* As postgresql.conf reads it: each line a name and a value in quotes. */
static void check_written(void)
{
    const char *p = written;
    struct hf_error err;

    MUST(hf_pg_user_settings_check(written, &err) == 0 || strstr(err.text, "longer than") != NULL ||
         strstr(err.text, "not of the form") != NULL);
    while (p != NULL && *p != '\0') {
        p += strspn(p, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_.");
        MUST(strncmp(p, " = '", 4) == 0);
        for (p += 4; *p != '\'' || p[1] == '\''; p++) {
            MUST(*p != '\0' && *p != '\n');
            if (*p == '\'' || *p == '\\')
                MUST(p[1] == *p && *p++ != '\0');
        }
        MUST(p[1] == '\n');
        p += 2;
    }
}

static void check_config(const struct hf_node_config *c)
{
    const char *const addresses[] = {c->listen_sql, c->listen_ro, c->listen_peer, c->advertise_sql,
                                     c->advertise_peer};
    char host[HF_ADDR_MAX], port[16];

    MUST(c->ordinal < 10000 && c->expect >= 1 && c->expect <= HF_MEMBERS_MAX &&
         c->n_seeds <= HF_MEMBERS_MAX);
    MUST(c->lease_ms >= HF_LEASE_MS_MIN && c->lease_ms <= HF_LEASE_MS_MAX && c->max_clients >= 1);
    for (unsigned i = 0; i < c->n_seeds; i++)
        MUST(c->seeds[i].name[0] != '\0' &&
             hf_net_split(c->seeds[i].addr, host, sizeof host, port, sizeof port, NULL) == 0);
    MUST(c->n_seeds + c->n_others <= HF_MEMBERS_MAX + 1);
    for (unsigned i = 0; i < c->n_others; i++)
        MUST(c->others[i].name[0] != '\0' &&
             hf_net_split(c->others[i].addr, host, sizeof host, port, sizeof port, NULL) == 0);
    for (unsigned i = 0; i < sizeof addresses / sizeof *addresses; i++)
        MUST(hf_net_split(addresses[i], host, sizeof host, port, sizeof port, NULL) == 0);
    MUST(strlen(c->accounts.app_password) < HF_ACCOUNT_MAX &&
         strlen(c->namespace) < sizeof c->namespace);
    if (written != NULL)
        check_written();
}

static void flags(struct input *in)
{
    static const char *const always[] = {"node", "--dir", "/tmp", "--name", "demo-1"};
    static struct hf_node_config c;
    char *argv[32];
    unsigned n = 0, most = 5 + input_byte(in) % 26;
    struct hf_error err;
    int rv;

    for (; n < 5; n++)
        argv[n] = strdup(always[n]);
    while (n < most && in->n > 0)
        argv[n++] = input_block(in, 0, NULL);
    argv[n] = NULL;
    files = in;
    rv = hf_node_config_parse(&c, (int)n, argv, &err);
    MUST(rv <= 1 && written == NULL);
    if (rv == 0)
        rv = hf_node_config_write(&c, &err);
    if (rv == 0)
        check_config(&c);
    else if (rv < 0)
        MUST(err.text[0] != '\0');
    for (unsigned i = 0; i < n; i++)
        free(argv[i]);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct input in = {data, size};

    switch (input_byte(&in) % 4) {
    case 0:
        networks(&in);
        break;
    case 1:
        pod(&in);
        break;
    case 2:
        settings(&in);
        break;
    default:
        flags(&in);
    }
    files_forget();
    return 0;
}
