#include "pod/identity.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/file.h"

enum { TEXT_MAX = 256 * 1024 };

bool hf_pod_inside(void)
{
    const char *v = getenv("KUBERNETES_SERVICE_HOST");

    return v != NULL && v[0] != '\0';
}

static bool take(char *out, size_t cap, const char *from, size_t len)
{
    if (out[0] != '\0' || len == 0 || len >= cap)
        return false;
    memcpy(out, from, len);
    out[len] = '\0';
    return true;
}

/* service.namespace.svc[.domain] */
static bool take_service(struct hf_pod *p, const char *rest)
{
    const char *dot = strchr(rest, '.'), *svc = dot != NULL ? strstr(dot + 1, ".svc") : NULL;

    if (svc == NULL || (svc[4] != '.' && svc[4] != '\0') ||
        memchr(dot + 1, '.', (size_t)(svc - dot - 1)) != NULL)
        return false;
    (void)take(p->service, sizeof p->service, rest, (size_t)(dot - rest));
    (void)take(p->namespace, sizeof p->namespace, dot + 1, (size_t)(svc - dot - 1));
    if (svc[4] == '.')
        (void)take(p->domain, sizeof p->domain, svc + 5, strlen(svc + 5));
    return true;
}

void hf_pod_from_hosts(struct hf_pod *p, const char *hosts)
{
    size_t n = strlen(p->name);
    char *copy = strdup(hosts), *rest, *word;

    for (word = copy != NULL ? strtok_r(copy, " \t\r\n", &rest) : NULL; word != NULL && n > 0;
         word = strtok_r(NULL, " \t\r\n", &rest))
        if (strncmp(word, p->name, n) == 0 && word[n] == '.' && take_service(p, word + n + 1))
            break;
    free(copy);
}

void hf_pod_from_resolv(struct hf_pod *p, const char *resolv)
{
    char *copy = strdup(resolv), *lines, *words, *line, *word;

    for (line = copy != NULL ? strtok_r(copy, "\r\n", &lines) : NULL; line != NULL;
         line = strtok_r(NULL, "\r\n", &lines)) {
        if (strncmp(line, "search", 6) != 0)
            continue;
        for (word = strtok_r(line + 6, " \t", &words); word != NULL;
             word = strtok_r(NULL, " \t", &words)) {
            const char *svc = strstr(word, ".svc.");
            if (svc == NULL || svc == word || memchr(word, '.', (size_t)(svc - word)) != NULL)
                continue;
            (void)take(p->namespace, sizeof p->namespace, word, (size_t)(svc - word));
            (void)take(p->domain, sizeof p->domain, svc + 5, strlen(svc + 5));
            break;
        }
    }
    free(copy);
}

void hf_pod_complete(struct hf_pod *p)
{
    char host[256] = "", *text;
    size_t len;

    if (p->name[0] == '\0' && gethostname(host, sizeof host - 1) == 0)
        (void)take(p->name, sizeof p->name, host, strcspn(host, "."));
    if (hf_file_read("/etc/hosts", TEXT_MAX, &text, &len, NULL) == 0) {
        hf_pod_from_hosts(p, text);
        free(text);
    }
    if (hf_file_read("/etc/resolv.conf", TEXT_MAX, &text, &len, NULL) == 0) {
        hf_pod_from_resolv(p, text);
        free(text);
    }
}

int hf_pod_address(const struct hf_pod *p, unsigned ordinal, unsigned port, char name[HF_NAME_MAX],
                   char addr[HF_ADDR_MAX], struct hf_error *err)
{
    const char *dash = strrchr(p->name, '-');
    int n = dash == NULL
                ? -1
                : snprintf(name, HF_NAME_MAX, "%.*s-%u", (int)(dash - p->name), p->name, ordinal);

    if (n < 0 || n >= HF_NAME_MAX)
        return hf_fail(err, HF_EINVAL, "pod %s: no name for ordinal %u", p->name, ordinal);
    n = snprintf(addr, HF_ADDR_MAX, "%s.%s.%s.svc:%u", name, p->service, p->namespace, port);
    if (n >= HF_ADDR_MAX)
        return hf_fail(err, HF_EINVAL,
                       "pod %s: its name, service and namespace are too long together (hint: a "
                       "shorter one)",
                       p->name);
    return 0;
}
