/* What the tests of sessions that outlive their server say and hear. */
#ifndef HF_TEST_ROUTER_OUTLIVE_H
#define HF_TEST_ROUTER_OUTLIVE_H

#include "fixture.h"

struct fixture *follow(unsigned hold_ms);
void ask(struct fixture *f, int fd, int server, const char *sql);
/* Asked and answered. */
void done(struct fixture *f, int fd, int server, const char *sql, const char *tag, char status);
/* One message after the other, whatever is in them. */
void hear_types(struct fixture *f, int fd, const char *types);
void hear_plain_error(struct fixture *f, int fd, const char *sqlstate);
void lose(struct fixture *f, int server);
/* The new server's side, up to the first ReadyForQuery. */
int again(struct fixture *f, uint64_t epoch);
void remake(struct fixture *f, int server, const char *expected);
void spoil(struct fixture *f, int server);

int dial_take(struct fixture *f);
int tunnel_log_in(struct fixture *f);
/* A client whose session goes through a tunnel. */
int tunnel_open(struct fixture *f, int *leader);
/* How many bytes the front has sent behind its startup packet: for the login, and so on. */
void say_taken(int leader, uint64_t n);

#endif
