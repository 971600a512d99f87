/* Unary calls that are not waited for. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "grpc_c_fixture.h"

/* What a call's `done` was given. */
struct answer {
    atomic_uint times;
    enum grpc_c_code code;
    char message[200];
    uint32_t number;
};

static void typed(ProtobufCMessage *response, const struct grpc_c_result *result,
                  void (*done)(void), void *arg)
{
    ((void (*)(echo_response *, const struct grpc_c_result *, void *))done)(
        (echo_response *)response, result, arg);
}

static void take(echo_response *response, const struct grpc_c_result *result, void *arg)
{
    struct answer *answer = arg;

    insist((response != NULL) == (result->code == GRPC_C_OK));
    answer->code = result->code;
    (void)snprintf(answer->message, sizeof(answer->message), "%s", result->message);
    if (response != NULL) {
        answer->number = response->number;
        grpcc__test__echo_response__free_unpacked(response, NULL);
    }
    atomic_fetch_add(&answer->times, 1);
}

static void start(grpc_c_channel *channel, uint32_t number,
                  const struct grpc_c_call_options *options, struct answer *answer,
                  grpc_c_pending **handle)
{
    echo_request request = ECHO_REQUEST;

    memset(answer, 0, sizeof(*answer));
    request.number = number;
    assert_int_equal(grpc_c_unary_async(channel, echo_unary, &request.base, options, typed,
                                        (void (*)(void))take, answer, handle),
                     0);
}

static const struct grpc_c_call_options patient = {.timeout_ms = PATIENCE_MS};

#define MANY 500u

static void many_are_under_way_at_once(void **state)
{
    static struct answer answers[MANY];
    struct fixture fixture;

    (void)state;
    fixture_start(&fixture, NULL, NULL);
    for (uint32_t i = 0; i < MANY; i++) {
        start(fixture.channel, i, &patient, &answers[i], NULL);
    }
    for (uint32_t i = 0; i < MANY; i++) {
        await_count(&answers[i].times, 1);
        assert_int_equal(answers[i].code, GRPC_C_OK);
        assert_int_equal(answers[i].number, i);
    }
    fixture_stop(&fixture);
    for (uint32_t i = 0; i < MANY; i++) {
        assert_int_equal(answers[i].times, 1);
    }
}

static void fail_it(grpc_c_call *call, const echo_request *request)
{
    (void)request;
    grpc_c_call_fail(call, GRPC_C_NOT_FOUND, "nothing there");
}

static void a_failure_says_why(void **state)
{
    struct echo_handlers handlers = {.unary = fail_it};
    struct fixture fixture;
    struct answer answer;

    (void)state;
    fixture_start(&fixture, NULL, &handlers);
    start(fixture.channel, 0, &patient, &answer, NULL);
    await_count(&answer.times, 1);
    assert_int_equal(answer.code, GRPC_C_NOT_FOUND);
    assert_string_equal(answer.message, "nothing there");
    fixture_stop(&fixture);
}

/* -- calls that are not answered -------------------------------------------------------------- */

static atomic_uint held;

static void give_up(grpc_c_call *call, void *arg)
{
    (void)arg;
    grpc_c_call_fail(call, GRPC_C_CANCELLED, "the client has gone");
}

static void hold_it(grpc_c_call *call, const echo_request *request)
{
    (void)request;
    grpc_c_call_on_cancel(call, give_up, NULL);
    atomic_fetch_add(&held, 1);
}

static const struct echo_handlers holding = {.unary = hold_it};

static void a_call_is_cancelled_by_its_handle(void **state)
{
    struct grpc_c_call_options forever = {0};
    struct fixture fixture;
    struct answer answer;
    grpc_c_pending *handle;

    (void)state;
    atomic_store(&held, 0);
    fixture_start(&fixture, NULL, &holding);
    start(fixture.channel, 0, &forever, &answer, &handle);
    await_count(&held, 1);
    assert_int_equal(answer.times, 0);
    grpc_c_pending_cancel(handle);
    await_count(&answer.times, 1);
    assert_int_equal(answer.code, GRPC_C_CANCELLED);
    grpc_c_pending_cancel(handle); /* it is over */
    fixture_stop(&fixture);
    grpc_c_pending_cancel(handle); /* and its channel gone */
    grpc_c_pending_release(handle);
    grpc_c_pending_release(NULL);
    assert_int_equal(answer.times, 1);
}

static void a_handle_may_go_before_its_call(void **state)
{
    struct fixture fixture;
    struct answer answer;
    grpc_c_pending *handle;

    (void)state;
    fixture_start(&fixture, NULL, NULL);
    start(fixture.channel, 7, &patient, &answer, &handle);
    grpc_c_pending_release(handle);
    await_count(&answer.times, 1);
    assert_int_equal(answer.number, 7);
    fixture_stop(&fixture);
}

static void a_deadline_ends_it(void **state)
{
    struct grpc_c_call_options short_one = {.timeout_ms = 50};
    struct fixture fixture;
    struct answer answer;

    (void)state;
    fixture_start(&fixture, NULL, &holding);
    start(fixture.channel, 0, &short_one, &answer, NULL);
    await_count(&answer.times, 1);
    assert_int_equal(answer.code, GRPC_C_DEADLINE_EXCEEDED);
    fixture_stop(&fixture);
}

static void a_channel_ends_its_calls_before_it_goes(void **state)
{
    struct grpc_c_call_options forever = {0};
    struct answer answers[3];
    struct fixture fixture;

    (void)state;
    atomic_store(&held, 0);
    fixture_start(&fixture, NULL, &holding);
    for (size_t i = 0; i < 3; i++) {
        start(fixture.channel, 0, &forever, &answers[i], NULL);
    }
    await_count(&held, 3);
    grpc_c_channel_destroy(fixture.channel);
    fixture.channel = NULL;
    for (size_t i = 0; i < 3; i++) {
        assert_int_equal(answers[i].times, 1);
        assert_int_equal(answers[i].code, GRPC_C_CANCELLED);
    }
    fixture_stop(&fixture);
}

/* -- servers that are not there yet ----------------------------------------------------------- */

static void serve_on(struct fixture *fixture, int port)
{
    char address[32];
    char error[256] = "";

    (void)snprintf(address, sizeof(address), "127.0.0.1:%d", port);
    fixture->server = grpc_c_server_create(NULL);
    assert_int_equal(grpc_c_server_add_service(fixture->server, &echo_service, &echo_default), 0);
    if (grpc_c_server_listen(fixture->server, address, &fixture->port, error, sizeof(error)) != 0) {
        fail_msg("%s", error);
    }
    assert_int_equal(grpc_c_server_start(fixture->server), 0);
}

static void a_call_waits_for_the_server_where_it_is_told(void **state)
{
    struct grpc_c_call_options waiting = {.timeout_ms = PATIENCE_MS, .wait_for_ready = true};
    struct fixture fixture;
    struct answer impatient;
    struct answer answer;

    (void)state;
    fixture_start(&fixture, NULL, NULL); /* for a port that is free */
    grpc_c_server_destroy(fixture.server);
    start(fixture.channel, 1, &waiting, &answer, NULL);
    start(fixture.channel, 2, &patient, &impatient, NULL);
    await_count(&impatient.times, 1);
    assert_int_equal(impatient.code, GRPC_C_UNAVAILABLE);
    assert_int_equal(answer.times, 0);
    serve_on(&fixture, fixture.port);
    await_count(&answer.times, 1);
    assert_int_equal(answer.code, GRPC_C_OK);
    assert_int_equal(answer.number, 1);
    fixture_stop(&fixture);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(many_are_under_way_at_once),
        cmocka_unit_test(a_failure_says_why),
        cmocka_unit_test(a_call_is_cancelled_by_its_handle),
        cmocka_unit_test(a_handle_may_go_before_its_call),
        cmocka_unit_test(a_deadline_ends_it),
        cmocka_unit_test(a_channel_ends_its_calls_before_it_goes),
        cmocka_unit_test(a_call_waits_for_the_server_where_it_is_told),
    };

    return cmocka_run_group_tests_name("grpc_c_async", tests, NULL, NULL);
}
