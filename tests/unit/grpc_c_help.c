/* Which threads poll and take calls: one while it can, others while it cannot. */
#include <pthread.h>
#include <string.h>
#include <time.h>

#include "grpc_c_fixture.h"

#define CHANNELS  4u
#define IN_FLIGHT 256u
#define CALL_NS   50000   /* of a processor, in a handler */
#define HELPED    100u    /* calls that a helper must have taken */
#define ALONE     200u    /* calls on end that the first must take once few come */
#define PAUSE_NS  1000000 /* between those */

static atomic_uint by_first;
static atomic_uint by_helper;
static atomic_uint in_flight;

static bool is_first(void)
{
    char name[16];

    insist(pthread_getname_np(pthread_self(), name, sizeof(name)) == 0);
    return strcmp(name, "grpc-c/0") == 0;
}

static int64_t spent_ns(void)
{
    struct timespec spent;

    clock_gettime(CLOCK_THREAD_CPUTIME_ID, &spent);
    return (int64_t)spent.tv_sec * 1000000000 + spent.tv_nsec;
}

static void work(grpc_c_call *call, const echo_request *request)
{
    int64_t end = spent_ns() + CALL_NS;
    echo_response response = ECHO_RESPONSE;

    (void)request;
    while (spent_ns() < end) {
    }
    atomic_fetch_add(is_first() ? &by_first : &by_helper, 1);
    insist(grpc_c_call_reply(call, &response.base));
}

static void note_answer(ProtobufCMessage *response, const struct grpc_c_result *result,
                        void (*done)(void), void *arg)
{
    insist(done == NULL && arg == NULL && result->code == GRPC_C_OK);
    protobuf_c_message_free_unpacked(response, NULL);
    atomic_fetch_sub(&in_flight, 1);
}

static void call_until_helped(grpc_c_channel *const *channels)
{
    const struct grpc_c_call_options patient = {.timeout_ms = PATIENCE_MS};
    echo_request request = ECHO_REQUEST;
    int64_t end = now_ms() + PATIENCE_MS;

    for (unsigned i = 0; atomic_load(&by_helper) < HELPED && now_ms() < end; i++) {
        while (atomic_load(&in_flight) >= IN_FLIGHT) {
            nanosleep(&(struct timespec){.tv_nsec = 100000}, NULL);
        }
        atomic_fetch_add(&in_flight, 1);
        assert_int_equal(grpc_c_unary_async(channels[i % CHANNELS], echo_unary, &request.base,
                                            &patient, note_answer, NULL, NULL, NULL),
                         0);
    }
    assert_true(atomic_load(&by_helper) >= HELPED);
    assert_true(atomic_load(&by_first) > 0);
}

static void await_answers(void)
{
    int64_t end = now_ms() + PATIENCE_MS;

    while (atomic_load(&in_flight) > 0 && now_ms() < end) {
        nanosleep(&(struct timespec){.tv_nsec = PAUSE_NS}, NULL);
    }
    assert_int_equal(atomic_load(&in_flight), 0);
}

static void call_until_alone(grpc_c_channel *channel)
{
    echo_request request = ECHO_REQUEST;
    int64_t end = now_ms() + PATIENCE_MS;
    unsigned alone = 0;

    while (alone < ALONE && now_ms() < end) {
        unsigned helped = atomic_load(&by_helper);
        grpcc__test__echo_response__free_unpacked(echo_ok(channel, &request), NULL);
        alone = atomic_load(&by_helper) == helped ? alone + 1 : 0;
        nanosleep(&(struct timespec){.tv_nsec = PAUSE_NS}, NULL);
    }
    assert_int_equal(alone, ALONE);
}

/* Twice: a helper that has gone comes again. */
static void helpers_come_with_the_load_and_go_with_it(void **state)
{
    static const struct echo_handlers handlers = {.unary = work};
    const struct grpc_c_server_options options = {.pollers = 2};
    grpc_c_channel *channels[CHANNELS];
    struct fixture fixture;

    (void)state;
    fixture_start(&fixture, &options, &handlers);
    for (unsigned i = 0; i < CHANNELS; i++) {
        channels[i] = fixture_connect(&fixture);
    }
    for (unsigned round = 0; round < 2; round++) {
        atomic_store(&by_first, 0);
        atomic_store(&by_helper, 0);
        call_until_helped(channels);
        await_answers();
        call_until_alone(channels[round]);
    }
    for (unsigned i = 0; i < CHANNELS; i++) {
        grpc_c_channel_destroy(channels[i]);
    }
    fixture_stop(&fixture);
}

/* One connection's calls gain nothing by a second thread. */
static void one_connection_needs_no_help(void **state)
{
    static const struct echo_handlers handlers = {.unary = work};
    const struct grpc_c_server_options options = {.pollers = 2};
    const struct grpc_c_call_options patient = {.timeout_ms = PATIENCE_MS};
    echo_request request = ECHO_REQUEST;
    struct fixture fixture;

    (void)state;
    atomic_store(&by_helper, 0);
    fixture_start(&fixture, &options, &handlers);
    for (unsigned i = 0; i < 2000; i++) {
        while (atomic_load(&in_flight) >= IN_FLIGHT) {
            nanosleep(&(struct timespec){.tv_nsec = 100000}, NULL);
        }
        atomic_fetch_add(&in_flight, 1);
        assert_int_equal(grpc_c_unary_async(fixture.channel, echo_unary, &request.base, &patient,
                                            note_answer, NULL, NULL, NULL),
                         0);
    }
    await_answers();
    fixture_stop(&fixture);
    assert_int_equal(atomic_load(&by_helper), 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(helpers_come_with_the_load_and_go_with_it),
        cmocka_unit_test(one_connection_needs_no_help),
    };

    return cmocka_run_group_tests_name("grpc_c_help", tests, NULL, NULL);
}
