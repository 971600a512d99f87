/* The cases of the suite's client. */
#ifndef TESTS_INTEROP_CLIENT_H
#define TESTS_INTEROP_CLIENT_H

#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include "interop.h"

/* Longer than any call takes that ends at all. */
#define PATIENCE_MS 30000

/*
 * Says what is not so, and ends the program: at once, because the channel's thread is still at work
 * on what exit would take down.
 */
#define expect(condition)                                                                  \
    do {                                                                                   \
        if (!(condition)) {                                                                \
            (void)fprintf(stderr, "%s:%d: expected %s\n", __FILE__, __LINE__, #condition); \
            _exit(EXIT_FAILURE);                                                           \
        }                                                                                  \
    } while (0)

/* Ends the program where the call did not end so; empties the result. */
void expect_code(struct grpc_c_result *result, enum grpc_c_code code);

/* Waits for the stream's end. */
void expect_end(grpc_c_stream *stream, enum grpc_c_code code);

/* A UnaryCall that must end with OK and that many zeros; whether they came compressed. */
bool expect_unary(grpc_c_channel *channel, const simple_request *request,
                  const struct grpc_c_call_options *options);

/* The next message of an output stream, of that many zeros. */
void expect_output(output_response *response, size_t size);

/* Writes a message of that many zeros to StreamingInputCall. */
void send_input(grpc_c_stream *stream, size_t size, const bool_value *expect_compressed);

/* client_plain.c */
void do_empty_unary(grpc_c_channel *channel);
void do_large_unary(grpc_c_channel *channel);
void do_client_streaming(grpc_c_channel *channel);
void do_server_streaming(grpc_c_channel *channel);
void do_ping_pong(grpc_c_channel *channel);
void do_empty_stream(grpc_c_channel *channel);
void do_timeout_on_sleeping_server(grpc_c_channel *channel);
void do_cancel_after_begin(grpc_c_channel *channel);
void do_cancel_after_first_response(grpc_c_channel *channel);
void do_status_code_and_message(grpc_c_channel *channel);
void do_special_status_message(grpc_c_channel *channel);
void do_unimplemented_method(grpc_c_channel *channel);
void do_unimplemented_service(grpc_c_channel *channel);
void do_custom_metadata(grpc_c_channel *channel);

/* client_async.c */
void do_client_streaming_async(grpc_c_channel *channel);
void do_server_streaming_async(grpc_c_channel *channel);
void do_ping_pong_async(grpc_c_channel *channel);
void do_empty_stream_async(grpc_c_channel *channel);
void do_timeout_on_sleeping_server_async(grpc_c_channel *channel);
void do_cancel_after_begin_async(grpc_c_channel *channel);
void do_cancel_after_first_response_async(grpc_c_channel *channel);

/* client_compressed.c */
void do_client_compressed_unary(grpc_c_channel *channel);
void do_server_compressed_unary(grpc_c_channel *channel);
void do_client_compressed_streaming(grpc_c_channel *channel);
void do_server_compressed_streaming(grpc_c_channel *channel);

#endif
