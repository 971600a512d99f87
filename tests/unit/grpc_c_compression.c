/* Compressed messages: who sends them, who takes them, and how far they may inflate. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <grpc/byte_buffer.h>
#include <grpc/grpc.h>
#include <grpc/slice.h>

#include <zlib.h>

#include "codec.h"
#include "grpc_c_fixture.h"

#define MIB ((size_t)1 << 20)

static const enum grpc_c_compression both[] = {GRPC_C_GZIP, GRPC_C_DEFLATE};

/* A payload that gets much smaller; of `MIB` times 64 at most. */
static uint8_t zeros[64 << 20];

/* -- a server that tells what came and answers as it is told ---------------------------------- */

/*
 * `text` "gzip", "deflate": how the answer is compressed; "plain": not, though the call is. The
 * answer's number says whether the request came compressed.
 */
static void set_compression(grpc_c_call *call, const char *text)
{
    if (strcmp(text, "gzip") == 0) {
        grpc_c_call_set_compression(call, GRPC_C_GZIP);
    } else if (strcmp(text, "deflate") == 0) {
        grpc_c_call_set_compression(call, GRPC_C_DEFLATE);
    }
    grpc_c_call_skip_compression(call, strcmp(text, "plain") == 0);
}

static echo_response tell(grpc_c_call *call, const echo_request *request)
{
    echo_response response = ECHO_RESPONSE;

    set_compression(call, request->text);
    response.number = grpc_c_call_message_compressed(call);
    response.payload.data = zeros;
    response.payload.len = request->number;
    return response;
}

static void unary_tells(grpc_c_call *call, const echo_request *request)
{
    echo_response response = tell(call, request);

    for (size_t i = 0; i < request->payload.len; i++) {
        insist(request->payload.data[i] == 0);
    }
    grpc_c_call_reply(call, &response.base);
}

static void read_again(grpc_c_call *call, void *arg)
{
    (void)arg;
    grpc_c_call_read(call);
}

static void chat_begins(grpc_c_call *call)
{
    grpc_c_call_read(call);
}

static void chat_tells(grpc_c_call *call, const echo_request *request)
{
    struct grpc_c_status ok = {.code = GRPC_C_OK};
    echo_response response;

    if (request == NULL) {
        grpc_c_call_finish(call, &ok);
        return;
    }
    response = tell(call, request);
    grpc_c_call_write(call, &response.base, read_again, NULL);
}

static const struct echo_handlers telling = {
    .unary = unary_tells, .chat = chat_begins, .chat_message = chat_tells};

/* -- unary calls ------------------------------------------------------------------------------ */

struct outcome {
    enum grpc_c_code code;
    bool request_compressed;
    bool response_compressed;
    char message[200];
};

/* Sends `sent` zero bytes, asks for `wanted` and for `answer` in the answer. */
static struct outcome call_with(grpc_c_channel *channel, enum grpc_c_compression compression,
                                size_t sent, const char *answer, size_t wanted)
{
    struct grpc_c_call_options options = {.timeout_ms = PATIENCE_MS, .compression = compression};
    struct grpc_c_result result = {0};
    struct outcome outcome = {0};
    echo_request request = ECHO_REQUEST;
    echo_response *response;

    request.text = (char *)answer;
    request.payload.data = zeros;
    request.payload.len = sent;
    request.number = (uint32_t)wanted;
    response = (echo_response *)grpc_c_unary(channel, echo_unary, &request.base, &options, &result);
    outcome.code = result.code;
    outcome.response_compressed = result.compressed;
    (void)snprintf(outcome.message, sizeof(outcome.message), "%s", result.message);
    if (response != NULL) {
        assert_int_equal(response->payload.len, wanted);
        outcome.request_compressed = response->number != 0;
        grpcc__test__echo_response__free_unpacked(response, NULL);
    }
    grpc_c_result_fini(&result);
    return outcome;
}

static void nothing_is_compressed_unasked(void **state)
{
    struct fixture fixture;
    struct outcome got;

    (void)state;
    fixture_start(&fixture, NULL, &telling);
    got = call_with(fixture.channel, GRPC_C_IDENTITY, 10000, "", 10000);
    assert_int_equal(got.code, GRPC_C_OK);
    assert_false(got.request_compressed);
    assert_false(got.response_compressed);
    fixture_stop(&fixture);
}

static void requests_are_compressed(void **state)
{
    struct fixture fixture;

    (void)state;
    fixture_start(&fixture, NULL, &telling);
    for (size_t i = 0; i < 2; i++) {
        struct outcome got = call_with(fixture.channel, both[i], 3 * MIB, "", 10000);
        assert_int_equal(got.code, GRPC_C_OK);
        assert_true(got.request_compressed);
        assert_false(got.response_compressed);
        got = call_with(fixture.channel, both[i], 0, "", 0); /* would get larger */
        assert_int_equal(got.code, GRPC_C_OK);
        assert_false(got.request_compressed);
    }
    fixture_stop(&fixture);
}

static void answers_are_compressed(void **state)
{
    static const char *const names[] = {"gzip", "deflate"};
    struct fixture fixture;

    (void)state;
    fixture_start(&fixture, NULL, &telling);
    for (size_t i = 0; i < 2; i++) {
        struct outcome got = call_with(fixture.channel, GRPC_C_IDENTITY, 10000, names[i], 3 * MIB);
        assert_int_equal(got.code, GRPC_C_OK);
        assert_false(got.request_compressed);
        assert_true(got.response_compressed);
    }
    fixture_stop(&fixture);
}

static void a_server_may_compress_all_its_answers(void **state)
{
    struct grpc_c_server_options options = {.compression = GRPC_C_DEFLATE};
    struct fixture fixture;

    (void)state;
    fixture_start(&fixture, &options, &telling);
    assert_true(call_with(fixture.channel, GRPC_C_IDENTITY, 0, "", 10000).response_compressed);
    assert_false(
        call_with(fixture.channel, GRPC_C_IDENTITY, 0, "plain", 10000).response_compressed);
    fixture_stop(&fixture);
}

/* -- streams ---------------------------------------------------------------------------------- */

static void each_message_of_a_stream_goes_as_it_is_told(void **state)
{
    struct grpc_c_call_options options = {.timeout_ms = PATIENCE_MS, .compression = GRPC_C_GZIP};
    struct fixture fixture;
    grpc_c_stream *stream;

    (void)state;
    fixture_start(&fixture, NULL, &telling);
    stream = grpc_c_stream_open(fixture.channel, echo_chat, &options);
    for (unsigned i = 0; i < 8; i++) {
        bool plain_request = (i & 1) != 0;
        bool plain_answer = (i & 2) != 0;
        echo_request request = ECHO_REQUEST;
        echo_response *response;
        request.text = plain_answer ? "plain" : "gzip"; /* the first message says gzip */
        request.number = 5000;
        request.payload.data = zeros;
        request.payload.len = 5000;
        grpc_c_stream_skip_compression(stream, plain_request);
        assert_int_equal(grpc_c_stream_write(stream, &request.base), 0);
        response = (echo_response *)grpc_c_stream_read(stream);
        assert_non_null(response);
        assert_int_equal(response->payload.len, 5000);
        assert_int_equal(response->number, !plain_request);
        assert_int_equal(grpc_c_stream_message_compressed(stream), !plain_answer);
        grpcc__test__echo_response__free_unpacked(response, NULL);
    }
    grpc_c_stream_finish(stream, NULL);
    fixture_stop(&fixture);
}

/* -- bounds ----------------------------------------------------------------------------------- */

static void a_bomb_is_not_inflated(void **state)
{
    struct fixture fixture;

    (void)state;
    fixture_start(&fixture, NULL, &telling); /* 4 MiB */
    for (size_t i = 0; i < 2; i++) {
        struct outcome got = call_with(fixture.channel, both[i], sizeof(zeros), "", 0);
        assert_int_equal(got.code, GRPC_C_RESOURCE_EXHAUSTED);
        assert_non_null(strstr(got.message, "inflates to more than the limit of 4194304 bytes"));
    }
    assert_int_equal(call_with(fixture.channel, GRPC_C_GZIP, MIB, "", 0).code, GRPC_C_OK);
    fixture_stop(&fixture);
}

static void a_client_does_not_inflate_one_either(void **state)
{
    struct fixture fixture;
    struct outcome got;

    (void)state;
    fixture_start(&fixture, NULL, &telling);
    got = call_with(fixture.channel, GRPC_C_IDENTITY, 0, "gzip", sizeof(zeros));
    assert_int_equal(got.code, GRPC_C_RESOURCE_EXHAUSTED);
    assert_non_null(strstr(got.message, "limit of 4194304 bytes"));
    fixture_stop(&fixture);
}

#define HELD_MAX 8

static grpc_c_call *_Atomic held[HELD_MAX];
static atomic_uint n_held;

static void hold(grpc_c_call *call, const echo_request *request)
{
    echo_response response = ECHO_RESPONSE;

    if (request->number == 0) {
        grpc_c_call_reply(call, &response.base);
        return;
    }
    atomic_store(&held[atomic_load(&n_held)], call);
    atomic_fetch_add(&n_held, 1);
}

static grpc_c_stream *send_held(const struct fixture *fixture)
{
    struct grpc_c_call_options options = {.timeout_ms = PATIENCE_MS, .compression = GRPC_C_GZIP};
    grpc_c_stream *stream = grpc_c_stream_open(fixture->channel, echo_unary, &options);
    echo_request request = ECHO_REQUEST;

    request.number = 1;
    request.payload.data = zeros;
    request.payload.len = 3 * MIB;
    assert_int_equal(grpc_c_stream_write(stream, &request.base), 0);
    assert_int_equal(grpc_c_stream_writes_done(stream), 0);
    return stream;
}

/* A call is gone a moment after its client has the status. */
static void await_room(grpc_c_channel *channel)
{
    int64_t until = now_ms() + PATIENCE_MS;

    while (call_with(channel, GRPC_C_GZIP, 3 * MIB, "", 0).code != GRPC_C_OK) {
        assert_true(now_ms() < until);
    }
}

static void what_all_calls_inflate_is_bounded(void **state)
{
    struct grpc_c_server_options options = {.pollers = 1, .memory_quota_bytes = 7 * MIB};
    struct echo_handlers handlers = {.unary = hold};
    struct fixture fixture;
    grpc_c_stream *streams[2];
    struct outcome got;

    (void)state;
    atomic_store(&n_held, 0);
    fixture_start(&fixture, &options, &handlers);
    for (unsigned i = 0; i < 2; i++) {
        streams[i] = send_held(&fixture);
        await_count(&n_held, i + 1);
    }
    got = call_with(fixture.channel, GRPC_C_GZIP, 3 * MIB, "", 0);
    assert_int_equal(got.code, GRPC_C_RESOURCE_EXHAUSTED);
    assert_non_null(strstr(got.message, "too many bytes of compressed messages"));
    for (unsigned i = 0; i < 2; i++) {
        echo_response response = ECHO_RESPONSE;
        grpc_c_call_reply(atomic_load(&held[i]), &response.base);
        grpc_c_stream_finish(streams[i], NULL);
    }
    for (int i = 0; i < 10; i++) { /* all of it comes back, each time */
        await_room(fixture.channel);
    }
    fixture_stop(&fixture);
}

/* -- the inflating itself --------------------------------------------------------------------- */

static uint8_t packed[4096];

/* Compresses `length` zeros into `packed`. */
static size_t pack(enum grpc_c_compression compression, size_t length)
{
    z_stream z = {.next_in = zeros,
                  .avail_in = (uInt)length,
                  .next_out = packed,
                  .avail_out = sizeof(packed)};

    assert_int_equal(deflateInit2(&z, 9, Z_DEFLATED, compression == GRPC_C_GZIP ? 31 : 15, 8,
                                  Z_DEFAULT_STRATEGY),
                     Z_OK);
    assert_int_equal(deflate(&z, Z_FINISH), Z_STREAM_END);
    (void)deflateEnd(&z);
    return z.total_out;
}

/* Of `packed`'s first bytes, cut into pieces. */
static grpc_byte_buffer *in_pieces(enum grpc_c_compression compression, size_t length, size_t piece)
{
    grpc_slice slices[sizeof(packed)];
    grpc_byte_buffer *buffer;
    size_t n = 0;

    for (size_t at = 0; at < length; at += piece) {
        slices[n++] = grpc_slice_from_copied_buffer((const char *)packed + at,
                                                    at + piece < length ? piece : length - at);
    }
    buffer = grpc_raw_compressed_byte_buffer_create(
        slices, n, compression == GRPC_C_GZIP ? GRPC_COMPRESS_GZIP : GRPC_COMPRESS_DEFLATE);
    while (n > 0) {
        grpc_slice_unref(slices[--n]);
    }
    return buffer;
}

/* The code of inflating the first `length` bytes; `wanted` bytes must come out. */
static enum grpc_c_code inflated(enum grpc_c_compression compression, size_t length, size_t piece,
                                 size_t max, size_t wanted)
{
    struct gci_error error = {.code = GRPC_C_OK};
    grpc_byte_buffer *plain = gci_inflate(in_pieces(compression, length, piece), max, &error);

    if (plain == NULL) {
        assert_int_not_equal(error.code, GRPC_C_OK);
        return error.code;
    }
    assert_false(gci_is_compressed(plain));
    assert_int_equal(grpc_byte_buffer_length(plain), wanted);
    grpc_byte_buffer_destroy(plain);
    return GRPC_C_OK;
}

static void the_bound_is_exact(void **state)
{
    static const size_t sizes[] = {0, 1, 255, 256, 257, 1000, 100000, 2000000};

    (void)state;
    for (size_t i = 0; i < 2; i++) {
        for (size_t s = 0; s < sizeof(sizes) / sizeof(sizes[0]); s++) {
            size_t length = pack(both[i], sizes[s]);
            for (size_t piece = 1; piece <= length; piece = piece * 5 + 1) {
                assert_int_equal(inflated(both[i], length, piece, sizes[s], sizes[s]), GRPC_C_OK);
                assert_int_equal(inflated(both[i], length, piece, 4 * MIB, sizes[s]), GRPC_C_OK);
                if (sizes[s] > 0) {
                    assert_int_equal(inflated(both[i], length, piece, sizes[s] - 1, 0),
                                     GRPC_C_RESOURCE_EXHAUSTED);
                }
            }
        }
    }
}

static void malformed_data_is_refused(void **state)
{
    (void)state;
    for (size_t i = 0; i < 2; i++) {
        size_t length = pack(both[i], 5000);
        for (size_t cut = 0; cut < length; cut++) { /* cut short */
            assert_int_equal(inflated(both[i], cut, 7, MIB, 0), GRPC_C_INTERNAL);
        }
        packed[length] = 0; /* a tail */
        assert_int_equal(inflated(both[i], length + 1, 7, MIB, 0), GRPC_C_INTERNAL);
        assert_int_equal(inflated(both[i], length + 1, length, MIB, 0), GRPC_C_INTERNAL);
        packed[length - 1] ^= 1; /* of the checksum, or the length */
        assert_int_equal(inflated(both[i], length, length, MIB, 0), GRPC_C_INTERNAL);
        (void)pack(both[i], 5000);
        assert_int_equal(inflated(both[1 - i], length, length, MIB, 0), GRPC_C_INTERNAL);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(nothing_is_compressed_unasked),
        cmocka_unit_test(requests_are_compressed),
        cmocka_unit_test(answers_are_compressed),
        cmocka_unit_test(a_server_may_compress_all_its_answers),
        cmocka_unit_test(each_message_of_a_stream_goes_as_it_is_told),
        cmocka_unit_test(a_bomb_is_not_inflated),
        cmocka_unit_test(a_client_does_not_inflate_one_either),
        cmocka_unit_test(what_all_calls_inflate_is_bounded),
        cmocka_unit_test(the_bound_is_exact),
        cmocka_unit_test(malformed_data_is_refused),
    };

    return cmocka_run_group_tests_name("grpc_c_compression", tests, NULL, NULL);
}
