/* Bytes fields that are left where they were received. */
#include <string.h>

#include <grpc/byte_buffer.h>
#include <grpc/slice.h>

#include "codec.h"
#include "grpc_c_fixture.h"

#define PAYLOAD 2u /* of EchoRequest */
#define NAMES   5u /* of Loose */

static atomic_uint handled;
static atomic_uint pieces_seen;
static _Atomic(grpc_c_received *) taken;

static int fresh(void **state)
{
    (void)state;
    atomic_store(&handled, 0);
    atomic_store(&pieces_seen, 0);
    atomic_store(&taken, NULL);
    return 0;
}

static uint8_t pattern(size_t i)
{
    return (uint8_t)(i * 31 + i / 4093);
}

static uint8_t *make_payload(size_t length)
{
    uint8_t *data = malloc(length);

    for (size_t i = 0; data != NULL && i < length; i++) {
        data[i] = pattern(i);
    }
    return data;
}

static bool holds_pattern(const struct grpc_c_bytes *bytes, size_t length)
{
    size_t at = 0;

    for (size_t i = 0; i < bytes->n_pieces; i++) {
        const uint8_t *data = bytes->pieces[i].iov_base;
        insist(bytes->pieces[i].iov_len > 0);
        for (size_t j = 0; j < bytes->pieces[i].iov_len; j++, at++) {
            if (data[j] != pattern(at)) {
                return false;
            }
        }
    }
    return at == length && bytes->length == length;
}

/* -- through a server ---------------------------------------------------------------------------
 */

/* A fixture whose two methods have the payload left where it came. */
static void start_sliced(struct fixture *fixture, const struct grpc_c_server_options *options,
                         const struct echo_handlers *handlers)
{
    char error[256] = "";

    fixture->server = grpc_c_server_create(options);
    assert_int_equal(grpc_c_server_add_service(fixture->server, &echo_service, handlers), 0);
    assert_int_equal(grpc_c_server_slice_field(fixture->server, echo_unary->path, PAYLOAD), 0);
    assert_int_equal(grpc_c_server_slice_field(fixture->server, echo_collect->path, PAYLOAD), 0);
    assert_int_equal(grpc_c_server_slice_field(fixture->server, "/no/method", PAYLOAD), -1);
    assert_int_equal(grpc_c_server_slice_field(fixture->server, echo_unary->path, 1), -1);
    assert_int_equal(grpc_c_server_slice_field(fixture->server, echo_unary->path, 99), -1);
    assert_int_equal(
        grpc_c_server_listen(fixture->server, "127.0.0.1:0", &fixture->port, error, sizeof(error)),
        0);
    assert_int_equal(grpc_c_server_start(fixture->server), 0);
    assert_int_equal(grpc_c_server_slice_field(fixture->server, echo_unary->path, PAYLOAD), -1);
    fixture->channel = fixture_connect(fixture);
}

/* `number` says how long the payload is. */
static void check_payload(grpc_c_call *call, const echo_request *request)
{
    echo_response response = ECHO_RESPONSE;
    struct grpc_c_bytes bytes;

    insist(request->payload.len == 0);
    insist(strcmp(request->text, "beside it") == 0);
    if (request->number == 0) {
        insist(!grpc_c_call_bytes(call, 0, &bytes));
    } else {
        insist(grpc_c_call_bytes(call, 0, &bytes));
        insist(holds_pattern(&bytes, request->number));
        atomic_store(&pieces_seen, (unsigned)bytes.n_pieces);
    }
    insist(!grpc_c_call_bytes(call, 1, &bytes));
    atomic_fetch_add(&handled, 1);
    response.number = request->number;
    insist(grpc_c_call_reply(call, &response.base));
}

static void send_payload(const struct fixture *fixture, size_t length,
                         enum grpc_c_compression compression)
{
    struct grpc_c_call_options options = {.timeout_ms = PATIENCE_MS, .compression = compression};
    struct grpc_c_result result = {0};
    echo_request request = ECHO_REQUEST;
    ProtobufCMessage *response;

    request.text = "beside it";
    request.number = (uint32_t)length;
    request.payload.data = make_payload(length);
    request.payload.len = length;
    response = grpc_c_unary(fixture->channel, echo_unary, &request.base, &options, &result);
    if (response == NULL) {
        fail_msg("%s", result.message);
    }
    free(request.payload.data);
    protobuf_c_message_free_unpacked(response, NULL);
    grpc_c_result_fini(&result);
}

static void a_payload_is_found_in_pieces(void **state)
{
    struct grpc_c_server_options options = {.max_receive_bytes = 80u << 20};
    struct echo_handlers handlers = {.unary = check_payload};
    struct fixture fixture;

    (void)state;
    start_sliced(&fixture, &options, &handlers);
    send_payload(&fixture, 0, GRPC_C_IDENTITY);
    send_payload(&fixture, 1, GRPC_C_IDENTITY);
    assert_int_equal(pieces_seen, 1);
    send_payload(&fixture, 3 << 20, GRPC_C_IDENTITY);
    assert_true(pieces_seen > 1);
    send_payload(&fixture, 64 << 20, GRPC_C_IDENTITY);
    assert_true(pieces_seen > 100); /* nobody has put them together */
    assert_int_equal(handled, 4);
    fixture_stop(&fixture);
}

static void a_compressed_payload_is_one_piece(void **state)
{
    struct echo_handlers handlers = {.unary = check_payload};
    struct fixture fixture;

    (void)state;
    start_sliced(&fixture, NULL, &handlers);
    send_payload(&fixture, 3 << 20, GRPC_C_GZIP);
    assert_int_equal(pieces_seen, 1);
    fixture_stop(&fixture);
}

static void a_malformed_message_does_not_reach_its_handler(void **state)
{
    struct echo_handlers handlers = {.unary = check_payload};
    struct grpc_c_method method = loosely(echo_unary);
    struct fixture fixture;
    echo_loose loose = ECHO_LOOSE;

    (void)state;
    start_sliced(&fixture, NULL, &handlers);
    loose.payload.data = (uint8_t *)"payload";
    loose.payload.len = 7;
    loose.text.data = (uint8_t *)"a\xffz";
    loose.text.len = 3;
    echo_fails(fixture.channel, &method, &loose, GRPC_C_INVALID_ARGUMENT,
               "grpcc.test.EchoRequest.text: not valid UTF-8");
    loose.text.len = 1;
    loose.inner.data = (uint8_t *)"\x0a\x7f";
    loose.inner.len = 2;
    echo_fails(fixture.channel, &method, &loose, GRPC_C_INVALID_ARGUMENT,
               "grpcc.test.Inner: malformed message");
    assert_int_equal(handled, 0);
    fixture_stop(&fixture);
}

static void take_payload(grpc_c_call *call, const echo_request *request)
{
    echo_response response = ECHO_RESPONSE;
    struct grpc_c_bytes bytes;

    (void)request;
    atomic_store(&taken, grpc_c_call_take_bytes(call));
    insist(grpc_c_call_take_bytes(call) == NULL);
    insist(!grpc_c_call_bytes(call, 0, &bytes));
    insist(grpc_c_call_reply(call, &response.base));
}

static void taken_bytes_outlive_their_call_and_server(void **state)
{
    struct echo_handlers handlers = {.unary = take_payload};
    struct fixture fixture;
    struct grpc_c_bytes bytes;

    (void)state;
    start_sliced(&fixture, NULL, &handlers);
    send_payload(&fixture, 3 << 20, GRPC_C_IDENTITY);
    fixture_stop(&fixture);
    assert_true(grpc_c_received_bytes(atomic_load(&taken), 0, &bytes));
    assert_true(holds_pattern(&bytes, 3 << 20));
    grpc_c_received_release(atomic_load(&taken));
    grpc_c_received_release(NULL);
    assert_false(grpc_c_received_bytes(NULL, 0, &bytes));
}

static void collect_open(grpc_c_call *call)
{
    insist(grpc_c_call_read(call));
}

static void collect_message(grpc_c_call *call, const echo_request *request)
{
    echo_response response = ECHO_RESPONSE;
    struct grpc_c_bytes bytes;

    if (request == NULL) {
        insist(!grpc_c_call_bytes(call, 0, &bytes));
        response.number = atomic_load(&handled);
        insist(grpc_c_call_reply(call, &response.base));
        return;
    }
    insist(grpc_c_call_bytes(call, 0, &bytes));
    insist(holds_pattern(&bytes, request->number));
    atomic_fetch_add(&handled, 1);
    insist(grpc_c_call_read(call));
    insist(!grpc_c_call_bytes(call, 0, &bytes)); /* it went with the message */
}

static void a_streams_messages_are_left_where_they_came(void **state)
{
    struct echo_handlers handlers = {.collect = collect_open, .collect_message = collect_message};
    struct grpc_c_call_options patient = {.timeout_ms = PATIENCE_MS};
    struct grpc_c_result result = {0};
    struct fixture fixture;
    echo_request request = ECHO_REQUEST;
    grpc_c_stream *stream;

    (void)state;
    start_sliced(&fixture, NULL, &handlers);
    request.payload.data = make_payload(100000);
    stream = grpc_c_stream_open(fixture.channel, echo_collect, &patient);
    for (uint32_t length = 1; length <= 100000; length *= 10) {
        request.payload.len = length;
        request.number = length;
        assert_int_equal(grpc_c_stream_write(stream, &request.base), 0);
    }
    grpc_c_stream_finish(stream, &result);
    assert_int_equal(result.code, GRPC_C_OK);
    assert_int_equal(handled, 6);
    grpc_c_result_fini(&result);
    free(request.payload.data);
    fixture_stop(&fixture);
}

/* -- the cut alone ------------------------------------------------------------------------------
 */

/* The bytes in slices of about `mean` bytes. */
static grpc_byte_buffer *in_slices(const uint8_t *bytes, size_t length, size_t mean, unsigned seed)
{
    grpc_slice *slices = calloc(2 * length / mean + 2, sizeof(*slices));
    grpc_byte_buffer *buffer;
    size_t n = 0;

    for (size_t at = 0; at < length;) {
        size_t size = mean == 1 ? 1 : mean / 2 + (seed = seed * 1103515245 + 12345) / 65536 % mean;
        size = size < length - at ? size : length - at;
        slices[n++] = grpc_slice_from_copied_buffer((const char *)bytes + at, size);
        at += size;
    }
    buffer = grpc_raw_byte_buffer_create(slices, n);
    while (n > 0) {
        grpc_slice_unref(slices[--n]);
    }
    free(slices);
    return buffer;
}

static const ProtobufCFieldDescriptor *loose_names(void)
{
    return protobuf_c_message_descriptor_get_field(&grpcc__test__loose__descriptor, NAMES);
}

/* A Loose with `n` names of `length` bytes, in its wire form. */
static uint8_t *pack_names(size_t n, size_t length, size_t *packed)
{
    echo_loose loose = ECHO_LOOSE;
    ProtobufCBinaryData *names = calloc(n, sizeof(*names));
    uint8_t *payload = make_payload(length);
    uint8_t *wire;

    for (size_t i = 0; i < n; i++) {
        names[i] = (ProtobufCBinaryData){length - i % 2, payload};
    }
    loose.names = names;
    loose.n_names = n;
    loose.text = (ProtobufCBinaryData){4, (uint8_t *)"text"};
    *packed = protobuf_c_message_get_packed_size(&loose.base);
    wire = malloc(*packed);
    (void)protobuf_c_message_pack(&loose.base, wire);
    free(payload);
    free(names);
    return wire;
}

static void check_names(grpc_byte_buffer *buffer, size_t n, size_t length, size_t pieces_most)
{
    struct gci_error error;
    grpc_c_received *received;
    struct grpc_c_bytes bytes;
    echo_loose *loose = (echo_loose *)gci_unpack_around(
        &grpcc__test__loose__descriptor, loose_names(), buffer, 1 << 20, &received, &error);

    assert_non_null(loose);
    assert_int_equal(loose->n_names, 0);
    assert_int_equal(loose->text.len, 4);
    for (size_t i = 0; i < n; i++) {
        assert_true(grpc_c_received_bytes(received, i, &bytes));
        assert_true(holds_pattern(&bytes, length - i % 2));
        assert_in_range(bytes.n_pieces, 1, pieces_most);
    }
    assert_false(grpc_c_received_bytes(received, n, &bytes));
    grpc_c_received_release(received);
    protobuf_c_message_free_unpacked(&loose->base, NULL);
}

static void a_message_in_eleven_hundred_slices_is_read(void **state)
{
    size_t packed;
    uint8_t *wire = pack_names(40, 30000, &packed);
    grpc_byte_buffer *buffer = in_slices(wire, packed, packed / 1100, 1);

    (void)state;
    assert_true(buffer->data.raw.slice_buffer.count >= 1000);
    check_names(buffer, 40, 30000, 100);
    free(wire);
}

static void a_message_in_single_bytes_is_put_together(void **state)
{
    size_t packed;
    uint8_t *wire = pack_names(5, 3000, &packed);

    (void)state;
    check_names(in_slices(wire, packed, 1, 1), 5, 3000, 1);
    free(wire);
}

/* What a peer can have us list is bounded, as what it can have us copy is. */
static void values_beyond_the_budget_are_refused(void **state)
{
    enum { VALUES = 100000, LITTLE = 32 * VALUES, ENOUGH = 64 * VALUES };
    static uint8_t wire[2 * VALUES];
    struct gci_error error;
    grpc_c_received *received;
    ProtobufCMessage *message;

    (void)state;
    for (size_t i = 0; i < VALUES; i++) {
        wire[2 * i] = NAMES << 3 | 2; /* an empty one */
    }
    assert_null(gci_unpack_around(&grpcc__test__loose__descriptor, loose_names(),
                                  in_slices(wire, sizeof(wire), sizeof(wire), 1), LITTLE, &received,
                                  &error));
    assert_int_equal(error.code, GRPC_C_RESOURCE_EXHAUSTED);
    assert_string_equal(error.text,
                        "grpcc.test.Loose: 200000 bytes on the wire take too much memory");
    message = gci_unpack_around(&grpcc__test__loose__descriptor, loose_names(),
                                in_slices(wire, sizeof(wire), sizeof(wire), 1), ENOUGH, &received,
                                &error);
    assert_non_null(message);
    grpc_c_received_release(received);
    protobuf_c_message_free_unpacked(message, NULL);
}

static void of_a_field_sent_twice_the_last_counts(void **state)
{
    static const uint8_t wire[] = {0x12, 2, 'a', 'b', 0x0a, 1, 't', 0x12, 1, 'c'};
    const ProtobufCMessageDescriptor *type = &grpcc__test__echo_request__descriptor;
    struct gci_error error;
    grpc_c_received *received;
    struct grpc_c_bytes bytes;
    ProtobufCMessage *message =
        gci_unpack_around(type, protobuf_c_message_descriptor_get_field(type, PAYLOAD),
                          in_slices(wire, sizeof(wire), 1, 1), 1000, &received, &error);

    (void)state;
    assert_non_null(message);
    assert_string_equal(((echo_request *)message)->text, "t");
    assert_true(grpc_c_received_bytes(received, 0, &bytes));
    assert_int_equal(bytes.length, 1);
    assert_memory_equal(bytes.pieces[0].iov_base, "c", 1);
    assert_false(grpc_c_received_bytes(received, 1, &bytes));
    grpc_c_received_release(received);
    protobuf_c_message_free_unpacked(message, NULL);
}

/* Whatever the bytes, cut or not: it takes what gci_unpack takes, and finds in it the same. */
static void it_takes_the_same_messages_as_the_plain_way(void **state)
{
    size_t packed;
    uint8_t *wire = pack_names(3, 20, &packed);
    unsigned seed = 7;
    unsigned took = 0;

    (void)state;
    for (unsigned round = 0; round < 20000; round++) {
        struct gci_error error;
        grpc_c_received *received;
        echo_loose *plain;
        ProtobufCMessage *around;
        size_t at = (seed = seed * 1103515245 + 12345) / 65536 % packed;
        uint8_t before = wire[at];
        size_t length = round % 3 == 0 ? at : packed;
        wire[at] = (uint8_t)(seed >> 8);
        plain = (echo_loose *)gci_unpack(&grpcc__test__loose__descriptor,
                                         in_slices(wire, length, 7, seed), 1 << 20, &error);
        around = gci_unpack_around(&grpcc__test__loose__descriptor, loose_names(),
                                   in_slices(wire, length, 7, seed), 1 << 20, &received, &error);
        wire[at] = before;
        assert_int_equal(plain != NULL, around != NULL);
        for (size_t i = 0; plain != NULL && i < plain->n_names; i++) {
            struct grpc_c_bytes bytes;
            assert_true(grpc_c_received_bytes(received, i, &bytes));
            assert_int_equal(bytes.length, plain->names[i].len);
        }
        if (plain != NULL) {
            took++;
            protobuf_c_message_free_unpacked(&plain->base, NULL);
            protobuf_c_message_free_unpacked(around, NULL);
            grpc_c_received_release(received);
        }
    }
    assert_in_range(took, 1000, 19000);
    free(wire);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup(a_payload_is_found_in_pieces, fresh),
        cmocka_unit_test_setup(a_compressed_payload_is_one_piece, fresh),
        cmocka_unit_test_setup(a_malformed_message_does_not_reach_its_handler, fresh),
        cmocka_unit_test_setup(taken_bytes_outlive_their_call_and_server, fresh),
        cmocka_unit_test_setup(a_streams_messages_are_left_where_they_came, fresh),
        cmocka_unit_test(a_message_in_eleven_hundred_slices_is_read),
        cmocka_unit_test(a_message_in_single_bytes_is_put_together),
        cmocka_unit_test(values_beyond_the_budget_are_refused),
        cmocka_unit_test(of_a_field_sent_twice_the_last_counts),
        cmocka_unit_test(it_takes_the_same_messages_as_the_plain_way),
    };

    return cmocka_run_group_tests_name("grpc_c_received", tests, NULL, NULL);
}
