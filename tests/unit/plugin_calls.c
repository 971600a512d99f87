/* Generated clients talk to generated servers: the four shapes of plugin_shapes.proto. */
#include <setjmp.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include <cmocka.h>

#include "plugin_shapes.grpc-c.h"

typedef Plugin__Shapes__Outer__Question question;
typedef Plugin__Shapes__Outer__Deeper__Answer answer;
typedef Plugin__Other__Number number;
typedef Plugin__Other__Sum sum;
typedef Google__Protobuf__Empty empty;

#define QUESTION PLUGIN__SHAPES__OUTER__QUESTION__INIT
#define ANSWER   PLUGIN__SHAPES__OUTER__DEEPER__ANSWER__INIT
#define NUMBER   PLUGIN__OTHER__NUMBER__INIT
#define SUM      PLUGIN__OTHER__SUM__INIT
#define EMPTY    GOOGLE__PROTOBUF__EMPTY__INIT

enum { COUNT = 300 };

static uint8_t lent_bytes[100000];

struct fixture {
    grpc_c_server *server;
    grpc_c_channel *channel;
    atomic_uint handled;  /* what `user` leads to: calls that reached a handler */
    atomic_uint released; /* lent ranges that were given back */
};

/* -- the server ------------------------------------------------------------------------------- */

static void count_handled(void *user)
{
    struct fixture *fixture = user;

    atomic_fetch_add(&fixture->handled, 1);
}

static void release(void *arg)
{
    struct fixture *fixture = arg;

    atomic_fetch_add(&fixture->released, 1);
}

static void unary(grpc_c_call *call, const question *request, void *user)
{
    struct grpc_c_lent lent = {lent_bytes, sizeof(lent_bytes), release, user};
    answer response = ANSWER;

    count_handled(user);
    response.text = request->text;
    if (request->blob.len == 0) {
        response.blob.data = lent_bytes;
        response.blob.len = sizeof(lent_bytes);
        plugin__shapes__shapes__unary__reply_lent(call, &response, &lent, 1);
        return;
    }
    response.blob = request->blob;
    plugin__shapes__shapes__unary__reply(call, &response);
}

static void collect(grpc_c_call *call, void *user)
{
    sum *total = malloc(sizeof(*total));

    count_handled(user);
    if (total == NULL) {
        abort();
    }
    plugin__other__sum__init(total);
    grpc_c_call_set_data(call, total, free);
    grpc_c_call_read(call);
}

static void collect_message(grpc_c_call *call, const number *request, void *user)
{
    sum *total = grpc_c_call_data(call);

    (void)user;
    if (request == NULL) {
        plugin__shapes__shapes__collect__reply(call, total);
        return;
    }
    total->total += request->value;
    total->count++;
    grpc_c_call_read(call);
}

static void spread_next(grpc_c_call *call, void *arg)
{
    const struct grpc_c_status ok = {.code = GRPC_C_OK};
    number *left = arg;
    number next = NUMBER;

    if (left->value == 0) {
        grpc_c_call_finish(call, &ok);
        return;
    }
    next.value = left->value--;
    plugin__shapes__shapes__spread__send(call, &next, spread_next, left);
}

static void spread(grpc_c_call *call, const number *request, void *user)
{
    number *left = malloc(sizeof(*left));

    count_handled(user);
    if (left == NULL) {
        abort();
    }
    *left = *request;
    grpc_c_call_set_data(call, left, free);
    spread_next(call, left);
}

static void chat(grpc_c_call *call, void *user)
{
    count_handled(user);
    grpc_c_call_read(call);
}

static void chat_again(grpc_c_call *call, void *arg)
{
    (void)arg;
    grpc_c_call_read(call);
}

static void chat_message(grpc_c_call *call, const question *request, void *user)
{
    answer response = ANSWER;

    (void)user;
    if (request == NULL) {
        grpc_c_call_fail(call, GRPC_C_OUT_OF_RANGE, "no more questions");
        return;
    }
    response.text = request->text;
    plugin__shapes__shapes__chat__send(call, &response, chat_again, NULL);
}

static void nothing(grpc_c_call *call, const empty *request, void *user)
{
    count_handled(user);
    plugin__shapes__shapes__nothing__reply(call, request);
}

static struct plugin__shapes__shapes_handlers handlers = {
    .unary = unary,
    .collect = collect,
    .collect__message = collect_message,
    .spread = spread,
    .chat = chat,
    .chat__message = chat_message,
    .nothing = nothing,
};

static int setup(void **state)
{
    struct fixture *fixture = calloc(1, sizeof(*fixture));
    char address[64];
    char error[256];
    int port;

    assert_non_null(fixture);
    handlers.user = fixture;
    fixture->server = grpc_c_server_create(NULL);
    assert_non_null(fixture->server);
    assert_int_equal(
        grpc_c_server_listen(fixture->server, "127.0.0.1:0", &port, error, sizeof(error)), 0);
    assert_int_equal(plugin__shapes__shapes__service_init(fixture->server, &handlers), 0);
    assert_int_equal(grpc_c_server_start(fixture->server), 0);
    (void)snprintf(address, sizeof(address), "127.0.0.1:%d", port);
    fixture->channel = grpc_c_channel_create(address, NULL);
    assert_non_null(fixture->channel);
    *state = fixture;
    return 0;
}

static int teardown(void **state)
{
    struct fixture *fixture = *state;

    grpc_c_channel_destroy(fixture->channel);
    grpc_c_server_destroy(fixture->server);
    free(fixture);
    return 0;
}

/* -- the tests -------------------------------------------------------------------------------- */

static const struct grpc_c_call_options patience = {.timeout_ms = 60000, .wait_for_ready = true};

static void free_answer(answer *response)
{
    /* A nested message has no functions of its own. */
    protobuf_c_message_free_unpacked(&response->base, NULL);
}

static void finish_with(grpc_c_stream *stream, enum grpc_c_code code)
{
    struct grpc_c_result result = {0};

    grpc_c_stream_finish(stream, &result);
    assert_int_equal(result.code, code);
    grpc_c_result_fini(&result);
}

static void unary_call_is_answered(void **state)
{
    struct fixture *fixture = *state;
    struct grpc_c_result result = {0};
    question request = QUESTION;
    answer *response;
    uint8_t blob[] = {0, 1, 2};

    request.text = "why";
    request.blob.data = blob;
    request.blob.len = sizeof(blob);
    response = plugin__shapes__shapes__unary__sync(fixture->channel, &request, &patience, &result);
    assert_non_null(response);
    assert_int_equal(result.code, GRPC_C_OK);
    assert_string_equal(response->text, "why");
    assert_int_equal(response->blob.len, sizeof(blob));
    assert_memory_equal(response->blob.data, blob, sizeof(blob));
    assert_int_equal(atomic_load(&fixture->handled), 1);
    free_answer(response);
    grpc_c_result_fini(&result);
}

struct later {
    atomic_uint times;
    answer *response;
    enum grpc_c_code code;
};

static void keep_answer(answer *response, const struct grpc_c_result *result, void *arg)
{
    struct later *later = arg;

    later->response = response;
    later->code = result->code;
    atomic_fetch_add(&later->times, 1);
}

static void unary_call_is_answered_by_a_callback(void **state)
{
    struct fixture *fixture = *state;
    struct later later = {0};
    question request = QUESTION;

    request.text = "later";
    assert_int_equal(plugin__shapes__shapes__unary__async(fixture->channel, &request, &patience,
                                                          keep_answer, &later, NULL),
                     0);
    /* A call that ends at all ends by its deadline. */
    while (atomic_load(&later.times) == 0) {
        struct timespec moment = {0, 1000000};
        nanosleep(&moment, NULL);
    }
    assert_int_equal(later.code, GRPC_C_OK);
    assert_string_equal(later.response->text, "later");
    free_answer(later.response);
}

static void unary_call_is_answered_from_lent_memory(void **state)
{
    struct fixture *fixture = *state;
    struct grpc_c_result result = {0};
    question request = QUESTION;
    answer *response;

    request.text = "";
    response = plugin__shapes__shapes__unary__sync(fixture->channel, &request, &patience, &result);
    assert_non_null(response);
    assert_int_equal(response->blob.len, sizeof(lent_bytes));
    assert_memory_equal(response->blob.data, lent_bytes, sizeof(lent_bytes));
    free_answer(response);
    grpc_c_result_fini(&result);
    /* Given back at the latest when the server is gone. */
    grpc_c_server_destroy(fixture->server);
    fixture->server = NULL;
    assert_int_equal(atomic_load(&fixture->released), 1);
}

static void messages_of_other_packages_are_sent(void **state)
{
    struct fixture *fixture = *state;
    struct grpc_c_result result = {0};
    empty request = EMPTY;
    empty *response;

    response =
        plugin__shapes__shapes__nothing__sync(fixture->channel, &request, &patience, &result);
    assert_non_null(response);
    google__protobuf__empty__free_unpacked(response, NULL);
    grpc_c_result_fini(&result);
}

static void client_stream_is_answered_once(void **state)
{
    struct fixture *fixture = *state;
    grpc_c_stream *stream = plugin__shapes__shapes__collect__open(fixture->channel, &patience);
    number request = NUMBER;
    sum *response;

    assert_non_null(stream);
    for (request.value = 1; request.value <= COUNT; request.value++) {
        assert_int_equal(plugin__shapes__shapes__collect__write(stream, &request), 0);
    }
    assert_int_equal(grpc_c_stream_writes_done(stream), 0);
    response = plugin__shapes__shapes__collect__read(stream);
    assert_non_null(response);
    assert_int_equal(response->count, COUNT);
    assert_int_equal(response->total, COUNT * (COUNT + 1) / 2);
    plugin__other__sum__free_unpacked(response, NULL);
    assert_null(plugin__shapes__shapes__collect__read(stream));
    finish_with(stream, GRPC_C_OK);
}

static void server_stream_is_read_to_its_end(void **state)
{
    struct fixture *fixture = *state;
    grpc_c_stream *stream = plugin__shapes__shapes__spread__open(fixture->channel, &patience);
    number request = NUMBER;
    number *response;
    uint32_t left = COUNT;

    assert_non_null(stream);
    request.value = COUNT;
    assert_int_equal(plugin__shapes__shapes__spread__write(stream, &request), 0);
    assert_int_equal(grpc_c_stream_writes_done(stream), 0);
    while ((response = plugin__shapes__shapes__spread__read(stream)) != NULL) {
        assert_int_equal(response->value, left);
        left--;
        plugin__other__number__free_unpacked(response, NULL);
    }
    assert_int_equal(left, 0);
    finish_with(stream, GRPC_C_OK);
}

static void both_sides_stream_in_turn(void **state)
{
    struct fixture *fixture = *state;
    grpc_c_stream *stream = plugin__shapes__shapes__chat__open(fixture->channel, &patience);
    question request = QUESTION;
    char text[32];
    unsigned i;

    assert_non_null(stream);
    request.text = text;
    for (i = 0; i < COUNT; i++) {
        answer *response;

        (void)snprintf(text, sizeof(text), "question %u", i);
        assert_int_equal(plugin__shapes__shapes__chat__write(stream, &request), 0);
        response = plugin__shapes__shapes__chat__read(stream);
        assert_non_null(response);
        assert_string_equal(response->text, text);
        free_answer(response);
    }
    assert_int_equal(grpc_c_stream_writes_done(stream), 0);
    assert_null(plugin__shapes__shapes__chat__read(stream));
    finish_with(stream, GRPC_C_OUT_OF_RANGE);
}

/* -- the same without waiting ----------------------------------------------------------------- */

/* What a stream's callbacks have seen; `done` is written last. */
struct seen {
    unsigned messages;
    unsigned written;
    uint64_t value; /* of the last message, or of the answer */
    enum grpc_c_code code;
    atomic_uint done;
};

static void await_end(struct seen *seen, grpc_c_async_stream *stream)
{
    /* A call that ends at all ends by its deadline. */
    while (atomic_load(&seen->done) == 0) {
        struct timespec moment = {0, 1000000};
        nanosleep(&moment, NULL);
    }
    assert_int_equal(atomic_load(&seen->done), 1);
    grpc_c_async_release(stream);
}

static void ended(struct seen *seen, const struct grpc_c_result *result)
{
    seen->code = result->code;
    atomic_fetch_add(&seen->done, 1);
}

static void count_written(grpc_c_async_stream *stream, bool taken, void *user)
{
    struct seen *seen = user;

    (void)stream;
    seen->written += taken;
}

static void stream_ended(grpc_c_async_stream *stream, const struct grpc_c_result *result,
                         void *user)
{
    (void)stream;
    ended(user, result);
}

static void take_sum(grpc_c_async_stream *stream, sum *response, const struct grpc_c_result *result,
                     void *user)
{
    struct seen *seen = user;

    (void)stream;
    seen->value = (uint64_t)response->total;
    plugin__other__sum__free_unpacked(response, NULL);
    ended(seen, result);
}

static void client_stream_is_answered_by_a_callback(void **state)
{
    const struct plugin__shapes__shapes__collect__events events = {.on_written = count_written,
                                                                   .on_done = take_sum};
    struct fixture *fixture = *state;
    struct seen seen = {0};
    number request = NUMBER;
    grpc_c_async_stream *stream =
        plugin__shapes__shapes__collect__async(fixture->channel, &patience, &events, &seen);

    assert_non_null(stream);
    for (request.value = 1; request.value <= COUNT; request.value++) {
        assert_int_equal(plugin__shapes__shapes__collect__async_write(stream, &request), 0);
    }
    assert_int_equal(grpc_c_async_writes_done(stream), 0);
    await_end(&seen, stream);
    assert_int_equal(seen.code, GRPC_C_OK);
    assert_int_equal(seen.value, COUNT * (COUNT + 1) / 2);
    assert_int_equal(seen.written, COUNT);
}

static void take_number(grpc_c_async_stream *stream, number *message, void *user)
{
    struct seen *seen = user;

    seen->messages++;
    seen->value = message->value;
    plugin__other__number__free_unpacked(message, NULL);
    (void)grpc_c_async_read(stream);
}

static void server_stream_is_read_by_a_callback(void **state)
{
    const struct plugin__shapes__shapes__spread__events events = {.on_message = take_number,
                                                                  .on_done = stream_ended};
    struct fixture *fixture = *state;
    struct seen seen = {0};
    number request = NUMBER;
    grpc_c_async_stream *stream;

    request.value = COUNT;
    stream = plugin__shapes__shapes__spread__async(fixture->channel, &request, &patience, &events,
                                                   &seen);
    assert_non_null(stream);
    assert_int_equal(grpc_c_async_read(stream), 0);
    await_end(&seen, stream);
    assert_int_equal(seen.code, GRPC_C_OK);
    assert_int_equal(seen.messages, COUNT);
    assert_int_equal(seen.value, 1);
}

/* Asks the next question. */
static void ask_next(grpc_c_async_stream *stream, answer *message, void *user)
{
    struct seen *seen = user;
    question request = QUESTION;

    request.text = "next";
    free_answer(message);
    if (++seen->messages == COUNT) {
        (void)grpc_c_async_writes_done(stream);
        return;
    }
    (void)plugin__shapes__shapes__chat__async_write_lent(stream, &request, NULL, 0);
    (void)grpc_c_async_read(stream);
}

static void both_sides_stream_by_callbacks(void **state)
{
    const struct plugin__shapes__shapes__chat__events events = {
        .on_message = ask_next, .on_written = count_written, .on_done = stream_ended};
    struct fixture *fixture = *state;
    struct seen seen = {0};
    question request = QUESTION;
    grpc_c_async_stream *stream =
        plugin__shapes__shapes__chat__async(fixture->channel, &patience, &events, &seen);

    assert_non_null(stream);
    request.text = "next";
    assert_int_equal(plugin__shapes__shapes__chat__async_write(stream, &request), 0);
    assert_int_equal(grpc_c_async_read(stream), 0);
    await_end(&seen, stream);
    assert_int_equal(seen.code, GRPC_C_OUT_OF_RANGE);
    assert_int_equal(seen.messages, COUNT);
    assert_int_equal(seen.written, COUNT);
}

static void unary_call_without_a_handler_is_unimplemented(void **state)
{
    struct fixture *fixture = *state;
    struct grpc_c_result result = {0};
    empty request = EMPTY;

    assert_null(
        plugin__shapes__shapes__unhandled__sync(fixture->channel, &request, &patience, &result));
    assert_int_equal(result.code, GRPC_C_UNIMPLEMENTED);
    grpc_c_result_fini(&result);
}

static void stream_without_a_handler_is_unimplemented(void **state)
{
    struct fixture *fixture = *state;
    grpc_c_stream *stream =
        plugin__shapes__shapes__unhandled_stream__open(fixture->channel, &patience);

    assert_non_null(stream);
    assert_null(plugin__shapes__shapes__unhandled_stream__read(stream));
    finish_with(stream, GRPC_C_UNIMPLEMENTED);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(unary_call_is_answered, setup, teardown),
        cmocka_unit_test_setup_teardown(unary_call_is_answered_by_a_callback, setup, teardown),
        cmocka_unit_test_setup_teardown(unary_call_is_answered_from_lent_memory, setup, teardown),
        cmocka_unit_test_setup_teardown(messages_of_other_packages_are_sent, setup, teardown),
        cmocka_unit_test_setup_teardown(client_stream_is_answered_once, setup, teardown),
        cmocka_unit_test_setup_teardown(server_stream_is_read_to_its_end, setup, teardown),
        cmocka_unit_test_setup_teardown(both_sides_stream_in_turn, setup, teardown),
        cmocka_unit_test_setup_teardown(client_stream_is_answered_by_a_callback, setup, teardown),
        cmocka_unit_test_setup_teardown(server_stream_is_read_by_a_callback, setup, teardown),
        cmocka_unit_test_setup_teardown(both_sides_stream_by_callbacks, setup, teardown),
        cmocka_unit_test_setup_teardown(unary_call_without_a_handler_is_unimplemented, setup,
                                        teardown),
        cmocka_unit_test_setup_teardown(stream_without_a_handler_is_unimplemented, setup, teardown),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
