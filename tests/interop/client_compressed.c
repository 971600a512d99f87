/* The cases of compressed messages; languages that cannot see whether a message came so lack them.
 */
#include "client.h"

static const struct grpc_c_call_options patient = {.timeout_ms = PATIENCE_MS};
static const struct grpc_c_call_options compressing = {.timeout_ms = PATIENCE_MS,
                                                       .compression = GRPC_C_GZIP};

static bool_value of(bool value)
{
    bool_value boxed = BOOL_VALUE;

    boxed.value = value;
    return boxed;
}

static simple_request large(const payload *body)
{
    simple_request request = SIMPLE_REQUEST;

    request.payload = (payload *)body;
    request.response_size = 314159;
    return request;
}

/* First a probe: a server that does not notice what is not compressed has not got the feature. */
void do_client_compressed_unary(grpc_c_channel *channel)
{
    payload body = zeros_of(271828);
    simple_request request = large(&body);
    bool_value expected = of(true);
    struct grpc_c_result result = {0};

    request.expect_compressed = &expected;
    (void)grpc__testing__test_service__unary_call__sync(channel, &request, &patient, &result);
    expect_code(&result, GRPC_C_INVALID_ARGUMENT);
    (void)expect_unary(channel, &request, &compressing);
    expected.value = false;
    (void)expect_unary(channel, &request, &patient);
}

void do_server_compressed_unary(grpc_c_channel *channel)
{
    payload body = zeros_of(271828);
    simple_request request = large(&body);
    bool_value wanted = of(true);

    request.response_compressed = &wanted;
    expect(expect_unary(channel, &request, &patient));
    wanted.value = false;
    expect(!expect_unary(channel, &request, &patient));
}

void do_client_compressed_streaming(grpc_c_channel *channel)
{
    grpc_c_stream *stream =
        grpc__testing__test_service__streaming_input_call__open(channel, &compressing);
    bool_value yes = of(true);
    bool_value no = of(false);
    input_response *response;

    grpc_c_stream_skip_compression(stream, true); /* the probe */
    send_input(stream, 27182, &yes);
    expect(grpc__testing__test_service__streaming_input_call__read(stream) == NULL);
    expect_end(stream, GRPC_C_INVALID_ARGUMENT);

    stream = grpc__testing__test_service__streaming_input_call__open(channel, &compressing);
    send_input(stream, 27182, &yes);
    grpc_c_stream_skip_compression(stream, true);
    send_input(stream, 45904, &no);
    expect(grpc_c_stream_writes_done(stream) == 0);
    response = grpc__testing__test_service__streaming_input_call__read(stream);
    expect(response != NULL);
    expect(response->aggregated_payload_size == 73086);
    grpc__testing__streaming_input_call_response__free_unpacked(response, NULL);
    expect_end(stream, GRPC_C_OK);
}

void do_server_compressed_streaming(grpc_c_channel *channel)
{
    grpc_c_stream *stream =
        grpc__testing__test_service__streaming_output_call__open(channel, &patient);
    output_request request = OUTPUT_REQUEST;
    parameters asked[2] = {PARAMETERS, PARAMETERS};
    parameters *list[2] = {&asked[0], &asked[1]};
    bool_value yes = of(true);
    bool_value no = of(false);

    asked[0].size = 31415;
    asked[0].compressed = &yes;
    asked[1].size = 92653;
    asked[1].compressed = &no;
    request.n_response_parameters = 2;
    request.response_parameters = list;
    expect(grpc__testing__test_service__streaming_output_call__write(stream, &request) == 0);
    expect(grpc_c_stream_writes_done(stream) == 0);
    expect_output(grpc__testing__test_service__streaming_output_call__read(stream), 31415);
    expect(grpc_c_stream_message_compressed(stream));
    expect_output(grpc__testing__test_service__streaming_output_call__read(stream), 92653);
    expect(!grpc_c_stream_message_compressed(stream));
    expect(grpc__testing__test_service__streaming_output_call__read(stream) == NULL);
    expect_end(stream, GRPC_C_OK);
}
