/* Lent bytes: sent as they are, and given back exactly once however the call ends. */
#include <grpc/grpc.h>
#include <stdlib.h>
#include <string.h>

#include "codec.h"
#include "grpc_c_fixture.h"

static const struct grpc_c_call_options patient = {.timeout_ms = PATIENCE_MS};

/* A block of memory that is freed by its release: a second one, or a late use, is seen by ASan. */
struct block {
    uint8_t *bytes;
    size_t n;
};

static atomic_uint made;
static atomic_uint released;

static void release_block(void *arg)
{
    struct block *block = arg;

    memset(block->bytes, 0xee, block->n);
    free(block->bytes);
    free(block);
    atomic_fetch_add(&released, 1);
}

static uint8_t byte_at(size_t i, size_t salt)
{
    return (uint8_t)(i * 131 + salt * 17 + (i >> 8));
}

static struct grpc_c_lent lend(size_t n, size_t salt)
{
    struct block *block = malloc(sizeof(*block));

    atomic_fetch_add(&made, 1);
    block->bytes = malloc(n + 1);
    block->n = n;
    for (size_t i = 0; i < n; i++) {
        block->bytes[i] = byte_at(i, salt);
    }
    return (struct grpc_c_lent){block->bytes, n, release_block, block};
}

static void check_bytes(const ProtobufCBinaryData *got, size_t n, size_t salt)
{
    assert_int_equal(got->len, n);
    for (size_t i = 0; i < n; i++) {
        if (got->data[i] != byte_at(i, salt)) {
            fail_msg("byte %zu of %zu differs", i, n);
        }
    }
}

static int fresh(void **state)
{
    (void)state;
    atomic_store(&made, 0);
    atomic_store(&released, 0);
    return 0;
}

/* -- one range -------------------------------------------------------------------------------- */

static void reply_lent(grpc_c_call *call, const echo_request *request)
{
    struct grpc_c_lent lent = lend(request->number, request->number);
    echo_response response = ECHO_RESPONSE;

    response.text = "before";
    response.payload.data = (uint8_t *)lent.data;
    response.payload.len = lent.length;
    response.number = request->number;
    grpc_c_call_reply_lent(call, &response.base, &lent, 1);
}

static void lent_bytes_arrive_and_are_released(void **state)
{
    static const uint32_t sizes[] = {0, 1, 22, 23, 24, 1000, 4096, 70000, 3000000};
    struct echo_handlers handlers = {.unary = reply_lent};
    struct fixture fixture;
    size_t n = sizeof(sizes) / sizeof(sizes[0]);

    (void)state;
    fixture_start(&fixture, NULL, &handlers);
    for (size_t i = 0; i < n; i++) {
        echo_request request = ECHO_REQUEST;
        echo_response *response;
        request.number = sizes[i];
        response = echo_ok(fixture.channel, &request);
        assert_string_equal(response->text, "before");
        check_bytes(&response->payload, sizes[i], sizes[i]);
        assert_int_equal(response->number, sizes[i]);
        grpcc__test__echo_response__free_unpacked(response, NULL);
    }
    await_count(&released, (unsigned)n);
    fixture_stop(&fixture);
    assert_int_equal(released, n);
}

/* -- many, nested ----------------------------------------------------------------------------- */

#define RESULTS 300u

/* Lent in an order that is not the message's, where `backwards`. */
static void reply_many(grpc_c_call *call, const echo_request *request)
{
    bool backwards = request->number != 0;
    struct grpc_c_lent lent[RESULTS];
    echo_inner results[RESULTS];
    echo_inner *pointers[RESULTS];
    echo_response response = ECHO_RESPONSE;

    for (size_t i = 0; i < RESULTS; i++) {
        size_t k = backwards ? RESULTS - 1 - i : i;
        lent[k] = lend(i * 7, i);
        results[i] = (echo_inner)ECHO_INNER;
        results[i].name = "a name longer than a slice holds inline";
        results[i].payload.data = (uint8_t *)lent[k].data;
        results[i].payload.len = lent[k].length;
        pointers[i] = &results[i];
    }
    response.n_results = RESULTS;
    response.results = pointers;
    grpc_c_call_reply_lent(call, &response.base, lent, RESULTS);
}

static void nested_fields_are_lent_too(void **state)
{
    struct echo_handlers handlers = {.unary = reply_many};
    struct fixture fixture;

    (void)state;
    fixture_start(&fixture, NULL, &handlers);
    for (uint32_t backwards = 0; backwards < 2; backwards++) {
        echo_request request = ECHO_REQUEST;
        echo_response *response;
        request.number = backwards;
        response = echo_ok(fixture.channel, &request);
        assert_int_equal(response->n_results, RESULTS);
        for (size_t i = 0; i < RESULTS; i++) {
            check_bytes(&response->results[i]->payload, i * 7, i);
            assert_string_equal(response->results[i]->name,
                                "a name longer than a slice holds inline");
        }
        grpcc__test__echo_response__free_unpacked(response, NULL);
    }
    await_count(&released, 2 * RESULTS);
    fixture_stop(&fixture);
    assert_int_equal(released, 2 * RESULTS);
}

/* -- what is sent is the memory itself ----------------------------------------------------------
 */

static bool buffer_holds(const grpc_byte_buffer *buffer, const void *data, size_t n)
{
    const grpc_slice_buffer *slices = &buffer->data.raw.slice_buffer;

    for (size_t i = 0; i < slices->count; i++) {
        if (GRPC_SLICE_START_PTR(slices->slices[i]) == data &&
            GRPC_SLICE_LENGTH(slices->slices[i]) == n) {
            return true;
        }
    }
    return false;
}

static void lent_ranges_are_not_copied(void **state)
{
    struct grpc_c_lent lent[3] = {lend(500, 1), lend(600, 2), lend(700, 3)};
    echo_response response = ECHO_RESPONSE;
    echo_inner inner = ECHO_INNER;
    echo_inner *results = &inner;
    grpc_byte_buffer *buffer;
    echo_response *got;
    struct gci_error error;

    (void)state;
    grpc_init();
    response.payload.data = (uint8_t *)lent[0].data;
    response.payload.len = 499; /* not the whole range: copied */
    inner.payload.data = (uint8_t *)lent[1].data;
    inner.payload.len = 600;
    response.n_results = 1;
    response.results = &results;
    buffer = gci_pack_lent(&response.base, lent, 3);
    assert_int_equal(released, 2); /* the first and the last are not needed */
    assert_true(buffer_holds(buffer, lent[1].data, 600));
    got = (echo_response *)gci_unpack(&grpcc__test__echo_response__descriptor, buffer, SIZE_MAX,
                                      &error);
    assert_non_null(got);
    check_bytes(&got->payload, 499, 1);
    check_bytes(&got->results[0]->payload, 600, 2);
    assert_int_equal(released, 3);
    grpcc__test__echo_response__free_unpacked(got, NULL);
    grpc_shutdown();
}

static void one_range_may_be_two_fields(void **state)
{
    struct grpc_c_lent lent = lend(900, 4);
    echo_response response = ECHO_RESPONSE;
    echo_inner inner = ECHO_INNER;
    echo_inner *results = &inner;
    grpc_byte_buffer *buffer;

    (void)state;
    grpc_init();
    response.payload.data = (uint8_t *)lent.data;
    response.payload.len = 900;
    inner.payload = response.payload;
    response.n_results = 1;
    response.results = &results;
    buffer = gci_pack_lent(&response.base, &lent, 1);
    assert_int_equal(released, 0);
    grpc_byte_buffer_destroy(buffer);
    assert_int_equal(released, 1);
    grpc_shutdown();
}

/* -- calls that end badly --------------------------------------------------------------------- */

static atomic_uint began;
static atomic_uint cancelled;

static void note_cancel(grpc_c_call *call, void *arg)
{
    struct grpc_c_lent lent = lend(100000, 9);
    echo_response response = ECHO_RESPONSE;

    (void)arg;
    response.payload.data = (uint8_t *)lent.data;
    response.payload.len = lent.length;
    grpc_c_call_reply_lent(call, &response.base, &lent, 1);
    atomic_fetch_add(&cancelled, 1);
}

static void wait_for_cancel(grpc_c_call *call, const echo_request *request)
{
    (void)request;
    grpc_c_call_on_cancel(call, note_cancel, NULL);
    atomic_fetch_add(&began, 1);
}

static void a_cancelled_call_releases(void **state)
{
    struct echo_handlers handlers = {.spread = wait_for_cancel};
    struct grpc_c_result result = {0};
    struct fixture fixture;
    echo_request request = ECHO_REQUEST;
    grpc_c_stream *stream;

    (void)state;
    atomic_store(&began, 0);
    atomic_store(&cancelled, 0);
    fixture_start(&fixture, NULL, &handlers);
    stream = grpc_c_stream_open(fixture.channel, echo_spread, &patient);
    assert_int_equal(grpc_c_stream_write(stream, &request.base), 0);
    await_count(&began, 1);
    grpc_c_stream_cancel(stream);
    grpc_c_stream_finish(stream, &result);
    assert_int_equal(result.code, GRPC_C_CANCELLED);
    grpc_c_result_fini(&result);
    await_count(&cancelled, 1);
    await_count(&released, 1);
    fixture_stop(&fixture);
    assert_int_equal(released, 1);
}

/* The client goes away in the middle of an answer that does not fit into the connection. */
static void a_broken_connection_releases(void **state)
{
    struct echo_handlers handlers = {.spread = reply_lent};
    struct fixture fixture;
    echo_request request = ECHO_REQUEST;
    grpc_c_stream *stream;

    (void)state;
    fixture_start(&fixture, NULL, &handlers);
    request.number = 30000000;
    stream = grpc_c_stream_open(fixture.channel, echo_spread, &patient);
    assert_int_equal(grpc_c_stream_write(stream, &request.base), 0);
    grpc_c_stream_cancel(stream);
    grpc_c_stream_finish(stream, NULL);
    grpc_c_channel_destroy(fixture.channel);
    fixture.channel = NULL;
    fixture_stop(&fixture);
    assert_int_equal(released, made); /* 0 where the request never arrived */
}

/* -- streams ---------------------------------------------------------------------------------- */

enum { CHATS = 50, KEPT = 8 };

/* Requests that were taken, not yet sent back. */
struct kept {
    echo_request *requests[KEPT];
    unsigned n;
};

static void release_request(void *arg)
{
    grpcc__test__echo_request__free_unpacked(arg, NULL);
    atomic_fetch_add(&released, 1);
}

/* Each with its own memory. */
static void send_kept(grpc_c_call *call, struct kept *kept)
{
    for (unsigned i = 0; i < kept->n; i++) {
        echo_request *request = kept->requests[i];
        struct grpc_c_lent lent = {request->payload.data, request->payload.len, release_request,
                                   request};
        echo_response response = ECHO_RESPONSE;
        response.number = request->number;
        response.payload = request->payload;
        grpc_c_call_write_lent(call, &response.base, &lent, 1, NULL, NULL);
    }
    kept->n = 0;
}

static void begin_keeping(grpc_c_call *call)
{
    grpc_c_call_set_data(call, calloc(1, sizeof(struct kept)), free);
    grpc_c_call_read(call);
}

static void keep_message(grpc_c_call *call, const echo_request *request)
{
    struct kept *kept = grpc_c_call_data(call);
    ProtobufCMessage *taken = grpc_c_call_take_message(call);

    insist(taken == (request == NULL ? NULL : &request->base));
    insist(grpc_c_call_take_message(call) == NULL);
    if (taken != NULL) {
        kept->requests[kept->n++] = (echo_request *)taken;
        atomic_fetch_add(&made, 1);
    }
    if (kept->n == KEPT || taken == NULL) {
        send_kept(call, kept);
    }
    if (taken == NULL) {
        grpc_c_call_finish(call, &(struct grpc_c_status){.code = GRPC_C_OK});
    } else {
        grpc_c_call_read(call);
    }
}

static size_t chat_size(uint32_t i)
{
    return i * 997 % 70000 + 1;
}

static size_t encoded_size(uint32_t i)
{
    return (size_t)i * 997;
}

/* Packed by the handler itself, and sent from there; among them one of no bytes at all. */
static void spread_encoded(grpc_c_call *call, const echo_request *request)
{
    for (uint32_t i = 0; i < request->number; i++) {
        echo_response response = ECHO_RESPONSE;
        struct grpc_c_lent lent;
        struct block *block = malloc(sizeof(*block));
        uint8_t bytes[70000];
        for (size_t k = 0; k < encoded_size(i); k++) {
            bytes[k] = byte_at(k, i);
        }
        response.number = i;
        response.payload = (ProtobufCBinaryData){encoded_size(i), bytes};
        block->n = grpcc__test__echo_response__get_packed_size(&response);
        block->bytes = malloc(block->n + 1);
        (void)grpcc__test__echo_response__pack(&response, block->bytes);
        atomic_fetch_add(&made, 1);
        lent = (struct grpc_c_lent){block->bytes, block->n, release_block, block};
        insist(grpc_c_call_write_encoded(call, &lent, NULL, NULL));
    }
    grpc_c_call_finish(call, &(struct grpc_c_status){.code = GRPC_C_OK});
}

/* All that were made arrive, and are released. */
static void finish_with_answers(struct fixture *fixture, grpc_c_stream *stream,
                                size_t (*size)(uint32_t number))
{
    for (uint32_t i = 0; i < CHATS; i++) {
        echo_response *response = (echo_response *)grpc_c_stream_read(stream);
        assert_non_null(response);
        assert_int_equal(response->number, i);
        check_bytes(&response->payload, size(i), i);
        grpcc__test__echo_response__free_unpacked(response, NULL);
    }
    assert_null(grpc_c_stream_read(stream));
    grpc_c_stream_finish(stream, NULL);
    fixture_stop(fixture);
    assert_int_equal(made, CHATS);
    assert_int_equal(released, CHATS);
}

static void encoded_messages_arrive_as_they_are(void **state)
{
    struct echo_handlers handlers = {.spread = spread_encoded};
    echo_request request = ECHO_REQUEST;
    struct fixture fixture;
    grpc_c_stream *stream;

    (void)state;
    fixture_start(&fixture, NULL, &handlers);
    request.number = CHATS;
    stream = grpc_c_stream_open(fixture.channel, echo_spread, &patient);
    assert_int_equal(grpc_c_stream_write(stream, &request.base), 0);
    finish_with_answers(&fixture, stream, encoded_size);
}

/* What is written to a call that is finished is released, and refused. */
static void write_too_late(grpc_c_call *call, const echo_request *request)
{
    struct grpc_c_lent lent = lend(100, 1);

    (void)request;
    grpc_c_call_finish(call, &(struct grpc_c_status){.code = GRPC_C_OK});
    insist(!grpc_c_call_write_encoded(call, &lent, NULL, NULL));
}

static void an_encoded_message_that_comes_too_late_is_released(void **state)
{
    struct echo_handlers handlers = {.spread = write_too_late};
    echo_request request = ECHO_REQUEST;
    struct fixture fixture;
    grpc_c_stream *stream;

    (void)state;
    fixture_start(&fixture, NULL, &handlers);
    stream = grpc_c_stream_open(fixture.channel, echo_spread, &patient);
    assert_int_equal(grpc_c_stream_write(stream, &request.base), 0);
    assert_null(grpc_c_stream_read(stream));
    grpc_c_stream_finish(stream, NULL);
    await_count(&released, 1);
    fixture_stop(&fixture);
    assert_int_equal(released, 1);
}

static void taken_messages_last_and_are_lent_back(void **state)
{
    struct echo_handlers handlers = {.chat = begin_keeping, .chat_message = keep_message};
    struct fixture fixture;
    grpc_c_stream *stream;

    (void)state;
    fixture_start(&fixture, NULL, &handlers);
    stream = grpc_c_stream_open(fixture.channel, echo_chat, &patient);
    for (uint32_t i = 0; i < CHATS; i++) {
        uint8_t *bytes = malloc(chat_size(i));
        echo_request request = ECHO_REQUEST;
        for (size_t k = 0; k < chat_size(i); k++) {
            bytes[k] = byte_at(k, i);
        }
        request.number = i;
        request.payload = (ProtobufCBinaryData){chat_size(i), bytes};
        assert_int_equal(grpc_c_stream_write(stream, &request.base), 0);
        free(bytes);
    }
    assert_int_equal(grpc_c_stream_writes_done(stream), 0);
    finish_with_answers(&fixture, stream, chat_size);
}

/* -- a client's request ----------------------------------------------------------------------- */

static atomic_uint ends;

static void take_answer(ProtobufCMessage *response, const struct grpc_c_result *result,
                        void (*done)(void), void *arg)
{
    (void)result;
    (void)done;
    insist(((echo_response *)response)->payload.len == *(size_t *)arg);
    protobuf_c_message_free_unpacked(response, NULL);
    atomic_fetch_add(&ends, 1);
}

static void take_end(grpc_c_async_stream *stream, const struct grpc_c_result *result, void *arg)
{
    (void)stream;
    (void)arg;
    insist(result->code == GRPC_C_OK);
    atomic_fetch_add(&ends, 1);
}

static void take_none(grpc_c_async_stream *stream, ProtobufCMessage *message,
                      const struct grpc_c_result *result, void (*typed)(void), void *arg)
{
    (void)stream;
    (void)message;
    (void)result;
    (void)typed;
    (void)arg;
    insist(false);
}

static void no_type(void)
{
}

static void a_client_lends_what_it_sends(void **state)
{
    static const struct grpc_c_stream_events events = {
        .on_done = take_end, .arrived = take_none, .typed = no_type};
    static size_t sizes[] = {0, 1, 1000, 70000};
    struct grpc_c_result result = {0};
    struct fixture fixture;

    (void)state;
    atomic_store(&ends, 0);
    fixture_start(&fixture, NULL, NULL);
    for (size_t i = 0; i < 4; i++) {
        struct grpc_c_lent lent[3] = {lend(sizes[i], i), lend(sizes[i], i), lend(sizes[i], i)};
        struct grpc_c_call_options lending = {.timeout_ms = PATIENCE_MS, .n_lent = 1};
        echo_request request = ECHO_REQUEST;
        echo_response *response;

        request.payload.len = sizes[i];
        request.payload.data = (uint8_t *)lent[0].data;
        lending.lent = &lent[0];
        response = (echo_response *)grpc_c_unary(fixture.channel, echo_unary, &request.base,
                                                 &lending, &result);
        assert_non_null(response);
        check_bytes(&response->payload, sizes[i], i);
        grpcc__test__echo_response__free_unpacked(response, NULL);
        grpc_c_result_fini(&result);
        request.payload.data = (uint8_t *)lent[1].data;
        lending.lent = &lent[1];
        assert_int_equal(grpc_c_unary_async(fixture.channel, echo_unary, &request.base, &lending,
                                            take_answer, no_type, &sizes[i], NULL),
                         0);
        request.payload.data = (uint8_t *)lent[2].data;
        lending.lent = &lent[2];
        grpc_c_async_release(grpc_c_stream_async(fixture.channel, echo_spread, &request.base,
                                                 &lending, &events, NULL));
    }
    await_count(&ends, 8);
    fixture_stop(&fixture);
    assert_int_equal(made, 12);
    assert_int_equal(released, 12);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup(lent_bytes_arrive_and_are_released, fresh),
        cmocka_unit_test_setup(nested_fields_are_lent_too, fresh),
        cmocka_unit_test_setup(lent_ranges_are_not_copied, fresh),
        cmocka_unit_test_setup(one_range_may_be_two_fields, fresh),
        cmocka_unit_test_setup(a_cancelled_call_releases, fresh),
        cmocka_unit_test_setup(a_broken_connection_releases, fresh),
        cmocka_unit_test_setup(encoded_messages_arrive_as_they_are, fresh),
        cmocka_unit_test_setup(an_encoded_message_that_comes_too_late_is_released, fresh),
        cmocka_unit_test_setup(taken_messages_last_and_are_lent_back, fresh),
        cmocka_unit_test_setup(a_client_lends_what_it_sends, fresh),
    };

    return cmocka_run_group_tests_name("grpc_c_lent", tests, NULL, NULL);
}
