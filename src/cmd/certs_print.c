#include "cmd/certs.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include <jansson.h>
#include <openssl/x509v3.h>

#include "base/secret.h"

enum { NAMES_MAX = 64, DAY_S = 86400 };

unsigned hf_certs_names(X509 *cert, char text[][2 * HF_DOMAIN_MAX], const char **list, unsigned max)
{
    GENERAL_NAMES *all = X509_get_ext_d2i(cert, NID_subject_alt_name, NULL, NULL);
    unsigned n = 0;

    for (int i = 0; i < sk_GENERAL_NAME_num(all) && n < max; i++) {
        const GENERAL_NAME *g = sk_GENERAL_NAME_value(all, i);
        if (g->type != GEN_DNS)
            continue;
        (void)snprintf(text[n], 2 * HF_DOMAIN_MAX, "%.*s", ASN1_STRING_length(g->d.dNSName),
                       (const char *)ASN1_STRING_get0_data(g->d.dNSName));
        list[n] = text[n];
        n++;
    }
    GENERAL_NAMES_free(all);
    return n;
}

/* -- check ------------------------------------------------------------------------------------- */

static json_t *describe(const char *path)
{
    static char text[NAMES_MAX][2 * HF_DOMAIN_MAX];
    const char *list[NAMES_MAX];
    char subject[256] = "", until[32] = "";
    X509 *cert = hf_cert_read(path, NULL);
    struct tm tm;
    json_t *names, *o;
    unsigned n;

    if (cert == NULL)
        return NULL;
    (void)X509_NAME_get_text_by_NID(X509_get_subject_name(cert), NID_commonName, subject,
                                    sizeof subject);
    if (ASN1_TIME_to_tm(X509_get0_notAfter(cert), &tm) == 1)
        (void)strftime(until, sizeof until, "%Y-%m-%dT%H:%M:%SZ", &tm);
    n = hf_certs_names(cert, text, list, NAMES_MAX);
    names = json_array();
    for (unsigned i = 0; i < n; i++)
        (void)json_array_append_new(names, json_string(list[i]));
    o = json_pack("{s:s,s:s,s:s,s:I,s:o}", "file", path, "common_name", subject, "not_after", until,
                  "seconds_left", (json_int_t)hf_cert_seconds_left(cert), "names", names);
    X509_free(cert);
    return o;
}

static void print_text(const json_t *all, const char *problem)
{
    size_t i, k;
    json_t *c, *name;

    json_array_foreach(all, i, c)
    {
        long long left = json_integer_value(json_object_get(c, "seconds_left"));
        printf("%s: %s, until %s (%lld days)\n", json_string_value(json_object_get(c, "file")),
               json_string_value(json_object_get(c, "common_name")),
               json_string_value(json_object_get(c, "not_after")), left / DAY_S);
        json_array_foreach(json_object_get(c, "names"), k, name)
            printf("  %s\n", json_string_value(name));
    }
    if (problem[0] != '\0')
        fprintf(stderr, "holdfast: certs: %s\n", problem);
    else
        puts("good");
}

int hf_certs_check(const char *dir, const char *name, const struct hf_domains *d, unsigned min_days,
                   bool json)
{
    struct hf_error why = {0};
    struct hf_cert_files f;
    json_t *all = json_array(), *one, *o;
    X509 *cert;
    bool ok = hf_cert_check(dir, name, d, &why) == 0;

    hf_cert_files(dir, &f);
    if ((one = describe(f.ca)) != NULL)
        (void)json_array_append_new(all, one);
    if ((one = describe(f.crt)) != NULL)
        (void)json_array_append_new(all, one);
    cert = ok ? hf_cert_read(f.crt, &why) : NULL;
    if (ok && hf_cert_seconds_left(cert) < (int64_t)min_days * DAY_S) {
        (void)hf_fail(&why, HF_ETLS,
                      "certificate %s ends within %u days (hint: `holdfast certs rotate`)", f.crt,
                      min_days);
        ok = false;
    }
    X509_free(cert);
    if (json) {
        o = json_pack("{s:b,s:s,s:o}", "ok", (int)ok, "problem", ok ? "" : why.text, "certificates",
                      all);
        (void)json_dumpf(o, stdout, JSON_INDENT(2));
        putchar('\n');
        json_decref(o);
    } else {
        print_text(all, ok ? "" : why.text);
        json_decref(all);
    }
    return ok ? 0 : HF_ETLS;
}

/* -- Secret ------------------------------------------------------------------------------------ */

int hf_certs_print_secret(const char *dir, const char *name, const char *namespace,
                          struct hf_error *err)
{
    struct hf_cert_files f;
    int rv = hf_cert_check(dir, "", NULL, err); /* nobody should apply what no node will take */

    if (rv != 0)
        return rv;
    hf_cert_files(dir, &f);
    printf("apiVersion: v1\nkind: Secret\ntype: kubernetes.io/tls\nmetadata:\n  name: %s\n", name);
    if (namespace[0] != '\0')
        printf("  namespace: %s\n", namespace);
    puts("data:");
    rv = hf_secret_print(stdout, "ca.crt", f.ca, err);
    if (rv == 0)
        rv = hf_secret_print(stdout, "tls.crt", f.crt, err);
    if (rv == 0)
        rv = hf_secret_print(stdout, "tls.key", f.key, err);
    return rv;
}
