/* What the verbs share. A verb is `int hf_cmd_<verb>(int argc, char **argv)`: argv[0] is its name, and
 * it returns the exit status: 0 done, 1 failed, 2 wrong usage. */
#ifndef HF_CMD_CMD_H
#define HF_CMD_CMD_H

#include <jansson.h>
#include <stdbool.h>

#include "cmd/nodes.h"
#include "cmd/options.h"
#include "local/layout.h"

int hf_cmd_up(int argc, char **argv);
int hf_cmd_down(int argc, char **argv);
int hf_cmd_node(int argc, char **argv);
int hf_cmd_status(int argc, char **argv);
int hf_cmd_uri(int argc, char **argv);
int hf_cmd_sql(int argc, char **argv);
int hf_cmd_switchover(int argc, char **argv);
int hf_cmd_kill(int argc, char **argv);
int hf_cmd_start(int argc, char **argv);
int hf_cmd_logs(int argc, char **argv);
int hf_cmd_history(int argc, char **argv);
int hf_cmd_doctor(int argc, char **argv);
int hf_cmd_manifest(int argc, char **argv);
int hf_cmd_chaos(int argc, char **argv);
int hf_cmd_scale(int argc, char **argv);
int hf_cmd_certs(int argc, char **argv);
int hf_cmd_sessions(int argc, char **argv);
int hf_cmd_version(int argc, char **argv);
int hf_cmd_help(int argc, char **argv);
int hf_cmd_completion(int argc, char **argv);

/* The table of verbs, for help and completion; ends with a NULL name. */
struct hf_verb {
    const char *name, *summary;
    int (*run)(int argc, char **argv);
};
extern const struct hf_verb hf_verbs[];

/* How a verb is described. `usage` follows the verb's name; `text` is free. */
struct hf_usage {
    const char *usage, *text;
    const struct hf_option *options;
    unsigned n_options;
};

/* Parses. Returns true to go on; else *status is the exit status: help was printed, or usage was wrong
 * and stderr says how. */
bool hf_cmd_parse(int argc, char **argv, const struct hf_usage *u, struct hf_operands *operands,
                  int *status);
/* "holdfast: text" on stderr. Returns 2 for HF_EINVAL if `usage`, else 1. */
int hf_cmd_fail(const struct hf_error *err);
int hf_cmd_wrong_usage(const char *verb, const char *text);

/* Finds and loads the cluster of `holdfast up` that `dir` (may be "") means. For verbs that work elsewhere, too, see
 * hf_nodes_open(). */
int hf_cmd_open(struct hf_local *l, const char *dir, struct hf_error *err);

/* Takes `request`. For the answer see hf_admin_ask(); `answer` may be NULL: it does not matter. */
int hf_cmd_ask_node(const struct hf_local *l, unsigned ordinal, json_t *request, int timeout_ms,
                    json_t **answer, struct hf_error *err);
int hf_cmd_ask_supervisor(const struct hf_local *l, json_t *request, int timeout_ms, json_t **answer,
                          struct hf_error *err);

const char *hf_json_text(const json_t *o, const char *key);  /* "" if it is not there */
json_int_t hf_json_number(const json_t *o, const char *key); /* 0 if it is not there */

/* 0/16B3748 */
void hf_lsn_text(json_int_t lsn, char out[32]);
/* Does this stream take colours and moving cursors? NO_COLOR and TERM=dumb say no. */
bool hf_cmd_is_terminal(FILE *f);
void hf_cmd_sleep_ms(unsigned ms);
/* Milliseconds since some moment. */
unsigned long hf_cmd_now_ms(void);
/* The last ERROR, else WARN line of a node's log, without its time; false: none. */
bool hf_cmd_last_complaint(const struct hf_local *l, unsigned ordinal, char *out, size_t cap);
/* postgresql://... of the nodes [first, last]. `read_only`: followers' ports. */
void hf_cmd_uri_text(const struct hf_local *l, unsigned first, unsigned last, bool read_only,
                     bool admin, char *out, size_t cap);

enum { HF_URI_MAX = 1024 };

#define HF_DIR_OPTION_SAYING(buf, text) \
    {"dir", 0, HF_OPT_TEXT, (buf), sizeof(buf), 0, 0, "HOLDFAST_DIR", "DIR", text}
#define HF_DIR_OPTION(buf) \
    HF_DIR_OPTION_SAYING(buf, "the cluster's directory (default " HF_LOCAL_DIR ")")
/* Of verbs that hf_nodes_open() serves. */
#define HF_NODES_DIR_OPTION(buf) \
    HF_DIR_OPTION_SAYING(buf, "the cluster's directory (default " HF_LOCAL_DIR "), or a single node's (default in a pod)")

#endif
