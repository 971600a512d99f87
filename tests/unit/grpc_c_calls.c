/* The four shapes of call, from the client through the server and back. */
#include <pthread.h>
#include <stdlib.h>
#include <string.h>

#include "grpc_c_fixture.h"

static const struct grpc_c_call_options patient = {.timeout_ms = PATIENCE_MS};

/* -- unary ------------------------------------------------------------------------------------ */

static void unary_echoes(void **state)
{
    struct fixture fixture;
    echo_request request = ECHO_REQUEST;
    echo_response *response;

    (void)state;
    fixture_start(&fixture, NULL, NULL);
    request.text = "h\xc3\xa9llo";
    request.payload.data = (uint8_t *)"\0\1\2";
    request.payload.len = 3;
    request.number = 7;
    response = echo_ok(fixture.channel, &request);
    assert_string_equal(response->text, request.text);
    assert_int_equal(response->payload.len, 3);
    assert_memory_equal(response->payload.data, "\0\1\2", 3);
    assert_int_equal(response->number, 7);
    grpcc__test__echo_response__free_unpacked(response, NULL);
    fixture_stop(&fixture);
}

static void unary_takes_and_gives_empty_messages(void **state)
{
    struct fixture fixture;
    echo_request request = ECHO_REQUEST;
    echo_response *response;

    (void)state;
    fixture_start(&fixture, NULL, NULL);
    response = echo_ok(fixture.channel, &request);
    assert_string_equal(response->text, "");
    assert_int_equal(response->payload.len, 0);
    grpcc__test__echo_response__free_unpacked(response, NULL);
    fixture_stop(&fixture);
}

static void unary_carries_messages_of_many_slices(void **state)
{
    struct fixture fixture;
    echo_request request = ECHO_REQUEST;
    size_t size = 3u << 20;

    (void)state;
    fixture_start(&fixture, NULL, NULL);
    request.payload.data = malloc(size);
    for (size_t i = 0; i < size; i++) {
        request.payload.data[i] = (uint8_t)(i * 31 >> 5);
    }
    for (size_t n = 1; n <= size; n = n * 3 + 1) {
        echo_response *response;
        request.payload.len = n;
        response = echo_ok(fixture.channel, &request);
        assert_int_equal(response->payload.len, n);
        assert_memory_equal(response->payload.data, request.payload.data, n);
        grpcc__test__echo_response__free_unpacked(response, NULL);
    }
    free(request.payload.data);
    fixture_stop(&fixture);
}

static void *call_many(void *arg)
{
    const struct fixture *fixture = arg;

    for (uint32_t i = 0; i < 200; i++) {
        echo_request request = ECHO_REQUEST;
        echo_response *response;
        request.number = i;
        response = echo_ok(fixture->channel, &request);
        insist(response->number == i);
        grpcc__test__echo_response__free_unpacked(response, NULL);
    }
    return NULL;
}

static void many_threads_share_a_channel(void **state)
{
    struct grpc_c_server_options options = {.pollers = 3, .accepts = 2};
    struct fixture fixture;
    pthread_t threads[8];

    (void)state;
    fixture_start(&fixture, &options, NULL);
    for (size_t i = 0; i < 8; i++) {
        assert_int_equal(pthread_create(&threads[i], NULL, call_many, &fixture), 0);
    }
    for (size_t i = 0; i < 8; i++) {
        pthread_join(threads[i], NULL);
    }
    fixture_stop(&fixture);
}

/* -- finishing from another thread ------------------------------------------------------------ */

static void *reply_late(void *arg)
{
    grpc_c_call *call = arg;
    echo_response response = ECHO_RESPONSE;

    response.number = 42;
    grpc_c_call_reply(call, &response.base);
    return NULL;
}

static void reply_from_thread(grpc_c_call *call, const echo_request *request)
{
    pthread_t thread;

    (void)request;
    insist(pthread_create(&thread, NULL, reply_late, call) == 0);
    pthread_detach(thread);
}

static void another_thread_may_finish(void **state)
{
    struct echo_handlers handlers = {.unary = reply_from_thread};
    struct fixture fixture;

    (void)state;
    fixture_start(&fixture, NULL, &handlers);
    for (int i = 0; i < 100; i++) {
        echo_request request = ECHO_REQUEST;
        echo_response *response = echo_ok(fixture.channel, &request);
        assert_int_equal(response->number, 42);
        grpcc__test__echo_response__free_unpacked(response, NULL);
    }
    fixture_stop(&fixture);
}

/* -- streams ---------------------------------------------------------------------------------- */

static void client_stream_is_read_to_its_end(void **state)
{
    struct fixture fixture;
    struct grpc_c_result result = {0};
    echo_response *response;
    grpc_c_stream *stream;

    (void)state;
    fixture_start(&fixture, NULL, NULL);
    stream = grpc_c_stream_open(fixture.channel, echo_collect, &patient);
    for (uint32_t i = 1; i <= 500; i++) {
        echo_request request = ECHO_REQUEST;
        request.number = i;
        assert_int_equal(grpc_c_stream_write(stream, &request.base), 0);
    }
    assert_int_equal(grpc_c_stream_writes_done(stream), 0);
    response = (echo_response *)grpc_c_stream_read(stream);
    assert_non_null(response);
    assert_int_equal(response->number, 500 * 501 / 2);
    grpcc__test__echo_response__free_unpacked(response, NULL);
    assert_null(grpc_c_stream_read(stream));
    assert_null(grpc_c_stream_read(stream));
    grpc_c_stream_finish(stream, &result);
    assert_int_equal(result.code, GRPC_C_OK);
    assert_string_equal(result.message, "");
    grpc_c_result_fini(&result);
    fixture_stop(&fixture);
}

/* Opens Spread and sends its one request. */
static grpc_c_stream *open_spread(const struct fixture *fixture, uint32_t number)
{
    grpc_c_stream *stream = grpc_c_stream_open(fixture->channel, echo_spread, &patient);
    echo_request request = ECHO_REQUEST;

    request.number = number;
    assert_int_equal(grpc_c_stream_write(stream, &request.base), 0);
    assert_int_equal(grpc_c_stream_writes_done(stream), 0);
    return stream;
}

static void server_stream_comes_in_order(void **state)
{
    struct fixture fixture;
    struct grpc_c_result result = {0};
    grpc_c_stream *stream;

    (void)state;
    fixture_start(&fixture, NULL, NULL);
    stream = open_spread(&fixture, 2000);
    for (uint32_t i = 0; i < 2000; i++) {
        echo_response *response = (echo_response *)grpc_c_stream_read(stream);
        assert_non_null(response);
        assert_int_equal(response->number, i);
        grpcc__test__echo_response__free_unpacked(response, NULL);
    }
    assert_null(grpc_c_stream_read(stream));
    grpc_c_stream_finish(stream, &result);
    assert_int_equal(result.code, GRPC_C_OK);
    grpc_c_result_fini(&result);
    fixture_stop(&fixture);
}

static void finish_drops_what_was_not_read(void **state)
{
    struct fixture fixture;
    struct grpc_c_result result = {0};
    grpc_c_stream *stream;

    (void)state;
    fixture_start(&fixture, NULL, NULL);
    stream = open_spread(&fixture, 2000);
    grpc_c_stream_finish(stream, &result);
    assert_int_equal(result.code, GRPC_C_OK);
    grpc_c_result_fini(&result);
    stream = open_spread(&fixture, 0);
    assert_null(grpc_c_stream_read(stream));
    grpc_c_stream_finish(stream, NULL);
    fixture_stop(&fixture);
}

static void chat_alternates(void **state)
{
    struct fixture fixture;
    struct grpc_c_result result = {0};
    grpc_c_stream *stream;

    (void)state;
    fixture_start(&fixture, NULL, NULL);
    stream = grpc_c_stream_open(fixture.channel, echo_chat, &patient);
    for (uint32_t i = 0; i < 300; i++) {
        echo_request request = ECHO_REQUEST;
        echo_response *response;
        request.number = i;
        assert_int_equal(grpc_c_stream_write(stream, &request.base), 0);
        response = (echo_response *)grpc_c_stream_read(stream);
        assert_int_equal(response->number, i);
        grpcc__test__echo_response__free_unpacked(response, NULL);
    }
    assert_int_equal(grpc_c_stream_writes_done(stream), 0);
    assert_int_equal(grpc_c_stream_writes_done(stream), -1);
    assert_null(grpc_c_stream_read(stream));
    grpc_c_stream_finish(stream, &result);
    assert_int_equal(result.code, GRPC_C_OK);
    grpc_c_result_fini(&result);
    fixture_stop(&fixture);
}

static void *write_chat(void *arg)
{
    grpc_c_stream *stream = arg;

    for (uint32_t i = 0; i < 2000; i++) {
        echo_request request = ECHO_REQUEST;
        request.number = i;
        insist(grpc_c_stream_write(stream, &request.base) == 0);
    }
    insist(grpc_c_stream_writes_done(stream) == 0);
    return NULL;
}

static void one_thread_writes_while_another_reads(void **state)
{
    struct fixture fixture;
    struct grpc_c_result result = {0};
    echo_response *response;
    grpc_c_stream *stream;
    pthread_t writer;
    uint32_t n = 0;

    (void)state;
    fixture_start(&fixture, NULL, NULL);
    stream = grpc_c_stream_open(fixture.channel, echo_chat, &patient);
    assert_int_equal(pthread_create(&writer, NULL, write_chat, stream), 0);
    while ((response = (echo_response *)grpc_c_stream_read(stream)) != NULL) {
        assert_int_equal(response->number, n++);
        grpcc__test__echo_response__free_unpacked(response, NULL);
    }
    pthread_join(writer, NULL);
    assert_int_equal(n, 2000);
    grpc_c_stream_finish(stream, &result);
    assert_int_equal(result.code, GRPC_C_OK);
    grpc_c_result_fini(&result);
    fixture_stop(&fixture);
}

/* -- what a handler may ask ------------------------------------------------------------------- */

static void report_call(grpc_c_call *call, const echo_request *request)
{
    echo_response response = ECHO_RESPONSE;
    int64_t left = grpc_c_call_remaining_ms(call);

    (void)request;
    insist(!grpc_c_call_cancelled(call));
    response.text = (char *)grpc_c_call_peer(call);
    response.number = left > 1000000 ? UINT32_MAX : (uint32_t)left;
    grpc_c_call_reply(call, &response.base);
}

static void handler_sees_peer_and_deadline(void **state)
{
    struct echo_handlers handlers = {.unary = report_call};
    struct grpc_c_result result = {0};
    struct fixture fixture;
    echo_request request = ECHO_REQUEST;
    echo_response *response;

    (void)state;
    fixture_start(&fixture, NULL, &handlers);
    response = echo_ok(fixture.channel, &request);
    assert_memory_equal(response->text, "ipv4:127.0.0.1:", 15);
    assert_in_range(response->number, 1, PATIENCE_MS + 1000); /* rounded on the wire */
    grpcc__test__echo_response__free_unpacked(response, NULL);
    response =
        (echo_response *)grpc_c_unary(fixture.channel, echo_unary, &request.base, NULL, &result);
    assert_int_equal(response->number, UINT32_MAX);
    grpcc__test__echo_response__free_unpacked(response, NULL);
    grpc_c_result_fini(&result);
    fixture_stop(&fixture);
}

static atomic_uint destroyed;

static void count_destroy(void *data)
{
    insist(data == &destroyed);
    atomic_fetch_add(&destroyed, 1);
}

static void reply_with_data(grpc_c_call *call, const echo_request *request)
{
    echo_response response = ECHO_RESPONSE;

    (void)request;
    grpc_c_call_set_data(call, &destroyed, count_destroy);
    insist(grpc_c_call_data(call) == &destroyed);
    grpc_c_call_reply(call, &response.base);
}

static void data_is_destroyed_with_the_call(void **state)
{
    struct echo_handlers handlers = {.unary = reply_with_data};
    struct fixture fixture;
    echo_request request = ECHO_REQUEST;

    (void)state;
    atomic_store(&destroyed, 0);
    fixture_start(&fixture, NULL, &handlers);
    for (int i = 0; i < 3; i++) {
        grpcc__test__echo_response__free_unpacked(echo_ok(fixture.channel, &request), NULL);
    }
    await_count(&destroyed, 3);
    fixture_stop(&fixture);
    assert_int_equal(destroyed, 3);
}

static void services_are_added_once_and_before_the_start(void **state)
{
    struct fixture fixture;

    (void)state;
    fixture_start(&fixture, NULL, NULL);
    assert_int_equal(grpc_c_server_add_service(fixture.server, &echo_service, &echo_default), -1);
    fixture_stop(&fixture);
    fixture.server = grpc_c_server_create(NULL);
    assert_int_equal(grpc_c_server_add_service(fixture.server, &echo_service, &echo_default), 0);
    assert_int_equal(grpc_c_server_add_service(fixture.server, &echo_service, &echo_default), -1);
    grpc_c_server_destroy(fixture.server);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(unary_echoes),
        cmocka_unit_test(unary_takes_and_gives_empty_messages),
        cmocka_unit_test(unary_carries_messages_of_many_slices),
        cmocka_unit_test(many_threads_share_a_channel),
        cmocka_unit_test(another_thread_may_finish),
        cmocka_unit_test(client_stream_is_read_to_its_end),
        cmocka_unit_test(server_stream_comes_in_order),
        cmocka_unit_test(finish_drops_what_was_not_read),
        cmocka_unit_test(chat_alternates),
        cmocka_unit_test(one_thread_writes_while_another_reads),
        cmocka_unit_test(handler_sees_peer_and_deadline),
        cmocka_unit_test(data_is_destroyed_with_the_call),
        cmocka_unit_test(services_are_added_once_and_before_the_start),
    };

    return cmocka_run_group_tests_name("grpc_c_calls", tests, NULL, NULL);
}
