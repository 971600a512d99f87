/* What the tests of the C client library against a real server share. */
#ifndef TESTS_CLIENT_C_FIXTURE_H
#define TESTS_CLIENT_C_FIXTURE_H

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "payloadstore-client/client.h"
#include "payloadstore-client/compact.h"
#include "server_process.h"

#define STORE    "orders"
#define PATIENCE 300000 /* ms: a server under a sanitizer is slow */

/* Of the server: NULL at the end. */
extern const char *const flags[];
/* Of its client: STORE, PATIENCE, and it waits for the server. */
extern const struct plc_options patient;

struct fixture {
    struct server_process server;
    plc_client *client;
    struct plc_error error;
};

#define assert_code(f, expression, expected)                                     \
    do {                                                                         \
        enum plc_code code_ = (expression);                                      \
        if (code_ != (expected)) {                                               \
            print_message("%s: %s\n", plc_code_name(code_), (f)->error.message); \
        }                                                                        \
        assert_int_equal(code_, expected);                                       \
        assert_int_equal((f)->error.code, expected);                             \
        assert_int_equal((f)->error.message[0] == '\0', (expected) == PLC_OK);   \
    } while (0)
#define assert_ok(f, expression) assert_code(f, expression, PLC_OK)

/* A server with `flags` that is up, and a client of it. */
int set_up(void **state);
int tear_down(void **state);

/* To the client's store, BUFFERED. */
struct plc_ref append(struct fixture *f, const void *payload, size_t length);
void assert_reads(struct fixture *f, const struct plc_ref *ref, const void *payload);
void assert_reads_in(struct fixture *f, const struct plc_call *call, const struct plc_ref *ref,
                     const void *payload);

/* Of a compaction of a store in which nothing lives. */
extern const struct plc_compact_callbacks nothing_live;

#endif
