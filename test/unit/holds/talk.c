#include "talk.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static uint32_t be32(const uint8_t *p)
{
    return (uint32_t)p[0] << 24 | (uint32_t)p[1] << 16 | (uint32_t)p[2] << 8 | p[3];
}

static void begin(struct talk *t, const void *packet, size_t n, bool alone)
{
    *t = (struct talk){.cache = hf_sql_cache_new(1 << 20)};
    t->h = hf_holds_new(t->cache, packet, n);
    t->cut = alone ? NULL : hf_holds_new(t->cache, packet, n);
    assert_non_null(t->h);
    assert_by(t, HF_HOLD_START);
    s_parameter(t, "standard_conforming_strings", "on");
    s_parameter(t, "client_encoding", "UTF8");
    s_parameter(t, HF_HOLDS_PARAMETER, "none");
    s_ready(t, 'I');
    assert_free(t);
}

static const uint8_t login[] = "\0\0\0\x12\0\3\0\0user\0me\0";

void talk_begin(struct talk *t)
{
    begin(t, login, sizeof login, false);
}

void talk_begin_alone(struct talk *t)
{
    begin(t, login, sizeof login, true);
}

void talk_begin_with(struct talk *t, const void *packet, size_t n)
{
    begin(t, packet, n, false);
}

void talk_end(struct talk *t)
{
    hf_holds_free(t->h);
    hf_holds_free(t->cut);
    hf_sql_cache_free(t->cache);
}

/* -- messages ---------------------------------------------------------------------------------- */

static void same(const struct talk *t)
{
    struct talk other = *t;
    char *a, *b;

    assert_int_equal(hf_holds_by(t->h), hf_holds_by(t->cut));
    assert_int_equal(hf_holds_pins(t->h), hf_holds_pins(t->cut));
    assert_int_equal(hf_holds_doing(t->h), hf_holds_doing(t->cut));
    other.h = t->cut;
    a = talk_remake(t);
    b = talk_remake(&other);
    assert_string_equal(a, b);
    free(a);
    free(b);
}

void talk_message(struct talk *t, bool client, char type, const void *body, size_t len)
{
    uint8_t *m = malloc(len + 5);

    assert_non_null(m);
    m[0] = (uint8_t)type;
    for (unsigned i = 0; i < 4; i++)
        m[1 + i] = (uint8_t)((len + 4) >> (24 - 8 * i));
    if (len > 0)
        memcpy(m + 5, body, len);
    hf_sql_cache_turn(t->cache);
    if (client)
        hf_holds_client(t->h, m, len + 5);
    else
        hf_holds_server(t->h, m, len + 5);
    for (size_t i = 0; i < len + 5 && t->cut != NULL; i++) {
        if (client)
            hf_holds_client(t->cut, m + i, 1);
        else
            hf_holds_server(t->cut, m + i, 1);
    }
    free(m);
    if (t->cut != NULL)
        same(t);
}

/* Strings, each with its NUL, and bytes behind them. */
static void strings(struct talk *t, bool client, char type, const char *a, const char *b,
                    const void *rest, size_t n)
{
    uint8_t body[4096];
    size_t len = strlen(a) + 1;

    memcpy(body, a, len);
    if (b != NULL) {
        memcpy(body + len, b, strlen(b) + 1);
        len += strlen(b) + 1;
    }
    if (n > 0)
        memcpy(body + len, rest, n);
    talk_message(t, client, type, body, len + n);
}

void c_query(struct talk *t, const char *text)
{
    talk_message(t, true, 'Q', text, strlen(text) + 1);
}

void c_parse(struct talk *t, const char *name, const char *text)
{
    strings(t, true, 'P', name, text, "\0\1\0\0\0\x17", 6);
}

void c_bind(struct talk *t, const char *portal, const char *statement)
{
    strings(t, true, 'B', portal, statement, "\0\0\0\0\0\0", 6);
}

static void kind_and_name(struct talk *t, char type, char kind, const char *name)
{
    char body[256];
    int n = snprintf(body, sizeof body, "%c%s", kind, name);

    talk_message(t, true, type, body, (size_t)n + 1);
}

void c_describe(struct talk *t, char kind, const char *name)
{
    kind_and_name(t, 'D', kind, name);
}

void c_execute(struct talk *t, const char *portal)
{
    strings(t, true, 'E', portal, NULL, "\0\0\0\0", 4);
}

void c_close(struct talk *t, char kind, const char *name)
{
    kind_and_name(t, 'C', kind, name);
}

void c_plain(struct talk *t, char type)
{
    talk_message(t, true, type, NULL, 0);
}

void c_sync(struct talk *t)
{
    c_plain(t, 'S');
}

void s_complete(struct talk *t, const char *tag)
{
    talk_message(t, false, 'C', tag, strlen(tag) + 1);
}

void s_ready(struct talk *t, char status)
{
    talk_message(t, false, 'Z', &status, 1);
}

void s_error(struct talk *t, const char *sqlstate)
{
    char body[64];
    int n = snprintf(body, sizeof body, "SERROR%cC%s%cMwrong%c", 0, sqlstate, 0, 0);

    talk_message(t, false, 'E', body, (size_t)n + 1);
}

void s_parameter(struct talk *t, const char *name, const char *value)
{
    strings(t, false, 'S', name, value, NULL, 0);
}

void s_row(struct talk *t, const char *value)
{
    uint8_t body[256] = {0, 1, 0, 0, 0, (uint8_t)strlen(value)};

    memcpy(body + 6, value, strlen(value));
    talk_message(t, false, 'D', body, 6 + strlen(value));
}

void s_plain(struct talk *t, char type)
{
    talk_message(t, false, type, NULL, 0);
}

void ran(struct talk *t, const char *text, const char *tag, char status)
{
    c_query(t, text);
    s_complete(t, tag);
    s_ready(t, status);
}

void failed(struct talk *t, const char *text, const char *sqlstate, char status)
{
    c_query(t, text);
    s_error(t, sqlstate);
    s_ready(t, status);
}

/* -- what makes it again ----------------------------------------------------------------------- */

char *talk_remake(const struct talk *t)
{
    uint8_t *bytes;
    size_t len, out_len;
    unsigned steps, seen = 0;
    bool run = false; /* the unnamed statement is there, and we have run it */
    char *out;
    FILE *f = open_memstream(&out, &out_len);

    assert_non_null(f);
    assert_int_equal(hf_holds_remake(t->h, &bytes, &len, &steps), 0);
    for (size_t at = 0; at < len;) {
        size_t n = be32(bytes + at + 1);
        const char *name = (const char *)bytes + at + 5;
        assert_true(at + 1 + n <= len);
        if (bytes[at] == 'P' && name[0] != '\0')
            (void)fprintf(f, "%s: ", name);
        if (bytes[at] == 'P')
            (void)fprintf(f, "%s\n", name + strlen(name) + 1);
        if (bytes[at] == 'B')
            run = true;
        else if ((bytes[at] == 'P' && name[0] == '\0') || (bytes[at] == 'C' && memcmp(name, "S", 2) == 0))
            run = false;
        seen += bytes[at] == 'S';
        at += 1 + n;
    }
    assert_int_equal(seen, steps);
    assert_false(run); /* a client that binds it would run it again */
    (void)fclose(f);
    free(bytes);
    return out;
}

/* -- scripts ----------------------------------------------------------------------------------- */

/* The next word of a line, "-" as an empty one; the line goes on behind it. */
static const char *word(char **line)
{
    char *w = *line, *end = strchr(w, ' ');

    *line = end != NULL ? end + 1 : w + strlen(w);
    if (end != NULL)
        *end = '\0';
    return strcmp(w, "-") == 0 ? "" : w;
}

static void play_client(struct talk *t, char *line)
{
    const char *type = word(&line), *a;

    if (strcmp(type, "run") == 0) {
        c_parse(t, "", line);
        c_bind(t, "", "");
        c_execute(t, "");
    } else if (type[0] == 'Q') {
        c_query(t, line);
    } else if (type[0] == 'P') {
        a = word(&line);
        c_parse(t, a, line);
    } else if (type[0] == 'B') {
        a = word(&line);
        c_bind(t, a, word(&line));
    } else if (type[0] == 'E') {
        c_execute(t, word(&line));
    } else if (type[0] == 'D' || type[0] == 'C') {
        a = word(&line);
        (type[0] == 'D' ? c_describe : c_close)(t, a[0], word(&line));
    } else {
        assert_int_equal(strlen(type), 1);
        c_plain(t, type[0]);
    }
}

static void play_server(struct talk *t, char *line)
{
    const char *type = word(&line), *a;

    if (strcmp(type, "ran") == 0) {
        s_plain(t, '1');
        s_plain(t, '2');
        s_complete(t, line);
    } else if (strcmp(type, "held") == 0) {
        s_parameter(t, HF_HOLDS_PARAMETER, line);
    } else if (type[0] == 'C') {
        s_complete(t, line);
    } else if (type[0] == 'Z') {
        assert_int_equal(strlen(line), 1);
        s_ready(t, line[0]);
    } else if (type[0] == 'E') {
        s_error(t, line);
    } else if (type[0] == 'D') {
        s_row(t, line);
    } else if (type[0] == 'S') {
        a = word(&line);
        s_parameter(t, a, line);
    } else {
        for (; type[0] != '\0'; type = word(&line)) {
            assert_int_equal(strlen(type), 1);
            s_plain(t, type[0]);
        }
    }
}

static void play_query(struct talk *t, char *line)
{
    char *answer = strstr(line, " => ");
    size_t len;

    assert_non_null(answer);
    *answer = '\0';
    answer += 4;
    len = strlen(answer);
    assert_true(len >= 2 && answer[len - 2] == ' ');
    answer[len - 2] = '\0';
    if (answer[0] == '!')
        failed(t, line, answer + 1, answer[len - 1]);
    else
        ran(t, line, answer, answer[len - 1]);
}

static bool is_doing(const struct talk *t, const char *what)
{
    static const char *const names[] = {[HF_DOING_NOTHING] = "nothing",
                                        [HF_DOING_READ] = "read",
                                        [HF_DOING_TRANSACTION] = "transaction",
                                        [HF_DOING_COMMIT] = "commit"};

    return strcmp(names[hf_holds_doing(t->h)], what) == 0;
}

static bool is_owed(const struct hf_holds *h, const char *what)
{
    struct hf_owed o = hf_holds_owed(h);
    char is[32];

    (void)snprintf(is, sizeof is, "%u%s%s%s%s%s", o.ready, o.batch ? "b" : "", o.batch && o.certain ? "c" : "", o.batch && o.answered && !o.failed ? "a" : "",
                   o.failed ? "f" : "", hf_holds_stays_inside(h) ? "i" : "");
    return strcmp(is, what) == 0;
}

/* Takes its line off what is to come of `*made`. */
static bool is_step(char **made, const char *step)
{
    size_t len = strlen(step);

    if (strncmp(*made, step, len) != 0 || (len > 0 && (*made)[len] != '\n'))
        return false;
    *made += len + (len > 0);
    return true;
}

/* `*made`: what makes the session again, where the line before was about that too. */
static bool play_line(struct talk *t, char *line, char **made)
{
    const char *hold = line + 2;

    switch (line[0]) {
    case '*':
        play_query(t, line + 2);
        return true;
    case '>':
        play_client(t, line + 2);
        return true;
    case '<':
        play_server(t, line + 2);
        return true;
    case '=':
        return strcmp(hf_hold_name(hf_holds_by(t->h)), strcmp(hold, "free") == 0 ? "nothing" : hold) == 0;
    case '?':
        return is_doing(t, line + 2);
    case '#':
        return is_owed(t->h, hold) && (t->cut == NULL || is_owed(t->cut, hold));
    case '@':
        return is_step(made, line[1] != '\0' ? line + 2 : "");
    default:
        return false;
    }
}

void talk_play(struct talk *t, const char *script)
{
    char *copy = strdup(script), *made = NULL, *at = NULL;

    assert_non_null(copy);
    for (char *line = copy, *end; *line != '\0'; line = end + 1) {
        char whole[512];
        end = strchr(line, '\n');
        assert_non_null(end);
        *end = '\0';
        (void)snprintf(whole, sizeof whole, "%s", line);
        if (line[0] == '@' && made == NULL)
            at = made = talk_remake(t);
        if (!play_line(t, line, &at))
            fail_msg("not so: %s (%s; %s)", whole, hf_hold_name(hf_holds_by(t->h)), at != NULL ? at : "");
        if (made != NULL && end[1] != '@') {
            if (at[0] != '\0')
                fail_msg("after %s: %s", whole, at);
            free(made);
            made = at = NULL;
        }
    }
    free(copy);
}

void talk_all(const char *script)
{
    struct talk t;

    talk_begin(&t);
    talk_play(&t, script);
    talk_end(&t);
}
