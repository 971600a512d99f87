/* The end of a server: what drains, what is cancelled, and what is left behind: nothing. */
#include <pthread.h>
#include <stdlib.h>
#include <string.h>

#include "grpc_c_fixture.h"

static const struct grpc_c_call_options patient = {.timeout_ms = PATIENCE_MS};

static atomic_uint began;
static atomic_uint told;
static _Atomic(grpc_c_call *) held;

static int fresh(void **state)
{
    (void)state;
    atomic_store(&began, 0);
    atomic_store(&told, 0);
    atomic_store(&held, NULL);
    return 0;
}

static void note_cancel(grpc_c_call *call, void *arg)
{
    (void)arg;
    atomic_fetch_add(&told, 1);
    grpc_c_call_fail(call, GRPC_C_UNAVAILABLE, "the server is stopping");
}

static void hold(grpc_c_call *call, const echo_request *request)
{
    (void)request;
    grpc_c_call_on_cancel(call, note_cancel, NULL);
    atomic_store(&held, call);
    atomic_fetch_add(&began, 1);
}

static void hold_stream(grpc_c_call *call)
{
    hold(call, NULL);
}

static void ignore_message(grpc_c_call *call, const echo_request *request)
{
    (void)call;
    (void)request;
}

static const struct echo_handlers holding = {
    .unary = hold,
    .spread = hold,
    .chat = hold_stream,
    .chat_message = ignore_message,
};

/* -- servers without calls ----------------------------------------------------------------------
 */

static void a_server_never_started_is_destroyed(void **state)
{
    grpc_c_server *server;
    int port;

    (void)state;
    grpc_c_server_destroy(NULL);
    grpc_c_channel_destroy(NULL);
    server = grpc_c_server_create(NULL);
    grpc_c_server_destroy(server);
    server = grpc_c_server_create(NULL);
    assert_int_equal(grpc_c_server_add_service(server, &echo_service, &echo_default), 0);
    assert_int_equal(grpc_c_server_listen(server, "127.0.0.1:0", &port, NULL, 0), 0);
    assert_int_equal(grpc_c_server_shutdown(server, 0), 0);
    grpc_c_server_destroy(server);
}

static void an_idle_server_stops_at_once(void **state)
{
    struct grpc_c_server_options options = {.pollers = 4, .accepts = 64};
    struct fixture fixture;
    echo_request request = ECHO_REQUEST;
    int64_t start;

    (void)state;
    fixture_start(&fixture, &options, NULL);
    grpcc__test__echo_response__free_unpacked(echo_ok(fixture.channel, &request), NULL);
    start = now_ms();
    assert_int_equal(grpc_c_server_shutdown(fixture.server, PATIENCE_MS), 0);
    assert_in_range(now_ms() - start, 0, PATIENCE_MS / 2);
    assert_int_equal(grpc_c_server_shutdown(fixture.server, PATIENCE_MS), 0);
    grpc_c_server_wait(fixture.server);
    fixture_stop(&fixture);
}

static void *wait_for_server(void *arg)
{
    grpc_c_server_wait(arg);
    atomic_fetch_add(&told, 1);
    return NULL;
}

static void wait_returns_after_shutdown(void **state)
{
    struct fixture fixture;
    pthread_t thread;

    (void)state;
    fixture_start(&fixture, NULL, NULL);
    assert_int_equal(pthread_create(&thread, NULL, wait_for_server, fixture.server), 0);
    assert_int_equal(told, 0);
    (void)grpc_c_server_shutdown(fixture.server, 0);
    pthread_join(thread, NULL);
    assert_int_equal(told, 1);
    fixture_stop(&fixture);
}

/* -- servers with calls ---------------------------------------------------------------------------
 */

struct caller {
    struct fixture *fixture;
    struct grpc_c_result result;
    ProtobufCMessage *response;
};

static void *call_once(void *arg)
{
    struct caller *caller = arg;
    echo_request request = ECHO_REQUEST;

    caller->response = grpc_c_unary(caller->fixture->channel, echo_unary, &request.base, &patient,
                                    &caller->result);
    return NULL;
}

static void *shut_down(void *arg)
{
    struct fixture *fixture = arg;

    /* NOLINTNEXTLINE(performance-no-int-to-ptr) */
    return (void *)(uintptr_t)grpc_c_server_shutdown(fixture->server, PATIENCE_MS);
}

/* Calls until the server says it is not there any more. */
static void await_refusal(const struct fixture *fixture)
{
    grpc_c_channel *channel = fixture_connect(fixture);
    int64_t until = now_ms() + PATIENCE_MS;
    struct grpc_c_call_options brief = {.timeout_ms = 200};
    struct grpc_c_result result = {0};
    echo_request request = ECHO_REQUEST;

    while (result.code != GRPC_C_UNAVAILABLE) {
        grpc_c_result_fini(&result);
        assert_null(grpc_c_unary(channel, echo_unary, &request.base, &brief, &result));
        assert_true(now_ms() < until);
    }
    grpc_c_result_fini(&result);
    grpc_c_channel_destroy(channel);
}

static void shutdown_lets_a_running_call_finish(void **state)
{
    struct fixture fixture;
    struct caller caller = {.fixture = &fixture};
    echo_response response = ECHO_RESPONSE;
    grpc_c_call *call;
    pthread_t threads[2];
    void *cancelled;

    (void)state;
    fixture_start(&fixture, NULL, &holding);
    pthread_create(&threads[0], NULL, call_once, &caller);
    await_count(&began, 1);
    call = atomic_load(&held);
    pthread_create(&threads[1], NULL, shut_down, &fixture);
    await_refusal(&fixture);
    assert_false(grpc_c_call_cancelled(call));
    response.number = 5;
    grpc_c_call_reply(call, &response.base);
    pthread_join(threads[0], NULL);
    pthread_join(threads[1], &cancelled);
    assert_int_equal(caller.result.code, GRPC_C_OK);
    assert_int_equal(((echo_response *)caller.response)->number, 5);
    protobuf_c_message_free_unpacked(caller.response, NULL);
    grpc_c_result_fini(&caller.result);
    fixture_stop(&fixture);
}

static void shutdown_cancels_what_outlasts_the_drain(void **state)
{
    struct fixture fixture;
    struct caller callers[3];
    pthread_t threads[3];
    int64_t start;

    (void)state;
    fixture_start(&fixture, NULL, &holding);
    for (size_t i = 0; i < 3; i++) {
        callers[i] = (struct caller){.fixture = &fixture};
        pthread_create(&threads[i], NULL, call_once, &callers[i]);
    }
    await_count(&began, 3);
    start = now_ms();
    assert_int_equal(grpc_c_server_shutdown(fixture.server, 100), 3);
    assert_in_range(now_ms() - start, 99, PATIENCE_MS / 2);
    assert_int_equal(told, 3);
    for (size_t i = 0; i < 3; i++) {
        pthread_join(threads[i], NULL);
        assert_null(callers[i].response);
        assert_int_not_equal(callers[i].result.code, GRPC_C_OK);
        grpc_c_result_fini(&callers[i].result);
    }
    fixture_stop(&fixture);
}

static void streams_end_with_the_server(void **state)
{
    struct fixture fixture;
    echo_request request = ECHO_REQUEST;
    grpc_c_stream *streams[4];

    (void)state;
    fixture_start(&fixture, NULL, &holding);
    for (unsigned i = 0; i < 4; i++) {
        streams[i] = grpc_c_stream_open(fixture.channel, i < 2 ? echo_chat : echo_spread, &patient);
        assert_int_equal(grpc_c_stream_write(streams[i], &request.base), 0);
        await_count(&began, i + 1);
    }
    assert_int_equal(grpc_c_server_shutdown(fixture.server, 0), 4);
    for (unsigned i = 0; i < 4; i++) {
        struct grpc_c_result result = {0};
        assert_null(grpc_c_stream_read(streams[i]));
        grpc_c_stream_finish(streams[i], &result);
        assert_int_not_equal(result.code, GRPC_C_OK);
        grpc_c_result_fini(&result);
    }
    fixture_stop(&fixture);
}

/* A handler that forgot its call for a while holds the shutdown up, and no more than that. */
static void *finish_held(void *arg)
{
    struct grpc_c_status status = {.code = GRPC_C_ABORTED};
    grpc_c_call *call = atomic_load(&held);
    int64_t until = now_ms() + PATIENCE_MS;

    (void)arg;
    while (!grpc_c_call_cancelled(call) && now_ms() < until) {
    }
    grpc_c_call_finish(call, &status);
    return NULL;
}

static void keep(grpc_c_call *call, const echo_request *request)
{
    (void)request;
    atomic_store(&held, call);
    atomic_fetch_add(&began, 1);
}

static void a_forgetful_handler_is_waited_for(void **state)
{
    struct echo_handlers handlers = {.unary = keep};
    struct fixture fixture;
    struct caller caller = {.fixture = &fixture};
    pthread_t threads[2];

    (void)state;
    fixture_start(&fixture, NULL, &handlers);
    pthread_create(&threads[0], NULL, call_once, &caller);
    await_count(&began, 1);
    pthread_create(&threads[1], NULL, finish_held, NULL);
    assert_int_equal(grpc_c_server_shutdown(fixture.server, 0), 1);
    pthread_join(threads[0], NULL);
    pthread_join(threads[1], NULL);
    assert_int_not_equal(caller.result.code, GRPC_C_OK);
    grpc_c_result_fini(&caller.result);
    fixture_stop(&fixture);
}

/* -- under load -----------------------------------------------------------------------------------
 */

static atomic_bool stop_calling;

static void *call_until_stopped(void *arg)
{
    struct fixture *fixture = arg;
    grpc_c_channel *channel = fixture_connect(fixture);

    while (!atomic_load(&stop_calling)) {
        struct grpc_c_call_options brief = {.timeout_ms = 1000};
        struct grpc_c_result result = {0};
        echo_request request = ECHO_REQUEST;
        ProtobufCMessage *response =
            grpc_c_unary(channel, echo_unary, &request.base, &brief, &result);
        if (response != NULL) {
            protobuf_c_message_free_unpacked(response, NULL);
            atomic_fetch_add(&began, 1);
        }
        grpc_c_result_fini(&result);
    }
    grpc_c_channel_destroy(channel);
    return NULL;
}

static void shutdown_under_load_is_clean(void **state)
{
    (void)state;
    for (unsigned round = 0; round < 5; round++) {
        struct fixture fixture;
        pthread_t threads[4];
        atomic_store(&began, 0);
        atomic_store(&stop_calling, false);
        fixture_start(&fixture, NULL, NULL);
        for (size_t i = 0; i < 4; i++) {
            pthread_create(&threads[i], NULL, call_until_stopped, &fixture);
        }
        await_count(&began, 50);
        (void)grpc_c_server_shutdown(fixture.server, round % 2 == 0 ? 0 : 1000);
        atomic_store(&stop_calling, true);
        for (size_t i = 0; i < 4; i++) {
            pthread_join(threads[i], NULL);
        }
        fixture_stop(&fixture);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup(a_server_never_started_is_destroyed, fresh),
        cmocka_unit_test_setup(an_idle_server_stops_at_once, fresh),
        cmocka_unit_test_setup(wait_returns_after_shutdown, fresh),
        cmocka_unit_test_setup(shutdown_lets_a_running_call_finish, fresh),
        cmocka_unit_test_setup(shutdown_cancels_what_outlasts_the_drain, fresh),
        cmocka_unit_test_setup(streams_end_with_the_server, fresh),
        cmocka_unit_test_setup(a_forgetful_handler_is_waited_for, fresh),
        cmocka_unit_test_setup(shutdown_under_load_is_clean, fresh),
    };

    return cmocka_run_group_tests_name("grpc_c_shutdown", tests, NULL, NULL);
}
