/* The health service, spoken to over loopback. */
#include "server_fixture.h"

#include <pthread.h>
#include <string.h>

#include "grpc/health/v1/health.grpc-c.h"
#include "health.h"

#define STATUS(name) GRPC__HEALTH__V1__HEALTH_CHECK_RESPONSE__SERVING_STATUS__##name

typedef Grpc__Health__V1__HealthCheckRequest check_request;
typedef Grpc__Health__V1__HealthCheckResponse check_response;

#define OURS "payloadstore.v1.PayloadStore"

static struct server_fixture fixture;
static struct psd_health *health;

static int start(void **state)
{
    (void)state;
    health = psd_health_create();
    assert_non_null(health);
    server_fixture_create(&fixture);
    assert_int_equal(psd_health_register(health, fixture.server), 0);
    server_fixture_start(&fixture);
    return 0;
}

static int stop(void **state)
{
    (void)state;
    server_fixture_destroy(&fixture);
    psd_health_destroy(health);
    return 0;
}

static check_request request_for(const char *service)
{
    check_request request = GRPC__HEALTH__V1__HEALTH_CHECK_REQUEST__INIT;

    request.service = (char *)service;
    return request;
}

static void assert_status(const char *service, int status)
{
    check_request request = request_for(service);
    struct grpc_c_result result = {0};
    check_response *response =
        grpc__health__v1__health__check__sync(fixture.channel, &request, &patient, &result);

    assert_int_equal(result.code, GRPC_C_OK);
    assert_int_equal(response->status, status);
    grpc__health__v1__health_check_response__free_unpacked(response, NULL);
    grpc_c_result_fini(&result);
}

static grpc_c_stream *watch(const char *service)
{
    check_request request = request_for(service);
    grpc_c_stream *stream = grpc__health__v1__health__watch__open(fixture.channel, &patient);

    assert_non_null(stream);
    assert_int_equal(grpc__health__v1__health__watch__write(stream, &request), 0);
    return stream;
}

static void assert_next(grpc_c_stream *stream, int status)
{
    check_response *response = grpc__health__v1__health__watch__read(stream);

    assert_non_null(response);
    assert_int_equal(response->status, status);
    grpc__health__v1__health_check_response__free_unpacked(response, NULL);
}

static void assert_end(grpc_c_stream *stream, enum grpc_c_code code)
{
    struct grpc_c_result result = {0};

    assert_null(grpc__health__v1__health__watch__read(stream));
    grpc_c_stream_finish(stream, &result);
    assert_int_equal(result.code, code);
    grpc_c_result_fini(&result);
}

/* -- Check and List ---------------------------------------------------------------------------- */

static void check_tells_the_status_of_server_and_service(void **state)
{
    (void)state;
    assert_status("", STATUS(NOT_SERVING));
    psd_health_set(health, true);
    assert_status("", STATUS(SERVING));
    assert_status(OURS, STATUS(SERVING));
    psd_health_stop(health);
    assert_status("", STATUS(NOT_SERVING));
    assert_status(OURS, STATUS(NOT_SERVING));
}

static void check_of_an_unknown_service_is_not_found(void **state)
{
    static const char *const others[] = {"x", "payloadstore.v1.PayloadStor", "payloadstore.v1",
                                         "PAYLOADSTORE.V1.PAYLOADSTORE", "../../etc/passwd"};

    (void)state;
    for (size_t i = 0; i < sizeof others / sizeof others[0]; i++) {
        check_request request = request_for(others[i]);
        struct grpc_c_result result = {0};

        assert_null(
            grpc__health__v1__health__check__sync(fixture.channel, &request, &patient, &result));
        assert_int_equal(result.code, GRPC_C_NOT_FOUND);
        grpc_c_result_fini(&result);
    }
}

static void list_tells_both(void **state)
{
    Grpc__Health__V1__HealthListRequest request = GRPC__HEALTH__V1__HEALTH_LIST_REQUEST__INIT;
    struct grpc_c_result result = {0};
    Grpc__Health__V1__HealthListResponse *response;

    (void)state;
    psd_health_set(health, true);
    response = grpc__health__v1__health__list__sync(fixture.channel, &request, &patient, &result);
    assert_int_equal(result.code, GRPC_C_OK);
    assert_int_equal(response->n_statuses, 2);
    for (size_t i = 0; i < 2; i++) {
        assert_string_equal(response->statuses[i]->key, i == 0 ? "" : OURS);
        assert_int_equal(response->statuses[i]->value->status, STATUS(SERVING));
    }
    grpc__health__v1__health_list_response__free_unpacked(response, NULL);
    grpc_c_result_fini(&result);
}

/* -- Watch ------------------------------------------------------------------------------------- */

static void watch_tells_the_status_and_its_changes(void **state)
{
    grpc_c_stream *stream = watch(OURS);

    (void)state;
    assert_next(stream, STATUS(NOT_SERVING));
    psd_health_set(health, true);
    assert_next(stream, STATUS(SERVING));
    psd_health_set(health, true); /* no change, so nothing is told */
    psd_health_set(health, false);
    assert_next(stream, STATUS(NOT_SERVING));
    grpc_c_stream_cancel(stream);
    assert_end(stream, GRPC_C_CANCELLED);
}

static void watch_of_an_unknown_service_stays_open(void **state)
{
    grpc_c_stream *stream = watch("x");

    (void)state;
    assert_next(stream, STATUS(SERVICE_UNKNOWN));
    psd_health_set(health, true); /* of no concern to it */
    psd_health_stop(health);
    assert_end(stream, GRPC_C_UNAVAILABLE);
}

static void stopping_ends_every_watch(void **state)
{
    grpc_c_stream *streams[20];

    (void)state;
    psd_health_set(health, true);
    for (size_t i = 0; i < 20; i++) {
        streams[i] = watch("");
        assert_next(streams[i], STATUS(SERVING));
    }
    psd_health_stop(health);
    for (size_t i = 0; i < 20; i++) {
        assert_next(streams[i], STATUS(NOT_SERVING));
        assert_end(streams[i], GRPC_C_UNAVAILABLE);
    }
    assert_int_equal(grpc_c_server_shutdown(fixture.server, PATIENCE_MS), 0);
}

static void a_watch_after_the_stop_ends_at_once(void **state)
{
    grpc_c_stream *stream;

    (void)state;
    psd_health_set(health, true);
    psd_health_stop(health);
    psd_health_set(health, true); /* too late */
    stream = watch("");
    assert_next(stream, STATUS(NOT_SERVING));
    assert_end(stream, GRPC_C_UNAVAILABLE);
}

static void a_caller_that_leaves_does_not_hold_the_drain(void **state)
{
    grpc_c_stream *first = watch("");
    grpc_c_stream *second = watch("");

    (void)state;
    assert_next(first, STATUS(NOT_SERVING));
    assert_next(second, STATUS(NOT_SERVING));
    grpc_c_stream_cancel(first);
    grpc_c_stream_finish(first, NULL);
    psd_health_set(health, true);
    assert_next(second, STATUS(SERVING));
    psd_health_stop(health);
    assert_next(second, STATUS(NOT_SERVING));
    assert_end(second, GRPC_C_UNAVAILABLE);
    assert_int_equal(grpc_c_server_shutdown(fixture.server, PATIENCE_MS), 0);
}

static void *watch_and_leave(void *arg)
{
    (void)arg;
    for (int i = 0; i < 100; i++) {
        grpc_c_stream *stream = watch("");

        grpc_c_stream_cancel(stream);
        grpc_c_stream_finish(stream, NULL);
    }
    return NULL;
}

/* For the sanitizers: calls that leave while changes are told and while all are ended. */
static void changes_and_leaving_callers_may_meet(void **state)
{
    pthread_t threads[4];

    (void)state;
    for (size_t i = 0; i < 4; i++) {
        assert_int_equal(pthread_create(&threads[i], NULL, watch_and_leave, NULL), 0);
    }
    for (int i = 0; i < 2000; i++) {
        psd_health_set(health, i % 2 == 0);
    }
    psd_health_stop(health);
    for (size_t i = 0; i < 4; i++) {
        pthread_join(threads[i], NULL);
    }
    assert_int_equal(grpc_c_server_shutdown(fixture.server, PATIENCE_MS), 0);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, start, stop)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(check_tells_the_status_of_server_and_service),
        TEST(check_of_an_unknown_service_is_not_found),
        TEST(list_tells_both),
        TEST(watch_tells_the_status_and_its_changes),
        TEST(watch_of_an_unknown_service_stays_open),
        TEST(stopping_ends_every_watch),
        TEST(a_watch_after_the_stop_ends_at_once),
        TEST(a_caller_that_leaves_does_not_hold_the_drain),
        TEST(changes_and_leaving_callers_may_meet),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
