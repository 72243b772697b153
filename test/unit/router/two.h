/* Sessions that share server connections: what their tests say and hear. */
#ifndef HF_TEST_ROUTER_TWO_H
#define HF_TEST_ROUTER_TWO_H

#include "outlive.h"

struct fixture *sharing(unsigned most); /* the gate is open */
void hear_type(struct fixture *f, int fd, int type);
void hear_text(struct fixture *f, int fd, int type, const char *text);
/* Asked, and answered; and the guard says what the connection has then. */
void done_with(struct fixture *f, int fd, int server, const char *sql, const char *tag, char status, const char *held);
/* The server is to undo what another session has left, and does. */
void undone(struct fixture *f, int server);

/* Two clients, one server connection; the second came when the first had it. */
struct two {
    struct fixture *f;
    int a, b, server;
};

struct two two_open(void);
void two_close(struct two *t);
/* The first one's client has its connection's own key: nobody gets that. The second one's can be had by all. */
int two_of(struct fixture *f, int *b, int *server);

/* Of the extended protocol. */
void parse(int fd, const char *name, const char *text);
void bind_execute(int fd, const char *name);
void hear_parse(struct fixture *f, int server); /* and its Sync; it is done */
void parsed(struct fixture *f, int fd, int server, const char *name, const char *text); /* nothing goes before it */

void hear_key(struct fixture *f, int fd, char key[8]); /* until the client is let in; the body of its key */
void cancel(struct fixture *f, const char key[8]);
int cancel_start(struct fixture *f, const char key[8]); /* its connection */

#endif
