/* What a node and a local cluster remember on disk, as an accident may have left it: what is taken
 * is what would be written, number for number and letter for letter, and all else is refused. The
 * input: which file, then its text. */
#include "files.h"

#include <ctype.h>
#include <unistd.h>

#include "local/layout.h"
#include "local/user.h"
#include "node_private.h"

int access(const char *path, int how) /* every file is there */
{
    (void)path;
    (void)how;
    return 0;
}

bool hf_user_can_enter(const char *dir)
{
    (void)dir;
    return true;
}

/* The texts in `was` are those that would be written again; numbers may have had zeros in front,
 * and hex big letters. */
static void same_texts(const json_t *was, const json_t *again)
{
    const char *key;
    json_t *v;

    json_object_foreach((json_t *)again, key, v)
    {
        const json_t *old = json_object_get(was, key);
        const char *a = json_string_value(v), *b = json_string_value(old);
        MUST(old != NULL && json_typeof(old) == json_typeof(v));
        if (a == NULL)
            continue;
        while (b[0] == '0' && b[1] != '\0' && strlen(b) > strlen(a))
            b++;
        MUST(strcasecmp(a, b) == 0);
    }
}

static void state(struct input in)
{
    struct input file = in, second;
    struct hf_durable d, again;
    struct hf_error err;
    json_t *was, *is;
    bool exists;

    files = &file;
    if (hf_state_load("d", &d, &exists, &err) != 0) {
        MUST(err.text[0] != '\0');
        return;
    }
    MUST(exists && hf_state_save("d", &d, &err) == 0);
    was = json_loadb((const char *)in.p, in.n - file.n - (file.n > 0 || in.p[in.n - 1] == 0xff), 0,
                     NULL);
    is = json_loadb(written, written_len, 0, NULL);
    MUST(was != NULL && is != NULL && json_is_integer(json_object_get(was, "version")));
    same_texts(was, is);
    json_decref(was);
    json_decref(is);
    second = (struct input){(const uint8_t *)written, written_len};
    files = &second;
    MUST(hf_state_load("d", &again, &exists, &err) == 0 && exists);
    MUST(memcmp(&again, &d, sizeof d) == 0);
}

static void founding(struct input in)
{
    struct hf_member m[HF_MEMBERS_MAX], again[HF_MEMBERS_MAX];
    struct input file = in, second;
    struct hf_error err;
    unsigned n, n_again;

    files = &file;
    if (hf_founding_load("d", m, &n, &err) != 0)
        return;
    MUST(n > 0 && n <= HF_MEMBERS_MAX); /* an empty list would mean that nothing was founded */
    for (unsigned i = 0; i < n; i++)
        MUST(m[i].voter && strlen(m[i].name) < HF_NAME_MAX && strlen(m[i].peer) < HF_ADDR_MAX);
    MUST(hf_founding_save("d", m, n, &err) == 0);
    second = (struct input){(const uint8_t *)written, written_len};
    files = &second;
    MUST(hf_founding_load("d", again, &n_again, &err) == 0 && n_again == n);
    MUST(memcmp(m, again, n * sizeof *m) == 0);
}

static void cluster(struct input in)
{
    char path[HF_PATH_MAX], *first;
    struct hf_local l, again;
    struct hf_error err;
    struct input second;

    files = &in;
    if (hf_local_load(&l, "/d", &err) != 0)
        return;
    MUST(l.port >= 1 && l.port <= 65535 && l.replicas >= 1 && l.replicas <= HF_MEMBERS_MAX);
    MUST(l.n_settings <= HF_LOCAL_SETTINGS_MAX && strcmp(l.dir, "/d") == 0);
    for (unsigned i = 0; i < HF_MEMBERS_MAX; i++) {
        char name[HF_NAME_MAX];
        hf_local_node_name(&l, i, name);
        MUST(hf_local_ordinal(&l, name) == (int)i);
        MUST(hf_local_port(&l, i, HF_PORT_PEER) <= 65535);
        hf_local_node_path(&l, i, "", path);
        MUST(strncmp(path, "/d/", 3) == 0 && strchr(path + 3, '/') == NULL); /* it may be removed */
    }
    MUST(hf_local_save(&l, &err) == 0);
    first = strdup(written);
    second = (struct input){(const uint8_t *)first, strlen(first)};
    files = &second;
    MUST(hf_local_load(&again, "/d", &err) == 0 && hf_local_save(&again, &err) == 0);
    MUST(strcmp(first, written) == 0);
    free(first);
    hf_local_free(&l);
    hf_local_free(&again);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct input in = {data, size};
    unsigned which = input_byte(&in);

    if (in.n == 0)
        return 0;
    if (which % 3 == 0)
        state(in);
    else if (which % 3 == 1)
        founding(in);
    else
        cluster(in);
    files_forget();
    return 0;
}
