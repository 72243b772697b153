#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "cmd/chaos.h"
#include "cmd/cmd.h"

static const char *const fault_names[HF_CHAOS_N_FAULTS] = {"kill node", "stop node", "switchover",
                                                           "kill PostgreSQL"};

/* -- for people -------------------------------------------------------------------------------------- */

void hf_chaos_tell(const struct hf_chaos *c, const struct hf_chaos_done *d)
{
    char name[HF_NAME_MAX], more[32] = "";

    if (c->json)
        return;
    hf_local_node_name(&c->local, d->node, name);
    if (d->fault == HF_CHAOS_STOP_NODE)
        (void)snprintf(more, sizeof more, " %u ms", d->stop_ms);
    printf("%7.1f s  %-16s %-10s %-8s  longest wait %5lu ms, %s %5.1f s%s\n", (double)d->at_ms / 1000,
           fault_names[d->fault], name, d->leader ? "leader" : "follower", d->gap_ms,
           d->whole ? "whole after" : "not whole in", (double)d->whole_ms / 1000, more);
    (void)fflush(stdout);
}

static void print_copies(const struct hf_chaos *c, const struct hf_chaos_verdict *v)
{
    char name[HF_NAME_MAX];

    if (v->n_copies > 0 && v->bad_copies == 0)
        printf("the same in each of the %u nodes' own copies\n", v->n_copies);
    for (unsigned i = 0; i < v->n_copies; i++) {
        const struct hf_chaos_copy *copy = &v->copies[i];
        hf_local_node_name(&c->local, i, name);
        if (!copy->compared)
            printf("%s: its own copy was not compared: %s\n", name, copy->why.text);
        else if (copy->lost != 0 || copy->doubled != 0)
            printf("%s: in its own copy %" PRIu64 " acknowledged rows lost, %" PRIu64 " rows doubled\n", name,
                   copy->lost, copy->doubled);
    }
}

static void print_report(const struct hf_chaos *c, const struct hf_chaos_verdict *v, bool interrupted)
{
    printf("\n%u faults%s; %" PRIu64 " rows acknowledged, %" PRIu64 " of unknown fate; longest time without an "
           "acknowledgement %lu ms\n", c->n_done, interrupted ? ", then interrupted" : "", v->acked, v->unknown,
           v->longest_ms);
    if (v->read)
        printf("%" PRIu64 " acknowledged rows lost, %" PRIu64 " rows doubled\n", v->lost, v->doubled);
    else
        printf("the rows could not be read (the table holdfast_chaos is kept)\n");
    print_copies(c, v);
    if (v->lost != 0)
        printf("the first lost row is %" PRIu64 " (the table holdfast_chaos is kept)\n", v->first_lost);
}

/* -- for programs ------------------------------------------------------------------------------------ */

static json_t *faults_json(const struct hf_chaos *c)
{
    json_t *faults = json_array();

    for (unsigned i = 0; i < c->n_done; i++) {
        const struct hf_chaos_done *d = &c->done[i];
        char name[HF_NAME_MAX];
        json_t *o;
        hf_local_node_name(&c->local, d->node, name);
        o = json_pack("{s:s,s:s,s:s,s:I,s:I,s:b,s:I}", "fault", fault_names[d->fault], "node", name, "role",
                      d->leader ? "leader" : "follower", "at_ms", (json_int_t)d->at_ms, "longest_wait_ms",
                      (json_int_t)d->gap_ms, "whole", (int)d->whole, "whole_ms", (json_int_t)d->whole_ms);
        if (d->fault == HF_CHAOS_STOP_NODE)
            (void)json_object_set_new(o, "stopped_ms", json_integer((json_int_t)d->stop_ms));
        (void)json_array_append_new(faults, o);
    }
    return faults;
}

static json_t *copies_json(const struct hf_chaos *c, const struct hf_chaos_verdict *v)
{
    json_t *copies = json_array();

    for (unsigned i = 0; i < v->n_copies; i++) {
        const struct hf_chaos_copy *copy = &v->copies[i];
        char name[HF_NAME_MAX];
        hf_local_node_name(&c->local, i, name);
        (void)json_array_append_new(
            copies, copy->compared ? json_pack("{s:s,s:b,s:I,s:I}", "node", name, "compared", 1, "lost",
                                               (json_int_t)copy->lost, "doubled", (json_int_t)copy->doubled)
                                   : json_pack("{s:s,s:b,s:s}", "node", name, "compared", 0, "error",
                                               copy->why.text));
    }
    return copies;
}

static void print_json(const struct hf_chaos *c, const struct hf_chaos_verdict *v, bool interrupted, bool ok)
{
    json_t *o = json_pack("{s:s,s:i,s:i,s:b,s:o,s:I,s:I,s:I}", "cluster", c->local.name, "seed", (int)c->seed,
                          "seconds", (int)c->seconds, "interrupted", (int)interrupted, "faults", faults_json(c),
                          "acknowledged", (json_int_t)v->acked, "unknown", (json_int_t)v->unknown,
                          "longest_wait_ms", (json_int_t)v->longest_ms);

    (void)json_object_set_new(o, "lost", v->read ? json_integer((json_int_t)v->lost) : json_null());
    (void)json_object_set_new(o, "doubled", v->read ? json_integer((json_int_t)v->doubled) : json_null());
    (void)json_object_set_new(o, "copies", copies_json(c, v));
    (void)json_object_set_new(o, "ok", json_boolean(ok));
    (void)json_dumpf(o, stdout, JSON_INDENT(2) | JSON_PRESERVE_ORDER);
    printf("\n");
    json_decref(o);
}

void hf_chaos_report(struct hf_chaos *c, const struct hf_chaos_verdict *v, bool ok)
{
    bool interrupted = hf_chaos_interrupted(&c->interrupt) != 0;

    if (c->json)
        print_json(c, v, interrupted, ok);
    else
        print_report(c, v, interrupted);
}
