#include "grpc_c_fixture.h"

#include <stdio.h>
#include <string.h>
#include <time.h>

/* -- the method tables ------------------------------------------------------------------------ */

#define TRAMPOLINE_REQUEST(name, handler)                                               \
    static bool name(grpc_c_call *call, const ProtobufCMessage *request, const void *h) \
    {                                                                                   \
        const struct echo_handlers *handlers = h;                                       \
        if (handlers->handler == NULL) {                                                \
            return false;                                                               \
        }                                                                               \
        handlers->handler(call, (const echo_request *)request);                         \
        return true;                                                                    \
    }

#define TRAMPOLINE_OPEN(name, handler)                                                  \
    static bool name(grpc_c_call *call, const ProtobufCMessage *request, const void *h) \
    {                                                                                   \
        const struct echo_handlers *handlers = h;                                       \
        insist(request == NULL);                                                        \
        if (handlers->handler == NULL) {                                                \
            return false;                                                               \
        }                                                                               \
        handlers->handler(call);                                                        \
        return true;                                                                    \
    }

TRAMPOLINE_REQUEST(begin_unary, unary)
TRAMPOLINE_OPEN(begin_collect, collect)
TRAMPOLINE_REQUEST(message_collect, collect_message)
TRAMPOLINE_REQUEST(begin_spread, spread)
TRAMPOLINE_OPEN(begin_chat, chat)
TRAMPOLINE_REQUEST(message_chat, chat_message)

#define TYPES &grpcc__test__echo_request__descriptor, &grpcc__test__echo_response__descriptor

static const struct grpc_c_method methods[] = {
    {"/grpcc.test.Echo/Unary", GRPC_C_UNARY, TYPES, begin_unary, NULL},
    {"/grpcc.test.Echo/Collect", GRPC_C_CLIENT_STREAM, TYPES, begin_collect, message_collect},
    {"/grpcc.test.Echo/Spread", GRPC_C_SERVER_STREAM, TYPES, begin_spread, NULL},
    {"/grpcc.test.Echo/Chat", GRPC_C_BIDI_STREAM, TYPES, begin_chat, message_chat},
};

const struct grpc_c_service echo_service = {"grpcc.test.Echo", methods, 4};
const struct grpc_c_method *const echo_unary = &methods[0];
const struct grpc_c_method *const echo_collect = &methods[1];
const struct grpc_c_method *const echo_spread = &methods[2];
const struct grpc_c_method *const echo_chat = &methods[3];

struct grpc_c_method loosely(const struct grpc_c_method *method)
{
    struct grpc_c_method loose = *method;

    loose.request = &grpcc__test__loose__descriptor;
    return loose;
}

/* -- the default handlers --------------------------------------------------------------------- */

static echo_response answer_to(const echo_request *request)
{
    echo_response response = ECHO_RESPONSE;

    response.text = request->text;
    response.payload = request->payload;
    response.number = request->number;
    return response;
}

static void default_unary(grpc_c_call *call, const echo_request *request)
{
    echo_response response = answer_to(request);

    grpc_c_call_reply(call, &response.base);
}

static void default_collect(grpc_c_call *call)
{
    grpc_c_call_set_data(call, (void *)(uintptr_t)0, NULL);
    grpc_c_call_read(call);
}

static void default_collect_message(grpc_c_call *call, const echo_request *request)
{
    uintptr_t sum = (uintptr_t)grpc_c_call_data(call);
    echo_response response = ECHO_RESPONSE;

    if (request != NULL) {
        /* NOLINTNEXTLINE(performance-no-int-to-ptr) */
        grpc_c_call_set_data(call, (void *)(sum + request->number), NULL);
        grpc_c_call_read(call);
        return;
    }
    response.number = (uint32_t)sum;
    grpc_c_call_reply(call, &response.base);
}

static void default_spread(grpc_c_call *call, const echo_request *request)
{
    struct grpc_c_status ok = {.code = GRPC_C_OK};

    for (uint32_t i = 0; i < request->number; i++) {
        echo_response response = ECHO_RESPONSE;
        response.number = i;
        response.text = request->text;
        grpc_c_call_write(call, &response.base, NULL, NULL);
    }
    grpc_c_call_finish(call, &ok);
}

static void default_chat(grpc_c_call *call)
{
    grpc_c_call_read(call);
}

static void read_again(grpc_c_call *call, void *arg)
{
    (void)arg;
    grpc_c_call_read(call);
}

static void default_chat_message(grpc_c_call *call, const echo_request *request)
{
    struct grpc_c_status ok = {.code = GRPC_C_OK};
    echo_response response;

    if (request == NULL) {
        grpc_c_call_finish(call, &ok);
        return;
    }
    response = answer_to(request);
    grpc_c_call_write(call, &response.base, read_again, NULL);
}

const struct echo_handlers echo_default = {
    default_unary,  default_collect, default_collect_message,
    default_spread, default_chat,    default_chat_message,
};

/* -- server and channel ----------------------------------------------------------------------- */

grpc_c_channel *fixture_connect(const struct fixture *fixture)
{
    char target[32];
    grpc_c_channel *channel;

    (void)snprintf(target, sizeof(target), "127.0.0.1:%d", fixture->port);
    channel = grpc_c_channel_create(target, NULL);
    assert_non_null(channel);
    return channel;
}

void fixture_start(struct fixture *fixture, const struct grpc_c_server_options *options,
                   const struct echo_handlers *handlers)
{
    char error[256] = "";

    if (handlers == NULL) {
        handlers = &echo_default;
    }
    fixture->server = grpc_c_server_create(options);
    assert_non_null(fixture->server);
    assert_int_equal(grpc_c_server_add_service(fixture->server, &echo_service, handlers), 0);
    if (grpc_c_server_listen(fixture->server, "127.0.0.1:0", &fixture->port, error,
                             sizeof(error)) != 0) {
        fail_msg("%s", error);
    }
    assert_int_equal(grpc_c_server_start(fixture->server), 0);
    fixture->channel = fixture_connect(fixture);
}

void fixture_stop(struct fixture *fixture)
{
    grpc_c_channel_destroy(fixture->channel);
    grpc_c_server_destroy(fixture->server);
}

/* -- waiting ---------------------------------------------------------------------------------- */

int64_t now_ms(void)
{
    struct timespec now;

    clock_gettime(CLOCK_MONOTONIC, &now);
    return (int64_t)now.tv_sec * 1000 + now.tv_nsec / 1000000;
}

void await_count(atomic_uint *flag, unsigned value)
{
    int64_t until = now_ms() + PATIENCE_MS;
    struct timespec moment = {0, 1000000};

    while (atomic_load(flag) < value) {
        if (now_ms() > until) {
            fail_msg("waited %d ms for %u, still %u", PATIENCE_MS, value, atomic_load(flag));
        }
        nanosleep(&moment, NULL);
    }
}

/* -- calls ------------------------------------------------------------------------------------ */

static const struct grpc_c_call_options patient = {.timeout_ms = PATIENCE_MS};

echo_response *echo_ok(grpc_c_channel *channel, const echo_request *request)
{
    struct grpc_c_result result = {0};
    ProtobufCMessage *response =
        grpc_c_unary(channel, echo_unary, &request->base, &patient, &result);

    if (result.code != GRPC_C_OK) {
        fail_msg("%s: %s", grpc_c_code_name(result.code), result.message);
    }
    assert_non_null(response);
    grpc_c_result_fini(&result);
    return (echo_response *)response;
}

void echo_fails(grpc_c_channel *channel, const struct grpc_c_method *method, const void *request,
                enum grpc_c_code code, const char *text)
{
    struct grpc_c_result result = {0};

    assert_null(grpc_c_unary(channel, method, request, &patient, &result));
    if (result.code != code || strstr(result.message, text) == NULL) {
        fail_msg("%s: %s; wanted %s with \"%s\"", grpc_c_code_name(result.code), result.message,
                 grpc_c_code_name(code), text);
    }
    grpc_c_result_fini(&result);
}

void fixture_warm(const struct fixture *fixture)
{
    struct grpc_c_method nothing = {.path = "/", .response = echo_unary->response};
    echo_request request = ECHO_REQUEST;

    echo_fails(fixture->channel, &nothing, &request, GRPC_C_UNIMPLEMENTED, "unknown method /");
}
