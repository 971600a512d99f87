/*
 * The streaming cases without waiting: the same calls by the X__async functions, whose callbacks
 * drive them from message to message.
 */
#include <pthread.h>
#include <string.h>

#include "client.h"

static const struct grpc_c_call_options patient = {.timeout_ms = PATIENCE_MS};

static const size_t request_sizes[] = {27182, 8, 1828, 45904};
static const size_t response_sizes[] = {31415, 9, 2653, 58979};

/* One call, and how it goes. */
struct async_call {
    size_t messages;    /* that came */
    size_t written;     /* that the transport took */
    bool cancels;       /* after the first message */
    int32_t aggregated; /* what the answer of a client stream says */
    enum grpc_c_code code;
    pthread_mutex_t lock;
    pthread_cond_t changed;
    bool done; /* lock */
};

#define ASYNC_CALL                                                             \
    {                                                                          \
        .lock = PTHREAD_MUTEX_INITIALIZER, .changed = PTHREAD_COND_INITIALIZER \
    }

static void end(struct async_call *call, const struct grpc_c_result *result)
{
    pthread_mutex_lock(&call->lock);
    expect(!call->done);
    call->code = result->code;
    call->done = true;
    pthread_cond_signal(&call->changed);
    pthread_mutex_unlock(&call->lock);
}

static void expect_async_end(struct async_call *call, grpc_c_async_stream *stream,
                             enum grpc_c_code code)
{
    pthread_mutex_lock(&call->lock);
    while (!call->done) {
        pthread_cond_wait(&call->changed, &call->lock);
    }
    pthread_mutex_unlock(&call->lock);
    if (call->code != code) {
        (void)fprintf(stderr, "the call ended with %s; expected %s\n",
                      grpc_c_code_name((int)call->code), grpc_c_code_name((int)code));
        _exit(EXIT_FAILURE);
    }
    grpc_c_async_release(stream);
}

static void on_written(grpc_c_async_stream *stream, bool taken, void *user)
{
    struct async_call *call = user;

    (void)stream;
    call->written += taken;
}

static void on_done(grpc_c_async_stream *stream, const struct grpc_c_result *result, void *user)
{
    (void)stream;
    end(user, result);
}

/* -- the client streams ----------------------------------------------------------------------- */

static void on_answer(grpc_c_async_stream *stream, input_response *response,
                      const struct grpc_c_result *result, void *user)
{
    struct async_call *call = user;

    (void)stream;
    if (response != NULL) {
        call->aggregated = response->aggregated_payload_size;
        grpc__testing__streaming_input_call_response__free_unpacked(response, NULL);
    }
    end(call, result);
}

static const struct grpc__testing__test_service__streaming_input_call__events input_events = {
    .on_written = on_written, .on_done = on_answer};

void do_client_streaming_async(grpc_c_channel *channel)
{
    struct async_call call = ASYNC_CALL;
    grpc_c_async_stream *stream = grpc__testing__test_service__streaming_input_call__async(
        channel, &patient, &input_events, &call);

    expect(stream != NULL);
    for (size_t i = 0; i < 4; i++) {
        input_request request = INPUT_REQUEST;
        payload body = zeros_of(request_sizes[i]);
        request.payload = &body;
        expect(grpc__testing__test_service__streaming_input_call__async_write(stream, &request) ==
               0);
    }
    expect(grpc_c_async_writes_done(stream) == 0);
    expect_async_end(&call, stream, GRPC_C_OK);
    expect(call.aggregated == 74922);
    expect(call.written == 4);
}

void do_cancel_after_begin_async(grpc_c_channel *channel)
{
    struct async_call call = ASYNC_CALL;
    grpc_c_async_stream *stream = grpc__testing__test_service__streaming_input_call__async(
        channel, &patient, &input_events, &call);

    expect(stream != NULL);
    grpc_c_async_cancel(stream);
    expect_async_end(&call, stream, GRPC_C_CANCELLED);
}

/* -- the server streams ----------------------------------------------------------------------- */

static void on_output(grpc_c_async_stream *stream, output_response *message, void *user)
{
    struct async_call *call = user;

    expect(call->messages < 4);
    expect_output(message, response_sizes[call->messages++]);
    (void)grpc_c_async_read(stream);
}

void do_server_streaming_async(grpc_c_channel *channel)
{
    static const struct grpc__testing__test_service__streaming_output_call__events events = {
        .on_message = on_output, .on_done = on_done};
    struct async_call call = ASYNC_CALL;
    output_request request = OUTPUT_REQUEST;
    grpc_c_async_stream *stream;
    parameters asked[4];
    parameters *list[4];

    for (size_t i = 0; i < 4; i++) {
        asked[i] = (parameters)PARAMETERS;
        asked[i].size = (int32_t)response_sizes[i];
        list[i] = &asked[i];
    }
    request.n_response_parameters = 4;
    request.response_parameters = list;
    stream = grpc__testing__test_service__streaming_output_call__async(channel, &request, &patient,
                                                                       &events, &call);
    expect(stream != NULL);
    expect(grpc_c_async_read(stream) == 0);
    expect_async_end(&call, stream, GRPC_C_OK);
    expect(call.messages == 4);
}

/* -- both stream ------------------------------------------------------------------------------ */

/* Asks for the message of that number, and for its coming; the call may be over. */
static void ask_async(grpc_c_async_stream *stream, size_t number)
{
    output_request request = OUTPUT_REQUEST;
    payload body = zeros_of(request_sizes[number]);
    parameters asked = PARAMETERS;
    parameters *list = &asked;

    asked.size = (int32_t)response_sizes[number];
    request.payload = &body;
    request.n_response_parameters = 1;
    request.response_parameters = &list;
    (void)grpc__testing__test_service__full_duplex_call__async_write(stream, &request);
    (void)grpc_c_async_read(stream);
}

static void on_pong(grpc_c_async_stream *stream, output_response *message, void *user)
{
    struct async_call *call = user;

    expect(call->messages < 4);
    expect_output(message, response_sizes[call->messages++]);
    if (call->cancels) {
        grpc_c_async_cancel(stream);
    } else if (call->messages == 4) {
        (void)grpc_c_async_read(stream); /* nothing */
        (void)grpc_c_async_writes_done(stream);
    } else {
        ask_async(stream, call->messages);
    }
}

static grpc_c_async_stream *open_duplex(grpc_c_channel *channel,
                                        const struct grpc_c_call_options *options,
                                        struct async_call *call)
{
    static const struct grpc__testing__test_service__full_duplex_call__events events = {
        .on_message = on_pong, .on_written = on_written, .on_done = on_done};
    grpc_c_async_stream *stream =
        grpc__testing__test_service__full_duplex_call__async(channel, options, &events, call);

    expect(stream != NULL);
    return stream;
}

void do_ping_pong_async(grpc_c_channel *channel)
{
    struct async_call call = ASYNC_CALL;
    grpc_c_async_stream *stream = open_duplex(channel, &patient, &call);

    ask_async(stream, 0);
    expect_async_end(&call, stream, GRPC_C_OK);
    expect(call.messages == 4);
    expect(call.written == 4);
}

void do_empty_stream_async(grpc_c_channel *channel)
{
    struct async_call call = ASYNC_CALL;
    grpc_c_async_stream *stream = open_duplex(channel, &patient, &call);

    expect(grpc_c_async_writes_done(stream) == 0);
    expect_async_end(&call, stream, GRPC_C_OK);
    expect(call.messages == 0);
}

void do_timeout_on_sleeping_server_async(grpc_c_channel *channel)
{
    struct grpc_c_call_options short_one = {.timeout_ms = 1};
    struct async_call call = ASYNC_CALL;
    grpc_c_async_stream *stream = open_duplex(channel, &short_one, &call);
    output_request request = OUTPUT_REQUEST;
    payload body = zeros_of(27182);

    request.payload = &body;
    (void)grpc__testing__test_service__full_duplex_call__async_write(stream, &request);
    expect_async_end(&call, stream, GRPC_C_DEADLINE_EXCEEDED);
}

void do_cancel_after_first_response_async(grpc_c_channel *channel)
{
    struct async_call call = ASYNC_CALL;
    grpc_c_async_stream *stream;

    call.cancels = true;
    stream = open_duplex(channel, &patient, &call);
    ask_async(stream, 0);
    expect_async_end(&call, stream, GRPC_C_CANCELLED);
    expect(call.messages == 1);
}
