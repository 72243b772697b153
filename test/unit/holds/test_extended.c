/* What a session holds, by the extended protocol, COPY and FunctionCall. */
#include "talk.h"

#include <stdlib.h>
#include <string.h>

#include "base/scan.h"

/* P B E of one statement, not answered. */
static void c_run(struct talk *t, const char *text)
{
    c_parse(t, "", text);
    c_bind(t, "", "");
    c_execute(t, "");
}

static void s_ran(struct talk *t, const char *tag)
{
    s_plain(t, '1');
    s_plain(t, '2');
    s_complete(t, tag);
}

static void batch(void **state)
{
    (void)state;
    talk_all("> P - INSERT INTO t VALUES ($1)\n"
                    "= statement\n"
                    "? read\n"
                    "> B - -\n"
                    "> D P -\n"
                    "> E -\n"
                    "? commit\n"
                    "< 1 2 n\n"
                    "< C INSERT 0 1\n"
                    "? commit\n" /* it commits at Sync */
                    "= statement\n"
                    "> S\n"
                    "? commit\n"
                    "< Z I\n"
                    "? nothing\n"
                    "> H\n" /* begins nothing */
                    "= free\n");
}

static void begin_in_a_batch(void **state)
{
    (void)state;
    talk_all("> run BEGIN\n"
                    "> run INSERT INTO t VALUES (1)\n"
                    "> S\n"
                    "? read\n" /* if BEGIN fails, INSERT is passed over */
                    "> run INSERT INTO t VALUES (2)\n"
                    "? commit\n" /* but not this one */
                    "< ran BEGIN\n"
                    "< ran INSERT 0 1\n"
                    "< Z T\n"
                    "? transaction\n"
                    "> S\n"
                    "< ran INSERT 0 1\n"
                    "< Z T\n"
                    "> run COMMIT\n"
                    "> S\n"
                    "? commit\n"
                    "< ran COMMIT\n"
                    "? commit\n"
                    "< Z I\n"
                    "= free\n");
}

/* What a client waits for, at every point, and where it is when all of it has failed. */
static void owed(void **state)
{
    (void)state;
    talk_all("# 0\n"
                    "> run SELECT a FROM t\n"
                    "# 0b\n"
                    "> S\n"
                    "> run SELECT b FROM t\n"
                    "# 1b\n"
                    "< 1 2\n"
                    "< E 22012\n"
                    "# 1bf\n"
                    "> S\n"
                    "# 2f\n"
                    "< Z I\n"
                    "# 1\n"
                    "< ran SELECT 1\n"
                    "< Z I\n"
                    "# 0\n"
                    "> C S q\n" /* a Query and a function call end what was sent without a Sync */
                    "# 0bc\n"
                    "> Q SELECT 1\n"
                    "# 1\n"
                    "< 3\n"
                    "< C SELECT 1\n"
                    "< Z I\n"
                    "# 0\n"
                    "= free\n"
                    "> H\n"
                    "# 0\n"
                    "> F\n"
                    "# 1\n"
                    "< V\n"
                    "< Z I\n"
                    "# 0\n"
                    "= free\n"
                    "> P - nonsense\n" /* and are passed over with it, if it is refused: nothing counts up to the Sync */
                    "> Q SELECT 1\n"
                    "# 0b\n"
                    "> C S q\n"
                    "# 0b\n"
                    "< E 42601\n"
                    "# 0bf\n"
                    "> S\n"
                    "# 1f\n"
                    "< Z I\n"
                    "# 0\n"
                    "> run SELECT a FROM t\n" /* up to the Sync nothing counts, a Query neither */
                    "< E 22012\n"
                    "# 0bf\n"
                    "> Q SELECT 1\n"
                    "# 0bf\n"
                    "> S\n"
                    "# 1f\n"
                    "< Z I\n"
                    "# 0\n"
                    "> run COPY t FROM STDIN\n" /* the Sync before its end is swallowed */
                    "> S\n"
                    "# 1\n"
                    "< 1 2 G\n"
                    "# 0b\n"
                    "> c\n"
                    "# 0b\n"
                    "> S\n"
                    "# 1\n"
                    "< C COPY 1\n"
                    "# 1\n"
                    "< Z I\n"
                    "# 0\n"
                    "> run COPY t FROM STDIN\n" /* and the one behind is not */
                    "> c\n"
                    "> S\n"
                    "# 1\n"
                    "< 1 2 G\n"
                    "# 1\n"
                    "< C COPY 1\n"
                    "< Z I\n"
                    "> Q BEGIN\n"
                    "# 1\n"
                    "> Q SELECT 1\n"
                    "# 2i\n"
                    "> Q COMMIT\n"
                    "# 3\n");
    talk_all("> P - BEGIN\n" /* about to be run */
                    "# 0bi\n"
                    "< 1\n"
                    "# 0bcai\n"
                    "> S\n"
                    "# 1\n");
    talk_all("> run BEGIN\n"
                    "# 0bi\n"
                    "> run COMMIT AND CHAIN\n"
                    "# 0bi\n"
                    "> run ROLLBACK\n"
                    "# 0bi\n"
                    "> run COMMIT\n"
                    "# 0b\n");
}

/* pgjdbc's autosave: an error in the first answer is the one for all of this; and the INSERT is in the transaction, or is passed over. */
static void query_in_a_batch(void **state)
{
    (void)state;
    talk_all("> run BEGIN\n"
                    "> Q SAVEPOINT a\n"
                    "# 0bi\n"
                    "> P - INSERT INTO t VALUES (1)\n"
                    "> B - -\n"
                    "> D P -\n"
                    "> E -\n"
                    "> S\n"
                    "# 1i\n"
                    "? read\n"
                    "> Q SELECT 1\n" /* behind the Sync */
                    "# 2i\n"
                    "< 1 2\n"
                    "# 2i\n"
                    "< C BEGIN\n" /* from here on the Query is done, or refused on its own */
                    "# 3i\n"
                    "? transaction\n"
                    "< E 42601\n"
                    "# 3fi\n"
                    "< Z E\n"
                    "# 2i\n");
    talk_all("> run INSERT INTO t VALUES (1)\n" /* one that a server may have done */
                    "> F\n"
                    "> Q COMMIT\n"
                    "# 0b\n"
                    "? commit\n"
                    "< ran INSERT 0 1\n"
                    "# 2\n"
                    "? commit\n");
    talk_all("* BEGIN => BEGIN T\n"
                    "> run INSERT INTO t VALUES (1)\n"
                    "> Q COMMIT\n"
                    "> S\n"
                    "# 1\n"
                    "? commit\n");
    talk_all("> run COPY t FROM STDIN\n"
                    "> c\n"
                    "> Q SELECT 1\n"
                    "# 0b\n"
                    "< 1 2 G\n"
                    "# 0b\n"
                    "< C COPY 1\n"
                    "# 1\n"
                    "< C SELECT 1\n"
                    "< Z I\n"
                    "# 0\n"
                    "= free\n");
}

/* A Close behind a Query that was refused is no part of that. */
static void close_behind_an_error(void **state)
{
    (void)state;
    talk_all("> Q nonsense\n"
                    "> C S q\n"
                    "< E 42601\n"
                    "# 1bcf\n"
                    "> Q SELECT 1\n"
                    "# 2f\n");
}

/* It is prepared, though nothing was written. */
static void two_phases(void **state)
{
    (void)state;
    talk_all("* BEGIN => BEGIN T\n"
                    "> Q PREPARE TRANSACTION 'x'\n"
                    "? commit\n"
                    "# 1\n");
}

/* A row is all that set_config() answers: it is done when that has come. */
static void suspended_set_config(void **state)
{
    (void)state;
    talk_all("> P - SELECT set_config('app.tenant', 'seven', false)\n"
                    "> B - -\n"
                    "> E -\n"
                    "> S\n"
                    "< 1 2\n"
                    "< D seven\n"
                    "< s\n"
                    "< Z I\n"
                    "= free\n"
                    "@ SELECT pg_catalog.set_config('app.tenant', 'seven', false)\n"
                    "@ SELECT set_config('app.tenant', 'seven', false)\n"); /* the unnamed statement */
}

/* What a setting's text says depends on the encoding that it came in. */
static void encoded_settings(void **state)
{
    (void)state;
    talk_all("* SET client_encoding = 'UTF8' => SET I\n"
                    "* SET app.name = 'a\xc3\xa9' => SET I\n"
                    "= free\n"
                    "* SET NAMES 'LATIN1' => SET I\n"
                    "= setting\n");
}

static void named(void **state)
{
    (void)state;
    talk_all("> P s1 SELECT a FROM t WHERE b = $1\n"
                    "@\n"
                    "> P s2 SELECT pg_advisory_lock($1)\n"
                    "> S\n"
                    "< 1 1\n"
                    "< Z I\n"
                    "= free\n"
                    "@ s1: SELECT a FROM t WHERE b = $1\n"
                    "@ s2: SELECT pg_advisory_lock($1)\n"
                    "> B p s1\n"
                    "> E p\n"
                    "> S\n"
                    "< 2\n"
                    "< s\n" /* suspended, and gone with the batch */
                    "< Z I\n"
                    "= free\n"
                    "> B p s2\n"
                    "> E p\n"
                    "> S\n"
                    "< 2 s\n"
                    "< Z I\n"
                    "= free\n"
                    "> C S s1\n"
                    "> C S none\n"
                    "> S\n"
                    "@ s1: SELECT a FROM t WHERE b = $1\n"
                    "@ s2: SELECT pg_advisory_lock($1)\n"
                    "< 3 3\n"
                    "< Z I\n"
                    "@ s2: SELECT pg_advisory_lock($1)\n"
                    "* DEALLOCATE s2 => DEALLOCATE I\n"
                    "@\n");
}

static void unnamed(void **state)
{
    (void)state;
    talk_all("> P - SELECT a FROM t\n"
                    "> S\n"
                    "< 1\n"
                    "< Z I\n"
                    "@ SELECT a FROM t\n" /* a later Bind may name it */
                    "> B - -\n"
                    "> E -\n"
                    "> S\n"
                    "< 2\n"
                    "< C SELECT 1\n"
                    "< Z I\n"
                    "= free\n"
                    "* SELECT 1 => SELECT 1 I\n" /* drops it */
                    "@\n");
}

/* An error: all up to Sync is passed over. */
static void errors(void **state)
{
    (void)state;
    talk_all(
             "> run SET a.b = 1\n"
             "> P s1 SELECT 1/0\n"
             "> B - s1\n"
             "> E -\n"
             "> P s2 SELECT 2\n"
             "> run SET a.b FROM CURRENT\n"
             "> S\n"
             "< ran SET\n"
             "< 1 2\n"
             "< E 22012\n"
             "< Z I\n"
             "= free\n"
             "@ s1: SELECT 1/0\n" /* prepared statements do not roll back */
             /* What was passed over can be sent again, and a Close that was closes nothing. */
             "> run SELECT 1/0\n"
             "> C S s1\n"
             "> S\n"
             "< 1 2\n"
             "< E 22012\n"
             "< Z I\n"
             "> P s2 SELECT 2\n"
             "> B - s1\n"
             "> E -\n"
             "> S\n"
             "< 1 2\n"
             "< C SELECT 1\n"
             "< Z I\n"
             "= free\n"
             "@ s1: SELECT 1/0\n"
             "@ s2: SELECT 2\n"
             "@ SELECT 1/0\n");

    /* The same, with the error heard before Sync is sent. */
    talk_all("> P s1 SELEKT\n"
                    "< E 42601\n"
                    "> P s2 SET a.b FROM CURRENT\n"
                    "> B - s2\n"
                    "> E -\n"
                    "> Q SET a.c FROM CURRENT\n" /* passed over as well */
                    "= statement\n"
                    "> S\n"
                    "< Z I\n"
                    "= free\n"
                    "@\n"
                    "> run SET a.b FROM CURRENT\n"
                    "> S\n"
                    "< ran SET\n"
                    "< Z I\n"
                    "= setting\n");

    /* Two batches under way: the second is not passed over. */
    talk_all("> run SELECT 1/0\n"
                    "> S\n"
                    "> run SET a.b FROM CURRENT\n"
                    "> S\n"
                    "< 1 2\n"
                    "< E 22012\n"
                    "< Z I\n"
                    "= statement\n"
                    "< ran SET\n"
                    "< Z I\n"
                    "= setting\n");

    /* Bind runs functions too. */
    talk_all("> run SELECT pg_advisory_lock(1)\n"
                    "> S\n"
                    "< 1\n"
                    "< E 22012\n"
                    "< held lock\n"
                    "< Z I\n"
                    "= advisory lock\n");

    /* A commit that fails at Sync. */
    talk_all("> run SET a.b = 1\n"
                    "> run INSERT INTO t VALUES (1)\n"
                    "> S\n"
                    "< ran SET\n"
                    "< ran INSERT 0 1\n"
                    "< E 23505\n"
                    "< Z I\n"
                    "= free\n"
                    "@ INSERT INTO t VALUES (1)\n"); /* the unnamed statement */
}

/* Which statement does a Bind mean, if the Parse before it may have been passed over? */
static void unnamed_in_doubt(void **state)
{
    struct talk t;

    (void)state;
    talk_begin(&t);
    talk_play(&t, "> run SET a.b FROM CURRENT\n"
                  "> S\n"
                  "< ran SET\n"
                  "< Z I\n"
                  "> run SELECT 1/0\n"
                  "> P - SELECT 1\n" /* will be passed over */
                  "> S\n"
                  "> B - -\n"
                  "> E -\n"
                  "> S\n"
                  "< 1 2\n"
                  "< E 22012\n"
                  "< Z I\n"
                  "? commit\n" /* not SELECT 1 */
                  "< 2\n"
                  "< E 22012\n" /* SELECT 1/0 once more */
                  "< Z I\n");
    talk_end(&t);

    talk_all("> P s SET a.b FROM CURRENT\n"
                    "> S\n"
                    "< 1\n"
                    "< Z I\n"
                    "> P s SELECT 1\n" /* the name is in use */
                    "> S\n"
                    "> B - s\n"
                    "> E -\n"
                    "> S\n"
                    "< E 42P05\n"
                    "< Z I\n"
                    "< 2\n"
                    "< C SET\n"
                    "< Z I\n"
                    "= not understood\n");
}

/* Nor is it certain what a name stands for, while something is under way that may change that. */
static void names_in_doubt(void **state)
{
    static const char *const changes[] = {"DEALLOCATE s; PREPARE s AS SELECT pg_advisory_lock(1)",
                                          "DISCARD ALL", "DEALLOCATE ALL"};
    struct talk t;

    (void)state;
    for (size_t i = 0; i < sizeof changes / sizeof *changes; i++) {
        talk_begin(&t);
        talk_play(&t, "> P s SELECT 1\n"
                      "> S\n"
                      "< 1\n"
                      "< Z I\n");
        c_query(&t, changes[i]);
        talk_play(&t, "> B - s\n" /* of which s? */
                      "> E -\n"
                      "> S\n");
        if (i == 0) {
            s_complete(&t, "DEALLOCATE");
            s_complete(&t, "PREPARE");
        } else {
            s_complete(&t, changes[i]);
        }
        talk_play(&t, "< Z I\n"
                      "< 2\n"
                      "< C SELECT 1\n"
                      "< Z I\n"
                      "= not understood\n");
        talk_end(&t);
    }

    /* Parse fails, since by then the name is in use; Bind means the other one. */
    talk_all("> Q PREPARE s AS SELECT pg_advisory_lock(1)\n"
                    "> P s SELECT 1\n"
                    "> S\n"
                    "> B - s\n"
                    "> E -\n"
                    "> S\n"
                    "< C PREPARE\n"
                    "< Z I\n"
                    "< E 42P05\n"
                    "< Z I\n"
                    "< 2\n"
                    "< C SELECT 1\n"
                    "< Z I\n"
                    "= not understood\n");

    /* And if it was bound in between. */
    talk_all("> Q PREPARE s AS SELECT 1\n"
                    "> P s SELECT 2\n"
                    "> S\n"
                    "< C PREPARE\n"
                    "< Z I\n"
                    "> B - s\n"
                    "> E -\n"
                    "> S\n"
                    "< E 42P05\n"
                    "< Z I\n"
                    "< 2\n"
                    "< C SELECT 1\n"
                    "< Z I\n"
                    "= not understood\n");

    /* Likewise if a Close was passed over. */
    talk_all("> P s SELECT pg_advisory_lock(1)\n"
                    "> S\n"
                    "< 1\n"
                    "< Z I\n"
                    "> run SELECT 1/0\n"
                    "> C S s\n"
                    "> S\n"
                    "> P s SELECT 1\n"
                    "> S\n"
                    "> B - s\n"
                    "> E -\n"
                    "> S\n"
                    "< 1 2\n"
                    "< E 22012\n"
                    "< Z I\n"
                    "< E 42P05\n"
                    "< Z I\n"
                    "< 2\n"
                    "< C SELECT 1\n"
                    "< Z I\n"
                    "= not understood\n");
}

static void settings_by_parameter(void **state)
{
    (void)state;
    talk_all("> P s SELECT set_config('app.tenant', $1, false)\n"
                    "> B - s\n"
                    "> D P -\n"
                    "> E -\n"
                    "> S\n"
                    "< 1 2 T\n"
                    "< D seven\n"
                    "< C SELECT 1\n"
                    "< Z I\n"
                    "= free\n"
                    "@ s: SELECT set_config('app.tenant', $1, false)\n"
                    "@ SELECT pg_catalog.set_config('app.tenant', 'seven', false)\n");
}

/* Prepared by SQL, bound by a message, and the other way round. */
static void mixed(void **state)
{
    (void)state;
    talk_all("* PREPARE s AS SELECT pg_advisory_lock(1) => PREPARE I\n"
                    "> B - s\n"
                    "> E -\n"
                    "> S\n"
                    "< 2\n"
                    "< C SELECT 1\n"
                    "< Z I\n"
                    "= free\n");
    talk_all("> P s SELECT pg_advisory_lock(1)\n"
                    "> S\n"
                    "< 1\n"
                    "< Z I\n"
                    "* EXECUTE s(1) => SELECT 1 I\n"
                    "= free\n");
    /* An Execute of a cursor that SQL has declared. */
    talk_all("* BEGIN => BEGIN T\n"
                    "* DECLARE c CURSOR FOR SELECT 1 => DECLARE CURSOR T\n"
                    "> E c\n"
                    "> S\n"
                    "< s\n"
                    "< Z T\n"
                    "= not understood\n");
}

static void copy(void **state)
{
    struct talk t;

    (void)state;
    talk_begin(&t);
    talk_play(&t, "> Q COPY t FROM STDIN\n"
                  "? commit\n"
                  "< G\n"
                  "= COPY\n");
    talk_message(&t, true, 'd', "1\n", 2);
    talk_play(&t, "? commit\n"
                  "> c\n"
                  "= statement\n"
                  "< C COPY 1\n"
                  "< Z I\n"
                  "= free\n");

    talk_play(&t, "> run COPY t FROM STDIN\n"
                  "> S\n" /* swallowed */
                  "< 1 2 G\n");
    talk_message(&t, true, 'd', "1\n", 2);
    talk_play(&t, "> S\n" /* so is this */
                  "> c\n"
                  "> S\n"
                  "< C COPY 1\n"
                  "= statement\n"
                  "< Z I\n"
                  "= free\n");

    /* All sent before the server has said a word. */
    c_run(&t, "COPY t FROM STDIN");
    talk_message(&t, true, 'd', "1\n", 2);
    talk_play(&t, "> c\n"
                  "> S\n"
                  "> Q SET a.b FROM CURRENT\n"
                  "< 1 2 G\n"
                  "= statement\n" /* the client is through with it */
                  "> Q SET a.b FROM CURRENT\n"
                  "< C COPY 1\n"
                  "< Z I\n"
                  "< C SET\n"
                  "< Z I\n"
                  "< C SET\n"
                  "< Z I\n"
                  "= setting\n");
    talk_end(&t);

    talk_begin(&t);
    talk_play(&t, "> Q COPY t FROM STDIN; SET a.b = 1\n"
                  "< G\n"
                  "> f\n"
                  "< E 57014\n"
                  "< Z I\n"
                  "= free\n"
                  "> Q COPY (SELECT 1) TO STDOUT\n"
                  "< H\n");
    talk_message(&t, false, 'd', "1\n", 2);
    talk_play(&t, "< c\n"
                  "< C COPY 1\n"
                  "< Z I\n"
                  "= free\n");
    talk_end(&t);
}

/* Behind a Sync that COPY has swallowed there is another to come, whatever becomes of the COPY: up to that nothing is over. */
static void copy_swallows_sync(void **state)
{
    (void)state;
    talk_all("> run COPY t FROM STDIN\n"
                    "> S\n"
                    "< 1 2 G\n"
                    "> d\n"
                    "< E 22P02\n" /* what comes next is passed over */
                    "= statement\n"
                    "# 0bf\n"
                    "> d\n"
                    "> c\n"
                    "= statement\n"
                    "> S\n"
                    "# 1f\n"
                    "= statement\n"
                    "< Z I\n"
                    "? nothing\n"
                    "= free\n");
    talk_all("> run COPY t FROM STDIN\n"
                    "> S\n"
                    "< 1 2 G\n"
                    "> d\n"
                    "> c\n"
                    "< C COPY 1\n" /* it is committed by the Sync */
                    "= statement\n"
                    "? commit\n"
                    "# 0bca\n"
                    "> S\n"
                    "? commit\n"
                    "< Z I\n"
                    "= free\n");
    talk_all("> run COPY t FROM STDIN\n" /* without waiting, but for that Sync */
                    "> S\n"
                    "> d\n"
                    "> c\n"
                    "< 1 2 G\n"
                    "< C COPY 1\n"
                    "= statement\n"
                    "? commit\n"
                    "> S\n"
                    "< Z I\n"
                    "= free\n");
    talk_all("> Q COPY t FROM STDIN\n" /* simple: none is to come */
                    "> S\n"
                    "< G\n"
                    "> c\n"
                    "< C COPY 1\n"
                    "< Z I\n"
                    "? nothing\n"
                    "= free\n");
    talk_all("> run COPY looks FROM STDIN\n" /* it fails before it reads anything: the first Sync is answered, too */
                    "> S\n"
                    "< 1 2 G\n"
                    "< E 42809\n"
                    "= statement\n"
                    "< Z I\n"
                    "> c\n"
                    "> S\n"
                    "< Z I\n"
                    "= free\n");
}

static void function_call(void **state)
{
    struct talk t;

    (void)state;
    talk_begin(&t);
    ran(&t, "BEGIN", "BEGIN", 'T');
    talk_message(&t, true, 'F', "\0\0\3\xbb\0\0\0\0\0\0", 10); /* loread() is 955, lo_creat() 957 */
    talk_play(&t, "< V\n"
                  "< Z T\n"
                  "> Q COMMIT\n"
                  "? commit\n"
                  "< C COMMIT\n"
                  "< Z I\n"
                  "= free\n");
    talk_message(&t, true, 'F', "\0\0\x0b\x40\0\0\0\0\0\0", 10); /* 2880: pg_advisory_lock() */
    talk_play(&t, "? commit\n"
                  "< V\n"
                  "< held lock\n"
                  "< Z I\n"
                  "= advisory lock\n");
    talk_end(&t);
}

/* Many sent before the first is answered. */
static void pipeline(void **state)
{
    struct talk t;

    (void)state;
    talk_begin(&t);
    for (unsigned i = 0; i < 300; i++) {
        c_run(&t, i % 2 == 0 ? "SET a.b = 1" : "INSERT INTO t VALUES (1)");
        c_sync(&t);
    }
    c_query(&t, "SET a.b FROM CURRENT");
    for (unsigned i = 0; i < 300; i++) {
        s_ran(&t, i % 2 == 0 ? "SET" : "INSERT 0 1");
        s_ready(&t, 'I');
        assert_int_equal(hf_holds_pins(t.h), 0);
    }
    talk_play(&t, "< C SET\n"
                  "< Z I\n"
                  "= setting\n");
    assert_in_range(hf_holds_bytes(t.h), 1, 4096);
    talk_end(&t);
}

static void lost(void **state)
{
    struct talk t;

    (void)state;
    talk_begin(&t);
    talk_play(&t, "* SET a.b = 1 => SET I\n"
                  "> P s1 SELECT 1\n"
                  "> S\n"
                  "< 1\n"
                  "< Z I\n"
                  "* BEGIN => BEGIN T\n"
                  "* SET a.b = 2 => SET T\n"
                  "> C S s1\n"
                  "> P s2 SELECT 1\n"
                  "> run COMMIT\n"
                  "> S\n"
                  "? transaction\n");
    hf_holds_lost(t.h);
    hf_holds_lost(t.cut);
    talk_play(&t, "@ SET a.b = 1\n"
                  "@ s1: SELECT 1\n"
                  "= login\n");
    hf_holds_parameter(t.h, HF_HOLDS_PARAMETER, "none");
    hf_holds_parameter(t.cut, HF_HOLDS_PARAMETER, "none");
    hf_holds_started(t.h, false);
    hf_holds_started(t.cut, false);
    talk_play(&t, "= free\n"
                  "> B - s1\n"
                  "> E -\n"
                  "> S\n"
                  "< 2\n"
                  "< C SELECT 1\n"
                  "< Z I\n"
                  "= free\n");
    /* What cannot be made again. */
    assert_true(hf_holds_remake_failed(t.h, &(unsigned){1}, 1));
    assert_remake(&t, "SET a.b = 1\n");
    assert_false(hf_holds_remake_failed(t.h, &(unsigned){0}, 1));
    (void)hf_holds_remake_failed(t.cut, &(unsigned){1}, 1);
    talk_end(&t);
}

static void nonsense(void **state)
{
    struct talk t;

    (void)state;
    talk_all("> ?\n"
                    "= not understood\n");
    talk_all("< 1\n"
                    "= not understood\n");
    talk_begin(&t);
    hf_holds_server(t.h, (const uint8_t *)"Z\0\0\0\3", 5);
    talk_play(&t, "= not understood\n"
                  "? commit\n");
    talk_end(&t);
    talk_begin(&t);
    talk_message(&t, true, 'Q', "SET a.b = 1\0 SELECT 1", 22); /* two strings */
    talk_play(&t, "< C SET\n"
                  "< Z I\n"
                  "= not understood\n");
    talk_end(&t);
}

/* On another connection: its own unnamed statement is to be there, whatever the next message is about, unless that replaces it. */
static void unnamed_elsewhere(void **state)
{
#define MESSAGE(type, body) (const uint8_t *)(type "\0\0\0\x20" body), sizeof(type "\0\0\0\x20" body)
    struct talk t;

    (void)state;
    talk_begin(&t);
    assert_false(hf_holds_needs_unnamed(t.h, MESSAGE("B", "\0\0"))); /* it has none */
    talk_play(&t, "> P - SELECT 1\n"
                  "> S\n"
                  "< 1\n"
                  "< Z I\n");
    assert_true(hf_holds_needs_unnamed(t.h, MESSAGE("B", "\0\0")));
    assert_true(hf_holds_needs_unnamed(t.h, MESSAGE("B", "\0q\0"))); /* there may be a Bind of it behind that */
    assert_true(hf_holds_needs_unnamed(t.h, MESSAGE("P", "q\0SELECT 2\0")));
    assert_true(hf_holds_needs_unnamed(t.h, MESSAGE("E", "\0\0\0\0\0")));
    assert_true(hf_holds_needs_unnamed(t.h, (const uint8_t *)"P", 1)); /* it cannot be told yet */
    assert_false(hf_holds_needs_unnamed(t.h, MESSAGE("P", "\0SELECT 2\0")));
    assert_false(hf_holds_needs_unnamed(t.h, MESSAGE("Q", "SELECT 2\0")));
    /* One that fails may not have been read, and has not dropped it then. */
    assert_true(hf_holds_rest(t.h).unnamed);
    talk_play(&t, "* SELECT '\xff' => !22021 I\n");
    assert_true(hf_holds_rest(t.h).unnamed);
    talk_play(&t, "* SELECT 2 => SELECT 1 I\n");
    assert_false(hf_holds_rest(t.h).unnamed);
    talk_end(&t);
#undef MESSAGE
}

/* What PostgreSQL can certainly read, and is there whole. */
static void drops_unnamed(void **state)
{
#define BYTES(text) text, sizeof(text) - 1
    static const struct {
        const char *message;
        size_t n;
        bool drops;
    } cases[] = {
        {BYTES("Q\0\0\0\5\0"), true},
        {BYTES("Q\0\0\0\6a\0"), true},
        {BYTES("Q\0\0\0\6a\0B\0"), true}, /* and what is behind it */
        {BYTES("Q\0\0\0\7\xc3\xa9\0"), false}, /* it depends on the encoding */
        {BYTES("Q\0\0\0\6ab"), false},
        {BYTES("Q\0\0\0\7a\0b"), false},
        {BYTES("Q\0\0\0\7a\0\0"), false},
        {BYTES("Q\0\0\0\4"), false},
        {BYTES("Q\0\0\0\0a\0"), false},
        {BYTES("Q\xff\xff\xff\xff" "a\0"), false},
        {BYTES("P\0\0\0\x08\0\0\0\0"), true},
        {BYTES("P\0\0\0\x0d\0a\0\0\1\xff\0\0\0"), true},
        {BYTES("P\0\0\0\x09\0a\0\0\1"), false},
        {BYTES("P\0\0\0\x08\0a\0\0"), false},
        {BYTES("P\0\0\0\x0a\0a\0\0\0\0"), false},
        {BYTES("P\0\0\0\x09\0\xff\0\0\0"), false},
        {BYTES("P\0\0\0\x0as\0a\0\0\0"), false},
        {BYTES("P\0\0\0\5\0"), false},
        {BYTES("B\0\0\0\x0c\0\0\0\0\0\0\0\0"), false},
        {BYTES("S\0\0\0\4"), false},
    };

    (void)state;
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        for (size_t n = 0; n <= cases[i].n; n++) { /* an exact allocation, so that a sanitizer sees overruns */
            uint8_t *exact = malloc(n > 0 ? n : 1);
            size_t whole = hf_scan_number((const uint8_t *)cases[i].message + 1) + 1ul;
            assert_non_null(exact);
            memcpy(exact, cases[i].message, n);
            if (hf_holds_drops_unnamed(exact, n) != (cases[i].drops && n >= whole))
                fail_msg("case %zu, %zu bytes", i, n);
            free(exact);
        }
    }
#undef BYTES
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(batch),          cmocka_unit_test(begin_in_a_batch),
        cmocka_unit_test(owed), cmocka_unit_test(query_in_a_batch), cmocka_unit_test(close_behind_an_error), cmocka_unit_test(two_phases), cmocka_unit_test(suspended_set_config),
        cmocka_unit_test(encoded_settings), cmocka_unit_test(named),          cmocka_unit_test(unnamed),
        cmocka_unit_test(errors),         cmocka_unit_test(unnamed_in_doubt),
        cmocka_unit_test(names_in_doubt), cmocka_unit_test(settings_by_parameter),
        cmocka_unit_test(mixed),          cmocka_unit_test(copy), cmocka_unit_test(copy_swallows_sync),
        cmocka_unit_test(function_call),  cmocka_unit_test(unnamed_elsewhere), cmocka_unit_test(drops_unnamed),  cmocka_unit_test(pipeline),
        cmocka_unit_test(lost),           cmocka_unit_test(nonsense),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
