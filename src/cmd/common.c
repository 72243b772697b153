#include "cmd/cmd.h"

#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "admin/admin.h"
#include "base/clock.h"

/* -- usage ------------------------------------------------------------------------------------------- */

static void print_help(FILE *f, const char *verb, const struct hf_usage *u)
{
    fprintf(f, "usage: holdfast %s %s\n\n%s", verb, u->usage, u->text);
    if (u->n_options > 0) {
        fprintf(f, "\nflags ([NAME] is an environment variable that does the same):\n");
        hf_options_print(f, u->options, u->n_options);
    }
}

bool hf_cmd_parse(int argc, char **argv, const struct hf_usage *u, struct hf_operands *operands,
                  int *status)
{
    struct hf_error err;
    int rv = hf_options_parse(u->options, u->n_options, argc, argv, operands, &err);

    if (rv == 0)
        return true;
    if (rv > 0) {
        print_help(stdout, argv[0], u);
        *status = 0;
    } else {
        fprintf(stderr, "holdfast: %s\nusage: holdfast %s %s\n", err.text, argv[0], u->usage);
        *status = 2;
    }
    return false;
}

int hf_cmd_fail(const struct hf_error *err)
{
    fprintf(stderr, "holdfast: %s\n", err->text);
    return 1;
}

int hf_cmd_wrong_usage(const char *verb, const char *text)
{
    fprintf(stderr, "holdfast: %s: %s (hint: `holdfast %s --help`)\n", verb, text, verb);
    return 2;
}

/* -- asking ------------------------------------------------------------------------------------------ */

int hf_cmd_open(struct hf_local *l, const char *dir, struct hf_error *err)
{
    const char *node = getenv("HOLDFAST_NODE_DIR");
    char path[HF_PATH_MAX], socket[HF_PATH_MAX];
    bool fallback;
    int rv = hf_local_find(path, dir, "demo", &fallback, err);

    if (rv == 0)
        rv = hf_local_load(l, path, err);
    if (rv == HF_ENOENT && hf_nodes_alone(dir, socket))
        return hf_fail(err, rv, "a node runs here by itself, and this verb is for a cluster of `holdfast up` (hint: "
                                "status, history, sessions, switchover and scale work here; for the rest see "
                                "docs/kubernetes.md)");
    if (rv == HF_ENOENT && dir[0] == '\0' && node != NULL && node[0] != '\0')
        return hf_fail(err, rv, "%s: no node runs there (hint: its log says why)", node);
    return rv;
}

static int ask(const char *path, json_t *request, int timeout_ms, json_t **answer,
               struct hf_error *err)
{
    json_t *unread = NULL;
    int rv = hf_admin_ask(path, request, timeout_ms, answer != NULL ? answer : &unread, err);

    json_decref(unread);
    json_decref(request);
    return rv;
}

int hf_cmd_ask_node(const struct hf_local *l, unsigned ordinal, json_t *request, int timeout_ms,
                    json_t **answer, struct hf_error *err)
{
    char path[HF_PATH_MAX];

    hf_local_node_path(l, ordinal, "admin.sock", path);
    return ask(path, request, timeout_ms, answer, err);
}

int hf_cmd_ask_supervisor(const struct hf_local *l, json_t *request, int timeout_ms, json_t **answer,
                          struct hf_error *err)
{
    char path[HF_PATH_MAX];
    int rv;

    hf_local_path(l, "up.sock", path);
    rv = ask(path, request, timeout_ms, answer, err);
    if (rv == HF_ENOENT)
        return hf_fail(err, rv, "cluster %s in %s is not up (hint: `holdfast up`)", l->name, l->dir);
    return rv;
}

const char *hf_json_text(const json_t *o, const char *key)
{
    const char *v = json_string_value(json_object_get(o, key));

    return v != NULL ? v : "";
}

json_int_t hf_json_number(const json_t *o, const char *key)
{
    return json_integer_value(json_object_get(o, key));
}

/* -- text -------------------------------------------------------------------------------------------- */

void hf_lsn_text(json_int_t lsn, char out[32])
{
    (void)snprintf(out, 32, "%llX/%llX", (unsigned long long)lsn >> 32,
                   (unsigned long long)lsn & 0xffffffffu);
}

bool hf_cmd_is_terminal(FILE *f)
{
    const char *no = getenv("NO_COLOR"), *term = getenv("TERM");

    return isatty(fileno(f)) && (no == NULL || no[0] == '\0') &&
           (term == NULL || strcmp(term, "dumb") != 0);
}

void hf_cmd_sleep_ms(unsigned ms)
{
    struct timespec t = {ms / 1000, (long)(ms % 1000) * 1000000};

    (void)nanosleep(&t, NULL);
}

unsigned long hf_cmd_now_ms(void)
{
    return (unsigned long)(hf_clock_ns() / 1000000u);
}

bool hf_cmd_last_complaint(const struct hf_local *l, unsigned ordinal, char *out, size_t cap)
{
    static const char *const levels[] = {" ERROR ", " WARN  "};
    char path[HF_PATH_MAX], text[16384], line[1024];
    size_t n, best = 2;
    FILE *f;
    char *rest, *at;

    hf_local_node_path(l, ordinal, "log/node.log", path);
    f = fopen(path, "re");
    if (f == NULL)
        return false;
    if (fseek(f, -(long)(sizeof text - 1), SEEK_END) != 0)
        rewind(f);
    n = fread(text, 1, sizeof text - 1, f);
    (void)fclose(f);
    text[n] = '\0';
    for (at = strtok_r(text, "\n", &rest); at != NULL; at = strtok_r(NULL, "\n", &rest)) {
        for (size_t i = 0; i <= best && i < 2; i++) {
            const char *hit = strstr(at, levels[i]);
            if (hit == NULL)
                continue;
            best = i;
            (void)snprintf(line, sizeof line, "%s", hit + strlen(levels[i]));
        }
        /* Not a record of ours: what the program said before it could log. */
        if (best == 2 && strncmp(at, "holdfast: ", 10) == 0) {
            best = 1;
            (void)snprintf(line, sizeof line, "%s", at + 10);
        }
    }
    if (best == 2)
        return false;
    (void)snprintf(out, cap, "%s", line);
    return true;
}

void hf_cmd_uri_text(const struct hf_local *l, unsigned first, unsigned last, bool read_only,
                     bool admin, char *out, size_t cap)
{
    const struct hf_node_accounts *a = &l->accounts;
    size_t n;

    n = (size_t)snprintf(out, cap, "postgresql://%s:%s@", admin ? a->admin_role : a->app_role,
                         admin ? a->admin_password : a->app_password);
    for (unsigned i = first; i <= last && n < cap; i++)
        n += (size_t)snprintf(out + n, cap - n, "%s127.0.0.1:%u", i > first ? "," : "",
                              hf_local_port(l, i, read_only ? HF_PORT_READ_ONLY : HF_PORT_SQL));
    if (n < cap)
        (void)snprintf(out + n, cap - n, "/%s", a->app_database);
}
