/* The doctor with any manifest: it never crashes, and its fixes leave YAML that is still YAML and come to an end. */
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "doctor/doctor.h"

enum { ROUNDS_MAX = 300 };

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static char *copy_of(const void *data, size_t size)
{
    char *text = malloc(size + 1);

    if (text == NULL)
        abort();
    memcpy(text, data, size);
    text[size] = '\0';
    return text;
}

/* One round of fixes; the new text, or NULL: nothing to fix. */
static char *round_of(char *text, size_t *len, bool fix, bool was_whole, bool *whole)
{
    const struct hf_doctor_options o = {NULL, 0};
    struct hf_kube_set s = {0};
    struct hf_diagnosis d;
    struct hf_error err;
    char *next = NULL;
    size_t n = 0;

    if (hf_kube_set_add(&s, "input.yaml", text, *len, &err) != 0) {
        hf_kube_set_free(&s);
        return NULL;
    }
    *whole = !s.files[0]->broken;
    if (was_whole && !*whole)
        abort(); /* a fix broke it */
    if (hf_doctor_run(&d, &s, &o, &err) != 0)
        abort();
    for (size_t i = 0; i < d.n; i++)
        if (d.findings[i].rule == NULL || d.findings[i].detail == NULL || d.findings[i].line == 0)
            abort();
    json_decref(hf_doctor_json(&d));
    json_decref(hf_doctor_sarif(&d));
    if (fix && *whole && hf_doctor_fix(&d, s.files[0], &next, &n, &err) != 0)
        abort();
    hf_doctor_free(&d);
    hf_kube_set_free(&s);
    *len = n;
    return next;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    char *text = copy_of(data, size);
    bool whole = false;
    size_t len = size;

    for (int i = 0; text != NULL; i++) {
        if (i == ROUNDS_MAX)
            abort(); /* would go on for ever */
        text = round_of(text, &len, true, i > 0, &whole);
    }
    return 0;
}
