/*
 * A server with the service grpcc.test.Echo (echo.proto) and a channel to it, over loopback.
 *
 * The method tables are written by hand, as protoc-gen-grpc-c would generate them.
 */
#ifndef TESTS_UNIT_GRPC_C_FIXTURE_H
#define TESTS_UNIT_GRPC_C_FIXTURE_H

#include <setjmp.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>

#include <cmocka.h>

#include "echo.pb-c.h"
#include "grpc-c/grpc-c.h"

typedef Grpcc__Test__EchoRequest echo_request;
typedef Grpcc__Test__EchoResponse echo_response;
typedef Grpcc__Test__Inner echo_inner;
typedef Grpcc__Test__Loose echo_loose;

#define ECHO_REQUEST  GRPCC__TEST__ECHO_REQUEST__INIT
#define ECHO_RESPONSE GRPCC__TEST__ECHO_RESPONSE__INIT
#define ECHO_INNER    GRPCC__TEST__INNER__INIT
#define ECHO_LOOSE    GRPCC__TEST__LOOSE__INIT

/* How long a test waits for what must happen before it fails. */
#define PATIENCE_MS 60000

/* An assertion for handlers: cmocka's own end the process without a word on another thread. */
#define insist(condition)                                                                 \
    do {                                                                                  \
        if (!(condition)) {                                                               \
            (void)fprintf(stderr, "%s:%d: not so: %s\n", __FILE__, __LINE__, #condition); \
            abort();                                                                      \
        }                                                                                 \
    } while (0)

struct echo_handlers {
    void (*unary)(grpc_c_call *call, const echo_request *request);
    void (*collect)(grpc_c_call *call);
    void (*collect_message)(grpc_c_call *call, const echo_request *request);
    void (*spread)(grpc_c_call *call, const echo_request *request);
    void (*chat)(grpc_c_call *call);
    void (*chat_message)(grpc_c_call *call, const echo_request *request);
};

/*
 * Unary echoes text, payload and number. Collect sums the numbers and joins nothing. Spread sends
 * `number` responses numbered from 0. Chat answers each message at once.
 */
extern const struct echo_handlers echo_default;

extern const struct grpc_c_service echo_service;
extern const struct grpc_c_method *const echo_unary;
extern const struct grpc_c_method *const echo_collect;
extern const struct grpc_c_method *const echo_spread;
extern const struct grpc_c_method *const echo_chat;

struct fixture {
    grpc_c_server *server;
    grpc_c_channel *channel;
    int port;
};

/* Both may be NULL. */
void fixture_start(struct fixture *fixture, const struct grpc_c_server_options *options,
                   const struct echo_handlers *handlers);

/* Also where the test has destroyed a part itself and set it to NULL. */
void fixture_stop(struct fixture *fixture);

/* Connects the channel, for tests with short deadlines. */
void fixture_warm(const struct fixture *fixture);

/* A further channel to the server. */
grpc_c_channel *fixture_connect(const struct fixture *fixture);

/* Polls until `flag` is at least `value`; fails the test when patience ends. */
void await_count(atomic_uint *flag, unsigned value);

/* Milliseconds on the monotonic clock. */
int64_t now_ms(void);

/* A unary call that must succeed; the caller frees the response. */
echo_response *echo_ok(grpc_c_channel *channel, const echo_request *request);

/* A unary call of `method` that must end with `code`; its message must contain `text`. */
void echo_fails(grpc_c_channel *channel, const struct grpc_c_method *method, const void *request,
                enum grpc_c_code code, const char *text);

/* A call with these wire bytes in place of an EchoRequest. */
struct grpc_c_method loosely(const struct grpc_c_method *method);

#endif
