/* What a startup packet says about holdfast.reads. Any client sends it. */
#include <ctype.h>
#include <string.h>
#include <strings.h>

#include "base/scan.h"
#include "router/reads.h"
#include "router/wire.h"

enum { TEXT_MAX = 64 /* of a name or a value; ours are shorter */ };

static const char name[] = "holdfast.reads";

static enum hf_reads value_of(const char *text)
{
    static const char *const words[] = {
        [HF_READS_LEADER] = "leader", [HF_READS_FOLLOWER] = "follower", [HF_READS_FRESH] = "fresh"};

    for (int i = HF_READS_LEADER; i <= HF_READS_FRESH; i++)
        if (strcasecmp(text, words[i]) == 0)
            return (enum hf_reads)i;
    return HF_READS_BAD;
}

/* The next word of `options`, as PostgreSQL splits it (pg_split_opts): blanks part words, a backslash keeps what follows it. What
 * does not fit is cut. False: there is none. */
static bool word(const char **at, char out[TEXT_MAX])
{
    const char *p = *at;
    size_t n = 0;

    while (isspace((unsigned char)*p))
        p++;
    if (*p == '\0')
        return false;
    for (; *p != '\0' && !isspace((unsigned char)*p); p++) {
        if (*p == '\\' && *++p == '\0')
            break;
        if (n < TEXT_MAX - 1)
            out[n++] = *p;
    }
    out[n] = '\0';
    *at = p;
    return true;
}

/* name=value, where PostgreSQL takes a dash for an underscore in the name. */
static bool is_ours(const char *setting, enum hf_reads *asked)
{
    const char *eq = strchr(setting, '=');

    if (eq == NULL || (size_t)(eq - setting) != sizeof name - 1 || strncasecmp(setting, name, sizeof name - 1) != 0)
        return false;
    *asked = value_of(eq + 1);
    return true;
}

static unsigned mentions(const char *text)
{
    unsigned n = 0;

    for (; *text != '\0'; text++)
        n += strncasecmp(text, name, sizeof name - 1) == 0;
    return n;
}

/* -c name=value, -cname=value, --name=value. Whatever else mentions the name is not understood: it might mean it to PostgreSQL. */
static enum hf_reads in_options(const char *options)
{
    enum hf_reads asked = HF_READS_UNSAID;
    unsigned known = 0, all = mentions(options);
    bool setting = false;
    char w[TEXT_MAX];

    while (word(&options, w)) {
        if (setting)
            known += is_ours(w, &asked);
        else if (strncmp(w, "--", 2) == 0 || (strncmp(w, "-c", 2) == 0 && w[2] != '\0'))
            known += is_ours(w + 2, &asked);
        setting = !setting && strcmp(w, "-c") == 0;
    }
    return known == all ? asked : HF_READS_BAD;
}

enum hf_reads hf_reads_asked(const uint8_t *packet, size_t len)
{
    const char *options = hf_startup_value(packet, len, "options");
    enum hf_reads asked = options != NULL ? in_options(options) : HF_READS_UNSAID;
    const char *key, *value;
    size_t at = 8;

    if (asked == HF_READS_BAD)
        return asked;
    while (hf_startup_pair(packet, len, &at, &key, &value))
        if (strcasecmp(key, name) == 0 && (asked = value_of(value)) == HF_READS_BAD)
            break;
    return asked; /* the last one counts, and those beside `options` after it, as in PostgreSQL */
}
