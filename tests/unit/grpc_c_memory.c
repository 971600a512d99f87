/*
 * Memory that runs out: each allocation of the library fails in turn, and nothing crashes, leaks or
 * hangs.
 */
#include <stdlib.h>
#include <string.h>

#include "alloc_fails.h"
#include "grpc_c_fixture.h"

static void silent(enum grpc_c_log_level level, const char *line)
{
    (void)level;
    (void)line;
}

/* -- making a server ------------------------------------------------------------------------------
 */

static bool make_server(void)
{
    struct grpc_c_server_options options = {.accepts = 2};
    grpc_c_server *server = grpc_c_server_create(&options);
    int port;
    bool made = server != NULL &&
                grpc_c_server_add_service(server, &echo_service, &echo_default) == 0 &&
                grpc_c_server_listen(server, "127.0.0.1:0", &port, NULL, 0) == 0 &&
                grpc_c_server_start(server) == 0;

    grpc_c_server_destroy(server);
    return made;
}

static void a_server_that_cannot_be_made_is_destroyed(void **state)
{
    int n = 0;

    (void)state;
    for (;; n++) {
        bool made;
        alloc_fails_after(n);
        made = make_server();
        if (!alloc_has_failed()) {
            assert_true(made);
            break;
        }
        assert_false(made);
    }
    alloc_fails_never();
    assert_in_range(n, 10, 1000);
}

/* -- calls
 * ------------------------------------------------------------------------------------------ */

static uint8_t lent_bytes[3000];
static atomic_uint lent;
static atomic_uint released;

static void release(void *arg)
{
    (void)arg;
    atomic_fetch_add(&released, 1);
}

static void reply_lent(grpc_c_call *call, const echo_request *request)
{
    echo_response response = ECHO_RESPONSE;
    struct grpc_c_metadata entry = {"a-bin", "b", 1};
    struct grpc_c_lent ranges[20];
    size_t n;

    /* Each may be refused for want of memory. */
    (void)grpc_c_call_add_header(call, &entry);
    (void)grpc_c_call_add_trailer(call, &entry);
    (void)grpc_c_call_metadata(call, &n);
    grpc_c_call_set_compression(call, GRPC_C_GZIP);
    response.number = request->number;
    response.payload.data = lent_bytes;
    response.payload.len = 100;
    for (size_t i = 0; i < 20; i++) {
        ranges[i] = (struct grpc_c_lent){lent_bytes + i, 100, release, NULL};
        atomic_fetch_add(&lent, 1);
    }
    grpc_c_call_reply_lent(call, &response.base, ranges, 20);
}

/* A call of each kind; whatever becomes of them, they end. */
static void call_all(const struct fixture *fixture)
{
    struct grpc_c_metadata entry = {"a-bin", "b", 1};
    struct grpc_c_call_options patient = {
        .timeout_ms = PATIENCE_MS, .metadata = &entry, .n_metadata = 1, .compression = GRPC_C_GZIP};
    struct grpc_c_result result = {0};
    echo_request request = ECHO_REQUEST;
    ProtobufCMessage *message;
    grpc_c_stream *stream;

    request.text = "text";
    request.payload.data = lent_bytes; /* zeros: they go compressed, and are inflated in steps */
    request.payload.len = sizeof(lent_bytes);
    request.number = 3;
    message = grpc_c_unary(fixture->channel, echo_unary, &request.base, &patient, &result);
    assert_int_equal(message != NULL, result.code == GRPC_C_OK);
    assert_int_not_equal(result.code, GRPC_C_DEADLINE_EXCEEDED);
    if (message != NULL) {
        protobuf_c_message_free_unpacked(message, NULL);
    }
    grpc_c_result_fini(&result);
    stream = grpc_c_stream_open(fixture->channel, echo_chat, &patient);
    if (stream == NULL) {
        return;
    }
    (void)grpc_c_stream_write(stream, &request.base);
    message = grpc_c_stream_read(stream);
    if (message != NULL) {
        protobuf_c_message_free_unpacked(message, NULL);
    }
    grpc_c_stream_finish(stream, &result);
    assert_int_not_equal(result.code, GRPC_C_DEADLINE_EXCEEDED);
    grpc_c_result_fini(&result);
}

static void a_call_short_of_memory_ends_and_the_next_one_works(void **state)
{
    struct echo_handlers handlers = echo_default;
    struct grpc_c_server_options options = {.pollers = 1, .accepts = 1};
    struct fixture fixture;
    bool failed = true;

    (void)state;
    handlers.unary = reply_lent;
    fixture_start(&fixture, &options, &handlers);
    for (int n = 0; failed; n++) {
        echo_request request = ECHO_REQUEST;
        alloc_fails_after(n);
        call_all(&fixture);
        failed = alloc_has_failed();
        alloc_fails_never();
        /* The one accept was lost at times, and always came back. */
        grpcc__test__echo_response__free_unpacked(echo_ok(fixture.channel, &request), NULL);
        assert_in_range(n, 0, 1000);
    }
    fixture_stop(&fixture);
    assert_int_equal(released, lent);
}

static void a_channel_that_cannot_be_made_is_null(void **state)
{
    (void)state;
    alloc_fails_after(0);
    assert_null(grpc_c_channel_create("127.0.0.1:1", NULL));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_server_that_cannot_be_made_is_destroyed),
        cmocka_unit_test(a_call_short_of_memory_ends_and_the_next_one_works),
        cmocka_unit_test(a_channel_that_cannot_be_made_is_null),
    };

    grpc_c_set_logger(silent);
    return cmocka_run_group_tests_name("grpc_c_memory", tests, NULL, NULL);
}
