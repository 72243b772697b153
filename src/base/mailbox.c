#include "base/mailbox.h"

#include <stdlib.h>

struct letter {
    struct letter *next;
    hf_mailbox_fn fn;
    void *arg;
};

struct hf_mailbox {
    uv_async_t async;
    uv_mutex_t mutex;
    struct letter *first, **end;
};

void hf_mailbox_run(struct hf_mailbox *m)
{
    struct letter *l;

    uv_mutex_lock(&m->mutex);
    l = m->first;
    m->first = NULL;
    m->end = &m->first;
    uv_mutex_unlock(&m->mutex);
    while (l != NULL) {
        struct letter *next = l->next;
        l->fn(l->arg);
        free(l);
        l = next;
    }
}

static void async_cb(uv_async_t *async)
{
    hf_mailbox_run(async->data);
}

struct hf_mailbox *hf_mailbox_open(uv_loop_t *loop)
{
    struct hf_mailbox *m = calloc(1, sizeof *m);

    if (m == NULL)
        return NULL;
    m->end = &m->first;
    m->async.data = m;
    if (uv_mutex_init(&m->mutex) != 0) {
        free(m);
        return NULL;
    }
    if (uv_async_init(loop, &m->async, async_cb) != 0) {
        uv_mutex_destroy(&m->mutex);
        free(m);
        return NULL;
    }
    return m;
}

void hf_mailbox_post(struct hf_mailbox *m, hf_mailbox_fn fn, void *arg)
{
    struct letter *l = malloc(sizeof *l);

    if (l == NULL)
        abort();
    *l = (struct letter){.fn = fn, .arg = arg};
    uv_mutex_lock(&m->mutex);
    *m->end = l;
    m->end = &l->next;
    uv_mutex_unlock(&m->mutex);
    uv_async_send(&m->async);
}

static void closed_cb(uv_handle_t *handle)
{
    struct hf_mailbox *m = handle->data;

    uv_mutex_destroy(&m->mutex);
    free(m);
}

void hf_mailbox_close(struct hf_mailbox *m)
{
    hf_mailbox_run(m);
    uv_close((uv_handle_t *)&m->async, closed_cb);
}
