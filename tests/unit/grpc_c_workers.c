/* A server with workers: handlers that block, and what goes on meanwhile. */
#include <pthread.h>
#include <string.h>

#include "grpc_c_fixture.h"

#define WORKERS 3u

static const struct grpc_c_call_options patient = {.timeout_ms = PATIENCE_MS};

static pthread_mutex_t gate_lock = PTHREAD_MUTEX_INITIALIZER;
static pthread_cond_t gate_opened = PTHREAD_COND_INITIALIZER;
static bool gate_open; /* gate_lock */

static atomic_uint blocked;
static atomic_uint told;
static atomic_uint overlaps;
static atomic_uint cancelled_lines; /* of reports */

static void set_gate(bool open)
{
    pthread_mutex_lock(&gate_lock);
    gate_open = open;
    pthread_cond_broadcast(&gate_opened);
    pthread_mutex_unlock(&gate_lock);
}

static void pass_gate(void)
{
    atomic_fetch_add(&blocked, 1);
    pthread_mutex_lock(&gate_lock);
    while (!gate_open) {
        pthread_cond_wait(&gate_opened, &gate_lock);
    }
    pthread_mutex_unlock(&gate_lock);
}

static int fresh(void **state)
{
    (void)state;
    set_gate(false);
    atomic_store(&blocked, 0);
    atomic_store(&told, 0);
    atomic_store(&overlaps, 0);
    atomic_store(&cancelled_lines, 0);
    return 0;
}

/* -- callers ------------------------------------------------------------------------------------
 */

struct caller {
    const struct fixture *fixture;
    int64_t timeout_ms;
    pthread_t thread;
    struct grpc_c_result result;
};

static void *call_number_one(void *arg)
{
    struct caller *caller = arg;
    struct grpc_c_call_options options = {.timeout_ms = caller->timeout_ms};
    echo_request request = ECHO_REQUEST;
    ProtobufCMessage *response;

    request.number = 1;
    response = grpc_c_unary(caller->fixture->channel, echo_unary, &request.base, &options,
                            &caller->result);
    if (response != NULL) {
        protobuf_c_message_free_unpacked(response, NULL);
    }
    return NULL;
}

static void start_callers(struct caller *callers, unsigned n, const struct fixture *fixture,
                          int64_t timeout_ms)
{
    for (unsigned i = 0; i < n; i++) {
        callers[i] = (struct caller){.fixture = fixture, .timeout_ms = timeout_ms};
        assert_int_equal(pthread_create(&callers[i].thread, NULL, call_number_one, &callers[i]), 0);
    }
}

static void end_callers(struct caller *callers, unsigned n, enum grpc_c_code code)
{
    for (unsigned i = 0; i < n; i++) {
        pthread_join(callers[i].thread, NULL);
        assert_int_equal(callers[i].result.code, code);
        grpc_c_result_fini(&callers[i].result);
    }
}

/* -- blocking handlers --------------------------------------------------------------------------
 */

static void block_if_one(grpc_c_call *call, const echo_request *request)
{
    echo_response response = ECHO_RESPONSE;

    if (request->number == 1) {
        pass_gate();
    }
    response.number = request->number;
    insist(grpc_c_call_reply(call, &response.base));
}

/* Three of four workers are blocked, in more calls than there are pollers. */
static void calls_that_block_do_not_stall_others(void **state)
{
    struct echo_handlers handlers = {.unary = block_if_one};
    struct grpc_c_server_options options = {.pollers = 1, .workers = WORKERS + 1};
    struct caller callers[WORKERS];
    struct fixture fixture;

    (void)state;
    fixture_start(&fixture, &options, &handlers);
    start_callers(callers, WORKERS, &fixture, PATIENCE_MS);
    await_count(&blocked, WORKERS);
    for (uint32_t i = 2; i < 50; i++) {
        echo_request request = ECHO_REQUEST;
        echo_response *response;
        request.number = i;
        response = echo_ok(fixture.channel, &request);
        assert_int_equal(response->number, i);
        grpcc__test__echo_response__free_unpacked(response, NULL);
    }
    set_gate(true);
    end_callers(callers, WORKERS, GRPC_C_OK);
    fixture_stop(&fixture);
}

/* What server.h says of a handler that blocks where there are none: nothing else gets through. */
static void without_workers_a_handler_that_blocks_stalls_its_poller(void **state)
{
    struct echo_handlers handlers = {.unary = block_if_one};
    struct grpc_c_server_options options = {.pollers = 1};
    struct grpc_c_call_options brief = {.timeout_ms = 200};
    struct grpc_c_result result = {0};
    struct caller caller;
    struct fixture fixture;
    echo_request request = ECHO_REQUEST;

    (void)state;
    fixture_start(&fixture, &options, &handlers);
    start_callers(&caller, 1, &fixture, PATIENCE_MS);
    await_count(&blocked, 1);
    assert_null(grpc_c_unary(fixture.channel, echo_unary, &request.base, &brief, &result));
    assert_int_equal(result.code, GRPC_C_DEADLINE_EXCEEDED);
    grpc_c_result_fini(&result);
    set_gate(true);
    end_callers(&caller, 1, GRPC_C_OK);
    fixture_stop(&fixture);
}

/* -- the line -----------------------------------------------------------------------------------
 */

static void a_full_line_refuses_and_the_rest_is_served(void **state)
{
    struct echo_handlers handlers = {.unary = block_if_one};
    struct grpc_c_server_options options = {.workers = 1, .worker_line = 2};
    struct caller callers[3];
    struct fixture fixture;
    echo_request request = ECHO_REQUEST;
    int64_t until = now_ms() + PATIENCE_MS;

    (void)state;
    fixture_start(&fixture, &options, &handlers);
    start_callers(callers, 1, &fixture, PATIENCE_MS);
    await_count(&blocked, 1);
    start_callers(callers + 1, 2, &fixture, PATIENCE_MS);
    while (grpc_c_server_report(fixture.server, 0) < 3) { /* the two are in line */
        assert_true(now_ms() < until);
    }
    echo_fails(fixture.channel, echo_unary, &request, GRPC_C_RESOURCE_EXHAUSTED,
               "too many calls wait for a worker");
    set_gate(true);
    end_callers(callers, 3, GRPC_C_OK);
    assert_int_equal(blocked, 3);
    grpcc__test__echo_response__free_unpacked(echo_ok(fixture.channel, &request), NULL);
    fixture_stop(&fixture);
}

static void a_call_cancelled_in_line_does_not_reach_its_handler(void **state)
{
    struct echo_handlers handlers = {.unary = block_if_one};
    struct grpc_c_server_options options = {.workers = 1};
    struct caller callers[2];
    struct fixture fixture;
    int64_t until = now_ms() + PATIENCE_MS;

    (void)state;
    fixture_start(&fixture, &options, &handlers);
    start_callers(callers, 1, &fixture, PATIENCE_MS);
    await_count(&blocked, 1);
    start_callers(callers + 1, 1, &fixture, 200);
    end_callers(callers + 1, 1, GRPC_C_DEADLINE_EXCEEDED);
    while (atomic_load(&cancelled_lines) == 0) { /* its server has noticed, too */
        (void)grpc_c_server_report(fixture.server, 0);
        assert_true(now_ms() < until);
    }
    set_gate(true);
    end_callers(callers, 1, GRPC_C_OK);
    (void)grpc_c_server_shutdown(fixture.server, PATIENCE_MS);
    assert_int_equal(blocked, 1);
    fixture_stop(&fixture);
}

/* -- cancelling ---------------------------------------------------------------------------------
 */

static void note_cancel(grpc_c_call *call, void *arg)
{
    insist(arg == &told);
    insist(grpc_c_call_cancelled(call));
    atomic_fetch_add(&told, 1);
    insist(grpc_c_call_fail(call, GRPC_C_CANCELLED, "so it is"));
}

static void block_until_cancelled(grpc_c_call *call, const echo_request *request)
{
    int64_t until = now_ms() + PATIENCE_MS;

    (void)request;
    insist(grpc_c_call_on_cancel(call, note_cancel, &told));
    while (!grpc_c_call_cancelled(call)) {
        insist(now_ms() < until);
    }
    insist(atomic_load(&told) == 0); /* callbacks of one call do not overlap */
}

static void a_blocked_handler_can_see_that_it_is_cancelled(void **state)
{
    struct echo_handlers handlers = {.unary = block_until_cancelled};
    struct grpc_c_server_options options = {.pollers = 1, .workers = 1};
    struct caller caller;
    struct fixture fixture;

    (void)state;
    fixture_start(&fixture, &options, &handlers);
    start_callers(&caller, 1, &fixture, 300);
    end_callers(&caller, 1, GRPC_C_DEADLINE_EXCEEDED);
    await_count(&told, 1);
    fixture_stop(&fixture);
}

/* -- streams ------------------------------------------------------------------------------------
 */

/* A stream's data: whether a callback of it is running, and what is to come next. */
struct order {
    atomic_bool busy;
    uint32_t next;
    uint32_t written;
};

static void enter(struct order *order)
{
    if (atomic_exchange(&order->busy, true)) {
        atomic_fetch_add(&overlaps, 1);
    }
}

static void chat_open(grpc_c_call *call)
{
    insist(grpc_c_call_set_data(call, calloc(1, sizeof(struct order)), free));
    insist(grpc_c_call_read(call));
}

static void chat_written(grpc_c_call *call, void *arg)
{
    struct order *order = grpc_c_call_data(call);

    enter(order);
    insist((uint32_t)(uintptr_t)arg == order->written);
    order->written++;
    atomic_store(&order->busy, false);
}

/* Reads on before it has answered, so that several turns of the call are ready at a time. */
static void chat_message(grpc_c_call *call, const echo_request *request)
{
    struct order *order = grpc_c_call_data(call);
    struct grpc_c_status ok = {.code = GRPC_C_OK};
    echo_response response = ECHO_RESPONSE;

    enter(order);
    if (request == NULL) {
        insist(grpc_c_call_finish(call, &ok));
    } else {
        insist(request->number == order->next);
        response.number = order->next;
        /* NOLINTNEXTLINE(performance-no-int-to-ptr) */
        insist(
            grpc_c_call_write(call, &response.base, chat_written, (void *)(uintptr_t)order->next));
        order->next++;
        insist(grpc_c_call_read(call));
    }
    atomic_store(&order->busy, false);
}

static void *chat(void *arg)
{
    const struct fixture *fixture = arg;
    grpc_c_stream *stream = grpc_c_stream_open(fixture->channel, echo_chat, &patient);
    struct grpc_c_result result = {0};
    echo_request request = ECHO_REQUEST;

    for (uint32_t i = 0; i < 200; i++) {
        request.number = i;
        insist(grpc_c_stream_write(stream, &request.base) == 0);
    }
    for (uint32_t i = 0; i < 200; i++) {
        ProtobufCMessage *message = grpc_c_stream_read(stream);
        insist(message != NULL && ((echo_response *)message)->number == i);
        protobuf_c_message_free_unpacked(message, NULL);
    }
    grpc_c_stream_finish(stream, &result);
    insist(result.code == GRPC_C_OK);
    grpc_c_result_fini(&result);
    return NULL;
}

static void a_streams_callbacks_keep_their_order_on_many_workers(void **state)
{
    struct echo_handlers handlers = {.chat = chat_open, .chat_message = chat_message};
    struct grpc_c_server_options options = {.workers = 4};
    struct fixture fixture;
    pthread_t threads[6];

    (void)state;
    fixture_start(&fixture, &options, &handlers);
    for (size_t i = 0; i < 6; i++) {
        assert_int_equal(pthread_create(&threads[i], NULL, chat, &fixture), 0);
    }
    for (size_t i = 0; i < 6; i++) {
        pthread_join(threads[i], NULL);
    }
    assert_int_equal(overlaps, 0);
    fixture_stop(&fixture);
}

/* What a blocked handler has written goes out while it is blocked. */
static void write_and_block(grpc_c_call *call, const echo_request *request)
{
    struct grpc_c_status ok = {.code = GRPC_C_OK};

    for (uint32_t i = 0; i < request->number; i++) {
        echo_response response = ECHO_RESPONSE;
        response.number = i;
        insist(grpc_c_call_write(call, &response.base, NULL, NULL));
    }
    pass_gate();
    insist(grpc_c_call_finish(call, &ok));
}

static void what_a_blocked_handler_wrote_is_sent(void **state)
{
    struct echo_handlers handlers = {.spread = write_and_block};
    struct grpc_c_server_options options = {.pollers = 1, .workers = 1};
    struct grpc_c_result result = {0};
    struct fixture fixture;
    echo_request request = ECHO_REQUEST;
    grpc_c_stream *stream;

    (void)state;
    request.number = 20;
    fixture_start(&fixture, &options, &handlers);
    stream = grpc_c_stream_open(fixture.channel, echo_spread, &patient);
    assert_int_equal(grpc_c_stream_write(stream, &request.base), 0);
    for (uint32_t i = 0; i < 20; i++) {
        ProtobufCMessage *message = grpc_c_stream_read(stream);
        assert_non_null(message);
        protobuf_c_message_free_unpacked(message, NULL);
    }
    set_gate(true);
    grpc_c_stream_finish(stream, &result);
    assert_int_equal(result.code, GRPC_C_OK);
    grpc_c_result_fini(&result);
    fixture_stop(&fixture);
}

/* -- the end ------------------------------------------------------------------------------------
 */

static void *open_gate_when_stopping(void *arg)
{
    const struct fixture *fixture = arg;
    struct grpc_c_result result = {0};
    echo_request request = ECHO_REQUEST;
    grpc_c_channel *channel = fixture_connect(fixture);

    while (result.code != GRPC_C_UNAVAILABLE) { /* until it takes no more calls */
        struct grpc_c_call_options brief = {.timeout_ms = 200};
        grpc_c_result_fini(&result);
        insist(grpc_c_unary(channel, echo_spread, &request.base, &brief, &result) == NULL);
    }
    grpc_c_result_fini(&result);
    grpc_c_channel_destroy(channel);
    set_gate(true);
    return NULL;
}

static void calls_in_line_are_served_in_the_drain(void **state)
{
    struct echo_handlers handlers = {.unary = block_if_one};
    struct grpc_c_server_options options = {.workers = 1};
    struct caller callers[4];
    struct fixture fixture;
    pthread_t thread;
    int64_t until = now_ms() + PATIENCE_MS;

    (void)state;
    fixture_start(&fixture, &options, &handlers);
    start_callers(callers, 4, &fixture, PATIENCE_MS);
    while (grpc_c_server_report(fixture.server, 0) < 4) {
        assert_true(now_ms() < until);
    }
    assert_int_equal(pthread_create(&thread, NULL, open_gate_when_stopping, &fixture), 0);
    assert_int_equal(grpc_c_server_shutdown(fixture.server, PATIENCE_MS), 0);
    pthread_join(thread, NULL);
    end_callers(callers, 4, GRPC_C_OK);
    fixture_stop(&fixture);
}

static void count_cancelled(enum grpc_c_log_level level, const char *line)
{
    (void)level;
    if (strstr(line, ", cancelled, for ") != NULL) {
        atomic_fetch_add(&cancelled_lines, 1);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup(calls_that_block_do_not_stall_others, fresh),
        cmocka_unit_test_setup(without_workers_a_handler_that_blocks_stalls_its_poller, fresh),
        cmocka_unit_test_setup(a_full_line_refuses_and_the_rest_is_served, fresh),
        cmocka_unit_test_setup(a_call_cancelled_in_line_does_not_reach_its_handler, fresh),
        cmocka_unit_test_setup(a_blocked_handler_can_see_that_it_is_cancelled, fresh),
        cmocka_unit_test_setup(a_streams_callbacks_keep_their_order_on_many_workers, fresh),
        cmocka_unit_test_setup(what_a_blocked_handler_wrote_is_sent, fresh),
        cmocka_unit_test_setup(calls_in_line_are_served_in_the_drain, fresh),
    };

    grpc_c_set_logger(count_cancelled);
    return cmocka_run_group_tests_name("grpc_c_workers", tests, NULL, NULL);
}
