/*
 * grpc-c-interop-client: the test client of gRPC's interoperability suite.
 *
 *   grpc-c-interop-client --server_host=127.0.0.1 --server_port=10000 --test_case=large_unary
 *
 * With --use_tls=true the server is checked by --ca_file, or the system's authorities, for the name
 * in --server_host_override, or the host. --use_test_ca=true insists on a --ca_file: the suite's
 * own test authority is nobody's here, because tests make certificates anew.
 *
 * --async=true plays a streaming case with calls that are not waited for.
 *
 * Exit status 0 where the case passed.
 */
#include <string.h>

#include "client.h"

static const struct {
    const char *name;
    void (*run)(grpc_c_channel *channel);
    void (*run_async)(grpc_c_channel *channel); /* NULL: there is one way */
} cases[] = {
    {"empty_unary", do_empty_unary, NULL},
    {"large_unary", do_large_unary, NULL},
    {"client_streaming", do_client_streaming, do_client_streaming_async},
    {"server_streaming", do_server_streaming, do_server_streaming_async},
    {"ping_pong", do_ping_pong, do_ping_pong_async},
    {"empty_stream", do_empty_stream, do_empty_stream_async},
    {"timeout_on_sleeping_server", do_timeout_on_sleeping_server,
     do_timeout_on_sleeping_server_async},
    {"cancel_after_begin", do_cancel_after_begin, do_cancel_after_begin_async},
    {"cancel_after_first_response", do_cancel_after_first_response,
     do_cancel_after_first_response_async},
    {"status_code_and_message", do_status_code_and_message, NULL},
    {"special_status_message", do_special_status_message, NULL},
    {"unimplemented_method", do_unimplemented_method, NULL},
    {"unimplemented_service", do_unimplemented_service, NULL},
    {"custom_metadata", do_custom_metadata, NULL},
    {"client_compressed_unary", do_client_compressed_unary, NULL},
    {"server_compressed_unary", do_server_compressed_unary, NULL},
    {"client_compressed_streaming", do_client_compressed_streaming, NULL},
    {"server_compressed_streaming", do_server_compressed_streaming, NULL},
};

/* -- what the cases have in common ------------------------------------------------------------ */

void expect_code(struct grpc_c_result *result, enum grpc_c_code code)
{
    if (result->code != code) {
        (void)fprintf(stderr, "the call ended with %s: %s; expected %s\n",
                      grpc_c_code_name(result->code), result->message, grpc_c_code_name(code));
        _exit(EXIT_FAILURE);
    }
    grpc_c_result_fini(result);
}

void expect_end(grpc_c_stream *stream, enum grpc_c_code code)
{
    struct grpc_c_result result = {0};

    grpc_c_stream_finish(stream, &result);
    expect_code(&result, code);
}

static void expect_zeros(const payload *got, size_t size)
{
    expect(got != NULL);
    expect(got->type == GRPC__TESTING__PAYLOAD_TYPE__COMPRESSABLE);
    expect(got->body.len == size);
    expect(memcmp(got->body.data, interop_zeros, size) == 0);
}

bool expect_unary(grpc_c_channel *channel, const simple_request *request,
                  const struct grpc_c_call_options *options)
{
    struct grpc_c_result result = {0};
    simple_response *response =
        grpc__testing__test_service__unary_call__sync(channel, request, options, &result);
    bool compressed = result.compressed;

    expect_code(&result, GRPC_C_OK);
    expect_zeros(response->payload, (size_t)request->response_size);
    grpc__testing__simple_response__free_unpacked(response, NULL);
    return compressed;
}

void expect_output(output_response *response, size_t size)
{
    expect(response != NULL);
    expect_zeros(response->payload, size);
    grpc__testing__streaming_output_call_response__free_unpacked(response, NULL);
}

void send_input(grpc_c_stream *stream, size_t size, const bool_value *expect_compressed)
{
    input_request request = INPUT_REQUEST;
    payload body = zeros_of(size);

    request.payload = &body;
    request.expect_compressed = (bool_value *)expect_compressed;
    expect(grpc__testing__test_service__streaming_input_call__write(stream, &request) == 0);
}

/* -- the program ------------------------------------------------------------------------------ */

static bool run(const char *name, bool async, grpc_c_channel *channel)
{
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        if (strcmp(cases[i].name, name) == 0 && (!async || cases[i].run_async != NULL)) {
            (async ? cases[i].run_async : cases[i].run)(channel);
            return true;
        }
    }
    (void)fprintf(stderr, "grpc-c-interop-client: there is no case %s; there are:", name);
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        (void)fprintf(stderr, " %s", cases[i].name);
    }
    (void)fprintf(stderr, "\n");
    return false;
}

int main(int argc, char **argv)
{
    const char *host = "localhost";
    const char *port = "10000";
    const char *test_case = "large_unary";
    const char *use_tls = "false";
    const char *use_test_ca = "false";
    const char *async = "false";
    struct grpc_c_channel_tls tls = {0};
    struct grpc_c_channel_options options = {0};
    const struct flag flags[] = {
        {"server_host", &host},
        {"server_port", &port},
        {"test_case", &test_case},
        {"use_tls", &use_tls},
        {"use_test_ca", &use_test_ca},
        {"async", &async},
        {"ca_file", &tls.ca_file},
        {"server_host_override", &tls.server_name},
        {NULL, NULL},
    };
    grpc_c_channel *channel;
    char target[300];
    bool known;

    flags_parse(flags, argc, argv);
    expect(!flag_is_true("use_test_ca", use_test_ca) || tls.ca_file != NULL);
    options.tls = flag_is_true("use_tls", use_tls) ? &tls : NULL;
    (void)snprintf(target, sizeof(target), "%s:%s", host, port);
    channel = grpc_c_channel_create(target, &options);
    expect(channel != NULL);
    known = run(test_case, flag_is_true("async", async), channel);
    grpc_c_channel_destroy(channel);
    return known ? EXIT_SUCCESS : 2;
}
