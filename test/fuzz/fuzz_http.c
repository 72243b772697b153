/* The operations port behind libmicrohttpd: any path and any max_lag are answered, a follower is
 * said to be near enough only for a number that says so, and what Prometheus reads is whole lines.
 * The input: how far this node is, then the path, a NUL, and max_lag. */
#include "input.h"

#define HF_VERSION "fuzz"
#include "../../src/node_http.c"

#include "../unit/local/http_world.h"

/* -- the test -----------------------------------------------------------------------------------
 */

/* A reader of decimal numbers of its own. More digits than a number of 64 bits has: 400. */
static bool is_number(const char *text, unsigned __int128 *v)
{
    *v = 0;
    for (const char *p = text; *p != '\0'; p++) {
        if (*p < '0' || *p > '9' || *v > UINT64_MAX)
            return false;
        *v = *v * 10 + (unsigned)(*p - '0');
    }
    return *text != '\0' && *v <= UINT64_MAX;
}

static void node_of(struct hf_node *n, struct input *in)
{
    static const struct hf_node_config config = {.name = "demo-1"};
    unsigned how = input_byte(in);
    uint64_t lag = 0;

    for (int i = 0; i < 8; i++)
        lag = lag << 8 | input_byte(in);
    world.readable = how & 1;
    world.gate_open = how & 2;
    world.cluster.n_members = 3;
    world.durable.self = 2;
    for (unsigned i = 0; i < world.cluster.n_members; i++) {
        world.cluster.members[i].id = i + 1;
        memset(world.cluster.members[i].name, 'n', HF_NAME_MAX - 1);
        n->flushed[i].id = i + 1;
    }
    world.view = (struct hf_view){
        .cluster = &world.cluster, .durable = &world.durable, .leading = how & 4, .leader = how >> 6};
    n->config = &config;
    n->decide = how & 8 ? (struct hf_decide *)&world.view : NULL;
    n->streaming = how & 16;
    if (how & 32)
        hf_lag_heard(&n->reads.lag, 1000 + lag < lag ? lag : 1000 + lag, 1000, 1);
}

static void check_follower(const struct hf_node *n, const char *max_lag, unsigned status)
{
    uint64_t lag = n->reads.lag.end > n->reads.lag.applied ? n->reads.lag.end - n->reads.lag.applied : 0;
    bool could = n->decide != NULL && world.readable;
    unsigned __int128 most;

    if (max_lag == NULL)
        MUST(status == (could ? 200 : 503));
    else if (!is_number(max_lag, &most))
        MUST(status == 400);
    else
        MUST(status == (could && n->streaming && n->reads.lag.heard_ns != 0 && lag <= most ? 200 : 503));
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static struct hf_node n;
    struct input in = {data, size};
    struct hf_http_answer a = {0};
    char *path, *max_lag;

    memset(&n, 0, sizeof n);
    node_of(&n, &in);
    path = input_block(&in, 0, NULL);
    max_lag = in.n > 0 ? input_block(&in, 0, NULL) : NULL;
    hf_node_http(&n, path, max_lag, &a);
    MUST(a.text != NULL && a.type != NULL && a.text[0] != '\0');
    MUST(a.status == 200 || a.status == 400 || a.status == 404 || a.status == 503);
    if (strcmp(path, "/follower") == 0)
        check_follower(&n, max_lag, a.status);
    if (strcmp(path, "/metrics") == 0 || a.status != 200)
        MUST(a.text[strlen(a.text) - 1] == '\n');
    free(a.text);
    free(path);
    free(max_lag);
    return 0;
}
