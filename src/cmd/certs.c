/* holdfast certs: the certificates of a cluster that `holdfast up` does not run: made, checked,
 * rotated, and printed as a Secret for Kubernetes. */
#include "cmd/cmd.h"

#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "base/cert.h"
#include "base/file.h"
#include "cmd/certs.h"

enum { NAMES_MAX = HF_MEMBERS_MAX + 2 * HF_DOMAINS_MAX + HF_OPTION_LIST_MAX, DAYS_MAX = 3650 };

struct certs {
    char dir[HF_PATH_MAX], name[HF_NAME_MAX], service[64], namespace[64], domain[HF_DOMAIN_MAX];
    char secret[HF_DOMAIN_MAX], role[HF_NAME_MAX];
    struct hf_option_list extra;
    unsigned days, min_days;
    bool ca, forget, json;
};

/* -- make -------------------------------------------------------------------------------------- */

struct names {
    unsigned n;
    const char *list[NAMES_MAX];
    char text[NAMES_MAX][2 * HF_DOMAIN_MAX];
};

static void add_name(struct names *s, const char *front, const char *back)
{
    if (s->n == NAMES_MAX)
        return;
    (void)snprintf(s->text[s->n], sizeof s->text[s->n], "%s%s", front, back);
    s->list[s->n] = s->text[s->n];
    s->n++;
}

/* Every pod by its short name, every pod by wildcard in each domain, the service itself. No IP: a
 * pod's changes. */
static int pod_names(const struct certs *c, struct names *s, struct hf_error *err)
{
    struct hf_domains d;
    char name[2 * HF_NAME_MAX];

    if (!hf_domains_of_service(&d, c->service[0] != '\0' ? c->service : c->name, c->namespace,
                               c->domain))
        return hf_fail(err, HF_EINVAL,
                       "the service's name, namespace and domain are too long together");
    for (unsigned i = 0; i < HF_MEMBERS_MAX; i++) {
        (void)snprintf(name, sizeof name, "%s-%u", c->name, i);
        if (strlen(name) >= HF_NAME_MAX)
            return hf_fail(err, HF_EINVAL, "--name %s: too long", c->name);
        add_name(s, name, "");
    }
    for (unsigned i = 0; i < d.n; i++) {
        if (strchr(d.text[i], '.') != NULL) /* OpenSSL matches no "*.service" */
            add_name(s, "*.", d.text[i]);
        add_name(s, d.text[i], "");
    }
    for (unsigned i = 0; i < c->extra.n; i++)
        add_name(s, c->extra.items[i], "");
    return 0;
}

static int make(const struct certs *c, struct hf_error *err)
{
    static struct names s;
    struct hf_cert_wish w = {.names = s.list, .days = (int)c->days};
    char common[HF_NAME_MAX + 8];
    int rv = pod_names(c, &s, err);

    (void)snprintf(common, sizeof common, "%s nodes", c->name);
    w.n = s.n;
    w.common_name = common;
    if (rv == 0)
        rv = hf_dir_make(c->dir, 0700, err);
    if (rv == 0)
        rv = hf_cert_make_ca(c->dir, c->name, err);
    if (rv == 0)
        rv = hf_cert_make(c->dir, c->dir, &w, err);
    if (rv == 0 && c->secret[0] == '\0')
        printf("%s: ca.crt, ca.key (keep it away from the cluster), node.crt, node.key\n", c->dir);
    return rv;
}

static int make_client(const struct certs *c, struct hf_error *err)
{
    struct hf_cert_wish w = {
        .common_name = c->role, .stem = c->role, .days = (int)c->days, .client = true};
    int rv;

    if (c->role[0] == '\0' || strpbrk(c->role, "/.") != NULL)
        return hf_fail(err, HF_EINVAL, "--role: a role's name is needed, without / and .");
    if (strcmp(c->role, "ca") == 0 || strcmp(c->role, "node") == 0 || strcmp(c->role, "tls") == 0)
        return hf_fail(err, HF_EINVAL,
                       "--role %s: its files would take the place of the cluster's own", c->role);
    rv = hf_cert_make(c->dir, c->dir, &w, err);
    if (rv == 0)
        printf("%s/%s.crt, %s/%s.key\n", c->dir, c->role, c->dir, c->role);
    return rv;
}

/* -- rotate ------------------------------------------------------------------------------------ */

/* The names of the certificate that is there, so that nobody has to say them again. */
static int same_names(const char *path, struct names *s, char *common, size_t cap,
                      struct hf_error *err)
{
    X509 *cert = hf_cert_read(path, err);

    if (cert == NULL)
        return HF_ETLS;
    (void)X509_NAME_get_text_by_NID(X509_get_subject_name(cert), NID_commonName, common, (int)cap);
    s->n = hf_certs_names(cert, s->text, s->list, NAMES_MAX);
    X509_free(cert);
    return s->n > 0
               ? 0
               : hf_fail(err, HF_EINVAL, "%s has no names (hint: `holdfast certs make`)", path);
}

static int rotate(const struct certs *c, struct hf_error *err)
{
    static struct names s;
    struct hf_cert_wish w = {.names = s.list, .days = (int)c->days};
    char common[HF_DOMAIN_MAX] = "", path[HF_PATH_MAX + 16];
    int rv;

    if (c->ca && c->forget)
        return hf_fail(err, HF_EINVAL,
                       "--ca and --forget are two steps, with a `rotate` between them");
    if (c->ca)
        rv = hf_cert_renew_ca(c->dir, err);
    else if (c->forget)
        rv = hf_cert_forget_ca(c->dir, err);
    else {
        (void)snprintf(path, sizeof path, "%s/node.crt", c->dir);
        rv = same_names(path, &s, common, sizeof common, err);
        w.n = s.n;
        w.common_name = common;
        if (rv == 0)
            rv = hf_cert_make(c->dir, c->dir, &w, err);
    }
    if (rv == 0 && c->secret[0] == '\0')
        puts(
            c->ca
                ? "a new authority is trusted beside the old one: once every node has this ca.crt, "
                  "`holdfast certs rotate`, then `holdfast certs rotate --forget`"
            : c->forget
                ? "only the newest authority is trusted"
                : "a new certificate and key: nodes take them within seconds of seeing the files");
    return rv;
}

/* ---------------------------------------------------------------------------------------------- */

static int check(const struct certs *c, struct hf_error *err)
{
    struct hf_domains d = {0};

    if (c->service[0] != '\0' && !hf_domains_of_service(&d, c->service, c->namespace, c->domain))
        return hf_fail(err, HF_EINVAL,
                       "the service's name, namespace and domain are too long together");
    return hf_certs_check(c->dir, c->name, &d, c->min_days, c->json);
}

static int run(const struct certs *c, const char *what, struct hf_error *err)
{
    bool secret = c->secret[0] != '\0';
    int rv;

    if (strcmp(what, "make") == 0 && c->name[0] == '\0')
        rv = hf_fail(err, HF_EINVAL, "make: --name is missing: the StatefulSet's name");
    else if (strcmp(what, "make") == 0)
        rv = make(c, err);
    else if (strcmp(what, "client") == 0)
        return make_client(c, err);
    else if (strcmp(what, "check") == 0)
        return check(c, err);
    else if (strcmp(what, "rotate") == 0)
        rv = rotate(c, err);
    else if (strcmp(what, "secret") == 0)
        rv = secret ? 0 : hf_fail(err, HF_EINVAL, "secret: --secret NAME is missing");
    else
        return hf_fail(err, HF_EINVAL, "'%s' is none of make, client, check, rotate, secret", what);
    if (rv == 0 && secret)
        rv = hf_certs_print_secret(c->dir, c->secret, c->namespace, err);
    return rv;
}

int hf_cmd_certs(int argc, char **argv)
{
    static struct certs c = {.dir = "pki"};
    struct hf_operands what = {.max = 1};
    const struct hf_option o[] = {
        {"dir", 0, HF_OPT_TEXT, c.dir, sizeof c.dir, 0, 0, NULL, "DIR",
         "where they lie (default pki)"},
        {"name", 0, HF_OPT_TEXT, c.name, sizeof c.name, 0, 0, NULL, "NAME",
         "make: the StatefulSet, as demo; check: a node, as demo-0"},
        {"service", 0, HF_OPT_TEXT, c.service, sizeof c.service, 0, 0, NULL, "NAME",
         "the headless service (default: --name)"},
        {"namespace", 0, HF_OPT_TEXT, c.namespace, sizeof c.namespace, 0, 0, NULL, "NAME",
         "Kubernetes' namespace"},
        {"cluster-domain", 0, HF_OPT_TEXT, c.domain, sizeof c.domain, 0, 0, NULL, "DOMAIN",
         "Kubernetes' domain, as cluster.local"},
        {"also", 0, HF_OPT_LIST, &c.extra, 0, 0, 0, NULL, "DNSNAME",
         "make: one more name; may be repeated"},
        {"days", 0, HF_OPT_NUMBER, &c.days, 0, 1, DAYS_MAX, NULL, "N",
         "life of a new certificate (default 730)"},
        {"role", 0, HF_OPT_TEXT, c.role, sizeof c.role, 0, 0, NULL, "ROLE",
         "client: whose certificate"},
        {"ca", 0, HF_OPT_FLAG, &c.ca, 0, 0, 0, NULL, NULL,
         "rotate: a new authority, trusted beside the old one"},
        {"forget", 0, HF_OPT_FLAG, &c.forget, 0, 0, 0, NULL, NULL,
         "rotate: trust the newest authority alone"},
        {"secret", 0, HF_OPT_TEXT, c.secret, sizeof c.secret, 0, 0, NULL, "NAME",
         "make, rotate, secret: print a Secret of Kubernetes with this name"},
        {"min-days", 0, HF_OPT_NUMBER, &c.min_days, 0, 0, DAYS_MAX, NULL, "N",
         "check: fail if fewer are left (default 0)"},
        {"json", 0, HF_OPT_FLAG, &c.json, 0, 0, 0, NULL, NULL, "check: print JSON"},
    };
    const struct hf_usage u = {"make|client|check|rotate|secret [--dir DIR] [flags]",
                               "make     an authority (ca.crt, ca.key; kept if there is one) and a "
                               "certificate for all nodes\n"
                               "         (node.crt, node.key), with every name that Kubernetes "
                               "gives to the StatefulSet's pods\n"
                               "client   a certificate for one role: ROLE.crt, ROLE.key\n"
                               "check    is the certificate valid, signed, for that node, and for "
                               "how long? also of a mounted\n"
                               "         Secret (tls.crt, tls.key)\n"
                               "rotate   a new certificate with the same names. Nodes take it "
                               "without a restart. For a new\n"
                               "         authority: rotate --ca, rotate, rotate --forget, each "
                               "when all nodes have the one before\n"
                               "secret   print what is there as a Secret: holdfast certs secret "
                               "--secret NAME | kubectl apply -f -\n",
                               o, sizeof o / sizeof *o};
    struct hf_error err = {0};
    int status, rv;

    if (!hf_cmd_parse(argc, argv, &u, &what, &status))
        return status;
    if (what.n == 0)
        return hf_cmd_wrong_usage("certs", "make, client, check, rotate or secret?");
    rv = run(&c, what.items[0], &err);
    if (rv == HF_EINVAL)
        return hf_cmd_wrong_usage("certs", err.text);
    if (rv == 0)
        return 0;
    return err.text[0] != '\0' ? hf_cmd_fail(&err) : 1;
}
