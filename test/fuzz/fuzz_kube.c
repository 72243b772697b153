/* What a pod learns from Kubernetes' API and from a kubeconfig: numbers of pods as they stand there
 * or none, and nothing left behind when a file makes no sense. The input: which; then the answer's
 * status and pieces, or the files, each ended by 0xff. */
#include "files.h"

#include "../../src/kube/api.c"

static void answer(struct input *in)
{
    struct answer a = {.status = input_byte(in) & 1 ? 200 : 404};
    struct hf_kube_scale scale = {77, 77};
    size_t cut = input_byte(in) + 1;
    struct hf_error err;
    json_t *o;

    while (in->n > 0) {
        size_t n = in->n < cut ? in->n : cut;
        char *block = malloc(n);
        MUST(block != NULL);
        memcpy(block, in->p, n);
        MUST(take_bytes(block, 1, n, &a) == n);
        free(block);
        in->p += n;
        in->n -= n;
    }
    MUST(a.text == NULL || (strlen(a.text) <= a.len && a.len < a.room));
    if (understand(&a, "demo", &scale, &err) != 0) {
        MUST(scale.replicas == 77 && err.text[0] != '\0');
    } else {
        o = json_loads(a.text, 0, NULL);
        MUST(json_integer_value(json_object_get(json_object_get(o, "spec"), "replicas")) ==
             (json_int_t)scale.replicas);
        MUST(scale.first <= INT_MAX);
        json_decref(o);
    }
    free(a.text);
}

static void config(struct input *in)
{
    struct hf_kube_access a = {0};
    struct hf_error err;

    files = in;
    if (hf_kube_access_of_file(&a, "/etc/config", input_byte(in) & 1 ? "" : "second", &err) == 0) {
        MUST(a.server != NULL && a.namespace != NULL && (a.token != NULL || a.cert != NULL));
        MUST(a.ca == NULL || strlen(a.ca) <= 1024 * 1024);
    } else {
        MUST(err.text[0] != '\0');
    }
    hf_kube_access_forget(&a);
    MUST(a.server == NULL && a.token == NULL);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct input in = {data, size};

    if (input_byte(&in) & 1)
        answer(&in);
    else
        config(&in);
    files_forget();
    return 0;
}
