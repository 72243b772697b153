/* In a hand-over: what does a session really hold that would be free but for code whose effects are not known? */
#include <stdlib.h>
#include <string.h>

#include "router/login.h"
#include "router/survive_private.h"

bool hf_survive_is_probing(const struct hf_session *s)
{
    return s->survive != NULL && s->survive->probing;
}

/* Is that doubt all that keeps it? currval() does not (hf_holds_may_survive). */
static bool is_wanted(const struct hf_session *s)
{
    const uint32_t rest = ~(HF_HOLD_BIT(HF_HOLD_UNSURE) | HF_HOLD_BIT(HF_HOLD_SEQUENCE));

    return s->survive != NULL && !hf_survive_is_moving(s) && s->survive->filter == HF_FILTER_NONE &&
           (hf_holds_pins(s->holds) & HF_HOLD_BIT(HF_HOLD_UNSURE)) != 0 && (hf_holds_pins(s->holds) & rest) == 0 &&
           hf_holds_wants_probe(s->holds);
}

void hf_survive_probe(struct hf_session *s)
{
    struct hf_survive *v = s->survive;
    uint8_t *bytes;
    size_t len;

    if (!is_wanted(s))
        return;
    if (hf_holds_probe_make(&bytes, &len) != 0) {
        hf_holds_probe_failed(s->holds);
        return;
    }
    if (!hf_login_resume(s)) {
        free(bytes);
        return;
    }
    v->probing = true;
    v->probe_failed = true; /* until there is a row */
    v->probe_len = 0;
    hf_session_say_back(s, bytes, len);
    free(bytes);
}

/* The one column of a DataRow. */
static void hear_row(struct hf_survive *v, const uint8_t *body, size_t n)
{
    size_t len = n >= 6 ? hf_scan_number(body + 2) : 0;

    v->probe_failed = n < 6 || body[0] != 0 || body[1] != 1 || len != n - 6 || len > sizeof v->probe;
    if (v->probe_failed)
        return;
    memcpy(v->probe, body + 6, len);
    v->probe_len = len;
}

int hf_survive_hear_probe(struct hf_session *s, const uint8_t *p, size_t n)
{
    struct hf_survive *v = s->survive;

    switch (p[0]) {
    case 'D':
        hear_row(v, p + 5, n - 5);
        return 0;
    case 'E':
        v->probe_failed = true;
        v->probe_len = 0;
        return strncmp((const char *)p + 5, "SFATAL", 7) == 0 ? -1 : 0;
    case 'Z':
        v->probing = false;
        if (v->probe_failed)
            hf_holds_probe_failed(s->holds);
        else
            hf_holds_probe_read(s->holds, v->probe, v->probe_len);
        return 1;
    default:
        return 0;
    }
}
