/* What a server answers to calls and messages that are wrong, and a client to answers that are. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "grpc_c_fixture.h"

static const struct grpc_c_call_options patient = {.timeout_ms = PATIENCE_MS};

static struct fixture shared;

static int start_shared(void **state)
{
    (void)state;
    fixture_start(&shared, NULL, NULL);
    return 0;
}

/* The server has come through all of it alive. */
static int stop_shared(void **state)
{
    echo_request request = ECHO_REQUEST;

    (void)state;
    grpcc__test__echo_response__free_unpacked(echo_ok(shared.channel, &request), NULL);
    fixture_stop(&shared);
    return 0;
}

/* -- methods ---------------------------------------------------------------------------------- */

static void unknown_methods_are_named(void **state)
{
    struct grpc_c_method method = *echo_unary;
    echo_request request = ECHO_REQUEST;

    (void)state;
    method.path = "/grpcc.test.Echo/Nothing";
    echo_fails(shared.channel, &method, &request, GRPC_C_UNIMPLEMENTED,
               "unknown method /grpcc.test.Echo/Nothing");
    method.path = "/no.such.Service/Unary";
    for (int i = 0; i < 40; i++) { /* more than are accepted ahead */
        echo_fails(shared.channel, &method, &request, GRPC_C_UNIMPLEMENTED,
                   "unknown method /no.such.Service/Unary");
    }
}

static void a_null_handler_is_unimplemented(void **state)
{
    struct echo_handlers none = {NULL};
    struct fixture fixture;
    echo_request request = ECHO_REQUEST;
    const struct grpc_c_method *const streams[] = {echo_collect, echo_spread, echo_chat};

    (void)state;
    fixture_start(&fixture, NULL, &none);
    echo_fails(fixture.channel, echo_unary, &request, GRPC_C_UNIMPLEMENTED,
               "/grpcc.test.Echo/Unary is not implemented");
    for (size_t i = 0; i < 3; i++) {
        struct grpc_c_result result = {0};
        grpc_c_stream *stream = grpc_c_stream_open(fixture.channel, streams[i], &patient);
        (void)grpc_c_stream_write(stream, &request.base);
        grpc_c_stream_finish(stream, &result);
        assert_int_equal(result.code, GRPC_C_UNIMPLEMENTED);
        grpc_c_result_fini(&result);
    }
    fixture_stop(&fixture);
}

static void a_unary_call_needs_its_request(void **state)
{
    struct grpc_c_result result = {0};
    grpc_c_stream *stream = grpc_c_stream_open(shared.channel, echo_unary, &patient);

    (void)state;
    grpc_c_stream_finish(stream, &result);
    assert_int_equal(result.code, GRPC_C_INVALID_ARGUMENT);
    assert_non_null(strstr(result.message, "without its request"));
    grpc_c_result_fini(&result);
}

/* -- messages --------------------------------------------------------------------------------- */

static void loose_call(const char *text, size_t text_length, const char *inner, size_t inner_length,
                       enum grpc_c_code code, const char *said)
{
    struct grpc_c_method method = loosely(echo_unary);
    echo_loose loose = ECHO_LOOSE;
    ProtobufCBinaryData nested = {inner_length, (uint8_t *)inner};

    loose.text.data = (uint8_t *)text;
    loose.text.len = text_length;
    loose.inner = nested;
    echo_fails(shared.channel, &method, &loose, code, said);
}

static void malformed_requests_name_their_type(void **state)
{
    (void)state;
    loose_call("", 0, "\x0a\x7f", 2, GRPC_C_INVALID_ARGUMENT,
               "grpcc.test.Inner: malformed message");
}

static void text_is_checked(void **state)
{
    (void)state;
    loose_call("a\xffz", 3, "", 0, GRPC_C_INVALID_ARGUMENT,
               "grpcc.test.EchoRequest.text: not valid UTF-8");
    loose_call("a\0z", 3, "", 0, GRPC_C_INVALID_ARGUMENT,
               "grpcc.test.EchoRequest.text: holds a NUL character");
    loose_call("", 0, "\x0a\x01\xc0", 3, GRPC_C_INVALID_ARGUMENT,
               "grpcc.test.Inner.name: not valid UTF-8");
}

static void deep_nesting_is_refused(void **state)
{
    size_t depth = 100000;
    size_t size = depth * 5;
    char *wire = malloc(size);
    char *at = wire + size;

    (void)state;
    while ((size_t)(at - wire) >= 5) {
        size_t n = (size_t)(wire + size - at);
        unsigned bytes = n < 128 ? 1 : n < 16384 ? 2 : n < 2097152 ? 3 : 4;
        at -= bytes;
        for (unsigned i = 0; i < bytes; i++) {
            at[i] = (char)((n >> (7 * i) & 0x7f) | (i + 1 < bytes ? 0x80 : 0));
        }
        *--at = 0x1a;
    }
    loose_call("", 0, at, (size_t)(wire + size - at), GRPC_C_INVALID_ARGUMENT, "nested too deep");
    free(wire);
}

/* A million empty messages are 2 MB on the wire and 100 in memory. */
static void amplification_is_refused(void **state)
{
    struct grpc_c_method method = loosely(echo_unary);
    echo_loose loose = ECHO_LOOSE;

    (void)state;
    loose.n_empties = 1000000;
    loose.empties = calloc(loose.n_empties, sizeof(*loose.empties));
    echo_fails(shared.channel, &method, &loose, GRPC_C_RESOURCE_EXHAUSTED,
               "grpcc.test.EchoRequest: 2000000 bytes on the wire take too much memory");
    free(loose.empties);
}

static void too_large_messages_are_refused(void **state)
{
    struct grpc_c_server_options options = {.max_receive_bytes = 1000};
    struct fixture fixture;
    echo_request request = ECHO_REQUEST;
    struct grpc_c_result result = {0};
    grpc_c_stream *stream;

    (void)state;
    fixture_start(&fixture, &options, NULL);
    request.payload.data = calloc(1, 2000);
    request.payload.len = 2000;
    echo_fails(fixture.channel, echo_unary, &request, GRPC_C_RESOURCE_EXHAUSTED, "larger than max");
    stream = grpc_c_stream_open(fixture.channel, echo_collect, &patient);
    (void)grpc_c_stream_write(stream, &request.base);
    assert_null(grpc_c_stream_read(stream));
    grpc_c_stream_finish(stream, &result);
    assert_int_equal(result.code, GRPC_C_RESOURCE_EXHAUSTED);
    grpc_c_result_fini(&result);
    request.payload.len = 900;
    grpcc__test__echo_response__free_unpacked(echo_ok(fixture.channel, &request), NULL);
    free(request.payload.data);
    fixture_stop(&fixture);
}

/* -- streams ---------------------------------------------------------------------------------- */

static atomic_uint broken_off;

static void collect_open(grpc_c_call *call)
{
    grpc_c_call_read(call);
}

static void collect_message(grpc_c_call *call, const echo_request *request)
{
    struct grpc_c_status ok = {.code = GRPC_C_OK};

    if (request != NULL) {
        grpc_c_call_read(call);
        return;
    }
    insist(grpc_c_call_cancelled(call));
    grpc_c_call_finish(call, &ok); /* which the client does not get to see */
    atomic_fetch_add(&broken_off, 1);
}

static void a_bad_message_breaks_the_stream_off(void **state)
{
    struct echo_handlers handlers = {.collect = collect_open, .collect_message = collect_message};
    struct grpc_c_method method = loosely(echo_collect);
    struct grpc_c_result result = {0};
    struct fixture fixture;
    echo_loose loose = ECHO_LOOSE;
    grpc_c_stream *stream;

    (void)state;
    atomic_store(&broken_off, 0);
    fixture_start(&fixture, NULL, &handlers);
    stream = grpc_c_stream_open(fixture.channel, &method, &patient);
    assert_int_equal(grpc_c_stream_write(stream, &loose.base), 0);
    loose.text.data = (uint8_t *)"\xff";
    loose.text.len = 1;
    (void)grpc_c_stream_write(stream, &loose.base);
    grpc_c_stream_finish(stream, &result);
    assert_int_equal(result.code, GRPC_C_INVALID_ARGUMENT);
    assert_string_equal(result.message, "grpcc.test.EchoRequest.text: not valid UTF-8");
    grpc_c_result_fini(&result);
    await_count(&broken_off, 1);
    fixture_stop(&fixture);
}

/* -- bad answers ------------------------------------------------------------------------------ */

static void answer_badly(grpc_c_call *call, const echo_request *request)
{
    echo_loose loose = ECHO_LOOSE;

    (void)request;
    loose.text.data = (uint8_t *)"\xff";
    loose.text.len = 1;
    grpc_c_call_reply(call, &loose.base);
}

static void bad_answers_are_internal(void **state)
{
    struct echo_handlers handlers = {.unary = answer_badly, .spread = answer_badly};
    struct grpc_c_result result = {0};
    struct fixture fixture;
    echo_request request = ECHO_REQUEST;
    grpc_c_stream *stream;

    (void)state;
    fixture_start(&fixture, NULL, &handlers);
    echo_fails(fixture.channel, echo_unary, &request, GRPC_C_INTERNAL,
               "grpcc.test.EchoResponse.text: not valid UTF-8");
    stream = grpc_c_stream_open(fixture.channel, echo_spread, &patient);
    assert_int_equal(grpc_c_stream_write(stream, &request.base), 0);
    assert_null(grpc_c_stream_read(stream));
    assert_null(grpc_c_stream_read(stream));
    grpc_c_stream_finish(stream, &result);
    assert_int_equal(result.code, GRPC_C_INTERNAL);
    assert_non_null(strstr(result.message, "not valid UTF-8"));
    grpc_c_result_fini(&result);
    fixture_stop(&fixture);
}

static void nobody_there_is_unavailable(void **state)
{
    grpc_c_channel *channel = grpc_c_channel_create("127.0.0.1:1", NULL);
    struct grpc_c_call_options ready = {.timeout_ms = 300, .wait_for_ready = true};
    struct grpc_c_result result = {0};
    echo_request request = ECHO_REQUEST;
    grpc_c_stream *stream;

    (void)state;
    echo_fails(channel, echo_unary, &request, GRPC_C_UNAVAILABLE, "");
    assert_null(grpc_c_unary(channel, echo_unary, &request.base, &ready, &result));
    assert_int_equal(result.code, GRPC_C_DEADLINE_EXCEEDED);
    grpc_c_result_fini(&result);
    stream = grpc_c_stream_open(channel, echo_chat, &patient);
    (void)grpc_c_stream_write(stream, &request.base);
    assert_null(grpc_c_stream_read(stream));
    assert_int_equal(grpc_c_stream_write(stream, &request.base), -1);
    grpc_c_stream_finish(stream, &result);
    assert_int_equal(result.code, GRPC_C_UNAVAILABLE);
    grpc_c_result_fini(&result);
    grpc_c_channel_destroy(channel);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(unknown_methods_are_named),
        cmocka_unit_test(a_null_handler_is_unimplemented),
        cmocka_unit_test(a_unary_call_needs_its_request),
        cmocka_unit_test(malformed_requests_name_their_type),
        cmocka_unit_test(text_is_checked),
        cmocka_unit_test(deep_nesting_is_refused),
        cmocka_unit_test(amplification_is_refused),
        cmocka_unit_test(too_large_messages_are_refused),
        cmocka_unit_test(a_bad_message_breaks_the_stream_off),
        cmocka_unit_test(bad_answers_are_internal),
        cmocka_unit_test(nobody_there_is_unavailable),
    };

    return cmocka_run_group_tests_name("grpc_c_hostile", tests, start_shared, stop_shared);
}
