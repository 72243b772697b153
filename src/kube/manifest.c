#include "kube/manifest.h"

#include <ctype.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/file.h"
#include "kube/template.h"

enum { MIB = 1024 * 1024, NAMES_MAX = 8 * 1024, FILE_MAX = 4200 };

void hf_manifest_default(struct hf_manifest *m)
{
    *m = (struct hf_manifest){.name = "holdfast",
                              .namespace = "holdfast",
                              .replicas = 3,
                              .storage_class = "holdfast-ssd",
                              .size = "10Gi",
                              .cpu = "1",
                              .memory = "2Gi",
                              .image = "holdfast:" HF_VERSION};
}

unsigned long long hf_quantity_bytes(const char *text)
{
    static const struct {
        const char *suffix;
        unsigned long long factor;
    } units[] = {{"", 1},          {"k", 1000},         {"M", 1000000},      {"G", 1000000000},
                 {"T", 1000000000000}, {"Ki", 1ull << 10}, {"Mi", 1ull << 20}, {"Gi", 1ull << 30},
                 {"Ti", 1ull << 40}};
    char *end;
    double v;

    if (!isdigit((unsigned char)text[0]))
        return 0;
    errno = 0;
    v = strtod(text, &end);
    for (unsigned i = 0; i < sizeof units / sizeof *units; i++)
        if (strcmp(end, units[i].suffix) == 0 && errno == 0 && v * (double)units[i].factor < 1e18)
            return (unsigned long long)(v * (double)units[i].factor);
    return 0;
}

/* -- is it right? ------------------------------------------------------------------------------------ */

static bool is_label(const char *s)
{
    size_t n = strlen(s);

    if (n == 0 || n > 63 || s[0] == '-' || s[n - 1] == '-')
        return false;
    for (; *s != '\0'; s++)
        if (!islower((unsigned char)*s) && !isdigit((unsigned char)*s) && *s != '-')
            return false;
    return true;
}

/* One word that means the same with and without quotes, in YAML and in a path. */
static bool is_word(const char *s, const char *also)
{
    if (!isalnum((unsigned char)s[0]))
        return false;
    for (; *s != '\0'; s++)
        if (!isalnum((unsigned char)*s) && strchr(also, *s) == NULL)
            return false;
    return true;
}

static int check_sizes(const struct hf_manifest *m, struct hf_error *err)
{
    char *end;
    double cpu = strtod(m->cpu, &end);

    if (!isdigit((unsigned char)m->cpu[0]) || !(cpu > 0) ||
        (strcmp(end, "") != 0 && strcmp(end, "m") != 0))
        return hf_fail(err, HF_EINVAL, "--cpu %s: not a number of processors (hint: 2, or 500m)", m->cpu);
    if (hf_quantity_bytes(m->memory) < 256ull * MIB)
        return hf_fail(err, HF_EINVAL, "--memory %s: 256Mi is the least (hint: 512Mi, 4Gi)", m->memory);
    if (hf_quantity_bytes(m->size) < 1024ull * MIB)
        return hf_fail(err, HF_EINVAL, "--size %s: 1Gi is the least (hint: 10Gi, 1Ti)", m->size);
    return 0;
}

/* NAME=VALUE, a line each; the value may be anything on one line. */
static int check_settings(const char *line, struct hf_error *err)
{
    while (*line != '\0') {
        size_t len = strcspn(line, "\n"), n = 0;
        while (n < len && (islower((unsigned char)line[n]) || isdigit((unsigned char)line[n]) || line[n] == '_' ||
                           line[n] == '.'))
            n++;
        if (n == 0 || n == len || line[n] != '=')
            return hf_fail(err, HF_EINVAL, "--set %.*s: not of the form NAME=VALUE", (int)len, line);
        line += len + (line[len] == '\n');
    }
    return 0;
}

int hf_manifest_check(const struct hf_manifest *m, struct hf_error *err)
{
    if (!is_label(m->name) || !isalpha((unsigned char)m->name[0]))
        return hf_fail(err, HF_EINVAL,
                       "--name %s: only lower-case letters, digits and dashes, a letter first", m->name);
    if (!is_label(m->namespace))
        return hf_fail(err, HF_EINVAL, "--namespace %s: only lower-case letters, digits and dashes",
                       m->namespace);
    if (m->replicas % 2 == 0)
        return hf_fail(err, HF_EINVAL,
                       "--replicas %u: an even number survives no more losses than %u do; use %u or %u",
                       m->replicas, m->replicas - 1, m->replicas - 1, m->replicas + 1);
    if (!is_word(m->storage_class, "-."))
        return hf_fail(err, HF_EINVAL, "--storage-class %s: not the name of a StorageClass (hint: "
                       "`kubectl get storageclass` lists them)", m->storage_class);
    if (m->provisioner[0] != '\0' && !is_word(m->provisioner, "-./"))
        return hf_fail(err, HF_EINVAL, "--provisioner %s: not the name of a provisioner", m->provisioner);
    if (!is_word(m->image, "-._/:@"))
        return hf_fail(err, HF_EINVAL, "--image %s: not the name of an image", m->image);
    if (check_settings(m->settings, err) != 0)
        return HF_EINVAL;
    return check_sizes(m, err);
}

/* -- values ------------------------------------------------------------------------------------------ */

struct values {
    char replicas[16], wal_keep_mb[16], shm[32], settings[HF_MANIFEST_SETTINGS_MAX * 4 + 256];
    char names[NAMES_MAX];
    size_t names_len;
    struct hf_template_value v[24];
};

int hf_manifest_dns_names(const struct hf_manifest *m, int (*visit)(void *arg, const char *name), void *arg)
{
    static const char *const services[] = {"", "-read"};
    char suffix[4][128], name[HF_MANIFEST_TEXT_MAX];
    int rv = 0;

    suffix[0][0] = '\0';
    (void)snprintf(suffix[1], sizeof suffix[1], ".%s", m->namespace);
    (void)snprintf(suffix[2], sizeof suffix[2], ".%s.svc", m->namespace);
    (void)snprintf(suffix[3], sizeof suffix[3], ".%s.svc.cluster.local", m->namespace);
    for (unsigned i = 0; i < HF_MANIFEST_REPLICAS_MAX && rv == 0; i++) {
        (void)snprintf(name, sizeof name, "%s-%u", m->name, i);
        rv = visit(arg, name);
    }
    for (unsigned i = 0; i < 4 && rv == 0; i++) {
        (void)snprintf(name, sizeof name, "*.%s-peers%s", m->name, suffix[i]);
        rv = visit(arg, name);
    }
    for (unsigned k = 0; k < 2; k++)
        for (unsigned i = 0; i < 4 && rv == 0; i++) {
            (void)snprintf(name, sizeof name, "%s%s%s", m->name, services[k], suffix[i]);
            rv = visit(arg, name);
        }
    return rv;
}

static int list_name(void *arg, const char *name)
{
    struct values *x = arg;
    int n = snprintf(x->names + x->names_len, sizeof x->names - x->names_len, "%s    - \"%s\"",
                     x->names_len > 0 ? "\n" : "", name);

    x->names_len += (size_t)n;
    return 0;
}

/* Lines as postgresql.conf has them; a quote in a value is doubled. `cap` has room for all of it. */
static void put_settings(char *out, size_t cap, const char *line)
{
    size_t at = strlen(out);

    while (*line != '\0') {
        size_t len = strcspn(line, "\n"), name = strcspn(line, "=");
        at += (size_t)snprintf(out + at, cap - at, "\n    %.*s = '", (int)name, line);
        for (size_t i = name + 1; i < len; i++) {
            out[at++] = line[i];
            if (line[i] == '\'' || line[i] == '\\')
                out[at++] = line[i];
        }
        out[at++] = '\'';
        out[at] = '\0';
        line += len + (line[len] == '\n');
    }
}

/* What depends on the sizes: buffers and shared memory on the memory, WAL on the volume. */
static void fill_sizes(struct values *x, const struct hf_manifest *m)
{
    unsigned long long memory = hf_quantity_bytes(m->memory) / MIB, disk = hf_quantity_bytes(m->size) / MIB;
    unsigned long long keep = disk / 8 < 64 ? 64 : disk / 8 > 1024 ? 1024 : disk / 8;

    (void)snprintf(x->replicas, sizeof x->replicas, "%u", m->replicas);
    (void)snprintf(x->wal_keep_mb, sizeof x->wal_keep_mb, "%llu", keep);
    (void)snprintf(x->shm, sizeof x->shm, "%lluMi", memory / 4);
    (void)snprintf(x->settings, sizeof x->settings,
                   "    shared_buffers = '%lluMB'\n    effective_cache_size = '%lluMB'\n    max_wal_size = '%lluMB'",
                   memory / 4, memory / 2, keep);
    put_settings(x->settings, sizeof x->settings, m->settings);
}

static const char *truth(bool b)
{
    return b ? "yes" : "";
}

static void fill(struct values *x, const struct hf_manifest *m)
{
    const char *p = m->provisioner;
    const struct hf_template_value v[] = {
        {"name", m->name},
        {"namespace", m->namespace},
        {"replicas", x->replicas},
        {"storage_class", m->storage_class},
        {"size", m->size},
        {"cpu", m->cpu},
        {"memory", m->memory},
        {"image", m->image},
        {"wal_keep_mb", x->wal_keep_mb},
        {"shm", x->shm},
        {"settings", x->settings},
        {"dns_names", x->names},
        {"provisioner", p},
        {"provisioner_aws", truth(strcmp(p, "ebs.csi.aws.com") == 0)},
        {"provisioner_gce", truth(strcmp(p, "pd.csi.storage.gke.io") == 0)},
        {"provisioner_azure", truth(strcmp(p, "disk.csi.azure.com") == 0)},
        {"zone_spread", truth(m->zone_spread)},
        {"spread_soft", truth(m->spread_soft)},
        {"scale_down_role", truth(m->scale_down_role)},
        {NULL, NULL},
    };

    _Static_assert(sizeof v <= sizeof x->v, "more values than room");
    memset(x, 0, sizeof *x);
    fill_sizes(x, m);
    (void)hf_manifest_dns_names(m, list_name, x);
    memcpy(x->v, v, sizeof v);
}

/* -- output ------------------------------------------------------------------------------------------ */

static bool wanted(const struct hf_manifest *m, const char *template)
{
    if (strcmp(template, "namespace") == 0)
        return !m->no_namespace && strcmp(m->namespace, "default") != 0;
    if (strcmp(template, "storage-class") == 0)
        return m->provisioner[0] != '\0';
    if (strcmp(template, "cert-manager") == 0)
        return m->cert_manager;
    if (strcmp(template, "service-monitor") == 0)
        return m->service_monitor;
    if (strcmp(template, "scale-down-role") == 0)
        return m->scale_down_role;
    return true;
}

int hf_manifest_print(const struct hf_manifest *m, FILE *out, struct hf_error *err)
{
    struct values x;
    bool first = true;
    int rv = 0;

    fill(&x, m);
    for (const struct hf_template *t = hf_templates; rv == 0 && t->name != NULL; t++) {
        if (!wanted(m, t->name))
            continue;
        if (!first)
            (void)fputs("---\n", out);
        first = false;
        rv = hf_template_print(t, x.v, out, err);
    }
    if (rv == 0 && (fflush(out) != 0 || ferror(out)))
        rv = hf_fail(err, HF_EIO, "cannot write the manifest: %s", strerror(errno));
    return rv;
}

static int write_one(const char *dir, const char *name, const struct hf_template *t,
                     const struct hf_template_value *v, const char *text, struct hf_error *err)
{
    char path[FILE_MAX], *made = NULL;
    size_t len = 0;
    FILE *f = NULL;
    int rv = 0;

    if (snprintf(path, sizeof path, "%s/%s.yaml", dir, name) >= (int)sizeof path)
        return hf_fail(err, HF_EINVAL, "%s: the path is too long", dir);
    if (t != NULL) {
        f = open_memstream(&made, &len);
        if (f == NULL)
            return hf_fail(err, HF_ENOMEM, "%s: out of memory", path);
        rv = hf_template_print(t, v, f, err);
        if (fclose(f) != 0 && rv == 0)
            rv = hf_fail(err, HF_ENOMEM, "%s: out of memory", path);
        text = made;
    }
    if (rv == 0)
        rv = hf_file_write(path, text, strlen(text), 0644, err);
    free(made);
    return rv;
}

int hf_manifest_split(const struct hf_manifest *m, const char *dir, struct hf_error *err)
{
    char *list = NULL;
    size_t len = 0;
    struct values x;
    FILE *f;
    int rv = hf_dir_make(dir, 0755, err);

    if (rv != 0)
        return rv;
    f = open_memstream(&list, &len);
    if (f == NULL)
        return hf_fail(err, HF_ENOMEM, "%s: out of memory", dir);
    fill(&x, m);
    (void)fprintf(f, "apiVersion: kustomize.config.k8s.io/v1beta1\nkind: Kustomization\nresources:\n");
    for (const struct hf_template *t = hf_templates; rv == 0 && t->name != NULL; t++) {
        if (!wanted(m, t->name))
            continue;
        (void)fprintf(f, "  - %s.yaml\n", t->name);
        rv = write_one(dir, t->name, t, x.v, NULL, err);
    }
    if (fclose(f) != 0 && rv == 0)
        rv = hf_fail(err, HF_ENOMEM, "%s: out of memory", dir);
    if (rv == 0)
        rv = write_one(dir, "kustomization", NULL, NULL, list, err);
    free(list);
    return rv;
}
