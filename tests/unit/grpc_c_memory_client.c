/*
 * The client's memory runs out: each allocation fails in turn, and each call that was begun ends
 * once, each range that was lent comes back once, and the next call works.
 */
#include <stdlib.h>
#include <string.h>

#include "alloc_fails.h"
#include "grpc_c_fixture.h"
#include "work_dir.h"

static const struct grpc_c_metadata entry = {"a-bin", "b", 1};
static const struct grpc_c_call_options patient = {.timeout_ms = PATIENCE_MS,
                                                   .metadata = &entry,
                                                   .n_metadata = 1,
                                                   .compression = GRPC_C_GZIP,
                                                   .tell_peer = true};

static void silent(enum grpc_c_log_level level, const char *line)
{
    (void)level;
    (void)line;
}

/* -- calls that are not waited for ------------------------------------------------------------ */

static atomic_uint begun; /* calls, writes and loans ... */
static atomic_uint ended; /* ... and their ends */

static void take_pending(ProtobufCMessage *response, const struct grpc_c_result *result,
                         void (*done)(void), void *arg)
{
    (void)done;
    (void)arg;
    insist((response != NULL) == (result->code == GRPC_C_OK));
    insist(result->code != GRPC_C_DEADLINE_EXCEEDED);
    protobuf_c_message_free_unpacked(response, NULL);
    atomic_fetch_add(&ended, 1);
}

static void take(grpc_c_async_stream *stream, ProtobufCMessage *message,
                 const struct grpc_c_result *result, void (*typed)(void), void *user)
{
    (void)stream;
    (void)typed;
    (void)user;
    protobuf_c_message_free_unpacked(message, NULL);
    atomic_fetch_add(&ended, result != NULL); /* a client stream's */
}

static void on_written(grpc_c_async_stream *stream, bool taken, void *user)
{
    (void)stream;
    (void)taken;
    (void)user;
    atomic_fetch_add(&ended, 1);
}

static void on_done(grpc_c_async_stream *stream, const struct grpc_c_result *result, void *user)
{
    (void)stream;
    (void)user;
    insist(result->code != GRPC_C_DEADLINE_EXCEEDED);
    atomic_fetch_add(&ended, 1);
}

static void no_type(void)
{
}

static void release(void *arg)
{
    (void)arg;
    atomic_fetch_add(&ended, 1);
}

static void stream_all(grpc_c_channel *channel, const struct grpc_c_method *method,
                       const echo_request *request)
{
    static const struct grpc_c_stream_events events = {
        .on_written = on_written, .on_done = on_done, .arrived = take, .typed = no_type};
    struct grpc_c_lent lent = {request->payload.data, request->payload.len, release, NULL};
    struct grpc_c_call_options lending = patient;
    bool one = method->shape == GRPC_C_SERVER_STREAM;
    grpc_c_async_stream *stream;

    lending.lent = &lent;
    lending.n_lent = one; /* a request is lent by the options */
    atomic_fetch_add(&begun, one);
    stream =
        grpc_c_stream_async(channel, method, one ? &request->base : NULL, &lending, &events, NULL);
    if (stream == NULL) {
        return;
    }
    atomic_fetch_add(&begun, 1);
    if (!one) {
        atomic_fetch_add(&begun, 2);
        if (grpc_c_async_write_lent(stream, &request->base, &lent, 1) != 0) {
            atomic_fetch_sub(&begun, 1);
        }
        (void)grpc_c_async_writes_done(stream);
    }
    for (unsigned i = 0; method->shape != GRPC_C_CLIENT_STREAM && i < 3; i++) {
        (void)grpc_c_async_read(stream); /* what is sent, and the end */
    }
    grpc_c_async_release(stream);
}

static void call_all(grpc_c_channel *channel)
{
    static uint8_t zeros[3000];
    echo_request request = ECHO_REQUEST;
    struct grpc_c_lent lent = {zeros, sizeof(zeros), release, NULL};
    struct grpc_c_call_options lending = patient;
    grpc_c_pending *pending = NULL;

    lending.lent = &lent;
    lending.n_lent = 1;
    atomic_fetch_add(&begun, 1);
    request.payload.data = zeros;
    request.payload.len = sizeof(zeros);
    request.number = 2;
    if (grpc_c_unary_async(channel, echo_unary, &request.base, &lending, take_pending, no_type,
                           NULL, &pending) == 0) {
        atomic_fetch_add(&begun, 1);
        grpc_c_pending_release(pending);
    }
    stream_all(channel, echo_chat, &request);
    stream_all(channel, echo_collect, &request);
    stream_all(channel, echo_spread, &request);
    await_count(&ended, atomic_load(&begun));
}

static void calls_short_of_memory_end_once(void **state)
{
    struct fixture fixture;
    bool failed = true;

    (void)state;
    fixture_start(&fixture, NULL, NULL);
    for (int n = 0; failed; n++) {
        echo_request request = ECHO_REQUEST;
        alloc_fails_after(n);
        call_all(fixture.channel);
        failed = alloc_has_failed();
        alloc_fails_never();
        grpcc__test__echo_response__free_unpacked(echo_ok(fixture.channel, &request), NULL);
        assert_in_range(n, 0, 1000);
    }
    fixture_stop(&fixture);
    assert_int_equal(ended, begun);
}

/* -- TLS -------------------------------------------------------------------------------------- */

static char work[PATH_MAX];

static int make_certificates(void **state)
{
    char command[2 * PATH_MAX];

    (void)state;
    work_dir_create(work);
    (void)snprintf(command, sizeof(command), "%s '%s'", TEST_MAKE_CERTIFICATES, work);
    return system(command); /* NOLINT(cert-env33-c): ours */
}

static int remove_certificates(void **state)
{
    (void)state;
    work_dir_remove(work);
    return 0;
}

/* The paths of what a server and a client take. */
struct files {
    char certificate[PATH_MAX + 16];
    char key[PATH_MAX + 16];
    char ca[PATH_MAX + 16];
};

static void name_files(struct files *files)
{
    (void)snprintf(files->certificate, sizeof(files->certificate), "%s/server.pem", work);
    (void)snprintf(files->key, sizeof(files->key), "%s/server.key", work);
    (void)snprintf(files->ca, sizeof(files->ca), "%s/ca.pem", work);
}

static bool make_channel(const struct files *files)
{
    struct grpc_c_channel_tls tls = {
        .ca_file = files->ca, .certificate_file = files->certificate, .key_file = files->key};
    struct grpc_c_channel_options options = {.tls = &tls};
    grpc_c_channel *channel = grpc_c_channel_create("127.0.0.1:1", &options);

    grpc_c_channel_destroy(channel);
    return channel != NULL;
}

static bool make_listener(const struct files *files)
{
    struct grpc_c_server_tls tls = {.certificate_file = files->certificate,
                                    .key_file = files->key,
                                    .client_ca_file = files->ca};
    grpc_c_server *server = grpc_c_server_create(NULL);
    int port;
    bool made = server != NULL &&
                grpc_c_server_listen_tls(server, "127.0.0.1:0", &tls, &port, NULL, 0) == 0;

    grpc_c_server_destroy(server);
    return made;
}

/* What is made in the end failed before, at each of `least` allocations or more. */
static void is_made_or_not(bool (*make)(const struct files *files), int least)
{
    struct files files;
    int n = 0;

    name_files(&files);
    for (;; n++) {
        bool made;
        alloc_fails_after(n);
        made = make(&files);
        if (!alloc_has_failed()) {
            assert_true(made);
            break;
        }
        assert_false(made);
    }
    alloc_fails_never();
    assert_in_range(n, least, 1000);
}

static void a_channel_with_tls_that_cannot_be_made_is_null(void **state)
{
    (void)state;
    is_made_or_not(make_channel, 4); /* itself and three files */
}

static void a_listener_with_tls_that_cannot_be_made_is_refused(void **state)
{
    (void)state;
    is_made_or_not(make_listener, 8); /* server, paths and files */
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(calls_short_of_memory_end_once),
        cmocka_unit_test(a_channel_with_tls_that_cannot_be_made_is_null),
        cmocka_unit_test(a_listener_with_tls_that_cannot_be_made_is_refused),
    };

    grpc_c_set_logger(silent);
    return cmocka_run_group_tests_name("grpc_c_memory_client", tests, make_certificates,
                                       remove_certificates);
}
