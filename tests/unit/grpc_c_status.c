/* Status codes, messages and details on their way from handler to caller. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "grpc_c_fixture.h"

static const struct grpc_c_call_options patient = {.timeout_ms = PATIENCE_MS};

static void codes_have_names(void **state)
{
    (void)state;
    assert_string_equal(grpc_c_code_name(0), "OK");
    assert_string_equal(grpc_c_code_name(5), "NOT_FOUND");
    assert_string_equal(grpc_c_code_name(16), "UNAUTHENTICATED");
    assert_string_equal(grpc_c_code_name(17), "UNKNOWN");
    assert_string_equal(grpc_c_code_name(-1), "UNKNOWN");
}

static _Atomic(const struct grpc_c_status *) to_send;

static void finish_with_it(grpc_c_call *call, const echo_request *request)
{
    (void)request;
    grpc_c_call_finish(call, atomic_load(&to_send));
}

static struct grpc_c_result send(const struct fixture *fixture, struct grpc_c_status status)
{
    struct grpc_c_result result = {0};
    echo_request request = ECHO_REQUEST;

    atomic_store(&to_send, &status);
    assert_null(grpc_c_unary(fixture->channel, echo_unary, &request.base, &patient, &result));
    return result;
}

static void every_code_arrives(void **state)
{
    struct echo_handlers handlers = {.unary = finish_with_it};
    struct fixture fixture;

    (void)state;
    fixture_start(&fixture, NULL, &handlers);
    for (int code = 1; code <= 16; code++) {
        struct grpc_c_status status = {.code = (enum grpc_c_code)code, .message = "because"};
        struct grpc_c_result result = send(&fixture, status);
        assert_int_equal(result.code, code);
        assert_string_equal(result.message, "because");
        assert_null(result.details);
        grpc_c_result_fini(&result);
    }
    fixture_stop(&fixture);
}

static void ok_without_a_message_is_internal_to_a_unary_caller(void **state)
{
    struct echo_handlers handlers = {.unary = finish_with_it};
    struct grpc_c_result result;
    struct fixture fixture;

    (void)state;
    fixture_start(&fixture, NULL, &handlers);
    result = send(&fixture, (struct grpc_c_status){.code = GRPC_C_OK});
    assert_int_equal(result.code, GRPC_C_INTERNAL);
    grpc_c_result_fini(&result);
    fixture_stop(&fixture);
}

static void details_go_round(void **state)
{
    struct echo_handlers handlers = {.unary = finish_with_it};
    struct fixture fixture;
    uint8_t details[2500];

    (void)state;
    for (size_t i = 0; i < sizeof(details); i++) {
        details[i] = (uint8_t)(i * 7);
    }
    fixture_start(&fixture, NULL, &handlers);
    for (size_t n = 0; n <= sizeof(details); n += 1 + n / 2) {
        struct grpc_c_status status = {GRPC_C_ABORTED, "50% \xe2\x82\xac\n", details, n};
        struct grpc_c_result result = send(&fixture, status);
        assert_int_equal(result.code, GRPC_C_ABORTED);
        assert_string_equal(result.message, "50% \xe2\x82\xac\n");
        assert_int_equal(result.details_length, n);
        if (n > 0) {
            assert_memory_equal(result.details, details, n);
        }
        grpc_c_result_fini(&result);
        assert_null(result.message);
        assert_null(result.details);
    }
    fixture_stop(&fixture);
}

static void silent(enum grpc_c_log_level level, const char *line)
{
    (void)level;
    (void)line;
}

/* A status that no client could take is cut down to one that it can. */
static void too_long_a_status_keeps_its_code(void **state)
{
    struct echo_handlers handlers = {.unary = finish_with_it};
    struct grpc_c_result result;
    struct fixture fixture;
    char *message = malloc(30001);
    size_t length;

    (void)state;
    for (size_t i = 0; i < 30000; i += 3) {
        memcpy(message + i, "\xe2\x82\xac", 3);
    }
    message[30000] = '\0';
    grpc_c_set_logger(silent);
    fixture_start(&fixture, NULL, &handlers);
    result = send(&fixture, (struct grpc_c_status){GRPC_C_DATA_LOSS, message, message, 3990});
    assert_int_equal(result.code, GRPC_C_DATA_LOSS);
    assert_int_equal(result.details_length, 3990);
    grpc_c_result_fini(&result);
    result = send(&fixture, (struct grpc_c_status){GRPC_C_DATA_LOSS, message, message, 20000});
    length = strlen(result.message);
    assert_int_equal(result.code, GRPC_C_DATA_LOSS);
    assert_int_equal(result.details_length, 0);
    assert_in_range(length, 1000, 3000);
    assert_int_equal(length % 3, 0);
    assert_memory_equal(result.message, message, length);
    grpc_c_result_fini(&result);
    fixture_stop(&fixture);
    grpc_c_set_logger(NULL);
    free(message);
}

static void fail_formatted(grpc_c_call *call, const echo_request *request)
{
    grpc_c_call_fail(call, GRPC_C_NOT_FOUND, "no %s number %d", "record", (int)request->number);
}

static void fail_takes_a_format(void **state)
{
    struct echo_handlers handlers = {.unary = fail_formatted};
    struct fixture fixture;
    echo_request request = ECHO_REQUEST;

    (void)state;
    fixture_start(&fixture, NULL, &handlers);
    request.number = 12;
    echo_fails(fixture.channel, echo_unary, &request, GRPC_C_NOT_FOUND, "no record number 12");
    fixture_stop(&fixture);
}

static void write_then_fail(grpc_c_call *call, const echo_request *request)
{
    for (uint32_t i = 0; i < request->number; i++) {
        echo_response response = ECHO_RESPONSE;
        response.number = i;
        grpc_c_call_write(call, &response.base, NULL, NULL);
    }
    grpc_c_call_fail(call, GRPC_C_DATA_LOSS, "after all of them");
}

static void status_comes_behind_the_writes(void **state)
{
    struct echo_handlers handlers = {.spread = write_then_fail};
    struct grpc_c_result result = {0};
    struct fixture fixture;
    echo_request request = ECHO_REQUEST;
    ProtobufCMessage *message;
    grpc_c_stream *stream;
    unsigned n = 0;

    (void)state;
    fixture_start(&fixture, NULL, &handlers);
    stream = grpc_c_stream_open(fixture.channel, echo_spread, &patient);
    request.number = 100;
    assert_int_equal(grpc_c_stream_write(stream, &request.base), 0);
    (void)grpc_c_stream_writes_done(stream);
    while ((message = grpc_c_stream_read(stream)) != NULL) {
        protobuf_c_message_free_unpacked(message, NULL);
        n++;
    }
    assert_int_equal(n, 100);
    grpc_c_stream_finish(stream, &result);
    assert_int_equal(result.code, GRPC_C_DATA_LOSS);
    assert_string_equal(result.message, "after all of them");
    grpc_c_result_fini(&result);
    fixture_stop(&fixture);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(codes_have_names),
        cmocka_unit_test(every_code_arrives),
        cmocka_unit_test(ok_without_a_message_is_internal_to_a_unary_caller),
        cmocka_unit_test(details_go_round),
        cmocka_unit_test(too_long_a_status_keeps_its_code),
        cmocka_unit_test(fail_takes_a_format),
        cmocka_unit_test(status_comes_behind_the_writes),
    };

    return cmocka_run_group_tests_name("grpc_c_status", tests, NULL, NULL);
}
