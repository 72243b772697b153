/* Passwords and certificates for a new cluster, as Secrets. */
#include "kube/manifest.h"

#include <errno.h>
#include <openssl/crypto.h>
#include <stdlib.h>
#include <string.h>

#include "base/cert.h"
#include "base/file.h"
#include "base/secret.h"

enum { NAMES_MAX = 32, PATH_LEN = 256 };

struct names {
    unsigned n;
    char *items[NAMES_MAX];
};

static int keep_name(void *arg, const char *name)
{
    struct names *list = arg;

    if (list->n == NAMES_MAX || (list->items[list->n] = strdup(name)) == NULL)
        return -1;
    list->n++;
    return 0;
}

static void print_head(FILE *out, const struct hf_manifest *m, const char *what, const char *type,
                       const char *why)
{
    (void)fprintf(out,
                  "# %s\napiVersion: v1\nkind: Secret\nmetadata:\n  name: %s-%s\n  namespace: %s\n"
                  "  labels:\n    app.kubernetes.io/name: holdfast\n    app.kubernetes.io/instance: %s\n"
                  "type: %s\n",
                  why, m->name, what, m->namespace, m->name, type);
}

static int print_file(FILE *out, const char *key, const char *dir, const char *file, struct hf_error *err)
{
    char path[PATH_LEN + 32];

    (void)snprintf(path, sizeof path, "%s/%s", dir, file);
    return hf_secret_print(out, key, path, err);
}

static int print_credentials(const struct hf_manifest *m, FILE *out, struct hf_error *err)
{
    char app[HF_PASSWORD_LETTERS + 1], admin[HF_PASSWORD_LETTERS + 1];
    int rv = hf_password_make(app, err);

    if (rv == 0)
        rv = hf_password_make(admin, err);
    if (rv != 0)
        return rv;
    print_head(out, m, "credentials", "Opaque",
               "Roles that leaders make. To change a password: everywhere in here, then `kubectl rollout restart statefulset`.\n"
               "# ALTER ROLE stays, too, but then the URIs here are wrong.");
    (void)fprintf(out,
                  "stringData:\n  credentials.json: |\n    {\"app_role\": \"app\", \"app_password\": \"%s\",\n"
                  "     \"app_database\": \"app\", \"admin_role\": \"admin\", \"admin_password\": \"%s\"}\n"
                  "  # For applications: one value holds all.\n"
                  "  uri: postgresql://app:%s@%s.%s.svc:5432/app\n"
                  "  read-only-uri: postgresql://app:%s@%s-read.%s.svc:5432/app\n"
                  "  username: app\n  password: \"%s\"\n",
                  app, admin, app, m->name, m->namespace, app, m->name, m->namespace, app);
    OPENSSL_cleanse(app, sizeof app);
    OPENSSL_cleanse(admin, sizeof admin);
    return 0;
}

static int print_certificates(const struct hf_manifest *m, const char *dir, FILE *out, struct hf_error *err)
{
    int rv;

    print_head(out, m, "tls", "kubernetes.io/tls",
               "One certificate for all pods: every name they can have, and no address.");
    (void)fputs("data:\n", out);
    if ((rv = print_file(out, "ca.crt", dir, "ca.crt", err)) != 0 ||
        (rv = print_file(out, "tls.crt", dir, "node.crt", err)) != 0 ||
        (rv = print_file(out, "tls.key", dir, "node.key", err)) != 0)
        return rv;
    (void)fputs("---\n", out);
    print_head(out, m, "ca", "kubernetes.io/tls",
               "The authority, mounted nowhere: for the next certificate. Keep it, or move it to a safe place.");
    (void)fputs("data:\n", out);
    if ((rv = print_file(out, "tls.crt", dir, "ca.crt", err)) == 0)
        rv = print_file(out, "tls.key", dir, "ca.key", err);
    return rv;
}

int hf_manifest_secrets(const struct hf_manifest *m, FILE *out, struct hf_error *err)
{
    const char *tmp = getenv("TMPDIR");
    char dir[PATH_LEN];
    struct names names = {0};
    struct hf_error ignored;
    int rv;

    if (snprintf(dir, sizeof dir, "%s/holdfast-secrets-XXXXXX", tmp != NULL ? tmp : "/tmp") >=
            (int)sizeof dir ||
        mkdtemp(dir) == NULL)
        return hf_fail(err, HF_EIO, "%s: cannot make a directory: %s", dir, strerror(errno));
    rv = hf_manifest_dns_names(m, keep_name, &names) == 0 ? 0 : hf_fail(err, HF_ENOMEM, "out of memory");
    if (rv == 0)
        rv = hf_cert_make_ca(dir, m->name, err);
    if (rv == 0)
        rv = hf_cert_make_node(dir, dir, (const char *const *)names.items, names.n, err);
    if (rv == 0)
        rv = print_credentials(m, out, err);
    if (rv == 0 && !m->cert_manager) {
        (void)fputs("---\n", out);
        rv = print_certificates(m, dir, out, err);
    }
    for (unsigned i = 0; i < names.n; i++)
        free(names.items[i]);
    (void)hf_dir_remove(dir, &ignored);
    return rv;
}
