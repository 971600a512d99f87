/* Metadata, in and out on both sides. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "grpc_c_fixture.h"

static const unsigned char binary[] = {0x00, 0xff, 0x0a, 0x00, 0x80};

static struct grpc_c_metadata text_entry(const char *key, const char *value)
{
    return (struct grpc_c_metadata){key, value, strlen(value)};
}

static struct grpc_c_metadata binary_entry(const char *key)
{
    return (struct grpc_c_metadata){key, binary, sizeof(binary)};
}

static void has_text(const struct grpc_c_metadata *list, size_t n, const char *key,
                     const char *value)
{
    const struct grpc_c_metadata *entry = grpc_c_metadata_find(list, n, key);

    assert_non_null(entry);
    assert_string_equal(entry->value, value);
    assert_int_equal(entry->length, strlen(value));
}

static void has_binary(const struct grpc_c_metadata *list, size_t n, const char *key)
{
    const struct grpc_c_metadata *entry = grpc_c_metadata_find(list, n, key);

    assert_non_null(entry);
    assert_int_equal(entry->length, sizeof(binary));
    assert_memory_equal(entry->value, binary, sizeof(binary));
    assert_int_equal(((const char *)entry->value)[entry->length], '\0');
}

/* -- a server that sends back what it gets ---------------------------------------------------- */

/* Entries whose keys begin with "h-" go back as headers, with "t-" as trailers. */
static void send_back(grpc_c_call *call)
{
    size_t n;
    const struct grpc_c_metadata *list = grpc_c_call_metadata(call, &n);

    for (size_t i = 0; i < n; i++) {
        if (strncmp(list[i].key, "h-", 2) == 0) {
            insist(grpc_c_call_add_header(call, &list[i]) == GRPC_C_METADATA_OK);
        } else if (strncmp(list[i].key, "t-", 2) == 0) {
            insist(grpc_c_call_add_trailer(call, &list[i]) == GRPC_C_METADATA_OK);
        }
    }
}

static void unary_back(grpc_c_call *call, const echo_request *request)
{
    echo_response response = ECHO_RESPONSE;

    send_back(call);
    if (request->number == GRPC_C_OK) {
        grpc_c_call_reply(call, &response.base);
    } else {
        grpc_c_call_fail(call, (enum grpc_c_code)request->number, "as asked");
    }
}

static void chat_back(grpc_c_call *call)
{
    send_back(call);
    grpc_c_call_send_headers(call);
    grpc_c_call_read(call);
}

static void chat_message_back(grpc_c_call *call, const echo_request *request)
{
    struct grpc_c_status ok = {.code = GRPC_C_OK};

    insist(request == NULL);
    grpc_c_call_finish(call, &ok);
}

static const struct echo_handlers back = {
    .unary = unary_back, .chat = chat_back, .chat_message = chat_message_back};

/* -- there and back --------------------------------------------------------------------------- */

static struct grpc_c_result call_with(const struct fixture *fixture, enum grpc_c_code wanted,
                                      const struct grpc_c_metadata *metadata, size_t n)
{
    struct grpc_c_call_options options = {
        .timeout_ms = PATIENCE_MS, .metadata = metadata, .n_metadata = n};
    struct grpc_c_result result = {0};
    echo_request request = ECHO_REQUEST;
    ProtobufCMessage *response;

    request.number = wanted;
    response = grpc_c_unary(fixture->channel, echo_unary, &request.base, &options, &result);
    assert_int_equal(response != NULL, result.code == GRPC_C_OK);
    if (response != NULL) {
        protobuf_c_message_free_unpacked(response, NULL);
    }
    return result;
}

static void a_unary_call_carries_it_both_ways(void **state)
{
    const struct grpc_c_metadata sent[] = {
        text_entry("h-text", "a b,c;~"), binary_entry("h-any-bin"),  text_entry("t-text", ""),
        binary_entry("t-any-bin"),       text_entry("dropped", "x"),
    };
    struct grpc_c_result result;
    struct fixture fixture;

    (void)state;
    fixture_start(&fixture, NULL, &back);
    result = call_with(&fixture, GRPC_C_OK, sent, 5);
    assert_int_equal(result.code, GRPC_C_OK);
    assert_int_equal(result.n_headers, 2);
    assert_int_equal(result.n_trailers, 2);
    has_text(result.headers, result.n_headers, "h-text", "a b,c;~");
    has_binary(result.headers, result.n_headers, "h-any-bin");
    has_text(result.trailers, result.n_trailers, "t-text", "");
    has_binary(result.trailers, result.n_trailers, "t-any-bin");
    assert_null(grpc_c_metadata_find(result.trailers, result.n_trailers, "h-text"));
    grpc_c_result_fini(&result);
    assert_null(result.headers);
    result = call_with(&fixture, GRPC_C_OK, NULL, 0);
    assert_int_equal(result.n_headers, 0);
    assert_null(result.headers);
    assert_null(result.trailers);
    grpc_c_result_fini(&result);
    fixture_stop(&fixture);
}

static void a_failed_call_carries_it_too(void **state)
{
    const struct grpc_c_metadata sent[] = {text_entry("h-text", "h"), binary_entry("t-any-bin")};
    struct grpc_c_result result;
    struct fixture fixture;

    (void)state;
    fixture_start(&fixture, NULL, &back);
    result = call_with(&fixture, GRPC_C_ABORTED, sent, 2);
    assert_int_equal(result.code, GRPC_C_ABORTED);
    assert_string_equal(result.message, "as asked");
    has_text(result.headers, result.n_headers, "h-text", "h");
    has_binary(result.trailers, result.n_trailers, "t-any-bin");
    grpc_c_result_fini(&result);
    fixture_stop(&fixture);
}

static void a_key_may_come_several_times(void **state)
{
    const struct grpc_c_metadata sent[] = {
        text_entry("t-many", "1"), text_entry("t-many", "2"), text_entry("t-many", "3"),
        text_entry("t-many", "4"), text_entry("t-many", "5"), text_entry("t-many", "6"),
    };
    struct grpc_c_result result;
    struct fixture fixture;

    (void)state;
    fixture_start(&fixture, NULL, &back);
    result = call_with(&fixture, GRPC_C_OK, sent, 6);
    assert_int_equal(result.n_trailers, 6);
    for (size_t i = 0; i < 6; i++) {
        assert_string_equal(result.trailers[i].key, "t-many");
        assert_string_equal(result.trailers[i].value, sent[i].value);
    }
    grpc_c_result_fini(&result);
    fixture_stop(&fixture);
}

static void headers_come_before_the_first_message(void **state)
{
    const struct grpc_c_metadata sent[] = {text_entry("h-text", "early"),
                                           binary_entry("t-any-bin")};
    struct grpc_c_call_options options = {
        .timeout_ms = PATIENCE_MS, .metadata = sent, .n_metadata = 2};
    struct grpc_c_result result = {0};
    const struct grpc_c_metadata *headers;
    echo_request request = ECHO_REQUEST;
    struct fixture fixture;
    grpc_c_stream *stream;
    size_t n;

    (void)state;
    fixture_start(&fixture, NULL, &back);
    stream = grpc_c_stream_open(fixture.channel, echo_chat, &options);
    headers = grpc_c_stream_headers(stream, &n); /* nobody has sent a message yet */
    has_text(headers, n, "h-text", "early");
    assert_ptr_equal(grpc_c_stream_headers(stream, &n), headers);
    assert_null(grpc_c_metadata_find(headers, n, "t-any-bin"));
    grpc_c_stream_finish(stream, &result);
    assert_int_equal(result.code, GRPC_C_OK);
    has_text(result.headers, result.n_headers, "h-text", "early");
    has_binary(result.trailers, result.n_trailers, "t-any-bin");
    grpc_c_result_fini(&result);
    stream = grpc_c_stream_open(fixture.channel, echo_spread, &options); /* no such handler */
    assert_int_equal(grpc_c_stream_write(stream, &request.base), 0);
    assert_null(grpc_c_stream_headers(stream, &n));
    assert_int_equal(n, 0);
    grpc_c_stream_finish(stream, NULL);
    fixture_stop(&fixture);
}

/* -- what may not be sent --------------------------------------------------------------------- */

static const struct {
    const char *key;
    const char *value;
    enum grpc_c_metadata_fault fault;
} entries[] = {
    {"x-a_b.c-9", "value", GRPC_C_METADATA_OK},
    {"x", " ", GRPC_C_METADATA_BAD_VALUE},
    {"x", "end ", GRPC_C_METADATA_BAD_VALUE},
    {"x", "line\n", GRPC_C_METADATA_BAD_VALUE},
    {"x", "caf\xc3\xa9", GRPC_C_METADATA_BAD_VALUE},
    {"x-bin", "line\n", GRPC_C_METADATA_OK},
    {"", "v", GRPC_C_METADATA_BAD_KEY},
    {NULL, "v", GRPC_C_METADATA_BAD_KEY},
    {"Upper", "v", GRPC_C_METADATA_BAD_KEY},
    {":path", "v", GRPC_C_METADATA_BAD_KEY},
    {"a b", "v", GRPC_C_METADATA_BAD_KEY},
    {"grpc-status", "v", GRPC_C_METADATA_RESERVED_KEY},
    {"grpc-timeout", "v", GRPC_C_METADATA_RESERVED_KEY},
    {"grpc-internal-encoding-request", "gzip", GRPC_C_METADATA_RESERVED_KEY},
    {"grpc-status-details-bin", "v", GRPC_C_METADATA_RESERVED_KEY},
    {"content-type", "v", GRPC_C_METADATA_RESERVED_KEY},
    {"te", "v", GRPC_C_METADATA_RESERVED_KEY},
    {"user-agent", "v", GRPC_C_METADATA_RESERVED_KEY},
    {"host", "v", GRPC_C_METADATA_RESERVED_KEY},
    {"connection", "v", GRPC_C_METADATA_RESERVED_KEY},
};

static void entries_are_checked(void **state)
{
    (void)state;
    for (size_t i = 0; i < sizeof(entries) / sizeof(entries[0]); i++) {
        struct grpc_c_metadata entry = text_entry(entries[i].key, entries[i].value);
        if (grpc_c_metadata_check(&entry) != entries[i].fault) {
            fail_msg("%s", entries[i].key);
        }
    }
    assert_string_equal(grpc_c_metadata_fault_text(GRPC_C_METADATA_RESERVED_KEY),
                        "the key is reserved by gRPC or HTTP/2");
}

static void clients_are_told_what_cannot_be_sent(void **state)
{
    const struct grpc_c_metadata sent[] = {text_entry("h-text", "h"),
                                           text_entry("grpc-timeout", "1S")};
    struct grpc_c_call_options options = {
        .timeout_ms = PATIENCE_MS, .metadata = sent, .n_metadata = 2};
    struct grpc_c_result result;
    echo_request request = ECHO_REQUEST;
    struct fixture fixture;
    grpc_c_stream *stream;

    (void)state;
    fixture_start(&fixture, NULL, &back);
    result = call_with(&fixture, GRPC_C_OK, sent, 2);
    assert_int_equal(result.code, GRPC_C_INVALID_ARGUMENT);
    assert_string_equal(result.message,
                        "metadata \"grpc-timeout\": the key is reserved by gRPC or HTTP/2");
    grpc_c_result_fini(&result);
    stream = grpc_c_stream_open(fixture.channel, echo_chat, &options);
    (void)grpc_c_stream_write(stream, &request.base);
    assert_null(grpc_c_stream_read(stream));
    grpc_c_stream_finish(stream, &result);
    assert_int_equal(result.code, GRPC_C_INVALID_ARGUMENT);
    assert_non_null(strstr(result.message, "\"grpc-timeout\""));
    grpc_c_result_fini(&result);
    fixture_stop(&fixture);
}

static void spread_too_late(grpc_c_call *call, const echo_request *request)
{
    struct grpc_c_metadata reserved = text_entry("grpc-encoding", "gzip");
    struct grpc_c_metadata fine = text_entry("fine", "1");
    struct grpc_c_status ok = {.code = GRPC_C_OK};
    echo_response response = ECHO_RESPONSE;

    (void)request;
    insist(grpc_c_call_add_header(call, &reserved) == GRPC_C_METADATA_RESERVED_KEY);
    insist(grpc_c_call_add_trailer(call, &reserved) == GRPC_C_METADATA_RESERVED_KEY);
    insist(grpc_c_call_add_header(call, &fine) == GRPC_C_METADATA_OK);
    grpc_c_call_write(call, &response.base, NULL, NULL);
    insist(grpc_c_call_add_header(call, &fine) == GRPC_C_METADATA_TOO_LATE);
    grpc_c_call_send_headers(call); /* does nothing by now */
    insist(grpc_c_call_add_trailer(call, &fine) == GRPC_C_METADATA_OK);
    grpc_c_call_finish(call, &ok);
}

static void handlers_are_told_what_cannot_be_sent(void **state)
{
    struct echo_handlers handlers = {.spread = spread_too_late};
    struct grpc_c_call_options patient = {.timeout_ms = PATIENCE_MS};
    struct grpc_c_result result = {0};
    echo_request request = ECHO_REQUEST;
    struct fixture fixture;
    grpc_c_stream *stream;

    (void)state;
    fixture_start(&fixture, NULL, &handlers);
    stream = grpc_c_stream_open(fixture.channel, echo_spread, &patient);
    assert_int_equal(grpc_c_stream_write(stream, &request.base), 0);
    grpc_c_stream_finish(stream, &result);
    assert_int_equal(result.code, GRPC_C_OK);
    assert_int_equal(result.n_headers, 1);
    assert_int_equal(result.n_trailers, 1);
    grpc_c_result_fini(&result);
    fixture_stop(&fixture);
}

/* -- size ------------------------------------------------------------------------------------- */

static char longest[GRPC_C_METADATA_MAX];

/* Fills the headers, the trailers, or both with two halves, and finds no room for more. */
static void fill(grpc_c_call *call,
                 enum grpc_c_metadata_fault (*add)(grpc_c_call *call,
                                                   const struct grpc_c_metadata *entry))
{
    struct grpc_c_metadata half = {"half", longest, GRPC_C_METADATA_MAX / 2 - 36};
    struct grpc_c_metadata small = text_entry("s", "");

    insist(add(call, &half) == GRPC_C_METADATA_OK);
    insist(add(call, &half) == GRPC_C_METADATA_OK);
    insist(add(call, &small) == GRPC_C_METADATA_TOO_LARGE);
}

static void fail_with_much(grpc_c_call *call, const echo_request *request)
{
    struct grpc_c_status status = {
        .code = GRPC_C_DATA_LOSS, .message = longest, .details = "\x08\x0f", .details_length = 2};

    (void)request;
    fill(call, grpc_c_call_add_header);
    fill(call, grpc_c_call_add_trailer);
    grpc_c_call_finish(call, &status);
}

static void metadata_has_a_limit_that_peers_take(void **state)
{
    struct echo_handlers handlers = {.unary = fail_with_much};
    struct grpc_c_metadata too_much = {"much", longest, GRPC_C_METADATA_MAX - 35};
    struct grpc_c_result result;
    struct fixture fixture;

    (void)state;
    memset(longest, 'x', sizeof(longest) - 1);
    assert_int_equal(grpc_c_metadata_check(&too_much), GRPC_C_METADATA_TOO_LARGE);
    too_much.length--;
    assert_int_equal(grpc_c_metadata_check(&too_much), GRPC_C_METADATA_OK);
    too_much.key = "much-bin"; /* a third more in base64 */
    assert_int_equal(grpc_c_metadata_check(&too_much), GRPC_C_METADATA_TOO_LARGE);
    too_much.key = "much";
    fixture_start(&fixture, NULL, &handlers);
    result = call_with(&fixture, GRPC_C_OK, &too_much, 1);
    assert_int_equal(result.code, GRPC_C_DATA_LOSS); /* neither side's metadata was refused */
    assert_in_range(strlen(result.message), 1000, GRPC_C_METADATA_MAX - 1);
    assert_int_equal(result.details_length, 2);
    assert_int_equal(result.n_headers, 2);
    assert_int_equal(result.n_trailers, 2);
    grpc_c_result_fini(&result);
    fixture_stop(&fixture);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_unary_call_carries_it_both_ways),
        cmocka_unit_test(a_failed_call_carries_it_too),
        cmocka_unit_test(a_key_may_come_several_times),
        cmocka_unit_test(headers_come_before_the_first_message),
        cmocka_unit_test(entries_are_checked),
        cmocka_unit_test(clients_are_told_what_cannot_be_sent),
        cmocka_unit_test(handlers_are_told_what_cannot_be_sent),
        cmocka_unit_test(metadata_has_a_limit_that_peers_take),
    };

    return cmocka_run_group_tests_name("grpc_c_metadata", tests, NULL, NULL);
}
