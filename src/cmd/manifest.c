/* holdfast manifest: a cluster on Kubernetes, as YAML. */
#include "cmd/cmd.h"

#include <string.h>

#include "kube/manifest.h"

static const char text[] =
    "Prints what `kubectl apply -f -` takes: a cluster as a plain StatefulSet with all that belongs to it.\n"
    "deploy/kubernetes holds the same for Kustomize. The Secrets it refers to are printed by a call of\n"
    "their own, once, because each call makes new passwords and a new certificate authority:\n\n"
    "  holdfast manifest --namespace shop | kubectl apply -f -\n"
    "  holdfast manifest --namespace shop --secrets | kubectl create -f -\n";

static int settings(struct hf_manifest *m, const struct hf_option_list *list)
{
    size_t len = 0;

    for (unsigned i = 0; i < list->n; i++) {
        int n = snprintf(m->settings + len, sizeof m->settings - len, "%s%s", i > 0 ? "\n" : "", list->items[i]);
        if (list->items[i][0] == '\0' || strchr(list->items[i], '\n') != NULL)
            return hf_cmd_wrong_usage("manifest", "--set: NAME=VALUE on one line");
        if (n < 0 || (size_t)n >= sizeof m->settings - len)
            return hf_cmd_wrong_usage("manifest", "--set: too many settings");
        len += (size_t)n;
    }
    return 0;
}

int hf_cmd_manifest(int argc, char **argv)
{
    struct hf_manifest m;
    struct hf_option_list list = {0};
    char split[HF_PATH_MAX] = "";
    bool secrets = false;
    const struct hf_option o[] = {
        {"name", 0, HF_OPT_TEXT, m.name, sizeof m.name, 0, 0, NULL, "NAME",
         "the cluster's name; nodes are NAME-0, NAME-1, ... (default holdfast)"},
        {"namespace", 'n', HF_OPT_TEXT, m.namespace, sizeof m.namespace, 0, 0, NULL, "NAMESPACE",
         "its namespace, made too (default holdfast)"},
        {"no-namespace", 0, HF_OPT_FLAG, &m.no_namespace, 0, 0, 0, NULL, NULL, "the namespace is there: print none"},
        {"replicas", 0, HF_OPT_NUMBER, &m.replicas, 0, 1, HF_MANIFEST_REPLICAS_MAX, NULL, "N",
         "nodes, an odd number (default 3)"},
        {"storage-class", 0, HF_OPT_TEXT, m.storage_class, sizeof m.storage_class, 0, 0, NULL, "CLASS",
         "of the nodes' volumes (default holdfast-ssd)"},
        {"provisioner", 0, HF_OPT_TEXT, m.provisioner, sizeof m.provisioner, 0, 0, NULL, "DRIVER",
         "print that StorageClass too, made of this driver (ebs.csi.aws.com, ...)"},
        {"size", 0, HF_OPT_TEXT, m.size, sizeof m.size, 0, 0, NULL, "SIZE", "of each volume (default 10Gi)"},
        {"cpu", 0, HF_OPT_TEXT, m.cpu, sizeof m.cpu, 0, 0, NULL, "CPU", "of each node (default 1)"},
        {"memory", 0, HF_OPT_TEXT, m.memory, sizeof m.memory, 0, 0, NULL, "SIZE", "of each node (default 2Gi)"},
        {"zone-spread", 0, HF_OPT_FLAG, &m.zone_spread, 0, 0, 0, NULL, NULL,
         "nodes in different zones, or not at all"},
        {"same-machine", 0, HF_OPT_FLAG, &m.spread_soft, 0, 0, 0, NULL, NULL,
         "allow two nodes on one machine, for trying it out"},
        {"image", 0, HF_OPT_TEXT, m.image, sizeof m.image, 0, 0, NULL, "IMAGE",
         "what the nodes run (default holdfast:" HF_VERSION ")"},
        {"set", 'c', HF_OPT_LIST, &list, 0, 0, 0, NULL, "NAME=VALUE", "a setting of PostgreSQL; may be repeated"},
        {"cert-manager", 0, HF_OPT_FLAG, &m.cert_manager, 0, 0, 0, NULL, NULL,
         "let cert-manager make and renew the certificates"},
        {"service-monitor", 0, HF_OPT_FLAG, &m.service_monitor, 0, 0, 0, NULL, NULL,
         "for the Prometheus operator"},
        {"scale-down-role", 0, HF_OPT_FLAG, &m.scale_down_role, 0, 0, 0, NULL, NULL,
         "let a pod see that it is removed for good, so that it leaves"},
        {"secrets", 0, HF_OPT_FLAG, &secrets, 0, 0, 0, NULL, NULL, "print the Secrets, new ones, and nothing else"},
        {"split", 0, HF_OPT_TEXT, split, sizeof split, 0, 0, NULL, "DIR",
         "write a file for each part into DIR, and a kustomization.yaml"},
    };
    const struct hf_usage u = {"[flags]", text, o, sizeof o / sizeof *o};
    struct hf_error err;
    int status;

    hf_manifest_default(&m);
    if (!hf_cmd_parse(argc, argv, &u, NULL, &status))
        return status;
    status = settings(&m, &list);
    if (status != 0)
        return status;
    if (hf_manifest_check(&m, &err) != 0)
        return hf_cmd_wrong_usage("manifest", err.text);
    if (secrets)
        return hf_manifest_secrets(&m, stdout, &err) == 0 ? 0 : hf_cmd_fail(&err);
    if (split[0] != '\0')
        return hf_manifest_split(&m, split, &err) == 0 ? 0 : hf_cmd_fail(&err);
    return hf_manifest_print(&m, stdout, &err) == 0 ? 0 : hf_cmd_fail(&err);
}
