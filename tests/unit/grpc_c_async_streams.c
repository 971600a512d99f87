/* Streams that are not waited for: what their callbacks are told, in which order, and how they end.
 */
#include <pthread.h>
#include <stdlib.h>
#include <string.h>

#include "grpc_c_fixture.h"

static const struct grpc_c_call_options patient = {.timeout_ms = PATIENCE_MS};
static const struct grpc_c_call_options forever = {0};

/* What the callbacks of one stream were told. */
struct told {
    atomic_uint headers;
    atomic_uint messages;
    atomic_uint written; /* the transport has taken it */
    atomic_uint dropped; /* it has not */
    atomic_uint done;
    atomic_uint running; /* callbacks at this moment */
    bool reads;          /* each message is followed by a request for the next */
    uint32_t number;     /* of the last message */
    size_t bytes;        /* of its payload */
    bool compressed;
    char header[20]; /* "a" among the headers */
    char trailer[20];
    enum grpc_c_code code;
    char message[300];
    size_t details;
    pthread_t thread;
};

static void enter(struct told *told)
{
    insist(atomic_fetch_add(&told->running, 1) == 0);
    insist(atomic_load(&told->done) == 0);
    if (atomic_load(&told->headers) == 0) {
        told->thread = pthread_self();
    }
    insist(pthread_equal(told->thread, pthread_self()));
}

static void leave(struct told *told)
{
    atomic_fetch_sub(&told->running, 1);
}

static void keep(char to[20], const struct grpc_c_metadata *list, size_t n)
{
    const struct grpc_c_metadata *entry = grpc_c_metadata_find(list, n, "a");

    (void)snprintf(to, 20, "%s", entry == NULL ? "" : (const char *)entry->value);
}

static void on_headers(grpc_c_async_stream *stream, const struct grpc_c_metadata *headers, size_t n,
                       void *user)
{
    struct told *told = user;

    (void)stream;
    enter(told);
    insist(atomic_load(&told->headers) == 0 && atomic_load(&told->messages) == 0);
    insist((headers == NULL) == (n == 0));
    keep(told->header, headers, n);
    atomic_fetch_add(&told->headers, 1);
    leave(told);
}

static void on_message(grpc_c_async_stream *stream, echo_response *message, void *user)
{
    struct told *told = user;

    enter(told);
    insist(atomic_load(&told->headers) == 1);
    told->number = message->number;
    told->bytes = message->payload.len;
    told->compressed = grpc_c_async_message_compressed(stream);
    grpcc__test__echo_response__free_unpacked(message, NULL);
    if (told->reads) {
        (void)grpc_c_async_read(stream);
    }
    leave(told);
    atomic_fetch_add(&told->messages, 1);
}

static void on_written(grpc_c_async_stream *stream, bool taken, void *user)
{
    struct told *told = user;

    (void)stream;
    enter(told);
    leave(told);
    atomic_fetch_add(taken ? &told->written : &told->dropped, 1);
}

static void keep_result(struct told *told, const struct grpc_c_result *result)
{
    told->code = result->code;
    told->details = result->details_length;
    (void)snprintf(told->message, sizeof(told->message), "%s", result->message);
    keep(told->trailer, result->trailers, result->n_trailers);
}

static void on_done(grpc_c_async_stream *stream, const struct grpc_c_result *result, void *user)
{
    struct told *told = user;
    echo_request request = ECHO_REQUEST;

    enter(told);
    insist(atomic_load(&told->headers) == 1);
    keep_result(told, result);
    insist(grpc_c_async_read(stream) == -1); /* over already */
    insist(grpc_c_async_write(stream, &request.base) == -1);
    grpc_c_async_cancel(stream);
    leave(told);
    atomic_fetch_add(&told->done, 1);
}

static void on_answer(grpc_c_async_stream *stream, echo_response *response,
                      const struct grpc_c_result *result, void *user)
{
    struct told *told = user;

    (void)stream;
    enter(told);
    insist((response != NULL) == (result->code == GRPC_C_OK));
    keep_result(told, result);
    if (response != NULL) {
        told->number = response->number;
        grpcc__test__echo_response__free_unpacked(response, NULL);
    }
    leave(told);
    atomic_fetch_add(&told->done, 1);
}

/* As protoc-gen-grpc-c makes them. */
static void arrived(grpc_c_async_stream *stream, ProtobufCMessage *message,
                    const struct grpc_c_result *result, void (*typed)(void), void *user)
{
    (void)result;
    ((void (*)(grpc_c_async_stream *, echo_response *, void *))typed)(
        stream, (echo_response *)message, user);
}

static void answered(grpc_c_async_stream *stream, ProtobufCMessage *message,
                     const struct grpc_c_result *result, void (*typed)(void), void *user)
{
    ((void (*)(grpc_c_async_stream *, echo_response *, const struct grpc_c_result *, void *))typed)(
        stream, (echo_response *)message, result, user);
}

static const struct grpc_c_stream_events streaming = {on_headers, on_written, on_done, arrived,
                                                      (void (*)(void))on_message};
static const struct grpc_c_stream_events collecting = {on_headers, on_written, NULL, answered,
                                                       (void (*)(void))on_answer};

static grpc_c_async_stream *start(grpc_c_channel *channel, const struct grpc_c_method *method,
                                  const struct grpc_c_call_options *options, struct told *told)
{
    bool collects = method->shape == GRPC_C_CLIENT_STREAM;
    grpc_c_async_stream *stream;

    memset(told, 0, sizeof(*told));
    stream = grpc_c_stream_async(channel, method, NULL, options,
                                 collects ? &collecting : &streaming, told);
    assert_non_null(stream);
    return stream;
}

static grpc_c_async_stream *spread(grpc_c_channel *channel, uint32_t number,
                                   const struct grpc_c_call_options *options, struct told *told)
{
    echo_request request = ECHO_REQUEST;
    grpc_c_async_stream *stream;

    memset(told, 0, sizeof(*told));
    request.number = number;
    stream = grpc_c_stream_async(channel, echo_spread, &request.base, options, &streaming, told);
    assert_non_null(stream);
    return stream;
}

static int write_number(grpc_c_async_stream *stream, uint32_t number)
{
    echo_request request = ECHO_REQUEST;

    request.number = number;
    return grpc_c_async_write(stream, &request.base);
}

static void expect_done(struct told *told, enum grpc_c_code code)
{
    await_count(&told->done, 1);
    if (told->code != code) {
        fail_msg("%s: %s; wanted %s", grpc_c_code_name(told->code), told->message,
                 grpc_c_code_name(code));
    }
    assert_int_equal(told->done, 1);
    assert_int_equal(told->headers, 1);
}

/* -- the shapes ------------------------------------------------------------------------------- */

static void both_sides_stream(void **state)
{
    struct fixture fixture;
    struct told told;
    grpc_c_async_stream *stream;

    (void)state;
    fixture_start(&fixture, NULL, NULL);
    stream = start(fixture.channel, echo_chat, &patient, &told);
    for (uint32_t i = 1; i <= 300; i++) {
        assert_int_equal(write_number(stream, i), 0);
        assert_int_equal(grpc_c_async_read(stream), 0);
        await_count(&told.messages, i);
        assert_int_equal(told.number, i);
    }
    assert_int_equal(grpc_c_async_writes_done(stream), 0);
    assert_int_equal(grpc_c_async_writes_done(stream), -1);
    assert_int_equal(write_number(stream, 0), -1);
    expect_done(&told, GRPC_C_OK);
    assert_int_equal(told.written, 300);
    assert_int_equal(told.messages, 300);
    grpc_c_async_release(stream);
    fixture_stop(&fixture);
}

static void messages_are_written_and_asked_for_ahead(void **state)
{
    struct fixture fixture;
    struct told told;
    grpc_c_async_stream *stream;

    (void)state;
    fixture_start(&fixture, NULL, NULL);
    stream = start(fixture.channel, echo_chat, &patient, &told);
    for (uint32_t i = 1; i <= 1000; i++) {
        assert_int_equal(write_number(stream, i), 0);
        assert_int_equal(grpc_c_async_read(stream), 0);
    }
    assert_int_equal(grpc_c_async_writes_done(stream), 0);
    expect_done(&told, GRPC_C_OK);
    assert_int_equal(told.written, 1000);
    assert_int_equal(told.messages, 1000);
    assert_int_equal(told.number, 1000);
    grpc_c_async_release(stream);
    fixture_stop(&fixture);
}

static void the_server_streams(void **state)
{
    struct fixture fixture;
    struct told told;
    grpc_c_async_stream *stream;

    (void)state;
    fixture_start(&fixture, NULL, NULL);
    stream = spread(fixture.channel, 2000, &patient, &told);
    told.reads = true;
    assert_int_equal(grpc_c_async_read(stream), 0);
    expect_done(&told, GRPC_C_OK);
    assert_int_equal(told.messages, 2000);
    assert_int_equal(told.number, 1999);
    assert_int_equal(told.written, 0); /* the request was not written by hand */
    grpc_c_async_release(stream);
    fixture_stop(&fixture);
}

static void the_client_streams(void **state)
{
    struct fixture fixture;
    struct told told;
    grpc_c_async_stream *stream;

    (void)state;
    fixture_start(&fixture, NULL, NULL);
    stream = start(fixture.channel, echo_collect, &patient, &told);
    for (uint32_t i = 1; i <= 100; i++) {
        assert_int_equal(write_number(stream, i), 0);
    }
    assert_int_equal(grpc_c_async_writes_done(stream), 0);
    expect_done(&told, GRPC_C_OK);
    assert_int_equal(told.number, 5050);
    assert_int_equal(told.written, 100);
    grpc_c_async_release(stream);
    fixture_stop(&fixture);
}

/* A server with another view of the shape: none or two where there must be one. */
static void an_answer_is_one_message(void **state)
{
    struct grpc_c_method method = *echo_chat;
    struct fixture fixture;
    struct told told;
    grpc_c_async_stream *stream;

    (void)state;
    method.shape = GRPC_C_CLIENT_STREAM;
    fixture_start(&fixture, NULL, NULL);
    for (uint32_t n = 0; n <= 2; n++) {
        stream = start(fixture.channel, &method, &patient, &told);
        for (uint32_t i = 0; i < n; i++) {
            assert_int_equal(write_number(stream, 7), 0);
        }
        (void)grpc_c_async_writes_done(stream);
        expect_done(&told, n == 1 ? GRPC_C_OK : GRPC_C_INTERNAL);
        assert_int_equal(told.number, n == 1 ? 7 : 0);
        assert_non_null(strstr(told.message, n == 0   ? "without a message"
                                             : n == 2 ? "more than one"
                                                      : ""));
        grpc_c_async_release(stream);
    }
    fixture_stop(&fixture);
}

/* -- what travels with it --------------------------------------------------------------------- */

static void show_all(grpc_c_call *call)
{
    static const uint8_t details[] = {8, 10};
    static const struct grpc_c_status status = {GRPC_C_ABORTED, "as it says", details, 2};
    struct grpc_c_metadata entry;
    size_t n;
    const struct grpc_c_metadata *list = grpc_c_call_metadata(call, &n);
    echo_response response = ECHO_RESPONSE;
    static uint8_t zeros[5000];

    entry = *grpc_c_metadata_find(list, n, "a");
    insist(grpc_c_call_add_header(call, &entry) == GRPC_C_METADATA_OK);
    insist(grpc_c_call_add_trailer(call, &entry) == GRPC_C_METADATA_OK);
    grpc_c_call_set_compression(call, GRPC_C_GZIP);
    response.payload.data = zeros;
    response.payload.len = sizeof(zeros);
    grpc_c_call_write(call, &response.base, NULL, NULL);
    grpc_c_call_finish(call, &status);
}

static void metadata_details_and_compression_come_along(void **state)
{
    struct grpc_c_metadata entry = {"a", "value", 5};
    struct grpc_c_call_options options = {
        .timeout_ms = PATIENCE_MS, .metadata = &entry, .n_metadata = 1};
    struct echo_handlers handlers = {.chat = show_all, .chat_message = NULL};
    struct fixture fixture;
    struct told told;
    grpc_c_async_stream *stream;

    (void)state;
    fixture_start(&fixture, NULL, &handlers);
    stream = start(fixture.channel, echo_chat, &options, &told);
    await_count(&told.headers, 1);
    assert_string_equal(told.header, "value");
    assert_int_equal(told.messages, 0);
    assert_int_equal(grpc_c_async_read(stream), 0);
    expect_done(&told, GRPC_C_ABORTED);
    assert_int_equal(told.messages, 1);
    assert_int_equal(told.bytes, 5000);
    assert_true(told.compressed);
    assert_string_equal(told.message, "as it says");
    assert_string_equal(told.trailer, "value");
    assert_int_equal(told.details, 2);
    grpc_c_async_release(stream);
    entry.key = "grpc-mine";
    stream = start(fixture.channel, echo_chat, &options, &told);
    expect_done(&told, GRPC_C_INVALID_ARGUMENT);
    grpc_c_async_release(stream);
    fixture_stop(&fixture);
}

/* How many messages came compressed. */
static atomic_uint compressed;

static void count_compressed(grpc_c_call *call, const echo_request *request)
{
    echo_response response = ECHO_RESPONSE;

    if (request == NULL) {
        grpc_c_call_reply(call, &response.base);
        return;
    }
    atomic_fetch_add(&compressed, grpc_c_call_message_compressed(call));
    grpc_c_call_read(call);
}

static void messages_go_compressed_or_as_they_are(void **state)
{
    static uint8_t zeros[5000];
    struct grpc_c_call_options options = {.timeout_ms = PATIENCE_MS, .compression = GRPC_C_GZIP};
    struct echo_handlers handlers = echo_default;
    struct fixture fixture;
    struct told told;
    echo_request request = ECHO_REQUEST;
    grpc_c_async_stream *stream;

    (void)state;
    atomic_store(&compressed, 0);
    handlers.collect_message = count_compressed;
    request.payload.data = zeros;
    request.payload.len = sizeof(zeros);
    fixture_start(&fixture, NULL, &handlers);
    stream = start(fixture.channel, echo_collect, &options, &told);
    assert_int_equal(grpc_c_async_write(stream, &request.base), 0);
    grpc_c_async_skip_compression(stream, true);
    assert_int_equal(grpc_c_async_write(stream, &request.base), 0);
    assert_int_equal(grpc_c_async_write(stream, &request.base), 0);
    assert_int_equal(grpc_c_async_writes_done(stream), 0);
    expect_done(&told, GRPC_C_OK);
    assert_int_equal(compressed, 1);
    grpc_c_async_release(stream);
    fixture_stop(&fixture);
}

static atomic_uint released;

static void release_lent(void *arg)
{
    free(arg); /* a second time is seen by ASan */
    atomic_fetch_add(&released, 1);
}

static struct grpc_c_lent lend(echo_request *request, size_t length)
{
    void *bytes = calloc(1, length);

    assert_non_null(bytes);
    request->payload.data = bytes;
    request->payload.len = length;
    return (struct grpc_c_lent){bytes, length, release_lent, bytes};
}

static void lent_bytes_are_sent_and_given_back(void **state)
{
    struct fixture fixture;
    struct told told;
    echo_request request = ECHO_REQUEST;
    struct grpc_c_lent lent;
    struct grpc_c_result result = {0};
    grpc_c_async_stream *stream;
    grpc_c_stream *blocking;
    echo_response *response;

    (void)state;
    atomic_store(&released, 0);
    fixture_start(&fixture, NULL, NULL);
    stream = start(fixture.channel, echo_chat, &patient, &told);
    lent = lend(&request, 200000);
    assert_int_equal(grpc_c_async_write_lent(stream, &request.base, &lent, 1), 0);
    assert_int_equal(grpc_c_async_read(stream), 0);
    await_count(&told.messages, 1);
    assert_int_equal(told.bytes, 200000);
    grpc_c_async_cancel(stream);
    expect_done(&told, GRPC_C_CANCELLED);
    lent = lend(&request, 100);
    assert_int_equal(grpc_c_async_write_lent(stream, &request.base, &lent, 1), -1);
    grpc_c_async_release(stream);
    blocking = grpc_c_stream_open(fixture.channel, echo_chat, &patient);
    lent = lend(&request, 100000);
    assert_int_equal(grpc_c_stream_write_lent(blocking, &request.base, &lent, 1), 0);
    response = (echo_response *)grpc_c_stream_read(blocking);
    assert_int_equal(response->payload.len, 100000);
    grpcc__test__echo_response__free_unpacked(response, NULL);
    grpc_c_stream_finish(blocking, &result);
    assert_int_equal(result.code, GRPC_C_OK);
    grpc_c_result_fini(&result);
    fixture_stop(&fixture);
    assert_int_equal(released, 3);
}

static void a_message_that_cannot_be_read_ends_it(void **state)
{
    struct grpc_c_method method = *echo_chat;
    struct fixture fixture;
    struct told told;
    grpc_c_async_stream *stream;

    (void)state;
    method.response = &grpcc__test__echo_request__descriptor; /* field 3 is another thing there */
    fixture_start(&fixture, NULL, NULL);
    stream = start(fixture.channel, &method, &patient, &told);
    assert_int_equal(write_number(stream, 1), 0);
    assert_int_equal(grpc_c_async_read(stream), 0);
    assert_int_equal(grpc_c_async_read(stream), 0);
    expect_done(&told, GRPC_C_INTERNAL);
    assert_non_null(strstr(told.message, "cannot be read"));
    assert_int_equal(told.messages, 0);
    grpc_c_async_release(stream);
    fixture_stop(&fixture);
}

/* -- back-pressure ---------------------------------------------------------------------------- */

#define PIECE    65536u
/* More than sockets (32 MiB, where tcp_rmem lets them) and flow control hold; a server that nothing
 * stops sends it in a fraction of the deadline. */
#define TOO_MUCH 100000000u

static uint8_t piece[PIECE];
static atomic_uint sent;
static atomic_uint told_to_stop;

static void write_on(grpc_c_call *call, void *arg)
{
    echo_response response = ECHO_RESPONSE;

    (void)arg;
    response.payload.data = piece;
    response.payload.len = PIECE;
    if (grpc_c_call_cancelled(call)) {
        grpc_c_call_fail(call, GRPC_C_CANCELLED, "enough");
        atomic_fetch_add(&told_to_stop, 1);
        return;
    }
    insist(atomic_fetch_add(&sent, 1) < TOO_MUCH / PIECE);
    grpc_c_call_write(call, &response.base, write_on, NULL);
}

static void flood(grpc_c_call *call, const echo_request *request)
{
    (void)request;
    write_on(call, NULL);
}

/* The deadline comes to a server whose writes wait: one that nothing stops is over the limit. */
static void a_client_that_asks_for_no_message_stops_the_server(void **state)
{
    struct grpc_c_call_options brief = {.timeout_ms = 1500};
    struct echo_handlers handlers = {.spread = flood};
    struct fixture fixture;
    struct told told;
    grpc_c_async_stream *stream;

    (void)state;
    atomic_store(&sent, 0);
    atomic_store(&told_to_stop, 0);
    fixture_start(&fixture, NULL, &handlers);
    fixture_warm(&fixture);
    stream = spread(fixture.channel, 0, &brief, &told);
    assert_int_equal(grpc_c_async_read(stream), 0);
    assert_int_equal(grpc_c_async_read(stream), 0);
    expect_done(&told, GRPC_C_DEADLINE_EXCEEDED);
    assert_int_equal(told.messages, 2); /* as many as were asked for */
    await_count(&told_to_stop, 1);
    grpc_c_async_release(stream);
    fixture_stop(&fixture);
}

static atomic_uint began;

static void hold(grpc_c_call *call)
{
    atomic_fetch_add(&began, 1);
    grpc_c_call_send_headers(call);
    grpc_c_call_on_cancel(call, write_on, NULL); /* finishes it */
}

static void ignore(grpc_c_call *call, const echo_request *request)
{
    (void)call;
    (void)request;
}

static const struct echo_handlers holding = {
    .chat = hold, .chat_message = ignore, .collect = hold, .collect_message = ignore};

/* Written is what the transport took; the rest waits, and comes back when the call ends. */
static void a_server_that_does_not_read_stops_the_client(void **state)
{
    struct fixture fixture;
    struct told told;
    echo_request request = ECHO_REQUEST;
    grpc_c_async_stream *stream;
    unsigned n = TOO_MUCH / PIECE;

    (void)state;
    request.payload.data = piece;
    request.payload.len = PIECE;
    fixture_start(&fixture, NULL, &holding);
    stream = start(fixture.channel, echo_chat, &forever, &told);
    for (unsigned i = 0; i < n; i++) {
        assert_int_equal(grpc_c_async_write(stream, &request.base), 0);
    }
    assert_int_equal(grpc_c_async_writes_done(stream), 0);
    await_count(&told.written, 1);
    grpc_c_async_cancel(stream);
    expect_done(&told, GRPC_C_CANCELLED);
    assert_int_equal(told.written + told.dropped, n);
    assert_in_range(told.written, 1, n - 1);
    grpc_c_async_release(stream);
    fixture_stop(&fixture);
}

/* -- ends ------------------------------------------------------------------------------------- */

static void a_stream_is_cancelled_by_another_thread(void **state)
{
    const struct grpc_c_method *const methods[] = {echo_chat, echo_collect};
    struct fixture fixture;
    struct told told;

    (void)state;
    atomic_store(&began, 0);
    fixture_start(&fixture, NULL, &holding);
    for (unsigned i = 0; i < 2; i++) {
        grpc_c_async_stream *stream = start(fixture.channel, methods[i], &forever, &told);
        await_count(&began, i + 1);
        assert_int_equal(told.done, 0);
        grpc_c_async_cancel(stream);
        expect_done(&told, GRPC_C_CANCELLED);
        grpc_c_async_release(stream);
    }
    fixture_stop(&fixture);
}

static void a_deadline_ends_it(void **state)
{
    struct grpc_c_call_options brief = {.timeout_ms = 50};
    struct fixture fixture;
    struct told told;
    grpc_c_async_stream *stream;

    (void)state;
    fixture_start(&fixture, NULL, &holding);
    stream = start(fixture.channel, echo_chat, &brief, &told);
    assert_int_equal(grpc_c_async_read(stream), 0);
    expect_done(&told, GRPC_C_DEADLINE_EXCEEDED);
    grpc_c_async_release(stream);
    fixture_stop(&fixture);
}

static void an_ended_stream_refuses_what_is_asked_of_it(void **state)
{
    struct fixture fixture;
    struct told told;
    grpc_c_async_stream *stream;

    (void)state;
    fixture_start(&fixture, NULL, NULL);
    stream = start(fixture.channel, echo_chat, &patient, &told);
    assert_int_equal(grpc_c_async_writes_done(stream), 0);
    expect_done(&told, GRPC_C_OK);
    for (unsigned i = 0; i < 2; i++) {
        assert_int_equal(grpc_c_async_read(stream), -1);
        assert_int_equal(write_number(stream, 1), -1);
        assert_int_equal(grpc_c_async_writes_done(stream), -1);
        grpc_c_async_skip_compression(stream, true);
        grpc_c_async_cancel(stream);
        fixture_stop(&fixture); /* and once more when its channel has gone */
        fixture = (struct fixture){0};
    }
    grpc_c_async_release(stream);
    grpc_c_async_release(NULL);
    assert_int_equal(told.done, 1);
    assert_int_equal(told.messages + told.written + told.dropped, 0);
}

static void a_handle_may_go_before_its_call(void **state)
{
    struct fixture fixture;
    struct told told;
    grpc_c_async_stream *stream;

    (void)state;
    fixture_start(&fixture, NULL, NULL);
    stream = start(fixture.channel, echo_chat, &patient, &told);
    told.reads = true;
    assert_int_equal(write_number(stream, 5), 0);
    assert_int_equal(grpc_c_async_read(stream), 0);
    assert_int_equal(grpc_c_async_writes_done(stream), 0);
    grpc_c_async_release(stream);
    expect_done(&told, GRPC_C_OK);
    assert_int_equal(told.number, 5);
    fixture_stop(&fixture);
}

/* A call that begins anew whenever it has ended. */
struct again {
    struct told told;
    grpc_c_channel *channel;
    atomic_uint refused;
};

static void start_again(grpc_c_async_stream *stream, const struct grpc_c_result *result, void *user)
{
    static const struct grpc_c_stream_events events = {NULL, NULL, start_again, arrived,
                                                       (void (*)(void))on_message};
    struct again *again = user;
    grpc_c_async_stream *next =
        grpc_c_stream_async(again->channel, echo_chat, NULL, &forever, &events, again);

    (void)result;
    grpc_c_async_release(stream);
    if (next == NULL) {
        atomic_fetch_add(&again->refused, 1);
    }
}

static void a_channel_ends_its_streams_before_it_goes(void **state)
{
    const struct grpc_c_stream_events events = {NULL, NULL, start_again, arrived,
                                                (void (*)(void))on_message};
    struct told told[3];
    struct again again = {.refused = 0};
    grpc_c_async_stream *streams[3];
    struct fixture fixture;

    (void)state;
    atomic_store(&began, 0);
    fixture_start(&fixture, NULL, &holding);
    again.channel = fixture.channel;
    for (size_t i = 0; i < 3; i++) {
        streams[i] = start(fixture.channel, i == 0 ? echo_collect : echo_chat, &forever, &told[i]);
    }
    assert_non_null(
        grpc_c_stream_async(fixture.channel, echo_chat, NULL, &forever, &events, &again));
    await_count(&began, 4);
    grpc_c_channel_destroy(fixture.channel);
    fixture.channel = NULL;
    for (size_t i = 0; i < 3; i++) {
        assert_int_equal(told[i].done, 1);
        assert_int_equal(told[i].code, GRPC_C_CANCELLED);
        grpc_c_async_release(streams[i]);
    }
    assert_int_equal(again.refused, 1);
    fixture_stop(&fixture);
}

/* -- many ------------------------------------------------------------------------------------- */

#define MANY 4000u

/* All are open at once; each says something and hears it; then half are cancelled. */
static void thousands_share_a_channel(void **state)
{
    struct told *told = calloc(MANY, sizeof(*told));
    grpc_c_async_stream **streams = calloc(MANY, sizeof(void *));
    struct fixture fixture;

    (void)state;
    assert_non_null(told);
    assert_non_null(streams);
    fixture_start(&fixture, NULL, NULL);
    for (uint32_t i = 0; i < MANY; i++) {
        streams[i] = start(fixture.channel, echo_chat, &forever, &told[i]);
        assert_int_equal(write_number(streams[i], i), 0);
        assert_int_equal(grpc_c_async_read(streams[i]), 0);
    }
    for (uint32_t i = 0; i < MANY; i++) {
        await_count(&told[i].messages, 1);
        assert_int_equal(told[i].number, i);
    }
    for (uint32_t i = 0; i < MANY; i++) {
        if (i % 2 == 0) {
            grpc_c_async_cancel(streams[i]);
        } else {
            assert_int_equal(grpc_c_async_writes_done(streams[i]), 0);
        }
    }
    for (uint32_t i = 0; i < MANY; i++) {
        expect_done(&told[i], i % 2 == 0 ? GRPC_C_CANCELLED : GRPC_C_OK);
        assert_int_equal(told[i].written, 1);
        grpc_c_async_release(streams[i]);
    }
    fixture_stop(&fixture);
    free(streams);
    free(told);
}

/* -- from many threads ------------------------------------------------------------------------ */

static void *write_much(void *arg)
{
    for (uint32_t i = 0; i < 500; i++) {
        insist(write_number(arg, 1) == 0);
        insist(grpc_c_async_read(arg) == 0);
    }
    return NULL;
}

static void threads_share_a_stream(void **state)
{
    struct fixture fixture;
    struct told told;
    pthread_t threads[4];
    grpc_c_async_stream *stream;

    (void)state;
    fixture_start(&fixture, NULL, NULL);
    stream = start(fixture.channel, echo_chat, &forever, &told);
    for (size_t i = 0; i < 4; i++) {
        assert_int_equal(pthread_create(&threads[i], NULL, write_much, stream), 0);
    }
    for (size_t i = 0; i < 4; i++) {
        pthread_join(threads[i], NULL);
    }
    assert_int_equal(grpc_c_async_writes_done(stream), 0);
    expect_done(&told, GRPC_C_OK);
    assert_int_equal(told.written, 2000);
    assert_int_equal(told.messages, 2000);
    grpc_c_async_release(stream);
    fixture_stop(&fixture);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(both_sides_stream),
        cmocka_unit_test(messages_are_written_and_asked_for_ahead),
        cmocka_unit_test(the_server_streams),
        cmocka_unit_test(the_client_streams),
        cmocka_unit_test(an_answer_is_one_message),
        cmocka_unit_test(metadata_details_and_compression_come_along),
        cmocka_unit_test(messages_go_compressed_or_as_they_are),
        cmocka_unit_test(lent_bytes_are_sent_and_given_back),
        cmocka_unit_test(a_message_that_cannot_be_read_ends_it),
        cmocka_unit_test(a_client_that_asks_for_no_message_stops_the_server),
        cmocka_unit_test(a_server_that_does_not_read_stops_the_client),
        cmocka_unit_test(a_stream_is_cancelled_by_another_thread),
        cmocka_unit_test(a_deadline_ends_it),
        cmocka_unit_test(an_ended_stream_refuses_what_is_asked_of_it),
        cmocka_unit_test(a_handle_may_go_before_its_call),
        cmocka_unit_test(a_channel_ends_its_streams_before_it_goes),
        cmocka_unit_test(thousands_share_a_channel),
        cmocka_unit_test(threads_share_a_stream),
    };

    return cmocka_run_group_tests_name("grpc_c_async_streams", tests, NULL, NULL);
}
