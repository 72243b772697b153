/* holdfast doctor: what is wrong with stateful workloads on Kubernetes, ours and anybody's. */
#include "cmd/cmd.h"

#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/file.h"
#include "doctor/doctor.h"
#include "kube/api.h"

enum { ROUNDS_MAX = 100 };

static const char text[] =
    "Reads manifests of any database (StatefulSets, Deployments with volumes, Pods, custom resources with volume\n"
    "claims, and what belongs to them) and tells which known traps they walk into: rule, place, what it did to\n"
    "others, and the YAML that helps. docs/doctor.md explains each rule.\n\n"
    "Give it all that is applied together; what is not in the files is taken to be missing. A Kustomize\n"
    "directory or a chart is rendered first: `kubectl kustomize DIR | holdfast doctor -f -`.\n\n"
    "An object's annotation holdfast/doctor-ignore: \"HF022 HF087\" keeps rules quiet for it.\n\n"
    "Exit status: 0 nothing at or above --fail-on, 1 findings, 2 wrong usage or files that cannot be read.\n";

struct run {
    struct hf_option_list files, ignore;
    bool fix, to_stdout, json, sarif, rules, in_cluster, all;
    char kubeconfig[HF_PATH_MAX], context[256], namespace[64];
    char fail_on[16];
};

static int print_json(json_t *o)
{
    int rv = json_dumpf(o, stdout, JSON_INDENT(2) | JSON_PRESERVE_ORDER);

    printf("\n");
    json_decref(o);
    return rv;
}

static void print_rules(bool json)
{
    json_t *list = json_array();

    for (const struct hf_rule *r = hf_rules; r->id != NULL; r++) {
        if (!json)
            printf("%s %-8s %-30s %s\n", r->id, hf_severity_name(r->severity), r->name, r->title);
        else
            (void)json_array_append_new(list, json_pack("{s:s, s:s, s:s, s:s, s:s}", "rule", r->id, "name", r->name,
                                                        "severity", hf_severity_name(r->severity), "title", r->title,
                                                        "why", r->why));
    }
    if (json)
        (void)print_json(json_pack("{s:O}", "rules", list));
    json_decref(list);
}

/* 3: nothing is severe enough. */
static int threshold(const char *word)
{
    static const char *const words[] = {"note", "warning", "error", "never"};

    for (int i = 0; i < 4; i++)
        if (strcmp(words[i], word) == 0)
            return i;
    return -1;
}

static bool is_live(const struct run *r)
{
    return r->in_cluster || r->kubeconfig[0] != '\0';
}

static int load(struct hf_kube_set *s, const struct run *r, struct hf_error *err)
{
    int rv = 0;

    *s = (struct hf_kube_set){0};
    for (unsigned i = 0; i < r->files.n && rv == 0; i++)
        rv = hf_kube_set_load(s, r->files.items[i], err);
    if (rv == 0 && is_live(r)) {
        const struct hf_kube_where where = {.kubeconfig = r->in_cluster ? NULL : r->kubeconfig,
                                            .context = r->context,
                                            .namespace = r->all ? "*" : r->namespace};
        char left_out[256];
        rv = hf_kube_api_load(s, &where, left_out, sizeof left_out, err);
        if (rv == 0 && left_out[0] != '\0')
            fprintf(stderr, "holdfast: doctor: not looked at, because not there or not allowed: %s\n", left_out);
    }
    return rv;
}

/* -- fixing ------------------------------------------------------------------------------------------ */

/* All files once more, with another text for one of them. */
static int replace(struct hf_kube_set *s, size_t which, char *changed, size_t len, struct hf_error *err)
{
    struct hf_kube_set next = {0};
    int rv = 0;

    for (size_t i = 0; i < s->n_files && rv == 0; i++) {
        size_t n = i == which ? len : s->files[i]->len;
        char *copy = i == which ? changed : malloc(n + 1);
        if (copy == NULL) {
            rv = hf_fail(err, HF_ENOMEM, "%s: out of memory", s->files[i]->path);
            break;
        }
        if (i != which)
            memcpy(copy, s->files[i]->text, n + 1);
        rv = hf_kube_set_add(&next, s->files[i]->path, copy, n, err);
        if (rv == 0 && i == which && next.files[i]->broken && !s->files[i]->broken)
            rv = hf_fail(err, HF_ECORRUPT, "%s: a fix would break it, line %zu: %s; nothing is changed (please report)",
                         s->files[i]->path, next.files[i]->problem_line, next.files[i]->problem.text);
    }
    if (rv != 0) {
        hf_kube_set_free(&next);
        return rv;
    }
    hf_kube_set_free(s);
    *s = next;
    return 0;
}

/* One file at a time, until a round changes nothing. */
static int fix_all(struct hf_kube_set *s, bool *changed, const struct hf_doctor_options *o, struct hf_error *err)
{
    bool again = true;
    int rv = 0;

    for (int round = 0; rv == 0 && again && round < ROUNDS_MAX; round++) {
        again = false;
        for (size_t i = 0; i < s->n_files && rv == 0; i++) {
            struct hf_diagnosis d;
            char *next = NULL;
            size_t len;
            rv = hf_doctor_run(&d, s, o, err);
            if (rv != 0)
                break;
            if (!s->files[i]->broken)
                rv = hf_doctor_fix(&d, s->files[i], &next, &len, err);
            hf_doctor_free(&d);
            if (rv == 0 && next != NULL) {
                again = changed[i] = true;
                rv = replace(s, i, next, len, err);
            }
        }
    }
    return rv;
}

static int write_fixed(const struct hf_kube_set *s, const bool *changed, bool to_stdout, struct hf_error *err)
{
    for (size_t i = 0; i < s->n_files; i++) {
        const struct hf_yaml_file *f = s->files[i];
        bool piped = strcmp(f->path, "<stdin>") == 0;
        if (piped || to_stdout) {
            (void)fwrite(f->text, 1, f->len, stdout);
        } else if (changed[i]) {
            int rv = hf_file_rewrite(f->path, f->text, f->len, err);
            if (rv != 0)
                return rv;
            fprintf(stderr, "%s: fixed\n", f->path);
        }
    }
    return 0;
}

static int fix(struct hf_kube_set *s, const struct run *r, const struct hf_doctor_options *o, struct hf_error *err)
{
    bool *changed = calloc(s->n_files + 1, sizeof *changed);
    int rv;

    if (changed == NULL)
        return hf_fail(err, HF_ENOMEM, "out of memory");
    rv = fix_all(s, changed, o, err);
    if (rv == 0)
        rv = write_fixed(s, changed, r->to_stdout, err);
    free(changed);
    return rv;
}

/* -- the verb ---------------------------------------------------------------------------------------- */

static int show(const struct hf_diagnosis *d, const struct run *r, FILE *out)
{
    int least = threshold(r->fail_on);

    if (r->sarif)
        (void)print_json(hf_doctor_sarif(d));
    else if (r->json)
        (void)print_json(hf_doctor_json(d));
    else
        hf_doctor_print(d, out, hf_cmd_is_terminal(out));
    for (size_t i = 0; i < d->n; i++)
        if ((int)d->findings[i].severity >= least)
            return 1;
    return 0;
}

static int run(const struct run *r)
{
    const struct hf_doctor_options o = {.ignore = r->ignore.items, .n_ignore = r->ignore.n};
    struct hf_kube_set s;
    struct hf_diagnosis d;
    struct hf_error err;
    bool text_is_out = false;
    int status = 2, rv = load(&s, r, &err);

    if (rv == 0 && s.n_files == 0)
        rv = hf_fail(&err, HF_ENOENT, "%s: no .yaml, .yml or .json file there",
                     r->files.n > 0 ? r->files.items[0] : "the cluster");
    if (rv == 0 && r->fix) {
        rv = fix(&s, r, &o, &err);
        for (size_t i = 0; rv == 0 && i < s.n_files; i++)
            text_is_out = text_is_out || r->to_stdout || strcmp(s.files[i]->path, "<stdin>") == 0;
    }
    if (rv == 0)
        rv = hf_doctor_run(&d, &s, &o, &err);
    if (rv == 0) {
        status = show(&d, r, text_is_out ? stderr : stdout);
        hf_doctor_free(&d);
    } else {
        (void)hf_cmd_fail(&err);
    }
    hf_kube_set_free(&s);
    return status;
}

static int check_usage(const struct run *r)
{
    if (threshold(r->fail_on) < 0)
        return hf_cmd_wrong_usage("doctor", "--fail-on: note, warning, error or never");
    for (unsigned i = 0; i < r->ignore.n; i++)
        if (hf_rule_find(r->ignore.items[i]) == NULL)
            return hf_cmd_wrong_usage("doctor", "--ignore: no such rule (`holdfast doctor --rules` lists them)");
    if (r->json && r->sarif)
        return hf_cmd_wrong_usage("doctor", "--json or --sarif, one of them");
    if (r->fix && (r->json || r->sarif))
        return hf_cmd_wrong_usage("doctor", "--fix writes YAML: without --json and --sarif");
    if (r->fix && is_live(r))
        return hf_cmd_wrong_usage("doctor", "--fix changes files, not a cluster");
    if (r->in_cluster && r->kubeconfig[0] != '\0')
        return hf_cmd_wrong_usage("doctor", "--kubeconfig or --in-cluster, one of them");
    if (!r->rules && r->files.n == 0 && !is_live(r))
        return hf_cmd_wrong_usage("doctor", "which manifests? -f FILE, -f DIR, -f - or --kubeconfig FILE");
    return 0;
}

int hf_cmd_doctor(int argc, char **argv)
{
    struct run r = {.fail_on = "warning"};
    struct hf_operands operands = {.max = 8};
    const struct hf_option o[] = {
        {"file", 'f', HF_OPT_LIST, &r.files, 0, 0, 0, NULL, "FILE|DIR|-", "what to look at; may be repeated"},
        {"kubeconfig", 0, HF_OPT_TEXT, r.kubeconfig, sizeof r.kubeconfig, 0, 0, NULL, "FILE",
         "look at a running cluster, with this account"},
        {"context", 0, HF_OPT_TEXT, r.context, sizeof r.context, 0, 0, NULL, "NAME", "of the kubeconfig (default: its current one)"},
        {"in-cluster", 0, HF_OPT_FLAG, &r.in_cluster, 0, 0, 0, NULL, NULL, "in a pod: with the pod's own account"},
        {"namespace", 'n', HF_OPT_TEXT, r.namespace, sizeof r.namespace, 0, 0, NULL, "NAMESPACE",
         "of the cluster (default: the context's)"},
        {"all-namespaces", 'A', HF_OPT_FLAG, &r.all, 0, 0, 0, NULL, NULL, "all of them"},
        {"fix", 0, HF_OPT_FLAG, &r.fix, 0, 0, 0, NULL, NULL,
         "write what can be mended into the files (of -f -: to stdout), all else byte for byte as it was"},
        {"stdout", 0, HF_OPT_FLAG, &r.to_stdout, 0, 0, 0, NULL, NULL, "with --fix: print instead of writing"},
        {"json", 0, HF_OPT_FLAG, &r.json, 0, 0, 0, NULL, NULL, "for programs"},
        {"sarif", 0, HF_OPT_FLAG, &r.sarif, 0, 0, 0, NULL, NULL, "for code review: SARIF 2.1.0"},
        {"ignore", 0, HF_OPT_LIST, &r.ignore, 0, 0, 0, "HOLDFAST_DOCTOR_IGNORE", "RULE", "be quiet about it; may be repeated"},
        {"fail-on", 0, HF_OPT_TEXT, r.fail_on, sizeof r.fail_on, 0, 0, NULL, "SEVERITY",
         "note, warning, error or never (default warning)"},
        {"rules", 0, HF_OPT_FLAG, &r.rules, 0, 0, 0, NULL, NULL, "list the rules"},
    };
    const struct hf_usage u = {"-f FILE|DIR|- | --kubeconfig FILE [flags]", text, o, sizeof o / sizeof *o};
    int status;

    if (!hf_cmd_parse(argc, argv, &u, &operands, &status))
        return status;
    for (unsigned i = 0; i < operands.n && r.files.n < HF_OPTION_LIST_MAX; i++)
        r.files.items[r.files.n++] = operands.items[i];
    status = check_usage(&r);
    if (status != 0)
        return status;
    if (r.rules) {
        print_rules(r.json);
        return 0;
    }
    return run(&r);
}
