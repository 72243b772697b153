/* A session's traffic, message by message, followed twice: in whole messages and byte by byte.
 * After each message both must be of the same opinion.
 *
 * Most of it is written as a script, a line for each step ("-" is the empty name):
 *
 *   * TEXT => TAG I        a simple query, its answer, and ReadyForQuery's status
 *   * TEXT => !SQLSTATE I  likewise, and it fails
 *   > Q TEXT               the client: Query; P NAME TEXT, B PORTAL STATEMENT, E PORTAL, D S|P NAME, C S|P NAME;
 *                            S and other letters alone: a message with no body
 *   > run TEXT             P - TEXT, B - -, E -
 *   < 1 2 n                the server: messages with no body
 *   < C TAG                CommandComplete; Z STATUS, E SQLSTATE, D VALUE, S NAME VALUE
 *   < ran TAG              1 2, C TAG
 *   < held WHAT            the guard's word
 *   = NAME                 what pins it, as hf_hold_name() has it, or free
 *   ? nothing|read|transaction|commit   what is under way
 *   # 2bcafi              what is owed: how often ReadyForQuery, and a batch, of Close and Flush alone, all answered, the first one failed; may stay inside
 *   @ STEP                 what makes it again: one line for each step, "@" alone if there is none */
#ifndef HF_TEST_HOLDS_TALK_H
#define HF_TEST_HOLDS_TALK_H

#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <cmocka.h>

#include "holds/holds.h"

struct talk {
    struct hf_sql_cache *cache;
    struct hf_holds *h, *cut; /* cut: NULL if alone */
};

void talk_begin(struct talk *t);       /* logged in, to a server with a guard */
void talk_begin_alone(struct talk *t); /* followed once, in whole messages: for what takes many */
void talk_begin_with(struct talk *t, const void *packet, size_t n); /* the startup packet */
void talk_end(struct talk *t);
void talk_play(struct talk *t, const char *script);
void talk_all(const char *script); /* begins, plays and ends */
void talk_message(struct talk *t, bool client, char type, const void *body, size_t len);

/* The client. */
void c_query(struct talk *t, const char *text);
void c_parse(struct talk *t, const char *name, const char *text); /* one parameter type, 23 */
void c_bind(struct talk *t, const char *portal, const char *statement);
void c_describe(struct talk *t, char kind, const char *name);
void c_execute(struct talk *t, const char *portal);
void c_close(struct talk *t, char kind, const char *name);
void c_sync(struct talk *t);
void c_plain(struct talk *t, char type); /* with no body */
/* The server. */
void s_complete(struct talk *t, const char *tag);
void s_ready(struct talk *t, char status);
void s_error(struct talk *t, const char *sqlstate);
void s_parameter(struct talk *t, const char *name, const char *value);
void s_row(struct talk *t, const char *value);
void s_plain(struct talk *t, char type); /* with no body: 1, 2, 3, n, s, I */

/* A simple query and its answer. */
void ran(struct talk *t, const char *text, const char *tag, char status);
void failed(struct talk *t, const char *text, const char *sqlstate, char status);

/* The steps that make the session again, one line each: a statement's text, or "NAME: text". Free
 * it. */
char *talk_remake(const struct talk *t);

#define assert_by(t, hold)                                                                         \
    assert_string_equal(hf_hold_name(hf_holds_by((t)->h)), hf_hold_name(hold))
#define assert_free(t)        assert_by(t, HF_HOLD_NOTHING)
#define assert_doing(t, what) assert_int_equal(hf_holds_doing((t)->h), what)
#define assert_remake(t, text)                                                                     \
    do {                                                                                           \
        char *made_ = talk_remake(t);                                                              \
        assert_string_equal(made_, text);                                                          \
        free(made_);                                                                               \
    } while (0)

#endif
