/*
 * Memory that runs out: each allocation of the library fails in turn, and nothing crashes, leaks or
 * hangs.
 */
#include <stdlib.h>
#include <string.h>

#include "alloc_fails.h"
#include "grpc_c_fixture.h"
#include "work_dir.h"

static void silent(enum grpc_c_log_level level, const char *line)
{
    (void)level;
    (void)line;
}

/* -- certificates ----------------------------------------------------------------------------- */

static char work[PATH_MAX];
static char certificate[PATH_MAX + 64];
static char key[PATH_MAX + 64];
static char authority[PATH_MAX + 64];

static int make_certificates(void **state)
{
    char command[2 * PATH_MAX];

    (void)state;
    work_dir_create(work);
    (void)snprintf(certificate, sizeof(certificate), "%s/server.pem", work);
    (void)snprintf(key, sizeof(key), "%s/server.key", work);
    (void)snprintf(authority, sizeof(authority), "%s/ca.pem", work);
    (void)snprintf(command, sizeof(command), "%s '%s'", TEST_MAKE_CERTIFICATES, work);
    return system(command); /* NOLINT(cert-env33-c): ours */
}

static int remove_certificates(void **state)
{
    (void)state;
    work_dir_remove(work);
    return 0;
}

static struct grpc_c_server_tls server_tls(void)
{
    return (struct grpc_c_server_tls){
        .certificate_file = certificate, .key_file = key, .client_ca_file = authority};
}

/* -- making a server -------------------------------------------------------------------------- */

static bool make_server(bool all)
{
    struct grpc_c_server_options options = {.accepts = 2, .workers = all ? 2 : 0};
    struct grpc_c_server_tls tls = server_tls();
    grpc_c_server *server = grpc_c_server_create(&options);
    int port;
    bool made =
        server != NULL && grpc_c_server_add_service(server, &echo_service, &echo_default) == 0 &&
        grpc_c_server_slice_field(server, echo_unary->path, 2) == 0 &&
        grpc_c_server_listen(server, "127.0.0.1:0", &port, NULL, 0) == 0 &&
        (!all || grpc_c_server_listen_tls(server, "127.0.0.1:0", &tls, &port, NULL, 0) == 0) &&
        grpc_c_server_start(server) == 0;

    grpc_c_server_destroy(server);
    return made;
}

static void make_until_made(bool all)
{
    int n = 0;

    for (;; n++) {
        bool made;
        alloc_fails_after(n);
        made = make_server(all);
        if (!alloc_has_failed()) {
            assert_true(made);
            break;
        }
        assert_false(made);
    }
    alloc_fails_never();
    assert_in_range(n, 10, 1000);
}

static void a_server_that_cannot_be_made_is_destroyed(void **state)
{
    (void)state;
    make_until_made(false);
}

static void neither_is_one_with_tls_and_workers(void **state)
{
    (void)state;
    make_until_made(true);
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

/* A server whose one accept is all that takes calls: where it is lost nothing works any more. */
static void call_short_of_memory(const struct grpc_c_server_options *options, bool slice)
{
    struct echo_handlers handlers = echo_default;
    struct fixture fixture;
    bool failed = true;

    handlers.unary = reply_lent;
    fixture.server = grpc_c_server_create(options);
    assert_int_equal(grpc_c_server_add_service(fixture.server, &echo_service, &handlers), 0);
    if (slice) {
        assert_int_equal(grpc_c_server_slice_field(fixture.server, echo_unary->path, 2), 0);
        assert_int_equal(grpc_c_server_slice_field(fixture.server, echo_chat->path, 2), 0);
    }
    assert_int_equal(grpc_c_server_listen(fixture.server, "127.0.0.1:0", &fixture.port, NULL, 0),
                     0);
    assert_int_equal(grpc_c_server_start(fixture.server), 0);
    fixture.channel = fixture_connect(&fixture);
    for (int n = 0; failed; n++) {
        echo_request request = ECHO_REQUEST;
        alloc_fails_after(n);
        call_all(&fixture);
        failed = alloc_has_failed();
        alloc_fails_never();
        grpcc__test__echo_response__free_unpacked(echo_ok(fixture.channel, &request), NULL);
        assert_in_range(n, 0, 1000);
    }
    fixture_stop(&fixture);
    assert_int_equal(released, lent);
}

static void a_call_short_of_memory_ends_and_the_next_one_works(void **state)
{
    struct grpc_c_server_options options = {.pollers = 1, .accepts = 1};

    (void)state;
    call_short_of_memory(&options, false);
}

static void so_does_one_that_is_served_by_workers_in_slices(void **state)
{
    struct grpc_c_server_options options = {.pollers = 1, .accepts = 1, .workers = 2};

    (void)state;
    call_short_of_memory(&options, true);
}

/* The same bytes in another file: certificates are read anew. */
static void renew_certificate(void)
{
    char command[5 * PATH_MAX];

    (void)snprintf(command, sizeof(command), "cp '%s' '%s.new' && mv '%s.new' '%s'", certificate,
                   certificate, certificate, certificate);
    assert_int_equal(system(command), 0); /* NOLINT(cert-env33-c): ours */
}

static grpc_c_channel *connect_tls(int port)
{
    struct grpc_c_channel_tls tls = {.ca_file = authority,
                                     .certificate_file = certificate,
                                     .key_file = key,
                                     .server_name = "foo.test.google.fr"};
    struct grpc_c_channel_options options = {.tls = &tls};
    char target[32];

    (void)snprintf(target, sizeof(target), "127.0.0.1:%d", port);
    return grpc_c_channel_create(target, &options);
}

static void ask_who(grpc_c_call *call, const echo_request *request)
{
    echo_response response = ECHO_RESPONSE;

    (void)request;
    insist(grpc_c_call_identity(call) != NULL);
    insist(grpc_c_call_reply(call, &response.base));
}

/* What was read last stays in use: so a call works in the end, and often at once. */
static void certificates_that_cannot_be_read_anew_harm_nothing(void **state)
{
    struct grpc_c_call_options patient = {.timeout_ms = PATIENCE_MS};
    struct echo_handlers handlers = {.unary = ask_who};
    struct grpc_c_server_tls tls = server_tls();
    grpc_c_server *server = grpc_c_server_create(NULL);
    bool failed = true;
    int port;

    (void)state;
    assert_int_equal(grpc_c_server_add_service(server, &echo_service, &handlers), 0);
    assert_int_equal(grpc_c_server_listen_tls(server, "127.0.0.1:0", &tls, &port, NULL, 0), 0);
    assert_int_equal(grpc_c_server_start(server), 0);
    for (int n = 0; failed; n++) {
        grpc_c_channel *channel;
        struct grpc_c_result result = {0};
        echo_request request = ECHO_REQUEST;
        ProtobufCMessage *response;
        assert_in_range(n, 0, 1000);
        renew_certificate();
        channel = connect_tls(port);
        alloc_fails_after(n);
        response = grpc_c_unary(channel, echo_unary, &request.base, &patient, &result);
        failed = alloc_has_failed();
        alloc_fails_never();
        if (response != NULL) {
            protobuf_c_message_free_unpacked(response, NULL);
        }
        grpc_c_result_fini(&result);
        grpc_c_channel_destroy(channel);
        channel = connect_tls(port);
        grpcc__test__echo_response__free_unpacked(echo_ok(channel, &request), NULL);
        grpc_c_channel_destroy(channel);
    }
    grpc_c_server_destroy(server);
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
        cmocka_unit_test(neither_is_one_with_tls_and_workers),
        cmocka_unit_test(a_call_short_of_memory_ends_and_the_next_one_works),
        cmocka_unit_test(so_does_one_that_is_served_by_workers_in_slices),
        cmocka_unit_test(certificates_that_cannot_be_read_anew_harm_nothing),
        cmocka_unit_test(a_channel_that_cannot_be_made_is_null),
    };

    grpc_c_set_logger(silent);
    return cmocka_run_group_tests_name("grpc_c_memory", tests, make_certificates,
                                       remove_certificates);
}
