/*
 * The cases that every language has, as the suite describes them:
 * https://github.com/grpc/grpc/blob/master/doc/interop-test-descriptions.md
 */
#include <string.h>

#include "client.h"

static const struct grpc_c_call_options patient = {.timeout_ms = PATIENCE_MS};

static const size_t request_sizes[] = {27182, 8, 1828, 45904};
static const size_t response_sizes[] = {31415, 9, 2653, 58979};

/* -- the shapes ------------------------------------------------------------------------------- */

void do_empty_unary(grpc_c_channel *channel)
{
    struct grpc_c_result result = {0};
    empty request = EMPTY;
    empty *response =
        grpc__testing__test_service__empty_call__sync(channel, &request, &patient, &result);

    expect_code(&result, GRPC_C_OK);
    grpc__testing__empty__free_unpacked(response, NULL);
}

void do_large_unary(grpc_c_channel *channel)
{
    simple_request request = SIMPLE_REQUEST;
    payload body = zeros_of(271828);

    request.payload = &body;
    request.response_size = 314159;
    (void)expect_unary(channel, &request, &patient);
}

void do_client_streaming(grpc_c_channel *channel)
{
    grpc_c_stream *stream =
        grpc__testing__test_service__streaming_input_call__open(channel, &patient);
    input_response *response;

    for (size_t i = 0; i < 4; i++) {
        send_input(stream, request_sizes[i], NULL);
    }
    expect(grpc_c_stream_writes_done(stream) == 0);
    response = grpc__testing__test_service__streaming_input_call__read(stream);
    expect(response != NULL);
    expect(response->aggregated_payload_size == 74922);
    grpc__testing__streaming_input_call_response__free_unpacked(response, NULL);
    expect_end(stream, GRPC_C_OK);
}

void do_server_streaming(grpc_c_channel *channel)
{
    grpc_c_stream *stream =
        grpc__testing__test_service__streaming_output_call__open(channel, &patient);
    output_request request = OUTPUT_REQUEST;
    parameters asked[4];
    parameters *list[4];

    for (size_t i = 0; i < 4; i++) {
        asked[i] = (parameters)PARAMETERS;
        asked[i].size = (int32_t)response_sizes[i];
        list[i] = &asked[i];
    }
    request.n_response_parameters = 4;
    request.response_parameters = list;
    expect(grpc__testing__test_service__streaming_output_call__write(stream, &request) == 0);
    expect(grpc_c_stream_writes_done(stream) == 0);
    for (size_t i = 0; i < 4; i++) {
        expect_output(grpc__testing__test_service__streaming_output_call__read(stream),
                      response_sizes[i]);
    }
    expect(grpc__testing__test_service__streaming_output_call__read(stream) == NULL);
    expect_end(stream, GRPC_C_OK);
}

/* Sends one request for a response of that size. */
static int ask(grpc_c_stream *stream, size_t request_size, size_t response_size)
{
    output_request request = OUTPUT_REQUEST;
    payload body = zeros_of(request_size);
    parameters asked = PARAMETERS;
    parameters *list = &asked;

    asked.size = (int32_t)response_size;
    request.payload = &body;
    request.n_response_parameters = 1;
    request.response_parameters = &list;
    return grpc__testing__test_service__full_duplex_call__write(stream, &request);
}

void do_ping_pong(grpc_c_channel *channel)
{
    grpc_c_stream *stream = grpc__testing__test_service__full_duplex_call__open(channel, &patient);

    for (size_t i = 0; i < 4; i++) {
        expect(ask(stream, request_sizes[i], response_sizes[i]) == 0);
        expect_output(grpc__testing__test_service__full_duplex_call__read(stream),
                      response_sizes[i]);
    }
    expect(grpc_c_stream_writes_done(stream) == 0);
    expect(grpc__testing__test_service__full_duplex_call__read(stream) == NULL);
    expect_end(stream, GRPC_C_OK);
}

void do_empty_stream(grpc_c_channel *channel)
{
    grpc_c_stream *stream = grpc__testing__test_service__full_duplex_call__open(channel, &patient);

    expect(grpc_c_stream_writes_done(stream) == 0);
    expect(grpc__testing__test_service__full_duplex_call__read(stream) == NULL);
    expect_end(stream, GRPC_C_OK);
}

/* -- ends ------------------------------------------------------------------------------------- */

void do_timeout_on_sleeping_server(grpc_c_channel *channel)
{
    struct grpc_c_call_options short_one = {.timeout_ms = 1};
    grpc_c_stream *stream =
        grpc__testing__test_service__full_duplex_call__open(channel, &short_one);
    output_request request = OUTPUT_REQUEST;
    payload body = zeros_of(27182);

    request.payload = &body;
    (void)grpc__testing__test_service__full_duplex_call__write(stream, &request); /* or too late */
    expect(grpc__testing__test_service__full_duplex_call__read(stream) == NULL);
    expect_end(stream, GRPC_C_DEADLINE_EXCEEDED);
}

void do_cancel_after_begin(grpc_c_channel *channel)
{
    grpc_c_stream *stream =
        grpc__testing__test_service__streaming_input_call__open(channel, &patient);

    grpc_c_stream_cancel(stream);
    expect_end(stream, GRPC_C_CANCELLED);
}

void do_cancel_after_first_response(grpc_c_channel *channel)
{
    grpc_c_stream *stream = grpc__testing__test_service__full_duplex_call__open(channel, &patient);

    expect(ask(stream, 27182, 31415) == 0);
    expect_output(grpc__testing__test_service__full_duplex_call__read(stream), 31415);
    grpc_c_stream_cancel(stream);
    expect_end(stream, GRPC_C_CANCELLED);
}

static void expect_status(struct grpc_c_result *result, const echo_status *status)
{
    expect(strcmp(result->message, status->message) == 0);
    expect_code(result, (enum grpc_c_code)status->code);
}

static void unary_with_status(grpc_c_channel *channel, echo_status *status)
{
    struct grpc_c_result result = {0};
    simple_request request = SIMPLE_REQUEST;

    request.response_status = status;
    expect(grpc__testing__test_service__unary_call__sync(channel, &request, &patient, &result) ==
           NULL);
    expect_status(&result, status);
}

void do_status_code_and_message(grpc_c_channel *channel)
{
    grpc_c_stream *stream;
    struct grpc_c_result result = {0};
    output_request request = OUTPUT_REQUEST;
    echo_status status = ECHO_STATUS;

    status.code = 2;
    status.message = "test status message";
    unary_with_status(channel, &status);
    request.response_status = &status;
    stream = grpc__testing__test_service__full_duplex_call__open(channel, &patient);
    expect(grpc__testing__test_service__full_duplex_call__write(stream, &request) == 0);
    expect(grpc__testing__test_service__full_duplex_call__read(stream) == NULL);
    grpc_c_stream_finish(stream, &result);
    expect_status(&result, &status);
}

void do_special_status_message(grpc_c_channel *channel)
{
    echo_status status = ECHO_STATUS;

    status.code = 2;
    status.message = "\t\ntest with whitespace\r\nand Unicode BMP \xe2\x98\xba and non-BMP "
                     "\xf0\x9f\x98\x88\t\n";
    unary_with_status(channel, &status);
}

void do_unimplemented_method(grpc_c_channel *channel)
{
    struct grpc_c_result result = {0};
    empty request = EMPTY;

    expect(grpc__testing__test_service__unimplemented_call__sync(channel, &request, &patient,
                                                                 &result) == NULL);
    expect_code(&result, GRPC_C_UNIMPLEMENTED);
}

void do_unimplemented_service(grpc_c_channel *channel)
{
    struct grpc_c_result result = {0};
    empty request = EMPTY;

    expect(grpc__testing__unimplemented_service__unimplemented_call__sync(
               channel, &request, &patient, &result) == NULL);
    expect_code(&result, GRPC_C_UNIMPLEMENTED);
}

/* -- metadata --------------------------------------------------------------------------------- */

static const struct grpc_c_metadata custom[] = {
    {ECHO_HEADER, "test_initial_metadata_value", 27},
    {ECHO_TRAILER, "\xab\xab\xab", 3},
};
static const struct grpc_c_call_options with_custom = {
    .timeout_ms = PATIENCE_MS, .metadata = custom, .n_metadata = 2};

static void expect_entry(const struct grpc_c_metadata *list, size_t n,
                         const struct grpc_c_metadata *sent)
{
    const struct grpc_c_metadata *got = grpc_c_metadata_find(list, n, sent->key);

    expect(got != NULL);
    expect(got->length == sent->length);
    expect(memcmp(got->value, sent->value, sent->length) == 0);
}

static void expect_custom(struct grpc_c_result *result)
{
    expect_entry(result->headers, result->n_headers, &custom[0]);
    expect_entry(result->trailers, result->n_trailers, &custom[1]);
    expect_code(result, GRPC_C_OK);
}

void do_custom_metadata(grpc_c_channel *channel)
{
    struct grpc_c_result result = {0};
    simple_request request = SIMPLE_REQUEST;
    simple_response *response;
    grpc_c_stream *stream;

    request.response_size = 1;
    response =
        grpc__testing__test_service__unary_call__sync(channel, &request, &with_custom, &result);
    expect_custom(&result);
    grpc__testing__simple_response__free_unpacked(response, NULL);
    stream = grpc__testing__test_service__full_duplex_call__open(channel, &with_custom);
    expect(ask(stream, 1, 1) == 0);
    expect_output(grpc__testing__test_service__full_duplex_call__read(stream), 1);
    grpc_c_stream_finish(stream, &result);
    expect_custom(&result);
}
