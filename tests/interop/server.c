/*
 * grpc-c-interop-server: the server of gRPC's interoperability suite.
 *
 *   grpc-c-interop-server --port=10000 [--use_tls=true --tls_cert_file=PEM --tls_key_file=PEM]
 *
 * Port 0 is any free one; the address is printed. It runs until SIGTERM or SIGINT. A response
 * parameter's `interval_us` is not waited for: no case of the suite that is played here asks for
 * it.
 */
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "interop.h"

static void must(bool condition, const char *what)
{
    if (!condition) {
        (void)fprintf(stderr, "grpc-c-interop-server: %s\n", what);
        abort();
    }
}

/* -- what the cases have in common ------------------------------------------------------------ */

static void echo_metadata(grpc_c_call *call)
{
    size_t n;
    const struct grpc_c_metadata *list = grpc_c_call_metadata(call, &n);
    const struct grpc_c_metadata *header = grpc_c_metadata_find(list, n, ECHO_HEADER);
    const struct grpc_c_metadata *trailer = grpc_c_metadata_find(list, n, ECHO_TRAILER);

    if (header != NULL) {
        must(grpc_c_call_add_header(call, header) == GRPC_C_METADATA_OK, "cannot echo a header");
    }
    if (trailer != NULL) {
        must(grpc_c_call_add_trailer(call, trailer) == GRPC_C_METADATA_OK, "cannot echo a trailer");
    }
}

/* Ends the call where it is asked to fail. */
static bool fails_as_asked(grpc_c_call *call, const echo_status *asked)
{
    if (asked == NULL || asked->code == 0) {
        return false;
    }
    grpc_c_call_finish(call, &(struct grpc_c_status){.code = (enum grpc_c_code)asked->code,
                                                     .message = asked->message});
    return true;
}

/* Ends the call where its message should have come compressed. */
static bool is_not_compressed(grpc_c_call *call, const bool_value *expected)
{
    if (expected == NULL || !expected->value || grpc_c_call_message_compressed(call)) {
        return false;
    }
    grpc_c_call_fail(call, GRPC_C_INVALID_ARGUMENT, "expected a compressed message");
    return true;
}

/* Ends the call where no payload can have that size. */
static bool is_no_size(grpc_c_call *call, int32_t size)
{
    if (size >= 0 && (size_t)size <= PAYLOAD_MAX) {
        return false;
    }
    grpc_c_call_fail(call, GRPC_C_INVALID_ARGUMENT, "a payload has 0 to %zu bytes, not %d",
                     PAYLOAD_MAX, (int)size);
    return true;
}

/* -- one request, one response ---------------------------------------------------------------- */

static void empty_call(grpc_c_call *call, const empty *request, void *user)
{
    empty response = EMPTY;

    (void)request;
    (void)user;
    grpc__testing__test_service__empty_call__reply(call, &response);
}

static void unary_call(grpc_c_call *call, const simple_request *request, void *user)
{
    simple_response response = SIMPLE_RESPONSE;
    payload body;

    (void)user;
    echo_metadata(call);
    if (fails_as_asked(call, request->response_status) ||
        is_not_compressed(call, request->expect_compressed) ||
        is_no_size(call, request->response_size)) {
        return;
    }
    if (request->response_compressed != NULL) {
        grpc_c_call_set_compression(call, GRPC_C_GZIP);
        grpc_c_call_skip_compression(call, !request->response_compressed->value);
    }
    body = zeros_of((size_t)request->response_size);
    response.payload = &body;
    grpc__testing__test_service__unary_call__reply(call, &response);
}

/* -- a stream in, one response ---------------------------------------------------------------- */

static void streaming_input_call(grpc_c_call *call, void *user)
{
    uint64_t *sum = calloc(1, sizeof(*sum));

    (void)user;
    must(sum != NULL, "out of memory");
    grpc_c_call_set_data(call, sum, free);
    grpc_c_call_read(call);
}

static void streaming_input_message(grpc_c_call *call, const input_request *request, void *user)
{
    uint64_t *sum = grpc_c_call_data(call);
    input_response response = INPUT_RESPONSE;

    (void)user;
    if (request == NULL) {
        response.aggregated_payload_size = (int32_t)*sum;
        grpc__testing__test_service__streaming_input_call__reply(call, &response);
        return;
    }
    if (is_not_compressed(call, request->expect_compressed)) {
        return;
    }
    *sum += request->payload == NULL ? 0 : request->payload->body.len;
    grpc_c_call_read(call);
}

/* -- a stream out ----------------------------------------------------------------------------- */

struct answer {
    int32_t size;
    bool compressed;
};

/* What a call still has to send, and what it does then. */
struct answers {
    void (*then)(grpc_c_call *call);
    struct answer *list;
    size_t n;
    size_t next;
};

static void answers_free(void *data)
{
    struct answers *answers = data;

    free(answers->list);
    free(answers);
}

static void answers_begin(grpc_c_call *call, void (*then)(grpc_c_call *call))
{
    struct answers *answers = calloc(1, sizeof(*answers));

    must(answers != NULL, "out of memory");
    answers->then = then;
    grpc_c_call_set_data(call, answers, answers_free);
    /* Which of the messages are compressed is said one by one. */
    grpc_c_call_set_compression(call, GRPC_C_GZIP);
}

static void answers_add(grpc_c_call *call, const output_request *request)
{
    struct answers *answers = grpc_c_call_data(call);
    size_t more = request->n_response_parameters;

    if (more == 0) {
        return;
    }
    answers->list = realloc(answers->list, (answers->n + more) * sizeof(*answers->list));
    must(answers->list != NULL, "out of memory");
    for (size_t i = 0; i < more; i++) {
        const parameters *asked = request->response_parameters[i];
        answers->list[answers->n++] = (struct answer){
            .size = asked->size,
            .compressed = asked->compressed != NULL && asked->compressed->value,
        };
    }
}

static void answers_send(grpc_c_call *call, void *arg)
{
    struct answers *answers = grpc_c_call_data(call);
    output_response response = OUTPUT_RESPONSE;
    const struct answer *answer;
    payload body;

    (void)arg;
    if (answers->next == answers->n) {
        answers->next = answers->n = 0;
        answers->then(call);
        return;
    }
    answer = &answers->list[answers->next++];
    if (is_no_size(call, answer->size)) {
        return;
    }
    body = zeros_of((size_t)answer->size);
    response.payload = &body;
    grpc_c_call_skip_compression(call, !answer->compressed);
    grpc__testing__test_service__streaming_output_call__send(call, &response, answers_send, NULL);
}

static void finish_ok(grpc_c_call *call)
{
    grpc_c_call_finish(call, &(struct grpc_c_status){.code = GRPC_C_OK});
}

static void streaming_output_call(grpc_c_call *call, const output_request *request, void *user)
{
    (void)user;
    echo_metadata(call);
    if (fails_as_asked(call, request->response_status)) {
        return;
    }
    answers_begin(call, finish_ok);
    answers_add(call, request);
    answers_send(call, NULL);
}

/* -- streams both ways ------------------------------------------------------------------------ */

static void read_on(grpc_c_call *call)
{
    (void)grpc_c_call_read(call);
}

static void full_duplex_call(grpc_c_call *call, void *user)
{
    (void)user;
    echo_metadata(call);
    answers_begin(call, read_on);
    grpc_c_call_read(call);
}

static void full_duplex_message(grpc_c_call *call, const output_request *request, void *user)
{
    (void)user;
    if (request == NULL) {
        finish_ok(call);
    } else if (!fails_as_asked(call, request->response_status)) {
        answers_add(call, request);
        answers_send(call, NULL);
    }
}

static void half_duplex_call(grpc_c_call *call, void *user)
{
    (void)user;
    echo_metadata(call);
    answers_begin(call, finish_ok);
    grpc_c_call_read(call);
}

static void half_duplex_message(grpc_c_call *call, const output_request *request, void *user)
{
    (void)user;
    if (request == NULL) {
        answers_send(call, NULL);
    } else if (!fails_as_asked(call, request->response_status)) {
        answers_add(call, request);
        grpc_c_call_read(call);
    }
}

/* -- the program ------------------------------------------------------------------------------ */

static const struct grpc__testing__test_service_handlers handlers = {
    .empty_call = empty_call,
    .unary_call = unary_call,
    .streaming_output_call = streaming_output_call,
    .streaming_input_call = streaming_input_call,
    .streaming_input_call__message = streaming_input_message,
    .full_duplex_call = full_duplex_call,
    .full_duplex_call__message = full_duplex_message,
    .half_duplex_call = half_duplex_call,
    .half_duplex_call__message = half_duplex_message,
};

/* `tls` may be NULL. */
static int listen_on(grpc_c_server *server, const char *port, const struct grpc_c_server_tls *tls)
{
    char address[64];
    char error[256];
    int bound;

    (void)snprintf(address, sizeof(address), "127.0.0.1:%s", port);
    if ((tls == NULL
             ? grpc_c_server_listen(server, address, &bound, error, sizeof(error))
             : grpc_c_server_listen_tls(server, address, tls, &bound, error, sizeof(error))) != 0) {
        (void)fprintf(stderr, "grpc-c-interop-server: %s\n", error);
        return -1;
    }
    (void)printf("listening on 127.0.0.1:%d\n", bound);
    return fflush(stdout);
}

int main(int argc, char **argv)
{
    const char *port = "10000";
    const char *use_tls = "false";
    struct grpc_c_server_tls tls = {0};
    const struct flag flags[] = {
        {"port", &port},
        {"use_tls", &use_tls},
        {"tls_cert_file", &tls.certificate_file},
        {"tls_key_file", &tls.key_file},
        {NULL, NULL},
    };
    bool with_tls;
    grpc_c_server *server;
    sigset_t ends;
    int number;

    flags_parse(flags, argc, argv);
    with_tls = flag_is_true("use_tls", use_tls);
    must(!with_tls || (tls.certificate_file != NULL && tls.key_file != NULL),
         "--use_tls takes --tls_cert_file and --tls_key_file");
    sigemptyset(&ends);
    sigaddset(&ends, SIGTERM);
    sigaddset(&ends, SIGINT);
    pthread_sigmask(SIG_BLOCK, &ends, NULL);
    server = grpc_c_server_create(NULL);
    must(server != NULL, "out of memory");
    must(grpc__testing__test_service__service_init(server, &handlers) == 0, "cannot add services");
    if (listen_on(server, port, with_tls ? &tls : NULL) != 0 || grpc_c_server_start(server) != 0) {
        grpc_c_server_destroy(server);
        return EXIT_FAILURE;
    }
    (void)sigwait(&ends, &number);
    (void)grpc_c_server_shutdown(server, 1000);
    grpc_c_server_destroy(server);
    return EXIT_SUCCESS;
}
