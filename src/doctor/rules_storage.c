/* Where the data lies: volumes, claims, storage classes. */
#include "doctor/private.h"

#include <stdlib.h>
#include <string.h>

static const struct hf_yaml none = {NULL, NULL, NULL};

/* -- volumes ----------------------------------------------------------------------------------------- */

static void check_mount(struct hf_ctx *c, const struct hf_workload *w, struct hf_yaml mount)
{
    const char *name = hf_yaml_text(hf_yaml_get(mount, "name"));
    const char *path = hf_yaml_text(hf_yaml_get(mount, "mountPath"));
    struct hf_yaml volume = name != NULL ? hf_workload_volume(w, name) : none;
    struct hf_finding *f;

    if (path == NULL || !hf_yaml_there(volume) || !hf_is_data_path(w, path, name))
        return;
    if (hf_yaml_there(hf_yaml_get(volume, "emptyDir"))) {
        f = hf_report(c, "HF002", w->o, hf_place(volume, "emptyDir"), "volume %s, mounted at %s, is an emptyDir", name,
                      path);
        hf_advise(c, f,
                  "# in the place of the volume:\nvolumeClaimTemplates:\n  - metadata:\n      name: %s\n    spec:\n"
                  "      accessModes:\n        - ReadWriteOnce\n      storageClassName: <a fast class>\n"
                  "      resources:\n        requests:\n          storage: 10Gi\n",
                  name);
    }
    if (hf_yaml_there(hf_yaml_get(volume, "hostPath"))) {
        const char *host = hf_yaml_text(hf_yaml_path(volume, "hostPath.path"));
        f = hf_report(c, "HF003", w->o, hf_place(volume, "hostPath"), "volume %s, mounted at %s, is %s of the machine",
                      name, path, host != NULL ? host : "a directory");
        hf_advise(c, f,
                  "# in the place of the volume (a local disk: a StorageClass of local volumes):\n"
                  "volumeClaimTemplates:\n  - metadata:\n      name: %s\n    spec:\n      accessModes:\n"
                  "        - ReadWriteOnce\n      storageClassName: <a fast class>\n      resources:\n"
                  "        requests:\n          storage: 10Gi\n",
                  name);
    }
}

static bool has_data_volume(const struct hf_workload *w)
{
    struct hf_yaml list = hf_yaml_get(w->pod, "volumes");

    if (hf_workload_has_claim(w))
        return true;
    /* emptyDir and hostPath are HF002 and HF003; what else a driver mounts is taken for a real volume. */
    for (size_t i = 0; i < hf_yaml_count(list); i++) {
        struct hf_yaml v = hf_yaml_item(list, i);
        for (size_t k = 0; k < hf_yaml_count(v); k++) {
            const char *kind = hf_yaml_text(hf_yaml_key_at(v, k));
            if (kind != NULL && strcmp(kind, "name") != 0 && strcmp(kind, "configMap") != 0 &&
                strcmp(kind, "secret") != 0 && strcmp(kind, "projected") != 0 && strcmp(kind, "downwardAPI") != 0 &&
                strcmp(kind, "emptyDir") != 0 && strcmp(kind, "hostPath") != 0)
                return true;
        }
    }
    return false;
}

static bool reported_here(const struct hf_ctx *c, const char *rule, const struct hf_kube_object *o)
{
    for (size_t i = 0; i < c->d->n; i++)
        if (c->d->findings[i].object == o && strcmp(c->d->findings[i].rule->id, rule) == 0)
            return true;
    return false;
}

static void check_volumes(struct hf_ctx *c, const struct hf_workload *w)
{
    const char *data = w->product != NULL && w->product->data != NULL ? w->product->data : "/data";
    struct hf_finding *f;

    for (size_t i = 0; i < hf_yaml_count(hf_yaml_get(w->pod, "containers")); i++) {
        struct hf_yaml mounts = hf_yaml_get(hf_workload_container(w, i, false), "volumeMounts");
        for (size_t k = 0; k < hf_yaml_count(mounts); k++)
            check_mount(c, w, hf_yaml_item(mounts, k));
    }
    if (has_data_volume(w) || reported_here(c, "HF002", w->o) || reported_here(c, "HF003", w->o) ||
        w->kind == HF_WORKLOAD_CUSTOM || !hf_yaml_there(w->pod))
        return;
    f = hf_report(c, "HF001", w->o, none, "%s has neither volumeClaimTemplates nor a claim: the data is in the container",
                  w->product != NULL ? w->product->name : "this workload");
    if (w->kind == HF_WORKLOAD_STATEFULSET)
        hf_advise(c, f,
                  "spec:\n  template:\n    spec:\n      containers:\n        - name: %s\n          volumeMounts:\n"
                  "            - name: data\n              mountPath: %s\n  volumeClaimTemplates:\n    - metadata:\n"
                  "        name: data\n      spec:\n        accessModes:\n          - ReadWriteOnce\n"
                  "        storageClassName: <a fast class>\n        resources:\n          requests:\n"
                  "            storage: 10Gi\n",
                  hf_container_name(w->container), data);
    else
        hf_advise(c, f, "# a StatefulSet with volumeClaimTemplates in the place of this %s\n", w->o->kind);
}

/* -- claims ------------------------------------------------------------------------------------------ */

static void check_claim(struct hf_ctx *c, const struct hf_workload *w, struct hf_yaml spec)
{
    static const char *const slow[][2] = {
        {"standard", "on Google's cloud a spinning disk (pd-standard), elsewhere whatever somebody called so"},
        {"gp2", "Amazon's older disks, 3 operations per second and GiB"},
        {"default", "on Azure a standard disk"},
        {"managed", "on Azure a standard disk"},
        {"do-block-storage", "DigitalOcean's volumes over the network, throttled"},
        {"hdd", "a spinning disk"},
        {"slow", "says so itself"},
        {"st1", "Amazon's spinning disks"},
        {"sc1", "Amazon's cold spinning disks"},
        {"vultr-block-storage-hdd", "a spinning disk"},
        {"cinder-default", "whatever the cloud's default is"},
    };
    struct hf_yaml class = hf_yaml_get(spec, "storageClassName");
    struct hf_yaml modes = hf_yaml_get(spec, "accessModes");
    const char *name = hf_yaml_text(class);

    for (size_t i = 0; i < hf_yaml_count(modes); i++)
        if (hf_yaml_equals(hf_yaml_item(modes, i), "ReadWriteMany")) {
            struct hf_finding *f = hf_report(c, "HF007", w->o, hf_yaml_item(modes, i),
                                             "the claim asks for ReadWriteMany, which only shared file systems have");
            hf_fix_set(c, f, hf_yaml_item(modes, i), "-", "ReadWriteOnce");
        }
    if (!hf_yaml_there(class) || hf_yaml_is_null(class)) {
        struct hf_finding *f =
            hf_report(c, "HF004", w->o, hf_place(spec, "accessModes"), "the claim has no storageClassName");
        hf_advise(c, f, "storageClassName: <one of `kubectl get storageclass`>\n");
        return;
    }
    if (name == NULL || hf_storage_class(c, name) != NULL)
        return; /* its parameters say more than its name: hf_rules_class */
    for (unsigned i = 0; i < sizeof slow / sizeof *slow; i++)
        if (strcmp(name, slow[i][0]) == 0) {
            struct hf_finding *f = hf_report(c, "HF005", w->o, class, "storage class %s: %s", name, slow[i][1]);
            hf_advise(c, f, "storageClassName: <a class of SSDs: see docs/kubernetes.md>\n");
            return;
        }
}

static void check_retention(struct hf_ctx *c, const struct hf_workload *w)
{
    static const char *const keys[] = {"whenDeleted", "whenScaled"};
    struct hf_yaml policy = hf_yaml_get(w->spec, "persistentVolumeClaimRetentionPolicy");

    for (unsigned i = 0; i < 2; i++) {
        struct hf_yaml v = hf_yaml_get(policy, keys[i]);
        if (hf_yaml_equals(v, "Delete"))
            hf_fix_set(c,
                       hf_report(c, "HF010", w->o, v, "%s: Delete removes the claims, and with most storage classes "
                                 "the data", keys[i]),
                       v, keys[i], "Retain");
    }
}

static bool is_postgres(const struct hf_workload *w)
{
    return w->product != NULL && strcmp(w->product->name, "PostgreSQL") == 0;
}

static void check_root(struct hf_ctx *c, const struct hf_workload *w)
{
    struct hf_yaml mounts = hf_yaml_get(w->container, "volumeMounts"), env = hf_yaml_get(w->container, "env");

    if (!is_postgres(w) || hf_yaml_count(w->claims) == 0)
        return;
    for (size_t i = 0; i < hf_yaml_count(env); i++)
        if (hf_yaml_equals(hf_yaml_get(hf_yaml_item(env, i), "name"), "PGDATA"))
            return;
    for (size_t i = 0; i < hf_yaml_count(mounts); i++) {
        struct hf_yaml m = hf_yaml_item(mounts, i);
        if (!hf_yaml_equals(hf_yaml_get(m, "mountPath"), "/var/lib/postgresql/data") ||
            hf_yaml_there(hf_yaml_get(m, "subPath")) ||
            hf_yaml_there(hf_workload_volume(w, hf_yaml_text(hf_yaml_get(m, "name")) != NULL
                                                    ? hf_yaml_text(hf_yaml_get(m, "name"))
                                                    : "")))
            continue;
        struct hf_finding *f = hf_report(c, "HF013", w->o, hf_place(m, "mountPath"),
                                         "the volume is mounted at PostgreSQL's data directory itself");
        if (hf_yaml_there(env))
            hf_advise(c, f, "env:\n  - name: PGDATA\n    value: /var/lib/postgresql/data/pgdata\n");
        else
            hf_fix_container(c, f, w, w->container, "",
                             "{'env': [{'name': 'PGDATA', 'value': '/var/lib/postgresql/data/pgdata'}]}");
    }
}

static void check_deployment(struct hf_ctx *c, const struct hf_workload *w)
{
    struct hf_finding *f;

    if (w->kind != HF_WORKLOAD_DEPLOYMENT || !hf_workload_has_claim(w))
        return;
    if (w->replicas > 1) {
        f = hf_report(c, "HF012", w->o, hf_place(w->spec, "replicas"), "%ld replicas share the claims of one Deployment",
                      w->replicas);
        hf_advise(c, f, "# a StatefulSet with volumeClaimTemplates: a volume for each replica\n");
    } else if (!hf_yaml_equals(hf_yaml_path(w->spec, "strategy.type"), "Recreate")) {
        struct hf_yaml type = hf_yaml_path(w->spec, "strategy.type");
        f = hf_report(c, "HF012", w->o, hf_place(w->spec, "strategy"), "the new pod starts before the old one ends");
        if (hf_yaml_there(type))
            hf_advise(c, f, "strategy:\n  type: Recreate\n");
        else if (!hf_yaml_there(hf_yaml_path(w->spec, "strategy.rollingUpdate")))
            hf_fix_add(c, f, w->spec, "spec", "strategy", "{'type': 'Recreate'}");
    }
}

void hf_rules_storage(struct hf_ctx *c, const struct hf_workload *w)
{
    check_volumes(c, w);
    hf_claims(c, w, check_claim);
    check_retention(c, w);
    check_root(c, w);
    check_deployment(c, w);
}

/* -- storage classes --------------------------------------------------------------------------------- */

static bool is_local(const struct hf_ctx *c, const char *class)
{
    static const char *const names[] = {"local-path", "local-storage", "openebs-hostpath", "openebs-lvmpv",
                                        "topolvm-provisioner", "hostpath", "microk8s-hostpath"};
    static const char *const drivers[] = {"kubernetes.io/no-provisioner", "rancher.io/local-path", "local.csi",
                                          "topolvm", "openebs.io/local", "hostpath", "lvm"};
    const struct hf_kube_object *o = hf_storage_class(c, class);
    const char *driver = o != NULL ? hf_yaml_text(hf_yaml_get(o->root, "provisioner")) : NULL;

    for (unsigned i = 0; i < sizeof names / sizeof *names; i++)
        if (strcmp(class, names[i]) == 0)
            return true;
    for (unsigned i = 0; driver != NULL && i < sizeof drivers / sizeof *drivers; i++)
        if (hf_has_word(driver, drivers[i]))
            return true;
    return false;
}

static void check_parameters(struct hf_ctx *c, const struct hf_kube_object *o, struct hf_yaml parameters)
{
    static const struct {
        const char *value, *better, *what;
    } slow[] = {
        {"pd-standard", "pd-ssd", "a spinning disk"},
        {"gp2", "gp3", "an SSD whose speed grows with its size only"},
        {"io1-standard", "io2", "an older type"},
        {"standard", "gp3", "a magnetic disk"},
        {"magnetic", "gp3", "a magnetic disk"},
        {"st1", "gp3", "a spinning disk"},
        {"sc1", "gp3", "a cold spinning disk"},
        {"Standard_LRS", "Premium_LRS", "a spinning disk"},
        {"Standard_ZRS", "Premium_ZRS", "a spinning disk"},
        {"StandardSSD_LRS", "Premium_LRS", "an SSD of the slow kind"},
        {"cloud", "cloud_essd", "a disk of the oldest kind"},
        {"cloud_efficiency", "cloud_essd", "a slow disk"},
    };

    for (size_t i = 0; i < hf_yaml_count(parameters); i++) {
        struct hf_yaml v = hf_yaml_value_at(parameters, i);
        const char *key = hf_yaml_text(hf_yaml_key_at(parameters, i));
        if (key == NULL || (strcmp(key, "type") != 0 && strcasecmp(key, "skuName") != 0 &&
                            strcasecmp(key, "storageaccounttype") != 0))
            continue;
        for (unsigned k = 0; k < sizeof slow / sizeof *slow; k++)
            if (hf_yaml_equals(v, slow[k].value))
                hf_fix_set(c, hf_report(c, "HF006", o, v, "%s: %s is %s", key, slow[k].value, slow[k].what), v, key,
                           "%s", slow[k].better);
    }
}

static bool is_file_system(const char *driver)
{
    static const char *const words[] = {"nfs", "efs.", "file.csi.azure.com", "azure-file", "filestore", "cephfs",
                                        "glusterfs", "smb."};

    for (unsigned i = 0; i < sizeof words / sizeof *words; i++)
        if (hf_has_word(driver, words[i]))
            return true;
    return false;
}

static bool class_seen(const struct hf_ctx *c, const struct hf_kube_object *o)
{
    for (size_t i = 0; i < c->d->n; i++)
        if (c->d->findings[i].object == o)
            return true;
    return false;
}

static void check_class(struct hf_ctx *c, const struct hf_workload *w, struct hf_yaml claim)
{
    const char *name = hf_yaml_text(hf_yaml_get(claim, "storageClassName"));
    const struct hf_kube_object *o = name != NULL ? hf_storage_class(c, name) : NULL;
    const char *driver;
    struct hf_yaml v;

    (void)w;
    if (o == NULL || class_seen(c, o))
        return;
    driver = hf_yaml_text(hf_yaml_get(o->root, "provisioner"));
    check_parameters(c, o, hf_yaml_get(o->root, "parameters"));
    if (driver != NULL && is_file_system(driver))
        hf_advise(c, hf_report(c, "HF007", o, hf_place(o->root, "provisioner"), "%s makes a shared file system", driver),
                  "provisioner: <a driver of block devices>\n");
    v = hf_yaml_get(o->root, "volumeBindingMode");
    if (hf_yaml_equals(v, "Immediate"))
        hf_fix_set(c, hf_report(c, "HF008", o, v, "volumeBindingMode: Immediate"), v, "volumeBindingMode",
                   "WaitForFirstConsumer");
    else if (!hf_yaml_there(v))
        hf_fix_add(c, hf_report(c, "HF008", o, none, "no volumeBindingMode, which means Immediate"), o->root, "", "",
                   "{'volumeBindingMode': 'WaitForFirstConsumer'}");
    v = hf_yaml_get(o->root, "allowVolumeExpansion");
    if (!hf_yaml_bool(v, false) && !is_local(c, name)) {
        struct hf_finding *f = hf_report(c, "HF009", o, hf_place(o->root, "allowVolumeExpansion"),
                                         "allowVolumeExpansion is not true");
        if (hf_yaml_there(v))
            hf_fix_set(c, f, v, "allowVolumeExpansion", "true");
        else
            hf_fix_add(c, f, o->root, "", "", "{'allowVolumeExpansion': true}");
    }
    v = hf_yaml_get(o->root, "reclaimPolicy");
    if (!hf_yaml_equals(v, "Retain")) {
        struct hf_finding *f = hf_report(c, "HF014", o, hf_place(o->root, "reclaimPolicy"), "reclaimPolicy is not Retain");
        if (hf_yaml_there(v))
            hf_fix_set(c, f, v, "reclaimPolicy", "Retain");
        else
            hf_fix_add(c, f, o->root, "", "", "{'reclaimPolicy': 'Retain'}");
    }
}

static bool has_local_volume(const struct hf_ctx *c, const struct hf_workload *w)
{
    struct hf_yaml list = hf_yaml_get(w->pod, "volumes");

    for (size_t i = 0; i < hf_yaml_count(w->claims); i++) {
        const char *class = hf_yaml_text(hf_yaml_path(hf_yaml_item(w->claims, i), "spec.storageClassName"));
        if (class != NULL && is_local(c, class))
            return true;
    }
    for (size_t i = 0; i < hf_yaml_count(list); i++) {
        struct hf_yaml v = hf_yaml_item(list, i);
        const char *name = hf_yaml_text(hf_yaml_get(v, "name"));
        struct hf_yaml mounts = hf_yaml_get(w->container, "volumeMounts");
        for (size_t k = 0; hf_yaml_there(hf_yaml_get(v, "hostPath")) && k < hf_yaml_count(mounts); k++) {
            struct hf_yaml m = hf_yaml_item(mounts, k);
            const char *path = hf_yaml_text(hf_yaml_get(m, "mountPath"));
            if (name != NULL && path != NULL && hf_yaml_equals(hf_yaml_get(m, "name"), name) &&
                hf_is_data_path(w, path, name))
                return true;
        }
    }
    return false;
}

void hf_rules_class(struct hf_ctx *c, const struct hf_workload *w)
{
    struct hf_yaml term = none;
    int spread = hf_workload_spread(w, "kubernetes.io/hostname", &term);

    hf_claims(c, w, check_class);
    if (w->replicas > 1 && w->kind == HF_WORKLOAD_STATEFULSET && spread < 2 && has_local_volume(c, w)) {
        char *labels = hf_labels_text(w->labels, 24);
        hf_advise(c,
                  hf_report(c, "HF011", w->o, hf_yaml_there(term) ? term : hf_place(w->spec, "volumeClaimTemplates"),
                            "volumes of the machine, and %s anti-affinity", spread == 1 ? "only soft" : "no"),
                  "spec:\n  template:\n    spec:\n      affinity:\n        podAntiAffinity:\n"
                  "          requiredDuringSchedulingIgnoredDuringExecution:\n"
                  "            - topologyKey: kubernetes.io/hostname\n              labelSelector:\n"
                  "                matchLabels:\n%s",
                  labels != NULL ? labels : "");
        free(labels);
    }
}
