/* Calls that end from outside: cancelled, timed out, cut off; and peers that do not read. */
#include <arpa/inet.h>
#include <netinet/in.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "grpc_c_fixture.h"

static const struct grpc_c_call_options patient = {.timeout_ms = PATIENCE_MS};

static atomic_uint began;
static atomic_uint told;
static atomic_uint gone;
static atomic_uint written;
static _Atomic(grpc_c_call *) open_call;

static int fresh(void **state)
{
    (void)state;
    atomic_store(&began, 0);
    atomic_store(&told, 0);
    atomic_store(&gone, 0);
    atomic_store(&written, 0);
    atomic_store(&open_call, NULL);
    return 0;
}

static void count_gone(void *data)
{
    (void)data;
    atomic_fetch_add(&gone, 1);
}

static void on_cancel(grpc_c_call *call, void *arg)
{
    insist(arg == &told);
    insist(grpc_c_call_cancelled(call));
    grpc_c_call_fail(call, GRPC_C_CANCELLED, "as you wish");
    atomic_fetch_add(&told, 1);
}

/* -- told of the end --------------------------------------------------------------------------- */

static void hold_unary(grpc_c_call *call, const echo_request *request)
{
    (void)request;
    grpc_c_call_set_data(call, NULL, count_gone);
    grpc_c_call_on_cancel(call, on_cancel, &told);
    atomic_fetch_add(&began, 1);
}

static void hold_stream(grpc_c_call *call)
{
    hold_unary(call, NULL);
}

static void ignore_message(grpc_c_call *call, const echo_request *request)
{
    (void)call;
    (void)request;
}

static const struct echo_handlers holding = {
    .unary = hold_unary,
    .spread = hold_unary,
    .collect = hold_stream,
    .collect_message = ignore_message,
    .chat = hold_stream,
    .chat_message = ignore_message,
};

static void the_handler_sees_a_deadline(void **state)
{
    struct grpc_c_call_options hasty = {.timeout_ms = 1000};
    struct grpc_c_result result = {0};
    struct fixture fixture;
    echo_request request = ECHO_REQUEST;
    int64_t start;

    (void)state;
    fixture_start(&fixture, NULL, &holding);
    fixture_warm(&fixture);
    start = now_ms();
    assert_null(grpc_c_unary(fixture.channel, echo_unary, &request.base, &hasty, &result));
    assert_int_equal(result.code, GRPC_C_DEADLINE_EXCEEDED);
    assert_in_range(now_ms() - start, 999, PATIENCE_MS);
    grpc_c_result_fini(&result);
    await_count(&told, 1);
    await_count(&gone, 1);
    fixture_stop(&fixture);
}

static void the_handler_sees_the_client_cancel(void **state)
{
    const struct grpc_c_method *const streams[] = {echo_collect, echo_spread, echo_chat};
    struct fixture fixture;
    echo_request request = ECHO_REQUEST;

    (void)state;
    fixture_start(&fixture, NULL, &holding);
    for (unsigned i = 0; i < 3; i++) {
        struct grpc_c_result result = {0};
        grpc_c_stream *stream = grpc_c_stream_open(fixture.channel, streams[i], &patient);
        assert_int_equal(grpc_c_stream_write(stream, &request.base), 0);
        await_count(&began, i + 1);
        assert_int_equal(told, i);
        grpc_c_stream_cancel(stream);
        assert_null(grpc_c_stream_read(stream));
        grpc_c_stream_finish(stream, &result);
        assert_int_equal(result.code, GRPC_C_CANCELLED);
        grpc_c_result_fini(&result);
        await_count(&told, i + 1);
        await_count(&gone, i + 1);
    }
    fixture_stop(&fixture);
}

/* Just enough HTTP/2 to call Spread: for clients that die, or fall silent. */
static const char opening[] = "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
                              "\0\0\0\x04\0\0\0\0\0"            /* SETTINGS, empty */
                              "\0\0\x3d\x01\x04\0\0\0\x01"      /* HEADERS, 61 bytes, stream 1 */
                              "\x83\x86"                        /* :method POST, :scheme http */
                              "\x04\x17/grpcc.test.Echo/Spread" /* :path */
                              "\x41\x01x"                       /* :authority */
                              "\x40\x02te\x08trailers"
                              "\x5f\x10"
                              "application/grpc"
                              "\0\0\x05\0\x01\0\0\0\x01" /* DATA, end of stream */
                              "\0\0\0\0\0";              /* an empty message */

/* The socket of a call that has begun. */
static int open_by_hand(const struct fixture *fixture)
{
    struct sockaddr_in to = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    int fd = socket(AF_INET, SOCK_STREAM, 0);

    to.sin_port = htons((uint16_t)fixture->port);
    assert_int_equal(connect(fd, (struct sockaddr *)&to, sizeof(to)), 0);
    assert_int_equal(write(fd, opening, sizeof(opening) - 1), sizeof(opening) - 1);
    await_count(&began, 1);
    return fd;
}

static void the_handler_sees_the_connection_break(void **state)
{
    struct fixture fixture;

    (void)state;
    fixture_start(&fixture, NULL, &holding);
    close(open_by_hand(&fixture));
    await_count(&told, 1);
    await_count(&gone, 1);
    fixture_stop(&fixture);
}

/* The machine is there, the program does not answer: only pings tell. */
static void a_silent_peer_is_dropped(void **state)
{
    struct grpc_c_server_options options = {.keepalive_ms = 100, .keepalive_timeout_ms = 100};
    struct fixture fixture;
    int fd;

    (void)state;
    fixture_start(&fixture, &options, &holding);
    fd = open_by_hand(&fixture);
    await_count(&told, 1);
    await_count(&gone, 1);
    close(fd);
    fixture_stop(&fixture);
}

/* -- asked too late -----------------------------------------------------------------------------
 */

static void keep_call(grpc_c_call *call, const echo_request *request)
{
    (void)request;
    grpc_c_call_set_data(call, NULL, count_gone);
    atomic_store(&open_call, call);
    atomic_fetch_add(&began, 1);
}

static void cancel_kept_call(struct fixture *fixture)
{
    grpc_c_stream *stream = grpc_c_stream_open(fixture->channel, echo_spread, &patient);
    echo_request request = ECHO_REQUEST;
    int64_t until = now_ms() + PATIENCE_MS;

    assert_int_equal(grpc_c_stream_write(stream, &request.base), 0);
    await_count(&began, 1);
    grpc_c_stream_cancel(stream);
    grpc_c_stream_finish(stream, NULL);
    while (!grpc_c_call_cancelled(atomic_load(&open_call))) {
        assert_true(now_ms() < until);
    }
}

static void on_cancel_set_late_is_still_called(void **state)
{
    struct echo_handlers handlers = {.spread = keep_call};
    struct fixture fixture;

    (void)state;
    fixture_start(&fixture, NULL, &handlers);
    cancel_kept_call(&fixture);
    grpc_c_call_on_cancel(atomic_load(&open_call), on_cancel, &told);
    await_count(&told, 1);
    await_count(&gone, 1);
    fixture_stop(&fixture);
}

static void a_cancelled_call_may_be_answered(void **state)
{
    struct echo_handlers handlers = {.spread = keep_call};
    echo_response response = ECHO_RESPONSE;
    struct fixture fixture;

    (void)state;
    fixture_start(&fixture, NULL, &handlers);
    cancel_kept_call(&fixture);
    grpc_c_call_reply(atomic_load(&open_call), &response.base);
    await_count(&gone, 1);
    fixture_stop(&fixture);
}

static void count_written(grpc_c_call *call, void *arg)
{
    (void)call;
    atomic_fetch_add((atomic_uint *)arg, 1);
}

static void writes_to_a_cancelled_call_come_back(void **state)
{
    struct echo_handlers handlers = {.spread = keep_call};
    echo_response response = ECHO_RESPONSE;
    struct fixture fixture;
    grpc_c_call *call;

    (void)state;
    fixture_start(&fixture, NULL, &handlers);
    cancel_kept_call(&fixture);
    call = atomic_load(&open_call);
    for (int i = 0; i < 5; i++) {
        grpc_c_call_write(call, &response.base, count_written, &written);
    }
    await_count(&written, 5);
    for (int i = 0; i < 5; i++) { /* these may be dropped with the call */
        grpc_c_call_write(call, &response.base, NULL, NULL);
    }
    grpc_c_call_fail(call, GRPC_C_ABORTED, "done");
    await_count(&gone, 1);
    fixture_stop(&fixture);
}

/* -- races: many calls, cancelled or finished whichever comes first ------------------------------
 */

static void *finish_kept(void *arg)
{
    grpc_c_call *call = arg;
    echo_response response = ECHO_RESPONSE;

    grpc_c_call_write(call, &response.base, count_written, &written);
    grpc_c_call_reply(call, &response.base);
    return NULL;
}

static void finish_elsewhere(grpc_c_call *call, const echo_request *request)
{
    pthread_t thread;

    (void)request;
    grpc_c_call_set_data(call, NULL, count_gone);
    atomic_fetch_add(&began, 1);
    insist(pthread_create(&thread, NULL, finish_kept, call) == 0);
    pthread_detach(thread);
}

static void finishing_may_race_with_cancelling(void **state)
{
    struct echo_handlers handlers = {.spread = finish_elsewhere};
    struct fixture fixture;
    echo_request request = ECHO_REQUEST;

    (void)state;
    fixture_start(&fixture, NULL, &handlers);
    for (unsigned i = 0; i < 200; i++) {
        grpc_c_stream *stream = grpc_c_stream_open(fixture.channel, echo_spread, &patient);
        (void)grpc_c_stream_write(stream, &request.base);
        if (i % 2 == 0) {
            await_count(&began, 1);
        }
        grpc_c_stream_cancel(stream);
        grpc_c_stream_finish(stream, NULL);
    }
    fixture_stop(&fixture);
    assert_int_equal(gone, began);
}

/* -- back-pressure -------------------------------------------------------------------------------
 */

#define PIECE    65536u
#define ENOUGH   ((size_t)256 << 20) /* what a writer would get rid of if nothing stopped it */
#define TOO_MUCH ((size_t)32 << 20)  /* flow control windows are far below */

static void a_handler_that_does_not_read_stops_the_writer(void **state)
{
    struct grpc_c_call_options brief = {.timeout_ms = 1500};
    struct grpc_c_result result = {0};
    struct fixture fixture;
    echo_request request = ECHO_REQUEST;
    grpc_c_stream *stream;
    size_t sent = 0;

    (void)state;
    fixture_start(&fixture, NULL, &holding);
    fixture_warm(&fixture);
    request.payload.data = calloc(1, PIECE);
    request.payload.len = PIECE;
    stream = grpc_c_stream_open(fixture.channel, echo_collect, &brief);
    while (sent < ENOUGH && grpc_c_stream_write(stream, &request.base) == 0) {
        sent += PIECE;
    }
    assert_in_range(sent, 1, TOO_MUCH);
    grpc_c_stream_finish(stream, &result);
    assert_int_equal(result.code, GRPC_C_DEADLINE_EXCEEDED);
    grpc_c_result_fini(&result);
    await_count(&told, 1);
    free(request.payload.data);
    fixture_stop(&fixture);
}

static uint8_t piece[PIECE];

static void write_on(grpc_c_call *call, void *arg)
{
    echo_response response = ECHO_RESPONSE;

    (void)arg;
    response.payload.data = piece;
    response.payload.len = PIECE;
    atomic_fetch_add(&written, 1);
    if (atomic_load(&written) > ENOUGH / PIECE) {
        grpc_c_call_fail(call, GRPC_C_OUT_OF_RANGE, "nothing stopped me");
    } else {
        grpc_c_call_write(call, &response.base, write_on, NULL);
    }
}

static void flood(grpc_c_call *call, const echo_request *request)
{
    hold_unary(call, request);
    write_on(call, NULL);
}

static void a_client_that_does_not_read_stops_the_writer(void **state)
{
    struct echo_handlers handlers = {.spread = flood};
    struct grpc_c_call_options brief = {.timeout_ms = 1500};
    struct fixture fixture;
    echo_request request = ECHO_REQUEST;
    grpc_c_stream *stream;

    (void)state;
    fixture_start(&fixture, NULL, &handlers);
    fixture_warm(&fixture);
    stream = grpc_c_stream_open(fixture.channel, echo_spread, &brief);
    assert_int_equal(grpc_c_stream_write(stream, &request.base), 0);
    await_count(&told, 1);
    assert_in_range((size_t)written * PIECE, 1, TOO_MUCH);
    grpc_c_stream_finish(stream, NULL);
    fixture_stop(&fixture);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup(the_handler_sees_a_deadline, fresh),
        cmocka_unit_test_setup(the_handler_sees_the_client_cancel, fresh),
        cmocka_unit_test_setup(the_handler_sees_the_connection_break, fresh),
        cmocka_unit_test_setup(a_silent_peer_is_dropped, fresh),
        cmocka_unit_test_setup(on_cancel_set_late_is_still_called, fresh),
        cmocka_unit_test_setup(a_cancelled_call_may_be_answered, fresh),
        cmocka_unit_test_setup(writes_to_a_cancelled_call_come_back, fresh),
        cmocka_unit_test_setup(finishing_may_race_with_cancelling, fresh),
        cmocka_unit_test_setup(a_handler_that_does_not_read_stops_the_writer, fresh),
        cmocka_unit_test_setup(a_client_that_does_not_read_stops_the_writer, fresh),
    };

    return cmocka_run_group_tests_name("grpc_c_cancel", tests, NULL, NULL);
}
