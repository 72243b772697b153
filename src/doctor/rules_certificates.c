/* Certificates that pods mount: by cert-manager, or in Secrets and ConfigMaps. */
#include "doctor/private.h"

#include <openssl/evp.h>
#include <openssl/pem.h>
#include <openssl/x509v3.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

enum { EXPIRES_SOON_DAYS = 30, PEM_MAX = 1024 * 1024, NAMES_MAX = 512 };

/* Does a certificate for `pattern` (with at most one star, in front) carry this name? */
static bool name_fits(const char *pattern, const char *name)
{
    const char *dot;

    if (strncmp(pattern, "*.", 2) != 0)
        return strcasecmp(pattern, name) == 0;
    dot = strchr(name, '.');
    return dot != NULL && strcasecmp(pattern + 1, dot) == 0;
}

struct names {
    const char *items[NAMES_MAX];
    size_t n;
};

/* The first form of a pod's name that replicas may use and the certificate lacks; NULL: some form is complete. A
 * certificate is right if one form works for every pod: the short name, or with the Service, or all of it. */
static const char *missing_name(const struct hf_workload *w, const struct names *names, char *out, size_t cap)
{
    enum { FORMS = 5 }; /* pod, pod.service, .namespace, .svc, .cluster.local */
    const char *service = hf_yaml_text(hf_yaml_get(w->spec, "serviceName"));
    const char *space = w->o->namespace[0] != '\0' ? w->o->namespace : "default";
    long n = w->replicas < 1 ? 1 : w->replicas > 64 ? 64 : w->replicas;
    char name[512];

    if (service == NULL)
        return NULL;
    out[0] = '\0';
    for (unsigned f = 0; f < FORMS; f++) {
        bool all = true;
        for (long i = 0; i < n && all; i++) {
            bool found = false;
            int len = snprintf(name, sizeof name, "%.200s-%ld", w->o->name, i);
            if (f >= 1)
                len += snprintf(name + len, sizeof name - (size_t)len, ".%.100s", service);
            if (f >= 2)
                len += snprintf(name + len, sizeof name - (size_t)len, ".%.100s", space);
            if (f >= 3)
                len += snprintf(name + len, sizeof name - (size_t)len, ".svc");
            if (f >= 4)
                (void)snprintf(name + len, sizeof name - (size_t)len, ".cluster.local");
            for (size_t k = 0; k < names->n && !found; k++)
                found = name_fits(names->items[k], name);
            all = found;
            if (!found)
                (void)snprintf(out, cap, "%s", name);
        }
        if (all)
            return NULL;
    }
    return out;
}

static bool is_wanted(const struct hf_workload *w)
{
    return w->kind == HF_WORKLOAD_STATEFULSET && w->replicas > 1;
}

static void advise_names(struct hf_ctx *c, const struct hf_workload *w, struct hf_finding *f)
{
    const char *service = hf_yaml_text(hf_yaml_get(w->spec, "serviceName"));
    const char *space = w->o->namespace[0] != '\0' ? w->o->namespace : "default";

    hf_advise(c, f, "dnsNames:\n  - \"*.%s\"\n  - \"*.%s.%s\"\n  - \"*.%s.%s.svc\"\n  - \"*.%s.%s.svc.cluster.local\"\n",
              service, service, space, service, space, service, space);
}

/* -- cert-manager ------------------------------------------------------------------------------------ */

static void check_request(struct hf_ctx *c, const struct hf_workload *w, const struct hf_kube_object *o)
{
    struct hf_yaml spec = hf_yaml_get(o->root, "spec"), list = hf_yaml_get(spec, "dnsNames");
    struct names names = {.n = 0};
    const char *lacks;
    char name[512];

    if (hf_yaml_count(hf_yaml_get(spec, "ipAddresses")) > 0)
        hf_report(c, "HF090", o, hf_place(spec, "ipAddresses"), "ipAddresses in the certificate of %s", w->o->name);
    for (size_t i = 0; i < hf_yaml_count(list) && names.n < NAMES_MAX; i++)
        if (hf_yaml_text(hf_yaml_item(list, i)) != NULL)
            names.items[names.n++] = hf_yaml_text(hf_yaml_item(list, i));
    if (!is_wanted(w) || hf_yaml_bool(hf_yaml_get(spec, "isCA"), false))
        return;
    lacks = missing_name(w, &names, name, sizeof name);
    if (lacks != NULL)
        advise_names(c, w, hf_report(c, "HF091", o, hf_place(spec, "dnsNames"), "no dnsNames for %s", lacks));
}

/* -- certificates themselves ------------------------------------------------------------------------- */

static X509 *read_certificate(const char *text, bool coded)
{
    size_t len = strlen(text);
    unsigned char *pem = NULL;
    X509 *x = NULL;
    BIO *bio;

    if (len == 0 || len > PEM_MAX)
        return NULL;
    if (coded) {
        char *clean = malloc(len + 1);
        size_t n = 0;
        int got = -1;
        pem = malloc(len + 4);
        for (size_t i = 0; clean != NULL && text[i] != '\0'; i++)
            if (strchr(" \t\r\n", text[i]) == NULL)
                clean[n++] = text[i];
        if (clean != NULL && pem != NULL)
            got = EVP_DecodeBlock(pem, (const unsigned char *)clean, (int)n);
        free(clean);
        if (got <= 0) {
            free(pem);
            return NULL;
        }
        len = (size_t)got;
    }
    bio = BIO_new_mem_buf(pem != NULL ? (const void *)pem : (const void *)text, (int)len);
    if (bio != NULL)
        x = PEM_read_bio_X509(bio, NULL, NULL, NULL);
    BIO_free(bio);
    free(pem);
    return x;
}

static void check_names(struct hf_ctx *c, const struct hf_workload *w, const struct hf_kube_object *o,
                        struct hf_yaml place, GENERAL_NAMES *alt)
{
    struct names names = {.n = 0};
    bool address = false;
    const char *lacks;
    char name[512];

    for (int i = 0; alt != NULL && i < sk_GENERAL_NAME_num(alt) && names.n < NAMES_MAX; i++) {
        const GENERAL_NAME *g = sk_GENERAL_NAME_value(alt, i);
        const unsigned char *loop4 = (const unsigned char *)"\x7f\0\0\1";
        if (g->type == GEN_DNS)
            names.items[names.n++] = (const char *)ASN1_STRING_get0_data(g->d.dNSName);
        else if (g->type == GEN_IPADD &&
                 !(ASN1_STRING_length(g->d.iPAddress) == 4 &&
                   memcmp(ASN1_STRING_get0_data(g->d.iPAddress), loop4, 4) == 0))
            address = true; /* 127.0.0.1 never changes */
    }
    if (address)
        hf_report(c, "HF090", o, place, "this certificate, which %s mounts, is for IP addresses", w->o->name);
    if (!is_wanted(w))
        return;
    lacks = missing_name(w, &names, name, sizeof name);
    if (lacks != NULL)
        advise_names(c, w, hf_report(c, "HF091", o, place, "this certificate does not carry %s", lacks));
}

static void check_certificate(struct hf_ctx *c, const struct hf_workload *w, const struct hf_kube_object *o,
                              struct hf_yaml place, X509 *x)
{
    GENERAL_NAMES *alt = X509_get_ext_d2i(x, NID_subject_alt_name, NULL, NULL);
    time_t soon = time(NULL) + EXPIRES_SOON_DAYS * 86400;

    if (X509_cmp_current_time(X509_get0_notAfter(x)) < 0)
        hf_report(c, "HF092", o, place, "this certificate, which %s mounts, has expired", w->o->name);
    else if (X509_cmp_time(X509_get0_notAfter(x), &soon) < 0)
        hf_soften(hf_report(c, "HF092", o, place, "this certificate, which %s mounts, expires within %d days",
                            w->o->name, EXPIRES_SOON_DAYS),
                  HF_WARNING);
    if (X509_check_ca(x) == 0)
        check_names(c, w, o, place, alt);
    GENERAL_NAMES_free(alt);
}

static bool was_seen(const struct hf_ctx *c, const struct hf_kube_object *o)
{
    for (size_t i = 0; i < c->d->n; i++)
        if (c->d->findings[i].object == o)
            return true;
    return false;
}

static void check_holder(struct hf_ctx *c, const struct hf_workload *w, const struct hf_kube_object *o)
{
    static const char *const maps[] = {"data", "stringData", "binaryData"};
    bool config = strcmp(o->kind, "ConfigMap") == 0;

    if (was_seen(c, o))
        return;
    for (unsigned m = 0; m < 3; m++) {
        struct hf_yaml map = hf_yaml_get(o->root, maps[m]);
        bool coded = m == 2 || (m == 0 && !config);
        for (size_t i = 0; i < hf_yaml_count(map); i++) {
            const char *text = hf_yaml_text(hf_yaml_value_at(map, i));
            X509 *x;
            if (text == NULL)
                continue;
            if (config && strstr(text, "PRIVATE KEY-----") != NULL)
                hf_report(c, "HF093", o, hf_yaml_key_at(map, i), "%s holds a private key",
                          hf_yaml_text(hf_yaml_key_at(map, i)) != NULL ? hf_yaml_text(hf_yaml_key_at(map, i)) : "?");
            if (!coded && strstr(text, "BEGIN CERTIFICATE") == NULL)
                continue;
            x = read_certificate(text, coded);
            if (x != NULL)
                check_certificate(c, w, o, hf_yaml_key_at(map, i), x);
            X509_free(x);
        }
    }
}

/* By the name that a volume, or a source of a projected one, gives. */
static void check_source(struct hf_ctx *c, const struct hf_workload *w, struct hf_yaml source)
{
    const char *secret = hf_yaml_text(hf_yaml_path(source, "secret.secretName"));
    const char *config = hf_yaml_text(hf_yaml_path(source, "configMap.name"));
    const struct hf_kube_object *o;

    if (secret == NULL)
        secret = hf_yaml_text(hf_yaml_path(source, "secret.name"));
    if (config != NULL && (o = hf_kube_find(c->s, "ConfigMap", w->o->namespace, config)) != NULL)
        check_holder(c, w, o);
    if (secret == NULL)
        return;
    o = hf_kube_find(c->s, "Secret", w->o->namespace, secret);
    if (o != NULL)
        check_holder(c, w, o);
    for (size_t i = 0; i < c->s->n_objects; i++) {
        o = &c->s->objects[i];
        if (strcmp(o->kind, "Certificate") == 0 && hf_kube_same_namespace(o->namespace, w->o->namespace) &&
            hf_yaml_equals(hf_yaml_path(o->root, "spec.secretName"), secret) && !was_seen(c, o))
            check_request(c, w, o);
    }
}

void hf_rules_certificates(struct hf_ctx *c, const struct hf_workload *w)
{
    struct hf_yaml list = hf_yaml_get(w->pod, "volumes");

    for (size_t i = 0; i < hf_yaml_count(list); i++) {
        struct hf_yaml sources = hf_yaml_path(hf_yaml_item(list, i), "projected.sources");
        check_source(c, w, hf_yaml_item(list, i));
        for (size_t k = 0; k < hf_yaml_count(sources); k++)
            check_source(c, w, hf_yaml_item(sources, k));
    }
}
