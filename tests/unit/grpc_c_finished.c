/* Calls used after their finish, finished twice, and never finished. */
#include <pthread.h>
#include <string.h>

#include "grpc_c_fixture.h"

#define SLOT_OF(call) ((uintptr_t)(call)&0xffffff) /* what two uses of one slot have in common */

static const struct grpc_c_call_options patient = {.timeout_ms = PATIENCE_MS};

static atomic_uint began;
static _Atomic(grpc_c_call *) held;

static pthread_mutex_t log_lock = PTHREAD_MUTEX_INITIALIZER;
static char last_line[1024]; /* log_lock */
static atomic_uint lines;

static void keep_line(enum grpc_c_log_level level, const char *line)
{
    if (level != GRPC_C_LOG_ERROR) {
        return;
    }
    pthread_mutex_lock(&log_lock);
    (void)snprintf(last_line, sizeof(last_line), "%s", line);
    pthread_mutex_unlock(&log_lock);
    atomic_fetch_add(&lines, 1);
}

static void assert_logged(const char *text)
{
    pthread_mutex_lock(&log_lock);
    if (strstr(last_line, text) == NULL) {
        fail_msg("\"%s\" is not in \"%s\"", text, last_line);
    }
    pthread_mutex_unlock(&log_lock);
}

static int fresh(void **state)
{
    (void)state;
    atomic_store(&began, 0);
    atomic_store(&held, NULL);
    atomic_store(&lines, 0);
    last_line[0] = '\0';
    return 0;
}

/* -- every function -----------------------------------------------------------------------------
 */

static void release(void *arg)
{
    ++*(unsigned *)arg;
}

static void never(grpc_c_call *call, void *arg)
{
    (void)call;
    (void)arg;
    insist(!"called");
}

static void never_destroyed(void *data)
{
    (void)data;
    insist(!"called");
}

static void refuses_output(grpc_c_call *call)
{
    struct grpc_c_metadata entry = {"key", "v", 1};
    struct grpc_c_status aborted = {.code = GRPC_C_ABORTED};
    unsigned released = 0;
    struct grpc_c_lent lent = {"lent", 4, release, &released};
    echo_response response = ECHO_RESPONSE;

    response.payload.data = (uint8_t *)lent.data;
    response.payload.len = lent.length;
    insist(!grpc_c_call_read(call));
    insist(!grpc_c_call_on_cancel(call, never, NULL));
    insist(!grpc_c_call_set_data(call, &released, never_destroyed));
    insist(grpc_c_call_add_header(call, &entry) == GRPC_C_METADATA_TOO_LATE);
    insist(grpc_c_call_add_trailer(call, &entry) == GRPC_C_METADATA_TOO_LATE);
    insist(!grpc_c_call_send_headers(call));
    insist(!grpc_c_call_set_compression(call, GRPC_C_GZIP));
    insist(!grpc_c_call_skip_compression(call, true));
    insist(!grpc_c_call_write(call, &response.base, never, NULL));
    insist(!grpc_c_call_write_lent(call, &response.base, &lent, 1, never, NULL));
    insist(released == 1);
    insist(!grpc_c_call_reply(call, &response.base));
    insist(!grpc_c_call_reply_lent(call, &response.base, &lent, 1));
    insist(released == 2);
    insist(!grpc_c_call_finish(call, &aborted));
    insist(!grpc_c_call_fail(call, GRPC_C_ABORTED, "again"));
}

static void refuses_questions(grpc_c_call *call)
{
    size_t n = 1;

    struct grpc_c_bytes bytes;

    insist(grpc_c_call_take_message(call) == NULL);
    insist(!grpc_c_call_bytes(call, 0, &bytes));
    insist(grpc_c_call_take_bytes(call) == NULL);
    insist(grpc_c_call_cancelled(call));
    insist(!grpc_c_call_message_compressed(call));
    insist(grpc_c_call_remaining_ms(call) == 0);
    insist(grpc_c_call_peer(call) == NULL);
    insist(grpc_c_call_identity(call) == NULL);
    insist(grpc_c_call_metadata(call, &n) == NULL && n == 0);
    insist(grpc_c_call_data(call) == NULL);
}

static void refuses_all(grpc_c_call *call)
{
    refuses_output(call);
    refuses_questions(call);
}

/* -- when and where -----------------------------------------------------------------------------
 */

static void reply_and_go_on(grpc_c_call *call, const echo_request *request)
{
    echo_response response = ECHO_RESPONSE;

    response.number = request->number;
    insist(grpc_c_call_set_data(call, &began, NULL));
    insist(grpc_c_call_reply(call, &response.base));
    refuses_output(call);
    insist(grpc_c_call_data(call) == &began); /* until it returns it may ask */
    insist(strncmp(grpc_c_call_peer(call), "ipv4:127.0.0.1:", 15) == 0);
    insist(grpc_c_call_remaining_ms(call) > 0);
    atomic_store(&held, call);
}

static void a_call_is_finished_once_and_then_refuses(void **state)
{
    struct echo_handlers handlers = {.unary = reply_and_go_on};
    struct fixture fixture;
    echo_request request = ECHO_REQUEST;
    echo_response *response;

    (void)state;
    request.number = 7;
    fixture_start(&fixture, NULL, &handlers);
    response = echo_ok(fixture.channel, &request);
    assert_int_equal(response->number, 7);
    grpcc__test__echo_response__free_unpacked(response, NULL);
    (void)grpc_c_server_shutdown(fixture.server, PATIENCE_MS); /* so that the call is gone */
    assert_int_equal(lines, 1);                                /* once a call */
    assert_logged("grpc_c_call_read: refused, the call of /grpcc.test.Echo/Unary is finished");
    refuses_all(atomic_load(&held));
    fixture_stop(&fixture);
    refuses_all(atomic_load(&held)); /* and the server with it */
    assert_int_equal(lines, 1);
}

static void hold(grpc_c_call *call, const echo_request *request)
{
    (void)request;
    atomic_store(&held, call);
    atomic_fetch_add(&began, 1);
}

static void answer_or_hold(grpc_c_call *call, const echo_request *request)
{
    struct grpc_c_status ok = {.code = GRPC_C_OK};

    atomic_store(&held, call);
    if (request->number == 0) {
        insist(grpc_c_call_finish(call, &ok));
    } else {
        atomic_fetch_add(&began, 1);
    }
}

#define HELD_MAX 64u

/* A call that its handler holds, or, for 0, answers at once. */
static grpc_c_stream *spread(const struct fixture *fixture, uint32_t number)
{
    grpc_c_stream *stream = grpc_c_stream_open(fixture->channel, echo_spread, &patient);
    echo_request request = ECHO_REQUEST;

    request.number = number;
    assert_int_equal(grpc_c_stream_write(stream, &request.base), 0);
    return stream;
}

/* Opens calls, which stay, until one has the slot of `old`. Returns how many. */
static size_t reuse_slot(const struct fixture *fixture, const grpc_c_call *old,
                         grpc_c_stream **streams, grpc_c_call **calls)
{
    for (unsigned n = 1; n <= HELD_MAX; n++) {
        streams[n - 1] = spread(fixture, 1);
        await_count(&began, n);
        calls[n - 1] = atomic_load(&held);
        if (SLOT_OF(calls[n - 1]) == SLOT_OF(old)) {
            assert_ptr_not_equal(calls[n - 1], old);
            return n;
        }
    }
    fail_msg("the slot is not used again");
    return 0;
}

static void end_streams(grpc_c_stream **streams, size_t n, enum grpc_c_code code)
{
    for (size_t i = 0; i < n; i++) {
        struct grpc_c_result result = {0};
        grpc_c_stream_finish(streams[i], &result);
        assert_int_equal(result.code, code);
        grpc_c_result_fini(&result);
    }
}

static void an_old_name_does_not_reach_the_call_that_came_after(void **state)
{
    struct echo_handlers handlers = {.spread = answer_or_hold};
    struct grpc_c_server_options options = {.pollers = 1, .accepts = 1};
    struct grpc_c_status other = {.code = GRPC_C_DATA_LOSS};
    struct fixture fixture;
    grpc_c_stream *streams[HELD_MAX];
    grpc_c_call *calls[HELD_MAX];
    grpc_c_call *old;
    size_t n;

    (void)state;
    fixture_start(&fixture, &options, &handlers);
    streams[0] = spread(&fixture, 0);
    end_streams(streams, 1, GRPC_C_OK);
    old = atomic_load(&held);
    n = reuse_slot(&fixture, old, streams, calls);
    refuses_all(old);
    assert_int_equal(lines, 1);
    assert_logged("the call of /grpcc.test.Echo/Spread is finished");
    for (size_t i = 0; i < n; i++) {
        assert_false(grpc_c_call_cancelled(calls[i]));
        assert_true(grpc_c_call_finish(calls[i], &other));
    }
    end_streams(streams, n, GRPC_C_DATA_LOSS);
    fixture_stop(&fixture);
}

static void what_is_no_call_is_refused(void **state)
{
    (void)state;
    refuses_all(NULL);
    /* NOLINTNEXTLINE(performance-no-int-to-ptr) */
    refuses_all((grpc_c_call *)~(uintptr_t)0);
    assert_logged("is not a call");
}

/* -- races --------------------------------------------------------------------------------------
 */

#define RACERS 4u

static atomic_uint gate;
static atomic_uint winners;

static void *race(void *arg)
{
    unsigned n = (unsigned)(uintptr_t)arg;

    for (unsigned round = 1; round <= 50; round++) {
        await_count(&began, round);
        grpc_c_call *call = atomic_load(&held);
        (void)grpc_c_call_cancelled(call);
        if (grpc_c_call_fail(call, GRPC_C_ABORTED, "by racer %u", n)) {
            atomic_fetch_add(&winners, 1);
        }
        refuses_all(call);
        atomic_fetch_add(&gate, 1);
    }
    return NULL;
}

static void of_many_threads_one_finishes_a_call(void **state)
{
    struct echo_handlers handlers = {.unary = hold};
    struct fixture fixture;
    echo_request request = ECHO_REQUEST;
    pthread_t racers[RACERS];

    (void)state;
    atomic_store(&gate, 0);
    atomic_store(&winners, 0);
    fixture_start(&fixture, NULL, &handlers);
    for (size_t i = 0; i < RACERS; i++) {
        /* NOLINTNEXTLINE(performance-no-int-to-ptr) */
        assert_int_equal(pthread_create(&racers[i], NULL, race, (void *)(uintptr_t)i), 0);
    }
    for (unsigned round = 1; round <= 50; round++) {
        echo_fails(fixture.channel, echo_unary, &request, GRPC_C_ABORTED, "by racer");
        await_count(&gate, round * RACERS);
        assert_int_equal(winners, round);
    }
    for (size_t i = 0; i < RACERS; i++) {
        pthread_join(racers[i], NULL);
    }
    fixture_stop(&fixture);
}

/* -- reads --------------------------------------------------------------------------------------
 */

static void read_wrongly(grpc_c_call *call)
{
    insist(grpc_c_call_read(call));
    insist(!grpc_c_call_read(call));
}

static void count_message(grpc_c_call *call, const echo_request *request)
{
    struct grpc_c_status ok = {.code = GRPC_C_OK};

    insist(request == NULL);
    insist(!grpc_c_call_read(call)); /* the stream is over, which is no mistake */
    insist(grpc_c_call_finish(call, &ok));
}

static void read_unary(grpc_c_call *call, const echo_request *request)
{
    echo_response response = ECHO_RESPONSE;

    (void)request;
    insist(!grpc_c_call_read(call));
    insist(grpc_c_call_reply(call, &response.base));
}

static void reads_that_cannot_be_are_refused(void **state)
{
    struct echo_handlers handlers = {
        .unary = read_unary, .chat = read_wrongly, .chat_message = count_message};
    struct grpc_c_result result = {0};
    struct fixture fixture;
    echo_request request = ECHO_REQUEST;
    grpc_c_stream *stream;

    (void)state;
    fixture_start(&fixture, NULL, &handlers);
    stream = grpc_c_stream_open(fixture.channel, echo_chat, &patient);
    grpc_c_stream_finish(stream, &result);
    assert_int_equal(result.code, GRPC_C_OK);
    grpc_c_result_fini(&result);
    assert_logged("/grpcc.test.Echo/Chat is being read already");
    grpcc__test__echo_response__free_unpacked(echo_ok(fixture.channel, &request), NULL);
    assert_logged("/grpcc.test.Echo/Unary takes one message");
    assert_int_equal(lines, 2);
    fixture_stop(&fixture);
}

/* -- never finished -----------------------------------------------------------------------------
 */

struct caller {
    struct fixture *fixture;
    struct grpc_c_result result;
    ProtobufCMessage *response;
};

static void *call_held(void *arg)
{
    struct caller *caller = arg;
    echo_request request = ECHO_REQUEST;

    request.number = 1;
    caller->response = grpc_c_unary(caller->fixture->channel, echo_unary, &request.base, &patient,
                                    &caller->result);
    return NULL;
}

/* Finishes the forgotten call once the server has said that it is waiting for it. */
static void *remember(void *arg)
{
    int64_t until = now_ms() + PATIENCE_MS;

    await_count(&lines, 1);
    while (!grpc_c_call_cancelled(atomic_load(&held))) {
        insist(now_ms() < until);
    }
    insist(grpc_c_server_report(arg, 0) == 1);
    assert_logged(", cancelled, for ");
    insist(grpc_c_call_fail(atomic_load(&held), GRPC_C_ABORTED, "remembered"));
    return NULL;
}

static void a_forgotten_call_is_reported(void **state)
{
    struct echo_handlers handlers = {.unary = answer_or_hold};
    struct grpc_c_server_options options = {.forgotten_ms = 1};
    struct fixture fixture;
    struct fixture other;
    struct caller caller = {.fixture = &fixture};
    pthread_t threads[2];

    (void)state;
    fixture_start(&other, NULL, NULL);
    fixture_start(&fixture, &options, &handlers);
    assert_int_equal(grpc_c_server_report(fixture.server, 0), 0);
    pthread_create(&threads[0], NULL, call_held, &caller);
    await_count(&began, 1);
    assert_int_equal(grpc_c_server_report(fixture.server, 3600 * 1000), 0);
    assert_int_equal(grpc_c_server_report(other.server, 0), 0);
    assert_int_equal(lines, 0);
    assert_int_equal(grpc_c_server_report(fixture.server, 0), 1);
    assert_logged("not finished by its handler: /grpcc.test.Echo/Unary of ipv4:127.0.0.1:");
    atomic_store(&lines, 0);
    pthread_create(&threads[1], NULL, remember, fixture.server);
    assert_int_equal(grpc_c_server_shutdown(fixture.server, 0), 1);
    pthread_join(threads[0], NULL);
    pthread_join(threads[1], NULL);
    assert_int_equal(grpc_c_server_report(fixture.server, 0), 0);
    grpc_c_result_fini(&caller.result);
    fixture_stop(&fixture);
    fixture_stop(&other);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup(a_call_is_finished_once_and_then_refuses, fresh),
        cmocka_unit_test_setup(an_old_name_does_not_reach_the_call_that_came_after, fresh),
        cmocka_unit_test_setup(what_is_no_call_is_refused, fresh),
        cmocka_unit_test_setup(of_many_threads_one_finishes_a_call, fresh),
        cmocka_unit_test_setup(reads_that_cannot_be_are_refused, fresh),
        cmocka_unit_test_setup(a_forgotten_call_is_reported, fresh),
    };

    grpc_c_set_logger(keep_line);
    return cmocka_run_group_tests_name("grpc_c_finished", tests, NULL, NULL);
}
